"""The JPEG stream of the first image in a TIFF file.

Sources: TIFF 6.0, section 2 (structure) and 22 (old JPEG, compression 6); Adobe's Technical Note 2
for TIFF (JPEG in TIFF, compression 7: tables apart from the strips, in tag 347); BigTIFF.
"""
import io
from typing import BinaryIO

from classifier.forensics.jpeg_markers import Markers, scan_markers

WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC = 256, 257, 259, 262
STRIP_OFFSETS, TILE_OFFSETS, JPEG_TABLES, OLD_JPEG = 273, 324, 347, 513
OLD_STYLE, NEW_STYLE = 6, 7
_COLOURS = {0: 'gray', 1: 'gray', 2: 'RGB', 5: 'CMYK', 6: 'YCbCr'}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 13: 4, 16: 8, 18: 8}  # bytes of a value of each type
MAX_ENTRIES = 4096
MAX_VALUE = 2 ** 16         # bytes of a tag's value that are read


def is_tiff(start: bytes) -> bool:
    """Whether a file that begins so is TIFF or BigTIFF."""
    return start[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')


def jpeg_in_tiff(file: BinaryIO) -> tuple[Markers, str | None] | None:
    """The markers of the first image's JPEG data, and its colours; None if it has no such data.

    Parameters
    ----------
    file : binary file
        Of TIFF or BigTIFF.
    """
    tags = _first_directory(file)
    compression = _number(tags, COMPRESSION)
    tables = None
    if compression == NEW_STYLE:
        position = _number(tags, STRIP_OFFSETS) or _number(tags, TILE_OFFSETS)
        if JPEG_TABLES in tags:
            stream = tags[JPEG_TABLES][0]
            tables = scan_markers(io.BytesIO(stream[2:]))
    elif compression == OLD_STYLE:
        position = _number(tags, OLD_JPEG)
    else:
        return None
    markers = Markers(damage=['ends before its coded data'])
    if position:
        file.seek(position)
        if file.read(2) == b'\xff\xd8':
            markers = scan_markers(file, tables)
    if tables and not markers.tables:
        markers.tables, markers.wide = tables.tables, tables.wide
    markers.width, markers.height = (_number(tags, tag) for tag in (WIDTH, HEIGHT))
    return markers, _COLOURS.get(_number(tags, PHOTOMETRIC))


def _first_directory(file):
    """Of the first image: for each tag that matters its value's bytes, size and byte order."""
    file.seek(0)
    start = file.read(16)
    order = 'little' if start[:2] == b'II' else 'big'
    big = b'+' in start[2:4]
    width, count_size = (8, 8) if big else (4, 2)  # of an offset, of the number of entries
    file.seek(int.from_bytes(start[8:16] if big else start[4:8], order))
    count = int.from_bytes(file.read(count_size), order)
    entry = 4 + 2 * width
    directory = file.read(min(count, MAX_ENTRIES) * entry)
    tags = {}
    for i in range(0, len(directory) - entry + 1, entry):
        tag, kind = (int.from_bytes(directory[j:j + 2], order) for j in (i, i + 2))
        size = _SIZES.get(kind)
        if size is None or tag in tags:
            continue
        length = size * int.from_bytes(directory[i + 4:i + 4 + width], order)
        value = directory[i + 4 + width:i + entry]
        if length > width and tag in (STRIP_OFFSETS, TILE_OFFSETS, JPEG_TABLES):
            file.seek(int.from_bytes(value, order))
            value = file.read(min(length, MAX_VALUE))
        tags[tag] = value[:length], size, order
    return tags


def _number(tags, tag):
    """The first number of a tag's value; None without the tag."""
    value, size, order = tags.get(tag, (b'', 1, 'little'))
    return int.from_bytes(value[:size], order) if value else None
