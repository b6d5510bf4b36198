"""What the header of a JPEG file says of its compression: tables, quality, subsampling."""
from dataclasses import dataclass
from os import PathLike

import numpy as np
from PIL import Image

from classifier.forensics.tables import standard_tables
from classifier.images import FORMATS


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG file says of itself."""
    quality: int             # the libjpeg quality of the nearest tables (least squares)
    standard: bool           # whether its tables are those very ones
    subsampling: str         # '4:4:4', '4:2:2', '4:2:0', 'gray', or the luma's factors: '4x1'
    luma_table: tuple        # 64 steps, row by row


def read_header(path: str | PathLike) -> JpegHeader | None:
    """What the header of a JPEG file says; None for other images, and for damaged tables.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    OSError
        The file cannot be read, or is no image.
    """
    with Image.open(path, formats=FORMATS) as image:
        if image.format not in ('JPEG', 'MPO'):
            return None
        tables, components = image.quantization, image.layer  # (id, h, v, table) each
    used = list(dict.fromkeys(layer[3] for layer in components[:3]))
    if not set(used) <= set(tables) or not all(min(tables[i]) for i in used):
        return None  # it names tables that it does not hold, or steps of 0
    own = np.concatenate([tables[i] for i in used[:2]])
    known = np.hstack([standard_tables(), standard_tables(chroma=True)])[:, :len(own)]
    distance = np.square(known - own).sum(axis=1)
    factors = components[0][1:3]  # of the luma: horizontal, vertical
    subsampling = 'gray' if len(components) == 1 else {
        (1, 1): '4:4:4', (2, 1): '4:2:2', (2, 2): '4:2:0'}.get(factors, '{}x{}'.format(*factors))
    return JpegHeader(int(distance.argmin()) + 1, bool(distance.min() == 0), subsampling,
                      tuple(tables[used[0]]))
