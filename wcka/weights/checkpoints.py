"""Networks as they lie on disk: read without running anything, multiplied block by block.

Weights are mapped into memory, so that a network need not fit into it.
"""

import importlib
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..measures.spelling import nearest

_BLOCK = 2**22  # numbers of a weight matrix that are in memory at once: 32 MB as float64
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
class Untrained:
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
        try:
            import torchvision
        except ModuleNotFoundError:
            raise ValueError("--arch torchvision:NAME needs the package 'torchvision': "
                             "pip install 'wcka[experiments]'") from None
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


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """What such a function builds; a ValueError on one line where it fails."""
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
    model = built(build)
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
