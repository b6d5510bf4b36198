"""Weights on the disk, and what is stored with them: threshold, likelihood, posterior, digest.

A folder of weights holds a checkpoint whose prefix is the folder itself, in the reference's layout
(`.index`, `.data-00000-of-00001`), or, where TensorFlow was missing, `weights.npz`.
"""
import contextlib
import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np

from classifier.environment import import_tensorflow
from classifier.errors import InputError
from classifier.image_posterior import ImagePosterior
from classifier.likelihood import CONFIDENCE_EDGES
from classifier.models import COMP_TYPES, CompType, build_network
from classifier.posterior import LEVELS

SAVE_FOLDER = Path(__file__).resolve().parent / 'save'  # the shipped weights
THRESHOLD_FILE = 'threshold.txt'
VAL_LOSS_FILE = 'val_loss.txt'
LIKELIHOOD_FILE = 'likelihood.npz'
POSTERIOR_FILE = 'posterior.npz'
MODEL_FILE = 'comp_cls.tflite'  # the same network for LiteRT, made by to_tflite.py
FEATURES_FILE = 'comp_features.tflite'  # the network up to its features, by --features
COMPANION_FILES = (THRESHOLD_FILE, LIKELIHOOD_FILE, POSTERIOR_FILE)  # of weights; all optional
WEIGHTS_FILE = 'weights.npz'    # arrays in the order of Keras' get_weights()
CHECKPOINT_FILES = ('.index', '.data-00000-of-00001')
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError,
               zipfile.BadZipFile)


def best_folder(comp_type: CompType) -> Path:
    """Where the shipped weights of that compression type lie."""
    return SAVE_FOLDER / comp_type.name / 'best'


def refuse_shipped(folder: str | os.PathLike) -> None:
    """InputError if a folder to write to is among the shipped weights."""
    if SAVE_FOLDER in [(path := Path(folder).resolve()), *path.parents]:
        raise InputError(f'{folder}: holds the shipped weights; choose another --out_path '
                         '(train.py --install puts finished weights in their place)')


def weights_digest(folder: str | os.PathLike) -> str | None:
    """SHA-256 of the weights in a folder, in hexadecimal; None without any."""
    for name in (CHECKPOINT_FILES[1], WEIGHTS_FILE):
        if (path := Path(folder) / name).is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
    return None


def stored_threshold(comp_type: CompType, folder: str | os.PathLike) -> float:
    """The confidence threshold, 0..100, stored with these weights, else the compression type's.

    Parameters
    ----------
    comp_type : CompType
    folder : path-like

    Raises
    ------
    InputError
        What is stored is no such number.
    """
    path = Path(folder) / THRESHOLD_FILE
    if not path.exists():
        return comp_type.threshold
    with contextlib.suppress(ValueError):
        if 0 <= (threshold := float(path.read_text())) <= 100:
            return threshold
    raise InputError(f'{path}: not a confidence threshold in 0..100; correct it or delete it')


def stored_likelihood(folder: str | os.PathLike, required: bool = False) -> np.ndarray | None:
    """The table of `likelihood.fit_log_likelihood` stored with these weights.

    Parameters
    ----------
    folder : path-like
    required : bool
        Whether a missing file is an error, too.

    Returns
    -------
    float32 array, shape (101, 17, 101), or None
        None where there is no file.

    Raises
    ------
    InputError
        The file is damaged, or missing and required.
    """
    def read(file):
        found = file['log_likelihood'].astype(np.float32)
        if found.shape != (LEVELS, len(CONFIDENCE_EDGES) + 1, 101) or not np.isfinite(found).all():
            raise ValueError
        return found
    return _stored(Path(folder) / LIKELIHOOD_FILE, required, read, '--fit likelihood')


def stored_posterior(folder: str | os.PathLike, required: bool = False) -> ImagePosterior | None:
    """The `ImagePosterior` stored with these weights; parameters and errors as above."""
    return _stored(Path(folder) / POSTERIOR_FILE, required, ImagePosterior.from_arrays,
                   '--fit posterior')


def _stored(path, required, read, option):
    """What `read` makes of an .npz; None for a missing one that is not required."""
    if not path.exists() and not required:
        return None
    with contextlib.suppress(*_UNREADABLE), np.load(path, allow_pickle=False) as file:
        return read(file)
    raise InputError(f'{path}: missing or damaged; make it with evaluate_cls.py {option} on '
                     'training photos, or choose --fusion median')


def load_network(comp_type: CompType, path: str | os.PathLike):
    """The network with stored weights, a `tf_keras.Model`.

    Parameters
    ----------
    comp_type : CompType
    path : path-like
        A checkpoint folder, a folder with weights.npz, or an .npz file.

    Raises
    ------
    InputError
        The weights are missing, Git LFS pointers, damaged, not finite, or of another compression
        type.
    """
    weights = _npz_weights(path)
    if weights is not None:
        network = build_network(comp_type)
        if [w.shape for w in weights] != [w.shape for w in network.get_weights()]:
            raise InputError(f'{path}: these weights are not of {comp_type.name}')
        network.set_weights(weights)
        return network
    prefix = _checkpoint_prefix(path, 'train some with train.py or name a folder with --weights')
    tf, _ = import_tensorflow()
    with _damage_named(path):
        shapes = tf.compat.v1.train.NewCheckpointReader(prefix).get_variable_to_shape_map()
    first_conv = shapes.get('layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE')
    if first_conv is None:
        raise InputError(f'{path}: a checkpoint, but not of this network')
    if first_conv != [3, 3, 3, comp_type.k]:
        known = [t.name for t in COMP_TYPES.values() if first_conv == [3, 3, 3, t.k]]
        raise InputError(f'{path}: these weights are not of {comp_type.name}'
                         + (f'; they fit --comp_type {known[0]}' if known else ''))
    return load_checkpoint(build_network(comp_type), path)


def load_checkpoint(network, folder: str | os.PathLike, advice: str = 'train it first'):
    """Set a Keras network to the weights of a checkpoint folder, and return it.

    Parameters
    ----------
    network : tf_keras.Model
    folder : path-like
    advice : str
        What the message about missing weights ends with.

    Raises
    ------
    InputError
        The weights are missing, damaged, not of this network, or not finite.
    """
    prefix = _checkpoint_prefix(folder, advice)
    with _damage_named(folder):
        network.load_weights(prefix).assert_existing_objects_matched().expect_partial()
    _finite(network.get_weights(), folder)
    return network


def save_checkpoint(network, folder: str | os.PathLike) -> None:
    """Write a Keras network's weights to a folder as a checkpoint in the reference's layout."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    network.save_weights(os.path.join(folder, ''), save_format='tf')


def load_arrays(path: str | os.PathLike) -> list[np.ndarray]:
    """The arrays that `files.save_arrays` wrote without names; InputError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[f'arr_{i}'] for i in range(len(file.files))]
    except FileNotFoundError:
        raise InputError(f'{path}: no such file; train.py writes it') from None
    except _UNREADABLE:
        raise InputError(f'{path}: damaged; make it again with train.py') from None


def load_weights(comp_type: CompType, path: str | os.PathLike) -> list[np.ndarray]:
    """Weights in the order of Keras' `get_weights`; only a checkpoint needs TensorFlow.

    Parameters
    ----------
    comp_type : CompType
    path : path-like
        A checkpoint folder, a folder with weights.npz, or an .npz file.

    Raises
    ------
    InputError
        As from `load_network`, but for the shapes in an .npz, which are not checked.
    """
    weights = _npz_weights(path)
    return load_network(comp_type, path).get_weights() if weights is None else weights


def refuse_wildcards(folder: str | os.PathLike) -> None:
    """InputError for a path that TensorFlow would take for a pattern."""
    if any(c in str(Path(folder).resolve()) for c in '[]*?'):
        raise InputError(f'{folder}: TensorFlow takes [ ] * ? in a path for wildcards; rename it')


def _npz_weights(path):
    """The arrays, which are finite, of the .npz that a path stands for; None for a checkpoint."""
    npz = Path(path) if Path(path).suffix == '.npz' else Path(path) / WEIGHTS_FILE
    if npz == Path(path) or npz.is_file() and not (Path(path) / '.index').is_file():
        return _finite(load_arrays(npz), path)
    return None


def _finite(weights, path):
    if not all(np.isfinite(w).all() for w in weights):
        raise InputError(f'{path}: the weights are not finite numbers; train them again')
    return weights


def _checkpoint_prefix(folder, advice):
    refuse_wildcards(folder)
    for path in (Path(folder) / name for name in CHECKPOINT_FILES):
        if not path.is_file():
            raise InputError(f'{folder}: no weights there ({path.name} is missing); {advice}')
        with path.open('rb') as file:
            if file.read(40).startswith(b'version https://git-lfs'):
                raise InputError(f'{path}: a Git LFS pointer, not the weights; '
                                 'fetch them with "git lfs pull"')
    return os.path.join(folder, '')


@contextlib.contextmanager
def _damage_named(folder):
    """Turn TensorFlow's many errors about a damaged checkpoint into one InputError."""
    tf, _ = import_tensorflow()
    try:
        yield
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(f'{folder}: damaged checkpoint ({reason}); '
                         'fetch or train it again') from None
