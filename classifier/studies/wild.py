"""The quality through an edit: errors and intervals by kind of edit and by quality."""
import argparse
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np

from classifier.cli import open_predictor
from classifier.edits import EVERY_KIND as KINDS, apply
from classifier.posterior import LEVELS, QUALITIES
from classifier.studies.common import at_level, over_photos, print_table

SURE, OFF = 6, 8  # an interval no wider than this, and an error larger than this: sure and wrong
NEVER_FROM = 90   # a never compressed image of a lower answer is taken for a JPEG


def measures(truth: np.ndarray, answers: np.ndarray) -> dict:
    """How good the answers for some images are.

    Parameters
    ----------
    truth : int array, shape (n,)
        Levels of `posterior.py`, 1..101.
    answers : float array, shape (n, 4)
        Quality, low and high end of the interval, probability of compression; NaN for no answer.

    Returns
    -------
    dict
        Of the answers: MAE; of those with an interval its coverage and median width, and the share
        that is sure and wrong. Of the never compressed ones: the share taken for JPEGs, with a
        quality under NEVER_FROM, and with a probability of compression over one half. And the share
        that is answered. None where there is nothing to count.
    """
    quality, low, high, compressed = answers.T
    right, answered, never = QUALITIES[truth - 1], ~np.isnan(quality), truth == LEVELS
    error, width, known = np.abs(quality - right), high - low, answered & ~np.isnan(high - low)

    def share(values):
        return float(np.mean(values)) if len(values) else None

    return {'count': len(truth), 'answered': share(answered), 'mae': share(error[answered]),
            'coverage': share(((low <= right) & (right <= high))[known]),
            'width': float(np.median(width[known])) if known.any() else None,
            'sure_and_wrong': share(((width <= SURE) & (error > OFF))[known]),
            'never_under_90': share((quality[never] < NEVER_FROM)),
            'never_told_jpeg': share((compressed[never] > 0.5))}


def wild(args: argparse.Namespace, paths: list[Path]) -> dict:
    """MAE, coverage and width of the intervals on edited and never compressed images

    Each image, at each of --qualities and as it is, is edited in each way of edits.py, by a tool
    and a strength drawn for it.
    """
    predictor = open_predictor(args)
    levels = [*args.qualities, LEVELS]

    def changed(image, case):
        number, level, kind = case
        rng = np.random.default_rng((number, level, KINDS.index(kind)))
        coded = at_level(image, level, 'mixed', rng)
        dy, dx = rng.integers(0, 8, 2)
        return apply(kind, np.ascontiguousarray(coded[dy:, dx:]), rng)

    cases = [(path, (number, level, kind)) for number, path in enumerate(paths)
             for level, kind in product(levels, KINDS)]
    found = defaultdict(list)
    for _, (_, level, kind), picture in over_photos(changed, cases):
        p = predictor.predict(picture)
        answer = (p.quality, p.quality_low, p.quality_high, p.compressed)
        found[kind].append((level, *(np.nan if p.quality is None else value for value in answer)))
    rows = {kind: np.array(answers, float) for kind, answers in found.items()}
    groups = rows | {'all': np.concatenate(list(rows.values()))}

    def measured(some):
        return measures(some[:, 0].astype(int), some[:, 1:])

    by_kind = {kind: measured(some) | {
        f'mae_{level}': measured(some[some[:, 0] == level])['mae'] for level in args.qualities}
        for kind, some in groups.items()}
    numbers = ' '.join(f'{{mae_{level}:6.2f}}' for level in args.qualities)
    print_table(f'{"":22} MAE at ' + ' '.join(f'{level:6}' for level in args.qualities)
                + '  coverage  width  sure and wrong  answered  never JPEG, under 90', by_kind,
                '{name:22}        ' + numbers + '  {percent[coverage]:7.1f}%  {width:5.1f}  '
                '{percent[sure_and_wrong]:13.2f}%  {percent[answered]:7.1f}%  '
                '{percent[never_under_90]:20.1f}%')
    return {'images': len(paths), 'qualities': args.qualities, 'by_kind': by_kind}
