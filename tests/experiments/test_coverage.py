"""Components of grids, and coverage in grids drawn from them, against known ones."""

import numpy as np
import pandas as pd
import pytest

from wcka.experiments import coverage

LEVELS = {"start": 2, "network": 2, "pair of starts": 1, "pair of networks": 1}
# Of one unit: variance on similarity, covariance, variance on agreement, on one probe
COMPONENTS = {
    "start": (1.0, 0.5, 1.0, 0.3),
    "network": (0.5, -0.3, 0.4, 0.2),
    "pair of starts": (0.3, 0.1, 0.5, 0.1),
    "pair of networks": (0.4, 0.2, 0.3, 0.5),
    "probe": 2.0,
    "kind on a probe": 0.4,
}
NO_EFFECT = (0.0, 0.0, 0.0, 0.0)


def made_grid(components, seeds=5, architectures=2, strategies=3, probes=6, seed=0,
              left_out=0.0):
    """Draw rows and members of a grid with known components.

    Every network is left out with probability `left_out`.
    """
    rng = np.random.default_rng(seed)
    i, j = np.triu_indices(seeds, 1)

    def effects(level, units):
        """Effects on similarity, then on agreement by probe: (units, 1 + probes)."""
        xx, xy, yy, on_a_probe = components.get(level, NO_EFFECT)
        x, y = rng.multivariate_normal([0, 0], [[xx, xy], [xy, yy]], units).T
        on_probes = np.sqrt(on_a_probe) * rng.standard_normal((units, probes))
        return np.column_stack([x, y[:, None] + on_probes])

    def of_probes(level):
        """Effects of probes on the same columns, (1 + probes,)."""
        sd = np.sqrt(components.get(level, 0))
        return np.append(0, sd * rng.standard_normal(probes))

    networks, values, sides = [], [], []
    on_all_kinds = of_probes("probe")
    for architecture in range(architectures):
        starts = effects("start", seeds)
        pairs_of_starts = effects("pair of starts", len(i))
        for strategy in range(strategies):
            x_mean, y_mean = rng.standard_normal(2)
            means = np.append(x_mean, np.full(probes, y_mean))
            means += on_all_kinds + of_probes("kind on a probe")
            nodes = starts + effects("network", seeds)
            pairs = pairs_of_starts + effects("pair of networks", len(i))
            is_in = rng.random(seeds) >= left_out
            is_kept = is_in[i] & is_in[j]
            values.append((means + nodes[i] + nodes[j] + pairs)[is_kept])
            sides.append(len(networks) + np.stack([i, j], axis=1)[is_kept])
            for start in range(seeds):
                networks.append({
                    "model": f"{architecture}, {strategy}, {start}",
                    "architecture": str(architecture), "strategy": str(strategy),
                    "epoch": 1, "start": f"{architecture}, {start}"})
    members = pd.DataFrame(networks)
    names = members.model.to_numpy()
    x, y = np.split(np.concatenate(values), [1], axis=1)
    a, b = np.concatenate(sides).T
    rows = pd.DataFrame({
        "differs": "seed",
        "a": np.repeat(names[a], probes),
        "b": np.repeat(names[b], probes),
        "probe": np.tile([f"probe {probe}" for probe in range(probes)], len(a)),
        "agreement": y.ravel(),
        "wcka": np.repeat(x.ravel(), probes),
    })
    return rows, members


def components_of(rows, members):
    return coverage._components(
        coverage._seed_grid(rows, members, "wcka", "agreement"))


def shares_of(rows, members, measure="wcka", target="agreement"):
    return coverage._shares(coverage._seed_grid(rows, members, measure, target))


def in_a_row(components):
    """What ``components_of`` should find, without the fixed means of kinds."""
    table = {}
    for level, count in LEVELS.items():
        xx, xy, yy, on_a_probe = components.get(level, NO_EFFECT)
        table[level] = (count * xx, count * yy, count * xy)
        table[f"{level} on a probe"] = (0, count * on_a_probe, 0)
    for level in ("probe", "kind on a probe"):
        table[level] = (0, components.get(level, 0), 0)
    columns = ["similarity", "agreement", "covariance"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns)


# ------------------------------------------------------------------------- components


@pytest.mark.parametrize("grid, tables", [
    ({"seeds": 5}, 100),
    ({"seeds": 6, "left_out": 0.15}, 100),
    ({"seeds": 20}, 30),
    ({"seeds": 4, "architectures": 1, "probes": 2}, 100),
])
def test_components_are_recovered_without_bias(grid, tables):
    expected = in_a_row(COMPONENTS)
    estimates = []
    for table in range(tables):
        seed = [grid["seeds"], table]  # sizes draw independently
        components = components_of(*made_grid(COMPONENTS, seed=seed, **grid))
        estimates.append(components.loc[expected.index].to_numpy())
    error = np.std(estimates, axis=0, ddof=1) / np.sqrt(tables)
    deviation = np.abs(np.mean(estimates, axis=0) - expected)
    assert (deviation <= 4 * error + 1e-12).to_numpy().all()
    assert (error < 0.5).all()


def test_the_means_of_kinds_are_those_of_the_table():
    rows, members = made_grid(COMPONENTS)
    kind = rows.a.str.rsplit(", ", n=1).str[0]
    means = rows.groupby(kind)[["wcka", "agreement"]].mean()
    of_kinds = components_of(rows, members).loc["kind"]
    expected = np.cov(means.T, ddof=0)
    assert of_kinds.similarity == pytest.approx(expected[0, 0])
    assert of_kinds.agreement == pytest.approx(expected[1, 1])
    assert of_kinds.covariance == pytest.approx(expected[0, 1])


def test_shares_add_up_to_one_and_covariances_to_the_correlation():
    """A large grid of the same components, with the same kinds, has that r."""
    rows, members = made_grid(
        COMPONENTS, seeds=40, architectures=1, probes=60, seed=3)
    shares = shares_of(rows, members)
    assert shares.similarity.sum() == pytest.approx(1)
    assert shares.agreement.sum() == pytest.approx(1)
    r = rows.wcka.corr(rows.agreement)
    assert shares.covariance.sum() == pytest.approx(r, abs=0.02)
    assert (shares.covariance**2 <= shares.similarity * shares.agreement + 1e-12).all()


def test_shares_are_never_negative():
    for seed in range(10):
        noise = {"pair of networks": (1.0, 0.9, 1.0, 0.0)}
        rows, members = made_grid(noise, seed=seed)
        estimates = components_of(rows, members)
        shares = shares_of(rows, members)
        variances = ["similarity", "agreement"]
        assert (estimates[variances] < 0).any(axis=None)
        assert (shares[variances] >= 0).all(axis=None)


def test_units_do_not_matter_nor_order_nor_names():
    rows, members = made_grid(COMPONENTS)
    shares = shares_of(rows, members)
    other = rows.assign(a=rows.b, b=rows.a, wcka=3 + 2 * rows.wcka,
                        agreement=5 * rows.agreement).sample(frac=1, random_state=0)
    other = pd.concat([other, rows.assign(differs="epoch", wcka=np.nan)])
    other = other.rename(columns={"wcka": "cka", "agreement": "clean"})
    other = other.astype({"a": "category", "b": "category", "probe": "category"})
    pd.testing.assert_frame_equal(
        shares_of(other, members, "cka", "clean"), shares)


@pytest.mark.parametrize("grid", [
    {"seeds": 3}, {"strategies": 1}, {"probes": 1},
    {"seeds": 3, "strategies": 1},
])
def test_a_small_grid_leaves_out_what_cannot_be_told(grid):
    rows, members = made_grid(COMPONENTS, **grid)
    shares = shares_of(rows, members)
    assert np.isfinite(shares).all(axis=None)
    if grid.get("seeds") == 3:
        assert (shares.loc[["pair of starts", "pair of networks"]] == 0).all(axis=None)
    if grid.get("strategies") == 1:
        assert shares.agreement["network"] == 0
    if grid.get("probes") == 1:
        assert shares.agreement["probe"] == 0
    simulated = coverage.simulate(rows, members, draws=5)
    assert simulated.coverage.between(0, 1).all()


def test_bad_tables_are_refused():
    rows, members = made_grid(COMPONENTS)
    with pytest.raises(ValueError, match="60 pairs once on each of 6 probes, got 359"):
        shares_of(rows.iloc[1:], members)
    pair = (rows.a == rows.a[0]) & (rows.b == rows.b[0])
    with pytest.raises(ValueError, match="all 10 pairs of the 5 networks"):
        shares_of(rows[~pair], members)
    with pytest.raises(ValueError, match="not finite"):
        shares_of(rows.assign(wcka=np.nan), members)
    with pytest.raises(ValueError, match="agreement does not vary"):
        shares_of(rows.assign(agreement=1.0), members)
    with pytest.raises(ValueError, match="three networks of one kind, got at most 2"):
        shares_of(*made_grid(COMPONENTS, seeds=2))


# --------------------------------------------------------------------------- coverage


def test_without_start_effects_both_kinds_of_intervals_hold():
    """Rows are independent: each pair has its own noise, and there is one probe."""
    noise = {"pair of networks": (1.0, 0.5, 1.0, 0.0)}
    rows, members = made_grid(
        noise, seeds=25, architectures=1, strategies=1, probes=1, seed=1)
    simulated = coverage.simulate(rows, members, draws=400)
    assert simulated.attrs["r"] == pytest.approx(0.5, abs=0.1)
    assert simulated.coverage["rows"] == pytest.approx(0.95, abs=0.03)
    assert simulated.coverage["starts and probes"] > 0.93


def test_with_start_effects_intervals_that_count_rows_do_not_hold():
    starts = {"start": (1.0, 0.5, 1.0, 0.0), "pair of networks": (0.2, 0.0, 0.2, 0.2),
              "probe": 0.5, "network on a probe": 0.1}
    rows, members = made_grid(starts, seeds=15, seed=1)
    simulated = coverage.simulate(rows, members, draws=200)
    assert simulated.coverage["rows"] < 0.4
    assert simulated.coverage["starts and probes"] > 0.88


def test_drawn_grids_have_the_components_they_are_drawn_from(monkeypatch):
    rows, members = made_grid(COMPONENTS, seeds=8)
    shares = shares_of(rows, members)
    pairs = rows.drop_duplicates(["a", "b"])
    drawn = []

    def kept(x, y):
        """Keep the rows that intervals are asked about: pair by pair."""
        table = pairs.loc[pairs.index.repeat(6)].assign(
            probe=np.tile(np.arange(6), len(pairs)), wcka=x, agreement=y)
        drawn.append(components_of(table, members))
        return correlation(x, y)

    correlation = coverage.statistics.correlation
    monkeypatch.setattr(coverage.statistics, "correlation", kept)
    coverage.simulate(rows, members, draws=100)
    estimates = np.stack([table.drop("kind") for table in drawn])
    error = estimates.std(0, ddof=1) / np.sqrt(len(drawn))
    deviation = np.abs(estimates.mean(0) - shares.drop("kind"))
    assert (deviation <= 4 * error + 1e-12).to_numpy().all()


def test_the_same_seed_gives_the_same_numbers():
    rows, members = made_grid(COMPONENTS)
    first = coverage.simulate(rows, members, draws=30, seed=1)
    again = coverage.simulate(rows, members, draws=30, seed=1)
    other = coverage.simulate(rows, members, draws=30, seed=2)
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)
    assert first.attrs == other.attrs  # the truth is not drawn


def test_the_error_is_that_of_shares_and_never_zero():
    rows, members = made_grid(COMPONENTS, seeds=4)
    simulated = coverage.simulate(rows, members, draws=100)
    share = simulated.coverage
    binomial = np.sqrt(share * (1 - share) / 100)
    assert simulated.error.to_numpy() == pytest.approx(binomial.to_numpy(), abs=0.015)
    assert (simulated.error > 0).all()
