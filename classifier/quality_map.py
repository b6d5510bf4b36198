"""Where in an image which quality is seen."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from classifier.models import grid_positions, patch_windows
from classifier.predictor import Predictor

LEAST_RANGE = 20  # levels that the colours of a map span at least: less is noise


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


def quality_map(predictor: Predictor, image: np.ndarray, neighbourhood: int = 5,
                watch: Callable[[int, int], Any] | None = None) -> QualityMap:
    """The `QualityMap` of an image.

    Parameters
    ----------
    predictor : Predictor
    image : uint8 array, shape (h, w, 3)
        BGR pixels, each side at least 16 px; InputError for a shorter one.
    neighbourhood : int
        Side, in blocks, of the square that is averaged over. A patch's weight falls by a factor
        of e for each 5 levels of confidence below 100.
    watch : callable, optional
        Gets, before each row of blocks, how many are done, and how many there are.
    """
    t = predictor.type
    for side in image.shape[:2]:
        grid_positions(side, t)  # refuses one that is too short
    windows = patch_windows(image, t)[::t.block, ::t.block]
    rows = []
    for row in windows:
        if watch:
            watch(len(rows), len(windows))
        rows.append(predictor.run_network(np.ascontiguousarray(row)))
    confidence, quality = np.concatenate(rows).T
    shape = windows.shape[:2]
    weight = np.exp((confidence.reshape(shape) - 100) / 5).astype(np.float32)

    def mean(values):
        return cv2.blur(values, (neighbourhood, neighbourhood), borderType=cv2.BORDER_REFLECT)

    return QualityMap(mean(weight * quality.reshape(shape)) / mean(weight),
                      mean(np.ascontiguousarray(confidence.reshape(shape))))


def map_figure(image: np.ndarray, found: QualityMap, threshold: float) -> Any:
    """A matplotlib figure of an image and, beside it, its map, hatched where it means little.

    Parameters
    ----------
    image : uint8 array, shape (h, w, 3)
        BGR pixels.
    found : QualityMap
        Of this image.
    threshold : float
        Confidence 0..100; blocks more than 5 below it are hatched, and do not set the range of
        colours.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    height, width = image.shape[:2]
    figure = Figure(figsize=(11, float(np.clip(4.8 * height / width, 2, 16)) + 0.8),
                    layout='constrained')
    panels = figure.subplots(1, 2)
    panels[0].imshow(image[:, :, ::-1], extent=(0, width, height, 0))
    panels[0].set_title('(a) image', fontsize=13)
    unsure = found.confidence < threshold - 5
    lowest, highest = _colour_range(found.quality if unsure.all() else found.quality[~unsure])
    # A value stands for the block in the middle of its patch; the outermost reach to the edge.
    y, x = (8 + 8 * np.arange(n) for n in found.quality.shape)
    edges = [np.r_[0, (centres[1:] + centres[:-1]) / 2, side]
             for centres, side in ((x, width), (y, height))]
    heat = panels[1].pcolormesh(*edges, found.quality, cmap='cividis', vmin=lowest, vmax=highest)
    if unsure.any():
        panels[1].contourf(np.r_[0, x, width], np.r_[0, y, height], np.pad(unsure, 1, 'edge'),
                           levels=[0.5, 1.5], colors='none', hatches=['////'])
    panels[1].set_title('(b) quality' + (', hatched where unsure' if unsure.any() else ''),
                        fontsize=13)
    panels[1].set(aspect='equal')
    for panel in panels:
        panel.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    bar = figure.colorbar(heat, ax=panels, shrink=0.8, extend='both', pad=0.02)
    bar.set_label('quality', fontsize=13)
    bar.ax.tick_params(labelsize=12)
    return figure


def _colour_range(quality):
    """The lowest and highest quality, at least LEAST_RANGE apart, for the colours."""
    lowest, highest = float(quality.min()), float(quality.max())
    more = max(0.0, LEAST_RANGE - (highest - lowest)) / 2
    return max(0.0, lowest - more), min(100.0, highest + more)
