"""Similarity of two networks' weights as they are, or with hidden units matched first."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ..weights.chains import linear_layers


def flat_weights(model: nn.Module) -> Tensor:
    """All weights and biases of a network as one row."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def matched_cosine(a: nn.Sequential, b: nn.Sequential) -> float:
    """Mean over layers of the cosine of two networks' weights, hidden units matched first.

    Units' scales are passed on to the next layer, then units are assigned to each other, layer by
    layer from the inputs on, so that the cosines of their incoming weights add up to the most.

    Parameters
    ----------
    a, b : nn.Sequential
        Fully connected ReLU networks of one shape.
    """
    layers, cosines = [*zip(*map(_rescaled, (a, b)), strict=True)], []
    order: slice | Tensor = slice(None)
    for i, (ours, theirs) in enumerate(layers):
        # The layer before has put the units of b into another order.
        theirs = torch.cat([theirs[:, :-1][:, order], theirs[:, -1:]], 1)
        if i < len(layers) - 1:
            order = torch.from_numpy(linear_sum_assignment((ours @ theirs.T).numpy(), True)[1])
            theirs = theirs[order]
        cosines.append(float(torch.cosine_similarity(ours.flatten(), theirs.flatten(), 0)))
    return float(np.mean(cosines))


def _rescaled(model: nn.Sequential) -> list[Tensor]:
    """Weights (out, in + 1), biases last, of each layer; hidden units' weights of unit norm."""
    found, scale = [], None
    layers = [layer for layer, _ in linear_layers(model)]
    for layer in layers:
        weight = layer.weight.detach().double()
        weight = weight if scale is None else weight * scale
        whole = torch.cat([weight, layer.bias.detach().double()[:, None]], 1)
        scale = whole.norm(dim=1).clamp(min=1e-12)
        found.append(whole if layer is layers[-1] else whole / scale[:, None])
    return found
