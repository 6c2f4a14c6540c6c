"""Which networks an ensemble takes, and how well its probabilities are calibrated."""

from itertools import combinations

import numpy as np
import pytest
import torch

from wcka.experiments.ensembles import calibration_error, least_similar


def binned_error(probabilities, labels, bins):
    """Return the expected calibration error, bin by bin, as Guo et al. (2017) write it.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    total = 0.0
    for lower in np.arange(bins) / bins:
        upper = lower + 1 / bins
        inside = (confidence >= lower) & (confidence < upper)
        if upper > 1 - 1e-9:  # the last bin has both of its ends
            inside = confidence >= lower
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            total += inside.sum() / len(labels) * gap
    return total


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_is_the_definitions(bins):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.3] * 3, size=400)  # (images, classes)
    labels = rng.integers(3, size=400)
    error = calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), bins)
    assert error == pytest.approx(binned_error(probabilities, labels, bins))


def test_gaps_of_the_two_last_bins_do_not_cancel():
    probabilities = torch.tensor([[0.625, 0.375], [0.875, 0.125]])
    labels = torch.tensor([1, 0])  # the first is wrong, the second right
    error = calibration_error(probabilities, labels, bins=4)
    assert error == (0.625 + 0.125) / 2


def test_full_confidence_counts_in_the_last_bin():
    probabilities = torch.tensor([[1.0, 0.0], [0.875, 0.125]])
    labels = torch.tensor([1, 0])
    error = calibration_error(probabilities, labels, bins=4)
    assert error == (1.0 - 0.125) / 2  # one bin: the two gaps cancel in part


def test_two_of_three_are_the_least_similar_pair():
    similarity = np.array([[1.0, 0.2, 0.9], [0.2, 1.0, 0.1], [0.9, 0.1, 1.0]])
    assert least_similar(similarity, 2).tolist() == [1, 2]
    assert least_similar(similarity, 3).tolist() == [0, 1, 2]


def test_the_least_similar_set_is_that_of_all_sets():
    rng = np.random.default_rng(0)
    similarity = rng.uniform(size=(9, 9))
    similarity = similarity + similarity.T
    total_of_set = {}
    for models in combinations(range(9), 4):
        total_of_set[models] = sum(similarity[i, j] for i, j in combinations(models, 2))
    expected = min(total_of_set, key=total_of_set.get)
    assert tuple(least_similar(similarity, 4)) == expected


def test_sets_of_other_sizes_and_too_many_sets_are_refused():
    similarity = np.zeros((9, 9))
    for k in (1, 10):
        with pytest.raises(ValueError, match="wanted 2 to 9"):
            least_similar(similarity, k)
    with pytest.raises(ValueError, match="too many"):
        least_similar(np.zeros((28, 28)), 10)  # 13 million


def test_calibration_error_of_known_cases():
    certain = torch.tensor([[1.0, 0.0]] * 4)
    assert calibration_error(certain, torch.tensor([0, 0, 0, 0])) == 0
    error = calibration_error(certain, torch.tensor([0, 0, 0, 1]))
    assert error == pytest.approx(0.25)
    # Half with confidence 0.6 and always right, half with 0.9 and right 2 times of 3.
    mixed = torch.tensor([[0.6, 0.4]] * 3 + [[0.9, 0.1]] * 3)
    expected = 0.5 * 0.4 + 0.5 * (0.9 - 2 / 3)
    error = calibration_error(mixed, torch.tensor([0, 0, 0, 0, 0, 1]))
    assert error == pytest.approx(expected, abs=1e-6)
