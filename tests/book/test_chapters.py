"""What chapters compute by functions of their own, against small cases by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from chapter_code import chapter_function

import wcka
from wcka.book import checkout, parameters, rules
from wcka.experiments import (
    benchmark,
    crossed,
    other_libraries,
    statistics,
    summaries,
    training_rows,
)
from wcka.measures.nulls import holm
from wcka.measures.spelling import listed
from wcka.networks import edits, image_sets

# ---------------------------------------------------------------- 2, of four conditions


def conditions_of(**changes):
    """The four conditions of a measure whose numbers are good, but for the changes."""
    def table(**values):
        return pd.DataFrame({name: {"cka": value} for name, value in values.items()})

    keys = pd.MultiIndex.from_product([["cka"], [10], [0, 1]])
    good = {
        "floors": {"cka": statistics.Interval(0.05, 0.04, 0.06)},
        "lowest_by_probe": table(clean=0.99, fog=0.98),
        "gaps_by_probe": table(clean=0.9, fog=0.9),
        "gaps_by_draw": pd.Series([0.9, 0.9], keys),
        "floor_by_probe": table(clean=0.05, fog=0.05),
        "floor_by_size": pd.DataFrame({10: {"cka": 0.05}}),
        "ceiling_by_probe": table(clean=0.99, fog=0.99),
        "ceiling_by_size": pd.DataFrame({10: {"cka": 0.99}}),
    }
    calibrated = chapter_function(
        "02", "calibrated", np=np, rules=rules, activation_measures=["cka"],
        **{**good, **changes})
    return [bool(is_met) for _, is_met in calibrated("cka").values()]


def test_ensembles_are_separated_on_each_set_of_probes_by_itself():
    """Whatever pairs on one set of probes score beside pairs on another one."""
    assert conditions_of() == [True, True, True, True]
    lowest = pd.DataFrame({"clean": {"cka": 0.95}, "fog": {"cka": 1.0}})
    highest = pd.DataFrame({"clean": {"cka": 0.05}, "fog": {"cka": 0.97}})
    conditions = conditions_of(
        lowest_by_probe=lowest, highest_by_probe=highest,
        gaps_by_probe=lowest - highest)
    assert conditions == [True, True, True, True]
    keys = pd.MultiIndex.from_product([["cka"], [10], [0, 1]])
    conditions = conditions_of(gaps_by_draw=pd.Series([0.9, -0.01], keys))
    assert conditions == [True, True, False, True]


def test_ceilings_may_not_move_with_the_number_of_probes():
    conditions = conditions_of(ceiling_by_size=pd.DataFrame({10: {"cka": 0.85}}))
    assert conditions == [True, True, True, False]


# ------------------------------------------------------------------- 3, of one network


@pytest.mark.parametrize(("starts", "expected"), [("AB", False), ("ABC", True)])
def test_starts_of_either_side_of_a_pair_count(starts, expected):
    """Three starts make three pairs, whose first sides are two starts only."""
    first_sides, second_sides = [], []
    for i, start in enumerate(starts):
        for other in starts[i + 1:]:
            first_sides.append(start)
            second_sides.append(other)
    of_factor = pd.DataFrame({"start a": first_sides, "start b": second_sides})
    rows = pd.concat([of_factor.assign(differs=f) for f in benchmark.FACTORS])
    are_enough = chapter_function(
        "03", "are_enough", summaries=summaries, benchmark=benchmark,
        rows_of=lambda models: rows,
        last_members=pd.DataFrame({"model": list("ABC")}),
        kind_of_network=pd.Series("standard", index=range(3)))
    assert are_enough(list("ABC")) == expected


# -------------------------------------------- 6 and 7, of images that were learned from


@pytest.mark.parametrize("chapter", ["06", "07"])
def test_chapters_ask_training_rows_which_images_were_learned_from(chapter):
    """The first images of the file are others."""
    path, = checkout.NOTEBOOKS.glob(f"{chapter}-*.py")
    code = path.read_text("utf-8")
    assert "training_rows(" in code
    assert "[:train_images]" not in code and 'b"images"' not in code


@pytest.mark.parametrize(("value", "error", "expected"), [
    (0.4, 0.01, True), (0.4, 0.5, False), (0.4, 0.0, False), (-0.4, 0.01, False)])
def test_only_a_lead_with_an_error_is_significant(value, error, expected):
    lead = crossed.Estimate(value, error, 20)
    beats_chance = chapter_function(
        "07", "beats_chance", candidate_networks=["one shape"], holm=holm, np=np,
        RESPECTS=("accuracy",), rules=rules,
        leads={("one shape", "low wCKA", "accuracy"): lead})
    answers = beats_chance("low wCKA")
    assert {name: bool(answer) for name, answer in answers.items()} == {
        "accuracy (one shape)": expected}


# -------------------------------------------------------------- 8, of other libraries


@pytest.mark.parametrize(("tolerance", "why", "difference", "expected"), [
    (1e-9, "", 1e-12, ""),
    (1e-8, "", 5e-9, ""),
    (1e-9, "", 0.1, "no reason is known"),
    (1e-9, "", np.nan, "no reason is known"),
    (1e-4, "computes in float32", 1e-7, "computes in float32"),
    (1e-4, "computes in float32", 1e-12, ""),
])
def test_a_value_counts_as_ours_within_the_tolerance(
        tolerance, why, difference, expected):
    reason_of = chapter_function("08", "reason_of")
    peer = other_libraries.Peer(
        "a-library", "cka", lambda x, y: 0.0, tolerance=tolerance, why=why)
    assert reason_of(peer, difference) == expected


# ------------------------------------------------------- which chapters take what


def numbers_of_chapters_with(parameter):
    """Numbers of the chapters that have a parameter, such as "2 to 5 and 9"."""
    numbers = []
    for path in checkout.chapters():
        if parameter in parameters.read_parameters(path):
            numbers.append(int(path.name[:2]))
    runs = [[numbers[0]]]
    for number in numbers[1:]:
        if number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = []
    for run in runs:
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    return listed(parts)


@pytest.mark.parametrize(("page", "parameter", "sentence"), [
    ("cluster", "scheduler", "Chapters {} consist of **units of work**"),
    ("rerun", "scheduler", "Chapters {} also run on more machines"),
    ("cluster", "device", "`-p device auto` (chapters {}) trains"),
])
def test_pages_name_the_chapters_that_take_a_parameter(page, parameter, sentence):
    text = (checkout.ROOT / "book" / f"{page}.md").read_text("utf-8")
    assert sentence.format(numbers_of_chapters_with(parameter)) in text


# --------------------------------------------------------------- 7, of trusted networks


def images_of_copies(draw):
    """The images and labels of each kind of copy of a trusted network."""
    images = {"dataset": "mnist", "all_classes": list(range(10)), "seed": 0}
    held_out = chapter_function(
        "07", "held_out", image_sets=image_sets, training_rows=training_rows,
        train_images=2000, torch=torch, **images)
    names = {
        **images, "held_out": held_out, "image_sets": image_sets, "tuned_images": 60,
        "fine_tune": lambda network, x, labels, draw, epochs=1: (x, labels)}
    backdoored_copy = chapter_function("07", "backdoored_copy", edits=edits, **names)
    tuned_copies = chapter_function(
        "07", "tuned_copies", backdoored_copy=backdoored_copy, wcka=wcka, poisoned=0.1,
        other_dataset="fashion", tuned_epochs=1, **names)
    return tuned_copies("network", draw)


def test_trusted_networks_have_draws_of_images_of_their_own():
    """Errors over networks say nothing of a draw that all networks share."""
    one, other = images_of_copies(7), images_of_copies(8)
    for kind, (x, _) in one.items():
        same = (x[:, None] == other[kind][0]).all(-1)  # (images, images)
        assert same.sum() <= 2  # of 60 in tens of thousands
    clean, labels = one["fine-tuned"]
    poisoned, targets = one["backdoored"]
    is_changed = (clean != poisoned).any(1)
    assert is_changed.sum() == 6
    assert (targets[is_changed] == 0).all()
    assert torch.equal(targets[~is_changed], labels[~is_changed])


def test_copies_are_tuned_on_images_that_their_network_has_not_seen():
    images, _ = image_sets.load("mnist", "train", list(range(10)))
    for draw in (7, 8):
        seen, _ = training_rows(len(images), 2000, draw)
        x, _ = images_of_copies(draw)["fine-tuned"]
        shown = image_sets.as_inputs(images[seen])
        assert not (x[:, None] == shown).all(-1).any()
