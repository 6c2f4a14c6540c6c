"""Compare networks in files, layer by layer, against a floor of untrained networks.

Files are opened, and what is wrong with them is reported, before any work starts.
"""

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..measures.all_pairs import compare
from ..measures.spelling import printable
from .building import Architecture, built, factory, loaded
from .chains import comparable_chain
from .checkpoints import Checkpoint, read
from .formats import checkpoints_in, holds_one_network
from .messages import listed
from .wiring import Chain, Layer, UnknownOrder, chain_in, chain_of, chains_up_to

_Result = TypeVar("_Result")

# The version of what compare_files returns and --json prints: raised when a key changes
# its meaning.
SCHEMA = 2
# Multiplications from which a layer-by-layer comparison must be asked for.
_MANY = 2e12
# Weights of all untrained networks of any architecture.
_AFFORDABLE = 1e8
# Two readings of one file are the same if their similarities differ by less.
_SAME = 1e-6


def compare_files(
    paths: Sequence[str], arch: str | Sequence[str] | None = None,
    input_shape: Any = None, freeze: Sequence[str] = (), by_layer: bool = False,
    networks: int = 40, *, key: str | None = None, order: Sequence[str] = (),
    stored: str | None = None,
) -> dict[str, Any]:
    """Return the similarity of networks in files, layer by layer, and its floor.

    Parameters
    ----------
    paths : sequence of str
        At least two files, or one folder of them; see ``checkpoints.read``. Of a
        folder, files that cannot be compared with the others are left out.
    arch : str or sequence of str, optional
        An architecture, or one for each file; see ``building.factory``. By default the
        files are fully connected networks.
    input_shape : sequence of int, optional
        See ``chain``; (3, 224, 224) for torchvision's networks by default.
    freeze : sequence of str
        See ``chain``.
    by_layer : bool
        Compare all layers even where that takes long: in wide networks, and in any
        architecture (there the outputs of its top-level modules that hold weights,
        averaged over places).
    networks : int
        Number of random networks that make the floor, of the files' shapes in turn;
        fewer if they are large or not fully connected.
    key, order, stored
        Where the weights stand in each file, which layers make the chain in which
        order, and how matrices are stored, where files do not say; see
        ``checkpoints.read`` and ``wiring.chain_in``.

    Returns
    -------
    dict
        - "schema": 2, the version of this list.
        - "files": their names.
        - "left out": the files of a folder that do not fit, each with the reason.
        - "assumed": sentences on what was assumed to read the files, in order.
        - "chains": by file, the layers that were multiplied, each with its "name",
          "inputs" and "outputs"; empty with an architecture.
        - "undecided": the reason why there is no value though the files were read; "".
        - "all": the tables "wcka" (N, N) and "floor", the "mean" and the "highest"
          value over pairs of untrained networks (both NaN if these have none).
        - "layers": the same for the chain up to each layer, by name.
        - "without layers": the reason why there are none, or "".
        - "untrained": the number of untrained networks.
        - "shape": that of the first file's chain.
        - "seconds": the time that all took.
        - "peak memory" of the process in bytes, "memory before" the files were opened
          (both 0 on systems that do not count it), and the most that can be "mapped" of
          them, which the system takes back where it is short of memory.

    Raises
    ------
    ValueError
        For bad files, before any work; for matrices that are known to be no chain; for
        weights that are not finite.
    TypeError
        For an architecture that has no chain.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    ...     path = f"{folder}/network.pt"
    ...     torch.save(nn.Linear(4, 3).state_dict(), path)
    ...     result = compare_files([path, path])
    >>> result["shape"], round(result["all"]["wcka"][0][1], 6)
    ((4, 3), 1.0)
    """
    start = time.perf_counter()
    memory_before = _peak_memory()
    architectures = [arch] if isinstance(arch, str) else list(arch or [])
    if not architectures and (freeze or input_shape):
        raise ValueError(
            "--freeze and --input-shape are for --arch: fully connected networks need "
            "neither")
    if architectures and (order or stored):
        raise ValueError(
            "--order and --stored are for fully connected networks: --arch knows both")
    files = _read_all(paths, key)
    if architectures:
        result = _compare_any(
            files, architectures, input_shape, freeze, by_layer, networks)
    else:
        result = _compare_fully_connected(files, by_layer, networks, order, stored)
    names = [file.name for file in files.fitting]
    return {
        "schema": SCHEMA,
        "files": names,
        "left out": files.left_out,
        **result,
        "seconds": time.perf_counter() - start,
        "memory before": memory_before,
        "peak memory": _peak_memory(),
        "mapped": sum(map(_size, dict.fromkeys(names))),
    }


def _size(path: str) -> int:
    """Return how many bytes a file, or a folder's files, hold; 0 if it is gone."""
    place = Path(path)
    files = place.iterdir() if place.is_dir() else [place]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return sum(sizes)


@dataclass
class _Files:
    """Files to compare, and those that were left out.

    Of a folder, which may hold anything, the files are taken that can be compared with
    one another. A file that the caller names must be comparable.

    Attributes
    ----------
    folder : str
        The folder's name; "" for files that the caller names.
    fitting : list of Checkpoint
        What is to be compared, as far as is known by now.
    left_out : dict
        By the name of a file, the reason why it cannot be compared.
    """

    folder: str = ""
    fitting: list[Checkpoint] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, name: str, error: ValueError) -> None:
        """Leave a file out for a reason, or refuse it if the caller names it."""
        if not self.folder:
            raise error
        reason = str(error).removeprefix(name).removeprefix(":")
        self.left_out[name] = reason.strip()

    def results(self, function: Callable[..., _Result], *columns: Any) -> list[_Result]:
        """Return a function's result for each file, and leave out those it refuses.

        `columns` hold further arguments, one for each file.
        """
        results = []
        fitting = []
        for file, *values in zip(list(self.fitting), *columns):
            try:
                results.append(function(file, *values))
                fitting.append(file)
            except ValueError as error:
                self.leave_out(file.name, error)
        self.fitting = fitting
        self.check_number()
        return results

    def check_number(self) -> None:
        """Refuse fewer than two files, with the reasons why others are left out."""
        if len(self.fitting) >= 2:
            return
        reasons = list(dict.fromkeys(self.left_out.values()))
        if not self.fitting and len(reasons) == 1:
            raise ValueError(f"{self.folder}: no file in it fits: {reasons[0]}")
        message = "wanted at least two files"
        if self.folder:
            names = [Path(file.name).name for file in self.fitting]
            message = (
                f"{self.folder}: wanted at least two files that can be compared, got "
                f"{listed(names) or 'none'}")
        lines = []
        for name, reason in self.left_out.items():
            lines.append(f"{Path(name).name}: {reason}")
        if lines:
            message += f" (left out {listed(lines, most=8)})"
        raise ValueError(message)


def _read_all(paths: Sequence[str], key: str | None) -> _Files:
    """Open all files, or those of one folder that are readable."""
    folder = Path(paths[0]) if len(paths) == 1 else None
    if folder is None or not folder.is_dir() or holds_one_network(folder):
        files = _Files(fitting=[read(path, key) for path in paths])
    else:
        files = _Files(printable(str(folder)))
        for inner in checkpoints_in(folder):
            try:
                files.fitting.append(read(inner, key))
            except ValueError as error:
                files.leave_out(printable(str(inner)), error)
    files.check_number()
    return files


def _peak_memory() -> int:
    """Return the most bytes that the process has held so far; 0 on Windows."""
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
        return peak
    return peak * 1024  # other systems count in KiB


def _table(trained: Sequence[Tensor], untrained: Sequence[Tensor]) -> dict[str, Any]:
    """Return the similarity of all pairs of chains, and the floor of untrained ones."""
    mean = highest = float("nan")
    if len(untrained) > 1:
        with warnings.catch_warnings():
            # That an untrained network has no value is no news of the files.
            warnings.simplefilter("ignore")
            values = compare("wcka", untrained)
        floor = values[np.triu_indices(len(untrained), 1)]
        floor = floor[np.isfinite(floor)]
        if floor.size:
            mean = float(floor.mean())
            highest = float(floor.max())
    return {
        "wcka": compare("wcka", trained).tolist(),
        "floor": {"mean": mean, "highest": highest},
    }


# ------------------------------------------------------------ fully connected networks


@dataclass(frozen=True)
class Untrained:
    """A weight matrix as ``nn.Linear`` draws it, but for its scale.

    wCKA does not depend on the scale. Rows are drawn when they are asked for, so that a
    random network takes no memory.

    Examples
    --------
    >>> weight = Untrained((3, 2), seed=(0, 0))
    >>> torch.equal(weight[0:3], weight[0:3])
    True
    """

    shape: tuple[int, int]
    seed: tuple[int, int]

    def get_shape(self) -> tuple[int, int]:
        return self.shape

    def __getitem__(self, part: slice) -> Tensor:
        rng = np.random.default_rng([*self.seed, part.start])
        rows = part.stop - part.start
        return torch.from_numpy(rng.uniform(-1, 1, (rows, self.shape[1])))


def _compare_fully_connected(
    files: _Files, by_layer: bool, networks: int, order: Sequence[str],
    stored: str | None,
) -> dict[str, Any]:
    """Compare fully connected networks, whose matrices are read block by block."""
    chains, matchings = _chains_in(files, order, stored)
    chains = _of_same_inputs(files, chains)

    def product(
        file: Checkpoint, chain: Chain,
    ) -> tuple[Chain, list[Layer], Tensor]:
        layers = _with_file_name(file, chain)
        return chain, layers, chain_of(layers)

    of_files = files.results(product, chains)
    chains = [chain for chain, _, _ in of_files]
    trained = [layers for _, layers, _ in of_files]
    products = [values for _, _, values in of_files]
    widths = list(map(_widths, chains))
    untrained = _untrained_networks(widths, networks)
    table = _table(products, list(map(chain_of, untrained)))
    assumed = [
        *_readings(files.fitting, chains), *matchings, *_notes(files.fitting)]
    undecided = ""
    if not any(chain.layout_known for chain in chains):
        undecided = _undecided(chains, table)
        if undecided:
            table["wcka"] = np.full((len(chains), len(chains)), np.nan).tolist()
            warnings.warn(undecided, stacklevel=3)
    layers: dict[str, Any] = {}
    reason = ""
    if len({len(chain.layers) for chain in chains}) > 1:
        reason = "the networks differ in depth"
    elif undecided:
        reason = "undecided"
    elif _multiplications(widths) >= _MANY and not by_layer:
        reason = "long in networks this wide: --layers asks for it"
    else:
        names = [layer.name for layer in chains[0].layers]
        layers = _layer_tables(names, trained, untrained)
    return {
        "assumed": assumed,
        "chains": {file.name: _described_layers(chain)
                   for file, chain in zip(files.fitting, chains)},
        "undecided": undecided,
        "shape": tuple(products[0].shape),
        "untrained": len(untrained),
        "layers": layers,
        "without layers": reason,
        "all": table,
    }


def _chains_in(
    files: _Files, order: Sequence[str], stored: str | None,
) -> tuple[list[Chain], list[str]]:
    """Read each file as a chain, layers of the same names in the same order."""

    def read_chain(file: Checkpoint) -> Chain | UnknownOrder:
        try:
            return chain_in(file, order, stored)
        except UnknownOrder as error:  # that of another file may help
            return error

    chains = files.results(read_chain)
    known = [chain for chain in chains if isinstance(chain, Chain)]
    if not known:
        raise next(error for error in chains if isinstance(error, UnknownOrder))
    reference = [layer.name for layer in known[0].layers]
    reference_file = files.fitting[chains.index(known[0])].name
    assumed = []

    def matched(file: Checkpoint, chain: Chain | UnknownOrder) -> Chain:
        if isinstance(chain, Chain):
            names = [layer.name for layer in chain.layers]
            if set(names) != set(reference) or names == reference:
                return chain
        elif not set(reference) <= set(file.weights):
            raise chain
        chain = chain_in(file, reference, stored)
        assumed.append(
            f"{file.name}: its layers are matched with those of {reference_file} by "
            f"name, not by position")
        return chain

    return files.results(matched, chains), assumed


def _of_same_inputs(files: _Files, chains: list[Chain]) -> list[Chain]:
    """Return the chains of those files that take the same number of inputs."""
    inputs = [chain.layers[0].inputs for chain in chains]
    usual = inputs[0]
    most_usual = files.fitting[0].name
    if files.folder:
        # Most files decide; of two numbers that are as frequent, the first.
        usual = max(inputs, key=inputs.count)
        most_usual = "most files take"

    def checked(file: Checkpoint, chain: Chain) -> Chain:
        if chain.layers[0].inputs != usual:
            raise ValueError(
                f"{file.name} takes {chain.layers[0].inputs} inputs, {most_usual} "
                f"{usual}: networks are comparable on the same inputs only")
        return chain

    return files.results(checked, chains)


def _readings(files: list[Checkpoint], chains: list[Chain]) -> list[str]:
    """Return a sentence for each way in which files were read."""
    files_by_reading: dict[str, list[str]] = {}
    for file, chain in zip(files, chains):
        layout = "(out, in)"
        if chain.layers[0].layout == "in-out":
            layout = "(in, out)"
        text = f"{chain.text()} ({chain.order}; stored {layout})"
        files_by_reading.setdefault(text, []).append(file.name)
    sentences = []
    for text, names in files_by_reading.items():
        start = ""
        if len(files_by_reading) > 1:
            start = f"{', '.join(names)}: "
        sentences.append(f"{start}read as one chain: {text}")
    squares = []
    for layer in chains[0].layers:
        if layer.inputs == layer.outputs:
            squares.append(printable(layer.name.removesuffix(".weight")))
    if squares and len(chains[0].layers) > 1:
        sentences.append(
            f"a state dict holds no wiring: a way around {', '.join(squares)} would "
            f"not be seen (--arch would see it)")
    return sentences


def _notes(files: list[Checkpoint]) -> list[str]:
    """Return the notes of files, each with the file's name."""
    notes = []
    for file in files:
        for note in file.notes:
            notes.append(f"{file.name}: {note}")
    return list(dict.fromkeys(notes))  # one file may be compared with itself


def _undecided(chains: list[Chain], table: dict[str, Any]) -> str:
    """Return why nothing is known where two layouts give two values; "" if they agree.

    All matrices are square here. Stored (in, out) in place of (out, in), a chain is
    another one, with another similarity.
    """
    in_out_products = [chain_of(chain.stored("in-out").layers) for chain in chains]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = compare("wcka", in_out_products)
    difference = np.abs(values - np.array(table["wcka"]))
    if not np.nanmax(difference) > _SAME:
        return ""
    i, j = np.unravel_index(np.nanargmax(difference), values.shape)
    return (
        f"all matrices are square, and nothing tells how they are stored: wCKA is "
        f"{table['wcka'][i][j]:.4f} if (out, in), as nn.Linear stores them, and "
        f"{values[i, j]:.4f} if (in, out); say --stored out-in or --stored in-out, or "
        f"--arch")


def _described_layers(chain: Chain) -> list[dict[str, Any]]:
    """Return a chain's layers as JSON holds them."""
    layers = []
    for layer in chain.layers:
        layers.append(
            {"name": layer.name, "inputs": layer.inputs, "outputs": layer.outputs})
    return layers


def _widths(chain: Chain) -> list[int]:
    """Return the numbers of units of a network's layers, from the inputs on."""
    return [chain.layers[0].inputs, *(layer.outputs for layer in chain.layers)]


def _with_file_name(file: Checkpoint, chain: Chain) -> list[Layer]:
    """Return layers under names that an error message can show."""
    layers = []
    for layer in chain.layers:
        name = f"{file.name}: {printable(layer.name)}"
        layers.append(replace(layer, name=name))
    return layers


def _untrained_networks(widths: list[list[int]], networks: int) -> list[list[Layer]]:
    """Return networks of the files' shapes in turn, with random weights."""
    # Sorted, so that the floor does not depend on the order of the files.
    shapes = sorted(set(map(tuple, widths)))
    largest = max(map(_number_of_weights, widths))
    # As many as 3e8 random numbers are quick to draw; and at least two of every shape.
    affordable = int(3e8 // largest)
    count = max(3, 2 * len(shapes), min(networks, affordable))
    untrained = []
    for seed in range(count):
        network = []
        for i, (inputs, outputs) in enumerate(pairwise(shapes[seed % len(shapes)])):
            weight = Untrained((outputs, inputs), (seed, i))
            network.append(Layer(f"layer {i}", weight))
        untrained.append(network)
    return untrained


def _number_of_weights(layer_widths: list[int]) -> int:
    return sum(a * b for a, b in pairwise(layer_widths))


def _multiplications(widths: list[list[int]]) -> int:
    """Return how many multiplications a layer-by-layer comparison takes, about."""
    count = 0
    for layer_widths in widths:
        for inputs, outputs in pairwise(layer_widths):
            # The chain up to a layer, and its Gram matrix.
            count += layer_widths[0] * (inputs * outputs + outputs * outputs)
    return count


def _layer_tables(
    names: list[str], trained: list[list[Layer]], untrained: list[list[Layer]],
) -> dict[str, Any]:
    """Return a table for the chains up to each layer, by its name in the first file."""
    # Iterators: the chains of one layer are in memory at a time.
    trained_steps = zip(*map(chains_up_to, trained))
    of_this_depth = [layers for layers in untrained if len(layers) == len(names)]
    untrained_steps = zip(*map(chains_up_to, of_this_depth))
    tables = {}
    for name, trained_chains, untrained_chains in zip(
            names, trained_steps, untrained_steps):
        tables[name] = _table(trained_chains, untrained_chains)
    return tables


# ------------------------------------------------------------ any architecture


def _compare_any(
    files: _Files, architectures: list[str], input_shape: Any,
    freeze: Sequence[str], by_layer: bool, networks: int,
) -> dict[str, Any]:
    """Compare networks of known architectures by the Jacobians of their skeletons."""
    number = len(files.fitting)
    if len(architectures) not in (1, number):
        raise ValueError(
            f"--arch: wanted one for all files, or one for each of the {number} "
            f"files, got {len(architectures)}")
    if len(architectures) == 1:
        architectures = architectures * number
    from_torchvision = all(name.startswith("torchvision:") for name in architectures)
    builders = files.results(lambda file, name: factory(name, file), architectures)
    if input_shape is None and not from_torchvision:
        name = next(n for n in architectures if not n.startswith("torchvision:"))
        raise ValueError(f"--arch {name} needs --input-shape, for example 1 28 28")
    shape = tuple(input_shape or (3, 224, 224))
    if min(shape) < 1:
        raise ValueError(f"--input-shape: wanted numbers from 1 up, got {list(shape)}")

    def network(
        file: Checkpoint, build: Architecture,
    ) -> tuple[Architecture, nn.Module, list[str]]:
        model, notes = loaded(build, file)
        return build, model, [f"{file.name}: {note}" for note in notes]

    of_files = files.results(network, builders)
    builders = [build for build, _, _ in of_files]
    trained = [model for _, model, _ in of_files]
    assumed = []
    for _, _, notes in of_files:
        assumed += notes
    untrained = _untrained_models(builders, trained, networks)

    def chains_of(models: list[nn.Module], layer: str | None) -> list[Tensor]:
        chains = []
        for model in tqdm(models, "networks", leave=False, delay=2, disable=None):
            chains.append(comparable_chain(
                model, shape, freeze=freeze, layer=layer, dtype=torch.float32))
        return chains

    def floor_of(layer: str | None) -> list[Tensor]:
        # What untrained networks do never decides whether files can be compared.
        try:
            return chains_of(untrained, layer)
        except (TypeError, ValueError, RuntimeError):
            return []

    trained_chains = chains_of(trained, None)
    chain_shape = tuple(trained_chains[0].shape)
    table = _table(trained_chains, floor_of(None))
    del trained_chains  # as large as all networks together, or larger
    layer_tables = {}
    for name, child in trained[0].named_children():
        if by_layer and _has_matrix(child):
            with contextlib.suppress(TypeError, ValueError):  # it puts out no units
                layer_tables[name] = _table(chains_of(trained, name), floor_of(name))
    reason = ""
    if not layer_tables:
        reason = "--layers asks for it"
        if by_layer:
            reason = "none of its modules puts out units"
    names = " and ".join(dict.fromkeys(build.name for build in builders))
    return {
        "assumed": [
            f"wired as {names} is, for inputs of shape {shape}", *assumed,
            *_notes(files.fitting)],
        "chains": {},
        "undecided": "",
        "all": table,
        "untrained": len(untrained),
        "layers": layer_tables,
        "shape": chain_shape,
        "without layers": reason,
    }


def _untrained_models(
    builders: list[Architecture], trained: list[nn.Module], networks: int,
) -> list[nn.Module]:
    """Build networks as they are initialised, of the files' architectures in turn."""
    # Sorted, so that the floor does not depend on the order of the files.
    kinds = sorted(set(builders))
    largest = max(1, *map(_number_of_parameters, trained))
    affordable = min(networks, 8, int(_AFFORDABLE // largest))
    # At least two of every kind.
    count = max(3, 2 * len(kinds), affordable)
    untrained = []
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        for seed in range(count):
            torch.manual_seed(seed)
            untrained.append(built(kinds[seed % len(kinds)]))
    return untrained


def _number_of_parameters(model: nn.Module) -> int:
    return sum(values.numel() for values in model.parameters())


def _has_matrix(module: nn.Module) -> bool:
    return any(values.ndim > 1 for values in module.parameters())
