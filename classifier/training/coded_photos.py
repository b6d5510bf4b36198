"""Batches from photos that lie at every quality in the memory of a device, for PyTorch.

Crops are drawn, and edited, on the device (`device_edits`).
"""
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from classifier.batch import ordered_map
from classifier.cli import Progress
from classifier.environment import cores
from classifier.errors import InputError
from classifier.images import compress, draw_chroma
from classifier.patches import REDRAWS, Patches
from classifier.training.device_edits import DeviceEdits
from classifier.training.photo_source import MAX_QUALITY, read_photos
from classifier.training.torch_step import DEVICE


class CodedPhotos:
    """Photos at every quality in the memory of a device, 300 bytes a pixel; crops are drawn there.

    Parameters
    ----------
    folder, side, recursive, chroma
        As `PhotoSource` takes them.
    seed : int
        Of the mixed chroma.
    edits : bool
        Edit a share of the crops, as `DeviceEdits` does.
    uncompressed : float
        As `PhotoSource` takes it; the photos as they are take 3 bytes a pixel more.

    Raises
    ------
    InputError
        No photo can be used, or the memory is too small.
    """

    def __init__(self, folder: str | os.PathLike, side: int, recursive: bool = False,
                 chroma: str = '4:2:0', seed: int = 0, edits: bool = False,
                 uncompressed: float = 0):
        self.side, self.device, self.uncompressed = side, DEVICE, uncompressed
        self.edits = DeviceEdits(side, DEVICE) if edits else None
        self.window = self.edits.window if self.edits else side
        images = read_photos(folder, self.window, recursive)
        levels = MAX_QUALITY + (uncompressed > 0)
        sizes = np.array([levels * image.size for image in images])
        starts, needed, memory = sizes.cumsum() - sizes, int(sizes.sum()), _free_memory()
        if needed > memory:
            raise InputError(f'{len(images)} photos at {MAX_QUALITY} qualities need '
                             f'{needed / 1e9:.1f} GB of memory, {memory / 1e9:.1f} GB are '
                             'free; use fewer or smaller photos')
        self.pixels = torch.empty(needed, dtype=torch.uint8, device=DEVICE)
        self.starts = torch.tensor(starts, device=DEVICE)
        self.sides = torch.tensor([image.shape[:2] for image in images], device=DEVICE)

        def code(index):
            rng = np.random.default_rng((seed, index))
            ladder = [compress(images[index], quality, draw_chroma(chroma, rng))
                      for quality in range(1, MAX_QUALITY + 1)]
            if uncompressed:
                ladder.append(images[index])
            self.pixels[starts[index]:][:sizes[index]] = torch.from_numpy(np.ravel(ladder))

        with ThreadPoolExecutor(cores()) as pool, Progress(len(images), 'photos') as progress:
            for done, _ in enumerate(ordered_map(pool, code, range(len(images)), cores()), 1):
                progress.update(done, 'compressing them')

    def __len__(self):
        return len(self.starts)

    def draw(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops and qualities as `PhotoSource.draw`, tensors; nothing in it comes from the CPU."""
        def uniform(limits, *shape):
            drawn = torch.rand((number, *shape), device=self.device, dtype=torch.float64)
            return (drawn * limits).long()

        photo, level = uniform(len(self.starts)), uniform(MAX_QUALITY)
        if self.uncompressed:  # the level after those of all qualities
            coin = torch.rand(number, device=self.device) < self.uncompressed
            level = level.masked_fill(coin, MAX_QUALITY)
        height, width = self.sides[photo].T[:, :, None]
        row, column = (uniform(side - self.window + 1, 1 + REDRAWS) for side in (height, width))

        def cut(row, column, side):
            """(number, positions, side, side, 3)."""
            first = self.starts[photo][:, None] + 3 * (
                (level[:, None] * height + row) * width + column)
            down = 3 * width[:, :, None, None] * torch.arange(side, device=self.device)[:, None]
            across = torch.arange(3 * side, device=self.device)
            return self.pixels[first[:, :, None, None] + down + across].unflatten(3, (side, 3))

        margin = (self.window - self.side) // 2
        crops = cut(row + margin, column + margin, self.side)
        flat = (crops == crops[:, :, :1, :1]).flatten(2).all(2)
        chosen = torch.arange(number, device=self.device), flat.byte().argmin(1)
        if self.edits:
            windows = cut(row[chosen][:, None], column[chosen][:, None], self.window)
            crops = self.edits.draw(windows[:, 0])
        else:
            crops = crops[chosen]
        for axis in (1, 2):
            crops = torch.where(uniform(2)[:, None, None, None] > 0, crops, crops.flip(axis))
        return crops, (level + 1).clamp(max=MAX_QUALITY)

    def batches(self, batch_size: int, seed: int, step: int = 0) -> Iterator[Callable]:
        """For each step the function that draws its batch, as a part of the step."""
        torch.manual_seed(seed << 32 | step)
        while True:
            yield lambda: self.draw(batch_size)

    def fixed(self, number: int = 65_536) -> Patches:
        """Crops to validate on, the same every time."""
        torch.manual_seed(0)
        parts = [self.draw(min(4096, number - done)) for done in range(0, number, 4096)]
        return Patches(*map(torch.cat, zip(*parts)), self.side)


def _free_memory():
    """Bytes free on a GPU, or those that the machine has."""
    if DEVICE == 'cuda':
        return torch.cuda.mem_get_info()[0]
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
