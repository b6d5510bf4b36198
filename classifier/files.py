"""Files that are whole or not there: written under a name of their own, synced, renamed."""
import contextlib
import io
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from classifier.errors import InputError


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Put the file's name into an OSError that has none."""
    try:
        yield
    except OSError as error:
        if error.filename:
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, reason, str(path)) from None


def is_special(path: str | os.PathLike) -> bool:
    """Whether that is a device or pipe; InputError for a folder."""
    if os.path.isdir(path):
        raise InputError(f'{path}: is a folder; name a file')
    return os.path.exists(path) and not os.path.isfile(path)


class _NamedFile(io.FileIO):
    """A new file whose final name is in the error of a write that fails."""

    def __init__(self, part, path):
        with naming(path):
            super().__init__(part, 'x')
        self.path = path

    def write(self, data):
        with naming(self.path):
            return super().write(data)


def sync_folder(path: str | os.PathLike) -> None:
    """Write a folder's entries to the disk, where the system allows it."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def put_in_place(part: str | os.PathLike, path: str | os.PathLike) -> None:
    """Give a complete, synced file or folder its name, and sync the folder that holds it."""
    os.replace(part, path)
    sync_folder(Path(path).parent)


def part_of(path: Path) -> Path:
    """A temporary name of this writer's own beside a file, while it is not whole."""
    return path.with_name(f'{path.name[:200]}.{os.getpid()}.{secrets.token_hex(4)}.part')


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, mode: str = 'w', **kwargs: Any) -> Iterator[IO]:
    """Open a file for writing that gets its name only once it is complete.

    Until then it has a temporary name of its own beside it, so that two writers cannot mix; an
    error removes it, and an existing file stays as it was. A device or pipe is written to
    directly; of a symbolic link, the target is replaced.

    Parameters
    ----------
    path : path-like
    mode : {'w', 'wb'}
    **kwargs
        For the text layer, as `open` takes them.

    Raises
    ------
    InputError
        The path is a folder's.
    OSError
        Writing failed, on a full disk for instance; it names the file.
    """
    if is_special(path):
        with naming(path), open(path, mode, **kwargs) as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    raw = _NamedFile(part, path)
    try:
        file = io.BufferedWriter(raw)
        with file if 'b' in mode else io.TextIOWrapper(file, **kwargs) as file:
            yield file
            file.flush()
            with naming(path):
                os.fsync(raw.fileno())
        put_in_place(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_writable(*paths: str | os.PathLike | None) -> None:
    """Make sure, before long work, that these files can be written at its end.

    Parameters
    ----------
    *paths : path-like or None
        Folders that are missing are made, as by `whole_file`; None is skipped.

    Raises
    ------
    InputError
        One of the files cannot be written.
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


def save_arrays(path: str | os.PathLike, *arrays: np.ndarray, compress: bool = False,
                **named: np.ndarray) -> None:
    """Write arrays to an .npz file; in memory first, for NumPy's writer dislikes a full disk."""
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, *arrays, **named)
    with whole_file(path, 'wb') as file:
        file.write(buffer.getbuffer())


def save_figure(figure: Any, path: str | os.PathLike) -> None:
    """Write a matplotlib figure to a PNG file."""
    with whole_file(path, 'wb') as file:
        figure.savefig(file, format='png', dpi=150, bbox_inches='tight')
