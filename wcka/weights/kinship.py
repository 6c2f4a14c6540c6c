"""Which networks in a folder descend from one another, by their weights alone.

Chains say what a network does, and first layers where it comes from: further training
changes a first layer least, and much of it stays as it was initialised. The score of
two fully connected networks is the Procrustes similarity of their first layers, whose
units have norm 1. It does not change when hidden units are permuted or multiplied by
positive numbers. That of two transformers is the median of their four circuits, see
``token_circuits``.

Families and trees are those of ``forest``. A folder of few language models is compared
with strangers of the book, see ``strangers``.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..measures.all_pairs import similarities
from ..measures.spelling import printable
from ..measures.validation import Array, matrix
from .by_circuit import are_transformers, compare_transformers
from .checkpoints import Checkpoint
from .families import ENCODERS, config_beside, family_of
from .file_group import FileGroup, read_group
from .forest import LEVEL, Forest, against_other_strangers, family_forest
from .fully_connected import notes_on_chains, read_chains
from .messages import listed
from .report import short_names
from .strangers import language_model_scores
from .wiring import Chain, Layer

# The version of what find_families returns and --json prints: raised when a key changes
# its meaning.
SCHEMA = 2
PROCRUSTES = "procrustes of first layers"
CIRCUITS = "median of four circuits"
# Pairs times cubed rank that singular values may take: less than a minute of two cores
_MOST_WORK = 2.5e11
# Random directions are not fewer.
_LEAST_DIRECTIONS = 64


def first_layer_similarities(
    matrices: Sequence[ArrayLike], directions: int | None = None,
) -> Array:
    """Return the Procrustes similarity of first layers, with units of norm 1.

    Parameters
    ----------
    matrices : sequence of N array-likes
        (inputs, units), the weights of first layers; inputs are shared.
    directions : int, optional
        Compare the layers in so many random directions of the inputs, the same for all;
        by default in all directions.

    Returns
    -------
    ndarray
        (N, N), in [0, 1]: ``wcka.pairwise("procrustes", ...)`` of the normalised
        matrices. It stays as it is when units are permuted, multiplied by positive
        numbers, or change their sign. NaN, with a warning, for layers whose units
        weigh all inputs alike.

    Raises
    ------
    ValueError, TypeError
        As ``wcka.pairwise``.

    Examples
    --------
    >>> layer = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> disguised = 3 * layer[:, [1, 0]]
    >>> stranger = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    >>> first_layer_similarities([layer, disguised, stranger]).round(3).tolist()[0]
    [1.0, 1.0, 0.924]
    """
    units = []
    labels = []
    for i, values in enumerate(matrices):
        label = f"matrices[{i}]"
        units.append(normalised_units(matrix(values, label), directions))
        labels.append(label)
    return similarities("procrustes", units, labels)


def normalised_units(weights: Tensor, directions: int | None = None) -> Tensor:
    """Return a layer whose units have norm 1, in all directions of its inputs or fewer.

    Parameters
    ----------
    weights : Tensor
        (inputs, units).
    directions : int, optional
        As in ``first_layer_similarities``.

    Returns
    -------
    Tensor
        (inputs, units), or (directions, units), float64. A unit without weights stays
        zero.

    Examples
    --------
    >>> normalised_units(torch.tensor([[3.0, 0.0], [4.0, 0.0]])).T.tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    weights = weights.double()
    norms = weights.norm(dim=0)
    units = weights / torch.where(norms > 0, norms, 1)
    if directions is None or directions >= min(units.shape):
        return units
    centred = units - units.mean(0)
    return _basis(len(units), directions).to(centred) @ centred


def _basis(inputs: int, directions: int) -> Tensor:
    """Return random orthonormal rows (directions, inputs), the same in every call."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    normal = torch.randn(inputs, directions, generator=generator, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(normal)[0].T
    return basis


# ------------------------------------------------------------ files


def find_families(
    paths: Sequence[str], *, key: str | None = None, order: Sequence[str] = (),
    stored: str | None = None,
) -> dict[str, Any]:
    """Return the families of the networks in files, and the tree of each.

    Parameters
    ----------
    paths : sequence of str
        A folder of checkpoints, or at least two files; see ``checkpoints.read``. Of a
        folder, files that cannot be compared with the others are left out.
    key, order, stored
        As in ``comparison.compare_files``.

    Returns
    -------
    dict
        - "schema": 2, the version of this list.
        - "files": their names.
        - "left out": the files of a folder that do not fit, each with the reason.
        - "assumed": sentences on what was assumed to read the files, in order.
        - "score": what the scores are, one of ``PROCRUSTES`` and ``CIRCUITS``.
        - "scores": (N, N), for all pairs.
        - "families": lists of names, the largest family first.
        - "alone": the names of networks in no tree: without kin in the folder.
        - "edges": of all trees, from the strongest on: the two names "a" and "b", of
          which neither is said to come from the other, "score", and "p", the corrected
          probability that strangers reach it; NaN where it is not known. Where files
          are too few for families, the edges of one tree of all.
        - "strangers": those that p is computed from: "of" is "folder" for the pairs
          between families, or "book" for the scores of ``strangers``, which stand in
          where a folder of language models has too few; then "count", "mean" and "max",
          NaN where nobody knows.
        - "undecided": the reason why the folder tells no families for certain; ""
          otherwise.
        - "seconds": the time that all took.

    Raises
    ------
    ValueError
        For bad files, for matrices that are known to be no chain, where nothing tells
        how they are stored, and for networks that have no score.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    ...     for i in range(6):
    ...         _ = torch.manual_seed(min(i, 4))
    ...         weights = torch.nn.Linear(50, 5).state_dict()
    ...         torch.save(weights, f"{folder}/{i}.pt")
    ...     result = find_families([folder])
    >>> [[name[-4:] for name in family] for family in result["families"]]
    [['4.pt', '5.pt']]
    """
    start = time.perf_counter()
    files = read_group(paths, key)
    if not (order or stored) and are_transformers(files):
        compared = compare_transformers(files)
        scores = np.array(compared["all"]["wcka"])
        assumed = compared["assumed"]
        kind = CIRCUITS
        of_direct = np.array(compared["layers"]["direct"]["wcka"])
    else:
        scores, assumed = _first_layers(files, order, stored)
        kind = PROCRUSTES
        of_direct = np.full(scores.shape, np.nan)
    compared_names = [file.name for file in files.fitting]
    scores, assumed = _with_scores(files, scores, assumed, kind)
    names = [file.name for file in files.fitting]
    kept = [i for i, name in enumerate(compared_names) if name in names]
    has_unembeddings = bool(np.isfinite(of_direct[np.ix_(kept, kept)]).all())
    forest = family_forest(scores)
    source = "folder"
    # The book's scores are of networks with all four circuits.
    if forest.undecided and has_unembeddings and _are_decoders(files):
        forest = against_other_strangers(forest, scores, language_model_scores())
        source = "book"
    return {
        "schema": SCHEMA,
        "files": names,
        "left out": files.left_out,
        "assumed": assumed,
        "score": kind,
        "scores": scores.tolist(),
        **_named(forest, names, source),
        "undecided": forest.undecided,
        "seconds": time.perf_counter() - start,
    }


def _are_decoders(files: FileGroup) -> bool:
    """Tell whether all files are transformers that predict the next token."""
    configs = [config_beside(file.place) for file in files.fitting]
    return all(config and family_of(config) not in ENCODERS for config in configs)


def _first_layers(
    files: FileGroup, order: Sequence[str], stored: str | None,
) -> tuple[Array, list[str]]:
    """Return the scores of fully connected networks, and what was assumed."""
    chains, matchings = read_chains(files, order, stored)
    if not any(chain.layout_known for chain in chains):
        raise ValueError(
            f"{files.fitting[0].name}: all matrices are square, and nothing tells how "
            f"they are stored; say --stored out-in or --stored in-out")
    inputs = chains[0].layers[0].inputs
    if inputs < 3:
        raise ValueError(
            f"{files.fitting[0].name}: networks of {inputs} input"
            f"{'s' if inputs > 1 else ''} cannot be told apart by their first layers: "
            f"all of them have similarity 1")
    directions = _directions(chains)

    def read_units(file: Checkpoint, chain: Chain) -> tuple[Chain, Tensor]:
        weights = _whole(chain.layers[0], file.name)
        if not (weights - weights.mean(0)).any():
            raise ValueError(
                f"{file.name}: {printable(chain.layers[0].name)} weighs all inputs "
                f"alike")
        return chain, normalised_units(weights, directions)

    networks = files.results(read_units, chains)
    chains = [chain for chain, _ in networks]
    units = [values for _, values in networks]
    names = [file.name for file in files.fitting]
    scores = similarities("procrustes", units, names)
    assumed = [*notes_on_chains(files.fitting, chains), *matchings, *files.notes()]
    if directions is not None:
        assumed.append(
            f"first layers are compared in {directions} random directions of their "
            f"{chains[0].layers[0].inputs} inputs, the same for all files: there are "
            f"many pairs of large layers")
    # The product of a pair is computed once, but its two roundings may differ.
    return (scores + scores.T) / 2, assumed


def _directions(chains: Sequence[Chain]) -> int | None:
    """Return in how many directions first layers are compared; None for all."""
    firsts = [chain.layers[0] for chain in chains]
    rank = max(min(layer.inputs, layer.outputs) for layer in firsts)
    pairs = len(chains) * (len(chains) - 1) / 2
    if pairs * rank**3 <= _MOST_WORK:
        return None
    return max(int((_MOST_WORK / pairs)**(1 / 3)), _LEAST_DIRECTIONS)


def _whole(layer: Layer, file: str) -> Tensor:
    """Return a layer's weights (inputs, units), which are read once.

    Raises
    ------
    ValueError
        For weights that are not finite, with the name of the file.
    """
    try:
        rows = torch.cat([rows for _, rows in layer.blocks()])
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return rows.T if layer.layout == "out-in" else rows


def _with_scores(
    files: FileGroup, scores: Array, assumed: list[str], kind: str,
) -> tuple[Array, list[str]]:
    """Leave networks out that have no score with others, and what is said of them."""
    what = "first layer weighs all inputs alike"
    if kind == CIRCUITS:
        what = "circuits are zero, or the same for all rows"
    while True:
        unknown = np.isnan(scores)
        np.fill_diagonal(unknown, False)
        if not unknown.any():
            return scores, assumed
        position = int(unknown.sum(1).argmax())
        name = files.fitting[position].name
        files.leave_out(name, ValueError(f"{name}: its {what}: it has no score"))
        del files.fitting[position]
        files.check_number()
        scores = np.delete(np.delete(scores, position, 0), position, 1)
        assumed = [note for note in assumed if not note.startswith(f"{name}: ")]


def _named(forest: Forest, names: Sequence[str], source: str) -> dict[str, Any]:
    """Return families, edges and strangers as JSON holds them."""
    edges = []
    for edge in forest.edges:
        edges.append({"a": names[edge.a], "b": names[edge.b], "score": edge.score,
                      "p": edge.p})
    families = []
    for members in forest.families():
        families.append([names[i] for i in members])
    strangers: dict[str, Any] = {
        "of": source, "count": len(forest.strangers), "mean": np.nan, "max": np.nan}
    if len(forest.strangers):
        strangers["mean"] = float(forest.strangers.mean())
        strangers["max"] = float(forest.strangers.max())
    return {
        "families": families,
        "alone": [names[i] for i in forest.alone()],
        "edges": edges,
        "strangers": strangers,
    }


# ------------------------------------------------------------ text


def described_families(result: dict[str, Any]) -> str:
    """Return the result of ``find_families`` as text for people.

    The first line is the answer. Then comes a tree for each family, drawn from the
    network that the others are closest to on average.

    Examples
    --------
    >>> scores = [[1, 0.9, 0.8], [0.9, 1, 0.5], [0.8, 0.5, 1]]
    >>> edges = [{"a": "a.pt", "b": "b.pt", "score": 0.9, "p": 0.001},
    ...          {"a": "a.pt", "b": "c.pt", "score": 0.8, "p": 0.002}]
    >>> result = {"files": ["a.pt", "b.pt", "c.pt"], "left out": {}, "assumed": [],
    ...           "score": PROCRUSTES, "scores": scores, "edges": edges, "alone": [],
    ...           "families": [["a.pt", "b.pt", "c.pt"]], "undecided": "",
    ...           "strangers": {"of": "folder", "count": 0}, "seconds": 1.0}
    >>> print(described_families(result).splitlines()[0])
    3 files: one family of 3
    >>> for line in described_families(result).splitlines()[2:5]:
    ...     print(line)
    a.pt
    |-- b.pt  0.9000  p 0.001
    `-- c.pt  0.8000  p 0.002
    """
    paths = [*result["files"], *result["left out"]]
    short = dict(zip(paths, short_names(paths)))
    lines = [_answer(result)]
    for family in result["families"]:
        edges = [edge for edge in result["edges"] if edge["a"] in family]
        lines.append(f"family of {len(family)}:")
        lines += _tree_lines(_centre(family, result), edges, short)
    if result["edges"] and not result["families"]:
        lines.append("tree of all, kin or not:")
        centre = _centre(result["files"], result)
        lines += _tree_lines(centre, result["edges"], short)
    if result["alone"] and result["families"]:
        lines.append(f"no kin found in this folder: {_with_nearest(result, short)}")
        lines.append("a descendant that was trained on for long can look like a "
                     "stranger")
    for name, reason in result["left out"].items():
        lines.append(f"left out {short[name]}: {reason}")
    lines += _assumption_lines(result, short)
    lines.append(_sentence_on_strangers(result))
    if result["edges"]:
        lines.append("edges join neighbours: they do not tell which of two networks "
                     "comes from the other")
    if result["families"] and result["strangers"]["of"] == "folder":
        lines.append("p holds for strangers as there are here: where tasks differ, "
                     "networks that share nothing but the task look like a family")
    lines.append(f"scores: {result['score']}; {result['seconds']:.1f} s")
    return "\n".join(lines)


def _with_nearest(result: dict[str, Any], short: dict[str, str]) -> str:
    """List the networks without kin, each with the one that it is most similar to."""
    scores = np.array(result["scores"], float)
    np.fill_diagonal(scores, -np.inf)
    texts = []
    for name in result["alone"]:
        row = scores[result["files"].index(name)]
        nearest = int(np.nanargmax(row))
        texts.append(
            f"{short[name]} (nearest {short[result['files'][nearest]]}, "
            f"{row[nearest]:.4f})")
    return ", ".join(texts)


def _assumption_lines(result: dict[str, Any], short: dict[str, str]) -> list[str]:
    """Return what was assumed; what is the same for many files in one line."""
    files_by_note: dict[str, list[str]] = {}
    for sentence in result["assumed"]:
        path, separator, note = sentence.partition(": ")
        if not separator or path not in short:
            path, note = "", sentence
        files_by_note.setdefault(note, []).append(path)
    lines = []
    for note, paths in files_by_note.items():
        names = listed([short[path] for path in paths if path])
        lines.append(f"{names}: {note}" if names else note)
    return lines


def _answer(result: dict[str, Any]) -> str:
    """Return the first line: how many families there are, and how large they are."""
    count = len(result["files"])
    sizes = [len(family) for family in result["families"]]
    if result["undecided"] and not sizes:
        text = f"{count} files, kinship undecided: {result['undecided']}"
        if result["strangers"]["of"] == "book":
            text += "; p is against strangers of the book"
        return text
    if not sizes:
        return (f"{count} files: no pair stands out from the others, so that none of "
                f"the networks are kin, or all are")
    if len(sizes) == 1:
        families = f"one family of {sizes[0]}"
    else:
        listed_sizes = ", ".join(map(str, sizes[:-1]))
        families = f"{len(sizes)} families of {listed_sizes} and {sizes[-1]}"
    if result["undecided"] and result["strangers"]["of"] == "book":
        return (f"{count} files: perhaps {families}, by p against strangers of the "
                f"book; this folder does not tell: {result['undecided']}")
    if result["undecided"]:
        return f"{count} files: perhaps {families}, but {result['undecided']}"
    return f"{count} files: {families}"


def _sentence_on_strangers(result: dict[str, Any]) -> str:
    """Return a sentence on the pairs that p is computed from."""
    strangers = result["strangers"]
    count = strangers["count"]
    if not count:
        text = "strangers: which pairs are of different families is not known"
        if result["score"] == PROCRUSTES:
            text += (", and the book has none for first layers: what these have in "
                     "common depends on their inputs and the number of units")
        return text
    scores = (f"scores {strangers['mean']:.4f} on average, at most "
              f"{strangers['max']:.4f}")
    if strangers["of"] == "book":
        return (f"strangers: {count} pairs of small language models from the book, "
                f"each pair of another size or training, which learned one text from "
                f"different weights, {scores}; p is the probability that a pair of one "
                f"more such kind reaches a score (Student's t, corrected by Holm): "
                f"models that learned more may have more in common without any descent")
    pairs = "1 pair" if count == 1 else f"{count} pairs"
    text = f"strangers: {pairs} of different families, {scores}"
    if result["edges"] and not result["undecided"]:
        text += (f"; p is the probability that one of all such pairs reaches a score "
                 f"(Student's t, corrected by Holm; families end at {LEVEL:.0%})")
    return text


def _centre(family: Sequence[str], result: dict[str, Any]) -> str:
    """Return the network of a family with the highest mean score with the others."""
    positions = [result["files"].index(name) for name in family]
    scores = np.array(result["scores"])[np.ix_(positions, positions)]
    return family[int(scores.sum(1).argmax())]


def _tree_lines(
    centre: str, edges: Sequence[dict[str, Any]], short: dict[str, str],
) -> list[str]:
    """Return one line of text per network of a tree, from its centre on."""
    lines = [short[centre]]
    # Networks to draw, each with the edge to it, the line's start, and whether it is
    # the last one below its neighbour; the last of the list is drawn first.
    waiting = _branches(centre, edges, "", None)
    while waiting:
        name, edge, indent, is_last = waiting.pop()
        branch = "`-- " if is_last else "|-- "
        lines.append(f"{indent}{branch}{short[name]}  {edge['score']:.4f}"
                     f"{_p_text(edge['p'])}")
        indent += "    " if is_last else "|   "
        waiting += _branches(name, edges, indent, edge)
    return lines


_Branch = tuple[str, dict[str, Any], str, bool]


def _branches(
    name: str, edges: Sequence[dict[str, Any]], indent: str,
    origin: dict[str, Any] | None,
) -> list[_Branch]:
    """Return the neighbours of a network but the one it is drawn below, last first."""
    branches: list[_Branch] = []
    for edge in reversed(edges):
        if name in (edge["a"], edge["b"]) and edge is not origin:
            other = edge["b"] if edge["a"] == name else edge["a"]
            branches.append((other, edge, indent, not branches))
    return branches


def _p_text(p: float) -> str:
    """Return what stands behind a score: its p, or nothing where it is not known."""
    if not np.isfinite(p):
        return ""
    return f"  p {p:.2g}" if p >= 1e-99 else "  p < 1e-99"
