#!/usr/bin/env python3
"""Tell from the pixels alone at what JPEG quality an image was compressed.

    python3 classifier/predict_cls.py --in_path photo.png --comp_type jpeg_paper
    python3 classifier/predict_cls.py --in_path folder --comp_type jpeg_paper --csv qualities.csv

A folder's images are read in the order of their paths. An image that cannot be read
is named on stderr and left out; the exit status is then 2.
"""
import argparse
import contextlib
import csv
import dataclasses
import json
import sys
import time
from pathlib import Path

from console import Progress, add_network_options, command, whole_file
from images import list_images, read_image
from models import InputError, Predictor

FIELDS = ('path', 'quality', 'confident_patches', 'patches', 'seconds')


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--in_path', required=True, type=Path, metavar='FILE_OR_DIR')
    add_network_options(parser, threshold=True)
    parser.add_argument('--recursive', action='store_true', help='read subfolders too')
    parser.add_argument('--csv', type=Path, metavar='FILE', help=f'write {",".join(FIELDS)}')
    parser.add_argument('--json', action='store_true', help='print a JSON object for each image')
    return parser.parse_args(argv)


def predict_file(predictor, path, runs=1):
    """The row of one image file: a dict of `FIELDS`. `seconds` is the last run's."""
    image = read_image(path)
    try:
        for _ in range(runs):
            began = time.perf_counter()
            prediction = predictor.predict(image)
            seconds = time.perf_counter() - began
    except InputError as error:
        raise InputError(f'{path}: {error}') from None
    if not prediction.confident_patches:
        print(f'{path}: no patch was reliable (none more than {predictor.threshold:g} sure), '
              'so the best quality is assumed', file=sys.stderr)
    return {'path': str(path), **dataclasses.asdict(prediction), 'seconds': seconds}


@contextlib.contextmanager
def csv_rows(path):
    """A function that takes rows and writes them to a CSV file as they come."""
    if path is None:
        yield lambda row: None
        return
    with whole_file(path, keep_part=True, newline='', encoding='utf-8',
                    errors='surrogateescape') as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()

        def write(row):
            writer.writerow({**row, 'quality': f'{row["quality"]:.2f}',
                             'seconds': f'{row["seconds"]:.4f}'})
            file.flush()
        yield write


@command
def main(argv=None):
    args = parse_args(argv)
    folder = args.in_path.is_dir()
    if folder:
        paths = list_images(args.in_path, args.recursive)
    elif args.in_path.exists():
        paths = [args.in_path]
    else:
        raise InputError(f'{args.in_path}: no such file or folder')
    predictor = Predictor(args.comp_type, args.weights, args.threshold)

    qualities, failed = [], 0
    with csv_rows(args.csv) as write, Progress(len(paths), 'images') as progress:
        for i, path in enumerate(paths, start=1):
            try:
                # The first image's first prediction also builds the graph: it is not timed.
                row = predict_file(predictor, path, runs=1 if qualities else 2)
            except InputError as error:
                failed += 1
                print(f'predict_cls.py: error: {error}', file=sys.stderr)
                continue
            qualities.append(row['quality'])
            write(row)
            if args.json:
                print(json.dumps(row), flush=True)
                if folder:
                    progress.update(i)
            elif folder:
                name = path.relative_to(args.in_path)
                print(f'{i:3}/{len(paths)}: {name}, {row["quality"]:.1f}', flush=True)
            else:
                print(f'predicted quality {row["quality"]:.2f}, '
                      f'estimated in {row["seconds"]:.3f} seconds')
    if folder and qualities and not args.json:
        print(f'Mean: {sum(qualities) / len(qualities):.2f}')
    if failed and folder:
        print(f'predict_cls.py: {failed} of {len(paths)} images could not be read',
              file=sys.stderr)
    return 2 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
