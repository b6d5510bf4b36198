"""evaluate_cls.py: what it measures, prints, writes and refuses."""
import hashlib
import json
import re
import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from classifier import evaluate_cls, images
from classifier.checkpoints import best_folder, load_network, stored_threshold
from classifier.patches import PatchFile
from classifier.predictor import Predictor
from classifier.studies import FITS
from classifier.studies.metrics import error_metrics
from conftest import CLASSIFIER, PRISTINE, TINY, TINY_WEIGHTS

PAPER = ['--comp_type', 'jpeg_paper']


def evaluate(photo_folder, out, network, *more):
    return evaluate_cls.main(['--in_path', str(photo_folder), *network, '--out_path', str(out),
                              '--qualities', '10,90', '--limit', '2', *more])


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


def test_an_evaluation_says_what_made_it_and_what_it_answered(photo_folder, tmp_path):
    predictor = Predictor('jpeg_paper')
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
                              str(tmp_path), '--study', 'small', '--limit', '1']) == 0
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


@pytest.mark.parametrize('name', ['results.json', 'confusion_matrix.png'])
def test_results_that_cannot_be_written_are_named_before_the_work(
        photo_folder, tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).mkdir()
    monkeypatch.setattr(evaluate_cls, 'open_predictor', None)
    assert evaluate(photo_folder, tmp_path, PAPER) == 2
    assert f'{name}: is a folder' in capsys.readouterr().err


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
    assert evaluate(photo_folder, tmp_path, PAPER, '--fit', 'threshold') == 0
    results = json.loads((tmp_path / 'results.json').read_text())
    curve = results['mae_by_threshold']
    assert len(curve) == 39 and curve[f'{results["threshold"]:g}'] == min(curve.values())
    assert results['by_crop']['0,0']['mae'] == min(curve.values())
    assert stored_threshold(TINY, tmp_path) == results['threshold']


def test_no_threshold_is_stored_at_which_most_images_have_no_reliable_patch(
        photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_cls, 'THRESHOLDS', np.array([99.9, 100.0]))
    assert evaluate(photo_folder, tmp_path, PAPER, '--fit', 'threshold') == 2
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


@pytest.mark.parametrize('fit', FITS)
def test_the_shipped_weights_are_not_touched(photo_folder, capsys, fit):
    folder = CLASSIFIER / 'save' / 'jpeg_paper' / 'best'
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert evaluate_cls.main(['--in_path', str(photo_folder), *PAPER, '--out_path', str(folder),
                              '--fit', fit]) == 2
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
    assert evaluate_cls.main([*where, '--fit', 'likelihood', '--limit', '1']) == 0
    assert ('27648 patches of 1 photos, each at 100 qualities and as it is'
            in capsys.readouterr().out)
    assert Predictor('tiny', weights).log_likelihood is not None
    assert Predictor('tiny', weights, threshold=90).log_likelihood is None
    assert Predictor('tiny', weights, fusion='median').log_likelihood is None
    assert evaluate_cls.main([*where, '--qualities', '20,80', '--limit', '1']) == 0
    assert 'tiny, likelihood, cropped by (0, 0)' in capsys.readouterr().out


def test_evaluation_with_refinement(photo_folder, tmp_path):
    assert evaluate(photo_folder, tmp_path, PAPER, '--refine', '--crop', '3,5') == 0
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['refined'] == 1 and results['by_crop']['3,5']['mae'] == 0
