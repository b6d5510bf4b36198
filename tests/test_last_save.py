"""The last of two saves, told exactly from pixels alone, and the earlier one beside it."""
import csv
import json

import cv2
import numpy as np
import pytest

from classifier import predict_cls
from classifier.forensics.blocks import get_blocks
from classifier.forensics.earlier_save import find_earlier_save
from classifier.forensics.last_table import proves_last
from classifier.forensics.lattice import find_quality
from classifier.forensics.tables import scale_table, standard_tables
from classifier.images import compress, read_image
from classifier.predictor import Predictor
from classifier.report import look_at
from classifier.studies.common import pillow_jpeg
from conftest import SAMPLES

EARLIER = 'earlier_quality', 'earlier_grid_dy', 'earlier_grid_dx'


@pytest.fixture(scope='module', params=['coffee', 'raccoon'])
def picture(request):
    return read_image(SAMPLES / f'{request.param}.png')


@pytest.fixture(scope='module')
def automatic():
    return Predictor()


def told(image, path, automatic):
    """The sentence and the earlier save's three fields, of an image saved as PNG."""
    cv2.imwrite(str(path), image)
    report = look_at(path, None, True, 10 ** 8, automatic)
    assert report.row['verdict'] == 'no header' and report.error is None
    return report.conclusion, tuple(report.row[name] for name in EARLIER)


@pytest.mark.parametrize('first, last', [
    (30, 90), (60, 92), (60, 95), (80, 95), (90, 95), (30, 98), (60, 98), (90, 98)])
def test_both_saves_on_one_grid_are_told(picture, first, last):
    twice = compress(compress(picture, first), last)
    found = find_quality(twice)
    assert found.qualities == (last,) and (found.grid_dy, found.grid_dx) == (0, 0)
    earlier = find_earlier_save(twice, found)
    assert (earlier.quality, earlier.grid_dy, earlier.grid_dx) == (first, 0, 0)


@pytest.mark.parametrize('last', [99, 100])
def test_after_an_earlier_save_the_finest_tables_are_told_or_nothing_is(picture, last):
    twice = compress(compress(picture, 75), last)
    assert find_quality(twice).qualities in ((last,), ())


def test_the_grids_are_those_of_the_image_after_crops_and_a_quarter_turn(photo):
    moved = compress(compress(photo, 60)[2:, 1:], 95)[3:, 5:]
    aligned = compress(compress(photo, 60), 95)[3:, 5:]
    for image, last, earlier in ((moved, (5, 3), (3, 2)), (aligned, (5, 3), (5, 3))):
        for turns in range(4):
            turned = np.ascontiguousarray(np.rot90(image, turns))
            found = find_quality(turned)
            assert found.qualities == (95,) and found.turned == bool(turns % 2)
            before = find_earlier_save(turned, found)
            assert before.quality == 60
            for grid, (dy, dx) in (((found.grid_dy, found.grid_dx), last),
                                   ((before.grid_dy, before.grid_dx), earlier)):
                marks = np.zeros(image.shape[:2], bool)
                marks[dy::8, dx::8] = True  # top-left pixels; turned, another corner's
                y, x = np.argwhere(np.rot90(marks, turns))[0]
                offset = [(0, 0), (1, 0), (1, 1), (0, 1)][turns]
                assert grid == ((y + offset[0]) % 8, (x + offset[1]) % 8), turns


def test_an_earlier_save_on_another_grid_is_told(picture):
    for first, last in ((40, 80), (60, 95), (80, 98)):
        twice = compress(compress(picture, first)[2:, 5:], last)
        found = find_quality(twice)
        assert found.qualities == (last,) and (found.grid_dy, found.grid_dx) == (0, 0)
        earlier = find_earlier_save(twice, found)
        assert abs(earlier.quality - first) <= 2
        assert (earlier.grid_dy, earlier.grid_dx) == (6, 3)


def test_one_save_has_no_earlier_one(picture):
    for quality in (30, 60, 85, 92, 95, 98):
        once = compress(picture, quality)[4:, 2:]
        found = find_quality(once)
        assert found.qualities == (quality,)
        assert find_earlier_save(once, found).quality is None


def test_a_last_table_of_another_encoder_is_not_taken_for_a_standard_one(photo):
    """Tables that are coarser here and finer there than the standard ones around them."""
    y, x = np.mgrid[:8, :8]
    first = compress(photo, 60)
    for table in (1 + (y + x > 3), 1 + (y + x > 1) + (y + x > 6), 2 + (y + x) // 4,
                  np.full((8, 8), 2), 3 * standard_tables()[97].reshape(8, 8),
                  scale_table(np.full((8, 8), 16), 85)):
        coded = pillow_jpeg(first, qtables=[table.ravel().tolist()] * 2, subsampling='4:2:0')
        assert find_quality(coded).qualities == ()


def test_an_earlier_table_of_another_encoder_hides_the_last_one_no_more(photo):
    flat = pillow_jpeg(photo, qtables=[[12] * 64] * 2)
    assert find_quality(compress(flat, 95)).qualities == (95,)


def test_only_the_table_that_was_used_is_proved_to_be_the_last(photo):
    tables = standard_tables()
    blocks = get_blocks(compress(compress(photo, 60), 95), 0, 0)
    assert [q for q in range(1, 101) if proves_last(blocks, tables[q - 1], q)] == [95]
    for image in (photo, compress(photo, 60)[3:, 5:]):
        blocks = get_blocks(image, 0, 0)
        assert not any(proves_last(blocks, tables[q - 1], q) for q in range(1, 101))


def test_nothing_is_said_of_an_earlier_save_where_the_last_table_is_not_sure(photo):
    twice = compress(compress(photo // 2 + 60, 50), 80)
    enlarged = twice.repeat(2, axis=0).repeat(2, axis=1)
    lifted = twice + np.uint8(2)
    for image in (photo, enlarged, lifted):
        found = find_quality(image)
        assert find_earlier_save(image, found) is None
    assert found.quality == 80 and found.lifted


def test_the_sentence_and_the_fields_tell_the_earlier_save(photo, tmp_path, automatic):
    twice = compress(compress(photo, 60)[2:, 1:], 95)[3:, 5:]
    said, fields = told(twice, tmp_path / 'a.png', automatic)
    assert said.startswith('was a JPEG of quality 95, exactly (4:2:0, block grid at (5, 3)); ')
    assert said.endswith('; saved before at about quality 60, block grid at (3, 2)')
    assert fields == (60, 3, 2)
    said, fields = told(compress(photo, 95), tmp_path / 'b.png', automatic)
    assert 'saved before' not in said and fields == (None, None, None)
    said, fields = told(photo, tmp_path / 'c.png', automatic)
    assert said == 'no sign of JPEG compression' and fields == (None, None, None)


def test_csv_and_json_tell_the_earlier_save_of_files_with_a_header_and_without(
        photo, tmp_path, capsys):
    first = compress(photo, 60)
    cv2.imwrite(str(tmp_path / 'a.jpg'), first[2:, 1:], [cv2.IMWRITE_JPEG_QUALITY, 90])
    cv2.imwrite(str(tmp_path / 'b.png'), compress(first, 90))
    cv2.imwrite(str(tmp_path / 'c.jpg'), photo, [cv2.IMWRITE_JPEG_QUALITY, 90])
    out = tmp_path / 'q.csv'
    assert predict_cls.main([str(tmp_path), '--json', '--csv', str(out)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [(60, 6, 7), (60, 0, 0), (None, None, None)]
    assert [tuple(row[name] for name in EARLIER) for row in rows] == expected
    with out.open(newline='') as file:
        for row, values in zip(csv.DictReader(file), expected, strict=True):
            assert [row[name] for name in EARLIER] == [
                '' if value is None else str(value) for value in values]


def test_a_chosen_network_with_refinement_tells_it_too(photo, tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), compress(compress(photo, 60), 95))
    report = look_at(path, None, True, 10 ** 8, Predictor('jpeg_paper'))
    assert report.details[-1] == ('no header: was a JPEG of quality 95; saved before at about '
                                  'quality 60, block grid at (0, 0)')
    plain = look_at(path, None, False, 10 ** 8, Predictor('jpeg_paper'))
    assert [plain.row[name] for name in EARLIER] == [None, None, None]
