"""Training: it learns, keeps the best, stops, and resumes where it was."""
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

import images
import train
from conftest import CLASSIFIER, TINY, TINY_WEIGHTS
from models import (COMP_TYPES, MODEL_FILE, THRESHOLD_FILE, VAL_LOSS_FILE, CompType, best_folder,
                    build_network, load_network, load_weights)
from patches import PatchFile

SMALL = CompType('small', k=4, threshold=90)


@pytest.fixture(autouse=True)
def small_types(monkeypatch):
    """Networks that train in seconds, as more compression types."""
    monkeypatch.setitem(COMP_TYPES, 'tiny', TINY)
    monkeypatch.setitem(COMP_TYPES, 'small', SMALL)


def run(patch_file, folder, *more, comp_type='tiny'):
    return train.main(['--hdf5_train_path', str(patch_file), '--hdf5_val_path', str(patch_file),
                       '--comp_type', comp_type, '--out_path', str(folder / 'out'),
                       '--save_path', str(folder / 'save'), '--batch_size', '100', *more])


def history(folder):
    with (folder / 'out' / 'history_cls.csv').open(newline='') as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def best_weights(folder):
    return train.BestWeights(best_folder(TINY, folder), partial(load_network, TINY))


def test_training_lowers_the_loss_and_keeps_the_best_weights(patch_file, tmp_path):
    """Very low and very high qualities are told apart after a few steps."""
    with h5py.File(patch_file) as whole, h5py.File(tmp_path / 'easy.h5', 'w') as easy:
        kept = np.flatnonzero((whole['y_quality'][:] <= 8) | (whole['y_quality'][:] > 92))
        for name in whole:
            easy[name] = whole[name][kept]
    patch_file = tmp_path / 'easy.h5'
    assert run(patch_file, tmp_path, '--epochs', '4', '--lr', '5e-3', '--steps_per_epoch', '20',
               comp_type='small') == 0
    rows = history(tmp_path)
    assert [row['step'] for row in rows] == [20, 40, 60, 80]
    assert rows[-1]['loss'] < 0.9 * rows[0]['loss']
    assert rows[-1]['quality_mae'] < 38  # one answer for all patches is 45 off
    best = tmp_path / 'save' / 'small' / 'best'
    lowest = min(row['val_loss'] for row in rows)
    assert float((best / VAL_LOSS_FILE).read_text()) == pytest.approx(lowest, abs=1e-3)
    again, _ = train.validator(load_network(SMALL, best))(PatchFile(patch_file, SMALL), 100)
    assert again == pytest.approx(lowest, rel=1e-4)
    assert (tmp_path / 'out' / 'history_cls.png').read_bytes().startswith(b'\x89PNG')


def test_the_learning_rate_warms_up_and_falls_to_zero():
    trainer = train.patch_trainer(TINY, train.SCHEDULE | {'epochs': 10, 'steps_per_epoch': 100})
    rates = [float(trainer.rate(step)) for step in range(1001)]
    assert rates[0] == pytest.approx(2e-5) and np.argmax(rates) == 100
    assert max(rates) == pytest.approx(2e-3) and rates[-1] == pytest.approx(0, abs=1e-9)
    assert (np.diff(rates[:101]) > 0).all() and (np.diff(rates[100:]) < 0).all()


def test_slices_of_a_schedule_equal_one_run(patch_file, tmp_path):
    more = ('--epochs', '3', '--steps_per_epoch', '7', '--seed', '4')
    assert run(patch_file, tmp_path / 'whole', *more) == 0
    assert run(patch_file, tmp_path / 'slices', *more, '--until_epoch', '1') == 0
    assert [row['step'] for row in history(tmp_path / 'slices')] == [7]
    assert run(patch_file, tmp_path / 'slices', '--resume') == 0
    whole, slices = history(tmp_path / 'whole'), history(tmp_path / 'slices')
    for key in ('epoch', 'step', 'patches', 'learning_rate'):
        assert [row[key] for row in whole] == [row[key] for row in slices]
    for key in ('loss', 'val_loss'):  # sums in another order, on several threads
        assert [row[key] for row in whole] == pytest.approx([row[key] for row in slices], rel=1e-3)


@pytest.mark.parametrize('how', ['signal', 'file'])
def test_it_stops_cleanly_and_resumes_at_the_same_step(patch_file, tmp_path, monkeypatch, how):
    seen = []

    class Stopping(train.Progress):
        def update(self, done, note=''):
            seen.append(done)
            if done == 10 and how == 'signal':
                os.kill(os.getpid(), signal.SIGINT)
            elif done == 10:
                (tmp_path / 'out' / 'stop_training').touch()

    monkeypatch.setattr(train, 'Progress', Stopping)
    assert run(patch_file, tmp_path, '--epochs', '1') == 130
    assert seen[-1] == 10
    assert run(patch_file, tmp_path, '--resume') == 0
    assert seen == list(range(1, 31))
    assert not (tmp_path / 'out' / 'stop_training').exists()


def test_the_best_weights_are_only_replaced_by_better_ones(tmp_path):
    best = best_weights(tmp_path)
    first, second = build_network(TINY), build_network(TINY)
    assert best.offer(first, 5.0)
    (best.folder / THRESHOLD_FILE).write_text('91\n')
    (best.folder / MODEL_FILE).write_text('exported from the first')
    assert not best.offer(second, 6.0) and not best.offer(second, float('nan'))
    kept = load_network(TINY, best.folder).get_weights()
    assert all((a == b).all() for a, b in zip(kept, first.get_weights()))
    assert best.offer(second, 4.0)
    kept = load_network(TINY, best.folder).get_weights()
    assert all((a == b).all() for a, b in zip(kept, second.get_weights()))
    assert (best.folder / THRESHOLD_FILE).read_text() == '91\n'
    assert not (best.folder / MODEL_FILE).exists()
    assert sorted(p.name for p in best.folder.parent.iterdir()) == ['best']


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    best = best_weights(tmp_path)
    best.offer(build_network(TINY), 5.0)
    best.folder.rename(best.old)
    assert (best_weights(tmp_path).folder / '.index').exists()


def test_base_weights_are_validated_and_accepted(patch_file, tmp_path, capsys):
    assert run(patch_file, tmp_path, '--epochs', '0', '--base_weights', str(TINY_WEIGHTS)) == 0
    assert 'validation loss' in capsys.readouterr().out
    kept = load_network(TINY, tmp_path / 'save' / 'tiny' / 'best').get_weights()
    base = load_network(TINY, TINY_WEIGHTS).get_weights()
    assert all((a == b).all() for a, b in zip(kept, base))


def test_a_loss_that_is_no_number_stops_at_once(patch_file, tmp_path, monkeypatch, capsys):
    def broken(quality, output):
        loss, error = confidence_loss(quality, output)
        return loss * float('nan'), error

    confidence_loss = train.confidence_loss
    assert run(patch_file, tmp_path, '--epochs', '1') == 0
    monkeypatch.setattr(train, 'confidence_loss', broken)
    (tmp_path / 'out' / 'run.json').unlink()
    assert run(patch_file, tmp_path, '--epochs', '1') == 2
    assert 'no finite number at step 1' in capsys.readouterr().err
    assert load_network(TINY, tmp_path / 'save' / 'tiny' / 'best')


def test_a_second_training_does_not_overwrite_the_first(patch_file, tmp_path, capsys):
    assert run(patch_file, tmp_path, '--resume') == 2
    assert 'nothing to resume' in capsys.readouterr().err
    assert run(patch_file, tmp_path, '--epochs', '1') == 0
    assert run(patch_file, tmp_path, '--epochs', '1') == 2
    assert 'another training' in capsys.readouterr().err
    assert run(patch_file, tmp_path, '--resume', '--lr', '0.5') == 2
    assert 'started with lr 0.002, not 0.5' in capsys.readouterr().err
    assert json.loads((tmp_path / 'out' / 'run.json').read_text())['epochs'] == 1


def test_a_state_that_cannot_be_written_is_one_line(patch_file, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'state').write_text('in the way')
    assert run(patch_file, tmp_path, '--epochs', '1') == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and 'state' in error[0]


def test_a_damaged_state_is_named(patch_file, tmp_path, capsys):
    assert run(patch_file, tmp_path, '--epochs', '1', '--steps_per_epoch', '1') == 0
    for path in (tmp_path / 'out' / 'state').glob('*.data*'):
        path.write_bytes(path.read_bytes()[:100])
    assert run(patch_file, tmp_path, '--resume') == 2
    assert 'damaged checkpoint' in capsys.readouterr().err


@pytest.mark.parametrize('damage', ['epoch,step\n1,1\n', 'text', '\x00', None])
def test_a_damaged_history_is_named(patch_file, tmp_path, capsys, damage):
    assert run(patch_file, tmp_path, '--epochs', '2', '--steps_per_epoch', '1',
               '--until_epoch', '1') == 0
    path = tmp_path / 'out' / 'history_cls.csv'
    path.write_text(path.read_text()[:-30] if damage is None else f'{damage}\n1,2\n')
    capsys.readouterr()
    assert run(patch_file, tmp_path, '--resume') == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and 'history_cls.csv: damaged' in error[0]


def test_the_largest_seed_trains_and_larger_ones_are_a_usage_error(patch_file, tmp_path, capsys):
    assert run(patch_file, tmp_path, '--epochs', '1', '--steps_per_epoch', '1',
               '--seed', str(2 ** 32 - 1)) == 0
    with pytest.raises(SystemExit, match='2'):
        run(patch_file, tmp_path, '--seed', str(2 ** 64))
    assert 'whole number from 0 to 4294967295' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['out', 'save', 'out/history_cls.csv', 'out/history_cls.png'])
def test_what_cannot_be_written_is_named_before_the_work(
        patch_file, tmp_path, monkeypatch, capsys, name):
    if '/' in name:
        (tmp_path / name).mkdir(parents=True)
    else:
        (tmp_path / name).touch()
    monkeypatch.setattr(train, 'train', None)
    assert run(patch_file, tmp_path, '--epochs', '1') == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and str(tmp_path / name) in error[0]


def test_a_widened_network_answers_as_the_narrower_one(patch_file, tmp_path, capsys):
    random = build_network(SMALL, 0).get_weights()
    trainer = train.patch_trainer(SMALL, train.SCHEDULE | {'epochs': 1, 'steps_per_epoch': 1},
                                  TINY_WEIGHTS, base_type=TINY)
    x = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3)).astype(np.float32)
    narrow = load_network(TINY, TINY_WEIGHTS)
    np.testing.assert_allclose(trainer.network(x), narrow(x), atol=1e-3)
    kernel = trainer.network.get_weights()[5]  # of the first 1x1 convolution
    assert (kernel[..., 1:] == random[5][..., 1:]).all() and not kernel[..., 1:, :1].any()

    assert run(patch_file, tmp_path, '--epochs', '1', '--base_weights', str(TINY_WEIGHTS),
               '--base_type', 'tiny', comp_type='small') == 0
    rows = history(tmp_path)
    assert rows[-1]['val_loss'] < float(capsys.readouterr().out.split('loss ')[1].split(',')[0])
    last = load_network(SMALL, tmp_path / 'save' / 'small' / 'best').get_weights()[-2]
    assert abs(last[1:]).min() > 0  # the new channels have a say now


def test_only_a_narrower_network_is_widened(patch_file, tmp_path, capsys):
    assert run(patch_file, tmp_path, '--base_weights', str(TINY_WEIGHTS),
               '--base_type', 'small') == 2
    assert 'small is wider than tiny' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='2'):
        run(patch_file, tmp_path, '--base_type', 'tiny')


# ---------------------------------------------------------------- PyTorch

def test_without_pytorch_its_name_is_one_line(patch_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'torch', None)
    monkeypatch.delitem(sys.modules, 'torch_port', raising=False)
    assert run(patch_file, tmp_path, '--framework', 'pytorch') == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and 'pip install torch' in error[0]
    with pytest.raises(SystemExit, match='2'):
        run(patch_file, tmp_path, '--framework', 'pytorch', '--strategy', 'mirrored')


def test_a_step_in_pytorch_does_what_one_in_tensorflow_does(patch_file, monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.setattr(torch, 'autocast', lambda *_: contextlib.nullcontext())  # float32
    schedule = train.SCHEDULE | {'epochs': 10, 'steps_per_epoch': 10, 'batch_size': 500}
    trainers = {name: train.patch_trainer(TINY, schedule, TINY_WEIGHTS, framework=name)
                for name in ('tensorflow', 'pytorch')}
    file = PatchFile(patch_file, TINY)
    for trainer in trainers.values():
        rows, gradients = [], []
        for x, y in train.training_batches(file, 500, 0, 0).take(5):
            rows.append(trainer.step(x, y))
            trainer.valid = trainer.validate(file, 500)
            gradients.append(np.concatenate([np.ravel(m) for m in trainer.optimizer._momentums]))
        trainer.rows, trainer.gradients = np.array(rows), gradients[0]
    ours, port = trainers.values()
    assert port.steps_done == ours.steps_done == 5
    np.testing.assert_allclose(port.rows, ours.rows, rtol=1e-3)
    np.testing.assert_allclose(port.valid, ours.valid, rtol=1e-3)
    difference = np.linalg.norm(port.gradients - ours.gradients)
    assert difference < 0.02 * np.linalg.norm(ours.gradients)  # a ReLU may open or not


def test_what_pytorch_began_tensorflow_goes_on_with_and_back(patch_file, tmp_path):
    pytest.importorskip('torch')
    more = ('--epochs', '3', '--steps_per_epoch', '4', '--seed', '2')
    assert run(patch_file, tmp_path / 'one', *more) == 0
    assert run(patch_file, tmp_path / 'both', *more, '--until_epoch', '1',
               '--framework', 'pytorch') == 0
    assert run(patch_file, tmp_path / 'both', '--until_epoch', '2', '--resume') == 0
    assert run(patch_file, tmp_path / 'both', '--resume', '--framework', 'pytorch') == 0
    one, both = history(tmp_path / 'one'), history(tmp_path / 'both')
    for key in ('step', 'learning_rate'):
        assert [row[key] for row in one] == [row[key] for row in both]
    for key in ('loss', 'val_loss'):
        assert [row[key] for row in one] == pytest.approx([row[key] for row in both], rel=0.03)


# ---------------------------------------------------------------- on one GPU, from photos

@pytest.fixture
def train_gpu():
    pytest.importorskip('torch')
    import train_gpu
    return train_gpu


@pytest.fixture
def small_photos(photo, tmp_path):
    """Two photos that are coded fast, in a folder."""
    folder = tmp_path / 'small_photos'
    folder.mkdir()
    for name, part in (('a', photo[:80, :120]), ('b', photo[100:164, 200:300])):
        cv2.imwrite(str(folder / f'{name}.png'), part)
    return folder


def run_port(train_gpu, photos, folder, *more):
    return train_gpu.main(['--in_path', str(photos), '--val_path', str(photos),
                            '--comp_type', 'tiny', '--out_path', str(folder / 'out'),
                            '--batch_size', '200', *more])


def test_photos_in_memory_give_crops_of_the_compressed_images(train_gpu, small_photos):
    paths = sorted(small_photos.iterdir())
    photos = train_gpu.CodedPhotos(paths, TINY, '4:2:0', 0, 'cpu')
    x, y = (tensor.numpy() for tensor in photos.draw(300))
    assert x.shape == (300, 16, 16, 3) and x.dtype == np.uint8
    assert 1 <= y.min() < 10 and 90 < y.max() <= 100
    mirrored = set()
    for crop, quality in zip(x, y):
        for path in paths:
            coded = images.compress(images.read_image(path), int(quality))
            windows = np.lib.stride_tricks.sliding_window_view(coded, (16, 16), axis=(0, 1))
            for up, across in itertools.product((1, -1), repeat=2):
                wanted = crop[::up, ::across].transpose(2, 0, 1)
                if (windows == wanted).all(axis=(2, 3, 4)).any():
                    mirrored.add((path.name, up, across))
                    break
            else:
                continue
            break
        else:
            pytest.fail('a crop that is in no compressed photo')
    assert len(mirrored) == 8


def test_photos_in_memory_are_drawn_again_where_flat(train_gpu, tmp_path):
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:] = np.random.default_rng(1).integers(0, 256, (64, 64, 3))
    cv2.imwrite(str(tmp_path / 'half.png'), image)
    x, _ = train_gpu.CodedPhotos([tmp_path / 'half.png'], TINY, 'mixed', 0, 'cpu').draw(2000)
    assert (x == x[:, :1, :1]).flatten(1).all(1).float().mean() < 0.12  # drawn once: 0.4


def test_the_port_trains_is_resumed_and_train_finishes_it(
        train_gpu, small_photos, patch_file, tmp_path, capsys):
    more = ('--epochs', '3', '--steps_per_epoch', '5', '--lr', '1e-2')
    assert run_port(train_gpu, small_photos, tmp_path, *more, '--until_epoch', '2') == 0
    assert run_port(train_gpu, small_photos, tmp_path, '--resume') == 0
    rows = history(tmp_path)
    assert [row['patches'] for row in rows] == [1000, 2000, 3000]
    assert rows[-1]['val_loss'] < rows[0]['val_loss'] and rows[-1]['learning_rate'] == 0
    weights = tmp_path / 'out' / 'weights.npz'
    capsys.readouterr()
    assert run(patch_file, tmp_path / 'last', '--epochs', '0', '--base_weights', str(weights)) == 0
    finished = float((tmp_path / 'last' / 'save' / 'tiny' / 'best' / VAL_LOSS_FILE).read_text())
    port = train_gpu.PatchNetwork(1).eval()
    train_gpu.copy_from_keras(port.weights(), load_weights(TINY, weights))
    sums = sum(len(y) * np.array([v.item() for v in train_gpu.losses(
        port(train_gpu.torch.tensor(x).permute(0, 3, 1, 2).float()), train_gpu.torch.tensor(y))])
        for x, y in PatchFile(patch_file, TINY).in_order(500))
    assert finished == pytest.approx(sums[0] / 3000, rel=1e-3)


def test_the_port_goes_on_from_the_very_state(train_gpu, small_photos, tmp_path):
    photos = train_gpu.CodedPhotos(sorted(small_photos.iterdir()), TINY, 'mixed', 0, 'cpu')
    first, second = (train_gpu.PhotoTraining(1, photos, 100, seed) for seed in (0, 1))
    for _ in range(3):
        first.step(1e-2)
    second.restore(first.state(), 3)
    for training in (first, second):
        train_gpu.torch.manual_seed(5)
        training.step(1e-2)
    for one, other in zip(first.state(), second.state()):
        np.testing.assert_array_equal(one, other)


def test_the_ports_learning_rate_is_that_of_train(train_gpu):
    schedule = train.SCHEDULE | {'epochs': 4, 'steps_per_epoch': 50, 'warmup_steps': 10}
    rate = train.patch_trainer(TINY, schedule).rate
    assert [train_gpu.learning_rate(step, schedule) for step in range(200)] == pytest.approx(
        [float(rate(step)) for step in range(200)], rel=1e-4, abs=1e-9)


def test_what_the_port_cannot_use_is_one_line(train_gpu, small_photos, tmp_path, capsys,
                                              monkeypatch):
    def error(*more):
        assert run_port(train_gpu, small_photos, tmp_path, *more) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert 'nothing to resume' in error('--resume')
    assert 'no such file' in error('--base_weights', str(tmp_path / 'no.npz'))
    for content, reason in (b'PK', 'damaged'), (None, 'not of tiny'):
        bad = tmp_path / 'bad.npz'
        bad.write_bytes(content) if content else np.savez(bad, np.zeros(3))
        assert str(bad) in (line := error('--base_weights', str(bad))) and reason in line
    monkeypatch.setattr(train_gpu, 'memory', lambda _: 10 ** 6)
    assert 'use fewer or smaller photos' in error()
    monkeypatch.undo()
    monkeypatch.setitem(COMP_TYPES, 'tiny', TINY)
    assert run_port(train_gpu, small_photos, tmp_path, '--epochs', '1', '--steps_per_epoch',
                    '1') == 0
    np.savez(tmp_path / 'out' / 'state.npz', 1, np.zeros(3))
    assert 'not the state of this training' in error('--resume')


def test_the_port_without_pytorch_is_one_line(tmp_path):
    code = f"""
import runpy, sys; sys.modules['torch'] = None; sys.path.insert(0, {str(CLASSIFIER)!r})
runpy.run_path({str(CLASSIFIER / 'train_gpu.py')!r}, run_name='__main__')"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        'train_gpu.py: error: this needs PyTorch: pip install torch']
