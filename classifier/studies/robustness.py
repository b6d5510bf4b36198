"""The errors with other JPEG coders, small and recompressed images, and at all grid phases."""
import argparse
from collections import defaultdict
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from classifier.cli import open_predictor
from classifier.images import compress
from classifier.studies.common import over_photos, pillow_jpeg, print_table


def centre(image: np.ndarray, side: int) -> np.ndarray:
    """Its middle, at most `side` px high and wide, on the block grid."""
    top, left = (max(0, (length - side) // 16 * 8) for length in image.shape[:2])
    return image[top:top + side, left:left + side]


def _middle(image, quality, side):
    return centre(compress(image, quality), side)


CODERS = {  # from (image, quality) to pixels
    'OpenCV, 4:2:0': compress,
    'Pillow, 4:2:0': partial(pillow_jpeg, subsampling=2),
    'Pillow, 4:2:2': partial(pillow_jpeg, subsampling=1),
    'Pillow, 4:4:4': partial(pillow_jpeg, subsampling=0),
    'progressive': partial(pillow_jpeg, subsampling=2, progressive=True),
    'optimised Huffman': partial(pillow_jpeg, subsampling=2, optimize=True),
    'grayscale': partial(pillow_jpeg, mode='L'),
    **{f'middle {side} px': partial(_middle, side=side) for side in (256, 128, 64)}}
TWICE = ((50, 80), (70, 90), (80, 50), (90, 70), (75, 75))  # qualities one after the other
SHIFTS = {'same grid': (0, 0), 'grid moved by (3, 5)': (3, 5)}


def _twice(image, q2, q1, shift):
    return compress(compress(image, q1)[shift[0]:, shift[1]:], q2)


def robustness(args: argparse.Namespace, paths: list[Path]) -> dict:
    """errors with other coders, small, gray and twice compressed images, at every grid phase"""
    predictor = open_predictor(args)
    tenth = args.qualities[4::10] or args.qualities
    cases = [('never compressed', 100, lambda image, quality: image)]
    cases += [(f'{q1}, then {q2}, {name}', q2, partial(_twice, q1=q1, shift=shift))
              for q1, q2 in TWICE for name, shift in SHIFTS.items()]
    cases += [(name, q, coder) for q in tenth for name, coder in CODERS.items()]
    cases += [(None, q, compress) for q in tenth]  # at all grid phases, which differ little
    kinds = defaultdict(list)    # name: [(true quality, the network's answer, the final one)]
    phases = defaultdict(list)   # 'dy,dx': [absolute error of the network]
    for _, (name, truth, _), coded in over_photos(
            lambda image, case: case[2](image, case[1]), product(paths, cases)):
        if name:
            p = predictor.predict(coded, refine=True)
            kinds[name].append((truth, p.network_quality, p.quality))
            continue
        for dy in range(8):
            row = predictor.predict_all([coded[dy:, dx:] for dx in range(8)])
            for dx, p in enumerate(row):
                if p.quality is not None:
                    phases[dy, dx].append(abs(p.quality - truth))
    rows = {}
    for name, answers in kinds.items():
        truth, network, final = np.array(answers, float).T
        rows[name] = {'count': len(answers), 'network_mean': _mean(network),
                      'network_bias': _mean(network - truth),
                      'network_mae': _mean(np.abs(network - truth)),
                      'refined_mae': _mean(np.abs(final - truth)),
                      'exact': float((final == truth).mean())}
    print_table(f'{"":36}network alone: bias   MAE  with --refine: MAE  exact', rows,
                '{name:36}{network_bias:+19.2f} {network_mae:5.2f} {refined_mae:19.2f} '
                '{percent[exact]:5.1f} %')
    mae = {phase: float(np.mean(errors)) for phase, errors in phases.items()}
    if mae:
        worst, best = max(mae, key=mae.get), min(mae, key=mae.get)
        print(f'64 grid phases: MAE {np.mean(list(mae.values())):.3f}, '
              f'most {mae[worst]:.3f} at {worst}, least {mae[best]:.3f} at {best}')
    return {'images': len(paths), 'qualities': tenth, 'kinds': rows,
            'mae_by_phase': {f'{dy},{dx}': m for (dy, dx), m in mae.items()}}


def _mean(values):
    """The mean where there is an answer, or None."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
