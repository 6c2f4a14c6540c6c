"""Errors that speak for other networks and for other probes at once.

A table of pairs has two factors that were drawn: the training runs that the networks
come from, and the probes that their agreement is counted on. What is found should hold
for others of both kinds. Its variance is, after Schuett et al. (2023, eLife 82566), the
sum of the variances over runs and over probes, less that of their interaction, which
both contain. All three are jackknives here: they leave out a run with all its pairs, a
probe, or both. The jackknife over runs deletes one node of a network of pairs; its
variance is conservative (Lin, Lunde & Sarkar 2020, arXiv 2004.08935).

Some properties of runs are chosen and not drawn, such as the architecture. Runs that
have them in common are a stratum, and errors speak for other runs of the same strata
(Jones 1974, "Jackknife estimation of functions of stratum means", Biometrika 61:343).
"""

import math
from collections.abc import Mapping
from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import isotonic_regression

from ..measures.spelling import nearest

METHODS = ("pearson", "spearman")


class Estimate(NamedTuple):
    """A number, its standard error, and the degrees of freedom of that.

    Examples
    --------
    >>> estimate = Estimate(0.5, 0.1, 20)
    >>> round(estimate.low, 2), round(estimate.high, 2), round(estimate.p, 4)
    (0.29, 0.71, 0.0001)
    """

    value: float
    error: float
    df: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval, from Student's t."""
        return float(self.value - stats.t.ppf(0.975, self.df) * self.error)

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return float(self.value + stats.t.ppf(0.975, self.df) * self.error)

    @property
    def p(self) -> float:
        """Two-sided p-value of: it is zero."""
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.df))


class Design:
    """The runs and the probes of a table's rows, numbered.

    Parameters
    ----------
    a, b : array-like
        (rows,), the runs of each pair's two networks, by any names. Checkpoints of one
        run are not independent: name the run. A pair within a run has a = b.
    probe : array-like, optional
        (rows,), the probe of each row. Without it, errors speak for other runs only.
    strata : mapping of str to str, optional
        The stratum of each run, by its name. Without a run the others of its stratum
        count for it as well, so strata keep their shares of the rows. Strata of a
        single run, which does not tell how it varies, are joined with others.

    Attributes
    ----------
    n_runs, n_probes : int
        Their numbers.
    stratum : ndarray
        (runs,), the number of each run's stratum.

    Raises
    ------
    ValueError
        For fewer than three runs, or a run without a stratum.

    Examples
    --------
    >>> design = Design(["x", "x", "y"], ["y", "z", "z"])
    >>> design.n_runs, design.n_probes
    (3, 1)
    """

    def __init__(self, a, b, probe=None, strata: Mapping[str, str] | None = None):
        names, numbers = _numbered(np.concatenate(
            [np.asarray(a, object), np.asarray(b, object)]))
        self.n_runs = len(names)
        if self.n_runs < 3:
            raise ValueError(f"wanted pairs of at least three runs, got {self.n_runs}")
        self.a, self.b = np.split(numbers, 2)
        if probe is None:
            probe = np.zeros(len(self.a))
        probes, self.probe = _numbered(np.asarray(probe))
        self.n_probes = len(probes)
        self.stratum = np.zeros(self.n_runs, int)
        if strata is not None:
            missing = [name for name in names if name not in strata]
            if missing:
                raise ValueError(f"run {missing[0]} has no stratum")
            self.stratum = _joined(np.array([strata[name] for name in names]))
        low, high = np.sort(self.stratum[np.stack([self.a, self.b])], axis=0)
        # Rows between the same two strata are a block.
        n_strata = self.stratum.max() + 1
        blocks, self.block = np.unique(low * n_strata + high, return_inverse=True)
        self.n_blocks = len(blocks)

    def among(self, rows: np.ndarray) -> "Design":
        """Return the design of some rows (booleans), with all runs and probes kept.

        A run without rows is left out without a change.
        """
        part = copy(self)
        part.__dict__.pop("scales_without_runs", None)  # which is of these rows
        part.a, part.b = self.a[rows], self.b[rows]
        part.probe, part.block = self.probe[rows], self.block[rows]
        return part

    @cached_property
    def scales_without_runs(self) -> np.ndarray:
        """What rows count without each run, so that blocks keep sizes: (runs, blocks).

        A block that has no rows without the run is lost.
        """
        ones = np.ones((len(self.a), 1))
        of_blocks = self.by_block_and_probe(ones).sum((1, 2))  # (blocks,)
        of_runs = self.by_run_block_and_probe(ones).sum((2, 3))  # (runs, blocks)
        left = of_blocks - of_runs
        return np.where(left > 0, of_blocks / np.maximum(left, 1), 0.0)

    def by_run_block_and_probe(self, values: np.ndarray) -> np.ndarray:
        """Return sums over the rows of each run: (runs, blocks, probes, columns).

        A row counts for both of its runs, once where they are the same.
        """
        shape = (self.n_runs, self.n_blocks, self.n_probes)
        cell_of_a = np.ravel_multi_index((self.a, self.block, self.probe), shape)
        between = self.a != self.b
        cell_of_b = np.ravel_multi_index(
            (self.b[between], self.block[between], self.probe[between]), shape)
        columns = []
        for column in values.T:
            sums = np.bincount(cell_of_a, column, math.prod(shape))
            sums += np.bincount(cell_of_b, column[between], math.prod(shape))
            columns.append(sums.reshape(shape))
        return np.stack(columns, axis=-1)

    def by_block_and_probe(self, values: np.ndarray) -> np.ndarray:
        """Return sums over the rows: (blocks, probes, columns)."""
        shape = (self.n_blocks, self.n_probes)
        cell = np.ravel_multi_index((self.block, self.probe), shape)
        columns = []
        for column in values.T:
            sums = np.bincount(cell, column, math.prod(shape))
            columns.append(sums.reshape(shape))
        return np.stack(columns, axis=-1)


def _numbered(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different names as texts, sorted, and the number of each entry's.

    Only these few are sorted, and not all entries, of which there are many.
    """
    codes, few = pd.factorize(names, use_na_sentinel=False)
    texts, numbers = np.unique(np.asarray(few, str), return_inverse=True)
    return texts, numbers[codes]


def _joined(strata: np.ndarray) -> np.ndarray:
    """Number strata (runs,), of which each has at least two runs."""
    numbers = np.unique(strata, return_inverse=True)[1]
    while numbers.max() > 0:
        counts = np.bincount(numbers)
        smallest, second = np.argsort(counts, kind="stable")[:2]
        if counts[smallest] >= 2:
            break
        numbers[numbers == smallest] = second
        numbers = np.unique(numbers, return_inverse=True)[1]
    return numbers


def estimates_from(
    value, without_runs, without_probes=None, without_both=None, *, stratum=None
) -> list[Estimate]:
    """Return estimates of several statistics, from their values without one or two.

    Parameters
    ----------
    value : array-like
        (statistics,), of all rows.
    without_runs : array-like
        (runs, statistics), each without one run.
    without_probes : array-like, optional
        (probes, statistics). Without it, or with one probe, errors are over runs.
    without_both : array-like, optional
        (runs, probes, statistics), each without one run and one probe. Without it the
        interaction is counted twice, and the error is an upper bound.
    stratum : array-like of int, optional
        (runs,), the stratum of each run; one for all by default.

    Returns
    -------
    list of Estimate
        With degrees of freedom after Satterthwaite (1946).

    Examples
    --------
    The mean of independent numbers has the error that textbooks give.

    >>> x = np.array([1.0, 2.0, 4.0, 7.0])
    >>> without_one = [[np.delete(x, i).mean()] for i in range(4)]
    >>> estimate, = estimates_from([x.mean()], without_one)
    >>> bool(np.isclose(estimate.error, x.std(ddof=1) / 2)), estimate.df
    (True, 3.0)
    """
    value = np.asarray(value, float)
    without_runs = np.asarray(without_runs, float)
    if stratum is None:
        stratum = np.zeros(len(without_runs), int)
    stratum = np.asarray(stratum)
    variance_of_runs = _jackknife_variance(without_runs, stratum)  # (statistics,)
    df_of_runs = len(without_runs) - len(np.unique(stratum))
    if without_probes is None or len(without_probes) < 2:
        errors = np.sqrt(variance_of_runs)
        return [Estimate(float(v), float(e), float(df_of_runs))
                for v, e in zip(value, errors)]
    without_probes = np.asarray(without_probes, float)
    variance_of_probes = _jackknife_variance(without_probes)
    df_of_probes = len(without_probes) - 1
    variance = variance_of_runs + variance_of_probes
    if without_both is not None:
        interaction = (np.asarray(without_both) - without_runs[:, None]
                       - without_probes + value)  # (runs, probes, statistics)
        m = len(without_probes)
        sizes = np.bincount(stratum)[stratum]  # (runs,)
        scale = (sizes - 1) / sizes * (m - 1) / m
        variance = variance - (scale[:, None, None] * interaction**2).sum((0, 1))
        # Noise of three estimates must not take it below what one factor shows.
        variance = np.maximum(
            variance, np.maximum(variance_of_runs, variance_of_probes))
    estimates = []
    for v, total, runs, probes in zip(
            value, variance, variance_of_runs, variance_of_probes):
        spread = runs**2 / df_of_runs + probes**2 / df_of_probes
        df = total**2 / spread if spread else min(df_of_runs, df_of_probes)
        df = min(df, df_of_runs + df_of_probes)
        estimates.append(Estimate(float(v), float(np.sqrt(total)), float(df)))
    return estimates


def _jackknife_variance(without_one: np.ndarray, stratum=None) -> np.ndarray:
    """Return the jackknife variance from the values without one unit each.

    `stratum` holds the number of each unit's stratum.
    """
    if stratum is None:
        stratum = np.zeros(len(without_one), int)
    variance = np.zeros(without_one.shape[1:])
    for number in np.unique(stratum):
        of_stratum = without_one[stratum == number]
        n = len(of_stratum)
        deviations = of_stratum - of_stratum.mean(0)
        variance += (n - 1) / n * (deviations**2).sum(0)
    return variance


# ------------------------------------------------------------------- correlations


def correlations(
    design: Design, target, columns: pd.DataFrame, reference: str | None,
    method: str = "pearson",
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Correlate columns with a target, and compare the correlations with one of them.

    Parameters
    ----------
    design : Design
    target : array-like
        (rows,), such as the agreement.
    columns : DataFrame
        Rows as in `target`, one column per measure.
    reference : str or None
        The measure whose lead over the others is estimated.
    method : {"pearson", "spearman"}

    Returns
    -------
    z : dict of str to Estimate
        Fisher's z of each column's correlation, whose intervals, carried back by tanh,
        stay within -1 and 1.
    leads : dict of str to Estimate
        The correlation of the reference minus that of each other column.

    Raises
    ------
    ValueError
        For an unknown method.

    Examples
    --------
    >>> a, b = np.triu_indices(6, 1)
    >>> agreement = (a - b) ** 2.0
    >>> columns = pd.DataFrame({"cka": a * b, "wcka": agreement + a})
    >>> z, leads = correlations(Design(a, b), agreement, columns, "wcka")
    >>> round(float(np.tanh(z["wcka"].value)), 2), leads["cka"].p < 0.05
    (0.99, True)
    """
    nearest(method, METHODS, "method")
    values = np.column_stack([np.asarray(target, float), columns.to_numpy(float)])
    names = list(columns)
    index = names.index(reference) if reference else 0

    def statistics(r: np.ndarray) -> np.ndarray:
        """Fisher's z and leads, (..., 2 measures), of correlations (..., measures)."""
        leads = r[..., [index]] - r
        # A column that is constant, or the target itself, has no finite z.
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.concatenate([np.arctanh(r), leads], axis=-1)

    if method == "pearson":
        replicates = _pearson_replicates(design, values)
    else:
        replicates = _spearman_replicates(design, values)
    estimates = estimates_from(
        *(statistics(part) for part in replicates), stratum=design.stratum)
    z = dict(zip(names, estimates[:len(names)]))
    leads = dict(zip(names, estimates[len(names):]))
    leads.pop(names[index])
    return z, leads if reference else {}


def mean_correlations(
    design: Design, groups, target, columns: pd.DataFrame, reference: str,
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Correlate columns with a target in each group of rows, and average over groups.

    Groups share runs and probes: what is left out is left out of all of them, so that
    the error of the mean knows how groups vary together.

    Parameters
    ----------
    design, target, columns, reference
        As in ``correlations``.
    groups : array-like
        (rows,), such as the factor in which a pair differs. Each counts alike.

    Returns
    -------
    r : dict of str to Estimate
        The mean of each column's Pearson correlations.
    leads : dict of str to Estimate
        The mean of the reference minus that of each other column.

    Examples
    --------
    >>> a, b = np.triu_indices(6, 1)
    >>> agreement = (a - b) ** 2.0
    >>> columns = pd.DataFrame({"cka": a * b, "wcka": agreement + a})
    >>> r, leads = mean_correlations(
    ...     Design(a, b), (a + b) % 2, agreement, columns, "wcka")
    >>> round(r["wcka"].value, 2), leads["cka"].p < 0.05
    (0.98, True)
    """
    values = np.column_stack([np.asarray(target, float), columns.to_numpy(float)])
    groups = np.asarray(groups)
    names = list(columns)
    by_group = []
    for group in np.unique(groups):
        rows = groups == group
        by_group.append(_pearson_replicates(design.among(rows), values[rows]))
    replicates = []
    for parts in zip(*by_group):
        r = np.mean(parts, axis=0)  # (..., measures)
        replicates.append(np.concatenate(
            [r, r[..., [names.index(reference)]] - r], axis=-1))
    estimates = estimates_from(*replicates, stratum=design.stratum)
    means_of_r = dict(zip(names, estimates))
    leads = dict(zip(names, estimates[len(names):]))
    leads.pop(reference)
    return means_of_r, leads


def _pearson_replicates(design: Design, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return r with the first column: of all rows, without a run, a probe, and both.

    Sums of products are all that r depends on, and those of the rows that are left out
    are subtracted from those of all rows.
    """
    return tuple(_r_of_sums(sums) for sums in leave_out(design, _products(values)))


def _products(values: np.ndarray) -> np.ndarray:
    """Return what r needs the sums of: 1, y, y^2; x, x^2 and x y of each column."""
    centred = values - values.mean(0)  # sums of squares lose no digits
    y, x = centred[:, :1], centred[:, 1:]
    return np.concatenate([np.ones_like(y), y, y**2, x, x**2, x * y], axis=1)


def _r_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return r (..., measures) from sums of products (..., 3 + 3 measures)."""
    n, y, yy = (sums[..., [i]] for i in range(3))
    x, xx, xy = np.split(sums[..., 3:], 3, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = xy - x * y / n
        return covariance / np.sqrt((xx - x**2 / n) * (yy - y**2 / n))


def _spearman_replicates(design: Design, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return rho as ``_pearson_replicates`` returns r.

    Rows are ranked anew without each run and each probe. Without both, ranks are those
    of all rows, which is enough for the small term that it is needed for.
    """
    groups = []  # of equal numbers, in their order
    for column in values.T:
        groups.append(np.unique(column, return_inverse=True)[1])

    def rho(weights: np.ndarray) -> np.ndarray:
        """Correlations with the first column; rows of weight 0 are left out."""
        ranks = np.stack([_ranks(group, weights) for group in groups])
        ranks -= (ranks @ weights / weights.sum())[:, None]
        products = (ranks * weights) @ ranks.T  # (columns, columns)
        squares = products.diagonal()
        with np.errstate(invalid="ignore", divide="ignore"):
            return products[0, 1:] / np.sqrt(squares[0] * squares[1:])

    everything = np.ones(len(values))
    value = rho(everything)
    without_runs = []
    for run in range(design.n_runs):
        touches = (design.a == run) | (design.b == run)
        without_runs.append(
            rho(np.where(touches, 0, design.scales_without_runs[run][design.block])))
    of_runs = np.stack(without_runs)
    if design.n_probes == 1:
        return value, of_runs
    without_probes = []
    for probe in range(design.n_probes):
        without_probes.append(rho((design.probe != probe).astype(float)))
    of_probes = np.stack(without_probes)
    ranked = np.stack([_ranks(group, everything) for group in groups], axis=1)
    r, r_of_runs, r_of_probes, r_of_both = _pearson_replicates(design, ranked)
    interaction = r_of_both - r_of_runs[:, None] - r_of_probes + r
    return value, of_runs, of_probes, interaction + of_runs[:, None] + of_probes - value


def _ranks(group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean ranks of rows, given the group of each row's number.

    A row with weight 2 counts as two rows.
    """
    counts = np.bincount(group, weights)
    first = np.cumsum(counts) - counts  # of each group, from 0
    return (first + (counts + 1) / 2)[group]


# ------------------------------------------------------------------------ linearity


def line_shares(design: Design, target, columns: pd.DataFrame,
                reference: str) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Return the share of a target's variance that a line explains, out of sample.

    The line is fitted without a run, and predicts the pairs of that run; this is done
    for each run, so nothing is drawn. The share is one minus the squared errors over
    those of the mean of the pairs that the line was fitted to.

    Parameters
    ----------
    design : Design
        Of one row per pair, or of one row per pair and probe; then the target is
        averaged over probes.
    target : array-like
        (rows,).
    columns : DataFrame
        Rows as in `target`; a pair has one value on all probes.
    reference : str
        The column whose lead over the others is estimated.

    Returns
    -------
    shares, leads : dict of str to Estimate
        At most 1; negative where a line predicts worse than a constant.

    Examples
    --------
    >>> a, b = np.triu_indices(6, 1)
    >>> columns = pd.DataFrame({"cka": a * b, "wcka": a + b})
    >>> shares, leads = line_shares(Design(a, b), 2 * (a + b), columns, "wcka")
    >>> round(shares["wcka"].value, 6), leads["cka"].value > 0
    (1.0, True)
    """
    names = list(columns)
    index = names.index(reference)
    target = np.asarray(target, float)
    x, run_a, run_b, by_probe = _one_row_per_pair(design, target, columns)

    def replicate(y: np.ndarray, leave_out: bool) -> np.ndarray:
        blocks = _blocks(run_a, run_b, design.n_runs, np.column_stack([y, x]))
        scales = _scales_between_runs(design) if leave_out else None
        shares = _held_out_shares(blocks, scales)  # (1 + runs or 1, measures)
        return np.concatenate([shares, shares[:, [index]] - shares], axis=1)

    of_all = replicate(by_probe.mean(0), True)
    without_probes = []
    for probe in range(len(by_probe)):
        if len(by_probe) > 1:
            rest = np.delete(by_probe, probe, axis=0).mean(0)
            without_probes.append(replicate(rest, False)[0])
    estimates = estimates_from(
        of_all[0], of_all[1:], without_probes or None, stratum=design.stratum)
    shares = dict(zip(names, estimates[:len(names)]))
    leads = dict(zip(names, estimates[len(names):]))
    leads.pop(reference)
    return shares, leads


def _one_row_per_pair(design: Design, target: np.ndarray, columns: pd.DataFrame):
    """Return the columns and runs of each pair, and its target by probe.

    Rows of one probe are the pairs, in the same order on every probe.
    """
    order = np.argsort(design.probe, kind="stable")
    if len(target) % design.n_probes:
        raise ValueError("wanted each pair on every probe")
    order = order.reshape(design.n_probes, -1)  # (probes, pairs)
    if not (design.a[order] == design.a[order[0]]).all():
        raise ValueError("wanted the pairs in the same order on every probe")
    by_probe = target[order]
    first = order[0]
    return (columns.to_numpy(float)[first], design.a[first], design.b[first], by_probe)


def _blocks(
    a: np.ndarray, b: np.ndarray, n_runs: int, values: np.ndarray
) -> np.ndarray:
    """Return sums of products over the pairs of two runs: (runs, runs, sums)."""
    products = _products(values)
    columns = []
    for column in products.T:
        block = np.bincount(a * n_runs + b, column, n_runs**2).reshape(n_runs, n_runs)
        columns.append(block + block.T - np.diag(block.diagonal()))
    return np.stack(columns, axis=-1)


def _scales_between_runs(design: Design) -> np.ndarray:
    """Return what pairs of two runs count without a third: (runs, runs, runs).

    The first axis is the run that is left out; its own pairs count zero.
    """
    n_strata = design.stratum.max() + 1
    low, high = np.sort(design.stratum[np.stack([design.a, design.b])], axis=0)
    by_strata = np.zeros((n_strata, n_strata), int)  # the block between two strata
    by_strata[low, high] = by_strata[high, low] = design.block
    block = by_strata[design.stratum[:, None], design.stratum]  # (runs, runs)
    scales = np.zeros((design.n_runs, *block.shape))
    for run in range(design.n_runs):
        scales[run] = design.scales_without_runs[run][block]
        scales[run, run] = scales[run, :, run] = 0
    return scales


def _held_out_shares(blocks: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
    """Return shares (1 + runs, measures): with all runs, then without each of them.

    `scales` are those of ``_scales_between_runs``; without them only the first row.
    """
    shares = [_share_of(blocks)]
    if scales is not None:
        for run, scale in enumerate(scales):
            scaled = scale[:, :, None] * blocks
            shares.append(_share_of(np.delete(np.delete(scaled, run, 0), run, 1)))
    return np.stack(shares)


def _share_of(blocks: np.ndarray) -> np.ndarray:
    """Return the shares of lines (measures,), from sums over the pairs of two runs."""
    n_runs = len(blocks)
    of_runs = blocks.sum(1)  # (runs, sums): rows that touch the run
    diagonal = blocks[np.arange(n_runs), np.arange(n_runs)]  # pairs within a run
    total = (of_runs.sum(0) + diagonal.sum(0)) / 2
    return _share(total, of_runs)


def _share(total: np.ndarray, of_runs: np.ndarray) -> np.ndarray:
    """Return the share that lines explain (measures,), each run held out in turn."""
    fit = total - of_runs  # (runs, sums)
    n, y, yy = (fit[:, [i]] for i in range(3))
    x, xx, xy = np.split(fit[:, 3:], 3, axis=-1)
    slope = (xy - x * y / n) / (xx - x**2 / n)  # (runs, measures)
    intercept = (y - slope * x) / n
    mean = y / n  # (runs, 1)
    n, y, yy = (of_runs[:, [i]] for i in range(3))
    x, xx, xy = np.split(of_runs[:, 3:], 3, axis=-1)
    error = (yy + slope**2 * xx + intercept**2 * n
             - 2 * slope * xy - 2 * intercept * y + 2 * slope * intercept * x)
    spread = yy - 2 * mean * y + mean**2 * n
    return 1 - error.sum(0) / spread.sum(0)


def curve_shares(design: Design, target, columns: pd.DataFrame) -> dict[str, float]:
    """Return what a rising curve explains where ``line_shares`` takes a line.

    The curve is an isotonic regression, linear between its values.

    Parameters
    ----------
    design, target, columns
        As in ``line_shares``.

    Examples
    --------
    >>> a, b = np.triu_indices(6, 1)
    >>> columns = pd.DataFrame({"wcka": a + b})
    >>> curve_shares(Design(a, b), (a + b) ** 3, columns)["wcka"] > 0.8
    True
    """
    target = np.asarray(target, float)
    x, run_a, run_b, by_probe = _one_row_per_pair(design, target, columns)
    y = by_probe.mean(0)  # (pairs,)
    shares = {}
    for name, values in zip(columns, x.T):
        order = np.argsort(values, kind="stable")
        squared_errors = 0.0
        spread = 0.0
        for run in range(design.n_runs):
            touches = (run_a == run) | (run_b == run)
            fit = order[~touches[order]]  # isotonic regression wants the order of x
            curve = isotonic_regression(y[fit]).x
            predicted = np.interp(values[touches], values[fit], curve)
            squared_errors += ((y[touches] - predicted) ** 2).sum()
            spread += ((y[touches] - y[fit].mean()) ** 2).sum()
        shares[name] = float(1 - squared_errors / spread)
    return shares


# ----------------------------------------------------------------------------- means


def means(design: Design, columns: pd.DataFrame) -> dict[str, Estimate]:
    """Return the mean of each column over the rows.

    Examples
    --------
    >>> a, b = np.triu_indices(4, 1)
    >>> means(Design(a, b), pd.DataFrame({"cka": np.full(6, 0.5)}))
    {'cka': Estimate(value=0.5, error=0.0, df=3.0)}
    """
    values = columns.to_numpy(float)
    counted = np.column_stack([np.ones(len(values)), values])  # (rows, 1 + columns)
    replicates = [sums[..., 1:] / sums[..., [0]] for sums in leave_out(design, counted)]
    estimates = estimates_from(*replicates, stratum=design.stratum)
    return dict(zip(columns, estimates))


def leave_out(design: Design, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return sums of all rows, and of those without a run, a probe, and both.

    Functions of these sums are what ``estimates_from`` takes.

    Parameters
    ----------
    design : Design
    values : ndarray
        (rows, columns).

    Returns
    -------
    tuple of ndarray
        (columns,), (runs, columns), (probes, columns) and (runs, probes, columns).
        Where there is one probe, it cannot be left out, and the last two are missing.
        Without a run the other rows between the same strata count for its rows.

    Examples
    --------
    >>> design = Design([0, 0, 1], [1, 2, 2])
    >>> total, without_runs = leave_out(design, np.array([[1.0], [2.0], [4.0]]))
    >>> total.tolist(), without_runs.tolist()
    ([7.0], [[4.0], [2.0], [1.0]])
    """
    of_probes = design.by_block_and_probe(values).sum(0)  # (probes, columns)
    total = of_probes.sum(0)
    without_runs = _without_runs(design, values)  # (runs, probes, columns)
    of_runs = without_runs.sum(1)  # (runs, columns)
    if design.n_probes == 1:
        return total, of_runs
    return total, of_runs, total - of_probes, of_runs[:, None] - without_runs


def _without_runs(design: Design, values: np.ndarray) -> np.ndarray:
    """Return sums over the rows of each probe without each run, strata kept in size."""
    of_runs = design.by_run_block_and_probe(values)
    left = design.by_block_and_probe(values) - of_runs
    if design.n_blocks == 1:
        return left[:, 0]
    return np.einsum("rb,rbpc->rpc", design.scales_without_runs, left)
