"""Weights on the disk: checkpoints of the reference, damage, threshold and likelihood."""
import numpy as np
import pytest

from classifier import checkpoints
from classifier.checkpoints import load_network, load_weights, refuse_shipped
from classifier.errors import InputError
from classifier.models import COMP_TYPES, build_network
from conftest import REPOSITORY, TINY, TINY_WEIGHTS

PAPER = COMP_TYPES['jpeg_paper']
REFERENCE = REPOSITORY / 'tests' / 'data' / 'jpeg_paper_random'


def test_a_checkpoint_of_the_reference_gives_the_reference_s_outputs():
    """The reference network wrote it, with random weights, and the outputs beside it."""
    stored = np.load(REFERENCE / 'io.npz')
    output = load_network(PAPER, REFERENCE)(stored['x'].astype(np.float32)).numpy()
    assert np.abs(output - stored['y']).max() < 1e-3
    assert stored['y'].std(axis=0).min() > 1e-3  # the outputs do depend on the patch


def test_a_damaged_likelihood_file_is_named(tmp_path):
    path = tmp_path / checkpoints.LIKELIHOOD_FILE
    assert checkpoints.stored_likelihood(tmp_path) is None
    with pytest.raises(InputError, match='likelihood.npz: missing'):
        checkpoints.stored_likelihood(tmp_path, required=True)
    for damaged in (b'', b'PK\x03\x04 no zip', b'\x80\x04.'):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match='likelihood.npz: missing or damaged'):
            checkpoints.stored_likelihood(tmp_path)
    for shape in ((101, 2, 101), (100, 17, 101)):  # the second without never compressed
        np.savez(path, log_likelihood=np.zeros(shape))
        with pytest.raises(InputError, match='likelihood.npz: missing or damaged'):
            checkpoints.stored_likelihood(tmp_path)
    np.savez(path, log_likelihood=np.zeros((101, 17, 101)))
    assert checkpoints.stored_likelihood(tmp_path).shape == (101, 17, 101)


def test_a_checkpoint_and_its_outputs_agree():
    """tests/data/tiny was written by this project's network with K = 1 and random weights,
    BN statistics included: `python3 tests/make_tiny.py`."""
    stored = np.load(TINY_WEIGHTS / 'io.npz')
    output = load_network(TINY, TINY_WEIGHTS)(stored['x'].astype(np.float32)).numpy()
    assert np.abs(output - stored['y']).max() < 1e-3
    assert output.std(axis=0).min() > 1e-2  # the outputs do depend on the patch


def test_the_tensors_are_stored_under_the_reference_s_names():
    import tensorflow as tf
    reader = tf.compat.v1.train.NewCheckpointReader(str(TINY_WEIGHTS) + '/')
    names = reader.get_variable_to_shape_map()
    weighted = {n.split('/')[0] for n in names if n.startswith('layer_with_weights')}
    # 6 stages of 4 convolutions and 4 normalisations, one convolution, one dense layer
    assert weighted == {f'layer_with_weights-{i}' for i in range(50)}
    assert names['layer_with_weights-48/kernel/.ATTRIBUTES/VARIABLE_VALUE'] == [3, 3, 2, 1]
    assert names['layer_with_weights-49/kernel/.ATTRIBUTES/VARIABLE_VALUE'] == [1, 2]


def tiny_copy(folder):
    for path in TINY_WEIGHTS.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_weights_that_are_missing_are_named(tmp_path):
    with pytest.raises(InputError, match='no weights there'):
        load_network(TINY, tmp_path)


@pytest.mark.parametrize('name', ['.index', '.data-00000-of-00001'])
def test_a_missing_part_of_the_weights_is_named(tmp_path, name):
    (tiny_copy(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=rf'no weights there \({name} is missing\)'):
        load_network(TINY, tmp_path)


def test_weights_of_another_type_are_named(monkeypatch):
    monkeypatch.setitem(COMP_TYPES, 'tiny', TINY)
    with pytest.raises(InputError, match='not of jpeg_paper; they fit --comp_type tiny'):
        load_network(PAPER, TINY_WEIGHTS)


def test_a_git_lfs_pointer_is_no_weights(tmp_path):
    tiny_copy(tmp_path)
    (tmp_path / '.data-00000-of-00001').write_text('version https://git-lfs.github.com/spec/v1\n')
    with pytest.raises(InputError, match='Git LFS pointer'):
        load_network(TINY, tmp_path)


@pytest.mark.parametrize('name', ['.index', '.data-00000-of-00001'])
def test_a_truncated_checkpoint_is_refused(tmp_path, name):
    path = tiny_copy(tmp_path) / name
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    with pytest.raises(InputError, match='damaged checkpoint'):
        load_network(TINY, tmp_path)


@pytest.mark.parametrize('name', ['.index', '.data-00000-of-00001'])
def test_a_checkpoint_mixed_from_two_is_refused(tmp_path, name):
    build_network(TINY, 1).save_weights(f'{tmp_path}/', save_format='tf')
    (tmp_path / name).write_bytes((TINY_WEIGHTS / name).read_bytes())
    with pytest.raises(InputError, match='damaged checkpoint'):
        load_network(TINY, tmp_path)


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    network = build_network(TINY)
    network.set_weights([np.full_like(w, np.nan) for w in network.get_weights()])
    network.save_weights(f'{tmp_path}/', save_format='tf')
    with pytest.raises(InputError, match='not finite'):
        load_network(TINY, tmp_path)


def test_the_threshold_beside_the_weights_counts(tmp_path):
    assert checkpoints.stored_threshold(PAPER, tmp_path) == 96
    (tmp_path / 'threshold.txt').write_text('93.5\n')
    assert checkpoints.stored_threshold(PAPER, tmp_path) == 93.5
    (tmp_path / 'threshold.txt').write_text('high\n')
    with pytest.raises(InputError, match='not a confidence threshold'):
        checkpoints.stored_threshold(PAPER, tmp_path)


def test_arrays_are_weights_too(tmp_path):
    network = load_network(TINY, TINY_WEIGHTS)
    np.savez(tmp_path / 'weights.npz', *network.get_weights())
    for path in (tmp_path, tmp_path / 'weights.npz'):
        for found in (load_weights(TINY, path), load_network(TINY, path).get_weights()):
            assert all((a == b).all() for a, b in zip(found, network.get_weights(), strict=True))
    with pytest.raises(InputError, match='not of jpeg_paper'):
        load_network(PAPER, tmp_path)
    np.savez(tmp_path / 'weights.npz', *(np.full_like(w, np.inf) for w in network.get_weights()))
    with pytest.raises(InputError, match='not finite'):
        load_weights(TINY, tmp_path)
    (tmp_path / 'weights.npz').write_bytes(b'PK')
    with pytest.raises(InputError, match='weights.npz: damaged'):
        load_weights(TINY, tmp_path / 'weights.npz')


def test_shipped_weights_are_not_written_to(tmp_path):
    refuse_shipped(tmp_path)
    for folder in (checkpoints.SAVE_FOLDER, checkpoints.best_folder(PAPER),
                   checkpoints.SAVE_FOLDER / 'new' / 'best'):
        with pytest.raises(InputError, match='holds the shipped weights'):
            refuse_shipped(folder)
    (tmp_path / 'link').symlink_to(checkpoints.SAVE_FOLDER)
    with pytest.raises(InputError, match='holds the shipped weights'):
        refuse_shipped(tmp_path / 'link' / 'x')
