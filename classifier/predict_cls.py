#!/usr/bin/env python3
"""Find out from the pixels alone at what JPEG quality an image was compressed.

    python3 classifier/predict_cls.py photo.png screenshot.png folder
    python3 classifier/predict_cls.py folder --recursive --csv qualities.csv
    find . -name '*.png' -print0 | python3 classifier/predict_cls.py - --json
    python3 classifier/predict_cls.py photo.png --comp_type jpeg_paper --refine

Each image gets a line with a conclusion, and several images a last line that counts them. Pixels
that were not changed since they were decoded give the exact quality. For others, the network
jpeg_robust estimates it, as an interval; or the line says that there is no sign of JPEG
compression, or that it cannot tell. A JPEG file's header is compared with its pixels.

With --comp_type that network answers for every image; --refine looks for the exact quality first.
"""
import sys
if __name__ == '__main__':  # from here on Ctrl-C leaves no traceback
    sys.excepthook = lambda *error: error[0] is KeyboardInterrupt or sys.__excepthook__(*error)
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import contextlib
import json
import os
from collections.abc import Sequence

from classifier.batch import made_with, network_of, parallel_map
from classifier.cli import (Progress, add_network_options, add_scheduler_option, command, complain,
                            count, open_predictor, printable, script_parser)
from classifier.csv_output import check_folder, is_stdout, open_rows
from classifier.errors import InputError
from classifier.files import check_writable, save_figure
from classifier.images import MAX_PIXELS, read_image
from classifier.path_list import is_single, listed_paths
from classifier.predictor import Predictor
from classifier.quality_map import map_figure, quality_map
from classifier.report import FIELDS, REFINED_FIELDS, Report, look_at
from classifier.summary import Summary, answer, as_text, rounded
from classifier.xmp import write_sidecar

GROUP = 8  # images in one task of a cluster: some 0.3 s, so that its scheduler keeps up


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked; without `argv` those of the command line."""
    parser = script_parser(__doc__, usage='%(prog)s [options] PATH ...')
    given = parser.add_argument_group('input')
    given.add_argument('paths', nargs='*', metavar='PATH',
                       help='images, and folders of images; - reads a list of them from standard '
                       'input, a line for each, or as find -print0 writes them')
    given.add_argument('--in_path', metavar='PATH', help='one more of these')
    given.add_argument('--recursive', action='store_true', help='subfolders too')
    given.add_argument('--max_pixels', type=count(1), default=MAX_PIXELS, metavar='N',
                       help=f'refuse larger images, unread (default: {MAX_PIXELS})')
    given.add_argument('--ignore_errors', action='store_true',
                       help='exit status 0 even if images could not be read')
    network = parser.add_argument_group('network')
    add_network_options(network, prediction=True)
    network.add_argument('--refine', action='store_true',
                         help='with --comp_type: look for the exact quality first')
    output = parser.add_argument_group('output')
    output.add_argument('--csv', type=Path, metavar='FILE',
                        help='write a row for each image; - is standard output')
    output.add_argument('--resume', action='store_true',
                        help='with --csv: go on with a run that was stopped, or add new images')
    output.add_argument('--json', action='store_true', help='print a JSON object for each image')
    output.add_argument('--xmp', action='store_true',
                        help='write FILE.xmp beside each image, for photo managers')
    output.add_argument('--map', type=Path, metavar='FILE.png',
                        help='of one image: draw which quality was found where')
    output.add_argument('--quiet', action='store_true',
                        help='no warnings, counts and progress; errors are still named')
    add_scheduler_option(parser.add_argument_group('scale'))
    args = parser.parse_args(argv)
    args.paths += [args.in_path] if args.in_path else []
    for wrong, rule in (
            (not args.paths, 'name an image or a folder'),
            (args.resume and (args.csv is None or is_stdout(args.csv)),
             '--resume goes with --csv FILE'),
            (args.json and is_stdout(args.csv), '--json and --csv - both print; choose one')):
        if wrong:
            parser.error(rule)
    args.single = is_single(args.paths)
    args.lines = not args.json and not is_stdout(args.csv)  # for people, on standard output
    return args


def text_lines(args: argparse.Namespace, report: Report, name: str) -> list[str]:
    """What is printed for an image, for people."""
    if args.comp_type is None:
        return [f'{name}: {report.conclusion}']
    if args.single:
        return report.details
    said = report.details[-1:] if report.row['verdict'] != 'no header' else []
    return [f'{name}: ' + '; '.join(said if report.error else [answer(report.row), *said])]


def predict(args: argparse.Namespace, predictor: Predictor, paths: Sequence[Path]) -> int:
    """All images: several on all cores or a cluster, a single one by the predictor itself."""
    made, network, progress = None, None, None
    if not args.single:  # whose rows outlast this run, and whose threads open the network again
        made = made_with(args, predictor)
        network = network_of(args, predictor, made)
    how = network, args.refine, args.max_pixels
    single = look_at(paths[0], *how, predictor) if args.single else None
    if isinstance(single, InputError):
        complain(f'predict_cls.py: error: {paths[0]}: {single}')
        return 0 if args.ignore_errors else 2
    fields = FIELDS + REFINED_FIELDS * (args.refine or predictor.automatic)
    root = args.paths[0] if len(args.paths) == 1 and os.path.isdir(args.paths[0]) else None
    with contextlib.ExitStack() as stack:
        shared = args.scheduler and os.path.commonpath([os.path.abspath(p) for p in paths])
        run = stack.enter_context(parallel_map(args.scheduler, shared, GROUP))
        write, todo, known = stack.enter_context(open_rows(args, made, fields, paths))
        summary, done, refused = Summary(), len(paths) - len(todo), 0  # refused: sidecars
        for row in known:
            summary.add(row)
        results = [single] if single else run(
            look_at, (os.path.abspath(paths[i]) for i in todo), *how)
        if not args.single and not args.quiet and not sys.stdout.isatty():  # else its lines do
            progress = stack.enter_context(Progress(len(paths), 'images', done))
        for index, report in zip(todo, results):
            path, done = paths[index], done + 1
            if isinstance(report, InputError):
                summary.unread += 1
                complain(f'predict_cls.py: error: {path}: {report}')
            else:
                row = report.row
                row['path'] = str(path)
                for warning in [] if args.quiet else report.warnings:
                    complain(f'{path}: {warning}')
                if report.error:
                    summary.unread += 1
                    complain(f'predict_cls.py: error: {path}: {report.error}; only its header was '
                             'read')
                else:
                    summary.add(row)
                    if args.xmp and (error := write_sidecar(path, report)):
                        refused += 1
                        complain(f'predict_cls.py: error: {error}')
                write(index, as_text(row))
                if args.json:
                    print(json.dumps(rounded(row)), flush=True)
                elif args.lines:
                    name = printable(path.relative_to(root) if root else path)
                    print('\n'.join(text_lines(args, report, name)), flush=True)
            if progress:
                progress.update(done)
    if not args.single and not args.quiet:
        (print if args.lines else complain)(summary)
    if args.map:
        image = read_image(paths[0], args.max_pixels)
        save_figure(map_figure(image, quality_map(predictor, image), predictor.threshold), args.map)
    return 2 if (summary.unread or refused) and not args.ignore_errors else 0


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    paths = listed_paths(args.paths, args.recursive, None if args.quiet else complain)
    if args.single and (args.scheduler or args.resume):
        raise InputError(f'{paths[0]}: --scheduler and --resume are for several images')
    if args.map and not args.single:
        raise InputError(f'{args.paths[0]}: --map is for one image, not for a folder')
    if args.map and args.map.suffix.lower() != '.png' and not args.map.is_dir():
        raise InputError(f'{args.map}: --map draws a PNG file; choose a name that ends in .png')
    check_folder(args.csv)
    check_folder(args.map)
    check_writable(None if is_stdout(args.csv) else args.csv, args.map)
    return predict(args, open_predictor(args), paths)


if __name__ == '__main__':
    sys.exit(main())
