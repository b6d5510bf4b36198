"""Which blocks a quantization table explains bit for bit, and what that proves.

    from classifier.forensics.blocks import get_blocks
    from classifier.forensics.exact_blocks import compare_tables
    found = compare_tables(get_blocks(bgr_image, 0, 0), standard_tables())
    print(found.exact[75 - 1], 'of', found.tested, 'blocks are exact at quality 75')

The likelihood in lattice.py takes blocks for independent and their rounding noise for Gaussian.
Smooth images break both: their blocks repeat a few coefficients, whose common divisor then looks
like a step, and their noise has a shape. What follows asks only whether a table can have made a
block, and counts what blocks repeat once.

Exact blocks. The decoder's luma Y is known (lattice.py). Its DCT coefficients, divided by the steps
of a table and rounded, are the levels that a file would hold; decoded again (inverse_dct.py), they
give Y to the last bit or they do not. Those of a JPEG do, until steps are so small that rounding
noise, sigma 0.29, passes half of one. EXPECTED is the least share of exact blocks, measured on 60
gradients, waves and blurs. What a table lacks of it counts against it, log(1 - EXPECTED) a block.

Evidence. That a table explains a block proves little where finer tables, too, hold its
coefficients. A coefficient lies on the lattice of a step q by chance with probability 1/q, so that
it is worth log q; but a value that a frequency shows in many blocks is worth that once, as smooth
images repeat it for reasons of their own. DC counts log(q / 8), since a block of one gray level
shows every eighth value only. The sum is the gain of a table, in nats. On wrong block grids and on
images that were never compressed the best table gained up to 6.0 nats, or 10.0 if it was finer than
92 (240 smooth and 40 drawn images, 12 grids each); one textured block gains more.

Ties. Tables are compared by their gains and by the number of blocks that they explain, EACH nats a
block.

Other tables. One whose coefficients all lie on the lattice of a finer standard table would be taken
for it. Then coarser steps, tried one by one, gain (`coarser_gain`), but not over the true table.
"""
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from classifier.forensics.blocks import BLOCK, Blocks, evenly_spaced
from classifier.forensics.near_lattice import near_lattice
from classifier.forensics.scores import SIGMA

# Least share of exact blocks at these qualities, interpolated between them.
AT_QUALITY = (84, 85, 88, 90, 93, 94, 95, 97, 98, 99, 100)
EXPECTED = (0.99, 0.85, 0.70, 0.65, 0.55, 0.35, 0.30, 0.15, 0.11, 0.04, 0.08)
MOST_AGAINST = 2.5        # nats that a missing block counts at most
EACH = 0.5                # nats for a block that a table explains
FINE_FROM = 93            # qualities whose true blocks are not all exact, by far
FIRST, NEXT, LAST = 24, 96, 600   # blocks looked at, while tables drop out
CLOSE = 30.0              # nats behind the best at which they do
SHOWN, FINER, VALUES = 8, 4, 3    # frequencies, steps and values in the search for coarser steps
TOP = 2048                # levels are below
# Squared gray levels by which an exact block may be off the lattice: 16 where rounding moved each
# pixel by half of one; what the inverse DCT's columns are rounded by, up to 0.05 in each place, and
# the rounding of its constants make the root of that less than 0.6 larger.
MOST_OFF = 21.0


class Evidence(NamedTuple):
    """What exact blocks tell of tables."""
    gain: np.ndarray         # (t,) nats
    exact: np.ndarray        # (t,) int: blocks that come out bit for bit
    tested: int

    @property
    def score(self) -> np.ndarray:
        """By which tables are compared, nats."""
        return self.gain + EACH * self.exact


def expected(quality: int | np.ndarray) -> np.ndarray:
    """The share of blocks that come out bit for bit at least, 0..1."""
    return np.interp(quality, AT_QUALITY, EXPECTED)


def rounded_right(table: np.ndarray) -> float:
    """Probability, 0..1, that rounding noise leaves all levels of a block, for a table (64,)."""
    limits = table / (2 * SIGMA * math.sqrt(2))
    return math.prod(math.erf(limit) for limit in limits.tolist())


def exact_blocks(blocks: Blocks, tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of n blocks are exact.

    Parameters
    ----------
    blocks : Blocks
    tables : int array, shape (t, 64)

    Returns
    -------
    levels : int32 array, shape (t, n, 64)
        The blocks' coefficients divided by the steps and rounded.
    exact : bool array, shape (t, n)
    """
    tables = np.asarray(tables, np.int32)
    steps = blocks.dct.steps(tables)[:, None].astype(np.float32)
    levels = np.rint(blocks.coefficients / steps).astype(np.int32)
    samples = (blocks.luma + 128).astype(np.uint8)
    return levels, np.stack([blocks.dct.explains(of_table, table, samples)
                             for of_table, table in zip(levels, tables)])


def table_evidence(blocks: Blocks, tables: np.ndarray, share: np.ndarray,
                   limit: int = LAST) -> Evidence:
    """What at most `limit` blocks tell of tables.

    Parameters
    ----------
    blocks : Blocks
    tables : int array, shape (t, 64)
    share : float array, shape (t,)
        Of blocks that are expected to be exact, 0..1.
    limit : int
    """
    some = evenly_spaced(len(blocks.luma), limit)
    chosen = replace(blocks, luma=blocks.luma[some], coefficients=blocks.coefficients[some])
    table, levels = _exact_pairs(chosen, tables)
    count = np.bincount(table, minlength=len(tables))
    worth = np.log(np.maximum(1, tables / np.where(np.arange(64), 1, BLOCK)))
    gain = (_values(table, levels, len(tables)) * worth).sum(axis=1)
    missing = np.maximum(0, share * len(some) - count)
    gain = gain - missing * np.minimum(-np.log(1 - share), MOST_AGAINST)
    return Evidence(gain, count, len(some))


def compare_tables(blocks: Blocks, tables: np.ndarray, fine: bool = True) -> Evidence:
    """The evidence of the 100 standard tables; -inf where it is far behind the best.

    Unless `fine`, those from FINE_FROM on drop out as the others do where they are alone.
    """
    quality = np.arange(1, len(tables) + 1)
    gain, count = np.full(len(tables), -np.inf), np.zeros(len(tables), int)
    left, share = np.arange(len(tables)), expected(quality)
    for limit in (FIRST, NEXT, LAST):
        found = table_evidence(blocks, tables[left], share[left], limit)
        gain[left], count[left] = found.gain, found.exact
        keep = found.score >= found.score.max() - CLOSE
        if limit == FIRST:
            keep = found.exact >= share[left] / 2 * found.tested
            if fine or keep[:FINE_FROM - 1].any():
                keep[FINE_FROM - 1:] = True
        gain[left[~keep]], left = -np.inf, left[keep]
        if len(blocks.luma) <= limit or not len(left):
            break
    return Evidence(gain, count, found.tested)


def coarser_gain(blocks: Blocks, table: np.ndarray) -> float:
    """Nats that coarser steps, chosen one by one, would gain over a table (64,).

    Of the SHOWN frequencies with most values, each is tried with steps up to the double, or
    FINER more. A block that a step does not explain any more counts a nat against it.
    """
    some = evenly_spaced(len(blocks.luma), NEXT)
    chosen = replace(blocks, luma=blocks.luma[some], coefficients=blocks.coefficients[some])
    tables, at = [table], []
    for k in np.argsort(-_values(*_exact_pairs(chosen, table[None]), 1)[0])[:SHOWN]:
        for step in range(table[k] + 1, max(2 * table[k], table[k] + FINER) + 1):
            tables.append(np.where(np.arange(64) == k, step, table))
            at.append(k)
    tables = np.stack(tables)
    of, levels = _exact_pairs(chosen, tables)
    values = _values(of, levels, len(tables))
    score = (values * np.log(tables)).sum(axis=1) + np.bincount(of, minlength=len(tables))
    more = np.zeros(64)
    enough = values[np.arange(1, len(tables)), at] >= VALUES
    np.maximum.at(more, np.array(at)[enough], (score[1:] - score[0])[enough])
    return float(more.sum())


def _exact_pairs(blocks, tables):
    """Of each pair of a table (t, 64) and a block that it explains: the table (m,), levels (m, 64).
    """
    samples = (blocks.luma + 128).astype(np.uint8)
    ends = ((samples - np.uint8(1)) >= 254).any(axis=1)  # where more than noise may be cut off
    steps = blocks.dct.steps(tables)
    table, block, levels = near_lattice(blocks.coefficients, steps, MOST_OFF, ends)
    levels = levels.astype(np.int32)
    exact = blocks.dct.explains(levels, np.asarray(tables, np.int32)[table], samples[block])
    return table[exact], levels[exact]


def _values(table, levels, count):
    """How many different values exact blocks show, but 0, of each frequency: (count, 64) int."""
    block, frequency = np.nonzero(levels)
    level = levels[block, frequency]
    level = np.where(frequency, np.abs(level), level + TOP // 2)  # of AC, signs do not matter
    values = np.unique((table[block] * 64 + frequency) * TOP + level)
    return np.bincount(values // TOP, minlength=64 * count).reshape(-1, 64)
