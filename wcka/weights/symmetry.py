"""Transformations of a network's weights that leave the function it computes as it was.

There are two families. *Intertwiners* (paper, section 2.3; Godfrey et al. 2022) move
through an activation: sigma(x A) = sigma(x) phi(A), so the weights before it take A and
the weights after it take phi(A)^-1. *Changes of basis* act on the activations
themselves, X -> X A + c, and are undone by the next layer; they need not commute with
sigma, and are what CKA's invariances are about.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..measures.spelling import nearest
from ..measures.validation import Array
from .caller import untouched
from .chains import linear_layers
from .layers import ACTIVATIONS, Gaussian, Square
from .unit_table import hidden_units as hidden_units

# ------------------------------------------------------------ random matrices


def _permutation(d: int, rng: np.random.Generator) -> Array:
    return np.eye(d)[rng.permutation(d)]


def _rotation(d: int, rng: np.random.Generator) -> Array:
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    return q * np.sign(np.diag(r))  # signs fixed, so that the draw is uniform (Haar)


def _rescaling(d: int, rng: np.random.Generator) -> Array:
    return np.diag(np.exp(rng.normal(0, 1, d)))


def _invertible(d: int, rng: np.random.Generator) -> Array:
    # Singular values within a factor of 16: far from a rotation, and safe to invert in
    # float32.
    scales = np.exp2(rng.uniform(-2, 2, d))
    return _rotation(d, rng) * scales @ _rotation(d, rng)


def _signs(d: int, rng: np.random.Generator) -> Array:
    return np.diag(rng.choice([-1.0, 1.0], d))


def _scaled_permutation(d: int, rng: np.random.Generator) -> Array:
    return _permutation(d, rng) @ _rescaling(d, rng)


def _signed_permutation(d: int, rng: np.random.Generator) -> Array:
    return _permutation(d, rng) @ _signs(d, rng)


def _signed_scaled_permutation(d: int, rng: np.random.Generator) -> Array:
    return _permutation(d, rng) @ _signs(d, rng) @ _rescaling(d, rng)


def _unchanged(a: Array) -> Array:
    return a


# By activation: a random element A of its intertwiner group (Godfrey et al. 2022, table
# 1), and phi, which says what A becomes behind the activation.
_Draw = Callable[[int, np.random.Generator], Array]
_Phi = Callable[[Array], Array]
INTERTWINERS: dict[type[nn.Module], tuple[_Draw, _Phi]] = {
    nn.Identity: (_invertible, _unchanged),
    nn.ReLU: (_scaled_permutation, _unchanged),
    nn.LeakyReLU: (_scaled_permutation, _unchanged),
    nn.Sigmoid: (_permutation, _unchanged),
    nn.GELU: (_permutation, _unchanged),
    nn.Tanh: (_signed_permutation, _unchanged),
    Gaussian: (_signed_permutation, np.abs),
    Square: (_signed_scaled_permutation, np.square),
}


# ------------------------------------------------------------ permute, rescale


def permute(model: nn.Module, seed: int = 0) -> nn.Module:
    """Shuffle the hidden units (channels) of every layer; the function stays the same.

    Parameters
    ----------
    model : nn.Module
        A network whose units ``hidden_units`` knows.
    seed : int
        Seed of the draw.

    Returns
    -------
    nn.Module
        A new network; `model` is untouched.

    Raises
    ------
    TypeError
        See ``hidden_units``.

    Examples
    --------
    >>> import wcka
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> x = torch.ones(1, 4)
    >>> torch.allclose(permute(network)(x), network(x), atol=1e-6)
    True
    >>> round(wcka.wcka(permute(network), network), 6)
    1.0
    """
    return _permuted_and_scaled(model, _drawn_order, seed)


# Activations through which a positive scale passes: sigma(c x) = c sigma(x).
_HOMOGENEOUS = (nn.Identity, nn.ReLU, nn.LeakyReLU)


def rescale(model: nn.Module, seed: int = 0) -> nn.Module:
    """Multiply every hidden unit (channel) by a positive number; the function stays.

    The number is divided out where the unit is read. This preserves the function for
    identity, ReLU and LeakyReLU, where sigma(c x) = c sigma(x). Batch normalisation is
    rescaled behind its own scale. For parameters and return value see ``permute``.

    Raises
    ------
    TypeError
        See ``permute``; also for another activation.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> x = torch.ones(1, 4)
    >>> torch.allclose(rescale(network)(x), network(x), atol=1e-5)
    True
    """
    for module in model.modules():
        known = isinstance(module, tuple(ACTIVATIONS.values()))
        if known and not isinstance(module, _HOMOGENEOUS):
            raise TypeError(
                f"rescaling units changes a network with {type(module).__name__}; it "
                f"preserves identity, ReLU and LeakyReLU networks only")
    return _permuted_and_scaled(model, _drawn_scale, seed)


_OrderAndScale = tuple[NDArray[np.integer], Array]


def _drawn_order(d: int, rng: np.random.Generator) -> _OrderAndScale:
    return rng.permutation(d), np.ones(d)


def _drawn_scale(d: int, rng: np.random.Generator) -> _OrderAndScale:
    return np.arange(d), np.exp(rng.normal(0, 1, d))


def _permuted_and_scaled(
    model: nn.Module, draw: Callable[[int, np.random.Generator], _OrderAndScale],
    seed: int,
) -> nn.Module:
    """Return a copy of a network, each group of units in a drawn order and scale."""
    table = hidden_units(model)
    rng = np.random.default_rng(seed)
    model = deepcopy(model)
    state = model.state_dict()  # shares the copy's memory
    for rows in table.values():
        first, axis, _ = rows[0]  # a layer that writes the units: one entry per unit
        drawn_order, drawn_scale = draw(state[first].shape[axis], rng)
        order = torch.from_numpy(drawn_order)
        scale = torch.from_numpy(drawn_scale)
        for name, axis, power in rows:
            values = state[name].double().movedim(axis, 0)  # (entries, ...)
            # Where channels were flattened, the next layer has r entries per unit.
            values = values.unflatten(0, (len(order), -1))  # (units, r, ...)
            factors = scale.view(-1, *[1] * (values.ndim - 1)) ** power
            values = (values[order] * factors).flatten(0, 1)  # (entries, ...)
            state[name].copy_(values.movedim(0, axis))
    return model


# ------------------------------------------------------------ intertwiners


def intertwine(model: nn.Module, seed: int = 0) -> nn.Module:
    """Apply a random element of each activation's intertwiner group.

    The groups are those of the paper's section 2.3.
    Identity: any invertible matrix. ReLU, LeakyReLU: permutation and positive
    rescaling. Sigmoid, GELU: permutation. Tanh: permutation and signs. These have
    phi(A) = A. Gaussian (permutation and signs, phi(A) = abs(A)) and Square
    (permutation and scaling of either sign, phi(A) = A squared entrywise) do not, and
    the chain does not survive them. For parameters and return value see ``permute``.

    Raises
    ------
    TypeError
        See ``permute``; also for an activation whose group is not known.

    Examples
    --------
    >>> import wcka
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> x = torch.ones(1, 4)
    >>> torch.allclose(intertwine(network)(x), network(x), atol=1e-6)
    True
    >>> round(wcka.wcka(intertwine(network), network), 6)
    1.0
    """
    linear_layers(model)  # refuses what cannot be read, before it is copied
    model = deepcopy(model)
    rng = np.random.default_rng(seed)
    layers = linear_layers(model)
    _check_changeable(layers)
    with torch.no_grad():
        for (before, activation), (after, _) in zip(layers, layers[1:]):
            draw, phi = _intertwiner_group(activation or nn.Identity())
            matrix = draw(before.out_features, rng)
            undo = torch.from_numpy(np.linalg.inv(phi(matrix)))
            a = torch.from_numpy(matrix)
            # nn.Linear stores (out, in): x W A is weight -> A' weight.
            before.weight.copy_(a.T @ before.weight.double())
            if before.bias is not None:
                before.bias.copy_(before.bias.double() @ a)
            after.weight.copy_(after.weight.double() @ undo.T)
    return model


def _check_changeable(layers: list[tuple[nn.Linear, nn.Module | None]]) -> None:
    """Refuse layers of which one cannot change without another."""
    identities = set()
    for layer, _ in layers:
        if is_parametrized(layer):
            raise TypeError(
                "weights that are computed from others cannot be changed in place")
        identities.add(id(layer))
    if len(identities) < len(layers):
        raise TypeError(
            "a linear layer stands in two places: its weights cannot change in one")


def _intertwiner_group(activation: nn.Module) -> tuple[_Draw, _Phi]:
    kind = type(activation)
    if kind not in INTERTWINERS:
        known = ", ".join(activation.__name__ for activation in INTERTWINERS)
        raise TypeError(
            f"intertwiner group of {kind.__name__} not known; known: {known}")
    return INTERTWINERS[kind]


# ------------------------------------------------------------ changes of basis


_Change = tuple[Array, Array]


def _permuted_basis(d: int, rng: np.random.Generator) -> _Change:
    return _permutation(d, rng), np.zeros(d)


def _rotated_basis(d: int, rng: np.random.Generator) -> _Change:
    return _rotation(d, rng), np.zeros(d)


def _scaled_basis(d: int, rng: np.random.Generator) -> _Change:
    return np.exp(rng.normal()) * np.eye(d), np.zeros(d)


def _translated_basis(d: int, rng: np.random.Generator) -> _Change:
    return np.eye(d), rng.normal(0, 3, d)


def _rescaled_basis(d: int, rng: np.random.Generator) -> _Change:
    return _rescaling(d, rng), np.zeros(d)


def _mapped_basis(d: int, rng: np.random.Generator) -> _Change:
    return _invertible(d, rng), np.zeros(d)


# Changes of basis X -> X A + c of a representation with d units, drawn as (A, c).
_CHANGES: dict[str, Callable[[int, np.random.Generator], _Change]] = {
    "permutation": _permuted_basis,
    "rotation": _rotated_basis,
    "isotropic scale": _scaled_basis,
    "translation": _translated_basis,
    "unit rescaling": _rescaled_basis,
    "invertible map": _mapped_basis,
}
CHANGES = tuple(_CHANGES)


def change_of_basis(name: str, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw a change of basis X -> X A + c of a representation with `d` units.

    Parameters
    ----------
    name : str
        One of ``CHANGES``: "permutation", "rotation", "isotropic scale", "translation",
        "unit rescaling", "invertible map".
    d : int
        Number of units.
    seed : int
        Seed of the draw.

    Returns
    -------
    A, c : Tensor
        float64, (d, d) and (d,).

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> a, c = change_of_basis("permutation", 3)
    >>> a.sum(0).tolist(), c.tolist()
    ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """
    draw = _CHANGES[nearest(name, CHANGES, "change of basis")]
    a, c = draw(d, np.random.default_rng(seed))
    return torch.from_numpy(a), torch.from_numpy(c)


def rebase(model: nn.Sequential, name: str, seed: int = 0) -> nn.Sequential:
    """Change the basis of the last hidden representation, undone by the layer after it.

    The new network holds one more linear layer, right after the last activation, that
    applies X -> X A + c (see ``change_of_basis``); the output layer takes A^-1 and the
    matching bias, so the function is the same for every activation.

    Parameters
    ----------
    model : nn.Sequential
        A fully connected network with at least one hidden layer.
    name, seed
        See ``change_of_basis``.

    Returns
    -------
    nn.Sequential
        A new network, its weights float64; ``network[:-1]`` gives the changed
        representation.

    Raises
    ------
    TypeError
        For a network whose layers cannot be read off, or whose last module is not
        linear.
    ValueError
        For an unknown name.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    >>> rotated = rebase(network, "rotation")
    >>> x = torch.ones(1, 4, dtype=torch.float64)
    >>> torch.allclose(rotated(x), network(x))
    True
    >>> torch.allclose(rotated[:-1](x), network[:-1](x))
    False
    """
    model, last = _double_copy(model)
    a, c = change_of_basis(name, last.in_features, seed)
    with untouched(None):  # which keeps the caller's random state
        change = nn.Linear(len(a), len(a), dtype=torch.float64)
        output = nn.Linear(last.in_features, last.out_features, dtype=torch.float64)
    with torch.no_grad():
        change.weight.copy_(a.T)
        change.bias.copy_(c)
        output.weight.copy_(last.weight @ torch.linalg.inv(a).T)
        output.bias.copy_(0 if last.bias is None else last.bias)
        # The translation c reaches the outputs as c A^-1 W, which the bias takes back.
        output.bias.sub_(c @ output.weight.T)
    return nn.Sequential(*model[:-1], change, output)


def _double_copy(model: nn.Sequential) -> tuple[nn.Sequential, nn.Linear]:
    """Return a float64 copy of a fully connected network, and its last layer."""
    linear_layers(model)
    if not isinstance(model[-1], nn.Linear):
        raise TypeError(
            f"wanted a network that ends in nn.Linear, got {type(model[-1]).__name__}")
    model = deepcopy(model).double()
    return model, cast(nn.Linear, model[-1])


# ------------------------------------------------------------ other changes


def map_outputs(model: nn.Sequential, seed: int = 0) -> nn.Sequential:
    """Multiply the outputs by a random invertible matrix, which changes the function.

    For parameters, return value and errors see ``rebase``.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    >>> x = torch.ones(1, 4, dtype=torch.float64)
    >>> torch.allclose(map_outputs(network)(x), network(x))
    False
    """
    model, last = _double_copy(model)
    rng = np.random.default_rng(seed)
    a = torch.from_numpy(_invertible(last.out_features, rng))
    with torch.no_grad():
        last.weight.copy_(a.T @ last.weight)
        if last.bias is not None:
            last.bias.copy_(last.bias @ a)
    return model


def redraw_silent_weights(
    model: nn.Module, inputs: Tensor, seed: int = 0,
) -> nn.Module:
    """Draw anew the weights of input coordinates that are always zero.

    The draw is that of an initialisation.

    Parameters
    ----------
    model : nn.Module
        A fully connected ``nn.Sequential``.
    inputs : Tensor
        (n, p); the network's outputs on these inputs stay as they were, to the last
        bit.
    seed : int
        Seed of the draw.

    Returns
    -------
    nn.Module
        A new network.

    Raises
    ------
    TypeError
        For a network whose layers cannot be read off (see ``wcka.chain``).

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> redrawn = redraw_silent_weights(network, torch.tensor([[0.0, 1.0, 2.0, 0.0]]))
    >>> (redrawn[0].weight != network[0].weight).all(0).tolist()
    [True, False, False, True]
    """
    model = deepcopy(model)
    rng = np.random.default_rng(seed)
    first, _ = linear_layers(model)[0]
    silent = ~inputs.flatten(1).any(0)  # (p,)
    bound = first.in_features**-0.5
    shape = (first.out_features, int(silent.sum()))
    weights = rng.uniform(-bound, bound, shape)
    with torch.no_grad():
        first.weight[:, silent] = torch.from_numpy(weights).to(first.weight)
    return model


def _transformations() -> dict[str, Callable[..., nn.Module]]:
    """Return all transformations by name, each as (model, inputs, seed) -> model."""
    table: dict[str, Callable[..., nn.Module]] = {}
    for change in CHANGES:
        table[change] = _rebase_by(change)
    table["intertwiner"] = lambda model, inputs, seed: intertwine(model, seed)
    table["output map"] = lambda model, inputs, seed: map_outputs(model, seed)
    table["silent weights"] = redraw_silent_weights
    return table


def _rebase_by(change: str) -> Callable[..., nn.Module]:
    return lambda model, inputs, seed: rebase(model, change, seed)


# What may be done to a network; INVARIANCES in ``measures.all_pairs`` says which
# measure does not change under it.
TRANSFORMATIONS = _transformations()
