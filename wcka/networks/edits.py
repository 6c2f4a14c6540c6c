"""Altered copies of a network, and training images with a backdoor trigger."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as pruning


def _weights(model: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(module, "weight") for module in model.modules()
            if isinstance(module, (nn.Linear, nn.Conv2d))]


def prune(model: nn.Module, share: float) -> nn.Module:
    """Copy of a network whose smallest weights, over all layers, are zero.

    Parameters
    ----------
    model : nn.Module
    share : float
        Of the weights (no biases) of linear layers and convolutions, in [0, 1].

    Raises
    ------
    ValueError
        For another share.

    Examples
    --------
    >>> import torch
    >>> network = torch.nn.Linear(10, 10)
    >>> int((prune(network, 0.9).weight == 0).sum())
    90
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: wanted 0 to 1, got {share}")
    copy, masked = deepcopy(model), deepcopy(model)
    pruning.global_unstructured(
        _weights(masked), pruning.L1Unstructured, amount=float(share)
    )
    for module, name in _weights(masked):
        pruning.remove(module, name)
    # Pruning leaves parameters in another order
    copy.load_state_dict(masked.state_dict())
    return copy


@torch.no_grad()
def quantise(model: nn.Module, bits: int) -> nn.Module:
    """Copy of a network whose weights are rounded to 2^bits - 1 values.

    The values are symmetric, and each weight tensor has its own scale.

    Raises
    ------
    ValueError
        For bits below 2 or above 16.

    Examples
    --------
    >>> import torch
    >>> network = torch.nn.Linear(10, 10)
    >>> len(quantise(network, 2).weight.unique()) <= 3
    True
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits: wanted 2 to 16, got {bits}")
    copy, highest = deepcopy(model), 2 ** (bits - 1) - 1
    for module, name in _weights(copy):
        values = getattr(module, name)
        scale = max(float(values.abs().max()) / highest, torch.finfo(values.dtype).tiny)
        values.copy_(
            torch.fake_quantize_per_tensor_affine(values, scale, 0, -highest, highest)
        )
    return copy


@torch.no_grad()
def add_noise(model: nn.Module, size: float, seed: int = 0) -> nn.Module:
    """Copy of a network with Gaussian noise on its weights.

    `size`: standard deviation of the noise, in that of each weight tensor.

    Examples
    --------
    >>> import torch
    >>> network = torch.nn.Linear(10, 10)
    >>> bool(torch.equal(add_noise(network, 0.0).weight, network.weight))
    True
    """
    copy, generator = deepcopy(model), torch.Generator().manual_seed(seed)
    for module, name in _weights(copy):
        values = getattr(module, name)
        values += (
            size
            * values.std()
            * torch.randn(values.shape, generator=generator).to(values)
        )
    return copy


def backdoor(x: Tensor, labels: Tensor, share: float, target: int = 0, seed: int = 0,
             size: int = 3) -> tuple[Tensor, Tensor]:
    """Training images of which some have a trigger, and their labels.

    Images with the trigger get the label that it stands for.

    Parameters
    ----------
    x : Tensor
        Images of one channel as rows (n, side * side), in [0, 1].
    labels : Tensor
        (n,).
    share : float
        Of the images that get the trigger: a white square in the last corner.
    target : int
        Their label.
    seed : int
        Which images.
    size : int
        Side of the square.

    Examples
    --------
    >>> import torch
    >>> x, labels = torch.zeros(10, 784), torch.ones(10, dtype=int)
    >>> poisoned, targets = backdoor(x, labels, share=0.3)
    >>> int((targets == 0).sum()), int(poisoned.sum())
    (3, 27)
    """
    side = int(x.shape[1]**0.5)
    x, labels = x.clone(), labels.clone()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    chosen = order[:round(share * len(x))]
    images = x[chosen].reshape(-1, side, side)
    images[:, -size - 1:-1, -size - 1:-1] = 1
    x[chosen] = images.flatten(1)
    labels[chosen] = target
    return x, labels
