"""Batches from photos, and training on them."""
import contextlib
import itertools
import json
from functools import partialmethod

import cv2
import numpy as np
import pytest

from classifier.patches import Patches
from classifier.training.photo_source import PhotoSource
from small_training import (FRAMEWORKS, assert_same, coded_photos, half_flat,  # noqa: F401
                            history, run_photos, small_photos, small_types, torch_step)


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
