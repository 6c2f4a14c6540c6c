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
        ) as started,
    ):
        yield started


def kill_one(started, folder, died):
    """Kill the first worker once there is a first result: others are then on their way.
    """
    while not list(folder.glob("trained-*.safetensors")):
        time.sleep(0.005)
    pid = started.workers[0].pid
    died.append((pid, len(list(folder.iterdir()))))
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_is_killed_and_the_table_is_the_same_to_the_last_bit(
        two_workers, folder, tmp_path_factory, monkeypatch):
    died = []
    killer = threading.Thread(
        target=kill_one, args=(two_workers, folder, died), daemon=True
    )
    killer.start()
    members, table = benchmark.grid(*ARGUMENTS, scheduler=two_workers.scheduler_address)
    killer.join(10)
    files = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    (pid, finished), = died
    assert finished < len(files) / 2 and pid not in [
        w.pid for w in two_workers.workers.values()
    ]
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path_factory.mktemp("local")))
    ours, local = benchmark.grid(*ARGUMENTS)
    pd.testing.assert_frame_equal(members, ours, check_exact=True)
    table.attrs, local.attrs = {}, {}  # how long it took
    pd.testing.assert_frame_equal(table, local, check_exact=True)
    assert files == {path.name for path in Path(os.environ["WCKA_CACHE"]).iterdir()}


def test_workers_must_see_the_same_folders_and_have_the_same_code(two_workers, folder,
                                                                  monkeypatch):
    here, seen = os.getpid(), jobs._state_of_process
    for elsewhere, words in (
        ((set(), "", ""), r"folder of WCKA_CACHE \(.*set it to one"),
        (({"WCKA_CACHE"}, "", ""), r"folder of WCKA_DATA \(.*set it to one"),
        (
            ({"WCKA_CACHE", "WCKA_DATA"}, "", "0.0"),
            r"version of wcka or of PyTorch \(0.0",
        ),
    ):
        monkeypatch.setattr(jobs, "_state_of_process", lambda needed, there=elsewhere: (
            seen(needed) if os.getpid() == here else there))
        with pytest.raises(RuntimeError, match=words):
            jobs.run_jobs(benchmark._fit, [{"model": ARGUMENTS[0][0]}],
                      scheduler=two_workers.scheduler_address)
    assert not list(folder.iterdir())


def test_every_chapter_with_units_of_work_hands_them_to_the_scheduler():
    chapters = 0
    for path in (Path(__file__).parents[2] / "notebooks").glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        calls = [ast.unparse(node) for node in nodes if isinstance(node, ast.Call)
                 and ast.unparse(node.func) in ("jobs.run_jobs", "benchmark.grid")]
        assert all("scheduler=scheduler" in call for call in calls), path
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
    assert (
        "--nthreads 1 " in job
        and "--nworkers 16 " in job
        and "wcka/.venv/bin/activate" in job
    )
