"""The run of record: what a large run found, kept in the repository.

A record holds the findings of a chapter as numbers, and no verdicts: these follow from
the rules as they are now, in seconds. Beside it stand the tables that the chapter
keeps.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
import pandas as pd

from . import checkout, diff, execution, parameters, rules, tables
from .claims import Claim, plain_findings, with_symbol

PROFILE = "large"


def path_of(chapter: str) -> Path:
    """Return the file of a chapter's record, whether it exists or not.

    Parameters
    ----------
    chapter : str
        Its number, such as "03".

    Examples
    --------
    >>> path_of("03").name
    '03.json'
    """
    return checkout.ROOT / "book" / "results" / PROFILE / f"{chapter}.json"


def extract(notebook) -> dict:
    """Return what is kept of an executed chapter.

    Parameters
    ----------
    notebook : NotebookNode
        As ``execution.run_chapter`` leaves it.

    Returns
    -------
    dict
        profile, parameters (those that differ from the defaults), commit, versions,
        machine, seconds, digest of the outputs, findings (of each statement its parts
        and its text), "findings at" (the same at other limits of having learned) and
        numbers (those that are glued into the prose).

    Raises
    ------
    ValueError
        For a notebook that no run wrote.

    Examples
    --------
    >>> extract(nbformat.v4.new_notebook())
    Traceback (most recent call last):
    ValueError: no executed chapter
    """
    run = notebook.metadata.get("wcka", {}).get("run")
    if not run:
        raise ValueError("no executed chapter")
    return {
        **run,
        "seconds": round(notebook.metadata["wcka"]["seconds"]),
        "digest": diff.canonical(notebook),
        "findings": plain_findings({
            claim.key: claim for claim in diff.claims(notebook)}),
        "findings at": diff.findings_at(notebook),
        "numbers": diff.numbers(notebook),
    }


def write(chapter: str, executed: Path) -> Path:
    """Write the record of an executed chapter with its tables, and return its file.

    Parameters
    ----------
    chapter : str
        Its number.
    executed : Path
        The executed notebook, of a run at the profile ``PROFILE``.

    Raises
    ------
    ValueError
        If it ran at another profile or with other parameters.

    Examples
    --------
    >>> write("03", Path("_build/runs/03-functional.ipynb"))  # doctest: +SKIP
    """
    record = extract(nbformat.read(executed, 4))
    wanted = parameters.choose(checkout.find_chapter(chapter), PROFILE, [])
    if (record["profile"], record["parameters"]) != (PROFILE, wanted):
        raise ValueError(
            f"{executed}: it ran at profile {record['profile']} with "
            f"{record['parameters']}; a record is of profile {PROFILE}")
    path = path_of(chapter)
    path.parent.mkdir(parents=True, exist_ok=True)
    record["tables"] = tables.adopt_tables(
        executed.with_suffix(""), path.with_suffix(""))
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, "utf-8")
    return path


def read(chapter: str) -> dict | None:
    """Return a chapter's record, or None where there is none.

    Examples
    --------
    >>> read("99") is None
    True
    """
    path = path_of(chapter)
    return read_file(path) if path.is_file() else None


def read_file(path: Path) -> dict:
    """Return the record in a file.

    Examples
    --------
    >>> read_file(path_of("03"))["profile"]
    'large'
    """
    return json.loads(path.read_text("utf-8"))


def table(chapter: str, name: str) -> pd.DataFrame:
    """Return a table of a chapter's record.

    Parameters
    ----------
    chapter : str
        Its number.
    name : str
        By which the chapter keeps it, such as "pairs".

    Raises
    ------
    FileNotFoundError
        If the record has none of this name.

    Examples
    --------
    >>> table("99", "pairs")
    Traceback (most recent call last):
    FileNotFoundError: chapter 99: its record keeps no table 'pairs'
    """
    kept = tables.kept_tables(path_of(chapter).with_suffix(""))
    if name not in kept:
        raise FileNotFoundError(
            f"chapter {chapter}: its record keeps no table {name!r}"
            f"{', only ' + ', '.join(kept) if kept else ''}")
    return pd.read_parquet(kept[name])


def findings(plain: dict[str, dict]) -> dict[str, rules.Finding]:
    """Return findings from what a record keeps of them, by their statements' keys.

    Examples
    --------
    >>> stored = {"parts": [["CKA", 0.1, 0.01, 20.0, ""]], "text": ""}
    >>> findings({"linear": stored})["linear"].parts[0].error
    0.01
    """
    by_key = {}
    for key, stored in plain.items():
        parts = [rules.Part(*part) for part in stored["parts"]]
        by_key[key] = rules.Finding(parts, stored["text"])
    return by_key


def judged(chapter: str, margin: float = rules.MARGIN) -> list[Claim]:
    """Return the claims of a chapter by its record, or none where there is none.

    Parameters
    ----------
    chapter : str
        Its number.
    margin : float
        As for ``rules.judge``.

    Examples
    --------
    >>> judged("99")
    []
    """
    record = read(chapter)
    return [] if record is None else judged_from(chapter, record, margin)


def judged_from(chapter: str, record: Mapping, margin: float = rules.MARGIN
                ) -> list[Claim]:
    """Return the claims of a chapter by a record of it.

    Parameters
    ----------
    chapter, margin
        As in ``judged``.
    record : mapping
        As ``read`` returns it.

    Raises
    ------
    ValueError
        If it has findings on other statements than the chapter.

    Examples
    --------
    >>> judged_from("03", read("03"))[0].key
    'fisher'
    """
    return rules.judge(chapter, findings(record["findings"]), margin)


def note(found: Sequence[Claim], on_record: Mapping[str, Claim]) -> str:
    """Return where the run of record judges otherwise than a chapter's build, as MyST.

    Parameters
    ----------
    found : sequence of Claim
        Those of the build.
    on_record : mapping of str to Claim
        Those of the record, by their keys.

    Returns
    -------
    str
        Empty where no claim of the chapter is on record.

    Examples
    --------
    >>> claim = Claim("3.1", "It is so.", "0.9", "holds", key="so")
    >>> print(note([claim], {"so": claim}))
    The larger [run of record](../book/rules) comes to the same verdict.
    """
    both = [(claim, on_record[claim.key]) for claim in found if claim.key in on_record]
    if not both:
        return ""
    lines = []
    for claim, record in both:
        if record.verdict != claim.verdict:
            lines.append(
                f"- *{claim.statement}* On record: {with_symbol(record.verdict)}. "
                f"Here: {with_symbol(claim.verdict)}.")
    text = "The larger [run of record](../book/rules) comes to "
    if not lines:
        return text + ("the same verdict." if len(both) == 1 else "the same verdicts.")
    if len(lines) == len(both):
        text += "another verdict" if len(both) == 1 else "other verdicts"
    elif len(lines) == 1:
        text += f"another verdict on one of {len(both)} statements"
    else:
        text += f"other verdicts on {len(lines)} of {len(both)} statements"
    return "\n".join([f"{text}; its verdict counts:", "", *lines])


def run(chapter: str) -> Path:
    """Run a chapter at the profile of record, and write what it found.

    Examples
    --------
    >>> run("03")  # doctest: +SKIP
    """
    path = checkout.find_chapter(chapter)
    values = parameters.choose(path, PROFILE, [])
    parameters.vet(path, values)
    output = checkout.BUILD / PROFILE / f"{path.stem}.ipynb"
    execution.run_chapter(path, values, PROFILE, output)
    return write(path.stem[:2], output)
