"""Statistics over pairs of models, against formulas written out and against simulation."""

import numpy as np
import pytest
from scipy import stats

from wcka.statistics import mean_over_pairs, overlap


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
