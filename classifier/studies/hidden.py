"""How often a lattice is found that an image as it is does not show: of a part, under new tones,
under the noise of other decoders."""
import argparse
import importlib.util
from pathlib import Path

import cv2
import numpy as np

from classifier.edits import rounded
from classifier.errors import InputError
from classifier.forensics.lattice import Lattice
from classifier.forensics.search import find_lattice
from classifier.images import compress
from classifier.recovery.decoders import DECODERS
from classifier.studies.common import (
    every_photo, outcome, pillow_file, print_shares, print_table)
from classifier.studies.edits import DRAWN

INSIDE_QUALITIES = (30, 60, 75, 85, 90, 95)
TONE_QUALITIES = (30, 60, 75, 90, 95)
NOISES = (0.5, 1.0, 2.0)  # gray levels
SIDES = (96, 192, 384)    # px, of the JPEG inside
CANVAS = 640              # px, of the picture around it


def _around(kind, index):
    """The larger picture, never compressed: drawn text or windows, or plain borders."""
    rng = np.random.default_rng(index)
    if kind == 'borders':
        return np.full((CANVAS, CANVAS, 3), rng.integers(0, 256, 3), np.uint8)
    return DRAWN[kind]((CANVAS, CANVAS, 3), rng)


def _inside_cases(image, index):
    """Yields (title of a row, (outcome, distance of the farthest edge in px))."""
    rng = np.random.default_rng(index)
    for side in SIDES:
        height, width = (min(side, length) for length in image.shape[:2])
        top, left = (int(rng.integers(length - part + 1))
                     for length, part in zip(image.shape, (height, width)))
        part = image[top:top + height, left:left + width]
        for kind in ('borders', 'text', 'windows'):
            for quality in INSIDE_QUALITIES:
                whole = _around(kind, index)
                y, x = (int(rng.integers(CANVAS - length + 1)) for length in (height, width))
                whole[y:y + height, x:x + width] = compress(part, quality)
                found = find_lattice(whole)
                off = _farthest_edge(found, (x, y, x + width, y + height))
                yield f'{side} px in {kind}', (outcome(found.quality, quality, found.qualities),
                                               off)
    for kind in ('borders', 'text', 'windows'):
        whole = _around(kind, index)
        whole[:side, :side] = image[:side, :side]
        yield 'never a JPEG', (outcome(find_lattice(whole).quality, None), None)


def _farthest_edge(found: Lattice, edges):
    if found.region_x is None:
        return None
    right, bottom = found.region_x + found.region_width, found.region_y + found.region_height
    told = found.region_x, found.region_y, right, bottom
    return max(abs(a - b) for a, b in zip(told, edges))


def inside(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how often a JPEG inside a larger picture is found, and where"""
    found = every_photo(_inside_cases, paths)
    rows = print_shares('JPEG inside', {name: [o for o, _ in cases]
                                        for name, cases in found.items()})
    for name, cases in found.items():
        off = [far for _, far in cases if far is not None]
        rows[name] |= {'placed': len(off) / len(cases),
                       'edge_within_8': float(np.mean(np.array(off) <= 8)) if off else None}
    print_table('JPEG inside                its place given  of these within 8 px', rows,
                '{name:24} {percent[placed]:14.1f} % {percent[edge_within_8]:20.1f} %')
    return {'images': len(paths)} | rows


def _curve(power):
    return lambda levels: 255 * (levels / 255) ** power


TONES = {  # from levels, float, to levels
    'brighter by 20': lambda levels: levels + 20,
    'darker by 20': lambda levels: levels - 20,
    'inverted': lambda levels: 255 - levels,
    'contrast 0.9': lambda levels: 128 + 0.9 * (levels - 128),
    'contrast 1.05': lambda levels: 128 + 1.05 * (levels - 128),
    'contrast 1.2': lambda levels: 128 + 1.2 * (levels - 128),
    'contrast 1.5': lambda levels: 128 + 1.5 * (levels - 128),
    'inverted, contrast 1.2': lambda levels: 128 - 1.2 * (levels - 128),
    'stretched, 10 to 220': lambda levels: (levels - 10) * (255 / 210),
    'gamma 0.6': _curve(0.6),
    'gamma 0.8': _curve(0.8),
    'gamma 1.25': _curve(1.25),
    'S-curve': lambda levels: 255 / (1 + np.exp((128 - levels) / 40)),
}


def _tone_cases(image, index):
    """Yields (change of tones, outcome); also of the photo that was never compressed."""
    for name, change in TONES.items():
        levels = rounded(change(np.arange(256.0)))
        for quality in TONE_QUALITIES:
            found = find_lattice(cv2.LUT(compress(image, quality), levels))
            yield name, outcome(found.quality, quality, found.qualities)
        yield 'never a JPEG', outcome(find_lattice(cv2.LUT(image, levels)).quality, None)


def tones(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how often the exact quality is found after a change of brightness, contrast or gamma"""
    return {'images': len(paths)} | print_shares('tones', every_photo(_tone_cases, paths))


def _noise_cases(image, index):
    """Yields (what made the noise, outcome), cropped off the block grid."""
    rng = np.random.default_rng(index)
    others = [decoder for decoder in DECODERS
              if decoder.dct != 'accurate' and decoder.upsampling == 'fancy']

    def under(picture, sigma):
        return rounded(picture + rng.normal(0, sigma, picture.shape))

    for quality in INSIDE_QUALITIES:
        coded = pillow_file(image, quality)
        found = {decoder.name: decoder.pixels(coded) for decoder in others}
        decoded = compress(image, quality)
        found |= {f'noise of {sigma}': under(decoded, sigma) for sigma in NOISES}
        for name, picture in found.items():
            dy, dx = rng.integers(0, 8, 2)
            told = find_lattice(np.ascontiguousarray(picture[dy:, dx:]))
            yield name, outcome(told.quality, quality, told.qualities)
    for sigma in 0, *NOISES:
        yield 'never a JPEG', outcome(find_lattice(under(image, sigma)).quality, None)


def noise(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how often the quality is found of other decoders' pixels, and under a little noise"""
    if importlib.util.find_spec('jpeglib') is None:
        raise InputError('the study noise needs the package jpeglib, which is not there: python3 '
                         '-m pip install jpeglib==1.0.2 (it has no wheel for Linux on arm64)')
    return {'images': len(paths)} | print_shares('noise', every_photo(_noise_cases, paths))
