"""Batches from photos: compressed when they are drawn, or all of them in a device's memory.

What is drawn is a crop of a compressed photo, at any phase of the block grid. The photos must
never have been compressed before.
"""
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from classifier.batch import ordered_map
from classifier.cli import Progress
from classifier.environment import cores
from classifier.errors import InputError
from classifier.images import compress, draw_chroma, list_images, read_image
from classifier.patches import REDRAWS
from classifier.sources import usable_images

VALIDATION_PATCHES = 16_384
DEVICE_VALIDATION_PATCHES = 65_536
MAX_QUALITY = 100
_MARGIN = 8   # px of JPEG around a crop, so that it never shows the border of a compressed tile
_PHASES = 16  # of the grid of 4:2:0 chroma blocks


class FixedPatches:
    """The same patches every time, to validate on: (n, side, side, 3) and (n,), uint8."""

    def __init__(self, x, quality):
        self.x, self.quality = x, quality

    def __len__(self):
        return len(self.quality)

    def in_order(self, batch_size):
        for start in range(0, len(self), batch_size):
            yield self.x[start:start + batch_size], self.quality[start:start + batch_size]


class PhotoSource:
    """Photos in memory; a crop is cut from the middle of a tile compressed when it is drawn.

    side: of a crop, in px; chroma: 'mixed' or '4:2:0'; augment, for the patch network: draw flat
    crops again, up to 3 times, and mirror each axis in half of the crops.
    """

    def __init__(self, folder, side: int, recursive: bool = False, chroma: str = '4:2:0',
                 augment: bool = True):
        self.side, self.chroma, self.augment = side, chroma, augment
        self.tile = side + 2 * _MARGIN + _PHASES
        with ThreadPoolExecutor(cores()) as pool:
            self.photos = list(pool.map(read_image, usable_images(list_images(folder, recursive),
                                                                  self.tile)))

    def __len__(self):
        return len(self.photos)

    def draw(self, number: int, rng: np.random.Generator):
        """Crops, uint8 (number, side, side, 3) BGR, and their qualities, uint8 (number,)."""
        x = np.empty((number, self.side, self.side, 3), np.uint8)
        quality = np.empty(number, np.uint8)
        for i in range(number):
            for _ in range(1 + REDRAWS * self.augment):
                photo = self.photos[rng.integers(len(self.photos))]
                top, left = rng.integers(np.array(photo.shape[:2]) - self.tile + 1)
                tile = np.ascontiguousarray(photo[top:top + self.tile, left:left + self.tile])
                quality[i] = rng.integers(1, MAX_QUALITY + 1)
                dy, dx = _MARGIN + rng.integers(_PHASES, size=2)
                coded = compress(tile, int(quality[i]), draw_chroma(self.chroma, rng))
                x[i] = coded[dy:dy + self.side, dx:dx + self.side]
                if (x[i] != x[i, 0, 0]).any():
                    break
        if self.augment:
            for axis, mirrored in zip((1, 2), rng.random((2, number)) < 0.5):
                x[mirrored] = np.flip(x[mirrored], axis)
        return x, quality

    def batches(self, batch_size, seed, step=0):
        """Endless batches from that step on, as `PatchFile.batches`, drawn ahead on all cores."""
        with ThreadPoolExecutor(cores()) as pool:
            yield from ordered_map(
                pool, lambda n: self.draw(batch_size, np.random.default_rng((seed, n))),
                itertools.count(step), 2 * cores())

    def fixed(self, number: int) -> FixedPatches:
        """Crops to validate on, the same every time."""
        return FixedPatches(*self.draw(number, np.random.default_rng(0)))


class CodedPhotos:
    """Photos at every quality in the memory of a device, 300 bytes a pixel.

    PyTorch draws the crops there. chroma: 'mixed' or '4:2:0'; seed: of the mixed chroma; device:
    'cuda' or 'cpu'. InputError if the memory is too small.
    """

    def __init__(self, folder, comp_type, recursive: bool = False, chroma: str = '4:2:0',
                 seed: int = 0, device: str = 'cpu'):
        import torch
        self.device, self.side, self.qualities = device, comp_type.patch, comp_type.max_quality
        paths = usable_images(list_images(folder, recursive), self.side)
        with ThreadPoolExecutor(cores()) as pool, Progress(len(paths), 'photos') as progress:
            images = list(pool.map(read_image, paths))
            sizes = np.array([image.size * self.qualities for image in images])
            starts, needed = sizes.cumsum() - sizes, int(sizes.sum())
            if needed > (memory := _free_memory(device)):
                raise InputError(f'{len(paths)} photos at {self.qualities} qualities need '
                                 f'{needed / 1e9:.1f} GB of memory, {memory / 1e9:.1f} GB are '
                                 'free; use fewer or smaller photos')
            self.pixels = torch.empty(needed, dtype=torch.uint8, device=device)

            def code(index):
                rng = np.random.default_rng((seed, index))
                ladder = [compress(images[index], quality, draw_chroma(chroma, rng))
                          for quality in range(1, self.qualities + 1)]
                self.pixels[starts[index]:][:sizes[index]] = torch.from_numpy(np.ravel(ladder))

            for done, _ in enumerate(ordered_map(pool, code, range(len(paths)), cores()), 1):
                progress.update(done, 'compressing them')
        self.starts = torch.tensor(starts, device=device)
        self.sides = torch.tensor([image.shape[:2] for image in images], device=device)

    def __len__(self):
        return len(self.starts)

    def draw(self, number: int):
        """Crops and qualities as `PhotoSource.draw`, tensors; nothing in it comes from the CPU."""
        import torch

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

    def batches(self, batch_size, seed, step=0):
        """For each step the function that draws its batch, as a part of the step."""
        import torch
        torch.manual_seed(seed << 32 | step)
        while True:
            yield lambda: self.draw(batch_size)

    def fixed(self, number: int) -> FixedPatches:
        """Crops to validate on, the same every time."""
        import torch
        torch.manual_seed(0)
        parts = [self.draw(min(4096, number - done)) for done in range(0, number, 4096)]
        return FixedPatches(*map(torch.cat, zip(*parts)))


def _free_memory(device):
    """Bytes free on a GPU, or those that the machine has."""
    if device == 'cuda':
        import torch
        return torch.cuda.mem_get_info()[0]
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
