"""Which encoder and which setting are named by the tables, and that nobody is named wrongly."""
import cv2
import numpy as np
import pytest
from jpeg_streams import (COLOUR_444, JPEGLI_75, PHOTOSHOP_3, header,  # noqa: F401, a fixture
                          saved, stream, tables_of)
from PIL.JpegPresets import presets

from classifier.forensics import encoders
from classifier.forensics.encoders import encoder_data
from classifier.forensics.jpeg_markers import ZIGZAG
from classifier.forensics.tables import scale_table


def test_standard_tables_turned_by_90_degrees_are_named_and_not_standard(header):
    turned = [t.reshape(8, 8).T for t in tables_of(75)]
    found = header(stream(turned))
    assert (found.quality, found.chroma_quality, found.standard) == (75, 75, False)
    assert found.encoder == 'libjpeg, tables turned by 90 degrees'
    assert found.encoder_setting == 'libjpeg 75'


def test_steps_that_are_not_in_zigzag_order_are_named(header):
    row_by_row = [np.empty(64, int), np.empty(64, int)]
    for table, standard in zip(row_by_row, tables_of(67)):
        table[ZIGZAG] = standard  # such that the file holds them row by row
    found = header(stream(row_by_row))
    assert (found.quality, found.chroma_quality, found.standard) == (67, 67, False)
    assert found.encoder == 'libjpeg, steps not in zigzag order'
    row_by_row[0] = np.maximum(row_by_row[0] + np.resize([0, 1, -1], 64), 1)
    found = header(stream(row_by_row))
    assert found.quality in (66, 67, 68) and found.encoder == 'unknown, steps not in zigzag order'


@pytest.mark.parametrize('preset, encoder, setting', [
    ('low', 'Photoshop', 'Photoshop 3 of 12'), ('medium', 'Photoshop', 'Photoshop 5 of 12'),
    ('high', 'Photoshop', 'Photoshop 8 of 12'), ('maximum', 'Photoshop', 'Photoshop 10 of 12'),
    ('web_low', 'Photoshop, Save for Web', 'Save for Web 10 of 100'),
    ('web_medium', 'Photoshop, Save for Web', 'Save for Web 30 of 100'),
    ('web_high', 'Photoshop, Save for Web', 'Save for Web 60 of 100'),
    ('web_very_high', 'Photoshop, Save for Web', 'Save for Web 80 of 100'),
    ('web_maximum', 'Photoshop, Save for Web', 'Save for Web 100 of 100')])
def test_photoshops_tables_are_known_with_their_setting(header, photo, preset, encoder, setting):
    assert preset in presets
    found = header(saved(photo, quality=preset))
    assert (found.encoder, found.encoder_setting, found.standard) == (encoder, setting, False)


def test_the_tables_of_older_photoshops_are_known_too(header):
    found = header(stream(PHOTOSHOP_3))
    assert (found.encoder, found.encoder_setting) == ('Photoshop', 'Photoshop 3 of 12')
    assert found.quality < 75 and found.tables[1] == tuple(PHOTOSHOP_3[1])


@pytest.mark.parametrize('number', range(2, 9))
@pytest.mark.parametrize('quality', [20, 75, 90])
def test_mozjpegs_tables_are_known_with_its_quality(header, number, quality):
    bases = encoder_data()['mozjpeg']['tables'][str(number)]
    found = header(stream([scale_table(np.array(b), quality) for b in bases], frame=0xC2))
    assert found.encoder == 'mozjpeg' and not found.standard
    option = '' if number == 3 else f', -quant-table {number}'
    assert found.encoder_setting == f'mozjpeg {quality}{option}'


def test_flat_tables_are_nobodys(header):
    found = header(stream([np.full(64, 8), np.full(64, 8)], frame=0xC2))
    assert found.encoder == 'unknown, flat tables'
    assert found.encoder_setting == 'as mozjpeg 74-76, -quant-table 1'  # 16 * 0.48 to 16 * 0.52


def test_jpeglis_tables_are_known_with_its_quality_or_distance(header):
    found = header(stream(JPEGLI_75))
    assert (found.encoder, found.encoder_setting) == ('jpegli', 'jpegli 75')
    data = encoder_data()['jpegli']
    for distance, setting in ((1.0, 'jpegli 90'), (1.234, 'jpegli distance 1.23'),
                              (1.45, 'jpegli 85')):
        tables = [np.rint(1.7396601 * distance * np.array(data[name])).clip(1, 255)
                  for name in ('y', 'cb', 'cr')]  # 4:4:4, below the distance where it bends
        components = ((1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 2))
        found = header(stream(tables, components))
        assert (found.encoder, found.encoder_setting) == ('jpegli', setting)


@pytest.mark.parametrize('q', [1, 2, 5, 17, 31])
def test_ffmpegs_tables_are_known_with_q(header, q):
    table = np.minimum(np.array(encoder_data()['mpeg1']['table']) * q // 8, 255)
    table[0] = 8
    found = header(stream([table], ((1, 2, 2, 0), (2, 1, 1, 0), (3, 1, 1, 0))))
    assert (found.encoder, found.encoder_setting) == ('ffmpeg', f'ffmpeg -q:v {q}')


def test_a_frame_of_a_video_that_ffmpeg_wrote_is_known(header, photo, tmp_path):
    path = str(tmp_path / 'a.avi')
    writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*'MJPG'), 25, (64, 64))
    if not writer.isOpened():
        pytest.skip('OpenCV is built without FFmpeg')
    writer.write(photo[:64, :64])
    writer.release()
    data = (tmp_path / 'a.avi').read_bytes()
    assert header(data[data.index(b'\xff\xd8\xff'):]).encoder == 'ffmpeg'


def test_guetzli_is_known_by_its_steps_its_ids_and_its_frame(header):
    steps = np.full(64, 9)
    steps[ZIGZAG[:3]] = 7
    ids_from_0 = tuple((i, 1, 1, 0) for i in range(3))
    assert header(stream([steps], ids_from_0, frame=0xC1)).encoder == 'guetzli'
    assert header(stream([steps], ids_from_0)).encoder == 'unknown'
    assert header(stream([steps], COLOUR_444[:1] * 3, frame=0xC1)).encoder == 'unknown'
    assert header(stream([steps + 1], ids_from_0, frame=0xC1)).encoder == 'unknown'
    steps[ZIGZAG[40]] = 8
    assert header(stream([steps], ids_from_0, frame=0xC1)).encoder == 'unknown'


def test_gimps_hash_is_computed_as_gimp_does():
    luma, chroma = tables_of(75)
    assert encoders.gimp_hash([luma, chroma]) == 0x10b035e9
    luma, chroma = tables_of(91)
    assert encoders.gimp_hash([luma, chroma, chroma]) == 0x5d1ca944  # of three tables
    assert encoders.gimp_hash(PHOTOSHOP_3) == 0xad0f8e5c


def test_a_table_known_by_its_sums_needs_its_sampling_and_may_be_turned(header, monkeypatch):
    luma, chroma = (np.array(t) for t in PHOTOSHOP_3)
    luma[40] += 1
    key = encoders.gimp_hash([luma, chroma]), luma.sum(), chroma.sum(), (2, 1)
    monkeypatch.setitem(encoders._by_sums(), key, encoders.Encoder('A camera', 'Fine'))

    def named(tables, h, v):
        found = header(stream(tables, ((1, h, v, 0), (2, 1, 1, 1), (3, 1, 1, 1))))
        return found.encoder, found.encoder_setting
    assert named([luma, chroma], 2, 1) == ('A camera', 'Fine')
    assert named([luma, chroma], 1, 1) == ('unknown', None)
    turned = [t.reshape(8, 8).T.ravel() for t in (luma, chroma)]
    assert named(turned, 1, 2) == ('A camera, tables turned by 90 degrees', 'Fine')
    assert named(turned, 2, 1) == ('unknown', None)


@pytest.mark.parametrize('tables', [tables_of(75), PHOTOSHOP_3, JPEGLI_75])
def test_with_one_step_changed_nobody_is_named(header, tables):
    for table, place in ((0, 63), (1, 20)):
        changed = [np.array(t) for t in tables]
        changed[table][place] += 2
        found = header(stream(changed))
        assert (found.encoder, found.encoder_setting, found.standard) == ('unknown', None, False)


def test_luma_tables_for_all_components_are_not_called_standard(header):
    found = header(stream(tables_of(75)[:1], tuple((i, 1, 1, 0) for i in (1, 2, 3))))
    assert (found.quality, found.standard, found.encoder) == (75, False, 'unknown')


def test_rgb_is_named_only_if_all_its_tables_are_alike(header):
    luma = tables_of(75)[0]
    for other, encoder in ((luma, 'libjpeg'), (luma + 1, 'unknown')):
        components = tuple((i, 1, 1, int(i == ord('B'))) for i in b'RGB')
        found = header(stream([luma, other], components, b''))
        assert (found.quality, found.encoder, found.colours) == (75, encoder, 'RGB')


def test_each_fingerprint_is_of_one_setting():
    data = encoder_data()
    names = [name for name in data['md5'] if name != 'source']
    assert [len(data['md5'][name]) for name in names] == [13, 10, 13, 101]
    digests = sum((data['md5'][name] for name in names), [])
    assert len(set(digests)) == len(digests)
    rows = [tuple(row[:5]) for row in data['sums']['rows']]
    assert len(set(rows)) == len(rows)
    assert all(part['source'] for part in data.values())
