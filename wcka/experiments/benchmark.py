"""The functional benchmark: one tidy table of pairs from networks and probes."""

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..measures.all_pairs import ACTIVATION_MEASURES, PAPER_MEASURES, compare
from ..measures.deconfounding import Confounder
from ..measures.predictions import collapsed, pairwise_agreement
from ..measures.spelling import nearest
from ..networks.attacks import BY_GRADIENT
from ..networks.populations import Population
from ..networks.probes import kind_of_probe
from ..weights.chains import chain
from .cache import Cached, cached
from .grid_inputs import (
    LAYERS,
    attacked_images,
    attacked_together,
    clean_inputs,
    drawn_rows,
    inputs_against,
    seen_by_networks,
    trunk_of,
)
from .grid_members import (
    FACTORS,
    architecture_name,
    at_epoch,
    chains_of,
    grid_networks,
    pair_positions,
    pairs_by_factor,
    predictions_of,
)
from .jobs import run_jobs
from .training_runs import features, frozen, trained

__all__ = [
    "FACTORS",
    "LAYERS",
    "agreement_on",
    "all_pairs",
    "architecture_name",
    "attacked_images",
    "chain_similarities",
    "check_grid",
    "grid",
    "grid_networks",
    "pairs_by_factor",
    "similarity_on",
    "under_attack",
]


def check_grid(strategies: Sequence[str], layer: str, checkpoints: Sequence[int],
               epochs: int) -> None:
    """Refuse what no grid can be built from, before any work starts.

    Raises
    ------
    ValueError
        For an unknown strategy or layer, or checkpoints outside 1 to `epochs`.

    Examples
    --------
    >>> check_grid(["standard"], "last hidden", [1, 20], epochs=10)
    Traceback (most recent call last):
    ValueError: checkpoints: wanted epochs from 1 to 10, got [1, 20]
    """
    for strategy in strategies:
        nearest(strategy, ("standard", *BY_GRADIENT), "strategy")
    nearest(layer, LAYERS, "layer")
    if not 1 <= min(checkpoints) <= max(checkpoints) <= epochs:
        raise ValueError(
            f"checkpoints: wanted epochs from 1 to {epochs}, got {checkpoints}")


def grid(models: Sequence[dict], probes: Sequence[str], layer: str, samples: int,
         probing: dict, jobs: int = -1,
         scheduler: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a grid of networks, and compare the pairs that differ in one factor.

    All pairs are compared on each probe.

    An attacked probe belongs to a pair: the clean images changed by the gradients of
    the one network, and the same changed by those of the other. Agreement is the mean
    over both halves, so no network is favoured and the order does not matter.

    Parameters
    ----------
    models : sequence of dict
        Arguments of ``trained``, one for each architecture and strategy; each trains
        all seeds. All have the same trunk, or none.
    probes : sequence of str
        Of ``probes.PROBES`` and ``probes.ATTACKS``.
    layer : str
        Of ``LAYERS``: whose activations are compared.
    samples : int
        Number of images for the columns "on the probe".
    probing : dict
        "dataset", "classes" and "seed", as in ``probes.probe_inputs``; "eps" and
        "steps" of the attacks; "noise", the standard deviation of Gaussian noise;
        "images", how many clean images the activation measures see, and "attacked", how
        many are attacked, drawn at random (None for all of them).
    jobs, scheduler
        As in ``jobs.run_jobs``.

    Returns
    -------
    members : DataFrame
        One row per network: model (its name), architecture, strategy, seed, epoch,
        accuracy, collapsed (``predictions.collapsed`` on clean images), start
        (architecture and seed), and under "under ATTACK" its accuracy on the images
        made against itself.
    table : DataFrame
        One row per pair and probe: differs (of ``FACTORS``), a and b (names of models),
        probe, agreement, the measures (of activations: on clean images), and under
        "MEASURE, on the probe" their values on some images of that probe. There, under
        an attack, each network sees the images made against itself, and "agreement, own
        attack" is counted on such. Two baselines: "accuracy gap" (minus the difference
        of clean accuracies) and "clean agreement". Further kind (of probe), "start a"
        and "start b", and collapsed (at least one of the two is). ``attrs["seconds"]``:
        what training, probes and attacks took on one process.

    Raises
    ------
    ValueError
        For models with different trunks.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "images": 50}
    >>> members, table = grid([model], ["clean"], "logits", 50, probing, jobs=1)
    >>> table[["differs", "probe"]].values.tolist()
    [['seed', 'clean']]
    """
    models = list(models)
    trunk = trunk_of(models)
    for model in models:
        if model.get("trunk") != trunk:
            raise ValueError("models: wanted one trunk for all, or none")
    if trunk:  # once, with all cores, before processes part
        features(trunk, "train", models[0]["dataset"], models[0]["classes"])
    spread = partial(run_jobs, jobs=jobs, scheduler=scheduler)

    longest_first = sorted(models, key=_cost)
    fits = spread(_fitted, [{"model": model} for model in longest_first],
                  description="training")

    common = {"models": models, "probing": probing}
    activations = {**common, "layer": layer, "measures": list(ACTIVATION_MEASURES)}
    agreement_jobs = []
    # The activation measures first see the clean images, as many as the chapter wants.
    similarity_jobs = [
        {**activations, "probe_name": "clean", "samples": probing["images"]}]
    attack_jobs: list[dict] = []
    for probe in probes:
        if probe in BY_GRADIENT:
            # In reverse, which puts those of many steps first.
            attack_jobs.insert(0, {**activations, "attack": probe, "samples": samples})
        else:
            agreement_jobs.append({**common, "probe_name": probe})
            similarity_jobs.append(
                {**activations, "probe_name": probe, "samples": samples})
    agreements = spread(agreement_on, agreement_jobs, description="agreement")
    similarities = spread(similarity_on, similarity_jobs, description="probes")
    attacks = spread(under_attack, attack_jobs, description="attacks")

    members = _members(**common)
    chain_table = chain_similarities(models)
    clean = similarities[:len(chain_table)]
    on_shared_probes = agreements.merge(
        similarities[len(chain_table):], on=["a", "b", "probe"], validate="1:1")
    on_probes = pd.concat([on_shared_probes, attacks]).set_index("probe")
    on_probes = on_probes.loc[list(probes)].reset_index()
    table = _collected(members, chain_table, clean, on_probes)
    table.attrs = {"seconds": {
        "training": fits.attrs["seconds"],
        "attacks": attacks.attrs["seconds"],
        "probes": agreements.attrs["seconds"] + similarities.attrs["seconds"]}}
    return _with_robustness(members, attacks), table


def _cost(model: dict) -> int:
    """Order of training: the longest first, so that no process waits for another."""
    return {"standard": 0, "pgd": -2}.get(model["strategy"], -1)


def _fit(model: dict) -> pd.DataFrame:
    return trained(**model).members


# A job like those that are cached themselves: the population that it trains is.
_fitted = cast(Cached, _fit)
_fitted.kept = lambda model: trained.kept(**model)


def _equal_shares(x: Tensor, y: Tensor) -> np.ndarray:
    """Share of equal labels along the last axis."""
    return (x == y).double().mean(-1).numpy()


@cached
def _members(models: Sequence[dict], probing: dict) -> pd.DataFrame:
    populations, members = grid_networks(models)
    x = seen_by_networks(trunk_of(models), "clean", probing)
    predictions = predictions_of(populations, x)  # (networks, images)
    starts, names = [], []
    for member in members.itertuples():
        starts.append(f"{member.architecture}, seed {member.seed}")
        names.append(f"{member.architecture}, {member.strategy}, seed {member.seed}, "
                     f"epoch {member.epoch}")
    return members[["architecture", "strategy", "seed", "epoch"]].assign(
        model=names, accuracy=_equal_shares(predictions, clean_inputs(probing)[1]),
        collapsed=collapsed(predictions), start=starts)


@cached
def chain_similarities(models: Sequence[dict]) -> pd.DataFrame:
    """Return wCKA of the pairs of a grid, and variants of it.

    Parameters
    ----------
    models : sequence of dict
        As in ``grid``.

    Returns
    -------
    DataFrame
        Columns differs, a, b (rows of the table of ``grid_networks``), wcka, and "wcka,
        VARIANT": uncentred (equation 5 as printed); with biases; of networks behind a
        trunk, through the trunk (inputs x outputs); of fully connected ones, rows
        normalised (Wang et al. 2022) and mean of layers (of the chains up to each; NaN
        for networks of different depth).

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> list(chain_similarities([model]))[:4]
    ['differs', 'a', 'b', 'wcka']
    """
    populations, members = grid_networks(models)
    positions = pair_positions(members)
    trunk = trunk_of(models)
    chains = chains_of(populations)
    columns = {
        "wcka": compare("wcka", chains, positions),
        "wcka, uncentred": compare("wcka, uncentred", chains, positions),
        "wcka, with biases": compare(
            "wcka", chains_of(populations, bias=True), positions)}
    if trunk:
        through = chain(frozen(trunk), (28, 28))  # (pixels, features)
        columns["wcka, through the trunk"] = compare(
            "wcka", [through @ head for head in chains], positions)
    if {model["architecture"]["factory"] for model in models} == {"mlp"}:
        normalised = [_rows_normalised(population) for population in populations]
        columns["wcka, rows normalised"] = compare(
            "wcka", chains_of(normalised), positions)
        columns["wcka, mean of layers"] = _mean_of_layers(
            populations, members, *positions)
    return pairs_by_factor(members).assign(**columns)


def _rows_normalised(population: Population) -> Population:
    """Networks whose weight matrices (in, out) have rows of unit norm."""
    state = {}
    for name, values in population.state.items():
        if name.endswith("weight"):  # stored transposed, (networks, out, in)
            values = values / values.norm(dim=1, keepdim=True)
        state[name] = values
    return Population(population.architecture, state, population.members)


def _mean_of_layers(populations: list[Population], members: pd.DataFrame, a: np.ndarray,
                    b: np.ndarray) -> np.ndarray:
    """Mean over layers of the wCKA of the chains up to each; NaN for unequal depths."""
    depth_of_group = np.array([population.depth for population in populations])
    depth = depth_of_group[members.group]
    same_depth = depth[a] == depth[b]
    total = np.zeros(len(a))
    for layer in range(1, depth.max() + 1):
        chains: list[Tensor] = []
        for population in populations:
            chains += chains_of([population], layer=min(layer, population.depth))
        rows = np.flatnonzero(same_depth & (layer <= depth[a]))
        if rows.size:
            total[rows] += compare("wcka", chains, (a[rows], b[rows]))
    return np.where(same_depth, total / depth[a], np.nan)


@cached
def agreement_on(
    models: Sequence[dict], probe_name: str, probing: dict
) -> pd.DataFrame:
    """Return the agreement of the pairs of a grid on all images of a shared probe.

    Parameters
    ----------
    models, probing
        As in ``grid``.
    probe_name : str
        A probe that all networks share.

    Returns
    -------
    DataFrame
        Columns a, b (as in ``chain_similarities``), probe, agreement.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0}
    >>> list(agreement_on([model], "clean", probing))
    ['a', 'b', 'probe', 'agreement']
    """
    populations, members = grid_networks(models)
    a, b = pair_positions(members)
    x = seen_by_networks(trunk_of(models), probe_name, probing)
    predictions = predictions_of(populations, x)  # (networks, images)
    return pd.DataFrame({
        "a": a, "b": b, "probe": probe_name,
        "agreement": _equal_shares(predictions[a], predictions[b])})


@cached
def similarity_on(models: Sequence[dict], probe_name: str, layer: str,
                  samples: int | None, measures: Sequence[str], probing: dict,
                  deconfounded: str = "images") -> pd.DataFrame:
    """Return the similarity of activations of the pairs of a grid on a shared probe.

    Parameters
    ----------
    models, probe_name, layer, probing
        As in ``grid``.
    samples : int or None
        Number of images that the measures take, drawn at random; None for all.
    measures : sequence of str
        Of ``ACTIVATION_MEASURES``, ``NO_PSD`` and ``UNCENTRED``.
    deconfounded : {"images", "features"}
        What dCKA takes the influence of away: that of the images, or of what the
        networks' own layers get, the features of a trunk.

    Returns
    -------
    DataFrame
        Columns a, b (as in ``chain_similarities``), probe, layer, and the measures.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0}
    >>> list(similarity_on([model], "clean", "logits", 50, ["cka"], probing))
    ['a', 'b', 'probe', 'layer', 'cka']
    """
    populations, members = grid_networks(models)
    pairs = pair_positions(members)
    x = drawn_rows(
        seen_by_networks(trunk_of(models), probe_name, probing), samples, probing)
    activations = _activations_of(populations, x, layer)
    if deconfounded == "images":
        x = drawn_rows(seen_by_networks(None, probe_name, probing), samples, probing)
    columns = {"a": pairs[0], "b": pairs[1], "probe": probe_name, "layer": layer}
    values = _similarities(measures, activations, pairs, Confounder(x))
    return pd.DataFrame({**columns, **values})


def _activations_of(populations: Sequence[Population], x: Tensor,
                    layer: str) -> list[Tensor]:
    """Activations (n, units) of one layer of every network."""
    activations: list[Tensor] = []
    for population in populations:
        activations += population.activations(x, LAYERS[layer](population))
    return activations


def _similarities(measures: Sequence[str], activations: list[Tensor], pairs: tuple,
                  confounder: Confounder) -> dict[str, np.ndarray]:
    """Similarities of pairs of activations by the names of the measures."""
    values = {}
    for measure in measures:
        values[measure] = compare(measure, activations, pairs, confounder)
    return values


@cached
def under_attack(models: Sequence[dict], attack: str, layer: str, samples: int,
                 measures: Sequence[str], probing: dict) -> pd.DataFrame:
    """Return agreement and similarity of pairs on images made against them.

    Parameters
    ----------
    models, layer, measures, probing
        As in ``similarity_on``.
    attack : str
        Of ``attacks.BY_GRADIENT``.
    samples : int
        Number of the attacked images that the measures take.

    Returns
    -------
    DataFrame
        Columns a, b (as in ``chain_similarities``), probe, agreement (mean of those on
        the images made against the one and the other), "agreement, own attack" and the
        measures (each network on the images made against itself), "accuracy a" and
        "accuracy b" (each there).

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "attacked": 20,
    ...            "eps": 0.1, "steps": 1}
    >>> table = under_attack([model], "fgsm", "logits", 20, ["cka"], probing)
    >>> table.probe.tolist()
    ['fgsm']
    """
    populations, members = grid_networks(models)
    a, b = pair_positions(members)
    x, labels = attacked_images(probing)
    # directed[i, j]: agreement of i and j on the images made against i
    directed = np.full((len(members), len(members)), np.nan)
    predictions: list[Tensor] = []
    activations: list[Tensor] = []
    for networks in attacked_together(models, populations):
        adversarial = inputs_against(models, networks, attack, x, labels, probing)
        with torch.no_grad():
            guesses = networks.forward(adversarial, per_model=True).argmax(-1)
            activations += networks.forward(
                adversarial[:, :samples], LAYERS[layer](networks), per_model=True)
        for images, guess in zip(adversarial, guesses):
            target = len(predictions)  # position of the network that was attacked
            partners = np.concatenate([b[a == target], a[b == target]])
            directed[target, partners] = _agreement_with(
                partners, members, populations, images, guess)
            predictions.append(guess)
    guesses = torch.stack(predictions)  # (networks, images)
    accuracy = _equal_shares(guesses, labels)
    values = _similarities(measures, activations, (a, b), Confounder(x[:samples]))
    return pd.DataFrame({
        "a": a, "b": b, "probe": attack,
        "agreement": (directed[a, b] + directed[b, a]) / 2,
        "agreement, own attack": _equal_shares(guesses[a], guesses[b]), **values,
        "accuracy a": accuracy[a], "accuracy b": accuracy[b]})


def _agreement_with(partners: np.ndarray, members: pd.DataFrame,
                    populations: list[Population], images: Tensor,
                    guess: Tensor) -> np.ndarray:
    """Agreement of some networks with one network's predictions on its own images."""
    group_of = members.group.to_numpy()
    first = members.group.searchsorted(np.arange(len(populations)))
    agreements = np.full(len(partners), np.nan)
    for group in np.unique(group_of[partners]):
        chosen = group_of[partners] == group
        rows = partners[chosen] - first[group]
        agreements[chosen] = _equal_shares(
            populations[group][rows].predict(images), guess
        )
    return agreements


@cached
def all_pairs(models: Sequence[dict], epoch: int, probes: Sequence[str], layer: str,
              probing: dict) -> pd.DataFrame:
    """Return all pairs of a grid's networks at one epoch.

    Parameters
    ----------
    models, probes, layer, probing
        As in ``grid``.
    epoch : int
        A checkpoint that all networks have.

    Returns
    -------
    DataFrame
        Columns a, b (as in ``chain_similarities``), agreement (mean over those of
        `probes` that all networks share: no attacks by gradients), and
        ``PAPER_MEASURES`` on clean images.

    Examples
    --------
    >>> model = {"architecture": {"factory": "mlp", "widths": [784, 4, 2]},
    ...          "strategy": "standard", "seeds": [0, 1, 2], "dataset": "mnist",
    ...          "classes": [0, 1], "epochs": 0}
    >>> probing = {"dataset": "mnist", "classes": [0, 1], "seed": 0, "images": 50}
    >>> len(all_pairs([model], 0, ["clean"], "logits", probing))
    3
    """
    populations, members = grid_networks(models)
    populations = at_epoch(populations, epoch)
    trunk = trunk_of(models)
    rows = np.flatnonzero(members.epoch == epoch)
    a, b = np.triu_indices(len(rows), 1)

    x = drawn_rows(
        seen_by_networks(trunk, "clean", probing), probing["images"], probing
    )
    activations = _activations_of(populations, x, layer)
    images = drawn_rows(clean_inputs(probing)[0], probing["images"], probing)
    confounder = Confounder(images)
    similarities = {}
    for measure in PAPER_MEASURES:
        compared = chains_of(populations) if measure == "wcka" else activations
        similarities[measure] = compare(measure, compared, None, confounder)[a, b]

    agreements = []
    for probe in probes:
        if probe not in BY_GRADIENT:
            inputs = seen_by_networks(trunk, probe, probing)
            agreements.append(pairwise_agreement(predictions_of(populations, inputs)))
    return pd.DataFrame({
        "a": rows[a], "b": rows[b], "agreement": np.mean(agreements, axis=0)[a, b],
        **similarities})


def _with_robustness(members: pd.DataFrame, attacks: pd.DataFrame) -> pd.DataFrame:
    """Add each network's accuracy on the images made against itself."""
    if attacks.empty:  # no probe is an attack
        return members
    sides = []
    for side in ("a", "b"):
        sides.append(attacks.set_index(["probe", side])[f"accuracy {side}"])
    accuracies = pd.concat(sides)
    # A network stands in many pairs, each time with the same accuracy.
    accuracies = accuracies[~accuracies.index.duplicated()].unstack("probe")
    return members.join(accuracies.add_prefix("under "))


def _collected(members: pd.DataFrame, chain_table: pd.DataFrame, clean: pd.DataFrame,
               on_probes: pd.DataFrame) -> pd.DataFrame:
    """One table of the jobs' tables, with the columns of ``grid``."""
    key, measures = ["a", "b"], list(ACTIVATION_MEASURES)
    on_probes = on_probes.rename(columns=lambda name: (
        f"{name}, on the probe" if name in measures else name))
    if "agreement, own attack" not in on_probes:
        on_probes["agreement, own attack"] = np.nan
    # On a probe that all networks share, the two ways to count agreement are one.
    on_probes = on_probes.fillna({"agreement, own attack": on_probes.agreement})
    table = chain_table[["differs", *key, "wcka"]].merge(
        clean[[*key, *measures]], on=key, validate="1:1")
    table = table.merge(on_probes, on=key, validate="1:m")

    positions = table[key].to_numpy()  # (rows, 2)
    accuracy = members.accuracy.to_numpy()[positions]
    table["accuracy gap"] = -np.abs(np.diff(accuracy).squeeze(1))
    on_clean = table.agreement.where(table["probe"] == "clean")
    table["clean agreement"] = on_clean.groupby([table.a, table.b]).transform("max")
    table["kind"] = table["probe"].map(kind_of_probe)
    table["start a"], table["start b"] = members.start.to_numpy()[positions].T
    table["collapsed"] = members.collapsed.to_numpy()[positions].any(1)
    for side in key:
        table[side] = pd.Categorical.from_codes(table[side], members.model)
    last_columns = [f"{measure}, on the probe" for measure in measures]
    return table[
        [
            "differs",
            *key,
            "probe",
            "kind",
            "agreement",
            *PAPER_MEASURES,
            *last_columns,
            "agreement, own attack",
            "accuracy gap",
            "clean agreement",
            "start a",
            "start b",
            "collapsed",
        ]
    ]
