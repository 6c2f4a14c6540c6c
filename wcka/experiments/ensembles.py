"""Ensembles chosen by similarity, and how well their probabilities are calibrated."""

from itertools import combinations

import numpy as np
import torch
from torch import Tensor


def least_similar(similarity: np.ndarray, k: int) -> np.ndarray:
    """The `k` of N models with the lowest mean pairwise similarity, found by trying all sets.

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
    """
    n = len(similarity)
    if not 2 <= k <= n:
        raise ValueError(f"k: wanted 2 to {n}, got {k}")
    sets = np.fromiter(combinations(range(n), k), np.dtype((np.int16, k)), -1) if (
        _sets(n, k) <= 1e7) else None
    if sets is None:
        raise ValueError(f"k: {_sets(n, k):.0f} sets of {k} of {n} are too many to try")
    total = sum(similarity[sets[:, i], sets[:, j]] for i, j in combinations(range(k), 2))
    return sets[total.argmin()].astype(int)


def _sets(n: int, k: int) -> float:
    return float(np.prod([(n - i) / (i + 1) for i in range(k)]))


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, over bins.

    Parameters
    ----------
    probabilities : Tensor
        (n, classes).
    labels : Tensor
        (n,).
    bins : int
        Of equal width between 0 and 1.
    """
    confidence, guess = probabilities.max(1)
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    gap = (guess == labels).double() - confidence.double()
    return float(torch.zeros(bins).double().index_add_(0, bin_of, gap).abs().sum() / len(labels))
