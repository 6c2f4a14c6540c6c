"""The same table from the workers of a Dask scheduler, also when one of them dies."""

import ast
import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from test_benchmark import ARGUMENTS

from wcka.experiments import benchmark, jobs

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where this process and workers that start after it keep results."""
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def two_workers(folder):
    # Dask's default has freed memory given back at once, which makes work on images
    # slow; it would also stay in the environment of this process.
    settings = {"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
    ):
        yield cluster


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
    killer = threading.Thread(
        target=kill_first_worker, args=(two_workers, folder, kills), daemon=True
    )
    killer.start()
    members, table = benchmark.grid(*ARGUMENTS, scheduler=two_workers.scheduler_address)
    killer.join(10)
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


@pytest.mark.slow
@pytest.mark.parametrize("state_of_workers, words", [
    ((set(), "", ""), r"folder of WCKA_CACHE \(.*set it to one"),
    (({"WCKA_CACHE"}, "", ""), r"folder of WCKA_DATA \(.*set it to one"),
    (({"WCKA_CACHE", "WCKA_DATA"}, "", "0.0"),
     r"version of wcka or of PyTorch \(0.0"),
])
def test_workers_must_see_the_same_folders_and_have_the_same_code(
        two_workers, folder, monkeypatch, state_of_workers, words):
    pid = os.getpid()
    state_of_process = jobs._state_of_process

    def state(needed):
        if os.getpid() == pid:
            return state_of_process(needed)
        return state_of_workers

    monkeypatch.setattr(jobs, "_state_of_process", state)
    with pytest.raises(RuntimeError, match=words):
        jobs.run_jobs(benchmark._fit, [{"model": ARGUMENTS[0][0]}],
                      scheduler=two_workers.scheduler_address)
    assert not list(folder.iterdir())


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
    assert chapters == 5


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
