"""Whether pixels last compressed with a known table were compressed before, more coarsely.

    from classifier.forensics.recompression import find_earlier
    from classifier.forensics.tables import standard_tables
    earlier = find_earlier(bgr_image, standard_tables()[90 - 1])   # last compressed at 90
    print(earlier.quality, earlier.encoder_setting, earlier.grid_dy, earlier.grid_dx)

The earlier coder rounded the coefficients of its blocks to multiples of its steps. On the last
compression's own grid these show as gaps and peaks among its levels (same_grid.py), on another one
as a second lattice under the last coder's errors (moved_grid.py). Either scores every larger step
at every frequency; earlier_steps.py sums them up, by libjpeg's tables and without any list, and
reads the earlier table. An earlier compression is told if either sum is large enough.

On the same grid the earlier pixels can be made again, too: the levels round(c / s1), decoded, coded
with the last table and decoded once more, are the block to the last bit where both coders had these
tables (inverse_dct.py) and rounding broke no level: 0.5 to 1 of the blocks if there is little in
them, at most 0.44 with a wrong table. Where evidence is weak and last steps let most levels
survive, TWICE of the blocks must be exact.

Where no table explains what is seen, the pixels may have been changed in between: noise, blur, a
part pasted in. The steps are then read anew with noise of each of NOISES, which smears the earlier
lattice, and those of most evidence told.

Sources: Z. Fan and R. L. de Queiroz, "Identification of bitmap compression history: JPEG
detection and quantizer estimation", IEEE Trans. Image Processing 12(2), 2003; those of
same_grid.py and moved_grid.py.
"""
from dataclasses import dataclass

import numpy as np

from classifier.forensics.blocks import DCT2, get_blocks
from classifier.forensics.earlier_steps import (
    ahead_of_next, free_evidence, read_table, standard_evidence)
from classifier.forensics.exact_blocks import exact_blocks, rounded_right
from classifier.forensics.inverse_dct import inverse_dct
from classifier.forensics.moved_grid import moved_grids, noisy_grid_scores
from classifier.forensics.same_grid import same_grid_scores
from classifier.forensics.tables import standard_tables

# Nats. Of 4,000 photos, drawings and smooth images saved once, by all encoders known here, none of
# the same grid's sums was above 13, and of the other grids' none above 47 but one of 113, on a grid
# that the best steps do not prefer; of 1,400 more, with the search as it is, none above 62.
ALIGNED_EVIDENCE, FREE_ALIGNED_EVIDENCE = 18.0, 40.0   # by libjpeg's tables, without a list
SHIFTED_EVIDENCE, FREE_SHIFTED_EVIDENCE = 70.0, 70.0   # ahead of the next best grid
FREE_SHARE = 0.15         # added: of what the next best shows, as fine tables do on all grids
# By libjpeg's tables alone, where the best steps prefer another grid and are not that far ahead, or
# show something on the last grid that no table explains. If the steps are that far ahead, a table
# that is SHIFTED_EVIDENCE ahead goes before them: saves at 10 to 30 show on grids half a block off.
DOUBTFUL_EVIDENCE = 200.0
WEAK, TWICE, READ = 120.0, 0.5, 0.5   # nats; share of exact blocks; of blocks whose levels survive
NOISES, NOISIER = (0.7, 1.2, 2.0, 3.5), 1.1   # gray levels; how much more evidence must come of it
FINE, FINE_EVIDENCE = 0.2, 80.0  # share of blocks that last tables finer than 96 leave unbroken, at
                                 # most; nats


@dataclass(frozen=True)
class Earlier:
    """An earlier, coarser compression."""
    quality: int | None      # 1..100, of libjpeg's nearest table; None: there is no sign of one
    grid_dy: int             # top-left corner of its first whole block, 0..7; (0, 0) is the
    grid_dx: int             # last compression's own grid
    score: float             # nats
    standard: bool = True    # whether a table of libjpeg's explains what is seen
    encoder: str | None = None          # where one known encoder's table fits, and no other
    encoder_setting: str | None = None
    steps: tuple[int, ...] = ()         # of the earlier luma table, row by row; 0: not known
    changed: bool = False    # whether the pixels seem to have been changed between the two, so that
                             # the quality is a rough estimate

    @property
    def known_steps(self) -> int:
        """How many of the 64 steps are known; those not above the last table's cannot be."""
        return sum(step > 0 for step in self.steps)


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
    blocks = get_blocks(image, 0, 0)
    found = same_grid_scores(blocks.coefficients, table)
    quality, score = standard_evidence(found, table)
    free = _free(found, table)
    aligned = free >= FREE_ALIGNED_EVIDENCE or _is_standard(blocks, quality, score, table)
    if aligned and _fits(known := read_table(found, table)):
        return _told(known, 0, 0, max(score, free))
    moved = _moved(image, table, only_standard=aligned)
    if moved.quality is not None or not aligned:
        return moved
    return _told(_through_noise(
        found, table, lambda noise: same_grid_scores(blocks.coefficients, table, noise)),
        0, 0, max(score, free))


def _moved(image, table, only_standard):
    """The `Earlier` on another grid; only_standard: only where a table of libjpeg's is ahead."""
    grids = moved_grids(image, table)
    if not grids:
        return Earlier(None, 0, 0, 0.0)
    free = np.array([_free(grid.found, table) for grid in grids])
    standard = np.array([standard_evidence(grid.found, table)[1] for grid in grids])
    i, ahead = int(free.argmax()), ahead_of_next(free)
    j, standard_ahead = int(standard.argmax()), ahead_of_next(standard)
    common = FREE_SHARE * (free[i] - ahead)
    seen = not only_standard and ahead >= FREE_SHIFTED_EVIDENCE + common
    least = SHIFTED_EVIDENCE if seen or i == j else DOUBTFUL_EVIDENCE
    if standard_ahead >= least and (i != j or not seen):
        i, ahead = j, standard_ahead
    elif not seen:
        return Earlier(None, 0, 0, standard_ahead)
    dy, dx, found = grids[i]
    known = read_table(found, table)
    if not _fits(known):
        known = _through_noise(found, table,
                               lambda noise: noisy_grid_scores(image, table, (dy, dx), noise))
    return _told(known, dy, dx, ahead)


def _is_standard(blocks, quality, score, table):
    """Whether the score of a standard table on the same grid proves it."""
    survive = rounded_right(table)
    found = score >= (FINE_EVIDENCE if survive < FINE else ALIGNED_EVIDENCE)
    if found and score < WEAK and survive > READ:
        return _exact_twice(blocks, standard_tables()[quality - 1], table).mean() >= TWICE
    return found


def _fits(known):
    """Whether some table explains all steps that are seen."""
    return not known.changed and (known.standard or known.encoder is not None)


def _through_noise(found, table, with_noise):
    """The `EarlierTable` with the noise that leaves most evidence; with_noise: makes scores."""
    noisy = max(map(with_noise, NOISES), key=lambda other: _free(other, table))
    if _free(noisy, table) <= NOISIER * _free(found, table):
        return read_table(found, table)
    return read_table(noisy, table)._replace(standard=True, changed=True, encoder=None)


def _told(known, dy, dx, score):
    encoder = known.encoder
    return Earlier(known.quality, dy, dx, score, known.standard, encoder and encoder.encoder,
                   encoder and encoder.setting, tuple(known.steps.tolist()), known.changed)


def _free(found, table):
    return float(free_evidence(found, table)[1].sum())


def _exact_twice(blocks, first, last):
    """Which blocks come out bit for bit of both tables (64,), one after the other: (n,) bool."""
    levels, _ = exact_blocks(blocks, first[None])
    earlier = inverse_dct(levels[0] * first).astype(np.float32) - 128
    levels = np.rint(earlier @ DCT2.T / last).astype(int)
    return (inverse_dct(levels * last) == blocks.luma + 128).all(axis=1)
