"""The similarity of networks in files, beside what chance alone would give.

Tables are dicts of nested lists (N, N), over all pairs of files: "wcka", and of what
chance gives "mean" and "sd", the distance of the value from it as "z" and "p", and
"holm", which is p corrected for the number of pairs. What is not known is NaN.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from ..measures.all_pairs import compare
from ..measures.nulls import holm, null_distributions
from ..measures.validation import Array

# Chains with more columns and rows than this would take gigabytes of memory.
_WIDEST = 4096


def beside_orders(chains: Sequence[Tensor]) -> dict[str, Any]:
    """Compare all pairs of chains beside all orders of one network's inputs.

    Parameters
    ----------
    chains : sequence of Tensor
        Each (inputs, outputs).

    Returns
    -------
    dict
        A table.

    Examples
    --------
    >>> import torch
    >>> x = torch.arange(12.0)[:, None]
    >>> table = beside_orders([x, x**2])
    >>> round(table["wcka"][0][1], 2), table["p"][0][1] < 1e-3
    (0.93, True)
    """
    if max(min(chain.shape) for chain in chains) > _WIDEST:
        return _table(compare("wcka", chains))
    labels = [f"chain {i}" for i in range(len(chains))]
    with warnings.catch_warnings():
        # The table has NaN for what has no variance, or too few inputs.
        warnings.simplefilter("ignore", RuntimeWarning)
        null = null_distributions("wcka", chains, labels)
    return _table(null.value, null.mean, null.sd, null.z, null.p)


def beside_untrained(
    trained: Sequence[Tensor], untrained: Sequence[Tensor]
) -> dict[str, Any]:
    """Compare all pairs of chains beside those of untrained networks.

    The mean and the spread of all pairs of k untrained networks stand for chance; p is
    that of one more such pair by Student's t with k - 1 degrees of freedom.

    Parameters
    ----------
    trained, untrained : sequence of Tensor
        Chains, each (inputs, outputs).

    Returns
    -------
    dict
        A table; with fewer than three untrained networks chance is not known.

    Examples
    --------
    >>> import torch
    >>> chains = torch.eye(3).unbind(1)
    >>> by_layer = beside_untrained([chain[:, None] for chain in chains[:2]], [])
    >>> round(float(by_layer["wcka"][0][1]), 12)
    0.25
    """
    values = compare("wcka", trained)
    if len(untrained) < 3:
        return _table(values)
    with warnings.catch_warnings():
        # That an untrained network has no value is no news of the files.
        warnings.simplefilter("ignore")
        of_untrained = compare("wcka", untrained)
    # Of a network with a value for no other one nothing is known.
    np.fill_diagonal(of_untrained, np.nan)
    count = int(np.isfinite(of_untrained).any(1).sum())
    pairs = of_untrained[np.triu_indices(len(untrained), 1)]
    pairs = pairs[np.isfinite(pairs)]
    if len(pairs) < 3 or not pairs.std():
        return _table(values)
    mean, sd = pairs.mean(), pairs.std(ddof=1)
    z = (values - mean) / sd
    p = stats.t.sf(z / np.sqrt(1 + 1 / count), count - 1)
    everywhere = np.ones_like(values)
    return _table(values, mean * everywhere, sd * everywhere, z, p)


def unknown(count: int) -> dict[str, Any]:
    """Return the table of so many files of which nothing is known.

    Examples
    --------
    >>> unknown(1)["wcka"]
    [[nan]]
    """
    return without_chance(np.full((count, count), np.nan))


def without_chance(values: Array) -> dict[str, Any]:
    """Return the table of values (N, N) of which nobody knows what chance gives.

    Examples
    --------
    >>> without_chance(np.ones((1, 1)))["p"]
    [[nan]]
    """
    return _table(values)


def _table(values: Array, *of_chance: Array) -> dict[str, Any]:
    """Return the table of all pairs; what chance gives is not known by default."""
    nothing = np.full(values.shape, np.nan)
    mean, sd, z, p = of_chance or (nothing, nothing, nothing, nothing)
    corrected = nothing.copy()
    a, b = np.nonzero(np.triu(np.isfinite(p), 1))  # each pair once
    corrected[a, b] = holm(p[a, b])
    corrected[b, a] = corrected[a, b]
    table = {"wcka": values, "mean": mean, "sd": sd, "z": z, "p": p, "holm": corrected}
    return {name: column.tolist() for name, column in table.items()}
