"""The JPEG file behind decoded pixels: identical, or refused."""
import csv
import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from classifier import predict_cls
from classifier.errors import InputError
from classifier.forensics.blocks import DCT2
from classifier.forensics.other_dcts import fast_steps
from classifier.forensics.search import find_lattice
from classifier.forensics.tables import standard_tables
from classifier.images import MAX_JPEG_SIDE, from_pillow, to_pillow
from classifier.recovery.block_search import find_levels
from classifier.recovery.colour_changes import active_levels, change_levels
from classifier.recovery.colours import to_bgr
from classifier.recovery.cut_blocks import repeated_edge
from classifier.recovery.decoders import decoded
from classifier.recovery.jpeg_file import jpeg_bytes
from classifier.recovery.lattice_points import nearest_plane, nearest_points, reduced
from classifier.recovery.parts import explained, ordered, telling_parts
from classifier.recovery.picture import Kind
from classifier.recovery.recover import recover, recover_file

pytest.importorskip('jpeglib', reason='has no wheel for this system')
SAMPLING = {'4:4:4': 0, '4:2:2': 1, '4:2:0': 2}


def jpeg(image, quality, kind):
    """Pillow's JPEG file of BGR pixels."""
    data = io.BytesIO()
    options = {} if kind == 'gray' else {'subsampling': SAMPLING[kind]}
    to_pillow(image).convert('L' if kind == 'gray' else 'RGB').save(
        data, 'JPEG', quality=quality, **options)
    return data.getvalue()


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return from_pillow(image)


@pytest.fixture
def hidden(photo, tmp_path):
    """A PNG of what was a JPEG of quality 75, 4:2:0."""
    path = tmp_path / 'hidden.png'
    cv2.imwrite(str(path), pixels(jpeg(photo[:128, :160], 75, '4:2:0')))
    return path


@pytest.mark.parametrize('kind', ['gray', '4:4:4', '4:2:2', '4:2:0'])
@pytest.mark.parametrize('size', [(128, 160), (121, 147)])
def test_the_file_is_found_that_decodes_to_the_same_pixels(photo, kind, size):
    image = pixels(jpeg(photo[:size[0], :size[1]], 70, kind))
    found = recover(image)
    assert found.outcome == 'identical'
    assert found.picture.kind.subsampling == kind
    assert (pixels(found.data) == image).all()
    assert len(found.data) < 1.02 * len(jpeg(photo[:size[0], :size[1]], 70, kind))


@pytest.mark.parametrize('kind', ['gray', '4:4:4'])
def test_clipped_pixels_do_not_stand_in_the_way(photo, kind):
    bright = cv2.convertScaleAbs(photo[:128, :160], alpha=2.2, beta=-90)
    image = pixels(jpeg(bright, 60, kind))
    assert ((image == 0) | (image == 255)).any(axis=2).mean() > 0.1
    assert recover(image).difference.is_none


def test_chroma_is_found_where_areas_are_clipped(photo):
    """Blocks of which a third of the pixels has a clipped channel, most of them whole."""
    bright = cv2.convertScaleAbs(photo[40:168, 100:260], alpha=1.8, beta=-60)
    image = pixels(jpeg(bright, 85, '4:2:2'))
    assert ((image == 0) | (image == 255)).any(axis=2).mean() > 0.3
    found = recover(image)
    assert found.difference.is_none
    assert (pixels(found.data) == image).all()


def test_a_crop_lies_within_the_picture_of_its_file(photo):
    image = np.ascontiguousarray(pixels(jpeg(photo[:128, :160], 60, 'gray'))[3:, 5:])
    found = recover(image)
    assert found.outcome == 'identical at (3, 5)'
    assert (pixels(found.data)[3:128, 5:160] == image).all()


@pytest.mark.parametrize('kind', ['4:2:0', '4:2:2'])
def test_of_a_crop_the_grid_of_halved_chroma_is_found_with_the_subsampling(photo, kind):
    image = np.ascontiguousarray(pixels(jpeg(photo[:176, :208], 75, kind))[3:, 5:])
    found = recover(image, found=replace(find_lattice(image), subsampling=None))
    assert found.picture.kind.subsampling == kind and found.difference.is_none


def test_a_picture_larger_than_a_jpeg_can_be_is_one_clear_error(photo):
    found = recover(np.ascontiguousarray(pixels(jpeg(photo[:64, :64], 60, 'gray'))[3:, 5:]))
    with pytest.raises(InputError, match='larger than a JPEG file can be'):
        jpeg_bytes(replace(found.picture, width=MAX_JPEG_SIDE + 1))


def test_one_changed_pixel_is_refused(hidden, tmp_path):
    image = cv2.imread(str(hidden))
    image[61, 77, 1] ^= 1
    cv2.imwrite(str(hidden), image)
    outcome = recover_file(hidden, tmp_path / 'out.jpg')
    assert outcome.failed and not (tmp_path / 'out.jpg').exists()
    assert 'differ' in outcome.text and 'identical' not in outcome.row['recovered']
    outcome = recover_file(hidden, tmp_path / 'out.jpg', allow_difference=True)
    assert not outcome.failed and 'differ' in outcome.text and 'identical' not in outcome.text
    off = (pixels((tmp_path / 'out.jpg').read_bytes()) != image).any(axis=2)
    assert outcome.row['recovered'].startswith(f'{off.sum()} pixel') and off.sum() > 0


def test_the_command_writes_the_file_and_says_so(hidden, tmp_path, capsys):
    out = tmp_path / 'hidden.jpg'
    assert predict_cls.main([str(hidden), '--recover', str(out)]) == 0
    assert (f'recovered hidden.jpg, every pixel identical, {out.stat().st_size:,} bytes in place of'
            in capsys.readouterr().out)
    assert (pixels(out.read_bytes()) == cv2.imread(str(hidden))).all()
    out.write_bytes(b'another file')
    assert predict_cls.main([str(hidden), '--recover', str(out)]) == 2
    assert out.read_bytes() == b'another file'
    assert 'is there and is another file' in capsys.readouterr().err


def test_a_folder_is_recovered_to_a_folder(hidden, photo, tmp_path, capsys):
    folder, out = tmp_path / 'in', tmp_path / 'out'
    (folder / 'below').mkdir(parents=True)
    hidden.rename(folder / 'below' / 'a.png')
    cv2.imwrite(str(folder / 'pristine.png'), photo[:128, :160])
    table = tmp_path / 'rows.csv'
    command = [str(folder), '--recursive', '--recover', str(out), '--csv', str(table)]
    assert predict_cls.main(command) == 2
    assert [path.relative_to(out).as_posix() for path in out.rglob('*.jpg')] == ['below/a.jpg']
    rows = list(csv.DictReader(table.open()))
    assert [(row['recovered'], row['recovered_bytes']) for row in rows] == [
        ('identical', str((out / 'below' / 'a.jpg').stat().st_size)), ('', '')]
    assert 'no quantization lattice' in capsys.readouterr().err
    assert predict_cls.main([*command, '--ignore_errors']) == 0  # the same file is there: no harm


def test_what_a_jpeg_cannot_be_the_source_of_is_refused(hidden, photo, tmp_path, capsys):
    image = cv2.imread(str(hidden))
    (tmp_path / 'a.jpg').write_bytes(jpeg(photo[:128, :160], 75, '4:2:0'))
    alpha = np.full((*image.shape[:2], 1), 254, np.uint8)
    cv2.imwrite(str(tmp_path / 'alpha.png'), np.concatenate([image, alpha], axis=2))
    cv2.imwrite(str(tmp_path / 'deep.png'), image.astype(np.uint16) * 257)
    for name, reason in (('a.jpg', 'is a JPEG file itself'), ('alpha.png', 'has transparency'),
                         ('deep.png', 'of 8 bits')):
        out = tmp_path / 'out.jpg'
        assert predict_cls.main([str(tmp_path / name), '--recover', str(out)]) == 2
        assert reason in capsys.readouterr().err and not out.exists()


def test_metadata_and_profile_are_kept(hidden, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = 'a camera', 6
    profile = bytes(range(256)) * 300  # more than one segment
    with Image.open(hidden) as image:
        image.save(hidden, exif=exif, icc_profile=profile)
    assert not recover_file(hidden, tmp_path / 'out.jpg').failed
    with Image.open(tmp_path / 'out.jpg') as image:
        assert image.getexif()[0x010F] == 'a camera' and image.getexif()[0x0112] == 6
        assert image.info['icc_profile'] == profile


def test_bounds_that_cross_are_not_searched():
    low, high = np.full((1, 64), 100, np.uint8), np.full((1, 64), 100, np.uint8)
    low[0, 5] = 101
    _, exact = find_levels(low, high, low - np.float32(128), standard_tables()[49])
    assert not exact.any()


def test_a_reduced_basis_spans_the_same_lattice_with_planes_as_far_apart():
    basis = np.random.default_rng(0).normal(size=(12, 12)) + 5
    rows, made_of = reduced(basis)
    assert np.allclose(rows, made_of @ basis)
    assert round(abs(np.linalg.det(made_of))) == 1
    apart, before = (np.abs(np.diag(np.linalg.qr(part.T)[1])) for part in (rows, basis))
    assert apart.max() / apart.min() < 0.2 * before.max() / before.min()


def test_the_nearest_of_all_points_is_among_several():
    """Nearest planes alone miss it in a skew basis."""
    rng = np.random.default_rng(1)
    basis = np.eye(3) + 0.45 * rng.normal(size=(3, 3))
    targets = 2 * rng.normal(size=(100, 3))
    same = basis, np.eye(3, dtype=np.int64)
    around = np.stack(np.meshgrid(*3 * [np.arange(-20, 21)], indexing='ij'), -1).reshape(-1, 3)
    points = around @ basis
    true = np.array([np.square(points - target).sum(axis=1).min() for target in targets])

    def distances(levels):
        return np.square(levels @ basis - targets).sum(axis=-1)
    one, several = nearest_plane(*same, targets), nearest_points(*same, targets, 16)
    assert (nearest_points(*same, targets, 1)[0] == one).all()
    assert np.allclose(distances(several).min(axis=0), true)
    assert not np.allclose(distances(one), true)


def test_levels_of_a_block_that_repeats_its_edge_contradict_it_least():
    table = standard_tables()[84]
    block = np.random.default_rng(0).uniform(-60, 60, (8, 8))
    cut = block[:, np.arange(8).clip(0, 2)]       # 3 columns are in the picture
    rows = repeated_edge(8, 3, table)
    assert np.abs(rows @ cut.ravel()).max() < 1e-9
    levels = np.rint(cut.ravel() @ DCT2.T / table)
    rounded = rows @ ((levels * table) @ DCT2)
    assert np.square(rounded).mean() < 1 < np.square(rows @ block.ravel()).mean() / 10


def test_each_image_gets_a_file_of_its_own(hidden, tmp_path, capsys):
    """`a.png` beside `a.tif` becomes `a.png.jpg`, as `a.png.png` would."""
    folder = tmp_path / 'scans'
    folder.mkdir()
    for name in ('a.png', 'a.tif', 'a.png.png'):
        Image.open(hidden).save(folder / name)
    assert predict_cls.main([str(folder), '--recover', str(tmp_path / 'out')]) == 0
    found = {path.name for path in (tmp_path / 'out').iterdir()}
    assert found == {'a.png.jpg', 'a.tif.jpg', 'a.png.png.jpg'}


def test_a_turned_tiff_is_not_turned_again(hidden, tmp_path):
    path = tmp_path / 'turned.tif'
    with Image.open(hidden) as image:
        exif = image.getexif()
        exif[274] = 3  # orientation: upside down
        image.rotate(180).save(path, exif=exif)
    assert not recover_file(path, tmp_path / 'turned.jpg').failed
    with Image.open(tmp_path / 'turned.jpg') as found, Image.open(path) as source:
        assert found.getexif().get(274, 1) == 1
        assert (from_pillow(found) == from_pillow(source)).all()


def test_bmp_files_of_any_width_are_recovered(photo, tmp_path):
    path = tmp_path / 'wide.bmp'
    cv2.imwrite(str(path), pixels(jpeg(cv2.resize(photo, (720, 48)), 60, '4:4:4')))
    assert not recover_file(path, tmp_path / 'wide.jpg').failed


def test_what_was_said_of_the_pixels_is_the_reason_of_a_refusal(photo, tmp_path, capsys):
    coded = pixels(jpeg(photo, 75, '4:4:4'))
    more = np.clip(np.rint(1.2 * (coded.astype(float) - 128) + 128), 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), more)
    assert predict_cls.main([str(tmp_path / 'a.png'), '--recover', str(tmp_path / 'a.jpg')]) == 2
    printed = capsys.readouterr()
    assert 'then its contrast was raised' in printed.out
    assert 'its tones were changed' in printed.err


def test_a_list_of_images_is_refused_in_one_line(hidden, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(f'{hidden}\n'.encode())))
    assert predict_cls.main(['-', '--recover', str(tmp_path / 'out')]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith('one image or one folder')


def test_steps_below_1_of_the_fast_inverse_dct_have_an_edge_as_well():
    steps = fast_steps(standard_tables()[98])
    assert steps.min() < 1 and np.isfinite(repeated_edge(3, 8, steps)).all()


@pytest.mark.parametrize('kind', ('4:2:2', '4:2:0'))
@pytest.mark.parametrize('level', (0, 255))
def test_areas_of_pure_black_and_white_come_back(photo, kind, level):
    image = photo[:160, :160].copy()
    image[40:120, 40:120] = level
    assert recover(pixels(jpeg(image, 75, kind))).difference.is_none


@pytest.mark.parametrize('size', ((16, 16), (9, 17), (40, 31)))
def test_images_without_a_whole_block_of_chroma_come_back_or_are_refused(photo, size):
    coded = pixels(jpeg(photo[60:60 + size[0], 60:60 + size[1]], 50, '4:4:4'))
    try:
        assert recover(coded).difference.is_none
    except InputError as error:  # few blocks may leave the quality open
        assert 'qualities' in str(error) or 'lattice' in str(error)


def drawing(ground, line, size=(240, 160)):
    """BGR pixels of text and lines in one colour on another."""
    image = Image.new('RGB', size, ground)
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(0)
    for y in range(10, size[1] - 16, 24):
        draw.text((int(rng.integers(8, 90)), y), 'A line of text, 0123', fill=line)
    for _ in range(4):
        draw.line([tuple(rng.integers(0, 150, 2).tolist()) for _ in range(2)], fill=line, width=2)
    return from_pillow(image)


@pytest.mark.parametrize('quality', (50, 75, 90))
@pytest.mark.parametrize('kind', ('gray', '4:4:4', '4:2:0'))
def test_drawings_on_pure_white_come_back_though_no_lattice_tells(quality, kind):
    image = pixels(jpeg(drawing('white', 'black'), quality, kind))
    assert not find_lattice(image).qualities
    found = recover(image)
    assert found.difference.is_none
    assert (pixels(found.data) == image).all()


@pytest.mark.parametrize('kind', ('4:4:4', '4:2:0'))
def test_red_on_white_comes_back_though_no_luma_is_known(kind):
    image = pixels(jpeg(drawing('white', 'red', (160, 112)), 75, kind))
    found = recover(image)
    assert found.difference.is_none
    assert found.picture.kind.subsampling == kind


def test_what_is_found_by_trial_is_named(tmp_path, capsys):
    path = tmp_path / 'drawing.png'
    cv2.imwrite(str(path), pixels(jpeg(drawing('white', 'black'), 75, 'gray')))
    assert predict_cls.main([str(path), '--recover', str(tmp_path / 'drawing.jpg')]) == 0
    assert 'every pixel identical (quality 75, gray), ' in capsys.readouterr().out


@pytest.mark.parametrize('ground', ('white', 'black'))
def test_a_drawing_that_never_was_a_jpeg_is_refused(ground):
    with pytest.raises(InputError, match='no quantization lattice'):
        recover(drawing(ground, 'gray'))


def test_a_little_colour_away_from_the_middle_tells_the_subsampling(photo):
    gray = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    mixed = np.tile(gray[:256, :256], (2, 2, 1))
    mixed[:48, :48] = photo[100:148, 100:148]
    for kind in SAMPLING:
        image = pixels(jpeg(mixed, 75, kind))
        assert (telling_parts(image)[0].pixels[:48, :48] == image[:48, :48]).all()
        found = recover(image)
        assert found.difference.is_none
        assert found.picture.kind.subsampling == kind


def test_the_right_way_explains_the_telling_parts_and_comes_first(photo):
    image = pixels(jpeg(photo[:160, :240], 75, '4:2:0'))
    parts = telling_parts(image)
    ways = [(Kind(kind, *(standard_tables(chroma)[74] for chroma in (False, True))), (0, 0))
            for kind in ('4:4:4', '4:2:2', '4:2:0')]
    assert ordered(parts, ways)[0][0].subsampling == '4:2:0'
    right, wrong = explained(parts, *ways[2]), explained(parts, *ways[0])
    assert right.exact > 0.8 * right.tested > 10 * wrong.exact


def test_a_block_of_equal_rows_has_8_levels_a_plane_and_is_found_by_changing_them():
    table = standard_tables()[49]
    levels = np.zeros((3, 1, 64), np.int32)
    levels[0, 0, :4], levels[1, 0, :3], levels[2, 0, :3] = (8, -80, 30, 10), (-6, 8, 5), (7, 9, -4)
    block = to_bgr(*(decoded(part, table) for part in levels))[0]
    assert ((block == 0) | (block == 255)).any()
    assert active_levels(block, np.ones(64, bool)).tolist() == [True] * 8 + [False] * 56
    start = levels.copy()
    start[0, 0, 1] += 2
    start[1, 0, 2] -= 1
    found, exact = change_levels(block, start, (table, table, table))
    assert exact
    assert (to_bgr(*(decoded(part[None], table) for part in found))[0] == block).all()
