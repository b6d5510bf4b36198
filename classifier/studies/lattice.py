"""What the lattice reads: the quality of small crops, other encoders' tables, the chroma."""
import json
from pathlib import Path

import numpy as np
from PIL import JpegPresets

from classifier.forensics.blocks import get_blocks
from classifier.forensics.lattice import estimate_table, find_quality
from classifier.forensics.tables import scale_table, standard_tables
from classifier.images import compress
from classifier.studies.common import every_photo, outcome, pillow_jpeg, print_shares, shares

SMALL_SIDES = (64, 128, 256)
TEXTURED = 16             # luma blocks that are not flat, of 49 to 64 in a 64 px crop
OTHER_TABLES = Path(__file__).with_name('other_tables.json')
TABLE_QUALITIES = (30, 60, 85)    # at which those are used, by libjpeg's scaling
CHROMA_QUALITIES = (10, 30, 60, 75, 90)
CHROMA_CROPS = ((0, 0), (3, 5))
SUBSAMPLINGS = {'4:4:4': {'subsampling': 0}, '4:2:2': {'subsampling': 1},
                '4:2:0': {'subsampling': 2}, 'gray': {'mode': 'L'}}


# ---------------------------------------------------------------- --small

def _small_cases(image, index):
    """Yields (side, whether on the grid, textured, outcome, exact) of random crops."""
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
                yield side, aligned, textured, outcome(found, quality), found.quality == quality


def small(args, paths):
    """how often --refine is exact on small crops, on and off the block grid"""
    cases = every_photo(_small_cases, paths)
    results = {'images': len(paths)}
    print('side, px               cases   exact  abstained    right   wrong     (all in %)')
    for side in SMALL_SIDES:
        for name, chosen in (('', lambda c: True), (', on the grid', lambda c: c[1]),
                             (', off the grid', lambda c: not c[1]),
                             (', textured', lambda c: c[2])):
            some = [c for c in cases if c[0] == side and chosen(c)]
            row = shares([c[3] for c in some]) | {'exact': float(np.mean([c[4] for c in some]))}
            results[f'{side}{name}'] = row
            print(f'{side}{name}'.ljust(20), f'{row["cases"]:7}', f'{100 * row["exact"]:7.2f}',
                  f'{100 * row["abstained"]:10.2f}', f'{100 * row["right"]:8.2f}',
                  f'{100 * row["wrong"]:7.2f}')
    return results


# ---------------------------------------------------------------- --tables

def other_tables():
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
        coded, header = pillow_jpeg(image, qtables=[table.tolist()] * 2)
        used = np.array(header[0])
        estimate = estimate_table(coded)
        steps = estimate.steps.ravel()
        nearest = int(np.square(standard_tables() - used).sum(axis=1).argmin()) + 1
        known = estimate.quality is not None
        yield (name, int((steps > 0).sum()), int((steps == used)[steps > 0].sum()),
               known and not estimate.standard,
               abs(estimate.quality - nearest) if known else np.nan,
               find_quality(coded).quality is not None)


def tables(args, paths):
    """how well other encoders' luma tables are read from pixels"""
    sets = {}
    for name, *case in every_photo(_table_cases, paths):
        sets.setdefault(name, []).append(case)
    results = {'images': len(paths)}
    print('set         cases  steps read, %  of them right, %  said not standard, %  '
          'nearest quality off by  taken for standard, %')
    for name, cases in sets.items():
        read, right, other, distance, taken = np.array(cases, float).T
        off = [d for d in distance if d >= 0]
        row = {'cases': len(cases), 'read': read.mean() / 64,
               'right': right.sum() / max(1, read.sum()), 'not_standard': other.mean(),
               'taken_for_standard': taken.mean(), 'distance': np.mean(off) if off else None}
        results[name] = row
        print(f'{name:11} {row["cases"]:5} {100 * row["read"]:14.1f} {100 * row["right"]:17.2f} '
              f'{100 * row["not_standard"]:21.1f} {np.mean(off or [np.nan]):23.1f} '
              f'{100 * row["taken_for_standard"]:22.2f}')
    return results


# ---------------------------------------------------------------- --subsampling

def _chroma_cases(image, index):
    """Yields (subsampling, quality, found) of one photo.

    Of a photo without colour, only 'gray': however it was coded, its pixels say no more.
    """
    gray = (image == image[..., :1]).all()
    for name, options in SUBSAMPLINGS.items():
        if gray and name != 'gray':
            continue
        for quality in CHROMA_QUALITIES:
            coded, _ = pillow_jpeg(image, quality=quality, **options)
            for dy, dx in CHROMA_CROPS:
                yield name, quality, find_quality(coded[dy:, dx:])


def subsampling(args, paths):
    """how often --refine finds the chroma subsampling and the chroma table's quality"""
    rows = {'subsampling': {}, 'chroma quality': {}}
    for name, quality, found in every_photo(_chroma_cases, paths):
        for title, answer, truth in (('subsampling', found.subsampling, name),
                                     ('chroma quality', found.chroma_quality, quality)):
            rows[title].setdefault(name, []).append(
                'abstained' if answer is None else 'right' if answer == truth else 'wrong')
    rows['chroma quality'].pop('gray')  # it has none
    results = {title: {name: shares(kinds[name]) for name in SUBSAMPLINGS if name in kinds}
               for title, kinds in rows.items()}
    for title, kinds in results.items():
        print_shares(kinds, title)
    return {'images': len(paths)} | results
