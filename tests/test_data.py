"""Training data: how gen_data.py makes it and how training reads it."""
import contextlib
import itertools
import subprocess
import sys
import threading

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from classifier import gen_data, images
from classifier.errors import InputError
from classifier.forensics.header import read_header
from classifier.models import COMP_TYPES
from classifier.patches import PatchFile, random_crops
from conftest import REPOSITORY

PAPER = COMP_TYPES['jpeg_paper']


def generate(photo_folder, out, *more):
    return gen_data.main(['--in_path', str(photo_folder), '--num_samples', '3', '--hdf5_name',
                          'p.h5', '--comp_type', 'jpeg_paper', '--out_path', str(out), *more])


def test_every_quality_gets_the_patches_asked_for(patch_file):
    with h5py.File(patch_file) as file:
        assert file['x_noise'].shape == (3000, 24, 24, 3) and file['x_noise'].dtype == np.uint8
        assert file['y_quality'].dtype == np.uint8
        assert (np.bincount(file['y_quality'][:])[1:] == 30).all()
        assert sorted(file) == ['x_noise', 'y_quality']


def test_patches_come_from_the_compressed_image_on_the_block_grid(tmp_path, photo):
    rng = np.random.default_rng(0)
    coded = images.compress(photo, 30)
    for patch in gen_data.random_patches(coded, 20, 24, 8, rng):
        found = np.argwhere([[(coded[y:y + 24, x:x + 24] == patch).all()
                              for x in range(0, 400 - 23, 8)] for y in range(0, 300 - 23, 8)])
        assert len(found) >= 1


def test_flat_patches_are_drawn_again():
    image = np.zeros((240, 240, 3), np.uint8)
    image[:, 120:] = np.random.default_rng(1).integers(0, 256, (240, 120, 3))
    patches = gen_data.random_patches(image, 500, 24, 8, np.random.default_rng(0))
    flat = (patches == patches[:, :1, :1]).all(axis=(1, 2, 3)).mean()
    assert flat < 0.2  # without redrawing 0.46


def test_patches_are_shared_out_evenly_and_exactly():
    counts = gen_data.share_out(100 * [10] + [7], 4, np.random.default_rng(0))
    assert counts.sum(axis=0).tolist() == 100 * [10] + [7]
    assert set(counts.ravel()) == {1, 2, 3}


def test_the_same_seed_gives_the_same_file(photo_folder, tmp_path):
    for name, seed in (('a', 5), ('b', 5), ('c', 6)):
        assert generate(photo_folder, tmp_path / name, '--seed', str(seed)) == 0
    a, b, c = ((tmp_path / n / 'p.h5').read_bytes() for n in 'abc')
    assert a == b != c


def test_fewer_patches_than_images_are_shared_out_too(photo, tmp_path):
    for i in range(270):  # some get no patch at all
        cv2.imwrite(str(tmp_path / f'{i}.png'), photo[i:i + 24, i:i + 24])
    assert generate(tmp_path, tmp_path / 'out', '--num_samples', '1') == 0
    assert len(PatchFile(tmp_path / 'out' / 'p.h5', PAPER)) == 100


def test_an_interrupted_run_goes_on_to_the_same_file(photo_folder, tmp_path, monkeypatch, capsys):
    generate(photo_folder, tmp_path / 'whole')
    made = []

    def interrupted(path, *args):
        if len(made) == 2:
            raise KeyboardInterrupt
        return counted(path, *args)

    def counted(path, *args):
        made.append(path)
        return image_patches(path, *args)

    image_patches = gen_data.image_patches
    monkeypatch.setattr(gen_data, 'image_patches', interrupted)
    monkeypatch.setattr(gen_data, 'cores', lambda: 1)
    assert generate(photo_folder, tmp_path / 'halves') == 130
    assert not (tmp_path / 'halves' / 'p.h5').exists()
    assert '2 of 4 images are done' in capsys.readouterr().err
    monkeypatch.setattr(gen_data, 'image_patches', counted)
    assert generate(photo_folder, tmp_path / 'halves') == 0
    assert len(made) == 4
    assert (tmp_path / 'halves' / 'p.h5').read_bytes() == (tmp_path / 'whole' / 'p.h5').read_bytes()


def test_a_run_killed_just_before_the_renaming_is_completed(photo_folder, tmp_path):
    assert generate(photo_folder, tmp_path) == 0
    whole = (tmp_path / 'p.h5').read_bytes()
    (tmp_path / 'p.h5').rename(tmp_path / 'p.h5.part')
    assert generate(photo_folder, tmp_path) == 0
    assert (tmp_path / 'p.h5').read_bytes() == whole


def test_a_run_killed_while_it_laid_out_its_file_starts_afresh(photo_folder, tmp_path):
    assert generate(photo_folder, tmp_path) == 0
    whole = (tmp_path / 'p.h5').read_bytes()
    for kept in (0, 100, 900, 2048):
        (tmp_path / 'p.h5').unlink()
        (tmp_path / 'p.h5.part').write_bytes(whole[:kept] + bytes(len(whole) - kept))
        assert generate(photo_folder, tmp_path) == 0
        assert (tmp_path / 'p.h5').read_bytes() == whole


def test_two_runs_do_not_write_one_file(photo_folder, tmp_path, capsys):
    assert generate(photo_folder, tmp_path) == 0
    (tmp_path / 'p.h5').rename(tmp_path / 'p.h5.part')
    with h5py.File(tmp_path / 'p.h5.part', 'r+'):
        code = f"""
import sys; sys.path.insert(0, {str(REPOSITORY)!r})
from classifier import gen_data
sys.exit(gen_data.main(['--in_path', {str(photo_folder)!r}, '--num_samples', '3', '--hdf5_name',
                        'p.h5', '--comp_type', 'jpeg_paper', '--out_path', {str(tmp_path)!r}]))"""
        result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 2 and 'another run is writing' in result.stderr


def test_too_little_space_is_noticed_before_the_work(photo_folder, tmp_path, monkeypatch, capsys):
    usage = type('usage', (), {'free': 10 ** 5})
    monkeypatch.setattr(gen_data.shutil, 'disk_usage', lambda _: usage)
    assert generate(photo_folder, tmp_path) == 2
    assert 'are needed' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_jpeg_source_is_warned_about(photo, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / 'a.JPG'), photo, [cv2.IMWRITE_JPEG_QUALITY, 80])
    cv2.imwrite(str(tmp_path / 'b.jpeg'), photo, [cv2.IMWRITE_JPEG_QUALITY, 97])
    (tmp_path / 'c.png').write_text('no image')
    assert generate(tmp_path, tmp_path) == 0
    error = capsys.readouterr().err
    assert 'a.JPG: is itself a JPEG of quality 80' in error
    assert 'b.jpeg' not in error
    assert 'left out: ' in error and 'c.png: not an image' in error


def test_save_image_writes_the_compressed_images(photo, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), photo[:64, :64])
    assert generate(tmp_path, tmp_path, '--save_image') == 0
    stored = cv2.imread(str(tmp_path / 'p_images' / 'a.png_q007.png'))
    assert (stored == images.compress(photo[:64, :64].copy(), 7)).all()
    assert len(list((tmp_path / 'p_images').iterdir())) == 100


def test_a_mix_of_chroma_is_stored_and_told_from_the_default(photo, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), photo[:64, :64])
    image = photo[:64, :64].copy()
    for name in ('mixed', '4:2:0'):
        assert generate(tmp_path, tmp_path / name, '--save_image', '--chroma', name) == 0
    found = []
    for quality in range(1, 101):
        name = f'a.png_q{quality:03}.png'
        stored, default = (cv2.imread(str(tmp_path / chroma / 'p_images' / name))
                           for chroma in ('mixed', '4:2:0'))
        assert (default == images.compress(image, quality)).all()
        found += [name for name in images.MIXED
                  if (images.compress(image, quality, name) == stored).all()][:1]
    shares = {name: found.count(name) / 100 for name in images.MIXED}
    assert sum(shares.values()) == 1
    assert shares == pytest.approx(images.MIXED, abs=0.13)
    with h5py.File(tmp_path / 'mixed' / 'p.h5') as file:
        gray = (np.ptp(file['x_noise'][:], axis=3) == 0).all(axis=(1, 2))
    assert 0 < gray.mean() < 0.3


def test_the_header_of_a_jpeg_says_its_quality(photo, tmp_path):
    for quality in (1, 10, 49, 50, 51, 75, 95, 100):
        cv2.imwrite(str(tmp_path / 'a.jpg'), photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
        header = read_header(tmp_path / 'a.jpg')
        assert (header.quality, header.standard, header.subsampling) == (quality, True, '4:2:0')


def test_crops_are_drawn_for_each_patch_at_every_offset_and_mirrored_or_not():
    # A patch whose pixels say where they lie: row in blue, column in green.
    rows, cols = np.mgrid[:24, :24].astype(np.uint8)
    patches = np.tile(np.stack([rows, cols, rows], axis=-1), (8000, 1, 1, 1))
    crops = random_crops(patches, 16, np.random.default_rng(0)).astype(int)
    assert crops.shape == (8000, 16, 16, 3)
    for lines in (crops[:, :, 0, 0], crops[:, 0, :, 1]):  # from top to bottom, from left to right
        steps = np.diff(lines)
        assert (np.abs(steps) == 1).all() and (steps == steps[:, :1]).all()
        assert abs((steps[:, 0] == 1).mean() - 0.5) < 0.03
    offsets = crops[:, :, :, :2].min(axis=(1, 2))
    assert len(set(map(tuple, offsets))) == 81
    phases = np.bincount(offsets.ravel() % 8, minlength=8) / offsets.size
    assert np.abs(phases - 1 / 8).max() < 0.01  # 0 and 8 are one phase, and share its draws


def write(path, x, y, names=('x_noise', 'y_quality')):
    with h5py.File(path, 'w') as file:
        for name, data in zip(names, (x, y)):
            file[name] = data
    return path


def numbered(n, size=16):
    """Patches that carry their own number, to be followed through the shuffling."""
    x = np.zeros((n, size, size, 3), np.uint8)
    x[..., 0], x[..., 1] = (np.arange(n) // 256)[:, None, None], (np.arange(n) % 256)[:, None, None]
    return x, (np.arange(n) % 100 + 1).astype(np.uint8)


def test_a_pass_gives_every_patch_once_and_the_next_in_another_order(tmp_path):
    file = PatchFile(write(tmp_path / 'a.h5', *numbered(640)), PAPER)
    batches = file.batches(64, seed=3)
    passes = []
    for _ in range(2):
        x, y = (np.concatenate(part) for part in zip(*[next(batches) for _ in range(10)]))
        number = x[:, 0, 0, 0].astype(int) * 256 + x[:, 0, 0, 1]
        assert sorted(number) == list(range(640))
        assert (y == number % 100 + 1).all()
        passes.append(list(number))
    assert passes[0] != passes[1]


def test_batches_go_on_from_any_step(tmp_path):
    file = PatchFile(write(tmp_path / 'a.h5', *numbered(700, size=24)), PAPER)
    whole = list(itertools.islice(file.batches(64, seed=3), 39))
    for step in (1, 9, 10, 27):
        for (x1, y1), (x2, y2) in zip(whole[step:], file.batches(64, seed=3, step=step)):
            assert (x1 == x2).all() and (y1 == y2).all()


def test_what_reads_ahead_ends_with_the_training(tmp_path):
    file = PatchFile(write(tmp_path / 'a.h5', *numbered(700, size=24)), PAPER)
    before = threading.active_count()
    with contextlib.closing(file.batches(64, seed=3)) as batches:
        next(batches)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_16_px_patches_are_used_as_they_are(tmp_path):
    x, y = numbered(50)
    file = PatchFile(write(tmp_path / 'a.h5', x, y), PAPER)
    assert (np.concatenate([b for b, _ in file.in_order(20)]) == x).all()


def test_a_file_with_less_than_a_batch_is_refused(tmp_path):
    file = PatchFile(write(tmp_path / 'a.h5', *numbered(50)), PAPER)
    with pytest.raises(InputError, match='lower --batch_size to 50'):
        file.batches_per_pass(64)


X, Y = numbered(40)


@pytest.mark.parametrize('x, y, names, reason', [
    (X, Y, ('x', 'y'), 'not in it'),
    (X.astype(np.float32), Y, None, 'must be uint8'),
    (X[:, :15, :15], Y, None, '15 px, 16 px are needed'),
    (X[..., 0], Y, None, r'must be \(N, side, side, 3\)'),
    (X, np.uint8(1), None, r'y_quality \(N,\)'),
    (h5py.Empty('u1'), Y, None, r'must be \(N, side, side, 3\)'),
    (h5py.SoftLink('/gone'), Y, None, 'not in it'),
    (h5py.ExternalLink('gone.h5', '/x'), Y, None, 'not in it'),
    (X, Y.astype(np.int64), None, 'must be uint8'),
    (X, Y[:-1], None, '40 patches and 39 qualities'),
    (X[:0], Y[:0], None, '0 patches'),
    (X, Y * 0, None, 'qualities must be 1..100'),
    (X, Y + np.uint8(61), None, 'qualities must be 1..100')])
def test_a_file_of_another_kind_is_refused(tmp_path, x, y, names, reason):
    write(tmp_path / 'a.h5', x, y, *([names] if names else []))
    with pytest.raises(InputError, match=reason):
        PatchFile(tmp_path / 'a.h5', PAPER)


def test_a_damaged_file_is_refused(tmp_path, patch_file):
    (tmp_path / 'a.h5').write_bytes(patch_file.read_bytes()[:10000])
    (tmp_path / 'b.h5').write_text('text')
    for name, reason in (('a', 'not a readable'), ('b', 'not a readable'), ('c', 'no such file')):
        with pytest.raises(InputError, match=reason):
            PatchFile(tmp_path / f'{name}.h5', PAPER)


def test_a_file_damaged_in_the_middle_is_refused_before_the_work(tmp_path):
    path = tmp_path / 'a.h5'
    with h5py.File(path, 'w') as file:
        file.create_dataset('x_noise', data=X, chunks=(10, 16, 16, 3), compression='gzip')
        file['y_quality'] = Y
        at = file['x_noise'].id.get_chunk_info(2).byte_offset
    data = bytearray(path.read_bytes())
    data[at:at + 8] = b'\xff' * 8
    path.write_bytes(data)
    with pytest.raises(InputError, match='a.h5: its data cannot be read'):
        PatchFile(path, PAPER)


@pytest.mark.parametrize('name', ['x_noise', 'y_quality'])
def test_one_changed_bit_among_the_patches_is_noticed_before_the_work(tmp_path, patch_file, name):
    path = tmp_path / 'a.h5'
    data = bytearray(patch_file.read_bytes())
    with h5py.File(patch_file) as file:
        data[file[name].id.get_offset() + 1234] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match='a.h5: damaged, its data are not those that were written'):
        PatchFile(path, PAPER)


def test_an_empty_hdf5_file_and_a_folder_are_refused(tmp_path):
    h5py.File(tmp_path / 'a.h5', 'w').close()
    with pytest.raises(InputError, match='a.h5: the datasets x_noise and y_quality are not in it'):
        PatchFile(tmp_path / 'a.h5', PAPER)
    with pytest.raises(InputError, match='not a readable HDF5 file'):
        PatchFile(tmp_path, PAPER)


@pytest.mark.parametrize('name', ['p.h5', 'file/p.h5'])
def test_an_output_that_cannot_be_written_is_named_before_the_work(
        photo_folder, tmp_path, monkeypatch, capsys, name):
    (tmp_path / 'p.h5').mkdir()
    (tmp_path / 'file').touch()
    monkeypatch.setattr(gen_data, 'list_images', None)
    assert generate(photo_folder, (tmp_path / name).parent) == 2
    assert f'{name}: ' in capsys.readouterr().err


def test_oddities_among_the_sources_are_named_and_left_out(photo, tmp_path, capfd):
    cv2.imwrite(str(tmp_path / 'a.png'), photo[:40, :40])
    (tmp_path / 'b.png').symlink_to('gone')
    (tmp_path / 'c.png').mkdir()
    Image.fromarray(photo[:40, :40]).save(tmp_path / 'd.tif', save_all=True,
                                          append_images=[Image.new('RGB', (40, 40))])
    assert generate(tmp_path, tmp_path) == 0
    printed = capfd.readouterr()
    assert 'b.png: a link to gone' in printed.err and 'c.png: a folder' in printed.err
    assert printed.err.count('d.tif: holds several images') == 1
    assert 'from 2 images' in printed.out


def test_images_past_the_pixel_limit_are_left_out(photo, tmp_path, capsys):
    for name, side in (('a.png', 40), ('b.png', 41)):
        cv2.imwrite(str(tmp_path / name), photo[:side, :side])
    assert generate(tmp_path, tmp_path, '--max_pixels', '1600') == 0
    printed = capsys.readouterr()
    assert 'b.png: 41x41 is over the limit of 1,600 pixels' in printed.err
    assert 'from 1 images' in printed.out


@pytest.mark.parametrize('seed', ['-1', str(2 ** 64), str(2 ** 70)])
def test_a_seed_out_of_range_is_a_usage_error(tmp_path, capsys, seed):
    with pytest.raises(SystemExit, match='2'):
        generate(tmp_path, tmp_path, '--seed', seed)
    assert 'whole number from 0 to 4294967295' in capsys.readouterr().err


def test_patches_of_uncompressed_images_are_labelled_with_the_best_quality(photo_folder, tmp_path):
    assert generate(photo_folder, tmp_path, '--uncompressed', '40') == 0
    with h5py.File(tmp_path / 'p.h5') as file:
        assert np.bincount(file['y_quality'][:]).tolist() == [0, *99 * [3], 43]
    images_as_they_are = [images.read_image(path) for path in sorted(photo_folder.iterdir())]
    patches, quality = gen_data.image_patches(
        sorted(photo_folder.iterdir())[0], np.array(100 * [0] + [5]), 24, PAPER, '4:2:0', False,
        np.random.default_rng(0))
    windows = np.lib.stride_tricks.sliding_window_view(images_as_they_are[0], (24, 24, 3))[
        ::8, ::8, 0].reshape(-1, 24 * 24 * 3)
    assert (quality == 100).all()
    assert all((windows == patch.ravel()).all(axis=1).any() for patch in patches)


def test_edited_patches_are_others_but_as_many(photo_folder, tmp_path):
    for name, more in (('a', []), ('b', ['--edits']), ('c', ['--edits'])):
        assert generate(photo_folder, tmp_path / name, *more) == 0
    a, b, c = ((tmp_path / n / 'p.h5').read_bytes() for n in 'abc')
    assert a != b == c and len(a) == len(b)
