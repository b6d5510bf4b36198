"""Rows for people: what one says of its image, and what several say together."""
from collections import Counter

from classifier.conclusion import span
from classifier.forensics.lattice import UNKNOWN

# Of numbers as they are written; 2 for the others.
DECIMALS = {'seconds': 4, 'compressed': 4, 'edited': 4, 'margin': 1, 'evidence': 1}
KINDS = ('exact', 'estimated', 'never JPEG', 'cannot tell')


def kind(row: dict) -> str:
    """One of KINDS: what the row of an image answers.

    Parameters
    ----------
    row : dict
        By `report.FIELDS`; its values may be text, as in a CSV file.
    """
    if row['method'] == 'lattice':
        return 'estimated' if row.get('decoder') == UNKNOWN else 'exact'
    if row.get('table_quality') not in (None, ''):  # of a table that is not libjpeg's
        return 'estimated'
    if row['method'] == 'none':
        return 'cannot tell'
    compressed = row['compressed']  # nothing with the paper's median
    return 'never JPEG' if compressed not in (None, '') and float(compressed) < 0.5 else 'estimated'


def saved_before(row: dict) -> bool:
    """Whether an earlier compression was found under the last one, with a header or without."""
    return row.get('earlier_quality') not in (None, '')


def answer(row: dict) -> str:
    """What the pixels of an image say: 'quality 75, exact', 'quality 63 (46 to 81), estimated'."""
    found, low, high = kind(row), row['quality_low'], row['quality_high']
    if found == 'cannot tell':
        return f'cannot tell: {row["reason"]}'
    if found == 'never JPEG':
        return 'no sign of JPEG compression'
    if found == 'exact':
        if row['refined'] in (None, ''):
            return f"the header's own table, exactly; nearest to quality {low}"
        part = '' if row.get('region_x') in (None, '') else ', in a part'
        return f'quality {span(low, high)}' + (', exact' if low == high else '') + part
    if row.get('table_quality') not in (None, ''):
        nearest = row['table_quality']
        return f"a table that is not libjpeg's, nearest to quality {nearest}, estimated"
    if row['method'] == 'lattice':
        return f'quality {span(low, high)}, estimated'
    interval = '' if low in (None, '') else f' ({span(low, high)})'
    return f'quality {float(row["quality"]):.1f}{interval}, estimated'


def rounded(row: dict) -> dict:
    """The row with its numbers rounded as they are written."""
    return {name: round(value, DECIMALS.get(name, 2)) if isinstance(value, float) else value
            for name, value in row.items()}


def from_text(row: dict) -> dict:
    """The row of an earlier run with the values that its text stands for."""
    return {name: text if name == 'path' else _value(text) for name, text in row.items()}


def _value(text):
    if not isinstance(text, str):
        return text
    if text in ('', 'True', 'False'):
        return None if text == '' else text == 'True'
    for kind_of_number in (int, float):
        try:
            return kind_of_number(text)
        except ValueError:
            pass
    return text


def as_text(row: dict) -> list:
    """The row's values as they are written to a CSV file."""
    return [f'{value:.{DECIMALS.get(name, 2)}f}' if isinstance(value, float) else value
            for name, value in row.items()]


class Summary:
    """Counts of the rows of several images, in the line that ends a run."""

    def __init__(self):
        self.kinds, self.recompressed, self.unread = Counter(), 0, 0

    def add(self, row: dict) -> None:
        """Count the row of an image that could be read."""
        self.kinds[kind(row)] += 1
        self.recompressed += saved_before(row)

    def __str__(self):
        number = self.kinds.total() + self.unread
        parts = [', '.join(f'{self.kinds[name]} {name}' for name in KINDS if self.kinds[name])]
        parts += [f'{self.recompressed} recompressed'] if self.recompressed else []
        parts += [f'{self.unread} could not be read'] if self.unread else []
        return f'{number} image{"s" * (number != 1)}: ' + '; '.join(filter(None, parts))
