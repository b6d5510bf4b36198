"""The exact JPEG quality of decoded pixels, read from the lattice of their DCT coefficients.

A JPEG coder rounds the 64 DCT coefficients of each 8x8 luma block to multiples of
the steps of a quantization table. In the decoded pixels the coefficients still lie
near those multiples, so that pixels alone give the table, and the table the quality:

    from classifier.forensics.lattice import find_quality
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
of a large step), so there the ratio is kept at or below 0: what is near zero proves
nothing, what is in the cell but far from zero is evidence against the step. A step's
multiples are refuted by odd n, its divisors by their smaller gain, log q, a coefficient.
The score of a table is the sum of s over 64 frequencies and all blocks.

The test. Scores grow with the number of blocks, even for a wrong model. Three conditions
prove a lattice: the table beats "not compressed" by MIN_EVIDENCE; it explains the pixels,
as few of them have |Y - IDCT(q round(c / q))| > 0.55 (0.1 % at quality 10, 4 % at 98,
where residuals pass half a step; over 20 % in photos that were not compressed up to
quality 98, 10 % at 99, 5 % at 100); and no free choice of steps explains the coefficients
far better, which it would for a table whose steps only divide the true ones. DC counts as
evidence like AC, but where a change of brightness has shifted it, it is left out.

The proof. Then blocks are coded again, and those that come out bit for bit are counted
(exact_blocks.py). If they prove the likeliest table beyond doubt, as in any photo, its likelihood
stands. Otherwise, in smooth images and small crops, they alone decide, with the levels of flat
blocks and the chroma (proved_qualities.py): `qualities` are all tables that explain the blocks
about as well, and there are none where coarser steps or another encoder's table would do, unless it
is an earlier save on the same grid that makes them seem to (last_table.py). The table of the file's
own header needs no more than that its blocks are exact.

Little texture. Where no more than FEW_LUMA blocks are not flat and that test fails, two
things help. Rounding a block of a gray level or two leaves no Gaussian noise, but the block
is round(IDCT(n q)) pixel by pixel (scores.py). And the chroma planes (chroma.py) lie on
a lattice as well, that of the chroma table of the same quality.

Sources: Z. Fan and R. L. de Queiroz, "Identification of bitmap compression history: JPEG
detection and quantizer estimation", IEEE Trans. Image Processing 12(2), 2003;
R. Neelamani, R. de Queiroz, Z. Fan, S. Dash and R. Baraniuk, "JPEG compression history
estimation for color images", IEEE Trans. Image Processing 15(6), 2006; ITU-T T.81,
Annex K (tables) and A.3.3 (DCT); JFIF 1.02 (colours); libjpeg's scaling of the tables.
"""
from dataclasses import dataclass, replace

import numpy as np

from classifier.forensics.blocks import BLOCK, MAX_BLOCKS, get_blocks, without_repetition
from classifier.forensics.chroma import NO_SCORES, read_chroma
from classifier.forensics.exact_blocks import rounded_right, table_evidence
from classifier.forensics.grid_phases import likely_phases
from classifier.forensics.proved_qualities import proved_qualities
from classifier.forensics.scores import (
    FEW_LUMA, MAX_LOSS, MAX_LOSS_SHARE, MAX_SPAN, TIE, fitting, least_evidence, middle, misfit,
    most_misfit, quality_scores, step_scores)
from classifier.forensics.tables import (MAX_STEP, nearest_quality, standard_tables,
                                         turned_tables)

CONFLICT = 12.0           # nats by which DC or chroma may disagree with the rest
HELPED, HELPED_SHARE = 12, 0.5   # phases that chroma helps to judge, their share of exact blocks
STEP_EVIDENCE, MIN_STEPS = 12.0, 4   # nats for one step (of 255), steps for a table
HEADER_SHARE, LEAST_SHARE = 0.7, 0.02    # of blocks whose levels round right: exact; too few
ANY_TABLE = 100.0         # nats that show a lattice
# Decoders: libjpeg's fast inverse DCT; another one, as accurate as in real numbers; one that is not
# known, or the pixels were changed a little since.
FAST, OTHER, UNKNOWN = 'fast', 'other', 'unknown'
LOOSEST = 97              # the quality whose lattice may have the largest misfit


@dataclass(frozen=True)
class Lattice:
    """What the lattice tells. Scores are log-likelihood ratios, in nats."""
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
    exact_blocks: int = 0    # of the tested luma blocks, those that `quality` gives bit for bit;
                             # within rounding if `decoder` is OTHER
    tested_blocks: int = 0   # different ones, neither flat nor clipped
    from_header: bool = False  # whether the header's table was given and is proved
    lifted: bool = False     # whether the brightness was changed since, and DC is left out
    turned: bool = False     # whether the table is transposed: a quarter-turn since
    repeated: int = 1        # how often each pixel is repeated both ways; all else is of the image
                             # without repetition
    region_x: int | None = None  # the rectangle that it is of, px; None for the whole image
    region_y: int | None = None
    region_width: int | None = None
    region_height: int | None = None
    tone: str | None = None  # how tones were changed since, as tone.py names it; None: not seen
    decoder: str | None = None  # FAST, OTHER or UNKNOWN; None for libjpeg's accurate inverse DCT
    likeliest: int = 0       # the standard table with the most evidence, 1..100
    any_table: float = 0.0   # nats of the best AC steps, one by one: a lattice, whoever's table

    @property
    def is_tie(self) -> bool:
        """Whether several qualities explain the image equally well."""
        return len(self.qualities) > 1

    @property
    def best_grid(self) -> tuple[int, int] | None:
        """The phase (dy, dx) of the block grid that the image's own pixels look most like."""
        return (self.grid_dy, self.grid_dx) if self.repeated == 1 else None

    @property
    def quality_low(self) -> int | None:
        """The lowest quality that explains the image, 1..100; None without a lattice."""
        return min(self.qualities, default=None)

    @property
    def quality_high(self) -> int | None:
        """The highest."""
        return max(self.qualities, default=None)


def find_quality(image: np.ndarray, guess: float | None = None,
                 grid: tuple[int, int] | None = None,
                 table: np.ndarray | None = None) -> Lattice:
    """The quality of the standard luma table on whose lattice an image lies.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        Decoded pixels, BGR.
    guess : float, optional
        The network's quality, 1..100. It decides within `qualities` only, since the lattice is
        searched faster than narrowed.
    grid : (dy, dx), optional
        The phase of the block grid, 0..7 px each, where it is known; else it is searched.
    table : int array, shape (64,), optional
        The luma table, row by row, of the header that came with the pixels. Where blocks on `grid`,
        else (0, 0), prove to be made with it, there is no search.

    Returns
    -------
    Lattice
        With `from_header`, `quality` is that of `table`, or None if it is not a standard one.
        Otherwise `quality` is None when no table is on a lattice beyond doubt (nothing to see,
        edited after compression, another table), with `qualities` empty, or when the lattice leaves
        qualities more than MAX_SPAN apart, with all of them in `qualities`.

    Raises
    ------
    ValueError
        An image, a grid or a table of another kind.

    References
    ----------
    Fan and de Queiroz 2003; Neelamani et al. 2006: see the top of this file.
    """
    _check(image, grid)
    if table is not None:
        found = _by_header(image, np.asarray(table), grid or (0, 0))
        if found is not None:
            return found
    times, once = without_repetition(image) if grid is None else (1, image)
    if times > 1:
        return replace(find_quality(once, guess), repeated=times)
    phases = likely_phases(image) if grid is None else [grid]
    found = _search(image, phases, guess, standard_tables())
    if found.qualities or found.any_table < ANY_TABLE:
        return found
    # a quarter-turn of the pixels, or of the coefficients of the file
    dy, dx = found.grid_dy, found.grid_dx
    other = np.ascontiguousarray(image.transpose(1, 0, 2))
    turned = _search(other, [(dx, dy)], guess, standard_tables())
    if not turned.qualities:
        turned = _search(image, [(dy, dx)], guess, turned_tables())
    return replace(turned, grid_dy=dy, grid_dx=dx, turned=True) if turned.qualities else found


def _search(image, phases, guess, tables):
    """The `Lattice` on the first of the phases that has one, else on the one nearest to it."""
    unsure = []
    for dy, dx in phases:
        blocks = get_blocks(image, dy, dx)
        found = judge_blocks(blocks, dy, dx, guess, tables)
        if found.qualities:
            chroma = read_chroma(image, dy, dx)
            if len(blocks.luma) <= FEW_LUMA and len(found.qualities) > 1:
                narrowed = judge_blocks(blocks, dy, dx, guess, tables, chroma)
                found = narrowed if set(narrowed.qualities) & set(found.qualities) else found
            return chroma.added_to(found)
        unsure.append((found, blocks))
    few = [(f, b) for f, b in unsure if f.blocks <= FEW_LUMA
           and (f.evidence > 0 or f.exact_blocks >= HELPED_SHARE * f.tested_blocks)]
    for found, blocks in few[:HELPED]:
        chroma = read_chroma(image, found.grid_dy, found.grid_dx)
        helped = judge_blocks(blocks, found.grid_dy, found.grid_dx, guess, tables, chroma)
        if helped.qualities:
            return chroma.added_to(helped)
        unsure.append((helped, blocks))
    return max((found for found, _ in unsure), key=lambda f: max(f.evidence, f.any_table))


def _check(image, grid):
    """Raise ValueError for an image or a grid phase of another kind."""
    if getattr(image, 'dtype', None) != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError('the image must be (h, w, 3) uint8 BGR')
    if grid is not None and not all(0 <= d < BLOCK for d in grid):
        raise ValueError(f'grid phase {grid}: both must be in 0..7')


def _by_header(image, table, grid):
    """The `Lattice` of a table (64,) that its blocks prove, else None."""
    if table.shape != (BLOCK * BLOCK,) or (table < 1).any():
        raise ValueError('the table must be 64 steps of 1 or more')
    blocks = get_blocks(image, *grid)
    share = HEADER_SHARE * rounded_right(table)
    found = table_evidence(blocks, table[None], np.array([share]), MAX_BLOCKS)
    exact, count = int(found.exact[0]), found.tested
    if not count or share < LEAST_SHARE or exact < share * count:
        return None
    tables = standard_tables()
    same = (tables == table).all(axis=1)
    turned = not same.any()
    if turned:
        same = (turned_tables() == table).all(axis=1)
    qualities = tuple((np.flatnonzero(same) + 1).tolist())
    quality = qualities[0] if qualities else None
    return read_chroma(image, *grid).added_to(Lattice(
        quality, qualities, *grid, float(found.gain[0]), float(found.gain[0]),
        misfit(blocks, table), count, exact_blocks=exact, tested_blocks=count, from_header=True,
        turned=turned and bool(qualities)))


def judge_blocks(blocks, dy, dx, guess, tables, chroma=None):
    """The `Lattice` that the luma gives or, with a `Chroma`, its exact pixels and both planes.

    Of `Blocks` at (dy, dx), for a guess of the quality or None, and `tables`, int (100, 64). After
    a change of brightness DC is off the lattice that AC is on, and maybe on another table's: where
    they disagree, DC is left out.
    """
    ac, dc, free = quality_scores(blocks, tables, exact=chroma is not None)
    scores, more = (chroma.scores, chroma.evidence) if chroma else (NO_SCORES, NO_SCORES)
    top = int((ac + dc).argmax())
    with_dc = dc[top] >= -CONFLICT and ac[top] >= ac.max() - CONFLICT
    luma = ac + dc if with_dc else ac
    total = luma + scores
    top = int(total.argmax())
    fits = fitting(total)
    evidence, off = float(total[top]), misfit(blocks, tables[top], with_dc)
    count = len(blocks.luma) + len(blocks.clipped)
    likely = (all(part[top] >= part.max() - CONFLICT for part in (luma, scores))
              and evidence >= least_evidence(top + 1, count)
              and off <= blocks.dct.misfit * most_misfit(top + 1, count)
              and free - ac[top] <= MAX_LOSS + MAX_LOSS_SHARE * evidence)
    proved = proved_qualities(blocks, tables, total, fits, likely and with_dc, more)
    lifted = not with_dc and not len(proved[1])  # DC of smooth blocks seems off, but is not
    if lifted:
        tables = np.where(np.arange(BLOCK * BLOCK), tables, 1)
        proved = proved_qualities(blocks, tables, total, fits, likely, more)
    total, fits, exact, tested = proved
    others = np.delete(total, fits - 1)
    margin = float(total[fits - 1].max() - others.max()) if others.size and fits.size else 0.0
    quality = None
    if fits.size and np.ptp(fits) <= MAX_SPAN:
        quality = middle(fits, total) if guess is None else int(fits[np.abs(fits - guess).argmin()])
    return Lattice(quality, tuple(fits.tolist()), dy, dx, margin, evidence, off, count,
                   exact_blocks=exact, tested_blocks=tested, lifted=lifted, any_table=free,
                   decoder=blocks.dct.name, likeliest=top + 1)


@dataclass(frozen=True)
class TableEstimate:
    """A luma table read from a lattice, whoever made the table."""
    steps: np.ndarray        # (8, 8) int, row = vertical frequency; 0 where it is not known
    quality: int | None      # by `tables.nearest_quality`; None when nothing is known
    standard: bool           # whether all known steps are that table's
    grid_dy: int
    grid_dx: int
    misfit: float


def estimate_table(image: np.ndarray, grid: tuple[int, int] | None = None) -> TableEstimate:
    """An image's luma table, frequency by frequency.

    A step is known where it beats "not compressed" by STEP_EVIDENCE nats and every other
    step by TIE: high frequencies of coarse tables, whose coefficients are all 0, stay 0.
    Nothing is known at all when fewer than MIN_STEPS are or the pixels do not fit.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        Decoded pixels, BGR.
    grid : (dy, dx), optional
        As for `find_quality`.

    Raises
    ------
    ValueError
        An image or a grid of another kind.
    """
    _check(image, grid)
    most = -1.0
    for phase in likely_phases(image) if grid is None else [grid]:
        blocks_there = get_blocks(image, *phase)
        scores_there = step_scores(blocks_there)
        seen = np.maximum(scores_there[1:].max(axis=1), 0).sum()
        if seen > most:
            most, (dy, dx), blocks, scores = seen, phase, blocks_there, scores_there
    step = scores.argmax(axis=1) + 1
    second, first = np.partition(scores, -2, axis=1)[:, -2:].T
    known = (first >= STEP_EVIDENCE) & (first - second >= TIE)
    off = misfit(blocks, np.where(first > 0, step, MAX_STEP))
    if known.sum() < MIN_STEPS or off > most_misfit(LOOSEST, len(blocks.luma)):
        return TableEstimate(np.zeros((BLOCK, BLOCK), int), None, False, dy, dx, off)
    steps = np.where(known, step, 0)
    quality, distance = nearest_quality(steps)
    return TableEstimate(steps.reshape(BLOCK, BLOCK), quality, distance == 0, dy, dx, off)
