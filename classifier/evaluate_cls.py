#!/usr/bin/env python3
"""Measure how well the quality is predicted, on images compressed here or on patches.

    python3 classifier/evaluate_cls.py --in_path DIV2K_valid_HR --comp_type jpeg_paper
    python3 classifier/evaluate_cls.py --in_path DIV2K_valid_HR --comp_type jpeg_paper \\
        --qualities 5-95:10 --crop 0,0 --crop 3,5
    python3 classifier/evaluate_cls.py --hdf5_val_path out/val.h5 --comp_type jpeg_paper
    python3 classifier/evaluate_cls.py --in_path DIV2K_valid_HR --comp_type jpeg_paper \\
        --study robustness

The first compresses every image at every quality, predicts it, and writes results.json and
confusion_matrix.png; stopped and started again, it goes on where it was. The second is the
published protocol: ten qualities, on and off the block grid. The third measures single patches.
The last is one of the studies, which write results_<study>.json.

--fit makes what turns the patches' answers into one for the image, and writes it to --out_path, to
be put beside the weights.
"""
import os
import sys
if __name__ == '__main__':  # from here on Ctrl-C leaves no traceback
    sys.excepthook = lambda *error: error[0] is KeyboardInterrupt or sys.__excepthook__(*error)
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # NumPy's: others wait busily, for little
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import importlib
import itertools
import json
import platform
import shlex
import textwrap
from collections.abc import Sequence

from classifier.batch import digest, made_with, network_of, opened, parallel_map, worth_processes
from classifier.checkpoints import THRESHOLD_FILE, best_folder, refuse_shipped, weights_digest
from classifier.cli import (Progress, add_network_options, add_scheduler_option, command, complain,
                            count, open_predictor, script_parser, warn)
from classifier.errors import InputError
from classifier.files import check_writable, save_figure, whole_file
from classifier.images import compress, list_images, read_image
from classifier.models import confidence_loss, extract_patches, get_comp_type, median_fusion
from classifier.patches import PatchFile
from classifier.predictor import AUTOMATIC, Predictor
from classifier.run_rows import RunRows
from classifier.sources import usable_images, warn_of_jpeg
from classifier.studies import FITS, STUDIES
from classifier.studies.metrics import by_decade, confusion_figure, describe, error_metrics

import cv2  # after classifier, which says what to type where it is missing
import numpy as np
import PIL

THRESHOLDS = np.arange(80, 99.1, 0.5)  # that --fit threshold tries
CASES = 20                             # compressed images of a photo that one core makes at once
STUDY_SIDE = 256                       # px that an image of a study has at least
PACKAGES = {'litert': 'ai_edge_litert', 'tensorflow': 'tensorflow'}  # of the runtimes


def qualities(text: str) -> list[int]:
    """An argparse type: '1-100', '5-95:10' (every tenth) or '20,40,60'."""
    found = []
    for part in text.split(','):
        span, _, step = part.partition(':')
        first, _, last = span.partition('-')
        found += range(int(first), int(last or first) + 1, int(step or 1))
    if not found or min(found) < 1 or max(found) > 100:
        raise ValueError
    return found


def crop(text: str) -> tuple[int, int]:
    """An argparse type: 'DY,DX', pixels to cut off at the top and the left."""
    dy, dx = (int(part) for part in text.split(','))
    if min(dy, dx) < 0:
        raise ValueError
    return dy, dx


def lines(studies: dict) -> list[str]:
    """A line of help for each of {name: Study}, wrapped."""
    return [textwrap.fill(f'  {name:14} {study.line}', 100, subsequent_indent=17 * ' ')
            for name, study in studies.items()]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked; without `argv` those of the command line."""
    parser = script_parser(__doc__, '\n'.join(['studies:', *lines(STUDIES)]),
                           '\n'.join(['fits:', *lines(FITS)]),
                           usage='%(prog)s (--in_path DIR | --hdf5_val_path FILE) [options]')
    given = parser.add_argument_group('input')
    source = given.add_mutually_exclusive_group(required=True)
    source.add_argument('--in_path', metavar='DIR', help='folder of lossless photos, never JPEG')
    source.add_argument('--hdf5_val_path', metavar='FILE', help='patches made by gen_data.py')
    given.add_argument('--recursive', action='store_true', help='subfolders too')
    given.add_argument('--limit', type=count(1), metavar='N', help='only the first N images')
    network = parser.add_argument_group('network')
    add_network_options(network, prediction=True)
    network.add_argument('--refine', action='store_true',
                         help='with --comp_type: look for the exact quality first')
    measured = parser.add_argument_group('what is measured')
    measured.add_argument('--qualities', type=qualities, metavar='Q',
                          help='such as 1-100 (default), 5-95:10 or 20,40,60')
    measured.add_argument('--crop', type=crop, action='append', metavar='DY,DX',
                          help='crop the compressed images; repeat it for several crops '
                          '(default: 0,0)')
    measured.add_argument('--sample', type=count(1), metavar='N',
                          help='with --study recovery and decoders: of each row, only N images, '
                          'drawn at random')
    other = measured.add_mutually_exclusive_group()
    other.add_argument('--study', choices=STUDIES, metavar='NAME',
                       help='one of the studies below, in place of the plain evaluation')
    other.add_argument('--fit', choices=FITS, metavar='NAME',
                       help='one of the fits below')
    measured.add_argument('--calibrate_on', metavar='DIR', help='with --study analysis: also '
                          'calibrate the answers, by a monotone map fitted on these photos')
    measured.add_argument('--baseline', metavar='DIR', help='with --study compare: weights of '
                          'MobileNetV2 (default: the shipped)')
    output = parser.add_argument_group('output')
    output.add_argument('--out_path', type=Path, default='out', metavar='DIR', help='default: out')
    add_scheduler_option(parser.add_argument_group('scale'))
    args = parser.parse_args(argv)
    patches, name = args.hdf5_val_path, args.study or args.fit
    work = STUDIES.get(args.study) or FITS.get(args.fit)
    args.work = work if work and work.module else None
    args.find_threshold = args.fit == 'threshold'
    plain = () if patches else ('qualities', 'crop')
    for wrong, rule in (
            (name and patches, f'{name} goes with --in_path'),
            *((getattr(args, option) and option not in (work.uses if work else plain),
               f'--{option} does not go with {name or "--hdf5_val_path"}')
              for option in ('qualities', 'crop', 'sample')),
            (patches and (args.limit or args.recursive),
             '--limit and --recursive go with --in_path'),
            (args.scheduler and (patches or args.work),
             '--scheduler goes with --in_path, without a study and with no fit but threshold'),
            (args.refine and (patches or name), '--refine goes with --in_path, without --study '
             'and --fit'),
            (args.fit and (args.fusion or args.threshold is not None),
             '--fit does not go with --fusion and --threshold'),
            (args.comp_type is None and (work.needs_type if work else patches),
             f'name a --comp_type: {name or "--hdf5_val_path"} needs one'),
            (args.calibrate_on and args.study != 'analysis',
             '--calibrate_on goes with --study analysis'),
            (args.baseline and args.study != 'compare', '--baseline goes with --study compare')):
        if wrong:
            parser.error(rule)
    args.qualities, args.crop = args.qualities or qualities('1-100'), args.crop or [(0, 0)]
    stem = 'results' if not args.work else f'results_{args.study or "fit_" + args.fit}'
    args.results = args.out_path / f'{stem}.json'
    args.command = shlex.join(['evaluate_cls.py', *(sys.argv[1:] if argv is None else argv)])
    return args


def fill_rows(args: argparse.Namespace, rows: RunRows, network: tuple) -> int:
    """Evaluate the images that have no row yet; how many had to be left out.

    An image's row has [quality, confident patches, is it the lattice's] for each crop, quality
    and, with --fit threshold, threshold.
    """
    cases = [(c, q) for c in args.crop for q in args.qualities]
    chunks = [cases[i:i + CASES] for i in range(0, len(cases), CASES)]
    done, failed = len(rows) * len(cases), 0
    apart = worth_processes(network, len(rows.missing) * len(chunks))
    with parallel_map(args.scheduler, args.in_path, apart=apart) as run, \
            Progress(len(rows.paths) * len(cases), 'images', done) as progress:
        work = ((os.path.abspath(rows.paths[i]), chunk) for i in rows.missing for chunk in chunks)
        found = run(evaluate_image, work, network, args.find_threshold, args.refine)
        for index in rows.missing:
            path, answers = rows.paths[index], list(itertools.islice(found, len(chunks)))
            if errors := [a for a in answers if isinstance(a, InputError)]:
                failed += 1
                complain(f'evaluate_cls.py: error: {path}: {errors[0]}')
            else:
                warn_of_jpeg(path)
                rows.write(index, sum(answers, []))
            done += len(cases)
            progress.update(done, path.name)
    return failed


def evaluate_image(item: tuple, network: tuple, find_threshold: bool,
                   refine: bool) -> list[list] | InputError:
    """A part of an image's row, for its path and some cases; or an InputError without the path."""
    path, cases = item
    predictor = opened(network)
    try:
        image, found = read_image(Path(path)), []
        for (dy, dx), quality in cases:
            coded = np.ascontiguousarray(compress(image, quality)[dy:, dx:])
            if find_threshold:
                output = predictor.run_network(extract_patches(coded, predictor.type))
                found += [[median_fusion(output, t), int((output[:, 0] > t).sum()), False]
                          for t in THRESHOLDS]
            else:
                p = predictor.predict(coded, refine)
                found.append([p.quality, p.confident_patches, p.is_refined])
        return found
    except InputError as error:
        return InputError(str(error).removeprefix(f'{path}: '))


def image_mode(args: argparse.Namespace, predictor: Predictor, made: dict) -> int:
    """Evaluate the images of --in_path; the exit status."""
    paths = list_images(args.in_path, args.recursive, warn)[:args.limit]
    sizes = [(str(path), os.path.exists(path) and path.stat().st_size) for path in paths]
    recipe = json.dumps([made, args.qualities, args.crop, args.find_threshold, sizes])
    with RunRows(args.out_path / f'evaluation_{digest(recipe.encode())}.part', paths, made) as rows:
        failed = fill_rows(args, rows, network_of(args, predictor, made))
        try:
            report(args, predictor, made, dict(rows))
        except InputError:
            rows.close(remove=True)
            raise
        rows.close(remove=True)
    return 2 if failed else 0


def report(args: argparse.Namespace, predictor: Predictor, made: dict, kept: dict) -> None:
    """Print and write what the rows of the images say."""
    if not kept:
        raise InputError(f'{args.in_path}: none of the images can be used')
    shape = len(kept), len(args.crop), len(args.qualities), -1, 3
    found, truth = np.array(list(kept.values()), float).reshape(shape), np.array(args.qualities)
    results = {'images': len(kept), 'qualities': args.qualities}
    best, threshold = 0, float(predictor.threshold)
    if args.find_threshold:
        best = find_threshold(args, found[..., 0] - truth[:, None], found[..., 1], results)
        threshold = float(THRESHOLDS[best])
    predicted, confident, by_lattice = np.moveaxis(found[..., best, :], -1, 0)
    truth = np.broadcast_to(truth, predicted.shape)
    fusion, name = predictor.fusion, predictor.name
    if fusion == 'median':
        fusion = f'threshold {threshold:g}'
    elif fusion == 'likelihood' and not predictor.stops_early:
        fusion = 'likelihood of all patches'
    unreliable, unanswered = float((confident == 0).mean()), float(np.isnan(predicted).mean())
    results |= {'fusion': fusion, 'threshold': threshold, 'no_reliable_patch': unreliable,
                'no_answer': unanswered, 'by_crop': {}}
    for i, (dy, dx) in enumerate(args.crop):
        metrics = error_metrics(truth[:, i].ravel(), predicted[:, i].ravel())
        results['by_crop'][f'{dy},{dx}'] = metrics
        print(f'\n{name}, {fusion}, cropped by ({dy}, {dx})\n{describe(metrics)}')
    if args.refine or predictor.automatic:
        results['refined'] = float(by_lattice.mean())
        print(f'\nanswered by the lattice: {100 * results["refined"]:.2f} % of the images')
    if fusion.startswith('threshold'):
        print(f'no reliable patch: {100 * unreliable:.2f} % of the images')
    else:
        print(f'no answer: {100 * unanswered:.2f} % of the images')
    answered = ~np.isnan(predicted)
    figure = confusion_figure(truth[answered], {
        f'{name}, {fusion}, {answered.sum():,} images': predicted[answered]})
    save_figure(figure, args.out_path / 'confusion_matrix.png')
    write_results(args, made, results, [
        {'path': str(path), 'crop': f'{dy},{dx}', 'qualities': args.qualities,
         'predicted': [None if np.isnan(p) else round(p, 2) for p in predicted[i, j].tolist()],
         'by_lattice': by_lattice[i, j].astype(int).tolist()}
        for i, path in enumerate(kept) for j, (dy, dx) in enumerate(args.crop)])


def find_threshold(args: argparse.Namespace, error: np.ndarray, confident: np.ndarray,
                   results: dict) -> int:
    """Index of the threshold of the lowest MAE, which is written to --out_path.

    The shape of `error` and `confident` is (images, crops, qualities, thresholds).

    Thresholds at which most images have no reliable patch, so that their answer is 100 whatever
    the network says, are not candidates.
    """
    mae, unreliable = np.abs(error).mean(axis=(0, 1, 2)), (confident == 0).mean(axis=(0, 1, 2))
    usable = unreliable <= 0.5
    best = int(np.where(usable, mae, np.inf).argmin())
    results['mae_by_threshold'] = {f'{t:g}': float(m) for t, m in zip(THRESHOLDS, mae)}
    for i, (threshold, m, share) in enumerate(zip(THRESHOLDS, mae, unreliable)):
        note = f' (no reliable patch in {100 * share:.0f} % of the images)'
        print(f'threshold {threshold:g}: MAE {m:.3f}'
              + (note if not usable[i] else ' (lowest)' if i == best else ''))
    if not usable.any():
        raise InputError(f'{args.in_path}: at each of these thresholds most images have no '
                         'reliable patch, so none was stored; train the network further')
    path = args.out_path / THRESHOLD_FILE
    with whole_file(path) as file:
        print(f'{THRESHOLDS[best]:g}', file=file)
    print(f'stored in {path}')
    return best


def patch_mode(args: argparse.Namespace, predictor: Predictor, made: dict) -> None:
    """Evaluate the patches of --hdf5_val_path."""
    file, outputs = PatchFile(args.hdf5_val_path, predictor.type), []
    with Progress(len(file), 'patches') as progress:
        for x, _ in file.in_order(2048):
            outputs.append(predictor.run_network(x))
            progress.update(sum(map(len, outputs)))
    output, truth, threshold = np.concatenate(outputs), file.y.astype(int), predictor.threshold
    loss, error = (v.numpy() for v in confidence_loss(truth, output))
    kept = output[:, 0] > threshold
    results = {'patches': len(truth), 'threshold': threshold, 'loss': float(loss.mean()),
               'mae': float(error.mean()), 'mae_by_decade': by_decade(truth, error),
               'kept': float(kept.mean()), 'kept_by_decade': by_decade(truth, kept),
               'kept_mae': float(error[kept].mean()) if kept.any() else None,
               'kept_mae_by_decade': by_decade(truth[kept], error[kept])}
    print(f'{predictor.type.name}: loss {results["loss"]:.3f}, MAE {results["mae"]:.3f}, '
          f'{len(truth)} patches')
    print(f'above threshold {threshold:g}: {100 * results["kept"]:.1f} % of them'
          + (f', MAE {results["kept_mae"]:.3f}' if kept.any() else ''))
    print(f'{"quality":>8}  {"MAE":>6}  above threshold: share, MAE')
    for decade, mae in results['mae_by_decade'].items():
        kept_mae = results['kept_mae_by_decade'].get(decade)
        print(f'{decade:>8}  {mae:6.3f}  {100 * results["kept_by_decade"][decade]:22.1f} %, '
              + ('-' if kept_mae is None else f'{kept_mae:.3f}'))
    write_results(args, made, results)


def write_results(args: argparse.Namespace, made: dict, results: dict,
                  answers: Sequence[dict] = ()) -> None:
    """The results with what made them and, a line for each, the answers for the images."""
    versions = {'python': platform.python_version(), 'numpy': np.__version__,
                'opencv': cv2.__version__, 'pillow': PIL.__version__}
    if runtime := made.get('runtime'):
        versions[runtime] = importlib.import_module(PACKAGES[runtime]).__version__
    results = results | {'made_with': made | {'versions': versions, 'command': args.command}}
    text = json.dumps(results, indent=1)
    if answers:
        lines = ',\n  '.join(map(json.dumps, answers))
        text = f'{text[:-2]},\n "answers": [\n  {lines}\n ]\n}}'
    with whole_file(args.results) as file:
        file.write(text)
    print(f'written: {args.results}')


@command
def main(argv: list[str] | None = None) -> int | None:
    args = parse_args(argv)
    comp_type = get_comp_type(args.comp_type or AUTOMATIC)
    if args.fit:
        refuse_shipped(args.out_path)
    check_writable(args.results, None if args.work else args.out_path / 'confusion_matrix.png',
                   args.out_path / THRESHOLD_FILE if args.find_threshold else None)
    if args.work:
        listed = list_images(args.in_path, args.recursive, warn)[:args.limit]
        paths = usable_images(listed, STUDY_SIDE)
        found = args.work.open()(args, paths)
        weights = weights_digest(args.weights or best_folder(comp_type)) or ''
        made = {'comp_type': args.comp_type or 'automatic', 'weights': weights[:16]}
        write_results(args, made, found)
        return 2 if len(paths) < len(listed) else 0
    if args.find_threshold:
        args.fusion = 'median'  # whatever likelihood there is
    predictor = open_predictor(args)
    return (image_mode if args.in_path else patch_mode)(args, predictor, made_with(args, predictor))


if __name__ == '__main__':
    sys.exit(main())
