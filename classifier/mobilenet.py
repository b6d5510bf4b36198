#!/usr/bin/env python3
"""MobileNetV2 for the quality of an image: the paper's generic baseline. Trains it.

    python3 classifier/mobilenet.py --in_path DIV2K_train_HR --val_path DIV2K_valid_HR

Sees 384,000 crops of 48x48, 0.88 gigapixels, from random weights, and keeps the best in
classifier/save/mobilenet_v2/best. The photos stay in memory (3 bytes a pixel); crops are
compressed as they are drawn. Ctrl-C, or a file `stop_training` in the out_path, stops it
cleanly; `--resume` goes on.

`evaluate_cls.py --compare` holds these weights against Q1Net's. Network: Sandler et al.,
"MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
"""
import argparse
import functools
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from console import command
from gen_data import sources
from images import compress, list_images, read_image
from models import (SAVE_FOLDER, InputError, checkpoint_prefix, cores, import_tensorflow,
                    with_weights)
from train import (BestWeights, Trainer, add_output_options, add_photo_options,
                   add_training_options, run_training, settle_schedule)

NAME = 'mobilenet_v2'
ALPHA = 0.35          # width multiplier: the narrowest usual one, for training on 2 cores
SIDE = 48             # px of a crop
SAMPLES = 16          # crops along each axis of an image, at most
MARGIN = 8            # px of JPEG around it, so that a crop never shows an image's border
PHASES = 16           # of the grid of chroma blocks, at each of which a crop may lie
TILE = SIDE + 2 * MARGIN + PHASES
VALIDATION_CROPS = 2048
SCHEDULE = {'epochs': 12, 'steps_per_epoch': 500, 'batch_size': 64, 'lr': 1e-3,
            'warmup_steps': 100, 'seed': 0}


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photo_options(parser)
    add_training_options(parser, SCHEDULE, f'out/{NAME}')
    add_output_options(parser)
    parser.set_defaults(comp_type=NAME)
    return parser.parse_args(argv)


# ---------------------------------------------------------------- network

def build_network(seed=None):
    """MobileNetV2 with a regression head, randomly initialised from that seed.

    Input (N, h, w, 3), float32, BGR in 0..255; output (N, 1), float32: the quality in
    0..100. Three things make it leave the constant answer. Compression shows in differences
    of a level or two between neighbours, so the body sees a pixel minus its 3x3 mean, with
    larger differences squashed. Residual blocks begin as the identity (Goyal et al. 2017,
    arXiv:1706.02677). The 1,280 features, which are all positive, are made small, or else
    one step of Adam moves every answer by much.
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


def absolute_error(quality, output):
    """Loss and absolute error of (N,) qualities, which are the same: float32 (N,) each."""
    tf, _ = import_tensorflow()
    error = tf.abs(tf.cast(quality, tf.float32) - output[:, 0])
    return error, error


def weights_folder(save_folder=SAVE_FOLDER):
    """Where the best weights lie."""
    return Path(save_folder) / NAME / 'best'


def load(folder):
    """The network with the weights of a checkpoint folder; InputError as `load_network`."""
    prefix = checkpoint_prefix(folder, 'train MobileNetV2 with python3 classifier/mobilenet.py '
                               '--in_path PHOTOS --val_path OTHER_PHOTOS')
    return with_weights(build_network(), prefix)


@functools.lru_cache(maxsize=1)
def _forward(network):
    tf, _ = import_tensorflow()
    return tf.function(lambda x: network(tf.cast(x, tf.float32), training=False),
                       input_signature=[tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8)])


def grid(image):
    """Crops (n, 48, 48, 3) spread evenly over an image (h, w, 3), at most 16 x 16 of them.

    They do not overlap. InputError for an image smaller than a crop.
    """
    if min(image.shape[:2]) < SIDE:
        raise InputError(f'{image.shape[1]}x{image.shape[0]} is too small; MobileNetV2 needs '
                         f'{SIDE} px on each side')
    top, left = (np.linspace(0, length - SIDE, min(length // SIDE, SAMPLES)).astype(int)
                 for length in image.shape[:2])
    span = np.arange(SIDE)
    crops = image[(top[:, None] + span)[:, None, :, None], (left[:, None] + span)[:, None]]
    return crops.reshape(-1, SIDE, SIDE, 3)


def predict(network, image):
    """The quality, 0..100, of an image (h, w, 3) uint8 BGR: the median over a grid of crops."""
    return float(np.median(_forward(network)(grid(image))))


# ---------------------------------------------------------------- crops

class PhotoCrops:
    """Crops of photos, compressed as they are drawn; has what a `PatchFile` has.

    A tile of a photo, from anywhere, is compressed at a random quality, and the crop cut
    from its middle at a random phase of the block grid.
    """
    side = SIDE

    def __init__(self, folder, recursive=False):
        with ThreadPoolExecutor(cores()) as pool:
            paths = sources(list_images(folder, recursive), TILE, pool)
            self.photos = list(pool.map(read_image, paths))

    def __len__(self):
        return VALIDATION_CROPS

    def crops(self, count, rng):
        """(count, 48, 48, 3) uint8 BGR and (count,) uint8 qualities, one after the other."""
        x, y = np.empty((count, SIDE, SIDE, 3), np.uint8), np.empty(count, np.uint8)
        for i in range(count):
            photo = self.photos[rng.integers(len(self.photos))]
            top, left = rng.integers(np.array(photo.shape[:2]) - TILE + 1)
            tile = np.ascontiguousarray(photo[top:top + TILE, left:left + TILE])
            y[i] = rng.integers(1, 101)
            dy, dx = MARGIN + rng.integers(PHASES, size=2)
            x[i] = compress(tile, int(y[i]))[dy:dy + SIDE, dx:dx + SIDE]
        return x, y

    def batches(self, batch_size, seed, step=0):
        """Endless batches for training, from that step on; `seed` and step decide alone."""
        while True:
            yield self.crops(batch_size, np.random.default_rng((seed, step)))
            step += 1

    def in_order(self, batch_size):
        """The same 2,048 crops every time: for validation."""
        rng = np.random.default_rng(0)
        for start in range(0, len(self), batch_size):
            yield self.crops(min(batch_size, len(self) - start), rng)


@command
def main(argv=None):
    args = parse_args(argv)
    schedule = settle_schedule(args, SCHEDULE)
    train_crops = PhotoCrops(args.in_path, args.recursive)
    val_crops = PhotoCrops(args.val_path, args.recursive)
    trainer = Trainer(build_network(schedule['seed']), build_network(), absolute_error, schedule)
    best = BestWeights(weights_folder(args.save_path), load)
    return run_training(args, schedule, trainer, best, train_crops, val_crops)


if __name__ == '__main__':
    sys.exit(main())
