"""What limits the accuracy: fusion rule, quality, texture, confidence, number of patches, size."""
from dataclasses import replace
from functools import partial
from itertools import product

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
CALIBRATION_PHOTOS = 30
SOFTNESS = 3                   # levels of confidence in which a patch's weight falls by e


def most_confident(output, share):
    """The median quality of that share of the patches, output (n, 2)."""
    order = np.argsort(-output[:, 0])[:max(1, round(share * len(output)))]
    return float(np.median(output[order, 1]))


def weighted_median(output):
    """The median quality, in which more confident patches count for more."""
    order = np.argsort(output[:, 1])
    weight = np.cumsum(np.exp((output[order, 0] - 100) / SOFTNESS))
    return float(output[order[np.searchsorted(weight, weight[-1] / 2)], 1])


def _fusion_rules(predictor):
    """Ways to fuse an image's patches: functions from the network's output to a quality."""
    rules = {'median above the threshold (paper)': partial(
        median_fusion, threshold=predictor.threshold, max_quality=predictor.type.max_quality)}
    for share in SHARES:
        rules[f'median of the most confident {100 * share:g} %'] = partial(most_confident,
                                                                           share=share)
    rules['median weighted by confidence'] = weighted_median
    if predictor.log_likelihood is not None:
        rules['likelihood'] = lambda output: predictor.fuse(output, exponent=1).quality
    return rules


def binned(by, values, bins=12):
    """Means of `by` and of `values` in equally full bins of `by`: two (bins,) arrays."""
    parts = np.array_split(np.argsort(by, kind='stable'), bins)
    return np.array([(by[part].mean(), values[part].mean()) for part in parts]).T


def _calibrations(predictor, rules, folder, qualities):
    """A monotone map from a fused answer to the quality, for each rule: isotonic regressions.

    They are fitted on the last photos of the folder, at all these qualities.
    """
    from sklearn.isotonic import IsotonicRegression
    paths = list_images(folder)[-CALIBRATION_PHOTOS:]
    truth, outputs = zip(*network_outputs(predictor, paths, qualities))
    return {name: IsotonicRegression(out_of_bounds='clip').fit(list(map(rule, outputs)), truth)
            for name, rule in rules.items()}


def _patches(image, quality, own):
    """The patches of a photo at a quality, by name, and the megapixels of each size."""
    photos = {name: image if factor == 1 else cv2.resize(
        image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        for name, factor in SHRUNK.items()}
    coded = {name: compress(photo, quality) for name, photo in photos.items()}
    cut = {name: augmented_patches(coded[WHOLE], replace(own, samples=n))
           for name, n in SAMPLES.items()}
    cut |= {name: augmented_patches(one, own) for name, one in coded.items()}
    return (cut | {PLAIN: extract_patches(coded[WHOLE], own)},
            {name: photo.shape[0] * photo.shape[1] / 1e6 for name, photo in photos.items()})


def analysis(args, paths):
    """what limits accuracy: fusion rule, quality, texture, confidence, samples, photo size"""
    predictor = open_predictor(args)
    rules = _fusion_rules(predictor)
    paper, shipped = list(rules)[0], list(rules)[-1]
    levels = args.qualities[4::5] or args.qualities
    calibrations = {}
    if args.calibrate_on:
        calibrations = _calibrations(predictor, {name: rules[name] for name in (paper, shipped)},
                                     args.calibrate_on, args.qualities)
    answers = {}     # rule, samples or size: [quality, case by case]
    patches = []     # of all cases: true quality, confidence, answered quality, texture
    megapixels = []  # case by case: of each size
    for _, quality, (cut, sizes) in over_photos(partial(_patches, own=predictor.type),
                                                list(product(paths, levels))):
        outputs = dict(zip(cut, predictor.run_together(list(cut.values()))))
        found = {name: rule(outputs[WHOLE]) for name, rule in rules.items()}
        found |= {name: rules[shipped](output) for name, output in outputs.items()}
        for name, answer in found.items():
            answers.setdefault(name, []).append(answer)
        texture = decoder_luma(cut[WHOLE]).std(axis=(1, 2))
        patches.append(np.column_stack((np.full(len(texture), quality), outputs[WHOLE], texture)))
        megapixels.append(sizes)
    calibrated = {f'{name}, calibrated': fitted.predict(answers[name])
                  for name, fitted in calibrations.items()}
    truth = np.tile(levels, len(paths))
    errors = {name: np.array(found) - truth for name, found in (answers | calibrated).items()}
    mae = {name: float(np.abs(error).mean()) for name, error in errors.items()}
    print('\n'.join(f'{name:36} MAE {value:.3f}' for name, value in mae.items()))
    true, confidence, quality, texture = np.concatenate(patches).T
    found = {
        'images': len(paths), 'qualities': levels, 'mae': mae,
        'bias_by_quality': {name: [float(errors[name][truth == q].mean()) for q in levels]
                            for name in (*rules, *calibrated)},
        'megapixels': {name: float(np.mean([m[name] for m in megapixels])) for name in SHRUNK},
        'patch_error_by_confidence': binned(confidence, np.abs(quality - true)).tolist(),
        'patch_error_by_texture': binned(texture, np.abs(quality - true)).tolist()}
    mae_by_quality = {name: [float(np.abs(errors[name][truth == q]).mean()) for q in levels]
                      for name in (paper, shipped)}
    save_figure(_figure(found, mae_by_quality), args.out_path / 'analysis.png')
    print(f'written: {args.out_path / "analysis.png"}')
    return found


def _figure(found, mae_by_quality):
    """Six panels: error and bias by quality, reliability, texture, samples, photo size."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(13, 7.5), layout='constrained')
    by_quality, bias, reliability, texture, samples, size = panels = figure.subplots(2, 3).ravel()
    for rule, values in mae_by_quality.items():
        by_quality.plot(found['qualities'], values, 'o-', markersize=3, label=rule)
        bias.plot(found['qualities'], found['bias_by_quality'][rule], 'o-', markersize=3)
    bias.axhline(0, color='gray', linewidth=0.8)
    confidence, error = found['patch_error_by_confidence']
    reliability.plot(100 - np.array(confidence), error, 'o-', label='patches')
    reliability.axline((0, 0), slope=1, color='gray', linewidth=0.8, label='as predicted')
    texture.plot(*found['patch_error_by_texture'], 'o-')
    counts = [n * n for n in SAMPLES.values()]
    samples.plot(counts, [found['mae'][name] for name in SAMPLES], 'o-')
    size.plot(list(found['megapixels'].values()), [found['mae'][name] for name in SHRUNK], 'o-')
    for panel, title, xlabel, ylabel in (
            (by_quality, 'where the error sits', 'true quality', 'MAE'),
            (bias, 'bias', 'true quality', 'mean error'),
            (reliability, 'how well confidence predicts the error',
             'predicted error, 100 - confidence', 'MAE of the patches'),
            (texture, 'texture', "standard deviation of a patch's luma", 'MAE of the patches'),
            (samples, 'patches of an image', 'patches', 'MAE'),
            (size, 'photos made smaller before compression', 'megapixels', 'MAE')):
        panel.set(title=title, xlabel=xlabel, ylabel=ylabel)
        panel.grid(alpha=0.3)
    texture.set_xscale('log')
    samples.set(xscale='log', xticks=counts, xticklabels=counts)
    samples.minorticks_off()
    for panel in (by_quality, *panels[3:]):
        panel.set_ylim(bottom=0)
    for panel in (by_quality, reliability):
        panel.legend()
    return figure
