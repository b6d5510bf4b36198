"""Runs that are stopped, killed or out of space keep their rows, and go on to the same file."""
import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
import time

import pytest

from classifier import evaluate_cls, images, run_rows
from collection import (command, folder, has_rows, predict, results, stop_at,  # noqa: F401
                        stopped_run, whole, without_seconds)
from conftest import CLASSIFIER


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
    assert [line.partition(':')[0] for line in printed] == ['e.jpg', 'f.png', 'g.png', '7 images']
    assert without_seconds(out) == whole
    assert printed[-1] == '7 images: 7 estimated; 2 recompressed'
    assert sorted(p.name for p in tmp_path.glob('q.csv*')) == ['q.csv', 'q.csv.run']


def rows_of(path, number):
    return run_rows.RunRows(path, [f'{i:05}.png' for i in range(number)], {'made': 1})


def test_rows_are_kept_in_the_order_of_the_paths_and_nothing_else_is_left(tmp_path):
    path = tmp_path / 'rows'
    with run_rows.RunRows(path, ['00001.png', 'gone.png'], {'made': 1}) as rows:
        assert rows.missing.tolist() == [0, 1]
        rows.write(0, ['b'])
        rows.write(1, ['x'])
    with rows_of(path, 3) as rows:
        assert rows.missing.tolist() == [0, 2] and rows.strangers == 1
        rows.write(2, ['c', None, 1.5])
        assert len(rows) == 2
    assert os.listdir(tmp_path) == ['rows']
    with rows_of(path, 3) as rows:
        rows.write(0, ['a'])
        assert dict(rows) == {'00000.png': ['a'], '00001.png': ['b'], '00002.png': ['c', None, 1.5]}
        rows.close(remove=True)
    assert not os.listdir(tmp_path)


def test_rows_that_are_dropped_are_missing_again(tmp_path):
    with rows_of(tmp_path / 'rows', 4) as rows:
        for i in (0, 1, 3):
            rows.write(i, [f'row {i}', i % 2])
    with rows_of(tmp_path / 'rows', 4) as rows:
        rows.drop(lambda row: row[1] == 1)
        assert rows.missing.tolist() == [1, 2, 3] and len(rows) == 1
        rows.write(3, ['again', 0])
        assert dict(rows) == {'00000.png': ['row 0', 0], '00003.png': ['again', 0]}
        assert len(rows) == 2


def test_thousands_of_rows_wait_for_no_disk(tmp_path):
    with rows_of(tmp_path / 'rows', 5000) as rows:
        began = time.process_time()
        for i in rows.missing:
            rows.write(i, [f'{i}.png', 50.0, 'no header'])
        assert time.process_time() - began < 5
        assert sum(1 for _ in rows) == 5000


KILLED = """
import os, signal, sys
from classifier.run_rows import RunRows
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
    with run_rows.RunRows(tmp_path / 'rows', printed, {}) as rows:
        assert not len(rows.missing) and len(rows) == 2001


@pytest.mark.parametrize('cut', [1, 30, 5000])
def test_a_row_that_was_cut_is_done_again(folder, whole, tmp_path, monkeypatch, cut):
    """Of the log of writes, which a killed run leaves, the end may be missing after a power cut."""
    out, log = tmp_path / 'q.csv', tmp_path / 'q.csv.unfinished'
    with monkeypatch.context() as patch:
        stop_at(patch, 'f.png')
        patch.setattr(run_rows.RunRows, 'close', lambda *_, **__: None)  # as if killed
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
    result = subprocess.run([sys.executable, CLASSIFIER / 'predict_cls.py', *command(folder, out),
                             '--quiet'],
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
    lines = printed.out.splitlines()
    assert lines[0].startswith('a.png: quality ') and len(lines) == 3
    assert lines[1].startswith('e.jpg: header says quality ')
    assert lines[1].endswith('; its pixels cannot be used')
    assert lines[2].startswith('7 images: ') and lines[2].endswith('; 1 could not be read')
    assert 'e.jpg: ' in printed.err
    (folder / 'e.jpg').write_bytes(good)
    assert predict(folder, out, '--resume') == 0
    assert without_seconds(out) == whole
    before = out.read_bytes()
    assert predict(folder, out, '--resume') == 0
    assert out.read_bytes() == before


def test_a_finished_run_that_is_added_to_and_stopped_goes_on(
        folder, whole, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'q.csv'
    hidden = [(folder / name).rename(tmp_path / name) for name in ('d\n"1",2.png', 'f.png')]
    assert predict(folder, out) == 0
    before = out.read_bytes()
    for path in hidden:
        path.rename(folder / path.name)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        stop_at(patch, 'f.png')
        assert predict(folder, out, '--resume') == 130
    assert f'{out}.unfinished keeps 6 rows' in capsys.readouterr().err
    assert out.read_bytes() == before
    assert predict(folder, out) == 2  # without --resume they would be lost
    assert predict(folder, out, '--resume') == 0
    assert without_seconds(out) == whole
    assert sorted(p.name for p in tmp_path.glob('q.csv*')) == ['q.csv', 'q.csv.run']


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


@pytest.mark.parametrize('change, named', [
    (lambda columns: columns.replace(',encoder,', ','), 'other columns: encoder'),
    (lambda columns: ','.join(reversed(columns.split(','))), 'other columns: their order')])
def test_rows_of_an_older_version_are_refused_with_the_columns_that_differ(folder, tmp_path, capsys,
                                                                          change, named):
    out = tmp_path / 'q.csv'
    assert predict(folder, out) == 0
    with contextlib.closing(sqlite3.connect(f'{out}.run')) as rows, rows:
        columns, = rows.execute("SELECT value FROM made WHERE key = 'columns'").fetchone()
        rows.execute("UPDATE made SET value = ? WHERE key = 'columns'", [change(columns)])
    capsys.readouterr()
    assert predict(folder, out, '--resume') == 2
    assert f'made with other options ({named})' in capsys.readouterr().err


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


@pytest.mark.parametrize('damage', [b'x', b'path,quality\r\n', b'9' * 140_000])
def test_a_damaged_csv_file_is_made_anew_from_the_rows(folder, whole, tmp_path, capsys, damage):
    out = tmp_path / 'q.csv'
    assert predict(folder, out) == 0
    before = out.read_bytes()
    out.write_bytes(damage)
    capsys.readouterr()
    assert predict(folder, out, '--resume') == 0
    assert out.read_bytes() == before and not list(tmp_path.glob('*.unfinished*'))
    assert capsys.readouterr().out == '7 images: 7 estimated; 2 recompressed\n'


@pytest.mark.parametrize('content, reason', [
    (None, 'nobody knows what'), (b'\xff[', 'not the rows of a run'),
    (b'{"comp_type": "jpeg_paper"}\n', 'not the rows of a run')])
def test_a_csv_file_of_something_else_is_not_gone_on_with(
        folder, tmp_path, capsys, content, reason):
    out, record = tmp_path / 'q.csv', tmp_path / 'q.csv.run'
    assert predict(folder, out) == 0
    record.unlink()
    if content:
        record.write_bytes(content)
    before = {p: p.read_bytes() for p in tmp_path.glob('q.csv*')}
    capsys.readouterr()
    assert predict(folder, out, '--resume') == 2
    error, = capsys.readouterr().err.splitlines()
    assert f'{record}: ' in error and reason in error
    assert {p: p.read_bytes() for p in tmp_path.glob('q.csv*')} == before


def test_where_no_image_could_be_read_all_are_tried_again(folder, whole, tmp_path):
    out, hidden = tmp_path / 'q.csv', {p: p.read_bytes() for p in folder.iterdir()}
    for path in hidden:
        path.write_bytes(b'text')
    assert predict(folder, out) == 2 and len(out.read_text().splitlines()) == 1
    for path, data in hidden.items():
        path.write_bytes(data)
    assert predict(folder, out, '--resume') == 0
    assert without_seconds(out) == whole


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
