"""The lattice of an image, wherever it is: in all of it, whatever decoded it, under changed tones,
in a part, or under noise.

    from classifier.forensics.search import find_lattice
    found = find_lattice(bgr_image)
    print(found.quality, found.tone, found.region_x)

What costs more is looked for only where the image as it is has no lattice: pixels of other
decoders, changed tones, a part that is a JPEG's, and the lattice under noise, in this order, since
the last one alone has no proof in blocks.
"""
from dataclasses import replace

import numpy as np

from classifier.forensics.decoded_otherwise import find_decoded_otherwise
from classifier.forensics.inside import find_inside
from classifier.forensics.lattice import Lattice, find_quality
from classifier.forensics.noisy_lattice import find_noisy
from classifier.forensics.tone import INVERTED, SHIFTED, find_toned, is_inverted, shows_shift


def find_lattice(image: np.ndarray, guess: float | None = None,
                 table: np.ndarray | None = None) -> Lattice:
    """`lattice.find_quality`, also of other decoders' pixels, changed tones, parts, under noise.

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
        With `decoder` where another one than libjpeg's accurate one made the pixels, or it is seen
        under noise; `tone` where the tones were changed; and a region where it is of a part.
    """
    found = find_quality(image, guess, table=table)
    if table is not None:
        return found
    if found.qualities and found.quality is None:
        return found
    if found.quality is None:
        return (find_decoded_otherwise(image, found) or find_toned(image) or find_inside(image)
                or find_noisy(image) or found)
    if is_inverted(image, found):
        return replace(found, tone=INVERTED)
    if found.lifted and shows_shift(found):
        return replace(found, tone=SHIFTED)
    return found
