"""Cosines of matched weights, against every matching of two small networks."""

from itertools import permutations

import numpy as np
import pytest
import torch

from wcka.experiments.matching import flat_weights, matched_cosine
from wcka.networks import architectures
from wcka.weights import symmetry
from wcka.weights.chains import linear_layers

WIDTHS = (5, 3, 4, 2)


@pytest.fixture
def pair():
    torch.manual_seed(3)
    return architectures.mlp(WIDTHS), architectures.mlp(WIDTHS)


def weights_and_biases(network):
    """Return the layers' weights (out, in) and biases (out,), in order."""
    layers = []
    for layer, _ in linear_layers(network):
        layers.append((layer.weight.detach().double().numpy(),
                       layer.bias.detach().double().numpy()))
    return layers


def rescaled_layers(network):
    """Return rows (out, in + 1) of norm 1 for hidden units: each hands its norm on."""
    incoming = np.ones(WIDTHS[0])
    layers = []
    for weight, bias in weights_and_biases(network):
        rows = np.column_stack([weight * incoming, bias])
        incoming = np.linalg.norm(rows, axis=1)
        layers.append(rows)
    for rows in layers[:-1]:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return layers


def cosine(x, y):
    return (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)


def cosines_by_trying_all(network_a, network_b):
    """Return each layer's cosine with the best order of units after that before it."""
    layers_a, layers_b = rescaled_layers(network_a), rescaled_layers(network_b)
    order = list(range(WIDTHS[0]))
    cosines = []
    for rows_a, rows_b in zip(layers_a[:-1], layers_b[:-1]):
        reordered = rows_b[:, [*order, -1]]  # the bias stays last
        best = max(permutations(range(len(rows_a))),
                   key=lambda units: (rows_a * reordered[list(units)]).sum())
        order = list(best)
        cosines.append(cosine(rows_a, reordered[order]))
    cosines.append(cosine(layers_a[-1], layers_b[-1][:, [*order, -1]]))
    return cosines


def test_the_cosine_is_the_mean_of_the_layers_best(pair):
    cosines = cosines_by_trying_all(*pair)
    assert len(cosines) == 3
    assert abs(np.mean(cosines) - np.median(cosines)) > 0.01  # the two are told apart
    assert matched_cosine(*pair) == pytest.approx(np.mean(cosines))


def test_matching_undoes_permutation_and_rescaling(pair):
    network_a, network_b = pair
    hidden = symmetry.rescale(symmetry.permute(network_a, 1), 2)
    assert matched_cosine(network_a, network_a) == pytest.approx(1)
    assert matched_cosine(network_a, hidden) == pytest.approx(1, abs=1e-6)
    expected = matched_cosine(network_a, network_b)
    assert matched_cosine(hidden, network_b) == pytest.approx(expected, abs=1e-6)


def test_matched_networks_of_other_seeds_stay_different():
    torch.manual_seed(0)
    network_a = architectures.mlp((20, 12, 9, 3))
    network_b = architectures.mlp((20, 12, 9, 3))
    assert matched_cosine(network_a, network_b) < 0.6


def test_other_depths_are_refused(pair):
    with pytest.raises(ValueError, match="longer"):
        matched_cosine(pair[0], architectures.mlp((5, 3, 4, 3, 2)))


def test_flat_weights_are_all_weights_and_biases_in_order(pair):
    network = pair[0]
    expected = []
    for weight, bias in weights_and_biases(network):
        expected += [*weight.ravel(), *bias]
    np.testing.assert_array_equal(flat_weights(network).double().numpy(), expected)
    assert not flat_weights(network).requires_grad
