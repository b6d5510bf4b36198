"""Blocks of all three planes (4:4:4) of which few levels are wrong: changed by single steps.

    levels, exact = change_levels(pixels, starts, tables)

Of a number of levels that come near a block's pixels, each change of one of the 192 coefficients by
a step is tried; those that then leave least of B, G and R beyond their bounds go on, none of them
twice. It ends with the very pixels, or after some rounds.
"""
import numpy as np

from classifier.forensics.blocks import BLOCK, DCT2
from classifier.recovery.colours import TO_BGR, to_bgr
from classifier.recovery.decoders import decoded

KEPT, ROUNDS = 48, 14     # levels that go on, and how often
EVEN = 256, 24            # the same where rows or columns are all the same
SLACK = 0.4               # levels that rounding moves a channel


def active_levels(pixels: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Which coefficients a block (64, 3) may have: (64,) bool.

    Where its rows are all the same, or its columns, it has only some. Of a block that is not
    visible (64,) everywhere it is not known.
    """
    square = pixels.reshape(BLOCK, BLOCK, 3)
    rows, columns = (visible.all() and (square == square.take([0], axis)).all()
                     for axis in (0, 1))
    frequency = np.arange(BLOCK)
    return np.outer((frequency == 0) | (not rows), (frequency == 0) | (not columns)).ravel()


def _different(active):
    """Pixels (64,) that stand for all, where rows or columns are the same."""
    first = np.arange(BLOCK) == 0
    square = active.reshape(BLOCK, BLOCK)
    return np.outer(first | square[:, 0].all(), first | square[0].all()).ravel()


def _off(samples, plane, moves, least, most):
    """How far B, G and R are beyond their bounds (3, s) with moves (m, s) of one plane's samples:
    (n, m) for samples (3, n, s) of all planes, which are clipped before they become B, G and R.
    """
    inside = samples.clip(-128, 127)
    inside[plane] = 0
    moved = (samples[plane][:, None] + moves).clip(-128, 127)
    off = np.float32(0)
    for weights, low, high in zip(TO_BGR, least, most):
        values = np.tensordot(weights, inside, 1)[:, None] + weights[plane] * moved
        off = off + np.square(values - values.clip(low, high)).sum(axis=2)
    return off


def change_levels(pixels: np.ndarray, starts: np.ndarray,
                  tables: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, bool]:
    """Levels of one block.

    Parameters
    ----------
    pixels : uint8 array, shape (64, 3)
        BGR, all of them of the picture.
    starts : int32 array, shape (3, n, 64)
        Levels near to the block's.
    tables : three int arrays, shape (64,)

    Returns
    -------
    levels : int32 array, shape (3, 64)
        The first of those given, if none gave the pixels.
    exact : bool
    """
    active = active_levels(pixels, np.ones(len(pixels), bool))
    at = np.flatnonzero(_different(active))
    seen = pixels[at]
    least = np.where(seen > 0, seen - np.float32(128 + SLACK), -np.inf).T.astype(np.float32)
    most = np.where(seen < 255, seen - np.float32(128 - SLACK), np.inf).T.astype(np.float32)
    # what a step of each coefficient adds to the samples of its plane: (3, 64, s)
    adds = np.stack(tables)[:, :, None].astype(np.float32) * DCT2[:, at]
    signs = np.repeat([1, -1], active.sum())
    moved = np.tile(np.flatnonzero(active), 2)
    unit = np.zeros((3, len(signs), 3, 64), np.int32)
    for plane in range(3):
        unit[plane, np.arange(len(signs)), plane, moved] = signs
    unit = unit.reshape(-1, 3 * 64)
    now = starts.swapaxes(0, 1).reshape(-1, 3 * 64).astype(np.int32)
    known = {one.tobytes() for one in now}
    kept, rounds = (KEPT, ROUNDS) if active.all() else EVEN
    for _ in range(rounds):
        samples = np.einsum('npk,pks->pns', now.reshape(-1, 3, 64).astype(np.float32), adds,
                            optimize=True)
        off = np.concatenate([_off(samples, plane, adds[plane, moved] * signs[:, None],
                                   least, most) for plane in range(3)], axis=1)
        order = np.argpartition(off, min(2 * kept, off.size - 1), axis=None)[:2 * kept]
        order = order[off.ravel()[order].argsort()]
        tried = []
        for one in now[order // len(unit)] + unit[order % len(unit)]:
            if one.tobytes() not in known and len(tried) < kept:
                known.add(one.tobytes())
                tried.append(one)
        if not tried:
            break
        now = np.stack(tried)
        planes = (decoded(now[:, 64 * i:64 * i + 64], table) for i, table in enumerate(tables))
        good = (to_bgr(*planes) == pixels).all(axis=(1, 2))
        if good.any():
            return now[good.argmax()].reshape(3, 64), True
    return starts[:, 0], False
