"""The proof of a quality: blocks that come out bit for bit; smooth images, which prove little."""
import io
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from classifier import images
from classifier.forensics.blocks import DCT2, get_blocks
from classifier.forensics.exact_blocks import coarser_gain, compare_tables, exact_blocks
from classifier.forensics.inverse_dct import inverse_dct
from classifier.forensics.lattice import find_quality
from classifier.forensics.proof import prove
from classifier.forensics.recompression import find_earlier
from classifier.forensics.tables import standard_tables, turned_tables
from conftest import SAMPLES

FEW, MANY = 60, 2000      # smooth images


def saved(image, **options):
    """The image after Pillow's JPEG encoder, decoded."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(data, 'JPEG', **options)
    return np.ascontiguousarray(np.asarray(Image.open(data).convert('RGB'))[:, :, ::-1])


def smooth_image(rng):
    """A gradient, a wave, blurred noise or a sky, at times gray or with one textured block."""
    height, width = rng.integers(64, 400, 2)
    y, x = np.mgrid[:height, :width].astype(float)
    low, high = rng.uniform(20, 235, (2, 3))
    kind = rng.integers(6)
    if kind == 0:
        angle = rng.uniform(0, 2 * np.pi)
        along = np.cos(angle) * x + np.sin(angle) * y
    elif kind == 1:
        along = y if rng.random() < 0.5 else x
    elif kind == 2:
        along = np.hypot(y - height * rng.random(), x - width * rng.random())
    elif kind == 3:
        along = np.sin(x / rng.uniform(15, 60)) * np.cos(y / rng.uniform(15, 60))
    else:
        along = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), rng.uniform(8, 40))
    along = (along - along.min()) / np.ptp(along)
    image = low + (high - low) * along[..., None]
    if kind == 5:
        image += (y / height)[..., None] * rng.uniform(-20, 20, 3)
        image += rng.normal(0, rng.choice([0, 0.3, 0.6]), (height, width, 1))
    if rng.random() < 0.15:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        top, left = rng.integers(height - 8), rng.integers(width - 8)
        image[top:top + 8, left:left + 8] = rng.integers(0, 256, (8, 8, 3))
    return image


def judge_smooth_images(count):
    """What is said of `count` smooth images saved once, as pixels alone: a `Counter`."""
    told = Counter()
    for seed in range(count):
        rng = np.random.default_rng(seed)
        quality = int(rng.integers(30, 99))
        image = saved(smooth_image(rng), quality=quality, subsampling=int(rng.choice([0, 2])))
        if find_earlier(image, standard_tables()[quality - 1]).quality is not None:
            told['recompressed'] += 1
        if rng.random() < 0.4:
            image = image[rng.integers(8):, rng.integers(8):]
        found = find_quality(image)
        if not found.qualities:
            told['abstained'] += 1
        elif quality not in found.qualities:
            told['wrong'] += 1
        else:
            told['range' if found.is_tie else 'exact'] += 1
    print(dict(told))
    return told


def test_smooth_images_give_no_wrong_quality_and_no_false_alarm():
    told = judge_smooth_images(FEW)
    assert told['wrong'] == 0 and told['recompressed'] == 0
    assert told['exact'] >= FEW // 6 and told['range'] >= FEW // 12


@pytest.mark.long
def test_many_smooth_images_give_no_wrong_quality_and_no_false_alarm():
    told = judge_smooth_images(MANY)
    assert told['wrong'] == 0 and told['recompressed'] == 0
    assert told['exact'] >= MANY // 6 and told['range'] >= MANY // 12


def test_smooth_images_that_were_never_compressed_get_no_quality():
    for seed in range(30):
        assert find_quality(smooth_image(np.random.default_rng(seed))).qualities == (), seed


def test_the_inverse_dct_is_within_a_level_of_the_exact_one():
    rng = np.random.default_rng(0)
    coefficients = np.rint(rng.laplace(0, 20, (500, 64))).astype(int)
    exact = np.clip(coefficients @ DCT2 + 128, 0, 255)
    assert np.abs(inverse_dct(coefficients) - exact).max() < 0.6
    flat = np.zeros((1, 64), int)
    flat[0, 0] = 80
    assert (inverse_dct(flat) == 138).all()


def test_colours_that_are_even_along_the_rows_do_not_tell_the_subsampling(photo):
    tint = np.linspace(-40, 40, len(photo))[:, None, None] * [1, 0, -1]
    image = (photo.mean(axis=2, keepdims=True) / 2 + 64 + tint).astype(np.uint8)
    for subsampling in ('4:4:4', '4:2:2'):
        found = find_quality(saved(image, quality=75, subsampling=subsampling))
        assert found.quality == 75 and found.subsampling in (None, subsampling)


@pytest.mark.parametrize('subsampling', ['4:4:4', '4:2:2', '4:2:0'])
def test_all_blocks_of_a_photo_come_out_bit_for_bit(photo, subsampling):
    for quality in (20, 60, 84):
        coded = saved(photo, quality=quality, subsampling=subsampling)
        for dy, dx in ((0, 0), (3, 5), (8, 10)):
            where = -dy % 8, -dx % 8, subsampling
            proof = prove(coded[dy:, dx:], quality, *where)
            assert proof.blocks_exact == proof.blocks_tested > 300
            assert proof.colour_exact == proof.colour_tested > 5
            assert 200 < proof.textured_blocks_exact <= proof.blocks_exact
            other = prove(coded[dy:, dx:], quality + 1, *where)
            assert other.blocks_exact < 0.5 * proof.blocks_exact
            assert other.colour_exact < 0.8 * proof.colour_exact


def test_a_mirrored_photo_is_proved_in_all_channels(photo):
    coded = saved(photo, quality=60, subsampling='4:2:0')[:, ::-1]
    proof = prove(coded, 60, 0, 400 % 8, '4:2:0')
    assert proof.colour_exact == proof.colour_tested > 5
    assert find_quality(coded).subsampling == '4:2:0'


def test_hardly_a_block_of_a_pristine_photo_is_exact(photo):
    for quality in (30, 75, 95):
        proof = prove(photo, quality, subsampling='4:4:4')
        assert proof.textured_blocks_exact < 0.02 * proof.blocks_tested
        assert proof.colour_exact == 0


def test_one_pixel_a_block_breaks_the_proof(photo):
    coded = saved(photo, quality=60)
    before = prove(coded, 60)
    half = coded.copy()
    half[3::8, 3:200:8] += 2
    after = prove(half, 60)
    assert after.blocks_tested == before.blocks_tested
    assert 0.4 < after.blocks_exact / before.blocks_exact < 0.6
    coded[3::8, 3::8] += 2
    assert prove(coded, 60).blocks_exact < 0.01 * before.blocks_exact


def test_the_proof_takes_any_pair_of_tables():
    photo = images.read_image(SAMPLES / 'coffee.png')
    luma = np.clip(standard_tables()[59] + np.arange(64) % 5, 1, 255)
    chroma = np.full(64, 12)
    coded = saved(photo, qtables=[luma.tolist(), chroma.tolist()], subsampling='4:4:4')
    proof = prove(coded, (luma, chroma), subsampling='4:4:4')
    assert proof.blocks_exact == proof.blocks_tested and proof.colour_exact == proof.colour_tested
    other = prove(coded, (luma, chroma + 1), subsampling='4:4:4')
    assert other.blocks_exact == proof.blocks_exact and other.colour_exact < proof.colour_exact / 2


def test_a_quality_or_grid_out_of_range_is_refused(photo):
    with pytest.raises(ValueError, match='1..100'):
        prove(photo, 101)
    with pytest.raises(ValueError, match='0..7'):
        prove(photo, 75, 8)


def test_the_answer_says_how_many_blocks_are_exact(photo):
    found = find_quality(images.compress(photo, 75))
    assert found.exact_blocks == found.tested_blocks > 1000
    assert not found.is_tie and found.quality_low == found.quality_high == 75


def test_qualities_that_explain_an_image_equally_are_a_range():
    y, x = np.mgrid[:200, :200]
    wave = 128 + 60 * np.sin(x / 31) * np.cos(y / 23)
    wave = np.repeat(np.rint(wave)[..., None], 3, axis=2).astype(np.uint8)
    found = find_quality(images.compress(wave, 64))
    assert found.is_tie and 64 in found.qualities
    assert found.quality_low <= 64 <= found.quality_high < found.quality_low + 5
    tables = standard_tables()[np.array(found.qualities) - 1]
    _, exact = exact_blocks(get_blocks(images.compress(wave, 64), 0, 0), tables)
    assert exact.mean(axis=1).min() > 0.95


def test_one_pair_of_slopes_is_no_proof():
    y, x = np.mgrid[:256, :256]
    ramps = np.dstack([x, (x + y) // 2, y]).astype(np.uint8)
    for quality in (75, 80, 90):
        found = find_quality(images.compress(ramps, quality))
        assert found.qualities == () or quality in found.qualities


def test_the_table_of_the_header_is_the_answer_where_it_is_proved(photo):
    for quality in (10, 50, 90, 97):
        coded = images.compress(photo, quality)
        found = find_quality(coded, table=standard_tables()[quality - 1])
        assert found.from_header and found.quality == quality and found.qualities == (quality,)
    y, x = np.mgrid[:256, :256]
    ramp = np.repeat(((x + y) // 2)[..., None], 3, axis=2).astype(np.uint8)
    found = find_quality(images.compress(ramp, 75), table=standard_tables()[74])
    assert found.from_header and found.quality == 75


def test_a_header_table_that_is_not_standard_is_proved_without_a_quality(photo):
    table = np.clip(standard_tables()[59] + np.arange(64) % 5, 1, 255)
    found = find_quality(saved(photo, qtables=[table.tolist()] * 2), table=table)
    assert found.from_header and found.quality is None
    assert found.exact_blocks == found.tested_blocks > 1000


def test_a_header_table_that_the_pixels_do_not_have_is_not_believed(photo):
    found = find_quality(images.compress(photo, 75), table=standard_tables()[89])
    assert not found.from_header and found.quality == 75
    with pytest.raises(ValueError, match='64 steps'):
        find_quality(photo, table=np.zeros(64, int))


def test_smooth_images_of_another_table_get_no_quality():
    y, x = np.mgrid[:200, :200]
    rng = np.random.default_rng(0)
    for _ in range(6):
        wave = 128 + 60 * np.sin(x / rng.uniform(15, 50)) * np.cos(y / rng.uniform(15, 50))
        wave = np.repeat(np.rint(wave)[..., None], 3, axis=2).astype(np.uint8)
        for table in ([4] * 64, [6, 4, 8, 10] * 16):
            assert find_quality(saved(wave, qtables=[table] * 2)).qualities == ()


def test_coarser_steps_gain_over_a_divisor_of_the_table_only(photo):
    blocks = get_blocks(images.compress(photo, 75), 0, 0)
    assert compare_tables(blocks, standard_tables()).score.argmax() == 74
    assert coarser_gain(blocks, standard_tables()[74]) < 3
    even = get_blocks(saved(photo, qtables=[[8] * 64] * 2), 0, 0)
    assert coarser_gain(even, np.full(64, 8)) < 3 and coarser_gain(even, np.full(64, 4)) > 20


@pytest.mark.parametrize('quarter_turns', [1, 3])
def test_a_quarter_turn_is_told(photo, quarter_turns):
    for quality in (30, 75, 92):
        turned = np.rot90(images.compress(photo[:293, :381], quality), quarter_turns)
        found = find_quality(np.ascontiguousarray(turned))
        assert found.turned and found.qualities == (quality,)
    upright = find_quality(images.compress(photo, 75))
    assert not upright.turned


def test_a_table_turned_without_loss_is_told(photo):
    table = turned_tables()[74]
    coded = saved(photo, qtables=[table.tolist()] * 2)
    found = find_quality(coded)
    assert found.turned and found.qualities == (75,) and found.exact_blocks == found.tested_blocks
    found = find_quality(coded, table=table)
    assert found.from_header and found.turned and found.quality == 75


def test_repeated_pixels_are_looked_through(photo):
    coded = images.compress(photo, 40)
    for times, row, column in ((2, 0, 0), (2, 1, 3), (3, 2, 1)):
        enlarged = coded.repeat(times, axis=0).repeat(times, axis=1)[row:, column:]
        found = find_quality(enlarged)
        assert found.quality == 40 and found.repeated == times
    assert find_quality(coded).repeated == 1


def test_quality_100_is_told_in_rich_texture_alone(photo):
    """Blocks prove nothing of a table of ones, whose steps any whole level has."""
    assert find_quality(saved(photo, quality=100, subsampling=2)).quality == 100
    for seed in range(6):
        smooth = smooth_image(np.random.default_rng(10_000 + seed))
        assert find_quality(saved(smooth, quality=99, subsampling=2)).quality in (None, 99)
