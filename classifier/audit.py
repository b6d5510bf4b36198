"""A page on a folder's images: how many were JPEGs, of which quality, where; the worst of them.

    audit = Audit()
    audit.add('train/cats', row)
    audit.unread('train/cats')
    page(audit, 'photos', thumbnail)     # HTML that needs no other file

The subfolders are compared because a data set whose classes differ in their compression teaches a
network the compression.
"""
import bisect
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from classifier.audit_page import Table, bars, document, paragraph, pictures, table
from classifier.cli import printable
from classifier.summary import answer, kind, saved_before

NEVER, HIDDEN, FILE, UNKNOWN = 'never JPEG', 'hidden JPEG', 'JPEG file', 'cannot tell'
SORTS = (NEVER, HIDDEN, FILE, UNKNOWN)
UNREAD, RECOMPRESSED, EDITED = 'could not be read', 'recompressed', 'edited afterwards'
WORST = 20            # images that are shown
FEWEST = 20           # images of a subfolder that is compared with others
MOST_SUBFOLDERS = 50  # that are listed
SURE = 0.001          # a difference that chance makes less often is said
LARGE = 0.2           # Cramer's V from which it is; a small one matters to nobody
BIN = 5               # levels of quality
BINS = [f'{low}-{low + BIN - 1}' for low in range(1, 100, BIN)]


def sort_of(row: dict) -> str:
    """One of SORTS, of an image's row; its values may be text."""
    if row['verdict'] != 'no header':
        return FILE
    found = kind(row)
    if found in (NEVER, UNKNOWN):
        return found
    return HIDDEN if found == 'exact' or row['compressed'] not in (None, '') else UNKNOWN


def last_quality(row: dict) -> float | None:
    """That of a JPEG file's header; of other images that of their pixels; None if not known."""
    name = 'quality' if row['verdict'] == 'no header' else 'header_quality'
    quality = row.get('table_quality') if name == 'quality' else None
    quality = row[name] if quality in (None, '') else quality
    return None if quality in (None, '') else float(quality)


def lowest_quality(row: dict) -> float | None:
    """The lowest quality at which an image is known, or estimated, to have been compressed.

    Of its last save and an earlier one, and of pixels that contradict a header; None if none is.
    """
    found = [last_quality(row), row.get('earlier_quality')]
    if row['verdict'] == 'contradiction':
        found += [row['quality'], row.get('network_quality')]
    return min((float(quality) for quality in found if quality not in (None, '')), default=None)


class Audit:
    """What the rows of a folder's images say together.

    Attributes
    ----------
    total : Counter
        By SORTS, RECOMPRESSED, EDITED and UNREAD.
    by_subfolder : dict
        {subfolder: Counter} of the same.
    quality_by_subfolder : dict
        {subfolder: Counter} by BINS, of hidden JPEGs and JPEG files together.
    qualities : dict
        {sort: Counter} by BINS: of hidden JPEGs as found, of files by header.
    worst : list
        (quality, number, row) of the WORST JPEGs by `lowest_quality`, the lowest first.
    """

    def __init__(self):
        self.total, self.by_subfolder = Counter(), defaultdict(Counter)
        self.quality_by_subfolder = defaultdict(Counter)
        self.qualities, self.worst = {HIDDEN: Counter(), FILE: Counter()}, []
        self._number = itertools.count()  # keeps those of the same quality in their order

    def add(self, subfolder: str, row: dict) -> None:
        """Count the row of an image, by `report.FIELDS`; its values may be text."""
        sort = sort_of(row)
        names = [sort]
        names += [RECOMPRESSED] if saved_before(row) else []
        edited = row['edited'] not in (None, '') and float(row['edited']) > 0.5
        names += [EDITED] if edited and sort in (HIDDEN, FILE) else []
        self._count(subfolder, names)
        if sort not in self.qualities:
            return
        lowest, quality = lowest_quality(row), last_quality(row)
        if lowest is not None:
            bisect.insort(self.worst, (lowest, next(self._number), row))
            del self.worst[WORST:]
        if quality is not None:
            name = BINS[min(max(int(quality) - 1, 0) // BIN, len(BINS) - 1)]
            self.qualities[sort][name] += 1
            self.quality_by_subfolder[subfolder][name] += 1

    def unread(self, subfolder: str) -> None:
        """Count an image that could not be read."""
        self._count(subfolder, [UNREAD])

    def _count(self, subfolder, names):
        for counter in (self.total, self.by_subfolder[subfolder]):
            counter.update(names)


def number(counts: Counter) -> int:
    """Of all images that are counted there."""
    return sum(counts[name] for name in (*SORTS, UNREAD))


def compare(counts: dict[str, Counter], columns: Sequence) -> tuple[str, bool]:
    """Whether shares differ between subfolders: a sentence, and whether to warn.

    The test is Pearson's chi-squared of independence; the size of the difference Cramer's V, from
    0 to 1.

    Parameters
    ----------
    counts : dict
        {subfolder: Counter}; those with fewer than FEWEST images in the columns are left out.
    columns : sequence
        The keys that are compared; as text they are what the sentence calls them.
    """
    from scipy.stats import chi2_contingency
    from scipy.stats.contingency import association
    found = {name: [of[column] for column in columns] for name, of in counts.items()}
    found = {name: of for name, of in found.items() if sum(of) >= FEWEST}
    if len(found) < 2:
        return f'there are no two subfolders of at least {FEWEST} such images to compare.', False
    numbers = np.array(list(found.values()))
    occurs = numbers.any(axis=0)
    columns = [column for column, there in zip(columns, occurs) if there]
    numbers = numbers[:, occurs]
    if len(columns) < 2:
        return f'all are “{columns[0]}”.', False
    p = max(float(chi2_contingency(numbers).pvalue), 1e-300)
    size = float(association(numbers, method='cramer'))
    test = f"(chi-squared test: p = {p:.2g}, Cramer's V = {size:.2f})."
    if p >= SURE or size < LARGE:
        return f'the subfolders do not differ much {test}', False
    shares = numbers / numbers.sum(axis=1, keepdims=True)
    widest = np.ptp(shares, axis=0).argmax()
    most, least = (f'{100 * shares[i, widest]:.0f} % of {printable(list(found)[i])}'
                   for i in (shares[:, widest].argmax(), shares[:, widest].argmin()))
    return (f'the subfolders differ: “{columns[widest]}” are {most}, but {least} {test} What is '
            'trained to distinguish them may learn the compression instead.'), True


def _said(row):
    quality = row['header_quality']
    says = 'names no quality' if quality in (None, '') else f'says quality {quality}'
    parts = [answer(row), 'no JPEG header' if row['verdict'] == 'no header' else
             f'header {says}: {row["verdict"]}']
    if saved_before(row):
        parts.append(f'saved before at about quality {row["earlier_quality"]}')
    return '; '.join(parts)


def page(audit: Audit, title: str, thumbnail: Callable[[str], str | None]) -> str:
    """The page, as HTML.

    Parameters
    ----------
    audit : Audit
    title : str
        What was looked at.
    thumbnail : callable
        From an image's path to a data URI, or None.
    """
    total, count = audit.total, number(audit.total)
    body = [table(Table(('', 'images', 'share'), [
        (name, f'{total[name]:,}', f'{100 * total[name] / max(1, count):.1f} %')
        for name in (*SORTS, UNREAD, RECOMPRESSED, EDITED)])), paragraph(
        f'A “{HIDDEN}” is a file of another format whose pixels were a JPEG once. “{RECOMPRESSED}” '
        f'and “{EDITED}” are among the JPEGs; “{EDITED}” is an estimate. Images that are “{NEVER}” '
        'have no JPEG quality, and are in no count by quality.')]
    for sort, words in ((HIDDEN, 'Hidden JPEGs by the quality of their pixels'),
                        (FILE, 'JPEG files by the quality in their header')):
        body.append(bars(words, [(name, audit.qualities[sort][name]) for name in BINS]))
    body.append('<h2>By subfolder</h2>')
    for what, counts, columns in (
            ('Sorts', audit.by_subfolder, SORTS),
            ('Qualities of the JPEGs', audit.quality_by_subfolder, BINS)):
        said, warn = compare(counts, columns)
        body.append(paragraph(f'{what}: {said}', warn))
    largest = sorted(audit.by_subfolder.items(), key=lambda item: -number(item[1]))
    columns = (*SORTS, UNREAD, RECOMPRESSED, EDITED)
    body.append(table(Table(('subfolder', 'images', *columns), [
        (printable(name), f'{number(found):,}', *(f'{found[column]:,}' for column in columns))
        for name, found in sorted(largest[:MOST_SUBFOLDERS])])))
    if len(largest) > MOST_SUBFOLDERS:
        body.append(paragraph(f'These are the largest {MOST_SUBFOLDERS} of {len(largest):,}.'))
    body.append(f'<h2>The {WORST} lowest qualities</h2>' + paragraph(
        'JPEGs by the lowest quality at which they were compressed, in their last save or in an '
        'earlier one, the lowest first; images that never were JPEGs are not among them.')
        + pictures([(thumbnail(row['path']), printable(row['path']), _said(row))
                    for _, _, row in audit.worst]))
    return document(f'JPEG compression in {printable(title)}', f'{count:,} images', body)
