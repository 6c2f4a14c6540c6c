"""Compare networks as they lie on disk: their chains, layer by layer, against a floor.

Files are opened, and what is wrong with them is said, before any work starts. Weights are mapped
into memory and multiplied block by block, so that a network need not fit into memory.
"""

import contextlib
import importlib
import json
import os
import pickle
import re
import resource
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from . import figures
from .chain import chain
from .checks import nearest
from .similarity import compare

_BLOCK = 2**22  # numbers of a weight matrix that are in memory at once: 32 MB as float64
_MANY = 2e12  # multiplications of a layer-by-layer comparison that must be asked for
_WRAPPERS = ("state_dict", "model_state_dict", "model")


class Checkpoint(NamedTuple):
    """A file's weights, not yet read.

    Attributes
    ----------
    name : str
        The path as given.
    weights : dict
        Under their names tensors, or slices of a file, that have a shape and give rows.
    """

    name: str
    weights: dict

    def tensors(self) -> dict[str, Tensor]:
        return {name: values if isinstance(values, Tensor) else values[:]
                for name, values in self.weights.items()}


def shape_of(values) -> tuple[int, ...]:
    """Shape of a tensor, or of a slice of a safetensors file."""
    return tuple(values.shape if isinstance(values, Tensor) else values.get_shape())


def read(path: str | Path) -> Checkpoint:
    """Open a state dict, mapped into memory. Nothing in the file is executed.

    Parameters
    ----------
    path : str or Path
        A .safetensors file, or one that ``torch.save`` wrote of a state dict (or of a dict that
        holds one under "state_dict", "model_state_dict" or "model").

    Raises
    ------
    ValueError
        For a file that is missing, truncated, of another kind, that would execute code, or that
        holds no tensors; on one line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}")
    try:
        if path.suffix == ".safetensors":
            file = safe_open(path, "pt")
            slices = {name: file.get_slice(name) for name in file.keys()}
            weights = {name: values if values.get_shape() else file.get_tensor(name)
                       for name, values in slices.items()}  # a scalar has no rows
        else:
            # Only the zip format of torch.save can be mapped.
            weights = torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError,
            ValueError, AttributeError) as error:
        code = re.search(r"GLOBAL (\S+)", str(error))  # as torch names what it refuses to call
        if code:
            raise ValueError(f"{path}: more than tensors in it; to load it would run code "
                             f"({code.group(1)}): refused") from None
        raise ValueError(f"{path}: truncated, or no state dict ({_first_line(error)})") from None
    if isinstance(weights, dict):
        inner = [weights[key] for key in _WRAPPERS if isinstance(weights.get(key), dict)]
        weights = inner[0] if inner else weights
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{path}: wanted a state dict, got {type(weights).__name__}")
    for name, values in weights.items():
        _check(path, name, values)
    found = {re.sub(r"^module\.", "", name): values for name, values in weights.items()}
    if len(found) < len(weights):
        raise ValueError(f"{path}: some names stand there twice, with and without module.")
    return Checkpoint(str(path), found)


def _check(path: Path, name: object, values) -> None:
    """Refuse what is no plain tensor of real numbers."""
    tensor = isinstance(values, Tensor) or hasattr(values, "get_shape")
    if not (tensor and isinstance(name, str)):
        raise ValueError(f"{path}: wanted a state dict, but {name!r} is no tensor with a name")
    if isinstance(values, Tensor):
        odd = [word for word, holds in {
            "complex": values.is_complex(), "quantised": values.is_quantized,
            "meta": values.is_meta, "sparse": values.layout != torch.strided}.items() if holds]
    else:
        odd = ["complex"] * values.get_dtype().startswith("C")
    if odd or 0 in shape_of(values):
        raise ValueError(f"{path}: {name} is {odd[0] if odd else 'empty'}; wanted real numbers")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


# ------------------------------------------------------------------- fully connected networks


def layers(checkpoint: Checkpoint) -> dict[str, object]:
    """Weight matrices (out, in) of a fully connected network, in order, by name.

    The order is that of a .pt file, and that of the numbers in the names of a .safetensors file.

    Raises
    ------
    ValueError
        For tensors that are neither a weight matrix nor its bias, or that do not fit together.
    """
    shapes = {name: shape_of(values) for name, values in checkpoint.weights.items()}
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    biases = {re.sub("weight$", "bias", name): shapes[name][:1] for name in matrices}
    for name, shape in shapes.items():
        if name not in matrices and biases.get(name) != shape:
            raise ValueError(f"{checkpoint.name}: {name} of shape {shape} is no part of a fully "
                             f"connected network; say --arch torchvision:NAME or module:factory")
    if not matrices:
        raise ValueError(f"{checkpoint.name}: no weight matrix in it")
    if any(not name.endswith("weight") for name in matrices):
        raise ValueError(f"{checkpoint.name}: matrices that are not called weight: no fully "
                         f"connected network; say --arch torchvision:NAME or module:factory")
    order = _in_order(checkpoint.name, matrices)
    if any(shapes[a][0] != shapes[b][1] for a, b in zip(order, order[1:])):
        listed = ", ".join(f"{name} {shapes[name]}" for name in order)
        raise ValueError(f"{checkpoint.name}: its matrices (out, in) do not fit together in order: "
                         f"{listed}")
    return {name: checkpoint.weights[name] for name in order}


def _in_order(file: str, matrices: list[str]) -> list[str]:
    """Names of a file's matrices in the order of the layers."""
    if not file.endswith(".safetensors") or len(matrices) < 2:
        return matrices  # as they were saved
    # Such files are sorted by name: only numbers tell an order.
    if len({re.sub(r"\d+", "", name) for name in matrices}) > 1:
        raise ValueError(f"{file}: the order of its layers is not known, as .safetensors files are "
                         f"sorted by name ({', '.join(matrices)}): number them, use .pt, or say "
                         f"--arch")
    return sorted(matrices, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])


def chain_of(matrices: dict[str, Any]) -> Tensor:
    """Chain (inputs, outputs) of matrices (out, in), in blocks, from the outputs inwards."""
    right: Any = None  # a Tensor from the last matrix on
    for name, weight in reversed(matrices.items()):
        outputs, inputs = shape_of(weight)
        right = torch.eye(outputs, dtype=torch.float64) if right is None else right
        product = torch.zeros(inputs, right.shape[1], dtype=torch.float64)
        for part, rows in _blocks(name, weight):
            product.addmm_(rows.T, right[part])
        right = product
    return right


def chains_up_to(matrices: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the chain up to each layer, (inputs, units), from the first on."""
    left = None
    for name, weight in matrices.items():
        left = torch.cat([rows.T if left is None else left @ rows.T
                          for _, rows in _blocks(name, weight)], 1)
        yield left


def _blocks(name: str, weight) -> Iterator[tuple[slice, Tensor]]:
    """Some rows of a matrix at a time, as float64."""
    outputs, inputs = shape_of(weight)
    step = max(1, _BLOCK // inputs)
    for start in range(0, outputs, step):
        part = slice(start, min(start + step, outputs))
        rows = weight[part].double()
        if not torch.isfinite(rows).all():
            raise ValueError(f"{name} holds NaN or infinity")
        yield part, rows


@dataclass(frozen=True)
class _Untrained:
    """A weight matrix as ``nn.Linear`` draws it, but for its scale, which is nothing to wCKA."""

    shape: tuple[int, int]
    seed: tuple[int, int]

    def get_shape(self) -> tuple[int, int]:
        return self.shape

    def __getitem__(self, part: slice) -> Tensor:
        rng = np.random.default_rng([*self.seed, part.start])
        return torch.from_numpy(rng.uniform(-1, 1, (part.stop - part.start, self.shape[1])))


# ------------------------------------------------------------------------- any architecture


def factory(name: str, checkpoint: Checkpoint) -> Callable[[], nn.Module]:
    """Function that builds a network: ``torchvision:resnet18``, or ``module:function`` of yours.

    Networks of torchvision are built with as many outputs as the checkpoint has.

    Raises
    ------
    ValueError
        For a name that leads to no function.
    """
    place, _, function = name.partition(":")
    if place == "torchvision":
        nearest(function, torchvision.models.list_models(torchvision.models),
                "network of torchvision")
        with torch.device("meta"):
            last = list(torchvision.models.get_model(function).state_dict())[-1]
        if last not in checkpoint.weights:
            raise ValueError(f"{checkpoint.name}: not of this architecture (no {last} in it)")
        outputs = shape_of(checkpoint.weights[last])[0]
        return lambda: torchvision.models.get_model(function, num_classes=outputs)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the folder where the user stands
    try:
        return getattr(importlib.import_module(place), function)
    except Exception as error:  # whatever is wrong with the user's module
        raise ValueError(f"--arch {name}: wanted torchvision:NAME or module:function "
                         f"({_first_line(error)})") from None


def _built(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        model = build()
    except Exception as error:  # whatever is wrong with the user's function
        raise ValueError(f"--arch: cannot be built ({type(error).__name__}: {_first_line(error)})"
                         ) from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"--arch: wanted an nn.Module, got {type(model).__name__}")
    return model


def loaded(build: Callable[[], nn.Module], checkpoint: Checkpoint) -> nn.Module:
    """Network of that architecture with a checkpoint's weights, in eval mode."""
    model = _built(build)
    try:
        model.load_state_dict(checkpoint.tensors())
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ValueError(f"{checkpoint.name}: not of this architecture "
                         f"({' '.join(lines[1:2])[:200]})") from None
    for name, values in model.state_dict().items():
        if not torch.isfinite(values).all():
            raise ValueError(f"{checkpoint.name}: {name} holds NaN or infinity")
    return model.eval()


# ---------------------------------------------------------------------------- the comparison


def compared(paths: Sequence[str], arch: str | None = None, input_shape=None,
             freeze: Sequence[str] = (), by_layer: bool = False, networks: int = 8) -> dict:
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
        Number of random networks that make the floor; fewer if they are large.

    Returns
    -------
    dict
        "files"; under "all" the tables "wcka" (N, N) and "floor" (of pairs of untrained networks
        the "mean" and the "highest"); under "layers" the same for the chain up to each layer, by
        name (none where networks differ in depth, or where it would take long); "untrained", the
        number of such networks; "shape" of the chains; "seconds"; in bytes the process's "peak
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
    size = sum(a * b for a, b in pairwise(widths[0]))
    untrained = [{f"layer {i}": _Untrained((b, a), (seed, i))
                  for i, (a, b) in enumerate(pairwise(widths[0]))}
                 for seed in range(max(3, min(networks, int(3e8 // size))))]
    features = [chain_of(each) for each in trained]
    result = {"shape": tuple(features[0].shape), "untrained": len(untrained), "layers": {},
              **_compared("all", features, [chain_of(each) for each in untrained])}
    work = sum(w[0] * (a * b + b * b) for w in widths for a, b in pairwise(w))
    if len({len(each) for each in trained}) == 1 and (by_layer or work < _MANY):
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
        for seed in range(max(3, min(networks, int(1e8 // size)))):
            torch.manual_seed(seed)
            untrained.append(_built(build))

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
    return {**result, "shape": sizes[0]}


def described(result: dict) -> str:
    """Text for people of what ``compared`` found."""
    names, lines = _short(result["files"]), []
    width = max(map(len, names))
    for i, j in combinations(range(len(names)), 2):
        lines.append(f"{names[i]:{width}}  {names[j]:{width}}  wCKA {_said(result['all'], i, j)}")
        for name, table in result["layers"].items() if len(names) == 2 else ():
            lines.append(f"    up to {name:20}  {_said(table, i, j)}")
    if not result["layers"]:
        lines.append("layer by layer: not compared (different depths, or long: --layers)")
    floor, (rows, columns) = result["all"]["floor"], result["shape"]
    peak, before, mapped = (f"{result[key] / 2**20:,.0f} MiB" for key in (
        "peak memory", "memory before", "mapped"))
    return "\n".join([
        *lines, f"floor: {result['untrained']} untrained networks of this shape are "
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


def _short(paths: Sequence[str]) -> list[str]:
    """Names of files without the folder that they share."""
    shared = os.path.commonpath([Path(p).absolute().parent for p in paths])
    return [os.path.relpath(Path(p).absolute(), shared) for p in paths]


def as_json(result: dict) -> str:
    """The same for programs; what is not a number is null."""
    return re.sub(r"\bNaN\b", "null", json.dumps(result, indent=1))


def check_image(path: Path) -> None:
    """Refuse a file that no image can be written to."""
    known = plt.gcf().canvas.get_supported_filetypes()
    plt.close()
    nearest(path.suffix.lower().lstrip("."), known, f"kind of image for {path}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"--matrix {path}: no such folder, or not to be written to")


def draw(result: dict, path: Path) -> None:
    """Heat map of all pairs, as an image file."""
    figures.style()
    names = _short(result["files"])
    table = pd.DataFrame(result["all"]["wcka"], names, names)
    fig, axes = plt.subplots(figsize=(2.5 + 0.6 * len(names), 1.5 + 0.6 * len(names)))
    figures.heat_map(axes, table, cmap="cividis", vmin=0, vmax=1, cbar=False)
    axes.tick_params(axis="x", rotation=35)
    axes.set_title("wCKA")
    fig.savefig(path, dpi=200)
    plt.close(fig)
