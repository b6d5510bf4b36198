"""Which images the arguments of a command name: files, folders, a list on standard input."""
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from classifier.errors import InputError
from classifier.images import list_images

STDIN = '-'  # in place of a path: the paths come on standard input
_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+://')


def is_single(names: Sequence[str]) -> bool:
    """Whether the arguments name one image file and nothing else."""
    return len(names) == 1 and names[0] != STDIN and not os.path.isdir(names[0])


def listed_paths(names: Sequence[str], recursive: bool,
                 notice: Callable[[str], None] | None = None) -> list[Path]:
    """The images that the arguments name, each once, in their order.

    Parameters
    ----------
    names : sequence of str
        Files and folders; STDIN stands for a list of them on standard input, a line for each, or
        each with a null character behind it, as `find -print0` writes them.
    recursive : bool
        Look in subfolders, too.
    notice : callable, optional
        As `images.list_images` takes it.

    Raises
    ------
    InputError
        Something that is not there, or a URL; of a list, such a path is among the images, for
        reading it to fail.
    """
    found = []
    for name in names:
        if name == STDIN:
            for listed in _on_stdin():
                found += (list_images(listed, recursive, notice) if os.path.isdir(listed)
                          else [Path(listed)])
        elif os.path.isdir(name):
            found += list_images(name, recursive, notice)
        elif os.path.lexists(name):
            found.append(Path(name))
        elif _URL.match(name):
            raise InputError(f'{name}: a URL; download it, and name the file')
        else:
            raise InputError(f'{name}: no such file or folder')
    return list(dict.fromkeys(found))


def _on_stdin():
    """The paths on standard input."""
    data = sys.stdin.buffer.read() if sys.stdin else b''
    names = (data.split(b'\0') if b'\0' in data else
             [line.removesuffix(b'\r') for line in data.split(b'\n')])
    names = [os.fsdecode(name) for name in names if name]
    if not names:
        raise InputError('standard input: names no image')
    return names
