"""Whether a crop's file ends where the image does, at the bottom and at the right.

    goes_on = goes_beyond(image)     # rows: whether there are others below the last one

Of halved chroma that is upsampled, the last pixel but one lies at three quarters of the way from
one coded sample to the next, and the last one at a quarter beyond that. Where the file ends, the
decoder has nothing to go on to and repeats the sample. So three pixels tell, up to rounding.

Sources: those of upsampling.py.
"""
import numpy as np

from classifier.recovery.colours import chroma_bounds

ROUNDED = 3               # levels: half of one, of pixels that weigh 2, 3 and 1
MOST_BEYOND = 0.005       # share of pixels


def goes_beyond(image: np.ndarray) -> bool:
    """Whether coded rows of chroma, halved, follow on the last one that shows; else it is repeated.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR, of which the last row is the second one of a coded sample.
    """
    if len(image) < 3:
        return True
    known, *planes = chroma_bounds(image[-3:])
    known = known.all(axis=0)
    off = [np.abs(2 * last - 3 * middle + first)[known] > ROUNDED
           for first, middle, last in (plane.guess for plane in planes)]
    return bool(np.count_nonzero(off) > MOST_BEYOND * np.size(off))
