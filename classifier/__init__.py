"""Q1Net: the JPEG quality of an image, from its pixels.

    from classifier import Predictor
"""
import importlib
import importlib.util
import signal
import sys
from pathlib import Path

__version__ = '1.0.0'

_IS_SCRIPT = sys.argv[:1] == ['-m'] or (
    Path(*sys.argv[:1]).resolve().parent == Path(__file__).resolve().parent)
_IS_OWN = _IS_SCRIPT and (sys.argv[0] != '-m' or any(  # not another package that imports this
    word.startswith('classifier.') for word in sys.orig_argv[1:]))
if _IS_OWN and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback, until cli.command takes over

_MISSING = [name for name in ('numpy', 'cv2', 'PIL', 'h5py', 'tqdm', 'flatbuffers')
            if importlib.util.find_spec(name) is None]
if _MISSING:
    _MESSAGE = (f'{", ".join(_MISSING)} not installed for {sys.executable}; '
                "in the repository's folder, type: . ./env.sh")
    if _IS_SCRIPT:
        print(f'error: {_MESSAGE}', file=sys.stderr)
        sys.exit(2)
    raise ModuleNotFoundError(_MESSAGE)


def __getattr__(name):
    if name in ('Predictor', 'Prediction'):  # imported when they are asked for
        return getattr(importlib.import_module('classifier.predictor'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
