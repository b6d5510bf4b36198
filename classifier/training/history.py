"""What each epoch of a training gave: history_cls.csv, history_cls.png, TensorBoard's logs."""
import csv
import time
from pathlib import Path

from classifier.environment import import_tensorflow
from classifier.errors import InputError
from classifier.files import save_figure, whole_file

COLUMNS = ('epoch', 'step', 'patches', 'learning_rate', 'loss', 'quality_mae',
           'val_loss', 'val_quality_mae', 'seconds')


class History:
    """The rows so far, of a training whose last state is that of step `step`."""

    def __init__(self, out: Path, step: int, tensorboard: bool = False):
        self.csv, self.png = out / 'history_cls.csv', out / 'history_cls.png'
        self.rows = []
        if self.csv.exists():
            try:
                with self.csv.open(newline='') as file:
                    rows = [{k: float(row[k]) for k in COLUMNS} for row in csv.DictReader(file)]
            except (ValueError, KeyError, TypeError, csv.Error):
                raise InputError(f'{self.csv}: damaged; delete it to start a new history'
                                 ) from None
            self.rows = [row for row in rows if row['step'] <= step]
        self.began = time.monotonic() - (self.rows[-1]['seconds'] if self.rows else 0)
        self.summary = import_tensorflow()[0].summary if tensorboard else None
        self.writer = tensorboard and self.summary.create_file_writer(str(out / 'tensorboard'))

    def add(self, *values: float) -> None:
        """Add an epoch and write the files; values in the order of COLUMNS, without seconds."""
        row = dict(zip(COLUMNS, (*map(float, values), time.monotonic() - self.began)))
        self.rows.append(row)
        with whole_file(self.csv, newline='') as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({k: f'{v:.8g}' for k, v in row.items()} for row in self.rows)
        save_figure(self._figure(), self.png)
        if self.writer:
            with self.writer.as_default(int(row['step'])):
                for key in COLUMNS[3:-1]:
                    self.summary.scalar(key, row[key])

    def _figure(self):
        from matplotlib.figure import Figure
        figure = Figure(figsize=(8, 5))
        axes = figure.add_subplot()
        patches = [row['patches'] / 1e6 for row in self.rows]
        # Blue, vermilion and green of Okabe and Ito, which everybody can distinguish.
        for key, label, style, colour in (
                ('loss', 'training loss', 'o-', '#0072b2'),
                ('val_loss', 'validation loss', 's--', '#d55e00'),
                ('val_quality_mae', 'validation MAE of the quality', '^:', '#009e73')):
            axes.plot(patches, [row[key] for row in self.rows], style, color=colour, markersize=4,
                      label=label)
        axes.set(yscale='log')
        axes.set_xlabel('patches seen (millions)', fontsize=12)
        axes.set_ylabel('levels of quality (logarithmic)', fontsize=12)
        axes.yaxis.set_major_formatter('{x:g}')
        axes.yaxis.set_minor_formatter('{x:g}')
        axes.grid(alpha=0.3, which='both')
        axes.legend()
        return figure
