#!/usr/bin/env python3
"""Feed damaged image files to all that predict_cls.py does, with a small network.

    python3 tests/fuzz_images.py --mutants 20000 --seed 1

Each mutant of a valid file must give a row with a quality in 0..100, or with what its header
says and the reason why there is none, or an InputError: no other exception, no crash, not more
than 5 seconds of processor time and not 1 GB of memory. At the first that does not, the exit
status is not 0, and the file stays in --keep.
"""
import argparse
import faulthandler
import io
import resource
import signal
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

from conftest import SAMPLES, TINY, TINY_WEIGHTS  # also puts the repository on the path

import numpy as np
from PIL import Image

from classifier.errors import InputError
from classifier.models import COMP_TYPES
from classifier.predictor import Predictor
from classifier.report import look_at

SECONDS = 5
MEMORY = 1_000_000_000
MAX_PIXELS = 20_000_000  # so that a mutant that is a valid larger image stays below MEMORY
EXTREMES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF,
            0x80000000, 0xFFFFFFFF, 4096, 14_000]
SOURCES = {
    'baseline.jpg': ('RGB', 'JPEG', {}),
    'progressive.jpg': ('RGB', 'JPEG', {'progressive': True, 'restart_marker_blocks': 3}),
    'gray.jpg': ('L', 'JPEG', {}),
    'cmyk.jpg': ('CMYK', 'JPEG', {}),
    'two.mpo.jpg': ('RGB', 'MPO', {'save_all': True}),
    'rgb.png': ('RGB', 'PNG', {}),
    'palette.png': ('P', 'PNG', {}),
    'deep.png': ('I;16', 'PNG', {}),
    'frames.png': ('RGB', 'PNG', {'save_all': True}),
    'lossy.webp': ('RGB', 'WEBP', {}),
    'lossless.webp': ('RGBA', 'WEBP', {'lossless': True}),
    'frames.webp': ('RGB', 'WEBP', {'save_all': True}),
    'raw.tif': ('RGB', 'TIFF', {}),
    'lzw.tif': ('RGB', 'TIFF', {'compression': 'tiff_lzw'}),
    'deflate.tif': ('RGB', 'TIFF', {'compression': 'tiff_adobe_deflate'}),
    'jpeg.tif': ('RGB', 'TIFF', {'compression': 'jpeg'}),
    'fax.tif': ('1', 'TIFF', {'compression': 'group4'}),
    'pages.tif': ('L', 'TIFF', {'save_all': True}),
    'rgb.bmp': ('RGB', 'BMP', {}),
    'palette.bmp': ('P', 'BMP', {}),
    'a.gif.png': ('P', 'GIF', {}),
}


def sources():
    """Valid files of 64x64 px: {name: bytes}."""
    photo = Image.open(SAMPLES / 'raccoon.png').convert('RGB').crop((120, 90, 184, 154))
    files = {}
    for name, (mode, kind, options) in SOURCES.items():
        image = photo.convert('L').convert(mode) if mode == 'I;16' else photo.convert(mode)
        if options.get('save_all'):
            options = options | {'append_images': [image.rotate(180)]}
        out = io.BytesIO()
        image.save(out, kind, **options)
        files[name] = out.getvalue()
    files['rle.bmp'] = rle_bmp(np.asarray(photo.convert('L')))
    return files


def rle_bmp(gray):
    """A BMP of 8 bits with run lengths, which Pillow reads but does not write."""
    out = io.BytesIO()
    Image.fromarray(gray).save(out, 'BMP')
    header = bytearray(out.getvalue()[:54 + 1024])
    header[30] = 1
    rows = (b''.join(bytes([1, value]) for value in row) + b'\0\0' for row in gray)
    return bytes(header) + b''.join(rows) + b'\0\1'


def mutant(data, other, rng):
    """One to four random changes of a file; parts may come from `other`."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        size = max(len(data), 1)
        # Headers are short and matter most: every second change is among the first bytes.
        at = int(rng.integers(min(size, 200) if rng.random() < 0.5 else size))
        length = int(rng.integers(1, 1 + min(size, 64)))
        kind = rng.integers(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.integers(8)
        elif kind == 1:
            data[at:at + length] = rng.bytes(length)
        elif kind in (2, 3):
            width, order = [2, 4][rng.integers(2)], ['big', 'little'][rng.integers(2)]
            value = EXTREMES[rng.integers(len(EXTREMES))] % 256 ** width
            data[at:at + width] = value.to_bytes(width, order)
        elif kind == 4:
            del data[at:size if rng.random() < 0.5 else at + length]
        elif kind == 5:
            data[at:at] = data[at:at + length]
        elif kind == 6:
            data[at:at + length] = bytes(length)
        else:
            start = int(rng.integers(len(other)))
            data[at:at + length] = other[start:start + length]
    return bytes(data)


def with_checksums(png):
    """A PNG with the checksums of its chunks put right, so that changes get further in."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at:at + 4], 'big')
        if end + 4 > len(data):
            break
        data[end:end + 4] = zlib.crc32(data[at + 4:end]).to_bytes(4, 'big')
        at = end + 4
    return bytes(data)


def peak():
    """Highest memory use of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin'
                                                                 else 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mutants', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--keep', type=Path, help='folder for the last mutant')
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    COMP_TYPES['tiny'] = TINY
    predictor = Predictor('tiny', TINY_WEIGHTS)
    files = sources()
    names = list(files)
    read = Counter()
    predictor.predict(np.zeros((64, 64, 3), np.uint8))  # builds the graph
    before = peak()
    faulthandler.register(signal.SIGPROF, chain=True)
    for number in range(-len(names), args.mutants):  # the whole files first
        name = names[number % len(names)]
        data = files[name]
        if number >= 0:
            data = mutant(data, files[names[rng.integers(len(names))]], rng)
            if data[:4] == b'\x89PNG' and rng.random() < 0.7:
                data = with_checksums(data)
        path = folder / f'mutant_{name}'
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process, in C code too
        try:
            found = look_at(path, None, True, MAX_PIXELS, predictor)
            error = str(found) if isinstance(found, InputError) else found.error
            if error:
                assert number >= 0, f'the whole {name} was refused: {error}'
                assert '\n' not in error and str(path) not in error
            else:
                assert 0 <= found.row['quality'] <= 100
                read[name] += number >= 0
        except BaseException:
            print(f'mutant {number} of seed {args.seed}: {path}', file=sys.stderr)
            raise
        signal.setitimer(signal.ITIMER_PROF, 0)
        assert peak() - before < MEMORY, f'{path}: {(peak() - before) / 1e9:.1f} GB'
        path.unlink()
    for i, name in enumerate(names):
        print(f'{name:16} {len(range(i, args.mutants, len(names))):6} mutants, '
              f'{read[name]:6} could be read')
    print(f'{args.mutants} mutants of {len(names)} files, {sum(read.values())} could be read; '
          f'{(peak() - before) / 1e6:.0f} MB of memory')


if __name__ == '__main__':
    main()
