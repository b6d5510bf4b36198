"""Checkerboards, mosaics and the like: no sure answer rests on edges that repeat."""
import cv2
import numpy as np
import pytest

from classifier.images import compress
from classifier.patterns import is_pattern
from classifier.predictor import A_PATTERN, REPEATED, Predictor
from conftest import PRISTINE


@pytest.fixture(scope='module')
def automatic():
    return Predictor()


def checkerboard(side, dark=0, light=255):
    y, x = np.mgrid[:300, :400] // side
    return np.repeat(np.where((x + y) % 2, light, dark)[..., None], 3, axis=2).astype(np.uint8)


def mosaic(photo, side):
    height, width = photo.shape[:2]
    small = cv2.resize(photo, (width // side, height // side), interpolation=cv2.INTER_AREA)
    return np.kron(small, np.ones((side, side, 1), np.uint8))


@pytest.mark.parametrize('board', [checkerboard(1), checkerboard(2), checkerboard(8, 90, 150)],
                         ids=['1 px', '2 px', '8 px, gray'])
def test_a_checkerboard_is_not_taken_for_a_coarse_jpeg(automatic, board):
    for image in board, compress(board, 40):
        found = automatic.predict(image)
        assert found.quality is None or found.compressed < 0.5


def test_the_reason_is_given(automatic):
    found = automatic.predict(checkerboard(8, 90, 150))
    assert found.quality is None and found.method == 'none' and found.reason == A_PATTERN


@pytest.mark.parametrize('path', PRISTINE, ids=lambda path: path.stem)
def test_a_mosaic_of_a_photo_is_no_jpeg(automatic, path):
    for side in 4, 8:
        found = automatic.predict(mosaic(cv2.imread(str(path)), side))
        assert found.quality is None or found.compressed < 0.5
        assert found.reason != A_PATTERN


def test_a_mosaic_that_by_itself_shows_no_jpeg_says_so(automatic, photo, monkeypatch):
    seen = []

    def network(image, header_quality=None):
        seen.append(image.shape)
        return ask(image if len(seen) == 2 else compress(photo, 30), header_quality)  # sure of 30

    ask = automatic.ask_network
    monkeypatch.setattr(automatic, 'ask_network', network)
    found = automatic.predict(mosaic(photo, 4))
    assert seen == [(300, 400, 3), (75, 100, 3)]
    assert found.quality is None and found.reason == REPEATED


def test_photos_and_their_jpegs_are_no_patterns(automatic, photo):
    for image in photo, compress(photo, 10), mosaic(photo, 8):
        assert not is_pattern(automatic.extract(image))


def test_few_patches_are_no_pattern():
    assert not is_pattern(np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1),
                                  (20, 1, 1, 3)))
