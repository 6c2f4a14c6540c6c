"""Expected Jacobians of a black box, from the outputs that it gives for queries.

For Gaussian inputs x, E[J] = Cov(x)^-1 Cov(x, f(x)) (Stein's lemma), which needs no
weights and no gradients. What limits it is the covariance of the queries: an error in
Cov(x, f(x)) is divided by each of its eigenvalues. Images of digits hardly vary in
hundreds of directions, and what a network does along these cannot be had from queries
that vary as the images do. So queries have a covariance that is the data's plus some
noise in all directions, as in the examples.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..measures.validation import real_numbers, warn_caller, whole_number
from .expected_jacobians import (
    Similarity,
    checked_inputs,
    checked_moments,
    jackknife_error,
)

# Share of the queries for a first regression, and the penalties that it tries, in the
# mean square of the singular values of its inputs
_PILOT = 0.2
_PENALTIES = np.logspace(-4, 2, 25)
# Of the largest eigenvalue; directions of less variance count as constant.
_LEAST_VARIANCE = 1e-10
_LEAST_BATCHES = 5  # four that are all different, without any one


def jacobian_from_outputs(
    inputs: ArrayLike, outputs: ArrayLike, mean: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
) -> Tensor:
    """Estimate the expected Jacobian of a black box from its outputs.

    Parameters
    ----------
    inputs : array-like
        (n, p), the queries: Gaussian, with a covariance of full rank.
    outputs : array-like
        (n, outputs), what the black box gave for them: logits.
    mean, covariance : array-like, optional
        (p,) and (p, p), those that the queries were drawn with. With them the estimate
        is unbiased for any number of queries. Without them it is the least squares
        regression of outputs on inputs, which needs more queries than coordinates; its
        error as a matrix is smaller, for only what is not linear in the outputs is
        noise then.

    Returns
    -------
    Tensor
        float64, (p, outputs).

    Raises
    ------
    ValueError
        For shapes that do not fit together, only one of the two moments, a covariance
        that is singular, and too few queries.

    Examples
    --------
    >>> from wcka.weights.expected_jacobians import gaussian_inputs
    >>> inputs = gaussian_inputs(50, [1.0, 0.0], [[2.0, 1.0], [1.0, 1.0]])
    >>> outputs = inputs @ torch.tensor([[3.0], [4.0]]).double() + 5
    >>> jacobian_from_outputs(inputs, outputs).round(decimals=6).tolist()
    [[3.0], [4.0]]
    """
    x, (y,), center, factor = _checked(inputs, [outputs], mean, covariance)
    return _estimate(x, y, center, factor)


def similarity_from_outputs(
    inputs: ArrayLike, outputs_a: ArrayLike, outputs_b: ArrayLike,
    mean: ArrayLike | None = None, covariance: ArrayLike | None = None,
    batches: int = 10,
) -> Similarity:
    """Return the CKA of two black boxes' expected Jacobians, from their outputs.

    The estimates of few queries are noisy, and the CKA of noisy matrices is not that of
    their means. So the queries are split into batches, and each product of four
    matrices in CKA is the mean over four different batches, whose noise is independent.
    If the moments are given, numerator and denominators are then unbiased, and a fifth
    of the queries is used for a ridge regression first: the batches only estimate what
    it leaves, with less noise. The value can be above 1 or below 0, within its error.

    Parameters
    ----------
    inputs, mean, covariance
        As in ``jacobian_from_outputs``. Give the moments where they are known: then
        batches may be small.
    outputs_a, outputs_b : array-like
        (n, outputs) of the two on the same queries.
    batches : int
        From 5 to a fourth of the number of queries. Without moments each
        batch needs more queries than coordinates.

    Returns
    -------
    Similarity
        The value, and its standard error over queries (a jackknife over batches). NaN,
        with a warning, where outputs are the same for all queries, or the noise hides
        all that varies.

    Raises
    ------
    ValueError
        As ``jacobian_from_outputs``, for each batch; for queries of one coordinate, and
        queries that are all the same.

    Examples
    --------
    >>> from wcka.weights.expected_jacobians import gaussian_inputs, input_moments
    >>> mean, covariance = input_moments(torch.rand(100, 4))
    >>> covariance = covariance + 0.1 * torch.eye(4)  # noise in all directions
    >>> inputs = gaussian_inputs(2000, mean, covariance)
    >>> outputs = inputs @ torch.eye(4).double()[:, :2]
    >>> similarity = similarity_from_outputs(
    ...     inputs, outputs, 3 * outputs, mean, covariance)
    >>> abs(similarity.value - 1) < 0.01
    True
    """
    x, (y_a, y_b), center, factor = _checked(
        inputs, [outputs_a, outputs_b], mean, covariance)
    batches = whole_number(batches, "batches", _LEAST_BATCHES, len(x) // 4)
    if x.shape[1] < 2 or _is_constant(x):
        raise ValueError("inputs: wanted queries that differ, of at least 2 "
                         "coordinates")
    for name, y in (("outputs_a", y_a), ("outputs_b", y_b)):
        if _is_constant(y):
            warn_caller(f"{name} are the same for all queries: NaN")
            return Similarity(float("nan"), float("nan"))
    a = _centred_estimates(x, y_a, center, factor, batches)
    b = _centred_estimates(x, y_b, center, factor, batches)
    # (batches, batches, batches, batches): <X_1' Y_2, X_3' Y_4> of four batches
    products = [_products(a, b), _products(a, a), _products(b, b)]
    different = _different(batches)
    value = _ratio(products, different)
    without_one = []
    for batch in range(batches):
        left = different.clone()
        for axis in range(4):
            left.select(axis, batch).fill_(False)
        without_one.append(_ratio(products, left))
    if np.isnan([value, *without_one]).any():
        warn_caller("the noise of so few queries hides the Jacobian: NaN")
    return Similarity(value, jackknife_error(np.array(without_one)))


def _is_constant(rows: Tensor) -> bool:
    return bool((rows == rows[0]).all())


def _centred_estimates(
    x: Tensor, y: Tensor, center: Tensor | None, factor: Tensor | None, batches: int
) -> Tensor:
    """Return estimates of batches, (batches, p, outputs), centred over coordinates."""
    first = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    if center is not None:
        # Whatever the regression gives, the batches are unbiased and independent.
        pilot = int(_PILOT * len(x))
        first = _ridge(x[:pilot], y[:pilot])
        x, y = x[pilot:], y[pilot:]
        y = y - (x - center) @ first
    estimates = []
    for part, values in zip(x.tensor_split(batches), y.tensor_split(batches)):
        estimates.append(first + _estimate(part, values, center, factor))
    jacobians = torch.stack(estimates)  # (batches, p, outputs)
    return jacobians - jacobians.mean(1, keepdim=True)


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    """Return the ridge regression (p, outputs) of outputs on inputs.

    Each output has the penalty that generalised cross-validation prefers.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    left, singular, right = torch.linalg.svd(x, full_matrices=False)
    projected = left.T @ y  # (components, outputs)
    squares = singular.square()[:, None]
    best = torch.full((y.shape[1],), torch.inf, dtype=torch.float64)
    coefficients = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    for penalty in float(squares.mean()) * _PENALTIES:
        kept = squares / (squares + penalty)  # share of each component
        explained = (projected.square() * (1 - (1 - kept) ** 2)).sum(0)  # (outputs,)
        freedom = len(x) - 1 - kept.sum()
        errors = (y.square().sum(0) - explained) / freedom**2
        better = errors < best
        fit = right.T @ (kept / singular[:, None].clamp(min=1e-300) * projected)
        coefficients[:, better] = fit[:, better]
        best = torch.where(better, errors, best)
    return coefficients


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Inner products of X_i' Y_j and X_k' Y_l for all batches i, j, k, l."""
    crossed = torch.einsum("ipc,jpd->ijcd", x, y)
    return torch.einsum("ijcd,klcd->ijkl", crossed, crossed)


def _different(batches: int) -> Tensor:
    """Tell which of all (i, j, k, l) are four different batches."""
    distinct = ~torch.eye(batches, dtype=torch.bool)
    return (
        distinct[:, :, None, None] & distinct[:, None, :, None]
        & distinct[:, None, None, :] & distinct[None, :, :, None]
        & distinct[None, :, None, :] & distinct[None, None, :, :])


def _ratio(products: list[Tensor], chosen: Tensor) -> float:
    """CKA from the means of its products over the chosen batches."""
    ab, aa, bb = (float(values[chosen].mean()) for values in products)
    if aa <= 0 or bb <= 0:
        return float("nan")
    return ab / math.sqrt(aa * bb)


def _checked(
    inputs: ArrayLike, outputs: list[ArrayLike], mean: ArrayLike | None,
    covariance: ArrayLike | None,
) -> tuple[Tensor, list[Tensor], Tensor | None, Tensor | None]:
    """Return queries, outputs and moments in float64, or say what is wrong."""
    x = checked_inputs(inputs).flatten(1)  # (n, p)
    checked_outputs = []
    for values in outputs:
        y = real_numbers(values, "outputs").double().cpu()
        if y.ndim != 2 or len(y) != len(x) or not torch.isfinite(y).all():
            raise ValueError(
                f"outputs: wanted finite numbers ({len(x)}, outputs), a row per query, "
                f"got shape {tuple(y.shape)}")
        checked_outputs.append(y)
    if (mean is None) != (covariance is None):
        raise ValueError("mean, covariance: wanted both or none")
    if mean is None or covariance is None:
        return x, checked_outputs, None, None
    center, matrix = checked_moments(mean, covariance)
    if len(center) != x.shape[1]:
        raise ValueError(
            f"mean: wanted {x.shape[1]} numbers, as queries have, got {len(center)}")
    return x, checked_outputs, center, _factor(matrix, "covariance")


def _estimate(
    x: Tensor, y: Tensor, center: Tensor | None, factor: Tensor | None
) -> Tensor:
    """Return the estimate (p, outputs) from one set of checked queries.

    `factor` is the Cholesky factor of the covariance that they were drawn with.
    """
    n = len(x)
    if n < 2:
        raise ValueError(f"inputs: wanted at least 2 queries, got {n}")
    around = y - y.mean(0)
    if center is not None and factor is not None:
        cross = (x - center).T @ around / (n - 1)  # (p, outputs), unbiased
        return torch.cholesky_solve(cross, factor)
    centred = x - x.mean(0)
    if n <= x.shape[1] + 1:
        raise ValueError(
            f"inputs: without the covariance, wanted more than {x.shape[1] + 1} "
            f"queries (in each batch), got {n}")
    factor = _factor(centred.T @ centred / n, "inputs")
    return torch.cholesky_solve(centred.T @ around / n, factor)


def _factor(matrix: Tensor, name: str) -> Tensor:
    """Return the Cholesky factor of a covariance, or say that it is singular."""
    eigenvalues = torch.linalg.eigvalsh(matrix)
    constant = int((eigenvalues <= _LEAST_VARIANCE * eigenvalues[-1]).sum())
    if constant:
        raise ValueError(
            f"{name}: {constant} of {len(matrix)} directions have no variance, and "
            f"outputs do not tell the Jacobian along these; add some noise to all, for "
            f"example covariance + 0.1 * torch.eye({len(matrix)})")
    factor: Tensor = torch.linalg.cholesky(matrix)
    return factor
