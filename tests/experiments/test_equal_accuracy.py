"""Populations that are trained until they are accurate enough."""

import numpy as np
import pytest
import torch

from wcka.experiments.equal_accuracy import all_trained_until, trained_until
from wcka.experiments.training_runs import trained
from wcka.networks import image_sets

SETTINGS = {
    "architecture": {"factory": "mlp", "widths": [784, 8, 3], "activation": "relu"},
    "seeds": [0, 1],
    "dataset": "mnist",
    "classes": [0, 1, 2],
    "images": 300,
    "batch_size": 32,
}
EPOCHS = 8


@pytest.fixture(scope="module")
def held_out():
    """The 400 images that come after the 300 in the random order of ``trained``."""
    images, labels = image_sets.load("mnist", "train", [0, 1, 2])
    order = np.random.default_rng([0, *b"images"]).permutation(len(labels))
    rows = order[300:700]
    return image_sets.as_inputs(images[rows]), torch.from_numpy(labels[rows])


@pytest.fixture(scope="module")
def means(held_out):
    """Mean accuracy of the two networks after each epoch."""
    population = trained(
        **SETTINGS, epochs=EPOCHS, checkpoints=list(range(1, EPOCHS + 1)))
    return population.accuracy(*held_out).reshape(EPOCHS, 2).mean(1)


def train_until(accuracy, most_epochs=EPOCHS):
    return trained_until(
        **SETTINGS, accuracy=accuracy, most_epochs=most_epochs, held_out=400)


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_training_ends_near_the_accuracy(share, means, held_out):
    """At the nearest of the epochs up to the first that reaches the accuracy."""
    accuracy = means[0] + share * (means.max() - means[0])
    first = np.flatnonzero(means >= accuracy)[0]
    expected = np.abs(means[:first + 1] - accuracy).argmin() + 1
    population = train_until(accuracy)
    assert population.members.epoch.tolist() == [expected, expected]
    same = trained(**SETTINGS, epochs=EPOCHS, checkpoints=[int(expected)])
    for name, values in same.state.items():
        assert torch.equal(population.state[name], values)
    accuracies = same.accuracy(*held_out)
    assert population.members.accuracy.tolist() == pytest.approx(accuracies)


def test_an_accuracy_out_of_reach_gives_the_nearest_epoch(means):
    population = train_until(1.0, most_epochs=3)
    assert population.members.epoch[0] == means[:3].argmax() + 1


def test_an_accuracy_that_is_passed_at_once_ends_training(means):
    assert train_until(0.01).members.epoch.tolist() == [1, 1]


def test_populations_come_in_the_order_of_the_models():
    models = []
    for width in (4, 2):
        architecture = {"factory": "mlp", "widths": [784, width, 3]}
        models.append({**SETTINGS, "architecture": architecture, "accuracy": 0.5,
                       "most_epochs": 1, "held_out": 100})
    populations = all_trained_until(models, jobs=1)
    widths = [population.architecture["widths"][1] for population in populations]
    assert widths == [4, 2]


@pytest.mark.parametrize("changes, message", [
    ({"accuracy": 0}, "accuracy: wanted more than 0 to 1, got 0"),
    ({"accuracy": 1.5}, "got 1.5"),
    ({"most_epochs": 0}, "most_epochs: wanted at least 1"),
    ({"held_out": 0}, "wanted at least 1 each"),
    ({"images": 18000}, "at most 18623 together, got 18000 and 1000"),
])
def test_refusals(changes, message):
    settings = {
        **SETTINGS, "accuracy": 0.5, "most_epochs": 1, "held_out": 1000, **changes}
    with pytest.raises(ValueError, match=message):
        trained_until(**settings)
