"""Sentences that are put together from results: none, one, several and all.

``pytest -s -k prints`` prints each of them.
"""

import ast

import numpy as np
import pandas as pd
import pytest
from english import faults_of

from wcka.book import checkout, claims, leads, sentences


@pytest.mark.parametrize("text", [
    "wCKA leads. 1 holds and 2 hold.", "Of 3 claims, 1 holds.",
    "1 of 3 functions gives.", "ρ of wCKA is higher.",
    "None of 2 is open; 2 are.", "12 % of them are."])
def test_sentences_have_no_faults(text):
    assert faults_of(text) == []


@pytest.mark.parametrize("text", [
    "it holds.", "It holds", "It holds for .", "It holds for.", "It is is so.",
    "It holds  twice.", "Of 3 claims, 1 hold.", "Of 3 claims, 2 holds.", "It is nan.",
    "1 of 3 functions give our value.", "2 of 3 functions gives our value.",
    "It beats 12% of them.", "It holds ().", "Lower for a, and."])
def test_faults_are_seen(text):
    assert faults_of(text)


# ------------------------------------------------------------------- words of sentences


def test_names_of_measures_keep_their_small_letters():
    assert sentences.capitalised("wCKA leads") == "wCKA leads"
    assert sentences.capitalised("dCKA (seed) follows") == "dCKA (seed) follows"
    assert sentences.capitalised("the gap") == "The gap"
    assert sentences.capitalised("") == ""


@pytest.mark.parametrize(("value", "form", "least", "most"), [
    (2.4e-12, ".0e", "2e-12", "3e-12"), (9.6e-5, ".0e", "9e-05", "1e-04"),
    (2e-12, ".0e", "2e-12", "2e-12"), (np.float64(0.1), ".4f", "0.1000", "0.1000"),
    (0.98765, ".4f", "0.9876", "0.9877"), (-0.25, ".1f", "-0.3", "-0.2"),
    (1234.5, ",.0f", "1,234", "1,235"), (0.0, ".0e", "0e+00", "0e+00"),
])
def test_bounds_are_rounded_outwards(value, form, least, most):
    assert sentences.bound(value, form, lower=True) == least
    assert sentences.bound(value, form) == most


COUNTED = {
    (): "No claim was tested.",
    ("holds",): "The one claim that was tested holds.",
    ("partly",): "The one claim that was tested holds in part.",
    ("fails",): "The one claim that was tested fails.",
    ("cannot be told",):
        "The one claim that was tested cannot be told from these runs.",
    ("holds", "holds"): "All 2 claims hold.",
    ("cannot be told",) * 3: "All 3 claims cannot be told from these runs.",
    ("fails", "holds", "fails"): "Of 3 claims, 1 holds and 2 fail.",
    ("partly", "holds", "cannot be told", "fails"):
        "Of 4 claims, 1 holds, 1 holds in part, 1 fails and 1 cannot be told from "
        "these runs.",
}


def counted(verdicts):
    return sentences.count_sentence(verdicts, "claim", "claims")


# --------------------------------------------------------------------- leads and rivals


FACTORS = ("epoch", "seed", "strategy")
NOT_DIFFERENT = "not significantly different from that of any other measure, for any "


def comparisons(*leads_of_factors):
    """Comparisons with CKA: a significant lead of wCKA, none, or a lag, by factor."""
    rows = {}
    for factor, lead in zip(FACTORS, leads_of_factors):
        p = 0.001 if abs(lead) == 1 else 0.5
        rows[factor, "cka"] = {"difference": lead / 10, "p model": p}
    table = pd.DataFrame(rows).T
    table.index.names = ["differs", "measure"]
    return table


LED = {  # 1 is a significant lead, .1 one that is not significant
    (0.1, -0.1, 0.1): f"r is {NOT_DIFFERENT}factor.",
    (0.1, 1, -0.1): "r is significantly higher for seed (than CKA).",
    (-1, 0.1, 0.1): "r is significantly lower for epoch (than CKA).",
    (1, 1, -1):
        "r is significantly higher for epoch (than CKA) and seed (than CKA) and "
        "significantly lower for strategy (than CKA).",
    (1, 1, 1):
        "r is significantly higher for epoch (than CKA), seed (than CKA) and strategy "
        "(than CKA).",
}


def led(leads_of_factors):
    return leads.lead_sentence(comparisons(*leads_of_factors), "r")


RIVALLED = {
    (0.1, 1, 0.1): "CKA has a higher r than wCKA for no factor.",
    (0.1, -0.1, 1): "CKA has a higher r than wCKA for seed, not significantly.",
    (0.1, -1, 1): "CKA has a higher r than wCKA for seed, significantly.",
    (-0.1, -1, 1):
        "CKA has a higher r than wCKA for epoch and seed, significantly for seed.",
    (-1, -1, -1):
        "CKA has a higher r than wCKA for epoch, seed and strategy, significantly.",
}


def rivalled(leads_of_factors):
    return leads.rival_sentence(comparisons(*leads_of_factors), "cka", "CKA")


BETTER = {
    ((1, 0.1, -0.1),):
        "None of the measures on the probe and of the baselines follows agreement "
        "significantly better than wCKA, for any factor.",
    ((0.1, -1, 0.1),):
        "The gap (seed) follows agreement significantly better than wCKA.",
    ((-1, -1, 0.1), (0.1, 0.1, -1)):
        "The gap (epoch, seed) and CKA (strategy) follow agreement significantly "
        "better than wCKA.",
}


def better(leads_of_rivals):
    tables = []
    for rival, leads_of_factors in zip(("gap", "cka"), leads_of_rivals):
        tables.append(comparisons(*leads_of_factors).rename({"cka": rival}, level=1))
    results = pd.concat(tables)
    names = {"gap": "the gap", "cka": "CKA"}
    known = results.index.unique("measure")
    return leads.better_rivals_sentence(results, {name: names[name] for name in known})


# ------------------------------------------------------------------- those of chapters


CHANGED = {
    ((), ()): "Heads are neither.",
    (("CKA",), ()): "Heads are significantly more similar by CKA.",
    ((), ("CKA", "dCKA", "wCKA")):
        "Heads are significantly less similar by CKA, dCKA and wCKA.",
    (("CKA", "dCKA"), ("wCKA",)):
        "Heads are significantly more similar by CKA and dCKA and significantly less "
        "similar by wCKA.",
}


def changed(higher_and_lower):
    return sentences.higher_and_lower(
        "Heads are", *higher_and_lower, "more similar by", "less similar by", "neither")


CHEAPER = {
    (): "No other measure takes fewer multiply-adds than wCKA at these sizes.",
    ("CKA",): "CKA (up to 1,000 probes) takes fewer multiply-adds than wCKA.",
    ("CKA", "dCKA", "Procrustes"):
        "CKA (up to 1,000 probes), dCKA (up to 1,000 probes) and Procrustes (up to "
        "1,000 probes) take fewer multiply-adds than wCKA.",
}


def cheaper(measures):
    return sentences.cheaper_sentence(dict.fromkeys(measures, 1000))


WRONG = {
    (): "In this run copies are all faithful, or all changed, so that there is nothing "
        "to put in order.",
    ("the cosine",):
        "The cosine puts 1.2 % of the pairs with a stranger and 0.0 % of those with a "
        "changed copy in the wrong order. Guessing would get 50 % wrong.",
    ("wCKA", "the cosine"):
        "wCKA puts 1.2 % of the pairs with a stranger and 0.0 % of those with a "
        "changed copy in the wrong order; the cosine puts 1.2 % of the pairs with a "
        "stranger and 0.0 % of those with a changed copy in the wrong order. Guessing "
        "would get 50 % wrong.",
}


def wrong(scores):
    return sentences.wrong_order_sentence(dict.fromkeys(scores, (0.012, 0.0)))


BEATEN = {
    ("one shape",):
        "Those beat 12 % of random ones in disagreement and 50 % in accuracy (one "
        "shape).",
    ("one shape", "several shapes"):
        "Those beat 12 % of random ones in disagreement and 50 % in accuracy (one "
        "shape), and 12 % in disagreement and 50 % in accuracy (several shapes).",
}


def beaten(sources):
    shares = {"disagreement": 0.12, "accuracy": 0.5}
    return sentences.beaten_sentence("Those", dict.fromkeys(sources, shares))


CHANCE = {
    (False,) * 3:
        "Choosing by low wCKA does not beat chance significantly in any respect.",
    (True, False, False):
        "Choosing by low wCKA beats chance significantly in a, not in the other "
        "respects.",
    (True, True, False):
        "Choosing by low wCKA beats chance significantly in a and b, not in c.",
    (True,) * 3:
        "Choosing by low wCKA beats chance significantly in every respect: a, b and c.",
}


def chance(is_better):
    return sentences.chance_sentence("low wCKA", dict(zip("abc", is_better)))


EQUAL = {
    ((), 0): "No other library is installed here.",
    ((), 3): "No function gives our value.",
    ((1e-16,), 1): "The only function gives our value to 1e-16 or better.",
    ((1e-16,), 3): "1 of 3 functions gives our value to 1e-16 or better.",
    ((1e-16, 2.4e-12), 3): "2 of 3 functions give our value to 3e-12 or better.",
    ((1e-16, 2e-12), 2): "All 2 functions give our value to 2e-12 or better.",
}


def equal(differences_and_number):
    return sentences.equal_values_sentence(*differences_and_number)


ASSEMBLED = [
    (counted, COUNTED), (led, LED), (rivalled, RIVALLED), (better, BETTER),
    (changed, CHANGED), (cheaper, CHEAPER), (wrong, WRONG), (beaten, BEATEN),
    (chance, CHANCE), (equal, EQUAL)]
CASES = []
for function, expected in ASSEMBLED:
    for number, case in enumerate(expected):
        CASES.append(pytest.param(
            function, case, expected[case], id=f"{function.__name__}-{number}"))


@pytest.mark.parametrize(("function", "case", "expected"), CASES)
def test_prints_each_case_of_assembled_sentences(function, case, expected):
    text = function(case)
    print(f"\n{function.__name__}, {case}: {text}")
    assert text == expected
    assert faults_of(text) == []


# -------------------------------------------------------------- sentences of verdicts


def sentences_by_verdict(path):
    """Return the dicts of a chapter that hold a text for each verdict, and the cell.

    A clause that is put into a sentence stands in a dict whose name ends in CLAUSES.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Assign):
            name = node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""
            for part in ast.walk(node.value):
                if isinstance(part, ast.Dict):
                    keys = [getattr(key, "value", None) for key in part.keys]
                    if "cannot be told" in keys:
                        texts = dict(zip(keys, map(ast.literal_eval, part.values)))
                        found.append((name, texts))
    return found


@pytest.mark.parametrize("path", checkout.chapters(), ids=lambda path: path.stem)
def test_prints_the_sentence_of_each_verdict(path):
    for name, texts in sentences_by_verdict(path):
        assert list(texts) == list(claims.VERDICTS), name
        assert len(set(texts.values())) == len(texts), name
        for verdict, text in texts.items():
            sentence = text
            if name.endswith("CLAUSES"):
                sentence = sentences.capitalised(f"{text}.")
            print(f"\n{path.stem}, {verdict}: {sentence}")
            assert faults_of(sentence) == [], sentence
