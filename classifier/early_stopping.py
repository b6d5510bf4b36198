"""Early stopping: as many patches of an image as its quality takes.

The full sampling grid is looked at in eight rounds, an interleaved eighth of it each. After a
round the most probable quality is ahead of each other one by some log-likelihood; those of the
patches seen predict mean and standard deviation of what the others would add. Once it is ahead by
MARGIN standard deviations, the other patches are left out.
"""
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeVar

import numpy as np

from classifier.likelihood import patch_log_likelihood
from classifier.models import CompType
from classifier.posterior import LEVELS, QUALITIES

Prediction = TypeVar('Prediction')  # predictor.Prediction, of the file that imports this one
# Decision margin that ends it, chosen on training photos (`evaluate_cls.py --study stopping`).
MARGIN = 2


@lru_cache
def interleaved_subsets(comp_type: CompType) -> list[np.ndarray]:
    """The numbers of the grid's patches, row by row, in eight parts, each a coarse checkerboard."""
    number = np.arange(comp_type.samples ** 2).reshape(comp_type.samples, comp_type.samples)
    odd = np.indices((comp_type.samples // 2,) * 2).sum(0) % 2
    return [number[i::2, j::2][odd == k]
            for i, j in ((0, 0), (1, 1), (0, 1), (1, 0)) for k in (0, 1)]


def decision_margin(log_likelihood: np.ndarray, share: float) -> float:
    """How safe the most probable quality is from the patches not looked at.

    Parameters
    ----------
    log_likelihood : float array, shape (101, n)
        Of the n patches looked at, see `likelihood.patch_log_likelihood`.
    share : float
        Of all patches, 0..1, that these are.

    Returns
    -------
    float
        Its expected distance in the end from the closest other quality, in standard deviations
        of what the other patches may add by chance; infinite where none is left.
    """
    if share == 1:
        return np.inf
    total, n = log_likelihood.sum(axis=1), log_likelihood.shape[1]
    best = total.argmax()
    ahead, between = total[best] - total, log_likelihood[best] - log_likelihood
    variance = np.einsum('ij,ij->i', between, between) - ahead ** 2 / n  # times n
    rivals = (variance > 1e-9) & (QUALITIES != QUALITIES[best])
    return float((ahead[rivals] / np.sqrt(variance[rivals] * (1 - share))).min(initial=np.inf))


def rounds(run: Callable[[np.ndarray], np.ndarray], comp_type: CompType,
           table: np.ndarray) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Look at an eighth of the patches, at a quarter, ..., at all.

    Parameters
    ----------
    run : callable
        From numbers of patches, int (m,), to the network's output on them, float (m, 2).
    comp_type : CompType
    table : float array, shape (101, 17, 101)
        See `likelihood.fit_log_likelihood`.

    Yields
    ------
    margin : float
        The `decision_margin` so far.
    output : float32 array, shape (n, 2)
    log_likelihood : float64 array, shape (101, n)
        Of all patches looked at so far.
    """
    subsets = interleaved_subsets(comp_type)
    total = comp_type.samples ** 2
    output, found = np.empty((total, 2), np.float32), np.empty((LEVELS, total))
    seen = 0
    for subset in subsets:
        new = slice(seen, seen := seen + len(subset))
        output[new] = run(subset)
        found[:, new] = patch_log_likelihood(output[new], table)
        yield decision_margin(found[:, :seen], seen / total), output[:seen], found[:, :seen]


def stop_early(looks: Iterator[tuple[float, np.ndarray, np.ndarray]],
               fuse: Callable[[np.ndarray, np.ndarray], Prediction],
               margin: float = MARGIN) -> Prediction:
    """The `Prediction` from as many of the `rounds` as it takes.

    Parameters
    ----------
    looks : iterator
        As `rounds` yields them; those that are not needed are not asked for.
    fuse : callable
        From the output and log-likelihood of the patches so far to a `predictor.Prediction`. One
        without an answer decides nothing.
    margin : float
        Decision margin that ends it.

    Returns
    -------
    predictor.Prediction
    """
    for ahead, output, log_likelihood in looks:
        if ahead >= margin:
            prediction = fuse(output, log_likelihood)
            if prediction.network_quality is not None:
                break
    return prediction
