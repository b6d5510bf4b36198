"""What goes beyond the paper's median: test-time augmentation, likelihood, early stopping."""
import numpy as np
import pytest

from classifier import early_stopping as stopping
from classifier import likelihood as like
from classifier.likelihood import augmented_patches, uncertainty_exponent
from classifier.models import COMP_TYPES, block_positions, extract_patches, median_fusion
from classifier.predictor import Prediction, Predictor

PAPER = COMP_TYPES['jpeg_paper']


def positions(size, together=2):
    """Where patches start along a side under test-time augmentation, and which are mirrored."""
    return like._augmented_positions(size, PAPER, together)


def phases(number):
    return (3 * (number // 2) + 4 * number) % 8


# ---------------------------------------------------------------- test-time augmentation

def test_augmented_patches_are_many_inside_the_image_and_show_all_phases_of_the_block_grid():
    for size in range(16, 400):
        found, _ = positions(size)
        assert 1 <= len(found) <= 16 and len(set(found)) == len(found)
        assert found.min() >= 0 and found.max() + 16 <= size
        if size >= 32:
            assert len(found) == 16 and (np.bincount(found % 8) == 2).all()


def test_each_row_of_the_grid_keeps_its_phase_and_its_mirroring():
    """In images of 32 to 135 px too, where moved positions are not in ascending order."""
    number = np.arange(16)
    for size in range(32, 400):
        found, mirrored = positions(size)
        assert (found == block_positions(size, PAPER) + phases(number)).all()
        assert (mirrored == ((number // 2 + number) % 2 == 1)).all()
        assert set(zip(found % 8, mirrored)) == {(p, m) for p in range(8) for m in (0, 1)}


@pytest.mark.parametrize('side', [40, 100, 132, 300])
def test_augmented_patches_are_of_all_four_kinds_at_all_phases_in_every_subset(photo, side):
    photo = photo[:side, :side + 20]
    rows, cols = (positions(length)[0] for length in photo.shape[:2])
    plain = np.array([photo[y:y + 16, x:x + 16] for y in rows for x in cols])
    kinds = [plain, plain[:, ::-1], plain[:, :, ::-1], plain[:, ::-1, ::-1]]
    augmented = augmented_patches(photo, PAPER)
    same = np.array([(augmented == kind).all(axis=(1, 2, 3)) for kind in kinds])
    assert (same.sum(axis=0) == 1).all()
    for subset in stopping.interleaved_subsets(PAPER):
        assert (same[:, subset].sum(axis=1) == 8).all()
        for starts, numbers in zip((rows, cols), np.unravel_index(subset, (16, 16))):
            assert (np.bincount(starts[numbers] % 8) == 4).all()


def test_every_phase_is_seen_mirrored_and_not():
    for together in like.MIRRORED_ROWS, like.MIRRORED_COLUMNS:
        found, mirrored = positions(400, together)
        assert len(set(zip(found % 8, mirrored))) == 16


def test_a_predictor_augments_patches_for_the_likelihood_alone(photo):
    for fusion, expected in (('median', extract_patches), ('likelihood', augmented_patches)):
        patches = Predictor('jpeg_paper', fusion=fusion).extract(photo)
        assert (patches == expected(photo, PAPER)).all()


# ---------------------------------------------------------------- likelihood

def answers_of(quality, patches=100, seed=0):
    """Outputs of patches of that quality: sure ones close to it, unsure ones anywhere."""
    rng = np.random.default_rng(seed)
    error = rng.uniform(1, 25, patches)
    return np.stack([100 - error, np.clip(quality + error * rng.normal(0, 1, patches) / 2, 0, 100)],
                    axis=1)


@pytest.fixture(scope='module')
def likelihood():
    return like.fit_log_likelihood(np.stack(
        [like.count_answers(answers_of(q, 4000, q)) for q in range(1, 101)]))


def judge(output, likelihood, threshold=80):
    """What a predictor with that likelihood, or with the median for None, answers."""
    predictor = object.__new__(Predictor)
    predictor.type, predictor.threshold, predictor.log_likelihood = PAPER, threshold, likelihood
    return predictor.fuse(output, like.UNCERTAINTY_EXPONENT)


@pytest.mark.parametrize('quality', [5, 30, 62, 88, 97])
def test_the_likelihood_names_the_quality_that_its_patches_came_from(likelihood, quality):
    found = judge(answers_of(quality, seed=1000), likelihood)
    assert abs(found.network_quality - quality) < 1
    assert 0 < found.uncertainty < 1 and found.patches == 100
    few = judge(answers_of(quality, 10, seed=1000), likelihood)
    assert few.uncertainty > found.uncertainty


def test_the_likelihood_removes_a_bias_of_the_patches():
    """Patches that answer 10 too low at every quality from 11 on."""
    def output(quality, seed):
        shifted = answers_of(quality, 2000, seed)
        shifted[:, 1] = np.clip(shifted[:, 1] - 10, 0, 100)
        return shifted
    likelihood = like.fit_log_likelihood(np.stack(
        [like.count_answers(output(q, q)) for q in range(1, 101)]))
    assert abs(judge(output(60, 500), likelihood).network_quality - 60) < 1
    assert abs(median_fusion(output(60, 500), 80) - 50) < 1


def test_a_likelihood_without_a_confident_patch_still_gives_the_best_quality(likelihood):
    found = judge(answers_of(40), likelihood, 100)
    assert (found.network_quality, found.confident_patches, found.uncertainty) == (100, 0, None)


def test_many_unsure_patches_do_not_outvote_a_few_sure_ones(likelihood):
    """Flat areas answer all the same, whatever the quality."""
    flat = np.tile([like.CONFIDENCE_RAMP[0] - 1, 20.0], (200, 1))
    sure = answers_of(75, 56)
    sure = sure[sure[:, 0] > 80]
    assert judge(np.concatenate([flat, sure]), likelihood).network_quality == \
        judge(sure, likelihood).network_quality == pytest.approx(75, abs=1)


def test_where_no_patch_says_anything_the_median_answers(likelihood):
    """Of weights that were trained for a short time, which are never sure."""
    unsure = np.array([[85.0, 40], [86, 50], [87, 60], [50, 99]])
    assert judge(unsure, likelihood) == judge(unsure, None) == Prediction(50.0, 3, 4)


def test_the_likelihood_follows_the_answers_without_a_jump(likelihood):
    output = np.concatenate([answers_of(62, 256), [[c, 55] for c in like.CONFIDENCE_RAMP]])
    rng = np.random.default_rng(5)
    answer = judge(output, likelihood).network_quality
    for _ in range(20):
        moved = output + rng.uniform(-1e-3, 1e-3, output.shape)
        assert abs(judge(moved, likelihood).network_quality - answer) < 0.005


def test_fewer_patches_of_an_image_weigh_more_each_but_say_less():
    shares = np.array([0.25, 0.5, 0.75, 1])
    exponents = uncertainty_exponent(np.zeros((512, 768, 3), np.uint8), shares)
    assert exponents[-1] == pytest.approx(like.UNCERTAINTY_EXPONENT)
    assert (np.diff(exponents) < 0).all() and (np.diff(exponents * shares) > 0).all()


def test_in_smaller_images_patches_have_more_in_common():
    exponents = [uncertainty_exponent(np.zeros((side, side, 3), np.uint8))
               for side in (32, 64, 256, 512, 1024)]
    whole = like.UNCERTAINTY_EXPONENT
    assert exponents == pytest.approx([whole / 16, whole / 8, whole / 2, whole, whole])


def test_in_small_images_patches_overlap(photo):
    small = [photo[:side, :side] for side in (16, 24, 32, 64)]
    found = Predictor('jpeg_paper', patches='all').predict_all(small)
    assert [p.patches for p in found] == [1, 64, 256, 256]


# ---------------------------------------------------------------- early stopping

def look(quality, margin, patches, uncertainty=0.5):
    """A round: its margin, and in place of output and log-likelihood what fusing them gives."""
    return margin, Prediction(quality, patches, patches, uncertainty), None


def stopped(*looks):
    return stopping.stop_early(iter(looks), lambda prediction, _: prediction)


def test_the_subsets_of_the_grid_each_cover_all_of_it():
    parts = stopping.interleaved_subsets(PAPER)
    assert sorted(np.concatenate(parts)) == list(range(256))
    for i, part in enumerate(parts):
        assert len(part) == 32
        quarters = np.unravel_index(part, (16, 16))[0] // 8 * 2 + \
            np.unravel_index(part, (16, 16))[1] // 8
        assert (np.bincount(quarters) == 8).all()
        if i % 2:  # with the one before it, every other row and column
            both = np.unravel_index(np.concatenate(parts[i - 1:i + 1]), (16, 16))
            assert all(set(np.diff(np.unique(axis))) == {2} for axis in both)


def test_the_margin_grows_with_the_likelihood_and_with_the_share_of_the_patches():
    rng = np.random.default_rng(0)
    found = rng.normal(0, 1, (100, 64))
    found[41] += 1
    few, many = (stopping.decision_margin(np.tile(found, n), n / 4) for n in (1, 3))
    assert 1 < few < many < stopping.decision_margin(found, 1) == np.inf
    found[70] = found[41] + rng.normal(0, 1, 64)  # a rival: the other patches may decide
    assert stopping.decision_margin(found, 0.25) < 0.5 * few


def test_a_margin_says_how_often_the_other_patches_change_the_best_quality():
    """Two qualities in question, 64 of 256 patches, margins of 1 to 2."""
    rng = np.random.default_rng(1)
    kept = []
    for _ in range(4000):
        found = np.stack([np.zeros(256), rng.normal(rng.normal(0, 0.5), 1, 256)])
        if 1 < stopping.decision_margin(found[:, :64], 0.25) < 2:
            first, last = (part.sum(axis=1).argmax() for part in (found[:, :64], found))
            kept.append(first == last)
    assert 0.88 < np.mean(kept) < 0.96  # so often is a normal deviate below 1 to 2


def test_no_round_is_asked_for_once_the_answer_is_decided():
    looks = iter([look(20, stopping.MARGIN, 64), look(90, 9, 128)])
    assert stopping.stop_early(looks, lambda prediction, _: prediction) == look(20, 0, 64)[1]
    assert next(looks)[1].patches == 128


def test_an_answer_that_stays_open_is_that_of_all_patches():
    for looks in ([*(look(20 + i, 0.5 * i, 64 + 64 * i) for i in range(3)), look(23, np.inf, 256)],
                  [look(100, np.inf, 64, None), look(100, np.inf, 128, None)],
                  [look(100, np.inf, 64, None), look(50, np.inf, 128)]):
        assert stopped(*looks) == looks[-1][1]


def test_between_decided_and_open_the_answer_does_not_jump():
    margins = np.arange(stopping.MARGIN + 0.02, stopping.MARGIN - stopping.RAMP - 0.02, -1e-3)
    answers = [stopped(look(20, n, 64), look(20.6, n + 0.1, 128, 0.4), look(21, np.inf, 192, 0.2))
               for n in margins]
    quality = np.array([a.network_quality for a in answers])
    assert quality[0] == 20 and quality[-1] > 20.8 and (np.diff(quality) >= 0).all()
    assert np.diff(quality).max() < 0.005
    assert {a.patches for a in answers} == {64, 128, 192}
    assert np.abs(np.diff([a.uncertainty for a in answers])).max() < 0.005
