"""Inner products of many representations at once, from which every measure is computed.

With centred features X (n, d) and kernel K = XX', the criterion of CKA has two forms,
<K, L> = ||X'Y||_F^2. For all pairs of N models the first costs about N^2 n^2 + N n^2 d
operations, the second N^2 n d^2: the shapes alone decide which is cheaper. Both forms
read the samples in pieces, so that beyond the features themselves memory does not grow
with n.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .validation import Array

# Positions of the models to compare, (P,) each; None stands for all pairs.
Positions = NDArray[np.integer]
Pairs = tuple[Positions, Positions] | None

# Bytes of converted features, or of kernels, that are kept instead of computed again.
KEPT = 2**29
_PIECE_ROWS = 4096  # samples in one piece
# Columns of a block of models and of the block that it is multiplied with: these sizes
# reach full speed and keep the products within 8 MB.
_LEFT_COLUMNS = 256
_RIGHT_COLUMNS = 1024
_STRIP_NUMBERS = 2**24  # numbers in one strip of rows of all models' kernels
_FLOAT32_TERMS = 1024  # terms that are summed in float32 before float64 takes over

# Where more than this factor of the products cancels in the unbiased criterion of a
# model with itself, four of 16 digits are lost, and kernels without diagonals are used.
CANCELLATION = 1e4

_LARGEST = 1e150  # larger numbers overflow when they are squared
# The mean of numbers below about 1e-308 loses digits. Features without any number above
# the first of these two are multiplied by the second, a power of two, which is exact.
_SMALLEST = 1e-270
_LIFT = 2.0**900

_one_thread = Lock()  # the number of PyTorch's threads belongs to the whole process

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


# ------------------------------------------------------------------- representations


class Representation:
    """Features of one model: centred, scaled to at most 1, without constant columns.

    The features are read in pieces of rows: a memory-mapped array stays on disk.

    Parameters
    ----------
    values : Tensor
        (n, d), real numbers.
    label : str
        Name of the features in error messages.
    centred : bool
        Whether to subtract the mean of each column.
    dtype : torch.dtype
        Type of the numbers that ``rows`` returns.
    scale : float, optional
        Divisor of all numbers; by default the largest absolute value after centring.

    Raises
    ------
    ValueError
        For NaN, infinity, or numbers beyond 1e150.

    Examples
    --------
    >>> constant_second_column = torch.tensor([[0.0, 5.0], [4.0, 5.0]])
    >>> Representation(constant_second_column).rows().tolist()
    [[-1.0], [1.0]]
    """

    def __init__(self, values: Tensor, label: str = "x", centred: bool = True,
                 dtype: torch.dtype = torch.float64, scale: float | None = None):
        self.values = values
        self.dtype = dtype
        wide = _accumulated(values)
        mean = values.new_zeros(values.shape[1], dtype=wide)
        if centred:  # in pieces: a sum of all rows at once would copy them into `wide`
            for part in pieces(len(values)):
                mean += values[part].sum(0, dtype=wide) / len(values)
        ends = torch.stack([values.amin(0).to(wide), values.amax(0).to(wide), mean])
        # These vectors are small, and NumPy has the smallest overhead.
        low, high, mean = ends.cpu().numpy()
        largest = _checked_size(low, high, label)  # (columns,)
        if scale is None and 0 < largest.max() < _SMALLEST and wide == torch.float64:
            lifted = values.double() * _LIFT
            Representation.__init__(self, lifted, label, centred, dtype)
            self.lift = _LIFT
            return
        size = np.maximum(high - mean, mean - low)  # (columns,)
        # The mean of equal numbers is not always that number, and variation in the last
        # bits is rounding: such a column counts as constant, a dead unit. It adds
        # nothing to any product, and a third of the units of many networks are dead.
        live = size > tolerance(values) * largest
        self.sizes = torch.from_numpy(size[live]).to(values.device)
        self.mean = ends[2]
        self.columns = None
        if not live.all():
            self.columns = torch.from_numpy(live.nonzero()[0]).to(values.device)
            self.mean = ends[2, self.columns]
        # No square of a number divided by the scale overflows.
        self.scale: Any = scale or float(size.max()) or 1.0
        self.lift = 1.0  # what the given values were multiplied by
        self.n = len(values)
        self.d = len(self.mean)
        self.kept: Tensor | None = None

    def rows(self, part: slice = slice(None)) -> Tensor:
        """Return a slice of rows, by default all of them.

        Returns
        -------
        Tensor
            (rows, d)

        Examples
        --------
        >>> Representation(torch.tensor([[0.0], [1.0], [2.0]])).rows(slice(2)).tolist()
        [[-1.0], [0.0]]
        """
        if self.kept is not None:
            return self.kept[part]
        values = self.values[part]  # (rows, all columns)
        if self.columns is not None:
            values = values.index_select(1, self.columns)  # (rows, d)
        if values.dtype == self.dtype:
            rounded_mean = self.mean.to(self.dtype)
            result = values.sub(rounded_mean)
            if rounded_mean.dtype != self.mean.dtype:
                # Subtract the part of the mean that single precision cannot hold.
                result.sub_((self.mean - rounded_mean).to(self.dtype))
        else:  # in place and in one type: twice as fast as a difference of two types
            result = values.to(self.mean.dtype, copy=True).sub_(self.mean)
        return result.div_(self.scale).to(self.dtype)

    def keep(self) -> None:
        """Hold all rows in memory after their conversion."""
        self.kept = self.rows()

    def move_to_median(self) -> None:
        """Subtract the median of each column instead of its mean.

        A few rows far from all others do not move the median. Only kernels whose values
        do not depend on the origin may be computed from these features.

        Examples
        --------
        >>> model = Representation(torch.tensor([[0.0], [1.0], [2.0], [9.0], [8.0]]))
        >>> model.move_to_median()
        >>> model.rows().flatten().tolist()
        [-0.4, -0.2, 0.0, 1.4, 1.2]
        """
        values = self.values
        if self.columns is not None:
            values = values.index_select(1, self.columns)  # (n, d)
        self.mean = values.to(self.mean.dtype).median(0).values
        if self.kept is not None:
            self.kept = None
            self.keep()

    def take(self, columns: Tensor) -> None:
        """Keep only these columns, in this order.

        Parameters
        ----------
        columns : Tensor
            Positions among the d columns that are not constant.
        """
        self.columns = columns if self.columns is None else self.columns[columns]
        self.mean = self.mean[columns]
        self.sizes = self.sizes[columns]
        self.d = len(columns)
        if self.kept is not None:
            self.kept = self.kept.index_select(1, columns)


class Given(Representation):
    """Features that are used unchanged, without centring or scaling.

    Examples
    --------
    >>> Given(torch.tensor([[0.0, 5.0], [4.0, 5.0]])).rows().tolist()
    [[0.0, 5.0], [4.0, 5.0]]
    """

    def __init__(self, values: Tensor):
        self.values = values
        self.kept = values
        self.dtype = values.dtype
        self.n, self.d = values.shape

    def take(self, columns: Tensor) -> None:
        """Keep only these columns, in this order. See ``Representation.take``."""
        Given.__init__(self, self.values.index_select(1, columns))


def represented(features: dict[str, Tensor], centred: bool = True,
                dtype: torch.dtype = torch.float64,
                scales: Sequence[float | None] | None = None) -> list[Representation]:
    """Read the features of all models; convert them once where that fits into memory.

    Parameters
    ----------
    features : dict of str to Tensor
        (n, d_i) by the labels that error messages use.
    centred, dtype : bool, torch.dtype
        See ``Representation``.
    scales : sequence of float, optional
        One divisor per model.

    Returns
    -------
    list of Representation

    Examples
    --------
    >>> models = represented({"x": torch.eye(3), "constant": torch.ones(3, 2)})
    >>> [model.d for model in models]
    [3, 0]
    """
    models = []
    scales = scales or [None] * len(features)
    for (label, values), scale in zip(features.items(), scales):
        # CUDA keeps single precision, since double costs up to 64 times as much there.
        lower = min(dtype, _accumulated(values), key=lambda number: number.itemsize)
        models.append(Representation(values, label, centred, lower, scale))
    if sum(model.n * model.d for model in models) * dtype.itemsize <= KEPT:
        for model in models:
            model.keep()
    return models


def narrow(model: Representation) -> Representation:
    """Return features with at most as many columns as rows.

    The columns are rotated, which changes no product of interest here.

    Examples
    --------
    >>> narrow(Given(torch.ones(2, 5))).d
    2
    """
    if model.d <= model.n:
        return model
    return Given(torch.linalg.qr(model.rows().T).R.T)  # (n, n)


def tolerance(x: Tensor) -> float:
    """Return the relative size below which a difference of numbers is rounding.

    Numbers in half precision were computed in single precision before, whose rounding
    counts.

    Examples
    --------
    >>> tolerance(torch.ones(3)) == tolerance(torch.ones(3).half()) == 2.0**-19
    True
    """
    return 16 * torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps


def _accumulated(values: Tensor) -> torch.dtype:
    """Type in which sums of these values are accumulated."""
    if values.is_cuda and values.dtype == torch.float32:
        return torch.float32
    return torch.float64


def _checked_size(low: np.ndarray, high: np.ndarray, label: str) -> np.ndarray:
    """Largest absolute value of each column; refuse what no measure can use."""
    largest: np.ndarray = np.maximum(np.abs(low), np.abs(high))
    if not np.isfinite(largest).all():
        raise ValueError(f"{label} holds NaN or infinity")
    if largest.max() > _LARGEST:
        raise ValueError(f"{label}: values beyond 1e150 overflow when squared; divide "
                         f"them first")
    return largest


# ------------------------------------------------------------------- the alignments

# A function of two blocks of models, and of a mask (left models, right models) that
# tells which pairs are of use; it returns one value per pair.
_Models = Sequence[Representation]
_Mask = NDArray[np.bool_]
_Align = Callable[[_Models, _Models, _Mask], Tensor]


def squared_norms(models: Sequence[Representation],
                  pairs: Pairs = None) -> tuple[Array, Array]:
    """Return ||X'Y||_F^2 of pairs of models, and of each model with itself.

    Parameters
    ----------
    models : sequence of N Representation
        Features (n, d_i), rows shared.
    pairs : pair of int arrays (P,), optional
        Positions of the models to compare; all pairs by default.

    Returns
    -------
    cross : ndarray
        (N, N), or (P,) for listed `pairs`.
    self_products : ndarray
        (N,)

    Examples
    --------
    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> cross, self_products = squared_norms([Given(x), Given(2 * x)])
    >>> cross.tolist(), self_products.tolist()
    ([[4.0, 16.0], [16.0, 64.0]], [4.0, 64.0])
    """
    if cheaper_by_kernels(_widths(models).astype(float), models[0].n, pairs):
        result = _linear_kernel_products(models)
        return (result if pairs is None else result[pairs]), np.diag(result).copy()

    def align(left: _Models, right: _Models, _: _Mask) -> Tensor:
        squares = products(left, right).square_()  # (left, columns, right, columns)
        # One axis after the other: three times as fast where models are narrow.
        return squares.sum(1).sum(2)  # (left, right)

    return _aligned(models, align, pairs)


def cheaper_by_kernels(d: Array, n: int, pairs: Pairs) -> bool:
    """Tell whether kernels take fewer operations than products of features.

    Parameters
    ----------
    d : ndarray of float (N,)
        Numbers of columns of the models.
    n : int
        Number of samples.
    pairs : pair of int arrays (P,) or None
        Positions of the models to compare; None for all pairs.

    Examples
    --------
    >>> wide, narrow = np.full(10, 1000.0), np.full(10, 10.0)
    >>> cheaper_by_kernels(wide, 100, None), cheaper_by_kernels(narrow, 100, None)
    (True, False)
    """
    if pairs is None:
        by_features = d.sum()**2
    else:
        by_features = 2 * (d[pairs[0]] @ d[pairs[1]] + d @ d)
    return bool(by_features * n > n**2 * (d.sum() + len(d)**2))


def nuclear_norms(models: Sequence[Representation],
                  pairs: Pairs = None) -> tuple[Array, Array]:
    """Return ||X'Y||_* of pairs of models, and ||X||_F^2, that of a model with itself.

    Parameters and results have the shapes of ``squared_norms``.

    Examples
    --------
    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> cross, self_products = nuclear_norms([Given(x), Given(2 * x)])
    >>> cross.round(6).tolist(), self_products.round(6).tolist()
    ([[2.0, 4.0], [4.0, 8.0]], [2.0, 8.0])
    """
    models = [narrow(model) for model in models]

    def sum_of_singular_values(matrices: Tensor) -> Tensor:
        singular_values: Tensor = torch.linalg.svdvals(matrices)
        return singular_values.sum(-1)

    def align(left: _Models, right: _Models, mask: _Mask) -> Tensor:
        result = torch.zeros(mask.shape, dtype=torch.float64, device="cpu")
        matrices = products(left, right)  # (left, columns, right, columns)
        matrices = matrices.transpose(1, 2)[torch.from_numpy(mask)]
        # matrices: (pairs, columns, columns)
        if len(matrices):
            chunks = matrices.chunk(1 if matrices.is_cuda else -(-len(matrices) // 16))
            norms = in_threads(sum_of_singular_values, chunks)
            result[torch.from_numpy(mask)] = torch.cat(norms).double().cpu()
        return result

    # A model with itself needs no singular values.
    values, _ = _aligned(models, align, pairs, diagonal=False)
    self_products = np.array([_squared_norm(model) for model in models])
    if pairs is None:
        np.fill_diagonal(values, self_products)
    return values, self_products


def in_threads(
    function: Callable[[_Task], _Result], tasks: Iterable[_Task],
) -> list[_Result]:
    """Apply a function to many small matrices, with one thread for each at a time.

    LAPACK's own threads slow the decomposition of a small matrix down.

    Parameters
    ----------
    function : callable
        A function of one task.
    tasks : iterable
        Arguments of the calls.

    Returns
    -------
    list
        One result per task, in their order.

    Examples
    --------
    >>> in_threads(torch.linalg.vector_norm, [torch.ones(4), torch.zeros(2)])
    [tensor(2.), tensor(0.)]
    """
    tasks = list(tasks)
    if len(tasks) < 2:
        return [function(task) for task in tasks]
    with _one_thread:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(function, tasks))
        finally:
            torch.set_num_threads(threads)


def _squared_norm(model: Representation) -> float:
    """||X||_F^2, summed over pieces of rows."""
    total = 0.0
    for part in pieces(model.n):
        norm = torch.linalg.vector_norm(model.rows(part), dtype=torch.float64)
        total += float(norm)**2
    return total


def _widths(models: Sequence[Representation]) -> NDArray[np.integer]:
    """Numbers of columns of the models (N,)."""
    return np.array([model.d for model in models])


# ------------------------------------------------------------------- by features


def pieces(n: int, size: int | None = None) -> list[slice]:
    """Return slices of at most `size` samples that cover n samples.

    Examples
    --------
    >>> pieces(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    size = size or _PIECE_ROWS
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def products(left: Sequence[Representation], right: Sequence[Representation]) -> Tensor:
    """Return all X'Y of two blocks of models, accumulated in float64.

    Parameters
    ----------
    left, right : sequence of Representation
        Features (n, d_i), rows shared.

    Returns
    -------
    Tensor
        (left models, columns, right models, columns); each block is as wide as its
        widest model, and the columns that a model lacks are zero.

    Examples
    --------
    >>> x, y = Given(torch.ones(4, 2)), Given(torch.ones(4, 1))
    >>> products([x], [x, y]).tolist()
    [[[[4.0, 4.0], [4.0, 0.0]], [[4.0, 4.0], [4.0, 0.0]]]]
    """
    single = left[0].dtype == torch.float32 and not left[0].values.is_cuda
    total: Any = None  # a Tensor from the first piece on
    for part in pieces(left[0].n, _FLOAT32_TERMS if single else _PIECE_ROWS):
        x = beside(left, part)  # (rows, left models, columns)
        y = beside(right, part)  # (rows, right models, columns)
        product = x.flatten(1).T @ y.flatten(1)  # (left columns, right columns)
        if single:
            product = product.double()
        total = product if total is None else total.add_(product)
    # (left models, columns, right models, columns)
    return torch.unflatten(torch.unflatten(total, 1, y.shape[1:]), 0, x.shape[1:])


def beside(models: Sequence[Representation], part: slice, dim: int = 1) -> Tensor:
    """Stack a slice of rows of several models, padded to the widest model.

    Parameters
    ----------
    models : sequence of Representation
        Features (n, d_i), rows shared.
    part : slice
        The rows.
    dim : int
        Position of the axis of models in the result.

    Returns
    -------
    Tensor
        (rows, models, columns) for the default `dim`.

    Examples
    --------
    >>> x, y = Given(torch.ones(4, 2)), Given(torch.ones(4, 1))
    >>> beside([x, y], slice(3)).shape
    torch.Size([3, 2, 2])
    """
    width = max(model.d for model in models)
    padded = []
    for model in models:
        rows = model.rows(part)  # (rows, d)
        if rows.shape[1] < width:
            rows = nn.functional.pad(rows, (0, width - rows.shape[1]))
        padded.append(rows)
    return torch.stack(padded, dim) if len(padded) > 1 else padded[0].unsqueeze(dim)


def _aligned(models: Sequence[Representation], align: _Align, pairs: Pairs,
             diagonal: bool = True) -> tuple[Array, Array]:
    """Values of `align` for pairs of models, and for each model with itself.

    ``align(left, right, mask)`` returns one value per pair of two blocks of models;
    only values where the mask is true are used. Without `diagonal`, no model is aligned
    with itself: zeros stand for these values.
    """
    # A block is as wide as its widest model: models of similar widths go side by side.
    order = np.argsort(_widths(models), kind="stable")
    models = [models[i] for i in order]
    back = np.argsort(order)
    if pairs is not None:
        a, b = back[pairs[0]], back[pairs[1]]
        values, self_products = _listed(models, align, a, b, diagonal)
        return values, self_products[back]
    count = len(models)
    positions = np.arange(count)
    offset = 0 if diagonal else 1
    result = np.zeros((count, count))
    # Unless the rows are kept, the models on the right are converted again for each
    # block on the left, which is then as large as those on the right. Products within a
    # block on the left are computed twice: it is at most an eighth of all.
    left_columns = _RIGHT_COLUMNS
    if models[0].kept is not None:
        left_columns = min(_LEFT_COLUMNS, _widths(models).sum() // 8)
    for rows in blocks_of(models, left_columns):
        for columns in blocks_of(models, _RIGHT_COLUMNS, rows.start + offset):
            # Only the upper triangle is computed.
            mask = positions[rows, None] + offset <= positions[columns]
            values = align(models[rows], models[columns], mask).cpu().numpy()
            result[rows, columns] = np.where(mask, values, result[rows, columns])
    result = np.triu(result) + np.triu(result, 1).T
    return result[np.ix_(back, back)], np.diag(result)[back].copy()


def _listed(models: Sequence[Representation], align: _Align, a: Positions,
            b: Positions, diagonal: bool) -> tuple[Array, Array]:
    """Values of listed pairs: each model is aligned with all its partners at once."""
    self_products = np.zeros(len(models))
    if diagonal:
        single_pair = np.ones((1, 1), dtype=bool)
        self_products = np.array(
            [float(align([model], [model], single_pair)) for model in models])
    result = np.empty(len(a))
    order = np.argsort(a, kind="stable")
    group_starts = np.flatnonzero(np.diff(a[order])) + 1
    for group in np.split(order, group_starts):  # the pairs with the same first model
        left = [models[a[group[0]]]]
        right = [models[i] for i in b[group]]
        for block in blocks_of(right, _RIGHT_COLUMNS):
            mask = np.ones((1, len(right[block])), dtype=bool)
            values = align(left, right[block], mask)  # (1, models of the block)
            result[group[block]] = values[0].cpu().numpy()
    return result, self_products


def blocks_of(models: Sequence[Representation], columns: int,
              start: int = 0) -> list[slice]:
    """Return slices of at least one model each, with at most so many columns.

    Parameters
    ----------
    models : sequence of Representation
        In the order of their widths: each is padded to the widest of its slice.
    columns : int
        Columns of all models of a slice together, after padding.
    start : int
        Position of the first model.

    Examples
    --------
    >>> blocks_of([Given(torch.ones(4, 2))] * 5, 4)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    if start >= len(models):
        return []
    edges = [start]
    width = 0
    for i in range(start, len(models)):
        width = max(width, models[i].d)
        if i > edges[-1] and width * (i + 1 - edges[-1]) > columns:
            edges.append(i)
            width = models[i].d
    edges.append(len(models))
    return [slice(first, last) for first, last in zip(edges, edges[1:])]


# ------------------------------------------------------------------- by kernels


def _linear_kernel_products(models: Sequence[Representation]) -> Array:
    """<K, L> of all pairs of linear kernels (N, N).

    The kernels of a block of models come from one batched product.
    """
    order = np.argsort(_widths(models), kind="stable")
    models = [models[i] for i in order]
    back = np.argsort(order)
    blocks = blocks_of(models, _RIGHT_COLUMNS)
    stacks = []
    if models[0].kept is not None:
        stacks = [beside(models[block], slice(None), 0) for block in blocks]

    def fill(part: slice, out: Tensor) -> None:
        height = part.stop - part.start
        for i, block in enumerate(blocks):
            if stacks:
                x = stacks[i][:, part.start:]
            else:
                x = beside(models[block], slice(part.start, None), 0)
            # x: (models, rows from the first of the part on, columns)
            torch.bmm(x[:, :height], x.mT, out=out[block])

    return strip_products(fill, len(models), models[0])[np.ix_(back, back)]


def strip_products(fill: Callable[[slice, Tensor], None], count: int,
                   like: Representation) -> Array:
    """Return <K, L> of all pairs of symmetric kernels, computed in strips of rows.

    Parameters
    ----------
    fill : function
        ``fill(part, out)`` writes these rows of all kernels into `out`, (N, rows,
        columns), from the column of the first row's diagonal entry on.
    count : int
        Number N of kernels.
    like : Representation
        Any of the models; it gives the number of samples, the type and the device.

    Returns
    -------
    ndarray
        (N, N)

    Examples
    --------
    >>> kernel = 3 * torch.eye(4)
    >>> def fill(part, out):
    ...     out[0] = kernel[part, part.start:]
    >>> strip_products(fill, 1, Given(torch.eye(4))).tolist()
    [[36.0]]
    """
    n = like.n
    total = like.values.new_zeros(())
    height = max(1, min(_STRIP_NUMBERS // (n * count), -(-n // 8)))
    space = torch.empty(count * height * n, dtype=like.dtype, device=like.values.device)
    for part in pieces(n, height):
        rows = part.stop - part.start
        shape = count, rows, n - part.start
        strip = space[:np.prod(shape)].view(shape)  # (N, rows, columns)
        fill(part, strip)
        # Entries right of the square on the diagonal also stand below it: they count
        # twice in the sum of products, so each factor is multiplied by the root of 2.
        strip[:, :, rows:] *= 2**0.5
        numbers = strip.flatten(1)  # (N, rows x columns)
        if like.dtype == torch.float32 and not like.values.is_cuda:
            # Sum short runs of products in float32 and the runs in float64.
            most = numbers.shape[1] // _FLOAT32_TERMS * _FLOAT32_TERMS
            runs = torch.unflatten(numbers[:, :most], 1, (-1, _FLOAT32_TERMS))
            runs = runs.transpose(0, 1)  # (runs, N, terms)
            total = torch.bmm(runs, runs.mT).double().sum(0) + total
            numbers = numbers[:, most:]
        total = (numbers @ numbers.T).double() + total  # (N, N)
    # Matrix products are not symmetric to the last bit; similarities are.
    return ((total + total.T) / 2).cpu().numpy()


def symmetric_root(matrices: Tensor) -> Tensor:
    """Return the symmetric square roots of positive semidefinite matrices (..., d, d).

    The symmetric root is unique, so equal matrices have equal roots on all machines.

    Examples
    --------
    >>> symmetric_root(torch.diag(torch.tensor([4.0, 0.0]))).tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """
    values, vectors = torch.linalg.eigh(matrices)
    roots = values.clamp(min=0).sqrt()  # (..., d)
    square_roots: Tensor = (vectors * roots[..., None, :]) @ vectors.mT
    return square_roots
