"""Scores of earlier, larger steps on the last compression's own block grid.

    found = same_grid_scores(blocks.coefficients, last_table)
    found.scores[9, 24]       # nats for a step of 24 at frequency 9, of the 64 row by row

The last coder met c = n1 s1 + r, r the rounding noise of pixels (lattice.py; sigma 0.29), so
that n2 = round(c / s2) skips the multiples of s2 that are not next to one of s1: the gaps and
peaks of Popescu & Farid. n2 is read without error. Let f be the density of |c| before any
compression. Without and with an earlier step,

    P0(n2) = mass of f in the cell of n2,
    P1(n2) = sum over n1 of (mass of f in the cell of n1) P(round((n1 s1 + r) / s2) = n2),

and the score of s1 is the sum of log((1 - epsilon) P1 / P0 + epsilon) over the blocks. f is
a mixture of Laplacians of fixed scales whose weights are fitted to the n2 of a frequency:
any smooth falling density, peaked or long-tailed. It is fitted as if there were no earlier
step, which can only lower the score. The DC, whose f has no such form, is left out.

Source: A. C. Popescu and H. Farid, "Statistical tools for digital forensics", Information
Hiding 2004.
"""
import math

import numpy as np

from classifier.forensics.blocks import BLOCK
from classifier.forensics.earlier_steps import TOP, StepScores
from classifier.forensics.scores import SIGMA
from classifier.forensics.tables import MAX_STEP

EPSILON = 0.01            # coefficients that no model explains
# Mean |c| of the Laplacians in f. Without the first, all but 0, the zeros of smooth images saved
# once at 98 made earlier steps seem likely, by up to 517 nats.
SCALES = np.append(0.02, 0.35 * 2.0 ** np.arange(11))
FIT_STEPS = 75            # of expectation maximization; 25 leave scores of 10 by chance
# The fit pools levels in bins a quarter of their value wide, which begin here, so that f does not
# follow the gaps of an earlier compression.
POOLS = [0]
while POOLS[-1] < TOP:
    POOLS.append(POOLS[-1] + max(1, POOLS[-1] // 4))
# Probabilities that rounding noise is below -4, -3.5, ..., 4.
NORMAL = np.array([0.5 + 0.5 * math.erf(d / 2 / SIGMA / math.sqrt(2)) for d in range(-8, 9)])


def same_grid_scores(coefficients: np.ndarray, last: np.ndarray) -> StepScores:
    """Scores of every earlier step on the last compression's own grid.

    Parameters
    ----------
    coefficients : float array, shape (n, 64)
        Of the blocks on that grid.
    last : int array, shape (64,)
        The last compression's luma table, row by row.

    Returns
    -------
    StepScores
        0 for steps not above the last one.

    References
    ----------
    Popescu and Farid 2004.
    """
    scores = np.zeros((BLOCK * BLOCK, MAX_STEP + 1))
    levels = np.minimum(np.abs(np.rint(coefficients / last)).astype(int), TOP // last)
    if not len(levels):
        return StepScores(scores, levels, np.zeros(64))
    half = np.arange(2 * TOP + 3 * MAX_STEP) / 2
    mass = 1 - _fit_density(levels, last) @ np.exp(-half / SCALES[:, None])  # of f below |c| = half
    mass[:, 0] = 0
    for k in range(1, BLOCK * BLOCK):
        count = np.bincount(levels[:, k])
        step = np.arange(last[k] + 1, MAX_STEP + 1)
        if len(count) > 1 and len(step):
            scores[k, step] = _comb_scores(count, last[k], step, mass[k])
    return StepScores(scores, levels * last, np.zeros(64))


def _fit_density(levels, last):
    """Weights of the Laplacians in f: (64, len(SCALES)), each row's sum is 1; levels: |n2|."""
    pool = np.searchsorted(POOLS, levels, side='right') - 1 + len(POOLS) * np.arange(64)
    count = np.bincount(pool.ravel(), minlength=64 * len(POOLS))
    count = count.reshape(64, -1, 1) / len(levels)
    edge = np.append(np.maximum(np.array(POOLS) - 0.5, 0), np.inf)
    tail = np.exp(-edge * (last[:, None, None] / SCALES[:, None]))  # 64, scales, pools + 1
    mass = tail[..., :-1] - tail[..., 1:]
    weights = np.full((64, 1, len(SCALES)), 1 / len(SCALES))
    for _ in range(FIT_STEPS):
        share = count / np.maximum(weights @ mass, 1e-12).transpose(0, 2, 1)
        weights *= (mass @ share).transpose(0, 2, 1)
    return weights[:, 0] / weights.sum(axis=2)


def _comb_scores(count, last, step, mass):
    """Scores of steps for the counts of |n2| = 0, 1, ...; mass: of f below 0, 1/2, 1, ..."""
    def cells(n, step):  # the mass of f in (n - 1/2) step <= |c| < (n + 1/2) step
        return mass[(2 * n + 1) * step] - mass[np.maximum(2 * n - 1, 0) * step]

    size = len(count)
    reach = size * last
    row, n = np.nonzero(step[:, None] * np.arange(reach // step[0] + 1) <= reach)
    centre, cell = n * step[row], cells(n, step[row])
    level = np.rint(centre / last).astype(int)
    comb = np.zeros(len(step) * (size + 2))  # P1
    for j in (-1, 0, 1):
        low = (2 * (level + j) - 1) * last - 2 * centre  # the cell's lower edge, in halves
        below, above = (NORMAL[np.clip(edge, -8, 8) + 8] for edge in (low, low + 2 * last))
        target = np.minimum(np.abs(level + j), size + 1) + row * (size + 2)
        comb += np.bincount(target, cell * (above - below), minlength=len(comb))
    used = np.flatnonzero(count)
    ratio = comb.reshape(len(step), -1)[:, used] / np.maximum(cells(used, last), 1e-9)
    return np.log((1 - EPSILON) * ratio + EPSILON) @ count[used]
