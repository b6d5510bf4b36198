"""Cb and Cr block by block, from blocks that are certain into areas that are not (4:2:2, 4:2:0).

    fronts = ChromaFronts(image, visible, blocks, luma_table)
    (cb, cr), luma = fronts.solve([cb, cr], luma)

Where a channel is clipped, many pairs of Cb and Cr explain a pixel nearly as well, and those of a
flat area differ by some steps of both DC and at times of one AC coefficient. The pixels of a block
tell them apart if its neighbours, which weigh in its outermost pixels, are right. So blocks are
solved in the order of how many of their neighbours are; pixels in which unsolved ones weigh do not
count. Of a block, pairs of changed levels are tried: those that leave the luma the fewest
contradictions, then, of these, those with which it comes nearest to its own lattice. Where blocks
stay wrong, their neighbours, which may agree on the wrong pair, are solved again with them.
"""
from dataclasses import dataclass

import cv2
import numpy as np

from classifier.forensics.blocks import BLOCK, DCT2, decoder_luma
from classifier.recovery.block_search import find_levels
from classifier.recovery.chroma_blocks import OWN, ChromaBlocks
from classifier.recovery.chroma_changes import FREE, best_pairs, changes, given_other
from classifier.recovery.colours import luma_bounds, luma_limits
from classifier.recovery.cut_blocks import repeated_edge
from classifier.recovery.decoders import decoded
from classifier.recovery.layout import Layout, to_blocks
from classifier.recovery.upsampling import upsampled

TURNS = 10                # in each, one more ring of neighbours is solved again
STUCK = 2                 # turns that did not help, one after the other; then that is all
MOST_SOLVED = 100, 1 / 16   # blocks in all: some 5 ms each; and of all blocks
SPARSE = 16, 100          # pixels of a block by which pairs are chosen, at first and then
CHOSEN = 32               # pairs that are chosen
WITH_LUMA, LUMA_ROUNDS = 4, 60   # of which luma is searched, and how long
LUMA_BASES, CUT_BASES = 8, 2   # that may be reduced to find luma: of all, of cut blocks
MORE = 32                 # blocks of which one plane is searched, given the other: 0.02 s each


@dataclass(frozen=True)
class _Patch:
    """The pixels in which a block weighs: (m,) each."""
    pixels: np.ndarray       # (3, m) int32, BGR
    luma: np.ndarray         # as the pixels have it
    visible: np.ndarray
    sure: np.ndarray         # what other blocks give to them is certain
    weights: np.ndarray      # of the samples around, (m, 100)
    others: list[np.ndarray]  # what others give to Cb and Cr

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Of B, G and R before clipping, (3, m) each."""
        return (np.where(self.sure & (self.pixels > 0), self.pixels, -FREE),
                np.where(self.sure & (self.pixels < 255), self.pixels, FREE))


class ChromaFronts:
    """The blocks of Cb and Cr of an image.

    Parameters
    ----------
    image : uint8 array, shape (m, n, 3)
        BGR pixels of the file; what the image does not show is 0.
    visible : bool array, shape (m, n)
    blocks : ChromaBlocks
        Of either plane.
    luma_table : int array, shape (64,)
    """

    def __init__(self, image: np.ndarray, visible: np.ndarray, blocks: ChromaBlocks,
                 luma_table: np.ndarray):
        self.image, self.visible, self.blocks, self.luma_table = image, visible, blocks, luma_table
        self.planes = [blocks.surrounded(plane, 0) for plane in (
            *np.moveaxis(image, -1, 0), decoder_luma(image[None])[0], visible)]
        clipped = ((image == 0) | (image == 255)).any(axis=2) & visible
        self.clipped = blocks.inner_sums(clipped) > 0
        self.more = MORE
        # of a patch's pixels, those of the block itself
        own = [np.pad(np.ones(unit, bool), int(half))
               for unit, half in zip(blocks.unit, blocks.halved)]
        self.own = np.flatnonzero(np.outer(*own))

    def solve(self, levels: list[np.ndarray], luma: np.ndarray
              ) -> tuple[list[np.ndarray], np.ndarray]:
        """Levels of Cb and Cr, (n, 64) each, with which more pixels come out right; those of luma.

        `luma` holds the levels found so far, which blocks keep where they still fit.
        """
        levels = [plane.copy() for plane in levels]
        best, fewest, since, ring = (levels, luma), np.inf, 0, 0
        wrong, luma = self._wrong(levels, luma, 0)
        left = MOST_SOLVED[0] + int(MOST_SOLVED[1] * len(self.blocks.row))
        for turn in range(TURNS + 1):
            bad = self.blocks.inner_sums(wrong) > 0
            number = np.count_nonzero(bad)
            since = 0 if number < fewest else since + 1
            if number < fewest:
                best, fewest = ([plane.copy() for plane in levels], luma), number
            if not number or since > STUCK or number > left or turn == TURNS:
                break
            near = bad | self._near(bad, ring) & self.clipped
            if turn % 2:     # the blocks may be right, and the next ones wrong where none sees it
                near = self._near(bad, 1) & ~bad
            if np.count_nonzero(near) > left:
                near = bad
            left -= np.count_nonzero(near)
            self._sweep(levels, near)
            ring += turn % 2
            wrong, luma = self._wrong(levels, luma, LUMA_BASES)
        return best

    def _near(self, blocks, ring):
        """Which blocks are up to `ring` blocks away from some: bool (n,)."""
        size = [2 * ring * half + 1 for half in self.blocks.halved]   # where they are coupled
        near = cv2.dilate(blocks.reshape(self.blocks.layout.blocks).astype(np.uint8),
                          np.ones(size, np.uint8))
        return near.ravel() > 0

    def _sweep(self, levels, left):
        """Solve some blocks, bool (n,), those with the most certain neighbours first."""
        rows, columns = self.blocks.layout.blocks
        certain, left = ~left, left.copy()
        coded = [self.blocks.coded(plane) for plane in levels]
        while left.any():
            around = cv2.boxFilter(certain.reshape(rows, columns).astype(np.float32), -1, (3, 3),
                                   normalize=False, borderType=cv2.BORDER_REPLICATE).ravel()
            first = np.flatnonzero(left & (around >= around[left].max() - 0.5))
            colour = np.bincount(self.blocks.colour[first]).argmax()
            at = first[self.blocks.colour[first] == colour]
            for group, weights in self.blocks.groups(at):
                others = [np.where(OWN, 0, self.blocks.patches_of(plane, group)) @ weights.T
                          for plane in coded]
                sure = self._sure(certain, group, weights)
                for i, block in enumerate(group):
                    certain[block] = self._solve(levels, block, weights,
                                                 [part[i] for part in others], sure[i], certain)
                    for plane, of_plane in zip(coded, levels):
                        self._decode(plane, of_plane, block)
            left[at] = False

    def _decode(self, coded, levels, block):
        """Put the samples of one block into the coded plane."""
        at = tuple(slice(BLOCK * of[block], BLOCK * (of[block] + 1))
                   for of in (self.blocks.row, self.blocks.column))
        samples = decoded(levels[block][None], self.blocks.table).reshape(BLOCK, BLOCK)
        seen = coded[at]
        seen[:] = samples[:seen.shape[0], :seen.shape[1]]

    def _sure(self, certain, blocks, weights):
        """Pixels of patches in which no uncertain block weighs but their own: bool (n, m)."""
        layout = self.blocks.layout
        unsure = ~certain.reshape(layout.blocks).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
        patch = self.blocks.patches_of(unsure[:layout.height, :layout.width], blocks) + 128
        return np.where(OWN, 0, patch) @ weights.T == 0

    def _solve(self, levels, block, weights, others, sure, certain):
        """Change the levels of one block to the best that is found; whether all fits then."""
        *pixels, luma, visible = (self.blocks.pixels_of(plane, np.array([block]))[0]
                                  for plane in self.planes)
        patch = _Patch(np.stack(pixels).astype(np.int32), luma, visible, sure & visible, weights,
                       others)
        if not patch.sure.any():
            return False
        around = self._beside(block, certain)
        ways = [changes(plane[block], plane[around, 0].mean()) for plane in levels]
        found, exact = self._choose(patch, ways, 0)
        if not exact and self.more > 0:
            self.more -= 1
            for plane, way in enumerate(ways):
                given = self._given(patch, plane, found, block)
                ways[plane] = tuple(np.concatenate(part) for part in zip(way, (
                    given, np.count_nonzero(given[:, 1:], axis=1), np.ones(len(given), int))))
            found, exact = self._choose(patch, ways, CUT_BASES)
        for plane, of_plane in zip(levels, found):
            plane[block] = of_plane
        return exact

    def _beside(self, block, certain):
        """The certain blocks around one; if there is none, itself."""
        rows, columns = self.blocks.layout.blocks
        row, column = np.divmod(block, columns)
        near = [r * columns + c for r, c in ((row - 1, column), (row + 1, column),
                                             (row, column - 1), (row, column + 1))
                if 0 <= r < rows and 0 <= c < columns and certain[r * columns + c]]
        return near or [block]

    def _given(self, patch, plane, levels, block):
        """Levels of one plane that suit the other."""
        samples = [self.blocks.samples(part[None, None]) for part in levels]
        other = self.blocks.upsampled(samples[1 - plane], patch.others[1 - plane][None],
                                      patch.weights)[0, 0]
        seen = self.blocks.seen_of(block)
        prior = repeated_edge(*seen, self.blocks.table) if min(seen) < BLOCK else None
        return given_other(plane, other, samples[plane][0, 0], patch.others[plane], *patch.bounds,
                           patch.weights, self.blocks.table, prior)

    def _choose(self, patch, ways, bases):
        """Of the changes of Cb and Cr, the best pair: levels of both, and whether all fits."""
        values = [self.blocks.upsampled(self.blocks.samples(way[:, None]), around[None],
                                        patch.weights)[:, 0].astype(np.int32)
                  for (way, _, _), around in zip(ways, patch.others)]
        least, most = patch.bounds
        sure = np.flatnonzero(patch.sure)
        few = sure[::max(1, len(sure) // SPARSE[0])]
        cb, cr, cost = best_pairs([part[:, few] for part in values], least[:, few], most[:, few],
                                  ways)
        few = sure[::max(1, len(sure) // SPARSE[1])]
        low, high = luma_limits(patch.pixels[:, few], values[0][cb[:, None], few] + 128,
                                values[1][cr[:, None], few] + 128)
        off = np.maximum(low - high, 0).sum(axis=1) + cost
        best = np.append(0, 1 + off[1:].argsort(kind='stable')[:CHOSEN])
        cb, cr, cost = cb[best], cr[best], cost[best]
        low, high = luma_limits(patch.pixels, values[0][cb] + 128, values[1][cr] + 128, patch.sure)
        off = np.square(np.maximum(low - high, 0)).sum(axis=1)
        low, high = self._luma(low), self._luma(high)    # (k, blocks, 64)
        guess = self._luma(patch.luma[None]).clip(low, high) - np.float32(128)
        guess = np.where(low > high, (low + high) / np.float32(2) - 128, guess)
        lattice = np.rint(guess @ DCT2.T / self.luma_table)
        decoded = (lattice * self.luma_table).astype(np.float32) @ DCT2
        beyond = decoded - decoded.clip(low - np.float32(128.6), high - np.float32(127.4))
        score = off + np.square(beyond).sum(axis=(1, 2)) + cost
        order = np.append(0, score.argsort(kind='stable')[:WITH_LUMA])   # 0: no change
        whole = self._luma(patch.visible[None]).all()
        low, high = low[order], high[order]
        possible = np.flatnonzero((low <= high).all(axis=2).ravel())
        low, high, guess = (part.reshape(-1, BLOCK * BLOCK)[possible]
                            for part in (low, high, guess[order]))
        good = np.zeros((len(order), beyond.shape[1]), bool)
        good.ravel()[possible] = find_levels(
            low.clip(0, 255).astype(np.uint8), high.clip(0, 255).astype(np.uint8), guess,
            self.luma_table, LUMA_ROUNDS, 0 if whole else bases)[1]
        exact = good.all(axis=1) & (off[order] == 0)
        last = np.where(exact, cost[order], score[order] * whole)
        first = np.lexsort((last, (~good).sum(axis=1), off[order]))[0]
        best = order[first]
        return (ways[0][0][cb[best]], ways[1][0][cr[best]]), bool(exact[first])

    def _luma(self, patches):
        """The luma blocks of patches (k, m): (k, blocks, 64)."""
        height, width = self.blocks.unit
        own = patches[:, self.own].reshape(len(patches), height // BLOCK, BLOCK, width // BLOCK,
                                           BLOCK)
        return own.transpose(0, 1, 3, 2, 4).reshape(len(patches), -1, BLOCK * BLOCK)

    def _wrong(self, levels, luma, bases):
        """Which pixels these levels do not give, bool (m, n); the levels of luma.

        Luma blocks without a clipped pixel do not count: their luma does not depend on the chroma.
        """
        height, width = self.image.shape[:2]
        planes = [upsampled(self.blocks.coded(plane), self.blocks.halved)[:height, :width]
                  for plane in levels]
        bounds = luma_bounds(self.image, *planes)
        layout = Layout(height, width)
        low = np.where(self.visible, bounds.low, 0)
        high = np.where(self.visible, bounds.high, 255)
        box = layout.bounds(bounds._replace(low=low, high=high))
        luma, exact = find_levels(*box, self.luma_table, bases=bases, before=luma)
        clipped = ((self.image == 0) | (self.image == 255)).any(axis=2) | ~self.visible
        inexact = ~exact & to_blocks(layout.pad(clipped, constant_values=False)).any(axis=1)
        inexact = np.repeat(inexact[:, None], BLOCK * BLOCK, axis=1)
        return layout.image(inexact, (height, width)) | (low > high), luma
