"""What predict_cls.py does with what it finds: it prints, counts, copies files, writes a page."""
import argparse
import base64
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

from classifier.chosen_files import place
from classifier.cli import complain, printable, say
from classifier.errors import InputError
from classifier.files import whole_file
from classifier.images import read_image
from classifier.report import Report
from classifier.row_filter import parse_condition
from classifier.summary import Summary, answer, from_text, rounded

THUMBNAIL = 192  # px, its longer side


class Output:
    """What becomes of each image's report.

    Parameters
    ----------
    args : argparse.Namespace
        Of predict_cls.py.
    fields : sequence of str
        That the rows have.
    """

    def __init__(self, args: argparse.Namespace, fields: Sequence[str]):
        self.args, self.fields = args, fields
        self.summary, self.chosen, self.failed, self.unrecovered = Summary(), 0, 0, 0
        self.audit = None
        if args.report:
            from classifier.audit import Audit
            self.audit = Audit()
        self.meets = None if args.select is None else parse_condition(args.select, fields)
        only = args.paths[0] if len(args.paths) == 1 else ''
        self.root = Path(only) if os.path.isdir(only) else None

    def locate(self, paths: list[Path]) -> None:
        """Find the folder that all images are in, below which copies and subfolders are named."""
        folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
        self.base = os.path.abspath(self.root) if self.root else os.path.commonpath(folders)

    def error(self, path: Path, reason: object) -> None:
        """Name an image that could not be read."""
        complain(f'predict_cls.py: error: {path}: {reason}')
        self.summary.unread += 1
        if self.audit:
            self.audit.unread(self._subfolder(path))

    def known(self, text: dict) -> None:
        """Take a row that an earlier run has written; it is printed where it is asked for."""
        self._add(text)
        if self.meets and self.meets(text):
            row = from_text(text)
            self._show(row, f'{self._name(Path(row["path"]))}: {answer(row)}')

    def found(self, path: Path, report: Report) -> bool:
        """Take a new report, whose row has its path; whether it is among the chosen."""
        for warning in [] if self.args.quiet else report.warnings:
            complain(f'{path}: {warning}')
        if report.error:
            self.error(path, f'{report.error}; only its header was read')
        else:
            self._add(report.row)
            if self.args.xmp:
                self._write_sidecar(path, report)
        if report.not_recovered:
            self.unrecovered += 1
            complain(f'{path}: {report.not_recovered}')
        if self.meets and (report.error or not self.meets(report.row)):
            return False
        recovered = ([f'{self._name(path)}: {printable(report.recovered)}'] if report.recovered
                     else [])
        self._show(report.row, *self._lines(report, self._name(path)), *recovered)
        return True

    def end(self) -> None:
        """Print the counts and write the page."""
        if self.audit:
            from classifier.audit import page
            title = os.path.basename(self.base) or self.base
            with whole_file(self.args.report, encoding='utf-8') as file:
                file.write(page(self.audit, title, self._thumbnail))
        if not self.args.single and not self.args.quiet:
            chosen = f'; {self.chosen} chosen' if self.meets else ''
            lost = f'; {self.unrecovered} not recovered' if self.unrecovered else ''
            (print if self.args.lines else complain)(f'{self.summary}{lost}{chosen}')

    def _add(self, row):
        self.summary.add(row)
        if self.audit:
            self.audit.add(self._subfolder(row['path']), row)

    def _write_sidecar(self, path, report):
        from classifier.xmp import write_sidecar
        if refused := write_sidecar(path, report):
            self.failed += 1
            complain(f'predict_cls.py: error: {refused}')

    def _subfolder(self, path):
        return os.path.relpath(os.path.dirname(os.path.abspath(path)), self.base)

    def _name(self, path):
        return printable(path.relative_to(self.root) if self.root else path)

    def _lines(self, report, name):
        """What is printed for an image, for people."""
        if self.args.comp_type is None:
            return [f'{name}: {report.conclusion}']
        if self.args.single:
            return report.details
        said = report.details[-1:] if report.row['verdict'] != 'no header' else []
        return [f'{name}: ' + '; '.join(said if report.error else [answer(report.row), *said])]

    def _show(self, row, *lines):
        """Print an image's row, and copy the image or link to it."""
        args, path = self.args, row['path']
        self.chosen += 1
        if args.print0:
            sys.stdout.flush()
            os.write(sys.stdout.fileno(), os.fsencode(path) + b'\0')
        elif args.json:
            say(json.dumps(rounded(row)))
        elif args.lines:
            say('\n'.join(lines))
        folder = args.copy_to or args.link_to
        if folder:
            try:
                place(Path(path), folder / os.path.relpath(os.path.abspath(path), self.base),
                      link=bool(args.link_to))
            except (InputError, OSError) as error:
                self.failed += 1
                reason = getattr(error, 'strerror', None) or error
                complain(f'predict_cls.py: error: {path}: not copied: {reason}')

    def _thumbnail(self, path):
        """A small picture of an image as a data URI; None if it cannot be read any more."""
        try:
            image = read_image(Path(path), self.args.max_pixels)
        except InputError:
            return None
        scale = min(1.0, THUMBNAIL / max(image.shape[:2]))
        size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
        data = cv2.imencode('.jpg', cv2.resize(image, size, interpolation=cv2.INTER_AREA))[1]
        return f'data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}'
