"""The 8x8 blocks of an image at one phase of the JPEG block grid, and their DCT coefficients.

    blocks = get_blocks(bgr_image, dy, dx)     # the first whole block starts at row dy, column dx
    print(blocks.coefficients.shape)           # (n, 64)

The luma is the decoder's own. Blocks in which a channel was clipped are left out; lattice.py
says why.

Sources: ITU-T T.81, A.3.3 (DCT); JFIF 1.02 (colours).
"""
from dataclasses import dataclass

import cv2
import numpy as np

from classifier.forensics.inverse_dct import ACCURATE, InverseDct

BLOCK = 8
SAMPLED = 2048            # block positions looked at
MAX_BLOCKS = 1200         # blocks used
FIRST_LINES = 16          # that are mostly enough to see that no line is repeated
LOOKED_AT = 8             # every eighth pixel of a line shows whether the next line is another
FEW_BLOCKS = 48           # with fewer than these, partly clipped blocks are used too
CLIPPED_PIXELS = 12       # most clipped pixels such a block may have; 30..98 % of them fit

_u, _x = np.mgrid[:BLOCK, :BLOCK]  # frequencies x pixels; the matrix is orthonormal
DCT = (np.where(_u == 0, np.sqrt(1 / BLOCK), np.sqrt(2 / BLOCK))
       * np.cos((2 * _x + 1) * _u * np.pi / (2 * BLOCK)))
DCT2 = np.kron(DCT, DCT).astype(np.float32)  # (64, 64): frequencies x pixels, row by row
# The DCT at the 8 offsets 0..7 in 16 pixels: (offset, frequency, pixel).
SHIFTED_DCT = np.stack([np.pad(DCT, ((0, 0), (offset, BLOCK - offset)))
                        for offset in range(BLOCK)]).astype(np.float32)
_HASH = np.random.default_rng(1).integers(1, 2**36, 4 * BLOCK * BLOCK).astype(float)


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """At most `limit` of the indices 0..count-1, evenly spaced."""
    return np.arange(count) if count <= limit else (np.arange(limit) * (count / limit)).astype(int)


def cut_windows(image: np.ndarray, dy: int, dx: int, side: int,
                limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most `limit` square windows on the block grid of phase (dy, dx), evenly spaced.

    Returns their rows and columns, two (n,) int arrays, and pixels, (n, side, side, 3) uint8.
    """
    rows, columns = (max(0, (length - first - side) // BLOCK + 1)
                     for length, first in zip(image.shape, (dy, dx)))
    chosen = evenly_spaced(rows * columns, limit)
    # an even stride would visit the same few columns of a wide image: shear the rows
    row = chosen // max(1, columns)
    y, x = dy + BLOCK * row, dx + BLOCK * ((chosen + 7 * row) % max(1, columns))
    if not len(chosen):
        return y, x, np.zeros((0, side, side, 3), np.uint8)
    return y, x, _lines(image, 3 * side)[y[:, None] + np.arange(side), x[:, None]].view(
        np.uint8).reshape(-1, side, side, 3)


def _lines(image, width):
    """The `width` bytes from each pixel on, as one item: copied ten times as fast as numbers."""
    if image.strides[1:] != (3, 1):
        image = np.ascontiguousarray(image)
    shape = len(image), image.shape[1] - width // 3 + 1, width
    lines = np.lib.stride_tricks.as_strided(image, shape, image.strides, writeable=False)
    return lines.view(f'V{width}')[..., 0]


def pixel_repetition(image: np.ndarray) -> tuple[int, int, int]:
    """How often each pixel of (h, w, 3) is repeated both ways; where the first whole one starts.

    (1, 0, 0) for most images, and where rows or columns change at too few places to say.
    """
    found = []
    for lines in (image, image.transpose(1, 0, 2)):
        lines = lines[:, ::LOOKED_AT]
        first = lines[:FIRST_LINES]
        new = (first[1:] != first[:-1]).any(axis=(1, 2))
        if (new[1:] & new[:-1]).any():  # two changes in a row: as in most images
            return 1, 0, 0
        changes = np.flatnonzero((lines[1:] != lines[:-1]).any(axis=(1, 2))) + 1
        times = int(np.gcd.reduce(np.diff(changes))) if len(changes) > BLOCK else 1
        if times < 2 or len(changes) * times * 2 < len(lines):
            return 1, 0, 0
        found.append((times, int(changes[0]) % times))
    (times, row), (other, column) = found
    return (times, row, column) if times == other else (1, 0, 0)


def without_repetition(image: np.ndarray) -> tuple[int, np.ndarray]:
    """How often each pixel of (h, w, 3) is repeated both ways, and the image with each once."""
    times, row, column = pixel_repetition(image)
    return times, image if times == 1 else np.ascontiguousarray(image[row::times, column::times])


def decoder_luma(windows: np.ndarray) -> np.ndarray:
    """The decoder's luma of (n, side, side, 3) uint8 BGR windows: (n, side, side) uint8."""
    if not len(windows):
        return np.zeros(windows.shape[:3], np.uint8)
    rows = windows.reshape(len(windows), -1, 3)  # long ones are faster
    return cv2.cvtColor(rows, cv2.COLOR_BGR2GRAY).reshape(windows.shape[:3])


def clipped_pixels(windows: np.ndarray) -> np.ndarray:
    """Where a channel is at 0 or 255: (n, side, side) bool."""
    extreme = (windows - np.uint8(1)) >= 254  # 0 wraps to 255
    return extreme[..., 0] | extreme[..., 1] | extreme[..., 2]


def has_clipped(windows: np.ndarray) -> np.ndarray:
    """Which windows (n, side, side, 3) uint8 have `clipped_pixels`: (n,) bool."""
    lines = windows.reshape(len(windows), windows.shape[1] * windows.shape[2] * 3)
    return (lines - np.uint8(1) >= 254).any(axis=1)


@dataclass(frozen=True)
class Blocks:
    """What one grid phase shows: distinct blocks, levels of flat ones, partly clipped ones."""
    luma: np.ndarray         # (n, 64) float32, 0 is mid-gray
    coefficients: np.ndarray  # (n, 64) float32
    flat: np.ndarray         # (m,) int: the different gray levels of flat blocks
    clipped: np.ndarray      # (k, 64) float32: coefficients of blocks with a few clipped pixels
    dct: InverseDct = ACCURATE   # that is taken to have made them


def get_blocks(image: np.ndarray, dy: int, dx: int) -> Blocks:
    """The blocks at one grid phase: at most MAX_BLOCKS, evenly spaced, without repeats.

    Repeats (text, tiles, dither) look like evidence but are one observation. Blocks with
    a few clipped pixels are taken only where there are fewer than FEW_BLOCKS others.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels.
    dy, dx : int
        Where the first whole block starts, 0..7 px.
    """
    *_, windows = cut_windows(image, dy, dx, BLOCK, SAMPLED)
    off = np.zeros(len(windows), int)
    some = np.flatnonzero(has_clipped(windows))
    off[some] = clipped_pixels(windows[some]).sum(axis=(1, 2))
    luma, flat = distinct_blocks(decoder_luma(windows[off == 0]), MAX_BLOCKS)
    clipped = luma[:0]
    if len(luma) < FEW_BLOCKS:
        partly = decoder_luma(windows[(off > 0) & (off <= CLIPPED_PIXELS)])
        clipped = distinct_blocks(partly, FEW_BLOCKS - len(luma))[0] @ DCT2.T
    return Blocks(luma, luma @ DCT2.T, flat, clipped)


def distinct_blocks(planes: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct blocks of (n, 8, 8) uint8, less 128: (m, 64) float32; levels of flat ones: int."""
    planes = planes.reshape(-1, BLOCK * BLOCK)
    first, flat = distinct(planes)
    return (planes[first[evenly_spaced(len(first), limit)]].astype(np.float32) - 128,
            np.unique(planes[flat, 0]).astype(int))


def distinct(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of each kind of (n, m) uint8, m up to 256, and which are flat: (k,) int, (n,) bool.

    Two are the same if the differences within are; flat ones are left out.
    """
    hashes = (planes - planes[:, :1]).astype(float) @ _HASH[:planes.shape[1]]  # exact: below 2^52
    _, first = np.unique(hashes, return_index=True)
    return np.sort(first[hashes[first] != 0]), hashes == 0
