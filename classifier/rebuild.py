"""The JPEG file behind a picture, made by `predict_cls.py --recover` in a process of its own.

It mostly takes seconds to a minute, and can be stopped at any time:

    process = Rebuilding(Path('photo.png'), Path('photo.jpg'), max_pixels)
    for seconds in process:
        print(seconds)
    print(process.result)      # Recovered photo.jpg, every pixel identical, 38,214 bytes in ...
    process.close()
"""
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from classifier.cli import printable
from classifier.recovery.recover import FOR_THE_COMMAND_LINE

SCRIPT = Path(__file__).with_name('predict_cls.py')
SHOW_EVERY = 0.5  # seconds


class Rebuilding:
    """The command at work; iterate to wait for it, `close` to stop it.

    Parameters
    ----------
    path, out : Path
        The picture; the JPEG file, which is there in the end if every pixel of it is the picture's.
    max_pixels : int
        Larger pictures are refused.
    """

    def __init__(self, path: Path, out: Path, max_pixels: int):
        self.path, self.result, self.begun = path, '', time.monotonic()
        # A session of its own, so that Ctrl-C in a terminal reaches this process alone.
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, path, '--recover', out, '--max_pixels', str(max_pixels),
             '--quiet'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors='replace', start_new_session=True,
            env={**os.environ, 'TMPDIR': str(out.parent)})  # removed with it, if it is stopped

    def __iter__(self) -> Iterator[float]:
        """The seconds so far, twice a second until it has ended."""
        while True:
            yield time.monotonic() - self.begun
            try:
                output = self.process.communicate(timeout=SHOW_EVERY)
                break
            except subprocess.TimeoutExpired:
                pass
        lines = ''.join(output).splitlines() or [f'ended with status {self.process.returncode}']
        said = lines[-1].removeprefix(f'{printable(self.path)}: ')
        said = said.removesuffix(FOR_THE_COMMAND_LINE)
        self.result = f'{said[:1].upper()}{said[1:]}.'

    def stop(self) -> None:
        """End it and all that it has started, whichever thread waits for it."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """End it, and let go of it."""
        self.stop()
        with self.process:  # closes the pipes
            pass
