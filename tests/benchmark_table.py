"""The table that benchmark.py prints, and how times are taken for it."""
import contextlib
import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from classifier import images

ROUNDS = 5
SIZE = 768, 512  # px, width and height of the photos
HUNDRED_MILLION = 1e8 / 3.6e6  # core-hours of so many images, for a ms each
JPEG, HIDDEN, NEVER, EDITED = ('JPEG', 'PNG, hidden JPEG', 'PNG, never compressed',
                               'PNG, edited JPEG')
KINDS = JPEG, HIDDEN, NEVER, EDITED
QUALITIES = 75, 85, 90, 95, 60, 50


def row(what: str, value: float | None, unit: str, note: str = '') -> None:
    """Print a row of the table; without a value the note says why there is none."""
    number = '-' if value is None else f'{value:,.{1 if abs(value) < 10 else 0}f}'
    print(f'{what:52}{number:>10} {unit:10} {note}'.rstrip(), flush=True)


def rate(work: Callable, amount: float) -> float:
    """`amount` a second for one call of `work`."""
    began = time.perf_counter()
    work()
    return amount / (time.perf_counter() - began)


def on_one_core(work: Callable, amount: int = 1) -> float:
    """Processor time of all threads together, in ms, that one of `amount` things takes."""
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began) / amount


def in_turns(ways: dict[str, Callable], measure: Callable,
             rounds: int = ROUNDS) -> dict[str, list[float]]:
    """What `measure` says of each way, in each of the rounds; before, each is run once."""
    for way in ways.values():
        way()
    found = [[measure(way) for way in ways.values()] for _ in range(rounds)]
    return dict(zip(ways, map(list, zip(*found))))


def compare(ways: dict[str, Callable], rounds: int, amount: int = 1) -> None:
    """A row for each way to do `amount` things: time for one, and ratio to the first way."""
    times = in_turns(ways, lambda way: 1 / rate(way, amount), rounds)
    first, *_ = times.values()
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(first, taken))
        row(name, 1000 * statistics.median(taken), 'ms',
            '' if taken is first else f'{ratio:.1f} x as fast as the first')


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Without what a script prints."""
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        yield


def photos(folder: str | os.PathLike, number: int) -> list[np.ndarray]:
    """So many photos of the folder at SIZE: the first ones, if need be again and shifted."""
    paths = images.list_images(folder)[:number]
    first = [cv2.resize(images.read_image(path), SIZE, interpolation=cv2.INTER_AREA)
             for path in paths]
    return [np.roll(first[i % len(first)], 8 * (i // len(first)), axis=1) for i in range(number)]


def write_image(folder: Path, name: int, kind: str, photo: np.ndarray, quality: int) -> Path:
    """The file of one of KINDS that a photo gives, at a quality."""
    path = folder / f'{name}{".jpg" if kind == JPEG else ".png"}'
    if kind == JPEG:
        cv2.imwrite(str(path), photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return path
    if kind != NEVER:
        photo = images.compress(photo, quality)
    if kind == EDITED:
        photo = cv2.resize(photo, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), photo)
    return path
