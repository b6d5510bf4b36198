"""Training shared out among replicas: GPUs of this machine, or workers on several (tf.distribute).

TensorFlow's names: a replica works on its part of every batch, a worker is a process with one
replica or more, and the chief is the worker that validates and writes the files.
"""
import contextlib
import json
import os
import re
import sys
import zlib
from collections.abc import Iterator
from typing import Any

from classifier.environment import import_tensorflow, quiet
from classifier.errors import InputError
from classifier.training.backend import Backend

STRATEGIES = ('default', 'mirrored', 'multi_worker')
_EXAMPLE = ('{"cluster": {"worker": ["host-a:5000", "host-b:5000"]}, '
            '"task": {"type": "worker", "index": 0}}')


def open_strategy(name: str) -> Any:
    """The strategy of that name; call it before anything else of TensorFlow's.

    Parameters
    ----------
    name : str
        One of STRATEGIES.

    Returns
    -------
    tf.distribute.Strategy

    Raises
    ------
    InputError
        For 'multi_worker', if TF_CONFIG does not name the workers.
    """
    if name == 'multi_worker':
        _check_cluster(os.environ.get('TF_CONFIG'))
    tf, _ = import_tensorflow()
    if name == 'default':
        return tf.distribute.get_strategy()
    tf.get_logger().setLevel('ERROR')
    if name == 'mirrored':
        return tf.distribute.MirroredStrategy()
    print('waiting for the other workers', file=sys.stderr)
    with quiet():
        return tf.distribute.MultiWorkerMirroredStrategy()


def _check_cluster(text):
    """InputError unless that TF_CONFIG names the workers and which of them this is."""
    try:
        config = json.loads(text or '')
        cluster, task = config['cluster'], config['task']
        addresses = cluster['worker'] + cluster.get('chief', [])
        if not (set(cluster) <= {'chief', 'worker'} and isinstance(task['index'], int)
                and 0 <= task['index'] < len(cluster[task['type']])
                and all(isinstance(address, str) and re.fullmatch(r'.+:\d+', address)
                        for address in addresses)):
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f'TF_CONFIG: {text or "not set"}: must name all workers and say which '
                         f'one this is, as in {_EXAMPLE}') from None


@contextlib.contextmanager
def lost_workers_named() -> Iterator[None]:
    """Turn TensorFlow's errors about workers that are gone into one InputError."""
    errors = import_tensorflow()[0].errors
    try:
        yield
    except (errors.UnavailableError, errors.AbortedError, errors.CancelledError,
            errors.DeadlineExceededError, errors.InternalError) as error:
        lines = str(error).splitlines()
        reason = next((line for line in lines if line.startswith('Collective ops')), lines[0])
        raise InputError(f'worker lost ({reason[:160]}); start all workers again with --resume'
                         ) from None


def refuse_unlike_workers(backend: Backend, *values: Any) -> None:
    """InputError if these values, or the weights, are not the same on all workers."""
    seen = zlib.crc32(b''.join([repr(values).encode(), *(w.tobytes() for w in backend.weights())]))
    if len(set(backend.of_all_workers(seen))) > 1:
        raise InputError('the workers differ in their options, files or state; start all with '
                         'the same command, on the same folders')
