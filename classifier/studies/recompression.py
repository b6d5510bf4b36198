"""How often an earlier compression is found under the last one, and false alarms."""
import argparse
from pathlib import Path

import numpy as np

from classifier.forensics.recompression import find_earlier
from classifier.forensics.tables import standard_tables
from classifier.images import compress
from classifier.studies.common import every_photo

FIRST_QUALITIES = (30, 50, 60, 70, 80, 90)
LAST_QUALITIES = (50, 60, 70, 80, 90, 95, 98)
SINGLE_QUALITIES = range(30, 99)


def _cases(image, index):
    """Yields (('aligned' or 'shifted', 'q1,q2'), found) for q1 < q2, and ('single', found).

    The shift is drawn by the image's number.
    """
    dy, dx = np.random.default_rng(index).integers(1, 8, 2)

    def found(coded, quality):
        table = standard_tables()[quality - 1]
        return find_earlier(compress(coded, quality), table).quality is not None

    for q1 in FIRST_QUALITIES:
        first = compress(image, q1)
        for q2 in (q for q in LAST_QUALITIES if q > q1):
            yield ('aligned', f'{q1},{q2}'), found(first, q2)
            yield ('shifted', f'{q1},{q2}'), found(first[dy:, dx:], q2)
    for q2 in SINGLE_QUALITIES:
        yield 'single', found(image, q2)


def recompression(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how often an earlier, coarser compression is found, on the same and on another grid"""
    hits = every_photo(_cases, paths)
    once = np.array(hits.pop('single'))
    results = {'images': len(paths), 'aligned': {}, 'shifted': {},
               'false_alarms': float(once.mean())}
    for (kind, pair), found in hits.items():
        results[kind][pair] = float(np.mean(found))
    for kind in ('aligned', 'shifted'):
        print(f'first at q1 (rows), then at q2 (columns), {kind} grids: found, %')
        print('     ' + ''.join(f'{q2:5}' for q2 in LAST_QUALITIES))
        for q1 in FIRST_QUALITIES:
            rates = [results[kind].get(f'{q1},{q2}') for q2 in LAST_QUALITIES]
            print(f'{q1:5}' + ''.join('    -' if r is None else f'{100 * r:5.0f}' for r in rates))
    print(f'compressed once, at {SINGLE_QUALITIES[0]} to {SINGLE_QUALITIES[-1]}: {once.sum()} '
          f'false alarms in {once.size} images ({100 * once.mean():.2f} %)')
    return results
