"""Batches from photos, and training on them."""
import contextlib
import itertools
import json
from functools import partialmethod

import cv2
import numpy as np
import pytest

from classifier import edits, images, train
from classifier.patches import Patches
from classifier.training import photo_source
from classifier.training.photo_source import PhotoSource
from small_training import (FRAMEWORKS, assert_same, coded_photos, error_line,  # noqa: F401
                            half_flat, history, large_photos, run_photos, small_photos,
                            small_types, torch_step)


def test_flat_crops_are_drawn_again(half_flat):
    source = PhotoSource(half_flat, 16, chroma='mixed')
    x, _ = source.draw(1000, np.random.default_rng(0))
    assert (x == x[:, :1, :1]).all(axis=(1, 2, 3)).mean() < 0.12
    source.augment = False
    x, _ = source.draw(1000, np.random.default_rng(0))
    assert (x == x[:, :1, :1]).all(axis=(1, 2, 3)).mean() > 0.25


def test_photos_are_compressed_when_drawn_at_any_phase_and_mirrored(tmp_path):
    """Of a photo of smooth colour ramps, a crop's blocks tell their phase."""
    rows, cols = np.mgrid[:256, :256]
    cv2.imwrite(str(tmp_path / 'ramp.png'), np.stack([rows, cols, (rows + cols) // 2], -1))
    source = PhotoSource(tmp_path, 16)
    x, y = source.draw(2000, np.random.default_rng(3))
    assert x.shape == (2000, 16, 16, 3) and set(y) == set(range(1, 101))
    ramps = x[y > 90].astype(int).mean(axis=3)
    for axis in (1, 2):  # mirrored in half of the cases
        rising = np.take(ramps, 15, axis).mean(1) > np.take(ramps, 0, axis).mean(1)
        assert 0.4 < rising.mean() < 0.6
    coarse = x[y < 8, :, :, 1].astype(int)  # steps between blocks
    steps = np.abs(np.diff(coarse.mean(axis=1), axis=1)).argmax(axis=1) % 8
    assert len(set(steps)) == 8
    plain = PhotoSource(tmp_path, 16, augment=False).draw(300, np.random.default_rng(3))[0]
    assert (plain[:, :, -1].astype(int).sum() > plain[:, :, 0].astype(int).sum())


def test_batches_of_photos_depend_on_seed_and_step_alone(small_photos):
    source = PhotoSource(small_photos, 16, chroma='mixed')
    with contextlib.closing(source.batches(20, seed=3)) as batches, \
            contextlib.closing(source.batches(20, seed=3, step=2)) as later:
        whole = list(itertools.islice(batches, 5))
        for (x1, y1), (x2, y2) in zip(whole[2:], later):
            assert (x1 == x2).all() and (y1 == y2).all()
    assert not (whole[0][0] == whole[1][0]).all()
    fixed = source.fixed(50)
    parts = list(fixed.in_order(20))
    assert [len(y) for _, y in parts] == [20, 20, 10] and len(fixed) == 50
    assert_same(parts[0], [part[:20] for part in source.draw(50, np.random.default_rng(0))])


@pytest.mark.parametrize('edited', [False, True])
def test_batches_are_the_same_from_any_step_on(large_photos, monkeypatch, edited):
    """Begun in the middle of those that are mixed, and gone beyond them."""
    monkeypatch.setattr(photo_source, 'MIX_BATCHES', 4)
    source = PhotoSource(large_photos, 16, chroma='mixed', edits=edited, uncompressed=0.1)
    with contextlib.closing(source.batches(70, seed=3)) as batches:
        whole = list(itertools.islice(batches, 10))
    for step in (1, 4, 7):
        with contextlib.closing(source.batches(70, seed=3, step=step)) as later:
            for batch, again in zip(whole[step:], later):
                assert_same(batch, again)
    assert len({x.tobytes() for batch, _ in whole for x in batch}) > 600  # hardly one twice


def test_crops_of_a_shared_tile_are_drawn_like_those_of_their_own(tmp_path, monkeypatch):
    """Pixels that tell their place, and, in place of the JPEG, their phase of the block grid."""
    def phases(tile, *_):
        rows, columns = np.mgrid[:tile.shape[0], :tile.shape[1]] % 16
        return np.dstack([tile[:, :, :2], (16 * rows + columns).astype(np.uint8)])
    rows, columns = np.mgrid[:200, :256]
    cv2.imwrite(str(tmp_path / 'places.png'), np.dstack([rows, columns, rows]))
    monkeypatch.setattr(photo_source, 'compress', phases)
    source = PhotoSource(tmp_path, 16)
    monkeypatch.setattr(source, 'augment', False)  # not mirrored
    shares = []
    for cuts in (1, 16):
        x, quality = source.draw(32_000, np.random.default_rng(cuts), cuts)
        (row, column, phase), sides = x[:, 0, 0].T, (200, 256)
        assert min(row) < 14 and max(row) > 200 - 30 and min(column) < 14 and max(column) > 256 - 30
        shares.append(np.concatenate([
            *(np.histogram(place, 8, (0, side))[0] for place, side in zip((row, column), sides)),
            *(np.bincount(place, minlength=16) for place in (phase // 16, phase % 16)),
            np.histogram(quality, 5, (0, 100))[0]]) / 32_000)
    own, shared = shares
    assert np.abs(own - shared).max() < 0.02
    assert abs(shares[1][16:48] - 1 / 16).max() < 0.005  # of phases


def test_batches_mix_the_crops_of_many_tiles(large_photos, monkeypatch):
    """Those of a tile, which share its quality, lie in different batches."""
    monkeypatch.setattr(photo_source, 'draw_chroma', lambda *_: '4:2:0')
    source, tiles = PhotoSource(large_photos, 16), []
    monkeypatch.setattr(photo_source, 'compress', lambda tile, *_: (
        tiles.append(len(tiles)), np.full_like(tile, len(tiles)) + np.arange(3, dtype=np.uint8))[1])
    source.augment = False
    monkeypatch.setattr(photo_source, 'cores', lambda: 1)
    with contextlib.closing(source.batches(64, seed=0)) as batches:
        x, _ = next(batches)
    assert len(tiles) >= photo_source.MIX_BATCHES * 64 / photo_source.CUTS
    assert np.unique(x[:, 0, 0, 0], return_counts=True)[1].max() <= 5


def test_without_edits_a_seed_gives_the_patches_that_it_always_gave(small_photos):
    """The order of the random numbers: photo, place, quality, phase, chroma; then mirrorings."""
    photos = [images.read_image(path) for path in sorted(small_photos.iterdir())]
    rng, number = np.random.default_rng(7), 40
    crops, qualities = [], []
    for _ in range(number):
        photo = photos[rng.integers(2)]
        top, left = rng.integers(np.array(photo.shape[:2]) - 48 + 1)
        qualities.append(int(rng.integers(1, 101)))
        dy, dx = 8 + rng.integers(16, size=2)
        coded = images.compress(photo[top:top + 48, left:left + 48].copy(), qualities[-1],
                                images.draw_chroma('mixed', rng))
        crops.append(coded[dy:dy + 16, dx:dx + 16])
    for axis, mirrored in zip((0, 1), rng.random((2, number)) < 0.5):
        crops = [np.flip(crop, axis) if yes else crop for crop, yes in zip(crops, mirrored)]
    assert all((crop != crop[0, 0]).any() for crop in crops)  # none was drawn again
    x, y = PhotoSource(small_photos, 16, chroma='mixed').draw(number, np.random.default_rng(7))
    assert (x == crops).all() and (y == qualities).all()


def is_in(photo, crops):
    """Which crops are in a photo, at any place."""
    size = crops[0].shape
    windows = np.lib.stride_tricks.sliding_window_view(photo, size)[:, :, 0]
    windows = {window.tobytes() for row in windows for window in row}
    return np.array([any(crop[::up, ::across].tobytes() in windows for up in (1, -1)
                         for across in (1, -1)) for crop in crops])


def test_a_share_of_uncompressed_patches_is_of_the_photos_as_they_are(small_photos):
    source = PhotoSource(small_photos, 16, uncompressed=0.3)
    x, y = source.draw(400, np.random.default_rng(0))
    as_they_are = np.any([is_in(photo, x) for photo in source.photos], axis=0)
    assert 0.23 < as_they_are.mean() < 0.37
    assert (y[as_they_are] == 100).all()
    assert (y[~as_they_are] == 100).mean() < 0.05 and len(set(y[~as_they_are])) > 80


def test_a_share_of_the_patches_is_edited(large_photos):
    source = PhotoSource(large_photos, 16, edits=True, uncompressed=1)
    x, y = source.draw(150, np.random.default_rng(1))
    as_they_are = np.any([is_in(photo, x) for photo in source.photos], axis=0)
    assert (y == 100).all()
    assert 0.28 < as_they_are.mean() < 0.52  # 1 - EDITED_SHARE
    again = source.draw(150, np.random.default_rng(1))
    assert_same((x, y), again)


def test_crops_of_edited_tiles_show_nothing_of_their_borders(large_photos, monkeypatch):
    """Tiles are marked along their border, reduced the farthest, blurred and sharpened."""
    reduced = edits._scaled(0.2, 0.2)

    def marked(tile, rng, side):
        tile = tile.copy()
        tile[[0, -1]] = tile[:, [0, -1]] = 255
        changed = reduced(tile, rng)
        for kind in ('blurred', 'sharpened'):
            changed = edits.apply(kind, changed, rng)
        assert min(changed.shape[:2]) >= side
        return changed, True
    monkeypatch.setattr('classifier.training.photo_source.edited', marked)
    source = PhotoSource(large_photos, 16, edits=True, uncompressed=1, augment=False)
    source.photos = [np.full_like(photo, 90) for photo in source.photos]
    x, _ = source.draw(60, np.random.default_rng(0))
    assert (x == 90).all()


@pytest.mark.parametrize('options, reason', [
    (('--edits',), 'the training was started with edits False, not True; leave --edits as it was'),
    (('--uncompressed', '0.2'), 'started with uncompressed 0.1, not 0.2')])
def test_edits_and_uncompressed_patches_are_part_of_the_schedule(
        small_photos, tmp_path, capsys, monkeypatch, options, reason):
    monkeypatch.setattr(PhotoSource, 'fixed', partialmethod(PhotoSource.fixed, 200))
    opened = []
    monkeypatch.setattr(PhotoSource, 'draw', lambda self, *args, draw=PhotoSource.draw: (
        opened.append((self.edits, self.uncompressed)), draw(self, *args))[1])
    assert run_photos(small_photos, tmp_path, '--uncompressed', '0.1', '--epochs', '2', '--lr',
                      '1e-3', '--steps_per_epoch', '1', '--until_epoch', '1') == 0
    schedule = json.loads((tmp_path / 'out' / 'run.json').read_text())
    assert (schedule['edits'], schedule['uncompressed']) == (False, 0.1)
    assert run_photos(small_photos, tmp_path, '--resume') == 0
    assert {*opened} == {(False, 0.1)}  # the patches to validate on are of the same kind
    assert run_photos(small_photos, tmp_path, '--resume', *options) == 2
    assert reason in error_line(capsys)


def test_edits_of_hdf5_patches_are_refused(tmp_path, capsys):
    for options in (['--edits'], ['--uncompressed', '0']):
        with pytest.raises(SystemExit, match='2'):
            train.main(['--hdf5_train_path', 'a', '--hdf5_val_path', 'b', '--comp_type', 'tiny',
                        '--out_path', str(tmp_path), *options])
        assert 'are for --in_path; for HDF5 files give them to gen_data.py' in error_line(capsys)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_training_on_photos_resumes(small_photos, tmp_path, monkeypatch, request, framework):
    source = (PhotoSource if framework == 'tensorflow' else
              request.getfixturevalue('coded_photos').CodedPhotos)
    monkeypatch.setattr(source, 'fixed', partialmethod(source.fixed, 1000))
    more = ('--framework', framework)
    assert run_photos(small_photos, tmp_path, *more, '--epochs', '3', '--steps_per_epoch', '5',
                      '--lr', '1e-2', '--until_epoch', '2') == 0
    assert run_photos(small_photos, tmp_path, *more, '--resume') == 0
    rows = history(tmp_path)
    assert [row['patches'] for row in rows] == [1000, 2000, 3000]
    assert rows[-1]['val_loss'] < rows[0]['val_loss'] and rows[-1]['learning_rate'] == 0
    assert json.loads((tmp_path / 'out' / 'run.json').read_text())['chroma'] == 'mixed'


def test_patches_to_validate_on_stay_the_same():
    fixed = Patches(np.arange(5).reshape(5, 1, 1, 1), np.arange(5), 1)
    assert [list(x.ravel()) for x, _ in fixed.in_order(2)] == [[0, 1], [2, 3], [4]]
