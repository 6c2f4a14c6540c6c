"""Training of populations: as each member would alone, also on attacked images."""

import numpy as np
import pytest
import torch
from small_networks import ARCHITECTURE
from torch.nn.functional import cross_entropy

from wcka.experiments.training_runs import trained as train_by_name
from wcka.networks import attacks, image_sets
from wcka.networks.populations import initialise
from wcka.networks.training import train


def small(seeds=(0, 1, 2)):
    return initialise({"factory": "mlp", "widths": [784, 8, 8, 3]}, seeds)


def training_digits(n):
    """Return the first n training images of 0, 1 and 2 as inputs, and their labels."""
    images, labels = image_sets.load(split="train")
    return image_sets.as_inputs(images[:n]), torch.from_numpy(labels[:n])


@pytest.mark.parametrize("private_order", [False, True])
@pytest.mark.parametrize("architecture", [
    {"factory": "mlp", "widths": [784, 8, 8, 3]},
    {"factory": "mlp", "widths": [784, 8, 3], "activation": "tanh"},
    {"factory": "convnet", "channels": [2, 3], "hidden": [4], "classes": 3},
], ids=["by hand", "by a graph", "one by one"])
def test_members_learn_as_they_would_alone(architecture, private_order):
    x, y = training_digits(200)
    start = initialise(architecture, [0, 1, 2])
    together = train(start, x, y, 2, batch_size=64, seed=3, private_order=private_order)
    i = 2
    alone = start.member(i)
    optimizer = torch.optim.Adam(alone.parameters(), lr=1e-3)
    rng = np.random.default_rng([3, i if private_order else 0])
    for _ in range(2):
        for batch in torch.from_numpy(rng.permutation(200)).split(64):
            optimizer.zero_grad()
            cross_entropy(alone(x[batch]), y[batch]).backward()
            optimizer.step()
    for name, values in alone.state_dict().items():
        torch.testing.assert_close(
            together.state[name][i], values, atol=1e-5, rtol=1e-4
        )
    assert torch.equal(start.member(i).state_dict()[name], start.state[name][i])


def test_batch_normalisation_learns_its_statistics():
    x, y = training_digits(200)
    start = initialise({"factory": "convnet", "channels": [2], "hidden": [4],
                        "classes": 3, "batch_norm": True}, [0, 1])
    together = train(start, x, y, 1, batch_size=200)
    alone = start.member(1).train()
    alone(x)
    for name, values in alone.named_buffers():
        torch.testing.assert_close(together.state[name][1], values)


@pytest.mark.parametrize("strategy", ["fgsm", "pgd"])
def test_adversarial_training_is_that_of_each_member_alone(strategy):
    x, y = training_digits(128)
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


def loop_by_hand(networks, x, y, shared_attack):
    """Train networks for one epoch on images attacked by PGD, and return their states.

    The settings are those of the test below: eps 0.2, 3 steps of 2.5 eps / 3, learning
    rate 0.005, seed 3.
    """
    optimizers = []
    for network in networks:
        optimizers.append(torch.optim.Adam(network.parameters(), lr=5e-3))
    attack_seeds = np.random.default_rng([3, 1])
    order = torch.from_numpy(np.random.default_rng([3, 0]).permutation(len(x)))

    def all_logits(images):
        return torch.stack([network(images) for network in networks])

    for batch in order.split(32):
        images, labels = x[batch], y[batch]
        seed = int(attack_seeds.integers(2**31))
        adversarial = []
        for network in networks:
            target = all_logits if shared_attack else network
            adversarial.append(
                attacks.pgd(target, images, labels, 0.2, 0.5 / 3, 3, seed))
        for network, optimizer, attacked in zip(networks, optimizers, adversarial):
            optimizer.zero_grad()
            cross_entropy(network(attacked), labels).backward()
            optimizer.step()
    return [network.state_dict() for network in networks]


@pytest.mark.parametrize("shared_attack", [False, True])
def test_adversarial_training_is_a_loop_with_these_settings(shared_attack):
    x, y = training_digits(96)
    start = small([5, 6])
    population = train(
        start, x, y, 1, seed=3, learning_rate=5e-3, strategy="pgd", eps=0.2,
        attack_steps=3, shared_attack=shared_attack)
    networks = [start.member(0), start.member(1)]
    for i, state in enumerate(loop_by_hand(networks, x, y, shared_attack)):
        for name, values in state.items():
            torch.testing.assert_close(
                population.state[name][i], values, atol=1e-4, rtol=1e-3)


def test_adversarial_training_makes_robust_networks(digits):
    x, y = training_digits(3000)
    start = initialise({"factory": "mlp", "widths": [784, 32, 3]}, [0, 1])
    test_images, test_labels = digits[0][::10], digits[1][::10]
    robust = {}
    for strategy in ("standard", "fgsm", "pgd"):
        population = train(start, x, y, 2, strategy=strategy)
        assert (population.accuracy(test_images, test_labels) > 0.9).all()
        adversarial = attacks.pgd(population, test_images, test_labels, 0.1, 0.025, 10)
        with torch.no_grad():
            predicted = population.forward(adversarial, per_model=True).argmax(-1)
        robust[strategy] = (predicted == test_labels).double().mean().item()
    assert robust["standard"] + 0.1 < min(robust["fgsm"], robust["pgd"])


def test_training_learns_digits_and_keeps_checkpoints(trained, digits):
    assert trained.members.to_dict("list") == {
        "seed": [0, 1, 2] * 2,
        "epoch": [0] * 3 + [3] * 3,
    }
    accuracy = trained.accuracy(*digits)
    assert (accuracy[:3] < 0.7).all() and (accuracy[3:] > 0.95).all()
    untrained = initialise(ARCHITECTURE, [0, 1, 2])
    for name, values in untrained.state.items():
        assert torch.equal(values, trained[:3].state[name])


def test_training_refuses_bad_checkpoints():
    x, y = torch.zeros(4, 784), torch.zeros(4, dtype=torch.int64)
    for checkpoints in ([3], [-1], []):
        with pytest.raises(ValueError, match="checkpoints: wanted epochs from 0 to 2"):
            train(small(), x, y, 2, checkpoints)


def test_training_refuses_bad_arguments():
    x, y = torch.zeros(4, 784), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="4 inputs but 3 labels"):
        train(small(), x, y[:3], 1)
    with pytest.raises(ValueError, match="at least one"):
        small([])
    with pytest.raises(ValueError, match="did you mean 'fgsm'"):
        train(small(), x, y, 1, strategy="fgms")
    with pytest.raises(ValueError, match="shared order"):
        train(small(), x, y, 1, strategy="pgd", private_order=True)


def test_training_on_the_device_there_is_ends_on_the_cpu():
    arguments = {
        "architecture": {"factory": "mlp", "widths": [784, 8, 3], "activation": "relu"},
        "seeds": [0, 1],
        "dataset": "mnist",
        "classes": [0, 1, 2],
        "epochs": 1,
        "batch_size": 512,
    }
    auto = train_by_name(**arguments, device="auto")
    cpu = train_by_name(**arguments, device="cpu")
    for name, values in auto.state.items():
        assert values.device.type == "cpu"
        torch.testing.assert_close(values, cpu.state[name], atol=1e-4, rtol=1e-3)
