"""Network, loss, sampling grid, fusion and weights, against the paper and its figures."""
import numpy as np
import pytest

import models
from conftest import TINY, TINY_WEIGHTS
from models import (COMP_TYPES, InputError, Predictor, build_network, confidence_loss,
                    extract_patches, fuse, get_comp_type, grid_positions, load_network)

PAPER = COMP_TYPES['jpeg_paper']


@pytest.mark.parametrize('name, parameters', [('jpeg_paper', 125_234), ('jpeg_paper_k12', 279_578)])
def test_the_networks_have_the_published_sizes(name, parameters):
    network = build_network(COMP_TYPES[name])
    assert network.count_params() == parameters
    assert network.input_shape == (None, 16, 16, 3)
    assert network.output_shape == (None, 2)


def test_every_unpadded_convolution_takes_two_pixels():
    sides = [layer.output_shape[1] for layer in build_network(PAPER).layers
             if type(layer).__name__ == 'Conv2D' and layer.padding == 'valid'
             and layer.kernel_size == (3, 3)]
    assert sides == [14, 12, 10, 8, 6, 4, 2]


def test_confidence_and_quality_stay_within_0_and_100():
    network = build_network(TINY)
    rng = np.random.default_rng(0)
    output = network(rng.uniform(0, 255, (64, 16, 16, 3)).astype('float32')).numpy()
    assert output.min() >= 0 and output.max() <= 100


def test_batch_normalisation_has_the_published_constants():
    found = {(layer.momentum, layer.epsilon) for layer in build_network(TINY).layers
             if type(layer).__name__ == 'BatchNormalization'}
    assert found == {(0.9, 1e-5)}


def test_the_loss_of_a_hand_worked_example():
    # Q* = 50, Q = 47: error 3, C* = 97; C = 90: 0.5 * 7 + 3 = 6.5
    # Q* = 10, Q = 30: error 20, C* = 80; C = 85: 0.5 * 5 + 20 = 22.5
    loss, error = confidence_loss(np.array([50, 10], np.uint8),
                                  np.array([[90, 47], [85, 30]], np.float32))
    assert loss.numpy() == pytest.approx([6.5, 22.5])
    assert error.numpy() == pytest.approx([3, 20])


def test_no_gradient_flows_through_the_confidence_target():
    import tensorflow as tf
    output = tf.constant([[90.0, 47.0], [85.0, 30.0]])
    with tf.GradientTape() as tape:
        tape.watch(output)
        loss, _ = confidence_loss([50, 10], output)
    # d/dC = 0.5 sign(C - C*); d/dQ = sign(Q - Q*): -1 and 1. Through C* the latter
    # would become -0.5 and 0.5 or -1.5 and 1.5.
    assert tape.gradient(loss, output).numpy().tolist() == [[-0.5, -1.0], [0.5, 1.0]]


@pytest.mark.parametrize('size', [24, 31, 32, 64, 100, 128, 151, 152, 256, 321, 768, 1000, 2040])
def test_the_grid_is_the_published_one(size):
    n = (8 * (size // 8) - 24) // 8 + 1
    expected = sorted({int((i + 1) * n / 17) * 8 + 4 for i in range(16)})
    assert grid_positions(size, PAPER).tolist() == expected


@pytest.mark.parametrize('size', range(16, 400))
def test_patches_lie_inside_the_image_and_are_different(size):
    for varied in (False, True):
        found = grid_positions(size, PAPER, varied)
        assert 1 <= len(found) <= 16 and len(set(found)) == len(found)
        assert found.min() >= 0 and found.max() + 16 <= size


def test_varied_patches_are_many_and_show_all_phases_of_the_block_grid():
    for size in range(32, 400):
        found = grid_positions(size, PAPER, varied=True)
        assert len(found) == 16 and (np.bincount(found % 8) == 2).all()


def test_a_patch_holds_one_whole_coding_block():
    assert all(p % 8 == 4 for p in grid_positions(768, PAPER))


def test_an_image_under_16_px_is_refused():
    with pytest.raises(InputError, match='15 px is too small'):
        grid_positions(15, PAPER)


def test_patches_are_cut_where_the_grid_says(photo):
    patches = extract_patches(photo, PAPER)
    rows, cols = grid_positions(photo.shape[0], PAPER), grid_positions(photo.shape[1], PAPER)
    assert patches.shape == (256, 16, 16, 3) and patches.dtype == np.uint8
    for i, j in [(0, 0), (0, 15), (7, 3), (15, 15)]:
        expected = photo[rows[i]:rows[i] + 16, cols[j]:cols[j] + 16]
        assert (patches[16 * i + j] == expected).all()


def test_varied_patches_are_of_all_four_kinds_at_all_phases_in_every_part_of_the_grid(photo):
    rows, cols = (grid_positions(side, PAPER, varied=True) for side in photo.shape[:2])
    plain = np.array([photo[y:y + 16, x:x + 16] for y in rows for x in cols])
    kinds = [plain, plain[:, ::-1], plain[:, :, ::-1], plain[:, ::-1, ::-1]]
    varied = extract_patches(photo, PAPER, varied=True)
    same = np.array([(varied == kind).all(axis=(1, 2, 3)) for kind in kinds])
    assert (same.sum(axis=0) == 1).all()
    for part in models.grid_parts(PAPER):
        assert (same[:, part].sum(axis=1) == 8).all()
        for starts, numbers in zip((rows, cols), np.unravel_index(part, (16, 16))):
            assert (np.bincount(starts[numbers] % 8) == 4).all()


def test_every_phase_is_seen_mirrored_and_not():
    for together in models.MIRRORED:
        seen = set(zip(models.varied_phase(np.arange(16)),
                       models.varied_mirroring(np.arange(16), together)))
        assert len(seen) == 16


def test_a_predictor_varies_patches_for_the_likelihood_alone(photo):
    for fusion, varied in (('median', False), ('likelihood', True)):
        patches = Predictor('jpeg_paper', fusion=fusion).cut(photo)
        assert (patches == extract_patches(photo, PAPER, varied)).all()


def test_the_fused_quality_is_the_median_of_the_confident_patches():
    output = np.array([[97, 10], [96.5, 20], [99, 40], [96, 90], [50, 95]])
    assert fuse(output, 96) == models.Prediction(20.0, 3, 5)  # 96 itself is not above 96


def test_without_a_confident_patch_the_best_quality_is_assumed():
    assert fuse(np.array([[50.0, 10.0]]), 96) == models.Prediction(100.0, 0, 1)


def spread_output(quality, patches=100, seed=0):
    """Outputs of patches of that quality: sure ones close to it, unsure ones anywhere."""
    rng = np.random.default_rng(seed)
    error = rng.uniform(1, 25, patches)
    return np.stack([100 - error, np.clip(quality + error * rng.normal(0, 1, patches) / 2, 0, 100)],
                    axis=1)


@pytest.fixture(scope='module')
def likelihood():
    return models.patch_likelihood(np.stack(
        [models.patch_counts(spread_output(q, 4000, q)) for q in range(1, 101)]))


def judge(output, likelihood, threshold=80):
    return fuse(output, threshold, 100, models.patch_evidence(output, likelihood))


@pytest.mark.parametrize('quality', [5, 30, 62, 88, 97])
def test_the_likelihood_names_the_quality_that_its_patches_came_from(likelihood, quality):
    found = judge(spread_output(quality, seed=1000), likelihood)
    assert abs(found.network_quality - quality) < 1
    assert 0 < found.uncertainty < 1 and found.patches == 100
    few = judge(spread_output(quality, 10, seed=1000), likelihood)
    assert few.uncertainty > found.uncertainty


def test_the_likelihood_removes_a_bias_of_the_patches():
    """Patches that answer 10 too low at every quality from 11 on."""
    def output(quality, seed):
        shifted = spread_output(quality, 2000, seed)
        shifted[:, 1] = np.clip(shifted[:, 1] - 10, 0, 100)
        return shifted
    likelihood = models.patch_likelihood(np.stack(
        [models.patch_counts(output(q, q)) for q in range(1, 101)]))
    assert abs(judge(output(60, 500), likelihood).network_quality - 60) < 1
    assert abs(fuse(output(60, 500), 80).network_quality - 50) < 1


def test_a_likelihood_without_a_confident_patch_still_gives_the_best_quality(likelihood):
    found = judge(spread_output(40), likelihood, 100)
    assert (found.network_quality, found.confident_patches, found.uncertainty) == (100, 0, None)


def test_many_unsure_patches_do_not_outvote_a_few_sure_ones(likelihood):
    """Flat areas answer all the same, whatever the quality."""
    flat = np.tile([models.SPEAKING[0] - 1, 20.0], (200, 1))
    sure = spread_output(75, 56)
    sure = sure[sure[:, 0] > 80]
    assert judge(np.concatenate([flat, sure]), likelihood).network_quality == \
        judge(sure, likelihood).network_quality == pytest.approx(75, abs=1)


def test_where_no_patch_says_anything_the_median_answers(likelihood):
    """Of weights that were trained for a short time, which are never sure."""
    unsure = np.array([[85.0, 40], [86, 50], [87, 60], [50, 99]])
    assert judge(unsure, likelihood) == fuse(unsure, 80) == models.Prediction(50.0, 3, 4)


def test_the_evidence_follows_the_answers_without_a_jump(likelihood):
    output = np.concatenate([spread_output(62, 256), [[c, 55] for c in models.SPEAKING]])
    rng = np.random.default_rng(5)
    answer = judge(output, likelihood).network_quality
    for _ in range(20):
        moved = output + rng.uniform(-1e-3, 1e-3, output.shape)
        assert abs(judge(moved, likelihood).network_quality - answer) < 0.005


def test_fewer_patches_of_an_image_weigh_more_each_but_say_less():
    shares = np.array([0.25, 0.5, 0.75, 1])
    counted = models.evidence_counted(np.zeros((512, 768, 3), np.uint8), shares)
    assert counted[-1] == pytest.approx(models.EVIDENCE_SHARE)
    assert (np.diff(counted) < 0).all() and (np.diff(counted * shares) > 0).all()


def test_in_smaller_images_patches_have_more_in_common():
    counted = [models.evidence_counted(np.zeros((side, side, 3), np.uint8))
               for side in (32, 64, 256, 512, 1024)]
    whole = models.EVIDENCE_SHARE
    assert counted == pytest.approx([whole / 16, whole / 8, whole / 2, whole, whole])


def test_in_small_images_patches_overlap(photo):
    small = [photo[:side, :side] for side in (16, 24, 32, 64)]
    found = Predictor('jpeg_paper', patches='all').predict_all(small)
    assert [p.patches for p in found] == [1, 64, 256, 256]


# ---------------------------------------------------------------- stopping early

def stage(quality, lead, patches, uncertainty=0.5):
    return lead, lambda: models.Prediction(quality, patches, patches, uncertainty)


def test_the_parts_of_the_grid_are_spread_over_all_of_it():
    parts = models.grid_parts(PAPER)
    assert sorted(np.concatenate(parts)) == list(range(256))
    for i, part in enumerate(parts):
        assert len(part) == 32
        quarters = np.unravel_index(part, (16, 16))[0] // 8 * 2 + \
            np.unravel_index(part, (16, 16))[1] // 8
        assert (np.bincount(quarters) == 8).all()
        if i % 2:  # with the one before it, every other row and column
            both = np.unravel_index(np.concatenate(parts[i - 1:i + 1]), (16, 16))
            assert all(set(np.diff(np.unique(axis))) == {2} for axis in both)


def test_the_lead_grows_with_the_evidence_and_with_the_share_of_the_patches():
    rng = np.random.default_rng(0)
    evidence = rng.normal(0, 1, (100, 64))
    evidence[41] += 1
    few, many = models.lead(evidence, 0.25), models.lead(np.tile(evidence, 3), 0.75)
    assert 1 < few < many < models.lead(evidence, 1) == np.inf
    evidence[70] = evidence[41] + rng.normal(0, 1, 64)  # a rival: the rest may decide for either
    assert models.lead(evidence, 0.25) < 0.5 * few


def test_a_lead_says_how_often_the_other_patches_change_the_best_quality():
    """Two qualities in question, 64 of 256 patches, leads of 1 to 2."""
    rng = np.random.default_rng(1)
    kept = []
    for _ in range(4000):
        evidence = np.stack([np.zeros(256), rng.normal(rng.normal(0, 0.5), 1, 256)])
        if 1 < models.lead(evidence[:, :64], 0.25) < 2:
            first, last = (part.sum(axis=1).argmax() for part in (evidence[:, :64], evidence))
            kept.append(first == last)
    assert 0.88 < np.mean(kept) < 0.96  # so often is a normal deviate below 1 to 2


def test_no_stage_is_taken_once_the_answer_is_settled():
    stages = iter([stage(20, models.SETTLED, 64), stage(90, 9, 128)])
    assert models.settle(stages) == stage(20, 0, 64)[1]()
    assert next(stages)[1]().patches == 128


def test_an_answer_that_stays_open_is_that_of_all_patches():
    def settled(*stages):
        return models.settle(stages), stages[-1][1]()
    for found, last in (
            settled(*(stage(20 + i, 0.5 * i, 64 + 64 * i) for i in range(3)),
                    stage(23, np.inf, 256)),
            settled(stage(100, np.inf, 64, None), stage(100, np.inf, 128, None)),
            settled(stage(100, np.inf, 64, None), stage(50, np.inf, 128))):
        assert found == last


def test_between_settled_and_open_the_answer_does_not_jump():
    leads = np.arange(models.SETTLED + 0.02, models.SETTLED - models.BAND - 0.02, -1e-3)
    answers = [models.settle([stage(20, n, 64), stage(20.6, n + 0.1, 128, 0.4),
                              stage(21, np.inf, 192, 0.2)]) for n in leads]
    quality = np.array([a.network_quality for a in answers])
    assert quality[0] == 20 and quality[-1] > 20.8 and (np.diff(quality) >= 0).all()
    assert np.diff(quality).max() < 0.005
    assert {a.patches for a in answers} == {64, 128, 192}
    assert np.abs(np.diff([a.uncertainty for a in answers])).max() < 0.005


def test_a_damaged_likelihood_file_is_named(tmp_path):
    path = tmp_path / models.LIKELIHOOD_FILE
    assert models.stored_likelihood(tmp_path) is None
    with pytest.raises(InputError, match='likelihood.npz: missing'):
        models.stored_likelihood(tmp_path, required=True)
    for damaged in (b'', b'PK\x03\x04 no zip', b'\x80\x04.'):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match='likelihood.npz: missing or damaged'):
            models.stored_likelihood(tmp_path)
    np.savez(path, log_likelihood=np.zeros((100, 2, 101)))
    with pytest.raises(InputError, match='likelihood.npz: missing or damaged'):
        models.stored_likelihood(tmp_path)


def test_an_unknown_type_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match='jpeg_paper, jpeg_paper_k12'):
        get_comp_type('webp')


def test_a_checkpoint_and_its_outputs_agree():
    """tests/data/tiny was written by this project's network with K = 1 and random weights,
    BN statistics included: `python3 tests/make_tiny.py`."""
    stored = np.load(TINY_WEIGHTS / 'io.npz')
    output = load_network(TINY, TINY_WEIGHTS)(stored['x'].astype(np.float32)).numpy()
    assert np.abs(output - stored['y']).max() < 1e-3
    assert output.std(axis=0).min() > 1e-2  # the outputs do depend on the patch


def test_the_tensors_are_stored_under_the_reference_s_names():
    import tensorflow as tf
    reader = tf.compat.v1.train.NewCheckpointReader(str(TINY_WEIGHTS) + '/')
    names = reader.get_variable_to_shape_map()
    weighted = {n.split('/')[0] for n in names if n.startswith('layer_with_weights')}
    # 6 stages of 4 convolutions and 4 normalisations, one convolution, one dense layer
    assert weighted == {f'layer_with_weights-{i}' for i in range(50)}
    assert names['layer_with_weights-48/kernel/.ATTRIBUTES/VARIABLE_VALUE'] == [3, 3, 2, 1]
    assert names['layer_with_weights-49/kernel/.ATTRIBUTES/VARIABLE_VALUE'] == [1, 2]


def tiny_copy(folder):
    for path in TINY_WEIGHTS.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_weights_that_are_missing_are_named(tmp_path):
    with pytest.raises(InputError, match='no weights there'):
        load_network(TINY, tmp_path)


@pytest.mark.parametrize('name', ['.index', '.data-00000-of-00001'])
def test_a_missing_part_of_the_weights_is_named(tmp_path, name):
    (tiny_copy(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=rf'no weights there \({name} is missing\)'):
        load_network(TINY, tmp_path)


def test_weights_of_another_type_are_named(monkeypatch):
    monkeypatch.setitem(COMP_TYPES, 'tiny', TINY)
    with pytest.raises(InputError, match='not of jpeg_paper; they fit --comp_type tiny'):
        load_network(PAPER, TINY_WEIGHTS)


def test_a_git_lfs_pointer_is_no_weights(tmp_path):
    tiny_copy(tmp_path)
    (tmp_path / '.data-00000-of-00001').write_text('version https://git-lfs.github.com/spec/v1\n')
    with pytest.raises(InputError, match='Git LFS pointer'):
        load_network(TINY, tmp_path)


@pytest.mark.parametrize('name', ['.index', '.data-00000-of-00001'])
def test_a_truncated_checkpoint_is_refused(tmp_path, name):
    path = tiny_copy(tmp_path) / name
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    with pytest.raises(InputError, match='damaged checkpoint'):
        load_network(TINY, tmp_path)


@pytest.mark.parametrize('name', ['.index', '.data-00000-of-00001'])
def test_a_checkpoint_mixed_from_two_is_refused(tmp_path, name):
    build_network(TINY, 1).save_weights(f'{tmp_path}/', save_format='tf')
    (tmp_path / name).write_bytes((TINY_WEIGHTS / name).read_bytes())
    with pytest.raises(InputError, match='damaged checkpoint'):
        load_network(TINY, tmp_path)


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    network = build_network(TINY)
    network.set_weights([np.full_like(w, np.nan) for w in network.get_weights()])
    network.save_weights(f'{tmp_path}/', save_format='tf')
    with pytest.raises(InputError, match='not finite'):
        load_network(TINY, tmp_path)


def test_the_threshold_beside_the_weights_counts(tmp_path):
    assert models.stored_threshold(PAPER, tmp_path) == 96
    (tmp_path / 'threshold.txt').write_text('93.5\n')
    assert models.stored_threshold(PAPER, tmp_path) == 93.5
    (tmp_path / 'threshold.txt').write_text('high\n')
    with pytest.raises(InputError, match='not a confidence threshold'):
        models.stored_threshold(PAPER, tmp_path)
