#!/usr/bin/env python3
"""Find out from the pixels alone at what JPEG quality an image was compressed.

    python3 classifier/predict_cls.py --in_path photo.png --comp_type jpeg_paper
    python3 classifier/predict_cls.py --in_path folder --comp_type jpeg_paper --csv qualities.csv
    python3 classifier/predict_cls.py --in_path photo.png --comp_type jpeg_paper --refine

A JPEG file's header is compared with its pixels: `consistent`, or `recompressed` if they show an
earlier, coarser compression. --refine looks for the exact integer in the quantization lattice, on
which decoded pixels lie unless they were changed afterwards; where there is none, the network's
answer stands.

A folder's images are read on all cores, or with --scheduler on a Dask cluster, and reported in the
order of their paths. An image that cannot be read is named on stderr and left out; the exit status
is then 2, unless --ignore_errors. The rows of --csv are kept when a run is stopped, and --resume
goes on from there.
"""
import argparse
import contextlib
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classifier.batch import made_with, network_of, opened, parallel_map
from classifier.cli import (Progress, add_network_options, add_scheduler_option, command, complain,
                            count, open_predictor, printable)
from classifier.errors import InputError
from classifier.files import check_writable, is_special, save_figure, whole_file
from classifier.forensics.header import JpegHeader, read_header
from classifier.forensics.lattice import estimate_table
from classifier.forensics.recompression import find_earlier
from classifier.images import MAX_PIXELS, list_images, read_image
from classifier.predictor import Predictor
from classifier.quality_map import map_figure, quality_map
from classifier.run_rows import CSV_FORMAT, csv_rows

import numpy as np  # after classifier, which says what to type where it is missing

FIELDS = ('path', 'quality', 'confident_patches', 'patches', 'seconds', 'uncertainty',
          'header_quality', 'header_standard', 'verdict')
REFINED_FIELDS = ('network_quality', 'refined', 'grid_dy', 'grid_dx', 'margin', 'evidence',
                  'blocks', 'subsampling', 'chroma_quality')
DECIMALS = {'seconds': 4, 'margin': 1, 'evidence': 1}  # in CSV; 2 for the others
GROUP = 8  # images in one task of a cluster: some 0.3 s, so that its scheduler keeps up


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked; without `argv` those of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--in_path', required=True, type=Path, metavar='FILE_OR_DIR')
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
    if args.resume and args.csv is None:
        parser.error('--resume goes with --csv')
    return args


def predict_path(path: str | os.PathLike, network: tuple | None, refine: bool, max_pixels: int,
                 predictor: Predictor | None = None) -> tuple[dict, list, list] | InputError:
    """An image's row, a dict; lines that say more about it; warnings. Or an InputError.

    None of the texts names the path. Without a predictor, it is this thread's own. Its first run
    also builds the graph, so `seconds` is a later one's, without reading the file.
    """
    predictor, new = (predictor, True) if predictor else opened(network)
    warnings = []
    try:
        image = read_image(Path(path), max_pixels, notice=warnings.append)
        for _ in range(1 + new):
            began = time.perf_counter()
            prediction = predictor.predict(image, refine)
            seconds = time.perf_counter() - began
        header = read_header(path)
    except InputError as error:
        return InputError(str(error).removeprefix(f'{path}: '))
    except OSError as error:  # gone since it was read
        return InputError(f'{error.strerror}; replace it by a readable, whole file')
    if not prediction.confident_patches and not prediction.is_refined:
        warnings.append(f'no patch was reliable (none more than {predictor.threshold:g} sure), '
                        'so the best quality is assumed')
    verdict, lines = judged(header, image) if header and header.luma_table else (
        'no header', [])
    row = dict(zip(FIELDS, (path, prediction.quality, prediction.confident_patches,
                            prediction.patches, seconds, prediction.uncertainty,
                            header and header.quality, header and header.standard, verdict)))
    if (lattice := prediction.lattice) is not None:
        grid = (lattice.grid_dy, lattice.grid_dx) if prediction.is_refined else (None, None)
        row |= zip(REFINED_FIELDS, (prediction.network_quality, lattice.quality, *grid,
                                    lattice.margin, lattice.evidence, lattice.blocks,
                                    lattice.subsampling, lattice.chroma_quality))
        known = f': was a JPEG of quality {lattice.quality}' if lattice.quality else ''
        lines = [lattice_line(row, image), *(lines or [f'no header{known}'])]
    answer = f'predicted quality {row["quality"]:.2f}, estimated in {seconds:.3f} seconds'
    return row, [answer, *lines], [warning.removeprefix(f'{path}: ') for warning in warnings]


def judged(header: JpegHeader, image: np.ndarray) -> tuple[str, list[str]]:
    """The verdict, and lines on what the header says and whether the pixels agree."""
    earlier = find_earlier(image, np.array(header.luma_table))
    verdict = 'consistent' if earlier.quality is None else 'recompressed'
    tables = '' if header.standard else ', nearest to its own tables'
    found = '' if earlier.quality is None else (
        f': an earlier JPEG of about quality {earlier.quality}, grid at ({earlier.grid_dy}, '
        f'{earlier.grid_dx})')
    return verdict, [f'header says quality {header.quality}{tables}, {header.subsampling}; '
                     f'{verdict}{found}']


def lattice_line(row: dict, image: np.ndarray) -> str:
    """What the quantization lattice says."""
    if row['refined'] is not None:
        chroma = '' if row['subsampling'] is None else f', {row["subsampling"]}'
        if row['chroma_quality'] not in (None, row['refined']):
            chroma += f' (chroma of quality {row["chroma_quality"]})'
        return (f'exact quality {row["refined"]}{chroma}, block grid at ({row["grid_dy"]}, '
                f'{row["grid_dx"]}), margin {row["margin"]:.0f} nats, {row["blocks"]} blocks')
    table = estimate_table(image)
    if table.quality is not None and not table.standard:
        return (f'not a standard quantization table: {(table.steps > 0).sum()} of 64 luma '
                f'steps known, nearest quality {table.quality}')
    return "no quantization lattice to be seen: the network's answer stands"


@contextlib.contextmanager
def open_rows(args: argparse.Namespace, made: dict | None, paths: Sequence[Path]
              ) -> Iterator[tuple[Callable, Sequence[int], Iterable[float]]]:
    """For --csv: a function that takes an image's index and row.

    Also the indices of the images that have no row there yet, and the qualities of the others.
    """
    fields = FIELDS + REFINED_FIELDS * args.refine
    if args.csv is None:
        yield lambda index, row: None, range(len(paths)), ()
    elif args.in_path.is_dir() and not is_special(args.csv):
        made = {'in_path': args.in_path, 'recursive': args.recursive, **made,
                'columns': ','.join(fields)}
        with csv_rows(args.csv, paths, fields, made, args.resume) as rows:
            if rows.strangers:
                complain(f'{args.csv}: {rows.strangers} rows are of images that are no longer '
                         'there; they are left out')
            yield rows.write, rows.missing, (float(row[1]) for _, row in rows)
    else:
        with whole_file(args.csv, **CSV_FORMAT) as file:
            csv.writer(file).writerow(fields)

            def write(_, row):
                csv.writer(file).writerow(row)
                file.flush()
            yield write, range(len(paths)), ()


def predict(args: argparse.Namespace, predictor: Predictor, paths: Sequence[Path]) -> int:
    """All images: a folder's on all cores or a cluster, a single one by the predictor itself."""
    folder, made, network, progress = args.in_path.is_dir(), None, None, None
    if folder:  # whose rows outlast this run, and whose threads open the network again
        made = made_with(args, predictor)
        network = network_of(args, predictor, made)
    how = network, args.refine, args.max_pixels
    single = None if folder else predict_path(paths[0], *how, predictor)
    if isinstance(single, InputError):
        complain(f'predict_cls.py: error: {paths[0]}: {single}')
        return 0 if args.ignore_errors else 2
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(parallel_map(args.scheduler, args.in_path, GROUP))
        write, todo, known = stack.enter_context(open_rows(args, made, paths))
        total, done, failed = sum(known), len(paths) - len(todo), 0
        results = [single] if single else run(
            predict_path, (os.path.abspath(paths[i]) for i in todo), *how)
        if folder and args.json and not sys.stdout.isatty():  # else its lines show progress
            progress = stack.enter_context(Progress(len(paths), 'images', done))
        for index, result in zip(todo, results):
            path = paths[index]
            if isinstance(result, InputError):
                failed += 1
                complain(f'predict_cls.py: error: {path}: {result}')
            else:
                row, lines, warnings = result
                row['path'] = str(path)
                for warning in warnings:
                    complain(f'{path}: {warning}')
                total += round(row['quality'], 2)
                done += 1
                write(index, [f'{v:.{DECIMALS.get(k, 2)}f}' if isinstance(v, float) else v
                              for k, v in row.items()])
                if args.json:
                    lines = [json.dumps(row)]
                elif folder:
                    name = printable(path.relative_to(args.in_path))
                    lines = [f'{index + 1:3}/{len(paths)}: {name}, {row["quality"]:.1f}']
                print('\n'.join(lines), flush=True)
            if progress:
                progress.update(done + failed)
    if folder and done and not args.json:
        print(f'Mean: {total / done:.2f}')
    if folder and failed:
        complain(f'predict_cls.py: {failed} of {len(paths)} images could not be read')
    if args.map:
        image = read_image(paths[0], args.max_pixels)
        save_figure(map_figure(image, quality_map(predictor, image), predictor.threshold), args.map)
    return 2 if failed and not args.ignore_errors else 0


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    folder = args.in_path.is_dir()
    paths = list_images(args.in_path, args.recursive) if folder else [args.in_path]
    if not os.path.lexists(args.in_path):
        raise InputError(f'{args.in_path}: no such file or folder')
    if not folder and (args.scheduler or args.resume):
        raise InputError(f'{args.in_path}: --scheduler and --resume are for a folder')
    if args.map and folder:
        raise InputError(f'{args.in_path}: --map is for one image, not for a folder')
    check_writable(args.csv, args.map)
    return predict(args, open_predictor(args), paths)


if __name__ == '__main__':
    sys.exit(main())
