"""What the page shows of a report, and what does its work, without Gradio and a browser."""
import csv
import io
import json
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from classifier import predict_cls
from classifier.desk import Desk, Stopped, pixels_of
from classifier.errors import InputError
from classifier.images import compress
from classifier.page import (COLUMNS, TYPES, Picture, card, counts, csv_text, facts, json_text,
                             sentence, table)
from classifier.predictor import Predictor
from classifier.report import FIELDS, REFINED_FIELDS, Report, look_at
from conftest import REPOSITORY, SAMPLES

PROOF = '; 1,200 of 1,200 blocks are bit-exact'


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Exact, never JPEG, estimated, saved twice, a truncated JPEG, no image."""
    folder = tmp_path_factory.mktemp('pictures')
    small = cv2.resize(cv2.imread(str(SAMPLES / 'raccoon_jpeg_q65.png')), None, fx=0.75, fy=0.75,
                       interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / 'small.png'), small)
    (folder / 'cut.jpg').write_bytes((REPOSITORY / 'docs' / 'twice.jpg').read_bytes()[:9000])
    (folder / 'text.png').write_text('no picture')
    predictor = Predictor()
    return [Picture(path.name, path, look_at(path, None, True, 10 ** 6, predictor)) for path in (
        SAMPLES / 'earth_jpeg_q75_crop3x5.png', SAMPLES / 'coffee.png', folder / 'small.png',
        REPOSITORY / 'docs' / 'twice.jpg', folder / 'cut.jpg', folder / 'text.png')]


def said(conclusion, name='one.png'):
    return sentence(Picture(name, None, Report({}, conclusion)))


@pytest.mark.parametrize('conclusion, expected', [
    ('was a JPEG of quality 75, exactly (4:2:0, block grid at (5, 3))' + PROOF,
     'This PNG was a JPEG of quality 75, exactly.'),
    ('was a JPEG of quality 75, exactly (block grid at (0, 0), decoded by another inverse DCT than '
     "libjpeg's)" + PROOF.replace('bit-exact', 'exact within rounding'),
     "This PNG was a JPEG of quality 75, exactly, decoded by another inverse DCT than libjpeg's."),
    ('was a JPEG of quality 75 (block grid at (0, 0)); its pixels were changed a little since',
     'This PNG was a JPEG of quality 75; its pixels were changed a little since.'),
    ('was a JPEG of quality 98 to 100 (gray, block grid at (0, 0), then turned by 90 degrees)'
     + PROOF, 'This PNG was a JPEG of quality 98 to 100, then turned by 90 degrees.'),
    ('was a JPEG of quality 90, exactly (4:2:0, chroma of quality 80, block grid at (0, 0))' + PROOF
     + '; saved before at about quality 60, block grid at (5, 3)',
     'This PNG was a JPEG of quality 90, exactly; saved before at about quality 60, block grid at '
     '(5, 3).'),
    ('was a JPEG of about quality 60 (52 to 67); the pixels were changed afterwards',
     'This PNG was a JPEG of about quality 60, between 52 and 67; the pixels were changed '
     'afterwards.'),
    ('no sign of JPEG compression', 'This PNG shows no sign of JPEG compression.'),
    ('cannot tell: too little texture', 'Cannot tell: too little texture.'),
    ('a JPEG whose header says quality 75, 4:2:0, and its pixels confirm that exactly; no earlier '
     'compression found (1,200 of 1,200 blocks are bit-exact)',
     'This is a JPEG whose header says quality 75, 4:2:0, and its pixels confirm that exactly; no '
     'earlier compression found.'),
    ('a JPEG whose header says quality 90 (chroma 80), 4:2:0, but its pixels contradict that: was '
     'a JPEG of quality 40, exactly (4:2:0, block grid at (0, 0))' + PROOF,
     'This is a JPEG whose header says quality 90 (chroma 80), 4:2:0, but its pixels contradict '
     'that: was a JPEG of quality 40, exactly.'),
    ('a sentence that is new here (with more)', 'A sentence that is new here (with more).')])
def test_a_conclusion_becomes_a_sentence_without_the_numbers_of_its_proof(conclusion, expected):
    assert said(conclusion) == expected


@pytest.mark.parametrize('name, kind', [('a.jpeg', 'JPEG'), ('A.TIF', 'TIFF'), ('a.webp', 'WebP'),
                                        ('a', 'picture'), ('a.dat', 'picture')])
def test_a_sentence_names_the_kind_of_file(name, kind):
    assert said('no sign of JPEG compression', name) == (
        f'This {kind} shows no sign of JPEG compression.')


def test_errors_are_the_lines_of_the_command_line(pictures, capsys):
    *_, cut, text = pictures
    assert predict_cls.main([str(cut.path)]) == predict_cls.main([str(text.path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    for picture, line in zip((cut, text), lines):
        assert f'predict_cls.py: error: {picture.path.parent}/{sentence(picture)}' == line
        assert sentence(picture).startswith(f'{picture.name}: ')
    assert isinstance(text.found, InputError) and 'only its header was read' in sentence(cut)


def test_facts_have_the_values_of_the_row_and_say_what_they_mean_and_when_they_fail(pictures):
    exact, never, estimated, twice, cut = (
        {fact.label: fact for fact in facts(picture.found)} for picture in pictures[:5])
    assert exact['Exact blocks'].value == '1,200 of 1,200' and exact['Quality'].value == '75'
    assert exact['Grid and chroma'].value == '(5, 3), 4:2:0'
    assert exact['Header'].value == 'none: this is no JPEG file' and 'Encoder' not in exact
    assert never['Exact blocks'].value == 'none' and 'if it was a JPEG' in never['Interval'].value
    row = pictures[2].found.row
    assert estimated['Interval'].value == f'{row["quality_low"]} to {row["quality_high"]}'
    assert twice['Header'].value == 'quality 90, 4:2:0, baseline'
    assert twice['Encoder'].value == 'libjpeg 90'
    assert twice['Earlier save'].value.startswith('saved before at about quality 60')
    assert list(cut) == ['Header', 'Encoder', 'Earlier save']  # no word of its pixels
    for found in (exact, never, estimated, twice, cut):
        assert all(fact.meaning and fact.limit for fact in found.values())


def test_what_is_not_proved_is_never_certain():
    """A probability that rounds to 0 or 100 % is not told as such."""
    row = dict.fromkeys(FIELDS + REFINED_FIELDS) | {
        'method': 'network', 'verdict': 'no header', 'quality': 60.0, 'quality_low': 50,
        'quality_high': 70}
    for compressed, value in ((0.9999, 'over 99 %'), (0.0001, 'under 1 %'), (0.7, '70 %')):
        found = {fact.label: fact.value for fact in facts(Report(row | {'compressed': compressed}))}
        assert found['Ever JPEG'] == value


def test_only_blocks_that_are_bit_exact_are_called_so_and_a_lattice_under_noise_is_no_proof():
    row = dict.fromkeys(FIELDS + REFINED_FIELDS) | {
        'method': 'lattice', 'verdict': 'no header', 'quality': 75.0, 'quality_low': 75,
        'quality_high': 75, 'compressed': 1.0, 'refined': 75, 'exact_blocks': 900,
        'tested_blocks': 1000, 'grid_dy': 0, 'grid_dx': 0, 'repeated': 1}
    accurate, other, unknown = (
        {fact.label: fact for fact in facts(Report(row | {'decoder': name} | more))}
        for name, more in ((None, {}), ('other', {}),
                           ('unknown', {'exact_blocks': 0, 'tested_blocks': 0})))
    assert 'bit for bit' in accurate['Exact blocks'].meaning
    assert 'bit for bit' not in other['Exact blocks'].meaning
    assert other['Exact blocks'].value == '900 of 1,000'
    assert unknown['Exact blocks'].value == 'none' and 'estimate' in unknown['Quality'].meaning
    assert 'estimate' not in other['Quality'].meaning
    assert accurate['Earlier save'].value == 'none found'
    assert other['Earlier save'].value == unknown['Earlier save'].value == 'not looked for'


def test_a_card_takes_no_html_from_names_and_has_every_field(pictures):
    for picture in pictures:
        one = Picture('<b>&.png', picture.path, picture.found)
        html = card(one)
        assert '<b>' not in html and '&lt;b&gt;&amp;.png' in html
        if one.has_row:
            shown = set(re.findall(r'<tr><th>(\w+)</th>', html))
            assert {name for name, value in one.found.row.items() if value is not None} <= shown


def test_the_table_has_a_row_for_each_picture_and_numbers_to_sort_by(pictures):
    found = table(pictures)
    numbers, rows = found['data'], found['metadata']['display_value']
    assert [row[0] for row in numbers] == [1, 2, 3, 4, 5, 6]
    assert {len(row) for row in numbers + rows} == {len(COLUMNS)} == {len(TYPES)}
    assert rows[0][1:] == ['earth_jpeg_q75_crop3x5.png',
                           'This PNG was a JPEG of quality 75, exactly.', '75', '75', '75', '']
    assert rows[1][3:] == rows[4][3:] == rows[5][3:] == 4 * ['']
    assert numbers[2][4] < numbers[2][3] < numbers[2][5]
    assert rows[3][3:] == ['90', '90', '90', '60']
    order = sorted(numbers, key=lambda row: row[3])  # what has no quality is behind
    assert [row[0] for row in order] == [3, 1, 4, 2, 5, 6]
    assert rows[5][2].startswith('not an image') and counts(pictures) == (
        '6 images: 2 exact, 1 estimated, 1 never JPEG; 1 recompressed; 2 could not be read')


def test_csv_and_json_are_those_of_the_command_line(pictures, tmp_path, capsys):
    picture = pictures[0]
    assert predict_cls.main([str(picture.path), '--csv', str(tmp_path / 'q.csv')]) == 0
    assert predict_cls.main([str(picture.path), '--json']) == 0
    with (tmp_path / 'q.csv').open(newline='') as file:
        line = list(csv.DictReader(file))[0]
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = list(csv.DictReader(io.StringIO(csv_text(pictures))))
    objects = json.loads(json_text(pictures))
    assert len(rows) == len(objects) == 5  # all but the one that is no picture
    for ours, theirs in ((rows[0], line), (objects[0], printed)):
        assert ours['path'] == picture.name and list(ours) == list(theirs)
        assert all(ours[name] == theirs[name] for name in theirs
                   if name not in ('path', 'seconds'))


# ---------------------------------------------------------------- the desk

@pytest.fixture(scope='module')
def desk(tmp_path_factory):
    return Desk(Predictor(), 10 ** 6, tmp_path_factory.mktemp('desk'))


def test_a_map_is_a_png_with_the_picture_s_name_and_tells_how_far_it_is(desk, pictures):
    shares = []
    desk.draw_map(pictures[0], shares.append)
    files = desk.files_made_of(pictures[0])
    assert [Path(file).name for file in files] == ['earth_jpeg_q75_crop3x5_map.png']
    assert cv2.imread(files[0]).shape[2] == 3
    assert len(shares) > 3 and shares == sorted(shares) and 0 == shares[0] < shares[-1] < 1


def test_a_map_is_given_up_when_something_else_is_asked_for(desk, pictures):
    def stop_at_once(share):
        assert share < 0.5
        desk.new_request()
    with pytest.raises(Stopped):
        desk.draw_map(pictures[0], stop_at_once)
    desk.draw_map(pictures[0], print)  # and the next one is not held up


def test_a_jpeg_is_rebuilt_under_the_picture_s_name_and_its_map_stays(desk, tmp_path):
    path = tmp_path / 'upload'
    cv2.imwrite(f'{path}.png', compress(cv2.imread(str(SAMPLES / 'coffee.png'))[:64, :80], 80))
    path = path.with_suffix('.png')
    picture = desk.look(str(path), 'my photo.png')
    assert picture.can_be_rebuilt
    desk.draw_map(picture, print)
    *news, result = desk.rebuild(picture)
    drawn, rebuilt = map(Path, desk.files_made_of(picture))
    assert (drawn.name, rebuilt.name) == ('my photo_map.png', 'my photo.jpg')
    assert np.array_equal(cv2.imread(str(rebuilt)), cv2.imread(str(path)))
    assert result == (f'Recovered my photo.jpg, every pixel identical, '
                      f'{rebuilt.stat().st_size:,} bytes in place of {path.stat().st_size:,}.')
    assert news and all('Rebuilding the JPEG' in line for line in news)


def test_why_a_jpeg_cannot_be_rebuilt_is_one_line_and_there_is_no_file(desk):
    path = REPOSITORY / 'docs' / 'pasted.png'
    picture = desk.look(str(path), 'pasted.jpg')
    *_, result = desk.rebuild(picture)
    assert result == ('Not recovered: only a part of it was a JPEG; cut that part out first.')
    assert not desk.files_made_of(picture)


def test_a_jpeg_is_given_up_when_something_else_is_asked_for(desk, pictures):
    news = desk.rebuild(pictures[0])
    next(news)
    desk.new_request()
    with pytest.raises(Stopped):
        list(news)
    assert desk.process.process.returncode == -signal.SIGKILL
    assert not any(name.endswith('.jpg') for name in desk.files_made_of(pictures[0]))


def test_the_page_s_end_waits_for_no_jpeg(desk, pictures):
    news = desk.rebuild(pictures[0])
    next(news)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(list, news)
        time.sleep(0.2)
        desk.close()
        with pytest.raises(Stopped):
            waiting.result(timeout=5)


def test_only_pictures_whose_pixels_prove_it_and_that_are_no_jpegs_can_be_rebuilt(pictures):
    assert [picture.can_be_rebuilt for picture in pictures] == [True] + 5 * [False]


def test_files_of_the_same_name_do_not_meet(desk):
    assert desk.new_file('q.csv') != desk.new_file('q.csv')


def test_pictures_over_the_limit_are_refused_as_on_the_command_line(desk, tmp_path):
    cv2.imwrite(str(tmp_path / 'large.png'), np.zeros((1001, 1000), np.uint8))
    assert pixels_of(tmp_path / 'large.png') == 1_001_000
    assert '1000x1001 is over the limit of 1,000,000 pixels' in sentence(
        desk.look(str(tmp_path / 'large.png'), 'large.png'))
