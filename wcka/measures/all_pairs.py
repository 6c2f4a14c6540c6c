"""How each measure is computed, for all pairs of models at once.

A measure is a way to make features, whose rows are shared, and one alignment of them:

================ ======================================== ==============================
measure          features (rows x columns)                alignment
================ ======================================== ==============================
cka              activations (probes x units)             ||Y'X||_F^2, Gram norms 1
unbiased_cka     activations                              as cka, U-centred kernels
minibatch_cka    activations, batch by batch              as unbiased_cka, summed first
rbf_cka          the features behind a Gaussian kernel    as cka
relu_cka         the features behind the max kernel       as unbiased_cka
dcka             activations without the inputs' part     as cka
wcka             the chain W1 ... Wl (inputs x outputs)   as cka
procrustes       activations                              ||Y'X||_*, Frobenius norms 1
relu_procrustes  activations, columns of norm 1           best assignment of units
mean_cca         orthonormal basis of the activations     ||Y'X||_*, mean
svcca            orthonormal basis of leading components  ||Y'X||_*, mean
pwcca            orthonormal basis of the activations     ||Y'X||_*, weighted mean
================ ======================================== ==============================

A pair is a population of two: ``cka(x, y)`` and ``pairwise("cka", [...])`` run the same
code. One record of ``MEASURES`` holds all that is known of a measure.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from . import kernels
from .deconfounding import Confounder
from .inner_products import (
    CANCELLATION,
    Given,
    Pairs,
    Positions,
    Representation,
    in_threads,
    nuclear_norms,
    pieces,
    products,
    represented,
    squared_norms,
    tolerance,
)
from .spelling import nearest
from .validation import Array, matrix, number, warn_caller, whole_number

Features = dict[str, Tensor]  # by the labels that error messages use
_ROUNDING = 16 * np.finfo(float).eps
_LEAST_ROWS = 4  # of the unbiased criterion, which divides by n - 3

# ------------------------------------------------------------------- for callers


def similarities(name: str, features: Sequence[ArrayLike], labels: Sequence[str],
                 pairs: Pairs = None, **options: Any) -> Array:
    """Similarity of all pairs of models by a measure's name.

    Parameters
    ----------
    name : str
        A name in ``MEASURES``.
    features : sequence of N array-likes
        (n, d_i), rows shared; for wCKA chains (inputs, outputs).
    labels : sequence of str
        Names of the features in error messages.
    pairs : pair of int arrays (P,), optional
        Positions of the models to compare; all pairs by default.
    **options
        Options of the measure.

    Returns
    -------
    ndarray
        (N, N), or (P,) for `pairs`.

    Raises
    ------
    ValueError
        For an unknown measure, features that do not fit together, NaN or infinity.
    TypeError
        For features that are no real numbers, and for unknown options.

    Examples
    --------
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> similarities("cka", [x, 2 * x], ["x", "y"]).round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    arrays = checked(name, features, labels, options)
    return MEASURES[name].compute(arrays, pairs, **options)


def similarity_of_pair(name: str, x: ArrayLike, y: ArrayLike, **options: Any) -> float:
    """Similarity of two models, which error messages call x and y.

    Parameters
    ----------
    name : str
        A name in ``MEASURES``.
    x, y : array-like
        (n, d) and (n, e), rows shared.
    **options
        Options of the measure.

    Examples
    --------
    >>> round(similarity_of_pair("svcca", np.eye(3), np.eye(3) + 1, variance=0.9), 6)
    1.0
    """
    return float(similarities(name, [x, y], ["x", "y"], **options)[0, 1])


def kernel_features(name: str, features: Features, inputs: Any = None,
                    psd: bool = True) -> list[Representation]:
    """Return the features whose linear kernels CKA, wCKA and dCKA compare.

    Parameters
    ----------
    name : str
        "cka", "wcka" or "dcka".
    features : dict of str to Tensor
        As ``checked`` returns them.
    inputs, psd
        Of dCKA.

    Returns
    -------
    list of Representation
        For dCKA without the part that the inputs explain.

    Raises
    ------
    ValueError
        For dCKA without its step that leaves positive semidefinite kernels.

    Examples
    --------
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> features = checked("cka", [x, x[:, :1]], ["x", "y"], {})
    >>> [model.d for model in kernel_features("cka", features)]
    [2, 1]
    """
    if name != "dcka":
        return represented(features)
    if not psd:
        raise ValueError("psd: wanted True; what is left of a kernel without that step "
                         "is no product of features")
    confounder = _confounder(inputs)
    models = [confounder.deconfound(model) for model in represented(features)]
    for model in models:
        model.keep()
    return models


def _confounder(inputs: Any) -> Confounder:
    """The inputs, factorised unless they are already."""
    return inputs if isinstance(inputs, Confounder) else Confounder(inputs)


def kernel_similarities(models: Sequence[Representation], pairs: Pairs = None) -> Array:
    """Return the cosines of the linear kernels of all pairs of models.

    Parameters
    ----------
    models : sequence of N Representation
        As ``kernel_features`` returns them.
    pairs : pair of int arrays (P,), optional
        Positions of the models to compare; all pairs by default.

    Returns
    -------
    ndarray
        (N, N) or (P,), in [0, 1]; NaN, with a warning, for models without variance.

    Examples
    --------
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> features = checked("cka", [x, 2 * x], ["x", "y"], {})
    >>> models = kernel_features("cka", features)
    >>> kernel_similarities(models).round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    return _normalised(*squared_norms(models, pairs), pairs)


def check_options(name: str, options: Iterable[str], known: Sequence[str]) -> None:
    """Refuse options that a measure does not take.

    Parameters
    ----------
    name : str
        Name of the measure in the error message.
    options : iterable of str
        Names of the options to check.
    known : sequence of str
        Names of the options that the measure takes.

    Raises
    ------
    TypeError
        With the unknown names and the known ones.

    Examples
    --------
    >>> check_options("svcca", ["sigma"], ["variance"])
    Traceback (most recent call last):
    TypeError: svcca takes no sigma; it takes variance
    """
    unknown = [option for option in options if option not in known]
    if unknown:
        takes = f"; it takes {', '.join(known)}" if known else ""
        raise TypeError(f"{name} takes no {', '.join(unknown)}{takes}")


def compare(measure: str, features: Iterable[Tensor], pairs: Pairs = None,
            confounder: Confounder | None = None) -> Array:
    """Similarity of all pairs by a measure's name in tables, without a warning.

    Parameters
    ----------
    measure : str
        A name in ``PAPER_MEASURES`` or ``UNCENTRED``, or ``NO_PSD``.
    features : iterable of N Tensors
        (n, d_i), rows shared.
    pairs : pair of int arrays (P,), optional
        Positions of the models to compare; all pairs by default.
    confounder : Confounder, optional
        The probes, for dCKA.

    Returns
    -------
    ndarray
        (N, N) or (P,); NaN for models without variance.

    Examples
    --------
    >>> x = torch.arange(6.0).reshape(3, 2)
    >>> compare("cka", [x, x**2]).shape
    (2, 2)
    """
    name = measure.split(",")[0]
    options: dict[str, Any] = {}
    if name == "dcka":
        options = {"inputs": confounder, "psd": measure != NO_PSD}
    features = list(features)
    if measure in UNCENTRED:
        # Rows together with their negatives have mean zero: centring changes nothing.
        features = [torch.cat([values, -values]) for values in features]
    labels = [f"features[{i}]" for i in range(len(features))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*have no variance", RuntimeWarning)
        return similarities(name, features, labels, pairs, **options)


# ------------------------------------------------------------------- checks


def checked(name: str, features: Sequence[ArrayLike], labels: Sequence[str],
            options: dict[str, Any]) -> Features:
    """Return features as matrices by their labels, or say what a measure cannot use.

    Parameters
    ----------
    name, features, labels
        As in ``similarities``.
    options : dict of str
        Options of the measure.

    Raises
    ------
    ValueError, TypeError
        As ``similarities``, but for what stands in the matrices.

    Examples
    --------
    >>> list(checked("cka", [np.eye(3), np.ones((3, 1))], ["x", "y"], {}))
    ['x', 'y']
    """
    measure = MEASURES[nearest(name, MEASURES, "measure")]
    check_options(name, options, measure.options)
    for label, values in zip(labels, features):
        if isinstance(values, nn.Module):
            raise TypeError(f"{name} compares activations (n, units), {label} is a "
                            f"network: give what it makes of the probes, or compare "
                            f"weights by wcka")
    if name == "dcka" and "inputs" not in options:
        raise TypeError("dcka needs the probes: inputs=(n, p) array")
    if len(features) < 2:
        raise ValueError(f"wanted at least two representations, got {len(features)}")
    arrays = {}
    for label, values in zip(labels, features):
        arrays[label] = matrix(values, label)
    n = _row_count(arrays)
    for label, array in arrays.items():
        if len(array) != n:
            raise ValueError(f"different numbers of rows: {labels[0]} has {n}, {label} "
                             f"has {len(array)}; rows are shared samples (or inputs)")
    return arrays


def _row_count(features: Features) -> int:
    """Number of rows of the first features."""
    return len(next(iter(features.values())))


def _at_least_4(rows: int, where: str = "") -> int:
    """Refuse too few rows for the unbiased criterion."""
    if rows < _LEAST_ROWS:
        raise ValueError(f"the unbiased criterion wants at least 4 rows, got "
                         f"{rows}{where}")
    return rows


# ------------------------------------------------------------------- CKA


def _cka(features: Features, pairs: Pairs,
         dtype: torch.dtype = torch.float64) -> Array:
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: wanted torch.float32 or torch.float64, got {dtype}")
    return kernel_similarities(represented(features, dtype=dtype), pairs)


def _wcka(features: Features, pairs: Pairs) -> Array:
    return _cka(features, pairs)


def _unbiased_cka(features: Features, pairs: Pairs) -> Array:
    return _minibatch_cka(features, pairs, _at_least_4(_row_count(features)))


def _minibatch_cka(features: Features, pairs: Pairs,
                   batch_size: int = 256) -> Array:
    batch_size = whole_number(batch_size, "batch_size", _LEAST_ROWS)
    batches = pieces(_row_count(features), batch_size)
    _at_least_4(batches[-1].stop - batches[-1].start, " in the last batch")
    cross = np.zeros(())
    self_products = np.zeros(())
    # All batches share one scale, since their criteria are added up.
    scales = []
    wholes = {}
    for label, values in features.items():
        model = Representation(values, label)
        scales.append(model.scale)
        wholes[label] = model.values
    for batch in batches:
        rows = {label: values[batch] for label, values in wholes.items()}
        models = represented(rows, scales=scales)
        batch_cross, batch_self_products = _unbiased_criteria(models, pairs)
        cross = cross + batch_cross
        self_products = self_products + batch_self_products
    return _normalised(cross, self_products, pairs, lowest=-1)


def _unbiased_criteria(
    models: Sequence[Representation], pairs: Pairs,
) -> tuple[Array, Array]:
    """Unbiased criterion of the pairs and of each model with itself.

    The features are centred; see ``similarity.unbiased_cka`` for the formula. Where its
    terms cancel, the sums over all kernels are computed without their diagonals.
    """
    n = models[0].n
    cross, self_products = squared_norms(models, pairs)
    lengths, dots = _diagonal_sums(models)
    a, b = _index(pairs, len(models))

    def corrected(squares: Array, dots: Array, product: Array) -> Array:
        diagonal_terms = squares - n / (n - 2) * dots
        return (diagonal_terms + product / ((n - 1) * (n - 2))) / (n * (n - 3))

    criteria = corrected(self_products, np.diag(dots), lengths**2)
    if (criteria * n * (n - 3) * CANCELLATION < self_products).any():
        kernel_cross, criteria = kernels.kernel_products(kernels.linear(models))
        cross = kernel_cross[a, b]
        return cross / (n * (n - 3)), criteria / (n * (n - 3))
    return corrected(cross, dots[a, b], lengths[a] * lengths[b]), criteria


def _diagonal_sums(models: Sequence[Representation]) -> tuple[Array, Array]:
    """Sums of the kernels' diagonals (N,), and their inner products (N, N).

    The diagonals hold the squared lengths of the rows, which the unbiased criterion
    leaves out.
    """
    lengths = np.zeros(())
    dots = np.zeros(())
    for part in pieces(models[0].n):
        squared = [model.rows(part).double().square().sum(1) for model in models]
        diagonals = torch.stack(squared)  # (models, rows)
        lengths = lengths + diagonals.sum(1).cpu().numpy()
        dots = dots + (diagonals @ diagonals.T).cpu().numpy()
    return lengths, (dots + dots.T) / 2


def _rbf_cka(features: Features, pairs: Pairs, sigma: float = 1.0) -> Array:
    return _by_kernels(measure_kernels("rbf_cka", features, sigma), pairs)


def _relu_cka(features: Features, pairs: Pairs) -> Array:
    return _by_kernels(measure_kernels("relu_cka", features), pairs, lowest=-1)


def measure_kernels(
    name: str, features: Features, sigma: float = 1.0
) -> list[kernels.Kernel]:
    """Return the kernels whose cosines a measure of kernels is.

    Parameters
    ----------
    name : str
        "rbf_cka" or "relu_cka".
    features : dict of str to Tensor
        As ``checked`` returns them.
    sigma : float
        Of rbf_cka.

    Raises
    ------
    ValueError
        For a bandwidth that is not positive, or too few rows for relu_cka.

    Examples
    --------
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> features = checked("rbf_cka", [x, 2 * x], ["x", "y"], {})
    >>> len(measure_kernels("rbf_cka", features))
    2
    """
    if name == "relu_cka":
        _at_least_4(_row_count(features))
        return kernels.maximum(_of_unit_columns(features, centred=True))
    condition = "a positive share of the median distance, from 1e-100 to 1e100"
    sigma = number(sigma, "sigma", condition)
    if not 1e-100 <= sigma <= 1e100:  # its square is a number
        raise ValueError(f"sigma: wanted {condition}, got {sigma}")
    return kernels.gaussian(represented(features), sigma)


def _by_kernels(model_kernels: Sequence[kernels.Kernel], pairs: Pairs,
                lowest: float = 0) -> Array:
    cross, self_products = kernels.kernel_products(model_kernels)
    if pairs is not None:
        cross = cross[pairs]
    return _normalised(cross, self_products, pairs, lowest)


def _dcka(features: Features, pairs: Pairs, inputs: Any,
          psd: bool = True) -> Array:
    if psd:
        return kernel_similarities(kernel_features("dcka", features, inputs), pairs)
    return _partial_cka(features, represented(features), pairs, _confounder(inputs))


def _partial_cka(features: Features, models: Sequence[Representation], pairs: Pairs,
                 confounder: Confounder) -> Array:
    """Similarity by <K - alpha K0, L - beta K0>, the partial correlation of CKAs.

    It needs no eigenvalues.
    """
    cross, self_products = squared_norms(models, pairs)
    inside = np.array([float(confounder.project(model)[1]) for model in models])
    share = inside / np.sqrt(np.where(self_products > 0, self_products, 1))
    remainder = np.sqrt(np.clip(1 - share**2, 0, None))
    # Where only rounding is left of a representation, there is no similarity.
    self_products[remainder**2 < list(map(tolerance, features.values()))] = 0
    correlations = _normalised(cross, self_products, pairs)
    a, b = _index(pairs, len(models))
    remainder[self_products <= 0] = np.nan
    partial = (correlations - share[a] * share[b]) / (remainder[a] * remainder[b])
    return _with_exact_ones(np.clip(partial, -1, 1), a, b)


# ------------------------------------------------------------------- Procrustes


def _procrustes(features: Features, pairs: Pairs) -> Array:
    return _normalised(*nuclear_norms(represented(features), pairs), pairs)


def _relu_procrustes(features: Features, pairs: Pairs) -> Array:
    models = _of_unit_columns(features, centred=False)

    def best_assignment(i: int, j: int) -> float:
        cosines = products([models[i]], [models[j]])[0, :, 0].cpu().numpy()
        return float(cosines[linear_sum_assignment(cosines, maximize=True)].sum())

    widths = np.array([float(model.d) for model in models])
    cross = _one_by_one(best_assignment, widths, pairs)
    return _normalised(cross, widths, pairs, lowest=-1)


def _of_unit_columns(features: Features, centred: bool) -> list[Given]:
    """Features whose columns have length 1."""
    models = []
    for label, values in features.items():
        model = Representation(values, label, centred)
        # Each column is first divided by its own size: no square over- or underflows.
        model.scale = model.sizes
        x = model.rows()
        models.append(Given(x / torch.linalg.norm(x, dim=0)))
    return models


# ------------------------------------------------------------------- CCA


def _mean_cca(features: Features, pairs: Pairs) -> Array:
    return _mean_correlations(_bases(features), pairs)


def _svcca(features: Features, pairs: Pairs, variance: float = 0.99) -> Array:
    variance = number(variance, "variance", "a share in (0, 1]")
    if not 0 < variance <= 1:
        raise ValueError(f"variance: wanted a share in (0, 1], got {variance}")
    return _mean_correlations(_bases(features, variance), pairs)


def _mean_correlations(bases: list[tuple[Tensor, Tensor]], pairs: Pairs) -> Array:
    models = [Given(basis) for basis, _ in bases]
    cross, _ = nuclear_norms(models, pairs)
    ranks = np.array([float(model.d) for model in models])
    return _normalised(cross, ranks, pairs, together=np.minimum)


def _pwcca(features: Features, pairs: Pairs) -> Array:
    bases = _bases(features)

    def weighted_means(i: int, j: int) -> tuple[float, float]:
        """Mean correlations with the weights of the first model and of the second."""
        basis_x, loads_x = bases[i]
        basis_y, loads_y = bases[j]
        left, correlations, right = torch.linalg.svd(
            basis_x.T @ basis_y, full_matrices=False)
        correlations = correlations.clamp(max=1)
        weights_x = _variate_weights(left, correlations, loads_x)
        weights_y = _variate_weights(right.T, correlations, loads_y)
        return (float(weights_x @ correlations / weights_x.sum()),
                float(weights_y @ correlations / weights_y.sum()))

    has_variance = np.array([float(basis.shape[1] > 0) for basis, _ in bases])
    cross = _one_by_one(weighted_means, has_variance, pairs)
    return _normalised(cross, has_variance, pairs)


def _variate_weights(variates: Tensor, correlations: Tensor, loads: Tensor) -> Tensor:
    """Weights of canonical variates (k,): how much of all units each describes.

    The variates with one and the same correlation are an arbitrary basis of their span.
    Each has the mean weight over all orthonormal bases of this span.

    Parameters
    ----------
    variates : Tensor
        (rank, k), orthonormal columns.
    correlations : Tensor
        (k,), in falling order.
    loads : Tensor
        (rank, d), the units in the same basis.
    """
    coordinates = variates.T @ loads  # (k, d)
    weights = coordinates.abs().sum(1)
    same = torch.finfo(correlations.dtype).eps ** 0.5
    values = correlations.cpu().numpy()
    is_first = -np.diff(values, prepend=np.inf) > same
    if is_first.all() and values.min(initial=1) > same:
        return weights
    starts = np.flatnonzero(is_first)
    for start, stop in zip(starts, [*starts[1:], len(values)]):
        span = coordinates[start:stop]  # (tied variates, d)
        dimension = stop - start
        if values[stop - 1] <= same:
            # All that no other variate describes has correlation 0, whether or not the
            # decomposition returns it.
            span = loads - variates[:, :start] @ coordinates[:start]
            dimension = len(loads) - start
        if dimension > 1:
            lengths = torch.linalg.vector_norm(span, dim=0)  # (d,)
            weights[start:stop] = _mean_coordinate(dimension) * lengths.sum()
    return weights


def _mean_coordinate(dimension: int) -> float:
    """Mean absolute coordinate of a random unit vector, 2 / pi in the plane."""
    log_ratio = math.lgamma(dimension / 2) - math.lgamma((dimension + 1) / 2)
    return math.exp(log_ratio) / math.sqrt(math.pi)


def _bases(features: Features, variance: float = 1) -> list[tuple[Tensor, Tensor]]:
    """Orthonormal basis U (n, rank) of each model, and its units in it, U'X (rank, d).

    The basis holds the leading principal components with this share of the variance.
    """
    bases = []
    for model in represented(features):
        q, r = torch.linalg.qr(model.rows())
        u, s, v = torch.linalg.svd(r, full_matrices=False)
        rounding = max(model.n, model.d) * torch.finfo(r.dtype).eps
        least = max(tolerance(model.values), rounding)
        rank = int((s > least * s.amax()).sum()) if model.d else 0
        if variance < 1 and rank:
            cumulated = s.square().cumsum(0) / s.square().sum()
            below = int((cumulated < variance * (1 - _ROUNDING)).sum())
            rank = min(rank, below + 1)
        bases.append((q @ u[:, :rank], s[:rank, None] * v[:rank]))
    return bases


# ------------------------------------------------------------------- shared steps


def _one_by_one(of_pair: Callable[[int, int], float | tuple[float, float]],
                self_products: Array, pairs: Pairs) -> Array:
    """Values of a function of two positions: one number, or one per direction."""
    count = len(self_products)
    a, b = np.triu_indices(count, 1) if pairs is None else pairs

    def both_directions(pair: tuple[int, int]) -> Array:
        return np.broadcast_to(of_pair(*pair), 2)

    values = np.array(in_threads(both_directions, zip(a, b)))  # (pairs, 2)
    if pairs is not None:
        return values[:, 0]
    result = np.diag(self_products)
    result[a, b] = values[:, 0]
    result[b, a] = values[:, 1]
    return result


def _index(pairs: Pairs, count: int) -> tuple[Positions, Positions]:
    """Indices of rows and columns of an array with one value per pair."""
    if pairs is not None:
        return pairs
    rows, columns = np.ogrid[:count, :count]
    return rows, columns


def _geometric_mean(a: Array, b: Array) -> Array:
    return np.sqrt(a) * np.sqrt(b)


def _normalised(cross: Array, self_products: Array, pairs: Pairs,
                lowest: float = 0,
                together: Callable[[Array, Array], Array] = _geometric_mean) -> Array:
    """Divide by the products of both models with themselves; NaN where one is zero.

    The similarity of a model to itself is 1, without rounding.
    """
    _warn_of(self_products <= 0)
    scale = np.where(self_products <= 0, np.nan, self_products)
    a, b = _index(pairs, len(self_products))
    similarities = np.clip(cross / together(scale[a], scale[b]), lowest, 1)
    return _with_exact_ones(similarities, a, b)


def _with_exact_ones(similarities: Array, a: Positions, b: Positions) -> Array:
    """Put ones where a model stands beside itself and has variance."""
    similarities[(a == b) & np.isfinite(similarities)] = 1
    return similarities


def _warn_of(dead: NDArray[np.bool_]) -> None:
    """Warn the caller of this package that some models have no similarity."""
    if not dead.any():
        return
    message = (f"{dead.sum()} of {dead.size} representations have no variance left (a "
               f"dead layer, or nothing but the inputs): they have no similarity, NaN")
    warn_caller(message)


# ------------------------------------------------------------------- the records


@dataclass(frozen=True)
class Measure:
    """All that is known of one measure.

    Attributes
    ----------
    label : str
        Name in figures and text.
    compute : function
        ``compute(features, pairs, **options)`` returns the similarities (N, N), or
        (P,) for listed pairs.
    invariances : frozenset of str
        Changes of a network that leave the value as it is, whichever of the two
        networks is changed: names in ``weights.symmetry.TRANSFORMATIONS``, and
        "probes", the same network with other samples. Tests assert both the
        invariances and the variances, and the book measures them.
    lowest : float
        Least possible value.
    symmetric : bool
        Whether the value is the same in both orders of the two models.

    Examples
    --------
    >>> MEASURES["pwcca"].symmetric, MEASURES["unbiased_cka"].lowest
    (False, -1)
    >>> MEASURES["dcka"].options
    ['inputs', 'psd']
    """

    label: str
    compute: Callable[..., Array]
    invariances: frozenset[str]
    lowest: float = 0
    symmetric: bool = True

    @property
    def options(self) -> list[str]:
        """Names of the keyword arguments that the measure takes."""
        return list(inspect.signature(self.compute).parameters)[2:]


BASIS_CHANGES = ("permutation", "rotation", "isotropic scale", "translation",
                 "unit rescaling", "invertible map")

# First the changes that no activation on the probes shows, then larger and larger
# groups of transformations.
_FUNCTION = frozenset({"output map", "silent weights"})
_OF_UNITS = _FUNCTION | {"permutation", "isotropic scale"}
_OF_ACTIVATIONS = _OF_UNITS | {"rotation", "translation"}
_OF_SPANS = _OF_ACTIVATIONS | {"unit rescaling", "invertible map", "intertwiner"}
_OF_CHAINS = frozenset({*BASIS_CHANGES, "intertwiner", "probes"})
_OF_RELU = _OF_UNITS | {"unit rescaling", "intertwiner"}

MEASURES: dict[str, Measure] = {
    "procrustes": Measure("Procrustes", _procrustes, _OF_ACTIVATIONS),
    "cka": Measure("CKA", _cka, _OF_ACTIVATIONS),
    "dcka": Measure("dCKA", _dcka, _OF_ACTIVATIONS),
    "wcka": Measure("wCKA", _wcka, _OF_CHAINS),
    "unbiased_cka": Measure(
        "unbiased CKA", _unbiased_cka, _OF_ACTIVATIONS, lowest=-1),
    "minibatch_cka": Measure(
        "minibatch CKA", _minibatch_cka, _OF_ACTIVATIONS, lowest=-1),
    "rbf_cka": Measure("CKA, Gaussian kernel", _rbf_cka, _OF_ACTIVATIONS),
    "mean_cca": Measure("mean CCA", _mean_cca, _OF_SPANS),
    "svcca": Measure("SVCCA", _svcca, _OF_ACTIVATIONS),
    "pwcca": Measure(
        "PWCCA", _pwcca, _OF_UNITS | {"translation"}, symmetric=False),
    "relu_procrustes": Measure(
        "ReLU Procrustes", _relu_procrustes, _OF_RELU, lowest=-1),
    "relu_cka": Measure(
        "ReLU CKA", _relu_cka, _OF_RELU | {"translation"}, lowest=-1),
}

# In the order of the paper's figures.
PAPER_MEASURES = ("procrustes", "cka", "dcka", "wcka")
ACTIVATION_MEASURES = PAPER_MEASURES[:3]
MEASURE_LABELS = {name: MEASURES[name].label for name in PAPER_MEASURES}
INVARIANCES = {name: measure.invariances for name, measure in MEASURES.items()}
# Names of variants in tables.
NO_PSD = "dcka, no PSD step"  # keeps the negative eigenvalues
UNCENTRED = ("procrustes, uncentred", "cka, uncentred", "wcka, uncentred")
