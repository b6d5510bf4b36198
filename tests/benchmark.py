"""How fast data is made and the network trained and run, on the machine this runs on.

    python3 tests/benchmark.py [--in_path FOLDER_OF_PHOTOS] [--comp_type jpeg_paper]

Things that are compared run in turns; medians are printed.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from conftest import CLASSIFIER, SAMPLES  # also puts classifier/ on the path

import cv2
import numpy as np

import gen_data
import images
from lattice import find_quality
from models import COMP_TYPES, RUNTIMES, Predictor, best_folder, extract_patches, load_network
from patches import PatchFile
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
    args = parser.parse_args()
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
