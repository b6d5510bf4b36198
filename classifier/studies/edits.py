"""Whether the lattice abstains on edited images, and on images that were never compressed."""
import argparse
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from classifier.edits import rounded
from classifier.forensics.lattice import find_quality
from classifier.images import compress
from classifier.studies.common import every_photo, outcome, print_shares

EDITED_QUALITIES = (30, 60, 90)   # of the compression before the edit
SIDES = {'whole images': None, '64 px crops': 64}


def _resized(image, rng, scales, interpolations):
    scale = rng.choice(scales)
    return cv2.resize(image, None, fx=scale, fy=scale,
                      interpolation=int(rng.choice(interpolations)))


def _sharpened(image, rng):
    amount = rng.choice([0.2, 0.5, 1.0])
    return cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), 1), -amount, 0)


def _saturation(image, rng):
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 1] = rounded(hsv[..., 1] * rng.choice([0.5, 0.9, 1.1, 1.5]))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _rotated(image, rng):
    height, width = image.shape[:2]
    angle = rng.choice([-1, 1]) * rng.uniform(0.5, 5)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    return cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)


EDITS = {  # from an image and a random generator to pixels that may have to be rounded
    'enlarged': partial(_resized, scales=[1.05, 1.25, 1.5], interpolations=[1, 2, 4]),
    'reduced': partial(_resized, scales=[0.5, 0.75, 0.9], interpolations=[1, 2, 3]),
    'blurred': lambda image, rng: cv2.GaussianBlur(image, (0, 0), rng.choice([0.5, 0.8, 1.5])),
    'sharpened': _sharpened,
    'denoised': lambda image, rng: (cv2.medianBlur(image, 3) if rng.random() < 0.5 else
                                    cv2.bilateralFilter(image, 5, 20, 3)),
    'noise': lambda image, rng: image + rng.normal(0, rng.choice([0.5, 1, 3]), image.shape),
    'brightness': lambda image, rng: image.astype(int) + rng.choice([-1, 1]) * rng.integers(1, 31),
    'contrast': lambda image, rng: 128 + (image - 128.0) * rng.choice([0.8, 0.95, 1.05, 1.2]),
    'gamma': lambda image, rng: 255 * (image / 255) ** rng.choice([0.8, 0.95, 1.05, 1.25]),
    'saturation': _saturation,
    'colour shift': lambda image, rng: image + rng.integers(-10, 11, 3),
    'rotated': _rotated}


def edit(name: str, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image after one of the EDITS, uint8 as it is."""
    edited = EDITS[name](image, rng)
    return edited if edited.dtype == np.uint8 else rounded(edited)


def _text(shape, rng):
    """Lines of text on a plain ground, as on a screen."""
    image = np.full(shape, rng.integers(200, 256), np.uint8)
    for y in range(16, shape[0], int(rng.integers(14, 24))):
        words = ''.join(map(chr, rng.integers(97, 123, shape[1] // 8)))
        cv2.putText(image, words, (8, y), int(rng.integers(0, 8)), rng.uniform(0.3, 0.7),
                    rng.integers(0, 150, 3).tolist(), 1,
                    cv2.LINE_AA if rng.random() < 0.7 else cv2.LINE_8)
    return image


def _windows(shape, rng):
    """Plain rectangles and discs on one another, half of them on the block grid."""
    image = np.full(shape, rng.integers(1, 255, 3), np.uint8)
    for _ in range(60):
        y, x = rng.integers(0, shape[:2])
        h, w = rng.integers(8, 160, 2)
        colour = rng.integers(0, 8, 3) * 32 if rng.random() < 0.5 else rng.integers(1, 255, 3)
        if rng.random() < 0.5:
            y, x, h, w = (v // 8 * 8 for v in (y, x, h, w))
        if rng.random() < 0.3:
            cv2.circle(image, (int(x), int(y)), int(h) // 2, colour.tolist(), -1, cv2.LINE_AA)
        else:
            image[y:y + h, x:x + w] = colour
    return image


def _gradient(shape, rng):
    """A linear ramp of colour."""
    y, x = np.mgrid[:shape[0], :shape[1]] - np.array(shape[:2])[:, None, None] / 2
    slope = rng.uniform(-0.3, 0.3, (2, 3))
    ramp = rng.uniform(40, 215, 3) + y[..., None] * slope[0] + x[..., None] * slope[1]
    return rounded(ramp)


DRAWN = {'text': _text, 'windows': _windows, 'gradient': _gradient}


def _cases(image, index):
    """Yields ((size, kind), outcome) for one photo, edited and not, and for drawn images.

    A pristine or drawn image was never compressed: any answer is wrong.
    """
    rng = np.random.default_rng(index)

    def looks(kind, picture, quality):
        for size, side in SIDES.items():
            y, x = (int(rng.integers(0, max(1, n - side + 1))) if side else 0
                    for n in picture.shape[:2])
            found = find_quality(picture[y:, x:][:side, :side])
            yield (size, kind), outcome(found.quality, quality, found.qualities)

    for quality in EDITED_QUALITIES:
        coded = compress(image, quality)
        for name in EDITS:
            yield from looks(name, edit(name, coded, rng), quality)
    yield from looks('pristine', image, None)
    for name, draw in DRAWN.items():
        yield from looks(f'drawn: {name}', draw(image.shape, rng), None)


def edited(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how often the lattice abstains on images edited after compression, or never compressed"""
    found = every_photo(_cases, paths)
    results = {'images': len(paths)}
    for size in SIDES:
        results[size] = print_shares(size, {kind: outcomes for (of_size, kind), outcomes
                                            in found.items() if of_size == size})
    return results | print_shares('', {'all': sum(found.values(), [])})
