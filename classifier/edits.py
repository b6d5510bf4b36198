"""What happens to pixels after a JPEG was decoded: resizing, filters, other codecs, and the like.

    image, done = edited(image, rng, 24)         # as drawn for training: none, one or several
    image = apply('noise', image, rng)           # one kind, of a strength that is drawn

Whole images are edited, with the tools that people use: OpenCV's and Pillow's.
"""
import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from classifier.errors import InputError
from classifier.images import from_pillow, to_pillow

UNEDITED = 'unedited'
EDITED_SHARE = 0.6                # of the images that `edited` draws
NUMBERS = {1: 0.6, 2: 0.3, 3: 0.1}  # of edits of an edited image, and their shares
# What strengths are drawn from; device_edits.py draws from the same.
BLUR_SIGMAS, SHARPENING = (0.4, 1.4), (0.3, 1.5)  # px; times what a blur takes away
CONTRASTS, BRIGHTNESS = (0.7, 1.4), (-25, 25)     # times, and plus, gray levels
GAMMAS, SATURATIONS, NOISE = (0.6, 1.6), (0.3, 1.6), (0.5, 3.5)  # noise: sigma, gray levels
GRAY_WEIGHTS = 0.114, 0.587, 0.299                # of blue, green and red
COMMON_SCALES = 0.5, 2 / 3, 0.75, 0.8, 1.5, 2
_CV_KERNELS = cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_AREA
_PILLOW_KERNELS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.HAMMING,
                   Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def rounded(values: np.ndarray) -> np.ndarray:
    """Pixels of any numbers, in gray levels, as uint8."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def resize(image: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """The image resized with one of nine kernels of OpenCV and Pillow, drawn.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, as the result is.
    scale : float
        Of both sides; sides of the result are at least 1 px.
    rng : np.random.Generator
    """
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    kernel = rng.integers(len(_CV_KERNELS) + len(_PILLOW_KERNELS) + 1)
    if kernel < len(_CV_KERNELS):
        return cv2.resize(image, (width, height), interpolation=_CV_KERNELS[kernel])
    # Browsers, photo managers and web sites reduce with an antialiased kernel: twice Pillow's last.
    kernel = min(kernel - len(_CV_KERNELS), len(_PILLOW_KERNELS) - 1)
    return from_pillow(to_pillow(image).resize((width, height), _PILLOW_KERNELS[kernel]))


def _scaled(lowest, highest):
    """A resizing by a factor of that range: a common one, if there is one in it, half the time."""
    common = [scale for scale in COMMON_SCALES if lowest <= scale <= highest]

    def resized(image, rng):
        scale = np.exp(rng.uniform(np.log(lowest), np.log(highest)))
        if common and rng.random() < 0.5:
            scale = rng.choice(common)
        return resize(image, scale, rng)
    return resized


def _blurred(image, rng):
    sigma = rng.uniform(*BLUR_SIGMAS)
    if rng.random() < 0.2:
        return cv2.medianBlur(image, 3)
    return cv2.GaussianBlur(image, (0, 0), sigma)


def _sharpened(image, rng):
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2)).astype(np.float32)
    return rounded(image + rng.uniform(*SHARPENING) * (image - soft))


def _recoloured(image, rng):
    """Two of contrast, brightness, gamma, saturation and a change to gray."""
    values = image.astype(np.float32)
    for change in rng.permutation(5)[:2]:
        if change == 0:
            values = (values - 128) * rng.uniform(*CONTRASTS) + 128
        elif change == 1:
            values = values + rng.uniform(*BRIGHTNESS)
        elif change == 2:
            values = 255 * (np.clip(values, 0, 255) / 255) ** rng.uniform(*GAMMAS)
        else:
            gray = values @ np.float32(GRAY_WEIGHTS)[:, None]
            values = gray + (rng.uniform(*SATURATIONS) if change == 3 else 0) * (values - gray)
    return rounded(values)


def _noisy(image, rng):
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(*NOISE))
    return rounded(image + (noise if rng.random() < 0.7 else noise[:, :, :1]))


def _turned(image, rng):
    return np.ascontiguousarray(np.rot90(image, rng.choice([1, 3])))


def _coded(image, rng):
    """WebP or, seldom, for it takes long, AVIF."""
    quality = int(rng.integers(75, 96))
    name, options = ('AVIF', {'speed': 10}) if rng.random() < 0.2 else ('WEBP', {'method': 2})
    data = io.BytesIO()
    try:
        to_pillow(image).save(data, name, quality=quality, **options)
    except (KeyError, OSError):  # this Pillow was built without it
        return image
    return from_pillow(Image.open(data))


def _palette(image, rng):
    dither = Image.Dither.FLOYDSTEINBERG if rng.random() < 0.5 else Image.Dither.NONE
    # The other method is Pillow's default and takes a hundred times as long.
    method = Image.Quantize.FASTOCTREE if rng.random() < 0.75 else Image.Quantize.MEDIANCUT
    adaptive = to_pillow(image).quantize(256, method)
    return from_pillow(to_pillow(image).quantize(palette=adaptive, dither=dither))


def _enlarged_whole(image, rng):
    """Each pixel a square of 2 or 3."""
    factor = 2 if rng.random() < 0.8 else 3
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


# In the order in which several are made.
KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    'reduced far': _scaled(0.2, 0.45),
    'reduced to a half': _scaled(0.45, 0.6),
    'reduced to two thirds': _scaled(0.6, 0.72),
    'reduced a little': _scaled(0.72, 0.97),
    'enlarged a little': _scaled(1.03, 1.45),
    'enlarged': _scaled(1.45, 3),
    'pixels repeated': _enlarged_whole,
    'blurred': _blurred,
    'sharpened': _sharpened,
    'recoloured': _recoloured,
    'noise': _noisy,
    'turned': _turned,
    'palette': _palette,
    'WebP or AVIF': _coded,
}
SEVERAL = 'several edits'
EVERY_KIND = UNEDITED, *KINDS, SEVERAL
# How often each is drawn for training: what is common and hard more often.
_WEIGHTS = np.array([0.8, 3, 3, 4, 2, 3, 1, 2, 2, 3, 2.5, 2, 1, 2])
_RESIZES = 7  # of the first kinds one at most is made of an image


def apply(kind: str, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image after one edit of that kind; SEVERAL draws two or three, UNEDITED makes none.

    Parameters
    ----------
    kind : str
        One of KINDS, UNEDITED or SEVERAL.
    image : uint8 array, shape (h, w, 3)
        BGR pixels, as the result is.
    rng : np.random.Generator
        Draws the tool and its strength.

    Raises
    ------
    InputError
        There is no such kind.
    """
    if kind == UNEDITED:
        return image
    if kind == SEVERAL:
        return _all_of(_drawn(int(rng.integers(2, 4)), rng), image, rng)
    if kind not in KINDS:
        raise InputError(f'unknown edit {kind!r}: choose one of {", ".join(KINDS)}')
    return KINDS[kind](image, rng)


def edited(image: np.ndarray, rng: np.random.Generator, side: int) -> tuple[np.ndarray, bool]:
    """The image after the edits that are drawn for training.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, as the result is.
    rng : np.random.Generator
    side : int
        An image that would be smaller than this afterwards, in px, stays as it is.

    Returns
    -------
    image : uint8 array, shape (h, w, 3)
    done : bool
        Whether it was edited.
    """
    if rng.random() >= EDITED_SHARE:
        return image, False
    number = int(rng.choice(list(NUMBERS), p=list(NUMBERS.values())))
    changed = _all_of(_drawn(number, rng), image, rng)
    return (image, False) if min(changed.shape[:2]) < side else (changed, True)


def _drawn(number, rng):
    """Different kinds in the order in which they are made, at most one of them a resizing."""
    kinds = rng.choice(len(KINDS), len(KINDS), replace=False, p=_WEIGHTS / _WEIGHTS.sum())
    resizes = [kind for kind in kinds if kind < _RESIZES]
    kept = [kind for kind in kinds if kind >= _RESIZES or kind == resizes[0]]
    return [list(KINDS)[kind] for kind in sorted(kept[:number])]


def _all_of(kinds, image, rng):
    for kind in kinds:
        image = KINDS[kind](image, rng)
    return image
