"""What chance alone would give: the null distributions of similarities.

The rows of two representations are re-paired at random: row i of one stands beside any
row of the other. What is then left of a similarity does not come from what the two
models make of the same row. All measures that are inner products of kernels have
the mean, the variance and the skewness of this null in closed form, from sums over each
kernel alone; see ``permutation_moments``. Their p-values are those of a gamma
distribution with these three moments (Pearson's type III), as in Josse, Pages & Husson
2008. The other measures draw re-pairings.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import special, stats

from .all_pairs import (
    MEASURES,
    Features,
    checked,
    kernel_features,
    kernel_similarities,
    measure_kernels,
    similarities,
)
from .inner_products import KEPT, Pairs, pieces, represented
from .kernel_sums import KernelSums, sums_of, sums_of_kernels
from .permutation_moments import SECOND, THIRD, coefficients
from .validation import Array, warn_caller, whole_number

# Measures that are inner products of kernels
CLOSED_FORM = ("cka", "wcka", "dcka", "unbiased_cka", "rbf_cka", "relu_cka")
DRAWS = 999
_LEAST_DRAWS = 19  # with fewer no p-value is below 0.05
_LEAST_ROWS = 4  # with fewer there are too few re-pairings


class Null(NamedTuple):
    """A similarity, and what it would be with the rows re-paired at random.

    All but `draws` are floats, or arrays of one shape.

    Attributes
    ----------
    value : float or ndarray
        The similarity.
    mean, sd, skewness : float or ndarray
        Of the similarity over all re-pairings.
    z : float or ndarray
        (value - mean) / sd.
    p : float or ndarray
        The share of re-pairings with a similarity that is at least as high.
    draws : int
        Number of re-pairings that were drawn; 0 for a closed form.

    Examples
    --------
    >>> null = Null(value=0.5, mean=0.1, sd=0.1, skewness=0.0, z=4.0, p=3e-5)
    >>> round(null.threshold(0.05), 4), round(null.score(0.05), 4)
    (0.2645, 0.3202)
    """

    value: Any
    mean: Any
    sd: Any
    skewness: Any
    z: Any
    p: Any
    draws: int = 0

    def threshold(self, level: float = 0.05) -> Any:
        """Return the similarity that chance exceeds with the probability `level`.

        It is that of the fitted distribution; where a few rows are long, p is made
        larger than that (see ``null``).

        Parameters
        ----------
        level : float
            Between 0 and 1.

        Raises
        ------
        ValueError
            For another level.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: wanted a number between 0 and 1, got {level}")
        quantile = stats.pearson3.ppf(1 - level, self.skewness)
        return _as_given(self.mean + self.sd * quantile)

    def score(self, level: float = 0.05) -> Any:
        """Return the value on a scale from 0 at the threshold to 1, as Gröger et al.

        What is below the threshold is 0 (arXiv 2602.14486), and so is everything where
        the threshold is 1 or more: chance can then be as high as any similarity.

        Parameters
        ----------
        level : float
            Between 0 and 1.

        Returns
        -------
        float or ndarray
            In [0, 1], or NaN where there is no null.

        Raises
        ------
        ValueError
            For another level.
        """
        threshold = self.threshold(level)
        room = np.asarray(1 - threshold)
        # Without room both differences are negative, and their ratio is not.
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.clip((self.value - threshold) / room, 0, 1)
        return _as_given(np.where(room <= 0, 0.0, scores))


def _as_given(values: Any) -> Any:
    """Return a float for a number, and arrays as they are."""
    return float(values) if np.ndim(values) == 0 else values


# ------------------------------------------------------------------------ of all pairs


def null_distributions(
    name: str, features: Sequence[ArrayLike], labels: Sequence[str],
    pairs: Pairs = None, draws: int = DRAWS, **options: Any,
) -> Null:
    """Return the null distributions of all pairs of models by a measure's name.

    Parameters
    ----------
    name, features, labels, pairs, **options
        As in ``all_pairs.similarities``.
    draws : int
        Number of re-pairings for measures without a closed form.

    Returns
    -------
    Null
        Of arrays (N, N), or (P,) for `pairs`. NaN where a model has no variance, and
        for fewer than four rows.

    Raises
    ------
    ValueError, TypeError
        As ``all_pairs.similarities``; for dCKA with ``psd=False``; for fewer than 19
        draws, with which no p-value is below 0.05.

    Examples
    --------
    >>> x = np.arange(20.0).reshape(10, 2) ** 2
    >>> null = null_distributions("cka", [x, x], ["x", "y"])
    >>> round(float(null.mean[0, 1]), 4), round(float(null.z[0, 1]), 1)
    (0.1111, 6.6)
    """
    draws = whole_number(draws, "draws", _LEAST_DRAWS)
    arrays = checked(name, features, labels, options)
    if "dtype" in options:
        raise TypeError("a null takes no dtype: it is computed in double precision")
    n = len(arrays[labels[0]])
    if n < _LEAST_ROWS:
        warn_caller(f"{n} rows can be re-paired in {math.factorial(n)} ways only: "
                    f"there is no null, NaN")
        values = similarities(name, features, labels, pairs, **options)
        unknown = np.full(values.shape, np.nan)
        return Null(values, unknown, unknown, unknown, unknown, unknown)
    if name in ("cka", "wcka", "dcka"):
        models = kernel_features(name, arrays, **options)
        values = kernel_similarities(models, pairs)
        return judged(values, *moments(sums_of(models), n, pairs))
    values = similarities(name, features, labels, pairs, **options)
    if name in ("rbf_cka", "relu_cka"):
        sums = sums_of_kernels(measure_kernels(name, arrays, **options))
        return judged(values, *moments(sums, n, pairs))
    if name not in CLOSED_FORM:
        return _drawn(name, values, arrays, pairs, draws, options)
    sums = sums_of(represented(arrays), u_centred=True)
    return judged(values, *moments(sums, n, pairs))


def moments(
    sums: KernelSums, n: int, pairs: Pairs = None
) -> tuple[Array, Array, Array, Array]:
    """Return the moments of all pairs of kernels over all re-pairings of their rows.

    Parameters
    ----------
    sums : KernelSums
        Of N kernels.
    n : int
        Their number of rows.
    pairs : pair of int arrays (P,), optional
        Positions of the kernels; all pairs by default.

    Returns
    -------
    mean, sd, skewness : ndarray
        (N, N) or (P,), of the kernels' cosine.
    smooth : ndarray
        The skewness that the kernels' eigenvalues alone would make, without their
        diagonals: that of many rows of similar length.

    Examples
    --------
    >>> from .inner_products import Representation
    >>> import torch
    >>> x = torch.tensor([[2.0], [0.0], [-1.0], [-1.0]])
    >>> mean, sd, _, _ = moments(sums_of([Representation(x)] * 2), 4)
    >>> round(float(mean[0, 1]), 4), round(float(sd[0, 1]), 4)
    (0.3333, 0.3118)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums.trace / np.sqrt(sums.squares)
        second = sums.second / sums.squares[:, None]
        third = sums.third / sums.squares[:, None] ** 1.5
    of_second = coefficients(SECOND, n)
    of_third = coefficients(THIRD, n)
    if pairs is None:
        mean = np.outer(means, means) / (n - 1)
        variance = second @ of_second @ second.T
        third_moment = third @ of_third @ third.T
        smooth_variance = of_second[-1, -1] * np.outer(second[:, -1], second[:, -1])
        smooth_third = of_third[-1, -1] * np.outer(third[:, -1], third[:, -1])
    else:
        a, b = pairs
        mean = means[a] * means[b] / (n - 1)
        variance = ((second @ of_second)[a] * second[b]).sum(1)
        third_moment = ((third @ of_third)[a] * third[b]).sum(1)
        smooth_variance = of_second[-1, -1] * second[a, -1] * second[b, -1]
        smooth_third = of_third[-1, -1] * third[a, -1] * third[b, -1]
    sd = np.sqrt(np.maximum(variance, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = np.where(sd > 0, third_moment / sd**3, 0)
        smooth = np.where(sd > 0, smooth_third / smooth_variance**1.5, 0)
    skewness[np.isnan(sd)] = np.nan
    return mean, sd, skewness, smooth


_SYMMETRIC = 1e-5  # skewness below which the distribution is taken as normal
# A skewed null has a longer tail than the fitted distribution, unless all directions of
# the features are equally long. Below this level the share of null pairs grew with p to
# the power of 0.85 to 1.0, so p is raised to the least of these.
_SKEWED = 0.3
_TAIL = 0.01
_TAIL_POWER = 0.85
# A few long rows decide where the skewness is so many times that of the eigenvalues,
# and larger by so much. There the share of 17 million null pairs below a level was up
# to 2.3 times the level, so p is multiplied by more; and where the skewness is extreme,
# p is at least Cantelli's bound, which holds for any distribution.
_LONG_ROWS = 1.5
_LONG_ROWS_LEAST = 0.2
_CAUTION = 2.5
_EXTREME = 6.0


def judged(values: Array, mean: Array, sd: Array, skewness: Array, smooth: Array,
           ) -> Null:
    """Return null distributions with z and p, by three moments.

    Parameters
    ----------
    values : ndarray
        Similarities, of a shape that fits the others.
    mean, sd, skewness, smooth : ndarray
        As ``moments`` returns them.

    Examples
    --------
    >>> null = judged(np.array([0.2, 0.5]), *np.array([[0.2], [0.1], [0.0], [0.0]]))
    >>> null.p.round(4).tolist()
    [0.5, 0.0013]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(sd > 0, (values - mean) / sd, np.nan)
    p = pearson_tail(z, skewness)
    is_in_tail = (skewness > _SKEWED) & (p < _TAIL)
    p = np.where(is_in_tail, _TAIL * (p / _TAIL) ** _TAIL_POWER, p)
    has_long_rows = ((skewness > _LONG_ROWS * smooth)
                     & (skewness > smooth + _LONG_ROWS_LEAST))
    p = np.where(has_long_rows, np.minimum(_CAUTION * p, 1), p)
    cantelli = np.where(z > 0, 1 / (1 + z**2), 1)
    p = np.where(has_long_rows & (skewness > _EXTREME), np.maximum(p, cantelli), p)
    p = np.where(sd == 0, 1.0, p)  # each re-pairing gives the value itself
    p = np.where(np.isnan(values), np.nan, p)
    return Null(values, mean, sd, skewness, z, p)


def pearson_tail(z: ArrayLike, skewness: ArrayLike) -> Any:
    """Return the share of Pearson's type III distribution that lies above z.

    ``scipy.stats.pearson3.sf`` gives the same in three times the time, and in thirty
    times for a single value.

    Parameters
    ----------
    z : array-like
        On the scale of mean 0 and variance 1.
    skewness : array-like
        Of the distributions, of a shape that broadcasts with that of z.

    Returns
    -------
    float or ndarray
        In [0, 1], of the shape that both broadcast to.

    Examples
    --------
    >>> pearson_tail(np.array([1.0, 1.0]), np.array([0.0, 2.0])).round(4).tolist()
    [0.1587, 0.1353]
    >>> round(pearson_tail(1.0, 2.0), 4)
    0.1353
    """
    z, skewness = np.broadcast_arrays(z, skewness)
    tail = np.array(special.ndtr(-z))  # of no skewness
    # These functions' own `where` writes beyond the end of arrays (SciPy 1.17).
    is_right = skewness > _SYMMETRIC
    tail[is_right] = special.gammaincc(*_gamma(z[is_right], skewness[is_right]))
    is_left = skewness < -_SYMMETRIC
    tail[is_left] = special.gammainc(*_gamma(-z[is_left], skewness[is_left]))
    return _as_given(tail)


def _gamma(z: Array, skewness: Array) -> tuple[Array, Array]:
    """Return the shape of a gamma distribution, and z on its scale, from zero on."""
    shape = 4 / skewness**2
    return shape, np.maximum(shape + z * np.sqrt(shape), 0)


def holm(p: ArrayLike) -> Array:
    """Return p-values corrected for their number (Holm 1979).

    Parameters
    ----------
    p : array-like
        (k,), finite.

    Returns
    -------
    ndarray
        (k,), in the same order.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    result = np.empty_like(corrected)
    result[order] = corrected
    return result


# ------------------------------------------------------------------- drawn re-pairings


_ROUNDING = 1e-12  # similarities that differ by less are the same


def _drawn(name: str, values: Array, features: Features, pairs: Pairs, draws: int,
           options: dict[str, Any]) -> Null:
    """Return null distributions from drawn re-pairings, the same ones for all pairs."""
    a, b = pairs or (np.indices(values.shape)[0], np.indices(values.shape)[1])
    labels = list(features)
    models = list(features.values())
    rng = np.random.default_rng(0)
    orders = [torch.from_numpy(rng.permutation(len(models[0]))) for _ in range(draws)]

    def re_paired(i: int, j: int) -> Array:
        """Similarities of two models with the rows of the second in new orders."""
        at_once = max(1, KEPT // (models[j].numel() * 8))
        drawn = []
        for part in pieces(draws, at_once):
            others = [models[j][order] for order in orders[part]]
            positions = np.arange(1, len(others) + 1)
            names = [f"{labels[j]}, order {k}" for k in positions]
            drawn.append(similarities(
                name, [models[i], *others], [labels[i], *names],
                (np.zeros_like(positions), positions), **options))
        return np.concatenate(drawn)

    mean, sd, skewness, p = (np.full(values.shape, np.nan) for _ in range(4))
    known: dict[tuple[int, int], Array] = {}
    for at in zip(*np.nonzero(np.isfinite(values))):
        pair = int(a[at]), int(b[at])
        if MEASURES[name].symmetric:
            pair = min(pair), max(pair)
        if pair not in known:
            known[pair] = re_paired(*pair)
        drawn = known[pair]
        mean[at] = drawn.mean()
        varies = np.ptp(drawn) > _ROUNDING
        sd[at] = drawn.std() if varies else 0
        skewness[at] = stats.skew(drawn) if varies else 0
        p[at] = (1 + (drawn >= values[at] - _ROUNDING).sum()) / (draws + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(sd > 0, (values - mean) / sd, np.nan)
    return Null(values, mean, sd, skewness, z, p, draws)
