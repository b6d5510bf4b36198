"""What an image file says beside its pixels, as segments of a JPEG file; what JPEG cannot hold.

Sources: Exif 2.3 and Adobe's XMP specification, part 3 (APP1); ICC.1:2010, annex B.4 (APP2).
"""
from pathlib import Path

from PIL import Image

from classifier.environment import quiet
from classifier.errors import InputError

EXIF, XMP, ICC = b'Exif\0\0', b'http://ns.adobe.com/xap/1.0/\0', b'ICC_PROFILE\0'
APP1, APP2 = 0xE1, 0xE2
MOST = 65_533             # bytes that a segment holds
# Of a TIFF file, what is not about how its pixels are stored: description, make, model,
# orientation, resolution, software, date, artist, copyright, Exif, GPS.
TIFF_TAGS = (270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853)


def segments(path: Path) -> tuple[list[tuple[int, bytes]], list[str]]:
    """EXIF, XMP and ICC profile of an image file.

    Returns
    -------
    list of (int, bytes)
        Markers and what follows their lengths.
    list of str
        Names of those that are too large for a JPEG file and are left out.

    Raises
    ------
    InputError
        It is a JPEG file, or has what JPEG of 8 bits cannot hold: transparency, deeper pixels,
        several images.
    """
    with Image.open(path) as image:
        _refuse_what_jpeg_cannot_hold(image)
        with quiet():
            # Of a PNG, what follows the pixels; TIFF is turned as its orientation says, which goes.
            image.load()
        exif = _exif(image)
        xmp = image.info.get('xmp') or image.info.get('XML:com.adobe.xmp') or b''
        profile = image.info.get('icc_profile') or b''
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    found, left_out = [], []
    for name, start, data in (('EXIF', EXIF, exif), ('XMP', XMP, xmp)):
        if data and len(start + data) > MOST:
            left_out.append(name)
        elif data:
            found.append((APP1, start + data))
    size = MOST - len(ICC) - 2
    parts = [profile[i:i + size] for i in range(0, len(profile), size)]
    if len(parts) > 255:
        left_out.append('ICC profile')
    else:
        found += [(APP2, ICC + bytes([number, len(parts)]) + part)
                  for number, part in enumerate(parts, start=1)]
    return found, left_out


def _exif(image):
    """EXIF data without its header; b'' for none."""
    if image.format == 'TIFF':
        exif = image.getexif()
        for tag in set(exif) - set(TIFF_TAGS):
            del exif[tag]
        return exif.tobytes().removeprefix(EXIF) if exif else b''
    return (image.info.get('exif') or b'').removeprefix(EXIF)


def _refuse_what_jpeg_cannot_hold(image):
    if image.format in ('JPEG', 'MPO'):
        raise InputError('is a JPEG file itself; name an image of decoded pixels, such as a PNG')
    if getattr(image, 'n_frames', 1) > 1:
        raise InputError('holds several images, and a JPEG file one; save the one you mean')
    modes = (tile.args if isinstance(tile.args, str) else str(tile.args and tile.args[0])
             for tile in image.tile)
    deep = any('16' in mode for mode in modes)
    if deep or image.mode not in ('L', 'LA', 'P', 'RGB', 'RGBA'):
        raise InputError('its pixels are not gray or colour of 8 bits, as those of JPEG are')
    if image.mode in ('LA', 'RGBA') or 'transparency' in image.info:
        if image.convert('RGBA').getchannel('A').getextrema()[0] < 255:
            raise InputError('has transparency, which JPEG cannot hold')
