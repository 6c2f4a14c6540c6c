"""Families among networks: trees by hand, scores that disguises leave, the command."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from PIL import Image
from safetensors.torch import save_file
from scipy import stats
from torch import nn
from transformer_models import llama, weights_of

import wcka
from wcka.cli import main
from wcka.networks import architectures
from wcka.weights import kinship, symmetry
from wcka.weights.comparison import compare_files
from wcka.weights.forest import (
    LEVEL,
    against_other_strangers,
    family_forest,
    spanning_edges,
)
from wcka.weights.kinship import (
    described_families,
    find_families,
    first_layer_similarities,
    normalised_units,
)
from wcka.weights.strangers import language_model_scores

WIDTHS = (40, 12, 12, 3)


def table_of(count, scores, others=0.1):
    """Return a table of scores (count, count) with those of some pairs."""
    table = np.full((count, count), others)
    np.fill_diagonal(table, 1)
    for (a, b), score in scores.items():
        table[a, b] = table[b, a] = score
    return table


def noisy_strangers(count, seed=0, mean=0.3, spread=0.01):
    """Return scores of networks that have nothing to do with each other."""
    noise = np.random.default_rng(seed).normal(mean, spread, (count, count))
    scores = np.triu(noise, 1)
    return scores + scores.T + np.eye(count)


def with_family(scores, members, score=0.9):
    """Return scores in which some networks are kin."""
    scores = scores.copy()
    scores[np.ix_(members, members)] = score
    np.fill_diagonal(scores, 1)
    return scores


# ------------------------------------------------------------------------------- trees


def test_a_tree_by_hand():
    # A chain 2 - 0 - 3, with 1 below 3; the other pairs are weaker than each link.
    scores = table_of(4, {(0, 2): 0.9, (0, 3): 0.8, (1, 3): 0.7, (2, 3): 0.6})
    assert spanning_edges(scores) == [(0, 2), (0, 3), (1, 3)]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 9), st.integers(0, 10**6))
def test_the_tree_is_that_of_kruskal(count, seed):
    rng = np.random.default_rng(seed)
    scores = np.triu(rng.integers(0, 5, (count, count)) / 5, 1)  # with many ties
    scores = scores + scores.T
    component = list(range(count))
    total = 0
    a, b = np.triu_indices(count, 1)
    for k in np.argsort(-scores[a, b], kind="stable"):
        one, other = component[a[k]], component[b[k]]
        if one != other:
            total += scores[a[k], b[k]]
            component = [one if label == other else label for label in component]
    edges = spanning_edges(scores)
    assert len(edges) == count - 1
    assert sum(scores[edge] for edge in edges) == pytest.approx(total)


@pytest.mark.parametrize("scores", [
    np.ones((2, 3)), np.array([[1, 0.5], [0.4, 1]]), np.array([[1, np.nan], [0.4, 1]])])
def test_tables_that_are_none_of_pairs_are_refused(scores):
    with pytest.raises(ValueError, match="scores: wanted"):
        family_forest(scores)


def test_scores_above_one_and_single_networks_are_refused():
    with pytest.raises(ValueError, match="at most 1"):
        family_forest(table_of(3, {(0, 1): 1.5}))
    with pytest.raises(ValueError, match="at least two"):
        family_forest(np.ones((1, 1)))


# ---------------------------------------------------------------------------- families


def test_families_are_told_from_strangers():
    scores = with_family(noisy_strangers(9), [0, 4, 7])
    scores = with_family(scores, [1, 2], 0.8)
    forest = family_forest(scores)
    assert forest.families() == [[0, 4, 7], [1, 2]]
    assert forest.alone() == [3, 5, 6, 8]
    assert len(forest.edges) == 9 - 6
    assert [edge.score for edge in forest.edges] == [0.9, 0.9, 0.8]
    assert all(edge.p < LEVEL for edge in forest.edges)
    assert not forest.undecided


def test_p_is_that_of_students_t_with_the_number_of_networks():
    """Of single networks and one kin pair, written out."""
    count = 8
    scores = with_family(noisy_strangers(count), [0, 1])
    z = np.arctanh(np.clip(scores, -1, 1 - 1e-12))
    a, b = np.triu_indices(count, 1)
    by_families = {}  # the two networks of the pair are one family
    for i, j in zip(a, b):
        if (i, j) != (0, 1):
            by_families.setdefault((max(i, 1), j), []).append(z[i, j])
    means = np.array([np.mean(values) for values in by_families.values()])
    deviations = [np.subtract(values, np.mean(values))
                  for values in by_families.values()]
    repeated = sum(len(values) - 1 for values in by_families.values())
    within = np.square(np.concatenate(deviations)).sum() / repeated
    between = means.var(ddof=1)
    variance = between + within
    families = count - 1
    degrees = variance**2 / (between**2 / (families - 1) + within**2 / 1)
    t = (np.arctanh(0.9) - means.mean()) / np.sqrt(variance * (1 + 1 / families))
    edge, = family_forest(scores).edges
    assert edge.p == pytest.approx(stats.t.sf(t, degrees) * len(a), rel=1e-9)


def test_strangers_are_no_family():
    false_alarms = 0
    for seed in range(200):
        forest = family_forest(noisy_strangers(5 + seed % 20, seed))
        false_alarms += bool(forest.families()) and not forest.undecided
    assert false_alarms <= 4  # 1 % of 200, and two spreads


def test_networks_that_are_all_alike_do_not_stand_out():
    forest = family_forest(noisy_strangers(8, mean=0.95, spread=0.001))
    assert not forest.families() and not forest.undecided
    assert len(forest.strangers) == 28


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_networks_have_a_tree_and_no_families(count):
    forest = family_forest(with_family(noisy_strangers(count), [0, 1]))
    assert "too few" in forest.undecided
    assert len(forest.edges) == count - 1
    assert all(np.isnan(edge.p) for edge in forest.edges)
    assert not forest.families() and not forest.alone() and not len(forest.strangers)


def test_families_among_few_strangers_have_no_p():
    forest = family_forest(with_family(noisy_strangers(5), [0, 1]))
    assert forest.families() == [[0, 1]]
    assert "9 pairs of different families" in forest.undecided
    assert np.isnan(forest.edges[0].p)


def test_four_or_five_strangers_are_too_few_to_say_that_no_pair_stands_out():
    for count in (4, 5):
        forest = family_forest(noisy_strangers(count))
        assert "too few" in forest.undecided and not forest.families()
    assert not family_forest(noisy_strangers(6)).undecided


def test_two_groups_have_no_p():
    scores = with_family(noisy_strangers(8), [0, 1, 2, 3])
    scores = with_family(scores, [4, 5, 6, 7])
    forest = family_forest(scores)
    assert "so few families" in forest.undecided
    assert forest.families() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert all(np.isnan(edge.p) for edge in forest.edges)


def test_tasks_look_like_families_among_networks_for_other_tasks():
    """What the rule cannot tell, and the command says."""
    scores = 0.4 * noisy_strangers(16)
    for task in range(4):
        members = np.arange(4 * task, 4 * task + 4)
        scores[np.ix_(members, members)] = noisy_strangers(4, task, mean=0.7)
    np.fill_diagonal(scores, 1)
    assert len(family_forest(scores).families()) == 4


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(9)))
def test_the_order_of_networks_does_not_matter(order):
    scores = with_family(noisy_strangers(9), [0, 4, 7])
    scores = with_family(scores, [1, 2], 0.8)
    forest = family_forest(scores[np.ix_(order, order)])
    families = [sorted(order[i] for i in members) for members in forest.families()]
    assert families == [[0, 4, 7], [1, 2]]


# ----------------------------------------------------------------------------- scores


def network(seed, widths=WIDTHS):
    torch.manual_seed(seed)
    return architectures.mlp(widths).double()


def first_layer(model):
    linear = next(module for module in model if isinstance(module, nn.Linear))
    return linear.weight.detach().T


def test_the_score_is_procrustes_of_units_of_norm_1():
    matrices = [first_layer(network(seed)) for seed in range(3)]
    units = [values / values.norm(dim=0) for values in matrices]
    expected = wcka.pairwise("procrustes", units)
    assert_allclose(first_layer_similarities(matrices), expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_the_score_does_not_change_under_permutation_and_rescaling(seed):
    one, other = network(0), network(1)
    hidden = symmetry.rescale(symmetry.permute(other, seed), seed)
    x = torch.rand(5, 40, dtype=torch.float64)
    assert_allclose(hidden(x).detach(), other(x).detach(), rtol=0, atol=1e-10)
    plain, disguised, copy = first_layer_similarities(
        [first_layer(one), first_layer(other), first_layer(hidden)])[0]
    assert plain == 1
    assert disguised == pytest.approx(copy, abs=1e-10)


def test_the_score_changes_when_inputs_are_rotated():
    layer = first_layer(network(0))
    rotation = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64))[0]
    assert first_layer_similarities([layer, rotation @ layer])[0, 1] < 0.9


def test_units_without_weights_stay_zero():
    layer = first_layer(network(0)).clone()
    layer[:, 0] = 0
    assert not normalised_units(layer)[:, 0].any()
    assert np.isfinite(first_layer_similarities([layer, layer + 1])).all()


def test_random_directions_keep_copies_and_the_order_of_kin():
    base = torch.randn(60, 50, dtype=torch.float64)
    child = base + 0.2 * torch.randn(60, 50, dtype=torch.float64)
    stranger = torch.randn(60, 50, dtype=torch.float64)
    copy = 3 * base[:, torch.randperm(50)]
    layers = [base, copy, child, stranger]
    scores = first_layer_similarities(layers, directions=20)[0]
    assert scores[1] == pytest.approx(1, abs=1e-10)
    assert scores[1] > scores[2] > scores[3]
    all_directions = first_layer_similarities(layers, directions=50)
    assert_allclose(
        all_directions, first_layer_similarities(layers), rtol=0, atol=1e-15)


# ------------------------------------------------------------------------------- files


def perturbed(state, seed, size=0.1):
    """Return weights with a little noise, as a child has them."""
    generator = torch.Generator().manual_seed(seed)
    child = {}
    for name, values in state.items():
        noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
        child[name] = values + size * values.std() * noise
    return child


@pytest.fixture
def folder(tmp_path):
    """A network with two children, of which one is disguised, and three strangers."""
    place = tmp_path / "networks"
    place.mkdir()
    root = network(0)
    torch.save(root.state_dict(), place / "root.pt")
    child = network(0)
    child.load_state_dict(perturbed(root.state_dict(), 1))
    hidden = symmetry.rescale(symmetry.permute(child, 5), 5)
    torch.save(child.state_dict(), place / "child.pt")
    torch.save(hidden.state_dict(), place / "hidden.pt")
    for seed in (1, 2, 3):
        torch.save(network(seed).state_dict(), place / f"stranger{seed}.pt")
    return place


def test_a_family_in_a_folder(folder):
    result = find_families([str(folder)])
    family, = result["families"]
    assert sorted(name.rsplit("/", 1)[1] for name in family) == [
        "child.pt", "hidden.pt", "root.pt"]
    # The disguised child is a copy of the plain one.
    first = result["edges"][0]
    assert first["score"] == pytest.approx(1, abs=1e-9)
    assert {first["a"][-9:], first["b"][-9:]} == {"/child.pt", "hidden.pt"}
    assert result["strangers"]["count"] == 15 - 3
    assert result["strangers"]["max"] < result["edges"][-1]["score"]
    assert len(result["alone"]) == 3


def test_the_command_prints_json_with_its_keys(folder, capsys):
    assert main(["family", str(folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == [
        "schema", "files", "left out", "assumed", "score", "scores", "families",
        "alone", "edges", "strangers", "undecided", "seconds"]
    assert result["schema"] == kinship.SCHEMA == 2
    assert np.shape(result["scores"]) == (6, 6)
    assert set(result["edges"][0]) == {"a", "b", "score", "p"}
    assert set(result["strangers"]) == {"of", "count", "mean", "max"}
    assert result["strangers"]["of"] == "folder"
    assert result["undecided"] == ""


def test_the_command_prints_a_tree(folder, capsys):
    assert main(["family", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 files: one family of 3"
    assert lines[1] == "family of 3:"
    assert "-- " in lines[3] and " p " in lines[3]
    (alone,) = [line for line in lines if line.startswith("no kin found")]
    result = find_families([str(folder)])
    scores = np.array(result["scores"])
    for name in ("stranger1.pt", "stranger2.pt", "stranger3.pt"):
        (i,) = [k for k, path in enumerate(result["files"]) if path.endswith(name)]
        nearest = np.delete(scores[i], i).max()
        assert f"{name} (nearest " in alone and f"{nearest:.4f})" in alone
    assert any(line.startswith("strangers: 12 pairs") for line in lines)
    assert any("which of two networks comes from the other" in line for line in lines)
    assert any("where tasks differ" in line for line in lines)


def test_the_command_draws_all_pairs(folder, tmp_path):
    image = tmp_path / "pairs.png"
    assert main(["family", str(folder), "--matrix", str(image)]) == 0
    assert Image.open(image).size[0] > 100


def test_files_that_do_not_fit_are_left_out(folder, capsys):
    torch.save(network(9, (30, 12, 3)).state_dict(), folder / "narrow.pt")
    (folder / "damaged.pt").write_bytes(b"no checkpoint")
    constant = network(8).state_dict()
    constant["1.weight"] = torch.ones_like(constant["1.weight"])
    torch.save(constant, folder / "constant.pt")
    assert main(["family", str(folder)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("6 files: one family of 3")
    for reason in ("left out narrow.pt: takes 30 inputs", "left out damaged.pt: ",
                   "left out constant.pt: 1.weight weighs all inputs alike"):
        assert reason in text


def test_small_folders_have_a_tree_and_no_p(folder, capsys):
    for seed in (1, 2, 3):
        (folder / f"stranger{seed}.pt").unlink()
    assert main(["family", str(folder)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("3 files, kinship undecided: 3 networks are too few")
    assert "`-- " in text and "  p " not in text
    assert "the book has none for first layers" in text
    assert main(["family", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["edges"][0]["p"] is None


def test_a_folder_of_strangers_says_so(tmp_path, capsys):
    for seed in range(6):
        torch.save(network(seed).state_dict(), tmp_path / f"{seed}.pt")
    assert main(["family", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("6 files: no pair stands out")
    assert "strangers: 15 pairs" in text and "family of" not in text


def answer(sizes, undecided="", strangers="folder"):
    names = [f"{i}.pt" for i in range(12)]
    families = []
    edges = []
    for size in sizes:
        start = sum(map(len, families))
        family = names[start:start + size]
        families.append(family)
        for other in family[1:]:
            edges.append({"a": family[0], "b": other, "score": 0.9, "p": 1e-4})
    result = {
        "files": names, "left out": {}, "assumed": [], "score": kinship.PROCRUSTES,
        "scores": np.eye(12).tolist(), "families": families, "alone": [],
        "edges": edges,
        "strangers": {"of": strangers, "count": 1, "mean": 0.1, "max": 0.1},
        "undecided": undecided, "seconds": 0.0}
    return described_families(result).splitlines()[0]


def test_the_first_line_reads_well_for_none_one_and_several():
    assert answer([]) == ("12 files: no pair stands out from the others, so that none "
                          "of the networks are kin, or all are")
    assert answer([3]) == "12 files: one family of 3"
    assert answer([5, 2]) == "12 files: 2 families of 5 and 2"
    assert answer([5, 3, 2]) == "12 files: 3 families of 5, 3 and 2"
    assert answer([4, 4], "why") == "12 files: perhaps 2 families of 4 and 4, but why"
    assert answer([], "why") == "12 files, kinship undecided: why"
    assert answer([], "why", "book") == (
        "12 files, kinship undecided: why; p is against strangers of the book")


def test_notes_that_many_files_share_are_one_line(tmp_path, capsys):
    for seed in range(6):
        state = {f"model.{name}": values
                 for name, values in network(seed).state_dict().items()}
        torch.save(state, tmp_path / f"{seed}.pt")
    assert main(["family", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    notes = [line for line in lines if "'model.' at the start" in line]
    assert notes == ["0.pt, 1.pt, 2.pt, 3.pt and 2 more: "
                     "'model.' at the start of names is dropped"]


def test_many_large_layers_are_compared_in_fewer_directions(folder, monkeypatch):
    exact = find_families([str(folder)])
    monkeypatch.setattr(kinship, "_MOST_WORK", 15 * 12**3 - 1)
    monkeypatch.setattr(kinship, "_LEAST_DIRECTIONS", 8)
    fewer = find_families([str(folder)])
    assert "11 random directions of their 40 inputs" in fewer["assumed"][-1]
    assert "random directions" not in " ".join(exact["assumed"])
    assert fewer["families"] == exact["families"]


def test_square_matrices_need_the_layout(tmp_path, capsys):
    for seed in range(3):
        torch.manual_seed(seed)
        layers = [nn.Linear(4, 4, bias=False) for _ in range(2)]
        torch.save(nn.Sequential(*layers).state_dict(), tmp_path / f"{seed}.pt")
    assert main(["family", str(tmp_path)]) == 2
    assert "say --stored out-in" in capsys.readouterr().err
    assert main(["family", str(tmp_path), "--stored", "out-in"]) == 0


@pytest.mark.parametrize(("name", "reason"), [
    ("nowhere", "no such folder"), ("file.pt", "not a folder")])
def test_what_is_no_folder_is_refused_before_any_work(tmp_path, name, reason):
    (tmp_path / "file.pt").write_bytes(b"")
    code = ("import sys; from wcka.cli import main; status = main(sys.argv[1:]); "
            "print(status, bool({'torch', 'numpy'} & set(sys.modules)))")
    process = subprocess.run(
        [sys.executable, "-c", code, "family", str(tmp_path / name)],
        capture_output=True, text=True)
    assert process.stdout.split() == ["2", "False"]
    assert reason in process.stderr


def test_a_bad_image_is_refused_first(folder, capsys):
    assert main(["family", str(folder), "--matrix", "pairs.nonsense"]) == 2
    assert capsys.readouterr().out == ""


def test_a_folder_without_checkpoints_is_refused(tmp_path, capsys):
    assert main(["family", str(tmp_path)]) == 2
    assert "no checkpoint in this folder" in capsys.readouterr().err


# ------------------------------------------------------------------------- transformers


def save_transformers(folder, **networks):
    """Write folders of transformers: pairs of weights and configuration."""
    for name, (weights, config) in networks.items():
        place = folder / name
        place.mkdir()
        stored = {key: values.contiguous() for key, values in weights.items()}
        save_file(stored, place / "model.safetensors")
        (place / "config.json").write_text(json.dumps(config), "utf-8")


def language_model(seed, child=0):
    """A llama, or its child with a little noise."""
    weights, config = llama(seed, tokens=60, depth=2)
    if child:
        weights = perturbed(weights, child)
    return weights, {**config, "model_type": "llama"}


def test_transformers_are_scored_by_the_median_of_their_circuits(tmp_path):
    save_transformers(
        tmp_path, root=language_model(0), child=language_model(0, 1),
        a=language_model(1), b=language_model(2), c=language_model(3),
        d=language_model(4))
    result = find_families([str(tmp_path)])
    assert result["score"] == kinship.CIRCUITS
    expected = compare_files([str(tmp_path)])["all"]["wcka"]
    assert_allclose(result["scores"], expected, rtol=0, atol=1e-12)
    family, = result["families"]
    assert sorted(name.rsplit("/", 1)[1] for name in family) == ["child", "root"]
    assert result["strangers"]["of"] == "folder"


def test_two_language_models_are_held_against_strangers_of_the_book(tmp_path, capsys):
    save_transformers(tmp_path, root=language_model(0), child=language_model(0, 1))
    result = find_families([str(tmp_path)])
    others = language_model_scores()
    expected = {"of": "book", "count": len(others), "mean": others.mean(),
                "max": others.max()}
    assert result["strangers"] == pytest.approx(expected)
    edge, = result["edges"]
    assert edge["p"] < 0.001
    # The folder itself decides nothing.
    assert not result["families"] and "too few" in result["undecided"]
    assert main(["family", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    first, *_ = text.splitlines()
    assert first.endswith("; p is against strangers of the book")
    assert f"{len(others)} pairs of small language models from the book" in text
    assert "models that learned more may have more in common" in text
    assert " p " in text


def test_two_strangers_do_not_stand_out_from_those_of_the_book(tmp_path):
    """Random weights of one kind have less in common than trained models."""
    save_transformers(tmp_path, a=language_model(1), b=language_model(2))
    result = find_families([str(tmp_path)])
    assert result["edges"][0]["p"] > LEVEL


@pytest.mark.parametrize("model_type", ["bert", "vit"])
def test_other_transformers_have_no_strangers_in_the_book(tmp_path, model_type):
    weights, config = weights_of(model_type)
    child = perturbed(weights, 1)
    save_transformers(tmp_path, root=(weights, config), child=(child, config))
    result = find_families([str(tmp_path)])
    assert np.isnan(result["edges"][0]["p"])
    assert result["strangers"]["of"] == "folder" and not result["strangers"]["count"]


def test_p_against_other_strangers_is_that_of_one_more_kind():
    """A prediction by Student's t on the scale of Fisher's z, times the pairs left."""
    others = np.array([0.05, 0.1, 0.12, 0.2])
    scores = with_family(noisy_strangers(3), [0, 1])
    forest = against_other_strangers(family_forest(scores), scores, others)
    z = np.arctanh(others)
    spread = z.std(ddof=1) * np.sqrt(1 + 1 / 4)
    p = [stats.t.sf((np.arctanh(edge.score) - z.mean()) / spread, 3)
         for edge in forest.edges]
    # Three pairs before the first merge, and two after it.
    expected = [min(3 * p[0], 1), max(min(2 * p[1], 1), min(3 * p[0], 1))]
    assert [edge.p for edge in forest.edges] == pytest.approx(expected)
    assert forest.undecided and not forest.families()


def test_p_against_other_strangers_is_as_small_as_it_says():
    """Scores that are drawn from the same kinds have p below 5 % in 5 % of cases."""
    rng = np.random.default_rng(0)
    scores = np.tanh(rng.normal(0.1, 0.05, (2000, 9)))
    below = 0
    for score, *others in scores:
        table = table_of(2, {(0, 1): score})
        forest = against_other_strangers(
            family_forest(table), table, np.array(others))
        below += forest.edges[0].p < 0.05
    assert below / len(scores) == pytest.approx(0.05, abs=0.015)


def test_too_few_other_strangers_are_refused():
    scores = table_of(2, {(0, 1): 0.9})
    with pytest.raises(ValueError, match="at least 3 strangers, got 2"):
        against_other_strangers(family_forest(scores), scores, np.array([0.1, 0.2]))


def test_a_forest_without_edges_keeps_none():
    scores = noisy_strangers(8)
    forest = against_other_strangers(family_forest(scores), scores, np.full(3, 0.1))
    assert forest.edges == [] and len(forest.strangers) == 3
