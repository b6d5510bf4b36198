"""Blocks of one plane by changes of their coefficients, one step after the other: a beam search.

    levels, exact = search_beam(low, high, levels, table)

Where steps are 1 or 2, the rounding of the samples alone moves several coefficients to the next
level. A change by a step brings some samples nearer to their bounds and takes others farther from
them. Of all levels that the same number of changes leads to, the WIDTH best are changed further.

Source: B. Lowerre, "The HARPY speech recognition system", 1976.
"""
import numpy as np

from classifier.forensics.blocks import BLOCK, DCT2
from classifier.recovery.colours import before_rounding
from classifier.recovery.decoders import decoded

WIDTH, DEPTH = 96, 8      # levels that are followed, and changes one after the other
CHANGED = 24              # coefficients, those of the smallest steps
HALF, NEAR = 0.5, 0.1     # of a level: rounding; beyond it, worth an exact check
AT_ONCE = 16              # blocks: memory


def search_beam(low: np.ndarray, high: np.ndarray, levels: np.ndarray,
                table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels that decode to samples within their bounds, as far as they are found.

    Parameters
    ----------
    low, high : uint8 arrays, shape (n, 64)
        The samples' bounds.
    levels : int array, shape (n, 64)
        From which changes begin.
    table : int array, shape (64,)

    Returns
    -------
    levels : int32 array, shape (n, 64)
    exact : bool array, shape (n,)
    """
    levels, exact = levels.astype(np.int32), np.zeros(len(low), bool)
    for first in range(0, len(low), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        levels[part], exact[part] = _search(low[part], high[part], levels[part], table)
    return levels, exact


def _search(low, high, levels, table):
    """The same of a few blocks."""
    levels, exact = levels.copy(), np.zeros(len(low), bool)
    least, most = before_rounding(low, high, HALF)
    changed = np.tile(np.argsort(table, kind='stable')[:CHANGED], 2)
    change = np.zeros((2 * CHANGED, BLOCK * BLOCK), np.int32)
    change[np.arange(2 * CHANGED), changed] = np.repeat([1, -1], CHANGED)
    moves = (change * table).astype(np.float32) @ DCT2
    names = np.random.default_rng(0).integers(-1 << 40, 1 << 40, BLOCK * BLOCK)  # of coefficients
    left, beam = np.arange(len(low)), levels[:, None]
    seen = beam @ names                              # what was tried before, by a sum of names
    for _ in range(DEPTH):
        pixels = (beam * table).astype(np.float32) @ DCT2
        off = np.stack([_beyond(pixels + move, least[left, None], most[left, None])
                        for move in moves], axis=2).reshape(len(left), -1)
        kept = min(2 * WIDTH, off.shape[1])
        best = np.argpartition(off, kept - 1, axis=1)[:, :kept]
        off = np.take_along_axis(off, best, axis=1)
        best = np.take_along_axis(best, off.argsort(axis=1, kind='stable'), axis=1)
        parent, move = np.divmod(best, len(moves))
        tried = np.take_along_axis(beam, parent[..., None], axis=1) + change[move]
        name = tried @ names
        again = (name[:, :, None] == seen[:, None]).any(axis=2)
        again |= np.tril(name[:, :, None] == name[:, None], -1).any(axis=2)
        first = again.argsort(axis=1, kind='stable')[:, :WIDTH]
        beam = np.take_along_axis(tried, first[..., None], axis=1)
        seen = np.concatenate([seen, np.take_along_axis(name, first, axis=1)], axis=1)
        pixels = (beam * table).astype(np.float32) @ DCT2
        near = ((pixels >= least[left, None] - NEAR) & (pixels <= most[left, None] + NEAR)).all(2)
        block, which = np.nonzero(near)
        samples = decoded(beam[block, which], table)
        good = ((samples >= low[left[block]]) & (samples <= high[left[block]])).all(axis=1)
        found = beam[block[good], which[good]][::-1]
        levels[left[block[good]][::-1]] = found      # the first of several stays
        exact[left[block[good]]] = True
        on = ~exact[left]
        left, beam, seen = left[on], beam[on], seen[on]
        if not len(left):
            break
    return levels, exact


def _beyond(pixels, least, most):
    """By how much samples (n, k, 64) are beyond their bounds: sums of squares, (n, k)."""
    off = pixels - pixels.clip(least, most)
    return np.einsum('nkm,nkm->nk', off, off)
