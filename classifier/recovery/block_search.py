"""The coefficients of blocks of one plane, from bounds on each of their samples.

    levels, exact = find_levels(low, high, guess, table)       # (n, 64) each

A sample is known (low == high), clipped (0..low or high..255) or unknown (0..255). A block is
exact when libjpeg's integer inverse DCT of levels times steps is within all bounds.

The coefficients of the guess, rounded, are mostly the answer. For the other blocks, ever fewer:

1. Two sets are to meet: the lattice of the steps, and the samples within their bounds, half a level
   of rounding included. The DCT is orthonormal, so that both projections are exact, and
   Douglas-Rachford iterations z += P_bounds(2 P_lattice(z) - z) - P_lattice(z) nearly always find
   the meeting point in tens of steps, also where a third of the samples is clipped.
2. Steps of 1 or 2, and pixels near a half, leave several lattice points: single changes by one
   step, and pairs of the best ones, are tried in the order of what they violate; then, of few
   blocks, longer chains of them (beam_search.py).
3. The iterations begin again from other starts.
4. Where much is unknown, lattice points near the samples in a reduced basis, in which unknown ones
   weigh little (lattice_points.py), with a few weights. Blocks cut by the picture's edge repeat it
   beyond (cut_blocks.py).

Sources: V. Elser, I. Rankenburg and P. Thibault, "Searching with iterated maps", PNAS 104, 2007;
those of lattice_points.py.
"""
import numpy as np

from classifier.forensics.blocks import BLOCK, DCT2
from classifier.recovery.beam_search import search_beam
from classifier.recovery.colours import before_rounding
from classifier.recovery.cut_blocks import edge_weights
from classifier.recovery.decoders import decoded, loss
from classifier.recovery.lattice_points import dithered, nearest_plane, nearest_points, reduced

ROUNDS, BETA = 300, 0.9   # of the iterations, and how far they go
CHECKED_EVERY = 5
HALF = 0.5                # of a level: rounding
NEAR = 0.6                # beyond the bounds: worth an exact check
STARTS, NOISE = 16, 1.0   # of the iterations again, and levels between them
MOST_AGAIN = 100          # blocks of these
CHANGES, DEPTH = 24, 2    # single changes checked of each block, and rounds of them
MOST_CHAINS, LEAST_KNOWN = 500, 56   # blocks of which chains are tried, and their known samples
# Weights of known, clipped and unknown samples.
WEIGHTS = ((1, 0.1, 0.03), (1, 0.1, 0.01), (1, 0.1, 0.003), (1, 0.3, 0.03), (1, 0.3, 0.003),
           (1, 0.03, 0.03), (1, 0.01, 0.003), (1, 0.1, 0.1))
OF_CUT = 1, 0.1, 0        # the same of blocks cut by the picture's edge
POINTS, ATTEMPTS = 128, 4  # tried at a time, and how often
DITHERS, DITHER = 24, 0.3  # targets tried at a time where nothing repeats, levels
MOST_BASES = 48           # reduced for one plane: some 15 ms each, with their points
MOST_SEARCHED = 2000      # blocks, each attempt counted, for which points are looked for there
MOST_LEFT, HOPELESS = 24, 0.25   # blocks, and share of all; if more are left, that is all


def is_exact(levels: np.ndarray, table: np.ndarray, low: np.ndarray,
             high: np.ndarray) -> np.ndarray:
    """Which blocks (n, 64) of levels decode to samples within their bounds: (n,) bool."""
    samples = decoded(levels, table)
    return ((samples >= low) & (samples <= high)).all(axis=1)


def find_levels(low: np.ndarray, high: np.ndarray, guess: np.ndarray, table: np.ndarray,
                rounds: int = ROUNDS, bases: int = MOST_BASES, starts: int = STARTS,
                before: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Levels that give the samples of n blocks, as far as they are found.

    Parameters
    ----------
    low, high : uint8 arrays, shape (n, 64)
        The samples' bounds, row by row; where low > high, the block is not searched.
    guess : float32 array, shape (n, 64)
        Likely samples, less 128; the bounds where they are narrow.
    table : int array, shape (64,)
    rounds : int
        Of the first way.
    bases : int
        That the last way may reduce; 0: no chains, no other starts and no bases are tried.
    starts : int
        Of the third way; 0: the last one is taken however many blocks are left.
    before : int array, shape (n, 64), optional
        Levels that were found with other bounds; blocks keep them where they are exact.

    Returns
    -------
    levels : int32 array, shape (n, 64)
    exact : bool array, shape (n,)
    """
    steps, guess = table.astype(np.float32), guess + np.float32(loss())
    levels = np.rint(guess @ DCT2.T / steps).astype(np.int32)
    exact = is_exact(levels, table, low, high)
    if before is not None:
        left = np.flatnonzero(~exact)
        levels[left] = before[left]
        exact[left] = is_exact(levels[left], table, low[left], high[left])
    possible = (low <= high).all(axis=1)
    for way, effort in ((_iterate, rounds), (_change, CHANGES), (_chain, MOST_CHAINS * (bases > 0)),
                        (_again, starts * (bases > 0)), (_nearest, bases)):
        left = np.flatnonzero(~exact & possible)
        if not len(left) or starts and way in (_again, _nearest) and len(left) > max(
                MOST_LEFT, HOPELESS * len(levels)):
            break
        if not effort:
            continue
        found, at = way(low[left], high[left], guess[left], levels[left], table, effort)
        levels[left[at]], exact[left[at]] = found[at], True
    return levels, exact


def _iterate(low, high, guess, levels, table, rounds):
    """Douglas-Rachford: levels, and which blocks are exact."""
    steps, levels = table.astype(np.float32), levels.copy()
    least, most = before_rounding(low, high, HALF)
    left, z, exact = np.arange(len(low)), guess @ DCT2.T, np.zeros(len(low), bool)
    for turn in range(rounds):
        if turn % CHECKED_EVERY == 0:
            near = np.rint(z / steps)
            pixels = (near * steps) @ DCT2
            close = np.flatnonzero(((pixels >= least - (NEAR - HALF))
                                    & (pixels <= most + (NEAR - HALF))).all(axis=1))
            at = left[close]
            good = is_exact(near[close], table, low[at], high[at])
            levels[at[good]], exact[at[good]] = near[close[good]], True
            keep = np.ones(len(left), bool)
            keep[close[good]] = False
            left, z, least, most = left[keep], z[keep], least[keep], most[keep]
            if not len(left):
                break
        on_lattice = np.rint(z / steps) * steps
        within = ((2 * on_lattice - z) @ DCT2).clip(least, most)
        z += BETA * (within @ DCT2.T - on_lattice)
    return levels, exact


def _change(low, high, guess, levels, table, changes):
    """Changes of one or two coefficients by a step: levels, and which blocks are exact."""
    levels, exact = levels.copy(), np.zeros(len(low), bool)
    least, most = before_rounding(low, high, HALF)
    moves = np.concatenate([table[:, None] * DCT2, -table[:, None] * DCT2]).astype(np.float32)
    for block in range(len(low)):
        now = levels[block]
        for _ in range(DEPTH):
            pixels = (now * table).astype(np.float32) @ DCT2 + moves
            off = np.square(pixels - pixels.clip(least[block], most[block])).sum(axis=1)
            order = off.argsort()[:changes]
            tried = np.repeat(now[None], changes, axis=0)
            tried[np.arange(changes), order % 64] += np.where(order < 64, 1, -1)
            good = is_exact(tried, table, low[block], high[block])
            if good.any():
                levels[block], exact[block] = tried[good.argmax()], True
                break
            now = tried[0]
    return levels, exact


def _chain(low, high, guess, levels, table, most):
    """Chains of such changes, where most samples are known: levels, and which blocks are exact."""
    levels, exact = levels.copy(), np.zeros(len(low), bool)
    at = np.flatnonzero(np.count_nonzero(low == high, axis=1) >= LEAST_KNOWN)[:most]
    found, exact[at] = search_beam(low[at], high[at],
                                   np.rint(guess[at] @ DCT2.T / table).astype(np.int32), table)
    levels[exact] = found[exact[at]]
    return levels, exact


def _again(low, high, guess, levels, table, starts):
    """The iterations from several starts: levels, and which blocks are exact."""
    levels, exact = levels.copy(), np.zeros(len(low), bool)
    few = slice(MOST_AGAIN)
    count = len(low[few])
    many = [np.tile(part[few], (starts, 1)) for part in (low, high, guess, levels)]
    noise = np.random.default_rng(0).normal(0, NOISE, many[2].shape)
    many[2] = many[2] + noise.astype(np.float32)
    tried, good = (part.reshape(starts, count, *part.shape[1:])
                   for part in _iterate(*many, table, ROUNDS))
    levels[few], exact[few] = tried[good.argmax(axis=0), np.arange(count)], good.any(axis=0)
    return levels, exact


def _nearest(low, high, guess, levels, table, most_bases):
    """Nearest points of a reduced basis: levels, and which blocks are exact."""
    levels, exact, bases, searched = levels.copy(), np.zeros(len(low), bool), 0, 0
    kinds = (low == 0).astype(np.int8) + (high == 255)
    rng = np.random.default_rng(0)
    masks, which = np.unique(kinds, axis=0, return_inverse=True)
    which, basis = which.ravel(), table[:, None] * DCT2.astype(np.float64)
    least, most = before_rounding(low, high, HALF)
    for mask in np.argsort(-np.bincount(which)):
        for weights, beyond in _weights(masks[mask], table):
            at = np.flatnonzero((which == mask) & ~exact)
            if not len(at) or bases >= most_bases:
                break
            bases += 1
            reduced_basis = reduced(np.concatenate([basis * weights, beyond], axis=1))
            aims = guess[at].copy()
            for _ in range(ATTEMPTS if masks[mask].any() else 1):
                searched += len(at)
                if searched > MOST_SEARCHED:
                    return levels, exact
                targets = np.pad(aims * weights, ((0, 0), (0, beyond.shape[1])))
                near = nearest_points(*reduced_basis, targets, POINTS)
                if not beyond.size:
                    targets = dithered(aims, DITHERS, DITHER, rng).reshape(-1, 64) * weights
                    planes = nearest_plane(*reduced_basis, targets).reshape(DITHERS, len(at), 64)
                    near = np.concatenate([planes, near])
                good = is_exact(near.reshape(-1, 64), table, np.tile(low[at], (len(near), 1)),
                                np.tile(high[at], (len(near), 1))).reshape(len(near), -1)
                some = good.any(axis=0)
                levels[at[some]] = near[good.argmax(axis=0), np.arange(len(at))][some]
                exact[at[some]] = True
                # what is unknown may be as in the best of these
                pixels = (near[:, ~some] * table).astype(np.float32) @ DCT2
                at, aims = at[~some], aims[~some]
                if not len(at):
                    break
                off = np.square(pixels - pixels.clip(least[at], most[at])).sum(axis=2)
                best = pixels[off.argmin(axis=0), np.arange(len(at))]
                aims = np.where(masks[mask], best.clip(least[at], most[at]), aims)
    return levels, exact


def _weights(mask, table):
    """Weights of samples that are known (0), clipped (1) and unknown (2), and of what else is.

    That is, for blocks cut by the picture's edge, that an encoder goes on evenly beyond it.
    """
    for beyond in edge_weights(mask == 2, table):
        yield np.array(OF_CUT)[mask], beyond
    for weights in WEIGHTS if mask.any() else WEIGHTS[:1]:
        yield np.array(weights)[mask], np.zeros((BLOCK * BLOCK, 0))
