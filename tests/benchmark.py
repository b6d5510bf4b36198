"""How fast data is made and the network trained and run, on the machine this runs on.

    python3 tests/benchmark.py [--in_path FOLDER_OF_PHOTOS] [--comp_type jpeg_paper]
    python3 tests/benchmark.py --parts prediction quantized

Prints one table, a row as soon as it is measured. Things that are compared run in turns, and
the median is what counts. Ten minutes or less on two cores that have nothing else to do.
"""
import argparse
import contextlib
import importlib.util
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from conftest import CLASSIFIER, SAMPLES  # also puts the repository on the path

import cv2
import numpy as np
import pytest

from classifier import evaluate_cls, gen_data, images, predict_cls, runtime, to_tflite
from classifier.checkpoints import MODEL_FILE, best_folder, load_network
from classifier.environment import cores
from classifier.forensics.header import read_header
from classifier.forensics.lattice import find_quality
from classifier.forensics.recompression import find_earlier
from classifier.models import COMP_TYPES, build_network, confidence_loss, extract_patches
from classifier.patches import PatchFile
from classifier.predictor import Predictor
from classifier.runtime import RUNTIMES
from classifier.training.keras_step import KerasStep
from classifier.training.photo_source import PhotoSource

ROUNDS, STEPS, BATCH = 5, 10, 1024
TRAINING_SAMPLES = 2000  # for each quality: more patches than all rounds see
QUALITIES = range(5, 100, 10)  # how many patches it takes depends on them


def rate(work, amount):
    """`amount` a second for one call of `work`."""
    began = time.perf_counter()
    work()
    return amount / (time.perf_counter() - began)


def row(what, value, unit, note=''):
    """Print a row of the table."""
    print(f'{what:52}{value:>10,.{1 if value < 10 else 0}f} {unit:10} {note}'.rstrip(), flush=True)


@contextlib.contextmanager
def unheard():
    """Without what a script prints."""
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        yield


def photos(args, n):
    """The first n photos of the folder, at 768x512."""
    return [cv2.resize(images.read_image(path), (768, 512), interpolation=cv2.INTER_AREA)
            for path in images.list_images(args.in_path)[:n]]


def benchmark_data(args):
    """gen_data.py: patches made and written."""
    with tempfile.TemporaryDirectory() as folder, unheard():
        made = rate(partial(make_patches, args, folder, args.num_samples), 100 * args.num_samples)
    row('gen_data.py', made, 'patches/s', f'{args.num_samples:,} for each quality')


def make_patches(args, folder, num_samples):
    gen_data.main(['--in_path', str(args.in_path), '--num_samples', str(num_samples),
                   '--hdf5_name', 'a.h5', '--comp_type', args.comp_type, '--out_path', folder])
    return Path(folder) / 'a.h5'


def benchmark_training(args):
    """The training step on one resident batch, with its data, and in PyTorch, in turns."""
    comp_type = COMP_TYPES[args.comp_type]
    with tempfile.TemporaryDirectory() as folder:
        with unheard():
            path = make_patches(args, folder, TRAINING_SAMPLES)
        train_on(path, comp_type, args.in_path)


def train_on(path, comp_type, photos):
    keras = KerasStep(partial(build_network, comp_type, 0), confidence_loss, BATCH)
    batches = PatchFile(path, comp_type).batches(BATCH, 0)
    drawn = PhotoSource(photos, comp_type.patch, chroma='mixed').batches(BATCH, 0)
    resident = next(batches)

    def steps(backend, batch):
        for _ in range(STEPS):
            backend.step(batch(), 1e-3, 0.999)
        backend.take_sums()

    work = {'training step on a resident batch': partial(steps, keras, lambda: resident),
            'training from HDF5': partial(steps, keras, lambda: next(batches)),
            'training from photos': partial(steps, keras, lambda: next(drawn))}
    if importlib.util.find_spec('torch'):
        from classifier.training.torch_step import TorchStep
        work['training step in PyTorch'] = partial(steps, TorchStep(comp_type, 0),
                                                   lambda: resident)
    for run in work.values():
        run()
    rates = np.array([[rate(run, STEPS * BATCH) for run in work.values()] for _ in range(ROUNDS)])
    ratios = np.median(rates / rates[:, :1], axis=0)
    for what, median, ratio in zip(work, np.median(rates, axis=0), ratios):
        row(what, median, 'patches/s', f'{ratio:.2f} of the step alone' if ratio != 1 else '')


def benchmark_start(args):
    """predict_cls.py on one image, from the start of the process to its end."""
    def start(kind):
        subprocess.run([sys.executable, CLASSIFIER / 'predict_cls.py', '--in_path',
                        SAMPLES / 'coffee_jpeg_q20.png', '--comp_type', args.comp_type,
                        '--runtime', kind], check=True, stdout=subprocess.DEVNULL)

    compare({f'cold start, {r}': partial(start, r) for r in reversed(RUNTIMES)}, ROUNDS)


def benchmark_prediction(args):
    """An image of 768x512 with 256 patches, decoding excluded: the mean of ten qualities."""
    comp_type = COMP_TYPES[args.comp_type]
    coded = [images.compress(photo, q) for photo in photos(args, 2) for q in QUALITIES]
    network = load_network(comp_type, best_folder(comp_type))

    def reference(image):
        output = network.predict(extract_patches(image, comp_type).astype(np.float32), verbose=0)
        kept = []
        for confidence, quality in output:
            if confidence > comp_type.threshold:
                kept.append(quality)
        return np.median(kept) if kept else 100

    default = Predictor(comp_type.name)
    ways = {"Keras' predict and a loop": reference,
            'tensorflow, all patches': Predictor(comp_type.name, runtime='tensorflow',
                                                 patches='all').predict,
            'all patches': Predictor(comp_type.name, patches='all').predict,
            'default': default.predict}

    def over_all(way):
        for image in coded:
            way(image)

    compare({f'prediction, {name}': partial(over_all, way) for name, way in ways.items()}, ROUNDS,
            len(coded))
    row('patches that the default looked at',
        np.mean([default.predict(image).patches for image in coded]), 'of 256')


def benchmark_automatic(args):
    """The automatic mode on decoded JPEGs, which have a lattice, and on resized ones."""
    coded = [images.compress(photo, q) for photo in photos(args, 2) for q in QUALITIES]
    resized = [cv2.resize(image, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
               for image in coded]
    predictor = Predictor()

    def over_all(pictures):
        for image in pictures:
            predictor.predict(image)

    compare({f'automatic, {name}': partial(over_all, pictures) for name, pictures in (
        ('decoded JPEG', coded), ('resized to 576x384', resized))}, ROUNDS, len(coded))


def benchmark_quantized(args):
    """What to_tflite.py --quantize makes: size, and time of the network on 256 patches."""
    comp_type = COMP_TYPES[args.comp_type]
    patches = extract_patches(images.compress(photos(args, 1)[0], 75), comp_type)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        ways = {}
        for kind in to_tflite.TOLERANCE:
            out = Path(folder) / kind
            with unheard():
                to_tflite.main(['--comp_type', comp_type.name, '--out_path', str(out),
                                '--quantize', kind])
            row(f'quantized {kind}: size', (out / MODEL_FILE).stat().st_size / 1e3, 'kB')
            for threads in (1, 2):
                patch.setattr(runtime, 'cores', lambda threads=threads: threads)
                ways[kind, threads] = partial(Predictor(comp_type.name, out).run_network, patches)
        for threads in (1, 2):
            compare({f'quantized {kind}: network, {n} threads': way
                     for (kind, n), way in ways.items() if n == threads}, 20)


def benchmark_evaluation(args):
    """evaluate_cls.py on two photos at 50 qualities; for 30 photos and 100 qualities, scaled."""
    with tempfile.TemporaryDirectory() as folder:
        for i, photo in enumerate(photos(args, 2)):
            cv2.imwrite(f'{folder}/{i}.png', photo)

        def evaluate(qualities):
            with unheard():
                evaluate_cls.main(['--in_path', folder, '--comp_type', args.comp_type,
                                   '--qualities', qualities, '--out_path', f'{folder}/out'])

        evaluate('50-50')
        taken = 1 / rate(lambda: evaluate('1-100:2'), 1)
    row('evaluation, 30 photos x 100 qualities', taken * 3000 / 100, 's',
        f'scaled from 100 images in {taken:.1f} s')


def benchmark_folder(args):
    """predict_cls.py on folders of photos of 768x512, and its two parts alone, in turns.

    They use all cores: decoding with a thread for each, the network, image by image, with
    those of LiteRT. The verdict on a JPEG file's header counts as prediction.
    """
    photo, = photos(args, 1)
    for suffix in ('.png', '.jpg'):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, f'{i}{suffix}') for i in range(args.folder_images)]
            for i, path in enumerate(paths):
                cv2.imwrite(str(path), np.roll(photo, 8 * i, axis=1),
                            [cv2.IMWRITE_JPEG_QUALITY, 85])
            time_folder(paths, args.comp_type)


def time_folder(paths, comp_type):
    pixels = [images.read_image(path) for path in paths]
    header = read_header(paths[0])
    predictor = Predictor(comp_type)

    def predict():
        for image in pixels:
            predictor.predict(image)
            if header:
                find_earlier(image, np.array(header.luma_table))

    def both():
        with unheard():
            predict_cls.main(['--in_path', str(paths[0].parent), '--comp_type', comp_type])

    with ThreadPoolExecutor(cores()) as pool:
        ways = {'decoding alone': lambda: list(pool.map(images.read_image, paths)),
                'prediction alone': predict, 'predict_cls.py': both}
        measured = {name: [] for name in ways}
        for _ in range(1 + ROUNDS):
            for name, way in ways.items():
                began = time.process_time()
                speed = rate(way, len(paths))
                measured[name].append((speed, (time.process_time() - began) / len(paths)))
    share = statistics.median(whole / min(*parts) for *parts, whole in zip(
        *([speed for speed, _ in rounds[1:]] for rounds in measured.values())))
    for name, rounds in measured.items():
        speed, seconds = (statistics.median(column) for column in zip(*rounds[1:]))
        note = f'; {share:.2f} of the slower part alone' * (name == 'predict_cls.py')
        row(f'folder of {paths[0].suffix[1:].upper()}, {name}', speed, 'images/s',
            f'{1000 * seconds:.1f} ms of a core each{note}')


def benchmark_refinement(args):
    """find_quality, in processor time of all threads together: what it takes on one core."""
    photo, = photos(args, 1)
    for width, height in ((768, 512), (1152, 864), (8192, 6144)):
        coded = images.compress(cv2.resize(photo, (width, height)), 75)
        cases = {'grid known': partial(find_quality, coded, grid=(0, 0)),
                 'grid unknown': partial(find_quality, np.ascontiguousarray(coded[3:, 5:]))}
        for name, work in cases.items():
            work()
            times = []
            for _ in range(20):
                began = time.process_time()
                work()
                times.append(time.process_time() - began)
            row(f'refinement, {width}x{height}, {name}', 1000 * statistics.median(times), 'ms',
                'processor time')


def compare(ways, rounds, amount=1):
    """A row for each way, a dict of functions that do `amount` things: time for one, and ratio."""
    for way in ways.values():
        way()
    times = [[1 / rate(way, amount) for way in ways.values()] for _ in range(rounds)]
    first = next(iter(ways))
    for name, column in zip(ways, zip(*times)):
        ratio = statistics.median(line[0] / t for t, line in zip(column, times))
        row(name, 1000 * statistics.median(column), 'ms',
            '' if name == first else f'{ratio:.1f} x as fast as the first')


PARTS = {'start': benchmark_start, 'prediction': benchmark_prediction,
         'automatic': benchmark_automatic, 'quantized': benchmark_quantized,
         'data': benchmark_data, 'training': benchmark_training,
         'evaluation': benchmark_evaluation, 'folder': benchmark_folder,
         'refinement': benchmark_refinement}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--in_path', default=SAMPLES, help='photos (default: sample_image)')
    parser.add_argument('--comp_type', default='jpeg_paper')
    parser.add_argument('--num_samples', type=int, default=20000, metavar='N',
                        help='patches that gen_data.py makes for each quality (default: those of '
                        'batch_train_jpeg_paper.sh, %(default)s)')
    parser.add_argument('--folder_images', type=int, default=96, help='photos in a folder')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS),
                        help='default: all')
    args = parser.parse_args()
    print(f'{os.cpu_count()} cores, {args.comp_type}, training batch {BATCH}')
    for part in args.parts:
        PARTS[part](args)


if __name__ == '__main__':
    main()
