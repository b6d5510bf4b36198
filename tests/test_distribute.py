"""Training shared out among replicas: the same training as one worker's, also after a kill."""
import csv
import itertools
import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from conftest import REPOSITORY  # also puts the repository on the path
from classifier import models, train
from classifier.checkpoints import load_arrays
from classifier.environment import import_tensorflow
from classifier.errors import InputError
from classifier.models import COMP_TYPES, CompType, build_network
from classifier.training.backend import Backend
from classifier.training.distribute import refuse_unlike_workers

SMALL = CompType('small', k=4, threshold=90)
STAGES = (1,)  # of the six: every layer more is one more exchange to build
SEED, EPOCHS, STEPS, BATCH = 4, 8, 3, 32
# Rounding grows from step to step; at a low rate it stays small enough to tell it from a
# wrong share of the data or batch normalisation of a part of the batch.
RATE = 1e-5
TIMEOUT = 600  # seconds for one session of all workers; one takes some 20 on a quiet machine


def options(patch_file, out, *more):
    return ['--hdf5_train_path', str(patch_file), '--hdf5_val_path', str(patch_file),
            '--comp_type', 'small', '--out_path', str(out), '--batch_size', str(BATCH),
            '--epochs', str(EPOCHS), '--steps_per_epoch', str(STEPS),
            '--lr', str(RATE), '--seed', str(SEED), *more]


def history(out):
    with (out / 'history_cls.csv').open(newline='') as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def cluster(task, addresses=('127.0.0.1:1', '127.0.0.1:2')):
    return json.dumps({'cluster': {'worker': list(addresses)},
                       'task': {'type': 'worker', 'index': task}})


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(('127.0.0.1', 0))
    addresses = [f'127.0.0.1:{each.getsockname()[1]}' for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def session(arguments, folders, **environment):
    """Run one worker in each folder until all have ended; returns [(status, stderr)]."""
    addresses = free_addresses(len(folders))
    workers = []
    for task, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        variables = os.environ | {'PYTHONPATH': str(REPOSITORY), 'TMPDIR': str(folder),
                                  'CUDA_VISIBLE_DEVICES': '', **environment}
        if len(folders) > 1:
            variables['TF_CONFIG'] = cluster(task, addresses)
        workers.append(subprocess.Popen([sys.executable, __file__, *arguments], env=variables,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True))
    try:
        return [(worker.returncode, error) for worker in workers
                for _, error in [worker.communicate(timeout=TIMEOUT)]]
    finally:
        for worker in workers:
            worker.kill()


def moved(out):
    """How far training has moved each weight: one vector."""
    before = build_network(SMALL, SEED).weights
    _, *state = load_arrays(out / 'state.npz')
    return np.concatenate([(after - old.numpy()).ravel() for after, old in zip(state, before)
                           if old.trainable])


def assert_same_training(out, expected):
    """Schedule, losses and weights agree, up to rounding."""
    rows, wanted = history(out), history(expected)
    for key in ('epoch', 'step', 'patches', 'learning_rate'):
        assert [row[key] for row in rows] == [row[key] for row in wanted]
    for key in ('loss', 'val_loss'):
        assert [row[key] for row in rows] == pytest.approx([row[key] for row in wanted], rel=1e-4)
    distance = moved(expected)
    assert np.linalg.norm(moved(out) - distance) < 0.05 * np.linalg.norm(distance)


@pytest.fixture(autouse=True)
def small_type(monkeypatch):
    monkeypatch.setitem(COMP_TYPES, 'small', SMALL)
    monkeypatch.setattr(models, 'STAGE_WIDTHS', STAGES)


@pytest.fixture(scope='module')
def one_worker(patch_file, tmp_path_factory):
    """The out_path of a training by one worker alone."""
    out = tmp_path_factory.mktemp('one') / 'out'
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMP_TYPES, 'small', SMALL)
        patch.setattr(models, 'STAGE_WIDTHS', STAGES)
        assert train.main(options(patch_file, out)) == 0
    return out


def test_two_replicas_on_one_machine_train_like_one(patch_file, tmp_path, one_worker):
    (status, error), = session(options(patch_file, tmp_path / 'out', '--strategy', 'mirrored'),
                               [tmp_path / 'scratch'], LOGICAL_CPUS='2')
    assert status == 0, error
    assert_same_training(tmp_path / 'out', one_worker)


@pytest.mark.long
def test_two_workers_train_like_one_though_one_was_killed(patch_file, tmp_path, one_worker):
    """At step 11 the second worker is killed: the first ends; resumed, the curve is one's."""
    out, folders = tmp_path / 'out', [tmp_path / 'a', tmp_path / 'b']
    arguments = options(patch_file, out, '--strategy', 'multi_worker')
    (status, error), (killed, _) = session(arguments, folders, KILLED_AT='11')
    assert killed == -signal.SIGKILL and status == 2, error
    assert error.strip().splitlines()[-1].startswith('train.py: error: worker lost')
    assert error.strip().endswith('start all workers again with --resume')
    assert [row['step'] for row in history(out)] == [3, 6, 9]
    results = session([*arguments, '--resume'], folders)
    assert [status for status, _ in results] == [0, 0], results
    assert 'from step 9 to 24 of 24' in results[0][1] and 'steps' not in results[1][1]
    assert_same_training(out, one_worker)


@pytest.mark.parametrize('config', [
    None, '{', '[]', '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["host-a"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["host-a:1"]}}', cluster(2), cluster(-1), cluster('0')])
def test_a_bad_tf_config_is_one_line_before_any_work(
        patch_file, tmp_path, monkeypatch, capsys, config):
    if config is None:
        monkeypatch.delenv('TF_CONFIG', raising=False)
    else:
        monkeypatch.setenv('TF_CONFIG', config)
    assert train.main(options(patch_file, tmp_path / 'out', '--strategy', 'multi_worker')) == 2
    _, line = capsys.readouterr().err.splitlines()  # the first says what it loads
    assert line.startswith('train.py: error: TF_CONFIG: ') and 'host-b:5000' in line
    assert not (tmp_path / 'out').exists()


def test_a_batch_that_cannot_be_shared_out_is_one_line(patch_file, tmp_path):
    arguments = options(patch_file, tmp_path / 'out', '--strategy', 'mirrored')
    (status, error), = session(arguments, [tmp_path], LOGICAL_CPUS='5')
    assert status == 2 and error.splitlines()[1:] == [
        'train.py: error: --batch_size 32 cannot be shared out among 5 replicas; '
        'choose a multiple of 5']
    assert not (tmp_path / 'out').exists()


def test_workers_that_differ_are_refused():
    class Worker(Backend):
        def __init__(self, others):
            self.others = others

        def weights(self):
            return [np.zeros(3)]

        def of_all_workers(self, *numbers):
            return [numbers, *self.others]

    refuse_unlike_workers(Worker([]), {'epochs': 1}, 0)
    with pytest.raises(InputError, match='differ in their options'):
        refuse_unlike_workers(Worker([(17,)]), {'epochs': 1}, 0)


def killed_at(step):
    """A `KerasStep` whose second worker ends at its step of that number."""
    class Mortal(train.KerasStep):
        def step(self, *batch):
            if next(self.calls) == step and not self.is_chief:
                os.kill(os.getpid(), signal.SIGKILL)
            super().step(*batch)
        calls = itertools.count(1)
    return Mortal


if __name__ == '__main__':  # one worker, or two replicas on one CPU
    COMP_TYPES['small'] = SMALL
    models.STAGE_WIDTHS = STAGES
    if 'LOGICAL_CPUS' in os.environ:
        config = import_tensorflow()[0].config
        config.set_logical_device_configuration(
            config.list_physical_devices('CPU')[0],
            int(os.environ['LOGICAL_CPUS']) * [config.LogicalDeviceConfiguration()])
    if 'KILLED_AT' in os.environ:
        train.KerasStep = killed_at(int(os.environ['KILLED_AT']))
    sys.exit(train.main(sys.argv[1:]))
