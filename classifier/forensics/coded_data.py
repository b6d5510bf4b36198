"""What is wrong within a JPEG file whose pixels can be decoded all the same.

    coded_damage('photo.jpg')        # ['at least 263 extraneous bytes before the end marker']

libjpeg warns of such things on stderr and goes on, with gray or wrong blocks; Pillow, which decodes
here, drops the warnings. Nothing is decoded by itself for this; it is told from the file:

- bytes between two marker segments that belong to neither;
- restart markers that are out of order, too few, too many, or not announced;
- of a file with one scan, too little data before a restart marker: with more, other pixels come
  out;
- of a file with one scan, coded data behind the last block. Where bytes were lost, added or
  changed, the decoder finds its way again after some blocks, but then has too many bits in the end,
  or too few, which is an error of `images.read_image`. So the image is decoded without its last
  bytes: that must fail. As a decoder reads up to 7 bytes ahead, fewer than 10 bytes too many may
  not be told, and damage that leaves the number of bits as it was cannot be.

Fill bytes, what segments hold, and what follows the end marker (a second image, a film, a preview)
are no damage.

Sources: ITU-T T.81, Annex B; libjpeg's jdmarker.c (next_marker, read_restart_marker) and jdhuff.c.
"""
import bisect
import io
import re
from os import PathLike

from PIL import Image

from classifier.forensics.jpeg_markers import Markers, scan_markers

LEAST = 3                  # bytes; with less left out, a decoder may still wait for the next
MOST_READ = 2 ** 28        # bytes of a file
MORE = 16 * b'\x5a\xa5\x3c\x0f'  # holds no marker, and other blocks than zeros do
TINY = 8                   # the scale at which decoding costs least: DC alone, no inverse DCT
_MARKER = re.compile(rb'\xff+([\x01-\xfe])')
_RESTARTS = range(0xD0, 0xD8)
_SOI, _EOI, _SOS, _DRI, _TEM = 0xD8, 0xD9, 0xDA, 0xDD, 0x01
_MOST_MARKERS = 2 ** 20


def coded_damage(path: str | PathLike) -> list[str]:
    """What is wrong within a JPEG file, in words; empty for a sound file or one of another kind.

    Parameters
    ----------
    path : path-like
        Of a file that can be decoded.
    """
    with open(path, 'rb') as file:
        if file.read(3) != b'\xff\xd8\xff':
            return []
        file.seek(0)
        data = file.read(MOST_READ)
    damage, interval, scans, ends, position = [], 0, 0, [], 2
    for _ in range(_MOST_MARKERS):
        found = _MARKER.search(data, position)
        if found is None:
            return damage
        marker = found[1][0]
        if stray := found.start() - position:
            damage.append(f'{stray:,} extraneous bytes before marker 0x{marker:02x}')
        if marker == _EOI:
            break
        position = found.end()
        if marker in (_SOI, _TEM, *_RESTARTS):
            continue
        length = int.from_bytes(data[position:position + 2], 'big')
        segment = data[position + 2:position + length]
        position += length
        if marker == _DRI:
            interval = int.from_bytes(segment[:2], 'big')
        if marker == _SOS:
            scans += 1
            numbers, ends, position = _restarts(data, position)
            damage += _restart_damage(numbers, interval, data, segment)
    if scans == 1 and (extra := _extraneous(data, position)):
        damage.append(f'at least {extra:,} extraneous bytes before the end marker')
    if scans == 1 and ends and _too_short(data, ends):
        damage.append('too little data before a restart marker')
    return list(dict.fromkeys(damage))


def _restarts(data, position):
    """The numbers of a scan's restart markers, where they are, and where its data ends."""
    numbers, ends = [], []
    while found := _MARKER.search(data, position):
        marker = found[1][0]
        if marker not in _RESTARTS:
            return numbers, ends, found.start()
        numbers.append(marker - _RESTARTS[0])
        ends.append(found.start())
        position = found.end()
    return numbers, ends, len(data)


def _restart_damage(numbers, interval, data, scan):
    """What is wrong with the restart markers of a scan of `interval` MCUs between two."""
    if not interval:
        return ['restart markers that were not announced'] * bool(numbers)
    if numbers != [i % 8 for i in range(len(numbers))]:
        return ['restart markers out of order']
    units = _units(scan_markers(io.BytesIO(data)), scan)
    expected = units and -(-units // interval) - 1
    if units and len(numbers) != expected:
        return [f'{len(numbers):,} restart markers in place of {expected:,}']
    return []


def _units(markers: Markers, scan: bytes) -> int:
    """How many MCUs a scan of all components has; 0 for another one, or where it is not known."""
    parts = markers.components
    if not scan or scan[0] != len(parts) or not markers.width or not markers.height:
        return 0
    width, height = (8, 8) if len(parts) == 1 else (  # of one component: blocks, not MCUs
        8 * max(c.horizontal for c in parts), 8 * max(c.vertical for c in parts))
    return -(-markers.width // width) * -(-markers.height // height)


def _decoded(data):
    """What a decoder makes of the data at an eighth of the size; OSError if it asks for more."""
    with Image.open(io.BytesIO(data), formats=['JPEG']) as image:
        image.draft(None, (image.width // TINY, image.height // TINY))
        return image.tobytes()


def _extraneous(data, end):
    """How many bytes before `end` a decoder that reads ahead does not ask for; 0 for few."""
    def needless(left_out):
        try:
            return bool(_decoded(data[:end - left_out]))
        except OSError:
            return False

    try:
        if not needless(LEAST - 1):
            return 0
        start = data.index(b'\xff\xda')
        return bisect.bisect_left(range(end - start), True, lo=LEAST,
                                  key=lambda left_out: not needless(left_out)) - 1
    except Exception:  # Pillow's parsers raise what they stumble over
        return 0


def _too_short(data, ends):
    """Whether a decoder takes more than there is before one of the markers at `ends`.

    It takes zeros there, or what stands in front of the marker, if that is more than it needs.
    """
    parts = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)])]
    try:
        return _decoded(MORE.join(parts)) != _decoded(data)
    except Exception:  # Pillow's parsers raise what they stumble over
        return False
