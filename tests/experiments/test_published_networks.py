"""Published networks: chains by autograd, packages that are there and that are not."""

from importlib import metadata

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

import wcka
from wcka.experiments import published_networks as published

WIDTH = 4


# ---------------------------------------------------------- two packages, made by hand


def crystal_state(seed, norms=True):
    """Weights as CHGNet names them, of two layers, with optimisers beside them."""
    torch.manual_seed(seed)
    state = {"atom_embedding.embedding.weight": torch.randn(7, WIDTH)}
    for layer in range(2):
        prefix = f"atom_conv_layers.{layer}."
        core = f"{prefix}twoBody_atom.mlp_core.layers"
        state[f"{core}.0.weight"] = torch.randn(WIDTH, 3 * WIDTH)
        state[f"{core}.0.bias"] = torch.randn(WIDTH)
        state[f"{core}.3.weight"] = torch.randn(WIDTH, WIDTH)
        if norms:
            state[f"{prefix}twoBody_atom.bn1.weight"] = torch.rand(WIDTH)
        state[f"{prefix}mlp_out.layers.1.weight"] = torch.randn(WIDTH, WIDTH)
    if norms:
        state["readout_norm.weight"] = torch.rand(WIDTH)
    return state


def protein_state(seed):
    """Weights as LigandMPNN names them."""
    torch.manual_seed(seed)
    return {"features.edge_embedding.weight": torch.randn(WIDTH, 9),
            "features.norm_edges.weight": torch.rand(WIDTH),
            "W_e.weight": torch.randn(WIDTH, WIDTH)}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Both packages, with small networks and nothing that could be imported."""
    for package, version in (("chgnet", "7.0"), ("ligandmpnn", "8.1")):
        info = tmp_path / f"{package}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        (info / "METADATA").write_text(text, "utf-8")
        package_folder = tmp_path / package
        package_folder.mkdir()
        (package_folder / "__init__.py").write_text("raise ImportError", "utf-8")
    parent = crystal_state(0)
    child = {name: values + 0.01 * values.std() for name, values in parent.items()}
    crystals = {
        "0.3.0": parent, "r2scan": child, "0.2.0": crystal_state(1, norms=False)}
    for name, state in crystals.items():
        folder = tmp_path / "chgnet" / "pretrained" / name
        folder.mkdir(parents=True)
        torch.save({"model": {"state_dict": state}, "optimizer": {"lr": 0.1}},
                   folder / f"{name}.pth.tar")
    folder = tmp_path / "ligandmpnn" / "data" / "model_params"
    folder.mkdir(parents=True)
    names = ("ligandmpnn_v_32_005_25", "proteinmpnn_v_48_020", "ligandmpnn_sc_v_32_002")
    for seed, name in enumerate(names):
        torch.save({"num_edges": 32, "model_state_dict": protein_state(seed)},
                   folder / f"{name}.pt")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def absent(monkeypatch):
    """No package at all."""
    def refuse(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "distribution", refuse)


def test_installed_packages_are_read_and_not_imported(installed):
    assert published.missing() == []
    table = published.similarities()
    assert published.origin(table) == (
        "The similarities are computed from the files of chgnet 7.0 and ligandmpnn "
        "8.1.")
    assert table.groupby("package").version.first().to_dict() == {
        "chgnet": "7.0", "ligandmpnn": "8.1"}
    assert table.groupby("package").inputs.first().tolist() == [7, 9]
    pairs = table.set_index(["a", "b"])
    assert list(pairs.index) == [
        ("0.2.0", "0.3.0"), ("0.2.0", "r2scan"), ("0.3.0", "r2scan"),
        ("ligandmpnn_v_32_005_25", "proteinmpnn_v_48_020")]
    matrices = [
        published.edge_matrices(protein_state(seed)) for seed in (0, 1)]
    assert pairs.wcka.iloc[-1] == pytest.approx(wcka.wcka(*matrices), abs=1e-12)
    assert pairs.cosine["0.3.0", "r2scan"] > 0.99


def test_the_cosine_is_of_matrices_that_both_networks_have(installed):
    table = published.computed("chgnet").set_index(["a", "b"])
    a, b = crystal_state(1, norms=False), crystal_state(0)
    names = [name for name, values in a.items() if values.ndim == 2]
    one = torch.cat([a[name].flatten() for name in names])
    other = torch.cat([b[name].flatten() for name in names])
    cosine = torch.cosine_similarity(one, other, dim=0)
    assert table.cosine["0.2.0", "0.3.0"] == pytest.approx(float(cosine), abs=1e-6)


def test_what_is_missing_is_taken_from_the_record(absent):
    assert published.missing() == ["chgnet", "ligandmpnn"]
    recorded = pd.read_csv(published.RECORD)
    table = published.similarities()
    pd.testing.assert_frame_equal(table[recorded.columns], recorded)
    text = published.origin(table)
    assert text.startswith("The similarities are those that a run with chgnet ")
    assert "(chgnet and ligandmpnn: not installed here; make wild fetches" in text
    with pytest.raises(ModuleNotFoundError, match="chgnet is not installed"):
        published.computed("chgnet")


def test_one_package_may_be_missing(installed, monkeypatch):
    found = metadata.distribution

    def only_chgnet(package):
        if package != "chgnet":
            raise metadata.PackageNotFoundError(package)
        return found(package)

    monkeypatch.setattr(metadata, "distribution", only_chgnet)
    assert published.missing() == ["ligandmpnn"]
    table = published.similarities()
    text = published.origin(table)
    assert "kept, and computed from the files of chgnet 7.0 (ligandmpnn: not" in text
    versions = table.groupby("package").version.first()
    assert versions["chgnet"] == "7.0" and versions["ligandmpnn"] != "8.1"


def test_the_history_is_what_the_authors_document(absent):
    table = published.similarities()
    assert table.wcka.between(0, 1).all() and table.cosine.between(-1, 1).all()
    assert table[table.is_kin][["a", "b"]].to_numpy().tolist() == [["0.3.0", "r2scan"]]
    crystals = table[table.package == "chgnet"]
    assert len(crystals) == 3 and crystals.noise.isna().all()
    proteins = table[table.package == "ligandmpnn"]
    names = sorted({*proteins.a, *proteins.b})
    assert len(proteins) == len(names) * (len(names) - 1) / 2
    noises = {published.model_and_noise(name)[1] for name in names}
    assert noises == {0.02, 0.05, 0.1, 0.2, 0.3}
    # Three models at four levels of noise each, and two at one level.
    assert proteins.one_model.sum() == 3 * 6
    pairs = proteins.set_index(["a", "b"]).noise
    assert pairs["ligandmpnn_v_32_005_25", "proteinmpnn_v_48_030"] == 0.25


@pytest.mark.parametrize("package", published.SOURCES)
def test_the_record_is_what_the_packages_give(package):
    if package in published.missing():
        pytest.skip(f"{package} is not installed: make wild")
    recorded = pd.read_csv(published.RECORD)
    recorded = recorded[recorded.package == package].reset_index(drop=True)
    if metadata.version(package) != recorded.version[0]:
        pytest.skip(f"the record is of {package} {recorded.version[0]}")
    pd.testing.assert_frame_equal(published.computed(package), recorded, atol=1e-5)


# ------------------------------------------------------------------ chains by autograd


def without_division(units, gain):
    """A layer norm that does not divide by the spread."""
    return (units - units.mean(-1, keepdim=True)) * gain


@pytest.mark.parametrize("norms", [True, False])
def test_the_chain_of_elements_is_the_derivative_of_the_stream(norms):
    """The stream of an atom without bonds and neighbours, activations taken out."""
    state = {name: values.double() for name, values in crystal_state(3, norms).items()}

    def stream(element):
        units = element @ state["atom_embedding.embedding.weight"]
        nothing = torch.zeros_like(units)
        for layer in range(2):
            prefix = f"atom_conv_layers.{layer}."
            core = f"{prefix}twoBody_atom.mlp_core.layers"
            message = torch.cat([units, nothing, nothing])
            message = nn.functional.linear(message, state[f"{core}.0.weight"])
            message = nn.functional.linear(message, state[f"{core}.3.weight"])
            if norms:
                message = without_division(
                    message, state[f"{prefix}twoBody_atom.bn1.weight"])
            units = units + nn.functional.linear(
                message, state[f"{prefix}mlp_out.layers.1.weight"])
        if norms:
            units = without_division(units, state["readout_norm.weight"])
        return units

    derivative = jacobian(stream, torch.zeros(7, dtype=torch.float64)).T
    product = wcka.chain(published.element_matrices(state))
    ratio = product / derivative
    np.testing.assert_allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-9)


def test_the_chain_of_edges_is_the_derivative_of_their_embedding():
    state = {name: values.double() for name, values in protein_state(3).items()}

    def stream(edge):
        units = nn.functional.linear(edge, state["features.edge_embedding.weight"])
        units = without_division(units, state["features.norm_edges.weight"])
        return nn.functional.linear(units, state["W_e.weight"])

    derivative = jacobian(stream, torch.zeros(9, dtype=torch.float64)).T
    product = wcka.chain(published.edge_matrices(state))
    ratio = product / derivative
    np.testing.assert_allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-9)


@pytest.mark.parametrize("name", ["ligandmpnn", "v_48_002", "ligandmpnn_v_32_5"])
def test_other_names_have_no_noise(name):
    with pytest.raises(ValueError, match="wanted a name such as"):
        published.model_and_noise(name)
