"""Image files become the pixels that were coded, or one clear error."""
import cv2
import numpy as np
import pytest
from PIL import Image

import images
from models import InputError


def stored(tmp_path, image, name='a.png', **options):
    image.save(tmp_path / name, **options)
    return images.read_image(tmp_path / name)


@pytest.fixture
def rgb(photo):
    return Image.fromarray(photo[:, :, ::-1])


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


def test_an_image_past_the_pixel_limit_is_refused_unread(tmp_path, rgb, monkeypatch):
    monkeypatch.setattr(images, 'MAX_PIXELS', 100_000)
    with pytest.raises(InputError, match='400x300 is over'):
        stored(tmp_path, rgb)


def test_listing_takes_known_extensions_in_any_case_sorted(tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'folder.png').mkdir()
    for name in ('b.PNG', 'a.jpeg', 'c.txt', 'sub/d.Webp'):
        (tmp_path / name).touch()
    def names(**options):
        return [p.name for p in images.list_images(tmp_path, **options)]

    assert names() == ['a.jpeg', 'b.PNG']
    assert names(recursive=True) == ['a.jpeg', 'b.PNG', 'd.Webp']
    with pytest.raises(InputError, match='no images there'):
        images.list_images(tmp_path / 'folder.png')
    with pytest.raises(InputError, match='no such folder'):
        images.list_images(tmp_path / 'missing')
