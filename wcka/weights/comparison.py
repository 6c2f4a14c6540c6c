"""Compare networks in files, layer by layer, against a floor of untrained networks.

Files are opened, and what is wrong with them is reported, before any work starts.
"""

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..measures.all_pairs import compare
from .chains import chain
from .checkpoints import (
    Checkpoint,
    Untrained,
    built,
    chain_of,
    chains_up_to,
    factory,
    layers,
    loaded,
    read,
    shape_of,
)

# Multiplications from which a layer-by-layer comparison must be asked for.
_MANY = 2e12
# One network at two consecutive epochs is about this similar to itself (chapter 2).
_NEIGHBOURING_EPOCHS = 0.98


def compare_files(
    paths: Sequence[str], arch: str | None = None, input_shape: Any = None,
    freeze: Sequence[str] = (), by_layer: bool = False, networks: int = 40,
) -> dict:
    """Return the similarity of networks in files, layer by layer, and its floor.

    Parameters
    ----------
    paths : sequence of str
        At least two files; see ``checkpoints.read``.
    arch : str, optional
        An architecture; see ``checkpoints.factory``. By default the files are fully
        connected networks.
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

    Returns
    -------
    dict
        - "files": their names.
        - "all": the tables "wcka" (N, N) and "floor", the "mean" and the "highest"
          value over pairs of untrained networks.
        - "layers": the same for the chain up to each layer, by name.
        - "without layers": the reason why there are none, or "".
        - "untrained": the number of untrained networks.
        - "shape": that of the chains.
        - "seconds": the time that all took.
        - "peak memory" of the process in bytes, "memory before" the files were opened
          (both 0 on systems that do not count it), and the most that can be "mapped" of
          them, which the system takes back where it is short of memory.

    Raises
    ------
    ValueError
        For bad files, before any work; for weights that are not finite.
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
    if len(paths) < 2:
        raise ValueError("wanted at least two files")
    if not arch and (freeze or input_shape):
        raise ValueError(
            "--freeze and --input-shape are for --arch: fully connected networks need "
            "neither")
    files = list(map(read, paths))
    if arch:
        tables = _compare_any(files, arch, input_shape, freeze, by_layer, networks)
    else:
        tables = _compare_fully_connected(files, by_layer, networks)
    return {
        "files": [file.name for file in files],
        **tables,
        "seconds": time.perf_counter() - start,
        "memory before": memory_before,
        "peak memory": _peak_memory(),
        "mapped": sum(Path(path).stat().st_size for path in set(paths)),
    }


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


def _table(trained: Sequence[Tensor], untrained: Sequence[Tensor]) -> dict:
    """Return the similarity of all pairs of chains, and the floor of untrained ones."""
    floor = compare("wcka", untrained)[np.triu_indices(len(untrained), 1)]
    return {
        "wcka": compare("wcka", trained).tolist(),
        "floor": {
            "mean": float(np.nanmean(floor)),
            "highest": float(np.nanmax(floor)),
        },
    }


# ------------------------------------------------------------ fully connected networks


def _compare_fully_connected(
    files: list[Checkpoint], by_layer: bool, networks: int,
) -> dict:
    """Compare fully connected networks, whose matrices are read block by block."""
    matrices = list(map(layers, files))
    widths = list(map(_widths, matrices))
    for file, file_widths in zip(files, widths):
        if file_widths[0] != widths[0][0]:
            raise ValueError(
                f"{file.name} takes {file_widths[0]} inputs, {files[0].name} "
                f"{widths[0][0]}: networks are comparable on the same inputs only")
    trained = []
    for file, weights in zip(files, matrices):
        trained.append(_with_file_name(file, weights))
    untrained = _untrained_networks(widths, networks)
    chains = list(map(chain_of, trained))
    result = {
        "shape": tuple(chains[0].shape),
        "untrained": len(untrained),
        "layers": {},
        "without layers": "",
        "all": _table(chains, list(map(chain_of, untrained))),
    }
    depths = set(map(len, trained))
    if len(depths) > 1:
        result["without layers"] = "the networks differ in depth"
    elif _multiplications(widths) >= _MANY and not by_layer:
        result["without layers"] = "long in networks this wide: --layers asks for it"
    else:
        result["layers"] = _layer_tables(list(matrices[0]), trained, untrained)
    return result


def _widths(weights: dict[str, Any]) -> list[int]:
    """Return the numbers of units of a network's layers, from the inputs on."""
    shapes = list(map(shape_of, weights.values()))  # (outputs, inputs) per layer
    inputs = shapes[0][1]
    return [inputs, *(outputs for outputs, _ in shapes)]


def _with_file_name(file: Checkpoint, weights: dict[str, Any]) -> dict[str, Any]:
    """Return weights under names that an error message can show."""
    return {f"{file.name}: {name}": values for name, values in weights.items()}


def _untrained_networks(
    widths: list[list[int]], networks: int,
) -> list[dict[str, Untrained]]:
    """Return networks of the files' shapes in turn, with random weights."""
    # Sorted, so that the floor does not depend on the order of the files.
    shapes = sorted(set(map(tuple, widths)))
    largest = max(map(_number_of_weights, widths))
    # As many as 3e8 random numbers are quick to draw; and at least two of every shape.
    affordable = int(3e8 // largest)
    count = max(3, 2 * len(shapes), min(networks, affordable))
    untrained = []
    for seed in range(count):
        network = {}
        for i, (inputs, outputs) in enumerate(pairwise(shapes[seed % len(shapes)])):
            network[f"layer {i}"] = Untrained((outputs, inputs), (seed, i))
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
    names: list[str], trained: list[dict[str, Any]], untrained: list[dict[str, Any]],
) -> dict[str, dict]:
    """Return a table for the chains up to each layer, by its name in the first file."""
    # Iterators: the chains of one layer are in memory at a time.
    trained_steps = zip(*map(chains_up_to, trained))
    untrained_steps = zip(*map(chains_up_to, untrained))
    tables = {}
    for name, trained_chains, untrained_chains in zip(
            names, trained_steps, untrained_steps):
        tables[name] = _table(trained_chains, untrained_chains)
    return tables


# ------------------------------------------------------------ any architecture


def _compare_any(
    files: list[Checkpoint], arch: str, input_shape: Any, freeze: Sequence[str],
    by_layer: bool, networks: int,
) -> dict:
    """Compare networks of one architecture by the Jacobians of their skeletons."""
    build = factory(arch, files[0])
    if input_shape is None and not arch.startswith("torchvision:"):
        raise ValueError(f"--arch {arch} needs --input-shape, for example 1 28 28")
    shape = tuple(input_shape or (3, 224, 224))
    if min(shape) < 1:
        raise ValueError(f"--input-shape: wanted numbers from 1 up, got {list(shape)}")
    trained = [loaded(build, file) for file in files]
    untrained = _untrained_models(build, trained[0], networks)

    def chains_of(models: list[nn.Module], layer: str | None) -> list[Tensor]:
        chains = []
        for model in models:
            chains.append(chain(
                model, shape, freeze=freeze, layer=layer, dtype=torch.float32))
        return chains

    trained_chains = chains_of(trained, None)
    chain_shape = tuple(trained_chains[0].shape)
    table = _table(trained_chains, chains_of(untrained, None))
    del trained_chains  # as large as all networks together, or larger
    layer_tables = {}
    for name, child in trained[0].named_children():
        if by_layer and _has_matrix(child):
            with contextlib.suppress(TypeError):  # it puts out no units
                layer_tables[name] = _table(
                    chains_of(trained, name), chains_of(untrained, name))
    reason = ""
    if not layer_tables:
        reason = "--layers asks for it"
        if by_layer:
            reason = "none of its modules puts out units"
    return {
        "all": table,
        "untrained": len(untrained),
        "layers": layer_tables,
        "shape": chain_shape,
        "without layers": reason,
    }


def _untrained_models(
    build: Callable[[], nn.Module], model: nn.Module, networks: int,
) -> list[nn.Module]:
    """Build networks as they are initialised, fewer if they are large."""
    size = sum(values.numel() for values in model.parameters())
    untrained = []
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        for seed in range(max(3, min(networks, 8, int(1e8 // size)))):
            torch.manual_seed(seed)
            untrained.append(built(build))
    return untrained


def _has_matrix(module: nn.Module) -> bool:
    return any(values.ndim > 1 for values in module.parameters())


# ------------------------------------------------------------ output


def described(result: dict) -> str:
    """Return the result of ``compare_files`` as text for people.

    Examples
    --------
    >>> table = {"wcka": [[1.0, 0.5], [0.5, 1.0]],
    ...          "floor": {"mean": 0.05, "highest": 0.1}}
    >>> result = {"files": ["a.pt", "b.pt"], "all": table, "layers": {},
    ...           "without layers": "", "untrained": 40, "shape": (4, 3),
    ...           "seconds": 1.0, "memory before": 0, "peak memory": 0, "mapped": 0}
    >>> print(described(result).splitlines()[0])
    a.pt  b.pt  wCKA 0.5000  5.0 times the floor's highest
    """
    names = short_names(result["files"])
    width = max(map(len, names))
    lines = []
    for i, j in combinations(range(len(names)), 2):
        verdict = _verdict(result["all"], i, j)
        lines.append(f"{names[i]:{width}}  {names[j]:{width}}  wCKA {verdict}")
        if len(names) == 2:  # for more files the layers would bury the pairs
            for name, table in result["layers"].items():
                lines.append(f"    up to {name:20}  {_verdict(table, i, j)}")
    if result["without layers"]:
        lines.append(f"layer by layer: not compared ({result['without layers']})")
    floor = result["all"]["floor"]
    rows, columns = result["shape"]
    lines += [
        f"floor: {result['untrained']} untrained networks of such shapes have a "
        f"similarity of {floor['mean']:.4f} on average, {floor['highest']:.4f} at most",
        "wCKA sees no biases, activations or data: it speaks of weights, not of "
        "behaviour",
        f"chains {rows:,} x {columns:,}; {result['seconds']:.1f} s; {_memory(result)}",
    ]
    return "\n".join(lines)


def _memory(result: dict) -> str:
    """Return a clause on the memory that a comparison took."""
    if not result["peak memory"]:
        return "peak memory not known on this system"
    peak = _mebibytes(result["peak memory"])
    before = _mebibytes(result["memory before"])
    mapped = _mebibytes(result["mapped"])
    return (f"peak memory {peak}, of which {before} before the files were opened and "
            f"up to {mapped} mapped from them")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _verdict(table: dict, i: int, j: int) -> str:
    """Return a value, and what it means against the floor of untrained networks."""
    value = table["wcka"][i][j]
    highest = table["floor"]["highest"]
    if not np.isfinite(value):
        return "undefined: a chain is zero, or the same for every input"
    if value <= highest:
        return f"{value:.4f}  no more similar than untrained networks"
    verdict = f"{value:.4f}  {value / highest:.1f} times the floor's highest"
    if value > _NEIGHBOURING_EPOCHS:
        verdict += ", like one network's neighbouring checkpoints"
    return verdict


def short_names(paths: Sequence[str]) -> list[str]:
    """Return names of files without the folder that they share.

    Examples
    --------
    >>> short_names(["runs/first.pt", "runs/second.pt"])
    ['first.pt', 'second.pt']
    """
    absolute = [Path(path).absolute() for path in paths]
    shared = os.path.commonpath([path.parent for path in absolute])
    return [os.path.relpath(path, shared) for path in absolute]


def as_json(result: dict) -> str:
    """Return the result of ``compare_files`` as JSON; what is not a number is null.

    Examples
    --------
    >>> print(as_json({"wcka": float("nan")}))
    {
     "wcka": null
    }
    """
    return re.sub(r"\bNaN\b", "null", json.dumps(result, indent=1))
