"""How alike two networks behave: the share of inputs on which they predict the same class."""

import numpy as np
import torch
from torch import Tensor


def agreement(a, b) -> float:
    """Share of inputs on which two networks predict the same class (paper, section 2.4).

    Parameters
    ----------
    a, b : array-like
        Logits (n, classes), floats, or predicted labels (n,), ints; rows shared.

    Returns
    -------
    float
        In [0, 1]; the distance form is one minus it.

    Raises
    ------
    ValueError
        For different n, no rows, or NaN among the logits.
    """
    a, b = _predicted(a, "a"), _predicted(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"different numbers of predictions: {len(a)} and {len(b)}")
    return float((a == b).double().mean())


def pairwise_agreement(predictions: Tensor) -> np.ndarray:
    """Agreement of all pairs of N models on the same inputs, in one matrix product.

    Parameters
    ----------
    predictions : Tensor
        Predicted labels (N, n), ints from 0.

    Returns
    -------
    ndarray
        (N, N), symmetric, ones on the diagonal.

    Raises
    ------
    ValueError
        For another shape, or values that are no labels.
    """
    labels = torch.as_tensor(predictions)
    if labels.ndim != 2 or not labels.numel() or labels.is_floating_point() or labels.min() < 0:
        raise ValueError(f"predictions: wanted labels (N, n), ints from 0; got {labels.dtype} of "
                         f"shape {tuple(labels.shape)}")
    # Each class apart: 1 where a model predicts it. Counts below 2^24 are exact in float32.
    counts = sum((one := (labels == c).float()) @ one.T for c in labels.unique())
    return (counts.double() / labels.shape[1]).cpu().numpy()


def collapsed(predictions: Tensor, share: float = 0.95) -> np.ndarray:
    """Which models predict one class for at least a `share` of inputs: (N, n) labels to (N,)."""
    labels = torch.as_tensor(predictions)
    most = torch.stack([(labels == c).double().mean(1) for c in labels.unique()]).amax(0)
    return (most >= share).cpu().numpy()


def _predicted(values, label: str) -> Tensor:
    values = torch.as_tensor(values)
    if values.ndim == 2 and values.numel():
        if values.isnan().any():
            raise ValueError(f"{label}: NaN among the logits")
        return values.argmax(1)
    if values.ndim != 1 or not values.numel() or values.is_floating_point():
        raise ValueError(f"{label}: wanted logits (n, classes) or predicted labels (n,), ints; got "
                         f"{values.dtype} of shape {tuple(values.shape)}")
    return values
