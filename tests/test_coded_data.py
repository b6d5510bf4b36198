"""What libjpeg warns of in a JPEG file reaches the user; sound files raise no warning."""
import io
import json

import numpy as np
import pytest
from PIL import Image

from classifier import predict_cls
from classifier.forensics.coded_data import coded_damage


@pytest.fixture
def rgb(photo):
    return Image.fromarray(photo[:, :, ::-1])


def coded(image, **options):
    file = io.BytesIO()
    image.save(file, 'JPEG', **{'quality': 80} | options)
    return bytearray(file.getvalue())


@pytest.fixture
def damage(tmp_path):
    """A function from the bytes of a file to what is wrong with it."""
    def find(data):
        (tmp_path / 'a.jpg').write_bytes(data)
        return coded_damage(tmp_path / 'a.jpg')
    return find


@pytest.mark.parametrize('options', [
    {}, {'quality': 5}, {'quality': 100, 'subsampling': 0}, {'subsampling': 1}, {'optimize': True},
    {'progressive': True}, {'restart_marker_blocks': 3}, {'restart_marker_rows': 1},
    {'restart_marker_blocks': 3, 'progressive': True}, {'comment': b'\xff\xd9\xff\xdb' * 9},
    {'exif': b'Exif\0\0' + bytes(5000)}])
def test_sound_files_are_not_warned_of(damage, rgb, options):
    for image in (rgb, rgb.convert('L'), rgb.convert('CMYK'), rgb.crop((3, 5, 20, 24))):
        data = coded(image, **options)
        assert damage(data) == []
        assert damage(data + bytes(100) + data + b'trailing film, \xff\xc0') == []
        assert damage(data[:2] + b'\xff\xff\xff' + data[2:]) == []  # fill bytes


def test_a_file_of_several_pictures_is_sound(damage, rgb):
    file = io.BytesIO()
    rgb.save(file, 'MPO', save_all=True, append_images=[rgb.rotate(180)])
    assert damage(file.getvalue()) == []


@pytest.mark.parametrize('count', [10, 263, 5000])
@pytest.mark.parametrize('options', [{}, {'restart_marker_rows': 1}])
def test_bytes_behind_the_last_block_are_counted(damage, rgb, count, options):
    data = coded(rgb, **options)
    more = bytes(np.random.default_rng(1).integers(1, 255, count).astype(np.uint8))
    said, = damage(data[:-2] + more + data[-2:])
    assert said.startswith('at least ') and said.endswith(' extraneous bytes before the end marker')
    assert count - 7 <= int(said.split()[2].replace(',', '')) <= count


def test_lost_or_inserted_bytes_within_the_scan_are_mostly_noticed(tmp_path, damage, rgb):
    """Where the decoder had too few bits in the end, reading the pixels fails."""
    data, rng = coded(rgb), np.random.default_rng(0)
    noticed = 0
    for _ in range(20):
        at = int(rng.integers(len(data) // 3, len(data) * 2 // 3))
        more = bytes(rng.integers(1, 250, 400).astype(np.uint8))
        noticed += damage(data[:at] + more + data[at:]) != []
    assert noticed >= 15


def test_bytes_between_segments_are_counted(damage, rgb):
    """As after an EXIF segment whose length is too small."""
    data = coded(rgb, exif=b'Exif\0\0' + bytes(3000))
    at = data.index(b'Exif') - 2
    short = int.from_bytes(data[at:at + 2], 'big') - 1214
    assert damage(data[:at] + short.to_bytes(2, 'big') + data[at + 2:]) == [
        '1,214 extraneous bytes before marker 0xdb']


def test_restart_markers_must_be_in_order_and_all_there(damage, rgb):
    data = coded(rgb, restart_marker_blocks=20)
    first, second, third = (data.index(b'\xff' + bytes([0xD0 + i])) for i in range(3))
    without = data[:first] + data[second:]
    swapped = bytearray(data)
    swapped[first + 1], swapped[second + 1] = data[second + 1], data[first + 1]
    assert damage(without) == damage(swapped) == ['restart markers out of order']
    eighth = data.index(b'\xff\xd7', first) + 2
    found = damage(data[:first] + data[eighth:])
    assert len(found) == 1 and 'restart markers in place of' in found[0]
    at = data.index(b'\xff\xdd')  # the segment that announces them
    assert damage(data[:at] + data[at + 6:])[0] == 'restart markers that were not announced'


def test_too_little_data_before_a_restart_marker_is_noticed(damage, rgb):
    data = coded(rgb, restart_marker_blocks=20)
    third = data.index(b'\xff\xd2')
    found = damage(data[:third - 25] + data[third:])
    assert found == ['too little data before a restart marker']


def test_other_files_have_no_such_damage(tmp_path, photo):
    (tmp_path / 'a.png').write_bytes(b'\x89PNG and more')
    assert coded_damage(tmp_path / 'a.png') == []


def test_damage_is_on_stderr_and_in_the_row(tmp_path, rgb, capsys):
    data = coded(rgb)
    (tmp_path / 'a.jpg').write_bytes(data[:-2] + bytes(50) + data[-2:])
    said, = coded_damage(tmp_path / 'a.jpg')
    assert predict_cls.main([str(tmp_path / 'a.jpg'), '--json']) == 0
    out, err = capsys.readouterr()
    assert err == f'{tmp_path}/a.jpg: corrupt JPEG data: {said}\n'
    assert json.loads(out)['header_damage'] == said
