"""The JPEG file behind an image file: found, checked by decoding it, written.

    said = recover_file(Path('photo.png'), Path('photo.jpg'))
    print(said.text)      # recovered photo.jpg, every pixel identical, 38,214 bytes in place of ...

coding.py says how the file may have been coded; the likeliest ways are tried in turn. A file is
called identical when the pixels that Pillow and OpenCV decode from its very bytes are, all of them,
those of the image. If only another decoder gives these pixels, it is named.
"""
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from classifier.errors import InputError
from classifier.files import whole_file
from classifier.forensics.lattice import Lattice
from classifier.forensics.search import find_lattice
from classifier.images import MAX_JPEG_SIDE, MAX_PIXELS, read_image
from classifier.recovery.check import Difference, compare
from classifier.recovery.coding import codings, picture_of
from classifier.recovery.decoders import DECODERS, DEFAULT
from classifier.recovery.jpeg_file import jpeg_bytes
from classifier.recovery.metadata import segments
from classifier.recovery.picture import HALVED, Picture

MOST_TRIED = 8            # ways to code an image
FOR_THE_COMMAND_LINE = ' (--allow_difference writes it all the same)'
NEARLY = 1.2              # times as many differing pixels as the best way's: looked at closely
RIGHT = 0.02              # share of pixels that may differ where the way to code it was right


@dataclass(frozen=True)
class Recovered:
    """A JPEG file for an image."""
    data: bytes
    picture: Picture
    difference: Difference   # as the decoder that the pixels come from decodes it
    by_default: Difference   # as libjpeg-turbo does with its defaults
    decoder: str             # its name; empty for libjpeg-turbo with its defaults

    @property
    def is_larger(self) -> bool:
        """Whether the image is a part of the file's picture, as a crop is."""
        return bool(self.picture.top or self.picture.left)

    @property
    def outcome(self) -> str:
        """For the column `recovered`."""
        pixels = self.difference.pixels
        by = f' by {self.decoder}' if self.decoder else ''
        place = f' at ({self.picture.top}, {self.picture.left})' if self.is_larger else ''
        said = ('identical' if not pixels else '1 pixel differs' if pixels == 1 else
                f'{pixels} pixels differ')
        return f'{said}{by}{place}'


def recover(image: np.ndarray, metadata: list[tuple[int, bytes]] = (),
            found: Lattice | None = None) -> Recovered:
    """The JPEG file of an image, as far as it is found.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels.
    metadata : list of (int, bytes)
        Marker segments for the file.
    found : Lattice, optional
        The image's, where it is known already.

    Raises
    ------
    InputError
        There is no quantization lattice in the pixels, or not one that tells the file.
    """
    if max(image.shape[:2]) > MAX_JPEG_SIDE:
        raise InputError('is larger than a JPEG file can be')
    found, best = found or find_lattice(image), None
    for kind, grid in _ordered(image, list(itertools.islice(codings(image, found), MOST_TRIED))):
        now = _compared(image, kind, grid, metadata)
        if best is None or now.difference.pixels < best.difference.pixels:
            best = now
        few = best.difference.pixels < RIGHT * image.shape[0] * image.shape[1]
        if best.difference.is_none or few and not found.is_tie:
            break
    return best


def _ordered(image, ways):
    """Of several ways to code an image those that come near it by a short search, the best first.
    """
    if len(ways) < 2:
        return ways
    off = [_off(image, *way) for way in ways]
    return [ways[i] for i in np.argsort(off, kind='stable') if off[i] <= NEARLY * min(off)]


def _off(image, kind, grid):
    """How many pixels differ after a short search; all of them if there is no such file."""
    try:
        return _compared(image, kind, grid, thorough=False).difference.pixels
    except InputError:
        return image.shape[0] * image.shape[1]


def _compared(image, kind, grid, metadata=(), thorough=True):
    """A `Recovered` file."""
    picture = picture_of(image, kind, grid, thorough)
    data = jpeg_bytes(picture, metadata)
    by_default = compare(data, picture, image, DEFAULT)
    found = Recovered(data, picture, by_default, by_default, '')
    halved = any(HALVED.get(kind.subsampling, ()))
    for decoder in DECODERS[1:]:
        if found.difference.is_none:
            break
        if decoder.dct == kind.decoder.dct and (not halved
                                                or decoder.upsampling == kind.decoder.upsampling):
            difference = compare(data, picture, image, decoder)
            if difference.pixels < found.difference.pixels:
                found = replace(found, difference=difference, decoder=decoder.name)
    return found


@dataclass(frozen=True)
class Outcome:
    """What became of one file: for people, and for CSV and JSON."""
    text: str
    row: dict
    failed: bool


def recover_file(path: Path, out: Path, allow_difference: bool = False,
                 max_pixels: int = MAX_PIXELS, image: np.ndarray | None = None,
                 found: Lattice | None = None) -> Outcome:
    """Recover the JPEG file of an image file, check it, and write it.

    Parameters
    ----------
    path, out : Path
        A file at `out` stays as it is, unless it has the very bytes that were to be written.
    allow_difference : bool
        Write the file even if some pixels differ.
    max_pixels : int
        Larger images are refused.
    image, found : optional
        Its pixels, as `read_image` returns them, and their `Lattice`, where they are known already.

    Raises
    ------
    InputError
        The image or its pixels are of a kind that cannot be recovered.
    """
    if image is None:
        image = read_image(path, max_pixels)
    metadata, left_out = segments(path)
    got = recover(image, metadata, found)
    row = {'recovered': got.outcome, 'recovered_bytes': None}
    if not (got.difference.is_none or allow_difference):
        by = f' when decoded by {got.decoder}' if got.decoder else ''
        return Outcome(f'not recovered: {got.difference}{by}; nothing is written'
                       f'{FOR_THE_COMMAND_LINE}', row, True)
    _write(out, got.data)
    row['recovered_bytes'] = len(got.data)
    said = 'every pixel identical' if got.difference.is_none else str(got.difference)
    if got.decoder:
        said += f" when decoded by {got.decoder} (by libjpeg-turbo's defaults, {got.by_default})"
    if got.is_larger:
        said += (f', at row {got.picture.top}, column {got.picture.left} of its '
                 f'{got.picture.width}x{got.picture.height} pixels, as the image is a crop')
    if left_out:
        said += f', without its {" and ".join(left_out)}, too large for JPEG'
    return Outcome(f'recovered {out.name}, {said}, {len(got.data):,} bytes in place of '
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
