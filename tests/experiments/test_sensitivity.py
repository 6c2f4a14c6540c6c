"""What the paper leaves open, chosen otherwise: against single networks, one by one."""

import numpy as np
import pytest
import torch

import wcka
from wcka.experiments import benchmark, open_choices, other_trainings
from wcka.networks import attacks, image_sets

PROBES = ["clean", "gaussian_noise", "fgsm"]
PROBING = {"dataset": "mnist", "classes": [0, 1, 2], "seed": 3, "eps": 0.1, "steps": 2,
           "noise": 0.2, "images": None, "attacked": 60}
STRENGTHS = [0.1, 0.3]


def model(hidden):
    """Return the arguments of ``trained`` for one architecture."""
    return {
        "architecture": {
            "factory": "mlp",
            "widths": [784, *hidden, 3],
            "activation": "relu",
        },
        "strategy": "standard", "seeds": [0, 1, 2], "dataset": "mnist",
        "classes": [0, 1, 2], "epochs": 1, "batch_size": 256, "images": 1500,
    }


MODELS = [model([8]), model([12]), model([16])]


@pytest.fixture(scope="module")
def grid():
    return benchmark.grid(MODELS, PROBES, "last hidden", 100, PROBING, jobs=1)


@pytest.fixture(scope="module")
def chosen(grid):
    """Correlations and leads with each choice taken otherwise."""
    return open_choices(
        MODELS, *grid, "last hidden", 100, PROBING, STRENGTHS)


@pytest.fixture(scope="module")
def networks(grid):
    """The single networks, by the names in the table."""
    populations, _ = benchmark.grid_networks(MODELS)
    singles = []
    for population in populations:
        singles += [population.member(i) for i in range(len(population))]
    return dict(zip(grid[0].model, singles))


def rows_of(grid, factor):
    rows = grid[1]
    return rows[rows.differs == factor]


def r_of(values, targets):
    return pytest.approx(np.corrcoef(values, targets)[0, 1], abs=1e-6)


def test_architectures_are_left_out_in_turn(grid, chosen):
    r, leads = chosen
    seed_pairs = rows_of(grid, "seed")
    rest = seed_pairs[~seed_pairs.a.astype(str).str.startswith("1 × 12,")]
    assert len(rest) < len(seed_pairs)
    expected = r_of(rest.cka, rest.agreement)
    assert r.seed["without 1 × 12", "cka"] == expected
    lead = leads.loc[("without 1 × 12", "seed")]
    column = r.seed["without 1 × 12"]
    assert lead.value == pytest.approx(column.wcka - column.drop("wcka").max())
    assert r.seed["as above", "wcka"] == r_of(seed_pairs.wcka, seed_pairs.agreement)


def test_noise_is_drawn_anew(grid, chosen, networks, digits):
    rows = rows_of(grid, "seed")
    noisy = attacks.gaussian_noise(digits[0], 0.2, seed=4)
    agreements = []
    with torch.no_grad():
        for row in rows.itertuples():
            agreement = row.agreement
            if row.probe == "gaussian_noise":
                agreement = wcka.agreement(
                    networks[row.a](noisy), networks[row.b](noisy))
            agreements.append(agreement)
    expected = r_of(rows.wcka, agreements)
    assert chosen[0].seed["corruptions and noise drawn anew", "wcka"] == expected


@pytest.mark.parametrize("eps", STRENGTHS)
def test_attacks_have_other_strengths(grid, chosen, networks, digits, eps):
    rows = rows_of(grid, "seed")
    order = np.random.default_rng(3).permutation(3147)[:60]
    images, labels = digits[0][order], digits[1][order]
    agreements = []
    for row in rows.itertuples():
        agreement = row.agreement
        if row.probe == "fgsm":
            pair = [networks[row.a], networks[row.b]]
            shares = []
            for network in pair:
                attacked = attacks.fgsm(network, images, labels, eps)
                with torch.no_grad():
                    shares.append(wcka.agreement(*(one(attacked) for one in pair)))
            agreement = np.mean(shares)
        agreements.append(agreement)
    choice = f"attacks at eps {eps}, 60 images"
    assert chosen[0].seed[choice, "cka"] == r_of(rows.cka, agreements)


@pytest.mark.parametrize(("choice", "centred"), [
    ("Procrustes, not scaled", True), ("Procrustes, as printed", False)])
def test_procrustes_distances_depend_on_the_scale(
        grid, chosen, networks, choice, centred):
    rows = rows_of(grid, "architecture")
    images = image_sets.as_inputs(image_sets.load()[0])
    x = images[np.random.default_rng(3).permutation(3147)[:100]]
    activations = {}
    with torch.no_grad():
        for name, network in networks.items():
            values = network[:-1](x).double().numpy()
            activations[name] = values - values.mean(0) if centred else values
    similarities = []
    for row in rows.itertuples():
        a, b = activations[row.a], activations[row.b]
        nuclear = np.linalg.svd(a.T @ b, compute_uv=False).sum()
        similarities.append(2 * nuclear - (a**2).sum() - (b**2).sum())
    column = chosen[0].architecture[choice]
    assert list(column.index) == ["procrustes"]
    assert column.procrustes == r_of(similarities, rows.agreement)


def test_networks_are_trained_otherwise(grid):
    r, leads = other_trainings(
        MODELS, {"larger batches": {"batch_size": 512}}, PROBES, "last hidden", 100,
        PROBING, learned=0.0)
    rows = rows_of(grid, "seed")
    assert r.seed["as above", "wcka"] == r_of(rows.wcka, rows.agreement)
    changed = [{**model, "batch_size": 512} for model in MODELS]
    other = benchmark.grid(changed, PROBES, "last hidden", 100, PROBING, jobs=1)
    rows = rows_of(other, "seed")
    rows = rows[~rows.collapsed]
    assert r.seed["larger batches", "wcka"] == r_of(rows.wcka, rows.agreement)
    assert leads.index.unique(0).tolist() == ["as above", "larger batches"]
