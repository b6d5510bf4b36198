"""What limits the accuracy: fusion rule, quality, texture, confidence, number of patches, size."""
import argparse
from collections import defaultdict
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from classifier.cli import open_predictor
from classifier.files import save_figure
from classifier.forensics.blocks import decoder_luma
from classifier.images import compress, list_images
from classifier.likelihood import augmented_patches
from classifier.models import extract_patches, median_fusion
from classifier.studies.common import over_photos
from classifier.studies.likelihood_fit import network_outputs

SAMPLES = {f'{n} x {n} patches': n for n in (8, 16, 24, 32)}  # patches along an image axis
# Photos are made this much smaller before compression.
SHRUNK = {f'1/{factor} of the size': factor for factor in (1, 2, 4)}
WHOLE, PLAIN = '1/1 of the size', 'without test-time augmentation'
SHARES = (0.3, 0.5, 0.7, 1.0)  # of an image's patches, the most confident ones
CALIBRATION_PHOTOS = 30        # the last ones of the folder
COLOURS = ('#0072b2', '#d55e00')  # blue and vermilion of Okabe and Ito, for everybody
FROM_ZERO = {'ylim': (0, None)}
SOFTNESS = 3                   # levels of confidence in which a patch's weight falls by e


def most_confident(output: np.ndarray, share: float) -> float:
    """The median quality of that share of the patches, output (n, 2)."""
    order = np.argsort(-output[:, 0])[:max(1, round(share * len(output)))]
    return float(np.median(output[order, 1]))


def weighted_median(output: np.ndarray) -> float:
    """The median quality, output (n, 2), in which more confident patches count for more."""
    order = np.argsort(output[:, 1])
    weight = np.cumsum(np.exp((output[order, 0] - 100) / SOFTNESS))
    return float(output[order[np.searchsorted(weight, weight[-1] / 2)], 1])


def _fusion_rules(predictor):
    """Ways to fuse an image's patches: functions from the network's output to a quality."""
    rules = {'median above the threshold (paper)': partial(
        median_fusion, threshold=predictor.threshold, max_quality=predictor.type.max_quality)}
    rules |= {f'median of the most confident {100 * share:g} %': partial(
        most_confident, share=share) for share in SHARES}
    rules['median weighted by confidence'] = weighted_median
    if predictor.log_likelihood is not None:
        paper, *_ = rules.values()  # where too few patches say anything
        rules['likelihood'] = lambda output: (predictor.fuse(output, (512, 512)).quality
                                              or paper(output))
    return rules


def binned(by: np.ndarray, values: np.ndarray, bins: int = 12) -> np.ndarray:
    """Means of `by` and of `values` in equally full bins of `by`: two (bins,) arrays."""
    parts = np.array_split(np.argsort(by, kind='stable'), bins)
    return np.array([(by[part].mean(), values[part].mean()) for part in parts]).T


def means_by_photo(by: np.ndarray, values: np.ndarray, photo: np.ndarray, bins: int = 12
                   ) -> np.ndarray:
    """Means of `values` in the bins of `binned`, photo by photo: (photos, bins).

    NaN where a photo has no patch in a bin.
    """
    number = np.empty(len(by), int)
    for i, part in enumerate(np.array_split(np.argsort(by, kind='stable'), bins)):
        number[part] = i
    where = photo.astype(int) * bins + number
    size = bins * (int(photo.max()) + 1)
    counts, sums = (np.bincount(where, weights, size) for weights in (None, values))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(-1, bins)


def interval(by_photo: np.ndarray) -> np.ndarray:
    """Half the 95 % confidence interval of the means over photos, (photos, ...): (...).

    From the standard error; 0 for a single photo.
    """
    n = np.maximum((~np.isnan(by_photo)).sum(axis=0), 1)
    squares = np.nansum(np.square(by_photo - np.nansum(by_photo, axis=0) / n), axis=0)
    return 1.96 * np.sqrt(squares / np.maximum(n - 1, 1) / n)


def _patches(image, quality, own):
    """The patches of a photo at a quality, by name, and the megapixels of each size."""
    coded = {name: compress(cv2.resize(image, None, fx=1 / factor, fy=1 / factor,
                                       interpolation=cv2.INTER_AREA), quality)
             for name, factor in SHRUNK.items()}
    cut = {name: augmented_patches(coded[WHOLE], replace(own, samples=n))
           for name, n in SAMPLES.items()}
    cut |= {name: augmented_patches(one, own) for name, one in coded.items()}
    cut[PLAIN] = extract_patches(coded[WHOLE], own)
    return cut, {name: one.shape[0] * one.shape[1] / 1e6 for name, one in coded.items()}


def analysis(args: argparse.Namespace, paths: list[Path]) -> dict:
    """what limits accuracy: fusion rule, quality, texture, confidence, samples, photo size"""
    predictor = open_predictor(args)
    rules = _fusion_rules(predictor)
    paper, *_, shipped = rules
    levels = args.qualities[4::5] or args.qualities
    maps = {}  # of two rules: a monotone map from a fused answer to the quality
    if args.calibrate_on:
        from sklearn.isotonic import IsotonicRegression
        others = list_images(args.calibrate_on)[-CALIBRATION_PHOTOS:]
        truth, outputs = zip(*network_outputs(predictor, product(others, args.qualities)))
        maps = {name: IsotonicRegression(out_of_bounds='clip').fit(
            [rules[name](output) for output in outputs], truth) for name in (paper, shipped)}
    answers = defaultdict(list)     # of a rule, number of samples or size: qualities, case by case
    megapixels = defaultdict(list)  # of a size
    # (n, 5): true quality, confidence, answered quality, texture, number of the photo
    patches = []
    numbers = {path: number for number, path in enumerate(paths)}
    for path, quality, (cut, sizes) in over_photos(partial(_patches, own=predictor.type),
                                                product(paths, levels)):
        outputs = dict(zip(cut, predictor.run_together(list(cut.values()))))
        found = {name: rule(outputs[WHOLE]) for name, rule in rules.items()}
        found |= {name: rules[shipped](output) for name, output in outputs.items()}
        for name, answer in found.items():
            answers[name].append(answer)
        for name, size in sizes.items():
            megapixels[name].append(size)
        texture = decoder_luma(cut[WHOLE]).std(axis=(1, 2))
        patches.append(np.column_stack((np.full(len(texture), quality), outputs[WHOLE], texture,
                                        np.full(len(texture), numbers[path]))))
    answers |= {f'{name}, calibrated': fit.predict(answers[name]) for name, fit in maps.items()}
    truth = np.tile(levels, len(paths))
    errors = {name: np.array(found) - truth for name, found in answers.items()}
    mae = {name: float(np.abs(error).mean()) for name, error in errors.items()}
    print('\n'.join(f'{name:36} MAE {value:.3f}' for name, value in mae.items()))

    def by_level(values):
        return [float(values[truth == q].mean()) for q in levels]

    true, confidence, quality, texture, photo = np.concatenate(patches).T
    wrong = np.abs(quality - true)
    found = {
        'images': len(paths), 'qualities': levels, 'mae': mae,
        'bias_by_quality': {name: by_level(errors[name])
                            for name in (*rules, *(f'{name}, calibrated' for name in maps))},
        'megapixels': {name: float(np.mean(sizes)) for name, sizes in megapixels.items()},
        'patch_error_by_confidence': binned(confidence, wrong).tolist(),
        'patch_error_by_texture': binned(texture, wrong).tolist()}
    by_photo = {name: error.reshape(len(paths), len(levels)) for name, error in errors.items()}
    bins = {name: (binned(values, wrong), interval(means_by_photo(values, wrong, photo)))
            for name, values in (('error', 100 - confidence), ('texture', texture))}
    save_figure(_figure(found, by_photo, (paper, shipped), bins), args.out_path / 'analysis.png')
    print(f'written: {args.out_path / "analysis.png"}')
    return found


def _figure(found, by_photo, rules, bins):
    """Six panels: error and bias by quality, confidence, texture, number of patches, size."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter
    figure = Figure(figsize=(13, 7.8), layout='constrained')
    levels, counts = found['qualities'], [n * n for n in SAMPLES.values()]
    absolute = {name: np.abs(errors) for name, errors in by_photo.items()}

    def over_levels(errors):  # a curve: x, y, half an interval
        return levels, errors.mean(axis=0), interval(errors)

    def over_names(x, names):
        errors = np.array([absolute[name].mean(axis=1) for name in names]).T
        return x, errors.mean(axis=0), interval(errors)

    (confidence, observed), (texture, by_texture) = (means for means, _ in bins.values())
    panels = (  # title, labels of the axes, {name of a curve: (x, y, half interval)}, settings
        ('error by quality', 'true quality', 'MAE, levels',
         {rule: over_levels(absolute[rule]) for rule in rules}, FROM_ZERO),
        ('bias by quality', 'true quality', 'mean error, levels',
         {rule: over_levels(by_photo[rule]) for rule in rules}, {}),
        ('confidence against observed error', 'predicted error, 100 \u2212 confidence',
         'MAE of the patches, levels', {'patches': (confidence, observed, bins['error'][1])}, {}),
        ('error by texture', "standard deviation of a patch's luma (logarithmic)",
         'MAE of the patches, levels', {'': (texture, by_texture, bins['texture'][1])},
         {'xscale': 'log'} | FROM_ZERO),
        ('error by number of patches', 'patches of an image (logarithmic)', 'MAE, levels',
         {'': over_names(counts, SAMPLES)},
         {'xscale': 'log', 'xticks': counts, 'xticklabels': counts} | FROM_ZERO),
        ('error by size of the photo', 'megapixels, reduced in size first', 'MAE, levels',
         {'': over_names(list(found['megapixels'].values()), SHRUNK)}, FROM_ZERO))
    axes = figure.subplots(2, 3).ravel()
    for letter, axis, (title, xlabel, ylabel, curves, settings) in zip('abcdef', axes, panels):
        for (name, (x, y, half)), colour, marker in zip(curves.items(), COLOURS, 'os'):
            axis.errorbar(x, y, half, color=colour, marker=marker, label=name, capsize=2,
                          markersize=4, linewidth=1.2, elinewidth=0.8)
        axis.set(**settings)
        axis.set_title(f'({letter}) {title}', fontsize=12)
        axis.set_xlabel(xlabel, fontsize=12)
        axis.set_ylabel(ylabel, fontsize=12)
        axis.grid(alpha=0.3)
    axes[1].axhline(0, color='gray', linewidth=0.8)
    axes[2].axline((0, 0), slope=1, color='gray', linewidth=0.8, label='equal')
    axes[3].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[3].xaxis.set_major_formatter('{x:g}')
    axes[3].xaxis.set_minor_formatter(NullFormatter())
    axes[4].minorticks_off()
    for axis in (axes[0], axes[2]):
        axis.legend(fontsize=11)
    figure.supxlabel(f'bars: 95 % confidence intervals over {found["images"]} photos', fontsize=11)
    return figure
