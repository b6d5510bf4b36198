"""Pixels of other decoders, and pixels changed a little: a lattice, but no exact block."""
import cv2
import numpy as np
import pytest

from classifier import seen_lattice
from classifier.forensics import search
from classifier.forensics.blocks import BLOCK, DCT2
from classifier.forensics.lattice import Lattice, find_quality
from classifier.forensics.other_dcts import fast_dct, fast_steps
from classifier.forensics.search import find_lattice
from classifier.forensics.tables import standard_tables
from classifier.images import compress
from classifier.posterior import Posterior
from classifier.prediction import Prediction
from classifier.predictor import Predictor
from classifier.recovery.decoders import DECODERS, Decoder
from classifier.report import report_on
from classifier.seen_lattice import NEIGHBOURS, narrowed, seen_quality
from conftest import PRISTINE

TABLES = standard_tables()


@pytest.fixture(scope='module')
def automatic():
    return Predictor()


def fast(levels, table):
    """libjpeg's fast inverse DCT."""
    return fast_dct(levels, fast_steps(table))


def cut_off(levels, table):
    """A DCT in real numbers, cut off at an eighth of a level and rounded, as libjpeg 6's is."""
    eighths = np.trunc(8 * ((levels * table) @ DCT2)).astype(int)
    return (eighths + 4 >> 3) + 128


def decoded(image, table, inverse_dct, y=0, x=0):
    """The luma of an image, coded with a table and decoded by that inverse DCT; cropped at (y, x).
    """
    gray = 16 + cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) * 0.85
    rows, columns = (side // BLOCK for side in gray.shape)
    blocks = gray[:rows * BLOCK, :columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    levels = np.rint((blocks.swapaxes(1, 2).reshape(-1, 64) - 128) @ DCT2.T / table).astype(int)
    blocks = inverse_dct(levels, table).clip(0, 255).astype(np.uint8)
    gray = blocks.reshape(rows, columns, BLOCK, BLOCK).swapaxes(1, 2).reshape(rows * BLOCK, -1)
    return np.repeat(gray[y:, x:, None], 3, axis=2)


def pixels(decoder, image, quality):
    """A JPEG as one of jpeglib's decoders decodes it."""
    pytest.importorskip('jpeglib', reason='has no wheel for this system')
    return decoder.pixels(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
                          .tobytes())


CHANGES = {
    'a channel raised': lambda image: np.clip(image.astype(int) + [2, 0, 0], 0, 255),
    'gamma': lambda image: 255 * (image / 255) ** 1.03,
    'white balance': lambda image: image * [0.97, 1, 1.03],
}


def changed(image, how):
    return np.clip(np.rint(CHANGES[how](image)), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------- other inverse DCTs

@pytest.mark.parametrize('quality', [30, 60, 85])
@pytest.mark.parametrize('inverse_dct, name', [(fast, 'fast'), (cut_off, 'other')])
def test_the_quality_is_exact_whichever_inverse_dct_decoded_it(photo, inverse_dct, name, quality):
    image = decoded(photo, TABLES[quality - 1], inverse_dct, 3, 6)
    assert find_quality(image).quality is None
    found = find_lattice(image)
    assert (found.quality, found.qualities, found.decoder) == (quality, (quality,), name)
    assert (found.grid_dy, found.grid_dx, found.subsampling) == (5, 2, 'gray')
    assert found.exact_blocks >= 0.9 * found.tested_blocks > 500


@pytest.mark.parametrize('inverse_dct', [fast, cut_off])
def test_another_encoder_s_table_is_not_taken_for_a_standard_one(photo, inverse_dct):
    table = np.rint(0.4 * 16 * (1 + np.add.outer(np.arange(8), np.arange(8)) / 3)).ravel()
    found = find_lattice(decoded(photo, table.astype(int), inverse_dct))
    assert found.quality is None and seen_quality(found) is None


def test_the_sentence_and_the_row_tell_the_inverse_dct(photo, tmp_path, automatic):
    said = {}
    for inverse_dct in fast, cut_off:
        path = tmp_path / f'{inverse_dct.__name__}.png'
        cv2.imwrite(str(path), decoded(photo, TABLES[59], inverse_dct))
        report = report_on(path, automatic)
        said[inverse_dct] = report.conclusion
        assert (report.row['method'], report.row['quality']) == ('lattice', 60)
        assert report.row['decoder'] == ('fast' if inverse_dct is fast else 'other')
        assert report.row['earlier_quality'] is None
    assert 'decoded by the fast inverse DCT' in said[fast] and said[fast].endswith('are bit-exact')
    assert "decoded by another inverse DCT than libjpeg's" in said[cut_off]
    assert said[cut_off].endswith('blocks are exact within rounding')


def test_steps_misread_in_another_decoder_s_pixels_are_no_table_of_another_encoder(
        photo, tmp_path, automatic, monkeypatch):
    monkeypatch.setattr(search, 'find_decoded_otherwise', lambda image, found: None)
    monkeypatch.setattr(search, 'find_noisy', lambda image: None)
    for quality in range(30, 90, 10):
        path = tmp_path / f'{quality}.png'
        cv2.imwrite(str(path), decoded(photo, TABLES[quality - 1], fast))
        report = report_on(path, automatic)
        assert "not libjpeg's" not in report.conclusion and report.row['table_quality'] is None
        assert report.row['quality'] == quality and report.row['method'] == 'network'


def test_a_jpeg_of_another_decoder_of_jpeglib_is_told_in_colour(photo):
    for decoder in DECODERS:
        if decoder.dct != 'accurate':
            found = find_lattice(pixels(decoder, photo, 75)[5:, 2:])
            assert (found.quality, found.grid_dy, found.grid_dx) == (75, 3, 6)


@pytest.mark.long
def test_qualities_of_four_photos_by_other_decoders():
    """Prints the table of docs/exact_quality.md."""
    pytest.importorskip('jpeglib', reason='has no wheel for this system')
    for decoder in [*DECODERS[4:], Decoder("libjpeg 6's inverse DCT in floating point", 'float',
                                           version='6b')]:
        exact = wrong = count = 0
        for path in PRISTINE:
            for quality in range(5, 96, 5):
                found = find_lattice(pixels(decoder, cv2.imread(str(path)), quality)[3:, 5:])
                count, exact = count + 1, exact + (found.qualities == (quality,))
                wrong += bool(found.qualities) and quality not in found.qualities
        print(f'| {decoder.name} | {count} | {exact} | {count - exact - wrong} | {wrong} |')
        assert wrong == 0 and exact > 0.7 * count


# ---------------------------------------------------------------- seen, but not proved

@pytest.mark.parametrize('how', CHANGES)
def test_after_a_slight_change_the_interval_is_that_of_the_table_that_is_seen(photo, how,
                                                                              automatic):
    told = 0
    for quality in 40, 60, 80:
        found = automatic.predict(changed(compress(photo, quality), how))
        assert found.quality_low <= quality <= found.quality_high
        if found.quality_high - found.quality_low <= 2 * NEIGHBOURS:
            told += 1
            assert abs(found.quality - quality) <= 1 and found.compressed == 1
            assert found.method == 'lattice' or found.uncertainty == 1
    assert told >= 1


@pytest.mark.parametrize('path', PRISTINE, ids=lambda path: path.stem)
def test_in_pictures_that_never_were_jpegs_no_table_is_seen(path):
    image = cv2.imread(str(path))
    for how in CHANGES:
        assert seen_quality(find_lattice(changed(image, how))) is None


def test_contrast_that_was_reduced_shows_no_finer_table(photo):
    for quality in 30, 60, 85:
        less = np.rint((compress(photo, quality) - 128.0) * 0.85 + 128).astype(np.uint8)
        assert seen_quality(find_lattice(less)) is None


def test_a_network_that_sees_another_quality_is_not_overruled():
    lattice = Lattice(None, (), 0, 0, 0.0, 900.0, 0.2, 1000, likeliest=60, any_table=1000.0)
    assert seen_quality(lattice) == 60
    for low, high, quality in (50, 72, 60), (70, 80, 75):
        found = narrowed(Prediction(float(quality), 9, 9, Posterior(quality, 5.0, low, high, 0.9),
                                    lattice))
        expected = (58, 62) if low < 60 else (low, high)
        assert (found.quality_low, found.quality_high) == expected


@pytest.mark.parametrize('more', [
    {'evidence': 150.0}, {'any_table': 2000.0}, {'blocks': 80}, {'likeliest': 96},
    {'repeated': 2}])
def test_little_evidence_shows_no_table(more):
    clear = {'evidence': 900.0, 'any_table': 1000.0, 'blocks': 1000, 'likeliest': 60}
    values = clear | more
    lattice = Lattice(None, (), 0, 0, 0.0, values.pop('evidence'), 0.2, values.pop('blocks'),
                      **values)
    assert seen_quality(lattice) is None
    assert seen_lattice.narrowed(Prediction(None, 0, 0, lattice=lattice)).quality is None
