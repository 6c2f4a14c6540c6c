"""Jobs on the processes of this machine: what is stacked, and where it runs."""

import os
import warnings

import joblib
import pandas as pd
import pytest
import torch

from wcka.experiments import cache, jobs


class Unit:
    """A cached function of i that took i seconds; some of its results are on disk."""

    def __init__(self, on_disk=(), is_full=False):
        self.on_disk = set(on_disk)
        self.is_full = is_full

    def kept(self, i):
        return i in self.on_disk

    def __call__(self, i):
        table = pd.DataFrame({"i": [i, -i]})
        table.attrs["seconds"] = float(i)
        if self.is_full:
            warnings.warn("it is full", cache.NotKept, stacklevel=2)
        else:
            self.on_disk.add(i)
        return table


def test_tables_are_stacked_and_their_seconds_added():
    table = jobs.run_jobs(Unit(), [{"i": 3}, {"i": 1}, {"i": 2}], jobs=1)
    assert table.i.tolist() == [3, -3, 1, -1, 2, -2]
    assert table.index.tolist() == list(range(6))
    assert table.attrs == {"seconds": 6.0}


def test_no_units_give_an_empty_table():
    table = jobs.run_jobs(Unit(), [], jobs=1)
    assert table.empty and table.attrs == {"seconds": 0.0}


@pytest.mark.filterwarnings("error")
def test_a_full_disk_is_one_warning():
    units = [{"i": i} for i in range(5)]
    with pytest.warns(cache.NotKept) as warned:
        table = jobs.run_jobs(Unit(is_full=True), units, jobs=1)
    assert [str(warning.message).split(" not")[0] for warning in warned] == [
        "5 of 5 results are"]
    assert table.i.tolist() == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]
    jobs.run_jobs(Unit(), units, jobs=1)  # no warning


@pytest.mark.parametrize("on_disk, processes", [([], 2), ([1], 2), ([1, 2], 1)])
def test_processes_start_unless_all_results_are_on_disk(
        monkeypatch, on_disk, processes):
    numbers_of_processes = []
    parallel = joblib.Parallel

    def in_this_process(n_jobs, **options):
        numbers_of_processes.append(n_jobs)
        return parallel(1, **options)

    monkeypatch.setattr(joblib, "Parallel", in_this_process)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    table = jobs.run_jobs(Unit(on_disk), [{"i": 1}, {"i": 2}], jobs=2)
    assert numbers_of_processes == [processes]
    assert table.i.tolist() == [1, -1, 2, -2]


def test_a_unit_in_another_process_has_one_thread_and_the_folders_given(monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", "here")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)

    def state(key):
        return os.environ[key], torch.get_num_threads()

    try:
        arguments = {"key": "WCKA_CACHE"}
        folder_and_threads = jobs._alone(state, arguments, {"WCKA_CACHE": "elsewhere"})
    finally:
        torch.set_num_threads(threads)
    assert folder_and_threads == ("elsewhere", 1)


@pytest.mark.parametrize("address", ["10.0.0.1:8786", "localhost"])
def test_an_address_without_a_protocol_is_refused(address):
    jobs.check_scheduler("")
    jobs.check_scheduler("tcp://10.0.0.1:8786")
    with pytest.raises(ValueError, match=f"wanted tcp://ADDRESS:PORT, got '{address}'"):
        jobs.check_scheduler(address)
