"""The weights that a training starts from, its best ones, and installing them."""
from functools import partial

import numpy as np

from classifier import checkpoints, files, models, train
from classifier.checkpoints import (CHECKPOINT_FILES, LIKELIHOOD_FILE, MODEL_FILE, THRESHOLD_FILE,
                                    VAL_LOSS_FILE, load_network, load_weights, weights_digest)
from classifier.models import build_network
from classifier.training import best_weights
from classifier.training.best_weights import BestWeights, load_base, save_weights
from conftest import TINY, TINY_WEIGHTS
from small_training import (SMALL, assert_same, error_line, history, run,  # noqa: F401
                            small_types, weights)


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


def best_of(folder):
    best = BestWeights(folder / 'best', partial(load_weights, TINY), partial(save_weights, TINY))
    best.measure(lambda _: 5.0)
    return best


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
    for module in (best_weights, files):
        monkeypatch.setattr(module, 'sync_folder',
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
    np.savez(folder / LIKELIHOOD_FILE, log_likelihood=np.zeros((101, 17, 101), np.float32))


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
