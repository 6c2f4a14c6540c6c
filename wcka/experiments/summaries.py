"""Tables that summarise a grid of networks for chapters 3 to 6."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from ..measures.all_pairs import PAPER_MEASURES, compare
from ..networks.populations import Population, chains
from . import crossed
from .grid_inputs import drawn_rows, seen_by_networks, trunk_of
from .grid_members import FACTORS, grid_networks


def overview(members: pd.DataFrame) -> pd.DataFrame:
    """Summarise the last epoch by architecture and strategy.

    Parameters
    ----------
    members : DataFrame
        As from ``benchmark.grid``.

    Returns
    -------
    DataFrame
        One row per architecture and strategy: medians over seeds of the accuracy on
        clean images and under FGSM and PGD, where there are; the lowest clean accuracy;
        and how many networks have collapsed.

    Examples
    --------
    >>> members = pd.DataFrame({
    ...     "epoch": [1, 2, 2], "architecture": "1 × 4", "strategy": "standard",
    ...     "accuracy": [0.5, 0.75, 1.0], "collapsed": [True, False, False]})
    >>> overview(members).values.tolist()
    [[0.875, 0.75, 0.0]]
    """
    last = members[members.epoch == members.epoch.max()]
    cells = last.groupby(["architecture", "strategy"], sort=False)
    columns = ["accuracy"]
    for attack in ("under fgsm", "under pgd"):
        if attack in members:
            columns.append(attack)
    return cells[columns].median().assign(
        lowest=cells.accuracy.min(), collapsed=cells.collapsed.sum())


def learned_pairs(members: pd.DataFrame, pairs: pd.DataFrame,
                  least_accuracy: float) -> pd.DataFrame:
    """Return the pairs of which both networks have learned.

    Parameters
    ----------
    members, pairs : DataFrame
        As from ``benchmark.grid``.
    least_accuracy : float
        Clean accuracy from which a network that has not collapsed counts as having
        learned.

    Examples
    --------
    >>> members = pd.DataFrame({
    ...     "model": ["A", "B", "C"], "accuracy": [0.9, 0.8, 1.0],
    ...     "collapsed": [False, False, True]})
    >>> pairs = pd.DataFrame({"a": ["A", "A", "B"], "b": ["B", "C", "C"]})
    >>> learned_pairs(members, pairs, 0.8).values.tolist()
    [['A', 'B']]
    """
    has_learned = (members.accuracy >= least_accuracy) & ~members.collapsed
    models = members.model[has_learned]
    return pairs[pairs.a.isin(models) & pairs.b.isin(models)]


def named(table: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """Return a table of pairs with the names of their networks, not their positions.

    Examples
    --------
    >>> members = pd.DataFrame({"model": ["A", "B"]})
    >>> named(pd.DataFrame({"a": [0], "b": [1]}), members).values.tolist()
    [['A', 'B']]
    """
    names = members.model.to_numpy()
    return table.assign(a=names[table.a], b=names[table.b])


def with_columns_of(table: pd.DataFrame, members: pd.DataFrame,
                    pairs: pd.DataFrame) -> pd.DataFrame:
    """Return pairs with the columns of another table of the same grid.

    Parameters
    ----------
    table : DataFrame
        Under "a" and "b" positions of networks among the members, and columns that
        `pairs` does not have.
    members, pairs : DataFrame
        As from ``benchmark.grid``.

    Examples
    --------
    >>> members = pd.DataFrame({"model": ["A", "B"]})
    >>> pairs = pd.DataFrame({"a": ["A", "A"], "b": ["B", "B"], "probe": ["x", "y"]})
    >>> table = pd.DataFrame({"a": [0], "b": [1], "expected": [0.5]})
    >>> with_columns_of(table, members, pairs).values.tolist()
    [['A', 'B', 'x', 0.5], ['A', 'B', 'y', 0.5]]
    """
    pairs = pairs.astype({"a": str, "b": str})
    return pairs.merge(named(table, members), on=["a", "b"], how="left", validate="m:1")


def mean_correlations(
    members: pd.DataFrame | None, pairs: pd.DataFrame, columns: Sequence[str],
) -> tuple[dict[str, crossed.Estimate], dict[str, crossed.Estimate]]:
    """Return mean correlations of similarities with agreement, over the factors.

    Errors are over starts, with architectures for strata, and over probes.

    Parameters
    ----------
    members, pairs : DataFrame
        As from ``benchmark.grid``. Without members errors are over starts without
        strata, for example over trunks.
    columns : sequence of str
        Of `pairs`, with "wcka" among them.

    Returns
    -------
    r : dict of str to Estimate
        Mean of Pearson's r, by column.
    leads : dict of str to Estimate
        How far that of each other column is above wCKA's.

    Examples
    --------
    >>> a, b = np.triu_indices(6, 1)
    >>> starts = np.array(list("ABCDEF"))
    >>> agreement = (a - b) ** 2.0
    >>> pairs = pd.DataFrame({
    ...     "start a": starts[a], "start b": starts[b], "probe": "clean",
    ...     "differs": "seed", "agreement": agreement, "cka": agreement + a,
    ...     "wcka": a * b})
    >>> members = pd.DataFrame({"start": starts, "architecture": "1 × 4"})
    >>> r, leads = mean_correlations(members, pairs, ["wcka", "cka"])
    >>> list(r), list(leads), leads["cka"].value > 0
    (['wcka', 'cka'], ['cka'], True)
    """
    strata = None
    if members is not None:
        strata = dict(zip(members.start, members.architecture))
    design = crossed.Design(
        pairs["start a"], pairs["start b"], pairs["probe"], strata)
    r, behind = crossed.mean_correlations(
        design, pairs["differs"], pairs.agreement, pairs[list(columns)], "wcka")
    leads = {}
    for column, lead in behind.items():
        leads[column] = lead._replace(value=-lead.value)
    return r, leads


def start_counts(pairs: pd.DataFrame) -> dict[str, int]:
    """Return how many starts pairs come from, for each factor that networks differ in.

    Parameters
    ----------
    pairs : DataFrame
        As from ``benchmark.grid``.

    Examples
    --------
    >>> pairs = pd.DataFrame({"differs": ["seed", "seed"], "start a": ["A", "A"],
    ...                       "start b": ["B", "C"]})
    >>> start_counts(pairs)
    {'epoch': 0, 'seed': 3, 'architecture': 0, 'strategy': 0}
    """
    counts = {}
    for factor in FACTORS:
        of_factor = pairs[pairs.differs == factor]
        starts = of_factor[["start a", "start b"]].to_numpy().ravel()
        counts[factor] = len(pd.unique(starts))
    return counts


def strategy_table(members: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Summarise the pairs of different strategy, by the two strategies.

    Parameters
    ----------
    members, table : DataFrame
        As from ``benchmark.grid``.

    Returns
    -------
    DataFrame
        One row per pair of strategies: mean similarity by each measure, and mean
        agreement on each kind of probe.

    Examples
    --------
    >>> members = pd.DataFrame({"model": ["x", "y"], "strategy": ["standard", "fgsm"]})
    >>> table = pd.DataFrame({
    ...     "differs": ["strategy"], "a": ["x"], "b": ["y"], "kind": ["clean"],
    ...     "agreement": [0.5], "procrustes": [0.1], "cka": [0.2], "dcka": [0.3],
    ...     "wcka": [0.4]})
    >>> strategy_table(members, table).loc["standard and fgsm"].tolist()
    [0.1, 0.2, 0.3, 0.4, 0.5]
    """
    strategy = members.set_index("model").strategy
    rows = table[table.differs == "strategy"]
    strategies = (rows.a.map(strategy).astype(str) + " and "
                  + rows.b.map(strategy).astype(str))
    rows = rows.assign(strategies=strategies)
    agreements = rows.pivot_table(
        index="strategies", columns="kind", values="agreement", sort=False)
    means = rows.groupby("strategies", sort=False)[list(PAPER_MEASURES)].mean()
    return means.join(agreements.add_prefix("agreement, ")).rename_axis(None)


def by_layer(models: Sequence[dict], hidden: Sequence[int], strategies: Sequence[str],
             epoch: int, probing: dict) -> dict[str, dict[str, np.ndarray]]:
    """Return the similarity of every layer with every layer, by CKA and by wCKA.

    Parameters
    ----------
    models, epoch, probing
        As in ``benchmark.all_pairs``.
    hidden : sequence of int
        Widths of the architecture's hidden layers.
    strategies : pair of str
        Two that this architecture was trained by.

    Returns
    -------
    dict of dict of ndarray
        Under "cka" (activations on clean images) and "wcka" (chains up to each layer)
        one table (layers, layers) per seed or ordered pair of seeds: within one
        network, between seeds (both of the first population), and between strategies
        (rows are layers of the first population).

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "images": 50}
    >>> maps = by_layer([model], [4], ("standard", "standard"), 0, probing)
    >>> maps["wcka"]["within a network"].shape
    (2, 2, 2)
    """
    pools = [_pool(models, hidden, strategy, epoch) for strategy in strategies]
    inputs = seen_by_networks(trunk_of(models), "clean", probing)
    x = drawn_rows(inputs, probing["images"], probing)
    seeds, depth = len(pools[0]), pools[0].depth
    different = ~np.eye(seeds, dtype=bool)
    maps = {}
    for measure in ("cka", "wcka"):
        features: list[Tensor] = []
        for pool in pools:
            features += _features_by_layer(pool, measure, x)
        table = compare(measure, features)
        # Axes: strategy, seed and layer of the one network, then of the other.
        table = table.reshape(2, seeds, depth, 2, seeds, depth)
        first = table[0, :, :, 0]  # (seeds, layers, seeds, layers)
        across = table[0, :, :, 1]
        maps[measure] = {
            "within a network": _of_same_seed(first),
            "between seeds": first.swapaxes(1, 2)[different],
            "between strategies": _of_same_seed(across)}
    return maps


def _pool(models: Sequence[dict], hidden: Sequence[int], strategy: str,
          epoch: int) -> Population:
    """The networks of one architecture and strategy at one epoch."""
    populations, _ = grid_networks(models)
    for model, population in zip(models, populations):
        widths = model["architecture"]["widths"][1:-1]
        if model["strategy"] == strategy and widths == list(hidden):
            return population[(population.members.epoch == epoch).to_numpy()]
    raise ValueError(
        f"no network of hidden widths {list(hidden)} trained by {strategy}"
    )


def _features_by_layer(pool: Population, measure: str, x: Tensor) -> list[Tensor]:
    """Return the features of all layers, network by network."""
    layers = []
    for layer in range(1, pool.depth + 1):
        if measure == "wcka":
            layers.append(chains(pool, layer=layer))
        else:
            layers.append(pool.activations(x, layer))  # (networks, n, units)
    features = []
    for i in range(len(pool)):
        features += [layer[i] for layer in layers]
    return features


def _of_same_seed(table: np.ndarray) -> np.ndarray:
    """(seeds, layers, layers) of a table (seeds, layers, seeds, layers)."""
    return np.moveaxis(table.diagonal(axis1=0, axis2=2), -1, 0)
