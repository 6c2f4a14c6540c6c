"""The measures against independent formulas, another library, and their declared invariances."""

import warnings
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist, squareform
from torch import nn

import wcka
from wcka.measures import products, similarity
from wcka.measures.all_pairs import INVARIANCES
from wcka.networks import architectures, corruptions, image_sets
from wcka.weights import symmetry
from wcka.weights.symmetry import TRANSFORMATIONS

PAPER_MEASURES = tuple(INVARIANCES)


def hsic(k, m):
    """Biased Hilbert-Schmidt criterion by its definition (paper, equation 2)."""
    h = np.eye(len(k)) - 1 / len(k)
    return np.trace(k @ h @ m @ h) / (len(k) - 1) ** 2


def cka_by_definition(x, y):
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def deconfounded_kernel(x, inputs, psd):
    """K - alpha K0 from n x n matrices (paper, section 2.1.3), centred."""
    h = np.eye(len(x)) - 1 / len(x)
    k, k0 = h @ x @ x.T @ h, h @ inputs @ inputs.T @ h
    k = k - (k0 * k).sum() / (k0 * k0).sum() * k0
    if psd:
        values, vectors = np.linalg.eigh(k)
        k = vectors * values.clip(min=0) @ vectors.T
    return k


def dcka_by_definition(x, y, inputs, psd):
    k, m = (deconfounded_kernel(z, inputs, psd) for z in (x, y))
    return (k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m)


@pytest.fixture(scope="module")
def real(trained, digits):
    """Last hidden activations of two trained networks on 1000 real digits, and the digits."""
    x = digits[0][:1000]
    a, b = trained[[3, 4]].activations(x, 4)
    return a.double().numpy(), b.double().numpy(), x.double().numpy()


# ------------------------------------------------------------------- independent formulas


def test_cka_equals_the_definition_by_kernels(real):
    x, y, _ = real
    assert wcka.cka(x, y) == pytest.approx(cka_by_definition(x, y), abs=1e-12)


def test_procrustes_equals_the_best_rotation_found_by_scipy(real):
    x, y, _ = real
    x, y = (z - z.mean(0) for z in (x, y))
    x, y = (z / np.linalg.norm(z) for z in (x, y))
    rotation, nuclear_norm = scipy.linalg.orthogonal_procrustes(x, y)
    distance = np.linalg.norm(x @ rotation - y) ** 2  # the paper's
    assert wcka.procrustes(x, y) == pytest.approx(nuclear_norm, abs=1e-12)
    assert 2 - 2 * wcka.procrustes(x, y) == pytest.approx(distance, abs=1e-12)


@pytest.mark.parametrize("psd", [True, False])
@pytest.mark.parametrize("n", [40, 300, 1000])
def test_dcka_equals_the_definition_by_kernels(real, n, psd):
    x, y, inputs = (z[:n] for z in real)
    assert wcka.dcka(x, y, inputs, psd=psd) == pytest.approx(
        dcka_by_definition(x, y, inputs, psd), abs=1e-9)


def test_dcka_equals_the_definition_with_more_rows_than_inputs():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 30)) @ np.diag(np.logspace(0, -4, 30))
    x, y = (np.maximum(inputs @ rng.standard_normal((30, 12)) + 0.1, 0) for _ in range(2))
    for psd in (True, False):
        assert wcka.dcka(x, y, inputs, psd=psd) == pytest.approx(
            dcka_by_definition(x, y, inputs, psd), abs=1e-9)


def test_deconfound_is_a_factor_of_the_positive_part(real):
    x, _, inputs = real
    factor = similarity.deconfound(x, inputs).numpy()
    kernel = deconfounded_kernel(x, inputs, psd=True)
    assert len(factor) == len(x) and factor.shape[1] <= x.shape[1]
    np.testing.assert_allclose(factor @ factor.T, kernel, atol=1e-9 * np.linalg.norm(kernel))


def test_dcka_without_the_positive_part_is_a_partial_correlation(real):
    x, y, inputs = real
    xy, xi, yi = wcka.cka(x, y), wcka.cka(x, inputs), wcka.cka(y, inputs)
    partial = (xy - xi * yi) / np.sqrt((1 - xi**2) * (1 - yi**2))
    assert wcka.dcka(x, y, inputs, psd=False) == pytest.approx(partial, abs=1e-12)
    assert abs(partial - wcka.dcka(x, y, inputs)) > 1e-3  # the positive part matters


def test_wcka_is_hsic_of_the_chains_kernels(trained):
    """Paper, equations 4 and 5: kernels W1 ... Wl Wl' ... W1' in equation 1."""
    chains = []
    for i in (3, 4):
        weights = [m.weight.detach().double().numpy().T for m in trained.member(i)
                   if isinstance(m, nn.Linear)]
        chains.append(np.linalg.multi_dot(weights))
    expected = cka_by_definition(*chains)
    assert wcka.wcka(trained.member(3), trained.member(4)) == pytest.approx(expected, abs=1e-12)


def unbiased_hsic(k, m):
    """Song et al. 2012, equation 5: the diagonals are set to zero."""
    n, k, m = len(k), k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    middle = k.sum() * m.sum() / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + middle - 2 / (n - 2) * (k @ m).sum()) / (n * (n - 3))


def normalised(criterion, k, m):
    return criterion(k, m) / np.sqrt(criterion(k, k) * criterion(m, m))


def test_unbiased_cka_equals_the_definition_and_u_centring(real):
    x, y, _ = real
    k, m = x @ x.T, y @ y.T
    assert wcka.unbiased_cka(x, y) == pytest.approx(normalised(unbiased_hsic, k, m), abs=1e-12)

    def u_centred(k):  # Szekely and Rizzo 2014
        n = len(k)
        k = k - np.diag(np.diag(k))
        rows = k.sum(0) / (n - 2)
        k = k - rows - rows[:, None] + k.sum() / ((n - 1) * (n - 2))
        return k - np.diag(np.diag(k))

    inner = normalised(lambda k, m: (u_centred(k) * u_centred(m)).sum(), k, m)
    assert wcka.unbiased_cka(x, y) == pytest.approx(inner, abs=1e-12)


def test_unbiased_cka_of_independent_representations_is_about_zero():
    """Where the biased one is far from it: few samples, many units."""
    rng = np.random.default_rng(0)
    biased, unbiased = np.transpose([
        (wcka.cka(x, y), wcka.unbiased_cka(x, y))
        for x, y in rng.standard_normal((200, 2, 20, 100))])
    assert biased.mean() > 0.8
    assert abs(unbiased.mean()) < 3 * unbiased.std() / np.sqrt(200)


@pytest.mark.parametrize("batch_size", [4, 64, 250, 1000, 5000])
def test_minibatch_cka_sums_criteria_before_the_ratio(real, batch_size):
    x, y, _ = real
    terms = [[unbiased_hsic(a @ a.T, b @ b.T) for a, b in ((u, v), (u, u), (v, v))]
             for u, v in ((x[i:i + batch_size], y[i:i + batch_size])
                          for i in range(0, len(x), batch_size))]
    xy, xx, yy = np.sum(terms, axis=0)
    expected = xy / np.sqrt(xx * yy)
    assert wcka.minibatch_cka(x, y, batch_size) == pytest.approx(expected, abs=1e-12)
    if batch_size >= len(x):
        assert expected == pytest.approx(wcka.unbiased_cka(x, y), abs=1e-12)


@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_rbf_cka_equals_the_definition(real, sigma):
    def kernel(z):
        between = pdist(z)
        return np.exp(-squareform(between)**2 / (2 * (sigma * np.median(between))**2))

    x, y, _ = real
    assert wcka.rbf_cka(x, y, sigma) == pytest.approx(normalised(hsic, kernel(x), kernel(y)),
                                                      abs=1e-12)


def test_rbf_cka_with_a_wide_kernel_is_linear_cka(real):
    x, y, _ = real
    assert wcka.rbf_cka(x, y, 1e3) == pytest.approx(wcka.cka(x, y), abs=1e-5)


def test_canonical_correlations_are_cosines_of_scipys_angles(real):
    x, y, _ = (z - z.mean(0) for z in real)
    x, y = (z[:, z.any(0)] for z in (x, y))
    correlations = np.cos(scipy.linalg.subspace_angles(x, y))
    assert wcka.mean_cca(x, y) == pytest.approx(correlations.mean(), abs=1e-10)

    def leading(z):
        u, s, _ = np.linalg.svd(z, full_matrices=False)
        return u[:, :1 + int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), 0.9))]

    u, v = leading(x), leading(y)
    assert u.shape[1] < x.shape[1]
    expected = np.cos(scipy.linalg.subspace_angles(u, v)).mean()
    assert wcka.svcca(x, y, 0.9) == pytest.approx(expected, abs=1e-10)
    assert wcka.svcca(x, y, 1.0) == pytest.approx(wcka.mean_cca(x, y), abs=1e-10)


def test_pwcca_equals_the_definition_by_covariances(real):
    """Morcos et al. 2018, section 3.2, with whitening by inverse roots of covariances."""
    x, y, _ = (z - z.mean(0) for z in real)
    x, y = x[:, x.any(0)], y[:, y.any(0)][:, :12]  # fewer canonical variates than units of x

    def whitening(z):
        values, vectors = np.linalg.eigh(z.T @ z)
        return vectors / np.sqrt(values) @ vectors.T

    u, correlations, vt = np.linalg.svd(whitening(x) @ x.T @ y @ whitening(y), full_matrices=False)
    for a, b, variates in ((x, y, x @ whitening(x) @ u), (y, x, y @ whitening(y) @ vt.T)):
        weights = np.abs(variates.T @ a).sum(1)
        expected = (weights * correlations).sum() / weights.sum()
        assert wcka.pwcca(a, b) == pytest.approx(expected, abs=1e-8)


def test_relu_procrustes_is_the_best_of_all_permutations():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 30, 4))
    cosines = (x / np.linalg.norm(x, axis=0)).T @ (y / np.linalg.norm(y, axis=0))
    best = max(sum(cosines[i, j] for i, j in enumerate(order)) for order in permutations(range(4)))
    assert wcka.relu_procrustes(x, y) == pytest.approx(best / 4, abs=1e-12)
    narrow = max(cosines[order[0], 0] + cosines[order[1], 2] for order in permutations(range(4)))
    assert wcka.relu_procrustes(x, y[:, [0, 2]]) == pytest.approx(narrow / 8**0.5, abs=1e-12)


def test_relu_procrustes_finds_shuffled_and_rescaled_units(real):
    x = real[0]
    moved = x[:, np.random.default_rng(0).permutation(x.shape[1])] * np.geomspace(1, 99, x.shape[1])
    assert wcka.relu_procrustes(x, moved) == pytest.approx(1, abs=1e-12)
    assert wcka.procrustes(x, moved) < 0.99


def test_relu_cka_equals_the_definition(real):
    def kernel(z):
        z = (z - z.mean(0))[:, z.any(0)]
        z = z / np.linalg.norm(z, axis=0)
        return (z[:, None] * z).max(-1)

    x, y, _ = (z[:100] for z in real)
    assert wcka.relu_cka(x, y) == pytest.approx(normalised(unbiased_hsic, kernel(x), kernel(y)),
                                                abs=1e-12)


# ------------------------------------------------------------------- all pairs


@pytest.mark.parametrize("measure", PAPER_MEASURES)
def test_pairwise_equals_pairs(measure, trained, digits, monkeypatch):
    x = digits[0][:200]
    monkeypatch.setattr(products, "_LEFT_COLUMNS", 40)  # several blocks, the last one ragged
    monkeypatch.setattr(products, "_RIGHT_COLUMNS", 64)
    population = trained[[0, 1, 2, 3, 4]]
    if measure == "wcka":
        features, kw = [population.member(i) for i in range(5)], {}
    else:
        features = list(population.activations(x, 4))
        features[1] = features[1][:, :20]  # widths may differ
        kw = {"inputs": x} if measure == "dcka" else {}
    function = getattr(wcka, measure)
    expected = [[function(a, b, **kw) for b in features] for a in features]
    for call in (measure, function):
        np.testing.assert_allclose(wcka.pairwise(call, features, **kw), expected, atol=1e-12)
    np.testing.assert_allclose(np.diag(expected), 1)


@pytest.mark.parametrize("measure, kw", [
    *((m, {}) for m in PAPER_MEASURES), ("dcka", {"psd": False}), ("minibatch_cka", {"batch_size": 10})])
def test_listed_pairs_equal_those_of_all(measure, kw):
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((30, d)) for d in (3, 1, 5, 2, 40)]
    features.append(np.full((30, 2), 0.0 if measure == "relu_procrustes" else 0.1))
    if measure == "dcka":
        kw = {**kw, "inputs": rng.standard_normal((30, 6))}
    a, b = np.array([0, 4, 2, 2, 5, 1, 3]), np.array([3, 0, 1, 2, 1, 4, 0])
    with pytest.warns(RuntimeWarning, match="no variance"):
        table = wcka.pairwise(measure, features, **kw)
        np.testing.assert_allclose(wcka.pairwise(measure, features, (a, b), **kw), table[a, b],
                                   atol=1e-12)
    assert np.array_equal(table, table.T, equal_nan=True) == (measure not in ASYMMETRIC)
    assert np.isnan(table[5]).all() and np.isfinite(table[:5, :5]).all()


@pytest.mark.parametrize("shape", [(3, 3000, 20), (20, 100, 60)])  # by features, by kernels
def test_single_precision_errs_by_less_than_its_bound(shape):
    features = np.random.default_rng(0).standard_normal(shape) + 100  # far from centred
    exact = wcka.pairwise("cka", features)
    single = wcka.pairwise("cka", features, dtype=torch.float32)
    assert 0 < np.abs(single - exact).max() < 2e-6  # the bound is 5e-4
    for bad in (torch.float16, torch.int32, "float32"):
        with pytest.raises(ValueError, match=r"dtype: wanted torch\.float32"):
            wcka.pairwise("cka", features, dtype=bad)
    with pytest.raises(TypeError, match="unbiased_cka takes no dtype"):
        wcka.pairwise("unbiased_cka", features, dtype=torch.float32)


def test_features_and_kernels_give_the_same(real, monkeypatch):
    x, y, _ = real
    features = [x, y, x[:, :9], y[:, 3:] ** 2]
    by_kernels = np.array([[cka_by_definition(a, b) for a in features] for b in features])
    by_features = wcka.pairwise("cka", features)
    monkeypatch.setattr(products, "cheaper_by_kernels", lambda *_: True)
    np.testing.assert_allclose(wcka.pairwise("cka", features), by_kernels, atol=1e-12)
    np.testing.assert_allclose(by_features, by_kernels, atol=1e-12)


def test_memory_mapped_features_are_left_as_they_are(tmp_path, recwarn):
    x = np.random.default_rng(0).standard_normal((2, 50, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert wcka.cka(mapped[0], mapped[1]) == wcka.cka(x[0], x[1])
    assert not recwarn.list


def test_listed_pairs_are_checked():
    x = np.random.default_rng(0).standard_normal((3, 5, 2))
    with pytest.raises(IndexError, match="from 0 to 2, got 0 to 3"):
        wcka.pairwise("cka", x, ([0, 1], [3, 2]))
    for bad in (([0], [1, 2]), ([0.0], [1.0]), ([], [])):
        with pytest.raises(ValueError, match="pairs: wanted two rows of ints"):
            wcka.pairwise("cka", x, bad)


def test_pairwise_dcka_without_positive_part(real):
    x, y, inputs = real
    table = wcka.pairwise("dcka", [x, y, y[:, :7]], inputs=inputs, psd=False)
    assert table[0, 2] == pytest.approx(wcka.dcka(x, y[:, :7], inputs, psd=False), abs=1e-12)


def test_working_memory_grows_neither_with_models_nor_with_samples(monkeypatch):
    """Converted features are not kept here, as where there are very many; nothing else is large."""
    monkeypatch.setattr(products, "KEPT", 0)
    monkeypatch.setattr(products, "_PIECE_ROWS", 500)
    monkeypatch.setattr(products, "_STRIP_NUMBERS", 2**16)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                largest = max(largest, result.untyped_storage().nbytes() // 8
                              if result.dtype == torch.float64 else 0)
            return result

    def peak(measure, count, n, d, **kw):
        nonlocal largest
        features, largest = torch.randn(count, n, d, generator=torch.manual_seed(0)), 0
        with Watch():
            found = wcka.pairwise(measure, features, **kw)
        assert (found[0, 1] < 1) and (np.diag(found) == pytest.approx(1))
        return largest

    for measure in ("cka", "unbiased_cka", "procrustes"):
        assert peak(measure, 9, 4000, 8) == peak(measure, 9, 16000, 8)
    assert peak("minibatch_cka", 9, 4000, 8) == peak("minibatch_cka", 9, 16000, 8)
    assert peak("cka", 40, 40, 32) <= 2**16 >= peak("cka", 120, 40, 32)


def test_more_columns_than_rows(real):
    x, y, _ = real
    x, y = x[:20], y[:20]
    assert wcka.cka(x, y) == pytest.approx(cka_by_definition(x, y), abs=1e-12)
    assert wcka.procrustes(x, y) == pytest.approx(np.linalg.svd(
        *[(lambda a, b: a.T @ b)(*[(z - z.mean(0)) / np.linalg.norm(z - z.mean(0))
                                   for z in (x, y)])], compute_uv=False).sum(), abs=1e-12)


# ------------------------------------------------------------------- invariances and variances


@pytest.fixture(scope="module")
def pair(trained):
    return trained.member(3).double(), trained.member(4).double()


def similarity_on(measure, a, b, probes):
    """Similarity of two networks; of activations, in their last hidden representation."""
    if measure == "wcka":
        return wcka.wcka(a, b)
    kw = {"inputs": probes} if measure == "dcka" else {}
    with torch.no_grad():
        return getattr(wcka, measure)(a[:-1](probes), b[:-1](probes), **kw)


@pytest.mark.parametrize("transformation", [*TRANSFORMATIONS, "probes"])
@pytest.mark.parametrize("measure", PAPER_MEASURES)
def test_declared_invariances_and_variances(measure, transformation, pair, digits):
    """Whichever of the two networks is changed: no value moves, or one of them does."""
    (a, b), probes = pair, digits[0][:300].double()
    before = [similarity_on(measure, *each, probes) for each in ((a, b), (b, a))]
    if transformation == "probes":
        foggy = image_sets.as_inputs(corruptions.corrupt(image_sets.load()[0][:300], "fog")).double()
        after = [similarity_on(measure, *each, foggy) for each in ((a, b), (b, a))]
    else:
        c = TRANSFORMATIONS[transformation](b, probes, 1)
        after = [similarity_on(measure, *each, probes) for each in ((a, c), (c, a))]
    if transformation in INVARIANCES[measure]:
        assert after == pytest.approx(before, abs=1e-6)
    else:
        assert np.abs(np.subtract(after, before)).max() > 1e-4


finite = st.floats(-1e3, 1e3, width=32)


ASYMMETRIC = {"pwcca"}
LOWEST = {"unbiased_cka": -1, "minibatch_cka": -1, "relu_cka": -1, "relu_procrustes": -1}


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (12, 5), elements=finite), arrays(np.float64, (12, 3), elements=finite))
def test_range_symmetry_and_self_similarity(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for name in sorted(set(PAPER_MEASURES) - {"wcka", "dcka"}):
            measure = getattr(wcka, name)
            s = measure(x, y)
            assert np.isnan(s) or LOWEST.get(name, 0) <= s <= 1
            if name not in ASYMMETRIC:
                assert s == pytest.approx(measure(y, x), abs=1e-9, nan_ok=True)
            assert np.isnan(measure(x, x)) or measure(x, x) == pytest.approx(1, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(symmetry.CHANGES))
def test_invariance_on_random_representations(seed, change):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 4))
    a, c = symmetry.change_of_basis(change, 6, seed)
    moved = x @ a.numpy() + c.numpy()
    for measure in ("cka", "procrustes"):
        change_of_value = abs(getattr(wcka, measure)(moved, y) - getattr(wcka, measure)(x, y))
        assert (change_of_value < 1e-9) == (change in INVARIANCES[measure])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-140, 1e140))
def test_scale_never_matters(seed, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((9, 4)), rng.standard_normal((9, 2))
    for measure in (wcka.cka, wcka.procrustes):
        assert measure(x * scale, y) == pytest.approx(measure(x, y), abs=1e-12)


# ------------------------------------------------------------------- bad input, degenerate input


@pytest.mark.parametrize("bad, error, words", [
    (np.ones(5), ValueError, "two axes"),
    (np.ones((5, 2, 2)), ValueError, "flatten"),
    (np.ones((0, 2)), ValueError, "at least 2 rows"),
    (np.ones((5, 0)), ValueError, "1 column"),
    (np.ones((4, 2)), ValueError, "different numbers of rows"),
    (np.array([[1.0, np.nan]] * 5), ValueError, "NaN or infinity"),
    (np.array([[1.0, np.inf]] * 5), ValueError, "NaN or infinity"),
    (np.array([[1.0, 1e300]] * 5), ValueError, "overflow"),
    (np.array([["a", "b"]] * 5), TypeError, "real numbers"),
    (np.array([[1j, 2]] * 5), TypeError, "real numbers"),
    ([[2**70, 1]] * 5, TypeError, "real numbers"),
])
def test_bad_input(bad, error, words):
    good = np.random.default_rng(0).standard_normal((5, 3))
    for call in (lambda: wcka.cka(good, bad), lambda: wcka.procrustes(bad, good),
                 lambda: wcka.dcka(bad, good, good), lambda: wcka.pairwise("cka", [good, bad])):
        with pytest.raises(error, match=words):
            call()


def test_half_precision_is_what_it_says():
    """As of the same numbers in float64: of what was computed in it, nothing is rounding."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 8)) * np.linspace(1, 0.3, 8) + 20
    y = x @ rng.standard_normal((8, 6)) + rng.standard_normal((1500, 6))
    for kind in (torch.float16, torch.bfloat16):
        half = [torch.from_numpy(z).to(kind) for z in (x, y)]
        for measure in sorted(set(PAPER_MEASURES) - {"wcka", "dcka"}):
            assert getattr(wcka, measure)(*half) == pytest.approx(
                getattr(wcka, measure)(*(h.double() for h in half)), abs=1e-9)


def test_what_is_rounding_of_one_model_says_nothing_of_others():
    rng = np.random.default_rng(0)
    p = rng.standard_normal((20, 3))
    x, y = (p + 0.001 * rng.standard_normal(p.shape) for _ in range(2))
    third = torch.from_numpy(rng.standard_normal((20, 3))).half()
    both = wcka.pairwise("dcka", [x, y], inputs=p, psd=False)[0, 1]
    assert wcka.pairwise("dcka", [x, y, third], inputs=p, psd=False)[0, 1] == both


@pytest.mark.parametrize("seed", range(10))
def test_samples_that_are_mostly_the_same_have_no_bandwidth(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, 64))
    x[3:] = x[3]
    with pytest.warns(RuntimeWarning, match="1 of 2"):
        assert np.isnan(wcka.rbf_cka(x, rng.standard_normal((20, 5))))


@pytest.mark.parametrize("n", range(4, 14))
def test_equidistant_samples_have_no_unbiased_similarity(n):
    scaled = np.eye(n)[::-1] * np.random.default_rng(0).uniform(0.1, 3, n)
    for measure, x, y in (("relu_cka", np.eye(n), scaled), ("unbiased_cka", np.eye(n), np.eye(n))):
        with pytest.warns(RuntimeWarning, match="2 of 2"):
            assert np.isnan(getattr(wcka, measure)(x, y))


def test_columns_of_very_different_size():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 30, 4))
    assert wcka.svcca(x * [1, 1e-8, 1, 1e-7], y, 1) == pytest.approx(wcka.mean_cca(x, y), abs=1e-6)
    for measure in (wcka.relu_procrustes, wcka.relu_cka):
        assert measure(x * [1e140, 1, 1e-100, 1e-150], y) == pytest.approx(measure(x, y), abs=1e-9)
    beside = np.column_stack([x, np.full(30, 1e90)])
    for measure in (wcka.unbiased_cka, wcka.cka):
        assert measure(beside, y) == pytest.approx(measure(x, y), abs=1e-9)


def test_the_warning_is_of_the_callers_line():
    x = np.random.default_rng(0).standard_normal((9, 3))
    for call in (lambda: wcka.cka(x, x * 0), lambda: wcka.pairwise("procrustes", [x, x * 0]),
                 lambda: wcka.dcka(x, x**2, x, psd=False)):
        with pytest.warns(RuntimeWarning, match="1 of 2") as caught:
            call()
        assert [w.filename for w in caught] == [__file__]


def test_unusual_arrays():
    x = np.random.default_rng(0).standard_normal((9, 3))
    for kind in (">f4", ">f8", "longdouble", ">i4"):
        assert wcka.cka(x.astype(kind), x[:, ::-1]) == pytest.approx(wcka.cka(
            x.astype(kind).astype(float), x[:, ::-1]), abs=1e-6)
    with pytest.raises(TypeError, match="masked"):
        wcka.cka(np.ma.masked_less(x, 0), x)
    with pytest.raises(TypeError, match="wcka takes no nonsense"):
        wcka.pairwise("wcka", [x, x], nonsense=3)
    with pytest.raises(TypeError, match="dcka takes no images; it takes inputs, psd"):
        wcka.pairwise("dcka", [x, x], images=x)
    with pytest.raises(TypeError, match="a function of wcka"):
        wcka.pairwise(np.linalg.norm, [x, x])


def test_what_is_no_representation_is_told_apart():
    network = nn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"cka compares activations .*y is a network"):
        wcka.cka(np.eye(3), network)
    for wrong in (network.state_dict(), {}, "a.pt", Path("a.pt")):
        with pytest.raises(TypeError, match="load weights into their module"):
            wcka.wcka(network, wrong)


@pytest.mark.parametrize("call, words", [
    (lambda x: wcka.unbiased_cka(x[:3], x[:3]), "at least 4 rows"),
    (lambda x: wcka.relu_cka(x[:3], x[:3]), "at least 4 rows"),
    (lambda x: wcka.minibatch_cka(x, x, 4), "at least 4 rows, got 1 in the last batch"),
    (lambda x: wcka.minibatch_cka(x, x, 3), "batch_size: wanted"),
    (lambda x: wcka.minibatch_cka(x, x, 4.5), "batch_size: wanted"),
    (lambda x: wcka.rbf_cka(x, x, 0), "sigma: wanted"),
    (lambda x: wcka.rbf_cka(x, x, float("nan")), "sigma: wanted"),
    (lambda x: wcka.svcca(x, x, 99), "variance: wanted"),
])
def test_bad_options(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.random.default_rng(0).standard_normal((5, 3)))


def test_small_integers_do_not_overflow():
    x = np.random.default_rng(0).integers(0, 256, (50, 4), dtype=np.uint8)
    y = x[:, ::-1] // 2
    assert wcka.cka(x, y) == wcka.cka(x.astype(float), y.astype(float))
    assert wcka.cka(x, y.astype(np.uint16)) == wcka.cka(x, y)


def test_unknown_measure_and_arguments():
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    with pytest.raises(ValueError, match="did you mean 'procrustes'"):
        wcka.pairwise("procrustus", x)
    with pytest.raises(TypeError, match="dcka needs the probes"):
        wcka.pairwise("dcka", x)
    for nothing in (None, 3, []):
        with pytest.raises(TypeError, match=r"wanted an nn\.Module, a list"):
            wcka.wcka(nothing, x[0])
    with pytest.raises(TypeError, match="cka takes no inputs"):
        wcka.pairwise("cka", x, inputs=x[0])
    with pytest.raises(ValueError, match="different numbers of rows"):
        wcka.pairwise("dcka", x, inputs=x[0, :4])


def test_dead_representation_has_no_similarity():
    x, dead = np.random.default_rng(0).standard_normal((9, 3)), np.full((9, 3), 0.1)
    with pytest.warns(RuntimeWarning, match="1 of 2 representations"):
        assert np.isnan(wcka.cka(x, dead))
    with pytest.warns(RuntimeWarning, match="1 of 3"):
        table = wcka.pairwise("procrustes", [x, dead, x[:, :2]])
    assert np.isnan(table[1]).all() and np.isfinite(table[[0, 2]][:, [0, 2]]).all()
    with pytest.warns(RuntimeWarning, match="1 of 2"):  # the inputs explain all of it
        assert np.isnan(wcka.dcka(x[:, :2] ** 2, 2 * x[:, ::-1] + 1, inputs=x))


def test_what_varies_in_the_last_bit_only_is_dead():
    x = np.random.default_rng(0).standard_normal((50, 4))
    for kind in (np.float32, np.float64):
        ones = np.ones((50, 2), dtype=kind)
        ones[::3] += np.finfo(kind).eps
        with pytest.warns(RuntimeWarning, match="1 of 2"):
            assert np.isnan(wcka.cka(x, ones))
    same = x.astype(np.float32) @ np.diag([1, 1, 1, 1]).astype(np.float32)
    for psd in (True, False):
        with pytest.warns(RuntimeWarning, match="1 of 2"):
            assert np.isnan(wcka.dcka(np.float32(0.1) * same + np.float32(3), x**2, x, psd=psd))


def test_a_quiet_unit_beside_a_large_constant_one_counts():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 2)) * 1e-5
    beside = np.column_stack([x, np.full(30, 1e8)])
    assert wcka.cka(beside, x) == pytest.approx(1, abs=1e-9)


def test_accepts_networks_matrices_and_chains(trained):
    a, b = trained.member(3), trained.member(4)
    matrices = [m.weight.detach().numpy().T for m in b if isinstance(m, nn.Linear)]
    expected = wcka.wcka(a, b)
    assert wcka.wcka(a, matrices) == pytest.approx(expected, abs=1e-6)
    assert wcka.wcka(wcka.chain(a), wcka.chain(b)) == pytest.approx(expected, abs=1e-12)
    other = architectures.mlp((100, 3))
    with pytest.raises(ValueError, match="different numbers of rows: a has 784, b has 100"):
        wcka.wcka(a, other)


@pytest.mark.parametrize("measure", ["cka", "procrustes"])
def test_triangle_inequality_of_the_angle(measure):
    """The distance form is a metric."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        x, y, z = (rng.standard_normal((8, 3)) for _ in range(3))
        d = [np.arccos(min(1, getattr(wcka, measure)(*p))) for p in ((x, y), (y, z), (x, z))]
        assert d[2] <= d[0] + d[1] + 1e-12
