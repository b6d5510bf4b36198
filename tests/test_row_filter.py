"""--select: conditions on rows, read by a grammar and never run."""
import pytest

from classifier.errors import InputError
from classifier.row_filter import parse_condition

FIELDS = ('path', 'quality', 'compressed', 'verdict', 'header_standard', 'header_subsampling',
          'encoder')
ROW = {'path': 'a b.jpg', 'quality': 75.0, 'compressed': 0.25, 'verdict': 'recompressed',
       'header_standard': True, 'header_subsampling': '4:2:0', 'encoder': None}
TEXT = {'path': 'a b.jpg', 'quality': '75.00', 'compressed': '0.2500', 'verdict': 'recompressed',
        'header_standard': 'True', 'header_subsampling': '4:2:0', 'encoder': ''}


@pytest.mark.parametrize('text, expected', [
    ('quality=75', True), ('quality == 75.0', True), ('quality!=75', False), ('quality<75', False),
    ('quality<=75', True), ('quality>74.9', True), ('quality>=75.1', False),
    ('compressed<0.5', True), ('verdict=recompressed', True), ('VERDICT=x', None),
    ('verdict=Recompressed', True), ('verdict!=consistent', True), ('header_standard=true', True),
    ('header_standard=False', False), ('header_subsampling=4:2:0', True),
    ('path="a b.jpg"', True), ("path='a b.jpg'", True), ('quality="75"', True),
    ('encoder=none', True), ('encoder!=none', False), ('quality=none', False),
    ('encoder<3', False), ('encoder>3', False), ('not encoder>3', True), ('encoder=3', False),
    ('not quality=75', False), ('NOT not quality=75', True),
    ('quality=1 and quality=2 or quality=75', True),
    ('quality=75 or quality=1 and quality=2', True),
    ('(quality=75 or quality=1) and quality=2', False),
    ('not (quality=1 or compressed>0.5) and (verdict=recompressed)', True)])
def test_a_condition_means_the_same_of_values_and_of_their_text(text, expected):
    if expected is None:
        with pytest.raises(InputError, match='VERDICT is no field'):
            parse_condition(text, FIELDS)
        return
    condition = parse_condition(text, FIELDS)
    numbers_as_text = text == 'quality="75"'  # quoted, it is text
    assert condition(ROW) == (False if numbers_as_text else expected)
    assert condition(TEXT) == (False if numbers_as_text else expected)


@pytest.mark.parametrize('text, place', [
    ('', 'at its end: a field is missing'), ('qualty>3', 'at character 1, .*is it quality'),
    ('quality', 'at its end: one of = '), ('quality>', 'at its end: a number or a word'),
    ('quality>good', "at character 9, 'good': > needs a number"),
    ('quality>"3"', "at character 9, .*: > needs a number"),
    ('quality=3 compressed=1', "at character 11, 'compressed=1': 'and' or 'or' is missing"),
    ('(quality=3', r"at its end: '\)' is missing"), ('quality=3)', "at character 10, '\\)'"),
    ('quality=3 and', 'at its end: a field is missing'), ('and quality=3', 'and is no field'),
    ('quality="3', "at character 9, '\"3': cannot be read"), ('quality ! 3', 'cannot be read'),
    (60 * '(' + 'quality=3' + 60 * ')', 'too many brackets'),
    (5000 * 'not ' + 'quality=3', 'too many brackets'),
    ('__import__("os").system("x")=1', 'is no field'), ('quality=3;print(1)', 'is missing')])
def test_what_is_no_condition_is_refused_where_it_goes_wrong(text, place):
    with pytest.raises(InputError, match=place):
        parse_condition(text, FIELDS)
