"""Trained populations and trunks as results on disk, by plain arguments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..networks import image_sets, probes
from ..networks.populations import Population, extract, initialise, resolve_device
from ..networks.training import collect, course, train
from .cache import cached, remembered


@cached
def pretrained(architecture: dict, seed: int, dataset: str, epochs: int, patience: int,
               validation: int = 10000, learning_rate: float = 1e-3, batch_size: int = 64,
               device: str = "cpu") -> Population:
    """Train one network on all ten classes; keep it as it was at its best epoch. Cached on disk.

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
    learning_rate, batch_size
        As in ``train``.
    device : str
        Where to train; what is returned is on the CPU.

    Returns
    -------
    Population
        One model; its members' table has columns seed and epoch (the best one; the earliest of
        several), and in ``attrs["validation"]`` the accuracy after each epoch, from the first.

    Raises
    ------
    ValueError
        For less than one epoch.
    """
    if epochs < 1:
        raise ValueError(f"epochs: wanted at least 1, got {epochs}")
    images, truth = image_sets.load(dataset, "train", None)
    x, labels = image_sets.as_inputs(images, resolve_device(device)), torch.from_numpy(truth)
    order = np.random.default_rng([seed, *b"validation"]).permutation(len(x))
    held, rest = torch.from_numpy(order).split([validation, len(x) - validation])
    start = initialise(architecture, [seed], device)
    accuracies: list[float] = []
    best: Any = None  # a Population from the first epoch on
    steps = course(start, x[rest], labels[rest], learning_rate, batch_size, seed)
    next(steps)  # untrained
    for epoch in tqdm(range(1, epochs + 1), "pretraining", leave=False):
        learner = next(steps)
        accuracies.append(float(learner.accuracy(x[held], labels[held])[0]))
        if accuracies[-1] == max(accuracies) and accuracies.count(accuracies[-1]) == 1:
            best = collect(start, {epoch: {k: v.clone() for k, v in learner.state.items()}})
        elif epoch - best.members.epoch[0] >= patience:
            break
    best.members.attrs["validation"] = accuracies
    return best.to("cpu")


@remembered(2)
def frozen(trunk: dict, device: str = "cpu") -> nn.Sequential:
    """Convolutional part of the network that ``pretrained(**trunk)`` gives, frozen."""
    network = pretrained(**trunk).member(0)
    last = max(i for i, module in enumerate(network) if isinstance(module, nn.Flatten))
    return network[:last + 1].requires_grad_(False).to(
        resolve_device(device), memory_format=torch.channels_last)


@cached
def features(trunk: dict, name: str, dataset: str, classes: Sequence[int], seed: int = 0,
             noise: float = 0.1) -> Tensor:
    """Outputs of a frozen trunk for the images ``probes.probe_inputs(name, ...)``, cached on disk."""
    return extract(frozen(trunk), probes.probe_inputs(name, dataset, classes, seed, noise))


@cached
def trained(architecture: dict, seeds: Sequence[int], dataset: str, classes: Sequence[int],
            epochs: int, checkpoints: Sequence[int] | None = None, learning_rate: float = 1e-3,
            batch_size: int = 32, seed: int = 0, private_order: bool = False,
            strategy: str = "standard", eps: float = 0.1, attack_steps: int = 5,
            shared_attack: bool = False, trunk: dict | None = None, images: int | None = None,
            device: str = "cpu") -> Population:
    """Initialise and train a population on a data set's training images, cached on disk.

    Parameters are those of ``initialise``, ``image_sets.load`` and ``train``, all plain values.

    Parameters
    ----------
    trunk : dict, optional
        Arguments of ``pretrained``: the population are heads on the features of that network.
    images : int, optional
        Train on so many of the images, drawn at random; all by default.
    device : str
        Where it is trained; "auto" picks CUDA where there is one. What is returned, and kept, is
        on the CPU.
    """
    _, labels = probes.labelled_images(dataset, tuple(classes), "train")
    order = np.random.default_rng([seed, *b"images"]).permutation(len(labels))
    chosen = np.sort(order[:images])
    standard = strategy == "standard"
    x = (features(trunk, "train", dataset, classes) if trunk and standard
         else probes.probe_inputs("train", dataset, classes))
    return train(initialise(architecture, seeds, device), x[chosen].to(resolve_device(device)),
                 labels[chosen], epochs, checkpoints, learning_rate=learning_rate,
                 batch_size=batch_size, seed=seed, private_order=private_order, strategy=strategy,
                 eps=eps, attack_steps=attack_steps, shared_attack=shared_attack,
                 trunk=None if standard or not trunk else frozen(trunk, device)).to("cpu")
