"""Verdicts and their words, from tables of comparisons made by hand."""

import pandas as pd
import pytest

from wcka.book import verdicts


def comparisons(**measures):
    """Rows of one factor: measure=(lead of wCKA, p over starts); wCKA's own r is 0.6."""
    rows = {m: {"r": 0.6 - lead, "model low": 0.5 - lead, "model high": 0.7 - lead,
                "difference": lead, "model difference low": lead - 0.05,
                "model difference high": lead + 0.05, "p model": p, "p Fisher": p / 10}
            for m, (lead, p) in {**measures, "wcka": (0, float("nan"))}.items()}
    return pd.DataFrame(rows).T.rename_axis("measure")


AHEAD = comparisons(procrustes=(0.2, 0.0001), cka=(0.1, 0.01), dcka=(0.3, 0.002))
BEHIND = comparisons(procrustes=(-0.2, 0.0001), cka=(0.1, 0.01), dcka=(0.3, 0.002))
UNSURE = comparisons(procrustes=(0.01, 0.7), cka=(-0.01, 0.6), dcka=(0.02, 0.5))
RESULTS = pd.concat({"epoch": UNSURE, "seed": AHEAD, "strategy": BEHIND}, names=["differs"])


def test_strongest():
    assert verdicts.strongest(AHEAD) == "holds"
    assert verdicts.strongest(BEHIND) == "fails"
    assert verdicts.strongest(UNSURE) == "cannot be told"
    assert verdicts.strongest(comparisons(cka=(0.1, 0.2), dcka=(0.1, 0.01))) == "partly"


def test_similar():
    assert verdicts.similar(UNSURE) == "holds"
    assert verdicts.similar(UNSURE, AHEAD) == "fails"
    assert verdicts.similar(comparisons(cka=(0.08, 0.2))) == "cannot be told"


def test_who_is_surely_ahead():
    expected = "seed (than Procrustes, CKA, dCKA); strategy (than CKA, dCKA)"
    assert verdicts.surely(RESULTS, 1) == expected
    assert verdicts.surely(RESULTS, -1) == "strategy (than Procrustes)"
    assert verdicts.surely(RESULTS.loc[["epoch"]], 1) == "no factor"
    assert verdicts.ahead(RESULTS, "procrustes", sure=True) == "strategy"
    assert verdicts.ahead(RESULTS, "cka", sure=False) == "epoch"
    assert verdicts.ahead(RESULTS, "cka", sure=True) == "no factor"


def test_only_leads_count_as_significant():
    both = {"pearson": RESULTS, "spearman": RESULTS}
    claim = verdicts.significant("Fig. 3", both, ["strategy"])
    assert claim.verdict == "fails"  # one is significant, but it is another's lead
    assert "0 ahead and 2 behind over starts (4 ahead and 2 behind at 0.05)" in claim.found
    assert "of 6 comparisons 2 ahead and 2 behind by the paper's test" in claim.found
    assert verdicts.significant("Fig. 3", both, ["seed"]).verdict == "partly"


@pytest.mark.parametrize(("lows", "expected"), [
    ((0.1, 0.2), "holds"), ((0.1, -0.1), "partly"), ((-0.1, -0.1), "cannot be told"),
    ((0.1, -0.9), "fails")])
def test_raised(lows, expected):
    changes = pd.DataFrame([(low + 0.2, low, low + 0.4) for low in lows], ["cka", "wcka"],
                           ["value", "low", "high"])
    words, verdict = verdicts.raised(changes)
    assert verdict == expected and words.startswith(f"CKA {lows[0] + 0.2:+.2f} ({lows[0]:+.2f} to")


def test_words():
    table = verdicts.leads({"pearson": RESULTS, "spearman": RESULTS})
    assert table.loc[("seed", "dCKA"), ("Pearson's r", "correlation")] == "0.30 (0.20 to 0.40)"
    assert table.loc[("seed", "dCKA"), ("Spearman's ρ", "wCKA's lead")] == "+0.30 (+0.25 to +0.35)"
    assert table.loc[("seed", "wCKA"), ("Pearson's r", "wCKA's lead")] == ""


@pytest.mark.parametrize(("rival", "verdict"), [(0.5, "holds"), (0.7, "partly")])
def test_a_reading_may_leave_wcka_as_it_is(rival, verdict):
    row, = verdicts.strongest_by_factor("3.2", {"pearson": RESULTS}, ["seed"],
                                      {"on the probe": pd.DataFrame({"seed": [rival]}, ["cka"])})
    assert row.verdict == verdict
    assert row.found.endswith(f"; on the probe: CKA {rival:.2f}")


@pytest.mark.parametrize(("rival", "verdict"), [(0.2, "holds"), (0.5, "partly")])
def test_what_holds_in_one_reading_only_holds_in_part(rival, verdict):
    learned = pd.DataFrame({"seed": [rival, 0.4]}, ["cka", "wcka"])
    rows = verdicts.strongest_by_factor("3.2", {"pearson": RESULTS, "spearman": RESULTS},
                                      ["seed", "strategy"], {"only the best": learned})
    assert [row.verdict for row in rows] == [verdict, "fails", "holds", "fails"]
    assert f"wCKA 0.60 (0.50 to 0.70); only the best: CKA {rival:.2f}, wCKA 0.40" in rows[0].found
    assert "only the best" not in rows[1].found + rows[2].found


def test_an_insignificant_lead_tells_nothing():
    assert verdicts.strongest(comparisons(cka=(0.1, 0.2), dcka=(0.01, 0.6))) == "cannot be told"
