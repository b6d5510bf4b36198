"""What the studies share: photos worked on by all cores, Pillow's JPEG, tables of rows."""
import io
from collections import defaultdict
from itertools import groupby

import numpy as np
from PIL import Image

from classifier.batch import parallel_map
from classifier.cli import Progress, named
from classifier.images import read_image

OUTCOMES = ('abstained', 'right', 'wrong')


def over_photos(work, pairs):
    """Yields path, case and work(image, case) for the pairs (path, case), in their order.

    The work is done on all cores, with progress on stderr. The cases of a photo stand together,
    for which it is read once.
    """
    pairs = list(pairs)

    def photos():
        for path, some in groupby(pairs, lambda pair: pair[0]):
            image = read_image(path)
            yield from ((path, case, image) for _, case in some)

    def one(item):
        path, case, image = item
        with named(path):
            return path, case, work(image, case)

    with parallel_map() as run, Progress(len(pairs), 'images') as progress:
        for done, found in enumerate(run(one, photos()), start=1):
            yield found
            progress.update(done, found[0].name)


def every_photo(cases, paths):
    """All that `cases(image, index)` yields, (key, value), for the photos: {key: [value, ...]}.

    The index, the photo's number, seeds what is random.
    """
    found = defaultdict(list)
    for *_, pairs in over_photos(lambda *photo: list(cases(*photo)),
                                 [(path, index) for index, path in enumerate(paths)]):
        for key, value in pairs:
            found[key].append(value)
    return found


def pillow_jpeg(image, quality=-1, mode='RGB', **options):
    """The image after Pillow's JPEG encoder, decoded; quality -1: as `qtables` are."""
    data = io.BytesIO()
    Image.fromarray(image[:, :, ::-1]).convert(mode).save(data, 'JPEG', quality=quality, **options)
    with Image.open(data) as coded:
        return np.ascontiguousarray(np.asarray(coded.convert('RGB'))[:, :, ::-1])


def print_table(title, rows, line):
    """The title and, for each of the rows {name: {key: number}}, a line.

    `line` is formatted with the name, the numbers by their keys, and 100 times them: percent[key].
    """
    print(title)
    for name, row in rows.items():
        row = {key: np.nan if value is None else value for key, value in row.items()}
        print(line.format(name=name, percent={key: 100 * row[key] for key in row}, **row))


def outcome(answer, truth, qualities=None):
    """'right', 'wrong' or, for None, 'abstained': of an answer, or of all that it stands for."""
    if answer is None:
        return 'abstained'
    return 'right' if truth in (qualities or [answer]) else 'wrong'


def shares(outcomes):
    """Shares of the outcomes in a list, with their number, as a JSON-able dict."""
    return {'cases': len(outcomes), **{o: outcomes.count(o) / len(outcomes) for o in OUTCOMES}}


def print_shares(title, outcomes):
    """A line of `shares` for each of {name: [outcome, ...]}; returns {name: shares}."""
    rows = {name: shares(found) for name, found in outcomes.items()}
    print_table(f'{title:24}  cases  abstained      right      wrong', rows,
                '{name:24}  {cases:5}  {abstained:9.2%}  {right:9.2%}  {wrong:9.2%}')
    return rows
