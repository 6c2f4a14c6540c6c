"""Altered copies of networks, and the choice of ensembles."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from wcka.experiments import ensembles, matching
from wcka.networks import architectures, edits
from wcka.weights import symmetry


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


def test_matching_undoes_permutation_and_rescaling():
    torch.manual_seed(0)
    a, b = architectures.mlp((20, 12, 9, 3)), architectures.mlp((20, 12, 9, 3))
    hidden = symmetry.rescale(symmetry.permute(a, 1), 2)
    assert matching.matched_cosine(a, a) == pytest.approx(1)
    assert matching.matched_cosine(a, hidden) == pytest.approx(1, abs=1e-6)
    assert matching.matched_cosine(hidden, b) == pytest.approx(
        matching.matched_cosine(a, b), abs=1e-6
    )
    assert matching.matched_cosine(a, b) < 0.6


def test_the_least_alike_are_found():
    rng = np.random.default_rng(0)
    similarity = rng.uniform(size=(9, 9))
    similarity = similarity + similarity.T
    best = min(combinations(range(9), 4),
               key=lambda s: sum(similarity[i, j] for i, j in combinations(s, 2)))
    assert tuple(ensembles.least_similar(similarity, 4)) == best
    for k, words in ((1, "wanted 2 to 9"), (10, "wanted 2 to 9")):
        with pytest.raises(ValueError, match=words):
            ensembles.least_similar(similarity, k)
    with pytest.raises(ValueError, match="too many"):
        ensembles.least_similar(np.zeros((60, 60)), 10)


def test_calibration_error_of_known_cases():
    sure = torch.tensor([[1.0, 0.0]] * 4)
    assert ensembles.calibration_error(sure, torch.tensor([0, 0, 0, 0])) == 0
    assert ensembles.calibration_error(
        sure, torch.tensor([0, 0, 0, 1])
    ) == pytest.approx(0.25)
    # Half of them .6 sure and always right, half .9 sure and right two times of three.
    mixed = torch.tensor([[0.6, 0.4]] * 3 + [[0.9, 0.1]] * 3)
    expected = 0.5 * 0.4 + 0.5 * (0.9 - 2 / 3)
    found = ensembles.calibration_error(mixed, torch.tensor([0, 0, 0, 0, 0, 1]))
    assert found == pytest.approx(expected, abs=1e-6)


def test_bad_arguments_are_refused():
    for call in (
        lambda: edits.prune(network(), 1.2),
        lambda: edits.quantise(network(), 1),
    ):
        with pytest.raises(ValueError, match="wanted"):
            call()
