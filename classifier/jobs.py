"""Work on many images: all cores or a Dask cluster, and rows that outlast a stopped run.

The work is a function in one of the scripts. It takes an image's path, reads the image
itself, and returns small things: so no more images are in memory than cores are at work.
"""
import bisect
import contextlib
import csv
import hashlib
import json
import logging
import os
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from console import naming, ordered_map, whole_file
from models import InputError, Predictor, best_folder, cores, weights_digest

FOLDER = Path(__file__).resolve().parent
AHEAD = 4               # items for each core that are begun or waiting
TASKS_AHEAD = 1000      # tasks that a Dask scheduler is given before it answered
PATIENCE = 10           # seconds to wait for a scheduler and its first worker

CSV_FORMAT = {'newline': '', 'encoding': 'utf-8', 'errors': 'surrogateescape'}

OPENING = threading.Lock()
OPENED, SHARED = threading.local(), {}   # predictors of a thread, and of the whole process


# ---------------------------------------------------------------- one predictor a thread

def made_with(args, predictor):
    """What the predictions of the options `args` depend on: a dict of JSON's types."""
    folder = Path(args.weights or best_folder(predictor.type))
    found = {'comp_type': predictor.type.name, 'runtime': predictor.runtime,
             'weights': (weights_digest(folder) or '')[:16], 'model': '', 'fusion': 'median',
             'threshold': predictor.threshold, 'patches': args.patches, 'refine': args.refine}
    if predictor.model is not None:
        found['model'] = digest(predictor.model)
    if predictor.log_likelihood is not None:
        found['fusion'] = f'likelihood {digest(predictor.log_likelihood.tobytes())}'
    return found


def digest(data):
    """The first 16 of the 64 hexadecimal digits of the SHA-256 of those bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def network_of(args, predictor, made):
    """Arguments for `opened`, in another thread or on another machine, from the options."""
    weights = args.weights and os.path.abspath(args.weights)
    network = (args.comp_type, weights, args.threshold, args.fusion, predictor.runtime,
               args.patches, json.dumps(made))
    if predictor.model is None:
        SHARED[network] = predictor
    return network


def opened(network):
    """This thread's `Predictor` of `network_of`, and whether it was opened just now.

    That of a model file has a single thread and is for this one alone; that of a checkpoint,
    which takes seconds to open, is for all of them.
    """
    own = OPENED.__dict__
    new = network not in own
    if new:
        with OPENING:
            predictor = SHARED.get(network) or Predictor(*network[:-1], threads=1)
            if predictor.model is None:
                SHARED[network] = predictor
        own[network] = predictor
    return own[network], new


# ---------------------------------------------------------------- cores, here or elsewhere

@contextlib.contextmanager
def parallel_map(scheduler=None, in_path=None, group=1):
    """`run(work, items, *more)`: yields work(item, *more) in the order of the items.

    Several at once: on the cores of this machine or, with `scheduler`, on the workers of
    the Dask cluster at that address, which must see `in_path` and this repository under
    the same paths, and get `group` items in one task. `work` is a function of a module in
    this folder; what it returns, an InputError too, must be small. No more than a bounded
    number of items is taken ahead. InputError for a cluster that cannot do it.
    """
    if scheduler is None:
        with ThreadPoolExecutor(cores()) as pool:
            try:
                yield lambda work, items, *more: ordered_map(
                    pool, lambda item: work(item, *more), items, AHEAD * cores())
            finally:
                pool.shutdown(cancel_futures=True)
        return
    with open_cluster(scheduler, in_path) as client:
        yield lambda work, items, *more: cluster_map(client, work, items, more, group)


@contextlib.contextmanager
def open_cluster(scheduler, in_path):
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
        answers = client.run(at_worker(FOLDER, 'jobs', 'problem'), (os.path.abspath(in_path),),
                             on_error='return')
        for worker, answer in answers.items():
            problem = answer if isinstance(answer, Exception) else answer[0]
            if problem:
                raise InputError(f'{worker}: this worker cannot help ({problem}); workers need '
                                 'the requirements.txt installed, and must see the repository '
                                 f'and the images under the same paths as here: {FOLDER}, '
                                 f'{os.path.abspath(in_path)}')
        yield client


def problem(in_path):
    """Why a worker cannot read images there; None if it can."""
    return None if os.path.exists(in_path) else f'{in_path} is not there'


def at_worker(folder, module, name):
    """That function of a module in the folder, as one of a list of items, for Dask to send.

    Being local, it is sent itself, not its name: workers need not know this repository.
    """
    folder = str(folder)

    def work(items, *more):
        import importlib
        import sys
        if folder not in sys.path:
            sys.path.insert(0, folder)
        function = getattr(importlib.import_module(module), name)
        return [function(item, *more) for item in items]
    return work


def cluster_map(client, work, items, more, group):
    """`work` on a Dask cluster, in tasks of so many items.

    A task whose worker was lost is done again by another, three times at most (Dask's
    allowed-failures): then there is an InputError for each of its items.
    """
    from distributed import CancelledError, KilledWorker
    from distributed.client import ClosedClientError
    from distributed.comm import CommClosedError
    module = Path(sys.modules[work.__module__].__file__).stem  # also of __main__
    remote = at_worker(FOLDER, module, work.__name__)

    def results(items, future):
        try:
            return future.result()
        except KilledWorker:
            return [InputError('its workers were lost again and again, at this image or one of '
                               'the next few; see their logs')] * len(items)

    pending = deque()
    try:
        for some in in_groups(items, group):
            if len(pending) == TASKS_AHEAD:
                yield from results(*pending.popleft())
            pending.append((some, client.submit(remote, some, *more, pure=False)))
        while pending:
            yield from results(*pending.popleft())
    except (CancelledError, ClosedClientError, CommClosedError):
        raise InputError('the Dask scheduler was lost; start it and its workers again') from None
    except ImportError as error:
        raise InputError(f'a worker came that cannot help ({error}); install requirements.txt '
                         'for it') from None


def in_groups(items, size):
    """Lists of up to `size` items."""
    group = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


# ---------------------------------------------------------------- rows that are kept

class RowLog:
    """A row for each of many images, kept on disk as they come: what a stopped run goes on from.

    The first line of the file says in JSON what the rows were made with; each of the others
    is a row, a JSON list that begins with the image's path. A line that was cut off is dropped,
    and so are rows of other images than `paths` (sorted), `strangers` in number. Use it as a
    context manager.
    """

    def __init__(self, path, paths):
        self.path, self.paths, self.strangers = Path(path), paths, 0
        self._offsets = np.full(len(paths), -1, np.int64)  # where in the file; 8 bytes an image
        self._file = open(path, 'r+b')
        lock(self._file)
        end = len(self._file.readline())
        for line in self._file:
            if not line.endswith(b'\n'):
                break
            with contextlib.suppress(ValueError, LookupError, TypeError):  # after a power cut
                self._note(Path(json.loads(line)[0]), end)
            end += len(line)
        self._file.seek(end)
        self._file.truncate()

    def _note(self, path, offset):
        index = bisect.bisect_left(self.paths, path)
        if index < len(self.paths) and self.paths[index] == path:
            self._offsets[index] = offset
        else:
            self.strangers += 1

    def missing(self):
        """Indices of the paths without a row: (n,) int64."""
        return np.flatnonzero(self._offsets < 0)

    def __len__(self):
        return int((self._offsets >= 0).sum())

    def write(self, index, row):
        """Add the row of `paths[index]`: a list of JSON's types, the path first."""
        with naming(self.path):
            offset = self._file.tell()
            self._file.write(json.dumps(row).encode() + b'\n')
            self._file.flush()
        self._offsets[index] = offset

    def rows(self):
        """All rows, in the order of the paths."""
        with open(self.path, 'rb') as file:
            for offset in self._offsets[self._offsets >= 0]:
                file.seek(offset)
                yield json.loads(file.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):  # of a full disk: it was raised before
            self._file.close()


def lock(file):
    """Keep other runs from an open file until it is closed; InputError if one has it."""
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f'{file.name}: another run is writing this file; wait for it'
                             ) from None


def begin_log(path, made, rows=()):
    """Make a log of those rows; `made` is what they were made with, a dict."""
    if os.path.exists(path):
        with open(path, 'rb') as file:
            lock(file)
    with whole_file(path) as file:
        print(json.dumps(made), file=file)
        for row in rows:
            print(json.dumps(row), file=file)


def has_rows(path):
    """Whether there is more in a log than its first line."""
    with open(path, 'rb') as file:
        file.readline()
        return bool(file.readline())


def other_options(path, made):
    """How what the first line of a file says differs from `made`: '' if it does not."""
    with open(path, 'rb') as file:
        try:
            before = dict(json.loads(file.readline()))
        except (ValueError, TypeError):
            return 'made by another program'
    return ', '.join(f'{key} {before.get(key)}, now {value}'[:120]
                     for key, value in made.items() if before.get(key) != value)


def open_csv_log(path, resume, made, fields, paths):
    """The `RowLog` that becomes the CSV file `path`, new or, with `resume`, gone on with.

    That is `<path>.unfinished` where a run was stopped, else the finished file, of which
    `<path>.run` says what it was made with. InputError if that was something else than
    `made`, and if the rows of a stopped run would be lost.
    """
    log, record = Path(f'{path}.unfinished'), Path(f'{path}.run')
    if not resume and log.exists() and has_rows(log):
        raise InputError(f'{log}: holds the rows of a run that was stopped; go on with --resume, '
                         'or delete it')
    finished = resume and not log.exists() and os.path.exists(path)
    if finished and not record.exists():
        raise InputError(f'{record}: not there, so nobody knows what {path} was made with; '
                         'choose another --csv')
    if resume and (log.exists() or finished):
        source = log if log.exists() else record
        if other := other_options(source, made):
            raise InputError(f'{source}: made with other options ({other}); use the same ones '
                             'or another --csv')
    if not (resume and log.exists()):
        with contextlib.ExitStack() as stack:
            rows = read_csv(stack.enter_context(open(path, **CSV_FORMAT)), path, fields) \
                if finished else ()
            begin_log(log, made, rows)
    return RowLog(log, paths)


def read_csv(file, path, fields):
    """The rows of a CSV file, lists of str; InputError if it is not one of those fields."""
    reader = csv.reader(file)
    if next(reader, None) != list(fields):
        raise InputError(f'{path}: has other columns than {",".join(fields)}; choose another --csv')
    try:
        for row in reader:
            if len(row) != len(fields):
                raise ValueError
            float(row[fields.index('quality')])
            yield row
    except (ValueError, csv.Error):
        raise InputError(f'{path}: line {reader.line_num} is damaged; choose another --csv'
                         ) from None


def finish_csv(log, path, made, fields):
    """Turn the log into the CSV file, in the order of the paths, and `<path>.run`."""
    with whole_file(path, **CSV_FORMAT) as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        writer.writerows(log.rows())
    with whole_file(f'{path}.run') as file:
        print(json.dumps(made), file=file)
    log.path.unlink()
