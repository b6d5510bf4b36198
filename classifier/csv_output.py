"""Where the rows of --csv go: a file that outlasts a stopped run, a pipe, standard output."""
import argparse
import contextlib
import csv
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from classifier.cli import complain
from classifier.errors import InputError
from classifier.files import is_special, whole_file
from classifier.run_rows import CSV_FORMAT, csv_rows

STDOUT = ('-', '/dev/stdout', '/dev/fd/1', '/proc/self/fd/1')


def is_stdout(path: Path | None) -> bool:
    """Whether rows that are written there are on standard output."""
    return str(path) in STDOUT


def check_folder(path: Path | None) -> None:
    """Make sure that the folder of a file to write is there; InputError if not."""
    if path and not is_stdout(path) and not path.parent.exists():
        raise InputError(f'{path}: cannot be written, for there is no folder {path.parent}; make '
                         'it, or choose another place')


@contextlib.contextmanager
def _stdout() -> Iterator[IO]:
    """Standard output as a CSV file, with the true bytes of file names."""
    sys.stdout.flush()
    try:
        file = open(sys.stdout.fileno(), 'w', closefd=False, **CSV_FORMAT)
    except OSError:  # it has no descriptor, as in a notebook
        yield sys.stdout
        return
    with file:
        yield file


@contextlib.contextmanager
def open_rows(args: argparse.Namespace, made: dict | None, fields: Sequence[str],
              paths: Sequence[Path]
              ) -> Iterator[tuple[Callable, Sequence[int], Iterable[dict]]]:
    """What writes the rows of --csv.

    Parameters
    ----------
    args : argparse.Namespace
        Of predict_cls.py.
    made : dict or None
        What the rows of several images are made with.
    fields : sequence of str
    paths : sequence of Path

    Yields
    ------
    write : callable
        Takes an image's index and the values of its row.
    todo : sequence of int
        The indices of the images that have no row there yet.
    known : iterable of dict
        The rows of the others, as text.
    """
    if args.csv is None:
        yield lambda index, row: None, range(len(paths)), ()
    elif not args.single and not is_stdout(args.csv) and not is_special(args.csv):
        in_path = args.paths[0] if len(args.paths) == 1 else args.paths
        made = {'in_path': in_path, 'recursive': args.recursive, **made,
                'columns': ','.join(fields)}
        if args.recover:
            made |= {'recover': os.path.abspath(args.recover),
                     'allow_difference': args.allow_difference}
        with csv_rows(args.csv, paths, fields, made, args.resume) as rows:
            patches, method = (fields.index(name) for name in ('patches', 'method'))
            # Those of which only the header was read, or no JPEG came back, are tried again.
            lost = fields.index('recovered_bytes') if args.recover else None
            rows.drop(lambda row: row[method] == 'none' and not row[patches]
                      or lost is not None and not row[lost])
            if rows.strangers:
                complain(f'{args.csv}: {rows.strangers} rows are of images that are no longer '
                         'there; they are left out')
            yield rows.write, rows.missing, (dict(zip(fields, row)) for _, row in rows)
    else:
        opened = _stdout() if is_stdout(args.csv) else whole_file(args.csv, **CSV_FORMAT)
        with opened as file:
            csv.writer(file).writerow(fields)

            def write(_, row):
                csv.writer(file).writerow(row)
                file.flush()
            yield write, range(len(paths)), ()
