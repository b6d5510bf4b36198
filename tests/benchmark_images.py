"""Parts of benchmark.py on single images: start, network, automatic mode, recovery."""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmark_table import (EDITED, HUNDRED_MILLION, JPEG, KINDS, NEVER, QUALITIES, ROUNDS,
                             compare, in_turns, on_one_core, photos, row, unheard, write_image)
from conftest import CLASSIFIER, SAMPLES

from classifier import images, runtime, to_tflite
from classifier.checkpoints import MODEL_FILE, best_folder, load_network
from classifier.errors import InputError
from classifier.forensics.header import known_header
from classifier.forensics.search import find_lattice
from classifier.images import MAX_PIXELS
from classifier.models import COMP_TYPES, CompType, extract_patches
from classifier.predictor import Predictor
from classifier.recovery.recover import recover
from classifier.report import look_at
from classifier.runtime import RUNTIMES

OF_EACH_KIND, START_ROUNDS = len(QUALITIES), 3  # images; rounds of starting predict_cls.py


def start(args: argparse.Namespace) -> None:
    """predict_cls.py on one image, from the start of the process to its end."""
    def run(*options):
        subprocess.run([sys.executable, CLASSIFIER / 'predict_cls.py',
                        SAMPLES / 'coffee_jpeg_q20.png', *options], check=True,
                       stdout=subprocess.DEVNULL)

    network = '--comp_type', args.comp_type
    compare({'cold start, tensorflow': partial(run, *network, '--runtime', 'tensorflow'),
             'cold start, litert': partial(run, *network, '--runtime', 'litert'),
             'cold start, automatic': run}, START_ROUNDS)


def references_way(comp_type: CompType):
    """From an image to its quality as the reference has it: Keras' predict and a loop."""
    network = load_network(comp_type, best_folder(comp_type))

    def predict(image):
        output = network.predict(extract_patches(image, comp_type).astype(np.float32), verbose=0)
        kept = []
        for confidence, quality in output:
            if confidence > comp_type.threshold:
                kept.append(quality)
        return np.median(kept) if kept else 100
    return predict


def network(args: argparse.Namespace) -> None:
    """The network on 256 patches of decoded images, on all cores: the mean of ten qualities."""
    comp_type = COMP_TYPES[args.comp_type]
    coded = [images.compress(photo, q) for photo in photos(args.in_path, 2)
             for q in range(5, 100, 10)]
    default = Predictor(comp_type.name)
    ways = {"Keras' predict and a loop": references_way(comp_type),
            **{f'{name}, all patches': Predictor(comp_type.name, runtime=name,
                                                 patches='all').predict
               for name in reversed(RUNTIMES)}, 'default': default.predict}

    def over_all(way):
        for image in coded:
            way(image)

    compare({f'network, {name}': partial(over_all, way) for name, way in ways.items()}, ROUNDS,
            len(coded))
    row('patches that the default looked at',
        np.mean([default.predict(image).patches for image in coded]), 'of 256')


def automatic(args: argparse.Namespace) -> None:
    """Image files of each kind in automatic mode: its parts, and others' ways, on one core."""
    cv2.setNumThreads(1)
    predictor, comp_type = Predictor(threads=1), COMP_TYPES[args.comp_type]
    some = photos(args.in_path, OF_EACH_KIND)
    decoded = [images.compress(photo, 75) for photo in some]
    ways = {f"{args.comp_type}, Keras' predict and a loop": references_way(comp_type),
            **{f'{args.comp_type}, {name}, all patches': Predictor(
                args.comp_type, runtime=name, patches='all', threads=1).predict
               for name in reversed(RUNTIMES)}}
    reference, *others = medians_on_one_core({name: partial(over, way, decoded)
                                              for name, way in ways.items()})
    for name, ms in zip(ways, (reference, *others)):
        row(f'one core, {name}', ms, 'ms', as_fast(reference, ms) * (ms != reference))
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            paths = [write_image(Path(folder), i, kind, photo, QUALITIES[i])
                     for i, photo in enumerate(some)]
            one_kind(kind, paths, predictor, reference)
    cv2.setNumThreads(-1)


def over(work, *columns):
    """Do it for each line of the columns."""
    for what in zip(*columns):
        work(*what)


def medians_on_one_core(ways: dict) -> list[float]:
    """Processor time in ms of one of OF_EACH_KIND images, for each way."""
    taken = in_turns(ways, partial(on_one_core, amount=OF_EACH_KIND))
    return [statistics.median(times) for times in taken.values()]


def as_fast(reference: float, ms: float) -> str:
    return f'{reference / ms:.1f} x as fast as the first'


def one_kind(kind: str, paths: list[Path], predictor: Predictor, reference: float) -> None:
    """Rows of one kind of image files."""
    headers = [known_header(path) for path in paths]
    tables = [header and header.luma_table for header in headers]
    pixels = [images.read_image(path) for path in paths]
    found = [predictor.predict(image, table=table) for image, table in zip(pixels, tables)]
    ways = {'decoding alone': partial(over, images.read_image, paths),
            'lattice alone': partial(over, lambda image, table: find_lattice(image, table=table),
                                     pixels, tables),
            'network alone': partial(over, predictor.ask_network, pixels),
            'earlier save, network where asked': partial(over, predictor.with_history, pixels,
                                                         found, headers),
            'all': partial(over, lambda path: look_at(path, None, False, MAX_PIXELS, predictor),
                           paths)}
    if kind in (NEVER, EDITED):  # is not looked for
        del ways['earlier save, network where asked']
    taken = dict(zip(ways, medians_on_one_core(ways)))
    for name, ms in taken.items():
        row(f'{kind}: {name}', ms, 'ms', as_fast(reference, ms) * (name == 'all'))
    if kind == JPEG:
        identify(paths)
    asked = sum(predictor.with_history(*of).patches > 0 for of in zip(pixels, found, headers))
    row(f'{kind}: 100 million of them', taken['all'] * HUNDRED_MILLION, 'core-hours',
        f'the network answered for {asked} of {len(paths)}')


def identify(paths: list[Path]) -> None:
    """ImageMagick's guess from the header alone, with the start of its process."""
    name = f"{JPEG}: ImageMagick's identify -format %Q"
    command = [shutil.which('identify')] if shutil.which('identify') else [
        shutil.which('magick'), 'identify']
    if not command[0]:
        row(name, None, 'ms', 'not installed')
        return

    def run(files):
        before = os.times()
        subprocess.run([*command, '-format', '%Q', *files], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        return 1000 * (after.children_user + after.children_system
                       - before.children_user - before.children_system)

    many, one = paths * 5, paths[:1]
    taken = in_turns({'many': lambda: run(many), 'one': lambda: run(one)}, lambda way: way())
    ms = (statistics.median(taken['many']) - statistics.median(taken['one'])) / (len(many) - 1)
    row(name, ms, 'ms', f'and {statistics.median(taken["one"]):.0f} ms to start; header only')


def recovery(args: argparse.Namespace) -> None:
    """--recover: the search for the JPEG file behind the pixels of photos at quality 75."""
    cv2.setNumThreads(1)
    some = photos(args.in_path, 3)
    for chroma in ('gray', '4:4:4', '4:2:0'):
        times, identical = [], 0
        for photo in some:
            image = images.compress(photo, 75, chroma)

            def work():
                nonlocal identical
                try:
                    identical += recover(image).difference.is_none
                except InputError:
                    pass
            times.append(on_one_core(work))
        row(f'--recover, {chroma}', statistics.median(times), 'ms',
            f'of one core; {identical} of {len(some)} identical')
    cv2.setNumThreads(-1)


def quantized(args: argparse.Namespace) -> None:
    """What to_tflite.py --quantize makes: size, and time of the network on 256 patches."""
    comp_type = COMP_TYPES[args.comp_type]
    patches = extract_patches(images.compress(photos(args.in_path, 1)[0], 75), comp_type)
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
