"""Shared fixtures: real digits, small networks, executed chapters."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
# One thread per worker, read when torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import torch
from filelock import FileLock
from small_networks import ARCHITECTURE

from wcka.book import checkout, execution
from wcka.networks import image_sets
from wcka.networks.populations import initialise
from wcka.networks.training import train

CHAPTER_FIXTURES = {"smoke", "smoke_again", "site", "browser"}
KERNELS_START_IN = {"test_diff", "test_execution"}


def pytest_itemcollected(item):
    """Mark the tests of executed chapters, of pages and of experiments slow.

    Tests that run a small chapter of their own start a kernel, which is slow too; those
    of experiments train networks and start processes.
    """
    runs_own_chapter = "chapter" in item.fixturenames
    starts_kernel = runs_own_chapter and item.path.stem in KERNELS_START_IN
    trains = item.path.parent.name == "experiments"
    if starts_kernel or trains or CHAPTER_FIXTURES & set(item.fixturenames):
        item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def results_of_tests(tmp_path_factory):
    """Keep the results that tests cache apart from the user's."""
    os.environ["WCKA_CACHE"] = str(tmp_path_factory.mktemp("results"))


# ------------------------------------------------------------------ digits and networks


@pytest.fixture(scope="session")
def digits():
    """Test images of the digits 0, 1, 2 as inputs (3147, 784), and their labels."""
    images, labels = image_sets.load()
    return image_sets.as_inputs(images), torch.from_numpy(labels)


@pytest.fixture(scope="session")
def trained(digits):
    """Three networks of the paper's section 3.1 after 0 and 3 epochs on few digits."""
    images, labels = image_sets.load(split="train")
    inputs = image_sets.as_inputs(images[:3000])
    population = initialise(ARCHITECTURE, [0, 1, 2])
    return train(population, inputs, labels[:3000], 3, [0, 3])


# ------------------------------------------------------------------------- the chapters


class Smoke:
    """Chapters executed at the smoke profile, each once, two at a time.

    All workers of pytest-xdist share the folder: whoever wants a chapter first runs
    it, the others wait for it.
    """

    def __init__(self, folder):
        self.folder = folder
        self.runs = {}
        self.pool = ThreadPoolExecutor(2)
        self.environment = {
            **os.environ,
            "WCKA_CACHE": str(folder / "results"),
            # With one core, jobs run in the chapter's own process, and start none.
            "OMP_NUM_THREADS": "1",
            "LOKY_MAX_CPU_COUNT": "1",
        }

    def start(self, path):
        """Have a chapter run, unless it was started before; return its future."""
        if path not in self.runs:
            self.runs[path] = self.pool.submit(self._run, path)
        return self.runs[path]

    def _run(self, path):
        output = self.folder / "chapters" / "smoke" / f"{path.stem}.ipynb"
        command = [
            sys.executable, "-m", "wcka", "run", path.stem, "--profile", "smoke",
            "-o", output]
        with FileLock(self.folder / f"{path.stem}.lock"):
            if not output.exists():
                process = subprocess.run(
                    command, env=self.environment, cwd=checkout.ROOT,
                    capture_output=True, text=True)
                assert process.returncode == 0, process.stderr
        return output

    def __call__(self, path):
        """Return the file that holds the executed chapter."""
        return self.start(path).result()


def shared_folder(tmp_path_factory, name):
    """Return a folder of this run of the tests, the same for all of its workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / f"shared-{name}"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, request):
    """Executed chapters: smoke(path) is the file that holds one.

    All that tests of this run ask for are started at once, so that no core waits.
    """
    chapters = Smoke(shared_folder(tmp_path_factory, "book"))
    for path in wanted_chapters(request.session.items):
        chapters.start(path)
    return chapters


def wanted_chapters(items):
    """Return the chapters that tests need: one each, or all without a parameter."""
    wanted = set()
    for item in items:
        if "smoke" in item.fixturenames:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            wanted |= {parameters["path"]} if "path" in parameters else set(
                checkout.chapters())
    return sorted(wanted)


@pytest.fixture(scope="session")
def smoke_again(tmp_path_factory):
    """Chapters executed a second time, with no results of the first run."""
    return Smoke(shared_folder(tmp_path_factory, "again"))


class Tiny:
    """A small chapter in a folder of its own."""

    def __init__(self, path):
        self.path = path

    def run(self, name="out.ipynb", **values):
        output = checkout.BUILD / name
        return execution.run_chapter(self.path, values, "quick", output)


HEADER_OF_CHAPTER = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
seeds: int = 5  # models
rate: float = 0.5  # speed
names: list[int] = [1, 2]  # classes
fast: bool = False  # hurry
kind: str = "a"  # which

# %%
"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """Write a small chapter, the only one that exists, and a profile named tiny."""
    notebooks = tmp_path / "notebooks"
    (notebooks / "profiles").mkdir(parents=True)
    monkeypatch.setattr(checkout, "NOTEBOOKS", notebooks)
    monkeypatch.setattr(checkout, "BUILD", tmp_path / "_build")

    def write(code, profile=""):
        path = notebooks / "07-tiny.py"
        path.write_text(f"{HEADER_OF_CHAPTER}{code}\n")
        (notebooks / "profiles" / "tiny.yml").write_text(profile)
        return Tiny(path)

    return write
