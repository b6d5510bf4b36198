"""The search for an earlier compression's block grid: its windows, its scores, where it ends."""
import numpy as np
import pytest

from classifier import images
from classifier.forensics.blocks import cut_windows, distinct
from classifier.forensics.moved_grid import moved_grids
from classifier.forensics.noisy_scores import Bins, noisy_scores
from classifier.forensics.recompression import find_earlier
from classifier.forensics.same_grid import same_grid_scores
from classifier.forensics.tables import standard_tables
from conftest import PRISTINE, SAMPLES

BINS = Bins(1, 2, 480, tuple(range(256)))


def table(quality):
    return standard_tables()[quality - 1]


# ---------------------------------------------------------------- windows

@pytest.mark.parametrize('view', [
    np.s_[:], np.s_[3:, 2:], np.s_[:, :, ::-1], np.s_[:, ::-1], np.s_[::2, ::3], np.s_[:16, :16]])
@pytest.mark.parametrize('side', [8, 15, 16])
def test_windows_are_the_pixels_at_their_place_however_the_image_lies_in_memory(view, side):
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)[view]
    for turned in (image, image.transpose(1, 0, 2)):
        for limit in (5, 1000):
            found = list(zip(*cut_windows(turned, 0, 0, side, limit)))
            assert found and all(
                (pixels == turned[y:y + side, x:x + side]).all() for y, x, pixels in found)


def test_an_image_smaller_than_a_window_has_none():
    for shape in ((7, 40, 3), (40, 7, 3)):
        y, x, windows = cut_windows(np.zeros(shape, np.uint8), 0, 0, 8, 10)
        assert len(y) == len(x) == 0 and windows.shape == (0, 8, 8, 3)


def test_blocks_that_differ_by_brightness_alone_are_one():
    planes = np.random.default_rng(0).integers(0, 200, (50, 64)).astype(np.uint8)
    planes = np.concatenate([planes, planes[::-1] + np.uint8(9), np.full((3, 64), 7, np.uint8)])
    first, flat = distinct(planes)
    assert first.tolist() == list(range(50)) and np.flatnonzero(flat).tolist() == [100, 101, 102]


# ---------------------------------------------------------------- scores

@pytest.mark.parametrize('step', [5, 12, 30, 77])
def test_the_true_step_scores_best_under_noise_that_differs_by_coefficient(step):
    rng = np.random.default_rng(step)
    variance = np.exp(rng.uniform(-2, 2 * np.log(step / 4), (3, 2000))).astype(np.float32)
    value = step * np.rint(rng.laplace(0, 2, variance.shape)) + rng.normal(0, np.sqrt(variance))
    scores = noisy_scores(np.abs(value).astype(np.float32), variance, BINS)
    assert (scores.argmax(axis=1) == step).all()
    assert (scores[:, 0] == 0).all() and scores.shape == (3, 256)


def test_coefficients_on_no_lattice_score_below_none():
    rng = np.random.default_rng(0)
    variance = np.ones((1, 2000), np.float32)
    value = np.abs(rng.laplace(0, 20, variance.shape)).astype(np.float32)
    assert noisy_scores(value, variance, BINS).max() <= 0


def test_coefficients_too_large_for_every_bin_score_nothing():
    value = np.full((2, 10), 1e4, np.float32)
    assert (noisy_scores(value, np.ones_like(value), BINS) == 0).all()


# ---------------------------------------------------------------- the search

def test_the_search_ends_early_for_most_images_saved_once():
    ended = [not moved_grids(images.compress(images.read_image(path), quality), table(quality))
             for path in PRISTINE for quality in (70, 80, 85, 90, 92, 95, 98)]
    assert sum(ended) > len(ended) / 2


@pytest.mark.parametrize('first, last', [(50, 75), (60, 90), (75, 95), (90, 98)])
def test_the_true_grid_is_the_best_of_those_left(photo, first, last):
    coded = images.compress(images.compress(photo, first)[3:, 6:], last)
    grids = moved_grids(coded, table(last))
    best = max(grids, key=lambda grid: grid.found.scores.max(axis=1).sum())
    assert (best.dy, best.dx) == (5, 2)


def test_a_part_pasted_in_does_not_hide_the_grid_of_the_rest(photo):
    before = images.compress(photo, 50)
    stripes = np.indices((120, 160)).sum(axis=0) % 5 * 50 + 20   # of more contrast than the photo
    before[40:160, 60:220] = stripes[..., None]
    earlier = find_earlier(images.compress(before[1:, 4:], 95), table(95))
    assert (earlier.grid_dy, earlier.grid_dx) == (7, 4) and abs(earlier.quality - 50) <= 4


# ---------------------------------------------------------------- pixels changed in between

@pytest.mark.parametrize('first, last', [(20, 90), (40, 90), (40, 95), (60, 90), (60, 95), (75, 90),
                                         (75, 95)])
def test_the_quality_is_read_through_noise_on_the_same_grid(photo, first, last):
    before = images.compress(photo, first)
    noise = np.random.default_rng(0).normal(0, 2, before.shape[:2])[..., None]
    noisy = np.clip(np.rint(before + noise), 0, 255).astype(np.uint8)
    earlier = find_earlier(images.compress(noisy, last), table(last))
    assert abs(earlier.quality - first) <= 2 and earlier.changed and earlier.encoder is None


def test_noise_that_is_allowed_for_makes_room_between_the_combs():
    rng = np.random.default_rng(0)
    earlier = 24 * np.rint(rng.laplace(0, 40, (1200, 64)) / 24)
    last = table(90)
    coded = np.rint((earlier + rng.normal(0, 2, earlier.shape)) / last) * last
    k = int(np.flatnonzero(last == 3)[-1])
    without, with_noise = (same_grid_scores(coded, last, noise).scores[k] for noise in (0, 2))
    assert without[24] < 0 and with_noise.argmax() == 24


# ---------------------------------------------------------------- coarse first saves

@pytest.mark.parametrize('dy, dx', [(0, 5), (2, 3), (4, 1), (6, 7)])
@pytest.mark.parametrize('name', ['raccoon', 'gravel'])
def test_a_coarse_first_save_is_told_on_its_own_grid_not_half_a_block_off(name, dy, dx):
    first = images.compress(images.read_image(SAMPLES / f'{name}.png'), 20)
    earlier = find_earlier(images.compress(first[dy:, dx:], 95), table(95))
    assert (earlier.grid_dy, earlier.grid_dx) == (-dy % 8, -dx % 8)
    assert abs(earlier.quality - 20) <= 2
