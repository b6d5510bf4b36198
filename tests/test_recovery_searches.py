"""Crops and fine steps: what the searches for coefficients must find."""
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from classifier.forensics.blocks import DCT2
from classifier.forensics.inverse_dct import inverse_dct
from classifier.forensics.tables import standard_tables
from classifier.images import from_pillow, to_pillow
from classifier.recovery.beam_search import search_beam
from classifier.recovery.block_search import find_levels
from classifier.recovery.chroma_fronts import ChromaFronts
from classifier.recovery.cut_blocks import repeated_edge
from classifier.recovery.file_ends import goes_beyond
from classifier.recovery.lattice_points import (
    LARGEST_LEVEL, nearest_plane, nearest_points, reduced)
from classifier.recovery.recover import recover

SAMPLES = Path(__file__).resolve().parent.parent / 'sample_image'
pytest.importorskip('jpeglib', reason='has no wheel for this system')


def coded(image, quality, subsampling):
    """Pillow's pixels after JPEG; 1: 4:2:2, 2: 4:2:0."""
    data = io.BytesIO()
    to_pillow(image).save(data, 'JPEG', quality=quality, subsampling=subsampling)
    with Image.open(data) as decoded:
        return from_pillow(decoded)


def smooth_block(seed):
    """A block whose samples are known, of a smooth surface coded with steps of 1 and 2."""
    rng, table = np.random.default_rng(seed), standard_tables()[94]
    rows, columns = np.mgrid[:8, :8] / 7
    surface = rng.uniform(-40, 40) + sum(
        rng.uniform(-3, 3) * rows ** i * columns ** j for i in range(3) for j in range(3))
    levels = np.rint(DCT2 @ surface.ravel() / table).astype(np.int32)
    return inverse_dct((levels * table)[None])[0], table


@pytest.mark.parametrize('subsampling', (1, 2))
def test_crops_of_clipped_colours_come_back(subsampling):
    """Their cut blocks, once found, are not lost where the chroma inside is searched."""
    photo = cv2.imread(str(SAMPLES / 'raccoon.png'))[40:172, 100:254]
    bright = cv2.convertScaleAbs(photo, alpha=1.3, beta=-20)
    image = np.ascontiguousarray(coded(bright, 75, subsampling)[3:, 5:])
    assert ((image == 0) | (image == 255)).any(axis=2).mean() > 0.1
    assert recover(image).outcome == 'identical at (3, 5)'


def test_rows_that_say_the_same_still_give_whole_numbers():
    basis = np.random.default_rng(0).normal(size=(8, 8))
    basis[5] = basis[2]
    reduced_basis = reduced(basis)
    for levels in (nearest_plane(*reduced_basis, basis[:3]),
                   *nearest_points(*reduced_basis, basis[:3], 4)[:1]):
        assert np.allclose(levels @ basis, basis[:3])


def test_blocks_of_which_little_is_said_still_give_whole_numbers():
    """Few known samples and a repeated edge leave most directions of the lattice open."""
    rng, table = np.random.default_rng(0), standard_tables()[74]
    for rows, columns in ((8, 3), (2, 8), (1, 1)):
        said = np.concatenate([np.diag(1.0 * (rng.random(64) < 0.1)),
                               0.35 * repeated_edge(rows, columns, table)])
        basis = table[:, None] * (DCT2 @ np.linalg.qr(said)[1].T)
        levels = nearest_points(*reduced(basis), rng.normal(0, 30, (2, 64)), 16)
        assert np.abs(levels).max() < 1e6


def test_a_crop_tells_whether_its_file_goes_on_below(photo):
    whole = coded(photo[:130, :160], 85, 2)
    assert not goes_beyond(whole[3:])            # ends with its file
    assert goes_beyond(whole[3:122])             # coded rows follow
    assert goes_beyond(whole[:2])                # too little to tell


def test_a_crop_that_ends_with_its_file_gets_a_file_that_ends_there(photo):
    image = np.ascontiguousarray(coded(photo[:130, :154], 60, 2)[3:, 5:])
    found = recover(image)
    assert found.outcome == 'identical at (3, 5)'
    assert (found.picture.height, found.picture.width) == (130, 154)


def test_smooth_blocks_of_fine_steps_are_found():
    """Rounding alone moves several of their coefficients to the next level."""
    blocks, table = zip(*(smooth_block(seed) for seed in range(40)))
    samples, table = np.stack(blocks), table[0]
    rounded = np.rint((samples - 128.0) @ DCT2.T / table).astype(np.int32)
    wrong = (inverse_dct(rounded * table) != samples).any(axis=1)
    assert wrong.sum() > 10
    levels, exact = search_beam(samples[wrong], samples[wrong], rounded[wrong], table)
    assert (inverse_dct(levels[exact] * table) == samples[wrong][exact]).all()
    _, exact = find_levels(samples, samples, samples - np.float32(128), table)
    assert exact.mean() > 0.9


def test_what_no_levels_give_is_not_called_exact():
    samples, table = smooth_block(0)
    samples = np.repeat(samples[None], 3, axis=0)
    samples[:, 9] += 40
    assert not search_beam(samples, samples, np.zeros((3, 64), int), table)[1].any()


def test_luma_that_was_found_is_kept_while_it_fits():
    """Levels that no search finds again, as those of a block of which little is seen."""
    rng, table = np.random.default_rng(0), standard_tables()[89]
    levels = np.rint(rng.normal(0, 30, (4, 64)) / table).astype(np.int32)
    samples = inverse_dct(levels * table)
    hidden = rng.random((4, 64)) < 0.7
    low, high = np.where(hidden, 0, samples), np.where(hidden, 255, samples)
    found, exact = find_levels(low.astype(np.uint8), high.astype(np.uint8),
                               rng.normal(0, 30, (4, 64)).astype(np.float32), table, bases=0,
                               before=levels)
    assert exact.all() and (found == levels).any(axis=1).all()


def test_a_search_in_vain_ends_after_a_number_of_blocks(photo, monkeypatch):
    """Pixels of clipped areas, changed here and there, that no file gives."""
    bright = cv2.convertScaleAbs(photo[:96, :128], alpha=2.4, beta=-90)
    image = coded(bright, 85, 1)
    rng = np.random.default_rng(0)
    at = rng.random(image.shape[:2]) < 0.002
    image[at, 1] ^= 3
    solved, solve = [], ChromaFronts._solve
    monkeypatch.setattr(ChromaFronts, '_solve',
                        lambda self, *args: solved.append(1) or solve(self, *args))
    assert not recover(image).difference.is_none
    assert len(solved) <= 200 + 12 * 8 / 10


def test_levels_that_nothing_bounds_are_none_that_a_file_cannot_hold():
    basis, far = reduced(1e-4 * np.eye(64)), np.ones((3, 64))
    assert np.abs(nearest_plane(*basis, far)).max() == LARGEST_LEVEL
    assert np.abs(nearest_points(*basis, far, 8)).max() == LARGEST_LEVEL
