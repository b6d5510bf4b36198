"""Robustness and analysis: what the studies of evaluate_cls.py measure and print."""
import json
import re
import shutil
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from PIL import Image

from classifier import evaluate_cls
from classifier.environment import cores
from classifier.errors import InputError
from classifier.predictor import Predictor
from classifier.studies import FITS, STUDIES, posterior_fit
from classifier.studies.analysis import (
    binned, interval, means_by_photo, most_confident, weighted_median)
from classifier.studies.common import every_photo, over_photos, pillow_jpeg
from classifier.studies.metrics import confusion_figure
from classifier.studies.robustness import CODERS, centre
from classifier.studies.stopping import MARGINS
from classifier.studies.wild import KINDS, measures
from conftest import CLASSIFIER, PRISTINE, REPOSITORY


def study(name, photo_folder, tmp_path, tiny_type, *more):
    """The study's results on one photo at two qualities."""
    assert evaluate_cls.main(['--in_path', str(photo_folder), *tiny_type, '--study', name,
                              '--limit', '1', '--qualities', '20,80', '--out_path', str(tmp_path),
                              *more]) == 0
    return json.loads((tmp_path / f'results_{name}.json').read_text())


def test_robustness_looks_at_every_kind_and_phase(photo_folder, tmp_path, tiny_type, capsys):
    results = study('robustness', photo_folder, tmp_path, tiny_type)
    kinds = results['kinds']
    assert set(CODERS) <= set(kinds) and kinds['OpenCV, 4:2:0']['count'] == 2
    assert {'never compressed', '50, then 80, same grid'} <= set(kinds)
    # The lattice does not care who wrote the file, in which order, or with which chroma.
    for name in ('OpenCV, 4:2:0', 'Pillow, 4:4:4', 'progressive', 'grayscale'):
        assert kinds[name]['exact'] == 1 and kinds[name]['refined_mae'] == 0
    assert kinds['OpenCV, 4:2:0']['network_mae'] > 1  # random weights
    assert len(results['mae_by_phase']) == 64
    assert '64 grid phases: MAE' in capsys.readouterr().out


@pytest.mark.parametrize('mode, options, expected', [
    ('RGB', {'subsampling': 0}, '4:4:4'), ('RGB', {'subsampling': 1}, '4:2:2'), ('L', {}, 'gray')])
def test_pillow_s_jpeg_has_the_chroma_it_is_named_for(photo, mode, options, expected):
    coded = pillow_jpeg(photo, 90, mode, **options)
    assert coded.shape == photo.shape and coded.dtype == np.uint8
    chroma = cv2.cvtColor(coded, cv2.COLOR_BGR2YCrCb)[:, :, 1:].astype(int)
    across = np.abs(np.diff(chroma, axis=1)).mean()
    full = cv2.cvtColor(pillow_jpeg(photo, 90, subsampling=0), cv2.COLOR_BGR2YCrCb)
    reference = np.abs(np.diff(full[:, :, 1:].astype(int), axis=1)).mean()
    assert {'4:4:4': across == reference, '4:2:2': 0 < across < 0.9 * reference,
            'gray': across == 0}[expected]


@pytest.mark.parametrize('name', ['robustness', 'analysis'])
@pytest.mark.filterwarnings('ignore:Data has no positive values')
def test_a_photo_of_which_nothing_can_be_told_stops_no_study(tmp_path, name):
    (tmp_path / 'in').mkdir()
    cv2.imwrite(str(tmp_path / 'in' / 'flat.png'), np.full((300, 300, 3), 120, np.uint8))
    found = study(name, tmp_path / 'in', tmp_path, ['--comp_type', 'jpeg_paper'])
    assert found['images'] == 1
    if name == 'robustness':
        assert found['kinds']['never compressed']['network_mae'] is None
        assert found['mae_by_phase'] == {}


@pytest.mark.parametrize('option, rule', [
    (['--refine'], '--refine goes with --in_path, without --study and --fit'),
    (['--fit', 'threshold'], '--fit: not allowed with argument --study')])
def test_options_that_a_study_would_ignore_are_a_usage_error(capsys, option, rule):
    with pytest.raises(SystemExit, match='2'):
        evaluate_cls.main(['--in_path', 'a', '--comp_type', 'jpeg_paper', '--study',
                           'robustness', *option])
    assert rule in capsys.readouterr().err


def test_a_centre_lies_on_the_block_grid():
    image = np.arange(100 * 80 * 3, dtype=np.uint32).reshape(100, 80, 3)
    part = centre(image, 64)
    assert part.shape == (64, 64, 3)
    y, x = np.argwhere(image[:, :, 0] == part[0, 0, 0])[0]
    assert (y % 8, x % 8) == (0, 0)


def test_the_analysis_compares_rules_samples_and_sizes(photo_folder, tmp_path, tiny_type, capsys):
    results = study('analysis', photo_folder, tmp_path, tiny_type)
    assert {'median above the threshold (paper)', 'median weighted by confidence',
            '32 x 32 patches', '1/2 of the size',
            'without test-time augmentation'} <= set(results['mae'])
    assert results['mae']['16 x 16 patches'] == results['mae']['1/1 of the size']
    full, half, quarter = results['megapixels'].values()
    assert full == pytest.approx(4 * half, rel=0.02)
    assert full == pytest.approx(16 * quarter, rel=0.05)
    assert Image.open(tmp_path / 'analysis.png').size[0] > 1000
    assert '8 x 8 patches' in capsys.readouterr().out


def test_a_monotone_calibration_is_fitted_on_other_photos(photo_folder, tmp_path, tiny_type):
    """Fitted on the very photos, on the levels asked for, it can only lower the error."""
    results = study('analysis', photo_folder, tmp_path, tiny_type,
                    '--calibrate_on', str(photo_folder))
    rule = 'median above the threshold (paper)'
    assert results['mae'][f'{rule}, calibrated'] < 0.9 * results['mae'][rule]  # random weights
    assert len(results['bias_by_quality'][f'{rule}, calibrated']) == 2


def test_calibration_goes_with_the_analysis(capsys):
    with pytest.raises(SystemExit, match='2'):
        evaluate_cls.main(['--in_path', 'a', '--comp_type', 'jpeg_paper', '--calibrate_on', 'b'])
    assert '--calibrate_on goes with --study analysis' in capsys.readouterr().err


def test_the_fusion_rules_on_patches_known_by_hand():
    output = np.array([[99, 10], [98, 20], [97, 30], [60, 90], [50, 95]])
    assert most_confident(output, 0.6) == 20
    assert most_confident(output, 1) == 30
    assert weighted_median(output) == 20  # those of low confidence hardly count
    assert weighted_median(output * [0, 1] + [90, 0]) == 30


def test_means_in_equally_full_bins():
    by, values = np.array([3.0, 1, 2, 4]), np.array([30.0, 10, 20, 40])
    assert binned(by, values, 2).tolist() == [[1.5, 3.5], [15, 35]]


def test_a_higher_decision_margin_takes_more_patches(photo_folder, tmp_path, capsys):
    assert evaluate_cls.main(['--in_path', str(photo_folder), '--comp_type', 'jpeg_paper',
                              '--limit', '1', '--qualities', '5,20,60', '--study', 'stopping',
                              '--out_path', str(tmp_path)]) == 0
    assert 'stopped at 1.75' in capsys.readouterr().out
    results = json.loads((tmp_path / 'results_stopping.json').read_text())
    taken = [results[f'stopped at {limit:g}']['patches'] for limit in MARGINS]
    assert taken == sorted(taken) and 32 <= taken[0] < taken[-1] < 256
    assert results['256 patches']['patches'] == 256 and results['cases'] == 3


def test_measures_of_a_hand_worked_example():
    truth = np.array([20, 50, 101, 101, 60])
    answers = np.array([[22, 18, 26, 1], [70, 68, 74, 1], [100, 97, 100, 0.1], [80, 60, 95, 0.9],
                        4 * [np.nan]])
    found = measures(truth, answers)
    assert found == {'count': 5, 'answered': 0.8, 'mae': 10.5, 'coverage': 0.5, 'width': 7,
                     'sure_and_wrong': 0.25, 'never_under_90': 0.5, 'never_told_jpeg': 0.5}
    nothing = measures(truth[4:], answers[4:])
    assert nothing['answered'] == 0 and nothing['mae'] is nothing['never_told_jpeg'] is None
    median = measures(truth[:1], np.array([[22, np.nan, np.nan, np.nan]]))  # which has no interval
    assert median['mae'] == 2 and median['coverage'] is median['width'] is None


def test_edited_images_are_answered_by_kind_and_quality(photo_folder, tmp_path, tiny_type, capsys):
    results = study('wild', photo_folder, tmp_path, tiny_type)
    assert list(results['by_kind']) == [*KINDS, 'all'] and results['images'] == 1
    assert {found['count'] for kind, found in results['by_kind'].items() if kind != 'all'} == {3}
    whole = results['by_kind']['all']
    assert whole['count'] == 3 * len(KINDS) and whole['answered'] == 1  # the median always does
    assert whole['mae_20'] > 0 and whole['mae_80'] > 0 and whole['coverage'] is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ['MAE', 'at', '20', '80'] and lines[-2].startswith('all  ')
    assert 'NaN' not in (tmp_path / 'results_wild.json').read_text()


def test_without_edits_the_study_s_answers_are_those_of_a_compressed_photo(
        photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr('classifier.studies.wild.KINDS', KINDS[:1])
    results = study('wild', photo_folder, tmp_path, ['--comp_type', 'jpeg_paper'])
    found = results['by_kind']['all']
    assert found['count'] == 3 and found['mae_20'] < 1 and found['mae_80'] < 2
    assert found['width'] < 5 and found['coverage'] is not None


# ---------------------------------------------------------------- what they share

def test_every_study_and_fit_opens_without_a_heavy_library():
    script = ('import sys\nfrom classifier.studies import FITS, STUDIES\n'
              'names = [name for name, study in (STUDIES | FITS).items() '
              'if study.module is None or callable(study.open())]\n'
              'print(*names, *(m for m in ("tensorflow", "torch", "sklearn", "matplotlib") '
              'if m in sys.modules))')
    done = subprocess.run([sys.executable, '-c', script], cwd=REPOSITORY, text=True,
                          capture_output=True, check=True)
    assert done.stdout.split() == [*STUDIES, *FITS]


def test_help_has_a_line_for_each_study_and_fit(capsys):
    with pytest.raises(SystemExit, match='0'):
        evaluate_cls.main(['--help'])
    text = capsys.readouterr().out
    for name, study in (STUDIES | FITS).items():
        assert re.search(rf'^  {name} +{re.escape(study.line[:40])}', text, re.MULTILINE)


@pytest.mark.parametrize('options, rule', [
    (['--study', 'small', '--qualities', '50'], '--qualities does not go with small'),
    (['--study', 'wild', '--crop', '3,5'], '--crop does not go with wild'),
    (['--fit', 'likelihood', '--qualities', '50'], '--qualities does not go with likelihood')])
def test_an_option_that_a_study_does_not_use_is_refused(capsys, options, rule):
    with pytest.raises(SystemExit, match='2'):
        evaluate_cls.main(['--in_path', 'a', '--comp_type', 'jpeg_paper', *options])
    assert rule in capsys.readouterr().err


def test_a_fit_refuses_the_rules_it_would_not_use(capsys):
    for option in (['--fusion', 'median'], ['--threshold', '90'], ['--refine']):
        with pytest.raises(SystemExit, match='2'):
            evaluate_cls.main(['--in_path', 'a', '--comp_type', 'jpeg_paper', '--fit',
                               'likelihood', *option])
        assert '--fit' in capsys.readouterr().err


def test_photos_are_worked_on_by_all_cores_in_order(monkeypatch):
    monkeypatch.setattr('classifier.batch.cores', lambda: 3)
    together = threading.Barrier(3, timeout=20)  # passed only by three threads at a time
    pairs = [(path, case) for path in PRISTINE[:2] for case in range(3)]

    def work(image, case):
        together.wait()
        return image.shape, case

    found = list(over_photos(work, pairs))
    assert [(path, case) for path, case, _ in found] == pairs and cores() >= 1
    shapes = [cv2.imread(str(path)).shape for path in PRISTINE[:2]]
    assert [result for *_, result in found] == [(s, case) for s in shapes for case in range(3)]
    assert every_photo(lambda image, index: [('shape', image.shape), ('index', index)],
                       PRISTINE[:2]) == {'shape': shapes, 'index': [0, 1]}


def test_an_error_in_a_study_names_the_photo():
    def work(image, case):
        raise InputError('too small')

    with pytest.raises(InputError, match=f'{PRISTINE[0]}: too small'):
        list(over_photos(work, [(PRISTINE[0], 0)]))


def test_no_study_has_a_number_of_threads_of_its_own():
    for path in (CLASSIFIER / 'studies').glob('*.py'):
        assert 'ThreadPoolExecutor(2)' not in path.read_text(), path


# ---------------------------------------------------------------- --fit likelihood

def fit(photo_folder, out, *more):
    return evaluate_cls.main(['--in_path', str(photo_folder), '--fit', 'likelihood', '--limit', '1',
                              '--out_path', str(out), *more])


def test_a_likelihood_goes_to_the_out_path_alone(photo_folder, tmp_path, tiny_type, capsys):
    shutil.copytree(tiny_type[3], tmp_path / 'weights')
    options = [*tiny_type[:3], str(tmp_path / 'weights')]
    before = {p: p.read_bytes() for p in (tmp_path / 'weights').iterdir()}
    assert fit(photo_folder, tmp_path / 'out', *options) == 0
    assert {p: p.read_bytes() for p in (tmp_path / 'weights').iterdir()} == before
    assert '27648 patches of 1 photos, each at 100 qualities and as it is; stored in ' in (
        capsys.readouterr().out)
    assert json.loads((tmp_path / 'out' / 'results_fit_likelihood.json').read_text())[
        'patches'] == 27648
    table = np.load(tmp_path / 'out' / 'likelihood.npz')['log_likelihood']
    assert table.shape == (101, 17, 101) and np.isfinite(table).all()
    assert fit(photo_folder, tmp_path / 'weights', *options) == 0  # beside the weights, if asked to
    assert (tmp_path / 'weights' / 'likelihood.npz').is_file()


def test_a_likelihood_never_replaces_the_shipped_one(photo_folder, capsys):
    folder = CLASSIFIER / 'save' / 'jpeg_paper' / 'best'
    before = (folder / 'likelihood.npz').read_bytes()
    assert fit(photo_folder, folder, '--comp_type', 'jpeg_paper') == 2
    assert 'holds the shipped weights' in capsys.readouterr().err
    assert (folder / 'likelihood.npz').read_bytes() == before


# ---------------------------------------------------------------- --fit posterior

@pytest.fixture
def six_photos(tmp_path):
    """A folder of six different images."""
    folder = tmp_path / 'six'
    folder.mkdir()
    for number in range(6):
        image = cv2.imread(str(PRISTINE[number % len(PRISTINE)]))
        cv2.imwrite(str(folder / f'{number}.png'), image[:, ::1 - 2 * (number > 3)])
    return folder


def test_a_fitted_posterior_is_stored_and_used(six_photos, tmp_path, tiny_type, monkeypatch,
                                               capsys):
    for name, value in (('DRAWS', 5), ('EPOCHS', 2), ('WIDTH', 8)):
        monkeypatch.setattr(posterior_fit, name, value)
    weights = tmp_path / 'weights'
    shutil.copytree(tiny_type[3], weights)
    where = ['--in_path', str(six_photos), '--comp_type', 'tiny', '--weights', str(weights),
             '--out_path', str(weights)]
    assert evaluate_cls.main([*where, '--fit', 'posterior']) == 0
    assert '30 pictures of 6 images; ' in capsys.readouterr().out
    results = json.loads((weights / 'results_fit_posterior.json').read_text())
    assert results['pictures'] == 30 and 0.7 <= results['temperature'] <= 4.01
    assert {'coverage', 'mae', 'median_width'} < set(results)
    predictor = Predictor('tiny', weights)
    assert predictor.fusion == 'posterior' and predictor.image_posterior.edits == KINDS
    assert Predictor('tiny', weights, fusion='median').fusion == 'median'
    assert Predictor('tiny', weights, threshold=90).fusion == 'median'
    found = predictor.predict(cv2.imread(str(PRISTINE[0])))
    assert 1 <= found.quality_low <= found.quality <= found.quality_high <= 100
    assert 0 < found.edited < 1 and 0 < found.compressed < 1 and found.uncertainty > 0
    assert evaluate_cls.main([*where, '--fusion', 'posterior', '--qualities', '20,80',
                              '--limit', '1']) == 0
    assert 'tiny, posterior, cropped by (0, 0)' in capsys.readouterr().out
    made = json.loads((weights / 'results.json').read_text())['made_with']
    assert re.fullmatch('posterior [0-9a-f]{16}', made['fusion'])


def test_too_few_images_to_fit_on_are_named(photo_folder, tmp_path, tiny_type, capsys):
    assert evaluate_cls.main(['--in_path', str(photo_folder), *tiny_type, '--fit', 'posterior',
                              '--out_path', str(tmp_path / 'out')]) == 2
    error, = capsys.readouterr().err.splitlines()
    assert error.endswith(f'{photo_folder}: at least 5 images are needed')


def test_a_posterior_that_is_asked_for_and_not_there_is_a_clear_error(tiny_type):
    with pytest.raises(InputError, match='posterior.npz: missing or damaged; make it with '):
        Predictor('tiny', tiny_type[3], fusion='posterior')


def test_intervals_are_over_photos_not_over_patches():
    by_photo = np.array([[1.0, 5.0], [3.0, 5.0], [5.0, np.nan]])
    assert interval(by_photo) == pytest.approx([1.96 * 2 / np.sqrt(3), 0])
    assert interval(by_photo[:1]) == pytest.approx([0, 0])
    by, values = np.arange(12.0), np.arange(12.0)
    found = means_by_photo(by, values, np.repeat([0, 1], 6), bins=3)
    assert found == pytest.approx(np.array([[1.5, 4.5, np.nan], [np.nan, 6.5, 9.5]]), nan_ok=True)


def test_the_figure_of_errors_covers_the_largest_and_says_when_its_axis_is_logarithmic():
    truth = np.repeat([10, 50], 4)
    small = confusion_figure(truth, {'a': truth + 1.0})
    assert small.axes[0].get_yscale() == 'linear' and small.axes[0].get_title() == 'a'
    both = confusion_figure(truth, {'a': truth + 1.0, 'b': np.full(8, 100.0)})
    assert [axis.get_title() for axis in both.axes[:2]] == ['(a) a', '(b) b']
    assert both.axes[0].get_yscale() == 'symlog' and both.axes[0].get_ylim()[1] >= 90
    assert 'log scale beyond' in both.axes[0].get_ylabel()
