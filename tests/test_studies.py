"""Robustness and analysis: what the studies of evaluate_cls.py measure and print."""
import json

import cv2
import numpy as np
import pytest
from PIL import Image

import evaluate_cls
import studies
from lattice_studies import pillow_jpeg


def study(name, photo_folder, tmp_path, tiny_type, *more):
    """The study's results on one photo at two qualities."""
    assert evaluate_cls.main(['--in_path', str(photo_folder), *tiny_type, f'--{name}', '--limit',
                              '1', '--qualities', '20,80', '--out_path', str(tmp_path), *more]) == 0
    return json.loads((tmp_path / 'results.json').read_text())


def test_robustness_looks_at_every_kind_and_phase(photo_folder, tmp_path, tiny_type, capsys):
    results = study('robustness', photo_folder, tmp_path, tiny_type)
    kinds = results['kinds']
    assert set(studies.CODERS) <= set(kinds) and kinds['OpenCV, 4:2:0']['count'] == 2
    assert {'never compressed', '50, then 80, same grid'} <= set(kinds)
    # The lattice does not care who wrote the file, in which order, or with which chroma.
    for name in ('OpenCV, 4:2:0', 'Pillow, 4:4:4', 'progressive', 'grayscale'):
        assert kinds[name]['exact'] == 1 and kinds[name]['refined_mae'] == 0
    assert kinds['OpenCV, 4:2:0']['network_mae'] > 1  # random weights
    assert len(results['mae_by_phase']) == 64 and results['qualities_by_phase'] == [80]
    assert '64 grid phases: MAE' in capsys.readouterr().out


@pytest.mark.parametrize('mode, options, expected', [
    ('RGB', {'subsampling': 0}, '4:4:4'), ('RGB', {'subsampling': 1}, '4:2:2'), ('L', {}, 'gray')])
def test_pillow_s_jpeg_has_the_chroma_it_is_named_for(photo, mode, options, expected):
    coded = pillow_jpeg(photo, mode, quality=90, **options)[0]
    assert coded.shape == photo.shape and coded.dtype == np.uint8
    chroma = cv2.cvtColor(coded, cv2.COLOR_BGR2YCrCb)[:, :, 1:].astype(int)
    across = np.abs(np.diff(chroma, axis=1)).mean()
    full = cv2.cvtColor(pillow_jpeg(photo, quality=90, subsampling=0)[0], cv2.COLOR_BGR2YCrCb)
    reference = np.abs(np.diff(full[:, :, 1:].astype(int), axis=1)).mean()
    assert {'4:4:4': across == reference, '4:2:2': 0 < across < 0.9 * reference,
            'gray': across == 0}[expected]


@pytest.mark.parametrize('option', ['--refine', '--find_threshold'])
def test_options_that_a_study_would_ignore_are_a_usage_error(capsys, option):
    with pytest.raises(SystemExit, match='2'):
        evaluate_cls.main(['--in_path', 'a', '--comp_type', 'jpeg_paper', '--robustness', option])
    assert '--refine and --find_threshold do not go with a study' in capsys.readouterr().err


def test_a_centre_lies_on_the_block_grid():
    image = np.arange(100 * 80 * 3, dtype=np.uint32).reshape(100, 80, 3)
    part = studies.centre(image, 64)
    assert part.shape == (64, 64, 3)
    y, x = np.argwhere(image[:, :, 0] == part[0, 0, 0])[0]
    assert (y % 8, x % 8) == (0, 0)


def test_the_analysis_compares_rules_samples_and_sizes(photo_folder, tmp_path, tiny_type, capsys):
    results = study('analysis', photo_folder, tmp_path, tiny_type)
    assert {'median above the threshold (paper)', 'median weighted by confidence',
            '32 x 32 patches', '1/2 of the size'} <= set(results['mae'])
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
    assert '--calibrate_on goes with --analysis' in capsys.readouterr().err


def test_the_fusion_rules_on_patches_known_by_hand():
    output = np.array([[99, 10], [98, 20], [97, 30], [60, 90], [50, 95]])
    assert studies.most_confident(output, 0.6) == 20
    assert studies.most_confident(output, 1) == 30
    assert studies.weighted_median(output) == 20  # the unsure ones hardly count
    assert studies.weighted_median(output * [0, 1] + [90, 0]) == 30


def test_means_in_equally_full_bins():
    by, values = np.array([3.0, 1, 2, 4]), np.array([30.0, 10, 20, 40])
    assert studies.binned(by, values, 2).tolist() == [[1.5, 3.5], [15, 35]]


def test_stopping_at_a_higher_lead_takes_more_patches(photo_folder, tmp_path, capsys):
    assert evaluate_cls.main(['--in_path', str(photo_folder), '--comp_type', 'jpeg_paper',
                              '--limit', '1', '--qualities', '5,20,60', '--stopping',
                              '--out_path', str(tmp_path)]) == 0
    assert 'stopped at 1.75' in capsys.readouterr().out
    results = json.loads((tmp_path / 'results.json').read_text())
    taken = [results[f'stopped at {limit:g}']['patches'] for limit in studies.LEADS]
    assert taken == sorted(taken) and 32 <= taken[0] < taken[-1] < 256
    assert results['256 patches']['patches'] == 256 and results['cases'] == 3
