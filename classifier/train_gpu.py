#!/usr/bin/env python3
"""Train the patch network with PyTorch on one GPU, on patches that never touch a disk.

    python3 classifier/train_gpu.py --comp_type jpeg_paper --in_path DIV2K_train_HR \\
        --val_path DIV2K_valid_HR --epochs 40 --out_path out

Every photo is kept at all qualities in the memory of the GPU (300 bytes for a pixel), and every
patch is a fresh crop. Network, loss, schedule and the average of the weights are those of
train.py, which finishes the weights: `--base_weights out/weights.npz`. Ctrl-C stops it,
`--resume` goes on.

It needs no TensorFlow, and PyTorch, which is not in requirements.txt: `pip install torch`.
"""
import argparse
import copy
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

try:
    import torch
except ImportError:
    if __name__ != '__main__':
        raise
    print('train_gpu.py: error: this needs PyTorch: pip install torch', file=sys.stderr)
    sys.exit(2)
from torch import nn

from console import Progress, check_writable, command, ordered_map, whole_file
from gen_data import REDRAWS, sources
from images import CHROMA, compress, draw_chroma, list_images, read_image
from models import (COMP_TYPES, InputError, cores, get_comp_type, load_arrays, load_network,
                    load_weights)
from torch_port import (PatchNetwork, adam, compiled, copy_from_keras, losses, move_average,
                        set_steps, to_keras)
from train import (AVERAGE_DECAY, CHECKPOINT_SECONDS, RUN_FILE, STOPPED, History, StopSignals,
                   add_photo_options, add_training_options, all_and_warmup_steps, last_step,
                   settle_schedule, store_schedule)

WEIGHTS_FILE, STATE_FILE = 'weights.npz', 'state.npz'  # in out_path
VALIDATION_PATCHES = 65_536
EAGER_STEPS = 3   # before one is recorded
LOOK_EVERY = 100  # steps
SCHEDULE = {'epochs': 40, 'steps_per_epoch': 1000, 'batch_size': 4096, 'lr': 2e-3,
            'warmup_steps': 500, 'seed': 0, 'chroma': 'mixed'}


def memory(device):
    """Bytes that are free on a GPU, or those that the machine has."""
    if device == 'cuda':
        return torch.cuda.mem_get_info()[0]
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


class CodedPhotos:
    """Photos at every quality from 1 on, in the memory of a device, to draw patches from.

    Each is coded once at each quality, with the chroma that gen_data.py would draw.
    paths: images that can be read, of at least 16 px on each side; chroma: of
    images.CHROMA. InputError if the memory is too small.
    """

    def __init__(self, paths, comp_type, chroma, seed, device):
        self.device, self.side, self.qualities = device, comp_type.patch, comp_type.max_quality
        with ThreadPoolExecutor(cores()) as pool:
            images = list(pool.map(read_image, paths))
            sizes = np.array([image.size * self.qualities for image in images])
            ends = sizes.cumsum()
            starts = ends - sizes
            if ends[-1] > memory(device):
                raise InputError(f'{len(paths)} photos at {self.qualities} qualities need '
                                 f'{ends[-1] / 1e9:.1f} GB of memory, {memory(device) / 1e9:.1f} '
                                 'GB are there; use fewer or smaller photos')
            self.pixels = torch.empty(int(ends[-1]), dtype=torch.uint8, device=device)

            def code(index):
                rng = np.random.default_rng((seed, index))
                ladder = [compress(images[index], quality, draw_chroma(chroma, rng))
                          for quality in range(1, self.qualities + 1)]
                self.pixels[starts[index]:ends[index]] = torch.from_numpy(np.ravel(ladder))

            with Progress(len(paths), 'photos') as progress:
                for done, _ in enumerate(ordered_map(pool, code, range(len(paths)), cores()), 1):
                    progress.update(done, 'coding them')
        self.starts = torch.tensor(starts, device=device)
        self.sides = torch.tensor([image.shape[:2] for image in images], device=device)

    @torch.no_grad()
    def draw(self, number):
        """Random crops at any phase of the grid, uint8 (number, 16, 16, 3) BGR, and qualities.

        As in training from files, flat ones are drawn again, and each axis is mirrored in half
        of them.
        """
        def uniform(limits, *shape):
            drawn = torch.rand((number, *shape), device=self.device, dtype=torch.float64)
            return (drawn * limits).long()

        photo, level = uniform(len(self.starts)), uniform(self.qualities)
        height, width = self.sides[photo].T[:, :, None]
        row, column = (uniform(side - self.side + 1, 1 + REDRAWS) for side in (height, width))
        first = self.starts[photo][:, None] + 3 * ((level[:, None] * height + row) * width + column)
        down = 3 * width[:, :, None, None] * torch.arange(self.side, device=self.device)[:, None]
        across = torch.arange(3 * self.side, device=self.device)
        crops = self.pixels[first[:, :, None, None] + down + across].unflatten(3, (self.side, 3))
        flat = (crops == crops[:, :, :1, :1]).flatten(2).all(2)
        crops = crops[torch.arange(number, device=self.device), flat.byte().argmin(1)]
        for axis in (1, 2):
            crops = torch.where(uniform(2)[:, None, None, None] > 0, crops, crops.flip(axis))
        return crops, level + 1


class PhotoTraining:
    """The network, the running average of its weights, and steps on patches of `CodedPhotos`.

    On a GPU the whole step, drawing the patches too, is recorded once and then replayed: its
    hundreds of kernels are so short that starting them one by one takes longer.
    """

    def __init__(self, k, photos, batch_size, seed):
        self.photos, self.batch_size = photos, batch_size
        self.device, self.on_gpu = photos.device, photos.device != 'cpu'
        torch.manual_seed(seed)
        self.network = PatchNetwork(k)
        for module in self.network.modules():  # as Keras does by default
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.network.to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).train(False)
        self.rate = torch.zeros((), device=self.device)
        self.adam, *moments = adam(self.network, lr=self.rate, eps=1e-7, capturable=self.on_gpu)
        self.tensors = [*self.network.weights(), *self.average.weights(), *moments[0], *moments[1]]
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        torch.backends.cudnn.benchmark = True
        self.forward = compiled(self.network) if self.on_gpu else self.network
        self.eager, self.recorded = EAGER_STEPS if self.on_gpu else math.inf, None

    def start(self, arrays):
        """Begin with weights of Keras."""
        for network in (self.network, self.average):
            copy_from_keras(network.weights(), arrays)

    def _step(self):
        x, quality = self.photos.draw(self.batch_size)
        with torch.autocast(self.device, torch.bfloat16, cache_enabled=False):
            output = self.forward(x.permute(0, 3, 1, 2).float()).float()
        loss, error = losses(output, quality)
        loss.backward()
        self.adam.step()
        self.adam.zero_grad()
        move_average(self.average, self.network, 1 - AVERAGE_DECAY)
        self.sums += torch.stack([loss.detach(), error.detach()])

    def step(self, rate):
        """One update at that learning rate."""
        self.rate.fill_(rate)
        if self.eager:
            self.eager -= 1
            if not self.on_gpu:
                self._step()
                return
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):  # as recording demands of the steps before it
                self._step()
            here.wait_stream(aside)
            return
        if not self.recorded:
            self.recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.recorded):
                self._step()
        self.recorded.replay()

    def sums_so_far(self):
        """Sums of loss and absolute quality error over the steps since the last call."""
        sums = self.sums.cpu().numpy().copy()
        self.sums.zero_()
        return sums

    @torch.no_grad()
    def validate(self, patches, qualities):
        """Mean loss and mean absolute quality error of the average on uint8 (n, 16, 16, 3)."""
        sums = [len(y) * torch.stack(losses(self.average(x.permute(0, 3, 1, 2).float()), y))
                for x, y in zip(patches.split(self.batch_size), qualities.split(self.batch_size))]
        return (sum(sums) / len(patches)).tolist()

    def state(self):
        """What `restore` takes to go on: a list of arrays."""
        return to_keras(self.tensors)

    def restore(self, arrays, done):
        """Go on from what `state` gave after that number of steps."""
        copy_from_keras(self.tensors, arrays)
        set_steps(self.adam, done)


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photo_options(parser)
    parser.add_argument('--comp_type', required=True, help=', '.join(COMP_TYPES))
    parser.add_argument('--chroma', choices=CHROMA, help='as in gen_data.py, of the photos to '
                        f'train on (default: {SCHEDULE["chroma"]})')
    parser.add_argument('--base_weights', metavar='PATH',
                        help='start from these weights, a weights.npz or, where TensorFlow is '
                        'installed, a checkpoint folder, instead of random ones')
    add_training_options(parser, SCHEDULE, 'out')
    return parser.parse_args(argv)


def learning_rate(step, schedule):
    """Of train.py's schedule, at the step of that number from 0 on."""
    total, warmup = all_and_warmup_steps(schedule)
    if step < warmup:
        return schedule['lr'] * (1 + step * (1 - 1 / warmup)) / warmup
    part = (step - warmup) / max(1, total - warmup)
    return schedule['lr'] * (1 + math.cos(math.pi * part)) / 2


def base_weights(comp_type, path):
    """The arrays in a weights.npz, or those of a checkpoint folder, which takes TensorFlow."""
    if path.endswith('.npz'):
        return load_weights(comp_type, path)
    return load_network(comp_type, path).get_weights()


def open_photos(args, comp_type, schedule, device):
    """The `CodedPhotos` to train on, and what to validate on: (n, 16, 16, 3) and (n,)."""
    with ThreadPoolExecutor(cores()) as pool:
        paths, val_paths = (sources(list_images(folder, args.recursive), comp_type.patch, pool)
                            for folder in (args.in_path, args.val_path))
    torch.manual_seed(0)
    val_photos = CodedPhotos(val_paths, comp_type, '4:2:0', 0, device)
    parts = [val_photos.draw(4096) for _ in range(VALIDATION_PATCHES // 4096)]
    del val_photos
    torch.cuda.empty_cache()  # for the photos to train on
    return (CodedPhotos(paths, comp_type, schedule['chroma'], schedule['seed'], device),
            [torch.cat(part) for part in zip(*parts)])


def run(args, comp_type, schedule):
    """Start or resume a training and see it through; returns the exit status."""
    out, seed, epochs = args.out_path, schedule['seed'], schedule['epochs']
    batch_size, steps_per_epoch = schedule['batch_size'], schedule['steps_per_epoch']
    until = last_step(args, schedule)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    base = args.base_weights and base_weights(comp_type, args.base_weights)
    done, *state = load_arrays(out / STATE_FILE) if args.resume else [0]
    photos, val_patches = open_photos(args, comp_type, schedule, device)
    training = PhotoTraining(comp_type.k, photos, batch_size, seed)

    def save():
        with whole_file(out / STATE_FILE, 'wb') as file:
            np.savez(file, done, *training.state())
        with whole_file(out / WEIGHTS_FILE, 'wb') as file:
            np.savez(file, *to_keras(training.average.weights()))

    if args.resume:
        try:
            training.restore(state, done := int(done))
        except (ValueError, TypeError, RuntimeError):
            raise InputError(f'{out / STATE_FILE}: not the state of this training; start again '
                             'with another --out_path') from None
    else:
        if base:
            training.start(base)
            val_loss, val_mae = training.validate(*val_patches)
            print(f'{args.base_weights}: validation loss {val_loss:.4f}, MAE {val_mae:.4f}')
        save()
        store_schedule(out, schedule)
    history = History(out, done)
    torch.manual_seed(seed << 32 | done)
    sums, summed, note, saved = np.zeros(2), 0, '', time.monotonic()
    with StopSignals() as stopped, Progress(until, 'steps', done) as progress:
        while done < until and not stopped:
            training.step(learning_rate(done, schedule))
            done, summed = done + 1, summed + 1
            if done % LOOK_EVERY == 0 or done % steps_per_epoch == 0:
                sums += training.sums_so_far()
                loss, error = sums / summed
                if not math.isfinite(loss):
                    raise InputError(f'the loss is no finite number at step {done}; lower --lr '
                                     'or look into the photos')
                note = f'loss {loss:.3f}, MAE {error:.3f}'
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    save()
                    saved = time.monotonic()
            progress.update(done, note)
            if done % steps_per_epoch == 0:
                val_loss, val_mae = training.validate(*val_patches)
                history.add(done // steps_per_epoch, done, done * batch_size,
                            learning_rate(done, schedule), loss, error, val_loss, val_mae)
                print(f'epoch {done // steps_per_epoch}/{epochs}: loss {loss:.4f}, '
                      f'validation loss {val_loss:.4f}, MAE {val_mae:.4f}', flush=True)
                sums, summed = np.zeros(2), 0
                save()
    if done < until:
        save()
        print(f'stopped at step {done}; go on with --resume', file=sys.stderr)
        return STOPPED
    print(f'{out / WEIGHTS_FILE}: for train.py --base_weights')
    return 0


@command
def main(argv=None):
    args = parse_args(argv)
    schedule = settle_schedule(args, SCHEDULE)
    check_writable(*(args.out_path / name for name in (RUN_FILE, STATE_FILE, WEIGHTS_FILE,
                                                       'history_cls.csv', 'history_cls.png')))
    try:
        return run(args, get_comp_type(args.comp_type), schedule)
    except torch.OutOfMemoryError:
        raise InputError('the memory of the GPU is too small; lower --batch_size, or use fewer '
                         'or smaller photos') from None


if __name__ == '__main__':
    sys.exit(main())
