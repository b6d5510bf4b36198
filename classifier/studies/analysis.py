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
    patches = []                    # (n, 4): true quality, confidence, answered quality, texture
    for _, quality, (cut, sizes) in over_photos(partial(_patches, own=predictor.type),
                                                product(paths, levels)):
        outputs = dict(zip(cut, predictor.run_together(list(cut.values()))))
        found = {name: rule(outputs[WHOLE]) for name, rule in rules.items()}
        found |= {name: rules[shipped](output) for name, output in outputs.items()}
        for name, answer in found.items():
            answers[name].append(answer)
        for name, size in sizes.items():
            megapixels[name].append(size)
        texture = decoder_luma(cut[WHOLE]).std(axis=(1, 2))
        patches.append(np.column_stack((np.full(len(texture), quality), outputs[WHOLE], texture)))
    answers |= {f'{name}, calibrated': fit.predict(answers[name]) for name, fit in maps.items()}
    truth = np.tile(levels, len(paths))
    errors = {name: np.array(found) - truth for name, found in answers.items()}
    mae = {name: float(np.abs(error).mean()) for name, error in errors.items()}
    print('\n'.join(f'{name:36} MAE {value:.3f}' for name, value in mae.items()))

    def by_level(values):
        return [float(values[truth == q].mean()) for q in levels]

    true, confidence, quality, texture = np.concatenate(patches).T
    found = {
        'images': len(paths), 'qualities': levels, 'mae': mae,
        'bias_by_quality': {name: by_level(errors[name])
                            for name in (*rules, *(f'{name}, calibrated' for name in maps))},
        'megapixels': {name: float(np.mean(sizes)) for name, sizes in megapixels.items()},
        'patch_error_by_confidence': binned(confidence, np.abs(quality - true)).tolist(),
        'patch_error_by_texture': binned(texture, np.abs(quality - true)).tolist()}
    mae_by_quality = {name: by_level(np.abs(errors[name])) for name in (paper, shipped)}
    save_figure(_figure(found, mae_by_quality), args.out_path / 'analysis.png')
    print(f'written: {args.out_path / "analysis.png"}')
    return found


def _figure(found, mae_by_quality):
    """Six panels: error and bias by quality, reliability, texture, samples, photo size."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(13, 7.5), layout='constrained')
    levels, mae, bias = found['qualities'], found['mae'], found['bias_by_quality']
    confidence, error = found['patch_error_by_confidence']
    counts = [n * n for n in SAMPLES.values()]
    from_zero = {'ylim': (0, None)}
    panels = (  # title, labels of the axes, {name of a curve: (x, y)}, settings
        ('where the error sits', 'true quality', 'MAE',
         {rule: (levels, values) for rule, values in mae_by_quality.items()}, from_zero),
        ('bias', 'true quality', 'mean error',
         {rule: (levels, bias[rule]) for rule in mae_by_quality}, {}),
        ('how well confidence predicts the error', 'predicted error, 100 - confidence',
         'MAE of the patches', {'patches': (100 - np.array(confidence), error)}, {}),
        ('texture', "standard deviation of a patch's luma", 'MAE of the patches',
         {'': found['patch_error_by_texture']}, {'xscale': 'log'} | from_zero),
        ('patches of an image', 'patches', 'MAE', {'': (counts, [mae[n] for n in SAMPLES])},
         {'xscale': 'log', 'xticks': counts, 'xticklabels': counts} | from_zero),
        ('photos made smaller before compression', 'megapixels', 'MAE',
         {'': (list(found['megapixels'].values()), [mae[n] for n in SHRUNK])}, from_zero))
    axes = figure.subplots(2, 3).ravel()
    for axis, (title, xlabel, ylabel, curves, settings) in zip(axes, panels):
        for name, (x, y) in curves.items():
            axis.plot(x, y, 'o-', label=name, markersize=3 if len(curves) > 1 else None)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel, **settings)
        axis.grid(alpha=0.3)
    axes[1].axhline(0, color='gray', linewidth=0.8)
    axes[2].axline((0, 0), slope=1, color='gray', linewidth=0.8, label='as predicted')
    axes[4].minorticks_off()
    for axis in (axes[0], axes[2]):
        axis.legend()
    return figure
