"""How often the last of two compressions is told, an earlier one found under it; false alarms."""
import argparse
from pathlib import Path

import numpy as np

from classifier.forensics.lattice import find_quality
from classifier.forensics.recompression import find_earlier
from classifier.forensics.tables import standard_tables
from classifier.images import compress
from classifier.studies.common import every_photo, outcome, shares

FIRST_QUALITIES = (30, 50, 60, 70, 80, 90)
LAST_QUALITIES = (50, 60, 70, 80, 90, 95, 98, 99, 100)
SINGLE_QUALITIES = range(30, 99)
GRIDS = 'aligned', 'shifted'


def _cases(image, index):
    """Yields ((kind, 'q1,q2'), (found, told)) for q1 < q2 and, compressed once, ('single', ...).

    Whether an earlier compression is found where the last table is known; what `find_quality` says
    of the last one, from pixels alone. The shift is drawn by the image's number.
    """
    dy, dx = np.random.default_rng(index).integers(1, 8, 2)

    def found(coded, quality):
        image = compress(coded, quality)
        last = find_quality(image)
        told = outcome(last.quality, quality, last.qualities)
        if told == 'right' and (last.is_tie or (last.grid_dy, last.grid_dx) != (0, 0)):
            told = 'abstained' if last.is_tie else 'wrong'
        return find_earlier(image, standard_tables()[quality - 1]).quality is not None, told

    for q1 in FIRST_QUALITIES:
        first = compress(image, q1)
        for q2 in (q for q in LAST_QUALITIES if q > q1):
            yield ('aligned', f'{q1},{q2}'), found(first, q2)
            yield ('shifted', f'{q1},{q2}'), found(first[dy:, dx:], q2)
    for q2 in SINGLE_QUALITIES:
        yield 'single', found(image, q2)


def recompression(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how often an earlier, coarser compression is found, and the last one given"""
    cases = every_photo(_cases, paths)
    once, once_told = zip(*cases.pop('single'))
    results = {'images': len(paths), **{kind: {} for kind in GRIDS},
               'false_alarms': float(np.mean(once)),
               'last': {kind: {} for kind in GRIDS}, 'last_of_one': shares(once_told)}
    for (kind, pair), several in cases.items():
        found, told = zip(*several)
        results[kind][pair] = float(np.mean(found))
        results['last'][kind][pair] = shares(told)
    for kind in GRIDS:
        _print_pairs(f'{kind} grids: an earlier compression found, %', results[kind])
        exact = {pair: row['right'] for pair, row in results['last'][kind].items()}
        _print_pairs(f'{kind} grids: the last one found exactly from pixels alone, %', exact)
    told = [row for kind in GRIDS for row in results['last'][kind].values()]
    print(f'the last one given wrongly: {sum(round(t["wrong"] * t["cases"]) for t in told)} of '
          f'{sum(t["cases"] for t in told)} compressed twice, {once_told.count("wrong")} of '
          f'{len(once)} once')
    print(f'compressed once, at {SINGLE_QUALITIES[0]} to {SINGLE_QUALITIES[-1]}: {sum(once)} '
          f'false alarms in {len(once)} images ({100 * np.mean(once):.2f} %)')
    return results


def _print_pairs(title, shares_of_pairs):
    """A table of {'q1,q2': share}."""
    print(f'first at q1 (rows), then at q2 (columns), {title}')
    print('     ' + ''.join(f'{q2:5}' for q2 in LAST_QUALITIES))
    for q1 in FIRST_QUALITIES:
        rates = [shares_of_pairs.get(f'{q1},{q2}') for q2 in LAST_QUALITIES]
        print(f'{q1:5}' + ''.join('    -' if r is None else f'{100 * r:5.0f}' for r in rates))
