"""Grids behind several trunks: what is stacked, refused, and left out by errors."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wcka
from wcka.experiments import benchmark, crossed, gated_chains, several_trunks
from wcka.experiments.crossed import Estimate
from wcka.experiments.training_runs import pretrained

DIGITS = {"dataset": "mnist", "classes": [0, 1]}
PROBES = ["clean", "stripe"]
PROBING = {**DIGITS, "seed": 0, "images": 60}


def trunk(seed):
    return {
        "architecture": {"factory": "convnet", "channels": [2], "hidden": [4]},
        "seed": seed, "dataset": "mnist", "epochs": 1, "patience": 1,
        "validation": 100, "images": 300}


def models(number, seeds):
    heads = []
    for hidden in ([4], [3, 3]):
        heads.append({
            "architecture": {"factory": "mlp", "widths": [288, *hidden, 2]},
            "strategy": "standard", "seeds": seeds, "epochs": 1, "images": 100,
            "trunk": trunk(number), **DIGITS})
    return heads


MODELS = {f"trunk {i}": models(i, [2 * i, 2 * i + 1]) for i in range(3)}


def grid(models_of_trunks):
    return several_trunks.grid_of_trunks(
        models_of_trunks, PROBES, "last hidden", 40, PROBING, jobs=1)


@pytest.fixture(scope="module")
def stacked():
    return grid(MODELS)


# ---------------------------------------------------------------------------- grids


def test_networks_of_several_trunks_are_those_of_each():
    table = several_trunks.pretrain([trunk(0), trunk(1)], jobs=1)
    assert table.seed.tolist() == [0, 1]
    for number in (0, 1):
        best = pretrained(**trunk(number)).members.epoch[0]
        assert table.epoch[number] == best
        assert pretrained.kept(**trunk(number))
    assert table.attrs["seconds"] > 0


def test_the_table_is_that_of_each_trunk(stacked):
    members, table = stacked
    for name, heads in MODELS.items():
        members_alone, alone = benchmark.grid(
            heads, PROBES, "last hidden", 40, PROBING, jobs=1)
        rows = table[table.trunk == name].reset_index(drop=True)
        numbers = ["agreement", "wcka", "cka", "dcka, on the probe"]
        pd.testing.assert_frame_equal(rows[numbers], alone[numbers])
        assert (rows.a == name + ", " + alone.a.astype(str)).all()
        networks = members[members.trunk == name].reset_index(drop=True)
        assert (networks.model == name + ", " + members_alone.model).all()
        np.testing.assert_array_equal(networks.accuracy, members_alone.accuracy)


def test_networks_of_all_trunks_have_names_of_their_own(stacked):
    members, table = stacked
    assert members.model.is_unique
    assert members.start.nunique() == 3 * 2 * 2
    trunk_of = members.set_index("model").trunk
    assert (table.a.map(trunk_of) == table.trunk).all()
    assert (table.b.map(trunk_of) == table.trunk).all()
    assert set(table.attrs["seconds"]) == {"training", "attacks", "probes"}


def test_errors_leave_out_trunks_from_three_trunks_on(stacked):
    _, table = stacked
    for side in ("start a", "start b"):
        assert (table[side] == table.trunk).all()
    rows = table[table.differs == "seed"]
    design = crossed.Design(rows["start a"], rows["start b"], rows["probe"])
    assert (design.n_runs, design.n_probes) == (3, 2)


def test_errors_leave_out_starts_below_three_trunks(stacked):
    members, table = stacked
    two = dict(list(MODELS.items())[:2])
    _, of_two = grid(two)
    start = members.set_index("model").start
    for side in ("a", "b"):
        assert (of_two[f"start {side}"] == of_two[side].map(start)).all()
    numbers = ["agreement", "wcka"]
    first_rows = table[table.trunk.isin(two)].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_two[numbers], first_rows[numbers])


def test_pairs_on_trunks_are_those_of_the_grid(stacked):
    members, table = stacked
    pairs = several_trunks.pairs_on_trunks(
        benchmark.chain_similarities, MODELS, members, jobs=1)
    rows = table[table["probe"] == "clean"]
    merged = rows.merge(pairs, on=["a", "b"], validate="1:1")
    assert len(merged) == len(rows) == len(pairs)
    np.testing.assert_array_equal(merged.wcka_x, merged.wcka_y)


def test_expected_jacobians_of_heads_are_over_features_of_their_trunk(stacked):
    members, _ = stacked
    table = several_trunks.pairs_on_trunks(
        gated_chains.expected_similarities, MODELS, members, jobs=1, draws=20, seed=3)
    heads = MODELS["trunk 1"]
    features = gated_chains.training_inputs(heads)
    assert features.shape[1] == 288
    inputs = wcka.gaussian_inputs(20, *wcka.input_moments(features), seed=3)
    (population, *_), _ = benchmark.grid_networks(heads)
    networks = [population.member(i) for i in range(2)]
    jacobians = [wcka.expected_jacobian(network, inputs) for network in networks]
    first, second = members[members.trunk == "trunk 1"].model.iloc[:2]
    row, = table[(table.a == first) & (table.b == second)].itertuples(index=False)
    similarity = row[table.columns.get_loc("expected, Gaussian")]
    assert similarity == pytest.approx(wcka.cka(*jacobians), abs=1e-9)


def test_heads_of_two_trunks_with_a_seed_in_common_are_refused():
    shared = {"trunk 0": models(0, [0, 1]), "trunk 1": models(1, [1, 2])}
    with pytest.raises(ValueError, match="heads of trunk 0 and of trunk 1 both have 1"):
        grid(shared)


# ------------------------------------------------------------------- what can be found


def agreements():
    rng = np.random.default_rng(0)
    rows = []
    scales = {"clean": 0.001, "fog": 0.05}
    for trunk_name in ("trunk 1", "trunk 2"):
        for factor in ("seed", "strategy"):
            for probe, scale in scales.items():
                values = 0.9 + scale * rng.standard_normal(40)
                rows.append(pd.DataFrame({
                    "differs": factor, "trunk": trunk_name, "probe": probe,
                    "agreement": values}))
    return pd.concat(rows, ignore_index=True)


def test_the_spread_of_agreement_is_that_within_trunks_and_factors():
    table = agreements()
    spread = several_trunks.spread_of_agreement(table)
    assert list(spread.index) == ["clean", "fog"]
    assert list(spread.columns) == ["seed", "strategy", "all factors"]
    variances = []
    for name in ("trunk 1", "trunk 2"):
        rows = table[(table.trunk == name) & (table.differs == "seed")
                     & (table["probe"] == "fog")]
        variances.append(rows.agreement.var())
    assert spread.seed["fog"] == pytest.approx(np.sqrt(np.mean(variances)))
    expected = np.sqrt((spread.seed**2 + spread.strategy**2) / 2)
    np.testing.assert_allclose(spread["all factors"], expected)
    # Trunks and factors that differ in their means do not make it vary.
    shifted = table.assign(agreement=table.agreement - 0.2 * (table.trunk == "trunk 2")
                           - 0.1 * (table.differs == "seed"))
    pd.testing.assert_frame_equal(several_trunks.spread_of_agreement(shifted), spread)


# --------------------------------------------------------------------------- estimates


@given(value=st.floats(0, 1), error=st.floats(0, 1), df=st.floats(1, 100))
def test_intervals_of_shares_stay_within_their_range(value, error, df):
    low, high = several_trunks.share_interval(Estimate(value, error, df))
    assert 0 <= low <= value + 1e-12
    assert value - 1e-12 <= high <= 1


def test_intervals_of_shares_are_the_usual_ones_where_errors_are_small():
    estimate = Estimate(0.3, 1e-4, 12)
    low, high = several_trunks.share_interval(estimate)
    assert low == pytest.approx(estimate.low, abs=1e-6)
    assert high == pytest.approx(estimate.high, abs=1e-6)


def test_errors_of_r_are_those_of_the_jackknife_of_r():
    rng = np.random.default_rng(1)
    a, b = np.triu_indices(40, 1)
    of_runs = rng.standard_normal((2, 40))
    x = of_runs[0, a] + of_runs[0, b]
    y = x + of_runs[1, a] + of_runs[1, b]
    table = pd.DataFrame({"x": x, "zero": rng.standard_normal(len(x))})
    z, leads = crossed.correlations(crossed.Design(a, b), y, table, "x")
    r = several_trunks.r_of_z(z["x"])
    assert r.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    r_of_zero = several_trunks.r_of_z(z["zero"])
    assert r.value - r_of_zero.value == pytest.approx(leads["zero"].value)
    without = []
    for run in range(40):
        kept = (a != run) & (b != run)
        without.append(np.corrcoef(x[kept], y[kept])[0, 1])
    jackknife = np.sqrt(39 / 40 * np.square(without - np.mean(without)).sum())
    assert r.error == pytest.approx(jackknife, rel=0.05)


def test_a_difference_of_independent_estimates_has_both_errors():
    first, second = Estimate(0.8, 0.06, 30), Estimate(0.3, 0.08, 4)
    forth = several_trunks.independent_difference(first, second)
    back = several_trunks.independent_difference(second, first)
    assert forth == pytest.approx((0.5, 0.1, 4))
    assert back == pytest.approx((-0.5, 0.1, 4))
