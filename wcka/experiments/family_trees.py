"""Trees of networks with known descent, and which scores of kinship find them.

The design is that of MoTHer (Horwitz et al. 2024, arXiv 2405.18432): independent roots
are trained, each has children, and each child has children of its own. Descendants are
trained for a few more epochs; how they descend is one of ``DESCENTS``. Every score is
computed on the networks as they are and disguised: hidden units are permuted and
rescaled at random, which leaves their function as it is.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..measures.all_pairs import compare
from ..measures.spelling import nearest
from ..networks import image_sets
from ..networks.populations import Population
from ..networks.training import train
from ..weights import symmetry
from ..weights.chains import chain
from ..weights.forest import spanning_edges
from ..weights.kinship import first_layer_similarities, normalised_units
from .cache import cached
from .crossed import Estimate, estimates_from
from .jobs import run_jobs
from .matching import flat_weights, matched_cosines
from .separation import misordered
from .training_runs import trained

FURTHER = "further training"
OTHER_TASK = "other task"
PERMUTED = "permuted labels"
DESCENTS = (FURTHER, OTHER_TASK, PERMUTED)
# The least for errors: without one tree, two are left to be strangers.
LEAST_ROOTS = 3
_CLASSES = 10


# ------------------------------------------------------------ networks


@cached
def family_population(
    descent: str, roots: int = 3, children: int = 3, hidden: Sequence[int] = (64, 64),
    dataset: str = "mnist", other_dataset: str = "fashion", images: int = 10000,
    epochs: int = 5, tuned_images: int = 5000, tuned_epochs: int = 3,
    batch_size: int = 64, seed: int = 0,
) -> Population:
    """Train roots, their children and their grandchildren.

    The result is cached on disk. Siblings are trained on other images, in another
    order. Of the children of all networks the first ones are trained together as one
    population, then the second ones, and so on.

    Parameters
    ----------
    descent : str
        One of ``DESCENTS``: descendants are trained further on the same data set; or in
        turn on the other data set, on images that are rotated by 90 degrees, and on
        inverted images; or with permuted labels, each child with another permutation.
    roots, children : int
        Number of trees; number of children of each root and of each child.
    hidden : sequence of int
        Widths of hidden layers.
    dataset, other_dataset : str
        As in ``image_sets.load``.
    images, epochs, tuned_images, tuned_epochs : int
        Number of training images and epochs of roots, and of descendants.
    batch_size : int
        See ``train``.
    seed : int
        Seed of the first root, and of all draws.

    Returns
    -------
    Population
        Roots, then all children, then all grandchildren. Its members have the columns
        tree, generation (from 0), child (its number among its siblings; -1 of roots)
        and parent (position in the population; -1 of roots).

    Raises
    ------
    ValueError
        For an unknown kind of descent, or fewer than three roots or one child.

    Examples
    --------
    >>> population = family_population(
    ...     PERMUTED, children=1, hidden=[4], images=200, epochs=1, tuned_images=100,
    ...     tuned_epochs=1)
    >>> population.members.parent.tolist()
    [-1, -1, -1, 0, 1, 2, 3, 4, 5]
    """
    _check(descent, roots, children)
    architecture = {
        "factory": "mlp",
        "widths": [784, *hidden, _CLASSES],
        "activation": "relu",
    }
    first = trained(
        architecture=architecture, seeds=list(range(seed, seed + roots)),
        dataset=dataset, classes=list(range(_CLASSES)), images=images, epochs=epochs,
        batch_size=batch_size, seed=seed)
    members = pd.DataFrame({
        "tree": range(roots), "generation": 0, "child": -1, "parent": -1})
    generations = [Population(architecture, first.state, members)]
    start = 0  # position of the last generation's first network
    for generation in (1, 2):
        parents = generations[-1]
        siblings = []
        for child in range(children):
            x, labels = lesson(
                descent, child, dataset, other_dataset, tuned_images,
                seed=[seed, generation, child])
            tuned = train(
                parents, x, labels, tuned_epochs, batch_size=batch_size,
                seed=_order_seed(seed, generation, child))
            members = pd.DataFrame({
                "tree": parents.members.tree, "generation": generation,
                "child": child, "parent": start + np.arange(len(parents))})
            siblings.append(Population(architecture, tuned.state, members))
        start += len(parents)
        generations.append(_joined(siblings))
    return _joined(generations)


def _check(descent: str, roots: int, children: int) -> None:
    """Refuse a design of which nothing could be measured, before any work."""
    nearest(descent, DESCENTS, "kind of descent")
    if roots < LEAST_ROOTS:
        raise ValueError(f"roots: wanted at least {LEAST_ROOTS}, got {roots}")
    if children < 1:
        raise ValueError(f"children: wanted at least 1, got {children}")


def _order_seed(seed: int, generation: int, child: int) -> int:
    """Return a seed of the order of images for one child of all networks."""
    rng = np.random.default_rng([seed, generation, child, *b"order"])
    return int(rng.integers(2**31))


def _joined(populations: Sequence[Population]) -> Population:
    """Return populations of one architecture as one."""
    state = {}
    for name in populations[0].state:
        state[name] = torch.cat([population.state[name] for population in populations])
    members = pd.concat(
        [population.members for population in populations], ignore_index=True)
    return Population(populations[0].architecture, state, members)


def lesson(
    descent: str, child: int, dataset: str, other_dataset: str, images: int,
    seed: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return the images and labels that one child is trained on.

    Parameters
    ----------
    descent, dataset, other_dataset
        As in ``family_population``.
    child : int
        Its number among its siblings, which says which other task it has.
    images : int
        Number of training images.
    seed : sequence of int
        Seed of the draw of images and of the permutation of labels.

    Returns
    -------
    x : Tensor
        (images, 784), in [0, 1].
    labels : Tensor
        (images,).

    Examples
    --------
    >>> x, labels = lesson(FURTHER, 0, "mnist", "fashion", 100, seed=[0])
    >>> inverted, _ = lesson(OTHER_TASK, 2, "mnist", "fashion", 100, seed=[0])
    >>> torch.allclose(inverted, 1 - x)
    True
    """
    rng = np.random.default_rng([*seed, *b"lesson"])
    task = child % 3 if descent == OTHER_TASK else None
    name = other_dataset if task == 0 else dataset
    pictures, digits = image_sets.load(name, "train", None)
    chosen = np.sort(rng.permutation(len(digits))[:images])
    pictures = pictures[chosen]  # (images, 28, 28)
    labels = digits[chosen]
    if task == 1:
        pictures = np.rot90(pictures, axes=(1, 2)).copy()
    elif task == 2:
        pictures = 255 - pictures
    if descent == PERMUTED:
        labels = rng.permutation(_CLASSES)[labels]
    return image_sets.as_inputs(pictures), torch.from_numpy(labels)


# ------------------------------------------------------------ scores


_Networks = Sequence[nn.Sequential]


def _first_layers(networks: _Networks) -> list[Tensor]:
    """Return the first layers of networks, each (inputs, units)."""
    matrices = []
    for network in networks:
        linear = next(layer for layer in network if isinstance(layer, nn.Linear))
        matrices.append(linear.weight.detach().T)
    return matrices


def _procrustes(networks: _Networks) -> np.ndarray:
    return first_layer_similarities(_first_layers(networks))


def _cka(networks: _Networks) -> np.ndarray:
    return compare("cka", map(normalised_units, _first_layers(networks)))


def _wcka(networks: _Networks) -> np.ndarray:
    return compare("wcka", map(chain, networks))


def _cosine(networks: _Networks) -> np.ndarray:
    weights = torch.stack([flat_weights(network) for network in networks]).double()
    weights = weights / weights.norm(dim=1, keepdim=True)  # (networks, weights)
    return (weights @ weights.T).numpy()


def _distance(networks: _Networks) -> np.ndarray:
    weights = torch.stack([flat_weights(network) for network in networks]).double()
    return -torch.cdist(weights, weights).numpy()


def _largest_difference(networks: _Networks) -> np.ndarray:
    weights = torch.stack([flat_weights(network) for network in networks]).double()
    return -torch.cdist(weights, weights, p=float("inf")).numpy()


# By the name of a score: all pairs of networks (N, N). Kin score high.
SCORES: dict[str, Callable[[_Networks], np.ndarray]] = {
    "Procrustes of layer 1": _procrustes,
    "CKA of layer 1": _cka,
    "wCKA": _wcka,
    "cosine, matched": matched_cosines,
    "cosine of weights": _cosine,
    "distance of weights": _distance,
    "largest difference": _largest_difference,
}
FIRST_LAYER = "Procrustes of layer 1"


def disguised(network: nn.Sequential, seed: int = 0) -> nn.Sequential:
    """Return a network with its hidden units permuted and rescaled at random.

    Its function is the same, up to rounding.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> x = torch.ones(1, 4)
    >>> torch.allclose(disguised(network)(x), network(x), atol=1e-5)
    True
    """
    disguised_network = symmetry.rescale(symmetry.permute(network, seed), seed)
    assert isinstance(disguised_network, nn.Sequential)
    return disguised_network


@cached
def kinship_scores(descent: str, seed: int = 0, **design) -> pd.DataFrame:
    """Score all pairs of a forest by every score, plain and disguised.

    The result is cached on disk.

    Parameters
    ----------
    descent, seed
        As in ``family_population``.
    **design
        Other arguments of ``family_population``.

    Returns
    -------
    DataFrame
        One row per score, pair and disguise: descent, score (one of ``SCORES``),
        disguised, a, b (positions, a < b), tree_a, tree_b, is_edge (whether one of the
        two is the other's parent), value, and seconds (what all pairs of this score
        took together).

    Examples
    --------
    >>> table = kinship_scores(
    ...     FURTHER, children=1, hidden=[4], images=200, epochs=1, tuned_images=100,
    ...     tuned_epochs=1)
    >>> len(table) == 36 * 2 * len(SCORES), int(table.is_edge.sum()) // len(SCORES)
    (True, 12)
    """
    population = family_population(descent, seed=seed, **design)
    members = population.members
    a, b = np.triu_indices(len(members), 1)
    parent = members.parent.to_numpy()
    tree = members.tree.to_numpy()
    pairs = pd.DataFrame({
        "a": a, "b": b, "tree_a": tree[a], "tree_b": tree[b],
        "is_edge": (parent[b] == a) | (parent[a] == b)})
    plain = [population.member(i) for i in range(len(population))]
    hidden = [disguised(network, seed + i) for i, network in enumerate(plain)]
    tables = []
    for is_disguised, networks in ((False, plain), (True, hidden)):
        for name, score in SCORES.items():
            start = time.perf_counter()
            values = score(networks)
            seconds = time.perf_counter() - start
            tables.append(pairs.assign(
                descent=descent, score=name, disguised=is_disguised,
                value=values[a, b], seconds=seconds))
    return pd.concat(tables, ignore_index=True)


def all_kinship_scores(
    descents: Sequence[str] = DESCENTS, jobs: int = -1, scheduler: str = "", **design,
) -> pd.DataFrame:
    """Stack ``kinship_scores`` of several kinds of descent, on several processes.

    Parameters
    ----------
    descents : sequence of str
        Of ``DESCENTS``.
    jobs, scheduler
        See ``run_jobs``.
    **design
        Arguments of ``family_population``.

    Examples
    --------
    >>> table = all_kinship_scores(
    ...     [FURTHER, PERMUTED], jobs=1, children=1, hidden=[4], images=200, epochs=1,
    ...     tuned_images=100, tuned_epochs=1)
    >>> table.descent.unique().tolist()
    ['further training', 'permuted labels']
    """
    for descent in descents:
        _check(descent, design.get("roots", LEAST_ROOTS), design.get("children", 1))
    units = [{"descent": descent, **design} for descent in descents]
    return run_jobs(kinship_scores, units, jobs, "families", scheduler)


# ------------------------------------------------------------ what they find


_BY = ["descent", "score", "disguised"]


def found_by_score(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each score finds: same trees, and edges of trees.

    Parameters
    ----------
    table : DataFrame
        As ``kinship_scores`` returns it.

    Returns
    -------
    DataFrame
        One row per kind of descent, score and disguise: auc, the probability that a
        pair of one tree scores above a pair of different trees; edges, the share of
        true pairs of parent and child among the edges of the maximum spanning tree over
        each tree's networks, without direction; and the errors of both over trees
        (jackknife, each tree left out with all its pairs), auc_error and edges_error;
        seconds for all pairs.

    Raises
    ------
    ValueError
        For fewer than three trees.

    Examples
    --------
    >>> table = kinship_scores(
    ...     FURTHER, children=1, hidden=[4], images=200, epochs=1, tuned_images=100,
    ...     tuned_epochs=1)
    >>> card = found_by_score(table).set_index(["score", "disguised"])
    >>> float(card.auc["cosine of weights", False])
    1.0
    """
    rows = []
    for keys, group in table.groupby(_BY, sort=False):
        auc, edges = errors_over_roots(group)
        rows.append({
            **dict(zip(_BY, keys)),
            "auc": auc.value, "auc_error": auc.error,
            "edges": edges.value, "edges_error": edges.error,
            "seconds": float(group.seconds.iloc[0])})
    return pd.DataFrame(rows)


def errors_over_roots(pairs: pd.DataFrame) -> tuple[Estimate, Estimate]:
    """Return the area under the curve and the share of edges, with errors over roots.

    Parameters
    ----------
    pairs : DataFrame
        Rows of one score, as ``kinship_scores`` returns them.

    Returns
    -------
    auc, edges : Estimate
        See ``found_by_score``.

    Raises
    ------
    ValueError
        For fewer than three trees.

    Examples
    --------
    >>> pairs = pd.DataFrame({
    ...     "a": [0, 2, 4, 0, 2, 4], "b": [1, 3, 5, 2, 4, 0], "is_edge": [True] * 6,
    ...     "tree_a": [0, 1, 2, 0, 1, 2], "tree_b": [0, 1, 2, 1, 2, 0],
    ...     "value": [0.9, 0.8, 0.9, 0.1, 0.2, 0.1]})
    >>> auc, edges = errors_over_roots(pairs)
    >>> auc.value, edges.value, auc.error
    (1.0, 1.0, 0.0)
    """
    trees = np.unique(pairs[["tree_a", "tree_b"]])
    if len(trees) < LEAST_ROOTS:
        raise ValueError(f"wanted at least {LEAST_ROOTS} trees, got {len(trees)}")
    kin = pairs[pairs.tree_a == pairs.tree_b]
    strangers = pairs[pairs.tree_a != pairs.tree_b]
    wrong = misordered(
        strangers.value, kin.value, strangers[["tree_a", "tree_b"]], kin.tree_a)
    shares = np.array([_edges_found(pairs, tree) for tree in trees])
    without_trees = [[np.delete(shares, i).mean()] for i in range(len(trees))]
    edges, = estimates_from([shares.mean()], without_trees)
    return wrong._replace(value=1 - wrong.value), edges


def _edges_found(pairs: pd.DataFrame, tree: int) -> float:
    """Return the share of true edges among those of the spanning tree of one tree."""
    of_tree = pairs[(pairs.tree_a == tree) & (pairs.tree_b == tree)]
    edges = of_tree[of_tree.is_edge]
    true_edges = {frozenset(edge) for edge in zip(edges.a, edges.b)}
    is_true = [frozenset(edge) in true_edges for edge in strongest_edges(of_tree)]
    return float(np.mean(is_true))


def strongest_edges(pairs: pd.DataFrame) -> list[tuple]:
    """Return the edges of the maximum spanning tree over some networks.

    Parameters
    ----------
    pairs : DataFrame
        All pairs of these networks: a and b, their names, and value.

    Returns
    -------
    list of pairs
        Of names, from the strongest edge on.

    Examples
    --------
    >>> strongest_edges(pd.DataFrame({
    ...     "a": ["x", "x", "y"], "b": ["y", "z", "z"], "value": [0.9, 0.2, 0.5]}))
    [('x', 'y'), ('y', 'z')]
    """
    names = np.unique(pairs[["a", "b"]])
    a = np.searchsorted(names, pairs.a)
    b = np.searchsorted(names, pairs.b)
    scores = np.zeros((len(names), len(names)))
    scores[a, b] = scores[b, a] = pairs.value
    return [(names[i], names[j]) for i, j in spanning_edges(scores)]
