"""Q1Net, the paper alone: compression types, patch network, loss, sampling grid, median fusion.

A 16x16 patch of decoded pixels goes through a small convolutional network with two outputs: the
JPEG quality at which the patch was compressed, and the confidence in that answer. The quality of
an image is the median over its confident patches.

    from classifier.models import (COMP_TYPES, build_network, extract_patches, median_fusion)
    comp_type = COMP_TYPES['jpeg_paper']
    network = build_network(comp_type)                      # random weights
    output = network(extract_patches(bgr_image, comp_type).astype('float32')).numpy()
    quality = median_fusion(output, comp_type.threshold)

Source: Kim and Yang, "Quality Level Prediction of Image Compression using Block-wise
Confidence-aware CNN", BMVC 2021.
"""
import itertools
import sys
from dataclasses import dataclass

import numpy as np

from classifier.environment import import_tensorflow
from classifier.errors import InputError

STAGE_WIDTHS = (1, 2, 4, 8, 4, 2)  # channels of stages 1..6, in units of K (paper)


@dataclass(frozen=True)
class CompType:
    """How images were compressed, and the network trained for it.

    Parameters
    ----------
    name : str
    k : int
        Unit of the stage widths, in channels.
    threshold : float
        Patches of no more confidence than this are left out of the median (paper), 0..100.
    max_quality : int
        Qualities are 1..max_quality, on libjpeg's scale.
    block, patch : int
        Coding block of the codec, and side of a network input: one whole block and a margin; px.
    samples : int
        Patch positions along each axis of an image.
    """
    name: str
    k: int
    threshold: float
    max_quality: int = 100
    block: int = 8
    patch: int = 16
    samples: int = 16


COMP_TYPES = {t.name: t for t in (CompType('jpeg_paper', k=8, threshold=96),
                                  CompType('jpeg_paper_k12', k=12, threshold=97),
                                  CompType('jpeg_robust', k=12, threshold=90))}


def get_comp_type(name: str) -> CompType:
    """The `CompType` of that name; InputError, which lists the known ones, for any other."""
    try:
        return COMP_TYPES[name]
    except KeyError:
        raise InputError(f'unknown compression type {name!r}: '
                         f'choose one of {", ".join(COMP_TYPES)}') from None


def build_network(comp_type: CompType, seed: int | None = None):
    """The patch network, randomly initialised as Keras does by default.

    Layers are created in the reference's order, on which its checkpoints depend.

    Parameters
    ----------
    comp_type : CompType
    seed : int, optional
        Of the initial weights; without one they differ from call to call.

    Returns
    -------
    tf_keras.Model
        From (N, 16, 16, 3) float32, BGR in 0..255, not normalised, to (N, 2) float32: confidence
        and quality, both in 0..100.
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


def feature_network(network):
    """The network of `build_network` up to its pooled features, with the same weights.

    Parameters
    ----------
    network : tf_keras.Model

    Returns
    -------
    tf_keras.Model
        From (N, 16, 16, 3) float32 as before to (N, K) float32, not negative: the mean of each
        channel, which the last layer makes confidence and quality of.
    """
    _, keras = import_tensorflow()
    pooled, = (layer.output for layer in network.layers
               if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    return keras.Model(network.input, pooled, name=f'{network.name}_features')


def confidence_loss(quality, output):
    """The paper's confidence-aware loss of each patch, 0.5 |C* - C| + |Q* - Q|.

    The confidence target C* = 100 - |Q* - Q| comes from the same forward pass and lets no
    gradient through: the network is to learn its error, not to fit it.

    Parameters
    ----------
    quality : tensor or array, shape (N,)
        True qualities Q*, 1..100.
    output : tensor, shape (N, 2), float32
        Predicted confidence C and quality Q, 0..100.

    Returns
    -------
    loss, error : float32 tensors, shape (N,)
        The loss, and its second term alone: the absolute error of the quality, in levels.
    """
    tf, _ = import_tensorflow()
    confidence, predicted = tf.unstack(output, axis=1)
    error = tf.abs(tf.cast(quality, tf.float32) - predicted)
    target = 100.0 - tf.stop_gradient(error)
    return 0.5 * tf.abs(target - confidence) + error, error


def grid_positions(size: int, comp_type: CompType) -> np.ndarray:
    """Where the patches start along one side of an image.

    Up to 16 block positions, evenly distributed over the whole blocks, and 4 px further in: each
    patch holds one whole coding block and a margin of 4 px. Repeated positions are used once.

    Parameters
    ----------
    size : int
        Length of the side, in px.
    comp_type : CompType

    Returns
    -------
    int array, shape (n,), n <= 16
        Sorted; a side of 16 to 23 px holds one patch.

    Raises
    ------
    InputError
        The side is shorter than a patch.
    """
    t = comp_type
    margin = (t.patch - t.block) // 2
    return np.unique(np.minimum(block_positions(size, t) + margin, size - t.patch))


def block_positions(size: int, comp_type: CompType) -> np.ndarray:
    """Start of the coding block of each of the 16 grid positions, px; small sides repeat some."""
    t = comp_type
    if size < t.patch:
        raise InputError(f'a side of {size} px is too small: at least {t.patch} px are needed')
    n = (t.block * (size // t.block) - t.patch - t.block) // t.block + 1
    return (np.arange(t.samples) + 1) * n // (t.samples + 1) * t.block


def extract_patches(image: np.ndarray, comp_type: CompType) -> np.ndarray:
    """The patches of an image on the paper's sampling grid.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, each side at least 16 px.
    comp_type : CompType

    Returns
    -------
    uint8 array, shape (n, 16, 16, 3)
        Row by row, n up to 256.

    Raises
    ------
    InputError
        A side is shorter than a patch.
    """
    rows, columns = (grid_positions(side, comp_type) for side in image.shape[:2])
    patches = patch_windows(image, comp_type)[rows[:, None], columns]
    return patches.reshape(-1, *patches.shape[2:])


def patch_windows(image: np.ndarray, comp_type: CompType) -> np.ndarray:
    """A view of every patch of an image: (h - 15, w - 15, 16, 16, 3), nothing copied."""
    side = comp_type.patch
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
    return windows.transpose(0, 1, 3, 4, 2)


def median_fusion(output: np.ndarray, threshold: float, max_quality: int = 100) -> float:
    """The paper's answer for an image: the median quality of its confident patches.

    Parameters
    ----------
    output : float array, shape (n, 2)
        Confidence and quality of each patch, 0..100.
    threshold : float
        Patches of no more confidence than this are left out.
    max_quality : int
        The answer where no patch is left.

    Returns
    -------
    float
        A quality, 1..max_quality.
    """
    confidence, quality = np.asarray(output, np.float64).T
    kept = quality[confidence > threshold]
    return float(np.median(kept)) if kept.size else float(max_quality)


def __getattr__(name):
    """`from classifier.models import Predictor` goes on working: the package has it."""
    if name in ('Predictor', 'Prediction'):
        return getattr(sys.modules[__package__], name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
