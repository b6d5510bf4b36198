"""What happens to pixels after a JPEG was decoded, as training and studies make it."""
import numpy as np
import pytest

from classifier import edits
from classifier.errors import InputError

SIDES = {'reduced far': (0.2, 0.45), 'reduced to a half': (0.45, 0.6),
         'reduced to two thirds': (0.6, 0.72), 'reduced a little': (0.72, 0.97),
         'enlarged a little': (1.03, 1.45), 'enlarged': (1.45, 3), 'pixels repeated': (2, 3)}


@pytest.mark.parametrize('kind', [*edits.KINDS, edits.SEVERAL])
def test_every_edit_changes_the_pixels_and_gives_an_image_again(photo, kind):
    before = photo.copy()
    for seed in range(3):
        image = edits.apply(kind, photo, np.random.default_rng(seed))
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert image.shape != photo.shape or (image != photo).any()
        assert (image == edits.apply(kind, photo, np.random.default_rng(seed))).all()
        lowest, highest = SIDES.get(kind, (0, 9))
        assert lowest - 0.01 < image.shape[0] / 300 < highest + 0.01
    assert (photo == before).all()


def test_an_unknown_edit_is_answered_with_the_known_ones(photo):
    assert edits.apply(edits.UNEDITED, photo, np.random.default_rng(0)) is photo
    with pytest.raises(InputError, match='unknown edit .crop.: choose one of .*noise'):
        edits.apply('crop', photo, np.random.default_rng(0))


def test_for_training_a_share_of_the_images_is_edited(photo):
    rng = np.random.default_rng(0)
    done = [edits.edited(photo[:48, :48], rng, 24)[1] for _ in range(400)]
    assert 0.45 < np.mean(done) < 0.65  # less than 0.6: reductions to under 24 px are not made


def test_several_edits_are_different_ones_with_one_resizing_at_most():
    rng = np.random.default_rng(0)
    resizings = {*SIDES}
    for _ in range(200):
        kinds = edits._drawn(3, rng)
        assert len(kinds) == len(set(kinds)) == 3 and len(resizings & {*kinds}) <= 1
        assert kinds == [kind for kind in edits.KINDS if kind in kinds]
