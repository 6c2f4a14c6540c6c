"""What the paper says beside what a run found: rows that chapters show and the book collects."""

import html
from collections.abc import Sequence
from typing import NamedTuple

VERDICTS = {"holds": "●", "partly": "◐", "fails": "○", "cannot be told": "–"}


class Claim(NamedTuple):
    """One claim of the paper and its test.

    Attributes
    ----------
    where : str
        Section or figure of the paper.
    statement : str
        The claim, in our words.
    found : str
        What this run found, with its numbers computed.
    verdict : str
        "holds", "partly", "fails" or "cannot be told".
    """

    where: str
    statement: str
    found: str
    verdict: str


def say(name: str, value: float, form: str = ".3f") -> None:
    """Keep a number of a chapter for its text, where ``{glue:text}`name` `` stands for it."""
    from myst_nb import glue

    glue(name, f"{value:{form}}", display=False)


def interval(value: float, low: float, high: float, form: str = ".2f") -> str:
    """A number with its interval, as text."""
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def verdict(*holds: bool) -> str:
    """Verdict of a claim from its parts: all hold, none does, or some do."""
    return "holds" if all(holds) else "partly" if any(holds) else "fails"


def show(claims: Sequence[Claim]) -> None:
    """Show claims as a table; the rows also go into the output's metadata, for collecting.

    Raises
    ------
    ValueError
        For a verdict that is not one of the four.
    """
    from IPython.display import display

    for claim in claims:
        if claim.verdict not in VERDICTS:
            raise ValueError(f"verdict {claim.verdict!r}: wanted one of {', '.join(VERDICTS)}")
    rows = "".join(
        f"<tr><td>{html.escape(c.where)}</td><td>{html.escape(c.statement)}</td>"
        f"<td>{html.escape(c.found)}</td>"
        f"<td class='verdict'>{VERDICTS[c.verdict]}&nbsp;{c.verdict}</td></tr>" for c in claims)
    table = (f"<table class='claims'><thead><tr><th>Paper</th><th>It says</th><th>This run found"
             f"</th><th>Verdict</th></tr></thead><tbody>{rows}</tbody></table>")
    text = "\n".join(f"{c.where}: {c.statement} -> {c.found}: {c.verdict}" for c in claims)
    display({"text/html": table, "text/plain": text}, raw=True,
            metadata={"wcka": {"claims": [c._asdict() for c in claims]}})
