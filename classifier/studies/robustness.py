"""The errors with other JPEG coders, small and recompressed images, and at all grid phases."""
from functools import partial
from itertools import product

import numpy as np

from classifier.cli import open_predictor
from classifier.images import compress
from classifier.studies.common import over_photos, pillow_jpeg


def _pillow(**options):
    return lambda image, quality: pillow_jpeg(image, quality=quality, **options)[0]


def centre(image, side):
    """Its middle, at most `side` px high and wide, on the block grid."""
    top, left = (max(0, (length - side) // 16 * 8) for length in image.shape[:2])
    return image[top:top + side, left:left + side]


CODERS = {  # from (image, quality) to pixels
    'OpenCV, 4:2:0': compress,
    'Pillow, 4:2:0': _pillow(subsampling=2),
    'Pillow, 4:2:2': _pillow(subsampling=1),
    'Pillow, 4:4:4': _pillow(subsampling=0),
    'progressive': _pillow(subsampling=2, progressive=True),
    'optimised Huffman': _pillow(subsampling=2, optimize=True),
    'grayscale': _pillow(mode='L'),
    **{f'middle {side} px': lambda image, quality, side=side: centre(compress(image, quality), side)
       for side in (256, 128, 64)}}
TWICE = ((50, 80), (70, 90), (80, 50), (90, 70), (75, 75))  # qualities one after the other
SHIFTS = {'same grid': (0, 0), 'grid moved by (3, 5)': (3, 5)}


def _twice(image, q1, q2, shift):
    return compress(compress(image, q1)[shift[0]:, shift[1]:], q2)


def robustness(args, paths):
    """errors with other coders, small, gray and twice compressed images, at every grid phase"""
    predictor = open_predictor(args)
    half = args.qualities[1::2] or args.qualities   # at all grid phases, which differ little
    tenth = args.qualities[4::10] or args.qualities
    cases = [('never compressed', 100, lambda image: image)]
    cases += [(f'{q1}, then {q2}, {name}', q2, partial(_twice, q1=q1, q2=q2, shift=shift))
              for q1, q2 in TWICE for name, shift in SHIFTS.items()]
    cases += [(name, q, partial(coder, quality=q)) for q in tenth for name, coder in CODERS.items()]
    cases += [(None, q, partial(compress, quality=q)) for q in half]
    kinds = {}    # name: [(true quality, the network's answer, the final one)]
    phases = {}   # (dy, dx): [absolute error of the network]
    for _, (name, truth, _), coded in over_photos(lambda image, case: case[2](image),
                                                  list(product(paths, cases))):
        if name:
            p = predictor.predict(coded, refine=True)
            kinds.setdefault(name, []).append((truth, p.network_quality, p.quality))
            continue
        for dy in range(8):
            row = predictor.predict_all([coded[dy:, dx:] for dx in range(8)])
            for dx, p in enumerate(row):
                phases.setdefault((dy, dx), []).append(abs(p.quality - truth))
    results = {'images': len(paths), 'qualities': tenth, 'qualities_by_phase': half, 'kinds': {}}
    print(f'{"":36}network alone: bias   MAE  with --refine: MAE  exact')
    for name, rows in kinds.items():
        truth, network, final = np.array(rows, float).T
        row = {'count': len(rows), 'network_mean': float(network.mean()),
               'network_bias': float((network - truth).mean()),
               'network_mae': float(np.abs(network - truth).mean()),
               'refined_mae': float(np.abs(final - truth).mean()),
               'exact': float((final == truth).mean())}
        results['kinds'][name] = row
        print(f'{name:36}{row["network_bias"]:+19.2f} {row["network_mae"]:5.2f} '
              f'{row["refined_mae"]:19.2f} {100 * row["exact"]:5.1f} %')
    mae = {phase: float(np.mean(errors)) for phase, errors in phases.items()}
    worst, best = max(mae, key=mae.get), min(mae, key=mae.get)
    print(f'64 grid phases: MAE {np.mean(list(mae.values())):.3f}, '
          f'most {mae[worst]:.3f} at {worst}, least {mae[best]:.3f} at {best}')
    return results | {'mae_by_phase': {f'{dy},{dx}': m for (dy, dx), m in mae.items()}}
