"""Errors of standard deviations and ranges: against leaving out rows, and a truth."""

import numpy as np
import pandas as pd
import pytest

from wcka.experiments import spreads
from wcka.experiments.crossed import Design


def table(n_runs=6, n_probes=4, seed=0):
    """All pairs of runs on all probes, with effects of both."""
    rng = np.random.default_rng(seed)
    a, b = np.triu_indices(n_runs, 1)
    of_runs = rng.standard_normal(n_runs)
    tables = []
    for probe in range(n_probes):
        x = of_runs[a] + of_runs[b] + rng.standard_normal(len(a)) + 5
        tables.append(pd.DataFrame({
            "a": a, "b": b, "probe": probe, "x": x, "y": 0.5 * np.sin(3 * x) + 2,
            "z": x**2 + probe}))
    return pd.concat(tables, ignore_index=True)


def left_out(rows, statistic):
    """Value and error of a statistic by leaving out rows and computing it anew."""
    value = statistic(rows)
    runs = np.unique(rows[["a", "b"]])
    probes = np.unique(rows["probe"])
    has_run = [((rows.a == run) | (rows.b == run)).to_numpy() for run in runs]
    has_probe = [(rows["probe"] == probe).to_numpy() for probe in probes]
    of_runs = np.array([statistic(rows[~mask]) for mask in has_run])
    of_probes = np.array([statistic(rows[~mask]) for mask in has_probe])
    interaction = 0.0
    for i, run in enumerate(has_run):
        for j, probe in enumerate(has_probe):
            both = statistic(rows[~(run | probe)])
            interaction += (both - of_runs[i] - of_probes[j] + value) ** 2
    n, m = len(runs), len(probes)
    of_factors = [(n - 1) ** 2 / n * of_runs.var(ddof=1),
                  (m - 1) ** 2 / m * of_probes.var(ddof=1)]
    variance = sum(of_factors) - (n - 1) * (m - 1) / (n * m) * interaction
    return value, np.sqrt(max(variance, *of_factors))


@pytest.mark.parametrize("name", ["deviation", "difference", "range"])
@pytest.mark.parametrize("seed", [0, 1])
def test_estimates_are_those_of_left_out_rows(name, seed):
    rows = table(seed=seed)
    design = Design(rows.a, rows.b, rows["probe"])
    if name == "deviation":
        estimate = spreads.standard_deviation(design, rows.x)
        expected = left_out(rows, lambda kept: kept.x.std(ddof=0))
    elif name == "difference":
        estimate = spreads.deviation_difference(design, rows.x, rows.y)
        expected = left_out(
            rows, lambda kept: kept.x.std(ddof=0) - kept.y.std(ddof=0))
    else:
        columns = ["x", "y", "z"]
        estimate = spreads.range_of_means(design, rows[columns])
        expected = left_out(rows, lambda kept: np.ptp(kept[columns].mean()))
    assert (estimate.value, estimate.error) == pytest.approx(expected)


def test_a_difference_has_the_sign_of_the_larger_deviation():
    rows = table()
    design = Design(rows.a, rows.b)
    forth = spreads.deviation_difference(design, rows.x, rows.y)
    back = spreads.deviation_difference(design, rows.y, rows.x)
    assert forth.value == pytest.approx(-back.value) and forth.value > 0
    assert forth.error == pytest.approx(back.error)


def test_equal_values_have_no_spread_and_no_error():
    a, b = np.triu_indices(5, 1)
    estimate = spreads.standard_deviation(Design(a, b), np.full(len(a), 0.7))
    assert (estimate.value, estimate.error) == (0, 0)


def test_a_large_mean_costs_no_digits():
    a, b = np.triu_indices(5, 1)
    values = 1e6 + np.sin(np.arange(len(a)))
    estimate = spreads.standard_deviation(Design(a, b), values)
    assert estimate.value == pytest.approx(values.std(), rel=1e-9)


def test_errors_are_those_of_repeated_draws():
    """The jackknife's error is the spread of estimates over other draws of networks."""
    rng = np.random.default_rng(0)
    a, b = np.triu_indices(20, 1)
    values = []
    errors = []
    for _ in range(200):
        of_runs = rng.standard_normal((5, 20))
        x = (of_runs[:, a] * of_runs[:, b]).mean(0)
        estimate = spreads.standard_deviation(Design(a, b), x)
        values.append(estimate.value)
        errors.append(estimate.error)
    assert 0.8 < np.mean(errors) / np.std(values) < 1.5
