"""Folders of many images on all cores."""
import csv
import os
import subprocess
import sys
import threading

import cv2
import pytest

from classifier import batch, cli, images, report, run_rows
from classifier.environment import quiet
from classifier.predictor import Predictor
from classifier.runtime import RUNTIMES
from collection import command, folder, predict, whole, without_seconds  # noqa: F401, fixtures
from conftest import CLASSIFIER


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
    monkeypatch.setattr(report, 'read_image', slow)
    assert predict(folder, tmp_path / 'a.csv') == 0
    assert without_seconds(tmp_path / 'a.csv') == whole
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[:-1]] == list('abcdefg')


def test_all_cores_give_what_a_predictor_gives_alone(folder, whole, tmp_path):
    predictor = Predictor('jpeg_paper')
    with open(tmp_path / 'whole.csv', **run_rows.CSV_FORMAT) as file:
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
