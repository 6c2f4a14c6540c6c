"""Processes that end with the one that started them."""

import functools
import os
import threading
import time


@functools.cache
def end_with(parent: int) -> None:
    """End this process once the one that started it is gone, also when it was killed.

    A process that is killed cannot stop those that it started: they would compute on
    for nobody. On Windows, which does not tell that a parent is gone, nothing happens.

    Parameters
    ----------
    parent : int
        The process id of the parent, as the parent itself gave it: it may be gone
        before the child could ask for it.

    Examples
    --------
    >>> end_with(os.getppid())
    """
    threading.Thread(target=_wait_for_end, args=(parent,), daemon=True).start()


def _wait_for_end(parent: int) -> None:
    """Wait until another process has adopted this one; then end at once."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
