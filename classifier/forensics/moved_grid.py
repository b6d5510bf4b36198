"""Scores of earlier, larger steps on other block grids than the last compression's.

    for grid in moved_grids(bgr_image, last_table):
        print(grid.dy, grid.dx, grid.found.scores.max(axis=1))

The image was cropped between two compressions. In a block of the earlier grid c = n1 s1 + r + e,
where r is the rounding noise of pixels (lattice.py; sigma 0.29) and e the last coder's error, seen
in a block that lies across four of its own. A rounded coefficient has an error of variance
D = s2^2 / 12 if n2 is not 0, and less among zeros (`_last_error`). With M[u, v] the squared part of
frequency u, across, in frequency v of the halves, the variance of c is M_dy D M_dx' + 1/12,
coefficient by coefficient. The score of a step is lattice.py's with that noise. Zeros are so many
that their outliers would refute true steps: whatever is within ZERO_WIDTH sigmas of zero counts
neither way.

Flat stretches, where neighbouring blocks are alike, can show the last step on any grid: what it
scores itself is taken off all others. What the model neglects else is much the same on all grids:
what counts is the margin over the next best grid.

|c| and sigma are binned: a histogram for each grid and frequency, and the scores of all steps are
its product with a matrix. A few windows and low frequencies choose a few of the 63 grids.

Source: T. Bianchi and A. Piva, "Image forgery localization via block-grained analysis of JPEG
artifacts", IEEE Trans. Information Forensics and Security 7(3), 2012.
"""
import functools
import math
from typing import NamedTuple

import numpy as np

from classifier.forensics.blocks import (
    BLOCK, DCT, SHIFTED_DCT, clipped_pixels, cut_windows, decoder_luma, evenly_spaced)
from classifier.forensics.earlier_steps import StepScores
from classifier.forensics.scores import SIGMA
from classifier.forensics.tables import MAX_STEP, standard_tables

EPSILON = 0.02            # coefficients that no model explains
HALVES = np.kron(np.eye(2), DCT).astype(np.float32)     # DCT of both halves, (16, 16)
MIXING = np.square(SHIFTED_DCT @ HALVES.T)              # M, (8, 8, 16)
NEAR = np.kron(np.eye(2), sum(np.eye(BLOCK, k=k) for k in (-1, 0, 1))).astype(np.float32)
BUSY, QUIET, ACTIVITY = 1.15, 0.1, 3.4   # see _last_error; fitted at qualities 50..95
ZERO_WIDTH = 3.0          # sigmas
MIN_WIDTH = 2.5           # steps of fewer sigmas show nothing
BINS_PER_SIGMA, BINS, CLASS = 3, 480, 0.1   # of |c|; classes of log sigma
ROUGH_BINS, ROUGH_CLASS = 240, 2         # in the search; classes of 2 of those
WINDOWS = 1000            # 2x2 blocks looked at
USED = np.array([u + v < 7 for u in range(8) for v in range(8)])
SEARCH_WINDOWS, LOW, GRIDS = 300, 4, 3   # windows, frequencies both ways; grids left, by each sum
SEARCHED = np.array([BLOCK * u + v for u in range(LOW) for v in range(LOW)][1:])
# Steps tried in the search: all up to 31, then 5 % apart up to 119.
SEARCH_STEPS = np.array([*range(2, 32), *np.unique(np.rint(32 * 1.05 ** np.arange(28)))], int)


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
        GRIDS to 2 GRIDS of them; none if the image shows nothing.

    References
    ----------
    Bianchi and Piva 2012.
    """
    *_, windows = cut_windows(image, 0, 0, 2 * BLOCK, WINDOWS)
    luma = decoder_luma(windows[~clipped_pixels(windows).any(axis=(1, 2))])
    luma = luma[np.ptp(luma, axis=(1, 2)) > 1]
    # repeats (text, tiles) look like evidence but are one observation, see get_blocks
    distinct = {(w - w[0, 0]).tobytes(): i for i, w in enumerate(luma)}
    luma = luma[list(distinct.values())].astype(np.float32) - 128
    if not len(luma):
        return []
    error = _last_error(luma, last)
    best = np.argsort(-_rough_evidence(luma, error, last)[:, 1:], axis=1)[:, :GRIDS] + 1
    return [MovedGrid(*divmod(grid, BLOCK), _on_grid(luma, error, last, *divmod(grid, BLOCK)))
            for grid in dict.fromkeys(best.T.ravel().tolist())]


def _rough_evidence(luma, error, last):
    """What low frequencies of a few windows show on 64 grids: (2, 64) nats.

    By the best step of each, and by the best of libjpeg's tables that are coarser than the last.
    """
    some = evenly_spaced(len(luma), SEARCH_WINDOWS)
    luma, error = luma[some], error[some]
    low, mixing = (a[:, :LOW].reshape(-1, 2 * BLOCK) for a in (SHIFTED_DCT, MIXING))
    scores = []
    for dct_y, mixing_y in zip(SHIFTED_DCT[:, :LOW], MIXING[:, :LOW]):  # all at once: more memory
        value, sigma = (
            a.reshape(-1, LOW, BLOCK, LOW).transpose(2, 1, 3, 0).reshape(BLOCK, LOW * LOW, -1)
            [:, 1:].reshape(BLOCK * (LOW * LOW - 1), -1)
            for a in (np.abs(dct_y @ luma @ low.T), _sigma(error, mixing_y, mixing)))
        scores.append(_step_scores(value, sigma, SEARCH_STEPS, ROUGH_BINS, ROUGH_CLASS))
    scores = np.concatenate(scores).reshape(BLOCK * BLOCK, -1, len(SEARCH_STEPS))
    coarser = SEARCH_STEPS > last[SEARCHED][:, None]
    best = np.where(coarser, scores, 0).max(axis=2)
    free = np.maximum(0, best - math.log(len(SEARCH_STEPS))).sum(axis=1)
    standard = standard_tables()[standard_tables().sum(axis=1) > last.sum()][:, SEARCHED]
    nearest = np.abs(SEARCH_STEPS - standard[..., None]).argmin(axis=2)
    standard = scores[:, np.arange(len(SEARCHED)), nearest].sum(axis=2).max(axis=1, initial=0)
    return np.stack([free, standard])


def _on_grid(luma, error, last, dy, dx):
    """The `StepScores` of one grid, of the frequencies USED."""
    value = np.abs(SHIFTED_DCT[dy] @ luma @ SHIFTED_DCT[dx].T).reshape(-1, 64) * USED
    sigma = _sigma(error, MIXING[dy], MIXING[dx]).reshape(-1, 64)
    steps = np.arange(MAX_STEP + 1)
    scores = np.zeros((64, len(steps)))
    scores[USED] = _step_scores(value[:, USED].T, sigma[:, USED].T, slice(None))
    own = scores[np.arange(64), np.minimum(last, MAX_STEP)]
    return StepScores(np.where(steps > last[:, None], scores, 0), value, own)


def _step_scores(value, sigma, steps, bins=BINS, classes=1):
    """Scores of steps (s,), or of a slice of 0..255, by f frequencies: (f, s) float32.

    value: |c|, sigma: its noise, both (f, n).
    """
    kind = np.log(sigma / np.float32(SIGMA)) * np.float32(1 / (CLASS * classes))
    kind = np.rint(kind).astype(np.int32)
    kinds = int(kind.max()) + 1
    scale = BINS_PER_SIGMA / _sigma_of(classes * np.arange(kinds, dtype=np.float32))
    index = np.minimum(np.rint(value * scale[kind]), bins - 1).astype(np.int32)
    index += kind * bins + kinds * bins * np.arange(len(value), dtype=np.int32)[:, None]
    count = np.bincount(index.ravel(), minlength=len(value) * kinds * bins)
    count = count.reshape(len(value), kinds, bins)
    count[..., -1] = 0       # larger ones are not scored
    count = count.reshape(len(value), -1)
    used = np.flatnonzero(count.any(axis=0))
    found = np.concatenate([_scores_of(0)[:0], *(
        _scores_of(classes * k)[used[used // bins == k] % bins]
        for k in np.unique(used // bins).tolist())])
    return count[:, used].astype(np.float32) @ found[:, steps]


def _sigma_of(kind):
    return np.float32(SIGMA) * np.exp(np.float32(CLASS) * kind)


@functools.lru_cache(maxsize=64)
def _scores_of(kind):
    """Scores of the steps 0..255 for the bins of |c|, in a class of sigma: (BINS, 256) float32."""
    scaled = np.arange(BINS, dtype=np.float32)[:, None] / BINS_PER_SIGMA   # both in sigmas
    width = np.maximum(np.arange(MAX_STEP + 1, dtype=np.float32), 0.5) / _sigma_of(kind)
    cell = np.rint(scaled / width)
    off = np.abs(scaled - cell * width)
    density = np.exp(-0.5 * off * off) + np.exp(-0.5 * np.square(width - off))
    ratio = np.where(cell == 0, 0, width * np.float32(1 / math.sqrt(2 * math.pi)) * density)
    zero = np.minimum(1, np.exp(0.5 * (ZERO_WIDTH ** 2 - scaled * scaled)))
    score = np.log((1 - EPSILON) * np.maximum(ratio, zero) + EPSILON)
    score[:, width < MIN_WIDTH] = 0
    score[:, 0] = 0
    return score


def _last_error(luma, last):
    """Variance of the last coder's errors in 2x2 of its blocks: (n, 16, 16) float32.

    luma: (n, 16, 16). In units of step^2 / 12 it is about 1 where a level is not 0; where it
    is, it grows with the mean `near` of the 8 frequencies around (levels above 2 count as
    2): from 0.03..0.3 at 0 to 0.55 at 1/4, 0.83 at 1/2 and 0.93 at 3/4 on photos.
    """
    step = np.tile(last.reshape(BLOCK, BLOCK), (2, 2)).astype(np.float32)
    level = np.minimum(np.abs(np.rint(HALVES @ luma @ HALVES.T / step)), 2)
    neighbours = NEAR.sum(axis=0)
    near = (NEAR @ level @ NEAR - level) / (neighbours[:, None] * neighbours - 1)
    share = BUSY - np.where(level > 0, 0, (BUSY - QUIET) * np.exp(-ACTIVITY * near))
    return (share * np.square(step) / 12).astype(np.float32)


def _sigma(error, mixing_y, mixing_x):
    """Noise of coefficients across the last coder's blocks, float32."""
    return np.sqrt(mixing_y @ error @ mixing_x.T + np.float32(SIGMA ** 2))
