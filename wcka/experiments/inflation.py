"""What width and depth add to the similarity of networks that share nothing.

Similarities of unrelated models rise with the width of the layers, and the best of many
pairs of layers is high by chance (Gröger et al. 2026, arXiv 2602.14486). Both are
measured here on untrained networks, before and after calibration by the null of
re-paired rows, which ``wcka.pairwise_null`` has in closed form.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..measures.spelling import nearest
from ..networks.populations import Population, chains, initialise
from ..weights.pairs import pairwise_null
from .cache import cached
from .calibration import drawn_inputs

DIFFERENT = "different images"
SAME = "same images"
WEIGHTS = "weights"
FEATURES = (DIFFERENT, SAME, WEIGHTS)
LEVEL = 0.05  # of all pairs of layers together


@cached
def best_matches(architecture: dict, seeds: Sequence[int], layers: Sequence[int],
                 features: str, samples: int, dataset: str, classes: Sequence[int],
                 seed: int = 0) -> pd.DataFrame:
    """Return the best match between the layers of untrained networks, and its null.

    Each pair of networks is searched for the two layers with the highest CKA. Before it
    is calibrated, the level is divided by the number of pairs of layers (Bonferroni).
    That is valid however much the layers depend on each other, and nothing is drawn;
    the null of the maximum itself would have to be.

    Parameters
    ----------
    architecture, seeds
        As in ``initialise``.
    layers : sequence of int
        The layers of both networks that are searched, 1 to the network's depth.
    features : str
        One of ``FEATURES``. Activations on "different images", of which each network
        has its own draw in a random order, so that rows are unrelated; activations on
        the "same images"; or the chains of "weights" up to these layers, whose CKA is
        wCKA.
    samples : int
        Number of clean test images that a network sees.
    dataset, classes
        As in ``image_sets.load``.
    seed : int
        Seed of the draws of images.

    Returns
    -------
    DataFrame
        One row per pair of networks: features, width (of the first hidden layer), depth
        (the number of hidden layers), a, b (positions in `seeds`), similarity (the
        highest over all pairs of layers), null (the mean of its null), score (the
        highest calibrated one), p_alone (the smallest p-value of any pair of layers)
        and p (the same, corrected for the number of pairs). NaN where no pair of layers
        has a similarity.

    Raises
    ------
    ValueError
        For other features.

    Examples
    --------
    >>> architecture = {"factory": "mlp", "widths": [784, 32, 32, 3]}
    >>> table = best_matches(architecture, [0, 1, 2], [1, 2], "same images", 50,
    ...                      "mnist", [0, 1, 2])
    >>> len(table), bool((table.p < 0.05).all())
    (3, True)
    """
    nearest(features, FEATURES, "features")
    population = initialise(architecture, seeds)
    if features == WEIGHTS:
        by_layer = [chains(population, layer=layer) for layer in layers]
    else:
        inputs = _inputs(features, len(population), samples, dataset, classes, seed)
        by_layer = _activations(population, inputs, layers)
    # Network by network, all layers of each
    models: list[Tensor] = []
    for i in range(len(population)):
        models.extend(of_layer[i] for of_layer in by_layer)

    a, b = np.triu_indices(len(population), 1)
    layer_of_a, layer_of_b = np.indices((len(layers), len(layers))).reshape(2, -1)
    first = a[:, None] * len(layers) + layer_of_a  # (pairs, pairs of layers)
    second = b[:, None] * len(layers) + layer_of_b
    null = pairwise_null("cka", models, (first.ravel(), second.ravel()))
    values = null.value.reshape(first.shape)
    means = null.mean.reshape(first.shape)
    scores = null.score(LEVEL / len(layer_of_a)).reshape(first.shape)
    best = np.nan_to_num(values, nan=-1).argmax(1)
    # Unlike max and min, fmax and fmin leave NaN out.
    p_alone = np.fmin.reduce(null.p.reshape(first.shape), axis=1)
    widths = architecture["widths"]
    return pd.DataFrame({
        "features": features,
        "width": widths[1],
        "depth": len(widths) - 2,
        "a": a,
        "b": b,
        "similarity": np.fmax.reduce(values, axis=1),
        "null": means[np.arange(len(a)), best],
        "score": np.fmax.reduce(scores, axis=1),
        "p_alone": p_alone,
        "p": np.minimum(p_alone * len(layer_of_a), 1),
    })


def _inputs(features: str, networks: int, samples: int, dataset: str,
            classes: Sequence[int], seed: int) -> Tensor:
    """Return the images of each network, (networks, samples, pixels)."""
    draws = range(networks) if features == DIFFERENT else [0] * networks
    images = []
    for draw in draws:
        images.append(drawn_inputs(dataset, classes, "clean", samples, draw, seed))
    return torch.stack(images)


@torch.no_grad()
def _activations(population: Population, inputs: Tensor, layers: Sequence[int],
                 ) -> list[Tensor]:
    """Return the activations of each layer, (networks, samples, units)."""
    return [population.forward(inputs, layer, per_model=True) for layer in layers]
