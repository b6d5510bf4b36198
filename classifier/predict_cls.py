#!/usr/bin/env python3
"""Tell from the pixels alone at what JPEG quality an image was compressed.

    python3 classifier/predict_cls.py --in_path photo.png --comp_type jpeg_paper
    python3 classifier/predict_cls.py --in_path folder --comp_type jpeg_paper --csv qualities.csv
    python3 classifier/predict_cls.py --in_path photo.png --comp_type jpeg_paper --refine

A JPEG file's header is held against its pixels: `consistent`, or `recompressed` if they
carry an earlier, coarser compression. With --refine the exact integer is looked for, in the
quantization lattice that decoded pixels lie on unless they were changed afterwards; where
there is none to be seen, the network's answer stands.

A folder's images are looked at on all cores, or with --scheduler on a Dask cluster, and
told in the order of their paths. An image that cannot be read is named on stderr and left
out; the exit status is then 2, unless --ignore_errors. Rows of --csv are kept when a run
is stopped, and --resume goes on from there.
"""
import argparse
import contextlib
import csv
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from console import (Progress, add_network_options, add_scheduler_option, check_writable, command,
                     complain, count, is_special, named, naming, open_predictor,
                     printable, save_figure, whole_file)
from images import MAX_PIXELS, list_images, read_header, read_image
from jobs import (CSV_FORMAT, finish_csv, has_rows, made_with, network_of, open_csv_log, opened,
                  parallel_map)
from lattice import estimate_table
from models import InputError, quality_map
from recompression import find_earlier

FIELDS = ('path', 'quality', 'confident_patches', 'patches', 'seconds', 'uncertainty',
          'header_quality', 'header_standard', 'verdict')
REFINED_FIELDS = ('network_quality', 'refined', 'grid_dy', 'grid_dx', 'margin', 'evidence',
                  'blocks', 'subsampling', 'chroma_quality')
DECIMALS = {'seconds': 4, 'margin': 1, 'evidence': 1}  # in CSV; 2 for the others
GROUP = 8  # images in one task of a cluster: some 0.3 s, so that its scheduler keeps up


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--in_path', required=True, type=Path, metavar='FILE_OR_DIR')
    add_network_options(parser, threshold=True)
    parser.add_argument('--recursive', action='store_true', help='read subfolders too')
    parser.add_argument('--refine', action='store_true',
                        help='recover the exact quality from the quantization lattice')
    parser.add_argument('--map', type=Path, metavar='FILE.png',
                        help='of one image: draw where which quality is seen')
    parser.add_argument('--csv', type=Path, metavar='FILE', help=f'write {",".join(FIELDS)}')
    parser.add_argument('--resume', action='store_true',
                        help='go on with the --csv of a run that was stopped, or of an earlier '
                        'one for the images that are new; those that failed are tried again')
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


def look(path, network, refine, max_pixels):
    """`predict_file`, or the InputError without its path, by this thread's own predictor."""
    predictor, new = opened(network)
    try:
        return predict_file(predictor, Path(path), refine, max_pixels, runs=1 + new)
    except InputError as error:
        return InputError(str(error).removeprefix(f'{path}: '))
    except OSError as error:  # gone since it was read
        return InputError(f'{error.strerror}; replace it by a readable, whole file')


def predict_file(predictor, path, refine=False, max_pixels=MAX_PIXELS, runs=1):
    """One image file: its row, a dict of the fields; lines that say more to people; warnings.

    `seconds` is the last run's, without reading the file and its header. A predictor's first
    run also builds the graph.
    """
    warnings = []
    image = read_image(path, max_pixels, notice=warnings.append)
    with named(path):
        for _ in range(runs):
            began = time.perf_counter()
            prediction = predictor.predict(image, refine)
            seconds = time.perf_counter() - began
    warnings = [warning.removeprefix(f'{path}: ') for warning in warnings]
    if not prediction.confident_patches and not prediction.is_refined:
        warnings.append(f'no patch was reliable (none more than {predictor.threshold:g} sure), '
                        'so the best quality is assumed')
    header = read_header(path)
    earlier = find_earlier(image, np.array(header.luma_table)) if header else None
    verdict = ('no header' if header is None else
               'consistent' if earlier.quality is None else 'recompressed')
    row = dict(zip(FIELDS, (str(path), prediction.quality, prediction.confident_patches,
                            prediction.patches, seconds, prediction.uncertainty,
                            header and header.quality, header and header.standard, verdict)))
    lines = [] if header is None else [header_line(header, earlier, verdict)]
    lattice = prediction.lattice
    if lattice is None:
        return row, lines, warnings
    grid = (lattice.grid_dy, lattice.grid_dx) if prediction.is_refined else (None, None)
    row |= zip(REFINED_FIELDS, (prediction.network_quality, lattice.quality, *grid,
                                lattice.margin, lattice.evidence, lattice.blocks,
                                lattice.subsampling, lattice.chroma_quality))
    known = f': was a JPEG of quality {lattice.quality}' if lattice.quality else ''
    return row, [lattice_line(row, image), *(lines or [f'no header{known}'])], warnings


def header_line(header, earlier, verdict):
    """What the header says and what the pixels say to that, for people."""
    tables = '' if header.standard else ', nearest to its own tables'
    found = '' if earlier.quality is None else (
        f': an earlier JPEG of about quality {earlier.quality}, grid at ({earlier.grid_dy}, '
        f'{earlier.grid_dx})')
    return f'header says quality {header.quality}{tables}, {header.subsampling}; {verdict}{found}'


def lattice_line(row, image):
    """What the lattice says, for people."""
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


def map_figure(image, found, threshold):
    """A heat map of the quality over the image; hatched where the network is unsure."""
    from matplotlib.figure import Figure
    height, width = image.shape[:2]
    figure = Figure(figsize=(9, 1 + 8 * min(height / width, 5)))  # a strip would be too long
    axes = figure.add_subplot()
    axes.imshow(image[:, :, 1], cmap='gray', vmin=0, vmax=255)
    rows, cols = found.quality.shape
    extent = (4, 8 * cols + 4, 8 * rows + 4, 4)  # each value stands for its middle block
    heat = axes.imshow(found.quality, extent=extent, cmap='viridis', vmin=1, vmax=100, alpha=0.6)
    unsure = found.confidence < threshold - 5
    if unsure.any() and min(unsure.shape) > 1:  # there is no contour on a single row
        y, x = 8 + 8 * np.arange(rows), 8 + 8 * np.arange(cols)
        axes.contourf(x, y, unsure, levels=[0.5, 1.5], colors='none', hatches=['////'])
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    figure.colorbar(heat, label='quality (hatched: unsure)', shrink=0.8)
    return figure


def as_text(row):
    """The values of a row as they stand in the CSV file; its numbers rounded."""
    return [f'{v:.{DECIMALS.get(k, 2)}f}' if isinstance(v, float) else v for k, v in row.items()]


@contextlib.contextmanager
def csv_rows(args, made, fields, paths):
    """A function that takes an image's index and row, for --csv.

    Also the indices of the images that have no row there yet, and the qualities of the others.
    """
    if args.csv is None:
        yield lambda index, row: None, range(len(paths)), ()
    elif is_special(args.csv):
        with naming(args.csv), open(args.csv, 'w', **CSV_FORMAT) as file:
            writer = csv.writer(file)
            writer.writerow(fields)

            def write(_, row):
                writer.writerow(as_text(row))
                file.flush()
            yield write, range(len(paths)), ()
    else:
        made = {'in_path': str(args.in_path), 'recursive': args.recursive, **made,
                'columns': ','.join(fields)}
        path = os.path.realpath(args.csv)
        with open_csv_log(path, args.resume, made, fields, paths) as log:
            if log.strangers:
                complain(f'{path}: {log.strangers} rows are of images that are no longer there; '
                         'they are left out')
            try:
                yield (lambda index, row: log.write(index, as_text(row)), log.missing(),
                       (float(row[1]) for row in log.rows()))
                finish_csv(log, path, made, fields)
            except BaseException as error:
                kept = f'{log.path} keeps {len(log)} rows; the same command and --resume go on'
                if not has_rows(log.path):
                    log.path.unlink()
                elif isinstance(error, KeyboardInterrupt):
                    raise KeyboardInterrupt(kept) from None
                else:
                    complain(kept)
                raise


def image_mode(args, predictor, path):
    """One image."""
    try:
        row, lines, warnings = predict_file(predictor, path, args.refine, args.max_pixels, runs=2)
    except InputError as error:
        if not args.ignore_errors:
            raise
        complain(f'predict_cls.py: error: {error}')
        return 0
    for warning in warnings:
        complain(f'{path}: {warning}')
    if args.csv:
        with whole_file(args.csv, **CSV_FORMAT) as file:
            csv.writer(file).writerows([row.keys(), as_text(row)])
    if args.json:
        print(json.dumps(row))
    else:
        print(f'predicted quality {row["quality"]:.2f}, estimated in {row["seconds"]:.3f} seconds')
        for line in lines:
            print(line)
    if args.map:
        image = read_image(path, args.max_pixels)
        save_figure(map_figure(image, quality_map(predictor, image), predictor.threshold), args.map)
    return 0


def folder_mode(args, predictor, paths):
    """All images of a folder, on all cores or on a cluster."""
    fields = FIELDS + REFINED_FIELDS * args.refine
    made = made_with(args, predictor)
    network = network_of(args, predictor, made)
    with parallel_map(args.scheduler, args.in_path, GROUP) as run, \
            csv_rows(args, made, fields, paths) as (write, todo, known):
        total, done, failed = sum(known), len(paths) - len(todo), 0
        results = run(look, (os.path.abspath(paths[i]) for i in todo), network, args.refine,
                      args.max_pixels)
        with Progress(len(paths), 'images', done) as progress:
            for index, result in zip(todo, results):
                path = paths[index]
                if isinstance(result, InputError):
                    failed += 1
                    complain(f'predict_cls.py: error: {path}: {result}')
                else:
                    row, _, warnings = result
                    row['path'] = str(path)
                    for warning in warnings:
                        complain(f'{path}: {warning}')
                    total += round(row['quality'], 2)
                    done += 1
                    write(index, row)
                    name = printable(path.relative_to(args.in_path))
                    print(json.dumps(row) if args.json else
                          f'{index + 1:3}/{len(paths)}: {name}, {row["quality"]:.1f}', flush=True)
                if args.json and not sys.stdout.isatty():  # else its lines tell of the progress
                    progress.update(done + failed)
    if done and not args.json:
        print(f'Mean: {total / done:.2f}')
    if failed:
        complain(f'predict_cls.py: {failed} of {len(paths)} images could not be read')
    return 2 if failed and not args.ignore_errors else 0


@command
def main(argv=None):
    args = parse_args(argv)
    folder = args.in_path.is_dir()
    if folder:
        paths = list_images(args.in_path, args.recursive)
    elif os.path.lexists(args.in_path):
        paths = None
    else:
        raise InputError(f'{args.in_path}: no such file or folder')
    if not folder and (args.scheduler or args.resume):
        raise InputError(f'{args.in_path}: --scheduler and --resume are for a folder')
    if args.map and folder:
        raise InputError(f'{args.in_path}: --map is for one image, not for a folder')
    check_writable(args.csv, args.map)
    predictor = open_predictor(args)
    return folder_mode(args, predictor, paths) if folder else image_mode(
        args, predictor, args.in_path)


if __name__ == '__main__':
    sys.exit(main())
