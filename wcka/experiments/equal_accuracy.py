"""Populations of different shapes, each trained until it is as accurate as the others.

Networks that are trained for equally long have learned more or less, by their shape. A
comparison of shapes is then one of how much was learned.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..networks.image_sets import as_inputs
from ..networks.populations import Population, initialise
from ..networks.probes import labelled_images
from ..networks.training import collect, copied, course
from .cache import Cached, cached
from .jobs import run_jobs
from .training_runs import training_rows


@cached
def trained_until(
    architecture: dict,
    seeds: Sequence[int],
    dataset: str,
    classes: Sequence[int],
    accuracy: float,
    most_epochs: int,
    images: int,
    held_out: int = 5000,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    seed: int = 0,
) -> Population:
    """Train a population until the mean accuracy of its members reaches a number.

    Training ends with the first epoch after which the mean accuracy on held-out
    training images is at least `accuracy`, or after `most_epochs`. The members are
    kept at the epoch, from the first on, at which the mean is nearest to `accuracy`.

    Parameters
    ----------
    architecture, seeds, dataset, classes, learning_rate, batch_size, seed
        As in ``trained``.
    accuracy : float
        Of all members in the mean, in (0, 1].
    most_epochs : int
        Passes through the training images at most.
    images : int
        Number of training images to learn from: those that ``trained`` takes.
    held_out : int
        Number of other training images, on which accuracy is counted.

    Returns
    -------
    Population
        Its members have columns seed, epoch and accuracy, each member's on the
        held-out images.

    Raises
    ------
    ValueError
        For an accuracy outside (0, 1], less than one epoch, or too few images.

    Examples
    --------
    >>> population = trained_until(
    ...     {"factory": "mlp", "widths": [784, 2, 2]}, seeds=[0, 1], dataset="mnist",
    ...     classes=[0, 1], accuracy=0.6, most_epochs=2, images=100, held_out=100)
    >>> list(population.members)
    ['seed', 'epoch', 'accuracy']
    """
    if not 0 < accuracy <= 1:
        raise ValueError(f"accuracy: wanted more than 0 to 1, got {accuracy}")
    if most_epochs < 1:
        raise ValueError(f"most_epochs: wanted at least 1, got {most_epochs}")
    chosen, others = _learned_and_held_out(
        dataset, classes, images, held_out, seed)
    start = initialise(architecture, seeds)
    learners = course(start, *chosen, learning_rate, batch_size, seed)
    next(learners)  # untrained
    smallest_gap = np.inf
    for epoch in tqdm(range(1, most_epochs + 1), "epochs", leave=False):
        learner = next(learners)
        accuracies = learner.accuracy(*others)  # (networks,)
        mean = float(accuracies.mean())
        if abs(mean - accuracy) < smallest_gap:
            smallest_gap = abs(mean - accuracy)
            nearest_state = {epoch: copied(learner.state)}
            nearest_accuracies = accuracies
        if mean >= accuracy:
            break
    nearest = collect(start, nearest_state)
    members = nearest.members.assign(accuracy=nearest_accuracies)
    return Population(architecture, nearest.state, members)


def _learned_and_held_out(
    dataset: str, classes: Sequence[int], images: int, held_out: int, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return inputs and labels of the images that ``trained`` takes, and of others."""
    pictures, digits = labelled_images(dataset, tuple(classes), "train")
    if min(images, held_out) < 1 or images + held_out > len(digits):
        raise ValueError(
            f"images, held_out: wanted at least 1 each and at most {len(digits)} "
            f"together, got {images} and {held_out}")
    taken, left = training_rows(len(digits), images, seed)
    parts = []
    for rows in (taken, np.sort(left[:held_out])):
        parts.append((as_inputs(pictures[rows]), torch.from_numpy(digits[rows])))
    return parts[0], parts[1]


def _fit(model: dict):
    return trained_until(**model).members


# A job like those that are cached themselves: the population that it trains is.
_fitted = cast(Cached, _fit)
_fitted.kept = lambda model: trained_until.kept(**model)


def all_trained_until(
    models: Sequence[dict], jobs: int = -1, scheduler: str = ""
) -> list[Population]:
    """Train populations on several processes, each until it is accurate enough.

    Parameters
    ----------
    models : sequence of dict
        Arguments of ``trained_until``, one for each population.
    jobs, scheduler
        As in ``jobs.run_jobs``.

    Returns
    -------
    list of Population
        In the order of `models`.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 2, 2]},
    ...          "seeds": [0, 1], "dataset": "mnist", "classes": [0, 1],
    ...          "accuracy": 0.6, "most_epochs": 2, "images": 100, "held_out": 100}
    >>> [len(population) for population in all_trained_until([model], jobs=1)]
    [2]
    """
    models = list(models)
    run_jobs(_fitted, [{"model": model} for model in models], jobs=jobs,
             description="training", scheduler=scheduler)
    return [trained_until(**model) for model in models]
