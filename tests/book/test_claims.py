"""Verdicts and their words, from tables of comparisons made by hand."""

import pandas as pd
import pytest

from wcka.book import verdicts


def comparisons(**measures):
    """Rows of one factor: measure=(lead of wCKA, p over starts); wCKA's r is 0.6."""
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


def test_strongest():
    assert verdicts.strongest_verdict(AHEAD) == "holds"
    assert verdicts.strongest_verdict(BEHIND) == "fails"
    assert verdicts.strongest_verdict(UNSURE) == "cannot be told"
    one_significant = comparisons(cka=(0.1, 0.2), dcka=(0.1, 0.01))
    assert verdicts.strongest_verdict(one_significant) == "partly"


def test_equivalence():
    assert verdicts.equivalence_verdict(UNSURE) == "holds"
    assert verdicts.equivalence_verdict(UNSURE, AHEAD) == "fails"


@pytest.mark.parametrize(("lead", "p", "expected"), [
    (-0.2, 0.2, "fails"), (0.06, 0.2, "cannot be told"), (-0.06, 0.2, "cannot be told"),
    (0.04, 0.001, "holds")])
def test_equivalence_is_judged_by_the_interval_of_a_difference(lead, p, expected):
    assert verdicts.equivalence_verdict(comparisons(cka=(lead, p))) == expected


def test_who_is_significantly_ahead():
    # Of nine differences, corrected for their number, p = 0.01 is not significant.
    expected = "seed (than Procrustes, dCKA); strategy (than dCKA)"
    assert verdicts.significant_differences(RESULTS, 1) == expected
    expected = "seed (than Procrustes, CKA, dCKA)"
    assert verdicts.significant_differences(RESULTS.loc[["seed"]], 1) == expected
    assert verdicts.significant_differences(RESULTS, -1) == "strategy (than Procrustes)"
    assert verdicts.significant_differences(RESULTS.loc[["epoch"]], 1) == "no factor"
    factors = verdicts.factors_led_by(RESULTS, "procrustes", significantly=True)
    assert factors == "strategy"
    assert verdicts.factors_led_by(RESULTS, "cka", significantly=False) == "epoch"
    assert verdicts.factors_led_by(RESULTS, "cka", significantly=True) == "no factor"


def test_significance_is_over_starts_and_not_by_the_papers_test():
    """At p = 0.2 over starts, the paper's test has 0.02 here."""
    lead, lag = comparisons(cka=(0.1, 0.2)), comparisons(cka=(-0.1, 0.2))
    results = pd.concat({"seed": lead, "epoch": lag}, names=["differs"])
    assert verdicts.significant_differences(results, 1) == "no factor"
    assert verdicts.significant_differences(results, -1) == "no factor"
    assert verdicts.factors_led_by(results, "cka", significantly=False) == "epoch"
    assert verdicts.factors_led_by(results, "cka", significantly=True) == "no factor"


def test_only_leads_count_as_significant():
    results = {"pearson": RESULTS, "spearman": RESULTS}
    claim = verdicts.significance_claim("Fig. 3", results, ["strategy"])
    assert claim.verdict == "fails"  # one difference is significant: a rival's lead
    over_starts = "0 ahead and 2 behind over starts (4 ahead and 2 behind at 0.05)"
    assert over_starts in claim.found
    assert "of 6 comparisons 2 ahead and 2 behind by the paper's test" in claim.found
    assert verdicts.significance_claim("Fig. 3", results, ["seed"]).verdict == "partly"


@pytest.mark.parametrize(("lows", "expected"), [
    ((0.1, 0.2), "holds"), ((0.1, -0.1), "partly"), ((-0.1, -0.1), "cannot be told"),
    ((0.1, -0.9), "fails")])
def test_changes_are_increases_if_their_intervals_are_above_zero(lows, expected):
    changes = pd.DataFrame({"low": lows}, ["cka", "wcka"])
    changes["value"] = changes.low + 0.2
    changes["high"] = changes.low + 0.4
    text, verdict = verdicts.increase_verdict(changes)
    assert verdict == expected
    assert text.startswith(f"CKA {lows[0] + 0.2:+.2f} ({lows[0]:+.2f} to")


def test_leads_as_text():
    table = verdicts.leads_table({"pearson": RESULTS, "spearman": RESULTS})
    dcka = table.loc[("seed", "dCKA")]
    assert dcka["Pearson's r", "correlation"] == "0.30 (0.20 to 0.40)"
    assert dcka["Spearman's ρ", "wCKA's lead"] == "+0.30 (+0.25 to +0.35)"
    assert table.loc[("seed", "wCKA"), ("Pearson's r", "wCKA's lead")] == ""


@pytest.mark.parametrize(("rival", "verdict"), [(0.5, "holds"), (0.7, "partly")])
def test_a_reading_may_leave_wcka_as_it_is(rival, verdict):
    reading = {"on the probe": pd.DataFrame({"seed": [rival]}, ["cka"])}
    results = {"pearson": RESULTS}
    claim, = verdicts.strongest_claims("3.2", results, ["seed"], reading)
    assert claim.verdict == verdict
    assert claim.found.endswith(f"; on the probe: CKA {rival:.2f}")


@pytest.mark.parametrize(("rival", "verdict"), [(0.2, "holds"), (0.5, "partly")])
def test_what_holds_in_one_reading_only_holds_in_part(rival, verdict):
    learned = pd.DataFrame({"seed": [rival, 0.4]}, ["cka", "wcka"])
    results = {"pearson": RESULTS, "spearman": RESULTS}
    claims = verdicts.strongest_claims(
        "3.2", results, ["seed", "strategy"], {"only the best": learned})
    assert [claim.verdict for claim in claims] == [verdict, "fails", "holds", "fails"]
    expected = f"wCKA 0.60 (0.50 to 0.70); only the best: CKA {rival:.2f}, wCKA 0.40"
    assert expected in claims[0].found
    assert "only the best" not in claims[1].found + claims[2].found


def test_an_insignificant_lead_tells_nothing():
    rows = comparisons(cka=(0.1, 0.2), dcka=(0.01, 0.6))
    assert verdicts.strongest_verdict(rows) == "cannot be told"
