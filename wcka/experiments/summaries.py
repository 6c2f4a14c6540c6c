"""Tables that summarise a grid of networks for chapters 3 and 4."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..measures.all_pairs import PAPER_MEASURES, compare
from ..networks.populations import chains
from .grid_inputs import drawn_rows, seen_by_networks, trunk_of
from .grid_networks import grid_networks


def overview(members: pd.DataFrame) -> pd.DataFrame:
    """Of the last epoch, by architecture and strategy: medians over seeds, lowest, collapsed.

    `members` as from ``grid``; accuracies on clean images and under FGSM and PGD, where there are.
    """
    last = members[members.epoch == members.epoch.max()]
    cells = last.groupby(["architecture", "strategy"], sort=False)
    shown = ["accuracy", *(c for c in ("under fgsm", "under pgd") if c in members)]
    return cells[shown].median().assign(lowest=cells.accuracy.min(),
                                        collapsed=cells.collapsed.sum())


def strategy_table(members: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Mean similarity and agreement (by kind of probe) of pairs of different strategy, by which."""
    strategy = members.set_index("model").strategy
    rows = table[table.differs == "strategy"]
    which = rows.a.map(strategy).astype(str) + " and " + rows.b.map(strategy).astype(str)
    rows = rows.assign(which=which)
    agreements = rows.pivot_table(index="which", columns="kind", values="agreement", sort=False)
    means = rows.groupby("which", sort=False)[list(PAPER_MEASURES)].mean()
    return means.join(agreements.add_prefix("agreement, ")).rename_axis(None)


def by_layer(models: Sequence[dict], hidden: Sequence[int], strategies: Sequence[str], epoch: int,
             probing: dict) -> dict[str, dict[str, np.ndarray]]:
    """Similarity of every layer with every layer, at one epoch, by CKA and by wCKA.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the architecture's hidden layers.
    strategies : pair of str
        Two that this architecture was trained by.
    models, epoch, probing
        As in ``all_pairs``.

    Returns
    -------
    dict of dict of ndarray
        Under "cka" (activations on clean images) and "wcka" (chains up to each layer) one table
        (layers, layers) a seed or an ordered pair of seeds: within one network, between seeds (both
        of the first population), and between strategies (rows are layers of the first population).
    """
    populations, _ = grid_networks(models)
    pools = [p[(p.members.epoch == epoch).to_numpy()] for wanted in strategies
             for m, p in zip(models, populations)
             if m["strategy"] == wanted and m["architecture"]["widths"][1:-1] == list(hidden)]
    x = drawn_rows(seen_by_networks(trunk_of(models), "clean", probing), probing["images"], probing)
    seeds, depth = len(pools[0]), pools[0].depth
    off, maps = ~np.eye(seeds, dtype=bool), {}
    for measure in ("cka", "wcka"):
        features = [[chains(pool, layer=k) if measure == "wcka" else pool.activations(x, k)
                     for k in range(1, depth + 1)] for pool in pools]
        flat = [layer[i] for layers in features for i in range(seeds) for layer in layers]
        s = compare(measure, flat).reshape(2, seeds, depth, 2, seeds, depth)
        maps[measure] = {
            "within a network": np.moveaxis(s[0, :, :, 0].diagonal(axis1=0, axis2=2), -1, 0),
            "between seeds": s[0, :, :, 0].swapaxes(1, 2)[off],
            "between strategies": np.moveaxis(s[0, :, :, 1].diagonal(axis1=0, axis2=2), -1, 0)}
    return maps
