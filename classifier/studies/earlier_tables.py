"""An earlier compression by any encoder's table: how often it is found and named; false alarms."""
import argparse
from pathlib import Path

import numpy as np

from classifier.forensics.known_tables import known_tables
from classifier.forensics.recompression import Earlier, find_earlier
from classifier.forensics.tables import WEIGHTS, standard_tables
from classifier.studies.common import every_photo, pillow_jpeg, print_table

TURNED = 'libjpeg, tables turned by 90 degrees'
# The settings of the first compression, by encoder; those of the last one are libjpeg's.
FIRST = {'libjpeg': [f'libjpeg {q}' for q in (60, 75, 85)],
         'mozjpeg': [f'mozjpeg {q}' for q in (60, 75, 85)],
         'jpegli': [f'jpegli {q}' for q in (60, 75, 85)],
         'ffmpeg': [f'ffmpeg -q:v {q}' for q in (3, 5, 8)],
         'Photoshop': [f'Photoshop {q} of 12' for q in (3, 5, 8)],
         TURNED: [f'libjpeg {q}' for q in (60, 75, 85)]}
LAST_QUALITIES = (90, 95)
FINE = {'libjpeg': ('libjpeg 90', 'libjpeg 95'), 'mozjpeg': ('mozjpeg 90', 'mozjpeg 95'),
        'jpegli': ('jpegli 90', 'jpegli 95'), 'ffmpeg': ('ffmpeg -q:v 2',),
        'Photoshop': ('Photoshop 10 of 12',), TURNED: ('libjpeg 90', 'libjpeg 95')}
UNLISTED = 'on no list'
COARSER = 1.5             # least mean ratio of the steps, first to last


def table_of(encoder: str, setting: str) -> np.ndarray:
    """The luma table that an encoder writes at a setting, as `known_tables` names them: (64,)."""
    known = known_tables()
    return next(steps for steps, names in zip(known.steps, known.encoders)
                if any((name.encoder, name.setting) == (encoder, setting) for name in names))


def first_tables(settings: dict) -> list[tuple[str, str | None, np.ndarray]]:
    """Encoder, setting and luma table of all settings, and means of two as tables on no list."""
    found = [(encoder, setting, table_of(encoder, setting))
             for encoder, some in settings.items() for setting in some]
    return found + [(UNLISTED, None, np.rint(np.sqrt(a * b)).astype(int))
                    for (*_, a), (*_, b) in zip(found[::3], found[4::3])]


def _saved(image, table):
    return pillow_jpeg(np.ascontiguousarray(image), qtables=[table.tolist()] * 2)


def _named(earlier: Earlier, encoder, setting):
    """Whether the encoder is told, and rightly, with its setting if that is told: 1, -1 or 0."""
    if earlier.encoder is None:
        return 0
    right = earlier.encoder == encoder and earlier.encoder_setting in (None, setting)
    return 1 if right else -1


def _cases(image, index):
    """Yields ((encoder, kind), (found, named)), the kind 'same', 'moved' or 'once'.

    The shift is drawn by the image's number.
    """
    dy, dx = (int(d) for d in np.random.default_rng(index).integers(1, 8, 2))
    for encoder, setting, table in first_tables(FIRST):
        first = _saved(image, table)
        yield (encoder, 'once'), (find_earlier(first, table).quality is not None, 0)
        for last in (standard_tables()[quality - 1] for quality in LAST_QUALITIES):
            if np.exp(np.log(table / last) @ WEIGHTS) < COARSER:
                continue
            for kind, pixels, grid in (('same', first, (0, 0)),
                                       ('moved', first[dy:, dx:], (8 - dy, 8 - dx))):
                earlier = find_earlier(_saved(pixels, last), last)
                found = earlier.quality is not None and (earlier.grid_dy, earlier.grid_dx) == grid
                yield (encoder, kind), (found, _named(earlier, encoder, setting))
    for encoder, some in FINE.items():
        for setting in some:
            table = table_of(encoder, setting)
            yield (encoder, 'once'), (find_earlier(_saved(image, table), table).quality is not None,
                                      0)


def earlier_tables(args: argparse.Namespace, paths: list[Path]) -> dict:
    """how often an earlier compression by other encoders' tables is found"""
    cases, rows = every_photo(_cases, paths), {}
    for encoder in (*FIRST, UNLISTED):
        row = {}
        for kind in ('same', 'moved'):
            found, named = np.array(cases[encoder, kind]).T
            row |= {'cases': len(found), kind: float(found.mean()),
                    f'{kind}_named': float((named == 1).mean()),
                    f'{kind}_misnamed': float((named == -1).mean())}
        once = [found for found, _ in cases[encoder, 'once']]
        rows[encoder] = row | {'once': len(once), 'false_alarms': sum(once)}
    print_table('first compressed by                   cases  found, %: same grid, another  '
                'named: same, another  misnamed  once  false alarms', rows,
                '{name:38} {cases:4} {percent[same]:19.1f} {percent[moved]:8.1f} '
                '{percent[same_named]:12.1f} {percent[moved_named]:8.1f} '
                '{percent[same_misnamed]:5.1f} {percent[moved_misnamed]:4.1f} {once:5} '
                '{false_alarms:13}')
    return {'images': len(paths)} | rows
