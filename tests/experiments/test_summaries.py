"""Tables that summarise a grid, against single networks and pairs by hand."""

import numpy as np
import pandas as pd
import pytest

import wcka
from wcka.experiments import summaries
from wcka.measures.all_pairs import PAPER_MEASURES
from wcka.networks.populations import initialise

ARCHITECTURE = {"factory": "mlp", "widths": [784, 4, 2]}
MODELS = [{
    "architecture": ARCHITECTURE, "strategy": "standard", "seeds": [0, 1],
    "dataset": "mnist", "classes": [0, 1], "epochs": 1, "checkpoints": [0, 1],
    "images": 64}]
PROBING = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "images": 50}


def test_layers_are_those_of_the_epoch_asked_for():
    maps = summaries.by_layer(MODELS, [4], ("standard", "standard"), 0, PROBING)
    untrained = initialise(ARCHITECTURE, [0, 1])
    chains = []
    for i in range(2):
        network = untrained.member(i)
        chains.append([wcka.chain(network[:2]), wcka.chain(network)])
    similarity = maps["wcka"]["between seeds"]
    assert similarity.shape == (2, 2, 2)  # (ordered pairs, layers, layers)
    for layer_a in range(2):
        for layer_b in range(2):
            expected = wcka.cka(chains[0][layer_a], chains[1][layer_b])
            assert similarity[0, layer_a, layer_b] == pytest.approx(expected)


def test_an_architecture_or_a_strategy_that_is_missing_is_refused():
    for hidden, strategy in (([5], "standard"), ([4], "pgd")):
        with pytest.raises(ValueError, match=rf"no network .* trained by {strategy}"):
            summaries.by_layer(MODELS, hidden, (strategy, strategy), 0, PROBING)


def test_the_overview_is_of_the_last_epoch():
    members = pd.DataFrame({
        "epoch": [1, 2, 2, 2], "architecture": "1 × 4",
        "strategy": ["fgsm", "fgsm", "fgsm", "fgsm"],
        "accuracy": [0.1, 0.5, 0.75, 0.875], "under pgd": [0.0, 0.25, 0.5, 0.0],
        "collapsed": [True, True, False, True]})
    row = summaries.overview(members).loc[("1 × 4", "fgsm")]
    assert row.to_dict() == {
        "accuracy": 0.75, "under pgd": 0.25, "lowest": 0.5, "collapsed": 2}


def test_the_table_of_strategies_has_means_over_pairs_and_kinds():
    members = pd.DataFrame({
        "model": ["x", "y", "z"], "strategy": ["standard", "fgsm", "pgd"]})
    table = pd.DataFrame({
        "differs": ["strategy", "strategy", "strategy", "seed"],
        "a": ["x", "x", "y", "x"], "b": ["y", "y", "z", "z"],
        "kind": ["clean", "attacked", "clean", "clean"],
        "agreement": [0.5, 0.25, 0.75, 0.0]})
    for i, measure in enumerate(PAPER_MEASURES):
        table[measure] = [0.125 * i, 0.25, 0.5, 0.0]
    means = summaries.strategy_table(members, table)
    assert list(means.index) == ["standard and fgsm", "fgsm and pgd"]
    assert means["agreement, clean"].tolist() == [0.5, 0.75]
    assert means["agreement, attacked"].iloc[0] == 0.25
    assert np.isnan(means["agreement, attacked"].iloc[1])
    for i, measure in enumerate(PAPER_MEASURES):
        assert means[measure].tolist() == [(0.125 * i + 0.25) / 2, 0.5]
