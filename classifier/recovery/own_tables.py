"""Quantization tables of other encoders, read from all blocks of an image, step by step.

    luma = read_luma_table(image, grid)
    chroma = read_chroma_table(image, (True, True), 'fancy', grid)

Of each coefficient, the step counts on whose multiples the blocks are (scores.py). A coefficient
that no block has may have any step; one as coarse as the coarsest is taken, as encoders do. That
table is compared with those of known encoders and, of chroma, with the luma's, by the blocks that
come out bit for bit (exact_blocks.py): where few coefficients are seen, one of these explains more.
"""
import functools

import numpy as np
from PIL.JpegPresets import presets

from classifier.forensics.blocks import (
    BLOCK, DCT2, Blocks, clipped_pixels, decoder_luma, distinct_blocks)
from classifier.forensics.encoders import encoder_data
from classifier.forensics.exact_blocks import table_evidence
from classifier.forensics.known_tables import known_tables
from classifier.forensics.scores import step_scores
from classifier.forensics.tables import NEW_CHROMA, all_qualities, standard_tables
from classifier.recovery.coded_chroma import coded_chroma, whole_blocks
from classifier.recovery.layout import to_blocks

MOST = 8000               # different blocks that are looked at
SEEN = 3.0                # nats of a step
FIRST, LAST, BEST = 48, 600, 12  # blocks with which all tables are compared, and the best of them


def read_luma_table(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The luma's steps, int (64,), of BGR pixels whose first whole block is at `grid`."""
    part = whole_blocks(image, grid)
    return _table(decoder_luma(part[None])[0], ~clipped_pixels(part[None])[0],
                  known_tables().steps)


def read_chroma_table(image: np.ndarray, halved: tuple[bool, bool], upsampling: str,
                      grid: tuple[int, int], luma_table: np.ndarray) -> np.ndarray:
    """The chroma's steps, int (64,); the other arguments are those of `coded_chroma`."""
    planes, known, _ = coded_chroma(image, halved, upsampling, grid)
    samples = [(np.rint(plane) + 128).clip(0, 255).astype(np.uint8) for plane in planes]
    return _table(np.concatenate(samples), np.concatenate([known, known]),
                  np.concatenate([luma_table[None], _chroma_tables()]))


@functools.lru_cache(maxsize=1)
def _chroma_tables():
    """The chroma tables that known encoders write: (n, 64) int."""
    data = encoder_data()
    some = data['photoshop']['chroma'] + [preset['quantization'][1] for preset in presets.values()]
    bases = [chroma for _, chroma in data['mozjpeg']['tables'].values()]
    return np.concatenate([np.array(some), standard_tables(chroma=True), *(
        all_qualities(np.array(base)) for base in [NEW_CHROMA, *bases])])


def _table(plane, known, tables):
    """The steps of a plane of whole blocks, (64,) int: those of one of the tables, if one fits."""
    whole = to_blocks(known).all(axis=1)
    samples, flat = distinct_blocks(to_blocks(plane)[whole].reshape(-1, BLOCK, BLOCK), MOST)
    blocks = Blocks(samples, samples @ DCT2.T, flat, samples[:0])
    scores = step_scores(blocks)
    steps, seen = scores.argmax(axis=1) + 1, scores.max(axis=1) >= SEEN
    steps[~seen] = steps[seen].max(initial=1)
    if not len(samples):
        return steps
    tables = np.concatenate([tables, steps[None]])
    for limit in (FIRST, LAST):
        gain = table_evidence(blocks, tables, np.zeros(len(tables)), limit).gain
        tables = tables[np.argsort(-gain, kind='stable')[:BEST]]
    return tables[0]
