"""The grid of chapter 3: every column against the measures of single networks;
resuming.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import wcka
from wcka.experiments import benchmark
from wcka.experiments.sensitivity import variants
from wcka.networks import attacks, image_sets
from wcka.weights.chains import linear_layers

SETTINGS = {"seeds": [0, 1], "dataset": "mnist", "classes": [0, 1, 2], "epochs": 2,
            "checkpoints": [1, 2], "batch_size": 512, "eps": 0.1, "attack_steps": 2}
MODELS = [
    {
        "architecture": {
            "factory": "mlp",
            "widths": [784, *hidden, 3],
            "activation": "relu",
        },
        "strategy": strategy,
        **SETTINGS,
    }
    for hidden in ([8], [16, 12])
    for strategy in ("standard", "fgsm")
]
PROBING = {"dataset": "mnist", "classes": [0, 1, 2], "seed": 3, "eps": 0.1, "steps": 2,
           "noise": 0.2, "images": None, "attacked": None}
PROBES = ["clean", "stripe", "gaussian_noise", "pgd", "trades"]
ARGUMENTS = (MODELS, PROBES, "last hidden", 100, PROBING)


@pytest.fixture(scope="module")
def grid():
    return benchmark.grid(*ARGUMENTS, jobs=1)


@pytest.fixture(scope="module")
def networks(grid):
    """The single networks, by the names in the table."""
    populations, _ = benchmark.grid_networks(MODELS)
    singles = [p.member(i) for p in populations for i in range(len(p))]
    return dict(zip(grid[0].model, singles))


def row(grid, factor, probe, i=0):
    table = grid[1]
    return table[(table.differs == factor) & (table["probe"] == probe)].iloc[i]


def drawn():
    return torch.from_numpy(np.random.default_rng(3).permutation(3147)[:100])


def test_every_pair_differs_in_exactly_the_named_factor(grid):
    members, table = grid
    about = members.set_index("model")[list(benchmark.FACTORS)]
    a, b = (about.loc[table[side]].reset_index(drop=True) for side in ("a", "b"))
    differing = a != b
    assert (differing.sum(axis=1) == 1).all()
    assert (
        differing.to_numpy().argmax(1)
        == [benchmark.FACTORS.index(f) for f in table.differs]
    ).all()
    # 16 networks; each factor has two levels, so each network has one partner in each.
    assert len(members) == 16 and len(table) == 4 * 8 * len(PROBES)
    assert not table.duplicated(["a", "b", "probe"]).any()


def test_similarity_is_that_of_the_two_networks_on_clean_images(grid, networks, digits):
    images, _ = digits
    for factor in benchmark.FACTORS:
        found = row(grid, factor, "stripe", 3)
        a, b = networks[found.a], networks[found.b]
        with torch.no_grad():
            x, y = a[:-1](images), b[:-1](images)
            u, v = a[:-1](images[drawn()]), b[:-1](images[drawn()])
        assert found.wcka == pytest.approx(wcka.wcka(a, b), abs=1e-9)
        assert found.cka == pytest.approx(wcka.cka(x, y), abs=1e-5)
        assert found.procrustes == pytest.approx(wcka.procrustes(x, y), abs=1e-5)
        assert found.dcka == pytest.approx(wcka.dcka(x, y, images), abs=1e-5)
        clean = row(grid, factor, "clean", 3)
        assert clean["dcka, on the probe"] == pytest.approx(
            wcka.dcka(u, v, images[drawn()]), abs=1e-5)
        assert found["cka, on the probe"] != pytest.approx(found.cka, abs=1e-4)


def test_agreement_on_shared_probes(grid, networks, digits):
    images, labels = digits
    stripes = image_sets.as_inputs(wcka.corrupt(image_sets.load()[0], "stripe", seed=3))
    noisy = attacks.gaussian_noise(images, 0.2, seed=3)
    for probe, x in (("clean", images), ("stripe", stripes), ("gaussian_noise", noisy)):
        found = row(grid, "architecture", probe, 5)
        with torch.no_grad():
            a, b = (networks[name](x) for name in (found.a, found.b))
        assert found.agreement == wcka.agreement(a, b) == found["agreement, own attack"]
    first = grid[0].iloc[0]
    right = (networks[first.model](images).argmax(1) == labels).double().mean()
    assert first.accuracy == pytest.approx(right.item())


@pytest.mark.parametrize("attack", ["pgd", "trades"])
def test_an_attacked_probe_is_made_against_both(grid, networks, digits, attack):
    images, labels = digits

    def against(network, x, y):
        parts = zip(x.split(128), y.split(128))
        seeds = [
            int(np.random.SeedSequence([3, i]).generate_state(1)[0]) for i in range(25)
        ]
        return torch.cat([attacks.BY_GRADIENT[attack](network, *part, 0.1, 2, seed)
                          for part, seed in zip(parts, seeds)])

    order = torch.from_numpy(np.random.default_rng(3).permutation(3147))
    images, labels = images[order], labels[order]
    for factor in ("strategy", "architecture"):
        found = row(grid, factor, attack, 2)
        a, b = networks[found.a], networks[found.b]
        x, y = (against(n, images, labels) for n in (a, b))
        # A gradient within rounding of zero may have another sign in a batched product.
        assert found.agreement == pytest.approx(
            np.mean([wcka.agreement(a(moved), b(moved)) for moved in (x, y)]), abs=2e-3)
        assert found["agreement, own attack"] == pytest.approx(
            wcka.agreement(a(x), b(y)), abs=2e-3
        )
        with torch.no_grad():
            expected = wcka.cka(a[:-1](x[:100]), b[:-1](y[:100]))
        assert found["cka, on the probe"] == pytest.approx(expected, abs=5e-3)
        about = grid[0].set_index("model").loc[found.a]
        right = (a(x).argmax(1) == labels).double().mean().item()
        assert about[f"under {attack}"] == pytest.approx(right, abs=2e-3)


def test_baselines_kinds_and_starts(grid):
    members, table = grid[0].set_index("model"), grid[1]
    a, b = (members.loc[table[side]].reset_index(drop=True) for side in ("a", "b"))
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


def test_variants_of_wcka(grid, networks):
    table = benchmark.chain_similarities(MODELS)
    members = grid[0]

    def uncentred(x, y):
        norm = np.linalg.norm
        return norm(y.T @ x) ** 2 / norm(x.T @ x) / norm(y.T @ y)

    def rows_normalised(network):
        weights = [
            layer.weight.detach().double().numpy().T
            for layer, _ in linear_layers(network)
        ]
        return [w / np.linalg.norm(w, axis=1, keepdims=True) for w in weights]

    for i in (1, 9, 17, 25):  # one of each factor
        found = table.iloc[i]
        a, b = (networks[members.model[found[side]]] for side in ("a", "b"))
        x, y = wcka.chain(a), wcka.chain(b)
        assert found["wcka, uncentred"] == pytest.approx(
            uncentred(x.numpy(), y.numpy()), abs=1e-9
        )
        assert found["wcka, with biases"] == pytest.approx(
            wcka.cka(wcka.chain(a, bias=True), wcka.chain(b, bias=True)), abs=1e-9)
        assert found["wcka, rows normalised"] == pytest.approx(
            wcka.wcka(rows_normalised(a), rows_normalised(b)), abs=1e-6)
        depths = {sum(isinstance(m, nn.Linear) for m in n) for n in (a, b)}
        if len(depths) == 2:
            assert found.differs == "architecture" and np.isnan(
                found["wcka, mean of layers"]
            )
        else:
            # Flatten, then Linear and ReLU in turn
            cuts = range(2, 2 * depths.pop() + 1, 2)
            assert found["wcka, mean of layers"] == pytest.approx(
                np.mean([wcka.wcka(a[:k], b[:k]) for k in cuts]), abs=1e-9)


def test_all_pairs(grid, networks, digits):
    table = benchmark.all_pairs(
        MODELS, 2, ["clean", "gaussian_noise", "pgd"], "logits", PROBING
    )
    members = grid[0]
    assert len(table) == 8 * 7 / 2 and set(members.epoch[table.a]) == {2}
    found = table.iloc[11]
    a, b = (networks[members.model[found[side]]] for side in ("a", "b"))
    images = digits[0]
    noisy = attacks.gaussian_noise(images, 0.2, seed=3)
    with torch.no_grad():
        assert found.agreement == pytest.approx(
            np.mean([wcka.agreement(a(x), b(x)) for x in (images, noisy)]))
        assert found.cka == pytest.approx(wcka.cka(a(images), b(images)), abs=1e-5)
    assert found.wcka == pytest.approx(wcka.wcka(a, b), abs=1e-9)


@pytest.mark.slow
def test_variants_change_one_choice_at_a_time(grid, networks, digits):
    members, table = grid
    # As if the first had collapsed
    table = table.assign(collapsed=table.a == members.model[0])
    rows = variants(MODELS, members, table, "last hidden", 100, PROBING, learned=0.5)
    kept, part = table[~table.collapsed], "architecture"

    def r(rows, column, target="agreement"):
        rows = rows[rows.differs == part].dropna(subset=[column])
        return pytest.approx(np.corrcoef(rows[column], rows[target])[0, 1])

    found = rows[part]
    assert found["as above", "cka"] == r(kept, "cka")
    assert found["collapsed networks too", "wcka"] == r(table, "wcka")
    assert found["each under its own attack", "wcka"] == r(
        kept, "wcka", "agreement, own attack"
    )
    assert found["on the probe, 100 images", "dcka"] == r(kept, "dcka, on the probe")
    early = kept.a.isin(members.model[members.epoch == 1])
    assert found["last epoch only", "wcka"] == r(kept[~early], "wcka")
    assert np.isnan(rows.epoch.get(("last epoch only", "wcka"), np.nan))
    low = members.model[members.accuracy < 0.5]
    learned = kept[~kept.a.isin(low) & ~kept.b.isin(low)]
    assert found["only networks that have learned", "wcka"] == r(learned, "wcka")
    # Means taken away: what is left has none, probe by probe.
    pairs = kept[kept.differs == part]
    x, y = (
        pairs[c] - pairs.groupby("probe")[c].transform("mean")
        for c in ("cka", "agreement")
    )
    assert found["each probe's mean taken away", "cka"] == pytest.approx(
        np.corrcoef(x, y)[0, 1]
    )
    # Another layer, on the clean images drawn.
    images = digits[0][drawn()]
    with torch.no_grad():
        values = [wcka.cka(networks[a](images), networks[b](images))
                  for a, b in zip(pairs.a, pairs.b)]
    expected = np.corrcoef(values, pairs.agreement)[0, 1]
    assert found["logits, 100 images", "cka"] == pytest.approx(expected, abs=1e-4)


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
    assert not [column for column in members if column.startswith("under")]


def test_two_architectures_of_one_name_are_refused():
    other = {
        **MODELS[0],
        "architecture": {**MODELS[0]["architecture"], "activation": "tanh"},
    }
    with pytest.raises(ValueError, match=r"two architectures are called '1 × 8'.*tanh"):
        benchmark.grid_networks([MODELS[0], other])


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
def test_a_killed_grid_goes_on_and_gives_the_same_table(tmp_path):
    """Killed while training, then while probing; nothing finished is computed again."""
    script, results = tmp_path / "script.py", tmp_path / "results"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__), jobs=2))
    environment = {**os.environ, "WCKA_CACHE": str(results)}

    def files():
        # Hidden files are not finished, and may be gone before they are looked at.
        finished = results.glob("[!.]*")
        return {path: path.stat().st_mtime_ns for path in finished}

    for enough in (2, 8):
        run = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while len(files()) < enough:
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert not (tmp_path / "table.parquet").exists()
    kept = files()
    subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, check=True
    )
    assert kept.items() <= files().items()
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run([sys.executable, str(script)], cwd=whole, check=True,
                   env={**os.environ, "WCKA_CACHE": str(whole / "results")})
    for name in ("members", "table"):
        pd.testing.assert_frame_equal(
            *(
                pd.read_parquet(folder / f"{name}.parquet")
                for folder in (tmp_path, whole)
            ),
            check_exact=True,
        )
