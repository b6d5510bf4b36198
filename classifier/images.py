"""Image files and BGR arrays, and the JPEG codec in between.

Pillow reads, because it refuses truncated files (OpenCV fills them up with grey)
and knows every colour mode; OpenCV compresses, as in the paper.
"""
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from lattice import standard_tables
from models import InputError

EXTENSIONS = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}
MAX_PIXELS = 200_000_000
MAX_JPEG_SIDE = 65_500  # px, libjpeg's limit

Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is the limit here


def list_images(folder, recursive=False):
    """Image files of a folder, sorted by path; InputError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'{folder}: no such folder')
    if recursive:
        paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    else:
        paths = folder.iterdir()
    found = sorted(p for p in paths if p.suffix.lower() in EXTENSIONS and not p.is_dir()
                   and not p.is_fifo())
    if not found:
        raise InputError(f'{folder}: no images there ({", ".join(sorted(EXTENSIONS))})'
                         + ('' if recursive else '; for its subfolders too: --recursive'))
    return found


def read_image(path):
    """The pixels of an image file as they are stored: (h, w, 3) uint8 BGR.

    16 bits become the upper 8; alpha is dropped, not blended; gray, palette and
    CMYK become colour; an EXIF rotation is not applied, for it would turn the
    coded blocks. InputError for anything that is no whole image.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f'{image.width}x{image.height} is over '
                                 f'{MAX_PIXELS // 10**6} megapixels; crop it first')
            image.load()
            return _to_bgr(image)
    except UnidentifiedImageError:
        reason = 'not an image that can be read; remove it or convert it to PNG'
    except OSError as error:
        reason = f'{error.strerror or error}; replace it by a readable, whole file'
    except (ValueError, SyntaxError, MemoryError) as error:
        reason = error
    raise InputError(f'{path}: {reason}')


def _to_bgr(image):
    if image.mode.startswith('I;16'):
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ('I', 'F'):
        raise ValueError('32-bit pixels have no known range; convert it to 8 or 16 bits')
    return np.ascontiguousarray(np.asarray(image.convert('RGB'))[:, :, ::-1])


def compress(image, quality):
    """The image after JPEG at that quality (OpenCV, 4:2:0 chroma), decoded again.

    image: (h, w, 3) uint8 BGR; quality: 1..100; returns an array of the same kind.
    """
    ok, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise InputError(f'JPEG cannot hold an image of {image.shape[1]}x{image.shape[0]}')
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG file says of itself.

    quality: the libjpeg quality whose tables are nearest to its own (least squares).
    standard: whether they are those very tables. subsampling: '4:4:4', '4:2:2',
    '4:2:0', 'gray', or the luma's sampling factors, such as '4x1'. luma_table: its 64
    steps, row by row.
    """
    quality: int
    standard: bool
    subsampling: str
    luma_table: tuple


def read_header(path):
    """The `JpegHeader` of a JPEG file, None for other files. OSError if it cannot be read."""
    with Image.open(path) as image:
        if image.format not in ('JPEG', 'MPO'):
            return None
        tables, components = image.quantization, image.layer  # (id, h, v, table) each
    used = list(dict.fromkeys(layer[3] for layer in components[:3]))
    if not set(used) <= set(tables):
        return None  # damaged: it names tables that it does not hold
    own = np.concatenate([tables[i] for i in used[:2]])
    known = np.hstack([standard_tables(), standard_tables(chroma=True)])[:, :len(own)]
    misfit = np.square(known - own).sum(axis=1)
    horizontal, vertical = components[0][1:3]
    subsampling = 'gray' if len(components) == 1 else {
        (1, 1): '4:4:4', (2, 1): '4:2:2', (2, 2): '4:2:0'}.get(
            (horizontal, vertical), f'{horizontal}x{vertical}')
    return JpegHeader(int(misfit.argmin()) + 1, bool(misfit.min() == 0), subsampling,
                      tuple(tables[used[0]]))
