"""Networks of a named architecture, with the weights of a checkpoint."""

import importlib
import inspect
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..measures.spelling import printable
from .checkpoints import (
    Checkpoint,
    is_beside,
    is_integer,
    read_tensor,
    shape_of,
    without_wrappers,
)
from .messages import chosen, listed, one_line


@dataclass(frozen=True, order=True)
class Architecture:
    """A function that builds networks; equal to others by its name and its options.

    Examples
    --------
    >>> build = Architecture("torch.nn:Linear", (("in_features", 3),), nn.Linear)
    >>> build == Architecture("torch.nn:Linear", (("in_features", 4),), nn.Linear)
    False
    """

    name: str
    options: tuple[tuple[str, int], ...]
    function: Callable[..., nn.Module] = field(compare=False)

    def __call__(self) -> nn.Module:
        return self.function(**dict(self.options))


@contextmanager
def modules_here() -> Iterator[None]:
    """Have Python look for modules in the folder where the user stands, for a while.

    Examples
    --------
    >>> before = list(sys.path)
    >>> with modules_here():
    ...     sys.path == ["", *before]
    True
    >>> sys.path == before
    True
    """
    sys.path.insert(0, "")
    try:
        yield
    finally:
        with suppress(ValueError):  # what a module of theirs has added stays
            sys.path.remove("")


def factory(name: str, checkpoint: Checkpoint) -> Architecture:
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
        return _torchvision_architecture(function, checkpoint)
    try:
        build = getattr(importlib.import_module(place), function)
    except (Exception, SystemExit) as error:  # whatever is wrong with their module
        raise ValueError(
            f"--arch {name}: wanted torchvision:NAME or module:function "
            f"({one_line(error)})") from None
    return Architecture(name, _outputs_as_options(checkpoint, build), build)


def _outputs_as_options(
    checkpoint: Checkpoint, build: Callable[..., nn.Module],
) -> tuple[tuple[str, int], ...]:
    """Return the number of a checkpoint's outputs for a function that takes it."""
    try:
        takes_it = "num_classes" in inspect.signature(build).parameters
    except (TypeError, ValueError):  # a callable without a signature
        takes_it = False
    outputs = _number_of_outputs(checkpoint)
    if not takes_it or outputs is None:
        return ()
    return (("num_classes", outputs),)


def _number_of_outputs(checkpoint: Checkpoint) -> int | None:
    """Return the number of rows of the last weight, if the order is known."""
    shapes = [shape_of(values) for name, values in checkpoint.weights.items()
              if not is_beside(name) and shape_of(values)]
    return shapes[-1][0] if checkpoint.ordered and shapes else None


def _torchvision_architecture(function: str, checkpoint: Checkpoint) -> Architecture:
    """Return the function that builds a classifier of torchvision for a checkpoint."""
    try:
        import torchvision
    except ModuleNotFoundError:
        raise ValueError(
            "--arch torchvision:NAME needs the package 'torchvision': "
            "pip install 'wcka[experiments]'") from None
    known = torchvision.models.list_models(torchvision.models)
    chosen(function, known, "network of torchvision")
    builder = torchvision.models.get_model_builder(function)
    options: dict[str, int] = {}
    # Auxiliary heads take no part once a network is trained, and many files lack them.
    if function in ("googlenet", "inception_v3"):
        options["aux_logits"] = any(map(_is_auxiliary, checkpoint.weights))
        options["init_weights"] = False
    # The last tensor has a row per output. The meta device builds names without
    # numbers.
    with torch.device("meta"):
        expected = builder(weights=None, **options).state_dict()
    required = [name for name in expected if not _is_optional(name, expected)]
    naming = best_naming(checkpoint.weights, required, checkpoint.name)
    last = naming.label(required[-1])
    if last not in checkpoint.weights:
        raise _misfit(checkpoint.name, checkpoint.weights, required, naming)
    options["num_classes"] = shape_of(checkpoint.weights[last])[0]

    def build(**options: int) -> nn.Module:
        with torch.device("cpu"):
            network: nn.Module = builder(weights=None, **options)
        return network

    name = f"torchvision:{function}"
    return Architecture(name, tuple(options.items()), build)


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
    except (Exception, SystemExit) as error:  # whatever is wrong with their function
        kind = type(error).__name__
        raise ValueError(
            f"--arch: cannot be built ({kind}: {one_line(error)})") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"--arch: wanted an nn.Module, got {type(model).__name__}")
    return model


def loaded(
    build: Callable[[], nn.Module], checkpoint: Checkpoint,
) -> tuple[nn.Module, list[str]]:
    """Return a network of an architecture with a checkpoint's weights, in eval mode.

    Names may have any prefix that makes all names of the architecture fit. Losses,
    metrics and counters beside the weights are left out. Linear layers with another
    number of outputs are made anew.

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
    ([[1.0, 1.0]], ["'module.' at the start of names is dropped"])
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
    required = [name for name in expected if not _is_optional(name, expected)]
    naming = best_naming(weights, required, checkpoint.name)
    prefix = naming.file_prefix
    if prefix:
        notes.append(f"{printable(prefix)!r} at the start of names is dropped")
    state = {}
    for name in expected:
        if naming.label(name) in weights:
            state[name] = read_tensor(weights[naming.label(name)])
    unused = sorted(set(weights) - set(map(naming.label, expected)))
    foreign = _foreign(weights, unused)
    if foreign or not set(required) <= set(state):
        raise _misfit(checkpoint.name, weights, required, naming)
    if unused:
        notes.append(f"left out {listed(unused)}")
    _fit_outputs(model, state)
    _load(model, state, checkpoint, naming)
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


def _foreign(weights: Mapping[str, Any], unused: Iterable[str]) -> list[str]:
    """Return the unused names of a file that may be those of weights."""
    return [name for name in unused if not _may_be_left_out(name, weights[name])]


@dataclass(frozen=True)
class Naming:
    """How a file calls the weights of an architecture.

    Attributes
    ----------
    file_prefix : str
        What stands before the names in the file.
    model_prefix : str
        What stands before the names in the architecture alone, where it wraps the
        network that was saved.

    Examples
    --------
    >>> Naming(file_prefix="net.").label("fc.weight")
    'net.fc.weight'
    >>> Naming(model_prefix="network.").label("network._orig_mod.fc.weight")
    'fc.weight'
    """

    file_prefix: str = ""
    model_prefix: str = ""

    def label(self, name: str) -> str:
        """Return the name in the file of a weight, or of a module, of the model."""
        plain = without_wrappers(name)
        return self.file_prefix + plain.removeprefix(self.model_prefix)


def best_naming(
    weights: Mapping[str, Any], expected: list[str], file: str,
) -> Naming:
    """Return the naming by which a file holds the most of the names of a model.

    Parameters
    ----------
    weights : mapping
        The file's weights by name.
    expected : list of str
        Names of an architecture.
    file : str
        The file's name, for messages.

    Returns
    -------
    Naming
        Without prefixes where a file holds fewer than half of the names.

    Raises
    ------
    ValueError
        If all names are in the file under several prefixes.

    Examples
    --------
    >>> weights = {"net.fc.weight": 0, "net.fc.bias": 0, "loss.weight": 0}
    >>> best_naming(weights, ["fc.weight", "fc.bias"], "a.pt")
    Naming(file_prefix='net.', model_prefix='')
    """
    plain = [without_wrappers(name) for name in expected]
    matches: Counter[Naming] = Counter()
    for model_prefix in _shared_prefixes(plain):
        inner = {name.removeprefix(model_prefix) for name in plain}
        for label in weights:
            for prefix in _prefixes(label):
                if label.removeprefix(prefix) in inner:
                    matches[Naming(prefix, model_prefix)] += 1

    def fit(naming: Naming) -> tuple[int, bool, bool]:
        # Of namings that fit alike, the one that takes less off.
        return matches[naming], not naming.model_prefix, not naming.file_prefix

    best = max(matches, key=fit, default=Naming())
    if 2 * matches[best] < len(plain):
        return Naming()
    prefixes = [naming.file_prefix for naming in matches if fit(naming) == fit(best)]
    if len(prefixes) > 1 and matches[best] == len(plain):
        raise ValueError(
            f"{file}: holds several networks of this architecture: "
            f"{listed(prefixes)}; save the one that is meant by itself")
    return best


def _prefixes(name: str) -> list[str]:
    """List all beginnings of a name that end at a dot, and the empty one."""
    return ["", *(name[:i + 1] for i, letter in enumerate(name) if letter == ".")]


def _shared_prefixes(names: list[str]) -> list[str]:
    """List all beginnings that names have in common and that end at a dot."""
    prefixes = []
    for prefix in _prefixes(names[0]) if names else []:
        if all(name.startswith(prefix) for name in names):
            prefixes.append(prefix)
    return prefixes


def _misfit(
    file: str, weights: Mapping[str, Any], required: list[str], naming: Naming,
) -> ValueError:
    """Return the error that names what a file lacks, and what else it holds."""
    labels = [naming.label(name) for name in required]
    absent = [label for label in labels if label not in weights]
    foreign = _foreign(weights, sorted(set(weights) - set(labels)))
    reasons = []
    if absent:
        reasons.append(f"no {listed(absent)} in it")
    if foreign:
        reasons.append(f"it also holds {listed(foreign)}")
    return ValueError(f"{file}: not of this architecture ({'; '.join(reasons)})")


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
    model: nn.Module, state: dict[str, Tensor], checkpoint: Checkpoint, naming: Naming,
) -> None:
    """Load weights, with the versions of the modules that made them."""
    versions = dict(getattr(model.state_dict(), "_metadata", {}))
    if checkpoint.metadata:  # else the file is of a kind that has none: take today's
        for module in versions:
            label = naming.label(f"{module}.".lstrip(".")).rstrip(".")
            versions[module] = checkpoint.metadata.get(label, {})
    try:
        # Names of all weights were checked; modules may ask for the versions.
        versioned: Any = OrderedDict(state)
        versioned._metadata = versions
        model.load_state_dict(versioned, strict=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = _misshapen(model, state, naming) or _second_line(error)
        raise ValueError(
            f"{checkpoint.name}: not of this architecture ({reason})") from None


def _misshapen(
    model: nn.Module, state: Mapping[str, Tensor], naming: Naming,
) -> str:
    """Return which weights have another shape than the model's; "" if none has."""
    reasons = []
    for name, values in model.state_dict().items():
        given = state.get(name, values)
        if isinstance(values, Tensor) and given.shape != values.shape:
            reasons.append(
                f"{naming.label(name)} is {tuple(given.shape)} in it and "
                f"{tuple(values.shape)} in the architecture")
    return listed(reasons)


def _second_line(error: Exception) -> str:
    """Return the line of an error of ``load_state_dict`` that says why it failed."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[min(1, len(lines) - 1)].strip()[:200])
