"""The measures against their definitions, other libraries and declared invariances."""

import warnings
from contextlib import ExitStack
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import threadpoolctl
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

import wcka
from wcka.measures import deconfounding, definitions, inner_products, similarity
from wcka.measures.all_pairs import MEASURES
from wcka.networks import architectures, corruptions, image_sets
from wcka.weights import symmetry
from wcka.weights.symmetry import TRANSFORMATIONS

MEASURE_NAMES = tuple(MEASURES)
# Measures that need activations alone: neither networks nor probes.
FEATURE_MEASURES = sorted(set(MEASURE_NAMES) - {"wcka", "dcka"})

# Each measure with its default options, and the options by themselves.
VARIANTS = [(name, {}) for name in MEASURE_NAMES]
VARIANTS += [
    ("dcka", {"psd": False}),
    ("minibatch_cka", {"batch_size": 4}),
    ("rbf_cka", {"sigma": 0.2}),
    ("svcca", {"variance": 0.9}),
    ("svcca", {"variance": 1.0}),
]


def live_columns(x):
    """Columns that are not constant: the definitions assume no others."""
    return x[:, x.std(0) > 0]


def weights_of(model):
    """Matrices (in, out) of a fully connected network."""
    weights = []
    for module in model:
        if isinstance(module, nn.Linear):
            weights.append(module.weight.detach().double().numpy().T)
    return weights


@pytest.fixture(scope="module")
def real(trained, digits):
    """Last hidden activations of two networks on 1000 real digits, and the digits."""
    inputs = digits[0][:1000]
    x, y = trained[[3, 4]].activations(inputs, 4)
    return x.double().numpy(), y.double().numpy(), inputs.double().numpy()


# ------------------------------------------------------------------- the definitions


def test_definitions_share_no_code_with_the_fast_functions():
    source = Path(definitions.__file__).read_text("utf-8")
    for word in ("from .", "wcka.", "import wcka", "torch"):
        assert word not in source


@pytest.mark.parametrize("name, options", VARIANTS)
def test_measure_equals_its_definition_on_real_networks(name, options, real, trained):
    x, y, inputs = (values[:300] for values in real)
    x, y = live_columns(x), live_columns(y)
    if name == "wcka":
        x, y = weights_of(trained.member(3)), weights_of(trained.member(4))
    if name == "dcka":
        options = {**options, "inputs": inputs}
    expected = getattr(definitions, name)(x, y, **options)
    assert 0 < expected < 1
    assert getattr(wcka, name)(x, y, **options) == pytest.approx(expected, abs=1e-9)


def drawn_matrix(rows, columns):
    """Draw a matrix of small whole numbers, each drawn by itself."""
    return arrays(np.float64, (rows, columns), elements=st.integers(-9, 9),
                  fill=st.nothing())


@pytest.mark.parametrize("name, options", VARIANTS)
@settings(max_examples=25, deadline=None)
@given(x=drawn_matrix(12, 3), y=drawn_matrix(12, 2), inputs=drawn_matrix(12, 2),
       head_x=drawn_matrix(3, 2), head_y=drawn_matrix(2, 2))
def test_measure_equals_its_definition_on_drawn_arrays(name, options, x, y, inputs,
                                                       head_x, head_y):
    for matrix in (x, y, inputs, x @ head_x, y @ head_y):
        # The definitions assume independent columns.
        assume(np.linalg.cond(definitions.centre(matrix)) < 100)
    if name == "wcka":
        x, y = [x, head_x], [y, head_y]
    if name == "dcka":
        options = {**options, "inputs": inputs}
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = getattr(definitions, name)(x, y, **options)
    assume(np.isfinite(expected))
    assert getattr(wcka, name)(x, y, **options) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("psd", [True, False])
@pytest.mark.parametrize("n", [40, 300, 1000])
def test_dcka_equals_its_definition_for_few_and_many_samples(real, n, psd):
    x, y, inputs = (values[:n] for values in real)
    expected = definitions.dcka(x, y, inputs, psd)
    assert wcka.dcka(x, y, inputs, psd=psd) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("psd", [True, False])
def test_dcka_equals_its_definition_with_more_rows_than_inputs(psd):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 30)) @ np.diag(np.logspace(0, -4, 30))
    x = np.maximum(inputs @ rng.standard_normal((30, 12)) + 0.1, 0)
    y = np.maximum(inputs @ rng.standard_normal((30, 12)) + 0.1, 0)
    expected = definitions.dcka(x, y, inputs, psd)
    assert wcka.dcka(x, y, inputs, psd=psd) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", [55, 108])
def test_dcka_equals_its_definition_for_inputs_of_a_steep_spectrum(seed):
    """Singular values fall to 1e-7, whose squares are below the rounding of sums."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((40, 30)))[0]
    right = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    inputs = left * np.logspace(0, -7, 30) @ right
    x, y = rng.standard_normal((2, 40, 10))
    expected = definitions.dcka(x, y, inputs)
    assert wcka.dcka(x, y, inputs) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("psd", [True, False])
def test_dcka_equals_its_definition_with_more_columns_than_rows(real, psd):
    x, y, inputs = (values[:60] for values in real)
    mixing = np.random.default_rng(0).standard_normal((x.shape[1], 500))
    x = np.maximum(x @ mixing, 0)  # 60 rows in general position
    expected = definitions.dcka(x, y, inputs, psd)
    assert wcka.dcka(x, y, inputs, psd=psd) == pytest.approx(expected, abs=1e-9)


def test_deconfound_is_a_factor_of_the_positive_part(real):
    x, _, inputs = real
    factor = similarity.deconfound(x, inputs).numpy()
    kernel = definitions.deconfounded_kernel(x, inputs, psd=True)
    assert len(factor) == len(x) and factor.shape[1] <= x.shape[1]
    tolerance = 1e-9 * np.linalg.norm(kernel)
    np.testing.assert_allclose(factor @ factor.T, kernel, rtol=0, atol=tolerance)


@pytest.mark.parametrize("batch_size", [4, 64, 250, 1000, 5000])
def test_minibatch_cka_sums_criteria_before_the_ratio(real, batch_size):
    x, y, _ = real
    expected = definitions.minibatch_cka(x, y, batch_size)
    assert wcka.minibatch_cka(x, y, batch_size) == pytest.approx(expected, abs=1e-12)
    if batch_size >= len(x):
        assert expected == pytest.approx(wcka.unbiased_cka(x, y), abs=1e-12)


@pytest.mark.parametrize("name", ["cka", "procrustes"])
def test_more_columns_than_rows(name, real):
    x, y = real[0][:20], real[1][:20]
    expected = getattr(definitions, name)(x, y)
    assert getattr(wcka, name)(x, y) == pytest.approx(expected, abs=1e-12)


# ------------------------------------------------------------------- other formulas


def test_procrustes_equals_the_best_rotation_found_by_scipy(real):
    x, y = definitions.centre(real[0]), definitions.centre(real[1])
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    rotation, nuclear_norm = scipy.linalg.orthogonal_procrustes(x, y)
    distance = np.linalg.norm(x @ rotation - y) ** 2  # the paper's
    assert wcka.procrustes(x, y) == pytest.approx(nuclear_norm, abs=1e-12)
    assert 2 - 2 * wcka.procrustes(x, y) == pytest.approx(distance, abs=1e-12)


def test_overlapping_calls_of_dcka_leave_scipy_its_threads():
    def threads():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]

    with threadpoolctl.threadpool_limits(2):
        before = threads()
        with ExitStack() as first:
            first.enter_context(deconfounding._one_thread)
            with ExitStack() as second:
                second.enter_context(deconfounding._one_thread)
                first.close()
                assert 1 in threads()
        assert threads() == before


def test_dcka_without_the_positive_part_is_a_partial_correlation(real):
    x, y, inputs = real
    xy, xi, yi = wcka.cka(x, y), wcka.cka(x, inputs), wcka.cka(y, inputs)
    partial = (xy - xi * yi) / np.sqrt((1 - xi**2) * (1 - yi**2))
    assert wcka.dcka(x, y, inputs, psd=False) == pytest.approx(partial, abs=1e-12)
    assert abs(partial - wcka.dcka(x, y, inputs)) > 1e-3  # the positive part matters


def u_centred(kernel):
    """Kernel centred for the unbiased criterion (Szekely and Rizzo 2014)."""
    n = len(kernel)
    kernel = kernel - np.diag(np.diag(kernel))
    means = kernel.sum(0) / (n - 2)
    overall = kernel.sum() / ((n - 1) * (n - 2))
    kernel = kernel - means - means[:, None] + overall
    return kernel - np.diag(np.diag(kernel))


def test_unbiased_cka_equals_the_cosine_of_u_centred_kernels(real):
    x, y, _ = real
    k, m = u_centred(definitions.gram(x)), u_centred(definitions.gram(y))
    cosine = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert wcka.unbiased_cka(x, y) == pytest.approx(cosine, abs=1e-12)


def test_unbiased_cka_of_independent_representations_is_about_zero():
    """The biased estimator is far from 0 there: few samples, many units."""
    rng = np.random.default_rng(0)
    biased = np.zeros(200)
    unbiased = np.zeros(200)
    for i, (x, y) in enumerate(rng.standard_normal((200, 2, 20, 100))):
        biased[i] = wcka.cka(x, y)
        unbiased[i] = wcka.unbiased_cka(x, y)
    assert biased.mean() > 0.8
    assert abs(unbiased.mean()) < 3 * unbiased.std() / np.sqrt(200)


def test_rbf_cka_with_a_wide_kernel_is_linear_cka(real):
    x, y, _ = real
    assert wcka.rbf_cka(x, y, 1e3) == pytest.approx(wcka.cka(x, y), abs=1e-5)


def test_canonical_correlations_are_cosines_of_scipys_angles(real):
    x = definitions.centre(live_columns(real[0]))
    y = definitions.centre(live_columns(real[1]))
    correlations = np.cos(scipy.linalg.subspace_angles(x, y))
    assert wcka.mean_cca(x, y) == pytest.approx(correlations.mean(), abs=1e-10)

    u, v = definitions.leading_basis(x, 0.9), definitions.leading_basis(y, 0.9)
    assert u.shape[1] < x.shape[1]
    expected = np.cos(scipy.linalg.subspace_angles(u, v)).mean()
    assert wcka.svcca(x, y, 0.9) == pytest.approx(expected, abs=1e-10)
    assert wcka.svcca(x, y, 1.0) == pytest.approx(wcka.mean_cca(x, y), abs=1e-10)


def whitening(x):
    """Inverse root of the covariance of centred features."""
    values, vectors = np.linalg.eigh(x.T @ x)
    return vectors / np.sqrt(values) @ vectors.T


def test_pwcca_equals_the_formula_by_covariances(real):
    """Morcos et al. 2018, section 3.2, with inverse roots of covariances."""
    x = definitions.centre(live_columns(real[0]))
    y = definitions.centre(live_columns(real[1]))
    y = y[:, :12]  # fewer canonical variates than units of x
    covariance = whitening(x) @ x.T @ y @ whitening(y)
    u, correlations, vt = np.linalg.svd(covariance, full_matrices=False)
    variates_x = x @ whitening(x) @ u
    variates_y = y @ whitening(y) @ vt.T
    for a, b, variates in ((x, y, variates_x), (y, x, variates_y)):
        weights = np.abs(variates.T @ a).sum(1)
        expected = (weights * correlations).sum() / weights.sum()
        assert wcka.pwcca(a, b) == pytest.approx(expected, abs=1e-8)


def test_relu_procrustes_is_the_best_of_all_permutations():
    x, y = np.random.default_rng(0).random((2, 30, 4))
    cosines = definitions.unit_columns(x).T @ definitions.unit_columns(y)
    best, best_of_two = 0.0, 0.0
    for order in permutations(range(4)):
        best = max(best, cosines[order, range(4)].sum())
        best_of_two = max(best_of_two, cosines[order[0], 0] + cosines[order[1], 2])
    assert wcka.relu_procrustes(x, y) == pytest.approx(best / 4, abs=1e-12)
    expected = best_of_two / 8**0.5
    assert wcka.relu_procrustes(x, y[:, [0, 2]]) == pytest.approx(expected, abs=1e-12)


def test_relu_procrustes_finds_shuffled_and_rescaled_units(real):
    x = real[0]
    units = x.shape[1]
    order = np.random.default_rng(0).permutation(units)
    shuffled = x[:, order] * np.geomspace(1, 99, units)
    assert wcka.relu_procrustes(x, shuffled) == pytest.approx(1, abs=1e-12)
    assert wcka.procrustes(x, shuffled) < 0.99


# ------------------------------------------------------------------- all pairs


def tables_of(function, features, **options):
    """Values of all pairs, one call of the function per pair."""
    table = np.zeros((len(features), len(features)))
    for i, a in enumerate(features):
        for j, b in enumerate(features):
            table[i, j] = function(a, b, **options)
    return table


@pytest.mark.parametrize("measure", MEASURE_NAMES)
def test_pairwise_equals_pairs(measure, trained, digits, monkeypatch):
    x = digits[0][:200]
    # Several blocks of models, the last of them smaller.
    monkeypatch.setattr(inner_products, "_LEFT_COLUMNS", 40)
    monkeypatch.setattr(inner_products, "_RIGHT_COLUMNS", 64)
    population = trained[[0, 1, 2, 3, 4]]
    options = {"inputs": x} if measure == "dcka" else {}
    if measure == "wcka":
        features = [population.member(i) for i in range(5)]
    else:
        features = list(population.activations(x, 4))
        features[1] = features[1][:, :20]  # widths may differ
    function = getattr(wcka, measure)
    expected = tables_of(function, features, **options)
    for name_or_function in (measure, function):
        table = wcka.pairwise(name_or_function, features, **options)
        np.testing.assert_allclose(table, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.diag(expected), 1)


def test_pairs_may_be_any_iterable_of_two():
    features = np.random.default_rng(0).standard_normal((3, 10, 2))
    listed = wcka.pairwise("cka", features, pairs=zip((0, 1), (1, 2)))
    assert listed.tolist() == wcka.pairwise("cka", features)[[0, 1], [1, 2]].tolist()


@pytest.mark.parametrize("measure, options", [
    *((name, {}) for name in MEASURE_NAMES),
    ("dcka", {"psd": False}),
    ("minibatch_cka", {"batch_size": 10}),
])
def test_listed_pairs_equal_those_of_all(measure, options):
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((30, d)) for d in (3, 1, 5, 2, 40)]
    dead_value = 0.0 if measure == "relu_procrustes" else 0.1
    features.append(np.full((30, 2), dead_value))
    if measure == "dcka":
        options = {**options, "inputs": rng.standard_normal((30, 6))}
    a = np.array([0, 4, 2, 2, 5, 1, 3])
    b = np.array([3, 0, 1, 2, 1, 4, 0])
    with pytest.warns(RuntimeWarning, match="no variance"):
        table = wcka.pairwise(measure, features, **options)
        listed = wcka.pairwise(measure, features, (a, b), **options)
    np.testing.assert_allclose(listed, table[a, b], rtol=0, atol=1e-12)
    is_symmetric = np.array_equal(table, table.T, equal_nan=True)
    assert is_symmetric == MEASURES[measure].symmetric
    assert np.isnan(table[5]).all() and np.isfinite(table[:5, :5]).all()


# The first shape is cheaper by features, the second by kernels.
@pytest.mark.parametrize("shape", [(3, 3000, 20), (20, 100, 60)])
def test_single_precision_errs_by_less_than_its_bound(shape):
    features = np.random.default_rng(0).standard_normal(shape) + 100  # far from centred
    exact = wcka.pairwise("cka", features)
    single = wcka.pairwise("cka", features, dtype=torch.float32)
    assert 0 < np.abs(single - exact).max() < 2e-6  # the bound is 5e-4
    for wrong_type in (torch.float16, torch.int32, "float32"):
        with pytest.raises(ValueError, match=r"dtype: wanted torch\.float32"):
            wcka.pairwise("cka", features, dtype=wrong_type)
    with pytest.raises(TypeError, match="unbiased_cka takes no dtype"):
        wcka.pairwise("unbiased_cka", features, dtype=torch.float32)


def test_features_and_kernels_give_the_same(real, monkeypatch):
    x, y = real[0][:400], real[1][:400]
    features = [x, y, x[:, :9], y[:, 3:] ** 2]
    by_kernels = tables_of(definitions.cka, features)
    by_features = wcka.pairwise("cka", features)
    monkeypatch.setattr(inner_products, "cheaper_by_kernels", lambda *_: True)
    np.testing.assert_allclose(
        wcka.pairwise("cka", features), by_kernels, rtol=0, atol=1e-12)
    np.testing.assert_allclose(by_features, by_kernels, rtol=0, atol=1e-12)


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
    for wrong_pairs in (([0], [1, 2]), ([0.0], [1.0]), ([], [])):
        with pytest.raises(ValueError, match="pairs: wanted two rows of ints"):
            wcka.pairwise("cka", x, wrong_pairs)


def test_pairwise_dcka_without_positive_part(real):
    x, y, inputs = real
    table = wcka.pairwise("dcka", [x, y, y[:, :7]], inputs=inputs, psd=False)
    expected = wcka.dcka(x, y[:, :7], inputs, psd=False)
    assert table[0, 2] == pytest.approx(expected, abs=1e-12)


class LargestTensor(torch.overrides.TorchFunctionMode):
    """Records the number of float64 numbers in the largest storage of any result."""

    numbers = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            self.numbers = max(self.numbers, result.untyped_storage().nbytes() // 8)
        return result


def largest_tensor(measure, count, n, d):
    """Size of the largest result while a measure compares random features."""
    features = torch.randn(count, n, d, generator=torch.manual_seed(0))
    with LargestTensor() as largest:
        table = wcka.pairwise(measure, features)
    assert table[0, 1] < 1 and np.diag(table) == pytest.approx(1)
    return largest.numbers


def test_working_memory_grows_neither_with_models_nor_with_samples(monkeypatch):
    """Converted features are not kept, as for very many; nothing else is large."""
    monkeypatch.setattr(inner_products, "KEPT", 0)
    monkeypatch.setattr(inner_products, "_PIECE_ROWS", 500)
    monkeypatch.setattr(inner_products, "_STRIP_NUMBERS", 2**16)
    for measure in ("cka", "unbiased_cka", "procrustes", "minibatch_cka"):
        few_samples = largest_tensor(measure, 9, 4000, 8)
        assert few_samples == largest_tensor(measure, 9, 16000, 8)
    assert largest_tensor("cka", 40, 40, 32) <= 2**16
    assert largest_tensor("cka", 120, 40, 32) <= 2**16


# ------------------------------------------------------------------- invariances


@pytest.fixture(scope="module")
def pair(trained):
    return trained.member(3).double(), trained.member(4).double()


def similarity_on(measure, a, b, probes):
    """Similarity of two networks, of their last hidden activations or their weights."""
    if measure == "wcka":
        return wcka.wcka(a, b)
    options = {"inputs": probes} if measure == "dcka" else {}
    with torch.no_grad():
        return getattr(wcka, measure)(a[:-1](probes), b[:-1](probes), **options)


def in_both_orders(measure, a, b, probes):
    """Similarities of two networks in both orders."""
    return [similarity_on(measure, a, b, probes), similarity_on(measure, b, a, probes)]


@pytest.mark.parametrize("transformation", [*TRANSFORMATIONS, "probes"])
@pytest.mark.parametrize("measure", MEASURE_NAMES)
def test_declared_invariances_and_variances(measure, transformation, pair, digits):
    """Whichever of the two networks is changed: no value moves, or one of them does."""
    a, b = pair
    probes = digits[0][:300].double()
    before = in_both_orders(measure, a, b, probes)
    if transformation == "probes":
        foggy_images = corruptions.corrupt(image_sets.load()[0][:300], "fog")
        foggy = image_sets.as_inputs(foggy_images).double()
        after = in_both_orders(measure, a, b, foggy)
    else:
        transformed = TRANSFORMATIONS[transformation](b, probes, 1)
        after = in_both_orders(measure, a, transformed, probes)
    if transformation in MEASURES[measure].invariances:
        assert after == pytest.approx(before, abs=1e-6)
    else:
        assert np.abs(np.subtract(after, before)).max() > 1e-4


finite = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (12, 5), elements=finite),
       arrays(np.float64, (12, 3), elements=finite))
def test_range_symmetry_and_self_similarity(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for name in FEATURE_MEASURES:
            measure = getattr(wcka, name)
            value = measure(x, y)
            assert np.isnan(value) or MEASURES[name].lowest <= value <= 1
            if MEASURES[name].symmetric:
                assert value == pytest.approx(measure(y, x), abs=1e-9, nan_ok=True)
            itself = measure(x, x)
            assert np.isnan(itself) or itself == pytest.approx(1, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(symmetry.CHANGES))
def test_invariance_on_random_representations(seed, change):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 4))
    linear_map, shift = symmetry.change_of_basis(change, 6, seed)
    transformed = x @ linear_map.numpy() + shift.numpy()
    for name in ("cka", "procrustes"):
        measure = getattr(wcka, name)
        difference = abs(measure(transformed, y) - measure(x, y))
        assert (difference < 1e-9) == (change in MEASURES[name].invariances)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-140, 1e140))
def test_scale_never_matters(seed, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((9, 4)), rng.standard_normal((9, 2))
    for measure in (wcka.cka, wcka.procrustes):
        assert measure(x * scale, y) == pytest.approx(measure(x, y), abs=1e-12)


# ------------------------------------------------------------------- degenerate input


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
    for call in (
            lambda: wcka.cka(good, bad),
            lambda: wcka.procrustes(bad, good),
            lambda: wcka.dcka(bad, good, good),
            lambda: wcka.pairwise("cka", [good, bad])):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", FEATURE_MEASURES)
def test_half_precision_counts_as_exact_numbers(name, kind):
    """The value is that of the same numbers in float64: none of them is rounding."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 8)) * np.linspace(1, 0.3, 8) + 20
    y = x @ rng.standard_normal((8, 6)) + rng.standard_normal((1500, 6))
    half_x, half_y = torch.from_numpy(x).to(kind), torch.from_numpy(y).to(kind)
    measure = getattr(wcka, name)
    expected = measure(half_x.double(), half_y.double())
    assert measure(half_x, half_y) == pytest.approx(expected, abs=1e-9)


def test_rounding_of_one_model_does_not_change_the_similarity_of_others():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((20, 3))
    x = inputs + 0.001 * rng.standard_normal(inputs.shape)
    y = inputs + 0.001 * rng.standard_normal(inputs.shape)
    half = torch.from_numpy(rng.standard_normal((20, 3))).half()
    alone = wcka.pairwise("dcka", [x, y], inputs=inputs, psd=False)
    beside_half = wcka.pairwise("dcka", [x, y, half], inputs=inputs, psd=False)
    assert beside_half[0, 1] == alone[0, 1]


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
    with pytest.warns(RuntimeWarning, match="2 of 2"):
        assert np.isnan(wcka.relu_cka(np.eye(n), scaled))
    with pytest.warns(RuntimeWarning, match="2 of 2"):
        assert np.isnan(wcka.unbiased_cka(np.eye(n), np.eye(n)))


def test_columns_of_very_different_size():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 30, 4))
    by_svcca = wcka.svcca(x * [1, 1e-8, 1, 1e-7], y, 1)
    assert by_svcca == pytest.approx(wcka.mean_cca(x, y), abs=1e-6)
    scaled = x * [1e140, 1, 1e-100, 1e-150]
    for measure in (wcka.relu_procrustes, wcka.relu_cka):
        assert measure(scaled, y) == pytest.approx(measure(x, y), abs=1e-9)
    with_constant = np.column_stack([x, np.full(30, 1e90)])
    for measure in (wcka.unbiased_cka, wcka.cka):
        assert measure(with_constant, y) == pytest.approx(measure(x, y), abs=1e-9)


def test_the_warning_is_of_the_callers_line():
    x = np.random.default_rng(0).standard_normal((9, 3))
    for call in (
            lambda: wcka.cka(x, x * 0),
            lambda: wcka.pairwise("procrustes", [x, x * 0]),
            lambda: wcka.dcka(x, x**2, x, psd=False)):
        with pytest.warns(RuntimeWarning, match="1 of 2") as caught:
            call()
        (warning,) = caught
        assert warning.filename == __file__


def test_unusual_arrays():
    x = np.random.default_rng(0).standard_normal((9, 3))
    for kind in (">f4", ">f8", "longdouble", ">i4"):
        unusual = x.astype(kind)
        expected = wcka.cka(unusual.astype(float), x[:, ::-1])
        assert wcka.cka(unusual, x[:, ::-1]) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(TypeError, match="masked"):
        wcka.cka(np.ma.masked_less(x, 0), x)
    with pytest.raises(TypeError, match="wcka takes no nonsense"):
        wcka.pairwise("wcka", [x, x], nonsense=3)
    with pytest.raises(TypeError, match="dcka takes no images; it takes inputs, psd"):
        wcka.pairwise("dcka", [x, x], images=x)
    with pytest.raises(TypeError, match="a function of wcka"):
        wcka.pairwise(np.linalg.norm, [x, x])


def test_networks_and_files_are_no_representations():
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
    for no_network in (None, 3, []):
        with pytest.raises(TypeError, match=r"wanted an nn\.Module, a list"):
            wcka.wcka(no_network, x[0])
    with pytest.raises(TypeError, match="cka takes no inputs"):
        wcka.pairwise("cka", x, inputs=x[0])
    with pytest.raises(ValueError, match="different numbers of rows"):
        wcka.pairwise("dcka", x, inputs=x[0, :4])


def test_dead_representation_has_no_similarity():
    x = np.random.default_rng(0).standard_normal((9, 3))
    dead = np.full((9, 3), 0.1)
    with pytest.warns(RuntimeWarning, match="1 of 2 representations"):
        assert np.isnan(wcka.cka(x, dead))
    with pytest.warns(RuntimeWarning, match="1 of 3"):
        table = wcka.pairwise("procrustes", [x, dead, x[:, :2]])
    assert np.isnan(table[1]).all() and np.isfinite(table[[0, 2]][:, [0, 2]]).all()
    with pytest.warns(RuntimeWarning, match="1 of 2"):  # the inputs explain all of it
        assert np.isnan(wcka.dcka(x[:, :2] ** 2, 2 * x[:, ::-1] + 1, inputs=x))


def test_variation_in_the_last_bit_is_no_variance():
    x = np.random.default_rng(0).standard_normal((50, 4))
    for kind in (np.float32, np.float64):
        ones = np.ones((50, 2), dtype=kind)
        ones[::3] += np.finfo(kind).eps
        with pytest.warns(RuntimeWarning, match="1 of 2"):
            assert np.isnan(wcka.cka(x, ones))
    single = x.astype(np.float32) @ np.diag([1, 1, 1, 1]).astype(np.float32)
    explained = np.float32(0.1) * single + np.float32(3)  # by the inputs x
    for psd in (True, False):
        with pytest.warns(RuntimeWarning, match="1 of 2"):
            assert np.isnan(wcka.dcka(explained, x**2, x, psd=psd))


def test_a_quiet_unit_beside_a_large_constant_one_counts():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 2)) * 1e-5
    with_constant = np.column_stack([x, np.full(30, 1e8)])
    assert wcka.cka(with_constant, x) == pytest.approx(1, abs=1e-9)


def test_accepts_networks_matrices_and_chains(trained):
    a, b = trained.member(3), trained.member(4)
    expected = wcka.wcka(a, b)
    assert wcka.wcka(a, weights_of(b)) == pytest.approx(expected, abs=1e-6)
    assert wcka.wcka(wcka.chain(a), wcka.chain(b)) == pytest.approx(expected, abs=1e-12)
    fewer_inputs = architectures.mlp((100, 3))
    message = "different numbers of rows: a has 784, b has 100"
    with pytest.raises(ValueError, match=message):
        wcka.wcka(a, fewer_inputs)


@pytest.mark.parametrize("name", ["cka", "procrustes"])
def test_triangle_inequality_of_the_angle(name):
    """The distance form is a metric."""
    rng = np.random.default_rng(3)
    measure = getattr(wcka, name)

    def angle(x, y):
        return np.arccos(min(1, measure(x, y)))

    for _ in range(50):
        x, y, z = rng.standard_normal((3, 8, 3))
        assert angle(x, z) <= angle(x, y) + angle(y, z) + 1e-12


def unbiased_cka_in_fractions(x, y):
    """Unbiased CKA of integer matrices by its definition, in exact arithmetic."""
    n = len(x)

    def kernel(z):
        """Return the products of all rows, with zeros on the diagonal."""
        products = (z.astype(object) @ z.T.astype(object))
        np.fill_diagonal(products, 0)
        return products

    def hsic(k, m):
        total = (k * m).sum()
        sums_product = Fraction(k.sum() * m.sum(), (n - 1) * (n - 2))
        return total + sums_product - Fraction(2, n - 2) * (k.sum(0) @ m.sum(0))

    k, m = kernel(x), kernel(y)
    return float(hsic(k, m)) / (float(hsic(k, k)) * float(hsic(m, m))) ** 0.5


@pytest.mark.parametrize("factor", [1, 10**4, 10**6])
def test_one_large_row_costs_unbiased_cka_no_digits(factor):
    rng = np.random.default_rng(0)
    z = rng.integers(-50, 50, (12, 6))
    x = z @ rng.integers(-5, 5, (6, 4))
    y = z @ rng.integers(-5, 5, (6, 3))
    x[0] *= factor
    y[0] *= factor
    expected = unbiased_cka_in_fractions(x, y)
    assert wcka.unbiased_cka(x, y) == pytest.approx(expected, rel=1e-12)
    pairs = wcka.pairwise("unbiased_cka", [x.astype(float), y.astype(float)])
    assert pairs[0, 1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shared", [0, 3])
def test_pwcca_is_defined_where_correlations_are_equal(shared):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(9, 6))
        y = rng.normal(size=(9, 7))
        y[:, :shared] = x[:, :shared]
        value = wcka.pwcca(x, y)
        order = rng.permutation(9)
        noise = 1e-13 * rng.normal(size=x.shape)
        for other in (
                wcka.pwcca(x[order], y[order]), wcka.pwcca(x + noise, y),
                wcka.pwcca(3 * x[:, ::-1], y), wcka.pairwise("pwcca", [x, y])[0, 1]):
            assert other == pytest.approx(value, abs=1e-6)
