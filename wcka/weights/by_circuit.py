"""Transformers in files, compared by their circuits over the tokens they share."""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..measures.validation import Array
from .chance import without_chance
from .checkpoints import Checkpoint
from .families import (
    OF_IMAGES,
    NotFinite,
    Transformer,
    config_beside,
    reason_against_config,
)
from .file_group import FileGroup
from .messages import counted, listed
from .token_circuits import CIRCUITS, Circuits, compare_circuits
from .vocabulary import shared_rows, vocabulary_beside

# The rows of tokens by their strings
_Vocabulary = dict[str, int] | None

CIRCUIT_NAMES = {
    "direct": "direct (embedding, unembedding)",
    "ov": "OV (what attention moves)",
    "qk": "QK (where attention looks)",
    "mlp": "MLP",
}


def are_transformers(files: FileGroup) -> bool:
    """Tell whether files are transformers, with a known ``config.json`` beside each.

    Parameters
    ----------
    files : FileGroup
        A folder of both kinds loses those of the kind that it has fewer of.

    Raises
    ------
    ValueError
        For transformers and others that the caller names together.

    Examples
    --------
    >>> are_transformers(FileGroup())
    False
    """
    reasons = {file.name: _reason_against(file) for file in files.fitting}
    others = {name: reason for name, reason in reasons.items() if reason}
    if not others or len(others) == len(reasons):
        return bool(reasons) and not others
    if not files.folder:
        name, reason = next(iter(others.items()))
        transformer = next(iter(reasons.keys() - others.keys()))
        raise ValueError(
            f"{transformer} is a transformer, and {name} is not compared with it: "
            f"{reason}")
    most_are = len(others) <= len(reasons) / 2
    fitting = []
    for file in files.fitting:
        reason = reasons[file.name]
        if bool(reason) != most_are:
            fitting.append(file)
        else:
            files.left_out[file.name] = reason or (
                "a transformer, and most files of the folder are none")
    files.fitting = fitting
    return most_are


def _reason_against(file: Checkpoint) -> str:
    """Return why a file is not read as a transformer; "" if it is."""
    reason = reason_against_config(file.place)
    if reason:
        return reason
    config = config_beside(file.place)
    assert config is not None
    if file.place.is_file():  # which may be another network's, beside a transformer
        try:
            Transformer(file.weights, config)
        except ValueError as error:
            return f"the config.json beside it is not its own: {error}"
    return ""


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
    networks, rows, note, tables = _tables_of(files, networks)
    of_other_heads = _without_pairs_of_other_heads(networks, tables)
    means = np.stack([_of_known(np.nanmean, tables[circuit]) for circuit in CIRCUITS])
    what = "pixels of patches" if networks[0].family in OF_IMAGES else "tokens"
    assumed = [f"rows are {what}: {note}"]
    depths = [network.depth for network in networks]
    if len(set(depths)) > 1:
        assumed.append(
            f"networks have {min(depths)} to {max(depths)} layers: {min(depths)} of "
            f"each {'is' if min(depths) == 1 else 'are'} compared, at the same "
            f"relative depth")
    for file, network in zip(files.fitting, networks):
        assumed += [f"{file.name}: {network_note}" for network_note in network.notes]
    assumed += _notes_on_constant_circuits(files, networks, tables)
    if of_other_heads:
        assumed.append("heads of other numbers of classes: circuits that end there "
                       "(direct, OV and MLP) are left out between such files")
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
        "all": without_chance(_of_known(np.nanmedian, means)),
    }


def _tables_of(
    files: FileGroup, networks: list[Transformer],
) -> tuple[list[Transformer], list[Sequence[int]], str, dict[str, Array]]:
    """Return networks, the rows of their shared tokens, a note, and their tables.

    A folder loses networks with weights that are not finite, which are seen when they
    are read.
    """
    while True:
        networks, vocabularies = _of_same_rows(files, networks)
        counts = [network.rows for network in networks]
        try:
            if networks[0].family in OF_IMAGES:
                rows, note = _shared_pixels(counts)
            else:
                rows, note = shared_rows(vocabularies, counts)
        except ValueError as error:
            names = ", ".join(file.name for file in files.fitting)
            raise ValueError(f"{names}: {error}") from None
        try:
            with warnings.catch_warnings():  # a note says the same
                warnings.simplefilter("ignore", RuntimeWarning)
                return networks, rows, note, compare_circuits([
                    Circuits(network, tokens)
                    for network, tokens in zip(networks, rows)])
        except NotFinite as error:
            networks = files.results(partial(_without, error), networks)


def _shared_pixels(counts: list[int]) -> tuple[list[Sequence[int]], str]:
    """Return the rows of all patches' pixels and channels, and a note on them."""
    if len(set(counts)) > 1:
        sizes = " and ".join(map(str, dict.fromkeys(counts)))
        raise ValueError(
            f"their patches have {sizes} pixels, over all channels: rows are not the "
            f"same")
    rows: list[Sequence[int]] = [range(count) for count in counts]
    return rows, f"{counted(counts[0], 'row')} each, one for each pixel and channel"


def _without(
    error: NotFinite, file: Checkpoint, network: Transformer,
) -> Transformer:
    """Return a network, but refuse the one that an error is about."""
    if network is error.network:
        raise ValueError(f"{file.name}: {error}")
    return network


def _without_pairs_of_other_heads(
    networks: list[Transformer], tables: dict[str, Array],
) -> bool:
    """Remove what ends in heads of other classes; tell whether there is any."""
    outputs = np.array([
        network.outputs if network.family in OF_IMAGES and network.has_head else 0
        for network in networks])
    are_other = outputs[:, None] != outputs
    for circuit in CIRCUITS:
        if circuit != "qk":
            tables[circuit][:, are_other] = np.nan
    return bool((are_other & (outputs > 0) & (outputs[:, None] > 0)).any())


def _notes_on_constant_circuits(
    files: FileGroup, networks: list[Transformer], tables: dict[str, Array],
) -> list[str]:
    """Return a note for each file with circuits that have no similarity."""
    notes = []
    for i, (file, network) in enumerate(zip(files.fitting, networks)):
        names = []
        for circuit, values in tables.items():
            if not network.has_head and circuit != "qk":
                continue  # which is noted of the network
            for layer in np.flatnonzero(np.isnan(values[:, i, i])):
                names.append(circuit if circuit == "direct" else f"{circuit} {layer}")
        if names:
            notes.append(
                f"{file.name}: left out of averages, as zero or the same for all rows: "
                f"{listed(names)}")
    return notes


def _of_known(average: Callable[..., Any], values: Array) -> Array:
    """Average along the first axis over what is no NaN; NaN where nothing is."""
    with warnings.catch_warnings():  # of empty slices
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(average(values, axis=0))


def _of_same_rows(
    files: FileGroup, networks: list[Transformer],
) -> tuple[list[Transformer], list[_Vocabulary]]:
    """Return the networks whose rows may be the same tokens, or the same pixels.

    Behind them are their vocabularies, None where there is none.

    A folder loses those that are of the rarer kind, and those of which nothing says
    what tokens their rows are.
    """
    kinds = [
        "patches of images" if network.family in OF_IMAGES else "tokens"
        for network in networks]
    usual_kind = max(kinds, key=kinds.count)

    def of_usual_kind(
        file: Checkpoint, network: Transformer, kind: str,
    ) -> Transformer:
        if kind != usual_kind:
            raise ValueError(
                f"{file.name}: its rows are {kind}, and those of other files "
                f"{usual_kind}")
        return network

    networks = files.results(of_usual_kind, networks, kinds)
    are_images = usual_kind == "patches of images"
    vocabularies = [
        None if are_images else vocabulary_beside(file.place) for file in files.fitting]
    if not files.folder:
        return networks, vocabularies
    known = [vocabulary for vocabulary in vocabularies if vocabulary is not None]
    counts = [network.rows for network in networks]
    are_alike = all(vocabulary == known[0] for vocabulary in known)
    if len(known) == len(networks) or (are_alike and len(set(counts)) == 1):
        return networks, vocabularies
    usual_count = max(counts, key=counts.count)

    def of_known_rows(
        file: Checkpoint, network: Transformer, vocabulary: _Vocabulary,
    ) -> tuple[Transformer, _Vocabulary]:
        if len(known) >= 2 and vocabulary is None:
            raise ValueError(
                f"{file.name}: no tokenizer.json, vocab.json or vocab.txt says what "
                f"tokens its {network.rows:,} rows are, as in other files")
        if are_images and network.rows != usual_count:
            raise ValueError(
                f"{file.name}: its patches have {network.rows:,} pixels, over all "
                f"channels, and those of others {usual_count:,}")
        if len(known) < 2 and network.rows != usual_count:
            raise ValueError(
                f"{file.name}: it has {network.rows:,} rows, others have "
                f"{usual_count:,}, and not all have a tokenizer.json, vocab.json or "
                f"vocab.txt that says what are the same tokens")
        return network, vocabulary

    fitting = files.results(of_known_rows, networks, vocabularies)
    return [network for network, _ in fitting], [words for _, words in fitting]


def _transformer_in(file: Checkpoint) -> Transformer:
    """Return the transformer in a file, by the configuration beside it."""
    config = config_beside(file.place)
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
        known = values[np.isfinite(values)]
        if len(known) == 0:
            lines.append(f"    {name:31}  undefined, as noted above")
            continue
        text = f"    {name:31}  {known.mean():.4f}"
        if circuit != "direct":
            text += (f" on average over {counted(len(known), 'layer')} "
                     f"({known.min():.4f} to {known.max():.4f})")
        lines.append(text)
    return lines


def circuits_with_values(layers: dict[str, Any], i: int, j: int) -> list[str]:
    """Return which circuits of two networks have a similarity.

    Examples
    --------
    >>> table = {"wcka": [[1.0, 0.25], [0.25, 1.0]]}
    >>> circuits_with_values({"direct": table, "qk 0": table}, 0, 1)
    ['direct', 'qk']
    """
    return [circuit for circuit in CIRCUITS
            if np.isfinite(_values_of(circuit, layers, i, j)).any()]


def _values_of(circuit: str, layers: dict[str, Any], i: int, j: int) -> Array:
    """Return the values of one circuit of two networks, by layer."""
    values = []
    for name, table in layers.items():
        if re.sub(r" \d+$", "", name) == circuit:
            values.append(table["wcka"][i][j])
    return np.array(values)
