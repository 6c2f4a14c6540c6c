"""Processes killed at moments that nobody chose: nothing is lost, and nothing half."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from test_benchmark import ARGUMENTS
from test_machines import CHAPTER, RUN, Machine, can_unshare

from wcka.book import builder, checkout, execution
from wcka.experiments import benchmark, cache

SHARED = str(Path(__file__).parents[1] / "experiments")
GRID = f"""
import sys
sys.path.insert(0, {SHARED!r})
from test_benchmark import ARGUMENTS
from wcka.experiments import benchmark
members, pairs = benchmark.grid(*ARGUMENTS, jobs=2)
pairs.to_pickle(sys.argv[1])
"""
WRITER = """
import pandas as pd
from wcka.experiments.cache import cached

@cached
def numbers(n: int) -> pd.DataFrame:
    return pd.DataFrame({"number": range(100_000 * (n % 5 + 1))})

print(flush=True)
for n in range(10_000):
    numbers(n)
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results of this process, and of those that it starts."""
    folder = tmp_path / "results"
    monkeypatch.setenv("WCKA_CACHE", str(folder))
    return folder


def start(*command, **options):
    """Start a Python process in a session of its own."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=checkout.ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True, **options)


def descendants(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def survivors(processes, seconds=30):
    """Return the processes that are still there after a while."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def kill(process, victims):
    """Kill a process alone, with all that it started, or one of these."""
    children = descendants(process)
    if victims == "all":
        os.killpg(process.pid, signal.SIGKILL)
    elif victims == "one worker" and children:
        random.choice(children).kill()
    else:
        process.kill()
    process.communicate(timeout=300)
    assert survivors(children) == []


def names_of_results(folder):
    return {path.name for path in folder.glob("[!.]*")}


def test_kills_of_a_grid(tally, results, tmp_path, monkeypatch):
    """SIGKILL of a run of the grid, which is then resumed"""
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "undisturbed"))
    expected = benchmark.grid(*ARGUMENTS, jobs=1)[1]
    wanted = names_of_results(tmp_path / "undisturbed")
    monkeypatch.setenv("WCKA_CACHE", str(results))
    draw = random.Random(0)
    table = tmp_path / "table.pickle"
    for victims in ["main", "all", "one worker"] * 2:
        shutil.rmtree(results, ignore_errors=True)
        number = draw.randrange(1, len(wanted) - 1)
        with tally.attempt(f"kill of {victims} after {number} results"):
            process = start("-c", GRID, table)
            while process.poll() is None and len(names_of_results(results)) < number:
                time.sleep(0.01)
            kill(process, victims)
            times = {}
            for name in names_of_results(results):
                times[name] = (results / name).stat().st_mtime_ns
            process = start("-c", GRID, table)
            _, message = process.communicate(timeout=300)
            assert process.returncode == 0, message.decode()[-1000:]
            pd.testing.assert_frame_equal(pd.read_pickle(table), expected)
            assert names_of_results(results) == wanted
            for name, time_of_writing in times.items():
                assert (results / name).stat().st_mtime_ns == time_of_writing, name


def test_kills_while_results_are_written(tally, results):
    """SIGKILL while results are written"""
    draw = random.Random(0)
    for i in range(20):
        with tally.attempt(f"kill {i}"):
            process = start("-c", WRITER)
            process.stdout.readline()
            time.sleep(draw.uniform(0.05, 0.6))
            kill(process, "main")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for path in results.glob("[!.]*"):
                    lengths = len(cache._read(path)) / 100_000
                    assert lengths in (1, 2, 3, 4, 5)
    with tally.attempt("what killed processes left is removed"):
        for path in results.glob(".*"):
            os.utime(path, (0, 0))
        cache._prepare(results)
        assert [*results.glob(".*")] == []


PUT_IN_PLACE = """
import os, pathlib, shutil, signal, sys
from pathlib import Path
from wcka.book import builder

last = int(sys.argv[3])
steps = 0

def counted(function):
    def call(*arguments, **options):
        global steps
        steps += 1
        if steps > last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "symlink"):
    setattr(os, name, counted(getattr(os, name)))
builder._put_in_place(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def book_of(folder, text):
    """Write a book of 20 pages."""
    (folder / "book").mkdir(parents=True)
    for i in range(20):
        (folder / "book" / f"{i}.html").write_text(text, "utf-8")
    return folder


def texts_in(folder):
    return [path.read_text("utf-8") for path in sorted(folder.rglob("*.html"))]


def test_kills_while_a_book_takes_its_place(tally, tmp_path):
    """SIGKILL at each step of putting a book in its place"""
    moments_without_a_book = 0
    for last in range(60):
        folder = tmp_path / str(last)
        built = book_of(folder / "jupyter-book", "new")
        site = book_of(folder / "html", "old")
        process = start("-c", PUT_IN_PLACE, built, site, last)
        process.communicate(timeout=60)
        if process.returncode == 0:
            break
        with tally.attempt(f"kill after {last} steps"):
            assert process.returncode == -signal.SIGKILL
            texts = texts_in(site) if site.exists() else []
            assert texts in (["old"] * 20, ["new"] * 20, [])
            moments_without_a_book += not texts
            builder._put_in_place(book_of(folder / "again", "newest"), site)
            assert texts_in(site) == ["newest"] * 20
            assert [*folder.glob(f"{builder._OLD_BOOK}*")] == []
    with tally.attempt("moments without a book"):
        assert last > 20 and moments_without_a_book == 1


def test_kills_of_a_chapter(tally, tmp_path):
    """SIGKILL, SIGTERM and SIGHUP of a run of a chapter"""
    notebooks = tmp_path / "notebooks"
    (notebooks / "profiles").mkdir(parents=True)
    chapter = f"{CHAPTER}\n# %%\nimport time\ntime.sleep(0.5)\n"
    for _ in range(4):
        chapter += "\n# %%\ntime.sleep(0.5)\n"
    (notebooks / "07-tiny.py").write_text(chapter, "utf-8")
    output = tmp_path / "_build" / "runs" / "07-tiny.ipynb"
    draw = random.Random(0)
    for i in range(9):
        number = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP][i % 3]
        with tally.attempt(f"{number.name} {i}"):
            process = start("-c", RUN, notebooks, tmp_path / "_build")
            deadline = time.monotonic() + draw.uniform(1, 9)
            children = []
            while time.monotonic() < deadline and process.poll() is None:
                children = descendants(process)
                time.sleep(0.05)
            process.send_signal(number)
            process.communicate(timeout=60)
            assert survivors(children) == []
            if output.exists():
                execution.check_executed(nbformat.read(output, 4), output.name)
                output.unlink()
            assert [*output.parent.glob("[!.]*")] == []
    with tally.attempt("another run"):
        process = start("-c", RUN, notebooks, tmp_path / "_build")
        _, message = process.communicate(timeout=120)
        assert process.returncode == 0, message


def test_interrupts(tally, tmp_path):
    """Ctrl-C at a moment that nobody chose"""
    notebooks = tmp_path / "notebooks"
    (notebooks / "profiles").mkdir(parents=True)
    (notebooks / "07-tiny.py").write_text(CHAPTER, "utf-8")
    draw = random.Random(0)
    for i in range(12):
        seconds = draw.uniform(0, 7)
        with tally.attempt(f"after {seconds:.2f} s"):
            process = start("-c", RUN, notebooks, tmp_path / f"_build{i}")
            time.sleep(seconds)
            children = descendants(process)
            os.killpg(process.pid, signal.SIGINT)
            _, message = process.communicate(timeout=60)
            assert process.returncode in (0, 130, -signal.SIGINT), message
            if process.returncode == 130:
                assert message.startswith(b"wcka: interrupted"), message
                assert message.count(b"\n") == 1, message
            assert survivors(children) == []


def full(folder, size="200k"):
    """Return a machine on which a folder is on a full disk."""
    folder.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    return Machine(before=["unshare", "-m", "sh", "-c", script, str(folder)])


@pytest.mark.skipif(not can_unshare(), reason="no right to mount a small disk")
def test_full_disks(tally, tmp_path, results):
    """a disk that fills"""
    units = tmp_path / "units.py"
    units.write_text(WRITER.partition("print")[0], "utf-8")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import units\n"
        "from wcka.experiments.jobs import run_jobs\n"
        "calls = [{'n': n} for n in range(20)]\n"
        "print(run_jobs(units.numbers, calls, jobs=JOBS).number.sum())\n")
    lengths = [100_000 * (n % 5 + 1) for n in range(20)]
    wanted = sum(length * (length - 1) // 2 for length in lengths)
    for jobs in ("1", "2"):
        with tally.attempt(f"results, {jobs} processes"):
            process = full(results, "1m").run("-c", code.replace("JOBS", jobs))
            assert int(process.stdout) == wanted
            assert process.stderr.count("not kept in") == 1, process.stderr
    notebooks = tmp_path / "notebooks"
    (notebooks / "profiles").mkdir(parents=True)
    (notebooks / "07-tiny.py").write_text(CHAPTER, "utf-8")
    with tally.attempt("notebook"):
        build = tmp_path / "_build"
        process = full(build, "8k").run("-c", RUN, notebooks, build)
        assert process.returncode == 1
        assert process.stderr.startswith("wcka: "), process.stderr
    with tally.attempt("data"):
        data = tmp_path / "data"
        machine = full(data, "2m")
        machine.variables["WCKA_DATA"] = str(data)
        process = machine.run("-m", "wcka", "data")
        assert process.returncode == 1
        assert "wcka: " in process.stderr, process.stderr
    with tally.attempt("sphinx"):
        build = tmp_path / "book"
        process = full(build, "300k").run("-c", SPHINX, build)
        assert process.returncode == 0, process.stderr
        assert b"No space left" in process.stdout, process.stdout


SPHINX = """
import sys
from pathlib import Path
from wcka.book import builder, checkout
checkout.BUILD = Path(sys.argv[1])
source = checkout.BUILD / "source"
source.mkdir()
(source / "_toc.yml").write_text("format: jb-book\\nroot: index\\n")
(source / "_config.yml").write_text("title: a\\n")
(source / "index.md").write_text("# a\\n")
try:
    builder._sphinx(source, "html")
except RuntimeError as error:
    print(error)
"""
