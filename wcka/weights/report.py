"""The result of ``compare_files`` in words, as JSON, and names of files in short."""

import json
import math
import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from ..measures.spelling import printable
from .by_circuit import circuit_lines, circuits_with_values
from .messages import counted
from .token_circuits import CIRCUITS

# One network at two consecutive epochs is about this similar to itself (chapter 2).
_NEIGHBOURING_EPOCHS = 0.98
# p-values below are beyond chance; below the second, their size means nothing.
_LEVEL = 0.05
_SMALLEST = 1e-99
# Chains that differ by no more are one chain, up to its scale and to rounding.
_EQUAL = 1 - 1e-9


def described(result: dict[str, Any]) -> str:
    """Return the result of ``compare_files`` as text for people.

    The first line is the answer, the second says what chance is. Then comes what was
    left out and what was assumed, then the layers.

    Examples
    --------
    >>> from .chance import beside_orders
    >>> from torch import arange
    >>> chain = arange(12.0)[:, None]
    >>> result = {"files": ["a.pt", "b.pt"], "left out": {}, "layers": {},
    ...           "all": beside_orders([chain, chain**2]), "chance": "orders",
    ...           "without layers": "", "untrained": 0, "shape": (12, 1),
    ...           "assumed": ["read as one chain: fc 12x1"], "undecided": "",
    ...           "seconds": 1.0, "memory before": 0, "peak memory": 0, "mapped": 0}
    >>> for line in described(result).splitlines()[:2]:
    ...     print(line)
    a.pt  b.pt  wCKA 0.9284  beyond chance (0.0909 ± 0.1142, z 7.3, p 4.0e-04)
    chance: one network's inputs in any order (mean ± spread, in closed form); ...
    """
    left_out = result["left out"]
    all_names = short_names([*result["files"], *left_out])
    names = all_names[:len(result["files"])]
    lines = [_answer(result, names), _chance(result)]
    for name, reason in zip(all_names[len(names):], left_out.values()):
        lines.append(f"left out {name}: {reason}")
    # Names in the assumptions as in the rest of the text, the longest first.
    for sentence in result["assumed"]:
        for path, name in sorted(zip(result["files"], names), reverse=True):
            sentence = sentence.replace(f"{path}:", f"{name}:")
        lines.append(sentence)
    width = max(map(len, names))
    are_circuits = _are_circuits(result)
    if len(names) == 2 and are_circuits:
        lines += circuit_lines(result["layers"], 0, 1)
    elif len(names) == 2:  # for more files the layers would bury the pairs
        for layer, table in result["layers"].items():
            lines.append(f"    up to {printable(layer):20}  {_verdict(table, 0, 1)}")
    else:
        for i, j in combinations(range(len(names)), 2):
            verdict = _verdict_of_all(result, i, j)
            lines.append(f"{names[i]:{width}}  {names[j]:{width}}  wCKA {verdict}")
    if result["without layers"]:
        lines.append(f"layer by layer: not compared ({result['without layers']})")
    rows, columns = result["shape"]
    shape = f"chains {rows:,} x {columns:,}"
    if are_circuits:
        shape = f"{counted(rows, 'row')}, streams of width {columns:,}"
    lines += [
        "wCKA sees no biases, activations or data: it speaks of weights, not of "
        "behaviour",
        f"{shape}; {result['seconds']:.1f} s; {_memory(result)}",
    ]
    return "\n".join(lines)


def _are_circuits(result: dict[str, Any]) -> bool:
    """Tell whether transformers were compared, of which chance is not known."""
    return bool(result["chance"] == "unknown")


def _answer(result: dict[str, Any], names: list[str]) -> str:
    """Return the first line: how similar the two files are, or the extremes of many."""
    if result["undecided"]:
        return f"wCKA undecided: {result['undecided']}"
    if len(names) == 2:
        answer = f"{names[0]}  {names[1]}  wCKA {_verdict_of_all(result, 0, 1)}"
        circuits = circuits_with_values(result["layers"], 0, 1)
        if _are_circuits(result) and circuits:
            kind = "median of four circuits"
            if len(circuits) < len(CIRCUITS):
                kind = f"median of the circuits {', '.join(circuits)}"
            answer += f"  ({kind})"
        return answer
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


def _chance(result: dict[str, Any]) -> str:
    """Return a sentence on what chance is here, and on what is beyond it."""
    if _are_circuits(result):
        return ("chance: not the measure here, but trained networks that have nothing "
                "to do with these: python -m wcka family compares with some of them")
    if not any(math.isfinite(sd) for row in result["all"]["sd"] for sd in row):
        return "chance: not known for networks of such shapes"
    if result["chance"] == "orders":
        kind = "one network's inputs in any order (mean ± spread, in closed form)"
    else:
        kind = (f"{result['untrained']} untrained networks of such architectures (mean "
                f"± spread of their pairs; p is rough)")
    number = len(result["files"]) * (len(result["files"]) - 1) // 2
    correction = f", p corrected for {number} pairs" if number > 1 else ""
    return (f"chance: {kind}{correction}; independent networks for one task are beyond "
            f"it, too")


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


def _verdict_of_all(result: dict[str, Any], i: int, j: int) -> str:
    """Return the verdict on two networks as a whole.

    The median of four circuits may be 1 though some of them differ, or have no value.
    """
    value = result["all"]["wcka"][i][j]
    if _are_circuits(result) and value >= _EQUAL:
        values = [table["wcka"][i][j] for table in result["layers"].values()]
        lowest = min(filter(math.isfinite, values))
        if lowest < _EQUAL:
            return f"{value:.4f}  though some circuits differ, down to {lowest:.4f}"
        if not all(map(math.isfinite, values)):
            return f"{value:.4f}  the same in all circuits but those left out"
    return _verdict(result["all"], i, j)


def _verdict(table: dict[str, Any], i: int, j: int) -> str:
    """Return a value, and what it means beside what chance gives."""
    value = table["wcka"][i][j]
    if not math.isfinite(value):
        return "undefined: a chain is zero, or the same for every input"
    if value >= _EQUAL:
        return f"{value:.4f}  the same weights, up to what wCKA does not see"
    p = table["holm"][i][j]
    if not math.isfinite(p):
        return f"{value:.4f}"
    chance = f"{table['mean'][i][j]:.4f} ± {table['sd'][i][j]:.4f}"
    if p >= _LEVEL:
        return f"{value:.4f}  within what chance gives ({chance}, p {p:.2g})"
    p_text = f"p {p:.1e}" if p >= _SMALLEST else f"p < {_SMALLEST:.0e}"
    text = f"{value:.4f}  beyond chance ({chance}, z {table['z'][i][j]:.1f}, {p_text})"
    if value > _NEIGHBOURING_EPOCHS:
        text += ", like one network's neighbouring checkpoints"
    return text


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
