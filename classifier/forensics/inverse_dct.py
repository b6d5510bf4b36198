"""libjpeg's inverse DCT in whole numbers, bit for bit.

    pixels = inverse_dct(levels * steps)      # (n, 64) int -> (n, 64) uint8

libjpeg and libjpeg-turbo decode with it unless they are told otherwise ("islow"), and so do
Pillow and OpenCV: the 12-multiplication algorithm of Loeffler, Ligtenberg and Moschytz with
constants of 13 bits, columns first, their results kept with 2 more bits. An `InverseDct` is what
the proof needs to know of this one, or of another decoder's (decoded_otherwise.py).

Sources: C. Loeffler, A. Ligtenberg and G. Moschytz, "Practical fast 1-D DCT algorithms with
11 multiplications", ICASSP 1989; constants and rounding as described in libjpeg's jidctint.c.
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BLOCK = 8
BITS, MORE = 13, 2        # of the constants, and kept between the two passes


def _constant(value):
    return int(value * (1 << BITS) + 0.5)


# sqrt(2) times cosines of multiples of pi / 16, and their sums and differences
C0541, C0765, C1847 = map(_constant, (0.541196100, 0.765366865, 1.847759065))
C0298, C2053, C3072, C1501 = map(_constant, (0.298631336, 2.053119869, 3.072711026, 1.501321110))
C0899, C2562, C1961, C0390 = map(_constant, (0.899976223, 2.562915447, 1.961570560, 0.390180644))
C1175 = _constant(1.175875602)


def _pass(rows, shift):
    """One dimension: (8, m, n) int32 frequencies -> (8, m, n) int32, divided by 2**shift."""
    even = (rows[2] + rows[6]) * C0541
    low, high = even - rows[6] * C1847, even + rows[2] * C0765
    total, less = (rows[0] + rows[4]) << BITS, (rows[0] - rows[4]) << BITS
    half = 1 << (shift - 1)
    evens = total + high + half, less + low + half, less - low + half, total - high + half

    a, b, c, d = rows[7], rows[5], rows[3], rows[1]
    ac, bd = a + c, b + d
    turn = (ac + bd) * C1175
    ad, bc = (a + d) * -C0899, (b + c) * -C2562
    ac, bd = turn - ac * C1961, turn - bd * C0390
    odds = (d * C1501 + ad + bd, c * C3072 + bc + ac, b * C2053 + bc + bd, a * C0298 + ad + ac)
    out = np.empty_like(rows)
    for i, (sum_of, by) in enumerate(zip(evens, odds)):
        out[i], out[7 - i] = (sum_of + by) >> shift, (sum_of - by) >> shift
    return out


def inverse_dct(coefficients: np.ndarray) -> np.ndarray:
    """The samples that libjpeg decodes from dequantized coefficients.

    Parameters
    ----------
    coefficients : int array, shape (n, 64)
        Levels times steps, row by row (row = vertical frequency).

    Returns
    -------
    uint8 array, shape (n, 64)
        Samples 0..255, row by row.
    """
    planes = np.ascontiguousarray(coefficients.T, np.int32).reshape(BLOCK, BLOCK, -1)
    columns = _pass(planes, BITS - MORE)             # y, v, n
    rows = _pass(np.ascontiguousarray(columns.transpose(1, 0, 2)), BITS + MORE + 3)  # x, y, n
    samples = np.clip(rows + 128, 0, 255).astype(np.uint8)
    return samples.transpose(2, 1, 0).reshape(-1, BLOCK * BLOCK)


@dataclass(frozen=True)
class InverseDct:
    """What a decoder makes of levels, as the proof by exact blocks asks for it."""
    name: str | None         # one of lattice.py's decoders; None for libjpeg's accurate one
    explains: Callable  # levels (n, 64), tables (64,) or (n, 64), uint8 samples (n, 64): bool (n,)
    steps: Callable = np.asarray   # between the samples' coefficients, for tables (..., 64)
    misfit: float = 1.0      # times as many pixels off the lattice as of the accurate one


ACCURATE = InverseDct(None, lambda levels, tables, samples: (
    inverse_dct(levels * tables) == samples).all(axis=1))
