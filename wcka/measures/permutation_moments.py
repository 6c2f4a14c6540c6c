"""Moments over all ways to re-pair the rows of two kernels.

Two kernels K and L (n, n) of the same rows, centred and without trace, have the inner
product S = sum_ij K_ij L_ij. If the rows of one are re-paired at random, S becomes
sum_ij K_ij L_p(i)p(j) with a random permutation p. Its mean is zero. Its second and
third moments over all n! permutations follow from a few sums over each kernel alone:
Kazi-Aoual et al. 1995, who list them, as do Josse, Pages & Husson 2008. Here they are
derived, which takes less room than their list.

S to the power m is a sum over m pairs of indices. Which of the 2m indices are equal is
a pattern: a partition of them, or a graph with m edges whose vertices are the different
indices. All patterns with v vertices have the probability (n - v)! / n!, so the moment
is a sum over patterns of the sums over K and L with all indices different. These follow
from sums with free indices by Moebius inversion over the partitions of the vertices.
Of those sums few are not zero: a centred kernel has none in which an index occurs once,
and a kernel without trace none in which a diagonal entry stands alone.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import chain, permutations
from math import factorial, perm, prod
from typing import TypeVar

import numpy as np

from .validation import Array

# The edges of a graph, with its vertices numbered from 0 on; an edge (i, i) is a
# diagonal entry.
Graph = tuple[tuple[int, int], ...]

# The sums that the moments need, by their graphs. In words, of the second moment:
# K_ii^2 and K_ij^2; of the third: K_ii^3, K_ii K_ij^2, K_ii K_ij K_jj, K_ij^3 and
# K_ij K_jk K_ki.
SECOND: tuple[Graph, ...] = (((0, 0), (0, 0)), ((0, 1), (0, 1)))
THIRD: tuple[Graph, ...] = (
    ((0, 0), (0, 0), (0, 0)), ((0, 0), (0, 1), (0, 1)), ((0, 0), (0, 1), (1, 1)),
    ((0, 1), (0, 1), (0, 1)), ((0, 1), (0, 2), (1, 2)))


@cache
def coefficients(sums: tuple[Graph, ...], n: int) -> Array:
    """Return the moment as a bilinear form of the sums over both kernels.

    Parameters
    ----------
    sums : tuple of Graph
        ``SECOND`` or ``THIRD``.
    n : int
        Number of rows, from 1 on.

    Returns
    -------
    ndarray
        (k, k) for k sums: with vectors u and v of the sums over K and over L the moment
        is u' C v.

    Examples
    --------
    >>> x = np.array([2.0, 0.0, -1.0, -1.0])
    >>> k = np.outer(x, x) - 2 * np.eye(4) + 0.5  # centred, and without trace
    >>> sums = np.array([(np.diag(k) ** 2).sum(), (k**2).sum()])
    >>> by_hand = [(k * k[np.ix_(p, p)]).sum() ** 2 for p in permutations(range(4))]
    >>> bool(np.isclose(sums @ coefficients(SECOND, 4) @ sums, np.mean(by_hand)))
    True
    """
    form = np.zeros((len(sums), len(sums)))
    for (vertices, expansion), count in _patterns(len(sums[0])).items():
        if vertices <= n:
            inverted = dict(expansion)
            row = np.array([inverted.get(graph, 0) for graph in sums], float)
            form += count * np.outer(row, row) / perm(n, vertices)
    return form


_Item = TypeVar("_Item")
_Expansion = tuple[tuple[Graph, int], ...]


@cache
def _patterns(edges: int) -> dict[tuple[int, _Expansion], int]:
    """Return how many patterns have so many vertices and such an expansion.

    The expansion is that of their sum over different indices in sums over free ones.
    """
    expansions: dict[Graph, tuple[int, _Expansion]] = {}
    counts: Counter[tuple[int, _Expansion]] = Counter()
    for partition in _partitions(list(range(2 * edges))):
        graph = _graph(partition)
        if graph not in expansions:
            expansions[graph] = len(partition), _expansion(partition)
        counts[expansions[graph]] += 1
    return counts


def _expansion(partition: list[list[int]]) -> _Expansion:
    """Expand a sum over different indices in sums over free ones that are not zero."""
    result: Counter[Graph] = Counter()
    for merged in _partitions(partition):
        factors = []
        for blocks in merged:
            factors.append((-1) ** (len(blocks) - 1) * factorial(len(blocks) - 1))
        graph = _graph([list(chain.from_iterable(blocks)) for blocks in merged])
        if not _is_zero(graph):
            result[graph] += prod(factors)
    return tuple(sorted(result.items()))


def _partitions(items: list[_Item]) -> Iterator[list[list[_Item]]]:
    """Yield all ways to divide a list into blocks."""
    if not items:
        yield []
        return
    first, *others = items
    for partition in _partitions(others):
        yield [[first], *partition]
        for i, block in enumerate(partition):
            yield [*partition[:i], [first, *block], *partition[i + 1:]]


def _graph(partition: list[list[int]]) -> Graph:
    """Return the graph of a pattern; equal up to the names of its vertices, one form.

    Indices 2k and 2k + 1 are those of edge k.
    """
    vertex_of = {}
    for vertex, block in enumerate(partition):
        for index in block:
            vertex_of[index] = vertex
    forms = []
    for names in permutations(range(len(partition))):
        edges = []
        for k in range(len(vertex_of) // 2):
            ends = names[vertex_of[2 * k]], names[vertex_of[2 * k + 1]]
            edges.append((min(ends), max(ends)))
        forms.append(tuple(sorted(edges)))
    return min(forms)


def _is_zero(graph: Graph) -> bool:
    """Tell whether an index occurs once, or in one diagonal entry and nowhere else."""
    degrees: Counter[int] = Counter()
    for edge in graph:
        degrees.update(edge)
    for vertex, degree in degrees.items():
        if degree == 1 or (degree == 2 and (vertex, vertex) in graph):
            return True
    return False
