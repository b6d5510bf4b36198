"""What early stopping saves and costs: patches and errors at different decision margins."""
import argparse
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np

from classifier.early_stopping import rounds, stop_early
from classifier.errors import InputError
from classifier.images import compress
from classifier.predictor import Predictor
from classifier.studies.common import over_photos, print_table

MARGINS = (1, 1.5, 1.75, 2, 2.25, 2.5, 3)  # tried in place of early_stopping.MARGIN


def stopping(args: argparse.Namespace, paths: list[Path]) -> dict:
    """patches and MAE of early stopping at different margins, and of 32 to 256 patches"""
    predictor = Predictor(args.comp_type, args.weights, None, 'likelihood', args.runtime)
    total = predictor.type.samples ** 2

    def crop(image, case):
        quality, (dy, dx) = case
        coded = compress(image, quality)[dy:, dx:]
        return coded, predictor.extract(coded)

    rules, truth = defaultdict(list), []  # by rule: what is predicted for each image
    for _, (quality, _), (coded, patches) in over_photos(
            crop, product(paths, product(args.qualities, args.crop))):
        if len(patches) < total:
            continue

        def fuse(output, found):
            return predictor.fuse(output, coded.shape, found, len(output) / total)

        looks = list(rounds(predictor.run_network(patches).__getitem__, predictor.type,
                            predictor.log_likelihood))
        for _, output, likelihood in looks:
            rules[f'{len(output)} patches'].append(fuse(output, likelihood))
        for margin in MARGINS:
            rules[f'stopped at {margin:g}'].append(stop_early(looks, fuse, margin))
        truth.append(quality)
    if not truth:
        raise InputError(f'{args.in_path}: no image is large enough for {total} patches; choose '
                         'larger ones')
    rows = {}
    for name, predictions in rules.items():
        error = np.abs(np.array([p.quality for p in predictions], float) - truth)  # None: NaN
        sigma = np.array([p.uncertainty for p in predictions], float)
        rows[name] = {'patches': float(np.mean([p.patches for p in predictions])),
                      'mae': float(np.nanmean(error)), 'within_one': float((error < sigma).mean()),
                      'within_two': float((error < 2 * sigma).mean())}
    print_table(f'{"":16}patches    MAE  within one and two standard deviations', rows,
                '{name:16}{patches:7.1f}  {mae:.4f}  {percent[within_one]:.1f} %, '
                '{percent[within_two]:.1f} %')
    return {'images': len(paths), 'cases': len(truth), 'qualities': args.qualities} | rows
