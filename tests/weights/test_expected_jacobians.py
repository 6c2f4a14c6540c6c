"""Expected Jacobians: against the chain, brute force, rewritings, and from outputs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import wcka
from wcka.networks import counterexamples
from wcka.networks.architectures import convnet, mlp, resnet
from wcka.weights import symmetry
from wcka.weights.expected_jacobians import Similarity, jackknife_error
from wcka.weights.gated_layers import (
    frequency_chains,
    gradient_features,
    layers_of,
    mean_jacobians,
)

WIDTHS = (6, 7, 5, 3)


def network_of(seed, widths=WIDTHS, activation="relu", bias=True):
    """Return a network in float64 whose biases close some of its gates."""
    torch.manual_seed(seed)
    network = mlp(widths, activation, bias).double().requires_grad_(False)
    for module in network:
        if isinstance(module, nn.Linear) and bias:
            module.bias.normal_(0, 0.5)
    return network


def inputs_of(seed, n=40, p=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, p, generator=generator, dtype=torch.float64)


def brute_force(network, inputs):
    """Return the Jacobian at every input, (n, inputs, outputs)."""
    jacobians = []
    for x in inputs:
        jacobian = torch.autograd.functional.jacobian(
            lambda row: network(row[None])[0], x)  # (outputs, ...)
        jacobians.append(jacobian.flatten(1).T)
    return torch.stack(jacobians)


# ------------------------------------------------------------------- chain and gradient


@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    seed=st.integers(0, 1000), bias=st.booleans(),
    strength=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=25, deadline=None)
def test_linear_networks_have_their_chain(widths, seed, bias, strength):
    network = network_of(seed, widths, "identity", bias)
    jacobian = wcka.expected_jacobian(network, inputs_of(seed, 7, widths[0]), strength)
    torch.testing.assert_close(jacobian, wcka.chain(network), rtol=1e-12, atol=1e-12)


@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    seed=st.integers(0, 1000), activation=st.sampled_from(["relu", "leaky_relu"]))
@settings(max_examples=25, deadline=None)
def test_open_gates_give_the_chain_and_real_ones_the_gradient(widths, seed, activation):
    network = network_of(seed, widths, activation)
    inputs = inputs_of(seed, 7, widths[0])
    opened = wcka.expected_jacobian(network, inputs, strength=0)
    torch.testing.assert_close(opened, wcka.chain(network), rtol=1e-12, atol=1e-12)
    gated = wcka.expected_jacobian(network, inputs)
    expected = brute_force(network, inputs).mean(0)
    torch.testing.assert_close(gated, expected, rtol=1e-12, atol=1e-12)


def test_strength_is_a_mixture_of_gates():
    network, inputs = network_of(0, (6, 9, 3)), inputs_of(0)
    opened, gated, mixed = (
        wcka.expected_jacobian(network, inputs, strength) for strength in (0, 1, 0.3))
    assert not torch.allclose(opened, gated)
    # With one hidden layer, J is linear in its gates.
    torch.testing.assert_close(mixed, 0.7 * opened + 0.3 * gated)


def test_strength_in_deep_networks_mixes_each_gate():
    network, inputs = network_of(0), inputs_of(0)
    first, second, third = (
        module.weight.T for module in network if isinstance(module, nn.Linear))
    total = torch.zeros(6, 3, dtype=torch.float64)
    for x in inputs:
        first_gate = 0.6 + 0.4 * (network[:2](x[None])[0] > 0)
        second_gate = 0.6 + 0.4 * (network[:4](x[None])[0] > 0)
        total += first * first_gate @ second * second_gate @ third
    mixed = wcka.expected_jacobian(network, inputs, 0.4)
    torch.testing.assert_close(mixed, total / len(inputs))


class Product(nn.Module):
    """A network that is wired in a way of its own."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.left(x) * self.right(x).sigmoid()


NETWORKS = {
    "tanh": (lambda: mlp((6, 5, 3), "tanh"), (6,)),
    "softmax": (lambda: nn.Sequential(mlp((6, 5, 3)), nn.Softmax(1)), (6,)),
    "last ReLU": (lambda: nn.Sequential(mlp((6, 5, 3)), nn.ReLU()), (6,)),
    "one layer": (lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU()), (6,)),
    "gated units": (Product, (6,)),
    "convolutions": (lambda: convnet((2, 3), 3, (4,), 3, 12), (12, 12)),
    "residual": (lambda: resnet((2,), (4,), 3, 8), (1, 8, 8)),
    "images": (lambda: mlp((12, 5, 3)), (3, 4)),
    "tokens": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)),
               (3, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_any_network_against_brute_force(name):
    factory, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = factory().double().eval()
    inputs = torch.rand(9, *shape).double() - 0.3

    def flat(x):
        return network(x).flatten(1)

    expected = brute_force(flat, inputs).mean(0)
    jacobian = wcka.expected_jacobian(network, inputs)
    torch.testing.assert_close(jacobian, expected, rtol=1e-10, atol=1e-12)
    assert jacobian.dtype == torch.float64 and not jacobian.requires_grad


def test_many_inputs_in_blocks_have_the_mean_of_their_parts(monkeypatch):
    network, inputs = network_of(1), inputs_of(1, 50)
    whole = mean_jacobians(layers_of(network), inputs)
    features = gradient_features(layers_of(network), inputs)
    frequencies = frequency_chains(layers_of(network), inputs)
    monkeypatch.setattr("wcka.weights.gated_layers._NUMBERS", 100)
    layers = layers_of(network)
    torch.testing.assert_close(mean_jacobians(layers, inputs), whole)
    torch.testing.assert_close(gradient_features(layers, inputs), features)
    torch.testing.assert_close(frequency_chains(layers, inputs), frequencies)


def test_gradient_features_have_the_kernel_of_all_gradients():
    network, inputs = network_of(2), inputs_of(2)
    kernel = torch.zeros(6, 6, dtype=torch.float64)
    for jacobian in brute_force(network, inputs):
        kernel += jacobian @ jacobian.T / len(inputs)
    features = gradient_features(layers_of(network), inputs)[0]
    torch.testing.assert_close(features @ features.T, kernel)


def test_frequency_chains_against_products_of_means():
    network, inputs = network_of(2), inputs_of(2)
    first, second, third = (
        module.weight.T for module in network if isinstance(module, nn.Linear))
    first_mean = (network[:3](inputs) > 0).double().mean(0)
    second_mean = (network[:5](inputs) > 0).double().mean(0)
    expected = first * first_mean @ second * second_mean @ third
    torch.testing.assert_close(
        frequency_chains(layers_of(network), inputs)[0], expected)


def test_the_network_is_left_as_it_was():
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(),
        nn.Linear(5, 2))
    before = {name: values.clone() for name, values in network.state_dict().items()}
    inputs = torch.rand(20, 4)
    state = torch.get_rng_state()
    with torch.no_grad():
        first = wcka.expected_jacobian(network, inputs)
    with torch.inference_mode():
        second = wcka.expected_jacobian(network, inputs.clone())
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training and all(module.training for module in network)
    for name, values in network.state_dict().items():
        assert torch.equal(values, before[name])
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network[1].weight.dtype == torch.float32


# --------------------------------------------------------------------------- rewritings


KEEP_FUNCTION = {
    "permutation": symmetry.permute,
    "rescaling": symmetry.rescale,
    "intertwiner": symmetry.intertwine,
    "dead units": counterexamples.deaden,
    "wider": lambda network, seed: counterexamples.widen(network, 2 + seed % 3),
    "deeper": lambda network, seed: counterexamples.deepen(network),
    "rebased": lambda network, seed: symmetry.rebase(network, "invertible map", seed),
}


@pytest.mark.parametrize("name", KEEP_FUNCTION)
@given(seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_rewritings_that_keep_the_function_change_nothing(name, seed):
    network, inputs = network_of(seed), inputs_of(seed)
    changed = KEEP_FUNCTION[name](network, seed=seed)
    torch.testing.assert_close(changed(inputs), network(inputs))
    torch.testing.assert_close(
        wcka.expected_jacobian(changed, inputs),
        wcka.expected_jacobian(network, inputs), rtol=1e-8, atol=1e-9)


def test_a_network_with_a_chosen_chain_has_its_own_expected_jacobian():
    network, inputs = network_of(0, (6, 9, 3)), inputs_of(0)
    changed = counterexamples.impersonate(network, torch.randn(6, 3))
    assert wcka.wcka(network, changed) < 0.9
    # All but where a unit's input is exactly zero
    torch.testing.assert_close(
        wcka.expected_jacobian(changed, inputs),
        wcka.expected_jacobian(network, inputs), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("change", [
    counterexamples.flip, lambda network: counterexamples.drown(network, 5.0),
    lambda network: counterexamples.scale_logit(network, 3.0)])
def test_changes_of_the_function_change_it(change):
    network, inputs = network_of(0), inputs_of(0)
    changed = change(network)
    similarity = wcka.expected_similarity(network, changed, inputs, batches=4)
    assert similarity.value < 0.99


# --------------------------------------------------------------------------- draws


def test_gaussian_inputs_have_their_moments():
    rng = np.random.default_rng(0)
    covariance = np.cov(rng.normal(size=(3, 40)) * [[1.0], [2.0], [0.5]])
    mean = np.array([1.0, -2.0, 0.0])
    drawn = wcka.gaussian_inputs(200_000, mean, covariance, seed=1)
    drawn_mean, drawn_covariance = wcka.input_moments(drawn)
    np.testing.assert_allclose(drawn_mean, mean, atol=0.02)
    np.testing.assert_allclose(drawn_covariance, covariance, atol=0.05)
    few = wcka.gaussian_inputs(5, mean, covariance, seed=1)
    torch.testing.assert_close(few, drawn[:5])
    assert not torch.allclose(few, wcka.gaussian_inputs(5, mean, covariance, seed=2))


@pytest.mark.parametrize("draws", [0, 2.5, math.nan, "5"])
def test_draws_are_a_whole_number(draws):
    with pytest.raises(ValueError, match="draws: wanted a whole number from 1 on"):
        wcka.gaussian_inputs(draws, [0.0], [[1.0]])


def test_constant_coordinates_stay_constant():
    images = torch.rand(50, 4)
    images[:, 2] = 0.25
    drawn = wcka.gaussian_inputs(10, *wcka.input_moments(images))
    torch.testing.assert_close(
        drawn[:, 2], torch.full((10,), 0.25, dtype=torch.float64))


def test_the_error_is_that_of_new_draws():
    a, b = network_of(0, (6, 20, 20, 3)), network_of(1, (6, 20, 20, 3))
    values, errors = [], []
    for seed in range(60):
        inputs = wcka.gaussian_inputs(200, np.zeros(6), np.eye(6), seed)
        similarity = wcka.expected_similarity(a, b, inputs)
        values.append(similarity.value)
        errors.append(similarity.error)
    whole = wcka.cka(*(wcka.expected_jacobian(network, inputs) for network in (a, b)))
    assert values[-1] == pytest.approx(whole, abs=1e-12)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.3)


def test_jackknife_of_unequal_batches_runs_and_itself_is_one():
    network = network_of(0)
    similarity = wcka.expected_similarity(network, network, inputs_of(0, 41), batches=7)
    assert similarity == Similarity(pytest.approx(1.0), pytest.approx(0.0, abs=1e-7))
    assert jackknife_error(np.ones(5)) == 0


# --------------------------------------------------------------------------- refusals


class Mixing(nn.Module):
    """Its output for one input depends on the whole batch."""

    def forward(self, x):
        return x - x.mean(0)


class Rounded(nn.Module):
    def forward(self, x):
        return x.argmax(1)


@pytest.mark.parametrize(("network", "arguments", "error", "match"), [
    ([np.eye(3)], (torch.ones(2, 3),), TypeError, "wanted an nn.Module"),
    (mlp((4, 3)), (torch.ones(2, 5),), ValueError, "5 coordinates"),
    (mlp((4, 3)), (torch.ones(4),), ValueError, "wanted shape"),
    (mlp((4, 3)), (torch.ones(0, 4),), ValueError, "n at least 1"),
    (mlp((4, 3)), (torch.full((2, 4), torch.nan),), ValueError, "NaN"),
    (mlp((4, 3)), (torch.ones(2, 4), 1.5), ValueError, "strength"),
    (mlp((4, 3)), (torch.ones(2, 4), "half"), ValueError, "strength"),
    (mlp((4, 3, 2), "tanh"), (torch.ones(2, 4), 0.5), TypeError, "no gates for Tanh"),
    (convnet((2,), 3, (4,), 3, 8), (torch.ones(2, 64), 0.5), TypeError, "strength"),
    (convnet((2,), 3, (4,), 3, 8), (torch.ones(2, 60),), ValueError, "take inputs"),
    (Mixing(), (torch.rand(3, 4),), ValueError, "depends on the other inputs"),
    (Rounded(), (torch.rand(3, 4),), TypeError, "by a gradient"),
    (nn.GRU(3, 2), (torch.rand(2, 1, 3),), TypeError, "one tensor"),
])
def test_refusals_name_what_is_wrong(network, arguments, error, match):
    with pytest.raises(error, match=match):
        wcka.expected_jacobian(network, *arguments)


def test_infinite_jacobians_are_refused():
    network = mlp((4, 3))
    with torch.no_grad():
        network[1].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        wcka.expected_jacobian(network, torch.ones(2, 4))


@pytest.mark.parametrize("batches", [1, 9])
def test_batches_that_hold_no_input_are_refused(batches):
    network = network_of(0)
    with pytest.raises(ValueError, match="batches"):
        wcka.expected_similarity(network, network, inputs_of(0, 8), batches=batches)


@pytest.mark.parametrize(("mean", "covariance", "match"), [
    ([0.0], np.eye(2), "wanted shape"),
    ([[0.0]], np.eye(1), "mean"),
    ([0.0, 0.0], [[1.0, 1.0], [0.0, 1.0]], "symmetric"),
    ([0.0, 0.0], [[1.0, 0.0], [0.0, -1.0]], "negative"),
    ([0.0, np.nan], np.eye(2), "NaN"),
])
def test_moments_that_no_distribution_has_are_refused(mean, covariance, match):
    with pytest.raises(ValueError, match=match):
        wcka.gaussian_inputs(5, mean, covariance)


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="draws"):
        wcka.gaussian_inputs(0, [0.0], [[1.0]])


# ------------------------------------------------------------------------- from outputs


MEAN = np.linspace(-1, 1, 6)
FACTOR = np.random.default_rng(0).normal(size=(6, 6))
COVARIANCE = FACTOR @ FACTOR.T / 6 + 0.3 * np.eye(6)
MOMENTS = {"moments": (MEAN, COVARIANCE), "least squares": ()}


@pytest.mark.parametrize("moments", MOMENTS.values(), ids=MOMENTS)
def test_outputs_alone_tell_the_expected_jacobian(moments):
    network = network_of(3)
    exact = wcka.expected_jacobian(
        network, wcka.gaussian_inputs(200_000, MEAN, COVARIANCE, 9))
    errors = []
    for queries in (500, 50_000):
        inputs = wcka.gaussian_inputs(queries, MEAN, COVARIANCE, 1)
        estimate = wcka.jacobian_from_outputs(inputs, network(inputs), *moments)
        errors.append(float((estimate - exact).norm() / exact.norm()))
    # A hundred times the queries, a tenth of the error
    assert errors[1] < errors[0] / 4 and errors[1] < 0.05


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_least_squares_is_exact_for_linear_networks(seed):
    network = network_of(seed, activation="identity")
    inputs = inputs_of(seed, 30)
    torch.testing.assert_close(
        wcka.jacobian_from_outputs(inputs, network(inputs)), wcka.chain(network),
        rtol=1e-8, atol=1e-10)


def test_the_estimate_with_moments_is_unbiased():
    network = network_of(4)
    exact = wcka.expected_jacobian(
        network, wcka.gaussian_inputs(200_000, MEAN, COVARIANCE, 9))
    inputs = wcka.gaussian_inputs(40_000, MEAN, COVARIANCE, 2)
    estimates = []
    for part in inputs.split(8):  # few, as a regression could not take
        estimates.append(
            wcka.jacobian_from_outputs(part, network(part), MEAN, COVARIANCE))
    stacked = torch.stack(estimates)
    error = stacked.std(0) / math.sqrt(len(stacked))
    assert ((stacked.mean(0) - exact).abs() < 4.5 * error).all()


@pytest.mark.parametrize("moments", MOMENTS.values(), ids=MOMENTS)
def test_similarity_from_outputs_is_that_of_the_expected_jacobians(moments):
    a, b = network_of(0, (6, 20, 20, 3)), network_of(1, (6, 20, 20, 3))
    many = wcka.gaussian_inputs(100_000, MEAN, COVARIANCE, 9)
    exact = wcka.cka(*(wcka.expected_jacobian(network, many) for network in (a, b)))
    values, errors = [], []
    for seed in range(30):
        inputs = wcka.gaussian_inputs(2000, MEAN, COVARIANCE, seed)
        similarity = wcka.similarity_from_outputs(
            inputs, a(inputs), b(inputs), *moments)
        values.append(similarity.value)
        errors.append(similarity.error)
    spread = np.std(values, ddof=1)
    assert abs(np.mean(values) - exact) < 4 * spread / math.sqrt(30) + 0.005
    assert 0.6 < np.sqrt(np.mean(np.square(errors))) / spread < 1.8


@pytest.mark.parametrize(("arguments", "match"), [
    ((np.ones((3, 2)), np.ones((4, 1))), "a row per query"),
    ((np.ones((3, 2)), np.full((3, 1), np.nan)), "finite"),
    ((np.ones((3, 2)), np.ones((3, 1)), [0.0, 0.0]), "both or none"),
    ((np.ones((3, 2)), np.ones((3, 1)), [0.0], [[1.0]]), "wanted 2 numbers"),
    ((np.ones((3, 2)), np.ones((3, 1)), [0, 0], [[1.0, 0.0], [0.0, 0.0]]),
     "1 of 2 directions have no variance"),
    ((np.ones((3, 2)), np.ones((3, 1))), "more than 3 queries"),
    ((np.ones((9, 2)), np.ones((9, 1))), "no variance"),
    ((np.ones((1, 2)), np.ones((1, 1)), [0, 0], np.eye(2)), "at least 2 queries"),
])
def test_queries_that_tell_nothing_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        wcka.jacobian_from_outputs(*arguments)


@pytest.mark.parametrize("batches", [4, 11, 5.5, math.nan])
def test_batches_are_a_whole_number_of_queries(batches):
    inputs = wcka.gaussian_inputs(40, MEAN, COVARIANCE)
    with pytest.raises(ValueError, match="batches: wanted a whole number from 5 to 10"):
        wcka.similarity_from_outputs(inputs, inputs, inputs, batches=batches)


def test_numbers_of_batches_may_be_floats():
    inputs = wcka.gaussian_inputs(100, MEAN, COVARIANCE)
    arguments = inputs, inputs, inputs[:, :2], MEAN, COVARIANCE
    assert (wcka.similarity_from_outputs(*arguments, batches=5.0)
            == wcka.similarity_from_outputs(*arguments, batches=5))


def test_noise_alone_is_not_a_similarity():
    inputs = wcka.gaussian_inputs(40, MEAN, COVARIANCE)
    noise = torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0))
    with pytest.warns(RuntimeWarning, match="noise"):
        similarity = wcka.similarity_from_outputs(
            inputs, *noise, MEAN, COVARIANCE, batches=5)
    assert math.isnan(similarity.value)


def test_constant_outputs_have_no_similarity():
    inputs = wcka.gaussian_inputs(40, MEAN, COVARIANCE)
    with pytest.warns(RuntimeWarning, match="outputs_b are the same for all queries"):
        similarity = wcka.similarity_from_outputs(
            inputs, inputs, torch.full((40, 2), 0.1), MEAN, COVARIANCE, batches=5)
    assert np.isnan(similarity).all()


@pytest.mark.parametrize("inputs", [torch.ones(40, 4), torch.rand(40, 1)])
def test_queries_without_a_similarity_are_refused(inputs):
    p = inputs.shape[1]
    with pytest.raises(ValueError, match="queries that differ, of at least 2 coord"):
        wcka.similarity_from_outputs(
            inputs, inputs, inputs, torch.zeros(p), torch.eye(p), batches=5)
