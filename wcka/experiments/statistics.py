"""Statistics over pairs of models that account for pairs that share models."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from ..measures.spelling import nearest
from . import crossed


class Interval(NamedTuple):
    """A number with the ends of its interval.

    Examples
    --------
    >>> interval = Interval(0.5, 0.4, 0.6)
    >>> interval.low < interval.value < interval.high
    True
    """

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """A test statistic, standard normal under no difference, and its two-sided p-value.

    Examples
    --------
    >>> Comparison(z=0.0, p=1.0).p
    1.0
    """

    z: float
    p: float


# ------------------------------------------------------------------- tests of pairs


def mantel_test(
    a, b, x, y, strata=None, permutations: int = 999, seed: int = 0
) -> float:
    """Return the one-sided p-value of a correlation of pairs, by permuting models.

    Parameters
    ----------
    a, b : array-like of int
        The two models of each pair, numbered from 0; each pair once.
    x, y : array-like
        Two numbers per pair; the models of `y` are permuted. A number that is not
        finite counts as missing, and its pair is left out.
    strata : array-like, optional
        One name per model: models are permuted within a stratum only. Where each
        stratum holds models of one kind, a pair is always replaced by a pair of the
        same kinds. Pairs whose replacement is not among the data are left out of that
        permutation's r.
    permutations : int
        Number of draws; the smallest p-value is 1 / (permutations + 1).
    seed : int
        Seed of the draws.

    Returns
    -------
    float
        Share of draws, the data counted as one, whose Pearson's r is at least that of
        the data. Draws without an r, such as those that leave one pair only, are not
        counted. NaN if the data have no r, because one of the two numbers is the same
        for all pairs.

    Examples
    --------
    Six models on a line; both numbers of a pair are the distance of its models.

    >>> a, b = np.triu_indices(6, 1)
    >>> print(mantel_test(a, b, b - a, b - a, permutations=99))
    0.01
    """
    a = np.asarray(a)
    b = np.asarray(b)
    x = np.asarray(x, float)
    y = np.asarray(y, float)
    n = int(max(a.max(), b.max())) + 1
    rng = np.random.default_rng(seed)
    table = np.full((n, n), np.nan)  # (models, models)
    table[a, b] = table[b, a] = y

    def r(order: np.ndarray) -> float:
        permuted = table[order[a], order[b]]  # (pairs,)
        is_known = np.isfinite(x) & np.isfinite(permuted)
        x_known = x[is_known]
        y_known = permuted[is_known]
        if len(x_known) < 2 or np.ptp(x_known) == 0 or np.ptp(y_known) == 0:
            return np.nan
        return np.corrcoef(x_known, y_known)[0, 1]

    groups = _groups(strata, n)
    order = np.arange(n)
    observed = r(order)
    if np.isnan(observed):
        return np.nan
    count = draws = 1  # the data themselves
    for _ in range(permutations):
        for group in groups:
            order[group] = group[rng.permutation(len(group))]
        drawn = r(order)
        draws += np.isfinite(drawn)
        # In small strata draws repeat the data. They count as ties, whatever their
        # rounding errors: hence the margin.
        count += drawn >= observed - 1e-12
    return float(count / draws)


def _groups(strata, n: int) -> list[np.ndarray]:
    """Return the numbers of the models of each stratum; one group without strata."""
    if strata is None:
        return [np.arange(n)]
    strata = np.asarray(strata)
    return [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]


def overlap(lower, upper) -> float:
    """Return the probability that a draw from `lower` exceeds one from `upper`.

    Ties count half. This is one minus the area under the ROC curve of a classifier
    that tells the two sets apart by their values.

    Parameters
    ----------
    lower, upper : array-like
        (n,) and (m,), the set that should have the lower values and the other one.

    Returns
    -------
    float
        0 where the two sets do not overlap, 1/2 where they cannot be told apart.

    Examples
    --------
    >>> overlap([0, 1], [2, 3]), overlap([0, 2], [1, 3]), overlap([1], [1])
    (0.0, 0.25, 0.5)
    """
    lower = np.asarray(lower, dtype=float)
    upper = np.asarray(upper, dtype=float)
    u = stats.mannwhitneyu(lower, upper).statistic
    return float(u / (lower.size * upper.size))


# ------------------------------------------------- correlations and their differences


def correlation(x, y, method: str = "pearson", level: float = 0.95) -> Interval:
    """Return a correlation with Fisher's interval, as in the paper (section 2.5).

    Parameters
    ----------
    x, y : array-like
        (n,), n at least 4.
    method : {"pearson", "spearman"}
        Pearson's r, whose Fisher z has the standard error 1/sqrt(n - 3); or Spearman's
        rho, whose z has sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett & Wright 2000).
    level : float
        Level of the interval, in (0, 1).

    Returns
    -------
    Interval
        Values in [-1, 1]; NaN where x or y is constant. The interval assumes n
        independent pairs, which pairs of models that share models are not.

    Raises
    ------
    ValueError
        For an unknown method, fewer than 4 numbers, different lengths, or numbers that
        are not finite.

    Examples
    --------
    >>> estimate = correlation([1, 2, 3, 4, 5], [1, 3, 2, 5, 4], "spearman")
    >>> round(estimate.value, 3)
    0.8
    """
    nearest(method, ("pearson", "spearman"), "method")
    x = np.asarray(x, dtype=float)
    y = np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 4:
        raise ValueError(
            f"wanted two rows of the same length, at least 4; got {x.shape} and "
            f"{y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("some numbers are not finite; drop and count them first")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Interval(np.nan, np.nan, np.nan)
    if method == "pearson":
        r = float(stats.pearsonr(x, y)[0])
        factor: float = 1
    else:
        r = float(stats.spearmanr(x, y)[0])
        factor = 1 + r**2 / 2
    return _fisher(r, np.sqrt(factor / (len(x) - 3)), level)


def _fisher(r: float, error: float, level: float = 0.95) -> Interval:
    """Return Fisher's interval of a correlation, given the standard error of its z."""
    half_width = stats.norm.ppf((1 + level) / 2) * error
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))  # finite at r = 1
    return Interval(r, float(np.tanh(z - half_width)), float(np.tanh(z + half_width)))


def fisher_test(a: float, b: float, n: int) -> Comparison:
    """Compare two correlations as if they came from independent samples.

    This is the paper's test (section 2.5).

    Parameters
    ----------
    a, b : float
        Correlations, in (-1, 1).
    n : int
        Size of each of the two samples.

    Examples
    --------
    >>> fisher_test(0.5, 0.5, n=30)
    Comparison(z=0.0, p=1.0)
    """
    z = (np.arctanh(a) - np.arctanh(b)) / np.sqrt(2 / (n - 3))
    return _two_sided(z)


def steiger_test(a: float, b: float, c: float, n: int) -> Comparison:
    """Compare two correlations that share a variable (Steiger 1980).

    Parameters
    ----------
    a, b : float
        The correlations r_jk and r_jh, in (-1, 1), which share the variable j.
    c : float
        The correlation r_kh of the two variables that are not shared.
    n : int
        Number of observations.

    Examples
    --------
    >>> z, p = steiger_test(0.60, 0.45, 0.70, n=100)
    >>> round(z, 3)
    2.323
    """
    r = (a + b) / 2
    s = (c * (1 - 2 * r**2) - r**2 * (1 - 2 * r**2 - c**2) / 2) / (1 - r**2) ** 2
    return _two_sided((np.arctanh(a) - np.arctanh(b)) * np.sqrt((n - 3) / (2 - 2 * s)))


def meng_test(a: float, b: float, c: float, n: int) -> Comparison:
    """Compare two correlations that share a variable (Meng, Rosenthal & Rubin 1992).

    See ``steiger_test`` for the parameters.

    Examples
    --------
    >>> z, p = meng_test(0.60, 0.45, 0.70, n=100)
    >>> round(z, 3)
    2.316
    """
    m = (a**2 + b**2) / 2
    f = min(1, (1 - c) / (2 * (1 - m)))
    h = (1 - f * m) / (1 - m)
    scale = np.sqrt((n - 3) / (2 * (1 - c) * h))
    return _two_sided((np.arctanh(a) - np.arctanh(b)) * scale)


def zou_interval(
    a: float, b: float, c: float, n: int, level: float = 0.95
) -> Interval:
    """Return the difference a - b of correlations that share a variable (Zou 2007).

    See ``steiger_test`` for the parameters; `level` is that of the interval.

    Examples
    --------
    >>> difference, low, high = zou_interval(0.60, 0.45, 0.70, n=100)
    >>> f"{difference:.2f} ({low:.2f} to {high:.2f})"
    '0.15 (0.02 to 0.29)'
    """
    _, low_a, high_a = _fisher(a, 1 / np.sqrt(n - 3), level)
    _, low_b, high_b = _fisher(b, 1 / np.sqrt(n - 3), level)
    # The correlation between the two correlations
    q = (c - a * b / 2) * (1 - a**2 - b**2 - c**2) + c**3
    q = q / ((1 - a**2) * (1 - b**2))
    below_a = a - low_a
    above_a = high_a - a
    below_b = b - low_b
    above_b = high_b - b
    below = np.sqrt(below_a**2 + above_b**2 - 2 * q * below_a * above_b)
    above = np.sqrt(above_a**2 + below_b**2 - 2 * q * above_a * below_b)
    return Interval(a - b, a - b - below, a - b + above)


def _two_sided(z: float) -> Comparison:
    """Return a standard normal statistic with its two-sided p-value."""
    return Comparison(float(z), float(2 * stats.norm.sf(abs(z))))


# ------------------------------------------------------------ tables of comparisons


def compare_measures(
    a, b, agreement, similarities: pd.DataFrame, reference: str = "wcka",
    method: str = "pearson", probe=None, strata: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Correlate measures of similarity with agreement, and compare the correlations.

    Parameters
    ----------
    a, b : array-like
        The training runs of each pair's two models, as in ``crossed.Design``.
    agreement : array-like
        Functional similarity, one value per row.
    similarities : DataFrame
        One column per measure, rows as in `agreement`.
    reference : str
        The measure that the other ones are compared with.
    method : {"pearson", "spearman"}
        See ``correlation``.
    probe : array-like, optional
        The probe of each row. Without it, errors speak for other runs on these probes.
    strata : mapping of str to str, optional
        The stratum of each run, as in ``crossed.Design``.

    Returns
    -------
    DataFrame
        One row per measure, with its correlation r; n, its number of rows; "low" and
        "high", an interval for independent rows (the paper's section 2.5); and "model
        low" and "model high", an interval for other runs and other probes. All
        intervals are of 95 %.

        Five tests are of the difference, r of the reference minus r of the measure.
        "p Fisher" (the paper's test) takes the two correlations for independent. "p
        Steiger", "p Meng", "Zou low" and "Zou high" know that the two share the
        agreement, but take rows for independent. "p model", "model difference low",
        "model difference high", "model error" and "model df" (its degrees of freedom)
        are over runs and probes, as in ``crossed.correlations``.

    Raises
    ------
    ValueError
        See ``correlation`` and ``crossed.Design``.

    Examples
    --------
    >>> a, b = np.triu_indices(5, 1)
    >>> agreement = (a - b) ** 2
    >>> similarities = pd.DataFrame({"cka": a * b, "wcka": agreement + a})
    >>> table = compare_measures(a, b, agreement, similarities)
    >>> table.r.round(2).to_dict()
    {'cka': -0.41, 'wcka': 0.98}
    """
    values = np.column_stack([agreement, similarities])  # (rows, 1 + measures)
    names = list(similarities)
    n = len(values)
    intervals = pd.DataFrame(
        [correlation(values[:, 0], similarities[m], method) for m in names], names)
    design = crossed.Design(a, b, probe, strata)
    z, leads = crossed.correlations(
        design, agreement, similarities, reference, method)
    leads[reference] = crossed.Estimate(0.0, 0.0, np.inf)
    with_reference = _correlations(values[:, 1:], method)[names.index(reference)]
    tests = []
    for measure, shared in zip(names, with_reference):
        if measure == reference:
            tests.append(_NO_DIFFERENCE)
        else:
            of_reference = intervals.value[reference]
            of_measure = intervals.value[measure]
            tests.append(_dependent_tests(of_reference, of_measure, shared, n))
    return pd.DataFrame({
        "r": intervals.value,
        "n": n,
        "low": intervals.low,
        "high": intervals.high,
        "model low": [np.tanh(z[name].low) for name in names],
        "model high": [np.tanh(z[name].high) for name in names],
        "difference": [leads[name].value for name in names],
        **pd.DataFrame(tests, names),
        "model difference low": [leads[name].low for name in names],
        "model difference high": [leads[name].high for name in names],
        "model error": [leads[name].error for name in names],
        "model df": [leads[name].df for name in names],
        "p model": [np.nan if name == reference else leads[name].p for name in names],
    }, index=pd.Index(names, name="measure"))


# A measure has no difference from itself to test.
_NO_DIFFERENCE = {"p Fisher": np.nan, "p Steiger": np.nan, "p Meng": np.nan,
                  "Zou low": 0, "Zou high": 0}


def _dependent_tests(
    a: float, b: float, c: float, n: int
) -> dict[str, float]:
    """Return the tests of a difference that take rows for independent."""
    zou = zou_interval(a, b, c, n)
    return {
        "p Fisher": fisher_test(a, b, n).p,
        "p Steiger": steiger_test(a, b, c, n).p,
        "p Meng": meng_test(a, b, c, n).p,
        "Zou low": zou.low,
        "Zou high": zou.high,
    }


def _correlations(columns: np.ndarray, method: str) -> np.ndarray:
    """Return the correlations of all pairs of columns."""
    if method == "pearson":
        return np.corrcoef(columns, rowvar=False)
    return np.corrcoef(stats.rankdata(columns, axis=0), rowvar=False)


def compare_by_factor(
    table: pd.DataFrame, columns: Sequence[str], target: str = "agreement",
    method: str = "pearson", strata: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Apply ``compare_measures``, over starts and probes, to each factor of a grid.

    Parameters
    ----------
    table : DataFrame
        Columns differs, "start a", "start b", probe, `target` and `columns`, as from
        ``benchmark.grid``.
    columns : sequence of str
        The measures, wcka among them.
    target : str
        The column that the measures should follow.
    method : {"pearson", "spearman"}
        See ``correlation``.
    strata : mapping of str to str, optional
        The stratum of each start, as in ``crossed.Design``.

    Returns
    -------
    DataFrame
        Indexed by what differs and by measure.

    Examples
    --------
    >>> a, b = np.triu_indices(5, 1)
    >>> table = pd.DataFrame({"differs": "seed", "start a": a, "start b": b,
    ...                       "probe": "clean", "agreement": (a - b) ** 2.0,
    ...                       "cka": a * b, "wcka": a + b})
    >>> compare_by_factor(table, ["cka", "wcka"]).index.tolist()
    [('seed', 'cka'), ('seed', 'wcka')]
    """
    comparisons = {}
    for factor, part in table.groupby("differs", sort=False):
        comparisons[factor] = compare_measures(
            part["start a"], part["start b"], part[target], part[list(columns)],
            method=method, probe=part["probe"], strata=strata,
        )
    return pd.concat(comparisons, names=["differs"])


def r_by_factor(
    table: pd.DataFrame, columns: dict[str, str], target: str = "agreement"
) -> pd.DataFrame:
    """Return Pearson's r of columns with a target, by factor.

    Parameters
    ----------
    table : DataFrame
        Columns differs, `target` and the values of `columns`.
    columns : dict of str to str
        Columns of the table, by the names of the rows that they become.
    target : str
        The column to correlate with.

    Returns
    -------
    DataFrame
        One row per name, one column per factor.

    Examples
    --------
    >>> table = pd.DataFrame({"differs": "seed", "agreement": [1, 2, 3],
    ...                       "wcka": [2, 4, 6]})
    >>> r_by_factor(table, {"wCKA": "wcka"}).round(6)
          seed
    wCKA   1.0
    """
    correlations = {}
    for factor, part in table.groupby("differs", sort=False):
        of_factor = {}
        for name, column in columns.items():
            of_factor[name] = part[column].corr(part[target])
        correlations[factor] = of_factor
    return pd.DataFrame(correlations, index=list(columns))


def demeaned(rows: pd.DataFrame, columns: Sequence[str], by) -> pd.DataFrame:
    """Return the table with `columns` minus their means over groups of rows.

    Parameters
    ----------
    rows : DataFrame
    columns : sequence of str
        The columns that change; all other ones stay.
    by : str, list or Series
        What the rows of a group have in common, as for ``DataFrame.groupby``.

    Examples
    --------
    >>> rows = pd.DataFrame({"probe": ["fog", "fog", "pgd"], "wcka": [0.0, 1.0, 5.0]})
    >>> demeaned(rows, ["wcka"], "probe").wcka.tolist()
    [-0.5, 0.5, 0.0]
    """
    columns = list(columns)
    means = rows.groupby(by)[columns].transform("mean")
    return rows.assign(**rows[columns] - means)


def ceilings(table: pd.DataFrame) -> pd.Series:
    """Return the highest r with agreement of a measure that ignores the probes.

    Such a measure, as wCKA is, has one value per pair, the same on all probes. It
    follows agreement best if it equals the pair's mean agreement.

    Parameters
    ----------
    table : DataFrame
        Columns differs, a, b (the pair) and agreement; one row per pair and probe.

    Returns
    -------
    Series
        One value in [0, 1] per factor.

    Examples
    --------
    >>> table = pd.DataFrame({"differs": "seed", "a": [0, 0, 1, 1], "b": 2,
    ...                       "agreement": [0.5, 0.5, 1.0, 1.0]})
    >>> ceilings(table)
    seed    1.0
    dtype: float64
    """
    highest = {}
    for factor, part in table.groupby("differs", sort=False):
        by_pair = part.groupby(["a", "b"], observed=True).agreement
        mean = by_pair.transform("mean")
        highest[factor] = float(np.sqrt(mean.var() / part.agreement.var()))
    return pd.Series(highest)
