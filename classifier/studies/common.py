"""What the studies share: photos worked on by all cores, Pillow's JPEG, shares of outcomes."""
import io
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import numpy as np
from PIL import Image

from classifier.batch import ordered_map
from classifier.cli import Progress, named
from classifier.environment import cores
from classifier.images import read_image

OUTCOMES = ('abstained', 'right', 'wrong')


def over_photos(work, pairs):
    """Yields path, case and work(pixels, case) for the pairs (path, case), in their order.

    The work is done on all cores, with progress on stderr. The cases of a photo stand together,
    for which it is read once.
    """
    def photos():
        for path, some in groupby(pairs, lambda pair: pair[0]):
            image = read_image(path)
            yield from ((path, case, image) for _, case in some)

    def one(item):
        path, case, image = item
        with named(path):
            return path, case, work(image, case)

    with ThreadPoolExecutor(cores()) as pool, Progress(len(pairs), 'images') as progress:
        for done, found in enumerate(ordered_map(pool, one, photos(), 2 * cores()), start=1):
            yield found
            progress.update(done, found[0].name)


def every_photo(cases, paths):
    """What `cases(image, index)` yields for the photos, in one list.

    The index, the photo's number, seeds what is random.
    """
    found = over_photos(lambda *photo: list(cases(*photo)), [(p, i) for i, p in enumerate(paths)])
    return [case for *_, some in found for case in some]


def pillow_jpeg(image, mode='RGB', **options):
    """The image after Pillow's JPEG encoder, decoded, and the quantization tables in its file."""
    data = io.BytesIO()
    Image.fromarray(image[:, :, ::-1]).convert(mode).save(data, 'JPEG', **options)
    with Image.open(data) as coded:
        pixels = np.asarray(coded.convert('RGB'))[:, :, ::-1]
        return np.ascontiguousarray(pixels), coded.quantization


def outcome(found, quality):
    """'right', 'wrong' or 'abstained': an answer that stands for `quality`, another, or none."""
    if found.quality is None:
        return 'abstained'
    return 'right' if quality in found.qualities else 'wrong'


def shares(outcomes):
    """Shares of the outcomes in a list, with their number, as a JSON-able dict."""
    return {'cases': len(outcomes), **{o: outcomes.count(o) / len(outcomes) for o in OUTCOMES}}


def print_shares(rows, title):
    """One line for each name and its `shares`, in %."""
    print(f'{title:24}  cases  ' + '  '.join(f'{o:>9}' for o in OUTCOMES))
    for name, row in rows.items():
        print(f'{name:24}  {row["cases"]:5}  '
              + '  '.join(f'{100 * row[o]:8.2f}%' for o in OUTCOMES))
