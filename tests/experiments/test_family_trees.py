"""Trees of networks with known descent, and what scores of kinship find of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from wcka.experiments import family_trees
from wcka.experiments.family_trees import (
    DESCENTS,
    FIRST_LAYER,
    FURTHER,
    OTHER_TASK,
    PERMUTED,
    SCORES,
    all_kinship_scores,
    disguised,
    errors_over_roots,
    family_population,
    found_by_score,
    kinship_scores,
    lesson,
)
from wcka.experiments.matching import matched_cosine, matched_cosines
from wcka.networks import image_sets
from wcka.networks.training import train
from wcka.weights.forest import family_forest
from wcka.weights.kinship import find_families

DESIGN = {
    "children": 2, "hidden": [16, 16], "images": 2000, "epochs": 2,
    "tuned_images": 500, "tuned_epochs": 1, "seed": 5}
SIZE = 1 + 2 + 4  # networks of a tree
INVARIANT = ("Procrustes of layer 1", "CKA of layer 1", "wCKA", "cosine, matched")


@pytest.fixture(scope="module")
def table():
    return all_kinship_scores(jobs=1, **DESIGN)


# --------------------------------------------------------------------------- networks


def test_every_network_but_a_root_has_a_parent_in_its_tree():
    population = family_population(FURTHER, **DESIGN)
    members = population.members
    assert len(population) == 3 * SIZE
    assert members.generation.value_counts().to_dict() == {0: 3, 1: 6, 2: 12}
    roots = members[members.generation == 0]
    assert (roots.parent == -1).all() and roots.tree.tolist() == [0, 1, 2]
    descendants = members[members.generation > 0]
    parents = members.loc[descendants.parent]
    assert (parents.tree.to_numpy() == descendants.tree.to_numpy()).all()
    assert (parents.generation.to_numpy() == descendants.generation - 1).all()
    assert descendants.parent.value_counts().eq(2).all()


@pytest.mark.parametrize("descent", DESCENTS)
@pytest.mark.parametrize("position", [4, 7, 20])
def test_networks_descend_from_their_parents(descent, position):
    population = family_population(descent, **DESIGN)
    row = population.members.loc[position]
    x, labels = lesson(descent, row.child, "mnist", "fashion", DESIGN["tuned_images"],
                       seed=[DESIGN["seed"], row.generation, row.child])
    order_seed = family_trees._order_seed(DESIGN["seed"], row.generation, row.child)
    again = train(population[[row.parent]], x, labels, DESIGN["tuned_epochs"],
                  batch_size=64, seed=order_seed)
    for name, values in again.state.items():
        assert_allclose(values[0], population.state[name][position], atol=1e-4)


def test_no_two_networks_are_the_same():
    population = family_population(FURTHER, **DESIGN)
    weights = population.state["1.weight"].flatten(1)
    distances = torch.cdist(weights, weights)
    assert (distances + torch.eye(len(weights)) > 0.1).all()


def test_other_tasks_are_other_data_rotated_and_inverted_images():
    pictures, labels = image_sets.load("mnist", "train", None)
    x, digits = lesson(FURTHER, 1, "mnist", "fashion", 50, seed=[0])
    rotated, of_rotated = lesson(OTHER_TASK, 1, "mnist", "fashion", 50, seed=[0])
    inverted, _ = lesson(OTHER_TASK, 2, "mnist", "fashion", 50, seed=[0])
    other, _ = lesson(OTHER_TASK, 3, "mnist", "fashion", 50, seed=[0])
    rows = np.random.default_rng([0, *b"lesson"]).permutation(60000)[:50]
    rows = np.sort(rows)
    assert torch.equal(x, image_sets.as_inputs(pictures[rows]))
    assert digits.tolist() == of_rotated.tolist() == labels[rows].tolist()
    assert_allclose(inverted, 1 - x, atol=1e-6)
    assert_allclose(
        rotated.reshape(-1, 28, 28),
        torch.rot90(x.reshape(-1, 28, 28), dims=(1, 2)), atol=1e-6)
    fashion = image_sets.load("fashion", "train", None)[0]
    assert torch.equal(other, image_sets.as_inputs(fashion[rows]))


def test_labels_are_permuted_by_child():
    _, digits = lesson(FURTHER, 0, "mnist", "fashion", 500, seed=[0])
    permutations = []
    for child in (0, 1):
        _, labels = lesson(PERMUTED, child, "mnist", "fashion", 500, seed=[0, child])
        plain = lesson(FURTHER, child, "mnist", "fashion", 500, seed=[0, child])[1]
        pairs = set(zip(plain.tolist(), labels.tolist()))
        assert len(pairs) == len(set(plain.tolist())) == 10
        permutations.append(sorted(pairs))
    assert permutations[0] != permutations[1]
    assert set(digits.tolist()) == set(range(10))


@pytest.mark.parametrize(("changes", "reason"), [
    ({"descent": "further trainin"}, "further training"),
    ({"roots": 2}, "at least 3"), ({"children": 0}, "at least 1")])
def test_bad_designs_are_refused_before_any_work(changes, reason, monkeypatch):
    monkeypatch.setattr(family_trees, "trained", None)
    options = {"descent": FURTHER, **DESIGN, **changes}
    with pytest.raises(ValueError, match=reason):
        family_population(**options)
    descent = options.pop("descent")
    with pytest.raises(ValueError, match=reason):
        all_kinship_scores([descent], jobs=1, **options)


# ----------------------------------------------------------------------------- scores


def test_disguises_leave_the_function():
    network = family_population(FURTHER, **DESIGN).member(0)
    x = torch.rand(20, 784)
    hidden = disguised(network, 3)
    with torch.no_grad():
        assert_allclose(hidden(x), network(x), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(hidden[1].weight, network[1].weight)


def test_all_pairs_have_every_score_plain_and_disguised(table):
    pairs = 3 * SIZE * (3 * SIZE - 1) // 2
    assert len(table) == pairs * len(SCORES) * 2 * len(DESCENTS)
    one = table[(table.score == "wCKA") & (table.descent == FURTHER) & ~table.disguised]
    assert one.is_edge.sum() == 3 * (SIZE - 1)
    assert (one.tree_a == one.tree_b).sum() == 3 * SIZE * (SIZE - 1) // 2
    assert (one[one.is_edge].tree_a == one[one.is_edge].tree_b).all()
    assert table.value.notna().all()


def test_scores_see_through_the_disguise_or_do_not(table):
    columns = ["descent", "score", "a", "b"]
    wide = table.pivot(index=columns, columns="disguised", values="value")
    for name in SCORES:
        values = wide.xs(name, level="score")
        if name in INVARIANT:
            assert_allclose(values[False], values[True], atol=2e-5)
        else:
            assert np.abs(values[False] - values[True]).max() > 0.01


def test_matched_cosines_are_those_of_the_pairs():
    population = family_population(FURTHER, **DESIGN)
    networks = [population.member(i) for i in (0, 3, 1)]
    values = matched_cosines(networks)
    assert values[0, 1] == pytest.approx(matched_cosine(*networks[:2]), abs=1e-12)
    assert values[1, 2] == pytest.approx(matched_cosine(*networks[1:]), abs=1e-12)
    assert_allclose(values, values.T)


def test_small_families_are_told_from_strangers(table):
    card = found_by_score(table).set_index(["score", "disguised", "descent"])
    assert len(card) == len(SCORES) * 2 * len(DESCENTS)
    for descent in DESCENTS:
        for is_disguised in (False, True):
            row = card.loc[FIRST_LAYER, is_disguised, descent]
            assert row.auc > 0.95 and row.edges > 0.5
        assert card.auc["cosine of weights", False, descent] > 0.95
        assert card.auc["cosine of weights", True, descent] < 0.75
    assert (card.seconds > 0).all()
    assert (card[["auc_error", "edges_error"]] >= 0).all(axis=None)


def families_found(table):
    """What a forest from the scores of first layers joins, rightly and wrongly."""
    rows = []
    of_score = table[table.score == FIRST_LAYER]
    for keys, pairs in of_score.groupby(["descent", "disguised"], sort=False):
        a, b = pairs.a.to_numpy(), pairs.b.to_numpy()
        scores = np.zeros((b.max() + 1, b.max() + 1))
        scores[a, b] = scores[b, a] = pairs.value
        forest = family_forest(scores)
        is_joined = forest.labels[a] == forest.labels[b]
        is_kin = (pairs.tree_a == pairs.tree_b).to_numpy()
        rows.append({
            "descent": keys[0], "disguised": keys[1],
            "joined": is_joined[is_kin].mean(), "wrong": is_joined[~is_kin].mean(),
            "families": len(forest.families())})
    return pd.DataFrame(rows)


def test_the_forest_finds_the_trees(table):
    found = families_found(table).set_index(["descent", "disguised"])
    for is_disguised in (False, True):
        for descent in (FURTHER, PERMUTED):
            row = found.loc[descent, is_disguised]
            assert row.joined == 1 and row.wrong == 0 and row.families == 3
    assert (found.wrong == 0).all()


def test_the_command_finds_the_trees_in_files(tmp_path):
    population = family_population(FURTHER, **DESIGN)
    for i, row in population.members.iterrows():
        network = disguised(population.member(i), i)
        torch.save(network.state_dict(), tmp_path / f"tree{row.tree}-{i}.pt")
    result = find_families([str(tmp_path)])
    assert len(result["families"]) == 3
    for family in result["families"]:
        assert len({name.split("/")[-1][:5] for name in family}) == 1
        assert len(family) == SIZE


# --------------------------------------------------------------------- what they find


def by_hand():
    """Three trees of three networks: two have both edges, one has only one of them."""
    rows = []
    for a in range(9):
        for b in range(a + 1, 9):
            rows.append({"a": a, "b": b, "tree_a": a // 3, "tree_b": b // 3,
                         "is_edge": a // 3 == b // 3 and a % 3 == 0, "value": 0.1})
    pairs = pd.DataFrame(rows)
    pairs.loc[pairs.is_edge, "value"] = 0.9
    is_sibling = (pairs.tree_a == pairs.tree_b) & ~pairs.is_edge
    pairs.loc[is_sibling, "value"] = 0.5
    pairs.loc[is_sibling & (pairs.tree_a == 2), "value"] = 0.95
    return pairs


def test_edges_and_areas_by_hand():
    pairs = by_hand()
    auc, edges = errors_over_roots(pairs)
    assert auc.value == 1 and auc.error == 0
    assert edges.value == pytest.approx((1 + 1 + 0.5) / 3)
    # The standard error of a mean
    assert edges.error == pytest.approx(np.std([1, 1, 0.5], ddof=1) / 3**0.5)
    # One of the nine pairs of a tree is below one of the 27 pairs of strangers.
    pairs.loc[(pairs.a == 0) & (pairs.b == 1), "value"] = 0.2
    pairs.loc[(pairs.a == 0) & (pairs.b == 8), "value"] = 0.3
    auc, _ = errors_over_roots(pairs)
    assert auc.value == pytest.approx(1 - 1 / (9 * 27))
    # Only without tree 1 both are left: with 6 pairs of a tree and 9 of strangers.
    without_one = np.array([1, 1 - 1 / (6 * 9), 1])
    error = np.sqrt(2 / 3 * ((without_one - without_one.mean())**2).sum())
    assert auc.error == pytest.approx(error)


def test_errors_need_three_trees():
    pairs = by_hand()
    with pytest.raises(ValueError, match="at least 3 trees, got 2"):
        errors_over_roots(pairs[(pairs.tree_a < 2) & (pairs.tree_b < 2)])


def test_results_are_kept(table):
    for descent in DESCENTS:
        assert kinship_scores.kept(descent=descent, **DESIGN)
    again = all_kinship_scores(jobs=1, **DESIGN)
    pd.testing.assert_frame_equal(again, table)
