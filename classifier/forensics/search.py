"""The lattice of an image, wherever it is: in all of it, under changed tones, or in a part.

    from classifier.forensics.search import find_lattice
    found = find_lattice(bgr_image)
    print(found.quality, found.tone, found.region_x)

What costs more is looked for only where the image as it is has no lattice: pixels of other
decoders, changed tones, a part that is a JPEG's, and the lattice under noise, in this order, since
the last one alone has no proof in blocks.
"""
import itertools
from dataclasses import replace

import numpy as np

from classifier.forensics.blocks import Blocks, get_blocks
from classifier.forensics.fast_decoded import find_fast
from classifier.forensics.grid_phases import likely_phases
from classifier.forensics.inside import find_inside
from classifier.forensics.lattice import Lattice, find_quality
from classifier.forensics.noisy_lattice import find_noisy
from classifier.forensics.tone import INVERTED, SHIFTED, find_toned, is_inverted, shows_shift

LIKELIEST = 2


def find_lattice(image: np.ndarray, guess: float | None = None,
                 table: np.ndarray | None = None) -> Lattice:
    """`lattice.find_quality`, also of pixels whose tones were changed, and of a part of an image.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        Decoded pixels, BGR.
    guess, table
        As for `find_quality`. With a table, of a JPEG file, all of the image was coded last, and
        only that is looked at.

    Returns
    -------
    Lattice
        With `tone` where the tones were changed, and a region where it is of a part.
    """
    found = find_quality(image, guess, table=table)
    if table is not None:
        return found
    if found.qualities and found.quality is None:
        return found
    if found.quality is None:
        grids = likely_grids(image)
        return (find_fast(grids) or find_toned(image) or find_inside(image) or find_noisy(grids)
                or found)
    if is_inverted(image, found):
        return replace(found, tone=INVERTED)
    if found.lifted and shows_shift(found):
        return replace(found, tone=SHIFTED)
    return found


def likely_grids(image: np.ndarray) -> list[tuple[int, int, Blocks]]:
    """The phase (0, 0) of the block grid and the LIKELIEST others, with the blocks there."""
    phases = dict.fromkeys([(0, 0), *itertools.islice(likely_phases(image), LIKELIEST)])
    return [(*phase, get_blocks(image, *phase)) for phase in phases]
