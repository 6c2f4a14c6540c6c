"""Populations: the same numbers as separate modules, and results that stay on disk."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn

import wcka
from wcka.networks import architectures, populations
from wcka.networks.populations import (
    Population,
    build,
    chains,
    initialise,
    resolve_device,
    seed_of,
)


def small(seeds=(0, 1, 2)):
    return initialise({"factory": "mlp", "widths": [784, 8, 8, 3]}, seeds)


def test_initialisation_is_that_of_separate_modules():
    population = small([5, 7])
    for i, seed in enumerate((5, 7)):
        torch.manual_seed(seed_of(population.architecture, seed))
        alone = build(population.architecture)
        for name, values in alone.state_dict().items():
            assert torch.equal(population.member(i).state_dict()[name], values)


def test_architectures_of_one_seed_have_independent_weights():
    # The first layers have one shape, so PyTorch would draw them alike.
    shallow = initialise({"factory": "mlp", "widths": [784, 32, 3]}, range(20))
    deep = initialise({"factory": "mlp", "widths": [784, 32, 32, 3]}, range(20))
    first = shallow.state["1.weight"].flatten(1)  # (networks, weights)
    second = deep.state["1.weight"].flatten(1)
    cosines = torch.nn.functional.cosine_similarity(first, second)
    assert cosines.abs().max() < 5 / first.shape[1] ** 0.5
    # A sequence of widths names the same architecture, whatever its type.
    assert seed_of({"widths": (4, 3)}, 1) == seed_of({"widths": [4, 3]}, 1)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_gradients_by_the_images_are_those_of_autograd(activation):
    widths = [12, 5, 4, 3]
    architecture = {"factory": "mlp", "widths": widths, "activation": activation}
    networks = initialise(architecture, [0, 1])
    images = torch.rand(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    def slope(logits):
        return logits.softmax(-1) - nn.functional.one_hot(labels, 3)

    gradients = networks.input_gradient(images, slope)
    for i in range(2):
        x = images[i].clone().requires_grad_()
        loss = nn.functional.cross_entropy(networks.member(i)(x), labels,
                                           reduction="sum")
        loss.backward()
        torch.testing.assert_close(gradients[i], x.grad)


def test_initialisation_leaves_the_global_seed_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    small()
    assert torch.equal(torch.rand(1), expected)


def test_taking_out_a_member_leaves_the_random_state_alone():
    population = small()
    state = torch.get_rng_state()
    member = population.member(1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, values in member.state_dict().items():
        assert torch.equal(values, population.state[name][1])


# ------------------------------------------------------------------------- activations


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


@pytest.mark.parametrize("bias", [True, False])
def test_members_may_have_separate_inputs(bias):
    architecture = {"factory": "mlp", "widths": [6, 5, 3], "bias": bias}
    population = initialise(architecture, [0, 1, 2])
    x = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = population.forward(x, per_model=True)
        logits_of_shared_inputs = population.forward(x[0])
        for i in range(3):
            alone = population.member(i)
            torch.testing.assert_close(logits[i], alone(x[i]))
            torch.testing.assert_close(logits_of_shared_inputs[i], alone(x[0]))


def test_as_many_images_as_members_are_still_shared(digits):
    population = small()
    images = digits[0][:3].reshape(3, 28, 28)
    with torch.no_grad():
        logits = population.forward(images)
        torch.testing.assert_close(logits[2], population.member(2)(images))


@pytest.fixture
def of_modules(monkeypatch):
    """Return a population of two networks of modules that no factory here builds."""

    def initialised(*modules):
        monkeypatch.setattr(
            architectures, "custom", lambda: nn.Sequential(*copy.deepcopy(modules)),
            raising=False)
        return initialise({"factory": "custom"}, [0, 1])

    return initialised


@pytest.mark.parametrize("per_model", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_by_the_weights_are_those_of_autograd(of_modules, bias, per_model):
    networks = of_modules(
        nn.Flatten(), nn.Linear(12, 5, bias), nn.ReLU(), nn.Linear(5, 4, bias),
        nn.Linear(4, 3, bias))
    x = torch.rand(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    if not per_model:
        x = x[0]
    out = {}
    for name, values in networks.state.items():
        out[name] = torch.full_like(values, torch.nan)
    networks.weight_gradients(x, torch.cos, per_model, out)
    for i in range(2):
        alone = networks.member(i)
        logits = alone(x[i] if per_model else x)
        logits.backward(logits.detach().cos())
        for name, weights in alone.named_parameters():
            torch.testing.assert_close(out[name][i], weights.grad)


@pytest.mark.parametrize("between", [
    [nn.LayerNorm(6), nn.PReLU()], [nn.Softmax(1)],
    [nn.Unflatten(1, (2, 3)), nn.Flatten()],
    [nn.BatchNorm1d(6, affine=False)], [nn.Sequential(nn.ReLU(), nn.Linear(6, 6))]])
def test_modules_of_unknown_kinds_run_one_by_one(digits, of_modules, between):
    x = digits[0][:9]
    population = of_modules(nn.Flatten(), nn.Linear(784, 6), *between, nn.Linear(6, 2))
    with torch.no_grad():
        for i in range(2):
            alone = population.member(i)
            torch.testing.assert_close(population.forward(x)[i], alone(x))
            if isinstance(between[0], nn.Sequential):
                torch.testing.assert_close(chains(population)[i], wcka.chain(alone))


def test_a_flatten_of_some_axes_flattens_these_only(of_modules):
    population = of_modules(nn.Flatten(0, 1), nn.Linear(4, 3))
    x = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = population.forward(x)
        assert logits.shape == (2, 10, 3)
        torch.testing.assert_close(logits[1], population.member(1)(x))


# ------------------------------------------------------------------------------ chains


@pytest.mark.parametrize("bias", [False, True])
def test_chains_of_a_population_are_those_of_its_members(trained, bias):
    all_chains = chains(trained, bias=bias)
    for i in (0, 5):
        expected = wcka.chain(trained.member(i), bias=bias)
        torch.testing.assert_close(all_chains[i], expected)


@pytest.mark.parametrize("bias", [False, True])
def test_chains_may_end_with_a_hidden_layer(bias):
    population = small()
    for layer, stop in ((1, 2), (2, 4)):
        expected = wcka.chain(population.member(1)[:stop], bias=bias)
        torch.testing.assert_close(chains(population, bias, layer)[1], expected)


# ------------------------------------------------------------------ selection and disk


def test_selection_and_disk(trained, tmp_path):
    is_late = (trained.members.epoch == 3).to_numpy()
    late = trained[is_late]
    assert len(late) == 3 and late.members.epoch.tolist() == [3] * 3
    path = tmp_path / "new" / "late.safetensors"
    late.save(path)
    loaded = Population.load(path)
    assert loaded.architecture == late.architecture
    assert loaded.members.equals(late.members)
    for name, values in late.state.items():
        assert torch.equal(loaded.state[name], values)
    assert list(path.parent.iterdir()) == [path]


def test_notes_on_the_members_stay_on_disk(tmp_path):
    population = small()
    population.members.attrs["validation"] = [0.5, 0.75]
    population.save(tmp_path / "small.safetensors")
    loaded = Population.load(tmp_path / "small.safetensors")
    assert loaded.members.attrs == {"validation": [0.5, 0.75]}


def test_members_are_read_to_the_last_digit(tmp_path):
    population = small()
    population.members["rate"] = [1 / 3, 1e-300 / 7, float("nan")]
    population.members["name"] = ["a", None, "\x1b"]
    population.members["right"] = [True, False, True]
    population.save(tmp_path / "small.safetensors")
    loaded = Population.load(tmp_path / "small.safetensors")
    pd.testing.assert_frame_equal(
        loaded.members, population.members, check_exact=True)


def test_a_changed_population_is_not_loaded(tmp_path):
    path = tmp_path / "small.safetensors"
    small().save(path, key="three networks")
    with pytest.raises(ValueError, match="it holds another result"):
        Population.load(path)
    assert len(Population.load(path, key="three networks")) == 3
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its content and its digest differ"):
        Population.load(path, key="three networks")


def test_saving_that_fails_leaves_no_file(tmp_path, monkeypatch):
    def fill_the_disk(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(populations, "save_file", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        small().save(tmp_path / "small.safetensors")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------- devices


def test_population_is_copyable_between_devices(trained):
    meta = trained.to("meta")
    assert meta.state["1.weight"].device.type == "meta" and len(meta) == len(trained)
    available = copy.copy(trained).to("auto")
    assert available.state["1.weight"].device.type in ("cpu", "cuda")


def test_without_cuda_auto_is_the_cpu_and_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="no CUDA here, got 'cuda:1'"):
        resolve_device("cuda:1")
    with pytest.raises(ValueError, match="wanted cpu, cuda or auto, got 'gpu'"):
        resolve_device("gpu")


def test_nothing_is_made_on_another_device_than_the_populations():
    """Tensors without storage stand for a device that is not there."""
    population = initialise(
        {"factory": "mlp", "widths": [784, 8, 3], "activation": "relu"},
        [0, 1],
        device="meta",
    )
    inputs = torch.zeros(5, 784, device="meta")
    assert population.activations(inputs, 1).device.type == "meta"
    assert {chain.device.type for chain in chains(population)} == {"meta"}
