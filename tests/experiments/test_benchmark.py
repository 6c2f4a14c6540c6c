"""The grid of chapter 3: every column against measures of single networks; resuming."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

import wcka
from wcka.experiments import benchmark
from wcka.experiments.sensitivity import variants
from wcka.networks import attacks, image_sets
from wcka.weights.chains import linear_layers

SETTINGS = {"seeds": [0, 1], "dataset": "mnist", "classes": [0, 1, 2], "epochs": 2,
            "checkpoints": [1, 2], "batch_size": 512, "eps": 0.1, "attack_steps": 2}


def model(hidden, strategy):
    """Return the arguments of ``trained`` for one architecture and strategy."""
    return {
        "architecture": {
            "factory": "mlp",
            "widths": [784, *hidden, 3],
            "activation": "relu",
        },
        "strategy": strategy,
        **SETTINGS,
    }


MODELS = [model([8], "standard"), model([8], "fgsm"), model([16, 12], "standard"),
          model([16, 12], "fgsm")]
PROBING = {"dataset": "mnist", "classes": [0, 1, 2], "seed": 3, "eps": 0.1, "steps": 2,
           "noise": 0.2, "images": None, "attacked": None}
PROBES = ["clean", "stripe", "gaussian_noise", "pgd", "trades"]
ARGUMENTS = (MODELS, PROBES, "last hidden", 100, PROBING)


@pytest.fixture(scope="module")
def grid():
    return benchmark.grid(*ARGUMENTS, jobs=1)


def single_networks(models):
    """Return the networks of a grid one by one, in the order of its members."""
    populations, _ = benchmark.grid_networks(models)
    singles = []
    for population in populations:
        for i in range(len(population)):
            singles.append(population.member(i))
    return singles


@pytest.fixture(scope="module")
def networks(grid):
    """The single networks, by the names in the table."""
    return dict(zip(grid[0].model, single_networks(MODELS)))


def row_of(grid, factor, probe, i=0):
    """Return row `i` of the pairs that differ in a factor, on one probe."""
    table = grid[1]
    return table[(table.differs == factor) & (table["probe"] == probe)].iloc[i]


def drawn():
    return torch.from_numpy(np.random.default_rng(3).permutation(3147)[:100])


def columns_of_both(table, members):
    """Return the members' rows of the first and of the second network of each pair."""
    rows_a = members.loc[table.a].reset_index(drop=True)
    rows_b = members.loc[table.b].reset_index(drop=True)
    return rows_a, rows_b


def test_every_pair_differs_in_exactly_the_named_factor(grid):
    members, table = grid
    levels = members.set_index("model")[list(benchmark.FACTORS)]
    levels_a, levels_b = columns_of_both(table, levels)
    is_different = levels_a != levels_b
    assert (is_different.sum(axis=1) == 1).all()
    assert (is_different.idxmax(axis=1) == table.differs.astype(str)).all()
    # 16 networks; each factor has two levels, so each network has one partner in each.
    assert len(members) == 16 and len(table) == 4 * 8 * len(PROBES)
    assert not table.duplicated(["a", "b", "probe"]).any()


def test_similarity_is_that_of_the_two_networks_on_clean_images(grid, networks, digits):
    images, _ = digits
    drawn_images = images[drawn()]
    for factor in benchmark.FACTORS:
        row = row_of(grid, factor, "stripe", 3)
        a, b = networks[row.a], networks[row.b]
        with torch.no_grad():
            x, y = a[:-1](images), b[:-1](images)
            drawn_x, drawn_y = a[:-1](drawn_images), b[:-1](drawn_images)
        assert row.wcka == pytest.approx(wcka.wcka(a, b), abs=1e-9)
        assert row.cka == pytest.approx(wcka.cka(x, y), abs=1e-5)
        assert row.procrustes == pytest.approx(wcka.procrustes(x, y), abs=1e-5)
        assert row.dcka == pytest.approx(wcka.dcka(x, y, images), abs=1e-5)
        expected = wcka.dcka(drawn_x, drawn_y, drawn_images)
        clean = row_of(grid, factor, "clean", 3)
        assert clean["dcka, on the probe"] == pytest.approx(expected, abs=1e-5)
        assert row["cka, on the probe"] != pytest.approx(row.cka, abs=1e-4)


def test_agreement_on_shared_probes(grid, networks, digits):
    images, labels = digits
    stripes = image_sets.as_inputs(wcka.corrupt(image_sets.load()[0], "stripe", seed=3))
    noisy = attacks.gaussian_noise(images, 0.2, seed=3)
    for probe, x in (("clean", images), ("stripe", stripes), ("gaussian_noise", noisy)):
        row = row_of(grid, "architecture", probe, 5)
        with torch.no_grad():
            expected = wcka.agreement(networks[row.a](x), networks[row.b](x))
        assert row.agreement == expected == row["agreement, own attack"]
    first = grid[0].iloc[0]
    expected = accuracy(networks[first.model](images), labels)
    assert first.accuracy == pytest.approx(expected)


def accuracy(logits, labels):
    return (logits.argmax(1) == labels).double().mean().item()


def attacked_by(attack, network, images, labels):
    """Return images attacked in batches of 128, each batch with a seed of its own."""
    batches = []
    for i, (x, y) in enumerate(zip(images.split(128), labels.split(128))):
        seed = int(np.random.SeedSequence([3, i]).generate_state(1)[0])
        batches.append(attacks.BY_GRADIENT[attack](network, x, y, 0.1, 2, seed))
    return torch.cat(batches)


@pytest.mark.parametrize("attack", ["pgd", "trades"])
def test_an_attacked_probe_is_made_against_both(grid, networks, digits, attack):
    order = torch.from_numpy(np.random.default_rng(3).permutation(3147))
    images, labels = digits[0][order], digits[1][order]
    for factor in ("strategy", "architecture"):
        row = row_of(grid, factor, attack, 2)
        a, b = networks[row.a], networks[row.b]
        x = attacked_by(attack, a, images, labels)
        y = attacked_by(attack, b, images, labels)
        # A gradient within rounding of zero may have another sign in a batched product.
        expected = (wcka.agreement(a(x), b(x)) + wcka.agreement(a(y), b(y))) / 2
        assert row.agreement == pytest.approx(expected, abs=2e-3)
        expected = wcka.agreement(a(x), b(y))
        assert row["agreement, own attack"] == pytest.approx(expected, abs=2e-3)
        with torch.no_grad():
            expected = wcka.cka(a[:-1](x[:100]), b[:-1](y[:100]))
        assert row["cka, on the probe"] == pytest.approx(expected, abs=5e-3)
        member = grid[0].set_index("model").loc[row.a]
        expected = accuracy(a(x), labels)
        assert member[f"under {attack}"] == pytest.approx(expected, abs=2e-3)


def test_baselines_kinds_and_starts(grid):
    members, table = grid[0].set_index("model"), grid[1]
    a, b = columns_of_both(table, members)
    np.testing.assert_allclose(table["accuracy gap"], -(a.accuracy - b.accuracy).abs())
    assert (table["start a"] == a.architecture + ", seed " + a.seed.astype(str)).all()
    assert (table.collapsed == (a.collapsed | b.collapsed)).all()
    clean = table[table["probe"] == "clean"].set_index(["a", "b"]).agreement
    expected = clean.loc[list(zip(table.a, table.b))]
    np.testing.assert_array_equal(table["clean agreement"], expected)
    assert dict(zip(table["probe"], table.kind)) == {
        "clean": "clean",
        "stripe": "corrupted",
        "gaussian_noise": "attacked",
        "pgd": "attacked",
        "trades": "attacked",
    }


def uncentred(x, y):
    """Return CKA by its formula, without centring."""
    norm = np.linalg.norm
    return norm(y.T @ x) ** 2 / norm(x.T @ x) / norm(y.T @ y)


def rows_normalised(network):
    """Return a network's weights (in, out), layer by layer, with rows of norm 1."""
    matrices = []
    for layer, _ in linear_layers(network):
        weight = layer.weight.detach().double().numpy().T  # (in, out)
        matrices.append(weight / np.linalg.norm(weight, axis=1, keepdims=True))
    return matrices


def mean_of_layers(a, b):
    """Return the mean wCKA of layers, or NaN for two networks of different depth."""
    depth = len(linear_layers(a))
    if depth != len(linear_layers(b)):
        return np.nan
    values = []
    # Flatten, then Linear and ReLU in turn
    for stop in range(2, 2 * depth + 1, 2):
        values.append(wcka.wcka(a[:stop], b[:stop]))
    return np.mean(values)


def test_variants_of_wcka(grid, networks):
    table = benchmark.chain_similarities(MODELS)
    names = grid[0].model
    different_depths = 0
    for i in (1, 9, 17, 25):  # one of each factor
        row = table.iloc[i]
        a, b = networks[names[row.a]], networks[names[row.b]]
        expected = uncentred(wcka.chain(a).numpy(), wcka.chain(b).numpy())
        assert row["wcka, uncentred"] == pytest.approx(expected, abs=1e-9)
        expected = wcka.cka(wcka.chain(a, bias=True), wcka.chain(b, bias=True))
        assert row["wcka, with biases"] == pytest.approx(expected, abs=1e-9)
        expected = wcka.wcka(rows_normalised(a), rows_normalised(b))
        assert row["wcka, rows normalised"] == pytest.approx(expected, abs=1e-6)
        expected = mean_of_layers(a, b)
        assert row["wcka, mean of layers"] == pytest.approx(
            expected, abs=1e-9, nan_ok=True)
        if np.isnan(expected):
            assert row.differs == "architecture"
            different_depths += 1
    assert different_depths == 1


def test_all_pairs(grid, networks, digits):
    table = benchmark.all_pairs(
        MODELS, 2, ["clean", "gaussian_noise", "pgd"], "logits", PROBING
    )
    members = grid[0]
    assert len(table) == 8 * 7 / 2 and set(members.epoch[table.a]) == {2}
    row = table.iloc[11]
    a, b = networks[members.model[row.a]], networks[members.model[row.b]]
    images = digits[0]
    noisy = attacks.gaussian_noise(images, 0.2, seed=3)
    with torch.no_grad():
        clean_agreement = wcka.agreement(a(images), b(images))
        noisy_agreement = wcka.agreement(a(noisy), b(noisy))
        cka = wcka.cka(a(images), b(images))
    assert row.agreement == pytest.approx((clean_agreement + noisy_agreement) / 2)
    assert row.cka == pytest.approx(cka, abs=1e-5)
    assert row.wcka == pytest.approx(wcka.wcka(a, b), abs=1e-9)


def approximate_r(rows, column, target="agreement"):
    """Return the correlation over pairs of different architecture, approximately."""
    pairs = rows[rows.differs == "architecture"].dropna(subset=[column])
    return pytest.approx(np.corrcoef(pairs[column], pairs[target])[0, 1])


@pytest.mark.slow
def test_variants_change_one_choice_at_a_time(grid, networks, digits):
    members, table = grid
    # As if the first had collapsed
    table = table.assign(collapsed=table.a == members.model[0])
    rows, leads = variants(
        MODELS, members, table, "last hidden", 100, PROBING, learned=0.5)
    r = rows["architecture"]
    alive = table[~table.collapsed]
    assert r["all that have not collapsed", "wcka"] == approximate_r(alive, "wcka")
    poor = members.model[members.accuracy < 0.5]
    intact = alive[~alive.a.isin(poor) & ~alive.b.isin(poor)]
    assert r["as above", "cka"] == approximate_r(intact, "cka")
    assert r["collapsed networks too", "wcka"] == approximate_r(table, "wcka")
    expected = approximate_r(intact, "wcka", "agreement, own attack")
    assert r["each under its own attack", "wcka"] == expected
    expected = approximate_r(intact, "dcka, on the probe")
    assert r["on the probe, 100 images", "dcka"] == expected
    is_early = intact.a.isin(members.model[members.epoch == 1])
    assert r["last epoch only", "wcka"] == approximate_r(intact[~is_early], "wcka")
    assert np.isnan(rows.epoch.get(("last epoch only", "wcka"), np.nan))
    # The lead over the strongest rival: what the choice does not change is as above.
    lead = leads.loc[("logits, 100 images", "architecture")]
    others = r["logits, 100 images"]
    assert lead.rival == others.idxmax()
    assert lead.value == pytest.approx(r["as above", "wcka"] - others.max())
    assert lead.low < lead.value < lead.high
    lead = leads.loc[("with biases", "architecture")]
    highest = r["as above"].drop("wcka").max()
    assert lead.value == pytest.approx(r["with biases", "wcka"] - highest)
    # Without the means of each probe, correlations are within probes.
    pairs = intact[intact.differs == "architecture"]
    columns = ["cka", "agreement"]
    deviations = pairs[columns] - pairs.groupby("probe")[columns].transform("mean")
    expected = np.corrcoef(deviations.cka, deviations.agreement)[0, 1]
    assert r["each probe's mean taken away", "cka"] == pytest.approx(expected)
    # Another layer, on the clean images drawn
    images = digits[0][drawn()]
    values = []
    with torch.no_grad():
        for a, b in zip(pairs.a, pairs.b):
            values.append(wcka.cka(networks[a](images), networks[b](images)))
    expected = np.corrcoef(values, pairs.agreement)[0, 1]
    assert r["logits, 100 images", "cka"] == pytest.approx(expected, abs=1e-4)


def test_without_attacks(grid):
    probes = ["clean", "stripe"]
    members, table = benchmark.grid(MODELS, probes, "last hidden", 100, PROBING, jobs=1)
    expected = grid[1][grid[1]["probe"].isin(probes)]
    order = ["differs", "a", "b", "probe"]
    pd.testing.assert_frame_equal(
        table.sort_values(order, ignore_index=True),
        expected.sort_values(order, ignore_index=True),
        check_like=True,
    )
    assert not members.columns.str.startswith("under").any()


def test_two_architectures_of_one_name_are_refused():
    architecture = {**MODELS[0]["architecture"], "activation": "tanh"}
    model_with_tanh = {**MODELS[0], "architecture": architecture}
    with pytest.raises(ValueError, match=r"two architectures are called '1 × 8'.*tanh"):
        benchmark.grid_networks([MODELS[0], model_with_tanh])


@pytest.mark.parametrize("wrong_grid, message", [
    ((["pdg"], "logits", [1], 4), "did you mean 'pgd'"),
    ((["pgd"], "last", [1], 4), "did you mean 'last hidden'"),
    ((["pgd"], "logits", [0, 1], 4), "wanted epochs from 1 to 4"),
    ((["pgd"], "logits", [5], 4), "wanted epochs from 1 to 4"),
])
def test_grids(wrong_grid, message):
    benchmark.check_grid(["standard", "pgd"], "logits", [1, 4], 4)
    with pytest.raises(ValueError, match=message):
        benchmark.check_grid(*wrong_grid)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_benchmark import ARGUMENTS
from wcka.experiments import benchmark
members, table = benchmark.grid(*ARGUMENTS, jobs={jobs})
members.to_parquet("members.parquet")
table.to_parquet("table.parquet")
"""


@pytest.mark.slow
def test_a_killed_grid_goes_on_and_gives_the_same_table(tmp_path, grid):
    """Killed while training, then while probing; nothing finished is computed again."""
    script = tmp_path / "script.py"
    results = tmp_path / "results"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__), jobs=2))
    command = [sys.executable, str(script)]
    environment = {**os.environ, "WCKA_CACHE": str(results)}

    def times_of_files():
        # Hidden files are not finished, and may be gone before they are looked at.
        times = {}
        for path in results.glob("[!.]*"):
            times[path] = path.stat().st_mtime_ns
        return times

    for enough in (2, 8):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, start_new_session=True)
        deadline = time.monotonic() + 120
        while len(times_of_files()) < enough:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "table.parquet").exists()
    finished = times_of_files()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert finished.items() <= times_of_files().items()
    for name, undisturbed in zip(("members", "table"), grid):
        undisturbed.to_parquet(tmp_path / f"{name}-undisturbed.parquet")
        resumed = pd.read_parquet(tmp_path / f"{name}.parquet")
        expected = pd.read_parquet(tmp_path / f"{name}-undisturbed.parquet")
        pd.testing.assert_frame_equal(resumed, expected, check_exact=True)
