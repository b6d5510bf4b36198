"""Rows that outlast a stopped run: in an SQLite file, of which a CSV file is made at the end.

    with csv_rows('q.csv', paths, fields, made, resume) as rows:
        for i in rows.missing:
            rows.write(i, [...])
"""
import contextlib
import csv
import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from classifier.cli import complain
from classifier.errors import InputError
from classifier.files import put_in_place, whole_file

CSV_FORMAT = {'newline': '', 'encoding': 'utf-8', 'errors': 'surrogateescape'}


class RunRows(contextlib.AbstractContextManager):
    """A row for each of many paths, in an SQLite file that a stopped run goes on from.

    A row is in the file once `write` returns, whatever happens to the process; a power cut may
    cost those since SQLite last synced, once in some hundreds of rows. As a context manager it
    adds to an error what the file keeps and the advice, and removes a file without rows.

    Parameters
    ----------
    path : path-like
        Of the file.
    paths : sequence of path-like
    made : dict
        What the rows are made with; its values are compared as text.
    resume : bool
        Whether to go on from rows that the file holds.
    advice : str

    Attributes
    ----------
    missing : int array
        Indices of the paths that had no row when the file was opened.
    strangers : int
        Number of rows of other paths, which are ignored.

    Raises
    ------
    InputError
        The file holds something else than rows made with this, another run has it, or it holds
        rows and `resume` is False.
    """

    def __init__(self, path: str | os.PathLike, paths: Sequence[str | os.PathLike], made: dict,
                 resume: bool = True, advice: str = 'the same command goes on'):
        self.path, self.paths, self.advice, self._is_empty = path, paths, advice, False
        try:
            with self._errors():
                self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
                self._open({key: str(value) for key, value in made.items()}, resume)
        except BaseException:
            self.close(remove=self._is_empty)
            raise

    def _open(self, made, resume):
        run = self._database.execute
        # With an exclusive lock there is no other file beside it but the log of writes (-wal),
        # which a killed run leaves and the next one takes over.
        for setting in ('locking_mode = EXCLUSIVE', 'journal_mode = WAL', 'synchronous = NORMAL'):
            run(f'PRAGMA {setting}')
        run('BEGIN EXCLUSIVE')
        run('CREATE TABLE IF NOT EXISTS made (key TEXT, value TEXT)')
        run('CREATE TABLE IF NOT EXISTS rows (path BLOB PRIMARY KEY, row TEXT) WITHOUT ROWID')
        total, = run('SELECT COUNT(*) FROM rows').fetchone()
        self._is_empty = not total
        if not total:
            run('DELETE FROM made')
            self._database.executemany('INSERT INTO made VALUES (?, ?)', made.items())
        elif not resume:
            raise InputError(f'{self.path}: holds the rows of a run that was stopped; go on with '
                             '--resume, or delete it')
        before = dict(run('SELECT key, value FROM made'))
        if other := ', '.join(_differing(key, before.get(key), value)[:120]
                              for key, value in made.items() if before.get(key) != value):
            raise InputError(f'{self.path}: made with other options ({other}); use the same ones '
                             'or another --csv')
        run('COMMIT')
        known = np.fromiter((self._row(p) is not None for p in self.paths), bool)
        self.missing, self._count = np.flatnonzero(~known), int(known.sum())
        self.strangers = total - self._count

    @contextlib.contextmanager
    def _errors(self):
        """SQLite's errors as InputErrors that name the file."""
        try:
            yield
        except sqlite3.Error as error:
            reason = f'not the rows of a run ({error}); delete it or choose another place'
            if 'locked' in str(error):
                reason = 'another run is writing this file; wait for it'
            elif 'full' in str(error):
                reason = os.strerror(errno.ENOSPC)
            elif isinstance(error, sqlite3.OperationalError):
                reason = f'cannot be written ({error})'
            raise InputError(f'{self.path}: {reason}') from None

    def _row(self, path):
        return self._database.execute('SELECT row FROM rows WHERE path = ?',
                                      [os.fsencode(path)]).fetchone()

    def drop(self, unwanted: Callable[[list], bool]) -> None:
        """Forget the rows of which that is true: their paths are missing again."""
        again = [i for i, path in enumerate(self.paths)
                 if (row := self._row(path)) and unwanted(json.loads(row[0]))]
        with self._errors():
            self._database.executemany('DELETE FROM rows WHERE path = ?',
                                       ([os.fsencode(self.paths[i])] for i in again))
        self.missing, self._count = np.union1d(self.missing, again).astype(int), (
            self._count - len(again))

    def write(self, index: int, row: list) -> None:
        """Keep the row, of JSON's types, of a path that was missing."""
        with self._errors():
            self._database.execute('INSERT OR REPLACE INTO rows VALUES (?, ?)',
                                   [os.fsencode(self.paths[index]), json.dumps(row)])
        self._is_empty, self._count = False, self._count + 1

    def __len__(self):
        return self._count

    def __iter__(self):  # in the order of the paths
        return ((path, json.loads(row[0])) for path in self.paths if (row := self._row(path)))

    def close(self, remove: bool = False, rename: str | os.PathLike | None = None) -> None:
        """Close the file and, where it is no longer needed, remove it or give it another name."""
        if rename:
            with self._errors():
                self._database.execute('PRAGMA wal_checkpoint(TRUNCATE)')  # nothing beside it
        with contextlib.suppress(sqlite3.Error, AttributeError):  # raised before, if it matters
            self._database.close()
        if rename:
            put_in_place(self.path, rename)
        for name in (self.path, f'{self.path}-wal') if remove else ():
            Path(name).unlink(missing_ok=True)

    def __exit__(self, _, error, __):
        self.close(remove=self._is_empty)
        if error and os.path.exists(self.path):
            kept = f'{self.path} keeps {len(self)} rows; {self.advice}'
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(kept) from None
            complain(kept)


def _differing(key, before, now):
    """What differs, in words; of long lists of columns those that only one has."""
    if key == 'columns' and before:
        changed = set(before.split(',')) ^ set(now.split(','))
        return f'other columns: {", ".join(sorted(changed)) or "their order"}'
    return f'{key} {before}, now {now}'


@contextlib.contextmanager
def csv_rows(path: str | os.PathLike, paths: Sequence[str | os.PathLike], fields: Sequence[str],
             made: dict, resume: bool) -> Iterator[RunRows]:
    """The `RunRows` that become a CSV file.

    Until then they are in `<path>.unfinished`, and afterwards in `<path>.run`.

    Parameters
    ----------
    path : path-like
        Of the CSV file.
    paths : sequence of path-like
    fields : sequence of str
        What each row is a list of, the path first.
    made : dict
        What the rows are made with.
    resume : bool
        Begin with the rows of a run that was stopped, or else of the finished one.

    Raises
    ------
    InputError
        The rows to begin with are not known to be made with `made`; or, without `resume`, those of
        a stopped run would be lost.
    """
    path = os.path.realpath(path)
    log, record = f'{path}.unfinished', f'{path}.run'
    if resume and os.path.exists(path) and not os.path.exists(log):
        if not os.path.exists(record):
            raise InputError(f'{record}: not there, so nobody knows what {path} was made with; '
                             'choose another --csv')
        RunRows(record, (), made).close()  # says what is wrong with it
        os.rename(record, log)
    with RunRows(log, paths, made, resume, 'the same command and --resume go on') as rows:
        yield rows
        with whole_file(path, **CSV_FORMAT) as file:
            csv.writer(file).writerow(fields)
            csv.writer(file).writerows(row for _, row in rows)
        rows.close(rename=record)
