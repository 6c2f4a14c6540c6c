"""The measures: features whose rows are shared, then one alignment.

========== ============================================== ==========================
measure    features (rows x columns)                      alignment
========== ============================================== ==========================
CKA        activations (probes x units)                   ||Y'X||_F^2, Gram norms 1
dCKA       deconfounded activations (probes x units)      as CKA
wCKA       the chain W1 W2 ... Wl (inputs x outputs)      as CKA
Procrustes activations (probes x units)                   ||Y'X||_*, Frobenius norms 1
========== ============================================== ==========================

A pair is a population of two: ``cka(x, y)`` and ``pairwise("cka", [...])`` run the same code.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from .chain import chain
from .checks import nearest
from .symmetry import CHANGES

MEASURES = ("procrustes", "cka", "dcka", "wcka")  # in the order of the paper's figures
ACTIVATION_MEASURES = MEASURES[:3]
NO_PSD = "dcka, no PSD step"  # the variant that keeps negative eigenvalues
UNCENTRED = ("procrustes, uncentred", "cka, uncentred", "wcka, uncentred")

# Columns of stacked features in one block of models: wide enough for matrix products at full
# speed, narrow enough that a block of products stays within 8 MB.
_BLOCK_COLUMNS = 1024

# SciPy's threads and PyTorch's wait for each other busily; one eigenproblem of this size is
# solved about twice as fast by one thread.
_THREADS = ThreadpoolController()

# The transformations of a network (symmetry.TRANSFORMATIONS, and "probes": the same network seen
# through other samples) that each measure is declared invariant to. Tests assert both the
# invariances and the variances, and the book measures them, from this one table.
_OF_ACTIVATIONS = frozenset({"permutation", "rotation", "isotropic scale", "translation",
                             "output map", "silent weights"})
INVARIANCES: dict[str, frozenset[str]] = {
    "procrustes": _OF_ACTIVATIONS,
    "cka": _OF_ACTIVATIONS,
    "dcka": _OF_ACTIVATIONS,
    "wcka": frozenset({*CHANGES, "intertwiner", "probes"}),
}


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
    return _pair("cka", x, y)


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
    return _pair("procrustes", x, y)


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
    return _pair("dcka", x, y, inputs=inputs, psd=psd)


def wcka(a, b, **kw) -> float:
    """Weights CKA: the CKA of two networks' chains of weights (paper, equation 5).

    Parameters
    ----------
    a, b : nn.Module, sequence of (in, out) matrices, or chain (inputs, outputs)
        Two networks with the same input coordinates. Hidden widths, depths and numbers of outputs
        may differ. A matrix is (in, out): the transpose of ``nn.Linear.weight``.
    **kw
        Arguments of ``chain`` for networks: ``input_shape`` for those that are not a fully
        connected ``nn.Sequential``.

    Returns
    -------
    float
        In [0, 1]. The distance form is the angle arccos(wcka). NaN, with a warning, where a chain
        is zero or the same for every input.

    Raises
    ------
    ValueError, TypeError
        As ``cka`` and ``chain``.
    """
    return _pair("wcka", a, b, **kw)


def deconfound(x, inputs) -> Tensor:
    """Low-rank factor F of the positive part of K - alpha K0: FF' is the deconfounded Gram matrix.

    K0 is positive semidefinite and alpha is not negative, so K - alpha K0 has no more positive
    eigenvalues than K, and F no more columns than `x`. No n x n matrix is formed where n is
    larger than p + d.

    Parameters
    ----------
    x : array-like
        (n, d) activations; centred here.
    inputs : array-like or Confounder
        (n, p) probes, or the factorisation that ``Confounder(inputs)`` keeps for many calls.

    Returns
    -------
    Tensor
        (n, min(n, d)); its columns are centred.

    Raises
    ------
    ValueError, TypeError
        As ``cka``.
    """
    confounder = inputs if isinstance(inputs, Confounder) else Confounder(inputs)
    x = _array(x, "x")
    return confounder.deconfound(_centre(_narrow(x), _tolerance(x))[:, None], _tolerance(x))[:, 0]


class Confounder:
    """The inputs' part of dCKA, factorised once for all representations of the same probes.

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
        inputs = _array(inputs, "inputs")
        probes = _centre(_float(inputs), _tolerance(inputs))
        probes = probes[:, probes.any(0)]  # a constant pixel confounds nothing
        if not probes.numel():
            raise ValueError("inputs: all rows are the same, there is nothing to deconfound")
        probes = _unit(probes[:, None])[:, 0]
        self.basis, r = torch.linalg.qr(probes)
        self.gram = r @ r.T  # K0 in that basis
        self.norm = torch.linalg.norm(self.gram)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates in the inputs' basis and <K, K0> / ||K0|| of centred (n, N, d) features."""
        if len(x) != len(self.basis):
            raise ValueError(f"different numbers of rows: {len(x)} activations, "
                             f"{len(self.basis)} inputs")
        inside = _side_by_side(self.basis.T, x)
        return inside, (inside * _side_by_side(self.gram, inside)).sum((0, 2)) / self.norm

    def deconfound(self, x: Tensor, tolerance: float) -> Tensor:
        """Factors F (n, N, d) of centred representations (n, N, d), as in ``deconfound``.

        Where no more than `tolerance` of a representation is left, it is rounding, and F is zero.
        """
        inside, share = self.project(x)
        alpha, ours = share / self.norm, x.transpose(0, 1)
        m, (_, n, d) = len(self.gram), ours.shape
        if m + d >= n:  # the n x n matrices themselves are no larger than what follows
            k0 = self.basis @ self.gram @ self.basis.T
            return torch.stack([_left(*each, k0, tolerance) for each in zip(ours, alpha)], 1)
        outside = x - _side_by_side(self.basis, inside)
        # outside = Q T with orthonormal Q, from the small Gram matrix; a direction without length
        # has T = 0, and nothing of it reaches F.
        ours = outside.transpose(0, 1)
        squares, turn = torch.linalg.eigh(ours.mT @ ours)
        length = squares.clamp(min=0).sqrt()
        inverse = torch.where(length > 0, 1 / length, 0)
        # In the basis of inputs and x together, K = RR' and K0 are small matrices.
        r = torch.cat([inside.transpose(0, 1), length[:, :, None] * turn.mT], 1)
        factors = torch.stack([_left(*each, self.gram, tolerance) for each in zip(r, alpha)])
        rest = ours @ (turn * inverse[:, None] @ factors[:, m:])
        return _side_by_side(self.basis, factors[:, :m].transpose(0, 1)) + rest.transpose(0, 1)


def _left(r: Tensor, alpha: Tensor, k0: Tensor, tolerance: float) -> Tensor:
    """F with FF' the positive part of RR' - alpha K0, where K0 fills the upper left corner."""
    k = r @ r.T
    k[:len(k0), :len(k0)] -= alpha * k0
    factor = _positive_factor(k, r.shape[1])
    residue = (factor**2).sum() <= tolerance * (r**2).sum()  # of traces of K
    return torch.zeros_like(factor) if residue else factor


def _side_by_side(matrix: Tensor, x: Tensor) -> Tensor:
    """One product of a matrix with all models' columns: (m, n) @ (n, N, d) -> (m, N, d)."""
    return (matrix @ x.flatten(1)).unflatten(1, x.shape[1:])


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


def pairwise(measure: str | Callable, features, pairs=None, **kw) -> np.ndarray:
    """Similarity of all pairs of N models, or of some, in batched products.

    Parameters
    ----------
    measure : str or function
        "cka", "procrustes", "dcka", "wcka", or the function of that name.
    features : sequence of N
        What the measure compares: (n, d_i) representations, a stack (N, n, d), or for wCKA
        networks or chains.
    pairs : pair of int arrays (P,), optional
        Positions of the models to compare: time then grows with P, not with N squared.
    **kw
        Arguments of the measure: ``inputs`` and ``psd`` of dCKA, those of ``chain`` for wCKA.

    Returns
    -------
    ndarray
        (N, N), symmetric, ones on the diagonal; (P,) for `pairs`. Models without variance are
        NaN; one warning counts them. Beyond the features (one more copy of them, for `pairs`) and
        the result, memory does not grow with N.

    Raises
    ------
    ValueError, TypeError
        As the measure; for an unknown measure; for arguments it does not take.
    IndexError
        For positions that no model has.
    """
    name = measure if isinstance(measure, str) else getattr(measure, "__name__", repr(measure))
    if isinstance(features, (Tensor, np.ndarray)) and features.ndim != 3:
        raise ValueError(f"features: wanted N representations or a stack (N, n, d), got one array "
                         f"of shape {tuple(features.shape)}")
    features = list(features)
    labels = [f"features[{i}]" for i in range(len(features))]
    return _similarities(name, features, labels, _positions(pairs, len(features)), **kw)


def compare(measure: str, features: Iterable[Tensor], pairs=None,
            confounder: Confounder | None = None) -> np.ndarray:
    """``pairwise`` by a name that stands in tables: of ``MEASURES``, ``NO_PSD``, ``UNCENTRED``.

    NaN says there what the warning says.
    """
    name = measure.split(",")[0]
    kw = {"inputs": confounder, "psd": measure != NO_PSD} if name == "dcka" else {}
    if measure in UNCENTRED:  # rows and their negatives have mean zero: centring changes nothing
        features = [torch.cat([f, -f]) for f in features]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*have no variance", RuntimeWarning)
        return pairwise(name, features, pairs, **kw)


def _pair(name: str, x, y, **kw) -> float:
    labels = ["a", "b"] if name == "wcka" else ["x", "y"]  # as the caller knows them
    return float(_similarities(name, [x, y], labels, **kw)[0, 1])


def _positions(pairs, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    if pairs is None:
        return None
    a, b = (np.asarray(each) for each in pairs)
    if a.ndim != 1 or a.shape != b.shape or not a.size or a.dtype.kind + b.dtype.kind != "ii":
        raise ValueError(f"pairs: wanted two rows of ints of the same length, got shapes {a.shape} "
                         f"and {b.shape}, {a.dtype} and {b.dtype}")
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) >= n:
        raise IndexError(f"pairs: wanted positions from 0 to {n - 1}, got {min(a.min(), b.min())} "
                         f"to {max(a.max(), b.max())}")
    return a, b


def _similarities(name: str, features: list, labels: list[str], pairs=None, **kw) -> np.ndarray:
    nearest(name, INVARIANCES, "measure")
    if name == "wcka":
        features, kw = [_as_chain(f, **kw) for f in features], {}
    if kw and name != "dcka":
        raise TypeError(f"{name} takes no {', '.join(kw)}")
    if name == "dcka" and "inputs" not in kw:
        raise TypeError("dcka needs the probes: inputs=(n, p) array")
    live = [_live(f) for f in _checked(features, labels)]
    # Models of like width side by side: a block is as wide as its widest.
    order = np.argsort([f.shape[1] for f in live], kind="stable")
    live, back = [live[i] for i in order], np.argsort(order)
    pairs = pairs and (back[pairs[0]], back[pairs[1]])
    if name == "dcka":
        result = _deconfounded(live, pairs, **kw)
    else:
        result = _aligned(live, _nuclear_norms if name == "procrustes" else _squared_norms, pairs)
    return result if pairs else result[np.ix_(back, back)]


def _deconfounded(features: list[Tensor], pairs, inputs, psd: bool = True) -> np.ndarray:
    confounder = inputs if isinstance(inputs, Confounder) else Confounder(inputs)
    blocks = (_stack(features[rows]) for rows in _blocks(features))
    tolerance = max(map(_tolerance, features))
    if psd:
        factors = [_live(f) for block in blocks
                   for f in confounder.deconfound(block, tolerance).unbind(1)]
        return _aligned(factors, _squared_norms, pairs)
    # <K - alpha K0, L - beta K0> needs no eigenvalues: it is the partial correlation of CKAs.
    c = _aligned(features, _squared_norms, pairs)
    with np.errstate(invalid="ignore"):  # dead models are NaN, and were warned of
        share = np.concatenate([confounder.project(x)[1].cpu().numpy()
                                / np.sqrt(np.diag(_squared_norms(x, x))) for x in blocks])
    rest = np.sqrt(np.clip(1 - share**2, 0, None))
    _warn_of(rest**2 < tolerance)
    rest[rest**2 < tolerance] = np.nan  # nothing left but rounding
    a, b = pairs or np.ogrid[:len(share), :len(share)]
    return np.clip((c - share[a] * share[b]) / (rest[a] * rest[b]), -1, 1)


# ------------------------------------------------------------------------------- all pairs


def _aligned(features: Sequence[Tensor], align: Callable, pairs=None) -> np.ndarray:
    """Align all pairs (N, N), or those listed (P,), and normalise."""
    if pairs is None:
        result = _all_pairs(features, align)
        squares, (a, b) = np.diag(result), np.ogrid[:len(features), :len(features)]
    else:
        result, squares = _listed_pairs(features, align, *pairs)
        a, b = pairs
    _warn_of(squares == 0)
    scale = np.sqrt(np.where(squares == 0, np.nan, squares))
    return np.clip(result / (scale[a] * scale[b]), 0, 1)


def _listed_pairs(features: Sequence[Tensor], align: Callable, a, b) -> tuple:
    """Align each model with all its partners at once; and each with itself."""
    ready = [_stack([f]) for f in features]
    squares = np.array([align(x, x)[0, 0] for x in ready])
    result, order = np.empty(len(a)), np.argsort(a, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(a[order])) + 1):
        result[rows] = align(ready[a[rows[0]]], _beside([ready[i][:, 0] for i in b[rows]]))[0]
    return result, squares


def _all_pairs(features: Sequence[Tensor], align: Callable) -> np.ndarray:
    """Align all pairs, block of models by block, each pair of blocks once."""
    result = np.empty((len(features), len(features)))
    blocks = _blocks(features)
    for i, rows in enumerate(blocks):
        left = _stack(features[rows])
        for columns in blocks[i:]:
            right = left if columns == rows else _stack(features[columns])
            result[rows, columns] = align(left, right)
            result[columns, rows] = result[rows, columns].T
    return result


def _blocks(features: Sequence[Tensor]) -> list[slice]:
    size = max(1, _BLOCK_COLUMNS // max(min(f.shape) for f in features))
    return [slice(i, min(i + size, len(features))) for i in range(0, len(features), size)]


def _stack(features: Sequence[Tensor]) -> Tensor:
    """Features of a block of models, centred, of unit norm, side by side: (n, models, columns)."""
    beside = _beside([_narrow(f) for f in features])
    return _unit(_centre(beside, max(map(_tolerance, features))))


def _beside(features: Sequence[Tensor]) -> Tensor:
    """Features of several models side by side, as wide as the widest: (n, models, columns)."""
    columns = max(f.shape[1] for f in features)
    return torch.stack([nn.functional.pad(f, (0, columns - f.shape[1])) for f in features], dim=1)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """All X'Y of two blocks by one matrix product: (models, columns, models, columns)."""
    return _side_by_side(left.flatten(1).T, right).unflatten(0, left.shape[1:])


def _squared_norms(left: Tensor, right: Tensor) -> np.ndarray:
    """||X'Y||_F^2 for all pairs of two blocks."""
    return _products(left, right).square_().sum((1, 3)).cpu().numpy()


def _nuclear_norms(left: Tensor, right: Tensor) -> np.ndarray:
    """||X'Y||_* for all pairs of two blocks, where blocks are of unit norm."""
    products = _products(left, right).transpose(1, 2)
    if left is not right:
        return torch.linalg.svdvals(products).sum(-1).cpu().numpy()
    # Within a block each pair once; of a model with itself ||X'X||_* = ||X||_F^2.
    result = torch.diag(left.square().sum((0, 2)))
    i, j = torch.triu_indices(*result.shape, offset=1)
    result[i, j] = result[j, i] = torch.linalg.svdvals(products[i, j]).sum(-1)
    return result.cpu().numpy()


def _warn_of(dead: np.ndarray) -> None:
    if dead.any():
        warnings.warn(f"{dead.sum()} of {dead.size} representations have no variance left (a dead "
                      f"layer, or nothing but the inputs): they have no similarity, NaN",
                      RuntimeWarning, stacklevel=5)


# ------------------------------------------------------------------------------- features


def _as_chain(a, **kw):
    if isinstance(a, nn.Module) or (isinstance(a, (list, tuple)) and a and np.ndim(a[0]) == 2):
        return chain(a, **kw)
    if np.ndim(a) != 2:
        raise TypeError(f"wanted an nn.Module, a list of (in, out) matrices or a chain (inputs, "
                        f"outputs), got {type(a).__name__}")
    return a


def _checked(features: list, labels: list[str]) -> list[Tensor]:
    if len(features) < 2:
        raise ValueError(f"wanted at least two representations, got {len(features)}")
    arrays = [_array(f, label) for f, label in zip(features, labels)]
    for array, label in zip(arrays, labels):
        if len(array) != len(arrays[0]):
            raise ValueError(f"different numbers of rows: {labels[0]} has {len(arrays[0])}, "
                             f"{label} has {len(array)}; rows are shared samples (or inputs)")
    return arrays


def _array(values, label: str) -> Tensor:
    """Check one representation; keep its dtype (conversion happens block by block)."""
    if not isinstance(values, Tensor):
        values = np.asarray(values)
        if values.dtype.kind not in "fiub":
            raise TypeError(f"{label}: wanted real numbers, got dtype {values.dtype}")
        if values.dtype.kind != "f":  # torch lacks some integers
            values = values.astype(np.float64)
        values = torch.from_numpy(np.ascontiguousarray(values))
    if values.is_complex():
        raise TypeError(f"{label}: wanted real numbers, got dtype {values.dtype}")
    if values.ndim != 2:
        raise ValueError(f"{label}: wanted two axes (rows, columns), got shape "
                         f"{tuple(values.shape)}; flatten the others into columns")
    if len(values) < 2 or not values.shape[1]:
        raise ValueError(f"{label}: wanted at least 2 rows and 1 column, got shape "
                         f"{tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError(f"{label} holds NaN or infinity")
    if values.is_floating_point() and values.dtype.itemsize > 4 and values.abs().max() > 1e150:
        raise ValueError(f"{label}: values beyond 1e150 overflow when squared; divide them first")
    return values.detach()


def _live(x: Tensor) -> Tensor:
    """Without the columns that never vary (dead units): they add nothing, and many networks have
    a third of them. One stays where there is no other."""
    live = x.amax(0) != x.amin(0)
    live[0] |= ~live.any()
    return x if live.all() else x[:, live]


def _tolerance(x: Tensor) -> float:
    """Relative size of what is rounding in numbers of this type."""
    return 16 * torch.finfo(x.dtype if x.is_floating_point() else torch.float64).eps


def _float(x: Tensor) -> Tensor:
    return x if x.is_cuda and x.dtype == torch.float32 else x.double()


def _narrow(x: Tensor) -> Tensor:
    """In float64 (float32 stays on CUDA), with no more columns than rows."""
    if x.shape[1] <= x.shape[0]:
        return _float(x)
    # Centred, then a rotation of the columns, which no alignment here notices.
    return torch.linalg.qr(_centre(_float(x), _tolerance(x)).T).R.T


def _centre(x: Tensor, tolerance: float) -> Tensor:
    """Centred columns of (n, ...) features."""
    centred = x - x.mean(0)
    # The mean of equal numbers is not always that number, and what varies in the last bits only
    # is rounding: such a column counts as constant.
    return centred * (centred.abs().amax(0) > tolerance * x.abs().amax(0))


def _unit(x: Tensor) -> Tensor:
    """Each model of (n, N, d) scaled to unit Frobenius norm; zero stays zero."""
    largest = x.abs().amax((0, 2), keepdim=True)
    x = x / torch.where(largest > 0, largest, 1)  # first, so that no square overflows
    norm = torch.linalg.norm(x, dim=(0, 2), keepdim=True)
    return x / torch.where(norm > 0, norm, 1)
