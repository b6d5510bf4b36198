"""predict_cls.py: what it prints and writes for an image or a folder, and what it refuses."""
import csv
import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from classifier import images, predict_cls
from classifier.predictor import Predictor
from classifier.quality_map import quality_map
from conftest import CLASSIFIER, PRISTINE, REPOSITORY, SAMPLES
from test_commands import PAPER, typed

COMPRESSED = sorted(SAMPLES.glob('*_jpeg_q*.png'))


@pytest.mark.parametrize('cwd, script', [(REPOSITORY, 'classifier/predict_cls.py'),
                                         (CLASSIFIER, './predict_cls.py')])
def test_one_image_from_any_folder_prints_one_quiet_line(cwd, script):
    result = typed(script, '--in_path', SAMPLES / 'coffee_jpeg_q20.png',
                   '--comp_type', 'jpeg_paper', cwd=cwd)
    assert result.returncode == 0 and result.stderr == ''
    found = re.fullmatch(r'predicted quality (\d+\.\d\d), estimated in \d+\.\d{3} seconds\n',
                         result.stdout)
    assert abs(float(found[1]) - 20) <= 1


@pytest.fixture(scope='module')
def predictor():
    """The shipped network."""
    return Predictor('jpeg_paper')


@pytest.mark.parametrize('path', COMPRESSED, ids=lambda p: p.name)
def test_the_quality_of_every_sample_image_is_told_within_one(predictor, path):
    quality = int(re.search(r'_q(\d+)', path.name)[1])
    prediction = predictor.predict(images.read_image(path))
    assert abs(prediction.quality - quality) <= 1
    assert prediction.confident_patches > 0 and prediction.patches in range(32, 257, 32)


@pytest.mark.parametrize('path', PRISTINE, ids=lambda p: p.name)
def test_pristine_images_are_taken_for_hardly_compressed_ones(predictor, path):
    assert predictor.predict(images.read_image(path)).quality >= 92


@pytest.mark.parametrize('crop', [(1, 0), (3, 5), (4, 4), (7, 7)])
def test_a_crop_off_the_grid_changes_the_prediction_by_less_than_a_level(predictor, photo, crop):
    coded = images.compress(photo, 40)
    dy, dx = crop
    cut = np.ascontiguousarray(coded[dy:, dx:])
    assert abs(predictor.predict(cut).quality - predictor.predict(coded).quality) < 1


def test_images_in_one_batch_are_predicted_as_one_by_one(predictor, photo):
    several = [photo, images.compress(photo, 30), np.ascontiguousarray(photo[:50, :70])]
    together = predictor.predict_all(several)
    for image, prediction in zip(several, together):
        alone = predictor.predict(image)
        assert alone.quality == pytest.approx(prediction.quality, abs=0.01)
        assert alone.patches == prediction.patches


@pytest.fixture
def mixed_folder(tmp_path):
    folder = tmp_path / 'in'
    (folder / 'sub').mkdir(parents=True)
    for name in ('b.png', 'a.PNG', 'sub/c.png'):
        (folder / name).write_bytes(COMPRESSED[0].read_bytes())
    return folder


def test_a_folder_gets_a_line_for_each_image_and_the_mean(mixed_folder, capsys):
    assert predict_cls.main(['--in_path', str(mixed_folder), *PAPER, '--threshold', '0']) == 0
    lines = capsys.readouterr().out.splitlines()
    number = r'(\d+\.\d)'
    assert re.fullmatch(rf'  1/2: a\.PNG, {number}', lines[0])
    assert re.fullmatch(rf'  2/2: b\.png, {number}', lines[1])
    assert re.fullmatch(rf'Mean: {number}\d', lines[2]) and len(lines) == 3


def test_csv_and_json_hold_the_same_rows_in_path_order(mixed_folder, tmp_path, capsys):
    out = tmp_path / 'q.csv'
    assert predict_cls.main(['--in_path', str(mixed_folder), *PAPER, '--recursive', '--json',
                             '--threshold', '0', '--csv', str(out)]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with out.open(newline='') as file:
        assert file.readline().strip() == ','.join(predict_cls.FIELDS)
        rows = list(csv.reader(file))
    expected = [str(mixed_folder / name) for name in ('a.PNG', 'b.png', 'sub/c.png')]
    assert [row[0] for row in rows] == expected
    for row, found in zip(rows, objects):
        assert list(found) == list(predict_cls.FIELDS)
        assert found['header_quality'] is None and row[6:9] == ['', '', 'no header']
        assert row[9:] == ['', '', 'network', *(len(row) - 12) * ['']]  # the median's, of a PNG
        assert row[0] == found['path']
        assert float(row[1]) == pytest.approx(found['quality'], abs=0.01)
        assert [int(row[2]), int(row[3])] == [found['confident_patches'], found['patches']]


def test_an_unreadable_image_is_named_and_the_others_get_their_rows(mixed_folder, tmp_path, capsys):
    (mixed_folder / 'aa.png').write_bytes(COMPRESSED[0].read_bytes()[:5000])
    cv2.imwrite(str(mixed_folder / 'small.png'), np.zeros((15, 400, 3), np.uint8))
    out = tmp_path / 'q.csv'
    assert predict_cls.main(['--in_path', str(mixed_folder), *PAPER, '--csv', str(out)]) == 2
    printed = capsys.readouterr()
    assert re.search(r'error: \S+aa\.png: ', printed.err)
    assert re.search(r'error: \S+small\.png: a side of 15 px is too small', printed.err)
    assert '2 of 4 images could not be read' in printed.err
    assert len(out.read_text().splitlines()) == 3
    assert 'Mean' in printed.out


def test_a_folder_of_oddities_ends_with_a_row_for_each_good_image(tmp_path, capfd):
    folder = tmp_path / 'in'
    (folder / 'folder.png').mkdir(parents=True)
    good = COMPRESSED[0].read_bytes()
    names = ['-rf.png', 'a b.png', 'two\nlines\x1b[31m.png', os.fsdecode(b'latin\xe9.png'),
             'umlaut \xfc \u202e.png']
    for name in names:
        (folder / name).write_bytes(good)
    (folder / 'gone.png').symlink_to('nowhere')
    (folder / 'round.png').symlink_to('round.png')
    (folder / 'bad\nname.jpg').write_text('text')
    (folder / 'empty.webp').touch()
    os.mkfifo(folder / 'pipe.png')
    out = tmp_path / 'q.csv'
    command = ['--in_path', str(folder), *PAPER, '--threshold', '0']
    assert predict_cls.main([*command, '--csv', str(out)]) == 2
    printed = capfd.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 6 and lines[-1].startswith('Mean: ')
    assert r'two\nlines\x1b[31m.png, ' in printed.out and r'latin\udce9.png, ' in printed.out
    assert 'umlaut \xfc \\u202e.png, ' in printed.out
    errors = [line for line in printed.err.splitlines() if ': error: ' in line]
    assert len(errors) == 6 and r'bad\nname.jpg: not an image' in errors[0]
    assert '6 of 11 images could not be read' in printed.err
    with out.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        assert [row['path'] for row in csv.DictReader(file)] == sorted(str(folder / n)
                                                                       for n in names)
    assert predict_cls.main([*command, '--json', '--ignore_errors']) == 0
    found = [json.loads(line)['path'] for line in capfd.readouterr().out.splitlines()]
    assert found == sorted(str(folder / name) for name in names)


def test_printing_does_not_depend_on_the_terminal_s_encoding(tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / os.fsdecode(b'\xff\xc3\xbc.png')).write_bytes(COMPRESSED[0].read_bytes())
    for encoding in ('ascii', 'utf-8'):
        result = subprocess.run([sys.executable, REPOSITORY / 'classifier' / 'predict_cls.py',
                                 '--in_path', folder, '--comp_type', 'jpeg_paper'],
                                env=os.environ | {'PYTHONIOENCODING': encoding},
                                capture_output=True)
        assert result.returncode == 0 and rb'\udcff' in result.stdout


def test_the_pixel_limit_can_be_set(capsys):
    assert predict_cls.main(['--in_path', str(PRISTINE[0]), *PAPER, '--max_pixels', '99']) == 2
    assert 'is over the limit of 99 pixels' in capsys.readouterr().err


@pytest.mark.parametrize('options', [
    ['--csv', '{}'], ['--map', '{}'], ['--csv', '{}/file/a.csv'], ['--map', '{}/file/a/b.png']])
def test_an_output_that_cannot_be_written_is_named_before_the_work(
        options, tmp_path, monkeypatch, capsys):
    (tmp_path / 'file').touch()
    monkeypatch.setattr(predict_cls, 'open_predictor', None)
    options = [option.format(tmp_path) for option in options]
    assert predict_cls.main(['--in_path', str(PRISTINE[0]), *PAPER, *options]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and f'error: {options[1]}: ' in error[0]


@pytest.mark.skipif(os.getuid() == 0, reason='root may write everywhere')
def test_a_read_only_folder_is_named_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict_cls, 'open_predictor', None)
    tmp_path.chmod(0o500)
    assert predict_cls.main(['--in_path', str(PRISTINE[0]), *PAPER,
                             '--csv', str(tmp_path / 'a.csv')]) == 2
    assert 'a.csv: cannot be written (Permission denied)' in capsys.readouterr().err


@pytest.mark.parametrize('mutants', ['60', pytest.param('3000', marks=pytest.mark.long)])
def test_damaged_images_give_an_error_or_a_quality_and_nothing_else(mutants):
    """FUZZ_MUTANTS=100000 makes it a longer run."""
    mutants = os.environ.get('FUZZ_MUTANTS', mutants)
    result = typed('tests/fuzz_images.py', '--mutants', mutants)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[-1].startswith(f'{mutants} mutants of 22 files, ')
    assert result.stderr == ''


@pytest.mark.parametrize('options, reason', [
    (['--in_path', 'missing.png'], 'missing.png: no such file or folder'),
    (['--in_path', str(SAMPLES / 'README.md')], 'README.md: not an image'),
    (['--in_path', str(REPOSITORY / 'classifier')], 'no images there'),
    (['--in_path', str(PRISTINE[0]), '--weights', 'nowhere'], 'nowhere: no weights there'),
    (['--in_path', str(PRISTINE[0]), '--csv', '/dev/null/a.csv'],
     '/dev/null/a.csv: cannot be written (/dev/null is not a folder)')])
def test_what_cannot_be_used_gets_one_clear_line(options, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert predict_cls.main([*options, '--comp_type', 'jpeg_paper']) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error and len(error.splitlines()) == 1


def test_without_a_reliable_patch_it_says_so(capsys):
    assert predict_cls.main(['--in_path', str(PRISTINE[0]), *PAPER, '--threshold', '100']) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith('predicted quality 100.00, ')
    assert 'no patch was reliable' in printed.err


def test_a_threshold_out_of_range_is_a_usage_error(capsys):
    with pytest.raises(SystemExit, match='2'):
        predict_cls.main(['--in_path', 'a', '--comp_type', 'jpeg_paper', '--threshold', '101'])
    assert 'number in 0..100' in capsys.readouterr().err


def test_a_likelihood_that_is_not_there_is_a_clear_error(tiny_type, capsys):
    assert predict_cls.main(['--in_path', str(PRISTINE[0]), *tiny_type,
                             '--fusion', 'likelihood']) == 2
    assert '--fit likelihood' in capsys.readouterr().err


# ---------------------------------------------------------------- --map

@pytest.mark.parametrize('host, pasted', [(80, 40), (40, 80)])
def test_a_pasted_area_stands_out_on_the_map(predictor, photo, host, pasted):
    image = images.compress(images.read_image(SAMPLES / 'earth.png'), host)
    image[80:240, 203:363] = images.compress(photo, pasted)[90:250, 121:281]
    found = quality_map(predictor, image).quality
    centre = [8 + 8 * np.arange(n) for n in found.shape]
    inside = np.outer((centre[0] >= 80) & (centre[0] < 240), (centre[1] >= 203) & (centre[1] < 363))
    assert roc_auc_score(inside.ravel(), abs(found - np.median(found)).ravel()) > 0.9
    assert abs(np.median(found[inside]) - pasted) < abs(np.median(found[inside]) - host)


def test_the_map_is_drawn_for_one_image(tmp_path, capsys):
    out = tmp_path / 'map.png'
    assert predict_cls.main(['--in_path', str(PRISTINE[0]), *PAPER, '--map', str(out)]) == 0
    assert cv2.imread(str(out)).shape[0] > 300
    assert predict_cls.main(['--in_path', str(SAMPLES), *PAPER, '--map', str(out)]) == 2
    assert '--map is for one image' in capsys.readouterr().err


@pytest.mark.parametrize('height, width', [(16, 16), (16, 4000), (4000, 16), (40, 24)])
def test_the_map_of_a_small_or_narrow_image_is_drawn(tmp_path, photo, height, width):
    cv2.imwrite(str(tmp_path / 'a.png'), cv2.resize(photo, (width, height)))
    assert predict_cls.main(['--in_path', str(tmp_path / 'a.png'), *PAPER, '--threshold', '100',
                             '--map', str(tmp_path / 'map.png')]) == 0
    assert cv2.imread(str(tmp_path / 'map.png')) is not None


# ---------------------------------------------------------------- --refine

def test_refinement_gives_the_exact_quality_and_the_grid(tmp_path, capsys):
    out = tmp_path / 'q.csv'
    assert predict_cls.main(['--in_path', str(SAMPLES), *PAPER, '--refine',
                             '--csv', str(out)]) == 0
    with out.open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*predict_cls.FIELDS, *predict_cls.REFINED_FIELDS]
    for row in rows:
        quality = re.search(r'_q(\d+)', row['path'])
        if quality:
            grid = ('5', '3') if '_crop3x5' in row['path'] else ('0', '0')
            assert row['refined'] == quality[1] and float(row['quality']) == int(quality[1])
            assert (row['grid_dy'], row['grid_dx']) == grid and int(row['blocks']) > 100
            assert float(row['evidence']) > 100
            assert row['subsampling'] == ('gray' if 'gravel' in row['path'] else '4:2:0')
            assert row['chroma_quality'] in ('', quality[1])
        else:
            assert row['refined'] == row['grid_dy'] == row['grid_dx'] == row['subsampling'] == ''
            assert row['quality'] == row['network_quality']


@pytest.mark.parametrize('name, line', [
    ('earth_jpeg_q75_crop3x5.png',
     r'exact quality 75, 4:2:0, block grid at \(5, 3\), 1,200 of 1,200 blocks are bit-exact'),
    ('earth.png', "no quantization lattice found: the network's answer stands")])
def test_one_image_gets_a_line_on_its_lattice(capsys, name, line):
    assert predict_cls.main(['--in_path', str(SAMPLES / name), *PAPER, '--refine']) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith('predicted quality ') and re.match(line, second)
    assert third.startswith('no header')
