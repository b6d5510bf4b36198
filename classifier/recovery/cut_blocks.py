"""What an encoder put beyond the picture's edge, into the blocks that are cut by it.

    for beyond in edge_weights(unseen, table):  # weaker and weaker
        ...

Encoders repeat the last row and column. So a cut block's levels are those of a block that goes on
evenly, rounded; with them, the few samples that are seen are enough to find all 64 levels.

Sources: expand_right_edge and expand_bottom_edge in libjpeg's jcsample.c and jcprepct.c.
"""
from functools import lru_cache

import numpy as np

from classifier.forensics.blocks import BLOCK, DCT2

ROUNDING = 12 ** 0.5      # levels are rounded: an error of 1 / sqrt(12)
WEIGHTS = 0.3, 0.1        # of what lies beyond the edge


def edge_weights(unseen: np.ndarray, table: np.ndarray) -> list[np.ndarray]:
    """What goes into a lattice's basis so that blocks go on evenly beyond the picture's edge.

    Parameters
    ----------
    unseen : bool array, shape (64,)
        Where the samples of a block are not in the picture.
    table : int or float array, shape (64,)

    Returns
    -------
    list of float arrays, shape (64, 64)
        For each level's row of the basis 64 columns more, by different weights; none if the block
        is not cut at its bottom or right.
    """
    unseen = unseen.reshape(BLOCK, BLOCK)
    rows, columns = (BLOCK - unseen.all(axis=axis).sum() for axis in (1, 0))
    if not (0 < min(rows, columns) < BLOCK and unseen[rows:].all() and unseen[:, columns:].all()):
        return []
    beyond = table[:, None] * DCT2 @ repeated_edge(rows, columns, table).T
    return [weight * beyond for weight in WEIGHTS]


def repeated_edge(rows: int, columns: int, table: np.ndarray) -> np.ndarray:
    """By how much samples contradict a block that was repeated from its first rows and columns.

    Parameters
    ----------
    rows, columns : int
        1..8, those in the picture.
    table : int or float array, shape (64,)

    Returns
    -------
    float array, shape (64, 64)
        Times the 64 decoded samples: 64 values, of variance 1 for the levels of an encoder.
    """
    return _repeated_edge(rows, columns, tuple(float(step) for step in table))


@lru_cache(maxsize=64)
def _repeated_edge(rows, columns, table):
    to_levels = DCT2 / np.array(table)[:, None]
    row, column = (np.arange(BLOCK).clip(0, length - 1) for length in (rows, columns))
    source = (row[:, None] * columns + column).ravel()
    span, _ = np.linalg.qr(to_levels @ np.eye(rows * columns)[source])  # of all inputs
    return ROUNDING * (to_levels - span @ (span.T @ to_levels))
