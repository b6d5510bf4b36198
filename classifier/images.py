"""Image files and BGR arrays, and the JPEG codec in between.

    image = read_image('photo.png')        # (h, w, 3) uint8 BGR, or an InputError
    coded = compress(image, quality=75)    # after OpenCV's JPEG, decoded again

Pillow reads, because it refuses truncated files (OpenCV fills them up with grey) and knows every
colour mode; OpenCV compresses, as in the paper. Of PNG, OpenCV gives the same pixels and refuses
all that Pillow does, in less time: it decodes what is whole.
"""
import contextlib
import io
import logging
import mimetypes
import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from classifier.environment import quiet
from classifier.errors import InputError

EXTENSIONS = {'.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif',
              '.avif'}
# Pillow tries no other, whatever the name says.
FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'AVIF')
# How files begin that are images under any name. Not TIFF's, as cameras' raw files begin so, too.
_BEGINNINGS = re.compile(rb'\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|.{4}ftypavi[fs]|'
                         rb'BM.{4}\0{4}', re.DOTALL)
_BEGINNING = 12  # bytes that show it
_KINDS = 4       # of skipped files, the commonest, that are named
_MIME_TYPES = mimetypes.MimeTypes()  # by extension; not those that this machine adds
_OPENCV_MODES = ('L', 'RGB', 'RGBA')  # of PNG files that OpenCV decodes, without their alpha
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
MAX_PIXELS = 200_000_000
MAX_JPEG_SIDE = 65_500  # px, libjpeg's limit
_SAMPLING = {'4:2:0': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,  # of chroma
             '4:2:2': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
             '4:4:4': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444}
MIXED = {'4:2:0': 0.7, '4:2:2': 0.1, '4:4:4': 0.15, 'gray': 0.05}  # shares of a mix to train on
CHROMA = ('4:2:0', 'mixed')

# Ends entropy-coded data, unlike stuffed zeros and restart markers (ITU-T T.81, B.1.1).
_JPEG_MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
_SOS, _EOI = 0xDA, 0xD9
_MAX_SCANS = 100  # encoders write about 10; each costs the time of a whole image
_FILLING = 2 * b''.join(b'\x00' + 16 * b'\x5a\xa5' + bytes([0xFF, 0xD0 + i]) for i in range(8))

Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is the limit here
Image.core.set_blocks_max(8)   # of 16 MB, kept for the next image: a PNG is decoded 7 % faster
warnings.filterwarnings('ignore', module='PIL')  # about metadata; errors are raised
logging.getLogger('PIL').addHandler(logging.NullHandler())  # else its errors go to stderr too


def list_images(folder: str | os.PathLike, recursive: bool = False,
                notice: Callable[[str], None] | None = None) -> list[Path]:
    """Paths to try in a folder, sorted: what has an image's extension, or begins as an image.

    Parameters
    ----------
    folder : path-like
    recursive : bool
        Look in its subfolders too. Those that cannot be read are listed as well, so that reading
        them says why; links to folders are not followed.
    notice : callable, optional
        Gets a line of text if files were skipped, with their number and kinds.

    Raises
    ------
    InputError
        There is no such folder, or nothing to try in it.
    OSError
        The folder itself cannot be read.
    """
    if not os.path.isdir(folder):
        raise InputError(f'{folder}: no such folder')
    found, folders, skipped = [], [folder], Counter()
    while folders:  # no recursion, which os.walk is before Python 3.12: folders may be deep
        current = folders.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if recursive and entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    extension = os.path.splitext(entry.name)[1].lower()
                    if extension in EXTENSIONS or _begins_as_image(entry):
                        found.append(entry.path)
                    elif not os.path.isdir(entry.path):
                        skipped[extension or 'without extension'] += 1
        except OSError:
            if current == folder:
                raise
            found.append(current)
    passed_over = _skipped_said(skipped)
    if not found:
        raise InputError(f'{folder}: no images there' + (f'; {passed_over}' if skipped else '')
                         + ('' if recursive else '; for its subfolders too: --recursive'))
    if skipped and notice:
        notice(f'{folder}: {passed_over}')
    return sorted(map(Path, found))


def _begins_as_image(entry):
    """Whether a file of another name is an image; names of texts, films ... are not looked into."""
    kind, _ = _MIME_TYPES.guess_type(entry.name)
    if kind and not kind.startswith('image/') and kind != 'application/octet-stream':
        return False
    try:
        if not entry.is_file():
            return False
        with open(entry.path, 'rb', buffering=0) as file:
            return _BEGINNINGS.match(file.read(_BEGINNING)) is not None
    except OSError:
        return False


def _skipped_said(skipped):
    """'3 files skipped, not images that can be read (2 .heic, 1 .txt)'."""
    number = skipped.total()
    kinds = sorted(skipped.items(), key=lambda kind: (-kind[1], kind[0]))  # whatever their order
    kinds = [f'{count} {name}' for name, count in kinds[:_KINDS]]
    if len(skipped) > _KINDS:
        kinds.append('...')
    return (f'{number} {"file" if number == 1 else "files"} skipped, not '
            f'{"an image" if number == 1 else "images"} that can be read ({", ".join(kinds)})')


def read_image(path: str | os.PathLike, max_pixels: float = MAX_PIXELS,
               notice: Callable[[str], None] | None = None,
               colours: str | None = None) -> np.ndarray:
    """The pixels of an image file as they are stored.

    16 bits become the upper 8; alpha is dropped, not blended; gray, palette and CMYK become
    colour; an EXIF rotation is not applied, for it would turn the coded blocks.

    Parameters
    ----------
    path : path-like
    max_pixels : float
        Larger images are refused, unread.
    notice : callable, optional
        Gets a line of text if the file holds several frames or pages; the first is taken.
    colours : str, optional
        'RGB', 'CMYK' or 'YCCK': what was coded, by the header of a JPEG. Those are no luma and
        chroma; then the pixels are gray, the one plane of G or C or, of YCCK, the luma and chroma.

    Returns
    -------
    uint8 array, shape (h, w, 3)
        BGR pixels.

    Raises
    ------
    InputError
        It is not a whole image; the message begins with the path.
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
                return _to_bgr(_whole_jpeg(file, pixels), colours)
            if image.format == 'PNG':
                return _png_pixels(file, image)
            if image.format == 'TIFF':
                with quiet():  # libtiff writes to stderr
                    image.load()
            return _to_bgr(image, colours)
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
        os.scandir(path).close()  # raises if it must not be read
        raise ValueError('a folder, not an image')
    if not stat.S_ISREG(mode):
        raise ValueError('not a regular file')


def _png_pixels(file, image):
    """BGR pixels of a PNG, whose checksums Pillow looks at only if told to.

    OpenCV decodes faster, but says on stderr what is wrong; where it must not, or finds a fault,
    Pillow decodes, too.
    """
    file.seek(0)
    Image.open(file, formats=['PNG']).verify()
    if image.mode in _OPENCV_MODES and image.get_format_mimetype() == 'image/png':  # no animation
        file.seek(0)
        data = np.frombuffer(file.read(), np.uint8)
        with quiet(wait=False) as silent, contextlib.suppress(cv2.error):
            pixels = cv2.imdecode(data, _AS_STORED) if silent else None
            if pixels is not None:
                return pixels
    file.seek(0)
    return _to_bgr(image)


def _whole_jpeg(file, pixels):
    """The first image of a JPEG file, such that loading it fails if it is not whole.

    libjpeg fills up what is missing in front of the end marker with gray and says nothing. So
    there is other data here in place of that marker. Of a single scan, the decoder must not ask
    for more than that; of several (progressive), it must not use it: the pixels stay the same.
    """
    size, ended = 2 ** 18, False
    while not ended and size <= 2 ** 25 + 64 * pixels:  # what follows the image may be long
        size *= 4
        file.seek(0)
        data = file.read(size)
        end, scans, ended = _jpeg_end(data)
        ended = ended or len(data) < size
    fillings = [bytes(8)] if scans == 1 else [data[end:end + 2], _FILLING + data[end:end + 2]]
    image, *others = (Image.open(io.BytesIO(data[:end] + filling), formats=['JPEG'])
                      for filling in fillings)
    if any(image.tobytes() != other.tobytes() for other in others):
        raise OSError('image file is truncated')
    return image


def _jpeg_end(data):
    """Where a JPEG's first image ends (before its EOI marker), its scans, whether it has an EOI."""
    position = scans = 0
    while found := _JPEG_MARKER.search(data, position + 2):
        position, marker = found.end(), data[found.end() - 1]
        if marker == _EOI:
            return position - 2, scans, True
        scans += marker == _SOS
        if scans > _MAX_SCANS:
            raise ValueError(f'a JPEG of more than {_MAX_SCANS} scans, made to take long; leave '
                             'it out')
        position += int.from_bytes(data[position:position + 2], 'big') - 2
    return len(data), scans, False


def _to_bgr(image, colours=None):
    image.load()
    if colours in ('RGB', 'CMYK') and image.mode == colours:  # planes that were coded by themselves
        values = np.asarray(image)
        plane = values[:, :, 1] if colours == 'RGB' else 255 - values[:, :, 0]  # Pillow inverts C
        return np.repeat(plane[:, :, None], 3, axis=2)
    if colours == 'YCCK' and image.mode == 'CMYK':  # RGB that libjpeg and Pillow both inverted
        return np.ascontiguousarray(np.asarray(image)[:, :, 2::-1])
    if image.mode.startswith('I;16'):
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ('I', 'F'):
        raise ValueError('32-bit pixels have no known range; convert it to 8 or 16 bits')
    return from_pillow(image)


def from_pillow(image: Image.Image) -> np.ndarray:
    """A Pillow image of 8 bits as BGR pixels, uint8 (h, w, 3)."""
    if image.mode != 'RGB':
        image = image.convert('RGB')
    return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)


def to_pillow(image: np.ndarray) -> Image.Image:
    """BGR pixels, uint8 (h, w, 3), as a Pillow image."""
    return Image.fromarray(image[:, :, ::-1])


def compress(image: np.ndarray, quality: int, chroma: str = '4:2:0') -> np.ndarray:
    """The image after OpenCV's JPEG, decoded again.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, as the result is.
    quality : int
        1..100, on libjpeg's scale.
    chroma : {'4:2:0', '4:2:2', '4:4:4', 'gray'}
        Subsampling; 'gray' for a JPEG of luma alone.

    Raises
    ------
    InputError
        The image is larger than a JPEG may be.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if chroma == 'gray':
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    else:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING[chroma]]
    ok, data = cv2.imencode('.jpg', image, options)
    if not ok:
        raise InputError(f'JPEG cannot hold an image of {image.shape[1]}x{image.shape[0]}')
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def draw_chroma(chroma: str, rng: np.random.Generator) -> str:
    """A subsampling for `compress`: of 'mixed' one of MIXED, at random; any other is kept."""
    return str(rng.choice(list(MIXED), p=list(MIXED.values()))) if chroma == 'mixed' else chroma
