"""The chain of a network: the product of its weight matrices (paper, equations 4 and
5).
"""

from collections.abc import Sequence
from typing import TypeGuard, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from . import skeleton
from .layers import ACTIVATIONS

Matrix = Tensor | ArrayLike  # (in, out)
Network = nn.Module | Sequence[Matrix]

# What the chain passes over: modules that act on every unit alone, or do nothing when
# it is used.
_PASSED: tuple[type[nn.Module], ...] = (
    nn.Flatten,
    nn.Dropout,
    *ACTIVATIONS.values(),
    nn.SiLU,
    nn.Mish,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.Softplus,
    nn.Softsign,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.LogSigmoid,
    nn.Softmax,
    nn.LogSoftmax,
)


def linear_layers(model: nn.Module) -> list[tuple[nn.Linear, nn.Module | None]]:
    """List the linear layers of a sequential network, each with the activation that
    follows it.

    Raises
    ------
    TypeError
        If the network is not a (nested) ``nn.Sequential`` of linear layers, known
        activations, dropout and flattening: the order and wiring of its layers cannot
        be read off then.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> [type(activation).__name__ for _, activation in linear_layers(network)]
    ['ReLU', 'NoneType']
    """
    layers: list[tuple[nn.Linear, nn.Module | None]] = []
    for name, module in _leaves(model):
        if _linear(module):
            if layers and layers[-1][0].out_features != module.in_features:
                raise ValueError(
                    f"layer {name!r} takes {module.in_features} inputs, but the layer "
                    f"before it gives {layers[-1][0].out_features}"
                )
            layers.append((module, None))
        elif not _passed(module):
            raise TypeError(
                f"no chain for module {name!r} ({type(module).__name__}): chain() "
                f"reads nn.Linear, elementwise activations, Dropout and Flatten in an "
                f"nn.Sequential; for other networks pass the (in, out) weight matrices "
                f"themselves, in order")
        elif layers and not isinstance(module, (nn.Flatten, nn.Dropout, nn.Identity)):
            if layers[-1][1] is not None:
                raise TypeError(
                    f"no chain for module {name!r}: a second activation in a row"
                )
            layers[-1] = (layers[-1][0], module)
    if not layers:
        raise TypeError(f"no chain for {type(model).__name__}: it has no linear layer")
    return layers


def _leaves(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    # A subclass may wire its modules in its own way; only Sequential's own order is
    # known.
    if type(model).forward is not nn.Sequential.forward or hooked(model):
        return [(prefix or type(model).__name__, model)]
    # Not named_children(): it lists a module that stands in two places only once.
    leaves = []
    for name, child in cast(dict[str, nn.Module], model._modules).items():
        leaves += _leaves(child, f"{prefix}.{name}" if prefix else name)
    return leaves


def chain(model: Network, input_shape: Sequence[int] | None = None, bias: bool = False,
          *, freeze: Sequence[str] = (),
          reference: Tensor | None = None, layer: str | None = None, chunk: int = 32,
          dtype: torch.dtype = torch.float64) -> Tensor:
    """Chain of a network: W1 W2 ... Wl, the paper's bold W (equation 5).

    Rows are input coordinates and columns are outputs. Layers act on row vectors, x W +
    b, so a weight matrix is (in, out): the transpose of what ``nn.Linear`` stores.

    Of a network that is not fully connected, or not an ``nn.Sequential``, it is the
    Jacobian of the linear skeleton, which for a fully connected one is that product. In
    the skeleton elementwise activations, dropout and softmax do nothing, maxima over
    places are means, and batch normalisation is as in eval mode. That what remains is
    linear is verified on every call.

    Parameters
    ----------
    model : nn.Module or sequence of (in, out) array-likes
        A network, or the weight matrices of a fully connected one in order. A
        sequential network cut short (``model[:k]``) gives the chain up to that layer.
    input_shape : tuple of int, optional
        Shape of one input, as (3, 224, 224). A fully connected ``nn.Sequential`` knows
        its own number of inputs, and an `input_shape` must agree; others need it.
    bias : bool
        Carry the biases along in homogeneous coordinates: each layer becomes
        ``[[W, 0], [b, 1]]``, and the chain gets one more row, the output of the linear
        network at the zero input. Only for modules; off in the paper.
    freeze : sequence of str
        Products that depend on the input in both factors, made linear by one factor's
        value in the network itself, activations and all, at the reference input.
        "gate": sigmoids (squeeze and excitation, GLU; all of the network's sigmoids are
        then constants). "norm": the scale of layer, group, instance and RMS
        normalisation; their centring and gain stay. "attention": the pattern of the
        attention. By default such networks are refused.
    reference : Tensor, optional
        Of `input_shape`, for `freeze`; one draw of N(0, 1), always the same, by
        default. Networks are comparable at one reference only.
    layer : str, optional
        Name of a submodule: the chain up to its output, averaged over tokens (batch,
        tokens, units) or places (batch, channels, height, width).
    chunk : int
        Outputs whose vector-Jacobian products run at once; memory grows with it.
    dtype : torch.dtype
        In which a skeleton is computed; float32 takes half the memory.

    Returns
    -------
    Tensor
        float64, (inputs, outputs), or (inputs + 1, outputs) with `bias`; detached.

    Raises
    ------
    TypeError
        For a network whose skeleton is not linear (the function and the module that
        called it are named), that gives more than one tensor, or that needs an
        `input_shape`.
    ValueError
        For matrices that are empty, do not fit together or hold NaN or infinity; for an
        `input_shape` that the network does not take; for unknown names in `freeze` or
        `layer`.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> chain(network).shape
    torch.Size([4, 3])
    >>> chain([np.full((2, 3), 2.0), np.ones((3, 1))])
    tensor([[6.],
            [6.]], dtype=torch.float64)
    """
    if isinstance(model, nn.Module) and (
        layer is not None or unreadable_modules(model)
    ):
        if input_shape is None:
            part = (unreadable_modules(model) or ["a layer"])[0]
            raise TypeError(
                f"no chain for {part} without the shape of one input, for example "
                f"input_shape=(3, 224, 224): only a fully connected nn.Sequential "
                f"knows its own"
            )
        jacobian, offset = skeleton.jacobian(
            model, input_shape, freeze, reference, layer, chunk, dtype)
        if bias:
            jacobian = torch.cat([jacobian, offset[None]])  # (inputs + 1, outputs)
        return _finite(jacobian)
    matrices: list[Tensor] = []
    biases: list[Tensor | None] = []
    if isinstance(model, nn.Module):
        for linear, _ in linear_layers(model):
            matrices.append(linear.weight.detach().T)  # (in, out)
            biases.append(None if linear.bias is None else linear.bias.detach())
    elif bias:
        raise TypeError(
            "bias=True needs an nn.Module: a sequence of matrices has no biases"
        )
    else:
        for i, values in enumerate(_sequence(model)):
            matrices.append(_matrix(values, i))
            biases.append(None)
    for i, (left, right) in enumerate(zip(matrices, matrices[1:])):
        if left.shape[1] != right.shape[0]:
            raise ValueError(f"matrices {i} and {i + 1} do not fit together: "
                             f"{tuple(left.shape)} then {tuple(right.shape)}")
    if input_shape is not None and np.prod(input_shape) != matrices[0].shape[0]:
        raise ValueError(f"input_shape {tuple(input_shape)} has {np.prod(input_shape)} "
                         f"coordinates, the first layer takes {matrices[0].shape[0]}")
    return _finite(product(matrices, biases if bias else None))


def unreadable_modules(model: nn.Module) -> list[str]:
    """Return the modules that are no part of a fully connected ``nn.Sequential``.

    Examples
    --------
    >>> unreadable_modules(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    ["module '0' (Conv2d)"]
    """
    unreadable = []
    for name, module in _leaves(model):
        if not (_linear(module) or _passed(module)):
            unreadable.append(f"module {name!r} ({type(module).__name__})")
    return unreadable


def _linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    # A subclass, or a hook, may do more than its base.
    return type(module).forward is nn.Linear.forward and not hooked(module)


def _passed(module: nn.Module) -> bool:
    return any(
        type(module).forward is known.forward for known in _PASSED
    ) and not hooked(module)


def hooked(module: nn.Module) -> bool:
    """Tell whether hooks run with a module, which its class does not say.

    Examples
    --------
    >>> hooked(nn.Linear(4, 3))
    False
    """
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _finite(chain: Tensor) -> Tensor:
    if not torch.isfinite(chain).all():
        raise ValueError(
            "the chain holds NaN or infinity: a weight is not finite, or the product "
            "overflows"
        )
    return chain.double()


def product(matrices: Sequence[Tensor],
            biases: Sequence[Tensor | None] | None = None) -> Tensor:
    """Return the product of weight matrices, in float64.

    Parameters
    ----------
    matrices : sequence of Tensor
        (..., in, out) in the order of the layers.
    biases : sequence of Tensor or None, optional
        (..., out) of each layer, to be carried along in homogeneous coordinates.

    Returns
    -------
    Tensor
        (..., inputs, outputs), or (..., inputs + 1, outputs) with biases.

    Examples
    --------
    >>> product([torch.full((2, 3), 2.0), torch.ones(3, 1)]).tolist()
    [[6.0], [6.0]]
    """
    factors = [matrix.double() for matrix in matrices]
    if biases is not None:
        for i, bias in enumerate(biases):
            factors[i] = _homogeneous(factors[i], bias)
        factors[-1] = factors[-1][..., :-1]
    # From the outputs inwards: they are few, so every intermediate product is thin.
    result = factors[-1]
    for factor in reversed(factors[:-1]):
        result = factor @ result
    return result


def _homogeneous(weight: Tensor, bias: Tensor | None) -> Tensor:
    """``[[W, 0], [b, 1]]``: one matrix that maps (x, 1) to (x W + b, 1)."""
    padded = nn.functional.pad(weight, (0, 1, 0, 1))
    padded[..., -1, -1] = 1
    if bias is not None:
        padded[..., -1, :-1] = bias
    return padded


def _sequence(model: Network) -> list[Matrix]:
    if not isinstance(model, (list, tuple)) or not model:
        raise TypeError(
            f"chain() takes an nn.Module or a non-empty list of (in, out) matrices, "
            f"got {type(model).__name__}"
        )
    return list(model)


def _matrix(values: Matrix, i: int) -> Tensor:
    array = values if isinstance(values, Tensor) else np.asarray(values)
    matrix = torch.as_tensor(array)
    if matrix.is_complex():
        raise TypeError(f"matrix {i}: wanted real numbers, got dtype {matrix.dtype}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(
            f"matrix {i}: wanted (in, out), got shape {tuple(matrix.shape)}"
        )
    if not torch.isfinite(matrix).all():
        raise ValueError(f"matrix {i} holds NaN or infinity")
    return matrix.detach()
