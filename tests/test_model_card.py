"""The model card names the weights that are shipped."""
import re

import pytest

from classifier.checkpoints import SAVE_FOLDER, weights_digest
from conftest import REPOSITORY

CARD = (REPOSITORY / 'docs' / 'model_card.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('name', sorted(path.name for path in SAVE_FOLDER.iterdir()))
def test_the_model_card_names_the_shipped_weights(name):
    digest, = re.findall(rf'^\| `{name}`[^|]*\|[^|]*\| `(\w+)` ', CARD, re.MULTILINE)
    assert len(digest) == 12 and weights_digest(SAVE_FOLDER / name / 'best').startswith(digest)
