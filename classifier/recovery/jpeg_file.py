"""Coefficients to the bytes of a JPEG file, without any recompression.

    data = jpeg_bytes(picture, segments)

jpeglib hands the coefficients to libjpeg, which writes them with Huffman tables made for them.
"""
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classifier.errors import InputError
from classifier.forensics.blocks import BLOCK
from classifier.images import MAX_JPEG_SIDE
from classifier.recovery.decoders import JPEGLIB
from classifier.recovery.lattice_points import LARGEST_LEVEL
from classifier.recovery.picture import HALVED, Picture

SAMPLING = {'gray': [[1, 1]]} | {
    name: [[1 + vertical, 1 + horizontal], [1, 1], [1, 1]]
    for name, (vertical, horizontal) in HALVED.items()}


def jpeg_bytes(picture: Picture, segments: Sequence[tuple[int, bytes]] = ()) -> bytes:
    """The JPEG file, with optimised Huffman tables.

    Parameters
    ----------
    picture : Picture
    segments : sequence of (int, bytes)
        Marker segments of metadata, as metadata.py makes them.

    Raises
    ------
    InputError
        A coefficient is too large for a JPEG of 8 bits: these are not the ones of a file; or the
        picture, of which the image is a crop, is.
    """
    try:
        import jpeglib  # its 20 libraries are loaded only here
    except ImportError as error:
        raise InputError('recovering needs the package jpeglib, which is not there: python3 -m pip '
                         'install jpeglib==1.0.2 (it has no wheel for Linux on arm64)') from error
    if max(picture.height, picture.width) > MAX_JPEG_SIDE:
        raise InputError('is a crop of a picture that is larger than a JPEG file can be')
    blocks = [np.abs(part).reshape(-1, BLOCK * BLOCK) for part in picture.levels]
    if any(part[:, 1:].max() > LARGEST_LEVEL or part[:, 0].max() > LARGEST_LEVEL + 1
           for part in blocks):
        raise InputError('its coefficients are too large for a JPEG file')
    planes = [part.astype(np.int16) for part in picture.levels]
    kind = picture.kind
    tables = [kind.luma_table] + [kind.chroma_table] * (len(planes) > 1)
    file = jpeglib.from_dct(*planes, qt=np.stack(tables).reshape(-1, 8, 8).astype(np.uint16))
    file.height, file.width = picture.height, picture.width
    file.samp_factor = np.array(SAMPLING[kind.subsampling])
    file.markers = [jpeglib.Marker(jpeglib.MarkerType(marker), len(content), content)
                    for marker, content in segments]
    handle, name = tempfile.mkstemp(suffix='.jpg')
    os.close(handle)
    try:
        with JPEGLIB:
            file.write_dct(name, flags=['+OPTIMIZE_CODING'])
        return Path(name).read_bytes()
    finally:
        os.unlink(name)
