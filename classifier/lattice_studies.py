"""Studies of evaluate_cls.py that need no network: what lattice.py and recompression.py tell.

They are called as those in studies.py, which lists them all.
"""
import io
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from PIL import Image, JpegPresets

from console import Progress, ordered_map
from images import compress, read_image
from lattice import estimate_table, find_quality, get_blocks, standard_tables
from recompression import find_earlier


def over_images(paths, cases):
    """What `cases` yields for each image, all in one list.

    cases: a function of an image's pixels and of its number, which seeds what it draws.
    """
    found = []
    with ThreadPoolExecutor(2) as pool, Progress(len(paths), 'images') as progress:
        for done, some in enumerate(ordered_map(
                pool, lambda i: list(cases(read_image(paths[i]), i)), range(len(paths)), 4), 1):
            found += some
            progress.update(done)
    return found


def random_crop(rng, image, side):
    """A square of that side (the whole image for None) and its grid phase in a decoded file."""
    if side is None:
        return image, (0, 0)
    y, x = (int(rng.integers(0, max(1, n - side + 1))) for n in image.shape[:2])
    return np.ascontiguousarray(image[y:y + side, x:x + side]), (-y % 8, -x % 8)


def outcome(found, quality):
    """'right', 'wrong' or 'abstained': an answer that stands for `quality`, another, or none."""
    if found.quality is None:
        return 'abstained'
    return 'right' if quality in found.qualities else 'wrong'


OUTCOMES = ('abstained', 'right', 'wrong')


def shares(outcomes):
    """Shares of the outcomes in a list, with their number, as a JSON-able dict."""
    return {'cases': len(outcomes), **{o: outcomes.count(o) / len(outcomes) for o in OUTCOMES}}


def print_shares(rows, title):
    """One line for each name and `shares`, in %."""
    print(f'{title:24}  cases  ' + '  '.join(f'{o:>9}' for o in OUTCOMES))
    for name, row in rows.items():
        print(f'{name:24}  {row["cases"]:5}  '
              + '  '.join(f'{100 * row[o]:8.2f}%' for o in OUTCOMES))


# ---------------------------------------------------------------- --recompression

FIRST_QUALITIES = (30, 50, 60, 70, 80, 90)  # of --recompression
LAST_QUALITIES = (50, 60, 70, 80, 90, 95, 98)
SINGLE_QUALITIES = range(30, 99)


def looks_at(image, index):
    """What is found in one image, compressed twice and once.

    Yields ('aligned' or 'shifted', (q1, q2), found) for the pairs q1 < q2, the shift drawn
    by the image's number, then ('single', (None, q2), found).
    """
    tables = standard_tables()
    dy, dx = np.random.default_rng(index).integers(1, 8, 2)

    def found(coded, quality):
        coded = compress(np.ascontiguousarray(coded), quality)
        return find_earlier(coded, tables[quality - 1]).quality is not None

    for q1 in FIRST_QUALITIES:
        first = compress(image, q1)
        for q2 in LAST_QUALITIES:
            if q1 < q2:
                yield 'aligned', (q1, q2), found(first, q2)
                yield 'shifted', (q1, q2), found(first[dy:, dx:], q2)
    for q2 in SINGLE_QUALITIES:
        yield 'single', (None, q2), found(image, q2)


def recompression(args, paths):
    """how often an earlier, coarser compression is found, on the same and on another grid"""
    hits = {'aligned': {}, 'shifted': {}, 'single': {}}
    cases = over_images(paths, looks_at)
    for kind, pair, found in cases:
        hits[kind].setdefault(pair, []).append(found)
    results = {'images': len(paths)}
    for kind in ('aligned', 'shifted'):
        rates = {pair: float(np.mean(cell)) for pair, cell in hits[kind].items()}
        results[kind] = {f'{q1},{q2}': rate for (q1, q2), rate in rates.items()}
        print(f'first at q1 (rows), then at q2 (columns), {kind} grids: found, %')
        print('     ' + ''.join(f'{q2:5}' for q2 in LAST_QUALITIES))
        for q1 in FIRST_QUALITIES:
            print(f'{q1:5}' + ''.join(f'{100 * rates[q1, q2]:5.0f}' if q1 < q2 else '    -'
                                      for q2 in LAST_QUALITIES))
    once = np.concatenate(list(hits['single'].values()))
    results['false_alarms'] = float(once.mean())
    print(f'compressed once, at {SINGLE_QUALITIES[0]} to {SINGLE_QUALITIES[-1]}: {once.sum()} '
          f'false alarms in {once.size} images ({100 * once.mean():.2f} %)')
    return results


# ---------------------------------------------------------------- --edited

EDITED_QUALITIES = (30, 60, 90)   # of the compression before the edit
EDITED_SIDES = (None, 64)         # px: the whole image, and a random crop


def enlarged(image, rng):
    scale = rng.choice([1.05, 1.25, 1.5])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=int(rng.choice([1, 2, 4])))


def reduced(image, rng):
    scale = rng.choice([0.5, 0.75, 0.9])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=int(rng.choice([1, 2, 3])))


def blurred(image, rng):
    return cv2.GaussianBlur(image, (0, 0), rng.choice([0.5, 0.8, 1.5]))


def sharpened(image, rng):
    amount = rng.choice([0.2, 0.5, 1.0])
    return cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), 1), -amount, 0)


def denoised(image, rng):
    return (cv2.medianBlur(image, 3) if rng.random() < 0.5 else
            cv2.bilateralFilter(image, 5, 20, 3))


def noise(image, rng):
    sigma = rng.choice([0.5, 1, 3])
    return np.rint(image + rng.normal(0, sigma, image.shape)).clip(0, 255).astype(np.uint8)


def curve(image, values):
    """The image with each pixel value replaced: values (256,) for 0..255, of any range."""
    return cv2.LUT(image, np.rint(values).clip(0, 255).astype(np.uint8))


LEVELS = np.arange(256.0)


def brightness(image, rng):
    return curve(image, LEVELS + rng.choice([-1, 1]) * rng.integers(1, 31))


def contrast(image, rng):
    return curve(image, 128 + (LEVELS - 128) * rng.choice([0.8, 0.95, 1.05, 1.2]))


def gamma(image, rng):
    return curve(image, 255 * (LEVELS / 255) ** rng.choice([0.8, 0.95, 1.05, 1.25]))


def saturation(image, rng):
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 1] = curve(hsv[..., 1], LEVELS * rng.choice([0.5, 0.9, 1.1, 1.5]))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def colour_shift(image, rng):
    shift = rng.integers(-10, 11, 3)
    return np.stack([curve(image[..., i], LEVELS + shift[i]) for i in range(3)], axis=-1)


def rotated(image, rng):
    height, width = image.shape[:2]
    angle = rng.choice([-1, 1]) * rng.uniform(0.5, 5)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    return cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)


EDITS = (enlarged, reduced, blurred, sharpened, denoised, noise, brightness, contrast, gamma,
         saturation, colour_shift, rotated)


def text(shape, rng):
    """Lines of text on a plain ground, as on a screen: uint8 BGR of that shape."""
    image = np.full(shape, rng.integers(200, 256), np.uint8)
    for y in range(16, shape[0], int(rng.integers(14, 24))):
        words = ''.join(map(chr, rng.integers(97, 123, shape[1] // 8)))
        cv2.putText(image, words, (8, y), int(rng.integers(0, 8)), rng.uniform(0.3, 0.7),
                    rng.integers(0, 150, 3).tolist(), 1,
                    cv2.LINE_AA if rng.random() < 0.7 else cv2.LINE_8)
    return image


def windows(shape, rng):
    """Plain rectangles and discs on one another, half of them on the block grid."""
    image = np.full(shape, rng.integers(1, 255, 3), np.uint8)
    for _ in range(60):
        y, x = rng.integers(0, shape[:2])
        h, w = rng.integers(8, 160, 2)
        colour = rng.integers(0, 8, 3) * 32 if rng.random() < 0.5 else rng.integers(1, 255, 3)
        if rng.random() < 0.5:
            y, x, h, w = (v // 8 * 8 for v in (y, x, h, w))
        if rng.random() < 0.3:
            cv2.circle(image, (int(x), int(y)), int(h) // 2, colour.tolist(), -1, cv2.LINE_AA)
        else:
            image[y:y + h, x:x + w] = colour
    return image


def gradient(shape, rng):
    """A linear ramp of colour."""
    y, x = np.mgrid[:shape[0], :shape[1]] - np.array(shape[:2])[:, None, None] / 2
    slope = rng.uniform(-0.3, 0.3, (2, 3))
    ramp = rng.uniform(40, 215, 3) + y[..., None] * slope[0] + x[..., None] * slope[1]
    return np.rint(ramp).clip(0, 255).astype(np.uint8)


DRAWN = (text, windows, gradient)


def edited_cases(image, index):
    """Yields (kind, side, outcome) for one photo, edited and not, and for drawn images.

    A pristine or drawn image was never compressed: any answer is wrong.
    """
    rng = np.random.default_rng(index)

    def looks(kind, picture, quality):
        for side in EDITED_SIDES:
            found = find_quality(random_crop(rng, picture, side)[0])
            yield kind, side, outcome(found, quality)

    for quality in EDITED_QUALITIES:
        coded = compress(image, quality)
        for edit in EDITS:
            yield from looks(edit.__name__.replace('_', ' '), edit(coded, rng), quality)
    yield from looks('pristine', image, None)
    for draw in DRAWN:
        yield from looks(f'drawn: {draw.__name__}', draw(image.shape, rng), None)


def edited(args, paths):
    """how often --refine abstains on images edited after compression, or never compressed"""
    cases = over_images(paths, edited_cases)
    results = {'images': len(paths)}
    for side in EDITED_SIDES:
        name = 'whole images' if side is None else f'{side} px crops'
        kinds = dict.fromkeys(kind for kind, _, _ in cases)
        rows = {kind: shares([o for k, s, o in cases if (k, s) == (kind, side)]) for kind in kinds}
        results[name] = rows
        print_shares(rows, name)
    results['all'] = shares([o for _, _, o in cases])
    print_shares({'all': results['all']}, '')
    return results


# ---------------------------------------------------------------- --small

SMALL_SIDES = (64, 128, 256)
TEXTURED = 16             # luma blocks that are not flat, of 49 to 64 in a 64 px crop


def small_cases(image, index):
    """Yields (side, whether on the grid, textured, outcome, exact) of random crops."""
    rng = np.random.default_rng(index)
    for quality in range(5, 100, 10):
        coded = compress(image, quality)
        for side in SMALL_SIDES:
            for aligned in (True, False):
                y, x = (int(rng.integers(0, n - side + 1)) for n in image.shape[:2])
                y, x = (y // 8 * 8, x // 8 * 8) if aligned else (y, x)
                crop = np.ascontiguousarray(coded[y:y + side, x:x + side])
                found = find_quality(crop)
                textured = len(get_blocks(crop, -y % 8, -x % 8).luma) >= TEXTURED
                yield side, aligned, textured, outcome(found, quality), found.quality == quality


def small(args, paths):
    """how often --refine is exact on small crops, on and off the block grid"""
    cases = over_images(paths, small_cases)
    results = {'images': len(paths)}
    print('side, px               cases   exact  abstained    right   wrong     (all in %)')
    for side in SMALL_SIDES:
        for name, chosen in (('', lambda c: True), (', on the grid', lambda c: c[1]),
                             (', off the grid', lambda c: not c[1]),
                             (', textured', lambda c: c[2])):
            some = [c for c in cases if c[0] == side and chosen(c)]
            row = shares([c[3] for c in some]) | {'exact': float(np.mean([c[4] for c in some]))}
            results[f'{side}{name}'] = row
            print(f'{side}{name}'.ljust(20), f'{row["cases"]:7}', f'{100 * row["exact"]:7.2f}',
                  f'{100 * row["abstained"]:10.2f}', f'{100 * row["right"]:8.2f}',
                  f'{100 * row["wrong"]:7.2f}')
    return results


# ---------------------------------------------------------------- --tables

TABLE_QUALITIES = (30, 60, 85)    # at which the tables below are used, by libjpeg's scaling

# mozjpeg's alternatives to Annex K (jcparam.c), row by row: MS-SSIM and PSNR-HVS-M are tuned
# for these measures; Robidoux is ImageMagick's; Klein, Silverstein and Carney 1992; Watson,
# Taylor and Borthwick 1997; Ahumada, Watson and Peterson 1993; Peterson, Ahumada and Watson 1993.
OTHER_TABLES = {
    'flat': '16 ' * 64,
    'MS-SSIM': '''
        12 17 20 21 30 34 56 63 18 20 20 26 28 51 61 55
        19 20 21 26 33 58 69 55 26 26 26 30 46 87 86 66
        31 33 36 40 46 96 100 73 40 35 46 62 81 100 111 91
        46 66 76 86 102 121 120 101 68 90 90 96 113 102 105 103''',
    'Robidoux': '''
        16 16 16 18 25 37 56 85 16 17 20 27 34 40 53 75
        16 20 24 31 43 62 91 135 18 27 31 40 53 74 106 156
        25 34 43 53 69 94 131 189 37 40 62 74 94 124 169 238
        56 53 91 106 131 169 226 311 85 75 135 156 189 238 311 418''',
    'PSNR-HVS-M': '''
        9 10 12 14 27 32 51 62 11 12 14 19 27 44 59 73
        12 14 18 25 42 59 79 78 17 18 25 42 61 92 87 92
        23 28 42 75 79 112 112 99 40 42 59 84 88 124 132 111
        42 64 78 95 105 126 125 99 70 75 100 102 116 100 107 98''',
    'Klein': '''
        10 12 14 19 26 38 57 86 12 18 21 28 35 41 54 76
        14 21 25 32 44 63 92 136 19 28 32 41 54 75 107 157
        26 35 44 54 70 95 132 190 38 41 63 75 95 125 170 239
        57 54 92 107 132 170 227 312 86 76 136 157 190 239 312 419''',
    'Watson': '''
        7 8 10 14 23 44 95 241 8 8 11 15 25 47 102 255
        10 11 13 19 31 58 127 255 14 15 19 27 44 83 181 255
        23 25 31 44 72 136 255 255 44 47 58 83 136 255 255 255
        95 102 127 181 255 255 255 255 241 255 255 255 255 255 255 255''',
    'Ahumada': '''
        15 11 11 12 15 19 25 32 11 13 10 10 12 15 19 24
        11 10 14 14 16 18 22 27 12 10 14 18 21 24 28 33
        15 12 16 21 26 31 36 42 19 15 18 24 31 38 45 53
        25 19 22 28 36 45 55 65 32 24 27 33 42 53 65 77''',
    'Peterson': '''
        14 10 11 14 19 25 34 45 10 11 11 12 15 20 26 33
        11 11 15 18 21 25 31 38 14 12 18 24 28 33 39 47
        19 15 21 28 36 43 51 59 25 20 25 33 43 54 64 74
        34 26 31 39 51 64 77 91 45 33 38 47 59 74 91 108''',
}


def other_tables():
    """Luma tables that are not libjpeg's own: yields (set, (64,) int), row by row.

    The last set are Photoshop's, which Pillow holds (JpegPresets).
    """
    for name, text in OTHER_TABLES.items():
        table = np.array(text.split(), int)
        for quality in TABLE_QUALITIES:
            scale = 5000 // quality if quality < 50 else 200 - 2 * quality
            yield name, np.clip((table * scale + 50) // 100, 1, 255)
    for preset in JpegPresets.presets.values():
        yield 'Photoshop', np.array(preset['quantization'][0])


def pillow_jpeg(image, mode='RGB', **options):
    """The image after Pillow's JPEG encoder, decoded, and the quantization tables in its file."""
    data = io.BytesIO()
    Image.fromarray(image[:, :, ::-1]).convert(mode).save(data, 'JPEG', **options)
    with Image.open(data) as coded:
        pixels = np.asarray(coded.convert('RGB'))[:, :, ::-1]
        return np.ascontiguousarray(pixels), coded.quantization


def table_cases(image, index):
    """Yields a dict for each other table: what was read of it in one photo's pixels."""
    for name, table in other_tables():
        coded, header = pillow_jpeg(image, qtables=[table.tolist()] * 2)
        used = np.array(header[0])
        estimate = estimate_table(coded)
        steps = estimate.steps.ravel()
        nearest = int(np.square(standard_tables() - used).sum(axis=1).argmin()) + 1
        yield {'set': name, 'read': int((steps > 0).sum()),
               'right': int((steps == used)[steps > 0].sum()),
               'not_standard': estimate.quality is not None and not estimate.standard,
               'distance': None if estimate.quality is None else abs(estimate.quality - nearest),
               'taken_for_standard': find_quality(coded).quality is not None}


def tables(args, paths):
    """how well other encoders' luma tables are read from pixels"""
    cases = over_images(paths, table_cases)
    results = {'images': len(paths)}
    print('set         cases  steps read, %  of them right, %  said not standard, %  '
          'nearest quality off by  taken for standard, %')
    for name in [*OTHER_TABLES, 'Photoshop']:
        some = [case for case in cases if case['set'] == name]
        read, right, other, taken = (sum(case[key] for case in some) for key in (
            'read', 'right', 'not_standard', 'taken_for_standard'))
        off = [case['distance'] for case in some if case['distance'] is not None]
        row = {'cases': len(some), 'read': read / 64 / len(some), 'right': right / max(1, read),
               'not_standard': other / len(some), 'taken_for_standard': taken / len(some),
               'distance': float(np.mean(off)) if off else None}
        results[name] = row
        print(f'{name:11} {len(some):5} {100 * row["read"]:14.1f} {100 * row["right"]:17.2f} '
              f'{100 * row["not_standard"]:21.1f} {np.mean(off or [np.nan]):23.1f} '
              f'{100 * row["taken_for_standard"]:22.2f}')
    return results


# ---------------------------------------------------------------- --subsampling

CHROMA_QUALITIES = (10, 30, 60, 75, 90)
CHROMA_CROPS = ((0, 0), (3, 5))
SUBSAMPLINGS = {'4:4:4': {'subsampling': 0}, '4:2:2': {'subsampling': 1},
                '4:2:0': {'subsampling': 2}, 'gray': {'mode': 'L'}}


def chroma_cases(image, index):
    """Yields (subsampling, (subsampling, chroma quality) found, the quality) of one photo.

    Of a photo without colour, only 'gray': however it was coded, its pixels say no more.
    """
    gray = (image == image[..., :1]).all()
    for name, options in SUBSAMPLINGS.items():
        if gray and name != 'gray':
            continue
        for quality in CHROMA_QUALITIES:
            coded, _ = pillow_jpeg(image, quality=quality, **options)
            for dy, dx in CHROMA_CROPS:
                found = find_quality(np.ascontiguousarray(coded[dy:, dx:]))
                yield name, (found.subsampling, found.chroma_quality), quality


def subsampling(args, paths):
    """how often --refine tells the chroma subsampling and the chroma table's quality"""
    cases = over_images(paths, chroma_cases)
    results = {'images': len(paths)}
    for title, part in (('subsampling', 0), ('chroma quality', 1)):
        rows = {}
        for kind in SUBSAMPLINGS:
            told = [(found[part], (kind, quality)[part]) for name, found, quality in cases
                    if name == kind]
            rows[kind] = shares(['abstained' if answer is None else
                                 'right' if answer == truth else 'wrong' for answer, truth in told])
        if part:
            del rows['gray']  # it has none
        results[title] = rows
        print_shares(rows, title)
    return results


LATTICE_STUDIES = {'recompression': recompression, 'edited': edited, 'small': small,
                   'tables': tables, 'subsampling': subsampling}
