"""Q1Net: the JPEG quality of an image, from its pixels. One idea a module; `predictor` is the door."""
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
