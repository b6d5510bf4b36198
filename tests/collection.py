"""A small folder of images, and predict_cls.py run on it: undisturbed, stopped, killed."""
import contextlib
import csv
import json
import os

import cv2
import numpy as np
import pytest

from classifier import batch, images, predict_cls, report, run_rows


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
    with open(path, **run_rows.CSV_FORMAT) as file:
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
    monkeypatch.setattr(report, 'read_image', interrupted)


def stopped_run(monkeypatch, folder, out):
    """A run that is stopped in the middle."""
    with monkeypatch.context() as patch:
        stop_at(patch, 'e.jpg')
        assert predict(folder, out) == 130
