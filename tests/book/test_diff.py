"""What executed chapters hold, what two runs differ in, and what happens when things go wrong."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock

from wcka import cli
from wcka.book import checkout, diff, execution

CLAIM = """
from wcka.book import claims
claims.show([claims.Claim("3.1", "it is so", "r 0.50 (0.40 to 0.60)", "holds")])
claims.say("plain", 0)
"""


def notebook(found="r 0.50 (0.40 to 0.60)", verdict="holds", statement="it is so"):
    """An executed chapter with one claim and one number."""
    claim = {"where": "3.1", "statement": statement, "found": found, "verdict": verdict}
    number = nbformat.v4.new_output(
        "display_data", {diff._RECORD: "'0.000'"}, metadata={"scrapbook": {"name": "plain"}})
    shown = nbformat.v4.new_output("display_data", {}, metadata={"wcka": {"claims": [claim]}})
    cell = nbformat.v4.new_code_cell("", outputs=[shown, number])
    return nbformat.v4.new_notebook(cells=[cell], metadata={"wcka": {}})


def test_claims_and_numbers_are_read_back(chapter):
    executed, made = nbformat.read(chapter(CLAIM).run(), 4), notebook()
    assert diff.claims(executed) == diff.claims(made) and diff.claims(made)[0].where == "3.1"
    assert diff.numbers(executed) == diff.numbers(made) == {"plain": "0.000"}


@pytest.mark.parametrize(("changes", "lines"), [
    ({}, []),
    ({"found": "r 0.60 (0.50 to 0.70)"}, []),
    ({"found": "r 0.60 (0.55 to 0.70)"}, ["0.50 (0.40 to 0.60) -> 0.60 (0.55 to 0.70)"]),
    ({"found": "r 0.61 (0.45 to 0.70)"}, ["0.50 (0.40 to 0.60) -> 0.61 (0.45 to 0.70)"]),
    ({"verdict": "fails"}, ["holds -> fails"]),
    ({"found": "r 1e-9 (0 to 1e-3)", "verdict": "fails"},
     ["holds -> fails", "0.50 (0.40 to 0.60) -> 1e-9 (0 to 1e-3)"]),
])
def test_diff_shows_what_moved_beyond_its_interval(tmp_path, changes, lines, capsys):
    nbformat.write(notebook(), tmp_path / "one.ipynb")
    nbformat.write(notebook(**changes), tmp_path / "other.ipynb")
    assert cli.main(["diff", *map(str, sorted(tmp_path.iterdir()))]) == bool(lines)
    assert capsys.readouterr().out.splitlines() == [
        f"3.1: it is so: {line}" for line in lines] or [
        "no verdict changed, and no number moved beyond its interval (numbers without an interval "
        "are not compared)"]


def test_diff_of_folders_names_chapters_and_refuses_what_it_cannot_compare(tmp_path, capsys):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    nbformat.write(notebook(), tmp_path / "a" / "07-tiny.ipynb")
    nbformat.write(notebook(verdict="fails"), tmp_path / "b" / "07-tiny.ipynb")
    nbformat.write(notebook(), tmp_path / "b" / "08-more.ipynb")
    assert cli.main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    out = capsys.readouterr().out
    assert "07-tiny 3.1: it is so: holds -> fails" in out and "08-more: only in" in out
    for words in ("no executed chapter", "no executed chapter", "no chapter in common"):
        assert cli.main(["diff", str(tmp_path / "a"), str(tmp_path / "c")]) == 2
        assert words in capsys.readouterr().err
        nbformat.write(nbformat.v4.new_notebook() if not list((tmp_path / "c").iterdir())
                       else notebook(), tmp_path / "c" / "09-x.ipynb")


def test_diff_of_what_is_no_notebook_is_a_wrong_call(tmp_path, capsys):
    nbformat.write(notebook(), tmp_path / "one.ipynb")
    for name, text in (("not-there.ipynb", None), ("empty.ipynb", "{}"), ("text.ipynb", "# x")):
        if text is not None:
            (tmp_path / name).write_text(text)
        assert cli.main(["diff", str(tmp_path / name), str(tmp_path / "one.ipynb")]) == 2
        assert f"{name}: no notebook" in capsys.readouterr().err


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "run_chapter", interrupted)
    assert cli.main(["run", "01"]) == 130
    assert capsys.readouterr().err.startswith("wcka: interrupted; what was computed is kept")


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
    hashes = [diff.canonical(nbformat.read(tiny.run(seeds=seeds), 4)) for seeds in (5, 5, 6)]
    assert hashes[0] == hashes[1] != hashes[2]


# Those with times among their outputs, which is where a hash would differ; the others, for time,
# are left to `make benchmark`.
TIMED = [checkout.find_chapter(name) for name in ("02", "03", "05", "08")]


@pytest.mark.parametrize("path", TIMED + [
    pytest.param(path, marks=pytest.mark.benchmark) for path in checkout.chapters()
    if path not in TIMED], ids=lambda p: p.stem)
def test_a_chapter_computed_anew_has_the_same_canonical_hash(path, smoke, smoke_again):
    for other in TIMED if path in TIMED else ():  # these are all wanted: two at a time
        smoke_again.start(other)
    first, second = (diff.canonical(nbformat.read(each(path), 4)) for each in (smoke, smoke_again))
    assert first == second


@pytest.mark.parametrize("timed", [True, False])
def test_claims_on_times_are_left_out_of_the_hash(timed):
    found = [notebook(found=text) for text in ("0.1 s", "0.2 s")]
    for each in found:
        each.cells[0].outputs[0].metadata["wcka"]["claims"][0]["timed"] = timed
        each.cells[0].outputs[0]["data"] = {"text/html": diff.claims(each)[0].found}
    assert (diff.canonical(found[0]) == diff.canonical(found[1])) == timed


# ------------------------------------------------------------------------- when things go wrong


def test_a_killed_kernel_is_said_and_what_came_before_is_kept(chapter, capsys):
    chapter('print("so far")\n\n# %%\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)')
    assert cli.main(["run", "07"]) == 1
    assert "kernel died" in capsys.readouterr().err
    kept, = (checkout.BUILD / "runs").iterdir()
    assert kept.name == "07-tiny.failed.ipynb" and "so far" in kept.read_text()


def limited(code, tmp_path, limit, **environment):
    """Run code in a process that can write no file larger than so many bytes."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "WCKA_CACHE": str(tmp_path / "results"), **environment},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))


def test_a_result_that_does_not_fit_on_the_disk_is_returned_all_the_same(tmp_path):
    (tmp_path / "m.py").write_text(
        "import numpy as np, pandas as pd\nfrom wcka.experiments.cache import cached\n@cached\n"
        "def large(n):\n    return pd.DataFrame({'x': np.random.default_rng(0).normal(size=n)})\n")
    done = limited("import m; print(len(m.large(10000)), len(m.large(100)))", tmp_path, 20000)
    assert done.stdout.split() == ["10000", "100"], done.stderr
    assert len(re.findall("cannot be written", done.stderr)) == 1
    assert len(list((tmp_path / "results").iterdir())) == 1  # the small one, and no partial file


def test_a_notebook_that_does_not_fit_on_the_disk_is_said(chapter, tmp_path):
    chapter("'x' * 100000")
    done = limited(
        f"import sys; from pathlib import Path; from wcka.book import checkout; from wcka import cli\n"
        f"checkout.NOTEBOOKS = Path({str(checkout.NOTEBOOKS)!r})\n"
        f"checkout.BUILD = Path({str(checkout.BUILD)!r})\nsys.exit(cli.main(['run', '07']))",
        tmp_path, 50000)
    assert done.returncode == 1 and "File too large" in done.stderr.splitlines()[-1]
    assert not list((checkout.BUILD / "runs").glob("*.ipynb"))


def test_without_a_home_that_can_be_written_a_chapter_says_what_to_set(chapter, tmp_path):
    chapter("import wcka\nwcka.load()")
    (tmp_path / "file").touch()
    home = {"HOME": str(tmp_path / "file" / "home"), "XDG_CACHE_HOME": "", "WCKA_CACHE": "",
            "WCKA_DATA": ""}
    done = limited(
        f"import sys; from pathlib import Path; from wcka.book import checkout; from wcka import cli\n"
        f"checkout.NOTEBOOKS = Path({str(checkout.NOTEBOOKS)!r})\n"
        f"checkout.BUILD = Path({str(checkout.BUILD)!r})\nsys.exit(cli.main(['run', '07']))",
        tmp_path, 10**9, **home)
    assert done.returncode == 1 and "WCKA_DATA" in done.stderr, done.stderr


def test_two_runs_at_once_do_not_disturb_each_other(chapter):
    chapter("import time\ntime.sleep(1)\nseeds")
    code = (f"import sys; from pathlib import Path; from wcka.book import checkout; from wcka import cli\n"
            f"checkout.NOTEBOOKS = Path({str(checkout.NOTEBOOKS)!r})\n"
            f"checkout.BUILD = Path({str(checkout.BUILD)!r})\nsys.exit(cli.main(['run', '07']))")
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    output, = (checkout.BUILD / "runs").iterdir()
    execution.check_executed(nbformat.read(output, 4), output.name)


def test_a_second_build_of_the_book_is_refused_while_one_is_under_way(chapter, capsys):
    chapter("1")
    checkout.BUILD.mkdir()
    with FileLock(Path(checkout.BUILD) / ".lock"):
        assert cli.main(["book"]) == 1
    assert "another process builds the book" in capsys.readouterr().err
