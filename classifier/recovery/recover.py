"""The JPEG file behind an image file: found, checked by decoding it, written.

    said = recover_file(Path('photo.png'), Path('photo.jpg'))
    print(said.text)      # recovered photo.jpg, every pixel identical, 38,214 bytes in place of ...

coding.py says how the file may have been coded, or, where the lattice is silent, trial.py; the
likeliest ways are tried in turn. A file is called identical when the pixels that Pillow and OpenCV
decode from its very bytes are, all of them, those of the image. If only another decoder gives these
pixels, it is named.
"""
import contextlib
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from classifier.errors import InputError
from classifier.files import whole_file
from classifier.forensics.lattice import Lattice
from classifier.forensics.scores import FEW_LUMA
from classifier.forensics.search import find_lattice
from classifier.forensics.tables import nearest_quality
from classifier.images import MAX_JPEG_SIDE, MAX_PIXELS, read_image
from classifier.recovery.check import Difference, compare
from classifier.recovery.coding import codings, refuse
from classifier.recovery.decoders import DECODERS, DEFAULT
from classifier.recovery.jpeg_file import jpeg_bytes
from classifier.recovery.metadata import segments
from classifier.recovery.parts import explained, ordered, telling_parts
from classifier.recovery.picture import HALVED, Picture, picture_of
from classifier.recovery.trial import tried_codings

MOST_TRIED = 8            # ways to code an image
FOR_THE_COMMAND_LINE = ' (--allow_difference writes it all the same)'
RIGHT, LIKELY = 0.02, 0.1   # share of pixels that may differ where the way to code it was right,
                          # and where it was found by trial


@dataclass(frozen=True)
class Recovered:
    """A JPEG file for an image."""
    data: bytes
    picture: Picture
    difference: Difference   # as the decoder that the pixels come from decodes it
    by_default: Difference   # as libjpeg-turbo does with its defaults
    decoder: str             # its name; empty for libjpeg-turbo with its defaults
    tried: str = ''          # quality and subsampling, where these were found by trial

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
    found, parts = found or find_lattice(image), telling_parts(image)
    pixels = image.shape[0] * image.shape[1]
    tried = tried_codings(image, parts) if _is_silent(found) else []
    with contextlib.suppress(InputError):
        best = _best(image, tried, metadata, 0)
        if best and best.difference.pixels < LIKELY * pixels:
            kind = best.picture.kind
            quality, _ = nearest_quality(kind.luma_table)
            return replace(best, tried=f'quality {quality}, {kind.subsampling}')
    return _best(image, ordered(parts, _told(image, found, parts)), metadata,
                 0 if found.is_tie else RIGHT * pixels)


def _best(image, ways, metadata, enough):
    """The best `Recovered` of several ways, up to one with that few differing pixels; or None.

    InputError if none makes a file.
    """
    best = reason = None
    for kind, grid in ways:
        try:
            now = _compared(image, kind, grid, metadata)
        except InputError as error:
            reason = error
            continue
        if best is None or now.difference.pixels < best.difference.pixels:
            best = now
        if best.difference.pixels <= enough:
            break
    if best is None and reason:
        raise reason
    return best


def _told(image, found, parts):
    """The likeliest ways to code an image, by its lattice.

    Of a table of its own, read from few blocks, those that explain the parts.
    """
    ways = list(itertools.islice(codings(image, found, parts), MOST_TRIED))
    if _is_silent(found) and not found.qualities:
        ways = [way for way in ways if explained(parts, *way).tells]
        if not ways:
            refuse(found)
    return ways


def _is_silent(found):
    """Whether a lattice tells nothing of the whole image, and that for want of blocks."""
    tells = found.quality and found.region_x is None and not found.tone
    return not tells and found.blocks <= FEW_LUMA and found.repeated == 1 and not found.turned


def _compared(image, kind, grid, metadata):
    """A `Recovered` file."""
    picture = picture_of(image, kind, grid)
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
    if got.tried:
        said += f' ({got.tried})'
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
