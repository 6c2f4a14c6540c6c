"""Altered copies of networks: pruned, quantised, noisy; images with a trigger."""

import pytest
import torch
from torch import nn

from wcka.networks import architectures, edits


def small_convnet():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)),
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 4),
    )


def conv_and_linear_weights(model):
    return torch.cat([model[1].weight.flatten(), model[4].weight.flatten()]).detach()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_the_smallest_weights_of_all_layers_are_pruned(share):
    model = small_convnet()
    pruned = edits.prune(model, share)
    before = conv_and_linear_weights(model)
    after = conv_and_linear_weights(pruned)
    is_pruned = after == 0
    assert is_pruned.sum() == round(share * len(before))
    assert torch.equal(after[~is_pruned], before[~is_pruned])
    if 0 < share < 1:
        assert before[is_pruned].abs().max() <= before[~is_pruned].abs().min()
    assert torch.equal(pruned[1].bias, model[1].bias)
    # No masks are left behind
    assert list(pruned.state_dict()) == list(model.state_dict())
    for parameter, original in zip(
        pruned.parameters(), model.parameters(), strict=True
    ):
        assert parameter.shape == original.shape


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantised_weights_are_the_nearest_of_a_grid(bits):
    model = small_convnet()
    quantised = edits.quantise(model, bits)
    for i in (1, 4):
        before = model[i].weight
        after = quantised[i].weight
        step = before.abs().max() / (2 ** (bits - 1) - 1)
        levels = (after / step).round()
        torch.testing.assert_close(levels * step, after)
        assert len(levels.unique()) <= 2**bits - 1
        assert (before - after).abs().max() <= 0.5001 * step


def test_noise_has_the_size_asked_for():
    model = architectures.mlp((300, 200, 3))
    noisy = edits.add_noise(model, 0.25, seed=3)
    for i in (1, 3):
        weight = model[i].weight.detach()
        noise = noisy[i].weight.detach() - weight
        assert noise.std() / weight.std() == pytest.approx(0.25, rel=0.1)


def test_noise_of_all_layers_comes_from_one_stream():
    model = architectures.mlp((4, 4, 4))
    noisy = edits.add_noise(model, 0.25, seed=3)
    generator = torch.Generator().manual_seed(3)
    for i in (1, 3):
        weight = model[i].weight.detach()
        noise = torch.randn(4, 4, generator=generator)
        expected = weight + 0.25 * weight.std() * noise
        torch.testing.assert_close(noisy[i].weight.detach(), expected)


@pytest.mark.parametrize("edit", [
    lambda model: edits.prune(model, 0.5),
    lambda model: edits.quantise(model, 2),
    lambda model: edits.add_noise(model, 0.5),
], ids=["prune", "quantise", "add_noise"])
def test_the_network_itself_stays_as_it_is(edit):
    model = small_convnet()
    before = conv_and_linear_weights(model).clone()
    edited = edit(model)
    assert torch.equal(conv_and_linear_weights(model), before)
    assert not torch.equal(conv_and_linear_weights(edited), before)


def marked_by(seed, size=3):
    """Return which of 100 black images get a trigger, as a mask, and all 100 images."""
    x, labels = torch.zeros(100, 784), torch.full((100,), 5)
    poisoned, targets = edits.backdoor(x, labels, 0.2, target=3, seed=seed, size=size)
    is_marked = poisoned.any(1)
    assert (targets[is_marked] == 3).all() and (targets[~is_marked] == 5).all()
    assert not x.any() and (labels == 5).all()
    return is_marked, poisoned.reshape(100, 28, 28)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_backdoor_marks_a_share_of_the_images_with_a_square(size):
    is_marked, images = marked_by(seed=0, size=size)
    assert is_marked.sum() == 20
    square = images[is_marked][:, 27 - size:27, 27 - size:27]
    assert (square == 1).all()
    assert (images[is_marked].sum((1, 2)) == size**2).all()


def test_the_seed_of_a_backdoor_decides_which_images_are_marked():
    marked, _ = marked_by(seed=0)
    marked_again, _ = marked_by(seed=0)
    marked_by_seed_1, _ = marked_by(seed=1)
    assert torch.equal(marked, marked_again)
    assert not torch.equal(marked, marked_by_seed_1)
    assert not marked[:20].all()  # not simply the first ones


@pytest.mark.parametrize("share", [-0.1, 1.2])
def test_a_bad_share_is_refused(share):
    with pytest.raises(ValueError, match="share: wanted 0 to 1"):
        edits.prune(small_convnet(), share)


@pytest.mark.parametrize("bits", [1, 17])
def test_a_bad_number_of_bits_is_refused(bits):
    with pytest.raises(ValueError, match="bits: wanted 2 to 16"):
        edits.quantise(small_convnet(), bits)
