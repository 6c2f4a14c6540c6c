"""Rules by which a chapter's numbers become verdicts on the paper's claims.

Most functions take tables as ``statistics.compare_by_factor`` returns them, indexed by
factor and measure, with columns r, "model low", "model high", difference (r of wCKA
minus r of the measure), "model difference low", "model difference high", "p model" and
"p Fisher". `results` holds two of them, under "pearson" and "spearman"; `rows` is the
part of one factor, indexed by measure. A difference is significant if p < 0.05 over
independent starts of training.
"""

from collections.abc import Sequence

import pandas as pd

from ..measures.all_pairs import MEASURE_LABELS
from .claims import Claim, interval
from .rules import LEVEL, holm

_METHOD_LABELS = {"pearson": "Pearson's r", "spearman": "Spearman's ρ"}


def verdict(*holds: bool) -> str:
    """Return the verdict of a claim from those of its parts.

    It holds if all parts hold, fails if none does, and holds partly otherwise.

    Examples
    --------
    >>> verdict(True, True), verdict(True, False), verdict(False, False)
    ('holds', 'partly', 'fails')
    """
    if all(holds):
        return "holds"
    return "partly" if any(holds) else "fails"


# ----------------------------------------------------------------------- as text


def leads_table(results: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return correlations and wCKA's leads as text, with intervals over starts.

    Parameters
    ----------
    results : dict of str to DataFrame
        Comparisons under "pearson" and "spearman".

    Returns
    -------
    DataFrame
        Rows by factor and measure; two columns per kind of correlation, its value and
        wCKA's lead, which is empty for wCKA itself.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed"], ["cka"]],
    ...                                    names=["differs", "measure"])
    >>> rows = pd.DataFrame({"r": 0.5, "model low": 0.4, "model high": 0.6,
    ...                      "difference": 0.1, "model difference low": 0.05,
    ...                      "model difference high": 0.15}, index)
    >>> leads_table({"pearson": rows}).iloc[0].tolist()
    ['0.50 (0.40 to 0.60)', '+0.10 (+0.05 to +0.15)']
    """
    tables = {}
    for method, rows in results.items():
        cells = []
        for (_, measure), row in rows.iterrows():
            cells.append((_correlation_text(row), _lead_text(measure, row)))
        columns = ["correlation", "wCKA's lead"]
        tables[_METHOD_LABELS[method]] = pd.DataFrame(cells, rows.index, columns)
    table = pd.concat(tables, axis=1).rename(MEASURE_LABELS, level="measure")
    return table.rename_axis([None, None])


def correlations_text(rows: pd.DataFrame) -> str:
    """Return the correlations of all measures as text, with intervals over starts.

    Examples
    --------
    >>> rows = pd.DataFrame({"r": 0.5, "model low": 0.4, "model high": 0.6}, ["cka"])
    >>> correlations_text(rows)
    'CKA 0.50 (0.40 to 0.60)'
    """
    texts = []
    for measure, row in rows.iterrows():
        texts.append(f"{MEASURE_LABELS[measure]} {_correlation_text(row)}")
    return ", ".join(texts)


def _correlation_text(row: pd.Series) -> str:
    """Return a correlation with its interval over starts, as text."""
    return interval(row.r, row["model low"], row["model high"])


def _lead_text(measure: str, row: pd.Series) -> str:
    """Return wCKA's lead over a measure as text; wCKA has none over itself."""
    if measure == "wcka":
        return ""
    low, high = row["model difference low"], row["model difference high"]
    return interval(row.difference, low, high, "+.2f")


def significant_differences(results: pd.DataFrame, sign: int) -> str:
    """Name the measures that wCKA leads significantly, or trails, by factor.

    Parameters
    ----------
    results : DataFrame
        Comparisons by factor and measure.
    sign : int
        1 for the measures that wCKA is ahead of, -1 for those that it is behind.

    Returns
    -------
    str
        Text such as "seed (than CKA, dCKA); strategy (than CKA)", or "no factor".

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed"], ["cka", "dcka"]],
    ...                                    names=["differs", "measure"])
    >>> rows = pd.DataFrame({"difference": 0.2, "p model": [0.01, 0.2]}, index)
    >>> significant_differences(rows, 1), significant_differences(rows, -1)
    ('seed (than CKA)', 'no factor')
    """
    has_sign = sign * results.difference > 0
    significant_rows = results[has_sign & _is_significant(results)]
    texts = []
    for factor, part in significant_rows.groupby("differs", sort=False):
        names = [MEASURE_LABELS[measure] for _, measure in part.index]
        texts.append(f"{factor} (than {', '.join(names)})")
    return "; ".join(texts) or "no factor"


def factors_led_by(results: pd.DataFrame, rival: str, significantly: bool) -> str:
    """Name the factors where a rival's correlation is above wCKA's.

    Parameters
    ----------
    results : DataFrame
        Comparisons by factor and measure.
    rival : str
        A measure.
    significantly : bool
        Whether to name factors only where the difference is significant.

    Returns
    -------
    str
        Names with commas, or "no factor".

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed", "epoch"], ["cka"]],
    ...                                    names=["differs", "measure"])
    >>> rows = pd.DataFrame({"difference": -0.2, "p model": [0.01, 0.2]}, index)
    >>> factors_led_by(rows, "cka", significantly=False)
    'seed, epoch'
    >>> factors_led_by(rows, "cka", significantly=True)
    'seed'
    """
    is_ahead = results.difference < 0
    if significantly:
        is_ahead &= _is_significant(results)
    rows = results.xs(rival, level="measure")
    is_ahead = is_ahead.xs(rival, level="measure")
    return ", ".join(rows.index[is_ahead]) or "no factor"


def _is_significant(results: pd.DataFrame) -> pd.Series:
    """Tell which differences are significant, corrected for their number by Holm."""
    p = results["p model"]
    tested = p.dropna()
    significant = pd.Series(False, results.index)
    significant[tested.index] = holm(tested) < LEVEL
    return significant


# --------------------------------------------------------------------- as verdicts


def strongest_verdict(rows: pd.DataFrame) -> str:
    """Return the verdict on: wCKA has the highest correlation.

    It holds if wCKA is ahead of every other measure, significantly; it holds partly if
    wCKA is ahead of every one, but not of every one significantly. It fails if a
    measure is significantly ahead of wCKA. Otherwise it cannot be told.

    Examples
    --------
    >>> rows = pd.DataFrame({"difference": [0.2, 0.1, 0.0],
    ...                      "p model": [0.01, 0.2, None]}, ["cka", "dcka", "wcka"])
    >>> strongest_verdict(rows)
    'partly'
    """
    rivals = rows.drop("wcka")
    is_ahead = rivals.difference > 0
    is_significant = rivals["p model"] < 0.05
    if (is_significant & ~is_ahead).any():
        return "fails"
    # A lead over every measure, none of it significant, tells nothing.
    if not (is_ahead.all() and is_significant.any()):
        return "cannot be told"
    return "holds" if is_significant.all() else "partly"


def equivalence_verdict(*tables: pd.DataFrame, margin: float = 0.1) -> str:
    """Return the verdict on: wCKA does as well as the others, within a margin.

    It holds if every interval of a difference lies within the margin around zero, and
    fails if one lies outside of it. Otherwise it cannot be told.

    Examples
    --------
    >>> rows = pd.DataFrame({"model difference low": [-0.05, 0.0],
    ...                      "model difference high": [0.08, 0.0]}, ["cka", "wcka"])
    >>> equivalence_verdict(rows), equivalence_verdict(rows, margin=0.06)
    ('holds', 'cannot be told')
    """
    columns = ["model difference low", "model difference high"]
    differences = pd.concat(tables)[columns].drop("wcka")
    low, high = differences.to_numpy().T
    if (low >= -margin).all() and (high <= margin).all():
        return "holds"
    is_outside = (high < -margin) | (low > margin)
    return "fails" if is_outside.any() else "cannot be told"


def strongest_claims(
    where: str, results: dict[str, pd.DataFrame], factors: Sequence[str],
    readings: dict[str, pd.DataFrame],
) -> list[Claim]:
    """Return the claims that wCKA's correlation is the strongest, by factor.

    The paper leaves open how agreement and similarity are measured. A claim on
    Pearson's r that holds, but not in every reading, holds partly.

    Parameters
    ----------
    where : str
        Place of the paper.
    results : dict of str to DataFrame
        Comparisons under "pearson" and "spearman".
    factors : sequence of str
        The factors to make a claim of.
    readings : dict of str to DataFrame
        Pearson's r of measures (rows) by factors (columns) in other readings, by their
        names. A reading that does not change wCKA's r may leave it out.

    Returns
    -------
    list of Claim
        One per kind of correlation and factor.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed"], ["cka", "wcka"]])
    >>> rows = pd.DataFrame({"r": [0.4, 0.6], "model low": 0.3, "model high": 0.7,
    ...                      "difference": [0.2, 0.0], "p model": [0.01, None]}, index)
    >>> reading = pd.DataFrame({"seed": [0.65]}, ["cka"])
    >>> claim, = strongest_claims(
    ...     "3.2", {"pearson": rows}, ["seed"], {"on the probe": reading})
    >>> claim.verdict
    'partly'
    """
    claims = []
    for method, comparison in results.items():
        for factor in factors:
            rows = comparison.loc[factor]
            text = correlations_text(rows)
            judgement = strongest_verdict(rows)
            if method == "pearson":
                for name, reading in readings.items():
                    if factor not in reading:
                        continue
                    r = reading[factor]
                    text += f"; {name}: {_reading_text(r)}"
                    r_wcka = r.get("wcka", rows.loc["wcka", "r"])
                    highest = r.drop("wcka", errors="ignore").max()
                    if judgement == "holds" and highest > r_wcka:
                        judgement = "partly"
            kind = method.capitalize()
            statement = f"wCKA has the strongest {kind} correlation: {factor}"
            claims.append(Claim(where, statement, text, judgement))
    return claims


def _reading_text(r: pd.Series) -> str:
    """Return the correlations of one reading as text."""
    return ", ".join(f"{MEASURE_LABELS[name]} {value:.2f}" for name, value in r.items())


def significance_claim(
    where: str, results: dict[str, pd.DataFrame], factors: Sequence[str]
) -> Claim:
    """Return the claim that wCKA's leads over the others are significant at 0.001.

    The verdict is by p over starts; the text has the paper's test as well.

    Parameters
    ----------
    where : str
        Place of the paper.
    results : dict of str to DataFrame
        Comparisons under "pearson" and "spearman".
    factors : sequence of str
        The factors whose comparisons count.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed"], ["cka", "wcka"]])
    >>> rows = pd.DataFrame({"difference": [0.2, 0.0], "p model": [0.01, None],
    ...                      "p Fisher": [1e-9, None]}, index)
    >>> significance_claim("fig. 3", {"pearson": rows}, ["seed"]).verdict
    'fails'
    """
    parts = []
    for rows in results.values():
        for factor in factors:
            parts.append(rows.loc[factor].drop("wcka"))
    tests = pd.concat(parts)
    is_ahead = tests.difference > 0

    def count(column: str, level: float) -> str:
        is_significant = tests[column] < level
        leads_count = (is_significant & is_ahead).sum()
        trails_count = (is_significant & ~is_ahead).sum()
        return f"{leads_count} ahead and {trails_count} behind"

    text = (
        f"{', '.join(factors)}, Pearson and Spearman: of {len(tests)} comparisons "
        f"{count('p Fisher', 0.001)} by the paper's test, "
        f"{count('p model', 0.001)} over starts ({count('p model', 0.05)} at 0.05)"
    )
    is_lead = is_ahead & (tests["p model"] < 0.001)
    statement = "wCKA's leads over the others are significant at 0.001"
    return Claim(where, statement, text, verdict(is_lead.all(), is_lead.any()))


def increase_verdict(changes: pd.DataFrame) -> tuple[str, str]:
    """Return changes of measures as text, and the verdict on: all are above zero.

    A change is above or below zero if its whole interval is. The claim holds if all
    changes are above, and fails if one is below. Otherwise it holds partly if some are
    above, and cannot be told if none is.

    Parameters
    ----------
    changes : DataFrame
        Columns value, low and high; one row per measure.

    Examples
    --------
    >>> increase_verdict(pd.DataFrame({"value": 0.2, "low": 0.1, "high": 0.3}, ["cka"]))
    ('CKA +0.20 (+0.10 to +0.30)', 'holds')
    """
    texts = []
    for measure, row in changes.iterrows():
        change = interval(row.value, row.low, row.high, "+.2f")
        texts.append(f"{MEASURE_LABELS[measure]} {change}")
    text = ", ".join(texts)
    is_above = changes.low > 0
    is_below = changes.high < 0
    if is_below.any():
        return text, "fails"
    if not is_above.any():
        return text, "cannot be told"
    return text, verdict(is_above.all(), is_above.any())
