"""The likeliest phases of the block grid, and the blocks near a lattice: the same as one by one."""
import cv2
import numpy as np
import pytest

from classifier.forensics import grid_phases
from classifier.forensics.blocks import DCT2, Blocks, get_blocks
from classifier.forensics.exact_blocks import exact_blocks, table_evidence
from classifier.forensics.grid_phases import PHASE_SIDE, likely_phases, phase_shares
from classifier.forensics.inverse_dct import inverse_dct
from classifier.forensics.near_lattice import near_lattice
from classifier.forensics.scores import PIXEL_ERROR, exact_scores
from classifier.forensics.tables import standard_tables
from classifier.images import compress


def test_shares_are_those_of_the_blocks_at_each_phase(photo):
    luma = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    windows = np.stack([luma[y:y + PHASE_SIDE, x:x + PHASE_SIDE] for y in range(0, 200, 30)
                        for x in range(0, 300, 40)])
    shares = phase_shares(windows)
    assert shares.shape == (2, len(windows), 8, 8)
    for dy, dx in ((0, 0), (3, 5), (7, 1)):
        part = windows[:, dy:dy + 8, dx:dx + 8].reshape(-1, 64).astype(np.float32) - 128
        c = np.abs(part @ DCT2.T)
        assert np.abs(shares[0, :, dy, dx] - (c < 0.7).sum(axis=1)).max() <= 1
        whole = np.where(c > 1, 1 - 8 * np.square(c - np.rint(c)), 0).sum(axis=1)
        on_the_edge = (np.abs(c - 1) < 1e-3).sum(axis=1)
        assert (np.abs(shares[1, :, dy, dx] - whole) <= 0.01 + on_the_edge).all()


@pytest.mark.parametrize('dy, dx', [(0, 0), (3, 5), (7, 1)])
def test_the_phase_of_a_coarse_jpeg_comes_first_and_is_not_compared_with_others(
        photo, dy, dx, monkeypatch):
    phases = likely_phases(compress(photo, 60)[8 - dy:, 8 - dx:])
    looked_at = []
    monkeypatch.setattr(grid_phases, 'phase_shares',
                        lambda luma: looked_at.append(len(luma)) or phase_shares(luma))
    assert next(phases) == (dy, dx) and looked_at == [grid_phases.FIRST]
    others = list(phases)
    assert sum(looked_at) == grid_phases.PATCHES  # now they are, and no window twice
    assert (dy, dx) not in others and len(set(others)) == len(others) == 3


def test_of_a_small_image_many_phases_are_tried(photo):
    phases = list(likely_phases(compress(photo, 90)[:48, :64]))
    assert len(set(phases)) == len(phases) > 30
    assert list(likely_phases(np.full((64, 64, 3), 7, np.uint8))) == [(0, 0)]  # nothing to be seen


def test_near_a_lattice_are_the_blocks_within_that_distance(photo):
    coefficients = get_blocks(photo, 0, 0).coefficients[::40]
    tables = standard_tables()[::9]
    always = np.arange(len(coefficients)) == 2
    table, block, levels = near_lattice(coefficients, tables, 50.0, always)
    all_levels = np.rint(coefficients / tables[:, None].astype(np.float32))
    distance = np.square(all_levels * tables[:, None] - coefficients).sum(axis=2)
    expected = np.nonzero((distance <= 50) | always)
    assert (table == expected[0]).all() and (block == expected[1]).all() and 0 < len(table)
    assert (levels == all_levels[expected]).all()
    assert len(near_lattice(coefficients[:0], tables, 50.0)[0]) == 0


@pytest.mark.parametrize('quality', [10, 50, 75, 90, 97, 100])
def test_no_exact_block_is_left_out(photo, quality):
    """Of a JPEG's blocks and of others, bright and dark ones, whose samples are cut off, too."""
    rng = np.random.default_rng(quality)
    tables = standard_tables()
    blocks = get_blocks(compress(photo, quality), 0, 0)
    levels = np.rint(rng.laplace(0, 40, (200, 64)) / tables[quality - 1]).astype(int)
    levels[:, 0] = rng.integers(-1100, 1100, 200) // tables[quality - 1][0]
    luma = inverse_dct(levels * tables[quality - 1]).astype(np.float32) - 128
    made = Blocks(luma, luma @ DCT2.T, np.zeros(0, int), luma[:0])
    for some in (blocks, made):
        exact = exact_blocks(some, tables)[1].sum(axis=1)
        assert exact[quality - 1] > 0
        assert (table_evidence(some, tables, np.zeros(100), 10 ** 6).exact == exact).all()


def test_scores_of_blocks_explained_to_the_pixel_are_those_of_all_pairs(photo):
    tables = standard_tables()
    luma = get_blocks(compress(cv2.GaussianBlur(photo, (0, 0), 5), 60), 0, 0).luma[:60]
    blocks = Blocks(luma, luma @ DCT2.T, np.zeros(0, int), luma[:0])
    steps = tables.astype(np.float32)[:, None]
    level = np.rint(blocks.coefficients / steps)
    explained = np.abs(luma - (level * steps) @ DCT2).max(axis=2) <= PIXEL_ERROR
    ac, dc = exact_scores(blocks, tables)
    assert ac.max() > 0
    assert not (ac + dc)[~explained.any(axis=1)].any()
