"""Networks of any architecture in files, compared by the Jacobians of skeletons."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .building import Architecture, built, factory, loaded, modules_here
from .caller import untouched
from .chains import comparable_chain
from .chance import beside_untrained
from .checkpoints import Checkpoint
from .file_group import FileGroup

# Weights of all untrained networks of any architecture.
_AFFORDABLE = 1e8


@modules_here()  # the user's modules may import others whenever they run
def compare_architectures(
    files: FileGroup, architectures: list[str], input_shape: Any,
    freeze: Sequence[str], by_layer: bool, networks: int,
) -> dict[str, Any]:
    """Compare networks of known architectures by the Jacobians of their skeletons.

    Parameters
    ----------
    files : FileGroup
        It loses the files of a folder that do not fit.
    architectures : list of str
        One for all files, or one for each.
    input_shape, freeze, by_layer, networks
        As in ``comparison.compare_files``.

    Returns
    -------
    dict
        What ``comparison.compare_files`` says of its networks.

    Raises
    ------
    ValueError
        For another number of architectures, an unknown one, or no shape of an input.
    TypeError
        For an architecture that has no chain.

    Examples
    --------
    >>> compare_architectures(FileGroup(), ["a:b"] * 3, None, (), False, 3)
    Traceback (most recent call last):
    ValueError: --arch: wanted one for all files, or one for each of the 0 files, got 3
    """
    number = len(files.fitting)
    if len(architectures) not in (1, number):
        raise ValueError(
            f"--arch: wanted one for all files, or one for each of the {number} "
            f"files, got {len(architectures)}")
    if len(architectures) == 1:
        architectures = architectures * number
    builders = files.results(lambda file, name: factory(name, file), architectures)
    shape = _checked_shape(input_shape, architectures)
    networks_of_files = files.results(_loaded_network, builders)
    builders = [network.architecture for network in networks_of_files]
    trained = [network.model for network in networks_of_files]
    untrained = _untrained_models(builders, trained, networks)
    chains = _Chains(shape, freeze)
    trained_chains = chains.of(trained)
    chain_shape = tuple(trained_chains[0].shape)
    table = beside_untrained(trained_chains, chains.of_untrained(untrained))
    del trained_chains  # as large as all networks together, or larger
    layer_tables = chains.layer_tables(trained, untrained) if by_layer else {}
    assumed = [_wiring(builders, shape)]
    for network in networks_of_files:
        assumed += network.notes
    return {
        "assumed": [*assumed, *files.notes()],
        "chains": {},
        "undecided": "",
        "all": table,
        "chance": "untrained",
        "untrained": len(untrained),
        "layers": layer_tables,
        "shape": chain_shape,
        "without layers": _reason_for_no_layers(layer_tables, by_layer),
    }


def _checked_shape(input_shape: Any, architectures: list[str]) -> tuple[int, ...]:
    """Return the shape of one input, which is known for torchvision's networks."""
    others = [name for name in architectures if not name.startswith("torchvision:")]
    if input_shape is None and others:
        raise ValueError(
            f"--arch {others[0]} needs --input-shape, for example 1 28 28")
    shape = tuple(input_shape or (3, 224, 224))
    if min(shape) < 1:
        raise ValueError(f"--input-shape: wanted numbers from 1 up, got {list(shape)}")
    return shape


@dataclass(frozen=True)
class _Network:
    """A file's network, and what was noted when it was loaded."""

    architecture: Architecture
    model: nn.Module
    notes: list[str]


def _loaded_network(file: Checkpoint, architecture: Architecture) -> _Network:
    """Build a network, and load a file's weights into it."""
    with untouched(None):  # which keeps the caller's random state
        model, notes = loaded(architecture, file)
    return _Network(architecture, model, [f"{file.name}: {note}" for note in notes])


@dataclass(frozen=True)
class _Chains:
    """Chains of networks for inputs of one shape."""

    shape: tuple[int, ...]
    freeze: Sequence[str]

    def of(self, models: list[nn.Module], layer: str | None = None) -> list[Tensor]:
        """Return the chains of networks, up to a layer or to the end."""
        chains = []
        for model in tqdm(models, "networks", leave=False, delay=2, disable=None):
            chains.append(comparable_chain(
                model, self.shape, freeze=self.freeze, layer=layer,
                dtype=torch.float32))
        return chains

    def of_untrained(
        self, models: list[nn.Module], layer: str | None = None,
    ) -> list[Tensor]:
        """Return the chains of untrained networks; none if one of them has none."""
        # What untrained networks do never decides whether files can be compared.
        try:
            return self.of(models, layer)
        except (TypeError, ValueError, RuntimeError):
            return []

    def layer_tables(
        self, trained: list[nn.Module], untrained: list[nn.Module],
    ) -> dict[str, Any]:
        """Return a table for each module at the top that holds weights, by its name."""
        tables = {}
        for name, child in trained[0].named_children():
            if _has_matrix(child):
                with contextlib.suppress(TypeError, ValueError):  # no units come out
                    tables[name] = beside_untrained(
                        self.of(trained, name), self.of_untrained(untrained, name))
        return tables


def _wiring(architectures: list[Architecture], shape: tuple[int, ...]) -> str:
    """Return a sentence on what tells how the layers are connected."""
    names = " and ".join(dict.fromkeys(build.name for build in architectures))
    return f"wired as {names} is, for inputs of shape {shape}"


def _reason_for_no_layers(layer_tables: dict[str, Any], by_layer: bool) -> str:
    """Return why networks are not compared layer by layer; "" if they are."""
    if layer_tables:
        return ""
    if by_layer:
        return "none of its modules puts out units"
    return "--layers asks for it"


def _untrained_models(
    builders: list[Architecture], trained: list[nn.Module], networks: int,
) -> list[nn.Module]:
    """Build networks as they are initialised, of the files' architectures in turn."""
    # Sorted, so that chance does not depend on the order of the files.
    kinds = sorted(set(builders))
    largest = max(1, *map(_number_of_parameters, trained))
    affordable = min(networks, int(_AFFORDABLE // largest))
    # At least two of every kind.
    count = max(3, 2 * len(kinds), affordable)
    untrained = []
    with untouched(None):  # which keeps the caller's random state
        for seed in range(count):
            torch.manual_seed(seed)
            untrained.append(built(kinds[seed % len(kinds)]))
    return untrained


def _number_of_parameters(model: nn.Module) -> int:
    return sum(values.numel() for values in model.parameters())


def _has_matrix(module: nn.Module) -> bool:
    return any(values.ndim > 1 for values in module.parameters())
