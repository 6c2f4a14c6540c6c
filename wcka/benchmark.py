"""Units of work over models, probes and measures, each cached on disk; one tidy table of pairs."""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from . import attacks, corruptions, data
from .cache import cached
from .chain import chains
from .functional import collapsed, pairwise_agreement
from .population import Population, initialise
from .similarity import Confounder, pairwise
from .training import trained

PROBES = ("clean", *corruptions.CORRUPTIONS)
ATTACKS = ("fgsm", "ffgsm", "gaussian_noise", "pgd", "trades")  # in the order of the paper
FACTORS = ("epoch", "seed", "architecture", "strategy")  # in the order of the paper's figure 3
MEASURES = ("procrustes", "cka", "dcka", "wcka")  # in the order of the paper's figures
ACTIVATION_MEASURES = MEASURES[:3]
NO_PSD = "dcka, no PSD step"  # the variant that keeps negative eigenvalues
UNCENTRED = ("procrustes, uncentred", "cka, uncentred", "wcka, uncentred")

# Layers by names that hold for every depth.
LAYERS: dict[str, Callable[[Population], int]] = {
    "first hidden": lambda population: 1,
    "last hidden": lambda population: population.depth - 1,
    "logits": lambda population: population.depth,
}

# Networks attacked at once: more would not fit into the processor's caches.
_ATTACKED = 25
_IMAGES = 128


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

    Returns
    -------
    DataFrame
        Its ``attrs["seconds"]`` is what all units took together when they were computed.
    """
    arguments = list(arguments)
    if all(unit.kept(**each) for each in arguments):
        jobs = 1  # reading needs no other processes
    tables = joblib.Parallel(n_jobs=jobs, return_as="generator", batch_size=1)(
        joblib.delayed(unit)(**each) for each in arguments)
    with warnings.catch_warnings():  # memory that a worker keeps for its next unit is no leak
        warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
        shown = list(tqdm(tables, total=len(arguments), desc=description, leave=False))
    seconds = sum(table.attrs["seconds"] for table in shown)
    for table in shown:
        table.attrs.clear()  # pandas keeps them only where all are the same
    together = pd.concat(shown, ignore_index=True) if shown else pd.DataFrame()
    together.attrs["seconds"] = seconds
    return together


@lru_cache(maxsize=1)
def _clean(dataset: str, classes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Test images and labels, verified and read once in each process."""
    return data.load(dataset, "test", classes)


@lru_cache(maxsize=2)
def probe(dataset: str, classes: tuple[int, ...], name: str, seed: int = 0) -> np.ndarray:
    """Test images of a data set, clean or under one corruption: uint8 (n, 28, 28)."""
    images, _ = _clean(dataset, classes)
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
        Of ``MEASURES``, ``NO_PSD`` and ``UNCENTRED``; wCKA does not look at the probes.
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
        population, listed = _ensemble(**models)
        activations = population.activations(inputs, layer)
        a, b = np.triu_indices(len(population), 1) if listed is None else listed
        for measure in measures:
            features = chains(population) if measure.startswith("wcka") else activations
            values = _compare(measure, features, listed, confounder)
            if listed is None:
                values = values[a, b]
            tables.append(pd.DataFrame({
                "ensemble": ensemble, "probe": probe_name, "samples": len(images), "draw": draw,
                "measure": measure, "a": a, "b": b, "similarity": values}))
    return pd.concat(tables, ignore_index=True)


def _ensemble(compared: Sequence[int] | None = None, **models) -> tuple[Population, tuple | None]:
    """Population of an ensemble and the pairs to compare, None for all."""
    if compared is None:
        return initialise(**models), None
    population = trained(**models)
    population = population[population.members.epoch.isin(compared).to_numpy()]
    return population, (np.arange(len(population) - 1), np.arange(1, len(population)))


def _compare(measure: str, features: Iterable[Tensor], pairs,
             confounder: Confounder | None = None) -> np.ndarray:
    """Similarities by a name that stands in tables; NaN says there what the warning says."""
    name = measure.split(",")[0]
    kw = {"inputs": confounder, "psd": measure != NO_PSD} if name == "dcka" else {}
    if measure in UNCENTRED:  # rows and their negatives have mean zero: centring changes nothing
        features = [torch.cat([f, -f]) for f in features]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*have no variance", RuntimeWarning)
        return pairwise(name, features, pairs, **kw)


# ---------------------------------------------------------------- the grid (paper, section 3.2)


def grid(models: Sequence[dict], probes: Sequence[str], layer: str, samples: int, probing: dict,
         jobs: int = -1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a grid of networks; compare all pairs that differ in one factor, on each probe.

    An attacked probe belongs to a pair: all clean images moved by the gradients of the one network,
    and all of them moved by those of the other. Agreement is the mean over both halves, so no
    network is favoured and the order does not matter.

    Parameters
    ----------
    models : sequence of dict
        Arguments of ``trained``, one for each architecture and strategy; each trains all seeds.
    probes : sequence of str
        Of ``PROBES`` and ``ATTACKS``.
    layer : str
        Of ``LAYERS``: whose activations are compared.
    samples : int
        Number of images for the columns "on the probe".
    probing : dict
        "dataset", "classes" and "seed", as in ``probe``; "eps" and "steps" of the attacks; "noise",
        the standard deviation of Gaussian noise.
    jobs : int
        As in ``run``.

    Returns
    -------
    members : DataFrame
        A row a model: model (its name), architecture, strategy, seed, epoch, accuracy, collapsed
        (``functional.collapsed`` on clean images), and under "under ATTACK" its accuracy on the
        images made against itself.
    table : DataFrame
        A row a pair and probe: differs (of ``FACTORS``), a and b (names of models), probe,
        agreement, the measures (of activations: on all clean images), and under "MEASURE, on
        the probe" their values on some images of that probe. There, under an attack, each network
        sees the images made against itself, and "agreement, own attack" is counted on them.
        ``attrs["seconds"]``: what training, probes and attacks took on one process.
    """
    models, compared = list(models), list(ACTIVATION_MEASURES)
    fits = run(_fit, [{"model": m} for m in sorted(models, key=_cost)], jobs, "training")
    common = {"models": models, "probing": probing}
    activations = {**common, "layer": layer, "measures": compared}
    seen = run(on_probe, [{**activations, "probe_name": "clean", "samples": None},
                          *({**activations, "probe_name": p, "samples": samples} for p in probes)],
               jobs, "probes")
    aimed = [p for p in probes if p in attacks.ATTACKS]
    directed = run(attacked, [{**common, "target": i, "attack": p} for p in aimed
                              for i in range(len(models))], jobs, "attacks")
    members = _members(**common)
    table = _collected(members, weights(models), seen, directed)
    table.attrs = {"seconds": {"training": fits.attrs["seconds"], "probes": seen.attrs["seconds"],
                               "attacks": directed.attrs["seconds"]}}
    return _with_robustness(members, directed), table


def _cost(model: dict) -> int:
    """Order of training: the longest first, so that no process waits for another."""
    return {"standard": 0, "pgd": -2}.get(model["strategy"], -1)


def _fit(model: dict) -> pd.DataFrame:
    return trained(**model).members


_fit.kept = lambda model: trained.kept(**model)


def networks(models: Sequence[dict]) -> tuple[list[Population], pd.DataFrame]:
    """Populations of a grid, and a table of all members (group: which population).

    Parameters and columns as in ``grid``.
    """
    return _networks(json.dumps(list(models)))


@lru_cache(maxsize=1)
def _networks(models: str) -> tuple[list[Population], pd.DataFrame]:
    models = json.loads(models)
    populations = [trained(**m) for m in models]
    return populations, pd.concat([
        p.members.assign(architecture=name(m["architecture"]), strategy=m["strategy"], group=i)
        for i, (m, p) in enumerate(zip(models, populations))], ignore_index=True)


def name(architecture: dict) -> str:
    """Short name of a fully connected architecture: layers times width, or its widths."""
    hidden = architecture["widths"][1:-1]
    return f"{len(hidden)} × {hidden[0]}" if len(set(hidden)) == 1 else "-".join(map(str, hidden))


def pairs(members: pd.DataFrame) -> pd.DataFrame:
    """All pairs of models that differ in exactly one factor: differs, a, b (rows of `members`)."""
    numbered = members[list(FACTORS)].assign(row=np.arange(len(members)))
    tables = []
    for factor in FACTORS:
        both = numbered.merge(numbered, on=[f for f in FACTORS if f != factor])
        both = both[both.row_x < both.row_y]
        tables.append(pd.DataFrame({"differs": factor, "a": both.row_x, "b": both.row_y}))
    return pd.concat(tables, ignore_index=True)


def _listed(members: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    table = pairs(members)
    return table.a.to_numpy(copy=True), table.b.to_numpy(copy=True)


def kind(probe_name: str) -> str:
    """Whether a probe is clean, corrupted or attacked."""
    if probe_name == "clean":
        return probe_name
    return "corrupted" if probe_name in PROBES else "attacked"


def _images(probe_name: str, probing: dict) -> tuple[Tensor, Tensor]:
    """Images that all networks share, and their labels; of an attack, the clean ones."""
    about = probing["dataset"], tuple(probing["classes"])
    name = probe_name if probe_name in PROBES else "clean"
    x = data.inputs(probe(*about, name, probing["seed"]))
    if probe_name == "gaussian_noise":
        x = attacks.gaussian_noise(x, probing["noise"], probing["seed"])
    return x, torch.from_numpy(_clean(*about)[1])


def _slices(population: Population) -> Iterator[tuple[int, Population]]:
    """As many networks as are attacked at once, with the position of the first."""
    for start in range(0, len(population), _ATTACKED):
        yield start, population[start:start + _ATTACKED]


def _against(population: Population, attack: str, x: Tensor, labels: Tensor,
             probing: dict) -> Tensor:
    """Images made against each member, (N, n, ...), part by part."""
    parts = enumerate(zip(x.split(_IMAGES), labels.split(_IMAGES)))
    return torch.cat([attacks.ATTACKS[attack](
        population, *part, eps=probing["eps"], steps=probing["steps"],
        seed=int(np.random.SeedSequence([probing["seed"], i]).generate_state(1)[0]))
        for i, part in parts], 1)


@cached
def _members(models: Sequence[dict], probing: dict) -> pd.DataFrame:
    populations, members = networks(models)
    x, labels = _images("clean", probing)
    predictions = torch.cat([p.predict(x) for p in populations])
    names = [f"{m.architecture}, {m.strategy}, seed {m.seed}, epoch {m.epoch}"
             for m in members.itertuples()]
    return members[["architecture", "strategy", "seed", "epoch"]].assign(
        model=names, accuracy=(predictions == labels).double().mean(1).numpy(),
        collapsed=collapsed(predictions))


@cached
def weights(models: Sequence[dict]) -> pd.DataFrame:
    """wCKA of the pairs of a grid, and variants of it; `models` as in ``grid``.

    Returns
    -------
    DataFrame
        Columns differs, a, b (rows of the table of ``networks``), wcka, and "wcka, VARIANT":
        uncentred (equation 5 as printed); with biases; rows normalised (Wang et al. 2022); mean of
        layers (of the chains up to each layer; NaN for networks of different depth).
    """
    populations, members = networks(models)
    listed = _listed(members)

    def compared(chain_of: Callable[[Population], Tensor], measure: str = "wcka") -> np.ndarray:
        return _compare(measure, [c for p in populations for c in chain_of(p)], listed)

    return pairs(members).assign(**{
        "wcka": compared(chains),
        "wcka, uncentred": compared(chains, "wcka, uncentred"),
        "wcka, with biases": compared(lambda p: chains(p, bias=True)),
        "wcka, rows normalised": compared(lambda p: chains(_normalised(p))),
        "wcka, mean of layers": _mean_of_layers(populations, members, *listed)})


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
            total[rows] += _compare("wcka", cut, (a[rows], b[rows]))
    return np.where(same, total / depth[a], np.nan)


@cached
def on_probe(models: Sequence[dict], probe_name: str, layer: str, samples: int | None,
             measures: Sequence[str], probing: dict) -> pd.DataFrame:
    """Agreement and similarity of activations on one probe, for the pairs of a grid.

    Parameters
    ----------
    samples : int or None
        Number of images that the measures take, drawn at random; None for all. Agreement takes
        all, but under an attack, where each network sees the images made against itself, those.
    measures : sequence of str
        Of ``ACTIVATION_MEASURES``, ``NO_PSD`` and ``UNCENTRED``.
    models, probe_name, layer, probing
        As in ``grid``.

    Returns
    -------
    DataFrame
        Columns a, b (as ``weights``), probe, layer, samples (-1 for all), agreement, and the
        measures.
    """
    populations, members = networks(models)
    a, b = _listed(members)
    x, labels = _images(probe_name, probing)
    drawn = torch.from_numpy(np.random.default_rng(probing["seed"]).permutation(len(x))[:samples])
    features, predictions = [], []
    for population in populations:
        depth = LAYERS[layer](population)
        if probe_name in attacks.ATTACKS:
            for _, some in _slices(population):
                made = _against(some, probe_name, x[drawn], labels[drawn], probing)
                with torch.no_grad():
                    features += some.forward(made, depth, own=True)
                    predictions.append(some.forward(made, own=True).argmax(-1))
        else:
            features += population.activations(x[drawn], depth)
            predictions.append(population.predict(x))
    confounder = Confounder(x[drawn])
    return pd.DataFrame({
        "a": a, "b": b, "probe": probe_name, "layer": layer, "samples": samples or -1,
        "agreement": _agreement(torch.cat(predictions), a, b),
        **{m: _compare(m, features, (a, b), confounder) for m in measures}})


def _agreement(predictions: Tensor, a, b) -> np.ndarray:
    return (predictions[a] == predictions[b]).double().mean(1).numpy()


@cached
def attacked(models: Sequence[dict], target: int, attack: str, probing: dict) -> pd.DataFrame:
    """What partners predict on the images that an attack makes against each of some networks.

    Parameters
    ----------
    models, probing
        As in ``grid``.
    target : int
        Which population of `models` is attacked.
    attack : str
        Of ``attacks.ATTACKS``.

    Returns
    -------
    DataFrame
        Columns a (attacked), b (each partner in ``pairs``, and a itself), probe, agreement of a
        and b, accuracy of b.
    """
    populations, members = networks(models)
    first = members.group.searchsorted(np.arange(len(populations)))
    a, b = _listed(members)
    itself = np.arange(len(members))
    targets, partners = np.concatenate([a, b, itself]), np.concatenate([b, a, itself])
    x, labels = _images("clean", probing)
    tables = []
    for start, some in _slices(populations[target]):
        made = _against(some, attack, x, labels, probing)
        for one, images in enumerate(made, start=first[target] + start):
            seeing = np.sort(partners[targets == one])
            group = members.group.to_numpy()[seeing]
            guesses = torch.cat([populations[g][seeing[group == g] - first[g]].predict(images)
                                 for g in np.unique(group)])
            tables.append(pd.DataFrame({
                "a": one, "b": seeing, "probe": attack,
                "agreement": (guesses == guesses[seeing == one]).double().mean(1).numpy(),
                "accuracy": (guesses == labels).double().mean(1).numpy()}))
    return pd.concat(tables, ignore_index=True)


@cached
def all_pairs(models: Sequence[dict], epoch: int, probes: Sequence[str], layer: str,
              probing: dict) -> pd.DataFrame:
    """All pairs of a grid's networks at one epoch; parameters as in ``grid``.

    Returns
    -------
    DataFrame
        Columns a, b (as ``weights``), agreement (mean over those of `probes` that all networks
        share: no attacks), and ``MEASURES`` on clean images.
    """
    populations, members = networks(models)
    populations = [p[(p.members.epoch == epoch).to_numpy()] for p in populations]
    x, _ = _images("clean", probing)
    rows = np.flatnonzero(members.epoch == epoch)
    a, b = np.triu_indices(len(rows), 1)
    activations = [f for p in populations for f in p.activations(x, LAYERS[layer](p))]
    weights, confounder = [c for p in populations for c in chains(p)], Confounder(x)
    shared = [_images(p, probing)[0] for p in probes if p not in attacks.ATTACKS]
    agreements = [pairwise_agreement(torch.cat([p.predict(x) for p in populations]))
                  for x in shared]
    return pd.DataFrame({
        "a": rows[a], "b": rows[b], "agreement": np.mean(agreements, axis=0)[a, b],
        **{m: _compare(m, weights if m == "wcka" else activations, None, confounder)[a, b]
           for m in MEASURES}})


def _with_robustness(members: pd.DataFrame, directed: pd.DataFrame) -> pd.DataFrame:
    if directed.empty:  # no probe is an attack
        return members
    own = directed[directed.a == directed.b].pivot(index="a", columns="probe", values="accuracy")
    return members.join(own.add_prefix("under "))


def _collected(members: pd.DataFrame, weights: pd.DataFrame, seen: pd.DataFrame,
               directed: pd.DataFrame) -> pd.DataFrame:
    """One table of the units' tables, with the columns of ``grid``."""
    measures = list(ACTIVATION_MEASURES)
    key = ["a", "b"]
    whole = seen["samples"] == -1
    table = weights[["differs", *key, "wcka"]].merge(
        seen.loc[whole, [*key, *measures]], on=key, validate="1:1").merge(
        seen[~whole].rename(columns={m: f"{m}, on the probe" for m in measures}), on=key,
        validate="1:m")
    table["agreement, own attack"] = table.agreement
    if not directed.empty:  # both orders of a pair, then their mean
        ordered = directed.assign(a=directed[key].min(axis=1), b=directed[key].max(axis=1))
        halves = ordered.groupby([*key, "probe"]).agreement.mean()
        mutual = table[[*key, "probe"]].join(halves, on=[*key, "probe"]).agreement
        table["agreement"] = mutual.fillna(table.agreement)
    for each in key:
        table[each] = pd.Categorical.from_codes(table[each], members.model)
    first = ["differs", *key, "probe", "agreement", *MEASURES]
    return table[[*first, *(c for c in table.columns if c not in {*first, "layer", "samples"})]]
