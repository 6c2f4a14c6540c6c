"""Train the networks of a population together, each by its own loss, and keep
checkpoints.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from ..measures.spelling import nearest
from . import attacks
from .populations import Population, Transfer, extract

_ATTACKS = {"standard": None, **attacks.BY_GRADIENT}


def train(population: Population, x: Tensor, labels, epochs: int,
          checkpoints: Sequence[int] | None = None, *, learning_rate: float = 1e-3,
          batch_size: int = 32, seed: int = 0, private_order: bool = False,
          strategy: str = "standard", eps: float = 0.1, attack_steps: int = 5,
          shared_attack: bool = False, trunk: nn.Module | None = None) -> Population:
    """Train every member by Adam on the cross-entropy of its logits.

    The loss is the sum of the members' losses and Adam acts on every weight alone, so
    each member learns exactly as it would by itself.

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
        Epochs at whose end the members are kept, 0 (untrained) to `epochs`; the last by
        default.
    learning_rate, batch_size
        Of Adam; the last batch of an epoch may be smaller.
    seed : int
        Seed of the order of the training images.
    private_order : bool
        Give each member an order of its own; by default all see the same minibatches,
        so that they differ in initialisation only, and training is several times
        faster.
    strategy : {"standard", "fgsm", "pgd", "ffgsm", "trades"}
        What the members learn from: the images, or those that an attack on the member
        as it stands makes of each minibatch (Goodfellow et al. 2014; Madry et al.
        2019).
    eps : float
        Of the attack. At 0.3, usual for attacks on MNIST, training makes most narrow
        networks predict one class only; `functional.collapsed` finds such.
    attack_steps : int
        Steps of PGD and TRADES, each of 2.5 eps / steps.
    shared_attack : bool
        Attack the sum of the members' losses, so that all members see the same attacked
        images, at the cost of one attack; by default each member is attacked for
        itself.
    trunk : nn.Module, optional
        Frozen layers before the members, who see its outputs; `x` are its inputs, and
        what is attacked.

    Returns
    -------
    Population
        Members x checkpoints models, checkpoint by checkpoint, with a column "epoch".

    Raises
    ------
    ValueError
        For checkpoints outside 0 to `epochs`, inputs and labels of different length, an
        unknown strategy, or an adversarial one with private orders.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> start = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[0, 1])
    >>> x, labels = torch.rand(8, 4), [0, 1, 2, 0, 1, 2, 0, 1]
    >>> population = train(start, x, labels, epochs=2, checkpoints=[0, 2])
    >>> population.members.epoch.tolist()
    [0, 0, 2, 2]
    """
    attack = _ATTACKS[nearest(strategy, _ATTACKS, "strategy")]
    if attack and private_order:
        raise ValueError("private_order: adversarial training needs the shared order")
    checkpoints = sorted({epochs} if checkpoints is None else set(checkpoints))
    if not checkpoints or checkpoints[0] < 0 or checkpoints[-1] > epochs:
        raise ValueError(
            f"checkpoints: wanted epochs from 0 to {epochs}, got {checkpoints}"
        )
    if trunk is not None and attack is None:
        x, trunk = extract(trunk, x), None
    attack = attack and partial(attack, eps=eps, steps=attack_steps)
    states = {}
    steps = course(
        population,
        x,
        labels,
        learning_rate,
        batch_size,
        seed,
        private_order,
        attack,
        shared_attack,
        trunk,
    )
    for epoch, learner in tqdm(
        zip(range(epochs + 1), steps), "epochs", epochs + 1, leave=False
    ):
        if epoch in checkpoints:
            states[epoch] = copied(learner.state)
    return collect(population, states)


def course(population, x, labels, learning_rate, batch_size, seed, private_order=False,
            attack=None, shared_attack=False, trunk=None) -> Iterator[Population]:
    """The members before training and after each epoch; their weights move on with the
    next.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> start = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[0, 1])
    >>> x, labels = torch.rand(8, 4), [0, 1, 2, 0, 1, 2, 0, 1]
    >>> steps = course(start, x, torch.tensor(labels), 1e-3, 4, seed=0)
    >>> bool(torch.equal(next(steps).state["1.weight"], start.state["1.weight"]))
    True
    """
    labels = torch.as_tensor(labels, device=x.device)
    if len(x) != len(labels):
        raise ValueError(f"{len(x)} inputs but {len(labels)} labels")
    weights = {name for name, _ in population.network.named_parameters()}
    state = copied(population.state)
    for name in weights:
        state[name].requires_grad_()
    learner = Population(population.architecture, state, population.members)
    learner.network.train()  # batch normalisation keeps its running statistics
    # The members as they stand: the same storage, no gradient of weights.
    detached = {name: values.detach() for name, values in state.items()}
    standing = Population(population.architecture, detached, population.members)
    target = standing if trunk is None else Transfer(trunk, standing)
    # The fused kernel makes one pass over the weights where the others make a dozen.
    parameters = [state[name] for name in population.state if name in weights]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    orders = []
    for i in range(len(learner) if private_order else 1):
        orders.append(np.random.default_rng([seed, i]))
    # Apart: all strategies see the images in one order
    starts = np.random.default_rng([seed, 1])
    yield standing
    while True:
        permutations = np.stack([rng.permutation(len(x)) for rng in orders])
        order = torch.from_numpy(permutations).to(x.device)  # (1 or networks, n)
        for batch in order.split(batch_size, dim=1):
            batch = batch.squeeze(0)  # (batch,) shared, or (networks, batch)
            images = x[batch]
            per_model = batch.ndim == 2
            if attack:
                per_model = not shared_attack
                images = attack(
                    target if per_model else target.forward,
                    images,
                    labels[batch],
                    seed=int(starts.integers(2**31)),
                )
            if isinstance(target, Transfer):
                with torch.no_grad():
                    images = target.features(images, per_model)
            _step(learner, optimizer, images, labels[batch], per_model)
        yield standing


def _step(
    learner: Population, optimizer, x: Tensor, labels: Tensor, per_model: bool
) -> None:
    logits = learner.forward(x, per_model=per_model)
    targets = labels.expand(logits.shape[:2])  # (networks, batch)
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    optimizer.zero_grad()
    (loss / labels.shape[-1]).backward()
    optimizer.step()


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of a state, which later steps of training leave as it is.

    Examples
    --------
    >>> state = {"weight": torch.zeros(2)}
    >>> copied(state)["weight"] is state["weight"]
    False
    """
    return {name: values.detach().clone() for name, values in state.items()}


def collect(population: Population, states: dict[int, dict[str, Tensor]]) -> Population:
    """Return one population of all checkpoints.

    Parameters
    ----------
    population : Population
        The networks before training.
    states : dict of int to dict
        Stacked states by epoch.

    Returns
    -------
    Population
        Members x checkpoints models, checkpoint by checkpoint, with a column "epoch".

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> start = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[0, 1])
    >>> len(collect(start, {0: start.state, 5: start.state}))
    4
    """
    state = {}
    for name in population.state:
        state[name] = torch.cat([checkpoint[name] for checkpoint in states.values()])
    tables = [population.members.assign(epoch=epoch) for epoch in states]
    members = pd.concat(tables, ignore_index=True)
    return Population(population.architecture, state, members)
