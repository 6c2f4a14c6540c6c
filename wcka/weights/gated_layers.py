"""Products of weights with the gates of ReLUs between them, for many networks at once.

The Jacobian of a fully connected ReLU network at an input x is W1 D1(x) W2 D2(x) ...
Wl, where a gate D is the slope of each unit's activation. Its chain has open gates.
Here networks of one architecture are stacked, and a network is a stack of one. W1 does
not depend on the input, so means over inputs are taken before it is multiplied: nothing
of the size (networks, inputs, input coordinates) is in memory.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..measures.inner_products import symmetric_root
from .chains import linear_layers, product

_NUMBERS = 2**20  # in the products of one block of inputs
_GATED = (nn.ReLU, nn.LeakyReLU, nn.Identity)


class Layer(NamedTuple):
    """One linear layer of a stack of networks, and the activation behind it.

    Attributes
    ----------
    weight : Tensor
        (networks, in, out), float64.
    bias : Tensor or None
        (networks, out), float64.
    slope : float
        Of the activation below zero: 0 for ReLU, 1 where there is no activation. Above
        zero it is 1.

    Examples
    --------
    >>> Layer(torch.ones(1, 2, 3), None, slope=0.0).weight.shape
    torch.Size([1, 2, 3])
    """

    weight: Tensor
    bias: Tensor | None
    slope: float


def slope_below_zero(activation: nn.Module | None) -> float:
    """Return the slope of a ReLU-like activation below zero; 1 for None.

    Raises
    ------
    TypeError
        For an activation that is not linear on both sides of zero, with slope 1 above.

    Examples
    --------
    >>> slope_below_zero(nn.LeakyReLU(0.1)), slope_below_zero(None)
    (0.1, 1.0)
    >>> slope_below_zero(nn.Tanh())
    Traceback (most recent call last):
    TypeError: no gates for Tanh: ...
    """
    if activation is None or isinstance(activation, nn.Identity):
        return 1.0
    if isinstance(activation, nn.LeakyReLU):
        return float(activation.negative_slope)
    if isinstance(activation, nn.ReLU):
        return 0.0
    known = ", ".join(kind.__name__ for kind in _GATED)
    raise TypeError(
        f"no gates for {type(activation).__name__}: a gate is open or closed, as those "
        f"of {known} are")


def layers_of(network: nn.Module) -> list[Layer]:
    """Return the layers of one fully connected network as a stack of one.

    Raises
    ------
    TypeError
        For a network that is no fully connected ``nn.Sequential`` with ReLU-like
        activations.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> [(layer.weight.shape[1:], layer.slope) for layer in layers_of(network)]
    [(torch.Size([4, 8]), 0.0), (torch.Size([8, 3]), 1.0)]
    """
    layers = []
    for linear, activation in linear_layers(network):
        weight = linear.weight.detach().double().mT[None]  # (1, in, out)
        bias = None
        if linear.bias is not None:
            bias = linear.bias.detach().double()[None]  # (1, out)
        layers.append(Layer(weight, bias, slope_below_zero(activation)))
    return layers


def mean_jacobians(
    layers: Sequence[Layer], inputs: Tensor, strength: float = 1.0
) -> Tensor:
    """Return the mean Jacobian of every network over shared inputs.

    Parameters
    ----------
    layers : sequence of Layer
        Of N networks.
    inputs : Tensor
        (n, inputs), float64.
    strength : float
        Of the gates, from 0 (all are open: the chain) to 1.

    Returns
    -------
    Tensor
        (networks, inputs, outputs).

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    >>> _ = nn.init.constant_(network[0].weight, 4.0)
    >>> inputs = torch.tensor([[-1.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    >>> mean_jacobians(layers_of(network), inputs).item()
    3.0
    """
    first = layers[0].weight
    total = first.new_zeros(1)
    for block in _blocks(layers, inputs, strength):
        total = total + block.sum(1)  # (networks, outputs, units)
    return first @ (total / len(inputs)).mT  # (networks, inputs, outputs)


def gradient_features(layers: Sequence[Layer], inputs: Tensor) -> Tensor:
    """Return features whose kernel is the average gradient outer product.

    The kernel of a network is the mean of J(x) J(x)' over inputs, (inputs, inputs)
    (Radhakrishnan et al. 2022, arXiv 2212.13881, call it AGOP). It is W1 S W1', where S
    is as small as the first hidden layer, and so it is the linear kernel of W1 times
    the root of S.

    Parameters
    ----------
    layers, inputs
        As in ``mean_jacobians``.

    Returns
    -------
    Tensor
        (networks, inputs, first hidden units).

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> inputs = torch.ones(5, 4, dtype=torch.float64)
    >>> gradient_features(layers_of(network), inputs).shape
    torch.Size([1, 4, 8])
    """
    first = layers[0].weight
    total = first.new_zeros(1)
    for block in _blocks(layers, inputs, strength=1.0):
        rows = block.flatten(1, 2)  # (networks, block * outputs, units)
        total = total + rows.mT @ rows  # (networks, units, units)
    return first @ symmetric_root(total / len(inputs))


def frequency_chains(layers: Sequence[Layer], inputs: Tensor) -> Tensor:
    """Return chains with each gate replaced by its mean over the inputs.

    This takes the gates of different layers for independent.

    Parameters
    ----------
    layers, inputs
        As in ``mean_jacobians``.

    Returns
    -------
    Tensor
        (networks, inputs, outputs).

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    >>> _ = nn.init.constant_(network[0].weight, 4.0)
    >>> inputs = torch.tensor([[-1.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    >>> frequency_chains(layers_of(network), inputs).item()
    3.0
    """
    totals = [layer.weight.new_zeros(1) for layer in layers]
    for part in torch.split(inputs, _block_size(layers)):
        for i, gates in enumerate(_gates(layers, part, strength=1.0)):
            if gates is None:
                totals[i] = totals[i] + len(part)
            else:
                totals[i] = totals[i] + gates.sum(1)  # (networks, out)
    matrices = []
    for layer, total in zip(layers, totals):
        frequency = (total / len(inputs)).expand(len(layer.weight), -1)
        matrices.append(layer.weight * frequency[:, None])  # (networks, in, out)
    return product(matrices)


def _block_size(layers: Sequence[Layer]) -> int:
    """Return how many inputs are taken at once."""
    widest = max(layer.weight.shape[2] for layer in layers)
    networks, _, outputs = layers[-1].weight.shape
    return max(1, _NUMBERS // (networks * widest * outputs))


def _blocks(
    layers: Sequence[Layer], inputs: Tensor, strength: float
) -> Iterator[Tensor]:
    """Yield D1 W2 D2 ... Wl, transposed, for one block of inputs after another.

    Each is (networks, block, outputs, first units).
    """
    networks, _, outputs = layers[-1].weight.shape
    eye = torch.eye(outputs, dtype=torch.float64, device=inputs.device)
    for part in torch.split(inputs, _block_size(layers)):
        gates = _gates(layers, part, strength)
        jacobians = eye.expand(networks, len(part), -1, -1)
        for i in reversed(range(len(layers))):
            gate = gates[i]
            if gate is not None:
                jacobians = jacobians * gate[:, :, None]
            if i > 0:
                # One matrix product per network, whatever the number of inputs
                rows = jacobians.flatten(1, 2)  # (networks, block * outputs, out)
                rows = rows @ layers[i].weight.mT  # (networks, block * outputs, in)
                jacobians = rows.view(networks, len(part), outputs, -1)
        yield jacobians


def _gates(
    layers: Sequence[Layer], inputs: Tensor, strength: float
) -> list[Tensor | None]:
    """Return the gates of each layer, (networks, n, out); None where all are open.

    The networks run with their real gates; those returned are 1 - s + s D for a
    strength s.
    """
    gates: list[Tensor | None] = []
    networks = len(layers[0].weight)
    units = inputs
    for i, layer in enumerate(layers):
        if i == 0:
            # All networks' weights side by side make one matrix product.
            columns = layer.weight.movedim(0, 1).flatten(1)  # (in, networks * out)
            side_by_side = (inputs @ columns).view(len(inputs), networks, -1)
            units = side_by_side.transpose(0, 1)  # (networks, n, out)
        else:
            units = units @ layer.weight  # (networks, n, out)
        if layer.bias is not None:
            units = units + layer.bias[:, None]
        if layer.slope == 1:
            gates.append(None)
            continue
        is_open = (units > 0).double()
        units = units * (layer.slope + (1 - layer.slope) * is_open)
        closed = 1 - strength + strength * layer.slope  # what a closed gate lets pass
        gates.append(closed + (1 - closed) * is_open)
    return gates
