"""Families among networks, from a score of kinship for each pair.

Networks are merged along the strongest pairs (single linkage, whose merges are the
edges of the maximum spanning tree) down to the last pair that strangers would not
reach. Strangers are the pairs between different families, so that the null is measured
on the same networks. It says which networks are neighbours, and not which of two comes
from the other.

The test of one merge, on the scale of Fisher's z (arctanh of the score):

- Pairs of the same two families repeat one another. Their mean is one observation, and
  the mean and the variance of all such means describe unrelated families; the variance
  of pairs around the mean of their two families is added.
- The distance of the edge from the mean, in the root of that sum, is judged by
  Student's t. Degrees of freedom are those of two variances added up (Satterthwaite
  1946): of k families and N networks, k - 1 for the first one and N - k for the second.
- A merge is the largest of all pairs that are not yet within a family, so p is
  multiplied by their number, which is Holm's step-down correction (1979).

The families are those after the last merge with p below 1 %. Of two or three families
that are told apart by a wide gap only, it is said that they do not say how much
strangers vary, and no p is given.

The rule finds groups that are closer than other pairs of the same networks. Where some
networks share their task and others do not, the task can make such groups, without any
descent: strangers must be of the kind in question.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..measures.validation import Array

Labels = NDArray[np.integer]

# p of an edge, corrected, from which networks are not called a family
LEVEL = 0.01
# With fewer, strangers are too few to say how much they vary: no p is given.
LEAST_PAIRS = 10
LEAST_FAMILIES = 3
# With fewer, no merge leaves three families.
LEAST_NETWORKS = 4
# Scores that differ from 1 by less are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Edge:
    """A pair of neighbours in a family.

    Attributes
    ----------
    a, b : int
        Positions of the two networks; neither is said to come from the other.
    score : float
        Their score of kinship.
    p : float
        The probability that strangers reach it, corrected; NaN where it is not known.

    Examples
    --------
    >>> Edge(0, 1, 0.9, 0.001).score
    0.9
    """

    a: int
    b: int
    score: float
    p: float


@dataclass(frozen=True)
class Forest:
    """Families of networks, and the tree of each.

    Attributes
    ----------
    labels : ndarray of int
        The family of each network (N,); a network without kin has one of its own.
    edges : list of Edge
        Of the families' trees, from the strongest on. Where networks are too few for
        families, of a tree of all networks.
    strangers : ndarray
        Scores of the pairs between different families; none where nobody knows.
    undecided : str
        The reason why there is no p; "" if there is one, or if no pair stands out.

    Examples
    --------
    >>> Forest(np.array([0, 0, 1]), [], np.array([0.2, 0.1]), "").families()
    [[0, 1]]
    """

    labels: Labels
    edges: list[Edge]
    strangers: Array
    undecided: str

    def families(self) -> list[list[int]]:
        """Return the networks of each family of at least two, the largest first."""
        families = []
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label).tolist()
            if len(members) > 1:
                families.append(members)
        return sorted(families, key=lambda members: (-len(members), members))

    def alone(self) -> list[int]:
        """Return the networks that are in no tree."""
        in_trees = {position for edge in self.edges for position in (edge.a, edge.b)}
        return [i for i in range(len(self.labels)) if i not in in_trees]


# ------------------------------------------------------------ trees


def spanning_edges(scores: Array) -> list[tuple[int, int]]:
    """Return the edges of the maximum spanning tree, from the strongest on.

    Parameters
    ----------
    scores : ndarray
        (N, N), symmetric; the diagonal is not read.

    Returns
    -------
    list of pairs of int
        N - 1 pairs of positions (a, b) with a < b. Of equal scores the first comes
        first.

    Raises
    ------
    ValueError
        For a table that is not square and symmetric, or not finite off the diagonal.

    Examples
    --------
    >>> spanning_edges(np.array([[1, 0.9, 0.2], [0.9, 1, 0.5], [0.2, 0.5, 1]]))
    [(0, 1), (1, 2)]
    """
    scores = _checked(scores)
    count = len(scores)
    # Prim's algorithm: each network outside the tree knows its best one inside.
    outside = np.arange(1, count)
    inside = np.zeros(count, int)
    best = scores[0].copy()
    edges = []
    while len(outside):
        network = outside[best[outside].argmax()]
        pair = sorted((int(network), int(inside[network])))
        edges.append((pair[0], pair[1]))
        outside = outside[outside != network]
        is_better = scores[network] > best
        best[is_better] = scores[network][is_better]
        inside[is_better] = network
    return sorted(edges, key=lambda edge: (-scores[edge], edge))


def _checked(scores: Array) -> Array:
    """Return scores as an array, or say why they are no table of pairs."""
    scores = np.asarray(scores, float)
    count = len(scores)
    if scores.shape != (count, count):
        raise ValueError(f"scores: wanted one row and column per network, got "
                         f"{scores.shape}")
    above = scores[np.triu_indices(count, 1)]
    below = scores.T[np.triu_indices(count, 1)]
    if not np.isfinite(above).all() or not np.array_equal(above, below):
        raise ValueError("scores: wanted a finite score for each pair, the same both "
                         "ways")
    return scores


def _labels_of(count: int, edges: Sequence[tuple[int, int]]) -> Labels:
    """Return the component of each network, numbered by their first networks."""
    labels = np.arange(count)
    for a, b in edges:
        low, high = sorted((labels[a], labels[b]))
        labels[labels == high] = low
    numbers: Labels = np.unique(labels, return_inverse=True)[1]
    return numbers


# ------------------------------------------------------------ strangers


@dataclass(frozen=True)
class _Strangers:
    """What is known of pairs between families, on the scale of Fisher's z."""

    families: int
    pairs: int
    mean: float
    variance: float
    degrees: float

    def p(self, z: Array) -> Array:
        """Return the probability that one more pair of strangers reaches a score."""
        spread = np.sqrt(self.variance * (1 + 1 / self.families))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (z - self.mean) / spread
        values: Array = stats.t.sf(t, self.degrees)
        return values


def _strangers(z: Array, labels: Labels) -> _Strangers:
    """Describe the pairs between families; see the module for the two variances."""
    networks = len(labels)
    count = int(labels.max()) + 1
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(count))

    def sums_of(values: Array) -> Array:
        """Sums over the pairs of each two families, (pairs of families,)."""
        grouped = np.add.reduceat(values[np.ix_(order, order)], starts, axis=0)
        sums: Array = np.add.reduceat(grouped, starts, axis=1)
        return sums[above]

    above = np.triu_indices(count, 1)
    sizes = np.bincount(labels)
    numbers = np.outer(sizes, sizes)[above]
    sums = sums_of(z)
    squares = sums_of(z**2)
    pairs = int(numbers.sum())
    if count < 2:
        return _Strangers(count, pairs, np.nan, np.nan, np.nan)
    means = sums / numbers  # (pairs of families,)
    within = max(float((squares - numbers * means**2).sum()), 0.0)
    repeated = pairs - len(means)
    within = within / repeated if repeated else 0.0
    between = float(means.var(ddof=1)) if len(means) > 1 else 0.0
    variance = between + within
    terms = between**2 / (count - 1)
    if networks > count:
        terms += within**2 / (networks - count)
    degrees = variance**2 / terms if terms > 0 else float(networks - 1)
    return _Strangers(count, pairs, float(means.mean()), variance, degrees)


# ------------------------------------------------------------ families


def family_forest(scores: Array) -> Forest:
    """Find families of networks; see the module for the rule.

    Parameters
    ----------
    scores : ndarray
        (N, N), symmetric, at most 1: a score of kinship for each pair.

    Returns
    -------
    Forest
        Where no merge is beyond strangers, there is no family: then either nobody has
        kin here, or all are kin. Edges have no p where fewer than ``LEAST_PAIRS`` pairs
        of strangers are left, or where the networks fall into two or three groups with
        a gap that these few do not prove. Of few networks among which no pair stands
        out, there is a tree of all, without families.

    Raises
    ------
    ValueError
        See ``spanning_edges``; also for less than two networks, or scores above 1.

    Examples
    --------
    >>> scores = 0.3 + 0.01 * np.cos(np.arange(36.0)).reshape(6, 6)
    >>> scores = (scores + scores.T) / 2
    >>> scores[4, 5] = scores[5, 4] = 0.9
    >>> forest = family_forest(scores)
    >>> forest.families(), forest.edges[0].p < 0.01, len(forest.strangers)
    ([[4, 5]], True, 14)
    """
    scores = _checked(scores)
    count = len(scores)
    if count < 2:
        raise ValueError(f"wanted at least two networks, got {count}")
    a, b = np.triu_indices(count, 1)
    if scores[a, b].max() > 1 + _ROUNDING:
        raise ValueError(f"scores: wanted at most 1, got {scores[a, b].max()}")
    edges = spanning_edges(scores)
    z = _fisher(scores)
    for merges in range(count - LEAST_FAMILIES, 0, -1):
        p = _corrected(z, edges[:merges])
        if p[-1] < LEVEL:
            return _families(scores, edges[:merges], p)
    merges = _merges_to_few(z, edges)
    if merges:
        return _families(scores, edges[:merges], None)
    # Without kin all pairs are of strangers, of which one network more makes enough.
    if len(a) > LEAST_PAIRS:
        return Forest(np.arange(count), [], scores[a, b], "")
    reason = (f"{count} networks are too few to tell kin from strangers; "
              f"{_ADVICE}")
    tree = _edges(scores, edges, np.full(len(edges), np.nan))
    return Forest(np.arange(count), tree, np.zeros(0), reason)


_ADVICE = "add networks that are known to be strangers"


def against_other_strangers(forest: Forest, scores: Array, others: Array) -> Forest:
    """Return a forest whose edges have p against strangers from elsewhere.

    Parameters
    ----------
    forest : Forest
        As ``family_forest`` returns it; its families stay as they are.
    scores : ndarray
        (N, N), those that it was found from.
    others : ndarray
        (k,), at least three scores of pairs of strangers that are independent of each
        other, each of another kind of network.

    Returns
    -------
    Forest
        Its strangers are `others`. p is the probability that one more kind reaches a
        score, by Student's t on the scale of Fisher's z with k - 1 degrees of freedom;
        corrected as in the module.

    Raises
    ------
    ValueError
        For fewer than three strangers.

    Examples
    --------
    >>> scores = np.array([[1, 0.9], [0.9, 1]])
    >>> forest = family_forest(scores)
    >>> forest = against_other_strangers(forest, scores, np.array([0.1, 0.2, 0.15]))
    >>> forest.edges[0].p < 0.01, bool(forest.undecided)
    (True, True)
    """
    others = np.asarray(others, float)
    if len(others) < LEAST_FAMILIES:
        raise ValueError(f"wanted at least {LEAST_FAMILIES} strangers, got "
                         f"{len(others)}")
    if not forest.edges:
        return replace(forest, strangers=others)
    z = _fisher(others)
    strangers = _Strangers(
        len(z), len(z), float(z.mean()), float(z.var(ddof=1)), len(z) - 1)
    pairs = [(edge.a, edge.b) for edge in forest.edges]
    p = _by_holm(strangers, _fisher(_checked(scores)), pairs)
    return replace(
        forest, edges=_edges(scores, pairs, p), strangers=others)


def _fisher(scores: Array) -> Array:
    """Return Fisher's z of scores; a score of 1 has a large one."""
    z: Array = np.arctanh(np.clip(scores, -1 + _ROUNDING, 1 - _ROUNDING))
    return z


def _merges_to_few(z: Array, edges: Sequence[tuple[int, int]]) -> int:
    """Return the number of merges that leave two or three families; 0 if none does.

    So few families do not say how much unrelated ones vary. Of the two numbers that one
    is taken behind which the next merge is weaker by more, if strangers would not reach
    its last merge, were all networks independent.
    """
    networks = len(z)
    if networks < LEAST_NETWORKS:
        return 0
    levels = [z[edge] for edge in edges]
    candidates = (networks - 3, networks - 2)
    merges = max(candidates, key=lambda k: levels[k - 1] - levels[k])
    p = _corrected(z, edges[:merges], networks - 1)
    return merges if p[-1] < LEVEL else 0


def _families(
    scores: Array, pairs: Sequence[tuple[int, int]], p: Array | None,
) -> Forest:
    """Return the forest of some merges, with p if there are enough strangers."""
    labels = _labels_of(len(scores), pairs)
    a, b = np.triu_indices(len(scores), 1)
    strangers = scores[a, b][labels[a] != labels[b]]
    reason = ""
    if p is None:
        reason = "so few families do not say how much strangers vary"
    elif len(strangers) < LEAST_PAIRS:
        reason = (f"{len(strangers)} pairs of different families do not say how much "
                  f"strangers vary, for which it takes {LEAST_PAIRS}")
    if p is None or reason:
        reason = f"{reason}; {_ADVICE}"
        p = np.full(len(pairs), np.nan)
    return Forest(labels, _edges(scores, pairs, p), strangers, reason)


def _edges(
    scores: Array, pairs: Sequence[tuple[int, int]], p: Array,
) -> list[Edge]:
    """Return edges with their scores and p."""
    edges = []
    for (i, j), p_of_edge in zip(pairs, p):
        edges.append(Edge(i, j, float(scores[i, j]), float(p_of_edge)))
    return edges


def _corrected(
    z: Array, edges: Sequence[tuple[int, int]], degrees: float | None = None,
) -> Array:
    """Return p of each merge against the strangers that all merges leave, by Holm.

    `degrees` of freedom are by default those of the strangers.
    """
    networks = len(z)
    strangers = _strangers(z, _labels_of(networks, edges))
    if degrees is not None:
        strangers = replace(strangers, degrees=degrees)
    return _by_holm(strangers, z, edges)


def _by_holm(
    strangers: _Strangers, z: Array, edges: Sequence[tuple[int, int]],
) -> Array:
    """Return p of each merge, times the number of pairs not yet within a family."""
    a, b = np.array(edges).T
    p = np.nan_to_num(strangers.p(z[a, b]), nan=1.0)
    remaining = _pairs_before(len(z), edges)
    corrected: Array = np.maximum.accumulate(np.minimum(p * remaining, 1))
    return corrected


def _pairs_before(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return how many pairs are in different components before each merge."""
    labels = np.arange(count)
    sizes = np.ones(count, int)
    left = count * (count - 1) // 2
    before = []
    for a, b in edges:
        before.append(left)
        kept, merged = labels[a], labels[b]
        left -= int(sizes[kept] * sizes[merged])
        sizes[kept] += sizes[merged]
        labels[labels == merged] = kept
    return before
