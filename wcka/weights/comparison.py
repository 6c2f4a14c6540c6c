"""Compare networks in files: their chains, layer by layer, against a floor of untrained ones.

Files are opened, and what is wrong with them is said, before any work starts.
"""

import contextlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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

_MANY = 2e12  # multiplications of a layer-by-layer comparison that must be asked for


def compare_files(paths: Sequence[str], arch: str | None = None, input_shape=None,
             freeze: Sequence[str] = (), by_layer: bool = False, networks: int = 40) -> dict:
    """Similarity of the networks in some files: all pairs, layer by layer, and its floor.

    Parameters
    ----------
    paths : sequence of str
        At least two files, as ``read`` takes them.
    arch : str, optional
        What ``factory`` takes; by default the files are fully connected networks.
    input_shape : sequence of int, optional
        As in ``chain``; (3, 224, 224) for torchvision's networks by default.
    freeze : sequence of str
        As in ``chain``.
    by_layer : bool
        Compare all layers even where that takes long: in wide networks, and in any architecture
        (there the outputs of its top-level modules that hold weights, averaged over places).
    networks : int
        Number of random networks that make the floor, of the files' shapes in turn; fewer if they
        are large or not fully connected.

    Returns
    -------
    dict
        "files"; under "all" the tables "wcka" (N, N) and "floor" (of pairs of untrained networks
        the "mean" and the "highest"); under "layers" the same for the chain up to each layer, by
        name, or under "without layers" why there are none; "untrained", the number of such
        networks; "shape" of the chains; "seconds"; in bytes the process's "peak
        memory", of it "memory before" the files were opened, and the most that can be "mapped" of
        them (which the system takes back where it is short of memory).

    Raises
    ------
    ValueError
        For bad files, before any work; for weights that are not finite.
    TypeError
        For an architecture that has no chain.
    """
    start, before = time.perf_counter(), _peak_memory()
    if len(paths) < 2:
        raise ValueError("wanted at least two files")
    if not arch and (freeze or input_shape):
        raise ValueError("--freeze and --input-shape are for --arch: fully connected networks need "
                         "neither")
    files = [read(path) for path in paths]
    found = (_any(files, arch, input_shape, freeze, by_layer, networks) if arch
             else _fully_connected(files, by_layer, networks))
    return {"files": [file.name for file in files], **found,
            "seconds": time.perf_counter() - start,
            "memory before": before, "peak memory": _peak_memory(),
            "mapped": sum(Path(path).stat().st_size for path in set(paths))}


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _compared(name: str, trained: Sequence[Tensor], untrained: Sequence[Tensor]) -> dict:
    """Similarity of all pairs of chains, and of untrained networks' chains, under a name."""
    floor = compare("wcka", untrained)[np.triu_indices(len(untrained), 1)]
    return {name: {"wcka": compare("wcka", trained).tolist(),
                   "floor": {"mean": float(np.nanmean(floor)),
                             "highest": float(np.nanmax(floor))}}}


def _fully_connected(files: list[Checkpoint], by_layer: bool, networks: int) -> dict:
    found = [layers(file) for file in files]
    widths = [[shape_of(next(iter(f.values())))[1], *(shape_of(w)[0] for w in f.values())]
              for f in found]
    for file, each in zip(files, widths):
        if each[0] != widths[0][0]:
            raise ValueError(f"{file.name} takes {each[0]} inputs, {files[0].name} {widths[0][0]}:"
                             f" networks are comparable on the same inputs only")
    trained = [{f"{file.name}: {name}": weight for name, weight in each.items()}
               for file, each in zip(files, found)]
    shapes = sorted(set(map(tuple, widths)))  # in turn, whatever the order of the files
    size = max(sum(a * b for a, b in pairwise(w)) for w in widths)
    count = max(3, 2 * len(shapes), min(networks, int(3e8 // size)))
    untrained = [{f"layer {i}": Untrained((b, a), (seed, i))
                  for i, (a, b) in enumerate(pairwise(shapes[seed % len(shapes)]))}
                 for seed in range(count)]
    features = [chain_of(each) for each in trained]
    result = {"shape": tuple(features[0].shape), "untrained": len(untrained), "layers": {},
              "without layers": "", **_compared("all", features, [chain_of(e) for e in untrained])}
    work = sum(w[0] * (a * b + b * b) for w in widths for a, b in pairwise(w))
    if len({len(each) for each in trained}) > 1:
        result["without layers"] = "the networks differ in depth"
    elif work >= _MANY and not by_layer:
        result["without layers"] = "long in networks this wide: --layers asks for it"
    else:
        steps = (zip(*map(chains_up_to, some)) for some in (trained, untrained))
        for name, both in zip(found[0], zip(*steps)):
            result["layers"] |= _compared(name, *both)
    return result


def _any(files: list[Checkpoint], arch: str, input_shape, freeze: Sequence[str], by_layer: bool,
         networks: int) -> dict:
    build = factory(arch, files[0])
    if input_shape is None and not arch.startswith("torchvision:"):
        raise ValueError(f"--arch {arch} needs --input-shape, for example 1 28 28")
    shape = tuple(input_shape or (3, 224, 224))
    if min(shape) < 1:
        raise ValueError(f"--input-shape: wanted numbers from 1 up, got {list(shape)}")
    trained = [loaded(build, file) for file in files]
    size = sum(p.numel() for p in trained[0].parameters())
    with torch.random.fork_rng(devices=[]):
        untrained = []
        for seed in range(max(3, min(networks, 8, int(1e8 // size)))):
            torch.manual_seed(seed)
            untrained.append(built(build))

    def compared(layer: str | None) -> dict:
        trained_chains, untrained_chains = (
            [chain(model, shape, freeze=freeze, layer=layer, dtype=torch.float32)
             for model in models] for models in (trained, untrained))
        sizes.append(tuple(trained_chains[0].shape))
        return _compared(layer or "all", trained_chains, untrained_chains)

    sizes: list[tuple[int, ...]] = []
    result = {**compared(None), "untrained": len(untrained), "layers": {}}
    for name, child in trained[0].named_children():
        if by_layer and any(p.ndim > 1 for p in child.parameters()):
            with contextlib.suppress(TypeError):  # it puts out no units
                result["layers"] |= compared(name)
    why = "none of its modules puts out units" if by_layer else "--layers asks for it"
    return {**result, "shape": sizes[0], "without layers": "" if result["layers"] else why}


def described(result: dict) -> str:
    """Text for people of what ``compare_files`` found."""
    names, lines = short_names(result["files"]), []
    width = max(map(len, names))
    for i, j in combinations(range(len(names)), 2):
        lines.append(f"{names[i]:{width}}  {names[j]:{width}}  wCKA {_said(result['all'], i, j)}")
        for name, table in result["layers"].items() if len(names) == 2 else ():
            lines.append(f"    up to {name:20}  {_said(table, i, j)}")
    if why := result["without layers"]:
        lines.append(f"layer by layer: not compared ({why})")
    floor, (rows, columns) = result["all"]["floor"], result["shape"]
    peak, before, mapped = (f"{result[key] / 2**20:,.0f} MiB" for key in (
        "peak memory", "memory before", "mapped"))
    return "\n".join([
        *lines, f"floor: {result['untrained']} untrained networks of such shapes are "
        f"{floor['mean']:.4f} alike on average, {floor['highest']:.4f} at the most",
        "wCKA sees no biases, activations or data: it speaks of weights, not of behaviour",
        f"chains {rows:,} x {columns:,}; {result['seconds']:.1f} s; peak memory {peak}, of which "
        f"{before} before the files were opened and up to {mapped} mapped from them"])


def _said(table: dict, i: int, j: int) -> str:
    """A value, and what it says against the floor of untrained networks."""
    value, highest = table["wcka"][i][j], table["floor"]["highest"]
    if not np.isfinite(value):
        return "undefined: a chain is zero, or the same for every input"
    if value <= highest:
        return f"{value:.4f}  no more alike than untrained networks"
    # As chapter 2 finds it: one network at two epochs that follow each other.
    kin = ", like one network's neighbouring checkpoints" * (value > 0.98)
    return f"{value:.4f}  {value / highest:.1f} times the floor's highest{kin}"


def short_names(paths: Sequence[str]) -> list[str]:
    """Names of files without the folder that they share."""
    shared = os.path.commonpath([Path(p).absolute().parent for p in paths])
    return [os.path.relpath(Path(p).absolute(), shared) for p in paths]


def as_json(result: dict) -> str:
    """The same for programs; what is not a number is null."""
    return re.sub(r"\bNaN\b", "null", json.dumps(result, indent=1))
