"""Errors over runs and probes: against brute force, textbooks and a known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wcka.experiments import crossed
from wcka.experiments.crossed import Design, Estimate


def table(n_runs=7, n_probes=4, seed=0, within=True):
    """All pairs of runs on all probes, probe by probe, with effects of all of them."""
    rng = np.random.default_rng(seed)
    a, b = np.triu_indices(n_runs, 0 if within else 1)
    of_runs = rng.standard_normal((2, n_runs))
    of_probes = rng.standard_normal(n_probes)
    rows = []
    for probe in range(n_probes):
        x = of_runs[0, a] + of_runs[0, b] + 0.3 * np.sin(a + 5 * b)
        y = x + of_runs[1, a] + of_runs[1, b] + of_probes[probe]
        y = y + 0.3 * rng.standard_normal(len(a))
        other = x + np.cos(3 * a * b)
        rows.append(pd.DataFrame(
            {"a": a, "b": b, "probe": probe, "y": y, "wcka": x, "cka": other}))
    return pd.concat(rows, ignore_index=True)


def design_of(rows):
    return Design(rows.a, rows.b, rows["probe"])


def brute_force(rows, statistic):
    """Value and error of a statistic by leaving out rows and computing it anew."""
    runs = np.unique([rows.a, rows.b])
    probes = np.unique(rows["probe"])

    def without(run=None, probe=None):
        kept = rows
        if run is not None:
            kept = kept[(kept.a != run) & (kept.b != run)]
        if probe is not None:
            kept = kept[kept["probe"] != probe]
        return statistic(kept)

    value = statistic(rows)
    of_runs = np.array([without(run) for run in runs])
    of_probes = np.array([without(None, probe) for probe in probes])
    n, m = len(runs), len(probes)
    variance_of_runs = (n - 1) ** 2 / n * of_runs.var(ddof=1)
    variance_of_probes = (m - 1) ** 2 / m * of_probes.var(ddof=1)
    interaction = 0
    for i, run in enumerate(runs):
        for j, probe in enumerate(probes):
            difference = without(run, probe) - of_runs[i] - of_probes[j] + value
            interaction += difference**2
    interaction *= (n - 1) / n * (m - 1) / m
    return value, variance_of_runs, variance_of_probes, interaction


@pytest.mark.parametrize("method, r", [
    ("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_correlations_and_leads_are_those_of_brute_force(method, r):
    rows = table()
    z, leads = crossed.correlations(
        design_of(rows), rows.y, rows[["wcka", "cka"]], "wcka", method)

    def lead(kept):
        return r(kept.wcka, kept.y)[0] - r(kept.cka, kept.y)[0]

    value, runs, probes, both = brute_force(rows, lead)
    assert leads["cka"].value == pytest.approx(value)
    assert np.tanh(z["wcka"].value) == pytest.approx(r(rows.wcka, rows.y)[0])
    variance = max(runs + probes - both, runs, probes)
    # Of ranks the interaction, a small term, is that of the ranks of all rows.
    rel = 1e-9 if method == "pearson" else 0.05
    assert leads["cka"].error ** 2 == pytest.approx(variance, rel=rel)
    assert set(z) == {"wcka", "cka"} and set(leads) == {"cka"}


def test_means_are_those_of_brute_force():
    rows = table()
    estimate = crossed.means(design_of(rows), rows[["y"]])["y"]
    value, runs, probes, both = brute_force(rows, lambda kept: kept.y.mean())
    assert estimate.value == pytest.approx(value)
    assert estimate.error**2 == pytest.approx(max(runs + probes - both, runs, probes))


def test_shares_of_a_line_are_those_of_brute_force():
    rows = table(within=False)
    shares, leads = crossed.line_shares(
        design_of(rows), rows.y, rows[["wcka", "cka"]], "wcka")

    def share(kept, column):
        pairs = kept.groupby(["a", "b"])[[column, "y"]].mean().reset_index()
        error = spread = 0
        for run in np.unique([pairs.a, pairs.b]):
            held_out = (pairs.a == run) | (pairs.b == run)
            fit = pairs[~held_out]
            line = np.polyfit(fit[column], fit.y, 1)
            test = pairs[held_out]
            error += ((test.y - np.polyval(line, test[column])) ** 2).sum()
            spread += ((test.y - fit.y.mean()) ** 2).sum()
        return 1 - error / spread

    value, runs, probes, _ = brute_force(rows, lambda kept: share(kept, "cka"))
    assert shares["cka"].value == pytest.approx(value)
    assert shares["cka"].error ** 2 == pytest.approx(runs + probes)
    lead = share(rows, "wcka") - share(rows, "cka")
    assert leads["cka"].value == pytest.approx(lead)


def test_shares_of_a_curve_are_those_of_the_max_min_formula():
    rows = table(n_runs=6, within=False)
    share = crossed.curve_shares(design_of(rows), rows.y, rows[["wcka"]])["wcka"]
    pairs = rows.groupby(["a", "b"])[["wcka", "y"]].mean().reset_index()
    error = spread = 0
    for run in range(6):
        held_out = (pairs.a == run) | (pairs.b == run)
        fit, test = pairs[~held_out].sort_values("wcka"), pairs[held_out]
        curve = np.interp(test.wcka, fit.wcka, rising(fit.y.to_numpy()))
        error += ((test.y - curve) ** 2).sum()
        spread += ((test.y - fit.y.mean()) ** 2).sum()
    assert share == pytest.approx(1 - error / spread)


def rising(y):
    """Return the isotonic regression of y by the max-min formula."""
    fitted = np.empty(len(y))
    for i in range(len(y)):
        minima = []
        for j in range(i + 1):
            means = [y[j:k + 1].mean() for k in range(i, len(y))]
            minima.append(min(means))
        fitted[i] = max(minima)
    return fitted


def test_a_curve_explains_more_than_a_line_only_where_there_is_one():
    rng = np.random.default_rng(1)
    a, b = np.triu_indices(40, 1)
    x = rng.random(len(a))
    columns = pd.DataFrame({"wcka": x})

    def shares(y):
        design = Design(a, b)
        line = crossed.line_shares(design, y, columns, "wcka")[0]["wcka"].value
        return line, crossed.curve_shares(design, y, columns)["wcka"]

    noise = 0.1 * rng.standard_normal(len(a))
    line, curve = shares(2 * x + noise)
    explained = np.corrcoef(x, 2 * x + noise)[0, 1] ** 2
    assert line == pytest.approx(explained, abs=0.01)
    assert curve == pytest.approx(line, abs=0.02)
    line, curve = shares((x > 0.5).astype(float))
    assert curve > 0.98 and line == pytest.approx(0.75, abs=0.03)
    line, curve = shares(noise)
    assert abs(line) < 0.02 and curve < 0.02  # out of sample there is nothing to win


def test_order_and_names_of_rows_and_runs_change_nothing():
    rows = table()
    shuffled = rows.sample(frac=1, random_state=1)
    shuffled = shuffled.sort_values(["b", "a"], kind="stable")
    renamed = shuffled.assign(a="run " + shuffled.b.astype(str),
                              b="run " + shuffled.a.astype(str))
    for method in crossed.METHODS:
        estimates = []
        for part in (rows, renamed):
            _, leads = crossed.correlations(
                design_of(part), part.y, part[["wcka", "cka"]], "wcka", method)
            estimates.append(leads["cka"])
        assert estimates[0] == pytest.approx(estimates[1])


def test_a_probe_more_or_less_enters_the_error():
    """With one probe the error is over runs; probes that differ make it larger."""
    rows = table(n_probes=5)
    alone = rows[rows["probe"] == 0]
    one, _ = crossed.correlations(design_of(alone), alone.y, alone[["wcka"]], None)
    assert one["wcka"].df == 6
    all_probes, _ = crossed.correlations(design_of(rows), rows.y, rows[["wcka"]], None)
    over_runs = Design(rows.a, rows.b)
    without_probes, _ = crossed.correlations(over_runs, rows.y, rows[["wcka"]], None)
    assert all_probes["wcka"].error >= without_probes["wcka"].error


def test_the_error_of_a_mean_holds_the_truth_as_often_as_it_says():
    """Runs and probes drawn anew: 95 % intervals hold the truth in 94 % or more."""
    rng = np.random.default_rng(0)
    a, b = np.triu_indices(15, 1)
    held = []
    for _ in range(300):
        of_runs, of_probes = rng.standard_normal(15), rng.standard_normal(12)
        values = of_runs[a] + of_runs[b] + of_probes[:, None]  # (probes, pairs)
        values = values + 0.5 * rng.standard_normal(values.shape)
        probe = np.repeat(np.arange(12), len(a))
        design = Design(np.tile(a, 12), np.tile(b, 12), probe)
        estimate = crossed.means(design, pd.DataFrame({"x": values.ravel()}))["x"]
        held.append(estimate.low <= 0 <= estimate.high)
    assert 0.94 < np.mean(held) <= 1


def test_bad_designs_are_refused():
    with pytest.raises(ValueError, match="three runs, got 2"):
        Design([0, 0], [1, 1])
    rows = table()
    with pytest.raises(ValueError, match="each pair on every probe"):
        part = rows.iloc[:-1]
        crossed.line_shares(design_of(part), part.y, part[["wcka"]], "wcka")
    with pytest.raises(ValueError, match="did you mean 'pearson'"):
        crossed.correlations(design_of(rows), rows.y, rows[["wcka"]], None, "pearsn")


def test_an_estimate_without_error_is_certain():
    assert Estimate(0.0, 0.0, 5).p == 1 and Estimate(0.1, 0.0, 5).p == 0


# ---------------------------------------------------------------------------- strata


def stratified_table(per_stratum, seed):
    """Pairs within two strata of runs whose levels differ, and their truth: r = 0.6."""
    rng = np.random.default_rng(seed)
    tables = []
    for stratum, level in enumerate((0.0, 5.0)):
        a, b = np.triu_indices(per_stratum, 1)
        effects = rng.standard_normal((2, per_stratum))
        similarity = effects[0, a] + effects[0, b]
        follows = 0.6 * effects[0] + 0.8 * effects[1]
        agreement = follows[a] + follows[b]
        names = [f"stratum {stratum}, run {i}" for i in range(per_stratum)]
        tables.append(pd.DataFrame({
            "a": np.array(names)[a], "b": np.array(names)[b],
            "wcka": level + similarity, "agreement": level + agreement}))
    return pd.concat(tables, ignore_index=True)


def strata_of(rows):
    names = pd.unique(rows[["a", "b"]].to_numpy().ravel())
    return {name: name.partition(",")[0] for name in names}


def test_one_stratum_changes_nothing():
    rows = table()
    strata = {str(run): "all" for run in range(7)}
    design = Design(rows.a, rows.b, rows["probe"], strata)
    stratified = crossed.correlations(design, rows.y, rows[["wcka", "cka"]], "wcka")
    plain = crossed.correlations(
        design_of(rows), rows.y, rows[["wcka", "cka"]], "wcka")
    assert stratified == plain


def test_means_of_strata_have_the_error_of_a_stratified_sample():
    """For runs that stand alone it is the textbook's: sum of W^2 s^2 / n."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 8), rng.normal(9, 3, 4)])
    names = [f"run {i:02}" for i in range(12)]
    strata = {name: "wide" if i >= 8 else "narrow" for i, name in enumerate(names)}
    estimate = crossed.means(
        Design(names, names, strata=strata), pd.DataFrame({"x": values}))["x"]
    narrow, wide = values[:8], values[8:]
    variance = (8 / 12) ** 2 * narrow.var(ddof=1) / 8
    variance += (4 / 12) ** 2 * wide.var(ddof=1) / 4
    assert estimate.error**2 == pytest.approx(variance)
    assert estimate.df == 10


@pytest.mark.parametrize("method", crossed.METHODS)
def test_errors_do_not_count_what_strata_differ_by(method):
    """Over many tables the mean variance is that of z; without strata it is larger."""
    values, variances, plain_variances = [], [], []
    for seed in range(150):
        rows = stratified_table(10, seed)
        columns = rows[["wcka"]]
        design = Design(rows.a, rows.b, strata=strata_of(rows))
        z = crossed.correlations(design, rows.agreement, columns, None, method)[0]
        plain = crossed.correlations(
            Design(rows.a, rows.b), rows.agreement, columns, None, method)[0]
        values.append(z["wcka"].value)
        variances.append(z["wcka"].error**2)
        plain_variances.append(plain["wcka"].error**2)
    assert 0.8 < np.mean(variances) / np.var(values) < 1.4
    assert np.mean(plain_variances) > 1.05 * np.mean(variances)


def test_errors_of_lines_do_not_count_what_strata_differ_by():
    values, variances = [], []
    for seed in range(60):
        rows = stratified_table(8, seed)
        columns = rows[["wcka"]].assign(cka=np.sin(np.arange(len(rows))))
        design = Design(rows.a, rows.b, strata=strata_of(rows))
        shares, _ = crossed.line_shares(design, rows.agreement, columns, "wcka")
        values.append(shares["wcka"].value)
        variances.append(shares["wcka"].error**2)
    assert 0.6 < np.mean(variances) / np.var(values) < 2.5


def test_a_stratum_of_one_run_is_joined_with_another():
    design = Design([*"abcd"], [*"bcda"], strata=dict(a="x", b="x", c="x", d="alone"))
    assert design.stratum.tolist() == [0, 0, 0, 0]


def test_a_run_without_a_stratum_is_refused():
    with pytest.raises(ValueError, match="run c has no stratum"):
        Design([*"ab"], [*"bc"], strata=dict(a="x", b="x"))


def test_mean_correlations_leave_one_thing_out_of_all_groups():
    """The error of a mean over groups, which share runs and probes, by brute force."""
    rows = table(n_runs=8)
    groups = (rows.a + rows.b) % 3
    kept = ~((groups == 0) & ((rows.a == 2) | (rows.b == 2)))  # a run not in a group
    rows, groups = rows[kept], groups[kept]

    def mean_lead(kept):
        differences = []
        for _, part in kept.groupby(groups):
            r = part[["y", "wcka", "cka"]].corr().y
            differences.append(r.wcka - r.cka)
        return np.mean(differences)

    r, leads = crossed.mean_correlations(
        design_of(rows), groups, rows.y, rows[["wcka", "cka"]], "wcka")
    value, runs, probes, both = brute_force(rows, mean_lead)
    assert leads["cka"].value == pytest.approx(value)
    assert r["wcka"].value - r["cka"].value == pytest.approx(value)
    variance = max(runs + probes - both, runs, probes)
    assert leads["cka"].error ** 2 == pytest.approx(variance)


def test_one_group_has_the_correlations_of_all_rows():
    rows = table()
    strata = {str(run): "even" if run % 2 else "odd" for run in range(7)}
    design = Design(rows.a, rows.b, rows["probe"], strata)
    columns = rows[["wcka", "cka"]]
    _, expected = crossed.correlations(design, rows.y, columns, "wcka")
    _, leads = crossed.mean_correlations(
        design, np.zeros(len(rows)), rows.y, columns, "wcka")
    assert leads["cka"] == pytest.approx(expected["cka"])
