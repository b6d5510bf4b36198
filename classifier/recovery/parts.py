"""Parts of an image that tell most about how it was coded, and how well a way explains them.

    parts = telling_parts(image)
    found = explained(parts, kind, grid)
    print(f'{found.exact} of {found.tested} blocks come out exactly')

A way to code an image is tried by a short search in a few small parts, so that what it costs does
not grow with the image. Flat areas tell nothing, and pixels with a clipped channel little: parts
are taken where most blocks have structure in their colours, then where others have.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from classifier.errors import InputError
from classifier.forensics.blocks import BLOCK, clipped_pixels
from classifier.recovery.check import decoded
from classifier.recovery.jpeg_file import jpeg_bytes
from classifier.recovery.picture import Kind, picture_of

UNIT = 2 * BLOCK          # px: parts start on this grid, that of halved chroma
SIDE, MOST = 8, 3         # units, both ways; parts
OF_CLIPPED = 0.1          # how much blocks count whose pixels are all clipped
LEAST, LEAST_SHARE = 12, 0.1   # exact blocks that tell a way, and their share of all
AS_GOOD, NEARLY = 0.8, 1.2   # times as many exact blocks, or pixels that differ, as the best way's


@dataclass(frozen=True)
class Part:
    """A part of an image."""
    pixels: np.ndarray       # (h, w, 3) uint8
    inner: tuple[slice, slice]   # where what is around the part does not matter


class Explained(NamedTuple):
    """How much of parts a way to code them gives back."""
    exact: int = 0           # blocks, flat ones left out
    tested: int = 0
    pixels_off: int = 0      # that differ

    @property
    def tells(self) -> bool:
        """Whether so many blocks are exact that chance is out of the question."""
        return self.exact >= max(LEAST, LEAST_SHARE * self.tested)


def telling_parts(image: np.ndarray) -> list[Part]:
    """At most MOST parts of an image (h, w, 3), the most telling first; none if it is flat."""
    count = [length // UNIT for length in image.shape[:2]]
    if not min(count) or min(count) <= SIDE // 2 and max(count) <= SIDE:
        return [Part(image, (slice(None), slice(None)))]
    side = [min(SIDE, length) for length in count]
    of_colour, worth = _worth(image[:count[0] * UNIT, :count[1] * UNIT])
    worth, parts = of_colour if of_colour.any() else worth, []
    while len(parts) < MOST:
        sums = np.pad(worth, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
        sums = (sums[side[0]:, side[1]:] - sums[:-side[0], side[1]:]
                - sums[side[0]:, :-side[1]] + sums[:-side[0], :-side[1]])
        y, x = np.unravel_index(sums.argmax(), sums.shape)
        if sums[y, x] < OF_CLIPPED:
            break
        worth[y:y + side[0], x:x + side[1]] = 0
        whole = slice(y * UNIT, (y + side[0]) * UNIT), slice(x * UNIT, (x + side[1]) * UNIT)
        inner = tuple(slice(UNIT * (part.start > 0), part.stop - part.start
                            - UNIT * (part.stop + UNIT <= length))
                      for part, length in zip(whole, image.shape))
        parts.append(Part(np.ascontiguousarray(image[whole]), inner))
    return parts


def _worth(image):
    """How much each unit tells by its colours, and at all: two (h / 16, w / 16) float64."""
    blocks = blocks_of(image)
    green = blocks[..., 1].astype(np.int16)
    varied = np.stack([np.ptp(plane, axis=2) > 0 for plane in (
        blocks[..., 0] - green, blocks[..., 2] - green, blocks[..., 1])])
    worth = np.stack([varied[0] | varied[1], varied.any(axis=0)])
    worth = worth * (OF_CLIPPED + 1 - clipped_pixels(blocks).mean(axis=2))
    rows, columns = worth.shape[1:]
    return worth.reshape(2, rows // 2, 2, columns // 2, 2).sum(axis=(2, 4))


def blocks_of(image: np.ndarray) -> np.ndarray:
    """The whole blocks of an image (h, w, 3): (h // 8, w // 8, 64, 3)."""
    rows, columns = (length // BLOCK for length in image.shape[:2])
    split = image[:rows * BLOCK, :columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, 3)
    return split.swapaxes(1, 2).reshape(rows, columns, BLOCK * BLOCK, 3)


def explained(parts: Sequence[Part], kind: Kind, grid: tuple[int, int]) -> Explained:
    """What a short search finds of parts with a way to code them.

    Parameters
    ----------
    parts : sequence of Part
    kind : Kind
    grid : (dy, dx)
        As for `find_picture`.
    """
    exact = tested = pixels_off = 0
    for part in parts:
        image = part.pixels
        try:
            picture = picture_of(image, kind, grid, thorough=False)
            data = jpeg_bytes(picture)
            pixels = (decoded(data)[1] if kind.decoder.is_default else kind.decoder.pixels(data))
            pixels = pixels[picture.top:, picture.left:][:image.shape[0], :image.shape[1]]
        except InputError:
            pixels = ~image
        own, found = (blocks_of(plane[part.inner][grid[0] % BLOCK:, grid[1] % BLOCK:])
                      for plane in (image, pixels))
        varied = (own != own[:, :, :1]).any(axis=(2, 3))
        exact += int((varied & (own == found).all(axis=(2, 3))).sum())
        tested += int(varied.sum())
        pixels_off += int((own != found).any(axis=3).sum())
    return Explained(exact, tested, pixels_off)


def ordered(parts: Sequence[Part], ways: Sequence[tuple[Kind, tuple[int, int]]]
            ) -> list[tuple[Kind, tuple[int, int]]]:
    """Of several ways to code an image those that explain its parts as well, the best first."""
    if len(ways) < 2 or not parts:
        return list(ways)
    found = [Explained()] * len(ways)
    left = range(len(ways))
    for part in parts:
        for i in left:
            found[i] = Explained(*map(sum, zip(found[i], explained([part], *ways[i]))))
        most = max(some.exact for some in found)
        if most >= LEAST:
            left = [i for i in left if found[i].exact >= AS_GOOD * most]
    if most >= LEAST:
        return [ways[i] for i in sorted(left, key=lambda i: -found[i].exact)]
    off = [some.pixels_off for some in found]
    return [ways[i] for i in np.argsort(off, kind='stable') if off[i] <= NEARLY * min(off)]
