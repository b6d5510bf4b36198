"""What goes beyond the paper's median: test-time augmentation, likelihood, early stopping."""
import numpy as np
import pytest

from classifier import early_stopping as stopping
from classifier import likelihood as like
from classifier.likelihood import augmented_patches, uncertainty_exponent
from classifier.models import COMP_TYPES, block_positions, extract_patches, median_fusion
from classifier.predictor import Prediction, Predictor

PAPER = COMP_TYPES['jpeg_paper']


def positions(size):
    """Where patches start along a side under test-time augmentation."""
    return like._augmented_positions(size, PAPER)


def phases(number):
    return (3 * (number // 2) + 4 * number) % 8


# ---------------------------------------------------------------- test-time augmentation

def test_augmented_patches_are_many_inside_the_image_and_show_all_phases_of_the_block_grid():
    for size in range(16, 400):
        found = positions(size)
        assert 1 <= len(found) <= 16 and len(set(found)) == len(found)
        assert found.min() >= 0 and found.max() + 16 <= size
        if size >= 32:
            assert len(found) == 16 and (np.bincount(found % 8) == 2).all()


def test_each_row_of_the_grid_keeps_its_phase():
    """In images of 32 to 135 px too, where moved positions are not in ascending order."""
    number = np.arange(16)
    for size in range(32, 400):
        assert (positions(size) == block_positions(size, PAPER) + phases(number)).all()


@pytest.mark.parametrize('side', [40, 100, 132, 300])
def test_augmented_patches_are_the_image_s_own_at_all_phases_in_every_subset(photo, side):
    photo = photo[:side, :side + 20]
    rows, columns = (positions(length) for length in photo.shape[:2])
    augmented = augmented_patches(photo, PAPER)
    assert (augmented == [photo[y:y + 16, x:x + 16] for y in rows for x in columns]).all()
    for subset in stopping.interleaved_subsets(PAPER):
        for starts, numbers in zip((rows, columns), np.unravel_index(subset, (16, 16))):
            assert (np.bincount(starts[numbers] % 8) == 4).all()


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


def fitted(output):
    """The likelihood of a network whose patches of a quality answer output(quality, seed).

    Where there was no compression they say 98 to 100, and are less sure.
    """
    rng = np.random.default_rng(101)
    never = np.stack([rng.uniform(90, 96, 4000), rng.uniform(98, 100, 4000)], axis=1)
    return like.fit_log_likelihood(np.stack(
        [*(like.count_answers(output(q, q)) for q in range(1, 101)), like.count_answers(never)]))


@pytest.fixture(scope='module')
def likelihood():
    return fitted(lambda quality, seed: answers_of(quality, 4000, seed))


def judge(output, likelihood, threshold=80, size=(512, 512)):
    """What a predictor with that likelihood, or with the median for None, answers."""
    predictor = object.__new__(Predictor)
    predictor.type, predictor.threshold, predictor.log_likelihood = PAPER, threshold, likelihood
    predictor.image_posterior = None
    return predictor.fuse(output, size)


@pytest.mark.parametrize('quality', [5, 30, 62, 88, 97])
def test_the_likelihood_names_the_quality_that_its_patches_came_from(likelihood, quality):
    found = judge(answers_of(quality, seed=1000), likelihood)
    assert abs(found.network_quality - quality) < 1
    assert 0 < found.uncertainty < 2 and found.patches == 100
    assert found.quality_low <= quality <= found.quality_high <= found.quality_low + 5
    assert found.compressed > (0.9 if quality > 95 else 0.99) and found.reason is None
    few = judge(answers_of(quality, 10, seed=1000), likelihood)
    assert few.uncertainty > found.uncertainty


def test_the_likelihood_removes_a_bias_of_the_patches():
    """Patches that answer 10 too low at every quality from 11 on."""
    def output(quality, seed):
        shifted = answers_of(quality, 2000, seed)
        shifted[:, 1] = np.clip(shifted[:, 1] - 10, 0, 100)
        return shifted
    assert abs(judge(output(60, 500), fitted(output)).network_quality - 60) < 1
    assert abs(median_fusion(output(60, 500), 80) - 50) < 1


def test_answers_as_where_there_was_no_compression_mean_that_there_was_none(likelihood):
    output = np.tile([93.0, 99.0], (100, 1)) + np.random.default_rng(0).uniform(-1, 1, (100, 2))
    found = judge(output, likelihood)
    assert found.quality > 99.5 and found.quality_high == 100 and found.compressed < 0.05
    assert judge(answers_of(60), likelihood).compressed > 0.99


def test_neighbouring_levels_are_averaged_but_for_never_compressed():
    counts = np.zeros((101, 17, 101), int)
    counts[49, 8, 50] = counts[99, 8, 50] = 1000
    counts[100, 8, 90] = 1000
    table = np.exp(like.fit_log_likelihood(counts)) - like.UNSEEN
    assert table[48, 8, 50] > 0.1 and table[47].max() < 1e-6
    assert table[99, 8, 90] < 1e-6 and table[100, 8, 50] < 1e-6 < table[100, 8, 90]


def test_the_likelihood_needs_no_confident_patch(likelihood):
    """The threshold is the median's."""
    found = judge(answers_of(40), likelihood, 100)
    assert found.confident_patches == 0 and abs(found.network_quality - 40) < 1


def test_many_unsure_patches_do_not_outvote_a_few_sure_ones(likelihood):
    """Flat areas answer all the same, whatever the quality."""
    flat = np.tile([like.CONFIDENCE_RAMP[0] - 1, 20.0], (200, 1))
    sure = answers_of(75, 56)
    sure = sure[sure[:, 0] > 80]
    assert judge(np.concatenate([flat, sure]), likelihood).network_quality == \
        judge(sure, likelihood).network_quality == pytest.approx(75, abs=1)


def test_where_hardly_a_patch_says_anything_there_is_no_answer(likelihood):
    none, whole = like.CONFIDENCE_RAMP
    unsure = np.array([[85.0, 40], [86, 50], [87, 60], [50, 99]])
    found = judge(unsure, likelihood)
    assert found == Prediction(None, 3, 4, reason='too little texture')
    assert (found.quality, found.uncertainty, found.compressed, found.method) == (
        None, None, None, 'none')
    assert judge(unsure, None) == Prediction(50.0, 3, 4)  # the median never abstains
    unsure[:2, 0] = whole
    assert judge(unsure, likelihood).quality is not None
    unsure[1, 0] = (none + whole) / 2
    assert judge(unsure, likelihood).quality is None


def test_a_black_image_gets_no_answer_from_the_shipped_likelihood():
    for fusion, patches in (('likelihood', 'enough'), ('likelihood', 'all')):
        found = Predictor('jpeg_paper', fusion=fusion, patches=patches).predict(
            np.zeros((200, 300, 3), np.uint8))
        assert found.quality is None and found.reason == 'too little texture'


def test_the_likelihood_follows_the_answers_without_a_jump(likelihood):
    output = np.concatenate([answers_of(62, 256), [[c, 55] for c in like.CONFIDENCE_RAMP]])
    rng = np.random.default_rng(5)
    answer = judge(output, likelihood).network_quality
    for _ in range(20):
        moved = output + rng.uniform(-1e-3, 1e-3, output.shape)
        assert abs(judge(moved, likelihood).network_quality - answer) < 0.005


def test_fewer_patches_of_an_image_weigh_more_each_but_say_less():
    shares = np.array([0.25, 0.5, 0.75, 1])
    exponents = np.array([uncertainty_exponent((512, 768, 3), share) for share in shares])
    assert exponents[-1] == pytest.approx(like.UNCERTAINTY_EXPONENT)
    assert (np.diff(exponents) < 0).all() and (np.diff(exponents * shares) > 0).all()


def test_in_smaller_images_patches_have_more_in_common():
    exponents = [uncertainty_exponent((side, side)) for side in (32, 64, 256, 512, 1024)]
    whole = like.UNCERTAINTY_EXPONENT
    assert exponents == pytest.approx([whole / 16, whole / 8, whole / 2, whole, whole])


def test_in_small_images_patches_overlap(photo):
    small = [photo[:side, :side] for side in (16, 24, 32, 64)]
    found = Predictor('jpeg_paper', patches='all').predict_all(small)
    assert [p.patches for p in found] == [1, 64, 256, 256]


# ---------------------------------------------------------------- early stopping

def look(quality, margin, patches):
    """A round: its margin, and in place of output and log-likelihood what fusing them gives."""
    return margin, Prediction(quality, patches, patches), None


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
    found = rng.normal(0, 1, (101, 64))
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
        found = np.full((101, 256), -1e3)
        found[[29, 59]] = np.stack([np.zeros(256), rng.normal(rng.normal(0, 0.5), 1, 256)])
        if 1 < stopping.decision_margin(found[:, :64], 0.25) < 2:
            first, last = (part.sum(axis=1).argmax() for part in (found[:, :64], found))
            kept.append(first == last)
    assert 0.88 < np.mean(kept) < 0.96  # so often is a normal deviate below 1 to 2


def test_never_compressed_is_no_rival_of_the_best_quality():
    """Both are answered with 100."""
    rng = np.random.default_rng(2)
    found = rng.normal(0, 1, (101, 64))
    found[99] += 9
    alone = stopping.decision_margin(found, 0.25)
    close = found[99] + rng.normal(-0.01, 1, 64)
    found[100] = close
    assert stopping.decision_margin(found, 0.25) == alone
    found[50] = close
    assert stopping.decision_margin(found, 0.25) < 0.5 * alone


def test_no_round_is_asked_for_once_the_answer_is_decided():
    looks = iter([look(20, stopping.MARGIN, 64), look(90, 9, 128)])
    assert stopping.stop_early(looks, lambda prediction, _: prediction) == look(20, 0, 64)[1]
    assert next(looks)[1].patches == 128


def test_an_answer_that_stays_open_is_that_of_all_patches():
    for looks in ([*(look(20 + i, 0.5 * i, 64 + 64 * i) for i in range(3)), look(23, np.inf, 256)],
                  [look(None, np.inf, 64), look(None, np.inf, 128)],
                  [look(None, np.inf, 64), look(50, np.inf, 128)]):
        assert stopped(*looks) == looks[-1][1]


def test_the_round_that_decides_gives_the_answer_unchanged():
    assert stopped(look(20, 1.99, 64), look(21, 2, 128), look(22, 9, 192)) == look(21, 2, 128)[1]
