"""What people have as an image, as BGR pixels: arrays of either order, gray, alpha; PIL images."""
from typing import Any

import numpy as np
from PIL import Image

from classifier.errors import InputError
from classifier.images import from_pillow

ORDERS = ('bgr', 'rgb')
EIGHT_BITS = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr')  # Pillow's modes


def as_bgr(image: Any, order: str = 'bgr') -> np.ndarray:
    """The pixels of an image that is in memory.

    Parameters
    ----------
    image : PIL.Image.Image or uint8 array, shape (h, w, 3), (h, w, 4), (h, w, 1) or (h, w)
        Alpha is dropped, not blended; gray becomes colour.
    order : {'bgr', 'rgb'}
        Of an array's channels; a PIL image has its own.

    Returns
    -------
    uint8 array, shape (h, w, 3)
        BGR pixels, the image itself where it is that already.

    Raises
    ------
    InputError
        It is something else, such as an array of another type; the message says what to do.
    """
    if order not in ORDERS:
        raise InputError(f'order {order!r}: choose one of {", ".join(ORDERS)}')
    if isinstance(image, Image.Image):
        if image.mode not in EIGHT_BITS:
            raise InputError(f'a PIL image of mode {image.mode} has no 8-bit pixels; convert it to '
                             'RGB or L')
        try:
            return from_pillow(image)
        except (OSError, ValueError, SyntaxError) as error:  # it is decoded only now
            raise InputError(f'a PIL image that cannot be decoded ({error})') from None
    if not isinstance(image, np.ndarray):
        raise InputError(f'an image must be a path, a PIL image or a uint8 array, not a '
                         f'{type(image).__name__}')
    if image.dtype != np.uint8:
        raise InputError(f'an image must be a uint8 array with values 0 to 255, not a '
                         f'{image.dtype} array{_instead(image)}')
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise InputError('an image must be an array of shape (height, width), (height, width, 3) '
                         f'or (height, width, 4), not {image.shape}')
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3] if order == 'bgr' else image[:, :, 2::-1])


def _instead(image):
    """What to do with an array that is not uint8."""
    if image.dtype == bool or not image.size or not np.issubdtype(image.dtype, np.number):
        return ''
    low, high = image.min(), image.max()
    said = f', with values from {low:g} to {high:g}' if np.isrealobj(image) else ''
    if np.issubdtype(image.dtype, np.floating):
        if 0 <= low and high <= 1:
            return f'{said}; pass (255 * image).round().astype(numpy.uint8)'
        if 0 <= low and high <= 255:
            return f'{said}; pass image.round().astype(numpy.uint8)'
    elif np.issubdtype(image.dtype, np.integer):
        if 0 <= low and high <= 255:
            return f'{said}; pass image.astype(numpy.uint8)'
        if image.dtype == np.uint16:
            return f'{said}; of 16 bits, pass the upper 8, (image >> 8).astype(numpy.uint8)'
    return said
