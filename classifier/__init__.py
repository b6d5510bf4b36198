"""Q1Net: the JPEG quality of an image, from its pixels.

    from classifier import Predictor
"""
import importlib
import importlib.util
import sys
from pathlib import Path

_MISSING = [name for name in ('numpy', 'cv2', 'PIL', 'h5py', 'tqdm', 'flatbuffers')
            if importlib.util.find_spec(name) is None]
if _MISSING:
    _MESSAGE = (f'{", ".join(_MISSING)} not installed for {sys.executable}; '
                "in the repository's folder, type: . ./env.sh")
    if sys.argv[0] == '-m' or Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:
        print(f'error: {_MESSAGE}', file=sys.stderr)
        sys.exit(2)
    raise ModuleNotFoundError(_MESSAGE)


def __getattr__(name):
    if name in ('Predictor', 'Prediction'):  # imported when they are asked for
        return getattr(importlib.import_module('classifier.predictor'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
