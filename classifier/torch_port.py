#!/usr/bin/env python3
"""Train the patch network with PyTorch on one GPU, on patches that never touch a disk.

    python3 classifier/torch_port.py --comp_type jpeg_paper --in_path DIV2K_train_HR \\
        --val_path DIV2K_valid_HR --epochs 40 --out_path out
    python3 classifier/train.py --comp_type jpeg_paper --base_weights out/weights.npz ...

Every photo is kept at all qualities in the GPU's memory (300 bytes for a pixel), and every
patch is a fresh crop. It needs no TensorFlow; train.py then finishes the weights.
Ctrl-C stops it, `--resume` goes on.

It is also the training step of `train.py --framework pytorch`, for a GPU that PyTorch can use
and TensorFlow cannot, and for processors that multiply matrices of bfloat16. Network, loss and
update are those of train.py.

PyTorch is not in requirements.txt: `pip install torch`.
"""
import argparse
import copy
import math
import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from console import Progress, check_writable, command, ordered_map, whole_file
from gen_data import CHROMA, REDRAWS, coded, sources
from images import list_images, read_image
from models import (COMP_TYPES, STAGE_WIDTHS, InputError, cores, get_comp_type, load_arrays)
from train import (AVERAGE_DECAY, RUN_FILE, STOPPED, History, StopSignals, add_training_options,
                   settle_schedule)

WEIGHTS_FILE, STATE_FILE = 'weights.npz', 'state.pt'  # in out_path
VALIDATION_BATCHES = 16
EAGER_STEPS = 3     # before one is recorded
LOOK_EVERY = 100    # steps
# As in train.py, for larger batches.
SCHEDULE = {'epochs': 40, 'steps_per_epoch': 1000, 'batch_size': 4096, 'lr': 2e-3,
            'warmup_steps': 500, 'seed': 0, 'chroma': 'mixed'}


class ConvNorm(nn.Module):
    """A convolution without bias and its batch normalisation."""

    def __init__(self, channels, filters, size, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, size, padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1)  # Keras calls that 0.9

    def forward(self, x):
        return self.norm(self.conv(x))


class PatchNetwork(nn.Module):
    """`models.build_network` for (N, 3, 16, 16) instead of (N, 16, 16, 3); k: stage width unit."""

    def __init__(self, k):
        super().__init__()
        self.stages, channels = nn.ModuleList(), 3
        for width in STAGE_WIDTHS:
            filters = k * width
            self.stages.append(nn.ModuleList([
                ConvNorm(channels, filters, 3), ConvNorm(filters, filters, 1),
                ConvNorm(filters, filters, 3, 1), ConvNorm(filters, filters, 1)]))
            channels = filters
        self.last = nn.Conv2d(channels, k, 3)
        self.head = nn.Linear(k, 2)

    def forward(self, x):
        for entry, squeeze, middle, expand in self.stages:
            x = F.relu(entry(x))
            x = F.relu(expand(F.relu(middle(F.relu(squeeze(x))))) + x)
        return 100 * torch.sigmoid(self.head(F.relu(self.last(x)).mean((2, 3))))

    def weights(self):
        """Parameters and moving statistics, in the order of Keras' `weights`."""
        for module in self.modules():
            yield from module.parameters(recurse=False)
            if isinstance(module, nn.BatchNorm2d):
                yield from (module.running_mean, module.running_var)

    @torch.no_grad()
    def set(self, arrays):
        """Take over weights as Keras holds them, in the order of `weights`."""
        for tensor, array in zip(self.weights(), arrays, strict=True):
            tensor.copy_(from_keras(array))

    def arrays(self):
        """The weights as Keras' `get_weights` gives them: a list of float32 arrays."""
        return [to_keras(tensor) for tensor in self.weights()]


def from_keras(array):
    """A weight for PyTorch; a kernel is turned: (h, w, in, out) -> (out, in, h, w)."""
    value = torch.tensor(array)
    return value.permute(3, 2, 0, 1) if value.ndim == 4 else value.t()


def to_keras(tensor):
    """A weight for Keras, the inverse of `from_keras`."""
    value = tensor.detach().cpu()
    return (value.permute(2, 3, 1, 0) if value.ndim == 4 else value.t()).contiguous().numpy()


def losses(output, quality):
    """A batch's mean loss and mean absolute quality error, as `models.confidence_loss` has them.

    output: (n, 2), the network's; quality: (n,) true ones.
    """
    error = (quality - output[:, 1]).abs()
    confidence_error = (100 - error.detach() - output[:, 0]).abs()
    return (0.5 * confidence_error + error).mean(), error.mean()


@torch.no_grad()
def move_average(average, network, weight):
    """Move the average of the weights by that part of its distance to the network's."""
    torch._foreach_lerp_(list(average.weights()), list(network.weights()), weight)


class TorchStep:
    """One training step on copies of Keras' weights and moments, on the GPU if there is one.

    Convolutions take bfloat16, everything else is float32. k: stage width unit of the
    network; network, average, optimizer: those of a `train.Trainer`, of Keras.
    """

    def __init__(self, k, network, average, optimizer):
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.network, self.average = (
            PatchNetwork(k).to(self.device, memory_format=torch.channels_last) for _ in range(2))
        torch._dynamo.config.suppress_errors = True  # where nothing compiles: slower, it runs
        self.forward = torch.compile(self.network)
        parameters = list(self.network.parameters())
        self.adam = torch.optim.Adam(parameters, eps=optimizer.epsilon, fused=True)
        self.iterations = optimizer.iterations
        for tensor in parameters:
            self.adam.state[tensor] = {
                'step': torch.zeros((), device=self.device),
                'exp_avg': torch.zeros_like(tensor), 'exp_avg_sq': torch.zeros_like(tensor)}
        moments = ([self.adam.state[tensor][name] for tensor in parameters]
                   for name in ('exp_avg', 'exp_avg_sq'))
        self.pairs = [pair for tensors, variables in zip(
            (self.network.weights(), self.average.weights(), *moments),
            (network.weights, average.weights, optimizer._momentums, optimizer._velocities),
            strict=True) for pair in zip(tensors, variables, strict=True)]
        self.from_keras()

    def from_keras(self):
        """Copy Keras' state to PyTorch."""
        with torch.no_grad():
            for tensor, variable in self.pairs:
                tensor.copy_(from_keras(variable.numpy()))
            for state in self.adam.state.values():
                state['step'].fill_(int(self.iterations.numpy()))

    def to_keras(self):
        """Copy PyTorch's state to Keras."""
        for tensor, variable in self.pairs:
            variable.assign(to_keras(tensor))

    def __call__(self, x, quality, rate, decay):
        """One update at that learning rate; the average keeps `decay` of what it was.

        x: uint8 (N, 16, 16, 3), quality: (N,), of NumPy. Returns the batch's mean loss and
        mean absolute quality error, as `models.confidence_loss` defines them: (2,) float64.
        """
        x, quality = (torch.tensor(v, device=self.device) for v in (x, quality))
        with torch.autocast(self.device, torch.bfloat16):
            output = self.forward(x.permute(0, 3, 1, 2).float()).float()
        loss, error = losses(output, quality)
        for group in self.adam.param_groups:
            group['lr'] = rate
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        move_average(self.average, self.network, 1 - decay)
        self.iterations.assign_add(1)
        return np.array([loss.item(), error.item()])


# ---------------------------------------------------------------- on a GPU alone

class CodedPhotos:
    """Photos at every quality from 1 on, in the memory of a device, to draw patches from.

    Each is coded once at each quality, with the chroma that gen_data.py would draw.
    paths: images that can be read, of at least 16 px on each side. InputError if the
    memory is too small.
    """

    def __init__(self, paths, comp_type, chroma, seed, device):
        self.device, self.side, self.qualities = device, comp_type.patch, comp_type.max_quality
        with ThreadPoolExecutor(cores()) as pool:
            images = list(pool.map(read_image, paths))
            sizes = np.array([image.size * self.qualities for image in images])
            ends = sizes.cumsum()
            starts = ends - sizes
            try:
                self.pixels = torch.empty(int(ends[-1]), dtype=torch.uint8, device=device)
            except RuntimeError:
                raise InputError(f'{len(paths)} photos at {self.qualities} qualities need '
                                 f'{ends[-1] / 1e9:.1f} GB of the memory of {device}, more than '
                                 'there is; use fewer or smaller photos') from None

            def code(index):
                rng = np.random.default_rng((seed, index))
                ladder = [coded(images[index], quality, chroma, rng)
                          for quality in range(1, self.qualities + 1)]
                self.pixels[starts[index]:ends[index]] = torch.from_numpy(np.ravel(ladder))

            with Progress(len(paths), 'photos') as progress:
                for done, _ in enumerate(ordered_map(pool, code, range(len(paths)), cores()), 1):
                    progress.update(done, 'coding them')
        self.starts = torch.tensor(starts, device=device)
        self.sides = torch.tensor([image.shape[:2] for image in images], device=device)

    @torch.no_grad()
    def draw(self, number):
        """Random crops at any phase of the grid: uint8 (number, 16, 16, 3), and qualities (number,).

        As in training from files, flat ones are drawn again and each axis is mirrored in half
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

    On a GPU the whole step, drawing the patches too, is recorded once and then replayed.
    """

    def __init__(self, k, photos, batch_size, average_decay, seed):
        self.photos, self.batch_size, self.average_decay = photos, batch_size, average_decay
        self.device, self.on_gpu = photos.device, photos.device != 'cpu'
        torch.manual_seed(seed)
        self.network = PatchNetwork(k)
        for module in self.network.modules():  # Keras' defaults
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.network.to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval()
        self.rate = torch.zeros((), device=self.device)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=self.rate, eps=1e-7, fused=True,
                                     capturable=self.on_gpu)
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        torch.backends.cudnn.benchmark = True
        torch._dynamo.config.suppress_errors = True
        self.forward = torch.compile(self.network) if self.on_gpu else self.network
        self.eager, self.recorded = EAGER_STEPS, None

    def start(self, arrays):
        """Begin with weights of Keras."""
        self.network.set(arrays)
        self.average.set(arrays)

    def _step(self):
        x, quality = self.photos.draw(self.batch_size)
        with torch.autocast(self.device, torch.bfloat16, cache_enabled=False):
            output = self.forward(x.permute(0, 3, 1, 2).float()).float()
        loss, error = losses(output, quality)
        loss.backward()
        self.adam.step()
        self.adam.zero_grad()
        move_average(self.average, self.network, 1 - self.average_decay)
        self.sums += torch.stack([loss.detach(), error.detach()])

    def step(self, rate):
        """One update at that learning rate."""
        self.rate.fill_(rate)
        if self.on_gpu and self.eager == 0 and not self.recorded:
            self.recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.recorded):
                self._step()
        if self.recorded:
            self.recorded.replay()
        elif self.on_gpu:
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):  # as recording demands of the steps before it
                self._step()
            here.wait_stream(aside)
            self.eager -= 1
        else:
            self._step()

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
        """What `restore` takes to go on."""
        return {'network': self.network.state_dict(), 'average': self.average.state_dict(),
                'adam': self.adam.state_dict()}

    def restore(self, state):
        """Go on from what `state` gave."""
        self.network.load_state_dict(state['network'])
        self.average.load_state_dict(state['average'])
        self.adam.load_state_dict(state['adam'])
        self.rate = self.adam.param_groups[0]['lr']


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--in_path', required=True, metavar='DIR', help='photos to train on')
    parser.add_argument('--val_path', required=True, metavar='DIR', help='photos to validate on')
    parser.add_argument('--comp_type', required=True, help=', '.join(COMP_TYPES))
    parser.add_argument('--chroma', choices=CHROMA, help='as in gen_data.py, of the photos to '
                        f'train on (default: {SCHEDULE["chroma"]})')
    parser.add_argument('--base_weights', metavar='FILE',
                        help='start from the weights in this weights.npz instead of random ones')
    add_training_options(parser, SCHEDULE, 'out')
    return parser.parse_args(argv)


def learning_rate(step, schedule):
    """Of train.py's schedule, at the step of that number from 0 on."""
    total = schedule['epochs'] * schedule['steps_per_epoch']
    warmup = max(1, min(schedule['warmup_steps'], total // 10))
    if step < warmup:
        return schedule['lr'] * (step + 1) / warmup
    return schedule['lr'] * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def usable_photos(folder, side):
    """The paths of a folder's images of at least that side; warns about the others."""
    with ThreadPoolExecutor(cores()) as pool:
        return sources(list_images(folder), side, pool)


def load_state(path, device):
    """What a training saved; InputError for none, or a damaged one."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise InputError(f'{path}: no state to resume from; start again with another '
                         '--out_path') from None
    except (RuntimeError, pickle.UnpicklingError, EOFError):
        raise InputError(f'{path}: damaged; start again with another --out_path') from None


@command
def main(argv=None):
    args = parse_args(argv)
    comp_type = get_comp_type(args.comp_type)
    schedule = settle_schedule(args, SCHEDULE)
    out, batch_size, seed = args.out_path, schedule['batch_size'], schedule['seed']
    check_writable(*(out / name for name in (RUN_FILE, STATE_FILE, WEIGHTS_FILE,
                                             'history_cls.csv', 'history_cls.png')))
    arrays = load_arrays(comp_type, args.base_weights) if args.base_weights else None
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    state = load_state(out / STATE_FILE, device) if args.resume else None
    paths, val_paths = (usable_photos(folder, comp_type.patch)
                        for folder in (args.in_path, args.val_path))
    torch.manual_seed(0)
    val_photos = CodedPhotos(val_paths, comp_type, '4:2:0', 0, device)
    val_patches = [torch.cat(parts) for parts in zip(
        *(val_photos.draw(batch_size) for _ in range(VALIDATION_BATCHES)))]
    del val_photos
    torch.cuda.empty_cache()  # for the photos to train on
    photos = CodedPhotos(paths, comp_type, schedule['chroma'], seed, device)
    training = PhotoTraining(comp_type.k, photos, batch_size, AVERAGE_DECAY, seed)
    done = 0
    if args.resume:
        training.restore(state['training'])
        done = state['done']
    elif arrays:
        training.start(arrays)
        val_loss, val_mae = training.validate(*val_patches)
        print(f'{args.base_weights}: validation loss {val_loss:.4f}, MAE {val_mae:.4f}', flush=True)
    torch.manual_seed(seed << 32 | done)
    with whole_file(out / RUN_FILE) as file:
        json.dump(schedule, file, indent=1)
    history = History(out, done)
    steps_per_epoch = schedule['steps_per_epoch']
    until = min(schedule['epochs'], args.until_epoch or schedule['epochs']) * steps_per_epoch

    def save():
        with whole_file(out / STATE_FILE, 'wb') as file:
            torch.save({'done': done, 'training': training.state()}, file)
        with whole_file(out / WEIGHTS_FILE, 'wb') as file:
            np.savez(file, *training.average.arrays())

    sums, summed, note = np.zeros(2), 0, ''
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
            progress.update(done, note)
            if done % steps_per_epoch == 0:
                val_loss, val_mae = training.validate(*val_patches)
                history.add(done // steps_per_epoch, done, done * batch_size,
                            learning_rate(done, schedule), loss, error, val_loss, val_mae)
                print(f'epoch {done // steps_per_epoch}/{schedule["epochs"]}: loss {loss:.4f}, '
                      f'validation loss {val_loss:.4f}, MAE {val_mae:.4f}', flush=True)
                sums, summed = np.zeros(2), 0
                save()
    if done < until:
        save()
        print(f'stopped at step {done}; go on with --resume', file=sys.stderr)
        return STOPPED
    print(f'{out / WEIGHTS_FILE}: for train.py --base_weights')
    return 0


if __name__ == '__main__':
    sys.exit(main())
