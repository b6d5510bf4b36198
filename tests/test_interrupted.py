"""Scripts that are killed: nothing half-done is taken for whole, and started again they end as if
nothing had happened.

Each script is killed again and again, at a random moment (SIGKILL, or Ctrl-C's SIGINT) or right
before a random one of its file operations (SIGKILL): twice by default, more often with -m long,
and very often with `KILLS=1000`.
"""
import contextlib
import csv
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest

from classifier.checkpoints import (LIKELIHOOD_FILE, MODEL_FILE, THRESHOLD_FILE, VAL_LOSS_FILE,
                                    weights_digest)
from classifier.runtime import model_description
from conftest import SAMPLES
from script_runs import UNFINISHED, Run, call, server, training  # noqa: F401, a fixture

KILLS = int(os.environ.get('KILLS', 60)) // 5  # of each script
SEED = int(os.environ.get('KILLS_SEED', 0))


def has_changed(folder, since):
    """Whether anything in a folder was written, made or removed after that time (ns)."""
    for path in (folder, *folder.rglob('*')):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime_ns > since:
                return True
    return False


def wait_for_work(run, folder, since):
    """Return when a run begins to write, or is over."""
    while not run.is_over() and not has_changed(folder, since):
        time.sleep(0.002)


def killed(start, folder, rng, span, operations):
    """Kill one run of a script; returns its exit status, 0 if it was done before.

    start: a function stop_at -> `Run`. It works in `folder`, for about `span` seconds and
    that many file operations.
    """
    if rng.random() < 0.5:
        run = start(int(rng.integers(1, operations + 1)))
    else:
        began = time.time_ns()
        run = start(0)
        wait_for_work(run, folder, began)
        time.sleep(rng.uniform(0, span))
        with contextlib.suppress(ProcessLookupError):
            if not run.is_over():
                os.kill(run.pid, [signal.SIGKILL, signal.SIGINT][rng.integers(2)])
    status = run.status()
    # The interpreter, when it ends, gives SIGINT back its own meaning.
    assert status in (0, -signal.SIGKILL, -signal.SIGINT, 130), run.errors()
    if status == 130:
        # Cython itself reports an interrupt that comes while h5py frees an object.
        assert 'Traceback' not in run.errors() or 'ObjectID.__dealloc__' in run.errors()
    return status


@pytest.fixture(params=[2, pytest.param(KILLS, marks=pytest.mark.long)])
def kills(request):
    """How often a script is killed."""
    return request.param


def kill_often(start, folder, check, compare, operations, number):
    """Kill a script so often, let it end, and begin again where it ended.

    check, compare: called after each kill, and when a run came to its end.
    """
    rng = np.random.default_rng((SEED, operations))
    folder.mkdir()
    began = time.time_ns()
    run = start(0)
    wait_for_work(run, folder, began)
    began = time.monotonic()
    assert run.status() == 0, run.errors()
    span = time.monotonic() - began
    compare()
    shutil.rmtree(folder)
    folder.mkdir()
    kills = 0
    for _ in range(10 * number):
        if killed(start, folder, rng, span, operations):
            kills += 1
            check()
        else:
            compare()
            shutil.rmtree(folder)
            folder.mkdir()
        if kills == number:
            break
    assert kills == number
    run = start(0)
    assert run.status() == 0, run.errors()
    compare()


def contents(folder):
    """{name: bytes} of a folder's files but unfinished ones; without measured seconds."""
    found = {}
    for path in folder.iterdir():
        if path.suffix == '.csv':
            with path.open(newline='') as file:
                found[path.name] = [{**row, 'seconds': None} for row in csv.DictReader(file)]
        elif path.suffix == '.json':
            found[path.name] = json.loads(path.read_text())
            del found[path.name]['made_with']['command']  # which names the folder
        elif path.suffix not in UNFINISHED:
            found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize('name, options, operations', [
    ('predict_cls', ['--in_path', SAMPLES, '--csv', '{}/q.csv'], 12),
    ('evaluate_cls', ['--in_path', '{photos}', '--qualities', '20,50,80', '--out_path', '{}'], 14),
    ('gen_data', ['--in_path', '{photos}', '--num_samples', '40', '--hdf5_name', 'p.h5',
                  '--out_path', '{}'], 14)])
def test_a_killed_script_leaves_whole_files_or_none_and_ends_the_same(
        photo_folder, tmp_path, name, options, operations, kills):
    pytest.importorskip('ai_edge_litert', reason='TensorFlow would take minutes to start so often')

    def argv(folder):
        return ['--comp_type', 'jpeg_paper',
                *(str(o).format(folder, photos=photo_folder) for o in options),
                *(['--resume'] if (folder / 'q.csv.unfinished').exists() else [])]

    (tmp_path / 'whole').mkdir()
    run = Run(tmp_path, name, argv(tmp_path / 'whole'))
    assert run.status() == 0, run.errors()
    whole, folder = contents(tmp_path / 'whole'), tmp_path / 'killed'
    assert whole

    def check():
        assert contents(folder).items() <= whole.items()

    def compare():
        assert contents(folder) == whole

    kill_often(lambda stop_at: Run(tmp_path, name, argv(folder), stop_at, folder),
               folder, check, compare, operations, kills)


def history(folder):
    """Its numbers but the measured seconds and the training loss, a mean since the last resume."""
    with (folder / 'out' / 'history_cls.csv').open(newline='') as file:
        return [[float(v) for k, v in row.items() if k not in ('seconds', 'loss', 'quality_mae')]
                for row in csv.DictReader(file)]


def best_of(folder):
    """Where the best weights lie, between two renames under their old name; None without any."""
    for name in ('best', 'best.old'):
        if (folder / 'out' / name).exists():
            return folder / 'out' / name
    return None


def test_a_killed_training_keeps_the_best_weights_and_goes_on_to_the_same_end(
        patch_file, tmp_path, server, kills):
    whole, folder = tmp_path / 'whole', tmp_path / 'killed'
    whole.mkdir()
    run = Run(tmp_path, 'train', training(patch_file, whole), server=server)
    assert run.status() == 0, run.errors()
    had_best = []

    def check():
        best = best_of(folder)
        assert best or not had_best
        if best:
            had_best.append(best)
            found = float(call(tmp_path, server, 'validation_loss', best, patch_file))
            assert found == pytest.approx(float((best / VAL_LOSS_FILE).read_text()),
                                          abs=1e-3)

    def compare():
        check()
        had_best.clear()
        assert {p.name for p in (folder / 'out').iterdir() if p.suffix not in UNFINISHED} == {
            'best', 'run.json', 'state.npz', 'history_cls.csv', 'history_cls.png'}
        assert history(folder) == [pytest.approx(row, rel=1e-3) for row in history(whole)]
        for name in ('out/run.json', 'out/best/val_loss.txt'):
            assert (folder / name).read_text() == (whole / name).read_text()

    kill_often(lambda stop_at: Run(tmp_path, 'train', training(patch_file, folder), stop_at, folder,
                                   server=server), folder, check, compare, 40, kills)


def test_a_killed_export_leaves_no_model_beside_what_belongs_to_another(tmp_path, server, kills):
    """Two sets of weights go to one folder in turn; only the first has a likelihood."""
    weights = [tmp_path / 'first', tmp_path / 'second']
    for seed, path in enumerate(weights):
        path.mkdir()
        call(tmp_path, server, 'make_weights', path, str(seed))
        (path / THRESHOLD_FILE).write_text(f'9{seed}\n')
    (weights[0] / LIKELIHOOD_FILE).write_bytes(bytes(300_000))
    folder, turn = tmp_path / 'killed', []

    def start(stop_at):
        turn.append(weights[len(turn) % 2])
        return Run(tmp_path, 'to_tflite', ['--comp_type', 'tiny', '--weights', turn[-1],
                                           '--out_path', folder], stop_at, folder, server=server)

    def check():
        if not (folder / MODEL_FILE).exists():
            return
        metadata = model_description((folder / MODEL_FILE).read_bytes())
        source, = (path for path in weights
                   if weights_digest(path) == metadata['weights_sha256'])
        for name in (THRESHOLD_FILE, LIKELIHOOD_FILE):
            assert (folder / name).exists() == (source / name).exists()
            assert not (source / name).exists() or (
                (folder / name).read_bytes() == (source / name).read_bytes())

    def compare():
        check()
        metadata = model_description((folder / MODEL_FILE).read_bytes())
        assert metadata['weights_sha256'] == weights_digest(turn[-1])

    kill_often(start, folder, check, compare, 16, kills)
