"""Similarities of a grid's networks by chains with gates, and by what they rival."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..measures.all_pairs import compare
from ..measures.inner_products import symmetric_root
from ..networks.populations import Population
from ..weights.chains import linear_layers
from ..weights.expected_jacobians import (
    expected_jacobian,
    gaussian_inputs,
    input_moments,
    jacobian_blocks,
)
from ..weights.from_queries import jacobian_from_outputs, similarity_from_outputs
from ..weights.gated_layers import (
    Layer,
    frequency_chains,
    gradient_features,
    mean_jacobians,
    slope_below_zero,
)
from .cache import cached
from .grid_inputs import drawn_rows, seen_by_networks, trunk_of
from .grid_members import (
    at_epoch,
    chains_of,
    grid_networks,
    pair_positions,
    pairs_by_factor,
)

# Networks whose weights are in float64 at once
_NETWORKS = 100


def gated_layers(population: Population) -> list[Layer]:
    """Return the layers of a population of fully connected networks with gates.

    Raises
    ------
    TypeError
        For networks of another kind, or with activations that are not ReLU-like.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> population = initialise({"factory": "mlp", "widths": [4, 8, 3]}, seeds=[0, 1])
    >>> [layer.weight.shape for layer in gated_layers(population)]
    [torch.Size([2, 4, 8]), torch.Size([2, 8, 3])]
    """
    names = []
    for name, module in population.network.named_modules():
        if isinstance(module, nn.Linear):
            names.append(name)
    layers = []
    for name, (_, activation) in zip(names, linear_layers(population.network)):
        slope = slope_below_zero(activation)
        weight = population.state[f"{name}.weight"].cpu().double().mT
        bias = population.state.get(f"{name}.bias")
        if bias is not None:
            bias = bias.cpu().double()
        layers.append(Layer(weight, bias, slope))
    return layers


def has_gates(population: Population) -> bool:
    """Tell whether ``gated_layers`` takes a population.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> network = {"factory": "mlp", "widths": [4, 3, 2], "activation": "tanh"}
    >>> has_gates(initialise(network, seeds=[0]))
    False
    """
    try:
        gated_layers(population[:0])
    except TypeError:
        return False
    return True


def population_jacobians(
    population: Population, inputs: Tensor, strength: float = 1.0
) -> Tensor:
    """Return the expected Jacobians of all members of a population.

    Networks of linear layers and ReLU-like activations are computed together, all
    others one after another by automatic differentiation.

    Parameters
    ----------
    population : Population
        N models.
    inputs : Tensor
        (n, p), which all of them share.
    strength : float
        As in ``wcka.expected_jacobian``.

    Returns
    -------
    Tensor
        (N, p, outputs), float64.

    Raises
    ------
    TypeError
        For a `strength` below 1 and networks without gates.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> population = initialise({"factory": "mlp", "widths": [4, 8, 3]}, seeds=[0, 1])
    >>> population_jacobians(population, torch.rand(5, 4)).shape
    torch.Size([2, 4, 3])
    """
    rows = inputs.double().flatten(1)  # (n, p)
    if strength != 1 or has_gates(population):
        parts = []
        for networks in _parts(population):
            parts.append(mean_jacobians(gated_layers(networks), rows, strength))
        return torch.cat(parts)
    means = [expected_jacobian(network, rows) for network in _members(population)]
    return torch.stack(means)  # (networks, p, outputs)


def population_gradient_features(population: Population, inputs: Tensor) -> Tensor:
    """Return features whose kernels are the average gradient outer products.

    Parameters
    ----------
    population, inputs
        As in ``population_jacobians``.

    Returns
    -------
    Tensor
        (N, p, units): as many as the first hidden layer has for networks with gates;
        (N, p, p) for others, whose kernels are computed as they are.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> population = initialise({"factory": "mlp", "widths": [4, 8, 3]}, seeds=[0, 1])
    >>> population_gradient_features(population, torch.rand(5, 4)).shape
    torch.Size([2, 4, 8])
    """
    rows = inputs.double().flatten(1)  # (n, p)
    if has_gates(population):
        parts = []
        for networks in _parts(population):
            parts.append(gradient_features(gated_layers(networks), rows))
        return torch.cat(parts)
    features = []
    for network in _members(population):
        kernel = torch.zeros(())
        for block in jacobian_blocks(network, rows):
            columns = block.movedim(0, 1).flatten(1)  # (p, batch * outputs)
            kernel = kernel + columns @ columns.T  # (p, p)
        features.append(symmetric_root(kernel / len(rows)))
    return torch.stack(features)


def _members(population: Population) -> Iterator[nn.Module]:
    """Yield the networks of a population one by one."""
    for i in range(len(population)):
        yield population.member(i)


def _parts(population: Population) -> Iterator[Population]:
    """Yield as many networks as are computed together."""
    for start in range(0, len(population), _NETWORKS):
        yield population[start:start + _NETWORKS]


# ----------------------------------------------------------------------------- grids


def outputs_centred(features: Tensor) -> Tensor:
    """Subtract from each row of a chain its mean over the outputs.

    What is added to all logits alike is then zero.

    Parameters
    ----------
    features : Tensor
        (inputs, outputs).

    Examples
    --------
    >>> outputs_centred(torch.tensor([[1.0, 3.0], [2.0, 2.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    return features - features.mean(1, keepdim=True)


@cached
def gated_similarities(
    models: Sequence[dict], draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the similarity of a grid's pairs by expected Jacobians and their rivals.

    Parameters
    ----------
    models : sequence of dict
        As in ``benchmark.grid``.
    draws : int
        Number of inputs that are drawn, and of training images.
    seed : int
        Of the draws.

    Returns
    -------
    DataFrame
        Columns differs, a, b, as in ``benchmark.chain_similarities``, and the CKA of

        - wcka: chains;
        - "wcka, spread" and "wcka, covariance": chains whose inputs are weighted by the
          standard deviations of the training images, or by the root of their
          covariance (CKA of what the linear skeletons put out for these images);
        - "expected, Gaussian": mean Jacobians over Gaussian inputs with the mean and
          the covariance of the training images (behind a trunk, of its features);
        - "expected, spread, centred": the same with inputs weighted by their standard
          deviations, and each row's mean over the outputs taken away, so that neither
          inputs that never vary nor what is added to all logits count;
        - "expected, images": over training images themselves;
        - "expected, uniform": over independent uniform inputs between the least and the
          largest number in the training images;
        - "expected, half strength" and "mean gates": as the first with gates at
          strength one half, and chains with each gate's mean over the Gaussian inputs;
          only for fully connected networks with ReLU-like activations;
        - "softmax": the probabilities that the networks give for the Gaussian inputs;
        - "agop": average gradient outer products over the Gaussian inputs, as kernels.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> list(gated_similarities([model], draws=10))[3:6]
    ['wcka', 'wcka, spread', 'wcka, covariance']
    """
    populations, members = grid_networks(models)
    pairs = pair_positions(members)
    training = training_inputs(models)
    mean, covariance = input_moments(training)
    inputs = {
        "Gaussian": gaussian_inputs(draws, mean, covariance, seed),
        "images": drawn_rows(training, draws, {"seed": seed}).double(),
        "uniform": _uniform_inputs(training, draws, seed),
    }
    gaussian = inputs["Gaussian"]
    chains = chains_of(populations)
    spread = covariance.diagonal().sqrt()[:, None]  # (p, 1)
    root = symmetric_root(covariance)  # (p, p)
    columns = {
        "wcka": compare("wcka", chains, pairs),
        "wcka, spread": compare("wcka", [spread * chain for chain in chains], pairs),
        # Outputs for centred images have mean zero; rows of the root have not.
        "wcka, covariance": compare(
            "wcka, uncentred", [root @ chain for chain in chains], pairs)}
    for name, x in inputs.items():
        features = _stacked(populations, population_jacobians, x)
        columns[f"expected, {name}"] = compare("cka", features, pairs)
        if name == "Gaussian":
            centred = [spread * outputs_centred(jacobian) for jacobian in features]
            columns["expected, spread, centred"] = compare("cka", centred, pairs)
    if all(map(has_gates, populations)):
        features = _stacked(populations, population_jacobians, gaussian, 0.5)
        columns["expected, half strength"] = compare("cka", features, pairs)
        features = _stacked(populations, _frequency_chains, gaussian)
        columns["mean gates"] = compare("cka", features, pairs)
    features = _stacked(populations, _probabilities, gaussian)
    columns["softmax"] = compare("cka", features, pairs)
    features = _stacked(populations, population_gradient_features, gaussian)
    columns["agop"] = compare("cka", features, pairs)
    return pairs_by_factor(members).assign(**columns)


@cached
def expected_similarities(
    models: Sequence[dict], draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the similarity of a grid's pairs by expected Jacobians alone.

    Parameters
    ----------
    models, draws, seed
        As in ``gated_similarities``; networks of any kind that has gradients.

    Returns
    -------
    DataFrame
        Columns dataset, differs, a, b, and "expected, Gaussian" as in
        ``gated_similarities``.

    Examples
    --------
    >>> model = {"architecture": {"factory": "convnet", "channels": [2], "hidden": [4],
    ...                           "classes": 2},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> table = expected_similarities([model], draws=5)
    >>> table[["differs", "a", "b"]].values.tolist()
    [['seed', 0, 1]]
    """
    populations, members = grid_networks(models)
    inputs = gaussian_inputs(draws, *input_moments(training_inputs(models)), seed)
    features = _stacked(populations, population_jacobians, inputs)
    table = pairs_by_factor(members).assign(**{
        "expected, Gaussian": compare("cka", features, pair_positions(members))})
    table.insert(0, "dataset", models[0]["dataset"])
    return table


def training_inputs(models: Sequence[dict]) -> Tensor:
    """Return the training images of a grid as its networks see them, (n, inputs).

    Examples
    --------
    >>> training_inputs([{"dataset": "mnist", "classes": [0, 1]}]).shape
    torch.Size([12665, 784])
    """
    # Training images depend on no seed, but are asked for like other probes.
    probing = {
        "dataset": models[0]["dataset"], "classes": models[0]["classes"], "seed": 0}
    return seen_by_networks(trunk_of(models), "train", probing)


def _uniform_inputs(training: Tensor, draws: int, seed: int) -> Tensor:
    """Draw inputs (draws, p) between the least and the largest training number."""
    low, high = float(training.min()), float(training.max())
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(low, high, (draws, training.shape[1])))


def _stacked(populations: Sequence[Population], function: Any, *args: Any,
             ) -> list[Tensor]:
    """Return what a function of a population gives for each network."""
    features: list[Tensor] = []
    for population in populations:
        features += function(population, *args)
    return features


def _frequency_chains(population: Population, inputs: Tensor) -> Tensor:
    """Return the chains (N, p, outputs) with mean gates."""
    return frequency_chains(gated_layers(population), inputs)


def _probabilities(population: Population, inputs: Tensor) -> Tensor:
    """Return the softmax outputs (N, n, classes)."""
    logits = population.activations(inputs.float(), population.depth)
    return logits.double().softmax(-1)


# ------------------------------------------------------------------------ black boxes


@cached
def query_errors(
    models: Sequence[dict], epoch: int, queries: Sequence[int], noise: float = 0.3,
    networks: int = 3, draws: int = 20000, seed: int = 0,
) -> pd.DataFrame:
    """Return how well similarities are estimated from outputs, by number of queries.

    Queries are Gaussian, with the mean of the training images and their covariance plus
    `noise` times the identity.

    Parameters
    ----------
    models : sequence of dict
        As in ``benchmark.grid``; networks with gates.
    epoch : int
        A checkpoint that all networks have.
    queries : sequence of int
        Numbers of queries.
    noise : float
        Added to the variance of each input coordinate.
    networks : int
        The first so many networks of each population at that epoch are compared, all
        pairs within a population.
    draws : int
        Number of inputs for the exact values.
    seed : int
        Of the queries; each number has its own.

    Returns
    -------
    DataFrame
        One row per number of queries and pair: queries, group (the position of the
        population), a, b (positions in it), exact, and estimated values: "known
        covariance" and its "standard error" (``similarity_from_outputs``), and "known,
        plain" and "least squares, plain" (CKA of ``jacobian_from_outputs`` without a
        correction for noise; NaN for fewer queries than least squares needs). "exact,
        no noise" is the exact value for inputs with the data's own covariance.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> table = query_errors([model], 0, [1000], networks=2, draws=100)
    >>> table[["queries", "a", "b"]].values.tolist()
    [[1000, 0, 1]]
    """
    populations, _ = grid_networks(models)
    mean, covariance = input_moments(training_inputs(models))
    varied = covariance + noise * torch.eye(len(mean), dtype=torch.float64)
    truth = gaussian_inputs(draws, mean, varied, seed)
    truth_of_data = gaussian_inputs(draws, mean, covariance, seed)
    rows = []
    for group, population in enumerate(at_epoch(populations, epoch)):
        some = population[:networks]
        pairs = list(combinations(range(len(some)), 2))
        exact = compare("cka", list(population_jacobians(some, truth)))
        of_data = compare("cka", list(population_jacobians(some, truth_of_data)))
        for number, count in enumerate(queries):
            query_seed = int(np.random.SeedSequence(
                [seed, group, number]).generate_state(1)[0])
            x = gaussian_inputs(count, mean, varied, query_seed)
            outputs = some.activations(x.float(), some.depth)  # (networks, n, outputs)
            known = compare("cka", [
                jacobian_from_outputs(x, y, mean, varied) for y in outputs])
            plain = np.full_like(known, np.nan)
            if count > len(mean) + 1:
                plain = compare("cka", [jacobian_from_outputs(x, y) for y in outputs])
            for a, b in pairs:
                corrected = similarity_from_outputs(
                    x, outputs[a], outputs[b], mean, varied)
                rows.append({
                    "queries": count, "group": group, "a": a, "b": b,
                    "exact": exact[a, b], "exact, no noise": of_data[a, b],
                    "known covariance": corrected.value,
                    "standard error": corrected.error,
                    "known, plain": known[a, b],
                    "least squares, plain": plain[a, b]})
    return pd.DataFrame(rows)
