"""Which networks an ensemble takes, and how well its probabilities are calibrated."""

from itertools import combinations

import numpy as np
import pytest
import torch

from wcka.experiments.ensembles import (
    calibration_error,
    drawn_sets,
    lead_over_chance,
    least_similar,
    least_similar_of_pools,
)


def binned_error(probabilities, labels, bins):
    """Return the expected calibration error, bin by bin, as Guo et al. (2017) write it.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    total = 0.0
    for lower in np.arange(bins) / bins:
        upper = lower + 1 / bins
        inside = (confidence >= lower) & (confidence < upper)
        if upper > 1 - 1e-9:  # the last bin has both of its ends
            inside = confidence >= lower
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            total += inside.sum() / len(labels) * gap
    return total


def test_calibration_error_is_the_definitions():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.3] * 3, size=400)  # (images, classes)
    labels = rng.integers(3, size=400)
    error = calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels))
    assert error == pytest.approx(binned_error(probabilities, labels, 15))


def test_gaps_of_the_two_last_bins_do_not_cancel():
    probabilities = torch.tensor([[0.875, 0.125], [0.9375, 0.0625]])
    labels = torch.tensor([1, 0])  # the first is wrong, the second right
    error = calibration_error(probabilities, labels)
    assert error == (0.875 + 0.0625) / 2


def test_full_confidence_counts_in_the_last_bin():
    probabilities = torch.tensor([[1.0, 0.0], [0.9375, 0.0625]])
    labels = torch.tensor([1, 0])
    error = calibration_error(probabilities, labels)
    assert error == (1.0 - 0.0625) / 2  # one bin: the two gaps cancel in part


def test_two_of_three_are_the_least_similar_pair():
    similarity = np.array([[1.0, 0.2, 0.9], [0.2, 1.0, 0.1], [0.9, 0.1, 1.0]])
    assert least_similar(similarity, 2).tolist() == [1, 2]
    assert least_similar(similarity, 3).tolist() == [0, 1, 2]


def test_the_least_similar_set_is_that_of_all_sets():
    rng = np.random.default_rng(0)
    similarity = rng.uniform(size=(9, 9))
    similarity = similarity + similarity.T
    total_of_set = {}
    for models in combinations(range(9), 4):
        total_of_set[models] = sum(similarity[i, j] for i, j in combinations(models, 2))
    expected = min(total_of_set, key=total_of_set.get)
    assert tuple(least_similar(similarity, 4)) == expected


def test_sets_of_other_sizes_and_too_many_sets_are_refused():
    similarity = np.zeros((9, 9))
    for k in (1, 10):
        with pytest.raises(ValueError, match="wanted 2 to 9"):
            least_similar(similarity, k)
    with pytest.raises(ValueError, match="too many"):
        least_similar(np.zeros((28, 28)), 10)  # 13 million


def test_calibration_error_of_known_cases():
    certain = torch.tensor([[1.0, 0.0]] * 4)
    assert calibration_error(certain, torch.tensor([0, 0, 0, 0])) == 0
    error = calibration_error(certain, torch.tensor([0, 0, 0, 1]))
    assert error == pytest.approx(0.25)
    # Half with confidence 0.6 and always right, half with 0.9 and right 2 times of 3.
    mixed = torch.tensor([[0.6, 0.4]] * 3 + [[0.9, 0.1]] * 3)
    expected = 0.5 * 0.4 + 0.5 * (0.9 - 2 / 3)
    error = calibration_error(mixed, torch.tensor([0, 0, 0, 0, 0, 1]))
    assert error == pytest.approx(expected, abs=1e-6)


# --------------------------------------------------------------- choices from pools


def test_choices_from_pools_are_those_from_each_pool_alone():
    rng = np.random.default_rng(0)
    similarity = rng.random((9, 9))
    similarity = similarity + similarity.T
    pools = drawn_sets(9, 5, draws=6, seed=3)
    sets = least_similar_of_pools(similarity, pools, 3)
    for pool, chosen in zip(pools, sets):
        lowest = min(
            combinations(sorted(pool), 3),
            key=lambda s: sum(similarity[i, j] for i, j in combinations(s, 2)))
        assert sorted(chosen) == list(lowest)


def test_drawn_sets_have_no_network_twice_and_depend_on_the_seed():
    sets = drawn_sets(6, 4, draws=200)
    assert all(len(set(positions)) == 4 for positions in sets.tolist())
    # Each network is in four of six sets, up to chance.
    assert np.bincount(sets.ravel()) == pytest.approx(np.full(6, 400 / 3), rel=0.2)
    assert not np.array_equal(sets, drawn_sets(6, 4, draws=200, seed=1))


def test_lead_over_chance_and_its_error_are_those_of_brute_force():
    pools = drawn_sets(7, 4, draws=12)
    random_sets = drawn_sets(7, 2, draws=9, seed=1)
    rng = np.random.default_rng(193)  # neither variance is below the interaction
    # Whole numbers, with ties, that networks and probes tell in part
    chosen_scores = pools.mean(1, keepdims=True).round() + rng.integers(0, 9, 3)
    random_scores = random_sets.mean(1, keepdims=True).round() + rng.integers(0, 9, 3)

    def lead(kept_pools, kept_sets, probes):
        wins = 0.0
        for i in kept_pools:
            for j in kept_sets:
                gap = chosen_scores[i, probes].sum() - random_scores[j, probes].sum()
                wins += float(gap > 0) + 0.5 * float(gap == 0)
        return wins / (len(kept_pools) * len(kept_sets)) - 0.5

    everything = range(12), range(9)
    estimate = lead_over_chance(chosen_scores, random_scores, pools, random_sets)
    assert estimate.value == pytest.approx(lead(*everything, [0, 1, 2]))
    of_networks = []
    for network in range(7):
        kept_pools = [i for i in everything[0] if network not in pools[i]]
        kept_sets = [j for j in everything[1] if network not in random_sets[j]]
        of_networks.append(lead(kept_pools, kept_sets, [0, 1, 2]))
    rests = [1, 2], [0, 2], [0, 1]
    of_probes = [lead(*everything, rest) for rest in rests]
    # What networks and probes do together is in both of their variances.
    of_both = np.empty((7, 3))
    for network, probe in np.ndindex(7, 3):
        kept_pools = [i for i in everything[0] if network not in pools[i]]
        kept_sets = [j for j in everything[1] if network not in random_sets[j]]
        of_both[network, probe] = lead(kept_pools, kept_sets, rests[probe])
    together = of_both - np.array(of_networks)[:, None] - of_probes + estimate.value
    variances = []
    for without in (of_networks, of_probes):
        variances.append(
            (len(without) - 1) ** 2 / len(without) * np.var(without, ddof=1))
    variance = sum(variances) - 6 / 7 * 2 / 3 * (together**2).sum()
    assert variance > max(variances)
    assert estimate.error == pytest.approx(np.sqrt(variance))


def lead_of_drawn_networks(rng, informed):
    """Choose by a number that says, or does not say, how good a network is."""
    quality = rng.standard_normal(40)
    known = quality if informed else rng.standard_normal(40)
    pools = drawn_sets(40, 10, draws=300)
    random_sets = drawn_sets(40, 3, draws=300, seed=1)
    best = np.argsort(known[pools], axis=1)[:, -3:]
    chosen = np.take_along_axis(pools, best, axis=1)
    return lead_over_chance(
        quality[chosen].mean(1, keepdims=True),
        quality[random_sets].mean(1, keepdims=True), pools, random_sets)


def test_the_error_over_networks_is_the_spread_over_other_networks():
    rng = np.random.default_rng(0)
    leads = [lead_of_drawn_networks(rng, informed=False) for _ in range(60)]
    spread = np.std([lead.value for lead in leads], ddof=1)
    mean_error = np.sqrt(np.mean([lead.error**2 for lead in leads]))
    assert 0.8 < mean_error / spread < 1.6
    assert abs(np.mean([lead.value for lead in leads])) < 0.05


def test_a_good_choice_leads_whatever_the_draws():
    lead = lead_of_drawn_networks(np.random.default_rng(0), informed=True)
    assert lead.low > 0.2
    assert lead.value < 0.5


def test_networks_that_no_draw_is_without_are_refused():
    pools = np.array([[0, 1], [0, 2]])
    random_sets = np.array([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="network 0 is in all pools"):
        lead_over_chance([[1], [2]], [[0], [1]], pools, random_sets)
