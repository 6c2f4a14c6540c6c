"""Sums over the kernel of a model that tell what re-pairing its rows would give.

Everything is a sum over samples of products of features, or over strips of the kernel:
the kernel itself (n, n) is not in memory, but for the unbiased criterion where one row
is far longer than all others. Models of similar widths are computed together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import kernels
from .inner_products import (
    CANCELLATION,
    Representation,
    beside,
    blocks_of,
    narrow,
    pieces,
)
from .validation import Array

_NUMBERS = 2**24  # in one strip of a kernel
# Multiplications that the cubes of one kernel may take, some seconds of one core, and
# the fewest rows that may stand for all.
_PRODUCTS = 2e11
_FEWEST_ROWS = 1000
_ROWS = 512  # whose products of columns stay in the processor's cache
_COLUMNS = 1024  # of the models that are computed together
# A kernel is a multiple of the centring matrix, up to rounding, where no more than this
# share of its squares remains without that multiple. Re-pairing does not change it.
_ROUNDING = 1e-13


class KernelSums(NamedTuple):
    """Sums over the kernels of N models, without their traces.

    Attributes
    ----------
    trace : ndarray
        (N,), of the kernels as they are; 0 where only the rest varies.
    squares : ndarray
        (N,), sum of the squared entries of the kernels as they are.
    second, third : ndarray
        (N, 2) and (N, 5), the sums ``permutation_moments.SECOND`` and ``THIRD`` over
        the kernels without their traces.

    Examples
    --------
    >>> model = Representation(torch.tensor([[0.0], [0.0], [0.0], [1.0]]))
    >>> sums = sums_of([model])
    >>> sums.second.shape, sums.third.shape
    ((1, 2), (1, 5))
    """

    trace: Array
    squares: Array
    second: Array
    third: Array


def sums_of(
    models: Sequence[Representation], u_centred: bool = False
) -> KernelSums:
    """Return the sums over the linear kernels of models.

    Parameters
    ----------
    models : sequence of N Representation
        Centred features (n, d_i), rows shared.
    u_centred : bool
        Whether kernels are U-centred, as the unbiased criterion has them: with a zero
        diagonal, and rows that add up to zero. This wants n > 2.

    Returns
    -------
    KernelSums

    Examples
    --------
    >>> x = torch.tensor([[3.0], [-1.0], [-1.0], [-1.0]])
    >>> round(float(sums_of([Representation(x)]).trace[0]), 4)
    1.3333
    """
    widths = np.array([min(model.n, model.d) for model in models])
    order = np.argsort(widths, kind="stable")
    ordered = [models[i] for i in order]
    sums_of_block = _u_centred_sums if u_centred else _centred_sums
    parts = []
    for block in blocks_of(ordered, _COLUMNS):
        parts.append(sums_of_block(ordered[block]))
    back = np.argsort(order)
    joined = [torch.cat(columns)[back].cpu().numpy() for columns in zip(*parts)]
    return KernelSums(*joined)


def sums_of_kernels(centred: Sequence[kernels.Kernel]) -> KernelSums:
    """Return the sums over kernels that are no products of few features.

    Parameters
    ----------
    centred : sequence of N Kernel
        For the biased criterion or the unbiased one; one at a time is in memory.

    Returns
    -------
    KernelSums

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    >>> sums = sums_of_kernels(kernels.gaussian([Representation(x)], sigma=1.0))
    >>> bool(sums.trace[0] > 0)
    True
    """
    parts = []
    for kernel in centred:
        whole = _whole(kernel)
        n = len(whole)
        trace = whole.trace()
        squares = whole.square().sum()
        if not kernel.unbiased:
            # Without its trace: H is the centring matrix.
            alpha = trace / (n - 1)
            whole = whole + alpha / n
            whole.diagonal().sub_(alpha)
        diagonal = whole.diagonal()
        second = torch.stack([diagonal.square().sum(), whole.square().sum()])
        squared = whole @ whole
        third = torch.stack([
            diagonal.pow(3).sum(),
            diagonal @ squared.diagonal(),
            diagonal @ (whole @ diagonal),
            _sum_of_cubes(whole),
            (squared * whole).sum()])
        if second[1] <= _ROUNDING * squares:
            second, third = torch.zeros_like(second), torch.zeros_like(third)
        parts.append((trace, squares, second, third))
    joined = [torch.stack(columns).cpu().numpy() for columns in zip(*parts)]
    return KernelSums(*joined)


class _BlockProducts:
    """What both kinds of sums need of the kernels K = XX' of a block of models.

    Attributes
    ----------
    gram : Tensor
        (models, d, d), X'X.
    diagonal : Tensor
        (models, n), K_ii.
    squared_rows : Tensor
        (models, n), the sums of K_ij^2 over j.
    """

    def __init__(self, given: Sequence[Representation]):
        self.models = models = [narrow(model) for model in given]
        self.n = models[0].n
        self.kept: Tensor | None = None
        if all(model.kept is not None for model in models):
            self.kept = self.rows(slice(None))
        gram: Any = 0.0
        diagonals = []
        for part in pieces(self.n):
            x = self.rows(part)
            gram = gram + x.mT @ x
            diagonals.append(x.square().sum(2))
        self.gram: Tensor = gram
        self.diagonal = torch.cat(diagonals, 1)
        squared_rows = []
        for part in pieces(self.n):
            x = self.rows(part)
            squared_rows.append((x @ self.gram).mul_(x).sum(2))
        self.squared_rows = torch.cat(squared_rows, 1)
        self.trace = self.diagonal.sum(1)
        self.squares = self.gram.square().sum((1, 2))

    def rows(self, part: slice) -> Tensor:
        """Return a slice of rows of all models (models, rows, columns), in float64."""
        if self.kept is not None:
            return self.kept[:, part]
        return beside(self.models, part, 0).double()

    def coordinates(self, vectors: Tensor) -> Tensor:
        """Return X'v (models, d, 1) for one vector v per model; its square is v'Kv."""
        total = self.gram.new_zeros((len(self.models), self.gram.shape[1], 1))
        for part in pieces(self.n):
            x = self.rows(part)
            total += x.mT @ vectors[:, part, None]
        return total

    def times(self, coordinates: Tensor) -> Tensor:
        """Return K v (models, n), from the coordinates X'v."""
        products = []
        for part in pieces(self.n):
            x = self.rows(part)
            products.append((x @ coordinates)[:, :, 0])
        return torch.cat(products, 1)

    def cubes(self) -> Tensor:
        """Return the sums of K_ij^3 (models,), by the cheaper of two ways.

        Where both take long, off the diagonal every k-th row stands for all.
        """
        if self.gram.shape[1] ** 2 <= self.n:
            return self._cubes_by_columns()
        cubes = []
        for model, diagonal in zip(self.models, self.diagonal):
            cubes.append(self._cubes_by_strips(model, diagonal))
        return torch.stack(cubes)

    def _cubes_by_strips(self, model: Representation, diagonal: Tensor) -> Tensor:
        """Return the sum of K_ij^3 of one model, from strips of its kernel."""
        most_rows = int((_PRODUCTS / max(1, model.d)) ** 0.5)
        step = -(-self.n // max(_FEWEST_ROWS, most_rows))
        count = -(-self.n // step)  # of the rows that are taken
        total = self.gram.new_zeros(())
        height = max(1, min(_NUMBERS // count, -(-count // 8)))
        for part in pieces(count, height):
            right = model.rows(slice(part.start * step, None, step)).double()
            strip = right[:part.stop - part.start] @ right.T  # from the diagonal on
            square = strip[:, :len(strip)]
            # Entries right of the square on the diagonal stand below it, too.
            total += 2 * _sum_of_cubes(strip) - _sum_of_cubes(square)
        if step == 1:
            return total
        cubed = diagonal.pow(3)
        ratio = self.n * (self.n - 1) / (count * (count - 1))
        return ratio * (total - cubed[::step].sum()) + cubed.sum()

    def _cubes_by_columns(self) -> Tensor:
        """Return the sums of K_ij^3 from products of three columns of X.

        K_ij^3 is the inner product of the third powers of rows i and j as tensors, so
        the sum is the squared length of the sum T of these tensors. T is symmetric:
        only entries whose first index is the smallest are computed.
        """
        total = self.gram.new_zeros(len(self.models))
        width = self.gram.shape[1]
        tensors: list[Any] = [0.0] * width  # T_ijk for j, k >= i, by i
        for part in pieces(self.n, _ROWS):
            x = self.rows(part).mT.contiguous()
            for i in range(width):
                columns = x[:, i:]  # (models, columns, rows)
                tensors[i] = tensors[i] + (x[:, i, None] * columns) @ columns.mT
        for tensor in tensors:
            squares = tensor.square()
            # An entry with three, two or no equal indices stands at 1, 3 or 6 places of
            # T, and with j, k >= i at 1, 2 (or, with j = k, 1) or 2.
            total += 3 * (squares.sum((1, 2)) - squares[:, 0].sum(1)) + squares[:, 0, 0]
        return total


def _sum_of_cubes(values: Tensor) -> Tensor:
    """Sum of the third powers of all values."""
    return (values.square() * values).sum()


def _centred_sums(models: Sequence[Representation]) -> tuple[Tensor, ...]:
    """Sums over K - alpha H; H is the centring matrix, and alpha leaves no trace."""
    block = _BlockProducts(models)
    n = block.n
    alpha = block.trace / (n - 1)
    entry = (alpha / n)[:, None]  # of alpha H, off the diagonal, with a minus sign
    diagonal = block.diagonal - block.trace[:, None] / n
    # Of the squared kernel: H K = K.
    squared_rows = block.squared_rows - 2 * alpha[:, None] * block.diagonal
    squared_rows += (alpha**2 * (1 - 1 / n))[:, None]
    squares = block.squares - alpha * block.trace
    form = block.coordinates(diagonal).square().sum((1, 2))
    cubes = (block.cubes() + 3 * entry[:, 0] * block.squares + alpha**3 / n
             - (block.diagonal + entry).pow(3).sum(1) + diagonal.pow(3).sum(1))
    width = block.gram.shape[1]
    shifted = block.gram - alpha[:, None, None] * torch.eye(width).to(block.gram)
    # The eigenvalues of the kernel that the Gram matrix lacks are zero.
    triangles = ((shifted @ shifted) * shifted).sum((1, 2)) - (n - 1 - width) * alpha**3
    second = torch.stack([diagonal.square().sum(1), squares], 1)
    third = torch.stack([
        diagonal.pow(3).sum(1),
        (diagonal * squared_rows).sum(1),
        form - alpha * diagonal.square().sum(1),
        cubes,
        triangles], 1)
    is_fixed = squares <= _ROUNDING * block.squares
    second[is_fixed] = 0
    third[is_fixed] = 0
    return block.trace, block.squares, second, third


def _u_centred_sums(models: Sequence[Representation]) -> tuple[Tensor, ...]:
    """Sums over R - D: R_ij = K_ij + p_i + p_j, and D its diagonal.

    With p_i = K_ii / (n - 2) - tr K / (2 (n - 1)(n - 2)) all rows of R - D add up to
    zero. Where one row is far longer than the others, little is left of its squares,
    and the kernel itself is summed.
    """
    block = _BlockProducts(models)
    n = block.n
    shift = block.diagonal / (n - 2)
    shift = shift - (block.trace / (2 * (n - 1) * (n - 2)))[:, None]  # p
    diagonal = block.diagonal + 2 * shift  # D
    one = shift.sum(1)
    two = shift.square().sum(1)
    three = shift.pow(3).sum(1)
    coordinates = block.coordinates(shift)
    form = coordinates.square().sum((1, 2))  # p'Kp
    product = block.times(coordinates)  # K p
    squared_rows = (block.squared_rows + n * shift.square() + two[:, None]
                    + 2 * shift * one[:, None] + 2 * product)  # of R
    squares = (block.squares + 2 * n * two + 2 * one**2
               - diagonal.square().sum(1))
    cubes = (block.cubes() + 6 * (shift * block.squared_rows).sum(1) + 6 * form
             + 2 * n * three + 6 * two * one - diagonal.pow(3).sum(1))
    triangles = ((block.gram @ block.gram) * block.gram).sum((1, 2))
    triangles = triangles + 3 * n * form + 2 * one**3 + 6 * n * one * two  # of R
    triangles = (triangles - 3 * (diagonal * squared_rows).sum(1)
                 + 2 * diagonal.pow(3).sum(1))
    for i in (squares * CANCELLATION < block.squares).nonzero()[:, 0].tolist():
        squares[i], cubes[i], triangles[i] = _sums_of_u_centred_kernel(models[i])
    zero = torch.zeros_like(squares)
    second = torch.stack([zero, squares], 1)
    third = torch.stack([zero, zero, zero, cubes, triangles], 1)
    return zero, squares, second, third


def _sums_of_u_centred_kernel(model: Representation) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the squares, of the cubes and over triangles of a kernel (n, n)."""
    if not model.d:
        zero = torch.zeros((), dtype=torch.float64)
        return zero, zero, zero
    (kernel,) = kernels.linear([model])
    whole = _whole(kernel)
    return whole.square().sum(), _sum_of_cubes(whole), ((whole @ whole) * whole).sum()


def _whole(kernel: kernels.Kernel) -> Tensor:
    """Return all of a kernel (n, n), in float64."""
    n = kernel.model.n
    first_row = kernel.model.rows(slice(0, 1))  # for its device
    whole = first_row.new_zeros((n, n), dtype=torch.float64)
    for part in pieces(n):
        rows = kernel.rows(part).double()  # from the diagonal on
        whole[part, part.start:] = rows
        whole[part.start:, part] = rows.T
    return whole
