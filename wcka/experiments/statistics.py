"""Numbers about pairs of models that respect that pairs share models."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import isotonic_regression

from ..measures.spelling import nearest


class Estimate(NamedTuple):
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float


class Jackknife(NamedTuple):
    """A number, or an array of them, with the ends of its interval and the p-value of zero."""

    value: Any
    low: Any
    high: Any
    p: Any


def mean_over_pairs(a, b, values, level: float = 0.95) -> Estimate:
    """Mean over pairs of models, with a jackknife interval that leaves out whole models.

    n pairs of N models are not n observations: those that share a model move together. Leaving
    out one model at a time, with all its pairs, measures how much the mean hangs on the draw of
    models (Snijders & Borgatti 1999).

    Parameters
    ----------
    a, b : array-like of int
        The two models of each pair, by numbers of your choice.
    values : array-like
        One number a pair.
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    Estimate
        Mean and interval from Student's t with N - 1 degrees of freedom.

    Raises
    ------
    ValueError
        For fewer than three models, arrays of different lengths, or numbers that are not finite.
    """
    a, b, values = np.asarray(a), np.asarray(b), np.asarray(values, dtype=float)
    if not a.shape == b.shape == values.shape or a.ndim != 1:
        raise ValueError(f"wanted three rows of equal length, got {a.shape}, {b.shape}, "
                         f"{values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} of {len(values)} values are not finite; "
                         f"drop and count them first")
    return Estimate(*over_models(np.mean, a, b, values, level=level)[:3])


def over_models(statistic: Callable, a, b, *columns, level: float = 0.95) -> Jackknife:
    """Any statistic of pairs of models, with the interval of ``mean_over_pairs``.

    Parameters
    ----------
    statistic : function
        From some of the rows of `columns` to a number or an array; close to normal over draws of
        models (a correlation: its Fisher z, or a difference of two).
    a, b : array-like
        The two models of each pair, by names of your choice. Checkpoints of one training run are
        not independent: name the run, not the checkpoint (a pair within a run has a = b).
    *columns : array-like
        What the statistic takes, one row a pair.
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    Jackknife
        The statistic and its interval; arrays where the statistic is one.

    Raises
    ------
    ValueError
        For fewer than three models.
    """
    arrays = [np.asarray(c) for c in columns]
    models, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
    if len(models) < 3:
        raise ValueError(f"wanted pairs of at least three models, got {len(models)}")
    a, b = np.split(numbers, 2)
    keep = ((a != model) & (b != model) for model in range(len(models)))
    without = np.array([statistic(*(c[k] for c in arrays)) for k in keep])
    return _jackknife(statistic(*arrays), without, level)


def _jackknife(value, without: np.ndarray, level: float) -> Jackknife:
    """Interval from the values without each model in turn; Student's t, N - 1 degrees."""
    n = len(without)
    error = np.sqrt((n - 1) / n * ((without - without.mean(0)) ** 2).sum(0))
    reach = stats.t.ppf((1 + level) / 2, n - 1) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(value) / error, n - 1)
    parts = (np.asarray(part, float) for part in (value, value - reach, value + reach, p))
    return Jackknife(*(float(part) if part.ndim == 0 else part for part in parts))


def mantel_test(a, b, x, y, strata=None, permutations: int = 999, seed: int = 0) -> float:
    """One-sided p-value of a correlation between two tables of pairs, by permuting models.

    Parameters
    ----------
    a, b : array-like of int
        The two models of each pair, numbered from 0; each pair once.
    x, y : array-like
        Two numbers a pair; models of `y` are permuted.
    strata : array-like, optional
        One name a model: models change places within a stratum only. With strata that hold
        models of one kind, every pair finds another of its kind; pairs that do not are left out.
    permutations : int
        Draws; the smallest p-value is 1 / (permutations + 1).
    seed : int
        Of the draws.

    Returns
    -------
    float
        Share of draws, the data among them, with Pearson's r at least that of the data.
    """
    a, b, x, y = np.asarray(a), np.asarray(b), np.asarray(x, float), np.asarray(y, float)
    n, rng = int(max(a.max(), b.max())) + 1, np.random.default_rng(seed)
    table = np.full((n, n), np.nan)
    table[a, b] = table[b, a] = y
    groups = [np.arange(n)] if strata is None else [
        np.flatnonzero(np.asarray(strata) == s) for s in np.unique(strata)]

    def r(order: np.ndarray) -> float:
        moved = table[order[a], order[b]]
        there = np.isfinite(moved)
        return np.corrcoef(x[there], moved[there])[0, 1]

    order, found, count = np.arange(n), r(np.arange(n)), 1
    for _ in range(permutations):
        for group in groups:
            order[group] = group[rng.permutation(len(group))]
        count += r(order) >= found - 1e-12
    return count / (permutations + 1)


def overlap(lower, upper) -> float:
    """Probability that a draw from `lower` is at least one from `upper`; ties count half.

    0 where the two sets of values do not overlap, 1/2 where they cannot be told apart: one minus
    the area under the ROC curve of telling them apart.
    """
    lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    u = stats.mannwhitneyu(lower, upper).statistic
    return float(u / (lower.size * upper.size))


class Comparison(NamedTuple):
    """Statistic, standard normal where there is no difference, and two-sided p-value."""

    z: float
    p: float


def correlation(x, y, method: str = "pearson", level: float = 0.95) -> Estimate:
    """Correlation with Fisher's interval, as in the paper (section 2.5).

    Parameters
    ----------
    x, y : array-like
        (n,), n at least 4.
    method : {"pearson", "spearman"}
        Pearson's r, standard error 1/sqrt(n - 3) of its z; or Spearman's rho, whose error is
        sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett & Wright 2000).
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    Estimate
        In [-1, 1]; NaN where one side does not vary. The interval takes the n pairs for
        independent, which pairs of models that share models are not.

    Raises
    ------
    ValueError
        For an unknown method, fewer than 4 numbers, different lengths, numbers not finite.
    """
    nearest(method, ("pearson", "spearman"), "method")
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 4:
        raise ValueError(f"wanted two rows of the same length, at least 4; got {x.shape} and "
                         f"{y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("some numbers are not finite; drop and count them first")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    r = float(stats.pearsonr(x, y)[0] if method == "pearson" else stats.spearmanr(x, y)[0])
    factor = 1 if method == "pearson" else 1 + r**2 / 2
    return _fisher(r, np.sqrt(factor / (len(x) - 3)), level)


def _fisher(r: float, error: float, level: float = 0.95) -> Estimate:
    reach = stats.norm.ppf((1 + level) / 2) * error
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    return Estimate(r, float(np.tanh(z - reach)), float(np.tanh(z + reach)))


def fisher_test(a: float, b: float, n: int, m: int | None = None) -> Comparison:
    """Compare two correlations as if from independent samples of n and m (the paper's way)."""
    z = (np.arctanh(a) - np.arctanh(b)) / np.sqrt(1 / (n - 3) + 1 / ((m or n) - 3))
    return _two_sided(z)


def steiger_test(a: float, b: float, c: float, n: int) -> Comparison:
    """Compare r_jk = a with r_jh = b, which share j, given r_kh = c (Steiger 1980).

    Parameters
    ----------
    a, b, c : float
        Correlations, in (-1, 1).
    n : int
        Number of observations.
    """
    r = (a + b) / 2
    s = (c * (1 - 2 * r**2) - r**2 * (1 - 2 * r**2 - c**2) / 2) / (1 - r**2) ** 2
    return _two_sided((np.arctanh(a) - np.arctanh(b)) * np.sqrt((n - 3) / (2 - 2 * s)))


def meng_test(a: float, b: float, c: float, n: int) -> Comparison:
    """As ``steiger_test``, by Meng, Rosenthal & Rubin (1992)."""
    m = (a**2 + b**2) / 2
    f = min(1, (1 - c) / (2 * (1 - m)))
    h = (1 - f * m) / (1 - m)
    return _two_sided((np.arctanh(a) - np.arctanh(b)) * np.sqrt((n - 3) / (2 * (1 - c) * h)))


def zou_interval(a: float, b: float, c: float, n: int, level: float = 0.95) -> Estimate:
    """Interval of the difference a - b of two correlations that share a variable (Zou 2007).

    Parameters as in ``steiger_test``.
    """
    (_, l1, u1), (_, l2, u2) = (_fisher(r, 1 / np.sqrt(n - 3), level) for r in (a, b))
    q = ((c - a * b / 2) * (1 - a**2 - b**2 - c**2) + c**3) / ((1 - a**2) * (1 - b**2))
    low = np.sqrt((a - l1) ** 2 + (u2 - b) ** 2 - 2 * q * (a - l1) * (u2 - b))
    high = np.sqrt((u1 - a) ** 2 + (b - l2) ** 2 - 2 * q * (u1 - a) * (b - l2))
    return Estimate(a - b, a - b - low, a - b + high)


def compare_measures(a, b, agreement, similarities: pd.DataFrame, reference: str = "wcka",
                     method: str = "pearson", level: float = 0.95) -> pd.DataFrame:
    """How well measures of similarity follow agreement, and whether one does better than others.

    Parameters
    ----------
    a, b : array-like
        The training runs of each pair's two models, as in ``over_models``.
    agreement : array-like
        Functional similarity, one value a row.
    similarities : DataFrame
        A column a measure, rows as `agreement`.
    reference : str
        The measure that the others are compared with.
    method : {"pearson", "spearman"}
        As in ``correlation``.
    level : float
        Of all intervals, in (0, 1).

    Returns
    -------
    DataFrame
        A row a measure. r; n, its number of rows; low and high, as if rows were independent (the
        paper's section 2.5); "model low" and "model high", over runs. Of the difference r of the
        reference minus r: difference; "p Fisher" (the paper's test, which takes the two
        correlations for independent), "p Steiger", "p Meng", "Zou low", "Zou high", which know that
        both share the agreement but take rows for independent; "model difference low", "model
        difference high", "p model", over runs.

    Raises
    ------
    ValueError
        As ``correlation`` and ``over_models``.
    """
    values = np.column_stack([agreement, similarities])
    names, n = list(similarities), len(values)
    one = names.index(reference)

    def statistic(rows: np.ndarray) -> np.ndarray:
        r = _correlations(rows, method)[0, 1:]
        return np.stack([np.arctanh(r), r[one] - r])

    naive = pd.DataFrame([correlation(values[:, 0], similarities[m], method, level)
                          for m in names], names)
    z, difference = (Jackknife(*part) for part in zip(
        *over_models(statistic, a, b, values, level=level)))
    between = _correlations(values[:, 1:], method)[one]
    tests = [(m, naive.value[reference], naive.value[m], c) for m, c in zip(names, between)]
    zou = [zou_interval(x, y, c, n, level)[1:] if m != reference else (0, 0)
           for m, x, y, c in tests]
    return pd.DataFrame({
        "r": naive.value, "n": n, "low": naive.low, "high": naive.high,
        "model low": np.tanh(z.low), "model high": np.tanh(z.high),
        "difference": difference.value,
        **{f"p {name}": [test(x, y, c, n).p if m != reference else np.nan
                         for m, x, y, c in tests] for name, test in (
            ("Fisher", lambda x, y, c, n: fisher_test(x, y, n)),
            ("Steiger", steiger_test), ("Meng", meng_test))},
        "Zou low": [low for low, _ in zou], "Zou high": [high for _, high in zou],
        "model difference low": difference.low, "model difference high": difference.high,
        "p model": difference.p}, index=pd.Index(names, name="measure"))


def compare_by_factor(table: pd.DataFrame, columns: Sequence[str], target: str = "agreement",
                      method: str = "pearson") -> pd.DataFrame:
    """``compare_measures`` for each factor of a table of ``benchmark.grid``, over starts.

    Parameters
    ----------
    table : DataFrame
        Columns differs, "start a", "start b", `target` and `columns`.
    columns : sequence of str
        The measures, wcka among them.
    target : str
        What they should follow.
    method : {"pearson", "spearman"}
        As in ``correlation``.

    Returns
    -------
    DataFrame
        Rows by what differs and measure.
    """
    return pd.concat({
        factor: compare_measures(part["start a"], part["start b"], part[target],
                                 part[list(columns)], method=method)
        for factor, part in table.groupby("differs", sort=False)}, names=["differs"])


def r_by_factor(table: pd.DataFrame, columns: dict[str, str],
                target: str = "agreement") -> pd.DataFrame:
    """Pearson's r of columns (values) with a target: a row a name (keys), a column a factor."""
    return pd.DataFrame({
        factor: {name: part[column].corr(part[target]) for name, column in columns.items()}
        for factor, part in table.groupby("differs", sort=False)}, index=list(columns))


def demeaned(rows: pd.DataFrame, columns: Sequence[str], by) -> pd.DataFrame:
    """The table with `columns` less their means over the rows that are alike in `by`."""
    columns = list(columns)
    return rows.assign(**rows[columns] - rows.groupby(by)[columns].transform("mean"))


def ceilings(table: pd.DataFrame) -> pd.Series:
    """Highest r with agreement of whatever has one value a pair, the same on all probes."""
    def highest(part: pd.DataFrame) -> float:
        mean = part.groupby(["a", "b"], observed=True).agreement.transform("mean")
        return float(np.sqrt(mean.var() / part.agreement.var()))

    return pd.Series({factor: highest(part)
                      for factor, part in table.groupby("differs", sort=False)})


def straightness(x, y, folds: int = 10, seed: int = 0) -> tuple[float, float]:
    """Share of the variance of `y` that a line in `x`, and a rising curve, explain out of sample.

    Parameters
    ----------
    x, y : array-like
        (n,).
    folds : int
        Each is left out of the fit in turn.
    seed : int
        Of the assignment to folds.

    Returns
    -------
    line, curve : float
        R squared on what was left out; a straight relation has both alike.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    fold = np.random.default_rng(seed).permutation(len(x)) % folds
    rest = np.zeros(2)
    for k in range(folds):
        fit = np.flatnonzero(fold != k)
        fit, kept = fit[np.argsort(x[fit], kind="stable")], fold == k
        line = np.polyval(np.polyfit(x[fit], y[fit], 1), x[kept])
        curve = np.interp(x[kept], x[fit], isotonic_regression(y[fit]).x)
        rest += [((y[kept] - fitted) ** 2).sum() for fitted in (line, curve)]
    line, curve = 1 - rest / ((y - y.mean()) ** 2).sum()
    return float(line), float(curve)


def _correlations(columns: np.ndarray, method: str) -> np.ndarray:
    ranks = columns if method == "pearson" else stats.rankdata(columns, axis=0)
    return np.corrcoef(ranks, rowvar=False)


def _two_sided(z: float) -> Comparison:
    return Comparison(float(z), float(2 * stats.norm.sf(abs(z))))
