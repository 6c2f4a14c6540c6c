"""Units of work over models, probes and measures, each cached on disk; one tidy table of pairs."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from . import corruptions, data
from .cache import cached
from .chain import chains
from .population import Population, initialise
from .similarity import Confounder, pairwise
from .training import trained

PROBES = ("clean", *corruptions.CORRUPTIONS)
MEASURES = ("procrustes", "cka", "dcka", "wcka")  # in the order of the paper's figures
NO_PSD = "dcka, no PSD step"  # the variant that keeps negative eigenvalues

# What the names in a table mean: a measure and its arguments.
_VARIANTS = {**{m: (m, {}) for m in MEASURES}, NO_PSD: ("dcka", {"psd": False})}

# Consecutive pairs are computed block by block, so that far-apart pairs cost little.
_BLOCK = 10


def run(unit: Callable[..., pd.DataFrame], arguments: Iterable[dict], jobs: int = -1,
        description: str = "units") -> pd.DataFrame:
    """Compute units of work on several processes and stack their tables in the order given.

    Each unit is a function cached on disk, so a run that was killed goes on where it was.

    Parameters
    ----------
    unit : function
        A ``cached`` function that returns a table.
    arguments : iterable of dict
        Keyword arguments of each unit.
    jobs : int
        Number of processes; -1 for one a core, 1 to stay in this one.
    description : str
        What the progress bar says.
    """
    arguments = list(arguments)
    tables = joblib.Parallel(n_jobs=jobs, return_as="generator", batch_size=1)(
        joblib.delayed(unit)(**each) for each in arguments)
    shown = tqdm(tables, total=len(arguments), desc=description, leave=False)
    return pd.concat(list(shown), ignore_index=True)


@lru_cache(maxsize=2)
def probe(dataset: str, classes: tuple[int, ...], name: str, seed: int = 0) -> np.ndarray:
    """Test images of a data set, clean or under one corruption: uint8 (n, 28, 28)."""
    images, _ = data.load(dataset, "test", classes)
    return images if name == "clean" else corruptions.corrupt(images, name, seed)


@cached
def calibration(ensembles: dict[str, dict], probe_name: str, samples: int | None, draw: int,
                layer: int, measures: Sequence[str], dataset: str, classes: Sequence[int],
                seed: int = 0) -> pd.DataFrame:
    """Similarities within ensembles whose similarity is known beforehand (paper, section 3.1).

    Parameters
    ----------
    ensembles : dict of str to dict
        Under a name of your choice the arguments of ``initialise``, for all pairs of untrained
        networks, or of ``trained`` and the epochs "compared", for one network's consecutive
        checkpoints.
    probe_name : str
        One of ``PROBES``.
    samples, draw
        Number of probe images, drawn at random and differently for each `draw`; None for all.
    layer : int
        The layer whose activations are compared, 1 to the network's depth.
    measures : sequence of str
        Of ``MEASURES``, and ``NO_PSD``; wCKA does not look at the probes.
    dataset, classes
        As in ``data.load``.
    seed : int
        Seed of the corruption and of the draw of samples.

    Returns
    -------
    DataFrame
        Columns ensemble, probe, samples, draw, measure, a, b (positions in the ensemble),
        similarity.
    """
    images = probe(dataset, tuple(classes), probe_name, seed)
    if samples is not None:
        images = images[np.random.default_rng([seed, draw]).permutation(len(images))[:samples]]
    inputs = data.inputs(images)
    confounder = Confounder(inputs)
    tables = []
    for ensemble, models in ensembles.items():
        population, pairs = _ensemble(**models)
        activations = population.activations(inputs, layer)
        for measure in measures:
            name, kw = _VARIANTS[measure]
            if name == "dcka":
                kw = {**kw, "inputs": confounder}
            a, b, values = pairs(name, chains(population) if name == "wcka" else activations, kw)
            tables.append(pd.DataFrame({
                "ensemble": ensemble, "probe": probe_name, "samples": len(images), "draw": draw,
                "measure": measure, "a": a, "b": b, "similarity": values}))
    return pd.concat(tables, ignore_index=True)


def _ensemble(compared: Sequence[int] | None = None, **models) -> tuple[Population, Callable]:
    """Population of an ensemble and the function that makes its pairs."""
    if compared is None:
        return initialise(**models), _all_pairs
    population = trained(**models)
    return population[population.members.epoch.isin(compared).to_numpy()], _consecutive_pairs


def _all_pairs(measure: str, features, kw: dict) -> tuple:
    a, b = np.triu_indices(len(features), 1)
    return a, b, pairwise(measure, features, **kw)[a, b]


def _consecutive_pairs(measure: str, features, kw: dict) -> tuple:
    last = len(features) - 1
    values = [np.diag(pairwise(measure, features[i:i + _BLOCK + 1], **kw), 1)
              for i in range(0, last, _BLOCK)]
    return np.arange(last), np.arange(1, last + 1), np.concatenate(values)
