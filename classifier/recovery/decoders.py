"""The decoders that an image's pixels may come from, and which of them the search takes as its own.

    with DECODERS[1].at_work():
        samples = decoded(levels, table)       # as that decoder's inverse DCT makes them

Pillow, OpenCV and browsers decode with libjpeg-turbo's defaults: accurate inverse DCT, fancy
upsampling of halved chroma. Others are asked for: TensorFlow takes the fast inverse DCT unless told
otherwise, djpeg -nosmooth repeats each sample of chroma, and libjpeg 7 to 9 make 16 pixels of 8
coefficients instead of upsampling. jpeglib brings these libraries, so that a file can be decoded as
each of them would.
"""
import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from classifier.forensics.inverse_dct import inverse_dct
from classifier.forensics.other_dcts import FAST_LOSS, fast_dct, fast_steps, float_dct
from classifier.recovery.stopping import check

JPEGLIB = threading.Lock()   # its library is chosen for the whole process


@dataclass(frozen=True)
class Decoder:
    """How pixels are made of coefficients."""
    name: str                # for people
    dct: str = 'accurate'    # or 'fast', 'float'
    upsampling: str = 'fancy'   # or 'plain', 'wide'
    version: str = 'turbo210'   # of libjpeg that decodes so, as jpeglib names it

    @property
    def is_default(self) -> bool:
        """Whether it is libjpeg-turbo with its defaults."""
        return self.dct == 'accurate' and self.upsampling == 'fancy'

    @property
    def loss(self) -> float:
        """Levels by which its samples are too low, on average."""
        return FAST_LOSS if self.dct == 'fast' else 0.0

    def steps(self, table: np.ndarray) -> np.ndarray:
        """The steps (64,) between the samples' coefficients that a table (64,) leads to."""
        return fast_steps(table) if self.dct == 'fast' else table

    def inverse_dct(self, levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Samples of levels, uint8 (n, 64), with the steps of a table."""
        if self.dct == 'accurate':
            return inverse_dct(levels.astype(np.int32) * steps)
        return (fast_dct if self.dct == 'fast' else float_dct)(levels, steps)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """`decoded` is this decoder's, in this thread."""
        token = _CHOSEN.set(self)
        try:
            yield
        finally:
            _CHOSEN.reset(token)

    def pixels(self, data: bytes) -> np.ndarray:
        """What it makes of a JPEG file: BGR, (h, w, 3) uint8."""
        import jpeglib
        methods = {'accurate': jpeglib.JDCT_ISLOW, 'fast': jpeglib.JDCT_IFAST,
                   'float': jpeglib.JDCT_FLOAT}
        sign = '-' if self.upsampling == 'plain' else '+'
        handle, name = tempfile.mkstemp(suffix='.jpg')
        try:
            with open(handle, 'wb') as file:
                file.write(data)
            with JPEGLIB, jpeglib.version(self.version):
                pixels = jpeglib.read_spatial(name, dct_method=methods[self.dct],
                                              flags=[f'{sign}DO_FANCY_UPSAMPLING']).spatial
        finally:
            os.unlink(name)
        return np.ascontiguousarray(np.broadcast_to(pixels[..., ::-1], (*pixels.shape[:2], 3)))


DEFAULT = Decoder("libjpeg-turbo's defaults")
DECODERS = (
    DEFAULT,
    Decoder('plain chroma upsampling', upsampling='plain'),
    Decoder('libjpeg 7 to 9', upsampling='wide', version='8d'),
    Decoder('libjpeg 9a to 9f', upsampling='wide', version='9f'),   # turn some colours into others
    Decoder('the fast inverse DCT', 'fast'),
    Decoder('the fast inverse DCT and plain chroma upsampling', 'fast', 'plain'),
    Decoder('the inverse DCT in floating point', 'float'),
    Decoder('the inverse DCT in floating point and plain chroma upsampling', 'float', 'plain'),
)
_CHOSEN = ContextVar('decoder', default=DEFAULT)


def decoded(levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Samples of levels, uint8 (n, 64), as the decoder at work makes them.

    Parameters
    ----------
    levels : int array, shape (n, 64)
    steps : array, shape (64,)
        As its `steps` returns them.
    """
    check()
    return _CHOSEN.get().inverse_dct(levels, steps)


def loss() -> float:
    """The `loss` of the decoder at work."""
    return _CHOSEN.get().loss
