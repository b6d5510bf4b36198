"""Measurements that evaluate_cls.py makes beside the plain one, each behind an option of its own.

A study takes the script's parsed arguments and the paths of photos that can be read and have
256 px on each side, prints what people want to see, and returns a dict for results.json. The
first line of its docstring is the option's help.
"""
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from console import Progress, named, open_predictor, ordered_map, save_figure, whole_file
from images import compress, draw_chroma, list_images, read_image
from lattice import decoder_luma, find_quality
from lattice_studies import LATTICE_STUDIES, pillow_jpeg
from metrics import confusion_figure, describe, error_metrics
from models import (CONFIDENCE_EDGES, LIKELIHOOD_FILE, InputError, Predictor, best_folder,
                    extract_patches, fuse, patch_counts, patch_likelihood, settle)

# ---------------------------------------------------------------- --robustness

def centre(image, side):
    """Its middle, at most `side` px high and wide, on the block grid."""
    top, left = (max(0, (length - side) // 16 * 8) for length in image.shape[:2])
    return image[top:top + side, left:left + side]


def pillow(**options):
    """A coder: a function (image, quality) -> pixels after Pillow's JPEG with these options."""
    return lambda image, quality: pillow_jpeg(image, quality=quality, **options)[0]


CODERS = {
    'OpenCV, 4:2:0': compress,
    'Pillow, 4:2:0': pillow(subsampling=2),
    'Pillow, 4:2:2': pillow(subsampling=1),
    'Pillow, 4:4:4': pillow(subsampling=0),
    'progressive': pillow(subsampling=2, progressive=True),
    'optimised Huffman': pillow(subsampling=2, optimize=True),
    'grayscale': pillow(mode='L'),
    **{f'middle {side} px': lambda image, q, side=side: centre(compress(image, q), side)
       for side in (256, 128, 64)}}
TWICE = ((50, 80), (70, 90), (80, 50), (90, 70), (75, 75))  # qualities one after the other


def robustness(args, paths):
    """errors with other coders, small, gray and twice compressed images, at every grid phase"""
    predictor = open_predictor(args)
    half = args.qualities[1::2] or args.qualities   # of the phases, which differ little
    tenth = args.qualities[4::10] or args.qualities
    kinds = {}    # name: [[true quality, the network's answer, the final one]]
    phases = {}   # (dy, dx): [absolute error of the network]

    def look(name, truth, images):
        for p in predictor.predict_all([np.ascontiguousarray(i) for i in images], refine=True):
            kinds.setdefault(name, []).append((truth, p.network_quality, p.quality))

    with Progress(len(paths) * len(half), 'qualities of images') as progress:
        for i, path in enumerate(paths):
            image = read_image(path)
            look('never compressed', 100, [image])
            for q1, q2 in TWICE:
                for name, (dy, dx) in (('same grid', (0, 0)), ('grid moved by (3, 5)', (3, 5))):
                    first = np.ascontiguousarray(compress(image, q1)[dy:, dx:])
                    look(f'{q1}, then {q2}, {name}', q2, [compress(first, q2)])
            for quality in tenth:
                for name, coder in CODERS.items():
                    look(name, quality, [coder(image, quality)])
            for j, quality in enumerate(half, start=1):
                coded = compress(image, quality)
                for dy in range(8):
                    row = [np.ascontiguousarray(coded[dy:, dx:]) for dx in range(8)]
                    for dx, p in enumerate(predictor.predict_all(row)):
                        phases.setdefault((dy, dx), []).append(abs(p.quality - quality))
                progress.update(i * len(half) + j, path.name)
    results = {'images': len(paths), 'qualities': tenth, 'qualities_by_phase': half,
               'kinds': {}, 'mae_by_phase': {}}
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


# ---------------------------------------------------------------- --analysis

SAMPLES = (8, 16, 24, 32)      # patches along an image axis
SHRUNK = (1, 2, 4)             # photos are made this much smaller before compression
SHARES = (0.3, 0.5, 0.7, 1.0)  # of an image's patches, the most confident ones
CALIBRATION_PHOTOS = 30
SOFTNESS = 3                   # levels of confidence in which a patch's weight falls by e


def most_confident(output, share):
    """The median quality of that share of the patches, output (n, 2)."""
    order = np.argsort(-output[:, 0])[:max(1, round(share * len(output)))]
    return float(np.median(output[order, 1]))


def weighted_median(output):
    """The median quality, in which surer patches count for more."""
    order = np.argsort(output[:, 1])
    weight = np.cumsum(np.exp((output[order, 0] - 100) / SOFTNESS))
    return float(output[order[np.searchsorted(weight, weight[-1] / 2)], 1])


def fusion_rules(predictor):
    """Ways to fuse an image's patches: functions from the network's output to a quality."""
    rules = {'median above the threshold (paper)':
             lambda output: fuse(output, predictor.threshold).quality}
    for share in SHARES:
        rules[f'median of the most confident {100 * share:g} %'] = partial(most_confident,
                                                                           share=share)
    rules['median weighted by confidence'] = weighted_median
    if predictor.log_likelihood is not None:
        rules['likelihood'] = lambda output: predictor.fuse(output).quality
    return rules


def shrunk(image, factor):
    """The photo at 1/factor of its width and height."""
    return image if factor == 1 else cv2.resize(image, None, fx=1 / factor, fy=1 / factor,
                                                interpolation=cv2.INTER_AREA)


def binned(by, values, bins=12):
    """Means of `by` and of `values` in equally full bins of `by`: two (bins,) arrays."""
    parts = np.array_split(np.argsort(by, kind='stable'), bins)
    return np.array([(by[part].mean(), values[part].mean()) for part in parts]).T


def network_outputs(predictor, paths, qualities, chroma='4:2:0'):
    """Yields (quality, the network's output (n, 2)) for photos at each quality, on any grid.

    chroma: of images.CHROMA.
    """
    rng = np.random.default_rng(0)

    def coded(case):
        image, quality, (dy, dx), drawn = case
        return np.ascontiguousarray(compress(image, quality, drawn)[dy:, dx:])

    with ThreadPoolExecutor(2) as pool, Progress(len(paths), 'images') as progress:
        for done, path in enumerate(paths, start=1):
            image = read_image(path)
            cases = [(image, q, rng.integers(0, 8, 2), draw_chroma(chroma, rng))
                     for q in qualities]
            for quality, one in zip(qualities, ordered_map(pool, coded, cases, ahead=8)):
                yield quality, predictor.run_network(
                    extract_patches(one, predictor.type, varied=True))
            progress.update(done, path.name)


def calibrations(predictor, rules, folder, qualities):
    """A monotone map from a fused answer to the quality, for each rule: isotonic regressions.

    They are fitted on the last photos of the folder, at all these qualities, on any grid.
    """
    from sklearn.isotonic import IsotonicRegression
    paths = list_images(folder)[-CALIBRATION_PHOTOS:]
    truth, outputs = zip(*network_outputs(predictor, paths, qualities))
    return {name: IsotonicRegression(out_of_bounds='clip').fit(list(map(rule, outputs)), truth)
            for name, rule in rules.items()}


def analysis(args, paths):
    """what limits accuracy: fusion rule, quality, texture, confidence, samples, photo size"""
    predictor = open_predictor(args)
    own = predictor.type
    rules = fusion_rules(predictor)
    shipped = list(rules)[-1]
    levels = args.qualities[4::5] or args.qualities
    monotone = {}
    if args.calibrate_on:
        compared = {name: rules[name] for name in (list(rules)[0], shipped)}
        monotone = calibrations(predictor, compared, args.calibrate_on, args.qualities)
    answers = {}   # rule, samples or shrinking: [quality, case by case]
    patches = []   # of all cases: true quality, confidence, answered quality, texture
    megapixels = {factor: [] for factor in SHRUNK}

    with Progress(len(paths) * len(levels), 'images') as progress:
        for i, path in enumerate(paths):
            photos = {factor: shrunk(read_image(path), factor) for factor in SHRUNK}
            for factor, photo in photos.items():
                megapixels[factor].append(photo.shape[0] * photo.shape[1] / 1e6)
            for j, quality in enumerate(levels, start=1):
                coded = {factor: compress(photo, quality) for factor, photo in photos.items()}
                cut = {f'{n} x {n} patches': extract_patches(
                    coded[1], replace(own, samples=n), varied=True) for n in SAMPLES}
                cut |= {f'1/{factor} of the size': extract_patches(
                    coded[factor], own, varied=True) for factor in SHRUNK}
                cut['patches not varied'] = extract_patches(coded[1], own)
                outputs = dict(zip(cut, predictor.run_together(list(cut.values()))))
                whole = f'1/{SHRUNK[0]} of the size'
                found = {name: rule(outputs[whole]) for name, rule in rules.items()}
                found |= {name: rules[shipped](output) for name, output in outputs.items()}
                for name, answer in found.items():
                    answers.setdefault(name, []).append(answer)
                texture = decoder_luma(cut[whole]).std(axis=(1, 2))
                patches.append(np.column_stack((np.full(len(texture), quality), outputs[whole],
                                                texture)))
                progress.update(i * len(levels) + j, path.name)

    calibrated = {f'{name}, calibrated': fitted.predict(answers[name])
                  for name, fitted in monotone.items()}
    answers |= calibrated
    truth = np.tile(levels, len(paths))
    errors = {name: np.array(found) - truth for name, found in answers.items()}
    mae = {name: float(np.abs(error).mean()) for name, error in errors.items()}
    print('\n'.join(f'{name:36} MAE {value:.3f}' for name, value in mae.items()))
    patches = np.concatenate(patches)
    patch_error = np.abs(patches[:, 2] - patches[:, 0])
    reliability = binned(patches[:, 1], patch_error)
    texture = binned(patches[:, 3], patch_error)
    bias = {name: [float(errors[name][truth == q].mean()) for q in levels]
            for name in (*rules, *calibrated)}
    sizes = {name: float(np.mean(megapixels[f]))
             for f, name in zip(SHRUNK, (f'1/{f} of the size' for f in SHRUNK))}

    save_figure(analysis_figure(levels, errors, truth, (list(rules)[0], shipped), mae, sizes,
                                reliability, texture), args.out_path / 'analysis.png')
    print(f'written: {args.out_path / "analysis.png"}')
    return {'images': len(paths), 'qualities': levels, 'mae': mae, 'bias_by_quality': bias,
            'megapixels': sizes, 'patch_error_by_confidence': reliability.tolist(),
            'patch_error_by_texture': texture.tolist()}


def analysis_figure(levels, errors, truth, rules, mae, sizes, reliability, texture):
    """Six panels: error and bias by quality, reliability, texture, samples, photo size."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(13, 7.5), layout='constrained')
    panels = figure.subplots(2, 3)
    for rule in rules:
        each = [errors[rule][truth == q] for q in levels]
        panels[0, 0].plot(levels, [np.abs(e).mean() for e in each], 'o-', markersize=3, label=rule)
        panels[0, 1].plot(levels, [e.mean() for e in each], 'o-', markersize=3, label=rule)
    panels[0, 0].set(title='where the error sits', xlabel='true quality', ylabel='MAE')
    panels[0, 1].set(title='bias', xlabel='true quality', ylabel='mean error')
    panels[0, 1].axhline(0, color='gray', linewidth=0.8)
    panels[0, 0].legend()
    panels[0, 2].plot(100 - reliability[0], reliability[1], 'o-', label='patches')
    panels[0, 2].axline((0, 0), slope=1, color='gray', linewidth=0.8, label='as foretold')
    panels[0, 2].set(title='how well confidence foretells the error',
                     xlabel='foretold error, 100 - confidence', ylabel='MAE of the patches')
    panels[0, 2].legend()
    panels[1, 0].plot(*texture, 'o-')
    panels[1, 0].set(title='texture', xlabel='standard deviation of a patch\'s luma',
                     ylabel='MAE of the patches', xscale='log')
    panels[1, 1].plot([n * n for n in SAMPLES], [mae[f'{n} x {n} patches'] for n in SAMPLES], 'o-')
    panels[1, 1].set(title='patches an image', xlabel='patches', ylabel='MAE', xscale='log',
                     xticks=[n * n for n in SAMPLES], xticklabels=[n * n for n in SAMPLES])
    panels[1, 1].minorticks_off()
    panels[1, 2].plot(list(sizes.values()), [mae[name] for name in sizes], 'o-')
    panels[1, 2].set(title='photos made smaller before compression', xlabel='megapixels',
                     ylabel='MAE')
    for panel in panels.flat:
        panel.grid(alpha=0.3)
    for panel in (panels[0, 0], *panels[1]):
        panel.set_ylim(bottom=0)
    return figure


# ---------------------------------------------------------------- --fit_likelihood

def fit_likelihood(args, paths):
    """count on TRAINING photos how patches answer at each quality; store it with the weights"""
    predictor = Predictor(args.comp_type, args.weights, fusion='median', runtime=args.runtime)
    counts = np.zeros((100, len(CONFIDENCE_EDGES) + 1, 101), int)
    for quality, output in network_outputs(predictor, paths, range(1, 101), 'mixed'):
        counts[quality - 1] += patch_counts(output)
    path = Path(args.weights or best_folder(predictor.type)) / LIKELIHOOD_FILE
    with whole_file(path, 'wb') as file:
        np.savez_compressed(file, log_likelihood=patch_likelihood(counts).astype(np.float16))
    print(f'{counts.sum()} patches of {len(paths)} photos at 100 qualities; stored in {path}')
    return {'images': len(paths), 'patches': int(counts.sum())}


# ---------------------------------------------------------------- --stopping

LEADS = (1, 1.5, 1.75, 2, 2.25, 2.5, 3)  # tried in place of SETTLED


def stopping(args, paths):
    """patches and MAE of stopping early at different leads, and of 32 to 256 patches"""
    predictor = Predictor(args.comp_type, args.weights, None, 'likelihood', args.runtime)
    truth, cases = [], []  # cases: the stages of 32, 64, ... and 256 patches
    with Progress(len(paths) * len(args.qualities), 'images') as progress:
        for i, path in enumerate(paths):
            image = read_image(path)
            for j, quality in enumerate(args.qualities, start=1):
                coded = compress(image, quality)
                for dy, dx in args.crop:
                    cropped = np.ascontiguousarray(coded[dy:, dx:])
                    patches = predictor.cut(cropped)
                    if len(patches) == predictor.type.samples ** 2:
                        output = predictor.run_network(patches)
                        cases.append([(ahead, predict()) for ahead, predict
                                      in predictor.stages(cropped, output.__getitem__)])
                        truth.append(quality)
                progress.update(i * len(args.qualities) + j, path.name)
    if not cases:
        raise InputError(f'{args.in_path}: no image is large enough for '
                         f'{predictor.type.samples ** 2} patches; choose larger ones')
    rules = {f'{stage.patches} patches': [case[k][1] for case in cases]
             for k, (_, stage) in enumerate(cases[0])}
    rules |= {f'stopped at {limit:g}': [
        settle(((ahead, lambda stage=stage: stage) for ahead, stage in case), limit)
        for case in cases] for limit in LEADS}
    results = {'images': len(paths), 'cases': len(cases), 'qualities': args.qualities}
    print(f'{"":16}patches    MAE  within one and two standard deviations')
    for name, found in rules.items():
        error = np.abs(np.array([p.quality for p in found]) - truth)
        spread = np.array([np.nan if p.uncertainty is None else p.uncertainty for p in found])
        row = {'patches': float(np.mean([p.patches for p in found])), 'mae': float(error.mean()),
               'within_one': float((error < spread).mean()),
               'within_two': float((error < 2 * spread).mean())}
        results[name] = row
        print(f'{name:16}{row["patches"]:7.1f}  {row["mae"]:.4f}  {100 * row["within_one"]:.1f} %, '
              f'{100 * row["within_two"]:.1f} %')
    return results


# ---------------------------------------------------------------- --compare

def compare(args, paths):
    """MobileNetV2, a JPEG-specific estimator and Q1Net side by side: compare.png

    The estimator finds the quantization table of maximum likelihood (Fan and de Queiroz
    2003, in lattice.py). Where it abstains, its answer counts as 100: "not compressed".
    """
    import mobilenet
    network = mobilenet.load(mobilenet.weights_folder())
    predictor = open_predictor(args)
    answers, abstained = [], 0
    with ThreadPoolExecutor(2) as pool:
        total = len(paths) * len(args.qualities)
        with Progress(total, 'images') as progress:
            for path in paths:
                look = partial(coded_and_estimated, read_image(path), args.crop[0])
                with named(path):
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


STUDIES = {'robustness': robustness, 'analysis': analysis, 'compare': compare,
           'fit_likelihood': fit_likelihood, 'stopping': stopping, **LATTICE_STUDIES}
