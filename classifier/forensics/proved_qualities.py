"""Which qualities the exact blocks of an image prove, given what the likelihood in lattice.py says.

lattice.py explains the proof, exact_blocks.py what it counts, last_table.py what an earlier save
changes.
"""
import numpy as np

from classifier.forensics.blocks import MAX_BLOCKS, Blocks
from classifier.forensics.exact_blocks import (
    FINE_FROM, coarser_gain, compare_tables, expected, rounded_right, table_evidence)
from classifier.forensics.inverse_dct import ACCURATE
from classifier.forensics.last_table import proves_last
from classifier.forensics.scores import MAX_SPAN, TIE, fitting, flat_scores
from classifier.forensics.tables import other_tables

SURE = 100.0              # nats of exact blocks, from which the likelihood decides alone
LEAST_GAIN, LEAST_WITH_FLAT = 4.0, 5.0   # nats of exact blocks that a likely table needs
FINE, ALONE = 80, (12.0, 15.0)           # and any other, below that quality and from there on
COARSER = 3.0             # nats that coarser steps may gain; 0 with true tables, nearly always
RICH, RICH_FROM = 10, 1.5   # AC coefficients of most blocks, larger than that: rich texture
MOST = 0.5                # of blocks; with fewer exact, rounding breaks too many to try other steps
RIVAL_SHARE = 0.7         # of blocks whose levels round right: exact, with a rival's table


def proved_qualities(blocks: Blocks, tables: np.ndarray, total: np.ndarray, fits: np.ndarray,
                     likely: bool, more: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """What exact blocks leave of likely qualities, or prove of unlikely ones.

    Where they prove the likeliest table beyond doubt, its likelihood stands, and so it does for
    the table of ones, of which blocks prove nothing, in rich texture. Else they decide.

    Parameters
    ----------
    blocks : Blocks
    tables : int array, shape (100, 64)
    total : float array, shape (100,)
        Their likelihood, nats.
    fits : int array
        The likeliest qualities, 1..100.
    likely : bool
        Whether the likelihood proves a lattice.
    more : float array, shape (100,)
        Evidence of the chroma's exact blocks, nats.

    Returns
    -------
    scores : float array, shape (100,)
    qualities : int array
        None where nothing is proved.
    exact, tested : int
        Blocks.
    """
    if not len(blocks.luma):
        return total, fits if likely and len(blocks.clipped) else fits[:0], 0, 0
    if likely:
        top = int(total.argmax())
        found = table_evidence(blocks, tables[[top]], expected(np.array([top + 1])), MAX_BLOCKS)
        if found.gain[0] >= SURE or (tables[top] == 1).all() and np.median(
                (np.abs(blocks.coefficients[:, 1:]) > RICH_FROM).sum(axis=1)) >= RICH:
            return total, fits, int(found.exact[0]), found.tested
    found = compare_tables(blocks, tables, fine=likely)
    flat = flat_scores(blocks, tables)
    score = found.score + flat + more
    best = int(score.argmax())
    gain, counts = found.gain[best] + more[best], (int(found.exact[best]), found.tested)
    if likely and best + 1 in fits:
        proved = gain >= LEAST_GAIN and (best + 1 >= FINE
                                         or gain + flat[best] >= LEAST_WITH_FLAT)
    else:
        proved = (best + 1 < FINE_FROM and gain >= ALONE[best + 1 >= FINE]
                  and counts[0] >= expected(best + 1) * counts[1])
    fits = fitting(score)
    proved = (proved and (np.ptp(fits) <= MAX_SPAN or fits[-1] < FINE_FROM)
              and (counts[0] < MOST * counts[1] or coarser_gain(blocks, tables[best]) <= COARSER))
    if not proved and len(fits) == 1 and blocks.dct is ACCURATE:
        proved = proves_last(blocks, tables[best], best + 1)
    proved = proved and not _has_rival(blocks, counts[0], found.gain[best] + flat[best])
    return score, fits if proved else fits[:0], *counts


def _has_rival(blocks, exact, gain):
    """Whether a well-known table of another encoder explains as many blocks as well."""
    tables = other_tables()
    share = RIVAL_SHARE * np.array([rounded_right(table) for table in tables])
    found = table_evidence(blocks, tables, share)
    gains = found.gain + flat_scores(blocks, tables)
    return bool(((found.exact >= exact) & (gains >= gain - TIE)).any())
