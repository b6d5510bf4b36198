"""The library's door: what it takes, what it refuses, in one sentence."""
import numpy as np
import pytest

from classifier.errors import InputError
from classifier.images import compress
from classifier.models import COMP_TYPES
from classifier.predictor import PATCHES, Predictor


@pytest.fixture(scope='module', params=PATCHES)
def predictor(request):
    return Predictor('jpeg_paper', patches=request.param)


def test_any_iterable_of_images_is_answered(predictor, photo):
    images = [compress(photo, quality) for quality in (20, 60)]
    expected = predictor.predict_all(images)
    assert [round(p.quality) for p in expected] == [20, 60]
    assert predictor.predict_all(image for image in images) == expected
    assert predictor.predict_all(tuple(images), refine=True)[1].lattice.quality == 60
    assert predictor.predict_all([]) == predictor.predict_all(iter(())) == []


@pytest.mark.parametrize('image, what', [
    (None, 'NoneType'), ('photo.png', 'str'), (np.zeros((64, 64, 3)), 'float64 array'),
    (np.zeros((64, 64, 3), np.uint16), 'uint16 array'),
    (np.zeros((64, 64), np.uint8), r'\(64, 64\)'),
    (np.zeros((64, 64, 4), np.uint8), r'\(64, 64, 4\)'),
    (np.zeros((1, 64, 64, 3), np.uint8), r'\(1, 64, 64, 3\)')])
def test_what_is_no_bgr_image_is_refused_by_kind(predictor, image, what):
    for refine in (False, True):
        with pytest.raises(InputError, match=rf'uint8 array of shape .* BGR, not a .*{what}'):
            predictor.predict(image, refine)


def test_a_small_image_is_refused(predictor):
    with pytest.raises(InputError, match='15 px is too small'):
        predictor.predict(np.zeros((15, 64, 3), np.uint8))


@pytest.mark.parametrize('option, known', [
    ({'fusion': 'liklihood'}, 'likelihood, median'), ({'runtime': 'litertt'}, 'litert, tensorflow'),
    ({'patches': 'some'}, 'enough, all'), ({'threshold': 101}, 'must be in 0..100'),
    ({'threshold': float('nan')}, 'must be in 0..100')])
def test_an_unknown_option_is_answered_with_the_known_ones(option, known):
    with pytest.raises(InputError, match=known):
        Predictor('jpeg_paper', **option)


def test_an_unknown_type_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=', '.join(COMP_TYPES)):
        Predictor('webp')
