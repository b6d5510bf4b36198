"""The lattice of an image, wherever it is: in all of it, under changed tones, or in a part.

    from classifier.forensics.search import find_lattice
    found = find_lattice(bgr_image)
    print(found.quality, found.tone, found.region_x)

What costs more is looked for only where the image as it is has no lattice.
"""
from dataclasses import replace

import numpy as np

from classifier.forensics.inside import find_inside
from classifier.forensics.lattice import Lattice, find_quality
from classifier.forensics.tone import INVERTED, SHIFTED, find_toned, is_inverted, shows_shift


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
    if found.quality is None:
        return (not found.qualities and (find_toned(image) or find_inside(image))) or found
    if is_inverted(image, found):
        return replace(found, tone=INVERTED)
    if found.lifted and shows_shift(found):
        return replace(found, tone=SHIFTED)
    return found
