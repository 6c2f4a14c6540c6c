"""What the paper says beside what a run found: rows that chapters show and the book collects."""

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

VERDICTS = {"holds": "●", "partly": "◐", "fails": "○", "cannot be told": "–"}
BEYOND = "Beyond the paper"
PARTS = ("Abstract", "1 Introduction", "2 Methods", "3.1 Calibration",
         "3.2 Functional similarity, trained from scratch",
         "3.3 Functional similarity, fine-tuned on a frozen trunk", "4 Discussion", BEYOND)
ANCHOR = "the-paper-s-claims-in-this-chapter"  # of the section of a chapter that shows them
_FIGURES = {"1": "3.1", "2": "3.2", "3": "3.2", "4": "3.3", "5": "3.1"}  # and where they belong


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
    timed : bool
        What was found is a time: no two runs share it.
    """

    where: str
    statement: str
    found: str
    verdict: str
    timed: bool = False


def part(where: str) -> str:
    """Part of the paper that a claim's first place belongs to, one of ``PARTS``.

    What the paper does not claim, as of other networks than its own, is "beyond".

    Raises
    ------
    ValueError
        For a place that is neither a section nor a figure.
    """
    place = where.split(",")[0]
    if found := re.fullmatch(r"fig\. (\d)[a-c]?", place):
        place = _FIGURES.get(found[1], place)
    for name in PARTS:
        number = name.split()[0]
        if place.lower() == number.lower() or re.fullmatch(rf"{re.escape(number)}(\.\d)*", place):
            return name
    raise ValueError(f"claim at {where!r}: wanted abstract, a section or a figure of the paper")


def say(name: str, value: float, form: str = ".3f") -> None:
    """Keep a number of a chapter for its text, to be glued there by its name."""
    from myst_nb import glue

    glue(name, f"{value:{form}}", display=False)


def interval(value: float, low: float, high: float, form: str = ".2f") -> str:
    """A number with its interval, as text."""
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def show(claims: Sequence[Claim]) -> None:
    """Show claims as a table; the rows also go into the output's metadata, for collecting.

    Raises
    ------
    ValueError
        For a verdict that is not one of the four, or a place that is not of the paper.
    """
    from IPython.display import display

    for claim in claims:
        part(claim.where)
        if claim.verdict not in VERDICTS:
            raise ValueError(f"verdict {claim.verdict!r}: wanted one of {', '.join(VERDICTS)}")
    text = "\n".join(f"{c.where}: {c.statement} -> {c.found}: {c.verdict}" for c in claims)
    display({"text/html": table(claims), "text/plain": text}, raw=True,
            metadata={"wcka": {"claims": [c._asdict() for c in claims]}})


def table(claims: Sequence[Claim], tested: Sequence[str] = ()) -> str:
    """Claims as a table in html; `tested`, of each, in html: where."""
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"

    links: list[tuple[str, ...]] = [(each,) for each in tested] or [()] * len(claims)
    rows = [[*map(html.escape, claim[:3]),
             f"<span class='verdict'>{VERDICTS[claim.verdict]}&nbsp;{claim.verdict}</span>", *link]
            for claim, link in zip(claims, links)]
    head = ["Paper", "It says", "This run found", "Verdict", "Tested in"][:len(rows[0])]
    return (f"<table class='claims'><thead>{line(head, 'th')}</thead>"
            f"<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>")
