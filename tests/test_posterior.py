"""What is known of an image's quality: summaries, the learned fusion, and how it is fitted."""
from dataclasses import replace

import numpy as np
import pytest

from classifier import checkpoints
from classifier.checkpoints import stored_posterior
from classifier.errors import InputError
from classifier.image_posterior import (ANSWERS, CONFIDENCES, FEATURES, LARGE_SIDE, WEIGHTS,
                                        ImagePosterior, image_features)
from classifier.posterior import CREDIBLE, LEVELS, NEVER, QUALITIES, summarize
from classifier.studies import posterior_fit
from classifier.studies.posterior_fit import KINDS

WIDTH = 7
SHARE = 0.15  # of pictures fitted on here that were never compressed


def at(*levels):
    """Equal probabilities of these levels, 1..101."""
    probability = np.zeros(LEVELS)
    probability[np.array(levels) - 1] = 1 / len(levels)
    return probability


# ---------------------------------------------------------------- the summary

def test_the_interval_holds_most_of_the_probability_and_as_much_above_as_below():
    rng = np.random.default_rng(0)
    for spread in (0.003, 0.02, 0.1, 1, 10):
        for probability in rng.dirichlet(np.full(LEVELS, spread), 200):
            found = summarize(probability)
            below, above = QUALITIES < found.low, QUALITIES > found.high
            assert probability[~below & ~above].sum() >= CREDIBLE
            assert max(probability[below].sum(), probability[above].sum()) <= (1 - CREDIBLE) / 2
            assert found.low <= round(found.quality) <= found.high


def test_the_interval_is_no_wider_than_that_takes():
    even = summarize(at(*range(1, 100)))
    assert (even.low, even.high) == (5, 95)
    narrow = summarize(0.96 * at(50) + 0.04 * at(10, 90))
    assert (narrow.low, narrow.high) == (50, 50)
    wide = summarize(0.8 * at(50) + 0.2 * at(10, 90))
    assert (wide.low, wide.high) == (10, 90)


def test_the_answer_lies_in_its_interval():
    """The mean of a posterior with a far tail lies beside nearly all of it."""
    found = summarize(0.96 * at(20) + 0.04 * at(101))
    assert found.quality == pytest.approx(23.2)
    assert (found.low, found.high) == (20, 23)


@pytest.mark.parametrize('level', [1, 37, 99, 100])
def test_a_certain_level_is_answered_with_itself(level):
    found = summarize(at(level))
    assert (found.quality, found.uncertainty, found.low, found.high, found.compressed) == (
        level, 0, level, level, 1)


def test_never_compressed_counts_as_the_best_quality_and_is_told_apart():
    never, half = summarize(at(101)), summarize(at(40, 101))
    assert (never.quality, never.low, never.high, never.compressed) == (100, 100, 100, 0)
    assert (half.quality, half.low, half.high, half.compressed) == (70, 40, 100, 0.5)
    assert half.uncertainty == pytest.approx(30)
    assert summarize(at(100, 101)).uncertainty == 0


def test_probabilities_need_not_add_up():
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 9, LEVELS)
    assert summarize(weights) == summarize(1024 * weights)


def test_a_sharper_posterior_gives_the_quality_alone():
    wide, sharp = at(*range(30, 51)), at(40, 44)
    found, alone = summarize(wide, 3 * sharp), summarize(wide)
    assert found.quality == pytest.approx(42) and alone.quality == pytest.approx(40)
    assert (found.low, found.high, found.uncertainty) == (alone.low, alone.high, alone.uncertainty)


# ---------------------------------------------------------------- the learned fusion

def answers(patches=256, seed=0):
    """Confidences and answers of patches, in and beyond what the nodes span."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(0, 100, patches), rng.uniform(0, 100, patches)], axis=1)


def shares(output, size=(600, 600), weight=None):
    """Of the patches at each confidence and answer."""
    square = image_features(output, size, weight)[:-1].astype(float) ** 2
    return square.reshape(len(CONFIDENCES), len(ANSWERS))


def test_each_patch_is_shared_out_among_the_nodes_around_it():
    for output in (answers(), answers(1), answers(7, 3).astype(np.float32)):
        assert image_features(output, (600, 600)).shape == (FEATURES,)
        assert shares(output).sum() == pytest.approx(1)
    exact = shares(np.array([[CONFIDENCES[2], ANSWERS[9]]], float))
    assert exact[2, 9] == pytest.approx(1)
    between = shares(np.array([[(CONFIDENCES[2] + 3 * CONFIDENCES[3]) / 4,
                                (ANSWERS[9] + ANSWERS[10]) / 2]]))
    assert between[2, 9] == between[2, 10] == pytest.approx(0.125)
    assert between[3, 9] == between[3, 10] == pytest.approx(0.375)


def test_answers_beyond_the_nodes_count_at_the_last_ones():
    assert shares(np.array([[10.0, 0], [100, 100]])).ravel()[[0, -1]] == pytest.approx([0.5, 0.5])


def test_the_mean_answer_can_be_read_from_the_histogram():
    output = answers()
    assert shares(output).sum(axis=0) @ ANSWERS == pytest.approx(output[:, 1].mean(), abs=1e-4)


def test_a_patch_of_weight_two_counts_as_two():
    output, weight = answers(20), np.arange(20) % 3
    repeated = image_features(np.repeat(output, weight, axis=0), (300, 400))
    assert image_features(output, (300, 400), weight.astype(float)) == pytest.approx(repeated)
    assert not image_features(output, (300, 400), np.zeros(20))[:-1].any()


def test_the_last_feature_is_the_size_up_to_where_patches_no_longer_overlap():
    for size, expected in (((128, 128), 128 / LARGE_SIDE), ((64, 256, 3), 128 / LARGE_SIDE),
                           ((LARGE_SIDE, LARGE_SIDE), 1), ((4000, 6000), 1)):
        assert image_features(answers(), size)[-1] == pytest.approx(expected)


@pytest.fixture(scope='module')
def random_layers():
    """A fusion of random weights for three kinds of edit."""
    rng = np.random.default_rng(2)
    shapes = [(FEATURES, WIDTH), (WIDTH,), (WIDTH, WIDTH), (WIDTH,), (WIDTH, LEVELS), (LEVELS,),
              (WIDTH, 3), (3,)]
    return ImagePosterior(tuple(rng.normal(0, 1, shape).astype(np.float32) for shape in shapes),
                          1.7, ('unedited', 'noise', 'blurred'), 0.15)


def test_probabilities_are_those_of_a_keras_model_of_the_same_weights(random_layers):
    """But for the temperature, by which the logits of the levels are divided, and the prior."""
    import tf_keras as keras
    inputs = hidden = keras.Input((FEATURES,))
    for _ in range(2):
        hidden = keras.layers.Dense(WIDTH, 'relu')(hidden)
    logits = keras.layers.Dense(LEVELS)(hidden)
    model = keras.Model(inputs, [keras.layers.Softmax()(logits / random_layers.temperature),
                                 keras.layers.Dense(3, 'softmax')(hidden)])
    model.set_weights(random_layers.layers)
    features = np.stack([image_features(answers(seed=seed), (200, 300)) for seed in range(9)])
    as_fitted = replace(random_layers, never_share=NEVER)
    for found, expected in zip(as_fitted.probabilities(features), model(features)):
        assert np.abs(found - expected.numpy()).max() < 1e-5
        assert found.sum(axis=1) == pytest.approx(1) and (found >= 0).all()
        assert found.std(axis=0).max() > 1e-3  # they depend on the features


def test_odds_of_never_compressed_are_those_of_the_prior_not_of_the_pictures_fitted_on(
        random_layers):
    """Where 15 % of them were, and NEVER are by the prior, the odds differ by that ratio."""
    features = np.stack([image_features(answers(seed=seed), (200, 300)) for seed in range(5)])
    levels, edits = random_layers.probabilities(features)
    unshifted, same = replace(random_layers, never_share=NEVER).probabilities(features)
    odds, before = (found[:, -1] / found[:, :-1].sum(axis=1) for found in (levels, unshifted))
    assert odds / before == pytest.approx(NEVER / (1 - NEVER) * 0.85 / 0.15)
    assert (edits == same).all()
    kept = levels[:, :-1] / unshifted[:, :-1]  # among the qualities nothing changes
    assert kept == pytest.approx(np.repeat(kept[:, :1], LEVELS - 1, axis=1))


def test_an_image_s_posterior_is_the_summary_of_its_probabilities(random_layers):
    output, size = answers(), (200, 300)
    levels, edits = random_layers.probabilities(image_features(output, size)[None])
    posterior, edited = random_layers(output, size)
    assert posterior == summarize(levels[0])
    assert edited == pytest.approx(edits[0, 1:].sum())


def test_probabilities_of_very_sure_layers_are_still_finite(random_layers):
    sure = ImagePosterior(tuple(1e4 * layer for layer in random_layers.layers), 0.1,
                          random_layers.edits, 0.15)
    for found in sure.probabilities(image_features(answers(), (50, 50))[None]):
        assert np.isfinite(found).all() and found.sum() == pytest.approx(1)


def test_what_was_stored_is_read_back(random_layers, tmp_path):
    np.savez(tmp_path / checkpoints.POSTERIOR_FILE, **random_layers.arrays())
    found = stored_posterior(tmp_path)
    assert found.edits == random_layers.edits and found.temperature == pytest.approx(1.7)
    assert found.never_share == pytest.approx(0.15)
    for layer, expected in zip(found.layers, random_layers.layers):
        assert (layer == expected).all()


@pytest.mark.parametrize('damage', [
    *({name: None} for name in (*WEIGHTS, 'temperature', 'edit_names', 'never_share')),
    *({'temperature': value} for value in (0, -1, np.nan, [1, 2], 'warm')),
    *({'never_share': value} for value in (0, 1, np.nan, 'few')),
    {'hidden_1': np.zeros((FEATURES - 1, WIDTH))}, {'levels': np.zeros((WIDTH, LEVELS - 1))},
    {'bias_1': np.zeros((WIDTH, 1))}, {'hidden_2': np.full((WIDTH, WIDTH), np.inf)},
    {'bias_levels': np.full(LEVELS, np.nan)}, {'edit_names': np.array(['unedited', 'noise'])}],
    ids=lambda damage: '-'.join(damage))
def test_a_damaged_file_of_it_is_refused_by_name(random_layers, tmp_path, damage):
    arrays = {name: value for name, value in (random_layers.arrays() | damage).items()
              if value is not None}
    with pytest.raises((ValueError, KeyError, TypeError)):
        ImagePosterior.from_arrays(arrays)
    np.savez(tmp_path / checkpoints.POSTERIOR_FILE, **arrays)
    with pytest.raises(InputError, match='posterior.npz: missing or damaged; make it with '
                       'evaluate_cls.py --fit posterior'):
        stored_posterior(tmp_path)


def test_a_file_that_is_no_archive_is_refused_and_a_missing_one_only_if_required(tmp_path):
    assert stored_posterior(tmp_path) is None
    with pytest.raises(InputError, match='posterior.npz: missing'):
        stored_posterior(tmp_path, required=True)
    for damaged in (b'', b'PK\x03\x04 no zip', b'\x80\x04.'):
        (tmp_path / checkpoints.POSTERIOR_FILE).write_bytes(damaged)
        with pytest.raises(InputError, match='posterior.npz: missing or damaged'):
            stored_posterior(tmp_path)


# ---------------------------------------------------------------- fitting it

def synthetic(images, seed):
    """Features (n, 2, FEATURES), levels and kinds of images whose patches answer their level.

    All patches of an image are off by an amount of its own; those of edited images, kind 1, far
    more, and less sure. Never compressed ones answer 100.
    """
    rng = np.random.default_rng(seed)
    level = np.where(rng.random(images) < SHARE, LEVELS, rng.integers(1, LEVELS, images))
    kind = rng.integers(0, 2, images)
    off = rng.normal(0, np.where(kind, 6, 1), images)
    features = []
    for true, edit, shift in zip(level, kind, off):
        centre = 100 if true == LEVELS else np.clip(true + shift, 0, 97)
        output = np.stack([rng.uniform(*((80, 90) if edit else (93, 98)), 64),
                           np.clip(rng.normal(centre, 2, 64), 0, 100)], axis=1)
        features.append([image_features(output, (512, 512)),
                         image_features(output, (512, 512), (rng.random(64) < 0.5) * 1.0)])
    return np.array(features), level, kind


@pytest.fixture(scope='module')
def fit():
    """A fusion fitted on 800 synthetic images, its temperature chosen on 300 others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posterior_fit, 'EPOCHS', 25)
        patch.setattr(posterior_fit, 'BATCH', 128)
        patch.setattr(posterior_fit, 'WIDTH', 48)
        layers = posterior_fit._fit(*synthetic(800, 1))
        features, level, _ = synthetic(300, 2)
        return layers, *posterior_fit._temperature(ImagePosterior(layers, 1.0, KINDS, SHARE),
                                                   features[:, 0], level)


def summaries(layers, temperature, seed):
    """Of the posteriors of 400 other images: rows of quality, low, high, compressed; the truth."""
    features, level, kind = synthetic(400, seed)
    levels, edits = ImagePosterior(layers, temperature, KINDS, SHARE).probabilities(features[:, 0])
    found = [summarize(one) for one in levels]
    return np.array([[f.quality, f.low, f.high, f.compressed] for f in found]), edits, level, kind


def test_a_fusion_that_was_fitted_tells_level_edit_and_whether_it_was_compressed(fit):
    found, edits, level, kind = summaries(fit[0], fit[1], 3)
    error = np.abs(found[:, 0] - QUALITIES[level - 1])
    assert error[kind == 0].mean() < 4 and error[kind == 1].mean() < 9
    width = found[:, 2] - found[:, 1]
    assert np.median(width[kind == 1]) > 1.5 * np.median(width[kind == 0])
    assert (edits.argmax(axis=1) == kind).mean() > 0.95
    # The files' own format takes what was fitted.
    stored = ImagePosterior(*fit[:2], KINDS, SHARE).arrays()
    assert ImagePosterior.from_arrays(stored).edits == KINDS
    assert ((found[:, 3] > 0.5) == (level < LEVELS)).mean() > 0.95


def test_the_temperature_makes_the_intervals_hold_on_other_images(fit):
    layers, temperature, metrics = fit
    assert metrics['coverage'] >= CREDIBLE and metrics['median_width'] < 40
    found, _, level, _ = summaries(layers, temperature, 4)
    truth = QUALITIES[level - 1]
    assert ((found[:, 1] <= truth) & (truth <= found[:, 2])).mean() > CREDIBLE - 0.06


def test_layers_that_are_too_sure_get_a_higher_temperature(fit, monkeypatch):
    """Logits three times as large: the intervals would be too narrow."""
    layers, temperature, _ = fit
    sharp = ImagePosterior((*layers[:4], 3 * layers[4], 3 * layers[5], *layers[6:]), 1.0, KINDS,
                           SHARE)
    features, level, _ = synthetic(300, 2)
    found, metrics = posterior_fit._temperature(sharp, features[:, 0], level)
    assert metrics['coverage'] >= CREDIBLE and 2 * temperature < found < 3.1 * temperature
    monkeypatch.setattr(posterior_fit, 'TEMPERATURES', [1.0])
    assert posterior_fit._temperature(sharp, features[:, 0], level)[1]['coverage'] < CREDIBLE


@pytest.mark.filterwarnings('error:non-integer arguments')  # an error from Python 3.12 on
def test_the_same_images_are_fitted_to_the_same_layers(monkeypatch):
    monkeypatch.setattr(posterior_fit, 'EPOCHS', 1)
    monkeypatch.setattr(posterior_fit, 'WIDTH', 8)
    first, second = (posterior_fit._fit(*synthetic(60, 5)) for _ in range(2))
    for one, other in zip(first, second):
        assert np.abs(one - other).max() < 1e-6
    assert min(layer.std() for layer in first[::2]) > 1e-3  # all of them drawn


def test_a_target_is_spread_over_neighbouring_qualities_but_not_over_never_compressed():
    targets = posterior_fit._targets(np.array([1, 50, 100, 101]))
    assert targets.shape == (4, LEVELS) and targets.sum(axis=1) == pytest.approx(1)
    assert list(targets.argmax(axis=1)) == [0, 49, 99, 100]
    assert not targets[:3, 100].any() and not targets[3, :100].any()
    assert targets[1, 48] == targets[1, 50] > targets[1, 47] > 0


def test_pictures_to_fit_on_are_of_all_levels_kinds_and_sizes(photo):
    rng = np.random.default_rng(0)
    drawn = [posterior_fit.drawn_picture(photo, rng) for _ in range(60)]
    sizes = [picture.shape for picture, *_ in drawn]
    assert all(min(size[:2]) >= 32 and size[2] == 3 for size in sizes) and len(set(sizes)) > 20
    level, kind = np.array([truth for _, *truth in drawn]).T
    assert level.min() >= 1 and 0 < (level == LEVELS).sum() < 20 and len(set(level)) > 30
    assert set(kind) <= set(range(len(KINDS))) and len(set(kind)) > 10
    again = posterior_fit.drawn_picture(photo, np.random.default_rng(0))
    assert (again[0] == drawn[0][0]).all() and again[1:] == drawn[0][1:]
