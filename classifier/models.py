"""Q1Net: the network, its loss, the sampling grid, the fusion, the weights.

A 16x16 patch of decoded pixels goes through a small convolutional network that
answers twice: the JPEG quality the patch was compressed at, and how sure it is.
An image's quality comes out of all its patches: in the paper as the median over those
that are sure enough, here by how likely the answers are at each quality.

    from classifier.models import Predictor
    predictor = Predictor('jpeg_paper')
    print(predictor.predict(bgr_image).quality)

Source: Kim and Yang, "Quality Level Prediction of Image Compression using
Block-wise Confidence-aware CNN", BMVC 2021.

TensorFlow takes seconds to import, so only the functions that build or train a network
import it; types, grid and fusion need NumPy alone, and a network that was exported runs
on LiteRT.
"""
import contextlib
import hashlib
import itertools
import json
import os
import struct
import sys
import threading
import warnings
import zipfile
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np

if __package__:  # imported as classifier.models
    from .lattice import Lattice, find_quality
else:
    from lattice import Lattice, find_quality

# The checkpoints are tf-keras 2 object graphs; Keras 3 does not read them.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

SAVE_FOLDER = Path(__file__).resolve().parent / 'save'
THRESHOLD_FILE = 'threshold.txt'
VAL_LOSS_FILE = 'val_loss.txt'
LIKELIHOOD_FILE = 'likelihood.npz'
MODEL_FILE = 'comp_cls.tflite'  # the same network for LiteRT, made by to_tflite.py
RUNTIMES = ('litert', 'tensorflow')
PATCHES = ('enough', 'all')  # of an image that are looked at
STAGE_WIDTHS = (1, 2, 4, 8, 4, 2)  # channels of stages 1..6, in units of K (paper)
STDERR = threading.RLock()  # held while stderr is quiet, and by whoever has to say something


@contextlib.contextmanager
def quiet():
    """Without what native code writes to stderr, unless TF_CPP_MIN_LOG_LEVEL asks for it.

    TensorFlow's newer builds log before they look at that variable. One thread at a time.
    """
    if os.environ['TF_CPP_MIN_LOG_LEVEL'] != '3':
        yield
        return
    with STDERR:
        sys.stderr.flush()
        kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(sink)


def import_tensorflow():
    """The modules tensorflow and tf_keras, imported without their start-up noise."""
    try:
        with quiet():
            import tensorflow
            import tf_keras
            return tensorflow, tf_keras
    except ModuleNotFoundError as error:
        raise InputError(f'this needs TensorFlow ({error}); install requirements.txt') from None


class InputError(Exception):
    """Something the user gave cannot be used; the message says what and what to do."""


class NoModel(InputError):
    """There is no model file or no LiteRT to run it, but TensorFlow may run the checkpoint."""


# ---------------------------------------------------------------- compression types

@dataclass(frozen=True)
class CompType:
    """What was compressed how, and the network that was trained for it.

    Qualities are libjpeg's 1..100; sizes are in pixels.
    """
    name: str
    k: int                   # stage width unit of the network
    threshold: float         # patches less confident than this are not used (paper)
    max_quality: int = 100
    block: int = 8           # coding block of the codec
    patch: int = 16          # side of a network input: one whole block and a margin
    samples: int = 16        # patch positions along each image axis


COMP_TYPES = {t.name: t for t in (CompType('jpeg_paper', k=8, threshold=96),
                                  CompType('jpeg_paper_k12', k=12, threshold=97))}


def get_comp_type(name):
    """The `CompType` of that name; InputError, listing the known ones, for any other."""
    try:
        return COMP_TYPES[name]
    except KeyError:
        raise InputError(f'unknown compression type {name!r}: '
                         f'choose one of {", ".join(COMP_TYPES)}') from None


# ---------------------------------------------------------------- network

def build_network(comp_type, seed=None):
    """The patch network, with Keras' default random initialisation from that seed.

    Input (N, 16, 16, 3), float32, BGR in 0..255, not normalised. Output (N, 2),
    float32: confidence and quality, both in 0..100. Layers are created in the
    reference's order, on which its checkpoints depend.
    """
    _, keras = import_tensorflow()
    layers = keras.layers
    seeds = itertools.repeat(None) if seed is None else itertools.count(1000 * seed)

    def kernel():
        return keras.initializers.GlorotUniform(next(seeds))

    def conv_bn(x, channels, size, padding='valid'):
        x = layers.Conv2D(channels, size, padding=padding, use_bias=False,
                          kernel_initializer=kernel())(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    def conv_bn_relu(x, channels, size, padding='valid'):
        return layers.ReLU()(conv_bn(x, channels, size, padding))

    def bottleneck(x, channels):
        y = conv_bn_relu(x, channels, 1)
        y = conv_bn_relu(y, channels, 3, 'same')
        y = conv_bn(y, channels, 1)
        return layers.ReLU()(layers.Add()([y, x]))

    patch = keras.Input((comp_type.patch, comp_type.patch, 3))
    x = patch
    for width in STAGE_WIDTHS:  # 16 -> 14 -> 12 -> 10 -> 8 -> 6 -> 4 px
        x = conv_bn_relu(x, comp_type.k * width, 3)
        x = bottleneck(x, comp_type.k * width)
    x = layers.Conv2D(comp_type.k, 3, activation='relu', kernel_initializer=kernel())(x)  # 2 px
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(2, activation='sigmoid', kernel_initializer=kernel())(x)
    return keras.Model(patch, x * 100.0, name=comp_type.name)


def confidence_loss(quality, output):
    """The paper's confidence-aware loss, patch by patch.

    quality: (N,) true qualities; output: (N, 2) predicted confidence C and
    quality Q. Returns two float32 tensors (N,): the loss 0.5 |C* - C| + |Q* - Q|
    and its second term alone, the absolute error of the quality. The confidence
    target C* = 100 - |Q* - Q| comes out of the same forward pass and lets no
    gradient through: the network is to learn its error, not to fit it.
    """
    tf, _ = import_tensorflow()
    confidence, predicted = tf.unstack(output, axis=1)
    error = tf.abs(tf.cast(quality, tf.float32) - predicted)
    target = 100.0 - tf.stop_gradient(error)
    return 0.5 * tf.abs(target - confidence) + error, error


# ---------------------------------------------------------------- from image to patches

def grid_positions(size, comp_type, varied=False):
    """Where patches start along an image side of `size` px: a sorted int array.

    Up to 16 different block positions, evenly spread over the whole blocks, moved
    4 px in: each patch then holds one whole coding block and a margin of 4 px.
    Sides of 16..23 px hold one patch. InputError below 16 px. varied: moved by 0 to 7 px by
    turns instead; sides of less than 144 px hold 16 too, which overlap, from 32 px on.
    """
    t = comp_type
    if size < t.patch:
        raise InputError(f'a side of {size} px is too small: at least {t.patch} px are needed')
    number = np.arange(t.samples)
    moved = varied_phase(number) if varied else (t.patch - t.block) // 2
    n = (t.block * (size // t.block) - t.patch - t.block) // t.block + 1
    blocks = (number + 1) * n // (t.samples + 1)
    return np.unique(np.minimum(blocks * t.block + moved, size - t.patch))


def extract_patches(image, comp_type, varied=False):
    """The patches of an image that the prediction looks at.

    image: (h, w, 3) uint8 BGR, each side at least 16 px. Returns (n, 16, 16, 3)
    uint8, n up to 256, row by row. InputError for a smaller image. varied: at all phases of
    the block grid, and in equal parts as they are, upside down, left to right, or both.
    """
    rows, cols = (grid_positions(side, comp_type, varied) for side in image.shape[:2])
    windows = np.lib.stride_tricks.sliding_window_view(
        image, (comp_type.patch, comp_type.patch), axis=(0, 1))
    patches = windows[rows[:, None], cols].transpose(0, 1, 3, 4, 2)
    if varied:
        down, across = (varied_mirroring(np.arange(len(starts)), together)
                        for starts, together in zip((rows, cols), MIRRORED))
        patches[down] = patches[down][:, :, ::-1]
        patches[:, across] = patches[:, across][:, :, :, ::-1]
    return patches.reshape(-1, comp_type.patch, comp_type.patch, 3)


# A patch and its mirror images were compressed alike, for only the signs of their DCT coefficients
# differ; but the network's errors differ, as they do at each phase of the block grid. Patches that
# vary in both have less of an error in common, and an image that was cropped shows the same phases
# as one that was not. Every other row of the grid is upside down, and after so many rows it is the
# others' turn; columns are left to right. Each of `grid_parts` has all four kinds, and all eight
# phases on each axis.
MIRRORED = 2, 4


def varied_phase(number):
    """By how many px the rows or columns of the grid with these numbers are moved: 0..7."""
    return (3 * (number // 2) + 4 * number) % 8


def varied_mirroring(number, together):
    """Which of the rows or columns of the grid with these numbers are mirrored."""
    return (number // together + number) % 2 == 1


@lru_cache
def grid_parts(comp_type):
    """The full grid as eight lattices, each spread over all of it: int arrays (n / 8,).

    They number the patches row by row, as `extract_patches` does. Each is a checkerboard of
    every other row and column.
    """
    number = np.arange(comp_type.samples ** 2).reshape(comp_type.samples, comp_type.samples)
    odd = np.indices((comp_type.samples // 2,) * 2).sum(0) % 2
    return [number[i::2, j::2][odd == k]
            for i, j in ((0, 0), (1, 1), (0, 1), (1, 0)) for k in (0, 1)]


# ---------------------------------------------------------------- from patches to image

@dataclass(frozen=True)
class Prediction:
    """What the pixels of one image say.

    quality: the answer, in 0..100: the lattice's if there is one, else the network's.
    patches: how many were looked at; confident_patches: how many of them were above the
    threshold. 0 means that no patch was reliable; the network's answer is then 100, the
    best there is.
    uncertainty: standard deviation of the network's answer, in levels; None if it is a
    median, which has none. lattice: what the refinement found, None where it was not
    asked for.
    """
    network_quality: float
    confident_patches: int
    patches: int
    uncertainty: float | None = None
    lattice: Lattice | None = None

    @property
    def is_refined(self):
        """Whether the lattice gave the answer."""
        return self.lattice is not None and self.lattice.quality is not None

    @property
    def quality(self):
        return float(self.lattice.quality) if self.is_refined else self.network_quality


# An image's patches err together. With this share of the evidence of all of them the posterior is
# as wide as the errors; in smaller images than this (geometric mean of the sides, px), in which
# they lie closer or overlap, with proportionally less: both on training photos.
EVIDENCE_SHARE, EVIDENCE_SIDE = 0.3, 512


def fuse(output, threshold, max_quality=100, evidence=None, counted=EVIDENCE_SHARE):
    """`Prediction` from the network's output (n, 2): confidence, quality.

    The paper's rule is the median quality of the patches whose confidence is above the
    threshold. With `evidence` (`patch_evidence`), every patch counts that says anything: the mean
    of the posterior over the qualities, which a priori are equally likely. Either way it is
    `max_quality` where no patch is above the threshold. counted: share of the evidence that the
    uncertainty counts (`evidence_counted`; default: that of all patches of a large image).
    """
    output = np.asarray(output, np.float64)
    confidence, quality = output.T
    kept = quality[confidence > threshold]
    spread = None
    if not kept.size:
        fused = max_quality
    elif evidence is None or not evidence.any():
        fused = np.median(kept)
    else:
        fused, spread = posterior(evidence, counted)
    return Prediction(float(fused), int(kept.size), int(quality.size), spread)


# Confidence bins of the likelihood: finer the surer, as the expected error, 100 - C, halves.
CONFIDENCE_EDGES = 100 - np.geomspace(30, 1, 16)
# Qualities are whole numbers: so much evidence draws the answer to the most probable one. More
# would lower the error a little more, but also let it depend on rounding in the network.
ANSWER_EVIDENCE = 2
# Lead from which on an answer is settled, chosen on training photos (`evaluate_cls.py
# --stopping`), and how much below that it is quite open.
SETTLED, BAND = 2, 0.25
UNSEEN = 1e-4  # probability of an answer never seen at a quality: no patch decides alone
# Confidence up to which a patch says nothing, and from which on all that it has to say. The answer
# of a flat patch tells what is in the picture, and many of one picture tell the same.
SPEAKING = 88, 92


def patch_counts(output):
    """How many patches, output (n, 2), answered what: (confidence bins, 101 qualities) int."""
    counts = np.zeros((len(CONFIDENCE_EDGES) + 1, 101), int)
    confidence, quality = output.T
    np.add.at(counts, (np.searchsorted(CONFIDENCE_EDGES, confidence),
                       np.clip(np.rint(quality), 0, 100).astype(int)), 1)
    return counts


def patch_likelihood(counts):
    """Log-likelihood of a patch's answer at each true quality 1..100.

    counts: (100, bins, 101), sums of `patch_counts` over images of each quality. Returns
    the same shape, float32. Neighbouring cells are averaged, over about one level.
    """
    smooth = counts.astype(np.float32)
    for axis in range(3):
        smooth = np.apply_along_axis(np.convolve, axis, smooth, [0.2, 0.6, 0.2], 'same')
    total = smooth.sum(axis=(1, 2), keepdims=True)
    return np.log(smooth / np.maximum(total, 1) + UNSEEN).astype(np.float32)


def evidence_counted(image, share=1.0):
    """Of the evidence of that share of an image's patches, how much counts.

    Errors that any two patches have in common weigh the less the fewer there are: of n patches
    1 / (1 + r n) counts, r such that it is what EVIDENCE_SHARE says of all.
    """
    height, width = image.shape[:2]
    of_all = EVIDENCE_SHARE * min(1, (height * width) ** 0.5 / EVIDENCE_SIDE)
    return 1 / (1 + share * (1 / of_all - 1))


def confidence_place(confidence):
    """Where among the middles of the confidence bins, 0..16, on the edges' own scale."""
    worst, best = 100 - CONFIDENCE_EDGES[[0, -1]]
    step = np.log(worst / best) / (len(CONFIDENCE_EDGES) - 1)
    return 0.5 + np.log(worst / np.maximum(100 - confidence, best / 2)) / step


def neighbours(place, last):
    """The two of the whole numbers 0..last on either side of each place, and their weights.

    Interpolated so, a patch's evidence follows its answer without a jump.
    """
    place = np.clip(place, 0, last)
    low = np.minimum(place.astype(int), last - 1)
    return (low, low + 1 - place), (low + 1, place - low)


def patch_evidence(output, log_likelihood):
    """Log-likelihood of the qualities 1..100, given each patch's answer: (100, n) float64.

    output: the network's, (n, 2); log_likelihood: as `patch_likelihood` makes it. Patches
    of low confidence weigh less or nothing (SPEAKING).
    """
    confidence, quality = output.T.astype(np.float64)
    evidence = 0
    for bins, near in neighbours(confidence_place(confidence), len(CONFIDENCE_EDGES)):
        for cell, close in neighbours(quality, 100):
            evidence = evidence + near * close * log_likelihood[:, bins, cell]
    none, whole = SPEAKING
    return evidence * np.clip((confidence - none) / (whole - none), 0, 1)


def posterior(evidence, counted):
    """Answer and standard deviation of the quality, given the `patch_evidence` of an image.

    Both are moments of a posterior over the qualities: the answer with the evidence times
    ANSWER_EVIDENCE, the deviation with the share of it that is `counted`.
    """
    total = evidence.sum(axis=1)
    answer, _ = moments(ANSWER_EVIDENCE * total)
    return answer, moments(counted * total)[1]


def moments(log_weight):
    """Mean and standard deviation of the qualities 1, 2, ..., weighted."""
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    levels = np.arange(1, len(weight) + 1)
    mean = float(weight @ levels)
    return mean, float(np.sqrt(weight @ (levels - mean) ** 2))


def lead(evidence, share):
    """How safe the most probable quality is from what an image's other patches will say.

    evidence: (100, n) of the n patches looked at, which are that share of all. It is what the
    quality will be ahead of the closest other if the rest speaks like these, in standard
    deviations of what the rest may say by chance.
    """
    if share == 1:
        return np.inf
    total, n = evidence.sum(axis=1), evidence.shape[1]
    best = total.argmax()
    ahead, between = total[best] - total, evidence[best] - evidence
    spread = np.einsum('ij,ij->i', between, between) - ahead ** 2 / n  # n times the variance
    rivals = spread > 1e-9
    return float((ahead[rivals] / np.sqrt(spread[rivals] * (1 - share))).min(initial=np.inf))


def settle(stages, settled=SETTLED):
    """The `Prediction` of stages: looks at some patches of an image, at more, ..., at all.

    stages: an iterable of pairs, a stage's `lead` and a function that gives its `Prediction`.
    None is taken once the answer is settled. Each stage counts for what the ones before left
    open: from a lead of `settled` it leaves nothing open, up to BAND below that all. In
    between, the answer is a blend: a difference in rounding, which may let in one more stage,
    cannot make it jump.
    """
    left, fused, spread = 1.0, 0.0, 0.0
    for ahead, predict in stages:
        if ahead <= settled - BAND:
            continue
        stage = predict()
        if stage.uncertainty is None:
            continue
        here = left * min(1 + (ahead - settled) / BAND, 1)
        fused += here * stage.network_quality
        spread += here * stage.uncertainty
        left -= here
        if left <= 0:
            break
    if stage.uncertainty is None:
        return stage
    return replace(stage, network_quality=float(fused + left * stage.network_quality),
                   uncertainty=float(spread + left * stage.uncertainty))


def refined(prediction, image):
    """The prediction with what the lattice of the image's DCT coefficients says."""
    guess = prediction.network_quality if prediction.confident_patches else None
    return replace(prediction, lattice=find_quality(image, guess))


class Predictor:
    """A trained network, ready to look at images.

    comp_type: a name from `COMP_TYPES`. weights: a checkpoint folder (default: the
    one shipped in classifier/save). threshold: confidence in 0..100 (default: the
    one stored beside the weights, else the compression type's). fusion: 'likelihood' or
    'median' (the paper's; default: the likelihood where one is stored beside the weights
    and no threshold is asked for). runtime: 'litert' or 'tensorflow' (default: LiteRT,
    where it is installed). Either runs the model file that lies beside the weights; where there
    is none, TensorFlow runs the checkpoint itself. patches: 'enough',
    until the likelihood has settled the answer, or 'all' (the median always takes all).
    threads: that a model file is run with (default: one for each core). InputError when the
    weights are not there or not usable. One thread at a time may use it, but for a checkpoint.
    """

    def __init__(self, comp_type, weights=None, threshold=None, fusion=None, runtime=None,
                 patches='enough', threads=None):
        self.type = get_comp_type(comp_type)
        folder = Path(weights) if weights else best_folder(self.type)
        self._runner = open_runner(self.type, folder, runtime, threads)
        self.threshold = stored_threshold(self.type, folder) if threshold is None else threshold
        self.log_likelihood = None
        if fusion == 'likelihood' or (fusion is None and threshold is None):
            self.log_likelihood = stored_likelihood(folder, required=fusion is not None)
        self.stops_early = patches == 'enough' and self.log_likelihood is not None

    @property
    def runtime(self):
        """What runs the network: one of `RUNTIMES`."""
        return self._runner.runtime

    @property
    def model(self):
        """The bytes of the model file that it runs; None if it runs the checkpoint."""
        return self._runner.model

    def run_network(self, patches):
        """(n, 16, 16, 3) uint8 patches -> (n, 2) float32 confidence and quality."""
        return self._runner(patches)

    def run_together(self, several):
        """`run_network` for several arrays of patches in shared batches: a list of outputs."""
        ends = np.cumsum([len(patches) for patches in several])
        return np.split(self.run_network(np.concatenate(several)), ends[:-1])

    def cut(self, image):
        """An image's patches as the network gets them; those for the likelihood are varied."""
        return extract_patches(image, self.type, varied=self.log_likelihood is not None)

    def fuse(self, output, counted=EVIDENCE_SHARE, evidence=None):
        """The `Prediction` from the network's output (n, 2) on an image's patches, or some.

        counted: as in `fuse`. evidence: their `patch_evidence`, if it is known already.
        """
        if evidence is None and self.log_likelihood is not None:
            evidence = patch_evidence(output, self.log_likelihood)
        return fuse(output, self.threshold, self.type.max_quality, evidence, counted)

    def answer(self, image):
        """The `Prediction` for an image from as many of its patches as it takes.

        Of a full grid the network looks at an eighth at a time until the answer is settled.
        """
        patches = self.cut(image)
        if len(patches) < self.type.samples ** 2:
            return self.fuse(self.run_network(patches), evidence_counted(image))
        return settle(self.stages(image, lambda numbers: self.run_network(patches[numbers])))

    def stages(self, image, look):
        """Yields, for an eighth of the full grid, two, ..., all: `lead`, and how to `fuse` them.

        look: from numbers of patches, an int array (m,), to the network's output (m, 2) on them.
        """
        parts = grid_parts(self.type)
        output = np.empty((self.type.samples ** 2, 2), np.float32)
        evidence = np.empty((100, len(output)))
        seen = 0
        for part in parts:
            new = slice(seen, seen + len(part))
            output[new] = look(part)
            evidence[:, new] = patch_evidence(output[new], self.log_likelihood)
            seen = new.stop
            share = seen / len(output)
            yield lead(evidence[:, :seen], share), partial(
                self.fuse, output[:seen], evidence_counted(image, share), evidence[:, :seen])

    def predict_all(self, images, refine=False):
        """A `Prediction` for each (h, w, 3) uint8 BGR image; those looked at whole share batches.

        With `refine`, the quantization lattice of the pixels' DCT coefficients is
        looked for as well, and its answer, an exact integer, goes before the network's.
        """
        if self.stops_early:
            predictions = list(map(self.answer, images))
        else:
            outputs = self.run_together([self.cut(image) for image in images])
            predictions = [self.fuse(output, evidence_counted(image))
                           for image, output in zip(images, outputs)]
        if refine:
            predictions = [refined(p, image) for p, image in zip(predictions, images)]
        return predictions

    def predict(self, image, refine=False):
        """The `Prediction` for one (h, w, 3) uint8 BGR image."""
        return self.predict_all([image], refine)[0]


@dataclass(frozen=True)
class QualityMap:
    """Where in an image which quality is seen, block by block (stride 8 px).

    quality, confidence: (rows, columns) float, 0..100, means over the neighbourhood of
    the patch that starts at (8 row, 8 column) px; the surer patches count for more.
    """
    quality: np.ndarray
    confidence: np.ndarray


def quality_map(predictor, image, neighbourhood=5):
    """The `QualityMap` of an image: (h, w, 3) uint8 BGR, each side at least 16 px.

    neighbourhood: side, in blocks, of the square that is averaged over. A patch's weight
    falls by e for each 5 levels of confidence below 100.
    """
    t = predictor.type
    for side in image.shape[:2]:
        grid_positions(side, t)  # refuses one that is too small
    windows = np.lib.stride_tricks.sliding_window_view(image, (t.patch, t.patch), axis=(0, 1))
    windows = windows[::t.block, ::t.block].transpose(0, 1, 3, 4, 2)
    confidence, quality = np.concatenate(
        [predictor.run_network(np.ascontiguousarray(row)) for row in windows]).T
    shape = windows.shape[:2]
    weight = np.exp((confidence.reshape(shape) - 100) / 5).astype(np.float32)

    def mean(values):
        return cv2.blur(values, (neighbourhood, neighbourhood), borderType=cv2.BORDER_REFLECT)

    return QualityMap(mean(weight * quality.reshape(shape)) / mean(weight),
                      mean(np.ascontiguousarray(confidence.reshape(shape))))


# ---------------------------------------------------------------- runtimes

def open_runner(comp_type, folder, runtime=None, threads=None):
    """What runs the network of that folder: (n, 16, 16, 3) uint8 -> (n, 2) float32.

    runtime: one of `RUNTIMES`, or None for LiteRT if it can, else TensorFlow. Either runs
    the folder's model file, so that both answer alike; without a usable one, TensorFlow runs
    the checkpoint.
    """
    path = Path(folder) / MODEL_FILE
    try:
        model = read_model(comp_type, path)
        return ModelRunner(*find_interpreter(runtime), path, model, threads)
    except NoModel:
        if runtime == 'litert':
            raise
    return CheckpointRunner(comp_type, folder)


def find_interpreter(runtime=None):
    """Which of `RUNTIMES` runs model files here, and its interpreter's class.

    runtime: as for `open_runner`. NoModel where LiteRT is asked for and not installed.
    """
    if runtime != 'tensorflow':
        try:
            from ai_edge_litert.interpreter import Interpreter
            return 'litert', Interpreter
        except ImportError as error:
            if runtime:
                raise NoModel(f'LiteRT is not installed ({error}); install requirements.txt '
                              'or choose --runtime tensorflow') from None
    tf, _ = import_tensorflow()
    return 'tensorflow', tf.lite.Interpreter


def read_model(comp_type, path):
    """The bytes of a model file.

    NoModel where it is missing or was made of other weights than the checkpoint beside it;
    InputError if it is damaged or not of this network.
    """
    if not path.is_file():
        raise NoModel(f'{path}: no such file; make it with to_tflite.py or choose '
                      '--runtime tensorflow')
    model = path.read_bytes()
    metadata = model_metadata(model)
    if not metadata:
        raise InputError(f'{path}: damaged or not made by to_tflite.py; make it again or '
                         'delete it')
    if metadata['comp_type'] != comp_type.name:
        raise InputError(f'{path}: this model is of {metadata["comp_type"]}, '
                         f'not of {comp_type.name}')
    if weights_digest(path.parent) not in (None, metadata.get('weights_sha256')):
        raise NoModel(f'{path}: made of other weights than those beside it; make it again '
                      'with to_tflite.py or choose --runtime tensorflow')
    return model


class CheckpointRunner:
    """A checkpoint's network, run by TensorFlow; several threads may share it."""
    runtime, model = 'tensorflow', None
    MAX_BATCH = 4096  # patches in one forward pass; bounds memory, not results

    def __init__(self, comp_type, folder):
        network = load_network(comp_type, folder)
        tf, _ = import_tensorflow()
        self._forward = tf.function(
            lambda x: network(tf.cast(x, tf.float32), training=False),
            input_signature=[tf.TensorSpec((None, *network.input_shape[1:]), tf.uint8)])

    def __call__(self, patches):
        parts = [self._forward(patches[i:i + self.MAX_BATCH]).numpy()
                 for i in range(0, len(patches), self.MAX_BATCH)]
        return np.concatenate(parts)


class ModelRunner:
    """The network in a model file, run by an interpreter of TFLite models in one thread at a time.

    runtime: which of `RUNTIMES` it is; interpreter: its class; model: the bytes of the file at
    that path. InputError if it cannot run them.
    """
    BATCH = 32  # patches in one forward pass: larger ones are not quicker, and few waste less

    def __init__(self, runtime, interpreter, path, model, threads=None):
        self.runtime, self.model = runtime, model
        try:
            with quiet():
                self._interpreter = interpreter(model_content=model,
                                                num_threads=threads or cores())
                self._input, = self._interpreter.get_input_details()
                self._output, = self._interpreter.get_output_details()
                self._batch = np.zeros((self.BATCH, *self._input['shape'][1:]),
                                       self._input['dtype'])
                self._interpreter.resize_tensor_input(self._input['index'], self._batch.shape)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0][:160]
            raise InputError(f'{path}: this {runtime} cannot run it ({reason}); make it again '
                             'with to_tflite.py or delete it') from None

    def __call__(self, patches):
        output = np.empty((len(patches), 2), np.float32)
        for i in range(0, len(patches), self.BATCH):
            part = patches[i:i + self.BATCH]
            self._batch[:len(part)] = part
            self._interpreter.set_tensor(self._input['index'], self._batch)
            self._interpreter.invoke()
            found = self._interpreter.get_tensor(self._output['index'])
            output[i:i + len(part)] = found[:len(part)]
        return output


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def description_field(model):
    """Where in a TFLite file's bytes the offset of its description lies.

    The file is a flatbuffer: the description is the fourth field of its root table, stored
    as an offset from that place to a length and so many bytes. struct.error for
    bytes that are too short.
    """
    root, = struct.unpack_from('<I', model)
    table = root - struct.unpack_from('<i', model, root)[0]
    return root + struct.unpack_from('<H', model, table + 4 + 2 * 3)[0]


def model_metadata(model):
    """What to_tflite.py wrote at the end of a TFLite file of those bytes: a dict.

    {} for a file that it did not make, or that was damaged since.
    """
    try:
        field = description_field(model)
        text = field + struct.unpack_from('<I', model, field)[0]
        length, = struct.unpack_from('<I', model, text)
        found = json.loads(model[text + 4:text + 4 + length])
        whole = found['sha256'] == hashlib.sha256(model[:text]).hexdigest()
    except (struct.error, ValueError, LookupError, TypeError):
        return {}
    return found if whole else {}


def weights_digest(folder):
    """SHA-256 of the weights in a checkpoint folder, in hexadecimal; None without any."""
    path = Path(folder) / '.data-00000-of-00001'
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


# ---------------------------------------------------------------- weights

def best_folder(comp_type, save_folder=SAVE_FOLDER):
    """Where the best weights of that compression type lie."""
    return Path(save_folder) / comp_type.name / 'best'


def stored_threshold(comp_type, folder):
    """The confidence threshold validated with these weights, else the type's own."""
    path = Path(folder) / THRESHOLD_FILE
    if not path.exists():
        return comp_type.threshold
    try:
        threshold = float(path.read_text())
    except ValueError:
        threshold = np.nan
    if not 0 <= threshold <= 100:
        raise InputError(f'{path}: not a confidence threshold in 0..100; '
                         'correct it or delete it')
    return threshold


def stored_likelihood(folder, required=False):
    """`patch_likelihood` as fitted to these weights; None, or InputError, without one."""
    path = Path(folder) / LIKELIHOOD_FILE
    if not path.exists() and not required:
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found = file['log_likelihood'].astype(np.float32)
        if found.shape == (100, len(CONFIDENCE_EDGES) + 1, 101) and np.isfinite(found).all():
            return found
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    raise InputError(f'{path}: missing or damaged; make it with evaluate_cls.py '
                     '--fit_likelihood on training photos, or choose --fusion median')


def load_network(comp_type, folder):
    """The network with the weights of a checkpoint folder, or of a weights.npz.

    The folder itself is the checkpoint's prefix: it holds `.index` and
    `.data-00000-of-00001`. InputError when they are missing, Git LFS pointers,
    damaged, not finite, or of another compression type.
    """
    if Path(folder).suffix == '.npz':
        network = build_network(comp_type)
        network.set_weights(load_weights(comp_type, folder))
        return network
    prefix = checkpoint_prefix(folder, 'train some with train.py or name a folder with --weights')
    tf, _ = import_tensorflow()
    with damage_named(folder):
        shapes = tf.compat.v1.train.NewCheckpointReader(prefix).get_variable_to_shape_map()
    first_conv = shapes.get('layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE')
    if first_conv is None:
        raise InputError(f'{folder}: a checkpoint, but not of this network')
    if first_conv != [3, 3, 3, comp_type.k]:
        known = [t.name for t in COMP_TYPES.values() if first_conv == [3, 3, 3, t.k]]
        raise InputError(f'{folder}: these weights are not of {comp_type.name}'
                         + (f'; they fit --comp_type {known[0]}' if known else ''))
    return with_weights(build_network(comp_type), prefix)


def weight_shapes(comp_type):
    """Of the network, in the order of Keras' `get_weights`: a list of tuples."""
    shapes, channels = [], 3
    for width in STAGE_WIDTHS:
        filters = comp_type.k * width
        for size, taken in (3, channels), (1, filters), (3, filters), (1, filters):
            shapes += [(size, size, taken, filters)] + 4 * [(filters,)]  # batch normalisation
        channels = filters
    return shapes + [(3, 3, channels, comp_type.k), (comp_type.k,), (comp_type.k, 2), (2,)]


def load_arrays(path):
    """What `np.savez` wrote without names: a list of arrays; InputError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[f'arr_{i}'] for i in range(len(file.files))]
    except FileNotFoundError:
        raise InputError(f'{path}: no such file; train_gpu.py writes it') from None
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError,
            zipfile.BadZipFile):
        raise InputError(f'{path}: damaged; make it again with train_gpu.py') from None


def load_weights(comp_type, path):
    """The network's weights in the weights.npz that train_gpu.py writes.

    A list of float32 arrays as Keras' `get_weights` gives them. InputError if the file is
    missing, damaged, not finite, or of another compression type.
    """
    arrays = load_arrays(path)
    if [a.shape for a in arrays] != weight_shapes(comp_type):
        raise InputError(f'{path}: these weights are not of {comp_type.name}')
    if not all(np.isfinite(a).all() for a in arrays):
        raise InputError(f'{path}: the weights are not finite numbers; train them again')
    return arrays


def checkpoint_prefix(folder, advice):
    """The prefix of the checkpoint in a folder; InputError, with that advice, for none."""
    folder = Path(folder)
    refuse_wildcards(folder)
    for path in (folder / '.index', folder / '.data-00000-of-00001'):
        if not path.is_file():
            raise InputError(f'{folder}: no weights there ({path.name} is missing); {advice}')
        with path.open('rb') as file:
            if file.read(40).startswith(b'version https://git-lfs'):
                raise InputError(f'{path}: a Git LFS pointer, not the weights; '
                                 'fetch them with "git lfs pull"')
    return os.path.join(folder, '')


def with_weights(network, prefix):
    """The network with a checkpoint's weights; InputError unless all are there and finite."""
    folder = Path(prefix)
    with damage_named(folder):
        network.load_weights(prefix).assert_existing_objects_matched().expect_partial()
    if not all(np.isfinite(w).all() for w in network.get_weights()):
        raise InputError(f'{folder}: the weights are not finite numbers; train them again')
    return network


def refuse_wildcards(folder):
    """InputError for a path that TensorFlow would take for a pattern."""
    if any(c in str(folder.resolve()) for c in '[]*?'):
        raise InputError(f'{folder}: TensorFlow takes [ ] * ? in a path for wildcards; rename it')


@contextlib.contextmanager
def damage_named(folder):
    """Turn TensorFlow's many errors about a damaged checkpoint into one InputError."""
    tf, _ = import_tensorflow()
    try:
        yield
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(f'{folder}: damaged checkpoint ({reason}); '
                         'fetch or train it again') from None
