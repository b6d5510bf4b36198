"""What is known of an image's quality: a probability for each of 101 levels, and its summary.

Levels 1 to 100 are JPEG qualities; level 101 is that of pixels that were never JPEG compressed.
"""
from dataclasses import dataclass

import numpy as np

LEVELS = 101  # 100 qualities and, last, never compressed
# Credible interval: this much of the probability, as much of the rest below it as above.
CREDIBLE = 0.9
NEVER = 0.3    # probability of never compressed pixels a priori; the qualities share the rest
QUALITIES = np.minimum(np.arange(1, LEVELS + 1), 100)  # of the levels; never compressed is the best


@dataclass(frozen=True)
class Posterior:
    """The summary of a posterior over the levels.

    Parameters
    ----------
    quality : float
        The answer, 1..100.
    uncertainty : float
        Standard deviation of the quality, in levels.
    low, high : int
        Credible interval of the quality: it holds at least CREDIBLE of the probability.
    compressed : float
        Probability that the pixels were JPEG compressed at all, 0..1.
    """
    quality: float
    uncertainty: float
    low: int
    high: int
    compressed: float


def summarize(probability: np.ndarray, sharper: np.ndarray | None = None) -> Posterior:
    """The `Posterior` of the probabilities of the levels.

    Parameters
    ----------
    probability : float array, shape (101,)
        Not negative; it is divided by its sum.
    sharper : float array, shape (101,), optional
        Probabilities of which the quality is the mean, in place of those.
    """
    probability = np.asarray(probability, np.float64) / np.sum(probability)
    sharper = probability if sharper is None else np.asarray(sharper, np.float64)
    quality = float(sharper @ QUALITIES / sharper.sum())
    below = np.cumsum(probability)
    low, high = QUALITIES[np.searchsorted(below, ((1 - CREDIBLE) / 2, (1 + CREDIBLE) / 2 - 1e-9))]
    deviation = float(np.sqrt(probability @ np.square(QUALITIES - probability @ QUALITIES)))
    return Posterior(quality, deviation, int(min(low, np.rint(quality))),
                     int(max(high, np.rint(quality))), float(1 - probability[-1]))
