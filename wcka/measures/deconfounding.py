"""What of a representation its inputs do not explain (paper, section 2.1.3; Cui et al. 2022)."""

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from . import validation
from .products import Given, Representation, narrow, products, represented, tolerance

# SciPy's threads and PyTorch's wait for each other busily; one eigenproblem of this size is
# solved about twice as fast by one thread.
_THREADS = ThreadpoolController()

_RESIDUE = 1e-12  # of the inputs' kernel: directions with less of it are rounding


class Confounder:
    """The inputs' part of dCKA, factorised once for all representations of the same probes.

    Of the inputs (n, p) a pivoted factorisation of their Gram matrix leaves r columns, P = B L'
    with orthonormal B (n, r), which is never formed: all that is needed of the inputs is P'P and,
    of each representation X, P'X, which are sums over samples.

    Parameters
    ----------
    inputs : array-like
        (n, p), or with more axes, which are flattened. Activations must come from these very
        probes; only their number can be checked.
    """

    def __init__(self, inputs):
        inputs = inputs if isinstance(inputs, Tensor) else np.asarray(inputs)
        if inputs.ndim > 2:
            inputs = inputs.reshape(len(inputs), -1)
        self.inputs = narrow(*represented({"inputs": validation.matrix(inputs, "inputs")}))
        if not self.inputs.d:
            raise ValueError("inputs: all rows are the same, there is nothing to deconfound")
        gram = products([self.inputs], [self.inputs])[0, :, 0]
        with _THREADS.limit(limits=1, user_api="blas"):
            factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(
                gram.double().cpu().numpy(), lower=1, tol=_RESIDUE * float(gram.diagonal().max()))
        factor = torch.from_numpy(np.tril(factor)[:, :rank]).to(gram)
        self.inputs.take(torch.from_numpy(pivots[:rank].astype(np.int64) - 1).to(gram.device))
        self.corner = factor[:rank]  # L, where it is a triangle
        self.gram = factor.T @ factor  # K0 in the basis B
        self.norm = torch.linalg.norm(self.gram)

    def project(self, model: Representation) -> tuple[Tensor, Tensor]:
        """Coordinates B'X (r, d) and <K, K0> / ||K0|| of a representation."""
        if model.n != self.inputs.n:
            raise ValueError(f"different numbers of rows: {model.n} activations, "
                             f"{self.inputs.n} inputs")
        seen = products([self.inputs], [model])[0, :, 0]
        inside = torch.linalg.solve_triangular(self.corner, seen, upper=False)
        return inside, (inside * (self.gram @ inside)).sum() / self.norm

    def deconfound(self, model: Representation) -> Representation:
        """F with FF' the positive part of K - alpha K0, as features: F = X A + P M.

        Where no more than rounding of a representation is left, F has no columns.
        """
        inside, share = self.project(model)
        nothing = Given(inside.new_zeros((model.n, 0)))
        if not model.d:
            return nothing
        gram = products([model], [model])[0, :, 0]
        # What lies outside of the inputs' span is Q T with orthonormal Q, from its small Gram
        # matrix; a direction without length is none.
        squares, turn = torch.linalg.eigh(gram - inside.T @ inside)
        real = squares > _RESIDUE * gram.trace()
        length, turn = squares[real].sqrt(), turn[:, real]
        # In the basis of inputs and x together, K = RR' and K0 are small matrices.
        r, m = torch.cat([inside, length[:, None] * turn.T]), len(inside)
        k = r @ r.T
        k[:m, :m] -= share / self.norm * self.gram
        factor = _positive_factor(k, min(model.d, len(k)))
        if (factor**2).sum() <= tolerance(model.values) * gram.trace():
            return nothing
        a = turn / length @ factor[m:]
        b = torch.linalg.solve_triangular(self.corner.T, factor[:m] - inside @ a, upper=True)
        return _Deconfounded(model, a, self, b)


class _Deconfounded(Representation):
    def __init__(self, model: Representation, a: Tensor, confounder: Confounder, b: Tensor):
        self.model, self.a, self.confounder, self.b = model, a, confounder, b
        self.values, self.dtype, self.kept = model.values, model.dtype, None
        self.n, self.d = model.n, a.shape[1]

    def rows(self, part: slice = slice(None)) -> Tensor:
        if self.kept is not None:
            return self.kept[part]
        return self.model.rows(part) @ self.a + self.confounder.inputs.rows(part) @ self.b


def _positive_factor(k: Tensor, rank: int) -> Tensor:
    """F (m, rank) with FF' the positive part of the symmetric k (m, m), if it has that rank."""
    m = len(k)
    if k.device.type != "cpu":
        values, vectors = torch.linalg.eigh(k)
        values, vectors = values[m - rank:], vectors[:, m - rank:]
    else:  # only the few top eigenpairs: several times faster than all of them
        with _THREADS.limit(limits=1, user_api="blas"):
            values, vectors = map(torch.from_numpy, scipy.linalg.eigh(
                k.T.numpy(), subset_by_index=[m - rank, m - 1], check_finite=False,
                overwrite_a=True))
    return vectors * values.clamp(min=0).sqrt()
