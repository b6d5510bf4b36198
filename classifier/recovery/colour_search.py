"""Blocks of all three planes at once, where clipped pixels leave too much of each alone (4:4:4).

    levels, exact = search_colours(pixels, visible, known, planes, levels, tables)

As in block_search.py, Douglas-Rachford iterations look for a point of the lattice, of 192
coefficients, whose pixels are as they should be: known Y, Cb and Cr where no channel is clipped,
else B, G and R at their value or beyond the bound. Where the chroma allows the pixels, the luma is
searched by itself. Then the DC of Cb and Cr are moved by a few steps, in flat blocks the only
coefficients there are; the iterations are begun elsewhere; and at last, for a few blocks, single
levels are changed (colour_changes.py), and nearest planes are taken in a reduced basis of all 192
coefficients (lattice_points.py). Equal blocks are searched once.
"""
import itertools

import numpy as np

from classifier.forensics.blocks import DCT2, evenly_spaced
from classifier.recovery.block_search import MOST_BASES, find_levels
from classifier.recovery.colour_changes import active_levels, change_levels
from classifier.recovery.colours import TO_BGR, chroma_shifts, luma_bounds, to_bgr
from classifier.recovery.cut_blocks import edge_weights
from classifier.recovery.decoders import decoded
from classifier.recovery.lattice_points import dithered, nearest_plane, reduced

ROUNDS, BETA, CHECKED_EVERY = 200, 0.9, 8
SLACKS = 0.8, 0.4         # levels that rounding may move a channel: at first, in the second try
FEW = 100                 # blocks, of which the luma is searched thoroughly
STARTS, MOST_AGAIN = 24, 24   # tries with other slacks and starts, of the last blocks
NOISE, SLACK_RANGE = 4.0, (0.2, 1.0)   # levels
# Weights in nearest planes: of a channel of a pixel with another one clipped; of clipped channels
# and of pixels that are not seen; the same of blocks cut by the picture's edge (cut_blocks.py).
OF_CHANNEL, WEIGHTS = 0.7, ((0.05, 0.02), (0.2, 0.02), (0.2, 0.1), (0.02, 0.005))
OF_CUT = ((0.05, 0), (0.2, 0))
DITHERS, DITHER, ATTEMPTS, WITH_LUMA = 32, 0.3, 3, 6
MOST_CHANGED = 12         # blocks of which single levels are changed, some 0.2 s each
SAMPLE, HOPEFUL = 100, 0.8   # blocks that are searched first, and share found to search the others
MOST_NEAREST = 12         # bases reduced, some 0.2 s each; where more blocks are left, none is
MOST_EVEN = 60            # blocks with even rows or columns: some 20 ms a basis
SHIFT, THOROUGH = 4, 9    # steps by which the chroma's DC is moved at last; luma well searched for
                          # the first of these
SWEEPS = 2                # over the three channels, to meet all of their bounds


def search_colours(pixels: np.ndarray, visible: np.ndarray, known: np.ndarray, planes: np.ndarray,
                   levels: np.ndarray, tables: tuple[np.ndarray, np.ndarray, np.ndarray]
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Levels of blocks of Y, Cb and Cr together.

    Parameters
    ----------
    pixels : uint8 array, shape (n, 64, 3)
        BGR.
    visible, known : bool arrays, shape (n, 64)
        Where the picture is, and where it tells Y, Cb and Cr.
    planes : float32 array, shape (3, n, 64)
        Those of Y, Cb and Cr, less 128; guesses where they are not known.
    levels : int32 array, shape (3, n, 64)
        Those of each plane by itself.
    tables : three int arrays, shape (64,)

    Returns
    -------
    levels : int32 array, shape (3, n, 64)
    exact : bool array, shape (n,)
    """
    same = np.concatenate([pixels.reshape(len(pixels), -1), visible], axis=1)
    _, first, which = np.unique(same, axis=0, return_index=True, return_inverse=True)
    found, good = levels[:, first], np.zeros(len(first), bool)
    some = evenly_spaced(len(first), SAMPLE)
    for at in (some, np.setdiff1d(np.arange(len(first)), some)):
        if len(at) and (at is some or good[some].mean() >= HOPEFUL):
            own = first[at]
            found[:, at], good[at] = _search(pixels[own], visible[own], known[own], planes[:, own],
                                             levels[:, own], tables)
    return found[:, which.ravel()], good[which.ravel()]


def _search(pixels, visible, known, planes, levels, tables):
    """As `search_colours`, of different blocks."""
    levels, exact = _shift(pixels, visible, levels, tables, thorough=False)
    for slack in SLACKS:
        left = np.flatnonzero(~exact)
        if len(left):
            levels[:, left], exact[left] = _iterate(
                pixels[left], visible[left], known[left], planes[:, left], tables, slack)
    left = np.flatnonzero(~exact)
    if len(left):
        levels[:, left], exact[left] = _shift(pixels[left], visible[left], levels[:, left], tables,
                                              thorough=len(left) <= FEW)
    left = np.flatnonzero(~exact)
    even = np.zeros(len(exact), bool)
    even[left] = [not active_levels(pixels[block], visible[block]).all() for block in left]
    left = np.concatenate([left[even[left]][:MOST_EVEN], left[~even[left]][:MOST_AGAIN]])
    if len(left):
        again = np.tile(left, STARTS)
        rng = np.random.default_rng(0)
        starts = planes[:, again] + rng.normal(0, NOISE, (3, len(again), 64)).astype(np.float32)
        slack = rng.uniform(*SLACK_RANGE, (len(again), 1, 1)).astype(np.float32)
        found, good = _iterate(pixels[again], visible[again], known[again], planes[:, again],
                               tables, slack, starts)
        levels[:, again[good]], exact[again[good]] = found[:, good], True
    tried = left[~exact[left] & visible[left].all(axis=1)]
    for block in [*tried[even[tried]], *tried[~even[tried]][:MOST_CHANGED]]:
        starts = np.concatenate([levels[:, block][:, None], found[:, again == block]], axis=1)
        levels[:, block], exact[block] = change_levels(pixels[block], starts, tables)
    rng, left = np.random.default_rng(0), np.flatnonzero(~exact)
    odd = left[~even[left]]
    odd = odd if len(odd) <= MOST_NEAREST else odd[:0]
    for block in [*left[even[left]][:MOST_EVEN], *odd]:
        near, exact[block] = _nearest(
            pixels[block], visible[block], known[block], planes[:, block], tables, rng,
            MOST_NEAREST // max(1, len(odd)) if block in odd else MOST_NEAREST)
        levels[:, block] = near
        if not exact[block] and visible[block].all():
            levels[:, block], exact[block] = change_levels(pixels[block], near[:, None], tables)
    return levels, exact


def _nearest(pixels, visible, known, planes, tables, rng, bases):
    """Nearest planes for one block: its levels (3, 64), and whether they are exact.

    At most so many bases are reduced.
    """
    sure, seen = known[:, None], visible[:, None]
    clipped = (pixels == 0) | (pixels == 255)
    # a known pixel counts as Y, Cb and Cr, any other as B, G and R: of each, how much of the planes
    of_planes = np.where(known[:, None, None], np.eye(3), TO_BGR)
    values = np.where(sure, planes.T, np.where(seen, pixels - 128.0, planes.T @ TO_BGR.T))
    least = np.where(seen & (pixels > 0), pixels - 128.0, -np.inf)
    most = np.where(seen & (pixels < 255), pixels - 128.0, np.inf)
    steps, active = np.stack(tables), np.tile(active_levels(pixels, visible), 3)
    basis = (steps[:, :, None, None] * DCT2[None, :, :, None]
             * of_planes.transpose(2, 0, 1)[:, None]).reshape(3 * 64, -1)
    best, fewest = np.zeros((3, 64), np.int32), np.inf
    of_cut = [_of_planes(edges) for edges in zip(*(edge_weights(~visible, t) for t in tables))]
    ways = [*itertools.product(OF_CUT, of_cut), *itertools.product(WEIGHTS, [None])]
    for (of_clipped, of_unseen), beyond in ways[:bases]:
        weights = np.where(seen, np.where(sure, 1.0, np.where(clipped, of_clipped, OF_CHANNEL)),
                           of_unseen).ravel()
        weighted = basis[active] * weights
        if beyond is not None:
            weighted = np.concatenate([weighted, beyond[active]], axis=1)
        reduced_basis, aims = reduced(weighted), values
        for _ in range(ATTEMPTS):
            targets = dithered(aims.ravel(), DITHERS, DITHER, rng) * weights
            targets = np.pad(targets, ((0, 0), (0, weighted.shape[1] - targets.shape[1])))
            near = np.zeros((DITHERS, 3 * 64), np.int32)
            near[:, active] = nearest_plane(*reduced_basis, targets)
            near = near.reshape(-1, 3, 64).transpose(1, 0, 2)
            tried = to_bgr(*(decoded(part, table) for part, table in zip(near, tables)))
            off = ((tried != pixels).any(axis=2) & visible).sum(axis=1)
            first = off.argsort()[:WITH_LUMA]
            found, good = _with_luma(np.repeat(pixels[None], len(first), axis=0),
                                     np.repeat(visible[None], len(first), axis=0),
                                     near[:, first].copy(), tables, thorough=False)
            if good.any():
                return found[:, good.argmax()], True
            if off[first[0]] < fewest:
                best, fewest = near[:, first[0]], off[first[0]]
            seen_as = ((near[:, first[0]] * steps) @ DCT2).T @ TO_BGR.T
            aims = np.where(sure | seen & ~clipped, aims, seen_as.clip(least, most))
    return best, False


def _of_planes(parts):
    """A matrix of three, each for the levels of a plane."""
    rows, columns = parts[0].shape
    whole = np.zeros((3, rows, 3, columns))
    for plane, part in enumerate(parts):
        whole[plane, :, plane] = part
    return whole.reshape(3 * rows, 3 * columns)


def _iterate(pixels, visible, known, planes, tables, slack, starts=None):
    """Douglas-Rachford: levels, and which blocks are exact."""
    levels, exact = np.zeros(planes.shape, np.int32), np.zeros(len(pixels), bool)
    steps = np.stack(tables).astype(np.float32)[:, None]
    seen = visible[..., None]
    least = np.where(seen & (pixels > 0), pixels - (np.float32(128) + slack), -np.inf)
    most = np.where(seen & (pixels < 255), pixels - (np.float32(128) - slack), np.inf)
    left, z = np.arange(len(pixels)), (planes if starts is None else starts) @ DCT2.T
    for turn in range(ROUNDS):
        near = np.rint(z / steps)
        if turn % CHECKED_EVERY == 0 or turn == ROUNDS - 1:
            found, good = _with_luma(pixels[left], visible[left], near.astype(np.int32), tables,
                                     turn == ROUNDS - 1 and len(left) <= FEW)
            levels[:, left], exact[left] = found, good
            left, z, near = left[~good], z[:, ~good], near[:, ~good]
        if not len(left):
            break
        on_lattice = near * steps
        within = _within((2 * on_lattice - z) @ DCT2, planes[:, left], known[left],
                         least[left], most[left])
        z += BETA * (within @ DCT2.T - on_lattice)
    return levels, exact


def _shift(pixels, visible, levels, tables, thorough):
    """The DC of the chroma moved: levels, and which blocks are exact."""
    levels, exact = levels.copy(), np.zeros(len(pixels), bool)
    for turn, (cb, cr) in enumerate(chroma_shifts(SHIFT)):
        left = np.flatnonzero(~exact)
        tried = levels[:, left]
        tried[1, :, 0] += cb
        tried[2, :, 0] += cr
        found, good = _with_luma(pixels[left], visible[left], tried, tables,
                                 thorough and turn < THOROUGH)
        levels[:, left[good]], exact[left[good]] = found[:, good], True
        if exact.all():
            break
    return levels, exact


def _with_luma(pixels, visible, levels, tables, thorough):
    """Levels (3, n, 64) whose luma is searched where the chroma allows the pixels; which are exact.
    """
    chroma = [decoded(levels[i], tables[i]) for i in (1, 2)]
    low, high, _ = luma_bounds(pixels, *chroma)
    low, high = np.where(visible, low, 0), np.where(visible, high, 255)
    at = np.flatnonzero((low <= high).all(axis=1))
    exact = np.zeros(len(pixels), bool)
    if len(at):
        guess = decoded(levels[0, at], tables[0]).clip(low[at], high[at])
        levels[0, at], exact[at] = find_levels(low[at], high[at], guess - np.float32(128),
                                               tables[0], bases=MOST_BASES * thorough, starts=0)
    return levels, exact


def _within(values, planes, known, least, most):
    """The nearest values (3, n, 64) of Y, Cb and Cr that the pixels allow."""
    at = ~known
    clipped = values[:, at].T
    for _ in range(SWEEPS):
        for channel, weights in enumerate(TO_BGR):
            seen = clipped @ weights
            clipped += ((seen.clip(least[at][:, channel], most[at][:, channel]) - seen)
                        / (weights @ weights))[:, None] * weights
    out = values.clip(planes - np.float32(0.5), planes + np.float32(0.5))
    out[:, at] = clipped.T
    return out
