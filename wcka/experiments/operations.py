"""Multiply-adds of one comparison, counted from the shapes of its matrices.

A time belongs to a machine and a moment, a count to the algorithm. Products of matrices
are counted as the formulas have them, without what symmetry saves. A decomposition of
a k x k matrix, or its singular values, counts as k cubed, a triangle's solution as the
product that it inverts: the true factor depends on the routine and not on the shape.
What is linear in the entries, such as centring, is left out.
"""

from collections.abc import Sequence

import numpy as np


def chain_operations(widths: Sequence[int]) -> int:
    """Multiply-adds of a network's chain, multiplied from the outputs on.

    Parameters
    ----------
    widths : sequence of int
        Numbers of units, from the inputs to the outputs.

    Examples
    --------
    >>> chain_operations([784, 32, 3])  # one product, (784, 32) @ (32, 3)
    75264
    """
    operations = 0
    for before, after in zip(widths[:-2], widths[1:-1]):
        operations += before * after * widths[-1]
    return operations


def alignment_operations(rows: int, columns: int) -> int:
    """Multiply-adds of the CKA of two matrices of features, rows x columns each.

    These are X'Y, X'X and Y'Y, or two kernels and their three products where these take
    fewer.

    Examples
    --------
    >>> alignment_operations(1000, 32), alignment_operations(10, 32)
    (3072000, 6700)
    """
    by_features = 3 * rows * columns**2
    by_kernels = 2 * rows**2 * columns + 3 * rows**2
    return min(by_features, by_kernels)


def pair_operations(probes: int, widths: Sequence[int], layer: int) -> dict[str, int]:
    """Return the multiply-adds of comparing two networks of one shape, by measure.

    Measures of activations get them computed beforehand. wCKA multiplies both chains.

    Parameters
    ----------
    probes : int
        Number of probe images.
    widths : sequence of int
        Numbers of units of a fully connected network, from the inputs to the outputs.
    layer : int
        The layer whose activations are compared, 1 to the network's depth.

    Raises
    ------
    ValueError
        For a layer that the network does not have.

    Examples
    --------
    >>> few = pair_operations(100, [784, 32, 32, 3], layer=2)
    >>> many = pair_operations(200, [784, 32, 32, 3], layer=2)
    >>> many["cka"] / few["cka"], many["wcka"] / few["wcka"]
    (2.0, 1.0)
    """
    if not 1 <= layer < len(widths):
        raise ValueError(f"layer: wanted 1 to {len(widths) - 1}, got {layer}")
    units = widths[layer]
    chains = 2 * chain_operations(widths)
    return {
        "procrustes": probes * units * min(probes, units) + min(probes, units) ** 3,
        "cka": alignment_operations(probes, units),
        "dcka": _deconfounding_operations(probes, widths[0], units)
        + alignment_operations(probes, units),
        "wcka": chains + alignment_operations(widths[0], widths[-1]),
    }


def _deconfounding_operations(probes: int, inputs: int, units: int) -> int:
    """Multiply-adds that take the inputs' part away from both representations.

    The steps are those of ``deconfounding.Confounder``.
    """
    rank = min(probes, inputs)
    # Their Gram matrix, that of a first basis, two triangles, and their own kernel
    of_inputs = probes * inputs * rank + 2 * probes * rank**2 + 5 * rank**3
    columns = min(probes, units)
    rotated = probes**2 * units if units > probes else 0
    projected = probes * rank * columns + 2 * rank**2 * columns
    outside = (probes + rank) * columns**2 + columns**3
    kernel = (rank + columns) ** 2 * columns
    positive_part = (rank + columns) ** 3
    features = probes * columns * (rank + columns)
    each = rotated + projected + outside + kernel + positive_part + features
    return of_inputs + 2 * each


def growth_exponent(sizes: Sequence[float], operations: Sequence[float]) -> float:
    """Return the exponent of growth: the slope of logarithms, by least squares.

    Parameters
    ----------
    sizes, operations : sequence of float
        At least two different sizes, and the count at each.

    Examples
    --------
    >>> round(growth_exponent([10, 20, 40], [3, 12, 48]), 6)
    2.0
    """
    slope, _ = np.polyfit(np.log(sizes), np.log(operations), 1)
    return float(slope)
