"""Between a decoder's pixels and its planes Y, Cb and Cr, in whole numbers as libjpeg has them.

    R = Y + red(Cr),   G = Y + green(Cb, Cr),   B = Y + blue(Cb),   each clipped to 0..255

Where no channel is at 0 or 255, a pixel gives its Y, Cb and Cr exactly (forensics/chroma.py says
why). Where one is, it may have been clipped, and the pixel gives bounds.

Sources: JFIF 1.02; libjpeg's jdcolor.c (16-bit constants).
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classifier.forensics.blocks import clipped_pixels, decoder_luma
from classifier.recovery.decoders import loss

HALF, BITS = 1 << 15, 16
RED, BLUE, GREEN_CB, GREEN_CR = 91881, 116130, -22554, -46802  # 1.402 and so on, times 2**16
# BGR from Y, Cb and Cr less 128, in real numbers, and back.
TO_BGR = np.array([[1, 1.772, 0], [1, -0.344136, -0.714136], [1, 0, 1.402]], np.float32)


class Bounds(NamedTuple):
    """Between which the samples of a plane are, and a likely value: uint8, uint8, float32."""
    low: np.ndarray
    high: np.ndarray
    guess: np.ndarray        # less 128

    def pad(self, widths: Sequence[tuple[int, int]]) -> 'Bounds':
        """With more around, `widths` as np.pad takes them, of which nothing is known."""
        return Bounds(np.pad(self.low, widths), np.pad(self.high, widths, constant_values=255),
                      np.pad(self.guess, widths, mode='edge'))


def before_rounding(low: np.ndarray, high: np.ndarray,
                    slack: float) -> tuple[np.ndarray, np.ndarray]:
    """Between which samples less 128 are that rounding moves by `slack` levels, and then clips."""
    middle = 128 - loss()
    return (np.where(low > 0, low - np.float32(middle + slack), -np.inf).astype(np.float32),
            np.where(high < 255, high - np.float32(middle - slack), np.inf).astype(np.float32))


def chroma_shifts(most: int) -> np.ndarray:
    """Steps by which Cb and Cr may be moved, up to `most` each, the smallest first: (k, 2) int."""
    shifts = np.mgrid[-most:most + 1, -most:most + 1].reshape(2, -1).T
    return shifts[np.abs(shifts).sum(axis=1).argsort(kind='stable')]


def differences(cb: np.ndarray, cr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What B, G and R have more than Y, before clipping, for Cb and Cr of 0..255: int32 arrays."""
    cb, cr = cb.astype(np.int32) - 128, cr.astype(np.int32) - 128
    return ((BLUE * cb + HALF) >> BITS, (GREEN_CB * cb + GREEN_CR * cr + HALF) >> BITS,
            (RED * cr + HALF) >> BITS)


def to_bgr(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """libjpeg's pixels, uint8 (..., 3), of planes of 0..255."""
    return np.stack([(luma + more).clip(0, 255) for more in differences(cb, cr)],
                    axis=-1).astype(np.uint8)


def luma_limits(channels: Sequence[np.ndarray], cb: np.ndarray, cr: np.ndarray,
                visible: np.ndarray | bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most Y, int32, that each pixel allows; where low > high, there is none.

    Parameters
    ----------
    channels : three uint8 arrays
        B, G and R.
    cb, cr : arrays of 0..255
        Their shape may have more axes in front.
    visible : bool array
        Where there are pixels; elsewhere all of 0..255 is allowed.
    """
    low, high = np.zeros(cb.shape, np.int32), np.full(cb.shape, 255, np.int32)
    for value, more in zip(channels, differences(cb, cr)):
        value = value.astype(np.int32)
        np.maximum(low, np.where(visible & (value > 0), value - more, 0), out=low)
        np.minimum(high, np.where(visible & (value < 255), value - more, 255), out=high)
    return low, high


def luma_bounds(image: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> Bounds:
    """What pixels (h, w, 3) say of Y where Cb and Cr, uint8 (h, w), are known.

    Where they contradict each other, low > high.
    """
    low, high = luma_limits(np.moveaxis(image, -1, 0), cb, cr)
    low, high = low.clip(0, 256), high.clip(-1, 255)
    guess = np.where(low > high, (low + high) / 2, decoder_luma(image[None])[0].clip(low, high))
    crossed = low > high
    low, high = np.where(crossed, 1, low), np.where(crossed, 0, high)
    return Bounds(low.astype(np.uint8), high.astype(np.uint8), (guess - 128).astype(np.float32))


def chroma_bounds(image: np.ndarray) -> tuple[np.ndarray, Bounds, Bounds]:
    """What pixels (h, w, 3) alone say of the chroma.

    Returns
    -------
    known : bool array, shape (h, w)
        Where no channel may have been clipped.
    cb, cr : Bounds
        Of both planes, (h, w).
    """
    luma = decoder_luma(image[None])[0].astype(np.float32)
    clipped = clipped_pixels(image[None])[0]
    guesses = [(image[..., channel] - luma) / np.float32(factor)
               for channel, factor in ((0, 1.772), (2, 1.402))]
    values = [(np.rint(guess) + 128).clip(0, 255).astype(np.uint8) for guess in guesses]
    bounds = [[value.copy(), value.copy()] for value in values]
    if clipped.any():
        packed = image[clipped].astype(np.int32) @ np.array([1 << 16, 1 << 8, 1])
        colours, which = np.unique(packed, return_inverse=True)
        boxes = _boxes(np.stack([colours >> 16, colours >> 8 & 255, colours & 255]))
        for (low, high), (least, most) in zip(bounds, boxes):
            low[clipped], high[clipped] = least[which.ravel()], most[which.ravel()]
    return ~clipped, *(Bounds(low, high, np.where(
        clipped, guess.clip(low - np.float32(128), high - np.float32(128)), np.rint(guess)))
        for (low, high), guess in zip(bounds, guesses))


def _boxes(colours):
    """Between which Cb and Cr are, of n colours (3, n) BGR with clipped channels.

    Every Y is tried; each leaves an interval of Cb, by B, and of Cr, by R, which G narrows.
    """
    y = np.arange(256, dtype=np.float32)
    boxes = np.empty((2, 2, colours.shape[1]), np.uint8)
    for first in range(0, colours.shape[1], 4096):  # memory
        part = colours[:, first:first + 4096, None].astype(np.float32)
        least = np.where(part > 0, part - y - 1, -np.inf)     # of what is more than Y, and a level
        most = np.where(part < 255, part - y + 1, np.inf)     # for rounding
        cb = [(d / 1.772).clip(-128, 127) for d in (least[0], most[0])]
        cr = [(d / 1.402).clip(-128, 127) for d in (least[2], most[2])]
        possible = (least[0] <= 1.772 * 127) & (most[0] >= -1.772 * 128)
        possible &= (least[2] <= 1.402 * 127) & (most[2] >= -1.402 * 128)
        for (one, by), (other, factor) in (((cb, 0.344136), (cr, 0.714136)),
                                           ((cr, 0.714136), (cb, 0.344136))):
            low = np.maximum(one[0], (-most[1] - factor * other[1]) / by)
            high = np.minimum(one[1], (-least[1] - factor * other[0]) / by)
            one[:] = low, high
        possible &= (cb[0] <= cb[1] + 1) & (cr[0] <= cr[1] + 1)
        for box, (low, high) in zip(boxes, (cb, cr)):
            at = slice(first, first + part.shape[1])
            none = ~possible.any(axis=1)
            low = np.where(possible, low, np.inf).min(axis=1)
            high = np.where(possible, high, -np.inf).max(axis=1)
            box[0, at] = np.where(none, 0, np.floor(low) + 128).clip(0, 255)
            box[1, at] = np.where(none, 255, np.ceil(high) + 128).clip(0, 255)
    return boxes
