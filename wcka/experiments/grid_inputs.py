"""Inputs of a grid's networks: probes, a trunk's features, attacked images."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..networks.attacks import BY_GRADIENT
from ..networks.populations import Population, Transfer
from ..networks.probes import labelled_images, probe_inputs
from .training_runs import features, frozen

# Networks, and images of each, attacked at once: more would not fit into the
# processor's caches, of which a convolutional trunk takes more for itself.
_ATTACKED_AT_ONCE = {False: (25, 128), True: (4, 16)}

# Layers by names that hold for every depth.
LAYERS: dict[str, Callable[[Population], int]] = {
    "first hidden": lambda population: 1,
    "last hidden": lambda population: population.depth - 1,
    "logits": lambda population: population.depth,
}


def trunk_of(models: Sequence[dict]) -> dict | None:
    """Return what all of a grid's networks stand on, as ``trained`` takes it.

    Examples
    --------
    >>> trunk_of([{"strategy": "standard"}]) is None
    True
    """
    return models[0].get("trunk")


def seen_by_networks(trunk: dict | None, probe_name: str, probing: dict) -> Tensor:
    """Return the inputs of networks: a probe's images, or a trunk's features.

    Parameters
    ----------
    trunk : dict or None
        As from ``trunk_of``.
    probe_name : str
        A probe that all networks share.
    probing : dict
        As in ``benchmark.grid``.

    Returns
    -------
    Tensor
        (n, pixels or units).

    Examples
    --------
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0}
    >>> seen_by_networks(None, "clean", probing).shape
    torch.Size([2115, 784])
    """
    # Only what the probe depends on, so that nothing is kept twice under different
    # names.
    keys = ["dataset", "classes"]
    if probe_name != "clean":
        keys.append("seed")
    if probe_name == "gaussian_noise":
        keys.append("noise")
    options = {key: probing[key] for key in keys}
    if trunk:
        return features(trunk, probe_name, **options)
    return probe_inputs(probe_name, **options)


def clean_inputs(probing: dict) -> tuple[Tensor, Tensor]:
    """Return the clean images as inputs (n, pixels), and their labels (n,).

    Examples
    --------
    >>> x, labels = clean_inputs({"dataset": "mnist", "classes": [0, 1]})
    >>> len(x) == len(labels) == 2115
    True
    """
    dataset, classes = probing["dataset"], tuple(probing["classes"])
    labels = torch.from_numpy(labelled_images(dataset, classes)[1])
    return probe_inputs("clean", dataset, classes), labels


def drawn_rows(x: Tensor, samples: int | None, probing: dict) -> Tensor:
    """Return a seeded random subset of rows.

    Smaller subsets are prefixes of larger ones.

    Parameters
    ----------
    x : Tensor
        (n, ...).
    samples : int or None
        Number of rows; all of them, in another order, for None.
    probing : dict
        Under "seed" the seed of the order, which is the same for all `x` of one length.

    Examples
    --------
    >>> x = torch.arange(10)
    >>> few, more = (drawn_rows(x, n, {"seed": 0}) for n in (3, 5))
    >>> bool(torch.equal(few, more[:3]))
    True
    """
    order = np.random.default_rng(probing["seed"]).permutation(len(x))
    return x[order[:samples]]


def attacked_images(probing: dict) -> tuple[Tensor, Tensor]:
    """Return the clean images that attacks begin with, as inputs, and their labels.

    Examples
    --------
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "attacked": 7}
    >>> attacked_images(probing)[0].shape
    torch.Size([7, 784])
    """
    x, labels = clean_inputs(probing)
    count = probing["attacked"]
    return drawn_rows(x, count, probing), drawn_rows(labels, count, probing)


def attacked_together(models: Sequence[dict],
                      populations: Sequence[Population]) -> Iterator[Population]:
    """Yield as many networks as are attacked at once, in the order of the members.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> population = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=range(30))
    >>> [len(part) for part in attacked_together([{}], [population])]
    [25, 5]
    """
    size, _ = _ATTACKED_AT_ONCE[bool(trunk_of(models))]
    for population in populations:
        for start in range(0, len(population), size):
            yield population[start:start + size]


@torch.no_grad()
def inputs_against(
    models: Sequence[dict],
    population: Population,
    attack: str,
    x: Tensor,
    labels: Tensor,
    probing: dict,
) -> Tensor:
    """Return what each member's own layers get of the images made against it.

    Parameters
    ----------
    models : sequence of dict
        As in ``benchmark.grid``; says whether there is a trunk.
    population : Population
        The networks that are attacked, each for itself.
    attack : str
        A name in ``attacks.BY_GRADIENT``.
    x, labels : Tensor
        Clean images (n, pixels) and their labels (n,).
    probing : dict
        As in ``benchmark.grid``.

    Returns
    -------
    Tensor
        (networks, n, pixels or units).

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> population = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[0, 1])
    >>> probing = {"seed": 0, "eps": 0.1, "steps": 1}
    >>> x, labels = torch.full((5, 4), 0.5), torch.zeros(5, dtype=int)
    >>> inputs_against([{}], population, "fgsm", x, labels, probing).shape
    torch.Size([2, 5, 4])
    """
    trunk = trunk_of(models)
    target = Transfer(frozen(trunk), population) if trunk else population
    _, size = _ATTACKED_AT_ONCE[bool(trunk)]
    batches = []
    for i, (images, targets) in enumerate(zip(x.split(size), labels.split(size))):
        # Each batch has a seed of its own, so that its start does not repeat another's.
        seed = int(np.random.SeedSequence([probing["seed"], i]).generate_state(1)[0])
        adversarial = BY_GRADIENT[attack](
            target,
            images,
            targets,
            eps=probing["eps"],
            steps=probing["steps"],
            seed=seed,
        )
        if isinstance(target, Transfer):
            adversarial = target.features(adversarial, per_model=True)
        batches.append(adversarial)
    return torch.cat(batches, 1)  # (networks, n, pixels or units)
