"""Jobs on the processes of this machine, or on the workers of a Dask scheduler."""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, suppress
from functools import cache as cache_of_process
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from uuid import uuid4
from warnings import catch_warnings, filterwarnings, simplefilter, warn

import joblib
import pandas as pd
import torch
from tqdm import tqdm

from ..measures.spelling import printable
from ..networks import sources
from . import cache
from .fingerprint import whole_code
from .processes import end_with

_PATIENCE = 60  # seconds to wait for a scheduler
# Seconds to go on without any worker: a new one may have to wait in a cluster's queue
_PATIENCE_FOR_WORKERS = 600


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
        the place of processes. Units of a worker that dies go to the others, and
        workers that join later take their share.

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
        Where there is no scheduler at this address, or it is lost; where there was no
        worker for ten minutes; where a worker has another version of this package, or
        does not see the folders of results and data. A worker of this kind that joins
        later is sent away with a warning, and the others go on.

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
    if scheduler:
        numbered_tables = _tables_of_workers(unit, options_of_units, scheduler)
    else:
        numbered_tables = _tables_of_processes(unit, options_of_units, jobs)
    progress = tqdm(
        numbered_tables, total=len(options_of_units), desc=description, leave=False
    )
    # A run that ends early cancels its other units here, and not when its traceback,
    # which a notebook keeps, lets go of them.
    with closing(numbered_tables):
        tables = dict(progress)
    _say_what_is_not_kept(unit, options_of_units)
    return _stacked([tables[number] for number in range(len(tables))])


def _say_what_is_not_kept(unit: cache.Cached, options_of_units: list[dict]) -> None:
    """Warn once for all results that could not be written, as on a full disk."""
    missing = 0
    for options in options_of_units:
        if not unit.kept(**options):
            missing += 1
    if missing:
        warn(
            f"{missing} of {len(options_of_units)} results are not kept in "
            f"{printable(str(cache.root()))}: is the disk full?", cache.NotKept,
            stacklevel=3)


def _stacked(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Stack tables, and add up their seconds."""
    seconds = 0.0
    for table in tables:
        seconds += table.attrs["seconds"]
        table.attrs.clear()  # pandas keeps them only where all are the same
    stacked = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    stacked.attrs["seconds"] = seconds
    return stacked


# ------------------------------------------------------- the processes of this machine


def _tables_of_processes(unit: cache.Cached, options_of_units: list[dict],
                         jobs: int) -> Generator[tuple[int, pd.DataFrame]]:
    """Yield the number and the table of each unit."""
    calls = []
    for options in options_of_units:
        if jobs == 1:
            calls.append(joblib.delayed(unit)(**options))
        else:
            arguments = (os.getpid(), unit, options, _folders())
            calls.append(joblib.delayed(_alone_beside)(*arguments))
    with catch_warnings():
        simplefilter("ignore", cache.NotKept)  # run_jobs says it once for all units
        # A worker that keeps memory for its next unit looks to joblib like a leak.
        filterwarnings("ignore", "A worker stopped", UserWarning)
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator", batch_size=1)
        yield from enumerate(parallel(calls))


def _alone_beside(parent: int, *arguments) -> pd.DataFrame:
    """A unit in a process that ends with the one that started it, also if killed."""
    end_with(parent)
    return _alone(*arguments)


def _alone(unit: Callable, arguments: dict, folders: dict[str, str]) -> pd.DataFrame:
    """A unit in a process that may have started with other folders and more threads."""
    os.environ.update(folders)
    torch.set_num_threads(1)
    with catch_warnings():
        simplefilter("ignore", cache.NotKept)  # run_jobs says it once for all units
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


# ------------------------------------------------------ the workers of a Dask scheduler


def _tables_of_workers(unit: cache.Cached, options_of_units: list[dict],
                       scheduler: str) -> Generator[tuple[int, pd.DataFrame]]:
    """Yield the number and the table of each unit, in the order in which they end."""
    folders = _folders()
    with _connection(scheduler) as client, _token() as token:
        workers = _Workers(client, folders, token)
        calls = [partial(_alone, unit, options, folders)
                 for options in options_of_units]
        with _lost_scheduler_is_said(workers.address):
            workers.wait()
            yield from workers.results(calls)


@contextmanager
def _lost_scheduler_is_said(address: str) -> Iterator[None]:
    """Say so where the scheduler is gone, which any call of the client may meet."""
    from distributed.comm import CommClosedError

    try:
        yield
    except (CancelledError, CommClosedError) as error:
        raise RuntimeError(
            f"lost the Dask scheduler at {address}; what is finished is kept: run it "
            f"again") from error


@contextmanager
def _connection(scheduler: str) -> Iterator[Any]:
    """Connect to a Dask scheduler, and cancel what is unfinished at the end."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "a scheduler needs Dask: pip install dask distributed"
        ) from error
    try:
        client = Client(scheduler, timeout=_PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise RuntimeError(f"no Dask scheduler at {scheduler}: {error}") from error
    log = logging.getLogger("distributed.client")
    try:
        yield client
    finally:
        # Without its scheduler it would log a traceback of trying to come back.
        log.disabled = client.status != "running"
        client.close()
        log.disabled = False


@contextmanager
def _token() -> Iterator[Path]:
    """Put a file into the folder of results that only those see who share it."""
    token = cache.root() / f".seen-{uuid4().hex}"
    token.parent.mkdir(parents=True, exist_ok=True)
    token.touch()
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


class _State(NamedTuple):
    """What processes must share to compute the same, where all of them find it."""

    variables: frozenset[str]  # the folders that the process sees
    code: str  # a digest
    version: str  # of PyTorch


def _state_of_process(needed: dict[str, Path]) -> _State:
    """Return the state of this process; `needed` has a path for each variable."""
    variables = frozenset(name for name, path in needed.items() if path.exists())
    return _State(variables, _digest_of_code(), torch.__version__)


@cache_of_process
def _digest_of_code() -> str:
    return hashlib.sha256(whole_code().encode()).hexdigest()


def _difference(there: _State, here: _State, folders: dict[str, str]) -> str:
    """Say why a worker must not compute; return nothing where it may."""
    # Data that are not here yet are no fault: a unit fetches them.
    if missing := here.variables - there.variables:
        variable = min(missing)
        return (
            f"does not see the folder of {variable} ({folders[variable]}): set it to "
            f"one that all machines have under the same path")
    if there.version != here.version:
        return f"has PyTorch {there.version}, here {here.version}: install the same"
    if there.code != here.code:
        return (
            "has another version of wcka, NumPy, SciPy, scikit-image or Python: "
            "install the same as here")
    return ""


class _Refused(Exception):
    """A unit did not run, since its worker would compute something else."""


def _on_worker(call: Callable, needed: dict[str, Path], here: _State,
               folders: dict[str, str]):
    """Call a function, but only where it computes the same as `here`.

    Nothing else is certain: a plugin of Dask that raises an error while a worker joins
    does not keep units from that worker.
    """
    if difference := _difference(_state_of_process(needed), here, folders):
        raise _Refused(difference)
    return call()


# Schedulers whose workers were right when this process came to them
_SCHEDULERS_IN_USE: set[str] = set()


class _Workers:
    """Those workers of a scheduler that compute the same as this process.

    All calls are handed to the scheduler at once. It keeps them in a queue, from which
    workers that join later take their share, and tells an adaptive cluster how many
    workers are of use.
    """

    def __init__(self, client, folders: dict[str, str], token: Path):
        self.client = client
        self.address = client.scheduler.addr
        self.folders = folders
        self.token = token
        self.needed = {"WCKA_CACHE": token, "WCKA_DATA": sources.root()}
        self.here = _state_of_process(self.needed)
        self.futures: dict = {}  # of each key: the number, the call and its future
        self.keys: SimpleQueue[str] = SimpleQueue()  # of what is finished

    def wait(self) -> None:
        """Wait for a worker, and look at all that are there.

        Those that differ are an error the first time, and are only left out in later
        phases of a run: they may have joined in the meantime.
        """
        # An adaptive cluster starts workers for tasks, and for nothing else.
        try:
            self.client.submit(int, pure=False).result(timeout=_PATIENCE_FOR_WORKERS)
        except TimeoutError as error:
            raise self._abandoned() from error
        if self.address in _SCHEDULERS_IN_USE:
            self._refuse()
        for worker, difference in self._differences().items():
            raise RuntimeError(f"worker {worker} {difference}")
        _SCHEDULERS_IN_USE.add(self.address)

    def results(self, calls: Iterable[Callable]) -> Iterator[tuple[int, Any]]:
        """Yield the number and the result of each call, in the order they end in."""
        for number, call in enumerate(calls):
            self._submit(number, call)
        while self.futures:
            number, call, future = self.futures.pop(self._next_key())
            try:
                result = future.result(timeout=_PATIENCE)
            except CancelledError:
                raise
            except Exception as error:
                self._retry(number, call, future, error)
            else:
                yield number, result

    def _retry(self, number: int, call: Callable, future, error: Exception) -> None:
        """Have a call run again where its worker is to blame, or raise its error."""
        if future.status != "error":
            # The worker died before the result was here: Dask computes it once more.
            self._await(number, call, future)
        # Another version may fail in any way, before it can tell its version.
        elif self._refuse() or isinstance(error, _Refused):
            self._submit(number, call)
        else:
            raise error

    def _submit(self, number: int, call: Callable) -> None:
        future = self.client.submit(
            _on_worker, call, self.needed, self.here, self.folders, pure=False)
        self._await(number, call, future)

    def _await(self, number: int, call: Callable, future) -> None:
        self.futures[future.key] = number, call, future
        future.add_done_callback(lambda future: self.keys.put(future.key))

    def _next_key(self) -> str:
        """Return the key of a finished call; give up where no worker is left."""
        last_sight = time.monotonic()
        while True:
            self.token.touch()  # what is old is swept away
            with suppress(Empty):
                return self.keys.get(timeout=1)
            if self.client.nthreads():
                last_sight = time.monotonic()
            elif time.monotonic() - last_sight > _PATIENCE_FOR_WORKERS:
                raise self._abandoned()

    def _abandoned(self) -> RuntimeError:
        minutes = _PATIENCE_FOR_WORKERS / 60
        return RuntimeError(
            f"no worker at {self.address} for {minutes:.2g} minutes; what is finished "
            f"is kept: start workers and run it again")

    def _refuse(self) -> bool:
        """Send workers away that differ; return whether there were any."""
        differences = self._differences()
        for worker, difference in differences.items():
            warn(f"refused a worker: {worker} {difference}", stacklevel=2)
        if differences:
            self.client.retire_workers(list(differences))
        return bool(differences)

    def _differences(self) -> dict[str, str]:
        """Return what is wrong with workers, by their addresses."""
        states = self.client.run(_state_of_process, self.needed, on_error="return")
        differences = {}
        for worker, state in states.items():
            if isinstance(state, OSError):
                continue  # it died in the meantime
            if isinstance(state, Exception):
                differences[worker] = f"has no such wcka ({state}): install it there"
            elif difference := _difference(state, self.here, self.folders):
                differences[worker] = difference
        return differences
