"""Which blocks of an image are, bit for bit, what a decoder makes of given tables.

    from classifier.forensics.proof import prove
    proof = prove(bgr_image, 75, subsampling='4:2:0')        # or (luma table, chroma table)
    print(f'{proof.blocks_exact} of {proof.blocks_tested} blocks, in all three channels '
          f'{proof.colour_exact} of {proof.colour_tested}')

Luma: exact_blocks.py. All three channels: chroma.py gives the coded samples of Cb and Cr, and their
DCT the levels. A unit of 8x8 pixels (4:4:4), 16x8 (4:2:2) or 16x16 (4:2:0) is exact when levels
times steps of its blocks of Y, Cb and Cr give, by libjpeg's inverse DCT, "fancy" upsampling and
conversion to RGB, the very pixels. With upsampling, the outermost pixels of a unit, which depend on
its neighbours' chroma as well, are tested in their luma and conversion only.

Sources: as in chroma.py and inverse_dct.py; libjpeg's jdcolor.c (16-bit constants of JFIF 1.02).
"""
from dataclasses import dataclass

import numpy as np

from classifier.forensics.blocks import (
    BLOCK, DCT2, clipped_pixels, cut_windows, decoder_luma, get_blocks)
from classifier.forensics.chroma import (
    MARGIN, SIDE, WINDOWS, coded_planes, colour_differences, upsampled)
from classifier.forensics.exact_blocks import exact_blocks
from classifier.forensics.inverse_dct import inverse_dct
from classifier.forensics.tables import standard_tables

TEXTURED = 3              # AC levels that are not 0, in a textured block
UNITS = {'4:4:4': (BLOCK, BLOCK), '4:2:2': (BLOCK, 2 * BLOCK), '4:2:0': (2 * BLOCK, 2 * BLOCK)}


@dataclass(frozen=True)
class Proof:
    """How much of an image given tables explain to the last bit."""
    blocks_tested: int       # different luma blocks, neither flat nor clipped
    blocks_exact: int
    textured_blocks_exact: int   # of those, with TEXTURED levels or more
    colour_tested: int = 0   # units of all three channels
    colour_exact: int = 0


def prove(image: np.ndarray, tables: int | tuple[np.ndarray, np.ndarray], grid_dy: int = 0,
          grid_dx: int = 0, subsampling: str | None = None) -> Proof:
    """Count the blocks that come out bit for bit.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        Decoded pixels, BGR.
    tables : int, or two int arrays of shape (64,)
        libjpeg's tables of that quality, 1..100, or those of luma and chroma, row by row.
    grid_dy, grid_dx : int
        The phase of the block grid, 0..7 px.
    subsampling : '4:4:4', '4:2:2' or '4:2:0', optional
        With it, all three channels are tested as well. Of a gray image, whose channels are
        the luma, and where it is not known, the luma alone is.

    Raises
    ------
    ValueError
        A quality out of range, a grid phase out of range.
    """
    if isinstance(tables, (int, np.integer)):
        if not 1 <= tables <= 100:
            raise ValueError(f'quality {tables}: must be in 1..100')
        tables = [standard_tables(chroma)[tables - 1] for chroma in (False, True)]
    if not all(0 <= d < BLOCK for d in (grid_dy, grid_dx)):
        raise ValueError(f'grid phase {grid_dy, grid_dx}: both must be in 0..7')
    luma, chroma = (np.asarray(table) for table in tables)
    blocks = get_blocks(image, grid_dy, grid_dx)
    levels, exact = (found[0] for found in exact_blocks(blocks, luma[None]))
    textured = np.count_nonzero(levels[:, 1:], axis=1) >= TEXTURED
    colour = np.zeros(0, bool)
    if subsampling in UNITS:
        colour = max((_exact_units(image, luma, chroma, grid_dy, grid_dx, subsampling, mirrored)
                      for mirrored in (False, True)[:1 + (subsampling != '4:4:4')]),
                     key=np.sum)
    return Proof(len(exact), int(exact.sum()), int((exact & textured).sum()),
                 len(colour), int(colour.sum()))


def _exact_units(image, luma, chroma, dy, dx, subsampling, mirrored):
    """Which units of all three channels are exact, of those tested: (n,) bool."""
    y, x, windows = cut_windows(image, (dy + MARGIN) % BLOCK, (dx + MARGIN) % BLOCK, SIDE, WINDOWS)
    whole = ~clipped_pixels(windows).any(axis=(1, 2))
    y, x, windows = y[whole], x[whole], windows[whole]
    height, width = UNITS[subsampling]
    rows, columns = slice(MARGIN, MARGIN + height), slice(MARGIN, MARGIN + width)
    planes, levels = colour_differences(windows), decoder_luma(windows)
    exact = (recombined(levels, *np.split(planes.astype(int), 2)) == windows).all(axis=3)
    exact = exact[:, rows, columns].all(axis=(1, 2))
    vertical, horizontal = height > BLOCK, width > BLOCK
    coded = coded_planes(planes, vertical, mirrored)[0] if horizontal else planes.copy()
    half = slice(MARGIN // 2 + 1, MARGIN // 2 + 1 + BLOCK)
    own = np.s_[:, half if vertical else rows, half if horizontal else columns]
    coded[own] = _decoded(coded[own], chroma)
    again = upsampled(coded, vertical, mirrored) if horizontal else coded
    inner = np.s_[:, MARGIN + vertical:MARGIN + height - vertical,
                  MARGIN + horizontal:MARGIN + width - horizontal]
    same = (again == planes)[inner].all(axis=(1, 2))
    exact &= np.logical_and(*np.split(same, 2))
    for top in range(MARGIN, MARGIN + height, BLOCK):
        for left in range(MARGIN, MARGIN + width, BLOCK):
            part = levels[:, top:top + BLOCK, left:left + BLOCK].astype(np.float32) - 128
            exact &= (_decoded(part, luma) == part).all(axis=(1, 2))
    # which two blocks a halved chroma block spans is not known in a crop
    phase = ((y + MARGIN - dy) // BLOCK % (height // BLOCK)
             + 2 * ((x + MARGIN - dx) // BLOCK % (width // BLOCK)))
    return max((exact[phase == p] for p in np.unique(phase)), key=np.mean, default=exact)


def _decoded(planes, table):
    """What a decoder makes of blocks (n, 8, 8) float32, less 128, coded with a table: as they are.
    """
    levels = np.rint(planes.reshape(-1, BLOCK * BLOCK) @ DCT2.T / table).astype(int)
    return inverse_dct(levels * table).reshape(planes.shape).astype(np.float32) - 128


def recombined(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """libjpeg's BGR of planes (...), int, Cb and Cr less 128: int (..., 3)."""
    half = 1 << 15
    parts = (116130 * cb + half) >> 16, (-22554 * cb - 46802 * cr + half) >> 16, \
        (91881 * cr + half) >> 16
    return np.clip(luma[..., None].astype(int) + np.stack(parts, axis=-1), 0, 255)
