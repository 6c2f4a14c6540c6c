"""Jobs on the processes of this machine, or on the workers of a Dask scheduler."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from uuid import uuid4
from warnings import catch_warnings, filterwarnings

import joblib
import pandas as pd
import torch
from tqdm import tqdm

from ..networks import sources
from . import cache
from .fingerprint import whole_code

_PATIENCE = 60  # seconds to wait for a scheduler, and for its first worker


def run_jobs(unit: cache.Cached, arguments: Iterable[dict], jobs: int = -1,
             description: str = "units", scheduler: str = "") -> pd.DataFrame:
    """Compute units of work on several processes, and stack their tables.

    The tables are stacked in the order of the arguments.

    Each unit is a function cached on disk, so a run that was killed goes on where it
    was. In a process of its own a unit runs on one thread: its numbers are the same to
    the bit on any number of processes, here or elsewhere.

    Parameters
    ----------
    unit : function
        A ``cache.cached`` function that returns a table.
    arguments : iterable of dict
        Keyword arguments of each unit.
    jobs : int
        Number of processes; -1 for one per core, 1 to stay in this one.
    description : str
        What the progress bar says.
    scheduler : str
        Address of a Dask scheduler, such as "tcp://10.0.0.1:8786", whose workers take
        the place of processes. Units of a worker that dies go to the others.

    Returns
    -------
    DataFrame
        Its ``attrs["seconds"]`` is what all units took together when they were
        computed.

    Raises
    ------
    ImportError
        For a scheduler where Dask is not installed.
    RuntimeError
        Where there is no scheduler at this address, or no worker; where a worker has
        another version of this package, or does not see the folders of results and
        data.

    Examples
    --------
    >>> from wcka.experiments.cache import cached
    >>> @cached
    ... def squares(n):
    ...     return pd.DataFrame({"n": [n], "square": [n * n]})
    >>> run_jobs(squares, [{"n": 2}, {"n": 3}], jobs=1).square.tolist()
    [4, 9]
    """
    options_of_units = list(arguments)
    if all(unit.kept(**options) for options in options_of_units):
        jobs, scheduler = 1, ""  # reading needs no other processes
    in_this_process = jobs == 1 and not scheduler
    calls = []
    for options in options_of_units:
        if in_this_process:
            calls.append(joblib.delayed(unit)(**options))
        else:
            calls.append(joblib.delayed(_alone)(unit, options, _folders()))
    with _workers(scheduler) if scheduler else nullcontext(), catch_warnings():
        # A worker that keeps memory for its next unit looks to joblib like a leak.
        filterwarnings("ignore", "A worker stopped", UserWarning)
        parallel = joblib.Parallel(
            n_jobs=-1 if scheduler else jobs, return_as="generator", batch_size=1)
        progress = tqdm(
            parallel(calls), total=len(calls), desc=description, leave=False
        )
        tables = list(progress)
    seconds = 0.0
    for table in tables:
        seconds += table.attrs["seconds"]
        table.attrs.clear()  # pandas keeps them only where all are the same
    stacked = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    stacked.attrs["seconds"] = seconds
    return stacked


def _alone(unit: Callable, arguments: dict, folders: dict[str, str]) -> pd.DataFrame:
    """A unit in a process that may have started with other folders and more threads."""
    os.environ.update(folders)
    torch.set_num_threads(1)
    return unit(**arguments)


def _folders() -> dict[str, str]:
    return {"WCKA_CACHE": str(cache.root()), "WCKA_DATA": str(sources.root())}


def check_scheduler(scheduler: str) -> None:
    """Refuse what is no address of a scheduler; empty is this machine.

    Raises
    ------
    ValueError
        With what was given.

    Examples
    --------
    >>> check_scheduler("10.0.0.1:8786")
    Traceback (most recent call last):
    ValueError: scheduler: wanted tcp://ADDRESS:PORT, got '10.0.0.1:8786'
    """
    if scheduler and "://" not in scheduler:
        raise ValueError(f"scheduler: wanted tcp://ADDRESS:PORT, got {scheduler!r}")


@contextmanager
def _workers(scheduler: str) -> Iterator[None]:
    """Send what joblib runs inside to the workers of a Dask scheduler."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "a scheduler needs Dask: pip install dask distributed"
        ) from error
    try:
        client = Client(scheduler, timeout=_PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise RuntimeError(f"no Dask scheduler at {scheduler}: {error}") from error
    with client:
        _check(client)
        with joblib.parallel_config(backend="dask", wait_for_workers_timeout=_PATIENCE):
            yield


def _check(client) -> None:
    """Refuse workers that would compute something else, or where nobody finds it."""
    token = cache.root() / f".seen-{uuid4().hex}"
    token.parent.mkdir(parents=True, exist_ok=True)
    token.touch()
    needed = {"WCKA_CACHE": token, "WCKA_DATA": sources.root()}
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
        worker_states = client.run(_state_of_process, needed)
    except TimeoutError as error:
        raise RuntimeError(f"no worker at {client.scheduler.addr}") from error
    except ImportError as error:
        raise RuntimeError(f"a worker has no wcka: {error}") from error
    finally:
        paths, code, version = _state_of_process(needed)
        token.unlink()
    for worker, (worker_paths, worker_code, worker_version) in worker_states.items():
        # Data that are not here yet are no fault: a unit fetches them.
        if missing := paths - worker_paths:
            variable = min(missing)
            raise RuntimeError(
                f"worker {worker} does not see the folder of {variable} "
                f"({_folders()[variable]}): set it to one that all machines have under "
                f"the same path")
        if (worker_code, worker_version) != (code, version):
            raise RuntimeError(
                f"worker {worker} has another version of wcka or of PyTorch "
                f"({worker_version}, here {version}): install the same there")


def _state_of_process(needed: dict[str, Path]) -> tuple[set[str], str, str]:
    """Names of the paths that this process sees; its code; PyTorch's version."""
    paths = {name for name, path in needed.items() if path.exists()}
    code = hashlib.sha256(whole_code().encode()).hexdigest()
    return paths, code, torch.__version__
