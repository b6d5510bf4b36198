"""Whether pixels last compressed with a known table were compressed before, more coarsely.

    from classifier.forensics.recompression import find_earlier
    from classifier.forensics.tables import standard_tables
    earlier = find_earlier(bgr_image, standard_tables()[90 - 1])   # last compressed at 90
    print(earlier.quality, earlier.grid_dy, earlier.grid_dx)

The last coder rounded coefficient k of each block to n2 s2, s2 from its table, on grid
(0, 0). Its pixels may have been those of an earlier coder with larger steps s1.

Same grid. The last coder met c = n1 s1 + r, r the rounding noise of pixels (lattice.py;
sigma 0.29), so that n2 = round(c / s2) skips the multiples of s2 that are not next to one
of s1: the gaps and peaks of Popescu & Farid. n2 is read without error. Let f be the
density of |c| before any compression. Without and with an earlier step,

    P0(n2) = mass of f in the cell of n2,
    P1(n2) = sum over n1 of (mass of f in the cell of n1) P(round((n1 s1 + r) / s2) = n2),

and the score of s1 is the sum of log((1 - epsilon) P1 / P0 + epsilon) over the blocks. f is
a mixture of Laplacians of fixed scales whose weights are fitted to the n2 of a frequency:
any smooth falling density, peaked or long-tailed. It is fitted as if there were no earlier
step, which can only lower the score. The DC, whose f has no such form, is left out.

Other grid. In a block of the earlier grid c = n1 s1 + r + e, where e is the last coder's
error, seen in a block that lies across four of its own. A rounded coefficient has an error
of variance D = s2^2 / 12 if n2 is not 0, and less among zeros (`_last_error`). With M[u, v]
the squared part of frequency u, across, in frequency v of the halves, the variance of c is
M_dy D M_dx' + 1/12, coefficient by coefficient. The score of a step is lattice.py's with
that noise. Zeros are so many that their outliers would refute true steps: whatever is
within ZERO_WIDTH sigmas of zero counts neither way. What the model neglects is much the
same on all grids: the score that counts is the margin over the next best grid.

Smooth images. They show few different coefficients, again and again, whose gaps can look like a
step's by chance, and where n1 is always 0, any step would do. So a frequency counts at most VALUE
nats for each different n1 but 0. On the same grid the earlier pixels can be made again, too: the
levels round(c / s1), decoded, coded with the last table and decoded once more, are the block to the
last bit where both coders had these tables (inverse_dct.py) and rounding broke no level: 0.5 to 1
of the blocks if there is little in them, at most 0.44 with a wrong table. Where evidence is
weak and last steps let most levels survive, TWICE of the blocks must be exact.

The score of a table is the sum over frequencies. The answer is the best of the standard
tables coarser than the last one, if it scores more than single compression does.

Sources: Z. Fan and R. L. de Queiroz, "Identification of bitmap compression history: JPEG
detection and quantizer estimation", IEEE Trans. Image Processing 12(2), 2003; A. C. Popescu
and H. Farid, "Statistical tools for digital forensics", Information Hiding 2004; T. Bianchi
and A. Piva, "Image forgery localization via block-grained analysis of JPEG artifacts", IEEE
Trans. Information Forensics and Security 7(3), 2012.
"""
import math
from dataclasses import dataclass

import numpy as np

from classifier.forensics.blocks import (
    BLOCK, DCT, DCT2, SHIFTED_DCT, clipped_pixels, cut_windows, decoder_luma, evenly_spaced,
    get_blocks)
from classifier.forensics.exact_blocks import exact_blocks, rounded_right
from classifier.forensics.inverse_dct import inverse_dct
from classifier.forensics.scores import SIGMA
from classifier.forensics.tables import MAX_STEP, standard_tables

EPSILON = 0.01, 0.02      # coefficients that no model explains: same grid, other grid
ALIGNED_EVIDENCE = 18.0   # nats; 11.7 the most of 3000 photos compressed once, 16.4 of gradients
WEAK, TWICE, READ = 120.0, 0.5, 0.5   # nats; share of exact blocks; of blocks whose levels survive
SHIFTED_EVIDENCE = 70.0   # nats ahead; 68.7 and 49.9 (only 3 of 4000 above 50); 64.1 with the
                          # tables of other encoders
VALUE = 8.0               # nats that one level of one frequency may count, however many blocks
FINE, FINE_EVIDENCE = 0.2, 80.0  # share of blocks that last tables finer than 96 leave unbroken, at
                                 # most; nats; smooth images compressed once reach 64 with those
REST, TWO_EVIDENCE = 3.0, 20.0   # nats; gradients and waves compressed once reach 16 on two

TOP = 1024                # largest |coefficient|
SCALES = 0.35 * 2.0 ** np.arange(11)   # mean |c| of the Laplacians in f
FIT_STEPS = 75            # of expectation maximization; 25 leave scores of 10 by chance
# The fit pools levels in bins a quarter of their value wide, which begin here, so that f does not
# follow the gaps of an earlier compression.
POOLS = [0]
while POOLS[-1] < TOP:
    POOLS.append(POOLS[-1] + max(1, POOLS[-1] // 4))
# Probabilities that rounding noise is below -4, -3.5, ..., 4.
NORMAL = np.array([0.5 + 0.5 * math.erf(d / 2 / SIGMA / math.sqrt(2)) for d in range(-8, 9)])

HALVES = np.kron(np.eye(2), DCT).astype(np.float32)     # DCT of both halves, (16, 16)
MIXING = np.square(SHIFTED_DCT @ HALVES.T)              # M, (8, 8, 16)
NEAR = np.kron(np.eye(2), sum(np.eye(BLOCK, k=k) for k in (-1, 0, 1))).astype(np.float32)
BUSY, QUIET, ACTIVITY = 1.15, 0.1, 3.4   # see _last_error; fitted at qualities 50..95
ZERO_WIDTH = 3.0          # sigmas
MIN_WIDTH = 2.5           # steps of fewer sigmas show nothing
WINDOWS = 1000            # 2x2 blocks looked at
USED = np.array([8 * u + v for u in range(8) for v in range(8) if u + v < 7])
SEARCH_WINDOWS, LOW = 300, 4             # windows, frequencies both ways in the rough search
BINS_PER_SIGMA, BINS, CLASS = 3, 240, 0.25   # its histograms; classes of log sigma
CANDIDATES, TABLES = 3, 12               # grids, and tables at each, that it leaves


@dataclass(frozen=True)
class Earlier:
    """An earlier, coarser compression."""
    quality: int | None      # 1..100; None when there is no sign of one
    grid_dy: int             # top-left corner of its first whole block, 0..7; (0, 0) is the
    grid_dx: int             # last compression's own grid
    score: float             # nats


def find_earlier(image: np.ndarray, table: np.ndarray) -> Earlier:
    """The compression before the last one.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        Decoded pixels, BGR; the last compression's grid is (0, 0).
    table : int array, shape (64,)
        The last compression's luma table, row by row.

    References
    ----------
    Popescu and Farid 2004; Bianchi and Piva 2012: see the top of this file.
    """
    tables = standard_tables()
    coarser = np.flatnonzero(tables.sum(axis=1) > table.sum())
    if not len(coarser):
        return Earlier(None, 0, 0, 0.0)
    blocks, survive = get_blocks(image, 0, 0), rounded_right(table)
    top, score = _aligned(blocks.coefficients, table, tables[coarser])
    dy = dx = 0
    found = score >= (FINE_EVIDENCE if survive < FINE else ALIGNED_EVIDENCE)
    if found and score < WEAK and survive > READ:
        found = _exact_twice(blocks, tables[coarser[top]], table).mean() >= TWICE
    if not found:
        top, dy, dx, score = _shifted_search(image, table, tables[coarser])
        if score < SHIFTED_EVIDENCE:
            return Earlier(None, 0, 0, score)
    return Earlier(int(coarser[top]) + 1, dy, dx, score)


def _exact_twice(blocks, first, last):
    """Which blocks come out bit for bit of both tables (64,), one after the other: (n,) bool."""
    levels, _ = exact_blocks(blocks, first[None])
    earlier = inverse_dct(levels[0] * first).astype(np.float32) - 128
    levels = np.rint(earlier @ DCT2.T / last).astype(int)
    return (inverse_dct(levels * last) == blocks.luma + 128).all(axis=1)


def _aligned(coefficients, last, tables):
    """The best of earlier tables (t, 64) on the same grid, from coefficients (n, 64).

    Its index and its score in nats.
    """
    scores = np.zeros((len(tables), 64))
    levels = np.minimum(np.abs(np.rint(coefficients / last)).astype(int), TOP // last)
    if not len(levels):
        return 0, 0.0
    half = np.arange(2 * TOP + 3 * MAX_STEP) / 2
    mass = 1 - _fit_density(levels, last) @ np.exp(-half / SCALES[:, None])  # of f below |c| = half
    mass[:, 0] = 0
    for k in range(1, BLOCK * BLOCK):
        count = np.bincount(levels[:, k])
        coarser = np.flatnonzero(tables[:, k] > last[k])
        if len(count) > 1 and len(coarser):
            step, where = np.unique(tables[coarser, k], return_inverse=True)
            scores[coarser, k] = _comb_scores(count, last[k], step, mass[k])[where]
    top = int(scores.sum(axis=1).argmax())
    most = VALUE * _different(levels * last, tables[[top]])[0]
    return top, float(np.minimum(scores[top], most).sum())


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
    return np.log((1 - EPSILON[0]) * ratio + EPSILON[0]) @ count[used]


def _shifted_search(image, last, tables):
    """The index of the best earlier table, its grid's dy and dx, and the nats it is ahead.

    Of the next best grid, and of the last table on its own, which flat stretches, where
    neighbouring blocks are alike, can show on any grid.
    """
    *_, windows = cut_windows(image, 0, 0, 2 * BLOCK, WINDOWS)
    luma = decoder_luma(windows[~clipped_pixels(windows).any(axis=(1, 2))])
    luma = luma[np.ptp(luma, axis=(1, 2)) > 1]
    # repeats (text, tiles) look like evidence but are one observation, see get_blocks
    distinct = {(w - w[0, 0]).tobytes(): i for i, w in enumerate(luma)}
    luma = luma[list(distinct.values())].astype(np.float32) - 128
    if not len(luma):
        return 0, 0, 0, 0.0
    error = _last_error(luma, last)
    rough = _rough_scores(luma, error, tables)
    found = []
    for grid in np.argsort(-rough.max(axis=1))[:CANDIDATES]:
        dy, dx = divmod(int(grid), BLOCK)
        likely = np.argsort(-rough[grid])[:TABLES]
        value = np.abs(SHIFTED_DCT[dy] @ luma @ SHIFTED_DCT[dx].T).reshape(-1, 64)[:, USED]
        sigma = _sigma(error, MIXING[dy], MIXING[dx]).reshape(-1, 64)[:, USED]
        steps = np.vstack([tables[likely], last])[:, USED].astype(np.float32)
        scores = _lattice_scores(value, sigma, steps[:, None]).sum(axis=1, dtype=np.float64)
        top = int(scores[:-1].sum(axis=1).argmax())
        score = np.minimum(scores, VALUE * _different(value, steps)).sum(axis=1)
        found.append((float(score[top] - max(0, score[-1])), int(likely[top]), dy, dx))
    (score, top, dy, dx), (second, *_), *_ = sorted(found, reverse=True)
    return top, dy, dx, score - max(0, second)


def _different(value, steps):
    """Different levels but 0 of |c| = value (n, f), by the steps of tables (t, f): (t, f) int."""
    seen = np.zeros((*steps.shape, TOP + 1), bool)
    table, _, frequency = np.ogrid[:len(steps), :1, :steps.shape[1]]
    level = np.rint(value / steps[:, None]).astype(np.int32)  # t, n, f
    seen[table, frequency, level] = True
    return seen[..., 1:].sum(axis=2)


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


def _lattice_scores(value, sigma, step):
    """Scores of steps for |c| = value with that noise, all float32 and broadcast, in nats."""
    width, scaled = step / sigma, value / sigma
    cell = np.rint(value / step)
    off = np.abs(scaled - cell * width)
    density = np.exp(-0.5 * off * off) + np.exp(-0.5 * np.square(width - off))
    ratio = np.where(cell == 0, 0, width * np.float32(1 / math.sqrt(2 * math.pi)) * density)
    zero = np.minimum(1, np.exp(0.5 * (ZERO_WIDTH ** 2 - scaled * scaled)))
    score = np.log((1 - EPSILON[1]) * np.maximum(ratio, zero) + EPSILON[1])
    return np.where(width < MIN_WIDTH, 0, score)


def _rough_scores(luma, error, tables):
    """Scores of tables on the 64 grids from a few windows and low frequencies: (64, t) float32."""
    # noise and |c| are binned: a histogram a grid
    some = evenly_spaced(len(luma), SEARCH_WINDOWS)
    dct, mixing = (basis[:, :LOW].reshape(-1, 2 * BLOCK) for basis in (SHIFTED_DCT, MIXING))
    value, sigma = np.abs(dct @ luma[some] @ dct.T), _sigma(error[some], mixing, mixing)
    least = sigma.min()
    kind = np.rint(np.log(sigma / least) / CLASS).astype(np.int32)
    sigmas = least * np.exp(np.float32(CLASS) * np.arange(kind.max() + 1, dtype=np.float32))
    index = np.rint(value / sigmas[kind] * BINS_PER_SIGMA).astype(np.int32)
    index = np.minimum(index, BINS - 1) + kind * BINS  # the last bin is not scored
    index = index.reshape(-1, 8, LOW, 8, LOW).transpose(2, 4, 1, 3, 0).reshape(LOW, LOW, 64, -1)
    size = len(sigmas) * BINS
    index += size * np.arange(64, dtype=np.int32)[:, None]
    centre = (sigmas[:, None] * np.arange(BINS, dtype=np.float32) / BINS_PER_SIGMA).reshape(-1, 1)
    total = np.zeros((64, len(tables)), np.float32)
    for u, v in list(np.ndindex(LOW, LOW))[1:]:
        step, where = np.unique(tables[:, BLOCK * u + v], return_inverse=True)
        count = np.bincount(index[u, v].ravel(), minlength=64 * size).reshape(64, size)
        used = np.flatnonzero(count.any(axis=0))
        used = used[used % BINS < BINS - 1]
        score = _lattice_scores(centre[used], sigmas[used // BINS, None], step.astype(np.float32))
        total += (count[:, used].astype(np.float32) @ score)[:, where]
    total[0] = -np.inf
    return total
