"""Ensembles of networks whose similarity is known beforehand (paper, section 3.1)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from ..measures.all_pairs import compare
from ..measures.deconfounding import Confounder
from ..networks import image_sets
from ..networks.populations import Population, chains, initialise
from ..networks.probes import probe_images
from .cache import cached
from .training_runs import trained


@cached
def ensemble_similarities(ensembles: dict[str, dict], probe_name: str,
                          samples: int | None, draw: int, layer: int,
                          measures: Sequence[str], dataset: str, classes: Sequence[int],
                          seed: int = 0) -> pd.DataFrame:
    """Return similarities within ensembles of known similarity (paper, section 3.1).

    Parameters
    ----------
    ensembles : dict of str to dict
        Under a name of your choice the arguments of ``initialise``, for all pairs of
        untrained networks, or of ``trained`` and the epochs "compared": several for one
        network's consecutive checkpoints, one for all pairs of networks at that epoch.
    probe_name : str
        One of ``PROBES``.
    samples, draw
        Number of probe images, drawn at random and differently for each `draw`; None
        for all.
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
        Columns ensemble, probe, samples, draw, measure, a, b (positions in the
        ensemble), similarity.

    Examples
    --------
    >>> untrained = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...              "seeds": [0, 1, 2]}
    >>> table = ensemble_similarities({"untrained": untrained}, "clean", 50, 0, 1,
    ...                               ["cka"], "mnist", [0, 1])
    >>> table[["ensemble", "measure", "a", "b"]].values.tolist()[0]
    ['untrained', 'cka', 0, 1]
    """
    inputs = drawn_inputs(dataset, classes, probe_name, samples, draw, seed)
    confounder = Confounder(inputs)
    tables = []
    for ensemble, models in ensembles.items():
        population, pairs = _ensemble(**models)
        activations = population.activations(inputs, layer)  # (networks, n, units)
        a, b = np.triu_indices(len(population), 1) if pairs is None else pairs
        for measure in measures:
            features = chains(population) if measure.startswith("wcka") else activations
            values = compare(measure, features, pairs, confounder)
            if pairs is None:
                values = values[a, b]
            tables.append(
                pd.DataFrame(
                    {
                        "ensemble": ensemble,
                        "probe": probe_name,
                        "samples": len(inputs),
                        "draw": draw,
                        "measure": measure,
                        "a": a,
                        "b": b,
                        "similarity": values,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def drawn_inputs(
    dataset: str, classes: Sequence[int], probe_name: str, samples: int | None,
    draw: int, seed: int,
) -> Tensor:
    """Return some images of a probe as inputs (samples, pixels).

    Parameters are those of ``ensemble_similarities``.

    Examples
    --------
    >>> drawn_inputs("mnist", [0, 1], "clean", samples=50, draw=0, seed=0).shape
    torch.Size([50, 784])
    """
    images = probe_images(dataset, tuple(classes), probe_name, seed)
    if samples is not None:
        order = np.random.default_rng([seed, draw]).permutation(len(images))
        images = images[order[:samples]]
    return image_sets.as_inputs(images)


def _ensemble(
    compared: Sequence[int] | None = None, **models
) -> tuple[Population, tuple | None]:
    """Population of an ensemble and the pairs to compare, None for all."""
    if compared is None:
        return initialise(**models), None
    population = trained(**models)
    population = population[population.members.epoch.isin(compared).to_numpy()]
    if len(compared) == 1:
        return population, None
    return population, (np.arange(len(population) - 1), np.arange(1, len(population)))
