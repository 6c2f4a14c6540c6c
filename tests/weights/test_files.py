"""Files of weights as people have them: every kind is read right, or refused."""

import json
import os
import pathlib
import pickle
import re
import types
import zipfile
import zlib
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import wcka
from wcka.cli import main
from wcka.weights import (
    building,
    by_architecture,
    checkpoints,
    comparison,
    formats,
    report,
    wiring,
)


def mlp(seed, widths=(20, 12, 3)):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def saved(path, content):
    torch.save(content, path)
    return str(path)


def value(*paths, **options):
    return comparison.compare_files(list(paths), **options)["all"]["wcka"][0][1]


@pytest.fixture
def pair(tmp_path):
    """The path of one network, another network, and their similarity."""
    a, b = mlp(0), mlp(1)
    return saved(tmp_path / "a.pt", a.state_dict()), b, wcka.wcka(a, b)


# ------------------------------------------------------------ formats


def npz(path, state):
    np.savez(path, **{name: values.numpy() for name, values in state.items()})


def sharded(folder, state):
    folder.mkdir()
    names = list(state)
    files = {}
    for i, part in enumerate((names[:1], names[1:])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        files.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def folder_with_weights(folder, state):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file(state, folder / "model.safetensors")


def legacy(path, state):
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("name, save", [
    ("b.pth", lambda path, state: torch.save(state, path)),
    ("b.bin", lambda path, state: torch.save(state, path)),
    ("b.ckpt", legacy),
    ("b.safetensors", lambda path, state: save_file(state, path)),
    ("b.npz", npz),
    ("b", sharded),
    ("b", folder_with_weights),
])
def test_every_format_gives_the_value(pair, tmp_path, name, save):
    path, second, right = pair
    save(tmp_path / name, dict(second.state_dict()))
    similarity = value(path, str(tmp_path / name))
    assert similarity == pytest.approx(right, abs=1e-6)
    if (tmp_path / name).is_dir() and save is sharded:
        index = str(tmp_path / name / "model.safetensors.index.json")
        assert value(path, index) == similarity


def test_the_ending_of_another_format_is_said(pair, tmp_path):
    path, second, right = pair
    state = dict(second.state_dict())
    save_file(state, tmp_path / "b.pt")
    torch.save(state, tmp_path / "c.safetensors")
    for name, words in (("b.pt", "safetensors"), ("c.safetensors", "torch.save")):
        result = comparison.compare_files([path, str(tmp_path / name)])
        assert result["all"]["wcka"][0][1] == pytest.approx(right, abs=1e-6)
        said = " ".join(result["assumed"])
        assert f"a file of {words}" in said and "though it is called" in said


@pytest.mark.parametrize("dtype", [
    torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_precisions_of_files(pair, tmp_path, dtype):
    _, second, _ = pair
    state = {name: values.to(dtype) for name, values in second.state_dict().items()}
    exact = {name: values.double() for name, values in state.items()}
    full = saved(tmp_path / "full.pt", exact)
    assert value(full, saved(tmp_path / "c.pt", state)) == pytest.approx(1, abs=1e-12)
    save_file(state, tmp_path / "c.safetensors")
    assert value(full, str(tmp_path / "c.safetensors")) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", [
    zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_archives_that_another_tool_has_packed(tmp_path, kind, dtype):
    generator = torch.Generator().manual_seed(0)
    weights = {"0.weight": torch.randn(16, 30, generator=generator).to(dtype),
               "2.weight": torch.randn(4, 16, generator=generator).to(dtype)}
    path = saved(tmp_path / "stored.pt", weights)
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", kind) as target:
        for item in reversed(source.infolist()):  # in another order, too
            target.writestr(item.filename, source.read(item))
    try:
        assert value(path, str(packed)) == pytest.approx(1, abs=1e-12)
    except ValueError as error:  # what torch itself cannot unpack
        assert kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA), error


def test_records_cut_short_never_give_a_number(pair, tmp_path):
    path, _, _ = pair
    with zipfile.ZipFile(path) as source:
        members = {item.filename: source.read(item) for item in source.infolist()}
    records = [name for name in members if "/data/" in name]
    contents = [members[name] for name in records]
    swapped = dict(members)  # two records of different length in each other's place
    swapped[records[0]], swapped[records[1]] = contents[1], contents[0]
    cases = [swapped]
    for length in (0, 7, len(contents[0]) - 4):
        cases.append({**members, records[0]: contents[0][:length]})
    cases.append({**members, records[0]: contents[0] + bytes(8)})
    for i, case in enumerate(cases):
        broken = tmp_path / f"{i}.pt"
        with zipfile.ZipFile(broken, "w") as target:
            for name, content in case.items():
                target.writestr(name, content)
        with pytest.raises(ValueError, match=r"\.pt: "):
            value(path, str(broken))


@pytest.fixture
def archive_members(pair):
    """The members of an archive that torch.save wrote, and its path."""
    with zipfile.ZipFile(pair[0]) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_changed_bit_beside_the_weights_is_refused(pair, tmp_path):
    """torch checks neither the sum of the pickle nor the headers of the records."""
    path, _, _ = pair
    content = bytearray(pathlib.Path(path).read_bytes())
    start = content.index(b"data.pkl") + len(b"data.pkl")
    end = content.index(b"PK\x03\x04", start)
    for place in range(start, end, 7):
        broken = tmp_path / "broken.pt"
        content[place] ^= 4
        broken.write_bytes(content)
        content[place] ^= 4
        try:
            # A byte that fills a gap changes nothing.
            assert value(path, str(broken)) == pytest.approx(1)
        except ValueError as error:
            assert str(error).startswith(str(broken))


def test_an_archive_with_another_folder_says_so(archive_members, tmp_path):
    path = tmp_path / "zipped.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._a", b"x")
        for name, content in archive_members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"more than one folder .*another tool"):
        checkpoints.read(path)


def test_lists_of_lists_many_times_over_are_read_once(tmp_path):
    content = [torch.ones(3, 2)]
    for _ in range(40):
        content = [content] * 40
    torch.save(content, tmp_path / "nested.pt")
    with pytest.raises(ValueError, match=r"nested\.pt: "):
        checkpoints.read(tmp_path / "nested.pt")


@pytest.mark.parametrize("name", ["a" * 300, "a\x1b[2J.pt", "a\nb.pt", "a/b\x07"])
def test_an_odd_name_that_is_not_there_is_said_in_one_line(tmp_path, name):
    with pytest.raises(ValueError, match="no such file") as refusal:
        checkpoints.read(tmp_path / name)
    assert str(refusal.value).isprintable()


def varint(number):
    digits = []
    while number > 127:
        digits.append(number % 128 + 128)
        number //= 128
    return bytes([*digits, number])


def message(*fields):
    """Return a message of protocol buffers: numbers of fields, and what they hold."""
    content = b""
    for number, value in fields:
        if isinstance(value, int):
            content += varint(number << 3) + varint(value)
        else:
            content += varint(number << 3 | 2) + varint(len(value)) + value
    return content


GRAPH = message((1, b"node" * 100), (2, b"main"))
OPERATORS = message((1, b""), (2, 17))
ONNX = message((1, 8), (2, b"pytorch"), (3, b"2.14.1"), (7, GRAPH), (8, OPERATORS))
FOREIGN = {
    "a.gguf": (b"GGUF\x03\x00", "GGUF"),
    "a.ggml": (b"tjgg\x03\x00", "GGML"),
    "a.h5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "a.pt.gz": (b"\x1f\x8b\x08\x00", "gzip"),
    "a.pt.xz": (b"\xfd7zXZ\x00", "xz"),
    "a.pt.zst": (b"\x28\xb5\x2f\xfd", "zstd"),
    "a.tar": (b"a.pt".ljust(257, b"\0") + b"ustar\x0000", "a tar archive"),
    "a.7z": (b"7z\xbc\xaf\x27\x1c", "7z"),
    "page.pt": (b"<!DOCTYPE html>", "HTML"),
    "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    "a.tflite": (b"\x1c\0\0\0TFL3" + bytes(20), "TensorFlow Lite"),
    "a.npy": (b"\x93NUMPY\x01\x00", "numpy.savez"),
    "a.onnx": (ONNX, "safetensors: ONNX"),
    "called.pt": (ONNX, "safetensors: ONNX"),
    "other-order.bin": (message((7, GRAPH), (1, 300), (14, b"")), "safetensors: ONNX"),
    "damaged.onnx": (ONNX[:50], "by its ending ONNX"),
    "saved_model.pb": (message((1, 1), (2, GRAPH)), "SavedModel"),
    "frozen.pb": (message((1, GRAPH), (1, GRAPH), (4, b"")), "graph of TensorFlow"),
    "a.mlmodel": (message((1, 4), (2, b"about"), (500, GRAPH)), "Core ML"),
    "flax.msgpack": (b"\x81\xa6params\x81\xa6kernel\xc7", "Flax"),
    "sklearn.pkl": (pickle.dumps({"coef": np.ones(3)}), "a pickle, as joblib"),
    "state.pt": (pickle.dumps({"a.weight": [1.0]}, protocol=2), "a pickle"),
    "model.joblib": (zlib.compress(pickle.dumps({"coef": [1.0]})), "zlib"),
    "model.ckpt.index": (bytes(20), "a checkpoint of TensorFlow"),
    "openvino.bin": (bytes(20), "OpenVINO"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_programs_are_named(pair, tmp_path, capsys, name):
    content, words = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "openvino.xml").write_text("<net/>")
    assert main(["compare", pair[0], str(tmp_path / name)]) == 2
    reason = capsys.readouterr().err
    assert words in reason and reason.count("\n") == 1
    assert "weights_only" not in reason


@pytest.mark.parametrize("member, words", [
    ("model.weights.h5", "Keras"), ("a/archive_format", "torch.export"),
    ("word/document.xml", "torch.save did not write")])
def test_zip_archives_of_other_programs_are_named(tmp_path, member, words):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "content")
    with pytest.raises(ValueError, match=words):
        checkpoints.read(path)


def test_no_file_gets_the_advice_to_run_what_is_in_it(tmp_path):
    rng = np.random.default_rng(0)
    starts = [b"", b"\x08\x08", b"\n\x04", b"\x80\2", b"\x80\5", b"PK\3\4", b"\x81\xa1"]
    for i in range(140):
        path = tmp_path / "a.pt"
        path.write_bytes(starts[i % len(starts)] + rng.bytes(int(rng.integers(1, 80))))
        with pytest.raises(ValueError, match=r"a\.pt: ") as refusal:
            checkpoints.read(path)
        assert "weights_only" not in str(refusal.value)


def test_programs_of_torch_are_refused_with_what_helps(pair, tmp_path, capsys):
    path, _, _ = pair
    scripted = tmp_path / "scripted.pt"
    torch.jit.script(mlp(0)).save(str(scripted))
    for bad, words in (
            (scripted, "TorchScript"),
            (saved(tmp_path / "whole.pt", mlp(0)), "save the weights alone")):
        assert main(["compare", path, str(bad)]) == 2
        message = capsys.readouterr().err
        assert words in message and message.count("\n") == 1


# ------------------------------------------------------------ what a file wraps


def test_weights_are_found_wherever_they_are(pair, tmp_path):
    path, second, right = pair
    state = dict(second.state_dict())
    optimizer = torch.optim.Adam(second.parameters())
    second(torch.ones(1, 20)).sum().backward()
    optimizer.step()
    state = {name: values.clone() for name, values in second.state_dict().items()}
    right = value(path, saved(tmp_path / "plain.pt", state))
    wrapped = [
        {"ema": state}, {"net": state}, {"params": state}, {"checkpoint": {"g": state}},
        {"model": state, "optimizer": optimizer.state_dict(), "epoch": 3},
        {"optimizer": optimizer.state_dict(), "generator": state, "loss": 0.25},
        {"state_dict": state, "args": Namespace(lr=0.1), "best": np.float64(0.5)},
        {"state_dict": state, "path": pathlib.Path("runs"),
         "extra": types.SimpleNamespace(a=1), "history": np.ones(3)},
        {**state, "epoch": 3, "name": "mlp"},
    ]
    for prefix in ("module.", "_orig_mod.", "model.", "net.", "module._orig_mod."):
        wrapped.append({prefix + name: values for name, values in state.items()})
    wrapped.append({"n_averaged": torch.tensor(3), **{
        f"module.{name}": values for name, values in state.items()}})
    wrapped.append({**state, "criterion.weight": torch.ones(3),
                    "val_accuracy.confmat": torch.ones(3, 3),
                    "metrics.seen": torch.tensor(7)})
    for i, content in enumerate(wrapped):
        similarity = value(path, saved(tmp_path / f"{i}.pt", content))
        assert similarity == pytest.approx(right, abs=1e-12), i


def test_several_networks_in_one_file_are_asked_for(pair, tmp_path, capsys):
    path, second, right = pair
    two_networks = saved(tmp_path / "both.pt", {
        "generator": second.state_dict(), "discriminator": mlp(2).state_dict()})
    assert main(["compare", path, two_networks]) == 2
    message = capsys.readouterr().err
    assert "several networks: generator, discriminator" in message
    assert "--key" in message
    same = saved(tmp_path / "same.pt", {"generator": mlp(0).state_dict()})
    assert value(same, two_networks, key="generator") == pytest.approx(right, abs=1e-6)
    with pytest.raises(ValueError, match=r"unknown key .*generator"):
        value(same, two_networks, key="generater")


class Tied(nn.Module):
    """Its third layer is the first again."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.l0, self.l1 = nn.Linear(12, 12), nn.Linear(12, 12)
        self.l2 = self.l0

    def forward(self, x):
        return self.l2(self.l1(self.l0(x).relu()).relu())


def test_tensors_that_safetensors_stores_once(tmp_path):
    for seed in (0, 1):
        torch.save(Tied(seed).state_dict(), tmp_path / f"{seed}.pt")
        save_model(Tied(seed), str(tmp_path / f"{seed}.safetensors"))
    paths = {name: str(tmp_path / name) for name in (
        "0.pt", "1.pt", "0.safetensors", "1.safetensors")}
    assert value(paths["0.pt"], paths["0.safetensors"]) == pytest.approx(1, abs=1e-12)
    right = wcka.wcka(Tied(0), Tied(1))
    for end in ("pt", "safetensors"):
        similarity = value(paths[f"0.{end}"], paths[f"1.{end}"], stored="out-in")
        assert similarity == pytest.approx(right, abs=1e-6)


# ------------------------------------------------------------ weights in parts


def pruned(model):
    prune.l1_unstructured(model[0], "weight", 0.5)


def old_weight_norm(model):
    weight_norm(model[0])


def new_weight_norm(model):
    parametrizations.weight_norm(model[0])


def other_axis(model):
    weight_norm(model[0], dim=1)
    weight_norm(model[2], dim=None)


def old_spectral_norm(model):
    spectral_norm(model[0])
    model(torch.ones(2, 20, dtype=torch.float64))  # a step of the power iteration


def new_spectral_norm(model):
    parametrizations.spectral_norm(model[0])


@pytest.mark.parametrize("change", [
    pruned, old_weight_norm, new_weight_norm, other_axis, old_spectral_norm,
    new_spectral_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_in_parts_are_put_together(pair, tmp_path, change):
    path, _, _ = pair
    torch.manual_seed(5)
    model = mlp(5).double()
    change(model)
    model.eval()
    with torch.no_grad():
        for values in model.parameters():
            values.mul_(1 + 0.1 * torch.rand_like(values))  # as training does
        outputs = model(torch.ones(2, 20, dtype=torch.float64))  # computes weights
    assert outputs.isfinite().all()
    weights = [model[i].weight.detach().T.clone() for i in (0, 2)]
    right = wcka.wcka(mlp(0), weights)
    model.train()  # as most people save them
    file = saved(tmp_path / "parts.pt", model.state_dict())
    assert value(path, file) == pytest.approx(right, abs=1e-9)
    assert wcka.wcka(mlp(0), model) == pytest.approx(right, abs=1e-6)
    read = checkpoints.read(file)
    assert "put together" in " ".join(read.notes)
    # An architecture that has the parts takes them, and so does a plain one.
    plain, _ = building.loaded(lambda: mlp(0).double(), read)
    assert torch.allclose(plain[0].weight.T, weights[0])

    def in_parts():
        network = mlp(5).double()
        change(network)
        return network

    rebuilt, _ = building.loaded(in_parts, read)
    x = torch.ones(2, 20, dtype=torch.float64)
    assert torch.allclose(rebuilt(x), plain(x))


def test_a_parametrisation_that_is_not_known_is_refused(pair, tmp_path):
    path, _, _ = pair
    model = mlp(0)
    parametrizations.orthogonal(model[0])
    file = saved(tmp_path / "o.pt", model.state_dict())
    with pytest.raises(ValueError, match="remove_parametrizations"):
        value(path, file)


# ------------------------------------------------------------ wiring


def attention(names):
    return {f"layers.0.{name}.weight": torch.ones(8, 8) for name in names}


def adapter():
    """Factors of LoRA for two matrices in each of two layers."""
    factors = {}
    for matrix in ("0.q", "0.v", "1.q", "1.v"):
        factors[f"layers.{matrix}.lora_A.weight"] = torch.randn(4, 32)
        factors[f"layers.{matrix}.lora_B.weight"] = torch.randn(32, 4)
    return factors


def two_blocks():
    """Two blocks of two layers, each with as many outputs as inputs."""
    blocks = {}
    for i in (0, 1):
        blocks[f"layers.{i}.fc1.weight"] = torch.ones(32, 8)
        blocks[f"layers.{i}.fc2.weight"] = torch.ones(8, 32)
    return blocks


NO_CHAINS = {
    "adapter": adapter(),
    "an attention": attention("qkvo"),
    "attention,": attention(["q_proj", "k_proj", "v_proj", "o_proj"]),
    "by itself": {"in_proj_weight": torch.ones(24, 8), "out.weight": torch.ones(8, 24)},
    "a gate": attention(["gate_proj", "up_proj", "down_proj"]),
    "side by side": nn.ModuleDict({
        "trunk": nn.Linear(20, 16), "head_a": nn.Linear(16, 16),
        "head_b": nn.Linear(16, 16)}).state_dict(),
    "policy and value": nn.ModuleDict({
        "body": nn.Linear(20, 8), "policy": nn.Linear(8, 8),
        "value": nn.Linear(8, 1)}).state_dict(),
    "fc_mu and": nn.ModuleDict({
        "enc": nn.Linear(20, 8), "fc_mu": nn.Linear(8, 8),
        "fc_logvar": nn.Linear(8, 8)}).state_dict(),
    "heads.0 and heads.1": {
        "body.weight": torch.ones(8, 20), "heads.0.weight": torch.ones(8, 8),
        "heads.1.weight": torch.ones(8, 8)},
    "residual": nn.ModuleDict({
        "enter": nn.Linear(20, 16), "block": nn.Linear(16, 16),
        "leave": nn.Linear(16, 3)}).state_dict(),
    "layers.0 and layers.1": two_blocks(),
    "way around": {"0.weight": torch.ones(8, 20), "shortcut.weight": torch.ones(8, 8)},
    "not called weight": nn.RNN(20, 20, bias=False).state_dict(),
    "embedding": {"embed.weight": torch.ones(9, 8), "fc.weight": torch.ones(3, 8)},
}


@pytest.mark.parametrize("words", NO_CHAINS)
@pytest.mark.parametrize("end", ["pt", "safetensors"])
def test_what_is_known_to_be_no_chain_is_refused_with_the_reason(
        tmp_path, capsys, words, end):
    path = tmp_path / f"a.{end}"
    (save_file if end == "safetensors" else torch.save)(dict(NO_CHAINS[words]), path)
    assert main(["compare", str(path), str(path)]) == 2
    message = capsys.readouterr().err
    assert words in message and "--arch" in message and message.count("\n") == 1


CHAINS = {  # (out, in): each fits the next, whatever its name reminds of
    "one letter": {"W_e": (8, 20), "W_v": (6, 8), "W_s": (3, 6)},
    "a letter alone": {"to_v": (8, 20), "out_proj": (3, 8)},
    "projections": {"in_proj": (8, 20), "out_proj": (3, 8)},
    "a layer within": {"features.embeddings.linear": (8, 20), "fc": (3, 8)},
    "an embedding of features": {"embed": (8, 20), "fc": (3, 8)},
    "one query": {"query": (8, 20), "out": (3, 8)},
    "key and value": {"key_network": (8, 20), "values": (3, 8)},
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", CHAINS)
def test_plain_layers_may_have_any_names(tmp_path, kind, bias):
    state = {}
    for name, shape in CHAINS[kind].items():
        state[f"{name}.weight"] = torch.randn(shape)
        if bias:
            state[f"{name}.bias"] = torch.zeros(shape[:1])
    chain = wiring.chain_in(checkpoints.read(saved(tmp_path / "a.pt", state)))
    names = [layer.name.removesuffix(".weight") for layer in chain.layers]
    assert names == list(CHAINS[kind])


@pytest.mark.parametrize("names", [
    ["W_q", "W_k"], ["to_q", "to_v"], ["q_lin", "k_lin", "v_lin"], ["query", "value"],
    ["block.wq", "block.wk"], ["selfattention.o"], ["Wqkv"], ["key", "query"]])
def test_two_projections_of_an_attention_are_enough(tmp_path, names):
    state = {f"{name}.weight": torch.ones(8, 8) for name in names}
    with pytest.raises(ValueError, match="an attention, which"):
        wiring.chain_in(checkpoints.read(saved(tmp_path / "a.pt", state)))


def test_tables_of_embeddings_are_no_layers(tmp_path):
    for name, shape in (("tok_embeddings", (50, 8)), ("word_embedding", (8, 8)),
                        ("bert.embeddings.word_embeddings", (9, 8)), ("wte", (8, 8))):
        state = {f"{name}.weight": torch.ones(shape), "fc.weight": torch.ones(3, 8)}
        with pytest.raises(ValueError, match="an embedding of tokens"):
            wiring.chain_in(checkpoints.read(saved(tmp_path / "a.pt", state)))


@pytest.mark.parametrize("layer", [
    nn.LSTM(4, 4), nn.GRU(4, 4, bias=False), nn.LSTMCell(4, 4)])
def test_no_option_is_advised_that_does_not_help(tmp_path, layer):
    file = checkpoints.read(saved(tmp_path / "a.pt", layer.state_dict()))
    with pytest.raises(ValueError, match="a recurrent layer") as refusal:
        wiring.chain_in(file)
    assert "say --arch" not in str(refusal.value)
    assert "with --arch neither" in str(refusal.value)


def test_order_says_what_it_leaves_out(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    path = saved(tmp_path / "a.pt", model.state_dict())
    two = comparison.compare_files([path, path], order=["0", "2"])["assumed"]
    assert "as --order says, without what may stand between them" in two[0]
    one = comparison.compare_files([path, path], order=["0"])["assumed"]
    assert "as --order says; stored" in one[0]


def test_the_caller_may_say_which_layers_make_the_chain(tmp_path):
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        heads = nn.ModuleDict({
            "policy": nn.Linear(8, 8), "body": nn.Linear(20, 8),
            "value": nn.Linear(8, 1)})
        states.append(heads)
    paths = [saved(tmp_path / f"{i}.pt", s.state_dict()) for i, s in enumerate(states)]
    right = wcka.wcka(*[[s["body"].weight.T.detach(), s["policy"].weight.T.detach()]
                        for s in states])
    similarity = value(*paths, order=["body", "policy"])
    assert similarity == pytest.approx(right, abs=1e-6)
    with pytest.raises(ValueError, match="unknown layer"):
        value(*paths, order=["body", "polcy"])


class Two(nn.Module):
    """x -> first -> second; only the order in which they are defined differs."""

    def __init__(self, names, seed):
        super().__init__()
        torch.manual_seed(seed)
        layers = {"first": nn.Linear(12, 12), "second": nn.Linear(12, 12)}
        for name in names:
            setattr(self, name, layers[name])

    def forward(self, x):
        return self.second(self.first(x).relu())


def test_layers_are_matched_by_name(tmp_path):
    a = Two(["first", "second"], 0)
    b = Two(["second", "first"], 1)
    paths = [saved(tmp_path / f"{i}.pt", m.state_dict()) for i, m in enumerate((a, b))]
    save_file(b.state_dict(), tmp_path / "c.safetensors")
    right = wcka.wcka(a, b)
    for path in (paths[1], str(tmp_path / "c.safetensors")):
        result = comparison.compare_files([paths[0], path], stored="out-in")
        assert result["all"]["wcka"][0][1] == pytest.approx(right, abs=1e-6)
        assert "by name, not by position" in " ".join(result["assumed"])


def test_nothing_tells_how_square_matrices_are_stored(tmp_path, capsys):
    a, b = torch.randn(2, 2, 6, 6, dtype=torch.float64)  # (networks, layers, 6, 6)
    a, b = list(a), list(b)
    paths = []
    for name, (first, second) in (("a", a), ("b", b)):
        state = {"fc1.weight": first, "fc2.weight": second}
        paths.append(saved(tmp_path / f"{name}.pt", state))
    assert main(["compare", *paths]) == 2
    assert "nothing tells how they are stored" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="--stored"):
        assert np.isnan(value(*paths))
    in_out = wcka.wcka(a, b)
    out_in = wcka.wcka([w.T for w in a], [w.T for w in b])
    assert value(*paths, stored="in-out") == pytest.approx(in_out, abs=1e-12)
    assert value(*paths, stored="out-in") == pytest.approx(out_in, abs=1e-12)
    assert value(paths[0], paths[0]) == pytest.approx(1, abs=1e-12)  # either way


def test_weights_stored_the_other_way_round(pair, tmp_path):
    path, second, right = pair
    names = {"0": "dense", "2": "dense_1"}
    keras = {}
    script = {}
    for i, (old, new) in enumerate(names.items(), 1):
        keras[f"{new}/kernel"] = second[int(old)].weight.detach().T.numpy()
        keras[f"{new}/bias"] = second[int(old)].bias.detach().numpy()
        script[f"W{i}"], script[f"b{i}"] = keras[f"{new}/kernel"], keras[f"{new}/bias"]
    for name, arrays in (("keras.npz", keras), ("script.npz", script)):
        np.savez(tmp_path / name, **arrays)
        result = comparison.compare_files([path, str(tmp_path / name)])
        assert result["all"]["wcka"][0][1] == pytest.approx(right, abs=1e-6)
        assert "(in, out)" in " ".join(result["assumed"])
    np.savez(tmp_path / "plain.npz", *script.values())
    assert value(path, str(tmp_path / "plain.npz")) == pytest.approx(right, abs=1e-6)


def test_hundreds_of_layers_do_not_overflow(tmp_path):
    generator = torch.Generator().manual_seed(0)
    networks = []
    for scale in (1e-6, 1e8):
        weights = [torch.randn(6, 6, generator=generator) * scale for _ in range(199)]
        networks.append([torch.randn(6, 9, generator=generator), *weights])
    paths = []
    for i, network in enumerate(networks):
        state = {f"fc{k}.weight": w for k, w in enumerate(network)}
        paths.append(saved(tmp_path / f"{i}.pt", state))
    chains = []
    for network in networks:
        chain = np.eye(9)
        for weight in network:
            chain = chain @ weight.double().numpy().T
            chain /= np.abs(chain).max()
        chains.append(chain)
    right = wcka.cka(*chains)
    assert value(*paths) == pytest.approx(right, abs=1e-9)
    first, second = networks
    similarity = wcka.wcka([w.T for w in first], [w.T for w in second])
    assert similarity == pytest.approx(right, abs=1e-9)
    with pytest.raises(ValueError, match="overflows"):
        wcka.chain([w.T.double() * 1e10 for w in networks[1]])


# ------------------------------------------------------------ architectures


class Classifier(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        self.fc = nn.Linear(2 * 36, num_classes)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


class FixedHead(Classifier):
    def __init__(self):
        super().__init__(5)


@pytest.mark.parametrize("build", [Classifier, FixedHead])
def test_prefixes_heads_and_what_stands_beside(tmp_path, monkeypatch, build):
    monkeypatch.setattr(checkpoints, "Classifier", Classifier, raising=False)
    torch.manual_seed(0)
    a, b = Classifier(5), Classifier(7)
    right = wcka.wcka(a, b, input_shape=(1, 8, 8))
    first = checkpoints.read(saved(tmp_path / "a.pt", a.state_dict()))
    for prefix in ("", "student.", "pl_module.model.", "encoder.module."):
        state = {prefix + name: values for name, values in b.state_dict().items()}
        state.pop(f"{prefix}features.1.num_batches_tracked")  # as old files have it
        state["loss.weight"] = torch.ones(7)
        state["train_acc.total"] = torch.tensor(3)
        second = checkpoints.read(saved(tmp_path / "b.pt", state))
        networks = []
        for file in (first, second):
            options = building._outputs_as_options(file, build)
            maker = building.Architecture("a:b", options, build)
            networks.append(building.loaded(maker, file)[0])
        similarity = wcka.wcka(*networks, input_shape=(1, 8, 8))
        assert similarity == pytest.approx(right, abs=1e-12), prefix
    teacher = {f"{p}.{n}": v for p in ("student", "teacher")
               for n, v in a.state_dict().items()}
    file = checkpoints.read(saved(tmp_path / "t.pt", teacher))
    with pytest.raises(ValueError, match=r"several networks .* student\., teacher\."):
        building.loaded(build, file)
    deeper = {**a.state_dict(), "extra.weight": torch.ones(3, 3)}
    file = checkpoints.read(saved(tmp_path / "d.pt", deeper))
    with pytest.raises(ValueError, match=r"also holds extra\.weight"):
        building.loaded(build, file)


PLAIN = {"file": "", "model": ""}
PREFIXES = [
    PLAIN, {**PLAIN, "file": "module."}, {**PLAIN, "file": "pl_module.model."},
    {**PLAIN, "model": "_orig_mod."}, {**PLAIN, "model": "network."},
    {"file": "module.", "model": "network._orig_mod."}]


def wrapped_in(network, prefix):
    """Return a network with modules around it, each of one child."""
    for name in reversed(prefix.split(".")[:-1]):
        outer = nn.Module()
        outer.add_module(name, network)
        network = outer
    return network


@pytest.mark.parametrize("prefixes", PREFIXES)
def test_a_misfit_names_what_is_wrong_and_nothing_else(tmp_path, prefixes):
    state = {prefixes["file"] + name: values
             for name, values in Classifier(5).state_dict().items()}

    def build():
        return wrapped_in(Classifier(5), prefixes["model"])

    def reason(content):
        file = checkpoints.read(saved(tmp_path / "b.pt", content))
        with pytest.raises(ValueError, match="not of this architecture") as refusal:
            building.loaded(build, file)
        return str(refusal.value)

    bias = prefixes["file"] + "fc.bias"
    lacking = {name: values for name, values in state.items() if name != bias}
    # Some prefixes are gone once the file was read.
    lacks = r"\(no ([\w.]+\.)?fc\.bias in it\)$"
    assert re.search(lacks, reason(lacking))
    extra = {prefixes["file"] + "more.weight": torch.ones(3, 3)}
    has_more = r"\(it also holds ([\w.]+\.)?more\.weight\)$"
    assert re.search(has_more, reason({**state, **extra}))
    message = reason({**lacking, **extra})
    assert "fc.bias in it; it also holds" in message and "features" not in message
    message = reason({**state, bias: torch.ones(9)})
    assert "fc.bias is (9,) in it and (5,) in the architecture)" in message
    assert "features" not in message and "fc.weight" not in message
    model, _ = building.loaded(
        build, checkpoints.read(saved(tmp_path / "a.pt", state)))
    assert sum(values.numel() for values in model.parameters()) == sum(
        values.numel() for values in Classifier(5).parameters())


def test_a_file_of_torchvision_that_lacks_one_weight(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    state = torchvision.models.squeezenet1_1(num_classes=4).state_dict()
    for absent in ("features.0.weight", "classifier.1.weight"):
        content = {name: values for name, values in state.items() if name != absent}
        path = saved(tmp_path / "a.pt", content)
        with pytest.raises(ValueError, match=rf"\(no {absent} in it\)"):
            value(path, path, arch="torchvision:squeezenet1_1")


def test_a_file_of_another_architecture_is_told_by_the_names_of_both(tmp_path):
    path = saved(tmp_path / "a.pt", mlp(0).state_dict())
    with pytest.raises(ValueError, match=r"no features\.0\.weight, .* also holds 0\."):
        building.loaded(Classifier, checkpoints.read(path))


@pytest.mark.slow
def test_a_compiled_network_is_read_as_the_one_that_it_was_made_from(tmp_path):
    def build():
        layers = [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)]
        return nn.Sequential(*layers)

    model = build()
    file = checkpoints.read(saved(tmp_path / "a.pt", model.state_dict()))
    compiled, _ = building.loaded(lambda: torch.compile(build()), file)
    similarity = wcka.wcka(model, compiled, input_shape=(1, 4, 4))
    assert similarity == pytest.approx(1, abs=1e-12)


def test_versions_of_modules_travel_with_the_weights(tmp_path, capsys):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.mnasnet0_5(num_classes=3)
    state = model.state_dict()
    paths = [saved(tmp_path / "a.pt", state)]
    lightning = type(state)((f"net.{name}", values) for name, values in state.items())
    lightning._metadata = {
        f"net.{name}".strip("."): entry for name, entry in state._metadata.items()}
    paths.append(saved(tmp_path / "b.ckpt", {"state_dict": lightning, "epoch": 1}))
    save_file(dict(state), tmp_path / "c.safetensors")  # which has no versions
    paths.append(str(tmp_path / "c.safetensors"))
    call = ["compare", *paths, "--arch", "torchvision:mnasnet0_5",
            "--input-shape", "3", "32", "32", "--json"]
    assert main(call) == 0
    table = np.array(json.loads(capsys.readouterr().out)["all"]["wcka"])
    assert np.allclose(table, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name, side", [("googlenet", 64), ("inception_v3", 96)])
def test_auxiliary_heads_take_no_part(tmp_path, name, side):
    torchvision = pytest.importorskip("torchvision")
    build = torchvision.models.get_model_builder(name)
    torch.manual_seed(0)
    model = build(num_classes=3, init_weights=False, aux_logits=True)
    state = model.state_dict()
    without = {k: v for k, v in state.items() if not k.lower().startswith("aux")}
    paths = [saved(tmp_path / "a.pt", state), saved(tmp_path / "b.pt", without)]
    similarity = value(*paths, arch=f"torchvision:{name}", input_shape=(3, side, side))
    assert similarity == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_other_depths_and_numbers_of_classes(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    networks = [torchvision.models.resnet18(num_classes=3),
                torchvision.models.resnet34(num_classes=5)]
    paths = [saved(tmp_path / f"{i}.pt", n.state_dict())
             for i, n in enumerate(networks)]
    similarity = value(*paths, arch=["torchvision:resnet18", "torchvision:resnet34"],
                  input_shape=(3, 32, 32))
    right = wcka.wcka(*[n.eval() for n in networks], input_shape=(3, 32, 32))
    assert similarity == pytest.approx(right, abs=1e-4)
    with pytest.raises(ValueError, match="one for each of the 2 files"):
        value(*paths, arch=["torchvision:resnet18"] * 3)


# ------------------------------------------------------------ folders and the report


def test_a_folder_is_every_checkpoint_in_it(tmp_path, capsys):
    networks = [mlp(seed) for seed in range(3)]
    for epoch, network in zip((1, 2, 10), networks):
        torch.save(network.state_dict(), tmp_path / f"epoch-{epoch}.pt")
    optimizer = torch.optim.Adam(networks[0].parameters())
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    (tmp_path / "notes.txt").write_text("no checkpoint")
    assert main(["compare", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    names = report.short_names(result["files"])
    assert names == ["epoch-1.pt", "epoch-2.pt", "epoch-10.pt"]
    right = wcka.pairwise("wcka", networks)
    assert np.allclose(result["all"]["wcka"], right, atol=1e-6)
    assert list(result["left out"]) == [str(tmp_path / "optimizer.pt")]
    assert result["schema"] == comparison.SCHEMA
    assert main(["compare", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("3 files: most similar are epoch-")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["compare", str(empty)]) == 2
    assert "no checkpoint in this folder" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path):
    """A folder of two networks that fit, and of files that do not, with the reasons."""
    states = {f"{seed}.pt": mlp(seed).state_dict() for seed in range(2)}
    with_nan = mlp(2).state_dict()
    with_nan["2.bias"][0] = torch.nan
    with_nan["2.weight"][0, 0] = torch.nan
    states.update({
        "inputs.pt": mlp(3, (21, 4, 3)).state_dict(),
        "names.pt": nn.Conv2d(1, 2, 3).state_dict(),
        "nan.pt": with_nan,
        "optimizer.pt": torch.optim.Adam(mlp(0).parameters()).state_dict()})
    inner = tmp_path / "runs"
    inner.mkdir()
    for name, state in states.items():
        saved(inner / name, state)
    (inner / "cut.pt").write_bytes((inner / "0.pt").read_bytes()[:300])
    (inner / "notes.txt").write_text("no checkpoint")
    return inner


BY_SHAPES = {
    "inputs.pt": "takes 21 inputs, most files take 20", "nan.pt": "holds NaN",
    "names.pt": "no part of a fully connected network", "cut.pt": "truncated",
    "optimizer.pt": "wanted a state dict"}
BY_NAMES = {
    **BY_SHAPES, "inputs.pt": "not of this architecture",
    "names.pt": "not of this architecture"}


@pytest.mark.parametrize("options, reasons", [
    ([], BY_SHAPES),
    (["--arch", "torch_mlp:build", "--input-shape", "20"], BY_NAMES)])
def test_what_does_not_fit_into_a_folder_is_left_out_with_the_reason(
        folder, tmp_path, monkeypatch, capsys, options, reasons):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch_mlp.py").write_text("from test_files import mlp as build_mlp\n"
                                           "def build(): return build_mlp(9)\n")
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parent)
    assert main(["compare", str(folder), "--json", *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert report.short_names(result["files"]) == ["0.pt", "1.pt"]
    assert result["all"]["wcka"][0][1] == pytest.approx(
        wcka.wcka(mlp(0), mlp(1)), abs=1e-5)
    left_out = result["left out"]
    assert {pathlib.Path(name).name for name in left_out} == set(reasons)
    for name, words in reasons.items():
        assert words in left_out[str(folder / name)]
    assert not result["assumed"][0].startswith("left out")
    assert main(["compare", str(folder), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, words in reasons.items():
        line, = (line for line in lines if line.startswith(f"left out {name}: "))
        assert words in line and str(folder) not in line
    # Whoever names a file wants that one.
    assert main(["compare", str(folder / "0.pt"), str(folder / "nan.pt")]) == 2
    assert "nan.pt: 2.weight holds NaN" in capsys.readouterr().err


def test_a_folder_without_two_comparable_files_is_refused_with_the_reasons(
        folder, capsys):
    (folder / "1.pt").unlink()
    assert main(["compare", str(folder)]) == 2
    message = capsys.readouterr().err
    assert "at least two files that can be compared, got 0.pt (left out" in message
    for name in BY_SHAPES:
        assert f"{name}: " in message
    assert message.count("\n") == 1
    call = ["compare", str(folder), "--arch", "nothing:here", "--input-shape", "3"]
    assert main(call) == 2
    assert "nothing:here: wanted torchvision:NAME" in capsys.readouterr().err


@pytest.mark.parametrize("name", [
    "b.pth.tar", "b.pt.tar", "b.best", "b.model", "epoch_3", "b.PT", "b.weights.last"])
def test_a_file_in_a_folder_is_known_by_what_it_holds(tmp_path, name):
    state = dict(mlp(1).state_dict())
    saved(tmp_path / "a.pt", mlp(0).state_dict())
    for save in (torch.save, legacy_state, save_file, npz_state):
        save(state, tmp_path / name)
        files = comparison.compare_files([str(tmp_path)])["files"]
        assert {pathlib.Path(file).name for file in files} == {"a.pt", name}
        (tmp_path / name).unlink()


def legacy_state(state, path):
    legacy(path, state)


def npz_state(state, path):
    with path.open("wb") as file:  # else the ending is added
        npz(file, state)


def test_the_answer_comes_first_then_chance_then_assumptions(pair, tmp_path, capsys):
    path, second, right = pair
    assert main(["compare", path, saved(tmp_path / "b.pt", second.state_dict())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"a.pt  b.pt  wCKA {right:.4f}")
    assert lines[1].startswith("chance: ")
    assert lines[2].startswith("read as one chain: 0 20x12 -> 2 12x3")
    result = comparison.compare_files([path, path])
    assert json.loads(report.as_json(result))["chains"][path] == [
        {"name": "0.weight", "inputs": 20, "outputs": 12},
        {"name": "2.weight", "inputs": 12, "outputs": 3}]


def test_names_from_strangers_cannot_forge_output(tmp_path, capsys):
    forged = "\x1b]0;owned\x07fc\nwcka: all files are identical.weight"
    path = saved(tmp_path / "NaN.pt", {forged: torch.ones(3, 4)})
    assert main(["compare", path, path]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\nwcka: all" not in out
    assert main(["compare", path, path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [path, path]


FORMATS = {
    "a.pt": torch.save,
    "b.safetensors": lambda state, path: save_file(state, path),
    "c.npz": lambda state, path: npz(path, state),
    "d.bin": lambda state, path: legacy(path, state),
    "e.ckpt": lambda state, path: torch.save({"model": state, "epoch": 3}, path),
}


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_get_one_line_or_a_value(pair, tmp_path, name):
    path, second, _ = pair
    file = tmp_path / name
    FORMATS[name](dict(second.state_dict()), str(file))
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(60):
        damaged = bytearray(content)
        start = int(rng.integers(len(content)))
        if i % 3 == 0:
            damaged = damaged[:start]
        elif i % 3 == 1:
            damaged[start:start + 30] = rng.bytes(int(rng.integers(40)))
        else:
            damaged[start % 300] = int(rng.integers(256))  # in the header
        file.write_bytes(damaged)
        try:
            comparison.compare_files([path, str(file)], networks=3)
        except ValueError as error:
            assert "\n" not in str(error) and name in str(error)


X = torch.ones(3, 4)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("content", [
    None, 5, X, [X], {1: X}, {("t",): X}, {}, {"state_dict": {}}, {"a.weight": X[0, 0]},
    {"a.weight": X[:, :0]}, {"a": {"b": {"c": {"d": {"e": X}}}}},
    {"a.weight": X.bool()},
    {"a.weight": torch.nested.nested_tensor([X[0], X[0, :2]])},
    {"a.weight": X.to("meta")}, {"a.weight": X.to_sparse()}, {"a.weight": X * np.nan},
    {"a.weight": X.cfloat()}, {"a.weight": torch.ones(2, 2, 2)}, {"a.weight_orig": X},
    {"a.weight": torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)},
    {"_orig_mod.a.weight": X, "a.weight": X}, {"x\ny.weight": X, "\x1b.weight": X}])
def test_hostile_contents_get_one_line(tmp_path, content):
    path = saved(tmp_path / "h.pt", content)
    for options in ({}, {"arch": "torchvision:resnet18"}):
        with pytest.raises(ValueError, match=r"h\.pt: ") as caught:
            comparison.compare_files([path, path], networks=3, **options)
        assert str(caught.value).isprintable()


def test_untrained_networks_never_decide(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.pt", Classifier().state_dict())

    def fails(model, *arguments, **options):
        if float(model.fc.weight.detach().sum()) != total:
            raise TypeError("an untrained network")
        return original(model, *arguments, **options)

    original = by_architecture.comparable_chain
    monkeypatch.setattr(by_architecture, "comparable_chain", fails)
    total = float(torch.load(path)["fc.weight"].sum())
    build = building.Architecture("a:b", (), Classifier)
    monkeypatch.setattr(by_architecture, "factory", lambda name, file: build)
    result = comparison.compare_files([path, path], arch="a:b", input_shape=(1, 8, 8))
    assert result["all"]["wcka"][0][1] == pytest.approx(1)
    assert np.isnan(result["all"]["p"]).all()
    assert "chance: not known" in report.described(result)


def test_quantised_weights_are_refused_by_name(tmp_path):
    integers = torch.randint(-8, 8, (3, 20), dtype=torch.int8)
    for name, state in (("a.pt", {"fc.weight": integers}),
                        ("b.pt", {"fc.qweight": integers, "fc.scales": torch.ones(3)})):
        with pytest.raises(ValueError, match=r"weight is quantised"):
            checkpoints.read(saved(tmp_path / name, state))
    counters = {"fc.weight": torch.ones(3, 2), "steps": torch.tensor([4])}
    read = checkpoints.read(saved(tmp_path / "c.pt", counters))
    assert [layer.name for layer in wiring.chain_in(read).layers] == ["fc.weight"]


def locked(monkeypatch, name):
    """Have a folder of this name be one that cannot be listed."""
    listdir = os.listdir

    def listed(path="."):
        if pathlib.Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(formats.os, "listdir", listed)


@pytest.mark.parametrize("command", ["compare", "family"])
def test_a_folder_that_cannot_be_read_is_left_out(
        tmp_path, monkeypatch, capsys, command):
    for seed in range(4):
        saved(tmp_path / f"{seed}.pt", mlp(seed).state_dict())
    (tmp_path / "locked").mkdir()
    locked(monkeypatch, "locked")
    assert main([command, str(tmp_path)]) == 0
    assert "left out locked: no permission to read it" in capsys.readouterr().out
    assert main([command, str(tmp_path / "locked")]) == 2
    reason = f"{tmp_path / 'locked'}: no permission to read it"
    assert reason in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "0.pt"), str(tmp_path / "locked")]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("name", [
    "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"])
def test_an_index_without_its_files_is_passed_over(pair, tmp_path, name):
    folder = tmp_path / "network"
    folder.mkdir()
    save_file(mlp(0).state_dict(), folder / "model.safetensors")
    stem, _, ending = name.partition(".")
    content = {"weight_map": {"0.weight": f"{stem}-00001-of-00002.{ending}"}}
    (folder / f"{name}.index.json").write_text(json.dumps(content))
    assert value(folder, saved(tmp_path / "a.pt", mlp(0).state_dict())) == (
        pytest.approx(1))
    assert formats.opened(folder).notes[0] == "read from model.safetensors"


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_later_protocol_of_pickles_is_named(tmp_path, protocol, is_zip):
    path = str(tmp_path / "a.pt")
    torch.save(mlp(0).state_dict(), path, pickle_protocol=protocol,
               _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=f"pickle_protocol={protocol}.*save it again"):
        value(path, path)


def test_wrappers_in_a_row_are_taken_off(tmp_path):
    state = mlp(0).state_dict()
    both = "._fsdp_wrapped_module._checkpoint_wrapped_module."
    wrapped = {name.replace(".", both): values for name, values in state.items()}
    paths = [saved(tmp_path / "a.pt", wrapped), saved(tmp_path / "b.pt", state)]
    assert list(checkpoints.read(paths[0]).weights) == list(state)
    assert value(*paths) == pytest.approx(1)


def test_a_plain_state_dict_needs_no_key(pair, tmp_path, capsys):
    plain = saved(tmp_path / "plain.pt", mlp(0).state_dict())
    nested = saved(tmp_path / "nested.pt", {
        "generator": mlp(1).state_dict(), "critic": mlp(2).state_dict()})
    expected = wcka.wcka(mlp(0), mlp(1))
    result = comparison.compare_files([plain, nested], key="generator")
    assert result["all"]["wcka"][0][1] == pytest.approx(expected, abs=1e-6)
    assert f"{plain}: no 'generator' in it: read as it is" in result["assumed"]
    assert main(["compare", plain, plain, "--key", "generator"]) == 2
    assert "unknown key 'generator': each file is one" in capsys.readouterr().err
    assert main(["compare", plain, nested, "--key", "actor"]) == 2
    message = capsys.readouterr().err
    assert "known: " in message and "generator" in message and "critic" in message


def test_what_holds_no_network_is_called_what_it_is(tmp_path):
    optimizer = torch.optim.Adam(mlp(0).parameters())
    for content, words in (
            (optimizer.state_dict(), "state of an optimizer"),
            ({"optim": {"base": optimizer.state_dict()}}, "state of an optimizer"),
            ({}, "wanted a state dict, got an empty one")):
        path = saved(tmp_path / "a.pt", content)
        with pytest.raises(ValueError, match=words):
            value(path, path)


def test_texts_are_not_called_truncated(tmp_path):
    for name, content in (("a.json", '{"lr": 1}'), ("a.csv", "step,loss\r\n1,2\r\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match="a text, and no state dict"):
            value(tmp_path / name, tmp_path / name)


def test_reasons_for_files_left_out_are_told_apart(tmp_path):
    saved(tmp_path / "a.pt", mlp(0).state_dict())
    (tmp_path / "b.pt").write_text("text")
    (tmp_path / "c").mkdir()
    content = {"weight_map": {"0.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "c" / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(ValueError) as refusal:
        comparison.compare_files([str(tmp_path)])
    assert "b.pt: a text, and no state dict; c: model.safetensors.index.json: " in (
        str(refusal.value))


def test_an_order_of_another_file_is_not_said_to_be_the_callers(tmp_path):
    module = nn.ModuleDict({"inp": nn.Linear(8, 8), "hid": nn.Linear(8, 8),
                            "out": nn.Linear(8, 3)})
    first = saved(tmp_path / "a.pt", module.state_dict())
    save_file(module.state_dict(), tmp_path / "b.safetensors")
    result = comparison.compare_files([first, str(tmp_path / "b.safetensors")])
    assert result["all"]["wcka"][0][1] == pytest.approx(1)
    text = " ".join(result["assumed"])
    assert f"in the order of {first}" in text and "--order" not in text
