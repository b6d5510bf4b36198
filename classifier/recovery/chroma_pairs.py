"""Cb and Cr together, where clipped pixels leave each of them several levels (4:2:2, 4:2:0).

    pairs = ChromaPairs(image, visible, blocks)
    cb, cr = pairs.match([cb, cr], crossed)

Known chroma leaves bounds on the luma of each pixel, from each channel that shows it; the wrong
chroma lets them cross. Blocks in which they cross are tried with the DC of Cb and of Cr some steps
off, both at once, and with single AC changes; what crosses least is kept. Areas of blocks that then
still do not give an exact luma are tried again, by the exact luma blocks that each change leaves.
"""
import cv2
import numpy as np

from classifier.forensics.blocks import BLOCK
from classifier.forensics.inverse_dct import inverse_dct
from classifier.recovery.block_search import find_levels
from classifier.recovery.chroma_blocks import ChromaBlocks
from classifier.recovery.colours import Bounds, chroma_shifts, luma_bounds, luma_limits
from classifier.recovery.layout import Layout
from classifier.recovery.upsampling import upsampled

SHIFT = 3                 # steps of DC
CHANGED = 8               # AC coefficients, those of the smallest steps
PASSES = 4
AT_ONCE = 24              # blocks
MOST_AREAS, MOST_IN_AREA = 12, 20   # tried by their luma; blocks in one
DC_MOVES = (2 * SHIFT + 1) ** 2


def _moves(table):
    """Changes of Cb's and Cr's levels: (k, 2, 64) int32, the first one none."""
    shifts = chroma_shifts(SHIFT)
    moves = np.zeros((len(shifts) + 4 * CHANGED, 2, BLOCK * BLOCK), np.int32)
    moves[:len(shifts), :, 0] = shifts
    ac = 1 + np.argsort(table[1:], kind='stable')[:CHANGED]
    for number, (plane, sign) in enumerate(((0, 1), (0, -1), (1, 1), (1, -1))):
        at = len(shifts) + number * CHANGED + np.arange(CHANGED)
        moves[at, plane, ac] = sign
    return moves


class ChromaPairs:
    """The blocks of Cb and Cr of an image.

    Parameters
    ----------
    image : uint8 array, shape (m, n, 3)
        BGR pixels of the file; what the image does not show is 0.
    visible : bool array, shape (m, n)
    blocks : ChromaBlocks
        Of either plane.
    """

    def __init__(self, image: np.ndarray, visible: np.ndarray, blocks: ChromaBlocks):
        self.image, self.visible, self.blocks = image, visible, blocks
        self.moves = _moves(blocks.table)

    def match(self, levels: list[np.ndarray], crossed: np.ndarray) -> list[np.ndarray]:
        """Levels of Cb and Cr, (n, 64) each, with which the luma's bounds cross less.

        `crossed` says where they do, bool (m, n).
        """
        blocks = np.flatnonzero(self.blocks.sums(crossed))
        levels = [plane.copy() for plane in levels]
        for _ in range(PASSES):
            changed = []
            for colour in range(4):
                some = blocks[self.blocks.colour[blocks] == colour]
                for group, weights in self.blocks.groups(some):
                    for part in range(0, len(group), AT_ONCE):
                        at = group[part:part + AT_ONCE]
                        tried, low, high = self._try(levels, at, weights)
                        best = np.maximum(low - high, 0).sum(axis=2).argmin(axis=0)
                        for plane, of_plane in zip(levels, tried):
                            plane[at] = of_plane[best, np.arange(len(at))]
                        changed.append(at[best > 0])
            if not sum(map(len, changed)):
                break
        return levels

    def match_luma(self, levels: list[np.ndarray], inexact: np.ndarray,
                   luma_table: np.ndarray) -> list[np.ndarray]:
        """Levels of Cb and Cr with which more blocks of luma are exact.

        `inexact` says where they are not, bool (m, n). Blocks that touch each other are moved
        together, since a flat area has one value.
        """
        rows, columns = self.blocks.layout.blocks
        where = (self.blocks.inner_sums(inexact) > 0).reshape(rows, columns).astype(np.uint8)
        count, labels = cv2.connectedComponents(where, connectivity=8)
        levels = [plane.copy() for plane in levels]
        for label in range(1, min(count, MOST_AREAS + 1)):
            area = np.flatnonzero(labels.ravel() == label)
            if len(area) <= MOST_IN_AREA:
                moves = self.moves[:DC_MOVES] if len(area) > 1 else self.moves
                best = max(moves, key=self._exact_with(levels, area, luma_table))
                for plane, move in zip(levels, best):
                    plane[area] += move
        return levels

    def _exact_with(self, levels, area, luma_table):
        """A function of a move: exact luma blocks of an area of chroma blocks, less crossings."""
        rows, columns = self.blocks.layout.blocks
        row, column = np.divmod(area, columns)
        top, left = max(0, row.min() - 1), max(0, column.min() - 1)
        bottom, right = min(rows, row.max() + 2), min(columns, column.max() + 2)
        window = np.zeros((rows, columns), bool)
        window[top:bottom, left:right] = True
        window = np.flatnonzero(window)
        inside = np.isin(window, area)
        height, width = self.blocks.unit
        pixels = np.s_[top * height:bottom * height, left * width:right * width]
        image, visible = self.image[pixels], self.visible[pixels]
        whole = np.zeros((bottom - top, right - left), bool)
        whole.ravel()[inside] = True
        whole = whole.repeat(height // BLOCK, axis=0).repeat(width // BLOCK, axis=1).ravel()
        layout = Layout(*image.shape[:2])
        coded = Layout((bottom - top) * BLOCK, (right - left) * BLOCK)
        size = (min(coded.height, self.blocks.layout.height - top * BLOCK),
                min(coded.width, self.blocks.layout.width - left * BLOCK))

        def exact_with(move):
            planes = []
            for plane, change in zip(levels, move):
                moved = plane[window] + inside[:, None] * change
                samples = coded.image(inverse_dct(moved * self.blocks.table), size)
                planes.append(upsampled(samples, self.blocks.halved)[:image.shape[0],
                                                                     :image.shape[1]])
            bounds = luma_bounds(image, *planes)
            bounds = layout.bounds(Bounds(np.where(visible, bounds.low, 0),
                                          np.where(visible, bounds.high, 255), bounds.guess))
            here = whole if len(whole) == len(bounds.low) else slice(None)
            low, high, guess = (part[here] for part in bounds)
            possible = (low <= high).all(axis=1)
            _, exact = find_levels(low[possible], high[possible], guess[possible], luma_table,
                                   effort=False)
            return exact.sum() - 1e-3 * (~possible).sum()
        return exact_with

    def _try(self, levels, blocks, weights):
        """All moves of some blocks: levels of Cb and Cr, (k, n, 64) each; luma's bounds.

        The latter are int32, (k, n, m), of the pixels of the patches.
        """
        tried, planes = [], []
        for plane, moves in zip(levels, self.moves.transpose(1, 0, 2)):
            _, around = self.blocks.surroundings(plane, blocks, weights)
            tried.append(plane[blocks] + moves[:, None])
            samples = self.blocks.samples(tried[-1])
            planes.append(self.blocks.upsampled(samples, around, weights) + 128)
        visible = self.blocks.pixels(self.visible, blocks, False)
        channels = [self.blocks.pixels(self.image[..., channel], blocks, 0) for channel in range(3)]
        return tried, *luma_limits(channels, *planes, visible)
