"""Pixels that come from WebP or AVIF are known as such, and no sure answer rests on them."""
import io

import cv2
import numpy as np
import pytest
from PIL import Image, features

from classifier import stored_again
from classifier.forensics.other_codecs import codec_of
from classifier.images import compress
from classifier.posterior import Posterior
from classifier.prediction import Prediction
from classifier.predictor import Predictor
from classifier.report import report_on
from classifier.stored_again import LIMIT, with_codec
from conftest import PRISTINE

CODECS = [name for name in LIMIT if features.check(name.lower())]


def stored(image, codec, quality):
    """BGR pixels after Pillow's lossy WebP or AVIF."""
    data = io.BytesIO()
    Image.fromarray(image[..., ::-1]).save(data, codec.upper(), quality=quality)
    return np.array(Image.open(data).convert('RGB'))[..., ::-1].copy()


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('quality', [30, 90])
def test_the_codec_is_known_by_its_colours(photo, codec, quality):
    image = stored(photo, codec, quality)
    assert codec_of(image) == codec and codec_of(image[37:160, 11:203]) == codec


@pytest.mark.parametrize('path', PRISTINE, ids=lambda path: path.stem)
def test_pixels_of_no_such_codec_are_not_taken_for_one(path):
    image = cv2.imread(str(path))
    for other in (image, *(compress(image, quality) for quality in (30, 75, 100)),
                  cv2.resize(compress(image, 60), None, fx=0.8, fy=0.8), 255 - image):
        assert codec_of(other) is None


@pytest.mark.parametrize('codec', CODECS)
def test_one_level_more_in_a_pixel_of_all_that_are_looked_at_ends_the_proof(photo, codec):
    image = stored(photo, codec, 80)
    image[::2, ::3, 0] += 1
    assert codec_of(image) is None


def test_of_gray_pictures_and_few_colours_nothing_is_proved(photo):
    gray = np.repeat(photo[..., :1], 3, axis=2)
    assert codec_of(stored(gray, 'WebP', 80) if 'WebP' in CODECS else gray) is None
    assert codec_of(photo[:16, :16] // 128 * 100 + 20) is None


@pytest.mark.parametrize('codec, low, high, compressed, answered', [
    ('WebP', 30, 55, 1.0, True), ('WebP', 70, 100, 0.8, False), ('AVIF', 74, 87, 1.0, False),
    ('AVIF', 50, 72, 1.0, True), ('WebP', 92, 100, 0.2, True), (None, 74, 100, 0.8, True)])
def test_an_answer_that_the_codec_s_own_traces_explain_is_none(monkeypatch, photo, codec, low, high,
                                                               compressed, answered):
    monkeypatch.setattr(stored_again, 'codec_of', lambda image: codec)
    quality = (low + high) / 2
    found = with_codec(Prediction(quality, 9, 9, Posterior(quality, 5.0, low, high, compressed)),
                       photo)
    assert found.codec == codec and (found.quality == quality) == answered
    assert answered or (found.quality is None and codec in found.reason)


def test_without_an_answer_or_an_interval_no_codec_is_looked_for(monkeypatch, photo):
    monkeypatch.setattr(stored_again, 'codec_of', None)
    unanswered = Prediction(None, 9, 9, reason='of a reason')
    by_the_median = Prediction(60.0, 9, 9)
    for found in unanswered, by_the_median:
        assert with_codec(found, photo) is found


@pytest.mark.skipif('WebP' not in CODECS, reason='Pillow without WebP')
def test_the_sentence_names_the_codec(photo, tmp_path):
    said = set()
    for name, image in ('once', compress(photo, 25)), ('never', photo):
        cv2.imwrite(str(tmp_path / 'a.png'), stored(image, 'WebP', 88))
        report = report_on(tmp_path / 'a.png', Predictor())
        said.add(report.conclusion)
        if name == 'once':
            assert report.conclusion.endswith('; stored as WebP afterwards')
            assert report.row['quality_low'] <= 25 <= report.row['quality_high']
        elif report.row['quality'] is None:
            assert 'come from WebP' in report.conclusion or 'too many' in report.conclusion
        else:
            assert report.row['compressed'] < 0.5
    assert len(said) == 2
