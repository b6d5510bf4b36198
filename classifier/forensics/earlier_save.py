"""The save before the last one, of an image whose last quality its pixels gave away.

    from classifier.forensics.lattice import find_quality
    from classifier.forensics.earlier_save import find_earlier_save
    last = find_quality(bgr_image)
    earlier = find_earlier_save(bgr_image, last)
    if earlier and earlier.quality is not None:
        print(last.quality, 'after about', earlier.quality)

A JPEG file's blocks begin at its first pixel, so that find_earlier (recompression.py) takes that
for the last grid. An image without a header may have been cropped or turned by 90 degrees since: it
is cut to the lattice's grid and turned back, and the grid that is found is told in the image's own
rows and columns.
"""
from dataclasses import replace

import numpy as np

from classifier.forensics.blocks import BLOCK
from classifier.forensics.lattice import Lattice
from classifier.forensics.recompression import Earlier, find_earlier
from classifier.forensics.tables import standard_tables


def find_earlier_save(image: np.ndarray, last: Lattice) -> Earlier | None:
    """The compression before the one that the lattice tells.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, of which `last` was found.
    last : Lattice

    Returns
    -------
    Earlier or None
        Its grid is that of the image: the top-left corner of the first whole block. None where it
        cannot be looked for, as the last table is not known for sure (no quality, several that fit
        as well), it is only a part's, the image was enlarged or its tones were changed since, or
        its pixels are another decoder's.
    """
    if (last.quality is None or last.is_tie or last.lifted or last.tone or last.decoder
            or last.repeated > 1 or last.region_x is not None):
        return None
    dy, dx = last.grid_dy, last.grid_dx
    own = image[dy:, dx:]
    if last.turned:
        own = np.ascontiguousarray(own.transpose(1, 0, 2))
    found = find_earlier(own, standard_tables()[last.quality - 1])
    if found.quality is None:
        return found
    grid = found.grid_dy, found.grid_dx
    grid_dy, grid_dx = reversed(grid) if last.turned else grid
    return replace(found, grid_dy=(grid_dy + dy) % BLOCK, grid_dx=(grid_dx + dx) % BLOCK)
