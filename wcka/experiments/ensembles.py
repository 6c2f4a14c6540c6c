"""Ensembles chosen by similarity, and how well their probabilities are calibrated."""

from itertools import combinations
from math import comb

import numpy as np
import torch
from torch import Tensor

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
    sets = np.fromiter(combinations(range(count), k), np.dtype((np.int16, k)), -1)
    total = np.zeros(len(sets))
    for i, j in combinations(range(k), 2):
        total = total + similarity[sets[:, i], sets[:, j]]
    return sets[total.argmin()].astype(int)


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017).

    It is the mean gap between confidence and accuracy, over bins of confidence.

    Parameters
    ----------
    probabilities : Tensor
        (n, classes), in [0, 1].
    labels : Tensor
        (n,), ints.
    bins : int
        Number of bins of equal width between 0 and 1.

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
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    gap = (guess == labels).double() - confidence.double()
    gap_of_bin = torch.zeros(bins).double().index_add_(0, bin_of, gap)
    return float(gap_of_bin.abs().sum() / len(labels))
