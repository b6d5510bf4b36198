"""The marker segments of a JPEG stream up to its first scan, whatever state it is in.

    with open('photo.jpg', 'rb') as file:
        markers = scan_markers(file)

No length is trusted and the work is bounded, so that a damaged, truncated or hostile file costs no
more than a sound one. No pixel is decoded. Source: ITU-T T.81, Annex B; the Adobe marker: Adobe
Technical Note 5116, "Supporting the DCT Filters in PostScript Level 2".
"""
import re
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

MAX_SEGMENTS = 4096            # a photo has some 10, one with a large profile some 100
MAX_SEGMENT = 1024             # bytes that are looked at: four tables, or 255 components
MAX_STRAY = 2 ** 16            # bytes that belong to no segment, before the first scan
MAX_SCANNED = 2 ** 24          # bytes of coded data, read only if tables are still missing

# Row-by-row index of each step in the order of the file (T.81, Figure A.6).
ZIGZAG = np.array(sorted(range(64), key=lambda k: (k // 8 + k % 8,
                                                   (k % 8, k // 8)[(k // 8 + k % 8) % 2])))
FRAMES = {0xC0: 'baseline', 0xC1: 'extended', 0xC2: 'progressive', 0xC3: 'lossless',
          0xC5: 'hierarchical', 0xC6: 'hierarchical progressive', 0xC7: 'hierarchical lossless',
          0xC9: 'arithmetic', 0xCA: 'progressive arithmetic', 0xCB: 'lossless arithmetic',
          0xCD: 'hierarchical arithmetic', 0xCE: 'hierarchical progressive arithmetic',
          0xCF: 'hierarchical lossless arithmetic', 0xF7: 'lossless (JPEG-LS)'}
_SOI, _EOI, _SOS, _DQT, _APP0, _APP14 = 0xD8, 0xD9, 0xDA, 0xDB, 0xE0, 0xEE
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0..7, SOI: no length follows
_MARKER = re.compile(rb'\xff[\x01-\xcf\xd8-\xfe]')


@dataclass(frozen=True)
class Component:
    """A component of a JPEG frame: its id, sampling factors, and the number of its table."""
    id: int
    horizontal: int
    vertical: int
    table: int


@dataclass
class Markers:
    """What the marker segments say; empty, or None, where they do not."""
    frame: int | None = None           # the code of the SOF marker
    precision: int | None = None       # bits of a sample
    width: int | None = None           # px
    height: int | None = None          # px
    components: tuple[Component, ...] = ()
    tables: dict[int, tuple[int, ...]] = field(default_factory=dict)  # 64 steps, row by row
    wide: set[int] = field(default_factory=set)  # numbers of the tables of 16 bits a step
    jfif: bool = False
    adobe: int | None = None           # colour transform of the Adobe marker
    scan: bool = False                 # whether coded data follow
    damage: list[str] = field(default_factory=list)

    def complete(self) -> bool:
        """Whether each component has its table."""
        return all(component.table in self.tables for component in self.components)


def scan_markers(file: BinaryIO, tables: Markers | None = None) -> Markers:
    """The marker segments of a JPEG stream, up to the scan at which all its tables are known.

    Parameters
    ----------
    file : binary file
        Positioned at the stream's SOI marker.
    tables : Markers, optional
        Of a stream that holds the tables which this one lacks (as in TIFF).
    """
    found = Markers()
    if tables is not None:
        found.tables, found.wide = dict(tables.tables), set(tables.wide)
    stray = MAX_STRAY
    for _ in range(MAX_SEGMENTS):
        marker, stray = _next_marker(file, stray)
        if marker is None or marker == _EOI:
            break
        if marker in _STANDALONE:
            continue
        length = int.from_bytes(file.read(2), 'big') - 2
        if marker == _SOS:
            found.scan = True
            if found.complete():
                break
            stray = MAX_SCANNED
        if length <= 0:
            continue
        if marker in FRAMES or marker in (_DQT, _APP0, _APP14):
            data = file.read(min(length, MAX_SEGMENT))
            _read_segment(found, marker, data, len(data) < min(length, MAX_SEGMENT))
            length -= len(data)
        file.seek(length, 1)
    if not found.scan:
        found.damage.append('ends before its coded data')
    return found


def _next_marker(file, stray):
    """The next marker's code, or None, and how many more stray bytes may be passed over."""
    head = file.read(2)
    if _MARKER.fullmatch(head):
        return head[1], stray
    while stray > 0 and head:
        chunk = head + file.read(min(stray, 2 ** 16))
        if match := _MARKER.search(chunk):
            file.seek(match.end() - len(chunk), 1)
            return chunk[match.end() - 1], stray - match.start()
        if len(chunk) == len(head):
            break
        stray -= len(chunk) - len(head)
        head = chunk[-1:]  # may be the 0xFF of a marker
    return None, 0


def _read_segment(found, marker, data, cut_off):
    """What a segment says goes into `found`; it may be cut off."""
    if marker == _DQT:
        _read_tables(found, data)
    elif marker == _APP0:
        found.jfif |= data[:5] == b'JFIF\0'
    elif marker == _APP14:
        if data[:5] == b'Adobe' and len(data) >= 12:
            found.adobe = data[11]
    elif found.frame is None:
        _read_frame(found, marker, data)
    if cut_off and marker == _DQT:
        found.damage.append('ends within its quantization tables')


def _read_tables(found, data):
    """Of a DQT segment. A table that came before the first scan stays."""
    while data:
        bits, number = data[0] >> 4, data[0] & 15
        end = 1 + 64 * (1 + bits)
        if bits > 1 or number > 3 or len(data) < end:
            return
        if not (found.scan and number in found.tables):
            steps = np.empty(64, int)
            steps[ZIGZAG] = np.frombuffer(data[1:end], '>u2' if bits else np.uint8)
            found.tables[number] = tuple(steps.tolist())
            (found.wide.add if bits else found.wide.discard)(number)
        data = data[end:]


def _read_frame(found, marker, data):
    """Of an SOF segment; one that no encoder can have written counts as damaged."""
    count = data[5] if len(data) > 5 else 0
    components = tuple(Component(data[i], data[i + 1] >> 4, data[i + 1] & 15, data[i + 2])
                       for i in range(6, min(6 + 3 * count, len(data) - 2), 3))
    if not count or len(components) < count or not 2 <= data[0] <= 16 or any(
            not (1 <= c.horizontal <= 4 and 1 <= c.vertical <= 4 and c.table <= 3)
            for c in components):
        found.damage.append('its frame header is damaged')
        return
    found.frame, found.precision, found.components = marker, data[0], components
    found.height, found.width = (int.from_bytes(data[i:i + 2], 'big') for i in (1, 3))
