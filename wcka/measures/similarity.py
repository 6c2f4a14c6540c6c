"""The measures of two representations whose rows are shared.

Each function compares one pair; ``wcka.pairwise`` compares all pairs of many models by the same
code. ``definitions`` has each measure in three plain lines, and ``all_pairs`` what is computed.
"""

from torch import Tensor

from .all_pairs import similarity_of_pair
from .deconfounding import Confounder
from .products import Representation
from .validation import matrix


def cka(x, y) -> float:
    """Linear centred kernel alignment (paper, equations 1 to 3; Kornblith et al. 2019).

    With centred columns, ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F): the cosine between the two Gram
    matrices. The Hilbert-Schmidt criterion in it is the biased estimator, as in the paper.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), NumPy or torch, rows shared.

    Returns
    -------
    float
        In [0, 1]; 1 for representations equal up to rotation, scale and translation (and for any
        two with only 2 rows). The distance form is the angle arccos(cka). NaN, with a warning,
        where one has no variance.

    Raises
    ------
    ValueError
        For another rank than 2, fewer than 2 rows, different n, NaN or infinity.
    TypeError
        For values that are not real numbers.
    """
    return similarity_of_pair("cka", x, y)


def procrustes(x, y) -> float:
    """Procrustes similarity, ||Y'X||_* of centred representations of unit Frobenius norm.

    The paper's distance (section 2.1.1), ||X||_F^2 + ||Y||_F^2 - 2 ||X'Y||_*, is then
    2 - 2 * similarity.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), NumPy or torch, rows shared.

    Returns
    -------
    float
        In [0, 1]. NaN, with a warning, where one representation has no variance.

    Raises
    ------
    ValueError, TypeError
        As ``cka``.
    """
    return similarity_of_pair("procrustes", x, y)


def dcka(x, y, inputs, psd=True) -> float:
    """Deconfounded CKA (paper, section 2.1.3; Cui et al. 2022).

    The part of each Gram matrix that the inputs' own Gram matrix K0 explains by linear regression
    is taken away, K - alpha K0; then CKA. Everything is centred first, so an intercept in the
    regression would change nothing.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e) activations.
    inputs : array-like or Confounder
        (n, p), the probes that gave the activations; more axes are flattened.
    psd : bool
        Drop the negative eigenvalues of K - alpha K0, as the paper does. Without this step dCKA
        is the partial correlation of CKAs given the inputs.

    Returns
    -------
    float
        In [0, 1]; in [-1, 1] without `psd`. The distance form is the angle arccos(dcka). NaN,
        with a warning, where nothing is left of a representation.

    Raises
    ------
    ValueError, TypeError
        As ``cka``.
    """
    return similarity_of_pair("dcka", x, y, inputs=inputs, psd=psd)


def unbiased_cka(x, y) -> float:
    """Linear CKA with the unbiased estimator (Song et al. 2012; Szekely and Rizzo 2014).

    The estimator leaves the kernels' diagonals out, whose terms favour wide representations of
    few samples. In features it costs no more than ``cka``: with centred X, Y and squared lengths
    k, l of their rows, it is ||X'Y||_F^2 - n / (n - 2) k'l + sum(k) sum(l) / ((n - 1) (n - 2)).

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), at least 4 rows, shared.

    Returns
    -------
    float
        In [-1, 1]; about 0 for independent representations. NaN, with a warning, where one has no
        variance, or all its rows are equally far from each other.

    Raises
    ------
    ValueError, TypeError
        As ``cka``; for fewer than 4 rows.
    """
    return similarity_of_pair("unbiased_cka", x, y)


def minibatch_cka(x, y, batch_size=256) -> float:
    """Linear CKA from sums of unbiased criteria over batches (Nguyen et al. 2020, equation 3).

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared. Batches are consecutive rows: shuffle rows that are sorted.
    batch_size : int
        Rows of a batch; the last has what is left. Batches count alike, whatever their size.

    Returns
    -------
    float
        In [-1, 1]; ``unbiased_cka`` for one batch. NaN, with a warning, where one has no variance.

    Raises
    ------
    ValueError, TypeError
        As ``cka``; where a batch, the last included, has fewer than 4 rows.
    """
    return similarity_of_pair("minibatch_cka", x, y, batch_size=batch_size)


def rbf_cka(x, y, sigma=1.0) -> float:
    """CKA with a Gaussian kernel (Kornblith et al. 2019, section 3).

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared. Time and memory grow with n squared.
    sigma : float
        Bandwidth, as a share of the median distance between two different rows.

    Returns
    -------
    float
        In [0, 1]; near ``cka`` for a `sigma` of 10 to 10,000; far beyond, the kernel is constant
        but for rounding. NaN, with a warning, where one has no variance,
        or where most of its rows are the same: their median distance is zero.

    Raises
    ------
    ValueError, TypeError
        As ``cka``; for a `sigma` that is not positive.
    """
    return similarity_of_pair("rbf_cka", x, y, sigma=sigma)


def relu_cka(x, y) -> float:
    """CKA with the max kernel, for the symmetries of ReLU (Godfrey et al. 2022, section 5).

    Columns are centred and of unit norm; k(x, y) = max_c x_c y_c; the estimator is the unbiased
    one, as in the authors' code. A permutation of units changes nothing, nor does rescaling each;
    a rotation does.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), at least 4 rows, shared. Time grows with n squared times d.

    Returns
    -------
    float
        In [-1, 1]. NaN, with a warning, where one has no variance.

    Raises
    ------
    ValueError, TypeError
        As ``unbiased_cka``.
    """
    return similarity_of_pair("relu_cka", x, y)


def relu_procrustes(x, y) -> float:
    """Procrustes over the symmetries of ReLU (Godfrey et al. 2022, section 5).

    Columns of unit norm, not centred, then the one-to-one assignment of units with the largest sum
    of cosines, over sqrt(d e); units that are zero throughout do not count.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared.

    Returns
    -------
    float
        In [-1, 1], and in [0, 1] after ReLU; 1 for units that are the same up to order and positive
        scale. The squared distance of the aligned matrices, of unit norm, is 2 - 2 * similarity.
        NaN, with a warning, where one is zero.

    Raises
    ------
    ValueError, TypeError
        As ``cka``.
    """
    return similarity_of_pair("relu_procrustes", x, y)


def mean_cca(x, y) -> float:
    """Mean of the canonical correlations of two representations (Morcos et al. 2018).

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared. Where n is not larger than d + e, some correlations are 1
        whatever the data (Kornblith et al. 2019, theorem 1).

    Returns
    -------
    float
        In [0, 1], over the smaller of the two ranks; 1 where the span of one holds that of the
        other. NaN, with a warning, where one has no variance.

    Raises
    ------
    ValueError, TypeError
        As ``cka``.
    """
    return similarity_of_pair("mean_cca", x, y)


def svcca(x, y, variance=0.99) -> float:
    """Mean canonical correlation of the leading principal components (Raghu et al. 2017).

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared.
    variance : float
        Share of the variance, in (0, 1], that the fewest components are to hold.

    Returns
    -------
    float
        In [0, 1]; ``mean_cca`` for a share of 1. NaN, with a warning, where one has no variance.

    Raises
    ------
    ValueError, TypeError
        As ``cka``; for a `variance` outside (0, 1].
    """
    return similarity_of_pair("svcca", x, y, variance=variance)


def pwcca(x, y) -> float:
    """Canonical correlations weighted by how much of `x` they describe (Morcos et al. 2018).

    The weight of a canonical variate h of `x` is ``sum_j |<h, x_j>|`` over the units of `x`; with
    `y`'s weights the value is another: ``pwcca(y, x)``.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared.

    Returns
    -------
    float
        In [0, 1]. NaN, with a warning, where one has no variance.

    Raises
    ------
    ValueError, TypeError
        As ``cka``.
    """
    return similarity_of_pair("pwcca", x, y)


def deconfound(x, inputs) -> Tensor:
    """Low-rank factor F of the positive part of K - alpha K0: FF' is the deconfounded Gram matrix.

    K0 is positive semidefinite and alpha is not negative, so K - alpha K0 has no more positive
    eigenvalues than K, and F no more columns than `x`. No n x n matrix is formed.

    Parameters
    ----------
    x : array-like
        (n, d) activations; centred here.
    inputs : array-like or Confounder
        (n, p) probes, or the factorisation that ``Confounder(inputs)`` keeps for many calls.

    Returns
    -------
    Tensor
        (n, at most d); its columns are centred.

    Raises
    ------
    ValueError, TypeError
        As ``cka``.
    """
    confounder = inputs if isinstance(inputs, Confounder) else Confounder(inputs)
    model = Representation(matrix(x, "x"), "x")
    return confounder.deconfound(model).rows() * model.scale
