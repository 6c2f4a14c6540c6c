"""Network factories: plain ``nn.Module`` objects with the architectures of the paper."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ._validate import nearest


class Gaussian(nn.Module):
    """Radial basis activation, exp(-x^2)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-(x**2))


class Square(nn.Module):
    """Polynomial activation, x^2."""

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


def mlp(widths, activation="relu", bias=True) -> nn.Sequential:
    """Fully connected network: flatten, then linear layers with an activation between them.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden widths, outputs; at least two numbers, for example
        ``(784, 32, 32, 32, 32, 3)``, the network of the paper's section 3.1.
    activation : str
        A name in ``ACTIVATIONS``; it stands after every layer but the last.
    bias : bool
        Whether the linear layers have biases.

    Returns
    -------
    nn.Sequential
        Accepts images ``(n, 28, 28)`` or rows ``(n, 784)``; returns logits ``(n, widths[-1])``.

    Raises
    ------
    ValueError
        For fewer than two widths, a width below 1, or an unknown activation.
    """
    widths = tuple(widths)
    if len(widths) < 2 or any(isinstance(w, bool) or int(w) != w or w < 1 for w in widths):
        raise ValueError(f"widths: wanted at least two whole numbers from 1 up, got {widths}")
    layer = ACTIVATIONS[nearest(activation, ACTIVATIONS, "activation")]
    modules: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        modules += [nn.Linear(int(inputs), int(outputs), bias=bias), layer()]
    return nn.Sequential(*modules[:-1])
