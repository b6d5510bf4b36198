"""How the file behind decoded pixels may have been coded, the likeliest ways first.

    for kind, grid in codings(image, find_lattice(image), telling_parts(image)):
        print(kind.subsampling, kind.luma_table, kind.decoder.name, grid)

Luma tables are those of the lattice's qualities. Where it has none, but a lattice is there, the
fast inverse DCT may have made it, which changes the steps, or an encoder with tables of its own,
whose steps are read one by one (own_tables.py). The inverse DCT is the one with which most blocks
come out bit for bit. Where the lattice leaves the subsampling open, or the chroma does not come out
right with it, subsampling, upsampling and the chroma's grid are those that explain the most telling
parts (parts.py). Where these do not tell, they and the chroma's table are those with which most of
the chroma comes out right, of a part in the middle of the image (coded_chroma.py). None of this is
proof: the file, decoded, is.
"""
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from classifier.errors import InputError
from classifier.forensics.blocks import BLOCK, DCT2, evenly_spaced, get_blocks
from classifier.forensics.exact_blocks import rounded_right
from classifier.forensics.lattice import ANY_TABLE, Lattice, find_quality
from classifier.forensics.tables import NEW_CHROMA, all_qualities, standard_tables
from classifier.recovery.coded_chroma import fit, whole_blocks
from classifier.recovery.decoders import DECODERS, Decoder
from classifier.recovery.own_tables import read_chroma_table, read_luma_table
from classifier.recovery.parts import Part, explained, ordered
from classifier.recovery.picture import HALVED, Kind

MOST_QUALITIES = 3        # tried, where several explain the image as well
PROBE = 256               # px of the middle of an image, in which ways are compared
LUMA_BLOCKS = 200         # coded again to compare inverse DCTs
MOST_WAYS, NEARLY = 2, 0.02   # tried with a luma table, and how near to the best they fit
FITS = 0.98               # share of chroma that comes out right in a whole picture
TOLD = 0.3                # share of the parts' blocks that a way gives back, to look no further
SURE = 0.9                # share of exact blocks that leaves no question
HALF = 0.5                # of the blocks whose levels round right: exact by the pixels' decoder
LEAST = 0.2               # share of exact blocks with a table that the lattice does not prove
UNKNOWN_DECODER = ('its decoder is not known here, or its pixels were changed a little after '
                   'decoding')


def codings(image: np.ndarray, found: Lattice,
            parts: Sequence[Part]) -> Iterator[tuple[Kind, tuple[int, int]]]:
    """Ways in which the file may have been coded, the likeliest first, with the block grid.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels.
    found : Lattice
        Theirs.
    parts : sequence of Part
        Theirs, as `telling_parts` returns them.

    Raises
    ------
    InputError
        The lattice tells no file.
    """
    tables = list(_tables(image, found))
    middle = [max(0, (length - PROBE) // 2 // (2 * BLOCK) * 2 * BLOCK)   # on the grid of chroma
              for length in image.shape[:2]]
    part = np.ascontiguousarray(image[middle[0]:middle[0] + PROBE, middle[1]:middle[1] + PROBE])

    for found, luma, chroma, dct in tables:
        grid = found.grid_dy, found.grid_dx
        kinds = [Kind(subsampling, luma, chroma, decoder)
                 for subsampling, decoder in _ways(image, found, dct)]
        choices = _ordered(part, _with_grids(kinds, grid))
        if choices[0][0] < FITS or len(kinds) > 1:  # too little colour in the middle, maybe
            best, some = _explaining(parts, kinds, grid)
            if some.exact >= max(1, TOLD * some.tested):
                yield from best[:MOST_WAYS]
                continue
        if not choices[0][0]:  # no block tells its chroma whole
            yield from sorted(_with_grids(kinds[:len(HALVED)], grid),
                              key=lambda way: way[1] != grid)
            continue
        if choices[0][0] < FITS:
            choices = [(kind, at) for kind in kinds for at in _grids(kind, grid)]
            if dct == 'accurate':
                choices += [(replace(kind, chroma_table=table), at) for kind, at in choices
                            for table in _chroma_tables(image, found, kind, at)]
            choices = _ordered(part, choices)
        yield from ((kind, at) for share, kind, at in choices[:MOST_WAYS]
                    if share > choices[0][0] - NEARLY)


def _explaining(parts, kinds, grid):
    """Ways that explain the parts best, and what the first one does.

    Decoders other than the default are tried where that leaves blocks unexplained.
    """
    for count in (len(HALVED), len(kinds)):
        best = ordered(parts, _with_grids(kinds[:count], grid))
        some = explained(parts, *best[0])
        if some.exact >= SURE * some.tested:
            break
    return best, some


def _ordered(part, choices):
    """Shares of chroma that come out right, kinds and grids, from the best on."""
    found = [(fit(part, *choice), *choice) for choice in choices]
    return sorted(found, key=lambda choice: -choice[0])


def _tables(image, found):
    """Lattices with a luma table, chroma tables where they belong to them, and the inverse DCT."""
    luma, chroma = standard_tables(), standard_tables(chroma=True)
    changed = found.tone or found.region_x is not None
    if changed or found.lifted or not found.qualities:
        whole = find_quality(image) if changed else found
        samples = _samples(image, whole)
        ways = []
        for dct in ('fast', 'float') if whole.any_table >= ANY_TABLE else ():
            shares = [_exact(samples, table, dct) for table in luma]
            best = int(np.argmax(shares))
            ways.append((shares[best], luma[best], chroma[best], dct))
        if ways and not found.qualities and max(way[0] for way in ways) < SURE:
            table = read_luma_table(image, (whole.grid_dy, whole.grid_dx))
            dct = _likeliest(samples, table)
            ways.append((_exact(samples, table, dct), table, table, dct))
        share, *way = max(ways, key=lambda way: way[0], default=(0,))
        if share >= (LEAST if found.region_x is None else SURE):
            yield replace(whole, subsampling=None) if way[2] != 'accurate' else whole, *way
            return
    refuse(found)
    samples, known = _samples(image, found), False
    for quality in sorted(found.qualities,
                          key=lambda quality: quality != found.quality)[:MOST_QUALITIES]:
        of_chroma = found.chroma_quality if quality == found.quality else None
        table = luma[quality - 1]
        dct = ('accurate' if not found.decoder
               and found.exact_blocks >= SURE * found.tested_blocks else _likeliest(samples, table))
        if (len(samples) == LUMA_BLOCKS
                and _exact(samples, table, dct) < HALF * rounded_right(table)):
            continue
        known = True
        yield found, table, chroma[(of_chroma or quality) - 1], dct
    if not known:
        raise InputError(UNKNOWN_DECODER)


def _samples(image, found):
    """Some blocks of luma without clipped pixels, less 128: (n, 64) float32."""
    samples = get_blocks(image, found.grid_dy, found.grid_dx).luma
    return samples[evenly_spaced(len(samples), LUMA_BLOCKS)]


def refuse(found: Lattice) -> None:
    """Raise InputError for a lattice that tells no file."""
    if not found.qualities:
        raise InputError('no quantization lattice is left in its pixels: they were changed after '
                         "decoding, or never were a JPEG's")
    for wrong, reason in (
            (found.region_x is not None, 'only a part of it was a JPEG; cut that part out first'),
            (found.tone, 'its tones were changed after decoding'),
            (found.qualities and found.quality is None,
             'its pixels leave too many qualities possible'),
            (found.repeated > 1, 'each pixel is repeated: it was enlarged; reduce it first'),
            (found.lifted, 'its brightness was changed after decoding'),
            (found.turned, 'it was turned by a quarter after decoding; turn it back first')):
        if wrong:
            raise InputError(reason)


def _likeliest(samples, table):
    """The inverse DCT with which most blocks are exact."""
    return max(('accurate', 'float', 'fast'), key=lambda dct: _exact(samples, table, dct))


def _exact(samples, table, dct):
    """Share of blocks (n, 64), less 128, that come out bit for bit."""
    if not len(samples):
        return 0.0
    decoder = Decoder('', dct)
    steps = decoder.steps(table)
    levels = np.rint((samples + np.float32(decoder.loss)) @ DCT2.T / steps).astype(np.int32)
    return (decoder.inverse_dct(levels, steps) == samples + 128).all(axis=1).mean()


def _ways(image, found, dct):
    """Subsamplings, and decoders with that inverse DCT."""
    decoders = [decoder for decoder in DECODERS if decoder.dct == dct]
    known = found.subsampling
    if known is None and (image == image[..., :1]).all():
        known = 'gray'
    if known:
        return [(known, decoders[0])]
    return [(subsampling, decoders[0]) for subsampling in list(HALVED)[::-1]] + [
        (subsampling, decoder) for decoder in decoders[1:3] for subsampling in ('4:2:0', '4:2:2')]


def _grids(kind, grid):
    """Where the first whole block of all planes may start: of two that are 8 px apart, if halved.
    """
    halved = HALVED.get(kind.subsampling, (False, False))
    rows, columns = ([at, at + BLOCK] if half else [at] for at, half in zip(grid, halved))
    return [(dy, dx) for dy in rows for dx in columns]


def _with_grids(kinds, grid):
    """Kinds with each of their grids; of an image that begins with a block, as a whole one does,
    with that alone."""
    return [(kind, at) for kind in kinds for at in (_grids(kind, grid) if any(grid) else [grid])]


def _chroma_tables(image, found, kind, grid):
    """Chroma tables that may go with a kind's luma table: IJG's newer one, and that of the image.
    """
    if not whole_blocks(image, grid, [1 + half for half in HALVED[kind.subsampling]]).size:
        return []
    read = read_chroma_table(image, HALVED[kind.subsampling], kind.decoder.upsampling, grid,
                             kind.luma_table)
    return [read] + [all_qualities(np.array(NEW_CHROMA))[quality - 1]
                     for quality in [found.quality] if quality]
