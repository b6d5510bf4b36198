"""Scores of earlier, larger steps on other block grids than the last compression's.

    for grid in moved_grids(bgr_image, last_table):
        print(grid.dy, grid.dx, grid.found.scores.max(axis=1))

The image was cropped between two compressions. In a block of the earlier grid c = n1 s1 + r + e,
where r is the rounding noise of pixels (lattice.py; sigma 0.29) and e the last coder's error, seen
in a block that lies across four of its own. A rounded coefficient has an error of variance
D = s2^2 / 12 if n2 is not 0, and less among zeros (`_last_error`). With M[u, v] the squared part of
frequency u, across, in frequency v of the halves, the variance of c is M_dy D M_dx' + 1/12,
coefficient by coefficient; noisy_scores.py scores steps under it.

Flat stretches, where neighbouring blocks are alike, can show the last step on any grid: what it
scores itself is taken off all others. What the model neglects else is much the same on all grids:
what counts is the margin over the next best grid.

Windows of much contrast mostly show most, but those of the whole image are needed, as a part may
have been pasted in, and calm ones, whose noise is less. A few of either kind, at low frequencies,
choose a few of the 63 grids. More windows and frequencies choose a few of these, or end the search
if none of them is ahead. Only those left are scored by all windows, at every step.

Source: T. Bianchi and A. Piva, "Image forgery localization via block-grained analysis of JPEG
artifacts", IEEE Trans. Information Forensics and Security 7(3), 2012.
"""
import functools
import math
from typing import NamedTuple

import numpy as np

from classifier.forensics.blocks import (
    BLOCK, DCT, SHIFTED_DCT, clipped_pixels, cut_windows, decoder_luma, distinct,
    evenly_spaced)
from classifier.forensics.earlier_steps import StepScores, ahead_of_next
from classifier.forensics.noisy_scores import Bins, noisy_scores
from classifier.forensics.scores import SIGMA
from classifier.forensics.tables import MAX_STEP, standard_tables

HALVES = np.kron(np.eye(2), DCT).astype(np.float32)     # DCT of both halves, (16, 16)
MIXING = np.square(SHIFTED_DCT @ HALVES.T)              # M, (8, 8, 16)
NEAR = np.kron(np.eye(2), sum(np.eye(BLOCK, k=k) for k in (-1, 0, 1))).astype(np.float32)
BUSY, QUIET, ACTIVITY = 1.15, 0.1, 3.4   # see _last_error; fitted at qualities 50..95
WINDOWS, FIRST_LOOK, SECOND_LOOK = 1000, 300, 400   # 2x2 blocks looked at: most, and in the search
USED = np.flatnonzero([u + v < 7 for u in range(8) for v in range(8)])
LOW = 4                   # frequencies both ways, in the first look
SEARCHED = np.array([BLOCK * u + v for u in range(LOW) for v in range(LOW)][1:])
GRIDS, LEFT = 3, 3        # that the two looks leave, by each of two sums
# Nats that one must be ahead in the second look. Of 176 found none had less than 23; 20 % of 196
# images saved once had more than 12.
AHEAD = 12.0
# Steps tried in the search: all up to 31, then 5 % apart up to 119.
SEARCH_STEPS = np.array([*range(2, 32), *np.unique(np.rint(32 * 1.05 ** np.arange(28)))], int)
ALL_STEPS = np.arange(MAX_STEP + 1)
FINE = Bins(1, 2, 480, tuple(ALL_STEPS.tolist()))
ROUGH = Bins(0, 2, 240, tuple(SEARCH_STEPS.tolist()))


class MovedGrid(NamedTuple):
    """A block grid that an earlier compression may have had."""
    dy: int                  # top-left corner of its first whole block, 0..7
    dx: int
    found: StepScores


def moved_grids(image: np.ndarray, last: np.ndarray) -> list[MovedGrid]:
    """The most likely grids of an earlier compression, but (0, 0), with the scores of its steps.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        Decoded pixels, BGR; the last compression's grid is (0, 0).
    last : int array, shape (64,)
        The last compression's luma table, row by row.

    Returns
    -------
    list of MovedGrid
        LEFT to 2 LEFT of them; none if the image shows nothing, or if in the second look none is
        AHEAD nats ahead of the next.

    References
    ----------
    Bianchi and Piva 2012.
    """
    luma = _windows(image)
    if not luma.shape[-1]:
        return []
    some = luma[..., _some(luma, SECOND_LOOK)]
    error = _last_error(some, last)
    few = _some(some, FIRST_LOOK)
    scores = _low_scores(some[..., few], error[..., few])
    grids = 1 + _best(_evidence(scores, SEARCHED, last)[:, 1:], GRIDS)
    evidence = _evidence(_scores(*_on_grids(some, error, grids), ROUGH), USED, last)
    if max(ahead_of_next(nats) for nats in evidence) < AHEAD:
        return []
    grids = grids[_best(evidence, LEFT)]
    value, variance = _on_grids(luma, _last_error(luma, last), grids)
    return [MovedGrid(*divmod(int(grid), BLOCK), _step_scores(*found, last))
            for grid, *found in zip(grids, value, _scores(value, variance, FINE))]


def noisy_grid_scores(image: np.ndarray, last: np.ndarray, grid: tuple[int, int],
                      noise: float) -> StepScores:
    """The scores on one grid (dy, dx), where the pixels were changed between the two compressions.

    image, last: as for `moved_grids`; noise: standard deviation of the change, gray levels.
    """
    luma = _windows(image)
    grids = np.array([BLOCK * grid[0] + grid[1]])
    value, variance = _on_grids(luma, _last_error(luma, last), grids)
    variance += np.float32(noise ** 2)
    return _step_scores(value[0], _scores(value, variance, FINE)[0], last)


def _best(evidence, count):
    """The best by each sum, (2, n) nats: indices."""
    best = np.argsort(-evidence, axis=1, kind='stable')[:, :count]
    return np.array(list(dict.fromkeys(best.T.ravel().tolist())))


def _windows(image):
    """The luma of 2x2 blocks, less 128, neither clipped nor flat nor repeated: (16, 16, n) float32.
    """
    *_, windows = cut_windows(image, 0, 0, 2 * BLOCK, WINDOWS)
    luma = decoder_luma(windows[~clipped_pixels(windows).any(axis=(1, 2))])
    luma = luma[np.ptp(luma, axis=(1, 2)) > 1].reshape(-1, 4 * BLOCK * BLOCK)
    # repeats (text, tiles) look like evidence but are one observation, see get_blocks
    luma = luma[distinct(luma)[0]].astype(np.float32) - 128
    return np.ascontiguousarray(luma.T).reshape(2 * BLOCK, 2 * BLOCK, -1)


def _some(luma, limit):
    """At most `limit` of n windows, half of them of most contrast among neighbours: indices."""
    contrast = luma.var(axis=(0, 1))
    each = -(-2 * len(contrast) // limit)
    groups = np.append(contrast, np.full(-len(contrast) % each, -1)).reshape(-1, each)
    best = np.arange(len(groups)) * each + groups.argmax(axis=1)
    others = np.setdiff1d(np.arange(len(contrast)), best)
    return np.sort(np.append(best, others[evenly_spaced(len(others), limit - len(best))]))


def _both_ways(first, planes, second):
    """first (a, h) @ plane @ second (b, w).T of planes (h, w, n): (a, b, n)."""
    rows = (first @ planes.reshape(len(planes), -1)).reshape(len(first), *planes.shape[1:])
    return second @ rows


def _low_scores(luma, error):
    """Scores of SEARCH_STEPS on the 64 grids, at low frequencies: (64, len(SEARCHED), s)."""
    low, mixing = (a[:, :LOW].reshape(-1, 2 * BLOCK) for a in (SHIFTED_DCT, MIXING))
    value = np.abs(_both_ways(low, luma, low))
    variance = _both_ways(mixing, error, mixing)
    variance += np.float32(SIGMA ** 2)
    shape = len(low) ** 2, -1
    scores = noisy_scores(value.reshape(shape), variance.reshape(shape), ROUGH)
    scores = scores.reshape(BLOCK, LOW, BLOCK, LOW, -1).transpose(0, 2, 1, 3, 4)
    return scores.reshape(BLOCK * BLOCK, LOW * LOW, -1)[:, 1:]


def _evidence(scores, frequencies, last):
    """What scores (g, f, s) of SEARCH_STEPS show of g grids: (2, g) nats.

    By the best step of each, and by the best of libjpeg's tables that are coarser than the last.
    """
    coarser = SEARCH_STEPS > last[frequencies][:, None]
    best = np.where(coarser, scores, 0).max(axis=2)
    free = np.maximum(0, best - math.log(len(SEARCH_STEPS))).sum(axis=1)
    tables = _nearest_steps(len(frequencies))[:, standard_tables().sum(axis=1) > last.sum()]
    standard = (scores.reshape(len(scores), -1) @ tables).max(axis=1, initial=0)
    return np.stack([free, standard])


@functools.lru_cache(maxsize=2)
def _nearest_steps(count):
    """Which of SEARCH_STEPS are nearest to libjpeg's tables: (f s, 100) of 0 and 1; f: SEARCHED or
    USED, by their number."""
    steps = standard_tables()[:, SEARCHED if count == len(SEARCHED) else USED]
    nearest = np.abs(SEARCH_STEPS - steps[..., None]).argmin(axis=2)
    return np.eye(len(SEARCH_STEPS), dtype=np.float32)[nearest].reshape(len(steps), -1).T.copy()


def _on_grids(luma, error, grids):
    """|c| and the variance of its noise on g grids, 8 dy + dx, both (g, len(USED), n)."""
    luma, error = (planes.reshape(4 * BLOCK * BLOCK, -1) for planes in (luma, error))
    value = np.concatenate([_transform(grid) for grid in grids.tolist()]) @ luma
    variance = np.concatenate([_mixing(grid) for grid in grids.tolist()]) @ error
    variance += np.float32(SIGMA ** 2)
    shape = len(grids), len(USED), -1
    return np.abs(value, out=value).reshape(shape), variance.reshape(shape)


@functools.lru_cache(maxsize=BLOCK * BLOCK)
def _transform(grid):
    """The DCT on a grid, of the frequencies USED, from 16x16 pixels: (f, 256)."""
    dy, dx = divmod(grid, BLOCK)
    return np.kron(SHIFTED_DCT[dy], SHIFTED_DCT[dx])[USED]


@functools.lru_cache(maxsize=BLOCK * BLOCK)
def _mixing(grid):
    """M of a grid, likewise."""
    dy, dx = divmod(grid, BLOCK)
    return np.kron(MIXING[dy], MIXING[dx])[USED]


def _scores(value, variance, bins):
    """`noisy_scores` of g grids: (g, f, s)."""
    shape = -1, value.shape[-1]
    return noisy_scores(value.reshape(shape), variance.reshape(shape), bins).reshape(
        *value.shape[:2], -1)


def _step_scores(value, some, last):
    """The `StepScores` of one grid from |c| and scores of the frequencies USED."""
    scores, values = np.zeros((64, len(ALL_STEPS))), np.zeros((64, value.shape[1]), np.float32)
    scores[USED], values[USED] = some, value
    own = scores[np.arange(64), np.minimum(last, MAX_STEP)]
    return StepScores(np.where(ALL_STEPS > last[:, None], scores, 0), values.T, own)


def _last_error(luma, last):
    """Variance of the last coder's errors in 2x2 of its blocks: (16, 16, n) float32.

    luma: (16, 16, n). In units of step^2 / 12 it is about 1 where a level is not 0; where it
    is, it grows with the mean `near` of the 8 frequencies around (levels above 2 count as
    2): from 0.03..0.3 at 0 to 0.55 at 1/4, 0.83 at 1/2 and 0.93 at 3/4 on photos.
    """
    step = np.tile(last.reshape(BLOCK, BLOCK), (2, 2)).astype(np.float32)[..., None]
    level = np.abs(_both_ways(HALVES, luma, HALVES))
    level /= step
    np.minimum(np.rint(level, out=level), 2, out=level)
    zero = level == 0
    neighbours = NEAR.sum(axis=0)
    near = _both_ways(NEAR, level, NEAR)
    near -= level
    near *= -ACTIVITY / (neighbours[:, None] * neighbours - 1)[..., None]
    share = np.exp(near, out=near)
    share *= zero
    share *= QUIET - BUSY
    share += BUSY
    share *= np.square(step) / 12
    return share
