"""Where an image lies in the blocks of a JPEG file."""
from dataclasses import dataclass

import numpy as np

from classifier.forensics.blocks import BLOCK
from classifier.recovery.colours import Bounds


@dataclass(frozen=True)
class Layout:
    """A plane of `height` x `width` samples of a file; from (top, left) on, the image has them."""
    height: int
    width: int
    top: int = 0
    left: int = 0

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.height // BLOCK), -(-self.width // BLOCK)

    def pad(self, plane: np.ndarray, **how) -> np.ndarray:
        """A plane of the image, (h, w), as one of whole blocks; `how` as np.pad takes it."""
        return np.pad(plane, self._around(plane), **how)

    def bounds(self, bounds: Bounds) -> Bounds:
        """Bounds of the image's samples as those of blocks, (n, 64) each; none for the others."""
        return Bounds(*map(to_blocks, bounds.pad(self._around(bounds.low))))

    def _around(self, plane):
        rows, columns = self.blocks
        return ((self.top, rows * BLOCK - plane.shape[0] - self.top),
                (self.left, columns * BLOCK - plane.shape[1] - self.left))

    def image(self, blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The image's part of blocks (n, 64): a plane of that shape."""
        plane = from_blocks(blocks, self.blocks)
        return plane[self.top:self.top + shape[0], self.left:self.left + shape[1]]


def to_blocks(plane: np.ndarray) -> np.ndarray:
    """A plane of whole blocks as (n, 64)."""
    rows, columns = (length // BLOCK for length in plane.shape)
    split = plane.reshape(rows, BLOCK, columns, BLOCK)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).reshape(-1, BLOCK * BLOCK)


def from_blocks(blocks: np.ndarray, count: tuple[int, int]) -> np.ndarray:
    """Blocks (n, 64), `count` rows and columns of them, as a plane."""
    split = blocks.reshape(*count, BLOCK, BLOCK)
    return split.transpose(0, 2, 1, 3).reshape(count[0] * BLOCK, -1)
