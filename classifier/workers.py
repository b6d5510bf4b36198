"""Work in processes of their own, one for each thread that asks: no two share an interpreter lock.

    with Workers() as workers:
        found = workers.call(look_at, path, *more)     # look_at(path, *more), in a process

A process imports this package alone, not the program that called it. It reads pickled requests from
its standard input; the work and its other arguments are sent only when they change. It ends when
that input does, once the item at hand is done, so that none is left behind by a program that was
killed. Python's own pools of processes lose all their work when one process is lost, and stay when
the program is killed.
"""
import contextlib
import importlib
import operator
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == '__main__':  # from here on an interrupt leaves no traceback
    sys.excepthook = lambda *error: error[0] is KeyboardInterrupt or sys.__excepthook__(*error)
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
        self._stopped = False

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
        if self._stopped:
            return InputError('the run was stopped')
        process, before = own['process'], own['asked']
        known = len(before) == len(asked) and all(map(operator.is_, before, asked))
        request = pickle.dumps((None if known else (*name_of(work), more), item))
        try:
            process.stdin.write(request)
            process.stdin.flush()
            done, found = pickle.load(process.stdout)
        except _LOST:
            own['process'] = None
            return InputError(f'the process that looked at it was lost ({_ended(process)}), '
                              'perhaps because memory ran out; try it alone')
        own['asked'] = asked
        if not done:
            raise found
        return found

    def stop(self) -> None:
        """Interrupt what the processes do, as Ctrl-C would; what they were asked for is lost."""
        self._stopped = True
        for process in self._all:
            process.send_signal(signal.SIGINT)

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

    def answer(packed):
        answers.write(packed)
        answers.flush()

    with contextlib.suppress(EOFError, BrokenPipeError):
        answer(pickle.dumps('ready'))
        while True:
            new, item = pickle.load(requests)
            if new:
                module, name, more = new
                work = getattr(importlib.import_module(module), name)
            try:
                found = True, work(item, *more)
            except Exception as error:
                found = False, error
            try:
                pickle.loads(packed := pickle.dumps(found))
            except Exception:  # a result or an error that cannot be sent
                packed = pickle.dumps((False, RuntimeError(traceback.format_exc())))
            answer(packed)


if __name__ == '__main__':
    serve()
