#!/usr/bin/env python3
"""Measure how well the quality is told, on images compressed here or on patches.

    python3 classifier/evaluate_cls.py --in_path DIV2K_valid_HR --comp_type jpeg_paper
    python3 classifier/evaluate_cls.py --in_path DIV2K_valid_HR --comp_type jpeg_paper \\
        --qualities 5-95:10 --crop 0,0 --crop 3,5
    python3 classifier/evaluate_cls.py --hdf5_val_path out/val.h5 --comp_type jpeg_paper
    python3 classifier/evaluate_cls.py --in_path DIV2K_valid_HR --comp_type jpeg_paper --robustness

The first compresses every image at every quality, predicts it, on all cores or with
--scheduler on a Dask cluster, and writes results.json and confusion_matrix.png; stopped
and started again, it goes on where it was. The second is the published protocol: ten
qualities, on and off the block grid. The third looks at single patches. The last is one
of several studies, each an option of its own. With --find_threshold the confidence
threshold of the lowest MAE is looked for and stored beside the weights;
--fit_likelihood, on training photos, stores how the patches' answers are spread at each
quality, which is the better way to fuse them.
"""
import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from console import (Progress, add_network_options, add_scheduler_option, check_writable, command,
                     complain, count, open_predictor, save_figure, whole_file)
from gen_data import sources
from images import compress, list_images, read_image
from jobs import (RowLog, begin_log, digest, in_groups, made_with, network_of, opened,
                  parallel_map)
from metrics import by_decade, confusion_figure, describe, error_metrics
from models import (LIKELIHOOD_FILE, THRESHOLD_FILE, InputError, best_folder,
                    confidence_loss, cores, extract_patches, fuse, get_comp_type)
from patches import PatchFile
from studies import STUDIES, fit_likelihood

THRESHOLDS = np.arange(80, 99.1, 0.5)  # that --find_threshold tries
CASES = 20                             # compressed images of a photo that one core makes at once
STUDY_SIDE = 256                       # px that an image of a study has at least


def qualities(text):
    """An argparse type: '1-100', '5-95:10' (every tenth) or '20,40,60'."""
    found = []
    for part in text.split(','):
        span, _, step = part.partition(':')
        first, _, last = span.partition('-')
        found += range(int(first), int(last or first) + 1, int(step or 1))
    if not found or min(found) < 1 or max(found) > 100:
        raise ValueError
    return found


def crop(text):
    """An argparse type: 'DY,DX', pixels to cut off at the top and the left."""
    dy, dx = (int(part) for part in text.split(','))
    if min(dy, dx) < 0:
        raise ValueError
    return dy, dx


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--in_path', metavar='DIR', help='folder of images never compressed before')
    source.add_argument('--hdf5_val_path', metavar='FILE', help='patches made by gen_data.py')
    add_network_options(parser, threshold=True)
    parser.add_argument('--out_path', type=Path, default='out', metavar='DIR', help='default: out')
    parser.add_argument('--qualities', type=qualities, default='1-100', metavar='Q',
                        help='such as 1-100 (default), 5-95:10 or 20,40,60')
    parser.add_argument('--crop', type=crop, action='append', metavar='DY,DX',
                        help='crop the compressed images, again and again for several crops '
                        '(default: 0,0)')
    parser.add_argument('--limit', type=count(1), metavar='N', help='only the first N images')
    parser.add_argument('--recursive', action='store_true', help='read subfolders too')
    parser.add_argument('--refine', action='store_true',
                        help='let the quantization lattice answer where there is one')
    other = parser.add_mutually_exclusive_group()
    for name, study in STUDIES.items():
        other.add_argument(f'--{name}', dest='study', action='store_const', const=study,
                           help=study.__doc__.partition('\n')[0])
    parser.add_argument('--calibrate_on', metavar='DIR', help='with --analysis: calibrate the '
                        'answers, by a monotone map fitted on these photos, too')
    parser.add_argument('--find_threshold', action='store_true',
                        help='find the best threshold for these images and store it')
    add_scheduler_option(parser)
    args = parser.parse_args(argv)
    if args.scheduler and (args.hdf5_val_path or args.study):
        parser.error('--scheduler goes with --in_path, without a study')
    if args.find_threshold and (args.hdf5_val_path or args.refine or args.fusion
                                or args.threshold is not None):
        parser.error('--find_threshold goes with --in_path, without --threshold, --fusion '
                     'and --refine')
    if (args.refine or args.study) and args.hdf5_val_path:
        parser.error(f'--refine and --{", --".join(STUDIES)} go with --in_path')
    if args.calibrate_on and args.study is not STUDIES['analysis']:
        parser.error('--calibrate_on goes with --analysis')
    if args.study and (args.refine or args.find_threshold):
        parser.error('--refine and --find_threshold do not go with a study')
    args.crop = args.crop or [(0, 0)]
    return args


# ---------------------------------------------------------------- whole images

def rule_names(predictor, find_threshold):
    """The ways to fuse patches that are measured."""
    if find_threshold:
        return [f'threshold {t:g}' for t in THRESHOLDS]
    return [fusion_name(predictor)]


def evaluate_images(args, predictor):
    """Predictions for every image, crop, quality and fusion rule: float (i, c, q, r).

    Also, in arrays of that shape, how many patches were above the threshold and whether the
    lattice gave the answer; the log in which finished images are kept until all are done, so
    that a stopped run loses those at work at most; and how many images were left out, named
    on stderr, because they cannot be used.
    """
    paths = list_images(args.in_path, args.recursive)[:args.limit]
    args.out_path.mkdir(parents=True, exist_ok=True)
    made = made_with(args, predictor)
    network = network_of(args, predictor, made)
    sizes = json.dumps([[str(p), os.path.exists(p) and p.stat().st_size] for p in paths])
    made |= {'qualities': args.qualities, 'crop': [list(c) for c in args.crop],
             'find_threshold': args.find_threshold,
             'images': digest(sizes.encode())}
    part = args.out_path / f'evaluation_{digest(json.dumps(made).encode())}.part'
    if not part.exists():
        begin_log(part, made)
    cases = [(c, q) for c in args.crop for q in args.qualities]
    chunks = list(in_groups(cases, CASES))
    failed = 0
    try:
        with RowLog(part, paths) as log, parallel_map(args.scheduler, args.in_path) as run, \
                Progress(len(paths) * len(cases), 'images', len(log) * len(cases)) as progress:
            todo = log.missing()
            work = ((os.path.abspath(paths[i]), chunk) for i in todo for chunk in chunks)
            found = run(evaluate_image, work, network, args.find_threshold, args.refine)
            done = len(log) * len(cases)
            for index in todo:
                answers = []
                for chunk in chunks:
                    answers.append(next(found))
                    done += len(chunk)
                    progress.update(done, paths[index].name)
                errors = [a for a in answers if isinstance(a, InputError)]
                if errors:
                    failed += 1
                    complain(f'evaluate_cls.py: error: {paths[index]}: {errors[0]}')
                else:
                    log.write(index, [str(paths[index]), sum(answers, [])])
            kept = [row for _, row in log.rows()]
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f'{part} keeps the images that are done; the same command goes on'
                                ) from None
    if not kept:
        part.unlink()
        raise InputError(f'{args.in_path}: none of the images can be used')
    rules = len(rule_names(predictor, args.find_threshold))
    shape = (len(kept), len(args.crop), len(args.qualities), rules, 3)
    return *np.moveaxis(np.array(kept, float).reshape(shape), -1, 0), part, failed


def fusion_name(predictor):
    """What to call the way in which this predictor fuses patches."""
    if predictor.log_likelihood is None:
        return f'threshold {predictor.threshold:g}'
    return 'likelihood' if predictor.stops_early else 'likelihood of all patches'


def evaluate_image(item, network, find_threshold, refine):
    """For each case and rule: [quality, confident patches, is it the lattice's].

    item: an image's path, and its cases, ((dy, dx), quality) each. The InputError, without
    the path, if the image cannot be used.
    """
    path, cases = item
    predictor, _ = opened(network)
    try:
        image = read_image(Path(path))
        return [predict_case(predictor, coded_crop(image, case), find_threshold, refine)
                for case in cases]
    except InputError as error:
        return InputError(str(error).removeprefix(f'{path}: '))


def predict_case(predictor, image, find_threshold, refine):
    """For each rule: [quality, confident patches, is it the lattice's]."""
    if find_threshold:
        output = predictor.run_network(extract_patches(image, predictor.type))
        found = [fuse(output, threshold) for threshold in THRESHOLDS]
    else:
        found = [predictor.predict(image, refine)]
    return [[p.quality, p.confident_patches, p.is_refined] for p in found]


def coded_crop(image, case):
    """The image after compression and cropping; case: ((dy, dx), quality)."""
    (dy, dx), quality = case
    return np.ascontiguousarray(compress(image, quality)[dy:, dx:])


def image_mode(args, predictor):
    rules = rule_names(predictor, args.find_threshold)
    predicted, confident, by_lattice, part, left_out = evaluate_images(args, predictor)
    truth = np.broadcast_to(np.array(args.qualities)[:, None], predicted.shape)
    results = {'images': len(predicted), 'qualities': args.qualities}
    best = 0
    if args.find_threshold:
        mae = np.abs(predicted - truth).mean(axis=(0, 1, 2))
        best = int(mae.argmin())
        results['mae_by_threshold'] = {f'{t:g}': float(m) for t, m in zip(THRESHOLDS, mae)}
        print('\n'.join(f'{rule}: MAE {m:.3f}' + (' (lowest)' if i == best else '')
                        for i, (rule, m) in enumerate(zip(rules, mae))))
        path = Path(args.weights or best_folder(predictor.type)) / THRESHOLD_FILE
        with whole_file(path) as file:
            print(f'{THRESHOLDS[best]:g}', file=file)
        print(f'stored in {path}')
    results['fusion'] = rules[best]
    results['threshold'] = float(THRESHOLDS[best] if args.find_threshold else predictor.threshold)
    predicted, confident, by_lattice, truth = (
        a[..., best] for a in (predicted, confident, by_lattice, truth))
    results['no_reliable_patch'] = float((confident == 0).mean())
    results['by_crop'] = {}
    for i, (dy, dx) in enumerate(args.crop):
        metrics = error_metrics(truth[:, i].ravel(), predicted[:, i].ravel())
        results['by_crop'][f'{dy},{dx}'] = metrics
        print(f'\n{predictor.type.name}, {results["fusion"]}, cropped by ({dy}, {dx})')
        print(describe(metrics))
    if args.refine:
        results['refined'] = float(by_lattice.mean())
        print(f'\nanswered by the lattice: {100 * results["refined"]:.2f} % of the images')
    print(f'no reliable patch: {100 * results["no_reliable_patch"]:.2f} % of the images')
    title = f'{predictor.type.name}, {truth.size} images'
    figure = confusion_figure(truth.ravel(), {title: predicted.ravel()})
    save_figure(figure, args.out_path / 'confusion_matrix.png')
    write_results(args, results)
    part.unlink()
    return 2 if left_out else 0


# ---------------------------------------------------------------- single patches

def patch_mode(args, predictor):
    file = PatchFile(args.hdf5_val_path, predictor.type)
    outputs = []
    with Progress(len(file), 'patches') as progress:
        for x, _ in file.in_order(2048):
            outputs.append(predictor.run_network(x))
            progress.update(sum(map(len, outputs)))
    output, truth = np.concatenate(outputs), file.y.astype(int)
    loss, error = (v.numpy() for v in confidence_loss(truth, output))
    kept = output[:, 0] > predictor.threshold
    results = {'patches': len(truth), 'threshold': predictor.threshold, 'loss': float(loss.mean()),
               'mae': float(error.mean()), 'mae_by_decade': by_decade(truth, error),
               'kept': float(kept.mean()), 'kept_by_decade': by_decade(truth, kept),
               'kept_mae': float(error[kept].mean()) if kept.any() else None,
               'kept_mae_by_decade': by_decade(truth[kept], error[kept])}
    print(f'{predictor.type.name}: loss {results["loss"]:.3f}, MAE {results["mae"]:.3f}, '
          f'{len(truth)} patches')
    print(f'above threshold {predictor.threshold:g}: {100 * results["kept"]:.1f} % of them'
          + (f', MAE {results["kept_mae"]:.3f}' if kept.any() else ''))
    print(f'{"quality":>8}  {"MAE":>6}  above threshold: share, MAE')
    for decade, mae in results['mae_by_decade'].items():
        share = results['kept_by_decade'][decade]
        kept_mae = results['kept_mae_by_decade'].get(decade)
        print(f'{decade:>8}  {mae:6.3f}  {100 * share:22.1f} %, '
              + ('-' if kept_mae is None else f'{kept_mae:.3f}'))
    write_results(args, results)


def write_results(args, results):
    path = args.out_path / 'results.json'
    with whole_file(path) as file:
        json.dump(results, file, indent=1)
    print(f'written: {path}')


@command
def main(argv=None):
    args = parse_args(argv)
    comp_type = get_comp_type(args.comp_type)
    folder = Path(args.weights or best_folder(comp_type))
    stored = folder / THRESHOLD_FILE
    check_writable(args.out_path / 'results.json', args.out_path / 'confusion_matrix.png',
                   stored if args.find_threshold else None,
                   folder / LIKELIHOOD_FILE if args.study is fit_likelihood else None)
    if args.study:
        listed = list_images(args.in_path, args.recursive)[:args.limit]
        with ThreadPoolExecutor(cores()) as pool:
            paths = sources(listed, STUDY_SIDE, pool)
        write_results(args, args.study(args, paths))
        return 2 if len(paths) < len(listed) else 0
    if args.find_threshold:
        args.fusion = 'median'  # whatever likelihood there is
    predictor = open_predictor(args)
    return (image_mode if args.in_path else patch_mode)(args, predictor)


if __name__ == '__main__':
    sys.exit(main())
