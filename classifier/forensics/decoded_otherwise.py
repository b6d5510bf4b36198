"""The lattice of a JPEG that was not decoded with libjpeg's accurate inverse DCT.

    found = find_decoded_otherwise(bgr_image, find_quality(bgr_image))    # a Lattice, or None

TensorFlow decodes with libjpeg's fast inverse DCT unless it is told otherwise, and the decoders of
some systems and programs with an inverse DCT of their own. Pixels then lie on a lattice, as the
likelihood shows, but no block comes out bit for bit, and lattice.py claims nothing. Two more kinds
of decoders are tried:

- the fast one, bit for bit (other_dcts.py). Its samples are too low by FAST_LOSS on average, and
  its steps are not quite the table's;
- any that is nearly as accurate as a DCT in real numbers. A block is its, if no pixel is off by
  more than NEARLY. Of four programs' inverse DCTs in floating point, the one that is off most,
  libjpeg 6's, cuts off an eighth of a level below 0, and so stays within 0.63 levels.

Their blocks prove the table by the rules of proved_qualities.py, but more of them have to.
"""
from dataclasses import replace

import numpy as np

from classifier.forensics.blocks import DCT2, Blocks, get_blocks
from classifier.forensics.chroma import read_chroma
from classifier.forensics.exact_blocks import FINE_FROM, rounded_right
from classifier.forensics.inverse_dct import InverseDct
from classifier.forensics.lattice import ANY_TABLE, FAST, OTHER, Lattice, judge_blocks
from classifier.forensics.other_dcts import FAST_LOSS, fast_dct, fast_steps
from classifier.forensics.tables import standard_tables

EXPLAINED = 0.5           # of what the best steps gain one by one: a standard table's, at least
NEARLY = 0.65             # gray levels: 0.5 of rounding, and what is left of an inverse DCT
SMALLEST = 24             # blocks that come out right, at least
NEARLY_ALL = 0.9          # of those that rounding leaves
FINEST = {FAST: 96, OTHER: FINE_FROM - 1}   # qualities that are told


def _within_rounding(levels, tables, samples):
    exactly = (levels * tables).astype(np.float32) @ DCT2 + 128
    return (np.abs(exactly - samples) <= NEARLY).all(axis=1)


def _fast(levels, tables, samples):
    return (fast_dct(levels, fast_steps(tables)) == samples).all(axis=1)


FAST_DCT = InverseDct(FAST, _fast, fast_steps, misfit=3.0)
OTHER_DCT = InverseDct(OTHER, _within_rounding)


def is_explained(found: Lattice) -> bool:
    """Whether there is a lattice, and the likeliest standard table explains most of it."""
    return (found.any_table >= ANY_TABLE and found.evidence >= EXPLAINED * found.any_table
            and found.best_grid is not None)


def find_decoded_otherwise(image: np.ndarray, found: Lattice) -> Lattice | None:
    """The lattice of an image that another inverse DCT than libjpeg's accurate one has decoded.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        Decoded pixels, BGR.
    found : Lattice
        What `find_quality` says of it, without a quality.

    Returns
    -------
    Lattice or None
        With `decoder` FAST or OTHER; of the latter, `exact_blocks` are those within rounding.
    """
    if not is_explained(found):
        return None
    dy, dx = found.best_grid
    blocks = get_blocks(image, dy, dx)
    for made in (_by_the_fast_one(blocks), replace(blocks, dct=OTHER_DCT)):
        proved = judge_blocks(made, dy, dx, None, standard_tables())
        if _is_sure(proved):
            proved = replace(proved, any_table=found.any_table)
            told = read_chroma(image, dy, dx).added_to(proved)
            # the fast one's errors in chroma are too large to tell how that was coded
            return told if made.dct is OTHER_DCT or told.subsampling == 'gray' else proved
    return None


def _by_the_fast_one(blocks: Blocks) -> Blocks:
    """Blocks without the loss of the fast inverse DCT."""
    luma = blocks.luma + np.float32(FAST_LOSS)
    return replace(blocks, luma=luma, coefficients=luma @ DCT2.T, flat=blocks.flat[:0],
                   dct=FAST_DCT)


def _is_sure(found):
    if found.quality is None or found.quality > FINEST[found.decoder] or found.lifted:
        return False
    share = NEARLY_ALL * rounded_right(standard_tables()[found.quality - 1])
    return SMALLEST <= found.exact_blocks >= share * found.tested_blocks
