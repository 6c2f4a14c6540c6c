"""Digits that must not be lost: rows of very different size, ties, tiny numbers."""

import numpy as np
import pytest
import torch

import wcka
from wcka.measures import kernels, similarity
from wcka.measures.all_pairs import MEASURES
from wcka.measures.inner_products import Representation

# ------------------------------------------------------------------- rows of other size


def beside_large_rows(factor, n=40, units=(5, 4)):
    """Two representations of which one row, or one cluster of rows, is far away."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((n, 6))
    one_row, cluster = [], []
    for d in units:
        x = shared @ rng.standard_normal((6, d))
        scaled = x.copy()
        scaled[3] *= factor
        one_row.append(scaled)
        shifted = x.copy()
        shifted[n // 2:] += factor
        cluster.append(shifted)
    return one_row, cluster


def unbiased_criterion(k, m):
    """Unbiased criterion of two kernels in long doubles, diagonals left out."""
    n = np.longdouble(len(k))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    rows_k, rows_m = k.sum(0), m.sum(0)
    mean_term = rows_k.sum() * rows_m.sum() / ((n - 1) * (n - 2))
    return (k * m).sum() + mean_term - 2 * (rows_k * rows_m).sum() / (n - 2)


def centred_kernel(x):
    """Linear kernel in long doubles; the median does not follow a large row."""
    x = x.astype(np.longdouble)
    x = x - np.median(x, axis=0)
    return x @ x.T


def minibatch_cka_in_long_doubles(x, y, batch_size):
    xy, xx, yy = 0, 0, 0
    for start in range(0, len(x), batch_size):
        k = centred_kernel(x[start:start + batch_size])
        m = centred_kernel(y[start:start + batch_size])
        n = len(k)
        xy += unbiased_criterion(k, m) / (n * (n - 3))
        xx += unbiased_criterion(k, k) / (n * (n - 3))
        yy += unbiased_criterion(m, m) / (n * (n - 3))
    return float(xy / np.sqrt(xx * yy))


def rbf_cka_in_long_doubles(x, y):
    kernels_of_pair = []
    for z in (x, y):
        z = z.astype(np.longdouble)
        squares = ((z[:, None] - z) ** 2).sum(-1)  # (n, n)
        above_diagonal = squares[np.triu_indices(len(z), 1)]
        kernel = np.exp(-squares / (2 * np.median(above_diagonal)))
        kernel = kernel - kernel.mean(0)
        kernels_of_pair.append(kernel - kernel.mean(1, keepdims=True))
    k, m = kernels_of_pair
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


@pytest.mark.parametrize("factor", [1.0, 1e3, 1e6, 1e8])
def test_large_rows_cost_no_digits(factor):
    for x, y in beside_large_rows(factor):
        expected = minibatch_cka_in_long_doubles(x, y, len(x))
        assert wcka.unbiased_cka(x, y) == pytest.approx(expected, rel=1e-9)
        expected = minibatch_cka_in_long_doubles(x, y, 8)
        assert wcka.minibatch_cka(x, y, 8) == pytest.approx(expected, rel=1e-9)
        expected = rbf_cka_in_long_doubles(x, y)
        assert wcka.rbf_cka(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("measure", ["unbiased_cka", "minibatch_cka", "rbf_cka"])
def test_all_pairs_equal_single_pairs_beside_large_rows(measure):
    one_row, _ = beside_large_rows(1e6)
    ordinary = np.random.default_rng(1).standard_normal((40, 3))
    features = [*one_row, ordinary]
    table = wcka.pairwise(measure, features)
    listed = wcka.pairwise(measure, features, ([0, 2], [1, 0]))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        single = getattr(wcka, measure)(features[i], features[j])
        assert table[i, j] == pytest.approx(single, rel=1e-10)
    np.testing.assert_allclose(listed, table[[0, 2], [1, 0]], rtol=1e-10)


def test_distances_of_close_samples_keep_their_digits():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((30, 3)))
    x[10:20] += 1e6
    x[20:] = x[10:20] + 1e-3 * torch.from_numpy(rng.standard_normal((10, 3)))
    x[29] = x[19]
    model = Representation(x)
    model.move_to_median()
    strip = kernels._squared_distances(model, slice(0, 30))
    exact = (x[:, None] - x).square().sum(-1)  # (30, 30)
    np.testing.assert_allclose(strip * model.scale**2, exact, rtol=1e-8)
    assert strip[19, 29] == 0


# ------------------------------------------------------------------- equal correlations


def uncorrelated_pair(seed):
    """Representations of ranks 4 and 2 with one correlation of 0, a tie in x alone."""
    rng = np.random.default_rng(seed)
    columns = np.column_stack([np.ones(20), rng.standard_normal((20, 6))])
    basis = np.linalg.qr(columns)[0][:, 1:]  # centred
    x = basis[:, :4] @ rng.standard_normal((4, 4))
    y = np.column_stack([basis[:, 0] + basis[:, 4], basis[:, 5]])
    return x, y @ rng.standard_normal((2, 2))


def test_pwcca_is_defined_where_correlations_are_zero():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x, y = uncorrelated_pair(seed)
        order = rng.permutation(20)
        noise = 1e-13 * rng.standard_normal(x.shape)
        expected = [wcka.pwcca(x, y), wcka.pwcca(y, x)]
        changes = [(x[order], y[order]), (3 * x[:, ::-1], y), (x, y[:, ::-1]),
                   (x + noise, y)]
        for a, b in changes:
            values = [wcka.pwcca(a, b), wcka.pwcca(b, a)]
            assert values == pytest.approx(expected, abs=1e-10)
        table = wcka.pairwise("pwcca", [y, x])
        assert [table[1, 0], table[0, 1]] == pytest.approx(expected, abs=1e-12)


def test_tied_weights_are_means_over_random_bases():
    """Two shared units and a third with correlation 0: the weights are averaged."""
    rng = np.random.default_rng(0)
    columns = np.column_stack([np.ones(12), rng.standard_normal((12, 4))])
    basis = np.linalg.qr(columns)[0][:, 1:]
    x = basis[:, :3] @ rng.standard_normal((3, 5))
    y = basis[:, [0, 1, 3]]
    angles = np.linspace(0, 2 * np.pi, 10_001)[:-1]
    directions = np.stack([np.cos(angles), np.sin(angles)])  # (2, angles)
    lengths = np.abs(directions.T @ (basis[:, :2].T @ x)).sum(1).mean()
    tied = 2 * lengths
    rest = np.abs(basis[:, 2] @ x).sum()
    assert wcka.pwcca(x, y) == pytest.approx(tied / (tied + rest), abs=1e-6)


# ------------------------------------------------------------------- tiny numbers


@pytest.mark.parametrize("size", [1e-310, 1e-318])
def test_subnormal_numbers_are_scaled_before_their_mean(size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 3)) * size
    y = rng.standard_normal((12, 4))
    inputs = rng.standard_normal((12, 2))
    exact = x / 5e-324  # the same numbers as integers
    for name in MEASURES:
        options = {"inputs": inputs} if name == "dcka" else {}
        if name == "minibatch_cka":
            options = {"batch_size": 4}
        measure = getattr(wcka, name)
        expected = measure(exact, y, **options)
        assert measure(x, y, **options) == pytest.approx(expected, rel=1e-12)


def test_a_deconfounded_factor_keeps_its_unit():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((8, 2))
    x = rng.standard_normal((8, 3))
    factor = similarity.deconfound(x, inputs)
    tiny = similarity.deconfound(x * 2.0**-1000, inputs)
    torch.testing.assert_close(tiny * 2.0**1000, factor, rtol=1e-12, atol=0)


# ------------------------------------------------------------------- the diagonal


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_similarity_to_itself_is_exactly_1(measure):
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((16, d)) for d in (3, 7, 1, 5, 20)]
    features.append(np.zeros((16, 2)))
    variants = [{}]
    if measure == "dcka":
        inputs = rng.standard_normal((16, 4))
        variants = [{"inputs": inputs}, {"inputs": inputs, "psd": False}]
    for options in variants:
        with pytest.warns(RuntimeWarning, match="no variance"):
            table = wcka.pairwise(measure, features, **options)
            listed = wcka.pairwise(measure, features, ([1, 5, 4], [1, 5, 4]), **options)
        assert np.diag(table).tolist()[:5] == [1.0] * 5
        assert listed[[0, 2]].tolist() == [1.0, 1.0]
        assert np.isnan(table[5, 5]) and np.isnan(listed[1])
