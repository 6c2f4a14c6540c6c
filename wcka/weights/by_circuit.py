"""Transformers in files, compared by their circuits over the tokens they share."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..measures.validation import Array
from .chance import without_chance
from .checkpoints import Checkpoint
from .families import Transformer, config_beside, family_of
from .file_group import FileGroup
from .token_circuits import CIRCUITS, Circuits, compare_circuits
from .vocabulary import shared_rows, vocabulary_beside

CIRCUIT_NAMES = {
    "direct": "direct (embedding, unembedding)",
    "ov": "OV (what attention moves)",
    "qk": "QK (where attention looks)",
    "mlp": "MLP",
}


def are_transformers(files: FileGroup) -> bool:
    """Tell whether there is a transformer's ``config.json`` beside each of the files.

    Examples
    --------
    >>> are_transformers(FileGroup())
    False
    """
    configs = [config_beside(file.name) for file in files.fitting]
    return bool(configs) and all(map(_is_known, configs))


def _is_known(config: Mapping[str, Any] | None) -> bool:
    """Tell whether a configuration is that of a family whose names are known."""
    if config is None:
        return False
    try:
        family_of(config)
    except ValueError:
        return False
    return True


def compare_transformers(files: FileGroup) -> dict[str, Any]:
    """Compare transformers, whose weights are read layer by layer.

    Parameters
    ----------
    files : FileGroup
        It loses the files of a folder that do not fit.

    Returns
    -------
    dict
        What ``comparison.compare_files`` says of its networks. "all" has the median
        over circuits of their means over layers, "layers" one table per circuit and
        layer of the shallowest network; see ``token_circuits.corresponding_layers``.

    Raises
    ------
    ValueError
        For weights that the family does not have, or tokens that do not correspond.

    Examples
    --------
    >>> compare_transformers(FileGroup("empty folder"))
    Traceback (most recent call last):
    ValueError: empty folder: wanted at least two files that can be compared, got none
    """
    networks = files.results(_transformer_in)
    vocabularies = [vocabulary_beside(file.name) for file in files.fitting]
    counts = [network.rows for network in networks]
    names = ", ".join(file.name for file in files.fitting)
    try:
        rows, note = shared_rows(vocabularies, counts)
    except ValueError as error:
        raise ValueError(f"{names}: {error}") from None
    tables = compare_circuits([
        Circuits(network, tokens) for network, tokens in zip(networks, rows)])
    means = np.stack([tables[circuit].mean(0) for circuit in CIRCUITS])
    assumed = [f"rows are tokens: {note}"]
    depths = [network.depth for network in networks]
    if len(set(depths)) > 1:
        assumed.append(
            f"networks have {min(depths)} to {max(depths)} layers: {min(depths)} of "
            f"each are compared, at the same relative depth")
    for file, network in zip(files.fitting, networks):
        assumed += [f"{file.name}: {network_note}" for network_note in network.notes]
    layers = {}
    for circuit in CIRCUITS:
        for layer, values in enumerate(tables[circuit]):
            name = circuit if circuit == "direct" else f"{circuit} {layer}"
            layers[name] = without_chance(values)
    return {
        "assumed": [*dict.fromkeys(assumed), *files.notes()],
        "chains": {},
        "undecided": "",
        "shape": (len(rows[0]), networks[0].width),
        "chance": "unknown",
        "untrained": 0,
        "layers": layers,
        "without layers": "",
        "all": without_chance(np.median(means, axis=0)),
    }


def _transformer_in(file: Checkpoint) -> Transformer:
    """Return the transformer in a file, by the configuration beside it."""
    config = config_beside(file.name)
    assert config is not None
    try:
        return Transformer(file.weights, config)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None


def circuit_lines(layers: dict[str, Any], i: int, j: int) -> list[str]:
    """Return one line of text per circuit, on the similarity of two networks.

    Parameters
    ----------
    layers : dict
        The tables "layers" of ``compare_transformers``.
    i, j : int
        Positions of the two networks.

    Examples
    --------
    >>> table = {"wcka": [[1.0, 0.25], [0.25, 1.0]]}
    >>> circuit_lines({"direct": table, "ov 0": table, "ov 1": table}, 0, 1)[1].split()
    ... # doctest: +ELLIPSIS
    ['OV', '(what', 'attention', 'moves)', '0.2500', ..., '(0.2500', 'to', '0.2500)']
    """
    lines = []
    for circuit, name in CIRCUIT_NAMES.items():
        values = _values_of(circuit, layers, i, j)
        if len(values) == 0:
            continue
        text = f"    {name:31}  {values.mean():.4f}"
        if circuit != "direct":
            text += (f" on average over {len(values)} layers ({values.min():.4f} to "
                     f"{values.max():.4f})")
        lines.append(text)
    return lines


def _values_of(circuit: str, layers: dict[str, Any], i: int, j: int) -> Array:
    """Return the values of one circuit of two networks, by layer."""
    values = []
    for name, table in layers.items():
        if re.sub(r" \d+$", "", name) == circuit:
            values.append(table["wcka"][i][j])
    return np.array(values)
