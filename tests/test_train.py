"""Training: it learns, keeps the best, stops, and resumes where it was."""
import json
import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from classifier import checkpoints, models, train
from classifier.checkpoints import VAL_LOSS_FILE, load_network, load_weights
from classifier.environment import import_tensorflow
from classifier.models import confidence_loss
from classifier.patches import PatchFile
from classifier.training import loop
from classifier.training.keras_step import KerasStep
from classifier.training.schedule import SCHEDULE, ema_decay, learning_rate
from conftest import CLASSIFIER, TINY
from small_training import (FRAMEWORKS, SMALL, error_line, history,  # noqa: F401, fixtures
                            keras_step, run, small_types, torch_step)

# ---------------------------------------------------------------- schedule

def test_the_learning_rate_warms_up_and_falls_to_zero():
    schedule = SCHEDULE | {'epochs': 10, 'steps_per_epoch': 100}
    rates = [learning_rate(step, schedule) for step in range(1001)]
    assert rates[0] == pytest.approx(2e-5) and np.argmax(rates) == 100
    assert max(rates) == pytest.approx(2e-3) and rates[-1] == pytest.approx(0, abs=1e-9)
    assert (np.diff(rates[:101]) > 0).all() and (np.diff(rates[100:]) < 0).all()


def test_the_learning_rate_is_that_of_keras():
    _, keras = import_tensorflow()
    schedule = SCHEDULE | {'epochs': 4, 'steps_per_epoch': 50, 'warmup_steps': 10}
    rate = keras.optimizers.schedules.CosineDecay(schedule['lr'] / 10, 190,
                                                  warmup_target=schedule['lr'], warmup_steps=10)
    assert [learning_rate(step, schedule) for step in range(200)] == pytest.approx(
        [float(rate(step)) for step in range(200)], rel=1e-4, abs=1e-9)


def test_the_ema_forgets_the_random_start():
    """With 0.999 from the first step, 36.8 % of it would be left after 1,000 steps."""
    assert 0.999 ** 1000 == pytest.approx(0.368, abs=1e-3)
    assert np.prod([ema_decay(step) for step in range(1000)]) < 1e-20
    assert ema_decay(0) == 0.1 and ema_decay(10 ** 6) == 0.999


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_the_ema_moves_by_the_decay_it_is_given(framework, request):
    backend = (keras_step(batch_size=8) if framework == 'tensorflow' else
               request.getfixturevalue('torch_step').TorchStep(TINY, 0))
    state = backend.state()
    count = len(backend.weights())
    state[count:2 * count] = [0 * array for array in state[count:2 * count]]
    backend.restore(state, 0)
    x = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    backend.step((x, np.full(8, 9, np.uint8)), 0.0, 0.75)
    after = backend.state()
    for weight, mean in zip(after[:count], after[count:]):
        np.testing.assert_allclose(mean, weight / 4, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('content', ['[]', '3', '"a"', '{}', '{"epochs": 1}', '{', '\x00', None,
                                     {'epochs': '1'}, {'epochs': True}, {'batch_size': 1},
                                     {'lr': None}, {'steps_per_epoch': None}, {'seed': -1},
                                     {'comp_type': 7}, {'chroma': 'blue'}, {'lr': float('nan')},
                                     {'edits': 1}, {'uncompressed': 2}, {'uncompressed': True}])
def test_a_run_json_that_is_not_a_run_is_one_line(patch_file, tmp_path, capsys, content):
    schedule = SCHEDULE | {'steps_per_epoch': 1, 'comp_type': 'tiny'}
    if content is None:
        content = json.dumps(schedule)[:-9]
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'run.json').write_text(
        content if isinstance(content, str) else json.dumps(schedule | content))
    assert run(patch_file, tmp_path, '--resume') == 2
    assert 'run.json: damaged' in error_line(capsys)


# ---------------------------------------------------------------- one training

def test_training_lowers_the_loss_and_keeps_the_best_weights(patch_file, tmp_path, monkeypatch):
    """Very low and very high qualities are told apart after a few steps."""
    monkeypatch.setattr(models, 'STAGE_WIDTHS', (1, 2))
    with h5py.File(patch_file) as whole, h5py.File(tmp_path / 'easy.h5', 'w') as easy:
        kept = np.flatnonzero((whole['y_quality'][:] <= 8) | (whole['y_quality'][:] > 92))
        for name in whole:
            easy[name] = whole[name][kept]
    patch_file = tmp_path / 'easy.h5'
    assert run(patch_file, tmp_path, '--epochs', '4', '--lr', '2e-2', '--steps_per_epoch', '20',
               '--tensorboard', comp_type='small') == 0
    rows = history(tmp_path)
    assert [row['step'] for row in rows] == [20, 40, 60, 80]
    assert rows[-1]['loss'] < 0.9 * rows[0]['loss']
    assert rows[-1]['quality_mae'] < 38  # one answer for all patches is 45 off
    best = tmp_path / 'out' / 'best'
    lowest = min(row['val_loss'] for row in rows)
    assert float((best / VAL_LOSS_FILE).read_text()) == pytest.approx(lowest, abs=1e-3)
    file, backend = PatchFile(patch_file, SMALL), keras_step(SMALL)
    again, _ = backend.validate(file, 100, load_weights(SMALL, best))
    assert again == pytest.approx(lowest, rel=1e-4)
    assert (tmp_path / 'out' / 'history_cls.png').read_bytes().startswith(b'\x89PNG')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'best', 'history_cls.csv', 'history_cls.png', 'run.json', 'state.npz', 'tensorboard']
    assert list((tmp_path / 'out' / 'tensorboard').glob('events*'))


def test_slices_of_a_schedule_equal_one_run(patch_file, tmp_path, monkeypatch):
    more = ('--epochs', '3', '--steps_per_epoch', '7', '--seed', '4')
    assert run(patch_file, tmp_path / 'whole', *more) == 0
    monkeypatch.setattr(KerasStep, 'look_every', 3)  # as on a GPU, where looking takes time
    assert run(patch_file, tmp_path / 'slices', *more, '--until_epoch', '1') == 0
    assert [row['step'] for row in history(tmp_path / 'slices')] == [7]
    assert run(patch_file, tmp_path / 'slices', '--resume') == 0
    whole, slices = history(tmp_path / 'whole'), history(tmp_path / 'slices')
    for key in ('epoch', 'step', 'patches', 'learning_rate'):
        assert [row[key] for row in whole] == [row[key] for row in slices]
    for key in ('loss', 'val_loss'):  # sums in another order, on several threads
        assert [row[key] for row in whole] == pytest.approx([row[key] for row in slices], rel=1e-3)


@pytest.mark.parametrize('how', ['signal', 'file'])
def test_it_stops_cleanly_and_resumes_at_the_same_step(patch_file, tmp_path, monkeypatch, capsys,
                                                       how):
    seen = []

    class Stopping(loop.Progress):
        def update(self, done, note=''):
            seen.append(done)
            if done == 10 and how == 'signal':
                os.kill(os.getpid(), signal.SIGINT)
            elif done == 10:
                (tmp_path / 'out' / 'stop_training').touch()

    monkeypatch.setattr(loop, 'Progress', Stopping)
    assert run(patch_file, tmp_path, '--epochs', '1') == 130
    assert seen[-1] == 10
    assert 'stopped at step 10; go on with --resume' in capsys.readouterr().err
    assert run(patch_file, tmp_path, '--resume') == 0
    assert seen == list(range(1, 31))
    assert not (tmp_path / 'out' / 'stop_training').exists()


def test_a_crash_loses_what_came_after_the_last_state(patch_file, tmp_path, monkeypatch, capsys):
    class Crashing(loop.Progress):
        def update(self, done, note=''):
            if done == 5:
                raise RuntimeError

    monkeypatch.setattr(loop, 'STATE_SECONDS', -1)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(loop, 'Progress', Crashing)
        run(patch_file, tmp_path, '--epochs', '1', '--steps_per_epoch', '6')
    assert run(patch_file, tmp_path, '--resume') == 0
    assert 'training from step 4 to 6 of 6' in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_at_once(patch_file, tmp_path, monkeypatch, capsys):
    def broken(quality, output):
        loss, error = confidence_loss(quality, output)
        return loss * float('nan'), error

    assert run(patch_file, tmp_path, '--epochs', '1', '--steps_per_epoch', '2') == 0
    monkeypatch.setattr(train, 'confidence_loss', broken)
    (tmp_path / 'out' / 'run.json').unlink()
    assert run(patch_file, tmp_path, '--epochs', '1') == 2
    assert 'no finite number at step 1;' in error_line(capsys)
    assert load_network(TINY, tmp_path / 'out' / 'best')


def test_a_second_training_does_not_overwrite_the_first(patch_file, tmp_path, capsys):
    assert run(patch_file, tmp_path, '--resume') == 2
    assert 'nothing to resume' in capsys.readouterr().err
    assert run(patch_file, tmp_path, '--epochs', '1', '--steps_per_epoch', '1') == 0
    assert run(patch_file, tmp_path, '--epochs', '1') == 2
    assert 'another training' in capsys.readouterr().err
    assert run(patch_file, tmp_path, '--resume', '--lr', '0.5') == 2
    assert 'started with lr 0.002, not 0.5' in capsys.readouterr().err
    assert json.loads((tmp_path / 'out' / 'run.json').read_text())['epochs'] == 1


def test_the_shipped_weights_are_not_trained_over(patch_file, tmp_path, capsys, monkeypatch):
    shipped = tmp_path / 'out'
    monkeypatch.setattr(checkpoints, 'SAVE_FOLDER', shipped)
    for folder in (shipped, shipped / 'tiny', shipped / 'tiny' / 'best'):
        assert train.main(['--hdf5_train_path', str(patch_file), '--hdf5_val_path',
                           str(patch_file), '--comp_type', 'tiny', '--out_path', str(folder)]) == 2
        assert 'holds the shipped weights' in error_line(capsys)
    assert not shipped.exists()


def test_a_state_that_cannot_be_used_is_one_line(patch_file, tmp_path, capsys):
    assert run(patch_file, tmp_path, '--epochs', '1', '--steps_per_epoch', '1') == 0
    state = tmp_path / 'out' / 'state.npz'
    whole = state.read_bytes()
    with np.load(state) as file:
        arrays = list(file.values())
    capsys.readouterr()
    for content, reason in [(whole[:1000], 'damaged'), (b'', 'damaged'), (b'text', 'damaged'),
                            ([], 'not the state'), (arrays[:-1], 'not the state'),
                            ([np.float32(1.5), *arrays[1:]], 'not the state'), (None, 'no state')]:
        state.unlink()
        if isinstance(content, bytes):
            state.write_bytes(content)
        elif content is not None:
            np.savez(state, *content)
        assert run(patch_file, tmp_path, '--resume') == 2
        assert str(state) in (line := error_line(capsys)) and reason in line
    state.mkdir()
    (tmp_path / 'out' / 'run.json').unlink()
    assert run(patch_file, tmp_path, '--epochs', '1') == 2
    assert str(state) in error_line(capsys)


def test_a_damaged_history_is_named(patch_file, tmp_path, capsys):
    assert run(patch_file, tmp_path, '--epochs', '2', '--steps_per_epoch', '1',
               '--until_epoch', '1') == 0
    path = tmp_path / 'out' / 'history_cls.csv'
    whole = path.read_text()
    capsys.readouterr()
    for text in ('epoch,step\n1,1\n\n1,2\n', 'text\n1,2\n', '\x00\n1,2\n', whole[:-30]):
        path.write_text(text)
        assert run(patch_file, tmp_path, '--resume') == 2
        assert 'history_cls.csv: damaged' in error_line(capsys)


def test_the_largest_seed_trains_and_larger_ones_are_a_usage_error(patch_file, tmp_path, capsys):
    assert run(patch_file, tmp_path, '--epochs', '1', '--steps_per_epoch', '1',
               '--seed', str(2 ** 32 - 1)) == 0
    with pytest.raises(SystemExit, match='2'):
        run(patch_file, tmp_path, '--seed', str(2 ** 64))
    assert 'whole number from 0 to 4294967295' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['out', 'out/best', 'out/history_cls.csv', 'out/history_cls.png'])
def test_what_cannot_be_written_is_named_before_the_work(
        patch_file, tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if 'history' in name:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).touch()
    monkeypatch.setattr(loop, 'Progress', None)
    assert run(patch_file, tmp_path, '--epochs', '1') == 2
    assert str(tmp_path / name) in error_line(capsys)


@pytest.mark.parametrize('more', [
    [], ['--in_path', 'a'], ['--hdf5_train_path', 'a'],
    ['--hdf5_train_path', 'a', '--val_path', 'b'],
    ['--in_path', 'a', '--val_path', 'a', '--hdf5_train_path', 'b', '--hdf5_val_path', 'b'],
    ['--in_path', 'a', '--val_path', 'a', '--epochs', '0'],
    ['--in_path', 'a', '--val_path', 'a', '--base_type', 'tiny'],
    ['--in_path', 'a', '--val_path', 'a', '--framework', 'pytorch', '--strategy', 'mirrored']])
def test_options_that_do_not_go_together_are_a_usage_error(more):
    with pytest.raises(SystemExit, match='2'):
        train.main(['--comp_type', 'tiny', *more])


@pytest.mark.parametrize('script', ['train', 'gen_data'])
def test_help_needs_no_optional_package(script):
    code = f"""
import runpy, sys
for name in ('tensorflow', 'tf_keras', 'torch', 'matplotlib', 'distributed', 'sklearn'):
    sys.modules[name] = None
sys.argv = ['{script}.py', '--help']
runpy.run_path({str(CLASSIFIER / script)!r} + '.py', run_name='__main__')"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith(f'usage: {script}.py')
