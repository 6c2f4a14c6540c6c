"""The expected Jacobian of a network: a chain that knows its gates.

The chain of a network is W1 W2 ... Wl. With the gates of its activations it is the
Jacobian J(x) = W1 D1(x) W2 D2(x) ... Wl (inputs x outputs), and the mean over inputs,
E[J], is a feature matrix as the chain is. It is the chain for a linear network, and it
depends on what a network computes, not on how its weights compute it. The inputs can be
Gaussian draws with the mean and the covariance of the data.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..measures.all_pairs import similarities
from ..measures.inner_products import symmetric_root
from ..measures.validation import (
    WITHOUT_FLOAT64,
    Array,
    number,
    real_numbers,
    whole_number,
)
from .caller import copied, untouched
from .chains import linear_layers
from .gated_layers import Layer, layers_of, mean_jacobians
from .skeleton import refuse_unreadable

_BATCH = 128  # inputs that automatic differentiation takes at once


class Similarity(NamedTuple):
    """A similarity that depends on inputs that were drawn, and its standard error.

    Attributes
    ----------
    value : float
    error : float
        Monte Carlo standard error: how far other draws would move the value.

    Examples
    --------
    >>> Similarity(0.5, 0.01).error
    0.01
    """

    value: float
    error: float


# --------------------------------------------------------------------------- inputs


def input_moments(inputs: ArrayLike) -> tuple[Tensor, Tensor]:
    """Return the mean and the covariance of inputs.

    Parameters
    ----------
    inputs : array-like
        (n, ...), for example images.

    Returns
    -------
    mean, covariance : Tensor
        float64, (p,) and (p, p) for inputs of p coordinates.

    Examples
    --------
    >>> mean, covariance = input_moments([[0.0, 1.0], [2.0, 1.0]])
    >>> mean.tolist(), covariance.tolist()
    ([1.0, 1.0], [[1.0, 0.0], [0.0, 0.0]])
    """
    rows = checked_inputs(inputs).flatten(1)  # (n, p)
    mean = rows.mean(0)
    centred = rows - mean
    return mean, centred.T @ centred / len(rows)


def gaussian_inputs(
    draws: int, mean: ArrayLike, covariance: ArrayLike, seed: int = 0
) -> Tensor:
    """Draw Gaussian inputs with a given mean and covariance.

    Parameters
    ----------
    draws : int
        Number of inputs.
    mean, covariance : array-like
        (p,) and (p, p), such as ``input_moments`` returns them for images. The
        covariance may be singular.
    seed : int
        Fewer draws of one seed are the first of more.

    Returns
    -------
    Tensor
        float64, (draws, p).

    Raises
    ------
    ValueError
        For moments that do not fit together, a covariance that is not symmetric or has
        a negative eigenvalue, or less than one draw.

    Examples
    --------
    >>> images = torch.rand(100, 4)
    >>> gaussian_inputs(5, *input_moments(images)).shape
    torch.Size([5, 4])
    """
    center, matrix = checked_moments(mean, covariance)
    draws = whole_number(draws, "draws", 1)
    normal = np.random.default_rng(seed).normal(size=(draws, len(center)))
    return center + torch.from_numpy(normal) @ symmetric_root(matrix)


def checked_moments(mean: ArrayLike, covariance: ArrayLike) -> tuple[Tensor, Tensor]:
    """Return a mean (p,) and a covariance (p, p) in float64, or say what is wrong.

    Raises
    ------
    ValueError
        See ``gaussian_inputs``.

    Examples
    --------
    >>> checked_moments([0.0, 0.0], [[1.0]])
    Traceback (most recent call last):
    ValueError: covariance: wanted shape (2, 2), got (1, 1)
    """
    center = real_numbers(mean, "mean").double().cpu()
    matrix = real_numbers(covariance, "covariance").double().cpu()
    if center.ndim != 1:
        raise ValueError(f"mean: wanted shape (p,), got {tuple(center.shape)}")
    p = len(center)
    if matrix.shape != (p, p):
        raise ValueError(
            f"covariance: wanted shape {(p, p)}, got {tuple(matrix.shape)}")
    if not (torch.isfinite(center).all() and torch.isfinite(matrix).all()):
        raise ValueError("mean, covariance: they hold NaN or infinity")
    if not torch.allclose(matrix, matrix.T):
        raise ValueError("covariance: wanted a symmetric matrix")
    eigenvalues = torch.linalg.eigvalsh(matrix)
    if eigenvalues[0] < -1e-8 * eigenvalues[-1].clamp(min=1e-300):
        raise ValueError(
            f"covariance: wanted no negative eigenvalue, got {eigenvalues[0]:.3g}")
    return center, matrix


def checked_inputs(inputs: ArrayLike) -> Tensor:
    """Return inputs (n, ...) in float64 on the CPU, or say what is wrong with them.

    Raises
    ------
    ValueError
        For inputs without rows or coordinates, or that hold NaN or infinity.

    Examples
    --------
    >>> checked_inputs([[1, 2]])
    tensor([[1., 2.]], dtype=torch.float64)
    """
    rows = real_numbers(inputs, "inputs").double().cpu()
    if rows.ndim < 2 or not rows.numel():
        raise ValueError(
            f"inputs: wanted shape (n, ...) with n at least 1, got "
            f"{tuple(rows.shape)}")
    if not torch.isfinite(rows).all():
        raise ValueError("inputs: they hold NaN or infinity")
    return rows


# ------------------------------------------------------------------------- Jacobians


def expected_jacobian(
    network: nn.Module, inputs: ArrayLike, strength: float = 1.0
) -> Tensor:
    """Return the mean of a network's Jacobian over inputs.

    Compared by ``wcka.cka``, it is a similarity of networks as wCKA is, with the gates
    that the chain leaves out.

    Parameters
    ----------
    network : nn.Module
        Any network that has a gradient and returns one tensor (n, ...). It is taken in
        eval mode and in float64, and left as it was.
    inputs : array-like
        (n, ...), in the shape that the network takes, for example real images or
        ``gaussian_inputs``.
    strength : float
        From 0 (open gates: the chain) to 1 (the network's own gates, the default): each
        gate D(x) becomes 1 - strength + strength D(x), where D(x) is that of the
        network itself. Other values than 1 are for fully connected ``nn.Sequential``
        networks with ReLU, LeakyReLU or no activation.

    Returns
    -------
    Tensor
        float64, (inputs, outputs): one row per input coordinate, as in ``chain``.

    Raises
    ------
    TypeError
        For what is not an ``nn.Module``, for outputs that are not one tensor or do not
        depend on the inputs by a gradient, and for a `strength` below 1 with a network
        that has no gates.
    ValueError
        For inputs that the network does not take, a `strength` outside 0 to 1, and a
        Jacobian that is not finite.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> inputs = torch.rand(10, 4)
    >>> expected_jacobian(network, inputs).shape
    torch.Size([4, 3])
    >>> import wcka
    >>> chain = wcka.chain(network)
    >>> torch.allclose(expected_jacobian(network, inputs, strength=0.0), chain)
    True
    """
    rows, layers = _checked(network, inputs, strength)
    return _finite(_mean_jacobian(network, layers, rows, strength))


def expected_similarity(
    a: nn.Module, b: nn.Module, inputs: ArrayLike, strength: float = 1.0,
    batches: int = 20,
) -> Similarity:
    """Return the CKA of two networks' expected Jacobians, and its Monte Carlo error.

    Parameters
    ----------
    a, b : nn.Module
        As in ``expected_jacobian``; they take the same inputs.
    inputs : array-like
        (n, ...), drawn independently of each other.
    strength : float
        As in ``expected_jacobian``.
    batches : int
        Into how many batches the inputs are split for the error: a jackknife that
        leaves out one batch.

    Returns
    -------
    Similarity
        The value over all inputs, and its standard error over draws of as many inputs.

    Raises
    ------
    TypeError, ValueError
        As ``expected_jacobian``; for fewer than two batches, or fewer inputs than
        batches.

    Examples
    --------
    >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    ...         for _ in range(2))
    >>> similarity = expected_similarity(a, b, torch.randn(100, 4))
    >>> 0 <= similarity.value <= 1, similarity.error < 0.1
    (True, True)
    """
    means = []
    sizes = torch.zeros(0)
    for network in (a, b):
        rows, layers = _checked(network, inputs, strength)
        batches = whole_number(batches, "batches", 2, len(rows))
        parts = rows.tensor_split(batches)
        jacobians = []
        for part in parts:
            jacobians.append(_finite(_mean_jacobian(network, layers, part, strength)))
        means.append(torch.stack(jacobians).cpu())  # (batches, inputs, outputs)
        sizes = torch.tensor([len(part) for part in parts], dtype=torch.float64)
    of_a, of_b = means
    value = _weighted_similarity(of_a, of_b, sizes)
    without_one = []
    for batch in range(batches):
        left = sizes.clone()
        left[batch] = 0
        without_one.append(_weighted_similarity(of_a, of_b, left))
    return Similarity(value, jackknife_error(np.array(without_one)))


def jackknife_error(without_one: Array) -> float:
    """Return the jackknife standard error, from values (units,) without one unit each.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 4.0, 7.0])
    >>> without_one = np.array([np.delete(x, i).mean() for i in range(4)])
    >>> bool(np.isclose(jackknife_error(without_one), x.std(ddof=1) / 2))
    True
    """
    n = len(without_one)
    squares = (without_one - without_one.mean()) ** 2
    return float(np.sqrt((n - 1) / n * squares.sum()))


def _weighted_similarity(a: Tensor, b: Tensor, sizes: Tensor) -> float:
    """CKA of the means of batches (batches, inputs, outputs), weighted by sizes."""
    weights = (sizes / sizes.sum())[:, None, None]
    means = [(weights * batches).sum(0) for batches in (a, b)]  # (inputs, outputs)
    return float(similarities("cka", means, ["a", "b"])[0, 1])


def _checked(
    network: nn.Module, inputs: ArrayLike, strength: float
) -> tuple[Tensor, list[Layer] | None]:
    """Return inputs as a tensor, and the layers of a network that has gates."""
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"network: wanted an nn.Module, got {type(network).__name__}: matrices "
            f"alone do not tell the activations between them")
    condition = "a number from 0 to 1"
    if not 0 <= number(strength, "strength", condition) <= 1:
        raise ValueError(f"strength: wanted {condition}, got {strength}")
    refuse_unreadable(network)
    rows = checked_inputs(inputs)
    try:
        layers = _matching_layers(network, rows)
    except TypeError as error:
        if strength != 1:
            raise TypeError(
                f"strength: wanted 1, got {strength}; other values need a fully "
                f"connected nn.Sequential with ReLU-like activations ({error})"
            ) from error
        return rows, None
    return rows.flatten(1), layers


def _matching_layers(network: nn.Module, inputs: Tensor) -> list[Layer]:
    """Return the layers of a network that has gates and flattens these inputs."""
    first, _ = linear_layers(network)[0]
    if inputs.ndim > 2 and not _flattens_first(network):
        raise TypeError("its layers act on the last axis of the inputs alone")
    coordinates = inputs[0].numel()
    if coordinates != first.in_features:
        raise ValueError(
            f"inputs: they have {coordinates} coordinates, the network's first layer "
            f"takes {first.in_features}")
    layers = []
    for layer in layers_of(network):
        bias = layer.bias if layer.bias is None else layer.bias.cpu()
        layers.append(Layer(layer.weight.cpu(), bias, layer.slope))
    return layers


def _flattens_first(network: nn.Module) -> bool:
    """Tell whether a network begins with making rows of its inputs."""
    for module in network.modules():
        if not any(True for _ in module.children()):
            if not isinstance(module, nn.Flatten):
                return False
            return module.start_dim == 1 and module.end_dim == -1
    return False


def _mean_jacobian(
    network: nn.Module, layers: list[Layer] | None, inputs: Tensor, strength: float
) -> Tensor:
    """Return the mean Jacobian (inputs, outputs) over checked inputs."""
    if layers is not None:
        return mean_jacobians(layers, inputs, strength)[0]
    total = torch.zeros(())
    for block in jacobian_blocks(network, inputs):
        total = total + block.sum(0)
    return total / len(inputs)


def jacobian_blocks(
    network: nn.Module, inputs: Tensor, batch: int = _BATCH
) -> Iterator[Tensor]:
    """Yield a network's Jacobians at inputs, one batch after another.

    They are found by automatic differentiation, in eval mode and in float64.

    Parameters
    ----------
    network : nn.Module
        It is left as it was.
    inputs : Tensor
        (n, ...), float64.
    batch : int
        Number of inputs at once; memory grows with it.

    Yields
    ------
    Tensor
        (batch, inputs, outputs), on the CPU.

    Raises
    ------
    TypeError, ValueError
        As ``expected_jacobian``.

    Examples
    --------
    >>> network, inputs = nn.Linear(4, 3), torch.rand(5, 4, dtype=torch.float64)
    >>> [block.shape for block in jacobian_blocks(network, inputs, batch=4)]
    [torch.Size([4, 4, 3]), torch.Size([1, 4, 3])]
    """
    device = next(network.parameters(), torch.empty(0)).device
    if device.type in WITHOUT_FLOAT64:
        device = torch.device("cpu")
    # The caller may have switched gradients off. Tensors of inference mode are in no
    # graph, and neither are their views; their clones are.
    with torch.inference_mode(False):
        copy = copied(network)
        copy.to(device, torch.float64).eval().requires_grad_(False)
    for i, part in enumerate(torch.split(inputs, batch)):
        with torch.inference_mode(False), torch.enable_grad(), untouched(copy):
            x = part.to(device).clone().requires_grad_()
            y = _outputs(copy, x)  # (batch, outputs)
            if i == 0 and len(x) > 1:
                _refuse_mixing(copy, x, y)
            columns = []
            for output in y.T:
                (gradient,) = torch.autograd.grad(
                    output.sum(), x, retain_graph=True)
                columns.append(gradient.flatten(1))  # (batch, inputs)
            block = torch.stack(columns, 2).cpu()  # (batch, inputs, outputs)
        yield block


def _outputs(network: nn.Module, x: Tensor) -> Tensor:
    """Return a network's outputs (n, outputs), or say why they have no Jacobian."""
    name = type(network).__name__
    try:
        y = network(x)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise ValueError(
            f"{name} does not take inputs of shape {tuple(x.shape[1:])} in float64: "
            f"{error}") from error
    if not isinstance(y, Tensor) or y.ndim < 1 or len(y) != len(x):
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(
            f"no Jacobian for {name}: wanted one tensor (n, ...) for n inputs, got "
            f"{shape}")
    if not y.requires_grad:
        raise TypeError(
            f"no Jacobian for {name}: its output does not depend on its input by a "
            f"gradient")
    return y.reshape(len(y), -1)


def _refuse_mixing(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuse a network whose output for one input depends on the others."""
    alone = _outputs(network, x[:1])
    scale = float(y.detach().abs().max())
    if not torch.allclose(alone, y[:1], rtol=1e-6, atol=1e-6 * scale):
        raise ValueError(
            f"no Jacobian for {type(network).__name__}: its output for one input "
            f"depends on the other inputs of the batch")


def _finite(jacobian: Tensor) -> Tensor:
    if not torch.isfinite(jacobian).all():
        raise ValueError(
            "the Jacobian holds NaN or infinity: a weight is not finite, or the "
            "network overflows")
    return jacobian
