"""The best match between layers of untrained networks, before and after calibration."""

import pandas as pd
import pytest
import torch

import wcka
from wcka.experiments.calibration import drawn_inputs
from wcka.experiments.inflation import DIFFERENT, FEATURES, LEVEL, SAME, best_matches
from wcka.measures.nulls import holm
from wcka.networks.populations import initialise

CLASSES = [0, 1, 2]


def architecture(*hidden):
    return {"factory": "mlp", "widths": [784, *hidden, 3], "activation": "relu"}


def matches(hidden, features, networks=3, samples=60, seed=0, layers=None):
    return best_matches(
        architecture(*hidden), list(range(networks)),
        layers or list(range(1, len(hidden) + 1)), features, samples, "mnist", CLASSES,
        seed)


def images(draw, samples=60):
    return drawn_inputs("mnist", CLASSES, "clean", samples, draw, 0)


@pytest.mark.parametrize("features", FEATURES)
def test_a_row_is_the_best_of_the_nulls_of_all_pairs_of_layers(features):
    hidden = (8, 16)
    row = matches(hidden, features).set_index(["a", "b"]).loc[0, 2]
    layers = {}
    for i in (0, 2):
        network = initialise(architecture(*hidden), [i]).member(0)
        draw = i if features == DIFFERENT else 0
        for stop in (1, 2):
            if features in (SAME, DIFFERENT):
                with torch.no_grad():
                    layers[i, stop] = network[:1 + 2 * stop](images(draw))
            else:
                layers[i, stop] = wcka.chain(network[:2 * stop])
    nulls = []
    for stop in (1, 2):
        for other in (1, 2):
            nulls.append(wcka.null(layers[0, stop], layers[2, other], "cka"))
    best = max(nulls, key=lambda null: null.value)
    p = [null.p for null in nulls]
    expected = {
        "similarity": best.value, "null": best.mean,
        "score": max(null.score(LEVEL / 4) for null in nulls),
        "p_alone": min(p), "p": min(holm(p))}
    assert row[list(expected)].to_dict() == pytest.approx(expected, abs=1e-6)
    assert (row["width"], row.depth, row.features) == (8, 2, features)


def test_different_images_are_beyond_chance_as_often_as_chance_has_it():
    table = matches((16, 16, 16), DIFFERENT, networks=24)  # 276 pairs of networks
    assert (table.p < LEVEL).mean() < 0.1
    assert (table.p_alone < LEVEL).mean() > 0.1  # the best of nine
    assert (table.score > 0).mean() < 0.1
    assert (matches((16, 16, 16), SAME, networks=6).p < LEVEL).all()


def test_weights_depend_on_no_images():
    pd.testing.assert_frame_equal(
        matches((8,), "weights"), matches((8,), "weights", samples=70, seed=3))


@pytest.mark.filterwarnings("ignore:.*no variance left")
def test_pairs_without_a_layer_that_varies_are_nan():
    narrow = [1, 1, 1]
    last = matches(narrow, SAME, networks=12, layers=[3])
    searched = matches(narrow, SAME, networks=12)
    columns = ["similarity", "null", "score", "p_alone", "p"]
    for table in (last, searched):
        is_missing = table[columns].isna()
        assert (is_missing.all(axis=1) == is_missing.any(axis=1)).all()
    assert last.similarity.isna().any() and last.similarity.notna().any()
    # Fewer networks are dead from their first layer on.
    assert searched.similarity.isna().sum() < last.similarity.isna().sum()


def test_an_unknown_kind_of_features_is_refused():
    with pytest.raises(ValueError, match="did you mean 'weights'"):
        matches((8,), "weight")
