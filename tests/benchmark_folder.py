"""Part of benchmark.py on folders: how much of what the cores can do is reached, and memory."""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2

from benchmark_table import (EDITED, HIDDEN, HUNDRED_MILLION, JPEG, NEVER, QUALITIES, on_one_core,
                             photos, row, write_image)
from conftest import CLASSIFIER

from classifier.environment import cores
from classifier.images import MAX_PIXELS
from classifier.predictor import Predictor
from classifier.report import look_at

ALONE = 48  # images of a folder that are looked at one after the other
PHOTOS, RUNS = 25, 3
KINDS = {'PNG': (HIDDEN, NEVER, EDITED), 'JPEG': (JPEG,)}


def folders(args: argparse.Namespace) -> None:
    """predict_cls.py in automatic mode on folders of files, and their images one by one.

    The cores can do what the images take, user and system time summed, divided by their number;
    that part of the time of predict_cls.py, from its start to its end, is the share.
    """
    some = photos(args.in_path, PHOTOS)
    for name, kinds in KINDS.items():
        with tempfile.TemporaryDirectory() as out:
            folder = Path(out) / 'images'
            folder.mkdir()
            paths = [write_image(folder, i, kinds[i % len(kinds)], some[i % PHOTOS],
                                 QUALITIES[i // len(kinds) % len(QUALITIES)])
                     for i in range(args.folder_images)]
            time_folder(name, paths, Path(out))


def time_folder(name: str, paths: list[Path], out: Path) -> None:
    """Rows of one folder."""
    predictor, step = Predictor(threads=1), max(1, len(paths) // ALONE // 6 * 6 + 1)
    chosen = paths[::step][:ALONE]
    outputs = {'--csv': out / 'rows.csv', '--report': out / 'page.html'}
    cv2.setNumThreads(1)
    look_at(chosen[0], None, False, MAX_PIXELS, predictor)
    alone, runs = [], {option: [] for option in outputs}
    for _ in range(RUNS):  # in turns
        alone.append(on_one_core(lambda: [look_at(path, None, False, MAX_PIXELS, predictor)
                                          for path in chosen], len(chosen)))
        for option, file in outputs.items():
            runs[option].append(run(paths[0].parent, option, file))
            Path(f'{file}.run').unlink(missing_ok=True)
    cv2.setNumThreads(-1)
    row(f'folder of {name}, one by one', statistics.median(alone), 'ms',
        'a file, of one core, decoding and all')
    for option, found in runs.items():
        seconds, used, _ = (statistics.median(column) for column in zip(*found))
        share = statistics.median(len(paths) * ms / 1000 / cores() / wall
                                  for ms, (wall, *_) in zip(alone, found))
        row(f'folder of {name}, {option}', len(paths) / seconds, 'images/s',
            f'{share:.2f} of what the cores can do; {1000 * used / len(paths):.1f} ms of a core '
            'each, start and end included')
    used = statistics.median(used for _, used, _ in runs['--csv'])
    row(f'folder of {name}, 100 million images', 1000 * used / len(paths) * HUNDRED_MILLION,
        'core-hours')
    few = paths[0].parent.parent / 'few'
    few.mkdir()
    for path in paths[:len(paths) // 4]:
        (few / path.name).symlink_to(path)
    row(f'folder of {name}, peak memory', max(memory for *_, memory in runs['--csv']), 'MB',
        f'all processes together; {run(few, "--csv", out / "few.csv")[2]:.0f} MB for a quarter '
        f'of the {len(paths):,} images')


def run(folder: Path, option: str, file: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory in MB of predict_cls.py on a folder."""
    before, began = os.times(), time.perf_counter()
    process = subprocess.Popen([sys.executable, CLASSIFIER / 'predict_cls.py', folder, '--quiet',
                                option, file], stdout=subprocess.DEVNULL)
    peak, ended = [0.0], threading.Event()

    def watch():
        while not ended.wait(0.1):
            peak.append(memory_of(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    seconds, after = time.perf_counter() - began, os.times()
    ended.set()
    watcher.join()
    if status:
        raise RuntimeError(f'predict_cls.py ended with status {status}')
    used = sum(after[2:4]) - sum(before[2:4])
    return seconds, used, max(peak)


def memory_of(pid: int) -> float:
    """MB that a process and those that it started have in memory; 0 where there is no /proc.

    What they share with each other counts once for each of them.
    """
    kilobytes = 0
    try:
        for task in Path(f'/proc/{pid}/task').iterdir():
            for child in (task / 'children').read_text().split():
                kilobytes += 1000 * memory_of(int(child))
        status = Path(f'/proc/{pid}/status').read_text()
        kilobytes += next((int(line.split()[1]) for line in status.splitlines()
                           if line.startswith('VmRSS')), 0)
    except OSError:  # it has ended
        pass
    return kilobytes / 1000
