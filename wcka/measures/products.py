"""Inner products of many representations at once: what every measure is made of.

With centred features X (n, d) and kernel K = XX', the criterion of CKA has two forms,
<K, L> = ||X'Y||_F^2. For all pairs of N models the first costs about N^2 n^2 + N n^2 d operations,
the second N^2 n d^2: the cheaper one is taken, from the shapes alone. Both read the samples in
pieces, so that beyond the features themselves memory does not grow with n.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Pairs = tuple[np.ndarray, np.ndarray] | None  # positions of the models to compare; None: all

KEPT = 2**29  # bytes of converted features, or of kernels, that are kept and not made anew
_SAMPLES = 4096  # samples in one piece
_LEFT = 128  # columns of features in one block of models ...
_RIGHT = 1024  # ... and of the models it is multiplied with: products at full speed, within 8 MB
_STRIP = 2**24  # numbers in one strip of rows of all models' kernels
_SINGLE = 1024  # terms that are added up in float32 before float64 takes their sum

_one_thread = Lock()  # the number of PyTorch's threads belongs to the whole process


class Representation:
    """Features of one model, read in pieces of rows: no dead columns, of size 1 at most, centred.

    Parameters
    ----------
    values : Tensor
        (n, d), real numbers.
    label : str
        What error messages call them.
    centred : bool
        Take the mean of each column away.
    dtype : torch.dtype
        Of what ``rows`` gives.
    scale : float, optional
        Size to divide by: the largest number, unless given.

    Raises
    ------
    ValueError
        For NaN, infinity, or numbers beyond 1e150.
    """

    def __init__(self, values: Tensor, label: str = "x", centred: bool = True,
                 dtype: torch.dtype = torch.float64, scale: float | None = None):
        self.values, self.dtype, wide = values, dtype, _accumulated(values)
        mean = values.new_zeros(values.shape[1], dtype=wide)
        for part in pieces(len(values)) if centred else ():  # whole, it would be copied into `wide`
            mean += values[part].sum(0, dtype=wide) / len(values)
        ends = torch.stack([values.amin(0).to(wide), values.amax(0).to(wide), mean])
        low, high, mean = ends.cpu().numpy()  # small vectors: NumPy's overhead is the least
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(f"{label} holds NaN or infinity")
        largest = np.maximum(np.abs(low), np.abs(high))
        if largest.max() > 1e150:
            raise ValueError(f"{label}: values beyond 1e150 overflow when squared; divide them "
                             f"first")
        size = np.maximum(high - mean, mean - low)
        # The mean of equal numbers is not always that number, and what varies in the last bits
        # only is rounding: such a column counts as constant, a dead unit. It adds nothing, and many
        # networks have a third of them.
        live = size > tolerance(values) * largest
        self.sizes = torch.from_numpy(size[live]).to(values.device)
        self.columns = None if live.all() else torch.from_numpy(live.nonzero()[0]).to(values.device)
        self.mean = ends[2] if self.columns is None else ends[2, self.columns]
        self.scale: Any = scale or float(size.max()) or 1.0  # no square overflows
        self.n, self.d = len(values), len(self.mean)
        self.kept: Tensor | None = None

    def rows(self, part: slice = slice(None)) -> Tensor:
        """Some rows, (rows, d)."""
        if self.kept is not None:
            return self.kept[part]
        values = self.values[part]
        if self.columns is not None:
            values = values.index_select(1, self.columns)
        if values.dtype == self.dtype:
            near = self.mean.to(self.dtype)
            result = values.sub(near)
            if near.dtype != self.mean.dtype:  # what single precision leaves of the mean
                result.sub_((self.mean - near).to(self.dtype))
        else:  # in place and in one type: twice as fast as a difference of two types
            result = values.to(self.mean.dtype, copy=True).sub_(self.mean)
        return result.div_(self.scale).to(self.dtype)

    def keep(self) -> None:
        """Hold all rows, converted."""
        self.kept = self.rows()

    def take(self, columns: Tensor) -> None:
        """Leave out all other columns, and put these in this order."""
        self.columns = columns if self.columns is None else self.columns[columns]
        self.mean, self.sizes, self.d = self.mean[columns], self.sizes[columns], len(columns)
        if self.kept is not None:
            self.kept = self.kept.index_select(1, columns)


class Given(Representation):
    """Features that are used as they are."""

    def __init__(self, values: Tensor):
        self.values = self.kept = values
        self.dtype, (self.n, self.d) = values.dtype, values.shape

    def take(self, columns: Tensor) -> None:
        """As there."""
        Given.__init__(self, self.values.index_select(1, columns))


def represented(features: dict[str, Tensor], centred: bool = True,
                dtype: torch.dtype = torch.float64,
                scales: Sequence[float | None] | None = None) -> list[Representation]:
    """Read features of models by their labels; converted once where that fits easily."""
    # Single precision stays as it is on CUDA, where double costs up to 64 times as much.
    result = [
        Representation(f, label, centred, min(dtype, _accumulated(f), key=lambda t: t.itemsize), s)
        for (label, f), s in zip(features.items(), scales or [None] * len(features))]
    if sum(r.n * r.d for r in result) * dtype.itemsize <= KEPT:
        for r in result:
            r.keep()
    return result


def _accumulated(values: Tensor) -> torch.dtype:
    return torch.float32 if values.is_cuda and values.dtype == torch.float32 else torch.float64


def tolerance(x: Tensor) -> float:
    """Relative size of what is rounding: of numbers in half precision, in what came before it."""
    return 16 * torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps


# ------------------------------------------------------------------------------- the alignments


def squared_norms(models: Sequence[Representation],
                  pairs: Pairs = None) -> tuple[np.ndarray, np.ndarray]:
    """||X'Y||_F^2 of all pairs (N, N), or of those listed (P,); and of each with itself (N,)."""
    if cheaper_by_kernels(np.array([m.d for m in models], dtype=float), models[0].n, pairs):
        result = _linear_kernel_products(models)
        return (result if pairs is None else result[pairs]), np.diag(result).copy()

    def align(left, right, _):
        return products(left, right).square_().sum((1, 3))

    return _aligned(models, align, pairs)


def cheaper_by_kernels(d: np.ndarray, n: int, pairs: Pairs) -> bool:
    """Whether kernels (n, n) of all models take fewer operations than products of features."""
    by_features = d.sum()**2 if pairs is None else 2 * (d[pairs[0]] @ d[pairs[1]] + d @ d)
    return bool(by_features * n > n**2 * (d.sum() + len(d)**2))


def nuclear_norms(models: Sequence[Representation],
                  pairs: Pairs = None) -> tuple[np.ndarray, np.ndarray]:
    """||X'Y||_* as ``squared_norms``; of each with itself it is ||X||_F^2."""
    models = [narrow(m) for m in models]

    def align(left, right, wanted):
        result = torch.zeros(wanted.shape, dtype=torch.float64)
        matrices = products(left, right).transpose(1, 2)[torch.from_numpy(wanted)]
        if len(matrices):
            parts = matrices.chunk(1 if matrices.is_cuda else -(-len(matrices) // 16))
            norms = in_threads(lambda some: torch.linalg.svdvals(some).sum(-1), parts)
            result[torch.from_numpy(wanted)] = torch.cat(norms).double().cpu()
        return result

    values, _ = _aligned(models, align, pairs, itself=False)
    selves = np.array([sum(float(torch.linalg.vector_norm(m.rows(part), dtype=torch.float64))**2
                           for part in pieces(m.n)) for m in models])
    if pairs is None:
        np.fill_diagonal(values, selves)
    return values, selves


def in_threads(function: Callable, tasks: Iterable) -> list:
    """Decompose many small matrices, each on one thread: LAPACK's own are of no use there."""
    if len(tasks := list(tasks)) < 2:
        return [function(task) for task in tasks]
    with _one_thread:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(function, tasks))
        finally:
            torch.set_num_threads(threads)


def narrow(model: Representation) -> Representation:
    """No more columns than rows: a rotation of the columns, which no alignment here notices."""
    return model if model.d <= model.n else Given(torch.linalg.qr(model.rows().T).R.T)


# ------------------------------------------------------------------------------- by features


def pieces(n: int, size: int | None = None) -> list[slice]:
    """Slices of at most `size` that cover n samples."""
    size = size or _SAMPLES
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def products(left: Sequence[Representation], right: Sequence[Representation]) -> Tensor:
    """All X'Y of two blocks of models: (models, columns, models, columns), added up in float64.

    Each block is as wide as its widest model; the rest is zero.
    """
    single = left[0].dtype == torch.float32 and not left[0].values.is_cuda
    total: Any = None  # a Tensor from the first piece on
    for part in pieces(left[0].n, _SINGLE if single else _SAMPLES):
        x, y = beside(left, part), beside(right, part)
        product = x.flatten(1).T @ y.flatten(1)
        product = product.double() if single else product
        total = product if total is None else total.add_(product)
    return total.unflatten(1, y.shape[1:]).unflatten(0, x.shape[1:])


def beside(models: Sequence[Representation], part: slice, dim: int = 1) -> Tensor:
    """Rows of several models stacked, (rows, models, columns), as wide as the widest; models may
    be another `dim`."""
    width = max(m.d for m in models)
    rows = [m.rows(part) for m in models]
    rows = [r if r.shape[1] == width else nn.functional.pad(r, (0, width - r.shape[1]))
            for r in rows]
    return torch.stack(rows, dim) if len(rows) > 1 else rows[0].unsqueeze(dim)


def _aligned(models: Sequence[Representation], align: Callable, pairs: Pairs,
             itself: bool = True) -> tuple:
    """Apply `align` to blocks of models: (left, right, which pairs are wanted) to their values."""
    # Models of like width side by side: a block is as wide as its widest.
    order = np.argsort([m.d for m in models], kind="stable")
    models, back = [models[i] for i in order], np.argsort(order)
    if pairs is not None:
        values, selves = _listed(models, align, back[pairs[0]], back[pairs[1]], itself)
        return values, selves if selves is None else selves[back]
    count = len(models)
    result = np.zeros((count, count))
    # Where nothing is kept, what is on the right is converted anew for each block on the left.
    for rows in _blocks(models, _LEFT if models[0].kept is not None else _RIGHT):
        for columns in _blocks(models, _RIGHT, rows.start + (not itself)):
            wanted = np.arange(count)[rows, None] + (not itself) <= np.arange(count)[columns]
            values = align(models[rows], models[columns], wanted).cpu().numpy()
            result[rows, columns] = np.where(wanted, values, result[rows, columns])
    result = np.triu(result) + np.triu(result, 1).T
    return result[np.ix_(back, back)], np.diag(result)[back].copy()


def _listed(models: Sequence[Representation], align: Callable, a, b, itself: bool) -> tuple:
    """Align each model with all its partners at once; and each with itself."""
    one = np.ones((1, 1), dtype=bool)
    selves = np.array([float(align([m], [m], one)) for m in models]) if itself else None
    result, order = np.empty(len(a)), np.argsort(a, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(a[order])) + 1):
        left, right = [models[a[rows[0]]]], [models[i] for i in b[rows]]
        for some in _blocks(right, _RIGHT):
            wanted = np.ones((1, len(right[some])), dtype=bool)
            result[rows[some]] = align(left, right[some], wanted)[0].cpu().numpy()
    return result, selves


def _blocks(models: Sequence[Representation], columns: int, start: int = 0) -> list[slice]:
    """Slices of at least one model that have at most so many columns when padded."""
    if start >= len(models):
        return []
    edges, width = [start], 0
    for i in range(start, len(models)):
        width = max(width, models[i].d)
        if i > edges[-1] and width * (i + 1 - edges[-1]) > columns:
            edges.append(i)
            width = models[i].d
    return [slice(*edge) for edge in zip(edges, [*edges[1:], len(models)])]


# ------------------------------------------------------------------------------- by kernels


def _linear_kernel_products(models: Sequence[Representation]) -> np.ndarray:
    """<K, L> of all pairs of linear kernels (N, N); those of some models by one batched product."""
    order = np.argsort([m.d for m in models], kind="stable")
    models, back = [models[i] for i in order], np.argsort(order)
    blocks = _blocks(models, _RIGHT)
    kept = [beside(models[b], slice(None), 0) for b in blocks if models[0].kept is not None]

    def fill(part: slice, out: Tensor) -> None:
        for i, block in enumerate(blocks):
            x = (kept[i][:, part.start:] if kept
                 else beside(models[block], slice(part.start, None), 0))
            torch.bmm(x[:, :part.stop - part.start], x.mT, out=out[block])

    return strip_products(fill, len(models), models[0])[np.ix_(back, back)]


def strip_products(fill: Callable[[slice, Tensor], None], count: int,
                   like: Representation) -> np.ndarray:
    """<K, L> of all pairs of symmetric kernels (N, N), each computed once, in strips of rows.

    Parameters
    ----------
    fill : function
        (part, out) writes into `out`, (N, rows, columns), those rows of all kernels, without what
        lies left of the first one's diagonal.
    count : int
        Number N of kernels.
    like : Representation
        One of them, for its number of samples, type and device.
    """
    n, total = like.n, like.values.new_zeros(())
    height = max(1, min(_STRIP // (n * count), -(-n // 8)))
    space = torch.empty(count * height * n, dtype=like.dtype, device=like.values.device)
    for part in pieces(n, height):
        shape = count, part.stop - part.start, n - part.start
        strip = space[:np.prod(shape)].view(shape)
        fill(part, strip)
        strip[:, :, shape[1]:] *= 2**0.5  # what lies below the diagonal, too
        numbers = strip.flatten(1)
        if like.dtype == torch.float32 and not like.values.is_cuda:
            most = numbers.shape[1] // _SINGLE * _SINGLE
            short = numbers[:, :most].unflatten(1, (-1, _SINGLE)).transpose(0, 1)
            total = torch.bmm(short, short.mT).double().sum(0) + total
            numbers = numbers[:, most:]
        total = (numbers @ numbers.T).double() + total
    return ((total + total.T) / 2).cpu().numpy()  # the same on both sides, to the last bit
