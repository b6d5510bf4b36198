"""The network up to its pooled features: from the checkpoint, and from a model file of its own."""
import shutil

import numpy as np
import pytest

from classifier import to_tflite
from classifier.checkpoints import FEATURES_FILE, MODEL_FILE, best_folder, load_network
from classifier.errors import InputError
from classifier.export import described, description_of
from classifier.images import compress
from classifier.models import COMP_TYPES
from classifier.predictor import Predictor
from classifier.runtime import CheckpointRunner, model_description
from conftest import TINY, TINY_WEIGHTS


def through_the_last_layer(features, network):
    """Confidence and quality of features, by the weights of the network's last layer."""
    *_, kernel, bias = network.get_weights()
    return 100 / (1 + np.exp(-(features @ kernel + bias)))


@pytest.mark.parametrize('name', ['jpeg_paper', 'jpeg_robust'])
def test_features_through_the_last_layer_are_the_network_s_answer(name, photo):
    comp_type, predictor = COMP_TYPES[name], Predictor(name)
    folder = best_folder(comp_type)
    coded = compress(photo, 60)
    features = predictor.features(coded)
    assert features.shape == (256, comp_type.k) and features.dtype == np.float32
    assert (features >= 0).all()
    expected = CheckpointRunner(comp_type, folder)(predictor.extract(coded))
    found = through_the_last_layer(features, load_network(comp_type, folder))
    assert np.abs(found - expected).max() < 1e-3


def test_features_need_an_image(tiny_type):
    with pytest.raises(InputError, match='an image must be a uint8 array'):
        Predictor('tiny', TINY_WEIGHTS).features(np.zeros((40, 40)))


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    """Model files of tests/data/tiny, without its checkpoint: of the answers and the features."""
    pytest.importorskip('ai_edge_litert', reason='LiteRT has no build for this machine')
    folder = tmp_path_factory.mktemp('features')
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMP_TYPES, 'tiny', TINY)
        for options in ([], ['--features']):
            assert to_tflite.main(['--comp_type', 'tiny', '--weights', str(TINY_WEIGHTS),
                                   '--out_path', str(folder), *options]) == 0
    return folder


@pytest.fixture
def folder(exports, tmp_path, tiny_type):
    """A copy of them to spoil."""
    return shutil.copytree(exports, tmp_path / 'exports')


def test_the_features_file_gives_the_checkpoint_s_features(folder, photo):
    assert model_description((folder / FEATURES_FILE).read_bytes())['features']
    found, expected = (Predictor('tiny', f).features(photo[:150]) for f in (folder, TINY_WEIGHTS))
    assert found.shape == expected.shape == (256, TINY.k)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-3) and expected.max() > 1


def test_features_of_other_weights_are_not_used(folder, photo):
    path = folder / MODEL_FILE
    about = description_of(TINY, TINY_WEIGHTS) | {'weights_sha256': 'of others'}
    path.write_bytes(described(path.read_bytes(), **about))
    with pytest.raises(InputError, match=f'{FEATURES_FILE}: made of other weights than'):
        Predictor('tiny', folder).features(photo)


def test_a_features_file_is_not_taken_for_the_answers(folder):
    shutil.copy(folder / FEATURES_FILE, folder / MODEL_FILE)
    with pytest.raises(InputError, match=f'{MODEL_FILE}: this model gives .*pooled features'):
        Predictor('tiny', folder)


def test_without_a_features_file_litert_says_how_to_make_it(folder, photo):
    (folder / FEATURES_FILE).unlink()
    predictor = Predictor('tiny', folder, runtime='litert')
    with pytest.raises(InputError, match=f'{FEATURES_FILE}: .*to_tflite.py --features'):
        predictor.features(photo)


def test_features_are_not_quantized(capsys):
    with pytest.raises(SystemExit, match='2'):
        to_tflite.main(['--comp_type', 'jpeg_paper', '--features', '--quantize', 'int8'])
    assert '--quantize goes with neither' in capsys.readouterr().err
