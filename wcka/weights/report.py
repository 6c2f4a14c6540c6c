"""The result of ``compare_files`` in words, as JSON, and names of files in short."""

import json
import math
import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from ..measures.spelling import printable

# One network at two consecutive epochs is about this similar to itself (chapter 2).
_NEIGHBOURING_EPOCHS = 0.98
# Chains that differ by no more are one chain, up to its scale and to rounding.
_EQUAL = 1 - 1e-9


def described(result: dict[str, Any]) -> str:
    """Return the result of ``compare_files`` as text for people.

    The first line is the answer, then comes what was left out and what was assumed,
    then the layers.

    Examples
    --------
    >>> table = {"wcka": [[1.0, 0.5], [0.5, 1.0]],
    ...          "floor": {"mean": 0.05, "highest": 0.1}}
    >>> result = {"files": ["a.pt", "b.pt"], "left out": {}, "all": table, "layers": {},
    ...           "without layers": "", "untrained": 40, "shape": (4, 3),
    ...           "assumed": ["read as one chain: fc 4x3"], "undecided": "",
    ...           "seconds": 1.0, "memory before": 0, "peak memory": 0, "mapped": 0}
    >>> for line in described(result).splitlines()[:2]:
    ...     print(line)
    a.pt  b.pt  wCKA 0.5000  5.0 times the floor's highest: similar weights
    read as one chain: fc 4x3
    """
    left_out = result["left out"]
    all_names = short_names([*result["files"], *left_out])
    names = all_names[:len(result["files"])]
    lines = [_answer(result, names)]
    for name, reason in zip(all_names[len(names):], left_out.values()):
        lines.append(f"left out {name}: {reason}")
    # Names in the assumptions as in the rest of the text, the longest first.
    for sentence in result["assumed"]:
        for path, name in sorted(zip(result["files"], names), reverse=True):
            sentence = sentence.replace(f"{path}:", f"{name}:")
        lines.append(sentence)
    width = max(map(len, names))
    if len(names) == 2:  # for more files the layers would bury the pairs
        for layer, table in result["layers"].items():
            lines.append(f"    up to {printable(layer):20}  {_verdict(table, 0, 1)}")
    else:
        for i, j in combinations(range(len(names)), 2):
            verdict = _verdict(result["all"], i, j)
            lines.append(f"{names[i]:{width}}  {names[j]:{width}}  wCKA {verdict}")
    if result["without layers"]:
        lines.append(f"layer by layer: not compared ({result['without layers']})")
    rows, columns = result["shape"]
    lines += [
        _floor(result),
        "wCKA sees no biases, activations or data: it speaks of weights, not of "
        "behaviour",
        f"chains {rows:,} x {columns:,}; {result['seconds']:.1f} s; {_memory(result)}",
    ]
    return "\n".join(lines)


def _answer(result: dict[str, Any], names: list[str]) -> str:
    """Return the first line: how similar the two files are, or the extremes of many."""
    if result["undecided"]:
        return f"wCKA undecided: {result['undecided']}"
    if len(names) == 2:
        return f"{names[0]}  {names[1]}  wCKA {_verdict(result['all'], 0, 1)}"
    values = {}
    for i, j in combinations(range(len(names)), 2):
        value = result["all"]["wcka"][i][j]
        if math.isfinite(value):
            values[i, j] = value
    if not values:
        return f"{len(names)} files: wCKA is undefined for every pair"
    i, j = max(values, key=values.__getitem__)
    k, m = min(values, key=values.__getitem__)
    return (
        f"{len(names)} files: most similar are {names[i]} and {names[j]} "
        f"({values[i, j]:.4f}), least similar {names[k]} and {names[m]} "
        f"({values[k, m]:.4f})")


def _floor(result: dict[str, Any]) -> str:
    """Return a sentence on the similarity of untrained networks."""
    floor = result["all"]["floor"]
    if not math.isfinite(floor["highest"]):
        return "floor: not known, as untrained networks of such shapes have no wCKA"
    return (
        f"floor: {result['untrained']} untrained networks of such shapes have a "
        f"similarity of {floor['mean']:.4f} on average, {floor['highest']:.4f} at most")


def _memory(result: dict[str, Any]) -> str:
    """Return a clause on the memory that a comparison took."""
    if not result["peak memory"]:
        return "peak memory not known on this system"
    peak = _mebibytes(result["peak memory"])
    before = _mebibytes(result["memory before"])
    mapped = _mebibytes(result["mapped"])
    return (f"peak memory {peak}, of which {before} before the files were opened and "
            f"up to {mapped} mapped from them")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _verdict(table: dict[str, Any], i: int, j: int) -> str:
    """Return a value, and what it means against the floor of untrained networks."""
    value = table["wcka"][i][j]
    highest = table["floor"]["highest"]
    if not math.isfinite(value):
        return "undefined: a chain is zero, or the same for every input"
    if value >= _EQUAL:
        return f"{value:.4f}  the same chain of weights, up to its scale"
    if not math.isfinite(highest):
        return f"{value:.4f}"
    if value <= highest:
        return f"{value:.4f}  no more similar than untrained networks"
    times = f"{value:.4f}  {value / highest:.1f} times the floor's highest"
    if value > _NEIGHBOURING_EPOCHS:
        return f"{times}, like one network's neighbouring checkpoints"
    return f"{times}: similar weights"


def short_names(paths: Sequence[str]) -> list[str]:
    """Return names of files without the folder that they share.

    Examples
    --------
    >>> short_names(["runs/first.pt", "runs/second.pt"])
    ['first.pt', 'second.pt']
    """
    absolute = [Path(path).absolute() for path in paths]
    shared = os.path.commonpath([path.parent for path in absolute])
    return [printable(os.path.relpath(path, shared)) for path in absolute]


def as_json(result: dict[str, Any]) -> str:
    """Return the result of ``compare_files`` as JSON; what is not a number is null.

    The keys are those that ``compare_files`` lists, in its version "schema".

    Examples
    --------
    >>> print(as_json({"wcka": float("nan"), "files": ["NaN.pt"]}))
    {
     "wcka": null,
     "files": [
      "NaN.pt"
     ]
    }
    """
    return json.dumps(_without_nan(result), indent=1, allow_nan=False)


def _without_nan(value: Any) -> Any:
    """Return nested lists and dicts with None in place of what is no number."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
