"""Families of small language models, and scores that should tell kin from strangers.

A family is a model and its relatives: trained on, fine-tuned, pruned, quantised,
merged. Strangers are models that were trained from other weights, on the same text or
on another. Each second model of a pair is taken as it is, or in a disguise that keeps
what it does.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ..measures.similarity import cka, unbiased_cka
from ..networks import texts
from ..networks.disguises import disguised
from ..networks.language_models import LanguageModel, config, mean_loss, train
from ..networks.populations import Population
from ..networks.training import copied
from ..weights.token_circuits import CIRCUITS, Circuits, circuits, compare_circuits
from .cache import Cached, cached
from .crossed import Estimate, estimates_from
from .jobs import run_jobs
from .separation import misordered
from .statistics import overlap

State = dict[str, Tensor]
RELATIVES = (
    "base", "half-trained", "nine tenths trained", "same text", "other text",
    "trained on as long", "LoRA", "merged", "pruned by half", "pruned to a fifth",
    "8 bits", "4 bits", "3 bits")
SCORES = {
    **{circuit: f"{circuit} circuit" for circuit in CIRCUITS},
    "circuits": "median of the circuits",
    "residual": "whole residual product",
    "products": "cosine of products (HuRef-like)",
    "matched": "matching of units (AWM-like)",
    "cosine": "cosine of the weights",
    "activations": "CKA of activations",
    "agreement": "agreement",
}
_HELD_OUT = 20_000  # tokens at the end of each text
_RANK = 4  # of LoRA


# ------------------------------------------------------------------------- the models


@cached
def family(text: str, seed: int, sizes: dict, steps: int, tuning: int) -> Population:
    """Train a language model and its relatives.

    Parameters
    ----------
    text : str
        One of ``texts.TEXTS``.
    seed : int
        Of the initial weights, which differ from text to text, and of the pieces of
        text that are drawn.
    sizes : dict
        Arguments of ``LanguageModel``.
    steps, tuning : int
        Steps of training from the start, and of fine-tuning.

    Returns
    -------
    Population
        One model for each of ``RELATIVES``. Members have columns text, seed, relative,
        and "loss on TEXT" on the held-out end of each text.

    Examples
    --------
    >>> sizes = dict(tokens=300, width=8, depth=1, heads=2, units=8)
    >>> family("code", 0, sizes, steps=2, tuning=1).members.relative[0]
    'base'
    """
    numbers = {name: texts.encoded(name, sizes["tokens"]) for name in texts.TEXTS}
    learned = {name: values[:-_HELD_OUT] for name, values in numbers.items()}
    other_text = next(name for name in texts.TEXTS if name != text)
    with torch.random.fork_rng(devices=[]):
        # One seed on two texts would make kin of strangers.
        torch.manual_seed(seed + 2**20 * texts.TEXTS.index(text))
        model = LanguageModel(**sizes)
    half, most = steps // 2, steps * 9 // 10
    copies = train(model, learned[text], steps, seed, checkpoints=[half, most])
    base = copied(model.state_dict())
    states: dict[str, State] = {
        "base": base, "half-trained": copies[half],
        "nine tenths trained": copies[most]}
    tunings = {
        "same text": (text, tuning), "other text": (other_text, tuning),
        "trained on as long": (text, steps)}
    for number, (relative, (content, count)) in enumerate(tunings.items()):
        model.load_state_dict(base)
        train(model, learned[content], count, seed + 1000 * (number + 1),
              learning_rate=1e-3)
        states[relative] = copied(model.state_dict())
    states["LoRA"] = _with_adapters(
        base, sizes, learned[other_text], tuning, seed + 5000)
    states["merged"] = _mean(states["same text"], states["other text"])
    states["pruned by half"] = _pruned(base, 0.5)
    states["pruned to a fifth"] = _pruned(base, 0.8)
    for bits in (8, 4, 3):
        states[f"{bits} bits"] = _quantised(base, bits)
    rows = []
    for relative in RELATIVES:
        model.load_state_dict(states[relative])
        losses = {f"loss on {name}": mean_loss(model, values[-_HELD_OUT:])
                  for name, values in numbers.items()}
        rows.append({"text": text, "seed": seed, "relative": relative, **losses})
    stacked = {}
    for name in base:
        stacked[name] = torch.stack([states[relative][name] for relative in RELATIVES])
    return Population({"factory": "language model", **sizes}, stacked,
                      pd.DataFrame(rows))


def _mean(one: State, other: State) -> State:
    return {name: (one[name] + other[name]) / 2 for name in one}


def _pruned(state: State, share: float) -> State:
    """Set the smallest entries of each matrix to zero."""
    pruned = {}
    for name, values in state.items():
        if values.ndim > 1:
            limit = values.abs().flatten().kthvalue(int(share * values.numel())).values
            values = values * (values.abs() > limit)
        pruned[name] = values
    return pruned


def _quantised(state: State, bits: int) -> State:
    """Round the rows of each matrix to 2^bits - 1 levels around zero."""
    levels = 2 ** (bits - 1) - 1
    quantised = {}
    for name, values in state.items():
        if values.ndim > 1:
            scale = values.abs().amax(1, keepdim=True) / levels
            values = (values / scale).round() * scale
        quantised[name] = values
    return quantised


def _model_of(state: State, sizes: dict) -> LanguageModel:
    """Return a language model with these weights."""
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays
        model = LanguageModel(**sizes)
    model.load_state_dict(state)
    return model


class _Adapted(nn.Module):
    """A frozen linear layer with a product of low rank beside it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(_RANK, linear.in_features) / 8)
        self.up = nn.Parameter(torch.zeros(linear.out_features, _RANK))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.down.T @ self.up.T


def _with_adapters(
    base: State, sizes: dict, numbers: Tensor, steps: int, seed: int
) -> State:
    """Train adapters of queries and values (Hu et al. 2021), and merge them."""
    model = _model_of(base, sizes)
    adapters = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer, block in enumerate(model.model.layers):
            attention = cast(nn.Module, block.self_attn)
            for name in ("q_proj", "v_proj"):
                adapter = _Adapted(cast(nn.Linear, getattr(attention, name)))
                setattr(attention, name, adapter)
                adapters[f"model.layers.{layer}.self_attn.{name}.weight"] = adapter
    parameters = []
    for adapter in adapters.values():
        parameters += [adapter.down, adapter.up]
    train(model, numbers, steps, seed, parameters=parameters)
    merged = dict(base)
    for name, adapter in adapters.items():
        merged[name] = base[name] + (adapter.up @ adapter.down).detach()
    return merged


def _trained(arguments: dict) -> pd.DataFrame:
    return family(**arguments).members


_trained_family = cast(Cached, _trained)
_trained_family.kept = lambda arguments: family.kept(**arguments)


def train_families(
    families: Sequence[dict], jobs: int = -1, scheduler: str = ""
) -> pd.DataFrame:
    """Train families side by side, and return their members.

    Parameters
    ----------
    families : sequence of dict
        Arguments of ``family``.
    jobs, scheduler
        As in ``jobs.run_jobs``.

    Examples
    --------
    >>> sizes = dict(tokens=300, width=8, depth=1, heads=2, units=8)
    >>> arguments = dict(text="code", seed=0, sizes=sizes, steps=2, tuning=1)
    >>> len(train_families([arguments], jobs=1)) == len(RELATIVES)
    True
    """
    units = [{"arguments": arguments} for arguments in families]
    return run_jobs(_trained_family, units, jobs, "language models", scheduler)


# ------------------------------------------------------------------------ kin or not


def told_apart(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return how well each score tells kin from strangers.

    Parameters
    ----------
    pairs : DataFrame
        As from ``pair_scores``, of one kind of "hidden".

    Returns
    -------
    DataFrame
        One row per score: auc, the probability that a pair of kin scores above a pair
        of strangers; found, the share of kin above all strangers; the highest stranger
        and the lowest kin.

    Examples
    --------
    >>> pairs = pd.DataFrame({"is_kin": [True, True, False], "cosine": [1, 0.2, 0.3]})
    >>> pairs = pairs.assign(**{name: pairs.cosine for name in SCORES})
    >>> float(told_apart(pairs).auc["cosine"])
    0.5
    """
    rows = {}
    for name in SCORES:
        kin = pairs[name][pairs.is_kin]
        strangers = pairs[name][~pairs.is_kin]
        rows[name] = {
            "auc": 1 - overlap(strangers, kin),
            "found": (kin > strangers.max()).mean(),
            "highest stranger": strangers.max(),
            "lowest kin": kin.min(),
        }
    return pd.DataFrame(rows).T


def misordered_by_score(pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Return the share of pairs of pairs that each score puts in the wrong order.

    It is one minus the area under the ROC curve.

    Parameters
    ----------
    pairs : DataFrame
        As for ``told_apart``, with a and b.

    Returns
    -------
    dict of str to Estimate
        With errors that leave out whole families.

    Examples
    --------
    >>> a, b = np.triu_indices(4)
    >>> pairs = pd.DataFrame({"a": a, "b": b, "is_kin": a == b})
    >>> pairs = pairs.assign(**{name: 1.0 * pairs.is_kin for name in SCORES})
    >>> misordered_by_score(pairs)["cosine"].value
    0.0
    """
    kin = pairs[pairs.is_kin]
    strangers = pairs[~pairs.is_kin]
    of_scores = {}
    for name in SCORES:
        of_scores[name] = misordered(
            strangers[name], kin[name], strangers[["a", "b"]], kin.a)
    return of_scores


def lead_of_circuits(pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Return what each score puts in the wrong order beyond the circuits.

    Parameters
    ----------
    pairs : DataFrame
        As for ``misordered_by_score``.

    Examples
    --------
    >>> a, b = np.triu_indices(4)
    >>> pairs = pd.DataFrame({"a": a, "b": b, "is_kin": a == b})
    >>> pairs = pairs.assign(**{name: 1.0 * pairs.is_kin for name in SCORES})
    >>> lead_of_circuits(pairs.assign(cosine=1.0))["cosine"].value
    0.5
    """
    def leads(rows: pd.DataFrame) -> pd.Series:
        auc = told_apart(rows).auc
        return auc["circuits"] - auc

    without_families = []
    for name in pd.unique(pairs[["a", "b"]].to_numpy().ravel()):
        without_families.append(leads(pairs[(pairs.a != name) & (pairs.b != name)]))
    return dict(zip(SCORES, estimates_from(leads(pairs), without_families)))


# ------------------------------------------------------------------------- the scores


@cached
def pair_scores(families: Sequence[dict], hidden: bool) -> pd.DataFrame:
    """Return all scores of pairs of kin, and of pairs of strangers.

    Kin are the base of a family and each of its relatives. Strangers are the base of
    one family and three models of another: its base, and that fine-tuned on either
    text.

    Parameters
    ----------
    families : sequence of dict
        Arguments of ``family``, at least two.
    hidden : bool
        Whether the second model of each pair is disguised.

    Returns
    -------
    DataFrame
        One row per pair: a and b (names of families), relative (what the second model
        is), is_kin, one_text (whether both bases learned one text), hidden, and
        ``SCORES``.

    Examples
    --------
    >>> sizes = dict(tokens=300, width=8, depth=1, heads=2, units=8)
    >>> families = [dict(text="code", seed=seed, sizes=sizes, steps=2, tuning=1)
    ...             for seed in range(2)]
    >>> pairs = pair_scores(families, hidden=False)
    >>> pairs.is_kin.value_counts().tolist()
    [24, 3]
    """
    sizes = families[0]["sizes"]
    model_config = config(**sizes)
    probe = _probe(sizes["tokens"])
    names = [f"{arguments['text']}, seed {arguments['seed']}" for arguments in families]
    models: list[dict[str, _Scored]] = []
    for position, arguments in enumerate(families):
        population = family(**arguments)
        scored = {}
        for i, relative in enumerate(population.members.relative):
            state = {name: values[i] for name, values in population.state.items()}
            second = state
            if hidden:
                second = disguised(state, model_config, seed=100 * position + i)
            scored[relative] = _Scored(state, second, sizes, probe)
        models.append(scored)
    rows = []
    for i, one in enumerate(models):
        for relative in RELATIVES[1:]:
            rows.append({
                "a": names[i], "b": names[i], "relative": relative, "is_kin": True,
                "one_text": True, **_scores(one["base"], one[relative])})
        for j in range(i + 1, len(models)):
            for relative in ("base", "same text", "other text"):
                rows.append({
                    "a": names[i], "b": names[j], "relative": relative,
                    "is_kin": False,
                    "one_text": families[i]["text"] == families[j]["text"],
                    **_scores(one["base"], models[j][relative])})
    return pd.DataFrame(rows).assign(hidden=hidden)


def _probe(size: int) -> Tensor:
    """Return pieces of both texts that no model has learned from, (pieces, length)."""
    pieces = []
    for name in texts.TEXTS:
        held_out = texts.encoded(name, size)[-_HELD_OUT:]
        pieces.append(held_out[:32 * 64].view(32, 64))
    return torch.cat(pieces)


class _Scored:
    """A model as the first of a pair and, maybe disguised, as the second."""

    def __init__(
        self, state: State, second: State, sizes: dict, probe: Tensor
    ) -> None:
        self.first = _Side(state, sizes, probe)
        self.second = self.first
        if second is not state:
            self.second = _Side(second, sizes, probe)


class _Side:
    """What the scores need to know of one model."""

    def __init__(self, state: State, sizes: dict, probe: Tensor) -> None:
        self.state = {name: values.double() for name, values in state.items()}
        self.circuits = circuits(self.state, config(**sizes))
        model = _model_of(state, sizes)
        with torch.no_grad():
            stream = model.model(probe)
            self.activations = stream.flatten(0, 1)
            self.predictions = model.lm_head(stream).argmax(-1)


def _scores(one: _Scored, other: _Scored) -> dict[str, float]:
    """Return all scores of a pair: the second model may be disguised."""
    a, b = one.first, other.second
    tables = compare_circuits([a.circuits, b.circuits])
    scores = {name: float(table.mean(0)[0, 1]) for name, table in tables.items()}
    scores["circuits"] = float(np.median(list(scores.values())))
    scores["residual"] = cka(_residual(a.circuits), _residual(b.circuits))
    scores["products"] = _cosine_of_products(a.circuits, b.circuits)
    scores["matched"] = _matched(a.state, b.state)
    scores["cosine"] = _cosine(a.state, b.state)
    scores["activations"] = cka(a.activations, b.activations)
    agrees = a.predictions == b.predictions
    scores["agreement"] = float(agrees.double().mean())
    return scores


def _residual(of: Circuits) -> Tensor:
    """Return the product of all layers, heads and MLPs beside the stream."""
    width = of.network.width
    product = torch.eye(width, dtype=torch.float64)
    for layer in range(of.network.depth):
        block = of.network.read_layer(layer)
        moved = block.value.flatten(1) @ block.out.flatten(0, 1)
        product = product @ (torch.eye(width) + moved)
        product = product @ (torch.eye(width) + block.up @ block.down)
    return of.read_rows(slice(0, of.count)) @ product @ of.to_outputs


def _cosine_of_products(a: Circuits, b: Circuits) -> float:
    """Return the mean cosine of tokens x tokens products (Zeng et al. 2023).

    Of matrices E P E' the inner product is that of P_a and (E_a'E_b) P_b (E_b'E_a), so
    nothing of tokens x tokens is needed.
    """
    everything = slice(0, a.count)
    between = a.read_rows(everything).T @ b.read_rows(everything)
    cosines = []
    for layer in range(a.network.depth):
        products = []
        for circuits_of in (a, b):
            block = circuits_of.network.read_layer(layer)
            products.append({
                "qk": block.query.flatten(1) @ block.key.flatten(1).T,
                "ov": block.value.flatten(1) @ block.out.flatten(0, 1),
                "mlp": block.up @ block.down})
        for name, of_a in products[0].items():
            of_b = products[1][name]
            inner = (of_a * (between @ of_b @ between.T)).sum()
            squares = [(of_a * (a.token_gram @ of_a @ a.token_gram)).sum(),
                       (of_b * (b.token_gram @ of_b @ b.token_gram)).sum()]
            cosines.append(float(inner / (squares[0] * squares[1]).sqrt()))
    return float(np.mean(cosines))


def _matched(a: State, b: State) -> float:
    """Return the unbiased CKA of queries and keys after matching dimensions.

    Dimensions of the stream are matched by the embeddings, with their signs (after AWM,
    arXiv 2510.06738); this is our reading of the method.
    """
    embeddings = []
    for state in (a, b):
        columns = state["model.embed_tokens.weight"]
        embeddings.append(columns / columns.norm(dim=0))
    cosines = (embeddings[0].T @ embeddings[1]).numpy()
    rows, columns = linear_sum_assignment(-np.abs(cosines))
    signs = torch.from_numpy(np.sign(cosines[rows, columns]))
    order = torch.from_numpy(columns)
    values = []
    for name in a:
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            matched = b[name][:, order] * signs
            values.append(unbiased_cka(a[name].T, matched.T))
    return float(np.mean(values))


def _cosine(a: State, b: State) -> float:
    """Return the cosine of all weights as one vector."""
    one = torch.cat([values.flatten() for values in a.values()])
    other = torch.cat([values.flatten() for values in b.values()])
    return float(one @ other / (one.norm() * other.norm()))
