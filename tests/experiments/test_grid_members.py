"""The networks of a grid: their names, their pairs, and their order."""

from itertools import combinations, product

import pandas as pd
import pytest
import torch

from wcka.experiments.grid_members import (
    FACTORS,
    architecture_name,
    at_epoch,
    chains_of,
    pair_positions,
    pairs_by_factor,
    predictions_of,
)
from wcka.networks.populations import Population, initialise
from wcka.weights.chains import chain


@pytest.mark.parametrize("architecture, name", [
    ({"factory": "mlp", "widths": [784, 32, 32, 3]}, "2 × 32"),
    ({"factory": "mlp", "widths": [784, 32, 3]}, "1 × 32"),
    ({"factory": "mlp", "widths": [784, 32, 16, 3]}, "32-16"),
    ({"factory": "convnet", "channels": [4, 8]}, "CNN 4-8"),
    ({"factory": "convnet", "channels": [4], "batch_norm": True}, "CNN + BN 4"),
    ({"factory": "convnet", "channels": [4], "batch_norm": False}, "CNN 4"),
    ({"factory": "resnet", "channels": [8, 16]}, "ResNet 8-16"),
    ({"factory": "transformer", "heads": 2}, "transformer 2"),
])
def test_names_of_architectures(architecture, name):
    assert architecture_name(architecture) == name


def test_pairs_are_all_that_differ_in_one_factor():
    levels = product([1, 2, 3], [0, 1], ["1 × 8", "1 × 4"], ["standard", "fgsm"])
    members = pd.DataFrame(levels, columns=list(FACTORS)).sample(frac=1, random_state=0)
    rows = members.to_numpy().tolist()
    expected = set()
    for a, b in combinations(range(len(rows)), 2):
        differing = []
        for factor, level_a, level_b in zip(FACTORS, rows[a], rows[b]):
            if level_a != level_b:
                differing.append(factor)
        if len(differing) == 1:
            expected.add((differing[0], a, b))
    pairs = pairs_by_factor(members)
    triples = list(pairs.itertuples(index=False, name=None))
    assert set(triples) == expected and len(triples) == len(expected)
    a, b = pair_positions(members)
    assert a.tolist() == pairs.a.tolist() and b.tolist() == pairs.b.tolist()


@pytest.fixture(scope="module")
def populations():
    """Return two populations, of two and of three networks, at epochs 1, 2 and 3."""
    parts = []
    for epochs, hidden in (([1, 2], 5), ([1, 2, 3], 4)):
        architecture = {"factory": "mlp", "widths": [6, hidden, 3]}
        start = initialise(architecture, seeds=range(len(epochs)))
        members = start.members.assign(epoch=epochs)
        parts.append(Population(architecture, start.state, members))
    return parts


def test_members_of_one_epoch_only(populations):
    for epoch, counts in ((1, [1, 1]), (2, [1, 1]), (3, [0, 1])):
        parts = at_epoch(populations, epoch)
        assert [len(part) for part in parts] == counts
        for part in parts:
            assert set(part.members.epoch) <= {epoch}


def test_predictions_and_chains_are_in_the_order_of_the_populations(populations):
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
    predictions = predictions_of(populations, x)
    chains = chains_of(populations, bias=True)
    networks = []
    for population in populations:
        for i in range(len(population)):
            networks.append(population.member(i))
    assert len(predictions) == len(chains) == len(networks) == 5
    for i, network in enumerate(networks):
        assert torch.equal(predictions[i], network(x).argmax(1))
        torch.testing.assert_close(chains[i], chain(network, bias=True))
