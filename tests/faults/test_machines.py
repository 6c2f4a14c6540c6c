"""Machines as people have them: the same result as elsewhere, or one line of reason."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wcka.book import checkout

CHAPTER = """\
# %% tags=["parameters"]
seed: int = 0  # of the numbers: größer, 数

# %%
import matplotlib.pyplot as plt
import torch
from wcka.experiments import cache

# %%
print("größer als 数", seed)
plt.plot([1, 2]);
"""
RUN = """
import sys
from pathlib import Path
from wcka import cli
from wcka.book import checkout
checkout.NOTEBOOKS = Path(sys.argv[1])
checkout.BUILD = Path(sys.argv[2])
sys.exit(cli.main(["run", "07", *sys.argv[3:]]))
"""
JOBS = """
import sys
sys.path.insert(0, sys.argv[1])
import units
from wcka.experiments.jobs import run_jobs
table = run_jobs(units.squares, [{"n": n} for n in range(2, 8)], jobs=2)
print(table.square.sum())
"""
UNITS = """
import pandas as pd
from wcka.experiments.cache import cached

@cached
def squares(n: int) -> pd.DataFrame:
    return pd.DataFrame({"square": [i**2 for i in range(n)]})
"""
SUM = sum(i**2 for n in range(2, 8) for i in range(n))
BACKWARDS = """
import itertools, time
start = time.time()
steps = itertools.count()
time.time = lambda: start - 1000 * next(steps)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks, a chapter and a unit of work, in a folder with an odd name."""
    name = "größer {als} 数 'x' $HOME %d " + "l" * 150
    folder = tmp_path_factory.mktemp("machines") / name
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    (folder / "notebooks" / "07-tiny.py").write_text(CHAPTER, "utf-8")
    (folder / "units.py").write_text(UNITS, "utf-8")
    generator = torch.Generator().manual_seed(0)
    for file in ("erstes-größer.safetensors", "zweites 数.safetensors"):
        layers = {}
        for name, shape in {"fc1": (32, 784), "fc2": (10, 32)}.items():
            layers[f"{name}.weight"] = torch.randn(shape, generator=generator)
        save_file(layers, folder / file)
    return folder


class Machine:
    """How a process is started: what differs from the process of the tests."""

    def __init__(self, limits=(), unset=(), before=(), **variables):
        self.limits = limits
        self.unset = unset
        self.before = before
        self.variables = variables

    def _limit(self):
        for kind, value in self.limits:
            resource.setrlimit(kind, (value, value))

    def run(self, *command, **streams):
        environment = {**os.environ, **self.variables}
        for name in self.unset:
            environment.pop(name, None)
        streams = {"stdout": subprocess.PIPE, **streams}
        process = subprocess.run(
            [*self.before, sys.executable, *map(str, command)], cwd=checkout.ROOT,
            env=environment, preexec_fn=self._limit, stderr=subprocess.PIPE,
            timeout=300, **streams)
        process.stderr = process.stderr.decode("utf-8", "replace")
        assert "Traceback" not in process.stderr, process.stderr[-1500:]
        return process


GIGABYTE = 2**30
MACHINES = {
    "as it is": Machine(),
    "locale C": Machine(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"),
    "terminal of ASCII": Machine(LC_ALL="C", PYTHONIOENCODING="ascii"),
    "terminal of Latin-1": Machine(PYTHONIOENCODING="latin-1"),
    "home is a device": Machine(HOME="/dev/null", unset=["XDG_CACHE_HOME"]),
    "home is not there": Machine(HOME="/proc/none", unset=["XDG_CACHE_HOME"]),
    "no home": Machine(unset=["HOME", "XDG_CACHE_HOME"]),
    "64 file handles": Machine([(resource.RLIMIT_NOFILE, 64)]),
    "4 GB of memory": Machine([(resource.RLIMIT_AS, 4 * GIGABYTE)]),
    "files of at most 4 kB": Machine([(resource.RLIMIT_FSIZE, 4096)]),
    "no variable but PATH": Machine(unset=os.environ.keys() - {"PATH", "WCKA_CACHE"}),
    "no shared memory": Machine(
        before=["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=0,mode=000 none '
                '/dev/shm && umount -l /dev/shm; rm -rf /dev/shm.none; '
                'mount --bind /proc/fs /dev/shm; exec "$@"', "sh"]),
}


def can_unshare():
    command = MACHINES["no shared memory"].before
    return subprocess.run([*command, "true"], capture_output=True).returncode == 0


def machines():
    """Yield the machines that can be had here, with their names."""
    for name, machine in MACHINES.items():
        if machine.before and not (shutil.which("unshare") and can_unshare()):
            continue
        yield name, machine


def said_in_one_line(process):
    """Tell whether a process failed and said why, in a line of ours."""
    lines = process.stderr.splitlines()
    has_reason = any(line.startswith("wcka: ") for line in lines)
    return process.returncode in (1, 2) and has_reason


def test_comparison_on_odd_machines(tally, folder):
    """compare on an odd machine"""
    files = sorted(folder.glob("*.safetensors"))
    for layout in ([], ["--json"]):
        expected = Machine().run("-m", "wcka", "compare", *files, *layout)
        assert expected.returncode == 0
        for name, machine in machines():
            with tally.attempt(f"compare {layout} on {name}"):
                process = machine.run("-m", "wcka", "compare", *files, *layout)
                assert process.returncode == 0, process.stderr
                text = process.stdout.decode("ascii", "ignore")
                wanted = expected.stdout.decode("ascii", "ignore")
                assert text.count("0.0") == wanted.count("0.0"), text


def test_jobs_on_odd_machines(tally, folder, tmp_path):
    """units of work on two processes, on an odd machine"""
    for i, (name, machine) in enumerate(machines()):
        with tally.attempt(f"jobs on {name}"):
            machine.variables["WCKA_CACHE"] = str(tmp_path / str(i))
            process = machine.run("-c", JOBS, folder)
            del machine.variables["WCKA_CACHE"]
            assert process.returncode == 0, process.stderr[-1500:]
            assert int(process.stdout) == SUM


def test_chapters_on_odd_machines(tally, folder, tmp_path):
    """a chapter on an odd machine"""
    for name, machine in machines():
        with tally.attempt(f"chapter on {name}"):
            build = tmp_path / name
            process = machine.run("-c", RUN, folder / "notebooks", build)
            output = build / "runs" / "07-tiny.ipynb"
            if process.returncode:
                assert said_in_one_line(process), process.stderr
                assert not output.exists()
            else:
                assert "größer als 数 0" in output.read_text("utf-8")
            assert [*build.rglob(".wcka-run-*")] == []


def test_places_of_results(tally, folder, tmp_path):
    """a path with spaces, braces, other scripts and 200 characters"""
    output = folder / "größer {seed} 数 $x.ipynb"
    with tally.attempt("run -o"):
        process = Machine().run(
            "-c", RUN, folder / "notebooks", tmp_path, "-o", output)
        assert process.returncode == 0, process.stderr
        assert "größer als 数 0" in output.read_text("utf-8")
    with tally.attempt("failing run -o"):
        output = folder / f"{'n' * 230}.ipynb"
        process = Machine().run(
            "-c", RUN, folder / "notebooks", tmp_path, "-o", output, "-p", "seed", "x")
        assert said_in_one_line(process), process.stderr
    with tally.attempt("too long a name"):
        output = folder / f"{'n' * 245}.ipynb"
        process = Machine().run(
            "-c", RUN, folder / "notebooks", tmp_path, "-o", output)
        assert said_in_one_line(process), process.stderr
        assert "at most" in process.stderr
    for variable in ("WCKA_CACHE", "TMPDIR", "HOME"):
        place = folder / f"{variable} größer {{als}} 数"
        place.mkdir()
        with tally.attempt(variable):
            machine = Machine(**{variable: str(place)})
            assert int(machine.run("-c", JOBS, folder).stdout) == SUM
    with tally.attempt("WCKA_DATA"):
        place = folder / "data {größer}"
        process = Machine(WCKA_DATA=str(place)).run("-m", "wcka", "data")
        assert process.returncode == 0, process.stderr
        assert len([*(place / "MNIST" / "raw").glob("*ubyte")]) == 4
    with tally.attempt("TMPDIR of a chapter"):
        place = folder / "TMPDIR größer {als} 数"
        process = Machine(TMPDIR=str(place)).run(
            "-c", RUN, folder / "notebooks", tmp_path / "third")
        assert process.returncode == 0, process.stderr


def test_streams(tally, folder):
    """standard output that is closed, full, or read in part"""
    files = sorted(folder.glob("*.safetensors"))
    command = ["-m", "wcka", "compare", *files]
    with tally.attempt("full"), open("/dev/full", "wb") as full:
        process = Machine().run(*command, stdout=full)
        assert said_in_one_line(process), process.stderr
    with tally.attempt("nobody reads"):
        reader, writer = os.pipe()
        os.close(reader)
        process = Machine().run(*command, stdout=writer)
        os.close(writer)
        assert process.returncode == 141 and process.stderr == ""
    with tally.attempt("closed"):
        shell = Machine(before=["sh", "-c", 'exec "$@" >&-', "sh"])
        process = shell.run(*command)
        assert process.returncode in (0, 1), process.stderr
    with tally.attempt("no standard input"):
        shell = Machine(before=["sh", "-c", 'exec "$@" <&-', "sh"])
        assert shell.run(*command).returncode == 0
    for columns in ("1", "0", "-5", "x"):
        with tally.attempt(f"{columns} columns"):
            assert Machine(COLUMNS=columns).run(*command).returncode == 0


def test_clocks(tally, folder, tmp_path):
    """a clock that goes back 1,000 s whenever it is read"""
    (tmp_path / "sitecustomize.py").write_text(BACKWARDS)
    machine = Machine(PYTHONPATH=str(tmp_path), WCKA_CACHE=str(tmp_path / "results"))
    with tally.attempt("jobs"):
        assert int(machine.run("-c", JOBS, folder).stdout) == SUM
    with tally.attempt("jobs that are there"):
        assert int(machine.run("-c", JOBS, folder).stdout) == SUM
    with tally.attempt("chapter"):
        process = machine.run("-c", RUN, folder / "notebooks", tmp_path / "build")
        assert process.returncode == 0, process.stderr
    with tally.attempt("comparison"):
        files = sorted(folder.glob("*.safetensors"))
        assert machine.run("-m", "wcka", "compare", *files).returncode == 0
    for path in Path(tmp_path / "results").iterdir():
        os.utime(path, (2**32, 2**32))  # of the year 2106
    with tally.attempt("results of the future"):
        assert int(machine.run("-c", JOBS, folder).stdout) == SUM
