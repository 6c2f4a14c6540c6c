"""Numbers about pairs of models that respect that pairs share models."""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float


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
    present, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
    (a, b), n = np.split(numbers, 2), len(present)
    if n < 3:
        raise ValueError(f"wanted pairs of at least three models, got {n}")
    totals = np.bincount(a, values, n) + np.bincount(b, values, n)
    counts = np.bincount(a, minlength=n) + np.bincount(b, minlength=n)
    without = (values.sum() - totals) / (len(values) - counts)
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    mean, reach = values.mean(), stats.t.ppf((1 + level) / 2, n - 1) * error
    return Estimate(mean, mean - reach, mean + reach)


def overlap(lower, upper) -> float:
    """Probability that a draw from `lower` is at least one from `upper`; ties count half.

    0 where the two sets of values do not overlap, 1/2 where they cannot be told apart: one minus
    the area under the ROC curve of telling them apart.
    """
    lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    u = stats.mannwhitneyu(lower, upper).statistic
    return float(u / (lower.size * upper.size))
