"""The coefficients of a subsampled chroma plane, from bounds on its upsampled pixels.

    levels = find_chroma(bounds, layout, halved, table)    # 4:2:0: halved = (True, True)

Least squares undo the upsampling of the whole plane; the DCT of each block, rounded, is mostly
right. Blocks whose pixels are not within their bounds then are searched one by one, with what
surrounds them as it is: a block's samples weigh in its own pixels and in one row or column of its
neighbours' on each side. Single changes by a step come first, then Douglas-Rachford iterations as
in block_search.py, then the nearest lattice points; what leaves fewer pixels out of bounds is kept.
As neighbours change, some are done again.

Sources: those of block_search.py and upsampling.py.
"""
import numpy as np

from classifier.forensics.blocks import BLOCK, DCT2
from classifier.recovery.chroma_blocks import OWN, ChromaBlocks
from classifier.recovery.colours import Bounds, before_rounding
from classifier.recovery.cut_blocks import repeated_edge
from classifier.recovery.decoders import loss
from classifier.recovery.lattice_points import nearest_plane, nearest_points, reduced
from classifier.recovery.layout import Layout, to_blocks
from classifier.recovery.upsampling import downsampled, gathered, upsampled

INSIDE = 2.0              # levels from the bounds that a guess keeps
CHANGED, MOST_CHANGED = 12, 128   # coefficients, and blocks at once
ROUNDS, BETA, CHECKED_EVERY = 120, 0.9, 5
INNER, STEP = 3, 0.3      # gradient steps in place of the exact projection
SLACK = 0.6               # levels that rounding moves an upsampled pixel
UNKNOWN, HALF_KNOWN = (0.02, 0.003), 0.1   # weights, for nearest points, of samples and of pixels
                          # that are not known exactly
CUT = 0.35, 0.1           # the same of what repeats the picture's edge
POINTS = 256              # that are tried
BEYOND = 0.02, 0.006, 0.002, 0.0005   # weights of samples that no pixel shows
DITHER = 0.3              # levels
MOST_MASKS, MOST_BASES = 16, 16           # reduced at a time, some 30 ms each


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
    low, high, guess = bounds.pad(even)
    width = high.astype(np.float32) - low
    inside = np.minimum(width / 2, INSIDE)  # a bound itself is the least likely
    # what may be without colour, such as pure white, is so most likely
    gray = (low <= 128) & (high >= 128)
    least, most = low + inside - 128, high - inside - 128
    guess = guess.clip(np.where(gray, np.minimum(least, 0), least),
                       np.where(gray, np.maximum(most, 0), most))
    coded = downsampled(guess, 1 / np.square(1 + width), halved)
    coded += np.float32(loss())
    levels = np.rint(to_blocks(layout.pad(coded, mode='edge')) @ DCT2.T / table).astype(np.int32)
    search = _Search(low, high, layout, halved, table)
    off = search.off(levels)
    seen = to_blocks(layout.pad(gathered((low > 0) | (high < 255), halved) > 0.1,
                                constant_values=False))
    for unknown in np.repeat(BEYOND, 2) if thorough else ():
        at = np.flatnonzero((off > 0) & ~seen.all(axis=1))
        if len(at):
            aims = coded + search.rng.uniform(-DITHER, DITHER, coded.shape)
            levels, off = search.better(levels, off, search.beyond(
                levels, aims, seen, unknown, at))
    ways = (search.change, search.change, search.iterate, search.change, search.nearest,
            search.change, search.nearest)
    ways = ways if thorough else ways[:1]
    for way in ways:
        bad = np.flatnonzero(off)
        if not len(bad):
            break
        tried = levels.copy()
        way(tried, bad)
        levels, off = search.better(levels, off, tried)
    return levels


class _Search(ChromaBlocks):
    """Blocks of one plane whose upsampled pixels are out of bounds."""

    def __init__(self, low, high, layout, halved, table):
        super().__init__(layout, halved, table)
        self.low, self.high, self.steps = low, high, table.astype(np.float32)
        self.rng = np.random.default_rng(0)

    def off(self, levels):
        """How many pixels are out of bounds that a block weighs in, for each block."""
        full = upsampled(self.coded(levels), self.halved)
        return self.sums((full < self.low) | (full > self.high))

    def beyond(self, levels, coded, seen, unknown, blocks):
        """Nearest planes for blocks with samples, not `seen`, that no pixel shows: new levels."""
        levels = levels.copy()
        masks, which = np.unique(seen[blocks], axis=0, return_inverse=True)
        which, aims = which.ravel(), to_blocks(self.layout.pad(coded, mode='edge'))
        for mask in np.argsort(-np.bincount(which))[:MOST_MASKS]:
            if masks[mask].any():
                at, weights = blocks[which == mask], np.where(masks[mask], 1.0, unknown)
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

    def _surroundings(self, levels, blocks, weights):
        """Samples of blocks, less 128; what those around give; bounds of the pixels."""
        return (*self.surroundings(levels, blocks, weights), self.pixels(self.low, blocks, 0),
                self.pixels(self.high, blocks, 255))

    def _off_of(self, samples, around, weights, low, high):
        """How many pixels of patches are out of bounds, with these samples (k, n, 64), less 128."""
        full = self.upsampled(samples, around, weights)
        return ((full < low - np.float32(128)) | (full > high - np.float32(128))).sum(axis=-1)

    def change(self, levels, blocks):
        """Single changes by a step; the levels of these blocks are replaced by the best."""
        coefficients = np.argsort(self.table, kind='stable')[:CHANGED]
        signs = np.repeat([1, -1], CHANGED)
        for group, weights in self.groups(blocks):
            _, around, low, high = self._surroundings(levels, group, weights)
            for part in range(0, len(group), MOST_CHANGED):
                at = slice(part, part + MOST_CHANGED)
                tried = np.repeat(levels[group[at]][None], 2 * CHANGED + 1, axis=0)
                tried[np.arange(2 * CHANGED), :, np.tile(coefficients, 2)] += signs[:, None]
                off = self._off_of(self.samples(tried), around[at], weights, low[at], high[at])
                levels[group[at]] = tried[off.argmin(axis=0), np.arange(off.shape[1])]

    def iterate(self, levels, blocks):
        """Douglas-Rachford; the levels of these blocks are replaced by the best that were seen."""
        for group, weights in self.groups(blocks):
            samples, around, low, high = self._surroundings(levels, group, weights)
            least, most = (limit - around for limit in before_rounding(low, high, SLACK))
            of_block = weights[:, OWN]
            z, fewest = samples @ DCT2.T, np.full(len(group), 1 << 20)
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
        """Lattice points near the bounds; the levels of these blocks are replaced by the best."""
        bases = 0
        for group, weights in self.groups(blocks):
            own, around, low, high = self._surroundings(levels, group, weights)
            now = around + own @ weights[:, OWN].T
            targets = now.clip(low - 128.0, high - 128.0) - around
            sure = np.where(low == high, 1.0, np.where((low > 0) | (high < 255), HALF_KNOWN, 0.0))
            cut = self.seen_of(group[0])
            kinds, which = np.unique(sure, axis=0, return_inverse=True)
            which = which.ravel()
            for kind in np.argsort(-np.bincount(which)):
                at = np.flatnonzero(which == kind)
                fewest = np.full(len(at), 1 << 20)
                for rows, aims in self._of_samples(cut, own[at]):
                    bases += 1
                    if bases > MOST_BASES or not fewest.any():
                        break
                    q, r = np.linalg.qr(np.concatenate([kinds[kind][:, None] * weights[:, OWN],
                                                        rows]))
                    aims = np.concatenate([targets[at] * kinds[kind], aims], axis=1)
                    near = nearest_points(*reduced(self.table[:, None] * (DCT2 @ r.T)), aims @ q,
                                          POINTS)
                    off = self._off_of(self.samples(near), around[at], weights, low[at],
                                       high[at])
                    best, of_each = off.argmin(axis=0), np.arange(len(at))
                    better = off[best, of_each] < fewest
                    levels[group[at[better]]] = near[best, of_each][better]
                    fewest[better] = off[best, of_each][better]

    def _of_samples(self, seen, own):
        """What is known of samples besides the pixels: rows (64, 64), and their aims (n, 64).

        That a block cut by the picture's edge repeats it; else, weakly, the samples as they are.
        """
        if min(seen) < BLOCK:
            for weight in CUT:
                yield weight * repeated_edge(*seen, self.table), np.zeros_like(own)
        else:
            for weight in UNKNOWN:
                yield weight * np.eye(BLOCK * BLOCK), weight * own
