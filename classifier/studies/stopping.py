"""What early stopping saves and costs: patches and errors at different decision margins."""
from itertools import product

import numpy as np

from classifier.early_stopping import rounds, stop_early
from classifier.errors import InputError
from classifier.images import compress
from classifier.likelihood import uncertainty_exponent
from classifier.predictor import Predictor
from classifier.studies.common import over_photos

MARGINS = (1, 1.5, 1.75, 2, 2.25, 2.5, 3)  # tried in place of early_stopping.MARGIN


def stopping(args, paths):
    """patches and MAE of early stopping at different margins, and of 32 to 256 patches"""
    predictor = Predictor(args.comp_type, args.weights, None, 'likelihood', args.runtime)
    total = predictor.type.samples ** 2

    def crop(image, case):
        quality, (dy, dx) = case
        coded = compress(image, quality)[dy:, dx:]
        return coded, predictor.extract(coded)

    rules, truth = {}, []  # by rule: what is predicted for each image
    pairs = list(product(paths, product(args.qualities, args.crop)))
    for _, (quality, _), (coded, patches) in over_photos(crop, pairs):
        if len(patches) < total:
            continue

        def fuse(output, found):
            return predictor.fuse(output, uncertainty_exponent(coded, len(output) / total), found)

        looks = list(rounds(predictor.run_network(patches).__getitem__, predictor.type,
                            predictor.log_likelihood))
        found = {f'{len(output)} patches': fuse(output, likelihood)
                 for _, output, likelihood in looks}
        found |= {f'stopped at {margin:g}': stop_early(looks, fuse, margin) for margin in MARGINS}
        for name, prediction in found.items():
            rules.setdefault(name, []).append(prediction)
        truth.append(quality)
    if not truth:
        raise InputError(f'{args.in_path}: no image is large enough for {total} patches; choose '
                         'larger ones')
    results = {'images': len(paths), 'cases': len(truth), 'qualities': args.qualities}
    print(f'{"":16}patches    MAE  within one and two standard deviations')
    for name, predictions in rules.items():
        error = np.abs(np.array([p.quality for p in predictions]) - truth)
        sigma = np.array([p.uncertainty for p in predictions], float)  # None becomes NaN
        row = {'patches': float(np.mean([p.patches for p in predictions])),
               'mae': float(error.mean()), 'within_one': float((error < sigma).mean()),
               'within_two': float((error < 2 * sigma).mean())}
        results[name] = row
        print(f'{name:16}{row["patches"]:7.1f}  {row["mae"]:.4f}  {100 * row["within_one"]:.1f} %, '
              f'{100 * row["within_two"]:.1f} %')
    return results
