"""The patch network as an ONNX file, for programs that embed it, and what checks that file.

Needs tf2onnx, onnx and onnxruntime, which only this room imports.
"""
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from classifier.environment import import_tensorflow
from classifier.errors import InputError

OPSET = 15  # runs with ONNX Runtime 1.10 and newer
INSTALL = 'python3 -m pip install tf2onnx "onnx<1.19" onnxruntime -c requirements.txt'


def import_onnx() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The modules onnx, onnxruntime and tf2onnx; InputError with what to type if they are missing.
    """
    try:
        import onnx
        import onnxruntime
        import_tensorflow()  # which says that it begins; tf2onnx would import it in silence
        import tf2onnx
        return onnx, onnxruntime, tf2onnx
    except (ImportError, AttributeError) as error:  # the latter: onnx 1.19 with ml-dtypes 0.3
        raise InputError(f'this needs tf2onnx, onnx and onnxruntime ({error}); type: '
                         f'{INSTALL}') from None


def convert_onnx(network, description: Mapping[str, Any]) -> bytes:
    """The network, in float32 and for any number of patches, as an ONNX file.

    Parameters
    ----------
    network : tf_keras.Model
    description : mapping
        Goes into the file, as metadata.

    Returns
    -------
    bytes
        With one input, `patches`, and one output, `output`.
    """
    onnx, _, tf2onnx = import_onnx()
    tf, keras = import_tensorflow()
    network = keras.Model(network.input, keras.layers.Activation('linear', name='output')(
        network.output))
    spec = tf.TensorSpec((None, *network.input_shape[1:]), tf.float32, name='patches')
    model, _ = tf2onnx.convert.from_keras(network, input_signature=[spec], opset=OPSET)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = 'n'
    onnx.helper.set_model_props(model, {name: str(text) for name, text in description.items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def run_onnx(model: bytes, patches: np.ndarray) -> np.ndarray:
    """An ONNX file's output for float32 patches (n, 16, 16, 3), by ONNX Runtime on the CPU."""
    _, onnxruntime, _ = import_onnx()
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    return session.run(None, {'patches': patches})[0]
