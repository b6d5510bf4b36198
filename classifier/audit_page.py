"""Pieces of a page that needs no other file: tables, bars, pictures. All text in it is escaped."""
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
table { border-collapse: collapse; } th, td { padding: .2rem .8rem; border-bottom: 1px solid #ddd;
       text-align: right; } th:first-child, td:first-child { text-align: left; }
.warning { border-left: .4rem solid #d55e00; padding: .5rem 1rem; background: #fdf2e9; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem;
     padding: 0; list-style: none; } li { overflow-wrap: anywhere; font-size: 14px; }
svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #222; }
"""
BAR_COLOUR = '#0072b2'  # blue, of Okabe and Ito's colours that everybody can distinguish
_WIDTH, _HEIGHT, _LEFT, _BELOW = 44, 160, 10, 40  # px of a bar's place, of the bars, of the margins


class Table(NamedTuple):
    """A table's head and rows, as text; the first column is of names."""
    head: Sequence[str]
    rows: Iterable[Sequence[str]]


def table(found: Table) -> str:
    """The table as HTML."""
    head = ''.join(f'<th>{escape(text)}</th>' for text in found.head)
    rows = ''.join('<tr>' + ''.join(f'<td>{escape(text)}</td>' for text in row) + '</tr>'
                   for row in found.rows)
    return f'<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def paragraph(text: str, warning: bool = False) -> str:
    """A paragraph as HTML."""
    return f'<p{" class=warning" if warning else ""}>{escape(text)}</p>'


def bars(title: str, counts: Sequence[tuple[str, int]]) -> str:
    """A heading and a bar for each (name, count), as SVG within HTML; words where all are 0."""
    heading, most = f'<h2>{escape(title)}</h2>', max((count for _, count in counts), default=0)
    if not most:
        return f'{heading}<p>There are none.</p>'
    width, height = _LEFT + _WIDTH * len(counts), _HEIGHT + _BELOW
    drawn = []
    for i, (name, count) in enumerate(counts):
        middle, top = _LEFT + _WIDTH * (i + 0.5), 20 + (_HEIGHT - 20) * (1 - count / most)
        drawn.append(f'<text x="{middle}" y="{_HEIGHT + 16}" text-anchor="middle">{escape(name)}'
                     '</text>')
        if count:
            drawn.append(f'<rect x="{middle - 16}" y="{top:.1f}" width="32" '
                         f'height="{_HEIGHT - top:.1f}" fill="{BAR_COLOUR}"/>'
                         f'<text x="{middle}" y="{top - 4:.1f}" text-anchor="middle">{count:,}'
                         '</text>')
    return (f'{heading}<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="{escape(title)}">{"".join(drawn)}'
            f'<line x1="0" x2="{width}" y1="{_HEIGHT}" y2="{_HEIGHT}" stroke="#222"/>'
            f'<text x="{width / 2}" y="{height - 4}" text-anchor="middle">quality</text></svg>')


def pictures(found: Sequence[tuple[str | None, str, str]]) -> str:
    """A list of (data URI or None, name, text) as HTML; words where there are none."""
    if not found:
        return '<p>There are none.</p>'
    items = []
    for uri, name, text in found:
        image = f'<img src="{escape(uri)}" alt=""><br>' if uri else ''
        items.append(f'<li>{image}<b>{escape(name)}</b><br>{escape(text)}</li>')
    return f'<ul>{"".join(items)}</ul>'


def document(title: str, subtitle: str, body: Iterable[str]) -> str:
    """The whole page. Its policy lets a browser load nothing from elsewhere and run nothing."""
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta http-equiv="Content-Security-Policy" '
            'content="default-src \'none\'; img-src data:; style-src \'unsafe-inline\'">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(title)}</title><style>{STYLE}</style></head><body>'
            f'<h1>{escape(title)}</h1><p>{escape(subtitle)}</p>{"".join(body)}</body></html>\n')
