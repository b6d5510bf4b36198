"""The page of app.py in a real browser, headless Chromium driven by Playwright.

Where gradio, playwright or a browser is not installed, what needs them is skipped:

    python3 -m pip install gradio playwright -c requirements.txt
    python3 -m playwright install chromium
"""
import base64
import csv
import importlib.util
import json
import signal
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest

from app_browser import browser, choose, free_port, sentence, served
from classifier.images import compress
from conftest import CLASSIFIER, PRISTINE, REPOSITORY, SAMPLES

APP = str(CLASSIFIER / 'app.py')
EXACT = SAMPLES / 'earth_jpeg_q75_crop3x5.png'
WITHOUT_GRADIO = ('import runpy, sys; sys.modules["gradio"] = None; sys.argv = sys.argv[1:]; '
                  'runpy.run_path(sys.argv[0], run_name="__main__")')
MISSING = [name for name in ('gradio', 'playwright') if importlib.util.find_spec(name) is None]
PUT = """([selector, type, name, data]) => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name));
    const what = {bubbles: true, cancelable: true, dataTransfer: files, clipboardData: files};
    const event = type == 'drop' ? new DragEvent(type, what) : new ClipboardEvent(type, what);
    document.querySelector(selector).dispatchEvent(event);
}"""

SHOWN = """numbers => {
    const cells = [...document.querySelectorAll('#table [role=gridcell][data-col="3"]')];
    const shown = cells.map(cell => cell.innerText.trim()).filter(text => text);
    return JSON.stringify(shown) == JSON.stringify(numbers);
}"""  # whether the column of qualities is shown in that order

DRAWING = "document.querySelector('#status').innerText.includes('%')"


def needs(*names):
    lacking = [name for name in names if name in MISSING]
    return pytest.mark.skipif(bool(lacking), reason=f'not installed: {", ".join(lacking)}')


@pytest.fixture(scope='module')
def chromium():
    from playwright.sync_api import Error
    try:
        opened = browser()
        one = opened.__enter__()
    except Error as error:
        pytest.skip(f'no browser starts: {str(error).strip().splitlines()[0]}')
    yield one
    opened.__exit__(None, None, None)


@pytest.fixture(scope='module')
def address(chromium, tmp_path_factory):
    """The page's address; it must have reached no other machine, end cleanly, and leave no file."""
    folder = tmp_path_factory.mktemp('temporary')
    with served(folder) as (process, url):
        yield url
        assert list(folder.rglob('*'))
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert (out, errors) == ('', 'app.py: stopped\n')
        assert not list(folder.iterdir())


@pytest.fixture
def tab(chromium, address):
    """The page, opened; in the end, all that it asked for must have come from this machine."""
    with chromium.new_context(viewport={'width': 1000, 'height': 800}) as context:
        page, asked, errors = context.new_page(), [], []
        page.set_default_timeout(60_000)
        page.on('request', lambda request: asked.append(request.url))
        page.on('pageerror', lambda error: errors.append(error))
        page.goto(address)
        yield page
        assert len(asked) > 10 and not errors
        assert not [url for url in asked if not url.startswith((address, 'data:', 'blob:'))]


def put(tab, selector, kind, path):
    """Drop or paste a file."""
    tab.wait_for_selector('#pictures input[type=file]', state='attached')
    tab.evaluate(PUT, [selector, kind, path.name, base64.b64encode(path.read_bytes()).decode()])


def map_size(tab):
    """Width and height of the quality map, once it is there."""
    tab.wait_for_selector('#map img')
    tab.wait_for_function("document.querySelector('#map img').naturalWidth > 0")
    return tab.evaluate("(i => [i.naturalWidth, i.naturalHeight])"
                        "(document.querySelector('#map img'))")


# ---------------------------------------------------------------- without a browser

def test_without_gradio_one_line_says_how_to_install_it():
    result = subprocess.run([sys.executable, '-c', WITHOUT_GRADIO, APP], capture_output=True,
                            text=True)
    assert result.returncode == 2 and result.stdout == ''
    line, = result.stderr.splitlines()
    assert line.startswith('app.py: error: the page needs Gradio')
    assert 'python3 -m pip install -U gradio -c requirements.txt' in line


def test_help_needs_no_gradio(tmp_path):
    result = subprocess.run([sys.executable, '-c', WITHOUT_GRADIO, APP, '--help'],
                            capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0 and result.stderr == ''
    assert 'python3 classifier/app.py --port' in result.stdout


@needs('gradio')
@pytest.mark.extras
def test_a_port_that_is_taken_is_one_line():
    with socket.socket() as other:
        other.bind(('127.0.0.1', free_port()))
        other.listen()
        port = other.getsockname()[1]
        result = subprocess.run([sys.executable, APP, '--no_browser', '--port', str(port)],
                                capture_output=True, text=True, timeout=120)
    assert result.returncode == 2 and result.stdout == ''
    assert result.stderr == (f'app.py: error: port {port} is taken, or not allowed; choose another '
                             'one: --port N\n')


# ---------------------------------------------------------------- in a browser

@pytest.mark.extras
@needs('gradio', 'playwright')
class TestInABrowser:
    def test_a_picture_dropped_gets_its_sentence_first_and_then_its_map(self, tab):
        put(tab, '#pictures button', 'drop', EXACT)
        assert sentence(tab, EXACT.name) == 'This PNG was a JPEG of quality 75, exactly.'
        facts = tab.inner_text('.facts')
        assert '1,200 of 1,200' in facts and '(5, 3), 4:2:0' in facts
        width, height = map_size(tab)
        assert width > 600 and height > 200
        with tab.expect_download() as download:
            tab.click('#files a')
        assert download.value.suggested_filename == f'{EXACT.stem}_map.png'
        assert cv2.imread(str(download.value.path())).shape[:2] == (height, width)

    def test_a_picture_pasted_is_taken_too_with_its_own_name_and_header(self, tab, tmp_path):
        path = tmp_path / 'twice <b>#1 & "2" ü.jpg'
        path.write_bytes((REPOSITORY / 'docs' / 'twice.jpg').read_bytes())
        tab.wait_for_selector('html[data-paste=taken]')
        put(tab, 'body', 'paste', path)
        said = sentence(tab, path.name)
        assert said.startswith('This is a JPEG whose header says quality 90')
        assert 'saved before at about quality 60' in said
        assert 'libjpeg 90' in tab.inner_text('.facts')

    def test_a_bad_file_gets_the_line_of_the_command_line_and_the_page_goes_on(self, tab, tmp_path):
        path = tmp_path / 'text.png'
        path.write_text('no picture')
        choose(tab, path)
        assert sentence(tab, 'text.png: ') == (
            'text.png: not an image that can be read; remove it or convert it to PNG')
        assert not tab.is_visible('#map')
        choose(tab, PRISTINE[0])
        assert 'no sign of JPEG' in sentence(tab, PRISTINE[0].name)

    def test_ten_files_get_a_table_that_sorts_and_csv_and_json(self, tab, tmp_path):
        bad = tmp_path / 'bad.jpg'
        bad.write_bytes(b'')
        paths = [*sorted(SAMPLES.glob('*.png')), bad]
        assert len(paths) == 10
        choose(tab, *paths)
        sentence(tab, paths[0].name)
        assert tab.inner_text('#status').endswith(
            '10 images: 5 exact, 4 never JPEG; 1 could not be read')
        tab.wait_for_function(SHOWN, arg=['20', '35', '75', '85', '65'])
        rows = tab.locator('#table div[role=row]')
        assert rows.count() == 10
        assert 'not an image' in rows.filter(has_text=bad.name).inner_text()
        tab.locator('#table th', has_text='quality').get_by_role('button').click()
        tab.get_by_role('menuitem', name='Sort ascending').click()
        tab.wait_for_function(SHOWN, arg=['20', '35', '65', '75', '85'])
        assert '20' in rows.first.inner_text().split()  # what has no quality comes last
        rows.filter(has_text='gravel_jpeg_q85').locator('[data-col="1"]').click()
        assert sentence(tab, 'gravel_jpeg_q85.png') == (
            'This PNG was a JPEG of quality 85, exactly.')
        map_size(tab)
        files = {}
        for kind in ('CSV', 'JSON'):
            with tab.expect_download() as download:
                tab.click(f'text=Download {kind}')
            files[kind] = download.value.path().read_text()
        names = [path.name for path in paths[:-1]]
        assert [row['path'] for row in csv.DictReader(files['CSV'].splitlines())] == names
        assert [row['path'] for row in json.loads(files['JSON'])] == names

    def test_the_jpeg_is_rebuilt_on_a_click_and_downloads_under_the_picture_s_name(self, tab,
                                                                                   tmp_path):
        path = tmp_path / 'my photo.png'
        cv2.imwrite(str(path), compress(cv2.imread(str(SAMPLES / 'coffee.png'))[:64, :80], 80))
        choose(tab, path)
        assert 'quality 80, exactly' in sentence(tab, path.name)
        tab.click('text=Rebuild the JPEG')
        tab.wait_for_selector('text=every pixel identical')
        with tab.expect_download() as download:
            tab.click('#files a[download$=".jpg"]')
        assert download.value.suggested_filename == 'my photo.jpg'
        data = download.value.path().read_bytes()
        assert data[:3] == b'\xff\xd8\xff' and len(data) < path.stat().st_size
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(pixels, cv2.imread(str(path)))
        choose(tab, PRISTINE[0])  # never a JPEG: there is nothing to rebuild
        sentence(tab, PRISTINE[0].name)
        assert not tab.is_visible('#rebuild') and not tab.inner_text('#rebuilt').strip()

    def test_a_jpeg_that_is_being_rebuilt_does_not_hold_up_the_next_picture(self, tab):
        choose(tab, EXACT)
        sentence(tab, EXACT.name)
        tab.click('text=Rebuild the JPEG')
        tab.wait_for_selector('text=this can take a minute')
        choose(tab, SAMPLES / 'coffee_jpeg_q20.png')
        assert 'quality 20, exactly' in sentence(tab, 'coffee_jpeg_q20.png')
        tab.wait_for_function("!document.querySelector('#rebuilt').innerText.trim()")

    def test_the_page_forbids_the_browser_every_other_address(self, tab, address):
        policy = tab.goto(address).headers['content-security-policy']
        assert policy.startswith("default-src 'self' ") and 'http' not in policy
        refused = tab.evaluate('''new Promise(resolve => {
            document.addEventListener('securitypolicyviolation', e => resolve(e.blockedURI));
            fetch('http://192.0.2.1/').catch(() => setTimeout(() => resolve('not blocked'), 5000));
        })''')
        assert refused == 'http://192.0.2.1/'

    @pytest.mark.long
    def test_50_megapixels_get_their_sentence_and_their_map_only_when_asked(self, tab, tmp_path):
        tile = cv2.imread(str(SAMPLES / 'raccoon.png'))
        path = tmp_path / 'large.jpg'
        cv2.imwrite(str(path), np.tile(tile, (21, 21, 1)), [cv2.IMWRITE_JPEG_QUALITY, 80])
        choose(tab, path)
        assert sentence(tab, path.name).startswith('This is a JPEG whose header says quality 80')
        tab.click('text=Draw the quality map')
        tab.wait_for_function(DRAWING)
        choose(tab, EXACT)  # something else is asked for, which does not wait for that map
        assert 'quality 75, exactly' in sentence(tab, EXACT.name)
        map_size(tab)
        choose(tab, path)  # and the page's end does not wait for it either: see `address`
        sentence(tab, path.name)
        tab.click('text=Draw the quality map')
        tab.wait_for_function(DRAWING)
