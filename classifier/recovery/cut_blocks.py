"""What an encoder put beyond the picture's edge, into the blocks that are cut by it.

    rows = repeated_edge(BLOCK, 3, table)       # 3 of 8 columns are in the picture

Encoders repeat the last row and column. So a cut block's levels are those of a block that goes on
evenly, rounded; with them, the few samples that are seen are enough to find all 64 levels.

Sources: expand_right_edge and expand_bottom_edge in libjpeg's jcsample.c and jcprepct.c.
"""
from functools import lru_cache

import numpy as np

from classifier.forensics.blocks import BLOCK, DCT2

ROUNDING = 12 ** 0.5      # levels are rounded: an error of 1 / sqrt(12)


def repeated_edge(rows: int, columns: int, table: np.ndarray) -> np.ndarray:
    """By how much samples contradict a block that was repeated from its first rows and columns.

    Parameters
    ----------
    rows, columns : int
        1..8, those in the picture.
    table : int array, shape (64,)

    Returns
    -------
    float array, shape (64, 64)
        Times the 64 decoded samples: 64 values, of variance 1 for the levels of an encoder.
    """
    return _repeated_edge(rows, columns, tuple(int(step) for step in table))


@lru_cache(maxsize=64)
def _repeated_edge(rows, columns, table):
    to_levels = DCT2 / np.array(table)[:, None]
    row, column = (np.arange(BLOCK).clip(0, length - 1) for length in (rows, columns))
    source = (row[:, None] * columns + column).ravel()
    span, _ = np.linalg.qr(to_levels @ np.eye(rows * columns)[source])  # of all inputs
    return ROUNDING * (to_levels - span @ (span.T @ to_levels))
