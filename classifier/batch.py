"""Work on many images: on all cores or a Dask cluster, and rows that outlast a stopped run.

    with parallel_map(scheduler, folder) as run, RunRows(path, paths, made) as rows:
        for i, row in zip(rows.missing, run(work, (paths[i] for i in rows.missing))):
            rows.write(i, row)

The work is a function of a module in this package. It takes an image's path, reads the image
itself, and returns small things: so no more images are in memory than cores are at work.
"""
import contextlib
import csv
import errno
import hashlib
import itertools
import json
import logging
import os
import sqlite3
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from classifier.checkpoints import best_folder, weights_digest
from classifier.cli import complain
from classifier.environment import cores
from classifier.errors import InputError
from classifier.files import whole_file
from classifier.predictor import Predictor

ROOT = Path(__file__).resolve().parents[1]
AHEAD = 4           # items for each core that are begun or waiting
TASKS_AHEAD = 1000  # tasks that a Dask scheduler is given before it answered
PATIENCE = 10       # seconds to wait for a scheduler and its first worker
CSV_FORMAT = {'newline': '', 'encoding': 'utf-8', 'errors': 'surrogateescape'}

_OPENING = threading.Lock()
_OPENED, _SHARED = threading.local(), {}  # predictors of a thread, and of the whole process


# ---------------------------------------------------------------- one predictor a thread

def digest(data: bytes) -> str:
    """The first 16 of the 64 hexadecimal digits of the SHA-256 of those bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def made_with(args, predictor: Predictor) -> dict:
    """What the predictions of the options `args` depend on, in JSON's types."""
    table = predictor.log_likelihood
    folder = args.weights or best_folder(predictor.type)
    return {'comp_type': predictor.type.name, 'runtime': predictor.runtime,
            'weights': (weights_digest(folder) or '')[:16],
            'model': '' if predictor.model is None else digest(predictor.model),
            'fusion': 'median' if table is None else f'likelihood {digest(table.tobytes())}',
            'threshold': predictor.threshold, 'patches': args.patches, 'refine': args.refine}


def network_of(args, predictor: Predictor, made: dict) -> tuple:
    """What `opened` needs to open this predictor in another thread or on another machine."""
    weights = args.weights and os.path.abspath(args.weights)
    network = (args.comp_type, weights, args.threshold, args.fusion, predictor.runtime,
               args.patches, json.dumps(made))
    if predictor.model is None:
        _SHARED[network] = predictor
    return network


def opened(network: tuple) -> tuple[Predictor, bool]:
    """This thread's `Predictor` of `network_of`, and whether it was opened just now.

    That of a model file is for this thread alone; that of a checkpoint, slow to open, for all.
    """
    own = vars(_OPENED)
    if new := network not in own:
        with _OPENING:
            own[network] = _SHARED.get(network) or Predictor(*network[:-1], threads=1)
            if own[network].model is None:
                _SHARED[network] = own[network]
    return own[network], new


# ---------------------------------------------------------------- cores, here or elsewhere

def ordered_map(pool, work, items, ahead: int):
    """Yields work(item) in the order of the items, at most `ahead` of them in memory."""
    return (future.result() for _, future in _futures(partial(pool.submit, work), items, ahead))


def _futures(submit, items, ahead):
    pending = deque()  # items with their futures
    try:
        for item in items:
            pending.append((item, submit(item)))
            if len(pending) == ahead:
                yield pending.popleft()
        while pending:
            yield pending.popleft()
    finally:
        for _, future in pending:
            future.cancel()


@contextlib.contextmanager
def parallel_map(scheduler: str | None = None, in_path=None, group: int = 1):
    """`run(work, items, *more)`: yields work(item, *more) in the order of the items.

    On the cores of this machine or, with `scheduler`, on the workers of the Dask cluster at that
    address, which must see `in_path` and this repository under the same paths, and get `group`
    items in one task. An item whose workers were lost again and again has an InputError as its
    result; InputError for a cluster that cannot do it.
    """
    if scheduler:
        with _cluster(scheduler, os.path.abspath(in_path)) as client:
            yield lambda work, items, *more: _cluster_map(client, work, items, more, group)
        return
    with ThreadPoolExecutor(cores()) as pool:
        try:
            yield lambda work, items, *more: ordered_map(
                pool, lambda item: work(item, *more), items, AHEAD * cores())
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _cluster(scheduler, in_path):
    """A `distributed.Client` of that scheduler, whose workers were asked what they see."""
    try:
        from distributed import Client, TimeoutError
        from distributed.comm import get_address_host_port
    except ImportError:
        raise InputError('--scheduler needs Dask; install it with '
                         '"python3 -m pip install distributed"') from None
    for logger in ('distributed', 'distributed.client'):
        logging.getLogger(logger).setLevel(logging.CRITICAL + 1)  # what matters is raised
    try:
        get_address_host_port(scheduler)  # before a client that could not be closed
        client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f'{scheduler}: no Dask scheduler answers there '
                         f'({str(error).splitlines()[0]}); start one with "dask scheduler"'
                         ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise InputError(f'{scheduler}: this scheduler has no workers; start some with '
                             f'"dask worker {scheduler}"') from None
        for worker, answer in client.run(_remote(_problem), [in_path], on_error='return').items():
            if problem := answer if isinstance(answer, Exception) else answer[0]:
                raise InputError(f'{worker}: this worker cannot help ({problem}); workers need '
                                 'the requirements.txt installed, and must see the repository '
                                 f'and the images under the same paths as here: {ROOT}, {in_path}')
        yield client


def _problem(in_path):  # None where a worker can read images
    return None if os.path.exists(in_path) else f'{in_path} is not there'


def _remote(function):
    """That function of a module in classifier/, for a list of items.

    Being local, it is sent itself, not its name: workers need not know this repository.
    """
    root, name = str(ROOT), function.__name__
    module = f'classifier.{Path(sys.modules[function.__module__].__file__).stem}'  # or __main__

    def work(items, *more):
        import importlib
        import sys
        if root not in sys.path:
            sys.path.insert(0, root)
        function = getattr(importlib.import_module(module), name)
        return [function(item, *more) for item in items]
    return work


def _cluster_map(client, work, items, more, group):
    """`work` on a cluster; a task whose worker was lost is tried again (allowed-failures)."""
    from distributed import CancelledError, KilledWorker
    from distributed.client import ClosedClientError
    from distributed.comm import CommClosedError
    items, remote = iter(items), _remote(work)
    groups = iter(lambda: list(itertools.islice(items, group)), [])
    try:
        for some, future in _futures(lambda some: client.submit(remote, some, *more, pure=False),
                                     groups, TASKS_AHEAD):
            try:
                yield from future.result()
            except KilledWorker:
                yield from len(some) * [InputError('its workers were lost again and again, at '
                                                   'this image or one of the next few; see their '
                                                   'logs')]
    except (CancelledError, ClosedClientError, CommClosedError):
        raise InputError('the Dask scheduler was lost; start it and its workers again') from None
    except ImportError as error:
        raise InputError(f'a worker came that cannot help ({error}); install requirements.txt '
                         'for it') from None


# ---------------------------------------------------------------- rows that are kept

class RunRows(contextlib.AbstractContextManager):
    """A row for each of many paths, kept in one SQLite file: what a stopped run goes on from.

    A row is in the file once `write` returns, whatever happens to the process; a power cut may
    cost those since SQLite last synced, once in some hundreds of rows. A context manager.

    Parameters
    ----------
    path : path-like
        Of the file. InputError if another run has it, or it holds rows and `resume` is False.
    paths : list of path-like
        `missing`, an int array, are the indices of those that had no row when it was opened;
        `strangers` is the number of rows of other paths, which are ignored.
    made : dict
        What the rows are made with, in JSON's types; InputError if the file says otherwise.
    rows : iterable of (path, row)
        To begin with, where the file holds none.
    """

    def __init__(self, path, paths, made: dict, resume: bool = True, rows=()):
        self.path, self.paths, self._is_empty = path, paths, False
        try:
            with self._errors():
                self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
                self._open(made, resume, rows)
        except BaseException:
            self.close(remove=self._is_empty)
            raise

    def _open(self, made, resume, rows):
        run = self._database.execute
        # With an exclusive lock there is no other file beside it but the log of writes (-wal),
        # which a killed run leaves and the next one takes over.
        for setting in ('locking_mode = EXCLUSIVE', 'journal_mode = WAL', 'synchronous = NORMAL'):
            run(f'PRAGMA {setting}')
        run('BEGIN EXCLUSIVE')
        run('CREATE TABLE IF NOT EXISTS run (made TEXT)')
        run('CREATE TABLE IF NOT EXISTS rows (path BLOB PRIMARY KEY, row TEXT) WITHOUT ROWID')
        total, = run('SELECT COUNT(*) FROM rows').fetchone()
        self._is_empty = not total
        if total and not resume:
            raise InputError(f'{self.path}: holds the rows of a run that was stopped; go on with '
                             '--resume, or delete it')
        if total:
            _refuse_other_options(self.path, run('SELECT made FROM run').fetchone()[0], made)
        else:
            run('DELETE FROM run')
            run('INSERT INTO run VALUES (?)', [json.dumps(made)])
            for total, (path, row) in enumerate(rows, start=1):
                self._insert(path, row)
        run('COMMIT')
        known = np.fromiter((self._row(p) is not None for p in self.paths), bool)
        self.missing, self._count = np.flatnonzero(~known), int(known.sum())
        self.strangers = total - self._count

    @contextlib.contextmanager
    def _errors(self):
        """SQLite's errors as those of the file."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if 'locked' in str(error):
                raise InputError(f'{self.path}: another run is writing this file; wait for it'
                                 ) from None
            full = 'full' in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, os.strerror(errno.ENOSPC) if full
                          else f'cannot be written ({error})', str(self.path)) from None
        except sqlite3.DatabaseError as error:
            raise InputError(f'{self.path}: not the rows of a run ({error}); delete it or choose '
                             'another place') from None

    def _insert(self, path, row):
        self._database.execute('INSERT OR REPLACE INTO rows VALUES (?, ?)',
                               [os.fsencode(path), json.dumps(row)])

    def _row(self, path):
        return self._database.execute('SELECT row FROM rows WHERE path = ?',
                                      [os.fsencode(path)]).fetchone()

    def write(self, index: int, row):
        """Keep the row, of JSON's types, of a path that was missing."""
        with self._errors():
            self._insert(self.paths[index], row)
        self._count += 1

    def __len__(self):
        return self._count

    def __iter__(self):  # in the order of the paths
        return ((path, json.loads(row[0])) for path in self.paths if (row := self._row(path)))

    def close(self, remove: bool = False):
        """Close the file and, where it is no longer needed, remove it."""
        with contextlib.suppress(sqlite3.Error, AttributeError):  # raised before, if it matters
            self._database.close()
        for name in (self.path, f'{self.path}-wal') if remove else ():
            Path(name).unlink(missing_ok=True)

    def __exit__(self, *_):
        self.close()


def _refuse_other_options(path, before, made):
    """InputError if a file's JSON text says something else than `made`."""
    try:
        before = dict(json.loads(before))
        other = ', '.join(f'{key} {before.get(key)}, now {value}'[:120]
                          for key, value in made.items() if before.get(key) != value)
    except (ValueError, TypeError):
        other = 'made by another program'
    if other:
        raise InputError(f'{path}: made with other options ({other}); use the same ones or '
                         'another --csv')


@contextlib.contextmanager
def csv_rows(path, paths, fields, made: dict, resume: bool):
    """The `RunRows` that become the CSV file of that path: lists of those fields, the path first.

    Until then they are in `<path>.unfinished`. With `resume` they begin with those of a run that
    was stopped, or else of the finished file; `<path>.run` says what that was made with. InputError
    if it was something else, and if the rows of a stopped run would be lost.
    """
    path = os.path.realpath(path)
    log, record = f'{path}.unfinished', f'{path}.run'
    finished = _finished_rows(path, record, fields, made) if resume else ()
    with RunRows(log, paths, made, resume, finished) as rows:
        try:
            yield rows
            with whole_file(path, **CSV_FORMAT) as file:
                csv.writer(file).writerow(fields)
                csv.writer(file).writerows(row for _, row in rows)
            with whole_file(record) as file:
                print(json.dumps(made), file=file)
            rows.close(remove=True)
        except BaseException as error:
            if not len(rows) + rows.strangers:
                rows.close(remove=True)
                raise
            kept = f'{log} keeps {len(rows)} rows; the same command and --resume go on'
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(kept) from None
            complain(kept)
            raise


def _finished_rows(path, record, fields, made):
    """Yields (path, row) of a CSV file, if it is there; InputError for one of something else."""
    if not os.path.exists(path):
        return
    if not os.path.exists(record):
        raise InputError(f'{record}: not there, so nobody knows what {path} was made with; '
                         'choose another --csv')
    _refuse_other_options(record, Path(record).read_bytes(), made)
    with open(path, **CSV_FORMAT) as file:
        reader = csv.reader(file)
        if next(reader, None) != list(fields):
            raise InputError(f'{path}: has other columns than {",".join(fields)}; choose another '
                             '--csv')
        try:
            for row in reader:
                if len(row) != len(fields):
                    raise ValueError
                float(row[fields.index('quality')])
                yield row[0], row
        except (ValueError, csv.Error):
            raise InputError(f'{path}: line {reader.line_num} is damaged; choose another --csv'
                             ) from None
