"""MobileNetV2 for the quality of an image: the generic baseline of the paper, and its training.

    python3 -m classifier.studies.mobilenet --in_path DIV2K_train_HR --val_path DIV2K_valid_HR

It sees 384,000 crops of 48x48, 0.88 gigapixels, from random weights, and keeps the best weights
in out_path/best. The photos stay in memory (3 bytes a pixel); crops are compressed as they are
drawn. Ctrl-C, or a file `stop_training` in the out_path, stops it cleanly; `--resume` continues.

`evaluate_cls.py --study compare` compares it with Q1Net. Network: Sandler et al., "MobileNetV2:
Inverted Residuals and Linear Bottlenecks", CVPR 2018.
"""
import functools
import os
import sys
from typing import Any

import numpy as np

from classifier.checkpoints import SAVE_FOLDER, load_checkpoint, save_checkpoint
from classifier.cli import begin, command, script_parser
from classifier.environment import import_tensorflow
from classifier.errors import InputError
from classifier.training.best_weights import BestWeights
from classifier.training.keras_step import KerasStep
from classifier.training.loop import run_training
from classifier.training.photo_source import PhotoSource
from classifier.training.schedule import (add_photo_options, add_training_options,
                                          resolve_schedule)

NAME = 'mobilenet_v2'
ALPHA = 0.35          # width multiplier: the narrowest usual one, for training on 2 cores
SIDE = 48             # px of a crop
SAMPLES = 16          # crops along each axis of an image, at most
VALIDATION_CROPS = 2048
SCHEDULE = {'epochs': 12, 'steps_per_epoch': 500, 'batch_size': 64, 'lr': 1e-3,
            'warmup_steps': 100, 'seed': 0}
SHIPPED = SAVE_FOLDER / NAME / 'best'


def build_network(seed: int | None = None):
    """MobileNetV2 with a regression head, randomly initialised.

    Three things make it leave the constant answer. Compression shows in differences of a level or
    two between neighbours, so the body sees a pixel minus its 3x3 mean, with larger differences
    squashed. Residual blocks begin as the identity (Goyal et al.). The 1,280 features, which are
    all positive, are made small, or else one step of Adam moves every answer by much.

    Parameters
    ----------
    seed : int, optional
        Of the initial weights; without one they differ from call to call.

    Returns
    -------
    tf_keras.Model
        From (N, h, w, 3) float32, BGR in 0..255, to (N, 1) float32: the quality, 0..100.

    References
    ----------
    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", arXiv:1706.02677.
    """
    _, keras = import_tensorflow()
    layers = keras.layers
    body = keras.applications.MobileNetV2(input_shape=(None, None, 3), alpha=ALPHA,
                                          include_top=False, weights=None, pooling='avg')
    image = keras.Input((None, None, 3))
    x = layers.Activation('tanh')(image - layers.AveragePooling2D(3, 1, 'same')(image))
    x = layers.Dense(1, activation='sigmoid')(body(x) / 32)
    network = keras.Model(image, x * 100.0, name=NAME)
    if seed is not None:  # Keras' own initialisation; its set_random_seed fails on Python 3.12
        for i, weight in enumerate(network.trainable_weights):
            if weight.shape.rank > 1:
                weight.assign(keras.initializers.GlorotUniform(1000 * seed + i)(weight.shape))
    for layer in body.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # as in the patch network; 0.999 is for longer trainings
        if isinstance(layer, layers.Add):
            gamma = body.get_layer(layer.name.replace('add', 'project_BN')).gamma
            gamma.assign(0 * gamma)
    return network


def load(folder: str | os.PathLike):
    """The network with the weights of a checkpoint folder; InputError as `load_checkpoint`."""
    return load_checkpoint(build_network(), folder, 'train MobileNetV2 with python3 -m '
                           'classifier.studies.mobilenet --in_path PHOTOS --val_path OTHER_PHOTOS')


@functools.lru_cache(maxsize=1)
def _forward(network):
    tf, _ = import_tensorflow()
    return tf.function(lambda x: network(tf.cast(x, tf.float32), training=False),
                       input_signature=[tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8)])


def crop_grid(image: np.ndarray) -> np.ndarray:
    """At most 16 x 16 crops, evenly spaced over an image, without overlap.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)

    Returns
    -------
    uint8 array, shape (n, 48, 48, 3)
        Row by row, n up to 256.

    Raises
    ------
    InputError
        A side is shorter than a crop.
    """
    if min(image.shape[:2]) < SIDE:
        raise InputError(f'{image.shape[1]}x{image.shape[0]} is too small; MobileNetV2 needs '
                         f'{SIDE} px on each side')
    top, left = (np.linspace(0, length - SIDE, min(length // SIDE, SAMPLES)).astype(int)
                 for length in image.shape[:2])
    windows = np.lib.stride_tricks.sliding_window_view(image, (SIDE, SIDE, 3))
    return windows[top[:, None], left].reshape(-1, SIDE, SIDE, 3)


def predict(network, image: np.ndarray) -> float:
    """The quality of an image: the median over its `crop_grid`.

    Parameters
    ----------
    network : tf_keras.Model
        From `load`.
    image : uint8 array, shape (h, w, 3)
        BGR pixels, each side at least 48 px.

    Returns
    -------
    float
        0..100.
    """
    return float(np.median(_forward(network)(crop_grid(image))))


def absolute_error(quality: Any, output: Any) -> tuple[Any, Any]:
    """Loss and absolute error, which are the same, of (N,) qualities and an output (N, 1)."""
    tf, _ = import_tensorflow()
    error = tf.abs(tf.cast(quality, tf.float32) - output[:, 0])
    return error, error


def _save(arrays, folder):
    network = build_network()
    network.set_weights(arrays)
    save_checkpoint(network, folder)


@command
def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    add_photo_options(parser, required=True)
    add_training_options(parser, SCHEDULE, f'out/{NAME}')
    parser.set_defaults(comp_type=NAME)
    args = parser.parse_args(argv)
    schedule = resolve_schedule(args, SCHEDULE)
    begin('loading what to train on, and the network')
    train, val = (PhotoSource(folder, SIDE, args.recursive, augment=False)
                  for folder in (args.in_path, args.val_path))
    backend = KerasStep(lambda: build_network(schedule['seed']), absolute_error,
                        schedule['batch_size'])
    best = BestWeights(args.out_path / 'best', lambda folder: load(folder).get_weights(), _save)
    return run_training(args, schedule, backend, best, train, val.fixed(VALIDATION_CROPS))


if __name__ == '__main__':
    sys.exit(main())
