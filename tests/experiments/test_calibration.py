"""Units of chapter 2: their numbers, and that a killed run goes on where it was."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from small_networks import ARCHITECTURE

import wcka
from wcka.experiments.calibration import ensemble_similarities
from wcka.experiments.jobs import run_jobs
from wcka.experiments.training_runs import trained
from wcka.measures.all_pairs import NO_PSD, PAPER_MEASURES
from wcka.networks import corruptions, image_sets
from wcka.networks.populations import initialise

RANDOM = {"architecture": ARCHITECTURE, "seeds": [0, 1, 2]}
TRAJECTORY = {"architecture": {**ARCHITECTURE, "widths": [784, 8, 3]}, "seeds": [4],
              "dataset": "mnist", "classes": [0, 1, 2], "epochs": 13,
              "checkpoints": list(range(14)), "batch_size": 512}


def unit(ensembles, layer=4, **changes):
    return ensemble_similarities(
        **{
            "ensembles": ensembles,
            "probe_name": "fog",
            "samples": 60,
            "draw": 1,
            "layer": layer,
            "measures": [*PAPER_MEASURES, NO_PSD],
            "dataset": "mnist",
            "classes": [0, 1, 2],
            "seed": 5,
            **changes,
        }
    )


@pytest.mark.slow
def test_all_pairs_are_the_measures_of_the_named_models_and_probes():
    table = unit({"random": RANDOM})
    images = corruptions.corrupt(image_sets.load()[0], "fog", seed=5)
    images = images[np.random.default_rng([5, 1]).permutation(len(images))[:60]]
    x = image_sets.as_inputs(images)
    a = initialise(ARCHITECTURE, [0]).member(0)
    b = initialise(ARCHITECTURE, [2]).member(0)
    with torch.no_grad():
        u, v = a[:-1](x), b[:-1](x)
    expected = {"procrustes": wcka.procrustes(u, v), "cka": wcka.cka(u, v),
                "dcka": wcka.dcka(u, v, x), NO_PSD: wcka.dcka(u, v, x, psd=False),
                "wcka": wcka.wcka(a, b)}
    pair = table[(table.a == 0) & (table.b == 2)].set_index("measure")
    assert pair.similarity.to_dict() == pytest.approx(expected, abs=1e-5)
    assert len(table) == 3 * 5
    assert set(table["samples"]) == {60} and set(table["probe"]) == {"fog"}


def test_consecutive_pairs_are_those_of_the_checkpoints_compared():
    table = unit({"late": {**TRAJECTORY, "compared": list(range(1, 14))}}, layer=1)
    late = trained(**TRAJECTORY)[1:]
    rows = table[table.measure == "wcka"]
    expected = []
    for i in range(12):
        expected.append(wcka.wcka(late.member(i), late.member(i + 1)))
    np.testing.assert_allclose(rows.similarity, expected, rtol=0, atol=1e-10)
    assert rows.a.tolist() == list(range(12)) and rows.b.tolist() == list(range(1, 13))


def test_run_stacks_units_in_order_from_other_processes_into_the_folder_of_this_one(
        tmp_path, monkeypatch):
    clean = {
        "ensembles": {"random": RANDOM},
        "probe_name": "clean",
        "samples": 20,
        "draw": 0,
        "layer": 4,
        "measures": ["cka"],
        "dataset": "mnist",
        "classes": [0, 1, 2],
    }
    stripe = {**clean, "probe_name": "stripe"}
    tables = []
    for name in ("one", "other"):  # the processes of the first run do the second, too
        monkeypatch.setenv("WCKA_CACHE", str(tmp_path / name))
        tables.append(run_jobs(ensemble_similarities, [stripe, clean], jobs=2))
        assert len(list((tmp_path / name).glob("ensemble_similarities-*"))) == 2
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert tables[0]["probe"].tolist() == ["stripe"] * 3 + ["clean"] * 3
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "alone"))
    alone = run_jobs(ensemble_similarities, [clean], jobs=1)
    np.testing.assert_allclose(
        tables[0].similarity[3:], alone.similarity, rtol=0, atol=1e-12)


SCRIPT = """
import time
import pandas as pd
from wcka.experiments import cache, jobs

@cache.cached
def slow(i):
    time.sleep(0.3)
    open(f"{i}.computed", "a").write("x")
    return pd.DataFrame({"i": [i], "square": [i * i]})

table = jobs.run_jobs(slow, [{"i": i} for i in range(8)], jobs=1)
table.to_csv("table.csv", index=False)
"""


def computations(folder):
    """Return how often each unit was computed, by the files that it wrote to."""
    counts = {}
    for path in folder.glob("*.computed"):
        counts[path.stem] = len(path.read_text())
    return counts


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    environment = {**os.environ, "WCKA_CACHE": str(tmp_path / "results")}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "results").glob("*.parquet"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len(computations(tmp_path)) < 8
    assert not (tmp_path / "table.csv").exists()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    counts = computations(tmp_path)
    # At most the one under way was repeated
    assert len(counts) == 8 and sum(counts.values()) <= 9
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.square.tolist() == [0, 1, 4, 9, 16, 25, 36, 49]
