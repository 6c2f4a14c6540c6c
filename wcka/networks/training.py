"""Training of a population: all networks together, each on its own loss."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.optim.adam import adam
from tqdm import tqdm

from ..measures.spelling import nearest
from . import attacks
from .populations import Population, Transfer, extract

# Multiply-adds of one step, up to which one thread takes less time than two
_SHORT_STEP = 1e8
_ATTACKS = {"standard": None, **attacks.BY_GRADIENT}


def train(population: Population, x: Tensor, labels, epochs: int,
          checkpoints: Sequence[int] | None = None, *, learning_rate: float = 1e-3,
          batch_size: int = 32, seed: int = 0, private_order: bool = False,
          strategy: str = "standard", eps: float = 0.1, attack_steps: int = 5,
          shared_attack: bool = False, trunk: nn.Module | None = None) -> Population:
    """Train every member with Adam on the cross-entropy of its logits.

    The loss is the sum of the members' losses, and Adam updates every weight
    separately. Each member therefore learns exactly as if it were trained alone.

    Parameters
    ----------
    population : Population
        The networks before training; they are not modified.
    x : Tensor
        Training inputs (n, ...), float32 in [0, 1], on the population's device.
    labels : array-like of int
        Labels (n,), from 0.
    epochs : int
        Number of passes through the training set.
    checkpoints : sequence of int, optional
        Epochs, from 0 (untrained) to `epochs`, at whose end the members are stored; by
        default the last epoch.
    learning_rate : float
        Learning rate of Adam.
    batch_size : int
        Number of images in a minibatch; the last one of an epoch may be smaller.
    seed : int
        Seed of the order of the training images.
    private_order : bool
        Whether each member has a separate order of the images. By default all members
        see the same minibatches: they then differ only in their initialisation, and
        training is several times faster.
    strategy : {"standard", "fgsm", "pgd", "ffgsm", "trades"}
        The images to learn from: "standard" is the training images; each other strategy
        is an attack on the members in their current state, applied to every minibatch
        (Goodfellow et al. 2014; Madry et al. 2019).
    eps : float
        Largest change of a pixel by the attack. With 0.3, which is usual for attacks on
        MNIST, most narrow networks learn to predict one class only;
        ``measures.collapsed`` detects such networks.
    attack_steps : int
        Number of steps of PGD and TRADES, each of size 2.5 eps / steps.
    shared_attack : bool
        Whether the attack is on the sum of the members' losses, so that all members see
        the same attacked images at the cost of one attack. By default each member is
        attacked separately.
    trunk : nn.Module, optional
        Frozen layers before the members. `x` is the input of the trunk, attacks act on
        that input, and the members learn from the trunk's outputs.

    Returns
    -------
    Population
        Members x checkpoints models, checkpoint by checkpoint, with a column "epoch".

    Raises
    ------
    ValueError
        For checkpoints outside 0 to `epochs`, inputs and labels of different length, an
        unknown strategy, or an adversarial strategy with private orders.

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
    if attack:
        attack = partial(attack, eps=eps, steps=attack_steps)
    elif trunk is not None:
        # Without attacks the images never change, and so neither do their features.
        x = extract(trunk, x)  # (n, units)
        trunk = None
    learners = course(population, x, labels, learning_rate, batch_size, seed,
                      private_order, attack, shared_attack, trunk)
    states = {}
    # The range comes first: the zip then ends without training for one more epoch.
    progress = tqdm(
        zip(range(epochs + 1), learners), "epochs", epochs + 1, leave=False
    )
    for epoch, learner in progress:
        if epoch in checkpoints:
            states[epoch] = copied(learner.state)
    return collect(population, states)


def course(population, x, labels, learning_rate, batch_size, seed, private_order=False,
           attack=None, shared_attack=False, trunk=None) -> Iterator[Population]:
    """Yield the members before training, and again after each epoch, without end.

    Every population that is yielded has the same storage: its weights change when the
    next one is asked for. See ``train`` for the parameters; `attack` is a function of
    (model, images, labels, seed), or None.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> start = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[0, 1])
    >>> x, labels = torch.rand(8, 4), [0, 1, 2, 0, 1, 2, 0, 1]
    >>> learners = course(start, x, torch.tensor(labels), 1e-3, 4, seed=0)
    >>> bool(torch.equal(next(learners).state["1.weight"], start.state["1.weight"]))
    True
    """
    labels = torch.as_tensor(labels, device=x.device)
    if len(x) != len(labels):
        raise ValueError(f"{len(x)} inputs but {len(labels)} labels")
    learner = _Learner(population, learning_rate)
    current = learner.population
    target = current if trunk is None else Transfer(trunk, current)
    order_streams = []
    for i in range(len(current) if private_order else 1):
        order_streams.append(np.random.default_rng([seed, i]))
    # A separate stream for attacks: with every strategy the order of images is the same
    attack_seeds = np.random.default_rng([seed, 1])
    yield current
    while True:
        with _suitable_threads(target, batch_size):
            for batch in _minibatches(order_streams, len(x), batch_size, x.device):
                images = x[batch]  # (batch, ...) shared, or (networks, batch, ...)
                per_model = batch.ndim == 2
                if attack:
                    per_model = not shared_attack
                    images = attack(
                        target if per_model else target.forward,
                        images,
                        labels[batch],
                        seed=int(attack_seeds.integers(2**31)),
                    )  # (networks, batch, ...), or (batch, ...) for a shared attack
                if isinstance(target, Transfer):
                    with torch.no_grad():
                        images = target.features(images, per_model)
                learner.step(images, labels[batch], per_model)
        yield current


@contextmanager
def _suitable_threads(
    target: Population | Transfer, batch_size: int
) -> Iterator[None]:
    """Use one thread where a step is so short that a second one delays it."""
    threads = torch.get_num_threads()
    if isinstance(target, Population) and target.is_rectified:
        weights = sum(values.numel() for values in target.state.values())
        if weights * batch_size < _SHORT_STEP:
            torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Learner:
    """A copy of a population, and Adam for its weights.

    All weights are parts of one vector, and so are their gradients: the optimizer makes
    one pass over it, however many layers there are.
    """

    def __init__(self, population: Population, learning_rate: float):
        parameter_names = [name for name, _ in population.network.named_parameters()]
        values = [population.state[name].detach() for name in parameter_names]
        vector = torch.cat([weights.flatten() for weights in values])
        gradient_vector = torch.zeros_like(vector)
        sizes = [weights.numel() for weights in values]
        state = copied(population.state)
        self.gradients: dict[str, Tensor] = {}
        parts = zip(vector.split(sizes), gradient_vector.split(sizes))
        for name, weights, (part, gradient) in zip(parameter_names, values, parts):
            state[name] = part.view(weights.shape)
            self.gradients[name] = gradient.view(weights.shape)
        self.population = Population(population.architecture, state, population.members)
        self._learner = None if self.population.is_rectified else self._with_graph()
        # Adam's function, and not the class: creating one of any optimizer imports
        # PyTorch's compiler, for as long as many a population trains. The fused kernel
        # makes one pass over the weights where others make a dozen.
        steps = torch.zeros((), device=vector.device)
        moments = torch.zeros_like(vector), torch.zeros_like(vector)
        self._update = partial(
            adam, [vector], [gradient_vector], [moments[0]], [moments[1]], [], [steps],
            fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=learning_rate,
            weight_decay=0, eps=1e-8, maximize=False)

    def step(self, x: Tensor, labels: Tensor, per_model: bool) -> None:
        """Take one step of Adam on one minibatch.

        `x` and `per_model` are as in ``Population.forward``; the labels are (n,) or,
        with a minibatch of its own for each network, (N, n).
        """

        def slope(logits: Tensor) -> Tensor:
            # Of the sum over networks of the mean over the minibatch
            wanted = one_hot(labels, logits.shape[-1])  # (n, classes) or (N, n, ...)
            return (logits.softmax(-1) - wanted) / labels.shape[-1]

        if self._learner is None:
            self.population.weight_gradients(x, slope, per_model, self.gradients)
        else:
            for gradient in self.gradients.values():
                gradient.zero_()
            logits = self._learner.forward(x, per_model=per_model)  # (N, n, classes)
            logits.backward(slope(logits.detach()))
        self._update()

    def _with_graph(self) -> Population:
        """Return the same weights for a graph, which adds to the same gradients."""
        state = dict(self.population.state)
        for name, gradient in self.gradients.items():
            state[name] = state[name].detach().requires_grad_()
            state[name].grad = gradient
        members = self.population.members
        learner = Population(self.population.architecture, state, members)
        learner.network.train()  # batch normalisation updates its running statistics
        return learner


def _minibatches(streams: list[np.random.Generator], n: int, batch_size: int,
                 device: torch.device) -> Iterator[Tensor]:
    """Yield the positions of one epoch's minibatches, from one order per stream.

    They are (batch,) for one stream, whose order all networks share, and otherwise
    (networks, batch).
    """
    permutations = np.stack([stream.permutation(n) for stream in streams])
    order = torch.from_numpy(permutations).to(device)  # (1 or networks, n)
    for batch in order.split(batch_size, dim=1):
        yield batch.squeeze(0)


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of a state that later training steps do not change.

    Examples
    --------
    >>> state = {"weight": torch.zeros(2)}
    >>> copied(state)["weight"] is state["weight"]
    False
    """
    copies = {}
    for name, values in state.items():
        copies[name] = values.detach().clone()
    return copies


def collect(population: Population, states: dict[int, dict[str, Tensor]]) -> Population:
    """Return one population with the members at all checkpoints.

    Parameters
    ----------
    population : Population
        The networks before training.
    states : dict of int to dict
        The stacked state of all members at each checkpoint, by epoch.

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
