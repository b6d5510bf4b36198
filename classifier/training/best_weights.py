"""The weights that a training starts from, its best ones, and installing them as the shipped."""
import contextlib
import importlib.util
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from classifier.checkpoints import (CHECKPOINT_FILES, COMPANION_FILES, LIKELIHOOD_FILE,
                                    MODEL_FILE, POSTERIOR_FILE, THRESHOLD_FILE, VAL_LOSS_FILE,
                                    WEIGHTS_FILE, best_folder, load_network, load_weights,
                                    save_checkpoint, stored_likelihood, stored_posterior,
                                    stored_threshold, weights_digest)
from classifier.errors import InputError
from classifier.files import put_in_place, save_arrays, sync_folder
from classifier.models import CompType, build_network
from classifier.runtime import read_model


def load_base(path: str | os.PathLike, comp_type: CompType, random: list[np.ndarray],
              base_type: CompType | None = None) -> list[np.ndarray]:
    """Weights for a network of `comp_type`: stored ones, or those of a narrower network, widened.

    The narrow network's weights go to the first channels, which take nothing from the new ones: so
    both answer alike. The new channels stay as in `random` and contribute as training goes on.

    Parameters
    ----------
    path : path-like
        Of the stored weights, as `load_weights` takes it.
    comp_type : CompType
    random : list of float32 arrays
        Weights of a network of `comp_type`, as Keras' `get_weights()` gives them.
    base_type : CompType, optional
        Of the stored weights, if they are of a narrower network.

    Returns
    -------
    list of float32 arrays
        In the order and of the shapes of `random`.

    Raises
    ------
    InputError
        The weights are missing, damaged or of another type, or `base_type` is the wider one.

    References
    ----------
    Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016.
    """
    stored_type = base_type or comp_type
    if stored_type.k > comp_type.k:
        raise InputError(f'--base_type {stored_type.name} is wider than {comp_type.name}; '
                         'only a narrower network can be widened')
    arrays, weights = load_weights(stored_type, path), [array.copy() for array in random]
    fits = np.equal if stored_type == comp_type else np.less_equal
    if len(arrays) != len(weights) or arrays[0].shape != (3, 3, 3, stored_type.k) or not all(
            a.ndim == w.ndim and fits(a.shape, w.shape).all() for a, w in zip(arrays, weights)):
        raise InputError(f'{path}: these weights are not of {stored_type.name}')
    for wide, array in zip(weights, arrays):
        if wide.ndim > 1:  # a kernel, (..., channels, filters)
            wide[..., :array.shape[-1]] = 0
        wide[tuple(map(slice, array.shape))] = array
    return weights


def has_tensorflow() -> bool:
    """Whether checkpoints can be written here."""
    return all(map(importlib.util.find_spec, ('tensorflow', 'tf_keras')))


def save_weights(comp_type: CompType, arrays: list[np.ndarray], folder: Path) -> None:
    """Write weights to a folder: a checkpoint, or weights.npz where TensorFlow is missing."""
    if not has_tensorflow():
        return save_arrays(folder / WEIGHTS_FILE, *arrays)
    network = build_network(comp_type)
    network.set_weights(arrays)
    save_checkpoint(network, folder)


class BestWeights:
    """The folder of the best weights so far, only ever replaced as a whole, by better ones.

    A threshold stored with the weights before or with `base` stays: it is the best guess until it
    is measured again.

    Parameters
    ----------
    folder : Path
    load : callable
        From a folder to weights in the order of `get_weights()`.
    save : callable
        Gets weights and the folder to write them to.
    base : path-like, optional
        The weights that the training starts from.
    """

    def __init__(self, folder: Path, load: Callable, save: Callable,
                 base: str | os.PathLike | None = None):
        self.folder, self.load, self.save, self.base = folder, load, save, base
        self.val_loss = math.inf

    def measure(self, validate: Callable[[list[np.ndarray]], float]) -> None:
        """Validate what is there: losses on two validation sets do not compare."""
        _recover(self.folder)
        if self.folder.exists():
            try:
                self.val_loss = validate(self.load(self.folder))
            except InputError as error:
                raise InputError(f'{error}, delete that folder or choose another '
                                 '--out_path') from None

    def offer(self, weights: list[np.ndarray], val_loss: float) -> bool:
        """Keep these weights if their validation loss is lower; returns whether it is."""
        if not val_loss < self.val_loss:
            return False
        with _new_folder(self.folder) as new:
            self.save(weights, new)
            (new / VAL_LOSS_FILE).write_text(f'{val_loss:.4f}\n')
            for folder in (self.folder, Path(self.base or self.folder)):
                if (folder / THRESHOLD_FILE).exists():
                    shutil.copy(folder / THRESHOLD_FILE, new)
        self.val_loss = val_loss
        return True


def install(comp_type: CompType, source: Path) -> None:
    """Replace the shipped weights and what belongs to them by a folder's, and say what was there.

    Parameters
    ----------
    comp_type : CompType
    source : Path
        The folder: weights, and threshold, likelihood or posterior, and model file where
        there are any.

    Raises
    ------
    InputError
        Something in the folder is missing or damaged; nothing has changed.
    """
    folder = best_folder(comp_type)
    _recover(folder)
    network = load_network(comp_type, source)
    stored_threshold(comp_type, source)
    stored_likelihood(source)
    fused = POSTERIOR_FILE if stored_posterior(source) else LIKELIHOOD_FILE
    names = [name for name in (*CHECKPOINT_FILES, 'checkpoint', VAL_LOSS_FILE, *COMPANION_FILES,
                               MODEL_FILE) if (source / name).is_file()]
    if MODEL_FILE in names:
        read_model(comp_type, source / MODEL_FILE)
    before = _described(folder)
    with _new_folder(folder) as new:
        if CHECKPOINT_FILES[0] not in names:  # weights.npz
            save_checkpoint(network, new)
        for name in names:
            shutil.copyfile(source / name, new / name)
    missing = [name for name in (THRESHOLD_FILE, fused, MODEL_FILE) if name not in names]
    print(f'{folder}\n  had {before}\n  has {_described(folder)}, from {source}'
          + f', without {" and ".join(missing)}' * bool(missing))


def _described(folder):
    loss = folder / VAL_LOSS_FILE
    return (f'weights {(weights_digest(folder) or "none")[:12]}, validation loss '
            f'{loss.read_text().strip() if loss.is_file() else "unknown"}')


def _recover(folder):
    """Put back what a run that was killed between two renames had moved away."""
    old = folder.with_name(f'{folder.name}.old')
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists() and not folder.is_dir():
        raise InputError(f'{folder}: is not a folder; move it away')


@contextlib.contextmanager
def _new_folder(folder):
    """A folder to fill that then replaces `folder`, synced to the disk before and after."""
    new, old = folder.with_name(f'{folder.name}.part'), folder.with_name(f'{folder.name}.old')
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    for path in new.iterdir():
        with path.open('rb') as file:
            os.fsync(file.fileno())
    sync_folder(new)
    if folder.exists():
        folder.rename(old)
    put_in_place(new, folder)
    shutil.rmtree(old, ignore_errors=True)
