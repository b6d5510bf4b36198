"""Where in an image which quality is seen."""
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from classifier.models import grid_positions, patch_windows
from classifier.predictor import Predictor


@dataclass(frozen=True)
class QualityMap:
    """Quality and confidence block by block (stride 8 px).

    Parameters
    ----------
    quality, confidence : float arrays, shape (rows, columns)
        0..100, means over the neighbourhood of the patch that starts at (8 row, 8 column) px, in
        which surer patches count for more.
    """
    quality: np.ndarray
    confidence: np.ndarray


def quality_map(predictor: Predictor, image: np.ndarray, neighbourhood: int = 5) -> QualityMap:
    """The `QualityMap` of an image.

    Parameters
    ----------
    predictor : Predictor
    image : uint8 array, shape (h, w, 3)
        BGR pixels, each side at least 16 px; InputError for a shorter one.
    neighbourhood : int
        Side, in blocks, of the square that is averaged over. A patch's weight falls by a factor
        of e for each 5 levels of confidence below 100.
    """
    t = predictor.type
    for side in image.shape[:2]:
        grid_positions(side, t)  # refuses one that is too short
    windows = patch_windows(image, t)[::t.block, ::t.block]
    confidence, quality = np.concatenate(
        [predictor.run_network(np.ascontiguousarray(row)) for row in windows]).T
    shape = windows.shape[:2]
    weight = np.exp((confidence.reshape(shape) - 100) / 5).astype(np.float32)

    def mean(values):
        return cv2.blur(values, (neighbourhood, neighbourhood), borderType=cv2.BORDER_REFLECT)

    return QualityMap(mean(weight * quality.reshape(shape)) / mean(weight),
                      mean(np.ascontiguousarray(confidence.reshape(shape))))


def map_figure(image: np.ndarray, found: QualityMap, threshold: float) -> Any:
    """A matplotlib figure of the map over the image, hatched where the network is unsure."""
    from matplotlib.figure import Figure
    height, width = image.shape[:2]
    figure = Figure(figsize=(9, 1 + 8 * min(height / width, 5)))  # a strip would be too long
    axes = figure.add_subplot()
    axes.imshow(image[:, :, 1], cmap='gray', vmin=0, vmax=255)
    rows, cols = found.quality.shape
    extent = (4, 8 * cols + 4, 8 * rows + 4, 4)  # each value stands for its middle block
    heat = axes.imshow(found.quality, extent=extent, cmap='viridis', vmin=1, vmax=100, alpha=0.6)
    unsure = found.confidence < threshold - 5
    if unsure.any() and min(unsure.shape) > 1:  # there is no contour on a single row
        y, x = 8 + 8 * np.arange(rows), 8 + 8 * np.arange(cols)
        axes.contourf(x, y, unsure, levels=[0.5, 1.5], colors='none', hatches=['////'])
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    figure.colorbar(heat, label='quality (hatched: unsure)', shrink=0.8)
    return figure
