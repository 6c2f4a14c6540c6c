"""Keep what other people's code prints apart from what a command answers."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

# The numbers that systems give to standard output and standard error.
_OUTPUT = 1
_ERROR = 2


@contextlib.contextmanager
def printed_on_stderr() -> Iterator[None]:
    """Send to standard error all that is printed, by Python, by C or by a subprocess.

    Examples
    --------
    >>> with printed_on_stderr():
    ...     print("Building a network ...")
    >>> print("the answer")
    the answer
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a closed standard output needs no care
            stack.enter_context(_descriptor_on_stderr())
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


@contextlib.contextmanager
def _descriptor_on_stderr() -> Iterator[None]:
    """Let the system's standard output lead to its standard error."""
    output = os.dup(_OUTPUT)
    streams = [sys.stdout, sys.__stdout__]
    try:
        _flush(streams)
        _point_output_at_stderr()
        try:
            yield
        finally:
            # What still waits in a buffer must not come out behind the answer.
            _flush(streams)
            os.dup2(output, _OUTPUT)
    finally:
        os.close(output)


def _point_output_at_stderr() -> None:
    """Make standard output a second name of standard error, or of nothing."""
    try:
        os.dup2(_ERROR, _OUTPUT)
    except OSError:  # standard error is closed
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, _OUTPUT)
        os.close(nothing)


def _flush(streams: list[object]) -> None:
    """Write out the buffers of Python and of the C library."""
    for stream in streams:
        # A stream of the caller's may be closed, or be no file at all.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()  # type: ignore[attr-defined]
    with contextlib.suppress(OSError, TypeError, AttributeError):
        library = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
        library.fflush(None)
