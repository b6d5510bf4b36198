"""The patch network as a TFLite file: conversion, quantization, the description in the file.

Quantized to int8, stages 4 to 6 compute with 8 bits, two thirds of the arithmetic. The stages
before see what compression left, differences of a level or two: 256 values for the whole range of
a channel are too few for these.
"""
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from classifier.checkpoints import weights_digest
from classifier.environment import import_tensorflow
from classifier.models import CompType
from classifier.runtime import model_digest

INT8_STAGES = 4, 6  # the first and the last
LICENCE = ('Research and evaluation use only; U.S. Patent 12,462,356 B2 of Samsung '
           'Electronics; see the file LICENSE')


def convert(network, batch: int, quantize: str = 'none',
            calibration: Sequence[np.ndarray] = ()) -> bytes:
    """The network for a fixed batch size, as a TFLite file.

    Parameters
    ----------
    network : tf_keras.Model
    batch : int
        Patches in one call.
    quantize : {'none', 'float16', 'dynamic', 'int8'}
    calibration : list of float32 arrays, shape (batch, 16, 16, 3)
        Patches whose ranges int8 is calibrated on.
    """
    tf, _ = import_tensorflow()
    if quantize == 'int8':
        network = equalized(network, calibration)
    spec = tf.TensorSpec((batch, *network.input_shape[1:]), tf.float32, name='patches')
    function = tf.function(lambda patches: network(patches, training=False), input_signature=[spec])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], network)
    if quantize != 'none':
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == 'float16':
        converter.target_spec.supported_types = [tf.float16]
    if quantize == 'int8':
        return _convert_int8(converter, network, calibration)
    return converter.convert()


def _convert_int8(converter, network, calibration):
    """The network with INT8_STAGES in 8 bits and all else in float32."""
    tf, _ = import_tensorflow()
    layers, (first, last) = network.layers, INT8_STAGES
    ends = [i + 2 for i, layer in enumerate(layers) if type(layer).__name__ == 'Add']  # add, ReLU
    exact = {layer.name for layer in layers[:ends[first - 2]] + layers[ends[last - 1]:]}

    def dataset():
        return ([patches] for patches in calibration)

    converter.representative_dataset = dataset
    debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_dataset=dataset)
    tensors = tf.lite.Interpreter(model_content=debugger.calibrated_model).get_tensor_details()
    names = [tensor['name'] for tensor in tensors]  # 'model/layer/op;model/layer/op', or the output
    debugger.options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=[
        name for name in names if name.startswith('StatefulPartitionedCall')
        or any(exact.intersection(op.split('/')[1:2]) for op in name.split(';'))])
    return debugger.get_nondebug_quantized_model()


def equalized(network, calibration: Sequence[np.ndarray]):
    """A network of the same answers, but for rounding, whose channels have more even ranges.

    The channels of a layer share one scale when they are quantized, at the cost of those of small
    values. ReLU lets a channel be scaled where it is made and scaled back where it is used; the
    square root of its range leaves half of the unevenness to the weights.

    References
    ----------
    Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV
    2019; Xiao et al., "SmoothQuant", ICML 2023 (the square root).
    """
    _, keras = import_tensorflow()
    layers = keras.layers
    network, weights = keras.models.clone_model(network), network.get_weights()
    network.set_weights(weights)
    convs, norms, relus = ([layer for layer in network.layers if isinstance(layer, kind)]
                           for kind in (layers.Conv2D, layers.BatchNormalization, layers.ReLU))
    probe = keras.Model(network.input, [relu.output for relu in relus])
    batches = ([output.numpy().max((0, 1, 2)) for output in probe(patches, training=False)]
               for patches in calibration)
    tops = [np.max(of_layer, axis=0) for of_layer in zip(*batches)]

    def scale(top, made, used):
        top = np.maximum(top, max(1e-3 * top.max(), 1e-6))
        factor = np.sqrt(top.max() / top)
        for norm in made:
            norm.gamma.assign(norm.gamma * factor)
            norm.beta.assign(norm.beta * factor)
        for conv in used:
            conv.kernel.assign(conv.kernel / factor[:, None])

    for entry, squeeze, middle, expand in np.arange(len(relus)).reshape(-1, 4):
        scale(tops[squeeze], [norms[squeeze]], [convs[middle]])
        scale(tops[middle], [norms[middle]], [convs[expand]])
        scale(np.maximum(tops[entry], tops[expand]),  # added to one another
              [norms[entry], norms[expand]], [convs[squeeze], convs[expand + 1]])
    return network


def described(model: bytes, **description: Any) -> bytes:
    """A TFLite file with a description in JSON, which `runtime.model_description` reads."""
    from tensorflow.lite.tools import flatbuffer_utils
    zeros = 64 * '0'
    found = flatbuffer_utils.convert_bytearray_to_object(model)
    found.description = json.dumps(description | {'sha256': zeros})
    model = flatbuffer_utils.convert_object_to_bytearray(found)
    return model.replace(zeros.encode(), model_digest(model, zeros).encode(), 1)


def description_of(comp_type: CompType, folder: str | os.PathLike, quantize: str = 'none',
                   features: bool = False) -> dict:
    """What a model file made of the weights in that folder says about itself.

    Parameters
    ----------
    comp_type : CompType
    folder : path-like
    quantize : {'none', 'float16', 'dynamic', 'int8'}
    features : bool
        Whether it ends at the pooled features.
    """
    side = comp_type.patch
    output = (f'(patches, {comp_type.k}): pooled features' if features else
              '(patches, 2): confidence, quality, both 0..100')
    return {'comp_type': comp_type.name,
            'input': f'(patches, {side}, {side}, 3), BGR, 0..255, not normalised',
            'output': output,
            'features': features,
            'quantization': quantize,
            'weights_sha256': weights_digest(folder),
            'licence': LICENCE}
