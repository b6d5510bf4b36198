"""Beyond the paper's median: the quality of an image from the likelihood of all its patches.

On training images it was counted what patches answer at each true quality, and where there was no
compression (`evaluate_cls.py --fit likelihood`). An image's posterior over the 101 levels of
`posterior.py` follows from the answers of all its patches. It holds for images like those counted:
decoded and not changed since.

Test-time augmentation. The network's errors differ at each phase of the block grid. Patches that
vary in it have less of an error in common, and a cropped image shows the same phases as one that
was not. So the patches of the sampling grid are moved by 0 to 7 px, each row and column of the
grid by its number.
"""
from collections.abc import Sequence

import numpy as np

from classifier.models import CompType, block_positions, patch_windows
from classifier.posterior import LEVELS, NEVER, Posterior, summarize

# Confidence bins of the likelihood: finer the surer, as the expected error, 100 - C, halves.
CONFIDENCE_EDGES = 100 - np.geomspace(30, 1, 16)
UNSEEN = 1e-4  # probability of an answer never counted at a quality: no patch decides alone
# Confidence up to which a patch counts for nothing, and from which on for all it says. The answer
# of a flat patch depends on the picture, and the many of one picture agree.
CONFIDENCE_RAMP = 88, 92
# Qualities are whole numbers: the likelihood to this power draws the answer to the most probable
# one. A larger one would lower the error a little more, but let rounding in the network decide.
ANSWER_EXPONENT = 2
# The errors of an image's patches are correlated. The likelihood to this power gives a posterior
# as wide as the errors are on graphics (on photos they are smaller); in images smaller than this
# (geometric mean of the sides, px), whose patches lie closer or overlap, it is proportionally
# less: both measured on training images.
UNCERTAINTY_EXPONENT, UNCERTAINTY_SIDE = 0.1, 512
FEWEST_PATCHES = 2  # that must say something, counted by their weights on the confidence ramp


def augmented_patches(image: np.ndarray, comp_type: CompType) -> np.ndarray:
    """The patches of an image under test-time augmentation.

    Each interleaved eighth of the grid (`early_stopping.interleaved_subsets`) has all phases of
    the block grid on each axis.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, each side at least 16 px.
    comp_type : CompType

    Returns
    -------
    uint8 array, shape (n, 16, 16, 3)
        Row by row; n is 256 for sides of 32 px and more.

    Raises
    ------
    InputError
        A side is shorter than a patch.
    """
    rows, columns = (_augmented_positions(side, comp_type) for side in image.shape[:2])
    patches = patch_windows(image, comp_type)[rows[:, None], columns]
    return patches.reshape(-1, *patches.shape[2:])


def _augmented_positions(size, comp_type):
    """Positions along a side in the order of the grid."""
    number = np.arange(comp_type.samples)
    moved = block_positions(size, comp_type) + (3 * (number // 2) + 4 * number) % 8
    positions = np.minimum(moved, size - comp_type.patch)
    return positions[np.sort(np.unique(positions, return_index=True)[1])]  # small sides repeat some


def count_answers(output: np.ndarray) -> np.ndarray:
    """How many patches gave which answer.

    Parameters
    ----------
    output : float array, shape (n, 2)
        Confidence and quality of each patch, 0..100.

    Returns
    -------
    int array, shape (17, 101)
        By confidence bin and rounded quality.
    """
    counts = np.zeros((len(CONFIDENCE_EDGES) + 1, 101), int)
    confidence, quality = output.T
    np.add.at(counts, (np.searchsorted(CONFIDENCE_EDGES, confidence),
                       np.clip(np.rint(quality), 0, 100).astype(int)), 1)
    return counts


def fit_log_likelihood(counts: np.ndarray) -> np.ndarray:
    """Log-likelihood of a patch's answer at each level.

    Neighbouring cells are averaged, over about one level; those of never compressed images are
    no quality's neighbours.

    Parameters
    ----------
    counts : int array, shape (101, 17, 101)
        For each level of `posterior.py`, the sum of `count_answers` over its images.

    Returns
    -------
    float32 array, shape (101, 17, 101)
    """
    smooth = counts.astype(np.float32)
    for axis, part in ((0, smooth[:-1]), (1, smooth), (2, smooth)):
        part[:] = np.apply_along_axis(np.convolve, axis, part, [0.2, 0.6, 0.2], 'same')
    total = smooth.sum(axis=(1, 2), keepdims=True)
    return np.log(smooth / np.maximum(total, 1) + UNSEEN).astype(np.float32)


def patch_log_likelihood(output: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Log-likelihood of the levels given each patch's answer.

    Interpolated between the table's cells, and scaled by the confidence ramp.

    Parameters
    ----------
    output : float array, shape (n, 2)
        Confidence and quality of each patch, 0..100.
    table : float array, shape (101, 17, 101)
        As `fit_log_likelihood` returns it.

    Returns
    -------
    float64 array, shape (101, n)
    """
    confidence, quality = output.T.astype(np.float64)
    worst, best = 100 - CONFIDENCE_EDGES[[0, -1]]  # where among the middles of the bins, 0..16:
    step = np.log(worst / best) / (len(CONFIDENCE_EDGES) - 1)
    place = 0.5 + np.log(worst / np.maximum(100 - confidence, best / 2)) / step
    found = 0
    for bins, near in neighbours(place, len(CONFIDENCE_EDGES)):
        for cell, close in neighbours(quality, 100):
            found = found + near * close * table[:, bins, cell]
    return found * patch_weights(output)


def neighbours(place: np.ndarray, last: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The two whole numbers of 0..last on either side of each place, and their weights."""
    place = np.clip(place, 0, last)
    low = np.minimum(place.astype(int), last - 1)
    return (low, low + 1 - place), (low + 1, place - low)


def patch_weights(output: np.ndarray) -> np.ndarray:
    """How much of what each patch says counts, 0..1: the confidence ramp; (n,) of (n, 2)."""
    none, whole = CONFIDENCE_RAMP
    return np.clip((output[:, 0].astype(np.float64) - none) / (whole - none), 0, 1)


def likelihood_posterior(log_likelihood: np.ndarray, exponent: float) -> Posterior:
    """The posterior of an image from the likelihood of its patches.

    Parameters
    ----------
    log_likelihood : float array, shape (101, n)
        As `patch_log_likelihood` returns it.
    exponent : float
        Power of the likelihood for uncertainty, interval and probability, see
        `uncertainty_exponent`; the quality's is ANSWER_EXPONENT.
    """
    total = log_likelihood.sum(axis=1)
    prior = np.full(LEVELS, np.log((1 - NEVER) / (LEVELS - 1)))
    prior[-1] = np.log(NEVER)
    wide, sharp = (np.exp(values - values.max()) for values in
                   (exponent * total + prior, ANSWER_EXPONENT * total + prior))
    return summarize(wide, sharp)


def uncertainty_exponent(size: Sequence[int], share: float = 1.0) -> float:
    """Power of the likelihood, 0..1, for the uncertainty from some of an image's patches.

    Errors that any two patches have in common weigh less the fewer patches there are: of n,
    1 / (1 + r n) of the log-likelihood counts, with r such that it is UNCERTAINTY_EXPONENT for all.

    Parameters
    ----------
    size : (height, width, ...)
        Of the image, in px.
    share : float
        Of the patches that are looked at, 0..1.
    """
    of_all = UNCERTAINTY_EXPONENT * min(1, (size[0] * size[1]) ** 0.5 / UNCERTAINTY_SIDE)
    return 1 / (1 + share * (1 / of_all - 1))
