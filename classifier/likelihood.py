"""Beyond the paper's median: the quality of an image from the likelihood of all its patches.

On training images it was counted what patches answer at each true quality
(`evaluate_cls.py --fit_likelihood`). An image's quality is the mean of the posterior over the 100
qualities, which a priori are equally likely, given the answers of all its patches.

Test-time augmentation. A patch and its mirror images were quantized alike, for only the signs of
their DCT coefficients differ; but the network's errors differ, as they do at each phase of the
block grid. Patches that vary in both have less of an error in common, and a cropped image shows
the same phases as one that was not. So the patches of the sampling grid are moved by 0 to 7 px and
mirrored, each row and column of the grid by its number.
"""
import numpy as np

from classifier.models import CompType, block_positions, patch_windows

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
# as wide as the errors are; in images smaller than this (geometric mean of the sides, px), whose
# patches lie closer or overlap, it is proportionally less: both measured on training photos.
UNCERTAINTY_EXPONENT, UNCERTAINTY_SIDE = 0.3, 512
MIRRORED_ROWS, MIRRORED_COLUMNS = 2, 4  # rows, columns of the grid after which mirroring alternates


def augmented_patches(image: np.ndarray, comp_type: CompType) -> np.ndarray:
    """The patches of an image under test-time augmentation.

    Each interleaved eighth of the grid (`early_stopping.interleaved_subsets`) has all phases of
    the block grid on each axis, and patches as they are, upside down, left to right, and both.

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
    (rows, upside_down), (columns, left_to_right) = (
        _augmented_positions(side, comp_type, together)
        for side, together in zip(image.shape[:2], (MIRRORED_ROWS, MIRRORED_COLUMNS)))
    patches = patch_windows(image, comp_type)[rows[:, None], columns]
    patches[upside_down] = patches[upside_down][:, :, ::-1]
    patches[:, left_to_right] = patches[:, left_to_right][:, :, :, ::-1]
    return patches.reshape(-1, *patches.shape[2:])


def _augmented_positions(size, comp_type, together):
    """Positions along a side in the order of the grid, and whether they are mirrored, by number."""
    number = np.arange(comp_type.samples)
    moved = block_positions(size, comp_type) + (3 * (number // 2) + 4 * number) % 8
    positions = np.minimum(moved, size - comp_type.patch)
    kept = np.sort(np.unique(positions, return_index=True)[1])  # small sides repeat some
    return positions[kept], ((number // together + number) % 2 == 1)[kept]


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
    """Log-likelihood of a patch's answer at each true quality.

    Neighbouring cells are averaged, over about one level.

    Parameters
    ----------
    counts : int array, shape (100, 17, 101)
        For each true quality 1..100, the sum of `count_answers` over its images.

    Returns
    -------
    float32 array, shape (100, 17, 101)
    """
    smooth = counts.astype(np.float32)
    for axis in range(3):
        smooth = np.apply_along_axis(np.convolve, axis, smooth, [0.2, 0.6, 0.2], 'same')
    total = smooth.sum(axis=(1, 2), keepdims=True)
    return np.log(smooth / np.maximum(total, 1) + UNSEEN).astype(np.float32)


def patch_log_likelihood(output: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Log-likelihood of the qualities 1..100 given each patch's answer.

    Interpolated between the table's cells, and scaled by the confidence ramp.

    Parameters
    ----------
    output : float array, shape (n, 2)
        Confidence and quality of each patch, 0..100.
    table : float array, shape (100, 17, 101)
        As `fit_log_likelihood` returns it.

    Returns
    -------
    float64 array, shape (100, n)
    """
    confidence, quality = output.T.astype(np.float64)
    worst, best = 100 - CONFIDENCE_EDGES[[0, -1]]  # where among the middles of the bins, 0..16:
    step = np.log(worst / best) / (len(CONFIDENCE_EDGES) - 1)
    place = 0.5 + np.log(worst / np.maximum(100 - confidence, best / 2)) / step
    found = 0
    for bins, near in _neighbours(place, len(CONFIDENCE_EDGES)):
        for cell, close in _neighbours(quality, 100):
            found = found + near * close * table[:, bins, cell]
    none, whole = CONFIDENCE_RAMP
    return found * np.clip((confidence - none) / (whole - none), 0, 1)


def _neighbours(place, last):
    """The two whole numbers of 0..last on either side of each place, and their weights."""
    place = np.clip(place, 0, last)
    low = np.minimum(place.astype(int), last - 1)
    return (low, low + 1 - place), (low + 1, place - low)


def posterior(log_likelihood: np.ndarray, exponent: float) -> tuple[float, float]:
    """Quality of an image and its uncertainty, from the likelihood of its patches.

    Parameters
    ----------
    log_likelihood : float array, shape (100, n)
        As `patch_log_likelihood` returns it.
    exponent : float
        Power of the likelihood in the posterior of which the uncertainty is the standard
        deviation, see `uncertainty_exponent`; the quality's is ANSWER_EXPONENT.

    Returns
    -------
    quality, uncertainty : float
        Mean and standard deviation, in levels.
    """
    total = log_likelihood.sum(axis=1)
    return _moments(ANSWER_EXPONENT * total)[0], _moments(exponent * total)[1]


def _moments(log_weight):
    """Mean and standard deviation of the qualities 1, 2, ..., weighted."""
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    levels = np.arange(1, len(weight) + 1)
    mean = float(weight @ levels)
    return mean, float(np.sqrt(weight @ (levels - mean) ** 2))


def uncertainty_exponent(image: np.ndarray, share: float = 1.0) -> float:
    """Power of the likelihood, 0..1, for the uncertainty from some of an image's patches.

    Errors that any two patches have in common weigh less the fewer patches there are: of n,
    1 / (1 + r n) of the log-likelihood counts, with r such that it is UNCERTAINTY_EXPONENT for all.

    Parameters
    ----------
    image : array, shape (h, w, ...)
        Only its size counts, in px.
    share : float
        Of the patches that are looked at, 0..1.
    """
    height, width = image.shape[:2]
    of_all = UNCERTAINTY_EXPONENT * min(1, (height * width) ** 0.5 / UNCERTAINTY_SIDE)
    return 1 / (1 + share * (1 / of_all - 1))
