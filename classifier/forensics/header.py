"""What the header of a JPEG file says of its compression: tables, qualities, encoder, sampling.

    header = read_header('photo.jpg')
    header.quality, header.chroma_quality       # 75, 75
    header.encoder, header.encoder_setting      # 'libjpeg', 'libjpeg 75'

The markers are read, no pixel is: a header is told where the image is truncated, of 12 bits or of
a kind that nothing here decodes. A TIFF file with JPEG compression has a header, too.
"""
import os
import stat
from dataclasses import dataclass
from os import PathLike

import numpy as np

from classifier.errors import InputError
from classifier.forensics.encoders import UNKNOWN, Encoder, Tables, identify
from classifier.forensics.jpeg_markers import FRAMES, Markers, scan_markers
from classifier.forensics.tables import nearest_quality
from classifier.forensics.tiff_jpeg import is_tiff, jpeg_in_tiff

# Ratio of the luma's sampling factors to those of the chroma: horizontal, vertical.
_SUBSAMPLINGS = {(1, 1): '4:4:4', (2, 1): '4:2:2', (2, 2): '4:2:0', (1, 2): '4:4:0',
                 (4, 1): '4:1:1', (4, 2): '4:1:0'}


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG file says of itself."""
    quality: int | None      # the libjpeg quality nearest to the luma table; None if it has none
    standard: bool           # whether luma and chroma tables are exactly libjpeg's
    subsampling: str         # '4:4:4', '4:2:2', ..., 'gray', or the factors: '4x1,1x1,1x1'
    luma_table: tuple | None  # 64 steps, row by row; None if it has none, or one of 0
    chroma_quality: int | None = None  # nearest to the chroma table; None if it has none
    encoder: str = UNKNOWN   # who writes such tables: 'libjpeg', 'mozjpeg', 'Photoshop', ...
    encoder_setting: str | None = None  # on the encoder's own scale: 'Photoshop 3 of 12'
    colours: str | None = None  # 'YCbCr', 'RGB', 'CMYK', 'YCCK', 'gray'
    process: str | None = None  # 'baseline', 'progressive', 'extended 12-bit', 'lossless', ...
    width: int | None = None    # px
    height: int | None = None   # px
    damage: str | None = None   # what is wrong with the header, or nothing
    tables: tuple = ()       # for each component its 64 steps, row by row, or None


def read_header(path: str | PathLike) -> JpegHeader | None:
    """What the header of a JPEG file, or of the JPEG data in a TIFF file, says.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    JpegHeader or None
        None for a file of another kind.

    Raises
    ------
    InputError
        The file cannot be read, or begins as a JPEG and then holds nothing of one; the message
        begins with the path.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f'{path}: not a regular file')
        with open(path, 'rb') as file:
            start = file.read(16)
            if start[:3] == b'\xff\xd8\xff':
                file.seek(2)
                header = header_of(scan_markers(file))
                if header is None:
                    raise InputError(f'{path}: begins as a JPEG, but has no header; replace it by '
                                     'a readable, whole file')
                return header
            if is_tiff(start) and (found := jpeg_in_tiff(file)):
                return header_of(*found)
            return None
    except OSError as error:
        raise InputError(f'{path}: {error.strerror or error}; replace it by a readable, whole file')


def known_header(path: str | PathLike) -> JpegHeader | None:
    """`read_header`; None also for a file that cannot be read, as reading its pixels will say."""
    try:
        return read_header(path)
    except InputError:
        return None


def header_of(markers: Markers, colours: str | None = None) -> JpegHeader | None:
    """What the markers of a JPEG stream say.

    Parameters
    ----------
    markers : Markers
    colours : str, optional
        As in `JpegHeader`, where the file around the stream says it.

    Returns
    -------
    JpegHeader or None
        None if they hold neither a frame header nor a quantization table.
    """
    components = markers.components
    if not components and not markers.tables:
        return None
    colours = colours or _colours(markers)
    damage = list(markers.damage)
    slots = [component.table for component in components] or sorted(markers.tables)
    luma_slot = slots[0]
    chroma_slots = ()
    if colours in ('YCbCr', 'YCCK', None):
        chroma_slots = tuple(dict.fromkeys(slots[1:3]))
    lossless = components and 'lossless' in FRAMES[markers.frame]

    def sound(slot, name):
        """The table as an array; None, and a line of damage, if it cannot have been used."""
        steps = markers.tables.get(slot)
        if steps is None and not lossless:
            damage.append(f'the {name} table is missing')
        if steps is None or lossless:
            return None
        if not min(steps):
            damage.append(f'the {name} table has a step of 0')
            return None
        return np.array(steps)

    luma = sound(luma_slot, 'luma')
    chroma = [table for slot in chroma_slots if (table := sound(slot, 'chroma')) is not None]
    found = Encoder(UNKNOWN)
    alike = {markers.tables.get(slot) for slot in (
        slots[:1] + slots[3:] if chroma_slots else slots)}
    if luma is not None and len(alike) == 1:
        found = identify(Tables(
            luma, tuple(chroma), tuple(c.id for c in components),
            tuple((c.horizontal, c.vertical) for c in components), markers.frame == 0xC1))
    quality, chroma_quality = found.quality, found.chroma_quality
    if luma is not None and quality is None:
        quality, _ = nearest_quality(luma)
    if chroma and chroma_quality is None:
        chroma_quality, _ = nearest_quality(chroma[0], chroma=True)
    return JpegHeader(
        quality=quality,
        standard=found.encoder == 'libjpeg' and len(chroma) == len(chroma_slots),
        subsampling=_subsampling(components),
        luma_table=None if luma is None else tuple(luma.tolist()),
        chroma_quality=chroma_quality,
        encoder=found.encoder,
        encoder_setting=found.setting,
        colours=colours,
        process=_process(markers),
        width=markers.width,
        height=markers.height,
        damage='; '.join(dict.fromkeys(damage)) or None,
        tables=tuple(markers.tables.get(slot) for slot in slots))


def _process(markers):
    if markers.frame is None:
        return None
    name, bits = FRAMES[markers.frame], markers.precision
    return name if bits == 8 else f'{name} {bits}-bit'


def _subsampling(components):
    """By the ratio of the luma's factors to the chroma's, of all components."""
    if not components:
        return UNKNOWN
    if len(components) == 1:
        return 'gray'
    factors = [(c.horizontal, c.vertical) for c in components]
    luma, chroma = factors[0], factors[1]
    if len(components) in (3, 4) and factors[2] == chroma and factors[3:] in ([], [luma]):
        if all(chroma) and not (luma[0] % chroma[0] or luma[1] % chroma[1]):
            ratio = luma[0] // chroma[0], luma[1] // chroma[1]
            if ratio in _SUBSAMPLINGS:
                return _SUBSAMPLINGS[ratio]
    return ','.join(f'{h}x{v}' for h, v in factors)


def _colours(markers):
    """The colours, as libjpeg's default_decompress_parms (jdapimin.c) tells them."""
    ids = tuple(component.id for component in markers.components)
    if len(ids) == 1:
        return 'gray'
    if len(ids) == 3:
        if markers.jfif:
            return 'YCbCr'
        if markers.adobe is not None:
            return 'YCbCr' if markers.adobe else 'RGB'
        return 'RGB' if ids == (82, 71, 66) else 'YCbCr'  # R, G, B
    if len(ids) == 4:
        return 'YCCK' if markers.adobe == 2 else 'CMYK'
    return None
