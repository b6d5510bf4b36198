"""Measurements that evaluate_cls.py makes beside the plain one, each behind an option of its own.

A study takes the script's parsed arguments, prints what people want to see, and returns
a dict for results.json. The first line of its docstring is the option's help.
"""
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from console import Progress, ordered_map
from images import compress, list_images, read_image
from lattice import standard_tables
from recompression import find_earlier

# ---------------------------------------------------------------- --recompression

FIRST_QUALITIES = (30, 50, 60, 70, 80, 90)  # of --recompression
LAST_QUALITIES = (50, 60, 70, 80, 90, 95, 98)
SINGLE_QUALITIES = range(30, 99)


def looks_at(path, index):
    """What is found in one image, compressed twice and once.

    Yields ('aligned' or 'shifted', (q1, q2), found) for the pairs q1 < q2, the shift drawn
    by the image's number, then ('single', (None, q2), found).
    """
    image, tables = read_image(path), standard_tables()
    dy, dx = np.random.default_rng(index).integers(1, 8, 2)

    def found(coded, quality):
        coded = compress(np.ascontiguousarray(coded), quality)
        return find_earlier(coded, tables[quality - 1]).quality is not None

    for q1 in FIRST_QUALITIES:
        first = compress(image, q1)
        for q2 in LAST_QUALITIES:
            if q1 < q2:
                yield 'aligned', (q1, q2), found(first, q2)
                yield 'shifted', (q1, q2), found(first[dy:, dx:], q2)
    for q2 in SINGLE_QUALITIES:
        yield 'single', (None, q2), found(image, q2)


def recompression(args):
    """how often an earlier, coarser compression is found, on the same and on another grid"""
    paths = list_images(args.in_path, args.recursive)[:args.limit]
    hits = {'aligned': {}, 'shifted': {}, 'single': {}}
    with ThreadPoolExecutor(2) as pool, Progress(len(paths), 'images') as progress:
        images = ordered_map(pool, lambda i: list(looks_at(paths[i], i)), range(len(paths)), 4)
        for done, image in enumerate(images, start=1):
            for kind, pair, found in image:
                hits[kind].setdefault(pair, []).append(found)
            progress.update(done)
    results = {'images': len(paths)}
    for kind in ('aligned', 'shifted'):
        rates = {pair: float(np.mean(cell)) for pair, cell in hits[kind].items()}
        results[kind] = {f'{q1},{q2}': rate for (q1, q2), rate in rates.items()}
        print(f'first at q1 (rows), then at q2 (columns), {kind} grids: found, %')
        print('     ' + ''.join(f'{q2:5}' for q2 in LAST_QUALITIES))
        for q1 in FIRST_QUALITIES:
            print(f'{q1:5}' + ''.join(f'{100 * rates[q1, q2]:5.0f}' if q1 < q2 else '    -'
                                      for q2 in LAST_QUALITIES))
    once = np.concatenate(list(hits['single'].values()))
    results['false_alarms'] = float(once.mean())
    print(f'compressed once, at {SINGLE_QUALITIES[0]} to {SINGLE_QUALITIES[-1]}: {once.sum()} '
          f'false alarms in {once.size} images ({100 * once.mean():.2f} %)')
    return results


STUDIES = {'recompression': recompression}
