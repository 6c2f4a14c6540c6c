"""Shares of misordered pairs and their errors: against brute force and simulations."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wcka.experiments.crossed import Estimate
from wcka.experiments.separation import (
    bound_on_zero,
    leads_in_order,
    misordered,
    note_on_zeros,
)


def wrong_share(lower, upper):
    """Share of pairs in the wrong order, pair by pair."""
    total = 0.0
    for low, high in product(lower, upper):
        total += (low > high) + 0.5 * (low == high)
    return total / (len(lower) * len(upper))


def jackknife_error(values):
    """Standard error from the values without one unit each."""
    values = np.asarray(values)
    return np.sqrt((len(values) - 1) ** 2 / len(values) * values.var(ddof=1))


def test_misordered_pairs_are_counted_and_networks_left_out_with_all_rows():
    rng = np.random.default_rng(0)
    lower = rng.integers(0, 6, 30)  # with ties
    upper = rng.integers(2, 8, 12)
    lower_networks = rng.integers(0, 5, (30, 2))  # each row depends on two networks
    upper_networks = np.arange(12) % 5
    share = misordered(lower, upper, lower_networks, upper_networks)
    assert share.value == pytest.approx(wrong_share(lower, upper))
    without = []
    for network in range(5):
        is_lower = [network not in row for row in lower_networks.tolist()]
        without.append(wrong_share(lower[is_lower], upper[upper_networks != network]))
    assert share.error == pytest.approx(jackknife_error(without))
    assert share.df == 4


def test_groups_apart_are_an_exact_fact():
    share = misordered([0, 1, 1], [2, 3, 3], [0, 1, 2], [0, 1, 2])
    assert (share.value, share.error) == (0, 0)


@pytest.mark.parametrize("count", [1, 5, 12, 300])
def test_the_bound_on_zero_is_that_of_clopper_and_pearson(count):
    interval = stats.binomtest(0, count, alternative="less").proportion_ci(0.95)
    assert bound_on_zero(count) == pytest.approx(interval.high)
    # With this share of networks that err, none of them is drawn with 5 %.
    assert (1 - bound_on_zero(count)) ** count == pytest.approx(0.05)


def test_the_rule_of_three():
    assert bound_on_zero(300) == pytest.approx(3 / 300, rel=0.01)


def test_bounds_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one network"):
        bound_on_zero(0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        bound_on_zero(3, 95)


def test_the_note_counts_the_networks_of_a_share_of_zero():
    lower, upper = np.arange(5), np.arange(5) + 5
    share = misordered(lower, upper, range(5), range(5))
    assert note_on_zeros([share], "roots") == (
        "a share of 0 means that none of 5 roots has a pair in the wrong order; up to "
        "45 % of others may have one (95 %, Clopper and Pearson)")
    assert note_on_zeros([Estimate(0.0, 0.1, 4), Estimate(0.2, 0.1, 4)], "roots") == ""


def test_a_group_of_one_network_has_no_error():
    with pytest.raises(ValueError, match="without network b one of the two groups"):
        misordered([0, 1], [2, 3], ["a", "c"], ["b", "b"])


def ordered_and_swapped():
    """Eight rows: the first three should score low; scores with 0, 1 and 3 mistakes."""
    return pd.DataFrame({
        "perfect": [0, 1, 2, 3, 4, 5, 6, 7],
        "one": [0, 1, 3, 2, 4, 5, 6, 7],
        "three": [0, 1, 5, 2, 3, 4, 6, 7],
    }), [True] * 3 + [False] * 5


def test_leads_are_shares_of_the_mistakes_of_both():
    scores, is_lower = ordered_and_swapped()
    networks = [0, 1, 2, 0, 1, 2, 0, 1]
    leads = leads_in_order(scores, is_lower, networks, "one")
    assert leads["perfect"].value == -1
    assert leads["three"].value == pytest.approx((3 - 1) / (3 + 1))
    # Whoever is compared with whom, the lead is the same but for its sign.
    back = leads_in_order(scores, is_lower, networks, "three")["one"]
    assert back.value == -leads["three"].value
    assert back.error == pytest.approx(leads["three"].error)


def test_scores_without_a_mistake_lead_by_nothing():
    scores, is_lower = ordered_and_swapped()
    scores = scores.assign(same=2 * scores.perfect)
    leads = leads_in_order(
        scores[["perfect", "same"]], is_lower, [0, 1, 2, 0, 1, 2, 0, 1], "perfect")
    assert leads["same"].value == 0
    assert leads["same"].error == 0


def test_a_network_with_all_rows_of_a_group_is_refused():
    scores, is_lower = ordered_and_swapped()
    networks = [0, 0, 0, 1, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="each group from at least two networks"):
        leads_in_order(scores, is_lower, networks, "one")
    with pytest.raises(ValueError, match="reference"):
        leads_in_order(scores, is_lower, networks, "two")


def drawn_table(rng, networks=12, steps=10):
    """Steps of several networks; the score follows the harm better than its rival."""
    rows = []
    for network in range(networks):
        harm = np.linspace(-1, 1, steps) + 0.2 * rng.standard_normal()
        for value in harm:
            noise = rng.standard_normal(2)
            rows.append({"network": network, "is_lower": value > 0,
                         "score": -value + 0.3 * noise[0],
                         "rival": -value + 0.4 * noise[1]})
    return pd.DataFrame(rows)


def test_errors_are_those_of_repeated_draws():
    """The jackknife's error is the spread of leads over other draws of networks."""
    rng = np.random.default_rng(0)
    leads = []
    for _ in range(80):
        table = drawn_table(rng)
        leads.append(leads_in_order(
            table[["score", "rival"]], table.is_lower, table.network,
            "score")["rival"])
    spread = np.std([lead.value for lead in leads], ddof=1)
    mean_error = np.sqrt(np.mean([lead.error**2 for lead in leads]))
    assert 0.8 < mean_error / spread < 1.5
