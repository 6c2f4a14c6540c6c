"""What executed chapters hold, and what differs between two runs of them."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from .claims import Claim

_RECORD = "application/papermill.record/text/plain"
_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_INTERVAL = re.compile(rf"({_NUMBER}) \(({_NUMBER}) to ({_NUMBER})\)")  # as claims.interval writes


def claims(notebook) -> list[Claim]:
    """Claims of the paper that a chapter has shown, with its findings."""
    return [claim for output in _outputs(notebook) for claim in _claims(output)]


def numbers(notebook) -> dict[str, str]:
    """What a chapter has glued into its text, by name."""
    return {output.metadata["scrapbook"]["name"]: output.data[_RECORD].strip("'")
            for output in _outputs(notebook)
            if "scrapbook" in output.get("metadata", {}) and _RECORD in output.get("data", {})}


def canonical(notebook) -> str:
    """Digest of a chapter's outputs without what no two runs share.

    Left aside: cells tagged timing and claims on times, ids that pandas gives to tables, addresses
    in memory.
    """
    kept = [[claim for claim in found if not claim.timed] if (found := _claims(output))
            else output.get("data", output.get("text")) for output in _outputs(notebook, "timing")]
    text = re.sub(r"\bT_[0-9a-f]{5}| at 0x[0-9a-f]+", "", json.dumps(kept, sort_keys=True))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(one: Path, other: Path) -> list[str]:
    """Claims and numbers that moved beyond their intervals between two runs, a line each.

    Parameters
    ----------
    one, other : Path
        An executed chapter, or a folder of them. Verdicts that changed count; a number with an
        interval has moved when it lies outside of the interval of the other run. Numbers
        without an interval are passed over: nobody knows how far they may move.

    Raises
    ------
    ValueError
        Where one of the two holds no executed chapter, or they share none.
    """
    runs: list[dict] = [_chapters(path) for path in (one, other)]
    # Two notebooks are compared whatever their names are.
    if one.is_file() and other.is_file():
        runs = [{"": next(iter(run.values()))} for run in runs]
    if not (shared := sorted(runs[0].keys() & runs[1].keys())):
        raise ValueError(f"{one} and {other} have no chapter in common")
    lines = [f"{name}: only in {path}" for path, run, rest in zip((one, other), runs, runs[::-1])
             for name in sorted(run.keys() - rest.keys())]
    for name in shared:
        before, after = (_statements(run[name]) for run in runs)
        for what in before | after:
            if what not in before or what not in after:
                lines.append(f"{name} {what}: only in {one if what in before else other}")
            else:
                lines += [f"{name} {what}: {moved}" for moved in _moved(before[what], after[what])]
    return [line.strip() for line in lines]


def _statements(notebook) -> dict[str, tuple[str, str]]:
    """Text and verdict of each claim and each glued number, by what they are about."""
    found = {f"{c.where}: {c.statement}": (c.found, c.verdict) for c in claims(notebook)}
    return found | {name: (text, "") for name, text in numbers(notebook).items()}


def _moved(before: tuple[str, str], after: tuple[str, str]) -> Iterator[str]:
    if before[1] != after[1]:
        yield f"{before[1]} -> {after[1]}"
    one, other = (_INTERVAL.finditer(text) for text, _ in (before, after))
    for a, b in zip(one, other):
        x, y = ([float(n.replace(",", "")) for n in match.groups()] for match in (a, b))
        if not (y[1] <= x[0] <= y[2] and x[1] <= y[0] <= x[2]):
            yield f"{a[0]} -> {b[0]}"


def _chapters(path: Path) -> dict[str, nbformat.NotebookNode]:
    files = sorted(path.glob("[0-9]*.ipynb")) if path.is_dir() else [path]
    read = {}
    for file in files:
        try:
            read[file.stem] = nbformat.read(file, 4)
        except Exception as error:  # missing, no JSON, no notebook: nbformat has an error for each
            raise ValueError(f"{file}: no notebook ({type(error).__name__})") from None
    found = {name: notebook for name, notebook in read.items() if "wcka" in notebook.metadata}
    if not found:
        raise ValueError(f"{path}: no executed chapter")
    return found


def _claims(output) -> list[Claim]:
    return [Claim(**row) for row in output.get("metadata", {}).get("wcka", {}).get("claims", [])]


def _outputs(notebook, without: str = "") -> Iterator:
    for cell in notebook.cells:
        if without not in cell.metadata.get("tags", []):
            yield from cell.get("outputs", [])
