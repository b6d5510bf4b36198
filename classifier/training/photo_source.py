"""Batches from photos in memory, tiles of which are compressed, and edited, all the time.

A crop shows a compressed photo at any phase of the block grid. The photos must never have been
compressed before. `coded_photos` does the same on a device.

Coding a tile for each crop would take a sixth of a training step's time on the same cores and,
with edits, several times as long as the step. So CUTS crops are cut from one tile, a little larger,
and the crops of MIX_BATCHES batches are mixed. Each by itself is distributed as if it had a tile of
its own: any place of any photo, any quality, phase, chroma and edit. But the crops of a tile share
its quality, chroma and edits, lie SPREAD px from each other at most, and come in the same
MIX_BATCHES batches, CUTS / MIX_BATCHES of them in each on average.
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
from classifier.patches import MIX_BATCHES, REDRAWS, Patches
from classifier.sources import usable_images

MAX_QUALITY = 100
_MARGIN = 8   # px of JPEG around a crop, so that it never shows the border of a compressed tile
_PHASES = 16  # of the grid of 4:2:0 chroma blocks
# Side of a tile to edit, in sides of a crop. The crop comes from its middle third, which is large
# enough even if the tile is reduced to a fifth, the farthest that `edits` goes. What resizing,
# blurring and sharpening carry in from the border then reaches 13 px, and a third has 16 or more.
_EDITED_TILE = 3 * 5
CUTS, EDITED_CUTS = 32, 128  # crops of a tile; an edit takes some ten times as long as the coding
SPREAD = 64                  # px, the farthest between two crops of a tile but for their phases


def read_photos(folder: str | os.PathLike, side: int, recursive: bool) -> list[np.ndarray]:
    """The photos in a folder that are of at least `side` px; InputError for none."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(read_image, usable_images(list_images(folder, recursive), side)))


class PhotoSource:
    """Photos in memory; crops are cut from tiles of them that are compressed for a few batches.

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
        For the patch network: several crops of a tile in batches, flat crops drawn again, up to 3
        times, and each axis mirrored in half of the crops.
    edits : bool
        Edit a share of the tiles after compression, as `edits.edited` does.
    uncompressed : float
        Share of tiles of the photos as they are, 0..1; their label is 100.

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
        self.cuts = 1 if not augment else EDITED_CUTS if edits else CUTS
        # Of a crop alone; those of several crops are larger by up to SPREAD - 1.
        self.tile = _EDITED_TILE * side if edits else side + 2 * _MARGIN + _PHASES
        self.photos = read_photos(folder, self.tile, recursive)

    def __len__(self):
        return len(self.photos)

    def draw(self, number: int, rng: np.random.Generator,
             cuts: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Crops of photos at random qualities.

        Parameters
        ----------
        number : int
        rng : np.random.Generator
        cuts : int
            Of one tile, one after the other.

        Returns
        -------
        x : uint8 array, shape (number, side, side, 3)
            BGR pixels.
        quality : uint8 array, shape (number,)
            1..100; that of a photo as it is is 100.
        """
        x = np.empty((number, self.side, self.side, 3), np.uint8)
        quality, again = np.empty(number, np.uint8), np.arange(number)
        for _ in range(1 + REDRAWS * self.augment):
            for some in np.split(again, range(cuts, len(again), cuts)):
                self._cut(x, quality, some, rng, SPREAD if cuts > 1 else 1)
            again = again[(x[again] == x[again, :1, :1]).all(axis=(1, 2, 3))]
            if not len(again):
                break
        if self.augment:
            for axis, mirrored in zip((1, 2), rng.random((2, number)) < 0.5):
                x[mirrored] = np.flip(x[mirrored], axis)
        return x, quality

    def _cut(self, x, quality, some, rng, spread):
        """Fill `some` of the crops and qualities from one tile, compressed or not, edited or not.

        Places where a tile of `self.tile` px fits, a crop's own, are divided into cells of
        `spread` px at a random offset; one of the cells is drawn with a place that is in it, so
        that every place is as likely as any other.
        """
        photo = self.photos[rng.integers(len(self.photos))]
        room = np.array(photo.shape[:2]) - self.tile
        cell = rng.integers(room + 1) - rng.integers(spread, size=2)
        (top, left), last = np.maximum(cell, 0), np.minimum(cell + spread - 1, room)
        bottom, right = last + self.tile
        tile = np.ascontiguousarray(photo[top:bottom, left:right])
        level, coded = int(rng.integers(1, MAX_QUALITY + 1)), tile
        places = rng.integers(last - (top, left) + 1, size=(len(some), 2))
        phases = _MARGIN + rng.integers(_PHASES, size=places.shape)
        if self.uncompressed and rng.random() < self.uncompressed:
            level = MAX_QUALITY
        else:
            coded = compress(tile, level, draw_chroma(self.chroma, rng))
        if self.edits:
            coded, _ = edited(coded, rng, 3 * self.side)
            places, phases = self._places_after(tile.shape, coded.shape, places, rng)
        quality[some] = level
        for i, (row, column) in zip(some, (places + phases).tolist()):
            x[i] = coded[row:row + self.side, column:column + self.side]

    def _places_after(self, before, after, places, rng):
        """Where places in a tile are after its edits, and offsets in a third of a crop's own."""
        sides, edited_sides = sum(before[:2]), np.array(after[:2])
        if (before[0] > before[1]) != (after[0] > after[1]):  # turned
            places = places[:, ::-1]
        third = max(self.side, self.tile * edited_sides.sum() // (3 * sides))
        offsets = third + rng.integers(third - self.side + 1, size=places.shape)
        places = places * edited_sides.sum() // sides
        return np.minimum(places, edited_sides - third - self.side - offsets), offsets

    def batches(self, batch_size: int, seed: int,
                step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Endless batches from that step on, as `PatchFile.batches`, drawn ahead on all cores."""
        window, first = divmod(step, MIX_BATCHES) if self.cuts > 1 else (step, 0)
        begin = window * MIX_BATCHES if self.cuts > 1 else step
        with ThreadPoolExecutor(cores()) as pool:
            drawn = ordered_map(
                pool, lambda n: self.draw(batch_size, np.random.default_rng((seed, n)), self.cuts),
                itertools.count(begin), 2 * cores())
            if self.cuts == 1:
                yield from drawn
            ready = list(itertools.islice(drawn, MIX_BATCHES))
            for window in itertools.count(window):
                x, quality = map(np.concatenate, zip(*ready))
                order = np.random.default_rng((seed, window, 1)).permutation(len(x))
                ready = []
                for some in order.reshape(MIX_BATCHES, batch_size)[first:]:
                    ready.append(next(drawn))
                    yield x[some], quality[some]
                ready += itertools.islice(drawn, first)
                first = 0

    def fixed(self, number: int = 16_384) -> Patches:
        """Crops to validate on, each of a tile of its own, the same every time."""
        return Patches(*self.draw(number, np.random.default_rng(0)), self.side)
