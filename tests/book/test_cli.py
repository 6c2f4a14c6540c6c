"""The command line, and the sources and parameters of chapters."""

import re
import tomllib
import types

import jupytext
import nbformat
import pytest
import yaml
from jupytext.compare import compare_notebooks
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from wcka import cli
from wcka.book import checkout, claims, diff, execution, parameters
from wcka.networks import sources

EVERY_CHAPTER = pytest.mark.parametrize(
    "path", checkout.chapters(), ids=lambda path: path.stem)

# -------------------------------------------------------------- the sources of chapters


@EVERY_CHAPTER
def test_every_chapter_runs_at_the_smoke_profile(path, smoke):
    notebook = nbformat.read(smoke(path), 4)
    execution.check_executed(notebook, path.name)
    assert notebook.cells[-1].source.startswith("## What ran")
    rows = diff.claims(notebook)
    assert rows
    assert {row.verdict for row in rows} <= set(claims.VERDICTS)


@EVERY_CHAPTER
def test_pairs_hold_the_same_cells_and_no_outputs(path):
    pair = nbformat.read(path.with_suffix(".ipynb"), 4)
    if "colab" in pair.cells[0].metadata.get("tags", []):
        del pair.cells[0]
    else:
        assert not checkout.repository(), (
            "the project has an address: make pair, and commit")
    compare_notebooks(pair, jupytext.read(path), "py:percent")
    assert not any(cell.get("outputs") for cell in pair.cells)


@EVERY_CHAPTER
def test_figures_have_captions_and_alternative_text(path):
    for cell in jupytext.read(path).cells:
        if "plt.show()" in cell.source:
            assert cell.metadata["mystnb"]["figure"]["caption"]
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40


@EVERY_CHAPTER
def test_numbers_in_prose_are_glued(path):
    """A decimal number typed into the text would be a result that no run computed."""
    for cell in jupytext.read(path).cells:
        if cell.cell_type != "markdown":
            continue
        prose = re.sub(r"\$[^$]*\$|`[^`]*`|\(.*?\)", "", cell.source, flags=re.S)
        for number in re.findall(r"\b\d+\.\d+\b", prose):
            is_quoted = re.search(rf"(paper|section)[^.]*{number}", prose)
            assert is_quoted, number


# --------------------------------------------------------------- parameters of chapters


@EVERY_CHAPTER
@pytest.mark.parametrize("profile", ["quick", "smoke", "large"])
def test_profiles_name_known_parameters_of_the_right_type_and_range(path, profile):
    for parameter in parameters.read_parameters(path).values():
        assert parameter.comment
    parameters.vet(path, parameters.choose(path, profile, []))


def absurd_values(parameter):
    """Values of a parameter's type: too small, too large, empty, nonsense."""
    if isinstance(parameter.type, types.GenericAlias):
        candidates = [[], ["nonsense"], [-7], [[-7]], [[]]]
        return [
            value for value in candidates if parameters.is_a(value, parameter.type)]
    values_of_type = {
        int: [-7, 10**12], float: [-7.0, 1e12], str: ["nonsense"], bool: []}
    return values_of_type[parameter.type]


@EVERY_CHAPTER
def test_chapters_refuse_every_absurd_value_without_a_kernel(path):
    """The message names the parameter, and the value or its range."""
    faults = []
    for name, parameter in parameters.read_parameters(path).items():
        for value in absurd_values(parameter):
            try:
                parameters.vet(path, {name: value})
            except checkout.UsageError as error:
                message = str(error).removeprefix(f"chapter {path.stem}: ")
            else:
                message = "accepted"
            item = value[0] if isinstance(value, list) and value else value
            shows_value_or_range = repr(item) in message or "wanted" in message
            if not re.search(rf"\b{name}\b", message) or not shows_value_or_range:
                faults.append(f"{name} = {value!r}: {message}")
    assert not faults, "\n".join(faults)


def test_values_are_typed_and_only_differences_are_kept(chapter):
    path = chapter("1", "'07': {seeds: 9, kind: b}").path
    assignments = [("rate", "2"), ("names", "[3]"), ("fast", "True"), ("kind", "3")]
    assert parameters.choose(path, "tiny", assignments) == {
        "seeds": 9, "rate": 2.0, "names": [3], "fast": True, "kind": "3"}
    assert parameters.choose(path, "quick", [("seeds", "5")]) == {}


def test_a_parameters_cell_must_hold_annotated_literals(chapter):
    path = chapter("1").path
    path.write_text(path.read_text().replace("seeds: int = 5", "seeds = 5"))
    with pytest.raises(ValueError, match="not an annotated literal: seeds = 5"):
        parameters.read_parameters(path)


@pytest.mark.parametrize(("header", "count"), [
    ("# %%", 0),
    ('# %% tags=["parameters"]\nseed: int = 1\n\n# %% tags=["parameters"]', 2),
])
def test_a_chapter_needs_exactly_one_parameters_cell(chapter, header, count):
    path = chapter("1").path
    path.write_text(path.read_text().replace('# %% tags=["parameters"]', header))
    message = f"wanted one cell tagged parameters, found {count}"
    with pytest.raises(ValueError, match=message):
        parameters.read_parameters(path)


def test_a_comment_above_a_parameter_explains_it(chapter):
    path = chapter("1").path
    text = path.read_text().replace(
        "rate: float = 0.5  # speed", "# speed of\n# learning\nrate: float = 0.5")
    path.write_text(text)
    assert parameters.read_parameters(path)["rate"].comment == "speed of learning"


def test_params_lists_what_can_be_set(chapter, capsys):
    chapter("1")
    assert cli.main(["params", "07"]) == 0
    assert "rate: float = 0.5\n    speed" in capsys.readouterr().out


# ----------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("arguments", "pattern"), [
    (["run", "07", "-p", "seed", "3"], "did you mean 'seeds'"),
    (["run", "07", "-p", "seeds", "three"], "parameter seeds: wanted int.*'three'"),
    (["run", "07", "-p", "seeds", "True"], "wanted int"),
    (["run", "07", "-p", "names", "[1.5]"], r"wanted list\[int\]"),
    (["run", "07", "-p", "seeds", "not " * 50_000 + "1"], "wanted int"),
    (["run", "07", "-p", "seeds", "1+" * 100_000 + "1"], "wanted int"),
    (["run", "07", "-p", "names", "{[1]}"], r"wanted list\[int\]"),
    (["run", "07", "-p", "rate", "1" + "0" * 400], "wanted float"),
    (["run", "07", "--profile", "tinny"], "did you mean 'tiny'"),
    (["run", "77"], "unknown chapter '77'"),
])
def test_bad_calls_are_refused_before_anything_runs(
        chapter, arguments, pattern, capsys):
    chapter("raise SystemError('must not run')")
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert re.search(pattern, message)
    assert message.count("\n") == 1 and len(message) < 1000
    assert not checkout.BUILD.exists()


@pytest.mark.parametrize("name", [
    "07", "7", "'07'", '"7"', "07-tiny", "'07-tiny'"])
def test_a_profile_names_chapters_as_the_command_line_does(chapter, name):
    path = chapter("1", f"{name}: {{seeds: 9}}").path
    assert parameters.choose(path, "tiny", []) == {"seeds": 9}


@pytest.mark.parametrize("profile", ["", "# nothing", "{}", "'07':", "07: {}"])
def test_a_profile_may_set_nothing(chapter, profile):
    path = chapter("1", profile).path
    assert parameters.choose(path, "tiny", []) == {}


@pytest.mark.parametrize(("profile", "pattern"), [
    ("~", "wanted the parameters of each chapter"),
    ("'11': {seeds: 9}", "unknown chapter '11'"),
    ("07-tin: {seeds: 9}", "unknown chapter '07-tin'; did you mean '07-tiny'"),
    ("7.5: {seeds: 9}", "unknown chapter '7.5'"),
    ("notebooks/07: {seeds: 9}", "unknown chapter 'notebooks/07'"),
    ("true: {seeds: 9}", "unknown chapter 'true'"),
    ("[7, 8]: {seeds: 9}", "unknown chapter"),
    ("? {a: 1}\n: {seeds: 9}", "unknown chapter"),
    ("<<: {'07': {seeds: 9}}", "unknown chapter '<<'"),
    ("'': {seeds: 9}", "unknown chapter ''"),
    ("07: {seeds: 9}\n'7': {seeds: 8}", "chapter 07 is there twice"),
    ("07: {seeds: 9, seeds: 8}", "parameter seeds is there twice"),
    ("07: 5", "wanted parameters, .* got 5"),
    ("07: [seeds, 9]", "wanted parameters, .* got "),
    ("07: seeds 9", "wanted parameters, .* got 'seeds 9'"),
    ("07: {1: 9}", "unknown parameter of chapter 07-tiny 1"),
    ("07: {~: 9}", "unknown parameter of chapter 07-tiny None"),
    ("07: {on: 9}", "unknown parameter of chapter 07-tiny True"),
    ("07: {[a]: 9}", "unknown parameter|not YAML"),
    ("07: {{a: 1}: 9}", "not YAML"),
    ("07: {sede: 9}", "did you mean 'seeds'"),
    ("07: {seeds: ~}", "parameter seeds: wanted int"),
    ("07: {seeds: 2020-13-45}", "month must be in"),
    ("07: &a {seeds: *a}", "recursive"),
    ("- 07", "wanted the parameters of each chapter"),
    ("text", "wanted the parameters of each chapter"),
    ("07: {seeds: 9", "not YAML"),
    ("07: !!python/object/apply:os.getcwd []", "not YAML"),
    ("07: {seeds: 9}\n---\n07: {seeds: 8}", "not YAML"),
    ("07: *nothing", "not YAML"),
    ("\t07: {seeds: 9}", "not YAML"),
    ("07: {seeds: !!int ''}", "not YAML"),
    ("07: {fast: !!bool maybe}", "not YAML"),
    ("07: {seeds: !!timestamp now}", "not YAML"),
    ("07: {names: " + "[" * 5000 + "]" * 5000 + "}", "not YAML.*recursion"),
    ('07: {"\\e[2J": 9, "\\e[2J": 8}', r"parameter \\x1b\[2J is there twice"),
    ("07: {seeds: [\u202e}", r"not YAML.*\\u202e"),
    (f"07: {{rate: 1{'0' * 400}}}", "wanted float"),
    (f"07: {{names: 0x{'f' * 9000}}}", "got a number of too many digits"),
    (f"07: {{seeds: {'x' * 10**6}}}", "wanted int.*xxx"),
    ("07: {seeds: \x00}", "not YAML"),
])
@pytest.mark.parametrize("command", [["run", "07"], ["book"]])
def test_no_part_of_a_profile_is_ignored(chapter, capsys, command, profile, pattern):
    chapter("raise SystemError('must not run')", profile)
    assert cli.main([*command, "--profile", "tiny"]) == 2
    message = capsys.readouterr().err
    assert re.search(pattern, message)
    assert message.count("\n") == 1
    assert not checkout.BUILD.exists()


def doubled(text, form, times=40):
    """Return YAML that holds a value twice, that twice again, and so on."""
    for level in range(times):
        text = form.replace("N", str(level)).replace("VALUE", text)
    return text


@pytest.mark.parametrize("profile", [
    "07: {names: " + doubled("[1]", "[&aN VALUE, *aN]") + "}",
    "07: " + doubled("[1]", "[&aN VALUE, *aN]"),
    "07: " + doubled("{seeds: 9}", "{kN: &aN VALUE, <<: [*aN, *aN]}"),
], ids=["list", "chapter", "merge"])
def test_a_profile_of_too_many_values_is_refused(chapter, profile):
    path = chapter("1", profile).path
    with pytest.raises(checkout.UsageError, match="wanted at most 100,000 values"):
        parameters.choose(path, "tiny", [])


def test_a_profile_may_repeat_values(chapter):
    profile = "07: {<<: &common {seeds: 9}, names: [1, 3]}"
    path = chapter("1", profile).path
    assert parameters.choose(path, "tiny", []) == {"seeds": 9, "names": [1, 3]}


@pytest.mark.parametrize("command", [["run", "07"], ["book"]])
@pytest.mark.parametrize("line", [
    'dataset: str = "fashion"  # images',
    'other_datasets: list[str] = ["fashion"]  # images',
])
def test_data_are_fetched_before_anything_runs(
        chapter, monkeypatch, capsys, command, line):
    path = chapter("raise SystemError('must not run')").path
    path.write_text(path.read_text().replace('kind: str = "a"  # which', line))
    unreachable = sources.DATASETS["fashion"]._replace(sources=())
    monkeypatch.setitem(sources.DATASETS, "fashion", unreachable)
    monkeypatch.setenv("WCKA_DATA", str(path.parent / "empty"))
    assert cli.main(command) == 1
    assert "no FashionMNIST in" in capsys.readouterr().err
    assert not checkout.BUILD.exists()


def test_claims_need_a_known_verdict():
    with pytest.raises(ValueError, match="'maybe'"):
        claims.show([claims.Claim("1", "it says", "we found", "maybe")])


# ---------------------------------------------------------------------- one environment


def parsed(line):
    """Name of the package in a requirement, and its bounds."""
    name, bounds = re.match(r"([\w.-]+)\s*(.*)", line).groups()
    return name.lower().replace("_", "-"), SpecifierSet(bounds)


def project_table():
    """The table [project] of pyproject.toml."""
    return tomllib.loads((checkout.ROOT / "pyproject.toml").read_text())["project"]


def project_requirements():
    """Requirements in pyproject.toml, those of extras included, but not on itself."""
    project = project_table()
    lines = list(project["dependencies"])
    for lines_of_extra in project["optional-dependencies"].values():
        lines += lines_of_extra
    return [line for line in lines if not line.startswith("wcka[")]


def test_environment_and_pyproject_name_the_same_packages():
    conda = yaml.safe_load((checkout.ROOT / "environment.yml").read_text())
    assert conda["name"] == "wcka"
    assert conda["channels"] == ["conda-forge"]
    *conda_lines, pip_entry = conda["dependencies"]
    project_line, *pip_lines = pip_entry["pip"]
    assert project_line == "-e ."
    conda_bounds = dict(map(parsed, [*conda_lines, *pip_lines]))
    python_bounds = SpecifierSet(project_table()["requires-python"])
    assert conda_bounds.pop("python") == python_bounds
    for tool in ("pip", "cxx-compiler"):
        del conda_bounds[tool]
    conda_bounds["torch"] = conda_bounds.pop("pytorch-cpu")
    assert conda_bounds == dict(map(parsed, project_requirements()))


def test_every_dependency_is_pinned_within_its_bounds():
    pinned_versions = {}
    for line in (checkout.ROOT / "constraints.txt").read_text().splitlines():
        name, separator, version = line.partition("==")
        if separator:
            pinned_versions[name.lower().replace("_", "-")] = version
    for requirement in map(Requirement, project_requirements()):
        version = pinned_versions[requirement.name]
        assert requirement.specifier.contains(version), requirement
