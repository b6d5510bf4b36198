"""Batches from photos in memory, whose crops are compressed, and edited, as they are drawn.

A crop shows a compressed photo at any phase of the block grid. The photos must never have been
compressed before. `coded_photos` does the same on a device.
"""
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from classifier.batch import ordered_map
from classifier.edits import edited
from classifier.environment import cores
from classifier.images import compress, draw_chroma, list_images, read_image
from classifier.patches import REDRAWS, Patches
from classifier.sources import usable_images

MAX_QUALITY = 100
_MARGIN = 8   # px of JPEG around a crop, so that it never shows the border of a compressed tile
_PHASES = 16  # of the grid of 4:2:0 chroma blocks
# Side of a tile to edit, in sides of a crop. The crop comes from its middle third, which is large
# enough even if the tile is reduced to a fifth, the farthest that `edits` goes. What resizing,
# blurring and sharpening carry in from the border then reaches 13 px, and a third has 16 or more.
_EDITED_TILE = 3 * 5


def read_photos(folder: str | os.PathLike, side: int, recursive: bool) -> list[np.ndarray]:
    """The photos in a folder that are of at least `side` px; InputError for none."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(read_image, usable_images(list_images(folder, recursive), side)))


class PhotoSource:
    """Photos in memory; a crop is cut from the middle of a tile compressed when it is drawn.

    Parameters
    ----------
    folder : path-like
    side : int
        Of a crop, in px.
    recursive : bool
        Read subfolders too.
    chroma : str
        '4:2:0' or 'mixed', as in `images.draw_chroma`.
    augment : bool
        For the patch network: draw flat crops again, up to 3 times, and mirror each axis in half
        of the crops.
    edits : bool
        Edit a share of the tiles after compression, as `edits.edited` does.
    uncompressed : float
        Share of crops of the photos as they are, 0..1; their label is 100.

    Raises
    ------
    InputError
        No photo can be used.
    """

    def __init__(self, folder: str | os.PathLike, side: int, recursive: bool = False,
                 chroma: str = '4:2:0', augment: bool = True, edits: bool = False,
                 uncompressed: float = 0):
        self.side, self.chroma, self.augment = side, chroma, augment
        self.edits, self.uncompressed = edits, uncompressed
        self.tile = _EDITED_TILE * side if edits else side + 2 * _MARGIN + _PHASES
        self.photos = read_photos(folder, self.tile, recursive)

    def __len__(self):
        return len(self.photos)

    def draw(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Crops of photos at random qualities.

        Parameters
        ----------
        number : int
        rng : np.random.Generator

        Returns
        -------
        x : uint8 array, shape (number, side, side, 3)
            BGR pixels.
        quality : uint8 array, shape (number,)
            1..100; that of a photo as it is is 100.
        """
        x = np.empty((number, self.side, self.side, 3), np.uint8)
        quality = np.empty(number, np.uint8)
        for i in range(number):
            for _ in range(1 + REDRAWS * self.augment):
                photo = self.photos[rng.integers(len(self.photos))]
                top, left = rng.integers(np.array(photo.shape[:2]) - self.tile + 1)
                tile = np.ascontiguousarray(photo[top:top + self.tile, left:left + self.tile])
                x[i], quality[i] = self._crop(tile, rng)
                if (x[i] != x[i, 0, 0]).any():
                    break
        if self.augment:
            for axis, mirrored in zip((1, 2), rng.random((2, number)) < 0.5):
                x[mirrored] = np.flip(x[mirrored], axis)
        return x, quality

    def _crop(self, tile, rng):
        """A crop of a tile that is compressed or not, edited or not, and its label."""
        quality, coded = int(rng.integers(1, MAX_QUALITY + 1)), tile
        dy, dx = _MARGIN + rng.integers(_PHASES, size=2)
        if self.uncompressed and rng.random() < self.uncompressed:
            quality = MAX_QUALITY
        else:
            coded = compress(tile, quality, draw_chroma(self.chroma, rng))
        if self.edits:
            coded, _ = edited(coded, rng, 3 * self.side)
            thirds = np.array(coded.shape[:2]) // 3
            dy, dx = thirds + rng.integers(thirds - self.side + 1)
        return coded[dy:dy + self.side, dx:dx + self.side], quality

    def batches(self, batch_size: int, seed: int,
                step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Endless batches from that step on, as `PatchFile.batches`, drawn ahead on all cores."""
        with ThreadPoolExecutor(cores()) as pool:
            yield from ordered_map(
                pool, lambda n: self.draw(batch_size, np.random.default_rng((seed, n))),
                itertools.count(step), 2 * cores())

    def fixed(self, number: int = 16_384) -> Patches:
        """Crops to validate on, the same every time."""
        return Patches(*self.draw(number, np.random.default_rng(0)), self.side)
