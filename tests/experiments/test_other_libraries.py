"""The measures against other libraries, on the same arrays; those not installed are skipped."""

import pytest

import wcka
from wcka import cli
from wcka.experiments import other_libraries

FOUND, MISSING = other_libraries.available()


@pytest.fixture(scope="module")
def real(trained, digits):
    """Last hidden activations, without dead units, of two trained networks on 256 real digits."""
    activations = trained[[3, 4]].activations(digits[0][:256], 4).double()
    return [a[:, a.amax(0) > 0] for a in activations]


@pytest.mark.parametrize("peer", FOUND, ids=lambda p: f"{p.package} {p.measure}")
def test_values_are_those_of_the_peer(peer, real, digits):
    kw = {"dcka": {"inputs": digits[0][:256].double()}, "minibatch_cka": {"batch_size": 64}}
    kw = kw.get(peer.measure, {})
    given = peer.given([*real, real[0][:, :7]])
    theirs = peer.of_pair(*given[:2], **kw)
    assert getattr(wcka, peer.measure)(*real, **kw) == pytest.approx(theirs, abs=peer.tolerance)
    if peer.of_all:
        table = peer.of_all(given)
        assert table[0, 1] == pytest.approx(theirs, abs=1e-5)
        assert wcka.pairwise(peer.measure, [*real, real[0][:, :7]])[0, 2] == pytest.approx(
            table[0, 2], abs=peer.tolerance)
    assert (peer.tolerance > 1e-6) == bool(peer.why)  # a difference has a reason


def test_pwcca_is_the_peers_in_its_mean_of_both_directions(real):
    repsim = pytest.importorskip("repsim")
    both = wcka.pairwise("pwcca", real)
    found = repsim.pwcca([z.numpy() for z in real])[0, 1]
    assert (both + both.T)[0, 1] / 2 == pytest.approx(found, abs=1e-9)


def test_the_criterion_by_definition_is_the_peers_other_way(real):
    core = pytest.importorskip("ckatorch.core")
    assert wcka.cka(*real) == pytest.approx(float(core.cka_base(*real, method="hsic")), abs=1e-12)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(other_libraries._PACKAGES, "not-there", ("not_there", lambda module: []))
    found, missing = other_libraries.available()
    assert missing == [*MISSING, "not-there"] and len(found) == len(FOUND)


@pytest.mark.slow
def test_the_chapter_on_cost_does_without_any_of_them(tmp_path, monkeypatch):
    modules = {module.split(".")[0] for module, _ in other_libraries._PACKAGES.values()}
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({sorted(modules)}))\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    output = tmp_path / "out.ipynb"
    assert cli.main(["run", "08", "--profile", "smoke", "-o", str(output)]) == 0
    text = output.read_text()
    assert ", ".join(other_libraries._PACKAGES) in text and "not measured" in text
