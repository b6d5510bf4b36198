"""The coefficients of a subsampled chroma plane, from bounds on its upsampled pixels.

    levels = find_chroma(bounds, layout, halved, table)    # 4:2:0: halved = (True, True)

Least squares undo the upsampling of the whole plane; the DCT of each block, rounded, is mostly
right. Blocks whose pixels are not within their bounds then are searched one by one, with what
surrounds them as it is: a block's samples weigh in its own pixels and in one row or column of its
neighbours' on each side. Douglas-Rachford iterations as in block_search.py come first, nearest
planes second; what leaves fewer pixels out of bounds is kept. As neighbours change, that is done a
few times.

Sources: those of block_search.py and upsampling.py.
"""
import numpy as np

from classifier.forensics.blocks import BLOCK, DCT2
from classifier.forensics.inverse_dct import inverse_dct
from classifier.recovery.colours import Bounds
from classifier.recovery.lattice_points import nearest_plane, reduced
from classifier.recovery.layout import Layout, from_blocks, to_blocks
from classifier.recovery.upsampling import downsampled, gathered, spread, upsampled

INSIDE = 2.0              # levels from the bounds that a guess keeps
PASSES = 2                # over all ways
CHANGED, MOST_CHANGED = 12, 128   # coefficients, and blocks at once
ROUNDS, BETA, CHECKED_EVERY = 120, 0.9, 5
INNER, STEP = 3, 0.3      # gradient steps in place of the exact projection
SLACK = 0.6               # levels that rounding moves an upsampled pixel
UNKNOWN, HALF_KNOWN = (0.02, 0.003), 0.1   # weights, in nearest planes, of samples and of pixels
                          # that are not known exactly
DITHERS, DITHER = 6, 0.3  # targets tried, levels
MOST_MASKS, MOST_BASES = 16, 16           # reduced at a time, some 50 ms each
PATCH = BLOCK + 2         # a block and a sample on each side


def find_chroma(bounds: Bounds, layout: Layout, halved: tuple[bool, bool],
                table: np.ndarray, thorough: bool = True) -> np.ndarray:
    """Levels of all blocks of a plane, (n, 64) int32, as near to the pixels as was found.

    Parameters
    ----------
    bounds : Bounds
        Of the pixels of the file, shape (m, n) with the file's size; 0..255 outside the image.
    layout : Layout
        Of the coded plane.
    halved : (vertical, horizontal)
    table : int array, shape (64,)
    thorough : bool
        Otherwise only single changes are tried.
    """
    even = [(0, length % 2 * half) for length, half in zip(bounds.low.shape, halved)]
    low, high, guess = (np.pad(plane, even, constant_values=fill)
                        for plane, fill in zip(bounds, (0, 255, 0)))
    width = high.astype(np.float32) - low
    inside = np.minimum(width / 2, INSIDE)  # a bound itself is the least likely
    guess = np.pad(bounds.guess, even, mode='edge').clip(
        low + inside - 128, high - inside - 128)
    coded = downsampled(guess, 1 / np.square(1 + width), halved)
    levels = np.rint(to_blocks(layout.pad(coded, mode='edge')) @ DCT2.T / table).astype(np.int32)
    search = _Search(low, high, layout, halved, table)
    off = search.off(levels)
    seen = to_blocks(layout.pad(gathered((low > 0) | (high < 255), halved) > 0.1,
                                constant_values=False))
    for unknown in UNKNOWN if thorough else ():
        levels, off = search.better(levels, off, search.beyond(levels, coded, seen, unknown))
    ways = search.change, search.change, search.iterate, search.change, search.nearest
    for way in PASSES * ways if thorough else ways[:1]:
        bad = np.flatnonzero(off)
        if not len(bad):
            break
        tried = levels.copy()
        way(tried, bad)
        levels, off = search.better(levels, off, tried)
    return levels


class _Search:
    """Blocks of one plane whose upsampled pixels are out of bounds."""

    def __init__(self, low, high, layout, halved, table):
        self.low, self.high, self.halved, self.table = low, high, halved, table
        self.layout, self.steps = layout, table.astype(np.float32)
        self.unit = [BLOCK * (1 + half) for half in halved]
        rows, columns = layout.blocks
        row, column = np.divmod(np.arange(rows * columns), columns)
        self.row, self.column, self.colour = row, column, row % 2 * 2 + column % 2

    def coded(self, levels):
        """The plane that levels decode to."""
        plane = from_blocks(inverse_dct(levels * self.table), self.layout.blocks)
        return plane[:self.layout.height, :self.layout.width]

    def off(self, levels):
        """How many pixels are out of bounds that a block weighs in, for each block."""
        full = upsampled(self.coded(levels), self.halved)
        off = (full < self.low) | (full > self.high)
        rows, columns = self.layout.blocks
        near = np.zeros((rows * self.unit[0] + 2, columns * self.unit[1] + 2), np.int32)
        near[1:1 + off.shape[0], 1:1 + off.shape[1]] = off
        for axis, unit in enumerate(self.unit):
            index = np.arange(0, near.shape[axis] - 2, unit)
            sums = np.add.reduceat(np.delete(near, [0, near.shape[axis] - 1], axis), index, axis)
            ends = [near.take(index + n, axis) for n in (0, unit + 1)] if self.halved[axis] else []
            near = sum(ends, sums)
        return near.ravel()

    def beyond(self, levels, coded, seen, unknown):
        """Nearest planes for blocks with samples (n, 64) that no pixel shows: new levels."""
        levels = levels.copy()
        masks, which = np.unique(seen, axis=0, return_inverse=True)
        which, aims = which.ravel(), to_blocks(self.layout.pad(coded, mode='edge'))
        for mask in np.argsort(-np.bincount(which))[:MOST_MASKS]:
            if masks[mask].any() and not masks[mask].all():
                at, weights = np.flatnonzero(which == mask), np.where(masks[mask], 1.0, unknown)
                basis = reduced(self.table[:, None] * DCT2 * weights)
                levels[at] = nearest_plane(*basis, aims[at] * weights)
        return levels

    def better(self, levels, off, tried):
        """Levels, some replaced by others where those leave fewer pixels out of bounds; `off`."""
        changed = (tried != levels).any(axis=1)
        for part in range(4):  # neighbours that change at once may hinder each other
            at = np.flatnonzero(changed & (self.colour == part) & (off > 0))
            if not len(at):
                continue
            mixed = levels.copy()
            mixed[at] = tried[at]
            now = self.off(mixed)
            worse = at[now[at] > off[at]]
            mixed[worse] = levels[worse]
            levels, off = mixed, self.off(mixed)
        return levels, off

    def _groups(self, blocks):
        """Yields blocks with the same edges of the plane, and what samples they have: weights.

        Their pixels are `patch @ weights.T`, of a patch (10, 10) row by row, in levels.
        """
        ends = [(np.maximum(1 - BLOCK * at, 0), np.minimum(length - BLOCK * at, PATCH - 1))
                for at, length in ((self.row[blocks], self.layout.height),
                                   (self.column[blocks], self.layout.width))]
        kinds = np.stack([*ends[0], *ends[1]], axis=1)
        for kind in np.unique(kinds, axis=0):
            axes = [_axis_weights(*kind[2 * axis:2 * axis + 2], self.halved[axis])
                    for axis in (0, 1)]
            yield blocks[(kinds == kind).all(axis=1)], np.kron(*axes)

    def _patches(self, levels, blocks):
        """Around blocks: coded samples (n, 100) less 128; bounds of the pixels, (n, m) each."""
        plane = np.pad(self.coded(levels), 1, mode='edge').astype(np.float32) - 128
        plane = np.pad(plane, ((0, BLOCK), (0, BLOCK)))
        pixels = [np.arange(-half, BLOCK * (1 + half) + half) for half in self.halved]

        def cut(source, y, x):
            return source[y[:, :, None], x[:, None, :]].reshape(len(blocks), -1)

        patch = cut(plane, BLOCK * self.row[blocks, None] + np.arange(PATCH),
                    BLOCK * self.column[blocks, None] + np.arange(PATCH))
        y, x = (at[blocks, None] * unit + pixel + 1 for at, unit, pixel in zip(
            (self.row, self.column), self.unit, pixels))
        size = [count * unit + 2 for count, unit in zip(self.layout.blocks, self.unit)]
        found = []
        for bound, fill in ((self.low, 0), (self.high, 255)):
            whole = np.full(size, fill, np.uint8)
            whole[1:1 + bound.shape[0], 1:1 + bound.shape[1]] = bound
            found.append(cut(whole, y, x))
        return patch, *found

    def _limits(self, low, high):
        """Bounds before rounding."""
        return (np.where(low > 0, low - np.float32(128 + SLACK), -np.inf).astype(np.float32),
                np.where(high < 255, high - np.float32(128 - SLACK), np.inf).astype(np.float32))

    def _off_of(self, samples, around, weights, low, high):
        """How many pixels of patches are out of bounds, with these samples (k, n, 64), less 128.

        `around` is what the samples around a block give, (n, m).
        """
        own = weights[:, OWN.ravel()].astype(np.float32)
        unit = 4 ** np.count_nonzero(self.halved)
        columns = np.arange(weights.shape[0]) % (2 * BLOCK + 2)  # from -1 on
        bias = np.where(columns % 2, *((8, 7) if unit == 16 else (1, 2))).astype(np.float32)
        full = np.floor(around + samples @ own.T + bias / unit)
        return ((full < low - np.float32(128)) | (full > high - np.float32(128))).sum(axis=-1)

    def change(self, levels, blocks):
        """Single changes by a step; the levels of these blocks are replaced by the best."""
        coefficients = np.argsort(self.table, kind='stable')[:CHANGED]
        signs = np.repeat([1, -1], CHANGED)
        for group, weights in self._groups(blocks):
            patch, low, high = self._patches(levels, group)
            around = patch.copy()
            around[:, OWN.ravel()] = 0
            around = around @ weights.T.astype(np.float32)
            for part in range(0, len(group), MOST_CHANGED):
                at = slice(part, part + MOST_CHANGED)
                tried = np.repeat(levels[group[at]][None], 2 * CHANGED + 1, axis=0)
                tried[np.arange(2 * CHANGED), :, np.tile(coefficients, 2)] += signs[:, None]
                samples = inverse_dct((tried * self.table).reshape(-1, BLOCK * BLOCK))
                samples = samples.reshape(tried.shape).astype(np.float32) - 128
                off = self._off_of(samples, around[at], weights, low[at], high[at])
                levels[group[at]] = tried[off.argmin(axis=0), np.arange(off.shape[1])]

    def iterate(self, levels, blocks):
        """Douglas-Rachford; the levels of these blocks are replaced by the best that were seen."""
        for group, weights in self._groups(blocks):
            patch, low, high = self._patches(levels, group)
            least, most = self._limits(low, high)
            own = OWN.ravel()
            of_block = weights[:, own].astype(np.float32)
            around = patch.copy()
            around[:, own] = 0
            around = around @ weights.T.astype(np.float32)
            least, most = least - around, most - around
            z, fewest = patch[:, own] @ DCT2.T, np.full(len(group), 1 << 20)
            left = np.arange(len(group))
            for turn in range(ROUNDS):
                near = np.rint(z / self.steps)
                on_lattice = near * self.steps
                if turn % CHECKED_EVERY == 0:
                    samples = np.rint(on_lattice @ DCT2).clip(-128, 127)
                    off = self._off_of(samples, around[left], weights, low[left], high[left])
                    better = off < fewest[left]
                    levels[group[left[better]]] = near[better]
                    fewest[left[better]] = off[better]
                    keep = off > 0
                    left, z, on_lattice = left[keep], z[keep], on_lattice[keep]
                    if not len(left):
                        break
                within = (2 * on_lattice - z) @ DCT2
                for _ in range(INNER):
                    pixels = within @ of_block.T
                    within += STEP * (pixels.clip(least[left], most[left]) - pixels) @ of_block
                z += BETA * (within @ DCT2.T - on_lattice)

    def nearest(self, levels, blocks):
        """Nearest planes; the levels of these blocks are replaced by the best of some."""
        rng, bases, own = np.random.default_rng(0), 0, OWN.ravel()
        for group, weights in self._groups(blocks):
            patch, low, high = self._patches(levels, group)
            around = patch.copy()
            around[:, own] = 0
            around = around @ weights.T.astype(np.float32)
            now = around + patch[:, own] @ weights[:, own].T
            targets = now.clip(low - 128.0, high - 128.0) - around
            sure = np.where(low == high, 1.0, np.where((low > 0) | (high < 255), HALF_KNOWN, 0.0))
            kinds, which = np.unique(sure, axis=0, return_inverse=True)
            which = which.ravel()
            for kind in np.argsort(-np.bincount(which)):
                at = np.flatnonzero(which == kind)
                fewest = np.full(len(at), 1 << 20)
                for unknown in UNKNOWN:
                    bases += 1
                    if bases > MOST_BASES or not fewest.any():
                        break
                    rows = np.concatenate([kinds[kind][:, None] * weights[:, own],
                                           unknown * np.eye(BLOCK * BLOCK)])
                    aims = np.repeat(targets[at][None], DITHERS, axis=0)
                    aims[1:] += rng.uniform(-DITHER, DITHER, aims[1:].shape)
                    aims = np.concatenate([aims * kinds[kind], np.broadcast_to(
                        unknown * patch[at][:, own], (DITHERS, len(at), BLOCK * BLOCK))], axis=2)
                    q, r = np.linalg.qr(rows)
                    near = nearest_plane(*reduced(self.table[:, None] * (DCT2 @ r.T)),
                                         aims.reshape(-1, aims.shape[2]) @ q)
                    near = near.reshape(DITHERS, len(at), BLOCK * BLOCK)
                    samples = inverse_dct((near * self.table).reshape(-1, BLOCK * BLOCK))
                    off = self._off_of(samples.reshape(near.shape).astype(np.float32) - 128,
                                       around[at], weights, low[at], high[at])
                    best, of_each = off.argmin(axis=0), np.arange(len(at))
                    better = off[best, of_each] < fewest
                    levels[group[at[better]]] = near[best, of_each][better]
                    fewest[better] = off[best, of_each][better]


OWN = np.zeros((PATCH, PATCH), bool)
OWN[1:-1, 1:-1] = True


def _axis_weights(first, last, halved):
    """Weights (pixels, 10) of the samples -1..8 in a block's pixels along an axis.

    Of the patch's samples, those before `first` and after `last` repeat it.
    """
    if not halved:
        return np.eye(PATCH)[1:-1]
    pixel = np.arange(-1, 2 * BLOCK + 1)
    near = pixel // 2 + 1
    weights = np.zeros((len(pixel), PATCH))
    for index, weight in ((near, 0.75), (near + np.where(pixel % 2, 1, -1), 0.25)):
        np.add.at(weights, (np.arange(len(pixel)), index.clip(first, last)), weight)
    return weights
