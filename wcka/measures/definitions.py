"""The twelve measures as their papers define them, in about three lines each.

These functions are for reading and for checking. They form n x n kernels, take no care
of speed, and assume features without constant or linearly dependent columns. The
functions of ``similarity`` compute the same numbers quickly and for any input; tests
compare the two.

Everywhere `x` is (n, d) and `y` is (n, e): n samples that both models share, in rows.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import pdist, squareform

Matrix = NDArray[np.float64]

# ------------------------------------------------------------------------ shared steps


def centre(x: Matrix) -> Matrix:
    """Subtract the mean of each column.

    Examples
    --------
    >>> centre(np.array([[0.0, 1.0], [2.0, 5.0]])).tolist()
    [[-1.0, -2.0], [1.0, 2.0]]
    """
    means: Matrix = x.mean(0)
    return x - means


def unit_columns(x: Matrix) -> Matrix:
    """Divide each column by its length.

    Examples
    --------
    >>> unit_columns(np.array([[3.0, 0.0], [4.0, 2.0]])).tolist()
    [[0.6, 0.0], [0.8, 1.0]]
    """
    lengths: Matrix = np.linalg.norm(x, axis=0)
    return x / lengths


def gram(x: Matrix) -> Matrix:
    """Return the linear kernel (n, n): the inner products of the rows.

    Examples
    --------
    >>> gram(np.array([[1.0, 0.0], [1.0, 2.0]])).tolist()
    [[1.0, 1.0], [1.0, 5.0]]
    """
    return x @ x.T


def hsic(k: Matrix, m: Matrix) -> float:
    """Biased Hilbert-Schmidt criterion of two kernels (n, n) (paper, equation 2).

    Examples
    --------
    >>> print(round(hsic(np.eye(3), np.eye(3)), 6))
    0.5
    """
    n = len(k)
    h = np.eye(n) - 1 / n  # the centring matrix
    return float(np.trace(k @ h @ m @ h) / (n - 1) ** 2)


def unbiased_hsic(k: Matrix, m: Matrix) -> float:
    """Unbiased Hilbert-Schmidt criterion of two kernels (Song et al. 2012, equation 5).

    Examples
    --------
    >>> print(round(unbiased_hsic(np.ones((4, 4)), np.ones((4, 4))), 6))
    0.0
    """
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    mean_term = k.sum() * m.sum() / ((n - 1) * (n - 2))
    row_term = 2 / (n - 2) * (k @ m).sum()
    return float((np.trace(k @ m) + mean_term - row_term) / (n * (n - 3)))


def normalised(
    criterion: Callable[[Matrix, Matrix], float], k: Matrix, m: Matrix,
) -> float:
    """Normalise a criterion: 1 for two equal kernels (paper, equation 1).

    Examples
    --------
    >>> print(round(normalised(hsic, np.eye(3), 7 * np.eye(3)), 6))
    1.0
    """
    return float(criterion(k, m) / np.sqrt(criterion(k, k) * criterion(m, m)))


# ---------------------------------------------------------------- the paper's measures


def cka(x: Matrix, y: Matrix) -> float:
    """Linear centred kernel alignment (paper, equations 1 to 3; Kornblith et al. 2019).

    Examples
    --------
    >>> print(round(cka(np.eye(3), np.eye(3)[:, :1]), 3))
    0.707
    """
    return normalised(hsic, gram(x), gram(y))


def procrustes(x: Matrix, y: Matrix) -> float:
    """Procrustes similarity, 1 minus half the squared distance (paper, section 2.1.1).

    Examples
    --------
    >>> print(round(procrustes(np.eye(3), np.eye(3)[:, :1]), 3))
    0.707
    """
    x, y = centre(x), centre(y)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return float(np.linalg.svd(x.T @ y, compute_uv=False).sum())  # the nuclear norm


def deconfounded_kernel(x: Matrix, inputs: Matrix, psd: bool) -> Matrix:
    """Return K - alpha K0 (n, n), or its positive part (paper, section 2.1.3).

    Examples
    --------
    >>> inputs = np.array([[0.0], [1.0], [2.0]])
    >>> deconfounded_kernel(3 * inputs, inputs, psd=False).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    k, k0 = gram(centre(x)), gram(centre(inputs))
    k = k - (k0 * k).sum() / (k0 * k0).sum() * k0
    values, vectors = np.linalg.eigh(k)
    positive: Matrix = vectors * values.clip(min=0) @ vectors.T
    return positive if psd else k


def dcka(x: Matrix, y: Matrix, inputs: Matrix, psd: bool = True) -> float:
    """Deconfounded CKA (paper, section 2.1.3; Cui et al. 2022); `inputs` is (n, p).

    Examples
    --------
    >>> x, inputs = np.array([[1.0], [0.0], [1.0]]), np.array([[0.0], [1.0], [2.0]])
    >>> print(round(dcka(x, x + inputs, inputs), 3))
    0.639
    """
    k = deconfounded_kernel(x, inputs, psd)
    m = deconfounded_kernel(y, inputs, psd)
    return float((k * m).sum() / (np.linalg.norm(k) * np.linalg.norm(m)))


def wcka(a: Sequence[Matrix], b: Sequence[Matrix]) -> float:
    """Weights CKA of two lists of weight matrices (in, out) (paper, equations 4 and 5).

    Examples
    --------
    >>> turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> hidden, head = np.arange(6.0).reshape(3, 2), np.eye(2)
    >>> print(round(wcka([hidden, head], [hidden @ turn, turn.T, head]), 6))
    1.0
    """
    return cka(reduce(np.matmul, a), reduce(np.matmul, b))


# ------------------------------------------------------------ other estimators, kernels


def unbiased_cka(x: Matrix, y: Matrix) -> float:
    """Linear CKA with the unbiased criterion (Song et al. 2012, equation 5).

    Examples
    --------
    >>> x = np.arange(10.0).reshape(5, 2) ** 2
    >>> print(round(unbiased_cka(x, 3 * x + 1), 6))
    1.0
    """
    return normalised(unbiased_hsic, gram(x), gram(y))


def minibatch_cka(x: Matrix, y: Matrix, batch_size: int = 256) -> float:
    """Ratio of unbiased criteria summed over batches (Nguyen et al. 2020, equation 3).

    Examples
    --------
    >>> x = np.arange(20.0).reshape(10, 2) ** 2
    >>> print(round(minibatch_cka(x, 3 * x + 1, batch_size=5), 6))
    1.0
    """
    xy, xx, yy = 0.0, 0.0, 0.0
    for start in range(0, len(x), batch_size):
        k = gram(x[start:start + batch_size])
        m = gram(y[start:start + batch_size])
        xy += unbiased_hsic(k, m)
        xx += unbiased_hsic(k, k)
        yy += unbiased_hsic(m, m)
    return float(xy / np.sqrt(xx * yy))


def gaussian_kernel(x: Matrix, sigma: float) -> Matrix:
    """Gaussian kernel (n, n) with a bandwidth relative to the rows' distances.

    The squared bandwidth is sigma^2 times the median squared distance of two rows.

    Examples
    --------
    >>> gaussian_kernel(np.array([[0.0], [5.0]]), sigma=1.0).round(3).tolist()
    [[1.0, 0.607], [0.607, 1.0]]
    """
    squares = pdist(x, "sqeuclidean")  # one per pair of rows
    kernel: Matrix = np.exp(-squareform(squares) / (2 * sigma**2 * np.median(squares)))
    return kernel


def rbf_cka(x: Matrix, y: Matrix, sigma: float = 1.0) -> float:
    """CKA with a Gaussian kernel (Kornblith et al. 2019, section 3).

    Examples
    --------
    >>> print(round(rbf_cka(np.eye(3), 2 * np.eye(3) + 1), 6))
    1.0
    """
    return normalised(hsic, gaussian_kernel(x, sigma), gaussian_kernel(y, sigma))


# --------------------------------------------------------------- canonical correlations


def leading_basis(x: Matrix, variance: float) -> Matrix:
    """Orthonormal basis (n, rank) of the fewest components with this share of variance.

    Examples
    --------
    >>> x = np.array([[9.0, 0.0], [-9.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> leading_basis(x, 0.9).shape, leading_basis(x, 1.0).shape
    ((4, 1), (4, 2))
    """
    u, s, _ = np.linalg.svd(centre(x), full_matrices=False)
    shares = np.cumsum(s**2) / np.sum(s**2)
    return u[:, :1 + np.searchsorted(shares[:-1], variance)]


def mean_cca(x: Matrix, y: Matrix) -> float:
    """Mean of the canonical correlations (Morcos et al. 2018).

    Examples
    --------
    >>> x = np.array([[0.0, 1.0], [1.0, 3.0], [5.0, 2.0], [4.0, 9.0]])
    >>> print(round(mean_cca(x, x @ np.array([[1.0, 2.0], [0.0, 1.0]])), 6))
    1.0
    """
    u, v = leading_basis(x, 1.0), leading_basis(y, 1.0)
    return float(np.linalg.svd(u.T @ v, compute_uv=False).mean())


def svcca(x: Matrix, y: Matrix, variance: float = 0.99) -> float:
    """Mean canonical correlation of the leading components (Raghu et al. 2017).

    Examples
    --------
    >>> x = np.array([[9.0, 0.0], [-9.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> print(round(svcca(x, x[:, :1], variance=0.9), 6))
    1.0
    """
    u, v = leading_basis(x, variance), leading_basis(y, variance)
    return float(np.linalg.svd(u.T @ v, compute_uv=False).mean())


def pwcca(x: Matrix, y: Matrix) -> float:
    """Canonical correlations weighted by their part in `x` (Morcos et al. 2018).

    The weights are not unique where correlations are equal; see ``similarity.pwcca``.

    Examples
    --------
    >>> x = np.array([[9.0, 0.0], [-9.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> print(round(pwcca(x, 2 * x + 1), 6))
    1.0
    """
    u, v = leading_basis(x, 1.0), leading_basis(y, 1.0)
    left, correlations, _ = np.linalg.svd(u.T @ v, full_matrices=False)
    weights = np.abs((u @ left).T @ centre(x)).sum(1)  # one per canonical variate of x
    return float(weights @ correlations / weights.sum())


# --------------------------------------------------------------- the symmetries of ReLU


def relu_procrustes(x: Matrix, y: Matrix) -> float:
    """Best sum of cosines over matchings of units (Godfrey et al. 2022, section 5).

    Examples
    --------
    >>> x = np.array([[0.0, 1.0], [1.0, 3.0], [5.0, 2.0]])
    >>> print(round(relu_procrustes(x, x[:, ::-1] * [2.0, 3.0]), 6))
    1.0
    """
    cosines = unit_columns(x).T @ unit_columns(y)
    matching = linear_sum_assignment(cosines, maximize=True)
    return float(cosines[matching].sum() / np.sqrt(cosines.size))


def max_kernel(x: Matrix) -> Matrix:
    """Kernel (n, n) of the largest product of two rows, max over units c of x_c y_c.

    Examples
    --------
    >>> max_kernel(np.array([[1.0, 2.0], [3.0, -1.0]])).tolist()
    [[4.0, 3.0], [3.0, 9.0]]
    """
    kernel: Matrix = (x[:, None] * x).max(-1)  # (n, n, d), then (n, n)
    return kernel


def relu_cka(x: Matrix, y: Matrix) -> float:
    """CKA with the max kernel, unbiased criterion (Godfrey et al. 2022, section 5).

    Examples
    --------
    >>> x = np.array([[0.0, 1.0], [1.0, 3.0], [5.0, 2.0], [4.0, 9.0]])
    >>> print(round(relu_cka(x, x[:, ::-1] * [2.0, 3.0]), 6))
    1.0
    """
    x, y = unit_columns(centre(x)), unit_columns(centre(y))
    return normalised(unbiased_hsic, max_kernel(x), max_kernel(y))
