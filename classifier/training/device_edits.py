"""What `edits` does to whole images, done to patches on a device: for PyTorch.

    edits = DeviceEdits(16, device)
    patches = edits.draw(windows)      # of 64 px around them

Every patch of a batch goes through every edit, of which most leave it as it is: a CUDA graph has
no branches. Nothing comes from the CPU when patches are drawn. Reductions to less than 0.45, the
median filter, palettes, WebP and AVIF are in `edits` alone.
"""
import math

import torch

from classifier.edits import (BLUR_SIGMAS, BRIGHTNESS, COMMON_SCALES, CONTRASTS, EDITED_SHARE,
                              GAMMAS, GRAY_WEIGHTS, NOISE, NUMBERS, SATURATIONS, SHARPENING)

SCALES = 0.45, 2.5
TRIANGLE, CATMULL_ROM, SHARP_CUBIC, LANCZOS, AREA, BOX = KERNELS = range(6)
_LANCZOS_REACH = 3  # px of the result, on either side; no other kernel reaches farther
_BLUR_REACH = 3     # px
_FAR = 256          # rows and columns that a patch may be from the corner of its image
# How often each edit is made of a patch that has one, after the weights in `edits`.
_WEIGHTS = {'resized': 16, 'blurred or sharpened': 4, 'recoloured': 3, 'noise': 2.5, 'turned': 2}


def resize_matrices(scale: torch.Tensor, first: torch.Tensor, kernel: torch.Tensor,
                    antialiased: torch.Tensor, rows: int, window: int) -> torch.Tensor:
    """For each patch the weights by which rows of a resized image are made of those of a window.

    Of an image that is resized by `scale`, the rows from `first` on; the window is the part of the
    image whose middle is nearest to theirs.

    Parameters
    ----------
    scale : float32 tensor, shape (n,)
        At 1 the matrices of BOX pick the window's middle rows, unchanged.
    first : integer tensor, shape (n,)
    kernel : integer tensor, shape (n,)
        TRIANGLE; CATMULL_ROM or SHARP_CUBIC, the cubic convolutions of a = -0.5 (Pillow) and -0.75
        (OpenCV); LANCZOS, of 3 lobes; AREA, the overlap of pixels; BOX, the pixels whose centre is
        in the box: if not antialiased, the nearest one.
    antialiased : bool tensor, shape (n,)
        Widen the kernel where the image is reduced; AREA always is widened.
    rows, window : int
        In px of the result, and of the image.

    Returns
    -------
    float32 tensor, shape (n, rows, window)
        Each row adds up to 1.

    References
    ----------
    Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    def of_patch(values):
        return values[:, None, None]

    device = scale.device
    middle = (first + rows / 2) / scale - 0.5 - (window - 1) / 2
    offset = middle - middle.round()
    row = torch.arange(rows, device=device)[:, None] - (rows - 1) / 2
    centre = (window - 1) / 2 + of_patch(offset) + row / of_patch(scale)
    distance = torch.arange(window, device=device) - centre  # px of the image
    wide = (1 / scale).clamp(min=1)
    width = of_patch(torch.where(antialiased, wide, torch.ones_like(wide)))
    signed = distance / width
    x = signed.abs()
    lanczos = torch.sinc(x) * torch.sinc(x / _LANCZOS_REACH) * (x < _LANCZOS_REACH)
    area = (of_patch(wide) / 2 + 0.5 - distance.abs()).clamp(0, 1)
    box = ((signed > -0.5) & (signed <= 0.5)).float()
    weights, kernel = (1 - x).clamp(min=0), of_patch(kernel)
    for which, values in ((CATMULL_ROM, _cubic(x, -0.5)), (SHARP_CUBIC, _cubic(x, -0.75)),
                          (LANCZOS, lanczos), (AREA, area), (BOX, box)):
        weights = torch.where(kernel == which, values, weights)
    return weights / weights.sum(2, keepdim=True)


def _cubic(x, a):
    near, far = (a + 2) * x ** 3 - (a + 3) * x ** 2 + 1, a * (x ** 3 - 5 * x ** 2 + 8 * x - 4)
    return torch.where(x < 1, near, far * (x < 2))


def resample(x: torch.Tensor, down: torch.Tensor, across: torch.Tensor,
             antialiased: torch.Tensor) -> torch.Tensor:
    """Windows times matrices along both axes, rounded to 8 bits.

    Parameters
    ----------
    x : float32 tensor, shape (n, window, window, 3)
    down, across : float32 tensor, shape (n, rows, window)
        From `resize_matrices`.
    antialiased : bool tensor, shape (n,)
        Also round between the two axes, as Pillow does, whose kernels are antialiased.

    Returns
    -------
    float32 tensor, shape (n, rows, rows, 3)
        Whole numbers, 0..255.
    """
    x = _along_rows(across, x)
    return _rounded(_along_columns(down, torch.where(_of_patch(antialiased), _rounded(x), x)))


def _along_columns(matrices, x):
    return torch.bmm(matrices, x.flatten(2)).unflatten(2, x.shape[2:])


def _along_rows(matrices, x):
    return _along_columns(matrices, x.transpose(1, 2)).transpose(1, 2)


def _of_patch(values):
    """To be broadcast over patches, (n, height, width, channels)."""
    return values[:, None, None, None]


def _rounded(x):
    """To whole numbers of 8 bits; halves, which are common after resizing, up, as the tools do."""
    return (x + 0.5).floor().clamp(0, 255)


def _first_ones(keys, number):
    """Which of the keys in a row are its `number` smallest."""
    return (keys[:, :, None] > keys[:, None]).sum(2) < number


class DeviceEdits:
    """Edits of patches of `side` px that are drawn, and made, on a device.

    Attributes
    ----------
    window : int
        Side of what `draw` needs around and with a patch, in px.
    """

    def __init__(self, side: int, device: str | torch.device):
        def put(values):
            return torch.tensor(values, dtype=torch.float32, device=device)

        self.side, self.device = side, device
        self.rows = side + 2 * _BLUR_REACH
        # A pixel more, for the middles of both need not meet.
        self.window = math.ceil((self.rows + 2 * _LANCZOS_REACH) / SCALES[0] + 1)
        self.window += (self.window - side) % 2
        self.weights = put(list(_WEIGHTS.values()))
        self.numbers = put(list(NUMBERS.values())).cumsum(0)[:-1]
        self.scales = put(COMMON_SCALES)
        self.gray = put(GRAY_WEIGHTS)
        distances = torch.arange(self.rows) - torch.arange(side)[:, None] - _BLUR_REACH
        self.blur_distances = distances.float().masked_fill(
            distances.abs() > _BLUR_REACH, math.inf).to(device)  # those do not count

    def draw(self, windows: torch.Tensor) -> torch.Tensor:
        """The patches in the middle of windows, of which EDITED_SHARE are edited.

        Parameters
        ----------
        windows : uint8 tensor, shape (n, window, window, 3)
            BGR pixels, on the device.

        Returns
        -------
        uint8 tensor, shape (n, side, side, 3)
            Those that are not edited are unchanged.
        """
        resized, filtered, recoloured, noisy, turned = self._chosen(len(windows)).unbind(1)
        x = self._filtered(self._resized(windows.float(), resized), filtered)
        x = self._noisy(self._recoloured(x, recoloured), noisy)
        return torch.where(_of_patch(turned), x.transpose(1, 2), x).byte()  # mirrored later

    def _uniform(self, number, lowest, highest):
        return lowest + (highest - lowest) * torch.rand(number, device=self.device)

    def _coin(self, number, probability):
        return torch.rand(number, device=self.device) < probability

    def _integer(self, number, limit):
        return (limit * torch.rand(number, device=self.device)).long().clamp(max=limit - 1)

    def _chosen(self, number):
        """Which edits are made of each patch: bool, (number, edits).

        None, or as many as NUMBERS says, without replacement: the smallest of exponential
        variables whose rates are the weights.
        """
        how_many = 1 + (torch.rand((number, 1), device=self.device) > self.numbers).sum(
            1, keepdim=True)
        keys = torch.rand((number, len(self.weights)), device=self.device)
        return (_first_ones(-keys.log() / self.weights, how_many)
                & self._coin(number, EDITED_SHARE)[:, None])

    def _resized(self, windows, chosen):
        """(n, rows, rows, 3): resized as images are; where not chosen, the windows' middles."""
        number = len(windows)
        scale = self._uniform(number, *map(math.log, SCALES)).exp()
        common = self.scales[self._integer(number, len(self.scales))]
        scale = torch.where(self._coin(number, 0.5), common, scale)
        scale = scale.masked_fill(~chosen, 1)
        kernel = self._integer(number, len(KERNELS)).masked_fill(~chosen, BOX)
        antialiased = self._coin(number, 0.75)
        down, across = (resize_matrices(scale, self._integer(number, _FAR), kernel, antialiased,
                                        self.rows, self.window) for _ in range(2))
        return resample(windows, down, across, antialiased)

    def _filtered(self, x, chosen):
        """(n, side, side, 3): blurred by a Gaussian, or sharpened by what that takes away."""
        number, middle = len(x), slice(_BLUR_REACH, -_BLUR_REACH)
        sigma = self._uniform(number, *BLUR_SIGMAS)[:, None, None]
        blur = torch.exp(-0.5 * (self.blur_distances / sigma) ** 2)
        blur = blur / blur.sum(2, keepdim=True)
        soft = _rounded(_along_columns(blur, _along_rows(blur, x)))
        inner = x[:, middle, middle]
        amount = -self._uniform(number, *SHARPENING)
        amount = amount.masked_fill(self._coin(number, 0.5), 1)
        changed = _rounded(inner + _of_patch(amount) * (soft - inner))
        return torch.where(_of_patch(chosen), changed, inner)

    def _recoloured(self, x, chosen):
        """Two of contrast, brightness, gamma, saturation and a change to gray."""
        def drawn(which, limits, none):
            values = self._uniform(number, *limits)
            return _of_patch(values.masked_fill(~two[:, which], none))

        number = len(x)
        two = _first_ones(torch.rand((number, 5), device=self.device), 2)
        y = (x - 128) * drawn(0, CONTRASTS, 1) + 128 + drawn(1, BRIGHTNESS, 0)
        gamma = _of_patch(self._uniform(number, *GAMMAS))
        y = torch.where(_of_patch(two[:, 2]), 255 * (y.clamp(0, 255) / 255) ** gamma, y)
        gray = (y * self.gray).sum(3, keepdim=True)
        y = gray + drawn(3, SATURATIONS, 1) * (y - gray)
        y = torch.where(_of_patch(two[:, 4]), gray, y)
        return torch.where(_of_patch(chosen), _rounded(y), x)

    def _noisy(self, x, chosen):
        number = len(x)
        noise = torch.randn(x.shape, device=self.device)
        noise = torch.where(_of_patch(self._coin(number, 0.7)), noise, noise[..., :1])
        noise = noise * _of_patch(self._uniform(number, *NOISE))
        return torch.where(_of_patch(chosen), _rounded(x + noise), x)
