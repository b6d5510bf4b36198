"""What is read from the header of a JPEG file: qualities, sampling, colours, process, damage."""
import io
import os
import time

import cv2
import numpy as np
import pytest
from jpeg_streams import (COLOUR_444, JFIF, JPEGLI_75, PHOTOSHOP_3, dqt, header,  # noqa: F401
                          saved, stream, tables_of)
from PIL import Image

from classifier.errors import InputError
from classifier.forensics.header import read_header
from classifier.forensics.tables import (CHROMA_TABLE, LUMA_TABLE, nearest_quality, scale_table,
                                         standard_tables)


def test_each_quality_of_libjpeg_is_told_exactly_for_luma_and_chroma(header, photo):
    for quality in range(1, 101):
        found = header(saved(photo, quality=quality))
        assert (found.quality, found.chroma_quality, found.standard) == (quality, quality, True)
        assert (found.encoder, found.encoder_setting) == ('libjpeg', f'libjpeg {quality}')
        assert found.luma_table == tuple(tables_of(quality)[0])


@pytest.mark.parametrize('luma, chroma', [(75, 20), (93, 80), (40, 90)])
def test_luma_and_chroma_have_each_their_own_quality(header, photo, luma, chroma):
    found = header(saved(photo, qtables=[t.tolist() for t in tables_of(luma, chroma)]))
    assert (found.quality, found.chroma_quality, found.standard) == (luma, chroma, True)
    assert found.encoder_setting == f'libjpeg {luma},{chroma}'


@pytest.mark.parametrize('quality', [1, 8, 15, 23])
def test_tables_of_16_bits_are_libjpegs_too(header, quality):
    tables = [scale_table(t.ravel(), quality, 32767) for t in (LUMA_TABLE, CHROMA_TABLE)]
    assert max(map(np.max, tables)) > 255
    found = header(stream(tables, wide=True, frame=0xC1))
    assert (found.quality, found.chroma_quality, found.standard) == (quality, quality, True)
    assert found.encoder_setting == f'libjpeg {quality}, tables of 16 bits'
    assert found.luma_table == tuple(tables[0])


def test_the_chroma_table_of_newer_ijg_versions_is_libjpegs_too(header):
    luma, chroma = (t.copy() for t in tables_of(75))
    assert chroma[0] == 9
    chroma[0] = 8  # half of 16
    found = header(stream([luma, chroma]))
    assert (found.quality, found.chroma_quality, found.standard) == (75, 75, True)
    assert found.encoder_setting == 'libjpeg 75 (jpeg-9e or newer)'


def test_the_nearest_quality_is_that_of_the_steps_that_are_known():
    for quality in (10, 50, 85):
        table = standard_tables()[quality - 1].copy()
        table[20:] = 0
        assert nearest_quality(table) == (quality, 0)
        table[3] *= 3  # one that is wrong matters less where some may be
        assert abs(nearest_quality(table, some_wrong=True)[0] - quality) <= 2
    with pytest.raises(ValueError, match='no step is known'):
        nearest_quality(np.zeros(64, int))


def test_the_nearest_quality_follows_the_low_frequencies_not_the_large_steps():
    """Photoshop's tables are coarse in the low frequencies and fine in the high ones."""
    luma = np.array(PHOTOSHOP_3[0])
    by_squares = np.square(standard_tables() - luma).sum(axis=1).argmin() + 1
    assert by_squares == 90 and 55 <= nearest_quality(luma)[0] <= 75
    table = tables_of(60)[0].copy()
    high = np.add.outer(np.arange(8), np.arange(8)).ravel() > 10
    table[high] //= 3
    assert nearest_quality(table)[0] in range(60, 66)


def test_of_tables_times_a_factor_the_coarser_has_the_lower_quality():
    for base in (PHOTOSHOP_3[0], JPEGLI_75[0], np.full(64, 10)):
        found = [nearest_quality(np.maximum(np.array(base) * f // 10, 1))[0]
                 for f in (3, 6, 10, 20, 40)]
        assert found == sorted(set(found), reverse=True)


@pytest.mark.parametrize('factors, name', [
    ([(1, 1), (1, 1), (1, 1)], '4:4:4'), ([(2, 2), (2, 2), (2, 2)], '4:4:4'),
    ([(2, 1), (1, 1), (1, 1)], '4:2:2'), ([(2, 2), (1, 2), (1, 2)], '4:2:2'),
    ([(4, 1), (2, 1), (2, 1)], '4:2:2'), ([(2, 2), (1, 1), (1, 1)], '4:2:0'),
    ([(1, 2), (1, 1), (1, 1)], '4:4:0'), ([(2, 2), (2, 1), (2, 1)], '4:4:0'),
    ([(4, 1), (1, 1), (1, 1)], '4:1:1'), ([(2, 2), (1, 2), (2, 1)], '2x2,1x2,2x1'),
    ([(1, 1), (2, 1), (2, 1)], '1x1,2x1,2x1'), ([(3, 1), (1, 1), (1, 1)], '3x1,1x1,1x1'),
    ([(2, 2)], 'gray')])
def test_the_subsampling_is_the_ratio_of_all_factors(header, factors, name):
    components = tuple((i + 1, h, v, int(i > 0)) for i, (h, v) in enumerate(factors))
    found = header(stream(tables_of(80), components))
    assert found.subsampling == name and found.quality == 80


def adobe(transform):
    return b'\xff\xee\0\x0eAdobe\0\x64\0\0\0\0' + bytes([transform])


@pytest.mark.parametrize('ids, start, colours', [
    ((1, 2, 3), JFIF, 'YCbCr'), ((1, 2, 3), b'', 'YCbCr'), ((0, 1, 2), b'', 'YCbCr'),
    ((1, 2, 3), adobe(1), 'YCbCr'), ((1, 2, 3), adobe(0), 'RGB'), (b'RGB', b'', 'RGB'),
    (b'CMYK', adobe(0), 'CMYK'), ((1, 2, 3, 4), b'', 'CMYK'), ((1, 2, 3, 4), adobe(2), 'YCCK'),
    ((1,), JFIF, 'gray')])
def test_the_colours_are_told(header, ids, start, colours):
    chroma = colours in ('YCbCr', 'YCCK')
    components = tuple((i, 1, 1, int(chroma and n in (1, 2))) for n, i in enumerate(ids))
    found = header(stream(tables_of(85), components, start))
    assert (found.colours, found.quality, found.standard) == (colours, 85, True)
    assert found.chroma_quality == (85 if chroma else None)


@pytest.mark.parametrize('frame, bits, process', [
    (0xC0, 8, 'baseline'), (0xC1, 8, 'extended'), (0xC1, 12, 'extended 12-bit'),
    (0xC2, 8, 'progressive'), (0xC9, 8, 'arithmetic'), (0xCA, 12, 'progressive arithmetic 12-bit')])
def test_the_process_is_told_with_the_quality_whether_or_not_it_can_be_decoded(
        header, frame, bits, process):
    found = header(stream(tables_of(80), frame=frame, bits=bits))
    assert (found.process, found.quality, found.standard) == (process, 80, True)
    assert (found.width, found.height, found.damage) == (40, 24, None)


def test_a_lossless_jpeg_has_no_quality_and_no_damage(header):
    found = header(stream([], COLOUR_444, frame=0xC3, bits=16))
    assert (found.process, found.quality, found.luma_table) == ('lossless 16-bit', None, None)
    assert found.damage is None and not found.standard


def test_small_and_truncated_images_have_their_header(header, photo):
    ok, data = cv2.imencode('.jpg', photo[:12, :12], [cv2.IMWRITE_JPEG_QUALITY, 55])
    found = header(data.tobytes())
    assert ok and (found.quality, found.width, found.height) == (55, 12, 12)
    data = saved(photo, quality=75)
    for end in (data.index(b'\xff\xda') + 14, len(data) // 2):
        found = header(data[:end])
        assert (found.quality, found.standard, found.damage) == (75, True, None)
    found = header(data[:data.index(b'\xff\xc0') + 6])  # within the frame header
    assert (found.quality, found.chroma_quality, found.width) == (75, 75, None)
    assert found.damage == 'its frame header is damaged; ends before its coded data'
    found = header(data[:data.index(b'\xff\xdb') + 100])  # within the second table
    assert (found.quality, found.chroma_quality) == (75, None) and 'tables' in found.damage
    with pytest.raises(InputError, match='a.jpg: begins as a JPEG, but has no header'):
        header(data[:30])


@pytest.mark.parametrize('luma', [(1, 0, 1, 0), (1, 15, 1, 0), (1, 1, 1, 9)])
def test_a_damaged_frame_header_leaves_the_tables(header, luma):
    found = header(stream(tables_of(45), (luma, *COLOUR_444[1:])))
    assert (found.quality, found.chroma_quality, found.subsampling) == (45, 45, 'unknown')
    assert (found.process, found.width, found.damage) == (None, None, 'its frame header is damaged')


def test_a_step_of_0_is_damage_of_its_own_table_alone(header):
    luma, chroma = (t.copy() for t in tables_of(90))
    chroma[5] = 0
    found = header(stream([luma, chroma]))
    assert (found.quality, found.chroma_quality, found.standard) == (90, None, False)
    assert found.damage == 'the chroma table has a step of 0'
    assert found.encoder_setting == 'libjpeg 90' and found.tables[1][5] == 0
    found = header(stream([chroma, tables_of(90)[1]]))
    assert (found.quality, found.luma_table, found.chroma_quality) == (None, None, 90)
    assert found.damage == 'the luma table has a step of 0' and found.encoder == 'unknown'


def test_a_table_may_come_after_the_first_scan_and_one_may_be_missing(header):
    luma, chroma = tables_of(65)
    late = dqt([luma, chroma])[69:]  # the second of two segments of 69 bytes
    data = stream([luma]) + b'\xff\0\x12\xff\xd0' + late + b'\xff\xda\0\x08\1\2\x11\0\x3f\0'
    assert (header(data).quality, header(data).chroma_quality) == (65, 65)
    assert header(data).damage is None
    other = dqt(tables_of(10))[:69]
    assert header(data.replace(late, other + late)).quality == 65  # its luma is coded by then
    for more in range(65_490, 65_530):  # wherever the data are cut into chunks
        assert header(data.replace(late, bytes(more) + late)).chroma_quality == 65
    found = header(stream([luma]))
    assert (found.quality, found.chroma_quality) == (65, None)
    assert found.damage == 'the chroma table is missing'


def test_what_lies_between_the_segments_is_passed_over(header):
    data = stream(tables_of(70))
    cut = data.index(b'\xff\xdb')
    exif = b'\xff\xe1' + (2 + 5000).to_bytes(2, 'big') + dqt(tables_of(10))[:138] + bytes(4862)
    for between in (b'\xff\xff\xff', b'stray', bytes(3000), b'\xff\0\xff\0', exif, 40 * exif):
        assert header(data[:cut] + between + data[cut:]).quality == 70


@pytest.mark.parametrize('mode, colours, chroma', [
    ('RGB', 'RGB', None), ('YCbCr', 'YCbCr', 70), ('L', 'gray', None), ('CMYK', 'CMYK', None)])
def test_jpeg_in_tiff_has_a_header(header, photo, mode, colours, chroma):
    file = io.BytesIO()
    image = Image.fromarray(photo[:64, :48, ::-1]).convert(mode)
    image.save(file, 'TIFF', compression='jpeg', quality=70)
    found = header(file.getvalue())
    assert (found.quality, found.chroma_quality, found.colours) == (70, chroma, colours)
    assert (found.standard, found.width, found.height) == (True, 48, 64)
    image.save(file, 'TIFF', compression='tiff_lzw')
    assert header(file.getvalue()) is None


@pytest.mark.parametrize('big, order', [(False, 'big'), (True, 'little'), (True, 'big')])
@pytest.mark.parametrize('compression', [6, 7])
def test_tiff_of_each_kind_can_hold_jpeg(header, big, order, compression):
    size = 8 if big else 4
    jpeg = stream(tables_of(82))
    values = {256: 40, 257: 24, 259: compression, 262: 6,
              513 if compression == 6 else 273: 16}
    data = {'little': b'II', 'big': b'MM'}[order] + (43 if big else 42).to_bytes(2, order)
    if big:
        data += (8).to_bytes(2, order) + bytes(2)
    data += (16 + len(jpeg)).to_bytes(size, order)
    data = data.ljust(16, b'\0') + jpeg
    data += len(values).to_bytes(8 if big else 2, order)
    for tag, value in values.items():
        data += tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(size, order)
        data += value.to_bytes(4, order).ljust(size, b'\0')
    found = header(data + bytes(size))
    assert (found.quality, found.chroma_quality, found.subsampling) == (82, 82, '4:2:0')


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'WEBP', 'TIFF', 'GIF'])
def test_other_files_have_no_jpeg_header(header, photo, kind):
    file = io.BytesIO()
    Image.fromarray(photo[:32, :32]).save(file, kind)
    assert header(file.getvalue()) is None
    assert header(b'') is None and header(b'\xff\xd8') is None


def test_what_cannot_be_read_is_an_input_error_of_one_line(tmp_path):
    (tmp_path / 'folder.jpg').mkdir()
    os.mkfifo(tmp_path / 'pipe.jpg')
    for name in ('gone.jpg', 'folder.jpg', 'pipe.jpg'):
        with pytest.raises(InputError) as caught:
            read_header(tmp_path / name)
        assert str(caught.value).startswith(f'{tmp_path / name}: ')
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize('filling', [b'\0', b'\xff', b'\xff\xd0', b'\xff\xe1\0\2', b'\xff\xdb\0\2',
                                     b'\xff\xe1\xff\xff', b'noise'])
def test_a_large_file_of_garbage_takes_no_time(tmp_path, filling):
    path = tmp_path / 'a.jpg'
    noise = np.random.default_rng(0).bytes(2 ** 20) if filling == b'noise' else filling * 2 ** 22
    jpeg = stream([])  # whose tables are missing, so that they are looked for in its data
    for start in (b'\xff\xd8\xff', b'II*\0\x08\0\0\0', jpeg):
        path.write_bytes(start + noise)
        os.truncate(path, 100_000_000)
        began = time.process_time()
        try:
            read_header(path)
        except InputError as error:
            assert 'has no header' in str(error)
        assert time.process_time() - began < 1


def test_damaged_headers_raise_nothing_but_input_errors(header, photo):
    rng = np.random.default_rng(0)
    tiff = io.BytesIO()
    Image.fromarray(photo[:32, :32]).save(tiff, 'TIFF', compression='jpeg')
    sources = [saved(photo, quality=75), stream(PHOTOSHOP_3), tiff.getvalue()]
    told = 0
    for _ in range(400):
        data = bytearray(sources[rng.integers(3)][:800])
        for place in rng.integers(2, len(data), rng.integers(1, 8)):
            data[place] = rng.choice([0, 255, rng.integers(256)])
        try:
            told += header(bytes(data[:rng.integers(20, 800)])) is not None
        except InputError:
            pass
    assert told > 200
