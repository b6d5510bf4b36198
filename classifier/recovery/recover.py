"""The JPEG file behind an image file: found, checked by decoding it, written.

    said = recover_file(Path('photo.png'), Path('photo.jpg'))
    print(said.text)      # recovered photo.jpg, every pixel identical, 38,214 bytes in place of ...

Grid, tables and subsampling are those that forensics/search.py finds; where it leaves several,
they are tried in turn. A file is called identical when the pixels that Pillow and OpenCV decode
from its very bytes are, all of them, those of the image.
"""
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classifier.errors import InputError
from classifier.files import whole_file
from classifier.forensics.blocks import BLOCK
from classifier.forensics.lattice import Lattice
from classifier.forensics.search import find_lattice
from classifier.forensics.tables import standard_tables
from classifier.images import MAX_JPEG_SIDE, MAX_PIXELS, read_image
from classifier.recovery.check import Difference, compare
from classifier.recovery.jpeg_file import jpeg_bytes
from classifier.recovery.metadata import segments
from classifier.recovery.picture import HALVED, Kind, Picture, find_picture

MOST_QUALITIES = 3        # tried, where several explain the image as well
PROBE = 256               # px of the middle of a crop, in which the phase of the chroma is found


@dataclass(frozen=True)
class Recovered:
    """A JPEG file for an image."""
    data: bytes
    picture: Picture
    difference: Difference

    @property
    def is_larger(self) -> bool:
        """Whether the image is a part of the file's picture, as a crop is."""
        return bool(self.picture.top or self.picture.left)

    @property
    def outcome(self) -> str:
        """For the column `recovered`."""
        place = f' at ({self.picture.top}, {self.picture.left})' if self.is_larger else ''
        if self.difference.is_none:
            return f'identical{place}'
        return f'{self.difference.pixels} pixel{"s" * (self.difference.pixels > 1)} differ{place}'


def recover(image: np.ndarray, metadata: list[tuple[int, bytes]] = ()) -> Recovered:
    """The JPEG file of an image, as far as it is found.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels.
    metadata : list of (int, bytes)
        Marker segments for the file.

    Raises
    ------
    InputError
        There is no quantization lattice in the pixels, or not one that tells the file.
    """
    if max(image.shape[:2]) > MAX_JPEG_SIDE:
        raise InputError('is larger than a JPEG file can be')
    best = None
    for kind, grid in _kinds(image, _found(image)):
        picture = find_picture(image, kind, grid)
        data = jpeg_bytes(picture, metadata)
        found = Recovered(data, picture, compare(data, picture, image))
        if best is None or found.difference.pixels < best.difference.pixels:
            best = found
        if best.difference.is_none:
            break
    return best


def _found(image):
    """The `Lattice` of an image; InputError for one that tells no file."""
    found = find_lattice(image)
    if not found.qualities:
        raise InputError('no quantization lattice is left in its pixels: they were changed after '
                         'decoding, come from an encoder with tables of its own, or never were a '
                         "JPEG's")
    for wrong, reason in (
            (found.region_x is not None, 'only a part of it was a JPEG; cut that part out first'),
            (found.tone, 'its tones were changed after decoding'),
            (found.quality is None, 'its pixels leave too many qualities possible'),
            (found.repeated > 1, 'each pixel is repeated: it was enlarged; reduce it first'),
            (found.lifted, 'its brightness was changed after decoding'),
            (found.turned, 'it was turned by a quarter after decoding; turn it back first')):
        if wrong:
            raise InputError(reason)
    return found


def _kinds(image: np.ndarray, found: Lattice) -> Iterator[tuple[Kind, tuple[int, int]]]:
    """Ways in which the file may have been coded, the likeliest first, with the block grid."""
    qualities = sorted(found.qualities, key=lambda quality: quality != found.quality)
    subsamplings = [found.subsampling] if found.subsampling else list(HALVED)[::-1]
    for quality in qualities[:MOST_QUALITIES]:
        chroma = found.chroma_quality if quality == found.quality else None
        tables = (standard_tables()[quality - 1],
                  standard_tables(chroma=True)[(chroma or quality) - 1])
        for subsampling in subsamplings:
            kind = Kind(subsampling, *tables)
            yield kind, _grid(image, kind, (found.grid_dy, found.grid_dx))


def _grid(image, kind, grid):
    """Where the first whole block of all planes starts: of two that are 8 px apart, if halved."""
    halved = HALVED.get(kind.subsampling, (False, False))
    if grid == (0, 0) or not any(halved):
        return grid  # nearly always a whole picture
    choices = [[at, at + BLOCK] if half else [at] for at, half in zip(grid, halved)]
    middle = [max(0, (length - PROBE) // 2 // (2 * BLOCK) * 2 * BLOCK)
              for length in image.shape[:2]]
    part = np.ascontiguousarray(image[middle[0]:middle[0] + PROBE, middle[1]:middle[1] + PROBE])

    def off(choice):
        picture = find_picture(part, kind, choice, thorough=False)
        return compare(jpeg_bytes(picture), picture, part).pixels
    return min(((dy, dx) for dy in choices[0] for dx in choices[1]), key=off)


@dataclass(frozen=True)
class Outcome:
    """What became of one file: for people, and for CSV and JSON."""
    text: str
    row: dict
    failed: bool


def recover_file(path: Path, out: Path, allow_difference: bool = False,
                 max_pixels: int = MAX_PIXELS) -> Outcome:
    """Recover the JPEG file of an image file, check it, and write it.

    Parameters
    ----------
    path, out : Path
        A file at `out` stays as it is, unless it has the very bytes that were to be written.
    allow_difference : bool
        Write the file even if some pixels differ.
    max_pixels : int
        Larger images are refused.

    Raises
    ------
    InputError
        The image or its pixels are of a kind that cannot be recovered.
    """
    image = read_image(path, max_pixels)
    metadata, left_out = segments(path)
    found = recover(image, metadata)
    row = {'recovered': found.outcome, 'recovered_bytes': None}
    if not (found.difference.is_none or allow_difference):
        return Outcome(f'not recovered: {found.difference}; nothing is written '
                       '(--allow_difference writes it all the same)', row, True)
    _write(out, found.data)
    row['recovered_bytes'] = len(found.data)
    said = 'every pixel identical' if found.difference.is_none else str(found.difference)
    if found.is_larger:
        said += (f', at row {found.picture.top}, column {found.picture.left} of its '
                 f'{found.picture.width}x{found.picture.height} pixels, as the image is a crop')
    if left_out:
        said += f', without its {" and ".join(left_out)}, too large for JPEG'
    return Outcome(f'recovered {out.name}, {said}, {len(found.data):,} bytes in place of '
                   f'{path.stat().st_size:,}', row, False)


def _write(out, data):
    """Write a file; InputError where another one is."""
    if out.exists():
        if out.is_file() and out.read_bytes() == data:
            return
        raise InputError(f'{out} is there and is another file; remove it or choose another name')
    try:
        with whole_file(out, 'wb') as file:
            file.write(data)
    except OSError as error:
        raise InputError(f'{out}: cannot be written ({error.strerror})') from None
