#!/usr/bin/env python3
"""Export the patch network to TensorFlow Lite (LiteRT).

    python3 classifier/to_tflite.py --comp_type jpeg_paper --out_path out

writes out/comp_cls.tflite: input (256, 16, 16, 3) float32 BGR in 0..255, one image's
patches; output (256, 2) float32 confidence and quality in 0..100. The file gets its name only
after its output was compared with the Keras network's. Its description, in JSON, says what it is
and of which weights it was made. Threshold and likelihood are copied beside it, so that
predict_cls.py --weights out needs LiteRT alone.

--quantize makes it smaller: float16 stores the weights so; dynamic computes with 8 bits in a range
found patch by patch; int8, in the last three stages, with ranges calibrated on the photos of
--in_path, compressed at random qualities. Input and output stay float32. The patches' answers
then differ a little; a likelihood fitted to that very model may make up for some of it:

    python3 classifier/to_tflite.py --comp_type jpeg_paper --quantize int8 --out_path out
    python3 classifier/evaluate_cls.py --in_path DIV2K_train_HR --comp_type jpeg_paper \\
        --weights out --fit_likelihood --limit 200 --out_path out

Weights just trained get the model file that predict_cls.py and evaluate_cls.py then use with

    python3 classifier/to_tflite.py --comp_type jpeg_paper --quantize int8 \\
        --weights out/best --out_path out/best
"""
import argparse
import contextlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from classifier.checkpoints import (LIKELIHOOD_FILE, MODEL_FILE, THRESHOLD_FILE, best_folder,
                                    load_network, refuse_shipped, weights_digest)
from classifier.cli import add_network_options, command, named
from classifier.environment import import_tensorflow, quiet
from classifier.errors import InputError
from classifier.files import check_writable, whole_file
from classifier.images import compress, list_images, read_image
from classifier.models import extract_patches, get_comp_type
from classifier.runtime import ModelRunner, model_digest

import numpy as np  # after classifier, which says what to type where it is missing

# How much confidence and quality, both on 0..100, may differ from the Keras network's: at
# most in float32, which is exact but for rounding, and on average over photos otherwise.
TOLERANCE = {'none': 1e-2, 'float16': 0.1, 'dynamic': 2, 'int8': 2}
PHOTOS = Path(__file__).resolve().parent.parent / 'sample_image'
INT8_STAGES = 4, 6  # the first and the last
COPIES = 4  # compressed copies of each photo to calibrate on
LICENCE = ('Research and evaluation use only; U.S. Patent 12,462,356 B2 of Samsung '
           'Electronics; see the file LICENSE')


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_network_options(parser)
    parser.add_argument('--out_path', type=Path, default='out', metavar='DIR', help='default: out')
    parser.add_argument('--quantize', choices=TOLERANCE, default='none',
                        help='default: none, which is float32')
    parser.add_argument('--in_path', default=PHOTOS, metavar='DIR',
                        help='photos to calibrate int8 on and to compare with the Keras network '
                        '(default: sample_image)')
    return parser.parse_args(argv)


def convert(network, batch, quantize='none', calibration=()):
    """The network for a fixed batch size, as the bytes of a TFLite file.

    quantize: one of `TOLERANCE`'s keys; calibration: float32 patches in batches, for int8.
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
        return convert_int8(converter, network, calibration)
    return converter.convert()


def convert_int8(converter, network, calibration):
    """A network whose stages 4 to 6, two thirds of the arithmetic, compute with 8 bits.

    The stages before see what compression left, differences of a level or two: 256 values
    for the whole range of a channel are too few for these.
    """
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


def equalized(network, calibration):
    """A network of the same answers, but for rounding, whose channels have more even ranges.

    All channels of a layer share one scale when they are quantized, in which those of small
    values lose theirs. ReLU lets a channel be scaled where it is made and scaled back where it
    is used (Nagel et al., "Data-Free Quantization through Weight Equalization and Bias
    Correction", ICCV 2019); the square root of its range leaves the other half of the
    unevenness to the weights (Xiao et al., "SmoothQuant", ICML 2023).

    calibration: float32 patches, a list of (n, side, side, 3), that show the ranges.
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


def calibration_patches(folder, comp_type, batch, seed=0):
    """Patches of photos compressed at random qualities: a list of (batch, side, side, 3) float32.

    InputError where a photo cannot be read.
    """
    rng = np.random.default_rng(seed)
    patches = []
    for path in list_images(folder):
        with named(path):
            image = read_image(path)
            patches += [extract_patches(compress(image, int(quality)), comp_type)
                        for quality in rng.integers(1, 101, COPIES)]
    patches = rng.permutation(np.concatenate(patches))
    shape = (-(-len(patches) // batch), batch, *patches.shape[1:])
    return list(np.resize(patches, shape).astype(np.float32))


def described(model, **description):
    """A TFLite file's bytes with a description in JSON, which `runtime.model_description` reads."""
    from tensorflow.lite.tools import flatbuffer_utils
    zeros = 64 * '0'
    found = flatbuffer_utils.convert_bytearray_to_object(model)
    found.description = json.dumps(description | {'sha256': zeros})
    model = flatbuffer_utils.convert_object_to_bytearray(found)
    return model.replace(zeros.encode(), model_digest(model, zeros).encode(), 1)


def description_of(comp_type, folder, quantize='none'):
    """What a model file made of the weights in that folder says about itself: a dict."""
    side = comp_type.patch
    return {'comp_type': comp_type.name,
            'input': f'(patches, {side}, {side}, 3), BGR, 0..255, not normalised',
            'output': '(patches, 2): confidence, quality, both 0..100',
            'quantization': quantize,
            'weights_sha256': weights_digest(folder),
            'licence': LICENCE}


def run_tflite(model, patches):
    """The output (n, 2) of a TFLite model, given as bytes, for its n float32 patches."""
    tf, _ = import_tensorflow()
    return ModelRunner('tensorflow', tf.lite.Interpreter, MODEL_FILE, model)(patches)


def write_export(model, folder, out_path):
    """Write a model file's bytes and, where it goes to another folder, what belongs to its weights.

    All get their names at the end, the model last; one that was there goes before. So no
    model ever stands beside the threshold or likelihood of other weights.
    """
    companions = [] if folder.resolve() == out_path.resolve() else [THRESHOLD_FILE, LIKELIHOOD_FILE]
    contents = {MODEL_FILE: model}
    contents |= {name: (folder / name).read_bytes() for name in companions
                 if (folder / name).exists()}
    with contextlib.ExitStack() as files:
        for name, content in contents.items():
            file = files.enter_context(whole_file(out_path / name, 'wb'))
            file.write(content)
            file.flush()
        if companions:
            (out_path / MODEL_FILE).resolve().unlink(missing_ok=True)
        for name in set(companions) - set(contents):
            (out_path / name).unlink(missing_ok=True)


@command
def main(argv=None):
    args = parse_args(argv)
    comp_type = get_comp_type(args.comp_type)
    folder = Path(args.weights or best_folder(comp_type))
    refuse_shipped(args.out_path)
    check_writable(args.out_path / MODEL_FILE)
    network = load_network(comp_type, folder)
    if weights_digest(args.out_path) not in (None, weights_digest(folder)):
        raise InputError(f'{args.out_path}: holds other weights; choose another --out_path')
    batch = comp_type.samples ** 2
    batches = calibration_patches(args.in_path, comp_type, batch)
    patches = batches[0]
    with quiet():
        model = described(convert(network, batch, args.quantize, batches),
                          **description_of(comp_type, folder, args.quantize))
        difference = np.abs(run_tflite(model, patches) - network(patches).numpy())
    print(f'difference from the Keras network: {difference.mean():.2g} on average, '
          f'{difference.max():.2g} at most')
    tolerance = TOLERANCE[args.quantize]
    if not (difference.max() if args.quantize == 'none' else difference.mean()) <= tolerance:
        raise InputError(f'the converted network differs by more than {tolerance}; '
                         'nothing was written')
    write_export(model, folder, args.out_path)
    print(f'{args.out_path / MODEL_FILE}: {len(model) / 1e6:.2f} MB, input {patches.shape} float32')


if __name__ == '__main__':
    sys.exit(main())
