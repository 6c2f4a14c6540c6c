"""Agreement of predictions: the share of inputs with the same predicted class."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .validation import Array, with_float64


def agreement(a: ArrayLike, b: ArrayLike) -> float:
    """Share of inputs for which two networks predict the same class.

    See section 2.4 of the paper.

    Parameters
    ----------
    a, b : array-like
        Logits (n, classes), floats, or predicted labels (n,), ints; rows shared. Of one
        logit (n, 1) the sign tells the class.

    Returns
    -------
    float
        In [0, 1]; the distance form is 1 minus the agreement.

    Raises
    ------
    ValueError
        For different n, no rows, or NaN among the logits; for one column that looks
        like probabilities.

    Examples
    --------
    >>> agreement([0, 1, 2, 2], [0, 1, 1, 0])
    0.5
    """
    labels_a = _predicted(a, "a")
    labels_b = _predicted(b, "b")
    if labels_a.shape != labels_b.shape:
        raise ValueError(f"different numbers of predictions: {len(labels_a)} and "
                         f"{len(labels_b)}")
    return float(with_float64(labels_a == labels_b).double().mean())


def pairwise_agreement(predictions: Tensor) -> Array:
    """Agreement of all pairs of N models on the same inputs, from matrix products.

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

    Examples
    --------
    >>> pairwise_agreement(torch.tensor([[0, 1, 2, 2], [0, 1, 1, 0]])).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    labels = torch.as_tensor(predictions, device=_device_of(predictions))
    is_table = labels.ndim == 2 and labels.numel() and not labels.is_floating_point()
    if not is_table or labels.min() < 0:
        raise ValueError(f"predictions: wanted labels (N, n), ints from 0; got "
                         f"{labels.dtype} of shape {tuple(labels.shape)}")
    counts = torch.zeros((len(labels), len(labels)), device=labels.device)
    for label in torch.unique(labels):
        # 1 where a model predicts this class. Counts below 2^24 are exact in float32.
        indicator = (labels == label).float()  # (N, n)
        counts += indicator @ indicator.T
    return (with_float64(counts).double() / labels.shape[1]).cpu().numpy()


def collapsed(predictions: Tensor, share: float = 0.95) -> NDArray[np.bool_]:
    """Tell which models predict one class for at least a share of the inputs.

    Parameters
    ----------
    predictions : Tensor
        Predicted labels (N, n), ints.
    share : float
        In [0, 1].

    Returns
    -------
    ndarray of bool
        (N,)

    Examples
    --------
    >>> collapsed(torch.tensor([[0, 0, 0, 1], [0, 1, 1, 0]]), share=0.75).tolist()
    [True, False]
    """
    labels = torch.as_tensor(predictions, device=_device_of(predictions))
    class_shares = []
    for label in torch.unique(labels):
        indicator = with_float64(labels == label)  # (N, n)
        class_shares.append(indicator.double().mean(1))  # (N,)
    largest = torch.stack(class_shares).amax(0)
    return (largest >= share).cpu().numpy()


def _device_of(values: object) -> torch.device:
    """Return a tensor's device, and the CPU for anything else, whatever the default."""
    return values.device if isinstance(values, Tensor) else torch.device("cpu")


def _predicted(values: ArrayLike, label: str) -> Tensor:
    """Predicted labels (n,) from logits or labels."""
    values = torch.as_tensor(values, device=_device_of(values))
    if values.ndim == 2 and values.shape[1] == 1 and not values.is_floating_point():
        values = values[:, 0]  # labels as a column
    if values.ndim == 2 and values.shape[1] == 1 and values.numel():
        return _classes_of_one_logit(values[:, 0], label)
    if values.ndim == 2 and values.numel():
        if values.isnan().any():
            raise ValueError(f"{label}: NaN among the logits")
        return values.argmax(1)
    if values.ndim != 1 or not values.numel() or values.is_floating_point():
        raise ValueError(f"{label}: wanted logits (n, classes) or predicted labels "
                         f"(n,), ints; got {values.dtype} of shape "
                         f"{tuple(values.shape)}")
    return values


def _classes_of_one_logit(logits: Tensor, label: str) -> Tensor:
    """Return 1 where a network's only logit is positive, else 0."""
    if logits.isnan().any():
        raise ValueError(f"{label}: NaN among the logits")
    if logits.min() >= 0 and logits.max() <= 1:
        raise ValueError(
            f"{label}: one column of values in [0, 1] is more likely one of "
            f"probabilities than of logits; give the predicted labels, as p > 0.5")
    return (logits > 0).long()
