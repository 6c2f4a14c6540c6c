"""Standard deviations and ranges with errors over runs and probes.

They are functions of means, and so are their values without a run, a probe, or both.
See ``crossed`` for what these errors speak for.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from .crossed import Design, Estimate, estimates_from, leave_out


def standard_deviation(design: Design, values) -> Estimate:
    """Return the standard deviation of the rows' values.

    Parameters
    ----------
    design : Design
    values : array-like
        (rows,).

    Examples
    --------
    >>> a, b = np.triu_indices(5, 1)
    >>> estimate = standard_deviation(Design(a, b), a - b)
    >>> round(estimate.value, 6), estimate.df
    (1.0, 4.0)
    """
    centred = _centred(values)
    columns = np.column_stack([centred, centred**2])

    def statistics(means: np.ndarray) -> np.ndarray:
        return _deviation(means[..., [0]], means[..., [1]])

    return _of_means(design, columns, statistics)[0]


def deviation_difference(design: Design, x, y) -> Estimate:
    """Return the standard deviation of `x` minus that of `y`.

    Parameters
    ----------
    design : Design
    x, y : array-like
        (rows,), both of the same pairs.

    Examples
    --------
    >>> a, b = np.triu_indices(5, 1)
    >>> round(deviation_difference(Design(a, b), 3 * (a - b), a - b).value, 6)
    2.0
    """
    x = _centred(x)
    y = _centred(y)
    columns = np.column_stack([x, x**2, y, y**2])

    def statistics(means: np.ndarray) -> np.ndarray:
        deviation_of_x = _deviation(means[..., [0]], means[..., [1]])
        deviation_of_y = _deviation(means[..., [2]], means[..., [3]])
        return deviation_of_x - deviation_of_y

    return _of_means(design, columns, statistics)[0]


def range_of_means(design: Design, columns: pd.DataFrame) -> Estimate:
    """Return the highest mean of a column minus the lowest one.

    It is never negative; where all means are about the same, it is above zero by about
    their errors.

    Parameters
    ----------
    design : Design
    columns : DataFrame
        One row per pair, such as one column per kind of probe.

    Examples
    --------
    >>> a, b = np.triu_indices(5, 1)
    >>> columns = pd.DataFrame({"clean": a + b, "fog": a + b + 2, "noise": a + b + 1})
    >>> range_of_means(Design(a, b), columns)
    Estimate(value=2.0, error=0.0, df=4.0)
    """
    return _of_means(design, columns.to_numpy(float), _ranges)[0]


def _ranges(means: np.ndarray) -> np.ndarray:
    """Return the range of the last axis, which stays with length 1."""
    return means.max(-1, keepdims=True) - means.min(-1, keepdims=True)


def _centred(values) -> np.ndarray:
    """Return values less their mean, so that squares lose no digits."""
    values = np.asarray(values, float)
    return values - values.mean()


def _deviation(mean: np.ndarray, mean_of_squares: np.ndarray) -> np.ndarray:
    """Return the standard deviation from the means of values and of their squares."""
    return np.sqrt(np.maximum(mean_of_squares - mean**2, 0))


def _of_means(
    design: Design, values: np.ndarray, statistics: Callable[[np.ndarray], np.ndarray]
) -> list[Estimate]:
    """Return estimates of functions of the columns' means.

    Parameters
    ----------
    design : Design
    values : ndarray
        (rows, columns).
    statistics : function
        Takes means (..., columns) and returns numbers (..., statistics).
    """
    counted = np.column_stack([np.ones(len(values)), values])  # (rows, 1 + columns)
    replicates = []
    for sums in leave_out(design, counted):
        replicates.append(statistics(sums[..., 1:] / sums[..., [0]]))
    return estimates_from(*replicates, stratum=design.stratum)
