"""Statistics over pairs of models, against formulas written out and against simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wcka.experiments.statistics import (
    ceilings,
    compare_by_factor,
    compare_measures,
    correlation,
    fisher_test,
    mantel_test,
    mean_over_pairs,
    meng_test,
    over_models,
    overlap,
    r_by_factor,
    steiger_test,
    straightness,
    zou_interval,
)


def pairs_of(n):
    return np.triu_indices(n, 1)


def test_mean_over_pairs_equals_a_jackknife_by_hand():
    rng = np.random.default_rng(0)
    (a, b), n = pairs_of(7), 7
    values = rng.standard_normal(len(a))
    estimate = mean_over_pairs(a, b, values)
    without = np.array([values[(a != i) & (b != i)].mean() for i in range(n)])
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.value == pytest.approx(stats.t.ppf(0.975, n - 1) * error)
    assert estimate.value - estimate.low == pytest.approx(estimate.high - estimate.value)


def test_the_interval_covers_where_the_naive_one_does_not():
    """Each value is the sum of two models' effects: pairs that share a model move together."""
    rng = np.random.default_rng(1)
    (a, b), n, runs = pairs_of(15), 15, 400
    covered, naive = 0, 0
    for _ in range(runs):
        effect = rng.standard_normal(n)
        values = effect[a] + effect[b] + 0.5 * rng.standard_normal(len(a))  # the true mean is 0
        estimate = mean_over_pairs(a, b, values)
        covered += estimate.low <= 0 <= estimate.high
        naive += abs(values.mean()) < 1.96 * stats.sem(values)
    assert covered / runs > 0.91
    assert naive / runs < 0.75


def test_models_may_be_missing():
    (a, b), rng = pairs_of(8), np.random.default_rng(3)
    keep = (a != 3) & (b != 3)
    values = rng.standard_normal(keep.sum())
    estimate = mean_over_pairs(a[keep], b[keep], values)
    assert estimate == mean_over_pairs(*pairs_of(7), values)


def dyads(rng, n, rho):
    """Two tables of pairs whose model effects correlate by rho, and the pairs."""
    a, b = pairs_of(n)
    effects = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    noise = 0.3 * rng.standard_normal((len(a), 2))
    return a, b, *(effects[a] + effects[b] + noise).T


def z_of(x, y):
    return np.arctanh(np.corrcoef(x, y)[0, 1])


def test_intervals_of_a_correlation_cover_where_the_naive_ones_do_not():
    rng, n, rho, runs = np.random.default_rng(5), 20, 0.5, 200
    truth = np.arctanh(2 * rho / (2 + 0.3**2))  # of the sums of two effects with their noise
    covered = naive = 0
    for _ in range(runs):
        a, b, x, y = dyads(rng, n, rho)
        estimate = over_models(z_of, a, b, x, y)
        covered += estimate.low <= truth <= estimate.high
        fisher = correlation(x, y)
        naive += np.arctanh(fisher.low) <= truth <= np.arctanh(fisher.high)
    assert covered / runs > 0.88
    assert naive / runs < 0.6


def test_over_models_of_a_mean_is_the_mean_over_pairs():
    rng = np.random.default_rng(6)
    a, b = pairs_of(9)
    values = rng.standard_normal(len(a))
    assert over_models(np.mean, a, b, values)[:3] == pytest.approx(mean_over_pairs(a, b, values))
    with pytest.raises(ValueError, match="at least three"):
        over_models(np.mean, ["r", "r"], ["s", "s"], [1.0, 2.0])


def test_over_models_of_several_statistics_at_once():
    rng = np.random.default_rng(9)
    a, b = pairs_of(9)
    values = rng.standard_normal((len(a), 2)) + np.array([0, 0.8])

    def both(rows):
        return rows.mean(0)

    together = over_models(both, a, b, values)
    for i in range(2):
        alone = over_models(np.mean, a, b, values[:, i])
        assert [part[i] for part in together] == pytest.approx(alone)
        error = (alone.high - alone.value) / stats.t.ppf(0.975, 8)
        assert alone.p == pytest.approx(2 * stats.t.sf(abs(alone.value) / error, 8))


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_compare_measures_against_its_parts(method):
    rng, n = np.random.default_rng(10), 14
    a, b, x, agreement = dyads(rng, n, 0.7)
    table = pd.DataFrame({"cka": x + rng.standard_normal(len(x)), "wcka": x})
    runs = np.array([f"run {i}" for i in range(n)])
    found = compare_measures(runs[a], runs[b], agreement, table, method=method)
    r = {m: correlation(table[m], agreement, method) for m in table}
    for m in table:
        assert found.loc[m, ["r", "low", "high"]].tolist() == pytest.approx(r[m])
    between = correlation(table.cka, table.wcka, method).value
    row = found.loc["cka"]
    given = (r["wcka"].value, r["cka"].value, between, len(a))
    assert row["p Steiger"] == pytest.approx(steiger_test(*given).p)
    assert row["p Meng"] == pytest.approx(meng_test(*given).p)
    assert row["p Fisher"] == pytest.approx(fisher_test(*given[:2], len(a)).p)
    assert (row["Zou low"], row["Zou high"]) == pytest.approx(zou_interval(*given)[1:])

    def difference(rows):
        one, other = (correlation(rows[:, i], rows[:, 0], method).value for i in (2, 1))
        return one - other

    expected = over_models(difference, a, b, np.column_stack([agreement, table]))
    assert row[["difference", "model difference low", "model difference high", "p model"]
               ].tolist() == pytest.approx(expected)
    z = over_models(lambda rows: np.arctanh(correlation(rows[:, 1], rows[:, 0], method).value),
                    a, b, np.column_stack([agreement, table]))
    assert row[["model low", "model high"]].tolist() == pytest.approx(np.tanh(z[1:3]))
    assert np.isnan(found.loc["wcka", "p model"]) and found.n.tolist() == [len(a)] * 2


def test_the_interval_of_a_difference_covers_where_the_naive_one_does_not():
    """Two measures that follow agreement equally well, by effects of models: the truth is 0."""
    rng, n, runs = np.random.default_rng(11), 16, 150
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
    rng, runs = np.random.default_rng(7), 100
    a, b, x, y = dyads(rng, 12, 0.95)
    assert mantel_test(a, b, x, y, permutations=199) < 0.02
    p = [mantel_test(*dyads(rng, 12, 0.0), permutations=99, seed=i) for i in range(runs)]
    assert np.mean(np.array(p) <= 0.1) < 0.2
    naive = [stats.pearsonr(*dyads(rng, 12, 0.0)[2:]).pvalue for _ in range(runs)]
    assert np.mean(np.array(naive) <= 0.1) > 0.25


def test_mantel_permutes_within_strata_only():
    rng = np.random.default_rng(8)
    a, b = pairs_of(6)
    strata = np.array([0, 0, 0, 1, 1, 1])
    inside = strata[a] == strata[b]
    x = inside + 0.01 * rng.standard_normal(len(a))  # all association is between strata
    y = inside + 0.01 * rng.standard_normal(len(a))
    assert mantel_test(a, b, x, y, permutations=199) < 0.15  # 2 of 20 splits keep the strata
    assert mantel_test(a, b, x, y, strata=strata, permutations=199) > 0.15


def test_bad_numbers_are_refused():
    a, b = pairs_of(4)
    with pytest.raises(ValueError, match="1 of 6 values are not finite"):
        mean_over_pairs(a, b, [np.nan, *np.ones(5)])
    with pytest.raises(ValueError, match="at least three models"):
        mean_over_pairs([0], [1], [1.0])
    with pytest.raises(ValueError, match="equal length"):
        mean_over_pairs(a, b, np.ones(5))


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
    theirs = stats.pearsonr(x, y)
    estimate, interval = correlation(x, y), theirs.confidence_interval()
    assert estimate == pytest.approx((theirs.statistic, interval.low, interval.high))
    rho = stats.spearmanr(x, y).statistic
    estimate = correlation(x, y, "spearman")
    reach = 1.959964 * np.sqrt((1 + rho**2 / 2) / 57)
    assert estimate == pytest.approx((rho, *np.tanh(np.arctanh(rho) + np.array([-reach, reach]))))
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


@pytest.mark.parametrize("given, steiger, meng, zou", [  # from the R package cocor
    ((0.60, 0.45, 0.70, 100), 2.322998, 2.315952, (0.024147, 0.285819)),
    ((0.80, 0.30, 0.10, 190), 7.487386, 7.443739, (0.362292, 0.643485)),
])
def test_comparisons_of_dependent_correlations(given, steiger, meng, zou):
    assert steiger_test(*given).z == pytest.approx(steiger, abs=1e-6)
    assert meng_test(*given).z == pytest.approx(meng, abs=1e-6)
    estimate = zou_interval(*given)
    assert (estimate.low, estimate.high) == pytest.approx(zou, abs=1e-6)
    assert estimate.value == pytest.approx(given[0] - given[1])
    assert steiger_test(*given).p == pytest.approx(2 * stats.norm.sf(steiger), rel=1e-4)


def test_the_papers_comparison():
    z = (np.arctanh(0.6) - np.arctanh(0.45)) / np.sqrt(2 / 97)
    assert fisher_test(0.6, 0.45, 100).z == pytest.approx(z)
    assert fisher_test(0.5, 0.5, 30, 50) == (0, 1)


# ------------------------------------------------------------------------- tables of pairs


@pytest.fixture(scope="module")
def table():
    """Pairs of eight starts, two factors and three probes; similarity follows agreement."""
    rng = np.random.default_rng(0)
    a, b = np.triu_indices(8, 1)
    rows = pd.DataFrame({"a": a, "b": b, "start a": a, "start b": b, "wcka": rng.random(28),
                         "cka": rng.random(28)})
    rows["differs"] = np.where(np.arange(28) % 2, "seed", "epoch")
    rows = pd.concat([rows.assign(probe=p) for p in ("clean", "fog", "pgd")], ignore_index=True)
    return rows.assign(agreement=0.5 * rows.wcka + 0.2 * rng.random(84))


def test_by_factor_is_each_factor_by_itself(table):
    for method in ("pearson", "spearman"):
        found = compare_by_factor(table, ["cka", "wcka"], method=method)
        assert list(found.index.unique("differs")) == ["epoch", "seed"]
        part = table[table.differs == "seed"]
        expected = compare_measures(part["start a"], part["start b"], part.agreement,
                                    part[["cka", "wcka"]], method=method)
        pd.testing.assert_frame_equal(found.loc["seed"], expected)
    r = r_by_factor(table, {"one": "cka", "other": "wcka"})
    assert list(r.columns) == ["epoch", "seed"] and list(r.index) == ["one", "other"]
    assert r.seed["other"] == pytest.approx(np.corrcoef(part.wcka, part.agreement)[0, 1])
    assert r_by_factor(table[:0], {"one": "cka"}).shape == (1, 0)


def test_the_ceiling_is_what_the_best_similarity_of_a_pair_reaches(table):
    best = table.assign(best=table.groupby(["a", "b"]).agreement.transform("mean"))
    expected = r_by_factor(best, {"best": "best"}).loc["best"]
    pd.testing.assert_series_equal(ceilings(table), expected, check_names=False)
    assert (r_by_factor(table, {"wcka": "wcka"}).loc["wcka"] <= expected).all()


def test_a_curve_explains_more_than_a_line_only_where_there_is_one():
    rng = np.random.default_rng(1)
    x = rng.random(2000)
    noise = 0.1 * rng.standard_normal(2000)
    line, curve = straightness(x, 2 * x + noise)
    explained = np.corrcoef(x, 2 * x + noise)[0, 1] ** 2
    assert line == pytest.approx(explained, abs=0.01) and curve == pytest.approx(line, abs=0.01)
    line, curve = straightness(x, x > 0.5)
    assert curve > 0.98 and line == pytest.approx(0.75, abs=0.02)
    line, curve = straightness(x, noise)
    assert abs(line) < 0.02 and curve < 0.02  # out of sample there is nothing to win
