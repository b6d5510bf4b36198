"""Photos to work on, files that many tests need, and which tests run by default.

`python3 -m pytest` runs the short tests, `python3 -m pytest -m long` those that take minutes:
kills at random moments, fuzzing, exports of every kind, distribution, the baseline's training.
"""
import gc
import signal
import sys
from pathlib import Path

import cv2
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
CLASSIFIER = REPOSITORY / 'classifier'
SAMPLES = REPOSITORY / 'sample_image'
PRISTINE = [p for p in sorted(SAMPLES.glob('*.png')) if '_jpeg_' not in p.name]
sys.path.insert(0, str(REPOSITORY))

from classifier.cli import Progress  # noqa: E402, found on the path just set
from classifier.models import COMP_TYPES, CompType  # noqa: E402

TINY = CompType('tiny', k=1, threshold=90)
TINY_WEIGHTS = REPOSITORY / 'tests' / 'data' / 'tiny'  # written by make_tiny.py


def pytest_configure(config):
    config.addinivalue_line('markers', 'long: takes long; runs with -m long')
    config.addinivalue_line('markers', 'extras: needs PyTorch, Dask or tf2onnx; skipped without')
    if not config.option.markexpr:
        config.option.markexpr = 'not long'


def pytest_sessionfinish():
    """Let TensorFlow's functions go before its modules do, after which that would be noisy."""
    from classifier import batch
    batch._SHARED.clear()
    vars(batch._OPENED).clear()
    gc.collect()


@pytest.fixture(autouse=True)
def no_progress_on_a_slow_machine(monkeypatch):
    monkeypatch.setattr(Progress, 'FIRST_LINE', 1000.0)


@pytest.fixture
def tiny_type(monkeypatch):
    """Options for a small network with random weights, as one more compression type."""
    monkeypatch.setitem(COMP_TYPES, 'tiny', TINY)
    return ['--comp_type', 'tiny', '--weights', str(TINY_WEIGHTS)]


@pytest.fixture
def photo():
    """A pristine photo, (300, 400, 3) uint8 BGR."""
    return cv2.imread(str(SAMPLES / 'raccoon.png'))


@pytest.fixture(scope='session')
def photo_folder(tmp_path_factory):
    """A folder with the pristine sample photos alone."""
    folder = tmp_path_factory.mktemp('photos')
    for path in PRISTINE:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope='session')
def patch_file(photo_folder, tmp_path_factory):
    """3,000 patches made by gen_data.py from the sample photos."""
    from classifier import gen_data
    folder = tmp_path_factory.mktemp('patches')
    assert gen_data.main(['--in_path', str(photo_folder), '--num_samples', '30', '--seed', '1',
                          '--hdf5_name', 'patches.h5', '--comp_type', 'jpeg_paper',
                          '--out_path', str(folder)]) == 0
    return folder / 'patches.h5'


def heeds_ctrl_c():
    """In the child: what runs in the background of a shell ignores Ctrl-C, and passes that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
