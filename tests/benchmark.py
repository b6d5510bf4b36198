"""How fast data is made and the network trained and run, on the machine this runs on.

    python3 tests/benchmark.py [--in_path FOLDER_OF_PHOTOS] [--comp_type jpeg_paper]
    python3 tests/benchmark.py --folder 40

Things that are compared run in turns; medians are printed.
"""
import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from conftest import CLASSIFIER, SAMPLES  # also puts classifier/ on the path

import cv2
import numpy as np

import gen_data
import images
import predict_cls
from lattice import find_quality
from models import (COMP_TYPES, RUNTIMES, Predictor, best_folder, cores, extract_patches,
                    load_network)
from patches import PatchFile
from recompression import find_earlier
from train import SCHEDULE, patch_trainer, training_batches

ROUNDS, STEPS, BATCH = 5, 10, 1024


def rate(work, amount):
    """`amount` a second for one call of `work`."""
    began = time.perf_counter()
    work()
    return amount / (time.perf_counter() - began)


def benchmark_training(path, comp_type):
    """The training step on one resident batch and on the full pipeline, in turns."""
    file = PatchFile(path, comp_type)
    trainer = patch_trainer(comp_type, SCHEDULE | {'epochs': 1, 'steps_per_epoch': 1000})
    batches = iter(training_batches(file, BATCH, 0, 0))
    resident = next(batches)

    def step_alone():
        for _ in range(STEPS):
            trainer.step(*resident)[0].numpy()

    def pipeline():
        for _ in range(STEPS):
            trainer.step(*next(batches))[0].numpy()

    step_alone()
    rates = [(rate(step_alone, STEPS * BATCH), rate(pipeline, STEPS * BATCH))
             for _ in range(ROUNDS)]
    alone, full = (statistics.median(column) for column in zip(*rates))
    ratio = statistics.median(f / a for a, f in rates)
    print(f'training step on a resident batch: {alone:,.0f} patches/s')
    print(f'training with the full pipeline:   {full:,.0f} patches/s, '
          f'{ratio:.2f} of the step alone')


def benchmark_start(comp_type):
    """predict_cls.py on one image, from the start of the process to its end."""
    def start(runtime):
        subprocess.run([sys.executable, CLASSIFIER / 'predict_cls.py', '--in_path',
                        SAMPLES / 'coffee_jpeg_q20.png', '--comp_type', comp_type.name,
                        '--runtime', runtime], check=True, stdout=subprocess.DEVNULL)

    compare('predict_cls.py on one image', {r: partial(start, r) for r in RUNTIMES}, ROUNDS)


def benchmark_prediction(comp_type):
    """One image of 256 patches, decoding excluded."""
    image = images.read_image(SAMPLES / 'raccoon.png')
    ways = {runtime: partial(Predictor(comp_type.name, runtime=runtime).predict, image)
            for runtime in RUNTIMES}
    network = load_network(comp_type, best_folder(comp_type))

    def reference():
        output = network.predict(extract_patches(image, comp_type).astype(np.float32), verbose=0)
        kept = []
        for confidence, quality in output:
            if confidence > comp_type.threshold:
                kept.append(quality)
        return np.median(kept)

    compare('prediction, one image', ways | {"Keras' predict and a loop": reference}, 20)


def benchmark_refinement():
    """find_quality, in processor time of all threads together: what it takes on one core."""
    photo = images.read_image(SAMPLES / 'raccoon.png')
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
            print(f'refinement, {width}x{height}, {name}: {1000 * statistics.median(times):.0f} ms')


def benchmark_folder(comp_type, number, suffix):
    """predict_cls.py on a folder of photos of 768x512, and its two parts alone, in turns.

    They use all cores: decoding with a thread for each, the network, image by image, with
    those of LiteRT. The verdict on a JPEG file's header counts as prediction.
    """
    photo = cv2.resize(images.read_image(SAMPLES / 'raccoon.png'), (768, 512))
    predictor = Predictor(comp_type.name)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(cores()) as pool, \
            open(os.devnull, 'w') as silence:
        paths = [Path(folder, f'{i}{suffix}') for i in range(number)]
        for i, path in enumerate(paths):
            cv2.imwrite(str(path), np.roll(photo, 8 * i, axis=1), [cv2.IMWRITE_JPEG_QUALITY, 85])
        pixels = [images.read_image(path) for path in paths]
        header = images.read_header(paths[0])

        def decode():
            list(pool.map(images.read_image, paths))

        def predict():
            for image in pixels:
                predictor.predict(image)
                if header:
                    find_earlier(image, np.array(header.luma_table))

        def both():
            with contextlib.redirect_stdout(silence):
                predict_cls.main(['--in_path', folder, '--comp_type', comp_type.name])

        ways = {'decoding alone': decode, 'prediction alone': predict, 'predict_cls.py': both}
        measured = {name: [] for name in ways}
        for _ in range(1 + ROUNDS):
            for name, way in ways.items():
                began = time.process_time()
                speed = rate(way, number)
                measured[name].append((speed, (time.process_time() - began) / number))
    for name, rounds in measured.items():
        speed, seconds = (statistics.median(column) for column in zip(*rounds[1:]))
        print(f'{suffix}, {name}: {speed:.1f} images/s, {1000 * seconds:.1f} ms of a core each')
    share = statistics.median(whole / min(*parts) for *parts, whole in zip(
        *([speed for speed, _ in rounds[1:]] for rounds in measured.values())))
    print(f'{suffix}, predict_cls.py: {share:.2f} of the slower part alone')


def compare(title, ways, rounds):
    """Print the median time of each way, a dict of functions, and its ratio to the first."""
    for way in ways.values():
        way()
    times = [[1 / rate(way, 1) for way in ways.values()] for _ in range(rounds)]
    for name, column in zip(ways, zip(*times)):
        ratio = statistics.median(t / row[0] for t, row in zip(column, times))
        print(f'{title}, {name}: {1000 * statistics.median(column):,.0f} ms, {ratio:.1f} x')


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--in_path', default=SAMPLES, help='photos (default: sample_image)')
    parser.add_argument('--comp_type', default='jpeg_paper')
    parser.add_argument('--num_samples', type=int, default=5000, help='patches for each quality')
    parser.add_argument('--folder', type=int, metavar='N',
                        help='measure predict_cls.py on a folder of N photos, nothing else')
    args = parser.parse_args()
    if args.folder:
        print(f'{cores()} cores, {args.comp_type}')
        for suffix in ('.png', '.jpg'):
            benchmark_folder(COMP_TYPES[args.comp_type], args.folder, suffix)
        return
    print(f'{os.cpu_count()} cores, {args.comp_type}, batch {BATCH}')
    with tempfile.TemporaryDirectory() as folder:
        made = rate(lambda: gen_data.main([
            '--in_path', str(args.in_path), '--num_samples', str(args.num_samples), '--hdf5_name',
            'a.h5', '--comp_type', args.comp_type, '--out_path', folder]), 100 * args.num_samples)
        print(f'gen_data.py:                       {made:,.0f} patches/s')
        comp_type = COMP_TYPES[args.comp_type]
        benchmark_training(Path(folder) / 'a.h5', comp_type)
    benchmark_start(comp_type)
    benchmark_prediction(comp_type)
    benchmark_refinement()


if __name__ == '__main__':
    main()
