"""Results on disk: computed once for their arguments, their code and their libraries."""

import importlib
import warnings

import pandas as pd
import pytest
import torch

from wcka.experiments import cache, fingerprint
from wcka.experiments.training_runs import trained as train_by_name


def arguments(**changes):
    return {"architecture": {"factory": "mlp", "widths": [784, 4, 2]}, "seeds": [0, 1],
            "dataset": "mnist", "classes": [0, 1], "epochs": 1, **changes}


def test_trained_populations_are_computed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    first = train_by_name(**arguments())
    monkeypatch.setattr("wcka.experiments.training_runs.train", None)  # nothing may be trained from here on
    again = train_by_name(**arguments())
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)
    with pytest.raises(TypeError):
        train_by_name(**arguments(seed=1))


def test_a_damaged_result_is_reported_and_computed_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    first = train_by_name(**arguments())
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="cannot be read"):
        again = train_by_name(**arguments())
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_by_name(**arguments())


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
    assert "name='train'" in code and "name='Population'" in code and "name='nearest'" in code
    assert "name='agreement'" not in code and "name='agreement'" in fingerprint.whole_code()


def test_no_result_depends_on_what_is_only_drawn_or_worded():
    """Figures, claims, verdicts, the builder and the command line are in no key of a result."""
    code = fingerprint.whole_code()
    for name in ("heat_map", "Claim", "strongest", "build", "choose", "main"):
        assert f"FunctionDef(name='{name}'" not in code or name == "build", name
    assert not any(name.startswith("book") for name in fingerprint._closure(
        module for room in fingerprint.ROOMS for module in fingerprint._modules(room)))


@pytest.mark.parametrize("library", ["torch", "numpy", "scipy"])
def test_a_result_of_another_library_version_is_another_result(tmp_path, monkeypatch, library):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    trained_population = train_by_name.kept
    train_by_name(**arguments())
    assert trained_population(**arguments())
    monkeypatch.setattr(importlib.import_module(library), "__version__", "9.9.9")
    assert not trained_population(**arguments())


def test_scikit_image_counts_only_where_it_is_used(monkeypatch):
    before = [fingerprint.code_of([name]) for name in ("networks.corruptions", "networks.training")]
    monkeypatch.setattr("skimage.__version__", "9.9.9")
    after = [fingerprint.code_of([name]) for name in ("networks.corruptions", "networks.training")]
    assert before[0] != after[0] and before[1] == after[1]


@pytest.mark.parametrize(("other", "same"), [
    ('def f(x):\n    """Another word."""\n    # why\n    return x + 1\n', True),
    ("def f(x):\n    return (\n        x + 1\n    )\n", True),
    ("def f(x):\n    return x + 2\n", False),
    ("def f(y):\n    return y + 1\n", False),
    ('def f(x):\n    "a"\n    "b"\n    return x + 1\n', False),
])
def test_words_and_layout_are_no_code(other, same):
    code = 'def f(x):\n    """One word."""\n    return x + 1\n'
    assert (fingerprint.stripped_code(code) == fingerprint.stripped_code(other)) == same


def test_what_is_remembered_belongs_to_the_folder_of_results(tmp_path, monkeypatch):
    made = []

    @cache.remembered(2)
    def of(model: dict, device: str = "cpu") -> tuple:
        made.append(model)
        return model["widths"], device, len(made)

    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "one"))
    assert of({"widths": (3, 2)}) == of({"widths": [3, 2]}, device="cpu") == ([3, 2], "cpu", 1)
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "two"))
    assert of({"widths": [3, 2]}) == ([3, 2], "cpu", 2)
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "one"))
    assert of({"widths": [3, 2]}) == ([3, 2], "cpu", 1)
