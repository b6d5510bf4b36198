"""Pictures that are a pattern: the same patches again and again, of which the network is too sure.

A checkerboard or a halftone of one tone shows it a single texture, seen from a few phases. It takes
edges that lie 8 px apart for those of JPEG blocks, at every patch alike. Of most checkerboards, and
gradients along one axis, 1 to 36 % of the textured patches differ, of other drawings and of
graphics to train on at least 42 % (136 images of few different blocks).
"""
import numpy as np

DIFFERENT = 0.4           # of the textured patches, at least, in a picture that is no pattern
LEAST = 64                # textured patches; of fewer, nothing can be said
TEXTURE = 6               # gray levels between the darkest and the lightest pixel of a channel


def is_pattern(patches: np.ndarray) -> bool:
    """Whether patches (n, side, side, 3) uint8 repeat one another."""
    rows = patches.reshape(len(patches), -1, 3)
    textured = rows[np.ptp(rows, axis=1).max(axis=1) >= TEXTURE]
    different = len({patch.tobytes() for patch in textured})
    return len(textured) >= LEAST and different < DIFFERENT * len(textured)
