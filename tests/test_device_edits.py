"""Edits of patches on a device, as PyTorch makes them."""
import cv2
import numpy as np
import pytest
from PIL import Image

from classifier.edits import EDITED_SHARE

pytestmark = pytest.mark.extras
WINDOW, ROWS = 64, 22


@pytest.fixture
def device_edits():
    pytest.importorskip('torch').manual_seed(0)
    from classifier.training import device_edits
    return device_edits


@pytest.fixture
def windows(photo):
    """Windows from everywhere in a photo, (2000, 64, 64, 3), a tensor."""
    torch = pytest.importorskip('torch')
    every = np.lib.stride_tricks.sliding_window_view(photo, (WINDOW, WINDOW, 3))[:, :, 0]
    rows, cols = np.random.default_rng(0).integers(every.shape[:2], size=(2000, 2)).T
    return torch.tensor(every[rows, cols])


def by_opencv(kernel):
    return lambda image, side: cv2.resize(image, (side, side), interpolation=kernel)


def by_pillow(kernel):
    return lambda image, side: np.asarray(Image.fromarray(image).resize((side, side), kernel))


@pytest.mark.parametrize('kernel, antialiased, scale, resize', [
    ('TRIANGLE', False, 1.5, by_opencv(cv2.INTER_LINEAR)),
    ('TRIANGLE', False, 0.7, by_opencv(cv2.INTER_LINEAR)),
    ('SHARP_CUBIC', False, 2, by_opencv(cv2.INTER_CUBIC)),
    ('AREA', False, 0.6, by_opencv(cv2.INTER_AREA)),
    ('TRIANGLE', True, 0.5, by_pillow(Image.Resampling.BILINEAR)),
    ('CATMULL_ROM', True, 0.75, by_pillow(Image.Resampling.BICUBIC)),
    ('LANCZOS', True, 0.45, by_pillow(Image.Resampling.LANCZOS)),
    ('LANCZOS', True, 2.5, by_pillow(Image.Resampling.LANCZOS)),
    ('BOX', True, 0.5, by_pillow(Image.Resampling.BOX)),
    ('BOX', False, 0.5, by_pillow(Image.Resampling.NEAREST))])
def test_patches_are_resized_as_whole_images_are(
        device_edits, photo, kernel, antialiased, scale, resize):
    import torch
    image, side = photo[:240, :240], round(240 * scale)
    whole = resize(image, side)
    firsts = [round(side * share) - ROWS // 2 for share in (0.4, 0.45, 0.55, 0.6)]
    middles = (np.array(firsts) + ROWS / 2) / scale - 0.5
    lefts = np.rint(middles - (WINDOW - 1) / 2).astype(int)
    matrices = device_edits.resize_matrices(
        torch.full((4,), float(scale)), torch.tensor(firsts),
        torch.full((4,), getattr(device_edits, kernel)), torch.full((4,), antialiased),
        ROWS, WINDOW)
    for top, down, first_row in zip(lefts, matrices, firsts):
        found = device_edits.resample(
            torch.tensor(np.stack([image[top:top + WINDOW, left:left + WINDOW]
                                   for left in lefts])).float(),
            down.expand(4, -1, -1), matrices, torch.full((4,), antialiased)).numpy()
        wanted = np.stack([whole[first_row:first_row + ROWS, first:first + ROWS]
                           for first in firsts])
        assert np.abs(found - wanted).max() <= 1
        assert (found == wanted).mean() > 0.85  # OpenCV's fixed-point numbers are cut, not rounded


def test_of_a_patch_that_is_not_resized_the_matrix_is_the_identity(device_edits):
    import torch
    matrices = device_edits.resize_matrices(
        torch.ones(50), torch.arange(50), torch.full((50,), device_edits.BOX),
        torch.arange(50) % 2 == 0, ROWS, WINDOW)
    margin = (WINDOW - ROWS) // 2
    assert (matrices == torch.eye(WINDOW)[margin:-margin]).all()


def test_every_weight_that_a_kernel_needs_is_in_the_window(device_edits):
    import torch
    edits = device_edits.DeviceEdits(16, 'cpu')
    assert edits.window == WINDOW and edits.rows == ROWS
    number = 300
    for kernel in device_edits.KERNELS:
        args = (torch.linspace(*device_edits.SCALES, number), torch.arange(number) * 7 % 256,
                torch.full((number,), kernel), torch.arange(number) % 3 > 0, ROWS)
        wider = device_edits.resize_matrices(*args, WINDOW + 20)
        assert (wider[:, :, :10] == 0).all() and (wider[:, :, -10:] == 0).all()
        torch.testing.assert_close(wider.sum(2), torch.ones(number, ROWS))


def test_patches_that_are_not_edited_stay_as_they_are(device_edits, windows):
    patches = device_edits.DeviceEdits(16, 'cpu').draw(windows)
    middles = windows[:, 24:40, 24:40]
    same = (patches == middles).flatten(1).all(1).float().mean()
    assert patches.shape == middles.shape and patches.dtype == middles.dtype
    assert abs(1 - EDITED_SHARE - same) < 0.04


@pytest.mark.parametrize('kind', ['resized', 'blurred or sharpened', 'recoloured', 'noise',
                                  'turned'])
def test_every_edit_changes_patches_and_keeps_what_they_show(device_edits, windows, monkeypatch,
                                                             kind):
    edits, which = device_edits.DeviceEdits(16, 'cpu'), list(device_edits._WEIGHTS).index(kind)

    def chosen(number):
        import torch
        return torch.arange(5).eq(which).expand(number, 5)
    monkeypatch.setattr(edits, '_chosen', chosen)
    patches = edits.draw(windows).float()
    middles = windows[:, 24:40, 24:40].float()
    assert (patches != middles).flatten(1).any(1).float().mean() > 0.95
    brightness, before = (x.mean((1, 2, 3)).numpy() for x in (patches, middles))
    assert np.corrcoef(brightness, before)[0, 1] > 0.9
    if kind == 'turned':
        assert (patches == middles.transpose(1, 2)).all()
    if kind == 'noise':
        assert 1 < (patches - middles).std() < 3


def test_edited_patches_have_one_to_three_edits_of_which_resizing_is_the_commonest(device_edits):
    chosen = device_edits.DeviceEdits(16, 'cpu')._chosen(20_000).numpy()
    numbers = np.bincount(chosen.sum(axis=1)) / 20_000
    np.testing.assert_allclose(numbers, [0.4, 0.36, 0.18, 0.06], atol=0.02)
    assert (chosen.mean(axis=0)[0] > chosen.mean(axis=0)[1:]).all()
    alone = chosen[chosen.sum(axis=1) == 1].mean(axis=0)
    weights = np.array(list(device_edits._WEIGHTS.values()))
    np.testing.assert_allclose(alone, weights / weights.sum(), atol=0.03)
