"""The quantization lattice: exact where it is, silent where it is not."""
import io

import cv2
import numpy as np
import pytest
from PIL import Image

import images
import lattice
from conftest import PRISTINE
from lattice import estimate_table, find_quality, standard_tables


@pytest.fixture(params=PRISTINE, ids=lambda p: p.name)
def pristine(request):
    return images.read_image(request.param)


def pillow_jpeg(image, **options):
    """The image after Pillow's JPEG encoder, decoded."""
    data = io.BytesIO()
    Image.fromarray(image[:, :, ::-1]).save(data, 'JPEG', **options)
    return np.asarray(Image.open(data).convert('RGB'))[:, :, ::-1]


def test_the_standard_tables_are_libjpeg_s(photo):
    for quality in (1, 24, 50, 51, 75, 100):
        data = io.BytesIO(cv2.imencode('.jpg', photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
        stored = Image.open(data).quantization
        assert stored[0] == standard_tables()[quality - 1].tolist()
        assert stored[1] == standard_tables(chroma=True)[quality - 1].tolist()


def test_no_two_luma_tables_are_the_same():
    assert len(np.unique(standard_tables(), axis=0)) == 100


def test_the_dct_is_orthonormal_and_opencv_s():
    block = np.random.default_rng(0).normal(size=(8, 8))
    assert np.allclose(lattice.DCT @ lattice.DCT.T, np.eye(8))
    assert np.allclose(lattice.DCT @ block @ lattice.DCT.T, cv2.dct(block))


@pytest.mark.parametrize('quality', [5, 10, 20, 37, 50, 63, 75, 80, 90, 95, 98])
def test_the_quality_is_exact(pristine, quality):
    found = find_quality(images.compress(pristine, quality))
    assert (found.quality, found.grid_dy, found.grid_dx) == (quality, 0, 0)
    assert found.margin > 0 and found.evidence > 0


@pytest.mark.parametrize('dy, dx', [(1, 0), (0, 7), (3, 5), (4, 4), (6, 2)])
def test_the_grid_is_found_in_a_crop(pristine, dy, dx):
    found = find_quality(np.ascontiguousarray(images.compress(pristine, 60)[dy:, dx:]))
    assert (found.quality, found.grid_dy, found.grid_dx) == (60, -dy % 8, -dx % 8)


@pytest.mark.parametrize('options', [
    {'subsampling': 0}, {'subsampling': 1}, {'progressive': True}, {'optimize': True}])
def test_other_ways_to_code_the_same_tables_make_no_difference(photo, options):
    assert find_quality(pillow_jpeg(photo, quality=70, **options)).quality == 70


def test_the_last_of_two_compressions_is_found(photo):
    twice = images.compress(images.compress(photo, 40), 80)
    assert find_quality(twice).quality == 80


def edits(image):
    """The compressed image, changed so that its lattice is gone."""
    height, width = image.shape[:2]
    rng = np.random.default_rng(0)
    yield 'resized', cv2.resize(image, (width * 4 // 5, height * 4 // 5),
                                interpolation=cv2.INTER_AREA)
    yield 'enlarged', cv2.resize(image, (width * 3 // 2, height * 3 // 2),
                                 interpolation=cv2.INTER_CUBIC)
    yield 'blurred', cv2.GaussianBlur(image, (0, 0), 1)
    yield 'contrast', cv2.convertScaleAbs(image, alpha=1.15, beta=-8)
    yield 'gamma', (255 * (image / 255) ** 0.8).astype(np.uint8)
    yield 'denoised', cv2.bilateralFilter(image, 5, 20, 3)
    yield 'noise', np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize('quality', [30, 60, 90])
def test_it_abstains_after_an_edit(pristine, quality):
    for kind, edited in edits(images.compress(pristine, quality)):
        assert find_quality(edited).quality is None, kind


def test_it_abstains_on_what_was_never_compressed(pristine):
    assert find_quality(pristine).quality is None


@pytest.mark.parametrize('image', [
    np.full((200, 200, 3), 255, np.uint8), np.zeros((16, 16, 3), np.uint8),
    np.zeros((7, 300, 3), np.uint8),
    np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)],
    ids=['white', 'black', 'thin', 'noise'])
def test_it_abstains_where_there_is_nothing_to_see(image):
    found = find_quality(image)
    assert found.quality is None and found.qualities == ()


def test_an_image_of_another_kind_is_refused(photo):
    with pytest.raises(ValueError, match='uint8 BGR'):
        find_quality(photo.astype(float))
    with pytest.raises(ValueError, match='0..7'):
        find_quality(photo, grid=(8, 0))


def test_a_table_of_another_encoder_is_read_step_by_step(photo):
    table = np.clip(standard_tables()[59].reshape(8, 8) + np.arange(64).reshape(8, 8) % 5, 1, 255)
    coded = pillow_jpeg(photo, qtables=[table.ravel().tolist()] * 2)
    assert find_quality(coded).quality is None
    found = estimate_table(coded)
    known = found.steps > 0
    assert known.sum() >= 40 and (found.steps[known] == table[known]).all()
    assert not found.standard and abs(found.quality - 60) <= 5


def test_a_standard_table_is_called_standard(photo):
    found = estimate_table(images.compress(photo, 60))
    assert found.standard and found.quality == 60
