"""Ensembles chosen by similarity, and how well their probabilities are calibrated."""

from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
import torch
from torch import Tensor

from .crossed import Estimate, estimates_from

_MOST_SETS = 1e7


def least_similar(similarity: np.ndarray, k: int) -> np.ndarray:
    """Return the `k` of N models with the lowest mean pairwise similarity.

    All sets are tried.

    Parameters
    ----------
    similarity : ndarray
        (N, N), symmetric.
    k : int
        2 to N.

    Returns
    -------
    ndarray
        (k,) positions.

    Raises
    ------
    ValueError
        For another `k`, or more than ten million sets.

    Examples
    --------
    >>> similarity = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.3], [0.2, 0.3, 1.0]])
    >>> least_similar(similarity, 2)
    array([0, 2])
    """
    count = len(similarity)
    if not 2 <= k <= count:
        raise ValueError(f"k: wanted 2 to {count}, got {k}")
    if comb(count, k) > _MOST_SETS:
        raise ValueError(
            f"k: {comb(count, k)} sets of {k} of {count} are too many to try")
    sets = _all_sets(count, k)
    total = np.zeros(len(sets))
    for i, j in combinations(range(k), 2):
        total = total + similarity[sets[:, i], sets[:, j]]
    return sets[total.argmin()].astype(int)


@lru_cache(1)
def _all_sets(count: int, k: int) -> np.ndarray:
    """Return all sets of `k` of `count` positions, (sets, k)."""
    kind = np.dtype((np.int16, k))
    sets = np.fromiter(combinations(range(count), k), kind, comb(count, k))
    sets.flags.writeable = False  # all callers share it
    return sets


def drawn_sets(count: int, k: int, draws: int, seed: int = 0) -> np.ndarray:
    """Return random sets of `k` of `count` networks, (draws, k) positions.

    Examples
    --------
    >>> drawn_sets(10, 3, draws=4).shape
    (4, 3)
    """
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(count)[:k] for _ in range(draws)])


def least_similar_of_pools(
    similarity: np.ndarray, pools: np.ndarray, k: int
) -> np.ndarray:
    """Return the `k` networks of each pool with the lowest mean pairwise similarity.

    Parameters
    ----------
    similarity : ndarray
        (N, N), symmetric, of all networks.
    pools : ndarray
        (pools, size), positions of the networks of each pool.
    k : int
        2 to the size of a pool.

    Returns
    -------
    ndarray
        (pools, k) positions among all networks.

    Examples
    --------
    >>> similarity = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.3], [0.2, 0.3, 1.0]])
    >>> least_similar_of_pools(similarity, np.array([[2, 1], [0, 1]]), 2).tolist()
    [[2, 1], [0, 1]]
    """
    sets = []
    for pool in pools:
        sets.append(pool[least_similar(similarity[np.ix_(pool, pool)], k)])
    return np.stack(sets)


def lead_over_chance(chosen_scores, random_scores, pools, random_sets) -> Estimate:
    """Return how often chosen ensembles score above random ones, minus one half.

    A pool is a random part of the networks, and one ensemble is chosen from each. The
    mean over many pools is a property of the networks and not of one lucky pool; the
    error is over networks, each left out with all pools and ensembles that it is in,
    and over probes. Too few draws add to it: each pool counts in the deviation of
    every network that it holds.

    Parameters
    ----------
    chosen_scores : array-like
        (pools, probes), of the ensemble that is chosen from each pool; higher is
        better.
    random_scores : array-like
        (ensembles, probes), of ensembles of networks drawn at random.
    pools : array-like
        (pools, size), positions of the networks that could be chosen from.
    random_sets : array-like
        (ensembles, members), positions of the networks of random ensembles.

    Returns
    -------
    Estimate
        From -1/2, no chosen ensemble scores above a random one, to 1/2, all do. Ties
        count half. Scores are means over probes.

    Raises
    ------
    ValueError
        If all pools, or all random ensembles, have a network in common.

    Examples
    --------
    >>> pools = drawn_sets(6, 3, draws=50)
    >>> random_sets = drawn_sets(6, 2, draws=50, seed=1)
    >>> best_of_pools = pools.max(1, keepdims=True)  # the higher, the better
    >>> lead = lead_over_chance(
    ...     best_of_pools, random_sets.mean(1, keepdims=True), pools, random_sets)
    >>> lead.value > 0, lead.error > 0
    (True, True)
    """
    chosen_scores = np.asarray(chosen_scores, float)
    random_scores = np.asarray(random_scores, float)
    pools = np.asarray(pools)
    random_sets = np.asarray(random_sets)

    n_probes = chosen_scores.shape[1]
    # Of all probes, and without each of them where there are others
    places = [_places(chosen_scores.mean(1), random_scores.mean(1))]
    for probe in range(n_probes if n_probes > 1 else 0):
        places.append(_places(np.delete(chosen_scores, probe, 1).mean(1),
                              np.delete(random_scores, probe, 1).mean(1)))

    def leads(kept_pools: np.ndarray, kept_sets: np.ndarray) -> list[list[float]]:
        return [[_lead(place, kept_pools, kept_sets)] for place in places]

    value, *without_probes = leads(
        np.full(len(pools), True), np.full(len(random_sets), True))
    without_networks, without_both = [], []
    for network in np.union1d(pools, random_sets):
        kept_pools = (pools != network).all(1)
        kept_sets = (random_sets != network).all(1)
        if not kept_pools.any() or not kept_sets.any():
            raise ValueError(
                f"network {network} is in all pools or in all random ensembles; wanted "
                "more networks than a pool has, or more draws")
        without_network, *of_probes = leads(kept_pools, kept_sets)
        without_networks.append(without_network)
        without_both.append(of_probes)
    estimate, = estimates_from(value, without_networks, without_probes, without_both)
    return estimate


def _places(chosen: np.ndarray, random: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the order of random scores, and how many are below and up to each chosen.

    These are all that leads depend on, whichever networks are left out.
    """
    # Rounded, so that sums in another order are ties.
    chosen, random = chosen.round(12), random.round(12)
    order = random.argsort()
    below = np.searchsorted(random[order], chosen, "left")
    up_to = np.searchsorted(random[order], chosen, "right")
    return order, below, up_to


def _lead(places: tuple[np.ndarray, ...], kept_pools: np.ndarray,
          kept_sets: np.ndarray) -> float:
    """Return the share of kept random ensembles that kept ones beat, less one half."""
    order, below, up_to = places
    counts = np.concatenate([[0], kept_sets[order].cumsum()])
    beaten = (counts[below] + counts[up_to]) / 2  # ties count half
    pairs = kept_pools.sum() * kept_sets.sum()
    return float(beaten[kept_pools].sum() / pairs - 0.5)


_BINS = 15  # of confidence, as in Guo et al.


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error (Guo et al. 2017).

    It is the mean gap between confidence and accuracy, over 15 bins of confidence of
    equal width between 0 and 1.

    Parameters
    ----------
    probabilities : Tensor
        (n, classes), in [0, 1].
    labels : Tensor
        (n,), ints.

    Returns
    -------
    float
        In [0, 1]; 0 for probabilities that are right as often as they say.

    Examples
    --------
    >>> probabilities = torch.tensor([[0.75, 0.25], [0.75, 0.25]])
    >>> calibration_error(probabilities, torch.tensor([0, 1]))
    0.25
    """
    confidence, guess = probabilities.max(1)
    bin_of = (confidence * _BINS).long().clamp(max=_BINS - 1)
    gap = (guess == labels).double() - confidence.double()
    gap_of_bin = torch.zeros(_BINS).double().index_add_(0, bin_of, gap)
    return float(gap_of_bin.abs().sum() / len(labels))
