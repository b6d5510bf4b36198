"""Copies of, or links to, chosen files in another folder; nothing is moved, deleted or replaced."""
import errno
import filecmp
import os
import shutil
from pathlib import Path

from classifier.errors import InputError
from classifier.files import naming, part_of

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def place(source: Path, target: Path, link: bool) -> None:
    """Put a copy of a file, or a symbolic link to it, at a place where nothing is.

    Its folder is made. What is there already stays as it is; if that is such a copy or link, it is
    as good.

    Parameters
    ----------
    source, target : Path
    link : bool

    Raises
    ------
    InputError
        Something else is there.
    OSError
        It cannot be written.
    """
    source = Path(os.path.abspath(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if link:
            os.symlink(source, target)
        else:
            _copy(source, target)
    except FileExistsError:
        same = (os.path.islink(target) and os.readlink(target) == str(source) if link else
                target.is_file() and not os.path.islink(target)
                and filecmp.cmp(source, target, shallow=False))
        if not same:
            raise InputError(f'{target}: is there already and stays as it is; choose another '
                             'folder') from None


def _copy(source, target):
    """Copy a file with its times, under a name of its own until it is whole."""
    if os.path.lexists(target):
        raise FileExistsError
    part = part_of(target)
    try:
        with naming(target):
            shutil.copyfile(source, part)
            shutil.copystat(source, part)
        try:
            os.link(part, target)  # unlike a renaming, it replaces nothing
        except OSError as error:
            if error.errno not in _NO_LINKS or os.path.lexists(target):
                raise
            os.rename(part, target)
    finally:
        part.unlink(missing_ok=True)
