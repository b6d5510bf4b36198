"""Image files become the pixels that were coded, or one clear error."""
import os
import subprocess
import sys
import time
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from classifier import images
from classifier.errors import InputError
from classifier.forensics.header import read_header
from classifier.sources import usable_images


def stored(tmp_path, image, name='a.png', **options):
    image.save(tmp_path / name, **options)
    return images.read_image(tmp_path / name)


@pytest.fixture
def rgb(photo):
    return Image.fromarray(photo[:, :, ::-1])


@pytest.mark.parametrize('chroma, options', [
    ('4:2:0', {'subsampling': 2}), ('4:2:2', {'subsampling': 1}), ('4:4:4', {'subsampling': 0})])
def test_chroma_is_subsampled_as_pillow_does_it(tmp_path, photo, rgb, chroma, options):
    assert (stored(tmp_path, rgb, 'a.jpg', quality=60, **options)
            == images.compress(photo, 60, chroma)).all()


def test_a_gray_jpeg_has_the_luma_alone(photo):
    coded = images.compress(photo, 60, 'gray')
    assert coded.shape == photo.shape and (np.ptp(coded, axis=2) == 0).all()
    luma = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    fine = images.compress(photo, 100, 'gray')[..., 0]
    assert np.abs(fine.astype(int) - luma).max() <= 2


@pytest.mark.parametrize('name', ['a.png', 'a.bmp', 'a.tif', 'a.TIFF', 'a.webp'])
def test_lossless_files_give_the_stored_pixels_in_bgr(tmp_path, photo, rgb, name):
    options = {'lossless': True} if name.endswith('webp') else {}
    assert (stored(tmp_path, rgb, name, **options) == photo).all()


def test_gray_palette_and_one_bit_become_colour(tmp_path, rgb):
    gray = stored(tmp_path, rgb.convert('L'))
    assert gray.shape == (300, 400, 3) and (gray == gray[..., :1]).all()
    palette = rgb.convert('P', palette=Image.Palette.ADAPTIVE)
    expected = np.asarray(palette.convert('RGB'))[:, :, ::-1]
    assert (stored(tmp_path, palette) == expected).all()
    assert set(np.unique(stored(tmp_path, rgb.convert('1')))) == {0, 255}


def test_of_an_rgb_or_cmyk_jpeg_one_coded_plane_is_taken(tmp_path, rgb):
    rgb.save(tmp_path / 'rgb.jpg', quality=60, keep_rgb=True)
    rgb.convert('CMYK').save(tmp_path / 'cmyk.jpg', quality=60)
    for name, colours, plane in (('rgb.jpg', 'RGB', 1), ('cmyk.jpg', 'CMYK', 0)):
        path = tmp_path / name
        assert read_header(path).colours == colours
        found = images.read_image(path, colours=colours)
        coded = np.asarray(Image.open(path))
        coded = 255 - coded if colours == 'CMYK' else coded  # Pillow inverts it, as Adobe does
        assert (found == coded[:, :, plane, None]).all() and found.shape[2] == 3
        assert (images.read_image(path) == np.asarray(
            Image.open(path).convert('RGB'))[:, :, ::-1]).all()  # unless it is asked for
        other = {'RGB': 'CMYK', 'CMYK': 'RGB'}[colours]
        assert (images.read_image(path, colours=other) == images.read_image(path)).all()


def test_of_a_ycck_jpeg_luma_and_chroma_are_taken(tmp_path, rgb):
    """Pillow writes CMYK; the Adobe marker is changed to say that its planes are YCCK."""
    path = tmp_path / 'a.jpg'
    rgb.convert('CMYK').save(path, quality=95)
    coded = 255 - np.asarray(Image.open(path))[:, :, :3]  # stored inverted, as Adobe does
    at = path.read_bytes().index(b'Adobe\0') + 11
    path.write_bytes(path.read_bytes()[:at] + b'\2' + path.read_bytes()[at + 1:])
    assert read_header(path).colours == 'YCCK'
    found = images.read_image(path, colours='YCCK').astype(int)
    planes = [Image.fromarray(np.ascontiguousarray(coded[:, :, i])) for i in range(3)]
    expected = np.asarray(Image.merge('YCbCr', planes).convert('RGB'))[:, :, ::-1]
    assert np.abs(found - expected).max() <= 2


def test_alpha_is_dropped_not_blended(tmp_path, photo, rgb):
    rgb.putalpha(Image.fromarray(np.full(photo.shape[:2], 7, np.uint8)))
    assert (stored(tmp_path, rgb) == photo).all()


def test_sixteen_bits_become_the_upper_eight(tmp_path, photo):
    deep = photo.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / 'a.png'), deep)
    assert (images.read_image(tmp_path / 'a.png') == photo).all()
    cv2.imwrite(str(tmp_path / 'b.png'), deep[..., 0])
    assert (images.read_image(tmp_path / 'b.png') == photo[..., :1]).all()


def test_cmyk_becomes_colour(tmp_path, photo, rgb):
    found = stored(tmp_path, rgb.convert('CMYK'), 'a.tif')
    assert np.abs(found.astype(int) - photo).max() <= 1


def test_an_exif_rotation_is_not_applied(tmp_path, photo, rgb):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert (stored(tmp_path, rgb, exif=exif) == photo).all()


@pytest.mark.parametrize('quality', [5, 50, 95])
def test_a_jpeg_is_decoded_as_in_training(tmp_path, photo, quality):
    cv2.imwrite(str(tmp_path / 'a.jpg'), photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert (images.read_image(tmp_path / 'a.jpg') == images.compress(photo, quality)).all()


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp', 'a.tif', 'a.bmp'])
def test_a_truncated_file_is_an_error_not_a_gray_image(tmp_path, rgb, name):
    rgb.save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:len(data) * 2 // 3])
    with pytest.raises(InputError, match=name):
        images.read_image(tmp_path / name)


@pytest.mark.parametrize('content', [b'', b'some text'])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / 'a.jpg').write_bytes(content)
    with pytest.raises(InputError, match='a.jpg: not an image'):
        images.read_image(tmp_path / 'a.jpg')


def test_float_pixels_are_refused(tmp_path, rgb):
    with pytest.raises(InputError, match='a.tif: 32-bit pixels have no known range'):
        stored(tmp_path, rgb.convert('F'), 'a.tif')


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.webp', 'a.tif', 'a.bmp'])
def test_an_image_past_the_pixel_limit_is_refused_unread(tmp_path, rgb, name, monkeypatch):
    rgb.save(tmp_path / name)
    assert images.read_image(tmp_path / name, max_pixels=120_000).shape == (300, 400, 3)
    monkeypatch.setattr(Image.Image, 'load', None)
    with pytest.raises(InputError, match=f'{name}: 400x300 is over the limit of 119,999 pixels'):
        images.read_image(tmp_path / name, max_pixels=119_999)


@pytest.fixture
def small_jpeg(tmp_path, rgb):
    path = tmp_path / 'a.jpg'
    rgb.crop((0, 0, 160, 120)).save(path, progressive=True)
    return path


def test_a_marker_with_many_fill_bytes_takes_no_time():
    data = b'\xff\xd8' + b'\xff' * 2_000_000 + b'\x00'
    began = time.process_time()
    images._jpeg_end(data)
    assert time.process_time() - began < 1  # it took hours


def test_a_jpeg_of_very_many_scans_is_refused_at_once(small_jpeg):
    data = small_jpeg.read_bytes()
    last = data.rindex(b'\xff\xda')
    assert images._jpeg_end(data)[1] <= 10
    small_jpeg.write_bytes(data[:last] + 400 * data[last:-2] + data[-2:])
    began = time.process_time()
    with pytest.raises(InputError, match='a.jpg: a JPEG of more than 100 scans'):
        images.read_image(small_jpeg)
    assert time.process_time() - began < 1


@pytest.mark.parametrize('end', [0, -2], ids=['whole', 'without its end marker'])
def test_what_follows_a_small_jpeg_is_not_read_into_memory(small_jpeg, end):
    data = small_jpeg.read_bytes()
    small_jpeg.write_bytes(data[:end or None])
    whole = None if end else images.read_image(small_jpeg)
    os.truncate(small_jpeg, 800_000_000)  # the rest is a hole: 800 MB of zeros
    tracemalloc.start()
    try:
        if end:
            with pytest.raises(InputError, match='a.jpg: '):
                images.read_image(small_jpeg)
        else:
            assert (images.read_image(small_jpeg) == whole).all()
        assert tracemalloc.get_traced_memory()[1] < (250e6 if end else 10e6)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('subsampling', ['4:4:4', '4:2:2', '4:2:0'])
@pytest.mark.parametrize('progressive', [False, True])
def test_a_jpeg_without_its_rest_is_an_error_whatever_follows(
        tmp_path, rgb, progressive, subsampling):
    """libjpeg fills up with gray, silently, where an end marker follows."""
    path = tmp_path / 'a.jpg'
    rgb.crop((0, 0, 160, 120)).save(path, subsampling=subsampling, progressive=progressive,
                                    restart_marker_blocks=7)
    data, whole = path.read_bytes(), np.asarray(Image.open(path))[:, :, ::-1]
    assert (images.read_image(path) == whole).all()
    path.write_bytes(data + b'something else' + data)
    assert (images.read_image(path) == whole).all()
    for share in (0.2, 0.5, 0.9, 0.99):
        cut = data[:int(share * len(data))]
        for rest in (b'', b'\xff\xd9', bytes(len(data) - len(cut)), b'\xff\xd9' + data):
            path.write_bytes(cut + rest)
            with pytest.raises(InputError, match='a.jpg: (image file is truncated|broken data)'):
                images.read_image(path)


def test_every_flipped_bit_of_a_png_is_noticed(tmp_path, photo):
    data = bytearray(cv2.imencode('.png', photo[:40, :40])[1].tobytes())
    for at in range(8, len(data), 97):
        flipped = data.copy()
        flipped[at] ^= 16
        (tmp_path / 'a.png').write_bytes(flipped)
        with pytest.raises(InputError, match='a.png: '):
            images.read_image(tmp_path / 'a.png')


@pytest.mark.parametrize('transform, expected', [(0, [135, 60, 85]), (2, None)])
def test_cmyk_and_ycck_jpegs_become_colour(tmp_path, transform, expected):
    """The Adobe marker's last byte tells whether the four planes are CMYK or YCCK."""
    inks = Image.new('CMYK', (64, 48), (170, 195, 120, 0))
    inks.save(tmp_path / 'a.jpg', quality=95)
    data = bytearray((tmp_path / 'a.jpg').read_bytes())
    at = data.index(b'Adobe') + 11
    assert data[at] == 0
    data[at] = transform
    (tmp_path / 'a.jpg').write_bytes(data)
    if transform == 2:  # inks are stored inverted, and so comes out what Y, Cb and Cr stand for
        y, cb, cr = 255 - 170, 255 - 195, 255 - 120
        rgb = (y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128),
               y + 1.772 * (cb - 128))
        expected = 255 - np.clip(rgb, 0, 255)[::-1]
    assert np.abs(images.read_image(tmp_path / 'a.jpg') - np.array(expected)).max() <= 3


@pytest.mark.parametrize('name, options', [('a.png', {}), ('a.webp', {'lossless': True}),
                                           ('a.tif', {})])
def test_of_several_frames_the_first_is_taken_with_a_notice(tmp_path, photo, rgb, name, options):
    rgb.save(tmp_path / name, save_all=True, append_images=[Image.new('RGB', rgb.size)], **options)
    notices = []
    assert (images.read_image(tmp_path / name, notice=notices.append) == photo).all()
    assert notices == [f'{tmp_path / name}: holds several images, the first is taken']
    rgb.save(tmp_path / name, **options)
    images.read_image(tmp_path / name, notice=notices.append)
    assert len(notices) == 1


@pytest.mark.parametrize('kind', ['EPS', 'PPM', 'TGA', 'ICO', 'JPEG2000'])
def test_other_formats_are_refused_whatever_their_name(tmp_path, rgb, kind):
    """EPS, for one, would be handed to Ghostscript."""
    rgb.save(tmp_path / 'a.png', kind)
    with pytest.raises(InputError, match='a.png: not an image that can be read'):
        images.read_image(tmp_path / 'a.png')
    assert read_header(tmp_path / 'a.png') is None


@pytest.mark.parametrize('kind', ['GIF', 'AVIF'])
def test_gif_and_avif_are_read_whatever_their_name(tmp_path, rgb, kind):
    rgb.save(tmp_path / 'a.png', kind)
    with Image.open(tmp_path / 'a.png') as expected:
        assert (images.read_image(tmp_path / 'a.png')
                == np.asarray(expected.convert('RGB'))[:, :, ::-1]).all()
    data = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').write_bytes(data[:len(data) * 2 // 3])
    with pytest.raises(InputError, match='a.png: '):
        images.read_image(tmp_path / 'a.png')
    with pytest.raises(InputError, match='none of the images can be used'):
        (tmp_path / 'a.png').write_bytes(data)  # whole, but no image to train on
        usable_images([tmp_path / 'a.png'], 16)


@pytest.mark.parametrize('height, width', [(1, 1), (15, 400), (16, 16)])
def test_any_size_can_be_read(tmp_path, photo, height, width):
    cv2.imwrite(str(tmp_path / 'a.png'), photo[:height, :width])
    assert (images.read_image(tmp_path / 'a.png') == photo[:height, :width]).all()


@pytest.mark.parametrize('make, reason', [
    (lambda p: p.mkdir(), 'a folder, not an image'),
    (lambda p: p.symlink_to('gone.png'), 'a link to gone.png, which is not there'),
    (lambda p: p.symlink_to('a.png'), 'Too many levels of symbolic links'),
    (lambda p: os.mkfifo(p), 'not a regular file'),
    (lambda p: None, 'No such file')])
def test_what_is_no_file_is_named_with_the_reason(tmp_path, make, reason):
    make(tmp_path / 'a.png')
    with pytest.raises(InputError, match=f'a.png: {reason}'):
        images.read_image(tmp_path / 'a.png')


not_root = pytest.mark.skipif(not hasattr(os, 'getuid') or os.getuid() == 0,
                              reason='root may read everything')


@not_root
def test_unreadable_files_and_subfolders_are_named(tmp_path, rgb):
    rgb.save(tmp_path / 'a.png')
    (tmp_path / 'a.png').chmod(0)
    (tmp_path / 'closed').mkdir(mode=0)
    paths = images.list_images(tmp_path, recursive=True)
    assert [p.name for p in paths] == ['a.png', 'closed']
    for path in paths:
        with pytest.raises(InputError, match=f'{path.name}: Permission denied'):
            images.read_image(path)
    (tmp_path / 'closed').chmod(0o700)


def test_listing_takes_known_extensions_in_any_case_sorted(tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'folder.png').mkdir()
    for name in ('b.PNG', 'a.jpeg', 'c.txt', 'sub/d.Webp'):
        (tmp_path / name).touch()
    def names(**options):
        return [p.name for p in images.list_images(tmp_path, **options)]

    assert names() == ['a.jpeg', 'b.PNG', 'folder.png']
    assert names(recursive=True) == ['a.jpeg', 'b.PNG', 'd.Webp']
    with pytest.raises(InputError, match='no images there'):
        images.list_images(tmp_path / 'folder.png')
    with pytest.raises(InputError, match='no such folder'):
        images.list_images(tmp_path / 'missing')


def test_of_other_names_images_are_found_by_how_they_begin(tmp_path, rgb):
    kinds = {'photo.jpg_large': 'JPEG', 'twitter.jfif': 'JPEG', 'a.jpe': 'JPEG', 'bare': 'PNG',
             'moving.gif': 'GIF', 'b.avif': 'AVIF', 'c.orig': 'BMP', 'd.1': 'WEBP'}
    for name, kind in kinds.items():
        rgb.save(tmp_path / name, kind)
    rgb.save(tmp_path / 'raw.dng', 'TIFF')  # as cameras' raw files begin
    (tmp_path / 'a.heic').write_bytes(b'\0\0\0\x18ftypheic\0\0\0\0')
    for name in ('README.txt', 'rows.csv', '.hidden', 'BMW'):
        (tmp_path / name).write_text('BMW and GIF, in words')
    (tmp_path / 'gone').symlink_to('nowhere')
    os.mkfifo(tmp_path / 'pipe')  # which to open would wait for ever
    said = []
    assert [p.name for p in images.list_images(tmp_path, notice=said.append)] == sorted(kinds)
    assert said == [f'{tmp_path}: 8 files skipped, not images that can be read '
                    '(4 without extension, 1 .csv, 1 .dng, 1 .heic, ...)']
    for path in images.list_images(tmp_path):
        assert images.read_image(path).shape == (300, 400, 3)


def test_texts_and_films_are_not_even_opened(tmp_path, monkeypatch):
    for name in ('a.txt', 'a.json', 'a.mp4', 'a.html'):
        (tmp_path / name).touch()
    (tmp_path / 'a.png').touch()
    monkeypatch.setattr('builtins.open', None)
    assert [p.name for p in images.list_images(tmp_path)] == ['a.png']


def test_a_subfolder_that_cannot_be_listed_is_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / 'a.png').touch()
    (tmp_path / 'sub').mkdir()
    listed = os.scandir

    def scandir(path):
        if str(path).endswith('sub'):
            raise PermissionError(13, 'Permission denied', str(path))
        return listed(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    paths = images.list_images(tmp_path, recursive=True)
    assert [p.name for p in paths] == ['a.png', 'sub']
    with pytest.raises(InputError, match='sub: Permission denied'):
        images.read_image(paths[1])


@pytest.mark.skipif(sys.platform == 'darwin', reason='paths have at most 1024 bytes there')
def test_folders_may_lie_deep_and_one_too_deep_is_named(tmp_path):
    """Deeper than Python calls may nest, and then deeper than a path may be long."""
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for depth in range(3000):
            if depth == 1200:
                os.close(os.open('a.png', os.O_CREAT | os.O_WRONLY, dir_fd=folder))
            os.mkdir('d', dir_fd=folder)
            outer, folder = folder, os.open('d', os.O_RDONLY, dir_fd=folder)
            os.close(outer)
        os.close(folder)
        image, too_deep = sorted(images.list_images(tmp_path, recursive=True),
                                 key=lambda path: len(path.parts))
        assert image.name == 'a.png' and len(image.relative_to(tmp_path).parts) == 1201
        with pytest.raises(InputError, match='File name too long'):
            images.read_image(too_deep)
    finally:
        subprocess.run(['rm', '-rf', tmp_path / 'd'], check=True)  # pytest's own way recurses


def test_a_header_whose_luma_table_has_a_step_of_0_tells_no_quality_of_it(tmp_path):
    data = bytearray(cv2.imencode('.jpg', np.full((32, 32, 3), 90, np.uint8))[1])
    data[data.index(b'\xff\xdb') + 5 + 10] = 0  # marker, length and number come first
    (tmp_path / 'a.jpg').write_bytes(data)
    header = read_header(tmp_path / 'a.jpg')
    assert (header.quality, header.luma_table, header.chroma_quality) == (None, None, 95)
    assert header.damage == 'the luma table has a step of 0'
