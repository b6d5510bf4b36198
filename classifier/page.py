"""What the page of app.py shows of the pictures: texts, HTML, table, CSV and JSON.

Nothing here needs Gradio, and nothing touches files.
"""
import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from classifier.cli import printable
from classifier.conclusion import span
from classifier.errors import InputError
from classifier.forensics.lattice import OTHER, UNKNOWN
from classifier.report import FIELDS, REFINED_FIELDS, Report
from classifier.summary import Summary, as_text, kind, rounded

COLUMNS = ('#', 'file', 'what was found', 'quality', 'from', 'to', 'earlier')
TYPES = ('number', 'str', 'str', *4 * ('number',))  # of the columns, to sort by
_KINDS = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.jpe': 'JPEG', '.jfif': 'JPEG', '.png': 'PNG',
          '.bmp': 'BMP', '.tif': 'TIFF', '.tiff': 'TIFF', '.webp': 'WebP', '.gif': 'GIF',
          '.avif': 'AVIF'}
_PROOF = re.compile(r'; [\d,]+ of [\d,]+ blocks are (bit-exact|exact within rounding)|'
                    r' \([^()]*bit-exact\)')
# How it was coded, and what was done to it since, which is kept.
_STRUCTURE = re.compile(r' \([^()]*block grid at \(\d, \d\)(, [^()]*)?\)')
_INTERVAL = re.compile(r' \((\d+) to (\d+)\)')
_COLOURS = {'exact': 'sure', 'estimated': 'likely', 'never JPEG': 'clear', 'cannot tell': 'open'}


@dataclass(frozen=True)
class Picture:
    """A file that was given to the page.

    Parameters
    ----------
    name : str
        As it was called where it came from.
    path : Path
        Where its bytes are.
    found : Report or InputError
        As `report.look_at` returns it, in automatic mode.
    """
    name: str
    path: Path
    found: Report | InputError

    @property
    def has_row(self) -> bool:
        """Whether there is a row on it, if only of its header."""
        return isinstance(self.found, Report)

    @property
    def has_pixels(self) -> bool:
        """Whether its pixels could be used."""
        return self.has_row and not self.found.error

    @property
    def can_be_rebuilt(self) -> bool:
        """Whether it is no JPEG file, and its pixels prove that the whole of it was one."""
        row = self.found.row if self.has_pixels else {}
        return bool(row) and (row['verdict'] == 'no header' and kind(row) == 'exact'
                              and row['region_x'] is None)


@dataclass(frozen=True)
class Fact:
    """One thing that a conclusion rests on, in words."""
    label: str
    value: str
    meaning: str
    limit: str  # when it fails


def sentence(picture: Picture) -> str:
    """The conclusion as a sentence for people; the error of a file that cannot be used.

    The numbers of the proof are left out, which `facts` has.
    """
    name = printable(picture.name)
    if not picture.has_row:
        return f'{name}: {picture.found}'
    if picture.found.error:
        return f'{name}: {picture.found.error}; only its header was read'
    said = _STRUCTURE.sub(r'\1', _PROOF.sub('', picture.found.conclusion))
    said = _INTERVAL.sub(r', between \1 and \2', said)
    kind_of_file = _KINDS.get(Path(picture.name).suffix.lower(), 'picture')
    if kind_of_file == 'JPEG' and picture.found.row.get('verdict') == 'no header':
        kind_of_file = 'picture'  # by its name alone
    this = f'This {kind_of_file}'
    if said.startswith(('was ', 'holds ')):
        said = f'{this} {said}'
    elif said.startswith('a JPEG whose '):
        said = f'This is {said}'
    elif said.startswith('no sign of JPEG compression'):
        said = f'{this} shows {said}'
    return f'{said[0].upper()}{said[1:]}.'


def facts(report: Report) -> list[Fact]:
    """What the conclusion on an image rests on, each with its meaning and its limit."""
    row, found = report.row, []
    if not report.error:
        found += _of_pixels(row)
    if row['verdict'] == 'no header':
        value = 'none: this is no JPEG file'
    else:
        quality = row['header_quality']
        parts = ['names no quality' if quality is None else f'quality {quality}',
                 row['header_subsampling'], row['header_process'], row['header_damage']]
        value = ', '.join(filter(None, parts))
        if row['verdict'] == 'contradiction':
            value += '; its pixels contradict that'
    found.append(Fact('Header', value, 'What a JPEG file itself says of its last compression.',
                      'It tells of the last save alone, and can be forged; so the pixels are '
                      'asked, too.'))
    if row['encoder'] is not None:
        found.append(Fact('Encoder', row['encoder_setting'] or row['encoder'],
                          'Whose quantization tables these are, on its own scale.',
                          'Many programs share their tables: it names a family, not one program.'))
    earlier = [part for part in report.conclusion.split('; ') if part.startswith('saved before')]
    looked = row['verdict'] not in ('not checked', 'no header') or (
        row['verdict'] == 'no header' and row['method'] == 'lattice'
        and row['quality_low'] == row['quality_high'] and row['tone'] is None
        and row['decoder'] is None and row['repeated'] == 1 and row['region_x'] is None)
    value = 'none found' if looked else 'not looked for'
    found.append(Fact('Earlier save', ' '.join(earlier) or value,
                      'Traces that a coarser compression left in the pixels before the last one.',
                      'An earlier save at the same or a higher quality leaves hardly any.'))
    return found


def _of_pixels(row: dict) -> list[Fact]:
    exact = row['exact_blocks']
    found = [Fact(
        'Exact blocks', f'{exact:,} of {row["tested_blocks"]:,}' if exact else 'none',
        'Compressed again in the same way, so many 8x8 blocks come out '
        f'{"within rounding" if row["decoder"] == OTHER else "bit for bit"} as they are: a proof.',
        'Pixels that were resized or filtered have none; then the quality is '
        'estimated.')]
    low, high, answer = row['quality_low'], row['quality_high'], kind(row)
    value = 'none' if low is None else span(low, high)
    if row['method'] == 'lattice':
        whose = ('whose table these pixels lie around: an estimate.' if row['decoder'] == UNKNOWN
                 else 'that these pixels can come from.')
        found.append(Fact('Quality', value,
                          f'All qualities (1 to 100, as libjpeg counts them) {whose}',
                          'Of tables that are not libjpeg\'s it is the nearest quality.'))
    else:
        value += ', if it was a JPEG' if answer == 'never JPEG' else ''
        found.append(Fact('Interval', value, 'In 9 of 10 cases the true quality (1 to 100) lies '
                          'in there.',
                          'The stronger the edit, the wider it is; an edit of an unknown kind '
                          'can mislead it.'))
    found.append(Fact(
        'Ever JPEG', 'yes: it is one' if row['verdict'] != 'no header' else _percent(
            row['compressed'],
            row['method'] == 'lattice' or row['table_quality'] is not None),
        'Whether these pixels were JPEG compressed at all; a probability, where it is not proved.',
        'A good JPEG that was then made much smaller looks as if it had never been one.'))
    if row['grid_dy'] is not None:
        chroma = row['subsampling'] or 'not known'
        found.append(Fact(
            'Grid and chroma', f'({row["grid_dy"]}, {row["grid_dx"]}), {chroma}',
            'Where the first 8x8 block starts, in pixels from the top and the left, and how the '
            'colours were subsampled. Other than (0, 0), the picture was cropped, or the JPEG is '
            'a part of it.',
            'A crop by a multiple of 8 does not show.'))
    return found


def _percent(probability: float | None, proved: bool) -> str:
    if probability is None:
        return 'not known'
    if proved:
        return 'yes'
    percent = round(100 * probability)
    return {0: 'under 1 %', 100: 'over 99 %'}.get(percent, f'{percent} %')


def card(picture: Picture) -> str:
    """HTML of one picture: its name, the sentence, what it rests on, and all fields."""
    name, said = escape(printable(picture.name)), escape(sentence(picture))
    if not picture.has_row:
        return f'<div class="card error"><p class="said">{said}</p></div>'
    report = picture.found
    colour = 'error' if report.error else _COLOURS[kind(report.row)]
    notes = ''.join(f'<p class="note">{escape(warning)}</p>' for warning in report.warnings)
    rows = ''.join(
        f'<tr><th>{escape(fact.label)}</th><td>{escape(fact.value)}</td><td>{escape(fact.meaning)} '
        f'<i>{escape(fact.limit)}</i></td></tr>' for fact in facts(report))
    fields = ''.join(f'<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>'
                     for name, value in rounded(report.row).items() if value is not None)
    return (f'<div class="card {colour}"><p class="name">{name}</p><p class="said">{said}</p>'
            f'{notes}<table class="facts"><tr><th></th><th>found</th><th>what it means, <i>and '
            f'when it fails</i></th></tr>{rows}</table><details><summary>As the command line says '
            f'it</summary><p>{escape(report.conclusion)}</p><table class="fields">{fields}</table>'
            '</details></div>')


def table(pictures: Sequence[Picture]) -> dict:
    """A row of COLUMNS for each picture, which knows it again by its number, from 1 on.

    As `gradio.Dataframe` takes it: numbers to sort by, and what is shown in their place. Where
    there is no quality, nothing is shown, and it sorts behind all: never JPEG as better than 100,
    behind that what cannot be told and what could not be read.
    """
    rows, shown = [], []
    for number, picture in enumerate(pictures, 1):
        row = picture.found.row if picture.has_pixels else {}
        answer = kind(row) if row else None
        known = answer in ('exact', 'estimated')
        values = [row[name] if known else None
                  for name in ('quality', 'quality_low', 'quality_high')]
        if known and row['table_quality'] is not None:
            values = [row['table_quality'], None, None]
        numbers = [None if value is None else round(value, 1)
                   for value in (*values, row.get('earlier_quality'))]
        behind = 101 + ('never JPEG', 'cannot tell', None, 'exact', 'estimated').index(answer)
        start = [number, printable(picture.name), _short(picture)]
        rows.append(start + [behind if value is None else value for value in numbers])
        shown.append([*map(str, start), *('' if value is None else f'{value:g}'
                                          for value in numbers)])
    return {'headers': list(COLUMNS), 'data': rows, 'metadata': {'display_value': shown}}


def _short(picture: Picture) -> str:
    """The sentence without the name in front of an error."""
    return sentence(picture).removeprefix(f'{printable(picture.name)}: ')


def counts(pictures: Sequence[Picture]) -> str:
    """'9 images: 5 exact, 4 never JPEG', as predict_cls.py ends."""
    summary = Summary()
    for picture in pictures:
        if picture.has_pixels:
            summary.add(picture.found.row)
        else:
            summary.unread += 1
    return str(summary)


def csv_text(pictures: Sequence[Picture]) -> str:
    """The rows as `predict_cls.py --csv` writes them, with the files' own names."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(FIELDS + REFINED_FIELDS)
    writer.writerows(map(as_text, _rows(pictures)))
    return text.getvalue()


def json_text(pictures: Sequence[Picture]) -> str:
    """The rows as a JSON array of objects, rounded as in CSV."""
    return json.dumps([rounded(row) for row in _rows(pictures)], indent=1)


def _rows(pictures: Sequence[Picture]) -> list[dict]:
    return [picture.found.row | {'path': picture.name} for picture in pictures
            if picture.has_row]
