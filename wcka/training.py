"""Train a population of networks at once, with checkpoints at chosen epochs."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from . import attacks, data
from ._validate import nearest
from .cache import cached
from .population import Population, initialise, resolve_device

_ATTACKS = {"standard": None, **attacks.ATTACKS}


def train(population: Population, x: Tensor, labels, epochs: int,
          checkpoints: Sequence[int] | None = None, *, learning_rate: float = 1e-3,
          batch_size: int = 32, seed: int = 0, private_order: bool = False,
          strategy: str = "standard", eps: float = 0.1, attack_steps: int = 5) -> Population:
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
    labels = torch.as_tensor(labels, device=x.device)
    if len(x) != len(labels):
        raise ValueError(f"{len(x)} inputs but {len(labels)} labels")
    state = {name: values.clone().requires_grad_() for name, values in population.state.items()}
    learner = Population(population.architecture, state, population.members)
    # The fused kernel makes one pass over the weights where the others make a dozen.
    optimizer = torch.optim.Adam(state.values(), lr=learning_rate, fused=True)
    orders = [np.random.default_rng([seed, i]) for i in range(len(learner) if private_order else 1)]
    starts = np.random.default_rng([seed, 1])  # apart: all strategies see the images in one order
    kept = {}
    for epoch in tqdm(range(epochs + 1), desc="epochs", leave=False):
        if epoch:
            _epoch(learner, optimizer, x, labels, batch_size, orders,
                   attack and partial(attack, eps=eps, steps=attack_steps), starts)
        if epoch in checkpoints:
            kept[epoch] = {name: values.detach().clone() for name, values in state.items()}
    return _collect(population, kept)


def _epoch(learner, optimizer, x, labels, batch_size, orders, attack, starts) -> None:
    # What is attacked are the members as they stand: the same storage, no gradient of weights.
    target = Population(learner.architecture, {k: v.detach() for k, v in learner.state.items()},
                        learner.members)
    order = torch.from_numpy(np.stack([rng.permutation(len(x)) for rng in orders])).to(x.device)
    for batch in order.split(batch_size, dim=1):
        batch = batch.squeeze(0)  # (n,) shared, or (N, n)
        images = x[batch]
        if attack:
            images = attack(target, images, labels[batch], seed=int(starts.integers(2**31)))
        logits = learner.forward(images, own=bool(attack) or batch.ndim == 2)
        wanted = labels[batch].expand(logits.shape[:2])
        loss = cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
        optimizer.zero_grad()
        (loss / batch.shape[-1]).backward()
        optimizer.step()


def _collect(population: Population, kept: dict[int, dict[str, Tensor]]) -> Population:
    state = {name: torch.cat([kept[e][name] for e in kept]) for name in population.state}
    members = pd.concat([population.members.assign(epoch=e) for e in kept], ignore_index=True)
    return Population(population.architecture, state, members)


@cached
def trained(architecture: dict, seeds: Sequence[int], dataset: str, classes: Sequence[int],
            epochs: int, checkpoints: Sequence[int] | None = None, learning_rate: float = 1e-3,
            batch_size: int = 32, seed: int = 0, private_order: bool = False,
            strategy: str = "standard", eps: float = 0.1, attack_steps: int = 5,
            device: str = "cpu") -> Population:
    """Initialise and train a population on a data set's training images, cached on disk.

    Parameters are those of ``initialise``, ``data.load`` and ``train``, all plain values.
    """
    images, labels = data.load(dataset, "train", classes)
    return train(initialise(architecture, seeds, device),
                 data.inputs(images, resolve_device(device)), labels, epochs, checkpoints,
                 learning_rate=learning_rate, batch_size=batch_size, seed=seed,
                 private_order=private_order, strategy=strategy, eps=eps,
                 attack_steps=attack_steps)
