"""Training: it learns, keeps the best, stops, and resumes where it was, with either framework."""
import contextlib
import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from functools import partial

import cv2
import h5py
import numpy as np
import pytest

from classifier import checkpoints, images, models, train
from classifier.checkpoints import (CHECKPOINT_FILES, LIKELIHOOD_FILE, MODEL_FILE, THRESHOLD_FILE,
                                    VAL_LOSS_FILE, WEIGHTS_FILE, load_network, load_weights,
                                    weights_digest)
from classifier.models import COMP_TYPES, CompType, build_network, confidence_loss
from classifier.patches import PatchFile
from classifier.training import best_weights, loop, photo_source
from classifier.training.best_weights import BestWeights, load_base, save_weights
from classifier.training.keras_step import KerasStep
from classifier.training.photo_source import CodedPhotos, FixedPatches, PhotoSource
from classifier.training.schedule import SCHEDULE, ema_decay, learning_rate
from conftest import CLASSIFIER, TINY, TINY_WEIGHTS

SMALL = CompType('small', k=4, threshold=90)
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
def without_tensorflow(monkeypatch):
    for name in ('tensorflow', 'tf_keras'):
        monkeypatch.setitem(sys.modules, name, None)


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


def best_of(folder):
    best = BestWeights(folder / 'best', partial(load_weights, TINY), partial(save_weights, TINY))
    best.measure(lambda _: 5.0)
    return best


def error_line(capsys):
    line, = [line for line in capsys.readouterr().err.splitlines() if 'error: ' in line]
    return line


def assert_same(arrays, others):
    assert len(arrays) == len(others)
    assert all((a == b).all() for a, b in zip(arrays, others))


# ---------------------------------------------------------------- schedule

def test_the_learning_rate_warms_up_and_falls_to_zero():
    schedule = SCHEDULE | {'epochs': 10, 'steps_per_epoch': 100}
    rates = [learning_rate(step, schedule) for step in range(1001)]
    assert rates[0] == pytest.approx(2e-5) and np.argmax(rates) == 100
    assert max(rates) == pytest.approx(2e-3) and rates[-1] == pytest.approx(0, abs=1e-9)
    assert (np.diff(rates[:101]) > 0).all() and (np.diff(rates[100:]) < 0).all()


def test_the_learning_rate_is_that_of_keras():
    _, keras = models.import_tensorflow()
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


@pytest.mark.parametrize('framework', ['tensorflow', 'pytorch'])
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
                                     {'comp_type': 7}, {'chroma': 'blue'}, {'lr': float('nan')}])
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


# ---------------------------------------------------------------- weights to start from

def test_base_weights_are_validated_and_kept(patch_file, tmp_path, weights, capsys):
    (weights / THRESHOLD_FILE).write_text('91\n')
    base = load_weights(TINY, weights)
    np.savez(tmp_path / 'base.npz', *base)
    for number, path in enumerate((weights, tmp_path / 'base.npz')):
        folder = tmp_path / str(number)
        assert run(patch_file, folder, '--epochs', '0', '--base_weights', str(path)) == 0
        assert f'{path}: validation loss' in capsys.readouterr().out
        assert_same(load_weights(TINY, folder / 'out' / 'best'), base)
        assert not (folder / 'out' / 'state.npz').exists()
    assert (tmp_path / '0' / 'out' / 'best' / THRESHOLD_FILE).read_text() == '91\n'


def test_base_weights_that_cannot_be_used_are_one_line(patch_file, tmp_path, weights, capsys):
    np.savez(tmp_path / 'bad.npz', np.zeros(3))
    (tmp_path / 'text.npz').write_bytes(b'PK')
    for path, reason in ((tmp_path / 'no.npz', 'no such file'), (weights, 'not of small'),
                         (tmp_path / 'bad.npz', 'not of small'),
                         (tmp_path / 'text.npz', 'damaged')):
        assert run(patch_file, tmp_path, '--base_weights', str(path), comp_type='small') == 2
        assert str(path) in (line := error_line(capsys)) and reason in line
    assert run(patch_file, tmp_path, '--base_weights', str(weights), '--base_type', 'small') == 2
    assert 'small is wider than tiny' in error_line(capsys)


def test_a_widened_network_answers_as_the_narrower_one(patch_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models, 'STAGE_WIDTHS', (1, 2, 4, 8, 4, 2))
    network = build_network(SMALL, 0)
    random = network.get_weights()
    network.set_weights(load_base(TINY_WEIGHTS, SMALL, random, TINY))
    x = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(network(x), load_network(TINY, TINY_WEIGHTS)(x), atol=1e-3)
    kernel = network.get_weights()[5]  # of the first 1x1 convolution
    assert (kernel[..., 1:] == random[5][..., 1:]).all() and not kernel[..., 1:, :1].any()


def test_a_widened_network_trains_its_new_channels(patch_file, tmp_path, weights, capsys):
    assert run(patch_file, tmp_path, '--epochs', '1', '--base_weights', str(weights),
               '--base_type', 'tiny', comp_type='small') == 0
    rows = history(tmp_path)
    assert rows[-1]['val_loss'] < float(capsys.readouterr().out.split('loss ')[1].split(',')[0])
    last = load_weights(SMALL, tmp_path / 'out' / 'best')[-2]
    assert abs(last[1:]).min() > 0


# ---------------------------------------------------------------- best weights

def test_the_best_weights_are_only_replaced_by_better_ones(tmp_path):
    best = best_of(tmp_path)
    first, second = (build_network(TINY, seed).get_weights() for seed in (1, 2))
    assert best.offer(first, 5.0)
    (best.folder / THRESHOLD_FILE).write_text('91\n')
    (best.folder / MODEL_FILE).write_text('exported from the first')
    assert not best.offer(second, 6.0) and not best.offer(second, float('nan'))
    assert_same(load_weights(TINY, best.folder), first)
    assert best.offer(second, 4.0)
    assert_same(load_weights(TINY, best.folder), second)
    assert (best.folder / THRESHOLD_FILE).read_text() == '91\n'
    assert not (best.folder / MODEL_FILE).exists()
    assert sorted(p.name for p in best.folder.parent.iterdir()) == ['best']


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    best = best_of(tmp_path)
    best.offer(build_network(TINY).get_weights(), 6.0)
    best.folder.rename(best.folder.with_name('best.old'))
    assert (best_of(tmp_path).folder / '.index').exists()
    (tmp_path / 'best.old').mkdir()
    assert not best_of(tmp_path).folder.with_name('best.old').exists()


def test_best_weights_are_on_the_disk_before_the_old_ones_go(tmp_path, monkeypatch):
    best, events = best_of(tmp_path), []
    remove = best_weights.shutil.rmtree
    monkeypatch.setattr(best_weights, 'sync_folder',
                        lambda path: events.append(f'sync {path.name}'))
    monkeypatch.setattr(best_weights.shutil, 'rmtree', lambda path, **more: (
        events.append(f'remove {path.name}'), remove(path, **more)))
    for loss in (5.0, 4.0):
        best.offer(build_network(TINY).get_weights(), loss)
    assert events[-4:] == ['remove best.part', 'sync best.part', f'sync {tmp_path.name}',
                           'remove best.old']


def installable(folder, network, loss):
    """A folder with all that goes with weights."""
    save_weights(TINY, network.get_weights(), folder)
    (folder / VAL_LOSS_FILE).write_text(f'{loss}\n')
    (folder / THRESHOLD_FILE).write_text('93\n')
    np.savez(folder / LIKELIHOOD_FILE, log_likelihood=np.zeros((100, 17, 101), np.float32))


def test_installing_replaces_the_shipped_weights_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, 'SAVE_FOLDER', tmp_path / 'save')
    shipped = tmp_path / 'save' / 'tiny' / 'best'
    arguments = ['--comp_type', 'tiny', '--install', str(tmp_path / 'new')]
    installable(shipped, build_network(TINY, 1), 5.5)
    (shipped / MODEL_FILE).write_text('of the old weights')
    installable(tmp_path / 'new', build_network(TINY, 2), 4.5)
    (tmp_path / 'new' / 'notes.txt').write_text('mine')
    digests = [weights_digest(folder)[:12] for folder in (shipped, tmp_path / 'new')]

    (tmp_path / 'new' / THRESHOLD_FILE).write_text('far too many')
    assert train.main(arguments) == 2 and 'threshold.txt' in error_line(capsys)
    (tmp_path / 'new' / THRESHOLD_FILE).write_text('93\n')
    (tmp_path / 'new' / MODEL_FILE).write_text('no model')
    assert train.main(arguments) == 2 and MODEL_FILE in error_line(capsys)
    (tmp_path / 'new' / MODEL_FILE).unlink()
    assert weights_digest(shipped)[:12] == digests[0]

    assert train.main(arguments) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in (*digests, '5.5', '4.5', str(shipped)))
    assert out.index(digests[0]) < out.index(digests[1])
    assert out.endswith(f'/new, without {MODEL_FILE}\n')
    assert sorted(p.name for p in shipped.iterdir()) == sorted(
        [*CHECKPOINT_FILES, 'checkpoint', VAL_LOSS_FILE, THRESHOLD_FILE,
         LIKELIHOOD_FILE])
    assert [p.name for p in shipped.parent.iterdir()] == ['best']

    shipped.rename(shipped.with_name('best.old'))  # as a kill between the renames leaves it
    np.savez(tmp_path / 'bad.npz', np.zeros(3))
    assert train.main([*arguments[:-1], str(tmp_path / 'bad.npz')]) == 2
    assert weights_digest(shipped)[:12] == digests[1]


# ---------------------------------------------------------------- PyTorch

def test_without_pytorch_its_name_is_one_line(patch_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'torch', None)
    monkeypatch.delitem(sys.modules, 'classifier.training.torch_step', raising=False)
    monkeypatch.delattr('classifier.training.torch_step', raising=False)
    assert run(patch_file, tmp_path, '--framework', 'pytorch') == 2
    assert error_line(capsys).endswith('pip install torch')


def test_a_step_in_pytorch_does_what_one_in_tensorflow_does(patch_file, monkeypatch, torch_step):
    monkeypatch.setattr(torch_step.torch, 'autocast',
                        lambda *_, **__: contextlib.nullcontext())  # float32
    backends = keras_step(batch_size=500), torch_step.TorchStep(TINY, 0)
    start = backends[0].state()
    file = PatchFile(patch_file, TINY)
    found = []
    for backend in backends:
        backend.restore(start, 0)
        rows, states = [], []
        for step, batch in enumerate(itertools.islice(file.batches(500, 0), 5)):
            backend.step(batch, 1e-3, ema_decay(step))
            rows.append(backend.take_sums())
            states.append(backend.state())
        found.append((np.array(rows), backend.validate(file, 500), states))
    (rows, valid, states), (other_rows, other_valid, other_states) = found
    np.testing.assert_allclose(other_rows, rows, rtol=1e-3)
    np.testing.assert_allclose(other_valid, valid, rtol=1e-3)
    moments = len(backends[0].weights()) * 2
    for arrays, others, share in ((states[0][moments:], other_states[0][moments:], 0.02),
                                  (states[4][:moments], other_states[4][:moments], 0.01)):
        flat, other = (np.concatenate([np.ravel(a) for a in part]) for part in (arrays, others))
        # Not the same: a ReLU may open or not.
        assert np.linalg.norm(other - flat) < share * np.linalg.norm(flat)


def test_either_framework_resumes_the_others_training(patch_file, tmp_path, torch_step):
    more = ('--epochs', '3', '--steps_per_epoch', '4', '--seed', '2')
    assert run(patch_file, tmp_path / 'one', *more) == 0
    assert run(patch_file, tmp_path / 'both', *more, '--until_epoch', '1') == 0
    assert run(patch_file, tmp_path / 'both', '--until_epoch', '2', '--resume',
               '--framework', 'pytorch') == 0
    assert run(patch_file, tmp_path / 'both', '--resume') == 0
    one, both = history(tmp_path / 'one'), history(tmp_path / 'both')
    for key in ('step', 'learning_rate'):
        assert [row[key] for row in one] == [row[key] for row in both]
    for key in ('loss', 'val_loss'):
        assert [row[key] for row in one] == pytest.approx([row[key] for row in both], rel=0.03)


def test_a_state_goes_through_either_framework_unchanged(torch_step):
    rng = np.random.default_rng(0)
    for backend in (keras_step(), torch_step.TorchStep(TINY, 0)):
        state = [rng.random(a.shape, np.float32) for a in backend.state()]
        backend.restore(state, 7)
        assert_same(backend.state(), state)
        assert_same(backend.weights(), state[len(backend.weights()):2 * len(backend.weights())])


@pytest.mark.long
def test_a_compiled_step_trains(patch_file, tmp_path):
    pytest.importorskip('torch')
    assert run(patch_file, tmp_path, '--framework', 'pytorch', '--epochs', '2', '--lr', '1e-2',
               '--steps_per_epoch', '10') == 0
    first, second = history(tmp_path)
    assert second['val_loss'] < first['val_loss']


# ---------------------------------------------------------------- photos

def assert_crops_of_compressed_photos(x, y, paths, most):
    """Each crop is in a photo compressed at its quality, at most so many not; all mirrorings."""
    found = set()
    for crop, quality in zip(x, y):
        for path, (up, across) in itertools.product(paths, itertools.product((1, -1), repeat=2)):
            coded = images.compress(images.read_image(path), int(quality))
            windows = np.lib.stride_tricks.sliding_window_view(coded, (16, 16), axis=(0, 1))
            wanted = crop[::up, ::across].transpose(2, 0, 1)
            if (windows == wanted).all(axis=(2, 3, 4)).any():
                found.add((path.name, up, across))
                break
        else:
            most -= 1
            assert most >= 0, 'a crop that is in no compressed photo'
    assert len(found) == 4 * len(paths)


def test_photos_in_memory_give_crops_of_the_compressed_images(torch_step, small_photos):
    x, y = (tensor.numpy() for tensor in CodedPhotos(small_photos, TINY).draw(100))
    assert x.shape == (100, 16, 16, 3) and x.dtype == np.uint8
    assert 1 <= y.min() < 10 and 90 < y.max() <= 100
    assert_crops_of_compressed_photos(x, y, sorted(small_photos.iterdir()), 0)


def half_flat(folder):
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:] = np.random.default_rng(1).integers(0, 256, (64, 64, 3))
    cv2.imwrite(str(folder / 'half.png'), image)
    return folder


def test_flat_crops_are_drawn_again(torch_step, tmp_path):
    folder = half_flat(tmp_path)
    x, _ = CodedPhotos(folder, TINY, chroma='mixed').draw(2000)
    assert (x == x[:, :1, :1]).flatten(1).all(1).float().mean() < 0.12  # drawn once: 0.4
    source = PhotoSource(folder, 16, chroma='mixed')
    x, _ = source.draw(1000, np.random.default_rng(0))
    assert (x == x[:, :1, :1]).all(axis=(1, 2, 3)).mean() < 0.12
    source.augment = False
    x, _ = source.draw(1000, np.random.default_rng(0))
    assert (x == x[:, :1, :1]).all(axis=(1, 2, 3)).mean() > 0.25


def test_photos_are_compressed_when_drawn_at_any_phase_and_mirrored(tmp_path):
    """Of a photo of smooth colour ramps, a crop's blocks tell their phase."""
    rows, cols = np.mgrid[:256, :256]
    cv2.imwrite(str(tmp_path / 'ramp.png'), np.stack([rows, cols, (rows + cols) // 2], -1))
    source = PhotoSource(tmp_path, 16)
    x, y = source.draw(2000, np.random.default_rng(3))
    assert x.shape == (2000, 16, 16, 3) and set(y) == set(range(1, 101))
    ramps = x[y > 90].astype(int).mean(axis=3)
    for axis in (1, 2):  # mirrored in half of the cases
        rising = np.take(ramps, 15, axis).mean(1) > np.take(ramps, 0, axis).mean(1)
        assert 0.4 < rising.mean() < 0.6
    coarse = x[y < 8, :, :, 1].astype(int)  # steps between blocks
    steps = np.abs(np.diff(coarse.mean(axis=1), axis=1)).argmax(axis=1) % 8
    assert len(set(steps)) == 8
    plain = PhotoSource(tmp_path, 16, augment=False).draw(300, np.random.default_rng(3))[0]
    assert (plain[:, :, -1].astype(int).sum() > plain[:, :, 0].astype(int).sum())


def test_batches_of_photos_depend_on_seed_and_step_alone(small_photos):
    source = PhotoSource(small_photos, 16, chroma='mixed')
    with contextlib.closing(source.batches(20, seed=3)) as batches, \
            contextlib.closing(source.batches(20, seed=3, step=2)) as later:
        whole = list(itertools.islice(batches, 5))
        for (x1, y1), (x2, y2) in zip(whole[2:], later):
            assert (x1 == x2).all() and (y1 == y2).all()
    assert not (whole[0][0] == whole[1][0]).all()
    fixed = source.fixed(50)
    parts = list(fixed.in_order(20))
    assert [len(y) for _, y in parts] == [20, 20, 10] and len(fixed) == 50
    assert_same(parts[0], [part[:20] for part in source.draw(50, np.random.default_rng(0))])


@pytest.mark.parametrize('framework', ['tensorflow', 'pytorch'])
def test_training_on_photos_resumes(small_photos, tmp_path, monkeypatch, request, framework):
    if framework == 'pytorch':
        request.getfixturevalue('torch_step')
    monkeypatch.setattr(train, 'VALIDATION_PATCHES', 1000)
    monkeypatch.setattr(train, 'DEVICE_VALIDATION_PATCHES', 1000)
    more = ('--framework', framework)
    assert run_photos(small_photos, tmp_path, *more, '--epochs', '3', '--steps_per_epoch', '5',
                      '--lr', '1e-2', '--until_epoch', '2') == 0
    assert run_photos(small_photos, tmp_path, *more, '--resume') == 0
    rows = history(tmp_path)
    assert [row['patches'] for row in rows] == [1000, 2000, 3000]
    assert rows[-1]['val_loss'] < rows[0]['val_loss'] and rows[-1]['learning_rate'] == 0
    assert json.loads((tmp_path / 'out' / 'run.json').read_text())['chroma'] == 'mixed'


def test_pytorch_needs_no_tensorflow_which_finishes_its_weights(
        small_photos, patch_file, tmp_path, torch_step, monkeypatch):
    monkeypatch.setattr(train, 'DEVICE_VALIDATION_PATCHES', 1000)
    with monkeypatch.context() as patch:
        for name in ('tensorflow', 'tf_keras'):
            patch.setitem(sys.modules, name, None)
        assert run_photos(small_photos, tmp_path, '--framework', 'pytorch', '--epochs', '1',
                          '--steps_per_epoch', '5') == 0
        assert run_photos(small_photos, tmp_path, '--framework', 'pytorch', '--resume') == 0
    best = tmp_path / 'out' / 'best'
    assert sorted(p.name for p in best.iterdir()) == [VAL_LOSS_FILE, WEIGHTS_FILE]
    backend = torch_step.TorchStep(TINY, 0)
    backend.start(load_weights(TINY, best))
    assert run(patch_file, tmp_path / 'last', '--epochs', '0', '--base_weights', str(best)) == 0
    finished = tmp_path / 'last' / 'out' / 'best'
    assert float((finished / VAL_LOSS_FILE).read_text()) == pytest.approx(
        backend.validate(PatchFile(patch_file, TINY), 500)[0], rel=1e-3)
    assert_same(load_network(TINY, finished).get_weights(), load_weights(TINY, best))


def test_photos_in_memory_train_on_from_the_very_state(torch_step, small_photos):
    photos = CodedPhotos(small_photos, TINY, chroma='mixed')
    first, second = (torch_step.TorchStep(TINY, seed) for seed in (0, 1))
    batches = photos.batches(100, 0)
    for _ in range(3):
        first.step(next(batches), 1e-2, 0.5)
    second.restore(first.state(), 3)
    for backend in (first, second):
        backend.step(next(photos.batches(100, 5, 3)), 1e-2, 0.5)
    assert_same(first.state(), second.state())


def test_nothing_in_a_step_on_the_device_comes_from_the_cpu(torch_step, small_photos, monkeypatch):
    """Or else a CUDA graph could not be recorded, or would replay old numbers.

    The device is PyTorch's `meta`, which any machine has: it knows shapes, and no values.
    """
    torch = torch_step.torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from_cpu = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            from_cpu.extend(operation for value in tree_leaves((args, kwargs, result))
                            if isinstance(value, torch.Tensor) and value.device.type == 'cpu')
            return result

    class Adam:  # whose fused step is not for `meta`
        def __init__(self, *_, **__):
            self.state = {}

        def step(self):
            pass
        zero_grad = step

    photos = CodedPhotos(small_photos, TINY)
    photos.device = 'meta'
    photos.pixels, photos.starts, photos.sides = (
        tensor.to('meta') for tensor in (photos.pixels, photos.starts, photos.sides))
    monkeypatch.setattr(torch_step, 'DEVICE', 'meta')
    monkeypatch.setattr(torch.optim, 'Adam', Adam)
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: contextlib.nullcontext())
    backend = torch_step.TorchStep(TINY, 0)
    with Watch():
        backend._step(lambda: photos.draw(64))
        assert not from_cpu
        torch.tensor([1.0]).to('meta')
    assert from_cpu


def test_too_little_memory_for_the_photos_is_one_line(torch_step, small_photos, tmp_path, capsys,
                                                      monkeypatch):
    monkeypatch.setattr(photo_source, '_free_memory', lambda _: 10 ** 6)
    assert run_photos(small_photos, tmp_path, '--framework', 'pytorch') == 2
    assert 'use fewer or smaller photos' in error_line(capsys)
    assert not (tmp_path / 'out').exists()


def test_patches_to_validate_on_stay_the_same():
    fixed = FixedPatches(np.arange(5), np.arange(5))
    assert [list(x) for x, _ in fixed.in_order(2)] == [[0, 1], [2, 3], [4]]
