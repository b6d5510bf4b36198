"""Measurements that evaluate_cls.py makes beside the plain one, each behind an option of its own.

A study takes the script's parsed arguments, prints what people want to see, and returns
a dict for results.json. The first line of its docstring is the option's help.
"""
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from console import Progress, ordered_map, save_figure
from gen_data import sources
from images import compress, list_images, read_image
from lattice import find_quality, standard_tables
from metrics import confusion_figure, describe, error_metrics
from models import Predictor
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


# ---------------------------------------------------------------- --compare

def compare(args):
    """MobileNetV2, a JPEG-specific estimator and Q1Net side by side: compare.png

    The estimator finds the quantization table of maximum likelihood (Fan and de Queiroz
    2003, in lattice.py). Where it abstains, its answer counts as 100: "not compressed".
    """
    import mobilenet
    paths = list_images(args.in_path, args.recursive)[:args.limit]
    network = mobilenet.load(mobilenet.weights_folder())
    predictor = Predictor(args.comp_type, args.weights, args.threshold)
    answers, abstained = [], 0
    with ThreadPoolExecutor(2) as pool:
        paths = sources(paths, predictor.type.patch + max(args.crop[0]), pool)
        total = len(paths) * len(args.qualities)
        with Progress(total, 'images') as progress:
            for path in paths:
                look = partial(coded_and_estimated, read_image(path), args.crop[0])
                for coded, estimate in ordered_map(pool, look, args.qualities, ahead=4):
                    abstained += estimate is None
                    answers.append((mobilenet.predict(network, coded), estimate or 100,
                                    predictor.predict_all([coded])[0].quality))
                    progress.update(len(answers), path.name)
    truth = np.tile(args.qualities, len(paths))
    methods = ('MobileNetV2', 'JPEG-specific, maximum likelihood', f'Q1Net, {args.comp_type}')
    predicted = dict(zip(methods, np.array(answers).T))
    results = {'images': len(paths), 'qualities': args.qualities, 'crop': args.crop[0],
               'abstained': abstained / total}
    for method, values in predicted.items():
        results[method] = error_metrics(truth, values)
        print(f'{method}\n{describe(results[method])}\n')
    print(f'the JPEG-specific estimator abstained on {100 * results["abstained"]:.2f} % of the '
          'images; its answer counts as 100 there')
    save_figure(confusion_figure(truth, predicted), args.out_path / 'compare.png')
    print(f'written: {args.out_path / "compare.png"}')
    return results


def coded_and_estimated(image, crop, quality):
    """The image compressed and cropped by (dy, dx), and what the lattice says, or None."""
    coded = np.ascontiguousarray(compress(image, quality)[crop[0]:, crop[1]:])
    return coded, find_quality(coded).quality


STUDIES = {'recompression': recompression, 'compare': compare}
