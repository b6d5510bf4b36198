"""A trained network, ready to look at images.

    from classifier.predictor import Predictor
    predictor = Predictor('jpeg_paper')                     # loads the weights once
    prediction = predictor.predict(bgr_image)
    print(prediction.quality, prediction.uncertainty)
    print(predictor.predict(bgr_image, refine=True).lattice)
"""
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from classifier.checkpoints import best_folder, stored_likelihood, stored_threshold
from classifier.early_stopping import rounds, stop_early
from classifier.errors import InputError
from classifier.forensics.lattice import Lattice, find_quality
from classifier.likelihood import (augmented_patches, patch_log_likelihood, posterior,
                                   uncertainty_exponent)
from classifier.models import extract_patches, get_comp_type, median_fusion
from classifier.runtime import RUNTIMES, open_runner

FUSIONS = ('likelihood', 'median')
PATCHES = ('enough', 'all')  # of an image that are looked at


@dataclass(frozen=True)
class Prediction:
    """What the pixels of one image say.

    Parameters
    ----------
    network_quality : float
        The network's answer, 0..100.
    confident_patches, patches : int
        Patches above the threshold, and patches looked at. With no confident one the network's
        answer is 100, the best quality: no patch was reliable.
    uncertainty : float or None
        Standard deviation of the network's answer, in levels; None for a median.
    lattice : forensics.lattice.Lattice or None
        What `refine` found; None where it was not asked for.
    """
    network_quality: float
    confident_patches: int
    patches: int
    uncertainty: float | None = None
    lattice: Lattice | None = None

    @property
    def is_refined(self) -> bool:
        """Whether the lattice gave the answer."""
        return self.lattice is not None and self.lattice.quality is not None

    @property
    def quality(self) -> float:
        """The answer, 0..100: the lattice's integer if there is one, else the network's."""
        return float(self.lattice.quality) if self.is_refined else self.network_quality


class Predictor:
    """A trained network, ready to look at images; one thread at a time may use it.

    Parameters
    ----------
    comp_type : str
        A name from `models.COMP_TYPES`.
    weights : path-like, optional
        A checkpoint folder; by default the shipped one.
    threshold : float, optional
        Confidence threshold in 0..100; by default as stored with the weights.
    fusion : {'likelihood', 'median'}, optional
        How patches become an answer; 'median' is the paper's. By default the likelihood, where the
        weights come with one and no threshold is given.
    runtime : {'litert', 'tensorflow'}, optional
        What runs the model file beside the weights, by default LiteRT where it is installed.
        Without a model file TensorFlow runs the checkpoint.
    patches : {'enough', 'all'}
        'enough' stops early once the likelihood has decided; a median always takes all.
    threads : int, optional
        That a model file is run with, by default one for each core.

    Raises
    ------
    InputError
        The weights are missing or unusable, or an argument is not one of these.
    """

    def __init__(self, comp_type: str, weights: str | os.PathLike | None = None,
                 threshold: float | None = None, fusion: str | None = None,
                 runtime: str | None = None, patches: str = 'enough',
                 threads: int | None = None):
        for name, value, known in (('fusion', fusion or FUSIONS[0], FUSIONS),
                                   ('runtime', runtime or RUNTIMES[0], RUNTIMES),
                                   ('patches', patches, PATCHES)):
            if value not in known:
                raise InputError(f'{name} {value!r}: choose one of {", ".join(known)}')
        if threshold is not None and not 0 <= threshold <= 100:
            raise InputError(f'threshold {threshold}: must be in 0..100')
        self.type = get_comp_type(comp_type)
        folder = Path(weights) if weights else best_folder(self.type)
        self._runner = open_runner(self.type, folder, runtime, threads)
        self.threshold = stored_threshold(self.type, folder) if threshold is None else threshold
        self.log_likelihood = None
        if fusion == 'likelihood' or (fusion is None and threshold is None):
            self.log_likelihood = stored_likelihood(folder, required=fusion is not None)
        self.stops_early = patches == 'enough' and self.log_likelihood is not None

    @property
    def runtime(self) -> str:
        """What runs the network: one of `runtime.RUNTIMES`."""
        return self._runner.runtime

    @property
    def model(self) -> bytes | None:
        """The model file that it runs; None if it runs the checkpoint."""
        return self._runner.model

    def run_network(self, patches: np.ndarray) -> np.ndarray:
        """Confidence and quality, float32 (n, 2), of uint8 patches (n, 16, 16, 3)."""
        return self._runner(patches)

    def run_together(self, several: list[np.ndarray]) -> list[np.ndarray]:
        """`run_network` for several arrays of patches in shared batches."""
        ends = np.cumsum([len(patches) for patches in several])
        return np.split(self.run_network(np.concatenate(several)), ends[:-1]) if several else []

    def extract(self, image: np.ndarray) -> np.ndarray:
        """An image's patches as the network gets them: augmented for the likelihood."""
        if self.log_likelihood is None:
            return extract_patches(image, self.type)
        return augmented_patches(image, self.type)

    def fuse(self, output: np.ndarray, exponent: float,
             log_likelihood: np.ndarray | None = None) -> Prediction:
        """The `Prediction` from the network's output on an image's patches, or on some of them.

        Parameters
        ----------
        output : float array, shape (n, 2)
            Confidence and quality of each patch, 0..100.
        exponent : float
            See `likelihood.uncertainty_exponent`.
        log_likelihood : float array, shape (100, n), optional
            The patches' `likelihood.patch_log_likelihood`, if it is known already.
        """
        if log_likelihood is None and self.log_likelihood is not None:
            log_likelihood = patch_log_likelihood(output, self.log_likelihood)
        confident, uncertainty = int((output[:, 0] > self.threshold).sum()), None
        if confident and log_likelihood is not None and log_likelihood.any():
            quality, uncertainty = posterior(log_likelihood, exponent)
        else:
            quality = median_fusion(output, self.threshold, self.type.max_quality)
        return Prediction(quality, confident, len(output), uncertainty)

    def predict_all(self, images: Iterable[np.ndarray], refine: bool = False) -> list[Prediction]:
        """A `Prediction` for each image; where all patches are looked at, they share batches.

        Parameters
        ----------
        images : iterable of uint8 arrays, shape (h, w, 3)
            BGR pixels, each side at least 16 px.
        refine : bool
            Look for the quantization lattice of the pixels as well, whose answer, an exact
            integer, takes precedence over the network's.

        Raises
        ------
        InputError
            Something that is no such image.
        """
        images = [_checked(image) for image in images]
        if self.stops_early:
            predictions = [self._answer(image) for image in images]
        else:
            outputs = self.run_together([self.extract(image) for image in images])
            predictions = [self.fuse(output, uncertainty_exponent(image))
                           for image, output in zip(images, outputs)]
        if refine:
            predictions = [_refined(p, image) for p, image in zip(predictions, images)]
        return predictions

    def predict(self, image: np.ndarray, refine: bool = False) -> Prediction:
        """The `Prediction` for one image, see `predict_all`."""
        return self.predict_all([image], refine)[0]

    def _answer(self, image):
        """The `Prediction` from as many patches as it takes, of a full grid; else from all."""
        patches = self.extract(image)
        total = self.type.samples ** 2
        if len(patches) < total:
            return self.fuse(self.run_network(patches), uncertainty_exponent(image))
        looks = rounds(lambda numbers: self.run_network(patches[numbers]), self.type,
                       self.log_likelihood)
        return stop_early(looks, lambda output, found: self.fuse(
            output, uncertainty_exponent(image, len(output) / total), found))


def _checked(image):
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
            and image.shape[2] == 3):
        what = (f'{image.dtype} array of shape {image.shape}' if isinstance(image, np.ndarray)
                else type(image).__name__)
        raise InputError(f'an image must be a uint8 array of shape (height, width, 3), BGR, not a '
                         f'{what}')
    return image


def _refined(prediction, image):
    """The prediction with what the lattice of the image's DCT coefficients says."""
    guess = prediction.network_quality if prediction.confident_patches else None
    return replace(prediction, lattice=find_quality(image, guess))
