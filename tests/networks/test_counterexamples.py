"""Networks built to set similarity of weights and of functions against each other."""

import numpy as np
import pytest
import torch

import wcka
from wcka.networks import architectures, counterexamples, image_sets


def network(widths=(784, 16, 12, 3), seed=0):
    torch.manual_seed(seed)
    model = architectures.mlp(widths).double()
    for layer in model[1::2]:
        torch.nn.init.normal_(layer.bias)
    return model


@pytest.fixture(scope="module")
def x():
    return image_sets.as_inputs(wcka.load()[0][:200]).double()


@pytest.mark.parametrize("change", [
    counterexamples.deaden, counterexamples.widen, counterexamples.deepen,
    lambda model: counterexamples.widen(model, 3),
    lambda model: counterexamples.deaden(model, 30, 2.0, 5)])
def test_the_function_stays(change, x):
    for model in (network(), network((784, 9, 3))):
        with torch.no_grad():
            torch.testing.assert_close(change(model)(x), model(x), rtol=1e-9, atol=1e-9)


def test_any_function_can_have_any_chain(x):
    model, other = network((784, 9, 3)), network((784, 20, 5, 3), seed=1)
    moved = counterexamples.impersonate(model, wcka.chain(other))
    for inputs in (x, torch.zeros_like(x[:1]), torch.ones_like(x[:1])):
        with torch.no_grad():
            torch.testing.assert_close(
                moved(inputs), model(inputs), rtol=1e-9, atol=1e-9
            )
    torch.testing.assert_close(
        wcka.chain(moved), wcka.chain(other), rtol=1e-9, atol=1e-12
    )
    assert wcka.wcka(moved, other) == pytest.approx(1) and wcka.wcka(moved, model) < 0.1


@pytest.mark.parametrize("change", [
    counterexamples.flip, counterexamples.drown, counterexamples.widen,
    counterexamples.deepen, lambda model: counterexamples.drown(model, 5.0, 3)])
def test_the_chain_stays(change):
    model = network()
    torch.testing.assert_close(wcka.chain(change(model)), wcka.chain(model))


def test_what_should_change_does(x):
    model = network()
    with torch.no_grad():
        y = model(x)
        for change in (counterexamples.flip, counterexamples.drown):
            assert (change(model)(x) - y).abs().max() > 0.1 * y.std()
        scaled = counterexamples.scale_logit(model, 4.0, 1)(x)
    torch.testing.assert_close(scaled, y * torch.tensor([1, 4, 1]))
    for change in (
        counterexamples.deaden,
        counterexamples.lift,
        lambda m: counterexamples.scale_logit(m, 10.0),
    ):
        assert wcka.wcka(change(model), model) < 0.99


def test_lifting_all_logits_leaves_the_probabilities(x):
    model = network()
    with torch.no_grad():
        lifted = counterexamples.lift(model, 3.0)(x)
        torch.testing.assert_close(lifted.softmax(1), model(x).softmax(1))
        assert (lifted - model(x)).abs().max() > 0.1


@pytest.mark.parametrize("measure", ["wcka", "cka"])
def test_gradients_move_a_measure_and_the_logits_stay(measure, x):
    model, target = network().float(), network(seed=1).float()
    x = x.float()

    def similarity(a, b):
        return wcka.wcka(a, b) if measure == "wcka" else wcka.cka(a[:-1](x), b[:-1](x))

    away = counterexamples.move(model, x, measure, steps=60, keep=0.1)
    towards = counterexamples.move(model, x, measure, target, steps=60, keep=0.1)
    with torch.no_grad():
        assert similarity(away, model) < 0.9
        assert similarity(towards, target) > similarity(model, target) + 0.05
        for moved in (away, towards):
            change = (moved(x) - model(x)).square().mean() / model(x).var()
            assert change < 0.2
    a, b = torch.randn(2, 50, 4, generator=torch.manual_seed(0))
    assert counterexamples._cka(a, b).item() == pytest.approx(wcka.cka(a, b), rel=1e-4)


def test_other_networks_are_refused():
    for model, words in (
        (architectures.mlp((4, 3, 2), "tanh"), "ReLU"),
        (architectures.mlp((4, 2)), "hidden"),
    ):
        with pytest.raises(TypeError, match=words):
            counterexamples.flip(model)
    with pytest.raises(TypeError, match="one hidden layer, got 2"):
        counterexamples.impersonate(network(), torch.zeros(784, 3))
    with pytest.raises(ValueError, match="unknown measure"):
        counterexamples.move(network(), torch.zeros(2, 784), "dcka")
    model = network()
    before = [p.clone() for p in model.parameters()]
    counterexamples.flip(model), counterexamples.deaden(model)
    assert all(
        np.array_equal(a.detach(), b.detach())
        for a, b in zip(before, model.parameters())
    )
