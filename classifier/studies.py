"""Measurements that evaluate_cls.py makes beside the plain one, each behind an option of its own.

A study takes the script's parsed arguments, prints what people want to see, and returns
a dict for results.json. The first line of its docstring is the option's help.
"""
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from console import Progress, complain, ordered_map
from images import compress, list_images, read_image
from lattice import standard_tables
from models import InputError
from recompression import find_earlier

# ---------------------------------------------------------------- --recompression

FIRST_QUALITIES = (30, 50, 60, 70, 80, 90)  # of --recompression
LAST_QUALITIES = (50, 60, 70, 80, 90, 95, 98)
SINGLE_QUALITIES = range(30, 99)
MIN_SIDE = 24  # px, so that a block is left after the shift


def looks_at(path, index):
    """What is found in one image, compressed twice and once.

    Yields ('aligned' or 'shifted', (q1, q2), found) for the pairs q1 < q2, the shift drawn
    by the image's number, then ('single', (None, q2), found). InputError for an image that
    cannot be used.
    """
    image, tables = read_image(path), standard_tables()
    if min(image.shape[:2]) < MIN_SIDE:
        raise InputError(f'{path}: a side of {min(image.shape[:2])} px is too small')
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
    left_out = 0

    def look(index):
        try:
            return list(looks_at(paths[index], index))
        except InputError as error:
            complain(f'evaluate_cls.py: error: {error}')
            return None

    with ThreadPoolExecutor(2) as pool, Progress(len(paths), 'images') as progress:
        for done, image in enumerate(ordered_map(pool, look, range(len(paths)), 4), start=1):
            left_out += image is None
            for kind, pair, found in image or ():
                hits[kind].setdefault(pair, []).append(found)
            progress.update(done)
    if left_out == len(paths):
        raise InputError(f'{args.in_path}: none of the images can be used')
    results = {'images': len(paths) - left_out, 'left_out': left_out}
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
