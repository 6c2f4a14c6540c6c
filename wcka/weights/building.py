"""Networks of a named architecture, with the weights of a checkpoint."""

import importlib
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..measures.spelling import first_line, nearest, printable
from .checkpoints import (
    Checkpoint,
    is_beside,
    is_integer,
    listed,
    read_tensor,
    shape_of,
)


def factory(name: str, checkpoint: Checkpoint) -> Callable[[], nn.Module]:
    """Return the function that builds the network of a checkpoint.

    Parameters
    ----------
    name : str
        ``torchvision:resnet18``, or ``module:function`` of the user's.
    checkpoint : Checkpoint
        Networks of torchvision are built with as many outputs, and with auxiliary heads
        only if it has them; so are the user's if the function takes ``num_classes``.

    Raises
    ------
    ValueError
        For a name that leads to no function.

    Examples
    --------
    >>> build = factory("torch.nn:Identity", Checkpoint("a.pt", {}))
    >>> build()
    Identity()
    """
    place, _, function = name.partition(":")
    if place == "torchvision":
        return _torchvision_factory(function, checkpoint)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the folder where the user stands
    try:
        build = getattr(importlib.import_module(place), function)
    except Exception as error:  # whatever is wrong with the user's module
        raise ValueError(
            f"--arch {name}: wanted torchvision:NAME or module:function "
            f"({first_line(error)})") from None
    return _with_outputs_of(checkpoint, build)


def _with_outputs_of(
    checkpoint: Checkpoint, build: Callable[..., nn.Module],
) -> Callable[[], nn.Module]:
    """Pass the number of a checkpoint's outputs on to a function that takes it."""
    try:
        takes_it = "num_classes" in inspect.signature(build).parameters
    except (TypeError, ValueError):  # a callable without a signature
        takes_it = False
    outputs = _number_of_outputs(checkpoint)
    if not takes_it or outputs is None:
        return build
    return lambda: build(num_classes=outputs)


def _number_of_outputs(checkpoint: Checkpoint) -> int | None:
    """Return the number of rows of the last weight, if the order is known."""
    shapes = [shape_of(values) for name, values in checkpoint.weights.items()
              if not is_beside(name) and shape_of(values)]
    return shapes[-1][0] if checkpoint.ordered and shapes else None


def _torchvision_factory(
    function: str, checkpoint: Checkpoint,
) -> Callable[[], nn.Module]:
    """Return the function that builds a classifier of torchvision for a checkpoint."""
    try:
        import torchvision
    except ModuleNotFoundError:
        raise ValueError(
            "--arch torchvision:NAME needs the package 'torchvision': "
            "pip install 'wcka[experiments]'") from None
    known = torchvision.models.list_models(torchvision.models)
    nearest(function, known, "network of torchvision")
    builder = torchvision.models.get_model_builder(function)
    options: dict[str, Any] = {}
    # Auxiliary heads take no part once a network is trained, and many files lack them.
    if function in ("googlenet", "inception_v3"):
        options["aux_logits"] = any(map(_is_auxiliary, checkpoint.weights))
        options["init_weights"] = False
    # The last tensor has a row per output. The meta device builds names without
    # numbers.
    with torch.device("meta"):
        expected = builder(weights=None, **options).state_dict()
    last = list(expected)[-1]
    try:
        names = fitted_names(checkpoint.weights, [last], checkpoint.name)
    except ValueError:
        raise ValueError(
            f"{checkpoint.name}: not of this architecture (no {last} in it)") from None
    options["num_classes"] = shape_of(checkpoint.weights[names[last]])[0]

    def build() -> nn.Module:
        with torch.device("cpu"):
            network: nn.Module = builder(weights=None, **options)
        return network

    return build


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """Call a function that builds a network, and check its result.

    Raises
    ------
    ValueError
        If the function fails or returns no network; on one line.

    Examples
    --------
    >>> built(nn.Identity)
    Identity()
    >>> built(dict)
    Traceback (most recent call last):
    ValueError: --arch: wanted an nn.Module, got dict
    """
    try:
        model = build()
    except Exception as error:  # whatever is wrong with the user's function
        kind = type(error).__name__
        raise ValueError(
            f"--arch: cannot be built ({kind}: {first_line(error)})") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"--arch: wanted an nn.Module, got {type(model).__name__}")
    return model


def loaded(
    build: Callable[[], nn.Module], checkpoint: Checkpoint,
) -> tuple[nn.Module, list[str]]:
    """Return a network of an architecture with a checkpoint's weights, in eval mode.

    Names may have any prefix that makes all names of the architecture fit. Losses,
    metrics and counters beside the weights are left out. A last layer with another
    number of outputs is made anew.

    Returns
    -------
    model : nn.Module
        The network.
    notes : list of str
        What was assumed.

    Raises
    ------
    ValueError
        If the weights are not those of the architecture, or not finite.

    Examples
    --------
    >>> checkpoint = Checkpoint("a.pt", {"module.weight": torch.ones(1, 2)})
    >>> model, notes = loaded(lambda: nn.Linear(2, 1, bias=False), checkpoint)
    >>> model.weight.tolist(), notes
    ([[1.0, 1.0]], ['names without module.'])
    """
    model = built(build)
    expected = model.state_dict()
    if any(values.is_meta for values in expected.values()):
        raise ValueError(
            "--arch: the network is on the meta device; its weights are not there")
    notes = []
    # A network that is itself pruned or reparametrised takes the parts as stored.
    in_parts = set(checkpoint.stored) - set(checkpoint.weights)
    stored_as_expected = any(
        name.endswith(part) for part in in_parts for name in expected)
    weights = checkpoint.stored if stored_as_expected else checkpoint.weights
    names = fitted_names(
        weights, [name for name in expected if not _is_optional(name, expected)],
        checkpoint.name)
    prefix = _prefix_of(names)
    if prefix:
        notes.append(f"names without {printable(prefix)}")
    state = {}
    for name in expected:
        label = names.get(name, f"{prefix}{name}")
        if label in weights:
            state[name] = read_tensor(weights[label])
    unused = set(weights) - {f"{prefix}{name}" for name in state} - set(names.values())
    foreign = []
    for name in sorted(unused):
        if not _may_be_left_out(name, weights[name]):
            foreign.append(name)
    if foreign:
        raise ValueError(
            f"{checkpoint.name}: not of this architecture (it also holds "
            f"{listed(foreign)})")
    if unused:
        notes.append(f"left out {listed(sorted(unused))}")
    _fit_outputs(model, state)
    _load(model, state, checkpoint, prefix)
    for name, values in model.state_dict().items():
        if not torch.isfinite(values).all():
            raise ValueError(f"{checkpoint.name}: {name} holds NaN or infinity")
    return model.eval(), notes


def _is_optional(name: str, expected: Mapping[str, Any]) -> bool:
    """Tell whether a network runs the same without an entry of its state."""
    return name.endswith("num_batches_tracked") or not isinstance(
        expected[name], Tensor)


def _may_be_left_out(name: str, values: Any) -> bool:
    """Tell whether an entry of a file is certainly no weight of the network."""
    return is_beside(name) or _is_auxiliary(name) or is_integer(values)


def _is_auxiliary(name: str) -> bool:
    """Tell whether a name is one of an auxiliary head, which takes no part."""
    return any(part.lower().startswith("aux") for part in name.split("."))


def fitted_names(
    weights: Mapping[str, Any], expected: list[str], file: str,
) -> dict[str, str]:
    """Return for each expected name the name in a file, under one prefix for all.

    Parameters
    ----------
    weights : mapping
        The file's weights by name.
    expected : list of str
        Names of an architecture.
    file : str
        The file's name, for messages.

    Raises
    ------
    ValueError
        If no prefix fits, or several do.

    Examples
    --------
    >>> fitted_names({"net.fc.weight": 0, "loss.weight": 0}, ["fc.weight"], "a.pt")
    {'fc.weight': 'net.fc.weight'}
    """
    if not expected:
        return {}
    first = expected[0]
    prefixes = []
    for label in weights:
        prefix = label.removesuffix(first)
        at_a_dot = prefix == "" or prefix.endswith(".")
        fits = label.endswith(first) and at_a_dot
        if fits and all(f"{prefix}{name}" in weights for name in expected):
            prefixes.append(prefix)
    if "" in prefixes or len(prefixes) == 1:
        prefix = "" if "" in prefixes else prefixes[0]
        return {name: f"{prefix}{name}" for name in expected}
    if prefixes:
        raise ValueError(
            f"{file}: holds several networks of this architecture: "
            f"{listed(prefixes)}; save the one that is meant by itself")
    # The architecture may wrap the network that was saved.
    wrapper = first.partition(".")[0] + "."
    inner = {name: name.removeprefix(wrapper) for name in expected}
    wrapped = all(name.startswith(wrapper) for name in expected)
    if wrapped and all(name in weights for name in inner.values()):
        return inner
    missing = [name for name in expected if name not in weights]
    raise ValueError(
        f"{file}: not of this architecture (no {listed(missing)} in it)")


def _prefix_of(names: Mapping[str, str]) -> str:
    """Return what stands in a file before the names of the architecture."""
    name, label = next(iter(names.items()), ("", ""))
    return label.removesuffix(name) if label.endswith(name) else ""


def _fit_outputs(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make linear layers anew that differ in their number of outputs alone.

    Networks with other classes are comparable: their chains have other columns.
    """
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear or not name:
            continue
        weight = state.get(f"{name}.weight")
        if weight is None or weight.ndim != 2:
            continue
        if weight.shape[1] == module.in_features and len(weight) != len(module.weight):
            parent, _, key = name.rpartition(".")
            layer = nn.Linear(
                module.in_features, len(weight), bias=module.bias is not None,
                device="cpu")
            setattr(model.get_submodule(parent), key, layer)


def _load(
    model: nn.Module, state: dict[str, Tensor], checkpoint: Checkpoint, prefix: str,
) -> None:
    """Load weights, with the versions of the modules that made them."""
    versions = {}
    for name, version in checkpoint.metadata.items():
        versions[str(name).removeprefix(prefix)] = version
    if not versions:  # the file is of a kind that has none: take today's
        versions = dict(getattr(model.state_dict(), "_metadata", {}))
    try:
        # Names of all weights were checked; modules may ask for the versions.
        versioned: Any = OrderedDict(state)
        versioned._metadata = versions
        model.load_state_dict(versioned, strict=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        # Where shapes differ the first line says that loading failed, the second why.
        lines = str(error).strip().splitlines()
        reason = lines[min(1, len(lines) - 1)].strip() if lines else ""
        raise ValueError(
            f"{checkpoint.name}: not of this architecture "
            f"({printable(reason[:200])})") from None
