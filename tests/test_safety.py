"""Without space or permission nothing half-done is left, and nothing is executed or sent."""
import ast
import contextlib
import os
import shutil
import subprocess
import sys

import pytest

from conftest import CLASSIFIER, PRISTINE, SAMPLES
from script_runs import UNFINISHED, Run, call, server, training  # noqa: F401, a fixture

NAMES = ['predict_cls', 'evaluate_cls', 'gen_data', 'train', 'to_tflite']


def command_line(name, photo_folder, patch_file, weights, folder):
    """What to type for each script, and which file it then writes."""
    photos, typed = ['--in_path', photo_folder], ['--comp_type', 'jpeg_paper']
    return {
        'predict_cls': (['--in_path', SAMPLES, *typed, '--csv', folder / 'q.csv'], 'q.csv'),
        'evaluate_cls': ([*photos, *typed, '--qualities', '20', '--limit', '1', '--out_path',
                          folder], 'evaluation_'),
        'gen_data': ([*photos, *typed, '--num_samples', '3', '--hdf5_name', 'p.h5',
                      '--out_path', folder], 'p.h5'),
        'train': (training(patch_file, folder), 'state'),
        'to_tflite': (['--comp_type', 'tiny', '--weights', weights, '--out_path', folder],
                      'comp_cls.tflite')}[name]


@pytest.fixture
def weights(tmp_path, server):
    (tmp_path / 'weights').mkdir()
    call(tmp_path, server, 'make_weights', tmp_path / 'weights', '0')
    return tmp_path / 'weights'


def refused(tmp_path, name, argv, written, reason, server, limit=0):
    """Run a script that must end with status 2 and one line with the file's name and the reason."""
    run = Run(tmp_path, name, argv, limit=limit,
              server=server if name in ('train', 'to_tflite') else None)
    assert run.status() == 2, run.errors()
    errors = [line for line in run.errors().splitlines() if 'error: ' in line]
    assert len(errors) == 1 and 'Traceback' not in run.errors()
    assert written in errors[0] and reason in errors[0]


@pytest.mark.parametrize('name', NAMES)
def test_past_a_limit_on_file_size_one_line_names_the_file(
        name, photo_folder, patch_file, weights, tmp_path, server):
    """Such a limit is how a full disk or a quota looks from inside, on any system."""
    folder = tmp_path / 'out'
    best = folder / 'out' / 'best'
    shutil.copytree(weights, best)
    before = {path.name: path.read_bytes() for path in best.iterdir()}
    argv, written = command_line(name, photo_folder, patch_file, weights, folder)
    limit = 300 if name == 'evaluate_cls' else 700  # less than is written, more than is printed
    reason = 'disk I/O error' if name in ('predict_cls', 'evaluate_cls') else 'File too large'
    refused(tmp_path, name, argv, written, reason, server, limit)
    assert {path.name: path.read_bytes() for path in best.iterdir()} == before
    left = {p.name for p in folder.iterdir() if p.suffix not in UNFINISHED} - {'out'}
    assert not left, left


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KB, for those who may mount one."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=256k', 'none', folder],
                             capture_output=True).returncode == 0
    if not mounted:
        pytest.skip('only root may mount a file system')
    yield folder
    subprocess.run(['umount', folder], check=True)


@pytest.mark.parametrize('name', NAMES)
def test_on_a_full_disk_one_line_names_the_file(
        name, photo_folder, patch_file, weights, tmp_path, server, small_disk):
    out = small_disk / 'out'
    out.mkdir()
    argv, written = command_line(name, photo_folder, patch_file, weights, out)
    with (small_disk / 'filling').open('wb') as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(1024))
    reason = 'GB are free' if name == 'gen_data' else 'No space left on device'
    refused(tmp_path, name, argv, 'disk' if name == 'gen_data' else written, reason, server)
    (small_disk / 'filling').unlink()
    assert not any(p.is_file() and p.suffix not in UNFINISHED and 'state' not in p.parts
                   for p in out.rglob('*'))
    if name == 'evaluate_cls':  # and once there is room, it works
        run = Run(tmp_path, name, argv)
        assert run.status() == 0, run.errors()


@pytest.mark.parametrize('name', NAMES)
def test_a_read_only_folder_is_named_before_the_work(
        name, photo_folder, patch_file, weights, tmp_path, server, small_disk):
    argv, _ = command_line(name, photo_folder, patch_file, weights, small_disk)
    subprocess.run(['mount', '-o', 'remount,ro', small_disk], check=True)
    refused(tmp_path, name, argv, str(small_disk), 'Read-only file system', server)
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize('options', [['--in_path', SAMPLES], ['--in_path', PRISTINE[0]]])
def test_output_that_cannot_be_printed_is_one_line(tmp_path, options):
    if not os.path.exists('/dev/full'):
        pytest.skip('no /dev/full here')
    with open('/dev/full', 'w') as full:
        result = subprocess.run(
            [sys.executable, CLASSIFIER / 'predict_cls.py', *options, '--comp_type', 'jpeg_paper'],
            stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1:] == [
        'predict_cls.py: error: standard output: No space left on device']


# ---------------------------------------------------------------- safe by default

def test_no_script_evaluates_text_or_starts_programs():
    modules = {'pickle', 'marshal', 'shelve', 'subprocess', 'socket', 'urllib', 'http', 'requests',
               'ctypes', 'pty', 'code'}
    calls = {'eval', 'exec', 'compile', '__import__', 'system', 'popen', 'execv', 'posix_spawn'}
    # The page and a folder's work start scripts of this project, with this very Python; the latter
    # reads back what these write, and nothing else.
    for_processes = {'rebuild.py': {'subprocess'}, 'workers.py': {'subprocess', 'pickle'}}
    paths = sorted(CLASSIFIER.rglob('*.py'))
    assert len(paths) > 40
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [a.name for a in node.names] + [getattr(node, 'module', None) or '']
                whole = isinstance(node, ast.Import)
                allowed = for_processes.get(path.name, set()) if whole else set()
                assert not (modules - allowed) & {name.partition('.')[0] for name in names}, path
            elif isinstance(node, ast.Call):
                called = getattr(node.func, 'id', getattr(node.func, 'attr', None))
                owner = getattr(getattr(node.func, 'value', None), 'id', None)
                assert called not in calls or (owner, called) in (
                    ('re', 'compile'), ('torch', 'compile'), ('model', 'compile')), path  # Keras's
                if (owner, called) == ('subprocess', 'Popen'):
                    program, script, *_ = map(ast.unparse, node.args[0].elts)
                    assert program == 'sys.executable' and script in ('SCRIPT', '__file__'), path
                if (owner, called) == ('np', 'load'):
                    assert [k.value.value for k in node.keywords if k.arg == 'allow_pickle'] == [
                        False], path


SEALED = """
import runpy, sys
EVENTS = ('socket.', 'subprocess.', 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'pickle.',
          'urllib.', 'ftplib.', 'http.')
def hook(event, args):
    if event.startswith(EVENTS) and args[0] != 'uname':  # Python's platform module asks it
        print('sealed:', event, args, file=sys.stderr)
        raise PermissionError(event)
sys.addaudithook(hook)
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition('/')[0]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.parametrize('name', ['predict_cls', 'evaluate_cls', 'gen_data'])
def test_nothing_is_sent_unpickled_or_started(name, photo_folder, patch_file, tmp_path):
    argv, _ = command_line(name, photo_folder, patch_file, None, tmp_path)
    result = subprocess.run([sys.executable, '-c', SEALED, CLASSIFIER / f'{name}.py', *argv],
                            capture_output=True, text=True)
    assert result.returncode == 0 and 'sealed' not in result.stderr, result.stderr


def test_a_link_in_the_place_of_an_unfinished_file_is_not_followed(photo_folder, tmp_path):
    """Whoever made the folder may have laid it there."""
    (tmp_path / 'precious').write_text('mine')
    for name in ('predict_cls', 'evaluate_cls', 'gen_data'):
        folder = tmp_path / name
        folder.mkdir()
        argv, written = command_line(name, photo_folder, None, None, folder)
        (folder / f'{written}.part').symlink_to('../precious')
        run = Run(tmp_path, name, argv)
        assert run.status() == 0, run.errors()
        assert (tmp_path / 'precious').read_text() == 'mine'
    (tmp_path / 'predict_cls' / 'r.csv.unfinished').symlink_to('../precious')
    run = Run(tmp_path, 'predict_cls', ['--in_path', SAMPLES, '--comp_type', 'jpeg_paper', '--csv',
                                        tmp_path / 'predict_cls' / 'r.csv'])
    assert run.status() == 2 and 'not the rows of a run' in run.errors()
    assert (tmp_path / 'precious').read_text() == 'mine'
