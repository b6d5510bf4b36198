"""Folders on a Dask cluster: the same files, whoever is lost."""
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from classifier import batch, evaluate_cls, predict_cls
from classifier.errors import InputError
from collection import (command, folder, has_rows, predict, results, whole,  # noqa: F401
                        without_seconds)


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers as processes of their own: its address, and all three."""
    pytest.importorskip('distributed')
    file = tmp_path / 'scheduler.json'
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}

    def start(*options):
        return subprocess.Popen([sys.executable, '-m', 'distributed.cli.' + options[0],
                                 *options[1:], '--scheduler-file', str(file)], cwd=tmp_path,
                                env=environment, stderr=subprocess.DEVNULL,
                                start_new_session=True)

    processes = [start('dask_scheduler', '--host', '127.0.0.1', '--port', '0', '--no-dashboard')]
    while not file.exists():
        assert processes[0].poll() is None
        time.sleep(0.05)
    processes += [start('dask_worker', '--nthreads', '1', '--no-dashboard', '--no-nanny')
                  for _ in range(2)]
    yield json.loads(file.read_text())['address'], processes
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.extras
def test_a_cluster_gives_the_same_file(folder, whole, tmp_path, cluster, capsys, monkeypatch):
    address, _ = cluster
    monkeypatch.chdir(tmp_path)  # the workers need not be in the same folder
    (folder / 'bad.png').write_bytes(b'text')
    assert predict(folder, tmp_path / 'local.csv') == 2
    local = capsys.readouterr()
    out = tmp_path / 'q.csv'
    assert predict(folder, out, '--scheduler', address) == 2
    printed = capsys.readouterr()
    assert printed == local
    assert without_seconds(out) == without_seconds(tmp_path / 'local.csv') == whole
    assert predict_cls.main(command('in', 'relative.csv', '--scheduler', address)) == 2
    assert without_seconds(tmp_path / 'relative.csv') == whole.replace(
        str(folder).encode(), b'in')


def kill_in_the_middle(process, out):
    """Kill a process of the cluster once there are rows; and whether the file was done then."""
    log, finished = out.with_name(f'{out.name}.unfinished'), []

    def kill():
        while not (log.exists() and has_rows(log)):
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        finished.append(out.exists())

    thread = threading.Thread(target=kill)
    thread.start()
    return thread, finished


@pytest.mark.extras
@pytest.mark.long
def test_a_lost_worker_loses_nothing(folder, tmp_path, cluster):
    address, (_, first, _) = cluster
    for i in range(200):
        (folder / f'z{i:03}.png').symlink_to('a.png')
    assert predict(folder, tmp_path / 'local.csv') == 0
    out = tmp_path / 'q.csv'
    thread, killed = kill_in_the_middle(first, out)
    assert predict(folder, out, '--scheduler', address) == 0
    thread.join()
    assert killed == [False]  # in the middle
    assert without_seconds(out) == without_seconds(tmp_path / 'local.csv')


@pytest.mark.extras
@pytest.mark.long
def test_a_lost_scheduler_leaves_the_rows_so_far(
        folder, whole, tmp_path, cluster, capsys):
    address, (scheduler, *_) = cluster
    for i in range(200):
        (folder / f'z{i:03}.png').symlink_to('a.png')
    out = tmp_path / 'q.csv'
    thread, _ = kill_in_the_middle(scheduler, out)
    assert predict(folder, out, '--scheduler', address) == 2
    thread.join()
    kept, error = capsys.readouterr().err.splitlines()
    assert '--resume' in kept
    assert error.startswith('predict_cls.py: error: the Dask scheduler was lost; ')
    assert predict(folder, out, '--resume') == 0
    assert without_seconds(out).startswith(whole)


@pytest.mark.extras
@pytest.mark.long
def test_an_evaluation_on_a_cluster_gives_the_same_results(folder, tmp_path, cluster):
    options = ['--in_path', str(folder), '--comp_type', 'jpeg_paper', '--qualities', '20-60:2']
    for where in ([], ['--scheduler', cluster[0]]):
        assert evaluate_cls.main([*options, *where, '--out_path', str(tmp_path / str(len(where)))
                                  ]) == 0
    assert results(tmp_path / '0') == results(tmp_path / '2')


@pytest.mark.extras
def test_what_workers_do_not_see_is_said_before_the_work(tmp_path, cluster, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(batch, 'ROOT', tmp_path)  # where there are no modules
        with pytest.raises(InputError, match="cannot help .*'classifier'.*requirements.txt"):
            with batch.parallel_map(cluster[0], tmp_path):
                pass
    with pytest.raises(InputError, match=r'cannot help \(/elsewhere is not there\)'):
        with batch.parallel_map(cluster[0], '/elsewhere'):
            pass


@pytest.mark.extras
@pytest.mark.parametrize('address', ['tcp://127.0.0.1:9', 'here', 'http://127.0.0.1:80'])
def test_a_scheduler_that_is_not_there_is_said(folder, tmp_path, monkeypatch, capsys, address):
    pytest.importorskip('distributed')
    monkeypatch.setattr(batch, 'PATIENCE', 1)
    assert predict(folder, tmp_path / 'q.csv', '--scheduler', address) == 2
    error, = capsys.readouterr().err.splitlines()
    assert f'{address}: no Dask scheduler answers there' in error


def test_without_dask_it_says_how_to_install_it(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'distributed', None)
    assert predict(folder, tmp_path / 'q.csv', '--scheduler', 'tcp://127.0.0.1:9') == 2
    error, = capsys.readouterr().err.splitlines()
    assert 'python3 -m pip install distributed' in error
