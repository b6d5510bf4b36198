"""The sentence about an image, for each of the cases that can be told apart."""
from dataclasses import replace

import numpy as np
import pytest

from classifier import conclusion as words
from classifier.conclusion import header_said, span
from classifier.forensics.header import JpegHeader
from classifier.forensics.lattice import Lattice, TableEstimate
from classifier.forensics.recompression import Earlier
from classifier.posterior import Posterior
from classifier.prediction import CONTRADICTION, Prediction, contradicts
from classifier.predictor import LITTLE_TEXTURE, TOO_UNSURE
from classifier.report import FIELDS, REFINED_FIELDS, _row

NO_LATTICE = Lattice(None, (), 0, 0, 0.0, -50.0, 0.4, 900)
PROOF = '; 987 of 1,000 blocks are bit-exact'
NOTHING_EARLIER = Earlier(None, 0, 0, 0.0)
LIBJPEG = JpegHeader(75, True, '4:2:0', 64 * (3,), 75, 'libjpeg', 'libjpeg 75', 'YCbCr', 'baseline')
OWN_TABLES = JpegHeader(75, False, '4:2:0', 64 * (3,), 70)


def conclusion(prediction, header=None, earlier=None, table=None):
    """The sentence on a prediction with that header and that earlier compression."""
    return words.conclusion(replace(prediction, header=header, earlier=earlier), table)


def by_lattice(quality=75, qualities=None, **more):
    lattice = Lattice(quality, tuple(qualities or [quality]), 5, 3, 60.0, 900.0, 0.01, 1000,
                      exact_blocks=987, tested_blocks=1000, **more)
    return Prediction(None, 0, 0, lattice=lattice)


def by_header(quality=75):
    """The header's table proved; no quality for one that is not libjpeg's, but the nearest."""
    lattice = by_lattice(quality, from_header=True).lattice
    if quality is None:
        lattice = replace(lattice, qualities=())
    return Prediction(None, 0, 0, lattice=lattice, nearest=75 if quality is None else None)


def by_network(quality=60, low=50, high=72, compressed=0.99, edited=0.1):
    return Prediction(float(quality), 100, 256, Posterior(quality, 5.0, low, high, compressed),
                      NO_LATTICE, edited=edited)


def unanswered(reason):
    return Prediction(None, 0, 256, lattice=NO_LATTICE, reason=reason)


def estimate(quality, standard):
    return TableEstimate(np.full((8, 8), 3), quality, standard, 0, 0, 0.01)


# ---------------------------------------------------------------- without a header

@pytest.mark.parametrize('prediction, expected', [
    (by_lattice(20), 'was a JPEG of quality 20, exactly (block grid at (5, 3))' + PROOF),
    (by_lattice(20, subsampling='4:2:0', chroma_quality=20),
     'was a JPEG of quality 20, exactly (4:2:0, block grid at (5, 3))' + PROOF),
    (by_lattice(20, subsampling='4:4:4', chroma_quality=40),
     'was a JPEG of quality 20, exactly (4:4:4, chroma of quality 40, block grid at (5, 3))'
     + PROOF),
    (by_lattice(99, [98, 99, 100]), 'was a JPEG of quality 98 to 100 (block grid at (5, 3))'
     + PROOF),
    (by_lattice(20, turned=True),
     'was a JPEG of quality 20, exactly (block grid at (5, 3), then turned by 90 degrees)' + PROOF),
    (by_lattice(20, subsampling='4:2:0', repeated=2, turned=True),
     'was a JPEG of quality 20, exactly (4:2:0, block grid at (5, 3), each pixel then repeated '
     '2 x 2, then turned by 90 degrees)' + PROOF),
    (by_lattice(20, tone='contrast'), 'was a JPEG of quality 20, exactly (block grid at (5, 3), '
     'then its contrast was raised)' + PROOF),
    (by_lattice(20, decoder='fast'), 'was a JPEG of quality 20, exactly (block grid at (5, 3), '
     'decoded by the fast inverse DCT)' + PROOF),
    (by_lattice(20, decoder='other'), 'was a JPEG of quality 20, exactly (block grid at (5, 3),'
     " decoded by another inverse DCT than libjpeg's)"
     + PROOF.replace('bit-exact', 'exact within rounding')),
    (by_lattice(20, region_x=40, region_y=100, region_width=640, region_height=480), 'holds a JPEG '
     'of quality 20, exactly, at x 40 to 680, y 100 to 580 (block grid at (5, 3))' + PROOF),
    (by_network(), 'was a JPEG of about quality 60 (50 to 72); no exact quantization table was '
     'found'),
    (by_network(edited=0.9), 'was a JPEG of about quality 60 (50 to 72); the pixels were changed '
     'afterwards'),
    (by_network(60, 60, 60), 'was a JPEG of about quality 60 (60); no exact quantization table was '
     'found'),
    (by_network(97, 88, 100, compressed=0.3), 'no sign of JPEG compression'),
    (unanswered(LITTLE_TEXTURE), 'cannot tell: too little texture'),
    (unanswered(TOO_UNSURE), 'cannot tell: what its pixels show fits too many qualities')])
def test_what_pixels_say_without_a_header(prediction, expected):
    assert conclusion(prediction) == expected


def test_an_earlier_save_is_told_after_the_exact_one():
    said = 'was a JPEG of quality 95, exactly (block grid at (5, 3))' + PROOF
    assert conclusion(by_lattice(95), earlier=Earlier(60, 1, 2, 30.0)) == (
        said + '; saved before at about quality 60, block grid at (1, 2)')
    for nothing in (None, NOTHING_EARLIER):
        assert conclusion(by_lattice(95), earlier=nothing) == said


def test_a_table_that_is_not_libjpeg_s_is_told_before_the_network_s_estimate():
    expected = ("was compressed with a quantization table that is not libjpeg's, nearest to "
                'quality 82')
    for prediction in (by_network(), unanswered(LITTLE_TEXTURE)):
        assert conclusion(prediction, table=estimate(82, False)) == expected
        assert conclusion(prediction, table=estimate(82, True)) == conclusion(prediction)
        assert conclusion(prediction, table=estimate(None, False)) == conclusion(prediction)
    assert 'exactly' in conclusion(by_lattice(), table=None)


# ---------------------------------------------------------------- with one

@pytest.mark.parametrize('header, expected', [
    (LIBJPEG, 'header says quality 75, 4:2:0'),
    (JpegHeader(75, True, '4:4:4', 64 * (3,), 30, 'libjpeg', 'libjpeg 75,30'),
     'header says quality 75 (chroma 30), 4:4:4'),
    (JpegHeader(75, True, 'gray', 64 * (3,)), 'header says quality 75, gray'),
    (JpegHeader(81, False, '4:2:0', 64 * (3,), 80, 'Photoshop', 'Photoshop 3 of 12'),
     'header says quality 81 (Photoshop 3 of 12), 4:2:0'),
    (OWN_TABLES, 'header says quality 75, nearest to its own tables, 4:2:0'),
    (JpegHeader(None, False, '4:4:4', None, process='lossless'),
     'header names no quality, 4:4:4'),
    (JpegHeader(75, False, '4:2:0', 64 * (3,), None, damage='the chroma table is missing'),
     'header says quality 75, nearest to its own tables, 4:2:0; the chroma table is missing')])
def test_what_the_header_says(header, expected):
    assert header_said(header) == expected


def test_a_header_that_the_lattice_confirms():
    said = ', and its pixels confirm that exactly; no earlier compression found'
    proof = ' (987 of 1,000 blocks are bit-exact)'
    for header, of_it in ((LIBJPEG, ''), (OWN_TABLES, ', nearest to its own tables')):
        proved = by_header(75 if header.standard else None)
        assert conclusion(proved, header, NOTHING_EARLIER) == (
            f'a JPEG whose header says quality 75{of_it}, 4:2:0{said}{proof}')
        assert (proved.quality, proved.quality_low, proved.quality_high, proved.method,
                proved.compressed) == (75, 75, 75, 'lattice', 1)


def test_pixels_of_a_confirmed_header_that_look_far_worse_were_saved_before():
    """The network has seen what an earlier table that is not libjpeg's has left."""
    header = JpegHeader(95, True, '4:2:0', 64 * (3,), 95)
    edge = header.quality - CONTRADICTION
    for low, high, compressed, worse in ((61, 77, 0.99, True), (61, edge - 1, 0.51, True),
                                         (61, edge, 0.99, False), (61, 77, 0.5, False)):
        seen = Posterior(69, 5.0, low, high, compressed)
        prediction = replace(by_header(95), network_quality=69.0, posterior=seen)
        assert contradicts(prediction, header) == worse
        said = conclusion(prediction, header, NOTHING_EARLIER)
        assert said == 'a JPEG whose header says quality 95, 4:2:0, and its pixels confirm that' + (
            f', but they look like those of a JPEG of about quality 69 ({low} to {high}) saved '
            'again' if worse else
            ' exactly; no earlier compression found (987 of 1,000 blocks are bit-exact)')
        verdict = replace(prediction, header=header, earlier=NOTHING_EARLIER).verdict
        assert verdict == ('contradiction' if worse else 'consistent')
    assert not contradicts(by_header(95), header)  # nobody asked the network
    unsure = replace(by_header(95), posterior=Posterior(50, 16.0, 23, 80, 0.99))
    assert not contradicts(unsure, header)  # its interval is too wide for an answer


def test_a_header_that_nothing_contradicts_is_not_called_confirmed():
    plain = 'a JPEG whose header says quality 75, 4:2:0; no earlier compression found'
    assert conclusion(by_network(70, 60, 80), LIBJPEG, NOTHING_EARLIER) == plain
    assert conclusion(by_network(99, 97, 100, compressed=0), LIBJPEG, NOTHING_EARLIER) == plain
    assert conclusion(by_lattice(75), OWN_TABLES, NOTHING_EARLIER) == (
        'a JPEG whose header says quality 75, nearest to its own tables, 4:2:0; no earlier '
        'compression found')
    assert 'confirm' not in conclusion(by_lattice(80), LIBJPEG, NOTHING_EARLIER)


def test_an_earlier_compression_is_what_matters_most():
    expected = ('a JPEG whose header says quality 75, 4:2:0; saved before at about quality 40, '
                'block grid at (6, 3)')
    for prediction in (by_lattice(75), by_network(40, 35, 45), unanswered(LITTLE_TEXTURE)):
        assert conclusion(prediction, LIBJPEG, Earlier(40, 6, 3, 30.0)) == expected


@pytest.mark.parametrize('more, words', [
    ({'encoder': 'libjpeg', 'encoder_setting': 'libjpeg 40'}, '40'),
    ({'standard': False, 'encoder': 'mozjpeg', 'encoder_setting': 'mozjpeg 55'}, '40 (mozjpeg 55)'),
    ({'standard': False, 'encoder': 'jpegli'}, '40 (jpegli)'),
    ({'encoder': 'libjpeg, tables turned by 90 degrees', 'encoder_setting': 'libjpeg 41'},
     '40 (libjpeg 41, then turned by 90 degrees)'),
    ({'standard': False}, "40 (with steps that are not libjpeg's)"),
    ({'changed': True}, '40 (a rough estimate: its pixels seem to have been changed in between)')])
def test_what_is_known_of_an_earlier_table_is_told(more, words):
    found = conclusion(by_lattice(75), LIBJPEG, Earlier(40, 6, 3, 30.0, **more))
    assert found.endswith(f'; saved before at about quality {words}, block grid at (6, 3)')


def test_an_earlier_table_as_fine_as_the_header_s_says_where_it_is_coarser():
    earlier = Earlier(75, 0, 0, 90.0, False, steps=5 * (40,) + 59 * (0,))
    assert earlier.known_steps == 5
    assert conclusion(by_lattice(75), LIBJPEG, earlier) == (
        'a JPEG whose header says quality 75, 4:2:0; saved before at about quality 75 (with steps '
        "that are not libjpeg's), with 5 or more of 64 steps coarser than the header's, block grid "
        'at (0, 0)')
    assert 'with some of 64 steps' in conclusion(by_lattice(75), LIBJPEG, Earlier(76, 0, 0, 90.0))


def test_pixels_that_look_far_worse_than_the_header_contradict_it():
    found = conclusion(by_network(30, 25, 40), LIBJPEG, NOTHING_EARLIER, estimate(75, False))
    assert found == ('a JPEG whose header says quality 75, 4:2:0, but its pixels contradict that: '
                     'was a JPEG of about quality 30 (25 to 40); no exact quantization table was '
                     'found')
    assert conclusion(by_lattice(30), LIBJPEG, NOTHING_EARLIER).endswith(
        'but its pixels contradict that: was a JPEG of quality 30, exactly (block grid at (5, 3))'
        + PROOF)


def test_only_a_whole_interval_far_below_the_header_contradicts_it():
    edge = LIBJPEG.quality - CONTRADICTION
    assert contradicts(by_network(30, 25, edge - 1), LIBJPEG)
    assert not contradicts(by_network(30, 25, edge), LIBJPEG)
    assert not contradicts(by_network(95, 90, 99), LIBJPEG)  # better pixels do not
    assert not contradicts(unanswered(TOO_UNSURE), LIBJPEG)
    assert not contradicts(Prediction(30.0, 9, 256), LIBJPEG)  # the median has no interval
    assert not contradicts(by_network(30, 25, 40), JpegHeader(None, False, '4:4:4', None))


def test_pixels_of_which_nothing_can_be_told_leave_the_header_s_word():
    assert conclusion(unanswered(LITTLE_TEXTURE), LIBJPEG, NOTHING_EARLIER) == (
        'a JPEG whose header says quality 75, 4:2:0; from its pixels: cannot tell: too little '
        'texture')


@pytest.mark.parametrize('low, high, expected', [(75, 75, '75'), (1, 100, '1 to 100')])
def test_a_span_of_qualities(low, high, expected):
    assert span(low, high) == expected


@pytest.mark.parametrize('prediction, header, earlier, verdict', [
    (by_lattice(), None, None, 'no header'), (by_lattice(), None, NOTHING_EARLIER, 'no header'),
    (by_lattice(), None, Earlier(40, 6, 3, 30.0), 'no header'),
    (by_lattice(), LIBJPEG, None, 'not checked'),
    (by_lattice(), LIBJPEG, NOTHING_EARLIER, 'consistent'),
    (by_lattice(), LIBJPEG, Earlier(40, 6, 3, 30.0), 'recompressed'),
    (by_network(30, 25, 40), LIBJPEG, NOTHING_EARLIER, 'contradiction'),
    (by_network(30, 25, 40), LIBJPEG, Earlier(40, 6, 3, 30.0), 'recompressed'),
    (unanswered(LITTLE_TEXTURE), LIBJPEG, NOTHING_EARLIER, 'consistent')])
def test_the_verdict_says_the_same_in_a_word(prediction, header, earlier, verdict):
    known = replace(prediction, header=header, earlier=earlier)
    row = _row('a.jpg', known, 0.1)
    assert known.verdict == row['verdict'] == verdict
    found = earlier if earlier and earlier.quality is not None else Earlier(None, None, None, 0.0)
    assert (row['earlier_quality'], row['earlier_grid_dy'], row['earlier_grid_dx']) == (
        found.quality, found.grid_dy, found.grid_dx)


def test_fields_of_the_proof_are_filled_where_there_is_one_and_empty_elsewhere():
    names = ('exact_blocks', 'tested_blocks', 'turned', 'repeated', 'grid_dy', 'grid_dx')
    for prediction, expected in (
            (by_lattice(20, turned=True, repeated=3), (987, 1000, True, 3, 5, 3)),
            (by_header(None), (987, 1000, False, 1, 5, 3)), (by_network(), 6 * (None,))):
        row = _row('a.png', prediction, 0.1)
        assert tuple(row[name] for name in names) == expected
        assert list(row) == [*FIELDS, *REFINED_FIELDS]
