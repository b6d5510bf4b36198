"""Fitting the learned fusion: which answers of an image's patches go with which level and edit."""
import argparse
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from classifier.checkpoints import POSTERIOR_FILE, refuse_shipped
from classifier.cli import Progress
from classifier.edits import EVERY_KIND as KINDS, apply
from classifier.environment import import_tensorflow
from classifier.errors import InputError
from classifier.files import check_writable, save_arrays
from classifier.image_posterior import FEATURES, ImagePosterior, image_features
from classifier.likelihood import augmented_patches
from classifier.posterior import LEVELS, QUALITIES, summarize
from classifier.predictor import Predictor
from classifier.studies.common import at_level, over_photos

DRAWS = 30             # pictures made of each image, of any level and kind
NEVER_SHARE = 0.15     # of them that are never compressed
SMALL_SHARE, SMALL_SIDES = 0.3, (48, 400)  # of them that are cropped, to sides in px
HELD_OUT = 5           # every fifth image chooses the temperature
SUBSETS = 6            # of an image's patches that stand for other images like it
SOFTNESS = 1.5         # levels; standard deviation of the target around the true quality
WIDTH, DROPOUT, DECAY = 160, 0.1, 1e-4
EPOCHS, BATCH, RATE = 40, 512, 2e-3
# Share of their intervals that are to hold: more than CREDIBLE, for the network was trained on most
# of these images, and errs a little less on them than on others.
AIM = 0.94
TEMPERATURES = np.geomspace(0.4, 4, 100)


def drawn_picture(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int, int]:
    """A picture that was made of an image.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels, never compressed.
    rng : np.random.Generator

    Returns
    -------
    picture : uint8 array, shape (h, w, 3)
        Compressed or not, cropped, edited or not; at least 32 px on each side.
    level : int
        1..101, see `posterior.py`.
    kind : int
        Index into KINDS.
    """
    level = LEVELS if rng.random() < NEVER_SHARE else int(rng.integers(1, LEVELS))
    picture = at_level(image, level, 'mixed', rng)
    height, width = picture.shape[:2]
    if rng.random() < SMALL_SHARE:
        height, width = (min(side, int(rng.integers(*SMALL_SIDES))) for side in (height, width))
    top, left = (int(rng.integers(0, max(1, side - new + 1))) for side, new in
                 zip(picture.shape, (height, width)))
    picture = picture[top:top + height, left:left + width][int(rng.integers(8)):,
                                                           int(rng.integers(8)):]
    kind = int(rng.integers(len(KINDS)))
    changed = apply(KINDS[kind], np.ascontiguousarray(picture), rng)
    return (picture, level, 0) if min(changed.shape[:2]) < 32 else (changed, level, kind)


def fit_posterior(args: argparse.Namespace, paths: list[Path]) -> dict:
    """fit on TRAINING images what an image's answers say of level and edit; store it in --out_path

    Every fifth image is held out: it chooses the temperature at which AIM of the 90 % credible
    intervals hold the true quality.
    """
    refuse_shipped(args.out_path)
    path = args.out_path / POSTERIOR_FILE
    check_writable(path)
    if len(paths) < HELD_OUT:
        raise InputError(f'{args.in_path}: at least {HELD_OUT} images are needed')
    predictor = Predictor(args.comp_type, args.weights, fusion='median', runtime=args.runtime)

    def make(image, seed):
        picture, *truth = drawn_picture(image, np.random.default_rng(seed))
        return augmented_patches(picture, predictor.type), truth, picture.shape[:2]

    pairs = [(p, (number, draw)) for number, p in enumerate(paths) for draw in range(DRAWS)]
    features, truths, held_out = [], [], []
    for _, (number, draw), (patches, truth, size) in over_photos(make, pairs):
        output, rng = predictor.run_network(patches), np.random.default_rng((1, number, draw))
        held_out.append(number % HELD_OUT == HELD_OUT - 1)
        shares = rng.uniform(0.15, 1, SUBSETS)
        features.append([image_features(output, size), *(
            image_features(output, size, (rng.random(len(output)) < share).astype(float))
            for share in shares)])
        truths.append(truth)
    features, held_out = np.array(features), np.array(held_out)
    level, kind = np.array(truths).T
    layers = _fit(features[~held_out], level[~held_out], kind[~held_out])
    found = ImagePosterior(layers, 1.0, KINDS, NEVER_SHARE)
    temperature, metrics = _temperature(found, features[held_out, 0], level[held_out])
    found = ImagePosterior(layers, temperature, KINDS, NEVER_SHARE)
    save_arrays(path, compress=True, **found.arrays())
    print(f'{len(level)} pictures of {len(paths)} images; on those of every fifth image, '
          f'temperature {temperature:.2f}: {100 * metrics["coverage"]:.1f} % of the intervals '
          f'hold, MAE {metrics["mae"]:.2f}; stored in {path}')
    return {'images': len(paths), 'pictures': len(level), 'temperature': temperature} | metrics


def _fit(features: np.ndarray, level: np.ndarray, kind: np.ndarray) -> tuple:
    """The layers of an `ImagePosterior`, from features (n, 1 + SUBSETS, FEATURES)."""
    tf, keras = import_tensorflow()
    tf.random.set_seed(0)  # tf-keras's own set_random_seed fails later, on Python 3.12
    decay, seeds = keras.regularizers.L2(DECAY), count()

    def dense(size, activation, **options):
        drawn = keras.initializers.GlorotUniform(next(seeds))
        return keras.layers.Dense(size, activation, kernel_initializer=drawn, **options)

    inputs = keras.Input((FEATURES,))
    hidden = keras.layers.Dropout(DROPOUT / 2, seed=next(seeds))(inputs)
    for _ in range(2):
        hidden = dense(WIDTH, 'relu', kernel_regularizer=decay)(hidden)
        hidden = keras.layers.Dropout(DROPOUT, seed=next(seeds))(hidden)
    model = keras.Model(inputs, [dense(LEVELS, 'softmax')(hidden),
                                 dense(len(KINDS), 'softmax')(hidden)])
    x = features.reshape(-1, FEATURES)
    y = [np.repeat(values, features.shape[1], axis=0) for values in (_targets(level), kind)]
    steps = EPOCHS * -(-len(x) // BATCH)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)),
                  ['categorical_crossentropy', 'sparse_categorical_crossentropy'],
                  loss_weights=[1, 0.2])
    with Progress(EPOCHS, 'epochs') as progress:
        shown = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: progress.update(
            epoch + 1, f'loss {logs["loss"]:.3f}'))
        model.fit(x, y, BATCH, EPOCHS, verbose=0, callbacks=[shown])
    return tuple(model.get_weights())


def _targets(level: np.ndarray) -> np.ndarray:
    """Probabilities to aim at, (n, 101): some to the neighbours of a quality, none of 'never'."""
    near = np.exp(-np.square((np.arange(1, LEVELS) - level[:, None]) / SOFTNESS) / 2)
    near /= near.sum(axis=1, keepdims=True)
    never = (level == LEVELS)[:, None]
    return np.hstack([np.where(never, 0, near), never]).astype(np.float32)


def _temperature(found: ImagePosterior, features: np.ndarray, level: np.ndarray
                 ) -> tuple[float, dict[str, Any]]:
    """The lowest temperature at which the intervals hold, and how good the answers then are."""
    truth = QUALITIES[level - 1]
    for temperature in TEMPERATURES:
        probability, _ = replace(found, temperature=temperature).probabilities(features)
        answers = [summarize(one) for one in probability]
        low, high, quality = (np.array([getattr(a, name) for a in answers])
                              for name in ('low', 'high', 'quality'))
        coverage = float(((low <= truth) & (truth <= high)).mean())
        if coverage >= AIM:
            break
    return float(temperature), {'coverage': coverage, 'mae': float(np.abs(quality - truth).mean()),
                                'median_width': float(np.median(high - low))}
