"""The same table from the workers of a Dask scheduler, also when they come and go."""

import _thread
import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from test_benchmark import ARGUMENTS

from wcka.experiments import benchmark, jobs
from wcka.experiments.cache import cached
from wcka.experiments.fingerprint import PACKAGE
from wcka.networks import sources

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")


LIMIT = 40  # seconds after which a unit waits no longer, and its test fails


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where this process and workers that start after it keep results."""
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    monkeypatch.setenv("WCKA_DATA", str(sources.root()))
    return tmp_path


@contextmanager
def processes(number):
    """Start a scheduler in this process, and workers in processes of their own."""
    # Dask's default has freed memory given back at once, which makes work on images
    # slow; it would also stay in the environment of this process.
    settings = {"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=number, threads_per_worker=1, dashboard_address=None
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def one_worker(folder):
    with processes(1) as cluster:
        yield cluster


@pytest.fixture
def two_workers(folder):
    with processes(2) as cluster:
        yield cluster


@pytest.fixture
def thread(folder, monkeypatch):
    """A scheduler with one worker, which is a thread of this process."""
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        yield cluster


def wait_until(condition):
    """Wait until a condition is met, or for a limited time; return whether it is."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@cached
def process_of_unit(i, marks, wanted):
    """Leave a mark of this process; end once there are as many as wanted."""
    Path(marks, str(os.getpid())).touch()
    if not wait_until(lambda: len(list(Path(marks).iterdir())) >= wanted):
        (Path(marks) / "given up").touch()  # the other units wait no longer
    time.sleep(0.1)
    return pd.DataFrame({"i": [i], "process": [os.getpid()]})


def units(folder, number, wanted):
    """Return arguments of `process_of_unit`, and the folder of its marks."""
    marks = folder / "marks"
    marks.mkdir()
    arguments = []
    for i in range(number):
        arguments.append({"i": i, "marks": str(marks), "wanted": wanted})
    return arguments, marks


@contextmanager
def meanwhile(function, *arguments):
    """Run a function in a thread of its own, beside a block."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    yield
    thread.join(LIMIT)
    assert not thread.is_alive()


def kill_first_worker(cluster, folder, kills):
    """Kill a worker once there is a first result: further ones are then on their way.

    Append the worker's process and the number of files at that time to `kills`.
    """
    while not list(folder.glob("trained-*.safetensors")):
        time.sleep(0.005)
    pid = cluster.workers[0].pid
    kills.append((pid, len(list(folder.iterdir()))))
    os.kill(pid, signal.SIGKILL)


def names_of_results(folder):
    """Return the names of finished results in a folder."""
    return {path.name for path in folder.glob("[!.]*")}


@pytest.mark.slow
def test_a_worker_is_killed_and_the_table_is_the_same_to_the_last_bit(
        two_workers, folder, tmp_path_factory, monkeypatch):
    kills = []
    address = two_workers.scheduler_address
    with meanwhile(kill_first_worker, two_workers, folder, kills):
        members, table = benchmark.grid(*ARGUMENTS, scheduler=address)
    (pid, finished), = kills
    assert finished < len(names_of_results(folder)) / 2
    for worker in two_workers.workers.values():
        assert worker.pid != pid
    local_folder = tmp_path_factory.mktemp("local")
    monkeypatch.setenv("WCKA_CACHE", str(local_folder))
    local_members, local_table = benchmark.grid(*ARGUMENTS)
    pd.testing.assert_frame_equal(members, local_members, check_exact=True)
    table.attrs.clear()  # how long it took
    local_table.attrs.clear()
    pd.testing.assert_frame_equal(table, local_table, check_exact=True)
    assert names_of_results(folder) == names_of_results(local_folder)


# ------------------------------------------------------------- workers come and go


@pytest.mark.slow
def test_a_worker_that_joins_late_computes_its_share(one_worker, folder):
    first = one_worker.workers[0].pid
    # The first unit ends only when a second process works on another one.
    arguments, marks = units(folder, 40, wanted=2)

    def join_late():
        wait_until(lambda: list(marks.iterdir()))
        one_worker.scale(2)

    with meanwhile(join_late):
        table = jobs.run_jobs(
            process_of_unit, arguments, scheduler=one_worker.scheduler_address)
    assert table.i.tolist() == list(range(40))
    assert table.process.nunique() == 2
    assert (table.process != first).sum() >= 5


@contextmanager
def worker_of_another_version(folder, address):
    """Start a worker whose package differs in one line of code."""
    package = folder / "wcka"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "measures" / "agreement.py").open("a") as module:
        module.write("ANOTHER_VERSION = True\n")
    paths = [str(folder), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "dask", "worker", address, "--nthreads", "1",
               "--no-dashboard"]
    # Python looks for packages in the current folder first.
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_late_worker_of_another_version_computes_nothing(
        one_worker, folder, tmp_path_factory):
    first = one_worker.workers[0].pid
    # The first unit ends only when the test leaves a second mark.
    arguments, marks = units(folder, 20, wanted=2)
    statuses = []

    def join_late():
        wait_until(lambda: list(marks.iterdir()))
        other = tmp_path_factory.mktemp("other")
        with worker_of_another_version(other, address) as process:
            wait_until(lambda: process.poll() is not None)
            statuses.append(process.poll())
        (marks / "refused").touch()

    address = one_worker.scheduler_address
    with (
        meanwhile(join_late),
        pytest.warns(UserWarning, match="refused .* has another version") as warnings,
    ):
        table = jobs.run_jobs(process_of_unit, arguments, scheduler=address)
    assert len(warnings) == 1
    assert statuses == [0]  # it was closed, and not replaced
    assert table.i.tolist() == list(range(20))
    assert set(table.process) == {first}
    assert {mark.name for mark in marks.iterdir()} == {str(first), "refused"}


@cached
def killer(i, process):
    """Kill a process."""
    os.kill(process, signal.SIGKILL)
    return pd.DataFrame({"i": [i]})


@pytest.mark.slow
def test_a_scheduler_that_is_killed_is_an_error_that_says_so(
        folder, tmp_path, caplog):
    file = tmp_path / "scheduler.json"
    shared = ["--scheduler-file", str(file), "--no-dashboard"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = []
    for arguments in (["scheduler", "--port", "0"], ["worker", "--nthreads", "1"]):
        command = [sys.executable, "-m", "dask", *arguments, *shared]
        started.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        assert wait_until(file.exists)
    try:
        address = json.loads(file.read_text())["address"]
        arguments = [{"i": i, "process": started[0].pid} for i in range(3)]
        with pytest.raises(RuntimeError, match="lost the Dask scheduler at tcp:"):
            jobs.run_jobs(killer, arguments, scheduler=address)
        # What its worker has begun is finished, and kept.
        assert wait_until(lambda: list(folder.glob("killer-*")))
    finally:
        for process in started:
            process.terminate()
            process.wait()
    # Dask's client says at length that it cannot come back.
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("error", [
    distributed.comm.CommClosedError("in nthreads"), distributed.CancelledError("x")])
def test_any_call_may_find_the_scheduler_gone(error):
    message = "lost the Dask scheduler at tcp://nowhere"
    with (
        pytest.raises(RuntimeError, match=message),
        jobs._lost_scheduler_is_said("tcp://nowhere"),
    ):
        raise error


def test_without_any_worker_a_run_ends_and_says_so(thread, folder, monkeypatch):
    monkeypatch.setattr(jobs, "_PATIENCE_FOR_WORKERS", 1)
    arguments, marks = units(folder, 3, wanted=2)

    def scale_down():
        wait_until(lambda: list(marks.iterdir()))
        thread.scale(0)
        wait_until(lambda: not thread.scheduler_info["workers"])
        (marks / "unit may end").touch()

    address = thread.scheduler_address
    with (
        meanwhile(scale_down),
        pytest.raises(RuntimeError, match=f"no worker at {address} for .* minutes"),
    ):
        jobs.run_jobs(process_of_unit, arguments, scheduler=address)
    with pytest.raises(RuntimeError, match=f"no worker at {address} for .* minutes"):
        jobs.run_jobs(process_of_unit, arguments, scheduler=address)


class FutureOfDeadWorker:
    """A call whose worker died before its result was here; it is computed again."""

    key, status = "unit", "pending"

    def __init__(self):
        self.attempts = 0

    def add_done_callback(self, function):
        function(self)

    def result(self, timeout):
        self.attempts += 1
        if self.attempts == 1:
            raise TimeoutError
        return self.attempts


def test_a_result_that_died_with_its_worker_is_awaited_again(folder):
    client = SimpleNamespace(
        scheduler=SimpleNamespace(addr="tcp://nowhere"),
        submit=lambda *arguments, **options: FutureOfDeadWorker())
    workers = jobs._Workers(client, {}, folder / ".seen-token")
    assert list(workers.results([abs])) == [(0, 2)]


def test_an_adaptive_cluster_without_workers_starts_them(folder, thread):
    thread.scale(0)
    wait_until(lambda: not thread.scheduler_info["workers"])
    thread.adapt(minimum=0, maximum=1, interval="100ms")
    arguments, _ = units(folder, 3, wanted=1)
    table = jobs.run_jobs(
        process_of_unit, arguments, scheduler=thread.scheduler_address)
    assert table.i.tolist() == [0, 1, 2]


# ---------------------------------------------------------- what a worker must share


@pytest.mark.slow
def test_a_worker_that_differs_from_the_start_is_an_error(
        two_workers, folder, monkeypatch):
    pid = os.getpid()
    state_of_process = jobs._state_of_process

    def state(needed):
        if os.getpid() == pid:
            return state_of_process(needed)
        return jobs._State(frozenset(), "", "")

    monkeypatch.setattr(jobs, "_state_of_process", state)
    with pytest.raises(RuntimeError, match=r"folder of WCKA_CACHE \(.*set it to one"):
        jobs.run_jobs(benchmark._fit, [{"model": ARGUMENTS[0][0]}],
                      scheduler=two_workers.scheduler_address)
    assert not list(folder.iterdir())


def test_a_worker_that_joins_between_phases_and_differs_is_sent_away(
        thread, folder, monkeypatch):
    thread.scale(2)
    wait_until(lambda: len(thread.scheduler_info["workers"]) == 2)
    arguments, _ = units(folder, 4, wanted=1)
    address = thread.scheduler_address
    jobs.run_jobs(process_of_unit, arguments[:2], scheduler=address)
    worker = thread.workers[1].address

    def differences(workers):
        return {worker: "differs"} if worker in workers.client.nthreads() else {}

    monkeypatch.setattr(jobs._Workers, "_differences", differences)
    with pytest.warns(UserWarning, match=f"refused a worker: {worker} differs"):
        table = jobs.run_jobs(process_of_unit, arguments, scheduler=address)
    assert table.i.tolist() == [0, 1, 2, 3]
    assert worker not in thread.scheduler_info["workers"]


@pytest.mark.parametrize(("variables", "code", "version", "words"), [
    ({"WCKA_DATA"}, "code", "2.6", r"not see the folder of WCKA_CACHE \(/results\)"),
    ({"WCKA_CACHE"}, "code", "2.6", r"not see the folder of WCKA_DATA \(/data\)"),
    ({"WCKA_CACHE", "WCKA_DATA"}, "other", "2.6", "another version of wcka, NumPy"),
    ({"WCKA_CACHE", "WCKA_DATA"}, "other", "2.7", "PyTorch 2.7, here 2.6"),
    ({"WCKA_CACHE", "WCKA_DATA"}, "code", "2.6", "^$"),
])
def test_what_a_worker_lacks_is_named(variables, code, version, words):
    here = jobs._State(frozenset({"WCKA_CACHE", "WCKA_DATA"}), "code", "2.6")
    there = jobs._State(frozenset(variables), code, version)
    folders = {"WCKA_CACHE": "/results", "WCKA_DATA": "/data"}
    assert re.search(words, jobs._difference(there, here, folders))


def test_data_that_are_on_a_worker_alone_are_no_fault():
    here = jobs._State(frozenset({"WCKA_CACHE"}), "code", "2.6")
    there = jobs._State(frozenset({"WCKA_CACHE", "WCKA_DATA"}), "code", "2.6")
    assert jobs._difference(there, here, {}) == ""


# ------------------------------------------------------------------ errors and Ctrl-C


class Unpicklable(Exception):
    """An error that holds what no other process can have."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


ERRORS = {"plain": ValueError, "unpicklable": Unpicklable, "late": TimeoutError}


@cached
def failing(i, kind):
    raise ERRORS[kind](f"unit {i}")


@pytest.mark.parametrize(("kind", "error", "words"), [
    ("plain", ValueError, "^unit 0$"),
    ("late", TimeoutError, "^unit 0$"),
    ("unpicklable", Exception, r"^Unpicklable\('unit 0'\)$"),
])
def test_the_error_of_a_unit_reaches_the_caller(thread, kind, error, words):
    with pytest.raises(error, match=words):
        jobs.run_jobs(
            failing, [{"i": 0, "kind": kind}], scheduler=thread.scheduler_address)


@cached
def interrupting(i, marks):
    """Interrupt the main thread as Ctrl-C does, and end when that has an effect."""
    Path(marks, str(i)).touch()
    _thread.interrupt_main()
    wait_until(Path(marks, "interrupted").exists)
    return pd.DataFrame({"i": [i]})


def test_an_interrupted_run_cancels_its_other_units(thread, folder):
    arguments = [{"i": i, "marks": str(folder)} for i in range(20)]
    with pytest.raises(KeyboardInterrupt):
        jobs.run_jobs(interrupting, arguments, scheduler=thread.scheduler_address)
    (folder / "interrupted").touch()
    assert wait_until(lambda: not thread.scheduler.tasks)
    assert not (folder / "19").exists()
    assert not list(folder.glob(".seen-*"))


def test_finished_units_are_read_without_a_scheduler(folder):
    arguments, _ = units(folder, 2, wanted=1)
    table = jobs.run_jobs(process_of_unit, arguments, jobs=1)
    nowhere = "tcp://127.0.0.1:9"
    again = jobs.run_jobs(process_of_unit, arguments, scheduler=nowhere)
    pd.testing.assert_frame_equal(again, table)


# -------------------------------------------------------------- chapters and the page


def calls_of_jobs(path):
    """Return the calls that run units of work in a chapter, as text."""
    calls = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            if function in ("jobs.run_jobs", "benchmark.grid"):
                calls.append(ast.unparse(node))
    return calls


def test_every_chapter_with_units_of_work_hands_them_to_the_scheduler():
    chapters = 0
    for path in (Path(__file__).parents[2] / "notebooks").glob("*.py"):
        calls = calls_of_jobs(path)
        for call in calls:
            assert "scheduler=scheduler" in call, path
        chapters += bool(calls)
    assert chapters == 6


def test_no_scheduler_is_said_before_any_work(monkeypatch, folder):
    monkeypatch.setattr(jobs, "_PATIENCE", 1)
    with pytest.raises(RuntimeError, match=r"no Dask scheduler at tcp:"):
        jobs.run_jobs(
            benchmark._fit, [{"model": ARGUMENTS[0][0]}], scheduler="tcp://127.0.0.1:9"
        )
    assert not list(folder.iterdir())


def test_the_job_of_the_page_on_clusters_starts_workers_of_one_thread(monkeypatch):
    """The page's own lines, up to the job that they would submit."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    page = (Path(__file__).parents[2] / "book" / "cluster.md").read_text()
    lines = page.split("```python\n")[1].split("cluster.adapt")[0]
    names = {}
    with dask.config.set({}):
        exec(lines, names)
    job = names["cluster"].job_script()
    names["cluster"].close()
    assert isinstance(names["cluster"], jobqueue.SLURMCluster)
    for option in ("--nthreads 1 ", "--nworkers 16 ", "wcka/.venv/bin/activate"):
        assert option in job
