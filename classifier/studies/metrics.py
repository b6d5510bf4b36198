"""How far predicted qualities are from the true ones: numbers, lines of text, figures."""
from typing import Any

import numpy as np


def error_metrics(truth: np.ndarray, predicted: np.ndarray) -> dict:
    """Metrics of predicted against true qualities.

    Parameters
    ----------
    truth, predicted : arrays, shape (n,)
        Qualities, 1..100; NaN where there is no answer.

    Returns
    -------
    dict
        For JSON, of the answers. In levels of quality: mean absolute error (also by decade of the
        truth) and standard deviation of the error; and the shares within 0.5, 1 and 2 levels, 0..1.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted, float)
    answered = ~np.isnan(predicted)
    truth, error = truth[answered], (predicted - truth)[answered]
    if not error.size:
        return {'count': 0, 'mae': None}
    return {'count': len(error),
            'mae': float(np.abs(error).mean()),
            'std': float(error.std()),
            **{f'within_{k:g}': float((np.abs(error) <= k).mean()) for k in (0.5, 1, 2)},
            'mae_by_decade': by_decade(truth, np.abs(error))}


def by_decade(truth: np.ndarray, values: np.ndarray) -> dict:
    """Means of values (n,) over true qualities 1-10, ..., 91-100, where there are any."""
    decade = (np.asarray(truth) - 1) // 10
    return {f'{10 * d + 1}-{10 * d + 10}': float(values[decade == d].mean())
            for d in np.unique(decade)}


def describe(metrics: dict) -> str:
    """`error_metrics` as lines for people."""
    if not metrics['count']:
        return 'no answer for any image'
    shares = ', '.join(f'within {k}: {100 * metrics[f"within_{k}"]:.1f} %'
                       for k in ('0.5', '1', '2'))
    decades = [f'{d:>8}  {v:.3f}' for d, v in metrics['mae_by_decade'].items()]
    return '\n'.join([f'MAE {metrics["mae"]:.3f}, standard deviation of the error '
                      f'{metrics["std"]:.3f}, {metrics["count"]} images', shares,
                      f'{"quality":>8}  MAE', *decades])


def confusion_figure(truth: np.ndarray, predicted: dict[str, np.ndarray]) -> Any:
    """True against predicted quality, a panel for each method; its columns add up to 1.

    Parameters
    ----------
    truth : int array, shape (n,)
        Qualities, 1..100.
    predicted : dict
        {title of a panel: float array, shape (n,)}.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    figure = Figure(figsize=(2 + 6 * len(predicted), 6.6), layout='constrained')
    panels = figure.subplots(1, len(predicted), squeeze=False)[0]
    levels, edges = np.arange(1, 101), np.arange(0.5, 101)
    for panel, (title, values) in zip(panels, predicted.items()):
        rounded = np.clip(np.rint(values), 1, 100)
        matrix = np.histogram2d(rounded, truth, (edges, edges))[0]
        matrix /= np.maximum(matrix.sum(axis=0), 1)
        panel.set(xlabel='true quality', ylabel='predicted quality', title=title, aspect='equal',
                  xticks=[1, *range(10, 101, 10)], yticks=[1, *range(10, 101, 10)])
        panel.grid(alpha=0.2)
        mesh = panel.pcolormesh(levels, levels, np.ma.masked_equal(matrix, 0),
                                norm=LogNorm(0.01, 1), cmap='viridis_r')
    figure.colorbar(mesh, ax=panels, pad=0.01, label='share of the images of that true quality',
                    format='{x:g}')
    return figure
