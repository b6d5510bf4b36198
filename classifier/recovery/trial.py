"""Codings found by trial, where the lattice is silent: libjpeg's qualities, tried one by one.

    for kind, grid in tried_codings(image, parts):
        print(kind.subsampling, kind.luma_table, grid)

Drawings on pure white or black have hardly a block without a clipped pixel, and often no lattice.
But of a quality it can be said whether it gives back a block, clipped pixels and all: some blocks
of which the luma is known, or bounded, are searched with each luma table (block_search.py), and
the parts of parts.py then with the tables that find most of them and with each subsampling. What
passes is only likely; the file, decoded, is the proof.
"""
from collections.abc import Sequence

import numpy as np

from classifier.forensics.blocks import BLOCK, decoder_luma, distinct, evenly_spaced
from classifier.forensics.exact_blocks import EACH
from classifier.forensics.tables import standard_tables
from classifier.recovery.block_search import find_levels
from classifier.recovery.parts import AS_GOOD, Part, blocks_of, explained
from classifier.recovery.picture import HALVED, Kind

FINEST = 97               # finer tables give back nearly any block
FIRST, LAST = 8, 40       # blocks searched with all luma tables, and with those that do well
ROUNDS = 60               # of the search
HALF = 0.5                # share of blocks that a table finds, to do well
MOST_QUALITIES = 6        # tried with each subsampling
COMMON = 75, 90, 80, 85, 70, 60, 50   # tried where no luma is known, as in red on white,
LEAST_OF_COMMON = 0.4     # and the share of a part's blocks that it takes
MOST_WAYS = 2             # that give back most blocks


def tried_codings(image: np.ndarray, parts: Sequence[Part]) -> list[tuple[Kind, tuple[int, int]]]:
    """Ways in which a whole picture may have been coded that give back most of its parts' blocks.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels.
    parts : sequence of Part
        Theirs, as `telling_parts` returns them.

    Returns
    -------
    list of (Kind, grid)
        The best first; the block grid is (0, 0).
    """
    kinds = ['gray'] if (image == image[..., :1]).all() else HALVED
    found, qualities, least = [], luma_qualities(image), 0
    if not qualities:
        qualities, parts, least = COMMON, parts[:1], LEAST_OF_COMMON
    for quality in qualities:
        tables = [standard_tables(chroma)[quality - 1] for chroma in (False, True)]
        for kind in (Kind(subsampling, *tables) for subsampling in kinds):
            some = explained(parts, kind, (0, 0))
            if some.tells and some.exact >= least * some.tested:
                found.append((some.exact, kind))
    most = max((exact for exact, _ in found), default=0)
    return [(kind, (0, 0)) for exact, kind in sorted(found, key=lambda way: -way[0])
            if exact >= AS_GOOD * most][:MOST_WAYS]


def luma_qualities(image: np.ndarray) -> list[int]:
    """The qualities, 1..FINEST, whose luma table gives back most blocks of an image, best first."""
    low, high, guess = _blocks_of_luma(image)
    tables = standard_tables()[:FINEST]
    left, scores = np.arange(FINEST), np.zeros(FINEST)
    for limit in (FIRST, LAST):
        some = evenly_spaced(len(low), limit)
        for index in left if len(some) else ():
            levels, exact = find_levels(low[some], high[some], guess[some], tables[index],
                                        rounds=ROUNDS, bases=0)
            share = exact.mean()
            worth = np.log(np.maximum(1, tables[index] / np.where(np.arange(64), 1, BLOCK)))
            scores[index] = (share >= HALF) * (
                ((levels != 0) @ worth)[exact].sum() + EACH * exact.sum())
        left = left[scores[left] > 0]
    return (left[np.argsort(-scores[left], kind='stable')][:MOST_QUALITIES] + 1).tolist()


def _blocks_of_luma(image):
    """Bounds of the luma, and a guess less 128, of blocks whose clipped pixels are all gray.

    The blocks with the fewest of these, each once: three (n, 64).
    """
    pixels = blocks_of(image).reshape(-1, BLOCK * BLOCK, 3)
    clipped = (pixels == 0) | (pixels == 255)
    told = ~clipped.any(axis=2) | (pixels == pixels[..., :1]).all(axis=2)
    pixels, clipped = (part[told.all(axis=1)] for part in (pixels, clipped))
    luma = decoder_luma(pixels.reshape(-1, BLOCK, BLOCK, 3)).reshape(-1, BLOCK * BLOCK)
    first, _ = distinct(luma)
    order = clipped[first].sum(axis=(1, 2)).argsort(kind='stable')[:LAST]
    luma = luma[first[order]]
    return luma, luma, luma.astype(np.float32) - 128
