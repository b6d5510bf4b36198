"""The schedule of a training: its options, its learning rate, the decay of its EMA.

It is given once, stored in `run.json`, and kept by every `--resume`.
"""
import argparse
import json
import math
from pathlib import Path

from classifier.checkpoints import refuse_shipped
from classifier.cli import MAX_SEED, count, number
from classifier.errors import InputError
from classifier.images import CHROMA

RUN_FILE = 'run.json'  # in out_path
EMA_DECAY = 0.999      # the EMA goes over about the last 1,000 steps
SCHEDULE = {'epochs': 50, 'steps_per_epoch': None, 'batch_size': 1024, 'lr': 2e-3,
            'warmup_steps': 500, 'seed': 0}
PHOTO_SCHEDULE = SCHEDULE | {'epochs': 40, 'steps_per_epoch': 1000, 'batch_size': 4096,
                             'chroma': 'mixed', 'edits': False, 'uncompressed': 0}
SHARE = number(0, 1)
_OPTIONS = {
    'epochs': (count(0), 'length of the schedule; 0 only validates the base weights'),
    'batch_size': (count(2), 'patches in a step'),
    'lr': (number(1e-9, 1), 'highest learning rate'),
    'warmup_steps': (count(1), 'steps until it is reached, at most a tenth of all'),
    'steps_per_epoch': (count(1), 'steps between two validations'),
    'seed': (count(0, MAX_SEED), 'of the random weights and the order of the data')}


def add_training_options(parser: argparse.ArgumentParser, defaults: dict, out_path: str) -> None:
    """Add the options of every training; `defaults` is a schedule such as SCHEDULE."""
    for name, (kind, text) in _OPTIONS.items():
        default = 'one pass over the file' if defaults[name] is None else defaults[name]
        parser.add_argument(f'--{name}', type=kind, help=f'{text} (default: {default})')
    parser.add_argument('--until_epoch', type=count(1), metavar='N',
                        help='stop after epoch N of the schedule, to be resumed later')
    parser.add_argument('--resume', action='store_true', help='go on with the training in out_path')
    parser.add_argument('--out_path', type=Path, default=out_path, metavar='DIR', help='history, '
                        f'state, and the best weights in DIR/best (default: {out_path})')
    parser.add_argument('--tensorboard', action='store_true',
                        help='write TensorBoard logs to out_path/tensorboard')


def add_photo_options(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Add the options of a training on photos."""
    parser.add_argument('--in_path', required=required, metavar='DIR',
                        help='lossless photos to train on, never JPEG')
    parser.add_argument('--val_path', required=required, metavar='DIR',
                        help='photos to validate on')
    parser.add_argument('--recursive', action='store_true', help='subfolders too')


def resolve_schedule(args: argparse.Namespace, defaults: dict) -> dict:
    """The schedule to follow: the stored one with `--resume`, else what was asked for.

    Parameters
    ----------
    args : argparse.Namespace
        Options of `add_training_options`, and `comp_type`, the network's name.
    defaults : dict
        A schedule such as SCHEDULE.

    Returns
    -------
    dict
        With the keys of `defaults` and `comp_type`.

    Raises
    ------
    InputError
        The out_path holds the shipped weights or another training, or the one to resume is
        missing, damaged or of another schedule.
    """
    refuse_shipped(args.out_path)
    path = args.out_path / RUN_FILE
    asked = {key: getattr(args, key) for key in (*defaults, 'comp_type')
             if getattr(args, key) is not None}
    if not args.resume:
        if path.exists():
            raise InputError(f'{path.parent} holds another training; go on with --resume '
                             'or choose another --out_path')
        return defaults | asked
    if not path.exists():
        raise InputError(f'{path}: nothing to resume; start without --resume')
    try:
        stored = json.loads(path.read_text())
        for key, (kind, _) in _OPTIONS.items():
            kind(json.dumps(stored[key]))
        SHARE(json.dumps(stored.get('uncompressed', 0)))
        if (type(stored['comp_type']) is not str or type(stored.get('edits', False)) is not bool
                or stored.get('chroma', CHROMA[0]) not in CHROMA):
            raise ValueError
    except (ValueError, TypeError, KeyError):  # no JSON, no dict, a key missing
        raise InputError(f"{path}: damaged, not a training's schedule; start again with another "
                         '--out_path') from None
    stored = defaults | stored
    for key, value in asked.items():
        if stored[key] != value:
            raise InputError(f'{path}: the training was started with {key} {stored[key]}, not '
                             f'{value}; leave --{key} as it was')
    return stored


def last_step(schedule: dict, until_epoch: int | None = None) -> int:
    """The step to train up to."""
    epochs = schedule['epochs']
    return min(epochs, until_epoch or epochs) * schedule['steps_per_epoch']


def learning_rate(step: int, schedule: dict) -> float:
    """The learning rate of a step: a linear warm-up, then half a cosine down to 0.

    Parameters
    ----------
    step : int
        Counted from 0.
    schedule : dict
        From `resolve_schedule`.

    Returns
    -------
    float

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """
    total = last_step(schedule)
    warmup = max(1, min(schedule['warmup_steps'], total // 10))
    if step < warmup:
        return schedule['lr'] * (1 + step * (1 - 1 / warmup)) / warmup
    part = min(1, (step - warmup) / max(1, total - warmup))
    return schedule['lr'] * (1 + math.cos(math.pi * part)) / 2


def ema_decay(step: int) -> float:
    """How much of itself the EMA keeps at a step; it begins as a plain mean.

    At 0.999 from the start, 36.8 % of the initial weights would be left in it after 1,000 steps.

    Parameters
    ----------
    step : int
        Counted from 0.

    Returns
    -------
    float
        0.1..EMA_DECAY.
    """
    return min(EMA_DECAY, (1 + step) / (10 + step))
