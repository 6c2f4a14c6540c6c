"""Ratios of speed that the project promises, printed by `make benchmark`; none fails a test run."""

import time

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import ARCHITECTURE
from torch import nn

import wcka
from wcka.networks import architectures, attacks, image_sets
from wcka.networks.populations import build, chains, initialise
from wcka.networks.training import train

pytestmark = pytest.mark.benchmark


def median_seconds(call, repeats=3):
    """Median time of some calls, after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def report(name, ratio, goal):
    print(f"\n{name}: {ratio:.1f} times (goal {goal}: {'met' if ratio >= goal else 'not met'})")


@pytest.fixture(scope="module")
def images():
    return image_sets.as_inputs(image_sets.load()[0])


def test_pgd_training_of_a_population_against_a_loop_over_networks():
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images[:4000]), torch.from_numpy(labels[:4000])
    population = initialise(ARCHITECTURE, range(25))

    def learn(some):
        return train(some, x, y, 1, batch_size=64, strategy="pgd", attack_steps=10)

    together = median_seconds(lambda: learn(population), 1)
    alone = median_seconds(lambda: learn(population[[0]]), 3)
    report("PGD training, each network of 25", alone / (together / 25), 3)


@pytest.fixture(scope="module")
def trunk():
    return architectures.convnet()[:9].requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.fixture
def one_thread():
    """As in a unit of work: the other cores have units of their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_an_attack_through_the_trunk_against_the_usual_convolution(images, trunk, one_thread):
    usual = architectures.convnet()[:9].requires_grad_(False)
    usual[2] = nn.Conv2d(1, 64, 5).requires_grad_(False)
    usual.load_state_dict(trunk.state_dict())
    usual = usual.to(memory_format=torch.channels_last)
    x, y = images[:64], torch.zeros(64, dtype=torch.int64)
    ours, theirs = (median_seconds(lambda of=of: attacks.pgd(of, x, y, 0.1, 0.05, 5), 25)
                    for of in (trunk, usual))
    report("PGD through the trunk", theirs / ours, 1.3)


def test_pgd_training_of_heads_by_one_attack_against_a_loop_over_heads(trunk, one_thread):
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images[:512]), torch.from_numpy(labels[:512])
    heads = initialise({"factory": "mlp", "widths": [512, 32, 3]}, range(5))

    def learn(some):
        return train(some, x, y, 1, strategy="pgd", attack_steps=3, trunk=trunk, shared_attack=True)

    together, alone = (median_seconds(lambda of=of: learn(of)) for of in (heads, heads[[0]]))
    report("PGD training, each head of 5", alone / (together / 5), 3)


def test_dcka_against_the_definition(images):
    """n = 3,147 probes, 784 inputs, 32 units; the definition takes n x n eigendecompositions."""
    x, y, *others = initialise(ARCHITECTURE, range(10)).activations(images, 4)
    p = images.double().numpy()

    def positive_part(z):
        z, q = (each - each.mean(0) for each in (z.double().numpy(), p))
        k, k0 = z @ z.T, q @ q.T
        k -= np.vdot(k0, k) / np.vdot(k0, k0) * k0
        values, vectors = scipy.linalg.eigh(k)
        return vectors * values.clip(min=0) @ vectors.T

    start = time.perf_counter()
    k, m = positive_part(x), positive_part(y)
    value = np.vdot(k, m) / np.linalg.norm(k) / np.linalg.norm(m)
    definition = time.perf_counter() - start
    print(f"\ndifference from the definition: {abs(value - wcka.dcka(x, y, images)):.1e}")
    assert value == pytest.approx(wcka.dcka(x, y, images), abs=1e-8)
    report("dCKA, one pair", definition / median_seconds(lambda: wcka.dcka(x, y, images)), 20)
    population = [x, y, *others]
    each = median_seconds(lambda: wcka.pairwise("dcka", population, inputs=images)) / 45
    report("dCKA, each pair of 10", definition / each, 100)


@pytest.mark.parametrize("measure, goal", [("wcka", 30), ("cka", 6)])
def test_all_pairs_of_300_against_a_loop(measure, goal, images):
    population = initialise(ARCHITECTURE, range(300))
    features = chains(population) if measure == "wcka" else population.activations(images, 4)
    arrays = [f.double().numpy() for f in features]

    def one(x, y):
        x, y = x - x.mean(0), y - y.mean(0)
        return (np.linalg.norm(y.T @ x) ** 2
                / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))

    pairs = [(i, j) for i in range(300) for j in range(i)]
    some = [pairs[i] for i in np.random.default_rng(0).choice(len(pairs), 2000, replace=False)]
    loop = median_seconds(lambda: [one(arrays[i], arrays[j]) for i, j in some])
    table = wcka.pairwise(measure, features)
    np.testing.assert_allclose([table[i, j] for i, j in some[:50]],
                               [one(arrays[i], arrays[j]) for i, j in some[:50]], atol=1e-9)
    batched = median_seconds(lambda: wcka.pairwise(measure, features))
    report(f"{measure}, all pairs of 300", loop / len(some) * len(pairs) / batched, goal)


@pytest.mark.parametrize("measure, goal", [("cka", 3), ("dcka", 20)])
def test_listed_pairs_against_a_loop(measure, goal, images):
    """The pairs of a grid: each of 60 networks with 14 partners."""
    activations = initialise(ARCHITECTURE, range(60)).activations(images, 4)
    a, b = np.repeat(np.arange(60), 14), (np.arange(840) + np.repeat(np.arange(60), 14) + 1) % 60
    kw = {"inputs": images} if measure == "dcka" else {}
    function = getattr(wcka, measure)

    def loop():
        return [function(activations[i], activations[j], **kw) for i, j in zip(a[:10], b[:10])]

    found = wcka.pairwise(measure, activations, (a, b), **kw)
    np.testing.assert_allclose(found[:10], loop(), atol=1e-9)
    listed = median_seconds(lambda: wcka.pairwise(measure, activations, (a, b), **kw), 1)
    report(f"{measure}, 840 listed pairs of 60", median_seconds(loop, 1) * 84 / listed, goal)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_training_a_population_against_a_loop(size):
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images), torch.from_numpy(labels)
    test, test_labels = image_sets.load()

    def alone():
        torch.manual_seed(0)
        model = build(ARCHITECTURE)
        optimizer = torch.optim.Adam(model.parameters())
        for batch in torch.randperm(len(x)).split(size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        return model

    population = initialise(ARCHITECTURE, range(50))
    together = median_seconds(lambda: train(population, x, y, 1, batch_size=size))
    ratio = median_seconds(alone) / (together / 50)
    accuracy = train(population, x, y, 1, batch_size=size).accuracy(image_sets.as_inputs(test), test_labels)
    model = alone()
    with torch.no_grad():
        own = (model(image_sets.as_inputs(test)).argmax(1).numpy() == test_labels).mean()
    print(f"\naccuracy: {accuracy.mean():.4f} together, {own:.4f} alone")
    assert accuracy.mean() > own - 0.02
    report(f"training, each network of 50, batches of {size}", ratio, 8)
