"""MobileNetV2, the generic baseline: its crops, its training, and the comparison with it."""
import csv
import json

import cv2
import numpy as np
import pytest

from classifier import evaluate_cls, images
from classifier.environment import import_tensorflow
from classifier.forensics.lattice import find_quality
from classifier.studies import mobilenet
from classifier.training.photo_source import PhotoSource
from conftest import CLASSIFIER, PRISTINE


@pytest.fixture(scope='module')
def crops(photo_folder):
    return PhotoSource(photo_folder, mobilenet.SIDE, augment=False)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The folder where --compare looks for MobileNetV2's weights; validation is short."""
    folder = tmp_path / 'save' / 'mobilenet_v2' / 'best'
    monkeypatch.setattr(mobilenet, 'SHIPPED', folder)
    monkeypatch.setattr(mobilenet, 'VALIDATION_CROPS', 6)
    return folder


def run(photo_folder, out, *more):
    return mobilenet.main(['--in_path', str(photo_folder), '--val_path', str(photo_folder),
                           '--out_path', str(out), '--batch_size', '4', *more])


def compare(folder, out, *more):
    return evaluate_cls.main(['--in_path', str(folder), '--comp_type', 'jpeg_paper', '--study',
                              'compare', '--qualities', '20,60', '--limit', '2', '--out_path',
                              str(out), *more])


# ---------------------------------------------------------------- crops

def test_crops_carry_the_quality_of_their_label_at_any_phase_of_the_grid(crops):
    x, y = crops.draw(60, np.random.default_rng(1))
    assert x.shape == (60, 48, 48, 3) and y.min() >= 1 and y.max() > 80
    found = [find_quality(crop) for crop in x]
    right = [lattice for lattice, quality in zip(found, y) if lattice.quality == quality]
    assert len(right) >= 55  # others may be too smooth to tell
    assert len({(lattice.grid_dy, lattice.grid_dx) for lattice in right}) > 20


def test_a_training_goes_on_with_the_crops_it_would_have_seen(crops):
    batches, later = crops.batches(3, seed=5), crops.batches(3, seed=5, step=2)
    (x0, _), (x1, _), (x2, y2) = (next(batches) for _ in range(3))
    x, y = next(later)
    assert (x == x2).all() and (y == y2).all()
    assert not (x0 == x1).all() and not (x1 == x2).all()


def test_validation_crops_are_always_the_same(crops):
    whole, parts = (list(crops.fixed(7).in_order(size)) for size in (7, 3))
    assert [len(y) for _, y in parts] == [3, 3, 1]
    assert (np.concatenate([x for x, _ in parts]) == whole[0][0]).all()
    assert (np.concatenate([y for _, y in parts]) == whole[0][1]).all()


def test_an_image_is_looked_at_all_over(photo):
    crops = mobilenet.crop_grid(photo)  # 300 x 400
    assert crops.shape == (6 * 8, 48, 48, 3)
    assert (crops[0] == photo[:48, :48]).all() and (crops[-1] == photo[-48:, -48:]).all()
    assert (crops[8] == photo[50:98, :48]).all()  # (300 - 48) / 5 = 50.4 px further down
    assert mobilenet.crop_grid(np.zeros((2000, 48, 3), np.uint8)).shape == (16, 48, 48, 3)


# ---------------------------------------------------------------- network

def test_brightness_tells_nothing_of_the_quality(crops):
    x, _ = crops.draw(8, np.random.default_rng(2))
    network, x = mobilenet.build_network(seed=1), np.clip(x, 0, 200).astype(np.float32)
    answers, brighter, noisy = (
        network(image, training=True).numpy()
        for image in (x, x + 50, x + np.random.default_rng(3).normal(0, 3, x.shape)))
    assert answers.std() > 0.01
    np.testing.assert_allclose(answers, brighter, atol=answers.std() / 100)
    assert np.abs(answers - noisy).max() > answers.std() / 2


# ---------------------------------------------------------------- training

def small_network(seed=None):
    """One convolution in place of MobileNetV2, which takes long to get going."""
    _, keras = import_tensorflow()
    kernel = keras.initializers.GlorotUniform(seed or 0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, activation='relu', kernel_initializer=kernel)(image / 255)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, 100 * keras.layers.Dense(1, 'sigmoid', kernel_initializer=kernel)(x))


def test_slices_of_a_training_equal_one_run(photo_folder, tmp_path, weights, monkeypatch):
    monkeypatch.setattr(mobilenet, 'build_network', small_network)
    more = ('--epochs', '2', '--steps_per_epoch', '3', '--seed', '4')
    assert run(photo_folder, tmp_path / 'whole', *more) == 0
    assert run(photo_folder, tmp_path / 'slices', *more, '--until_epoch', '1') == 0
    assert run(photo_folder, tmp_path / 'slices', '--resume') == 0
    whole, slices = (list(csv.DictReader((tmp_path / d / 'history_cls.csv').open()))
                     for d in ('whole', 'slices'))
    assert [row['step'] for row in slices] == ['3', '6']
    for a, b in zip(whole, slices):
        assert float(a['loss']) == pytest.approx(float(b['loss']), rel=1e-3)
        assert float(a['val_loss']) == pytest.approx(float(b['val_loss']), rel=1e-3)
    lowest = min(float(row['val_loss']) for row in whole + slices)
    for folder in ('whole', 'slices'):
        best = tmp_path / folder / 'best' / 'val_loss.txt'
        assert float(best.read_text()) == pytest.approx(lowest, abs=1e-3)
    assert not weights.exists()  # nothing but the out_path is written to


@pytest.mark.long
def test_a_trained_mobilenet_is_compared(photo_folder, tmp_path, weights, capsys):
    assert run(photo_folder, tmp_path, '--epochs', '1', '--steps_per_epoch', '2') == 0
    weights.parent.mkdir(parents=True)
    (tmp_path / 'best').rename(weights)
    assert compare(photo_folder, tmp_path, '--crop', '3,5') == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / 'results_compare.json').read_text())
    assert results['images'] == 2 and results['crop'] == [3, 5] and results['abstained'] == 0
    assert len(results['baseline_weights']) == 16
    likelihood, network = 'JPEG-specific, maximum likelihood', mobilenet.load(weights)
    assert results[likelihood]['mae'] == 0
    assert results['Q1Net, jpeg_paper']['mae'] < 2
    errors = []
    for path in sorted(photo_folder.iterdir())[:2]:
        for quality in (20, 60):
            coded = images.compress(images.read_image(path), quality)[3:, 5:]
            errors.append(abs(mobilenet.predict(network, coded) - quality))
    assert results['MobileNetV2']['mae'] == pytest.approx(np.mean(errors), abs=0.01)
    assert results['MobileNetV2']['count'] == 4
    assert all(method in printed for method in (likelihood, 'MobileNetV2', 'Q1Net'))
    height, width = cv2.imread(str(tmp_path / 'compare.png')).shape[:2]
    assert width > 2 * height


# ---------------------------------------------------------------- what cannot be used

def test_an_abstaining_estimator_counts_as_100(tmp_path, weights, monkeypatch):
    cv2.imwrite(str(tmp_path / 'flat.png'), np.full((256, 256, 3), 128, np.uint8))
    monkeypatch.setattr(mobilenet, 'load', lambda _: small_network())
    assert compare(tmp_path, tmp_path / 'out') == 0
    results = json.loads((tmp_path / 'out' / 'results_compare.json').read_text())
    assert results['abstained'] == 1
    assert results['JPEG-specific, maximum likelihood']['mae'] == 60  # mean of 80 and 40


def test_too_much_cut_off_is_named(tmp_path, weights, monkeypatch, capsys):
    cv2.imwrite(str(tmp_path / 'flat.png'), np.full((256, 256, 3), 128, np.uint8))
    monkeypatch.setattr(mobilenet, 'load', lambda _: small_network())
    assert compare(tmp_path, tmp_path / 'out', '--crop', '0,210') == 2
    assert 'flat.png: 46x256 is too small; MobileNetV2 needs 48 px' in capsys.readouterr().err


def test_the_shipped_baseline_is_not_trained_over(photo_folder, capsys):
    assert run(photo_folder, CLASSIFIER / 'save' / 'mobilenet_v2', '--epochs', '1') == 2
    assert 'holds the shipped weights' in capsys.readouterr().err


def test_without_weights_a_line_says_how_to_train_them(photo_folder, tmp_path, weights, capsys):
    assert compare(photo_folder, tmp_path) == 2
    *_, error = capsys.readouterr().err.splitlines()  # it may say first that it loads TensorFlow
    assert f'{weights}: no weights there' in error
    assert 'train MobileNetV2 with python3 -m classifier.studies.mobilenet --in_path' in error


def test_photos_that_cannot_be_used_are_named(photo_folder, tmp_path, weights, capsys):
    assert run(tmp_path / 'nowhere', tmp_path / 'out') == 2
    assert compare(tmp_path / 'nowhere', tmp_path / 'out') == 2
    assert capsys.readouterr().err.count('nowhere: no such folder') == 2
    cv2.imwrite(str(tmp_path / 'small.png'), cv2.imread(str(PRISTINE[0]))[:70])
    assert run(tmp_path, tmp_path / 'out') == 2
    assert 'small.png: 384x70 is smaller than' in capsys.readouterr().err
