"""The coefficients behind chroma that was halved, and not filtered when it was decoded.

    levels, layouts = unfiltered_colours(image, kind, layout, halved)

Each pixel then shows one block of chroma. Plain upsampling repeats the samples: what the pixels of
a sample say of it is joined, and block_search.py finds the block. libjpeg 7 to 9 decode a block of
chroma to 16 pixels along each halved side (other_dcts.py). These lie on a lattice, too, of 64
coefficients in 128 or 256 dimensions, and Douglas-Rachford iterations as in block_search.py look
for the point of it that is within the bounds of all pixels.
"""
from collections.abc import Sequence

import numpy as np

from classifier.forensics.blocks import BLOCK, DCT
from classifier.forensics.other_dcts import wide_dct
from classifier.recovery.block_search import find_levels
from classifier.recovery.colours import Bounds, before_rounding, chroma_bounds, luma_bounds
from classifier.recovery.decoders import decoded
from classifier.recovery.layout import Layout, from_blocks, to_blocks
from classifier.recovery.stopping import check

ROUNDS, BETA, CHECKED_EVERY, HALF = 200, 0.9, 5, 0.5   # as in block_search.py

_u, _x = np.mgrid[:BLOCK, :2 * BLOCK]
WIDE = (np.cos((2 * _x + 1) * _u * np.pi / (4 * BLOCK)) / np.sqrt(BLOCK))  # 8 frequencies, 16 px
WIDE[0] /= np.sqrt(2)     # orthonormal rows


def unfiltered_colours(image: np.ndarray, kind, layout: Layout, halved: tuple[bool, bool]
                       ) -> tuple[list[np.ndarray], list[Layout]]:
    """Levels (n, 64) of Y, Cb and Cr, and their layouts.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR.
    kind : picture.Kind
        Its decoder's upsampling is 'plain' or 'wide'.
    layout : Layout
        Of the image in the file.
    halved : (vertical, horizontal)
    """
    shape, unit = image.shape[:2], [1 + half for half in halved]
    size = [-(-length // by) for length, by in zip((layout.height, layout.width), unit)]
    coded = Layout(*size)
    whole = [count * BLOCK * by for count, by in zip(coded.blocks, unit)]   # px
    around = ((layout.top, whole[0] - shape[0] - layout.top),
              (layout.left, whole[1] - shape[1] - layout.left))
    levels, chroma = [], []
    for plane in chroma_bounds(image)[1:]:
        bounds = plane.pad(around)
        if kind.decoder.upsampling == 'plain':
            bounds = joined(bounds, unit)
            found = find_levels(*map(to_blocks, bounds), kind.chroma_table)[0]
            full = from_blocks(decoded(found, kind.chroma_table), coded.blocks)
            full = full.repeat(unit[0], axis=0).repeat(unit[1], axis=1)
        else:
            found, full = _find_wide(bounds, kind.chroma_table, unit[0] * BLOCK, coded.blocks)
        levels.append(found)
        chroma.append(full[layout.top:layout.top + shape[0], layout.left:layout.left + shape[1]])
    luma = find_levels(*layout.bounds(luma_bounds(image, *chroma)), kind.luma_table)[0]
    return [luma, *levels], [layout, coded, coded]


def joined(bounds: Bounds, unit: Sequence[int]) -> Bounds:
    """Bounds of samples from those of the pixels, `unit` high and wide, that repeat them."""
    low, high, guess = (
        np.moveaxis(plane.reshape(len(plane) // unit[0], unit[0], -1, unit[1]), 1, 2).reshape(
            len(plane) // unit[0], -1, unit[0] * unit[1]) for plane in bounds)
    weights = 1 / np.square(1.0 + high - low)
    low, high = low.max(axis=2), high.min(axis=2)
    guess = (weights * guess).sum(axis=2) / weights.sum(axis=2)
    crossed = low > high
    guess = np.where(crossed, guess, guess.clip(low - 128.0, high - 128.0))
    return Bounds(low, high, guess.astype(np.float32))


def _find_wide(bounds, table, height, blocks):
    """Levels of blocks of 16 px wide and `height` px, and the plane that they decode to."""
    low, high, guess = (cut(plane, height) for plane in bounds)
    wide = height > BLOCK
    basis = np.kron(WIDE if wide else DCT, WIDE).astype(np.float32)     # (64, pixels)
    steps = (table * np.sqrt(2) ** (1 + wide)).astype(np.float32)
    least, most = before_rounding(low, high, HALF)
    z, left = guess, np.arange(len(guess))
    levels, fewest = np.zeros((len(guess), BLOCK * BLOCK), np.int32), np.full(len(guess), 1 << 20)
    for turn in range(ROUNDS):
        check()
        near = np.rint(z @ basis.T / steps)
        if turn % CHECKED_EVERY == 0:
            samples = wide_dct(near * table, height)
            off = ((samples < low[left]) | (samples > high[left])).sum(axis=1)
            better = off < fewest[left]
            levels[left[better]], fewest[left[better]] = near[better], off[better]
            keep = off > 0
            left, z, near = left[keep], z[keep], near[keep]
            if not len(left):
                break
        on_lattice = (near * steps) @ basis
        z = z + BETA * ((2 * on_lattice - z).clip(least[left], most[left]) - on_lattice)
    return levels, pasted(wide_dct(levels * table, height), blocks)


def cut(plane: np.ndarray, height: int) -> np.ndarray:
    """A plane as blocks of 16 px wide, (n, height * 16)."""
    split = plane.reshape(len(plane) // height, height, -1, 2 * BLOCK)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).reshape(-1, height * 2 * BLOCK)


def pasted(blocks: np.ndarray, count: Sequence[int]) -> np.ndarray:
    """Such blocks, `count` rows and columns of them, as a plane."""
    split = blocks.reshape(*count, -1, 2 * BLOCK).transpose(0, 2, 1, 3)
    return split.reshape(-1, count[1] * 2 * BLOCK)
