"""Rules: symmetric, met and corrected; verdicts from stored numbers alone."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wcka.book import claims, records, rules
from wcka.book.rules import MARGIN, NO, OPEN, RULES, YES, Finding, Part

NUMBERS = st.floats(-1, 1)
ERRORS = st.floats(0.001, 0.5)


def findings_with(key, finding):
    """Findings of chapter 3 that say nothing, but for one."""
    of_all = {name: Finding([]) for name in rules.statements("03")}
    return {**of_all, key: finding}


def verdict_of(key, *parts, margin=MARGIN):
    judged = rules.judge("03", findings_with(key, Finding(parts)), margin)
    return next(claim for claim in judged if claim.key == key).verdict


# Each rule, and the point that numbers of opposite answers are reflections in: halfway
# between the two limits.
MIDDLES = {"higher": MARGIN / 2, "large": MARGIN, "small": MARGIN, "fact": 0.5}


@given(value=NUMBERS, error=ERRORS)
@pytest.mark.parametrize("name", MIDDLES)
def test_rules_are_as_easy_to_fail_as_to_hold(name, value, error):
    part = Part("x", value, error, df=20)
    mirrored = part._replace(value=2 * MIDDLES[name] - value)
    rule = RULES[name]
    assert rule.yes(part, MARGIN) == pytest.approx(rule.no(mirrored, MARGIN))


@pytest.mark.parametrize("name", RULES)
def test_every_rule_can_be_met_in_both_ways(name):
    values = np.linspace(-1, 1, 201)
    answers = set()
    for value in values:
        part = Part("x", value, 0.01, df=50)
        answers.add((RULES[name].yes(part, MARGIN) < 0.025,
                     RULES[name].no(part, MARGIN) < 0.025))
    assert {(True, False), (False, True)} <= answers


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_that_of_its_definition(p):
    corrected = rules.holm(p)
    order = np.argsort(p, kind="stable")
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1, (len(p) - rank) * p[i]))
        assert corrected[i] == pytest.approx(highest)


def test_holm_keeps_false_answers_of_a_family_below_the_level():
    """20 true zeros: one is called higher in less than 2.5 % of families."""
    rng = np.random.default_rng(0)
    wrong = 0
    for values in rng.standard_normal((2000, 20)):
        p = rules.holm(stats.norm.sf(values))
        wrong += p.min() < rules.LEVEL / 2
    assert wrong / 2000 < 0.035


@given(st.lists(st.sampled_from([YES, NO, OPEN]), max_size=8))
def test_an_open_part_that_could_change_the_verdict_leaves_it_open(answers):
    verdict = rules.fold(answers)
    outcomes = set()
    for i in range(2 ** answers.count(OPEN)):
        decided = []
        bits = iter(f"{i:08b}"[::-1])
        for answer in answers:
            decided.append((YES if next(bits) == "1" else NO)
                           if answer == OPEN else answer)
        outcomes.add(rules.fold(decided))
    if verdict == "cannot be told":
        assert len(outcomes) > 1 or not answers
    else:
        assert outcomes == {verdict}
    # Yes and no are treated alike.
    swap = {YES: NO, NO: YES, OPEN: OPEN}
    mirrored = {"holds": "fails", "fails": "holds"}
    assert rules.fold([swap[a] for a in answers]) == mirrored.get(verdict, verdict)


def test_verdicts_of_a_lead():
    sure, unsure = 0.01, 0.2
    assert verdict_of("linear", Part("CKA", 0.3, sure)) == "holds"
    assert verdict_of("linear", Part("CKA", -0.3, sure)) == "fails"
    assert verdict_of("linear", Part("CKA", 0.0, sure)) == "fails"  # none that matters
    assert verdict_of("linear", Part("CKA", 0.05, unsure)) == "cannot be told"
    both = Part("CKA", 0.3, sure), Part("dCKA", -0.3, sure)
    assert verdict_of("linear", *both) == "partly"
    # A wider margin only changes what is called no lead.
    assert verdict_of("linear", Part("CKA", 0.0, 0.04), margin=0.05) == "cannot be told"


def test_a_family_is_corrected_together():
    """A p-value of 0.02 in one direction: alone significant, not beside 17 others."""
    part = Part("CKA", 0.5, 0.5 / stats.norm.isf(0.02), df=1e9)
    assert verdict_of("stronger-pearson", part) == "holds"
    found = findings_with("stronger-pearson", Finding([part]))
    found["higher-spearman"] = Finding([Part("x", 0.0, 1.0)] * 17)
    judged = {claim.key: claim.verdict for claim in rules.judge("03", found)}
    assert judged["stronger-pearson"] == "cannot be told"


def test_words_of_a_finding():
    parts = [Part("CKA", 0.3, 0.01), Part("dCKA", -0.3, 0.01), Part("n", 1.0)]
    parts.append(Part("it is so", 1.0, rule="fact"))
    found = findings_with("linear", Finding(parts, "over 60 starts"))
    text = next(c.found for c in rules.judge("03", found) if c.key == "linear")
    assert text == ("higher: CKA +0.30 (+0.28 to +0.32), n 1; "
                    "not higher: dCKA -0.30 (-0.32 to -0.28); so: it is so; "
                    "over 60 starts")


@pytest.mark.parametrize(("value", "error"), [(0.2, 0.12), (0.05, 0.1), (-0.1, 0.15)])
def test_what_cannot_be_told_says_how_large_an_experiment_would_tell(value, error):
    """With one test, 1.96 errors from zero, or from the margin, are needed."""
    found = findings_with("linear", Finding([Part("CKA", value, error, df=1e9)]))
    text = next(c.found for c in rules.judge("03", found) if c.key == "linear")
    factor = float(re.search(r"an experiment (\S+) times as large would tell", text)[1])
    distance = max(value, MARGIN - value)
    expected = (stats.norm.isf(0.025) * error / distance) ** 2
    assert factor == pytest.approx(expected, rel=0.02, abs=0.06)


def size_that_tells(*parts):
    """Return the size in the words of a finding on "linear", the one of its family."""
    found = findings_with("linear", Finding(list(parts)))
    text = next(c.found for c in rules.judge("03", found) if c.key == "linear")
    return float(re.search(r"an experiment (\S+) times as large would tell", text)[1])


def test_a_verdict_is_told_before_all_parts_are():
    """One yes and one no make "partly", however open the third part is."""
    near_zero = Part("CKA", 0.001, 0.1, 1e9)
    for_yes = Part("dCKA", 0.5, 0.02, 1e9)
    for_no = Part("Procrustes", -0.1, 0.1, 1e9)
    of_verdict = size_that_tells(near_zero, for_yes, for_no)
    # Holm: of three tests in the direction of no, it has the smallest p-value.
    assert of_verdict == pytest.approx((stats.norm.isf(0.025 / 3) / 2) ** 2, abs=0.06)


def test_degrees_of_freedom_grow_with_an_experiment():
    part = Part("CKA", 0.2, 0.1, 4)
    size = size_that_tells(part)
    error, df = 0.1 / size**0.5, 4 * size
    assert stats.t.sf(0.2 / error, df) == pytest.approx(0.025, rel=0.1)
    assert size < (stats.t.isf(0.025, 4) / 2) ** 2 - 0.2  # with its 4 degrees


def test_what_an_experiment_of_that_size_would_find_is_told():
    """The size on the page is the least at which the rules tell the verdict."""
    record = records.read("03")
    findings = records.findings(record["findings"])
    for claim in rules.judge("03", findings):
        if claim.verdict != "cannot be told":
            continue
        size = float(re.search(r"an experiment (\S+) times", claim.found)[1])
        for factor, is_told in ((size + 0.1, True), (size - 0.1, False)):
            enlarged = {}
            for key, finding in findings.items():
                parts = [part._replace(error=part.error / factor**0.5,
                                       df=part.df * factor) for part in finding.parts]
                enlarged[key] = finding._replace(parts=parts)
            verdicts = {c.key: c.verdict for c in rules.judge("03", enlarged)}
            assert (verdicts[claim.key] != "cannot be told") == is_told


def test_at_the_border_of_a_rule_no_experiment_tells():
    found = {key: Finding([]) for key in rules.statements("02")}
    found["confounded"] = Finding([Part("CKA", 0.1, 0.1)])
    text = next(c.found for c in rules.judge("02", found) if c.key == "confounded")
    assert text.endswith(
        "if the numbers stay, an experiment 100 times as large would not tell")


def test_findings_belong_to_the_statements():
    with pytest.raises(ValueError, match=r"no finding on \['epochs-alike'"):
        rules.judge("03", {"linear": Finding([])})


@pytest.mark.parametrize(("part", "words"), [
    (Part("CKA", np.nan), "finite number and error, got nan"),
    (Part("CKA", 0.5, np.inf), "finite number and error, got 0.5 ± inf"),
    (Part("CKA", 0.5, np.nan), "finite number and error, got 0.5 ± nan"),
    (Part("CKA", 0.5, -0.1), "finite number and error, got 0.5 ± -0.1"),
    (Part("CKA", 0.5, 0.1, np.nan), "degrees of freedom, got nan"),
    (Part("CKA", 0.5, 0.1, 0), "degrees of freedom, got 0"),
    (Part("CKA", 0.5, 0.1, rule="bigger"), "rule 'bigger'"),
])
def test_parts_that_no_rule_can_judge_are_refused(part, words):
    findings = findings_with("linear", Finding([part]))
    with pytest.raises(ValueError, match=f"linear, CKA: .*{re.escape(words)}"):
        rules.judge("03", findings)


def test_statements_have_places_in_the_paper():
    for statement in rules.all_statements().values():
        assert claims.part(statement.place)
        is_exact = re.search("sentence|title|beyond", statement.place)
        assert is_exact, f"{statement.key}: {statement.place}"
        assert re.fullmatch(r"\d\d", statement.chapter)
        assert statement.says.endswith(".") and len(statement.says.split()) <= 26


def test_an_error_that_is_lost_beside_its_number_is_not_shown():
    assert Part("CKA", 0.5, 1e-320).text == "CKA 0.5"
    assert verdict_of("linear", Part("CKA", 0.5, 1e-320)) == "holds"
