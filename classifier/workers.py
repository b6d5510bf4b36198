"""Work in processes of their own, one for each thread that asks: no two share an interpreter lock.

    with Workers() as workers:
        found = workers.call(look_at, path, *more)     # look_at(path, *more), in a process

A process imports this package alone, not the program that called it. It reads pickled requests from
its standard input, of which each work's other arguments are sent once, and ends with it, so that
none outlives a program that was killed.
"""
import contextlib
import importlib
import operator
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))

from classifier.errors import InputError

# Libraries start threads of their own for each core where these do not say otherwise.
_ONE_THREAD = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
_LOST = EOFError, OSError, pickle.UnpicklingError


def name_of(function: Callable) -> tuple[str, str]:
    """Module, inside this package, and name of a function that another process is to import."""
    module = function.__module__
    if module == '__main__':
        module = f'classifier.{Path(sys.modules[module].__file__).stem}'
    return module, function.__name__


class Workers(contextlib.AbstractContextManager):
    """Processes that do work, one for each thread, started when it first asks."""

    def __init__(self):
        self._own, self._all = threading.local(), []  # of a thread, and of all

    def call(self, work: Callable, item: Any, *more: Any) -> Any:
        """work(item, *more) in this thread's process; all of it, and what it gives, is pickled.

        Where the process is lost meanwhile, killed or crashed, an InputError is returned, and the
        next call has a new one.

        Raises
        ------
        InputError
            A process cannot be started.
        Exception
            What the work has raised.
        """
        own, asked = vars(self._own), (work, *more)
        if not own.get('process'):
            own['process'], own['asked'] = self._start(), ()
        process, before = own['process'], own['asked']
        known = len(before) == len(asked) and all(map(operator.is_, before, asked))
        request = pickle.dumps((None if known else (*name_of(work), more), item))
        try:
            process.stdin.write(request)
            process.stdin.flush()
            done, found = pickle.load(process.stdout)
        except _LOST:
            own['process'] = None
            return InputError(f'the process that looked at it was lost ({_ended(process)}); if '
                              'it was memory that ran out, choose a smaller --max_pixels')
        own['asked'] = asked
        if not done:
            raise found
        return found

    def _start(self):
        process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, env={**os.environ, **_ONE_THREAD},
                                   start_new_session=True)  # Ctrl-C is for its parent
        self._all.append(process)
        try:
            pickle.load(process.stdout)  # it is ready
        except _LOST:
            raise InputError('a process to work in cannot be started '
                             f'({_ended(process)})') from None
        return process

    def __exit__(self, *_):
        for process in self._all:
            with contextlib.suppress(OSError):
                process.stdin.close()
        for process in self._all:
            process.wait()
            process.stdout.close()


def _ended(process):
    """How a process ended of which no answer can be read."""
    try:
        status = process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    return f'signal {-status}' if status < 0 else f'exit status {status}'


def serve() -> None:
    """Answer requests from standard input until it ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # whatever libraries print is no answer
    import cv2
    cv2.setNumThreads(1)

    def answer(found):
        answers.write(pickle.dumps(found))
        answers.flush()

    with contextlib.suppress(EOFError, BrokenPipeError):
        answer('ready')
        while True:
            new, item = pickle.load(requests)
            if new:
                module, name, more = new
                work = getattr(importlib.import_module(module), name)
            try:
                found = True, work(item, *more)
            except Exception as error:
                found = False, error
            answer(found)


if __name__ == '__main__':
    serve()
