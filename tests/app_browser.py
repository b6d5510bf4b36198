"""The page of app.py in a real browser: for its tests and for its picture in the README."""
import contextlib
import os
import shutil
import socket
import subprocess
import sys

from conftest import CLASSIFIER, heeds_ctrl_c

# Runs a script that must not look for, or connect to, another machine.
SEALED = """
import runpy, sys
def hook(event, args):
    if event == 'socket.getaddrinfo':
        host = args[0]
    elif event == 'socket.connect' and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if host not in (None, '127.0.0.1', '::1', 'localhost', b'127.0.0.1'):
        print('sealed:', event, args, file=sys.stderr, flush=True)
        raise PermissionError(event)
sys.addaudithook(hook)
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition('/')[0]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
BROWSERS = 'chromium', 'chromium-browser', 'google-chrome'  # else Playwright's own


def free_port():
    """A port of this machine that nobody listens at."""
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def served(folder):
    """app.py at work, forbidden to reach another machine: its process, and the page's address.

    What it puts into temporary files is in that folder.
    """
    port = free_port()
    process = subprocess.Popen([sys.executable, '-c', SEALED, CLASSIFIER / 'app.py',
                                '--no_browser', '--port', str(port)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {'TMPDIR': str(folder)}, preexec_fn=heeds_ctrl_c)
    try:
        line = process.stdout.readline()
        assert f':{port} ' in line, line + process.stderr.read()
        yield process, f'http://127.0.0.1:{port}'
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def browser():
    """A headless Chromium of Playwright's; `playwright.sync_api.Error` if none starts."""
    from playwright.sync_api import sync_playwright
    installed = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=installed, args=['--no-sandbox'])
        try:
            yield one
        finally:
            one.close()


def choose(tab, *paths):
    """Give files to the page as its file dialog does."""
    tab.set_input_files('#pictures input[type=file]', [str(path) for path in paths])


def sentence(tab, of):
    """The sentence that is shown, once the page shows the picture of that name."""
    tab.wait_for_function('name => document.querySelector(".card")?.innerText.startsWith(name)',
                          arg=of)
    return tab.inner_text('.said')
