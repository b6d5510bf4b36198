"""The training loop: start, resume, epochs, validation, best weights, stop.

It knows no framework: a `Backend` does the steps, a source gives the batches. A training leaves
in its out_path `run.json` (the schedule), `history_cls.csv` and `.png`, `best/`, and `state.npz`:
step, weights, EMA and Adam's moments in Keras' order and layout, whatever the framework, so that
either can continue the other's training.
"""
import argparse
import contextlib
import json
import math
import signal
import sys
import time
from functools import partial
from typing import Any

import numpy as np

from classifier.checkpoints import load_arrays, refuse_wildcards
from classifier.cli import Progress, say
from classifier.errors import InputError
from classifier.files import check_writable, save_arrays, whole_file
from classifier.patches import Patches
from classifier.training.backend import Backend
from classifier.training.best_weights import BestWeights
from classifier.training.distribute import refuse_unlike_workers
from classifier.training.history import History
from classifier.training.schedule import RUN_FILE, ema_decay, last_step, learning_rate

STATE_SECONDS = 240  # between two states, at most
STOPPED = 130        # exit status of a training that was asked to stop


def run_training(args: argparse.Namespace, schedule: dict, backend: Backend, best: BestWeights,
                 train_source: Any, val_source: Patches,
                 base: list[np.ndarray] | None = None) -> int:
    """Start or resume a training and carry it through.

    Parameters
    ----------
    args : argparse.Namespace
        Options of `add_training_options`.
    schedule : dict
        From `resolve_schedule`.
    backend : Backend
    best : BestWeights
    train_source : PatchFile, PhotoSource or CodedPhotos
    val_source : Patches
    base : list of arrays, optional
        Weights to start from, those of `best.base`.

    Returns
    -------
    int
        The exit status: 0, or STOPPED if it was asked to stop.

    Raises
    ------
    InputError
        The out_path cannot be used or resumed, the workers differ, or the loss is not finite.
    """
    out, batch_size, chief = args.out_path, schedule['batch_size'], backend.is_chief
    per_epoch, until, step = schedule['steps_per_epoch'], last_step(schedule, args.until_epoch), 0
    state_file, stop_file = out / 'state.npz', out / 'stop_training'
    validate = partial(backend.validate, val_source, batch_size)

    def save():
        arrays = backend.state()
        if chief:
            save_arrays(state_file, step, *arrays)

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
    if chief:
        if base and step == 0:
            val_loss, val_mae = validate()
            print(f'{best.base}: validation loss {val_loss:.4f}, MAE {val_mae:.4f}')
            best.offer(backend.weights(), val_loss)
        history = History(out, step, args.tensorboard)
        print(f'training from step {step} to {until} of {last_step(schedule)}, '
              f'best validation loss so far {best.val_loss:.4f}', file=sys.stderr)
    if until and not args.resume:
        save()
        if chief:
            with whole_file(out / RUN_FILE) as file:
                json.dump(schedule, file, indent=1)
    summed_from, note, saved, stop = step, '', time.monotonic(), False
    with contextlib.closing(train_source.batches(batch_size, schedule['seed'], step)) as batches, \
            _stop_signals() as signals, \
            Progress(until, 'steps', step) if chief else contextlib.nullcontext() as progress:
        while step < until and not stop:
            backend.step(next(batches), learning_rate(step, schedule), ema_decay(step))
            step += 1
            ends_epoch = step % per_epoch == 0
            if ends_epoch or step % backend.look_every == 0:
                loss, error = backend.take_sums(restart=ends_epoch) / (step - summed_from)
                if not math.isfinite(loss):
                    raise InputError(f'the loss is no finite number at step {step}; the best '
                                     'weights are kept; lower --lr or look into the data')
                note = f'loss {loss:.3f}, MAE {error:.3f}'
            if chief:
                progress.update(step, note)
            if chief and ends_epoch:
                epoch, (val_loss, val_mae) = step // per_epoch, validate()
                better = best.offer(backend.weights(), val_loss)
                history.add(epoch, step, step * batch_size, learning_rate(step, schedule), loss,
                            error, val_loss, val_mae)
                say(f'epoch {epoch}/{schedule["epochs"]}: loss {loss:.4f}, validation loss '
                    f'{val_loss:.4f}, MAE {val_mae:.4f}' + ', best so far' * better)
            due, stop = map(any, zip(*backend.of_all_workers(
                time.monotonic() - saved > STATE_SECONDS, bool(signals) or stop_file.exists())))
            if ends_epoch or due or stop:
                save()
                saved = time.monotonic()
            if ends_epoch:
                summed_from = step
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
