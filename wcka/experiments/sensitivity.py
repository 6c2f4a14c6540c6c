"""The functional benchmark with one choice changed at a time."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from ..measures.all_pairs import ACTIVATION_MEASURES, NO_PSD, PAPER_MEASURES, UNCENTRED
from ..measures.inner_products import nuclear_norms, represented
from ..networks.attacks import BY_GRADIENT
from . import crossed
from .benchmark import (
    agreement_on,
    chain_similarities,
    grid,
    similarity_on,
    under_attack,
)
from .cache import cached
from .grid_inputs import LAYERS, drawn_rows, seen_by_networks, trunk_of
from .grid_members import grid_networks, pair_positions
from .jobs import run_jobs
from .statistics import demeaned, r_by_factor
from .summaries import learned_pairs, named, with_columns_of

_AS_THEY_ARE = dict(zip(PAPER_MEASURES, PAPER_MEASURES))
# Distances of Procrustes that depend on the scale: whether activations are centred
_PRINTED = {"not scaled": True, "as printed": False}
# Variants of wCKA by what they change, which is also how their columns end.
_VARIANTS_OF_WCKA = ("through the trunk", "uncentred", "with biases", "rows normalised",
                     "mean of layers")


def variants(
    models: Sequence[dict], members: pd.DataFrame, table: pd.DataFrame, layer: str,
    samples: int, probing: dict, learned: float,
    strata: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each measure's correlation with agreement, one choice changed at a time.

    Parameters
    ----------
    models, layer, samples, probing
        As given to ``benchmark.grid``.
    members, table
        As it returned them, with the rows of all networks.
    learned : float
        Clean accuracy from which a network counts as having learned. Only such networks
        are in, but for the choices that say so.

    Returns
    -------
    r : DataFrame
        Pearson's r: one row per choice and measure that it changes, one column per
        factor; NaN where no pair is left.
    leads : DataFrame
        wCKA's lead over the strongest of the other measures: one row per choice and
        factor, columns rival, value, low and high (an interval over starts and probes).

    Examples
    --------
    >>> from wcka.experiments.benchmark import grid
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1, 2], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "images": 50}
    >>> members, table = grid([model], ["clean"], "logits", 50, probing, jobs=1)
    >>> r, leads = variants([model], members, table, "logits", 50, probing, learned=0.0)
    >>> r.loc["as above"].index.tolist()
    ['procrustes', 'cka', 'dcka', 'wcka']
    """
    wide = _with_similarities(models, members, table, layer, samples, probing)
    has_learned = ~_either(
        wide, members.set_index("model").accuracy < learned) & ~wide.collapsed
    choices = {
        **_choices_of_rows(members, wide, has_learned),
        **_choices_of_columns(wide[has_learned], layer, f"{samples} images")}
    return _tables(choices, strata)


def open_choices(
    models: Sequence[dict], members: pd.DataFrame, rows: pd.DataFrame, layer: str,
    samples: int, probing: dict, strengths: Sequence[float],
    strata: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each measure's correlation where the paper leaves a choice open.

    As ``variants``, for choices that need other probes or other similarities of the
    same networks: each architecture left out; corruptions and noise of another seed;
    attacks of other strengths; Procrustes by distances that depend on the scale.

    Parameters
    ----------
    models, layer, samples, probing
        As given to ``benchmark.grid``; under "attacked" how many images are attacked
        anew.
    members : DataFrame
        As it returned them.
    rows : DataFrame
        Those of its table that count.
    strengths : sequence of float
        Of the attacks that agreement is counted under, one choice for each.
    strata : mapping of str to str, optional
        As in ``crossed.Design``.

    Returns
    -------
    r, leads : DataFrame
        As ``variants`` returns them.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1, 2], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "images": 50}
    >>> members, rows = grid(
    ...     [model], ["clean", "shear"], "logits", 50, probing, jobs=1)
    >>> r, _ = open_choices([model], members, rows, "logits", 50, probing, [])
    >>> r.index.unique(0).tolist()
    ['as above', 'corruptions and noise drawn anew', 'Procrustes, not scaled', ...]
    """
    rows = rows.astype({"a": str, "b": str})
    choices = {
        "as above": (rows, _AS_THEY_ARE),
        **_without_architectures(members, rows),
        "corruptions and noise drawn anew": (
            _drawn_anew(models, members, rows, probing), _AS_THEY_ARE),
    }
    for eps in strengths:
        other = {**probing, "eps": eps}
        choices[f"attacks at eps {eps:.2g}, {probing['attacked']} images"] = (
            _attacked_anew(models, members, rows, layer, other), _AS_THEY_ARE)
    distances = printed_procrustes(models, layer, samples, probing)
    with_distances = with_columns_of(distances, members, rows)
    for column in _PRINTED:
        choices[f"Procrustes, {column}"] = with_distances, {"procrustes": column}
    return _tables(choices, strata)


def other_trainings(
    models: Sequence[dict], changes: Mapping[str, dict], probes: Sequence[str],
    layer: str, samples: int, probing: dict, learned: float,
    strata: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each measure's correlation for networks that were trained otherwise.

    Parameters
    ----------
    models, probes, layer, samples, probing
        As given to ``benchmark.grid``.
    changes : mapping of str to dict
        By the name of a choice, the arguments of ``trained`` that it changes.
    learned : float
        Clean accuracy from which a network counts. Only pairs of such networks do.
    strata : mapping of str to str, optional
        As in ``crossed.Design``.

    Returns
    -------
    r, leads : DataFrame
        As ``variants`` returns them; the first choice, "as above", changes nothing.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1, 2], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "images": 50}
    >>> r, _ = other_trainings([model], {"larger batches": {"batch_size": 64}},
    ...                        ["clean", "shear"], "logits", 50, probing, learned=0.0)
    >>> r.index.unique(0).tolist()
    ['as above', 'larger batches']
    """
    choices = {}
    for choice, change in {"as above": {}, **changes}.items():
        changed_models = [{**model, **change} for model in models]
        members, table = grid(changed_models, probes, layer, samples, probing)
        choices[choice] = learned_pairs(members, table, learned), _AS_THEY_ARE
    return _tables(choices, strata)


@cached
def printed_procrustes(
    models: Sequence[dict], layer: str, samples: int | None, probing: dict
) -> pd.DataFrame:
    """Return minus the Procrustes distance of the pairs of a grid, as it is printed.

    The distance of the paper's section 2.1.1 is that of activations as they are, not
    divided by their norm.

    Parameters
    ----------
    models, layer, probing
        As in ``benchmark.grid``.
    samples : int or None
        Number of clean images, drawn at random; None for all.

    Returns
    -------
    DataFrame
        Columns a, b (as in ``chain_similarities``), and minus the distance, of centred
        activations under "not scaled", else under "as printed".

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0}
    >>> list(printed_procrustes([model], "logits", 50, probing))
    ['a', 'b', 'not scaled', 'as printed']
    """
    populations, members = grid_networks(models)
    a, b = pair_positions(members)
    x = drawn_rows(
        seen_by_networks(trunk_of(models), "clean", probing), samples, probing)
    activations: dict[str, Tensor] = {}  # by the position of the network
    for population in populations:
        for values in population.activations(x, LAYERS[layer](population)):
            activations[str(len(activations))] = values
    columns = {}
    for column, centred in _PRINTED.items():
        representations = represented(
            activations, centred, scales=[1.0] * len(activations))
        products, squares = nuclear_norms(representations, (a, b))
        columns[column] = 2 * products - squares[a] - squares[b]
    return pd.DataFrame({"a": a, "b": b, **columns})


def _tables(
    choices: Mapping[str, tuple], strata: Mapping[str, str] | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return correlations and wCKA's leads by choice.

    A choice is rows, columns by measure and, if it is not "agreement", the column that
    they are correlated with. Columns that are not there leave the choice out.
    """
    tables = {}
    leads = {}
    for choice, (rows, columns, *target) in choices.items():
        if set(columns.values()) <= set(rows):  # others have no trunk, or another one
            tables[choice] = r_by_factor(rows, columns, *target)
            leads[choice] = _leads(
                rows, {**_AS_THEY_ARE, **columns}, strata, *target)
    return pd.concat(tables), pd.concat(leads)


def _without_architectures(
    members: pd.DataFrame, rows: pd.DataFrame
) -> dict[str, tuple]:
    """Rows and columns with each architecture left out, if two others are left."""
    architectures = members.architecture.unique()
    if len(architectures) < 3:
        return {}
    by_model = members.set_index("model").architecture
    choices = {}
    for architecture in architectures:
        has_it = _either(rows, by_model == architecture)
        choices[f"without {architecture}"] = rows[~has_it], _AS_THEY_ARE
    return choices


def _drawn_anew(
    models: Sequence[dict], members: pd.DataFrame, rows: pd.DataFrame, probing: dict,
) -> pd.DataFrame:
    """The rows with the agreement on corruptions and noise of another seed."""
    other = {**probing, "seed": probing["seed"] + 1}
    jobs = []
    for probe in rows["probe"].unique():
        if probe not in ("clean", *BY_GRADIENT):
            jobs.append({"models": models, "probe_name": probe, "probing": other})
    return _with_agreement(rows, members, run_jobs(
        agreement_on, jobs, description="corruptions anew"))


def _attacked_anew(
    models: Sequence[dict], members: pd.DataFrame, rows: pd.DataFrame, layer: str,
    probing: dict,
) -> pd.DataFrame:
    """The rows with the agreement under these attacks."""
    jobs = []
    for probe in rows["probe"].unique():
        if probe in BY_GRADIENT:
            jobs.append({
                "models": models, "attack": probe, "layer": layer,
                "samples": probing["attacked"], "measures": [], "probing": probing})
    return _with_agreement(rows, members, run_jobs(
        under_attack, jobs, description="attacks anew"))


def _with_agreement(
    rows: pd.DataFrame, members: pd.DataFrame, changed: pd.DataFrame
) -> pd.DataFrame:
    """The rows, with the changed agreement of those pairs and probes that have one."""
    if changed.empty:
        return rows
    key = ["a", "b", "probe"]
    rows = rows.merge(
        named(changed, members)[[*key, "agreement"]], on=key, how="left",
        suffixes=("", ", changed"))
    agreement = rows["agreement, changed"].fillna(rows.agreement)
    return rows.assign(agreement=agreement)


def _leads(
    rows: pd.DataFrame, columns: dict[str, str], strata: Mapping[str, str] | None,
    target: str = "agreement",
) -> pd.DataFrame:
    """Return wCKA's lead over the strongest other measure, one row per factor."""
    names = list(dict.fromkeys([target, *columns.values()]))
    leads = {}
    for factor, part in rows.groupby("differs", sort=False):
        part = part.dropna(subset=names)
        if pd.unique(part[["start a", "start b"]].to_numpy().ravel()).size < 3:
            continue
        similarities = pd.DataFrame(
            {measure: part[column] for measure, column in columns.items()})
        design = crossed.Design(
            part["start a"], part["start b"], part["probe"], strata)
        _, estimates = crossed.correlations(
            design, part[target], similarities, "wcka")
        rival = min(estimates, key=lambda measure: estimates[measure].value)
        lead = estimates[rival]
        leads[factor] = {
            "rival": rival, "value": lead.value, "low": lead.low, "high": lead.high}
    return pd.DataFrame(leads, index=["rival", "value", "low", "high"]).T


def _choices_of_rows(members: pd.DataFrame, wide: pd.DataFrame,
                     has_learned: np.ndarray) -> dict[str, tuple]:
    """Rows and columns of the choices that change which pairs count, or how."""
    by_model = members.set_index("model")
    early = _either(wide, by_model.epoch < members.epoch.max())
    rows = wide[has_learned]
    columns = [*PAPER_MEASURES, "agreement"]
    by_probe = ["differs", "probe"]
    return {
        "as above": (rows, _AS_THEY_ARE),
        "all that have not collapsed": (wide[~wide.collapsed], _AS_THEY_ARE),
        "collapsed networks too": (wide, _AS_THEY_ARE),
        "last epoch only": (wide[has_learned & ~early], _AS_THEY_ARE),
        "each probe's mean taken away": (
            demeaned(rows, columns, by_probe),
            _AS_THEY_ARE,
        ),
        "each kind of pair's mean taken away": (
            demeaned(rows, columns, [*by_probe, "kind of pair"]),
            _AS_THEY_ARE,
        ),
        "each under its own attack": (rows, _AS_THEY_ARE, "agreement, own attack"),
    }


def _choices_of_columns(rows: pd.DataFrame, layer: str, few: str) -> dict[str, tuple]:
    """Rows and columns of the choices that change what is measured; `few` images."""
    on_probe = _columns("{}, on the probe")
    choices: dict[str, tuple] = {
        f"on the probe, {few}": (rows, on_probe),
        f"on the probe, {few}, each under its own attack": (
            rows, on_probe, "agreement, own attack"),
        f"clean, {few}": (rows, _columns("{} @ clean")),
    }
    for name in LAYERS:
        if name != layer:
            choices[f"{name}, {few}"] = rows, _columns(f"{{}} @ {name}")
    uncentred = dict(zip(ACTIVATION_MEASURES, UNCENTRED[:2]))
    choices[f"no PSD step, {few}"] = rows, {"dcka": NO_PSD}
    choices[f"uncentred, {few}"] = rows, uncentred
    choices[f"trunk's features taken away, {few}"] = rows, {"dcka": "dcka, features"}
    for variant in _VARIANTS_OF_WCKA:
        choices[variant] = rows, {"wcka": f"wcka, {variant}"}
    return choices


def _columns(form: str) -> dict[str, str]:
    """Names of the activation measures' columns, by measure."""
    return {measure: form.format(measure) for measure in ACTIVATION_MEASURES}


def _either(wide: pd.DataFrame, flags: pd.Series) -> np.ndarray:
    """Whether a flag is set for at least one of a pair's two networks."""
    return (wide.a.map(flags).astype(bool) | wide.b.map(flags).astype(bool)).to_numpy()


def _with_similarities(models: Sequence[dict], members: pd.DataFrame,
                       table: pd.DataFrame, layer: str, samples: int,
                       probing: dict) -> pd.DataFrame:
    """The table with one more column for each similarity that a variant needs."""
    similarities = _similarities(models, layer, samples, probing)
    wide = with_columns_of(similarities, members, table)

    # What the measures give for a few clean images stands with every probe of a pair.
    on_probe = list(_columns("{}, on the probe").values())
    clean = wide[wide["probe"] == "clean"].set_index(["a", "b"])[on_probe]
    clean.columns = list(_columns("{} @ clean").values())
    by_model = members.set_index("model")
    kinds = by_model.architecture + by_model.strategy + by_model.epoch.astype(str)
    kind_of_pair = wide.a.map(kinds) + wide.b.map(kinds)
    return wide.join(clean, on=["a", "b"]).assign(**{"kind of pair": kind_of_pair})


def _similarities(models: Sequence[dict], layer: str, samples: int,
                  probing: dict) -> pd.DataFrame:
    """Return the similarity of all pairs by each variant: columns a, b, variants."""
    common = {"models": models, "probe_name": "clean", "samples": samples,
              "probing": probing}
    # Options of a job, and the columns of its measures in the table.
    variants_of_options: list[tuple[dict, dict]] = []
    for name in LAYERS:
        if name != layer:
            variants_of_options.append(({"layer": name}, _columns(f"{{}} @ {name}")))
    special = (NO_PSD, *UNCENTRED[:2])
    variants_of_options.append(({"layer": layer}, dict(zip(special, special))))
    if models[0].get("trunk"):
        variants_of_options.append((
            {"layer": layer, "deconfounded": "features"}, {"dcka": "dcka, features"}))
    jobs = []
    for options, columns in variants_of_options:
        jobs.append({**common, **options, "measures": list(columns)})
    results = run_jobs(similarity_on, jobs, description="variants")

    similarities = chain_similarities(models).drop(columns=["differs", "wcka"])
    count = len(similarities)
    for i, (_, columns) in enumerate(variants_of_options):
        part = results.iloc[i * count:(i + 1) * count]
        for measure, column in columns.items():
            similarities[column] = part[measure].to_numpy()
    return similarities
