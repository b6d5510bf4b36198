"""The lattice of a JPEG whose tones were changed, where that kept its levels apart.

    toned = find_toned(bgr_image)              # a Lattice with `tone`, or None

A change of brightness, contrast or gamma maps each of the 256 levels to another one, mostly the
same map for R, G and B. Where it is steeper than 1, neighbouring levels come apart, and the
histogram has gaps: levels that no pixel has, between levels that many have. There the map can be
undone but for a shift of all levels, since old levels are the used ones, counted through. A shift
moves DC alone, which lattice.py knows to leave out. Where the map is less steep, levels were
merged: pixels of those levels are set to 0, so that their blocks are left out as clipped ones are.
The same is done with the lowest and the highest level, to which old levels may have been clipped:
a JPEG of which black, clipped at 0, was then made brighter has that black at 20, say.

With gaps at even distances the map is linear, a change of contrast, and extends to the seldom used
levels at both ends, of which gaps say nothing. Nothing here decides: the levels, undone, lie on the
lattice of a table, with blocks that are exact bit for bit, or there is no answer.

An inverted picture needs no undoing, since minus a lattice is that lattice; but which way it is can
be told (`is_inverted`), because a decoder rounds halves up.
"""
from dataclasses import replace

import cv2
import numpy as np

from classifier.forensics.blocks import BLOCK, get_blocks
from classifier.forensics.exact_blocks import exact_blocks, rounded_right
from classifier.forensics.lattice import Lattice, find_quality
from classifier.forensics.tables import TURNED, standard_tables

INVERTED, SHIFTED, CONTRAST, CURVE = 'inverted', 'brighter or darker', 'contrast', 'curve'
COMMON = 16               # pixels of both levels beside a gap
STRETCH = 64              # levels without a gap, where the map is no more steeper than 1
NEAR = 2                  # distances of the outermost gaps, up to which the map is as steep
GAPS = 2                  # at least
LEVELS = 32               # used ones, at least; drawings with few colours have gaps, too
MOST_GAPS = 0.67          # of the levels between the ends: steeper than 3
STRAIGHT = 0.8            # levels by which a linear map's used levels may be off a line
PILED_UP = 2.0            # times as many pixels as the next level, of clipped ones
# Only the smoothest blocks may have no merged level, and a fine table fits those of a coarse one:
# of a JPEG of 30, up to 86 % of 49 blocks and 60 % of 220 came out with that of 92, of which nearly
# all should (photos to train on).
SMALLEST = 24             # exact blocks, at least
NEARLY_ALL = 0.9          # of those that rounding leaves
MORE_EXACT = 3            # of the negative, to be sure


def find_toned(image: np.ndarray) -> Lattice | None:
    """The lattice of an image whose tones were changed after it was decoded.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, which have no lattice as they are.

    Returns
    -------
    Lattice or None
        With `quality` and `tone`, one of 'brighter or darker', 'contrast' and 'curve', or None
        where DC cannot tell a shift.
    """
    undone = undo_tones(image)
    if undone is None:
        return None
    levels, tone = undone
    found = find_quality(cv2.LUT(image, levels))
    if found.quality is None or found.turned or found.exact_blocks < SMALLEST:
        return None
    table = standard_tables()[found.quality - 1].copy()
    table[0] = 1 if found.lifted else table[0]
    if found.exact_blocks < NEARLY_ALL * rounded_right(table) * found.tested_blocks:
        return None
    if tone == SHIFTED and not (found.lifted and shows_shift(found)):
        tone = None  # as text of one colour, the darkest or the lightest, piles up, too
    return replace(found, tone=tone)


def undo_tones(image: np.ndarray) -> tuple[np.ndarray, str] | None:
    """The map from an image's levels to those before its tones were changed, but for a shift.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)

    Returns
    -------
    levels : uint8 array, shape (256,)
        0 and 255 for levels that are not known, or were clipped.
    tone : str
        What was changed. Or None in place of both, where the histogram shows no change.
    """
    counts = sum(cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel()
                 for channel in range(3)).astype(np.int64)
    used = np.flatnonzero(counts)
    if len(used) < LEVELS:
        return None
    low, high = int(used[0]), int(used[-1])
    gaps = _gaps(counts, used)
    if len(gaps) > MOST_GAPS * (high - low):
        return None
    levels = np.zeros(256, np.uint8)
    if len(gaps) < GAPS:
        ends = [counts[end] >= PILED_UP * counts[beside] and 0 < end < 255
                for end, beside in ((low, used[1]), (high, used[-2]))]
        if not any(ends):
            return None
        levels[used] = used
        levels[[low, high]] = [0, 255]
        return levels, SHIFTED
    first, last = _steep_part(counts, gaps, low, high)
    part = used[(used >= first) & (used <= last)]
    old = np.arange(len(part))
    common = counts[part] >= COMMON
    if common.sum() < LEVELS:
        return None
    slope, start = np.polyfit(old[common], part[common], 1)
    straight = np.abs(slope * old + start - part)[common].max() <= STRAIGHT
    if straight:
        part = used
        old = np.rint((part - start) / slope).astype(int)
    old += (256 - int(old[0] + old[-1])) // 2
    inside = (old > 0) & (old < 255)
    levels[part[inside]] = old[inside]
    levels[[low, high]] = [0, 255]
    return levels, CONTRAST if straight else CURVE


def _gaps(counts, used):
    """Levels that no pixel has, though many have the used ones next to them, in order."""
    common = counts[used] >= COMMON
    between = common[1:] & common[:-1] & (np.diff(used) > 1)
    return np.concatenate([np.arange(a + 1, b) for a, b in zip(
        used[:-1][between], used[1:][between])] or [np.zeros(0, int)])


def _steep_part(counts, gaps, low, high):
    """The range of levels that has most pixels, with gaps all along: first, last.

    It goes on for half the distance of the last two gaps, or up to the end of the common levels,
    where that is near.
    """
    common = np.flatnonzero(counts >= COMMON)
    low, high = max(low, int(common[0])), min(high, int(common[-1]))
    best = -1, low, high
    for some in np.split(gaps, np.flatnonzero(np.diff(gaps) > STRETCH) + 1):
        below, above = np.diff(some)[[0, -1]] if len(some) > 1 else (0, 0)
        first = low if some[0] - low <= NEAR * below else int(some[0] - below // 2)
        last = high if high - some[-1] <= NEAR * above else int(some[-1] + above // 2)
        best = max(best, (int(counts[first:last + 1].sum()), first, last))
    return best[1:]


def shows_shift(found: Lattice) -> bool:
    """Whether a shift of all levels by 1, as a negative has, moves DC off its lattice."""
    return BLOCK % int(standard_tables()[found.quality - 1][0]) != 0


def is_inverted(image: np.ndarray, found: Lattice) -> bool:
    """Whether the picture is surely the negative of a JPEG's, of which `found` is the lattice.

    Each way, levels are shifted so that DC fits best, too; the right way has more exact blocks.
    """
    if found.repeated > 1 or not found.lifted and (
            shows_shift(found) or found.exact_blocks == found.tested_blocks):
        return False
    table = standard_tables()[found.quality - 1]
    table = table[TURNED] if found.turned else table
    as_it_is, negative = (_exact_when_shifted(
        get_blocks(way, found.grid_dy, found.grid_dx), table) for way in (image, 255 - image))
    return negative >= as_it_is + MORE_EXACT


def _exact_when_shifted(blocks, table):
    """The number of exact blocks, where all levels are shifted so that DC is on its lattice.

    Of the shifts that do that, the smallest down and up: one may lead out of 0..255.
    """
    step = int(table[0])
    shifts = np.arange(step)
    off = np.exp(2j * np.pi * (blocks.coefficients[:, 0, None] + BLOCK * shifts) / step)
    shift = int(np.round(off.mean(axis=0).real, 6).argmax())
    most = 0
    for levels in (shift, shift - step):
        coefficients = blocks.coefficients.copy()
        coefficients[:, 0] += BLOCK * levels
        shifted = replace(blocks, luma=blocks.luma + levels, coefficients=coefficients)
        most = max(most, int(exact_blocks(shifted, table[None])[1].sum()))
    return most
