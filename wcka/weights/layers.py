"""Layers and activations of this project that chains and symmetries know about."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, unfold


class Gaussian(nn.Module):
    """Radial basis activation, exp(-x^2).

    Examples
    --------
    >>> Gaussian()(torch.zeros(2))
    tensor([1., 1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-(x**2))


class Square(nn.Module):
    """Polynomial activation, x^2.

    Examples
    --------
    >>> Square()(torch.tensor([-2.0]))
    tensor([4.])
    """

    def forward(self, x: Tensor) -> Tensor:
        return x**2


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "gaussian": Gaussian,
    "square": Square,
}


class PatchConv2d(nn.Conv2d):
    """Convolution (stride 1, no padding) that gives cheap gradients of images of few
    channels.

    Where such a gradient is wanted, as attacks do many times over, one matrix product
    of patches and kernels takes a quarter of the time that the usual kernels on a CPU
    need for it.

    Examples
    --------
    >>> PatchConv2d(1, 2, 3)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 2, 6, 6])
    """

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return super().forward(x)
        places = [size - k + 1 for size, k in zip(x.shape[-2:], self.kernel_size)]
        patches = unfold(x, self.kernel_size).mT  # (n, places, patch)
        outputs = linear(patches, self.weight.flatten(1), self.bias)
        # Channels stay last in memory, which is where the layers behind want them.
        return torch.unflatten(outputs.mT, 2, places)  # (n, channels, height, width)


class Residual(nn.Sequential):
    """x + f(x), with f the modules in order.

    Examples
    --------
    >>> Residual(nn.Identity())(torch.ones(2))
    tensor([2., 2.])
    """

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + change
