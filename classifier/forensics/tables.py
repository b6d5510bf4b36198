"""The quantization tables of JPEG, as libjpeg scales them.

Sources: ITU-T T.81, Annex K, Tables K.1 and K.2 (quality 50); libjpeg's jpeg_quality_scaling.
"""
import functools

import numpy as np
from PIL.JpegPresets import presets

MAX_STEP = 255            # steps of baseline JPEG are 8 bits
MAX_WIDE_STEP = 32767     # of libjpeg's tables of 16 bits

# Tables at quality 50, row by row.
LUMA_TABLE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99])
TURNED = np.arange(64).reshape(8, 8).T.ravel()  # order of the steps of a transposed table
CHROMA_TABLE = np.full((8, 8), 99)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
LUMA, CHROMA = (tuple(table.ravel().tolist()) for table in (LUMA_TABLE, CHROMA_TABLE))
NEW_CHROMA = 16, *CHROMA[1:]  # IJG's since jpeg-9e (jcparam.c)

# How much each step counts in the nearest quality: low frequencies more, as they hold most of a
# photo. Of the forms (1 + f^2 / s)^-p this one comes within 5.2 levels (RMS) of the quality of
# equal PSNR, over 24 tables of Photoshop, FFmpeg, mozjpeg, jpegli and guetzli on the sample
# photos; without weights it is 6.1, with squared differences of the steps 12.2.
WEIGHTS = 1 / (1 + (np.arange(8)[:, None] ** 2 + np.arange(8) ** 2).ravel() / 16)
WEIGHTS /= WEIGHTS.sum()


def scale_table(table: np.ndarray, quality: int | np.ndarray,
                limit: int = MAX_STEP) -> np.ndarray:
    """A table of quality 50, int, at another quality or, as they broadcast, at several.

    libjpeg's scaling: 5000/q % below quality 50, 200 - 2q % from there; no step over `limit`.
    """
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((table * scale + 50) // 100, 1, limit)


def all_qualities(table: np.ndarray, wide: bool = False) -> np.ndarray:
    """A table of quality 50 at the qualities 1 to 100: int array, shape (100, 64), read-only.

    `wide` tables have 16 bits a step, as libjpeg writes them without -baseline.
    """
    tables = scale_table(np.asarray(table).ravel(), np.arange(1, 101)[:, None],
                         MAX_WIDE_STEP if wide else MAX_STEP)
    tables.setflags(write=False)
    return tables


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
    return all_qualities(CHROMA_TABLE if chroma else LUMA_TABLE)


def qualities_of(table: np.ndarray, base: tuple[int, ...]) -> tuple[list[int], bool]:
    """The qualities at which libjpeg makes that very table of the base table; mostly 0 or 1.

    Also whether it has 16 bits a step, as libjpeg writes it without -baseline.
    """
    wide = bool(table.max() > MAX_STEP)
    same = (_of_base(base, wide) == table).all(axis=1)
    return (np.flatnonzero(same) + 1).tolist(), wide


@functools.lru_cache(maxsize=64)
def _of_base(base, wide):
    return all_qualities(np.array(base), wide)


def nearest_quality(table: np.ndarray, chroma: bool = False,
                    some_wrong: bool = False) -> tuple[int, float]:
    """The libjpeg quality whose table is nearest, by the ratios of the known steps.

    It is the one rule for headers, for tables read from pixels, and for those of earlier saves.

    Parameters
    ----------
    table : int or float array, shape (64,)
        The steps, row by row; 0 where one is not known, as some are of a table read from pixels.
    chroma : bool
        Whether it is of the chroma.
    some_wrong : bool
        A few of the steps may be quite wrong, as those read after a change of the pixels; they
        matter less to the mean than to the mean square.

    Returns
    -------
    quality : int
        1 to 100, of the least distance.
    distance : float
        Root of the mean square of the natural log of the ratios, weighted by WEIGHTS; with
        `some_wrong`, the mean of its size.

    Raises
    ------
    ValueError
        No step is known.
    """
    known = table > 0
    if not known.any():
        raise ValueError('no step is known')
    bases = (CHROMA, NEW_CHROMA) if chroma else (LUMA,)
    for base in bases:
        if found := qualities_of(table, base)[0]:
            return found[0], 0.0
    tables = _of_base(bases[0], bool(table.max() > MAX_STEP))[:, known]
    weights = WEIGHTS[known] / WEIGHTS[known].sum()
    size = np.abs(np.log(tables) - np.log(table[known]))
    distance = size @ weights if some_wrong else np.sqrt(np.square(size) @ weights)
    return int(distance.argmin()) + 1, float(distance.min())


def turned_tables() -> np.ndarray:
    """The luma tables of `standard_tables`, transposed, as after a quarter-turn: (100, 64) int."""
    return standard_tables()[:, TURNED]


@functools.lru_cache(maxsize=1)
def other_tables() -> np.ndarray:
    """Photoshop's luma tables, as Pillow has them, row by row: (n, 64) int.

    Some agree with a standard table at the low frequencies.
    """
    return np.array([preset['quantization'][0] for preset in presets.values()])
