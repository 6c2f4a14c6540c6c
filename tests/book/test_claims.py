"""Leads in words, from tables of comparisons made by hand."""

import pandas as pd

from wcka.book import leads


def comparisons(**measures):
    """Rows of one factor: measure=(lead of wCKA, p over runs); wCKA's r is 0.6."""
    rows = {}
    for measure, (lead, p) in {**measures, "wcka": (0, float("nan"))}.items():
        rows[measure] = {
            "r": 0.6 - lead,
            "model low": 0.5 - lead,
            "model high": 0.7 - lead,
            "difference": lead,
            "model difference low": lead - 0.05,
            "model difference high": lead + 0.05,
            "p model": p,
            "p Fisher": p / 10,
        }
    return pd.DataFrame(rows).T.rename_axis("measure")


AHEAD = comparisons(procrustes=(0.2, 0.0001), cka=(0.1, 0.01), dcka=(0.3, 0.002))
BEHIND = comparisons(procrustes=(-0.2, 0.0001), cka=(0.1, 0.01), dcka=(0.3, 0.002))
UNSURE = comparisons(procrustes=(0.01, 0.7), cka=(-0.01, 0.6), dcka=(0.02, 0.5))
TABLES = {"epoch": UNSURE, "seed": AHEAD, "strategy": BEHIND}
RESULTS = pd.concat(TABLES, names=["differs"])


def test_who_is_significantly_ahead():
    # Of nine differences, corrected for their number, p = 0.01 is not significant.
    expected = ["seed (than Procrustes, dCKA)", "strategy (than dCKA)"]
    assert leads.significant_differences(RESULTS, 1) == expected
    expected = ["seed (than Procrustes, CKA, dCKA)"]
    assert leads.significant_differences(RESULTS.loc[["seed"]], 1) == expected
    assert leads.significant_differences(RESULTS, -1) == ["strategy (than Procrustes)"]
    assert leads.significant_differences(RESULTS.loc[["epoch"]], 1) == []
    factors = leads.factors_led_by(RESULTS, "procrustes", significantly=True)
    assert factors == ["strategy"]
    assert leads.factors_led_by(RESULTS, "cka", significantly=False) == ["epoch"]
    assert leads.factors_led_by(RESULTS, "cka", significantly=True) == []


def test_significance_is_over_runs_and_not_by_the_papers_test():
    """At p = 0.2 over runs, the paper's test has 0.02 here."""
    lead, lag = comparisons(cka=(0.1, 0.2)), comparisons(cka=(-0.1, 0.2))
    results = pd.concat({"seed": lead, "epoch": lag}, names=["differs"])
    assert leads.significant_differences(results, 1) == []
    assert leads.significant_differences(results, -1) == []
    assert leads.factors_led_by(results, "cka", significantly=False) == ["epoch"]
    assert leads.factors_led_by(results, "cka", significantly=True) == []


def test_leads_as_text():
    table = leads.table({"pearson": RESULTS, "spearman": RESULTS})
    dcka = table.loc[("seed", "dCKA")]
    assert dcka["Pearson's r", "correlation"] == "0.30 (0.20 to 0.40)"
    assert dcka["Spearman's ρ", "wCKA's lead"] == "+0.30 (+0.25 to +0.35)"
    assert table.loc[("seed", "wCKA"), ("Pearson's r", "wCKA's lead")] == ""
