"""The similarity of networks in files, and its floor: that of untrained networks."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..measures.all_pairs import compare


def table_of(trained: Sequence[Tensor], untrained: Sequence[Tensor]) -> dict[str, Any]:
    """Return the similarity of all pairs of chains, and the floor of untrained ones.

    Parameters
    ----------
    trained, untrained : sequence of Tensor
        Chains, each (inputs, outputs).

    Returns
    -------
    dict
        "wcka" (N, N), and "floor" with its "mean" and "highest" value, both NaN where
        fewer than two untrained networks have a value.

    Examples
    --------
    >>> import torch
    >>> chains = torch.eye(3).unbind(1)
    >>> table_of([chain[:, None] for chain in chains[:2]], [])["wcka"][0][1]
    0.25
    """
    return {
        "wcka": compare("wcka", trained).tolist(),
        "floor": _floor(untrained),
    }


def _floor(untrained: Sequence[Tensor]) -> dict[str, float]:
    """Return the mean and the highest similarity of untrained networks."""
    if len(untrained) < 2:
        return {"mean": float("nan"), "highest": float("nan")}
    with warnings.catch_warnings():
        # That an untrained network has no value is no news of the files.
        warnings.simplefilter("ignore")
        values = compare("wcka", untrained)
    floor = values[np.triu_indices(len(untrained), 1)]
    floor = floor[np.isfinite(floor)]
    if not floor.size:
        return {"mean": float("nan"), "highest": float("nan")}
    return {"mean": float(floor.mean()), "highest": float(floor.max())}
