"""What the paper says beside what a run found: rows that chapters show and the book collects."""

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from .figures import NAMES

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


def verdict(*holds: bool) -> str:
    """Verdict of a claim from its parts: all hold, none does, or some do."""
    return "holds" if all(holds) else "partly" if any(holds) else "fails"


# The functions below take what statistics.compare_by_factor returns, rows by factor and measure;
# `results` has such tables under "pearson" and "spearman", `rows` those of one factor.


def leads(results: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Correlations and wCKA's leads as text, with intervals over starts; Pearson, Spearman."""
    def written(measure: str, row: pd.Series) -> tuple[str, str]:
        lead = interval(row.difference, row["model difference low"], row["model difference high"],
                        "+.2f")
        return interval(row.r, row["model low"], row["model high"]), lead * (measure != "wcka")

    symbols = {"pearson": "Pearson's r", "spearman": "Spearman's ρ"}
    return pd.concat({symbols[method]: pd.DataFrame(
        [written(measure, row) for (_, measure), row in rows.iterrows()], rows.index,
        ["correlation", "wCKA's lead"]) for method, rows in results.items()}, axis=1).rename(
        NAMES, level="measure").rename_axis([None, None])


def surely(results: pd.DataFrame, sign: int) -> str:
    """By factor, which measures wCKA is ahead of (sign 1) or behind (-1), p < 0.05 over starts."""
    sure = results[(sign * results.difference > 0) & (results["p model"] < 0.05)]
    beaten = {factor: ", ".join(NAMES[m] for _, m in part.index)
              for factor, part in sure.groupby("differs", sort=False)}
    return "; ".join(f"{factor} (than {names})" for factor, names in beaten.items()) or "no factor"


def ahead(results: pd.DataFrame, rival: str, sure: bool) -> str:
    """Factors where a rival's correlation is above wCKA's, p < 0.05 over starts if `sure`."""
    rows = results.xs(rival, level="measure")
    which = rows.index[(rows.difference < 0) & ((rows["p model"] < 0.05) | (not sure))]
    return ", ".join(which) or "no factor"


def strongest(rows: pd.DataFrame) -> str:
    """Verdict of: wCKA has the highest correlation.

    It holds if it is ahead of all others significantly; partly, if it is ahead of all, but of some
    only significantly; it fails if one is significantly ahead of it; else it cannot be told.
    """
    ahead, sure = rows.drop("wcka").difference > 0, rows.drop("wcka")["p model"] < 0.05
    if (sure & ~ahead).any():
        return "fails"
    if not (ahead.all() and sure.any()):
        return "cannot be told"
    return "holds" if sure.all() else "partly"


def similar(*tables: pd.DataFrame, margin: float = 0.1) -> str:
    """Verdict of: wCKA does as well as the others, all differences within a margin."""
    differences = pd.concat(tables)[["model difference low", "model difference high"]].drop("wcka")
    low, high = differences.to_numpy().T
    if (low >= -margin).all() and (high <= margin).all():
        return "holds"
    return "fails" if ((high < -margin) | (low > margin)).any() else "cannot be told"


def found(rows: pd.DataFrame) -> str:
    """Correlations of all measures as text, with intervals over starts."""
    return ", ".join(f"{NAMES[m]} {interval(r.r, r['model low'], r['model high'])}"
                     for m, r in rows.iterrows())


def strongest_by_factor(where: str, results: dict[str, pd.DataFrame], factors: Sequence[str],
                        readings: dict[str, pd.DataFrame]) -> list[Claim]:
    """Claims that wCKA's correlation is the strongest, by Pearson's r and Spearman's rho.

    `results` under "pearson" and "spearman"; `readings`: by what they are, Pearson's r of measures
    by factors with another choice, without wCKA's where the choice leaves it as it is. What holds,
    but not in these, holds in part.
    """
    rows = []
    for method, result in results.items():
        for factor in factors:
            said, judged = found(result.loc[factor]), strongest(result.loc[factor])
            of_factor = {name: table[factor] for name, table in readings.items()
                         if factor in table and method == "pearson"}
            for name, r in of_factor.items():
                said += f"; {name}: " + ", ".join(f"{NAMES[m]} {v:.2f}" for m, v in r.items())
                ours = r.get("wcka", result.loc[(factor, "wcka"), "r"])
                if judged == "holds" and r.drop("wcka", errors="ignore").max() > ours:
                    judged = "partly"
            rows.append(Claim(
                where, f"wCKA has the strongest {method.capitalize()} correlation: {factor}",
                said, judged))
    return rows


def significant(where: str, results: dict[str, pd.DataFrame], factors: Sequence[str]) -> Claim:
    """Claim that wCKA's leads over the others are significant at 0.001."""
    tests = pd.concat([rows.loc[factor].drop("wcka") for rows in results.values()
                       for factor in factors])
    ahead = tests.difference > 0

    def count(column: str, level: float) -> str:
        sure = tests[column] < level
        return f"{(sure & ahead).sum()} ahead and {(sure & ~ahead).sum()} behind"

    leads = ahead & (tests["p model"] < 0.001)
    return Claim(where, "wCKA's leads over the others are significant at 0.001",
                 f"{', '.join(factors)}, Pearson and Spearman: of {len(tests)} comparisons "
                 f"{count('p Fisher', 0.001)} by the paper's test, {count('p model', 0.001)} over "
                 f"starts ({count('p model', 0.05)} at 0.05)", verdict(leads.all(), leads.any()))


def raised(changes: pd.DataFrame) -> tuple[str, str]:
    """Changes of measures as text, and the verdict of: all are above zero.

    `changes`: value, low and high by measure. It holds if all surely are; partly if some are and
    none is surely below; it fails if one surely is; else it cannot be told.
    """
    words = ", ".join(f"{NAMES[m]} {interval(row.value, row.low, row.high, '+.2f')}"
                      for m, row in changes.iterrows())
    up, down = changes.low > 0, changes.high < 0
    if down.any():
        return words, "fails"
    return words, verdict(up.all(), up.any()) if up.any() else "cannot be told"


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
