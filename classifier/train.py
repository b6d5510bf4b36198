#!/usr/bin/env python3
"""Train the patch network on files made by gen_data.py.

    python3 classifier/train.py --comp_type jpeg_paper --hdf5_train_path out/train.h5 \\
        --hdf5_val_path out/val.h5 --epochs 50 --out_path out

Keeps the best weights in classifier/save/<comp_type>/best. Ctrl-C, or a file
`stop_training` in the out_path, stops it cleanly; `--resume` goes on at the same
step and learning rate, also after a kill. For fresh data between slices of one
schedule, stop with `--until_epoch` and resume with another file.

With `--strategy mirrored` the replicas of a global batch are the GPUs of this machine,
with `multi_worker` those of all machines in TF_CONFIG: the same training, shared out.

Adam; the learning rate warms up, then falls to 0 along a cosine. What is validated
and kept is a running average of the weights over about the last 1,000 steps.
"""
import argparse
import contextlib
import csv
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from console import (MAX_SEED, Progress, check_writable, command, count, number, save_figure,
                     whole_file)
from models import (COMP_TYPES, SAVE_FOLDER, THRESHOLD_FILE, VAL_LOSS_FILE, InputError, best_folder,
                    build_network, confidence_loss, damage_named, get_comp_type, import_tensorflow,
                    load_network, quiet, refuse_wildcards)
from patches import PatchFile

AVERAGE_DECAY = 0.999
CHECKPOINT_SECONDS = 240
RUN_FILE = 'run.json'  # the schedule, in out_path
STOPPED = 130  # exit status of a training that was asked to stop
STRATEGIES = ('default', 'mirrored', 'multi_worker')
TF_CONFIG_EXAMPLE = ('{"cluster": {"worker": ["host-a:5000", "host-b:5000"]}, '
                     '"task": {"type": "worker", "index": 0}}')
HISTORY = ('epoch', 'step', 'patches', 'learning_rate', 'loss', 'quality_mae',
           'val_loss', 'val_quality_mae', 'seconds')
# What a training is made of: asked for once, kept for every --resume.
SCHEDULE = {'epochs': 50, 'steps_per_epoch': None, 'batch_size': 1024, 'lr': 2e-3,
            'warmup_steps': 500, 'seed': 0}


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--hdf5_train_path', required=True, metavar='FILE')
    parser.add_argument('--hdf5_val_path', required=True, metavar='FILE')
    parser.add_argument('--comp_type', required=True, help=', '.join(COMP_TYPES))
    parser.add_argument('--base_weights', metavar='DIR',
                        help='start from these weights, a checkpoint folder or the weights.npz of '
                        'train_gpu.py, instead of random ones')
    parser.add_argument('--base_type', metavar='TYPE', help='compression type of --base_weights, '
                        'if its network is narrower: it is widened (default: the same type)')
    add_training_options(parser, SCHEDULE, 'out')
    add_output_options(parser)
    parser.add_argument('--strategy', choices=STRATEGIES, default='default',
                        help='share every batch out: mirrored, among the GPUs of this machine; '
                        'multi_worker, among the machines in TF_CONFIG (default: do not)')
    parser.add_argument('--framework', choices=('tensorflow', 'pytorch'), default='tensorflow',
                        help='what the steps are done with; may change at a --resume '
                        '(pytorch: see torch_port.py; default: tensorflow)')
    parser.add_argument('--verbose', action='store_true', help='describe the network and the run')
    args = parser.parse_args(argv)
    if args.epochs == 0 and not args.base_weights:
        parser.error('--epochs 0 validates --base_weights: name them')
    if args.base_type and not args.base_weights:
        parser.error('--base_type tells of --base_weights: name them')
    if args.framework == 'pytorch' and args.strategy != 'default':
        parser.error(f'--strategy {args.strategy} is for --framework tensorflow')
    return args


def add_training_options(parser, defaults, out_path):
    """The options of every training script; `defaults` is a schedule as in SCHEDULE."""
    default = {k: 'one pass over the file' if v is None else v for k, v in defaults.items()}
    parser.add_argument('--epochs', type=count(0), help='length of the schedule (default: '
                        f'{default["epochs"]}; 0 only validates weights that are there)')
    parser.add_argument('--batch_size', type=count(2), help=f'default: {default["batch_size"]}')
    parser.add_argument('--lr', type=number(1e-9, 1),
                        help=f'highest learning rate (default: {default["lr"]})')
    parser.add_argument('--warmup_steps', type=count(1), help='steps until it is reached '
                        f'(default: {default["warmup_steps"]}, at most a tenth of all)')
    parser.add_argument('--steps_per_epoch', type=count(1),
                        help=f'default: {default["steps_per_epoch"]}')
    parser.add_argument('--seed', type=count(0, MAX_SEED),
                        help=f'of weights and data order (default: {default["seed"]})')
    parser.add_argument('--until_epoch', type=count(1), metavar='N',
                        help='stop after epoch N of the schedule, to be resumed')
    parser.add_argument('--resume', action='store_true', help='go on with the training in out_path')
    parser.add_argument('--out_path', type=Path, default=out_path, metavar='DIR',
                        help=f'logs and the state to resume from (default: {out_path})')


def add_photo_options(parser):
    """The options of the training scripts that take photos instead of patches."""
    parser.add_argument('--in_path', required=True, metavar='DIR',
                        help='photos to train on, never compressed before')
    parser.add_argument('--val_path', required=True, metavar='DIR', help='photos to validate on')
    parser.add_argument('--recursive', action='store_true', help='read subfolders too')


def add_output_options(parser):
    """The options of the training scripts that keep the best weights."""
    parser.add_argument('--save_path', default=SAVE_FOLDER, metavar='DIR',
                        help='best weights go to DIR/<network>/best (default: classifier/save)')
    parser.add_argument('--tensorboard', action='store_true',
                        help='write TensorBoard logs to out_path/tensorboard')


def settle_schedule(args, defaults):
    """The schedule: as stored by the training that is resumed, else as asked for.

    args: of `add_training_options`, and `comp_type`, the network's name.
    """
    stored_in = args.out_path / RUN_FILE
    asked = {k: getattr(args, k) for k in defaults if getattr(args, k) is not None}
    asked['comp_type'] = args.comp_type
    if args.resume:
        if not stored_in.exists():
            raise InputError(f'{stored_in}: nothing to resume; start without --resume')
        try:
            stored = json.loads(stored_in.read_text())
        except ValueError:
            raise InputError(f'{stored_in}: damaged; start again with another --out_path') from None
        for key, value in asked.items():
            if stored.get(key) != value:
                raise InputError(f'{stored_in}: the training was started with {key} '
                                 f'{stored.get(key)}, not {value}; leave --{key} as it was')
        return stored
    if stored_in.exists():
        raise InputError(f'{stored_in.parent} holds another training; go on with --resume '
                         'or choose another --out_path')
    return defaults | asked


def store_schedule(out, schedule):
    """Keep the schedule of a training that begins in that folder, for `settle_schedule`."""
    with whole_file(out / RUN_FILE) as file:
        json.dump(schedule, file, indent=1)


def all_and_warmup_steps(schedule):
    """How many steps a schedule has, and in how many of them the learning rate rises."""
    total = schedule['epochs'] * schedule['steps_per_epoch']
    return total, max(1, min(schedule['warmup_steps'], total // 10))


def last_step(args, schedule):
    """The step to train up to now; args: of `add_training_options`."""
    return min(schedule['epochs'], args.until_epoch or schedule['epochs']
               ) * schedule['steps_per_epoch']


def check_cluster(text):
    """InputError unless that TF_CONFIG names the workers and which of them this is."""
    try:
        config = json.loads(text or '')
        cluster, task = config['cluster'], config['task']
        addresses = cluster['worker'] + cluster.get('chief', [])
        if not (set(cluster) <= {'chief', 'worker'} and isinstance(task['index'], int)
                and 0 <= task['index'] < len(cluster[task['type']])
                and all(isinstance(address, str) and re.fullmatch(r'.+:\d+', address)
                        for address in addresses)):
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f'TF_CONFIG: {text or "not set"}: must name every worker, and which one '
                         f'this is, as in {TF_CONFIG_EXAMPLE}') from None


def open_strategy(name):
    """The `tf.distribute.Strategy` of that name in STRATEGIES.

    For 'multi_worker' it waits until all workers are there; InputError for a TF_CONFIG that
    cannot be used. To be called before anything else is done with TensorFlow.
    """
    if name == 'multi_worker':
        check_cluster(os.environ.get('TF_CONFIG'))
    tf, _ = import_tensorflow()
    if name == 'default':
        return tf.distribute.get_strategy()
    tf.get_logger().setLevel('ERROR')
    if name == 'mirrored':
        return tf.distribute.MirroredStrategy()
    print('waiting for the other workers', file=sys.stderr)
    with quiet():
        return tf.distribute.MultiWorkerMirroredStrategy()


@contextlib.contextmanager
def lost_workers_named(strategy):
    """Turn TensorFlow's errors about workers that are gone into one InputError."""
    tf, _ = import_tensorflow()
    errors = tf.errors
    try:
        yield
    except (errors.UnavailableError, errors.AbortedError, errors.CancelledError,
            errors.DeadlineExceededError, errors.InternalError) as error:
        if not several_workers(strategy):
            raise
        lines = str(error).splitlines()
        reason = next((line for line in lines if line.startswith('Collective ops')), lines[0])
        raise InputError(f'worker lost ({reason[:160]}); start all workers again with --resume'
                         ) from None


def several_workers(strategy):
    """Whether other processes take part in a strategy."""
    tf, _ = import_tensorflow()
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


class Trainer:
    """Network, running average of its weights, optimiser, and one training step.

    What `validate` looks at is the average. network, average: two of the same kind, the
    first one built in the strategy's scope; training starts at its weights. losses: a
    function like `confidence_loss`, (true qualities, output) -> loss and absolute quality
    error. strategy: a `tf.distribute.Strategy`; each of its replicas takes an equal part
    of every batch, and batch normalisation sees the whole of it. port: a function like
    `torch_port.TorchStep`, (network, average, optimiser) -> what does the steps instead.
    """

    def __init__(self, network, average, losses, schedule, strategy=None, port=None):
        self.tf, keras = import_tensorflow()
        tf = self.tf
        self.network, self.average, self.losses = network, average, losses
        self.strategy = strategy or tf.distribute.get_strategy()
        if schedule['batch_size'] % self.replicas:
            raise InputError(f'--batch_size {schedule["batch_size"]} cannot be shared out among '
                             f'{self.replicas} replicas; choose a multiple of {self.replicas}')
        # The average lives outside the strategy: one of its own in every process.
        self.pairs = [(mean, self.strategy.experimental_local_results(weight)[0])
                      for mean, weight in zip(average.weights, network.weights)]
        for mean, weight in self.pairs:
            mean.assign(weight)
        for layer in network.submodules if self.replicas > 1 else ():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized, layer.fused = True, False

        total, warmup = all_and_warmup_steps(schedule)
        self.rate = keras.optimizers.schedules.CosineDecay(
            schedule['lr'] / warmup, max(1, total - warmup),
            warmup_target=schedule['lr'], warmup_steps=warmup)
        with self.strategy.scope():
            self.optimizer = keras.optimizers.Adam(self.rate)
            self.optimizer.build(self.network.trainable_variables)
        self.state = tf.train.Checkpoint(network=self.network, average=self.average,
                                         optimizer=self.optimizer)
        self.ported = port and port(self.network, self.average, self.optimizer)
        self.step = self._ported_step if self.ported else tf.function(self._step)
        self.validated = validator(self.average, losses)

    @property
    def steps_done(self):
        return int(self.optimizer.iterations.numpy())

    @property
    def replicas(self):
        return self.strategy.num_replicas_in_sync

    @property
    def is_chief(self):
        """Whether this process is the one that validates, writes files and tells of them."""
        return self.strategy.extended.should_checkpoint

    def _decay(self, done):
        """What the average keeps at a step; `done` were before. It begins as a plain mean."""
        return self.tf.minimum(AVERAGE_DECAY, (1 + done) / (10 + done))

    def _ported_step(self, x, quality):
        done = self.steps_done
        return self.ported(x.numpy(), quality.numpy(), float(self.rate(done)),
                           float(self._decay(done)))

    def _step(self, x, quality):
        """One update; returns the batch's mean loss and mean absolute quality error."""
        tf = self.tf
        # BN statistics are averaged too: Keras keeps them over some 10 batches only.
        decay = self._decay(tf.cast(self.optimizer.iterations, tf.float32))
        parts = self.strategy.run(self._part_of_step, (x, quality))
        for mean, weight in self.pairs:
            mean.assign_add((1 - decay) * (weight - mean))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def _part_of_step(self, x, quality):
        """One replica's part of the batch, of the update, and of the two means."""
        tf = self.tf
        if self.replicas > 1:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            x, quality = (tf.reshape(v, (self.replicas, -1, *v.shape[1:]))[replica]
                          for v in (x, quality))
        with tf.GradientTape() as tape:
            loss, error = self.losses(quality, self.network(tf.cast(x, tf.float32), training=True))
            loss = tf.reduce_mean(loss) / self.replicas
        weights = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return tf.stack([loss, tf.reduce_mean(error) / self.replicas])

    def validate(self, file, batch_size):
        """Mean loss and mean absolute quality error of the average on a patch file."""
        if self.ported:
            self.ported.to_keras()
        return self.validated(file, batch_size)

    def of_all_workers(self, *numbers):
        """The numbers that every worker calls this with, a tuple for each."""
        if not several_workers(self.strategy):
            return [numbers]
        tf = self.tf
        own = self.strategy.run(tf.constant, ([numbers], tf.float64))
        return [tuple(row) for row in self.strategy.gather(own, axis=0).numpy()]

    def refuse_unlike_workers(self, *what):
        """InputError if these values, or the weights, are not the same on all workers."""
        seen = zlib.crc32(b''.join(w.tobytes() for w in self.average.get_weights()),
                          zlib.crc32(repr(what).encode()))
        if len(set(self.of_all_workers(seen))) > 1:
            raise InputError('the workers differ in their options, files or state; start all '
                             'with the same command, and with the same folders in sight')

    def save(self, manager):
        """Save the state with a `CheckpointManager`; all workers must call this."""
        if self.ported:
            self.ported.to_keras()
        if self.is_chief:
            manager.save()
            return
        with tempfile.TemporaryDirectory() as folder:  # only to take part in gathering it
            self.state.write(os.path.join(folder, 'state'))

    def restore(self, checkpoint):
        """Go on from a state that `save` wrote; InputError for one that is damaged."""
        with damage_named(checkpoint):
            self.state.restore(checkpoint).assert_consumed()
        if self.ported:
            self.ported.from_keras()


def widen(network, narrower):
    """Make a network, randomly initialised, answer as a narrower one of the same layers.

    What the narrower one has goes to the first channels, which take nothing from the new
    ones: those stay random, and get a say as training goes on. The idea is that of Chen et
    al., "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016.
    """
    wide = network.get_weights()
    for array, small in zip(wide, narrower.get_weights()):
        if array.ndim > 1:  # a kernel, (..., channels, filters)
            array[..., :small.shape[-1]] = 0
        array[tuple(map(slice, small.shape))] = small
    network.set_weights(wide)


def patch_trainer(comp_type, schedule, base_weights=None, strategy=None, base_type=None,
                  framework='tensorflow'):
    """The patch network's `Trainer`, from `base_weights` or from random ones.

    base_type: the `CompType` of `base_weights`, if it is a narrower one.
    """
    with strategy.scope() if strategy else contextlib.nullcontext():
        if base_weights and base_type in (None, comp_type):
            network = load_network(comp_type, base_weights)
        else:
            network = build_network(comp_type, schedule['seed'])
    if base_type not in (None, comp_type):
        if base_type.k > comp_type.k:
            raise InputError(f'--base_type {base_type.name} is wider than {comp_type.name}; '
                             'only a narrower network can be widened')
        widen(network, load_network(base_type, base_weights))
    port = None
    if framework == 'pytorch':
        try:
            from torch_port import TorchStep
        except ImportError:
            raise InputError('--framework pytorch needs PyTorch: pip install torch') from None
        port = partial(TorchStep, comp_type.k)
    return Trainer(network, build_network(comp_type), confidence_loss, schedule, strategy, port)


def training_batches(file, batch_size, seed, step):
    """`PatchFile.batches` as a tf.data set that works ahead of the training step."""
    tf, _ = import_tensorflow()
    return tf.data.Dataset.from_generator(
        lambda: file.batches(batch_size, seed, step),
        output_signature=(tf.TensorSpec((batch_size, file.side, file.side, 3), tf.uint8),
                          tf.TensorSpec((batch_size,), tf.uint8))).prefetch(8)


def validator(network, losses=confidence_loss):
    """A function (patch file, batch size) -> mean loss and mean absolute quality error."""
    tf, _ = import_tensorflow()

    @tf.function(input_signature=[tf.TensorSpec((None, *network.input_shape[1:]), tf.uint8),
                                  tf.TensorSpec((None,), tf.uint8)])
    def sums(x, quality):
        loss, error = losses(quality, network(tf.cast(x, tf.float32), training=False))
        return tf.stack([tf.reduce_sum(loss), tf.reduce_sum(error)])

    def validate(file, batch_size):
        return sum(sums(x, y).numpy() for x, y in file.in_order(batch_size)) / len(file)
    return validate


class BestWeights:
    """The folder of the best weights so far, only ever replaced by better ones.

    load: a function, folder -> the network with the weights that are there.
    """

    def __init__(self, folder, load):
        self.folder, self.load = folder, load
        self.old = self.folder.with_name('best.old')
        self.new = self.folder.with_name('best.part')
        if self.old.exists() and not self.folder.exists():
            self.old.rename(self.folder)  # a run was killed between the two renames
        self.val_loss = math.inf
        self.folder.parent.mkdir(parents=True, exist_ok=True)

    def measure(self, losses, file, batch_size):
        """Validate what is there on this file: losses on two files do not compare."""
        if (self.folder / '.index').exists():
            try:
                network = self.load(self.folder)
            except InputError as error:
                raise InputError(f'{error}, delete that folder or choose another '
                                 '--save_path') from None
            self.val_loss, _ = validator(network, losses)(file, batch_size)

    def offer(self, network, val_loss, threshold_from=None):
        """Keep `network` if its validation loss is lower; returns whether it was.

        A threshold stored with the weights before, or in `threshold_from`, stays
        with the folder: it is the best guess until it is measured again.
        """
        if not val_loss < self.val_loss:
            return False
        shutil.rmtree(self.new, ignore_errors=True)
        self.new.mkdir(parents=True)
        network.save_weights(os.path.join(self.new, ''), save_format='tf')
        (self.new / VAL_LOSS_FILE).write_text(f'{val_loss:.4f}\n')
        for folder in (self.folder, Path(threshold_from or self.folder)):
            if (folder / THRESHOLD_FILE).exists():
                shutil.copy(folder / THRESHOLD_FILE, self.new)
        for path in self.new.iterdir():
            with path.open('rb') as file:
                os.fsync(file.fileno())
        shutil.rmtree(self.old, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(self.old)
        self.new.rename(self.folder)
        shutil.rmtree(self.old, ignore_errors=True)
        self.val_loss = val_loss
        return True


class StopSignals:
    """True once Ctrl-C or a termination signal came; a second one ends at once."""

    def __enter__(self):
        self.came = False
        self.previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, which, _):
        self.came = True
        signal.signal(which, self.previous[which])

    def __bool__(self):
        return self.came

    def __exit__(self, *_):
        for which, handler in self.previous.items():
            signal.signal(which, handler)


class History:
    """What every epoch gave: history_cls.csv, history_cls.png and TensorBoard's logs."""

    def __init__(self, out, steps_done, tensorboard=False):
        self.csv, self.png = out / 'history_cls.csv', out / 'history_cls.png'
        self.rows = []
        if self.csv.exists():  # of the training that is resumed, up to its last state
            try:
                with self.csv.open(newline='') as file:
                    rows = [{k: float(row[k]) for k in HISTORY} for row in csv.DictReader(file)]
            except (ValueError, KeyError, TypeError, csv.Error):
                raise InputError(f'{self.csv}: damaged; delete it, and the history starts '
                                 'afresh') from None
            self.rows = [row for row in rows if row['step'] <= steps_done]
        self.began = time.monotonic() - (self.rows[-1]['seconds'] if self.rows else 0)
        self.writer = None
        if tensorboard:
            tf, _ = import_tensorflow()
            self.writer = tf.summary.create_file_writer(str(out / 'tensorboard'))

    def add(self, *values):
        """One more epoch; the values are in the order of `HISTORY`, without the seconds."""
        row = dict(zip(HISTORY, (*map(float, values), time.monotonic() - self.began)))
        self.rows.append(row)
        with whole_file(self.csv, newline='') as file:
            writer = csv.DictWriter(file, HISTORY)
            writer.writeheader()
            writer.writerows({k: f'{v:.8g}' for k, v in row.items()} for row in self.rows)
        save_figure(self.figure(), self.png)
        if self.writer:
            tf, _ = import_tensorflow()
            with self.writer.as_default(int(row['step'])):
                for key in HISTORY[3:-1]:
                    tf.summary.scalar(key, row[key])

    def figure(self):
        """Losses against the number of patches seen."""
        from matplotlib.figure import Figure
        figure = Figure(figsize=(8, 5))
        axes = figure.add_subplot()
        patches = [row['patches'] / 1e6 for row in self.rows]
        for key, label in (('loss', 'training loss'), ('val_loss', 'validation loss'),
                           ('val_quality_mae', 'validation MAE of the quality')):
            axes.plot(patches, [row[key] for row in self.rows], '.-', label=label)
        axes.set(xlabel='patches seen (millions)', ylabel='levels of quality', yscale='log')
        axes.yaxis.set_major_formatter('{x:g}')
        axes.yaxis.set_minor_formatter('{x:g}')
        axes.grid(alpha=0.3, which='both')
        axes.legend()
        return figure


def train(trainer, batches, until, schedule, end_of_epoch, save, stop_file):
    """Train up to step `until`; returns whether a signal stopped it before.

    `end_of_epoch` gets the epoch's mean loss and mean absolute quality error; `save`
    is called after it and every few minutes. InputError at a loss that is no number.
    """
    step = trainer.steps_done
    saved = time.monotonic()
    sums, summed, stop = np.zeros(2), 0, False
    with StopSignals() as stopped, Progress(until, 'steps', step) as progress:
        for x, y in batches.take(max(until - step, 0)):
            sums += trainer.step(x, y)
            step, summed = step + 1, summed + 1
            loss, error = sums / summed
            if not math.isfinite(loss):
                raise InputError(f'the loss is no finite number at step {step}; the best '
                                 'weights are kept; lower --lr or look into the data')
            if trainer.is_chief:
                progress.update(step, f'loss {loss:.3f}, MAE {error:.3f}')
            if step % schedule['steps_per_epoch'] == 0:
                end_of_epoch(loss, error)
                sums, summed = np.zeros(2), 0
            due, stop = map(any, zip(*trainer.of_all_workers(
                time.monotonic() - saved > CHECKPOINT_SECONDS,
                bool(stopped) or stop_file.exists())))
            if summed == 0 or due:
                save()
                saved = time.monotonic()
            if stop:
                break
    return stop or bool(stopped)


def run_training(args, schedule, trainer, best, train_data, val_data):
    """Start or resume a training and see it through; returns the exit status.

    args: of `add_training_options`; best: `BestWeights`; train_data, val_data:
    `PatchFile`s, or what has their `side`, `batches`, `in_order` and length.
    """
    out, batch_size = args.out_path, schedule['batch_size']
    epochs, steps_per_epoch = schedule['epochs'], schedule['steps_per_epoch']
    base_weights = getattr(args, 'base_weights', None)
    chief = trainer.is_chief
    if chief:
        check_writable(*(out / n for n in (RUN_FILE, 'history_cls.csv', 'history_cls.png')),
                       best.folder.parent / VAL_LOSS_FILE)
    refuse_wildcards(out)
    stop_file = out / 'stop_training'
    if stop_file.exists():
        raise InputError(f'{stop_file} is there and would stop the training; delete it first')
    manager = trainer.tf.train.CheckpointManager(trainer.state, str(out / 'state'), max_to_keep=2)
    save = partial(trainer.save, manager)
    if chief:
        best.measure(trainer.losses, val_data, batch_size)
    if args.resume:
        if not manager.latest_checkpoint:
            raise InputError(f'{out}/state: no state to resume from; start again with another '
                             '--out_path')
        trainer.restore(manager.latest_checkpoint)
    first = trainer.steps_done
    until = last_step(args, schedule)
    trainer.refuse_unlike_workers(schedule, first, until, len(train_data))
    if not args.resume:
        save()
        if chief:
            store_schedule(out, schedule)
    batches = training_batches(train_data, batch_size, schedule['seed'], first)
    if not chief:
        stopped = train(trainer, batches, until, schedule, lambda *_: None, save, stop_file)
        if trainer.steps_done < until:
            save()
        return STOPPED if stopped else 0

    if base_weights and first == 0:
        val_loss, val_mae = trainer.validate(val_data, batch_size)
        print(f'{base_weights}: validation loss {val_loss:.4f}, MAE {val_mae:.4f}')
        best.offer(trainer.average, val_loss, base_weights)
    history = History(out, first, args.tensorboard)

    def end_of_epoch(loss, error):
        val_loss, val_mae = trainer.validate(val_data, batch_size)
        better = best.offer(trainer.average, val_loss, base_weights)
        step = trainer.steps_done
        history.add(step // steps_per_epoch, step, step * batch_size, trainer.rate(step),
                    loss, error, val_loss, val_mae)
        print(f'epoch {step // steps_per_epoch}/{epochs}: loss {loss:.4f}, validation loss '
              f'{val_loss:.4f}, MAE {val_mae:.4f}' + ', best so far' * better, flush=True)

    print(f'training from step {first} to {until} of {epochs * steps_per_epoch}, '
          f'best validation loss so far {best.val_loss:.4f}', file=sys.stderr)
    signalled = train(trainer, batches, until, schedule, end_of_epoch, save, stop_file)
    asked = signalled or stop_file.exists()
    stop_file.unlink(missing_ok=True)
    if trainer.steps_done < until:
        save()
        print(f'stopped at step {trainer.steps_done}; go on with --resume', file=sys.stderr)
    if asked:
        return STOPPED
    print(f'best validation loss {best.val_loss:.4f}: {best.folder}')
    return 0


@command
def main(argv=None):
    args = parse_args(argv)
    comp_type = get_comp_type(args.comp_type)
    train_file = PatchFile(args.hdf5_train_path, comp_type)
    val_file = PatchFile(args.hdf5_val_path, comp_type)
    schedule = settle_schedule(args, SCHEDULE)
    per_pass = train_file.batches_per_pass(schedule['batch_size'])  # refuses less than a batch
    schedule['steps_per_epoch'] = schedule['steps_per_epoch'] or per_pass
    strategy = open_strategy(args.strategy)
    with lost_workers_named(strategy):
        trainer = patch_trainer(comp_type, schedule, args.base_weights, strategy,
                                args.base_type and get_comp_type(args.base_type), args.framework)
        if args.verbose and trainer.is_chief:
            trainer.network.summary()
            print(json.dumps(schedule), f'{len(train_file)} training and {len(val_file)} '
                  f'validation patches, {trainer.replicas} replicas, devices '
                  f'{[d.name for d in trainer.tf.config.list_logical_devices()]}', sep='\n')
        best = trainer.is_chief and BestWeights(best_folder(comp_type, args.save_path),
                                                partial(load_network, comp_type))
        return run_training(args, schedule, trainer, best, train_file, val_file)


if __name__ == '__main__':
    sys.exit(main())
