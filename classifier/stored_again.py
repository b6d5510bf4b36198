"""The network's answer for pixels that were stored as WebP or AVIF since.

These codecs leave traces of their own, which the network takes for those of a JPEG of high quality.
Where their decoder is proved to have made the pixels (forensics/other_codecs.py), only an interval
that ends below LIMIT tells of a JPEG; another one is no answer. On 8 photos and 5 drawings to train
on, at 7 settings of these codecs, 38 of 91 that never were JPEGs had been taken for one; with the
limits 3 are. Of 546 that were, at 20 to 90, 261 are answered, and 365 were.
"""
from dataclasses import replace

import numpy as np

from classifier.forensics.other_codecs import codec_of
from classifier.prediction import Prediction

LIMIT = {'WebP': 96, 'AVIF': 86}   # of the credible interval's upper end


def with_codec(found: Prediction, image: np.ndarray) -> Prediction:
    """The network's prediction, with the codec that the pixels were stored by last.

    Parameters
    ----------
    found : Prediction
        Of the network.
    image : uint8 array, shape (h, w, 3)
        BGR pixels.
    """
    if found.network_quality is None or found.posterior is None:
        return found
    codec = codec_of(image)
    if codec is None:
        return found
    seen = found.posterior
    if seen.compressed >= 0.5 and seen.high >= LIMIT[codec]:
        return replace(found, network_quality=None, codec=codec, reason=(
            f"its pixels come from {codec}, whose own traces look like a JPEG's of such quality"))
    return replace(found, codec=codec)
