"""Work on many images: on all cores or on a Dask cluster, with one predictor a thread or process.

    with parallel_map(scheduler, folder) as run:
        for row in run(work, paths):

The work is a function of a module in this package. It takes an image's path, reads the image
itself, and returns small things: so no more images are in memory than cores are at work.
"""
import argparse
import contextlib
import hashlib
import itertools
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

from classifier.checkpoints import best_folder, weights_digest
from classifier.environment import cores
from classifier.errors import InputError
from classifier.predictor import Predictor
from classifier.workers import ROOT, Workers, name_of

AHEAD = 4           # items for each core that are begun or waiting
TASKS_AHEAD = 1000  # tasks that a Dask scheduler is given before it answered
PATIENCE = 10       # seconds to wait for a scheduler and its first worker
# From so many images on, a process for each core (0.4 s to start) is faster than threads,
# which share the interpreter lock.
FEWEST_APART = 50

_OPENING = threading.Lock()
_OPENED, _SHARED = threading.local(), {}  # predictors of a thread, and of the whole process


def digest(data: bytes) -> str:
    """The first 16 of the 64 hexadecimal digits of the SHA-256 of those bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def made_with(args: argparse.Namespace, predictor: Predictor) -> dict:
    """What the predictions of the options `args` depend on, in JSON's types."""
    folder, fusion, fused_by = (args.weights or best_folder(predictor.type), predictor.fusion, [])
    if fusion == 'posterior':
        fused_by = predictor.image_posterior.arrays().values()
    elif fusion == 'likelihood':
        fused_by = [predictor.log_likelihood]
    if fused_by:
        fusion += f' {digest(b"".join(array.tobytes() for array in fused_by))}'
    return {'comp_type': predictor.name, 'runtime': predictor.runtime,
            'weights': (weights_digest(folder) or '')[:16],
            'model': '' if predictor.model is None else digest(predictor.model),
            'fusion': fusion, 'threshold': predictor.threshold, 'patches': args.patches,
            'refine': args.refine}


def network_of(args: argparse.Namespace, predictor: Predictor, made: dict) -> tuple:
    """What `opened` needs to open this predictor in another thread or on another machine."""
    weights = args.weights and os.path.abspath(args.weights)
    network = (args.comp_type, weights, args.threshold, args.fusion, predictor.runtime,
               args.patches, json.dumps(made))
    if predictor.model is None:
        _SHARED[network] = predictor
    return network


def opened(network: tuple) -> Predictor:
    """This thread's `Predictor`, opened when first asked for.

    That of a model file is for this thread alone; that of a checkpoint, slow to open, for all.

    Parameters
    ----------
    network : tuple
        As `network_of` returns it.
    """
    own = vars(_OPENED)
    if network not in own:
        with _OPENING:
            own[network] = _SHARED.get(network) or Predictor(*network[:-1], threads=1)
            if own[network].model is None:
                _SHARED[network] = own[network]
    return own[network]


def worth_processes(network: tuple | None, number: int) -> bool:
    """Whether so many items are done faster in processes, with that network, than in threads.

    TensorFlow would have to be loaded in each of them.
    """
    return network is not None and 'litert' in network and number >= FEWEST_APART


def ordered_map(pool: Executor, work: Callable, items: Iterable, ahead: int) -> Iterator:
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
def parallel_map(scheduler: str | None = None, in_path: str | os.PathLike | None = None,
                 group: int = 1, apart: bool = False) -> Iterator[Callable[..., Iterator]]:
    """A function that does work on all cores of this machine, or on a Dask cluster.

    Parameters
    ----------
    scheduler : str, optional
        Address of the Dask cluster; by default the cores are used.
    in_path : path-like, optional
        The images, needed for a cluster: its workers must see them, and this repository, under
        the same paths as here.
    group : int
        Items in one of the cluster's tasks.
    apart : bool
        On this machine, have a process for each core, not a thread.

    Yields
    ------
    callable
        `run(work, items, *more)`, which yields work(item, *more) in the order of the items; for
        an item whose process was lost, or whose cluster workers were lost again and again, an
        InputError.

    Raises
    ------
    InputError
        The cluster cannot help, or its scheduler is lost.
    """
    if scheduler:
        with _cluster(scheduler, os.path.abspath(in_path)) as client:
            yield partial(_cluster_map, client, group)
        return
    with Workers() if apart else contextlib.nullcontext() as workers:
        def call(work, *what):
            return workers.call(work, *what) if apart else work(*what)
        pool = ThreadPoolExecutor(cores())
        try:
            yield lambda work, items, *more: ordered_map(
                pool, lambda item: call(work, item, *more), items, AHEAD * cores())
        except BaseException:  # such as Ctrl-C, which reaches none of the processes by itself
            pool.shutdown(wait=False, cancel_futures=True)
            if apart:
                workers.stop()
            raise
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
    root, (module, name) = str(ROOT), name_of(function)

    def work(items, *more):
        import importlib
        import sys
        if root not in sys.path:
            sys.path.insert(0, root)
        function = getattr(importlib.import_module(module), name)
        return [function(item, *more) for item in items]
    return work


def _cluster_map(client, group, work, items, *more):
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
