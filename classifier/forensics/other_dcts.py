"""The inverse DCTs of decoders beside the accurate one of inverse_dct.py.

    samples = fast_dct(levels, fast_steps(table))    # (n, 64) uint8: libjpeg's JDCT_IFAST
    samples = float_dct(levels, table)               # JDCT_FLOAT
    samples = wide_dct(levels * table, 16)           # (n, 256): halved chroma, libjpeg 7 to 9

The first two take the 5 multiplications of Arai, Agui and Nakajima, after each coefficient was
scaled. The fast one keeps two bits below 1 of the scaled steps, eight of its factors, and cuts off
the rest. So fine steps become others (`fast_steps`), and samples are too low (FAST_LOSS).

The wide one makes 16 samples of 8 coefficients, and nothing is left to upsample. It only rounds at
the end of each of its two passes, so that a pass is a matrix of whole numbers.

Sources: Y. Arai, T. Agui and M. Nakajima, "A fast DCT-SQ scheme for images", Trans. IEICE E-71(11),
1988; libjpeg's jidctfst.c, jidctflt.c, jddctmgr.c and, from version 7 on, jidctint.c.
"""
import numpy as np

from classifier.forensics.inverse_dct import BITS, BLOCK, MORE

_axis = np.array([1, 1.387039845, 1.306562965, 1.175875602, 1, 0.785694958, 0.541196100,
                  0.275899379])
SCALES = np.outer(_axis, _axis).ravel()   # of the 64 coefficients
FACTORS = np.array([1.414213562, 1.847759065, 1.082392200, -2.613125930], np.float32)
FAST_FACTORS = 362, 473, 277, -669        # times 2**8
NO_STEP = 1e5
FAST_LOSS = 0.5           # levels by which the fast one's samples are too low, on average

# A pass, times 2**BITS: what coefficient v (down) adds to the first half of the samples. To the
# second half, mirrored, it adds as much, and of an odd v the negative.
EIGHT = np.array([
    [8192, 8192, 8192, 8192], [11363, 9633, 6437, 2260], [10703, 4433, -4433, -10703],
    [9633, -2259, -11362, -6436], [8192, -8192, -8192, 8192], [6437, -11362, 2261, 9633],
    [4433, -10704, 10704, -4433], [2260, -6436, 9633, -11363]])
SIXTEEN = np.array([
    [8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192],
    [11529, 11086, 10217, 8956, 7350, 5461, 3363, 1136],
    [11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363],
    [11086, 7350, 1136, -5461, -10217, -11529, -8955, -3363],
    [10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703],
    [10217, 1136, -8955, -11086, -3363, 7349, 11529, 5461],
    [9632, -2260, -11363, -6436, 6436, 11363, 2260, -9632],
    [8956, -5461, -11086, 1137, 11529, 3363, -10217, -7350]])
_SIGNS = np.tile([1, -1], BLOCK // 2)[:, None]
PASSES = {2 * half.shape[1]: np.hstack([half, _SIGNS * half[:, ::-1]]).T.astype(np.int32)
          for half in (EIGHT, SIXTEEN)}


def _both_ways(scaled, times, more=0):
    """Scaled coefficients (n, 64) after both passes, and `more` on all of them: (n, 64)."""
    planes = np.ascontiguousarray(scaled.T).reshape(BLOCK, BLOCK, -1)
    columns = np.ascontiguousarray(_pass(planes, times).transpose(1, 0, 2))  # v, y, n
    columns[0] += more
    rows = _pass(columns, times)                                             # x, y, n
    return rows.transpose(2, 1, 0).reshape(-1, BLOCK * BLOCK)


def _pass(rows, times):
    """One dimension, (8, m, n); `times` multiplies by one of the factors."""
    total, less, pair = rows[0] + rows[4], rows[0] - rows[4], rows[2] + rows[6]
    other = times(rows[2] - rows[6], 0) - pair
    evens = total + pair, less + other, less - other, total - pair
    a, b, c, d = rows[5] + rows[3], rows[5] - rows[3], rows[1] + rows[7], rows[1] - rows[7]
    turn = times(b + d, 1)
    first = c + a
    second = times(b, 3) + turn - first
    third = times(c - a, 0) - second
    fourth = times(d, 2) - turn + third
    out = np.empty_like(rows)
    for i, (even, odd) in enumerate(zip(evens, (first, second, third, -fourth))):
        out[i], out[7 - i] = even + odd, even - odd
    return out


def fast_steps(table: np.ndarray) -> np.ndarray:
    """The steps that the fast inverse DCT makes of a table's or of several, int (..., 64): float64.

    NO_STEP where it makes nothing of a coefficient, whatever its level.
    """
    scales = np.rint(SCALES * (1 << 14)).astype(np.int64)
    whole = table.astype(np.int64) * scales + (1 << 11) >> 12
    return np.where(whole, whole / (4 * SCALES), NO_STEP)


def fast_dct(levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """What the fast inverse DCT makes of levels (n, 64), with the steps of `fast_steps`."""
    whole = np.where(steps < NO_STEP, np.rint(steps * (4 * SCALES)), 0).astype(np.int32)
    rows = _both_ways(levels.astype(np.int32) * whole,
                      lambda rows, which: rows * FAST_FACTORS[which] >> 8)
    return ((rows >> MORE + 3) + 128).clip(0, 255).astype(np.uint8)


def float_dct(levels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """What the inverse DCT in floating point makes of levels (n, 64)."""
    scaled = (table * SCALES).astype(np.float32) * np.float32(0.125)
    rows = _both_ways(levels.astype(np.float32) * scaled,
                      lambda rows, which: rows * FACTORS[which], np.float32(128.5))
    return rows.clip(0, 255).astype(np.uint8)


def wide_dct(coefficients: np.ndarray, height: int) -> np.ndarray:
    """What libjpeg 7 to 9 make of a block of halved chroma, without upsampling.

    Parameters
    ----------
    coefficients : int array, shape (n, 64)
        Levels times steps.
    height : {8, 16}
        Of the block's pixels; 16 for 4:2:0. The width is 16.

    Returns
    -------
    uint8 array, shape (n, height * 16)
    """
    blocks = coefficients.reshape(-1, BLOCK, BLOCK).astype(np.int32)
    columns = PASSES[height] @ blocks + (1 << BITS - MORE - 1) >> BITS - MORE
    shift = BITS + MORE + 3
    rows = columns @ PASSES[16].T + (1 << shift - 1) >> shift
    return (rows + 128).clip(0, 255).astype(np.uint8).reshape(len(blocks), -1)
