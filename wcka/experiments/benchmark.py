"""The functional benchmark: a grid of networks and probes becomes one tidy table of pairs."""

from collections.abc import Callable, Iterator, Sequence
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
from ..networks.populations import Population, Transfer, chains
from ..networks.probes import kind_of_probe, labelled_images, probe_inputs
from ..weights.chains import chain
from .cache import Cached, cached, remembered
from .jobs import run_jobs
from .training_runs import features, frozen, trained

FACTORS = ("epoch", "seed", "architecture", "strategy")  # in the order of the paper's figures

# Networks, and images of each, attacked at once: more would not fit into the processor's caches,
# of which a convolutional trunk takes more for itself.
_ATTACKED = {False: (25, 128), True: (4, 16)}

# Layers by names that hold for every depth.
LAYERS: dict[str, Callable[[Population], int]] = {
    "first hidden": lambda population: 1,
    "last hidden": lambda population: population.depth - 1,
    "logits": lambda population: population.depth,
}


def check_grid(strategies: Sequence[str], layer: str, checkpoints: Sequence[int], epochs: int) -> None:
    """Refuse what no grid can be built from, before any work starts.

    Raises
    ------
    ValueError
        For an unknown strategy or layer, or checkpoints outside 1 to `epochs`.
    """
    for strategy in strategies:
        nearest(strategy, ("standard", *BY_GRADIENT), "strategy")
    nearest(layer, LAYERS, "layer")
    if not 1 <= min(checkpoints) <= max(checkpoints) <= epochs:
        raise ValueError(f"checkpoints: wanted epochs from 1 to {epochs}, got {checkpoints}")


def grid(models: Sequence[dict], probes: Sequence[str], layer: str, samples: int, probing: dict,
         jobs: int = -1, scheduler: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a grid of networks; compare all pairs that differ in one factor, on each probe.

    An attacked probe belongs to a pair: the clean images moved by the gradients of the one network,
    and the same moved by those of the other. Agreement is the mean over both halves, so no network
    is favoured and the order does not matter.

    Parameters
    ----------
    models : sequence of dict
        Arguments of ``trained``, one for each architecture and strategy; each trains all seeds. All
        have the same trunk, or none.
    probes : sequence of str
        Of ``probes.PROBES`` and ``probes.ATTACKS``.
    layer : str
        Of ``LAYERS``: whose activations are compared.
    samples : int
        Number of images for the columns "on the probe".
    probing : dict
        "dataset", "classes" and "seed", as in ``probes.probe_inputs``; "eps" and "steps" of the attacks;
        "noise", the standard deviation of Gaussian noise; "images", how many clean images the
        activation measures see, and "attacked", how many are attacked, drawn at random (None for
        all of them).
    jobs, scheduler
        As in ``units.run``.

    Returns
    -------
    members : DataFrame
        A row a model: model (its name), architecture, strategy, seed, epoch, accuracy, collapsed
        (``functional.collapsed`` on clean images), start (architecture and seed), and under
        "under ATTACK" its accuracy on the images made against itself.
    table : DataFrame
        A row a pair and probe: differs (of ``FACTORS``), a and b (names of models), probe,
        agreement, the measures (of activations: on clean images), and under "MEASURE, on the
        probe" their values on some images of that probe. There, under an attack, each network
        sees the images made against itself, and "agreement, own attack" is counted on such. Two
        baselines: "accuracy gap" (minus the difference of clean accuracies) and "clean agreement".
        Further kind (of probe), "start a" and "start b", and collapsed (one of the two is).
        ``attrs["seconds"]``: what training, probes and attacks took on one process.

    Raises
    ------
    ValueError
        For models with different trunks.
    """
    models, compared = list(models), list(ACTIVATION_MEASURES)
    trunk = trunk_of(models)
    if any(m.get("trunk") != trunk for m in models):
        raise ValueError("models: wanted one trunk for all, or none")
    if trunk:  # once, with all cores, before processes part
        features(trunk, "train", models[0]["dataset"], models[0]["classes"])
    spread = partial(run_jobs, jobs=jobs, scheduler=scheduler)
    fits = spread(_fitted, [{"model": m} for m in sorted(models, key=_cost)],
                  description="training")
    common = {"models": models, "probing": probing}
    shared = [p for p in probes if p not in BY_GRADIENT]
    agreed = spread(agreement_on, [{**common, "probe_name": p} for p in shared],
                    description="agreement")
    activations = {**common, "layer": layer, "measures": compared}
    seen = spread(similarity_on, [
        {**activations, "probe_name": "clean", "samples": probing["images"]},
        *({**activations, "probe_name": p, "samples": samples} for p in shared)],
        description="probes")
    aimed = spread(under_attack, [
        {**activations, "attack": p, "samples": samples}
        for p in reversed(probes) if p in BY_GRADIENT], description="attacks")  # the longest first
    members, of_weights = _members(**common), chain_similarities(models)
    clean, rest = seen[:len(of_weights)], seen[len(of_weights):]
    on_probes = pd.concat([agreed.merge(rest, on=["a", "b", "probe"], validate="1:1"), aimed])
    table = _collected(members, of_weights, clean,
                       on_probes.set_index("probe").loc[list(probes)].reset_index())
    table.attrs = {"seconds": {
        "training": fits.attrs["seconds"], "attacks": aimed.attrs["seconds"],
        "probes": agreed.attrs["seconds"] + seen.attrs["seconds"]}}
    return _with_robustness(members, aimed), table


def _cost(model: dict) -> int:
    """Order of training: the longest first, so that no process waits for another."""
    return {"standard": 0, "pgd": -2}.get(model["strategy"], -1)


def _fit(model: dict) -> pd.DataFrame:
    return trained(**model).members


_fitted = cast(Cached, _fit)
_fitted.kept = lambda model: trained.kept(**model)


@remembered(1)
def grid_networks(models: Sequence[dict]) -> tuple[list[Population], pd.DataFrame]:
    """Populations of a grid, and a table of all members (group: which population).

    Parameters and columns as in ``grid``.
    """
    called = {architecture_name(m["architecture"]): m["architecture"] for m in models}
    if clash := [m for m in models if called[architecture_name(m["architecture"])] != m["architecture"]]:
        same = clash[0]["architecture"]
        raise ValueError(f"two architectures are called {architecture_name(same)!r}: {same} and "
                         f"{called[architecture_name(same)]}; a table would take them for one")
    populations = [trained(**m) for m in models]
    return populations, pd.concat([
        p.members.assign(architecture=architecture_name(m["architecture"]), strategy=m["strategy"], group=i)
        for i, (m, p) in enumerate(zip(models, populations))], ignore_index=True)


def architecture_name(architecture: dict) -> str:
    """Short name: hidden layers times width, or widths; kind and channels of convolutions."""
    if "widths" in architecture:
        hidden = architecture["widths"][1:-1]
        return (f"{len(hidden)} × {hidden[0]}" if len(set(hidden)) == 1
                else "-".join(map(str, hidden)))
    if kind := {"convnet": "CNN", "resnet": "ResNet"}.get(architecture["factory"]):
        norm = " + BN" * architecture.get("batch_norm", False)
        return f"{kind}{norm} {'-'.join(map(str, architecture['channels']))}"
    return " ".join(map(str, architecture.values()))  # of a factory that is new here


def pairs_by_factor(members: pd.DataFrame) -> pd.DataFrame:
    """All pairs of models that differ in exactly one factor: differs, a, b (rows of `members`)."""
    numbered = members[list(FACTORS)].assign(row=np.arange(len(members)))
    tables = []
    for factor in FACTORS:
        both = numbered.merge(numbered, on=[f for f in FACTORS if f != factor])
        both = both[both.row_x < both.row_y]
        tables.append(pd.DataFrame({"differs": factor, "a": both.row_x, "b": both.row_y}))
    return pd.concat(tables, ignore_index=True)


def _listed(members: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    table = pairs_by_factor(members)
    return table.a.to_numpy(copy=True), table.b.to_numpy(copy=True)


def trunk_of(models: Sequence[dict]) -> dict | None:
    """What all of a grid's models stand on, as ``trained`` takes it."""
    return models[0].get("trunk")


def seen_by_networks(trunk: dict | None, probe_name: str, probing: dict) -> Tensor:
    """What the networks' own layers get of a shared probe: the images, or a trunk's features."""
    # Only what the probe depends on, so that nothing is kept twice under different names.
    of = {key: probing[key] for key in (
        "dataset", "classes", *["seed"] * (probe_name != "clean"),
        *["noise"] * (probe_name == "gaussian_noise"))}
    return features(trunk, probe_name, **of) if trunk else probe_inputs(probe_name, **of)


def _clean(probing: dict) -> tuple[Tensor, Tensor]:
    """Clean images as inputs, and their labels."""
    about = probing["dataset"], tuple(probing["classes"])
    return probe_inputs("clean", *about), torch.from_numpy(labelled_images(*about)[1])


def drawn_rows(x: Tensor, samples: int | None, probing: dict) -> Tensor:
    """Some rows, drawn at random, the same for all of one length; fewer are the first of more."""
    return x[np.random.default_rng(probing["seed"]).permutation(len(x))[:samples]]


def _same(x: Tensor, y: Tensor) -> np.ndarray:
    """Share of equal labels along the last axis."""
    return (x == y).double().mean(-1).numpy()


@cached
def _members(models: Sequence[dict], probing: dict) -> pd.DataFrame:
    populations, members = grid_networks(models)
    x = seen_by_networks(trunk_of(models), "clean", probing)
    predictions = torch.cat([p.predict(x) for p in populations])
    starts = [f"{m.architecture}, seed {m.seed}" for m in members.itertuples()]
    names = [f"{m.architecture}, {m.strategy}, seed {m.seed}, epoch {m.epoch}"
             for m in members.itertuples()]
    return members[["architecture", "strategy", "seed", "epoch"]].assign(
        model=names, accuracy=_same(predictions, _clean(probing)[1]),
        collapsed=collapsed(predictions), start=starts)


@cached
def chain_similarities(models: Sequence[dict]) -> pd.DataFrame:
    """wCKA of the pairs of a grid, and variants of it; `models` as in ``grid``.

    Returns
    -------
    DataFrame
        Columns differs, a, b (rows of the table of ``networks``), wcka, and "wcka, VARIANT":
        uncentred (equation 5 as printed); with biases; of networks behind a trunk, through the
        trunk (inputs x outputs); of fully connected ones, rows normalised (Wang et al. 2022) and
        mean of layers (of the chains up to each; NaN for networks of different depth).
    """
    populations, members = grid_networks(models)
    listed, trunk = _listed(members), trunk_of(models)

    def compared(features: Sequence[Tensor], measure: str = "wcka") -> np.ndarray:
        return compare(measure, features, listed)

    own = [c for p in populations for c in chains(p)]
    biased = [c for p in populations for c in chains(p, bias=True)]
    columns = {"wcka": compared(own), "wcka, uncentred": compared(own, "wcka, uncentred"),
               "wcka, with biases": compared(biased)}
    if trunk:
        through = chain(frozen(trunk), (28, 28))
        columns["wcka, through the trunk"] = compared([through @ c for c in own])
    if all(m["architecture"]["factory"] == "mlp" for m in models):
        columns["wcka, rows normalised"] = compared(
            [c for p in populations for c in chains(_normalised(p))])
        columns["wcka, mean of layers"] = _mean_of_layers(populations, members, *listed)
    return pairs_by_factor(members).assign(**columns)


def _normalised(population: Population) -> Population:
    """Rows of each weight matrix (in, out) of unit norm; stored are their transposes."""
    state = {name: w / w.norm(dim=1, keepdim=True) if name.endswith("weight") else w
             for name, w in population.state.items()}
    return Population(population.architecture, state, population.members)


def _mean_of_layers(populations: list[Population], members: pd.DataFrame, a, b) -> np.ndarray:
    depth = np.array([p.depth for p in populations])[members.group]
    same, total = depth[a] == depth[b], np.zeros(len(a))
    for layer in range(1, depth.max() + 1):
        cut = [c for p in populations for c in chains(p, layer=min(layer, p.depth))]
        rows = np.flatnonzero(same & (layer <= depth[a]))
        if rows.size:
            total[rows] += compare("wcka", cut, (a[rows], b[rows]))
    return np.where(same, total / depth[a], np.nan)


@cached
def agreement_on(models: Sequence[dict], probe_name: str, probing: dict) -> pd.DataFrame:
    """Agreement of the pairs of a grid on all images of a probe that all networks share.

    Parameters as in ``grid``; columns a, b (as ``weights``), probe, agreement.
    """
    populations, members = grid_networks(models)
    a, b = _listed(members)
    x = seen_by_networks(trunk_of(models), probe_name, probing)
    predictions = torch.cat([p.predict(x) for p in populations])
    return pd.DataFrame({"a": a, "b": b, "probe": probe_name,
                         "agreement": _same(predictions[a], predictions[b])})


@cached
def similarity_on(models: Sequence[dict], probe_name: str, layer: str, samples: int | None,
                  measures: Sequence[str], probing: dict,
                  deconfounded: str = "images") -> pd.DataFrame:
    """Similarity of activations of the pairs of a grid on a probe that all networks share.

    Parameters
    ----------
    samples : int or None
        Number of images that the measures take, drawn at random; None for all.
    measures : sequence of str
        Of ``similarity.ACTIVATION_MEASURES``, ``NO_PSD`` and ``UNCENTRED``.
    deconfounded : {"images", "features"}
        What dCKA takes the influence of away: that of the images, or of what the networks' own
        layers get, the features of a trunk.
    models, probe_name, layer, probing
        As in ``grid``.

    Returns
    -------
    DataFrame
        Columns a, b (as ``weights``), probe, layer, and the measures.
    """
    populations, members = grid_networks(models)
    a, b = _listed(members)
    x = drawn_rows(seen_by_networks(trunk_of(models), probe_name, probing), samples, probing)
    activations = [f for p in populations for f in p.activations(x, LAYERS[layer](p))]
    if deconfounded == "images":
        x = drawn_rows(seen_by_networks(None, probe_name, probing), samples, probing)
    confounder = Confounder(x)
    return pd.DataFrame({"a": a, "b": b, "probe": probe_name, "layer": layer,
                         **{m: compare(m, activations, (a, b), confounder) for m in measures}})


@cached
def under_attack(models: Sequence[dict], attack: str, layer: str, samples: int,
                 measures: Sequence[str], probing: dict) -> pd.DataFrame:
    """Agreement and similarity of the pairs of a grid on images made against its networks.

    Parameters
    ----------
    attack : str
        Of ``attacks.BY_GRADIENT``.
    samples : int
        Number of the attacked images that the measures take.
    models, layer, measures, probing
        As in ``similarity_on``.

    Returns
    -------
    DataFrame
        Columns a, b (as ``weights``), probe, agreement (mean of those on the images made against
        the one and the other), "agreement, own attack" and the measures (each network on the images
        made against itself), "accuracy a", "accuracy b" (each there).
    """
    populations, members = grid_networks(models)
    a, b = _listed(members)
    x, labels = attacked_images(probing)
    first = members.group.searchsorted(np.arange(len(populations)))
    directed = np.full((len(members), len(members)), np.nan)
    guesses: list[Tensor] = []
    activations: list[Tensor] = []
    for some in _slices(models, populations):
        made = _against(models, some, attack, x, labels, probing)
        with torch.no_grad():
            own = some.forward(made, per_model=True).argmax(-1)
            activations += some.forward(made[:, :samples], LAYERS[layer](some), per_model=True)
        for one, (seen, mine) in enumerate(zip(made, own), start=len(guesses)):
            partners = np.concatenate([b[a == one], a[b == one]])
            group = members.group.to_numpy()[partners]
            for g in np.unique(group):
                rows = partners[group == g]
                theirs = populations[g][rows - first[g]].predict(seen)
                directed[one, rows] = _same(theirs, mine)
        guesses += own
    own, confounder = torch.stack(guesses), Confounder(x[:samples])
    accuracy = _same(own, labels)
    return pd.DataFrame({
        "a": a, "b": b, "probe": attack, "agreement": (directed[a, b] + directed[b, a]) / 2,
        "agreement, own attack": _same(own[a], own[b]),
        **{m: compare(m, activations, (a, b), confounder) for m in measures},
        "accuracy a": accuracy[a], "accuracy b": accuracy[b]})


def attacked_images(probing: dict) -> tuple[Tensor, Tensor]:
    """Those clean images that attacks begin with, as inputs, and their labels."""
    x, labels = (drawn_rows(part, probing["attacked"], probing) for part in _clean(probing))
    return x, labels


def _slices(models: Sequence[dict], populations: list[Population]) -> Iterator[Population]:
    """As many networks as are attacked at once, in the order of the members."""
    size = _ATTACKED[bool(trunk_of(models))][0]
    for population in populations:
        for start in range(0, len(population), size):
            yield population[start:start + size]


@torch.no_grad()
def _against(models: Sequence[dict], population: Population, attack: str, x: Tensor,
             labels: Tensor, probing: dict) -> Tensor:
    """What each member's own layers get of the images made against it, (N, n, units)."""
    trunk = trunk_of(models)
    target = Transfer(frozen(trunk), population) if trunk else population
    size, made = _ATTACKED[bool(trunk)][1], []
    for i, part in enumerate(zip(x.split(size), labels.split(size))):
        seed = int(np.random.SeedSequence([probing["seed"], i]).generate_state(1)[0])
        moved = BY_GRADIENT[attack](target, *part, eps=probing["eps"], steps=probing["steps"],
                                    seed=seed)
        made.append(target.features(moved, per_model=True) if isinstance(target, Transfer) else moved)
    return torch.cat(made, 1)


@cached
def all_pairs(models: Sequence[dict], epoch: int, probes: Sequence[str], layer: str,
              probing: dict) -> pd.DataFrame:
    """All pairs of a grid's networks at one epoch; parameters as in ``grid``.

    Returns
    -------
    DataFrame
        Columns a, b (as ``weights``), agreement (mean over those of `probes` that all networks
        share: no attacks), and ``PAPER_MEASURES`` on clean images.
    """
    populations, members = grid_networks(models)
    populations = [p[(p.members.epoch == epoch).to_numpy()] for p in populations]
    x = drawn_rows(seen_by_networks(trunk_of(models), "clean", probing), probing["images"], probing)
    rows = np.flatnonzero(members.epoch == epoch)
    a, b = np.triu_indices(len(rows), 1)
    activations = [f for p in populations for f in p.activations(x, LAYERS[layer](p))]
    weights = [c for p in populations for c in chains(p)]
    confounder = Confounder(drawn_rows(_clean(probing)[0], probing["images"], probing))
    shared = [seen_by_networks(trunk_of(models), p, probing) for p in probes if p not in BY_GRADIENT]
    agreements = [pairwise_agreement(torch.cat([p.predict(x) for p in populations]))
                  for x in shared]
    return pd.DataFrame({
        "a": rows[a], "b": rows[b], "agreement": np.mean(agreements, axis=0)[a, b],
        **{m: compare(m, weights if m == "wcka" else activations, None, confounder)[a, b]
           for m in PAPER_MEASURES}})


def _with_robustness(members: pd.DataFrame, aimed: pd.DataFrame) -> pd.DataFrame:
    if aimed.empty:  # no probe is an attack
        return members
    own = pd.concat([aimed.set_index(["probe", side])[f"accuracy {side}"] for side in ("a", "b")])
    own = own[~own.index.duplicated()].unstack("probe")
    return members.join(own.add_prefix("under "))


def _collected(members: pd.DataFrame, weights: pd.DataFrame, clean: pd.DataFrame,
               seen: pd.DataFrame) -> pd.DataFrame:
    """One table of the units' tables, with the columns of ``grid``."""
    key, measures = ["a", "b"], list(ACTIVATION_MEASURES)
    seen = seen.rename(columns={m: f"{m}, on the probe" for m in measures})
    if "agreement, own attack" not in seen:
        seen["agreement, own attack"] = np.nan
    seen = seen.fillna({"agreement, own attack": seen.agreement})
    table = weights[["differs", *key, "wcka"]].merge(
        clean[[*key, *measures]], on=key, validate="1:1").merge(seen, on=key, validate="1:m")
    of = {column: members[column].to_numpy()[table[key]]
          for column in ("accuracy", "collapsed", "start")}
    table["accuracy gap"] = -np.abs(np.diff(of["accuracy"]).squeeze(1))
    table["clean agreement"] = table.agreement.where(table["probe"] == "clean").groupby(
        [table.a, table.b]).transform("max")
    table["kind"] = table["probe"].map(kind_of_probe)
    table["start a"], table["start b"] = of["start"].T
    table["collapsed"] = of["collapsed"].any(1)
    for each in key:
        table[each] = pd.Categorical.from_codes(table[each], members.model)
    last = [f"{m}, on the probe" for m in measures]
    return table[["differs", *key, "probe", "kind", "agreement", *PAPER_MEASURES, *last,
                  "agreement, own attack", "accuracy gap", "clean agreement", "start a", "start b",
                  "collapsed"]]
