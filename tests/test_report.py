"""What is told of files whose table the pixels prove, turned and enlarged ones, earlier tables."""
import csv
import io
import json
import re

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter
from PIL.JpegPresets import presets

from classifier import predict_cls
from classifier.audit import FILE, NEVER, sort_of
from classifier.forensics.encoders import encoder_data
from classifier.forensics.header import read_header
from classifier.forensics.tables import nearest_quality, scale_table, standard_tables
from classifier.images import read_image
from classifier.predictor import Predictor
from classifier.predictor import ASKED_FROM
from classifier.report import look_at
from classifier.summary import answer, kind
from classifier.xmp import keywords
from conftest import SAMPLES

PHOTO = Image.open(SAMPLES / 'raccoon.png').convert('RGB')


def decoded(image, **options):
    """The image after Pillow's JPEG."""
    data = io.BytesIO()
    image.save(data, 'JPEG', **options)
    return Image.open(data).convert('RGB')


def mozjpeg_tables(quality, number='3'):
    """Luma and chroma tables of mozjpeg, by the number of its option -quant-table."""
    return [np.clip(scale_table(np.array(base), quality), 1, 255).tolist()
            for base in encoder_data()['mozjpeg']['tables'][number]]


def ramps():
    """Smooth gradients, another in each channel."""
    y, x = np.mgrid[:240, :320]
    return Image.fromarray(np.dstack([(x + y) // 3, (x + 2 * y) // 4, y // 2 + 40]).astype(
        np.uint8))


@pytest.fixture(scope='module')
def automatic():
    return Predictor()


@pytest.fixture
def told(tmp_path, automatic):
    """A function that saves a picture and returns what is told of the file."""
    def tell(image, name, **options):
        path = tmp_path / name
        image.save(path, **options)
        report = look_at(path, None, True, 10 ** 8, automatic)
        assert report.error is None and not report.warnings
        return report
    return tell


# ---------------------------------------------------------------- a header that is proved

@pytest.mark.parametrize('header, options', [
    ('67 (mozjpeg 75), 4:2:0', {'qtables': mozjpeg_tables(75), 'subsampling': '4:2:0'}),
    ('87 (mozjpeg 90), 4:4:4', {'qtables': mozjpeg_tables(90), 'subsampling': '4:4:4'}),
    *((said, {'qtables': presets[name]['quantization'],
              'subsampling': presets[name]['subsampling']}) for said, name in (
        ('37 (Save for Web 10 of 100), 4:2:0', 'web_low'),
        ('80 (Photoshop 5 of 12), 4:2:0', 'medium'),
        ('93 (Photoshop 10 of 12), 4:4:4', 'maximum')))], ids=lambda value: str(value)[:24])
def test_a_header_of_another_encoder_is_confirmed(told, header, options):
    report = told(PHOTO, 'a.jpg', **options)
    said = re.fullmatch(
        rf'a JPEG whose header says quality {re.escape(header)}, and its pixels confirm that '
        r'exactly; no earlier compression found \((1,\d\d\d) of 1,200 blocks are bit-exact\)',
        report.conclusion)
    row, nearest = report.row, int(header.split()[0])
    assert row['exact_blocks'] == int(said[1].replace(',', '')) > 1150
    assert (row['quality'], row['quality_low'], row['quality_high'], row['header_quality']) == (
        4 * (nearest,))
    assert (row['method'], row['verdict'], row['refined'], row['compressed']) == (
        'lattice', 'consistent', None, 1)
    # Only where the tables are fine enough to leave traces of earlier ones is the network asked.
    assert (row['network_quality'] is not None) == (nearest >= ASKED_FROM)


def test_a_chosen_network_s_answer_comes_with_the_proof_of_another_encoder_s_header(tmp_path):
    path = tmp_path / 'a.jpg'
    PHOTO.save(path, qtables=mozjpeg_tables(75), subsampling='4:2:0')
    paper = Predictor('jpeg_paper')
    report = look_at(path, None, True, 10 ** 8, paper)
    assert report.details[0].startswith('predicted quality 67.00, ')
    assert report.details[1] == ("the header's own table, exactly: 1,200 of 1,200 blocks are "
                                 'bit-exact')
    image, table = read_image(path), read_header(path).luma_table
    proved = paper.predict(image, refine=True, table=table)
    assert (proved.nearest, proved.quality, proved.method) == (67, 67, 'lattice')
    assert not proved.is_refined and proved.network_quality == pytest.approx(67, abs=8)
    alone = paper.predict(image, refine=True)
    assert alone.nearest is None and alone.method == 'network'


@pytest.mark.parametrize('quality', [60, 75, 90])
def test_the_header_of_a_smooth_gradient_is_confirmed(told, quality):
    report = told(ramps(), 'ramps.jpg', quality=quality)
    assert re.fullmatch(rf'a JPEG whose header says quality {quality}, 4:2:0, and its pixels '
                        r'confirm that exactly; no earlier compression found \((\d+) of \1 '
                        r'blocks are bit-exact\)', report.conclusion)
    assert report.row['verdict'] == 'consistent' and report.row['refined'] == quality


def test_a_table_that_the_pixels_do_not_have_is_not_taken_from_the_caller(automatic):
    image = np.asarray(decoded(PHOTO, quality=70))[:, :, ::-1].copy()
    found = automatic.predict(image, table=standard_tables()[89])
    assert not found.lattice.from_header and found.quality == 70 and found.nearest is None


# ---------------------------------------------------------------- pixels alone

def test_qualities_that_cannot_be_told_apart_are_a_range_and_not_exact(told):
    y, x = np.mgrid[:200, :200]
    wave = np.rint(128 + 60 * np.sin(x / 31) * np.cos(y / 23))
    wave = Image.fromarray(np.repeat(wave[..., None], 3, axis=2).astype(np.uint8))
    report = told(decoded(wave, quality=64), 'wave.png')
    said = re.fullmatch(r'was a JPEG of quality (\d+) to (\d+) \(gray, block grid at \(0, 0\)\); '
                        r'(\d+) of \3 blocks are bit-exact', report.conclusion)
    low, high = int(said[1]), int(said[2])
    assert low <= 64 <= high and 0 < high - low < 5
    assert (report.row['quality_low'], report.row['quality_high']) == (low, high)
    assert low <= report.row['quality'] <= high and report.row['method'] == 'lattice'


@pytest.mark.parametrize('turns, times, words', [
    (1, 1, ', then turned by 90 degrees'), (3, 1, ', then turned by 90 degrees'),
    (0, 2, ', each pixel then repeated 2 x 2'), (0, 3, ', each pixel then repeated 3 x 3'),
    (1, 2, ', each pixel then repeated 2 x 2, then turned by 90 degrees')])
def test_a_photo_turned_and_enlarged_is_told_exactly(told, turns, times, words):
    pixels = np.rot90(np.asarray(decoded(PHOTO, quality=70)), turns)
    pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    report = told(Image.fromarray(np.ascontiguousarray(pixels)), 'a.png')
    said = re.fullmatch(r'was a JPEG of quality 70, exactly \(4:2:0, block grid at \((\d), (\d)\)'
                        rf'{words}\); 1,(\d\d\d) of 1,200 blocks are bit-exact', report.conclusion)
    row = report.row
    assert (row['turned'], row['repeated'], row['refined']) == (turns > 0, times, 70)
    assert (row['grid_dy'], row['grid_dx']) == (int(said[1]), int(said[2]))
    assert (row['exact_blocks'], row['tested_blocks']) == (1000 + int(said[3]), 1200)


# ---------------------------------------------------------------- saved again

@pytest.mark.parametrize('first, name', [
    ('3', 'mozjpeg 70'), ('2', 'mozjpeg 70, -quant-table 2'),
    ('photoshop', 'Photoshop, Save for Web')])
def test_what_another_encoder_s_coarser_table_has_left_is_told(told, first, name):
    tables = (presets['web_medium']['quantization'] if first == 'photoshop' else
              mozjpeg_tables(70, first))
    before = decoded(PHOTO, qtables=tables, subsampling='4:2:0')
    report = told(before, 'again.jpg', quality=95)
    assert report.row['verdict'] == 'recompressed'
    said = re.fullmatch(r'a JPEG whose header says quality 95, 4:2:0; saved before at about '
                        r'quality (\d+) \((.+)\), block grid at \(0, 0\)', report.conclusion)
    assert 45 < int(said[1]) < 70 and said[2] == name
    assert told(PHOTO, 'once.jpg', quality=95).row['verdict'] == 'consistent'


@pytest.mark.parametrize('name', ['coffee', 'earth', 'gravel', 'raccoon'])
def test_a_photo_saved_once_at_a_high_quality_is_not_said_to_have_been_saved_before(told, name):
    photo = Image.open(SAMPLES / f'{name}.png').convert('RGB')
    for quality in (ASKED_FROM, 90, 95):
        report = told(photo, 'once.jpg', quality=quality)
        assert report.row['verdict'] == 'consistent' and report.row['network_quality'] > 75
        assert 'and its pixels confirm that exactly' in report.conclusion


def test_an_interval_too_wide_for_an_answer_contradicts_no_header(told):
    """A blurred picture saved once: what the network sees may be anything."""
    gravel = cv2.imread(str(SAMPLES / 'gravel.png'))
    blurred = Image.fromarray(cv2.GaussianBlur(gravel, (0, 0), 2)[:, :, ::-1])
    report = told(blurred, 'blurred.jpg', quality=97, subsampling=0)
    assert report.row['verdict'] == 'consistent' and report.row['network_quality'] is None
    assert report.row['method'] == 'lattice' and report.row['reason'] is None


def test_a_chosen_network_s_contradiction_names_what_the_pixels_look_like(tmp_path):
    path = tmp_path / 'again.jpg'
    decoded(PHOTO, quality=20).filter(ImageFilter.GaussianBlur(0.5)).save(
        path, quality=95, subsampling=0)
    report = look_at(path, None, True, 10 ** 8, Predictor('jpeg_paper', fusion='likelihood'))
    said = re.fullmatch(r'header says quality 95, 4:4:4; contradiction: its pixels look like '
                        r'quality (\d+) to (\d+)', report.details[-1])
    assert 10 < int(said[1]) < int(said[2]) < 40


def test_a_table_that_is_not_libjpeg_s_has_a_column_beside_no_lattice(told):
    report = told(decoded(PHOTO, qtables=mozjpeg_tables(60), subsampling='4:4:4'), 'foreign.png')
    row = report.row
    by_header, _ = nearest_quality(np.array(mozjpeg_tables(60)[0]))
    assert row['refined'] is None and abs(row['table_quality'] - by_header) <= 5
    assert row['compressed'] == 1
    assert kind(row) == 'estimated' and f'nearest to quality {row["table_quality"]}' in answer(row)
    assert f'nearest to quality {row["table_quality"]}' in report.conclusion
    row = told(PHOTO, 'never.png').row
    assert row['table_quality'] is None and row['refined'] is None


def test_a_jpeg_file_is_never_called_never_jpeg(tmp_path, capsys):
    """Whatever the network thinks of its pixels: there is only no sign of an earlier JPEG."""
    PHOTO.save(tmp_path / 'best.jpg', quality=100, subsampling=0)
    PHOTO.save(tmp_path / 'never.png')
    network = Predictor('jpeg_robust')
    best, never = (look_at(tmp_path / name, None, False, 10 ** 8, network)
                   for name in ('best.jpg', 'never.png'))
    assert network.predict(read_image(tmp_path / 'best.jpg')).compressed < 0.5
    assert (kind(best.row), kind(never.row)) == ('estimated', 'never JPEG')
    assert best.row['compressed'] == 1 and 'no sign' not in answer(best.row)
    assert (sort_of(best.row), sort_of(never.row)) == (FILE, NEVER)
    assert keywords(best)[0].startswith('JPEG quality') and keywords(never) == ['no sign of JPEG']
    assert 'no earlier compression found' in best.details[-1]
    assert predict_cls.main([str(tmp_path), '--comp_type', 'jpeg_robust', '--select',
                             'compressed<0.5']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ['never.png: no sign of JPEG compression',
                     '2 images: 1 estimated, 1 never JPEG; 1 chosen']


# ---------------------------------------------------------------- in CSV and JSON

def test_csv_and_json_tell_the_proof(tmp_path, capsys):
    once = decoded(PHOTO, quality=70)
    turned = np.rot90(np.asarray(once)).repeat(2, axis=0).repeat(2, axis=1)
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / 'a.png')
    PHOTO.save(tmp_path / 'b.jpg', qtables=mozjpeg_tables(75))
    PHOTO.save(tmp_path / 'c.png')
    names = ('exact_blocks', 'tested_blocks', 'turned', 'repeated')
    out = tmp_path / 'q.csv'
    assert predict_cls.main([str(tmp_path), '--json', '--csv', str(out)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    turned, mozjpeg, pristine = ([row[name] for name in names] for row in rows)
    assert 1100 < turned[0] <= turned[1] == 1200 and turned[2:] == [True, 2]
    assert mozjpeg == [1200, 1200, False, 1] and pristine == 4 * [None]
    with out.open(newline='') as file:
        for row, values in zip(csv.DictReader(file), (turned, mozjpeg, pristine), strict=True):
            assert [row[name] for name in names] == [
                '' if value is None else str(value) for value in values]
