"""Attacks: the ball, the loss, one member at a time, and torchattacks where it is
installed.
"""

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
def some(digits):
    return digits[0][::40], digits[1][::40]


@pytest.fixture(scope="module")
def model(trained):
    return trained.member(3)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15, deadline=None)
@given(eps=st.floats(0, 0.6), seed=st.integers(0, 10**6))
def test_attacks_stay_in_the_ball_and_in_the_unit_interval(
    name, model, some, eps, seed
):
    x, y = some[0][:7], some[1][:7]
    kw = {} if name == "fgsm" else {"seed": seed}
    moved = ALL[name](model, x, y, eps, **kw)
    assert (moved - x).abs().max() <= eps + 1e-6
    assert moved.min() >= 0 and moved.max() <= 1 and not moved.requires_grad


@pytest.mark.parametrize("name", ALL)
def test_attacks_raise_the_loss_and_fool_the_network(name, model, some):
    x, y = some
    with torch.no_grad():
        before = nn.functional.cross_entropy(model(x), y)
        moved = ALL[name](model, x, y, 0.2)
        assert nn.functional.cross_entropy(model(moved), y) > 3 * before
        assert (model(moved).argmax(1) == y).float().mean() < 0.6


@pytest.mark.parametrize("name", ALL)
def test_a_population_is_attacked_as_its_members_are(name, trained, some):
    population, (x, y) = trained[[3, 5]], some
    together = ALL[name](population, x, y, 0.1)
    assert together.shape == (2, *x.shape)
    for i in range(2):
        alone = ALL[name](population.member(i), x, y, 0.1)
        # A gradient of zero may round to either sign
        same = (together[i] - alone).abs() < 1e-6
        assert same.float().mean() > 0.999


def test_fgsm_follows_the_sign_of_the_gradient(model, some):
    x, y = some
    clean = x.clone().requires_grad_()
    nn.functional.cross_entropy(model(clean), y).backward()
    torch.testing.assert_close(attacks.fgsm(model, x, y, 0.1),
                               (x + 0.1 * clean.grad.sign()).clamp(0, 1))


def test_gaussian_noise_is_noise():
    x = torch.full((200, 28, 28), 0.5)
    noise = attacks.gaussian_noise(x, 0.1, seed=3) - x
    assert abs(noise.mean()) < 2e-3 and abs(noise.std() - 0.1) < 2e-3
    assert torch.equal(attacks.gaussian_noise(x, 0.1, seed=3), x + noise)
    assert not torch.equal(attacks.gaussian_noise(x, 0.1, seed=4), x + noise)
    assert (
        attacks.gaussian_noise(x, 5).min() == 0
        and attacks.gaussian_noise(x, 5).max() == 1
    )


def test_images_of_any_shape_and_any_callable(model, some):
    x, y = some
    pictures = attacks.pgd(
        lambda images: model(images.flatten(1)), x.reshape(-1, 28, 28), y, 0.1, 0.05, 2
    )
    torch.testing.assert_close(
        pictures.flatten(1), attacks.pgd(model, x, y, 0.1, 0.05, 2)
    )


def test_attacks_are_seeded_and_leave_the_global_seed_alone(model, some):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, again, other = (
        attacks.pgd(model, *some, 0.1, 0.02, 2, seed=s) for s in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("change, words", [
    ({"x": lambda x: x * 255}, "values in .0, 1."),
    ({"x": lambda x: x.int()}, "floats"),
    ({"x": lambda x: x.numpy()}, "ndarray"),
    ({"x": lambda x: x[:0]}, "shape"),
    ({"y": lambda y: y[:3]}, "y: wanted one int"),
    ({"y": lambda y: y.float()}, "y: wanted one int"),
    ({"eps": lambda eps: -0.1}, "eps: wanted"),
    ({"steps": lambda steps: 0}, "steps: wanted"),
    ({"alpha": lambda alpha: float("nan")}, "alpha: wanted"),
])
def test_bad_input(change, words, model, some):
    arguments = {"x": some[0], "y": some[1], "eps": 0.1, "alpha": 0.1, "steps": 2}
    (name, how), = change.items()
    with pytest.raises(ValueError, match=words):
        attacks.pgd(model, **{**arguments, name: how(arguments[name])})


def test_against_torchattacks(model, some, monkeypatch):
    """The same model and the same random start: the same adversarial images."""
    torchattacks = pytest.importorskip(
        "torchattacks", reason="pip install --no-deps torchattacks==3.5.1")
    x, y = some
    shape = (len(x), 1, 28, 28)
    wrapped = nn.Sequential(nn.Flatten(), model).eval()
    eps, alpha, steps = 0.1, 0.03, 4
    start = (
        2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 1
    ) * eps
    normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(
        torch.Tensor, "uniform_", lambda self, *a: self.copy_(start.view(shape))
    )
    monkeypatch.setattr(torch, "randn_like", lambda t: normal.view(t.shape).clone())
    theirs = {
        "fgsm": torchattacks.FGSM(wrapped, eps=eps),
        "ffgsm": torchattacks.FFGSM(wrapped, eps=eps, alpha=alpha),
        "pgd": torchattacks.PGD(
            wrapped, eps=eps, alpha=alpha, steps=steps, random_start=True
        ),
        "trades": torchattacks.TPGD(wrapped, eps=eps, alpha=alpha, steps=steps),
        "gaussian": torchattacks.GN(wrapped, std=0.1),
    }
    ours = {
        "fgsm": attacks.fgsm(model, x, y, eps),
        "ffgsm": attacks.ffgsm(model, x, y, eps, alpha),
        "pgd": attacks.pgd(model, x, y, eps, alpha, steps),
        "trades": attacks.trades(model, x, eps, alpha, steps),
        "gaussian": attacks.gaussian_noise(x, 0.1)}
    for name, attack in theirs.items():
        found = attack(x.view(shape), y).view(x.shape)
        same = (found - ours[name]).abs() < 1e-5
        assert same.float().mean() > 0.999, name


