"""The command line where standard output is full, closed, read in part, or of ASCII."""

import os
import subprocess
import sys

import pytest

from wcka.book import checkout

# A command that prints at once, and imports little
CODE = """
import sys
from wcka import cli
from wcka.book import checkout, parameters

parameters.read_parameters = lambda path: {
    "size": parameters.Parameter("size", int, 0, "größer als 数")}
sys.exit(cli.main(["params", "2"]))
"""


def run(code=CODE, before=(), **options):
    return subprocess.run(
        [*before, sys.executable, "-c", code], stderr=subprocess.PIPE,
        cwd=checkout.ROOT, **options)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_character_that_a_terminal_cannot_show_is_shown_by_its_number(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    process = run(stdout=subprocess.PIPE, env=environment)
    assert (process.returncode, process.stderr) == (0, b"")
    words = "größer als 数".encode(encoding, "backslashreplace")
    assert process.stdout.split(b"\n")[1].strip() == words


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_said():
    with open("/dev/full", "wb") as full:
        process = run(stdout=full)
    assert process.returncode == 1
    assert process.stderr.startswith(b"wcka: [Errno 28]")
    assert process.stderr.count(b"\n") == 1


def test_output_that_nobody_reads_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    process = run(stdout=writer)
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.skipif(os.name != "posix", reason="no sh")
def test_standard_output_may_be_closed():
    process = run(before=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert (process.returncode, process.stderr) == (0, b"")
