"""The training step in PyTorch: the network, loss and update of the Keras step, in bfloat16.

For GPUs that PyTorch can use and TensorFlow cannot, and for processors that multiply matrices of
bfloat16. PyTorch is not in requirements.txt, so this module is imported only where it is wanted.
"""
import contextlib
import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from classifier.errors import InputError
from classifier.models import CompType, STAGE_WIDTHS
from classifier.training.backend import Backend

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
_ON_GPU = DEVICE == 'cuda'
_EAGER_STEPS = 3  # on a GPU, before a step is recorded


def _conv_norm(channels, filters, size, padding=0):
    return nn.Sequential(nn.Conv2d(channels, filters, size, padding=padding, bias=False),
                         nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1))  # Keras calls that 0.9


class PatchNetwork(nn.Module):
    """`models.build_network` for (n, 3, 16, 16) instead of (n, 16, 16, 3); k: stage width unit."""

    def __init__(self, k: int):
        super().__init__()
        self.stages, channels = nn.ModuleList(), 3
        for width in STAGE_WIDTHS:
            filters = k * width
            self.stages.append(nn.ModuleList([
                _conv_norm(channels, filters, 3), _conv_norm(filters, filters, 1),
                _conv_norm(filters, filters, 3, 1), _conv_norm(filters, filters, 1)]))
            channels = filters
        self.last = nn.Conv2d(channels, k, 3)
        self.head = nn.Linear(k, 2)
        for parameter in self.parameters():  # Keras' default initialisation
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        for layer in (self.last, self.head):
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for entry, squeeze, middle, expand in self.stages:
            x = F.relu(entry(x))
            x = F.relu(expand(F.relu(middle(F.relu(squeeze(x))))) + x)
        return 100 * torch.sigmoid(self.head(F.relu(self.last(x)).mean((2, 3))))

    def weights(self) -> Iterator[torch.Tensor]:
        """Parameters and moving statistics, in the order of Keras' `get_weights()`."""
        for module in self.modules():
            yield from module.parameters(recurse=False)
            if isinstance(module, nn.BatchNorm2d):
                yield from (module.running_mean, module.running_var)


def losses(output: torch.Tensor, quality: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch's mean loss and mean absolute quality error, as in `models.confidence_loss`.

    Parameters
    ----------
    output : float32 tensor, shape (n, 2)
        Predicted confidence and quality, 0..100.
    quality : integer tensor, shape (n,)
        True qualities, 1..100.

    Returns
    -------
    loss, error : float32 tensors, shape ()
    """
    error = (quality - output[:, 1]).abs()
    confidence_error = (100 - error.detach() - output[:, 0]).abs()
    return (0.5 * confidence_error + error).mean(), error.mean()


class TorchStep(Backend):
    """The backend in PyTorch.

    A batch is a pair of NumPy arrays, or a function that draws a pair of tensors on the device
    (see `CodedPhotos`). With the latter, the whole step on a GPU is recorded once as a CUDA graph
    and then replayed: its hundreds of kernels are so short that starting them one by one takes
    longer. So nothing in `_step` may come from the CPU then: what changes from step to step is
    put into tensors on the device before.

    Parameters
    ----------
    comp_type : CompType
    seed : int
        Of the random weights.
    """

    def __init__(self, comp_type: CompType, seed: int):
        self.look_every = 100 if _ON_GPU else 1
        torch.manual_seed(seed)
        self.network = PatchNetwork(comp_type.k).to(DEVICE, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.network).train(False)
        self.rate, self.ema_share = (torch.zeros((), device=DEVICE) for _ in range(2))
        self.sums = torch.zeros(2, dtype=torch.float64, device=DEVICE)
        parameters = list(self.network.parameters())
        self.adam = torch.optim.Adam(parameters, lr=self.rate, eps=1e-7, fused=True,
                                     capturable=_ON_GPU)
        self.step_counts = [torch.zeros((), device=DEVICE) for _ in parameters]
        self.moments = [torch.zeros_like(tensor) for tensor in 2 * parameters]
        for tensor, step, first, second in zip(parameters, self.step_counts, self.moments,
                                               self.moments[len(parameters):]):
            # There before the first step, to be stored and recorded.
            self.adam.state[tensor] = {'step': step, 'exp_avg': first, 'exp_avg_sq': second}
        self.weight_variables, self.ema_variables = (
            list(network.weights()) for network in (self.network, self.ema))
        torch._dynamo.config.suppress_errors = True  # where nothing compiles it is slower, and runs
        torch.backends.cudnn.benchmark = True
        self.forward = torch.compile(self.network)
        self.eager_steps, self.graph = _EAGER_STEPS, None

    def step(self, batch: tuple[np.ndarray, np.ndarray] | Callable, rate: float,
             decay: float) -> None:
        self.rate.fill_(rate)
        self.ema_share.fill_(1 - decay)
        if not (_ON_GPU and callable(batch)):
            self._step(batch)
        elif self.eager_steps:
            self.eager_steps -= 1
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):  # as recording demands of the steps before it
                self._step(batch)
            here.wait_stream(aside)
        else:
            if not self.graph:
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):
                    self._step(batch)
            self.graph.replay()

    def _step(self, batch):
        x, quality = batch() if callable(batch) else (
            torch.as_tensor(values, device=DEVICE) for values in batch)
        with torch.autocast(DEVICE, torch.bfloat16, cache_enabled=False):
            output = self.forward(x.permute(0, 3, 1, 2).float()).float()
        loss, error = losses(output, quality)
        loss.backward()
        self.adam.step()
        self.adam.zero_grad()
        with torch.no_grad():
            moves = torch._foreach_sub(self.weight_variables, self.ema_variables)
            torch._foreach_mul_(moves, self.ema_share)
            torch._foreach_add_(self.ema_variables, moves)
            self.sums += torch.stack([loss.detach(), error.detach()])

    @torch.no_grad()
    def validation_sums(self, x: np.ndarray | torch.Tensor,
                        quality: np.ndarray | torch.Tensor) -> np.ndarray:
        x, quality = (torch.as_tensor(values, device=DEVICE) for values in (x, quality))
        means = losses(self.ema(x.permute(0, 3, 1, 2).float()), quality)
        return len(x) * torch.stack(means).double().cpu().numpy()

    def read(self, variables: list[torch.Tensor]) -> list[np.ndarray]:
        values = (tensor.detach().cpu() for tensor in variables)
        return [(v.permute(2, 3, 1, 0) if v.ndim == 4 else v.t()).contiguous().numpy().copy()
                for v in values]

    @torch.no_grad()
    def write(self, variables: list[torch.Tensor], arrays: list[np.ndarray]) -> None:
        for tensor, array in zip(variables, arrays, strict=True):
            value = torch.tensor(array)  # Keras' kernels are (h, w, in, out)
            tensor.copy_(value.permute(3, 2, 0, 1) if value.ndim == 4 else value.t())

    def __str__(self):
        return f'{self.network}\nPyTorch on {DEVICE}'


@contextlib.contextmanager
def small_memory_named() -> Iterator[None]:
    """Turn PyTorch's error about a GPU's memory into an InputError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise InputError('the memory of the GPU is too small; lower --batch_size, or use fewer '
                         'or smaller photos') from None
