"""Does the file tell the truth? An earlier, coarser compression under the last one."""
import csv
import json
import re

import cv2
import numpy as np
import pytest

from classifier import evaluate_cls, images, predict_cls
from classifier.forensics.encoders import Tables, encoder_data, identify
from classifier.forensics.known_tables import known_tables
from classifier.forensics.recompression import find_earlier
from classifier.forensics.tables import nearest_quality, scale_table, standard_tables
from classifier.studies import earlier_tables
from classifier.studies import recompression as study
from classifier.studies.common import pillow_jpeg
from classifier.studies.earlier_tables import TURNED, table_of
from conftest import PRISTINE

SHIPPED = ['--comp_type', 'jpeg_paper']
SAID = {'consistent': 'no earlier compression found$',
        'recompressed': r'recompressed: an earlier JPEG of about quality 5\d, grid at \(0, 0\)$'}


@pytest.fixture(params=PRISTINE, ids=lambda p: p.name)
def pristine(request):
    return images.read_image(request.param)


def test_an_earlier_compression_on_the_same_grid_is_found(pristine):
    for first, last in ((40, 75), (60, 90), (75, 95)):
        twice = images.compress(images.compress(pristine, first), last)
        earlier = find_earlier(twice, standard_tables()[last - 1])
        assert abs(earlier.quality - first) <= 2 and (earlier.grid_dy, earlier.grid_dx) == (0, 0)


def test_an_earlier_compression_on_another_grid_is_found(photo):
    for first, last in ((40, 80), (60, 95)):
        shifted = images.compress(photo, first)[2:, 5:]
        earlier = find_earlier(images.compress(shifted, last), standard_tables()[last - 1])
        assert abs(earlier.quality - first) <= 2 and (earlier.grid_dy, earlier.grid_dx) == (6, 3)


def test_one_compression_is_no_recompression(pristine):
    for quality in (30, 50, 70, 85, 95, 98, 100):
        coded = images.compress(pristine, quality)
        assert find_earlier(coded, standard_tables()[quality - 1]).quality is None, quality


def coded(image, table):
    """The image after Pillow's JPEG with that luma table, decoded."""
    return pillow_jpeg(np.ascontiguousarray(image), qtables=2 * [table.tolist()], subsampling=0)


@pytest.mark.parametrize('number', ['2', '7', '8'])
def test_one_compression_with_another_encoder_s_table_is_no_recompression(pristine, number):
    base = np.array(encoder_data()['mozjpeg']['tables'][number][0])
    for quality in (60, 80, 90):
        table = np.clip(scale_table(base, quality), 1, 255)
        assert find_earlier(coded(pristine, table), table).quality is None, quality


@pytest.mark.parametrize('encoder', ['jpegli', 'ffmpeg', 'Photoshop', TURNED])
def test_one_compression_by_any_encoder_is_no_recompression(photo, encoder):
    known = known_tables()
    tables = [steps for steps, names in zip(known.steps, known.encoders)
              if names[0].encoder == encoder]
    for table in tables[2::len(tables) // 5]:
        assert find_earlier(coded(photo, table), table).quality is None, table


# ---------------------------------------------------------------- tables that are not libjpeg's

@pytest.mark.parametrize('encoder, setting', [
    ('mozjpeg', 'mozjpeg 75'), ('mozjpeg', 'mozjpeg 60, -quant-table 7'), ('jpegli', 'jpegli 75'),
    ('ffmpeg', 'ffmpeg -q:v 5'), ('Photoshop', 'Photoshop 5 of 12'), (TURNED, 'libjpeg 70')])
@pytest.mark.parametrize('last', [90, 95])
def test_an_earlier_compression_by_another_encoder_is_found_and_named(photo, encoder, setting,
                                                                      last):
    table = table_of(encoder, setting)
    first = coded(photo, table)
    for pixels, grid in ((first, (0, 0)), (first[2:, 5:], (6, 3))):
        last_table = standard_tables()[last - 1]
        earlier = find_earlier(coded(pixels, last_table), last_table)
        assert (earlier.grid_dy, earlier.grid_dx) == grid
        assert (earlier.encoder, earlier.encoder_setting) == (encoder, setting)
        assert not earlier.standard and not earlier.changed
        assert abs(earlier.quality - nearest_quality(table)[0]) <= 2
        steps = np.array(earlier.steps)
        assert earlier.known_steps == (steps > 0).sum() > 10
        assert (steps == table)[steps > 0].mean() > 0.9


def test_an_earlier_table_on_no_list_is_found_step_by_step(photo):
    u, v = np.mgrid[:8, :8]
    table = np.rint(9 + 2.2 * u + 1.3 * v + 0.4 * u * v).astype(int).ravel()
    assert not (known_tables().steps == table).all(axis=1).any()
    last = standard_tables()[94]
    for pixels in (coded(photo, table), coded(photo, table)[3:, 1:]):
        earlier = find_earlier(coded(pixels, last), last)
        assert earlier.encoder is None and not earlier.standard and not earlier.changed
        steps = np.array(earlier.steps)
        assert (steps == table)[steps > 0].mean() > 0.9 and (steps > 0).sum() > 15
    fine = np.maximum(1, table // 9)  # finer than the last one: nothing to see
    assert find_earlier(coded(coded(photo, fine), last), last).quality is None


def test_an_earlier_libjpeg_table_is_known_as_such(photo):
    earlier = find_earlier(images.compress(images.compress(photo, 60), 95), standard_tables()[94])
    assert earlier.standard and earlier.encoder == 'libjpeg' and not earlier.changed
    steps = np.array(earlier.steps)
    assert (steps == standard_tables()[59])[steps > 0].mean() > 0.9


def test_pixels_changed_between_two_compressions_make_the_estimate_rough(photo):
    noise = np.random.default_rng(0).integers(-1, 2, (*photo.shape[:2], 1))
    for first in (50, 75):
        before = images.compress(photo, first)
        noisy = np.clip(before + noise, 0, 255).astype(np.uint8)
        paler = np.rint(before * 0.85 + 10).astype(np.uint8)
        for changed in (noisy, paler):
            earlier = find_earlier(images.compress(changed, 95), standard_tables()[94])
            assert earlier.changed and earlier.encoder is None and earlier.standard
            assert abs(earlier.quality - first) < 10


def test_the_tables_of_photoshop_have_its_fingerprints():
    tables = encoder_data()['photoshop']
    for setting, (luma, chroma) in enumerate(zip(tables['luma'], tables['chroma'])):
        known = identify(Tables(np.array(luma), (np.array(chroma),)))
        assert known.setting == f'Photoshop {setting} of 12'
    assert setting == 12


def test_known_tables_are_those_that_the_header_reader_names():
    known = known_tables()
    assert len(np.unique(known.steps, axis=0)) == len(known.steps) == len(known.encoders) > 1000
    assert (known.steps[:100] == standard_tables()).all()
    for steps, names in list(zip(known.steps, known.encoders))[::7]:
        told = [identify(Tables(steps, factors=factors)) for factors in (
            (), ((2, 2), (1, 1), (1, 1)))]
        if names[0].encoder in ('libjpeg', 'mozjpeg', 'jpegli', 'ffmpeg', TURNED):
            assert {(e.encoder, e.setting) for e in told} & {(e.encoder, e.setting) for e in names}


def test_flat_and_tiny_images_have_no_history():
    for image in (np.full((64, 64, 3), 90, np.uint8), np.zeros((8, 8, 3), np.uint8)):
        assert find_earlier(image, standard_tables()[89]).quality is None


def test_smooth_images_have_no_history():
    """Fine tables, too: where coefficients are rounding noise alone, any step explains them."""
    y, x = np.mgrid[:200, :240]
    rng = np.random.default_rng(0)
    for _ in range(6):
        wave = 128 + 60 * np.sin(x / rng.uniform(15, 50)) * np.cos(y / rng.uniform(15, 50))
        ramp = 128 + np.sqrt((x - rng.integers(240)) ** 2 + (y - rng.integers(200)) ** 2) / 3
        for shape in (wave, ramp):
            smooth = np.repeat(np.rint(shape)[..., None], 3, axis=2).astype(np.uint8)
            for quality in (73, 84, 90, 96, 98, 100):
                coded = images.compress(smooth, quality)
                assert find_earlier(coded, standard_tables()[quality - 1]).quality is None, quality


@pytest.fixture(params=[('once.jpg', 'consistent', 90), ('twice.jpg', 'recompressed', 90),
                        ('twice.png', 'no header', None)], ids=lambda p: p[0])
def judged_file(request, photo, tmp_path):
    """A file, the verdict on it, and the quality that its header stands for."""
    name, verdict, header = request.param
    image = images.compress(photo, 50) if 'twice' in name else photo
    cv2.imwrite(str(tmp_path / name), image, [cv2.IMWRITE_JPEG_QUALITY, 90]
                if name.endswith('jpg') else [])
    return tmp_path / name, verdict, header


def test_the_verdict_on_a_file_needs_no_option(judged_file, tmp_path, capsys):
    path, verdict, header = judged_file
    out = tmp_path / 'q.csv'
    assert predict_cls.main(['--in_path', str(path), *SHIPPED, '--csv', str(out)]) == 0
    with out.open(newline='') as file:
        row = next(csv.DictReader(file))
    assert (row['verdict'], row['header_quality']) == (verdict, str(header or ''))
    assert row['header_standard'] == ('True' if header else '')
    said = capsys.readouterr().out.splitlines()[1:]
    if header is None:
        assert not said
    else:
        assert len(said) == 1 and re.match(
            f'header says quality 90, 4:2:0; {SAID[verdict]}', said[0])
    assert predict_cls.main(['--in_path', str(path), *SHIPPED, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found['verdict'], found['header_quality']) == (verdict, header)


def test_with_refinement_the_last_line_is_on_the_header(judged_file, capsys):
    path, verdict, header = judged_file
    assert predict_cls.main(['--in_path', str(path), *SHIPPED, '--refine']) == 0
    said = capsys.readouterr().out.splitlines()[2]
    assert re.match(f'header says quality 90, 4:2:0; {SAID[verdict]}' if header
                    else 'no header: was a JPEG of quality 50', said)


def test_a_folder_gets_one_line_an_image(photo, tmp_path, capsys):
    for name in ('a.jpg', 'b.jpg'):
        cv2.imwrite(str(tmp_path / name), photo)
    assert predict_cls.main(['--in_path', str(tmp_path), *SHIPPED]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3  # and the mean


def test_the_table_of_detection_rates(photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, 'FIRST_QUALITIES', (50, 90))
    monkeypatch.setattr(study, 'LAST_QUALITIES', (80, 95))
    monkeypatch.setattr(study, 'SINGLE_QUALITIES', range(70, 72))
    assert evaluate_cls.main(['--in_path', str(photo_folder), '--comp_type', 'jpeg_paper',
                              '--study', 'recompression', '--out_path', str(tmp_path)]) == 0
    results = json.loads((tmp_path / 'results_recompression.json').read_text())
    assert list(results['aligned']) == ['50,80', '50,95', '90,95']
    assert results['aligned']['50,95'] == 1 and results['false_alarms'] == 0
    assert '0 false alarms in 8 images' in capsys.readouterr().out


def test_the_study_of_earlier_tables(photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(earlier_tables, 'FIRST', {
        'mozjpeg': ['mozjpeg 75', 'mozjpeg 60'], 'jpegli': ['jpegli 75'],
        TURNED: ['libjpeg 60', 'libjpeg 70']})
    monkeypatch.setattr(earlier_tables, 'FINE', {'mozjpeg': ['mozjpeg 90'], 'jpegli': [],
                                                 TURNED: []})
    monkeypatch.setattr(earlier_tables, 'LAST_QUALITIES', (95,))
    assert evaluate_cls.main(['--in_path', str(photo_folder), '--comp_type', 'jpeg_paper',
                              '--limit', '1', '--study', 'earlier_tables', '--out_path',
                              str(tmp_path)]) == 0
    results = json.loads((tmp_path / 'results_earlier_tables.json').read_text())
    row = results['mozjpeg']
    assert (row['cases'], row['same'], row['moved'], row['once'], row['false_alarms']) == (
        2, 1, 1, 3, 0)
    assert row['same_named'] == 1 and row['same_misnamed'] == 0
    assert results[earlier_tables.UNLISTED]['same'] == 1
    assert 'false alarms' in capsys.readouterr().out


def test_images_that_cannot_be_used_are_left_out_and_named(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, 'FIRST_QUALITIES', (50,))
    monkeypatch.setattr(study, 'LAST_QUALITIES', (90,))
    monkeypatch.setattr(study, 'SINGLE_QUALITIES', range(50, 51))
    (tmp_path / 'a.png').write_text('text')
    cv2.imwrite(str(tmp_path / 'b.png'), photo[:1, :1])
    command = ['--in_path', str(tmp_path), '--comp_type', 'jpeg_paper', '--study', 'recompression',
               '--out_path', str(tmp_path)]
    assert evaluate_cls.main(command) == 2
    assert 'none of the images can be used' in capsys.readouterr().err
    cv2.imwrite(str(tmp_path / 'c.png'), photo[:256, :256])
    assert evaluate_cls.main(command) == 2
    printed = capsys.readouterr().err
    assert 'a.png: not an image' in printed and 'b.png: 1x1 is smaller than' in printed
    results = json.loads((tmp_path / 'results_recompression.json').read_text())
    assert results['images'] == 1
