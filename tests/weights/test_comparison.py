"""Networks in files: ``python -m wcka compare``."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from numpy.testing import assert_allclose
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import wcka
from wcka.cli import main
from wcka.networks import architectures
from wcka.weights import (
    by_architecture,
    checkpoints,
    comparison,
    fully_connected,
    report,
    wiring,
)


def saved(path, state):
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return str(path)


def network(seed, widths=(20, 12, 12, 12, 3)):
    torch.manual_seed(seed)
    return architectures.mlp(widths)


@pytest.fixture
def files(tmp_path):
    return [saved(tmp_path / name, network(seed).state_dict())
            for seed, name in enumerate(["a.pt", "b.safetensors", "c.pt"])]


def test_the_values_are_those_of_the_networks(files, capsys, monkeypatch):
    monkeypatch.setattr(checkpoints, "BLOCK", 50)  # many blocks, the last one smaller
    assert main(["compare", *files, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    nets = [network(seed) for seed in range(3)]
    assert_allclose(
        result["all"]["wcka"], wcka.pairwise("wcka", nets), rtol=0, atol=1e-12)
    stops = {"1.weight": 2, "3.weight": 4, "5.weight": 6, "7.weight": 8}
    for name, stop in stops.items():
        expected = wcka.pairwise("wcka", [net[:stop] for net in nets])
        assert_allclose(result["layers"][name]["wcka"], expected, rtol=0, atol=1e-12)
    assert result["shape"] == [20, 3]
    assert result["chance"] == "orders" and result["untrained"] == 0
    assert result["peak memory"] >= result["memory before"] > 0


def test_chance_is_the_null_of_the_chains_and_the_floor_of_untrained_networks(files):
    table = comparison.compare_files(files)["all"]
    nets = [network(seed) for seed in range(3)]
    null = wcka.pairwise_null("wcka", nets)
    for column in ("mean", "sd", "z", "p"):
        assert_allclose(table[column], getattr(null, column), rtol=1e-6)
    drawn = wcka.pairwise("wcka", [network(seed) for seed in range(100, 140)])
    values = drawn[np.triu_indices(40, 1)]
    error = values.std() / 40**0.5  # of the mean, generously: pairs share networks
    pairs = np.triu_indices(3, 1)
    mean, sd = np.array(table["mean"])[pairs], np.array(table["sd"])[pairs]
    assert mean.mean() == pytest.approx(values.mean(), abs=5 * error)
    assert sd.mean() == pytest.approx(values.std(), rel=0.3)


def test_p_values_are_corrected_for_the_pairs_of_a_folder(files):
    table = comparison.compare_files(files)["all"]
    pairs = np.triu_indices(3, 1)
    p, corrected = np.array(table["p"])[pairs], np.array(table["holm"])[pairs]
    order = np.argsort(p)
    highest = 0.0
    for factor, i in zip((3, 2, 1), order):
        highest = max(highest, min(1, factor * p[i]))
        assert corrected[i] == pytest.approx(highest)
    assert_allclose(table["holm"], np.array(table["holm"]).T)
    assert np.isnan(np.diag(table["holm"])).all()


def test_what_is_related_is_beyond_chance_and_what_is_not_is_within(tmp_path, capsys):
    paths = []
    for i, seed in enumerate((0, 0, 1)):
        model = network(seed, (100, 30, 3))
        with torch.no_grad():
            model[1].weight += 0.01 * i * torch.randn_like(model[1].weight)
        paths.append(saved(tmp_path / f"{i}.pt", model.state_dict()))
    assert main(["compare", *paths]) == 0
    related, *strangers = [
        line for line in capsys.readouterr().out.splitlines() if "chance (" in line
        or "chance gives (" in line]
    assert "beyond chance (" in related and ", z " in related
    assert len(strangers) == 2
    assert all("within what chance gives (" in line for line in strangers)


def test_chance_is_not_known_for_few_inputs_and_very_wide_chains(tmp_path, monkeypatch):
    few = saved(tmp_path / "few.pt", network(0, (3, 8, 2)).state_dict())
    result = comparison.compare_files([few, few])
    assert result["all"]["wcka"][0][1] == pytest.approx(1)
    assert np.isnan(result["all"]["holm"]).all()
    assert "chance: not known for networks of such shapes" in report.described(result)
    wide = saved(tmp_path / "wide.pt", network(0, (9, 8)).state_dict())
    monkeypatch.setattr("wcka.weights.chance._WIDEST", 7)
    assert np.isnan(comparison.compare_files([wide, wide])["all"]["sd"]).all()


def test_people_get_words_and_a_picture(files, capsys, tmp_path):
    state = network(0).state_dict()
    halved = {f"module.{name}": values.half() for name, values in state.items()}
    copy = saved(tmp_path / "copy.pt", {"epoch": 3, "state_dict": halved})
    assert main(["compare", files[0], copy, "--matrix", str(tmp_path / "out.png")]) == 0
    out = capsys.readouterr().out
    assert "copy.pt" in out and "neighbouring checkpoints" in out
    assert "up to 7.weight" in out and "peak memory" in out and "chance:" in out
    assert Image.open(tmp_path / "out.png").size[0] > 400
    assert main(["compare", *files]) == 0
    assert capsys.readouterr().out.count("wCKA 0.") == 3
    deeper = saved(tmp_path / "deeper.pt", network(5, (20, 8, 3)).state_dict())
    assert main(["compare", files[0], deeper]) == 0
    assert "the networks differ in depth" in capsys.readouterr().out


def layer_names(path, **options):
    chain = wiring.chain_in(checkpoints.read(path), **options)
    return [layer.name for layer in chain.layers]


def test_the_order_of_layers_is_that_of_numbers_shapes_or_the_file(tmp_path):
    weights = {f"layers.{i}.weight": torch.randn(6, 6) for i in (2, 10, 1)}
    ordered = ["layers.1.weight", "layers.2.weight", "layers.10.weight"]
    for name in ("a.safetensors", "a.pt"):
        assert layer_names(saved(tmp_path / name, weights)) == ordered
    named = {"enter.weight": torch.ones(4, 3), "exit.weight": torch.ones(5, 4),
             "enter.bias": torch.ones(4)}
    flipped = dict(reversed(named.items()))
    for name, state in (("a.pt", named), ("b.pt", flipped), ("c.safetensors", named)):
        names = layer_names(saved(tmp_path / name, state))
        assert names == ["enter.weight", "exit.weight"]  # only so do they fit
    square = {"second.weight": torch.ones(4, 4), "first.weight": torch.ones(4, 4)}
    assert layer_names(saved(tmp_path / "d.pt", square)) == list(square)
    sorted_path = saved(tmp_path / "d.safetensors", square)
    assert layer_names(sorted_path, order=["second", "first"]) == list(square)
    tied = {**square, "third.weight": square["first.weight"]}
    for path, words in (
            (sorted_path, "order of its layers is not known, as its names"),
            (saved(tmp_path / "tied.pt", tied), "are one tensor"),
            (saved(tmp_path / "e.safetensors", {
                "2.weight": torch.ones(4, 3), "1.weight": torch.ones(5, 4)}),
             r"do not fit together in order: 1.weight \(5, 4\)")):
        with pytest.raises(ValueError, match=words):
            wiring.chain_in(checkpoints.read(path))


class Code:
    """What a pickle may do: call a function when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def broken(tmp_path, files):
    """Files that cannot be compared with the first, and words of the message."""
    for end, path in zip(("pt", "safetensors"), files):
        content = Path(path).read_bytes()
        (tmp_path / f"short.{end}").write_bytes(content[:len(content) // 2])
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "empty.pt").write_bytes(b"")
    state = network(0).state_dict()
    bad = {name: values.clone() for name, values in state.items()}
    bad["3.weight"][1, 2] = torch.nan
    messages = {
        str(tmp_path / "short.pt"): "truncated",
        str(tmp_path / "short.safetensors"): "truncated",
        str(tmp_path / "text.pt"): "no state dict",
        str(tmp_path / "empty.pt"): "truncated",
        str(tmp_path / "none.pt"): "no such file",
        str(tmp_path): "a folder",
    }
    norm = nn.Sequential(nn.Linear(20, 4), nn.LayerNorm(4))
    a = torch.ones(3, 20)
    for name, content, words in (
            ("code", {"a": Code()}, "run code (posix.mkdir)"),
            ("list", [torch.ones(2)], "wanted a state dict"),
            ("words", {"a": "b"}, "'a' is no tensor with a name"),
            ("nan", bad, "3.weight holds NaN"),
            ("misfit", {"1.weight": torch.ones(4, 20), "2.weight": torch.ones(3, 5)},
             "do not fit together"),
            ("inputs", network(0, (21, 4, 3)).state_dict(), "takes 21 inputs"),
            ("norm", norm.state_dict(), "no part of a fully connected network"),
            ("conv", nn.Conv2d(1, 2, 3).state_dict(), "--arch"),
            ("biases", {"a.bias": torch.ones(3)}, "no part"),
            ("zero", {"a.weight": torch.ones(0, 20)}, "a.weight is empty"),
            ("complex", {"a.weight": a.cfloat()}, "is complex"),
            ("sparse", {"a.weight": torch.eye(20).to_sparse()}, "is sparse"),
            ("numbers", {0: a}, "no tensor with a name"),
            ("twice", {"a.weight": a, "module.a.weight": a}, "twice"),
            ("rnn", nn.RNN(20, 20, bias=False).state_dict(), "not called weight")):
        messages[saved(tmp_path / f"{name}.pt", content)] = words
    return messages


def test_bad_files_get_one_clear_line_and_nothing_runs(
        tmp_path, files, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, words in broken(tmp_path, files).items():
        assert main(["compare", files[0], path]) == 2, path
        message = capsys.readouterr().err
        assert words in message and path in message, (path, message)
        assert message.count("\n") == 1, message
    assert not (tmp_path / "executed").exists()
    assert main(["compare", files[0]]) == 2
    assert "at least two" in capsys.readouterr().err
    for options, words in (
            (["--matrix", "nowhere/out.png"], "no such folder"),
            (["--matrix", "out.foo"], "kind of image"),
            (["--freeze", "gate"], "for --arch"),
            (["--input-shape", "20"], "for --arch"),
            (["--arch", "torchvision:resnet17"], "did you mean"),
            (["--arch", "nothing:here"], "--arch nothing:here"),
            (["--arch", "torchvision:resnet18"], "not of this architecture")):
        assert main(["compare", *files, *options]) == 2
        message = capsys.readouterr().err
        assert words in message and message.count("\n") == 1


@pytest.mark.parametrize("end", ["pt", "safetensors"])
def test_all_tensors_of_a_file_are_read(tmp_path, end):
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3))
    state = model.state_dict()  # the count of batches is a scalar
    tensors = checkpoints.read(saved(tmp_path / f"a.{end}", state)).tensors()
    assert set(tensors) == set(state)
    for name, values in state.items():
        assert torch.equal(tensors[name], values)


@pytest.mark.slow
def test_networks_of_torchvision(tmp_path, capsys):
    paths = []
    nets = []
    for seed, end in enumerate(("pt", "safetensors")):
        torch.manual_seed(seed)
        nets.append(torchvision.models.squeezenet1_1(num_classes=4))
        paths.append(saved(tmp_path / f"{seed}.{end}", nets[-1].state_dict()))
    call = ["compare", *paths, "--arch", "torchvision:squeezenet1_1",
            "--input-shape", "3", "33", "33", "--layers", "--json"]
    assert main(call) == 0
    result = json.loads(capsys.readouterr().out)
    expected = wcka.wcka(*nets, input_shape=(3, 33, 33))
    assert result["all"]["wcka"][0][1] == pytest.approx(expected, abs=1e-4)
    assert set(result["layers"]) == {"features", "classifier"}
    assert main([*call[:4], "torchvision:resnet18"]) == 2
    assert "not of this architecture" in capsys.readouterr().err


ARCHITECTURES = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))

def gated():
    class Net(nn.Linear):
        def forward(self, x):
            return super().forward(x) * x.sigmoid()
    return Net(3, 3)

def nothing():
    return None

def broken():
    return {}["key"]
"""


@pytest.mark.slow
def test_an_architecture_of_the_users_from_the_shell(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(ARCHITECTURES)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    saved(tmp_path / "a.pt", model.state_dict())
    saved(tmp_path / "b.pt", model.state_dict())
    saved(tmp_path / "g.pt", nn.Linear(3, 3).state_dict())

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "wcka", "compare", *arguments], cwd=tmp_path,
            capture_output=True, text=True)

    done = call("a.pt", "b.pt", "--arch", "mine:build", "--input-shape", "1", "4", "4")
    assert done.returncode == 0 and "wCKA 1.0000" in done.stdout
    done = call("g.pt", "g.pt", "--arch", "mine:gated", "--input-shape", "3")
    assert done.returncode == 2 and "mul in Net is not linear" in done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    shape = ["--input-shape", "1", "4", "4"]
    for arch, options, words in (
            ("mine:build", [], "--input-shape"),
            ("mine:nothing", shape, "got NoneType"),
            ("mine:broken", shape, "KeyError"),
            ("mine:build", ["--input-shape", "-8"], "from 1 up"),
            ("mine:build", ["--input-shape", "2", "4", "4"], "does not take inputs")):
        assert main(["compare", "a.pt", "b.pt", "--arch", arch, *options]) == 2
        message = capsys.readouterr().err
        assert words in message and message.count("\n") == 1


@pytest.mark.parametrize("policy", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
        tmp_path, monkeypatch, policy):
    monkeypatch.setenv("OMP_WAIT_POLICY", policy or "")  # it is put back afterwards
    if policy is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    paths = [saved(tmp_path / f"{seed}.pt", network(seed).state_dict())
             for seed in (0, 1)]
    assert main(["compare", *paths]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == (policy or "PASSIVE")


THEIRS = """
import sys

from torch import nn

sys.path.append({source!r})


class Network(nn.Sequential):
    def forward(self, x):
        import imported_by_their_forward

        return super().forward(x)


def build():
    from imported_by_their_function import WIDTH

    return Network(nn.Flatten(), nn.Linear(4, WIDTH))
"""


def test_modules_are_found_where_the_user_stands_and_the_path_stays(
        tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    (source / "imported_by_their_function.py").write_text("WIDTH = 3\n")
    (tmp_path / "imported_by_their_forward.py").write_text("")
    (tmp_path / "module_of_theirs.py").write_text(THEIRS.format(source=str(source)))
    state = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).state_dict()
    path = saved(tmp_path / "a.pt", state)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    before = list(sys.path)
    result = comparison.compare_files(
        [path, path], ["module_of_theirs:build"], (1, 2, 2))
    assert result["all"]["wcka"][0][1] == pytest.approx(1)
    assert sys.path == [*before, str(source)]  # what their module added stays


TALKATIVE = """
import ctypes
import os
import subprocess
import sys

from torch import nn

def talk(where):
    print(f"print in {where}")
    sys.stdout.write(f"stdout in {where}\\n")
    sys.__stdout__.write(f"first stdout in {where}\\n")
    os.write(1, f"descriptor in {where}\\n".encode())
    ctypes.CDLL(None).puts(f"C in {where}".encode())
    subprocess.run(["echo", f"process in {where}"])

class Net(nn.Linear):
    def forward(self, x):
        talk("forward")
        return super().forward(x)

def build():
    talk("factory")
    return Net(4, 3)

def leaves():
    sys.exit("usage: train.py DATA")

talk("import")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the test calls the C library by its name")
def test_what_the_users_code_prints_is_no_part_of_the_answer(
        tmp_path, monkeypatch, capfd):
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    saved(tmp_path / "a.pt", nn.Linear(4, 3).state_dict())
    call = ["compare", "a.pt", "a.pt", "--json", "--input-shape", "4", "--arch"]
    done = subprocess.run(
        [sys.executable, "-m", "wcka", *call, "talkative:build"], cwd=tmp_path,
        capture_output=True, text=True)
    assert json.loads(done.stdout)["all"]["wcka"][0][1] == pytest.approx(1)
    for place in ("import", "factory", "forward"):
        for kind in ("print", "stdout", "descriptor", "C", "process"):
            assert f"{kind} in {place}" in done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main([*call, "talkative:build"]) == 0
    print("what comes after")
    os.write(1, b"and after that")
    out = capfd.readouterr().out
    assert out.startswith("{") and "and after that" in out
    assert "what comes after" in out and "in forward" not in out
    assert main([*call, "talkative:leaves"]) == 2
    captured = capfd.readouterr()
    assert not captured.out
    assert "cannot be built (SystemExit: usage: train.py DATA)" in captured.err


def test_the_text_tells_why_layers_are_not_compared(tmp_path, monkeypatch):
    two_layers = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    three_layers = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    two = saved(tmp_path / "2.pt", two_layers.state_dict())
    three = saved(tmp_path / "3.pt", three_layers.state_dict())

    def text(*paths, **options):
        return report.described(comparison.compare_files(paths, **options))

    assert "layer by layer" not in text(two, two)
    assert "(the networks differ in depth)" in text(two, three)
    monkeypatch.setattr(fully_connected, "_MANY", 1)
    assert "--layers asks for it)" in text(two, two)
    assert "layer by layer" not in text(two, two, by_layer=True)


def test_lists_of_known_names_end_between_names_and_say_how_many_more(
        tmp_path, capsys):
    names = [f"encoder.layers.block_{i}.feed_forward.linear_of_the_hidden_units.weight"
             for i in range(40)]
    path = saved(tmp_path / "a.pt", {name: torch.ones(3, 3) for name in names})
    networks = {f"a_network_with_a_long_name_{i:02}": {"fc.weight": torch.ones(3, 3)}
                for i in range(40)}
    several = saved(tmp_path / "b.pt", networks)
    for file, options, words, known in (
            (path, ["--order", names[7][:-8] + "x"], names[7], names),
            (several, ["--key", "a_network_with_a_long_name_3"],
             "a_network_with_a_long_name_3", networks)):
        assert main(["compare", file, file, *options]) == 2
        message = capsys.readouterr().err
        assert f"did you mean '{words}" in message
        listed, more = re.search(r"\(known: (.*) and (\d+) more\)$", message).groups()
        assert set(listed.split(", ")) <= set(known)
        assert len(listed.split(", ")) + int(more) == 40


DEPTHS = """
from torch import nn

def net(width, num_classes):
    return nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, num_classes))

def narrow(num_classes=3):
    return net(4, num_classes)

def wide(num_classes=3):
    return net(400, num_classes)
"""


def test_chance_of_architectures_does_not_depend_on_the_order(tmp_path, monkeypatch):
    (tmp_path / "depths.py").write_text(DEPTHS)
    monkeypatch.syspath_prepend(tmp_path)
    # So few that the larger network decides how many are affordable.
    monkeypatch.setattr(by_architecture, "_AFFORDABLE", 4 * 400 * 16)
    files = []
    for name, width, classes in (("narrow", 4, 3), ("wide", 400, 3), ("narrow", 4, 5)):
        model = nn.Sequential(
            nn.Linear(12, width), nn.ReLU(), nn.Linear(width, classes))
        path = saved(tmp_path / f"{name}-{classes}.pt", model.state_dict())
        files.append((path, f"depths:{name}"))
    means = []
    for permutation in itertools.permutations(files):
        paths, architectures = zip(*permutation)
        result = comparison.compare_files(paths, architectures, (12,))
        assert result["untrained"] == 6  # two of each kind
        assert result["chance"] == "untrained"
        means.append((result["all"]["mean"][0][1], result["all"]["sd"][0][1]))
    assert all(mean == means[0] for mean in means)
    once = comparison.compare_files([files[0][0]] * 3, [files[0][1]] * 3, (12,))
    assert once["untrained"] == 8  # the narrow ones are cheap


def test_memory_is_not_known_where_the_system_does_not_count_it(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    monkeypatch.setattr(comparison, "_STATUS", Path("nowhere"))
    result = comparison.compare_files(files)
    assert result["peak memory"] == result["memory before"] == 0
    assert "peak memory not known on this system" in report.described(result)


def test_folders_of_checkpoints_in_a_folder_are_left_out_aloud(tmp_path):
    for name in ("a.pt", "b.pt", "runs/c.pt", "empty/notes.txt", ".hidden/d.pt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        torch.save(nn.Linear(5, 3).state_dict(), path)
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    result = comparison.compare_files([str(tmp_path)])
    assert [Path(file).name for file in result["files"]] == ["a.pt", "b.pt"]
    assert result["left out"] == {
        str(tmp_path / "runs"): "a folder, to be named by itself"}
    assert "left out runs: a folder" in report.described(result)
