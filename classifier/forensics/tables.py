"""The quantization tables of JPEG, as libjpeg scales them.

Sources: ITU-T T.81, Annex K, Tables K.1 and K.2 (quality 50); libjpeg's jpeg_quality_scaling.
"""
import functools

import numpy as np
from PIL.JpegPresets import presets

MAX_STEP = 255            # steps of baseline JPEG are 8 bits

# Tables at quality 50, row by row.
LUMA_TABLE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99])
CHROMA_TABLE = np.full((8, 8), 99)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def scale_table(table: np.ndarray, quality: int | np.ndarray) -> np.ndarray:
    """A table of quality 50, int, at another quality or, as they broadcast, at several.

    libjpeg's scaling: 5000/q % below quality 50, 200 - 2q % from there.
    """
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((table * scale + 50) // 100, 1, MAX_STEP)


@functools.lru_cache(maxsize=2)
def standard_tables(chroma: bool = False) -> np.ndarray:
    """The quantization tables of libjpeg.

    Parameters
    ----------
    chroma : bool
        Those of the chroma instead of the luma's.

    Returns
    -------
    int array, shape (100, 64), read-only
        The steps, row by row; those of quality q are at index q - 1.

    References
    ----------
    ITU-T T.81, Annex K; libjpeg's jpeg_quality_scaling.
    """
    tables = scale_table(CHROMA_TABLE.ravel() if chroma else LUMA_TABLE,
                         np.arange(1, 101)[:, None])
    tables.setflags(write=False)
    return tables


def turned_tables() -> np.ndarray:
    """The luma tables of `standard_tables`, transposed, as after a quarter-turn: (100, 64) int."""
    return standard_tables().reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)


@functools.lru_cache(maxsize=1)
def other_tables() -> np.ndarray:
    """Photoshop's luma tables, as Pillow has them, row by row: (n, 64) int.

    Some agree with a standard table at the low frequencies.
    """
    return np.array([preset['quantization'][0] for preset in presets.values()])
