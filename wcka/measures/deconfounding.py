"""Deconfounded representations: the part that the inputs do not explain linearly.

See section 2.1.3 of the paper and Cui et al. 2022.
"""

from threading import Lock
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from . import validation
from .inner_products import (
    Given,
    Representation,
    narrow,
    pieces,
    products,
    represented,
    tolerance,
)

# SciPy's threads and PyTorch's wait for each other busily: one thread solves an
# eigenproblem of this size about twice as fast.
# threadpoolctl comes with the experiments; without it SciPy's threads stay as they are.
try:
    from threadpoolctl import ThreadpoolController

    _THREADS: Any = ThreadpoolController()
except ModuleNotFoundError:
    _THREADS = None


class _OneThread:
    """One thread for SciPy as long as any caller is inside.

    The number of threads belongs to the whole process: of callers that overlap, the
    first takes it down and the last puts it back.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.callers = 0
        self.limit: Any = None

    def __enter__(self) -> None:
        with self.lock:
            self.callers += 1
            if self.callers == 1 and _THREADS is not None:
                self.limit = _THREADS.limit(limits=1, user_api="blas")

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.callers -= 1
            if self.callers == 0 and self.limit is not None:
                self.limit.restore_original_limits()


_one_thread = _OneThread()

# Directions that hold less than this share of a Gram matrix are rounding.
_RESIDUE = 1e-12


class Confounder:
    """The inputs of dCKA, factorised once for all representations of the same probes.

    A pivoted Cholesky factorisation of the Gram matrix of the inputs (n, p) selects r
    columns, P = B L' with an orthonormal basis B (n, r). B is never formed: all later
    steps need only P'P and, for each representation X, P'X, which are sums over
    samples.

    Parameters
    ----------
    inputs : array-like
        (n, p); further axes are flattened. The activations must come from these very
        probes; only their number can be checked.

    Raises
    ------
    ValueError
        For inputs whose rows are all the same.
    TypeError
        For inputs that are not real numbers, arrays with masked entries included.

    Examples
    --------
    >>> inputs = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    >>> confounder = Confounder(inputs)
    >>> confounder.deconfound(Representation(3 * inputs + 1)).d  # all is explained
    0
    >>> confounder.deconfound(Representation(inputs**2)).d
    1
    """

    def __init__(self, inputs: ArrayLike):
        values = validation.real_numbers(inputs, "inputs")
        if values.ndim > 2:
            values = values.flatten(1)  # (n, p)
        (model,) = represented({"inputs": validation.matrix(values, "inputs")})
        self.inputs = narrow(model)
        if not self.inputs.d:
            raise ValueError("inputs: all rows are the same, there is nothing to "
                             "deconfound")
        gram = products([self.inputs], [self.inputs])[0, :, 0]  # (p, p)
        with _one_thread:
            lower, pivots, rank, _ = scipy.linalg.lapack.dpstrf(
                gram.double().cpu().numpy(), lower=1,
                tol=_RESIDUE * float(gram.diagonal().max()))
        triangle = torch.from_numpy(np.tril(lower)[:rank, :rank]).to(gram)
        columns = torch.from_numpy(pivots[:rank].astype(np.int64) - 1).to(gram.device)
        self.inputs.take(columns)
        # L for the selected columns, (r, r)
        self.corner = triangle @ self._correction(triangle)
        inside = torch.linalg.solve_triangular(
            self.corner, gram[columns], upper=False)  # B' of all inputs, (r, p)
        self.gram = inside @ inside.T  # K0 in the basis B, (r, r)
        self.norm = torch.linalg.norm(self.gram)

    def _correction(self, triangle: Tensor) -> Tensor:
        """Return the triangle (r, r) that makes a basis by a triangle orthonormal.

        The Gram matrix of the inputs squares their condition, so that the columns of
        the first basis are orthonormal to some digits only. Those of the second are to
        all of them (Cholesky QR, done twice; Yamamoto et al. 2015).
        """
        total = torch.zeros_like(triangle)
        for part in pieces(self.inputs.n):
            rows = self.inputs.rows(part).T.to(triangle)  # (r, rows)
            basis = torch.linalg.solve_triangular(triangle, rows, upper=False)
            total += basis @ basis.T
        correction: Tensor = torch.linalg.cholesky(total)
        return correction

    def project(self, model: Representation) -> tuple[Tensor, Tensor]:
        """Project a representation on the span of the inputs.

        Returns
        -------
        inside : Tensor
            (r, d), the coordinates B'X.
        share : Tensor
            (), <K, K0> / ||K0||.

        Raises
        ------
        ValueError
            For another number of rows than the inputs have.
        """
        if model.n != self.inputs.n:
            raise ValueError(f"different numbers of rows: {model.n} activations, "
                             f"{self.inputs.n} inputs")
        # With the few columns on the left, the product takes half the time.
        input_products = products([model], [self.inputs])[0, :, 0].T  # P'X, (r, d)
        inside = torch.linalg.solve_triangular(self.corner, input_products, upper=False)
        return inside, (inside * (self.gram @ inside)).sum() / self.norm

    def deconfound(self, model: Representation) -> Representation:
        """Return F with FF' the positive part of K - alpha K0, as F = X A + P M.

        Returns
        -------
        Representation
            (n, at most d); it has no columns where only rounding is left.

        Raises
        ------
        ValueError
            For another number of rows than the inputs have.
        """
        rounding = tolerance(model.values)
        model = narrow(model)
        inside, share = self.project(model)
        empty = Given(inside.new_zeros((model.n, 0)))
        if not model.d:
            return empty
        gram = products([model], [model])[0, :, 0]  # (d, d)
        # The part of X outside of the inputs' span is Q T with an orthonormal Q; its
        # small Gram matrix gives T. A direction without length does not count.
        squares, directions = torch.linalg.eigh(gram - inside.T @ inside)
        has_length = squares > _RESIDUE * gram.trace()
        lengths = squares[has_length].sqrt()  # (q,)
        directions = directions[:, has_length]  # (d, q)
        # In the basis of B and Q together, K and K0 are small matrices.
        coordinates = torch.cat([inside, lengths[:, None] * directions.T])  # (r + q, d)
        k = coordinates @ coordinates.T  # (r + q, r + q)
        m = len(inside)
        k[:m, :m] -= share / self.norm * self.gram
        factor = _positive_factor(k, min(model.d, len(k)))  # (r + q, at most d)
        if (factor**2).sum() <= rounding * gram.trace():
            return empty
        # Back to features: Q = (X - B B'X) directions / lengths.
        a = directions / lengths @ factor[m:]
        b = torch.linalg.solve_triangular(
            self.corner.T, factor[:m] - inside @ a, upper=True)
        return _Deconfounded(model, a, self, b)


class _Deconfounded(Representation):
    """The features X A + P M, computed from X and P in pieces of rows."""

    def __init__(self, model: Representation, a: Tensor, confounder: Confounder,
                 b: Tensor):
        self.model = model
        self.a = a
        self.confounder = confounder
        self.b = b
        self.values = model.values
        self.dtype = model.dtype
        self.kept = None
        self.n = model.n
        self.d = a.shape[1]

    def rows(self, part: slice = slice(None)) -> Tensor:
        """Return a slice of rows. See ``Representation.rows``."""
        if self.kept is not None:
            return self.kept[part]
        inputs = self.confounder.inputs.rows(part)  # (rows, r)
        explained = (self.b.T @ inputs.T).T  # as in ``Confounder.project``
        return self.model.rows(part) @ self.a + explained


def _positive_factor(k: Tensor, rank: int) -> Tensor:
    """F with FF' the positive part of a symmetric k (m, m), which has at most `rank`.

    F is (m, positive eigenvalues).
    """
    m = len(k)
    if k.device.type != "cpu":
        values, vectors = torch.linalg.eigh(k)
        values = values[m - rank:]
        vectors = vectors[:, m - rank:]
    else:
        # A few eigenpairs are several times faster than all of them, and many are
        # slower by the algorithm that can leave some out.
        few = [m - rank, m - 1] if rank < m / 6 else None
        with _one_thread:
            eigenpairs = scipy.linalg.eigh(
                k.T.numpy(), subset_by_index=few, driver="evr" if few else "evd",
                check_finite=False, overwrite_a=True)
        values, vectors = (torch.from_numpy(part)[..., -rank:] for part in eigenpairs)
    positive = values > 0
    factor: Tensor = vectors[:, positive] * values[positive].sqrt()
    return factor
