"""The chroma that a JPEG coded, and its subsampling, from decoded pixels.

A decoder adds the colour differences to the luma Y, which lattice.py gets back exactly:

    R = Y + round(1.402 (Cr - 128)),    B = Y + round(1.772 (Cb - 128))      (JFIF 1.02)

Both factors are above 1, so that, where no channel was clipped, Cr and Cb come back exactly
as well. With 4:2:0 and 4:2:2 these are upsampled: between two coded samples the decoder sets
two new ones at a quarter and three quarters of the way, rounded (libjpeg's "fancy"
upsampling). The coded samples are the least-squares solution, rounded, and set right where
upsampling them again does not give the pixels. How many pixels it gives in the end tells the
subsampling: nearly all for the right one.

The coded planes lie on the lattice of the chroma table, as the luma does on that of its own.

Sources: JFIF 1.02; h2v1_fancy_upsample and h2v2_fancy_upsample in libjpeg's jdsample.c.
"""
import numpy as np

SIDE = 24                 # px: windows of a 16x16 MCU (4:2:0) and a margin of 4
MARGIN = 4
ROUNDS = 2                # of setting right what does not upsample to the pixels


def _triangle(samples):
    """Upsampling of samples + 2 coded samples to 2 samples pixels, as a matrix, float32."""
    matrix = np.zeros((2 * samples, samples + 2), np.float32)
    i = np.arange(samples)
    matrix[2 * i, i + 1] = matrix[2 * i + 1, i + 1] = 0.75
    matrix[2 * i, i] = matrix[2 * i + 1, i + 2] = 0.25
    return matrix


UPSAMPLE = _triangle(SIDE // 2)            # (24, 14)
DOWNSAMPLE = np.linalg.pinv(UPSAMPLE)      # (14, 24), least squares


def colour_differences(windows, luma):
    """Cb - 128 and Cr - 128 of (n, side, side, 3) uint8 BGR windows: (2 n, side, side) float32.

    luma: (n, side, side) uint8, the decoder's.
    """
    planes = [np.rint((windows[..., channel] - luma.astype(np.float32)) / np.float32(factor))
              for channel, factor in ((0, 1.772), (2, 1.402))]
    return np.concatenate(planes)


def coded_planes(planes, vertical):
    """Coded samples and how well they give the (n, 24, 24) planes back.

    vertical: whether there are half as many rows as well (4:2:0, else 4:2:2). Returns
    (n, 14 or 24, 14) float32 whole numbers, one sample of margin beyond the window where
    halved, and (n, 24, 24) bool, which pixels they upsample to.
    """
    rows = DOWNSAMPLE if vertical else np.eye(SIDE, dtype=np.float32)
    coded = np.rint(rows @ planes @ DOWNSAMPLE.T)
    for _ in range(ROUNDS):
        error = planes - upsampled(coded, vertical)
        coded = np.rint(coded + rows @ error @ DOWNSAMPLE.T)
    return coded, upsampled(coded, vertical) == planes


def upsampled(coded, vertical):
    """libjpeg's fancy upsampling, rounding and all: (n, 24, 24) float32."""
    if vertical:
        coded = UPSAMPLE @ coded
    unit = 16 if vertical else 4
    bias = np.tile([8, 7] if vertical else [1, 2], SIDE // 2).astype(np.float32)
    return np.floor(coded @ UPSAMPLE.T + bias / unit)
