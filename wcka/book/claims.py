"""The paper's claims and the findings of a run: rows that the book collects."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

VERDICTS = {"holds": "●", "partly": "◐", "fails": "○", "cannot be told": "–"}
# What the answered parts of a claim tell, although the open ones leave its verdict open
IN_PART = "it holds at least in part"
NOT_IN_FULL = "it does not hold in full"
BEYOND = "Beyond the paper"
PARTS = (
    "Abstract",
    "1 Introduction",
    "2 Methods",
    "3.1 Calibration",
    "3.2 Functional similarity, trained from scratch",
    "3.3 Functional similarity, fine-tuned on a frozen trunk",
    "4 Discussion",
    BEYOND,
)
# The anchor of the section of a chapter that shows its claims
ANCHOR = "what-is-judged-in-this-chapter"
# The sections that the paper's figures belong to
_FIGURES = {"1": "3.1", "2": "3.2", "3": "3.2", "4": "3.3", "5": "3.1"}


class Claim(NamedTuple):
    """One claim of the paper and its test.

    Attributes
    ----------
    where : str
        The place in the paper, to the sentence, such as "3.2, paragraph 4, sentence 2".
    statement : str
        The claim.
    found : str
        The findings of this run, with their numbers.
    verdict : str
        "holds", "partly", "fails" or "cannot be told".
    timed : bool
        Whether the findings are times, which no two runs share.
    key : str
        The name of the statement in ``book/statements.yml``.
    parts : sequence
        The numbers that the verdict rests on, each as ``rules.Part``.
    text : str
        What the findings say beside the parts.
    known : str
        ``IN_PART`` or ``NOT_IN_FULL`` where the verdict cannot be told and answered
        parts tell so much; otherwise empty.

    Examples
    --------
    >>> claim = Claim("3.1, fig. 1a", "wCKA is close to 0", "0.02", "holds")
    >>> claim.timed
    False
    """

    where: str
    statement: str
    found: str
    verdict: str
    timed: bool = False
    key: str = ""
    parts: Sequence = ()
    text: str = ""
    known: str = ""


def part(where: str) -> str:
    """Return the part of the paper that a claim belongs to, one of ``PARTS``.

    Parameters
    ----------
    where : str
        Places of the paper with commas, of which the first one counts; or "beyond",
        for what the paper does not claim, such as results on other networks.

    Raises
    ------
    ValueError
        For a place that is neither a section nor a figure.

    Examples
    --------
    >>> part("fig. 1a, 4"), part("2.1.2")
    ('3.1 Calibration', '2 Methods')
    """
    place = where.split(",")[0]
    figure = re.fullmatch(r"fig\. (\d)[a-c]?", place)
    if figure:
        place = _FIGURES.get(figure[1], place)
    for name in PARTS:
        number = name.split()[0]
        is_subsection = re.fullmatch(rf"{re.escape(number)}(\.\d)*", place)
        if place.lower() == number.lower() or is_subsection:
            return name
    raise ValueError(
        f"claim at {where!r}: wanted abstract, a section or a figure of the paper"
    )


def say(name: str, value: float, form: str = ".3f") -> None:
    """Keep a number of a chapter, to be glued into its text.

    Parameters
    ----------
    name : str
        The name that the text glues it by.
    value : float
        The number.
    form : str
        A format specification.

    Examples
    --------
    >>> say("highest-floor", 0.0213)
    """
    from myst_nb import glue

    glue(name, f"{value:{form}}", display=False)


def say_verdicts(
    claims: Sequence[Claim], sentences: Mapping[str, Mapping[str, str]]
) -> None:
    """Keep for each claim the sentence of its verdict, to be glued as "take-KEY".

    Behind a sentence that says what is open stands what is known; see ``told_clause``.

    Parameters
    ----------
    claims : sequence of Claim
        Those of a chapter.
    sentences : mapping of str to mapping
        By the keys of statements, a sentence for each verdict. Claims that are not in
        it have none.

    Examples
    --------
    >>> claim = Claim("3.1", "it is so", "0.9", "holds", key="so")
    >>> say_verdicts([claim], {"so": {"holds": "It is so."}})
    """
    from myst_nb import glue

    for claim in claims:
        if claim.key in sentences:
            sentence = sentences[claim.key][claim.verdict]
            if claim.known:
                sentence += f" {told_clause(claim.known).capitalize()}."
            glue(f"take-{claim.key}", sentence, display=False)


def told_clause(known: str) -> str:
    """Return a clause on the parts of a claim that are not open.

    Parameters
    ----------
    known : str
        As in ``Claim``; not empty.

    Examples
    --------
    >>> told_clause(IN_PART)
    'in some comparisons the answer is yes'
    """
    answer = {IN_PART: "yes", NOT_IN_FULL: "no"}[known]
    return f"in some comparisons the answer is {answer}"


def interval(value: float, low: float, high: float, form: str = ".2f") -> str:
    """Return a number with its interval, as text.

    Examples
    --------
    >>> interval(0.5, 0.4, 0.6)
    '0.50 (0.40 to 0.60)'
    """
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def with_interval(estimate: Any, form: str = ".2f") -> str:
    """Return an estimate with its interval, as text.

    Parameters
    ----------
    estimate : Estimate or Series
        With a value, and low and high, the ends of its interval.
    form : str
        Of the three numbers.

    Examples
    --------
    >>> from wcka.experiments.crossed import Estimate
    >>> with_interval(Estimate(0.5, 0.1, 1e6))
    '0.50 (0.30 to 0.70)'
    """
    return interval(estimate.value, estimate.low, estimate.high, form)


def show(
    claims: Sequence[Claim],
    findings_at: Mapping[float, Mapping[str, Any]] | None = None,
) -> None:
    """Show claims as a table, and keep them in the metadata of the output.

    The builder of the book collects them from there; see ``diff.claims``.

    Parameters
    ----------
    claims : sequence of Claim
        To show.
    findings_at : mapping of float to mapping, optional
        Findings at other accuracies from which networks count as having learned, each
        by the keys of the statements; they are kept, and not shown.

    Raises
    ------
    ValueError
        For a verdict that is not one of the four, or a place that is not in the paper.

    Examples
    --------
    >>> show([Claim("3.1", "wCKA is close to 0", "highest 0.02", "holds")])
    3.1: wCKA is close to 0 -> highest 0.02: holds
    """
    from IPython.display import display

    for claim in claims:
        part(claim.where)
        if claim.verdict not in VERDICTS:
            raise ValueError(
                f"verdict {claim.verdict!r}: wanted one of {', '.join(VERDICTS)}"
            )
    lines = []
    rows = []
    for claim in claims:
        finding = f"{claim.found}: {claim.verdict}"
        lines.append(f"{claim.where}: {claim.statement} -> {finding}")
        rows.append(claim._asdict())
    kept: dict[str, Any] = {"claims": rows}
    if findings_at:
        kept["findings at"] = {}
        for limit, findings in findings_at.items():
            kept["findings at"][f"{limit:g}"] = plain_findings(findings)
    display(
        {"text/html": table(claims), "text/plain": "\n".join(lines)},
        raw=True, metadata={"wcka": kept},
    )


def plain_findings(findings: Mapping[str, Any]) -> dict[str, dict]:
    """Return findings as lists and dicts, as files keep them.

    Parameters
    ----------
    findings : mapping
        By the keys of statements, each with parts and a text, as ``rules.Finding``.

    Examples
    --------
    >>> from wcka.book.rules import Finding, Part
    >>> plain_findings({"so": Finding([Part("it is so", 1.0)])})["so"]["text"]
    ''
    """
    plain = {}
    for key, finding in findings.items():
        plain[key] = {
            "parts": [list(part) for part in finding.parts], "text": finding.text}
    return plain


def table(
    claims: Sequence[Claim], more: Sequence[Sequence[str]] = (),
    headings: Sequence[str] = (),
) -> str:
    """Return claims as an html table.

    On a narrow screen the style sheet shows the verdict and the claim of each row; the
    other cells appear when the reader opens the row.

    Parameters
    ----------
    claims : sequence of Claim
    more : sequence of sequence of str
        Html of further cells, for each claim.
    headings : sequence of str
        Their headings.

    Examples
    --------
    >>> text = table([Claim("3.1", "r < 1", "0.5", "holds")])
    >>> "<td>r &lt; 1" in text
    True
    """
    names = ["Verdict", "Statement", "Found", "Place in the paper", *headings]
    lines = []
    for i, claim in enumerate(claims):
        cells = [
            verdict_mark(claim.verdict),
            html.escape(claim.statement) + _UNFOLD,
            html.escape(claim.found),
            html.escape(claim.where),
        ]
        if more:
            cells += more[i]
        # A narrow screen has no line of headings: each cell brings its own.
        data = [
            f"<td data-heading='{html.escape(name, quote=True)}'>{cell}</td>"
            for name, cell in zip(names[2:], cells[2:])]
        lines.append(f"<tr><td>{cells[0]}</td><td>{cells[1]}</td>{''.join(data)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        f"<table class='claims'><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


# What a reader on a narrow screen opens to see the other cells of a row. It is hidden
# where there is no style sheet of the book, such as in a notebook.
_UNFOLD = "<details hidden><summary>Found, and where</summary></details>"


def verdict_mark(verdict: str) -> str:
    """Return the html of a verdict, with its symbol, in its colour.

    Examples
    --------
    >>> verdict_mark("cannot be told")
    "<span class='verdict cannot-be-told'>–&nbsp;cannot be told</span>"
    """
    name = verdict.replace(" ", "-")
    return f"<span class='verdict {name}'>{VERDICTS[verdict]}&nbsp;{verdict}</span>"


def with_symbol(verdict: str) -> str:
    """Return a verdict behind its symbol, as plain text.

    Examples
    --------
    >>> with_symbol("holds")
    '● holds'
    """
    return f"{VERDICTS[verdict]} {verdict}"
