"""Log-likelihood ratios of quantization steps and tables to "not compressed", in nats.

lattice.py derives them. From the `Blocks` of a grid phase come the scores of single steps
(`step_scores`) and of the standard tables (`quality_scores`), and how many of the pixels a
table explains (`misfit`); `least_evidence` and `most_misfit` say what proves a lattice.
"""
import functools

import numpy as np

from classifier.forensics.blocks import DCT2, Blocks
from classifier.forensics.near_lattice import near_lattice
from classifier.forensics.tables import MAX_STEP

BINS_PER_UNIT = 8         # |coefficient| histogram; 1/8 is also the grid of DC, (0,4), (4,4)
BINS = 1032 * BINS_PER_UNIT   # |DC| <= 8 * 128, and no AC is larger than 1031
SIGMA = 0.295             # rounding noise of one coefficient
NOISE = (SIGMA, 0.95), (1.2, 0.05)   # and shares; in blocks of few coefficients it is not white
EPSILON = 0.002           # coefficients that no model explains
ZERO_WIDTH = 2.5          # sigmas around zero that count as zero
FLAT_STEP = 16            # smallest DC step that shows in flat blocks (2 gray levels)
PIXEL_ERROR = 0.55        # gray levels that rounding may leave between pixels and lattice
MOST_OFF = 64 * PIXEL_ERROR ** 2 + 0.1    # the same for a block's squares, summed up

TIE = 3.0                 # nats within which qualities count as indistinguishable
MAX_SPAN = 4              # widest set of qualities that one answer may stand for

# What a lattice must reach, at these qualities and interpolated between them: fine tables fit
# much that is on no lattice of theirs. Measured on 16 photos, 256 and 64 pixel crops: the misfit
# of true lattices stays below MISFIT plus MISFIT_MORE over the root of the number of blocks.
FINE_QUALITY = (85, 90, 95, 97, 99, 100)
MIN_EVIDENCE = (12, 15, 30, 40, 60, 60)   # nats
MISFIT, MISFIT_MORE = (0.006, 0.010, 0.024, 0.034, 0.034, 0.021), 0.04
# What other steps may gain over the table: nats, and share of the evidence. True lattices
# reach 480 nats at 8 %, and 240 % at 15 nats; fine tables that only hold the lattice of
# another, coarser table reach 4000 % and more.
MAX_LOSS, MAX_LOSS_SHARE = 500.0, 2.0

FEW_LUMA = 100            # up to so many blocks, chroma and exact pixels help as well
# Of so few blocks, qualities from 80 on need more: off their grid, the edges between flat
# blocks of a coarse table fit a fine table with up to 27 nats (1600 crops of photos).
FINE_FROM, FINE_EVIDENCE = 80, 30.0


# Frequencies whose coefficients have much the same range.
_BANDS = [np.flatnonzero((low <= sum(np.divmod(np.arange(64), 8)))
                         & (sum(np.divmod(np.arange(64), 8)) < high))
          for low, high in ((0, 1), (1, 3), (3, 6), (6, 15))]


@functools.lru_cache(maxsize=1)
def _score_table():
    """s(c, q) for |c| in bins of 1/8 and steps 1..255: (BINS, 255) float32."""
    def noise(residual):
        return sum(share * (np.exp(-0.5 * (residual / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)))
                   for sigma, share in NOISE)

    value = (np.arange(BINS, dtype=np.float32) / BINS_PER_UNIT)[:, None]
    step = np.arange(1, MAX_STEP + 1, dtype=np.float32)
    cell = np.round(value / step)
    density = sum(noise(value - (cell + j) * step) for j in (-1, 0, 1))
    zero = np.minimum(1, density / noise(np.float32(ZERO_WIDTH * SIGMA)))
    ratio = np.where(cell == 0, zero, step * density)
    return np.log((1 - EPSILON) * ratio + EPSILON).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _flat_table():
    """Score of a flat block's level under a DC step, round(128 + n q / 8): (256, 255) float32."""
    level = np.arange(256)[:, None] - 128
    step = np.arange(1, MAX_STEP + 1)
    off = np.abs(np.round(8 * level / step) * step / 8 - level)
    score = np.log((1 - EPSILON) * (off <= 0.5) * step / 8 + EPSILON)
    return np.where(step < FLAT_STEP, 0, score).astype(np.float32)


def step_scores(blocks: Blocks) -> np.ndarray:
    """The score of every step at every frequency: (64, 255) float32, in nats."""
    index = np.rint(np.abs(blocks.coefficients) * BINS_PER_UNIT).astype(np.int32)
    np.minimum(index, BINS - 1, out=index)
    scores = np.empty((64, MAX_STEP), np.float32)
    for band in _BANDS:
        scores[band] = _summed(index[:, band])
    return scores


def _summed(index):
    """Scores of all steps, summed up over bins (n, f) of |coefficients|: (f, 255) float32."""
    top, frequencies = int(index.max(initial=0)) + 1, index.shape[1]
    index = index + top * np.arange(frequencies, dtype=np.int32)
    histogram = np.bincount(index.ravel(), minlength=frequencies * top).reshape(frequencies, top)
    used = np.flatnonzero(histogram.any(axis=0))
    return histogram[:, used].astype(np.float32) @ _score_table()[used]


def _looked_up(coefficients, tables):
    """Scores of coefficients (..., f) under the steps of tables (..., f), as they broadcast."""
    index = np.rint(np.abs(coefficients) * BINS_PER_UNIT).astype(np.int64)
    return _score_table().ravel()[np.minimum(index, BINS - 1) * MAX_STEP + (tables - 1)]


def _clipped_scores(blocks, tables):
    """Scores of tables (n, 64) from the AC of partly clipped blocks: (n,) float64."""
    # Clipping moved some off the lattice: with probability 1/2, a block tells nothing.
    score = _looked_up(blocks.clipped[:, None, 1:], tables[:, 1:]).sum(axis=2, dtype=np.float64)
    return np.logaddexp(score, 0).sum(axis=0) - len(score) * np.log(2)


def exact_scores(blocks: Blocks, tables: np.ndarray) -> list[np.ndarray]:
    """What tables (t, 64) gain where they explain a block to the pixel: AC, DC (t,) float64.

    The rounding noise of nearly flat blocks, of a gray level or two, is not Gaussian, but the
    block is round(IDCT(n q)) to the pixel. It then is as likely as n is: log q for each level
    that is not 0, and for DC, of which flat blocks show every eighth value, log(q / 8).
    """
    table, block, level = near_lattice(blocks.coefficients, tables, MOST_OFF)
    steps = tables.astype(np.float32)[table]
    off = np.abs(blocks.luma[block] - (level * steps) @ DCT2)
    exact = off.max(axis=1, initial=0) <= PIXEL_ERROR
    table, block, level, steps = (part[exact] for part in (table, block, level, steps))
    gain = np.where(level != 0, np.log(steps), 0)
    gain[:, 0] = np.log(np.maximum(1, steps[:, 0] / 8))
    gain -= _looked_up(blocks.coefficients[block], tables[table])
    return [np.bincount(table, np.maximum(more, 0), len(tables))
            for more in (gain[:, 1:].sum(axis=1), gain[:, 0])]


def flat_scores(blocks: Blocks, tables: np.ndarray) -> np.ndarray:
    """What the levels of flat blocks tell of the DC steps of tables (t, 64): (t,) nats."""
    return _flat_table()[blocks.flat].sum(axis=0, dtype=np.float64)[tables[:, 0] - 1]


def quality_scores(blocks: Blocks, tables: np.ndarray,
                   exact: bool = False) -> tuple[np.ndarray, np.ndarray, float]:
    """The scores of the standard tables, and of the best steps chosen one by one.

    Parameters
    ----------
    blocks : Blocks
    tables : int array, shape (100, 64)
        The plane's `standard_tables`.
    exact : bool
        Add what blocks tell that a table explains to the pixel.

    Returns
    -------
    ac, dc : float64 arrays, shape (100,)
        Of each table, in nats.
    free : float
        Of the best AC steps, in nats.
    """
    scores = step_scores(blocks)
    dc = scores[0] + _flat_table()[blocks.flat].sum(axis=0)
    dc = dc[tables[:, 0] - 1].astype(np.float64)
    scores[0] = 0
    ac = scores[np.arange(64), tables - 1].sum(axis=1, dtype=np.float64)
    free = float(scores.max(axis=1).sum())
    if exact:
        ac, dc = np.add((ac, dc), exact_scores(blocks, tables))
    if len(blocks.clipped):
        clipped = _clipped_scores(blocks, tables)
        ac, free = ac + clipped, free + float(clipped.max())
    return ac, dc, free


def misfit(blocks: Blocks, table: np.ndarray, dc: bool = True) -> float:
    """Share of pixels that the table's lattice does not explain, 0..1; `dc`: with its step."""
    steps = blocks.dct.steps(table).astype(np.float32)
    if not dc:
        steps[0] = 1 / BINS_PER_UNIT
    lattice = np.rint(blocks.coefficients / steps) * steps
    error = np.abs(blocks.luma - lattice @ DCT2)
    return float((error > PIXEL_ERROR).mean()) if error.size else 0.0


def most_misfit(quality: int, count: int) -> float:
    """The misfit that the lattice of that table may have, from so many blocks."""
    return np.interp(quality, FINE_QUALITY, MISFIT) + MISFIT_MORE / np.sqrt(max(1, count))


def least_evidence(quality: int, count: int) -> float:
    """The nats by which that table must beat "not compressed", from so many blocks."""
    least = np.interp(quality, FINE_QUALITY, MIN_EVIDENCE)
    return max(least, FINE_EVIDENCE) if count <= FEW_LUMA and quality >= FINE_FROM else least


def fitting(total: np.ndarray) -> np.ndarray:
    """The qualities 1, 2, ... whose total score is within TIE of the best: (n,) int."""
    return np.flatnonzero(total >= total.max() - TIE) + 1


def middle(fits: np.ndarray, total: np.ndarray) -> int:
    """The best of those qualities; the middle one where several are equally good."""
    best = fits[total[fits - 1] >= total[fits - 1].max() - 1e-3]
    return int(best[len(best) // 2])
