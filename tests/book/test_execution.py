"""Chapters that run completely or not at all, and their notebooks beside the .py."""

import html
import importlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import jupytext
import nbformat
import pytest
import yaml
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

from wcka import cli
from wcka.book import checkout, diff, execution, parameters
from wcka.experiments import fingerprint

# ------------------------------------------------------------------------------ the run


def test_a_run_says_what_ran_and_shows_changed_parameters(chapter):
    chapter("seeds * 2")
    assert cli.main(["run", "7", "-p", "seeds", "21"]) == 0
    notebook = nbformat.read(checkout.BUILD / "runs" / "07-tiny.ipynb", 4)
    injected_cell, computing_cell, last_cell = notebook.cells[-3:]
    assert injected_cell.source == "# Parameters of this run\nseeds = 21\n"
    assert computing_cell.outputs[0].data["text/plain"] == "42"
    assert "<code>seeds: int = 21</code> | models (default: 5)" in last_cell.source


def test_a_failed_chapter_leaves_no_result_but_its_notebook(chapter, capsys):
    chapter("seeds / 0")
    assert cli.main(["run", "07"]) == 1
    assert "failed: cell 1: ZeroDivision" in capsys.readouterr().err
    failed, = (checkout.BUILD / "runs").iterdir()
    assert failed.name == "07-tiny.failed.ipynb"


def test_a_chapter_without_its_figure_leaves_no_result(chapter, capsys):
    chapter('# %% mystnb={"figure": {"caption": "a line"}}\nseeds')
    assert cli.main(["run", "07"]) == 1
    assert "should show a figure, and shows none" in capsys.readouterr().err
    assert list((checkout.BUILD / "runs").iterdir()) == []


INTERRUPT = """
import runpy, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted_module:
            raise KeyboardInterrupt

interrupted_module = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupting())
runpy.run_module("wcka", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["wcka.cli", "yaml", "nbformat", "numpy"])
def test_an_interrupt_while_modules_load_is_answered_in_one_line(module):
    command = [sys.executable, "-c", INTERRUPT, module, "run", "01"]
    process = subprocess.run(
        [*command, "--profile", "smoke"], capture_output=True, text=True)
    assert process.returncode == 130
    assert process.stderr.startswith("wcka: interrupted")
    assert process.stderr.count("\n") == 1


HOSTILE_TEXTS = [
    "{{ 7*7 }}", "a | b", "`x`", "{doc}`../book/rerun`", "{py:func}`x`", "$x$", "*a*",
    "_a_", "~~a~~", "a\\", "[a](b)", "![a](b)", "[^1]", "<script>x</script>", "<b>",
    "</code>", "&amp; &#124;", "tcp://10.0.0.1:8786", "http://x.org/a", "<!-- a -->",
    "'a' \"b\"", "$$x$$", "(a)=", "a@b.org"]


def rendered_cells(text):
    """Return the tags and texts of a MyST table's cells, as the book renders them."""
    config = yaml.safe_load((checkout.ROOT / "_config.yml").read_text())
    extensions = {*config["parse"]["myst_enable_extensions"], "substitution"}
    options = MdParserConfig(enable_extensions=extensions)
    parser = create_md_parser(options, RendererHTML)
    body = parser.render(text).partition("<tbody>")[2]
    return re.findall(r"<td[^>]*>(.*?)</td>", body, re.S)


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_a_value_is_shown_as_it_is(chapter, text):
    path = chapter("1").path
    rows = execution._description_of_parameters(path, {"kind": text})
    cells = rendered_cells(execution._table(rows))
    assert len(cells) == 2 * len(rows)
    code = re.fullmatch("<code>(.*)</code>", cells[-2])[1]
    assert "<" not in code
    assert html.unescape(code) == f"kind: str = {text!r}"
    assert cells[-1] == "which (default: 'a')"


def test_no_page_can_run_templates():
    config = yaml.safe_load((checkout.ROOT / "_config.yml").read_text())
    assert "substitution" not in config["parse"]["myst_enable_extensions"]


RUN_CHAPTER = """
import sys
from pathlib import Path
from wcka import cli
from wcka.book import checkout
checkout.NOTEBOOKS, checkout.BUILD = map(Path, sys.argv[1:])
sys.exit(cli.main(["run", "07"]))
"""


def test_an_interrupt_while_a_cell_runs_is_answered_in_one_line(chapter, tmp_path):
    started = tmp_path / "started"
    chapter(f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\n"
            "time.sleep(60)")
    folders = [checkout.NOTEBOOKS, checkout.BUILD]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_CHAPTER, *folders],
        stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert message.startswith("wcka: interrupted; what was computed is kept")
    assert message.count("\n") == 1


# --------------------------------------------------------------- the file of a run (-o)


def folder_with_the_ending_of_a_notebook(folder):
    output = folder / "folder.ipynb"
    output.mkdir()
    return output


def name_with_another_ending(folder):
    return folder / "out.html"


def name_without_an_ending(folder):
    return folder / "ipynb"


def empty_name(folder):
    return ""


def pair_of_the_chapter(folder):
    return checkout.NOTEBOOKS / "07-tiny.ipynb"


def pair_of_the_chapter_through_a_link(folder):
    (folder / "link").symlink_to(checkout.NOTEBOOKS)
    return folder / "link" / "07-tiny.ipynb"


def device(folder):
    output = folder / "device.ipynb"
    output.symlink_to(os.devnull)
    return output


def named_pipe(folder):
    output = folder / "pipe.ipynb"
    os.mkfifo(output)
    return output


def notebook_that_no_run_wrote(folder):
    output = folder / "mine.ipynb"
    cell = nbformat.v4.new_code_cell("mine = 1")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), output)
    return output


def text_with_the_ending_of_a_notebook(folder):
    output = folder / "text.ipynb"
    output.write_text("mine", "utf-8")
    return output


def name_that_is_too_long(folder):
    return folder / f"{'ö' * 120}.ipynb"


def name_below_a_file(folder):
    (folder / "file").write_text("text")
    return folder / "file" / "more" / "out.ipynb"


def name_below_a_read_only_folder(folder):
    if os.geteuid() == 0:
        pytest.skip("root may write to every folder")
    (folder / "read-only").mkdir(mode=0o555)
    return folder / "read-only" / "more" / "out.ipynb"


def name_below_a_closed_folder(folder):
    if os.geteuid() == 0:
        pytest.skip("root may look into every folder")
    (folder / "closed").mkdir(mode=0o000)
    return folder / "closed" / "more" / "out.ipynb"


@pytest.mark.parametrize("make_output", [
    folder_with_the_ending_of_a_notebook,
    name_with_another_ending,
    name_without_an_ending,
    empty_name,
    pair_of_the_chapter,
    pair_of_the_chapter_through_a_link,
    device,
    named_pipe,
    notebook_that_no_run_wrote,
    text_with_the_ending_of_a_notebook,
    name_that_is_too_long,
    name_below_a_file,
    name_below_a_read_only_folder,
    name_below_a_closed_folder,
])
def test_an_impossible_output_is_refused_before_the_run(
        chapter, tmp_path, capsys, monkeypatch, make_output):
    chapter("1")
    monkeypatch.setattr(execution, "run_chapter", lambda *_: pytest.fail("it ran"))
    output = make_output(tmp_path)
    files_before = sorted(tmp_path.rglob("*"))
    assert cli.main(["run", "07", "-o", str(output)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("wcka: -o ")
    assert message.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == files_before


@pytest.mark.parametrize(
    "name", ["out.ipynb", "{seeds} {} größer 数 $HOME.ipynb", f"{'n' * 224}.ipynb"])
def test_a_run_makes_the_folders_of_its_output(chapter, tmp_path, capsys, name):
    chapter("1")
    output = tmp_path / "{new} folder" / "folder" / name
    assert cli.main(["run", "07", "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("code", ["2", "seeds / 0"])
def test_a_run_replaces_what_another_run_left(chapter, capsys, code):
    """It may be a whole notebook, or that of a run that failed."""
    output = checkout.BUILD / "out.ipynb"
    chapter("1").run()
    chapter(code)
    cli.main(["run", "07", "-o", str(output.with_name("other.ipynb"))])
    for path in sorted(checkout.BUILD.iterdir()):
        assert cli.main(["run", "07", "-o", str(path)]) == (code != "2")
    assert "no run wrote it" not in capsys.readouterr().err


def test_notebooks_of_killed_runs_are_removed(chapter):
    """One that was written to a moment ago may belong to a run that goes on."""
    checkout.BUILD.mkdir()
    old, new = (checkout.BUILD / f"{execution._PARTIAL}{i}.ipynb" for i in range(2))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    output = chapter("1").run()
    assert sorted(checkout.BUILD.iterdir()) == sorted([new, output])


# --------------------------------------------- the .ipynb beside a chapter's .py (pair)


def add_cell(pair, source):
    """Type a cell into a notebook, as an editor would."""
    notebook = nbformat.read(pair, 4)
    notebook.cells.append(nbformat.v4.new_code_cell(source))
    nbformat.write(notebook, pair)


@pytest.mark.parametrize("source", ["mine = 1", "from google.colab import drive"])
def test_pair_refuses_a_notebook_that_was_typed_into(chapter, capsys, source):
    path = chapter("1").path
    assert cli.main(["pair"]) == 0
    pair = path.with_suffix(".ipynb")
    add_cell(pair, source)
    text_before = pair.read_text()
    assert cli.main(["pair"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert repr(source) in message
    assert "jupytext --to py:percent -o 07-tiny.py 07-tiny.ipynb" in message
    assert pair.read_text() == text_before


def test_pair_writes_no_notebook_if_it_refuses_one(chapter):
    path = chapter("1").path
    first_path = path.with_name("01-first.py")
    first_path.write_text(path.read_text())
    path.with_suffix(".ipynb").write_text("damaged")
    assert cli.main(["pair"]) == 2
    assert not first_path.with_suffix(".ipynb").exists()


def test_writing_a_pair_keeps_a_notebook_that_was_typed_into(chapter):
    path = chapter("1").path
    pair = execution.write_pair(path)
    add_cell(pair, "mine = 1")
    text_before = pair.read_text()
    with pytest.warns(UserWarning, match=r"cells that 07-tiny.py does not.*mine = 1"):
        assert execution.write_pair(path) == pair
    assert pair.read_text() == text_before


def test_a_changed_cell_of_a_notebook_is_kept(chapter):
    path = chapter("1").path
    pair = execution.write_pair(path)
    notebook = nbformat.read(pair, 4)
    notebook.cells[-1].source = "1 + 1"
    nbformat.write(notebook, pair)
    assert execution.cells_of_pair_alone(path) == ["1 + 1"]


def test_a_notebook_that_nobody_touched_follows_its_py(chapter):
    path = chapter("before = 1").path
    pair = execution.write_pair(path)
    chapter("after = 1")
    with warnings.catch_warnings(action="error"):
        execution.write_pair(path)
    assert nbformat.read(pair, 4).cells[-1].source == "after = 1"


def test_a_notebook_that_was_only_run_follows_its_py(chapter, capsys):
    path = chapter("before = 1").path
    pair = execution.write_pair(path)
    notebook = nbformat.read(pair, 4)
    notebook.metadata["language_info"] = {"name": "python", "version": "3.12.0"}
    for cell in notebook.cells:
        cell.execution_count = 1
        cell.outputs = [nbformat.v4.new_output("stream", text="printed")]
    nbformat.write(notebook, pair)
    chapter("after = 1")
    with warnings.catch_warnings(action="error"):
        assert cli.main(["pair"]) == 0
    assert capsys.readouterr().err == ""
    last_cell = nbformat.read(pair, 4).cells[-1]
    assert last_cell.source == "after = 1"
    assert last_cell.outputs == []


@pytest.mark.parametrize("text", ["damaged", "{", "[]", "{}", '{"cells": [{"cell_ty'])
def test_a_damaged_notebook_is_not_overwritten(chapter, capsys, text):
    path = chapter("1").path
    pair = path.with_suffix(".ipynb")
    pair.write_text(text)
    assert cli.main(["pair"]) == 2
    assert "07-tiny.ipynb is not a notebook" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="is not a notebook"):
        execution.write_pair(path)
    assert pair.read_text() == text


def test_an_empty_file_is_overwritten(chapter):
    path = chapter("1").path
    path.with_suffix(".ipynb").touch()
    assert cli.main(["pair"]) == 0
    assert nbformat.read(path.with_suffix(".ipynb"), 4).cells[-1].source == "1"


@pytest.mark.parametrize("address", ["", "somebody/wcka"])
def test_typed_cells_can_be_brought_over_to_the_py(chapter, monkeypatch, address):
    monkeypatch.setenv("GITHUB_REPOSITORY", address)
    path = chapter("1").path
    pair = execution.write_pair(path)
    sources_before = [cell.source for cell in nbformat.read(pair, 4).cells]
    add_cell(pair, "mine = 1")
    jupytext.write(jupytext.read(pair), path, fmt="py:percent")  # as the refusal says
    assert cli.main(["pair"]) == 0
    sources = [cell.source for cell in nbformat.read(pair, 4).cells]
    assert sources == [*sources_before, "mine = 1"]
    parameters.vet(path, {})  # passes


# ------------------------------------------------------------- the environment of a run


def executed_outputs(tiny):
    """Run a chapter; return its outputs' digest, and all that it printed."""
    notebook = nbformat.read(tiny.run(), 4)
    printed_texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                printed_texts.append(output.text)
    return diff.canonical(notebook), "".join(printed_texts)


def broken_kernels(folder, monkeypatch):
    """Have Jupyter find kernels that do not start."""
    for name in ("python3", "wcka-book"):
        kernel = folder / "kernels" / name
        kernel.mkdir(parents=True)
        spec = {"argv": ["/bin/false"], "display_name": name, "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))


def startup_file_of_ipython(folder, monkeypatch):
    """Have IPython find a startup file that breaks Python, and fails."""
    startup = folder / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-wild.py").write_text(
        "import builtins\nbuiltins.sum = max\nraise RuntimeError('a startup file')\n")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("IPYTHONDIR", str(folder / ".ipython"))


@pytest.mark.parametrize(
    "change_environment", [broken_kernels, startup_file_of_ipython])
def test_a_run_does_not_depend_on_the_users_jupyter(
        chapter, tmp_path, monkeypatch, change_environment):
    tiny = chapter("print(sum([seeds, 1]))")
    plain_outputs = executed_outputs(tiny)
    change_environment(tmp_path, monkeypatch)
    environment_before = dict(os.environ)
    assert executed_outputs(tiny) == plain_outputs
    assert plain_outputs[1] == "6\n"
    assert dict(os.environ) == environment_before


DRAWING = """
import matplotlib.pyplot as plt

from wcka.book import figures

figures.style()

# %% mystnb={"figure": {"caption": "a line"}}
plt.figure(figsize=(2, 1))
plt.plot([1, 2, 3])
plt.show()
"""


@pytest.mark.slow
def test_a_figure_does_not_depend_on_the_users_matplotlib(
        chapter, tmp_path, monkeypatch):
    tiny = chapter(DRAWING)
    plain_outputs = executed_outputs(tiny)
    settings = tmp_path / "matplotlibrc"
    settings.write_text("figure.facecolor: magenta\nlines.linestyle: --\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(settings))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    environment_before = dict(os.environ)
    assert executed_outputs(tiny) == plain_outputs
    assert dict(os.environ) == environment_before


@pytest.mark.parametrize("jupyter_path", [None, "", "/no/such/folder"])
def test_a_failed_run_leaves_the_environment_as_it_was(
        chapter, monkeypatch, jupyter_path):
    if jupyter_path is None:
        monkeypatch.delenv("JUPYTER_PATH", raising=False)
    else:
        monkeypatch.setenv("JUPYTER_PATH", jupyter_path)
    environment_before = dict(os.environ)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        chapter("1 / 0").run()
    assert dict(os.environ) == environment_before


# ------------------------------------------------------------ whether a run is accepted


def executed(outputs=(), execution_count=1, mystnb=None):
    """Notebook of one executed cell."""
    cell = nbformat.v4.new_code_cell(
        "1", outputs=list(outputs), execution_count=execution_count)
    if mystnb is not None:
        cell.metadata["mystnb"] = mystnb
    return nbformat.v4.new_notebook(cells=[cell])


def displayed(kind):
    """Output of a cell: something of a MIME type."""
    return nbformat.v4.new_output("display_data", data={kind: "..."})


ERROR = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
CAPTION = {"figure": {"caption": "a line"}}


@pytest.mark.parametrize("notebook", [
    executed(),
    executed([displayed("image/svg+xml")], mystnb=CAPTION),
    executed([displayed("text/plain"), displayed("image/png")], mystnb=CAPTION),
    executed([displayed("text/plain")], mystnb={"image": {"alt": "of no figure"}}),
])
def test_sound_notebooks_are_accepted(notebook):
    execution.check_executed(notebook, "07-tiny.ipynb")


@pytest.mark.parametrize(("notebook", "reason"), [
    (executed([ERROR]), "ended in an error"),
    (executed(execution_count=None), "never ran"),
    (executed(mystnb=CAPTION), "should show a figure, and shows none"),
    (executed([displayed("text/plain")], mystnb=CAPTION), "should show a figure"),
])
def test_failed_and_unexecuted_notebooks_are_refused(notebook, reason):
    with pytest.raises(RuntimeError, match=f"07-tiny.ipynb: cell 0 {reason}"):
        execution.check_executed(notebook, "07-tiny.ipynb")


def test_a_notebook_that_papermill_calls_failed_is_refused():
    notebook = executed()
    notebook.metadata["papermill"] = {"exception": True}
    with pytest.raises(RuntimeError, match="papermill reports a failure"):
        execution.check_executed(notebook, "07-tiny.ipynb")


@pytest.mark.parametrize(("outputs", "is_fresh"), [
    ([displayed("image/png")], True),
    ([displayed("text/plain")], False),
    ([ERROR], False),
])
def test_a_page_without_its_figure_is_never_fresh(tmp_path, outputs, is_fresh):
    notebook = executed(outputs, mystnb=CAPTION)
    notebook.metadata["wcka"] = {"key": "the right key"}
    output = tmp_path / "07-tiny.ipynb"
    nbformat.write(notebook, output)
    assert execution.is_fresh(output, "the right key") == is_fresh
    assert not execution.is_fresh(output, "another key")


# --------------------------------------------------------------- what a page depends on


def test_a_chapter_is_run_again_only_when_something_changed(chapter):
    path = chapter("seeds").path
    output = checkout.BUILD / "x.ipynb"
    execution.run_chapter(path, {}, "quick", output)
    assert execution.is_fresh(output, execution.key_of(path, {}, "quick"))
    assert not execution.is_fresh(output, execution.key_of(path, {}, "smoke"))
    assert not execution.is_fresh(output, execution.key_of(path, {"seeds": 6}, "quick"))
    path.write_text(path.read_text() + "\n# one more line\n")
    assert not execution.is_fresh(output, execution.key_of(path, {}, "quick"))
    output.write_text("not a notebook")
    assert not execution.is_fresh(output, "")


def test_the_key_of_a_page_names_the_versions_of_libraries(chapter, monkeypatch):
    path = chapter("1").path
    key = execution.key_of(path, {}, "quick")
    assert execution.key_of(path, {}, "quick") == key
    for library in ("torch", "numpy", "scipy", "skimage"):
        with monkeypatch.context() as patch:
            module = importlib.import_module(library)
            patch.setattr(module, "__version__", "9.9.9")
            assert execution.key_of(path, {}, "quick") != key
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version",
        lambda name: "9.9.9" if name == "pandas" else version(name))
    assert execution.key_of(path, {}, "quick") != key


def test_a_page_names_the_libraries_that_are_in_its_key():
    versions = execution._versions()
    for library in (*fingerprint.LIBRARIES.values(), "pandas"):
        assert f"{library} {importlib.metadata.version(library)}" in versions


@pytest.fixture
def package_copy(tmp_path, monkeypatch):
    """Copy of the package's sources that the fingerprint reads in place of them."""
    copy = tmp_path / "wcka"
    for path in fingerprint.PACKAGE.rglob("*.py"):
        file = copy / path.relative_to(fingerprint.PACKAGE)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path.read_text())
    monkeypatch.setattr(fingerprint, "PACKAGE", copy)
    forget_sources()
    yield copy
    forget_sources()


def forget_sources():
    """Have the fingerprint read all sources anew."""
    for function in vars(fingerprint).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def test_the_key_of_a_page_changes_with_code_but_not_with_comments(
        chapter, package_copy):
    path = chapter("1").path
    key = execution.key_of(path, {}, "quick")
    for module in ("measures/kernels.py", "book/claims.py"):
        file = package_copy / module
        _, _, code = file.read_text().partition('"""\n')  # after the docstring
        file.write_text(f'"""Another docstring."""\n# A comment.\n{code}')
    # This module neither computes nor shows what stands on a page.
    (package_copy / "book" / "builder.py").write_text("new_name = 1\n")
    forget_sources()
    assert execution.key_of(path, {}, "quick") == key
    file.write_text(f"{file.read_text()}\nnew_name = 1\n")
    forget_sources()
    assert execution.key_of(path, {}, "quick") != key


def test_the_key_of_a_page_changes_with_data_that_chapters_read(
        chapter, package_copy, tmp_path, monkeypatch):
    path = chapter("1").path
    statements = tmp_path / "book" / "statements.yml"
    record = tmp_path / "book" / "results" / "large" / "07.json"
    record.parent.mkdir(parents=True)
    statements.write_text((checkout.ROOT / "book" / "statements.yml").read_text())
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    key = execution.key_of(path, {}, "quick")
    record.write_text("{}")  # made from the page
    assert execution.key_of(path, {}, "quick") == key
    for file in (package_copy / "experiments" / "networks.csv",
                 package_copy / "weights" / "scores.json",
                 tmp_path / "book" / "results" / "sizes.json"):
        for content in ("1", "2"):
            file.write_text(content)
            assert execution.key_of(path, {}, "quick") != key
            key = execution.key_of(path, {}, "quick")


def test_chapters_read_no_data_that_is_in_no_key():
    """What they name is in the folders that keys look into."""
    names = [file.name for file in execution._data_files()]
    assert {"null-sizes.json", "published_networks.csv", "strangers.json"} <= set(names)
