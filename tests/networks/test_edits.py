"""Altered copies of networks."""

import pytest
import torch
from torch import nn

from wcka.experiments import matching
from wcka.networks import architectures, edits


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)),
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 4),
    )


def weights(model):
    return torch.cat([model[1].weight.flatten(), model[4].weight.flatten()]).detach()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_the_smallest_weights_of_all_layers_are_pruned(share):
    model = network()
    pruned = edits.prune(model, share)
    before, after = weights(model), weights(pruned)
    gone = after == 0
    assert gone.sum() == round(share * len(before))
    assert torch.equal(after[~gone], before[~gone])
    if 0 < share < 1:
        assert before[gone].abs().max() <= before[~gone].abs().min()
    assert torch.equal(pruned[1].bias, model[1].bias)
    # No masks are left behind
    assert list(pruned.state_dict()) == list(model.state_dict())
    assert [p.shape for p in pruned.parameters()] == [
        p.shape for p in model.parameters()
    ]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantised_weights_are_the_nearest_of_a_grid(bits):
    model = network()
    for old, new in (
        (model[i].weight, edits.quantise(model, bits)[i].weight) for i in (1, 4)
    ):
        step = old.abs().max() / (2 ** (bits - 1) - 1)
        levels = (new / step).round()
        torch.testing.assert_close(levels * step, new)
        assert len(levels.unique()) <= 2**bits - 1
        assert (old - new).abs().max() <= 0.5001 * step


def test_noise_is_of_the_size_asked_for():
    model = architectures.mlp((300, 200, 3))
    for i in (1, 3):
        added = (edits.add_noise(model, 0.25, 3)[i].weight - model[i].weight).detach()
        assert added.std() / model[i].weight.detach().std() == pytest.approx(
            0.25, rel=0.1
        )
    one, again, other = (
        matching.flat_weights(edits.add_noise(model, 0.1, seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_backdoor_marks_a_share_of_the_images():
    x, labels = torch.zeros(100, 784), torch.full((100,), 5)
    moved, targets = edits.backdoor(x, labels, 0.2, target=3)
    marked = moved.reshape(-1, 28, 28)[:, 24:27, 24:27].flatten(1).all(1)
    assert marked.sum() == 20 and (moved.sum(1)[marked] == 9).all()
    assert (targets[marked] == 3).all() and (targets[~marked] == 5).all()
    assert not x.any() and (labels == 5).all()


def test_bad_arguments_are_refused():
    for call in (
        lambda: edits.prune(network(), 1.2),
        lambda: edits.quantise(network(), 1),
    ):
        with pytest.raises(ValueError, match="wanted"):
            call()
