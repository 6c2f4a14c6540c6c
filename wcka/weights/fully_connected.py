"""Fully connected networks in files, compared by their matrices block by block."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from ..measures.all_pairs import compare
from ..measures.spelling import printable
from .chance import beside_orders, unknown
from .checkpoints import Checkpoint
from .file_group import FileGroup
from .wiring import Chain, Layer, UnknownOrder, chain_in, chain_of, chains_up_to

# Multiplications from which a layer-by-layer comparison must be asked for.
_MANY = 2e12
# Two readings of one file are the same if their similarities differ by less.
_SAME = 1e-6


def compare_chains(
    files: FileGroup, by_layer: bool, order: Sequence[str] = (),
    stored: str | None = None,
) -> dict[str, Any]:
    """Compare fully connected networks, whose matrices are read block by block.

    Parameters
    ----------
    files : FileGroup
        It loses the files of a folder that do not fit.
    by_layer, order, stored
        As in ``comparison.compare_files``.

    Returns
    -------
    dict
        What ``comparison.compare_files`` says of its networks.

    Raises
    ------
    ValueError
        For matrices that are known to be no chain, or take different inputs.

    Examples
    --------
    >>> compare_chains(FileGroup("empty folder"), False)
    Traceback (most recent call last):
    ValueError: empty folder: wanted at least two files that can be compared, got none
    """
    chains, matchings = read_chains(files, order, stored)
    trained = files.results(_multiplied, chains)
    chains = [network.chain for network in trained]
    widths = list(map(_widths, chains))
    undecided = _undecided_by_inputs(chains)
    if not undecided:
        table = beside_orders([network.product for network in trained])
        undecided = _undecided(chains, table)
    if undecided:
        table = unknown(len(chains))
        warnings.warn(undecided, stacklevel=3)
    reason = _reason_for_no_layers(widths, undecided, by_layer)
    layers = {} if reason else _layer_tables(trained)
    assumed = [*notes_on_chains(files.fitting, chains), *matchings, *files.notes()]
    return {
        "assumed": assumed,
        "chains": _described_chains(files.fitting, chains),
        "undecided": undecided,
        "shape": tuple(trained[0].product.shape),
        "chance": "orders",
        "untrained": 0,
        "layers": layers,
        "without layers": reason,
        "all": table,
    }


# ------------------------------------------------------------ the chains in the files


def read_chains(
    files: FileGroup, order: Sequence[str] = (), stored: str | None = None,
) -> tuple[list[Chain], list[str]]:
    """Read each file as a chain; all of them take the same inputs.

    Parameters
    ----------
    files : FileGroup
        It loses the files of a folder that do not fit.
    order, stored
        As in ``comparison.compare_files``.

    Returns
    -------
    chains : list of Chain
        One for each file that fits.
    assumed : list of str
        Which layers were matched by their names.

    Raises
    ------
    ValueError
        As ``compare_chains``.

    Examples
    --------
    >>> from torch import ones
    >>> a, b = (Checkpoint(name, {"fc.weight": ones(3, 4)}) for name in ("a", "b"))
    >>> chains, assumed = read_chains(FileGroup(fitting=[a, b]))
    >>> chains[0].text(), assumed
    ('fc 4x3', [])
    """
    chains, assumed = _chains_in(files, order, stored)
    return _of_same_inputs(files, chains), assumed


def _chains_in(
    files: FileGroup, order: Sequence[str], stored: str | None,
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
        if not _needs_order_of(reference, file, chain):
            assert isinstance(chain, Chain)
            return chain
        chain = chain_in(
            file, reference, stored, f"in the order of {reference_file}")
        assumed.append(
            f"{file.name}: its layers are matched with those of {reference_file} by "
            f"name, not by position")
        return chain

    return files.results(matched, chains), assumed


def _needs_order_of(
    reference: list[str], file: Checkpoint, chain: Chain | UnknownOrder,
) -> bool:
    """Tell whether a file's layers must be put into another file's order.

    Raises
    ------
    UnknownOrder
        If the order of a file's own layers is not known, and they have other names.
    """
    if isinstance(chain, Chain):
        names = [layer.name for layer in chain.layers]
        return set(names) == set(reference) and names != reference
    if not set(reference) <= set(file.weights):
        raise chain
    return True


def _of_same_inputs(files: FileGroup, chains: list[Chain]) -> list[Chain]:
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


def notes_on_chains(files: list[Checkpoint], chains: list[Chain]) -> list[str]:
    """Return a sentence for each way in which files were read.

    Examples
    --------
    >>> from torch import ones
    >>> file = Checkpoint("a.pt", {"fc.weight": ones(3, 4)})
    >>> notes_on_chains([file], [chain_in(file)])
    ['read as one chain: fc 4x3 (one layer; stored (out, in))']
    """
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


@dataclass(frozen=True)
class _Network:
    """A network of a file: its chain, its layers under names for messages, the product.

    Attributes
    ----------
    chain : Chain
    layers : list of Layer
    product : Tensor
        (inputs, outputs).
    """

    chain: Chain
    layers: list[Layer]
    product: Tensor


def _multiplied(file: Checkpoint, chain: Chain) -> _Network:
    """Multiply the layers of a file's chain, which are named with the file."""
    layers = []
    for layer in chain.layers:
        name = f"{file.name}: {printable(layer.name)}"
        layers.append(replace(layer, name=name))
    return _Network(chain, layers, chain_of(layers))


def _undecided_by_inputs(chains: list[Chain]) -> str:
    """Return why networks of so few inputs have no similarity; "" if they have one."""
    inputs = chains[0].layers[0].inputs
    if inputs == 1:
        return "the networks take one input, and wCKA compares what inputs differ in"
    if inputs == 2:
        return ("the networks take two inputs, and any two such networks have wCKA 1: "
                "once centred, the two rows of a chain are opposite")
    return ""


def _undecided(chains: list[Chain], table: dict[str, Any]) -> str:
    """Return why nothing is known where two layouts give two values; "" if they agree.

    Where all matrices are square, nothing may tell how they are stored. Stored (in,
    out) in place of (out, in), a chain is another one, with another similarity.
    """
    if any(chain.layout_known for chain in chains):
        return ""
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


def _described_chains(
    files: list[Checkpoint], chains: list[Chain],
) -> dict[str, list[dict[str, Any]]]:
    """Return the layers of all chains as JSON holds them, by file."""
    layers_by_file = {}
    for file, chain in zip(files, chains):
        layers = []
        for layer in chain.layers:
            layers.append(
                {"name": layer.name, "inputs": layer.inputs, "outputs": layer.outputs})
        layers_by_file[file.name] = layers
    return layers_by_file


def _widths(chain: Chain) -> list[int]:
    """Return the numbers of units of a network's layers, from the inputs on."""
    return [chain.layers[0].inputs, *(layer.outputs for layer in chain.layers)]


# ------------------------------------------------------------ layer by layer


def _reason_for_no_layers(
    widths: list[list[int]], undecided: str, by_layer: bool,
) -> str:
    """Return why networks are not compared layer by layer; "" if they are."""
    if len(set(map(len, widths))) > 1:
        return "the networks differ in depth"
    if undecided:
        return "undecided"
    if _multiplications(widths) >= _MANY and not by_layer:
        return "long in networks this wide: --layers asks for it"
    return ""


def _multiplications(widths: list[list[int]]) -> int:
    """Return how many multiplications a layer-by-layer comparison takes, about."""
    count = 0
    for layer_widths in widths:
        for inputs, outputs in pairwise(layer_widths):
            # The chain up to a layer, and its Gram matrix.
            count += layer_widths[0] * (inputs * outputs + outputs * outputs)
    return count


def _layer_tables(trained: list[_Network]) -> dict[str, Any]:
    """Return a table for the chains up to each layer, by its name in the first file."""
    names = [layer.name for layer in trained[0].chain.layers]
    # Iterators: the chains of one layer are in memory at a time.
    steps = zip(*(chains_up_to(network.layers) for network in trained))
    tables = {}
    for name, chains in zip(names, steps):
        tables[name] = beside_orders(chains)
    return tables
