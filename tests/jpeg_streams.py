"""JPEG files made byte by byte, up to their first scan: for what encoders here do not write."""
import io

import numpy as np
import pytest
from PIL import Image

from classifier.forensics.header import read_header
from classifier.forensics.jpeg_markers import ZIGZAG
from classifier.forensics.tables import standard_tables

COLOUR_420 = ((1, 2, 2, 0), (2, 1, 1, 1), (3, 1, 1, 1))  # id, horizontal, vertical, table
COLOUR_444 = ((1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1))
JFIF = b'\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0'

# Photoshop 7, quality 3, as in the public sample photo of a Canon EOS D60 (metadata-extractor).
PHOTOSHOP_3 = (
    [18, 14, 22, 35, 44, 39, 34, 17, 14, 16, 21, 34, 28, 23, 12, 12, 22, 21, 27, 28, 23, 12, 12, 12,
     35, 34, 28, 23, 12, 12, 12, 12, 44, 28, 23, 12, 12, 12, 12, 12, 39, 23, 12, 12, 12, 12, 12, 12,
     34, 12, 12, 12, 12, 12, 12, 12, 17, 12, 12, 12, 12, 12, 12, 12],
    [20, 22, 29, 34, 20, 20, 17, 17, 22, 25, 24, 14, 14, 12, 12, 12, 29, 24, 14, 14, 12, 12, 12, 12,
     34, 14, 14, 12, 12, 12, 12, 12, 20, 14, 12, 12, 12, 12, 12, 12, 20, 12, 12, 12, 12, 12, 12, 12,
     17, 12, 12, 12, 12, 12, 12, 12, 17, 12, 12, 12, 12, 12, 12, 12])
# cjpegli -q 75, 4:2:0
JPEGLI_75 = (
    [6, 7, 13, 12, 17, 17, 19, 19, 7, 9, 12, 13, 17, 16, 20, 20, 13, 12, 14, 16, 18, 19, 19, 21,
     12, 13, 16, 17, 21, 23, 23, 23, 17, 17, 18, 21, 23, 25, 28, 27, 17, 16, 19, 23, 25, 27, 25, 30,
     19, 20, 19, 23, 28, 25, 27, 27, 19, 20, 21, 23, 27, 30, 27, 22],
    [6, 6, 11, 10, 13, 12, 15, 16, 6, 8, 11, 9, 12, 11, 14, 14, 11, 11, 11, 10, 12, 13, 13, 15,
     10, 9, 10, 11, 14, 13, 14, 16, 13, 12, 12, 14, 10, 16, 12, 15, 12, 11, 13, 13, 16, 14, 16, 23,
     15, 14, 13, 14, 12, 16, 25, 23, 16, 14, 15, 16, 15, 23, 23, 193])


def tables_of(quality, chroma_quality=None):
    """libjpeg's luma and chroma tables, row by row."""
    return (standard_tables()[quality - 1],
            standard_tables(chroma=True)[(chroma_quality or quality) - 1])


def dqt(tables, wide=False):
    """A DQT segment for each table, given row by row."""
    out = b''
    for number, table in enumerate(tables):
        steps = np.asarray(table).ravel()[ZIGZAG].astype('>u2' if wide else np.uint8).tobytes()
        out += b'\xff\xdb' + (3 + len(steps)).to_bytes(2, 'big') + bytes([16 * wide + number])
        out += steps
    return out


def sof(components, frame=0xC0, bits=8, width=40, height=24):
    """The frame header."""
    return (bytes([0xFF, frame, 0, 8 + 3 * len(components), bits]) + height.to_bytes(2, 'big')
            + width.to_bytes(2, 'big') + bytes([len(components)])
            + b''.join(bytes([i, 16 * h + v, table]) for i, h, v, table in components))


def stream(tables, components=COLOUR_420, start=JFIF, wide=False, **frame):
    """A JPEG file up to its first scan, whose data is not there."""
    return (b'\xff\xd8' + start + dqt(tables, wide) + sof(components, **frame)
            + b'\xff\xda\0\x08\1\1\0\0\x3f\0' + bytes(20))


def saved(photo, **options):
    """The photo as Pillow's JPEG."""
    file = io.BytesIO()
    Image.fromarray(photo[:64, :64, ::-1]).save(file, 'JPEG', **options)
    return file.getvalue()


@pytest.fixture
def header(tmp_path):
    """A function from the bytes of a file to what its header says."""
    def read(data):
        (tmp_path / 'a.jpg').write_bytes(data)
        return read_header(tmp_path / 'a.jpg')
    return read
