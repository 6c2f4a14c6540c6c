"""Similarity of two networks' weights, as they are or with matched hidden units."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ..weights.chains import linear_layers


def flat_weights(model: nn.Module) -> Tensor:
    """Return all weights and biases of a network as one row.

    Examples
    --------
    >>> flat_weights(nn.Linear(4, 3)).shape
    torch.Size([15])
    """
    return torch.cat([values.detach().flatten() for values in model.parameters()])


def matched_cosine(a: nn.Sequential, b: nn.Sequential) -> float:
    """Return the mean cosine of two networks' layers, with matched hidden units.

    Units' scales are passed on to the next layer, then units are assigned to each
    other, layer by layer from the inputs on, so that the sum of the cosines of their
    incoming weights is largest (a greedy form of Git Re-Basin, Ainsworth et al. 2022).

    Parameters
    ----------
    a, b : nn.Sequential
        Fully connected ReLU networks of one shape, with biases.

    Returns
    -------
    float
        In [-1, 1]; 1 for networks that differ in the order and scale of their units
        only.

    Raises
    ------
    ValueError
        For networks of different depth.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> from wcka.weights.symmetry import permute
    >>> round(matched_cosine(network, permute(network)), 6)
    1.0
    """
    return _matched_cosine(_rescaled(a), _rescaled(b))


def matched_cosines(networks: Sequence[nn.Sequential]) -> np.ndarray:
    """Return ``matched_cosine`` for all pairs of networks, (N, N).

    Examples
    --------
    >>> networks = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))] * 2
    >>> matched_cosines(networks).round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    matrices = [_rescaled(network) for network in networks]
    cosines = np.eye(len(networks))
    for i, j in combinations(range(len(networks)), 2):
        cosines[i, j] = cosines[j, i] = _matched_cosine(matrices[i], matrices[j])
    return cosines


def _matched_cosine(a: list[Tensor], b: list[Tensor]) -> float:
    """Return the mean cosine of the layers that ``_rescaled`` returns."""
    cosines = []
    order: Tensor | None = None
    layers = list(zip(a, b, strict=True))
    for i, (weights_a, weights_b) in enumerate(layers):
        if order is not None:
            # The layer before has put the units of b into another order; biases stay
            # last.
            weights_b = torch.cat([weights_b[:, :-1][:, order], weights_b[:, -1:]], 1)
        if i < len(layers) - 1:
            products = (weights_a @ weights_b.T).numpy()  # (units of a, units of b)
            units, matched = linear_sum_assignment(products, maximize=True)
            order = torch.from_numpy(matched)
            product = float(products[units, matched].sum())
        else:
            product = float((weights_a * weights_b).sum())
        norms = float(weights_a.norm() * weights_b.norm())
        cosines.append(product / max(norms, 1e-12))
    return float(np.mean(cosines))


def _rescaled(model: nn.Sequential) -> list[Tensor]:
    """Return each layer's weights (out, in + 1), with the biases last.

    The rows of hidden units have norm 1.
    """
    layers = [layer for layer, _ in linear_layers(model)]
    matrices = []
    scale: Tensor | None = None
    for layer in layers:
        weight = layer.weight.detach().double()
        if scale is not None:  # what was divided out of the units before
            weight = weight * scale
        bias = layer.bias.detach().double()
        matrix = torch.cat([weight, bias[:, None]], 1)  # (out, in + 1)
        scale = matrix.norm(dim=1).clamp(min=1e-12)
        matrices.append(matrix if layer is layers[-1] else matrix / scale[:, None])
    return matrices
