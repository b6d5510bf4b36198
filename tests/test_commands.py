"""All scripts as they are typed: help, what is missing, unknown or not there."""
import importlib
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from classifier import (__version__, cli, evaluate_cls, files, gen_data, predict_cls, to_tflite,
                        train)
from conftest import CLASSIFIER, PRISTINE, REPOSITORY, heeds_ctrl_c

SCRIPTS = ['gen_data', 'train', 'predict_cls', 'evaluate_cls', 'to_tflite']
PAPER = ['--comp_type', 'jpeg_paper']


def typed(*command, cwd=REPOSITORY):
    """A command's result in a process of its own, without env.sh."""
    environment = {k: v for k, v in os.environ.items()
                   if k not in ('PYTHONPATH', 'TF_USE_LEGACY_KERAS', 'TF_CPP_MIN_LOG_LEVEL')}
    return subprocess.run([sys.executable, *map(str, command)], cwd=cwd, env=environment,
                          capture_output=True, text=True)


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
    assert re.search(rf'python3 classifier/{script}\.py (--|photo\.png)', result.stdout)
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
    assert ('name an image or a folder' if script == 'predict_cls' else 'required') in \
        capsys.readouterr().err


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
                     'choose one of jpeg_paper, jpeg_paper_k12, jpeg_robust']


@pytest.mark.parametrize('door', ['predictor', 'models'])
def test_the_documented_import_works_from_the_repository(door):
    code = (f"from classifier.{door} import Predictor, Prediction\n"
            "import numpy as np\n"
            "print(Predictor('jpeg_paper').predict(np.zeros((64, 64, 3), np.uint8)).patches)\n")
    result = typed('-c', code)
    assert result.returncode == 0 and result.stdout == '256\n'


@pytest.mark.parametrize('script', SCRIPTS)
def test_every_script_names_its_version(script):
    with pytest.raises(SystemExit, match='0'):
        importlib.import_module(f'classifier.{script}').main(['--version'])


def test_a_module_runs_as_a_script():
    result = typed('-m', 'classifier.predict_cls', '--version')
    assert result.returncode == 0 and result.stdout == f'predict_cls.py {__version__}\n'
    result = typed('-m', 'classifier.predict_cls', PRISTINE[0])
    assert result.returncode == 0
    assert result.stdout.endswith('no sign of JPEG compression\n') and result.stderr == ''


@pytest.mark.parametrize('script, module', [
    *itertools.product(SCRIPTS, ['pathlib', 'argparse', 'unicodedata']),
    ('predict_cls', 'ai_edge_litert')])
def test_ctrl_c_is_no_traceback_from_the_first_import_on(script, module, tmp_path):
    """The module, found in front of the true one, stands for somebody who types it right then."""
    (tmp_path / f'{module}.py').write_text('import _signal\n_signal.raise_signal(_signal.SIGINT)\n')
    result = subprocess.run([sys.executable, CLASSIFIER / f'{script}.py', PRISTINE[0]],
                            env=os.environ | {'PYTHONPATH': str(tmp_path)}, capture_output=True,
                            text=True, stdin=subprocess.DEVNULL, preexec_fn=heeds_ctrl_c)
    assert 'Traceback' not in result.stderr
    assert result.returncode in (130, -signal.SIGINT), result.stderr


def test_a_program_that_imports_the_package_keeps_its_own_ctrl_c(tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / '__init__.py').write_text('import classifier.predictor')
    (tmp_path / 'mine' / '__main__.py').write_text(
        'import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)')
    for command in (['-m', 'mine'], ['-c', 'import mine.__main__']):
        result = subprocess.run([sys.executable, *command], cwd=tmp_path, text=True,
                                env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
                                capture_output=True, preexec_fn=heeds_ctrl_c)
        assert result.stdout == 'True\n', result.stderr


class Terminal(io.StringIO):
    """What the terminal shows, as one that takes \\r as the start of the line again."""

    def isatty(self):
        return True


def test_a_message_does_not_stick_to_the_progress_bar(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Terminal())
    with cli.Progress(2, 'images') as progress:
        progress.update(1)
        cli.complain('in between')
        progress.update(2)
    cli.complain('last')
    lines = [line.rpartition('\r')[2] for line in sys.stderr.getvalue().split('\n')]
    assert lines[0] == 'in between' and lines[2:] == ['last', '']
    assert lines[1].startswith('100%')


def test_where_there_is_no_terminal_progress_is_said_in_the_first_second(monkeypatch, capsys):
    monkeypatch.setattr(cli.Progress, 'FIRST_LINE', 0.05)
    with cli.Progress(3, 'images') as progress:
        time.sleep(0.3)  # before the first is done
        progress.update(3)
    first, last = capsys.readouterr().err.splitlines()
    assert first == '0/3 images' and last.startswith('3/3 images, took ')
