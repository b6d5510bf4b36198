"""What the scores of single earlier steps say together: how sure, and which table.

`same_grid.py` and `moved_grid.py` score every step coarser than the last compression's, frequency
by frequency, in nats over no earlier compression. Two sums tell whether there was one:

- of a standard table's steps, the best of the 100 (`standard_evidence`);
- of the best step of each frequency, less the log of the number of steps tried, where that leaves
  something (`free_evidence`): tables on no list show, too.

Smooth images show few different coefficients, again and again, whose gaps can look like a step's by
chance, and where n1 is always 0, any step would do. So a frequency counts at most VALUE nats for
each different n1 but 0.

A step is known where the evidence of the best is KNOWN nats, and it is APART nats ahead. What the
best steps gain over a table, less the log of the number of steps, is its misfit. In 310 cases that
of the true table was at most 243 nats and 9 % of all that the steps scored; that of the best table
of libjpeg's, where it was another encoder's, at least 27 nats and 6 %, mostly thousands and 90 %.
An encoder is told if its table fits and no other one scores nearly as much.
"""
from typing import NamedTuple

import numpy as np

from classifier.forensics.encoders import Encoder
from classifier.forensics.known_tables import known_tables
from classifier.forensics.tables import MAX_STEP, nearest_quality, standard_tables

VALUE = 8.0               # nats that one level of one frequency may count, however many blocks
TOP = 1024                # largest |coefficient|
KNOWN = 3.0               # nats of a step, after the log of their number
APART = 10.0              # nats that it is ahead of the next; 99.5 % are right, at 3 nats 97 %
# Nats, and share of what the best steps score: the most misfit of a table that an encoder is told
# by, the least that refutes all of libjpeg's, the least that other tables must score less.
FITS, REFUTES, AHEAD = (15.0, 0.06), (120.0, 0.2), (5.0, 0.03)
TOLD_FROM = 6             # frequencies that show a coarser step
# Nats against all coarser steps of a frequency, as noise, another contrast or blur between the two
# leave them. Not seen in 72 cases of coarser tables whose pixels had stayed as they were.
REFUTED = 20.0
FREQUENCIES = np.arange(64)


class StepScores(NamedTuple):
    """What one block grid shows of earlier steps."""
    scores: np.ndarray       # (64, MAX_STEP + 1) nats by frequency and step; 0: nothing known
    values: np.ndarray       # (n, 64) |c|, 0 at frequencies that are not looked at
    own: np.ndarray          # (64,) nats of the last compression's own steps, seen on this grid


class EarlierTable(NamedTuple):
    """The earlier table, as far as it is known."""
    quality: int             # of libjpeg's nearest
    standard: bool           # whether one of libjpeg's explains what is seen
    changed: bool            # whether the pixels seem to have been changed in between
    steps: np.ndarray        # (64,) int, row by row; 0 where not known
    encoder: Encoder | None  # whose table fits, and no other's


def standard_evidence(found: StepScores, last: np.ndarray) -> tuple[int, float]:
    """The best of the standard tables coarser than the last one (64,): its quality, and nats."""
    coarser = np.flatnonzero(standard_tables().sum(axis=1) > last.sum())
    if not len(coarser):
        return 1, 0.0
    table = standard_tables()[coarser]
    top = int(_total(found, table).argmax())
    own = _at_most(found.own, found, last).sum()
    score = _at_most(found.scores[FREQUENCIES, table[top]], found, table[top]).sum()
    return int(coarser[top]) + 1, float(score - max(0, own))


def free_evidence(found: StepScores, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best step of each frequency, (64,) int, and what it counts, (64,) nats, 0 or more."""
    steps = found.scores.argmax(axis=1)
    score = found.scores[FREQUENCIES, steps] - np.maximum(0, found.own)
    tried = np.log(np.maximum(1, MAX_STEP - last))
    score = np.where((steps > 0) & (score > tried), score, 0)
    return steps, np.maximum(0, _at_most(score, found, steps) - tried)


def ahead_of_next(nats: np.ndarray) -> float:
    """By how much the best of some grids, (g,) nats, is ahead of the next, or of 0."""
    *_, second, first = np.sort(np.append(nats, 0))
    return float(first - max(0, second))


def read_table(found: StepScores, last: np.ndarray) -> EarlierTable:
    """The table of an earlier compression that was found.

    Parameters
    ----------
    found : StepScores
        Of its grid.
    last : int array, shape (64,)
        The last compression's luma table, row by row.
    """
    _, evidence = free_evidence(found, last)
    behind = found.scores.max(axis=1, keepdims=True) - found.scores
    likely = behind <= KNOWN
    middle = (likely * np.arange(MAX_STEP + 1)).sum(axis=1) / likely.sum(axis=1)
    middle = np.where(evidence >= KNOWN, middle, 0)
    steps = np.where((behind <= APART).sum(axis=1) == 1, middle, 0).astype(int)
    known, best = known_tables(), found.scores.max(axis=1)
    total = _total(found, known.steps)

    def nats(limit):
        return max(limit[0], limit[1] * best.sum())

    def misfit(i):
        gain = best - found.scores[FREQUENCIES, known.steps[i]]
        return np.maximum(0, gain - np.log(np.maximum(1, MAX_STEP - last))).sum()

    top, standard = int(total.argmax()), int(total[:len(standard_tables())].argmax())
    encoder, misses = None, misfit(standard)
    if misfit(top) <= nats(FITS) and (middle > 0).sum() >= TOLD_FROM:
        ties = np.flatnonzero(total > total[top] - nats(AHEAD))
        encoder = _common([encoder for i in ties for encoder in known.encoders[i]])
    if misses <= nats(FITS) or encoder and misses <= nats(REFUTES):
        return EarlierTable(standard + 1, True, False, steps, encoder)
    if encoder:
        return EarlierTable(nearest_quality(known.steps[top])[0], False, False, steps, encoder)
    coarser = np.where(np.arange(MAX_STEP + 1) > last[:, None], found.scores, -np.inf)
    changed = bool((coarser.max(axis=1) < -REFUTED)[last < MAX_STEP].any())
    may_be = misses <= nats(REFUTES)
    if middle.any() and (changed or not may_be or total[standard] < misses):
        return EarlierTable(nearest_quality(middle, some_wrong=changed)[0], changed or may_be,
                            changed, steps, None)
    return EarlierTable(standard + 1, True, changed, steps, None)


def _common(encoders):
    """What all these encoders have in common: one, one without its setting, or None."""
    if len({encoder.encoder for encoder in encoders}) > 1:
        return None
    settings = {encoder.setting for encoder in encoders}
    return encoders[0] if len(settings) == 1 else Encoder(encoders[0].encoder)


def _total(found, tables):
    return found.scores[FREQUENCIES, tables].sum(axis=-1)


def _at_most(score, found, steps):
    """Scores (64,) of steps (64,), none larger than its frequency may count."""
    some = np.flatnonzero(score > 0)
    level = np.rint(found.values[:, some] / np.maximum(1, steps[some])).astype(int)
    np.minimum(level, TOP, out=level)
    level += np.arange(len(some)) * (TOP + 1)
    seen = np.zeros((len(some), TOP + 1), bool)
    seen.ravel()[level] = True
    most = np.full(64, np.inf)
    most[some] = VALUE * np.count_nonzero(seen[:, 1:], axis=1)
    return np.minimum(score, most)
