"""Centred kernels of one model each, in strips of rows."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from . import inner_products
from .inner_products import Representation, pieces, strip_products
from .validation import Array

_STRIP_ROWS = 256  # rows of one kernel at a time
# Centring a constant kernel leaves this share of the sum of its squares, by rounding.
_CONSTANT = 1e-26
# Below this share of two squared lengths, a squared distance has lost digits.
_CLOSE = 1e-4


class Kernel:
    """A kernel with centred rows and columns, as if its features were centred.

    Parameters
    ----------
    model : Representation
        Features (n, d).
    uncentred : function
        Given a slice of rows, it returns these rows of the kernel, from the column of
        the first row's diagonal entry on.
    unbiased : bool
        Whether to centre for the unbiased criterion (Szekely and Rizzo 2014), in which
        the diagonal does not count.
    keep : bool
        Whether to hold all of the kernel, (n, n); otherwise its rows are computed a
        second time when they are needed.

    Examples
    --------
    >>> table = torch.tensor([[4.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    >>> model = Representation(table)
    >>> kernel = Kernel(model, lambda part: table[part, part.start:], False, keep=True)
    >>> kernel.rows(slice(0, 2)).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """

    def __init__(self, model: Representation, uncentred: Callable[[slice], Tensor],
                 unbiased: bool, keep: bool):
        self.model = model
        self.uncentred = uncentred
        self.unbiased = unbiased
        self.kept: Tensor | None = None
        self.squares = 0.0  # the sum of all entries' squares, before centring
        n = model.n
        first_row = model.rows(slice(0, 1))  # for its type and device
        sums = first_row.new_zeros(n)
        full_kernel = first_row.new_zeros((n, n)) if keep else None
        for part in pieces(n, _STRIP_ROWS):
            strip = self._strip(part)  # (rows, columns from the first of them on)
            height = part.stop - part.start
            # The kernel is symmetric: what stands right of the square on the diagonal
            # also stands below it.
            sums[part] += strip.sum(1)
            sums[part.stop:] += strip[:, height:].sum(0)
            self.squares += 2 * float(strip.square().sum())
            if full_kernel is not None:
                full_kernel[part, part.start:] = strip
                full_kernel[part.stop:, part] = strip[:, height:].T
        # Subtracting row means and column means takes the overall mean away twice, so
        # that each of the two carries one half of it.
        divisor = n - 2 if unbiased else n
        overall = 2 * divisor * (n - 1 if unbiased else n)
        self.means = sums / divisor - sums.sum() / overall
        self.kept = full_kernel

    def _strip(self, part: slice) -> Tensor:
        """Rows of the kernel before centring, from the first one's diagonal on."""
        if self.kept is None:
            strip = self.uncentred(part)
        else:
            strip = self.kept[part, part.start:].clone()
        if self.unbiased:
            strip.diagonal().zero_()
        return strip

    def rows(self, part: slice) -> Tensor:
        """Return centred rows, from the column of the first one's diagonal entry on.

        Returns
        -------
        Tensor
            (rows, n minus the position of the first row)
        """
        strip = self._strip(part)
        strip = strip.sub_(self.means[part, None]).sub_(self.means[part.start:])
        if self.unbiased:
            strip.diagonal().zero_()
        return strip


def kernel_products(kernels: Sequence[Kernel]) -> tuple[Array, Array]:
    """Return <K, L> of all pairs of kernels, and of each kernel with itself.

    Returns
    -------
    cross : ndarray
        (N, N)
    self_products : ndarray
        (N,); 0 where only rounding is left of a kernel.

    Examples
    --------
    >>> table = torch.tensor([[4.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    >>> model = Representation(table)
    >>> kernel = Kernel(model, lambda part: table[part, part.start:], False, keep=True)
    >>> cross, self_products = kernel_products([kernel, kernel])
    >>> cross.round(6).tolist(), self_products.round(6).tolist()
    ([[4.0, 4.0], [4.0, 4.0]], [4.0, 4.0])
    """

    def fill(part: slice, out: Tensor) -> None:
        for kernel, rows in zip(kernels, out):
            rows.copy_(kernel.rows(part))

    cross = strip_products(fill, len(kernels), kernels[0].model)
    self_products = np.diag(cross)
    squares = np.array([kernel.squares for kernel in kernels])
    return cross, np.where(self_products <= _CONSTANT * squares, 0, self_products)


def linear(models: Sequence[Representation]) -> list[Kernel]:
    """Return linear kernels for the unbiased criterion.

    Products of features hold the kernels' diagonals, which the criterion leaves out; a
    row that is far larger than the others then leaves only rounding. Here no diagonal
    enters a sum, for about n / d times the operations.

    Parameters
    ----------
    models : sequence of N Representation
        Features (n, d_i); the median of each column becomes their origin.

    Returns
    -------
    list of N Kernel

    Examples
    --------
    >>> model = Representation(torch.tensor([[0.0], [1.0], [2.0], [9.0], [8.0]]))
    >>> (kernel,) = linear([model])
    >>> kernel.uncentred(slice(0, 1))[0, :2].numpy().round(2).tolist()
    [0.16, 0.08]
    """
    keep = _fits(models)
    return [_linear(model, keep) for model in models]


def _linear(model: Representation, keep: bool) -> Kernel:
    """Linear kernel of one model."""
    model.move_to_median()

    def row_products(part: slice) -> Tensor:
        x = model.rows(slice(part.start, None))  # (rows from the first of them on, d)
        return x[:part.stop - part.start] @ x.T

    return Kernel(model, row_products, True, keep)


def gaussian(models: Sequence[Representation], sigma: float) -> list[Kernel]:
    """Return Gaussian kernels (Kornblith et al. 2019, section 3).

    The kernel is ``exp(-|x - y|^2 / (2 (sigma m)^2))``; m is defined below.

    Parameters
    ----------
    models : sequence of N Representation
        Features (n, d_i); the median of each column becomes their origin.
    sigma : float
        Bandwidth, as a share of m; m^2 is the median squared distance of two different
        samples.

    Returns
    -------
    list of N Kernel

    Examples
    --------
    >>> two_samples = Representation(torch.tensor([[0.0], [1.0]]))
    >>> (kernel,) = gaussian([two_samples], sigma=1.0)
    >>> kernel.rows(slice(0, 2)).numpy().round(3).tolist()  # 1 and exp(-1/2), centred
    [[0.197, -0.197], [-0.197, 0.197]]
    """
    keep = _fits(models)
    return [_gaussian(model, sigma, keep) for model in models]


def _gaussian(model: Representation, sigma: float, keep: bool) -> Kernel:
    """Gaussian kernel of one model; with `keep`, distances are computed once."""
    # Far from the origin distances lose digits: the origin belongs among the samples.
    model.move_to_median()
    distances = {}  # strips of squared distances by their first rows
    above_diagonal = []
    for part in pieces(model.n, _STRIP_ROWS):
        strip = _squared_distances(model, part)
        if keep:
            distances[part.start] = strip
        upper = np.triu_indices(len(strip), 1, strip.shape[1])
        above_diagonal.append(strip.cpu().numpy()[upper])
    width = 2 * sigma**2 * float(np.median(np.concatenate(above_diagonal)))

    def rows(part: slice) -> Tensor:
        strip = distances.pop(part.start) if keep else _squared_distances(model, part)
        # Where most samples are the same there is no bandwidth, and no kernel.
        return strip.div_(-width).exp_() if width else strip.zero_()

    return Kernel(model, rows, False, keep)


def _squared_distances(model: Representation, part: slice) -> Tensor:
    """Squared distances of some rows to the rows from the first of them on."""
    x = model.rows(slice(part.start, None))  # (rows from the first of the part on, d)
    height = part.stop - part.start
    lengths = x.square().sum(1)
    sums = lengths[:height, None] + lengths  # (rows, columns)
    distances = sums.clone().addmm_(x[:height], x.T, alpha=-2)
    # The difference of close numbers has lost digits and can be negative: samples that
    # are close to each other are subtracted before they are squared.
    close = distances < _CLOSE * sums
    distances.diagonal().zero_()
    close.diagonal().fill_(False)
    rows = close.any(1).nonzero()  # (rows with close ones, 1)
    if len(rows):
        columns = close.any(0).nonzero()[:, 0]  # (columns with close ones,)
        distances[rows, columns] = torch.cdist(
            x[rows[:, 0]], x[columns],
            compute_mode="donot_use_mm_for_euclid_dist").square_()
    return distances


def maximum(models: Sequence[Representation]) -> list[Kernel]:
    """Return kernels max_c x_c y_c for the unbiased criterion (Godfrey et al. 2022).

    Neither a permutation of the units nor a positive scale of each unit changes the
    kernel of features with columns of unit length.

    Parameters
    ----------
    models : sequence of N Representation
        Features (n, d_i) with columns of unit length.

    Returns
    -------
    list of N Kernel

    Examples
    --------
    >>> (kernel,) = maximum([inner_products.Given(torch.eye(3))])
    >>> kernel.uncentred(slice(0, 2)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    keep = _fits(models)
    return [_maximum(model, keep) for model in models]


def _maximum(model: Representation, keep: bool) -> Kernel:
    """Max kernel of one model."""

    def largest(part: slice) -> Tensor:
        x = model.rows(slice(part.start, None))
        x = x.T.contiguous()  # (d, columns): a unit's values lie side by side
        shape = part.stop - part.start, x.shape[1]
        result = x.new_full(shape, -np.inf if model.d else 0)
        # One unit at a time: the products of all units would take d times the memory.
        for unit in x:
            torch.maximum(result, torch.outer(unit[:len(result)], unit), out=result)
        return result

    return Kernel(model, largest, True, keep)


def _fits(models: Sequence[Representation]) -> bool:
    """Whether the kernels of all models fit into the memory for kept values."""
    return len(models) * models[0].n**2 * 8 <= inner_products.KEPT
