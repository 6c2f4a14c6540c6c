"""Populations: the same numbers as separate modules, and results that survive on disk.
"""

import copy

import pytest
import torch
from torch import nn

import wcka
from wcka.networks import architectures
from wcka.networks.populations import Population, build, chains, initialise


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
