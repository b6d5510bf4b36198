"""The shell scripts: batch_train_jpeg_paper.sh under any POSIX shell, and .ci/run."""
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from conftest import PRISTINE, REPOSITORY
from test_env_sh import SHELLS

# Stands in for python3: writes down its arguments, and makes the files that the training
# script looks for. It fails where the arguments hold $FAIL.
STAND_IN = r'''#!/bin/sh
printf '%s|' "$@" >>"$LOG"; echo >>"$LOG"
case "$*" in (*"${FAIL:-nothing}"*) exit 3 ;; esac
script=$1
while [ $# -gt 0 ]; do
    case $1 in (--out_path) out=$2 ;; (--hdf5_name) name=$2 ;; esac
    shift
done
case $script in
    (*/gen_data.py) : >"$out/$name" ;;
    (*/train.py) : >"$out/run.json" ;;
esac
'''


@pytest.fixture
def script(tmp_path):
    """Run the training script, or another, with a stand-in for python3: its result, and the
    commands, each a list."""
    home = tmp_path / 'a repository'
    (home / 'bin').mkdir(parents=True)
    for name in ('train photos', 'valid photos'):
        (tmp_path / name).mkdir()
    shutil.copy(REPOSITORY / 'batch_train_jpeg_paper.sh', home)
    (home / 'env.sh').write_text('export PATH="$PWD/bin:$PATH"\n')
    (home / 'bin' / 'python3').write_text(STAND_IN)
    (home / 'bin' / 'python3').chmod(0o755)
    log = tmp_path / 'log'

    def run(*command, cwd=tmp_path, **more):
        log.write_text('')
        environment = {'PATH': os.environ['PATH'], 'LOG': str(log), 'OUT': 'my out',
                       'TRAIN_DIR': 'train photos', 'VALID_DIR': 'valid photos', **more}
        result = subprocess.run(command or ['sh', home / 'batch_train_jpeg_paper.sh'], cwd=cwd,
                                env=environment, capture_output=True, text=True)
        return result, [line.split('|')[:-1] for line in log.read_text().splitlines()]
    run.home, run.out = home, tmp_path / 'my out'
    return run


def options(command):
    """A command's options and their values."""
    return {option: command[i + 1] for i, option in enumerate(command[:-1])
            if option.startswith('--')}


@pytest.mark.parametrize('shell', SHELLS[:3] + ['itself'])
def test_training_script_runs_its_steps_in_any_posix_shell(script, shell):
    path = [script.home / 'batch_train_jpeg_paper.sh', 'jpeg_paper_k12']
    result, commands = script(*path if shell == 'itself' else [shell, *path], ROUNDS='2')
    assert result.returncode == 0 and result.stderr == ''
    assert [Path(c[0]).name for c in commands] == [
        'gen_data.py', 'gen_data.py', 'train.py', 'gen_data.py', 'train.py', 'to_tflite.py',
        'evaluate_cls.py', 'evaluate_cls.py', 'evaluate_cls.py']
    assert all(options(c)['--comp_type'] == 'jpeg_paper_k12' for c in commands)
    assert [options(c)['--hdf5_name'] for c in commands if '--hdf5_name' in c] == [
        'val.h5', 'train_1.h5', 'train_2.h5']
    first, second = [c for c in commands if c[0].endswith('/train.py')]
    assert '--resume' not in first and '--resume' in second
    assert (options(first)['--until_epoch'], options(second)['--until_epoch']) == ('6', '12')
    assert not list(script.out.glob('train_*.h5'))


def test_training_script_completes_and_evaluates_the_weights_it_trained(script):
    result, commands = script()
    best = f'{script.out}/best'
    *_, to_tflite, likelihood, threshold, evaluation = commands
    for command in (to_tflite, likelihood, threshold, evaluation):
        assert options(command)['--weights'] == best
    for command in (to_tflite, likelihood, threshold):
        assert options(command)['--out_path'] == best
    assert options(evaluation)['--out_path'] == str(script.out)
    assert options(to_tflite)['--quantize'] == 'int8'
    assert options(likelihood)['--fit'] == 'likelihood' and options(likelihood)['--limit'] == '500'
    assert options(likelihood)['--in_path'].endswith('/train photos')
    assert options(threshold)['--fit'] == 'threshold' and '--fit' not in evaluation
    for command in (threshold, evaluation):
        assert options(command)['--in_path'].endswith('/valid photos')
        assert options(command)['--qualities'] == '5-95:10'
        assert '0,0' in command and '3,5' in command
    assert not any('classifier/save' in word or word == '--save_path'
                   for command in commands for word in command)
    assert f"train.py --comp_type jpeg_paper --install '{best}'\n" in result.stdout


def test_training_script_stops_at_the_first_failure_and_goes_on_there(script):
    result, commands = script(FAIL='train_2.h5')
    assert result.returncode == 3 and '--install' not in result.stdout
    assert [options(c).get('--hdf5_name') for c in commands] == [
        'val.h5', 'train_1.h5', None, 'train_2.h5']
    result, commands = script(FAIL='train.py')
    assert result.returncode == 3 and len(commands) == 2 and '--resume' in commands[1]
    result, commands = script(FAIL='--fit threshold')
    assert result.returncode == 3 and options(commands[-1])['--fit'] == 'threshold'
    result, commands = script()
    assert result.returncode == 0 and len(commands) == 4  # nothing is trained twice


def test_training_script_hands_on_what_it_starts_from_and_ends_in_tensorflow(script):
    _, commands = script(ROUNDS='1', EPOCHS='4', STEPS='7', LR='1e-4', SEED='5', NUM_SAMPLES='9',
                         BASE_WEIGHTS='my base', BASE_TYPE='jpeg_paper', FRAMEWORK='pytorch')
    first, last = [options(c) for c in commands if c[0].endswith('/train.py')]
    assert (first['--framework'], first['--until_epoch']) == ('pytorch', '3')
    assert (last['--framework'], last['--until_epoch']) == ('tensorflow', '4')
    for train in (first, last):
        assert train['--base_weights'] == f'{script.out.parent}/my base'
        assert (train['--base_type'], train['--seed']) == ('jpeg_paper', '5')
        assert (train['--steps_per_epoch'], train['--lr']) == ('7', '1e-4')
    assert (options(commands[1])['--seed'], options(commands[1])['--num_samples']) == ('6', '9')


def test_training_script_edits_for_the_robust_type_and_adds_uncompressed_patches(script):
    path = script.home / 'batch_train_jpeg_paper.sh'

    def made(comp_type, **settings):
        """Whether each command edits, and how many uncompressed patches it makes."""
        shutil.rmtree(script.out, ignore_errors=True)
        result, commands = script('sh', path, comp_type, ROUNDS='2', **settings)
        assert result.returncode == 0 and result.stderr == ''
        return [('--edits' in c, options(c)['--uncompressed']) for c in commands
                if c[0].endswith('/gen_data.py')]
    assert made('jpeg_paper') == 3 * [(False, '0')]
    assert made('jpeg_robust') == 3 * [(True, '0')]
    assert made('jpeg_robust', EDITS='0') == 3 * [(False, '0')]
    assert made('jpeg_paper_k12', EDITS='1', UNCOMPRESSED='100000') == [
        (True, '3000'), *2 * [(True, '100000')]]  # 600 and 20,000 of each quality
    assert made('jpeg_paper', UNCOMPRESSED='70', NUM_SAMPLES='50')[0] == (False, '840')


@pytest.mark.parametrize('setting, reason', [
    ({'EDITS': 'yes'}, 'EDITS=yes: set EDITS to 1, or to 0'),
    ({'UNCOMPRESSED': '0.1'}, 'UNCOMPRESSED=0.1: set UNCOMPRESSED to a whole number'),
    ({'NUM_SAMPLES': '0'}, 'NUM_SAMPLES=0: at least one patch'),
    ({'TRAIN_DIR': ''}, 'DIV2K_train_HR: no such folder; get DIV2K_train_HR.zip'),
    ({'VALID_DIR': 'gone'}, 'gone: no such folder; get DIV2K_train_HR.zip'),
    ({'ROUNDS': '13'}, 'ROUNDS=13, EPOCHS=12: at least one round'),
    ({'ROUNDS': '0'}, 'ROUNDS=0, EPOCHS=12: at least one round'),
    ({'ROUNDS': 'three'}, 'ROUNDS=three: set ROUNDS to a whole number'),
    ({'SEED': '08'}, 'SEED=08: set SEED to a whole number')])
def test_training_script_refuses_in_one_line(script, setting, reason):
    result, commands = script(**setting)
    assert result.returncode == 2 and commands == []
    assert reason in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.long
def test_training_script_trains_six_photos_and_leaves_the_shipped_weights_alone(tmp_path):
    home = tmp_path / 'repository'
    shutil.copytree(REPOSITORY / 'classifier', home / 'classifier',
                    ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copytree(REPOSITORY / 'sample_image', home / 'sample_image')
    shutil.copy(REPOSITORY / 'batch_train_jpeg_paper.sh', home)
    (home / 'env.sh').write_text(f'export PATH="{Path(sys.executable).parent}:$PATH" '
                                 'TF_USE_LEGACY_KERAS=1\n')
    photos = [cv2.imread(str(path)) for path in PRISTINE]
    for i, photo in enumerate([*photos, *(photo[::-1] for photo in photos)][:6]):
        folder = tmp_path / ('train' if i < 4 else 'valid')
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f'{i}.png'), photo)

    def shipped():
        return {path.relative_to(home): path.read_bytes()
                for path in (home / 'classifier' / 'save').rglob('*') if path.is_file()}
    before = shipped()
    out = tmp_path / 'out'
    result = subprocess.run(
        ['sh', 'batch_train_jpeg_paper.sh', 'jpeg_paper'], cwd=home, capture_output=True, text=True,
        env={**os.environ, 'TRAIN_DIR': str(tmp_path / 'train'), 'OUT': str(out), 'ROUNDS': '1',
             'VALID_DIR': str(tmp_path / 'valid'), 'EPOCHS': '1', 'STEPS': '4',
             'NUM_SAMPLES': '40'})
    assert result.returncode == 0, result.stderr
    assert shipped() == before
    best = out / 'best'
    assert {'.index', '.data-00000-of-00001', 'val_loss.txt', 'likelihood.npz', 'threshold.txt',
            'comp_cls.tflite'} <= {path.name for path in best.iterdir()}
    trained = hashlib.sha256((best / '.data-00000-of-00001').read_bytes()).hexdigest()
    results = json.loads((out / 'results.json').read_text())
    assert results['made_with']['weights'] == trained[:16]  # not the shipped weights'
    mae = results['by_crop']['0,0']['mae']
    assert mae is None or mae > 2  # a network of 4 steps cannot tell, or is far worse than those
    assert f"--install '{best}'" in result.stdout


# ---------------------------------------------------------------- continuous integration

def test_ci_runs_the_readmes_two_lines_and_then_the_longer_tests(script):
    (script.home / '.ci').mkdir()
    (script.home / '.venv').mkdir()
    shutil.copy(REPOSITORY / '.ci' / 'run', script.home / '.ci')
    shutil.copy(REPOSITORY / 'README.md', script.home)
    result, commands = script(script.home / '.ci' / 'run')
    assert result.returncode == 0, result.stderr
    assert commands[0][0] == 'classifier/predict_cls.py'
    assert commands[1:3] == [['-m', 'pytest'], ['-m', 'pip', 'freeze', '--all']]
    for install in commands[3:6]:
        assert install[:3] == ['-m', 'pip', 'install'] and '-c' in install
    assert commands[6:-1] in ([], [['-m', 'playwright', 'install', '--with-deps', 'chromium']])
    assert commands[-1] == ['-m', 'pytest', '-m', 'long or extras']
    # Without PyTorch and Dask it fails; without what is only for the page and for ONNX it does not.
    for package, status in (('torch', 3), ('gradio', 0), ('tf2onnx', 0)):
        result, _ = script(script.home / '.ci' / 'run', FAIL=package)
        assert result.returncode == status, package
    result, commands = script(script.home / '.ci' / 'run', FAIL='-m pytest')
    assert result.returncode == 3 and len(commands) == 2
