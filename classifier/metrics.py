"""How far predicted qualities are from the true ones: numbers, lines of text, figures."""
import numpy as np


def error_metrics(truth, predicted):
    """Metrics of predicted against true qualities, both (n,), as a JSON-able dict.

    Levels of quality: mean absolute error (also for each decade of the truth) and
    standard deviation of the error; and the shares within 0.5, 1 and 2 levels.
    """
    error = np.asarray(predicted, float) - truth
    return {'count': len(error),
            'mae': float(np.abs(error).mean()),
            'std': float(error.std()),
            **{f'within_{k:g}': float((np.abs(error) <= k).mean()) for k in (0.5, 1, 2)},
            'mae_by_decade': by_decade(truth, np.abs(error))}


def by_decade(truth, values):
    """Means of `values` over true qualities 1-10, 11-20, ..., 91-100, where there are any."""
    decade = (np.asarray(truth) - 1) // 10
    return {f'{10 * d + 1}-{10 * d + 10}': float(values[decade == d].mean())
            for d in np.unique(decade)}


def describe(metrics):
    """The lines that say it to people."""
    shares = (f'within {k}: {100 * metrics[f"within_{k}"]:.1f} %' for k in ('0.5', '1', '2'))
    lines = [f'MAE {metrics["mae"]:.3f}, standard deviation of the error {metrics["std"]:.3f}, '
             f'{metrics["count"]} images', ', '.join(shares)]
    return '\n'.join(lines + decade_lines(metrics['mae_by_decade'], 'MAE'))


def decade_lines(means, title):
    return [f'{"quality":>8}  {title}'] + [f'{d:>8}  {v:.3f}' for d, v in means.items()]


def confusion_figure(truth, predicted):
    """True against predicted quality, as a figure: a panel for each method.

    truth: (n,) in 1..100; predicted: {title: (n,)}. Every column of a panel adds up to 1.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(2 + 6 * len(predicted), 6.6), layout='constrained')
    panels = figure.subplots(1, len(predicted), squeeze=False)[0]
    for axes, (title, values) in zip(panels, predicted.items()):
        mesh = draw_confusion(axes, truth, values, title)
    figure.colorbar(mesh, ax=panels, pad=0.01, label='share of the images of that true quality',
                    format='{x:g}')
    return figure


def draw_confusion(axes, truth, predicted, title):
    """One panel of `confusion_figure`; returns what its colour bar needs."""
    from matplotlib.colors import LogNorm
    from sklearn.metrics import confusion_matrix
    levels = np.arange(1, 101)
    matrix = confusion_matrix(truth, np.clip(np.rint(predicted), 1, 100), labels=levels,
                              normalize='true').T
    axes.set(xlabel='true quality', ylabel='predicted quality', title=title, aspect='equal',
             xticks=[1, *range(10, 101, 10)], yticks=[1, *range(10, 101, 10)])
    axes.grid(alpha=0.2)
    return axes.pcolormesh(levels, levels, np.ma.masked_equal(matrix, 0),
                           norm=LogNorm(0.01, 1), cmap='viridis_r')
