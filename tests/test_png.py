"""PNG files: the stored pixels, or one clear error, whatever is damaged."""
import contextlib
import io
import struct
import threading
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from classifier import images
from classifier.environment import STDERR
from classifier.errors import InputError

SIGNATURE = b'\x89PNG\r\n\x1a\n'


def chunk(kind, data, checksum=None):
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', checksum)


def header(image, bits=8, colour=2, interlaced=0):
    return chunk(b'IHDR', struct.pack('>IIBBBBB', image.shape[1], image.shape[0], bits, colour, 0,
                                      0, interlaced))


def rows(image):
    """A filter byte in front of each line of RGB."""
    return b''.join(b'\0' + line.tobytes() for line in image[:, :, ::-1])


@pytest.fixture
def small(photo):
    return np.ascontiguousarray(photo[:60, :80])


@contextlib.contextmanager
def stderr_held():
    """Another thread holds stderr, as it does to write a line."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with STDERR:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(params=['OpenCV', 'Pillow'])
def decoder(request):
    """OpenCV, which needs stderr for itself, or Pillow."""
    with stderr_held() if request.param == 'Pillow' else contextlib.nullcontext():
        yield request.param


@pytest.fixture
def read(tmp_path, decoder):
    """What is read of a file of these bytes, nothing else being said."""
    def read(*parts):
        path = tmp_path / 'a.png'
        path.write_bytes(SIGNATURE + b''.join(parts))
        return images.read_image(path)
    return read


@pytest.fixture(autouse=True)
def nothing_is_said(capfd):
    yield
    assert capfd.readouterr() == ('', '')


END = chunk(b'IEND', b'')


def stored(small, before=(), after=(), stream=None, **options):
    return [header(small, **options), *before,
            chunk(b'IDAT', zlib.compress(rows(small)) if stream is None else stream), *after, END]


@pytest.mark.parametrize('before', [
    chunk(b'gAMA', struct.pack('>I', 100_000)), chunk(b'gAMA', struct.pack('>I', 45_455)),
    chunk(b'sRGB', b'\0'), chunk(b'pHYs', struct.pack('>IIB', 2835, 2835, 1)),
    chunk(b'iCCP', b'profile\0\0' + zlib.compress(200 * b'icc ')),
    chunk(b'cHRM', struct.pack('>8I', *range(30_000, 38_000, 1_000))),
    chunk(b'eXIf', b'MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'),
    chunk(b'tRNS', struct.pack('>3H', 120, 120, 120)), chunk(b'tEXt', b'Title\0a photo')],
    ids=lambda part: part[4:8].decode())
def test_no_chunk_beside_the_pixels_changes_them(read, small, before):
    assert (read(*stored(small, [before])) == small).all()


def test_what_follows_the_end_is_ignored(read, small):
    assert (read(*stored(small), b'something else') == small).all()
    assert (read(*stored(small), *stored(255 - small)) == small).all()


def test_pixels_in_many_pieces_and_interlaced_are_the_same(read, small, tmp_path):
    data = zlib.compress(rows(small))
    pieces = [chunk(b'IDAT', data[i:i + 100]) for i in range(0, len(data), 100)]
    assert (read(header(small), *pieces, END) == small).all()
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1))  # Adam7: the first row and column, and the steps
    stream = b''.join(rows(small[y::down, x::right]) for y, x, down, right in passes)
    assert (read(*stored(small, stream=zlib.compress(stream), interlaced=1)) == small).all()


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'LA', 'RGBA', 'I;16'])
def test_every_kind_of_pixels_becomes_8_bits_of_colour(tmp_path, small, mode, decoder):
    rgb = Image.fromarray(small[:, :, ::-1])
    if mode == 'I;16':
        gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.uint16)
        image, expected = Image.fromarray(gray * 256 + 77), np.dstack([gray] * 3)
    else:
        image = rgb.quantize(50) if mode == 'P' else rgb.convert(mode)
        expected = np.asarray(image.convert('RGB'))[:, :, ::-1]
    if mode in ('LA', 'RGBA'):
        image.putalpha(Image.fromarray(np.full(small.shape[:2], 9, np.uint8)))
    image.save(tmp_path / 'a.png')
    assert (images.read_image(tmp_path / 'a.png') == expected).all()


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_gray_of_few_bits_becomes_8(read, small, bits):
    gray = small[:, :, 1] >> (8 - bits)
    width = 8 // bits
    packed = sum(gray[:, k::width] << (8 - bits * (k + 1)) for k in range(width)).astype(np.uint8)
    stream = b''.join(b'\0' + line.tobytes() for line in packed)
    found = read(*stored(small, stream=zlib.compress(stream), bits=bits, colour=0))
    assert (found == gray[..., None] * (255 // (2 ** bits - 1))).all()


def test_colour_of_16_bits_becomes_the_upper_8(read, small):
    lines = [b'\0' + np.dstack([line, 255 - line]).tobytes() for line in small[:, :, ::-1]]
    assert (read(*stored(small, stream=zlib.compress(b''.join(lines)), bits=16)) == small).all()


def test_opencv_decodes_if_no_other_thread_writes(small, tmp_path, monkeypatch):
    (tmp_path / 'a.png').write_bytes(SIGNATURE + b''.join(stored(small)))
    monkeypatch.setattr(images, '_to_bgr', lambda image: 'by Pillow')
    assert (images.read_image(tmp_path / 'a.png') == small).all()
    with stderr_held():
        assert images.read_image(tmp_path / 'a.png') == 'by Pillow'


def test_of_an_animation_the_first_frame_is_taken(tmp_path, small):
    first, second = (Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
                     for frame in (small, 255 - small))
    first.save(tmp_path / 'a.png', save_all=True, append_images=[second])
    said = []
    assert (images.read_image(tmp_path / 'a.png', notice=said.append) == small).all()
    assert len(said) == 1 and 'holds several images' in said[0]


def test_an_animation_whose_frame_is_smaller_than_the_image_is_refused(read, small):
    frame = struct.pack('>IIIIIHHBB', 0, small.shape[1] - 8, small.shape[0] - 8, 0, 0, 1, 1, 0, 0)
    animated = [chunk(b'acTL', struct.pack('>II', 1, 0)), chunk(b'fcTL', frame)]
    with pytest.raises(InputError, match=r'a\.png: '):
        read(*stored(small, animated))


def damaged(kind, small):
    """A file's parts, damaged in one way."""
    data = zlib.compress(rows(small))
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 8
    parts = {
        'a flipped byte, the old checksum': lambda: [
            header(small), chunk(b'IDAT', bytes(flipped), zlib.crc32(b'IDAT' + data)), END],
        'a flipped byte, a right checksum': lambda: stored(small, stream=bytes(flipped)),
        'a wrong checksum of the pixels': lambda: [header(small), chunk(b'IDAT', data, 1), END],
        'a wrong checksum of the header': lambda: [
            header(small)[:-1] + b'?', chunk(b'IDAT', data), END],
        'a wrong checksum of a text': lambda: stored(small, [chunk(b'tEXt', b'a\0b', 1)]),
        'half of its pixels': lambda: stored(small, stream=data[:len(data) // 2]),
        'a stream that ends early': lambda: stored(small, stream=zlib.compress(
            rows(small)[:-500])[:-4]),
        'a wrong checksum of the stream': lambda: stored(
            small, stream=data[:-1] + bytes([data[-1] ^ 1])),
        'an unknown filter': lambda: stored(small, stream=zlib.compress(b'\7' + rows(small)[1:])),
        'no pixels': lambda: [header(small), END],
        'no end': lambda: stored(small)[:-1],
        'no header': lambda: stored(small)[1:],
        'a cut end': lambda: [*stored(small)[:-1], END[:-5]],
        'a cut chunk': lambda: [header(small), chunk(b'IDAT', data)[:-40]],
        'no size': lambda: stored(small[:0], stream=data)}
    return parts[kind]() if kind else parts


@pytest.mark.parametrize('kind', damaged(None, np.zeros((8, 8, 3), np.uint8)))
def test_a_damaged_file_is_refused_in_one_sentence(read, small, kind):
    with pytest.raises(InputError, match=r'a\.png: .+') as refused:
        read(*damaged(kind, small))
    assert '\n' not in str(refused.value)


def test_a_cut_file_is_refused_wherever_it_ends(read, small):
    data = io.BytesIO()
    Image.fromarray(small[:, :, ::-1]).save(data, 'PNG')
    whole = data.getvalue()[len(SIGNATURE):]
    assert (read(whole) == small).all()
    # The last checksum, of nothing, may be missing.
    for size in [*range(0, 60, 7), *range(60, len(whole) - 4, 997), len(whole) - 5]:
        with pytest.raises(InputError, match=r'a\.png: '):
            read(whole[:size])
