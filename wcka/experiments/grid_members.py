"""The networks of a grid: trained populations, a table of members, and pairs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..networks.populations import Population, chains
from .cache import remembered
from .training_runs import trained

# In the order of the paper's figures
FACTORS = ("epoch", "seed", "architecture", "strategy")
_KINDS = {"convnet": "CNN", "resnet": "ResNet"}


@remembered(1)
def grid_networks(models: Sequence[dict]) -> tuple[list[Population], pd.DataFrame]:
    """Return the populations of a grid, and one table of all their members.

    Parameters
    ----------
    models : sequence of dict
        As in ``benchmark.grid``.

    Returns
    -------
    populations : list of Population
        One per architecture and strategy.
    members : DataFrame
        One row per network, in the order of the populations: the columns of their
        members, architecture (its name), strategy, group (the position of its
        population).

    Raises
    ------
    ValueError
        For two architectures of one name, which a table would take for one.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> populations, members = grid_networks([model])
    >>> members.architecture.tolist(), members.group.tolist()
    (['1 × 4', '1 × 4'], [0, 0])
    """
    architectures: dict[str, dict] = {}
    for model in models:
        architecture = model["architecture"]
        name = architecture_name(architecture)
        if architectures.setdefault(name, architecture) != architecture:
            raise ValueError(
                f"two architectures are called {name!r}: {architectures[name]} and "
                f"{architecture}; a table would take them for one")
    populations = [trained(**model) for model in models]
    tables = []
    for group, (model, population) in enumerate(zip(models, populations)):
        tables.append(population.members.assign(
            architecture=architecture_name(model["architecture"]),
            strategy=model["strategy"], group=group))
    return populations, pd.concat(tables, ignore_index=True)


def architecture_name(architecture: dict) -> str:
    """Return a short name: layers times width, or widths; kind and channels of a CNN.

    Examples
    --------
    >>> architecture_name({"factory": "mlp", "widths": [784, 32, 32, 3]})
    '2 × 32'
    >>> convnet = {"factory": "convnet", "channels": [4, 8], "batch_norm": True}
    >>> architecture_name(convnet)
    'CNN + BN 4-8'
    """
    if "widths" in architecture:
        hidden = architecture["widths"][1:-1]
        if len(set(hidden)) == 1:
            return f"{len(hidden)} × {hidden[0]}"
        return "-".join(map(str, hidden))
    kind = _KINDS.get(architecture["factory"])
    if kind is None:  # a factory that is new here
        return " ".join(map(str, architecture.values()))
    if architecture.get("batch_norm"):
        kind += " + BN"
    return f"{kind} {'-'.join(map(str, architecture['channels']))}"


def pairs_by_factor(members: pd.DataFrame) -> pd.DataFrame:
    """Return all pairs of networks that differ in exactly one factor.

    Parameters
    ----------
    members : DataFrame
        Columns ``FACTORS``, one row per network.

    Returns
    -------
    DataFrame
        Columns differs (the factor), a and b (rows of `members`, a before b).

    Examples
    --------
    >>> members = pd.DataFrame({"epoch": [1, 1, 2], "seed": [0, 1, 0],
    ...                         "architecture": "1 × 4", "strategy": "standard"})
    >>> pairs_by_factor(members).values.tolist()
    [['epoch', 0, 2], ['seed', 0, 1]]
    """
    numbered = members[list(FACTORS)].assign(row=np.arange(len(members)))
    tables = []
    for factor in FACTORS:
        shared_factors = [name for name in FACTORS if name != factor]
        pairs = numbered.merge(numbered, on=shared_factors)
        # Each pair once, and no network with itself
        pairs = pairs[pairs.row_x < pairs.row_y]
        tables.append(
            pd.DataFrame({"differs": factor, "a": pairs.row_x, "b": pairs.row_y}))
    return pd.concat(tables, ignore_index=True)


def pair_positions(members: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions (P,) and (P,) of the networks of ``pairs_by_factor``.

    Examples
    --------
    >>> members = pd.DataFrame({"epoch": [1, 1], "seed": [0, 1],
    ...                         "architecture": "1 × 4", "strategy": "standard"})
    >>> pair_positions(members)
    (array([0]), array([1]))
    """
    table = pairs_by_factor(members)
    return table.a.to_numpy(copy=True), table.b.to_numpy(copy=True)


def at_epoch(populations: Sequence[Population], epoch: int) -> list[Population]:
    """Return the members of each population at one epoch.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> start = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[0])
    >>> table = pd.DataFrame({"epoch": [5]})
    >>> population = Population(start.architecture, start.state, table)
    >>> [len(part) for part in at_epoch([population], 5) + at_epoch([population], 6)]
    [1, 0]
    """
    parts = []
    for population in populations:
        parts.append(population[(population.members.epoch == epoch).to_numpy()])
    return parts


def predictions_of(populations: Sequence[Population], x: Tensor) -> Tensor:
    """Return the predicted classes of all networks on shared inputs, (networks, n).

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> population = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[0, 1])
    >>> predictions_of([population, population], torch.zeros(5, 4)).shape
    torch.Size([4, 5])
    """
    return torch.cat([population.predict(x) for population in populations])


def chains_of(populations: Sequence[Population], **options) -> list[Tensor]:
    """Return the chains (inputs, outputs) of all networks.

    Parameters
    ----------
    populations : sequence of Population
        The networks.
    **options
        Of ``populations.chains``.

    Examples
    --------
    >>> from wcka.networks.populations import initialise
    >>> population = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[0, 1])
    >>> [chain.shape for chain in chains_of([population])]
    [torch.Size([4, 3]), torch.Size([4, 3])]
    """
    features: list[Tensor] = []
    for population in populations:
        features += chains(population, **options)
    return features
