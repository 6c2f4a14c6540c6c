"""Table of a network's hidden units: which axes of which weights share them.

To permute or rescale a hidden unit, all weights that write or read it must change
together. A walk through the network finds them, from the inputs to the outputs.
"""

import sys
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from .chains import hooked
from .layers import ACTIVATIONS, PatchConv2d, Residual

# One group of hidden units that are permuted together, under the name of the layer that
# writes them: every axis of every tensor in the network's state that runs over these
# units, as (name of the tensor, axis, power). Scaling the units by c multiplies the
# tensor by c ** power along that axis: 1 where it writes the units, -1 where it reads
# them, and 0 where it does not notice their scale.
Units = dict[str, list[tuple[str, int, int]]]


def hidden_units(model: nn.Module) -> Units:
    """Return a table of hidden units: which axes of which weights share them.

    Parameters
    ----------
    model : nn.Module
        An ``nn.Sequential``, or a ResNet of torchvision, of linear layers,
        convolutions, batch normalisation, residual connections, pooling and
        activations.

    Returns
    -------
    dict of str to list of (str, int, int)
        For every group of units (name in the state, axis, power of the scale). Where
        one entry of a group stands for r entries of an axis, as where channels are
        flattened, these are consecutive. A residual connection makes its two ends one
        group.

    Raises
    ------
    TypeError
        For another module, a grouped convolution, normalisation without a gain or at
        the start of a residual branch, weights that are computed, hooks, or a layer
        that stands in two places.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> hidden_units(network)
    {'0': [('0.weight', 0, 1), ('0.bias', 0, 1), ('2.weight', 1, -1)]}
    """
    owners: set[int] = set()
    for _, module in model.named_modules(remove_duplicate=False):
        if not (module._parameters or module._buffers):
            continue
        if id(module) in owners:
            raise TypeError(
                "a layer stands in two places: its weights cannot change in one")
        owners.add(id(module))
    walk = _Walk()
    output_group = walk.into(model, "", None, None)
    walk.table.pop(output_group, None)  # the network's outputs are no hidden units
    return walk.table


# Modules that act on every unit alone, and modules that act on places, one channel at a
# time: a permutation of units or channels passes through both.
_UNITWISE: tuple[type[nn.Module], ...] = (
    nn.Dropout, nn.Dropout2d, *ACTIVATIONS.values())
_SPATIAL = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def _is(module: nn.Module, known: tuple[type[nn.Module], ...]) -> bool:
    """Tell whether a module is of a class, and does no more than that class."""
    if hooked(module) or is_parametrized(module):
        return False
    for kind in known:
        # A subclass may have a forward of its own, which may do anything.
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return True
    return False


def _unknown(module: nn.Module, name: str) -> TypeError:
    kind = type(module).__name__
    return TypeError(f"units of module {name!r} ({kind}) are not known")


class _Walk:
    """A walk through a network, from the inputs on, that fills a table of hidden units.

    The walk carries the *group* of units that flows along: the name of the layer that
    wrote them, or None for the network's inputs, whose order is fixed. A linear layer
    or convolution reads the group that comes in (axis 1 of its weight) and starts a new
    one (axis 0 of its weight, and its bias). Batch normalisation has one entry per unit
    of the group that comes in, and passes the group on, as activations and pooling do.

    A residual connection adds what a branch makes to what came in, unit by unit. Both
    ends can then be permuted only together: their two groups become one.

    A module that is not known stops the walk with an error, because what it does to
    units is not known either.
    """

    def __init__(self) -> None:
        # The inputs' group, None, is never a key.
        self.table: dict[Any, list[tuple[str, int, int]]] = {}
        # Groups that are channels of images. A convolution must read channels, a linear
        # layer must not: flattening takes the group out of this set.
        self.channels: set[str | None] = set()
        self.sequences: tuple[type[nn.Module], ...] = (nn.Sequential,)
        self.resnets: tuple[type[nn.Module], ...] = ()
        self.residuals: tuple[type[nn.Module], ...] = (Residual,)
        # A network of torchvision exists only where torchvision has been imported, and
        # the library works without it.
        resnet = sys.modules.get("torchvision.models.resnet")
        if resnet:
            self.sequences += (resnet.ResNet,)
            self.resnets += (resnet.ResNet,)
            self.residuals += (resnet.BasicBlock, resnet.Bottleneck)

    def into(
        self, module: nn.Module, name: str, group: str | None, shortcut: str | None,
    ) -> str | None:
        """Walk through a module, and return the group that it puts out.

        Parameters
        ----------
        module, name
            The module and its name in the network.
        group
            The group of units that the module reads.
        shortcut
            The group that came in at the innermost residual connection around the
            module.
        """
        if _is(module, self.sequences):
            return self.through_sequence(module, name, group, shortcut)
        if _is(module, self.residuals):
            return self.through_residual(module, name, group)
        if _is(module, (nn.Linear, nn.Conv2d, PatchConv2d)):
            return self.through_layer(module, name, group)
        norm = _is(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and bool(module.affine)
        # A normalisation at the start of a branch is not known: the units that it reads
        # also go around it, and cannot have one scale here and another there.
        if norm and group != shortcut:
            self.through_norm(module, name, group)
            return group
        if _is(module, (nn.Flatten,)) and _flattens_all(module):
            self.channels.discard(group)
            return group
        if not self.passes(module, group):
            raise _unknown(module, name)
        return group

    def through_sequence(
        self, module: nn.Module, name: str, group: str | None, shortcut: str | None,
    ) -> str | None:
        """Walk through modules that run one after the other."""
        for key, child, child_name in _children(module, name):
            if key == "fc" and _is(module, self.resnets):
                self.channels.discard(group)  # the ResNet flattens before this layer
            group = self.into(child, child_name, group, shortcut)
        return group

    def through_residual(
        self, module: nn.Module, name: str, group: str | None,
    ) -> str | None:
        """Walk through the branch and the way around it, and merge their groups."""
        inner = group
        for key, child, child_name in _children(module, name):
            if key == "downsample":  # a layer on the way around
                group = self.into(child, child_name, group, None)
            else:
                inner = self.into(child, child_name, inner, group)
        return self.merged(group, inner)

    def through_layer(self, module: nn.Module, name: str, group: str | None) -> str:
        """Enter a layer's weights: it reads one group, and writes a new one."""
        linear = isinstance(module, nn.Linear)
        grouped = getattr(module, "groups", 1) > 1
        # Channels that were not flattened stand on an axis that a linear layer does not
        # read; flat units have no places for a convolution to run over.
        misfit = bool(group) and linear == (group in self.channels)
        if grouped or misfit:
            raise _unknown(module, name)
        if group:
            self.table[group].append((f"{name}.weight", 1, -1))
        self.table[name] = [(f"{name}.weight", 0, 1)]
        if module.bias is not None:
            self.table[name].append((f"{name}.bias", 0, 1))
        if not linear:
            self.channels.add(name)
        return name

    def through_norm(self, module: nn.Module, name: str, group: str | None) -> None:
        """Enter a batch normalisation, which makes every unit forget its scale.

        What comes before it, and its running statistics, then need no scaling (power
        0); its gain and shift write the units anew, and take the scale.
        """
        rows = []
        for key, axis, _ in self.table[group]:
            rows.append((key, axis, 0))
        for key in module.state_dict():
            if key != "num_batches_tracked":
                rows.append((f"{name}.{key}", 0, int(key in ("weight", "bias"))))
        self.table[group] = rows

    def passes(self, module: nn.Module, group: str | None) -> bool:
        """Tell whether a module leaves the order of units as it is."""
        if _is(module, _UNITWISE):
            return True
        if group is None:  # the inputs: any shape will do before the first layer
            return _is(module, (*_SPATIAL, nn.Flatten, nn.Unflatten))
        return group in self.channels and _is(module, _SPATIAL)

    def merged(self, group: str | None, inner: str | None) -> str | None:
        """Make the two groups that a residual connection adds up one group.

        Where the network's inputs go around, their order fixes that of the branch's
        outputs, whose group leaves the table.
        """
        if group != inner:
            rows = self.table.pop(inner)
            if group is not None:
                self.table[group] += rows
        return group


def _children(module: nn.Module, name: str) -> list[tuple[str, nn.Module, str]]:
    """List a module's children: key, module, and name in the whole network."""
    children = []
    # Not named_children(): it lists a module that stands in two places only once.
    for key, child in module._modules.items():
        if child is not None:
            children.append((key, child, f"{name}.{key}".strip(".")))
    return children


def _flattens_all(module: nn.Module) -> bool:
    """Tell whether an ``nn.Flatten`` makes vectors of all that is in a batch."""
    return bool(module.start_dim == 1 and module.end_dim == -1)
