"""The learned fusion of `jpeg_robust`: from the answers of an image's patches to its posterior.

What an edit does to the answers of an image's patches, it does to all of them alike: they err
together, by an amount that depends on the picture and on the edit's strength. A product of the
patches' likelihoods takes that for certainty. So here a training image counts once: the histogram
of its patches' answers goes through two small dense layers, which were fitted on images of known
level, edited in known ways (`evaluate_cls.py --fit posterior`), to the probabilities of the 101
levels of `posterior.py`, and to those of the kinds of edit.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classifier.likelihood import neighbours
from classifier.posterior import LEVELS, NEVER, Posterior, summarize

# Nodes of the histogram, between which an answer is shared out: answers so close that the mean
# of many tells levels apart, confidences finer the surer.
CONFIDENCES = np.array([73, 80, 86, 91, 95, 98])
ANSWERS = np.linspace(0, 100, 35)
LARGE_SIDE = 512  # px; from this size on patches do not overlap, and size says nothing more
FEATURES = len(CONFIDENCES) * len(ANSWERS) + 1
WEIGHTS = ('hidden_1', 'bias_1', 'hidden_2', 'bias_2', 'levels', 'bias_levels', 'edits',
           'bias_edits')


def image_features(output: np.ndarray, size: Sequence[int],
                   weight: np.ndarray | None = None) -> np.ndarray:
    """The histogram of the patches' answers, and how large the image is.

    Parameters
    ----------
    output : float array, shape (n, 2)
        Confidence and quality of each patch, 0..100.
    size : (height, width, ...)
        Of the image, in px.
    weight : float array, shape (n,), optional
        How often each patch counts; by default once.

    Returns
    -------
    float32 array, shape (FEATURES,)
        Square roots of the shares of the patches at each confidence and answer, which vary alike
        whatever the share; then the size, 0..1.
    """
    confidence, answer = output.T.astype(np.float64)
    counts = np.zeros((len(CONFIDENCES), len(ANSWERS)))
    ones = np.ones(len(output)) if weight is None else weight
    rows, columns = (neighbours(np.interp(values, nodes, np.arange(len(nodes))), len(nodes) - 1)
                     for values, nodes in ((confidence, CONFIDENCES), (answer, ANSWERS)))
    for row, near in rows:
        for column, close in columns:
            np.add.at(counts, (row, column), ones * near * close)
    share = np.sqrt(counts / max(ones.sum(), 1e-9)).ravel()
    large = min(1, (size[0] * size[1]) ** 0.5 / LARGE_SIDE)
    return np.append(share, large).astype(np.float32)


@dataclass(frozen=True)
class ImagePosterior:
    """The fitted layers.

    Parameters
    ----------
    layers : tuple of float32 arrays
        As WEIGHTS names them: (FEATURES, m), (m,), (m, m), (m,), (m, 101), (101,), (m, k), (k,).
    temperature : float
        That the logits of the levels are divided by, so that CREDIBLE of the intervals hold.
    edits : tuple of str
        Names of the k kinds of edit, the unedited first.
    never_share : float
        Of the pictures that were never compressed among those fitted on, 0..1: an image is one
        with probability NEVER instead.
    """
    layers: tuple
    temperature: float
    edits: tuple
    never_share: float

    def probabilities(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the levels, (n, 101), and of the edits, (n, k), for features (n, FEATURES)."""
        w1, b1, w2, b2, levels, bias_levels, edits, bias_edits = self.layers
        hidden = np.maximum(features @ w1 + b1, 0)
        hidden = np.maximum(hidden @ w2 + b2, 0)
        prior = np.full(LEVELS, (1 - NEVER) / (1 - self.never_share))
        prior[-1] = NEVER / self.never_share
        logits = (hidden @ levels + bias_levels) / self.temperature
        return (_softmax(logits + np.log(prior)),
                _softmax(hidden @ edits + bias_edits))

    def __call__(self, output: np.ndarray, size: Sequence[int]) -> tuple[Posterior, float]:
        """The posterior of an image, and the probability that it was edited.

        Parameters
        ----------
        output : float array, shape (n, 2)
            Confidence and quality of each patch, 0..100.
        size : (height, width, ...)
            Of the image, in px.
        """
        levels, edits = self.probabilities(image_features(output, size)[None])
        return summarize(levels[0]), float(1 - edits[0, 0])

    @classmethod
    def from_arrays(cls, arrays: dict) -> 'ImagePosterior':
        """From what `arrays` returns; ValueError or KeyError for anything else."""
        layers = tuple(np.asarray(arrays[name], np.float32) for name in WEIGHTS)
        edits = tuple(map(str, arrays['edit_names']))
        width = layers[1].size
        shapes = [(FEATURES, width), (width,), (width, width), (width,), (width, LEVELS),
                  (LEVELS,), (width, len(edits)), (len(edits),)]
        temperature, never = float(arrays['temperature']), float(arrays['never_share'])
        if [layer.shape for layer in layers] != shapes or not (
                temperature > 0 and 0 < never < 1
                and all(np.isfinite(layer).all() for layer in layers)):
            raise ValueError('not the layers of an image posterior')
        return cls(layers, temperature, edits, never)

    def arrays(self) -> dict:
        """What is stored."""
        return dict(zip(WEIGHTS, self.layers)) | {
            'temperature': np.float32(self.temperature), 'edit_names': np.array(self.edits),
            'never_share': np.float32(self.never_share)}


def _softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
