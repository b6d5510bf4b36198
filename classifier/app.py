#!/usr/bin/env python3
"""A page on this machine to drop pictures on: at what JPEG quality was each compressed?

    python3 classifier/app.py
    python3 classifier/app.py --port 8000 --no_browser

It is served to this machine alone, and nothing leaves it. It needs Gradio:

    python3 -m pip install gradio -c requirements.txt
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import classifier  # noqa: F401, first: from here on Ctrl-C leaves no traceback

import argparse
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from html import escape
from types import ModuleType
from typing import Any

from classifier.cli import command, count, script_parser
from classifier.desk import Desk, Stopped, pixels_of
from classifier.errors import InputError
from classifier.files import whole_file
from classifier.images import MAX_PIXELS
from classifier.page import COLUMNS, TYPES, card, counts, csv_text, json_text, table
from classifier.predictor import Predictor
from classifier.run_rows import CSV_FORMAT

HOST, PORT = '127.0.0.1', 7860
OLDEST_GRADIO = 6
DRAWN_AT_ONCE = 4_000_000  # pixels up to which the map, some seconds' work, is drawn unasked
SHOW_EVERY = 0.5           # seconds between two looks at how far many pictures are
# The browser itself refuses what is not this machine's, whatever Gradio's page asks for.
LOCAL_ONLY = ("default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'; "
              "form-action 'self'; frame-ancestors 'none'")
TITLE = ('<h1>At what JPEG quality was this picture compressed?</h1>'
         '<p>Found in its pixels. It stays on this machine.</p>')
NAMES = 'files => [files, (files ?? []).map(file => file.orig_name)]'
STYLE, PASTE = (Path(__file__).with_name(name) for name in ('page.css', 'paste.js'))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked; without `argv` those of the command line."""
    parser = script_parser(__doc__)
    parser.add_argument('--port', type=count(1, 65535), default=PORT, metavar='N',
                        help=f'serve the page at http://{HOST}:N (default: {PORT})')
    parser.add_argument('--no_browser', action='store_true', help='do not open the browser')
    parser.add_argument('--max_pixels', type=count(1), default=MAX_PIXELS, metavar='N',
                        help=f'refuse larger images, unread (default: {MAX_PIXELS})')
    return parser.parse_args(argv)


def build(gr: ModuleType, desk: Desk) -> Any:
    """The page, a `gradio.Blocks`."""
    with gr.Blocks(title='JPEG quality from pixels', analytics_enabled=False, fill_width=True,
                   delete_cache=(3600, 86400)) as blocks:  # seconds: looked at, and kept at most
        gr.HTML(TITLE, elem_id='top')
        given = gr.File(file_count='multiple', height=130, elem_id='pictures',
                        label='Pictures: drop, paste or choose one or many')
        names = gr.JSON(visible=False)  # of these files; Gradio leaves characters out in its own
        status = gr.HTML(elem_id='status')
        rows = gr.Dataframe(headers=list(COLUMNS), datatype=list(TYPES), interactive=False,
                            visible=False, max_height=500, wrap=True, elem_id='table',
                            label='Click a row to see its picture; ⋮ beside a heading sorts',
                            column_widths=['5%', '22%', '35%', '10%', '9%', '9%', '10%'],
                            buttons=['fullscreen'])
        with gr.Row(visible=False, elem_id='downloads') as downloads:
            as_csv, as_json = (gr.DownloadButton(f'Download {kind}', size='sm', scale=0,
                                                 min_width=140) for kind in ('CSV', 'JSON'))
        shown = gr.HTML(elem_id='picture')
        rebuild = gr.Button('Rebuild the JPEG', visible=False, elem_id='rebuild')
        rebuilt = gr.HTML(elem_id='rebuilt')
        draw = gr.Button('Draw the quality map', visible=False, elem_id='draw')
        drawn = gr.Image(visible=False, interactive=False, type='filepath', elem_id='map',
                         label='Quality map: the quality that the network sees in each part',
                         buttons=['fullscreen'])
        files = gr.File(file_count='multiple', visible=False, interactive=False,
                        label='Files to download', elem_id='files')
        pictures, chosen = gr.State([]), gr.State(0)

        def look(paths, names):
            desk.new_request()
            found, last = [], time.monotonic()
            for path, name in zip(paths or (), names):
                found.append(desk.look(path, name))
                if time.monotonic() - last > SHOW_EVERY:
                    last = time.monotonic()
                    yield {status: f'{len(found)} of {len(names)} pictures ...'}
            if not found:
                return
            several = len(found) > 1
            csv_path, json_path = desk.new_file('qualities.csv'), desk.new_file('qualities.json')
            for path, text in ((csv_path, csv_text(found)), (json_path, json_text(found))):
                with whole_file(path, **CSV_FORMAT) as file:
                    file.write(text)
            yield {given: None, pictures: found, status: counts(found) if several else '',
                   rows: gr.update(value=table(found), visible=several),
                   downloads: gr.update(visible=several),
                   as_csv: str(csv_path), as_json: str(json_path), **choose(found, 0)}

        def choose(found, index):
            """What shows one picture, but for its map."""
            desk.new_request()
            return {chosen: index, shown: card(found[index]), draw: gr.update(visible=False),
                    drawn: gr.update(value=None, visible=False), files: listed(found[index]),
                    rebuild: gr.update(visible=found[index].can_be_rebuilt), rebuilt: ''}

        def choose_row(found, event: gr.SelectData):
            return choose(found, int(event.row_value[0]) - 1)

        def show_map(found, index, progress=gr.Progress()):
            picture = found[index] if found else None
            if picture is None or not picture.has_pixels:
                return gr.skip()
            if pixels_of(picture.path) > DRAWN_AT_ONCE:
                return {draw: gr.update(visible=True), files: listed(picture)}
            return draw_map(found, index, progress)

        def draw_map(found, index, progress=gr.Progress()):
            try:
                path = desk.draw_map(found[index], lambda share: progress(
                    share, desc='Drawing the quality map'))
            except Stopped:
                return gr.skip()
            except InputError as error:
                return {status: str(error)}
            return {draw: gr.update(visible=False),
                    drawn: gr.update(value=str(path), visible=True),
                    files: listed(found[index])}

        def make_jpeg(found, index):
            yield {rebuild: gr.update(visible=False)}
            try:
                for news in desk.rebuild(found[index]):
                    yield {rebuilt: escape(news)}
            except Stopped:  # whatever it said last is not of the picture that is shown now
                yield {rebuilt: ''}
                return
            yield {files: listed(found[index])}

        def listed(picture):
            paths = desk.files_made_of(picture)
            return gr.update(value=paths or None, visible=bool(paths))

        of_picture = [chosen, shown, draw, drawn, files, status, rebuild, rebuilt]
        of_all = [given, pictures, rows, downloads, as_csv, as_json, *of_picture]
        how = {'api_visibility': 'private', 'concurrency_limit': None, 'show_progress_on': status}
        for event in (given.upload(look, [given, names], of_all, js=NAMES, **how),
                      rows.select(choose_row, pictures, of_picture, **how)):
            event.then(show_map, [pictures, chosen], of_picture, **how)
        draw.click(draw_map, [pictures, chosen], of_picture, **how)
        rebuild.click(make_jpeg, [pictures, chosen], [rebuild, rebuilt, files],
                      **how | {'show_progress': 'hidden'})
    return blocks


class LocalOnly:
    """An ASGI application that forbids the browser every address but this server's."""

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_with_policy(message):
            if message['type'] == 'http.response.start':
                message['headers'] = [*message['headers'],
                                      (b'content-security-policy', LOCAL_ONLY.encode())]
            await send(message)
        await self.app(scope, receive, send_with_policy)


def import_gradio(folder: str) -> ModuleType:
    """The module gradio, told to keep its copies in that folder and to connect to nothing.

    Raises
    ------
    InputError
        It is not installed, or too old.
    """
    for name in [name for name in os.environ if name.startswith('GRADIO_')]:
        del os.environ[name]  # such as GRADIO_ALLOWED_PATHS, which opens folders
    os.environ |= {'GRADIO_TEMP_DIR': folder, 'GRADIO_ANALYTICS_ENABLED': 'False',
                   'HF_HUB_OFFLINE': '1', 'HF_HUB_DISABLE_TELEMETRY': '1'}
    for name in ('no_proxy', 'NO_PROXY'):  # Gradio asks the page itself whether it is there
        os.environ[name] = ','.join(filter(None, [os.environ.get(name), HOST]))
    try:
        import gradio
    except ImportError as error:
        lacks = str(error)
    else:
        if int(gradio.__version__.partition('.')[0]) >= OLDEST_GRADIO:
            return gradio
        lacks = f'{gradio.__version__} is too old'
    raise InputError(f'the page needs Gradio {OLDEST_GRADIO} ({lacks}); install it with "python3 '
                     '-m pip install -U gradio -c requirements.txt"')


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it tidies up, as after Ctrl-C
    with tempfile.TemporaryDirectory(prefix='q1net_') as folder:
        gr = import_gradio(folder)
        from starlette.middleware import Middleware
        fonts = {'font': ['system-ui', 'sans-serif'], 'font_mono': ['system-ui', 'sans-serif']}
        desk = Desk(Predictor(), args.max_pixels, Path(folder))
        blocks = build(gr, desk)
        try:
            blocks.launch(
                server_name=HOST, server_port=args.port, share=False, ssr_mode=False, pwa=False,
                mcp_server=False, run_history=False, enable_monitoring=False, footer_links=[],
                quiet=True, prevent_thread_lock=True, inbrowser=not args.no_browser,
                theme=gr.themes.Default(**fonts), css_paths=STYLE, js=PASTE.read_text(),
                app_kwargs={'middleware': [Middleware(LocalOnly)]})
            print(f'The page is at http://{HOST}:{args.port} (Ctrl-C ends it)', flush=True)
            threading.Event().wait()
        except OSError as error:
            if error.errno is not None:  # Gradio's own, of a port, has none
                raise
            raise InputError(f'port {args.port} is taken, or not allowed; choose another one: '
                             '--port N') from None
        finally:
            desk.close()  # so that no map and no JPEG file is waited for
            blocks.close(verbose=False)


if __name__ == '__main__':
    sys.exit(main())
