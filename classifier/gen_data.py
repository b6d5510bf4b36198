#!/usr/bin/env python3
"""Make training patches: every image at every JPEG quality, cut on the block grid.

    python3 classifier/gen_data.py --in_path DIV2K_train_HR --comp_type jpeg_paper \\
        --num_samples 20000 --hdf5_name train.h5 --out_path out

writes 20,000 patches for each of the 100 qualities, spread evenly over the images.
The same command with the same seed writes the same file, whatever the number of
cores. Started again after an interruption, even a kill, it goes on where it was.
"""
import sys
if __name__ == '__main__':  # from here on Ctrl-C leaves no traceback
    sys.excepthook = lambda *error: error[0] is KeyboardInterrupt or sys.__excepthook__(*error)
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from classifier.batch import ordered_map
from classifier.cli import MAX_SEED, Progress, command, count, script_parser, warn
from classifier.edits import EDITED_SHARE, edited
from classifier.environment import cores
from classifier.errors import InputError
from classifier.files import check_writable, naming, put_in_place, whole_file
from classifier.images import (CHROMA, MAX_PIXELS, MIXED, compress, draw_chroma, list_images,
                               read_image)
from classifier.models import COMP_TYPES, CompType, get_comp_type
from classifier.patches import DIGEST, REDRAWS, content_digest
from classifier.sources import usable_images

import cv2  # after classifier, which says what to type where it is missing
import h5py
import numpy as np

HDF5_HEADERS = 8192  # bytes in a file beside the data, at most


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked; without `argv` those of the command line."""
    parser = script_parser(__doc__)
    given = parser.add_argument_group('input')
    given.add_argument('--in_path', metavar='DIR', required=True,
                       help='folder of lossless photos, never JPEG')
    given.add_argument('--recursive', action='store_true', help='subfolders too')
    given.add_argument('--max_pixels', type=count(1), default=MAX_PIXELS, metavar='N',
                       help=f'leave larger images out, unread (default: {MAX_PIXELS})')
    made = parser.add_argument_group('patches')
    made.add_argument('--num_samples', required=True, type=count(1), metavar='N',
                      help='patches for each quality, over all images')
    made.add_argument('--comp_type', metavar='NAME', required=True, help=', '.join(COMP_TYPES))
    made.add_argument('--patch_size', type=count(16), default=24, metavar='PX',
                      help='side of the stored patches: 24 for random crops (default), 16')
    mix = ', '.join(f'{name} ({100 * share:g} %%)' for name, share in MIXED.items())
    made.add_argument('--chroma', choices=CHROMA, default='4:2:0', help='4:2:0 (default), or '
                      f'mixed: for each image at each quality one of {mix}')
    made.add_argument('--uncompressed', type=count(0), default=0, metavar='N',
                      help='N patches more, over all images, of the images as they are, labelled '
                      '100 (default: 0)')
    made.add_argument('--edits', action='store_true', help='edit images after compression '
                      f'({100 * EDITED_SHARE:g} %% of them): resize, blur, recolour, turn ...')
    made.add_argument('--seed', type=count(0, MAX_SEED), default=0, metavar='S',
                      help='of all that is random (default: 0)')
    output = parser.add_argument_group('output')
    output.add_argument('--hdf5_name', metavar='FILE', required=True,
                        help='name of the file to write')
    output.add_argument('--out_path', metavar='DIR', default='.',
                        help='folder to write it to (default: here)')
    output.add_argument('--save_image', action='store_true',
                        help='also write every compressed image as PNG beside the file')
    return parser.parse_args(argv)


def share_out(totals: Sequence[int], images: int, rng: np.random.Generator) -> np.ndarray:
    """How many patches each image gives at each level.

    Parameters
    ----------
    totals : sequence of int
        Patches at each level, over all images.
    images : int
        How many there are.
    rng : np.random.Generator
        Draws the images that a remainder goes to.

    Returns
    -------
    int array, shape (images, levels)
        The columns add up to `totals`.
    """
    counts = np.empty((images, len(totals)), int)
    for column, total in zip(counts.T, totals):
        column[:] = total // images
        column[rng.permutation(images)[:total % images]] += 1
    return counts


def random_patches(image: np.ndarray, number: int, size: int, block: int,
                   rng: np.random.Generator) -> np.ndarray:
    """Patches from random positions on the block grid of an image.

    Flat ones (one colour all over, so that the gradient is 0) are drawn again, up to 3 times.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
    number : int
    size, block : int
        Sides of a patch and of a coding block, in px.
    rng : np.random.Generator

    Returns
    -------
    uint8 array, shape (number, size, size, 3)
    """
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))[
        ::block, ::block]
    patches = np.empty((number, size, size, 3), np.uint8)
    flat = np.arange(number)
    for _ in range(1 + REDRAWS):
        rows, cols = rng.integers(windows.shape[:2], size=(len(flat), 2)).T
        patches[flat] = drawn = windows[rows, cols].transpose(0, 2, 3, 1)
        flat = flat[(drawn == drawn[:, :1, :1]).all(axis=(1, 2, 3))]
    return patches


def image_patches(path: Path, counts: np.ndarray, size: int, comp_type: CompType, chroma: str,
                  edits: bool, rng: np.random.Generator,
                  save_folder: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """All patches of one image, shuffled: uint8 (n, size, size, 3) and (n,).

    `counts` says how many at each quality and, last, of the image as it is.
    """
    image = read_image(path, math.inf)  # `usable_images` has looked at its size
    parts, best = [np.empty((0, size, size, 3), np.uint8)], comp_type.max_quality
    for level, number in enumerate(counts, start=1):
        if number or save_folder and level <= best:
            coded, block = image, comp_type.block
            if level <= best:
                coded = compress(image, level, draw_chroma(chroma, rng))
            if edits:
                coded, changed = edited(coded, rng, size)
                block = 1 if changed else block  # the grid has gone
            parts.append(random_patches(coded, number, size, block, rng))
            if save_folder:
                with whole_file(save_folder / f'{path.name}_q{level:03}.png', 'wb') as file:
                    file.write(cv2.imencode('.png', coded)[1])
    levels = np.minimum(np.arange(1, len(counts) + 1), best)
    qualities = np.repeat(levels.astype(np.uint8), counts)
    order = rng.permutation(len(qualities))
    return np.concatenate(parts)[order], qualities[order]


def open_part(path: Path, total: int, size: int, recipe: str) -> h5py.File:
    """The file under its working name, which HDF5 locks: what a stopped run left, or a new one.

    A new one is laid out at once and its space reserved: a killed run leaves a file that can be
    read, no disk gets full in the middle, and patches are written to their place as plain bytes,
    for HDF5 crashes at a write that fails. The quality of a patch that is not there yet is 0.
    """
    if path.is_symlink():
        path.unlink()  # not ours: what it points to is not to be written over
    try:
        file = h5py.File(path, 'r+')
        if (file.attrs.get('recipe') == recipe
                and all(file[name].id.get_offset() for name in ('x_noise', 'y_quality'))):
            return file
        file.close()
    except BlockingIOError:
        raise InputError(f'{path}: another run is writing this file; wait for it') from None
    except (OSError, RuntimeError, ValueError, KeyError):
        pass  # there is none, or one killed while it was laid out
    path.unlink(missing_ok=True)
    shapes = {'x_noise': (total, size, size, 3), 'y_quality': (total,)}
    needed = sum(map(math.prod, shapes.values())) + HDF5_HEADERS
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(f'{path.parent}: {needed / 1e9:.3f} GB are needed, {free / 1e9:.3f} GB '
                         'are free; lower --num_samples or choose another --out_path')
    try:
        with path.open('wb') as file:
            reserve(file.fileno(), needed)
        file = h5py.File(path, 'w')
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        for name, shape in shapes.items():
            file.create_dataset(name, shape, np.uint8, dcpl=layout)
        file.attrs[DIGEST] = np.bytes_(64 * b'0')  # the true one comes in its place
        file.attrs['recipe'] = recipe
        file.flush()
        reserve(file.id.get_vfd_handle(), path.stat().st_size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return file


def reserve(handle: int, size: int) -> None:
    """Make an open file that large; OSError where there is no space for that."""
    os.ftruncate(handle, size)
    if hasattr(os, 'posix_fallocate'):  # not on macOS
        os.posix_fallocate(handle, 0, size)


def write_patches(file: h5py.File, paths: list[Path], counts: np.ndarray, work: Callable) -> None:
    """Write what is missing in an open file: `work(index)` gives the patches of an image."""
    x, y = file['x_noise'], file['y_quality']
    ends, done = counts.sum(axis=1).cumsum(), 0
    try:
        with open(file.id.get_vfd_handle(), 'r+b', closefd=False) as plain, \
                ThreadPoolExecutor(cores()) as pool:
            plain.seek(y.id.get_offset())
            qualities = np.split(np.frombuffer(plain.read(len(y)), np.uint8), ends[:-1])
            todo = [i for i, own in enumerate(qualities) if not own.size or not own.all()]
            done = len(paths) - len(todo)
            with Progress(len(paths), 'images', done) as progress:
                for index, own in zip(todo, ordered_map(pool, work, todo, 2 * cores())):
                    for data, patches in zip((x, y), own):
                        if data is y:
                            os.fsync(plain)  # the patches, before the qualities say they are there
                        first = ends[index] - len(patches)
                        plain.seek(data.id.get_offset() + first * math.prod(data.shape[1:]))
                        plain.write(patches)
                        plain.flush()
                    done += 1
                    progress.update(done)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f'{done} of {len(paths)} images are done; the same command '
                                'goes on from there') from None
    file.attrs.modify(DIGEST, np.bytes_(content_digest(x, y)))
    file.flush()
    os.fsync(file.id.get_vfd_handle())


@command
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    comp_type = get_comp_type(args.comp_type)
    final = Path(args.out_path) / args.hdf5_name
    check_writable(final)
    part = final.with_name(final.name + '.part')
    save_folder = final.with_name(final.stem + '_images') if args.save_image else None
    if save_folder:
        save_folder.mkdir(exist_ok=True)
    cv2.setNumThreads(1)  # the images share the cores, not the parts of one image
    paths = usable_images(list_images(args.in_path, args.recursive, warn), args.patch_size,
                          args.max_pixels)
    totals = comp_type.max_quality * [args.num_samples] + [args.uncompressed]
    counts = share_out(totals, len(paths), np.random.default_rng(args.seed))
    recipe = hashlib.sha256(json.dumps(
        [comp_type.name, totals, args.patch_size, args.chroma, args.edits, args.seed,
         args.save_image, [[p.name, p.stat().st_size] for p in paths]]).encode()).hexdigest()

    def work(index):
        rng = np.random.default_rng((args.seed, index))
        return image_patches(paths[index], counts[index], args.patch_size, comp_type,
                             args.chroma, args.edits, rng, save_folder)

    total = int(counts.sum())
    with naming(final), open_part(part, total, args.patch_size, recipe) as file:
        write_patches(file, paths, counts, work)
    put_in_place(part, final)
    print(f'{final}: {total} patches from {len(paths)} images')


if __name__ == '__main__':
    sys.exit(main())
