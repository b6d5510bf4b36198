"""predict_cls.py without --comp_type: what it concludes about files of many kinds, end to end."""
import contextlib
import csv
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from classifier import evaluate_cls, predict_cls, predictor as predictor_room
from classifier.errors import InputError
from classifier.images import compress, read_image
from classifier.predictor import AUTOMATIC, LITTLE_TEXTURE, TOO_UNSURE, Predictor
from classifier.report import FIELDS, REFINED_FIELDS
from conftest import CLASSIFIER, SAMPLES
from jpeg_streams import stream, tables_of
from test_commands import typed

CONFIRMED = (', and its pixels confirm that exactly; no earlier compression found (1,200 of 1,200 '
             'blocks are bit-exact)')
COMPRESSED = {'coffee_jpeg_q20.png': (20, 0, 0), 'earth_jpeg_q35.png': (35, 0, 0),
              'earth_jpeg_q75_crop3x5.png': (75, 5, 3), 'gravel_jpeg_q85.png': (85, 0, 0),
              'raccoon_jpeg_q65.png': (65, 0, 0)}
UNUSABLE = {'cut.jpg': (75, 'truncated'), 'deep.jpg': (75, 'not an image that can be read'),
            'tiny.jpg': (80, 'a side of 12 px is too small')}


def decoded_jpeg(image, **options):
    """The image after Pillow's JPEG."""
    data = io.BytesIO()
    image.save(data, 'JPEG', **options)
    return Image.open(data).convert('RGB')


def text_page():
    """A page of text, as drawn."""
    page = Image.new('RGB', (480, 360), 'white')
    draw = ImageDraw.Draw(page)
    for y in range(10, 350, 14):
        draw.text((12, y), f'The quick brown fox jumps over the lazy dog {y}, and sleeps.', 'black')
    return page


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """A folder of self-made pictures, each named for what it is."""
    folder = tmp_path_factory.mktemp('pictures')
    photo = Image.open(SAMPLES / 'raccoon.png').convert('RGB')
    width, height = photo.size
    text_page().save(folder / 'text.png')
    for name, level in ('black', 0), ('gray', 128):
        Image.new('RGB', (300, 200), 3 * (level,)).save(folder / f'{name}.png')
    once = decoded_jpeg(photo, quality=60)
    once.resize((width * 3 // 4, height * 3 // 4), Image.LANCZOS).save(folder / 'resized.png')
    photo.save(folder / 'once.jpg', quality=75)
    once.save(folder / 'twice.jpg', quality=90)
    photo.save(folder / 'rgb.jpg', quality=70, keep_rgb=True)
    photo.convert('CMYK').save(folder / 'cmyk.jpg', quality=70)
    # Coarsely compressed, enlarged, and saved with fine tables that are not libjpeg's.
    poor = decoded_jpeg(photo, quality=10).resize((width * 3 // 2, height * 3 // 2), Image.BICUBIC)
    poor.save(folder / 'poor.jpg', qtables=[[2] * 64] * 2, subsampling=0)
    whole = (folder / 'once.jpg').read_bytes()
    (folder / 'cut.jpg').write_bytes(whole[:len(whole) // 2])
    (folder / 'deep.jpg').write_bytes(stream(tables_of(75), bits=12, frame=0xC1))
    Image.new('RGB', (12, 12), (90, 90, 90)).save(folder / 'tiny.jpg', quality=80)
    (folder / 'no_image.png').write_text('text')
    return folder


def run(*options):
    """What predict_cls.py prints, and its status."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = predict_cls.main([str(option) for option in options])
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())


@pytest.fixture(scope='module')
def found(pictures, tmp_path_factory):
    """A run on one of the pictures, all of them, and the sample images; its CSV's rows by name."""
    path = tmp_path_factory.mktemp('csv') / 'q.csv'
    done = run(pictures / 'once.jpg', pictures, SAMPLES, '--csv', path)
    with path.open(newline='') as file:
        done.header, *rows = csv.reader(file)
    done.names = [row[0].rpartition('/')[2] for row in rows]
    done.rows = {name: dict(zip(done.header, row)) for name, row in zip(done.names, rows)}
    done.lengths = {len(row) for row in rows}
    *lines, done.summary = done.out.splitlines()
    done.lines = {name.rpartition('/')[2]: line for name, line in (
        line.split(': ', 1) for line in lines)}
    done.csv, done.total = path, len(lines)
    return done


# ---------------------------------------------------------------- conclusions

@pytest.mark.parametrize('name', COMPRESSED)
def test_a_decoded_jpeg_is_told_exactly(found, name):
    quality, dy, dx = COMPRESSED[name]
    assert re.fullmatch(rf'was a JPEG of quality {quality}, exactly \((.+, )?'
                        rf'block grid at \({dy}, {dx}\)\); ([\d,]+) of \2 blocks are bit-exact',
                        found.lines[name])
    row = found.rows[name]
    assert int(row['exact_blocks']) == int(row['tested_blocks']) > 500
    assert (row['turned'], row['repeated']) == ('False', '1')
    assert float(row['quality']) == quality and row['method'] == 'lattice'
    assert row['quality_low'] == row['quality_high'] == row['refined'] == str(quality)
    assert float(row['compressed']) == 1 and row['verdict'] == 'no header'
    assert row['network_quality'] == row['uncertainty'] == '' and row['patches'] == '0'


def test_a_drawn_page_shows_no_sign_of_compression(found):
    assert found.lines['text.png'] == 'no sign of JPEG compression'
    row = found.rows['text.png']
    assert row['method'] == 'network' and float(row['compressed']) < 0.5
    assert row['quality_high'] == '100' and float(row['quality']) > 90


def test_photos_that_were_never_compressed_are_not_told_as_coarse_jpegs(found):
    for name in ('coffee.png', 'earth.png', 'gravel.png', 'raccoon.png'):
        row = found.rows[name]
        assert row['refined'] == '' and row['quality_high'] == '100'
        assert float(row['quality']) > 85


@pytest.mark.parametrize('name', ['black.png', 'gray.png'])
def test_of_a_flat_picture_nothing_can_be_told(found, name):
    assert found.lines[name] == 'cannot tell: too little texture'
    row = found.rows[name]
    assert row['method'] == 'none' and row['reason'] == LITTLE_TEXTURE
    assert row['quality'] == row['quality_low'] == row['quality_high'] == row['compressed'] == ''


def test_a_resized_jpeg_is_told_by_an_interval(found):
    said = re.match(r'was a JPEG of about quality (\d+) \((\d+) to (\d+)\); ',
                    found.lines['resized.png'])
    quality, low, high = map(int, said.groups())
    assert low <= quality <= high and low - 10 <= 60 <= high + 10 and abs(quality - 60) < 30
    row = found.rows['resized.png']
    assert (row['quality_low'], row['quality_high']) == (str(low), str(high))
    assert row['method'] == 'network' and float(row['compressed']) > 0.5
    assert float(row['uncertainty']) > 0.5 and row['refined'] == ''


def test_a_header_that_the_pixels_confirm(found):
    assert found.lines['once.jpg'] == f'a JPEG whose header says quality 75, 4:2:0{CONFIRMED}'
    row = found.rows['once.jpg']
    after = FIELDS[FIELDS.index('header_chroma_quality'):FIELDS.index('edited')]
    assert [row[name] for name in after] == [
        '75', '4:2:0', 'YCbCr', 'baseline', '', 'libjpeg', 'libjpeg 75']
    assert (row['verdict'], row['header_quality'], row['header_standard'], row['refined']) == (
        'consistent', '75', 'True', '75')


def test_an_earlier_compression_of_a_file(found):
    said = re.fullmatch(r'a JPEG whose header says quality 90, 4:2:0; saved before at about '
                        r'quality (\d+), block grid at \(0, 0\)', found.lines['twice.jpg'])
    assert abs(int(said[1]) - 60) <= 2 and found.rows['twice.jpg']['verdict'] == 'recompressed'


def test_a_file_whose_pixels_look_far_worse_than_its_tables(found):
    said = re.fullmatch(r'a JPEG whose header says quality 98.*, 4:4:4, and its pixels confirm '
                        r'that, but they look like those of a JPEG of about quality (\d+) \('
                        r'(\d+) to (\d+)\) saved again', found.lines['poor.jpg'])
    quality, low, high = map(int, said.groups())
    assert low <= quality <= high < 40
    row = found.rows['poor.jpg']
    assert row['verdict'] == 'contradiction' and float(row['network_quality']) < 40
    assert row['quality_low'] == row['quality_high'] == '98' and row['method'] == 'lattice'
    assert row['header_standard'] == 'False' and row['encoder'].startswith('unknown')


@pytest.mark.parametrize('name, colours', [('rgb.jpg', 'RGB'), ('cmyk.jpg', 'CMYK')])
def test_jpegs_without_luma_are_read_exactly_by_a_plane_that_was_coded(found, name, colours):
    assert found.lines[name] == f'a JPEG whose header says quality 70, 4:4:4{CONFIRMED}'
    row = found.rows[name]
    assert (row['header_colours'], row['header_chroma_quality'], row['refined']) == (
        colours, '', '70')


@pytest.mark.parametrize('name', UNUSABLE)
def test_a_jpeg_whose_pixels_cannot_be_used_gets_its_header_read_and_an_error(found, name):
    header, reason = UNUSABLE[name]
    assert found.status == 2
    error, = [line for line in found.err.splitlines() if f'/{name}: ' in line]
    assert error.startswith('predict_cls.py: error: ') and reason in error
    assert error.endswith('; only its header was read')
    assert found.lines[name] == (f'header says quality {header}, 4:2:0; its pixels cannot be used')
    row = found.rows[name]
    assert row['quality'] == row['quality_low'] == row['refined'] == row['compressed'] == ''
    assert (row['method'], row['verdict'], row['patches']) == ('none', 'not checked', '0')
    assert row['header_quality'] == str(header) and row['encoder'] == 'libjpeg'
    assert reason in row['reason']
    assert row['header_process'] == ('extended 12-bit' if name == 'deep.jpg' else 'baseline')


# ---------------------------------------------------------------- rows and lines of a run

def test_paths_may_be_mixed_and_each_image_counts_once(found, pictures):
    names = sorted(path.name for path in pictures.iterdir() if path.name != 'once.jpg')
    samples = sorted(path.name for path in SAMPLES.glob('*.png'))
    names.remove('no_image.png')
    assert found.names == ['once.jpg', *names, *samples]
    assert 'no_image.png: not an image' in found.err


def test_every_row_has_every_column(found):
    assert found.header == [*FIELDS, *REFINED_FIELDS] and found.lengths == {len(found.header)}


def test_the_last_line_counts_what_was_concluded(found, pictures):
    exact = sum(row['method'] == 'lattice' for row in found.rows.values())
    assert exact >= len(COMPRESSED) + 4
    parts = re.fullmatch(r'(\d+) images: (.+); 1 recompressed; 4 could not be read', found.summary)
    counts = {kind: int(number) for number, kind in (
        part.split(' ', 1) for part in parts[2].split(', '))}
    assert counts['exact'] == exact and counts['cannot tell'] >= 2
    assert counts['never JPEG'] >= 1
    assert sum(counts.values()) == len(found.rows) - len(UNUSABLE)
    listed = len(list(pictures.iterdir())) + len(list(SAMPLES.glob('*.png')))
    assert int(parts[1]) == listed


def test_json_has_the_fields_of_the_csv_with_types(found, pictures):
    done = run(pictures, '--json', '--ignore_errors')
    assert done.status == 0
    for row in map(json.loads, done.out.splitlines()):
        name = row['path'].rpartition('/')[2]
        assert list(row) == found.header and row['path'] == str(pictures / name)
        for field, value in row.items():
            text = found.rows[name][field]
            if field in ('quality', 'compressed', 'uncertainty', 'network_quality', 'edited') and (
                    text):
                assert isinstance(value, float) and value == float(text)
            elif field not in ('path', 'seconds', 'margin', 'evidence'):
                assert ('' if value is None else str(value)) == text
                assert value is None or isinstance(value, (str, int))


def test_going_on_tries_what_failed_again_and_counts_the_rest_as_before(found, pictures):
    rows = found.csv.read_text()
    done = run(pictures / 'once.jpg', pictures, SAMPLES, '--csv', found.csv, '--resume')
    assert done.status == 2 and done.out.splitlines()[-1] == found.summary
    assert len(done.out.splitlines()) == 1 + len(UNUSABLE)
    again = {line for line in done.err.splitlines() if ' error: ' in line}
    assert again == {line for line in found.err.splitlines() if ' error: ' in line}
    assert found.csv.read_text() == rows


@pytest.mark.parametrize('name', ['resized.png', 'once.jpg'])
def test_one_file_in_a_process_of_its_own_gets_the_row_of_a_folder_s_run(found, pictures, name):
    result = typed(CLASSIFIER / 'predict_cls.py', pictures / name, '--json')
    assert result.returncode == 0 and result.stderr == ''
    row, expected = json.loads(result.stdout), found.rows[name]
    for field, value in row.items():
        if isinstance(value, float) and not isinstance(value, bool) and field != 'seconds':
            assert value == pytest.approx(float(expected[field]), abs=0.06)
        elif field != 'seconds':
            assert ('' if value is None else str(value)) == expected[field]


def test_one_file_that_cannot_be_used_still_gets_its_header_read(pictures):
    done = run(pictures / 'cut.jpg')
    assert done.status == 2 and done.out == (
        f'{pictures}/cut.jpg: header says quality 75, 4:2:0; its pixels cannot be used\n')
    assert len(done.err.splitlines()) == 1 and 'truncated' in done.err


@pytest.mark.parametrize('options, reason', [
    (['nowhere.png'], 'nowhere.png: no such file or folder'),
    ([SAMPLES / 'coffee.png', '--fusion', 'median'], 'name a comp_type'),
    ([SAMPLES / 'coffee.png', '--threshold', '90'], 'name a comp_type'),
    ([SAMPLES, SAMPLES / 'coffee.png', '--map', 'map.png'], '--map is for one image')])
def test_what_cannot_be_done_gets_one_clear_line(options, reason):
    done = run(*options)
    assert done.status == 2 and done.out == ''
    error, = done.err.splitlines()
    assert reason in error


def test_no_path_at_all_is_a_usage_error(capsys):
    with pytest.raises(SystemExit, match='2'):
        predict_cls.main([])
    assert 'name an image or a folder' in capsys.readouterr().err


# ---------------------------------------------------------------- from Python, and its evaluation

@pytest.fixture(scope='module')
def predictor():
    return Predictor()


def test_a_predictor_without_a_type_is_automatic(predictor, photo):
    assert predictor.automatic and predictor.type.name == AUTOMATIC
    assert predictor.fusion == 'posterior' and not predictor.stops_early
    exact, black = predictor.predict_all([compress(photo, 40), np.zeros((64, 64, 3), np.uint8)])
    assert (exact.quality, exact.quality_low, exact.quality_high) == (40, 40, 40)
    assert (exact.method, exact.compressed, exact.reason) == ('lattice', 1, None)
    assert exact.network_quality is exact.posterior is exact.uncertainty is None
    assert (black.quality, black.method, black.reason) == (None, 'none', LITTLE_TEXTURE)
    assert black.lattice.quality is None


def test_the_row_says_what_python_says(predictor, found, pictures):
    prediction = predictor.predict(read_image(pictures / 'resized.png'))
    row = found.rows['resized.png']
    for name in ('quality', 'uncertainty', 'compressed', 'quality_low', 'quality_high', 'patches'):
        assert float(row[name]) == pytest.approx(getattr(prediction, name), abs=0.02)
    assert 0 <= prediction.edited <= 1 and prediction.method == row['method'] == 'network'


def test_an_interval_that_is_too_wide_is_no_answer(predictor, pictures, monkeypatch):
    image = read_image(pictures / 'resized.png')
    wide = predictor.predict(image)
    monkeypatch.setattr(predictor_room, 'WIDEST', wide.quality_high - wide.quality_low)
    assert predictor.predict(image).quality == pytest.approx(wide.quality, abs=1e-3)
    monkeypatch.setattr(predictor_room, 'WIDEST', wide.quality_high - wide.quality_low - 1)
    refused = predictor.predict(image)
    assert (refused.quality, refused.method, refused.reason) == (None, 'none', TOO_UNSURE)
    assert (refused.quality_low, refused.quality_high) == (wide.quality_low, wide.quality_high)


def test_rules_of_the_paper_are_for_a_chosen_type():
    for option in ({'fusion': 'likelihood'}, {'threshold': 90}):
        with pytest.raises(InputError, match='name a comp_type'):
            Predictor(**option)


def test_images_can_be_evaluated_automatically(photo_folder, tmp_path, capsys):
    assert evaluate_cls.main(['--in_path', str(photo_folder), '--qualities', '30,80', '--limit',
                              '1', '--out_path', str(tmp_path)]) == 0
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['made_with']['comp_type'] == 'automatic' and results['refined'] == 1
    assert results['by_crop']['0,0']['mae'] == 0
    assert 'automatic, posterior, cropped by (0, 0)' in capsys.readouterr().out


@pytest.mark.parametrize('option', [
    ['--study', 'robustness'], ['--study', 'stopping'], ['--fit', 'threshold']])
def test_what_needs_a_type_says_so(option, capsys):
    with pytest.raises(SystemExit, match='2'):
        evaluate_cls.main(['--in_path', 'a', *option])
    assert 'name a --comp_type' in capsys.readouterr().err
