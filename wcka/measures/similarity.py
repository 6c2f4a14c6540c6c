"""The measures: features whose rows are shared, then one alignment.

================ ============================================= =================================
measure          features (rows x columns)                     alignment
================ ============================================= =================================
cka              activations (probes x units)                  ||Y'X||_F^2, Gram norms 1
unbiased_cka     activations                                   as cka, U-centred kernels
minibatch_cka    activations, batch by batch                   as unbiased_cka, summed first
rbf_cka          the features behind a Gaussian kernel         as cka
relu_cka         the features behind the max kernel            as unbiased_cka
dcka             activations without the inputs' part          as cka
wcka             the chain W1 W2 ... Wl (inputs x outputs)     as cka
procrustes       activations                                   ||Y'X||_*, Frobenius norms 1
relu_procrustes  activations, columns of norm 1                best assignment of units
mean_cca         orthonormal basis of the activations          ||Y'X||_*, mean
svcca            the same, of their leading components         ||Y'X||_*, mean
pwcca            orthonormal basis of the activations          ||Y'X||_*, weighted mean
================ ============================================= =================================

A pair is a population of two: ``cka(x, y)`` and ``pairwise("cka", [...])`` run the same code.
"""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from . import checks, kernels
from .alignment import (
    Given,
    Pairs,
    Representation,
    in_threads,
    nuclear_norms,
    pieces,
    products,
    represented,
    squared_norms,
    tolerance,
)
from .chain import chain
from .deconfounding import Confounder
from .symmetry import CHANGES

MEASURES = ("procrustes", "cka", "dcka", "wcka")  # the paper's, in the order of its figures
ACTIVATION_MEASURES = MEASURES[:3]
NO_PSD = "dcka, no PSD step"  # the variant that keeps negative eigenvalues
UNCENTRED = ("procrustes, uncentred", "cka, uncentred", "wcka, uncentred")
Features = dict[str, Tensor]  # by the labels that error messages use
_ROUNDING = 16 * np.finfo(float).eps

# The transformations of a network (symmetry.TRANSFORMATIONS, and "probes": the same network seen
# through other samples) that each measure is declared invariant to, whichever of the two networks
# is changed. Tests assert both the invariances and the variances, and the book measures them, from
# this one table.
_FUNCTION = frozenset({"output map", "silent weights"})  # what no activation on the probes shows
_OF_UNITS = _FUNCTION | {"permutation", "isotropic scale"}
_OF_ACTIVATIONS = _OF_UNITS | {"rotation", "translation"}
_OF_SPANS = _OF_ACTIVATIONS | {"unit rescaling", "invertible map", "intertwiner"}
INVARIANCES: dict[str, frozenset[str]] = {
    "procrustes": _OF_ACTIVATIONS,
    "cka": _OF_ACTIVATIONS,
    "dcka": _OF_ACTIVATIONS,
    "wcka": frozenset({*CHANGES, "intertwiner", "probes"}),
    "unbiased_cka": _OF_ACTIVATIONS,
    "minibatch_cka": _OF_ACTIVATIONS,
    "rbf_cka": _OF_ACTIVATIONS,
    "mean_cca": _OF_SPANS,
    "svcca": _OF_ACTIVATIONS,
    "pwcca": _OF_UNITS | {"translation"},
    "relu_procrustes": _OF_UNITS | {"unit rescaling", "intertwiner"},
    "relu_cka": _OF_UNITS | {"translation", "unit rescaling", "intertwiner"},
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
    return _pair("unbiased_cka", x, y)


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
    return _pair("minibatch_cka", x, y, batch_size=batch_size)


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
    return _pair("rbf_cka", x, y, sigma=sigma)


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
    return _pair("relu_cka", x, y)


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
    return _pair("relu_procrustes", x, y)


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
    return _pair("mean_cca", x, y)


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
    return _pair("svcca", x, y, variance=variance)


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
    return _pair("pwcca", x, y)


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
    model = Representation(checks.matrix(x, "x"), "x")
    return confounder.deconfound(model).rows() * model.scale


def pairwise(measure: str | Callable, features, pairs=None, **kw) -> np.ndarray:
    """Similarity of all pairs of N models, or of some, in batched products.

    Parameters
    ----------
    measure : str or function
        A name in ``INVARIANCES``, or the function of that name.
    features : sequence of N
        What the measure compares: (n, d_i) representations, a stack (N, n, d), or for wCKA
        networks or chains. Arrays may be memory-mapped: they are read in pieces of rows.
    pairs : pair of int arrays (P,), optional
        Positions of the models to compare: time then grows with P, not with N squared.
    **kw
        Arguments of the measure: ``inputs`` and ``psd`` of dCKA, those of ``chain`` for wCKA,
        ``batch_size``, ``sigma``, ``variance``. For cka also ``dtype=torch.float32``: up to
        twice as fast; sums of more than 1,024 products are added up in float64, so the value errs
        by less than 5e-4 in the worst case, and by about 1e-7 in practice.

    Returns
    -------
    ndarray
        (N, N), ones on the diagonal, symmetric but for pwcca, whose rows give the weights; (P,) for
        `pairs`. Models without variance are NaN; one warning counts them. Working memory stays
        within about 1 GB and a copy of one model's features in float64; measures with
        decompositions (dcka, the CCAs, relu_procrustes, relu_cka) take a copy of all, and those
        with kernels (rbf_cka, relu_cka) some n x n matrices.

    Raises
    ------
    ValueError, TypeError
        As the measure; for an unknown measure; for arguments it does not take.
    IndexError
        For positions that no model has.
    """
    name = measure if isinstance(measure, str) else getattr(measure, "__name__", repr(measure))
    if not isinstance(measure, str) and globals().get(name) is not measure:
        raise TypeError(f"measure: wanted a name or a function of this module, got {measure!r}")
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
    if len(pairs) != 2:
        raise ValueError(f"pairs: wanted two rows of ints, got {len(pairs)}")
    a, b = (np.asarray(each) for each in pairs)
    kinds = {a.dtype.kind, b.dtype.kind}
    if a.ndim != 1 or a.shape != b.shape or not a.size or not kinds <= {"i", "u"}:
        raise ValueError(f"pairs: wanted two rows of ints of the same length, got shapes {a.shape} "
                         f"and {b.shape}, {a.dtype} and {b.dtype}")
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) >= n:
        raise IndexError(f"pairs: wanted positions from 0 to {n - 1}, got {min(a.min(), b.min())} "
                         f"to {max(a.max(), b.max())}")
    return a, b


def _similarities(name: str, features: list, labels: list[str], pairs: Pairs = None,
                  **kw) -> np.ndarray:
    checks.nearest(name, INVARIANCES, "measure")
    if unknown := [k for k in kw if k not in _OPTIONS[name]]:
        known = f"; it takes {', '.join(_OPTIONS[name])}" if _OPTIONS[name] else ""
        raise TypeError(f"{name} takes no {', '.join(unknown)}{known}")
    if name == "wcka":
        features, kw = [_as_chain(f, **kw) for f in features], {}
    elif networks := [s for s, f in zip(labels, features) if isinstance(f, nn.Module)]:
        raise TypeError(f"{name} compares activations (n, units), {networks[0]} is a network: give "
                        f"what it makes of the probes, or compare weights by wcka")
    if name == "dcka" and "inputs" not in kw:
        raise TypeError("dcka needs the probes: inputs=(n, p) array")
    return _OF_ALL[name](_checked(features, labels), pairs, **kw)


# ------------------------------------------------------------------------------- of all pairs


def _cka(features: Features, pairs: Pairs, dtype: torch.dtype = torch.float64) -> np.ndarray:
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: wanted torch.float32 or torch.float64, got {dtype}")
    return _normalised(*squared_norms(represented(features, dtype=dtype), pairs), pairs)


def _unbiased_cka(features: Features, pairs: Pairs) -> np.ndarray:
    return _minibatch_cka(features, pairs, _at_least_4(_rows(features)))


def _at_least_4(rows: int, where: str = "") -> int:
    if rows < 4:
        raise ValueError(f"the unbiased criterion wants at least 4 rows, got {rows}{where}")
    return rows


def _minibatch_cka(features: Features, pairs: Pairs, batch_size: int = 256) -> np.ndarray:
    if batch_size != int(batch_size) or batch_size < 4:
        raise ValueError(f"batch_size: wanted a whole number from 4 on, got {batch_size}")
    batches = pieces(_rows(features), int(batch_size))
    _at_least_4(batches[-1].stop - batches[-1].start, " in the last batch")
    values, selves = np.zeros(()), np.zeros(())
    scales = [Representation(f, label).scale for label, f in features.items()]
    for batch in batches:  # all in one scale: the criteria are added up
        models = represented({label: f[batch] for label, f in features.items()}, scales=scales)
        of_pairs, own = _unbiased_criteria(models, pairs)
        values, selves = values + of_pairs, selves + own
    return _normalised(values, selves, pairs, lowest=-1)


def _unbiased_criteria(models: Sequence[Representation], pairs: Pairs) -> tuple:
    """Unbiased criterion of the pairs, and of each with itself, from centred features."""
    n, lengths, dots = models[0].n, np.zeros(()), np.zeros(())
    values, selves = squared_norms(models, pairs)
    for part in pieces(n):  # squared lengths of rows: the kernels' diagonals
        some = torch.stack([m.rows(part).double().square().sum(1) for m in models])
        lengths, dots = lengths + some.sum(1).cpu().numpy(), dots + (some @ some.T).cpu().numpy()
    dots, (a, b) = (dots + dots.T) / 2, _pairs(pairs, len(models))

    def corrected(squares, dots, product):
        return (squares - n / (n - 2) * dots + product / ((n - 1) * (n - 2))) / (n * (n - 3))

    own = corrected(selves, np.diag(dots), lengths**2)
    own[own * n * (n - 3) <= _ROUNDING * selves] = 0
    return corrected(values, dots[a, b], lengths[a] * lengths[b]), own


def _rbf_cka(features: Features, pairs: Pairs, sigma: float = 1.0) -> np.ndarray:
    if not sigma > 0:
        raise ValueError(f"sigma: wanted a positive share of the median distance, got {sigma}")
    return _by_kernels(kernels.gaussian(represented(features), sigma), pairs)


def _relu_cka(features: Features, pairs: Pairs) -> np.ndarray:
    _at_least_4(_rows(features))
    models = [_of_unit_columns(Representation(f, label)) for label, f in features.items()]
    return _by_kernels(kernels.maximum(models), pairs, lowest=-1)


def _by_kernels(of_models: list, pairs: Pairs, lowest: float = 0) -> np.ndarray:
    result, selves = kernels.kernel_products(of_models)
    return _normalised(result if pairs is None else result[pairs], selves, pairs, lowest)


def _dcka(features: Features, pairs: Pairs, inputs, psd: bool = True) -> np.ndarray:
    confounder = inputs if isinstance(inputs, Confounder) else Confounder(inputs)
    models = represented(features)
    if psd:
        models = [confounder.deconfound(m) for m in models]
        for m in models:
            m.keep()
        return _normalised(*squared_norms(models, pairs), pairs)
    # <K - alpha K0, L - beta K0> needs no eigenvalues: it is the partial correlation of CKAs.
    values, selves = squared_norms(models, pairs)
    inside = np.array([float(confounder.project(m)[1]) for m in models])
    share = inside / np.sqrt(np.where(selves > 0, selves, 1))
    rest = np.sqrt(np.clip(1 - share**2, 0, None))
    selves[rest**2 < list(map(tolerance, features.values()))] = 0  # nothing left but rounding
    c, (a, b) = _normalised(values, selves, pairs), _pairs(pairs, len(models))
    rest[selves <= 0] = np.nan
    return np.clip((c - share[a] * share[b]) / (rest[a] * rest[b]), -1, 1)


def _procrustes(features: Features, pairs: Pairs) -> np.ndarray:
    return _normalised(*nuclear_norms(represented(features), pairs), pairs)


def _relu_procrustes(features: Features, pairs: Pairs) -> np.ndarray:
    models = [_of_unit_columns(Representation(f, label, centred=False))
              for label, f in features.items()]

    def best(i: int, j: int) -> float:
        cosines = products([models[i]], [models[j]])[0, :, 0].cpu().numpy()
        return cosines[linear_sum_assignment(cosines, maximize=True)].sum()

    units = np.array([float(m.d) for m in models])
    return _normalised(_one_by_one(best, units, pairs), units, pairs, lowest=-1)


def _of_unit_columns(model: Representation) -> Representation:
    model.scale = model.sizes  # of each column by itself: no square overflows or underflows
    x = model.rows()
    return Given(x / torch.linalg.norm(x, dim=0))


def _mean_cca(features: Features, pairs: Pairs) -> np.ndarray:
    return _mean_correlations(_bases(features), pairs)


def _svcca(features: Features, pairs: Pairs, variance: float = 0.99) -> np.ndarray:
    if not 0 < variance <= 1:
        raise ValueError(f"variance: wanted a share in (0, 1], got {variance}")
    return _mean_correlations(_bases(features, variance), pairs)


def _mean_correlations(bases: list[tuple[Tensor, Tensor]], pairs: Pairs) -> np.ndarray:
    models = [Given(u) for u, _ in bases]
    values, _ = nuclear_norms(models, pairs)
    ranks = np.array([float(m.d) for m in models])
    return _normalised(values, ranks, pairs, together=np.minimum)


def _pwcca(features: Features, pairs: Pairs) -> np.ndarray:
    bases = _bases(features)

    def both(i: int, j: int) -> tuple[float, ...]:
        (u, loads), (v, others) = bases[i], bases[j]
        left, correlations, right = torch.linalg.svd(u.T @ v, full_matrices=False)
        weights = (left.T @ loads).abs().sum(1), (right @ others).abs().sum(1)
        return tuple(float(w @ correlations.clamp(max=1) / w.sum()) for w in weights)

    live = np.array([float(u.shape[1] > 0) for u, _ in bases])
    return _normalised(_one_by_one(both, live, pairs), live, pairs)


def _bases(features: Features, variance: float = 1) -> list[tuple[Tensor, Tensor]]:
    """Orthonormal basis U (n, rank) of each, and what of the units lies in it, U'X (rank, d).

    Of the leading principal components that hold this share of the variance.
    """
    result = []
    for model in represented(features):
        q, r = torch.linalg.qr(model.rows())
        u, s, v = torch.linalg.svd(r, full_matrices=False)
        least = max(tolerance(model.values), max(model.n, model.d) * torch.finfo(r.dtype).eps)
        rank = int((s > least * s.amax()).sum()) if model.d else 0
        if variance < 1 and rank:
            held = s.square().cumsum(0) / s.square().sum()
            rank = min(rank, int((held < variance * (1 - _ROUNDING)).sum()) + 1)
        result.append((q @ u[:, :rank], s[:rank, None] * v[:rank]))
    return result


def _one_by_one(of_pair: Callable, selves: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Values of a function of two positions; it gives one number, or one for each direction."""
    count = len(selves)
    a, b = np.triu_indices(count, 1) if pairs is None else pairs
    found = np.array(in_threads(lambda pair: np.broadcast_to(of_pair(*pair), 2), zip(a, b)))
    if pairs is not None:
        return found[:, 0]
    result = np.diag(selves)
    result[a, b], result[b, a] = found.T
    return result


def _pairs(pairs: Pairs, count: int) -> tuple:
    """Indices of rows and columns of what has a value for every pair."""
    return np.ogrid[:count, :count] if pairs is None else pairs


def _normalised(values: np.ndarray, selves: np.ndarray, pairs: Pairs, lowest: float = 0,
                together: Callable = lambda a, b: np.sqrt(a) * np.sqrt(b)) -> np.ndarray:
    """Divide by what both models have with themselves; NaN where that is nothing."""
    _warn_of(selves <= 0)
    scale = np.where(selves <= 0, np.nan, selves)
    a, b = _pairs(pairs, len(selves))
    return np.clip(values / together(scale[a], scale[b]), lowest, 1)


def _warn_of(dead: np.ndarray) -> None:
    if dead.any():
        frame, level = sys._getframe(1), 2
        while frame.f_globals.get("__package__") == __package__ and frame.f_back:
            frame, level = frame.f_back, level + 1  # who called this package
        warnings.warn(f"{dead.sum()} of {dead.size} representations have no variance left (a dead "
                      f"layer, or nothing but the inputs): they have no similarity, NaN",
                      RuntimeWarning, stacklevel=level)


# ------------------------------------------------------------------------------- features


def _as_chain(a, **kw):
    if isinstance(a, nn.Module) or (isinstance(a, (list, tuple)) and a and np.ndim(a[0]) == 2):
        return chain(a, **kw)
    if isinstance(a, (dict, str, Path)):
        raise TypeError(f"wanted networks, got {type(a).__name__}: load weights into their module, "
                        f"or compare files by `python -m wcka compare`")
    if np.ndim(a) != 2:
        raise TypeError(f"wanted an nn.Module, a list of (in, out) matrices or a chain (inputs, "
                        f"outputs), got {type(a).__name__}")
    return a


def _checked(features: list, labels: list[str]) -> Features:
    if len(features) < 2:
        raise ValueError(f"wanted at least two representations, got {len(features)}")
    arrays = {label: checks.matrix(f, label) for label, f in zip(labels, features)}
    for label, array in arrays.items():
        if len(array) != _rows(arrays):
            raise ValueError(f"different numbers of rows: {labels[0]} has {_rows(arrays)}, "
                             f"{label} has {len(array)}; rows are shared samples (or inputs)")
    return arrays


def _rows(features: Features) -> int:
    return len(next(iter(features.values())))


# How each measure is computed, of N checked features and the pairs wanted.
_OF_ALL: dict[str, Callable] = {
    "procrustes": _procrustes, "cka": _cka, "dcka": _dcka, "wcka": _cka,
    "unbiased_cka": _unbiased_cka, "minibatch_cka": _minibatch_cka, "rbf_cka": _rbf_cka,
    "mean_cca": _mean_cca, "svcca": _svcca, "pwcca": _pwcca,
    "relu_procrustes": _relu_procrustes, "relu_cka": _relu_cka,
}
_OPTIONS = {name: [*inspect.signature(of_all).parameters][2:] for name, of_all in _OF_ALL.items()}
_OPTIONS["wcka"] = [*inspect.signature(chain).parameters][1:]
