"""Measurements that evaluate_cls.py makes beside the plain one, each behind an option of its own.

A study takes the script's parsed arguments, prints what people want to see, and returns
a dict for results.json. The first line of its docstring is the option's help.
"""
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from console import Progress, ordered_map, whole_file
from images import compress, list_images, read_image
from lattice import standard_tables
from models import (CONFIDENCE_EDGES, LIKELIHOOD_FILE, Predictor, best_folder, extract_patches,
                    patch_counts, patch_likelihood)
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


# ---------------------------------------------------------------- --robustness

def pillow_jpeg(image, quality, mode='RGB', **options):
    """The image, (h, w, 3) uint8 BGR, after Pillow's JPEG coder (libjpeg-turbo)."""
    coded = io.BytesIO()
    Image.fromarray(image[:, :, ::-1]).convert(mode).save(coded, 'JPEG', quality=quality,
                                                          **options)
    return np.array(Image.open(coded).convert('RGB'))[:, :, ::-1]


def centre(image, side):
    """Its middle, at most `side` px high and wide, on the block grid."""
    top, left = (max(0, (length - side) // 16 * 8) for length in image.shape[:2])
    return image[top:top + side, left:left + side]


CODERS = {
    'OpenCV, 4:2:0': compress,
    'Pillow, 4:2:0': lambda image, q: pillow_jpeg(image, q, subsampling=2),
    'Pillow, 4:2:2': lambda image, q: pillow_jpeg(image, q, subsampling=1),
    'Pillow, 4:4:4': lambda image, q: pillow_jpeg(image, q, subsampling=0),
    'progressive': lambda image, q: pillow_jpeg(image, q, subsampling=2, progressive=True),
    'optimised Huffman': lambda image, q: pillow_jpeg(image, q, subsampling=2, optimize=True),
    'grayscale': lambda image, q: pillow_jpeg(image, q, 'L'),
    **{f'middle {side} px': lambda image, q, side=side: centre(compress(image, q), side)
       for side in (256, 128, 64)}}
TWICE = ((50, 80), (70, 90), (80, 50), (90, 70), (75, 75))  # qualities one after the other


def robustness(args):
    """errors with other coders, small, gray and twice compressed images, at every grid phase"""
    predictor = Predictor(args.comp_type, args.weights, args.threshold, args.fusion)
    paths = list_images(args.in_path, args.recursive)[:args.limit]
    tenth = args.qualities[4::10] or args.qualities
    kinds = {}    # name: [[true quality, the network's answer, the final one]]
    phases = {}   # (dy, dx): [absolute error of the network]

    def look(name, truth, images):
        for p in predictor.predict_all([np.ascontiguousarray(i) for i in images], refine=True):
            kinds.setdefault(name, []).append((truth, p.network_quality, p.quality))

    with Progress(len(paths) * len(tenth), 'qualities of images') as progress:
        for i, path in enumerate(paths):
            image = read_image(path)
            look('never compressed', 100, [image])
            for q1, q2 in TWICE:
                for name, (dy, dx) in (('same grid', (0, 0)), ('grid moved by (3, 5)', (3, 5))):
                    first = np.ascontiguousarray(compress(image, q1)[dy:, dx:])
                    look(f'{q1}, then {q2}, {name}', q2, [compress(first, q2)])
            for j, quality in enumerate(tenth, start=1):
                for name, coder in CODERS.items():
                    look(name, quality, [coder(image, quality)])
                coded = compress(image, quality)
                for dy in range(8):
                    row = [np.ascontiguousarray(coded[dy:, dx:]) for dx in range(8)]
                    for dx, p in enumerate(predictor.predict_all(row)):
                        phases.setdefault((dy, dx), []).append(abs(p.quality - quality))
                progress.update(i * len(tenth) + j, path.name)
    results = {'images': len(paths), 'qualities': tenth, 'kinds': {}, 'mae_by_phase': {}}
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
    results['mae_by_phase'] = {f'{dy},{dx}': value for (dy, dx), value in mae.items()}
    worst, best = max(mae, key=mae.get), min(mae, key=mae.get)
    print(f'64 grid phases: MAE {np.mean(list(mae.values())):.3f}, '
          f'most {mae[worst]:.3f} at {worst}, least {mae[best]:.3f} at {best}')
    return results


# ---------------------------------------------------------------- --fit_likelihood

def fit_likelihood(args):
    """count on TRAINING photos how patches answer at each quality; store it with the weights"""
    predictor = Predictor(args.comp_type, args.weights)
    paths = list_images(args.in_path, args.recursive)[:args.limit]
    rng = np.random.default_rng(0)
    counts = np.zeros((100, len(CONFIDENCE_EDGES) + 1, 101), int)

    def coded(case):
        image, quality, (dy, dx) = case
        return np.ascontiguousarray(compress(image, quality)[dy:, dx:])

    with ThreadPoolExecutor(2) as pool, Progress(len(paths), 'images') as progress:
        for done, path in enumerate(paths, start=1):
            image = read_image(path)
            cases = [(image, q, rng.integers(0, 8, 2)) for q in range(1, 101)]
            for q, one in enumerate(ordered_map(pool, coded, cases, ahead=8)):
                output = predictor.run_network(extract_patches(one, predictor.type))
                counts[q] += patch_counts(output)
            progress.update(done, path.name)
    path = Path(args.weights or best_folder(predictor.type)) / LIKELIHOOD_FILE
    with whole_file(path, 'wb') as file:
        np.savez_compressed(file, log_likelihood=patch_likelihood(counts).astype(np.float16))
    print(f'{counts.sum()} patches of {len(paths)} photos at 100 qualities; stored in {path}')
    return {'images': len(paths), 'patches': int(counts.sum())}


STUDIES = {'recompression': recompression, 'robustness': robustness,
           'fit_likelihood': fit_likelihood}
