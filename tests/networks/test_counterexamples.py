"""Networks built to set similarity of weights and of functions against each other."""

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
    model = network((784, 9, 3))
    target = network((784, 20, 5, 3), seed=1)
    impostor = counterexamples.impersonate(model, wcka.chain(target))
    for inputs in (x, torch.zeros_like(x[:1]), torch.ones_like(x[:1])):
        with torch.no_grad():
            torch.testing.assert_close(
                impostor(inputs), model(inputs), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        wcka.chain(impostor), wcka.chain(target), rtol=1e-9, atol=1e-12)
    assert wcka.wcka(impostor, target) == pytest.approx(1)
    assert wcka.wcka(impostor, model) < 0.1


@pytest.mark.parametrize("change", [
    counterexamples.flip, counterexamples.drown, counterexamples.widen,
    counterexamples.deepen, lambda model: counterexamples.drown(model, 5.0, 3)])
def test_the_chain_stays(change):
    model = network()
    torch.testing.assert_close(wcka.chain(change(model)), wcka.chain(model))


def test_what_should_change_does(x):
    model = network()
    with torch.no_grad():
        logits = model(x)
        for change in (counterexamples.flip, counterexamples.drown):
            difference = change(model)(x) - logits
            assert difference.abs().max() > 0.1 * logits.std()
        scaled_logits = counterexamples.scale_logit(model, 4.0, 1)(x)
    torch.testing.assert_close(scaled_logits, logits * torch.tensor([1, 4, 1]))
    for changed in (
        counterexamples.deaden(model),
        counterexamples.lift(model),
        counterexamples.scale_logit(model, 10.0),
    ):
        assert wcka.wcka(changed, model) < 0.99


def test_lifting_all_logits_leaves_the_probabilities(x):
    model = network()
    with torch.no_grad():
        lifted_logits = counterexamples.lift(model, 3.0)(x)
        torch.testing.assert_close(lifted_logits.softmax(1), model(x).softmax(1))
        assert (lifted_logits - model(x)).abs().max() > 0.1


def relative_change(changed, model, x):
    """Return the mean squared change of the logits, relative to their variance."""
    with torch.no_grad():
        change = (changed(x) - model(x)).square().mean() / model(x).var()
    return float(change)


@pytest.mark.parametrize("measure", ["wcka", "cka"])
def test_gradients_move_a_measure_and_the_logits_stay(measure, x):
    model = network().float()
    target = network(seed=1).float()
    x = x.float()

    def similarity(a, b):
        if measure == "wcka":
            return wcka.wcka(a, b)
        with torch.no_grad():
            return wcka.cka(a[:-1](x), b[:-1](x))

    away = counterexamples.move(model, x, measure, steps=60, keep=0.1)
    towards = counterexamples.move(model, x, measure, target, steps=60, keep=0.1)
    assert similarity(away, model) < 0.9
    assert similarity(towards, target) > similarity(model, target) + 0.05
    assert relative_change(away, model, x) < 0.2
    assert relative_change(towards, model, x) < 0.2


@pytest.mark.parametrize("measure", ["wcka", "cka"])
def test_the_more_the_change_of_the_logits_weighs_the_less_they_change(measure):
    """Towards another network: away from itself, the gradient is only rounding."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 6, generator=generator)
    model = network((6, 8, 3), seed=1).float()
    target = network((6, 8, 3), seed=51).float()
    changes = []
    for keep in (0, 0.1, 100):
        changed = counterexamples.move(
            model, x, measure, target, steps=40, learning_rate=0.02, keep=keep)
        changes.append(relative_change(changed, model, x))
    assert changes[0] > 2 * changes[1] > 4 * changes[2]


def test_the_cka_of_the_gradients_is_cka():
    a, b = torch.randn(2, 50, 4, generator=torch.manual_seed(0))
    assert counterexamples._cka(a, b).item() == pytest.approx(wcka.cka(a, b), rel=1e-4)


@pytest.mark.parametrize("model, words", [
    (architectures.mlp((4, 3, 2), "tanh"), "ReLU"),
    (architectures.mlp((4, 2)), "hidden"),
])
def test_other_networks_are_refused(model, words):
    with pytest.raises(TypeError, match=words):
        counterexamples.flip(model)


def test_other_depths_and_measures_are_refused():
    with pytest.raises(TypeError, match="one hidden layer, got 2"):
        counterexamples.impersonate(network(), torch.zeros(784, 3))
    with pytest.raises(ValueError, match="unknown measure"):
        counterexamples.move(network(), torch.zeros(2, 784), "dcka")


def test_the_network_itself_stays_as_it_is():
    model = network()
    expected = network()
    counterexamples.flip(model)
    counterexamples.deaden(model)
    for parameter, original in zip(
        model.parameters(), expected.parameters(), strict=True
    ):
        assert torch.equal(parameter, original)


def test_constructions_leave_the_random_state_alone(x):
    models = [network(seed=seed, widths=(784, 16, 3)) for seed in range(3)]
    state = torch.get_rng_state()
    counterexamples.constructions(*models, x)
    counterexamples.move(models[0], x, "wcka", steps=1)
    assert torch.equal(torch.get_rng_state(), state)
