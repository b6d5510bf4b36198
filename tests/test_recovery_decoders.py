"""Recovery of what other decoders and other encoders made, and how it is stopped and measured."""
import io
import json
import pickle
import threading

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.JpegPresets import presets

from classifier import evaluate_cls, predict_cls
from classifier.forensics.search import find_lattice
from classifier.forensics.tables import standard_tables
from classifier.images import from_pillow, to_pillow
from classifier.recovery import recover as recovering
from classifier.recovery.command import look_and_recover, plan
from classifier.recovery.decoders import DECODERS, decoded
from classifier.forensics.other_dcts import fast_steps, wide_dct
from classifier.recovery.recover import recover, recover_file
from classifier.recovery.stopping import stops_others
from classifier.studies.recovery import share_interval

jpeglib = pytest.importorskip('jpeglib', reason='has no wheel for this system')
SAMPLING = {'4:4:4': 0, '4:2:2': 1, '4:2:0': 2}
ACCURATE = [d for d in DECODERS[1:] if d.dct == 'accurate']
FAST, FLOAT = (next(d for d in DECODERS if d.dct == dct and d.upsampling == 'fancy')
               for dct in ('fast', 'float'))


def jpeg(image, kind, **options):
    data = io.BytesIO()
    to_pillow(image).save(data, 'JPEG', subsampling=SAMPLING[kind], **options)
    return data.getvalue()


@pytest.fixture
def small(photo):
    return photo[:128, :160]


@pytest.mark.parametrize('decoder', DECODERS[1:], ids=lambda decoder: decoder.name)
def test_a_file_is_found_that_another_decoder_decodes_to_the_same_pixels(small, decoder):
    image = decoder.pixels(jpeg(small, '4:2:0', quality=70))
    found = recover(image)
    assert found.difference.is_none and (decoder.pixels(found.data) == image).all()
    assert found.outcome.startswith('identical by ')  # never 'identical' alone
    named = next(d for d in DECODERS if d.name == found.decoder)
    assert (named.dct, named.upsampling) == (decoder.dct, decoder.upsampling)
    assert not found.by_default.is_none


@pytest.mark.parametrize('kind', ['4:4:4', '4:2:2'])
@pytest.mark.parametrize('decoder', [FAST, FLOAT, *ACCURATE[:2]], ids=lambda decoder: decoder.name)
def test_so_it_is_with_other_chroma(small, decoder, kind):
    image = decoder.pixels(jpeg(small, kind, quality=80))
    found = recover(image)
    assert found.difference.is_none and (decoder.pixels(found.data) == image).all()


@pytest.mark.parametrize('decoder', [FAST, FLOAT], ids=lambda decoder: decoder.name)
@pytest.mark.parametrize('quality', [20, 75, 97])
def test_inverse_dcts_are_libjpeg_s_bit_for_bit(small, tmp_path, decoder, quality):
    path = tmp_path / 'gray.jpg'
    to_pillow(small).convert('L').save(path, quality=quality)
    file = jpeglib.read_dct(str(path))
    levels, table = file.Y.reshape(-1, 64), file.qt[0].ravel().astype(int)
    with decoder.at_work():
        samples = decoded(levels, decoder.steps(table)).reshape(*file.Y.shape[:2], 8, 8)
    plane = samples.transpose(0, 2, 1, 3).reshape(small.shape[:2])
    assert (plane == decoder.pixels(path.read_bytes())[..., 0]).all()


def test_a_flat_block_of_chroma_is_one_value_at_any_width():
    coefficients = np.zeros((1, 64), int)
    coefficients[0, 0] = 8 * 20
    assert (wide_dct(coefficients, 16) == 148).all() and wide_dct(coefficients, 8).shape == (1, 128)


def test_fast_steps_are_near_those_of_the_table():
    assert np.allclose(fast_steps(standard_tables()[49]), standard_tables()[49], rtol=0.03)


def test_the_command_names_the_decoder_and_what_others_see(small, tmp_path, capsys):
    path, out = tmp_path / 'a.png', tmp_path / 'a.jpg'
    cv2.imwrite(str(path), FAST.pixels(jpeg(small, '4:2:0', quality=70)))
    assert predict_cls.main([str(path), '--recover', str(out), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['recovered'] == 'identical by the fast inverse DCT'
    said = recover_file(path, out).text
    assert 'every pixel identical when decoded by the fast inverse DCT (by libjpeg-turbo' in said
    with Image.open(out) as file:
        off = (from_pillow(file) != cv2.imread(str(path))).any(axis=2).sum()
    assert f'{off:,} pixels in' in said


@pytest.mark.parametrize('kind', ['4:4:4', '4:2:0'])
@pytest.mark.parametrize('preset', ['web_high', 'medium'])
def test_tables_of_other_encoders_are_read_from_the_lattice(photo, kind, preset):
    data = jpeg(photo, kind, qtables=presets[preset]['quantization'])
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert not find_lattice(image).qualities
    found = recover(image)
    assert found.outcome == 'identical'
    with Image.open(io.BytesIO(data)) as first, Image.open(io.BytesIO(found.data)) as again:
        assert first.quantization == again.quantization


def test_chroma_of_a_crop_may_begin_8_px_off(photo):
    whole = cv2.imdecode(np.frombuffer(jpeg(photo[:160, :192], '4:2:0', quality=60), np.uint8),
                         cv2.IMREAD_COLOR)
    found = recover(np.ascontiguousarray(whole[8:]))
    assert found.outcome == 'identical at (8, 0)'


def test_pixels_and_lattice_are_found_once(small, tmp_path, monkeypatch):
    path, out = tmp_path / 'a.png', tmp_path / 'a.jpg'
    cv2.imwrite(str(path), cv2.imdecode(np.frombuffer(jpeg(small, '4:4:4', quality=70), np.uint8),
                                        cv2.IMREAD_COLOR))
    for name in ('read_image', 'find_lattice'):
        monkeypatch.setattr(recovering, name, None)
    assert predict_cls.main([str(path), '--recover', str(out)]) == 0 and out.exists()


def test_each_image_travels_with_its_own_target_alone(tmp_path):
    paths = [tmp_path / f'{number}.png' for number in range(1000)]
    targets = plan(tmp_path / 'out', paths, tmp_path)
    assert targets[7] == str(tmp_path / 'out' / '7.jpg')
    assert len(pickle.dumps((look_and_recover, str(paths[7]), targets[7]))) < 1000


def test_a_stopped_search_ends(small):
    image = cv2.imdecode(np.frombuffer(jpeg(small, '4:4:4', quality=70), np.uint8),
                         cv2.IMREAD_COLOR)
    with pytest.raises(ValueError), stops_others():
        raise ValueError
    ended = []

    def work():
        try:
            recover(image)
        except KeyboardInterrupt:
            ended.append(True)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert ended == [True]
    with stops_others():
        assert recover(image).difference.is_none


def test_the_study_is_of_a_sample_with_intervals(photo_folder, tmp_path, capsys):
    assert evaluate_cls.main(['--in_path', str(photo_folder), '--study', 'recovery', '--limit', '1',
                              '--qualities', '40', '--sample', '1', '--out_path', str(tmp_path)]
                             ) == 0
    found = json.loads((tmp_path / 'results_recovery.json').read_text())
    assert found['0,0 4:4:4 40']['cases'] == 1 and found['0,0 4:4:4 40']['whole'] == 1
    assert not list(tmp_path.glob('*.part'))
    assert '95 % interval' in capsys.readouterr().out


def test_the_interval_of_a_share_is_wilson_s():
    assert np.allclose(share_interval(10, 10), (0.7225, 1), atol=1e-3)
    assert np.allclose(share_interval(5, 10), (0.2366, 0.7634), atol=1e-3)
