"""Similarities of consecutive checkpoints: which pairs, and by which measures."""

import numpy as np
import pytest
import torch

import wcka
from wcka.experiments.calibration import ensemble_similarities
from wcka.experiments.training_runs import trained
from wcka.experiments.trajectories import consecutive_similarities
from wcka.measures.all_pairs import NO_PSD, PAPER_MEASURES
from wcka.networks import corruptions, image_sets

TRAJECTORIES = {
    "architecture": {"factory": "mlp", "widths": [784, 6, 3], "activation": "relu"},
    "seeds": [4, 5], "dataset": "mnist", "classes": [0, 1, 2], "epochs": 6,
    "checkpoints": [0, 1, 2, 4, 5, 6], "batch_size": 2048}


def similarities(**changes):
    options = {
        "trajectories": TRAJECTORIES, "followed": [4, 5],
        "epochs": TRAJECTORIES["checkpoints"], "probe_name": "stripe", "samples": 60,
        "draw": 1, "layer": 1, "measures": [*PAPER_MEASURES, NO_PSD],
        "dataset": "mnist", "classes": [0, 1, 2], "seed": 5}
    return consecutive_similarities(**{**options, **changes})


def test_pairs_are_consecutive_epochs_of_one_network_on_the_named_probes():
    table = similarities()
    images = corruptions.corrupt(image_sets.load()[0], "stripe", seed=5)
    images = images[np.random.default_rng([5, 1]).permutation(len(images))[:60]]
    x = image_sets.as_inputs(images)
    population = trained(**TRAJECTORIES)
    checkpoints = {}
    for i, member in population.members.iterrows():
        checkpoints[member.seed, member.epoch] = population.member(i)
    for run in (4, 5):
        for epoch in (1, 2, 5, 6):  # 4 has no checkpoint before it
            a, b = checkpoints[run, epoch - 1], checkpoints[run, epoch]
            with torch.no_grad():
                u, v = a[:-1](x), b[:-1](x)
            expected = {
                "procrustes": wcka.procrustes(u, v), "cka": wcka.cka(u, v),
                "dcka": wcka.dcka(u, v, x), NO_PSD: wcka.dcka(u, v, x, psd=False),
                "wcka": wcka.wcka(a, b)}
            pair = table[(table.run == run) & (table.epoch == epoch)]
            pair = pair.set_index("measure").similarity
            assert pair.to_dict() == pytest.approx(expected, abs=1e-5)
    assert len(table) == 2 * 4 * 5
    assert set(table["samples"]) == {60} and set(table["probe"]) == {"stripe"}


def test_draws_are_those_of_the_other_ensembles():
    """The same images, so that both ensembles of one draw can be compared."""
    one = {**TRAJECTORIES, "seeds": [4]}
    options = {"probe_name": "clean", "samples": 30, "draw": 2, "layer": 1,
               "measures": ["cka"], "dataset": "mnist", "classes": [0, 1, 2], "seed": 3}
    expected = ensemble_similarities(
        ensembles={"adjacent": {**one, "compared": [4, 5, 6]}}, **options)
    table = similarities(
        trajectories=one, followed=[4], epochs=[4, 5, 6], **options)
    np.testing.assert_allclose(
        table.similarity, expected.similarity, rtol=0, atol=1e-12)


def test_epochs_that_do_not_follow_each_other_are_refused():
    with pytest.raises(ValueError, match=r"follow each other, got \[0, 4\]"):
        similarities(epochs=[0, 4])
