"""Which matrices of a file make one chain of layers, and in which order.

A state dict holds no wiring. What can be known from names, shapes and biases is used;
what has to be assumed is said.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..measures.spelling import nearest, printable
from .chains import to_unit_range
from .checkpoints import (
    Checkpoint,
    bias_names,
    is_beside,
    is_integer,
    may_be_layer,
    row_blocks,
    shape_of,
)
from .messages import chosen, listed
from .other_wirings import ADVICE, refuse_other_wirings, refuse_residual_blocks

LAYOUTS = ("out-in", "in-out")


@dataclass(frozen=True)
class Layer:
    """A weight matrix of a file, and how it is stored there.

    Attributes
    ----------
    name : str
        Its name in the file.
    weight : Tensor or slice of a file
        (out, in), as ``nn.Linear`` stores it, or (in, out).
    layout : str
        "out-in" or "in-out".

    Examples
    --------
    >>> layer = Layer("fc", torch.ones(3, 2), "out-in")
    >>> layer.inputs, layer.outputs
    (2, 3)
    """

    name: str
    weight: Any
    layout: str = "out-in"

    @property
    def inputs(self) -> int:
        return _ends(shape_of(self.weight), self.layout)[0]

    @property
    def outputs(self) -> int:
        return _ends(shape_of(self.weight), self.layout)[1]

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the stored rows in blocks, as float64, with the slice of each.

        Raises
        ------
        ValueError
            For weights that are not finite.
        """
        parts = list(row_blocks(shape_of(self.weight)))
        for part in tqdm(parts, self.name, leave=False, delay=2, disable=None):
            rows = self.weight[part].double()
            if not torch.isfinite(rows).all():
                raise ValueError(f"{self.name} holds NaN or infinity")
            yield part, rows


class Chain(NamedTuple):
    """The layers of a file's network in order, and what was assumed to find them.

    Attributes
    ----------
    layers : list of Layer
        From the inputs to the outputs.
    order : str
        Where the order comes from.
    layout_known : bool
        Whether anything tells how the matrices are stored.

    Examples
    --------
    >>> weights = {"fc1.weight": torch.ones(3, 4), "fc1.bias": torch.ones(3)}
    >>> Chain([Layer("fc1.weight", torch.ones(3, 4))], "as saved", True).text()
    'fc1 4x3'
    """

    layers: list[Layer]
    order: str
    layout_known: bool

    def text(self) -> str:
        """Return the layers with their widths, as one line."""
        parts = []
        for layer in self.layers:
            name = re.sub(r"[./](weight|kernel)$", "", layer.name)
            parts.append(f"{printable(name)} {layer.inputs}x{layer.outputs}")
        return " -> ".join(parts)

    def stored(self, layout: str) -> "Chain":
        """Return the same layers, read as stored in another layout."""
        layers = [replace(layer, layout=layout) for layer in self.layers]
        return self._replace(layers=layers)


def _ends(shape: tuple[int, ...], layout: str) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a matrix stored in a layout."""
    rows, columns = shape
    return (columns, rows) if layout == "out-in" else (rows, columns)


class UnknownOrder(ValueError):
    """Layers fit together, but nothing tells in which order.

    Examples
    --------
    >>> isinstance(UnknownOrder("a.pt"), ValueError)
    True
    """


def chain_in(
    checkpoint: Checkpoint, order: Sequence[str] = (), stored: str | None = None,
    told_by: str = "as --order says",
) -> Chain:
    """Read the weights in a file as one chain of fully connected layers.

    Parameters
    ----------
    checkpoint : Checkpoint
        Weight matrices, called weight, kernel or W, and their biases.
    order : sequence of str
        The names of the layers from the inputs to the outputs, with or without
        ".weight"; other matrices then take no part. By default numbers in the names
        tell the order, or else the shapes, or else the order in which they were saved.
    stored : str, optional
        "out-in" or "in-out": how matrices are stored. By default biases, names and
        shapes tell.
    told_by : str
        Who tells the order, for the chain's own note on it.

    Returns
    -------
    Chain
        The layers, and what was assumed.

    Raises
    ------
    ValueError
        For tensors that are no part of a fully connected network, for matrices that are
        known to be no chain, that do not fit together, or whose order is not known.

    Examples
    --------
    >>> weights = {"fc2.weight": torch.ones(2, 3), "fc1.weight": torch.ones(3, 4)}
    >>> chain_in(Checkpoint("a.pt", weights)).text()
    'fc1 4x3 -> fc2 3x2'
    """
    if stored is not None:
        nearest(stored, LAYOUTS, "layout")
    try:
        return _chain_in(checkpoint, order, stored, told_by)
    except ValueError as error:
        raise type(error)(printable(str(error))) from None


def _chain_in(
    checkpoint: Checkpoint, order: Sequence[str], stored: str | None, told_by: str,
) -> Chain:
    """Read a chain; messages may hold names as they are in the file."""
    file = checkpoint.name
    shapes = {}
    integers = {}
    for name, values in checkpoint.weights.items():
        if is_integer(values):
            integers[name] = shape_of(values)
        else:
            shapes[name] = shape_of(values)
    if order:
        matrices = [name for name, shape in shapes.items() if len(shape) == 2]
        names = [_named(file, label, matrices) for label in order]
        source = told_by
        if len(names) > 1:
            source += ", without what may stand between them, as the gains of norms"
        if stored is None:
            _refuse_mixed_layouts(checkpoint, names, shapes)
        layouts, known = _layouts(names, shapes, stored)
        readings = [(layout, names, source) for layout in layouts]
        return _only_reading(checkpoint, readings, known)
    beside = _beside_network(shapes)
    for name in beside:
        del shapes[name]
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    for name in shapes:
        if "parametrizations." in name:
            raise ValueError(
                f"{file}: {name} belongs to a parametrisation that is not known; call "
                f"torch.nn.utils.parametrize.remove_parametrizations before saving")
    _refuse_integer_matrices(file, integers, matrices, shapes)
    refuse_other_wirings(file, matrices, shapes, checkpoint.place)
    _check_fully_connected(file, shapes, matrices)
    if stored is None:
        _refuse_mixed_layouts(checkpoint, matrices, shapes)
    layouts, known = _layouts(matrices, shapes, stored)
    readings = []
    for layout in layouts:
        names, source = _in_order(
            checkpoint, matrices, shapes, layout, may_fall=len(layouts) == 1)
        readings.append((layout, names, source))
    chain = _only_reading(checkpoint, readings, known)
    ends = {layer.name: (layer.inputs, layer.outputs) for layer in chain.layers}
    refuse_residual_blocks(file, ends)
    # Scalars are counters.
    beside += [name for name, shape in integers.items() if shape]
    if beside:
        verb = "takes" if len(beside) == 1 else "take"
        chain = chain._replace(
            order=f"{chain.order}; {listed(beside)} {verb} no part")
    return chain


def _only_reading(
    checkpoint: Checkpoint, readings: Sequence[tuple[str, list[str], str]], known: bool,
) -> Chain:
    """Return the one way to read matrices as a chain.

    Each reading is a layout, the names of the layers in order, and where the order
    comes from; `known` is whether anything tells how the matrices are stored.

    Raises
    ------
    ValueError
        If the matrices fit together in no reading, or in several.
    """
    chains = []
    errors = []
    for layout, names, source in readings:
        try:
            chains.append(_checked(checkpoint, names, layout, known, source))
        except ValueError as error:
            errors.append(error)
    if not chains:
        raise errors[0]
    if len(chains) > 1:
        raise ValueError(
            f"{checkpoint.name}: nothing tells how its matrices are stored: if (out, "
            f"in), they are {chains[0].text()}, and if (in, out), {chains[1].text()}; "
            f"say --stored out-in or --stored in-out")
    return chains[0]


def _beside_network(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Return the names of what belongs to losses, metrics and averaging.

    A layer may be called f1 or acc, too: a weight matrix of such a module is a layer,
    with its bias.
    """
    of_layers = set()
    for name, shape in shapes.items():
        module = _MATRIX.sub("", name).rstrip("._/")
        if len(shape) == 2 and module != name and may_be_layer(module):
            of_layers.update([name, *bias_names(name)])
    return [name for name in shapes if is_beside(name) and name not in of_layers]


def _refuse_integer_matrices(
    file: str, integers: dict[str, tuple[int, ...]], matrices: list[str],
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """Refuse integers and truth values that may be weights, or multiply some."""
    sizes = {tuple(sorted(shapes[name])) for name in matrices}
    for name, shape in integers.items():
        is_like_weights = len(shape) == 2 and (
            bool(_MATRIX.search(name)) or tuple(sorted(shape)) in sizes)
        if is_like_weights and not is_beside(name):
            raise ValueError(
                f"{file}: {name} of shape {shape} holds integers or truth values: a "
                f"mask, or quantised weights; {ADVICE}")


def _named(file: str, label: str, matrices: list[str]) -> str:
    """Return the name of a matrix that the caller named, perhaps in short."""
    for ending in ("", ".weight", ".kernel"):
        if label + ending in matrices:
            return label + ending
    try:
        return chosen(label, matrices, "layer")
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _checked(
    checkpoint: Checkpoint, names: list[str], layout: str, known: bool, source: str,
) -> Chain:
    """Return the chain, if each layer takes as many inputs as the last one gives."""
    layers = [Layer(name, checkpoint.weights[name], layout) for name in names]
    for layer, following in pairwise(layers):
        if layer.outputs != following.inputs:
            listed = ", ".join(
                f"{layer.name} {shape_of(layer.weight)}" for layer in layers)
            word = "(out, in)" if layout == "out-in" else "(in, out)"
            raise ValueError(
                f"{checkpoint.name}: its matrices {word} do not fit together in "
                f"order: {listed}")
    return Chain(layers, source, known)


# ------------------------------------------------------------ what a file holds


def _check_fully_connected(
    file: str, shapes: dict[str, tuple[int, ...]], matrices: list[str],
) -> None:
    """Refuse a file that holds anything but weight matrices and their biases."""
    bias_shapes: dict[str, set[tuple[int, ...]]] = {}
    for name in matrices:
        for bias in bias_names(name):
            bias_shapes.setdefault(bias, set()).update(
                (size,) for size in shapes[name])
    for name, shape in shapes.items():
        if name in matrices:
            continue
        if shape not in bias_shapes.get(name, ()):
            raise ValueError(
                f"{file}: {name} of shape {shape} is no part of a fully connected "
                f"network; say --arch torchvision:NAME or module:factory")
    if not matrices:
        raise ValueError(f"{file}: no weight matrix in it")
    for name in matrices:
        if not _MATRIX.search(name):
            raise ValueError(
                f"{file}: {name} is not called weight: no fully connected network; "
                f"{ADVICE}")


# Names of matrices: those of torch, of Keras and flax, and of NumPy scripts.
_MATRIX = re.compile(
    r"(weights?|kernel|(^|[._/])[wW]_?\d*|arr_\d+|(?<![a-z])coefs?_\d+)$")


# ------------------------------------------------------------ the order of layers


def _in_order(
    checkpoint: Checkpoint, matrices: list[str], shapes: dict[str, tuple[int, ...]],
    layout: str, may_fall: bool,
) -> tuple[list[str], str]:
    """Return the names of a file's matrices in the order of the layers, and why.

    Where `may_fall`, numbers in names may fall if they do not fit together otherwise.
    """
    if len(matrices) < 2:
        return matrices, "one layer"
    shared = _shared_matrices(checkpoint, matrices)
    as_saved = (
        checkpoint.ordered and not shared and _do_fit(matrices, shapes, layout))
    numbered = _by_numbers(matrices)
    if len(numbered) == len(matrices):
        if as_saved and numbered == matrices:
            return numbered, "by the numbers in their names"
        # A module's state dict stands as the module was defined, other dicts may not.
        of_module = as_saved and bool(checkpoint.metadata)
        may_fall = may_fall and not any(map(_INDEX.search, numbered))
        ways = [numbered, numbered[::-1]] if may_fall else [numbered]
        ways = [names for names in ways if _do_fit(names, shapes, layout)]
        is_told = len(ways) == 1 or not _often_fall(numbered)
        if ways and is_told and not of_module:
            return ways[0], "by the numbers in their names"
        if not (ways or as_saved or _are_widths(matrices, shapes, layout)):
            return numbered, "by the numbers in their names"
    fitting = _orders_that_fit(matrices, shapes, layout)
    if len(fitting) == 1:
        return fitting[0], "the only order in which they fit together"
    if not checkpoint.ordered and len(numbered) < len(matrices):
        around = _orders_by_numbers(matrices, shapes, layout)
        if len(around) == 1:
            return around[0], "by the numbers in their names, others as they fit"
    if checkpoint.ordered and not shared:
        return matrices, "as saved"
    reason = "as its names are in alphabetical order, as in .safetensors files"
    if checkpoint.ordered:
        reason = f"as {' and '.join(shared)} are one tensor"
    raise UnknownOrder(
        f"{checkpoint.name}: the order of its layers is not known, {reason} "
        f"({', '.join(matrices)}): number them, save the module's state_dict() by "
        f"torch.save, or say --order or --arch")


def _do_fit(
    names: list[str], shapes: dict[str, tuple[int, ...]], layout: str,
) -> bool:
    """Tell whether each matrix takes as many inputs as the last one gives."""
    ends = [_ends(shapes[name], layout) for name in names]
    return all(last[1] == following[0] for last, following in pairwise(ends))


# Numbers that stand alone are those of nn.Sequential, which rise.
_INDEX = re.compile(r"(^|[./])\d+([./]|$)")


def _numbers(name: str) -> list[int]:
    return list(map(int, re.findall(r"\d+", name)))


def _are_widths(
    matrices: list[str], shapes: dict[str, tuple[int, ...]], layout: str,
) -> bool:
    """Tell whether the numbers in names are those of the layers' outputs."""
    for name in matrices:
        _, outputs = _ends(shapes[name], layout)
        if _numbers(name)[-1:] != [outputs]:
            return False
    return True


def _with_number(name: str) -> str:
    """Return a name with the number 0 that Keras leaves out: dense, dense_1, dense_2.

    In torch a layer fc beside fc1 and fc2 may as well be the last one.
    """
    return re.sub(r"(?<=[^\d])(?=[/.](kernel|w)$)", "_0", name)


def _by_numbers(matrices: list[str]) -> list[str]:
    """Return the largest group of names that differ in numbers alone, in order."""
    groups: dict[str, list[str]] = {}
    for name in matrices:
        if re.search(r"\d", _with_number(name)):
            frame = re.sub(r"\d+", "#", _with_number(name))
            groups.setdefault(frame, []).append(name)
    largest = max(groups.values(), key=lambda names: len(names), default=[])
    return sorted(largest, key=lambda name: _numbers(_with_number(name)))


# Layers of decoders are often numbered as those of the encoder that they undo.
_FALLING = re.compile(r"(^|[._/])(de(c|conv)|up)[a-z_]*\d")


def _often_fall(names: list[str]) -> bool:
    """Tell whether names are of layers whose numbers rise in some networks only."""
    return any(_FALLING.search(name.lower()) for name in names)


def _orders_by_numbers(
    matrices: list[str], shapes: dict[str, tuple[int, ...]], layout: str,
) -> list[list[str]]:
    """Return orders that fit and keep to the numbers in names; at most two.

    Names that begin alike and go on with a number stand together, by this number, and
    those with the same number as they fit: stage by stage.
    """
    parts = {name: re.split(r"(\d+)", _with_number(name)) for name in matrices}
    block = {name: parts[name][0] if len(parts[name]) > 1 else name
             for name in matrices}

    def before(name: str, falls: bool) -> set[str]:
        """Names that begin alike and have a number that comes first."""
        names = set()
        for other in matrices:
            for ours, theirs in zip(parts[name], parts[other]):
                if ours != theirs:
                    if ours.isdecimal() and theirs.isdecimal() and (
                            (int(theirs) > int(ours)) == falls):
                        names.add(other)
                    break
        return names

    if len(set(block.values())) > _MOST_FREE or len(matrices) > _MOST_NUMBERED:
        return []

    def orders(falls: bool) -> list[list[str]]:
        earlier = {
            name: before(name, falls and _often_fall([name])) for name in matrices}

        def may_follow(last: str | None, name: str, remaining: list[str]) -> bool:
            leaves_block = last is not None and block[name] != block[last] and any(
                block[other] == block[last] for other in remaining)
            return not leaves_block and earlier[name].isdisjoint(remaining)

        return _orders_that_fit(matrices, shapes, layout, may_follow)

    rising = orders(falls=False)
    falling = orders(falls=True) if _often_fall(matrices) else []
    return [*rising, *(order for order in falling if order not in rising)][:2]


# More names have too many orders to try.
_MOST_FREE = 8
_MOST_NUMBERED = 200
_MOST_STEPS = 20000


def _orders_that_fit(
    matrices: list[str], shapes: dict[str, tuple[int, ...]], layout: str,
    may_follow: Callable[[str | None, str, list[str]], bool] | None = None,
) -> list[list[str]]:
    """Return orders in which matrices fit together, at most two; none if too many.

    `may_follow` tells from the last name, the next one, and all that remain, whether
    the next may stand there.
    """
    if may_follow is None and len(matrices) > _MOST_FREE:
        return []
    fitting: list[list[str]] = []
    waiting: list[tuple[list[str], list[str]]] = [([], matrices)]
    for _ in range(_MOST_STEPS if may_follow else 10 * _MOST_STEPS):
        if not waiting or len(fitting) == 2:
            return fitting
        order, remaining = waiting.pop()
        if not remaining:
            fitting.append(order)
        last = order[-1] if order else None
        outputs = _ends(shapes[last], layout)[1] if last else None
        for name in reversed(remaining):
            fits = outputs in (None, _ends(shapes[name], layout)[0])
            if fits and (may_follow is None or may_follow(last, name, remaining)):
                rest = [other for other in remaining if other != name]
                waiting.append(([*order, name], rest))
    return []


def _shared_matrices(checkpoint: Checkpoint, matrices: list[str]) -> list[str]:
    """Return the names of the first matrices that are one tensor; or none."""
    by_place: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name in matrices:
        values = checkpoint.weights[name]
        place = id(values)
        if isinstance(values, Tensor):
            place = values.data_ptr()
        by_place.setdefault((place, shape_of(values)), []).append(name)
    for names in by_place.values():
        if len(names) > 1:
            return names
    return []


# ------------------------------------------------------------ how matrices are stored


def _layouts(
    names: list[str], shapes: dict[str, tuple[int, ...]], stored: str | None,
) -> tuple[Sequence[str], bool]:
    """Return in which layouts a file's matrices may be stored, and if anything tells.

    A bias has one entry per output. Without biases the names tell: Keras calls a matrix
    (in, out) a kernel, and torch one (out, in) a weight. Of others the one layout is
    right in which they fit together. Where all are square both do: nothing tells, and
    torch's is taken.
    """
    if stored is not None:
        return [stored], True
    by_biases = _layout_by_biases(names, shapes)
    if by_biases is not None:
        return [by_biases], True
    if all(name.endswith("kernel") for name in names):
        return ["in-out"], True
    if all(shapes[name][0] == shapes[name][1] for name in names):
        return ["out-in"], False
    if all(name.endswith("weight") for name in names):
        return ["out-in"], True
    return LAYOUTS, True


def _layout_by_biases(
    names: list[str], shapes: dict[str, tuple[int, ...]],
) -> str | None:
    """Return the layout that all biases agree on; None where they do not tell."""
    layouts = set(_layouts_of_biases(names, shapes).values())
    return layouts.pop() if len(layouts) == 1 else None


def _layouts_of_biases(
    names: list[str], shapes: dict[str, tuple[int, ...]],
) -> dict[str, str]:
    """Return the layouts of those matrices whose bias tells it, by their names."""
    layouts = {}
    for name in names:
        rows, columns = shapes[name]
        for bias in bias_names(name):
            if rows != columns and len(shapes.get(bias, ())) == 1:
                layouts[name] = "out-in" if shapes[bias][0] == rows else "in-out"
    return layouts


# How GPT-2 calls its layers, which transformers stores (in, out) as Conv1D
_CONV1D = re.compile(r"(^|\.)c_(attn|fc|proj)\.weight$")


def _refuse_mixed_layouts(
    checkpoint: Checkpoint, names: list[str], shapes: dict[str, tuple[int, ...]],
) -> None:
    """Refuse Conv1D of transformers, stored (in, out), beside nn.Linear (out, in).

    In a module's state dict the layout of a square matrix is that of its class, which
    is not stored: biases of others do not tell it.
    """
    layouts = _layouts_of_biases(names, shapes)
    by_layout = {layout: name for name, layout in layouts.items()}
    if len(by_layout) > 1:
        raise ValueError(
            f"{checkpoint.name}: by their biases {by_layout['out-in']} is stored (out, "
            f"in) and {by_layout['in-out']} (in, out); wanted one layout for all")
    of_torch = checkpoint.metadata or any(map(_CONV1D.search, layouts))
    if not of_torch or "in-out" not in by_layout:
        return
    for name in names:
        rows, columns = shapes[name]
        is_told = rows != columns or _CONV1D.search(name)
        if not is_told and name.endswith("weight"):
            raise ValueError(
                f"{checkpoint.name}: {by_layout['in-out']} is stored (in, out), as "
                f"Conv1D, and nothing tells whether {name}, which is square, is stored "
                f"so or (out, in), as nn.Linear; say --stored in-out if all are")


# ------------------------------------------------------------ products


def chain_of(layers: Sequence[Any]) -> Tensor:
    """Return the chain (inputs, outputs) of layers up to its scale, block by block.

    The product runs from the outputs inwards, as in ``chain``: outputs are few, so
    every intermediate product is thin. wCKA does not depend on the scale, so each
    product is divided by a power of 2: hundreds of layers cannot overflow.

    Parameters
    ----------
    layers : sequence of Layer
        From the inputs to the outputs.

    Returns
    -------
    Tensor
        float64; its largest entry is between 0.5 and 1 in size, unless it is zero.

    Examples
    --------
    >>> layers = [Layer("a", torch.ones(3, 2)), Layer("b", torch.ones(1, 3))]
    >>> chain_of(layers).tolist()
    [[0.75], [0.75]]
    """
    # The chain of the layers that come after.
    right = torch.eye(layers[-1].outputs, dtype=torch.float64, device="cpu")
    for layer in reversed(layers):
        product = right.new_zeros(layer.inputs, right.shape[1])
        for part, rows in layer.blocks():
            if layer.layout == "out-in":
                product.addmm_(rows.T, right[part])
            else:
                product[part] = rows @ right
        right = to_unit_range(product)  # (inputs, outputs of the network)
    return right


def chains_up_to(layers: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the chain up to each layer, (inputs, units), from the first, up to scale.

    Examples
    --------
    >>> layers = [Layer("a", torch.ones(3, 2)), Layer("b", torch.ones(1, 3))]
    >>> [tuple(chain.shape) for chain in chains_up_to(layers)]
    [(2, 3), (2, 1)]
    """
    left = None
    for layer in layers:
        if layer.layout == "out-in":
            columns = []
            for _, rows in layer.blocks():
                columns.append(rows.T if left is None else left @ rows.T)
            left = torch.cat(columns, 1)  # (inputs of the network, units)
        else:
            blocks = [(part, rows) for part, rows in layer.blocks()]
            if left is None:
                left = torch.cat([rows for _, rows in blocks])
            else:
                left = sum(left[:, part] @ rows for part, rows in blocks)
        left = to_unit_range(left)
        yield left
