"""The command line: checked parameters, chapters that run whole or not at all, one environment."""

import re
import tomllib
from itertools import chain

import jupytext
import nbformat
import pytest
import yaml
from jupytext.compare import compare_notebooks

from wcka import cli
from wcka.book import checkout, claims, diff, execution, parameters, verdicts
from wcka.networks import sources

CHAPTERS = checkout.chapters()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_chapter_runs_at_the_smoke_profile(path, smoke):
    notebook = nbformat.read(smoke(path), 4)
    execution.check_executed(notebook, path.name)
    assert notebook.cells[-1].source.startswith("## What ran")
    rows = diff.claims(notebook)
    assert len(rows) > 3 and {row.verdict for row in rows} <= set(claims.VERDICTS)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_pairs_hold_the_same_cells_and_no_outputs(path):
    pair = nbformat.read(path.with_suffix(".ipynb"), 4)
    colab = "colab" in pair.cells[0].metadata.get("tags", [])
    assert colab or not checkout.repository(), "the project has an address: make pair, and commit"
    del pair.cells[:colab]
    compare_notebooks(pair, jupytext.read(path), "py:percent")
    assert not any(cell.get("outputs") for cell in pair.cells)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_figures_have_captions_and_alternative_text(path):
    for cell in jupytext.read(path).cells:
        if "plt.show()" in cell.source:
            assert cell.metadata["mystnb"]["figure"]["caption"]
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
@pytest.mark.parametrize("profile", ["quick", "smoke", "paper"])
def test_profiles_name_known_parameters_of_the_right_type_and_range(path, profile):
    known = parameters.parameters(path)
    assert all(p.comment for p in known.values())
    parameters.vet(path, parameters.choose(path, profile, []))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_numbers_in_prose_are_glued(path):
    """A decimal number typed into the text would be a result that no run computed."""
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"\$[^$]*\$|`[^`]*`|\(.*?\)", "", cell.source, flags=re.S)
            typed = [n for n in re.findall(r"\b\d+\.\d+\b", prose)  # the paper's are quoted
                     if not re.search(rf"(paper|section)[^.]*{n}", prose)]
            assert not typed, typed


def test_values_are_typed_and_only_differences_are_kept(chapter):
    path = chapter("1", "'07': {seeds: 9, kind: b}").path
    given = [("rate", "2"), ("names", "[3]"), ("fast", "True"), ("kind", "3")]
    assert parameters.choose(path, "tiny", given) == {
        "seeds": 9, "rate": 2.0, "names": [3], "fast": True, "kind": "3"}
    assert parameters.choose(path, "quick", [("seeds", "5")]) == {}


@pytest.mark.parametrize("arguments, words", [
    (["run", "07", "-p", "seed", "3"], "did you mean 'seeds'"),
    (["run", "07", "-p", "seeds", "three"], "parameter seeds: wanted int.*'three'"),
    (["run", "07", "-p", "seeds", "True"], "wanted int"),
    (["run", "07", "-p", "names", "[1.5]"], r"wanted list\[int\]"),
    (["run", "07", "--profile", "tinny"], "did you mean 'tiny'"),
    (["run", "77"], "unknown chapter '77'"),
])
def test_bad_calls_are_refused_before_anything_runs(chapter, arguments, words, capsys):
    chapter("raise SystemError('must not run')")
    assert cli.main(arguments) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not checkout.BUILD.exists()


@pytest.mark.parametrize("command", [["run", "07"], ["book"]])
@pytest.mark.parametrize("line", ['dataset: str = "fashion"  # images',
                                  'other_datasets: list[str] = ["fashion"]  # images'])
def test_data_are_fetched_before_anything_runs(chapter, monkeypatch, capsys, command, line):
    path = chapter("raise SystemError('must not run')").path
    path.write_text(path.read_text().replace('kind: str = "a"  # which', line))
    monkeypatch.setitem(sources.DATASETS, "fashion", sources.DATASETS["fashion"]._replace(sources=()))
    monkeypatch.setenv("WCKA_DATA", str(path.parent / "empty"))
    assert cli.main(command) == 1
    assert "no FashionMNIST in" in capsys.readouterr().err
    assert not checkout.BUILD.exists()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapters_refuse_every_absurd_value_without_a_kernel(path):
    """Of each parameter in turn: too small, too large, nothing, nonsense."""
    absurd = {int: [-7, 10**12], float: [-7.0, 1e12], str: ["nonsense"], bool: []}
    for name, parameter in parameters.parameters(path).items():
        for value in absurd.get(parameter.type, [[], ["nonsense"], [-7], [[-7]], [[]]]):
            if isinstance(parameter.type, type) or parameters.is_a(value, parameter.type):
                with pytest.raises(checkout.UsageError) as refused:
                    parameters.vet(path, {name: value})
                    pytest.fail(f"{name} = {value!r} was taken")
                assert path.stem in str(refused.value)


def test_a_run_says_what_ran_and_shows_changed_parameters(chapter):
    chapter("seeds * 2")
    assert cli.main(["run", "7", "-p", "seeds", "21"]) == 0
    notebook = nbformat.read(checkout.BUILD / "runs" / "07-tiny.ipynb", 4)
    assert any("# Parameters of this run\nseeds = 21" in cell.source for cell in notebook.cells)
    assert any(out.get("data", {}).get("text/plain") == "42"
               for cell in notebook.cells for out in cell.get("outputs", []))
    assert "<code>seeds: int = 21</code> | models (default: 5)" in notebook.cells[-1].source


def test_a_failed_chapter_leaves_no_result_but_its_notebook(chapter, capsys):
    chapter("seeds / 0")
    assert cli.main(["run", "07"]) == 1
    assert "failed: cell 1: ZeroDivision" in capsys.readouterr().err
    assert [p.name for p in (checkout.BUILD / "runs").iterdir()] == ["07-tiny.failed.ipynb"]


def test_a_chapter_is_run_again_only_when_something_changed(chapter, monkeypatch):
    path = chapter("seeds").path
    output = checkout.BUILD / "x.ipynb"
    execution.run_chapter(path, {}, "quick", output)
    assert execution.is_fresh(output, execution.key_of(path, {}, "quick"))
    assert not execution.is_fresh(output, execution.key_of(path, {"seeds": 6}, "quick"))
    path.write_text(path.read_text() + "\n# one more line\n")
    assert not execution.is_fresh(output, execution.key_of(path, {}, "quick"))
    output.write_text("not a notebook")
    assert not execution.is_fresh(output, "")


def executed(**changes):
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    cell.update(changes)
    return nbformat.v4.new_notebook(cells=[cell])


def test_gates_refuse_failed_and_unexecuted_notebooks():
    execution.check_executed(executed(), "ok")
    error = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
    with pytest.raises(RuntimeError, match="ended in an error"):
        execution.check_executed(executed(outputs=[error]), "x")
    with pytest.raises(RuntimeError, match="never ran"):
        execution.check_executed(executed(execution_count=None), "x")
    failed = executed()
    failed.metadata["papermill"] = {"exception": True}
    with pytest.raises(RuntimeError, match="papermill reports"):
        execution.check_executed(failed, "x")


def test_a_parameters_cell_must_hold_annotated_literals(chapter):
    path = chapter("1").path
    path.write_text(path.read_text().replace("seeds: int = 5", "seeds = 5"))
    with pytest.raises(ValueError, match="not an annotated literal: seeds = 5"):
        parameters.parameters(path)


def test_params_lists_what_can_be_set(chapter, capsys):
    chapter("1")
    assert cli.main(["params", "07"]) == 0
    assert "rate: float = 0.5\n    speed" in capsys.readouterr().out


def test_claims_need_a_known_verdict():
    assert [verdicts.verdict(*v) for v in ([True, True], [True, False], [False])] == [
        "holds", "partly", "fails"]
    with pytest.raises(ValueError, match="'maybe'"):
        claims.show([claims.Claim("1", "it says", "we found", "maybe")])


# ------------------------------------------------------------------- one environment


def requirement(text):
    """Name and set of version bounds, written one way."""
    name, bounds = re.match(r"([\w.-]+)\s*(.*)", text).groups()
    return name.lower().replace("_", "-"), frozenset(bounds.replace(" ", "").split(",")) - {""}


def dependencies():
    """All that pyproject.toml names, extras included, and the Pythons it allows."""
    project = tomllib.loads((checkout.ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    return [*project["dependencies"], *extras], project["requires-python"]


def test_environment_and_pyproject_name_the_same_packages():
    ours, python = dependencies()
    conda = yaml.safe_load((checkout.ROOT / "environment.yml").read_text())
    *packages, of_pip = conda["dependencies"]
    assert of_pip["pip"][0] == "-e ."
    theirs = dict(map(requirement, [*packages, *of_pip["pip"][1:]]))
    assert theirs.pop("python") == requirement("python" + python)[1]
    for tool in ("pip", "cxx-compiler"):
        theirs.pop(tool)
    theirs["torch"] = theirs.pop("pytorch-cpu")
    assert theirs == dict(map(requirement, ours))
    assert conda["name"] == "wcka" and conda["channels"] == ["conda-forge"]


def test_every_dependency_is_pinned_within_its_bounds():
    from packaging.requirements import Requirement

    lines = (checkout.ROOT / "constraints.txt").read_text().splitlines()
    pins = {name: version for name, _, version in
            (line.partition("==") for line in lines if "==" in line)}
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for each in map(Requirement, dependencies()[0]):
        assert each.specifier.contains(pins[each.name]), each
