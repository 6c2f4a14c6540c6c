"""Train populations of networks at once, or heads on a frozen trunk, and keep checkpoints."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from . import attacks, data, probes
from .cache import cached, remembered
from .checks import nearest
from .population import Population, Transfer, extract, initialise, resolve_device

_ATTACKS = {"standard": None, **attacks.BY_GRADIENT}


def train(population: Population, x: Tensor, labels, epochs: int,
          checkpoints: Sequence[int] | None = None, *, learning_rate: float = 1e-3,
          batch_size: int = 32, seed: int = 0, private_order: bool = False,
          strategy: str = "standard", eps: float = 0.1, attack_steps: int = 5,
          shared_attack: bool = False, trunk: nn.Module | None = None) -> Population:
    """Train every member by Adam on the cross-entropy of its logits.

    The loss is the sum of the members' losses and Adam acts on every weight alone, so each
    member learns exactly as it would by itself.

    Parameters
    ----------
    population : Population
        The networks to start from; left untouched.
    x : Tensor
        Training inputs (n, ...), float32 in [0, 1], on the population's device.
    labels : array-like of int
        (n,), from 0.
    epochs : int
        Passes through the training set.
    checkpoints : sequence of int, optional
        Epochs at whose end the members are kept, 0 (untrained) to `epochs`; the last by default.
    learning_rate, batch_size
        Of Adam; the last batch of an epoch may be smaller.
    seed : int
        Seed of the order of the training images.
    private_order : bool
        Give each member an order of its own; by default all see the same minibatches, so that
        they differ in initialisation only, and training is several times faster.
    strategy : {"standard", "fgsm", "pgd", "ffgsm", "trades"}
        What the members learn from: the images, or those that an attack on the member as it stands
        makes of each minibatch (Goodfellow et al. 2014; Madry et al. 2019).
    eps : float
        Of the attack. At 0.3, usual for attacks on MNIST, training makes most narrow networks
        predict one class only; `functional.collapsed` finds such.
    attack_steps : int
        Steps of PGD and TRADES, each of 2.5 eps / steps.
    shared_attack : bool
        Attack the sum of the members' losses, so that all members see the same attacked images, at
        the cost of one attack; by default each member is attacked for itself.
    trunk : nn.Module, optional
        Frozen layers before the members, who see its outputs; `x` are its inputs, and what is
        attacked.

    Returns
    -------
    Population
        Members x checkpoints models, checkpoint by checkpoint, with a column "epoch".

    Raises
    ------
    ValueError
        For checkpoints outside 0 to `epochs`, inputs and labels of different length, an unknown
        strategy, or an adversarial one with private orders.
    """
    attack = _ATTACKS[nearest(strategy, _ATTACKS, "strategy")]
    if attack and private_order:
        raise ValueError("private_order: adversarial training needs the shared order")
    checkpoints = sorted({epochs} if checkpoints is None else set(checkpoints))
    if not checkpoints or checkpoints[0] < 0 or checkpoints[-1] > epochs:
        raise ValueError(f"checkpoints: wanted epochs from 0 to {epochs}, got {checkpoints}")
    if trunk is not None and attack is None:
        x, trunk = extract(trunk, x), None
    attack = attack and partial(attack, eps=eps, steps=attack_steps)
    kept = {}
    course = _course(population, x, labels, learning_rate, batch_size, seed, private_order,
                     attack, shared_attack, trunk)
    for epoch, learner in tqdm(zip(range(epochs + 1), course), "epochs", epochs + 1, leave=False):
        if epoch in checkpoints:
            kept[epoch] = {name: values.clone() for name, values in learner.state.items()}
    return _collect(population, kept)


def _course(population, x, labels, learning_rate, batch_size, seed, private_order=False,
            attack=None, shared_attack=False, trunk=None) -> Iterator[Population]:
    """The members before training and after each epoch; their weights move on with the next."""
    labels = torch.as_tensor(labels, device=x.device)
    if len(x) != len(labels):
        raise ValueError(f"{len(x)} inputs but {len(labels)} labels")
    weights = {name for name, _ in population.network.named_parameters()}
    state = {name: values.clone().requires_grad_(name in weights)
             for name, values in population.state.items()}
    learner = Population(population.architecture, state, population.members)
    learner.network.train()  # batch normalisation keeps its running statistics
    # The members as they stand: the same storage, no gradient of weights.
    standing = Population(population.architecture, {k: v.detach() for k, v in state.items()},
                          population.members)
    target = standing if trunk is None else Transfer(trunk, standing)
    # The fused kernel makes one pass over the weights where the others make a dozen.
    optimizer = torch.optim.Adam([state[name] for name in population.state if name in weights],
                                 lr=learning_rate, fused=True)
    orders = [np.random.default_rng([seed, i]) for i in range(len(learner) if private_order else 1)]
    starts = np.random.default_rng([seed, 1])  # apart: all strategies see the images in one order
    yield standing
    while True:
        order = torch.from_numpy(np.stack([rng.permutation(len(x)) for rng in orders])).to(x.device)
        for batch in order.split(batch_size, dim=1):
            batch = batch.squeeze(0)  # (n,) shared, or (N, n)
            images, own = x[batch], batch.ndim == 2
            if attack:
                own = not shared_attack
                images = attack(target if own else target.forward, images, labels[batch],
                                seed=int(starts.integers(2**31)))
            if isinstance(target, Transfer):
                with torch.no_grad():
                    images = target.features(images, own)
            _step(learner, optimizer, images, labels[batch], own)
        yield standing


def _step(learner: Population, optimizer, x: Tensor, labels: Tensor, own: bool) -> None:
    logits = learner.forward(x, own=own)
    wanted = labels.expand(logits.shape[:2])
    loss = cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
    optimizer.zero_grad()
    (loss / labels.shape[-1]).backward()
    optimizer.step()


def _collect(population: Population, kept: dict[int, dict[str, Tensor]]) -> Population:
    state = {name: torch.cat([kept[e][name] for e in kept]) for name in population.state}
    members = pd.concat([population.members.assign(epoch=e) for e in kept], ignore_index=True)
    return Population(population.architecture, state, members)


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
        As in ``data.load``.
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
    images, truth = data.load(dataset, "train", None)
    x, labels = data.inputs(images, resolve_device(device)), torch.from_numpy(truth)
    order = np.random.default_rng([seed, *b"validation"]).permutation(len(x))
    held, rest = torch.from_numpy(order).split([validation, len(x) - validation])
    start, course = initialise(architecture, [seed], device), []
    best: Any = None  # a Population from the first epoch on
    steps = _course(start, x[rest], labels[rest], learning_rate, batch_size, seed)
    next(steps)  # untrained
    for epoch in tqdm(range(1, epochs + 1), "pretraining", leave=False):
        learner = next(steps)
        course.append(float(learner.accuracy(x[held], labels[held])[0]))
        if course[-1] == max(course) and course.count(course[-1]) == 1:
            best = _collect(start, {epoch: {k: v.clone() for k, v in learner.state.items()}})
        elif epoch - best.members.epoch[0] >= patience:
            break
    best.members.attrs["validation"] = course
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
    """Outputs of a frozen trunk for the images ``probes.inputs(name, ...)``, cached on disk."""
    return extract(frozen(trunk), probes.inputs(name, dataset, classes, seed, noise))


@cached
def trained(architecture: dict, seeds: Sequence[int], dataset: str, classes: Sequence[int],
            epochs: int, checkpoints: Sequence[int] | None = None, learning_rate: float = 1e-3,
            batch_size: int = 32, seed: int = 0, private_order: bool = False,
            strategy: str = "standard", eps: float = 0.1, attack_steps: int = 5,
            shared_attack: bool = False, trunk: dict | None = None, images: int | None = None,
            device: str = "cpu") -> Population:
    """Initialise and train a population on a data set's training images, cached on disk.

    Parameters are those of ``initialise``, ``data.load`` and ``train``, all plain values.

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
    _, labels = probes.labelled(dataset, tuple(classes), "train")
    order = np.random.default_rng([seed, *b"images"]).permutation(len(labels))
    chosen = np.sort(order[:images])
    standard = strategy == "standard"
    x = (features(trunk, "train", dataset, classes) if trunk and standard
         else probes.inputs("train", dataset, classes))
    return train(initialise(architecture, seeds, device), x[chosen].to(resolve_device(device)),
                 labels[chosen], epochs, checkpoints, learning_rate=learning_rate,
                 batch_size=batch_size, seed=seed, private_order=private_order, strategy=strategy,
                 eps=eps, attack_steps=attack_steps, shared_attack=shared_attack,
                 trunk=None if standard or not trunk else frozen(trunk, device)).to("cpu")
