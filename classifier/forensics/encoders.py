"""Which program wrote a JPEG file, and at which setting, by its quantization tables.

    known = identify(Tables(luma, chroma, ids=(1, 2, 3), factors=((2, 2), (1, 1), (1, 1))))
    known.encoder, known.setting        # 'mozjpeg', 'mozjpeg 75'

An encoder is named only if every step of every table is the one that it writes at that setting.
Programs that share tables cannot be told apart: 'libjpeg' is also what Pillow, OpenCV,
ImageMagick, GIMP and many cameras write. The tables and fingerprints are data, in
encoder_tables.json, each with its source.
"""
import functools
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from classifier.forensics.jpeg_markers import ZIGZAG
from classifier.forensics.tables import (CHROMA, LUMA, MAX_STEP, MAX_WIDE_STEP, NEW_CHROMA, TURNED,
                                         nearest_quality, qualities_of)

UNKNOWN = 'unknown'
NOT_ZIGZAG = 'steps not in zigzag order'


@dataclass(frozen=True)
class Tables:
    """What encoders are told by: the tables, int arrays of 64 steps row by row, and the frame."""
    luma: np.ndarray
    chroma: tuple[np.ndarray, ...] = ()  # of Cb and of Cr; one if they share it, or none
    ids: tuple[int, ...] = ()            # of the components
    factors: tuple[tuple[int, int], ...] = ()  # sampling: horizontal, vertical
    extended: bool = False               # its frame is of the SOF1 kind

    def mapped(self, order: np.ndarray) -> 'Tables':
        """The same with the steps in another order."""
        return replace(self, luma=self.luma[order], chroma=tuple(c[order] for c in self.chroma))


class Encoder(NamedTuple):
    """The encoder, its setting in words, and libjpeg's qualities if its tables have them."""
    encoder: str
    setting: str | None = None
    quality: int | None = None
    chroma_quality: int | None = None


@functools.lru_cache(maxsize=1)
def encoder_data() -> dict:
    """The content of encoder_tables.json."""
    with open(Path(__file__).with_name('encoder_tables.json'), encoding='utf-8') as file:
        return json.load(file)


def identify(tables: Tables) -> Encoder:
    """The encoder that writes these very tables.

    Parameters
    ----------
    tables : Tables
        None of them with a step of 0.

    Returns
    -------
    Encoder
        With the encoder 'unknown' if there is none.
    """
    for family in (_guetzli, _libjpeg, _mozjpeg, _md5, _jpegli, _ffmpeg, _sums):
        if known := family(tables):
            return known
    turned, read_on = tables.mapped(TURNED), tables.mapped(ZIGZAG)
    for family in (_libjpeg, _mozjpeg, _md5):
        if known := family(turned):
            return known._replace(encoder=f'{known.encoder}, tables turned by 90 degrees')
    if known := _libjpeg(read_on):
        return known._replace(encoder=f'libjpeg, {NOT_ZIGZAG}')
    quality, distance = nearest_quality(read_on.luma)
    if distance < min(0.15, nearest_quality(tables.luma)[1] / 3):  # 0.08 and 0.63 in a camera's
        chroma = [nearest_quality(table, chroma=True)[0] for table in read_on.chroma[:1]]
        return Encoder(f'{UNKNOWN}, {NOT_ZIGZAG}', None, quality, *chroma)
    return Encoder(UNKNOWN)


def _scaled(tables, name, luma_base, chroma_base, suffix=''):
    """An encoder that scales its tables as libjpeg does, if luma and chroma are such tables."""
    luma, wide = qualities_of(tables.luma, luma_base)
    chroma = luma
    if not luma or any((table != tables.chroma[0]).any() for table in tables.chroma):
        return None
    if tables.chroma:
        chroma, wide_chroma = qualities_of(tables.chroma[0], chroma_base)
        if not chroma:
            return None
        wide |= wide_chroma
    if both := sorted(set(luma) & set(chroma)):  # several only for flat or very coarse tables
        luma, chroma, text = both, both, '-'.join(map(str, dict.fromkeys((both[0], both[-1]))))
    else:
        text = f'{luma[0]},{chroma[0]}'
    suffix += ', tables of 16 bits' if wide else ''
    return Encoder(name, f'{name} {text}{suffix}', luma[0], chroma[0] if tables.chroma else None)


def _libjpeg(tables):
    return (_scaled(tables, 'libjpeg', LUMA, CHROMA)
            or _scaled(tables, 'libjpeg', LUMA, NEW_CHROMA, ' (jpeg-9e or newer)'))


@functools.lru_cache(maxsize=1)
def _mozjpeg_bases():
    return {number: [tuple(base) for base in bases]
            for number, bases in encoder_data()['mozjpeg']['tables'].items()}


def _mozjpeg(tables):
    for number, bases in _mozjpeg_bases().items():
        suffix = '' if number == '3' else f', -quant-table {number}'
        if known := _scaled(tables, 'mozjpeg', *bases, suffix):
            known = known._replace(quality=None, chroma_quality=None)
            if number == '1':  # nothing in these tables is mozjpeg's own
                return Encoder(f'{UNKNOWN}, flat tables', f'as {known.setting}')
            return known
    return None


def _md5(tables):
    """ExifTool's fingerprint: of the data of the DQT segments, each table with its number."""
    parts = (tables.luma, *tables.chroma)
    if len(parts) > 2 or max(map(np.max, parts)) > MAX_STEP:
        return None
    data = b''.join(bytes([i, *part[ZIGZAG].tolist()]) for i, part in enumerate(parts))
    return _by_md5().get(hashlib.md5(data, usedforsecurity=False).hexdigest())


@functools.lru_cache(maxsize=1)
def _by_md5():
    known, data = {}, encoder_data()['md5']
    for i, digest in enumerate(data['Save for Web']):
        known[digest] = Encoder('Photoshop, Save for Web', f'Save for Web {i} of 100')
    for i, digest in enumerate(data['Photoshop or Lightroom, from 3']):
        known[digest] = Encoder('Photoshop', f'Photoshop {i + 3} of 12')
    for name in ('Photoshop, gray', 'Photoshop'):
        for i, digest in enumerate(data[name]):
            known[digest] = Encoder('Photoshop', f'Photoshop {i} of 12')
    return known


def _sums(tables):
    """GIMP's fingerprint: a hash of the tables, their sums, and the sampling of the luma."""
    if not tables.chroma or not tables.factors:
        return None
    sums = int(tables.luma.sum()), int(tables.chroma[0].sum())
    for turn, order in (('', slice(None)), (', tables turned by 90 degrees', TURNED)):
        value = gimp_hash([table[order] for table in (tables.luma, *tables.chroma)])
        if known := _by_sums().get((value, *sums, tables.factors[0][::-1 if turn else 1])):
            return known._replace(encoder=known.encoder + turn)
    return None


def gimp_hash(tables: list[np.ndarray]) -> int:
    """GIMP's hash of quantization tables, row by row, in the order of their numbers."""
    value = 11
    for step in np.concatenate(tables).tolist():
        value = (value * 4177 + step) % 2 ** 32
    return value


@functools.lru_cache(maxsize=1)
def _by_sums():
    return {(int(digest, 16), luma, chroma, (h, v)): Encoder(name, setting)
            for digest, luma, chroma, h, v, name, setting in encoder_data()['sums']['rows']}


def _jpegli(tables):
    """jpegli scales float tables by a distance; found if one distance explains every step."""
    data = encoder_data()['jpegli']
    is_420 = tables.factors == ((2, 2), (1, 1), (1, 1))
    bases = {0: ('y',), 1: ('y', 'cr'), 2: ('y', 'cb', 'cr')}[len(tables.chroma)]
    low, high = 0, np.inf
    for name, steps in zip(bases, (tables.luma, *tables.chroma)):
        factor = _jpegli_factor(name, is_420)
        ends = [_distance((steps + end) / factor, np.array(data['exponent']))
                for end in (-0.5, 0.5)]
        low = max(low, np.where(steps > 1, ends[0], 0).max())
        high = min(high, np.where(np.isin(steps, (MAX_STEP, MAX_WIDE_STEP)), np.inf,
                                  ends[1]).min())
    if not low * (1 - 1e-5) <= high or low == 0 or high == np.inf:
        return None
    quality = np.arange(1, 101)
    off = np.abs(_jpegli_distance(quality) - (low + high) / 2)
    if off.min() <= (high - low) / 2 + 1e-4:
        return Encoder('jpegli', f'jpegli {quality[off.argmin()]}')
    return Encoder('jpegli', f'jpegli distance {(low + high) / 2:.2f}')


def _jpegli_factor(name, is_420):
    """A component's steps at distance 1, float (64,)."""
    data = encoder_data()['jpegli']
    factor = 1.73966010 * np.array(data[name])  # kGlobalScaleYCbCr
    if is_420:
        factor *= 1.22  # k420GlobalScale
        if name != 'y':
            factor *= data['chroma_420']
    return factor


def jpegli_tables(is_420: bool) -> np.ndarray:
    """jpegli's luma tables at the qualities 1 to 100: int array, shape (100, 64), row by row."""
    distance = _jpegli_distance(np.arange(1, 101))[:, None]
    exponent = np.array(encoder_data()['jpegli']['exponent'])
    scale = np.where(distance < 1.5, distance,  # DistanceToScale
                     np.maximum(distance / 2, 1.5 ** (1 - exponent) * distance ** exponent))
    steps = np.rint(scale * _jpegli_factor('y', is_420)).astype(int)
    return np.clip(steps, 1, MAX_STEP)


def _distance(scale, exponent):
    """jpegli's ScaleToDistance, the inverse of the scale that a distance gives a step."""
    power = 1 / exponent
    return np.where(scale < 1.5, scale,
                    np.minimum(2 * scale, 1.5 ** (1 - power) * scale ** power))


def _jpegli_distance(quality):
    """jpegli_quality_to_distance."""
    return np.where(quality >= 100, 0.01, np.where(
        quality >= 30, 0.1 + (100 - quality) * 0.09,
        53 / 3000 * quality ** 2 - 23 / 20 * quality + 25))


def _ffmpeg(tables):
    """FFmpeg's MJPEG: MPEG-1's intra matrix * q / 8, DC 8 (mpegvideo_enc.c)."""
    if any((table != tables.luma).any() for table in tables.chroma):
        return None
    same = (ffmpeg_tables() == tables.luma).all(axis=1)
    return Encoder('ffmpeg', f'ffmpeg -q:v {same.argmax() + 1}') if same.any() else None


@functools.lru_cache(maxsize=1)
def ffmpeg_tables() -> np.ndarray:
    """FFmpeg's tables at -q:v 1 to 69: int array, shape (69, 64), row by row."""
    q = np.arange(1, 70)
    known = np.minimum(np.array(encoder_data()['mpeg1']['table']) * q[:, None] // 8, MAX_STEP)
    known[:, 0] = 8
    return known


def _guetzli(tables):
    """guetzli: along the zigzag an odd step, then that + 2, for all components alike.

    Sources: guetzli's GetQuantMatrixWithHeuristicScore (processor.cc) and its writer, which
    numbers the components from 0 and writes SOF1. Its quality is in the pixels alone.
    """
    steps = tables.luma[ZIGZAG]
    rises = np.diff(steps)
    if (tables.ids == (0, 1, 2) and tables.extended and steps[0] % 2 and steps[-1] <= MAX_STEP
            and rises.sum() in (0, 2) and (rises >= 0).all() and (rises != 1).all()
            and all((table == tables.luma).all() for table in tables.chroma)):
        return Encoder('guetzli')
    return None
