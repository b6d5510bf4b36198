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
import functools
import math
from typing import NamedTuple

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
_TAILS = np.exp(-np.arange(2 * TOP + 3 * MAX_STEP) / 2 / SCALES[:, None])
LEAST_SHARE = 1e-6        # of a coefficient's probability that is kept
REACH = 4                 # sigmas that noise moves a coefficient at most


def same_grid_scores(coefficients: np.ndarray, last: np.ndarray, noise: float = 0) -> StepScores:
    """Scores of every earlier step on the last compression's own grid.

    Parameters
    ----------
    coefficients : float array, shape (n, 64)
        Of the blocks on that grid.
    last : int array, shape (64,)
        The last compression's luma table, row by row.
    noise : float
        Gray levels: its standard deviation, where the pixels were changed between the two.

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
    top = levels.max(axis=0, initial=0)
    some = np.flatnonzero((top > 0) & (last < MAX_STEP) & (np.arange(64) > 0))
    if len(some):
        size = int(top.max()) + 1
        count = np.bincount((levels[:, some] + np.arange(len(some)) * size).ravel(),
                            minlength=len(some) * size).reshape(-1, size)
        mass = 1 - _fit_density(count, last[some]) @ _TAILS    # of f below |c| = half
        mass[:, 0] = 0
        for k, numbers, below in zip(some.tolist(), count, mass):
            step, numbers = int(last[k]), numbers[:top[k] + 1]
            comb = _make_comb(step, len(numbers) * step, math.hypot(SIGMA, noise)) if noise \
                else _comb(step)
            scores[k, step + 1:] = _comb_scores(numbers, step, below, comb)
    return StepScores(scores, levels * last, np.zeros(64))


def _fit_density(count, last):
    """Weights of the Laplacians in f: (f, len(SCALES)), each row's sum is 1.

    count: of |n2| = 0, 1, ..., (f, m); last: (f,).
    """
    pools = [low for low in POOLS if low < count.shape[1]]
    pooled = np.add.reduceat(count, pools, axis=1)[:, None] / count[0].sum()
    edge = np.append(np.maximum(np.array(POOLS) - 0.5, 0), np.inf)
    tail = np.exp(-edge * (last[:, None, None] / SCALES[:, None]))  # f, scales, pools + 1
    used = np.flatnonzero(pooled.any(axis=(0, 1)))
    pooled, mass = pooled[..., used], (tail[..., :-1] - tail[..., 1:])[..., used]
    turned = np.ascontiguousarray(mass.transpose(0, 2, 1))
    weights = np.full((len(last), 1, len(SCALES)), 1 / len(SCALES))
    for _ in range(FIT_STEPS):
        weights *= (pooled / np.maximum(weights @ mass, 1e-12)) @ turned
    return weights[:, 0] / weights.sum(axis=2)


class _Comb(NamedTuple):
    """Where rounded multiples of earlier steps go, the nearest first: arrays of the same length."""
    centre: np.ndarray       # n1 s1
    upper: np.ndarray        # edges of the cell of n1, in halves
    lower: np.ndarray
    target: np.ndarray       # index of |n2| and s1, in an array of all steps for each level
    share: np.ndarray        # probability that the last coder makes n2 of it


@functools.lru_cache(maxsize=MAX_STEP)
def _comb(last):
    """The `_Comb` of all steps above a last one, as far as TOP."""
    return _make_comb(last, TOP + last, SIGMA)


def _make_comb(last, reach, sigma):
    """The `_Comb` as far as |c| = reach, with noise of that sigma."""
    step = np.arange(last + 1, MAX_STEP + 1)
    row, n = np.nonzero(step[:, None] * np.arange(reach // step[0] + 1) <= reach)
    centre = n * step[row]
    near = math.ceil(REACH * sigma / last + 0.5)
    level = np.rint(centre / last).astype(int) + np.arange(-near, near + 1)[:, None]
    low = (2 * level - 1) * last - 2 * centre  # the cell's lower edge, in halves
    most = math.ceil(2 * REACH * sigma)
    normal = np.array([0.5 + 0.5 * math.erf(d / 2 / sigma / math.sqrt(2))
                       for d in range(-most, most + 1)])
    below, above = (normal[np.clip(edge, -most, most) + most] for edge in (low, low + 2 * last))
    share = above - below
    some = share > LEAST_SHARE
    _, one = np.nonzero(some)
    found = _Comb(centre[one], (2 * n[one] + 1) * step[row[one]],
                  np.maximum(2 * n[one] - 1, 0) * step[row[one]],
                  (np.abs(level) * len(step) + row)[some], share[some])
    order = np.argsort(found.centre, kind='stable')
    return _Comb(*(part[order] for part in found))


def _comb_scores(count, last, mass, comb):
    """Scores of the steps above the last one for the counts of |n2| = 0, 1, ...: float32.

    mass: of f below 0, 1/2, 1, ...
    """
    steps, size = MAX_STEP - last, len(count)
    end = comb.centre.searchsorted(size * last, side='right')
    cells = (mass[comb.upper[:end]] - mass[comb.lower[:end]]) * comb.share[:end]
    used = np.flatnonzero(count)
    found = np.bincount(comb.target[:end], cells, size * steps)[:size * steps]
    found = found.reshape(size, steps)[used].astype(np.float32)  # P1
    own = mass[(2 * used + 1) * last] - mass[np.maximum(2 * used - 1, 0) * last]
    found *= ((1 - EPSILON) / np.maximum(own, 1e-9)).astype(np.float32)[:, None]
    found += np.float32(EPSILON)
    return count[used].astype(np.float32) @ np.log(found, out=found)
