"""How far predicted qualities are from the true ones: numbers, lines of text, figures."""
from typing import Any

import numpy as np

LINEAR_ERRORS = 5  # levels; a figure with larger errors shows these on a logarithmic axis


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
    """Predicted minus true quality by the true one, a panel for each method.

    The columns of a panel add up to 1. Cells of a single image are as visible as others.

    Parameters
    ----------
    truth : int array, shape (n,)
        Qualities, 1..100.
    predicted : dict
        {title of a panel: float array, shape (n,)}; the title names network and rule.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
    figure = Figure(figsize=(max(7, 1.7 + 3.6 * len(predicted)), 4.4), layout='constrained')
    panels = figure.subplots(1, len(predicted), squeeze=False, sharey=True)[0]
    errors = {title: np.clip(np.rint(values), 1, 100) - truth
              for title, values in predicted.items()}
    largest = max(LINEAR_ERRORS, *(int(np.abs(error).max(initial=0)) for error in errors.values()))
    edges = np.arange(0.5, 101), np.arange(-largest - 0.5, largest + 1)
    fewest = 1 / max(1, np.bincount(truth, minlength=1).max())
    # Blues without the lightest third, which white paper would hide.
    colours = ListedColormap(colormaps['Blues'](np.linspace(0.33, 1, 256)))
    for letter, panel, (title, error) in zip('abcdefgh', panels, errors.items()):
        matrix = np.histogram2d(truth, error, edges)[0]
        matrix /= np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        mesh = panel.pcolormesh(*edges, np.ma.masked_equal(matrix.T, 0), cmap=colours,
                                norm=LogNorm(min(fewest, 0.5), 1), edgecolors='face',
                                linewidth=0.7)
        panel.axhline(0, color='gray', linewidth=0.6)
        panel.set_title(f'({letter}) {title}' if len(errors) > 1 else title, fontsize=12)
        panel.set_xlabel('true quality', fontsize=12)
        panel.set(xlim=(0.5, 100.5), xticks=[1, *range(20, 101, 20)])
        panel.grid(alpha=0.25)
    label = 'predicted minus true quality'
    if largest > LINEAR_ERRORS:
        panels[0].set_yscale('symlog', linthresh=LINEAR_ERRORS, subs=[2, 5])
        ticks = [t for t in (1, 2, 5, 10, 20, 50, 100) if t <= largest]
        panels[0].set_yticks([*(-t for t in ticks[::-1]), 0, *ticks],
                             [*(f'\u2212{t}' for t in ticks[::-1]), 0, *(f'+{t}' for t in ticks)])
        label += f' (log scale beyond \u00b1{LINEAR_ERRORS})'
    panels[0].set_ylabel(label, fontsize=12)
    bar = figure.colorbar(mesh, ax=panels, pad=0.01, ticks=LogLocator(subs=(1, 2, 5)),
                          format='{x:g}')
    bar.minorticks_off()
    bar.set_label('share of the images of a true quality (logarithmic)', fontsize=11)
    return figure
