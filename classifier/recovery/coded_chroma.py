"""The chroma that was coded, as far as rounding goes: to read its table, and to tell its halving.

    planes, known, pixels = coded_chroma(image, (True, True), 'fancy', grid)
    share = fit(image, kind, grid)             # of pixels whose chroma comes out right
"""
import cv2
import numpy as np

from classifier.forensics.blocks import BLOCK, DCT, DCT2
from classifier.forensics.other_dcts import wide_dct
from classifier.recovery.colours import chroma_bounds
from classifier.recovery.decoders import decoded, loss
from classifier.recovery.layout import from_blocks, to_blocks
from classifier.recovery.picture import HALVED, Kind
from classifier.recovery.unfiltered import WIDE, cut, joined, pasted
from classifier.recovery.upsampling import downsampled, upsampled


def whole_blocks(image: np.ndarray, grid: tuple[int, int],
                 unit: tuple[int, int] = (1, 1)) -> np.ndarray:
    """The part of an image that consists of whole blocks, each 8 times `unit` px high and wide."""
    height, width = ((length - first) // (BLOCK * by) * BLOCK * by
                     for length, first, by in zip(image.shape, grid, unit))
    return image[grid[0]:grid[0] + height, grid[1]:grid[1] + width]


def coded_chroma(image: np.ndarray, halved: tuple[bool, bool], upsampling: str,
                 grid: tuple[int, int]
                 ) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Samples of Cb and Cr, where the pixels tell them, and what the pixels have.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR.
    halved : (vertical, horizontal)
    upsampling : str
        A `Decoder`'s.
    grid : (dy, dx)
        Where the first whole block of chroma is, 0..7 or 0..15 px.

    Returns
    -------
    planes : two float32 arrays, shape (m, n)
        Less 128, of whole blocks.
    known : bool array, shape (m, n)
    pixels : two float32 arrays, shape (h', w')
        Cb and Cr of the whole blocks' pixels, less 128; guesses where a channel is clipped.
    """
    unit = [1 + half for half in halved]
    known, *bounds = chroma_bounds(whole_blocks(image, grid, unit))
    planes = []
    for plane in bounds:
        if not any(halved):
            samples = plane.guess
        elif upsampling == 'plain':
            samples = joined(plane, unit).guess
        elif upsampling == 'wide':
            basis = np.kron(WIDE if halved[0] else DCT, WIDE).astype(np.float32)
            blocks = cut(plane.guess, unit[0] * BLOCK) @ basis.T
            count = [length // (BLOCK * by) for length, by in zip(known.shape, unit)]
            samples = from_blocks(blocks / np.float32(np.sqrt(2) ** sum(halved)) @ DCT2, count)
        else:
            samples = downsampled(plane.guess, np.where(known, 1, 1e-4).astype(np.float32), halved)
        planes.append(samples)
    if any(halved):  # upsampling takes neighbours, too
        known = cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8))
        known = known.reshape(len(known) // unit[0], unit[0], -1, unit[1]).min(axis=(1, 3)) > 0
    return planes, known, [plane.guess for plane in bounds]


def fit(image: np.ndarray, kind: Kind, grid: tuple[int, int]) -> float:
    """Share of the pixels' Cb and Cr that come back when their coefficients are only rounded.

    Of blocks that the pixels tell whole; 0 where there are none.
    """
    if kind.subsampling == 'gray':
        return 1.0
    halved = HALVED[kind.subsampling]
    unit = [1 + half for half in halved]
    if not whole_blocks(image, grid, unit).size:
        return 0.0
    planes, known, pixels = coded_chroma(image, halved, kind.decoder.upsampling, grid)
    whole = to_blocks(known).all(axis=1)
    seen = from_blocks(np.repeat(whole[:, None], BLOCK * BLOCK, axis=1),
                       [length // BLOCK for length in known.shape])
    seen = seen.repeat(unit[0], axis=0).repeat(unit[1], axis=1)
    same = []
    with kind.decoder.at_work():
        steps = kind.decoder.steps(kind.chroma_table)
        for samples, of_pixels in zip(planes, pixels):
            levels = np.rint(to_blocks(samples + np.float32(loss())) @ DCT2.T / steps)
            levels = levels.astype(np.int32)
            count = [length // BLOCK for length in samples.shape]
            if kind.decoder.upsampling == 'wide' and any(halved):
                full = pasted(wide_dct(levels * kind.chroma_table, BLOCK * unit[0]), count)
            else:
                full = from_blocks(decoded(levels, steps), count)
                if kind.decoder.upsampling == 'plain':
                    full = full.repeat(unit[0], axis=0).repeat(unit[1], axis=1)
                else:
                    full = upsampled(full, halved)
            same.append((full == of_pixels + 128)[seen])
    return float(np.mean(same)) if seen.any() else 0.0
