"""Families of language models: their relatives, and scores by other formulas."""

import numpy as np
import pandas as pd
import pytest
import torch

import wcka
from wcka.experiments import language_families
from wcka.experiments.language_families import (
    RELATIVES,
    SCORES,
    family,
    lead_of_circuits,
    misordered_by_score,
    pair_scores,
    told_apart,
)

SIZES = {"tokens": 300, "width": 8, "depth": 2, "heads": 2, "units": 8}
FAMILIES = [
    {"text": text, "seed": seed, "sizes": SIZES, "steps": 4, "tuning": 2}
    for text in ("documentation", "code") for seed in range(2)]


def states_of(arguments):
    population = family(**arguments)
    states = {}
    for i, relative in enumerate(population.members.relative):
        states[relative] = {
            name: values[i].double() for name, values in population.state.items()}
    return states


def test_relatives_are_what_their_names_say():
    states = states_of(FAMILIES[0])
    assert tuple(states) == RELATIVES
    name = "model.layers.0.mlp.up_proj.weight"
    base = states["base"][name]
    assert (states["pruned by half"][name] == 0).double().mean() == 0.5
    zeros = (states["pruned to a fifth"][name] == 0).double().mean()
    assert zeros == pytest.approx(0.8, abs=0.02)
    kept = states["pruned to a fifth"][name] != 0
    assert torch.equal(states["pruned to a fifth"][name][kept], base[kept])
    for row in states["3 bits"][name]:
        assert len(row.abs().unique()) <= 4
    change = (states["8 bits"][name] - base).abs().max()
    assert 0 < change <= base.abs().max() / 127 / 2 + 1e-9
    both = [states["same text"][name], states["other text"][name]]
    torch.testing.assert_close(states["merged"][name], (both[0] + both[1]) / 2)


def test_merged_adapters_have_low_rank_and_touch_queries_and_values_only():
    states = states_of(FAMILIES[0])
    changed = []
    for name, values in states["LoRA"].items():
        difference = values - states["base"][name]
        if difference.abs().max() > 0:
            changed.append(name)
            assert torch.linalg.matrix_rank(difference, atol=1e-6) <= 4
    assert changed
    assert all("q_proj" in name or "v_proj" in name for name in changed)


def test_families_and_their_scores_leave_the_random_state_alone():
    state = torch.get_rng_state()
    family.__wrapped__("code", 7, SIZES, steps=2, tuning=1)
    assert torch.equal(torch.get_rng_state(), state)
    pair_scores.__wrapped__(FAMILIES[:2], hidden=True)
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_of_pairs_are_those_of_explicit_products():
    """The same numbers from matrices of tokens by tokens, written out."""
    pairs = pair_scores(FAMILIES, hidden=False)
    row = pairs[~pairs.is_kin].iloc[0]
    a = states_of(FAMILIES[0])["base"]
    b = states_of(FAMILIES[1])[row.relative]
    products, residuals = [], []
    for state in (a, b):
        embedding = state["model.embed_tokens.weight"].numpy()
        unembedding = (
            state["lm_head.weight"] * state["model.norm.weight"]).numpy().T
        of_state, stream = [], np.eye(8)
        for layer in range(2):
            prefix = f"model.layers.{layer}"
            read = state[f"{prefix}.input_layernorm.weight"].numpy()[:, None]
            read_mlp = state[f"{prefix}.post_attention_layernorm.weight"].numpy()
            query, key, value, out = (
                state[f"{prefix}.self_attn.{name}_proj.weight"].numpy().T
                for name in "qkvo")
            up, down = (state[f"{prefix}.mlp.{name}_proj.weight"].numpy().T
                        for name in ("up", "down"))
            moved = (read * value) @ out
            mlp = (read_mlp[:, None] * up) @ down
            for middle in ((read * query) @ (read * key).T, moved, mlp):
                of_state.append(embedding @ middle @ embedding.T)
            stream = stream @ (np.eye(8) + moved) @ (np.eye(8) + mlp)
        products.append(of_state)
        residuals.append(embedding @ stream @ unembedding)
    cosines = []
    for one, other in zip(*products):
        cosines.append(
            (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))
    assert row.products == pytest.approx(np.mean(cosines), abs=1e-9)
    assert row.residual == pytest.approx(wcka.cka(*residuals), abs=1e-9)


def test_a_disguise_moves_scores_of_weights_and_no_other():
    plain = pair_scores(FAMILIES, hidden=False)
    hidden = pair_scores(FAMILIES, hidden=True)
    for score in SCORES:
        change = (plain[score] - hidden[score]).abs().max()
        if score in ("cosine", "matched"):
            assert change > 0.1
        else:
            assert change < 0.01  # rounding in float32, of models that know little


def test_strangers_and_kin_are_counted_as_declared():
    pairs = pair_scores(FAMILIES, hidden=False)
    kin = pairs[pairs.is_kin]
    assert (kin.a == kin.b).all() and len(kin) == 4 * (len(RELATIVES) - 1)
    strangers = pairs[~pairs.is_kin]
    assert (strangers.a != strangers.b).all() and len(strangers) == 3 * 6
    assert strangers.one_text.sum() == 3 * 2
    assert np.isfinite(pairs[list(SCORES)].to_numpy(float)).all()


def by_hand(values, kin):
    names = [*"aabbab"]
    others = [*"aabbba"]
    pairs = pd.DataFrame({"a": names, "b": others, "is_kin": kin})
    return pairs.assign(**{score: values for score in SCORES})


def test_areas_and_shares_are_those_of_counting():
    kin = [True, True, True, True, False, False]
    pairs = by_hand([0.9, 0.4, 0.8, 0.6, 0.5, 0.1], kin)
    table = told_apart(pairs)
    assert table.auc["cosine"] == pytest.approx(7 / 8)
    assert table.found["cosine"] == pytest.approx(3 / 4)
    assert table["highest stranger"]["cosine"] == 0.5
    assert table["lowest kin"]["cosine"] == 0.4


def test_errors_leave_out_whole_families():
    a, b = np.triu_indices(5)
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame({"a": a, "b": b, "is_kin": a == b})
    pairs = pairs.assign(**{score: rng.random(len(a)) for score in SCORES})
    estimates = misordered_by_score(pairs)
    without = []
    for name in range(5):
        rest = pairs[(pairs.a != name) & (pairs.b != name)]
        without.append(1 - told_apart(rest).auc["cosine"])
    variance = 4 / 5 * ((np.array(without) - np.mean(without)) ** 2).sum()
    assert estimates["cosine"].error == pytest.approx(variance**0.5)
    assert estimates["cosine"].value == 1 - told_apart(pairs).auc["cosine"]
    assert lead_of_circuits(pairs)["circuits"].value == 0


def test_families_that_are_on_disk_are_not_trained_again(monkeypatch):
    language_families.train_families(FAMILIES, jobs=1)

    def refuse(*args, **kw):
        raise AssertionError("trained again")

    monkeypatch.setattr(language_families, "train", refuse)
    members = language_families.train_families(FAMILIES, jobs=1)
    assert len(members) == len(FAMILIES) * len(RELATIVES)
