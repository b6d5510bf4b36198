"""What the scripts share: exit statuses, messages, options, progress."""
import argparse
import contextlib
import errno
import functools
import os
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from classifier import __version__, environment
from classifier.environment import STDERR
from classifier.errors import InputError
from classifier.models import COMP_TYPES
from classifier.predictor import FUSIONS, PATCHES, Predictor
from classifier.runtime import RUNTIMES

MAX_SEED = 2 ** 32 - 1  # weights are drawn from 1000 seeds on, which must fit 64 bits
_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE)  # what writing may end with


def command(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """Make `main(argv=None)` return an exit status instead of raising.

    0 when it is done, 2 with one line on stderr for input that cannot be used (argparse does the
    same for its own errors), 130 after Ctrl-C, 141 when the reader of its output has left.
    """
    @functools.wraps(main)
    def wrapped(argv=None):
        name = Path(sys.modules[main.__module__].__file__).name
        sys.stdout = sys.stdout or open(os.devnull, 'w')  # None where it was closed
        sys.stderr = sys.stderr or open(os.devnull, 'w')
        for stream in (sys.stdout, sys.stderr):  # file names may hold any bytes
            if hasattr(stream, 'reconfigure'):  # not a StringIO's or a notebook's
                stream.reconfigure(errors='backslashreplace')
        try:
            if (signal.getsignal(signal.SIGINT) is signal.SIG_DFL
                    and threading.current_thread() is threading.main_thread()):
                signal.signal(signal.SIGINT, signal.default_int_handler)
            environment.announce = begin
            status = main(argv) or 0
            sys.stdout.flush()
            return status
        except InputError as error:
            complain(f'{name}: error: {error}')
        except OSError as error:  # no space, no permission, not a directory ...
            where = error.filename
            if where is None and error.errno in _UNWRITTEN:  # files are named, see files.naming
                where = 'standard output'
                # What it still holds is not to be tried again at the interpreter's end.
                with contextlib.suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                return 141
            where = f'{where}: ' if where else ''
            complain(f'{name}: error: {where}{error.strerror or error}')
        except KeyboardInterrupt as stop:
            complain('; '.join([f'{name}: stopped', *map(str, stop.args)]))
            return 130
        except Exception as error:
            # TensorFlow's own, such as a full disk; named by module, so as not to import it.
            if not type(error).__module__.startswith('tensorflow.'):
                raise
            complain(f'{name}: error: {str(error).splitlines()[0]}')
        finally:
            environment.announce = None
        return 2
    return wrapped


def printable(text: object) -> str:
    """The text on one line: control characters and undecodable bytes of file names escaped."""
    return ''.join(c if c.isprintable() or unicodedata.category(c) == 'Zs' else
                   c.encode('unicode_escape').decode() for c in str(text))


@contextlib.contextmanager
def _bar_aside() -> Iterator[None]:
    """The progress bar, if one is drawn, makes way for a line."""
    with STDERR:
        if Progress.drawn:
            Progress.drawn.clear()
        yield
        if Progress.drawn:
            Progress.drawn.refresh()


def say(message: str) -> None:
    """A line of a result on stdout."""
    with _bar_aside():
        print(message, flush=True)


def complain(message: str) -> None:
    """One line on stderr, whatever file names are in it."""
    with _bar_aside():
        print(printable(message), file=sys.stderr, flush=True)


def begin(work: str) -> None:
    """Say on stderr what begins now and takes long, such as 'loading TensorFlow'."""
    complain(f'{work} ...')


def warn(message: str) -> None:
    """A warning: one line on stderr."""
    complain(f'warning: {message}')


@contextlib.contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
    """Put the file's name in front of an InputError about its pixels."""
    try:
        yield
    except InputError as error:
        raise InputError(f'{path}: {error}') from None


def count(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number of at least `minimum`, at most `maximum`."""
    def parse(text):
        value = int(text)
        if value < minimum or maximum is not None and value > maximum:
            raise ValueError
        return value
    end = 'on' if maximum is None else f'to {maximum}'
    parse.__name__ = f'whole number from {minimum} {end}'  # argparse shows it in its error
    return parse


def number(lowest: float, highest: float) -> Callable[[str], float]:
    """An argparse type: a number in that range."""
    def parse(text):
        value = float(text)
        if not lowest <= value <= highest:
            raise ValueError
        return value
    parse.__name__ = f'number in {lowest}..{highest}'
    return parse


EXIT_STATUSES = """exit status:
  0    done
  2    something cannot be used; a line on stderr names it and says what to do
  130  stopped by Ctrl-C
  141  the program that reads the output has ended"""


def script_parser(description: str, *more: str, **kwargs: Any) -> argparse.ArgumentParser:
    """The parser of a script: --version, and the exit statuses at the end of its --help.

    Parameters
    ----------
    description : str
        The script's docstring.
    *more : str
        Texts for the end of --help, in front of the exit statuses.
    **kwargs
        As `argparse.ArgumentParser` takes them.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog='\n\n'.join([*more, EXIT_STATUSES]),
        formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    return parser


def add_network_options(parser: argparse.ArgumentParser, prediction: bool = False) -> None:
    """The options that choose a network and, with `prediction`, how it answers for an image."""
    names = ', '.join(COMP_TYPES)
    parser.add_argument('--comp_type', metavar='NAME', required=not prediction, help=names + (
        ' (default: the exact quality where there is one, else jpeg_robust)' if prediction else ''))
    parser.add_argument('--weights', metavar='DIR',
                        help='folder of other weights (default: the shipped)')
    if not prediction:
        return
    parser.add_argument('--fusion', choices=FUSIONS,
                        help="how the patches' answers become one: a posterior learned for "
                        "edited images, their likelihood, or the paper's median of the confident "
                        'ones (default: the first of these that the weights have)')
    parser.add_argument('--threshold', type=number(0, 100), metavar='C',
                        help='median of the patches of more than this confidence, 0 to 100 '
                        '(default: as stored with the weights)')
    parser.add_argument('--runtime', choices=RUNTIMES,
                        help='what runs the network (default: litert, where it is installed)')
    parser.add_argument('--patches', choices=PATCHES, default='enough',
                        help='as many patches as the likelihood needs (default), or all')


def add_scheduler_option(parser: argparse.ArgumentParser) -> None:
    """The option that hands the work to a Dask cluster."""
    parser.add_argument('--scheduler', metavar='ADDRESS',
                        help='a Dask cluster, such as tcp://10.0.0.1:8786 (default: the cores of '
                        'this machine)')


def open_predictor(args: argparse.Namespace) -> Predictor:
    """The `Predictor` that the options of `add_network_options` ask for."""
    return Predictor(args.comp_type, args.weights, args.threshold, args.fusion, args.runtime,
                     args.patches)


class Progress:
    """A bar with an ETA on stderr, or a plain line now and then if that is no terminal.

        with Progress(total, 'images') as progress:
            for ...:
                progress.update(done, 'loss 3.2')

    Of what takes less than a second there is no plain line.
    """
    FIRST_LINE, LINE_EVERY = 1.0, 15.0  # seconds until the first plain line, and between others
    drawn = None  # the bar that is on the terminal

    def __init__(self, total: int, unit: str, start: int = 0):
        from tqdm import tqdm
        self.terminal, self.shown = sys.stderr.isatty(), time.monotonic()
        # Where there is no terminal, the bar is never drawn, and only keeps count.
        self.bar = tqdm(total=total, initial=start, unit=f' {unit}', file=sys.stderr, leave=True,
                        disable=None, dynamic_ncols=True)
        self.format, self.begun, self.start = tqdm.format_interval, self.shown, start
        self.total, self.unit, self.done, self.note, self.lines = total, unit, start, '', 0
        self.timer = threading.Timer(self.FIRST_LINE, self._line)
        self.timer.daemon = True

    def update(self, done: int, note: str = '') -> None:
        """Say that so many are done, and how it goes."""
        if self.terminal:
            with STDERR:
                self.bar.set_postfix_str(printable(note), refresh=False)
                self.bar.update(done - self.bar.n)
            return
        with STDERR:
            self.done, self.note = done, note
            due = time.monotonic() - self.shown >= self.LINE_EVERY
            if due or done >= self.total and self.lines:
                self._line()

    def _line(self):
        with STDERR:
            self.shown, self.lines = time.monotonic(), self.lines + 1
            taken, new, left = self.shown - self.begun, self.done - self.start, ''
            if self.done >= self.total:
                left = f', took {self.format(taken)}'
            elif new > 0:
                left = f', ETA {self.format(taken / new * (self.total - self.done))}'
            complain(f'{self.done}/{self.total} {self.unit}'
                     + (f', {self.note}' if self.note else '') + left)

    def __enter__(self):
        if self.terminal:
            Progress.drawn = self.bar
        else:
            self.timer.start()
        return self

    def __exit__(self, *_):
        if self.timer.is_alive():
            self.timer.cancel()
            self.timer.join()
        with STDERR:
            Progress.drawn = None
            self.bar.close()
