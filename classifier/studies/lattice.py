"""What the lattice reads: the quality of small crops, other encoders' tables, the chroma."""
import argparse
import json
from pathlib import Path

import numpy as np
from PIL import JpegPresets

from classifier.forensics.blocks import get_blocks
from classifier.forensics.lattice import estimate_table, find_quality
from classifier.forensics.tables import nearest_quality, scale_table
from classifier.images import compress
from classifier.studies.common import (
    every_photo, outcome, pillow_jpeg, print_shares, print_table, shares)

SMALL_SIDES = (64, 128, 256)
SMALL_KINDS = ('', ', on the grid', ', off the grid', ', textured')
TEXTURED = 16             # luma blocks that are not flat, of 49 to 64 in a 64 px crop
OTHER_TABLES = Path(__file__).with_name('other_tables.json')
TABLE_QUALITIES = (30, 60, 85)    # at which those are used, by libjpeg's scaling
CHROMA_QUALITIES = (10, 30, 60, 75, 90)
CHROMA_CROPS = ((0, 0), (3, 5))
SUBSAMPLINGS = {'4:4:4': {'subsampling': 0}, '4:2:2': {'subsampling': 1},
                '4:2:0': {'subsampling': 2}, 'gray': {'mode': 'L'}}


def _small_cases(image, index):
    """Yields (side and kind, (outcome, exact)) of random crops."""
    rng = np.random.default_rng(index)
    for quality in range(5, 100, 10):
        coded = compress(image, quality)
        for side in SMALL_SIDES:
            for aligned in (True, False):
                y, x = (int(rng.integers(0, n - side + 1)) for n in image.shape[:2])
                y, x = (y // 8 * 8, x // 8 * 8) if aligned else (y, x)
                crop = coded[y:y + side, x:x + side]
                found = find_quality(crop)
                textured = len(get_blocks(crop, -y % 8, -x % 8).luma) >= TEXTURED
                for kind, is_kind in zip(SMALL_KINDS, (True, aligned, not aligned, textured)):
                    if is_kind:
                        yield f'{side}{kind}', (outcome(found.quality, quality, found.qualities),
                                                found.quality == quality)


def small(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how often --refine is exact on small crops, on and off the block grid"""
    found, rows = every_photo(_small_cases, paths), {}
    names = [f'{side}{kind}' for side in SMALL_SIDES for kind in SMALL_KINDS]
    for name in filter(found.get, names):
        outcomes, exact = zip(*found[name])
        rows[name] = shares(outcomes) | {'exact': float(np.mean(exact))}
    print_table('side, px               cases   exact  abstained    right   wrong     (all in %)',
                rows, '{name:20} {cases:7} {percent[exact]:7.2f} {percent[abstained]:10.2f} '
                '{percent[right]:8.2f} {percent[wrong]:7.2f}')
    return {'images': len(paths)} | rows


def other_tables() -> list[tuple[str, np.ndarray]]:
    """Luma tables that are not libjpeg's own: a list of (set, (64,) int), row by row.

    The last set are Photoshop's, which Pillow holds (JpegPresets).
    """
    sets = json.loads(OTHER_TABLES.read_text())['tables']
    return [(name, scale_table(np.ravel(table), quality))
            for name, table in sets.items() for quality in TABLE_QUALITIES] + [
        ('Photoshop', np.array(preset['quantization'][0]))
        for preset in JpegPresets.presets.values()]


def _table_cases(image, index):
    """Yields a set's name and what was read of one of its tables in a photo's pixels.

    That is: steps read, steps read rightly, whether the table is said not to be a standard one,
    the distance of the quality said from the nearest one, whether it is taken for a standard one.
    """
    for name, table in other_tables():
        coded = pillow_jpeg(image, qtables=[table.tolist()] * 2)
        estimate = estimate_table(coded)
        steps = estimate.steps.ravel()
        nearest, _ = nearest_quality(table)
        known = estimate.quality is not None
        yield name, ((steps > 0).sum(), (steps == table)[steps > 0].sum(),
                     known and not estimate.standard,
                     abs(estimate.quality - nearest) if known else np.nan,
                     find_quality(coded).quality is not None)


def tables(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how well other encoders' luma tables are read from pixels"""
    rows = {}
    for name, cases in every_photo(_table_cases, paths).items():
        read, right, other, distance, taken = np.array(cases, float).T
        off = distance[distance >= 0]
        rows[name] = {'cases': len(cases), 'read': read.mean() / 64,
                      'right': right.sum() / max(1, read.sum()), 'not_standard': other.mean(),
                      'taken_for_standard': taken.mean(),
                      'distance': off.mean() if off.size else None}
    print_table('set         cases  steps read, %  of them right, %  said not standard, %  '
                'nearest quality off by  taken for standard, %', rows,
                '{name:11} {cases:5} {percent[read]:14.1f} {percent[right]:17.2f} '
                '{percent[not_standard]:21.1f} {distance:23.1f} '
                '{percent[taken_for_standard]:22.2f}')
    return {'images': len(paths)} | rows


def _chroma_cases(image, index):
    """Yields ((title, subsampling), outcome) for one photo.

    Of a photo without colour, only 'gray': however it was coded, its pixels say no more.
    """
    gray = (image == image[..., :1]).all()
    for name, options in SUBSAMPLINGS.items():
        if gray and name != 'gray':
            continue
        for quality in CHROMA_QUALITIES:
            coded = pillow_jpeg(image, quality, **options)
            for dy, dx in CHROMA_CROPS:
                found = find_quality(coded[dy:, dx:])
                yield ('subsampling', name), outcome(found.subsampling, name)
                if name != 'gray':  # which has none
                    yield ('chroma quality', name), outcome(found.chroma_quality, quality)


def subsampling(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how often --refine finds the chroma subsampling and the chroma table's quality"""
    found = every_photo(_chroma_cases, paths)
    return {'images': len(paths)} | {
        title: print_shares(title, {name: found[title, name] for name in SUBSAMPLINGS
                                    if (title, name) in found})
        for title in ('subsampling', 'chroma quality')}
