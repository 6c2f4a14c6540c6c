"""What the networks of a grid are shown: layers, probes, draws, attacked images."""

import numpy as np
import pytest
import torch

from wcka.experiments.grid_inputs import (
    LAYERS,
    attacked_images,
    attacked_together,
    clean_inputs,
    drawn_rows,
    inputs_against,
    seen_by_networks,
)
from wcka.networks.attacks import BY_GRADIENT
from wcka.networks.populations import initialise
from wcka.networks.probes import probe_inputs

PROBING = {
    "dataset": "mnist", "classes": [0], "seed": 3, "eps": 0.2, "steps": 2,
    "noise": 0.3, "attacked": 9}


@pytest.fixture(scope="module")
def population():
    return initialise({"factory": "mlp", "widths": [6, 5, 4, 3]}, seeds=range(30))


def test_layers_by_name(population):
    positions = {name: position(population) for name, position in LAYERS.items()}
    assert positions == {"first hidden": 1, "last hidden": 2, "logits": 3}


@pytest.mark.parametrize("name", ["clean", "shot_noise", "gaussian_noise"])
def test_networks_see_the_probe_of_these_settings(name):
    expected = probe_inputs(name, "mnist", [0], seed=3, noise=0.3)
    assert torch.equal(seen_by_networks(None, name, PROBING), expected)


def test_rows_are_drawn_by_the_seed_and_fewer_are_the_first_of_more():
    x = torch.arange(50)
    order = np.random.default_rng(3).permutation(50)
    assert drawn_rows(x, 7, PROBING).tolist() == order[:7].tolist()
    assert drawn_rows(x, None, PROBING).tolist() == order.tolist()


def test_attacks_begin_with_drawn_images_and_their_labels():
    probing = {**PROBING, "classes": [0, 1]}
    x, labels = clean_inputs(probing)
    images, targets = attacked_images(probing)
    order = np.random.default_rng(3).permutation(len(x))[:9]
    assert torch.equal(images, x[order]) and torch.equal(targets, labels[order])


def test_networks_are_attacked_in_groups_in_their_order(population):
    for models, size in (([{}], 25), ([{"trunk": {"seed": 1}}], 4)):
        seeds = []
        for group in attacked_together(models, [population]):
            assert len(group) <= size
            seeds += group.members.seed.tolist()
        assert seeds == list(range(30))


@pytest.mark.parametrize("attack", ["ffgsm", "pgd", "trades"])
def test_every_batch_of_images_is_attacked_from_a_start_of_its_own(population, attack):
    """The second batch repeats the images of the first one: only their starts differ"""
    networks = population[:2]
    batch = torch.rand(128, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(128) % 3
    x = torch.cat([batch, batch])
    adversarial = inputs_against(
        [{}], networks, attack, x, torch.cat([labels, labels]), PROBING)
    for i in range(2):
        seed = int(np.random.SeedSequence([3, i]).generate_state(1)[0])
        expected = BY_GRADIENT[attack](networks, batch, labels, 0.2, 2, seed)
        assert torch.equal(adversarial[:, 128 * i:128 * (i + 1)], expected)
    assert not torch.equal(adversarial[:, :128], adversarial[:, 128:])
