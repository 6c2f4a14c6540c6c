"""Network factories: plain modules with the architectures of the paper."""

from itertools import pairwise

from torch import nn

from ..measures.spelling import nearest
from ..weights.layers import ACTIVATIONS, PatchConv2d, Residual


def mlp(widths, activation="relu", bias=True) -> nn.Sequential:
    """Fully connected network: flatten, then linear layers and activations.

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
        Accepts images ``(n, 28, 28)`` or rows ``(n, 784)``; returns logits ``(n,
        widths[-1])``.

    Raises
    ------
    ValueError
        For fewer than two widths, a width below 1, or an unknown activation.

    Examples
    --------
    >>> mlp((784, 8, 3))
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=784, out_features=8, bias=True)
      (2): ReLU()
      (3): Linear(in_features=8, out_features=3, bias=True)
    )
    """
    widths = _sizes("widths", widths, 2)
    layer = ACTIVATIONS[nearest(activation, ACTIVATIONS, "activation")]
    modules: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        modules += [nn.Linear(inputs, outputs, bias=bias), layer()]
    return nn.Sequential(*modules[:-1])


def convnet(channels=(64, 32), kernel=5, hidden=(1024,), classes=10, side=28,
            batch_norm=False) -> nn.Sequential:
    """Convolutional network of the paper's section 3.3.

    Convolutions are followed by linear layers, all with ReLU.

    The paper gives the kernels and the hidden layer; it does not say whether there is
    pooling. Here each convolution (no padding) is followed by 2 x 2 max pooling.

    Parameters
    ----------
    channels : sequence of int
        Kernels of each convolution.
    kernel : int
        Side of a kernel.
    hidden : sequence of int
        Widths of the hidden linear layers.
    classes : int
        Outputs.
    side : int
        Side of an image of one channel.
    batch_norm : bool
        Batch normalisation after each convolution.

    Returns
    -------
    nn.Sequential
        Accepts images ``(n, side, side)`` or rows ``(n, side * side)``; returns logits.
        Up to and with its ``nn.Flatten`` it is the trunk, whose outputs are the
        features that heads take.

    Raises
    ------
    ValueError
        For sizes below 1, and for images too small for so many convolutions.

    Examples
    --------
    >>> import torch
    >>> network = convnet(channels=(4, 8), hidden=(16,), classes=3)
    >>> network(torch.zeros(2, 28, 28)).shape
    torch.Size([2, 3])
    """
    channels = _sizes("channels", channels, 1)
    kernel, classes, left = _sizes("kernel, classes, side", (kernel, classes, side), 3)
    sizes = []  # side of the image after each convolution and its pooling
    for _ in channels:
        left = (left - kernel + 1) // 2
        sizes.append(left)
    if left < 1:
        raise ValueError(
            f"side: after {len(channels)} convolutions of side {kernel} nothing is "
            f"left of {side} pixels, but {sizes}"
        )
    modules: list[nn.Module] = [nn.Flatten(), nn.Unflatten(1, (1, side, side))]
    for i, (inputs, outputs) in enumerate(pairwise((1, *channels))):
        # Attacks want gradients of images, and so of the first convolution's inputs.
        convolution = nn.Conv2d if i else PatchConv2d
        modules.append(convolution(inputs, outputs, kernel, bias=not batch_norm))
        if batch_norm:
            modules.append(nn.BatchNorm2d(outputs))
        # ReLU after the pooling: the same numbers, of a quarter of the values.
        modules += [nn.MaxPool2d(2), nn.ReLU()]
    head = mlp((channels[-1] * left**2, *hidden, classes))  # begins with a Flatten
    return nn.Sequential(*modules, *head)


def resnet(channels=(8, 16), hidden=(32,), classes=10, side=28) -> nn.Sequential:
    """Small residual network.

    Each of its strided convolutions is followed by one residual block.

    Kernels are 3 x 3, with batch normalisation after each; the mean over places goes
    into the linear layers.

    Parameters
    ----------
    channels : sequence of int
        Kernels of each strided convolution and of the two in the block behind it.
    hidden, classes, side
        As in ``convnet``.

    Returns
    -------
    nn.Sequential
        Accepts images ``(n, side, side)`` or rows ``(n, side * side)``; returns logits.

    Raises
    ------
    ValueError
        For sizes below 1.

    Examples
    --------
    >>> import torch
    >>> network = resnet(channels=(4,), hidden=(8,), classes=3).eval()
    >>> network(torch.zeros(2, 28, 28)).shape
    torch.Size([2, 3])
    """
    channels = _sizes("channels", channels, 1)
    classes, side = _sizes("classes, side", (classes, side), 2)

    def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]

    modules: list[nn.Module] = [nn.Flatten(), nn.Unflatten(1, (1, side, side))]
    for inputs, outputs in pairwise((1, *channels)):
        modules += [*convolution(inputs, outputs, 2), nn.ReLU()]
        modules.append(Residual(
            *convolution(outputs, outputs), nn.ReLU(), *convolution(outputs, outputs)))
        modules.append(nn.ReLU())
    return nn.Sequential(
        *modules, nn.AdaptiveAvgPool2d(1), *mlp((channels[-1], *hidden, classes))
    )


def _sizes(label: str, values, least: int) -> tuple[int, ...]:
    values = tuple(values)
    if len(values) < least or any(
        isinstance(v, bool) or int(v) != v or v < 1 for v in values
    ):
        raise ValueError(
            f"{label}: wanted at least {least} whole numbers from 1 up, got {values}"
        )
    return tuple(map(int, values))
