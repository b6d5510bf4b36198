"""A folder's page, and its files chosen by a condition."""
import csv
import json
import os
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from classifier import predict_cls
from classifier.audit import BINS, FILE, HIDDEN, NEVER, SORTS, UNKNOWN, Audit, compare, page
from classifier.chosen_files import place
from classifier.errors import InputError
from classifier.images import compress
from classifier.report import FIELDS, REFINED_FIELDS
from conftest import PRISTINE, SAMPLES

SMALL = SAMPLES / 'raccoon.png'


@pytest.fixture
def data_set(photo, tmp_path):
    """Subfolders of never compressed images, of hidden JPEGs and of JPEG files, and one damaged."""
    folder = tmp_path / 'data <set>'
    for name in ('real', 'fake'):
        (folder / name).mkdir(parents=True)
    for i in range(2):
        part = np.ascontiguousarray(photo[100 * i:100 * i + 128, :160])
        cv2.imwrite(str(folder / 'fake' / f'{i}.png'), compress(part, 40 + 20 * i))
        (folder / 'real' / f'{i}.jpg').write_bytes(cv2.imencode('.jpg', part)[1].tobytes())
    shutil.copy(SMALL, folder / 'real' / '<b>&.png')
    (folder / 'real' / 'bad.png').write_bytes(b'no image')
    return folder


class Page(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ''
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += f'{data}\n'


def run(*options):
    return predict_cls.main([*map(str, options), '--quiet'])


def test_the_page_counts_all_and_needs_nothing_else(data_set, tmp_path, capsys):
    out = tmp_path / 'report.html'
    assert run(data_set, '--recursive', '--report', out) == 2
    found = Page(out)
    rows = dict(re.findall(r'(\w[\w ]+)\n(\d+)\n[\d.]+ %', found.text))
    assert {name: int(rows[name]) for name in (NEVER, HIDDEN, FILE, UNKNOWN)} == {
        NEVER: 1, HIDDEN: 2, FILE: 2, UNKNOWN: 0}
    assert int(rows['could not be read']) == 1
    assert int(rows['edited afterwards']) == 0  # what is exact was not
    assert 'JPEG compression in data <set>' in found.text and 'real\n4\n' in found.text
    pictures = [attributes for tag, attributes in found.tags if tag == 'img']
    assert len(pictures) == 4 and all(p['src'].startswith('data:image/jpeg;') for p in pictures)
    assert not {'script', 'link', 'iframe', 'b<'} & {tag for tag, _ in found.tags}
    assert not any('http' in str(value) and name != 'http-equiv' for _, attributes in found.tags
                   for name, value in attributes.items())
    assert '<b>&.png' not in found.text  # it never was a JPEG, so it is not among the lowest
    lowest = found.text.index(str(data_set / 'fake' / '0.png'))
    assert lowest < found.text.index(str(data_set / 'fake' / '1.png'))


def test_names_are_escaped_on_the_page():
    audit, name = Audit(), '<script>alert(1)</script>\udcff'
    row = dict.fromkeys(FIELDS) | {'path': name, 'quality': 50.0, 'quality_low': 50, 'refined': 50,
                                   'quality_high': 50, 'method': 'lattice', 'verdict': 'no header',
                                   'compressed': 1.0}
    audit.add(name, row)
    text = page(audit, name, lambda path: None)
    assert '<script' not in text and '&lt;script&gt;' in text
    text.encode()


def test_the_worst_are_ranked_by_the_lowest_save_whether_last_or_earlier():
    audit, of_file = Audit(), {'verdict': 'consistent', 'compressed': 1.0, 'method': 'lattice'}
    for name, more in {
            'never': {'verdict': 'no header', 'method': 'network', 'compressed': 0.1,
                      'quality': 99.0},
            'estimated': {'verdict': 'no header', 'method': 'network', 'compressed': 0.9,
                          'quality': 70.0, 'quality_low': 60, 'quality_high': 80},
            'once': of_file | {'quality': 80.0, 'header_quality': 80, 'refined': 80},
            'again': of_file | {'quality': 95.0, 'header_quality': 95, 'earlier_quality': 50,
                                'verdict': 'recompressed', 'refined': 95},
            'header': of_file | {'quality': 30.0, 'header_quality': 60, 'method': 'network',
                                 'quality_low': 20, 'quality_high': 62},
            'worse': of_file | {'quality': 95.0, 'header_quality': 95, 'network_quality': 40.0,
                                'verdict': 'contradiction', 'refined': 95}}.items():
        audit.add('a', dict.fromkeys(FIELDS + REFINED_FIELDS) | {'path': name} | more)
    assert [(quality, row['path']) for quality, _, row in audit.worst] == [
        (40, 'worse'), (50, 'again'), (60, 'header'), (70, 'estimated'), (80, 'once')]
    html = page(audit, 'a', lambda path: None)
    assert 'The 20 lowest qualities' in html and 'saved before at about quality 50' in html


def counts(*numbers):
    return Counter(dict(zip(SORTS, numbers)))


@pytest.mark.parametrize('by_subfolder, warns, words', [
    ({'real': counts(2, 0, 98), 'fake': counts(97, 3, 0)}, True,
     '“JPEG file” are 98 % of real, but 0 % of fake'),
    ({'a': counts(50, 50), 'b': counts(48, 52)}, False, 'do not differ much'),
    ({'a': counts(5000, 5000), 'b': counts(4600, 5400)}, False, 'do not differ much'),
    ({'a': counts(100), 'b': counts(90)}, False, 'all are “never JPEG”'),
    ({'a': counts(100), 'b': counts(0, 19)}, False, 'no two subfolders')])
def test_subfolders_that_differ_are_warned_of(by_subfolder, warns, words):
    said, warning = compare(by_subfolder, SORTS)
    assert warning == warns and words in said


def test_a_class_of_jpegs_of_another_quality_is_warned_of():
    audit = Audit()
    for name, quality in (('real', 75), ('fake', 95)):
        for _ in range(30):
            audit.add(name, dict.fromkeys(FIELDS) | {
                'path': 'a', 'verdict': 'consistent', 'method': 'lattice', 'quality': quality,
                'header_quality': quality, 'quality_low': quality, 'quality_high': quality,
                'refined': quality, 'compressed': 1.0})
    assert compare(audit.by_subfolder, SORTS) == ('all are “JPEG file”.', False)
    said, warning = compare(audit.quality_by_subfolder, BINS)
    assert warning and '“71-75” are 100 % of real, but 0 % of fake' in said
    assert 'Qualities of the JPEGs: the subfolders differ' in page(audit, 'a', lambda path: None)


def test_chosen_images_alone_are_printed_and_copied_to_their_places(data_set, tmp_path, capsys):
    out, rows = tmp_path / 'out', tmp_path / 'rows.csv'
    options = (data_set, '--recursive', '--select', 'verdict="no header" and quality<50')
    assert run(*options, '--copy_to', out, '--csv', rows, '--ignore_errors') == 0
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith('fake/0.png: was a JPEG of quality 40')
    copied, = (path for path in out.rglob('*') if path.is_file())
    original = data_set / 'fake' / '0.png'
    assert copied == out / 'fake' / '0.png' and copied.read_bytes() == original.read_bytes()
    assert copied.stat().st_mtime_ns == original.stat().st_mtime_ns
    with open(rows, newline='') as file:
        assert len(list(csv.DictReader(file))) == 5  # of all
    assert run(*options, '--copy_to', out, '--csv', rows, '--resume', '--ignore_errors') == 0
    assert capsys.readouterr().out == 'fake/0.png: quality 40, exact\n'  # from its row
    assert run(*options, '--csv', rows, '--resume', '--ignore_errors', '--json') == 0
    row = json.loads(capsys.readouterr().out)
    assert row['path'] == str(original) and row['quality'] == 40 and row['turned'] is False


def test_nothing_is_replaced(data_set, tmp_path, capsys):
    out = tmp_path / 'out'
    (out / 'fake').mkdir(parents=True)
    (out / 'fake' / '0.png').write_text('mine')
    assert run(data_set / 'fake', data_set / 'real', '--select', 'method=lattice', '--copy_to',
               out, '--ignore_errors') == 2
    error = [line for line in capsys.readouterr().err.splitlines() if 'already' in line]
    assert len(error) == 1 and f'{out / "fake" / "0.png"}: is there already' in error[0]
    assert (out / 'fake' / '0.png').read_text() == 'mine'
    assert sorted(path.name for path in out.rglob('*.*')) == ['0.jpg', '0.png', '1.jpg', '1.png']


def test_links_lead_to_the_files(data_set, tmp_path, capsys):
    for _ in range(2):  # the second time they are there, and as good
        assert run(data_set, '--recursive', '--select', 'header_quality!=none', '--link_to',
                   tmp_path / 'out', '--ignore_errors') == 0
    links = sorted((tmp_path / 'out').rglob('*.jpg'))
    assert [os.readlink(link) for link in links] == [str(data_set / 'real' / f'{i}.jpg')
                                                     for i in range(2)]


def test_a_file_of_its_own_is_never_replaced_by_a_link_to_it(tmp_path):
    source = tmp_path / 'a.png'
    source.write_bytes(b'a')
    with pytest.raises(InputError, match='is there already'):
        place(source, source, link=True)
    place(source, source, link=False)
    assert source.read_bytes() == b'a' and os.listdir(tmp_path) == ['a.png']


def test_paths_for_other_tools_end_with_a_null_character(data_set, capfd):
    assert run(data_set, '--recursive', '--print0', '--ignore_errors', '--select',
               'compressed<0.5') == 0
    assert capfd.readouterr().out == f'{data_set / "real" / "<b>&.png"}\0'


@pytest.mark.parametrize('options, reason', [
    (['--copy_to', 'out'], '--copy_to and --link_to go with --select'),
    (['--select', 'quality>3', '--copy_to', 'a', '--link_to', 'b'], 'choose one of'),
    (['--print0', '--json'], 'choose one')])
def test_choices_that_make_no_sense_together_are_refused(capsys, options, reason):
    with pytest.raises(SystemExit, match='2'):
        run(PRISTINE[0], *options)
    assert reason in capsys.readouterr().err


def test_a_wrong_condition_and_a_page_of_one_image_are_one_line(tmp_path, capsys):
    for options, reason in ((['--select', 'quality>>3'], 'at character 9'),
                            (['--report', tmp_path / 'a.html'], '--report is of several images'),
                            (['--comp_type', 'jpeg_paper', '--select', 'refined=3'], 'no field')):
        assert run(PRISTINE[0], *options) == 2
        error, = capsys.readouterr().err.splitlines()
        assert reason in error
