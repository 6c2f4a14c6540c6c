"""Nulls in closed form against all re-pairings, drawn ones, and another library."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import wcka
from wcka.measures.all_pairs import MEASURES, kernel_features
from wcka.measures.nulls import CLOSED_FORM, Null, judged, pearson_tail
from wcka.networks import image_sets
from wcka.networks.populations import chains, initialise
from wcka.networks.training import train

try:
    import calibrated_similarity
except ModuleNotFoundError:
    calibrated_similarity = None


def drawn_features(kind, n, d, rng):
    """Features (n, d) of a kind, from wholly regular rows to a few very long ones."""
    normal = rng.standard_normal((n, d))
    kinds = {
        "normal": lambda: normal,
        "dependent": lambda: normal @ rng.standard_normal((d, d)) ** 3,
        "decaying": lambda: normal / np.arange(1, d + 1),
        "rectified": lambda: np.maximum(normal @ rng.standard_normal((d, d)), 0),
        "t3": lambda: rng.standard_t(3, (n, d)),
        "t2": lambda: rng.standard_t(2, (n, d)),
        "lognormal": lambda: np.exp(normal),
        "one long row": lambda: np.where(np.arange(n)[:, None] == 1, 1e4, normal),
        "one-hot": lambda: np.eye(d)[rng.integers(0, d, n)],
    }
    return kinds[kind]()


KINDS = ("normal", "dependent", "decaying", "rectified", "t3", "t2", "lognormal",
         "one long row", "one-hot")


# ------------------------------------------------------------- against all re-pairings


def over_all_orders(name, x, y, inputs):
    """The similarity with the rows of y in all orders: (n!,)."""
    if name == "dcka":  # the rows without the inputs' part are re-paired
        features = {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}
        models = kernel_features("dcka", features, inputs)
        x, y = (model.rows().numpy() for model in models)
        name = "cka"
    orders = np.array(list(itertools.permutations(range(len(x)))))
    stack = [x, *y[orders]]
    positions = np.arange(1, len(stack))
    return wcka.pairwise(name, stack, pairs=(np.zeros_like(positions), positions))


@pytest.mark.parametrize(("name", "kind", "n"), [
    *itertools.product(CLOSED_FORM, KINDS, (4, 5, 6)),
    # Measures share the formulas of moments: one of them will do for 5,040 orders.
    ("cka", "t3", 7),
    ("cka", "one-hot", 7)])
def test_moments_are_those_over_all_orders(name, kind, n):
    rng = np.random.default_rng([n, KINDS.index(kind)])
    x = drawn_features(kind, n, 3, rng)
    y = drawn_features("normal", n, 9, rng)  # more columns than rows
    y[:, :3] += x / max(1, abs(x).max())
    inputs = rng.standard_normal((n, 2))
    options = {"inputs": inputs} if name == "dcka" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one-hot rows may all be the same
        values = over_all_orders(name, x, y, inputs)
        null = wcka.null(x, y, name, **options)
    if np.isnan(values).any():
        assert np.isnan([null.value, null.z, null.p]).all()
        return
    assert null.draws == 0
    assert null.value == pytest.approx(values[0], abs=1e-10)
    assert null.mean == pytest.approx(values.mean(), abs=1e-10)
    assert null.sd == pytest.approx(values.std(), abs=1e-8)
    if values.std() > 1e-6:
        assert null.skewness == pytest.approx(stats.skew(values), abs=1e-6)
        assert null.z == pytest.approx((values[0] - values.mean()) / values.std())


@pytest.mark.parametrize("kind", ["dependent", "t3", "lognormal"])
def test_moments_are_those_of_many_drawn_orders(kind):
    rng = np.random.default_rng(0)
    x, y = drawn_features(kind, 200, 3, rng), drawn_features(kind, 200, 4, rng)
    null = wcka.null(x, y)
    x, y = x - x.mean(0), y - y.mean(0)
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    values = []
    for _ in range(10):
        orders = rng.permuted(np.tile(np.arange(200), (10_000, 1)), axis=1)
        products = np.einsum("ni,kne->kie", x, y[orders], optimize=True)
        values.append((products**2).sum((1, 2)) / scale)
    values = np.concatenate(values)
    error = values.std() / len(values) ** 0.5
    assert null.mean == pytest.approx(values.mean(), abs=5 * error)
    assert null.sd == pytest.approx(values.std(), rel=0.05)
    assert null.skewness == pytest.approx(stats.skew(values), rel=0.15)


def test_the_variance_is_the_published_one():
    """Kazi-Aoual et al. 1995, as Josse, Pages & Husson 2008 write it."""
    rng = np.random.default_rng(1)
    n = 60
    features = [drawn_features(kind, n, 5, rng) for kind in ("t3", "dependent")]
    betas, taus = [], []
    for x in features:
        x = x - x.mean(0)
        gram = x.T @ x
        beta = np.trace(gram) ** 2 / (gram**2).sum()
        q = ((x**2).sum(1) ** 2).sum() / (gram**2).sum()
        betas.append(beta)
        taus.append((n - 1) / ((n - 3) * (n - 1 - beta))
                    * (n * (n + 1) * q - (n - 1) * (beta + 2)))
    variance = (2 * (n - 1 - betas[0]) * (n - 1 - betas[1])
                / ((n + 1) * (n - 1) ** 2 * (n - 2))
                * (1 + (n - 3) / (2 * n * (n - 1)) * taus[0] * taus[1]))
    null = wcka.null(*features)
    assert null.mean == pytest.approx(np.sqrt(betas[0] * betas[1]) / (n - 1))
    assert null.sd**2 == pytest.approx(variance, rel=1e-10)


# ------------------------------------------------------------------------ the p-values


def null_p_values(kind, n, d, models=300):
    """p-values of all pairs of independent models."""
    rng = np.random.default_rng([n, d])
    features = [drawn_features(kind, n, d, rng) for _ in range(models)]
    pairs = np.triu_indices(models, 1)
    return wcka.pairwise_null("cka", features, pairs).p


@pytest.mark.parametrize("kind", ["normal", "dependent", "decaying", "rectified"])
@pytest.mark.parametrize(("n", "d"), [(50, 2), (100, 10), (300, 40)])
def test_p_values_below_a_level_are_as_many_as_the_level_says(kind, n, d):
    """Pairs share models, so shares vary more than those of independent pairs."""
    p = null_p_values(kind, n, d)
    for level, deviation in ((0.05, 0.1), (0.01, 0.15)):
        assert (p < level).mean() == pytest.approx(level, rel=deviation)
    assert 0.0003 < (p < 0.001).mean() < 0.0013  # made larger in the tail


@pytest.mark.parametrize("kind", ["t3", "t2", "lognormal"])
@pytest.mark.parametrize(("n", "d"), [(50, 2), (100, 10), (300, 40)])
def test_p_values_are_cautious_where_a_few_rows_are_long(kind, n, d):
    p = null_p_values(kind, n, d)
    for level in (0.05, 0.01, 0.001):
        assert (p < level).mean() < 1.2 * level


def test_the_tail_is_that_of_pearson_3():
    z = np.array([[-9.0, -1.0, 0.0, 0.5, 3.0, 20.0, np.nan]])
    skewness = np.array([[-3.0], [-0.5], [-1e-4], [0.0], [1e-7], [1e-3], [0.8], [12.0]])
    expected = stats.pearson3.sf(z, skewness)
    np.testing.assert_allclose(pearson_tail(z, skewness), expected, rtol=1e-6)
    for number in (-2.0, 0.0, 1.5):
        tail = pearson_tail(z[0], number)
        np.testing.assert_allclose(tail, stats.pearson3.sf(z[0], number), rtol=1e-6)
        tail = pearson_tail(1.0, number)
        assert isinstance(tail, float)
        assert tail == pytest.approx(stats.pearson3.sf(1.0, number))


def test_p_grows_as_the_value_falls():
    """Also where it is made larger: in the tail, and where a few rows are long."""
    values = np.linspace(0, 1, 1000)
    for smooth in (0.1, 2.0):
        for skewness in (0.1, 0.5, 2.0, 8.0):
            moments = np.full(4, [0.1, 0.05, skewness, smooth])
            p = judged(values, *moments[:, None]).p
            assert (np.diff(p) <= 0).all() and p[0] <= 1


def test_what_is_related_is_found():
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 500, 20))
    for share in (0.3, 1.0):
        null = wcka.null(x, share * x + noise)
        assert null.z > 10 and null.p < 1e-9
    assert wcka.null(x, noise).p > 1e-3


@pytest.mark.skipif(calibrated_similarity is None, reason="an optional library")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_threshold_score_and_p_are_those_of_the_reference(share):
    """calibrated-similarity draws orders; with 1,999 it errs little."""
    x, y = torch.randn(2, 200, 10, generator=torch.Generator().manual_seed(3))
    y = share * x + y
    score, p, threshold = calibrated_similarity.calibrate(
        x, y, wcka.cka, K=1999, generator=torch.Generator().manual_seed(0))
    null = wcka.null(x, y)
    assert null.threshold() == pytest.approx(float(threshold), abs=0.001)
    assert null.score() == pytest.approx(float(score), abs=0.002)
    error = np.sqrt(null.p * (1 - null.p) / 1999) + 1 / 2000
    assert null.p == pytest.approx(float(p), abs=4 * error)


def test_scores_are_0_where_chance_can_be_as_high_as_any_value():
    values = np.array([0.3, 0.3, 1.0, 1 + 1e-15, np.nan])
    mean = np.array([1.2, 1.0, 1.5, 0.2, np.nan])
    null = Null(values, mean, 0 * mean, 0 * mean, 0 * mean, 0 * mean)
    np.testing.assert_array_equal(null.score(), [0, 0, 0, 1, np.nan])
    for i in range(4):
        score = Null(*(float(column[i]) for column in null[:6])).score()
        assert isinstance(score, float) and score == (i == 3)


def test_scores_of_a_few_rows_are_within_0_and_1():
    """One long row on each side: chance is 1 where they meet, in one of six orders."""
    x, y = np.random.default_rng(0).standard_normal((2, 6, 2))
    x[0] *= 1e3
    y[1] *= 1e3
    null = wcka.null(x, y)
    assert null.threshold(0.01) > 1 and null.score(0.01) == 0


# ----------------------------------------------------------------------- of networks


def test_the_null_of_chains_is_the_floor_of_untrained_networks():
    for widths in ([784, 32, 32, 3], [784, 64, 10], [30, 20, 4]):
        architecture = {"factory": "mlp", "widths": widths, "activation": "relu"}
        floor_of = list(chains(initialise(architecture, range(60))).double())
        pairs = np.triu_indices(60, 1)
        null = wcka.pairwise_null("wcka", floor_of, pairs)
        assert null.mean.mean() == pytest.approx(null.value.mean(), rel=0.05)
        assert null.sd.mean() == pytest.approx(null.value.std(), rel=0.15)
        assert (null.p < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_the_null_of_activations_is_not_their_floor(digits):
    """Untrained networks are similar beyond it, because their images are the same."""
    architecture = {"factory": "mlp", "widths": [784, 32, 32, 3], "activation": "relu"}
    population = initialise(architecture, range(10))
    layers = list(population.activations(digits[0][:1000], 2))
    null = wcka.pairwise_null("cka", layers, np.triu_indices(10, 1))
    assert null.value.min() > 2 * null.mean.max()
    assert null.p.max() < 1e-9


def test_strangers_of_one_task_are_beyond_the_null():
    """A tiny p says nothing about descent: the same images have dark borders."""
    inputs = image_sets.as_inputs(image_sets.load(split="train")[0][:2000])
    labels = torch.from_numpy(image_sets.load(split="train")[1][:2000])
    architecture = {"factory": "mlp", "widths": [784, 16, 3], "activation": "relu"}
    population = initialise(architecture, range(2))
    trained = train(population, inputs, labels, epochs=3)
    null = wcka.null(trained.member(0), trained.member(1))
    assert null.p < 1e-6 and null.value < 0.9


def test_networks_and_lists_of_matrices_are_compared_by_wcka():
    torch.manual_seed(0)
    a, b = (torch.nn.Sequential(torch.nn.Linear(20, 8), torch.nn.ReLU(),
                                torch.nn.Linear(8, 3)) for _ in range(2))
    null = wcka.null(a, b)
    assert null.value == pytest.approx(wcka.wcka(a, b), abs=1e-12)
    matrices = [a[0].weight.detach().T, a[2].weight.detach().T]
    assert wcka.null(matrices, b) == pytest.approx(null)
    assert wcka.null(wcka.chain(a), wcka.chain(b)) == pytest.approx(null)
    assert wcka.null(a, b, wcka.wcka) == null


# ------------------------------------------------------------------------- properties


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 30), st.integers(1, 40), st.integers(0, 10**6),
       st.sampled_from(CLOSED_FORM[::3]))
def test_the_null_does_not_depend_on_the_pairing_or_the_basis(n, d, seed, name):
    """Moments are of the two models alone; value, z and p are of their pairing."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n, 3))
    rotation = np.linalg.qr(rng.standard_normal((d, d))).Q
    null = wcka.null(x, y, name)
    moments = null[1:4]
    shuffled = wcka.null(x, y[rng.permutation(n)], name)
    assert shuffled[1:4] == pytest.approx(moments, rel=1e-6, abs=1e-9)
    moved = wcka.null(1e60 * (x @ rotation) + 1e60, y, name)
    assert moved[:4] == pytest.approx(null[:4], rel=1e-6, abs=1e-9)
    exchanged = wcka.null(y, x, name)
    assert exchanged[:5] == pytest.approx(null[:5], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_all_pairs_at_once_give_what_single_pairs_give(name):
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((40, d)) for d in (1, 3, 3, 7, 20, 60)]
    options = {"inputs": rng.standard_normal((40, 2))} if name == "dcka" else {}
    everything = wcka.pairwise_null(name, features, **options)
    listed = [0, 2, 5, 3], [1, 4, 2, 3]
    some = wcka.pairwise_null(name, features, listed, **options)
    for k, (i, j) in enumerate(zip(*listed)):
        single = wcka.null(features[i], features[j], name, **options)
        for column, of_some, of_all in zip(single[:-1], some, everything):
            assert of_some[k] == pytest.approx(column, rel=1e-9, abs=1e-12)
            assert of_all[i, j] == pytest.approx(column, rel=1e-9, abs=1e-12)
            assert of_all[i, j] == pytest.approx(of_all[j, i], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("d", [3, 40])  # sums of columns, and strips of the kernel
def test_pieces_of_rows_add_up(d, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 300, d))
    whole = wcka.null(x, y)
    monkeypatch.setattr("wcka.measures.inner_products._PIECE_ROWS", 7)
    monkeypatch.setattr("wcka.measures.inner_products.KEPT", 0)
    monkeypatch.setattr("wcka.measures.kernel_sums._NUMBERS", 1000)
    assert wcka.null(x, y) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("kind", ["rectified", "lognormal"])
def test_where_rows_are_many_some_stand_for_all(kind, monkeypatch):
    """Only the skewness is then no longer exact."""
    rng = np.random.default_rng(0)
    x, y = (drawn_features(kind, 3000, 80, rng) for _ in range(2))
    exact = wcka.null(x, y)
    monkeypatch.setattr("wcka.measures.kernel_sums._PRODUCTS", 80e6)  # 1,000 rows
    some = wcka.null(x, y)
    assert some[:3] == exact[:3]
    assert some.skewness != exact.skewness
    assert some.skewness == pytest.approx(exact.skewness, rel=0.1)


def test_single_precision_and_files_on_disk_give_the_same(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 100, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = wcka.null(x.astype(float), y.astype(float))
    assert wcka.null(mapped, torch.from_numpy(y)) == pytest.approx(expected, rel=1e-6)


# -------------------------------------------------------------------- drawn re-pairings


@pytest.mark.parametrize("name", sorted(set(MEASURES) - set(CLOSED_FORM)))
def test_measures_without_a_closed_form_draw_orders(name):
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 40, 4))
    chance = wcka.null(x, noise, name, draws=99)
    related = wcka.null(x, x + 0.1 * noise, name, draws=99)
    assert chance.draws == related.draws == 99
    assert chance.p >= 0.01 and related.p == 0.01
    assert abs(chance.z) < 4 and related.z > 4
    assert related.value == pytest.approx(getattr(wcka, name)(x, x + 0.1 * noise))
    assert wcka.null(x, noise, name, draws=99) == chance


def test_drawn_nulls_of_all_pairs():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3, 30, 4))
    null = wcka.pairwise_null("procrustes", features, draws=19)
    single = wcka.null(features[0], features[2], "procrustes", draws=19)
    assert [column[0, 2] for column in null[:-1]] == pytest.approx(single[:-1])
    assert (null.p == null.p.T).all() and (np.diag(null.p) == 0.05).all()


def test_draws_agree_with_the_closed_form():
    """CKA as a measure that draws: an infinitely wide Gaussian kernel is linear."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50, 3))
    drawn = wcka.null(x, y, "rbf_cka", sigma=1e4, draws=999)
    exact = wcka.null(x, y, "cka")
    assert drawn.value == pytest.approx(exact.value, abs=1e-4)
    assert drawn.mean == pytest.approx(exact.mean, abs=5 * exact.sd / 999**0.5)
    assert drawn.sd == pytest.approx(exact.sd, rel=0.15)
    assert drawn.p == pytest.approx(exact.p, abs=0.06)


@pytest.mark.parametrize("name", ["mean_cca", "procrustes", "pwcca", "relu_procrustes",
                                  "svcca"])
def test_draws_that_give_the_value_itself_up_to_rounding(name):
    """As in closed form: nothing is beyond chance, whatever the last digits are."""
    for n in (6, 40):
        x = np.random.default_rng(0).standard_normal((n, 2))
        null = wcka.null(np.eye(n), x, name, draws=99)
        assert null.mean == pytest.approx(null.value)
        assert (null.sd, null.skewness, null.p) == (0, 0, 1) and np.isnan(null.z)


# -------------------------------------------------------------------------- bad input


def test_three_rows_have_no_null():
    x, y = np.eye(3)[:, :2], np.eye(3)[:, 1:]
    with pytest.warns(RuntimeWarning, match="3 rows can be re-paired in 6 ways only"):
        null = wcka.null(x, y)
    assert null.value == wcka.cka(x, y)
    assert np.isnan(null[1:6]).all()


def test_a_constant_side_has_no_null():
    x = np.random.default_rng(0).standard_normal((10, 2))
    with pytest.warns(RuntimeWarning, match="1 of 2 representations have no variance"):
        null = wcka.null(x, np.ones((10, 3)))
    assert np.isnan(null[:6]).all()


def test_kernels_that_no_order_changes():
    """Each row of the identity is as far from all others: nothing can be re-paired."""
    x = np.random.default_rng(0).standard_normal((6, 2))
    null = wcka.null(np.eye(6), x)
    assert null.sd == 0 and null.p == 1 and np.isnan(null.z)
    assert null.mean == pytest.approx(null.value)


@pytest.mark.parametrize(("arguments", "options", "error", "message"), [
    (("ckaa",), {}, ValueError, "did you mean 'cka'"),
    (("dcka",), {}, TypeError, "dcka needs the probes"),
    (("dcka",), {"inputs": np.eye(10), "psd": False}, ValueError, "psd: wanted True"),
    (("dcka",), {"inputs": None}, TypeError, "inputs: wanted real numbers"),
    (("cka",), {"sigma": 1}, TypeError, "cka takes no sigma"),
    (("cka",), {"dtype": torch.float32}, TypeError, "a null takes no dtype"),
    (("procrustes",), {"draws": 18}, ValueError, "draws: wanted .* from 19"),
    (("procrustes",), {"draws": 25.5}, ValueError, "draws: wanted a whole number"),
    (("cka",), {"draws": float("nan")}, ValueError, "draws: wanted a whole number"),
])
def test_bad_arguments(arguments, options, error, message):
    x = np.random.default_rng(0).standard_normal((10, 2))
    with pytest.raises(error, match=message):
        wcka.null(x, x, *arguments, **options)


@pytest.mark.parametrize("level", [0, 1, -0.1, float("nan")])
def test_bad_levels(level):
    x = np.random.default_rng(0).standard_normal((10, 2))
    with pytest.raises(ValueError, match="level: wanted a number between 0 and 1"):
        wcka.null(x, x).score(level)
