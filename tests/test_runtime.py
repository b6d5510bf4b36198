"""Runtimes and the exported network: its file, its answers beside the checkpoint's, its use."""
import shutil
import subprocess
import sys

import numpy as np
import pytest

from classifier import export, predict_cls, runtime, to_tflite
from classifier.checkpoints import MODEL_FILE, best_folder, load_network, weights_digest
from classifier.environment import import_tensorflow
from classifier.errors import InputError, NoModel
from classifier.images import compress, read_image
from classifier.models import COMP_TYPES, build_network, extract_patches
from classifier.predictor import PATCHES, Predictor
from classifier.runtime import RUNTIMES, CheckpointRunner, ModelRunner, model_description
from conftest import REPOSITORY, SAMPLES, TINY, TINY_WEIGHTS

PAPER = COMP_TYPES['jpeg_paper']
HEAVY = {'tensorflow', 'tf_keras', 'keras', 'matplotlib', 'sklearn', 'scipy', 'h5py'}

pytest.importorskip('ai_edge_litert', reason='LiteRT has no build for this machine')


@pytest.fixture(scope='module')
def tiny_export(tmp_path_factory):
    """The checkpoint of tests/data/tiny with the model file made of it."""
    folder = tmp_path_factory.mktemp('export') / 'tiny'
    shutil.copytree(TINY_WEIGHTS, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMP_TYPES, 'tiny', TINY)
        assert to_tflite.main(['--comp_type', 'tiny', '--weights', str(folder),
                               '--out_path', str(folder)]) == 0
    return folder


@pytest.fixture
def tiny_folder(tiny_export, tmp_path, tiny_type):
    """A copy of it to spoil, and the type to use it with."""
    return shutil.copytree(tiny_export, tmp_path / 'tiny')


# ---------------------------------------------------------------- one answer from both

@pytest.fixture(scope='module')
def sample_images():
    return [read_image(path) for path in sorted(SAMPLES.glob('*.png'))]


@pytest.mark.parametrize('comp_type', COMP_TYPES)
def test_both_runtimes_run_the_shipped_model_to_the_same_answers(sample_images, comp_type):
    litert, tensorflow = (Predictor(comp_type, runtime=runtime) for runtime in RUNTIMES)
    assert (litert.runtime, tensorflow.runtime) == RUNTIMES
    assert litert.model == tensorflow.model is not None
    for image in sample_images:
        outputs = [p.run_network(extract_patches(image, PAPER))
                   for p in (litert, tensorflow)]
        assert np.abs(outputs[0] - outputs[1]).max() < 0.01
        assert abs(litert.predict(image).quality - tensorflow.predict(image).quality) < 0.01


@pytest.mark.parametrize('comp_type', COMP_TYPES)
def test_the_shipped_model_answers_as_the_checkpoint_it_was_made_of(sample_images, comp_type):
    shipped = Predictor(comp_type, patches='all')
    checkpoint = CheckpointRunner(shipped.type, best_folder(shipped.type))
    truth, answers = [], []
    for image in sample_images:
        for quality in (20, 50, 80):
            patches = extract_patches(compress(image, quality), shipped.type)
            outputs = shipped.run_network(patches), checkpoint(patches)
            assert np.abs(outputs[0] - outputs[1]).mean(axis=0) == pytest.approx(0, abs=1)
            answers.append([shipped.fuse(output, image.shape).quality for output in outputs])
            truth.append([quality])
    found, expected = np.transpose(answers)
    assert np.abs(found - expected).mean() < 0.2
    error = np.abs(np.array(answers) - truth).mean(axis=0)
    assert error[0] < error[1] + 0.1


@pytest.mark.parametrize('n', [1, 36, 64, 65, 300])
def test_any_number_of_patches_is_answered(tiny_folder, n):
    patches = np.random.default_rng(n).integers(0, 256, (n, 16, 16, 3), np.uint8)
    expected = CheckpointRunner(TINY, TINY_WEIGHTS)(patches)
    for kind in RUNTIMES:
        found = Predictor('tiny', tiny_folder, runtime=kind).run_network(patches)
        assert found.shape == (n, 2) and found.dtype == np.float32
        assert np.abs(found - expected).max() < 0.01


def qualities(predictions):
    return np.array([p.quality for p in predictions])


@pytest.mark.parametrize('patches', PATCHES)
def test_order_and_company_do_not_change_an_answer(sample_images, patches):
    predictor = Predictor('jpeg_paper', patches=patches)
    alone = qualities(predictor.predict(image) for image in sample_images)
    together = qualities(predictor.predict_all(sample_images))
    backwards = qualities(predictor.predict_all(sample_images[::-1]))[::-1]
    assert np.abs(together - alone).max() < 1e-3 and np.abs(backwards - alone).max() < 1e-3


@pytest.mark.parametrize('threads', [1, 2])
def test_threads_do_not_change_an_answer(sample_images, monkeypatch, threads):
    expected = qualities(Predictor('jpeg_paper').predict_all(sample_images))
    monkeypatch.setattr(runtime, 'cores', lambda: threads)
    found = qualities(Predictor('jpeg_paper').predict_all(sample_images))
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_the_batch_size_does_not_change_an_answer(sample_images, monkeypatch, runtime):
    expected = qualities(Predictor('jpeg_paper', runtime=runtime).predict_all(sample_images))
    monkeypatch.setattr(ModelRunner, 'BATCH', 27)
    found = qualities(Predictor('jpeg_paper', runtime=runtime).predict_all(sample_images))
    assert np.abs(found - expected).max() < 0.01


def test_the_batch_size_does_not_change_a_checkpoint_s_answer(monkeypatch):
    patches = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 3), np.uint8)
    runner = CheckpointRunner(TINY, TINY_WEIGHTS)
    expected = runner(patches)
    monkeypatch.setattr(CheckpointRunner, 'MAX_BATCH', 27)
    assert np.abs(runner(patches) - expected).max() < 0.01


# ---------------------------------------------------------------- early stopping

def test_an_easy_image_takes_few_of_the_patches_and_a_hard_one_more(sample_images):
    predictor = Predictor('jpeg_paper')
    easy, hard = ([predictor.predict(compress(image, quality)) for image in sample_images]
                  for quality in (5, 60))
    assert all(p.patches <= 128 and abs(p.quality - 5) < 0.5 for p in easy)
    assert np.mean([p.patches for p in hard]) > 4 * np.mean([p.patches for p in easy])


def test_with_all_patches_they_are_fused_at_once(photo):
    predictor = Predictor('jpeg_paper', patches='all')
    for quality in (5, 60):
        coded = compress(photo, quality)
        expected = predictor.fuse(predictor.run_network(predictor.extract(coded)), coded.shape)
        assert predictor.predict(coded) == expected and expected.patches == 256
        assert abs(Predictor('jpeg_paper').predict(coded).quality - expected.quality) < 0.3


def test_the_median_and_small_images_take_all_patches(photo):
    coded = compress(photo, 5)
    assert Predictor('jpeg_paper', fusion='median').predict(coded).patches == 256
    small = Predictor('jpeg_paper').predict(coded[:24])
    assert small.patches == 8 * 16
    assert small == Predictor('jpeg_paper', patches='all').predict(coded[:24])


# ---------------------------------------------------------------- when it is used

def test_prediction_starts_without_heavy_imports():
    script = (f'import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n'
              'from classifier import predict_cls\n'
              f'predict_cls.main(["--in_path", {str(SAMPLES / "coffee_jpeg_q20.png")!r},'
              ' "--comp_type", "jpeg_paper"])\n'
              'print(*sys.modules)')
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    printed, modules = result.stdout.splitlines()
    assert printed.startswith('predicted quality ') and result.stderr == ''
    assert 'ai_edge_litert.interpreter' in modules and not HEAVY & set(modules.split())


def test_without_a_model_file_tensorflow_runs_the_checkpoint(tiny_type, capsys):
    assert Predictor('tiny', TINY_WEIGHTS).model is None
    assert predict_cls.main(['--in_path', str(SAMPLES / 'earth.png'), *tiny_type,
                             '--runtime', 'litert']) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and f'{MODEL_FILE}: no such file; make it with to_tflite.py' in error[0]


def test_where_litert_is_not_installed_tensorflow_answers(tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ai_edge_litert.interpreter', None)
    predictor = Predictor('tiny', tiny_folder)
    assert predictor.runtime == 'tensorflow' and predictor.model is not None
    with pytest.raises(NoModel, match='LiteRT is not installed'):
        Predictor('tiny', tiny_folder, runtime='litert')


def test_a_model_of_other_weights_is_not_used(tiny_folder):
    assert Predictor('tiny', tiny_folder).runtime == 'litert'
    network = build_network(TINY, seed=1)
    network.save_weights(f'{tiny_folder}/', save_format='tf')
    for kind in (None, 'tensorflow'):
        assert Predictor('tiny', tiny_folder, runtime=kind).model is None
    with pytest.raises(NoModel, match='made of other weights'):
        Predictor('tiny', tiny_folder, runtime='litert')


def test_a_model_needs_no_checkpoint_beside_it(tiny_folder, tmp_path):
    (tmp_path / 'alone').mkdir()
    shutil.copy(tiny_folder / MODEL_FILE, tmp_path / 'alone')
    assert Predictor('tiny', tmp_path / 'alone').runtime == 'litert'


@pytest.mark.parametrize('spoil', [
    lambda model: b'', lambda model: b'TFL3', lambda model: model[:1000], lambda model: model[:-9],
    lambda model: model[:5000] + bytes([model[5000] ^ 1]) + model[5001:],
    lambda model: export.described(model, comp_type='tiny')[:-90]])
def test_a_damaged_or_foreign_model_file_is_named(tiny_folder, spoil):
    path = tiny_folder / MODEL_FILE
    path.write_bytes(spoil(path.read_bytes()))
    for kind in RUNTIMES:
        with pytest.raises(InputError, match=f'{MODEL_FILE}: damaged or not made by to_tflite.py'):
            Predictor('tiny', tiny_folder, runtime=kind)


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_a_file_that_cannot_be_run_is_named(tiny_folder, runtime):
    root = b'\x10\0\0\0' + b'TFL3' + b'\x0c\0\x08\0\0\0\0\0' + b'\x08\0\0\0' + bytes(8)
    (tiny_folder / MODEL_FILE).write_bytes(
        export.described(root, **export.description_of(TINY, tiny_folder)))
    with pytest.raises(InputError, match=f'this {runtime} cannot run it'):
        Predictor('tiny', tiny_folder, runtime=runtime)


def test_a_model_of_another_type_is_named(tiny_folder):
    with pytest.raises(InputError, match='this model is of tiny, not of jpeg_paper'):
        Predictor('jpeg_paper', tiny_folder)


# ---------------------------------------------------------------- to_tflite.py

def test_the_file_says_what_it_is(tiny_folder):
    found = model_description((tiny_folder / MODEL_FILE).read_bytes())
    assert found['comp_type'] == 'tiny' and found['quantization'] == 'none'
    assert found['weights_sha256'] == weights_digest(TINY_WEIGHTS)
    assert 'BGR, 0..255' in found['input'] and 'Research' in found['licence']


@pytest.mark.long
def test_an_export_holds_all_that_prediction_needs(tmp_path, capsys, photo):
    assert to_tflite.main(['--comp_type', 'jpeg_paper', '--out_path', str(tmp_path),
                           '--quantize', 'int8']) == 0
    assert 'difference from the Keras network' in capsys.readouterr().out
    exported, shipped = Predictor('jpeg_paper', tmp_path), Predictor('jpeg_paper')
    assert exported.runtime == 'litert'
    found, expected = (p.predict(compress(photo, 35)) for p in (exported, shipped))
    # Made on another processor, ranges may differ in the last bit, and so may rounded weights.
    assert found.quality == pytest.approx(expected.quality, abs=0.05)
    assert found.uncertainty == pytest.approx(expected.uncertainty, abs=0.05)


def test_a_tflite_network_that_differs_is_not_written(tiny_export, tmp_path, monkeypatch, tiny_type,
                                                      capsys):
    model = (tiny_export / MODEL_FILE).read_bytes()
    monkeypatch.setattr(to_tflite, 'convert', lambda *_: model)
    run = to_tflite.run_tflite
    monkeypatch.setattr(to_tflite, 'run_tflite', lambda *args: run(*args) + 0.02)
    assert to_tflite.main([*tiny_type, '--out_path', str(tmp_path)]) == 2
    assert 'differs by more than 0.01' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize('quantize', ['float16', 'dynamic', 'int8'])
def test_a_quantized_network_is_smaller_and_answers_alike(tmp_path, photo, quantize):
    assert to_tflite.main(['--comp_type', 'jpeg_paper', '--out_path', str(tmp_path),
                           '--quantize', quantize]) == 0
    small, shipped = Predictor('jpeg_paper', tmp_path), Predictor('jpeg_paper')
    model = (tmp_path / MODEL_FILE).read_bytes()
    assert model_description(model)['quantization'] == quantize
    assert len(model) < 0.6 * (best_folder(PAPER) / '.data-00000-of-00001').stat().st_size
    for quality in (20, 50, 80):
        coded = compress(photo, quality)
        # Both are quantized, each in its own way, and each answer is off by a level at most.
        assert abs(small.predict(coded).quality - shipped.predict(coded).quality) < 2


def test_equalizing_evens_the_channels_out_and_changes_no_answer(photo):
    network = load_network(PAPER, best_folder(PAPER))
    patches = extract_patches(compress(photo, 60), PAPER).astype(np.float32)
    even = export.equalized(network, [patches])
    assert np.abs(even(patches).numpy() - network(patches).numpy()).max() < 0.01

    def unevenness(network):
        _, keras = import_tensorflow()
        relus = [layer.output for layer in network.layers if isinstance(layer, keras.layers.ReLU)]
        outputs = keras.Model(network.input, relus)(patches)
        tops = (output.numpy().max((0, 1, 2)) for output in outputs)
        return np.mean([np.log(top.max() / top[top > 0]).mean() for top in tops])
    assert unevenness(even) < 0.7 * unevenness(network)
