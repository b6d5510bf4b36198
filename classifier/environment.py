"""The machine and its libraries: cores, a quiet stderr, TensorFlow imported late.

TensorFlow takes seconds to import, so that only functions that build, train or convert a network
import it, through `import_tensorflow`.
"""
import contextlib
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

from classifier.errors import InputError

# Checkpoints are tf-keras 2 object graphs; Keras 3 does not read them.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

STDERR = threading.RLock()  # held while stderr is silenced, and by whoever writes to it
announce: Callable[[str], None] | None = None  # tells people what begins; a library is silent


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


@contextlib.contextmanager
def quiet(wait: bool = True) -> Iterator[bool]:
    """Silence what native code writes to stderr, unless TF_CPP_MIN_LOG_LEVEL asks for it.

    Newer builds of TensorFlow log before they look at that variable. One thread at a time.

    Parameters
    ----------
    wait : bool
        For another thread that holds stderr. Otherwise nothing is silenced then.

    Yields
    ------
    bool
        False if another thread holds stderr.
    """
    if not STDERR.acquire(blocking=wait):
        yield False
        return
    kept = sink = None
    try:
        if os.environ['TF_CPP_MIN_LOG_LEVEL'] == '3':
            with contextlib.suppress(OSError, AttributeError, ValueError):  # closed, or no stderr
                sys.stderr.flush()
                kept = os.dup(2)
        if kept is None:
            yield True
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield True
    finally:
        if sink is not None:
            os.dup2(kept, 2)
            os.close(sink)
        if kept is not None:
            os.close(kept)
        STDERR.release()


def import_tensorflow() -> tuple[ModuleType, ModuleType]:
    """The modules tensorflow and tf_keras, imported quietly; InputError if they are missing.

    It takes seconds, so a script says first that it begins: see `announce`.
    """
    if (announce and 'tensorflow' not in sys.modules
            and importlib.util.find_spec('tensorflow')):
        announce('loading TensorFlow')
    try:
        with quiet():
            import tensorflow
            import tf_keras
            return tensorflow, tf_keras
    except ModuleNotFoundError as error:
        raise InputError(f'this needs TensorFlow ({error}); install requirements.txt') from None
