"""Whether exact blocks prove the table of the last save although an earlier one left its mark.

An image saved at 60 and then at 95 lies on the lattice of 95, but its coefficients are still near
the multiples of the steps of 60, so that coarser steps explain them better than those of 95 do. The
likelihood in lattice.py takes that for a coarser table. Blocks coded again (exact_blocks.py) tell
the two apart: those of the last table come out bit for bit. Counted are rich ones, which do so by
no table that has nothing to do with the image. Three others could still deceive.

Divisors of the true steps explain the blocks, too. But then all levels of a frequency have a common
divisor; where both saves are true, the last coder rounded, and levels lie beside the multiples of
the first table's steps. So a frequency shows its own step where no prime divides all its levels.
With a last step of 1, rounding noise, sigma 0.29, takes 8 % of the coefficients over half a step:
each such frequency must show that, in BESIDE_ONE of the blocks. Larger steps need not, as 10 = 5 x
2, but some frequencies must (OWN_SHARE: 0.32 at least, with both saves true).

A coarser table than the true one explains the blocks that happen to lie on its lattice. Then others
would be exact if a single coefficient had a value beside it: `_beside_the_lattice`.

The finest tables explain some blocks of any image after rounding: LEAST_EXACT.

The limits were set on training photos: 20 saved twice (30 to 90, then 85 to 100), and 10 saved last
with 81 to 166 tables of other encoders. With these, steps of 1 that are 2 in truth show odd levels
in up to 0.05 of the blocks at 99 and 100, 0.025 at 97, 0.004 at 96 and below.
"""
import numpy as np

from classifier.forensics.blocks import Blocks
from classifier.forensics.exact_blocks import exact_blocks
from classifier.forensics.inverse_dct import inverse_dct

RICH = 6                  # AC levels that are not 0, in a block rich enough to count
LEAST_BLOCKS = 30         # of them, exact
PRIMES = (2, 3, 5, 7, 11, 13)
SHOWN = 3                 # different levels but 0 that a frequency must show to be judged
BESIDE = 2                # blocks whose level a prime must not divide
LEAST_OWN, OWN_SHARE = 4, 0.25   # frequencies that show their own step; for each that does not
# Shares at these qualities, interpolated between them: of rich blocks, the least that are exact; of
# these, the least beside each prime's multiples at steps of 1, and the most beside the lattice.
AT_QUALITY = (92, 93, 94, 95, 96, 97, 98, 99, 100)
LEAST_EXACT = (0.8, 0.65, 0.5, 0.38, 0.25, 0.2, 0.15, 0.12, 0.15)
BESIDE_ONE = (0.02, 0.02, 0.02, 0.02, 0.03, 0.04, 0.04, 0.05, 0.06)
MOST_BESIDE = (0.02, 0.03, 0.04, 0.05, 0.07, 0.12, 0.18, 0.3, 0.0)
FEW_BESIDE = 3            # blocks, however few are exact


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
    beside = _beside_the_lattice(blocks.coefficients[some], blocks.luma[some], levels[some], table)
    return beside <= max(FEW_BESIDE, count * _of(MOST_BESIDE, quality))


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


def _beside_the_lattice(coefficients, luma, levels, table):
    """How many blocks (n, 64) would be exact if one coefficient were not on the lattice."""
    rest = np.abs(coefficients - levels * table) * (table > 1)
    rest[:, 0] = 0
    block, worst = np.arange(len(rest)), rest.argmax(axis=1)
    values = levels * table
    other = np.rint(coefficients[block, worst]).astype(int)
    changed = values[block, worst] != other
    values[block, worst] = other
    exact = (inverse_dct(values) == (luma + 128).astype(np.uint8)).all(axis=1)
    return int((exact & changed).sum())
