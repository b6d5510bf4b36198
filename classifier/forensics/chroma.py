"""The chroma that a JPEG coded, and its subsampling, from decoded pixels.

A decoder adds the colour differences to the luma Y, which lattice.py gets back exactly:

    R = Y + round(1.402 (Cr - 128)),    B = Y + round(1.772 (Cb - 128))      (JFIF 1.02)

Both factors are above 1, so that, where no channel was clipped, Cr and Cb come back exactly
as well. With 4:2:0 and 4:2:2 these are upsampled: between two coded samples the decoder sets
two new ones at a quarter and three quarters of the way, rounded (libjpeg's "fancy"
upsampling). The coded samples are the least-squares solution, rounded, and corrected where
upsampling them again does not give the pixels. How many pixels it gives in the end tells the
subsampling: nearly all for the right one.

The coded planes lie on the lattice of the chroma table, as the luma does on that of its own.

Sources: JFIF 1.02; h2v1_fancy_upsample and h2v2_fancy_upsample in libjpeg's jdsample.c.
"""
from dataclasses import dataclass

import numpy as np

from classifier.forensics.blocks import (
    BLOCK, DCT2, Blocks, clipped_pixels, cut_windows, decoder_luma, distinct_blocks)
from classifier.forensics.scores import (
    FEW_LUMA, FINE_EVIDENCE, MAX_SPAN, Scores, fitting, least_evidence, middle, quality_scores)
from classifier.forensics.tables import standard_tables

SIDE = 24                 # px: windows of a 16x16 MCU (4:2:0) and a margin of 4
MARGIN = 4
ROUNDS = 2                # of correcting what does not upsample to the pixels
WINDOWS = 144             # of them looked at
FINEST = 96               # finer chroma tables fit other grids' coefficients by chance
MIN_VARIED = 4            # of their planes, those that are not of one value
MANY_BYTES = 4_000_000    # of larger images, not every row is looked at for colour
# Share of their pixels that upsampling gives: 0.966 and more with the right subsampling, less
# than 0.74 for photos that were not compressed; up to 0.96 for 4:4:4, which is looked for first.
UPSAMPLED = 0.94


def _triangle(samples):
    """Upsampling of samples + 2 coded samples to 2 samples pixels, as a matrix, float32."""
    matrix = np.zeros((2 * samples, samples + 2), np.float32)
    i = np.arange(samples)
    matrix[2 * i, i + 1] = matrix[2 * i + 1, i + 1] = 0.75
    matrix[2 * i, i] = matrix[2 * i + 1, i + 2] = 0.25
    return matrix


UPSAMPLE = _triangle(SIDE // 2)            # (24, 14)
DOWNSAMPLE = np.linalg.pinv(UPSAMPLE)      # (14, 24), least squares


@dataclass(frozen=True)
class Chroma:
    """What the chroma tells on one grid phase."""
    subsampling: str | None  # '4:4:4', '4:2:2', '4:2:0', 'gray'; None when it is not sure
    scores: Scores | None    # of the standard chroma tables; None where none is on a lattice

    def quality(self, luma_quality):
        """The chroma table's quality: the luma's if that fits, None when it is not sure."""
        if self.scores is None:
            return None
        total = self.scores.total[:FINEST]
        fits = fitting(total)
        if np.ptp(fits) > MAX_SPAN:
            return None
        return luma_quality if luma_quality in fits else middle(fits, total)


def read_chroma(image: np.ndarray, dy: int, dx: int) -> Chroma:
    """The `Chroma` of the blocks whose luma is on grid phase (dy, dx).

    Halved, a chroma block spans two luma blocks: which two is tried.
    """
    y, x, windows = cut_windows(image, (dy + MARGIN) % BLOCK, (dx + MARGIN) % BLOCK, SIDE, WINDOWS)
    if len(windows) and (windows == windows[..., :1]).all():
        rows = image[::1 + image.size // MANY_BYTES]
        return Chroma('gray' if (rows == rows[..., :1]).all() else None, None)
    whole = ~clipped_pixels(windows).any(axis=(1, 2))
    windows, odd_y, odd_x = windows[whole], *(
        (first[whole] + MARGIN - d) // BLOCK % 2 for first, d in ((y, dy), (x, dx)))
    planes = colour_differences(windows, decoder_luma(windows))
    centre = slice(MARGIN, SIDE - MARGIN)
    varied = np.ptp(planes[:, centre, centre], axis=(1, 2)) > 0
    if varied.sum() < MIN_VARIED:
        return Chroma(None, None)
    rows = columns = slice(MARGIN, MARGIN + BLOCK)
    full = _plane_scores(planes[:, rows, columns], slice(None))
    top = full.total[:FINEST].argmax()
    fits = full.total[top] >= FINE_EVIDENCE
    if fits and full.ac[top] >= FINE_EVIDENCE:
        return Chroma('4:4:4', full)
    best, kind = UPSAMPLED, None
    for name, vertical in (('4:2:2', False), ('4:2:0', True)):
        samples, same = coded_planes(planes, vertical)
        share = same[varied, centre, centre].mean()
        if share > best:
            best, kind, coded, phase = share, name, samples, odd_x + 2 * odd_y * vertical
            columns = slice(MARGIN // 2 + 1, MARGIN // 2 + 1 + BLOCK)
            rows = columns if vertical else rows
    if kind is None:
        return Chroma('4:4:4', full) if fits else Chroma(None, None)
    coded = coded[:, rows, columns]
    scores = max((_plane_scores(coded, phase == p) for p in np.unique(phase)[::-1]),
                 key=lambda s: s.total[:FINEST].max())
    top = int(scores.total[:FINEST].argmax())
    sure = scores.total[top] >= least_evidence(top + 1, 0)
    return Chroma(kind, scores if sure else None)


def _plane_scores(planes, chosen):
    """`Scores` of the chosen blocks of Cb and Cr: planes (2 n, 8, 8), less 128, float32."""
    planes = (planes + 128).clip(0, 255).astype(np.uint8)
    (cb, flat_cb), (cr, flat_cr) = (distinct_blocks(plane[chosen], FEW_LUMA // 2)
                                    for plane in np.split(planes, 2))
    blocks = np.concatenate([cb, cr])
    blocks = Blocks(blocks, blocks @ DCT2.T, np.append(flat_cb, flat_cr), blocks[:0])
    return quality_scores(blocks, standard_tables(chroma=True), exact=True)


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
        error = planes - _upsampled(coded, vertical)
        coded = np.rint(coded + rows @ error @ DOWNSAMPLE.T)
    return coded, _upsampled(coded, vertical) == planes


def _upsampled(coded, vertical):
    """libjpeg's fancy upsampling, rounding and all: (n, 24, 24) float32."""
    if vertical:
        coded = UPSAMPLE @ coded
    unit = 16 if vertical else 4
    bias = np.tile([8, 7] if vertical else [1, 2], SIDE // 2).astype(np.float32)
    return np.floor(coded @ UPSAMPLE.T + bias / unit)
