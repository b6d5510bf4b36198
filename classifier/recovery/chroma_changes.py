"""Changed levels of Cb and Cr of one block: single ones, pairs of them, one plane given the other.

    ways = changes(levels_cb, dc_cb), changes(levels_cr, dc_cr)
    cb, cr, cost = best_pairs(values, least, most, ways)
"""
import numpy as np

from classifier.forensics.blocks import BLOCK, DCT2
from classifier.recovery.chroma_blocks import OWN
from classifier.recovery.colours import BITS, BLUE, GREEN_CB, GREEN_CR, HALF, RED, TO_BGR
from classifier.recovery.lattice_points import nearest_points, reduced

SHIFT = 8                 # steps of DC
OF_DC, OF_COLOUR = 0.1, 0.2   # what one of them costs, and a DC that is not 0; AC coefficients: 1
LOWEST = 1, 8, 9, 2, 16   # AC coefficients that are tried one step off
REMOVED = 5               # AC coefficients that are tried one step nearer to 0
PAIRS = 1000              # that are returned
LARGEST = 255             # a contradiction in a pixel: more counts no more
FREE = 1 << 12            # a bound that is none
NARROW = 2.0              # levels between bounds: as good as known
BOUNDED, UNKNOWN = 0.1, 0.02   # weights of pixels that are less known, and of samples as they are
CUT = 0.35                # of what repeats the picture's edge
POINTS, GIVEN = 128, 12   # lattice points that are followed, and tried


def changes(levels: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Changed levels of a block.

    Parameters
    ----------
    levels : int array, shape (64,)
    near : float
        The DC of the blocks around.

    Returns
    -------
    tried : int array, shape (k, 64)
        The first is no change.
    cost : float array, shape (k,)
        Of AC coefficients that are not 0, and of a DC that is not like those around.
    part : int array, shape (k,)
        0: DC alone is moved; 1: one AC coefficient is nearer to 0, or all are at 0; 2: one is
        further off.
    """
    ac = np.flatnonzero(levels[1:]) + 1
    removed = ac[np.abs(levels[ac]).argsort(kind='stable')][:REMOVED]
    bases, parts = [levels[None]], [0]
    nearer = np.repeat(levels[None], len(removed), axis=0)
    nearer[np.arange(len(removed)), removed] -= np.sign(levels[removed])
    flat = np.where(np.arange(BLOCK * BLOCK), 0, levels)
    bases += [nearer, flat[None]][:1 + (len(ac) > 1)]
    parts += len(removed) * [1] + [1] * (len(ac) > 1)
    for base in (levels, flat)[:1 + (len(ac) > 0)]:
        further = np.repeat(base[None], 2 * len(LOWEST), axis=0)
        further[np.arange(2 * len(LOWEST)), np.tile(LOWEST, 2)] += np.repeat([1, -1], len(LOWEST))
        bases.append(further)
        parts += len(further) * [2]
    bases = np.concatenate(bases)
    shifts = np.arange(-SHIFT, SHIFT + 1)
    shifts = shifts[np.abs(shifts).argsort(kind='stable')]
    tried = np.repeat(bases, len(shifts), axis=0)
    tried[:, 0] += np.tile(shifts, len(bases))
    cost = (np.count_nonzero(tried[:, 1:], axis=1) + OF_DC * np.abs(tried[:, 0] - near)
            + OF_COLOUR * (tried[:, 0] != 0))
    return tried, cost, np.repeat(parts, len(shifts))


def best_pairs(values, least, most, ways):
    """The changes of Cb and of Cr that together contradict the fewest pixels.

    Parameters
    ----------
    values : two int arrays, shape (k, m)
        Samples less 128 of some pixels with each change.
    least, most : int arrays, shape (3, m)
        Bounds of B, G and R.
    ways : two tuples, as `changes` returns them

    Returns
    -------
    cb, cr : int arrays, shape (n,)
        The first pair is no change.
    cost : float array, shape (n,)
    """
    (blue_least, green_least, red_least), (blue_most, green_most, red_most) = (
        part[..., None].astype(np.int16) for part in (least, most))
    blue = ((BLUE * values[0].T + HALF) >> BITS).astype(np.int16)    # (m, k)
    red = ((RED * values[1].T + HALF) >> BITS).astype(np.int16)
    low_cb, high_cb = np.maximum(blue_least - blue, 0), np.minimum(blue_most - blue, 255)
    low_cr, high_cr = np.maximum(red_least - red, 0), np.minimum(red_most - red, 255)
    green_cb, green_cr = GREEN_CB * values[0].T, GREEN_CR * values[1].T + HALF
    (_, cost_cb, of_cb), (_, cost_cr, of_cr) = ways
    found = []
    for tried in ((of_cb < 2, of_cr < 2), (of_cb == 0, of_cr == 2), (of_cb == 2, of_cr == 0)):
        first, second = map(np.flatnonzero, tried)
        off = np.zeros((len(first), len(second)), np.int16)
        for pixel in range(len(blue)):
            cross = green_cb[pixel, first, None] + green_cr[pixel, second]
            cross >>= BITS
            green = cross.astype(np.int16)
            low = np.maximum(low_cb[pixel, first, None], low_cr[pixel, second])
            high = np.minimum(high_cb[pixel, first, None], high_cr[pixel, second])
            np.maximum(low, green_least[pixel] - green, out=low)
            np.minimum(high, green_most[pixel] - green, out=high)
            low -= high
            off += low.clip(0, LARGEST)
        cost = off + 1e-3 * (cost_cb[first, None] + cost_cr[second])
        best = np.argpartition(cost.ravel(), min(PAIRS, cost.size - 1))[:PAIRS]
        i, j = np.divmod(best, len(second))
        found.append((cost.ravel()[best], first[i], second[j]))
    cost, cb, cr = (np.concatenate(parts) for parts in zip(*found))
    best = cost.argsort(kind='stable')[:PAIRS]
    cb, cr = np.append(0, cb[best]), np.append(0, cr[best])
    return cb, cr, 1e-3 * (cost_cb[cb] + cost_cr[cr])


def given_other(plane: int, other: np.ndarray, now: np.ndarray, around: np.ndarray,
                least: np.ndarray, most: np.ndarray, weights: np.ndarray, table: np.ndarray,
                prior: np.ndarray | None) -> np.ndarray:
    """Levels of one plane of a block that suit the pixels, if the other plane is right.

    Parameters
    ----------
    plane : int
        0: Cb; 1: Cr.
    other : int array, shape (m,)
        The other plane's pixels of the patch, less 128.
    now : float array, shape (64,)
        The samples of the block, less 128.
    around : float array, shape (m,)
        What other blocks give to the pixels of the plane.
    least, most : int arrays, shape (3, m)
        Bounds of B, G and R.
    weights : float array, shape (m, 100)
        As ChromaBlocks.groups yields them.
    table : int array, shape (64,)
    prior : float array, shape (64, 64)
        Of cut_blocks.py, for a block cut by the picture's edge.

    Returns
    -------
    int array, shape (k, 64)
    """
    slope, by_other = (np.append(TO_BGR[:, 1 + at], 0.0) for at in (plane, 1 - plane))
    least = np.concatenate([np.where(least > -FREE, least - 128, -np.inf), [0 * other - 128.0]])
    most = np.concatenate([np.where(most < FREE, most - 128, np.inf), [0 * other + 127.0]])
    low, high = np.full(len(other), -128.0), np.full(len(other), 127.0)
    for i in range(4):       # Y is at least least[i] - d[i] and at most most[j] - d[j]
        for j in range(4):
            if i != j and slope[j] != slope[i]:
                bound = (most[j] - least[i] + 1 - (by_other[j] - by_other[i]) * other) / (
                    slope[j] - slope[i])
                if slope[j] > slope[i]:
                    np.minimum(high, bound, out=high)
                else:
                    np.maximum(low, bound, out=low)
    of_block = weights[:, OWN]
    pixels = around + of_block @ now
    width, middle = high - low, (low + high) / 2
    target = np.where(width < NARROW, middle, pixels.clip(low, np.maximum(low, high))) - around
    known = np.where(width < NARROW, 1.0, np.where(width < 255, BOUNDED, 0.0))
    last = UNKNOWN * np.eye(BLOCK * BLOCK) if prior is None else CUT * prior
    q, r = np.linalg.qr(np.concatenate([known[:, None] * of_block, last]))
    aims = np.append(target * known, UNKNOWN * now if prior is None else np.zeros(BLOCK * BLOCK))
    return nearest_points(*reduced(table[:, None] * (DCT2 @ r.T)), aims[None] @ q,
                          POINTS)[:GIVEN, 0]
