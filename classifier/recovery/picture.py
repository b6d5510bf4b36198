"""From an image's pixels to the coefficients of a JPEG file, plane by plane.

    picture = find_picture(image, Kind('4:2:0', luma_table, chroma_table))
    print(picture.levels[0].shape)         # (rows, columns, 8, 8) of luma

Chroma comes first, as the pixels tell it where no channel is clipped; then luma, which they give
with the chroma known; then, where that fails, chroma again, by the luma that it leaves. Nothing
here claims that the file decodes to the image: check.py decodes it.
"""
from dataclasses import dataclass, replace

import numpy as np

from classifier.forensics.blocks import BLOCK, decoder_luma
from classifier.recovery.block_search import MOST_BASES, find_levels
from classifier.recovery.chroma_blocks import ChromaBlocks
from classifier.recovery.chroma_fronts import ChromaFronts
from classifier.recovery.chroma_search import find_chroma
from classifier.recovery.colour_search import search_colours
from classifier.recovery.colours import Bounds, chroma_bounds, luma_bounds
from classifier.recovery.decoders import DEFAULT, Decoder, decoded
from classifier.recovery.file_ends import goes_beyond
from classifier.recovery.layout import Layout, to_blocks
from classifier.recovery.unfiltered import unfiltered_colours
from classifier.recovery.upsampling import upsampled

FIRST_BASES = 16          # reduced to find the luma before the chroma is looked at again
# Shares of luma blocks; where more are not exact, chroma, halved or whole, is not searched again.
HOPELESS, HOPELESS_COLOURS = 0.2, 0.5
HALVED = {'4:4:4': (False, False), '4:2:2': (False, True), '4:2:0': (True, True)}


@dataclass(frozen=True)
class Kind:
    """How the file was coded."""
    subsampling: str         # '4:4:4', '4:2:2', '4:2:0' or 'gray'
    luma_table: np.ndarray   # (64,) int, row by row
    chroma_table: np.ndarray
    decoder: Decoder = DEFAULT   # of the pixels


@dataclass(frozen=True)
class Picture:
    """The coefficients of a JPEG file, and where the image lies in its pixels."""
    kind: Kind
    height: int
    width: int
    top: int
    left: int
    levels: tuple[np.ndarray, ...]   # of Y or of Y, Cb, Cr: (rows, columns, 8, 8) int32


def picture_of(image: np.ndarray, kind: Kind, grid: tuple[int, int],
               thorough: bool = True) -> Picture:
    """`find_picture`, with pixels as the decoder of that kind makes them."""
    steps = [kind.decoder.steps(table) for table in (kind.luma_table, kind.chroma_table)]
    with kind.decoder.at_work():
        found = find_picture(image, replace(kind, luma_table=steps[0], chroma_table=steps[1]), grid,
                             thorough)
    return replace(found, kind=kind)


def find_picture(image: np.ndarray, kind: Kind, grid: tuple[int, int] = (0, 0),
                 thorough: bool = True) -> Picture:
    """The coefficients, as far as they are found.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR; of kind 'gray', with three equal channels.
    kind : Kind
    grid : (dy, dx)
        Where the first whole block of luma or, if chroma is halved, the first whole block of
        chroma starts: 0..7 or 0..15 px. If it is not (0, 0), the file is larger than the image on
        all sides.
    thorough : bool
        Otherwise only what is quick is tried, enough to compare grids.
    """
    height, width = image.shape[:2]
    vertical, horizontal = HALVED.get(kind.subsampling, (False, False))
    top, left = (-at % (BLOCK * (1 + half)) for at, half in zip(grid, (vertical, horizontal)))
    size = height + top, width + left
    if top or left:  # what is upsampled at the right and at the bottom may have neighbours there
        size = [length + -length % (2 * BLOCK) * (
                    half and length % 2 == 0 and goes_beyond(np.moveaxis(image, axis, 0)))
                for axis, (length, half) in enumerate(zip(size, (vertical, horizontal)))]
    layout = Layout(*size, top, left)
    if kind.subsampling == 'gray':
        gray = image[..., 0]
        bounds = layout.bounds(Bounds(gray, gray, gray.astype(np.float32) - 128))
        levels = [find_levels(*bounds, kind.luma_table)[0]]
        layouts = [layout]
    elif kind.decoder.upsampling != 'fancy' and kind.subsampling != '4:4:4':
        levels, layouts = unfiltered_colours(image, kind, layout, (vertical, horizontal))
    elif kind.subsampling == '4:4:4':
        levels, layouts = _whole_colours(image, kind, layout, thorough), 3 * [layout]
    else:
        levels, layouts = _halved_colours(image, kind, layout, (vertical, horizontal), thorough)
    return Picture(kind, *size, top, left, tuple(
        part.reshape(*own.blocks, BLOCK, BLOCK) for part, own in zip(levels, layouts)))


def _whole_colours(image, kind, layout, thorough):
    """Levels of Y, Cb and Cr of 4:4:4."""
    shape = image.shape[:2]
    tables = kind.luma_table, kind.chroma_table, kind.chroma_table
    known, *bounds = chroma_bounds(image)
    bases = MOST_BASES * thorough
    levels = [find_levels(*layout.bounds(plane), kind.chroma_table, bases=bases)[0]
              for plane in bounds]
    chroma = [layout.image(decoded(part, kind.chroma_table), shape) for part in levels]
    luma = layout.bounds(luma_bounds(image, *chroma))
    found, exact = find_levels(*luma, kind.luma_table, bases=bases)
    levels = np.stack([found, *levels])
    told = to_blocks(layout.pad(known, constant_values=True)).all(axis=1)
    left = np.flatnonzero(~exact & ~told)
    if thorough and 0 < len(left) <= HOPELESS_COLOURS * len(exact):
        pixels = np.stack([to_blocks(layout.pad(image[..., channel], mode='edge'))[left]
                           for channel in range(3)], axis=2)
        visible, sure = (to_blocks(layout.pad(mask, constant_values=False))[left]
                         for mask in (np.ones(shape, bool), known))
        gray = decoder_luma(image[None])[0].astype(np.float32) - 128
        guesses = [to_blocks(layout.pad(plane, mode='edge'))[left]
                   for plane in (gray, bounds[0].guess, bounds[1].guess)]
        tried, good = search_colours(pixels, visible, sure, np.stack(guesses),
                                     levels[:, left], tables)
        levels[:, left[good]] = tried[:, good]
    return levels


def _halved_colours(image, kind, layout, halved, thorough):
    """Levels of Y, Cb and Cr of 4:2:2 and 4:2:0, and their layouts."""
    shape = image.shape[:2]
    coded = Layout(*(-(-length // (1 + half)) for length, half in zip(
        (layout.height, layout.width), halved)))
    blocks = ChromaBlocks(coded, halved, kind.chroma_table)
    _, *bounds = chroma_bounds(image)
    around = ((layout.top, layout.height - shape[0] - layout.top),
              (layout.left, layout.width - shape[1] - layout.left))
    levels = [find_chroma(plane.pad(around), coded, halved, kind.chroma_table, thorough)
              for plane in bounds]

    def of_luma():
        chroma = [upsampled(blocks.coded(plane), halved)[layout.top:layout.top + shape[0],
                                                         layout.left:layout.left + shape[1]]
                  for plane in levels]
        return luma_bounds(image, *chroma)

    found, exact = find_levels(*layout.bounds(of_luma()), kind.luma_table,
                               bases=FIRST_BASES * thorough)
    if thorough and 0 < np.count_nonzero(~exact) <= HOPELESS * len(exact):
        fronts = ChromaFronts(np.pad(image, (*around, (0, 0))),
                              np.pad(np.ones(shape, bool), around), blocks, kind.luma_table)
        levels, found = fronts.solve(levels, found)
        found, _ = find_levels(*layout.bounds(of_luma()), kind.luma_table, before=found)
    return [found, *levels], [layout, coded, coded]
