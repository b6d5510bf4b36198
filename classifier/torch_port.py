"""The training step in PyTorch, for `train.py --framework pytorch` and train_gpu.py.

For a GPU that PyTorch can use and TensorFlow cannot, and for processors that multiply
matrices of bfloat16. Network, loss and update are those of train.py, and so are the weights
and the optimiser's moments, which are copied to Keras before they are saved or validated:
what one framework began, the other goes on with.

PyTorch is not in requirements.txt: `pip install torch`.
"""
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models import STAGE_WIDTHS


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


def to_keras(tensors):
    """Weights for Keras, a list of arrays: the inverse of `copy_from_keras`."""
    values = (tensor.detach().cpu() for tensor in tensors)
    return [(v.permute(2, 3, 1, 0) if v.ndim == 4 else v.t()).contiguous().numpy() for v in values]


@torch.no_grad()
def copy_from_keras(tensors, arrays):
    """Set tensors to weights as Keras holds them; its kernels are (h, w, in, out)."""
    for tensor, array in zip(tensors, arrays, strict=True):
        value = torch.tensor(array)
        tensor.copy_(value.permute(3, 2, 0, 1) if value.ndim == 4 else value.t())


def compiled(network):
    """The network, compiled; where nothing compiles it is slower, and runs."""
    torch._dynamo.config.suppress_errors = True
    return torch.compile(network)


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


def adam(network, **options):
    """Adam for a network, and its moments, which are there before the first step.

    Returns the optimiser and two lists, the first moments and the second.
    """
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, fused=True, **options)
    for tensor in parameters:
        optimizer.state[tensor] = {
            'step': torch.zeros((), device=tensor.device),
            'exp_avg': torch.zeros_like(tensor), 'exp_avg_sq': torch.zeros_like(tensor)}
    return optimizer, *([optimizer.state[tensor][name] for tensor in parameters]
                        for name in ('exp_avg', 'exp_avg_sq'))


def set_steps(optimizer, number):
    """Tell an optimiser of `adam` how many steps are behind it."""
    for state in optimizer.state.values():
        state['step'].fill_(number)


class TorchStep:
    """One training step on copies of Keras' weights and moments, on the GPU if there is one.

    Convolutions take bfloat16, everything else is float32. k: stage width unit of the
    network; network, average, optimizer: those of a `train.Trainer`, of Keras.
    """

    def __init__(self, k, network, average, optimizer):
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.network, self.average = (
            PatchNetwork(k).to(self.device, memory_format=torch.channels_last) for _ in range(2))
        self.forward = compiled(self.network)
        self.adam, *moments = adam(self.network, eps=optimizer.epsilon)
        self.iterations = optimizer.iterations
        self.pairs = [pair for tensors, variables in zip(
            (self.network.weights(), self.average.weights(), *moments),
            (network.weights, average.weights, optimizer._momentums, optimizer._velocities),
            strict=True) for pair in zip(tensors, variables, strict=True)]
        self.from_keras()

    def from_keras(self):
        """Copy Keras' state to PyTorch."""
        tensors, variables = zip(*self.pairs)
        copy_from_keras(tensors, [variable.numpy() for variable in variables])
        set_steps(self.adam, int(self.iterations.numpy()))

    def to_keras(self):
        """Copy PyTorch's state to Keras."""
        tensors, variables = zip(*self.pairs)
        for variable, array in zip(variables, to_keras(tensors)):
            variable.assign(array)

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
