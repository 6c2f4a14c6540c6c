"""Populations: the same numbers as separate modules, and results that survive on disk.
"""

import copy

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURE
from torch import nn

import wcka
from wcka.experiments.training_runs import trained as train_by_name
from wcka.networks import architectures, attacks, image_sets
from wcka.networks.populations import Population, build, chains, initialise
from wcka.networks.training import train


def small(seeds=(0, 1, 2)):
    return initialise({"factory": "mlp", "widths": [784, 8, 8, 3]}, seeds)


def test_initialisation_is_that_of_separate_modules():
    population = small([5, 7])
    for i, seed in enumerate((5, 7)):
        torch.manual_seed(seed)
        alone = build(population.architecture)
        for name, values in alone.state_dict().items():
            assert torch.equal(population.member(i).state_dict()[name], values)


def test_initialisation_leaves_the_global_seed_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    small()
    assert torch.equal(torch.rand(1), expected)


def test_forward_and_activations_are_those_of_the_members(trained, digits):
    x = digits[0][:100]
    with torch.no_grad():
        for i in (0, 4):
            alone = trained.member(i)
            torch.testing.assert_close(
                trained.forward(x)[i], alone(x), atol=1e-5, rtol=1e-5
            )
            for layer, stop in enumerate((3, 5, 7, 9, 10), start=1):
                torch.testing.assert_close(trained.activations(x, layer, batch=33)[i],
                                           alone[:stop](x), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="wanted 1 to 5, got 6"):
        trained.forward(x, 6)


def test_own_inputs_and_images_with_two_axes(digits):
    population, x = small(), digits[0][:6].reshape(3, 2, 784)
    with torch.no_grad():
        own = population.forward(x, per_model=True)
        torch.testing.assert_close(own[1], population.member(1)(x[1]))
        # As many images as members: still shared
        images = digits[0][:3].reshape(3, 28, 28)
        torch.testing.assert_close(
            population.forward(images)[2], population.member(2)(images)
        )


@pytest.mark.parametrize("between", [
    [nn.LayerNorm(6), nn.PReLU()], [nn.Softmax(1)],
    [nn.Unflatten(1, (2, 3)), nn.Flatten()],
    [nn.BatchNorm1d(6, affine=False)], [nn.Sequential(nn.ReLU(), nn.Linear(6, 6))]])
def test_modules_of_other_kinds_run_one_by_one(digits, monkeypatch, between):
    monkeypatch.setattr(
        architectures,
        "other",
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(784, 6), *copy.deepcopy(between), nn.Linear(6, 2)
        ),
        raising=False,
    )
    population = initialise({"factory": "other"}, [0, 1])
    with torch.no_grad():
        for i in range(2):
            alone = population.member(i)
            torch.testing.assert_close(
                population.forward(digits[0][:9])[i], alone(digits[0][:9])
            )
            if isinstance(between[0], nn.Sequential):
                torch.testing.assert_close(chains(population)[i], wcka.chain(alone))


def test_chains_of_a_population_are_those_of_its_members(trained):
    for bias in (False, True):
        for i in (0, 5):
            torch.testing.assert_close(chains(trained, bias=bias)[i],
                                       wcka.chain(trained.member(i), bias=bias))


@pytest.mark.parametrize("private_order", [False, True])
def test_members_learn_as_they_would_alone(private_order):
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images[:200]), torch.from_numpy(labels[:200])
    start = small()
    together = train(start, x, y, 2, batch_size=64, seed=3, private_order=private_order)
    i = 2
    alone = start.member(i)
    optimizer = torch.optim.Adam(alone.parameters(), lr=1e-3)
    rng = np.random.default_rng([3, i if private_order else 0])
    for _ in range(2):
        for batch in torch.from_numpy(rng.permutation(200)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(alone(x[batch]), y[batch]).backward()
            optimizer.step()
    for name, values in alone.state_dict().items():
        torch.testing.assert_close(
            together.state[name][i], values, atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("strategy", ["fgsm", "pgd"])
def test_adversarial_training_is_that_of_each_member_alone(strategy):
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images[:128]), torch.from_numpy(labels[:128])
    start = small()
    together = train(start, x, y, 1, seed=3, strategy=strategy)
    alone = train(start[1], x, y, 1, seed=3, strategy=strategy)
    for name, values in alone.state.items():
        torch.testing.assert_close(
            together.state[name][1], values[0], atol=1e-4, rtol=1e-3
        )
    plain = train(start, x, y, 1, seed=3)
    assert not torch.allclose(
        plain.state["1.weight"], together.state["1.weight"], atol=1e-4
    )


def test_adversarial_training_makes_robust_networks(digits):
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images[:3000]), labels[:3000]
    start = initialise({"factory": "mlp", "widths": [784, 32, 3]}, [0, 1])
    test, wanted = digits[0][::10], digits[1][::10]
    robust = {}
    for strategy in ("standard", "fgsm", "pgd"):
        population = train(start, x, y, 2, strategy=strategy)
        assert (population.accuracy(test, wanted) > 0.9).all()
        moved = attacks.pgd(population, test, wanted, 0.1, 0.025, 10)
        with torch.no_grad():
            predicted = population.forward(moved, per_model=True).argmax(-1)
        robust[strategy] = (predicted == wanted).double().mean().item()
    assert robust["standard"] + 0.1 < min(robust["fgsm"], robust["pgd"])


def test_training_learns_digits_and_keeps_checkpoints(trained, digits):
    assert trained.members.to_dict("list") == {
        "seed": [0, 1, 2] * 2,
        "epoch": [0] * 3 + [3] * 3,
    }
    accuracy = trained.accuracy(*digits)
    assert (accuracy[:3] < 0.7).all() and (accuracy[3:] > 0.95).all()
    untrained = initialise(ARCHITECTURE, [0, 1, 2])
    assert all(torch.equal(v, trained[:3].state[k]) for k, v in untrained.state.items())


def test_training_refuses_bad_checkpoints():
    x, y = torch.zeros(4, 784), torch.zeros(4, dtype=torch.int64)
    for checkpoints in ([3], [-1], []):
        with pytest.raises(ValueError, match="checkpoints: wanted epochs from 0 to 2"):
            train(small(), x, y, 2, checkpoints)
    with pytest.raises(ValueError, match="4 inputs but 3 labels"):
        train(small(), x, y[:3], 1)
    with pytest.raises(ValueError, match="at least one"):
        small([])
    with pytest.raises(ValueError, match="did you mean 'fgsm'"):
        train(small(), x, y, 1, strategy="fgms")
    with pytest.raises(ValueError, match="shared order"):
        train(small(), x, y, 1, strategy="pgd", private_order=True)


def test_selection_and_disk(trained, tmp_path):
    late = trained[(trained.members.epoch == 3).to_numpy()]
    assert len(late) == 3 and late.members.epoch.tolist() == [3] * 3
    late.save(tmp_path / "new" / "late.safetensors")
    again = Population.load(tmp_path / "new" / "late.safetensors")
    assert again.architecture == late.architecture and again.members.equals(
        late.members
    )
    assert all(torch.equal(again.state[name], late.state[name]) for name in late.state)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["late.safetensors"]


def test_population_is_copyable_between_devices(trained):
    meta = trained.to("meta")
    assert meta.state["1.weight"].device.type == "meta" and len(meta) == len(trained)
    assert copy.copy(trained).to("auto").state["1.weight"].device.type in (
        "cpu",
        "cuda",
    )


def test_training_on_the_device_there_is_ends_on_the_cpu():
    arguments = {
        "architecture": {"factory": "mlp", "widths": [784, 8, 3], "activation": "relu"},
        "seeds": [0, 1],
        "dataset": "mnist",
        "classes": [0, 1, 2],
        "epochs": 1,
        "batch_size": 512,
    }
    auto, cpu = (
        train_by_name(**arguments, device=device) for device in ("auto", "cpu")
    )
    for name, values in auto.state.items():
        assert values.device.type == "cpu"
        torch.testing.assert_close(values, cpu.state[name], atol=1e-4, rtol=1e-3)


def test_nothing_is_made_on_another_device_than_the_populations():
    """Tensors without storage stand for a device that is not there."""
    population = initialise(
        {"factory": "mlp", "widths": [784, 8, 3], "activation": "relu"},
        [0, 1],
        device="meta",
    )
    inputs = torch.zeros(5, 784, device="meta")
    assert population.activations(inputs, 1).device.type == "meta"
    assert {c.device.type for c in chains(population)} == {"meta"}
