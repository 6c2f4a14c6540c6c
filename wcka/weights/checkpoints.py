"""Networks in files: read without running anything, and multiplied block by block.

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

# Numbers of a weight matrix that are in memory at once: 32 MB as float64.
_BLOCK = 2**22
# Keys under which a training script may have put the state dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# What the readers raise for files that are damaged or of another kind.
_READ_ERRORS = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError,
    LookupError, ValueError, AttributeError)


class Checkpoint(NamedTuple):
    """A file's weights, not yet read.

    Attributes
    ----------
    name : str
        The path as the caller gave it.
    weights : dict
        By name, tensors or slices of a file: both have a shape and can be indexed by
        rows.

    Examples
    --------
    >>> checkpoint = Checkpoint("a.pt", {"weight": torch.ones(3, 2)})
    >>> checkpoint.tensors()["weight"].shape
    torch.Size([3, 2])
    """

    name: str
    weights: dict

    def tensors(self) -> dict[str, Tensor]:
        """Read all weights into memory."""
        tensors = {}
        for name, values in self.weights.items():
            tensors[name] = values if isinstance(values, Tensor) else values[:]
        return tensors


def shape_of(values: Any) -> tuple[int, ...]:
    """Return the shape of a tensor, or of a slice of a safetensors file.

    Examples
    --------
    >>> shape_of(torch.ones(3, 2))
    (3, 2)
    """
    return tuple(values.shape if isinstance(values, Tensor) else values.get_shape())


def read(path: str | Path) -> Checkpoint:
    """Open a state dict, mapped into memory. Nothing in the file is executed.

    Parameters
    ----------
    path : str or Path
        A .safetensors file, or one that ``torch.save`` wrote of a state dict (or of a
        dict that holds one under "state_dict", "model_state_dict" or "model").

    Returns
    -------
    Checkpoint
        The file's weights, not yet read.

    Raises
    ------
    ValueError
        For a file that is missing, truncated, of another kind, that would execute code,
        or that holds no tensors; on one line.

    Examples
    --------
    >>> read("nowhere.pt")
    Traceback (most recent call last):
    ValueError: nowhere.pt: no such file
    """
    path = Path(path)
    if not path.is_file():
        reason = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {reason}")
    weights = _mapped(path)
    if isinstance(weights, dict):
        for key in _WRAPPERS:
            if isinstance(weights.get(key), dict):
                weights = weights[key]
                break
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{path}: wanted a state dict, got {type(weights).__name__}")
    for name, values in weights.items():
        _check_tensor(path, name, values)
    # nn.DataParallel puts module. before all names.
    plain = {re.sub(r"^module\.", "", name): weights[name] for name in weights}
    if len(plain) < len(weights):
        raise ValueError(
            f"{path}: holds some names twice, with and without module.")
    return Checkpoint(str(path), plain)


def _mapped(path: Path) -> Any:
    """Return what a file holds, mapped into memory; refuse it on one line."""
    try:
        if path.suffix == ".safetensors":
            return _mapped_safetensors(path)
        # Only the zip format of torch.save can be mapped.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, "cpu", weights_only=True, mmap=mapped)
    except _READ_ERRORS as error:
        # torch names what it refuses to call.
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ValueError(
                f"{path}: more than tensors in it; to load it would run code "
                f"({code.group(1)}): refused") from None
        raise ValueError(
            f"{path}: truncated, or no state dict ({_first_line(error)})") from None


def _mapped_safetensors(path: Path) -> dict[str, Any]:
    file = safe_open(path, "pt")
    weights = {}
    for name in file.keys():
        values = file.get_slice(name)
        if not values.get_shape():  # a scalar has no rows
            values = file.get_tensor(name)
        weights[name] = values
    return weights


def _check_tensor(path: Path, name: object, values: Any) -> None:
    """Refuse what is no plain tensor of real numbers."""
    tensor = isinstance(values, Tensor) or hasattr(values, "get_shape")
    if not (tensor and isinstance(name, str)):
        raise ValueError(
            f"{path}: wanted a state dict, but {name!r} is no tensor with a name")
    oddity = _oddity(values)
    if oddity:
        raise ValueError(f"{path}: {name} is {oddity}; wanted real numbers")


def _oddity(values: Any) -> str:
    """Return the word for what makes a tensor unusable; "" for a usable one."""
    if isinstance(values, Tensor):
        if values.is_complex():
            return "complex"
        if values.is_quantized:
            return "quantised"
        if values.is_meta:
            return "meta"
        if values.layout != torch.strided:
            return "sparse"
    elif values.get_dtype().startswith("C"):
        return "complex"
    return "empty" if 0 in shape_of(values) else ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120]


# ------------------------------------------------------------ fully connected networks


def layers(checkpoint: Checkpoint) -> dict[str, object]:
    """Return weight matrices (out, in) of a fully connected network, in order, by name.

    The order is that of a .pt file, and that of the numbers in the names of a
    .safetensors file.

    Raises
    ------
    ValueError
        For tensors that are neither a weight matrix nor its bias, or that do not fit
        together.

    Examples
    --------
    >>> weights = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).state_dict()
    >>> list(layers(Checkpoint("a.pt", weights)))
    ['0.weight', '1.weight']
    """
    shapes = {name: shape_of(values) for name, values in checkpoint.weights.items()}
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    _check_fully_connected(checkpoint.name, shapes, matrices)
    order = _in_order(checkpoint.name, matrices)
    for name, following in zip(order, order[1:]):
        outputs = shapes[name][0]
        inputs = shapes[following][1]
        if outputs != inputs:
            listed = ", ".join(f"{name} {shapes[name]}" for name in order)
            raise ValueError(
                f"{checkpoint.name}: its matrices (out, in) do not fit together in "
                f"order: {listed}")
    return {name: checkpoint.weights[name] for name in order}


def _check_fully_connected(
    file: str, shapes: dict[str, tuple[int, ...]], matrices: list[str],
) -> None:
    """Refuse a file that holds anything but weight matrices and their biases."""
    bias_shapes = {}
    for name in matrices:
        bias_shapes[re.sub("weight$", "bias", name)] = shapes[name][:1]
    for name, shape in shapes.items():
        if name not in matrices and bias_shapes.get(name) != shape:
            raise ValueError(
                f"{file}: {name} of shape {shape} is no part of a fully connected "
                f"network; say --arch torchvision:NAME or module:factory")
    if not matrices:
        raise ValueError(f"{file}: no weight matrix in it")
    for name in matrices:
        if not name.endswith("weight"):
            raise ValueError(
                f"{file}: matrices that are not called weight: no fully connected "
                f"network; say --arch torchvision:NAME or module:factory")


def _in_order(file: str, matrices: list[str]) -> list[str]:
    """Return the names of a file's matrices in the order of the layers."""
    if not file.endswith(".safetensors") or len(matrices) < 2:
        return matrices  # as they were saved
    # Such files are sorted by name: only numbers tell an order.
    names_without_numbers = {re.sub(r"\d+", "", name) for name in matrices}
    if len(names_without_numbers) > 1:
        raise ValueError(
            f"{file}: the order of its layers is not known, as .safetensors files are "
            f"sorted by name ({', '.join(matrices)}): number them, use .pt, or say "
            f"--arch")
    return sorted(matrices, key=_numbers)


def _numbers(name: str) -> list[int]:
    return list(map(int, re.findall(r"\d+", name)))


def chain_of(matrices: dict[str, Any]) -> Tensor:
    """Return the chain (inputs, outputs) of matrices (out, in), multiplied in blocks.

    The product runs from the outputs inwards, as in ``chain``: outputs are few, so
    every intermediate product is thin.

    Examples
    --------
    >>> chain_of({"first": torch.ones(3, 2), "second": torch.ones(1, 3)}).tolist()
    [[3.0], [3.0]]
    """
    right: Any = None  # the chain of the layers that come after
    for name, weight in reversed(matrices.items()):
        outputs, inputs = shape_of(weight)
        if right is None:
            right = torch.eye(outputs, dtype=torch.float64)
        product = torch.zeros(inputs, right.shape[1], dtype=torch.float64)
        for part, rows in _blocks(name, weight):
            product.addmm_(rows.T, right[part])
        right = product  # (inputs, outputs of the network)
    return right


def chains_up_to(matrices: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the chain up to each layer, (inputs, units), from the first on.

    Examples
    --------
    >>> matrices = {"first": torch.ones(3, 2), "second": torch.ones(1, 3)}
    >>> [tuple(chain.shape) for chain in chains_up_to(matrices)]
    [(2, 3), (2, 1)]
    """
    left = None
    for name, weight in matrices.items():
        columns = []
        for _, rows in _blocks(name, weight):
            columns.append(rows.T if left is None else left @ rows.T)
        left = torch.cat(columns, 1)  # (inputs of the network, units)
        yield left


def _blocks(name: str, weight: Any) -> Iterator[tuple[slice, Tensor]]:
    """Yield a matrix in blocks of rows, as float64, with the slice that each fills."""
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


# ------------------------------------------------------------ any architecture


def factory(name: str, checkpoint: Checkpoint) -> Callable[[], nn.Module]:
    """Return the function that builds a network.

    Parameters
    ----------
    name : str
        ``torchvision:resnet18``, or ``module:function`` of the user's.
    checkpoint : Checkpoint
        Networks of torchvision are built with as many outputs as it has.

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
        return getattr(importlib.import_module(place), function)
    except Exception as error:  # whatever is wrong with the user's module
        raise ValueError(
            f"--arch {name}: wanted torchvision:NAME or module:function "
            f"({_first_line(error)})") from None


def _torchvision_factory(
    function: str, checkpoint: Checkpoint,
) -> Callable[[], nn.Module]:
    try:
        import torchvision
    except ModuleNotFoundError:
        raise ValueError(
            "--arch torchvision:NAME needs the package 'torchvision': "
            "pip install 'wcka[experiments]'") from None
    known = torchvision.models.list_models(torchvision.models)
    nearest(function, known, "network of torchvision")
    # The last tensor has a row per output. The meta device builds names without
    # numbers.
    with torch.device("meta"):
        last = list(torchvision.models.get_model(function).state_dict())[-1]
    if last not in checkpoint.weights:
        raise ValueError(
            f"{checkpoint.name}: not of this architecture (no {last} in it)")
    outputs = shape_of(checkpoint.weights[last])[0]

    def build() -> nn.Module:
        return torchvision.models.get_model(function, num_classes=outputs)

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
            f"--arch: cannot be built ({kind}: {_first_line(error)})") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"--arch: wanted an nn.Module, got {type(model).__name__}")
    return model


def loaded(build: Callable[[], nn.Module], checkpoint: Checkpoint) -> nn.Module:
    """Return a network of an architecture with a checkpoint's weights, in eval mode.

    Raises
    ------
    ValueError
        If the weights are not those of the architecture, or not finite.

    Examples
    --------
    >>> checkpoint = Checkpoint("a.pt", {"weight": torch.ones(1, 2)})
    >>> loaded(lambda: nn.Linear(2, 1, bias=False), checkpoint).weight.tolist()
    [[1.0, 1.0]]
    """
    model = built(build)
    try:
        model.load_state_dict(checkpoint.tensors())
    except RuntimeError as error:
        # The first line says that loading failed; the second says why.
        reason = " ".join(str(error).splitlines()[1:2]).strip()
        raise ValueError(
            f"{checkpoint.name}: not of this architecture ({reason[:200]})") from None
    for name, values in model.state_dict().items():
        if not torch.isfinite(values).all():
            raise ValueError(f"{checkpoint.name}: {name} holds NaN or infinity")
    return model.eval()
