#!/usr/bin/env python3
"""Make docs/app.png anew: the page of app.py with a picture into which another was pasted.

    python3 tests/screenshot.py

It needs gradio, playwright and a Chromium, as tests/test_app.py does.
"""
import io
import tempfile

from PIL import Image

from app_browser import browser, choose, sentence, served
from conftest import REPOSITORY

PICTURE, SHOT = REPOSITORY / 'docs' / 'pasted.png', REPOSITORY / 'docs' / 'app.png'
SIZE = {'width': 960, 'height': 600}  # px, of the window; the page is as long as it is


def main():
    with (tempfile.TemporaryDirectory() as folder, served(folder) as (_, address),
          browser() as chromium):
        tab = chromium.new_page(viewport=SIZE, color_scheme='light')
        tab.goto(address)
        choose(tab, PICTURE)
        sentence(tab, PICTURE.name)
        tab.wait_for_selector('#map img', timeout=120_000)
        tab.wait_for_function("document.querySelector('#map img').complete")
        tab.wait_for_timeout(1000)  # what fades in and out is done
        shot = Image.open(io.BytesIO(tab.screenshot(full_page=True, animations='disabled')))
    shot.convert('RGB').save(SHOT, optimize=True)
    print(SHOT)


if __name__ == '__main__':
    main()
