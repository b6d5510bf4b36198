"""What the scripts do alike: errors, options, progress, work ahead, files written whole."""
import contextlib
import errno
import functools
import io
import itertools
import os
import sys
import tempfile
import time
import unicodedata
from collections import deque
from pathlib import Path

from models import COMP_TYPES, PATCHES, RUNTIMES, STDERR, InputError, Predictor

MAX_SEED = 2 ** 32 - 1  # weights are drawn from 1000 seeds on, which must fit 64 bits

UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE)  # what writing may end with


def command(main):
    """Make `main(argv=None)` return an exit status instead of raising.

    0 when it is done, 2 with one line on stderr for input that cannot be used
    (argparse does the same for its own errors), 130 after Ctrl-C.
    """
    @functools.wraps(main)
    def wrapped(argv=None):
        name = Path(sys.modules[main.__module__].__file__).name
        sys.stdout = sys.stdout or open(os.devnull, 'w')  # None where it was closed
        sys.stderr = sys.stderr or open(os.devnull, 'w')
        for stream in (sys.stdout, sys.stderr):  # file names may hold any bytes
            stream.reconfigure(errors='backslashreplace')
        try:
            status = main(argv) or 0
            sys.stdout.flush()
            return status
        except InputError as error:
            complain(f'{name}: error: {error}')
        except OSError as error:  # no space, no permission, not a directory ...
            where = error.filename
            if where is None and error.errno in UNWRITTEN:  # files are named, see `naming`
                where = 'standard output'
                # What it still holds is not to be tried again at the interpreter's end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # the reader of our output left
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
        return 2
    return wrapped


def printable(text):
    """The text on one line: control characters and undecodable bytes of file names escaped."""
    return ''.join(c if c.isprintable() or unicodedata.category(c) == 'Zs' else
                   c.encode('unicode_escape').decode() for c in str(text))


def complain(message):
    """One line on stderr, whatever file names are in it."""
    with STDERR:
        print(printable(message), file=sys.stderr)


@contextlib.contextmanager
def named(path):
    """Put the file's name in front of an InputError about its pixels."""
    try:
        yield
    except InputError as error:
        raise InputError(f'{path}: {error}') from None


@contextlib.contextmanager
def naming(path):
    """Put the file's name into an OSError that has none."""
    try:
        yield
    except OSError as error:
        if error.filename:
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, reason, str(path)) from None


def is_special(path):
    """Whether that is a device or pipe; InputError for a folder."""
    if os.path.isdir(path):
        raise InputError(f'{path}: is a folder; name a file')
    return os.path.exists(path) and not os.path.isfile(path)


class NamedFile(io.FileIO):
    """A file whose name is in the error of a write that fails."""

    def write(self, data):
        with naming(self.name):
            return super().write(data)


def put_in_place(part, path):
    """Give a complete file, synced to the disk, its name, and sync the folder that holds it."""
    os.replace(part, path)
    with contextlib.suppress(OSError):  # not every system lets a folder be opened and synced
        folder = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def whole_file(path, mode='w', **kwargs):
    """Open a file for writing that gets its name only once it is complete.

    Until then it is called `<name>.part`; an error removes that, so that an
    existing file of the name stays as it was. A device or pipe is written to
    directly, a symbolic link's target replaced. InputError for a folder's name; an
    OSError of the writing, such as a full disk, names the file.
    """
    if is_special(path):
        with naming(path), open(path, mode, **kwargs) as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    part = path.with_name(path.name + '.part')
    path.parent.mkdir(parents=True, exist_ok=True)
    if part.is_symlink():
        part.unlink()  # not ours: what it points to is not to be written over
    try:
        raw = NamedFile(part, mode.replace('b', ''))
        file = io.BufferedWriter(raw)
        with file if 'b' in mode else io.TextIOWrapper(file, **kwargs) as file:
            yield file
            file.flush()
            with naming(part):
                os.fsync(raw.fileno())
        put_in_place(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_writable(*paths):
    """InputError, before long work, if one of the files could not be written at its end.

    Makes the folders that are missing, as `whole_file` does; None among them is passed over.
    """
    for path in map(Path, filter(None, paths)):
        if is_special(path):
            continue
        path = Path(os.path.realpath(path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix='.part'):
                continue
        except FileExistsError as error:
            reason = f'{error.filename} is not a folder'
        except OSError as error:
            reason = error.strerror
        raise InputError(f'{path}: cannot be written ({reason}); choose another place')


def save_figure(figure, path):
    """Write a matplotlib figure to a PNG file."""
    with whole_file(path, 'wb') as file:
        figure.savefig(file, format='png', dpi=150, bbox_inches='tight')


def add_network_options(parser, threshold=False):
    """The options that say which network to use."""
    parser.add_argument('--comp_type', required=True, help=', '.join(COMP_TYPES))
    parser.add_argument('--weights', metavar='DIR', help='checkpoint folder (default: the shipped)')
    if threshold:
        parser.add_argument('--fusion', choices=('likelihood', 'median'),
                            help='how patches become an answer: by how likely they are at each '
                            "quality, or the paper's median of the confident ones (default: "
                            'likelihood, where the weights come with one)')
        parser.add_argument('--threshold', type=number(0, 100), metavar='C',
                            help='the median of the patches of more than this confidence '
                            '(default: as stored beside the weights)')
        parser.add_argument('--runtime', choices=RUNTIMES,
                            help='what runs the model file that lies beside the weights '
                            '(default: litert, where it is installed); without one, tensorflow '
                            'runs the checkpoint')
        parser.add_argument('--patches', choices=PATCHES, default='enough',
                            help='how many are looked at: until the likelihood has settled the '
                            'answer (default), or all')


def add_scheduler_option(parser):
    parser.add_argument('--scheduler', metavar='ADDRESS',
                        help='let the workers of a Dask cluster do it, such as '
                        'tcp://10.0.0.1:8786 (default: the cores of this machine)')


def open_predictor(args):
    """The `Predictor` that those options ask for."""
    return Predictor(args.comp_type, args.weights, args.threshold, args.fusion, args.runtime,
                     args.patches)


def count(minimum, maximum=None):
    """An argparse type: a whole number of at least `minimum`, at most `maximum`."""
    def parse(text):
        value = int(text)
        if value < minimum or maximum is not None and value > maximum:
            raise ValueError
        return value
    end = 'on' if maximum is None else f'to {maximum}'
    parse.__name__ = f'whole number from {minimum} {end}'  # argparse shows it in its error
    return parse


def number(lowest, highest):
    """An argparse type: a number in that range."""
    def parse(text):
        value = float(text)
        if not lowest <= value <= highest:
            raise ValueError
        return value
    parse.__name__ = f'number in {lowest}..{highest}'
    return parse


def ordered_map(pool, work, items, ahead):
    """Results of `work` in the order of `items`, at most `ahead` of them in memory."""
    items = iter(items)
    pending = deque(pool.submit(work, i) for i in itertools.islice(items, ahead))
    try:
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(work, i) for i in itertools.islice(items, 1))
    finally:
        for future in pending:
            future.cancel()


def duration(seconds):
    """'1:02:03' or '2:03'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Progress:
    """A bar with an ETA on stderr, or a plain line now and then if it is no terminal.

        with Progress(total, 'images') as progress:
            for ...:
                progress.update(done, 'loss 3.2')
    """
    LINE_EVERY = 15.0  # seconds between plain lines
    WIDTH = 28

    def __init__(self, total, unit, start=0):
        self.total, self.unit, self.start = total, unit, start
        self.terminal = sys.stderr.isatty()
        self.begun = self.shown = time.monotonic()
        self.width = 0

    def update(self, done, note=''):
        now = time.monotonic()
        last = done >= self.total
        if now - self.shown < (0.1 if self.terminal else self.LINE_EVERY) and not last:
            return
        self.shown = now
        pace = (now - self.begun) / max(done - self.start, 1)
        left = duration(pace * (self.total - done))
        text = f'{done}/{self.total} {self.unit}'
        if note:
            text += f', {printable(note)}'
        text += f', took {duration(now - self.begun)}' if last else f', ETA {left}'
        with STDERR:
            if self.terminal:
                filled = self.WIDTH * done // max(self.total, 1)
                text = f'[{"#" * filled}{" " * (self.WIDTH - filled)}] {text}'
                print('\r' + text.ljust(self.width), end='', file=sys.stderr, flush=True)
                self.width = len(text)
            else:
                print(text, file=sys.stderr, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.terminal and self.width:
            print(file=sys.stderr)
