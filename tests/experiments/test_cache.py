"""Results on disk, computed once per arguments, code and versions of libraries."""

import functools
import importlib
import os
import struct
import time
import warnings

import pandas as pd
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from wcka.experiments import cache, fingerprint
from wcka.experiments.jobs import run_jobs
from wcka.experiments.training_runs import trained as train_by_name
from wcka.networks.populations import Population, initialise


def arguments(**changes):
    """Return arguments of two tiny networks, trained for one epoch."""
    return {"architecture": {"factory": "mlp", "widths": [784, 4, 2]}, "seeds": [0, 1],
            "dataset": "mnist", "classes": [0, 1], "epochs": 1, **changes}


def assert_same_state(first, second):
    """Check that two populations have the same weights."""
    assert first.state.keys() == second.state.keys()
    for name in first.state:
        assert torch.equal(first.state[name], second.state[name]), name


def test_trained_populations_are_computed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    first = train_by_name(**arguments())
    # Nothing can be trained from here on.
    monkeypatch.setattr("wcka.experiments.training_runs.train", None)
    again = train_by_name(**arguments())
    assert_same_state(first, again)
    with pytest.raises(TypeError):
        train_by_name(**arguments(seed=1))


def test_a_damaged_result_is_reported_and_computed_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    first = train_by_name(**arguments())
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="cannot be read"):
        again = train_by_name(**arguments())
    assert_same_state(first, again)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_by_name(**arguments())


def table_of(n):
    """Return a table of all types that results have."""
    return pd.DataFrame({
        "count": range(n), "value": [0.5] * (n - 1) + [float("nan")],
        "name": ["a"] * (n - 1) + [None], "mixed": ["b"] * (n - 1) + [float("nan")],
        "right": [True] * n, "kind": pd.Categorical(["x"] * n)})


def tensor_of(n):
    return torch.linspace(0, 1, n).reshape(2, -1).to(torch.bfloat16)


def population_of(n):
    return initialise({"factory": "mlp", "widths": [3, 2]}, seeds=list(range(n)))


RESULTS = pytest.mark.parametrize("compute", [table_of, tensor_of, population_of])


def content_of(result):
    """Return what two equal results have in common, as text."""
    if isinstance(result, Population):
        state = sorted(result.state.items())
        return str((result.architecture, state, result.members.to_dict()))
    return str(result)


def tables_without_compression(monkeypatch):
    """Have tables written so that one byte of the file is one byte of the values."""
    write = functools.partial(
        pyarrow.parquet.write_table, compression="none", use_dictionary=False)
    monkeypatch.setattr(pyarrow.parquet, "write_table", write)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@RESULTS
def test_sound_results_are_read_without_a_word(tmp_path, monkeypatch, compute):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "n=3"))
    function = cache.cached(compute)
    first = function(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert content_of(function(6)) == content_of(first)
    assert len(list((tmp_path / "n=3").iterdir())) == 1


@pytest.fixture
def saved_result(tmp_path, monkeypatch, compute):
    """A cached function, the content of its result, and the file that holds it."""
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    tables_without_compression(monkeypatch)
    function = cache.cached(compute)
    content = content_of(function(6))
    (path,) = tmp_path.iterdir()
    return function, content, path


@RESULTS
def test_no_changed_byte_of_a_result_is_taken(saved_result):
    _, expected, path = saved_result
    sound = path.read_bytes()
    silent = 0
    for position in range(0, len(sound), 7):
        path.write_bytes(sound)
        flip(path, position)
        try:
            result = cache._read(path)
        except Exception:
            continue
        # A byte that holds nothing, such as an unused statistic of parquet
        assert content_of(result) == expected, position
        silent += 1
    assert silent < len(sound) / 7 / 2


@RESULTS
def test_a_flipped_value_is_reported_and_computed_anew(saved_result, compute):
    function, expected, path = saved_result
    value_at = path.stat().st_size - 1
    if compute is table_of:
        value_at = path.read_bytes().index(struct.pack("<2d", 0.5, 0.5))
    flip(path, value_at)
    with pytest.warns(UserWarning, match="content and its digest differ"):
        assert content_of(function(6)) == expected
    assert content_of(cache._read(path)) == expected


@RESULTS
def test_a_result_in_the_place_of_another_is_not_taken(tmp_path, monkeypatch, compute):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    function = cache.cached(compute)
    function(6)
    (path,) = tmp_path.iterdir()
    expected = content_of(function(8))
    for other in set(tmp_path.iterdir()) - {path}:
        other.write_bytes(path.read_bytes())
    with pytest.warns(UserWarning, match="it holds another result"):
        assert content_of(function(8)) == expected


def folder_in_the_place_of(path):
    path.unlink()
    path.mkdir()


def pipe_in_the_place_of(path):
    path.unlink()
    os.mkfifo(path)


def device_in_the_place_of(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def table_without_seconds(path):
    pd.DataFrame({"count": [1]}).to_parquet(path)


def tensors_of_somebody_else(path):
    save_file({"values": torch.zeros(3)}, path)


UNIX = pytest.mark.skipif(os.name != "posix", reason="no such files there")
NOT_KEPT = pytest.mark.filterwarnings("ignore:.*the result is not kept")


@RESULTS
@NOT_KEPT
@pytest.mark.parametrize("replace", [
    folder_in_the_place_of, table_without_seconds, tensors_of_somebody_else,
    pytest.param(pipe_in_the_place_of, marks=UNIX),
    pytest.param(device_in_the_place_of, marks=UNIX)])
def test_something_else_in_the_place_of_a_result_is_reported(
        tmp_path, monkeypatch, compute, replace):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    function = cache.cached(compute)
    expected = content_of(function(6))
    (path,) = tmp_path.iterdir()
    replace(path)
    with pytest.warns(UserWarning, match="cannot be read"):
        assert content_of(function(6)) == expected


@pytest.mark.parametrize("folder", ["a", "a\x1b[2J", "a\nb"])
def test_what_is_said_of_a_damaged_table_is_one_line(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / folder))
    tables_without_compression(monkeypatch)
    function = cache.cached(table_of)
    function(6)
    (path,) = (tmp_path / folder).iterdir()
    sound = path.read_bytes()
    for position in range(4, len(sound), 40):
        path.write_bytes(sound)
        flip(path, position)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function(6)
        for warning in caught:
            assert str(warning.message).isprintable()


@NOT_KEPT
def test_a_folder_in_the_place_of_a_unit_stops_no_jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    unit = cache.cached(table_of)
    expected = run_jobs(unit, [{"n": 6}], jobs=1)
    (path,) = tmp_path.iterdir()
    folder_in_the_place_of(path)
    assert not unit.kept(6)
    with pytest.warns(UserWarning, match="cannot be read"):
        stacked = run_jobs(unit, [{"n": 6}], jobs=1)
    pd.testing.assert_frame_equal(stacked, expected)


def test_files_of_killed_processes_are_removed_once_they_are_old(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    function = cache.cached(table_of)
    names = [".trained-0123.safetensors.77.partial", ".table_of-0123.77.partial",
             ".seen-0123"]
    for name in names:
        (tmp_path / name).touch()
    function(6)
    # They may still be being written.
    assert {path.name for path in tmp_path.iterdir()} > set(names)
    for name in names:
        os.utime(tmp_path / name, (0, 0))
    function(8)
    suffixes = [path.suffix for path in tmp_path.iterdir()]
    assert suffixes == [".parquet", ".parquet"]


def test_tables_are_cached_by_arguments_and_source(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    calls = []

    @cache.cached
    def table(a, b=2):
        calls.append((a, b))
        return pd.DataFrame({"a": [a], "b": [b], "name": ["x"]})

    pd.testing.assert_frame_equal(table(1), table(a=1, b=2))
    assert calls == [(1, 2)]
    table(1, b=3)
    monkeypatch.setattr(cache, "whole_code", lambda: "another state of the code")
    table(1)
    assert calls == [(1, 2), (1, 3), (1, 2)]


def test_tensors_are_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    calls = []

    @cache.cached
    def numbers(n):
        calls.append(n)
        return torch.arange(n).reshape(2, -1).mT

    assert not numbers.kept(6)
    for _ in range(2):
        assert torch.equal(numbers(6), torch.tensor([[0, 3], [1, 4], [2, 5]]))
    assert calls == [6] and numbers.kept(6) and len(list(tmp_path.iterdir())) == 1


def test_a_result_depends_on_the_modules_it_imports_only():
    code = fingerprint.code_of(["networks.training"])
    for name in ("train", "Population", "nearest"):
        assert f"name='{name}'" in code, name
    assert "name='agreement'" not in code
    assert "name='agreement'" in fingerprint.whole_code()


def test_no_result_depends_on_what_is_only_drawn_or_worded():
    """Figures, claims, verdicts, builder and command line are in no result's key."""
    code = fingerprint.whole_code()
    for name in ("heat_map", "Claim", "strongest", "scorecard", "choose", "main"):
        assert f"Def(name='{name}'" not in code, name
    for name in ("mantel_test", "Population", "wcka"):  # the names would be seen
        assert f"Def(name='{name}'" in code, name
    modules = []
    for room in fingerprint.ROOMS:
        modules += fingerprint._modules(room)
    rooms = {name.split(".")[0] for name in fingerprint._closure(modules)}
    assert rooms == set(fingerprint.ROOMS)


@pytest.mark.parametrize("library", ["torch", "numpy", "scipy"])
def test_a_result_of_another_library_version_is_another_result(
        tmp_path, monkeypatch, library):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    trained_population = train_by_name.kept
    train_by_name(**arguments())
    assert trained_population(**arguments())
    monkeypatch.setattr(importlib.import_module(library), "__version__", "9.9.9")
    assert not trained_population(**arguments())


def test_scikit_image_counts_only_where_it_is_used(monkeypatch):
    corruptions = fingerprint.code_of(["networks.corruptions"])
    training = fingerprint.code_of(["networks.training"])
    monkeypatch.setattr("skimage.__version__", "9.9.9")
    assert fingerprint.code_of(["networks.corruptions"]) != corruptions
    assert fingerprint.code_of(["networks.training"]) == training


def test_results_that_learn_from_texts_of_python_depend_on_its_version(monkeypatch):
    modules = {"experiments.language_families": True, "experiments.strangers": True,
               "networks.training": False}
    codes = {module: fingerprint.code_of([module]) for module in modules}
    monkeypatch.setattr("platform.python_version", lambda: "9.9.9")
    for module, has_changed in modules.items():
        assert (fingerprint.code_of([module]) != codes[module]) == has_changed


@pytest.mark.parametrize(("variant", "same"), [
    ('def f(x):\n    """Another word."""\n    # why\n    return x + 1\n', True),
    ("def f(x):\n    return (\n        x + 1\n    )\n", True),
    ("def f(x):\n    return x + 2\n", False),
    ("def f(y):\n    return y + 1\n", False),
    ('def f(x):\n    "a"\n    "b"\n    return x + 1\n', False),
])
def test_words_and_layout_are_no_code(variant, same):
    code = 'def f(x):\n    """One word."""\n    return x + 1\n'
    stripped = fingerprint.stripped_code(code)
    assert (fingerprint.stripped_code(variant) == stripped) == same


def test_what_is_remembered_belongs_to_the_folder_of_results(tmp_path, monkeypatch):
    calls = []

    @cache.remembered(2)
    def widths_of(model: dict, device: str = "cpu") -> tuple:
        calls.append(model)
        return model["widths"], device, len(calls)

    first = ([3, 2], "cpu", 1)
    second = ([3, 2], "cpu", 2)
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "a"))
    assert widths_of({"widths": (3, 2)}) == first
    assert widths_of({"widths": [3, 2]}, device="cpu") == first
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "b"))
    assert widths_of({"widths": [3, 2]}) == second
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "a"))
    assert widths_of({"widths": [3, 2]}) == first


def test_a_table_notes_the_seconds_it_took(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))

    @cache.cached
    def slow(n):
        time.sleep(0.1)
        return pd.DataFrame({"n": [n]})

    seconds = slow(1).attrs["seconds"]
    assert 0.1 <= seconds < 10
    assert slow(1).attrs["seconds"] == seconds  # read back with the table


def test_a_folder_that_cannot_be_used_is_reported_before_anything_runs(
        tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "file" / "results"))
    calls = []

    @cache.cached
    def table():
        calls.append(1)
        return pd.DataFrame()

    with pytest.raises(OSError, match=r"cannot use the folder of results.*WCKA_CACHE"):
        table()
    assert calls == []
