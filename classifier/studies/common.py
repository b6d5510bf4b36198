"""What the studies share: photos worked on by all cores, Pillow's JPEG, tables of rows."""
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classifier.batch import parallel_map
from classifier.cli import Progress, named
from classifier.images import compress, draw_chroma, from_pillow, read_image, to_pillow
from classifier.posterior import LEVELS

OUTCOMES = ('abstained', 'right', 'wrong')


def over_photos(work: Callable, pairs: Iterable[tuple]) -> Iterator[tuple]:
    """Work on photos on all cores, with progress on stderr.

    Parameters
    ----------
    work : callable
        Gets a photo, uint8 (h, w, 3) BGR, and a case.
    pairs : iterable of (Path, case)
        Those of a photo stand together, for which it is read once.

    Yields
    ------
    path, case, found
        In the order of the pairs; `found` is what `work` returned.

    Raises
    ------
    InputError
        A photo cannot be read or worked on; the message begins with its path.
    """
    pairs = list(pairs)

    def photos():
        for path, some in groupby(pairs, lambda pair: pair[0]):
            image = read_image(path)
            yield from ((path, case, image) for _, case in some)

    def one(item):
        path, case, image = item
        with named(path):
            return path, case, work(image, case)

    with parallel_map() as run, Progress(len(pairs), 'images') as progress:
        for done, found in enumerate(run(one, photos()), start=1):
            yield found
            progress.update(done, found[0].name)


def every_photo(cases: Callable, paths: Sequence[Path]) -> dict:
    """Collect what is found in each photo, on all cores.

    Parameters
    ----------
    cases : callable
        Gets a photo and its number, which seeds what is random; yields pairs (key, value).
    paths : sequence of Path

    Returns
    -------
    dict
        For each key the list of its values, photo by photo.
    """
    found = defaultdict(list)
    for *_, pairs in over_photos(lambda *photo: list(cases(*photo)),
                                 [(path, index) for index, path in enumerate(paths)]):
        for key, value in pairs:
            found[key].append(value)
    return found


def pillow_jpeg(image: np.ndarray, quality: int = -1, mode: str = 'RGB',
                **options: Any) -> np.ndarray:
    """The image after Pillow's JPEG encoder, decoded; quality -1: as `qtables` are."""
    with Image.open(io.BytesIO(pillow_file(image, quality, mode, **options))) as coded:
        return from_pillow(coded)


def pillow_file(image: np.ndarray, quality: int = -1, mode: str = 'RGB', **options: Any) -> bytes:
    """Pillow's JPEG file of an image."""
    data = io.BytesIO()
    to_pillow(image).convert(mode).save(data, 'JPEG', quality=quality, **options)
    return data.getvalue()


def at_level(image: np.ndarray, level: int, chroma: str,
             rng: np.random.Generator | None = None) -> np.ndarray:
    """An image at a level of `posterior.py`: as it is, or after a JPEG of that quality.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, never compressed, as the result is.
    level : int
        1..101.
    chroma : str
        As `images.draw_chroma` takes it.
    rng : np.random.Generator, optional
        Draws the subsampling, of 'mixed'.
    """
    return image if level == LEVELS else compress(image, level, draw_chroma(chroma, rng))


def print_table(title: str, rows: dict[str, dict], line: str) -> None:
    """Print a title and a line for each row.

    Parameters
    ----------
    title : str
    rows : dict
        {name: {key: number}}; None as a number is printed as nan.
    line : str
        Format of a line: of the name, the numbers by their keys, and 100 times the numbers as
        percent[key].
    """
    print(title)
    for name, row in rows.items():
        row = {key: np.nan if value is None else value for key, value in row.items()}
        print(line.format(name=name, percent={key: 100 * row[key] for key in row}, **row))


def outcome(answer: int | str | None, truth: int | str | None,
            qualities: tuple | None = None) -> str:
    """'right', 'wrong' or, for None, 'abstained': of an answer, or of all that it stands for."""
    if answer is None:
        return 'abstained'
    return 'right' if truth in (qualities or [answer]) else 'wrong'


def shares(outcomes: Sequence[str]) -> dict:
    """Shares of the outcomes in a list, with their number, as a JSON-able dict."""
    return {'cases': len(outcomes), **{o: outcomes.count(o) / len(outcomes) for o in OUTCOMES}}


def print_shares(title: str, outcomes: dict[str, list[str]]) -> dict:
    """A line of `shares` for each of {name: [outcome, ...]}; returns {name: shares}."""
    rows = {name: shares(found) for name, found in outcomes.items()}
    print_table(f'{title:24}  cases  abstained      right      wrong', rows,
                '{name:24}  {cases:5}  {abstained:9.2%}  {right:9.2%}  {wrong:9.2%}')
    return rows
