#!/usr/bin/env python3
"""Find out from the pixels alone at what JPEG quality an image was compressed.

    python3 classifier/predict_cls.py photo.png screenshot.png folder
    python3 classifier/predict_cls.py folder --recursive --csv qualities.csv
    python3 classifier/predict_cls.py folder --recursive --report report.html
    python3 classifier/predict_cls.py folder --select 'compressed<0.5' --copy_to never_jpeg
    find . -name '*.png' -print0 | python3 classifier/predict_cls.py - --json
    python3 classifier/predict_cls.py photo.png --comp_type jpeg_paper --refine

Each image gets a line with a conclusion, and several images a last line that counts them. Pixels
that were not changed since they were decoded give the exact quality. For others, the network
jpeg_robust estimates it, as an interval; or the line says that there is no sign of JPEG
compression, or that it cannot tell. A JPEG file's header is compared with its pixels.

With --comp_type that network answers for every image; --refine looks for the exact quality first.
"""
import os
import sys
if __name__ == '__main__':  # from here on Ctrl-C leaves no traceback
    sys.excepthook = lambda *error: error[0] is KeyboardInterrupt or sys.__excepthook__(*error)
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # NumPy's: others wait busily, for little
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import contextlib
from collections.abc import Sequence

from classifier import environment
from classifier.batch import made_with, network_of, parallel_map, worth_processes
from classifier.cli import (Progress, add_network_options, add_scheduler_option, command, complain,
                            count, open_predictor, script_parser)
from classifier.csv_output import check_folder, is_stdout, open_rows
from classifier.errors import InputError
from classifier.files import check_writable, save_figure
from classifier.images import MAX_PIXELS, read_image
from classifier.output import Output
from classifier.path_list import is_single, listed_paths
from classifier.predictor import Predictor
from classifier.quality_map import map_figure, quality_map
from classifier.report import FIELDS, RECOVERED_FIELDS, REFINED_FIELDS, look_at
from classifier.summary import as_text

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
                       help='exit status 0 even if images could not be read or recovered')
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
    output.add_argument('--recover', type=Path, metavar='OUT.jpg',
                        help='write the JPEG file whose decoded pixels are those of the image; of '
                        'a folder, to a folder')
    output.add_argument('--allow_difference', action='store_true',
                        help='with --recover: write it even if some pixels differ')
    output.add_argument('--report', type=Path, metavar='FILE.html',
                        help='of several images: write a page with counts, histograms, subfolders '
                        'and the lowest qualities')
    output.add_argument('--quiet', action='store_true',
                        help='no warnings, counts and progress; errors are still named')
    chosen = parser.add_argument_group('choosing images')
    chosen.add_argument('--select', metavar='EXPR',
                        help="print only images of which this is true, such as 'compressed<0.5' "
                        "(never JPEG) or 'compressed>=0.5 and quality>=90'")
    chosen.add_argument('--copy_to', type=Path, metavar='DIR',
                        help='with --select: copy their files there; nothing is replaced')
    chosen.add_argument('--link_to', type=Path, metavar='DIR',
                        help='with --select: make symbolic links to them there')
    chosen.add_argument('--print0', action='store_true',
                        help='print paths alone, each with a null character behind it')
    add_scheduler_option(parser.add_argument_group('scale'))
    args = parser.parse_args(argv)
    args.paths += [args.in_path] if args.in_path else []
    for wrong, rule in (
            (not args.paths, 'name an image or a folder'),
            (args.resume and (args.csv is None or is_stdout(args.csv)),
             '--resume goes with --csv FILE'),
            (args.json + is_stdout(args.csv) + args.print0 > 1,
             '--json, --print0 and --csv - all print; choose one'),
            (args.select is not None and (args.recover or args.xmp),
             '--select does not go with --recover and --xmp'),
            ((args.copy_to or args.link_to) and args.select is None,
             '--copy_to and --link_to go with --select'),
            (args.allow_difference and not args.recover,
             '--allow_difference goes with --recover'),
            (args.copy_to and args.link_to, 'choose one of --copy_to and --link_to')):
        if wrong:
            parser.error(rule)
    args.single = is_single(args.paths)
    # For people, on standard output.
    args.lines = not args.json and not args.print0 and not is_stdout(args.csv)
    return args


def predict(args: argparse.Namespace, predictor: Predictor, paths: Sequence[Path],
            output: Output) -> int:
    """All images: several on all cores or a cluster, a single one by the predictor itself."""
    made, network, progress = None, None, None
    if not args.single:  # whose rows outlast this run, and whose threads open the network again
        made = made_with(args, predictor)
        network = network_of(args, predictor, made)
    work, how = look_at, (network, args.refine, args.max_pixels)
    if args.recover:
        from classifier.recovery.command import look_and_recover, plan
        from classifier.recovery.stopping import stops_others
        work, how = look_and_recover, (args.allow_difference, *how)
        targets = plan(args.recover, paths, output.root)

    def item(index):  # what `work` takes
        path = os.path.abspath(paths[index])
        return (path, targets[index]) if args.recover else path

    single = None
    if args.single:
        searched = args.recover and not args.quiet  # which may take long
        with Progress(1, 'image') if searched else contextlib.nullcontext():
            single = work(item(0), *how, predictor)
    if isinstance(single, InputError):
        output.error(paths[0], single)
        return 0 if args.ignore_errors else 2
    with contextlib.ExitStack() as stack:
        shared = args.scheduler and os.path.commonpath([os.path.abspath(p) for p in paths])
        run = stack.enter_context(parallel_map(args.scheduler, shared, GROUP,
                                               worth_processes(network, len(paths))))
        write, todo, known = stack.enter_context(open_rows(args, made, output.fields, paths))
        done = len(paths) - len(todo)
        for row in known:
            output.known(row)
        results = [single] if single else run(work, map(item, todo), *how)
        if args.recover:
            stack.enter_context(stops_others())
        # A line for each image is progress enough, but where they take long.
        shown = args.select is None and not args.recover and sys.stdout.isatty()
        if not args.single and not args.quiet and not shown:
            progress = stack.enter_context(Progress(len(paths), 'images', done))
        for index, report in zip(todo, results):
            path, done = paths[index], done + 1
            if isinstance(report, InputError):
                output.error(path, report)
            else:
                report.row['path'] = str(path)
                if not is_stdout(args.csv):  # which keeps all, whatever comes
                    write(index, as_text(report.row))
                if output.found(path, report) and is_stdout(args.csv):
                    write(index, as_text(report.row))
            if progress:
                progress.update(done)
    output.end()
    if args.map:
        draw_map(args, predictor, paths[0])
    lost = 0 if args.ignore_errors else output.summary.unread + output.unrecovered
    return 2 if lost or output.failed else 0


def draw_map(args: argparse.Namespace, predictor: Predictor, path: Path) -> None:
    """Write the quality map of an image to the file of --map."""
    image = read_image(path, args.max_pixels)
    rows = len(image) // predictor.type.block
    with contextlib.nullcontext() if args.quiet else Progress(rows, 'rows of the map') as progress:
        found = quality_map(predictor, image,
                            watch=progress and (lambda done, _: progress.update(done)))
        if progress:
            progress.update(rows)
    save_figure(map_figure(image, found, predictor.threshold), args.map)


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.quiet:
        environment.announce = None
    if args.single and (args.scheduler or args.resume):
        raise InputError(f'{args.paths[0]}: --scheduler and --resume are for several images')
    if args.map and not args.single:
        raise InputError(f'{args.paths[0]}: --map is for one image, not for a folder')
    if args.map and args.map.suffix.lower() != '.png' and not args.map.is_dir():
        raise InputError(f'{args.map}: --map draws a PNG file; choose a name that ends in .png')
    if args.report and args.single:
        raise InputError(f'{args.paths[0]}: --report is of several images')
    paths = listed_paths(args.paths, args.recursive, None if args.quiet else complain)
    output = Output(args, FIELDS + REFINED_FIELDS * (args.refine or args.comp_type is None)
                    + RECOVERED_FIELDS * bool(args.recover))
    if args.recover and not args.single and not output.root:
        raise InputError(f'{args.recover}: --recover goes with one image or one folder')
    written = [os.path.realpath(path) for path in (args.csv, args.map, args.report,
                                                   args.recover if args.single else None) if path]
    if len(set(written)) < len(written):
        raise InputError(f'{written[0]}: named for two outputs; choose two files')
    output.locate(paths)
    for path in (args.csv, args.map, args.report):
        check_folder(path)
    check_writable(None if is_stdout(args.csv) else args.csv, args.map, args.report)
    return predict(args, open_predictor(args), paths, output)


if __name__ == '__main__':
    sys.exit(main())
