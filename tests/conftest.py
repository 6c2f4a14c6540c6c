"""Shared fixtures: real digits and small networks."""

import os

import pytest
import torch

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

from wcka import data
from wcka.population import initialise
from wcka.training import train

ARCHITECTURE = {"factory": "mlp", "widths": [784, 32, 32, 32, 32, 3], "activation": "relu"}


@pytest.fixture(autouse=True, scope="session")
def results_of_tests(tmp_path_factory):
    """Keep what tests cache apart from the user's results."""
    os.environ["WCKA_CACHE"] = str(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def digits():
    """Test images of the digits 0, 1, 2 as inputs (3147, 784), and their labels."""
    images, labels = data.load()
    return data.inputs(images), torch.from_numpy(labels)


@pytest.fixture(scope="session")
def trained(digits):
    """Three networks of the paper's section 3.1 after 0 and 3 epochs on a few real digits."""
    images, labels = data.load(split="train")
    population = initialise(ARCHITECTURE, [0, 1, 2])
    return train(population, data.inputs(images[:3000]), labels[:3000], 3, [0, 3])
