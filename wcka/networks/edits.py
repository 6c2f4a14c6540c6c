"""What likeness is wanted for: altered copies of a network, and ensembles that differ."""

from copy import deepcopy
from itertools import combinations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.utils import prune as pruning

from .chain import linear_layers
from .checks import within


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
    """
    within(share=(share, 0, 1))
    copy, masked = deepcopy(model), deepcopy(model)
    pruning.global_unstructured(_weights(masked), pruning.L1Unstructured, amount=float(share))
    for module, name in _weights(masked):
        pruning.remove(module, name)
    copy.load_state_dict(masked.state_dict())  # pruning leaves parameters in another order
    return copy


@torch.no_grad()
def quantise(model: nn.Module, bits: int) -> nn.Module:
    """Copy of a network whose weights are rounded to 2^bits - 1 values, symmetric, by tensor.

    Raises
    ------
    ValueError
        For bits below 2 or above 16.
    """
    within(bits=(bits, 2, 16))
    copy, highest = deepcopy(model), 2 ** (bits - 1) - 1
    for module, name in _weights(copy):
        values = getattr(module, name)
        scale = max(float(values.abs().max()) / highest, torch.finfo(values.dtype).tiny)
        values.copy_(torch.fake_quantize_per_tensor_affine(values, scale, 0, -highest, highest))
    return copy


@torch.no_grad()
def add_noise(model: nn.Module, size: float, seed: int = 0) -> nn.Module:
    """Copy of a network with Gaussian noise on its weights.

    `size`: standard deviation of the noise, in that of each weight tensor.
    """
    copy, generator = deepcopy(model), torch.Generator().manual_seed(seed)
    for module, name in _weights(copy):
        values = getattr(module, name)
        values += size * values.std() * torch.randn(values.shape, generator=generator).to(values)
    return copy


def backdoor(x: Tensor, labels: Tensor, share: float, target: int = 0, seed: int = 0,
             size: int = 3) -> tuple[Tensor, Tensor]:
    """Training images of which some wear a trigger, and then the label that it stands for.

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
    """
    side = int(x.shape[1]**0.5)
    x, labels = x.clone(), labels.clone()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    some = order[:round(share * len(x))]
    images = x[some].reshape(-1, side, side)
    images[:, -size - 1:-1, -size - 1:-1] = 1
    x[some], labels[some] = images.flatten(1), target
    return x, labels


def flat(model: nn.Module) -> Tensor:
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


def least_alike(similarity: np.ndarray, k: int) -> np.ndarray:
    """The `k` of N models with the lowest mean pairwise similarity, found by trying all sets.

    Parameters
    ----------
    similarity : ndarray
        (N, N), symmetric.
    k : int
        2 to N.

    Returns
    -------
    ndarray
        (k,) positions.

    Raises
    ------
    ValueError
        For another `k`, or more than ten million sets.
    """
    n = len(similarity)
    within(k=(k, 2, n))
    sets = np.fromiter(combinations(range(n), k), np.dtype((np.int16, k)), -1) if (
        _sets(n, k) <= 1e7) else None
    if sets is None:
        raise ValueError(f"k: {_sets(n, k):.0f} sets of {k} of {n} are too many to try")
    total = sum(similarity[sets[:, i], sets[:, j]] for i, j in combinations(range(k), 2))
    return sets[total.argmin()].astype(int)


def _sets(n: int, k: int) -> float:
    return float(np.prod([(n - i) / (i + 1) for i in range(k)]))


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, over bins.

    Parameters
    ----------
    probabilities : Tensor
        (n, classes).
    labels : Tensor
        (n,).
    bins : int
        Of equal width between 0 and 1.
    """
    confidence, guess = probabilities.max(1)
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    gap = (guess == labels).double() - confidence.double()
    return float(torch.zeros(bins).double().index_add_(0, bin_of, gap).abs().sum() / len(labels))
