"""Pixels around a lattice, not on it: of other decoders, or changed a little since."""
import io
import json

import cv2
import numpy as np
import pytest
from conftest import PRISTINE, SAMPLES
from PIL import Image

from classifier import images, predict_cls
from classifier.conclusion import conclusion
from classifier.edits import rounded
from classifier.environment import import_tensorflow
from classifier.errors import InputError
from classifier.forensics.lattice import FAST, UNKNOWN, find_quality
from classifier.forensics.search import find_lattice
from classifier.predictor import Predictor
from classifier.recovery.recover import recover
from classifier.summary import answer, kind

QUALITIES = 30, 50, 75, 85, 90


@pytest.fixture(scope='module')
def photos():
    return [cv2.imread(str(path)) for path in PRISTINE]


def jpeg_file(image, **options):
    data = io.BytesIO()
    images.to_pillow(image).save(data, 'JPEG', **options)
    return data.getvalue()


def by_tensorflow(data):
    tf, _ = import_tensorflow()
    return np.ascontiguousarray(tf.io.decode_jpeg(data, channels=3).numpy()[..., ::-1])


def noisy(image, sigma=0.7):
    return rounded(image + np.random.default_rng(0).normal(0, sigma, image.shape))


@pytest.mark.parametrize('subsampling', [0, 2])
def test_the_quality_of_tensorflows_pixels_is_exact(photo, subsampling):
    for quality in QUALITIES:
        image = by_tensorflow(jpeg_file(photo, quality=quality, subsampling=subsampling))
        assert not find_quality(image).qualities
        found = find_lattice(np.ascontiguousarray(image[3:, 5:]))
        assert (found.quality, found.decoder) == (quality, FAST)
        assert (found.grid_dy, found.grid_dx) == (5, 3)
        assert found.exact_blocks > 0.9 * found.tested_blocks


@pytest.mark.parametrize('quality', QUALITIES)
def test_a_little_noise_does_not_hide_the_quality(photos, quality):
    for image in photos[1:]:  # coffee.png has a third of the pixels of the others
        found = find_lattice(noisy(images.compress(image, quality))[2:, 7:])
        assert found.quality == quality and found.decoder == UNKNOWN
        assert (found.grid_dy, found.grid_dx) == (6, 1)


def test_other_steps_and_never_compressed_pixels_are_not_called_a_quality(photos):
    """Whether each frequency or all of them are multiplied, or none was ever rounded."""
    for image in photos:
        coded = images.compress(image, 60)
        soft = cv2.GaussianBlur(coded, (0, 0), 0.7)
        for changed in (image, noisy(image), soft, rounded(1.7 * coded - 0.7 * soft),
                        rounded(128 + 0.9 * (coded - 128.0)),
                        cv2.resize(coded, None, fx=1.25, fy=1.25)):
            assert find_lattice(np.ascontiguousarray(changed)).quality is None


def test_coarse_tables_of_other_encoders_are_not_a_fine_one_decoded_otherwise(photo):
    flat = [16 + 8 * (i // 16) for i in range(64)]
    coded = Image.open(io.BytesIO(jpeg_file(photo, qtables=[flat, flat], subsampling=0)))
    assert find_lattice(images.from_pillow(coded)).quality is None


@pytest.fixture
def changed_a_little(tmp_path, photo):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), noisy(images.compress(photo, 75)))
    return path


def test_what_is_said_of_them(changed_a_little, tmp_path, photo, capsys):
    cv2.imwrite(str(tmp_path / 'b.png'), by_tensorflow(jpeg_file(photo, quality=75)))
    assert predict_cls.main([str(tmp_path), '--json']) == 0
    other, fast = map(json.loads, capsys.readouterr().out.splitlines())
    assert (other['decoder'], fast['decoder']) == (UNKNOWN, FAST)
    for row in other, fast:
        assert (row['quality'], row['quality_low'], row['quality_high']) == (75, 75, 75)
        assert row['method'] == 'lattice' and row['compressed'] == 1
    assert (kind(other), answer(other)) == ('estimated', 'quality 75, estimated')
    assert (kind(fast), answer(fast)) == ('exact', 'quality 75, exact')
    predictor = Predictor()
    assert conclusion(predictor.predict(changed_a_little)) == (
        "was a JPEG of quality 75 (block grid at (0, 0)); its pixels are another decoder's than "
        "libjpeg's, or were changed a little since")
    assert 'exactly (block grid at (0, 0), decoded by the fast inverse DCT); ' in conclusion(
        predictor.predict(tmp_path / 'b.png'))


def test_a_jpeg_that_no_known_decoder_gives_is_not_recovered(changed_a_little):
    image = images.read_image(changed_a_little)
    with pytest.raises(InputError, match='its decoder is not known here'):
        recover(image)


def test_the_samples_are_libjpegs():
    for path in SAMPLES.glob('*_jpeg_*.png'):
        assert find_lattice(images.read_image(path)).decoder is None
