"""Scores of quantization steps for coefficients whose noise is known, one by one.

    scores = noisy_scores(np.abs(c), variance, Bins(1, 2, 480, tuple(range(256))))
    print(scores[9].argmax())      # the best step of frequency 9

The score of a step is lattice.py's, with the noise of each coefficient in place of rounding noise.
Zeros are so many that their outliers would refute true steps: whatever is within ZERO_WIDTH sigmas
of zero counts neither way.

Coefficients are counted by classes of their variance and bins of |c| in sigmas, so that the scores
of all steps are the product of these histograms with a matrix. The classes are those of floats with
the same first bits, which need no logarithm.
"""
import functools
import math
from typing import NamedTuple

import numpy as np

EPSILON = 0.02            # coefficients that no model explains
ZERO_WIDTH = 3.0          # sigmas
MIN_WIDTH = 2.5           # steps of fewer sigmas show nothing
PART = 128                # frequencies counted at once, for the cache


class Bins(NamedTuple):
    """How coefficients are binned, and the steps that are scored."""
    bits: int                # classes of variance: an octave is 2**bits of them
    per_sigma: int           # bins of |c|
    count: int               # of them; the last one, of all that are larger, is not scored
    steps: tuple[int, ...]


def noisy_scores(value: np.ndarray, variance: np.ndarray, bins: Bins) -> np.ndarray:
    """The scores of steps at f frequencies.

    Parameters
    ----------
    value : float32 array, shape (f, n)
        |c|.
    variance : float32 array, shape (f, n)
        Of its noise.
    bins : Bins

    Returns
    -------
    float32 array, shape (f, len(bins.steps))
        Nats.
    """
    kind = variance.view(np.int32) >> 23 - bins.bits
    scaled = bins.per_sigma / np.sqrt(_variance_of(kind, bins.bits))
    scaled *= value
    np.minimum(np.rint(scaled, out=scaled), bins.count - 1, out=scaled)
    first = int(kind.min())
    kind -= first
    kinds = int(kind.max()) + 1
    kind *= bins.count
    kind += scaled.astype(np.int32)
    seen = np.bincount(kind.ravel(), minlength=kinds * bins.count) > 0
    seen[bins.count - 1::bins.count] = False
    used = np.flatnonzero(seen)
    place = np.where(seen, np.cumsum(seen) - 1, len(used))
    of_kinds = np.split(used, used.searchsorted(bins.count * np.arange(1, kinds)))
    table = np.concatenate([*(_scores_of(first + k, bins)[some % bins.count]
                              for k, some in enumerate(of_kinds) if len(some)),
                            np.zeros((1, len(bins.steps)), np.float32)])
    scores = []
    for part in np.array_split(kind, math.ceil(len(kind) / PART)):
        at = place[part] + len(table) * np.arange(len(part))[:, None]
        count = np.bincount(at.ravel(), minlength=len(part) * len(table))
        scores.append(count.reshape(len(part), -1).astype(np.float32) @ table)
    return np.concatenate(scores)


def _variance_of(kind, bits):
    """The middle of classes of variance, kind an int32 array: float32."""
    return (kind << 23 - bits | 1 << 22 - bits).view(np.float32)


@functools.lru_cache(maxsize=128)
def _scores_of(kind, bins):
    """Scores of steps for each bin, in a class of variance: (bins.count, s) float32."""
    sigma = np.sqrt(_variance_of(np.array([kind], np.int32), bins.bits))
    scaled = np.arange(bins.count, dtype=np.float32)[:, None] / bins.per_sigma   # both in sigmas
    width = np.maximum(np.array(bins.steps, np.float32), 0.5) / sigma
    cell = np.rint(scaled / width)
    off = np.abs(scaled - cell * width)
    density = np.exp(-0.5 * off * off) + np.exp(-0.5 * np.square(width - off))
    ratio = np.where(cell == 0, 0, width * np.float32(1 / math.sqrt(2 * math.pi)) * density)
    zero = np.minimum(1, np.exp(0.5 * (ZERO_WIDTH ** 2 - scaled * scaled)))
    score = np.log((1 - EPSILON) * np.maximum(ratio, zero) + EPSILON)
    score[:, (width < MIN_WIDTH) | (np.array(bins.steps) == 0)] = 0
    return score
