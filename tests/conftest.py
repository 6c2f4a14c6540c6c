"""Shared fixtures: real digits and small networks."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

from wcka.book import checkout, execution
from wcka.networks import image_sets
from wcka.networks.populations import initialise
from wcka.networks.training import train

ARCHITECTURE = {"factory": "mlp", "widths": [784, 32, 32, 32, 32, 3], "activation": "relu"}


@pytest.fixture(autouse=True, scope="session")
def results_of_tests(tmp_path_factory):
    """Keep what tests cache apart from the user's results."""
    os.environ["WCKA_CACHE"] = str(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def digits():
    """Test images of the digits 0, 1, 2 as inputs (3147, 784), and their labels."""
    images, labels = image_sets.load()
    return image_sets.as_inputs(images), torch.from_numpy(labels)


@pytest.fixture(scope="session")
def trained(digits):
    """Three networks of the paper's section 3.1 after 0 and 3 epochs on a few real digits."""
    images, labels = image_sets.load(split="train")
    population = initialise(ARCHITECTURE, [0, 1, 2])
    return train(population, image_sets.as_inputs(images[:3000]), labels[:3000], 3, [0, 3])


class Smoke:
    """Executed chapters at the smoke profile, each run once, two at a time."""

    def __init__(self, folder):
        self.folder, self.runs, self.pool = folder, {}, ThreadPoolExecutor(2)
        # One core each: units of work then run in the chapter's own process, and start none.
        self.environment = {**os.environ, "WCKA_CACHE": str(folder / "results"),
                            "OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"}

    def start(self, path):
        """Have a chapter run, unless it has been."""
        if path not in self.runs:
            self.runs[path] = self.pool.submit(self._run, path)
        return self.runs[path]

    def _run(self, path):
        output = self.folder / "chapters" / "smoke" / f"{path.stem}.ipynb"
        done = subprocess.run(
            [sys.executable, "-m", "wcka", "run", path.stem, "--profile", "smoke", "-o", output],
            env=self.environment, cwd=checkout.ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return output

    def __call__(self, path):
        """Where the executed chapter is."""
        return self.start(path).result()


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """Executed chapters: smoke(path) is where."""
    return Smoke(tmp_path_factory.mktemp("book"))


@pytest.fixture(scope="session")
def smoke_again(tmp_path_factory):
    """The same, with nothing kept of the first run."""
    return Smoke(tmp_path_factory.mktemp("again"))


class Tiny:
    """A small chapter in a folder of its own."""

    def __init__(self, path):
        self.path = path

    def run(self, name="out.ipynb", **values):
        return execution.run_chapter(self.path, values, "quick", checkout.BUILD / name)


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """Write a small chapter, the only one there is."""
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    monkeypatch.setattr(checkout, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(checkout, "BUILD", tmp_path / "_build")

    def write(code, profile=""):
        path = tmp_path / "notebooks" / "07-tiny.py"
        path.write_text(
            "# ---\n# jupyter:\n#   kernelspec:\n#     display_name: Python 3\n"
            "#     language: python\n#     name: python3\n# ---\n\n"
            '# %% tags=["parameters"]\nseeds: int = 5  # models\nrate: float = 0.5  # speed\n'
            'names: list[int] = [1, 2]  # classes\nfast: bool = False  # hurry\n'
            f'kind: str = "a"  # which\n\n# %%\n{code}\n')
        (tmp_path / "notebooks" / "profiles" / "tiny.yml").write_text(profile)
        return Tiny(path)

    return write
