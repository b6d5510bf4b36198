"""Whether pixels are, unchanged, those that a decoder of WebP or AVIF has made.

    codec_of(bgr_image)                        # 'WebP', 'AVIF' or None

These decoders make R, G and B of whole numbers Y, U and V, by arithmetic of their own. Each makes
only a part of all colours: libwebp, from 16..235 and 16..240, one in six, libyuv, which libavif
calls, from 0..255, one in four. So if all of a few hundred different colours are among them, the
pixels are that decoder's. Those of a JPEG are nearly all libyuv's, but not all, and all of them
are libjpeg's.

Sources: libwebp's src/dsp/yuv.h (VP8YUVToR and so on); libyuv's row_common.cc (YuvPixel) and
kYuvJPEGConstants.
"""
import numpy as np

from classifier.forensics.proof import recombined

SAMPLED, FIRST = 6000, 48   # pixels looked at, and the first, which decide for most images
LEAST = 120               # different colours, not gray, for a proof
_NEAR = np.stack(np.meshgrid(*3 * [np.arange(-1, 2)], indexing='ij'), axis=-1).reshape(-1, 3)


def _libwebp(y, u, v):
    y = y * 19077 >> 8
    return (y + (u * 33050 >> 8) - 17685 >> 6, y - (u * 6419 >> 8) - (v * 13320 >> 8) + 8708 >> 6,
            y + (v * 26149 >> 8) - 14234 >> 6)


def _libyuv(y, u, v):
    y, u, v = (y * 257 * 16320 >> 16) + 32, u - 128, v - 128
    return y + 113 * u >> 6, y - 22 * u - 46 * v >> 6, y + 90 * v >> 6


def _libjpeg(y, u, v):
    return np.moveaxis(recombined(y, u - 128, v - 128), -1, 0)


DECODERS = {'WebP': (_libwebp, True), 'AVIF': (_libyuv, False)}


def codec_of(image: np.ndarray) -> str | None:
    """The codec whose decoder has made all colours of an image, or None.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels.

    Returns
    -------
    'WebP' (lossy), 'AVIF' or None
        None also for pictures of few colours or gray ones, of which nothing can be proved.
    """
    pixels = image.reshape(-1, 3)
    colours = pixels[::max(1, len(pixels) // SAMPLED)].astype(np.int64)
    inside = ((colours > 0) & (colours < 255)).all(axis=1) & (np.ptp(colours, axis=1) > 0)
    colours = colours[inside]
    likely = [name for name in DECODERS if _are_made(colours[:FIRST], *DECODERS[name])]
    if not likely:
        return None
    colours = colours[np.unique(colours @ [1, 256, 65536], return_index=True)[1]]
    if len(colours) < LEAST or _are_made(colours, _libjpeg, False):
        return None
    return next((name for name in likely if _are_made(colours, *DECODERS[name])), None)


def _are_made(colours, decoder, narrow):
    """Whether a decoder makes all colours (n, 3), of Y in 16..235 if `narrow`, else 0..255."""
    blue, green, red = colours.T
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = np.stack([luma, (blue - luma) / 1.772, (red - luma) / 1.402], axis=1)
    planes = planes * ([219 / 255, 224 / 255, 224 / 255] if narrow else 1)
    planes += [16 if narrow else 0, 128, 128]
    near = np.rint(planes).astype(np.int64)[:, None] + _NEAR
    made = np.stack(decoder(*np.moveaxis(near, -1, 0)), axis=-1)
    return bool((made == colours[:, None]).all(axis=2).any(axis=1).all())
