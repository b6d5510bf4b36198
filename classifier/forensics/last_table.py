"""Whether exact blocks prove the table of the last save although an earlier one left its mark.

An image saved at 60 and then at 95 lies on the lattice of 95, but its coefficients are still near
the multiples of the steps of 60, so that coarser steps explain them better than those of 95 do. The
likelihood in lattice.py takes that for a table of coarser steps. Its blocks, coded again, tell the
two apart: those of the last table come out bit for bit, and textured ones do so by no other table.

Two things could still deceive. A table that was never used explains the blocks of a coarser one if
its steps divide the true ones. But then all levels of a frequency have a common divisor; where both
tables are true, the last coder rounded, and levels lie beside the multiples of the first table's
steps. So a frequency shows the table's own step where no prime divides all its levels in the exact
blocks. With a last step of 1, rounding noise alone, sigma 0.29, takes 8 % of the coefficients half
a step away: every such frequency must show its step, else the true one is coarser. With larger last
steps some frequencies never do, as 10 = 5 x 2.

And the finest tables, whose steps of 1 divide all others, explain some blocks of any table: up to
0.13 of those saved once at 98 to 100. After an earlier save there are more, as the last coder
changed few pixels: LEAST_EXACT. Measured on photos: 3 saved at 30 to 90 and then at 88 to 100, and
once with 88 tables of other encoders, which leave at most half of LEAST_EXACT.
"""
import numpy as np

from classifier.forensics.blocks import Blocks
from classifier.forensics.exact_blocks import exact_blocks
from classifier.forensics.inverse_dct import inverse_dct

RICH = 6                  # AC levels that are not 0, in a block rich enough to count
LEAST_BLOCKS = 30         # of them, exact
# By quality: the least share of rich blocks that are exact; the most, of the exact, that would be
# with another value of one coefficient.
AT_QUALITY = (92, 93, 94, 95, 96, 97, 98, 99, 100)
LEAST_EXACT = (0.8, 0.65, 0.5, 0.38, 0.25, 0.17, 0.15, 0.12, 0.15)
MOST_OFF = (0.02, 0.03, 0.04, 0.05, 0.07, 0.12, 0.18, 0.3, 0.0)
BESIDE_ONE = (0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.03, 0.05, 0.06)
PRIMES = (2, 3, 5, 7, 11, 13)
SHOWN = 3                 # different levels but 0 that a frequency must show to be judged
BESIDE = 2                # blocks whose level a prime must not divide
LEAST_OWN, OWN_SHARE = 4, 0.25   # frequencies that show the table's own step; of the others


def proves_last(blocks: Blocks, table: np.ndarray, quality: int) -> bool:
    """Whether exact blocks prove a table to be the last one, whatever was before.

    Parameters
    ----------
    blocks : Blocks
    table : int array, shape (64,)
    quality : int
        1..100, of the table: a finer one is read less surely.
    """
    levels, exact = (found[0] for found in exact_blocks(blocks, table[None]))
    rich = np.count_nonzero(levels[:, 1:], axis=1) >= RICH
    count = int((exact & rich).sum())
    if count < LEAST_BLOCKS or count < rich.sum() * _of(LEAST_EXACT, quality):
        return False
    if not _shows_own_steps(np.abs(levels[exact & rich, 1:]), table[1:],
                            _of(BESIDE_ONE, quality)):
        return False
    some = rich & ~exact
    off = _off_by_one(blocks.coefficients[some], blocks.luma[some], levels[some], table)
    return off <= max(3, count * _of(MOST_OFF, quality))


def _of(shares, quality):
    return np.interp(quality, AT_QUALITY, shares)


def _shows_own_steps(levels, steps, share):
    """Whether the |levels| (n, 63) of exact blocks have no common divisor, at most frequencies."""
    beside = np.min([(levels % prime != 0).sum(axis=0) for prime in PRIMES], axis=0)
    if (beside[steps == 1] < share * len(levels)).any():
        return False
    different = np.diff(np.sort(levels, axis=0), axis=0, prepend=0) > 0
    shown, own = different.sum(axis=0) >= SHOWN, beside >= BESIDE
    return (own & shown).sum() >= max(LEAST_OWN, OWN_SHARE * (~own & shown).sum())


def _off_by_one(coefficients, luma, levels, table):
    """How many blocks (n, 64) would be exact if one coefficient were no multiple of its step."""
    rest = np.abs(coefficients - levels * table) * (table > 1)
    rest[:, 0] = 0
    block, worst = np.arange(len(rest)), rest.argmax(axis=1)
    values = levels * table
    other = np.rint(coefficients[block, worst]).astype(int)
    changed = values[block, worst] != other
    values[block, worst] = other
    exact = (inverse_dct(values) == (luma + 128).astype(np.uint8)).all(axis=1)
    return int((exact & changed).sum())
