"""Attacks: the ball, the loss, each member alone, and torchattacks if installed."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wcka.networks import attacks

ALL = {
    "fgsm": lambda model, x, y, eps, **kw: attacks.fgsm(model, x, y, eps),
    "ffgsm": lambda model, x, y, eps, **kw: attacks.ffgsm(
        model, x, y, eps, 1.25 * eps, **kw
    ),
    "pgd": lambda model, x, y, eps, **kw: attacks.pgd(
        model, x, y, eps, eps / 4, 5, **kw
    ),
    "trades": lambda model, x, y, eps, **kw: attacks.trades(
        model, x, eps, eps / 4, 5, **kw
    ),
}


@pytest.fixture(scope="module")
def few_digits(digits):
    return digits[0][::40], digits[1][::40]


@pytest.fixture(scope="module")
def model(trained):
    return trained.member(3)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15, deadline=None)
@given(eps=st.floats(0, 0.6), seed=st.integers(0, 10**6))
def test_attacks_stay_in_the_ball_and_in_the_unit_interval(
    name, model, few_digits, eps, seed
):
    x, y = few_digits[0][:7], few_digits[1][:7]
    options = {} if name == "fgsm" else {"seed": seed}
    adversarial = ALL[name](model, x, y, eps, **options)
    assert (adversarial - x).abs().max() <= eps + 1e-6
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert not adversarial.requires_grad


@pytest.mark.parametrize("name", ALL)
def test_attacks_raise_the_loss_and_fool_the_network(name, model, few_digits):
    x, y = few_digits
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(x), y)
        logits = model(ALL[name](model, x, y, 0.2))
        assert nn.functional.cross_entropy(logits, y) > 3 * loss
        assert (logits.argmax(1) == y).float().mean() < 0.6


@pytest.mark.parametrize("name", ALL)
def test_a_population_is_attacked_as_its_members_are(name, trained, few_digits):
    population = trained[[3, 5]]
    x, y = few_digits
    together = ALL[name](population, x, y, 0.1)
    assert together.shape == (2, *x.shape)
    for i in range(2):
        alone = ALL[name](population.member(i), x, y, 0.1)
        # A gradient of zero may round to either sign
        is_equal = (together[i] - alone).abs() < 1e-6
        assert is_equal.float().mean() > 0.999


def test_fgsm_follows_the_sign_of_the_gradient(model, few_digits):
    x, y = few_digits
    clean = x.clone().requires_grad_()
    nn.functional.cross_entropy(model(clean), y).backward()
    torch.testing.assert_close(attacks.fgsm(model, x, y, 0.1),
                               (x + 0.1 * clean.grad.sign()).clamp(0, 1))


def test_trades_starts_at_noise_of_a_thousandth():
    x = torch.full((20, 30), 0.5)
    start = attacks.trades(nn.Linear(30, 3), x, eps=0.1, alpha=0, steps=1, seed=5)
    noise = torch.randn(20, 30, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(start, x + 0.001 * noise, rtol=0, atol=1e-7)


def test_trades_climbs_the_relative_entropy_to_the_clean_prediction():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 5)).double()
    nn.init.normal_(model[2].weight)  # predictions that are far from uniform
    x = torch.rand(20, 30).double()
    noise = torch.randn(20, 30, generator=torch.Generator().manual_seed(5)).double()
    clean = model(x).softmax(1).detach()
    expected = (x + 0.001 * noise).clamp(0, 1)
    for _ in range(4):
        images = expected.clone().requires_grad_()
        entropies = (clean * (clean / model(images).softmax(1)).log()).sum(1)
        gradient, = torch.autograd.grad(entropies.sum(), images)
        expected = expected + 0.1 * gradient.sign()
        expected = expected.clamp(x - 0.3, x + 0.3).clamp(0, 1)
    adversarial = attacks.trades(model, x, eps=0.3, alpha=0.1, steps=4, seed=5)
    torch.testing.assert_close(adversarial, expected)


def test_gaussian_noise_is_noise():
    x = torch.full((200, 28, 28), 0.5)
    noise = attacks.gaussian_noise(x, 0.1, seed=3) - x
    assert abs(noise.mean()) < 2e-3 and abs(noise.std() - 0.1) < 2e-3
    assert torch.equal(attacks.gaussian_noise(x, 0.1, seed=3), x + noise)
    assert not torch.equal(attacks.gaussian_noise(x, 0.1, seed=4), x + noise)
    assert (
        attacks.gaussian_noise(x, 1).min() == 0
        and attacks.gaussian_noise(x, 1).max() == 1
    )


def test_images_of_any_shape_and_any_callable(model, few_digits):
    x, y = few_digits
    pictures = attacks.pgd(
        lambda images: model(images.flatten(1)), x.reshape(-1, 28, 28), y, 0.1, 0.05, 2
    )
    torch.testing.assert_close(
        pictures.flatten(1), attacks.pgd(model, x, y, 0.1, 0.05, 2)
    )


def test_attacks_are_seeded_and_leave_the_global_seed_alone(model, few_digits):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    adversarial = attacks.pgd(model, *few_digits, 0.1, 0.02, 2, seed=1)
    adversarial_again = attacks.pgd(model, *few_digits, 0.1, 0.02, 2, seed=1)
    adversarial_by_seed_2 = attacks.pgd(model, *few_digits, 0.1, 0.02, 2, seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(adversarial, adversarial_again)
    assert not torch.equal(adversarial, adversarial_by_seed_2)


@pytest.mark.parametrize("change, words", [
    ({"x": lambda x: x * 255}, "values in .0, 1."),
    ({"x": lambda x: x.int()}, "floats"),
    ({"x": lambda x: x.numpy()}, "ndarray"),
    ({"x": lambda x: x[:0]}, "shape"),
    ({"y": lambda y: y[:3]}, "y: wanted one int"),
    ({"y": lambda y: y.float()}, "y: wanted one int"),
    ({"eps": lambda eps: -0.1}, "eps: wanted"),
    ({"steps": lambda steps: 0}, "steps: wanted"),
    ({"steps": lambda steps: 2.0}, "steps: wanted a whole number from 1 up"),
    ({"alpha": lambda alpha: float("nan")}, "alpha: wanted"),
])
def test_bad_input(change, words, model, few_digits):
    x, y = few_digits
    arguments = {"x": x, "y": y, "eps": 0.1, "alpha": 0.1, "steps": 2}
    for name, spoil in change.items():
        arguments[name] = spoil(arguments[name])
    with pytest.raises(ValueError, match=words):
        attacks.pgd(model, **arguments)


def test_against_torchattacks(model, few_digits, monkeypatch):
    """The same model and the same random start: the same adversarial images."""
    torchattacks = pytest.importorskip(
        "torchattacks", reason="pip install --no-deps torchattacks==3.5.1")
    x, y = few_digits
    # TRADES starts beside the clean image, where a gradient in single precision is
    # little but rounding.
    x, model = x.double(), deepcopy(model).double()
    shape = (len(x), 1, 28, 28)
    network = nn.Sequential(nn.Flatten(), model).eval()
    eps, alpha, steps = 0.1, 0.03, 4
    uniform = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    start = (2 * uniform - 1) * eps
    normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(
        torch.Tensor, "uniform_", lambda self, *a: self.copy_(start.view(shape))
    )
    monkeypatch.setattr(torch, "randn_like", lambda t: normal.view(t.shape).clone())
    reference_attacks = {
        "fgsm": torchattacks.FGSM(network, eps=eps),
        "ffgsm": torchattacks.FFGSM(network, eps=eps, alpha=alpha),
        "pgd": torchattacks.PGD(
            network, eps=eps, alpha=alpha, steps=steps, random_start=True
        ),
        "trades": torchattacks.TPGD(network, eps=eps, alpha=alpha, steps=steps),
        "gaussian": torchattacks.GN(network, std=0.1),
    }
    adversarial_images = {
        "fgsm": attacks.fgsm(model, x, y, eps),
        "ffgsm": attacks.ffgsm(model, x, y, eps, alpha),
        "pgd": attacks.pgd(model, x, y, eps, alpha, steps),
        "trades": attacks.trades(model, x, eps, alpha, steps),
        "gaussian": attacks.gaussian_noise(x, 0.1)}
    for name, attack in reference_attacks.items():
        expected = attack(x.view(shape), y).view(x.shape)
        is_equal = (expected - adversarial_images[name]).abs() < 1e-5
        assert is_equal.float().mean() > 0.999, name
