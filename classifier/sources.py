"""Pristine images to make data or measure from, and warnings about those that are not."""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from classifier.cli import Progress, warn
from classifier.environment import cores
from classifier.errors import InputError
from classifier.forensics.header import known_header
from classifier.images import MAX_JPEG_SIDE, MAX_PIXELS, read_image


def usable_images(paths: list[Path], side: int, max_pixels: float = MAX_PIXELS) -> list[Path]:
    """The images that can be used, in their order; warns about the others.

    Each is read once before any work: what an image that turns out to be damaged in the middle
    should have given would be missing from the result.

    Parameters
    ----------
    paths : list of Path
    side : int
        Least width and height, in px.
    max_pixels : float
        Larger images are left out, unread.

    Raises
    ------
    InputError
        None can be used.
    """
    notices, usable = [], []

    def problem(path):
        try:
            height, width = read_image(path, max_pixels, notices.append).shape[:2]
            if _changes_pixels(path):
                return f'{path}: GIF and AVIF change pixels; take the image that it was made of'
        except InputError as error:
            return error
        if min(height, width) < side:
            return f'{path}: {width}x{height} is smaller than {side}x{side}'
        if max(height, width) > MAX_JPEG_SIDE:
            return f'{path}: {width}x{height}, JPEG holds no side over {MAX_JPEG_SIDE} px'
        return None

    with ThreadPoolExecutor(cores()) as pool, Progress(len(paths), 'images read') as progress:
        problems = []  # of all, for reading may keep stderr quiet
        for reason in pool.map(problem, paths):
            problems.append(reason)
            progress.update(len(problems))
    for notice in sorted(notices):
        warn(notice)
    for path, reason in zip(paths, problems):
        if reason:
            warn(f'left out: {reason}')
        else:
            warn_of_jpeg(path)
            usable.append(path)
    if not usable:
        raise InputError('none of the images can be used')
    return usable


def _changes_pixels(path):
    """Whether a file is GIF, which has 256 colours, or AVIF, which is lossy."""
    with open(path, 'rb') as file:
        start = file.read(8)
    return start[:4] == b'GIF8' or start[4:] == b'ftyp'


def warn_of_jpeg(path: Path) -> None:
    """Warn about an image that is itself a JPEG of less than quality 95; no other is read."""
    header = known_header(path)
    if header and header.quality and header.quality < 95:
        warn(f'{path}: is itself a JPEG of quality {header.quality}; its patches would carry '
             'wrong labels, better leave it out')
