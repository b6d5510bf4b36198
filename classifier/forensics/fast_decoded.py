"""The exact quality of pixels that the fast inverse DCT made.

    found = find_fast(likely_grids(bgr_image)) # a Lattice with `decoder`, or None

TensorFlow's tf.io.decode_jpeg takes it with its defaults, and djpeg if asked to. Fine steps become
others (other_dcts.py), so that the lattice is none of a standard table, and samples are half a
level too low. But blocks come out bit for bit, as those of the accurate one do: all of them up to
quality 90, half at 95. They are counted as exact_blocks.py does, and alone decide.
"""
import functools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from classifier.forensics.blocks import BLOCK, Blocks
from classifier.forensics.exact_blocks import FINE_FROM, InverseDct, compare_tables, expected
from classifier.forensics.lattice import FAST, Lattice
from classifier.forensics.other_dcts import FAST_LOSS, fast_dct, fast_steps
from classifier.forensics.scores import MAX_SPAN, fitting, middle
from classifier.forensics.tables import standard_tables

# Nats of exact blocks, below FINE_FROM and from there on. Of 2,500 images of no such decoder (edited,
# never compressed, with tables of other encoders) none had more than 10 and 121.
LEAST_GAIN, LEAST_FINE_GAIN = 20.0, 200.0
DECODER = InverseDct(fast_dct, 40.0)


def find_fast(grids: Iterable[tuple[int, int, Blocks]]) -> Lattice | None:
    """The quality by which blocks are exact on one of some block grids.

    Parameters
    ----------
    grids : iterable of (int, int, Blocks)
        Phases (dy, dx), and the blocks there.

    Returns
    -------
    Lattice or None
        With `decoder` FAST.
    """
    lower = np.where(np.arange(BLOCK * BLOCK), 0, np.float32(BLOCK * FAST_LOSS))
    for dy, dx, blocks in grids:
        if not len(blocks.luma):
            continue
        blocks = replace(blocks, coefficients=blocks.coefficients + lower)
        found = compare_tables(blocks, _tables(), fine=False, decoder=DECODER)
        best = int(found.score.argmax())
        exact = int(found.exact[best])
        fits = fitting(found.score)
        least = LEAST_GAIN if fits[-1] < FINE_FROM else LEAST_FINE_GAIN
        if (found.gain[best] < least or exact < expected(best + 1) * found.tested
                or np.ptp(fits) > MAX_SPAN):
            continue
        others = np.delete(found.score, fits - 1)
        return Lattice(middle(fits, found.score), tuple(fits.tolist()), dy, dx,
                       float(found.score[best] - max(0, others.max(initial=0))),
                       float(found.gain[best]), 0.0, len(blocks.luma), exact_blocks=exact,
                       tested_blocks=found.tested, decoder=FAST)
    return None


@functools.lru_cache(maxsize=1)
def _tables():
    """What it makes of the standard tables: (100, 64) float64."""
    return np.stack([fast_steps(table) for table in standard_tables()])
