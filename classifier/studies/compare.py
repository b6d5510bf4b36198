"""Q1Net beside a generic network and a JPEG-specific estimator: compare.png."""
import argparse
from itertools import product
from pathlib import Path

import numpy as np

from classifier.checkpoints import weights_digest
from classifier.cli import named, open_predictor
from classifier.files import save_figure
from classifier.forensics.lattice import find_quality
from classifier.images import compress
from classifier.studies.common import over_photos
from classifier.studies.metrics import confusion_figure, describe, error_metrics


def compare(args: argparse.Namespace, paths: list[Path]) -> dict:
    """MobileNetV2, a JPEG-specific estimator and Q1Net side by side: compare.png

    The estimator finds the quantization table of maximum likelihood (Fan and de Queiroz 2003, in
    forensics/lattice.py). Where it or Q1Net abstains, the answer counts as 100: "not compressed".
    """
    from classifier.studies import mobilenet  # which is also a script, to be imported late
    baseline = args.baseline or mobilenet.SHIPPED
    network, predictor = mobilenet.load(baseline), open_predictor(args)
    dy, dx = args.crop[0]

    def coded_and_estimated(image, quality):
        coded = compress(image, quality)[dy:, dx:]
        return coded, find_quality(coded).quality

    answers = []
    for path, _, (coded, estimate) in over_photos(coded_and_estimated,
                                                  product(paths, args.qualities)):
        with named(path):
            answers.append((mobilenet.predict(network, coded), estimate or np.nan,
                            predictor.predict(coded).quality))
    truth, answers = np.tile(args.qualities, len(paths)), np.array(answers, float)
    abstained = float(np.isnan(answers[:, 1]).mean())
    methods = ('MobileNetV2', 'JPEG-specific, maximum likelihood', f'Q1Net, {args.comp_type}')
    predicted = dict(zip(methods, np.nan_to_num(answers, nan=100).T))
    results = {'images': len(paths), 'qualities': args.qualities, 'crop': args.crop[0],
               'abstained': abstained, 'baseline_weights': (weights_digest(baseline) or '')[:16]}
    for method, values in predicted.items():
        results[method] = error_metrics(truth, values)
        print(f'{method}\n{describe(results[method])}\n')
    print(f'the JPEG-specific estimator abstained on {100 * abstained:.2f} % of the '
          'images; its answer counts as 100 there')
    rules = ', median of crops', '', f', {predictor.fusion}'
    titles = {method + rule: predicted[method] for method, rule in zip(methods, rules)}
    save_figure(confusion_figure(truth, titles), args.out_path / 'compare.png')
    print(f'written: {args.out_path / "compare.png"}')
    return results
