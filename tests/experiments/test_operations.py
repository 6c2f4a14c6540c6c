"""Counts of multiply-adds: against torch's counter, and how they grow."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import wcka
from wcka.experiments import operations
from wcka.networks.populations import initialise

WIDTHS = [784, 32, 32, 32, 32, 3]


def counted(function, *arguments):
    """Multiply-adds of the products that torch executes."""
    with FlopCounterMode(display=False) as counter:
        function(*arguments)
    return counter.get_total_flops() / 2


def features(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def test_an_alignment_takes_its_three_products_or_two_kernels():
    def by_features(x, y):
        return (x.T @ y, x.T @ x, y.T @ y)

    def by_kernels(x, y):
        k = x @ x.T
        m = y @ y.T
        return (k.flatten() @ m.flatten(), k.flatten() @ k.flatten(),
                m.flatten() @ m.flatten())

    x, y = features(200, 8, 0), features(200, 8, 1)
    assert operations.alignment_operations(200, 8) == counted(by_features, x, y)
    x, y = features(5, 60, 0), features(5, 60, 1)
    products_of_entries = 3 * 5**2  # torch's counter passes over dot products
    assert operations.alignment_operations(5, 60) == (
        counted(by_kernels, x, y) + products_of_entries)


def test_a_chain_is_multiplied_from_the_outputs_on():
    weights = [features(n, m, n) for n, m in zip(WIDTHS, WIDTHS[1:])]

    def product(*matrices):
        result = matrices[-1]
        for matrix in reversed(matrices[:-1]):
            result = matrix @ result

    assert operations.chain_operations(WIDTHS) == counted(product, *weights)


def test_the_products_of_dcka_are_those_of_its_formula():
    """With decompositions taken out, which torch's counter passes over."""
    n, p, d = 300, 50, 8

    def basis(inputs, triangle):
        gram = inputs.T @ inputs
        first_basis = inputs @ triangle
        corner = triangle @ (first_basis.T @ first_basis)
        inside = corner @ gram
        return inside @ inside.T

    def deconfounded(x, inputs, triangle, kernel_of_inputs, mixing):
        inside = triangle @ (inputs.T @ x)  # (p, d)
        outside = x.T @ x - inside.T @ inside
        share = (inside * (kernel_of_inputs @ inside)).sum()
        coordinates = torch.cat([inside, outside])  # (p + d, d)
        kernel = coordinates @ coordinates.T
        return share, kernel, inputs @ inside + x @ mixing

    inputs, x, y = features(n, p, 0), features(n, d, 1), features(n, d, 2)
    square = features(p, p, 3)
    products = counted(basis, inputs, square)
    for values in (x, y):
        products += counted(
            deconfounded, values, inputs, square, square, features(d, d, 4))
    decompositions = 2 * p**3 + 2 * ((p + d) ** 3 + d**3)
    alignment = operations.alignment_operations(n, d)
    pair = operations.pair_operations(n, [p, d, 2], layer=1)
    assert pair["dcka"] == products + decompositions + alignment


def test_more_units_than_probes_are_rotated_into_as_many_columns():
    n, p, d = 64, 200, 800
    wide = operations.pair_operations(n, [p, d, 2], layer=1)
    square = operations.pair_operations(n, [p, n, 2], layer=1)
    rotated = 2 * n**2 * d  # both representations
    alignments = (operations.alignment_operations(n, d)
                  - operations.alignment_operations(n, n))
    assert wide["dcka"] == square["dcka"] + rotated + alignments


@pytest.mark.parametrize("n", [100, 1000, 3147])
def test_the_library_takes_about_as_many(n):
    """Blocks of two models take four products where a pair needs two or three."""
    x, y = features(n, 32, 0), features(n, 32, 1)
    inputs = features(n, 784, 2)
    untrained = initialise({"factory": "mlp", "widths": WIDTHS}, [0, 1])
    pair = operations.pair_operations(n, WIDTHS, layer=4)
    products = {
        "procrustes": counted(wcka.procrustes, x, y),
        "cka": counted(wcka.cka, x, y),
        "dcka": counted(wcka.dcka, x, y, inputs),
        "wcka": counted(wcka.wcka, untrained.member(0), untrained.member(1)),
    }
    for measure, number in products.items():
        # Decompositions, most of dCKA with few probes, are not counted by torch.
        share = 1 / 6 if measure == "dcka" else 1 / 3
        assert share * pair[measure] < number < 2 * pair[measure]


def test_counts_grow_with_the_probes_but_that_of_weights():
    sizes = [300, 1000, 3000]
    counts = [operations.pair_operations(n, WIDTHS, layer=4) for n in sizes]
    exponents = {}
    for measure in counts[0]:
        of_sizes = [count[measure] for count in counts]
        exponents[measure] = operations.growth_exponent(sizes, of_sizes)
    assert exponents["wcka"] == pytest.approx(0, abs=1e-12)
    assert exponents["cka"] == pytest.approx(1)
    assert 0.9 < exponents["procrustes"] < 1
    assert exponents["dcka"] > 0.5


def test_an_exponent_is_the_slope_on_logarithmic_axes():
    sizes = np.array([10, 70, 200])
    assert operations.growth_exponent(sizes, 5 * sizes**1.5) == pytest.approx(1.5)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="layer: wanted 1 to 2, got 3"):
        operations.pair_operations(10, [784, 8, 3], layer=3)
