"""The library's door: what it takes, what it refuses, in one sentence."""
import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from classifier.conclusion import conclusion
from classifier.errors import InputError
from classifier.images import compress, read_image, to_pillow
from classifier.forensics.lattice import Lattice
from classifier.models import COMP_TYPES
from classifier.posterior import Posterior
from classifier.predictor import PATCHES, Prediction, Predictor, _is_flat
from classifier.report import report_on
from conftest import PRISTINE, REPOSITORY


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


FLOATS = np.linspace(0, 1, 64 * 64 * 3).reshape(64, 64, 3)


@pytest.mark.parametrize('image, what', [
    (None, 'a path, a PIL image or a uint8 array, not a NoneType'),
    ([[1, 2], [3, 4]], 'not a list'),
    (FLOATS, r'a float64 array, with values from 0 to 1; pass \(255 \* image\)\.round\(\)'),
    (255 * FLOATS, r'from 0 to 255; pass image\.round\(\)\.astype'),
    (FLOATS - 0.5, 'a float64 array, with values from -0.5 to 0.5$'),
    (np.full((64, 64, 3), np.nan), 'a float64 array, with values from nan to nan$'),
    (np.ones((64, 64, 3), bool), 'a bool array$'), (np.zeros((0, 4)), 'a float64 array$'),
    (np.full((64, 64, 3), 7, np.int64), r'int64 array, .*; pass image\.astype'),
    (np.full((64, 64, 3), 700, np.uint16), 'of 16 bits, pass the upper 8'),
    (np.zeros((64, 64, 2), np.uint8), r'not \(64, 64, 2\)'),
    (np.zeros((1, 64, 64, 3), np.uint8), r'not \(1, 64, 64, 3\)'),
    (Image.new('I;16', (64, 64)), 'mode I;16 has no 8-bit pixels'),
    (Image.new('F', (64, 64)), 'mode F'),
    ('gone.png', 'gone.png: No such file'), (Path('tests'), 'tests: a folder')])
def test_what_is_no_image_is_refused_with_what_to_do(predictor, image, what, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for refine in (False, True):
        with pytest.raises(InputError, match=what):
            predictor.predict(image, refine)


def test_an_order_that_there_is_not_is_refused(predictor, photo):
    with pytest.raises(InputError, match='choose one of bgr, rgb'):
        predictor.predict(photo, order='gbr')


def test_an_image_may_be_a_path_a_pil_image_or_an_array_of_either_order(predictor, photo, tmp_path):
    coded = compress(photo, 60)
    expected = predictor.predict(coded, refine=True)
    assert expected.lattice.quality == 60 and expected.verdict == 'no header'
    cv2.imwrite(str(tmp_path / 'a.png'), coded)
    alpha = np.dstack([coded, np.full(coded.shape[:2], 9, np.uint8)])
    assert expected.earlier is None
    of_file = predictor.predict(tmp_path / 'a.png', refine=True)
    assert of_file.earlier.quality is None  # looked for, as it is of a file
    assert replace(of_file, earlier=None) == expected
    for image in (to_pillow(coded), alpha):
        assert predictor.predict(image, refine=True) == expected
    assert predictor.predict(str(tmp_path / 'a.png'), refine=True) == of_file
    for image in (coded[:, :, ::-1], alpha[:, :, [2, 1, 0, 3]]):
        assert predictor.predict(image, refine=True, order='rgb') == expected
    several = [coded, tmp_path / 'a.png', to_pillow(coded)]
    assert predictor.predict_all(several, refine=True) == [expected, of_file, expected]
    gray = compress(photo, 60, 'gray')
    expected = predictor.predict(gray, refine=True)
    assert expected.lattice.quality == 60
    for image in (gray[:, :, 0], gray[:, :, :1], to_pillow(gray).convert('L')):
        assert predictor.predict(image, refine=True) == expected


def test_a_damaged_pil_image_is_refused(predictor, tmp_path):
    data = PRISTINE[0].read_bytes()
    with pytest.raises(InputError, match='a PIL image that cannot be decoded'):
        predictor.predict(Image.open(io.BytesIO(data[:len(data) // 2])))


def test_of_a_jpeg_file_the_header_is_compared_too():
    found = Predictor().predict(REPOSITORY / 'docs' / 'twice.jpg')
    assert found.header.quality == found.quality == 90
    assert found.verdict == 'recompressed' and abs(found.earlier.quality - 60) <= 3
    report = report_on(REPOSITORY / 'docs' / 'twice.jpg', Predictor())
    assert report.row['verdict'] == 'recompressed'
    assert report.conclusion == conclusion(found)
    with pytest.raises(InputError, match='^gone.jpg: No such file'):
        report_on('gone.jpg', Predictor())


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


@pytest.fixture(scope='module')
def automatic():
    return Predictor()


def saved(tmp_path, image, quality):
    path = tmp_path / 'a.jpg'
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return path


@pytest.mark.parametrize('quality', [85, 90, 95])
def test_a_header_that_a_quarter_of_the_patches_agrees_with_takes_no_more(
        automatic, photo, tmp_path, quality):
    found = automatic.predict(saved(tmp_path, photo, quality))
    assert found.confirms_header and found.verdict == 'consistent' and found.patches == 64
    assert quality - 10 <= found.posterior.low <= found.network_quality
    assert automatic.ask_network(compress(photo, quality)).patches == 256  # not without a header


def test_a_header_is_contradicted_by_all_patches_as_if_none_had_been_looked_at_before(
        automatic, photo, tmp_path):
    edited = cv2.resize(compress(photo, 30), None, fx=1.2, fy=1.2, interpolation=cv2.INTER_CUBIC)
    found = automatic.predict(saved(tmp_path, edited, 95))
    assert found.verdict == 'contradiction' and found.patches == 256
    assert found.posterior == automatic.ask_network(read_image(tmp_path / 'a.jpg')).posterior


def test_an_image_is_predicted_once(automatic, photo, tmp_path, monkeypatch):
    path = saved(tmp_path, photo, 90)
    looked_at, predict = [], Predictor.predict
    monkeypatch.setattr(Predictor, 'predict', lambda *args: (
        looked_at.append(args), predict(*args))[1])
    report_on(path, automatic)
    assert len(looked_at) == 1


def test_an_image_is_flat_where_fewer_than_2_percent_of_its_tiles_are_textured(photo):
    def textured(image):  # the standard deviation of every tile and channel
        height, width = (side - side % 16 for side in image.shape[:2])
        tiles = image[:height, :width].reshape(height // 16, 16, width // 16, 16, 3)
        return (tiles.std(axis=(1, 3)).max(axis=-1) > 1.5).mean()

    rng = np.random.default_rng(0)
    images = [photo, np.full((333, 250, 3), 7, np.uint8), np.zeros((16, 16, 3), np.uint8)]
    for tiles in (1, 5, 6, 7):  # of 300: 2 % are 6
        flat = np.full((320, 240, 3), 100, np.uint8)
        for tile in rng.choice(300, tiles, replace=False):
            y, x = 16 * (tile // 15), 16 * (tile % 15)
            flat[y:y + 16, x:x + 8, 1] += 4
        images.append(flat)
    limit = np.full((16, 16, 3), 100, np.uint8)
    limit[:, ::2] += 3  # a standard deviation of 1.5, which is not more
    images += [limit, np.where(np.arange(16)[:, None, None] < 1, limit + 1, limit)]
    for image in images:
        assert _is_flat(image) == (textured(image) < 0.02)
    assert {_is_flat(image) for image in images} == {False, True}
