"""How many images give back their JPEG file, and what of the others comes back."""
import argparse
import io
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from classifier.errors import InputError
from classifier.images import from_pillow, to_pillow
from classifier.recovery.recover import recover
from classifier.studies.common import every_photo, print_table

QUALITIES = (30, 50, 75, 85, 90, 95)
ALL = list(range(1, 101))
KINDS = {'gray': None, '4:4:4': (0, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
         '4:2:2': (1, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
         '4:2:0': (2, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)}


def _by_pillow(image, quality, kind):
    """Pillow's JPEG of an image, decoded by Pillow."""
    data = io.BytesIO()
    how = {} if kind == 'gray' else {'subsampling': KINDS[kind][0]}
    to_pillow(image).convert('L' if kind == 'gray' else 'RGB').save(data, 'JPEG', quality=quality,
                                                                   **how)
    with Image.open(data) as coded:
        return from_pillow(coded)


def _by_opencv(image, quality, kind):
    """OpenCV's JPEG of an image, decoded by OpenCV."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if kind == 'gray':
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    else:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, KINDS[kind][1]]
    return cv2.imdecode(cv2.imencode('.jpg', image, options)[1], cv2.IMREAD_COLOR)


CODERS = {'Pillow': _by_pillow, 'OpenCV': _by_opencv}


def _cases(crops, qualities):
    """A function that yields (crop, kind, quality) and what became of a photo coded so."""
    def cases(image, index):
        for kind in KINDS:
            for quality in qualities:
                for name, coder in CODERS.items():
                    coded = coder(image, quality, kind)
                    for dy, dx in crops:
                        part = np.ascontiguousarray(coded[dy:, dx:])
                        yield (f'{dy},{dx}', kind, quality), _outcome(part)
                    if kind == 'gray':
                        break  # of one plane, both coders make the same
    return cases


def _outcome(image):
    """Whole?, shares of pixels and blocks that come back, size against PNG, seconds."""
    began = time.perf_counter()
    try:
        found = recover(image)
    except InputError:
        return False, 0.0, 0.0, np.nan, time.perf_counter() - began
    seconds = time.perf_counter() - began
    difference, (height, width) = found.difference, image.shape[:2]
    png = len(cv2.imencode('.png', image)[1])
    return (difference.is_none, 1 - difference.pixels / (height * width),
            1 - difference.blocks / difference.of_blocks, len(found.data) / png, seconds)


def recovery(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how many images give back their whole JPEG file (--qualities, --crop)"""
    qualities = QUALITIES if args.qualities == ALL else args.qualities
    rows = {}
    for key, outcomes in every_photo(_cases(args.crop, qualities), paths).items():
        whole, pixels, blocks, size, seconds = np.array(outcomes, float).T
        rows[f'{key[0]} {key[1]} {key[2]}'] = {
            'cases': len(outcomes), 'whole': whole.mean(), 'pixels': pixels.mean(),
            'blocks': blocks.mean(), 'seconds': seconds.mean(), 'slowest': seconds.max(),
            'size': float(np.nanmean(size)) if np.isfinite(size).any() else None}
    print_table('crop, kind, quality  cases  whole, %  pixels, %  blocks, %  of the PNG, %  '
                'seconds, most', rows,
                '{name:20} {cases:5} {percent[whole]:9.1f} {percent[pixels]:10.3f} '
                '{percent[blocks]:10.3f} {percent[size]:14.1f} {seconds:8.2f} {slowest:5.1f}')
    return {'images': len(paths)} | rows
