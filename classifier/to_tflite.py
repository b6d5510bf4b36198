#!/usr/bin/env python3
"""Export the patch network to TensorFlow Lite (LiteRT), or to ONNX.

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
        --weights out --fit likelihood --limit 200 --out_path out

Weights just trained get the model file that predict_cls.py and evaluate_cls.py then use with

    python3 classifier/to_tflite.py --comp_type jpeg_paper --quantize int8 \\
        --weights out/best --out_path out/best

--format onnx writes out/comp_cls.onnx, float32, of any number of patches, for other programs.
--features ends at the pooled features, K values a patch, which the last layer makes confidence and
quality of: out/comp_features.tflite or out/comp_features.onnx.
"""
import sys
if __name__ == '__main__':  # from here on Ctrl-C leaves no traceback
    sys.excepthook = lambda *error: error[0] is KeyboardInterrupt or sys.__excepthook__(*error)
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import contextlib
import os

from classifier.checkpoints import (COMPANION_FILES, FEATURES_FILE, MODEL_FILE, best_folder,
                                    load_network, refuse_shipped, stored_threshold,
                                    weights_digest)
from classifier.cli import add_network_options, begin, command, named, script_parser
from classifier.environment import import_tensorflow, quiet
from classifier.errors import InputError
from classifier.export import convert, described, description_of
from classifier.files import check_writable, whole_file
from classifier.images import compress, list_images, read_image
from classifier.models import CompType, extract_patches, feature_network, get_comp_type
from classifier.onnx_export import convert_onnx, import_onnx, run_onnx
from classifier.runtime import ModelRunner

import numpy as np  # after classifier, which says what to type where it is missing

# How much confidence and quality, both on 0..100, may differ from the Keras network's: at
# most in float32, which is exact but for rounding, and on average over photos otherwise.
TOLERANCE = {'none': 1e-2, 'float16': 0.1, 'dynamic': 2, 'int8': 2}
ONNX_TOLERANCE = 1e-3
PHOTOS = Path(__file__).resolve().parent.parent / 'sample_image'
COPIES = 4  # compressed copies of each photo to calibrate on


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked; without `argv` those of the command line."""
    parser = script_parser(__doc__)
    add_network_options(parser)
    parser.add_argument('--out_path', type=Path, default='out', metavar='DIR', help='default: out')
    parser.add_argument('--quantize', choices=TOLERANCE, default='none',
                        help='default: none, which is float32')
    parser.add_argument('--format', choices=('tflite', 'onnx'), default='tflite',
                        help='default: tflite, which predict_cls.py runs')
    parser.add_argument('--features', action='store_true',
                        help='export the network up to its pooled features, in float32')
    parser.add_argument('--in_path', default=PHOTOS, metavar='DIR',
                        help='photos to calibrate int8 on and to compare with the Keras network '
                        '(default: sample_image)')
    args = parser.parse_args(argv)
    if args.quantize != 'none' and (args.features or args.format == 'onnx'):
        parser.error('--quantize goes with neither --features nor --format onnx: both are float32')
    return args


def calibration_patches(folder: str | os.PathLike, comp_type: CompType, batch: int,
                        seed: int = 0) -> list[np.ndarray]:
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


def run_tflite(model: bytes, patches: np.ndarray) -> np.ndarray:
    """A TFLite model's output for its n float32 patches."""
    tf, _ = import_tensorflow()
    return ModelRunner('tensorflow', tf.lite.Interpreter, MODEL_FILE, model)(patches)


def exported(network, args: argparse.Namespace, folder: Path,
             batches: list[np.ndarray]) -> tuple[bytes, np.ndarray]:
    """The network as a file's bytes, and that file's output for the first of the batches."""
    comp_type = get_comp_type(args.comp_type)
    about = description_of(comp_type, folder, args.quantize, args.features)
    if args.format == 'onnx':
        about['threshold'] = stored_threshold(comp_type, folder)
        model = convert_onnx(network, about)
        return model, run_onnx(model, batches[0])
    model = described(convert(network, len(batches[0]), args.quantize, batches), **about)
    return model, run_tflite(model, batches[0])


def write_export(model: bytes, folder: Path, out_path: Path) -> None:
    """Write a model file's bytes and, where it goes to another folder, what belongs to its weights.

    All get their names at the end, the model last; one that was there goes before. So no
    model ever stands beside the threshold, likelihood or posterior of other weights.
    """
    companions = [] if folder.resolve() == out_path.resolve() else COMPANION_FILES
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
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    comp_type = get_comp_type(args.comp_type)
    folder = Path(args.weights or best_folder(comp_type))
    path = args.out_path / (FEATURES_FILE if args.features else MODEL_FILE)
    path = path.with_suffix(f'.{args.format}')
    if args.format == 'onnx':
        import_onnx()
    refuse_shipped(args.out_path)
    check_writable(path)
    network = load_network(comp_type, folder)
    if weights_digest(args.out_path) not in (None, weights_digest(folder)):
        raise InputError(f'{args.out_path}: holds other weights; choose another --out_path')
    if args.features:
        network = feature_network(network)
    batches = calibration_patches(args.in_path, comp_type, comp_type.samples ** 2)
    patches = batches[0]
    begin('converting the network, and comparing the two')
    with quiet():
        model, output = exported(network, args, folder, batches)
        difference = np.abs(output - network(patches).numpy())
    print(f'difference from the Keras network: {difference.mean():.2g} on average, '
          f'{difference.max():.2g} at most')
    tolerance = ONNX_TOLERANCE if args.format == 'onnx' else TOLERANCE[args.quantize]
    if not (difference.max() if args.quantize == 'none' else difference.mean()) <= tolerance:
        raise InputError(f'the converted network differs by more than {tolerance}; '
                         'nothing was written')
    if path.name == MODEL_FILE:
        write_export(model, folder, args.out_path)
    else:
        with whole_file(path, 'wb') as file:
            file.write(model)
    shape = patches.shape if args.format == 'tflite' else ('n', *patches.shape[1:])
    print(f'{path}: {len(model) / 1e6:.2f} MB, input ({", ".join(map(str, shape))}) float32')


if __name__ == '__main__':
    sys.exit(main())
