"""The luma tables that known encoders write: what an earlier compression may have used.

    known = known_tables()
    known.steps.shape, known.encoders[0][0].setting     # ((n, 64), 'libjpeg 1')

Each table stands once, with all the encoders and settings that write it. The bases and their
sources are in encoder_tables.json; Photoshop's tables are from there and from Pillow, named by
their fingerprints.
"""
import functools
from typing import NamedTuple

import numpy as np
from PIL.JpegPresets import presets

from classifier.forensics.encoders import (
    Encoder, Tables, encoder_data, ffmpeg_tables, identify, jpegli_tables)
from classifier.forensics.tables import TURNED, all_qualities, standard_tables


class KnownTables(NamedTuple):
    """Different luma tables and who writes them."""
    steps: np.ndarray        # (n, 64) int, row by row; libjpeg's first, that of quality q at q - 1
    encoders: tuple[tuple[Encoder, ...], ...]  # of each


@functools.lru_cache(maxsize=1)
def known_tables() -> KnownTables:
    """The luma tables of libjpeg, mozjpeg, jpegli, FFmpeg, Photoshop and libjpeg's transposed."""
    found = {}
    for table, encoder in _all():
        found.setdefault(tuple(table.tolist()), []).append(encoder)
    return KnownTables(np.array(list(found)), tuple(map(tuple, found.values())))


def _all():
    for quality, table in enumerate(standard_tables(), start=1):
        yield table, Encoder('libjpeg', f'libjpeg {quality}', quality)
    for number, (base, _) in encoder_data()['mozjpeg']['tables'].items():
        if number != '1':  # flat: not mozjpeg's own
            suffix = '' if number == '3' else f', -quant-table {number}'
            for quality, table in enumerate(all_qualities(np.array(base)), start=1):
                yield table, Encoder('mozjpeg', f'mozjpeg {quality}{suffix}')
    for is_420 in (False, True):
        for quality, table in enumerate(jpegli_tables(is_420), start=1):
            yield table, Encoder('jpegli', f'jpegli {quality}')
    for number, table in enumerate(ffmpeg_tables(), start=1):
        yield table, Encoder('ffmpeg', f'ffmpeg -q:v {number}')
    photoshop = encoder_data()['photoshop']
    for luma, chroma in [*zip(photoshop['luma'], photoshop['chroma']),
                         *(preset['quantization'] for preset in presets.values())]:
        found = identify(Tables(np.array(luma), (np.array(chroma),)))
        if found.encoder != 'Photoshop':  # whose other settings may share this luma table
            found = Encoder(found.encoder)
        yield np.array(luma), found
    for quality, table in enumerate(standard_tables(), start=1):
        yield table[TURNED], Encoder('libjpeg, tables turned by 90 degrees', f'libjpeg {quality}')
