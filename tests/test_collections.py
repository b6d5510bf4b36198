"""Folders of many images: all cores or a Dask cluster, runs that are stopped and go on."""
import contextlib
import csv
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from classifier import batch, cli, evaluate_cls, images, predict_cls
from classifier.environment import quiet
from classifier.errors import InputError
from classifier.predictor import Predictor
from classifier.runtime import RUNTIMES
from conftest import CLASSIFIER

NAMES = ['a.png', 'b.jpg', os.fsdecode(b'c\xff.png'), 'd\n"1",2.png', 'e.jpg', 'f.png', 'g.png']


@pytest.fixture
def folder(photo, tmp_path):
    """Small images of several qualities, with names that are awkward in a CSV file."""
    folder = tmp_path / 'in'
    folder.mkdir()
    for i, name in enumerate(NAMES):
        small = np.ascontiguousarray(photo[40 * i:40 * i + 40, :64])
        coded = images.compress(small, 30 + 10 * i)
        data = cv2.imencode(name[-4:], coded)[1].tobytes()
        (folder / name).write_bytes(data)
    return folder


def command(folder, out, *more):
    return ['--in_path', str(folder), '--comp_type', 'jpeg_paper', '--csv', str(out), *more]


def predict(folder, out, *more):
    return predict_cls.main(command(folder, out, *more))


def results(folder):
    """results.json, but for the command that made it."""
    found = json.loads((folder / 'results.json').read_text())
    assert found['made_with'].pop('command').startswith('evaluate_cls.py --in_path ')
    return found


def has_rows(log):
    """Whether a run that is at work has written rows."""
    wal = log.with_name(f'{log.name}-wal')
    with contextlib.suppress(FileNotFoundError):
        return wal.stat().st_size > 20_000  # the tables, and then a page for each row
    return False


def without_seconds(path):
    """A CSV file's lines, byte for byte but for the measured time."""
    with open(path, **batch.CSV_FORMAT) as file:
        rows = list(csv.reader(file))
    fields = rows[0]
    text = path.read_bytes()
    for row in rows[1:]:
        seconds = row[fields.index('seconds')]
        assert float(seconds) > 0
        text = text.replace(f',{seconds},'.encode(), b',,', 1)
    return text


@pytest.fixture
def whole(folder, tmp_path, capsys):
    """What a run gives that nothing interrupts."""
    assert predict(folder, tmp_path / 'whole.csv') == 0
    capsys.readouterr()
    return without_seconds(tmp_path / 'whole.csv')


def stop_at(monkeypatch, name, error=KeyboardInterrupt):
    """Let the reading of that image raise; images are then read one after the other."""
    read = images.read_image

    def interrupted(path, *args, **kwargs):
        if path.name == name:
            raise error
        return read(path, *args, **kwargs)

    monkeypatch.setattr(batch, 'cores', lambda: 1)
    monkeypatch.setattr(predict_cls, 'read_image', interrupted)


def stopped_run(monkeypatch, folder, out):
    """A run that is stopped in the middle."""
    with monkeypatch.context() as patch:
        stop_at(patch, 'e.jpg')
        assert predict(folder, out) == 130


# ---------------------------------------------------------------- all cores

def test_a_folder_gets_the_same_rows_from_either_runtime(folder, tmp_path):
    rows = []
    for runtime in RUNTIMES:
        assert predict(folder, tmp_path / f'{runtime}.csv', '--runtime', runtime) == 0
        rows.append(without_seconds(tmp_path / f'{runtime}.csv'))
    assert rows[0] == rows[1]


def test_rows_are_in_the_order_of_the_paths_whatever_is_ready_first(
        folder, whole, tmp_path, monkeypatch, capsys):
    read, others = images.read_image, threading.Event()

    def slow(path, *args, **kwargs):
        if path.name == 'a.png':
            assert others.wait(timeout=60)
        else:
            others.set()
        return read(path, *args, **kwargs)

    monkeypatch.setattr(batch, 'cores', lambda: 2)
    monkeypatch.setattr(predict_cls, 'read_image', slow)
    assert predict(folder, tmp_path / 'a.csv') == 0
    assert without_seconds(tmp_path / 'a.csv') == whole
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition('/')[0].strip() for line in lines[:-1]] == list('1234567')


def test_all_cores_give_what_a_predictor_gives_alone(folder, whole, tmp_path):
    predictor = Predictor('jpeg_paper')
    with open(tmp_path / 'whole.csv', **batch.CSV_FORMAT) as file:
        for row in csv.DictReader(file):
            image = images.read_image(folder / os.path.basename(row['path']))
            assert row['quality'] == f'{predictor.predict(image).quality:.2f}'


def test_only_a_few_images_are_taken_ahead(monkeypatch):
    monkeypatch.setattr(batch, 'cores', lambda: 2)
    taken = []
    with batch.parallel_map() as run:
        results = run(lambda item: item, (taken.append(i) or i for i in range(1000)))
        assert [next(results) for _ in range(5)] == list(range(5))
        assert len(taken) <= 5 + 2 * batch.AHEAD


def test_what_is_said_while_another_thread_keeps_stderr_quiet_is_not_lost(capfd):
    silenced, done = threading.Event(), threading.Event()

    def work():
        with quiet():
            silenced.set()
            assert not done.wait(timeout=0.5)

    thread = threading.Thread(target=work)
    thread.start()
    assert silenced.wait(timeout=60)
    cli.complain('said')
    done.set()
    thread.join()
    assert capfd.readouterr().err == 'said\n'


def peak_memory(folder, number, photo):
    """Peak memory, in MB, of predict_cls.py on so many links to one small image."""
    folder.mkdir()
    cv2.imwrite(str(folder / '0.png'), photo[:16, :16])
    for i in range(1, number):
        (folder / f'{i}.png').symlink_to('0.png')
    process = subprocess.Popen([sys.executable, CLASSIFIER / 'predict_cls.py',
                                *command(folder, folder / 'q.csv')], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0 and len((folder / 'q.csv').read_text().splitlines()) == number + 1
    return usage.ru_maxrss / 1024


@pytest.mark.long
@pytest.mark.skipif(sys.platform != 'linux', reason='ru_maxrss is in KB on Linux')
def test_ten_times_the_images_take_no_more_memory(tmp_path, photo):
    """MANY_IMAGES=10000 makes it a long run."""
    many = int(os.environ.get('MANY_IMAGES', '1000'))
    few, many = (peak_memory(tmp_path / str(n), n, photo) for n in (many // 10, many))
    print(f'{few:.0f} MB, {many:.0f} MB')
    assert many - few < 50


# ---------------------------------------------------------------- stopped runs

def test_ctrl_c_keeps_the_rows_and_says_how_to_go_on(folder, whole, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'q.csv'
    with monkeypatch.context() as patch:
        stop_at(patch, 'e.jpg')
        assert predict(folder, out) == 130
    error, = capsys.readouterr().err.splitlines()
    assert error.startswith('predict_cls.py: stopped; ')
    assert f'{out}.unfinished keeps 4 rows' in error and '--resume' in error
    assert not out.exists()
    assert predict(folder, out, '--resume') == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(':')[0] for line in printed] == ['  5/7', '  6/7', '  7/7', 'Mean']
    assert without_seconds(out) == whole
    with open(out, **batch.CSV_FORMAT) as file:
        qualities = [float(row['quality']) for row in csv.DictReader(file)]
    assert printed[-1] == f'Mean: {np.mean(qualities):.2f}'
    assert sorted(p.name for p in tmp_path.glob('q.csv*')) == ['q.csv', 'q.csv.run']


def rows_of(path, number, **options):
    return batch.RunRows(path, [f'{i:05}.png' for i in range(number)], {'made': 1}, **options)


def test_rows_are_kept_in_the_order_of_the_paths_and_nothing_else_is_left(tmp_path):
    path = tmp_path / 'rows'
    with rows_of(path, 3, rows=[('00001.png', ['b']), ('gone.png', ['x'])]) as rows:
        assert rows.missing.tolist() == [0, 2] and rows.strangers == 1
        rows.write(2, ['c', None, 1.5])
        assert len(rows) == 2
    assert os.listdir(tmp_path) == ['rows']
    with rows_of(path, 3) as rows:
        rows.write(0, ['a'])
        assert dict(rows) == {'00000.png': ['a'], '00001.png': ['b'], '00002.png': ['c', None, 1.5]}
        rows.close(remove=True)
    assert not os.listdir(tmp_path)


def test_thousands_of_rows_wait_for_no_disk(tmp_path):
    with rows_of(tmp_path / 'rows', 5000) as rows:
        began = time.process_time()
        for i in rows.missing:
            rows.write(i, [f'{i}.png', 50.0, 'no header'])
        assert time.process_time() - began < 5
        assert sum(1 for _ in rows) == 5000


KILLED = """
import os, signal, sys
from classifier.batch import RunRows
with RunRows(sys.argv[1], [str(i) for i in range(10 ** 6)], {}) as rows:
    for i in rows.missing:
        rows.write(i, ['x' * 200])
        print(i, flush=True)
        if i == 2000:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_row_that_was_printed_outlasts_a_kill(tmp_path):
    printed = subprocess.run([sys.executable, '-c', KILLED, tmp_path / 'rows'],
                             cwd=CLASSIFIER.parent, capture_output=True, text=True).stdout.split()
    assert len(printed) == 2001
    with batch.RunRows(tmp_path / 'rows', printed, {}) as rows:
        assert not len(rows.missing) and len(rows) == 2001


@pytest.mark.parametrize('cut', [1, 30, 5000])
def test_a_row_that_was_cut_is_done_again(folder, whole, tmp_path, monkeypatch, cut):
    """Of the log of writes, which a killed run leaves, the end may be missing after a power cut."""
    out, log = tmp_path / 'q.csv', tmp_path / 'q.csv.unfinished'
    with monkeypatch.context() as patch:
        stop_at(patch, 'f.png')
        patch.setattr(batch.RunRows, 'close', lambda self, remove=False: None)  # as if killed
        assert predict(folder, out) == 130
    killed = tmp_path / 'killed'
    killed.mkdir()
    for name in (log.name, f'{log.name}-wal'):
        (killed / name).write_bytes((tmp_path / name).read_bytes())
    wal = killed / f'{log.name}-wal'
    os.truncate(wal, wal.stat().st_size - cut)
    assert predict(folder, killed / 'q.csv', '--resume') == 0
    assert without_seconds(killed / 'q.csv') == whole
    assert sorted(os.listdir(killed)) == ['q.csv', 'q.csv.run']


@pytest.mark.parametrize('content', [b'{"a": 1}\n["b"]\n', bytes(5000), os.urandom(100)])
def test_a_file_of_another_program_is_not_taken_for_rows(folder, tmp_path, capsys, content):
    log = tmp_path / 'q.csv.unfinished'
    log.write_bytes(content)
    assert predict(folder, tmp_path / 'q.csv', '--resume') == 2
    error, = capsys.readouterr().err.splitlines()
    assert f'{log}: not the rows of a run ' in error and log.read_bytes() == content


def test_a_killed_run_goes_on_to_the_same_file(tmp_path, photo, folder, whole):
    for i in range(200):  # to have the time to kill it
        (folder / f'z{i:03}.png').symlink_to('a.png')
    out, log = tmp_path / 'q.csv', tmp_path / 'q.csv.unfinished'
    process = subprocess.Popen([sys.executable, CLASSIFIER / 'predict_cls.py',
                                *command(folder, out)], stdout=subprocess.DEVNULL)
    while not (log.exists() and has_rows(log)):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not out.exists()
    assert predict(folder, out, '--resume') == 0
    assert predict(folder, tmp_path / 'again.csv') == 0
    assert without_seconds(out) == without_seconds(tmp_path / 'again.csv')
    assert without_seconds(out).startswith(whole)


def test_a_full_disk_leaves_the_rows_so_far(folder, whole, tmp_path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    out = tmp_path / 'q.csv'
    result = subprocess.run([sys.executable, CLASSIFIER / 'predict_cls.py', *command(folder, out)],
                            capture_output=True, text=True, preexec_fn=small_files)
    kept, error = result.stderr.splitlines()
    assert result.returncode == 2 and error.startswith('predict_cls.py: error: ')
    assert f'{out}.unfinished keeps ' in kept and not out.exists()
    assert predict(folder, out, '--resume') == 0
    assert without_seconds(out) == whole


def test_new_images_and_repaired_ones_get_their_rows_in_their_places(
        folder, whole, tmp_path, capsys):
    out = tmp_path / 'q.csv'
    hidden = (folder / 'a.png').rename(tmp_path / 'a.png')
    good = (folder / 'e.jpg').read_bytes()
    (folder / 'e.jpg').write_bytes(good[:300])
    assert predict(folder, out) == 2
    hidden.rename(folder / 'a.png')
    capsys.readouterr()
    assert predict(folder, out, '--resume') == 2  # the failed one is tried again, and named
    printed = capsys.readouterr()
    assert printed.out.startswith('  1/7: a.png, ') and len(printed.out.splitlines()) == 2
    assert 'e.jpg: ' in printed.err and '1 of 7 images could not be read' in printed.err
    (folder / 'e.jpg').write_bytes(good)
    assert predict(folder, out, '--resume') == 0
    assert without_seconds(out) == whole
    before = out.read_bytes()
    assert predict(folder, out, '--resume') == 0
    assert out.read_bytes() == before


def test_rows_of_images_that_are_gone_are_left_out_and_counted(folder, whole, tmp_path, capsys):
    out = tmp_path / 'q.csv'
    assert predict(folder, out) == 0
    (folder / 'a.png').unlink()
    capsys.readouterr()
    assert predict(folder, out, '--resume') == 0
    assert '1 rows are of images that are no longer there' in capsys.readouterr().err
    lines = whole.splitlines(keepends=True)
    assert without_seconds(out) == b''.join(lines[:1] + lines[2:])


def test_a_run_that_is_stopped_before_its_first_row_leaves_nothing(
        folder, tmp_path, monkeypatch, capsys):
    stop_at(monkeypatch, 'a.png')
    assert predict(folder, tmp_path / 'q.csv') == 130
    assert capsys.readouterr().err == 'predict_cls.py: stopped\n'
    assert not list(tmp_path.glob('q.csv*'))


@pytest.mark.parametrize('finished', [True, False])
@pytest.mark.parametrize('options, named', [
    (['--threshold', '50'], 'now 50.0'), (['--fusion', 'median'], 'now median'),
    (['--refine'], 'refine False, now True'), (['--comp_type', 'jpeg_paper_k12'], 'comp_type ')])
def test_rows_of_other_options_are_not_mixed(
        folder, tmp_path, monkeypatch, capsys, options, named, finished):
    out = tmp_path / 'q.csv'
    with monkeypatch.context() as patch:
        if not finished:
            stop_at(patch, 'e.jpg')
        predict(folder, out)
    before = {p: p.read_bytes() for p in tmp_path.glob('q.csv*')}
    capsys.readouterr()
    assert predict(folder, out, '--resume', *options) == 2
    error, = capsys.readouterr().err.splitlines()
    assert named in error and 'made with other options' in error
    assert {p: p.read_bytes() for p in tmp_path.glob('q.csv*')} == before


def test_rows_of_a_stopped_run_are_not_overwritten(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'q.csv'
    stopped_run(monkeypatch, folder, out)
    capsys.readouterr()
    assert predict(folder, out) == 2
    error, = capsys.readouterr().err.splitlines()
    assert 'go on with --resume, or delete it' in error
    (tmp_path / 'q.csv.unfinished').unlink()
    assert predict(folder, out) == 0


def test_two_runs_cannot_write_the_same_rows(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'q.csv'
    stopped_run(monkeypatch, folder, out)
    capsys.readouterr()
    with contextlib.closing(sqlite3.connect(f'{out}.unfinished')) as other:
        other.execute('BEGIN EXCLUSIVE')
        assert predict(folder, out, '--resume') == 2
        assert 'another run is writing this file' in capsys.readouterr().err
    assert predict(folder, out, '--resume') == 0


@pytest.mark.parametrize('damage', ['x', '9' * 140_000])
def test_a_damaged_csv_file_is_not_gone_on_with(folder, tmp_path, capsys, damage):
    out = tmp_path / 'q.csv'
    assert predict(folder, out) == 0
    rows = out.read_bytes().split(b'\r\n')
    rows[1] = f'{folder}/a.png,{damage},'.encode() + rows[1].split(b',', 2)[2]
    out.write_bytes(b'\r\n'.join(rows))
    capsys.readouterr()
    assert predict(folder, out, '--resume') == 2
    error, = capsys.readouterr().err.splitlines()
    assert 'q.csv: line 2 is damaged' in error and not list(tmp_path.glob('*.unfinished*'))


@pytest.mark.parametrize('name, content, reason', [
    ('q.csv', b'path,quality\r\n', 'has other columns than'),
    ('q.csv.run', None, 'nobody knows what'),
    ('q.csv.run', b'\xff[', 'made by another program'), ('q.csv.run', b'3', 'another program')])
def test_a_csv_file_of_something_else_is_not_gone_on_with(
        folder, tmp_path, capsys, name, content, reason):
    out = tmp_path / 'q.csv'
    assert predict(folder, out) == 0
    if content:
        (tmp_path / name).write_bytes(content)
    else:
        (tmp_path / name).unlink()
    capsys.readouterr()
    assert predict(folder, out, '--resume') == 2
    error, = capsys.readouterr().err.splitlines()
    assert reason in error


def test_an_evaluation_tries_failed_images_again(folder, tmp_path, monkeypatch, capsys):
    options = ['--in_path', str(folder), '--comp_type', 'jpeg_paper', '--qualities', '20-60:2']
    good = (folder / 'b.jpg').read_bytes()
    assert evaluate_cls.main([*options, '--out_path', str(tmp_path / 'whole')]) == 0
    (folder / 'b.jpg').write_bytes(bytes(len(good)))
    read = images.read_image

    def interrupted(path):
        if path.name == 'e.jpg':
            raise KeyboardInterrupt
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_cls, 'read_image', interrupted)
        assert evaluate_cls.main([*options, '--out_path', str(tmp_path / 'halves')]) == 130
    *before, last = capsys.readouterr().err.splitlines()
    assert [line for line in before if f'error: {folder / "b.jpg"}: ' in line]
    assert last.startswith('evaluate_cls.py: stopped; ') and 'the same command goes on' in last
    (folder / 'b.jpg').write_bytes(good)
    assert evaluate_cls.main([*options, '--out_path', str(tmp_path / 'halves')]) == 0
    whole, halves = (results(tmp_path / d) for d in ('whole', 'halves'))
    assert whole == halves and whole['images'] == 7


# ---------------------------------------------------------------- a Dask cluster

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


@pytest.mark.long
def test_an_evaluation_on_a_cluster_gives_the_same_results(folder, tmp_path, cluster):
    options = ['--in_path', str(folder), '--comp_type', 'jpeg_paper', '--qualities', '20-60:2']
    for where in ([], ['--scheduler', cluster[0]]):
        assert evaluate_cls.main([*options, *where, '--out_path', str(tmp_path / str(len(where)))
                                  ]) == 0
    assert results(tmp_path / '0') == results(tmp_path / '2')


def test_what_workers_do_not_see_is_said_before_the_work(tmp_path, cluster, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(batch, 'ROOT', tmp_path)  # where there are no modules
        with pytest.raises(InputError, match="cannot help .*'classifier'.*requirements.txt"):
            with batch.parallel_map(cluster[0], tmp_path):
                pass
    with pytest.raises(InputError, match=r'cannot help \(/elsewhere is not there\)'):
        with batch.parallel_map(cluster[0], '/elsewhere'):
            pass


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
