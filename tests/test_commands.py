"""The scripts as they are typed: what they print, write and refuse."""
import csv
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from classifier import evaluate_cls, files, gen_data, images, predict_cls, to_tflite, train
from classifier.checkpoints import best_folder, load_network, stored_threshold
from classifier.patches import PatchFile
from classifier.predictor import Predictor
from classifier.quality_map import quality_map
from classifier.studies.metrics import error_metrics
from conftest import CLASSIFIER, PRISTINE, REPOSITORY, SAMPLES, TINY, TINY_WEIGHTS

SCRIPTS = ['gen_data', 'train', 'predict_cls', 'evaluate_cls', 'to_tflite']
PAPER = ['--comp_type', 'jpeg_paper']
COMPRESSED = sorted(SAMPLES.glob('*_jpeg_q*.png'))


def typed(*command, cwd=REPOSITORY):
    """A command's result in a process of its own, without env.sh."""
    environment = {k: v for k, v in os.environ.items()
                   if k not in ('PYTHONPATH', 'TF_USE_LEGACY_KERAS', 'TF_CPP_MIN_LOG_LEVEL')}
    return subprocess.run([sys.executable, *map(str, command)], cwd=cwd, env=environment,
                          capture_output=True, text=True)


# ---------------------------------------------------------------- all of them

OPTIONAL = ('tensorflow', 'tf_keras', 'torch', 'ai_edge_litert', 'distributed', 'matplotlib',
            'sklearn', 'tensorboard')
WITHOUT_OPTIONAL = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({OPTIONAL}))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_shows_a_command_to_copy_and_needs_no_optional_package_or_data(script, tmp_path):
    result = typed('-c', WITHOUT_OPTIONAL, CLASSIFIER / f'{script}.py', '--help', cwd=tmp_path)
    assert result.returncode == 0 and result.stderr == ''
    assert f'python3 classifier/{script}.py --' in result.stdout
    assert not list(tmp_path.iterdir())


def test_the_baseline_s_help_shows_a_command_to_copy_too():
    code = (f'import sys, runpy; sys.modules.update(dict.fromkeys({OPTIONAL})); '
            'runpy.run_module("classifier.studies.mobilenet", None, "__main__", True)')
    result = typed('-c', code, '--help')
    assert result.returncode == 0 and result.stderr == ''
    assert 'python3 -m classifier.studies.mobilenet --' in result.stdout


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_missing_option_is_a_usage_error(script, capsys):
    with pytest.raises(SystemExit, match='2'):
        importlib.import_module(f'classifier.{script}').main([])
    assert 'required' in capsys.readouterr().err


@pytest.mark.parametrize('script', [f'{CLASSIFIER}/{script}.py' for script in SCRIPTS] + [
    '-m classifier.predict_cls', '-m classifier.studies.mobilenet'])
def test_without_its_packages_a_script_says_what_to_type(script):
    """-I and -S: nothing but the standard library."""
    command = ['-I', '-S', *script.split()] if script[0] == '/' else [
        '-S', '-c', 'import sys, runpy; sys.path.insert(0, "."); sys.argv[0] = "-m"; '
        f'runpy.run_module({script[3:]!r}, run_name="__main__")']
    result = typed(*command, '--help')
    error, = result.stderr.splitlines()
    assert result.returncode == 2 and '. ./env.sh' in error and 'numpy' in error


def test_output_may_go_to_anything_that_can_be_written_to(monkeypatch):
    """As in a notebook, or under contextlib.redirect_stdout."""
    for name in ('stdout', 'stderr'):
        monkeypatch.setattr(sys, name, io.StringIO())
    assert predict_cls.main(['--in_path', str(PRISTINE[0]), *PAPER, '--threshold', '0']) == 0
    assert sys.stdout.getvalue().startswith('predicted quality ')
    assert predict_cls.main(['--in_path', 'nowhere.png', *PAPER]) == 2
    assert sys.stderr.getvalue() == (
        'predict_cls.py: error: nowhere.png: no such file or folder\n')


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    """Both write in small pieces, by turns; the file is one's or the other's, whole."""
    path, turn = tmp_path / 'a.txt', threading.Barrier(2)

    def write(letter):
        with files.whole_file(path) as file:
            for _ in range(50):
                turn.wait(timeout=60)
                file.write(1000 * letter)
                file.flush()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in 'ab']
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in (50_000 * 'a', 50_000 * 'b')
    assert os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('module, options', [
    (gen_data, ['--in_path', '.', '--num_samples', '1', '--hdf5_name', 'a.h5']),
    (train, ['--hdf5_train_path', 'a.h5', '--hdf5_val_path', 'a.h5', '--out_path', 'out']),
    (predict_cls, ['--in_path', '.']),
    (evaluate_cls, ['--in_path', '.']),
    (to_tflite, [])])
def test_an_unknown_compression_type_is_answered_with_the_known_ones(
        module, options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.png').write_bytes(PRISTINE[0].read_bytes())
    assert module.main([*options, '--comp_type', 'jpeg']) == 2
    error = capsys.readouterr().err.strip().splitlines()
    name = module.__name__.rpartition('.')[2]
    assert error == [f"{name}.py: error: unknown compression type 'jpeg': "
                     'choose one of jpeg_paper, jpeg_paper_k12']


# ---------------------------------------------------------------- predict_cls.py

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
        assert found['header_quality'] is None and row[6:] == ['', '', 'no header']
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


@pytest.mark.parametrize('name', ['results.json', 'confusion_matrix.png'])
def test_results_that_cannot_be_written_are_named_before_the_work(
        photo_folder, tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).mkdir()
    monkeypatch.setattr(evaluate_cls, 'open_predictor', None)
    assert evaluate(photo_folder, tmp_path, PAPER) == 2
    assert f'{name}: is a folder' in capsys.readouterr().err


@pytest.mark.skipif(os.getuid() == 0, reason='root may write everywhere')
def test_a_read_only_folder_is_named_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict_cls, 'open_predictor', None)
    tmp_path.chmod(0o500)
    assert predict_cls.main(['--in_path', str(PRISTINE[0]), *PAPER,
                             '--csv', str(tmp_path / 'a.csv')]) == 2
    assert 'a.csv: cannot be written (Permission denied)' in capsys.readouterr().err


@pytest.mark.parametrize('mutants', ['100', pytest.param('3000', marks=pytest.mark.long)])
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


# ---------------------------------------------------------------- evaluate_cls.py

def test_metrics_of_a_hand_worked_example():
    metrics = error_metrics(np.array([5, 10, 50, 100]), np.array([5.5, 12, 47, 100]))
    assert metrics['count'] == 4
    assert metrics['mae'] == pytest.approx((0.5 + 2 + 3 + 0) / 4)
    assert metrics['std'] == pytest.approx(np.std([0.5, 2, -3, 0]))
    assert [metrics[f'within_{k}'] for k in ('0.5', '1', '2')] == [0.5, 0.5, 0.75]
    assert metrics['mae_by_decade'] == {'1-10': 1.25, '41-50': 3.0, '91-100': 0.0}


@pytest.mark.parametrize('text, expected', [
    ('1-100', list(range(1, 101))), ('5-95:10', list(range(5, 100, 10))), ('20,40', [20, 40])])
def test_qualities_are_given_as_ranges_and_lists(text, expected):
    assert evaluate_cls.qualities(text) == expected


@pytest.mark.parametrize('text', ['0-5', '90-101', 'high', '9-5'])
def test_other_qualities_are_a_usage_error(text, capsys):
    with pytest.raises(SystemExit, match='2'):
        evaluate_cls.parse_args(['--in_path', 'a', '--comp_type', 'jpeg_paper',
                                 '--qualities', text])


def test_an_evaluation_says_what_made_it_and_what_it_answered(photo_folder, tmp_path, predictor):
    command = ['--in_path', str(photo_folder), '--comp_type', 'jpeg_paper', '--out_path',
               str(tmp_path), '--qualities', '10,90', '--limit', '2', '--refine', '--crop', '3,5']
    assert evaluate_cls.main(command) == 0
    text = (tmp_path / 'results.json').read_text()
    results = json.loads(text)
    made = results['made_with']
    assert made['command'] == ' '.join(['evaluate_cls.py', *command])
    weights = hashlib.sha256((best_folder(predictor.type) / '.data-00000-of-00001').read_bytes())
    model = hashlib.sha256(predictor.model)
    assert (made['weights'], made['model']) == (weights.hexdigest()[:16], model.hexdigest()[:16])
    assert made['comp_type'] == 'jpeg_paper' and made['fusion'].startswith('likelihood ')
    assert made['patches'] == 'enough' and made['refine'] is True
    assert made['runtime'] == predictor.runtime
    assert made['versions'].keys() == {'python', 'numpy', 'opencv', 'pillow', predictor.runtime}
    assert made['versions']['python'] == sys.version.split()[0]
    answers = results['answers']
    assert [a['path'] for a in answers] == [str(p) for p in sorted(photo_folder.iterdir())[:2]]
    for answer in answers:
        assert answer['crop'] == '3,5' and answer['qualities'] == [10, 90]
        assert answer['predicted'] == [10, 90] and answer['by_lattice'] == [1, 1]
    assert sum('"predicted"' in line for line in text.splitlines()) == 2  # a line for each


def test_a_study_has_results_of_its_own(photo_folder, tmp_path, tiny_type, capsys):
    (tmp_path / 'results.json').write_text('mine')
    assert evaluate_cls.main(['--in_path', str(photo_folder), *tiny_type, '--out_path',
                              str(tmp_path), '--small', '--qualities', '50', '--limit', '1']) == 0
    assert (tmp_path / 'results.json').read_text() == 'mine'
    results = json.loads((tmp_path / 'results_small.json').read_text())
    assert results['made_with']['comp_type'] == 'tiny' and results['made_with']['weights']
    assert f'written: {tmp_path / "results_small.json"}' in capsys.readouterr().out


def test_an_evaluation_warns_about_images_that_are_jpegs_themselves(
        photo, tmp_path, capsys):
    (tmp_path / 'in').mkdir()
    for name, quality in ('fine.jpg', 97), ('poor.jpg', 60):
        cv2.imwrite(str(tmp_path / 'in' / name), photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert evaluate(tmp_path / 'in', tmp_path / 'out', PAPER) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if 'warning: ' in line]
    assert len(warnings) == 1 and 'poor.jpg: is itself a JPEG of quality 60' in warnings[0]


def evaluate(photo_folder, out, network, *more):
    return evaluate_cls.main(['--in_path', str(photo_folder), *network, '--out_path', str(out),
                              '--qualities', '10,90', '--limit', '2', *more])


def test_evaluation_of_images_gives_what_prediction_gives(
        photo_folder, tmp_path, capsys):
    assert evaluate(photo_folder, tmp_path, PAPER, '--crop', '0,0', '--crop', '3,5',
                    '--threshold', '0') == 0
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['images'] == 2 and list(results['by_crop']) == ['0,0', '3,5']
    predictor = Predictor('jpeg_paper', threshold=0)
    errors = []
    for path in sorted(photo_folder.iterdir())[:2]:
        for quality in (10, 90):
            coded = images.compress(images.read_image(path), quality)[3:, 5:]
            errors.append(abs(predictor.predict(np.ascontiguousarray(coded)).quality - quality))
    assert results['by_crop']['3,5']['mae'] == pytest.approx(np.mean(errors), abs=0.01)
    assert (tmp_path / 'confusion_matrix.png').read_bytes().startswith(b'\x89PNG')
    assert 'MAE' in capsys.readouterr().out
    assert not list(tmp_path.glob('*.part'))


def test_a_stopped_evaluation_goes_on_to_the_same_result(
        photo_folder, tmp_path, monkeypatch):
    assert evaluate(photo_folder, tmp_path / 'whole', PAPER) == 0
    read, names = evaluate_cls.read_image, []

    def interrupted(path):
        names.append(path.name)
        if len(names) == 2:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(evaluate_cls, 'read_image', interrupted)
    assert evaluate(photo_folder, tmp_path / 'halves', PAPER) == 130
    assert not (tmp_path / 'halves' / 'results.json').exists()
    assert evaluate(PRISTINE[0].parent, tmp_path / 'halves', [*PAPER, '--limit', '1']) == 0
    (tmp_path / 'halves' / 'results.json').unlink()
    names.clear()
    assert evaluate(photo_folder, tmp_path / 'halves', PAPER) == 0
    # The first image was not done again, though another evaluation came in between.
    assert len(names) == 1 and not list((tmp_path / 'halves').glob('*.part'))
    whole, halves = (json.loads((tmp_path / d / 'results.json').read_text())
                     for d in ('whole', 'halves'))
    assert whole['made_with'].pop('command') != halves['made_with'].pop('command')
    assert whole == halves


def test_an_image_that_cannot_be_used_is_left_out_and_named(
        photo_folder, tmp_path, capsys):
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / 'a.png').write_bytes(PRISTINE[0].read_bytes()[:3000])
    (folder / 'b.png').write_bytes(PRISTINE[0].read_bytes())
    assert evaluate(folder, tmp_path, PAPER) == 2
    assert re.search(r'error: \S+a\.png: ', capsys.readouterr().err)
    assert json.loads((tmp_path / 'results.json').read_text())['images'] == 1


def test_the_threshold_of_the_lowest_error_is_stored(photo_folder, tmp_path):
    assert evaluate(photo_folder, tmp_path, PAPER, '--find_threshold') == 0
    results = json.loads((tmp_path / 'results.json').read_text())
    curve = results['mae_by_threshold']
    assert len(curve) == 39 and curve[f'{results["threshold"]:g}'] == min(curve.values())
    assert results['by_crop']['0,0']['mae'] == min(curve.values())
    assert stored_threshold(TINY, tmp_path) == results['threshold']


def test_no_threshold_is_stored_at_which_most_images_have_no_reliable_patch(
        photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_cls, 'THRESHOLDS', np.array([99.9, 100.0]))
    assert evaluate(photo_folder, tmp_path, PAPER, '--find_threshold') == 2
    printed = capsys.readouterr()
    assert printed.out.count('no reliable patch in 100 % of the images') == 2
    error, = [line for line in printed.err.splitlines() if 'error: ' in line]
    assert 'so none was stored' in error and not list(tmp_path.iterdir())


def test_the_lowest_error_counts_only_where_patches_are_reliable(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate_cls, 'THRESHOLDS', np.array([80.0, 90.0, 95.0]))
    error = np.array([[[[3.0, 2.0, 0.0]]]] * 4)
    confident = np.array([[[[9, 1, 0]]], [[[9, 2, 0]]], [[[9, 0, 1]]], [[[9, 0, 0]]]])
    args, results = SimpleNamespace(in_path='in', out_path=tmp_path), {}
    assert evaluate_cls.find_threshold(args, error, confident, results) == 1
    assert (tmp_path / 'threshold.txt').read_text() == '90\n'
    assert results['mae_by_threshold'] == {'80': 3.0, '90': 2.0, '95': 0.0}


@pytest.mark.parametrize('option', ['--find_threshold', '--fit_likelihood'])
def test_the_shipped_weights_are_not_touched(photo_folder, capsys, option):
    folder = CLASSIFIER / 'save' / 'jpeg_paper' / 'best'
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert evaluate(photo_folder, folder, PAPER, option) == 2
    error, = capsys.readouterr().err.splitlines()
    assert 'holds the shipped weights' in error
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_evaluation_of_patches(patch_file, tmp_path, tiny_type):
    assert evaluate_cls.main(['--hdf5_val_path', str(patch_file), *tiny_type,
                              '--out_path', str(tmp_path), '--threshold', '50']) == 0
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['patches'] == 3000 and len(results['mae_by_decade']) == 10
    x, y = map(np.concatenate, zip(*PatchFile(patch_file, TINY).in_order(1000)))
    confidence, quality = load_network(TINY, TINY_WEIGHTS)(x.astype(np.float32)).numpy().T
    error = np.abs(quality - y)
    assert results['loss'] == pytest.approx(
        (0.5 * np.abs(100 - error - confidence) + error).mean(), rel=1e-4)
    assert results['mae'] == pytest.approx(error.mean(), rel=1e-4)


def test_a_fitted_likelihood_is_stored_with_the_weights_and_used(
        photo_folder, tmp_path, tiny_type, capsys):
    weights = tmp_path / 'weights'
    shutil.copytree(TINY_WEIGHTS, weights)
    (weights / 'likelihood.npz').write_bytes(b'damaged')
    where = ['--in_path', str(photo_folder), '--comp_type', 'tiny', '--weights', str(weights),
             '--out_path', str(weights)]
    assert evaluate_cls.main([*where, '--fit_likelihood', '--limit', '1']) == 0
    assert '25600 patches of 1 photos at 100 qualities' in capsys.readouterr().out
    assert Predictor('tiny', weights).log_likelihood is not None
    assert Predictor('tiny', weights, threshold=90).log_likelihood is None
    assert Predictor('tiny', weights, fusion='median').log_likelihood is None
    assert evaluate_cls.main([*where, '--qualities', '20,80', '--limit', '1']) == 0
    assert 'tiny, likelihood, cropped by (0, 0)' in capsys.readouterr().out


def test_a_likelihood_that_is_not_there_is_a_clear_error(tiny_type, capsys):
    assert predict_cls.main(['--in_path', str(PRISTINE[0]), *tiny_type,
                             '--fusion', 'likelihood']) == 2
    assert '--fit_likelihood' in capsys.readouterr().err


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
     r'exact quality 75, 4:2:0, block grid at \(5, 3\), margin \d+ nats, '),
    ('earth.png', "no quantization lattice to be seen: the network's answer stands")])
def test_one_image_gets_a_line_on_its_lattice(capsys, name, line):
    assert predict_cls.main(['--in_path', str(SAMPLES / name), *PAPER, '--refine']) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith('predicted quality ') and re.match(line, second)
    assert third.startswith('no header')


def test_evaluation_with_refinement(photo_folder, tmp_path):
    assert evaluate(photo_folder, tmp_path, PAPER, '--refine', '--crop', '3,5') == 0
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['refined'] == 1 and results['by_crop']['3,5']['mae'] == 0


# ---------------------------------------------------------------- as a library

@pytest.mark.parametrize('door', ['predictor', 'models'])
def test_the_documented_import_works_from_the_repository(door):
    code = (f"from classifier.{door} import Predictor, Prediction\n"
            "import numpy as np\n"
            "print(Predictor('jpeg_paper').predict(np.zeros((64, 64, 3), np.uint8)).patches)\n")
    result = typed('-c', code)
    assert result.returncode == 0 and result.stdout == '256\n'
