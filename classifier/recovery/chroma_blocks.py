"""The blocks of a subsampled chroma plane, and the pixels in which each of them weighs.

A block's samples weigh in its own pixels and, with one sample on each side, in one row or column of
its neighbours'. That is its patch: 10x10 samples and, where both directions are halved, 18x18
pixels.
"""
from collections.abc import Iterator

import numpy as np

from classifier.forensics.blocks import BLOCK
from classifier.recovery.decoders import decoded
from classifier.recovery.layout import Layout, from_blocks

PATCH = BLOCK + 2
OWN = np.pad(np.ones((BLOCK, BLOCK), bool), 1).ravel()   # of a patch, the block's samples


class ChromaBlocks:
    """Geometry of a plane's blocks, numbered row by row.

    Parameters
    ----------
    layout : Layout
        Of the coded plane.
    halved : (vertical, horizontal)
    table : int array, shape (64,)
    """

    def __init__(self, layout: Layout, halved: tuple[bool, bool], table: np.ndarray):
        self.layout, self.halved, self.table = layout, halved, table
        self.unit = [BLOCK * (1 + half) for half in halved]   # px
        rows, columns = layout.blocks
        self.row, self.column = np.divmod(np.arange(rows * columns), columns)
        self.colour = self.row % 2 * 2 + self.column % 2   # no two of a colour are neighbours

    def coded(self, levels: np.ndarray) -> np.ndarray:
        """The plane that levels (n, 64) decode to, uint8."""
        plane = from_blocks(decoded(levels, self.table), self.layout.blocks)
        return plane[:self.layout.height, :self.layout.width]

    def seen_of(self, block: int) -> list[int]:
        """How many rows and columns of a block are in the picture: 1..8 each."""
        return [min(BLOCK, length - BLOCK * int(at[block])) for length, at in (
            (self.layout.height, self.row), (self.layout.width, self.column))]

    def sums(self, plane: np.ndarray) -> np.ndarray:
        """Sums of a plane of pixels, (h, w), over the patch of each block: (n,)."""
        rows, columns = self.layout.blocks
        near = np.zeros((rows * self.unit[0] + 2, columns * self.unit[1] + 2), np.int32)
        near[1:1 + plane.shape[0], 1:1 + plane.shape[1]] = plane
        for axis, unit in enumerate(self.unit):
            index = np.arange(0, near.shape[axis] - 2, unit)
            sums = np.add.reduceat(np.delete(near, [0, near.shape[axis] - 1], axis), index, axis)
            ends = [near.take(index + n, axis) for n in (0, unit + 1)] if self.halved[axis] else []
            near = sum(ends, sums)
        return near.ravel()

    def inner_sums(self, plane: np.ndarray) -> np.ndarray:
        """The same over each block's own pixels."""
        for axis, unit in enumerate(self.unit):
            index = np.arange(0, plane.shape[axis], unit)
            plane = np.add.reduceat(plane, index, axis, dtype=np.int32)
        return plane.ravel()

    def groups(self, blocks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks with the same edges of the plane around them, and their weights.

        The upsampled pixels of a patch (100,) are ``patch @ weights.T``, before rounding.
        """
        ends = [(np.maximum(1 - BLOCK * at, 0), np.minimum(length - BLOCK * at, PATCH - 1))
                for at, length in ((self.row[blocks], self.layout.height),
                                   (self.column[blocks], self.layout.width))]
        kinds = np.stack([*ends[0], *ends[1]], axis=1)
        for kind in np.unique(kinds, axis=0):
            axes = [_axis_weights(*kind[2 * axis:2 * axis + 2], self.halved[axis])
                    for axis in (0, 1)]
            yield blocks[(kinds == kind).all(axis=1)], np.kron(*axes).astype(np.float32)

    def patches(self, levels: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """The coded samples of patches, less 128: (n, 100) float32."""
        return self.patches_of(self.coded(levels), blocks)

    def patches_of(self, coded: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """The same of a coded plane."""
        plane = np.pad(coded, 1, mode='edge').astype(np.float32) - 128
        plane = np.pad(plane, ((0, BLOCK), (0, BLOCK)))
        return _cut(plane, BLOCK * self.row[blocks, None] + np.arange(PATCH),
                    BLOCK * self.column[blocks, None] + np.arange(PATCH))

    def surroundings(self, levels: np.ndarray, blocks: np.ndarray,
                     weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples of blocks, less 128, (n, 64); what others give to their pixels, (n, m)."""
        patch = self.patches(levels, blocks)
        return patch[:, OWN], np.where(OWN, 0, patch) @ weights.T

    def samples(self, levels: np.ndarray) -> np.ndarray:
        """What levels (k, n, 64) decode to, less 128: float32 of that shape."""
        samples = decoded(levels.reshape(-1, BLOCK * BLOCK), self.table)
        return samples.reshape(levels.shape).astype(np.float32) - 128

    def pixels(self, plane: np.ndarray, blocks: np.ndarray, outside: int) -> np.ndarray:
        """The pixels of patches, (n, m) of a plane (h, w), with a value outside of it."""
        return self.pixels_of(self.surrounded(plane, outside), blocks)

    def surrounded(self, plane: np.ndarray, outside: int) -> np.ndarray:
        """A plane (h, w) with a value around it, as `pixels_of` takes it."""
        whole = np.full([count * unit + 2 for count, unit in zip(self.layout.blocks, self.unit)],
                        outside, plane.dtype)
        whole[1:1 + plane.shape[0], 1:1 + plane.shape[1]] = plane
        return whole

    def pixels_of(self, surrounded: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """The pixels of patches, (n, m)."""
        y, x = (at[blocks, None] * unit + np.arange(-half, unit + half) + 1
                for at, unit, half in zip((self.row, self.column), self.unit, self.halved))
        return _cut(surrounded, y, x)

    def upsampled(self, samples: np.ndarray, around: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The pixels that a decoder makes of patches, less 128: float32, (k, n, m).

        Parameters
        ----------
        samples : float32 array, shape (k, n, 64)
            Of the blocks, less 128.
        around : float32 array, shape (n, m)
            What the samples around them give.
        weights : as `groups` yields them
        """
        columns = np.arange(weights.shape[0]) % (2 * BLOCK + 2)   # from -1 on
        bias = (8, 7, 16) if all(self.halved) else (1, 2, 4)
        bias = np.where(columns % 2, bias[0], bias[1]).astype(np.float32) / bias[2]
        return np.floor(around + samples @ weights[:, OWN].T + bias)


def _cut(source, y, x):
    """Parts of a plane at rows (n, a) and columns (n, b): (n, a b)."""
    return source[y[:, :, None], x[:, None, :]].reshape(len(y), -1)


def _axis_weights(first, last, halved):
    """Weights (pixels, 10) of the samples -1..8 in a block's pixels along an axis.

    Of the patch's samples, those before `first` and after `last` repeat it.
    """
    if not halved:
        return np.eye(PATCH)[1:-1]
    pixel = np.arange(-1, 2 * BLOCK + 1)
    near = pixel // 2 + 1
    weights = np.zeros((len(pixel), PATCH))
    for index, weight in ((near, 0.75), (near + np.where(pixel % 2, 1, -1), 0.25)):
        np.add.at(weights, (np.arange(len(pixel)), index.clip(first, last)), weight)
    return weights
