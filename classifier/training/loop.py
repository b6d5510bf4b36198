"""The training loop: start, resume, epochs, validation, best weights, stop.

It knows no framework: a `Backend` does the steps, a source gives the batches. A training leaves
in its out_path `run.json` (the schedule), `history_cls.csv` and `.png`, `best/`, and `state.npz`:
step, weights, EMA and Adam's moments in Keras' order and layout, whatever the framework, so that
either can continue the other's training.
"""
import contextlib
import json
import math
import signal
import sys
import time

import numpy as np

from classifier.checkpoints import load_arrays, refuse_wildcards
from classifier.cli import Progress
from classifier.errors import InputError
from classifier.files import check_writable, save_arrays, whole_file
from classifier.training.distribute import refuse_unlike_workers
from classifier.training.history import History
from classifier.training.schedule import RUN_FILE, ema_decay, last_step, learning_rate

STATE_SECONDS = 240  # between two states, at most
STOPPED = 130        # exit status of a training that was asked to stop


class Backend:
    """What the loop needs of a framework. Arrays are in the order and layout of Keras.

    step(batch, rate, decay) : one update; adds the batch's mean loss and mean absolute quality
        error to sums that stay on the device
    take_sums() : these sums since the last call, 2 numbers
    validate(source, batch_size, weights=None) : mean loss and mean absolute quality error of the
        EMA, or of those weights
    weights() : the EMA
    start(arrays) : start from these weights
    state() : weights, EMA, first and second moments, in one list; collective: for all workers
    restore(arrays, step) : continue from a `state` that was reached after that many steps
    """
    look_every = 1    # steps between two looks at the sums
    is_chief = True   # whether this process validates and writes the files

    def of_all_workers(self, *numbers):
        """The numbers with which every worker calls this, a tuple for each."""
        return [numbers]


def run_training(args, schedule: dict, backend: Backend, best, train_source, val_source,
                 base: list | None = None) -> int:
    """Start or resume a training and carry it through; returns the exit status.

    Parameters
    ----------
    args : argparse.Namespace
        Options of `add_training_options`; `base_weights` is the name of `base`.
    schedule : dict
        From `resolve_schedule`.
    backend : Backend
    best : BestWeights
    train_source, val_source : like `PatchFile`
    base : list of arrays, optional
        Weights to start from.

    Raises
    ------
    InputError
        The out_path cannot be used or resumed, or the loss is not finite.
    """
    out, batch_size, chief = args.out_path, schedule['batch_size'], backend.is_chief
    per_epoch, until, step = schedule['steps_per_epoch'], last_step(schedule, args.until_epoch), 0
    state_file, stop_file = out / 'state.npz', out / 'stop_training'
    base_weights = getattr(args, 'base_weights', None)

    def save():
        arrays = backend.state()
        if chief:
            save_arrays(state_file, step, *arrays)

    def validate(weights=None):
        return backend.validate(val_source, batch_size, weights)

    def end_epoch():
        val_loss, val_mae = validate()
        better = best.offer(backend.weights(), val_loss, base_weights)
        history.add(step // per_epoch, step, step * batch_size, learning_rate(step, schedule),
                    loss, error, val_loss, val_mae)
        print(f'epoch {step // per_epoch}/{schedule["epochs"]}: loss {loss:.4f}, validation loss '
              f'{val_loss:.4f}, MAE {val_mae:.4f}' + ', best so far' * better, flush=True)

    refuse_wildcards(out)
    if stop_file.exists():
        raise InputError(f'{stop_file} is there and would stop the training; delete it first')
    if chief:
        check_writable(state_file, *(out / name for name in (RUN_FILE, 'history_cls.csv',
                                                             'history_cls.png')))
        best.measure(lambda arrays: validate(arrays)[0])
    if args.resume:
        step = _restore(backend, state_file)
    elif base:
        backend.start(base)
    refuse_unlike_workers(backend, schedule, step, until, len(train_source))
    if chief and base and step == 0:
        val_loss, val_mae = validate()
        print(f'{base_weights}: validation loss {val_loss:.4f}, MAE {val_mae:.4f}')
        best.offer(backend.weights(), val_loss, base_weights)
    if until and not args.resume:
        save()
        if chief:
            with whole_file(out / RUN_FILE) as file:
                json.dump(schedule, file, indent=1)
    if chief:
        history = History(out, step, args.tensorboard)
        print(f'training from step {step} to {until} of {last_step(schedule)}, '
              f'best validation loss so far {best.val_loss:.4f}', file=sys.stderr)
    sums, summed, note, saved, stop = np.zeros(2), 0, '', time.monotonic(), False
    with contextlib.closing(train_source.batches(batch_size, schedule['seed'], step)) as batches, \
            _stop_signals() as signals, \
            Progress(until, 'steps', step) if chief else contextlib.nullcontext() as progress:
        while step < until and not stop:
            backend.step(next(batches), learning_rate(step, schedule), ema_decay(step))
            step, summed = step + 1, summed + 1
            ends_epoch = step % per_epoch == 0
            if ends_epoch or step % backend.look_every == 0:
                sums += backend.take_sums()
                loss, error = sums / summed
                if not math.isfinite(loss):
                    raise InputError(f'the loss is no finite number at step {step}; the best '
                                     'weights are kept; lower --lr or look into the data')
                note = f'loss {loss:.3f}, MAE {error:.3f}'
            if chief:
                progress.update(step, note)
                if ends_epoch:
                    end_epoch()
            if ends_epoch:
                sums, summed = np.zeros(2), 0
            due, stop = map(any, zip(*backend.of_all_workers(
                time.monotonic() - saved > STATE_SECONDS, bool(signals) or stop_file.exists())))
            if ends_epoch or due or stop:
                save()
                saved = time.monotonic()
        stop = stop or bool(signals)
    if chief:
        stop_file.unlink(missing_ok=True)
        if step < until:
            print(f'stopped at step {step}; go on with --resume', file=sys.stderr)
        if not stop:
            print(f'best validation loss {best.val_loss:.4f}: {best.folder}')
    return STOPPED if stop else 0


def _restore(backend, path):
    """Continue from a stored state; returns the number of steps behind it."""
    if not path.exists():
        raise InputError(f'{path}: no state to resume from; start again with another --out_path')
    step, *arrays = load_arrays(path) or [np.zeros(())]
    if step.shape or step.dtype.kind != 'i' or [a.shape for a in arrays] != [
            a.shape for a in backend.state()]:
        raise InputError(f'{path}: not the state of this training; start again with another '
                         '--out_path')
    backend.restore(arrays, int(step))
    return int(step)


@contextlib.contextmanager
def _stop_signals():
    """Yields a list that Ctrl-C or a termination signal fills; a second one ends the process."""
    came = []

    def note(which, _):
        came.append(which)
        signal.signal(which, previous[which])

    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)
