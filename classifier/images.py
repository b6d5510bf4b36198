"""Image files and BGR arrays, and the JPEG codec in between.

Pillow reads, because it refuses truncated files (OpenCV fills them up with grey)
and knows every colour mode; OpenCV compresses, as in the paper.
"""
import io
import logging
import os
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from lattice import standard_tables
from models import InputError, quiet

EXTENSIONS = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}
FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP')  # Pillow tries no other, whatever the name says
MAX_PIXELS = 200_000_000
MAX_JPEG_SIDE = 65_500  # px, libjpeg's limit
SAMPLING = {'4:2:0': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,  # of chroma
            '4:2:2': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
            '4:4:4': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444}
MIXED = {'4:2:0': 0.7, '4:2:2': 0.1, '4:4:4': 0.15, 'gray': 0.05}  # shares of a mix to train on
CHROMA = ('4:2:0', 'mixed')

# Ends entropy-coded data, unlike stuffed zeros and restart markers (ITU-T T.81, B.1.1).
JPEG_MARKER = re.compile(rb'\xff+[^\x00\xd0-\xd7\xff]')
SOS, EOI = 0xDA, 0xD9
JPEG_FILLING = 2 * b''.join(b'\x00' + 16 * b'\x5a\xa5' + bytes([0xFF, 0xD0 + i]) for i in range(8))

Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is the limit here
# Pillow keeps up to so many blocks of 16 MB or less for the next image: with a thread on each core
# that saves a fifteenth of the time in which a PNG is decoded.
Image.core.set_blocks_max(8)
warnings.filterwarnings('ignore', module='PIL')  # about metadata; errors are raised
logging.getLogger('PIL').addHandler(logging.NullHandler())  # else its errors go to stderr too


def list_images(folder, recursive=False):
    """Paths to try in a folder, sorted: all of an image's extension, whatever they are.

    With `recursive`, subfolders that cannot be read are among them, so that reading them
    tells why; links to folders are not followed. InputError if there is nothing to try.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'{folder}: no such folder')
    found, folders = [], [folder]
    while folders:  # no recursion, which os.walk is before Python 3.12: folders may be deep
        current = folders.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if recursive and entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                        found.append(entry.path)
        except OSError:
            if current == folder:
                raise
            found.append(current)
    found = sorted(map(Path, found))
    if not found:
        raise InputError(f'{folder}: no images there ({", ".join(sorted(EXTENSIONS))})'
                         + ('' if recursive else '; for its subfolders too: --recursive'))
    return found


def read_image(path, max_pixels=MAX_PIXELS, notice=None):
    """The pixels of an image file as they are stored: (h, w, 3) uint8 BGR.

    16 bits become the upper 8; alpha is dropped, not blended; gray, palette and
    CMYK become colour; an EXIF rotation is not applied, for it would turn the
    coded blocks. Of several frames or pages the first is taken; `notice`, a function,
    gets a line that says so. InputError for anything that is no whole image.
    """
    try:
        _refuse_other_than_file(path)
        with open(path, 'rb') as file, Image.open(file, formats=FORMATS) as image:
            pixels = image.width * image.height
            if not pixels:
                raise ValueError('an image without pixels')
            if pixels > max_pixels:
                raise ValueError(f'{image.width}x{image.height} is over the limit of '
                                 f'{max_pixels:,} pixels; crop it, or raise --max_pixels if the '
                                 'script has that option')
            if notice and image.format != 'MPO' and getattr(image, 'is_animated', False):
                notice(f'{path}: holds several images, the first is taken')
            if image.format in ('JPEG', 'MPO'):
                return _to_bgr(_whole_jpeg(file))
            if image.format == 'PNG':
                _check_png(file)
            if image.format == 'TIFF':
                with quiet():  # libtiff writes to stderr
                    image.load()
            return _to_bgr(image)
    except UnidentifiedImageError:
        reason = 'not an image that can be read; remove it or convert it to PNG'
    except OSError as error:
        reason = f'{error.strerror or error}; replace it by a readable, whole file'
    except ValueError as error:
        reason = error
    except Exception as error:  # Pillow's parsers raise what they stumble over
        reason = f'damaged ({type(error).__name__}: {error})'
    raise InputError(f'{path}: {reason}')


def _refuse_other_than_file(path):
    """OSError or ValueError that says why that path cannot be an image."""
    if os.path.islink(path) and not os.path.lexists(os.path.realpath(path)):
        raise ValueError(f'a link to {os.readlink(path)}, which is not there')
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # says so if it must not be read
        raise ValueError('a folder, not an image')
    if not stat.S_ISREG(mode):
        raise ValueError('not a regular file')


def _check_png(file):
    """Pillow does not look at the checksums of a PNG's pixels, but when told to."""
    file.seek(0)
    Image.open(file, formats=['PNG']).verify()
    file.seek(0)


def _whole_jpeg(file):
    """The first image of a JPEG file, such that loading it fails if it is not whole.

    libjpeg fills up what is missing in front of the end marker with gray and says
    nothing. So there is other data here in place of that marker. Of a single scan, the
    decoder must not ask for more than that; of several (progressive), it must not use
    it: the pixels stay the same.
    """
    file.seek(0)
    data = file.read()
    end, scans = jpeg_end(data)
    if scans == 1:
        return Image.open(io.BytesIO(data[:end] + bytes(8)), formats=['JPEG'])
    image, again = (Image.open(io.BytesIO(data[:end] + filling + data[end:end + 2]),
                               formats=['JPEG']) for filling in (b'', JPEG_FILLING))
    if image.tobytes() != again.tobytes():
        raise OSError('image file is truncated')
    return image


def jpeg_end(data):
    """Where the first image of JPEG data ends (before its EOI marker), and its number of scans."""
    position = scans = 0
    while found := JPEG_MARKER.search(data, position + 2):
        position, marker = found.end(), data[found.end() - 1]
        if marker == EOI:
            return position - 2, scans
        scans += marker == SOS
        position += int.from_bytes(data[position:position + 2], 'big') - 2
    return len(data), scans


def _to_bgr(image):
    image.load()
    if image.mode.startswith('I;16'):
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ('I', 'F'):
        raise ValueError('32-bit pixels have no known range; convert it to 8 or 16 bits')
    if image.mode != 'RGB':
        image = image.convert('RGB')
    return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)


def compress(image, quality, chroma='4:2:0'):
    """The image after JPEG (OpenCV's) at that quality, decoded again.

    image: (h, w, 3) uint8 BGR; quality: 1..100; chroma: '4:2:0', '4:2:2', '4:4:4' or
    'gray', for a JPEG of luma alone. Returns an array of the image's kind.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if chroma == 'gray':
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    else:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLING[chroma]]
    ok, data = cv2.imencode('.jpg', image, options)
    if not ok:
        raise InputError(f'JPEG cannot hold an image of {image.shape[1]}x{image.shape[0]}')
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def draw_chroma(chroma, rng):
    """For `compress`: of 'mixed', one of MIXED is drawn; '4:2:0', which CHROMA holds too, stays."""
    return str(rng.choice(list(MIXED), p=list(MIXED.values()))) if chroma == 'mixed' else chroma


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
    """The `JpegHeader` of a JPEG file; None for other files, and for one whose tables are damaged.

    OSError if the file cannot be read.
    """
    with Image.open(path, formats=FORMATS) as image:
        if image.format not in ('JPEG', 'MPO'):
            return None
        tables, components = image.quantization, image.layer  # (id, h, v, table) each
    used = list(dict.fromkeys(layer[3] for layer in components[:3]))
    if not set(used) <= set(tables) or not all(min(tables[i]) for i in used):
        return None  # damaged: it names tables that it does not hold, or steps of 0
    own = np.concatenate([tables[i] for i in used[:2]])
    known = np.hstack([standard_tables(), standard_tables(chroma=True)])[:, :len(own)]
    misfit = np.square(known - own).sum(axis=1)
    horizontal, vertical = components[0][1:3]
    subsampling = 'gray' if len(components) == 1 else {
        (1, 1): '4:4:4', (2, 1): '4:2:2', (2, 2): '4:2:0'}.get(
            (horizontal, vertical), f'{horizontal}x{vertical}')
    return JpegHeader(int(misfit.argmin()) + 1, bool(misfit.min() == 0), subsampling,
                      tuple(tables[used[0]]))
