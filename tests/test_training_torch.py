"""The backend in PyTorch: it trains as the one in Keras does, and on photos in its memory."""
import contextlib
import itertools
import sys
from functools import partialmethod

import numpy as np
import pytest

from classifier import images
from classifier.checkpoints import VAL_LOSS_FILE, WEIGHTS_FILE, load_network, load_weights
from classifier.patches import PatchFile
from classifier.training.schedule import ema_decay
from conftest import TINY
from small_training import (assert_same, coded_photos, error_line, half_flat,  # noqa: F401
                            history, keras_step, run, run_photos, small_photos, small_types,
                            torch_step)


def test_without_pytorch_its_name_is_one_line(patch_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'torch', None)
    for name in ('classifier.training.torch_step', 'classifier.training.coded_photos'):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(name, raising=False)
    assert run(patch_file, tmp_path, '--framework', 'pytorch') == 2
    assert error_line(capsys).endswith('pip install torch')


@pytest.mark.extras
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


@pytest.mark.extras
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


@pytest.mark.extras
def test_a_state_goes_through_either_framework_unchanged(torch_step):
    rng = np.random.default_rng(0)
    for backend in (keras_step(), torch_step.TorchStep(TINY, 0)):
        state = [rng.random(a.shape, np.float32) for a in backend.state()]
        backend.restore(state, 7)
        assert_same(backend.state(), state)
        assert_same(backend.weights(), state[len(backend.weights()):2 * len(backend.weights())])


@pytest.mark.extras
@pytest.mark.long
def test_a_compiled_step_trains(patch_file, tmp_path):
    pytest.importorskip('torch')
    assert run(patch_file, tmp_path, '--framework', 'pytorch', '--epochs', '2', '--lr', '1e-2',
               '--steps_per_epoch', '10') == 0
    first, second = history(tmp_path)
    assert second['val_loss'] < first['val_loss']


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


@pytest.mark.extras
def test_photos_in_memory_give_crops_of_the_compressed_images(coded_photos, small_photos):
    x, y = (tensor.numpy() for tensor in coded_photos.CodedPhotos(small_photos, 16).draw(100))
    assert x.shape == (100, 16, 16, 3) and x.dtype == np.uint8
    assert 1 <= y.min() < 10 and 90 < y.max() <= 100
    assert_crops_of_compressed_photos(x, y, sorted(small_photos.iterdir()), 0)


@pytest.mark.extras
def test_flat_crops_are_drawn_again(coded_photos, half_flat):
    x, _ = coded_photos.CodedPhotos(half_flat, 16, chroma='mixed').draw(2000)
    assert (x == x[:, :1, :1]).flatten(1).all(1).float().mean() < 0.12  # drawn once: 0.4


@pytest.mark.extras
def test_pytorch_needs_no_tensorflow_which_finishes_its_weights(
        small_photos, patch_file, tmp_path, torch_step, coded_photos, monkeypatch):
    photos = coded_photos.CodedPhotos
    monkeypatch.setattr(photos, 'fixed', partialmethod(photos.fixed, 1000))
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


@pytest.mark.extras
def test_photos_in_memory_train_on_from_the_very_state(torch_step, coded_photos, small_photos):
    photos = coded_photos.CodedPhotos(small_photos, 16, chroma='mixed')
    first, second = (torch_step.TorchStep(TINY, seed) for seed in (0, 1))
    batches = photos.batches(100, 0)
    for _ in range(3):
        first.step(next(batches), 1e-2, 0.5)
    second.restore(first.state(), 3)
    for backend in (first, second):
        backend.step(next(photos.batches(100, 5, 3)), 1e-2, 0.5)
    assert_same(first.state(), second.state())


@pytest.mark.extras
def test_photos_as_they_are_lie_behind_those_at_every_quality(coded_photos, small_photos):
    photos = coded_photos.CodedPhotos(small_photos, 16, uncompressed=1)
    x, y = (tensor.numpy() for tensor in photos.draw(60))
    assert (y == 100).all()
    paths = sorted(small_photos.iterdir())
    plain = [images.read_image(path) for path in paths]
    whole = [np.lib.stride_tricks.sliding_window_view(photo, (16, 16, 3))[:, :, 0]
             for photo in plain]
    for crop in x:
        assert any((windows == crop[::up, ::across]).all(axis=(2, 3, 4)).any()
                   for windows in whole for up in (1, -1) for across in (1, -1))


@pytest.mark.extras
def test_a_share_of_the_crops_on_the_device_is_uncompressed_and_of_all_a_share_edited(
        coded_photos, small_photos, monkeypatch):
    photos = coded_photos.CodedPhotos(small_photos, 16, edits=True, uncompressed=0.3)
    windows = []

    def draw(given, draw=photos.edits.draw):
        windows.append(given)
        return draw(given)
    monkeypatch.setattr(photos.edits, 'draw', draw)
    x, y = photos.draw(4000)
    assert x.shape == (4000, 16, 16, 3) and x.dtype == windows[0].dtype
    assert 0.27 < (y == 100).float().mean() < 0.35 and y.min() == 1 and y.max() == 100
    middles = windows[0][:, 24:40, 24:40]
    same = sum((x == middles.flip(axes)).flatten(1).all(1) for axes in ((), (1,), (2,), (1, 2))) > 0
    for kind in (y == 100, y < 100):
        assert 0.35 < same[kind].float().mean() < 0.45  # 1 - EDITED_SHARE


@pytest.mark.extras
@pytest.mark.parametrize('options', [{}, {'edits': True, 'uncompressed': 0.1}])
def test_nothing_in_a_step_on_the_device_comes_from_the_cpu(
        torch_step, coded_photos, small_photos, monkeypatch, options):
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

    photos = coded_photos.CodedPhotos(small_photos, 16, **options)
    photos.device = 'meta'
    if photos.edits:
        photos.edits = coded_photos.DeviceEdits(16, 'meta')
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


@pytest.mark.extras
def test_too_little_memory_for_the_photos_is_one_line(
        coded_photos, small_photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(coded_photos, '_free_memory', lambda: 10 ** 6)
    assert run_photos(small_photos, tmp_path, '--framework', 'pytorch') == 2
    assert 'use fewer or smaller photos' in error_line(capsys)
    assert not (tmp_path / 'out').exists()
