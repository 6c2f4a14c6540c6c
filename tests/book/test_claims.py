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
    assert verdicts.strongest(AHEAD) == "holds"
    assert verdicts.strongest(BEHIND) == "fails"
    assert verdicts.strongest(UNSURE) == "cannot be told"
    one_significant = comparisons(cka=(0.1, 0.2), dcka=(0.1, 0.01))
    assert verdicts.strongest(one_significant) == "partly"


def test_similar():
    assert verdicts.similar(UNSURE) == "holds"
    assert verdicts.similar(UNSURE, AHEAD) == "fails"
    assert verdicts.similar(comparisons(cka=(-0.2, 0.2))) == "fails"
    assert verdicts.similar(comparisons(cka=(0.06, 0.2))) == "cannot be told"
    assert verdicts.similar(comparisons(cka=(-0.06, 0.2))) == "cannot be told"
    assert verdicts.similar(comparisons(cka=(0.04, 0.001))) == "holds"


def test_who_is_significantly_ahead():
    expected = "seed (than Procrustes, CKA, dCKA); strategy (than CKA, dCKA)"
    assert verdicts.surely(RESULTS, 1) == expected
    assert verdicts.surely(RESULTS, -1) == "strategy (than Procrustes)"
    assert verdicts.surely(RESULTS.loc[["epoch"]], 1) == "no factor"
    assert verdicts.ahead(RESULTS, "procrustes", sure=True) == "strategy"
    assert verdicts.ahead(RESULTS, "cka", sure=False) == "epoch"
    assert verdicts.ahead(RESULTS, "cka", sure=True) == "no factor"


def test_significance_is_over_starts_and_not_by_the_papers_test():
    """At p = 0.2 over starts, the paper's test has 0.02 here."""
    lead, lag = comparisons(cka=(0.1, 0.2)), comparisons(cka=(-0.1, 0.2))
    results = pd.concat({"seed": lead, "epoch": lag}, names=["differs"])
    assert verdicts.surely(results, 1) == verdicts.surely(results, -1) == "no factor"
    assert verdicts.ahead(results, "cka", sure=False) == "epoch"
    assert verdicts.ahead(results, "cka", sure=True) == "no factor"


def test_only_leads_count_as_significant():
    results = {"pearson": RESULTS, "spearman": RESULTS}
    claim = verdicts.significant("Fig. 3", results, ["strategy"])
    assert claim.verdict == "fails"  # one difference is significant: a rival's lead
    over_starts = "0 ahead and 2 behind over starts (4 ahead and 2 behind at 0.05)"
    assert over_starts in claim.found
    assert "of 6 comparisons 2 ahead and 2 behind by the paper's test" in claim.found
    assert verdicts.significant("Fig. 3", results, ["seed"]).verdict == "partly"


@pytest.mark.parametrize(("lows", "expected"), [
    ((0.1, 0.2), "holds"), ((0.1, -0.1), "partly"), ((-0.1, -0.1), "cannot be told"),
    ((0.1, -0.9), "fails")])
def test_raised(lows, expected):
    changes = pd.DataFrame({"low": lows}, ["cka", "wcka"])
    changes["value"] = changes.low + 0.2
    changes["high"] = changes.low + 0.4
    text, verdict = verdicts.raised(changes)
    assert verdict == expected
    assert text.startswith(f"CKA {lows[0] + 0.2:+.2f} ({lows[0]:+.2f} to")


def test_leads_as_text():
    table = verdicts.leads({"pearson": RESULTS, "spearman": RESULTS})
    dcka = table.loc[("seed", "dCKA")]
    assert dcka["Pearson's r", "correlation"] == "0.30 (0.20 to 0.40)"
    assert dcka["Spearman's ρ", "wCKA's lead"] == "+0.30 (+0.25 to +0.35)"
    assert table.loc[("seed", "wCKA"), ("Pearson's r", "wCKA's lead")] == ""


@pytest.mark.parametrize(("rival", "verdict"), [(0.5, "holds"), (0.7, "partly")])
def test_a_reading_may_leave_wcka_as_it_is(rival, verdict):
    reading = {"on the probe": pd.DataFrame({"seed": [rival]}, ["cka"])}
    results = {"pearson": RESULTS}
    claim, = verdicts.strongest_by_factor("3.2", results, ["seed"], reading)
    assert claim.verdict == verdict
    assert claim.found.endswith(f"; on the probe: CKA {rival:.2f}")


@pytest.mark.parametrize(("rival", "verdict"), [(0.2, "holds"), (0.5, "partly")])
def test_what_holds_in_one_reading_only_holds_in_part(rival, verdict):
    learned = pd.DataFrame({"seed": [rival, 0.4]}, ["cka", "wcka"])
    results = {"pearson": RESULTS, "spearman": RESULTS}
    claims = verdicts.strongest_by_factor("3.2", results, ["seed", "strategy"],
                                          {"only the best": learned})
    assert [claim.verdict for claim in claims] == [verdict, "fails", "holds", "fails"]
    expected = f"wCKA 0.60 (0.50 to 0.70); only the best: CKA {rival:.2f}, wCKA 0.40"
    assert expected in claims[0].found
    assert "only the best" not in claims[1].found + claims[2].found


def test_an_insignificant_lead_tells_nothing():
    rows = comparisons(cka=(0.1, 0.2), dcka=(0.01, 0.6))
    assert verdicts.strongest(rows) == "cannot be told"
