"""Image files and BGR arrays, and the JPEG codec in between.

Pillow reads, because it refuses truncated files (OpenCV fills them up with grey)
and knows every colour mode; OpenCV compresses, as in the paper.
"""
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from models import InputError

EXTENSIONS = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}
MAX_PIXELS = 200_000_000

# Luma quantization table at quality 50, row by row (ITU-T T.81, Annex K, Table K.1).
LUMA_TABLE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99])


def list_images(folder, recursive=False):
    """Image files of a folder, sorted by path; InputError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'{folder}: no such folder')
    if recursive:
        paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    else:
        paths = folder.iterdir()
    found = sorted(p for p in paths if p.suffix.lower() in EXTENSIONS and not p.is_dir())
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
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Pillow's bomb warning; the limit is below
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
    except (ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
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


def luma_tables():
    """The luma quantization tables of qualities 1..100: (100, 64) int, row by row.

    libjpeg's scaling of Annex K: 5000/q % below quality 50, 200 - 2q % from there.
    """
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((LUMA_TABLE * scale + 50) // 100, 1, 255)


def header_quality(path):
    """The quality a JPEG file's own luma table stands for; None for other files."""
    with Image.open(path) as image:
        tables = getattr(image, 'quantization', None)
    if not tables:
        return None
    misfit = np.abs(luma_tables() - np.array(tables[min(tables)])).sum(axis=1)
    return int(misfit.argmin()) + 1
