"""The chain of a network: the product of its weight matrices (paper, equations 4 and
5).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from . import skeleton
from .caller import copied
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
        its own number of inputs, and an `input_shape` must agree; so does a network
        whose first layer is an ``nn.Linear``. Others need it.
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
    return _finite(_chain(
        model, input_shape, bias, freeze, reference, layer, chunk, dtype, scaled=False))


def comparable_chain(
    model: Network, input_shape: Sequence[int] | None = None, bias: bool = False,
    *, freeze: Sequence[str] = (), reference: Tensor | None = None,
    layer: str | None = None, chunk: int = 32, dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return a network's chain up to a power of 2, which wCKA does not see.

    Products of many layers leave the range of floats long before their similarity has
    lost its meaning. For parameters and errors see ``chain``.

    Returns
    -------
    Tensor
        float64, (inputs, outputs); its largest entry is between 0.5 and 1 in size,
        unless it is zero.

    Examples
    --------
    >>> tiny = np.full((2, 2), 2.0**-700)
    >>> comparable_chain([tiny, tiny])
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]], dtype=torch.float64)
    """
    return _finite(_chain(
        model, input_shape, bias, freeze, reference, layer, chunk, dtype, scaled=True))


def _chain(
    model: Network, input_shape: Sequence[int] | None, bias: bool,
    freeze: Sequence[str], reference: Tensor | None, layer: str | None, chunk: int,
    dtype: torch.dtype, scaled: bool,
) -> Tensor:
    """Return a chain; up to a power of 2 if `scaled`."""
    if isinstance(model, nn.Module):
        skeleton.refuse_unreadable(model)
        model = _with_plain_weights(model)
        is_no_sequence = unreadable_modules(model) or _flattens_places(model)
        if layer is not None or is_no_sequence:
            options = (freeze, reference, layer, chunk, dtype)
            return _jacobian(model, input_shape, bias, options, scaled)
    matrices: list[Tensor] = []
    biases: list[Tensor | None] = []
    if isinstance(model, nn.Module):
        for linear, _ in linear_layers(model):
            matrices.append(linear.weight.detach().T)  # (in, out)
            biases.append(None if linear.bias is None else linear.bias.detach())
    elif bias:
        raise TypeError(
            "bias=True needs an nn.Module: a sequence of matrices has no biases")
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
    if scaled:
        return _scaled_product(_factors(matrices, biases if bias else None))
    return product(matrices, biases if bias else None)


def _jacobian(
    model: nn.Module, input_shape: Sequence[int] | None, bias: bool,
    options: tuple[Any, ...], scaled: bool,
) -> Tensor:
    """Return the chain of a network that is no fully connected ``nn.Sequential``."""
    unreadable = (unreadable_modules(model) or ["a layer"])[0]
    guessed = input_shape is None
    if input_shape is None:
        input_shape = _shape_of_first_layer(model)
        if input_shape is None:
            raise _needs_shape(unreadable)
    try:
        j, offset = skeleton.jacobian(model, input_shape, *options)
        if scaled and not bias and not j.any():
            raise skeleton.OutOfRange("no chain: its numbers underflow")
    except skeleton.OutOfRange:
        balanced = _balanced(model) if scaled and not bias else None
        if balanced is None:
            raise
        j, offset = skeleton.jacobian(balanced, input_shape, *options)
    except skeleton.InputRefused as error:
        if guessed:
            raise _needs_shape(unreadable) from error
        raise
    if bias:
        j = torch.cat([j, offset[None]])  # (inputs + 1, outputs)
    return to_unit_range(j) if scaled else j


def _needs_shape(part: str) -> TypeError:
    return TypeError(
        f"no chain for {part} without the shape of one input, for example "
        f"input_shape=(3, 224, 224): only fully connected networks know their own")


def _shape_of_first_layer(model: nn.Module) -> tuple[int] | None:
    """Return the shape of one input where a network's first layer is linear.

    First is the layer that was defined first. That it runs first is not known, but the
    network refuses the shape otherwise.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            return (module.in_features,)
        layers_within = next(module.children(), None) is not None
        if not layers_within and any(True for _ in module.parameters()):
            return None
    return None


def _with_plain_weights(model: nn.Module) -> nn.Module:
    """Return a network whose weights can be read, or a copy of it where they cannot.

    Pruning and the normalisation of weights compute a layer's weight when it runs, in a
    hook, or when it is asked for; in training mode that may change the network.
    """
    parametrised = any(map(is_parametrized, model.modules()))
    computed_by_hooks = any(map(_weight_hooks, model.modules()))
    if not (parametrised or computed_by_hooks):
        return model
    copy = copied(model).eval()
    with torch.no_grad():
        for module in copy.modules():
            for key, hook in _weight_hooks(module).items():
                hook(module, ())  # sets the weight
                del module._forward_pre_hooks[key]
    return copy


def _weight_hooks(module: nn.Module) -> Mapping[int, Callable[..., Any]]:
    """Return the hooks by which torch computes a layer's weight, by their keys."""
    hooks = {}
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, (BasePruningMethod, WeightNorm, SpectralNorm)):
            hooks[key] = hook
    return hooks


# Modules that a scale of the weights before them passes through, up to their biases.
_SCALE_FREE = (
    nn.Flatten, nn.Unflatten, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d,
    nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d, nn.Upsample, nn.ZeroPad2d)


def _balanced(model: nn.Module) -> nn.Module | None:
    """Return a copy with weights of one size and no biases, if modules run in a row.

    Its chain is the network's up to scale. Where branches meet there is no such copy:
    None.
    """
    copy = copied(model)
    with torch.no_grad():
        for _, module in _leaves(copy):
            if _linear(module) or isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                module.weight.copy_(to_unit_range(module.weight.double()))
                if module.bias is not None:
                    module.bias.zero_()
            elif not (_passed(module) or isinstance(module, _SCALE_FREE)):
                return None
    return copy


def to_unit_range(matrix: Tensor) -> Tensor:
    """Divide a matrix by the power of 2 that brings its largest entry below 1.

    Examples
    --------
    >>> to_unit_range(torch.tensor([3.0, -8.0])).tolist()
    [0.1875, -0.5]
    """
    exponent = int(torch.frexp(matrix.abs().max()).exponent)
    # In two steps, as 2^1074 is no float.
    half = exponent // 2
    return matrix * 2.0**-half * 2.0 ** (half - exponent)


def _scaled_product(matrices: Sequence[Tensor]) -> Tensor:
    """Return the product of matrices up to a power of 2, as ``product`` multiplies."""
    result = to_unit_range(matrices[-1].double())
    for matrix in reversed(matrices[:-1]):
        result = to_unit_range(to_unit_range(matrix.double()) @ result)
    return result


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


def _flattens_places(model: nn.Module) -> bool:
    """Tell whether a Flatten joins what a layer gives at several places."""
    outputs = None  # of the last layer
    is_flat = False  # whether a Flatten came since
    for _, module in _leaves(model):
        if _linear(module):
            if is_flat and outputs != module.in_features:
                return True
            outputs = module.out_features
            is_flat = False
        elif isinstance(module, nn.Flatten) and outputs is not None:
            is_flat = True
    return False


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
            "overflows (wcka and pairwise compare such networks all the same)"
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
    factors = _factors(matrices, biases)
    # From the outputs inwards: they are few, so every intermediate product is thin.
    result = factors[-1]
    for factor in reversed(factors[:-1]):
        result = factor @ result
    return result


def _factors(
    matrices: Sequence[Tensor], biases: Sequence[Tensor | None] | None,
) -> list[Tensor]:
    """Return the matrices whose product is the chain, in float64."""
    factors = [matrix.double() for matrix in matrices]
    if biases is not None:
        for i, bias in enumerate(biases):
            factors[i] = _homogeneous(factors[i], bias)
        factors[-1] = factors[-1][..., :-1]
    return factors


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
    if isinstance(values, Tensor):
        matrix = values
    else:
        matrix = torch.as_tensor(np.asarray(values), device="cpu")
    if matrix.is_complex():
        raise TypeError(f"matrix {i}: wanted real numbers, got dtype {matrix.dtype}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(
            f"matrix {i}: wanted (in, out), got shape {tuple(matrix.shape)}"
        )
    if not torch.isfinite(matrix).all():
        raise ValueError(f"matrix {i} holds NaN or infinity")
    return matrix.detach()
