"""The chain of a network: the product of its weight matrices (paper, equations 4 and 5)."""

from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from .models import ACTIVATIONS
from .population import Population

# What the chain passes over: modules that act on every unit alone, or do nothing when it is used.
_PASSED = (nn.Flatten, nn.Dropout, *ACTIVATIONS.values(), nn.SiLU, nn.Mish, nn.ELU, nn.SELU,
           nn.CELU, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
           nn.LogSigmoid, nn.Softmax, nn.LogSoftmax)


def linear_layers(model: nn.Module) -> list[tuple[nn.Linear, nn.Module | None]]:
    """List the linear layers of a sequential network, each with the activation that follows it.

    Raises
    ------
    TypeError
        If the network is not a (nested) ``nn.Sequential`` of linear layers, known activations,
        dropout and flattening: the order and wiring of its layers cannot be read off then.
    """
    layers: list[tuple[nn.Linear, nn.Module | None]] = []
    for name, module in _leaves(model):
        if isinstance(module, nn.Linear):
            if layers and layers[-1][0].out_features != module.in_features:
                raise ValueError(f"layer {name!r} takes {module.in_features} inputs, but the layer "
                                 f"before it gives {layers[-1][0].out_features}")
            layers.append((module, None))
        elif not isinstance(module, _PASSED):
            raise TypeError(
                f"no chain for module {name!r} ({type(module).__name__}): chain() reads nn.Linear, "
                f"elementwise activations, Dropout and Flatten in an nn.Sequential; for other "
                f"networks pass the (in, out) weight matrices themselves, in order")
        elif layers and not isinstance(module, (nn.Flatten, nn.Dropout, nn.Identity)):
            if layers[-1][1] is not None:
                raise TypeError(f"no chain for module {name!r}: a second activation in a row")
            layers[-1] = (layers[-1][0], module)
    if not layers:
        raise TypeError(f"no chain for {type(model).__name__}: it has no linear layer")
    return layers


def _leaves(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    # A subclass may wire its modules in its own way; only Sequential's own order is known.
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        return [(prefix or type(model).__name__, model)]
    # Not named_children(): it lists a module that stands in two places only once.
    return [leaf for name, child in model._modules.items()
            for leaf in _leaves(child, f"{prefix}.{name}" if prefix else name)]


def chain(model, input_shape=None, bias=False) -> Tensor:
    """Chain of a network: W1 W2 ... Wl, the paper's bold W (equation 5).

    Rows are input coordinates and columns are outputs. Layers act on row vectors, x W + b, so a
    weight matrix is (in, out): the transpose of what ``nn.Linear`` stores.

    Parameters
    ----------
    model : nn.Module or sequence of (in, out) array-likes
        A sequential fully connected network, or its weight matrices in order. A network cut
        short (``model[:k]``) gives the chain up to that layer.
    input_shape : tuple of int, optional
        Shape of one input. A fully connected network knows its own; if given, it must agree.
    bias : bool
        Carry the biases along in homogeneous coordinates: each layer becomes
        ``[[W, 0], [b, 1]]``, and the chain gets one more row, the output of the linear network
        at the zero input. Only for modules; off in the paper.

    Returns
    -------
    Tensor
        float64, (inputs, outputs), or (inputs + 1, outputs) with `bias`; detached.

    Raises
    ------
    TypeError
        For a module whose chain is not known (anything but a fully connected ``nn.Sequential``).
    ValueError
        For matrices that are empty, do not fit together or hold NaN or infinity.
    """
    if isinstance(model, nn.Module):
        layers = [layer for layer, _ in linear_layers(model)]
        matrices = [layer.weight.detach().T for layer in layers]
        biases = [None if layer.bias is None else layer.bias.detach() for layer in layers]
    elif bias:
        raise TypeError("bias=True needs an nn.Module: a sequence of matrices has no biases")
    else:
        matrices = [_matrix(m, i) for i, m in enumerate(_sequence(model))]
        biases = [None] * len(matrices)
    for i, (left, right) in enumerate(zip(matrices, matrices[1:])):
        if left.shape[1] != right.shape[0]:
            raise ValueError(f"matrices {i} and {i + 1} do not fit together: "
                             f"{tuple(left.shape)} then {tuple(right.shape)}")
    if input_shape is not None and np.prod(input_shape) != matrices[0].shape[0]:
        raise ValueError(f"input_shape {tuple(input_shape)} has {np.prod(input_shape)} "
                         f"coordinates, the first layer takes {matrices[0].shape[0]}")
    product = _product(matrices, biases if bias else None)
    if not torch.isfinite(product).all():
        raise ValueError("the chain holds NaN or infinity: a weight is not finite, or the product "
                         "overflows")
    return product


def chains(population: Population, bias=False, layer: int | None = None) -> Tensor:
    """Chains of all members of a population at once: (N, inputs, outputs), as ``chain``.

    With `layer`, from 1 to the population's depth, the chains of the networks cut short after
    that linear layer.
    """
    linear_layers(population.network)  # refuses what has no chain
    names = [name for name, module in population.network._modules.items()
             if isinstance(module, nn.Linear)][:layer]
    return _product([population.state[f"{name}.weight"].mT for name in names],
                    [population.state.get(f"{name}.bias") for name in names] if bias else None)


def _product(matrices: list[Tensor], biases: list[Tensor | None] | None) -> Tensor:
    matrices = [m.double() for m in matrices]
    if biases is not None:
        matrices = [_homogeneous(m, b) for m, b in zip(matrices, biases)]
        matrices[-1] = matrices[-1][..., :-1]
    # From the outputs inwards: they are few, so every intermediate product is thin.
    return reduce(lambda right, left: left @ right, reversed(matrices))


def _homogeneous(weight: Tensor, bias: Tensor | None) -> Tensor:
    """``[[W, 0], [b, 1]]``: one matrix that maps (x, 1) to (x W + b, 1)."""
    padded = nn.functional.pad(weight, (0, 1, 0, 1))
    padded[..., -1, -1] = 1
    if bias is not None:
        padded[..., -1, :-1] = bias
    return padded


def _sequence(model) -> list:
    if not isinstance(model, (list, tuple)) or not model:
        raise TypeError(f"chain() takes an nn.Module or a non-empty list of (in, out) matrices, "
                        f"got {type(model).__name__}")
    return list(model)


def _matrix(values, i: int) -> Tensor:
    matrix = torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values)
    if matrix.is_complex():
        raise TypeError(f"matrix {i}: wanted real numbers, got dtype {matrix.dtype}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"matrix {i}: wanted (in, out), got shape {tuple(matrix.shape)}")
    if not torch.isfinite(matrix).all():
        raise ValueError(f"matrix {i} holds NaN or infinity")
    return matrix.detach()
