"""A process that was started for another one ends with it, also when that is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

PARENT = """
import os, subprocess, sys, time

child = (
    "import sys, time; from wcka.experiments import processes; "
    "processes.end_with(int(sys.argv[1])); print(flush=True); time.sleep(100)")
process = subprocess.Popen(
    [sys.executable, "-c", child, str(os.getpid())], stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(100)
"""


def is_alive(pid):
    """Tell whether a process runs, and does not only wait for its status to be read."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(pid, seconds=60):
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not is_alive(pid)


needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc"), reason="no /proc to look at")


def assert_ends_with_its_killed_parent(code, seconds_before=0):
    """Run a process that prints the number of another one, kill it, await both ends."""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        time.sleep(seconds_before)
        assert is_alive(child)
        parent.kill()
        parent.wait()
        assert wait_for_end(child)
    finally:
        if is_alive(child):
            os.kill(child, signal.SIGKILL)


@needs_proc
def test_a_child_ends_with_its_killed_parent():
    assert_ends_with_its_killed_parent(PARENT)


def test_work_in_the_process_itself_does_not_end_it():
    code = (
        "import os, time; from wcka.experiments import processes; "
        "processes.end_with(os.getpid()); time.sleep(1); print('done')")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert process.stdout == b"done\n"


GRANDPARENT = """
import os, subprocess, sys, time

parent = (
    "import subprocess, sys; "
    "print(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL).pid)")
child = (
    "import sys, time; from wcka.experiments import processes; "
    "processes.end_with(int(sys.argv[1])); time.sleep(100)")
command = [sys.executable, "-c", child, str(os.getpid())]
subprocess.run([sys.executable, "-c", parent, *command])
time.sleep(100)
"""


@needs_proc
def test_a_grandchild_ends_with_the_process_that_it_works_for():
    assert_ends_with_its_killed_parent(GRANDPARENT, seconds_before=1.5)


BUILD = """
import sys
from pathlib import Path
from wcka.book import builder, checkout

checkout.BUILD = Path(sys.argv[1])
child = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
watched, _, _ = builder._JUPYTER_BOOK.partition("from jupyter_book")
builder._JUPYTER_BOOK = watched + child
builder._sphinx(checkout.BUILD, "html")
"""


@pytest.mark.slow
@needs_proc
def test_jupyter_book_ends_with_its_killed_parent(tmp_path):
    log = tmp_path / "jupyter-book-html.log"
    parent = subprocess.Popen([sys.executable, "-c", BUILD, str(tmp_path)])
    while not (log.exists() and log.read_text().endswith("\n")):
        assert parent.poll() is None
        time.sleep(0.1)
    child = int(log.read_text())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    assert wait_for_end(child)
