"""predict_cls.py: what it prints and writes for an image or a folder, and what it refuses."""
import csv
import io
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
from classifier.quality_map import QualityMap, map_figure, quality_map
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


def test_a_folder_gets_a_line_for_each_image_and_counts(mixed_folder, capsys):
    assert predict_cls.main(['--in_path', str(mixed_folder), *PAPER, '--threshold', '0']) == 0
    first, second, counts = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r'a\.PNG: quality \d+\.\d, estimated', first)
    assert re.fullmatch(r'b\.png: quality \d+\.\d, estimated', second)
    assert counts == '2 images: 2 estimated'


def test_the_lines_of_a_chosen_network_say_what_is_exact_and_what_the_header_is_worth(
        tmp_path, capsys):
    twice = REPOSITORY / 'docs' / 'twice.jpg'
    paths = [*map(str, (COMPRESSED[0], PRISTINE[0], twice)), str(tmp_path)]
    (tmp_path / 'a.png').write_bytes(b'no image')
    assert predict_cls.main([*paths, '--comp_type', 'jpeg_paper', '--refine']) == 2
    printed = capsys.readouterr()
    exact, never, again, counts = printed.out.splitlines()
    assert exact == f'{COMPRESSED[0]}: quality 20, exact'
    assert never == f'{PRISTINE[0]}: no sign of JPEG compression'
    assert re.fullmatch(rf'{twice}: quality 90, exact; header says quality 90, 4:2:0; recompressed:'
                        r' an earlier JPEG of about quality 60, grid at \(5, 3\)', again)
    assert counts == '4 images: 2 exact, 1 never JPEG; 1 recompressed; 1 could not be read'
    error, = printed.err.splitlines()
    assert error.startswith(f'predict_cls.py: error: {tmp_path / "a.png"}: not an image')


@pytest.mark.parametrize('between', ['\n', '\0', '\r\n'])
def test_a_list_of_paths_comes_on_standard_input(mixed_folder, monkeypatch, capsys, between):
    names = [str(mixed_folder / 'b.png'), str(mixed_folder / 'sub'), 'gone.png']
    text = between.join([*names, ''])
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(text.encode())))
    assert predict_cls.main(['-', str(PRISTINE[0]), str(mixed_folder / 'b.png'), '--json']) == 2
    printed = capsys.readouterr()
    assert [json.loads(line)['path'] for line in printed.out.splitlines()] == [
        names[0], str(mixed_folder / 'sub' / 'c.png'), str(PRISTINE[0])]
    error, counts = printed.err.splitlines()
    assert 'error: gone.png: No such file' in error
    assert counts == '4 images: 2 exact, 1 never JPEG; 1 could not be read'


def test_an_empty_list_is_a_clear_error(monkeypatch, capsys):
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'\n')))
    assert predict_cls.main(['-']) == 2
    assert capsys.readouterr().err == (
        'predict_cls.py: error: standard input: names no image\n')


@pytest.mark.parametrize('where', ['-', '/dev/stdout'])
def test_the_rows_may_go_to_standard_output_and_nothing_else_does(mixed_folder, capfd, where):
    assert predict_cls.main([str(mixed_folder), '--csv', where]) == 0
    printed = capfd.readouterr()
    rows = list(csv.DictReader(printed.out.splitlines()))
    assert [row['path'] for row in rows] == [str(mixed_folder / n) for n in ('a.PNG', 'b.png')]
    assert all(row['quality'] == '20.00' for row in rows)
    assert printed.err == '2 images: 2 exact\n'


def test_a_pipe_gets_the_rows_of_a_csv(mixed_folder):
    for where in ('-', '/dev/stdout'):
        done = typed('classifier/predict_cls.py', mixed_folder, '--quiet', '--csv', where)
        assert done.returncode == 0 and done.stderr == ''
        assert len(list(csv.DictReader(done.stdout.splitlines()))) == 2


def test_quiet_leaves_results_and_errors(mixed_folder, capsys):
    (mixed_folder / 'c.png').write_bytes(b'no image')
    assert predict_cls.main([str(mixed_folder), '--quiet']) == 2
    printed = capsys.readouterr()
    assert [line.partition(':')[0] for line in printed.out.splitlines()] == ['a.PNG', 'b.png']
    assert len(printed.err.splitlines()) == 1 and 'c.png: not an image' in printed.err


@pytest.mark.parametrize('options, reason', [
    (['a.png', '--resume'], '--resume goes with --csv FILE'),
    (['a.png', '--resume', '--csv', '-'], '--resume goes with --csv FILE'),
    (['a.png', '--json', '--csv', '-'], 'choose one')])
def test_outputs_that_exclude_each_other_are_refused(capsys, options, reason):
    with pytest.raises(SystemExit, match='2'):
        predict_cls.main(options)
    assert reason in capsys.readouterr().err


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
        assert float(row[1]) == found['quality'] and float(row[4]) == found['seconds']
        assert [int(row[2]), int(row[3])] == [found['confident_patches'], found['patches']]


def test_an_unreadable_image_is_named_and_the_others_get_their_rows(mixed_folder, tmp_path, capsys):
    (mixed_folder / 'aa.png').write_bytes(COMPRESSED[0].read_bytes()[:5000])
    cv2.imwrite(str(mixed_folder / 'small.png'), np.zeros((15, 400, 3), np.uint8))
    out = tmp_path / 'q.csv'
    assert predict_cls.main(['--in_path', str(mixed_folder), *PAPER, '--csv', str(out)]) == 2
    printed = capsys.readouterr()
    assert re.search(r'error: \S+aa\.png: ', printed.err)
    assert re.search(r'error: \S+small\.png: a side of 15 px is too small', printed.err)
    assert len(out.read_text().splitlines()) == 3
    assert printed.out.endswith('4 images: 2 estimated; 2 could not be read\n')


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
    assert len(lines) == 6 and lines[-1].startswith('11 images: ')
    assert r'two\nlines\x1b[31m.png: ' in printed.out and r'latin\udce9.png: ' in printed.out
    assert 'umlaut \xfc \\u202e.png: ' in printed.out
    errors = [line for line in printed.err.splitlines() if ': error: ' in line]
    assert len(errors) == 6 and r'bad\nname.jpg: not an image' in errors[0]
    assert lines[-1].endswith('; 6 could not be read')
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
    (['https://a.org/b.png'], 'https://a.org/b.png: a URL; download it, and name the file'),
    ([str(PRISTINE[0]), '--map', 'map.jpg'], 'map.jpg: --map draws a PNG file'),
    ([str(PRISTINE[0]), '--csv', 'gone/a.csv'], 'there is no folder gone'),
    ([str(PRISTINE[0]), '--map', 'gone/a.png'], 'there is no folder gone'),
    ([str(SAMPLES), '--map', 'a.png'], '--map is for one image'),
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


def test_the_map_covers_the_image_in_the_range_that_occurs(photo):
    quality = np.full((20, 30), 60.0)
    quality[5:9, 5:9] = 30
    found = QualityMap(quality, np.full((20, 30), 99.0))
    image = np.ascontiguousarray(photo[:172, :252])  # not a multiple of 8
    photo_panel, map_panel, *_ = map_figure(image, found, 90).axes
    mesh, = map_panel.collections
    assert mesh.get_clim() == (30, 60)
    corners = mesh.get_coordinates()
    assert corners[0, 0].tolist() == [0, 0] and corners[-1, -1].tolist() == [252, 172]
    assert photo_panel.images[0].get_array().shape == image.shape
    even = QualityMap(np.full((20, 30), 95.0), np.full((20, 30), 10.0))
    mesh, *hatched = map_figure(image, even, 90).axes[1].collections
    assert mesh.get_clim() == (85, 100) and hatched


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
