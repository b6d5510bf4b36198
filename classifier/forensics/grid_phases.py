"""Which phases of the 8x8 block grid an image's pixels look like: the 64 of them, ranked.

    for dy, dx in likely_phases(bgr_image):    # the likeliest first
        ...

Two sums over the AC coefficients of blocks at each phase rank them: how many are near zero (coarse
tables), and a sum that is the larger, the nearer those beyond 1 are to whole numbers, as steps are
whole numbers (fine tables; rounding noise leaves exp(-2 pi^2 / 12) = 0.19 of cos(2 pi c)).
"""
from collections.abc import Iterator

import numpy as np

from classifier.forensics.blocks import (
    BLOCK, CLIPPED_PIXELS, SHIFTED_DCT, clipped_pixels, cut_windows, decoder_luma, evenly_spaced,
    has_clipped)

PHASE_SIDE = 15           # px: windows with a block at each of the 64 phases
NEAR_ZERO = 0.7           # |coefficient|, 2.4 sigmas of rounding noise
TOGETHER = 32             # windows whose coefficients stay in the cache
PATCHES = 256             # windows in which the 64 phases are compared
# So many windows may show the phase already, if it is AHEAD (in standard deviations of the other
# phases) of the next. Of 180 images with a lattice, two thirds show it so, and no other phase.
FIRST, AHEAD = 48, 1.2
PHASE_BLOCKS = 1500       # blocks that the candidate phases may have in all

_SHIFTED = SHIFTED_DCT[..., :PHASE_SIDE].reshape(BLOCK * BLOCK, PHASE_SIDE)
_BOX = (SHIFTED_DCT[:, 0, :PHASE_SIDE] > 0).astype(np.float32)  # the pixels of a window's 8 blocks
_ONES = np.ones(BLOCK, np.float32)


def phase_shares(luma: np.ndarray) -> np.ndarray:
    """How much windows (n, 15, 15) uint8 look like JPEG blocks at each phase.

    Returns
    -------
    float32 array, shape (2, n, 8, 8)
        The number of coefficients near zero, which are many in coarse tables; and the sum that
        shows whole numbers.
    """
    shares = np.empty((2, len(luma), BLOCK, BLOCK), np.float32)
    for first in range(0, len(luma), TOGETHER):
        part = luma[first:first + TOGETHER].astype(np.float32) - 128
        n = len(part)
        rows = _SHIFTED @ part.transpose(1, 0, 2).reshape(PHASE_SIDE, n * PHASE_SIDE)
        c = np.abs(rows.reshape(-1, PHASE_SIDE) @ _SHIFTED.T)
        zero = (c < NEAR_ZERO).view(np.uint8)
        # a parabola in the distance in place of the cosine, which takes long
        whole = np.rint(c)
        whole -= c
        whole *= whole
        whole *= -8
        whole += 1
        whole *= c > 1
        for share, values in zip(shares, (zero, whole)):  # of dy, u, n, dx, v
            over_u = values.reshape(BLOCK, BLOCK, -1).sum(axis=1, dtype=values.dtype)
            share[first:first + n] = (over_u.reshape(-1, BLOCK).astype(np.float32) @ _ONES).reshape(
                BLOCK, n, BLOCK).swapaxes(0, 1)
    return shares


def likely_phases(image: np.ndarray) -> Iterator[tuple[int, int]]:
    """Different phases (dy, dx) of the block grid, the likeliest first.

    Small images, whose ranks are uncertain, get more candidates, up to all 64. Where a few windows
    show one phase clearly, it comes first, and the others are compared only if they are asked for.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
    """
    *_, windows = cut_windows(image, 0, 0, PHASE_SIDE, 2 * PATCHES)
    valid = np.ones((len(windows), BLOCK, BLOCK), bool)  # of n, dy, dx
    some = np.flatnonzero(has_clipped(windows))
    clipped = clipped_pixels(windows[some]).astype(np.float32)
    valid[some] = _BOX @ clipped @ _BOX.T <= CLIPPED_PIXELS / 2
    luma = decoder_luma(windows)
    useful = np.flatnonzero(valid.any(axis=(1, 2))
                            & (np.ptp(luma.reshape(len(luma), PHASE_SIDE ** 2), axis=1) > 1))
    useful = useful[evenly_spaced(len(useful), PATCHES)]
    if not len(useful):
        yield 0, 0
        return
    luma, valid = luma[useful], valid[useful]
    clear, shares = None, np.empty((2, len(luma), BLOCK, BLOCK), np.float32)
    some = evenly_spaced(len(luma), FIRST)
    rest = np.setdiff1d(np.arange(len(luma)), some, assume_unique=True)
    shares[:, some] = phase_shares(luma[some])
    if len(luma) == PATCHES:
        clear = _clear_phase(_means(shares[:, some], valid[some]))
        if clear is not None:
            yield divmod(clear, BLOCK)
    shares[:, rest] = phase_shares(luma[rest])
    ranks = np.argsort(-_means(shares, valid), axis=1)
    most = max(4, min(64, PHASE_BLOCKS // (len(windows) + 1)))
    different = list(dict.fromkeys(ranks.T.ravel().tolist()))
    yield from (divmod(phase, BLOCK) for phase in different[:most] if phase != clear)


def _means(shares, valid):
    """Means over the windows whose block at a phase is valid: (2, 64), -1 where none is."""
    count = valid.sum(axis=0)
    means = np.where(count, (shares * valid).sum(axis=1) / np.maximum(count, 1), -1)
    return means.reshape(2, BLOCK * BLOCK)


def _clear_phase(means):
    """The phase 0..63 that is AHEAD of all others by either of its means (2, 64); None: no such."""
    ordered = np.sort(means, axis=1)
    ahead = (ordered[:, -1] - ordered[:, -2]) / np.maximum(ordered[:, :-1].std(axis=1), 1e-6)
    best = int(ahead.argmax())
    return int(means[best].argmax()) if ahead[best] >= AHEAD else None
