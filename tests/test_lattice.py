"""The quantization lattice: exact where it is, silent where it is not."""
import io
import itertools
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from classifier import evaluate_cls, images
from classifier.forensics import blocks, chroma, lattice
from classifier.forensics.lattice import estimate_table, find_quality
from classifier.forensics.tables import standard_tables
from classifier.studies import common, edits, lattice as lattice_studies
from conftest import PRISTINE, SAMPLES


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
    assert np.allclose(blocks.DCT @ blocks.DCT.T, np.eye(8))
    assert np.allclose(blocks.DCT @ block @ blocks.DCT.T, cv2.dct(block))


def test_the_quality_is_exact(pristine):
    for quality in (5, 10, 20, 37, 50, 63, 75, 80, 90, 95, 98):
        found = find_quality(images.compress(pristine, quality))
        assert (found.quality, found.grid_dy, found.grid_dx) == (quality, 0, 0)
        assert found.margin > 0 and found.evidence > 0


def test_the_grid_is_found_in_a_crop(pristine):
    for dy, dx in ((1, 0), (0, 7), (3, 5), (4, 4), (6, 2)):
        found = find_quality(images.compress(pristine, 60)[dy:, dx:])
        assert (found.quality, found.grid_dy, found.grid_dx) == (60, -dy % 8, -dx % 8)


def test_other_ways_to_code_the_same_tables_make_no_difference(photo):
    for options in ({'subsampling': 0}, {'subsampling': 1}, {'progressive': True},
                    {'optimize': True}):
        assert find_quality(pillow_jpeg(photo, quality=70, **options)).quality == 70, options


def test_the_last_of_two_compressions_is_found(photo):
    twice = images.compress(images.compress(photo, 40), 80)
    assert find_quality(twice).quality == 80


def edited_images(image):
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


def test_it_abstains_after_an_edit(pristine):
    for quality in (30, 60, 90):
        for kind, edited in edited_images(images.compress(pristine, quality)):
            assert find_quality(edited).quality is None, (quality, kind)


def test_it_abstains_on_what_was_never_compressed(pristine):
    assert find_quality(pristine).quality is None


def test_a_shift_of_brightness_leaves_the_answer_to_the_ac_coefficients(photo):
    image = photo // 2 + 60  # nothing clips
    for lift in (-16, 2, 10):
        lifted = images.compress(image, 25).astype(int) + lift
        assert 0 < lifted.min() and lifted.max() < 255
        assert find_quality(lifted.astype(np.uint8)).quality == 25


def test_a_crop_of_little_texture_is_found_by_its_exact_pixels():
    quiet = images.read_image(SAMPLES / 'earth.png') // 20 + 100
    crop = np.ascontiguousarray(images.compress(quiet, 45)[75:139, 101:165])
    quiet_blocks = blocks.get_blocks(crop, 5, 3)
    assert lattice.judge_blocks(quiet_blocks, 5, 3, None, standard_tables()).quality is None
    found = find_quality(crop)
    assert (found.quality, found.grid_dy, found.grid_dx) == (45, 5, 3)


@pytest.mark.parametrize('name', ['coffee.png', 'earth.png', 'raccoon.png'])
def test_the_subsampling_is_found(name):
    image = images.read_image(SAMPLES / name)
    for subsampling, quality in itertools.product(('4:4:4', '4:2:2', '4:2:0'), (30, 75, 90)):
        coded = pillow_jpeg(image, quality=quality, subsampling=subsampling)
        for dy, dx in ((0, 0), (3, 5), (8, 9), (13, 2)):
            found = find_quality(coded[dy:, dx:])
            assert (found.quality, found.subsampling) == (quality, subsampling)
            assert found.chroma_quality in (quality, None)
            assert found.chroma_quality == quality or subsampling != '4:4:4'


def test_a_gray_image_is_called_gray(photo):
    gray = np.repeat(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)[:, :, None], 3, axis=2)
    for dy, dx in ((0, 0), (3, 5)):
        found = find_quality(images.compress(gray, 60)[dy:, dx:])
        assert (found.quality, found.subsampling, found.chroma_quality) == (60, 'gray', None)


def test_a_chroma_table_of_another_quality_is_told_apart(photo):
    tables = [standard_tables()[79].tolist(), standard_tables(chroma=True)[59].tolist()]
    found = find_quality(pillow_jpeg(photo, qtables=tables, subsampling='4:4:4'))
    assert (found.quality, found.chroma_quality) == (80, 60)


def test_without_chroma_of_its_own_the_subsampling_is_not_guessed(photo):
    coded = images.compress(photo, 70).astype(int)
    coded[..., 0] += np.random.default_rng(0).integers(-3, 4, coded.shape[:2])  # Cb is gone
    blurred = cv2.GaussianBlur(photo, (0, 0), 3)
    for image in (np.clip(coded, 0, 255).astype(np.uint8), photo, blurred):
        assert chroma.read_chroma(image, 0, 0).subsampling is None


def test_upsampling_is_the_decoder_s():
    """A JPEG at quality 100 of chroma that changes in every sample, 4:2:0 and 4:2:2."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(60, 190, (24, 24, 3)).astype(np.uint8), (96, 96))
    for subsampling, vertical in (('4:2:0', True), ('4:2:2', False)):
        windows = pillow_jpeg(image, quality=100, subsampling=subsampling)[None, 28:52, 28:52]
        planes = chroma.colour_differences(windows)
        _, same = chroma.coded_planes(planes, vertical)
        assert same[:, 4:20, 4:20].mean() > 0.95


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
    for image in (None, photo[:, :, 0], photo[..., :2], 'photo.jpg'):
        with pytest.raises(ValueError, match='uint8 BGR'):
            find_quality(image)


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


# ---------------------------------------------------------------- studies

def study(photo_folder, out, name):
    assert evaluate_cls.main(['--in_path', str(photo_folder), '--comp_type', 'jpeg_paper',
                              '--study', name, '--limit', '1', '--out_path', str(out)]) == 0
    return json.loads((out / f'results_{name}.json').read_text())


def test_the_study_of_edited_images(photo_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(edits, 'EDITED_QUALITIES', (40,))
    found = study(photo_folder, tmp_path, 'edited')
    assert len(found['whole images']) == len(edits.EDITS) + 1 + len(edits.DRAWN)
    assert found['all']['cases'] == 2 * len(found['whole images']) and found['all']['wrong'] == 0
    assert found['whole images']['pristine']['abstained'] == 1
    assert 'colour shift' in capsys.readouterr().out


def test_every_edit_of_the_study_changes_the_image(photo):
    for name in edits.EDITS:
        edited = edits.edit(name, photo, np.random.default_rng(0))
        assert edited.dtype == np.uint8 and edited.ndim == 3, name
        assert edited.shape != photo.shape or (edited != photo).mean() > 0.3, name


def test_an_answer_is_right_when_it_stands_for_the_quality():
    assert common.outcome(None, 50, ()) == common.outcome(None, 50, (1, 99)) == 'abstained'
    assert [common.outcome(50, q, (50, 51)) for q in (50, 51, 52, None)] == [
        'right', 'right', 'wrong', 'wrong']
    assert common.outcome('gray', 'gray') == 'right' and common.outcome('gray', '4:2:0') == 'wrong'


def test_the_study_of_small_crops(photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lattice_studies, 'SMALL_SIDES', (64, 256))
    found = study(photo_folder, tmp_path, 'small')
    assert found['64']['cases'] == 20 and found['64']['wrong'] == 0
    assert found['256']['exact'] == 1


def test_the_study_of_other_tables(photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lattice_studies, 'TABLE_QUALITIES', (60,))
    found = study(photo_folder, tmp_path, 'tables')
    assert found['Photoshop']['cases'] == 9 and found['Klein']['cases'] == 1
    names = json.loads(lattice_studies.OTHER_TABLES.read_text())['tables']
    assert len(names) == 8
    for name in names:
        assert found[name]['read'] > 0.4 and found[name]['right'] == 1
        assert found[name]['taken_for_standard'] == 0


def test_the_study_of_the_chroma(photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lattice_studies, 'CHROMA_QUALITIES', (60,))
    found = study(photo_folder, tmp_path, 'subsampling')
    assert all(row['cases'] == 2 and row['right'] == 1 for row in found['subsampling'].values())
    assert found['chroma quality']['4:4:4']['right'] == 1


def test_the_other_tables_are_whole():
    tables = [table for _, table in lattice_studies.other_tables()]
    assert all(table.shape == (64,) and 1 <= table.min() <= table.max() <= 255
               for table in tables)
