"""The contents of executed chapters, and the differences between two runs of them."""

import ast
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat

from ..measures.spelling import printable
from .claims import Claim
from .rules import Part

_RECORD = "application/papermill.record/text/plain"
_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
# A number with its interval, as claims.interval writes it. It is looked for from its
# first digit only: from each digit, a long number would take time as its square.
_INTERVAL = re.compile(rf"(?<![\d,.])({_NUMBER}) \(({_NUMBER}) to ({_NUMBER})\)")
# Ids that pandas gives to tables, and addresses in memory: no two runs share them.
_VARYING = re.compile(r"\bT_[0-9a-f]{5}| at 0x[0-9a-f]+")


def claims(notebook) -> list[Claim]:
    """Return the claims of the paper that an executed chapter shows, with its findings.

    Raises
    ------
    ValueError
        If a claim in the notebook is damaged.

    Examples
    --------
    >>> metadata = {"wcka": {"claims": [dict(where="3.1", statement="it is so",
    ...                                      found="0.9", verdict="holds")]}}
    >>> output = nbformat.v4.new_output("display_data", metadata=metadata)
    >>> cell = nbformat.v4.new_code_cell(outputs=[output])
    >>> claim, = claims(nbformat.v4.new_notebook(cells=[cell]))
    >>> claim.where, claim.verdict
    ('3.1', 'holds')
    """
    chapter_claims = []
    for output in _outputs(notebook):
        chapter_claims += _claims(output)
    return chapter_claims


def findings_at(notebook) -> dict[str, dict]:
    """Return the findings that a chapter keeps at other limits of having learned.

    Returns
    -------
    dict
        By the limit, findings as ``claims.plain_findings`` gives them.

    Examples
    --------
    >>> findings_at(nbformat.v4.new_notebook())
    {}
    """
    by_limit: dict[str, dict] = {}
    for output in _outputs(notebook):
        by_limit |= output.get("metadata", {}).get("wcka", {}).get("findings at", {})
    return by_limit


def numbers(notebook) -> dict[str, str]:
    """Return the texts that an executed chapter has glued into its prose, by name.

    Raises
    ------
    ValueError
        If a glued text in the notebook is damaged.

    Examples
    --------
    >>> output = nbformat.v4.new_output("display_data", {_RECORD: "'0.93'"},
    ...                                 metadata={"scrapbook": {"name": "highest"}})
    >>> cell = nbformat.v4.new_code_cell(outputs=[output])
    >>> numbers(nbformat.v4.new_notebook(cells=[cell]))
    {'highest': '0.93'}
    """
    texts = {}
    for output in _outputs(notebook):
        metadata = output.get("metadata", {})
        if "scrapbook" in metadata and _RECORD in output.get("data", {}):
            record = metadata["scrapbook"]
            name = record.get("name") if isinstance(record, dict) else None
            text = output.data[_RECORD]
            if not isinstance(name, str) or not isinstance(text, str):
                raise ValueError(f"a damaged number: {reprlib.repr(record)}")
            texts[name] = _unquoted(text)
    return texts


def _unquoted(text: str) -> str:
    """Return a glued text without the quotation marks that it was stored with."""
    try:
        return str(ast.literal_eval(text))
    except (SyntaxError, ValueError):
        return text


def canonical(notebook) -> str:
    """Return a digest of a chapter's outputs that is the same for every run.

    It leaves out cells tagged timing, claims on times, the ids that pandas gives to
    tables, and addresses in memory.

    Examples
    --------
    >>> def printed(text):
    ...     output = nbformat.v4.new_output("stream", text=text)
    ...     cell = nbformat.v4.new_code_cell(outputs=[output])
    ...     return nbformat.v4.new_notebook(cells=[cell])
    >>> canonical(printed("<f at 0x7f01>")) == canonical(printed("<f at 0x7f02>"))
    True
    """
    contents: list = []
    for output in _outputs(notebook, without="timing"):
        output_claims = _claims(output)
        if output_claims:
            # Their html table has the times as well: it is not part of the digest.
            contents.append([claim for claim in output_claims if not claim.timed])
        else:
            contents.append(output.get("data", output.get("text")))
    text = _VARYING.sub("", json.dumps(contents, sort_keys=True))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(one: Path, other: Path) -> list[str]:
    """Return the verdicts and numbers that differ between two runs, one per line.

    A verdict differs if it changed. A number with an interval differs if it lies
    outside of the interval of the other run. Numbers without an interval are not
    compared: nobody knows how far they may vary.

    Parameters
    ----------
    one, other : Path
        An executed chapter or the record of one, or a folder of them. Verdicts of a
        record follow from the rules as they are now.

    Raises
    ------
    ValueError
        If one of the two holds no executed chapter, or they have none in common; or
        for a notebook or record with claims or numbers that are damaged.

    Examples
    --------
    >>> differences(Path("not-there.ipynb"), Path("not-there.ipynb"))
    Traceback (most recent call last):
    ValueError: not-there.ipynb: no notebook (FileNotFoundError)
    """
    before = _chapters(one)
    after = _chapters(other)
    if one.is_file() and other.is_file():
        # Two notebooks are compared whatever their names are.
        before = {"": next(iter(before.values()))}
        after = {"": next(iter(after.values()))}
    shared = sorted(before.keys() & after.keys())
    if not shared:
        raise ValueError(printable(f"{one} and {other} have no chapter in common"))
    lines = []
    for name in sorted(before.keys() - after.keys()):
        lines.append(f"{name}: only in {one}")
    for name in sorted(after.keys() - before.keys()):
        lines.append(f"{name}: only in {other}")
    for name in shared:
        for line in _changes(before[name], after[name], one, other):
            lines.append(f"{name} {line}".strip())
    return [printable(line) for line in lines]


class _Said(NamedTuple):
    """What a run says of a claim, or by a glued number, which has only a text."""

    text: str
    verdict: str = ""
    parts: tuple[Part, ...] = ()


def _said(found: Iterable[Claim], glued: dict[str, str]) -> dict[str, _Said]:
    """Return what a run says, by the statements of claims and the names of numbers."""
    by_subject = {}
    for claim in found:
        parts = tuple(Part(*part) for part in claim.parts)
        by_subject[f"{claim.where}: {claim.statement}"] = _Said(
            claim.found, claim.verdict, parts)
    for name, text in glued.items():
        by_subject[name] = _Said(text)
    return by_subject


def _changes(before: dict[str, _Said], after: dict[str, _Said], path_before: Path,
             path_after: Path) -> Iterator[str]:
    """Yield the differences between two runs of a chapter; the paths name the runs."""
    for subject in before | after:
        if subject not in after:
            yield f"{subject}: only in {path_before}"
        elif subject not in before:
            yield f"{subject}: only in {path_after}"
        else:
            for change in _moves(before[subject], after[subject]):
                yield f"{subject}: {change}"


def _moves(before: _Said, after: _Said) -> Iterator[str]:
    """Yield a changed verdict, and the numbers that left the other run's interval."""
    if before.verdict != after.verdict:
        yield f"{before.verdict} -> {after.verdict}"
    if before.parts and after.parts:
        # By their labels: a text groups its parts by their answers.
        new_parts = {part.label: part for part in after.parts}
        for part in before.parts:
            new = new_parts.get(part.label)
            if new and part.error and new.error and not _agree(part, new):
                yield f"{part.text} -> {new.text}"
        return
    matches = zip(_INTERVAL.finditer(before.text), _INTERVAL.finditer(after.text))
    for match_before, match_after in matches:
        value, low, high = _floats(match_before)
        new_value, new_low, new_high = _floats(match_after)
        if not (new_low <= value <= new_high and low <= new_value <= high):
            yield f"{match_before[0]} -> {match_after[0]}"


def _agree(part: Part, new: Part) -> bool:
    """Tell whether each number, as it is shown, lies in the interval of the other."""
    if part.text == new.text:
        return True
    low, high = part.interval
    new_low, new_high = new.interval
    return new_low <= part.value <= new_high and low <= new.value <= high


def _floats(match: re.Match) -> list[float]:
    """Return a number and the ends of its interval."""
    return [float(text.replace(",", "")) for text in match.groups()]


def _chapters(path: Path) -> dict[str, dict[str, _Said]]:
    """Return what chapters and records say, in a folder or one file, by stem."""
    files = [path]
    # Unlike path.is_dir(), this raises nothing for a name that is too long.
    if os.path.isdir(path):
        files = sorted([*path.glob("[0-9]*.ipynb"), *path.glob("[0-9]*.json")])
    chapters: dict[str, dict[str, _Said]] = {}
    for file in files:
        if file.suffix == ".json":
            chapters |= _said_in_record(file)
        else:
            chapters |= _said_in_notebook(file)
    if not chapters:
        raise ValueError(printable(f"{path}: no executed chapter"))
    return chapters


def _said_in_record(file: Path) -> dict[str, dict[str, _Said]]:
    """Return what a record says, by the stem of its chapter."""
    from . import checkout, records  # which import this module

    chapter = file.stem
    try:
        record = records.read_file(file)
        said = _said(records.judged_from(chapter, record), record["numbers"])
        return {checkout.find_chapter(chapter).stem: said}
    except Exception as error:
        # Missing, no JSON, no record, of other statements: each has another error.
        raise ValueError(printable(
            f"{file}: no record of a chapter ({type(error).__name__})")) from None


def _said_in_notebook(file: Path) -> dict[str, dict[str, _Said]]:
    """Return what an executed chapter says, by its stem; nothing of other notebooks."""
    try:
        faults: dict = {}
        notebook = nbformat.read(file, 4, capture_validation_error=faults)
        if faults:
            raise faults["ValidationError"]
    except Exception as error:
        # Missing, no JSON, no notebook: nbformat has another error for each.
        name = type(error).__name__
        raise ValueError(printable(f"{file}: no notebook ({name})")) from None
    if "wcka" not in notebook.metadata:
        return {}
    try:
        return {file.stem: _said(claims(notebook), numbers(notebook))}
    except ValueError as error:
        raise ValueError(printable(f"{file}: {error}")) from None


def _claims(output) -> list[Claim]:
    """Return the claims in the metadata of one output."""
    contents = output.get("metadata", {}).get("wcka", {})
    rows = contents.get("claims", []) if isinstance(contents, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"damaged claims: {reprlib.repr(contents)}")
    output_claims = []
    for row in rows:
        if not _is_claim(row):
            raise ValueError(f"a damaged claim: {reprlib.repr(row)}")
        # A notebook holds lists in place of tuples.
        output_claims.append(Claim(**{**row, "parts": tuple(row.get("parts", ()))}))
    return output_claims


def _is_claim(row) -> bool:
    """Tell whether a value is what ``Claim._asdict`` makes of a claim."""
    if not isinstance(row, dict):
        return False
    texts = set(Claim._fields) - {"timed", "parts"}
    if not texts - {"key", "text", "known"} <= row.keys() <= set(Claim._fields):
        return False
    for name in texts & row.keys():
        if not isinstance(row[name], str):
            return False
    if not isinstance(row.get("timed", False), bool):
        return False
    return _are_parts(row.get("parts", []))


def _are_parts(rows) -> bool:
    """Tell whether a value is what claims keep of the parts of a finding."""
    if not isinstance(rows, list):
        return False
    for row in rows:
        if not isinstance(row, list) or len(row) != len(Part._fields):
            return False
        label, *numbers, rule = row
        are_numbers = all(type(number) in (int, float) for number in numbers)
        if not (isinstance(label, str) and isinstance(rule, str) and are_numbers):
            return False
    return True


def _outputs(notebook, without: str = "") -> Iterator:
    """Yield the outputs of all cells but those with a tag."""
    for cell in notebook.cells:
        if without not in cell.metadata.get("tags", []):
            yield from cell.get("outputs", [])
