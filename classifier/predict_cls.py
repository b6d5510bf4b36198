#!/usr/bin/env python3
"""Find out from the pixels alone at what JPEG quality an image was compressed.

    python3 classifier/predict_cls.py photo.png screenshot.png folder
    python3 classifier/predict_cls.py folder --recursive --csv qualities.csv
    python3 classifier/predict_cls.py photo.png --comp_type jpeg_paper --refine

By default each image gets a conclusion. Decoded pixels lie on the quantization lattice of the
JPEG that they were, unless they were changed afterwards; then the lattice gives the exact quality.
Where there is none, the network jpeg_robust estimates the quality, as an interval, or says that
there is no sign of JPEG compression, or that it cannot tell. With --comp_type, that network
answers; --refine asks the lattice first.

A JPEG file's header is compared with its pixels: `consistent`, `recompressed` if they show an
earlier, coarser compression, or `contradiction` if they look far more compressed.

Images are read on all cores, or with --scheduler on a Dask cluster, and reported in the order of
their paths. An image that cannot be read is named on stderr and left out; the exit status is then
2, unless --ignore_errors. The rows of --csv are kept when a run is stopped, and --resume goes on
from there.
"""
import argparse
import contextlib
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classifier.batch import made_with, network_of, parallel_map
from classifier.cli import (Progress, add_network_options, add_scheduler_option, command, complain,
                            count, open_predictor, printable)
from classifier.errors import InputError
from classifier.files import check_writable, is_special, save_figure, whole_file
from classifier.images import MAX_PIXELS, list_images, read_image
from classifier.predictor import Predictor
from classifier.quality_map import map_figure, quality_map
from classifier.report import FIELDS, REFINED_FIELDS, Report, look_at
from classifier.run_rows import CSV_FORMAT, csv_rows

DECIMALS = {'seconds': 4, 'compressed': 4, 'margin': 1, 'evidence': 1}  # in CSV; 2 for the others
GROUP = 8  # images in one task of a cluster: some 0.3 s, so that its scheduler keeps up


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked; without `argv` those of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('paths', nargs='*', type=Path, metavar='FILE_OR_DIR',
                        help='images, and folders of images')
    parser.add_argument('--in_path', type=Path, metavar='FILE_OR_DIR', help='one more of these')
    add_network_options(parser, prediction=True)
    parser.add_argument('--recursive', action='store_true', help='read subfolders too')
    parser.add_argument('--refine', action='store_true',
                        help='recover the exact quality from the quantization lattice')
    parser.add_argument('--map', type=Path, metavar='FILE.png',
                        help='for one image: draw a map of the quality over it')
    parser.add_argument('--csv', type=Path, metavar='FILE', help=f'write {",".join(FIELDS)}')
    parser.add_argument('--resume', action='store_true',
                        help='continue the --csv of a run that was stopped, or add new images to '
                        'that of a finished one; images that failed are tried again')
    parser.add_argument('--json', action='store_true', help='print a JSON object for each image')
    add_scheduler_option(parser)
    parser.add_argument('--max_pixels', type=count(1), default=MAX_PIXELS, metavar='N',
                        help=f'refuse larger images, unread (default: {MAX_PIXELS})')
    parser.add_argument('--ignore_errors', action='store_true',
                        help='exit status 0 even if images could not be read')
    args = parser.parse_args(argv)
    args.paths += [args.in_path] if args.in_path else []
    if not args.paths:
        parser.error('name an image or a folder')
    if args.resume and args.csv is None:
        parser.error('--resume goes with --csv')
    args.single = len(args.paths) == 1 and not args.paths[0].is_dir()
    return args


def list_paths(args: argparse.Namespace) -> list[Path]:
    """The images that the arguments name, each once; InputError for what is not there."""
    found = []
    for path in args.paths:
        if path.is_dir():
            found += list_images(path, args.recursive)
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise InputError(f'{path}: no such file or folder')
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def open_rows(args: argparse.Namespace, made: dict | None, paths: Sequence[Path]
              ) -> Iterator[tuple[Callable, Sequence[int], Iterable[dict]]]:
    """For --csv: a function that takes an image's index and row.

    Also the indices of the images that have no row there yet, and the rows of the others.
    """
    fields = FIELDS + REFINED_FIELDS * (args.refine or args.comp_type is None)
    if args.csv is None:
        yield lambda index, row: None, range(len(paths)), ()
    elif not args.single and not is_special(args.csv):
        in_path = args.paths[0] if len(args.paths) == 1 else [str(path) for path in args.paths]
        made = {'in_path': in_path, 'recursive': args.recursive, **made,
                'columns': ','.join(fields)}
        with csv_rows(args.csv, paths, fields, made, args.resume) as rows:
            patches, method = (fields.index(name) for name in ('patches', 'method'))
            # Those of which only the header was told are tried again.
            rows.drop(lambda row: row[method] == 'none' and not row[patches])
            if rows.strangers:
                complain(f'{args.csv}: {rows.strangers} rows are of images that are no longer '
                         'there; they are left out')
            yield rows.write, rows.missing, (dict(zip(fields, row)) for _, row in rows)
    else:
        with whole_file(args.csv, **CSV_FORMAT) as file:
            csv.writer(file).writerow(fields)

            def write(_, row):
                csv.writer(file).writerow(row)
                file.flush()
            yield write, range(len(paths)), ()


class Summary:
    """What the rows of several images say together, in the line that ends a run."""

    def __init__(self, automatic: bool):
        self.automatic, self.kinds, self.qualities = automatic, Counter(), []
        self.recompressed = 0

    def add(self, row: dict) -> None:
        """Count a row, of values or of a CSV file's text."""
        kind = {'lattice': 'exact', 'none': 'cannot tell'}.get(row['method'], 'estimated')
        if kind == 'estimated' and self.automatic and float(row['compressed']) < 0.5:
            kind = 'no sign of JPEG'
        self.kinds[kind] += 1
        self.recompressed += row['verdict'] == 'recompressed'
        if row['quality'] not in (None, ''):
            self.qualities.append(round(float(row['quality']), 2))

    def __str__(self):
        if not self.automatic:
            found = self.qualities
            return f'Mean: {sum(found) / len(found):.2f}' if found else 'Mean: no answer'
        counts = [f'{number} {kind}' for kind, number in self.kinds.most_common()]
        again = f'; {self.recompressed} recompressed' if self.recompressed else ''
        return f'{self.kinds.total()} images: {", ".join(counts)}{again}'


def text_lines(args: argparse.Namespace, report: Report, name: str, number: str) -> list[str]:
    """What is printed for an image, for people."""
    if args.comp_type is None:
        return [f'{name}: {report.conclusion}']
    if args.single:
        return report.details
    quality = report.row['quality']
    return [f'{number}: {name}, ' + ('cannot tell' if quality is None else f'{quality:.1f}')]


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
    root = args.paths[0] if len(args.paths) == 1 and not args.single else None
    with contextlib.ExitStack() as stack:
        shared = args.scheduler and os.path.commonpath([os.path.abspath(p) for p in args.paths])
        run = stack.enter_context(parallel_map(args.scheduler, shared, GROUP))
        write, todo, known = stack.enter_context(open_rows(args, made, paths))
        summary, done, failed = Summary(predictor.automatic), len(paths) - len(todo), 0
        for row in known:
            summary.add(row)
        results = [single] if single else run(
            look_at, (os.path.abspath(paths[i]) for i in todo), *how)
        if not args.single and args.json and not sys.stdout.isatty():  # else its lines do
            progress = stack.enter_context(Progress(len(paths), 'images', done))
        for index, report in zip(todo, results):
            path = paths[index]
            if isinstance(report, InputError):
                failed += 1
                complain(f'predict_cls.py: error: {path}: {report}')
            else:
                row = report.row
                row['path'] = str(path)
                for warning in report.warnings:
                    complain(f'{path}: {warning}')
                if report.error:
                    failed += 1
                    complain(f'predict_cls.py: error: {path}: {report.error}; only its header is '
                             'told')
                else:
                    summary.add(row)
                    done += 1
                write(index, [f'{v:.{DECIMALS.get(k, 2)}f}' if isinstance(v, float) else v
                              for k, v in row.items()])
                name = printable(path.relative_to(root) if root else path)
                lines = text_lines(args, report, name, f'{index + 1:3}/{len(paths)}')
                print('\n'.join([json.dumps(row)] if args.json else lines), flush=True)
            if progress:
                progress.update(done + failed)
    if not args.single and done and not args.json:
        print(summary)
    if not args.single and failed:
        complain(f'predict_cls.py: {failed} of {len(paths)} images could not be read')
    if args.map:
        image = read_image(paths[0], args.max_pixels)
        save_figure(map_figure(image, quality_map(predictor, image), predictor.threshold), args.map)
    return 2 if failed and not args.ignore_errors else 0


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    paths = list_paths(args)
    if args.single and (args.scheduler or args.resume):
        raise InputError(f'{paths[0]}: --scheduler and --resume are for a folder')
    if args.map and not args.single:
        raise InputError(f'{args.paths[0]}: --map is for one image, not for a folder')
    check_writable(args.csv, args.map)
    return predict(args, open_predictor(args), paths)


if __name__ == '__main__':
    sys.exit(main())
