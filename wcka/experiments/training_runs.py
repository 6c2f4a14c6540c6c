"""Trained populations and trunks as results on disk, by plain arguments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..networks import image_sets, probes
from ..networks.populations import Population, extract, initialise, resolve_device
from ..networks.training import collect, copied, course, train
from .cache import cached, remembered


@cached
def pretrained(
    architecture: dict,
    seed: int,
    dataset: str,
    epochs: int,
    patience: int,
    validation: int = 10000,
    images: int = 60000,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    device: str = "cpu",
) -> Population:
    """Train one network on all ten classes, and keep its best epoch.

    The result is cached on disk.

    Parameters
    ----------
    architecture : dict
        As in ``Population``.
    seed : int
        Of the initial weights, of the split and of the order of the images.
    dataset : str
        As in ``image_sets.load``.
    epochs : int
        Passes through the training images at the most.
    patience : int
        Stop once so many epochs have gone by without a better validation accuracy.
    validation : int
        Number of training images that are held out, drawn at random.
    images : int
        Number of training images that are taken, drawn at random, those held out among
        them.
    learning_rate, batch_size
        As in ``train``.
    device : str
        Where to train; what is returned is on the CPU.

    Returns
    -------
    Population
        One model; its members' table has columns seed and epoch (the best one; the
        earliest of several), and in ``attrs["validation"]`` the accuracy after each
        epoch, from the first.

    Raises
    ------
    ValueError
        For less than one epoch, or where no image is left to train on.

    Examples
    --------
    >>> population = pretrained(
    ...     {"factory": "mlp", "widths": [784, 2, 10]}, seed=0, dataset="mnist",
    ...     epochs=1, patience=1, validation=100, images=1000)
    >>> population.members.epoch.tolist()
    [1]
    """
    if epochs < 1:
        raise ValueError(f"epochs: wanted at least 1, got {epochs}")
    pictures, digits = image_sets.load(dataset, "train", None)
    images = min(images, len(pictures))
    if validation >= images:
        raise ValueError(
            f"images: wanted more than the {validation} held out, got {images}")
    x = image_sets.as_inputs(pictures, resolve_device(device))  # (n, pixels)
    labels = torch.from_numpy(digits)
    order = np.random.default_rng([seed, *b"validation"]).permutation(len(x))[:images]
    sizes = [validation, len(order) - validation]
    held_out, training = torch.from_numpy(order).split(sizes)
    start = initialise(architecture, [seed], device)
    accuracies: list[float] = []
    best: Any = None  # a Population from the first epoch on
    steps = course(
        start, x[training], labels[training], learning_rate, batch_size, seed)
    next(steps)  # untrained
    for epoch in tqdm(range(1, epochs + 1), "pretraining", leave=False):
        learner = next(steps)
        accuracy = float(learner.accuracy(x[held_out], labels[held_out])[0])
        improved = not accuracies or accuracy > max(accuracies)
        accuracies.append(accuracy)
        if improved:
            best = collect(start, {epoch: copied(learner.state)})
        elif epoch - best.members.epoch[0] >= patience:
            break
    best.members.attrs["validation"] = accuracies
    return best.to("cpu")


@remembered(2)
def frozen(trunk: dict, device: str = "cpu") -> nn.Sequential:
    """Convolutional part of the network that ``pretrained(**trunk)`` gives, frozen.

    Examples
    --------
    >>> architecture = {"factory": "convnet", "channels": [2], "hidden": [4]}
    >>> trunk = {"architecture": architecture, "seed": 0, "dataset": "mnist",
    ...          "epochs": 1, "patience": 1, "validation": 100, "images": 200}
    >>> type(frozen(trunk)[-1]).__name__
    'Flatten'
    """
    network = pretrained(**trunk).member(0)
    # Everything up to the last Flatten, behind which the linear layers are.
    ends = []
    for i, module in enumerate(network):
        if isinstance(module, nn.Flatten):
            ends.append(i + 1)
    trunk_layers = network[:ends[-1]].requires_grad_(False)
    return trunk_layers.to(
        resolve_device(device), memory_format=torch.channels_last)


@cached
def features(
    trunk: dict,
    name: str,
    dataset: str,
    classes: Sequence[int],
    seed: int = 0,
    noise: float = 0.1,
) -> Tensor:
    """Return a frozen trunk's outputs for ``probes.probe_inputs(name, ...)``, cached.

    Parameters
    ----------
    trunk : dict
        Arguments of ``pretrained``.
    name, dataset, classes, seed, noise
        As in ``probes.probe_inputs``.

    Returns
    -------
    Tensor
        (n, units).

    Examples
    --------
    >>> architecture = {"factory": "convnet", "channels": [2], "hidden": [4]}
    >>> trunk = {"architecture": architecture, "seed": 0, "dataset": "mnist",
    ...          "epochs": 1, "patience": 1, "validation": 100, "images": 200}
    >>> features(trunk, "clean", "mnist", [0, 1]).shape
    torch.Size([2115, 288])
    """
    return extract(
        frozen(trunk), probes.probe_inputs(name, dataset, classes, seed, noise)
    )


def training_rows(
    n: int, images: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the images that networks are trained on, by their rows in the data set.

    Parameters
    ----------
    n : int
        Number of training images of these classes.
    images : int, optional
        How many of them are taken: all by default, and where there are fewer.
    seed : int
        Seed of the draw. More images with the same seed are these and others.

    Returns
    -------
    taken : ndarray of int
        (images,), in ascending order.
    others : ndarray of int
        (n - images,), in the order in which they would be taken next.

    Examples
    --------
    >>> taken, others = training_rows(5, images=3)
    >>> taken.tolist(), others.tolist()
    ([1, 3, 4], [2, 0])
    """
    order = np.random.default_rng([seed, *b"images"]).permutation(n)
    if images is None:
        images = n
    return np.sort(order[:images]), order[images:]


@cached
def trained(
    architecture: dict,
    seeds: Sequence[int],
    dataset: str,
    classes: Sequence[int],
    epochs: int,
    checkpoints: Sequence[int] | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    seed: int = 0,
    private_order: bool = False,
    strategy: str = "standard",
    eps: float = 0.1,
    attack_steps: int = 5,
    shared_attack: bool = False,
    trunk: dict | None = None,
    images: int | None = None,
    device: str = "cpu",
) -> Population:
    """Initialise and train a population on a data set's training images.

    The result is cached on disk.

    Parameters are those of ``initialise``, ``image_sets.load`` and ``train``, all plain
    values.

    Parameters
    ----------
    trunk : dict, optional
        Arguments of ``pretrained``: the population are heads on the features of that
        network.
    images : int, optional
        Train on so many of the images, those of ``training_rows``; all by default.
    device : str
        Where it is trained; "auto" picks CUDA where there is one. What is returned, and
        kept, is on the CPU.

    Examples
    --------
    >>> population = trained(
    ...     {"factory": "mlp", "widths": [784, 2, 2]}, seeds=[0, 1], dataset="mnist",
    ...     classes=[0, 1], epochs=1, images=100)
    >>> population.members.values.tolist()
    [[0, 1], [1, 1]]
    """
    _, labels = probes.labelled_images(dataset, tuple(classes), "train")
    chosen, _ = training_rows(len(labels), images, seed)
    layers: nn.Module | None = None
    if trunk and strategy == "standard":
        # The features never change, so the trunk runs once and not in every epoch.
        x = features(trunk, "train", dataset, classes)
    else:
        x = probes.probe_inputs("train", dataset, classes)
        layers = frozen(trunk, device) if trunk else None
    population = train(
        initialise(architecture, seeds, device), x[chosen].to(resolve_device(device)),
        labels[chosen], epochs, checkpoints, learning_rate=learning_rate,
        batch_size=batch_size, seed=seed, private_order=private_order,
        strategy=strategy, eps=eps, attack_steps=attack_steps,
        shared_attack=shared_attack, trunk=layers)
    return population.to("cpu")
