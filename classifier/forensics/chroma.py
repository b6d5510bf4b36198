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
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from classifier.forensics.blocks import (
    BLOCK, DCT2, Blocks, clipped_pixels, cut_windows, decoder_luma, distinct_blocks)
from classifier.forensics.exact_blocks import compare_tables
from classifier.forensics.scores import (
    FEW_LUMA, FINE_EVIDENCE, MAX_SPAN, fitting, least_evidence, middle, quality_scores)
from classifier.forensics.tables import standard_tables

Lattice = TypeVar('Lattice')  # lattice.Lattice, of the file that imports this one
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
CLEARLY = 4.0             # times as many pixels that 4:2:0 does not give, where 4:2:2 is told
SURELY_UPSAMPLED = 0.99   # below, the rounding of mirrored pictures is tried as well
NO_SCORES = np.zeros(100)

UPSAMPLE = np.zeros((SIDE, SIDE // 2 + 2), np.float32)  # 2 pixels for a sample, from 3 samples
_i = np.arange(SIDE // 2)
UPSAMPLE[2 * _i, _i + 1] = UPSAMPLE[2 * _i + 1, _i + 1] = 0.75
UPSAMPLE[2 * _i, _i] = UPSAMPLE[2 * _i + 1, _i + 2] = 0.25
DOWNSAMPLE = np.linalg.pinv(UPSAMPLE)                   # (14, 24), least squares


class Chroma(NamedTuple):
    """What the chroma tells on one grid phase."""
    subsampling: str | None = None   # '4:4:4', '4:2:2', '4:2:0', 'gray'; None: not sure
    scores: np.ndarray = NO_SCORES   # (100,) of the chroma tables, nats; 0 where it is not sure
    evidence: np.ndarray = NO_SCORES  # the same, of exact blocks alone

    def added_to(self, found: Lattice) -> Lattice:
        """The luma's `Lattice`, with the chroma table's quality: the luma's if that fits."""
        fits, quality = fitting(self.scores[:FINEST]), None
        if np.ptp(fits) <= MAX_SPAN:
            quality = found.quality if found.quality in fits else middle(fits, self.scores)
        return replace(found, subsampling=self.subsampling, chroma_quality=quality)


def read_chroma(image: np.ndarray, dy: int, dx: int) -> Chroma:
    """What the chroma tells where the luma is on a known grid phase.

    Halved, a chroma block spans two luma blocks: which two is tried.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels.
    dy, dx : int
        The luma's grid phase, 0..7 px.
    """
    y, x, windows = cut_windows(image, (dy + MARGIN) % BLOCK, (dx + MARGIN) % BLOCK, SIDE, WINDOWS)
    if len(windows) and (windows == windows[..., :1]).all():
        rows = image[::1 + image.size // MANY_BYTES]
        return Chroma('gray' if (rows == rows[..., :1]).all() else None)
    whole = ~clipped_pixels(windows).any(axis=(1, 2))
    odd_y, odd_x = ((first[whole] + MARGIN - d) // BLOCK % 2 for first, d in ((y, dy), (x, dx)))
    planes = colour_differences(windows[whole])
    centre = np.s_[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    varied = np.ptp(planes[centre], axis=(1, 2)) > 0
    if varied.sum() < MIN_VARIED:
        return Chroma()
    own, half = (slice(first, first + BLOCK) for first in (MARGIN, MARGIN // 2 + 1))
    blocks = _plane_blocks(planes[:, own, own], slice(None))
    ac, dc = _plane_scores(blocks)
    full = Chroma('4:4:4', ac + dc, _evidence(blocks))
    top = full.scores[:FINEST].argmax()
    fits = full.scores[top] >= FINE_EVIDENCE
    if fits and ac[top] >= FINE_EVIDENCE:
        return full
    halved = []
    for mirrored in (False, True):
        for name, rows, phase in (('4:2:2', own, odd_x), ('4:2:0', half, odd_x + 2 * odd_y)):
            coded, same = coded_planes(planes, rows is half, mirrored)
            halved.append((same[varied][centre].mean(), name, coded[:, rows, half], phase))
        share, name, coded, phase = max(halved, key=lambda kind: kind[0])
        if share >= SURELY_UPSAMPLED:
            break
    if share <= UPSAMPLED:
        return full if fits else Chroma()
    parts = [_plane_blocks(coded, phase == p) for p in np.unique(phase)[::-1]]
    scores, blocks = max(((sum(_plane_scores(blocks)), blocks) for blocks in parts),
                         key=lambda found: found[0][:FINEST].max())
    top = int(scores[:FINEST].argmax())
    sure = scores[top] >= least_evidence(top + 1, 0)
    if sure:
        return Chroma(name, scores, _evidence(blocks))
    # 4:2:2 explains much that is 4:2:0 mirrored, or smooth; where it is true, 4:2:0 fails
    other = max(kind[0] for kind in halved if kind[1] == '4:2:0')
    return Chroma() if name == '4:2:2' and 1 - other < CLEARLY * (1 - share) else Chroma(name)


def _plane_blocks(planes, chosen):
    """Chosen blocks of Cb and Cr, from planes (2 n, 8, 8), less 128, float32: `Blocks`."""
    planes = (planes + 128).clip(0, 255).astype(np.uint8)
    (cb, flat_cb), (cr, flat_cr) = (distinct_blocks(plane[chosen], FEW_LUMA // 2)
                                    for plane in np.split(planes, 2))
    blocks = np.concatenate([cb, cr])
    return Blocks(blocks, blocks @ DCT2.T, np.append(flat_cb, flat_cr), blocks[:0])


def _plane_scores(blocks):
    """AC and DC scores of the chroma tables."""
    return quality_scores(blocks, standard_tables(chroma=True), exact=True)[:2]


def _evidence(blocks):
    """The evidence that exact blocks are for the chroma tables: (100,) nats."""
    if not len(blocks.luma):
        return NO_SCORES
    return np.maximum(compare_tables(blocks, standard_tables(chroma=True)).gain, 0)


def colour_differences(windows: np.ndarray) -> np.ndarray:
    """Cb - 128 and Cr - 128 of (n, side, side, 3) uint8 BGR windows: (2 n, side, side) float32."""
    luma = decoder_luma(windows).astype(np.float32)
    return np.concatenate([np.rint((windows[..., channel] - luma) / np.float32(factor))
                           for channel, factor in ((0, 1.772), (2, 1.402))])


def coded_planes(planes: np.ndarray, vertical: bool,
                 mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The coded samples behind upsampled planes, and which pixels they upsample to.

    Parameters
    ----------
    planes : float32 array, shape (n, 24, 24)
        As `colour_differences` returns them, in levels.
    vertical : bool
        Whether the height is halved as well as the width: 4:2:0, else 4:2:2.
    mirrored : bool
        Whether the picture was mirrored, left to right, since.

    Returns
    -------
    coded : float32 array, shape (n, 14, 14) if `vertical`, else (n, 24, 14)
        Whole numbers; where halved, with one sample of margin beyond the window on either side.
    same : bool array, shape (n, 24, 24)
    """
    rows = DOWNSAMPLE if vertical else np.eye(SIDE, dtype=np.float32)
    coded = np.rint(rows @ planes @ DOWNSAMPLE.T)
    for _ in range(ROUNDS):
        error = planes - upsampled(coded, vertical, mirrored)
        coded = np.rint(coded + rows @ error @ DOWNSAMPLE.T)
    return coded, upsampled(coded, vertical, mirrored) == planes


def upsampled(coded: np.ndarray, vertical: bool, mirrored: bool = False) -> np.ndarray:
    """libjpeg's fancy upsampling of coded planes, rounding and all: (n, 24, 24) float32."""
    if vertical:
        coded = UPSAMPLE @ coded
    unit = 16 if vertical else 4
    bias = ([8, 7] if vertical else [1, 2])[::-1 if mirrored else 1]
    bias = np.tile(bias, SIDE // 2).astype(np.float32)
    return np.floor(coded @ UPSAMPLE.T + bias / unit)
