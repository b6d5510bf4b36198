"""Training patches in HDF5: how they are laid out and read.

`x_noise`   uint8 (N, 24, 24, 3) BGR, cut from a compressed image on the block grid;
            (N, 16, 16, 3) is accepted too
`y_quality` uint8 (N,), 1..100

24x24 is one block more than the network's input, so that a fresh 16x16 crop at any of the 9x9
offsets can be drawn every time a patch is seen: the network then learns nothing about the phase
of the block grid. The attribute `sha256` of a file made by gen_data.py is the digest of both
datasets, so that damage is noticed before the work.
"""
import hashlib
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np

from classifier.batch import ordered_map
from classifier.cli import Progress
from classifier.errors import InputError
from classifier.models import CompType

DIGEST = 'sha256'
REDRAWS = 3         # of a flat patch (reference)
CHUNK = 32          # patches read together
AHEAD = 8           # batches
MIX_BATCHES = 64    # batches' worth of runs that are shuffled together in memory


def content_digest(x: h5py.Dataset, y: h5py.Dataset) -> str:
    """SHA-256, in hexadecimal, of all qualities and patches; reads both from the disk."""
    digest = hashlib.sha256(y[:])
    with Progress(len(x), 'patches') as progress:
        for start in range(0, len(x), 64 * CHUNK):
            progress.update(start, 'reading them once')
            digest.update(x[start:start + 64 * CHUNK])
    return digest.hexdigest()


class Patches:
    """Patches, uint8 (n, s, s, 3), of which crops of `side` px are used, and qualities, (n,)."""

    def __init__(self, x, y, side: int):
        self.x, self.y, self.side = x, y, side

    def __len__(self):
        return len(self.y)

    def in_order(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All patches once, each with one fixed crop: for validation."""
        rng = np.random.default_rng(0)
        for start in range(0, len(self), batch_size):
            yield (random_crops(self.x[start:start + batch_size], self.side, rng),
                   self.y[start:start + batch_size])


class PatchFile(Patches):
    """A checked patch file, open for reading.

    Parameters
    ----------
    path : path-like
        An HDF5 file of patches as described above.
    comp_type : CompType
        Crops of `comp_type.patch` px come out of the file.

    Raises
    ------
    InputError
        It is no such file, or damaged.
    """

    def __init__(self, path: str | os.PathLike, comp_type: CompType):
        self.path = path
        try:
            self.file = h5py.File(path, 'r')
            x, y = self.file.get('x_noise'), self.file.get('y_quality')
        except FileNotFoundError:
            self._refuse('no such file')
        except (OSError, RuntimeError, ValueError, KeyError):
            self._refuse('not a readable HDF5 file')
        if not (isinstance(x, h5py.Dataset) and isinstance(y, h5py.Dataset)):
            self._refuse('the datasets x_noise and y_quality are not in it')
        if x.dtype != np.uint8 or y.dtype != np.uint8:
            self._refuse('x_noise and y_quality must be uint8')
        if x.ndim != 4 or x.shape[1] != x.shape[2] or x.shape[3] != 3 or y.ndim != 1:
            self._refuse('x_noise must be (N, side, side, 3) and y_quality (N,)')
        if x.shape[1] < comp_type.patch:
            self._refuse(f'its patches are {x.shape[1]} px, {comp_type.patch} px are needed')
        if len(x) != len(y) or not len(x):
            self._refuse(f'{len(x)} patches and {len(y)} qualities')
        try:
            digest = content_digest(x, y).encode()  # damage shows here, not hours later
            super().__init__(x, y[:], comp_type.patch)
        except OSError:
            self._refuse('its data cannot be read')
        if self.file.attrs.get(DIGEST, digest) != digest:
            self._refuse('damaged, its data are not those that were written')
        if self.y.min() < 1 or self.y.max() > comp_type.max_quality:
            self._refuse(f'qualities must be 1..{comp_type.max_quality}')

    def _refuse(self, reason):
        raise InputError(f'{self.path}: {reason}; make it again with gen_data.py') from None

    def batches_per_pass(self, batch_size: int) -> int:
        """How many whole batches one pass over the file gives; InputError for none."""
        if len(self) < batch_size:
            raise InputError(f'{self.path}: {len(self)} patches are less than one batch; '
                             f'make more or lower --batch_size to {len(self)}')
        return len(self) // batch_size

    def batches(self, batch_size: int, seed: int,
                step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Endless shuffled batches for training, from that step of the training on.

        Parameters
        ----------
        batch_size : int
        seed, step : int
            What a step sees depends on these alone, so that a resumed training sees what it would
            have seen.

        Yields
        ------
        crops : uint8 array, shape (batch_size, 16, 16, 3)
        quality : uint8 array, shape (batch_size,)

        Raises
        ------
        InputError
            The file holds less than one batch.
        """
        batches = self._batches(batch_size, seed, step)
        with ThreadPoolExecutor(1) as pool:  # which reads ahead of the training
            yield from ordered_map(pool, lambda _: next(batches), itertools.count(), AHEAD)

    def _batches(self, batch_size, seed, step):
        per_pass = self.batches_per_pass(batch_size)
        while True:
            pass_, first = divmod(step, per_pass)
            shuffled = self._shuffled_pass(batch_size, np.random.default_rng((seed, pass_)))
            for x, y in itertools.islice(shuffled, first, None):
                yield random_crops(x, self.side, np.random.default_rng((seed, pass_, step))), y
                step += 1

    def _shuffled_pass(self, batch_size, rng):
        """One pass over the file in whole batches.

        Runs of patches are drawn in random order and 64 batches' worth of them mixed: nearly as
        random as patch by patch, at the speed of reading in runs.
        """
        starts = CHUNK * rng.permutation(-(-len(self) // CHUNK))
        mixed = -(-MIX_BATCHES * batch_size // CHUNK)
        x, y = self.x[:0], self.y[:0]
        for first in range(0, len(starts), mixed):
            chosen = np.sort(starts[first:first + mixed])
            more_x, more_y = (np.concatenate([data[i:i + CHUNK] for i in chosen])
                              for data in (self.x, self.y))
            order = rng.permutation(len(more_y))
            x, y = np.concatenate([x, more_x[order]]), np.concatenate([y, more_y[order]])
            while len(y) >= batch_size:
                yield x[:batch_size], y[:batch_size]
                x, y = x[batch_size:], y[batch_size:]


def random_crops(patches: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A crop of `side` px from each patch, its offset and mirroring drawn for each on its own.

    The first offset and the last are drawn half as often as the others: in patches one block
    larger than the crop they are the same phase of the block grid. Each axis is mirrored in half
    of the crops: the DCT of a mirrored block differs in signs alone, so that its quantization is
    the same.

    Parameters
    ----------
    patches : uint8 array, shape (n, s, s, 3)
    side : int
        Of a crop, in px; patches of that side are returned as they are.
    rng : numpy.random.Generator

    Returns
    -------
    uint8 array, shape (n, side, side, 3)
    """
    n, size = patches.shape[:2]
    if size == side:
        return patches
    # Patch by patch, so that the draws do not depend on the size of the batch.
    draws = rng.random((n, 4))
    top, left = np.rint(draws[:, :2] * (size - side)).astype(int).T[:, :, None, None]
    span = np.arange(side)
    up, across = np.where(draws[:, 2:, None] < 0.5, span, span[::-1]).swapaxes(0, 1)
    return patches[np.arange(n)[:, None, None], top + up[:, :, None], left + across[:, None]]
