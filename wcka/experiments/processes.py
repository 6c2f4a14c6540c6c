"""Processes that end with the one that started them, and what killed ones leave."""

import functools
import os
import threading
import time
from contextlib import suppress
from pathlib import Path


@functools.cache
def end_with(parent: int) -> None:
    """End this process once the one that it works for is gone, also when it was killed.

    A process that is killed cannot stop those that it started: they would compute on
    for nobody. On Windows, which has no such question, nothing happens.

    Parameters
    ----------
    parent : int
        The process id of the parent, as the parent itself gave it: it may be gone
        before the child could ask for it. This process itself may be named, too, where
        work is done in it after all.

    Examples
    --------
    >>> end_with(os.getppid())
    """
    if os.name == "posix" and parent != os.getpid():
        threading.Thread(target=_wait_for_end, args=(parent,), daemon=True).start()


def _wait_for_end(parent: int) -> None:
    """Wait until a process is gone; then end this one at once."""
    # A child that loses its parent gets another one, even before the system forgets the
    # number of the process that is gone.
    if os.getppid() == parent:
        while os.getppid() == parent:
            time.sleep(0.5)
    else:
        with suppress(ProcessLookupError):
            while _exists(parent):
                time.sleep(0.5)
    os._exit(1)


def _exists(process: int) -> bool:
    """Tell that a process exists.

    Raises
    ------
    ProcessLookupError
        If it does not.
    """
    with suppress(PermissionError):  # it is another user's
        os.kill(process, 0)
    return True


def sweep(folder: Path, pattern: str, seconds: float) -> None:
    """Remove the files that killed processes left behind.

    Their age tells, since the process may have run on another machine.

    Parameters
    ----------
    folder : Path
    pattern : str
        Of the files' names, as in ``Path.glob``.
    seconds : float
        After so long, nobody writes such a file any more.

    Examples
    --------
    >>> sweep(Path("no-such-folder"), "*.partial", 3600)
    """
    for path in folder.glob(pattern):
        # Another process may remove it first, or it is another user's.
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()
