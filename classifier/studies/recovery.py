"""How many images give back their JPEG file, and what of the others comes back."""
import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from classifier import __version__
from classifier.batch import digest
from classifier.errors import InputError
from classifier.images import compress
from classifier.recovery.decoders import DECODERS
from classifier.recovery.recover import recover
from classifier.recovery.stopping import stops_others
from classifier.run_rows import RunRows
from classifier.studies.common import over_photos, pillow_file, pillow_jpeg, print_table

QUALITIES = (30, 50, 75, 85, 90, 95)
ALL = list(range(1, 101))
# As Pillow takes them.
KINDS = {'gray': {'mode': 'L'}, '4:4:4': {'subsampling': 0}, '4:2:2': {'subsampling': 1},
         '4:2:0': {'subsampling': 2}}
CODERS = {'Pillow': lambda image, quality, kind: pillow_jpeg(image, quality, **KINDS[kind]),
          'OpenCV': compress}
OTHERS = {decoder.name: decoder for decoder in DECODERS[1:]}


def recovery(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how many images give back their whole JPEG file (--qualities, --crop, --sample)"""
    def coded(image, case):
        (dy, dx), kind, quality, coder = case
        return CODERS[coder](image, quality, kind)[dy:, dx:]

    # of one plane, both coders make the same
    cases = [case for case in product(args.crop, KINDS, _qualities(args), CODERS)
             if case[1] != 'gray' or case[3] == 'Pillow']
    return _study(args, paths, cases, coded, lambda case: f'{case[0][0]},{case[0][1]} '
                  f'{case[1]} {case[2]}')


def decoders(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how many images of other decoders do (--qualities, --crop, --sample)"""
    def coded(image, case):
        (dy, dx), kind, quality, name = case
        return OTHERS[name].pixels(pillow_file(image, quality, **KINDS[kind]))[dy:, dx:]

    cases = [case for case in product(args.crop, KINDS, _qualities(args), OTHERS)
             if case[1] in ('4:2:2', '4:2:0') or OTHERS[case[3]].upsampling == 'fancy']
    return _study(args, paths, cases, coded, lambda case: f'{case[0][0]},{case[0][1]} '
                  f'{case[1]} {case[2]}, {case[3]}')


def _qualities(args):
    return QUALITIES if args.qualities == ALL else args.qualities


def _study(args: argparse.Namespace, paths: list[Path], cases: list[tuple], coded: Callable,
           row_of: Callable) -> dict:
    """Recover each photo in all cases, or in a sample of them, and print a row for each kind.

    What is done outlasts a stopped run, in a file in --out_path.
    """
    rows = defaultdict(list)
    for path, case in product(paths, cases):
        rows[row_of(case)].append((path, case))
    if args.sample:
        rng = np.random.default_rng(0)
        rows = {name: [pairs[i] for i in rng.permutation(len(pairs))[:args.sample]]
                for name, pairs in rows.items()}
    chosen = sorted({f'{path} {case}': (path, case) for pairs in rows.values()
                     for path, case in pairs}.items())
    made = {'version': __version__, 'study': args.study}
    recipe = json.dumps([made, [name for name, _ in chosen]])
    out = args.out_path / f'{args.study}_{digest(recipe.encode())}.part'
    with RunRows(out, [name for name, _ in chosen], made) as kept:
        left = kept.missing
        work = over_photos(lambda image, case: _outcome(np.ascontiguousarray(coded(image, case))),
                           [chosen[i][1] for i in left])
        with stops_others():
            for index, (*_, outcome) in zip(left, work):
                kept.write(int(index), outcome)
        found = dict(kept)
        kept.close(remove=True)
    table = {name: _summary([found[f'{path} {case}'] for path, case in pairs])
             for name, pairs in rows.items()}
    title = 'crop, kind, quality'
    width = max(map(len, [title, *table]))
    print_table(f'{title:{width}} cases  whole, % (95 % interval)  pixels, %  '
                'blocks, %  of the PNG, %  seconds: median, most', table,
                f'{{name:{width}}}' ' {cases:5} {percent[whole]:9.1f} ({percent[low]:5.1f} to '
                '{percent[high]:5.1f}) {percent[pixels]:10.3f} {percent[blocks]:10.3f} '
                '{percent[size]:13.1f} {seconds:12.2f} {slowest:8.1f}')
    return {'images': len(paths)} | table


def _outcome(image):
    """Whole?, shares of pixels and blocks that come back, size against PNG, seconds of one core."""
    began = time.thread_time()
    try:
        found = recover(image)
    except InputError:
        return [0, 0.0, 0.0, None, time.thread_time() - began]
    seconds = time.thread_time() - began
    difference, (height, width) = found.difference, image.shape[:2]
    png = len(cv2.imencode('.png', image)[1])
    return [int(difference.is_none), 1 - difference.pixels / (height * width),
            1 - difference.blocks / difference.of_blocks, len(found.data) / png, seconds]


def _summary(outcomes):
    """A row of the table."""
    whole, pixels, blocks, size, seconds = np.array(outcomes, float).T
    low, high = share_interval(int(whole.sum()), len(whole))
    return {'cases': len(whole), 'whole': whole.mean(), 'low': low, 'high': high,
            'pixels': pixels.mean(), 'blocks': blocks.mean(), 'seconds': float(np.median(seconds)),
            'slowest': seconds.max(),
            'size': float(np.nanmean(size)) if np.isfinite(size).any() else None}


def share_interval(count: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share, after Wilson (JASA 22, 1927)."""
    z, share = 1.96, count / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
