"""The library's door: what it takes, what it refuses, in one sentence."""
import numpy as np
import pytest

from classifier.errors import InputError
from classifier.images import compress
from classifier.forensics.lattice import Lattice
from classifier.models import COMP_TYPES
from classifier.posterior import Posterior
from classifier.predictor import PATCHES, Prediction, Predictor


@pytest.fixture(scope='module', params=PATCHES)
def predictor(request):
    return Predictor('jpeg_paper', patches=request.param)


def test_any_iterable_of_images_is_answered(predictor, photo):
    images = [compress(photo, quality) for quality in (20, 60)]
    expected = predictor.predict_all(images)
    assert [p.quality for p in expected] == pytest.approx([20, 60], abs=1)
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


@pytest.mark.parametrize('option, known', [
    ({'fusion': 'median'}, 'name a comp_type'), ({'threshold': 90}, 'name a comp_type'),
    ({'fusion': 'liklihood'}, 'posterior, likelihood, median'), ({'patches': 'some'}, 'enough')])
def test_without_a_type_what_belongs_to_one_is_refused(option, known):
    with pytest.raises(InputError, match=known):
        Predictor(**option)


def answer(prediction):
    return (prediction.quality, prediction.quality_low, prediction.quality_high, prediction.method,
            prediction.uncertainty, prediction.compressed)


def test_an_answer_is_the_lattice_s_else_the_network_s_else_none():
    posterior = Posterior(61.5, 4.0, 55, 68, 0.97)
    lattice = Lattice(62, (61, 62), 0, 0, 50.0, 900.0, 0.01, 1000)
    nothing = Lattice(None, (), 0, 0, 0.0, -9.0, 0.5, 1000)
    for more in {}, {'lattice': nothing}:
        found = Prediction(61.5, 9, 256, posterior, **more)
        assert answer(found) == (61.5, 55, 68, 'network', 4.0, 0.97)
    both = Prediction(61.5, 9, 256, posterior, lattice)
    assert answer(both) == (62, 61, 62, 'lattice', 4.0, 1)
    assert answer(Prediction(None, 0, 0, lattice=lattice)) == (62, 61, 62, 'lattice', None, 1)
    assert answer(Prediction(50.0, 3, 4)) == (50, None, None, 'network', None, None)
    assert answer(Prediction(None, 0, 4, reason='why', lattice=nothing)) == (
        None, None, None, 'none', None, None)
