"""Lattices that the image as it is does not show: of a part of it, and under changed tones."""
import json

import cv2
import numpy as np
import pytest
from conftest import PRISTINE, SAMPLES
from PIL import Image, ImageEnhance

from classifier import evaluate_cls, images, predict_cls
from classifier.forensics.inside import find_inside
from classifier.forensics.lattice import find_quality
from classifier.forensics.search import find_lattice
from classifier.forensics.tables import standard_tables
from classifier.forensics.tone import undo_tones
from classifier.posterior import Posterior
from classifier.predictor import Prediction, Predictor
from classifier.studies import hidden
from classifier.studies.common import pillow_jpeg
from classifier.studies.edits import DRAWN


@pytest.fixture
def larger():
    """A pristine photo that fills a screen, (600, 800, 3)."""
    picture = cv2.imread(str(SAMPLES / 'gravel.png'))
    return cv2.resize(picture, (800, 600), interpolation=cv2.INTER_CUBIC)


def pasted(larger, part, x, y):
    larger[y:y + part.shape[0], x:x + part.shape[1]] = part
    return larger


@pytest.mark.parametrize('quality', [30, 60, 85, 90, 94])
def test_a_jpeg_inside_a_larger_photo_is_found_where_it_is(photo, larger, quality):
    image = pasted(larger, images.compress(photo[:200, :280], quality), 123, 250)
    assert find_quality(image).quality is None
    found = find_lattice(image)
    assert found.quality == quality and found.exact_blocks > 0
    assert (found.grid_dy, found.grid_dx) == (250 % 8, 123 % 8)
    assert abs(found.region_x - 123) <= 8 and abs(found.region_y - 250) <= 8
    assert abs(found.region_width - 280) <= 16 and abs(found.region_height - 200) <= 16


@pytest.mark.parametrize('kind', ['text', 'windows'])
def test_a_jpeg_inside_a_drawn_screen_is_found(photo, kind):
    screen = DRAWN[kind]((600, 800, 3), np.random.default_rng(1))
    found = find_lattice(pasted(screen, images.compress(photo, 75), 301, 103))
    assert found.quality == 75
    if found.region_x is not None:
        assert abs(found.region_x - 301) <= 8 and abs(found.region_y - 103) <= 8


def test_text_on_the_picture_does_not_hide_it(photo, larger):
    coded = images.compress(photo, 80)
    cv2.putText(coded, 'WHEN YOU SEE IT', (20, 150), 0, 1.4, (250, 250, 250), 4, cv2.LINE_AA)
    found = find_lattice(pasted(larger, coded, 50, 60))
    assert found.quality == 80 and found.region_height >= 100


@pytest.mark.parametrize('path', PRISTINE, ids=lambda path: path.stem)
def test_pictures_that_never_were_jpegs_hold_none(path, larger):
    picture = cv2.imread(str(path))
    assert find_inside(picture) is None
    assert find_inside(cv2.GaussianBlur(picture, (0, 0), 1)) is None
    assert find_inside(pasted(larger, picture[:160, :160], 40, 40)) is None


def test_another_encoder_s_jpeg_is_not_taken_for_a_standard_one_in_a_part(photo, larger):
    table = standard_tables()[75 - 1].copy()
    table[8:] += 5  # agrees in the first row alone
    coded = pillow_jpeg(photo, qtables=[table.tolist()] * 2)
    assert find_lattice(coded).quality is None
    assert find_lattice(pasted(larger, coded, 200, 100)).quality is None


def test_tiny_and_narrow_images_hold_nothing():
    rng = np.random.default_rng(0)
    for shape in ((16, 16, 3), (16, 400, 3), (400, 17, 3), (64, 64, 3)):
        assert find_inside(rng.integers(0, 256, shape, np.uint8)) is None


def changed(image, change):
    levels = np.clip(np.rint(change(np.arange(256.0))), 0, 255).astype(np.uint8)
    return cv2.LUT(image, levels)


@pytest.mark.parametrize('name, change', [
    ('contrast', lambda v: 128 + 1.05 * (v - 128)), ('contrast', lambda v: 128 + 1.5 * (v - 128)),
    ('contrast', lambda v: 128 - 1.2 * (v - 128)), ('contrast', lambda v: (v - 20) * 255 / 200),
    ('curve', lambda v: 255 * (v / 255) ** 1.25), ('curve', lambda v: 255 * (v / 255) ** 0.8),
    ('inverted', lambda v: 255 - v)])
@pytest.mark.parametrize('quality', [60, 90])
def test_the_quality_is_found_under_a_change_of_tones(photo, name, change, quality):
    found = find_lattice(changed(images.compress(photo, quality), change))
    assert found.quality == quality and found.tone == name


def test_pillow_s_contrast_and_brightness_are_looked_through(photo):
    coded = Image.fromarray(images.compress(photo, 75)[:, :, ::-1])
    for enhance in ImageEnhance.Contrast, ImageEnhance.Brightness:
        brighter = np.asarray(enhance(coded).enhance(1.3))[:, :, ::-1]
        assert find_lattice(np.ascontiguousarray(brighter)).quality == 75


def test_black_that_was_clipped_before_it_was_made_brighter_is_left_out(photo):
    dark = np.clip(photo.astype(int) - 90, 0, 255).astype(np.uint8)
    brighter = images.compress(dark, 60) + np.uint8(20)
    assert find_quality(brighter).quality is None
    found = find_lattice(brighter)
    assert (found.quality, found.tone) == (60, 'brighter or darker')


@pytest.mark.parametrize('shift', [-20, -3, 1, 20])
def test_a_shift_of_brightness_is_not_called_a_negative(photo, shift):
    middle = (photo * 0.5 + 60).astype(np.uint8)
    for quality in 60, 75, 90:
        shifted = (images.compress(middle, quality).astype(int) + shift).astype(np.uint8)
        found = find_lattice(shifted)
        assert found.quality == quality and found.tone in (None, 'brighter or darker')


@pytest.mark.parametrize('quality', [60, 75, 96])
def test_nothing_is_said_of_tones_that_were_not_changed(photo, quality):
    """Text of one colour, the darkest there is, piles up as clipped pixels do."""
    soft = cv2.convertScaleAbs(photo, alpha=0.6, beta=60)
    cv2.putText(soft, 'all of one colour', (10, 60), 0, 1.0, (12, 12, 12), 2)
    gray = cv2.cvtColor(cv2.cvtColor(pillow_jpeg(photo, quality), cv2.COLOR_BGR2GRAY),
                        cv2.COLOR_GRAY2BGR)
    for image in (pillow_jpeg(soft, quality), gray):
        assert find_lattice(image).tone is None


def test_levels_come_back_but_for_a_shift(photo):
    levels = np.clip(np.rint(1.3 * (np.arange(256.0) - 40)), 0, 255).astype(np.uint8)
    undone, tone = undo_tones(levels[photo])
    kept = [v for v in range(60, 200) if (photo == v).any()]
    assert tone == 'contrast' and len({int(undone[levels[v]]) - v for v in kept}) == 1


def test_untouched_histograms_have_nothing_to_undo(photo):
    assert undo_tones(photo) is None
    assert undo_tones(np.full((64, 64, 3), 7, np.uint8)) is None
    palette = np.asarray(Image.fromarray(photo).quantize(16).convert('RGB'))
    assert undo_tones(palette) is None


@pytest.mark.parametrize('path', PRISTINE, ids=lambda path: path.stem)
def test_pristine_photos_of_changed_tones_have_no_lattice(path):
    picture = cv2.imread(str(path))
    for change in (lambda v: 1.2 * v, lambda v: 255 * (v / 255) ** 1.4, lambda v: v - 30):
        assert find_lattice(changed(picture, change)).qualities == ()


def test_the_answer_says_where_and_what_was_changed(tmp_path, photo, larger, capsys):
    cv2.imwrite(str(tmp_path / 'a.png'), pasted(larger, images.compress(photo, 75), 123, 250))
    cv2.imwrite(str(tmp_path / 'b.png'), 255 - images.compress(photo, 80))
    assert predict_cls.main([str(tmp_path)]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert 'a.png: holds a JPEG of quality 75, exactly, at x 123 to 523, y 250 to 546' in first
    assert 'then inverted' in second
    assert predict_cls.main([str(tmp_path / 'a.png'), '--comp_type', 'jpeg_paper', '--refine']) == 0
    assert 'no header: holds a JPEG of quality 75, at x 123' in capsys.readouterr().out


@pytest.mark.parametrize('compressed, answered', [(0.1, True), (0.45, False), (0.7, False),
                                                  (0.95, True)])
def test_of_few_different_blocks_an_unsure_network_is_no_answer(monkeypatch, photo, compressed,
                                                                answered):
    y, x = np.mgrid[:384, :384]
    gradient = np.dstack([60 + x / 3, 90 + y / 4, 200 - x / 4]).astype(np.uint8)
    seen = Prediction(90.0, 100, 256, Posterior(90.0, 5.0, 80, 99, compressed))
    monkeypatch.setattr(Predictor, 'ask_network', lambda self, image: seen)
    predictor = Predictor()
    found = predictor.predict(gradient)
    assert (found.quality == 90) == answered
    assert found.reason == (None if answered else 'too little texture')
    assert predictor.predict(photo).quality == 90  # of more blocks it is believed


def study(folder, tmp_path, name):
    """The results of a study on the pristine sample photos."""
    assert evaluate_cls.main(['--in_path', str(folder), '--study', name,
                              '--out_path', str(tmp_path)]) == 0
    return json.loads((tmp_path / f'results_{name}.json').read_text())


def test_the_study_of_jpegs_inside_larger_pictures(photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hidden, 'SIDES', (192,))
    monkeypatch.setattr(hidden, 'INSIDE_QUALITIES', (75,))
    found = study(photo_folder, tmp_path, 'inside')
    assert found['192 px in borders']['right'] == 1
    assert all(found[row]['wrong'] == 0 for row in found if ' px in ' in row)
    assert found['never a JPEG']['abstained'] == 1
    assert 'of these within 8 px' in capsys.readouterr().out


def test_the_study_of_tones(photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(hidden, 'TONE_QUALITIES', (75,))
    found = study(photo_folder, tmp_path, 'tones')
    assert found['contrast 1.2']['right'] == 1 and found['contrast 0.9']['abstained'] == 1
    assert found['never a JPEG']['wrong'] == 0


def test_the_study_of_noise_without_jpeglib_says_what_to_do(photo_folder, tmp_path, monkeypatch,
                                                            capsys):
    monkeypatch.setattr(hidden.importlib.util, 'find_spec', lambda name: None)
    arguments = ['--in_path', str(photo_folder), '--out_path', str(tmp_path), '--study', 'noise']
    assert evaluate_cls.main(arguments) == 2
    error, = capsys.readouterr().err.splitlines()
    assert 'install jpeglib' in error


def test_the_study_of_noise(photo_folder, tmp_path, monkeypatch):
    pytest.importorskip('jpeglib', reason='has no wheel for this system')
    monkeypatch.setattr(hidden, 'INSIDE_QUALITIES', (75,))
    monkeypatch.setattr(hidden, 'NOISES', (0.5, 4.0))
    found = study(photo_folder, tmp_path, 'noise')
    for name in 'the fast inverse DCT', 'the inverse DCT in floating point', 'noise of 0.5':
        assert found[name]['right'] == 1
    assert found['noise of 4.0']['abstained'] == found['never a JPEG']['abstained'] == 1
