"""The ONNX file: its answers beside Keras', what it says about itself, the example in the docs."""
import re
import sys

import numpy as np
import pytest

from classifier import onnx_export, to_tflite
from classifier.checkpoints import best_folder, load_network, stored_threshold, weights_digest
from classifier.images import compress, read_image
from classifier.models import COMP_TYPES, extract_patches, feature_network, median_fusion
from conftest import REPOSITORY, SAMPLES

PAPER = COMP_TYPES['jpeg_paper']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with the ONNX files of jpeg_paper: the answers, and the features."""
    for name in ('tf2onnx', 'onnxruntime'):
        pytest.importorskip(name, reason=f'{name} is not installed')
    folder = tmp_path_factory.mktemp('onnx')
    for options in ([], ['--features']):
        assert to_tflite.main(['--comp_type', 'jpeg_paper', '--format', 'onnx', *options,
                               '--out_path', str(folder)]) == 0
    return folder


def session(path):
    import onnxruntime
    return onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])


@pytest.mark.extras
@pytest.mark.parametrize('name', ['comp_cls.onnx', 'comp_features.onnx'])
def test_onnx_runtime_answers_as_keras_for_any_number_of_patches(folder, photo, name):
    network = load_network(PAPER, best_folder(PAPER))
    if name == 'comp_features.onnx':
        network = feature_network(network)
    onnx = session(folder / name)
    assert [i.name for i in onnx.get_inputs()] == ['patches']
    for quality in (10, 50, 90):
        patches = extract_patches(compress(photo, quality), PAPER).astype(np.float32)
        for n in (1, 7, 256):
            found, = onnx.run(['output'], {'patches': patches[:n]})
            expected = network(patches[:n]).numpy()
            assert found.shape == expected.shape and found.dtype == np.float32
            assert np.abs(found - expected).max() < 1e-3


@pytest.mark.extras
def test_the_onnx_file_says_what_it_is(folder):
    found = session(folder / 'comp_cls.onnx').get_modelmeta().custom_metadata_map
    assert found['comp_type'] == 'jpeg_paper' and 'BGR, 0..255' in found['input']
    assert found['weights_sha256'] == weights_digest(best_folder(PAPER))
    assert float(found['threshold']) == stored_threshold(PAPER, best_folder(PAPER))
    assert 'Research' in found['licence']


@pytest.mark.extras
def test_the_example_in_the_docs_gives_the_paper_s_answer(folder, monkeypatch, capsys):
    text = (REPOSITORY / 'docs' / 'export.md').read_text()
    example, = (block for block in re.findall('```python\n(.*?)```', text, re.DOTALL)
                if 'onnxruntime' in block)
    monkeypatch.chdir(REPOSITORY)
    exec(example.replace("'out/", f"'{folder}/"), {})
    network = load_network(PAPER, best_folder(PAPER))
    name, = re.findall(r"sample_image/(\w+\.png)", example)
    patches = extract_patches(read_image(SAMPLES / name), PAPER).astype(np.float32)
    expected = median_fusion(network(patches).numpy(), stored_threshold(PAPER, best_folder(PAPER)))
    assert float(capsys.readouterr().out) == pytest.approx(expected, abs=1e-3)


@pytest.mark.extras
def test_an_onnx_network_that_differs_is_not_written(tiny_type, tmp_path, monkeypatch, capsys):
    pytest.importorskip('tf2onnx', reason='tf2onnx is not installed')
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    run = to_tflite.run_onnx
    monkeypatch.setattr(to_tflite, 'run_onnx', lambda *args: run(*args) + 0.002)
    assert to_tflite.main([*tiny_type, '--format', 'onnx', '--out_path', str(tmp_path)]) == 2
    assert 'differs by more than 0.001' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_the_packages_one_line_says_what_to_type(tiny_type, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'tf2onnx', None)
    assert to_tflite.main([*tiny_type, '--format', 'onnx', '--out_path', str(tmp_path)]) == 2
    error, = capsys.readouterr().err.splitlines()
    assert onnx_export.INSTALL in error and not list(tmp_path.iterdir())


def test_an_onnx_file_is_not_quantized(capsys):
    with pytest.raises(SystemExit, match='2'):
        to_tflite.main(['--comp_type', 'jpeg_paper', '--format', 'onnx', '--quantize', 'int8'])
    assert '--quantize goes with neither' in capsys.readouterr().err
