"""Grids of heads behind several trunks, and numbers that speak for other trunks.

Heads on one trunk share it, so nothing that is found behind one speaks for others. Here
one grid of heads is trained behind each of several trunks. Pairs are of heads on one
trunk, and the tables of all trunks are stacked.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from .benchmark import grid
from .cache import Cached
from .crossed import Estimate
from .jobs import run_jobs
from .summaries import named
from .training_runs import pretrained

# From so many trunks on, errors leave out whole trunks: crossed.Design wants as many.
LEAST_TRUNKS = 3


# ------------------------------------------------------------------------------- grids


def _pretrain(trunk: dict) -> pd.DataFrame:
    return pretrained(**trunk).members


# A job like those that are cached themselves: the network that it trains is.
_pretrained = cast(Cached, _pretrain)
_pretrained.kept = lambda trunk: pretrained.kept(**trunk)


def pretrain(
    trunks: Sequence[dict], jobs: int = -1, scheduler: str = ""
) -> pd.DataFrame:
    """Train several networks whose first layers become trunks, side by side.

    Parameters
    ----------
    trunks : sequence of dict
        Arguments of ``pretrained``, one for each network.
    jobs, scheduler
        As in ``jobs.run_jobs``.

    Returns
    -------
    DataFrame
        One row per network: seed and epoch, the best one. ``attrs["seconds"]``: what
        training took on one process.

    Examples
    --------
    >>> trunk = {"architecture": {"factory": "mlp", "widths": [784, 2, 10]}, "seed": 0,
    ...          "dataset": "mnist", "epochs": 1, "patience": 1, "validation": 100,
    ...          "images": 1000}
    >>> pretrain([trunk], jobs=1).epoch.tolist()
    [1]
    """
    units = [{"trunk": trunk} for trunk in trunks]
    return run_jobs(_pretrained, units, jobs, "trunks", scheduler)


def grid_of_trunks(
    models_of_trunks: Mapping[str, Sequence[dict]], probes: Sequence[str], layer: str,
    samples: int, probing: dict, jobs: int = -1, scheduler: str = "",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a grid of heads behind each trunk, and compare pairs on one trunk.

    Parameters
    ----------
    models_of_trunks : mapping of str to sequence of dict
        By the name of a trunk the models of ``benchmark.grid``. Heads of different
        trunks have different seeds.
    probes, layer, samples, probing, jobs, scheduler
        As in ``benchmark.grid``.

    Returns
    -------
    members, table : DataFrame
        As from ``benchmark.grid``, with a column trunk. Names of models and of starts
        begin with the name of the trunk. From three trunks on "start a" and "start b"
        are the pair's trunk, so that errors leave out whole trunks; of fewer trunks
        they are the heads' starts. ``attrs["seconds"]`` of the table is the sum over
        trunks.

    Raises
    ------
    ValueError
        If heads of two trunks have a seed in common: they would begin with equal
        weights.

    Examples
    --------
    >>> architecture = {"factory": "convnet", "channels": [2], "hidden": [4]}
    >>> trunk = {"architecture": architecture, "seed": 0, "dataset": "mnist",
    ...          "epochs": 1, "patience": 1, "validation": 100, "images": 200}
    >>> head = {"architecture": {"factory": "mlp", "widths": [288, 4, 2]},
    ...         "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...         "classes": [0, 1], "epochs": 0, "trunk": trunk}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "images": 50}
    >>> members, table = grid_of_trunks(
    ...     {"trunk 1": [head]}, ["clean"], "logits", 50, probing, jobs=1)
    >>> members.start.tolist()
    ['trunk 1, 1 × 4, seed 0', 'trunk 1, 1 × 4, seed 1']
    """
    _check_seeds(models_of_trunks)
    runs_are_trunks = len(models_of_trunks) >= LEAST_TRUNKS
    members_of_trunks = []
    tables = []
    seconds: dict[str, float] = {}
    for trunk, models in models_of_trunks.items():
        members, table = grid(
            models, probes, layer, samples, probing, jobs, scheduler)
        for name, value in table.attrs["seconds"].items():
            seconds[name] = seconds.get(name, 0.0) + value
        members_of_trunks.append(_with_prefix(
            members, ["model", "start"], trunk))
        table = _with_prefix(table, ["a", "b", "start a", "start b"], trunk)
        if runs_are_trunks:
            table = table.assign(**{"start a": trunk, "start b": trunk})
        table.attrs.clear()  # pandas compares them when it stacks tables
        tables.append(table)
    stacked = pd.concat(tables, ignore_index=True)
    stacked.attrs["seconds"] = seconds
    return pd.concat(members_of_trunks, ignore_index=True), stacked


def pairs_on_trunks(
    unit: Cached, models_of_trunks: Mapping[str, Sequence[dict]],
    members: pd.DataFrame, jobs: int = -1, scheduler: str = "", **settings: Any,
) -> pd.DataFrame:
    """Return the table of a grid's pairs behind each trunk, stacked.

    Parameters
    ----------
    unit : function
        A ``cache.cached`` function of models. It returns a table whose columns "a" and
        "b" are positions of networks, as ``benchmark.chain_similarities`` does.
    models_of_trunks : mapping of str to sequence of dict
        As in ``grid_of_trunks``.
    members : DataFrame
        As from ``grid_of_trunks``.
    jobs, scheduler
        As in ``jobs.run_jobs``.
    **settings
        Other arguments of `unit`.

    Returns
    -------
    DataFrame
        Under "a" and "b" the names of the networks, as in `members`.

    Examples
    --------
    >>> from wcka.experiments.cache import cached
    >>> @cached
    ... def first_pair(models):
    ...     return pd.DataFrame({"a": [0], "b": [1], "heads": [len(models)]})
    >>> members = pd.DataFrame({"model": ["x", "y"], "trunk": "trunk 1"})
    >>> pairs_on_trunks(first_pair, {"trunk 1": []}, members, 1).values.tolist()
    [['x', 'y', 0]]
    """
    options_of_trunks = [
        {"models": models, **settings} for models in models_of_trunks.values()]
    run_jobs(unit, options_of_trunks, jobs, "trunks", scheduler)
    tables = []
    for trunk, options in zip(models_of_trunks, options_of_trunks):
        # run_jobs has computed this table, which is read from disk.
        tables.append(named(unit(**options), members[members.trunk == trunk]))
    return pd.concat(tables, ignore_index=True)


def _check_seeds(models_of_trunks: Mapping[str, Sequence[dict]]) -> None:
    """Refuse heads of two trunks that have a seed in common."""
    trunk_of_seed: dict[int, str] = {}
    for trunk, models in models_of_trunks.items():
        seeds: set[int] = set()
        for model in models:
            seeds.update(model["seeds"])
        for seed in sorted(seeds):
            if seed in trunk_of_seed:
                raise ValueError(
                    f"seeds: heads of {trunk_of_seed[seed]} and of {trunk} both have "
                    f"{seed}, and would begin with equal weights")
            trunk_of_seed[seed] = trunk


def _with_prefix(
    table: pd.DataFrame, columns: Sequence[str], trunk: str
) -> pd.DataFrame:
    """Return the table with a column trunk, and with its name before other names."""
    prefixed = {}
    for column in columns:
        prefixed[column] = trunk + ", " + table[column].astype(str)
    return table.assign(**prefixed, trunk=trunk)


# ------------------------------------------------------------------- what can be found


def spread_of_agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Return how much agreement varies between pairs, by probe.

    A probe on which all pairs agree equally often says nothing about measures. The
    spread looks at agreement alone, and not at similarity.

    Parameters
    ----------
    table : DataFrame
        Columns differs, trunk, probe and agreement, as from ``grid_of_trunks``.

    Returns
    -------
    DataFrame
        One row per probe, in the order of the table; one column per factor, with the
        standard deviation among pairs on one trunk that differ in that factor (root
        mean square over trunks), and "all factors", the root mean square of these.

    Examples
    --------
    >>> table = pd.DataFrame({
    ...     "differs": "seed", "trunk": "trunk 1", "probe": ["clean"] * 3 + ["fog"] * 3,
    ...     "agreement": [0.9, 0.9, 0.9, 0.6, 0.7, 0.8]})
    >>> spread_of_agreement(table).round(3).to_dict()["seed"]
    {'clean': 0.0, 'fog': 0.1}
    """
    variances = table.groupby(["trunk", "probe", "differs"], sort=False).agreement.var()
    of_factors = variances.groupby(["probe", "differs"], sort=False).mean().unstack()
    of_factors = of_factors.reindex(
        index=table["probe"].unique(), columns=table.differs.unique())
    spread = np.sqrt(of_factors.assign(**{"all factors": of_factors.mean(axis=1)}))
    return spread.rename_axis(index=None, columns=None)


# --------------------------------------------------------------------------- estimates


def share_interval(share: Estimate) -> tuple[float, float]:
    """Return the 95 % interval of a mean that lies in [0, 1], which stays in there.

    It is symmetric on the scale of log odds, and carried back.

    Parameters
    ----------
    share : Estimate
        Such as a mean similarity or a mean agreement.

    Examples
    --------
    >>> low, high = share_interval(Estimate(0.97, 0.03, 8))
    >>> round(low, 3), round(high, 3)
    (0.75, 0.997)
    """
    inside = share.value * (1 - share.value)
    if share.error == 0 or inside <= 0:
        return share.value, share.value
    on_scale = Estimate(
        float(logit(share.value)), share.error / inside, share.df)
    return float(expit(on_scale.low)), float(expit(on_scale.high))


def r_of_z(z: Estimate) -> Estimate:
    """Return a correlation with its error, from Fisher's z with its error.

    For the interval of r itself carry back that of z, which stays in [-1, 1]; this is
    for differences of correlations.

    Examples
    --------
    >>> r_of_z(Estimate(0.0, 0.1, 8))
    Estimate(value=0.0, error=0.1, df=8)
    """
    r = np.tanh(z.value)
    return Estimate(float(r), float((1 - r**2) * z.error), z.df)


def independent_difference(first: Estimate, second: Estimate) -> Estimate:
    """Return the difference of two independent estimates.

    Its degrees of freedom are the smaller ones of the two, which is conservative.

    Examples
    --------
    >>> independent_difference(Estimate(0.5, 0.3, 8), Estimate(0.2, 0.4, 4))
    Estimate(value=0.3, error=0.5, df=4)
    """
    return Estimate(
        first.value - second.value, float(np.hypot(first.error, second.error)),
        min(first.df, second.df))
