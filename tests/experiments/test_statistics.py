"""Statistics over pairs of models, against written-out formulas and simulation."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wcka.experiments.statistics import (
    ceilings,
    compare_by_factor,
    compare_measures,
    correlation,
    demeaned,
    fisher_test,
    mantel_test,
    meng_test,
    overlap,
    r_by_factor,
    steiger_test,
    zou_interval,
)


def pairs_of(n):
    """Return the two models of each pair of n models."""
    return np.triu_indices(n, 1)


def dyads(rng, n, rho):
    """Return the pairs of n models, and two values whose effects correlate by rho."""
    a, b = pairs_of(n)
    effects = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    noise = 0.3 * rng.standard_normal((len(a), 2))
    return a, b, *(effects[a] + effects[b] + noise).T


def jackknife(statistic, a, b, *columns):
    """A statistic with its interval and p, leaving out one model at a time by rows."""
    leave_one_out = []
    for model in np.unique([a, b]):
        is_without = (a != model) & (b != model)
        leave_one_out.append(statistic(*(column[is_without] for column in columns)))
    n = len(leave_one_out)
    deviations = leave_one_out - np.mean(leave_one_out)
    error = np.sqrt((n - 1) / n * np.square(deviations).sum())
    value = statistic(*columns)
    half_width = stats.t.ppf(0.975, n - 1) * error
    p = 2 * stats.t.sf(abs(value) / error, n - 1)
    return value, value - half_width, value + half_width, p


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_compare_measures_against_its_parts(method):
    rng = np.random.default_rng(10)
    n = 14
    a, b, x, agreement = dyads(rng, n, 0.7)
    table = pd.DataFrame({"cka": x + rng.standard_normal(len(x)), "wcka": x})
    runs = np.array([f"run {i}" for i in range(n)])
    comparison = compare_measures(runs[a], runs[b], agreement, table, method=method)
    r = {}
    for m in table:
        r[m] = correlation(table[m], agreement, method)
        assert comparison.loc[m, ["r", "low", "high"]].tolist() == pytest.approx(r[m])
    between = correlation(table.cka, table.wcka, method).value
    row = comparison.loc["cka"]
    correlations = (r["wcka"].value, r["cka"].value, between, len(a))
    assert row["p Steiger"] == pytest.approx(steiger_test(*correlations).p)
    assert row["p Meng"] == pytest.approx(meng_test(*correlations).p)
    assert row["p Fisher"] == pytest.approx(fisher_test(*correlations[:2], len(a)).p)
    zou = zou_interval(*correlations)
    assert (row["Zou low"], row["Zou high"]) == pytest.approx(zou[1:])

    def difference(rows):
        r_wcka = correlation(rows[:, 2], rows[:, 0], method).value
        return r_wcka - correlation(rows[:, 1], rows[:, 0], method).value

    def z(rows):
        return np.arctanh(correlation(rows[:, 1], rows[:, 0], method).value)

    values = np.column_stack([agreement, table])
    names = ["difference", "model difference low", "model difference high", "p model"]
    expected = jackknife(difference, a, b, values)
    assert row[names].tolist() == pytest.approx(expected)
    expected = np.tanh(jackknife(z, a, b, values)[1:3])
    assert row[["model low", "model high"]].tolist() == pytest.approx(expected)
    assert np.isnan(comparison.loc["wcka", "p model"])
    assert comparison.n.tolist() == [len(a)] * 2


def test_the_interval_of_a_difference_covers_where_the_naive_one_does_not():
    """Two measures follow agreement equally well, by effects of models: truth is 0."""
    rng = np.random.default_rng(11)
    n, runs = 16, 150
    a, b = pairs_of(n)
    covered = naive = 0
    for _ in range(runs):
        effects = rng.multivariate_normal(np.zeros(3), 0.5 + 0.5 * np.eye(3), n)
        columns = effects[a] + effects[b] + 0.3 * rng.standard_normal((len(a), 3))
        table = pd.DataFrame(columns[:, 1:], columns=["cka", "wcka"])
        row = compare_measures(a, b, columns[:, 0], table).loc["cka"]
        covered += row["model difference low"] <= 0 <= row["model difference high"]
        naive += row["Zou low"] <= 0 <= row["Zou high"]
    assert covered / runs > 0.88
    assert naive / runs < 0.6


def test_mantel_finds_an_association_and_keeps_its_level_without_one():
    rng = np.random.default_rng(7)
    runs = 100
    a, b, x, y = dyads(rng, 12, 0.95)
    assert mantel_test(a, b, x, y, permutations=199) < 0.02
    assert mantel_test(a, b, x, x, permutations=99) == 1 / 100
    rejected = naive = 0
    for seed in range(runs):
        p = mantel_test(*dyads(rng, 12, 0.0), permutations=99, seed=seed)
        rejected += p <= 0.1
    for _ in range(runs):
        naive += stats.pearsonr(*dyads(rng, 12, 0.0)[2:]).pvalue <= 0.1
    assert rejected / runs < 0.2
    assert naive / runs > 0.25


def test_mantel_permutes_within_strata_only():
    rng = np.random.default_rng(8)
    a, b = pairs_of(6)
    strata = np.array([0, 0, 0, 1, 1, 1])
    inside = strata[a] == strata[b]
    x = inside + 0.01 * rng.standard_normal(len(a))  # all association is between strata
    y = inside + 0.01 * rng.standard_normal(len(a))
    # 2 of 20 splits keep the strata.
    assert mantel_test(a, b, x, y, permutations=199) < 0.15
    assert mantel_test(a, b, x, y, strata=strata, permutations=199) > 0.15


def test_mantel_counts_draws_that_repeat_the_data_as_ties():
    """Two strata of two models have four orders, so every fourth draw is the data.

    x is the distance of models on a line, which does not change if the line is
    reversed: r is then that of the data as well, but for the rounding of its sums.
    """
    a, b = pairs_of(4)
    strata = [0, 1, 1, 0]
    x = b - a
    y = np.array([0.2, 0.7, 0.8, 0.6, 0.6, 0.4])
    r = {}
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [3, 1, 2, 0], [0, 2, 1, 3]):
        table = np.zeros((4, 4))
        table[a, b] = table[b, a] = y
        table = table[np.ix_(order, order)]
        r[tuple(order)] = np.corrcoef(x, table[a, b])[0, 1]
    assert r[0, 1, 2, 3] == pytest.approx(r[3, 2, 1, 0], abs=1e-12)
    assert max(r[3, 1, 2, 0], r[0, 2, 1, 3]) < r[0, 1, 2, 3] - 0.01
    p = mantel_test(a, b, x, y, strata, permutations=999)
    assert p == pytest.approx(1 / 2, abs=0.05)


@pytest.mark.parametrize("missing", ["x", "y", "xy"])
def test_mantel_leaves_out_pairs_with_a_missing_number(missing):
    a, b, x, y = dyads(np.random.default_rng(7), 12, 0.95)
    columns = {"x": x.copy(), "y": y.copy()}
    for name in missing:
        columns[name][0] = np.nan
    p = mantel_test(a, b, **columns, permutations=199)
    assert p < 0.02
    if missing == "xy":
        assert p == mantel_test(a[1:], b[1:], x[1:], y[1:], permutations=199)


def test_mantel_leaves_out_pairs_whose_replacement_is_unknown():
    """Without the pair of models 0 and 1, against an enumeration of all orders."""
    rng = np.random.default_rng(12)
    a, b = (models[1:] for models in pairs_of(5))
    x, y = rng.random((2, 9))
    value = {}
    for model_a, model_b, number in zip(a, b, y):
        value[model_a, model_b] = value[model_b, model_a] = number
    r = []
    for order in itertools.permutations(range(5)):
        kept_x, permuted = [], []
        for model_a, model_b, number in zip(a, b, x):
            if (order[model_a], order[model_b]) in value:
                kept_x.append(number)
                permuted.append(value[order[model_a], order[model_b]])
        r.append(np.corrcoef(kept_x, permuted)[0, 1])
    expected = np.mean(np.array(r) >= r[0] - 1e-12)
    p = mantel_test(a, b, x, y, permutations=1999)
    assert 0.2 < expected < 0.8
    assert p == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("constant", ["x", "y"])
def test_mantel_has_no_p_where_the_data_have_no_correlation(constant):
    a, b = pairs_of(5)
    columns = {"x": np.arange(10.0), "y": np.arange(10.0), constant: np.full(10, 0.1)}
    assert np.isnan(mantel_test(a, b, **columns, permutations=19))


def test_mantel_does_not_count_draws_without_a_correlation():
    """On a path of four models some orders leave one pair or none."""
    a = np.array([0, 1, 2])
    b = np.array([1, 2, 3])
    x = np.array([1.0, 2.0, 3.0])
    table = {}
    for model_a, model_b, number in zip(a, b, x):
        table[model_a, model_b] = table[model_b, model_a] = number
    r = []
    for order in itertools.permutations(range(4)):
        columns = []
        for model_a, model_b, number in zip(a, b, x):
            if (order[model_a], order[model_b]) in table:
                columns.append((number, table[order[model_a], order[model_b]]))
        if len({pair[0] for pair in columns}) > 1:
            r.append(np.corrcoef(np.transpose(columns))[0, 1])
    expected = np.mean(np.array(r) >= 1 - 1e-12)
    assert 0 < len(r) < 24
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = mantel_test(a, b, x, x, permutations=1999)
    assert p == pytest.approx(expected, abs=0.04)


def test_overlap_is_a_probability_counted_over_all_pairs():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 6, 40), rng.integers(2, 9, 30)
    wins = (x[:, None] > y).mean() + (x[:, None] == y).mean() / 2
    assert overlap(x, y) == pytest.approx(wins)
    assert overlap([0, 1], [2, 3]) == 0 and overlap([1], [1]) == 0.5


def test_correlations_and_their_intervals():
    rng = np.random.default_rng(4)
    x = rng.standard_normal(60)
    y = np.exp(x + rng.standard_normal(60))
    pearson = stats.pearsonr(x, y)
    interval = pearson.confidence_interval()
    expected = (pearson.statistic, interval.low, interval.high)
    assert correlation(x, y) == pytest.approx(expected)
    rho = stats.spearmanr(x, y).statistic
    estimate = correlation(x, y, "spearman")
    half_width = 1.959964 * np.sqrt((1 + rho**2 / 2) / 57)
    ends = np.tanh(np.arctanh(rho) + np.array([-half_width, half_width]))
    assert estimate == pytest.approx((rho, *ends))
    assert np.isnan(correlation(x, np.ones(60)).value)
    assert correlation(x, 2 * x).value == pytest.approx(1)


@pytest.mark.parametrize("arguments, words", [
    (([1, 2, 3], [1, 2, 3]), "at least 4"),
    ((np.ones(5), np.ones(6)), "same length"),
    (([1, 2, 3, np.nan], [1, 2, 3, 4]), "not finite"),
    (([1, 2, 3, 4], [1, 2, 3, 4], "spearmann"), "did you mean 'spearman'"),
])
def test_correlations_refuse(arguments, words):
    with pytest.raises(ValueError, match=words):
        correlation(*arguments)


@pytest.mark.parametrize("values, steiger, meng, zou", [  # from the R package cocor
    ((0.60, 0.45, 0.70, 100), 2.322998, 2.315952, (0.024147, 0.285819)),
    ((0.80, 0.30, 0.10, 190), 7.487386, 7.443739, (0.362292, 0.643485)),
])
def test_comparisons_of_dependent_correlations(values, steiger, meng, zou):
    assert steiger_test(*values).z == pytest.approx(steiger, abs=1e-6)
    assert meng_test(*values).z == pytest.approx(meng, abs=1e-6)
    estimate = zou_interval(*values)
    assert (estimate.low, estimate.high) == pytest.approx(zou, abs=1e-6)
    assert estimate.value == pytest.approx(values[0] - values[1])
    p = 2 * stats.norm.sf(steiger)
    assert steiger_test(*values).p == pytest.approx(p, rel=1e-4)


def test_the_factor_of_mengs_test_is_at_most_one():
    """Its f would exceed 1 for these; with f = 1, h is 1 as well."""
    a, b, c, n = 0.2, 0.1, -0.954, 50
    z = (np.arctanh(a) - np.arctanh(b)) * np.sqrt((n - 3) / (2 * (1 - c)))
    assert meng_test(a, b, c, n).z == pytest.approx(z)


def test_the_papers_comparison():
    z = (np.arctanh(0.6) - np.arctanh(0.45)) / np.sqrt(2 / 97)
    assert fisher_test(0.6, 0.45, 100).z == pytest.approx(z)
    assert fisher_test(0.5, 0.5, 30) == (0, 1)


# ------------------------------------------------------------------ tables of pairs


@pytest.fixture(scope="module")
def table():
    """Return pairs of eight starts by two factors; similarity follows agreement."""
    rng = np.random.default_rng(0)
    a, b = np.triu_indices(8, 1)
    rows = pd.DataFrame({"a": a, "b": b, "start a": a, "start b": b})
    rows["wcka"] = rng.random(28)
    rows["cka"] = rng.random(28)
    rows["differs"] = np.where(np.arange(28) % 2, "seed", "epoch")
    probes = ("clean", "fog", "pgd")
    rows = pd.concat([rows.assign(probe=probe) for probe in probes], ignore_index=True)
    return rows.assign(agreement=0.5 * rows.wcka + 0.2 * rng.random(84))


def test_by_factor_is_each_factor_by_itself(table):
    for method in ("pearson", "spearman"):
        comparison = compare_by_factor(table, ["cka", "wcka"], method=method)
        assert list(comparison.index.unique("differs")) == ["epoch", "seed"]
        part = table[table.differs == "seed"]
        expected = compare_measures(part["start a"], part["start b"], part.agreement,
                                    part[["cka", "wcka"]], method=method,
                                    probe=part["probe"])
        pd.testing.assert_frame_equal(comparison.loc["seed"], expected)
    r = r_by_factor(table, {"CKA": "cka", "wCKA": "wcka"})
    assert list(r.columns) == ["epoch", "seed"] and list(r.index) == ["CKA", "wCKA"]
    expected = np.corrcoef(part.wcka, part.agreement)[0, 1]
    assert r.seed["wCKA"] == pytest.approx(expected)
    assert r_by_factor(table[:0], {"CKA": "cka"}).shape == (1, 0)


def test_demeaned_columns_have_no_mean_in_any_group_and_the_rest_stays(table):
    result = demeaned(table, ["agreement"], ["differs", "probe"])
    means = result.groupby(["differs", "probe"]).agreement.mean()
    assert means.abs().max() < 1e-12
    fog = (table.probe == "fog") & (table.differs == "seed")
    expected = table.agreement[fog] - table.agreement[fog].mean()
    np.testing.assert_allclose(result.agreement[fog], expected)
    unchanged = table.columns.drop("agreement")
    pd.testing.assert_frame_equal(result[unchanged], table[unchanged])


def test_the_ceiling_is_what_the_best_similarity_of_a_pair_reaches(table):
    pair_means = table.groupby(["a", "b"]).agreement.transform("mean")
    expected = r_by_factor(table.assign(best=pair_means), {"best": "best"}).loc["best"]
    pd.testing.assert_series_equal(ceilings(table), expected, check_names=False)
    assert (r_by_factor(table, {"wcka": "wcka"}).loc["wcka"] <= expected).all()
