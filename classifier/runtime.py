"""What runs a trained network: a model file by LiteRT or TensorFlow, or a checkpoint by TensorFlow.

A model file (to_tflite.py) describes itself in JSON: compression type, quantization, digest of the
weights it was made of, licence, and the digest of the file itself.
"""
import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np

from classifier.checkpoints import FEATURES_FILE, MODEL_FILE, load_network, weights_digest
from classifier.environment import cores, import_tensorflow, quiet
from classifier.errors import InputError, NoModel
from classifier.models import CompType, feature_network

RUNTIMES = ('litert', 'tensorflow')


def open_runner(comp_type: CompType, folder: str | os.PathLike, runtime: str | None = None,
                threads: int | None = None,
                features: bool = False) -> 'ModelRunner | CheckpointRunner':
    """What runs the network of a folder of weights.

    Parameters
    ----------
    comp_type : CompType
    folder : path-like
    runtime : {'litert', 'tensorflow'}, optional
        By default LiteRT if it is installed. Either runs the folder's model file, so that both
        answer alike; without a usable one, TensorFlow runs the checkpoint.
    threads : int, optional
        That a model file is run with, by default one for each core.
    features : bool
        Run the network up to its pooled features only, from a model file of its own.

    Returns
    -------
    callable
        From uint8 patches (n, 16, 16, 3) to float32 (n, 2), or (n, K) of features; has `runtime`,
        and `model`, the bytes of the model file or None.

    Raises
    ------
    InputError
        Nothing there can be run.
    """
    path = Path(folder) / (FEATURES_FILE if features else MODEL_FILE)
    try:
        model = read_model(comp_type, path)
        return ModelRunner(*_find_interpreter(runtime), path, model, threads)
    except NoModel:
        if runtime == 'litert':
            raise
    return CheckpointRunner(comp_type, folder, features)


def open_features(comp_type: CompType, folder: str | os.PathLike, runtime: str | None,
                  threads: int | None, model: bytes | None) -> 'ModelRunner | CheckpointRunner':
    """What runs the network up to its features: `open_runner` with `features`.

    Parameters
    ----------
    model : bytes or None
        The model file of the answers that is in use: the features must be of the same weights.

    Raises
    ------
    InputError
        They are not, or there are none.
    """
    runner = open_runner(comp_type, folder, runtime, threads, features=True)
    if len({model_description(found)['weights_sha256'] for found in (model, runner.model)
            if found}) > 1:
        raise InputError(f'{Path(folder) / FEATURES_FILE}: made of other weights than '
                         f'{MODEL_FILE}; make it again with to_tflite.py --features')
    return runner


def _find_interpreter(runtime):
    """Which of `RUNTIMES` runs model files here, and its interpreter's class."""
    if runtime != 'tensorflow':
        try:
            from ai_edge_litert.interpreter import Interpreter
            return 'litert', Interpreter
        except ImportError as error:
            if runtime:
                raise NoModel(f'LiteRT is not installed ({error}); install requirements.txt '
                              'or choose --runtime tensorflow') from None
    tf, _ = import_tensorflow()
    return 'tensorflow', tf.lite.Interpreter


def read_model(comp_type: CompType, path: Path) -> bytes:
    """The bytes of a model file.

    Parameters
    ----------
    comp_type : CompType
        Of the network that must be in it.
    path : Path

    Raises
    ------
    NoModel
        It is missing, or was made of other weights than those beside it.
    InputError
        It is damaged, of another network, or ends elsewhere than its name says.
    """
    if not path.is_file():
        option = ' --features' if path.name == FEATURES_FILE else ''
        raise NoModel(f'{path}: no such file; make it with to_tflite.py{option} or choose '
                      '--runtime tensorflow')
    model = path.read_bytes()
    description = model_description(model)
    if not description:
        raise InputError(f'{path}: damaged or not made by to_tflite.py; make it again or '
                         'delete it')
    if description['comp_type'] != comp_type.name:
        raise InputError(f'{path}: this model is of {description["comp_type"]}, '
                         f'not of {comp_type.name}')
    if description.get('features', False) != (path.name == FEATURES_FILE):
        raise InputError(f'{path}: this model gives {description["output"]}; make the right one '
                         'with to_tflite.py')
    if weights_digest(path.parent) not in (None, description.get('weights_sha256')):
        raise NoModel(f'{path}: made of other weights than those beside it; make it again '
                      'with to_tflite.py or choose --runtime tensorflow')
    return model


def model_description(model: bytes) -> dict:
    """What to_tflite.py wrote into a model file about it.

    A TFLite file is a flatbuffer, whose root table (`Model` in TensorFlow Lite's schema.fbs) has
    the description as its fourth field. The digest in it, `sha256`, is that of the file with 64
    zeros in the digest's place.

    Parameters
    ----------
    model : bytes
        Of the whole file.

    Returns
    -------
    dict
        Empty for any other file, or a damaged one.
    """
    from flatbuffers import encode, number_types, table
    try:
        root = table.Table(model, encode.Get(number_types.UOffsetTFlags.packer_type, model, 0))
        found = json.loads(root.String(root.Pos + root.Offset(4 + 2 * 3)))
        return found if found['sha256'] == model_digest(model, found['sha256']) else {}
    except (struct.error, ValueError, LookupError, TypeError, AttributeError):
        return {}


def model_digest(model: bytes, digest: str) -> str:
    """SHA-256 of a model file's bytes, with zeros in the place of the digest that is in them."""
    return hashlib.sha256(model.replace(digest.encode(), 64 * b'0', 1)).hexdigest()


class CheckpointRunner:
    """A checkpoint's network, run by TensorFlow; several threads may share it."""
    runtime, model = 'tensorflow', None
    MAX_BATCH = 4096  # patches in one forward pass; bounds memory, not results

    def __init__(self, comp_type: CompType, folder: str | os.PathLike, features: bool = False):
        network = load_network(comp_type, folder)
        if features:
            network = feature_network(network)
        tf, _ = import_tensorflow()
        self._forward = tf.function(
            lambda x: network(tf.cast(x, tf.float32), training=False),
            input_signature=[tf.TensorSpec((None, *network.input_shape[1:]), tf.uint8)])
        self._forward(np.zeros((1, *network.input_shape[1:]), np.uint8))  # builds the graph

    def __call__(self, patches):
        parts = [self._forward(patches[i:i + self.MAX_BATCH]).numpy()
                 for i in range(0, len(patches), self.MAX_BATCH)]
        return np.concatenate(parts)


class ModelRunner:
    """The network in a model file, run by an interpreter of TFLite models, a thread at a time.

    Parameters
    ----------
    runtime : {'litert', 'tensorflow'}
    interpreter : type
        That runtime's interpreter.
    path, model : path-like, bytes
        Of the model file.
    threads : int, optional
        By default one for each core.

    Raises
    ------
    InputError
        The interpreter cannot run the model.
    """
    BATCH = 32  # patches in one forward pass: larger ones are not quicker, and few waste less

    def __init__(self, runtime: str, interpreter: type, path: str | os.PathLike, model: bytes,
                 threads: int | None = None):
        self.runtime, self.model = runtime, model
        try:
            with quiet():
                self._interpreter = interpreter(model_content=model,
                                                num_threads=threads or cores())
                self._input, = self._interpreter.get_input_details()
                self._output, = self._interpreter.get_output_details()
                self._batch = np.zeros((self.BATCH, *self._input['shape'][1:]),
                                       self._input['dtype'])
                self._interpreter.resize_tensor_input(self._input['index'], self._batch.shape)
                self._interpreter.allocate_tensors()
                self._interpreter.invoke()  # the first one takes longer
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0][:160]
            raise InputError(f'{path}: this {runtime} cannot run it ({reason}); make it again '
                             'with to_tflite.py or delete it') from None

    def __call__(self, patches):
        output = np.empty((len(patches), self._output['shape'][-1]), np.float32)
        for i in range(0, len(patches), self.BATCH):
            part = patches[i:i + self.BATCH]
            self._batch[:len(part)] = part
            self._interpreter.set_tensor(self._input['index'], self._batch)
            self._interpreter.invoke()
            found = self._interpreter.get_tensor(self._output['index'])
            output[i:i + len(part)] = found[:len(part)]
        return output
