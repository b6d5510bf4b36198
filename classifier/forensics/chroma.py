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
    BLOCK, DCT2, Blocks, cut_windows, decoder_luma, distinct_blocks, evenly_spaced, has_clipped)
from classifier.forensics.exact_blocks import compare_tables
from classifier.forensics.scores import (
    FEW_LUMA, FINE_EVIDENCE, MAX_SPAN, exact_scores, fitting, least_evidence, middle,
    quality_scores)
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
FEWEST_TELLING = 300      # pixels of planes that differ from the next one in their row
SURELY_UPSAMPLED = 0.99   # below, the rounding of mirrored pictures is tried as well
# Planes that tell which ways of upsampling are tried with all: not with shares below the first of
# these, nor where so many times as many pixels of theirs differ as with the best way.
SOME, FAR_FROM_UPSAMPLED, NEARLY = 24, 0.82, 1.75
HOPELESS = -200.0         # nats; less stays below what proves a table, whatever exact blocks add
CLEAR = 100.0             # nats of the best part; from here on, parts with less than half are out
NO_SCORES = np.zeros(100)
CENTRE = np.s_[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
# A block of the window's, and a halved one.
OWN, HALF = (slice(first, first + BLOCK) for first in (MARGIN, MARGIN // 2 + 1))

UPSAMPLE = np.zeros((SIDE, SIDE // 2 + 2), np.float32)  # 2 pixels for a sample, from 3 samples
_i = np.arange(SIDE // 2)
UPSAMPLE[2 * _i, _i + 1] = UPSAMPLE[2 * _i + 1, _i + 1] = 0.75
UPSAMPLE[2 * _i, _i] = UPSAMPLE[2 * _i + 1, _i + 2] = 0.25
DOWNSAMPLE = np.linalg.pinv(UPSAMPLE)                   # (14, 24), least squares


class Chroma(NamedTuple):
    """What the chroma tells on one grid phase."""
    subsampling: str | None = None   # '4:4:4', '4:2:2', '4:2:0', 'gray'; None: not sure
    scores: np.ndarray = NO_SCORES   # (100,) of the chroma tables, nats; 0 where it is not sure
    blocks: Blocks | None = None     # of both planes, where it is sure

    @property
    def evidence(self) -> np.ndarray:
        """The evidence that exact blocks are for the chroma tables: (100,) nats, 0 or more."""
        if self.blocks is None or not len(self.blocks.luma):
            return NO_SCORES
        return np.maximum(compare_tables(self.blocks, standard_tables(chroma=True)).gain, 0)

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
    if len(windows) and _is_gray(windows):
        return Chroma('gray' if _is_gray(image[::1 + image.size // MANY_BYTES]) else None)
    whole = ~has_clipped(windows)
    odd_y, odd_x = ((first[whole] + MARGIN - d) // BLOCK % 2 for first, d in ((y, dy), (x, dx)))
    planes = colour_differences(windows[whole])
    varied = np.ptp(planes[CENTRE], axis=(1, 2)) > 0
    if varied.sum() < MIN_VARIED:
        return Chroma()
    blocks, tables = _plane_blocks(_samples(planes[:, OWN, OWN])), standard_tables(chroma=True)
    ac, dc, _ = quality_scores(blocks, tables)
    if (ac + dc)[:FINEST].max() > HOPELESS:
        ac, dc = np.add((ac, dc), exact_scores(blocks, tables))
    full = Chroma('4:4:4', ac + dc, blocks)
    top = full.scores[:FINEST].argmax()
    fits = full.scores[top] >= FINE_EVIDENCE
    if fits and ac[top] >= FINE_EVIDENCE:
        return full
    kind, share, coded, same, rival = _subsampling(planes, varied)
    if share <= UPSAMPLED:
        return full if fits else Chroma()
    coded, phase = ((coded[:, OWN, HALF], odd_x) if kind == '4:2:2' else
                    (coded[:, HALF, HALF], odd_x + 2 * odd_y))
    coded, phase = _samples(coded), np.tile(phase, 2)
    scores, blocks = _best_part([_plane_blocks(coded[phase == p]) for p in np.unique(phase)[::-1]])
    top = int(scores[:FINEST].argmax())
    if scores[top] >= least_evidence(top + 1, 0):
        return Chroma(kind, scores, blocks)
    # 4:2:2 explains much that is 4:2:0 mirrored; where it is true, 4:2:0 fails
    clear = kind == '4:2:0' or 1 - rival >= CLEARLY * (1 - share)
    return Chroma(kind if clear and _tells(planes[varied], same[varied]) else None)


def _is_gray(pixels):
    """Whether all pixels (..., 3) are; a few of them mostly show that they are not."""
    return all((some == some[..., :1]).all() for some in (pixels[:1], pixels))


def _subsampling(planes, varied):
    """The upsampling behind halved planes.

    Returns '4:2:2' or '4:2:0' (None: neither), the share of pixels that it gives, the coded planes,
    which pixels it gives, and the share that 4:2:0 gives. A few planes tell which ways are worth
    trying with all.
    """
    ways = [(kind, mirrored) for mirrored in (False, True) for kind in ('4:2:2', '4:2:0')]
    some = np.flatnonzero(varied)
    some = planes[some[evenly_spaced(len(some), SOME)]]
    shares = []
    for kind, mirrored in ways:
        if mirrored and max(shares[:2]) >= SURELY_UPSAMPLED:
            break
        shares.append(coded_planes(some, kind == '4:2:0', mirrored)[1][CENTRE].mean())
    best = max(shares)
    if best < FAR_FROM_UPSAMPLED:
        return None, best, None, None, best
    found = []
    for i, (kind, mirrored) in enumerate(ways[:len(shares)]):
        if mirrored and max((way[0] for way in found), default=0) >= SURELY_UPSAMPLED:
            break
        if 1 - shares[i] <= NEARLY * (1 - best) + 0.005:
            coded, same = coded_planes(planes, kind == '4:2:0', mirrored)
            shares[i] = same[varied][CENTRE].mean()
            found.append((shares[i], -i, kind, coded, same))
    share, _, kind, coded, same = max(found, key=lambda way: way[:2])
    return kind, share, coded, same, max(shares[1::2])


def _tells(planes, same):
    """Whether upsampling gives enough pixels of planes, bool `same`, to be sure of it.

    What is even along the rows does not count: either way explains it, however it was coded.
    """
    steps = np.diff(planes[CENTRE], axis=2) != 0
    telling = np.pad(steps, ((0, 0), (0, 0), (1, 0))) | np.pad(steps, ((0, 0), (0, 0), (0, 1)))
    return telling.sum() >= FEWEST_TELLING and same[CENTRE][telling].mean() > UPSAMPLED


def _samples(planes):
    """Planes less 128, float32, as a decoder has them: uint8."""
    return (planes + 128).clip(0, 255).astype(np.uint8)


def _plane_blocks(samples):
    """Blocks of Cb, then as many of Cr, (2 n, 8, 8) uint8: `Blocks`."""
    (cb, flat_cb), (cr, flat_cr) = (distinct_blocks(plane, FEW_LUMA // 2)
                                    for plane in np.split(samples, 2))
    blocks = np.concatenate([cb, cr])
    return Blocks(blocks, blocks @ DCT2.T, np.append(flat_cb, flat_cr), blocks[:0])


def _best_part(parts):
    """Of several `Blocks`, those that the chroma tables explain best: scores (100,), `Blocks`."""
    tables = standard_tables(chroma=True)
    scores = [sum(quality_scores(blocks, tables)[:2]) for blocks in parts]
    best = max(some[:FINEST].max() for some in scores)
    for some, blocks in zip(scores, parts):
        if best < CLEAR or some[:FINEST].max() >= best / 2:
            some += sum(exact_scores(blocks, tables))
    return max(zip(scores, parts), key=lambda found: found[0][:FINEST].max())


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
    rows = DOWNSAMPLE if vertical else None
    coded = np.rint(_both_ways(planes, rows, DOWNSAMPLE))
    again = upsampled(coded, vertical, mirrored)
    same = again == planes
    for _ in range(ROUNDS):
        some = np.flatnonzero(~same.all(axis=(1, 2)))
        error = planes[some] - again[some]
        coded[some] = np.rint(coded[some] + _both_ways(error, rows, DOWNSAMPLE))
        again[some] = upsampled(coded[some], vertical, mirrored)
        same[some] = again[some] == planes[some]
    return coded, same


def upsampled(coded: np.ndarray, vertical: bool, mirrored: bool = False) -> np.ndarray:
    """libjpeg's fancy upsampling of coded planes, rounding and all: (n, 24, 24) float32."""
    unit = 16 if vertical else 4
    bias = ([8, 7] if vertical else [1, 2])[::-1 if mirrored else 1]
    bias = np.tile(bias, SIDE // 2).astype(np.float32)
    full = _both_ways(coded, UPSAMPLE if vertical else None, UPSAMPLE)
    full += bias / unit
    return np.floor(full, out=full)


def _both_ways(planes, rows, columns):
    """rows @ planes @ columns.T of (n, h, w) as two products of large matrices; None: no rows."""
    n, height, width = planes.shape
    planes = (planes.reshape(n * height, width) @ columns.T).reshape(n, height, len(columns))
    return planes if rows is None else np.tensordot(rows, planes, (1, 1)).swapaxes(0, 1)
