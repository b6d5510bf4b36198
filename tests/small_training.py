"""What tests of the training share: networks that train in seconds, and how to start one."""
import csv
from functools import partial

import cv2
import numpy as np
import pytest

from classifier import models, train
from classifier.models import COMP_TYPES, CompType, build_network, confidence_loss
from classifier.training.best_weights import save_weights
from classifier.training.keras_step import KerasStep
from conftest import TINY

SMALL = CompType('small', k=4, threshold=90)
FRAMEWORKS = ['tensorflow', pytest.param('pytorch', marks=pytest.mark.extras)]
STAGES = (1,)  # of the network's six: every layer more takes a second to trace


@pytest.fixture(autouse=True)
def small_types(monkeypatch):
    """Networks that train in seconds, as more compression types."""
    monkeypatch.setitem(COMP_TYPES, 'tiny', TINY)
    monkeypatch.setitem(COMP_TYPES, 'small', SMALL)
    monkeypatch.setattr(models, 'STAGE_WIDTHS', STAGES)


@pytest.fixture
def torch_step(monkeypatch):
    """The backend in PyTorch, without a compiler, which takes half a minute."""
    torch = pytest.importorskip('torch')
    from classifier.training import torch_step
    monkeypatch.setattr(torch_step, 'STAGE_WIDTHS', STAGES)
    monkeypatch.setattr(torch, 'compile', lambda network: network)
    return torch_step


@pytest.fixture
def coded_photos(torch_step):
    from classifier.training import coded_photos
    return coded_photos


@pytest.fixture
def weights(tmp_path):
    """A folder of random weights of the tiny network."""
    save_weights(TINY, build_network(TINY, 5).get_weights(), tmp_path / 'weights')
    return tmp_path / 'weights'


@pytest.fixture
def small_photos(photo, tmp_path):
    """Two photos that are compressed fast, in a folder."""
    folder = tmp_path / 'small_photos'
    folder.mkdir()
    for name, part in (('a', photo[:80, :120]), ('b', photo[100:164, 200:300])):
        cv2.imwrite(str(folder / f'{name}.png'), part)
    return folder


@pytest.fixture
def large_photos(photo, tmp_path):
    """Two photos that are large enough to be edited before crops are cut, in a folder."""
    folder = tmp_path / 'large_photos'
    folder.mkdir()
    for name, part in (('a', photo[:256, :260]), ('b', photo[40:, 150:])):
        cv2.imwrite(str(folder / f'{name}.png'), part)
    return folder


@pytest.fixture
def half_flat(tmp_path):
    """A folder with a photo that is black on its left half, and noise on the other."""
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:] = np.random.default_rng(1).integers(0, 256, (64, 64, 3))
    cv2.imwrite(str(tmp_path / 'half.png'), image)
    return tmp_path


def run(patch_file, folder, *more, comp_type='tiny'):
    return train.main(['--hdf5_train_path', str(patch_file), '--hdf5_val_path', str(patch_file),
                       '--comp_type', comp_type, '--out_path', str(folder / 'out'),
                       '--batch_size', '100', *more])


def run_photos(photos, folder, *more):
    return train.main(['--in_path', str(photos), '--val_path', str(photos), '--comp_type', 'tiny',
                       '--out_path', str(folder / 'out'), '--batch_size', '200', *more])


def history(folder):
    with (folder / 'out' / 'history_cls.csv').open(newline='') as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def keras_step(comp_type=TINY, batch_size=100, seed=0):
    return KerasStep(partial(build_network, comp_type, seed), confidence_loss, batch_size)


def error_line(capsys):
    line, = [line for line in capsys.readouterr().err.splitlines() if 'error: ' in line]
    return line


def assert_same(arrays, others):
    assert len(arrays) == len(others)
    assert all((a == b).all() for a, b in zip(arrays, others))
