"""The exact JPEG quality of decoded pixels, read from the lattice of their DCT coefficients.

A JPEG coder rounds the 64 DCT coefficients of each 8x8 luma block to multiples of
the steps of a quantization table. In the decoded pixels the coefficients still lie
near those multiples, so that pixels alone tell the table, and the table the quality:

    from classifier.lattice import find_quality
    found = find_quality(bgr_image)            # guess=20.4 when the network answered that
    print(found.quality, found.grid_dy, found.grid_dx, found.subsampling)

The observation. Let Y be the decoder's luma: the inverse DCT of multiples of the
steps, rounded to integers. Y = 0.299 R + 0.587 G + 0.114 B (JFIF, after BT.601), and
rounding R, G and B moves that sum by at most 0.5, so rounding it gives Y back, whatever
was done to the chroma, unless a channel was clipped to 0..255. Such blocks are left out.
What stays is the rounding of Y itself, e = Y - IDCT(n q), with |e| <= 0.5 in each pixel.
The DCT is orthonormal, so that a coefficient c = n q + r has a residual r that is nearly
Gaussian, with variance 1/12: sigma = 0.289 (0.28..0.29 measured at qualities 10..95).

The likelihood. Before quantization a coefficient of frequency k is Laplacian with scale
b_k (mean |c|); p(n) is its mass in the cell |c - n q| <= q/2 (Fan & de Queiroz 2003;
Neelamani et al. 2006). A coefficient of a picture that was not compressed has the
Laplacian density f itself. Within a cell other than zero's f is taken as flat, p(n) = q f,
and the log-likelihood ratio of "step q" to "not compressed" is

    s(c, q) = log((1 - epsilon) q sum_j N(c - j q; sigma) + epsilon),      |c| > q/2

without b_k. The cell of zero is where real pictures are least Laplacian (smooth blocks
next to textured ones make a peak and long tails, which a Laplacian takes for a lattice
of a large step), so there the ratio is held at or below 0: what is near zero proves
nothing, what is in the cell but far from zero is evidence against the step. A step's
multiples are refuted by odd n, its divisors by their smaller gain, log q, a coefficient.
The score of a table is the sum of s over 64 frequencies and all blocks.

The test. Scores grow with the number of blocks, even for a wrong model. Three conditions
tell a lattice: the table beats "not compressed" by MIN_EVIDENCE; it explains the pixels,
as few of them have |Y - IDCT(q round(c / q))| > 0.55 (0.1 % at quality 10, 4 % at 98,
where residuals pass half a step; over 20 % in photos that were not compressed up to
quality 98, 10 % at 99, 5 % at 100); and no free choice of steps explains the coefficients
far better, which it would for a table whose steps only divide the true ones. DC counts as
evidence like AC, but where a change of brightness has shifted it, it is left out.

Little texture. Where no more than FEW_LUMA blocks are not flat and that test fails, two
things help. Rounding a block of a gray level or two leaves no Gaussian noise, but the block
is round(IDCT(n q)) pixel by pixel (`exact_scores`). And the chroma planes (chroma.py) lie on
a lattice as well, that of the chroma table of the same quality.

Sources: Z. Fan and R. L. de Queiroz, "Identification of bitmap compression history: JPEG
detection and quantizer estimation", IEEE Trans. Image Processing 12(2), 2003;
R. Neelamani, R. de Queiroz, Z. Fan, S. Dash and R. Baraniuk, "JPEG compression history
estimation for color images", IEEE Trans. Image Processing 15(6), 2006; ITU-T T.81,
Annex K (tables) and A.3.3 (DCT); JFIF 1.02 (colours); libjpeg's scaling of the tables.
"""
import functools
from dataclasses import dataclass, replace

import cv2
import numpy as np

if __package__:  # imported as classifier.lattice
    from .chroma import MARGIN, SIDE, coded_planes, colour_differences
else:
    from chroma import MARGIN, SIDE, coded_planes, colour_differences

BLOCK = 8
MAX_STEP = 255            # steps of baseline JPEG are 8 bits
BINS_PER_UNIT = 8         # |coefficient| histogram; 1/8 is also the grid of DC, (0,4), (4,4)
BINS = 1032 * BINS_PER_UNIT   # |DC| <= 8 * 128, and no AC is larger than 1031
SIGMA = 0.295             # rounding noise of one coefficient
WIDE_SIGMA, WIDE_SHARE = 1.2, 0.05   # blocks with few coefficients: noise is not white there
EPSILON = 0.002           # coefficients that no model explains
ZERO_WIDTH = 2.5          # sigmas around zero that count as zero
FLAT_STEP = 16            # smallest DC step that shows in flat blocks (2 gray levels)

TIE = 3.0                 # nats within which qualities count as indistinguishable
MAX_SPAN = 4              # widest set of qualities that one answer may stand for
STEP_EVIDENCE, MIN_STEPS = 12.0, 4   # nats for one step (of 255), steps for a table

# What a lattice must reach, at these qualities and interpolated between them. Measured on
# 16 photos, 256 and 64 pixel crops: the misfit of true lattices stays below MISFIT plus
# MISFIT_SPREAD over the root of the number of blocks.
FINE_QUALITY = (85, 90, 95, 97, 99, 100)
MIN_EVIDENCE = (12, 15, 30, 40, 60, 60)   # nats
MISFIT, MISFIT_SPREAD = (0.006, 0.010, 0.024, 0.034, 0.034, 0.021), 0.04
# What other steps may gain over the table: nats, and share of the evidence. True lattices
# reach 480 nats at 8 %, and 240 % at 15 nats; fine tables that only hold the lattice of
# another, coarser table reach 4000 % and more.
MAX_LOSS, MAX_LOSS_SHARE = 500.0, 2.0

SAMPLED = 2048            # block positions looked at
MAX_BLOCKS = 1200         # blocks used
FEW_BLOCKS = 48           # with less than these, partly clipped blocks are used too
CLIPPED_PIXELS = 12       # most clipped pixels such a block may have; 30..98 % of them fit
PATCHES = 256             # 15x15 windows in which the 64 phases are compared
PHASE_BLOCKS = 1500       # blocks that the candidate phases may have in all
NEAR_ZERO = 0.7           # |coefficient|, 2.4 sigmas of rounding noise

CONFLICT = 12.0           # nats by which DC or chroma may disagree with the rest
FEW_LUMA = 100            # up to so many blocks, chroma and exact pixels help as well
# Of so few blocks, qualities from 80 on need more: off their grid, the edges between flat
# blocks of a coarse table fit a fine table with up to 27 nats (1600 crops of photos).
FINE_FROM, FINE_EVIDENCE = 80, 30.0
HELPED = 12               # candidate phases that get that help
PIXEL_ERROR = 0.55        # gray levels that rounding may leave between pixels and lattice
CHROMA_WINDOWS = 144      # of 24x24 px
FINEST_CHROMA = 96        # finer chroma tables fit other grids' coefficients by chance
MIN_VARIED = 4            # of their planes, those that are not of one value
MANY_BYTES = 4_000_000    # of larger images, not every row is looked at for colour
# Share of their pixels that upsampling gives: 0.966 and more with the right subsampling, less
# than 0.74 for photos that were not compressed; up to 0.96 for 4:4:4, which is looked for first.
UPSAMPLED = 0.94

# Tables at quality 50, row by row (ITU-T T.81, Annex K, Tables K.1 and K.2).
LUMA_TABLE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99])
CHROMA_TABLE = np.full((8, 8), 99)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


@functools.lru_cache(maxsize=2)
def standard_tables(chroma=False):
    """The quantization tables of qualities 1..100: (100, 64) int, row by row, read-only.

    libjpeg's scaling of Annex K: 5000/q % below quality 50, 200 - 2q % from there.
    """
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    table = CHROMA_TABLE.ravel() if chroma else LUMA_TABLE
    tables = np.clip((table * scale + 50) // 100, 1, 255)
    tables.setflags(write=False)
    return tables


# ---------------------------------------------------------------- DCT

def dct_matrix():
    """The orthonormal 8-point DCT-II (T.81, A.3.3): (8, 8) float64, one row a frequency."""
    u, x = np.mgrid[:BLOCK, :BLOCK]
    scale = np.where(u == 0, np.sqrt(1 / BLOCK), np.sqrt(2 / BLOCK))
    return scale * np.cos((2 * x + 1) * u * np.pi / (2 * BLOCK))


DCT = dct_matrix()
DCT2 = np.kron(DCT, DCT).astype(np.float32)  # (64, 64): frequencies x pixels, row by row


def shifted_dct(side):
    """The DCT at the 8 offsets 0..7 in a row of pixels: (offset, frequency, side) float32."""
    shifted = np.zeros((BLOCK, BLOCK, side), np.float32)
    for offset in range(BLOCK):
        shifted[offset, :, offset:offset + BLOCK] = DCT
    return shifted


SHIFTED = shifted_dct(2 * BLOCK - 1)
BOX = (SHIFTED[:, 0] > 0).astype(np.float32)  # the pixels of those 8 blocks
SHIFTED = SHIFTED.reshape(BLOCK * BLOCK, -1)


# ---------------------------------------------------------------- blocks

def spread(count, limit):
    """At most `limit` of the indices 0..count-1, evenly spread."""
    return np.arange(count) if count <= limit else (np.arange(limit) * (count / limit)).astype(int)


def window_positions(shape, dy, dx, side, limit, stride=BLOCK):
    """Top-left corners of windows on the grid: two (n,) int arrays, n <= limit, spread."""
    rows = (shape[0] - dy - side) // stride + 1
    columns = (shape[1] - dx - side) // stride + 1
    if rows <= 0 or columns <= 0:
        return np.zeros(0, int), np.zeros(0, int)
    chosen = spread(rows * columns, limit)
    # an even stride would visit the same few columns of a wide image: shear the rows
    row = chosen // columns
    return dy + stride * row, dx + stride * ((chosen + 7 * row) % columns)


def cut_windows(image, y, x, side):
    """Square windows with those top-left corners: (n, side, side, 3) uint8."""
    step = np.arange(side)
    return image[(y[:, None] + step)[:, :, None], (x[:, None] + step)[:, None, :]]


def decoder_luma(windows):
    """The decoder's luma of (n, side, side, 3) uint8 BGR windows: (n, side, side) uint8."""
    if not len(windows):
        return np.zeros(windows.shape[:3], np.uint8)
    strip = windows.reshape(-1, windows.shape[2], 3)
    return cv2.cvtColor(strip, cv2.COLOR_BGR2GRAY).reshape(windows.shape[:3])


def clipped_pixels(windows):
    """Where a channel is at 0 or 255: (n, side, side) bool."""
    extreme = (windows - np.uint8(1)) >= 254  # 0 wraps to 255
    return extreme[..., 0] | extreme[..., 1] | extreme[..., 2]


@dataclass(frozen=True)
class Blocks:
    """What a grid phase shows: distinct blocks, levels of flat ones, partly clipped ones."""
    luma: np.ndarray         # (n, 64) float32, 0 is mid-gray
    coefficients: np.ndarray  # (n, 64) float32
    flat: np.ndarray         # (m,) int: the different gray levels of flat blocks
    clipped: np.ndarray      # (k, 64) float32: coefficients of blocks with a few clipped pixels


def get_blocks(image, dy, dx):
    """The `Blocks` of phase (dy, dx): at most MAX_BLOCKS, spread, without repeats.

    Repeats (text, tiles, dither) look like evidence but are one observation. Blocks with
    a few clipped pixels are taken only where there are less than FEW_BLOCKS others.
    """
    windows = cut_windows(image, *window_positions(image.shape, dy, dx, BLOCK, SAMPLED), BLOCK)
    off = clipped_pixels(windows).sum(axis=(1, 2))
    luma, flat = _distinct(decoder_luma(windows[off == 0]), MAX_BLOCKS)
    clipped = np.zeros((0, BLOCK * BLOCK), np.float32)
    if len(luma) < FEW_BLOCKS:
        partly = decoder_luma(windows[(off > 0) & (off <= CLIPPED_PIXELS)])
        clipped = _distinct(partly, FEW_BLOCKS - len(luma))[0] @ DCT2.T
    return Blocks(luma, luma @ DCT2.T, flat, clipped)


def _distinct(planes, limit):
    """Distinct blocks of (n, 8, 8) uint8, less 128: (m, 64) float32; levels of flat ones: int.

    Two blocks are the same if their differences from the first pixel are.
    """
    planes = planes.reshape(-1, BLOCK * BLOCK)
    hashes = ((planes - planes[:, :1]).astype(np.uint64) * _HASH).sum(axis=1)
    _, first = np.unique(hashes, return_index=True)
    first = np.sort(first[hashes[first] != 0])
    return (planes[first[spread(len(first), limit)]].astype(np.float32) - 128,
            np.unique(planes[hashes == 0, 0]).astype(int))


_HASH = np.random.default_rng(1).integers(1, 2**63, BLOCK * BLOCK, dtype=np.uint64) | np.uint64(1)


# ---------------------------------------------------------------- likelihood

@functools.lru_cache(maxsize=1)
def _score_table():
    """s(c, q) for |c| in bins of 1/8 and steps 1..255: (BINS, 255) float32."""
    value = (np.arange(BINS, dtype=np.float32) / BINS_PER_UNIT)[:, None]
    step = np.arange(1, MAX_STEP + 1, dtype=np.float32)
    cell = np.round(value / step)
    density = sum(_noise(value - (cell + j) * step) for j in (-1, 0, 1))
    ratio = step * density
    edge = _noise(np.float32(ZERO_WIDTH * SIGMA))
    zero = np.minimum(1, density / edge)
    ratio = np.where(cell == 0, np.minimum(zero, np.maximum(ratio, zero)), ratio)
    return np.log((1 - EPSILON) * ratio + EPSILON).astype(np.float32)


def _noise(residual):
    """Density of a coefficient's rounding noise."""
    def normal(sigma):
        return np.exp(-0.5 * (residual / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return (1 - WIDE_SHARE) * normal(SIGMA) + WIDE_SHARE * normal(WIDE_SIGMA)


@functools.lru_cache(maxsize=1)
def _flat_table():
    """Score of a flat block's gray level under a DC step: (256, 255) float32.

    A flat block decodes to round(128 + n q / 8): of q / 8 levels, one is possible.
    """
    level = np.arange(256)[:, None] - 128
    step = np.arange(1, MAX_STEP + 1)
    off = np.abs(np.round(8 * level / step) * step / 8 - level)
    score = np.log((1 - EPSILON) * (off <= 0.5) * step / 8 + EPSILON)
    return np.where(step < FLAT_STEP, 0, score).astype(np.float32)


def step_scores(blocks):
    """Log-likelihood ratio of each step to "not compressed": (64, 255) float32, in nats."""
    index = np.rint(np.abs(blocks.coefficients) * BINS_PER_UNIT).astype(np.int32)
    top = min(int(index.max(initial=0)) + 1, BINS)
    np.minimum(index, BINS - 1, out=index)
    index += top * np.arange(64, dtype=np.int32)
    histogram = np.bincount(index.ravel(), minlength=64 * top).reshape(64, top)
    used = np.flatnonzero(histogram.any(axis=0))
    return histogram[:, used].astype(np.float32) @ _score_table()[used]


def table_scores(scores, tables):
    """Sums of step scores over the 64 frequencies of tables (n, 64): (n,) float64."""
    return scores[np.arange(64), tables - 1].sum(axis=1, dtype=np.float64)


def clipped_scores(blocks, tables):
    """Scores of tables (n, 64) from the AC of partly clipped blocks: (n,) float64.

    Clipping moved some of the blocks off the lattice, so that each is a mixture: with
    probability 1/2 it is on the table's lattice, else it tells nothing.
    """
    index = np.rint(np.abs(blocks.clipped[:, 1:]) * BINS_PER_UNIT).astype(np.int64)
    index = np.minimum(index, BINS - 1)[:, None, :] * MAX_STEP + (tables[:, 1:] - 1)
    score = _score_table().ravel()[index].sum(axis=2, dtype=np.float64)
    return np.logaddexp(score, 0).sum(axis=0) - len(score) * np.log(2)


@dataclass(frozen=True)
class Scores:
    """Log-likelihood ratios of the 100 standard tables to "not compressed", in nats."""
    ac: np.ndarray           # (100,) float64
    dc: np.ndarray           # (100,) float64
    free: float              # AC steps chosen one by one

    @property
    def total(self):
        return self.ac + self.dc


def exact_scores(blocks, tables):
    """What tables (t, 64) gain where they explain a block to the pixel: AC, DC (t,) float64.

    The rounding noise of nearly flat blocks, of a gray level or two, is not Gaussian, but the
    block is round(IDCT(n q)) to the pixel. It then is as likely as n is: log q for each level
    that is not 0, and for DC, of which flat blocks show every eighth value, log(q / 8).
    """
    steps = tables.astype(np.float32)[:, None]
    level = np.rint(blocks.coefficients / steps)  # t, n, 64
    off = np.abs(blocks.luma - (level * steps) @ DCT2).max(axis=2)
    table, block = np.nonzero(off <= PIXEL_ERROR)
    index = np.rint(np.abs(blocks.coefficients) * BINS_PER_UNIT).astype(np.int64)
    index = np.minimum(index, BINS - 1)[block] * MAX_STEP + (tables[table] - 1)
    gain = np.where(level[table, block] != 0, np.log(steps[table, 0]), 0)
    gain[:, 0] = np.log(np.maximum(1, steps[table, 0, 0] / 8))
    score = _score_table().ravel()[index]
    ac = np.maximum((gain - score)[:, 1:].sum(axis=1), 0)
    dc = np.maximum((gain - score)[:, 0], 0)
    return tuple(np.bincount(table, more, len(tables)) for more in (ac, dc))


def quality_scores(blocks, tables, exact=False):
    """The `Scores` of a plane's blocks, with `exact_scores` or not; tables: (100, 64) int."""
    scores = step_scores(blocks)
    dc = (scores[0] + _flat_table()[blocks.flat].sum(axis=0)).astype(np.float64)
    scores[0] = 0
    dc = dc[tables[:, 0] - 1]
    ac, free = table_scores(scores, tables), float(scores.max(axis=1).sum())
    if exact and len(blocks.luma):
        gains = exact_scores(blocks, tables)
        ac, dc = ac + gains[0], dc + gains[1]
    if len(blocks.clipped):
        clipped = clipped_scores(blocks, tables)
        ac, free = ac + clipped, free + float(clipped.max())
    return Scores(ac, dc, free)


def misfit(blocks, table, dc=True):
    """Share of pixels that the table's lattice does not explain, 0..1; `dc`: with its step."""
    steps = table.astype(np.float32)
    if not dc:
        steps[0] = 1 / BINS_PER_UNIT
    lattice = np.rint(blocks.coefficients / steps) * steps
    error = np.abs(blocks.luma - lattice @ DCT2)
    return float((error > PIXEL_ERROR).mean()) if error.size else 0.0


# ---------------------------------------------------------------- grid phase

def phase_candidates(image):
    """Likely grid phases, the likeliest first: a list of different (dy, dx).

    Two means over the AC coefficients of each of the 64 phases rank them: the share near
    zero (coarse tables), and cos(2 pi c) of those beyond 1, as steps are whole numbers
    (fine tables; rounding noise leaves exp(-2 pi^2 / 12) = 0.19 of it). Small images,
    whose ranks are uncertain, get more candidates, up to all 64.
    """
    side = 2 * BLOCK - 1
    y, x = window_positions(image.shape, 0, 0, side, 2 * PATCHES)
    windows = cut_windows(image, y, x, side)
    clipped = clipped_pixels(windows).astype(np.float32)
    valid = BOX @ clipped @ BOX.T <= CLIPPED_PIXELS / 2  # n, dy, dx
    luma = decoder_luma(windows)
    useful = np.flatnonzero(valid.any(axis=(1, 2)) & (np.ptp(luma, axis=(1, 2)) > 1))
    useful = useful[spread(len(useful), PATCHES)]
    if not len(useful):
        return [(0, 0)]
    luma, valid = luma[useful].astype(np.float32) - 128, valid[useful]
    c = np.abs(SHIFTED @ luma @ SHIFTED.T).reshape(-1, 8, 8, 8, 8)  # n, dy, u, dx, v
    zero = (c < NEAR_ZERO).sum(axis=(2, 4), dtype=np.float32)
    whole = np.where(c > 1, _cosine(c), 0).sum(axis=(2, 4))
    zero, whole = (np.argsort(-_mean(share, valid)) for share in (zero, whole))
    count = max(4, min(64, PHASE_BLOCKS // (len(y) + 1)))
    ranked = [i for pair in zip(zero, whole) for i in pair]
    return [divmod(int(i), BLOCK) for i in list(dict.fromkeys(ranked))[:count]]


def _mean(share, valid):
    """Mean over the valid blocks of each phase: (64,); -1 where there is none."""
    count = valid.sum(axis=0)
    return np.where(count, (share * valid).sum(axis=0) / np.maximum(count, 1), -1).ravel()


def _cosine(value):
    """cos(2 pi c), roughly, without the cost of a cosine: a parabola in the distance."""
    return 1 - 8 * np.square(value - np.rint(value))


# ---------------------------------------------------------------- chroma

@dataclass(frozen=True)
class Chroma:
    """What the chroma says on one grid phase."""
    subsampling: str | None  # '4:4:4', '4:2:2', '4:2:0', 'gray'; None when it is not sure
    scores: Scores | None    # of the standard chroma tables; None where none is on a lattice

    def quality(self, luma_quality):
        """The chroma table's quality: the luma's if that fits, None when it is not sure."""
        if self.scores is None:
            return None
        total = self.scores.total[:FINEST_CHROMA]
        fits = np.flatnonzero(total >= total.max() - TIE) + 1
        if np.ptp(fits) > MAX_SPAN:
            return None
        return luma_quality if luma_quality in fits else _middle(fits, total)


def read_chroma(image, dy, dx):
    """The `Chroma` of the blocks whose luma is on grid (dy, dx).

    Halved, a chroma block spans two luma blocks: which two is tried.
    """
    y, x = window_positions(image.shape, (dy + MARGIN) % BLOCK, (dx + MARGIN) % BLOCK, SIDE,
                            CHROMA_WINDOWS)
    windows = cut_windows(image, y, x, SIDE)
    if len(windows) and (windows == windows[..., :1]).all():
        rows = image[::1 + image.size // MANY_BYTES]
        return Chroma('gray' if (rows == rows[..., :1]).all() else None, None)
    whole = ~clipped_pixels(windows).any(axis=(1, 2))
    windows, odd_y, odd_x = windows[whole], *(
        (first[whole] + MARGIN - d) // BLOCK % 2 for first, d in ((y, dy), (x, dx)))
    planes = colour_differences(windows, decoder_luma(windows))
    centre = slice(MARGIN, SIDE - MARGIN)
    varied = np.ptp(planes[:, centre, centre], axis=(1, 2)) > 0
    if varied.sum() < MIN_VARIED:
        return Chroma(None, None)
    rows = columns = slice(MARGIN, MARGIN + BLOCK)
    full = _plane_scores(planes[:, rows, columns], slice(None))
    top = full.total[:FINEST_CHROMA].argmax()
    fits = full.total[top] >= FINE_EVIDENCE
    if fits and full.ac[top] >= FINE_EVIDENCE:
        return Chroma('4:4:4', full)
    best, kind = UPSAMPLED, None
    for name, vertical in (('4:2:2', False), ('4:2:0', True)):
        samples, same = coded_planes(planes, vertical)
        share = same[varied, centre, centre].mean()
        if share > best:
            best, kind, coded, phase = share, name, samples, odd_x + 2 * odd_y * vertical
            columns = slice(MARGIN // 2 + 1, MARGIN // 2 + 1 + BLOCK)
            rows = columns if vertical else rows
    if kind is None:
        return Chroma('4:4:4', full) if fits else Chroma(None, None)
    _, _, scores = max(
        (s.total[:FINEST_CHROMA].max(), p, s) for p in np.unique(phase)
        for s in [_plane_scores(coded[:, rows, columns], phase == p)])
    top = int(scores.total[:FINEST_CHROMA].argmax())
    sure = scores.total[top] >= least_evidence(top + 1, 0)
    return Chroma(kind, scores if sure else None)


def _plane_scores(planes, chosen):
    """`Scores` of the chosen blocks of Cb and Cr: planes (2 n, 8, 8), less 128, float32."""
    planes = (planes + 128).clip(0, 255).astype(np.uint8)
    (cb, flat_cb), (cr, flat_cr) = (_distinct(plane[chosen], FEW_LUMA // 2)
                                    for plane in np.split(planes, 2))
    blocks = np.concatenate([cb, cr])
    blocks = Blocks(blocks, blocks @ DCT2.T, np.append(flat_cb, flat_cr), blocks[:0])
    return quality_scores(blocks, standard_tables(chroma=True), exact=True)


# ---------------------------------------------------------------- answers

@dataclass(frozen=True)
class Lattice:
    """What the lattice says. Scores are log-likelihood ratios, in nats."""
    quality: int | None      # 1..100; None when it abstains
    qualities: tuple         # all that fit as well, `quality` among them; () for no lattice
    grid_dy: int             # position of the first whole block's top-left corner, 0..7:
    grid_dx: int             # (0, 0) in a decoded file, (-y mod 8, -x mod 8) in a crop from y, x
    margin: float            # to the best quality that is not in `qualities`
    evidence: float          # to "not compressed": how sure it is that there is a lattice
    misfit: float            # share of luma pixels off the lattice, 0..1
    blocks: int              # luma blocks used
    subsampling: str | None = None   # '4:4:4', '4:2:2', '4:2:0', 'gray'; None: not sure
    chroma_quality: int | None = None  # of the chroma table; None: not sure


def find_quality(image, guess=None, grid=None):
    """The quality whose luma table made the image's lattice, as a `Lattice`.

    image: (h, w, 3) uint8 BGR, decoded pixels. guess: the network's quality, 1..100; it
    decides within `qualities` only, since the lattice is searched faster than narrowed.
    grid: (dy, dx) when the phase is known, else it is searched.

    `quality` is None when no table is on a lattice beyond doubt (nothing to see, edited
    after compression, another table), with `qualities` empty, or when the lattice leaves
    qualities more than MAX_SPAN apart, with all of them in `qualities`.
    ValueError for an image or grid of another kind.
    """
    _check(image, grid)
    tried, grids = [], [grid] if grid is not None else phase_candidates(image)
    for helped in (False, True):
        for dy, dx in grids:
            found = _judge(image, dy, dx, guess, helped)
            if found.qualities:
                return found
            tried.append(found)
        grids = [(f.grid_dy, f.grid_dx) for f in tried if f.blocks <= FEW_LUMA][:HELPED]
    return max(tried, key=lambda found: found.evidence)


def _check(image, grid):
    if getattr(image, 'dtype', None) != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError('the image must be (h, w, 3) uint8 BGR')
    if grid is not None and not all(0 <= d < BLOCK for d in grid):
        raise ValueError(f'grid phase {grid}: both must be in 0..7')


def _judge(image, dy, dx, guess, helped):
    """The `Lattice` of one grid phase; `helped`: with what helps where there is little texture."""
    blocks = get_blocks(image, dy, dx)
    few = len(blocks.luma) <= FEW_LUMA
    if helped:
        return _helped(blocks, read_chroma(image, dy, dx), dy, dx, guess)
    found = _answer(blocks, quality_scores(blocks, standard_tables()), None, dy, dx, guess)
    if not found.qualities:
        return found
    chroma = read_chroma(image, dy, dx)
    if few and len(found.qualities) > 1:
        narrowed = _helped(blocks, chroma, dy, dx, guess)
        found = narrowed if set(narrowed.qualities) & set(found.qualities) else found
    return _with_chroma(found, chroma)


def _helped(blocks, chroma, dy, dx, guess):
    """The `Lattice` of one grid phase by Gaussian noise, exact pixels and chroma together."""
    scores = quality_scores(blocks, standard_tables(), exact=True)
    found = _answer(blocks, scores, chroma.scores, dy, dx, guess)
    return _with_chroma(found, chroma) if found.qualities else found


def _with_chroma(found, chroma):
    return replace(found, subsampling=chroma.subsampling,
                   chroma_quality=chroma.quality(found.quality))


def _answer(blocks, luma, chroma, dy, dx, guess):
    """The `Lattice` that the `Scores` of luma and, unless None, of chroma make together.

    After a change of brightness DC is off the lattice that AC is on, and maybe on another
    table's: where they disagree, DC is left out.
    """
    total = luma.total
    top = int(total.argmax())
    dc = luma.dc[top] >= -CONFLICT and luma.ac[top] >= luma.ac.max() - CONFLICT
    total = total if dc else luma.ac
    best = total.max()
    if chroma is not None:
        total = total + chroma.total
    top = int(total.argmax())
    agree = chroma is None or (chroma.total[top] >= chroma.total.max() - CONFLICT
                               and (total - chroma.total)[top] >= best - CONFLICT)
    fits = np.flatnonzero(total >= total[top] - TIE)
    others = np.delete(total, fits)
    margin = float(total[top] - others.max()) if others.size else 0.0
    evidence, off = float(total[top]), misfit(blocks, standard_tables()[top], dc)
    count = len(blocks.luma) + len(blocks.clipped)
    seen = agree and _is_sure(top + 1, count, evidence, off, luma.free - luma.ac[top])
    quality, fits = None, tuple(int(i) + 1 for i in fits)
    if seen and fits[-1] - fits[0] <= MAX_SPAN:
        quality = min(fits, key=lambda q: abs(q - guess)) if guess is not None \
            else _middle(fits, total)
    return Lattice(quality, fits if seen else (), dy, dx, margin, evidence, off, count)


def _middle(fits, total):
    """The best of them; the middle one where they are level."""
    best = [int(q) for q in fits if total[q - 1] >= total[np.array(fits) - 1].max() - 1e-3]
    return best[len(best) // 2]


def least_evidence(quality, count):
    """The nats by which that table must beat "not compressed", from so many blocks.

    Fine tables fit much that is on no lattice of theirs.
    """
    least = np.interp(quality, FINE_QUALITY, MIN_EVIDENCE)
    return max(least, FINE_EVIDENCE) if count <= FEW_LUMA and quality >= FINE_FROM else least


def _is_sure(quality, count, evidence, off, loss):
    """Whether these are of a lattice: blocks, nats, misfit, nats that other steps gain."""
    most = np.interp(quality, FINE_QUALITY, MISFIT) + MISFIT_SPREAD / np.sqrt(max(1, count))
    return (evidence >= least_evidence(quality, count) and off <= most
            and loss <= MAX_LOSS + MAX_LOSS_SHARE * evidence)


# ---------------------------------------------------------------- other tables

@dataclass(frozen=True)
class TableEstimate:
    """A luma table read from a lattice, whoever made the table."""
    steps: np.ndarray        # (8, 8) int, row = vertical frequency; 0 where it is not known
    quality: int | None      # the nearest standard table's, by least squares over the known
                             # steps; None when nothing is known
    standard: bool           # whether all known steps are that table's
    grid_dy: int
    grid_dx: int
    misfit: float


def estimate_table(image, grid=None):
    """The image's luma table, frequency by frequency, as a `TableEstimate`.

    A step is known where it beats "not compressed" by STEP_EVIDENCE nats and every other
    step by TIE: high frequencies of coarse tables, whose coefficients are all 0, stay 0.
    Nothing is known at all when fewer than MIN_STEPS are or the pixels do not fit.
    Arguments as for `find_quality`.
    """
    _check(image, grid)
    best, most = None, -1.0
    for dy, dx in [grid] if grid is not None else phase_candidates(image):
        blocks = get_blocks(image, dy, dx)
        scores = step_scores(blocks)
        seen = float(np.maximum(scores[1:].max(axis=1), 0).sum())
        if seen > most:
            best, most = _read_table(blocks, scores, dy, dx), seen
    return best


def _read_table(blocks, scores, dy, dx):
    step = scores.argmax(axis=1) + 1
    second, first = np.partition(scores, -2, axis=1)[:, -2:].T
    known = (first >= STEP_EVIDENCE) & (first - second >= TIE)
    off = misfit(blocks, np.where(first > 0, step, MAX_STEP))
    most = max(MISFIT) + MISFIT_SPREAD / np.sqrt(max(1, len(blocks.luma)))
    if known.sum() < MIN_STEPS or off > most:
        return TableEstimate(np.zeros((BLOCK, BLOCK), int), None, False, dy, dx, off)
    tables = standard_tables()[:, known]
    nearest = int(np.square(tables - step[known]).sum(axis=1).argmin())
    return TableEstimate(np.where(known, step, 0).reshape(BLOCK, BLOCK), nearest + 1,
                         bool((tables[nearest] == step[known]).all()), dy, dx, off)
