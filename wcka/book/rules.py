"""Rules by which findings become verdicts, in one place.

The sentences of the paper that are judged, and the rule for each, stand in
``book/statements.yml``. A chapter brings numbers with their errors, as parts of a
finding. Here they become verdicts: change a rule or a threshold, and all verdicts
follow from the stored numbers, without a network being trained.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import yaml
from scipy import stats

from ..experiments.crossed import Estimate
from ..measures.nulls import holm
from ..measures.spelling import nearest
from . import checkout
from .claims import IN_PART, NOT_IN_FULL, Claim

# A difference of correlations or similarities that is smaller matters to nobody.
# The one other threshold of the book is the accuracy from which a network counts as
# having learned, a parameter of the chapters.
MARGIN = 0.1
# Of all tests of a family together, half of it in each direction
LEVEL = 0.05

YES, NO, OPEN = "yes", "no", "open"


class Part(NamedTuple):
    """One number, or one fact, that a verdict rests on.

    Attributes
    ----------
    label : str
        What it is of, such as "CKA, seed".
    value : float
        The number; of a fact 1 where it is so, and 0 where it is not.
    error : float
        Standard error; 0 for what is exact.
    df : float
        Degrees of freedom of the error.
    rule : str
        One of ``RULES``, where it is not that of the statement.

    Examples
    --------
    >>> part = Part("CKA, seed", 0.12, error=0.02, df=40)
    >>> part.text, part.rule
    ('CKA, seed +0.12 (+0.08 to +0.16)', '')
    """

    label: str
    value: float
    error: float = 0.0
    df: float = 1e6
    rule: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval."""
        half_width = stats.t.ppf(0.975, self.df) * self.error
        return self.value - half_width, self.value + half_width

    @property
    def text(self) -> str:
        """The label with the number and its interval."""
        low, high = self.interval
        if low == high:  # also where the error is lost beside the number
            return f"{self.label} {self.value:.3g}"
        # Two digits, and more where the interval is narrower than these can show.
        digits = max(2, math.ceil(-math.log10((high - low) / 2)))
        form = f"+.{digits}f" if digits <= 6 else "+.1g"
        return f"{self.label} {self.value:{form}} ({low:{form}} to {high:{form}})"


def part(label: str, estimate: Estimate, rule: str = "") -> Part:
    """Return a part of a finding from an estimate with its error.

    Parameters
    ----------
    label, rule : str
        As in ``Part``.
    estimate : Estimate
        Such as ``crossed.means`` returns.

    Examples
    --------
    >>> part("CKA, floor", Estimate(0.18, 0.01, 59), "small").df
    59
    """
    return Part(label, estimate.value, estimate.error, estimate.df, rule)


def fact(label: str, is_so: bool) -> Part:
    """Return a part of a finding that is so or not.

    Examples
    --------
    >>> fact("wCKA is constant", True).value
    1.0
    """
    return Part(label, float(is_so))


def lost_part(label: str, similarities: Sequence[float]) -> Part:
    """Return what is lost of a similarity, one minus its mean, as a part of a finding.

    Parameters
    ----------
    label : str
        As in ``Part``.
    similarities : sequence of float
        Of independent networks with what was made of them; at least two.

    Examples
    --------
    >>> lost = lost_part("dead units", [0.9, 0.7])
    >>> round(lost.value, 6), round(lost.error, 6), lost.df
    (0.2, 0.1, 1)
    """
    values = np.asarray(similarities, float)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return Part(label, float(1 - values.mean()), float(error), len(values) - 1)


class Finding(NamedTuple):
    """What a run found on one statement.

    Attributes
    ----------
    parts : sequence of Part
        At least one, unless the run cannot say anything.
    text : str
        What else a reader should know; it is shown behind the parts.

    Examples
    --------
    >>> Finding([Part("it is so", 1.0)]).text
    ''
    """

    parts: Sequence[Part]
    text: str = ""


class Rule(NamedTuple):
    """How a number answers with yes or no.

    Attributes
    ----------
    meaning : str
        In words, as the page of rules shows it.
    words : tuple of str
        What parts are called that answer with yes, with no, or leave it open.
    yes, no : function
        One-sided p-values of the part and the margin: of the number being as large or
        as small as it is if the answer were not yes, or not no.

    Examples
    --------
    >>> RULES["higher"].words
    ('higher', 'not higher', 'open')
    """

    meaning: str
    words: tuple[str, str, str]
    yes: Callable[[Part, float], float]
    no: Callable[[Part, float], float]


class Statement(NamedTuple):
    """A sentence of the paper, or one beyond it, and how it is judged.

    Attributes
    ----------
    key : str
        The name that a chapter's finding has.
    chapter : str
        Number of the chapter, such as "03".
    place : str
        Where it stands, to the sentence.
    says : str
        The sentence, in its words where that is possible.
    rule : str
        One of ``RULES``.
    family : str
        Statements of one family are corrected together for their number of tests.
    timed : bool
        Whether findings are times, which no two runs share.
    numbers : str
        What its numbers are, where their labels do not say it.

    Examples
    --------
    >>> statements("03")["fisher"].rule
    'small'
    """

    key: str
    chapter: str
    place: str
    says: str
    rule: str
    family: str
    timed: bool = False
    numbers: str = ""


# -------------------------------------------------------------------------- the rules


def _above(part: Part, limit: float) -> float:
    """Return the one-sided p-value of: the true number is at most `limit`."""
    if part.error == 0:
        return float(part.value <= limit)
    return float(stats.t.sf((part.value - limit) / part.error, part.df))


def _below(part: Part, limit: float) -> float:
    """Return the one-sided p-value of: the true number is at least `limit`."""
    return _above(part._replace(value=-part.value), -limit)


RULES: dict[str, Rule] = {
    "higher": Rule(
        "a difference is above zero, however small; no: it is not, and is below the "
        "margin",
        ("higher", "not higher", "open"),
        lambda part, margin: _above(part, 0),
        lambda part, margin: _below(part, margin)),
    "similar": Rule(
        "a difference is within the margin around zero; no: it is outside",
        ("similar", "not similar", "open"),
        lambda part, margin: max(_above(part, -margin), _below(part, margin)),
        lambda part, margin: min(_above(part, margin), _below(part, -margin))),
    "large": Rule(
        "a number is above the margin; no: it is below",
        ("large", "not large", "open"),
        lambda part, margin: _above(part, margin),
        lambda part, margin: _below(part, margin)),
    "small": Rule(
        "a number is below the margin; no: it is above",
        ("small", "not small", "open"),
        lambda part, margin: _below(part, margin),
        lambda part, margin: _above(part, margin)),
    "fact": Rule(
        "it is so; no: it is not",
        ("so", "not so", "open"),
        lambda part, margin: _above(part, 0.5),
        lambda part, margin: _below(part, 0.5)),
}


def fold(answers: Sequence[str]) -> str:
    """Return the verdict of a statement from the answers of its parts.

    It holds if all answer with yes, fails if all answer with no, and holds partly if
    some answer with yes and some with no. As long as an open one could change that, it
    cannot be told.

    Examples
    --------
    >>> fold(["yes", "yes"]), fold(["no"]), fold(["yes", "no", "open"])
    ('holds', 'fails', 'partly')
    >>> fold(["yes", "open"]), fold(["no", "open"]), fold([])
    ('cannot be told', 'cannot be told', 'cannot be told')
    """
    if YES in answers and NO in answers:
        return "partly"
    if OPEN in answers or not answers:
        return "cannot be told"
    return "holds" if YES in answers else "fails"


def known_so_far(answers: Sequence[str]) -> str:
    """Return what answers tell of a statement whose verdict others leave open.

    Returns
    -------
    str
        ``claims.IN_PART``, ``claims.NOT_IN_FULL``, or nothing.

    Examples
    --------
    >>> known_so_far(["yes", "open"]), known_so_far(["no", "open"])
    ('it holds at least in part', 'it does not hold in full')
    >>> known_so_far(["open"]), known_so_far(["yes", "no", "open"])
    ('', '')
    """
    told = {*answers} - {OPEN}
    if OPEN not in answers or len(told) != 1:
        return ""
    return IN_PART if told == {YES} else NOT_IN_FULL


# ------------------------------------------------------------------------- judgements


@cache
def all_statements() -> dict[str, Statement]:
    """Return all statements by their keys, in the order of their file.

    Examples
    --------
    >>> all_statements()["linear"].chapter
    '03'
    """
    path = checkout.ROOT / "book" / "statements.yml"
    entries = yaml.safe_load(path.read_text("utf-8"))
    by_key = {}
    for key, entry in entries.items():
        statement = Statement(key, **entry)
        nearest(statement.rule, RULES, f"{path.name}, {key}: rule")
        by_key[key] = statement
    return by_key


def statements(chapter: str) -> dict[str, Statement]:
    """Return the statements that a chapter judges, by their keys.

    Raises
    ------
    ValueError
        For a statement with an unknown rule.

    Examples
    --------
    >>> "linear" in statements("03")
    True
    """
    of_chapter = {}
    for key, statement in all_statements().items():
        if statement.chapter == chapter:
            of_chapter[key] = statement
    return of_chapter


def judge(chapter: str, findings: Mapping[str, Finding],
          margin: float = MARGIN) -> list[Claim]:
    """Return the claims of a chapter, each with its verdict.

    Parameters
    ----------
    chapter : str
        Its number, such as "03".
    findings : mapping of str to Finding
        What the run found, by the keys of the chapter's statements; all of them.
    margin : float
        Differences below it do not matter.

    Returns
    -------
    list of Claim
        In the order of the statements.

    Raises
    ------
    ValueError
        If findings and statements have different keys, a number or its error is not
        finite, degrees of freedom are not positive, or a part has an unknown rule.

    Examples
    --------
    >>> finding = Finding([Part("coverage short of 95 %", 0.15, error=0.01)])
    >>> findings = {key: finding for key in statements("03")}
    >>> claims = {claim.key: claim.verdict for claim in judge("03", findings)}
    >>> claims["fisher"], claims["linear"]
    ('fails', 'holds')
    """
    of_chapter = statements(chapter)
    if findings.keys() != of_chapter.keys():
        missing = sorted(of_chapter.keys() - findings.keys())
        unknown = sorted(findings.keys() - of_chapter.keys())
        raise ValueError(
            f"chapter {chapter}: no finding on {missing}, no statement for {unknown}")
    for key, finding in findings.items():
        for part in finding.parts:
            _check(part, f"{key}, {part.label}")
    answers = answer_parts(of_chapter, findings, margin)
    claims = []
    for key, statement in of_chapter.items():
        finding = findings[key]
        verdict = fold(answers[key])
        known = known_so_far(answers[key])
        found = _described(statement, finding, answers[key], margin)
        if known:
            found += f"; {known}"
        if verdict == "cannot be told" and finding.parts:
            factor = _size_that_tells(key, of_chapter, findings, margin)
            found += f"; {_size_text(factor)}"
        claims.append(Claim(
            statement.place, statement.says, found, verdict,
            statement.timed, key, [list(part) for part in finding.parts],
            finding.text, known))
    return claims


def _check(part: Part, name: str) -> None:
    """Refuse a part that no rule can judge."""
    if not np.isfinite(part.value) or not 0 <= part.error < np.inf:
        raise ValueError(
            f"{name}: wanted a finite number and error, got {part.value} ± "
            f"{part.error}")
    if not part.df > 0:
        raise ValueError(f"{name}: wanted positive degrees of freedom, got {part.df}")
    if part.rule:
        nearest(part.rule, RULES, f"{name}: rule")


def _rule_of(statement: Statement, part: Part) -> Rule:
    """Return the rule of a part."""
    return RULES[part.rule or statement.rule]


def answer_parts(
    of_chapter: Mapping[str, Statement], findings: Mapping[str, Finding],
    margin: float = MARGIN,
) -> dict[str, list[str]]:
    """Return the answers of all parts, corrected over each family in each direction.

    Parameters
    ----------
    of_chapter : mapping of str to Statement
        By key, such as ``statements`` returns them; all that share a family.
    findings : mapping of str to Finding
        One for each of these keys.
    margin : float
        As in ``judge``.

    Returns
    -------
    dict of str to list
        By key, "yes", "no" or "open" for each part.

    Examples
    --------
    >>> fisher = {"fisher": statements("03")["fisher"]}
    >>> answer_parts(fisher, {"fisher": Finding([Part("short by", 0.8, 0.01)])})
    {'fisher': ['no']}
    """
    answers: dict[str, list[str]] = {}
    by_family: dict[str, list[tuple[str, Part]]] = {}
    for key, statement in of_chapter.items():
        answers[key] = []
        for part in findings[key].parts:
            by_family.setdefault(statement.family, []).append((key, part))
    for tests in by_family.values():
        rules = [_rule_of(of_chapter[key], part) for key, part in tests]
        p_yes = holm([rule.yes(part, margin) for rule, (_, part) in zip(rules, tests)])
        p_no = holm([rule.no(part, margin) for rule, (_, part) in zip(rules, tests)])
        for (key, _), yes, no in zip(tests, p_yes, p_no):
            if yes < LEVEL / 2:
                answers[key].append(YES)
            else:
                answers[key].append(NO if no < LEVEL / 2 else OPEN)
    return answers


def _enlarged(finding: Finding, factor: float) -> Finding:
    """Return a finding as it would be from an experiment `factor` times as large.

    That is, with so many times as many of all that its errors speak for: runs, and
    probes where there are any. The numbers are taken to stay as they are, errors to
    fall with the root of the size, and their degrees of freedom to grow with it.
    """
    parts = []
    for part in finding.parts:
        parts.append(part._replace(error=part.error / factor**0.5, df=part.df * factor))
    return finding._replace(parts=parts)


def _size_that_tells(key: str, of_chapter: Mapping[str, Statement],
                     findings: Mapping[str, Finding], margin: float) -> float:
    """Return how many times as large an experiment would tell a statement's verdict.

    All statements of its family are judged anew, as they would be from that experiment.
    It is infinite where not even the largest that is considered would tell.
    """
    family = {}
    for name, statement in of_chapter.items():
        if statement.family == of_chapter[key].family:
            family[name] = statement

    def is_told(factor: float) -> bool:
        enlarged = {name: _enlarged(findings[name], factor) for name in family}
        answers = answer_parts(family, enlarged, margin)
        return fold(answers[key]) != fold([OPEN])

    factors = np.geomspace(1, _LARGEST, 500)
    # Where a p-value is below one half it falls with the size: once told, always told.
    enough = bisect_left(factors, True, key=is_told)
    return float(factors[enough]) if enough < len(factors) else np.inf


# ------------------------------------------------------------------------------ words


# No experiment is considered that is more times as large.
_LARGEST = 100


def _size_text(factor: float) -> str:
    """Return a clause on how much larger an experiment would tell."""
    if np.isinf(factor):
        return (f"if the numbers stay, an experiment {_LARGEST} times as large would "
                "not tell")
    return f"if the numbers stay, an experiment {factor:.1f} times as large would tell"


def _described(statement: Statement, finding: Finding, answers: list[str],
               margin: float) -> str:
    """Return the parts of a finding in words, those of one answer together."""
    groups: dict[str, list[str]] = {}
    for part, answer in zip(finding.parts, answers):
        rule = _rule_of(statement, part)
        word = rule.words[(YES, NO, OPEN).index(answer)]
        is_slight = rule is RULES["higher"] and rule.no(part, margin) < LEVEL / 2
        if answer == YES and is_slight:
            word = "higher, by less than the margin"
        is_fact = rule is RULES["fact"] and part.error == 0
        text = part.label if is_fact else part.text
        groups.setdefault(word, []).append(text)
    texts = [f"{word}: {', '.join(parts)}" for word, parts in groups.items()]
    if texts and statement.numbers:
        texts.insert(0, f"({statement.numbers})")
    if finding.text:
        texts.append(finding.text)
    return "; ".join(texts) or "nothing, in this run"
