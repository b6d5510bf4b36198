"""The paper: network, loss, sampling grid and median fusion, against its figures."""
import numpy as np
import pytest

from classifier.errors import InputError
from classifier.models import (COMP_TYPES, build_network, confidence_loss, extract_patches,
                               get_comp_type, grid_positions, median_fusion)
from conftest import TINY

PAPER = COMP_TYPES['jpeg_paper']


@pytest.mark.parametrize('name, parameters', [('jpeg_paper', 125_234), ('jpeg_paper_k12', 279_578)])
def test_the_networks_have_the_published_sizes(name, parameters):
    network = build_network(COMP_TYPES[name])
    assert network.count_params() == parameters
    assert network.input_shape == (None, 16, 16, 3)
    assert network.output_shape == (None, 2)


def test_every_unpadded_convolution_takes_two_pixels():
    sides = [layer.output_shape[1] for layer in build_network(PAPER).layers
             if type(layer).__name__ == 'Conv2D' and layer.padding == 'valid'
             and layer.kernel_size == (3, 3)]
    assert sides == [14, 12, 10, 8, 6, 4, 2]


def test_confidence_and_quality_stay_within_0_and_100():
    network = build_network(TINY)
    rng = np.random.default_rng(0)
    output = network(rng.uniform(0, 255, (64, 16, 16, 3)).astype('float32')).numpy()
    assert output.min() >= 0 and output.max() <= 100


def test_batch_normalisation_has_the_published_constants():
    found = {(layer.momentum, layer.epsilon) for layer in build_network(TINY).layers
             if type(layer).__name__ == 'BatchNormalization'}
    assert found == {(0.9, 1e-5)}


def test_the_loss_of_a_hand_worked_example():
    # Q* = 50, Q = 47: error 3, C* = 97; C = 90: 0.5 * 7 + 3 = 6.5
    # Q* = 10, Q = 30: error 20, C* = 80; C = 85: 0.5 * 5 + 20 = 22.5
    loss, error = confidence_loss(np.array([50, 10], np.uint8),
                                  np.array([[90, 47], [85, 30]], np.float32))
    assert loss.numpy() == pytest.approx([6.5, 22.5])
    assert error.numpy() == pytest.approx([3, 20])


def test_no_gradient_flows_through_the_confidence_target():
    import tensorflow as tf
    output = tf.constant([[90.0, 47.0], [85.0, 30.0]])
    with tf.GradientTape() as tape:
        tape.watch(output)
        loss, _ = confidence_loss([50, 10], output)
    # d/dC = 0.5 sign(C - C*); d/dQ = sign(Q - Q*): -1 and 1. Through C* the latter
    # would become -0.5 and 0.5 or -1.5 and 1.5.
    assert tape.gradient(loss, output).numpy().tolist() == [[-0.5, -1.0], [0.5, 1.0]]


@pytest.mark.parametrize('size', [24, 31, 32, 64, 100, 128, 151, 152, 256, 321, 768, 1000, 2040])
def test_the_grid_is_the_published_one(size):
    n = (8 * (size // 8) - 24) // 8 + 1
    expected = sorted({int((i + 1) * n / 17) * 8 + 4 for i in range(16)})
    assert grid_positions(size, PAPER).tolist() == expected


def test_patches_lie_inside_the_image_and_are_different():
    for size in range(16, 400):
        found = grid_positions(size, PAPER)
        assert 1 <= len(found) <= 16 and len(set(found)) == len(found)
        assert found.min() >= 0 and found.max() + 16 <= size


def test_a_patch_holds_one_whole_coding_block():
    assert all(p % 8 == 4 for p in grid_positions(768, PAPER))


def test_an_image_under_16_px_is_refused():
    with pytest.raises(InputError, match='15 px is too small'):
        grid_positions(15, PAPER)


def test_patches_are_cut_where_the_grid_says(photo):
    patches = extract_patches(photo, PAPER)
    rows, cols = grid_positions(photo.shape[0], PAPER), grid_positions(photo.shape[1], PAPER)
    assert patches.shape == (256, 16, 16, 3) and patches.dtype == np.uint8
    for i, j in [(0, 0), (0, 15), (7, 3), (15, 15)]:
        expected = photo[rows[i]:rows[i] + 16, cols[j]:cols[j] + 16]
        assert (patches[16 * i + j] == expected).all()


def test_the_fused_quality_is_the_median_of_the_confident_patches():
    output = np.array([[97, 10], [96.5, 20], [99, 40], [96, 90], [50, 95]])
    assert median_fusion(output, 96) == 20  # 96 itself is not above 96


def test_without_a_confident_patch_the_best_quality_is_assumed():
    assert median_fusion(np.array([[50.0, 10.0]]), 96) == 100


def test_an_unknown_type_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match='jpeg_paper, jpeg_paper_k12'):
        get_comp_type('webp')


def test_the_earlier_door_to_the_predictor_stays_open():
    import classifier
    from classifier import models, predictor
    from classifier.models import Predictor
    assert Predictor is predictor.Predictor is classifier.Predictor
    assert models.Prediction is predictor.Prediction
    with pytest.raises(AttributeError, match='no attribute'):
        models.Lattice
