"""Expected Jacobians of populations and grids, against single networks."""

import numpy as np
import pytest
import torch

import wcka
from wcka.experiments import gated_chains
from wcka.experiments.benchmark import chain_similarities
from wcka.experiments.grid_members import grid_networks, pair_positions
from wcka.networks.populations import initialise
from wcka.weights.gated_layers import frequency_chains, layers_of

SETTINGS = {"seeds": [0, 1], "dataset": "mnist", "classes": [0, 1, 2], "epochs": 1,
            "checkpoints": [1], "batch_size": 512, "images": 2000}


def model(hidden, **architecture):
    """Return the arguments of ``trained`` for one architecture."""
    return {
        "architecture": {
            "factory": "mlp", "widths": [784, *hidden, 3], **architecture},
        "strategy": "standard", **SETTINGS}


MODELS = [model([8]), model([16, 12]), model([8], activation="relu", bias=False)]
ARCHITECTURES = {
    "deep": {"factory": "mlp", "widths": [9, 7, 5, 6, 3]},
    "linear": {"factory": "mlp", "widths": [9, 3]},
    "leaky": {"factory": "mlp", "widths": [9, 4, 2], "activation": "leaky_relu"},
    "no biases": {"factory": "mlp", "widths": [9, 4, 2], "bias": False},
    "tanh": {"factory": "mlp", "widths": [9, 4, 2], "activation": "tanh"},
    "convolutions": {"factory": "convnet", "channels": [2], "kernel": 3, "hidden": [4],
                     "classes": 3, "side": 8},
}


def population_and_inputs(name):
    population = initialise(ARCHITECTURES[name], seeds=range(5))
    p = 64 if name == "convolutions" else 9
    return population, torch.rand(30, p, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_population_has_the_expected_jacobians_of_its_members(name, monkeypatch):
    monkeypatch.setattr(gated_chains, "_NETWORKS", 2)
    population, inputs = population_and_inputs(name)
    strengths = [1.0]
    if gated_chains.has_gates(population):
        strengths += [0.0, 0.4]
    for strength in strengths:
        jacobians = gated_chains.population_jacobians(population, inputs, strength)
        assert len(jacobians) == 5
        for i, jacobian in enumerate(jacobians):
            single = wcka.expected_jacobian(population.member(i), inputs, strength)
            torch.testing.assert_close(jacobian, single, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["deep", "linear", "tanh", "convolutions"])
def test_gradient_features_have_the_kernel_of_the_members(name):
    population, inputs = population_and_inputs(name)
    features = gated_chains.population_gradient_features(population, inputs)
    network = population.member(3).double()
    p = inputs.shape[1]
    kernel = torch.zeros(p, p, dtype=torch.float64)
    for x in inputs.double():
        jacobian = torch.autograd.functional.jacobian(
            lambda row: network(row[None])[0], x)  # (outputs, p)
        kernel += jacobian.T @ jacobian / len(inputs)
    torch.testing.assert_close(features[3] @ features[3].T, kernel)


@pytest.mark.parametrize("name", ["tanh", "convolutions"])
def test_populations_without_gates_have_no_strength(name):
    population, inputs = population_and_inputs(name)
    assert not gated_chains.has_gates(population)
    with pytest.raises(TypeError):
        gated_chains.population_jacobians(population, inputs, 0.5)


def test_a_grid_has_the_similarities_of_single_networks():
    table = gated_chains.gated_similarities(MODELS[:2], draws=200, seed=4)
    chains = chain_similarities(MODELS[:2])
    assert table[["differs", "a", "b"]].equals(chains[["differs", "a", "b"]])
    np.testing.assert_allclose(table.wcka, chains.wcka)

    populations, members = grid_networks(MODELS[:2])
    networks = []
    for population in populations:
        networks += [population.member(i) for i in range(len(population))]
    training = gated_chains.training_inputs(MODELS)
    gaussian = wcka.gaussian_inputs(200, *wcka.input_moments(training), seed=4)
    uniform = np.random.default_rng(4).uniform(0, 1, (200, 784))

    def spread_and_centred(jacobian):
        centred = jacobian - jacobian.mean(1)[:, None]
        return training.double().std(0)[:, None] * centred

    images = training[np.random.default_rng(4).permutation(len(training))[:200]]
    features = {
        "expected, Gaussian": lambda net: wcka.expected_jacobian(net, gaussian),
        "expected, spread, centred": lambda net: spread_and_centred(
            wcka.expected_jacobian(net, gaussian)),
        "expected, images": lambda net: wcka.expected_jacobian(net, images),
        "expected, uniform": lambda net: wcka.expected_jacobian(net, uniform),
        "expected, half strength": lambda net: wcka.expected_jacobian(
            net, gaussian, 0.5),
        "mean gates": lambda net: frequency_chains(layers_of(net), gaussian)[0],
        "softmax": lambda net: net.double()(gaussian).softmax(1),
        "wcka, spread": lambda net: training.double().std(0)[:, None] * wcka.chain(net),
        "wcka, covariance": lambda net: (
            (training - training.mean(0)).double() @ wcka.chain(net)),
    }
    a, b = pair_positions(members)
    for column, feature in features.items():
        with torch.no_grad():
            of_networks = [feature(network) for network in networks]
        expected = [wcka.cka(of_networks[i], of_networks[j]) for i, j in zip(a, b)]
        np.testing.assert_allclose(table[column], expected, atol=1e-5)
    assert table.agop.between(0, 1).all()


def test_expected_similarities_alone_are_the_same():
    everything = gated_chains.gated_similarities(MODELS[:2], draws=200, seed=4)
    alone = gated_chains.expected_similarities(MODELS[:2], draws=200, seed=4)
    columns = ["differs", "a", "b", "expected, Gaussian"]
    assert alone[columns].equals(everything[columns])
    assert set(alone.dataset) == {"mnist"}


def test_convolutional_grids_have_expected_similarities():
    network = {"factory": "convnet", "channels": [2], "hidden": [4], "classes": 3,
               "batch_norm": True}
    models = [{"architecture": network, "strategy": "standard", **SETTINGS}]
    table = gated_chains.expected_similarities(models, draws=30, seed=4)
    (population,), _ = grid_networks(models)
    moments = wcka.input_moments(gated_chains.training_inputs(models))
    inputs = wcka.gaussian_inputs(30, *moments, seed=4)

    def mean_jacobian(network):
        by_input = torch.func.jacrev(lambda x: network(x.view(1, 1, 28, 28))[0])
        return torch.func.vmap(by_input)(inputs).mean(0).T.detach()  # (pixels, classes)

    jacobians = []
    for i in range(2):
        jacobians.append(mean_jacobian(population.member(i).double().eval()))
    assert table["expected, Gaussian"].tolist() == pytest.approx(
        [wcka.cka(*jacobians)], abs=1e-9)


def test_grids_without_gates_leave_out_what_needs_them():
    table = gated_chains.gated_similarities(
        [model([6], activation="tanh")], draws=20)
    assert {"expected, half strength", "mean gates"}.isdisjoint(table)
    assert not table.isna().any(axis=None)


def test_estimates_from_outputs_come_closer_with_more_queries():
    table = gated_chains.query_errors(
        MODELS[:1], 1, [500, 8000], networks=2, draws=3000)
    errors = (table["known covariance"] - table.exact).abs()
    assert errors[1] < 0.02
    assert 0 < table["standard error"][1] < 0.02
    assert table["least squares, plain"].isna().tolist() == [True, False]
