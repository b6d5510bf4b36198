"""How often an earlier compression is found under the last one, and false alarms."""
from itertools import product

import numpy as np

from classifier.forensics.recompression import find_earlier
from classifier.forensics.tables import standard_tables
from classifier.images import compress
from classifier.studies.common import every_photo

FIRST_QUALITIES = (30, 50, 60, 70, 80, 90)
LAST_QUALITIES = (50, 60, 70, 80, 90, 95, 98)
SINGLE_QUALITIES = range(30, 99)


def _cases(image, index):
    """Yields ('aligned' or 'shifted', q1, q2, found) for q1 < q2, and ('single', None, q2, found).

    The shift is drawn by the image's number.
    """
    dy, dx = np.random.default_rng(index).integers(1, 8, 2)

    def found(coded, quality):
        table = standard_tables()[quality - 1]
        return find_earlier(compress(coded, quality), table).quality is not None

    for q1 in FIRST_QUALITIES:
        first = compress(image, q1)
        for q2 in (q for q in LAST_QUALITIES if q > q1):
            yield 'aligned', q1, q2, found(first, q2)
            yield 'shifted', q1, q2, found(first[dy:, dx:], q2)
    for q2 in SINGLE_QUALITIES:
        yield 'single', None, q2, found(image, q2)


def recompression(args, paths):
    """how often an earlier, coarser compression is found, on the same and on another grid"""
    hits = {}
    for *case, found in every_photo(_cases, paths):
        hits.setdefault(tuple(case), []).append(found)
    results = {'images': len(paths)}
    for kind in ('aligned', 'shifted'):
        rates = {pair: float(np.mean(hits[(kind, *pair)]))
                 for pair in product(FIRST_QUALITIES, LAST_QUALITIES) if (kind, *pair) in hits}
        results[kind] = {f'{q1},{q2}': rate for (q1, q2), rate in rates.items()}
        print(f'first at q1 (rows), then at q2 (columns), {kind} grids: found, %')
        print('     ' + ''.join(f'{q2:5}' for q2 in LAST_QUALITIES))
        for q1 in FIRST_QUALITIES:
            print(f'{q1:5}' + ''.join(f'{100 * rates[q1, q2]:5.0f}' if q1 < q2 else '    -'
                                      for q2 in LAST_QUALITIES))
    once = np.concatenate([some for (kind, *_), some in hits.items() if kind == 'single'])
    results['false_alarms'] = float(once.mean())
    print(f'compressed once, at {SINGLE_QUALITIES[0]} to {SINGLE_QUALITIES[-1]}: {once.sum()} '
          f'false alarms in {once.size} images ({100 * once.mean():.2f} %)')
    return results
