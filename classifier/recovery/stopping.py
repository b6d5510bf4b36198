"""Work of other threads that ends soon after Ctrl-C.

    with stops_others():      # around what collects the work
        ...
    check()                   # in the work, now and then
"""
import contextlib
import threading
from collections.abc import Iterator

_STOPPED = threading.Event()


@contextlib.contextmanager
def stops_others() -> Iterator[None]:
    """If this ends by an exception, threads that `check` end, too."""
    _STOPPED.clear()
    try:
        yield
    except BaseException:
        _STOPPED.set()
        raise


def check() -> None:
    """Raise KeyboardInterrupt where the work is no longer wanted."""
    if _STOPPED.is_set():
        raise KeyboardInterrupt
