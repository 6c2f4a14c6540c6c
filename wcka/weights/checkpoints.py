"""A network's weights in a file, found by what the file holds and under plain names.

A checkpoint is more than its weights: it wraps them in dicts, adds prefixes to their
names, counts batches, keeps an optimizer's state, and stores pruned or normalised
weights in parts. ``read`` takes all of this off, and notes what it did.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..measures.spelling import printable
from ..measures.validation import special_kind
from .formats import opened, part_of_network
from .messages import chosen, listed

# Numbers of a weight matrix that are in memory at once: 32 MB as float64.
BLOCK = 2**22

# Keys under which training scripts put the weights, the likeliest first.
_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "params",
               "weights")
# What wrappers of torch put into names, wherever they stand.
_WRAPPERS = re.compile(
    r"(^|\.)((_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
# What wrappers and frameworks put before all names.
_PREFIXES = ("module.", "model.", "net.", "network.", "_forward_module.")
# Parts of names that belong to losses, metrics and averaging, not to the network.
_BESIDE = re.compile(
    r"(^|[._])(loss(es)?|loss_fn|criterion|metrics?|accuracy|acc|auroc|confmat|"
    r"f1|precision|recall|perplexity|n_averaged|num_batches_tracked|"
    r"position_ids)(\d*)($|[._])")
_OF_LOSS = re.compile(r"(\w+_)?(loss(es)?|loss_fn|criterion|metrics)\d*")
# Names that quantised layers use.
_QUANTISED = re.compile(
    r"(_packed_params|qweight|qzeros|quant_map|absmax|weight_scale)")


@dataclass(frozen=True)
class Checkpoint:
    """A file's weights, not yet read.

    Attributes
    ----------
    name : str
        The path as the caller gave it, fit for a terminal.
    weights : dict
        By name, tensors or slices of a file: both have a shape and can be indexed by
        rows.
    notes : tuple of str
        What was assumed to find the weights in the file.
    stored : dict
        The same weights with those in parts, as pruning stores them, as they are.
    metadata : mapping
        Versions of the modules, which state dicts of torch carry beside the weights.
    ordered : bool
        Whether the weights stand in the order in which the modules were defined.
    path : str
        The path as it is, where `name` had to be changed for a terminal.

    Examples
    --------
    >>> checkpoint = Checkpoint("a.pt", {"weight": torch.ones(3, 2)})
    >>> checkpoint.tensors()["weight"].shape
    torch.Size([3, 2])
    """

    name: str
    weights: dict[str, Any]
    notes: tuple[str, ...] = ()
    stored: dict[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ordered: bool = True
    path: str = ""

    @property
    def place(self) -> Path:
        """Where the file, or the folder, is."""
        return Path(self.path or self.name)

    def tensors(self) -> dict[str, Tensor]:
        """Read all weights into memory."""
        return {name: read_tensor(values) for name, values in self.weights.items()}


def read_tensor(values: Any) -> Tensor:
    """Return a tensor, or read a slice of a file into one.

    Examples
    --------
    >>> read_tensor(torch.ones(2)).tolist()
    [1.0, 1.0]
    """
    tensor: Tensor = values if isinstance(values, Tensor) else values[:]
    return tensor


def shape_of(values: Any) -> tuple[int, ...]:
    """Return the shape of a tensor, or of a slice of a safetensors file.

    Examples
    --------
    >>> shape_of(torch.ones(3, 2))
    (3, 2)
    """
    return tuple(values.shape if isinstance(values, Tensor) else values.get_shape())


def read(path: str | Path, key: str | None = None) -> Checkpoint:
    """Open a network's weights, mapped into memory. Nothing in the file is executed.

    Parameters
    ----------
    path : str or Path
        A file of safetensors, ``torch.save`` or ``numpy.savez``; an ``.index.json`` of
        several files; or a folder that holds one of these under a usual name.
    key : str, optional
        Which of several networks in the file: the key of its state dict, with dots for
        dicts in dicts. A file that is a plain state dict needs none. By default the
        only one, or the one under a usual key.

    Returns
    -------
    Checkpoint
        The weights, not yet read, under names without the prefixes of wrappers, pruned
        and reparametrised weights put together.

    Raises
    ------
    ValueError
        For a file that is missing, truncated, of another kind, that would execute code,
        or that holds no weights, several networks or quantised ones; on one line.

    Examples
    --------
    >>> read("nowhere.pt")
    Traceback (most recent call last):
    ValueError: nowhere.pt: no such file
    """
    name = printable(str(path))
    if part_of_network(Path(path)):
        raise ValueError(
            f"{name}: one of several parts of a network; name its folder, or its "
            f".index.json")
    file = opened(Path(path))
    notes = list(file.notes)
    state, place = _state_dict(name, file.content, key)
    if place:
        notes.append(f"weights under {printable(place)!r}")
    elif key:
        notes.append(f"no {printable(key)!r} in it: read as it is")
    metadata = getattr(state, "_metadata", None)
    weights = {}
    for label, values in state.items():
        if _is_weight(name, label, values):
            weights[label] = values
    left_out = [label for label in state if label not in weights]
    if left_out:
        notes.append(f"left out {listed(left_out)}")
    weights, prefix = _without_prefixes(name, weights)
    if prefix:
        notes.append(f"{printable(prefix)!r} at the start of names is dropped")
    stored = weights
    weights, composed = _composed(stored)
    if composed:
        notes.append(f"put together from their parts: {listed(composed)}")
    versions = {}
    if isinstance(metadata, Mapping):
        for module, version in metadata.items():
            plain = without_wrappers(f"{module}.").removeprefix(prefix)
            versions[plain.rstrip(".")] = version
    # State dicts of torch say versions, and stand in the order of the modules. A dict
    # made by hand whose matrices are in alphabetical order was perhaps sorted.
    matrices = [label for label, values in weights.items() if len(shape_of(values)) > 1]
    in_order = file.ordered and (bool(versions) or matrices != sorted(matrices))
    return Checkpoint(name, weights, tuple(notes), stored, versions, in_order,
                      str(path))


# ------------------------------------------------------------ the state dict in a file


def _state_dict(name: str, content: Any, key: str | None) -> tuple[Any, str]:
    """Return the state dict in what a file holds, and the key under which it stands."""
    if not isinstance(content, dict) or not content:
        kind = type(content).__name__
        if content == {}:
            kind = "an empty one"
        raise ValueError(f"{name}: wanted a state dict, got {kind}")
    states = dict(_state_dicts(content))
    if key is not None and states:
        if key not in states and list(states) == [""]:
            return content, ""  # a plain state dict, which needs no key
        try:
            return states[chosen(key, list(states), "key")], key
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    # What holds vectors alone, as means of inputs or a history of losses, is no network
    # beside one that holds matrices.
    inner = {place: state for place, state in states.items()
             if place and _has_matrix(state)}
    is_network = "" in states and (not inner or _has_matrix(content))
    if is_network and (not inner or _are_names_of_modules(content)):
        return content, ""
    if not is_network:
        for usual in _USUAL_KEYS:
            if usual in inner:
                return inner[usual], usual
        if len(inner or states) == 1:
            place, state = (inner or states).popitem()
            return state, place
    if states:
        top = ", and tensors at the top level (--key '')" if is_network else ""
        raise ValueError(
            f"{name}: holds several networks: {listed(list(inner or states))}{top}; "
            f"say which by --key")
    for label in content:
        if _QUANTISED.search(str(label)):
            raise ValueError(f"{name}: {printable(label)} is quantised; {_DEQUANTISE}")
    if _holds_optimizer(content):
        raise ValueError(
            f"{name}: wanted a state dict of a network, got the state of an optimizer")
    label = next(iter(content))
    reason = f"{label!r} is no tensor with a name"
    if not any(isinstance(values, Tensor) for values in content.values()):
        reason += ", and nothing in it is a dict of tensors"
    raise ValueError(f"{name}: wanted a state dict, but {reason}")


def _state_dicts(
    content: dict[Any, Any], place: str = "", depth: int = 3,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all state dicts in nested dicts, each with its place, the outermost first.

    A state dict holds named tensors. Beside it may stand tensors that are of no
    network, such as the state of a random generator. What an optimizer keeps for each
    parameter is told by its parameter groups.
    """
    if "param_groups" in content:
        return
    named = all(isinstance(label, str) for label in content)
    holds_weights = any(_has_rows(values) for values in content.values())
    if named and holds_weights:
        yield place, content
        if _are_names_of_modules(content):
            return
    if not depth:
        return
    for label, values in content.items():
        if isinstance(values, dict) and isinstance(label, str):
            inner = f"{place}.{label}".strip(".")
            yield from _state_dicts(values, inner, depth - 1)


def _holds_optimizer(content: dict[Any, Any], depth: int = 3) -> bool:
    """Tell whether nested dicts hold the state of an optimizer."""
    if "param_groups" in content:
        return True
    inner = [values for values in content.values() if isinstance(values, dict)]
    return depth > 0 and any(_holds_optimizer(values, depth - 1) for values in inner)


def _are_names_of_modules(content: Mapping[str, Any]) -> bool:
    """Tell whether tensors are called as those of modules in modules, with a point."""
    return any("." in label and _has_rows(values) for label, values in content.items())


def _has_matrix(content: Mapping[str, Any]) -> bool:
    return any(
        _has_rows(values) and len(shape_of(values)) > 1 for values in content.values()
        if not (isinstance(values, Tensor) and values.is_nested))


def _is_tensor(values: Any) -> bool:
    """Tell whether something is a tensor, or a slice of one in a file."""
    return isinstance(values, Tensor) or hasattr(values, "get_shape")


def _has_rows(values: Any) -> bool:
    """Tell whether something is a tensor, or a slice of one, that is no scalar."""
    if isinstance(values, Tensor) and values.is_nested:
        return True  # which has no shape, and is refused by name
    return _is_tensor(values) and len(shape_of(values)) > 0


def _is_weight(file: str, label: str, values: Any) -> bool:
    """Tell whether an entry of a state dict is a weight; refuse unusable ones."""
    if not _is_tensor(values):
        if _QUANTISED.search(label):
            raise ValueError(f"{file}: {printable(label)} is quantised; {_DEQUANTISE}")
        return False
    oddity = _oddity(label, values)
    if oddity:
        raise ValueError(
            f"{file}: {printable(label)} is {oddity}; wanted real numbers")
    return True


_DEQUANTISE = "wanted real numbers: save the network before it is quantised"


def _oddity(label: str, values: Any) -> str:
    """Return the word for what makes a tensor unusable; "" for a usable one."""
    if isinstance(values, Tensor):
        kind = special_kind(values)
        if kind == "meta":
            return "on the meta device: its numbers are not there"
        if kind:
            return kind
    elif values.get_dtype().startswith("C"):
        return "complex"
    if is_integer(values) and len(shape_of(values)) > 1 and (
            _QUANTISED.search(label) or label.endswith("weight")):
        return "quantised to integers"
    return "empty" if 0 in shape_of(values) else ""


def is_integer(values: Any) -> bool:
    """Tell whether a tensor, or a slice of a file, holds integers or truth values.

    Examples
    --------
    >>> is_integer(torch.ones(2)), is_integer(torch.ones(2, dtype=torch.int64))
    (False, True)
    """
    if isinstance(values, Tensor):
        return not values.is_floating_point()
    return not values.get_dtype().startswith(("F", "BF"))


# ------------------------------------------------------------ prefixes


def _without_prefixes(
    file: str, weights: dict[str, Any],
) -> tuple[dict[str, Any], str]:
    """Take what wrappers put before all names off them, and what they put between."""
    plain = {}
    for label, values in weights.items():
        plain[_plain_name(without_wrappers(label))] = values
    if len(plain) < len(weights):
        raise ValueError(
            f"{file}: holds some names twice, with and without what is dropped from "
            f"them (such as _orig_mod. or :0)")
    prefix = ""
    while plain:
        shared = _shared_prefix(plain)
        if not shared:
            break
        plain = {label.removeprefix(shared): plain[label] for label in plain}
        prefix += shared
    stripped = {re.sub(r"^module\.", "", label) for label in plain}
    if len(stripped) < len(plain):
        raise ValueError(f"{file}: holds some names twice, with and without module.")
    return plain, prefix


def _plain_name(label: str) -> str:
    """Return a name as torch would write it, for those of Keras and of JAX.

    Keras puts ``:0`` behind a name, and JAX writes the path ``['Dense_0']['kernel']``.
    """
    path = re.findall(r"\['([^']+)'\]", label)
    if path and "".join(f"['{part}']" for part in path) == label:
        label = ".".join(path)
    return label.removesuffix(":0")


def without_wrappers(name: str) -> str:
    """Return a name without what wrappers of torch put into it, wherever it stands.

    Examples
    --------
    >>> without_wrappers("_orig_mod.features._orig_mod.0.weight")
    'features.0.weight'
    >>> without_wrappers("0._fsdp_wrapped_module._checkpoint_wrapped_module.bias")
    '0.bias'
    """
    return _WRAPPERS.sub(r"\1", name)


def _shared_prefix(weights: dict[str, Any]) -> str:
    """Return the usual prefix of all names but those of losses and metrics; or ""."""
    network = [label for label in weights if not is_beside(label)]
    for prefix in _PREFIXES:
        has_prefix = [label.startswith(prefix) for label in network]
        # Two parts must be left of a name: net.weight is a layer of that name.
        short = any(label.count(".") < 2 for label in network)
        if network and all(has_prefix) and not short:
            return prefix
    return ""


def is_beside(label: str) -> bool:
    """Tell whether a name is one of a loss, a metric or a counter.

    Examples
    --------
    >>> is_beside("criterion.weight"), is_beside("fc1.weight")
    (True, False)
    """
    return bool(_BESIDE.search(label))


def may_be_layer(module: str) -> bool:
    """Tell whether a module called like a metric may be a layer.

    A layer may be called f1 or acc; what is within a metric, and a loss, is none.

    Examples
    --------
    >>> may_be_layer("f1"), may_be_layer("criterion"), may_be_layer("metrics.fid.fc")
    (True, False, False)
    """
    parent, _, last = module.rpartition(".")
    return not (is_beside(parent) or _OF_LOSS.fullmatch(last))


def bias_names(matrix: str) -> list[str]:
    """Return the names that the bias of a matrix may have.

    Examples
    --------
    >>> bias_names("fc1.weight"), bias_names("arr_2")
    (['fc1.bias'], ['arr_3'])
    """
    names = [re.sub("(weight|kernel)$", "bias", matrix),
             re.sub("weights$", "biases", matrix),
             re.sub(r"[wW](_?\d*)$", r"b\1", matrix),
             re.sub(r"coefs?(_\d+)$", r"intercepts\1", matrix)]
    number = re.fullmatch(r"arr_(\d+)", matrix)
    if number:  # numpy.savez numbers arrays that have no names
        names.append(f"arr_{int(number[1]) + 1}")
    return [name for name in names if name != matrix]


# ------------------------------------------------------------ weights stored in parts


@dataclass(frozen=True)
class _Composed:
    """A weight that is computed from its parts, some rows at a time.

    A tensor for all that asks for a shape or for rows, as slices of files are.
    """

    shape: tuple[int, ...]
    rows: Callable[[slice], Tensor]

    def get_shape(self) -> tuple[int, ...]:
        return self.shape

    def get_dtype(self) -> str:
        return "F64"

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, _ = part.indices(self.shape[0])
        return self.rows(slice(start, stop))


class _Form(NamedTuple):
    """A way to store a weight in parts.

    Names of parts are the weight's name and an ending; ``fits`` tells from the parts'
    values whether they are what their names say.
    """

    endings: tuple[str, ...]
    fits: Callable[..., bool]
    compose: Callable[..., _Composed]


def _composed(
    weights: dict[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """Put weights together that pruning or a parametrisation has stored in parts."""
    composed: dict[str, tuple[str, _Composed]] = {}  # by the name of the first part
    parts_used: set[str] = set()
    for label in weights:
        for form in _FORMS:
            stem = label.removesuffix(form.endings[0])
            parts = [f"{stem}{ending}" for ending in form.endings]
            if parts[0] != label or not stem.rpartition(".")[2] or label in parts_used:
                continue
            values = [weights.get(part) for part in parts]
            if all(part in weights for part in parts) and form.fits(*values):
                name = stem.replace("parametrizations.", "")
                composed[label] = (name, form.compose(*values))
                parts_used.update(parts)
    plain = {}
    for label, values in weights.items():
        if label in composed:
            name, whole = composed[label]
            plain[name] = whole
        elif label not in parts_used:
            plain[label] = values
    return plain, [name for name, _ in composed.values()]


def _pruned(original: Any, mask: Any) -> _Composed:
    """Return a pruned weight: what is left of it under its mask."""

    def rows(part: slice) -> Tensor:
        values: Tensor = original[part].double()
        mask_values: Tensor = mask[part].double()
        return values * mask_values

    return _Composed(shape_of(original), rows)


def _weight_normalised(length: Any, direction: Any) -> _Composed:
    """Return g v / ||v||, with one norm for each entry of an axis (Salimans 2016)."""
    shape = shape_of(direction)
    lengths = length[:].double() if shape_of(length) else length.double()
    per_row = lengths.ndim == len(shape) and lengths.shape[0] == shape[0]
    if per_row and lengths.numel() == shape[0]:

        def rows(part: slice) -> Tensor:
            values: Tensor = direction[part].double()
            norms = values.flatten(1).norm(dim=1)  # (rows of the part,)
            scales: Tensor = lengths.flatten()[part] / norms
            return values * scales.view(-1, *[1] * (values.ndim - 1))

        return _Composed(shape, rows)
    values = direction[:].double()
    axes = [axis for axis in range(len(shape))
            if lengths.ndim != len(shape) or lengths.shape[axis] == 1]
    whole: Tensor = values * (lengths / values.norm(dim=axes, keepdim=True))
    return _Composed(shape, lambda part: whole[part])


def _spectrally_normalised(original: Any, u: Any, v: Any) -> _Composed:
    """Return a weight over its largest singular value, u' W v (Miyato et al. 2018)."""
    shape = shape_of(original)
    left = u[:].double()
    right = v[:].double()
    sigma = torch.zeros((), dtype=torch.float64, device="cpu")
    if len(left) == shape[0]:
        for part in row_blocks(shape):
            rows = original[part].double().flatten(1)
            sigma = sigma + left[part] @ (rows @ right)
    else:  # transposed convolutions are normalised along their second axis
        sigma = left @ original[:].double().movedim(1, 0).flatten(1) @ right

    def rows_over_sigma(part: slice) -> Tensor:
        values: Tensor = original[part].double()
        return values / sigma

    return _Composed(shape, rows_over_sigma)


def _same_shape(original: Any, mask: Any) -> bool:
    return shape_of(original) == shape_of(mask)


def _is_length_of(length: Any, direction: Any) -> bool:
    """Tell whether a tensor can hold the norms of another's slices along some axes."""
    lengths = shape_of(length)
    sizes = shape_of(direction)
    if not lengths:
        return True
    axes_fit = all(a in (1, b) for a, b in zip(lengths, sizes))
    return len(lengths) == len(sizes) and 1 in lengths and axes_fit


def _are_vectors(original: Any, u: Any, v: Any) -> bool:
    return len(shape_of(original)) > 1 and len(shape_of(u)) == len(shape_of(v)) == 1


_FORMS = (
    _Form(("_orig", "_mask"), _same_shape, _pruned),
    _Form(("_g", "_v"), _is_length_of, _weight_normalised),
    _Form((".original0", ".original1"), _is_length_of, _weight_normalised),
    _Form(("_orig", "_u", "_v"), _are_vectors, _spectrally_normalised),
    _Form((".original", ".0._u", ".0._v"), _are_vectors, _spectrally_normalised),
)


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield slices of a weight's rows that together are all of it.

    Examples
    --------
    >>> list(row_blocks((3, 2)))
    [slice(0, 3, None)]
    """
    per_row = 1
    for size in shape[1:]:
        per_row *= size
    step = max(1, BLOCK // per_row)
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))
