"""Ratios of speed that the project promises; `make benchmark` prints them.

None of them fails a test run.
"""

import time

import numpy as np
import pytest
import torch
from small_networks import ARCHITECTURE
from torch import nn

import wcka
from wcka.measures import definitions
from wcka.networks import architectures, attacks, image_sets
from wcka.networks.populations import build, chains, initialise
from wcka.networks.training import train

pytestmark = pytest.mark.benchmark


def median_seconds(call, repeats=3):
    """Median time of some calls, after one call that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def report(name, ratio, goal):
    verdict = "met" if ratio >= goal else "not met"
    print(f"\n{name}: {ratio:.1f} times (goal {goal}: {verdict})")


@pytest.fixture(scope="module")
def images():
    return image_sets.as_inputs(image_sets.load()[0])


def training_set(count=None):
    """Inputs and labels of the first training images, by default of all."""
    images, labels = image_sets.load(split="train")
    return image_sets.as_inputs(images[:count]), torch.from_numpy(labels[:count])


def test_pgd_training_of_a_population_against_a_loop_over_networks():
    x, y = training_set(4000)
    population = initialise(ARCHITECTURE, range(25))

    def learn(models):
        return train(models, x, y, 1, batch_size=64, strategy="pgd", attack_steps=10)

    together = median_seconds(lambda: learn(population), 1)
    alone = median_seconds(lambda: learn(population[[0]]), 3)
    report("PGD training, each network of 25", alone / (together / 25), 3)


@pytest.fixture(scope="module")
def trunk():
    trunk = architectures.convnet()[:9].requires_grad_(False)
    return trunk.to(memory_format=torch.channels_last)


@pytest.fixture
def one_thread():
    """A job runs on one thread: the other cores have jobs of their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_an_attack_through_the_trunk_against_the_usual_convolution(
        images, trunk, one_thread):
    usual = architectures.convnet()[:9].requires_grad_(False)
    usual[2] = nn.Conv2d(1, 64, 5).requires_grad_(False)
    usual.load_state_dict(trunk.state_dict())
    usual = usual.to(memory_format=torch.channels_last)
    x, y = images[:64], torch.zeros(64, dtype=torch.int64)

    def attack(model):
        return attacks.pgd(model, x, y, 0.1, 0.05, 5)

    trunk_seconds = median_seconds(lambda: attack(trunk), 25)
    usual_seconds = median_seconds(lambda: attack(usual), 25)
    report("PGD through the trunk", usual_seconds / trunk_seconds, 1.3)


def test_pgd_training_of_heads_by_one_attack_against_a_loop_over_heads(
        trunk, one_thread):
    x, y = training_set(512)
    heads = initialise({"factory": "mlp", "widths": [512, 32, 3]}, range(5))

    def learn(models):
        return train(models, x, y, 1, strategy="pgd", attack_steps=3, trunk=trunk,
                     shared_attack=True)

    together = median_seconds(lambda: learn(heads))
    alone = median_seconds(lambda: learn(heads[[0]]))
    report("PGD training, each head of 5", alone / (together / 5), 3)


def test_dcka_against_the_definition(images):
    """3,147 probes, 784 inputs, 32 units; the definition decomposes n x n matrices."""
    population = initialise(ARCHITECTURE, range(10))
    features = list(population.activations(images, 4))
    x, y = features[0].double().numpy(), features[1].double().numpy()
    start = time.perf_counter()
    value = definitions.dcka(x, y, images.double().numpy())
    definition = time.perf_counter() - start

    def fast():
        return wcka.dcka(features[0], features[1], images)

    print(f"\ndifference from the definition: {abs(value - fast()):.1e}")
    assert value == pytest.approx(fast(), abs=1e-8)
    report("dCKA, one pair", definition / median_seconds(fast), 20)
    all_pairs = median_seconds(lambda: wcka.pairwise("dcka", features, inputs=images))
    report("dCKA, each pair of 10", definition / (all_pairs / 45), 100)


def cka_of_pair(x, y):
    """CKA as a plain function of two feature matrices."""
    x, y = definitions.centre(x), definitions.centre(y)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return np.linalg.norm(y.T @ x) ** 2 / norms


@pytest.mark.parametrize("measure, goal", [("wcka", 30), ("cka", 6)])
def test_all_pairs_of_300_against_a_loop(measure, goal, images):
    population = initialise(ARCHITECTURE, range(300))
    if measure == "wcka":
        features = chains(population)
    else:
        features = population.activations(images, 4)
    arrays = [feature.double().numpy() for feature in features]
    a, b = np.tril_indices(300, -1)
    sample = np.random.default_rng(0).choice(len(a), 2000, replace=False)

    def loop(positions):
        return [cka_of_pair(arrays[a[i]], arrays[b[i]]) for i in positions]

    loop_seconds = median_seconds(lambda: loop(sample)) / len(sample) * len(a)
    table = wcka.pairwise(measure, features)
    first = sample[:50]
    np.testing.assert_allclose(table[a[first], b[first]], loop(first), atol=1e-9)
    batched = median_seconds(lambda: wcka.pairwise(measure, features))
    report(f"{measure}, all pairs of 300", loop_seconds / batched, goal)


@pytest.mark.parametrize("measure, goal", [("cka", 3), ("dcka", 20)])
def test_listed_pairs_against_a_loop(measure, goal, images):
    """The pairs of a grid: 60 networks, each with 14 partners."""
    activations = initialise(ARCHITECTURE, range(60)).activations(images, 4)
    a = np.repeat(np.arange(60), 14)
    b = (np.arange(840) + a + 1) % 60
    options = {"inputs": images} if measure == "dcka" else {}
    function = getattr(wcka, measure)

    def loop():
        values = []
        for i, j in zip(a[:10], b[:10]):
            values.append(function(activations[i], activations[j], **options))
        return values

    def listed():
        return wcka.pairwise(measure, activations, (a, b), **options)

    np.testing.assert_allclose(listed()[:10], loop(), atol=1e-9)
    ratio = median_seconds(loop, 1) * 84 / median_seconds(listed, 1)
    report(f"{measure}, 840 listed pairs of 60", ratio, goal)


def train_alone(x, y, batch_size):
    """One network, trained in a plain loop for one epoch."""
    torch.manual_seed(0)
    model = build(ARCHITECTURE)
    optimizer = torch.optim.Adam(model.parameters())
    for batch in torch.randperm(len(x)).split(batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("size", [32, 64, 128])
def test_training_a_population_against_a_loop(size):
    x, y = training_set()
    test_images, test_labels = image_sets.load()
    test_inputs = image_sets.as_inputs(test_images)
    population = initialise(ARCHITECTURE, range(50))

    def train_together():
        return train(population, x, y, 1, batch_size=size)

    together = median_seconds(train_together)
    ratio = median_seconds(lambda: train_alone(x, y, size)) / (together / 50)
    accuracy = train_together().accuracy(test_inputs, test_labels).mean()
    model = train_alone(x, y, size)
    with torch.no_grad():
        predictions = model(test_inputs).argmax(1).numpy()
    accuracy_alone = (predictions == test_labels).mean()
    print(f"\naccuracy: {accuracy:.4f} together, {accuracy_alone:.4f} alone")
    assert accuracy > accuracy_alone - 0.02
    report(f"training, each network of 50, batches of {size}", ratio, 8)
