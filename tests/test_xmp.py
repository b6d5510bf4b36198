"""XMP sidecars: their tags and keywords, and what becomes of a sidecar that was there before."""
import shutil
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from classifier import predict_cls
from classifier.images import compress
from classifier.report import FIELDS, Report
from classifier.xmp import DC, NAMESPACE, RDF, XMP, is_ours, keywords, sidecar, write_sidecar
from conftest import REPOSITORY, SAMPLES

DARKTABLE = b"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/>
 </rdf:RDF>
</x:xmpmeta>
"""


def row_of(**values):
    """A row with these values and None for the others."""
    return dict.fromkeys(FIELDS) | {'refined': None, 'verdict': 'no header'} | values


EXACT = row_of(quality=75.0, quality_low=75, quality_high=75, method='lattice', compressed=1.0,
               refined=75)
ABOUT = row_of(quality=66.4, quality_low=49, quality_high=86, method='network', compressed=0.97)


def read(data):
    """Tags and keywords of a sidecar."""
    root = ElementTree.fromstring(data)
    assert root.tag == f'{{{XMP}}}xmpmeta'
    description, = root.iter(f'{{{RDF}}}Description')
    tags = {child.tag.removeprefix(f'{{{NAMESPACE}}}'): child.text for child in description
            if child.tag.startswith(f'{{{NAMESPACE}}}')}
    bag, = description.find(f'{{{DC}}}subject')
    assert bag.tag == f'{{{RDF}}}Bag'
    return tags, [item.text for item in bag.iter(f'{{{RDF}}}li')]


@pytest.mark.parametrize('row, expected', [
    (EXACT, ['JPEG quality 75']),
    (EXACT | {'quality_low': 74, 'quality_high': 76}, ['JPEG quality 74 to 76']),
    (EXACT | {'refined': None}, ['JPEG quality near 75']),
    (EXACT | {'earlier_quality': 60}, ['JPEG quality 75', 'recompressed']),
    (EXACT | {'region_x': 40}, ['JPEG quality 75 in a part']),
    (EXACT | {'decoder': 'other'}, ['JPEG quality 75']),
    (EXACT | {'decoder': 'unknown'}, ['JPEG quality about 75']),
    (ABOUT, ['JPEG quality about 66']),
    (ABOUT | {'compressed': None}, ['JPEG quality about 66']),
    (ABOUT | {'verdict': 'contradiction'}, ['JPEG quality about 66', 'JPEG header contradicted']),
    (ABOUT | {'compressed': 0.0}, ['no sign of JPEG']),
    (ABOUT | {'compressed': 1.0, 'verdict': 'consistent'}, ['JPEG quality about 66']),
    (ABOUT | {'method': 'none', 'quality': None}, ['JPEG quality unknown'])])
def test_keywords_say_no_more_than_the_row(row, expected):
    assert keywords(Report(row)) == read(sidecar(Report(row)))[1] == expected


def test_a_table_that_is_not_libjpeg_s_goes_before_the_network_s_answer():
    for row in (ABOUT, ABOUT | {'compressed': 0.1}, ABOUT | {'method': 'none', 'quality': None}):
        assert keywords(Report(row | {'table_quality': 82})) == ['JPEG quality near 82']


def test_the_sidecar_is_xmp_with_what_was_found():
    tags, _ = read(sidecar(Report(ABOUT, 'about <66> & "so"\0')))
    assert tags == {'quality': '66.4', 'quality_low': '49', 'quality_high': '86',
                    'method': 'network', 'compressed': '0.97', 'verdict': 'no header',
                    'conclusion': 'about <66> & "so"\\x00'}


def test_every_image_gets_its_sidecar(tmp_path, photo, capsys):
    shutil.copy(SAMPLES / 'earth_jpeg_q35.png', tmp_path / 'same.png')
    shutil.copy(REPOSITORY / 'docs' / 'twice.jpg', tmp_path / 'same.jpg')
    cv2.imwrite(str(tmp_path / 'flat.png'), np.full((64, 64, 3), 128, np.uint8))
    small = cv2.resize(compress(photo, 40), None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / 'small.png'), small)
    Image.fromarray(photo).save(tmp_path / 'other.jpg', qtables=[[9, *range(11, 74)]] * 2,
                                subsampling='4:4:4')
    Image.open(tmp_path / 'other.jpg').save(tmp_path / 'other.png')
    assert predict_cls.main([str(tmp_path), '--xmp']) == 0
    assert len(list(tmp_path.iterdir())) == 12
    lines = dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines()[:6])
    found = {name: read((tmp_path / f'{name}.xmp').read_bytes()) for name in lines}
    assert all(found[name][0]['conclusion'] == lines[name] for name in lines)
    assert found['same.png'][1] == ['JPEG quality 35']
    assert found['same.jpg'][1] == ['JPEG quality 90', 'recompressed']
    for name in ('other.png', 'other.jpg'):
        assert [text[:18] for text in found[name][1]] == ['JPEG quality near ']
    assert found['flat.png'][1] == ['JPEG quality unknown']
    tags, (keyword,) = found['small.png']
    assert keyword == f'JPEG quality about {float(tags["quality"]):.0f}'
    assert float(tags['quality_low']) <= 40 <= float(tags['quality_high'])


@pytest.mark.parametrize('spoil', [
    lambda own: DARKTABLE, lambda own: b'', lambda own: own + b'<', lambda own: b' ' * 70000 + own,
    lambda own: own.replace(b'"Q1Net"', b'"Image::ExifTool 13.0"'),
    lambda own: own.replace(b'</rdf:Description>', b'<xmp:Rating xmlns:xmp='
                            b'"http://ns.adobe.com/xap/1.0/">4</xmp:Rating></rdf:Description>')])
def test_what_others_wrote_is_left_as_it_is(tmp_path, spoil):
    path = tmp_path / 'photo.jpg.xmp'
    path.write_bytes(spoiled := spoil(sidecar(Report(EXACT))))
    assert not is_ours(path)
    refused = write_sidecar(path.with_suffix(''), Report(ABOUT))
    assert f'{path}: not written by this program' in str(refused)
    assert path.read_bytes() == spoiled and list(tmp_path.iterdir()) == [path]


def test_an_own_sidecar_is_renewed(tmp_path):
    for row in (EXACT, ABOUT):
        assert write_sidecar(tmp_path / 'photo.jpg', Report(row)) is None
    assert (tmp_path / 'photo.jpg.xmp').read_bytes() == sidecar(Report(ABOUT))


def test_a_sidecar_of_others_is_named_and_the_other_images_get_theirs(tmp_path, capsys):
    for name in ('earth_jpeg_q35.png', 'coffee_jpeg_q20.png'):
        shutil.copy(SAMPLES / name, tmp_path)
    foreign = tmp_path / 'coffee_jpeg_q20.png.xmp'
    foreign.write_bytes(DARKTABLE)
    assert predict_cls.main([str(tmp_path), '--xmp']) == 2
    error, = (line for line in capsys.readouterr().err.splitlines() if 'error' in line)
    assert str(foreign) in error and foreign.read_bytes() == DARKTABLE
    assert is_ours(tmp_path / 'earth_jpeg_q35.png.xmp')


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    image = tmp_path / 'missing.png' / 'photo.jpg'
    (tmp_path / 'missing.png').write_bytes(b'')
    assert f'{image}.xmp: cannot be written' in str(write_sidecar(image, Report(EXACT)))
