"""libjpeg's "fancy" upsampling of whole chroma planes, and back.

    full = upsampled(coded, halved=(True, True))           # 4:2:0; (False, True) is 4:2:2
    coded = downsampled(full, weights, halved)             # least squares

Between two coded samples the decoder sets two new ones at a quarter and three quarters of the way;
beyond the outermost ones it repeats them.

Sources: h2v1_fancy_upsample and h2v2_fancy_upsample in libjpeg's jdsample.c.
"""
import numpy as np

from classifier.recovery.stopping import check

TURNS = 24                # of conjugate gradients; the largest quotient of eigenvalues is 16
FEW = 2                   # samples in a row, up to which libjpeg repeats them instead


def _doubled(plane, axis):
    """Thrice the near sample and once the far one, along an axis of twice the length."""
    plane = plane.T if axis == 0 else plane
    near = 3 * plane
    out = np.empty((plane.shape[0], 2 * plane.shape[1]), plane.dtype)
    even, odd = out[:, ::2], out[:, 1::2]
    np.add(near[:, 1:], plane[:, :-1], out=even[:, 1:])
    np.add(near[:, :-1], plane[:, 1:], out=odd[:, :-1])
    even[:, 0], odd[:, -1] = 4 * plane[:, 0], 4 * plane[:, -1]
    return out.T if axis == 0 else out


def _halved(plane, axis):
    """The transpose of `_doubled`."""
    plane = plane.T if axis == 0 else plane
    even, odd = plane[:, ::2], plane[:, 1::2]
    out = 3 * (even + odd)
    out[:, :-1] += even[:, 1:]
    out[:, 1:] += odd[:, :-1]
    out[:, 0] += even[:, 0]
    out[:, -1] += odd[:, -1]
    return out.T if axis == 0 else out


def upsampled(coded: np.ndarray, halved: tuple[bool, bool]) -> np.ndarray:
    """What the decoder makes of a coded plane.

    Parameters
    ----------
    coded : uint8 array, shape (m, n)
    halved : (vertical, horizontal)

    Returns
    -------
    uint8 array
        Of twice the length where halved.
    """
    plane = coded.astype(np.int32)
    vertical, horizontal = halved
    if horizontal and coded.shape[1] <= FEW:
        return coded.repeat(2, axis=1).repeat(1 + vertical, axis=0)
    if vertical:
        plane = _doubled(plane, 0)
    if horizontal:
        plane = _doubled(plane, 1)
        plane[:, ::2] += 8 if vertical else 1
        plane[:, 1::2] += 7 if vertical else 2
        plane >>= 4 if vertical else 2
    return plane.astype(np.uint8)


def spread(coded: np.ndarray, halved: tuple[bool, bool]) -> np.ndarray:
    """The same in real numbers, without rounding."""
    for axis in np.flatnonzero(halved):
        coded = _doubled(coded, axis) * np.float32(0.25)
    return coded


def gathered(full: np.ndarray, halved: tuple[bool, bool]) -> np.ndarray:
    """The transpose of `spread`."""
    for axis in np.flatnonzero(halved):
        full = _halved(full, axis) * np.float32(0.25)
    return full


def downsampled(full: np.ndarray, weights: np.ndarray, halved: tuple[bool, bool]) -> np.ndarray:
    """The coded samples whose upsampling is nearest to a plane.

    Parameters
    ----------
    full : float32 array, shape (h, w)
        Even lengths where halved.
    weights : float32 array, shape (h, w)
        Of the squared differences, above 0.
    halved : (vertical, horizontal)

    Returns
    -------
    float32 array
    """
    coded = gathered(full, halved) / np.float32(2 ** np.count_nonzero(halved))
    residual = gathered(weights * (full - spread(coded, halved)), halved)
    direction, size = residual.copy(), float(np.vdot(residual, residual))
    for _ in range(TURNS):
        check()
        if size < 1e-6:
            break
        image = gathered(weights * spread(direction, halved), halved)
        step = size / float(np.vdot(direction, image))
        coded += np.float32(step) * direction
        residual -= np.float32(step) * image
        size, before = float(np.vdot(residual, residual)), size
        direction = residual + np.float32(size / before) * direction
    return coded
