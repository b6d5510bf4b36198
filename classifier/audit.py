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
from collections.abc import Callable

import numpy as np

from classifier.audit_page import Table, bars, document, paragraph, pictures, table
from classifier.cli import printable
from classifier.summary import answer, kind

NEVER, HIDDEN, FILE, UNKNOWN = 'never JPEG', 'hidden JPEG', 'JPEG file', 'cannot tell'
SORTS = (NEVER, HIDDEN, FILE, UNKNOWN)
UNREAD, RECOMPRESSED, EDITED = 'could not be read', 'recompressed', 'edited afterwards'
WORST = 20            # images that are shown
FEWEST = 20           # images of a subfolder that is compared with others
MOST_SUBFOLDERS = 50  # that are listed
SURE = 0.001          # a difference that chance makes less often is said
LARGE = 0.2           # Cramer's V from which it is; a small one matters to nobody
BIN = 5               # levels of quality


def sort_of(row: dict) -> str:
    """One of SORTS, of an image's row; its values may be text."""
    if row['verdict'] != 'no header':
        return FILE
    found = kind(row)
    if found in (NEVER, UNKNOWN):
        return found
    return HIDDEN if found == 'exact' or row['compressed'] not in (None, '') else UNKNOWN


class Audit:
    """What the rows of a folder's images say together.

    Attributes
    ----------
    total : Counter
        By SORTS, RECOMPRESSED, EDITED and UNREAD.
    by_subfolder : dict
        {subfolder: Counter} of the same.
    qualities : dict
        {sort: Counter of the lower ends of bins}: of hidden JPEGs as found, of files by header.
    worst : list
        (quality, path, row) of the WORST images of lowest quality, the lowest first.
    """

    def __init__(self):
        self.total, self.by_subfolder = Counter(), defaultdict(Counter)
        self.qualities, self.worst = {HIDDEN: Counter(), FILE: Counter()}, []
        self._number = itertools.count()  # keeps those of the same quality in their order

    def add(self, subfolder: str, row: dict) -> None:
        """Count the row of an image, by `report.FIELDS`; its values may be text."""
        sort = sort_of(row)
        names = [sort]
        names += [RECOMPRESSED] if row['verdict'] == 'recompressed' else []
        edited = row['edited'] not in (None, '') and float(row['edited']) > 0.5
        names += [EDITED] if edited and sort in (HIDDEN, FILE) else []
        self._count(subfolder, names)
        quality = row['header_quality'] if sort == FILE else row['quality']
        if sort not in self.qualities or quality in (None, ''):
            return
        self.qualities[sort][(int(float(quality)) - 1) // BIN * BIN + 1] += 1
        if row['quality'] not in (None, '') and kind(row) != NEVER:
            bisect.insort(self.worst, (float(row['quality']), next(self._number), row))
            del self.worst[WORST:]

    def unread(self, subfolder: str) -> None:
        """Count an image that could not be read."""
        self._count(subfolder, [UNREAD])

    def _count(self, subfolder, names):
        for counter in (self.total, self.by_subfolder[subfolder]):
            counter.update(names)


def number(counts: Counter) -> int:
    """Of all images that are counted there."""
    return sum(counts[name] for name in (*SORTS, UNREAD))


def compare(by_subfolder: dict[str, Counter]) -> tuple[str, bool]:
    """Whether the shares of SORTS differ between subfolders: a sentence, and whether to warn.

    Subfolders of fewer than FEWEST images that could be read are left out. The test is Pearson's
    chi-squared of independence; the size of the difference Cramer's V, 0 to 1.
    """
    from scipy.stats import chi2_contingency
    from scipy.stats.contingency import association
    counts = {name: [found[sort] for sort in SORTS] for name, found in by_subfolder.items()
              if sum(found[sort] for sort in SORTS) >= FEWEST}
    if len(counts) < 2:
        return f'There are no two subfolders of at least {FEWEST} images to compare.', False
    found = np.array(list(counts.values()))
    found = found[:, found.any(axis=0)]
    if found.shape[1] < 2:
        return 'All subfolders hold the same sort of images.', False
    p = max(float(chi2_contingency(found).pvalue), 1e-300)
    size = float(association(found, method='cramer'))
    if p >= SURE or size < LARGE:
        return (f'The subfolders do not differ much (chi-squared test: p = {p:.2g}, '
                f"Cramer's V = {size:.2f})."), False
    share = {name: np.array(values) / sum(values) for name, values in counts.items()}
    spread = np.ptp(list(share.values()), axis=0)
    sort = SORTS[spread.argmax()]
    low, high = (function(share, key=lambda name: share[name][spread.argmax()])
                 for function in (min, max))
    of = [f'{100 * share[name][spread.argmax()]:.0f} % of {printable(name)}'
          for name in (high, low)]
    return (f'The subfolders differ: “{sort}” are {of[0]}, but {of[1]} (chi-squared test: p = '
            f"{p:.2g}, Cramer's V = {size:.2f}). What is trained to tell them apart may learn the "
            'compression instead.'), True


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
        f'and “{EDITED}” are among the JPEGs; “{EDITED}” is an estimate.')]
    for sort, words in ((HIDDEN, 'Hidden JPEGs by the quality of their pixels'),
                        (FILE, 'JPEG files by the quality in their header')):
        body.append(bars(words, [(f'{low}-{low + BIN - 1}', audit.qualities[sort][low])
                                 for low in range(1, 100, BIN)]))
    said, warn = compare(audit.by_subfolder)
    body.append(f'<h2>By subfolder</h2>{paragraph(said, warn)}')
    largest = sorted(audit.by_subfolder.items(), key=lambda item: -number(item[1]))
    columns = (*SORTS, UNREAD, RECOMPRESSED, EDITED)
    body.append(table(Table(('subfolder', 'images', *columns), [
        (printable(name), f'{number(found):,}', *(f'{found[column]:,}' for column in columns))
        for name, found in sorted(largest[:MOST_SUBFOLDERS])])))
    if len(largest) > MOST_SUBFOLDERS:
        body.append(paragraph(f'These are the largest {MOST_SUBFOLDERS} of {len(largest):,}.'))
    body.append('<h2>The lowest qualities</h2>' + pictures([
        (thumbnail(row['path']), printable(row['path']), ' '.join(
            [f'{answer(row)};', 'no JPEG header' if row['verdict'] == 'no header' else
             f'header says quality {row["header_quality"]}: {row["verdict"]}']))
        for _, _, row in audit.worst]))
    return document(f'JPEG compression in {printable(title)}', f'{count:,} images', body)
