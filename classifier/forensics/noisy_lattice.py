"""The lattice under noise: of pixels from other decoders, or changed a little after decoding.

    found = find_noisy(bgr_image)              # a Lattice with `decoder`, or None

lattice.py's proof wants blocks that are libjpeg's to the last bit. FFmpeg, Go's image/jpeg and
anything in floating point round in other places; a palette, dither or a little noise changes
pixels, too. The coefficients then lie around the same multiples, with more noise than rounding
leaves. Steps are scored under each of NOISES (noisy_scores.py), on the likeliest block grids, as
those of an earlier save are (earlier_steps.py), and the best table is told if

- it is LEAST nats ahead of "not compressed", and far ahead of the next grid: what a picture shows
  by itself, it shows on all of them;
- it explains the coefficients, as an earlier table must;
- its steps are the very steps. Blur, sharpening and contrast multiply them, frequency by frequency,
  and a table of another quality may come near to what is left. The mean multiple of each frequency
  tells its step to a thousandth. Of 144 images of other decoders none was off by more than 0.75 %
  or 5.6 squared standard errors; those of photos with 0.8 to 1.03 times their contrast were, by 1 %
  or by 10.

What fits as well is told with it. None of this is a proof bit by bit: it is not called exact.
"""
import itertools
from dataclasses import replace

import numpy as np

from classifier.forensics.blocks import Blocks, evenly_spaced, get_blocks
from classifier.forensics.earlier_steps import StepScores, read_table, standard_evidence
from classifier.forensics.grid_phases import likely_phases
from classifier.forensics.lattice import UNKNOWN, Lattice
from classifier.forensics.noisy_scores import Bins, noisy_scores
from classifier.forensics.scores import MAX_SPAN, SIGMA
from classifier.forensics.tables import MAX_STEP, standard_tables

NOISES = 0.3, 0.6, 1.2    # gray levels beside the rounding noise
PHASES = 2                # beside (0, 0), the likeliest
LEAST, OF_NEXT = 200.0, 0.6   # nats; the next best grid's share of them, at most
LOOK, NOISE, FIRST_LEAST, FIRST_OF_NEXT = 400, 0.6, 30.0, 0.9   # the same at a first look
APART = 10.0              # nats by which another table must be behind
MOST_OFF, MOST_ERRORS = 0.008, 8.0   # by which steps may be off: as a share, in squared errors
SEEN, WIDE, FREQUENCIES = 6, 4.0, 8   # sum of squared levels; noises in a step; those that show it
BINS = Bins(2, 4, 960, tuple(range(MAX_STEP + 1)))
NO_TABLE = np.ones(64, int)   # of the last save: there was none


def find_noisy(image: np.ndarray) -> Lattice | None:
    """The quality of the standard table around whose lattice an image lies.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, which are not on a lattice to the last bit.

    Returns
    -------
    Lattice or None
        With `decoder` UNKNOWN, and without exact blocks.
    """
    phases = dict.fromkeys([(0, 0), *itertools.islice(likely_phases(image), PHASES)])
    grids = [(*phase, get_blocks(image, *phase)) for phase in phases]
    grids = [grid for grid in grids if len(grid[2].luma)]
    first, next_best = _two_best(_scored(_some(blocks), NOISE)[0] for *_, blocks in grids)
    if first < FIRST_LEAST or next_best > FIRST_OF_NEXT * first:
        return None
    scored = [max((_scored(blocks, noise) for noise in NOISES), key=lambda found: found[0])
              for *_, blocks in grids]
    evidence, others = _two_best(found[0] for found in scored)
    if evidence < LEAST or others > OF_NEXT * evidence:
        return None
    best = [found[0] for found in scored].index(evidence)
    (_, quality, noise, found), (dy, dx, blocks) = scored[best], grids[best]
    known = read_table(found, NO_TABLE)
    off, errors = _off(blocks, standard_tables()[quality - 1], noise)
    if known.changed or not known.standard or off > MOST_OFF or errors > MOST_ERRORS:
        return None
    totals = found.scores[np.arange(64), standard_tables()].sum(axis=1)
    behind = totals.max() - totals
    qualities = np.flatnonzero(behind <= APART) + 1
    if np.ptp(qualities) > MAX_SPAN:
        return None
    rest = behind[behind > APART]
    return Lattice(quality, tuple(qualities.tolist()), dy, dx, float(rest.min()),
                   evidence, 0.0, len(blocks.luma), decoder=UNKNOWN)


def _two_best(nats):
    """The best of some grids' nats and the next, of 0 at least."""
    *_, second, first = sorted([0.0, 0.0, *nats])
    return first, second


def _some(blocks):
    """At most LOOK of the blocks."""
    return replace(blocks, coefficients=blocks.coefficients[
        evenly_spaced(len(blocks.coefficients), LOOK)])


def _scored(blocks, noise):
    """Evidence of the best standard table in nats, its quality, the noise and the `StepScores`."""
    value = np.ascontiguousarray(np.abs(blocks.coefficients).T)
    scores = noisy_scores(value, np.full_like(value, SIGMA ** 2 + noise ** 2), BINS)
    scores[:, 1] = 0  # a step of 1 is what every pixel has
    found = StepScores(scores, value.T, np.zeros(64))
    quality, evidence = standard_evidence(found, NO_TABLE)
    return evidence, quality, noise, found


def _off(blocks: Blocks, table, noise):
    """By how much the steps that are seen are off a table's (64,).

    As a share, the root of the mean square, where each counts by what its multiples weigh; and the
    mean square in standard errors. Infinite where too few frequencies show a step.
    """
    levels = np.rint(blocks.coefficients / table)
    levels[:, 0] = 0  # a change of brightness leaves the rest
    squares = (levels * levels).sum(axis=0)
    seen = (squares >= SEEN) & (table >= WIDE * np.hypot(SIGMA, noise))
    if np.count_nonzero(seen) < FREQUENCIES:
        return np.inf, np.inf
    steps = (blocks.coefficients * levels).sum(axis=0)[seen] / squares[seen]
    off = (steps - table[seen]) ** 2 * squares[seen]
    weight = squares[seen] * table[seen].astype(float) ** 2
    return np.sqrt(off.sum() / weight.sum()), off.mean() / (SIGMA ** 2 + noise ** 2)
