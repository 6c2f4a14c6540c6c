"""Agreement of predictions, against counting."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import wcka
from wcka.measures.predictions import collapsed, pairwise_agreement


def test_agreement_counts_equal_predictions():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 50, 4))
    expected = np.mean(a.argmax(1) == b.argmax(1))
    assert wcka.agreement(a, b) == pytest.approx(expected)
    assert wcka.agreement(torch.from_numpy(a), b.argmax(1)) == pytest.approx(expected)
    assert wcka.agreement(a, a) == 1


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 40))
def test_all_pairs_equal_pairs(seed, models, n):
    labels = np.random.default_rng(seed).integers(0, 3, (models, n))
    expected = (labels[:, None] == labels).mean(2)  # (models, models)
    table = pairwise_agreement(torch.from_numpy(labels))
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("a, b, words", [
    (np.zeros((3, 2)), np.zeros((4, 2)), "different numbers"),
    (np.zeros(3), np.zeros(3), "got torch.float64"),
    (np.zeros((0, 2)), np.zeros((0, 2)), "wanted logits"),
    (np.full((3, 2), np.nan), np.zeros((3, 2)), "a: NaN"),
])
def test_bad_input(a, b, words):
    with pytest.raises(ValueError, match=words):
        wcka.agreement(a, b)


def test_collapsed_models_predict_one_class_for_nearly_all():
    labels = torch.zeros(4, 20, dtype=torch.int64)
    labels[1, :1] = 2
    labels[2, :2] = 1
    labels[3, 5:] = 1
    assert collapsed(labels).tolist() == [True, True, False, False]
    assert collapsed(labels, share=0.75).tolist() == [True] * 4


def test_all_pairs_refuse_logits():
    with pytest.raises(ValueError, match="predictions: wanted labels"):
        pairwise_agreement(torch.zeros(2, 5, 3))
