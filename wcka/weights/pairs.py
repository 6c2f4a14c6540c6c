"""wCKA, and any measure for all pairs of networks or representations."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..measures import similarity
from ..measures.all_pairs import check_options, similarities
from ..measures.inner_products import Pairs
from ..measures.nulls import DRAWS, Null, null_distributions
from ..measures.validation import warn_caller
from .chains import chain, comparable_chain

CHAIN_OPTIONS = [*inspect.signature(chain).parameters][1:]


def wcka(a: Any, b: Any, **kw: Any) -> float:
    """Weights CKA: the CKA of two networks' chains of weights (paper, equation 5).

    Parameters
    ----------
    a, b : nn.Module, sequence of (in, out) matrices, or chain (inputs, outputs)
        Two networks with the same input coordinates. Hidden widths, depths and numbers
        of outputs may differ. A matrix is (in, out): the transpose of
        ``nn.Linear.weight``.
    **kw
        Arguments of ``chain`` for networks: ``input_shape`` for those that are not a
        fully connected ``nn.Sequential``.

    Returns
    -------
    float
        In [0, 1]. The distance form is the angle arccos(wcka). NaN, with a warning,
        where a chain is zero or the same for every input. Networks of two inputs have
        1, with a warning.

    Raises
    ------
    ValueError, TypeError
        As ``cka`` and ``chain``.

    Examples
    --------
    >>> a = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> matrices = [a[0].weight.T, a[2].weight.T]
    >>> round(wcka(a, matrices), 6)
    1.0
    """
    check_options("wcka", kw, CHAIN_OPTIONS)
    chains = [_as_chain(a, **kw), _as_chain(b, **kw)]
    _warn_of_two_inputs(chains)
    return float(similarities("wcka", chains, ["a", "b"])[0, 1])


def pairwise(measure: str | Callable[..., float], features: Any, pairs: Any = None,
             **kw: Any) -> np.ndarray:
    """Return the similarity of all pairs of N models, or of some, in batched products.

    Parameters
    ----------
    measure : str or function
        A name in ``INVARIANCES``, or the function of that name.
    features : sequence of N
        What the measure compares: (n, d_i) representations, a stack (N, n, d), or for
        wCKA networks or chains. Arrays may be memory-mapped: they are read in pieces of
        rows.
    pairs : pair of int arrays (P,), optional
        Positions of the models to compare: time then grows with P, not with N squared.
    **kw
        Arguments of the measure: ``inputs`` and ``psd`` of dCKA, those of ``chain`` for
        wCKA, ``batch_size``, ``sigma``, ``variance``. For cka also
        ``dtype=torch.float32``: up to twice as fast; sums of more than 1,024 products
        are added up in float64, so the value errs by less than 5e-4 in the worst case,
        and by about 1e-7 in practice.

    Returns
    -------
    ndarray
        (N, N), ones on the diagonal, symmetric but for pwcca, whose rows give the
        weights; (P,) for `pairs`. Models without variance are NaN; one warning counts
        them. Working memory stays within about 1 GB and a copy of one model's features
        in float64; measures with decompositions (dcka, the CCAs, relu_procrustes,
        relu_cka) take a copy of all, and those with kernels (rbf_cka, relu_cka) some n
        x n matrices.

    Raises
    ------
    ValueError, TypeError
        As the measure; for an unknown measure; for arguments it does not take.
    IndexError
        For positions that no model has.

    Examples
    --------
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> pairwise("cka", [x, 2 * x, -x]).round(6).tolist()[0]
    [1.0, 1.0, 1.0]
    >>> pairwise("cka", [x, 2 * x, -x], pairs=([0], [2])).round(6).tolist()
    [1.0]
    """
    name, features, labels, positions, options = _checked(measure, features, pairs, kw)
    return similarities(name, features, labels, positions, **options)


def null(x: Any, y: Any, measure: str | Callable[..., float] = "", *,
         draws: int = DRAWS, **kw: Any) -> Null:
    """Return a similarity, and what it would be with the rows re-paired at random.

    The rows of one of the two are put in a random order, so that row i of one no longer
    belongs to row i of the other. Of activations these are the probes, of chains of
    weights the input coordinates: the null says what is left of the similarity when the
    two models know nothing of which row is which. It says nothing about *why* they do:
    two networks that see the same images, or were trained on images with dark borders,
    are similar beyond this null without being related.

    Parameters
    ----------
    x, y : array-like (n, d) and (n, e), nn.Module, or sequence of (in, out) matrices
        What the measure compares, n from 4 on.
    measure : str or function
        A name in ``INVARIANCES``, or the function of that name; by default wCKA for
        networks and lists of matrices, and CKA for arrays, chains among them.
    draws : int
        Number of random orders for measures without a closed form.
    **kw
        Arguments of the measure, see ``pairwise``.

    Returns
    -------
    Null
        value, mean, sd, skewness, z and p, all floats. For cka, wcka, dcka,
        unbiased_cka, rbf_cka and relu_cka the moments are exact, over all n! orders. Of
        dCKA the rows without the inputs' part are re-paired. All other measures draw
        orders. NaN, with a warning, where one side has no variance, and for fewer than
        four rows.

    Raises
    ------
    ValueError, TypeError
        As the measure; for dCKA with ``psd=False``; for fewer than 19 draws.

    Notes
    -----
    Time grows like n d^2, and for the skewness like the smaller of n d^3 and n^2 d;
    where that is more than about 2e11, every k-th row stands for all in one of its five
    sums. Nothing of size n x n is in memory, but for rbf_cka and relu_cka, which take
    n^3, and for unbiased_cka where one row is far longer than all others.

    p is the tail of a gamma distribution with the three moments (Josse, Pages & Husson
    2008). It is made larger where that tail is too short: below .01 for skewed nulls,
    and where a few rows are so long that they decide the skewness.
    ``experiments.null_sizes`` counts p-values of rows that are re-paired at random, for
    50 to 3,000 rows and 2 to 512 columns: where rows are of similar length, the share
    below .05 and .01 is within 10 % of these. Below .001 it is that or smaller, and so
    are all shares where a few rows are long. p-values below about 1e-5 are those of the
    fitted tail, which nobody can check by drawing.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 100, 5))
    >>> chance, related = null(x, y), null(x, x + y)
    >>> round(chance.mean, 3), round(chance.p, 1), related.p < 1e-6
    (0.047, 0.5, True)
    """
    if not measure:
        is_network = isinstance(x, nn.Module) or _is_list_of_matrices(x)
        measure = "wcka" if is_network else "cka"
    pair = [0], [1]
    of_pair = pairwise_null(measure, [x, y], pair, draws=draws, **kw)
    value, mean, sd, skewness, z, p = (float(column[0]) for column in of_pair[:-1])
    return Null(value, mean, sd, skewness, z, p, of_pair.draws)


def pairwise_null(measure: str | Callable[..., float], features: Any, pairs: Any = None,
                  *, draws: int = DRAWS, **kw: Any) -> Null:
    """Return the null distributions of all pairs of N models, or of some.

    See ``null`` for what they are, and ``pairwise`` for the other parameters. In closed
    form each model is read once; no pair costs more than its similarity.

    Parameters
    ----------
    measure : str or function
        A name in ``INVARIANCES``, or the function of that name.
    features : sequence of N
        As in ``pairwise``.
    pairs : pair of int arrays (P,), optional
        Positions of the models to compare; all pairs by default.
    draws : int
        Number of random orders for measures without a closed form.
    **kw
        Arguments of the measure.

    Returns
    -------
    Null
        Of arrays (N, N), or (P,) for `pairs`.

    Raises
    ------
    ValueError, TypeError, IndexError
        As ``pairwise`` and ``null``.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(3, 100, 5))
    >>> of_pairs = pairwise_null("cka", x)
    >>> of_pairs.p.shape, round(float(of_pairs.mean[0, 1]), 3)
    ((3, 3), 0.047)
    """
    name, features, labels, positions, options = _checked(measure, features, pairs, kw)
    return null_distributions(
        name, features, labels, positions, draws, **options)


def _checked(measure: Any, features: Any, pairs: Any, options: dict[str, Any],
             ) -> tuple[str, list[Any], list[str], Pairs, dict[str, Any]]:
    """Return what ``similarities`` takes: networks have become chains."""
    name = (
        measure
        if isinstance(measure, str)
        else getattr(measure, "__name__", repr(measure))
    )
    if not isinstance(measure, str) and _function(name) is not measure:
        raise TypeError(
            f"measure: wanted a name or a function of wcka, got {measure!r}"
        )
    if isinstance(features, (Tensor, np.ndarray)) and features.ndim != 3:
        raise ValueError(
            f"features: wanted N representations or a stack (N, n, d), got one array "
            f"of shape {tuple(features.shape)}"
        )
    features = list(features)
    labels = [f"features[{i}]" for i in range(len(features))]
    positions = _positions(pairs, len(features))
    if name == "wcka":
        check_options(name, options, CHAIN_OPTIONS)
        features = [_as_chain(model, **options) for model in features]
        _warn_of_two_inputs(features)
        options = {}
    return name, features, labels, positions, options


def _function(name: str) -> Callable[..., float] | None:
    """The public function of a measure."""
    return wcka if name == "wcka" else getattr(similarity, name, None)


def _positions(pairs: Any, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Checked positions of the pairs to compare."""
    if pairs is None:
        return None
    pairs = tuple(pairs)
    if len(pairs) != 2:
        raise ValueError(f"pairs: wanted two rows of ints, got {len(pairs)}")
    a, b = (np.asarray(row) for row in pairs)
    kinds = {a.dtype.kind, b.dtype.kind}
    if a.ndim != 1 or a.shape != b.shape or not a.size or not kinds <= {"i", "u"}:
        raise ValueError(
            f"pairs: wanted two rows of ints of the same length, got shapes {a.shape} "
            f"and {b.shape}, {a.dtype} and {b.dtype}"
        )
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) >= n:
        raise IndexError(
            f"pairs: wanted positions from 0 to {n - 1}, got {min(a.min(), b.min())} "
            f"to {max(a.max(), b.max())}"
        )
    return a, b


def _warn_of_two_inputs(chains: list[Any]) -> None:
    if chains and np.shape(chains[0])[:1] == (2,):
        warn_caller("wCKA of any two networks of two inputs is 1: once centred, the "
                    "two rows of a chain are opposite")


def _is_list_of_matrices(a: Any) -> bool:
    return isinstance(a, (list, tuple)) and len(a) > 0 and np.ndim(a[0]) == 2


def _as_chain(a: Any, **kw: Any) -> Any:
    """A network's chain; what is a chain already stays as it is."""
    if isinstance(a, nn.Module) or _is_list_of_matrices(a):
        return comparable_chain(a, **kw)
    if isinstance(a, (dict, str, Path)):
        raise TypeError(
            f"wanted networks, got {type(a).__name__}: load weights into their module, "
            f"or compare files by `python -m wcka compare`"
        )
    if np.ndim(a) != 2:
        raise TypeError(
            f"wanted an nn.Module, a list of (in, out) matrices or a chain (inputs, "
            f"outputs), got {type(a).__name__}"
        )
    return a
