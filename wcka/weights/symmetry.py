"""Transformations of a network's weights that leave the function it computes as it was.

Two families. *Intertwiners* (paper, section 2.3; Godfrey et al. 2022) move through an activation:
sigma(x A) = sigma(x) phi(A), so the weights before it take A and the weights after it take
phi(A)^-1. *Changes of basis* act on the activations themselves, X -> X A + c, and are undone by
the next layer; they need no commuting with sigma, and are what CKA's invariances are about.
"""

import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..measures.spelling import nearest
from .chains import hooked, linear_layers
from .layers import ACTIVATIONS, Gaussian, PatchConv2d, Residual, Square


def _permutation(d: int, rng: np.random.Generator) -> np.ndarray:
    return np.eye(d)[rng.permutation(d)]


def _rotation(d: int, rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    return q * np.sign(np.diag(r))  # signs fixed, so that the draw is uniform (Haar)


def _rescaling(d: int, rng: np.random.Generator) -> np.ndarray:
    return np.diag(np.exp(rng.normal(0, 1, d)))


def _invertible(d: int, rng: np.random.Generator) -> np.ndarray:
    # Singular values within a factor of 16: far from a rotation, safely invertible in float32.
    scales = np.exp2(rng.uniform(-2, 2, d))
    return _rotation(d, rng) * scales @ _rotation(d, rng)


def _signs(d: int, rng: np.random.Generator) -> np.ndarray:
    return np.diag(rng.choice([-1.0, 1.0], d))


# A random element of each activation's intertwiner group (Godfrey et al. 2022, table 1), and phi.
_Draw = Callable[[int, np.random.Generator], np.ndarray]
INTERTWINERS: dict[type[nn.Module], tuple[_Draw, Callable[[np.ndarray], np.ndarray]]] = {
    nn.Identity: (_invertible, lambda a: a),
    nn.ReLU: (lambda d, rng: _permutation(d, rng) @ _rescaling(d, rng), lambda a: a),
    nn.LeakyReLU: (lambda d, rng: _permutation(d, rng) @ _rescaling(d, rng), lambda a: a),
    nn.Sigmoid: (_permutation, lambda a: a),
    nn.GELU: (_permutation, lambda a: a),
    nn.Tanh: (lambda d, rng: _permutation(d, rng) @ _signs(d, rng), lambda a: a),
    Gaussian: (lambda d, rng: _permutation(d, rng) @ _signs(d, rng), np.abs),
    Square: (lambda d, rng: _permutation(d, rng) @ _signs(d, rng) @ _rescaling(d, rng),
                    np.square),
}


# Under the name of the layer that writes them, units that are permuted together: the axes of all
# tensors of a state that run over them, and the power of a unit's scale that multiplies each there.
Units = dict[str, list[tuple[str, int, int]]]


def hidden_units(model: nn.Module) -> Units:
    """Table of a network's hidden units: which axes of which weights share them.

    Parameters
    ----------
    model : nn.Module
        An ``nn.Sequential``, or a ResNet of torchvision, of linear layers, convolutions, batch
        normalisation, residual connections, pooling and activations.

    Returns
    -------
    dict of str to list of (str, int, int)
        For every group of units (name in the state, axis, power of the scale). Where one entry of
        a group stands for r entries of an axis, as where channels are flattened, these are
        consecutive. A residual connection makes its two ends one group.

    Raises
    ------
    TypeError
        For another module, a grouped convolution, normalisation without a gain or at the start of a
        residual branch, weights that are computed, hooks, or a layer that stands in two places.
    """
    owners = [id(m) for _, m in model.named_modules(remove_duplicate=False)
              if m._parameters or m._buffers]
    if len(set(owners)) < len(owners):
        raise TypeError("a layer stands in two places: its weights cannot change in one")
    walk = _Walk()
    walk.table.pop(walk.into(model, "", None, None), None)
    return walk.table


# What acts on every unit alone; what acts on places, where there are some.
_UNITWISE: tuple[type[nn.Module], ...] = (nn.Dropout, nn.Dropout2d, *ACTIVATIONS.values())
_SPATIAL = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_HOMOGENEOUS = (nn.Identity, nn.ReLU, nn.LeakyReLU)


def _is(module: nn.Module, known: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is of a class, and does no more than it."""
    return (any(isinstance(module, c) and type(module).forward is c.forward for c in known)
            and not hooked(module) and not is_parametrized(module))


class _Walk:
    """Enters a network's axes into a table of units, from the inputs on."""

    def __init__(self) -> None:
        self.table: dict[Any, list[tuple[str, int, int]]] = {}  # no group, None, is never in it
        self.places: set[str] = set()  # groups of channels that have places
        # A network of torchvision exists only where torchvision has been imported.
        resnet = sys.modules.get("torchvision.models.resnet")
        self.sequences: tuple[type[nn.Module], ...] = (nn.Sequential,)
        self.resnets: tuple[type[nn.Module], ...] = ()
        self.around: tuple[type[nn.Module], ...] = (Residual,)  # modules with a way around
        if resnet:
            self.sequences += (resnet.ResNet,)
            self.resnets += (resnet.ResNet,)
            self.around += (resnet.BasicBlock, resnet.Bottleneck)

    def into(self, module: nn.Module, name: str, group: str | None, around: str | None):
        """From the group of a module's input to that of its output; `around`: of a way around."""
        children = [(k, c, f"{name}.{k}".strip(".")) for k, c in module._modules.items()
                    if c is not None]
        if _is(module, self.sequences):
            for key, child, place in children:
                if _is(module, self.resnets) and key == "fc":
                    self.places.discard(group)  # it flattens before
                group = self.into(child, place, group, around)
            return group
        if _is(module, self.around):
            inner = group
            for key, child, place in children:
                if key != "downsample":
                    inner = self.into(child, place, inner, group)
                else:
                    group = self.into(child, place, group, None)
            return self.merged(group, inner)
        if _is(module, (nn.Linear, nn.Conv2d, PatchConv2d)):
            return self.layer(module, name, group)
        if _is(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine and group != around:
            # What it normalises need not be scaled; its gain and shift are.
            self.table[group] = [(key, axis, 0) for key, axis, _ in self.table[group]] + [
                (f"{name}.{key}", 0, int(key in ("weight", "bias")))
                for key in module.state_dict() if key != "num_batches_tracked"]
        elif _is(module, (nn.Flatten,)) and (module.start_dim, module.end_dim) == (1, -1):
            self.places.discard(group)
        elif not (_is(module, _UNITWISE) or (group in self.places and _is(module, _SPATIAL))
                  or (group is None and _is(module, (*_SPATIAL, nn.Flatten, nn.Unflatten)))):
            raise TypeError(f"units of module {name!r} ({type(module).__name__}) are not known")
        return group

    def layer(self, module: nn.Module, name: str, group: str | None) -> str:
        linear = isinstance(module, nn.Linear)
        if getattr(module, "groups", 1) > 1 or (group and linear == (group in self.places)):
            raise TypeError(f"units of module {name!r} ({type(module).__name__}) are not known")
        if group:
            self.table[group].append((f"{name}.weight", 1, -1))
        bias = [] if module.bias is None else [(f"{name}.bias", 0, 1)]
        self.table[name] = [(f"{name}.weight", 0, 1), *bias]
        if not linear:
            self.places.add(name)
        return name

    def merged(self, group: str | None, inner: str | None) -> str | None:
        """Make the units that a way around adds up one group; fixed where one end is."""
        if group != inner:
            found = self.table.pop(inner)
            if group is not None:
                self.table[group] += found
        return group


def permute(model: nn.Module, seed: int = 0) -> nn.Module:
    """Shuffle the hidden units (channels) of every layer; the function stays the same.

    Parameters
    ----------
    model : nn.Module
        A network whose ``units`` are known.
    seed : int
        Seed of the draw.

    Returns
    -------
    nn.Module
        A new network; `model` is untouched.

    Raises
    ------
    TypeError
        As ``units``.
    """
    return _moved(model, lambda d, rng: (rng.permutation(d), np.ones(d)), seed)


def rescale(model: nn.Module, seed: int = 0) -> nn.Module:
    """Multiply every hidden unit (channel) by a positive number and divide it out where it is read.

    Preserves the function for identity, ReLU and LeakyReLU, where sigma(c x) = c sigma(x). Batch
    normalisation is rescaled behind its own scale. Parameters and return value as in ``permute``.

    Raises
    ------
    TypeError
        As ``permute``, and for another activation.
    """
    for module in model.modules():
        if (isinstance(module, tuple(ACTIVATIONS.values()))
                and not isinstance(module, _HOMOGENEOUS)):
            raise TypeError(f"rescaling units changes a network with {type(module).__name__}; "
                            f"it preserves identity, ReLU and LeakyReLU networks only")
    return _moved(model, lambda d, rng: (np.arange(d), np.exp(rng.normal(0, 1, d))), seed)


def _moved(model: nn.Module, draw, seed: int) -> nn.Module:
    table, rng = hidden_units(model), np.random.default_rng(seed)
    model = deepcopy(model)
    state = model.state_dict()  # the model's own storage
    for rows in table.values():
        first, axis, _ = rows[0]
        order, scale = map(torch.from_numpy, draw(state[first].shape[axis], rng))
        for name, axis, power in rows:
            values = state[name].double().movedim(axis, 0).unflatten(0, (len(order), -1))
            moved = values[order] * scale.view(-1, *[1] * (values.ndim - 1)) ** power
            state[name].copy_(moved.flatten(0, 1).movedim(0, axis))
    return model


def intertwine(model: nn.Module, seed: int = 0) -> nn.Module:
    """Apply a random element of each activation's intertwiner group (paper, section 2.3).

    Identity: any invertible matrix. ReLU, LeakyReLU: permutation and positive rescaling.
    Sigmoid, GELU: permutation. Tanh: permutation and signs. These have phi(A) = A. Gaussian
    (permutation and signs, phi(A) = abs(A)) and Square (permutation and scaling of either sign,
    phi(A) = A squared entrywise) do not, and the chain does not survive them.
    Parameters and return value as in ``permute``.

    Raises
    ------
    TypeError
        As ``permute``, and for an activation whose group is not known.
    """
    def draw(activation):
        if type(activation) not in INTERTWINERS:
            raise TypeError(f"intertwiner group of {type(activation).__name__} not known; known: "
                            f"{', '.join(c.__name__ for c in INTERTWINERS)}")
        return INTERTWINERS[type(activation)]

    return _transform(model, seed, draw)


def _transform(model: nn.Module, seed: int, group) -> nn.Module:
    linear_layers(model)  # refuses what cannot be read, before it is copied
    model, rng = deepcopy(model), np.random.default_rng(seed)
    layers = linear_layers(model)
    if any(is_parametrized(layer) for layer, _ in layers):
        raise TypeError("weights that are computed from others cannot be changed in place")
    if len({id(layer) for layer, _ in layers}) < len(layers):
        raise TypeError("a linear layer stands in two places: its weights cannot change in one")
    with torch.no_grad():
        for (before, activation), (after, _) in zip(layers, layers[1:]):
            draw, phi = group(activation or nn.Identity())
            a = draw(before.out_features, rng)
            undo = torch.from_numpy(np.linalg.inv(phi(a)))
            a = torch.from_numpy(a)
            # nn.Linear stores (out, in): x W A is weight -> A' weight.
            before.weight.copy_(a.T @ before.weight.double())
            if before.bias is not None:
                before.bias.copy_(before.bias.double() @ a)
            after.weight.copy_(after.weight.double() @ undo.T)
    return model


# Changes of basis of a representation X -> X A + c, as (A, c) for `d` units.
_CHANGES: dict[str, Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
    "permutation": lambda d, rng: (_permutation(d, rng), np.zeros(d)),
    "rotation": lambda d, rng: (_rotation(d, rng), np.zeros(d)),
    "isotropic scale": lambda d, rng: (np.exp(rng.normal()) * np.eye(d), np.zeros(d)),
    "translation": lambda d, rng: (np.eye(d), rng.normal(0, 3, d)),
    "unit rescaling": lambda d, rng: (_rescaling(d, rng), np.zeros(d)),
    "invertible map": lambda d, rng: (_invertible(d, rng), np.zeros(d)),
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
    """
    a, c = _CHANGES[nearest(name, CHANGES, "change of basis")](d, np.random.default_rng(seed))
    return torch.from_numpy(a), torch.from_numpy(c)


def rebase(model: nn.Sequential, name: str, seed: int = 0) -> nn.Sequential:
    """Change the basis of the last hidden representation, undone by the layer after it.

    The new network holds one more linear layer, right after the last activation, that applies
    X -> X A + c (see ``change_of_basis``); the output layer takes A^-1 and the matching bias, so
    the function is the same for every activation.

    Parameters
    ----------
    model : nn.Sequential
        A fully connected network with at least one hidden layer.
    name, seed
        As in ``change_of_basis``.

    Returns
    -------
    nn.Sequential
        A new network, its weights float64; ``network[:-1]`` gives the changed representation.

    Raises
    ------
    TypeError
        For a network whose layers cannot be read off, or whose last module is not linear.
    ValueError
        For an unknown name.
    """
    model, last = _copied(model)
    a, c = change_of_basis(name, last.in_features, seed)
    change = nn.Linear(len(a), len(a), dtype=torch.float64)
    output = nn.Linear(last.in_features, last.out_features, dtype=torch.float64)
    with torch.no_grad():
        change.weight.copy_(a.T)
        change.bias.copy_(c)
        output.weight.copy_(last.weight @ torch.linalg.inv(a).T)
        output.bias.copy_(0 if last.bias is None else last.bias)
        output.bias.sub_(c @ output.weight.T)
    return nn.Sequential(*model[:-1], change, output)


def _copied(model: nn.Sequential) -> tuple[nn.Sequential, nn.Linear]:
    """Copy of a fully connected network, its weights float64; and its last layer."""
    linear_layers(model)
    if not isinstance(model[-1], nn.Linear):
        raise TypeError(f"wanted a network that ends in nn.Linear, got {type(model[-1]).__name__}")
    model = deepcopy(model).double()
    return model, cast(nn.Linear, model[-1])


def map_outputs(model: nn.Sequential, seed: int = 0) -> nn.Sequential:
    """Multiply the outputs by a random invertible matrix. This does change the function.

    Parameters, return value and errors as in ``rebase``.
    """
    model, last = _copied(model)
    a = torch.from_numpy(_invertible(last.out_features, np.random.default_rng(seed)))
    with torch.no_grad():
        last.weight.copy_(a.T @ last.weight)
        if last.bias is not None:
            last.bias.copy_(last.bias @ a)
    return model


def redraw_silent_weights(model: nn.Module, inputs: Tensor, seed: int = 0) -> nn.Module:
    """Draw anew, as at initialisation, the weights of input coordinates that are always zero.

    Parameters
    ----------
    model : nn.Module
        A fully connected ``nn.Sequential``.
    inputs : Tensor
        (n, p); the network's outputs on these inputs stay as they were, to the last bit.
    seed : int
        Seed of the draw.

    Returns
    -------
    nn.Module
        A new network.

    Raises
    ------
    TypeError
        For a network whose layers cannot be read off (see ``chain``).
    """
    model, rng = deepcopy(model), np.random.default_rng(seed)
    first = linear_layers(model)[0][0]
    silent = ~inputs.flatten(1).any(0)
    bound = first.in_features**-0.5
    drawn = rng.uniform(-bound, bound, (first.out_features, int(silent.sum())))
    with torch.no_grad():
        first.weight[:, silent] = torch.from_numpy(drawn).to(first.weight)
    return model


# What may be done to a network, as (model, inputs, seed) -> model; similarity.INVARIANCES says
# which measure does not notice.
TRANSFORMATIONS: dict[str, Callable[..., nn.Module]] = {
    **{name: lambda model, inputs, seed, name=name: rebase(model, name, seed) for name in CHANGES},
    "intertwiner": lambda model, inputs, seed: intertwine(model, seed),
    "output map": lambda model, inputs, seed: map_outputs(model, seed),
    "silent weights": redraw_silent_weights,
}
