"""Contents of executed chapters, differences between two runs, and runs that fail."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock

from wcka import cli
from wcka.book import checkout, diff, execution, records

CLAIM = """
from wcka.book import claims
claims.show([claims.Claim("3.1", "it is so", "r 0.50 (0.40 to 0.60)", "holds")])
claims.say("plain", 0)
"""


def notebook(finding="r 0.50 (0.40 to 0.60)", verdict="holds", statement="it is so"):
    """Return an executed chapter with one claim and one number."""
    claim = {"where": "3.1", "statement": statement, "found": finding,
             "verdict": verdict}
    claim_output = nbformat.v4.new_output(
        "display_data", {}, metadata={"wcka": {"claims": [claim]}})
    number_output = nbformat.v4.new_output(
        "display_data", {diff._RECORD: "'0.000'"},
        metadata={"scrapbook": {"name": "plain"}})
    cell = nbformat.v4.new_code_cell("", outputs=[claim_output, number_output])
    return nbformat.v4.new_notebook(cells=[cell], metadata={"wcka": {}})


def test_claims_and_numbers_are_read_back(chapter):
    executed = nbformat.read(chapter(CLAIM).run(), 4)
    by_hand = notebook()
    assert diff.claims(executed) == diff.claims(by_hand)
    assert diff.claims(by_hand)[0].where == "3.1"
    assert diff.numbers(executed) == diff.numbers(by_hand) == {"plain": "0.000"}


@pytest.mark.parametrize(("changes", "lines"), [
    ({}, []),
    ({"finding": "r 0.60 (0.50 to 0.70)"}, []),
    ({"finding": "r 0.60 (0.55 to 0.70)"},
     ["0.50 (0.40 to 0.60) -> 0.60 (0.55 to 0.70)"]),
    ({"finding": "r 0.61 (0.45 to 0.70)"},
     ["0.50 (0.40 to 0.60) -> 0.61 (0.45 to 0.70)"]),
    ({"verdict": "fails"}, ["holds -> fails"]),
    ({"finding": "r 1e-9 (0 to 1e-3)", "verdict": "fails"},
     ["holds -> fails", "0.50 (0.40 to 0.60) -> 1e-9 (0 to 1e-3)"]),
])
def test_diff_shows_numbers_beyond_their_intervals(tmp_path, changes, lines, capsys):
    before = tmp_path / "before.ipynb"
    after = tmp_path / "after.ipynb"
    nbformat.write(notebook(), before)
    nbformat.write(notebook(**changes), after)
    assert cli.main(["diff", str(before), str(after)]) == bool(lines)
    printed = capsys.readouterr().out.splitlines()
    if lines:
        assert printed == [f"3.1: it is so: {line}" for line in lines]
    else:
        assert printed == [
            "no verdict changed, and no number moved beyond its interval "
            "(numbers without an interval are not compared)"]


def test_diff_compares_the_second_number_too_and_reads_thousands(tmp_path):
    before = tmp_path / "before.ipynb"
    after = tmp_path / "after.ipynb"
    text = "r 0.50 (0.40 to 0.60), n {} (1,000 to 1,400)"
    nbformat.write(notebook(finding=text.format("1,200")), before)
    nbformat.write(notebook(finding=text.format("1,390")), after)
    assert diff.differences(before, after) == []
    nbformat.write(notebook(finding=text.format("1,401")), after)
    assert diff.differences(before, after) == [
        "3.1: it is so: 1,200 (1,000 to 1,400) -> 1,401 (1,000 to 1,400)"]


def test_diff_names_the_run_that_alone_has_a_claim(tmp_path):
    before = tmp_path / "before.ipynb"
    after = tmp_path / "after.ipynb"
    nbformat.write(notebook(), before)
    nbformat.write(notebook(statement="it is not"), after)
    assert diff.differences(before, after) == [
        f"3.1: it is so: only in {before}", f"3.1: it is not: only in {after}"]


def test_diff_of_folders_names_chapters_and_refuses_the_rest(tmp_path, capsys):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    nbformat.write(notebook(), tmp_path / "a" / "07-tiny.ipynb")
    nbformat.write(notebook(verdict="fails"), tmp_path / "b" / "07-tiny.ipynb")
    nbformat.write(notebook(), tmp_path / "b" / "08-more.ipynb")
    nbformat.write(notebook(), tmp_path / "b" / "notes.ipynb")  # no chapter: no number
    assert cli.main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"08-more: only in {tmp_path / 'b'}",
        "07-tiny 3.1: it is so: holds -> fails",
    ]
    # A folder that is empty, that has a notebook which did not run, or another chapter
    contents = {
        "no executed chapter": [None, nbformat.v4.new_notebook()],
        "no chapter in common": [notebook()],
    }
    for words, notebooks in contents.items():
        for content in notebooks:
            if content is not None:
                nbformat.write(content, tmp_path / "c" / "09-x.ipynb")
            assert cli.main(["diff", str(tmp_path / "a"), str(tmp_path / "c")]) == 2
            assert words in capsys.readouterr().err


def test_diff_of_what_is_no_notebook_is_a_wrong_call(tmp_path, capsys):
    nbformat.write(notebook(), tmp_path / "one.ipynb")
    (tmp_path / "empty.ipynb").write_text("{}")
    (tmp_path / "text.ipynb").write_text("# x")
    for name in ("not-there.ipynb", "empty.ipynb", "text.ipynb"):
        runs = [str(tmp_path / name), str(tmp_path / "one.ipynb")]
        assert cli.main(["diff", *runs]) == 2
        assert f"{name}: no notebook" in capsys.readouterr().err


def test_a_record_is_compared_like_a_run(tmp_path):
    """A record of chapter 6, another one with one finding moved, and a damaged one."""
    record = records.read("06")
    key = next(iter(record["findings"]))
    before = tmp_path / "before"
    after = tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
        (folder / "06.json").write_text(json.dumps(record))
        record["findings"][key]["parts"][0][1:3] = [0.123, 0.01]
    assert diff.differences(records.path_of("06"), before / "06.json") == []
    stem = checkout.find_chapter("06").stem
    lines = diff.differences(before, after)
    assert lines and all(line.startswith(f"{stem} ") for line in lines)
    label = record["findings"][key]["parts"][0][0]
    assert f"{label} +0.12 (+0.10 to +0.15)" in lines[-1]
    for damaged in ("{}", "[]", "", "{"):
        (after / "06.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"06\.json: no record of a chapter"):
            diff.differences(before, after)


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "\u202e", "\udc80", "x" * 300])
@pytest.mark.parametrize("content", [None, "", "{}", "notebook", "damaged"])
def test_diff_refuses_in_one_line_whatever_the_name(tmp_path, name, content):
    path = tmp_path / f"{name}.ipynb"
    if content is not None and len(name) < 200:
        texts = {"notebook": json.dumps(nbformat.v4.new_notebook()),
                 "damaged": json.dumps(notebook(finding=5))}
        path.write_text(texts.get(content, content))
    with pytest.raises(ValueError, match=r"\.ipynb: ") as caught:
        diff.differences(path, path)
    assert str(caught.value).isprintable()


def set_claims(executed, value):
    executed.cells[0].outputs[0].metadata["wcka"]["claims"] = value


def set_claim(executed, **fields):
    executed.cells[0].outputs[0].metadata["wcka"]["claims"][0].update(fields)


def set_number(executed, metadata, text="'0.000'"):
    output = executed.cells[0].outputs[1]
    output["metadata"] = metadata
    output["data"] = {diff._RECORD: text}


def set_of_output(executed, name, value):
    executed.cells[0].outputs[0][name] = value


def set_of_cell(executed, name, value):
    executed.cells[0][name] = value


@pytest.mark.parametrize(("damage", "value"), [
    (set_claims, None), (set_claims, 5), (set_claims, "text"), (set_claims, {"a": 1}),
    (set_claims, [None]), (set_claims, [[]]), (set_claims, [{}]),
    (set_claims, ["text"]), (set_claims, [{"where": "3.1"}]),
    (set_number, {"scrapbook": None}), (set_number, {"scrapbook": {}}),
    (set_number, {"scrapbook": {"name": ["plain"]}}),
    (set_number, {"scrapbook": {"name": None}}), (set_number, {"scrapbook": "plain"}),
    (set_claims, "x" * 100_000), (set_claims, ["x" * 100_000]),
    (set_number, {"scrapbook": "x" * 100_000}),
])
def test_diff_refuses_damaged_contents(tmp_path, capsys, damage, value):
    executed = notebook()
    damage(executed, value)
    check_refused(tmp_path, capsys, executed)


@pytest.mark.parametrize("fields", [
    {"found": None}, {"found": 0.5}, {"verdict": ["holds"]}, {"where": {}},
    {"statement": 3}, {"timed": "no"}, {"other": "text"}])
def test_diff_refuses_claims_of_other_types(tmp_path, capsys, fields):
    executed = notebook()
    set_claim(executed, **fields)
    check_refused(tmp_path, capsys, executed)


@pytest.mark.parametrize(("damage", "name", "value"), [
    (set_of_output, "metadata", None), (set_of_output, "metadata", []),
    (set_of_output, "metadata", {"wcka": None}),
    (set_of_output, "metadata", {"wcka": []}),
    (set_of_output, "metadata", {"wcka": "text"}),
    (set_of_output, "data", None), (set_of_output, "data", "text"),
    (set_of_cell, "outputs", None), (set_of_cell, "outputs", {}),
    (set_of_cell, "outputs", ["text"]), (set_of_cell, "metadata", None),
    (set_of_cell, "metadata", {"tags": 5}), (set_of_cell, "metadata", {"tags": [5]}),
])
def test_diff_refuses_notebooks_of_another_shape(tmp_path, capsys, damage, name, value):
    executed = notebook()
    damage(executed, name, value)
    check_refused(tmp_path, capsys, executed)


@pytest.mark.parametrize("text", [None, 5, {"a": 1}, [1], [["text"]]])
def test_diff_refuses_numbers_that_are_no_text(tmp_path, capsys, text):
    executed = notebook()
    set_number(executed, {"scrapbook": {"name": "plain"}}, text)
    check_refused(tmp_path, capsys, executed)


@pytest.mark.parametrize("content", [
    {"cells": 5}, {"cells": [5]}, {"cells": None}, {"metadata": None},
    {"metadata": []}, {"metadata": "wcka"}, {"nbformat": "four"}, {"nbformat": 99}])
def test_diff_refuses_what_only_begins_like_a_notebook(tmp_path, capsys, content):
    check_refused(tmp_path, capsys, {**notebook(), **content})


def test_diff_spells_out_what_a_terminal_would_obey(tmp_path, capsys):
    text = "r \x1b]0;title\x07\nno verdict changed"
    before = tmp_path / "before.ipynb"
    after = tmp_path / "after.ipynb"
    nbformat.write(notebook(statement=text), before)
    nbformat.write(notebook(statement=text, verdict=text), after)
    assert cli.main(["diff", str(before), str(after)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.strip().isprintable()


def check_refused(folder, capsys, content):
    """Check that ``diff`` answers a hostile notebook on one line, as either run."""
    sound = folder / "sound.ipynb"
    hostile = folder / "hostile.ipynb"
    nbformat.write(notebook(), sound)
    hostile.write_text(json.dumps(content))
    for runs in ([sound, hostile], [hostile, sound]):
        assert cli.main(["diff", *map(str, runs)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"wcka: {hostile}: ")
        assert printed.err.count("\n") == 1 and len(printed.err) < 1000


@pytest.mark.parametrize("text", [
    "1" * 100_000, "1," * 50_000, "1." * 50_000, "1e" * 50_000, "-1" * 50_000,
    "1 (" * 30_000, "1 (1 to " * 10_000, "0.5 (" + "1" * 100_000,
    "0.5 (0.4 to " + "1" * 100_000, "1" * 50_000 + "e" + "1" * 50_000])
def test_long_texts_are_compared_in_linear_time(text):
    start = time.process_time()
    said = diff._Said(text)
    assert list(diff._moves(said, said)) == []
    assert time.process_time() - start < 1


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "run_chapter", interrupted)
    assert cli.main(["run", "01"]) == 130
    error = capsys.readouterr().err
    assert error.startswith("wcka: interrupted; what was computed is kept")


VARIES = """
%config InlineBackend.figure_formats = ["svg"]
import time
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
plt.rcParams["svg.hashsalt"] = "wcka"
plt.plot(np.random.default_rng(seeds).normal(size=9))
plt.show()
pd.DataFrame({"a": [seeds]}).style.format("{:.1f}")

# %% tags=["timing"]
time.time()
"""


def test_two_runs_have_one_canonical_hash_and_other_parameters_another(chapter):
    tiny = chapter(VARIES)
    hashes = []
    for seeds in (5, 5, 6):
        hashes.append(diff.canonical(nbformat.read(tiny.run(seeds=seeds), 4)))
    assert hashes[0] == hashes[1] != hashes[2]


# Two chapters that are computed twice: chapter 1, which trains networks, and chapter 8,
# whose outputs hold times that the hash leaves out. The others are left to `make
# benchmark`, for their time.
COMPARED = [checkout.find_chapter(name) for name in ("01", "08")]


@pytest.mark.parametrize("path", COMPARED + [
    pytest.param(path, marks=pytest.mark.benchmark) for path in checkout.chapters()
    if path not in COMPARED], ids=lambda p: p.stem)
def test_a_chapter_computed_anew_has_the_same_canonical_hash(path, smoke, smoke_again):
    if path in COMPARED:
        for compared in COMPARED:  # let both run, side by side
            smoke_again.start(compared)
    first = diff.canonical(nbformat.read(smoke(path), 4))
    second = diff.canonical(nbformat.read(smoke_again(path), 4))
    assert first == second


@pytest.mark.parametrize("timed", [True, False])
def test_claims_on_times_are_left_out_of_the_hash(timed):
    hashes = []
    for finding in ("0.1 s", "0.2 s"):
        executed = notebook(finding=finding)
        output = executed.cells[0].outputs[0]
        output.metadata["wcka"]["claims"][0]["timed"] = timed
        output["data"] = {"text/html": finding}
        hashes.append(diff.canonical(executed))
    assert (hashes[0] == hashes[1]) == timed


# ------------------------------------------------------------- when things go wrong


def test_a_killed_kernel_is_said_and_what_came_before_is_kept(chapter, capsys):
    chapter('print("so far")\n\n# %%\n'
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert cli.main(["run", "07"]) == 1
    assert "kernel died" in capsys.readouterr().err
    output, = (checkout.BUILD / "runs").iterdir()
    assert output.name == "07-tiny.failed.ipynb" and "so far" in output.read_text()


def limited(code, tmp_path, limit, **environment):
    """Run code in a process that cannot write files of more than `limit` bytes."""
    def set_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "WCKA_CACHE": str(tmp_path / "results"), **environment},
        preexec_fn=set_limit)


def run_code():
    """Return code that runs the chapter of the fixture, for a process of its own."""
    return (
        "import sys\n"
        "from pathlib import Path\n"
        "from wcka import cli\n"
        "from wcka.book import checkout\n"
        f"checkout.NOTEBOOKS = Path({str(checkout.NOTEBOOKS)!r})\n"
        f"checkout.BUILD = Path({str(checkout.BUILD)!r})\n"
        "sys.exit(cli.main(['run', '07']))")


def test_a_result_that_does_not_fit_on_the_disk_is_returned_all_the_same(tmp_path):
    (tmp_path / "m.py").write_text(
        "import numpy as np, pandas as pd\n"
        "from wcka.experiments.cache import cached\n"
        "@cached\n"
        "def large(n):\n"
        "    return pd.DataFrame({'x': np.random.default_rng(0).normal(size=n)})\n")
    code = "import m; print(len(m.large(10000)), len(m.large(100)))"
    done = limited(code, tmp_path, 20000)
    assert done.stdout.split() == ["10000", "100"], done.stderr
    assert len(re.findall("cannot be written", done.stderr)) == 1
    # The small result, and no partial file
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_a_notebook_that_does_not_fit_on_the_disk_is_said(chapter, tmp_path):
    chapter("'x' * 100000")
    done = limited(run_code(), tmp_path, 50000)
    assert done.returncode == 1
    assert "File too large" in done.stderr.splitlines()[-1]
    assert not list((checkout.BUILD / "runs").glob("*.ipynb"))


def test_without_a_writable_home_a_chapter_says_what_to_set(chapter, tmp_path):
    chapter("import wcka\nwcka.load()")
    (tmp_path / "file").touch()
    home = {"HOME": str(tmp_path / "file" / "home"), "XDG_CACHE_HOME": "",
            "WCKA_CACHE": "", "WCKA_DATA": ""}
    done = limited(run_code(), tmp_path, 10**9, **home)
    assert done.returncode == 1 and "WCKA_DATA" in done.stderr, done.stderr


def test_two_runs_at_once_do_not_disturb_each_other(chapter):
    chapter("import time\ntime.sleep(1)\nseeds")
    command = [sys.executable, "-c", run_code()]
    first = subprocess.Popen(command)
    second = subprocess.Popen(command)
    assert first.wait(120) == second.wait(120) == 0
    output, = (checkout.BUILD / "runs").iterdir()
    execution.check_executed(nbformat.read(output, 4), output.name)


def test_a_second_build_of_the_book_is_refused_while_one_is_under_way(chapter, capsys):
    chapter("1")
    checkout.BUILD.mkdir()
    with FileLock(Path(checkout.BUILD) / ".lock"):
        assert cli.main(["book"]) == 1
    assert "another process builds the book" in capsys.readouterr().err
