"""Units of work on the workers of a Dask scheduler: another machine, SLURM, Kubernetes."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import joblib
import torch

_PACKAGE = Path(__file__).parent
_PATIENCE = 60  # seconds to wait for a scheduler, and for its first worker


@contextmanager
def workers(scheduler: str, shared: Path) -> Iterator[None]:
    """Send what joblib runs inside to the workers of a Dask scheduler.

    A worker that dies is replaced by the others: Dask gives them its units.

    Parameters
    ----------
    scheduler : str
        Address, such as "tcp://10.0.0.1:8786".
    shared : Path
        Folder of results, which all workers must see as this process does: units find there what
        earlier units left.

    Raises
    ------
    ImportError
        Where Dask is not installed.
    RuntimeError
        Where there is no scheduler at this address, or no worker; where a worker has another
        version of this package, or does not see the folder.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("a scheduler needs Dask: pip install dask distributed") from error
    try:
        client = Client(scheduler, timeout=_PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise RuntimeError(f"no Dask scheduler at {scheduler}: {error}") from error
    with client:
        _check(client, shared)
        with joblib.parallel_config(backend="dask", wait_for_workers_timeout=_PATIENCE):
            yield


def alone(unit, **arguments):
    """Run a unit on one thread, as processes of one machine do: the same numbers to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return unit(**arguments)
    finally:
        torch.set_num_threads(threads)


def _check(client, shared: Path) -> None:
    """Refuse workers that would compute something else, or where nobody finds it."""
    shared.mkdir(parents=True, exist_ok=True)
    token = shared / f".seen-{uuid4().hex}"
    token.touch()
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
        found = client.run(_seen, token.name)
    except TimeoutError as error:
        raise RuntimeError(f"no worker at {client.scheduler.addr}") from error
    except ImportError as error:
        raise RuntimeError(f"a worker has no wcka: {error}") from error
    finally:
        token.unlink()
    for worker, (seen, code, versions) in found.items():
        if not seen:
            raise RuntimeError(f"worker {worker} does not see the folder {shared}: set WCKA_CACHE, "
                               f"there and here, to one that both share")
        if (code, versions) != _seen(token.name)[1:]:
            raise RuntimeError(f"worker {worker} has another version of wcka or of PyTorch "
                               f"({versions}, here {torch.__version__}): install the same there")


def _seen(token: str) -> tuple[bool, str, str]:
    """Whether a file is in this process's folder of results; the code; PyTorch's version."""
    from .cache import root  # which imports this module

    code = b"".join(path.read_bytes() for path in sorted(_PACKAGE.glob("*.py")))
    return (root() / token).exists(), hashlib.sha256(code).hexdigest(), torch.__version__
