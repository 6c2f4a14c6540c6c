"""The measures of two representations whose rows are shared.

Each function compares one pair; ``wcka.pairwise`` compares all pairs of many models by
the same code. ``definitions`` states each measure in about three plain lines, and
``all_pairs`` computes them.
"""

from numpy.typing import ArrayLike
from torch import Tensor

from .all_pairs import similarity_of_pair
from .deconfounding import Confounder
from .inner_products import Representation
from .validation import matrix


def cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear centred kernel alignment (paper, equations 1 to 3; Kornblith et al. 2019).

    With centred columns, ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F): the cosine of the angle
    between the two Gram matrices. Its Hilbert-Schmidt criterion is the biased
    estimator, as in the paper. See ``definitions.cka`` for the definition in three
    lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), NumPy or torch, rows shared.

    Returns
    -------
    float
        In [0, 1]; 1 for representations that are equal up to rotation, scale and
        translation (and for any two with only 2 rows). The distance form is the angle
        arccos(cka). NaN, with a warning, where a representation has no variance.

    Raises
    ------
    ValueError
        For another rank than 2, fewer than 2 rows, different n, NaN or infinity.
    TypeError
        For values that are not real numbers.

    Examples
    --------
    >>> x = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    >>> y = [[1.0], [0.0], [0.0]]
    >>> round(cka(x, x), 3), round(cka(x, y), 3)
    (1.0, 0.791)
    """
    return similarity_of_pair("cka", x, y)


def procrustes(x: ArrayLike, y: ArrayLike) -> float:
    """Procrustes similarity, ||Y'X||_* of centred features with unit Frobenius norms.

    The paper's distance (section 2.1.1), ||X||_F^2 + ||Y||_F^2 - 2 ||X'Y||_*, is then
    2 - 2 * similarity. See ``definitions.procrustes`` for the definition in three
    lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), NumPy or torch, rows shared.

    Returns
    -------
    float
        In [0, 1]. NaN, with a warning, where a representation has no variance.

    Raises
    ------
    ValueError, TypeError
        See ``cka``.

    Examples
    --------
    >>> x = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    >>> rotated = [[0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]]
    >>> round(procrustes(x, rotated), 6)
    1.0
    """
    return similarity_of_pair("procrustes", x, y)


def dcka(x: ArrayLike, y: ArrayLike, inputs: ArrayLike | Confounder,
         psd: bool = True) -> float:
    """Deconfounded CKA (paper, section 2.1.3; Cui et al. 2022).

    From each Gram matrix K the part that the Gram matrix K0 of the inputs explains by
    linear regression is subtracted, K - alpha K0; then follows CKA. Everything is
    centred first, so an intercept in the regression would change nothing. See
    ``definitions.dcka`` for the definition in three lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e) activations.
    inputs : array-like or Confounder
        (n, p), the probes of the activations; further axes are flattened.
    psd : bool
        Whether to drop the negative eigenvalues of K - alpha K0, as the paper does.
        Without this step dCKA is the partial correlation of CKAs given the inputs.

    Returns
    -------
    float
        In [0, 1]; in [-1, 1] without `psd`. The distance form is the angle
        arccos(dcka). NaN, with a warning, where the inputs explain all of a
        representation.

    Raises
    ------
    ValueError, TypeError
        See ``cka``.

    Examples
    --------
    >>> inputs = [[0.0], [1.0], [2.0], [3.0]]
    >>> x = [[0.0], [1.0], [4.0], [9.0]]
    >>> y = [[1.0], [0.0], [0.0], [1.0]]
    >>> round(cka(x, y), 3), round(dcka(x, y, inputs), 3)
    (0.082, 0.574)
    """
    return similarity_of_pair("dcka", x, y, inputs=inputs, psd=psd)


def unbiased_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear CKA with the unbiased estimator (Song et al. 2012, equation 5).

    The estimator leaves out the kernels' diagonals, whose terms favour wide
    representations of few samples. In features it costs no more than ``cka``: with
    centred X, Y and squared lengths k, l of their rows, it is
    ||X'Y||_F^2 - n / (n - 2) k'l + sum(k) sum(l) / ((n - 1) (n - 2)). Where these terms
    cancel, as beside a row that is far larger than the others, kernels without
    diagonals give the value to full precision in a time that grows with n squared. See
    ``definitions.unbiased_cka`` for the definition in three lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), at least 4 rows, shared.

    Returns
    -------
    float
        In [-1, 1]; about 0 for independent representations. NaN, with a warning, where
        a representation has no variance, or all its rows are equally far from each
        other.

    Raises
    ------
    ValueError, TypeError
        See ``cka``; also for fewer than 4 rows.

    Examples
    --------
    >>> x = [[0.0, 0.0], [1.0, 1.0], [2.0, 4.0], [3.0, 9.0], [4.0, 16.0]]
    >>> y = [[0.0], [1.0], [0.0], [1.0], [0.0]]
    >>> round(cka(x, y), 3), round(unbiased_cka(x, y), 3)
    (0.018, -0.322)
    """
    return similarity_of_pair("unbiased_cka", x, y)


def minibatch_cka(x: ArrayLike, y: ArrayLike, batch_size: int = 256) -> float:
    """Linear CKA from unbiased criteria summed over batches.

    See Nguyen et al. 2020, equation 3, and ``definitions.minibatch_cka`` for the
    definition in a few lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared. Batches are consecutive rows: shuffle rows that
        are sorted.
    batch_size : int
        Rows per batch; the last batch holds the remaining rows. All batches have the
        same weight, whatever their size.

    Returns
    -------
    float
        In [-1, 1]; ``unbiased_cka`` for a single batch. NaN, with a warning, where a
        representation has no variance.

    Raises
    ------
    ValueError, TypeError
        See ``cka``; also where a batch, the last included, has fewer than 4 rows.

    Examples
    --------
    >>> x = [[0.0], [1.0], [4.0], [9.0], [1.0], [5.0], [0.0], [2.0]]
    >>> y = [[1.0], [0.0], [3.0], [9.0], [2.0], [4.0], [1.0], [1.0]]
    >>> round(minibatch_cka(x, y), 3), round(minibatch_cka(x, y, batch_size=4), 3)
    (0.84, 0.888)
    """
    return similarity_of_pair("minibatch_cka", x, y, batch_size=batch_size)


def rbf_cka(x: ArrayLike, y: ArrayLike, sigma: float = 1.0) -> float:
    """CKA with a Gaussian kernel (Kornblith et al. 2019, section 3).

    See ``definitions.rbf_cka`` for the definition in three lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared. Time and memory grow with n squared.
    sigma : float
        Bandwidth, as a share of the median distance between two different rows (of the
        root of the median squared distance, where the number of pairs is even).

    Returns
    -------
    float
        In [0, 1]; near ``cka`` for a `sigma` of 10 to 10,000; far beyond, the kernel is
        constant but for rounding. NaN, with a warning, where a representation has no
        variance, or where most of its rows are the same: their median distance is zero.

    Raises
    ------
    ValueError, TypeError
        See ``cka``; also for a `sigma` outside [1e-100, 1e100].

    Examples
    --------
    >>> x = [[0.0], [1.0], [4.0], [9.0]]
    >>> y = [[1.0], [0.0], [0.0], [1.0]]
    >>> round(rbf_cka(x, y, sigma=0.5), 3), round(rbf_cka(x, y, sigma=1000.0), 3)
    (0.393, 0.082)
    """
    return similarity_of_pair("rbf_cka", x, y, sigma=sigma)


def relu_cka(x: ArrayLike, y: ArrayLike) -> float:
    """CKA with the max kernel, for the symmetries of ReLU.

    See Godfrey et al. 2022, section 5. Columns are centred and have unit norm; k(x, y)
    = max_c x_c y_c; the estimator is unbiased, as in the authors' code. Neither a
    permutation of the units nor a positive scale of each unit changes the value; a
    rotation does. See ``definitions.relu_cka`` for the definition in three lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), at least 4 rows, shared. Time grows with n squared times d.

    Returns
    -------
    float
        In [-1, 1]. NaN, with a warning, where a representation has no variance.

    Raises
    ------
    ValueError, TypeError
        See ``unbiased_cka``.

    Examples
    --------
    >>> x = [[0.0, 1.0], [1.0, 3.0], [5.0, 2.0], [4.0, 9.0]]
    >>> swapped_and_scaled = [[2.0, 0.0], [6.0, 7.0], [4.0, 35.0], [18.0, 28.0]]
    >>> round(relu_cka(x, swapped_and_scaled), 6)
    1.0
    """
    return similarity_of_pair("relu_cka", x, y)


def relu_procrustes(x: ArrayLike, y: ArrayLike) -> float:
    """Procrustes similarity over the symmetries of ReLU.

    See Godfrey et al. 2022, section 5. Columns have unit norm and are not centred; the
    value is the largest sum of cosines over one-to-one assignments of units, divided by
    sqrt(d e). Units that are zero for every sample do not count. See
    ``definitions.relu_procrustes`` for the definition in three lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared.

    Returns
    -------
    float
        In [-1, 1], and in [0, 1] after ReLU; 1 for units that are the same up to order
        and positive scale. The squared distance of the aligned matrices, scaled to unit
        norm, is 2 - 2 * similarity. NaN, with a warning, where a representation is
        zero.

    Raises
    ------
    ValueError, TypeError
        See ``cka``.

    Examples
    --------
    >>> x = [[0.0, 1.0], [1.0, 3.0], [5.0, 2.0]]
    >>> swapped_and_scaled = [[2.0, 0.0], [6.0, 7.0], [4.0, 35.0]]
    >>> round(relu_procrustes(x, swapped_and_scaled), 6)
    1.0
    """
    return similarity_of_pair("relu_procrustes", x, y)


def mean_cca(x: ArrayLike, y: ArrayLike) -> float:
    """Mean of the canonical correlations of two representations (Morcos et al. 2018).

    See ``definitions.mean_cca`` for the definition in three lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared. Where n is not larger than d + e, some
        correlations are 1 whatever the data (Kornblith et al. 2019, theorem 1).

    Returns
    -------
    float
        In [0, 1], the mean over the smaller of the two ranks; 1 where the span of one
        representation holds that of the other. NaN, with a warning, where a
        representation has no variance.

    Raises
    ------
    ValueError, TypeError
        See ``cka``.

    Examples
    --------
    >>> x = [[0.0, 1.0], [1.0, 3.0], [5.0, 2.0], [4.0, 9.0]]
    >>> sum_of_units = [[1.0], [4.0], [7.0], [13.0]]
    >>> round(mean_cca(x, sum_of_units), 6)
    1.0
    """
    return similarity_of_pair("mean_cca", x, y)


def svcca(x: ArrayLike, y: ArrayLike, variance: float = 0.99) -> float:
    """Mean canonical correlation of the leading principal components.

    See Raghu et al. 2017, and ``definitions.svcca`` for the definition in three lines.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared.
    variance : float
        Share of the variance, in (0, 1]; the fewest components that reach it are used.

    Returns
    -------
    float
        In [0, 1]; ``mean_cca`` for a share of 1. NaN, with a warning, where a
        representation has no variance.

    Raises
    ------
    ValueError, TypeError
        See ``cka``; also for a `variance` outside (0, 1].

    Examples
    --------
    >>> x = [[9.0, 0.0], [-9.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    >>> y = [[1.0], [1.0], [-2.0], [0.0]]
    >>> round(svcca(x, y, variance=1), 3), abs(round(svcca(x, y, variance=0.9), 3))
    (0.577, 0.0)
    """
    return similarity_of_pair("svcca", x, y, variance=variance)


def pwcca(x: ArrayLike, y: ArrayLike) -> float:
    """Canonical correlations weighted by how much of `x` they describe.

    The weight of a canonical variate h of `x` is ``sum_j |<h, x_j>|`` over the units of
    `x` (Morcos et al. 2018). With the weights of `y` the value is another:
    ``pwcca(y, x)``. See ``definitions.pwcca`` for the definition in four lines.

    Variates with equal correlations are not unique, and neither are their weights. At
    least two correlations are 1 for full rank and n < d + e, or where two networks
    share units; several can be 0. Where correlations differ by less than 1.5e-8 from
    one to the next, each of their variates has the mean weight over all orthonormal
    bases of the span. The definition names no basis, so that its value there depends on
    rounding and on the order of the rows.

    Parameters
    ----------
    x, y : array-like
        (n, d) and (n, e), rows shared.

    Returns
    -------
    float
        In [0, 1]. NaN, with a warning, where a representation has no variance.

    Raises
    ------
    ValueError, TypeError
        See ``cka``.

    Examples
    --------
    >>> x = [[9.0, 0.0], [-9.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    >>> y = [[1.0, 2.0], [-1.0, 2.0], [0.0, 1.0], [0.0, 0.0]]
    >>> round(pwcca(x, y), 3), round(pwcca(y, x), 3)
    (0.943, 0.69)
    """
    return similarity_of_pair("pwcca", x, y)


def deconfound(x: ArrayLike, inputs: ArrayLike | Confounder) -> Tensor:
    """Return a factor F of the deconfounded Gram matrix, FF' = (K - alpha K0)_+.

    K0 is positive semidefinite and alpha is not negative, so K - alpha K0 has at most
    as many positive eigenvalues as K, and F at most as many columns as `x`. No n x n
    matrix is formed.

    Parameters
    ----------
    x : array-like
        (n, d) activations; they are centred here.
    inputs : array-like or Confounder
        (n, p) probes, or the factorisation that ``Confounder(inputs)`` keeps for many
        calls.

    Returns
    -------
    Tensor
        (n, at most d); its columns are centred.

    Raises
    ------
    ValueError, TypeError
        See ``cka``.

    Examples
    --------
    >>> inputs = [[0.0], [1.0], [2.0], [3.0]]
    >>> deconfound([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0], [1.0, 9.0]], inputs).shape
    torch.Size([4, 1])
    >>> deconfound([[1.0], [3.0], [5.0], [7.0]], inputs).shape
    torch.Size([4, 0])
    """
    confounder = inputs if isinstance(inputs, Confounder) else Confounder(inputs)
    model = Representation(matrix(x, "x"), "x")
    scale = model.scale / model.lift
    factor: Tensor = confounder.deconfound(model).rows() * scale
    return factor
