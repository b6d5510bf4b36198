"""A JPEG inside a larger picture: in a screenshot, between borders, on a canvas with others.

    inside = find_inside(bgr_image)            # a Lattice with its region, or None
    print(inside.quality, inside.region_x, inside.region_y)

The whole image gives no lattice then, because most of its blocks are on none. But each block that
was a JPEG's and was not changed since comes out bit for bit with the right table (exact_blocks.py),
and hardly any other block with texture does. So

1. of each of TILES x TILES tiles a sample of textured blocks, on its likeliest phases of the block
   grid, is coded again with all tables; a phase and a table with which some come out is a
   candidate;
2. with it, all blocks of the image are: a map of exact, other, and flat or clipped blocks;
3. the rectangle of the largest sum is taken, where an exact block counts log(p / CHANCE) and
   another one log((1 - p) / (1 - CHANCE)), with the share p that is exact at least of a true table.
   Others count several times as much, so that there is next to nothing else in the rectangle;
4. find_quality decides about that rectangle, by itself and as strictly as about a whole image;
5. once more the rectangle, where others count as they should: how far the JPEG reaches.

If blocks around it are on a lattice, too, of whatever steps, the image was compressed with another
encoder's table, which agrees with a standard one in that part; then there is no answer.

The rectangle is that of whole, textured blocks: flat borders of the JPEG and partial blocks at its
edges, up to 7 px, are not in it.
"""
from dataclasses import replace

import cv2
import numpy as np

from classifier.forensics.blocks import (
    BLOCK, DCT2, Blocks, clipped_pixels, cut_windows, decoder_luma, distinct_blocks, evenly_spaced,
    has_clipped)
from classifier.forensics.exact_blocks import MOST_OFF, exact_blocks, expected
from classifier.forensics.grid_phases import PHASE_SIDE, phase_shares
from classifier.forensics.inverse_dct import inverse_dct
from classifier.forensics.lattice import ANY_TABLE, Lattice, find_quality
from classifier.forensics.near_lattice import near_lattice
from classifier.forensics.scores import quality_scores
from classifier.forensics.tables import standard_tables

TILES = 4                 # each way
WINDOWS, SAMPLED = 16, 24  # of a tile: windows to compare phases in, blocks coded again
POSITIONS = 800           # of blocks around the part
TEXTURE = 4               # gray levels between the darkest and the lightest pixel of a block
DIFFERENT = 1.25          # gray levels for each px of a side, of a photo's windows
LEVELS = 3                # AC levels that are not 0, in an exact block that counts
FINEST = 97               # of finer tables every block is exact as often
NEAR = 1.4                # |coefficient| off its multiple, at most, in a block that may be exact
VOTES = 3                 # exact blocks in the sample of a tile,
GAIN = 30.0               # and what they gain in all, nats, for a candidate
TRIED = 3                 # candidates, the best
CHANCE = 0.02             # share of exact blocks where there was no JPEG
STRICTLY, LEAST = 4.0, 2.0     # how much others count, for the proof; at least, nats
EXTENT = 0.7, 1.5         # least and most, for the extent, as text may lie on the picture
SMALLEST = 24             # exact blocks in the rectangle
LINES = 192               # of blocks each way, in the search of the rectangle; else it is coarser


def find_inside(image: np.ndarray) -> Lattice | None:
    """The lattice of a JPEG that is a part of an image.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        Decoded pixels, BGR, which have no lattice as a whole.

    Returns
    -------
    Lattice or None
        With `quality` and the region; `grid_dy` and `grid_dx` are those of the whole image.
    """
    for quality, dy, dx in _candidates(image):
        if found := _proved_part(image, quality, dy, dx):
            return found
    return None


def _candidates(image):
    """Qualities and grid phases that explain textured blocks somewhere, the best first."""
    height, width = (side // TILES // BLOCK * BLOCK for side in image.shape[:2])
    gains = {}
    if min(height, width) < 2 * BLOCK:
        return []
    tiles = [(top, left, image[top:top + height + PHASE_SIDE, left:left + width + PHASE_SIDE])
             for top in range(0, TILES * height, height) for left in range(0, TILES * width, width)]
    for (top, left, tile), phases in zip(tiles, _likely_phases([tile for *_, tile in tiles])):
        for dy, dx in phases:
            gain, quality = _best_table(tile, dy, dx)
            found = quality, (top + dy) % BLOCK, (left + dx) % BLOCK
            gains[found] = gains.get(found, 0) + gain
    return sorted((found for found in gains if gains[found] >= GAIN),
                  key=gains.get, reverse=True)[:TRIED]


def _likely_phases(tiles):
    """The phases at which each tile looks most like a JPEG: by coarse tables, by fine ones."""
    several = []
    for tile in tiles:
        luma = _like_a_photo(decoder_luma(cut_windows(tile, 0, 0, PHASE_SIDE, 4 * WINDOWS)[2]))
        several.append(luma[evenly_spaced(len(luma), WINDOWS)])
    ends = np.cumsum([len(luma) for luma in several])
    shares = np.split(phase_shares(np.concatenate(several)), ends[:-1], axis=1)
    return [{divmod(int(share.sum(axis=0).argmax()), BLOCK) for share in both}
            if len(luma) else set() for both, luma in zip(shares, several)]


def _like_a_photo(luma):
    """Those of windows (n, side, side) uint8 that have many gray levels, as drawings have not."""
    shown = np.zeros((len(luma), 256), bool)
    shown[np.arange(len(luma))[:, None], luma.reshape(len(luma), luma.shape[1] ** 2)] = True
    return luma[np.count_nonzero(shown, axis=1) >= DIFFERENT * luma.shape[-1]]


def _best_table(tile, dy, dx):
    """The table that explains most in textured blocks of a tile: its gain, nats, and quality."""
    *_, windows = cut_windows(tile, dy, dx, BLOCK, 4 * SAMPLED)
    luma = _like_a_photo(decoder_luma(windows[~has_clipped(windows)]))
    blocks, _ = distinct_blocks(luma, SAMPLED)
    if len(blocks) < VOTES:
        return 0, 1
    tables = standard_tables()[:FINEST]
    coefficients = blocks @ DCT2.T
    table, block, levels = near_lattice(coefficients, tables, MOST_OFF)
    near = np.count_nonzero(levels[:, 1:], axis=1) >= LEVELS
    near &= np.abs(coefficients[block] - levels * tables[table]).max(axis=1, initial=0) <= NEAR
    near &= (np.bincount(table, near, FINEST) >= VOTES)[table]
    if not near.any():
        return 0, 1
    table, block, levels = table[near], block[near], levels[near]
    samples = inverse_dct((levels * tables[table]).astype(np.int32))
    exact = (samples == (blocks[block] + 128).astype(np.uint8)).all(axis=1)
    gain = ((levels != 0) * np.log(tables[table]))[:, 1:].sum(axis=1) * exact
    gain = np.bincount(table, gain, FINEST) * (np.bincount(table, exact, FINEST) >= VOTES)
    return float(gain.max()), int(gain.argmax()) + 1


def _proved_part(image, quality, dy, dx):
    """The `Lattice` of the part of an image that is of that quality, where it is proved."""
    exact, other = _block_map(image, dy, dx, standard_tables()[quality - 1])
    share = float(min(expected(quality), 0.99))
    one, less = np.log(share / CHANCE), -np.log((1 - share) / (1 - CHANCE))
    top, bottom, left, right = _rectangle(exact * one - other * max(STRICTLY * less, LEAST), exact)
    if exact[top:bottom, left:right].sum() < SMALLEST:
        return None
    part = image[dy + BLOCK * top:dy + BLOCK * bottom, dx + BLOCK * left:dx + BLOCK * right]
    found = find_quality(part, grid=(0, 0))
    if found.quality is None or found.lifted or found.exact_blocks < SMALLEST:
        return None
    if quality not in found.qualities:
        exact, other = _block_map(image, dy, dx, standard_tables()[found.quality - 1])
    top, bottom, left, right = _rectangle(exact * one - other * np.clip(less, *EXTENT), exact)
    if _lattice_around(image, dy, dx, other, (top, bottom, left, right)):
        return None
    return replace(found, grid_dy=dy, grid_dx=dx, region_x=dx + BLOCK * left,
                   region_y=dy + BLOCK * top, region_width=BLOCK * (right - left),
                   region_height=BLOCK * (bottom - top))


def _as_blocks(luma):
    """`Blocks` of luma (n, 64) float32, less 128."""
    return Blocks(luma, luma @ DCT2.T, np.zeros(0, int), luma[:0])


def _block_map(image, dy, dx, table):
    """Which of all blocks on a grid are exact and textured, and which others are: 2 (m, n) bool."""
    rows, columns = ((side - first) // BLOCK for side, first in zip(image.shape, (dy, dx)))
    part = image[dy:dy + BLOCK * rows, dx:dx + BLOCK * columns]
    exact, other = np.zeros((2, rows, columns), bool)
    for row in range(rows):  # a line of blocks at a time, so that large images need little memory
        line = part[BLOCK * row:BLOCK * (row + 1)]
        windows = line.reshape(BLOCK, columns, BLOCK, 3).swapaxes(0, 1)
        luma = cv2.cvtColor(line, cv2.COLOR_BGR2GRAY).reshape(BLOCK, columns, BLOCK).swapaxes(0, 1)
        usable = np.flatnonzero((np.ptp(luma, axis=(1, 2)) >= TEXTURE)
                                & ~clipped_pixels(windows).any(axis=(1, 2)))
        if not len(usable):
            continue
        blocks = _as_blocks(luma[usable].reshape(-1, BLOCK * BLOCK).astype(np.float32) - 128)
        levels, same = (found[0] for found in exact_blocks(blocks, table[None]))
        exact[row, usable] = same & (np.count_nonzero(levels[:, 1:], axis=1) >= LEVELS)
        other[row, usable] = ~same
    return exact, other


def _rectangle(weights, exact):
    """The rectangle of the largest sum of weights, cut to its exact blocks: half-open indices."""
    coarse = -(-max(weights.shape) // LINES)
    padded = np.pad(weights, [(0, -side % coarse) for side in weights.shape])
    sums = padded.reshape(padded.shape[0] // coarse, coarse, -1, coarse).sum(axis=(1, 3))
    above = np.concatenate([np.zeros((1, sums.shape[1])), sums.cumsum(axis=0)])
    best, found = 0.0, (0, 0, 0, 0)
    for top in range(len(sums)):
        # of each height, the columns of the largest sum: the largest rise of the running sum
        running = np.pad((above[top + 1:] - above[top]).cumsum(axis=1), ((0, 0), (1, 0)))
        rise = running - np.minimum.accumulate(running, axis=1)
        height, right = np.unravel_index(rise.argmax(), rise.shape)
        if rise[height, right] > best:
            best = rise[height, right]
            found = (top, top + height + 1, int(running[height, :right + 1].argmin()), int(right))
    top, bottom, left, right = (coarse * side for side in found)
    inside = exact[top:bottom, left:right]
    if not inside.any():
        return 0, 0, 0, 0
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return (top + int(rows[0]), top + int(rows[-1]) + 1,
            left + int(columns[0]), left + int(columns[-1]) + 1)


def _lattice_around(image, dy, dx, other, rectangle):
    """Whether the other textured blocks outside a rectangle are on a lattice of their own."""
    top, bottom, left, right = rectangle
    outside = other.copy()
    outside[top:bottom, left:right] = False
    rows, columns = np.nonzero(outside)
    some = evenly_spaced(len(rows), POSITIONS)
    y, x = dy + BLOCK * rows[some, None, None], dx + BLOCK * columns[some, None, None]
    span = np.arange(BLOCK)
    windows = image[y + span[:, None], x + span]
    blocks, _ = distinct_blocks(decoder_luma(windows), POSITIONS)
    if not len(blocks):
        return False
    return quality_scores(_as_blocks(blocks), standard_tables())[2] >= ANY_TABLE
