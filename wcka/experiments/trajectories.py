"""Similarities along the training of networks (paper, section 3.1)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..measures.all_pairs import compare
from ..measures.deconfounding import Confounder
from ..networks.populations import Population, chains
from .cache import cached
from .calibration import drawn_inputs
from .training_runs import trained


@cached
def consecutive_similarities(
    trajectories: dict, followed: Sequence[int], epochs: Sequence[int], probe_name: str,
    samples: int | None, draw: int, layer: int, measures: Sequence[str], dataset: str,
    classes: Sequence[int], seed: int = 0,
) -> pd.DataFrame:
    """Return similarities of networks with themselves one epoch before.

    Parameters
    ----------
    trajectories : dict
        Arguments of ``trained``, with checkpoints at consecutive epochs.
    followed : sequence of int
        Seeds of the networks to compare, of those that are trained.
    epochs : sequence of int
        Checkpoints to compare, in increasing order. Only those that follow each other
        by one make a pair.
    probe_name : str
        One of ``PROBES``.
    samples, draw
        Number of probe images, the same ones as of ``ensemble_similarities``; None for
        all.
    layer : int
        The layer whose activations are compared, 1 to the network's depth.
    measures : sequence of str
        Of ``PAPER_MEASURES`` and ``NO_PSD``; wCKA does not look at the probes.
    dataset, classes
        As in ``image_sets.load``.
    seed : int
        Seed of the corruption and of the draw of samples.

    Returns
    -------
    DataFrame
        Columns probe, samples, draw, measure, run (the network's seed), epoch (of the
        later one of the pair), similarity.

    Raises
    ------
    ValueError
        If no two epochs follow each other by one.

    Examples
    --------
    >>> trajectories = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...                 "seeds": [0, 1], "dataset": "mnist", "classes": [0, 1],
    ...                 "epochs": 2, "checkpoints": [0, 1, 2], "batch_size": 4096}
    >>> table = consecutive_similarities(trajectories, [0, 1], [0, 1, 2], "clean", 50,
    ...                                  0, 1, ["cka"], "mnist", [0, 1])
    >>> table[["run", "epoch"]].values.tolist()
    [[0, 1], [0, 2], [1, 1], [1, 2]]
    """
    inputs = drawn_inputs(dataset, classes, probe_name, samples, draw, seed)
    confounder = Confounder(inputs)
    population = trained(**trajectories)
    tables = []
    for run in followed:
        members = _checkpoints(population, run, epochs)
        later = np.flatnonzero(np.diff(members.members.epoch) == 1) + 1
        if not len(later):
            raise ValueError(f"epochs: wanted two that follow each other, got {epochs}")
        pairs = (later - 1, later)
        activations = members.activations(inputs, layer)  # (epochs, n, units)
        for measure in measures:
            features = chains(members) if measure.startswith("wcka") else activations
            tables.append(pd.DataFrame({
                "probe": probe_name,
                "samples": len(inputs),
                "draw": draw,
                "measure": measure,
                "run": run,
                "epoch": members.members.epoch.to_numpy()[later],
                "similarity": compare(measure, features, pairs, confounder),
            }))
    return pd.concat(tables, ignore_index=True)


def _checkpoints(population: Population, run: int, epochs: Sequence[int]) -> Population:
    """Return the checkpoints of one network, in the order of their epochs."""
    members = population.members
    is_chosen = (members.seed == run) & members.epoch.isin(epochs)
    positions = np.flatnonzero(is_chosen)
    return population[positions[np.argsort(members.epoch.to_numpy()[positions])]]
