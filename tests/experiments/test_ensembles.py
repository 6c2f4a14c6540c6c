"""Which networks an ensemble takes, and how well its probabilities are calibrated."""

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
