"""Tables and sentences on where wCKA's correlation is ahead, and where behind.

The functions take tables as ``statistics.compare_by_factor`` returns them, indexed by
factor and measure, with columns r, "model low", "model high", difference (r of wCKA
minus r of the measure), "model difference low", "model difference high" and "p model".
A difference is significant if p < 0.05 over runs and probes, corrected for the number
of differences in the table.
"""

import pandas as pd

from ..measures.all_pairs import MEASURE_LABELS
from ..measures.nulls import holm
from ..measures.spelling import listed
from .claims import interval
from .rules import LEVEL, Part
from .sentences import capitalised, higher_and_lower

_METHOD_LABELS = {"pearson": "Pearson's r", "spearman": "Spearman's ρ"}


def table(results: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return correlations and wCKA's leads as text, with their intervals.

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
    >>> table({"pearson": rows}).iloc[0].tolist()
    ['0.50 (0.40 to 0.60)', '+0.10 (+0.05 to +0.15)']
    """
    tables = {}
    for method, rows in results.items():
        cells = []
        for (_, measure), row in rows.iterrows():
            cells.append((_correlation_text(row), _lead_text(measure, row)))
        columns = ["correlation", "wCKA's lead"]
        tables[_METHOD_LABELS[method]] = pd.DataFrame(cells, rows.index, columns)
    joined = pd.concat(tables, axis=1).rename(MEASURE_LABELS, level="measure")
    return joined.rename_axis([None, None])


def parts(results: dict[str, pd.DataFrame]) -> list[Part]:
    """Return wCKA's leads as parts of a finding, by factor, rival and correlation.

    Parameters
    ----------
    results : dict of str to DataFrame
        Comparisons under "pearson" and "spearman", with "model error" and "model df".

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed"], ["cka", "wcka"]],
    ...                                    names=["differs", "measure"])
    >>> rows = pd.DataFrame({"difference": [0.1, 0.0], "model error": [0.02, 0.0],
    ...                      "model df": 9.0}, index)
    >>> [(part.label, float(part.value)) for part in parts({"pearson": rows})]
    [('CKA, seed, Pearson', 0.1)]
    """
    of_rivals = []
    for method, rows in results.items():
        for (factor, measure), row in rows.drop("wcka", level="measure").iterrows():
            label = f"{MEASURE_LABELS[measure]}, {factor}, {method.capitalize()}"
            of_rivals.append(
                Part(label, row.difference, row["model error"], row["model df"]))
    return of_rivals


def _correlation_text(row: pd.Series) -> str:
    """Return a correlation with its interval, as text."""
    return interval(row.r, row["model low"], row["model high"])


def _lead_text(measure: str, row: pd.Series) -> str:
    """Return wCKA's lead over a measure as text; wCKA has none over itself."""
    if measure == "wcka":
        return ""
    low, high = row["model difference low"], row["model difference high"]
    return interval(row.difference, low, high, "+.2f")


def lead_sentence(results: pd.DataFrame, subject: str) -> str:
    """Return a sentence on where wCKA's correlation is significantly ahead or behind.

    Parameters
    ----------
    results : DataFrame
        Comparisons by factor and measure.
    subject : str
        The correlation, such as "Pearson's r of wCKA".

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed"], ["cka", "dcka"]],
    ...                                    names=["differs", "measure"])
    >>> rows = pd.DataFrame({"difference": 0.2, "p model": [0.01, 0.2]}, index)
    >>> lead_sentence(rows, "r of wCKA")
    'r of wCKA is significantly higher for seed (than CKA).'
    """
    return higher_and_lower(
        f"{subject} is", significant_differences(results, 1),
        significant_differences(results, -1),
        "higher for", "lower for",
        "not significantly different from that of any other measure, for any factor")


def significant_differences(results: pd.DataFrame, sign: int) -> list[str]:
    """Name the factors, and the measures that wCKA leads significantly or trails there.

    Parameters
    ----------
    results : DataFrame
        Comparisons by factor and measure.
    sign : int
        1 for the measures that wCKA is ahead of, -1 for those that it is behind.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed"], ["cka", "dcka"]],
    ...                                    names=["differs", "measure"])
    >>> rows = pd.DataFrame({"difference": 0.2, "p model": [0.01, 0.2]}, index)
    >>> significant_differences(rows, 1), significant_differences(rows, -1)
    (['seed (than CKA)'], [])
    """
    has_sign = sign * results.difference > 0
    significant_rows = results[has_sign & _is_significant(results)]
    texts = []
    for factor, part in significant_rows.groupby("differs", sort=False):
        names = [MEASURE_LABELS[measure] for _, measure in part.index]
        texts.append(f"{factor} (than {', '.join(names)})")
    return texts


def rival_sentence(results: pd.DataFrame, rival: str, name: str) -> str:
    """Return a sentence on the factors where a rival's correlation is above wCKA's.

    Parameters
    ----------
    results : DataFrame
        Comparisons by factor and measure.
    rival : str
        A measure.
    name : str
        What it is called, at the beginning of the sentence.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed", "epoch"], ["cka"]],
    ...                                    names=["differs", "measure"])
    >>> rows = pd.DataFrame({"difference": -0.2, "p model": [0.01, 0.2]}, index)
    >>> rival_sentence(rows, "cka", "CKA")
    'CKA has a higher r than wCKA for seed and epoch, significantly for seed.'
    """
    ahead = factors_led_by(results, rival, significantly=False)
    significantly_ahead = factors_led_by(results, rival, significantly=True)
    if not ahead:
        return f"{name} has a higher r than wCKA for no factor."
    if not significantly_ahead:
        ending = "not significantly"
    elif significantly_ahead == ahead:
        ending = "significantly"
    else:
        ending = f"significantly for {listed(significantly_ahead)}"
    return f"{name} has a higher r than wCKA for {listed(ahead)}, {ending}."


def better_rivals_sentence(results: pd.DataFrame, names: dict[str, str]) -> str:
    """Return a sentence on the rivals that follow agreement better than wCKA.

    Parameters
    ----------
    results : DataFrame
        Comparisons by factor and measure.
    names : dict of str to str
        What each rival is called, by its measure.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed", "epoch"], ["cka"]],
    ...                                    names=["differs", "measure"])
    >>> rows = pd.DataFrame({"difference": -0.2, "p model": [0.01, 0.2]}, index)
    >>> better_rivals_sentence(rows, {"cka": "CKA"})
    'CKA (seed) follows agreement significantly better than wCKA.'
    """
    better = []
    for rival, name in names.items():
        factors = factors_led_by(results, rival, significantly=True)
        if factors:
            better.append(f"{name} ({', '.join(factors)})")
    if not better:
        return ("None of the measures on the probe and of the baselines follows "
                "agreement significantly better than wCKA, for any factor.")
    verb = "follows" if len(better) == 1 else "follow"
    return capitalised(
        f"{listed(better)} {verb} agreement significantly better than wCKA.")


def factors_led_by(
    results: pd.DataFrame, rival: str, significantly: bool
) -> list[str]:
    """Return the factors where a rival's correlation is above wCKA's.

    Parameters
    ----------
    results : DataFrame
        Comparisons by factor and measure.
    rival : str
        A measure.
    significantly : bool
        Whether to name factors only where the difference is significant.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["seed", "epoch"], ["cka"]],
    ...                                    names=["differs", "measure"])
    >>> rows = pd.DataFrame({"difference": -0.2, "p model": [0.01, 0.2]}, index)
    >>> factors_led_by(rows, "cka", significantly=False)
    ['seed', 'epoch']
    >>> factors_led_by(rows, "cka", significantly=True)
    ['seed']
    """
    is_ahead = results.difference < 0
    if significantly:
        is_ahead &= _is_significant(results)
    rows = results.xs(rival, level="measure")
    is_ahead = is_ahead.xs(rival, level="measure")
    return rows.index[is_ahead].tolist()


def _is_significant(results: pd.DataFrame) -> pd.Series:
    """Tell which differences are significant, corrected for their number by Holm."""
    p = results["p model"]
    tested = p.dropna()
    significant = pd.Series(False, results.index)
    significant[tested.index] = holm(tested) < LEVEL
    return significant
