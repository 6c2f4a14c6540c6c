"""The measures against the other libraries that are installed, on the same arrays."""

import math
import subprocess
import sys

import pytest
from memory_of_calls import peak_memory

import wcka
from wcka import cli
from wcka.experiments import other_libraries

PEERS, MISSING = other_libraries.available()


@pytest.fixture(scope="module")
def real(trained, digits):
    """Last hidden activations on 256 digits of two networks, without dead units."""
    activations = trained[[3, 4]].activations(digits[0][:256], 4).double()
    return [a[:, a.amax(0) > 0] for a in activations]  # (256, live units)


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: f"{p.package} {p.measure}")
def test_values_are_those_of_the_peer(peer, real, digits):
    kw = {}
    if peer.measure == "dcka":
        kw["inputs"] = digits[0][:256].double()
    if peer.measure == "minibatch_cka":
        kw["batch_size"] = 64
    features = [*real, real[0][:, :7]]
    peer_features = peer.given(features)
    peer_value = peer.of_pair(*peer_features[:2], **kw)
    value = getattr(wcka, peer.measure)(*real, **kw)
    assert value == pytest.approx(peer_value, abs=peer.tolerance)
    if peer.of_all:
        peer_table = peer.of_all(peer_features)
        table = wcka.pairwise(peer.measure, features)
        assert peer_table[0, 1] == pytest.approx(peer_value, abs=1e-5)
        assert table[0, 2] == pytest.approx(peer_table[0, 2], abs=peer.tolerance)
    assert (peer.tolerance > 1e-6) == bool(peer.why)  # a difference has a reason


def test_pwcca_is_the_peers_in_its_mean_of_both_directions(real):
    repsim = pytest.importorskip("repsim")
    directed = wcka.pairwise("pwcca", real)
    expected = repsim.pwcca([features.numpy() for features in real])[0, 1]
    assert (directed + directed.T)[0, 1] / 2 == pytest.approx(expected, abs=1e-9)


def test_the_criterion_by_definition_is_the_peers_other_way(real):
    core = pytest.importorskip("ckatorch.core")
    expected = float(core.cka_base(*real, method="hsic"))
    assert wcka.cka(*real) == pytest.approx(expected, abs=1e-12)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(
        other_libraries._PACKAGES, "not-there", ("not_there", lambda module: []))
    peers, missing = other_libraries.available()
    assert missing == [*MISSING, "not-there"] and len(peers) == len(PEERS)


def test_systems_without_a_count_of_resources_can_import_it():
    """Python has no module `resource` on Windows."""
    code = ("import sys; sys.modules['resource'] = None; "
            "import wcka.experiments.other_libraries")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_the_chapter_on_cost_does_without_any_of_them(tmp_path, monkeypatch):
    modules = set()
    for module, _ in other_libraries._PACKAGES.values():
        modules.add(module.split(".")[0])
    # None in sys.modules is an ImportError for whoever imports it.
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({sorted(modules)}))\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    output = tmp_path / "out.ipynb"
    assert cli.main(["run", "08", "--profile", "smoke", "-o", str(output)]) == 0
    text = output.read_text()
    assert ", ".join(other_libraries._PACKAGES) in text
    assert "No other library is installed here." in text


@pytest.mark.slow
def test_peak_memory_grows_with_the_features_and_is_nan_where_a_call_fails():
    small = peak_memory("wcka", "cka", 2, 2000, 20)
    large = peak_memory("wcka", "cka", 2, 200_000, 100)
    features = 2 * 200_000 * 100 * 8 / 1e9  # of both in float64, in GB
    assert 0 <= small < large and features / 4 < large < 10 * features
    assert math.isnan(peak_memory("not-there", "cka", 2, 10, 2))
