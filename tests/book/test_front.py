"""The landing page and the report: each assembled sentence for none, one, several, all.

``pytest -s -k prints`` prints all sentences of the landing page.
"""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from english import faults_of

from wcka.book import (
    builder,
    checkout,
    claims,
    explorer,
    front,
    parameters,
    records,
    rules,
    worked_pages,
)

VERDICTS = list(claims.VERDICTS)
# A part that answers yes, no or leaves it open, by the rules "higher" and "small"
NUMBERS = {
    "higher": {"yes": (0.5, 0.01), "no": (-0.5, 0.01), "open": (0.05, 0.2)},
    "small": {"yes": (0.0, 0.001), "no": (0.9, 0.01), "open": (0.1, 0.2)},
}


def claim_of(key, answers, verdict=None):
    """A claim whose parts have these answers, as (label, answer)."""
    statement = rules.all_statements()[key]
    parts = []
    for label, answer in answers:
        value, error = NUMBERS[statement.rule][answer]
        parts.append([label, value, error, 50.0, ""])
    if verdict is None:
        verdict = rules.fold([answer for _, answer in answers])
    return claims.Claim(statement.place, statement.says, "", verdict, key=key,
                        parts=parts)


def evidence_of(*some, recorded=True, numbers=None):
    by_key = {claim.key: claim for claim in some}
    on_record = frozenset(by_key) if recorded else frozenset()
    return front.Evidence(by_key, on_record, numbers or {}, {})


# ----------------------------------------------------------------------- sentences


def test_the_tally_counts_what_is_beyond_the_paper_apart():
    rows = [claims.Claim("3.1", "so", "", "holds")]
    assert "beyond" not in builder.tally({"02": rows})
    rows.append(claims.Claim("beyond, as 3.1", "so", "", "fails"))
    assert builder.tally({"02": rows}) == (
        "The one claim of the paper that was tested holds. The one statement beyond "
        "the paper that was tested fails.")


AHEAD = ("wCKA correlates with agreement significantly more strongly than its rivals ")
LED = {
    ("yes",): "in the one comparison.",
    ("no",): "not in the one comparison; one shows no noticeable lead.",
    ("yes", "yes", "yes"): "in all 3 comparisons.",
    ("open", "open"): "in none of 2 comparisons; 2 are open.",
    ("no", "open", "open"):
        "in none of 3 comparisons; one shows no noticeable lead and 2 are open.",
    ("yes", "no", "no"):
        "in one of 3 comparisons (seed 1 of 1); 2 show no noticeable lead.",
    ("yes", "yes", "open"):
        "in 2 of 3 comparisons (seed 1 of 1, epoch 1 of 1); one is open.",
}


@pytest.mark.parametrize("answers", LED)
def test_leads_are_counted(answers):
    labels = ["CKA (seed)", "CKA, epoch, Pearson", "dCKA (strategy)"]
    assert front.lead_sentence(list(zip(labels, answers))) == AHEAD + LED[answers]


CHANGES = "changes that keep predictions, all or nearly all,"
MOVED = {
    ("yes", "yes"): f"None of 2 {CHANGES} is known to move wCKA noticeably.",
    ("yes", "open"):
        f"None of 2 {CHANGES} is known to move wCKA noticeably; for b that is open.",
    ("no",): "The one change that keeps predictions moves wCKA: a.",
    ("no", "yes"): f"Of 2 {CHANGES} one moves wCKA noticeably: a.",
    ("no", "no", "yes"): f"Of 3 {CHANGES} 2 move wCKA noticeably: a and b.",
    ("no", "no", "no"): f"All 3 {CHANGES} move wCKA noticeably: a, b and c.",
}


@pytest.mark.parametrize("answers", MOVED)
def test_changes_that_move_wcka_are_named(answers):
    assert front.moved_sentence(list(zip("abc", answers))) == MOVED[answers]


USED = {
    ("holds",): "wCKA serves for a.",
    ("partly",): "wCKA serves in part for a.",
    ("fails",): "wCKA does not serve for a.",
    ("cannot be told",): "Whether wCKA serves for a is open.",
    ("holds", "holds", "holds"): "wCKA serves for a, b and c.",
    ("cannot be told", "holds", "fails"):
        "wCKA serves for b; it does not serve for c; whether it serves for a is open.",
}


@pytest.mark.parametrize("verdicts", USED)
def test_uses_of_one_verdict_stand_together(verdicts):
    assert front.use_sentence(dict(zip("abc", verdicts))) == USED[verdicts]


def test_a_sentence_whose_number_is_missing_is_left_out():
    evidence = evidence_of(numbers={"03": {"a": "0.10", "b": "nan", "c": "+nan"}})
    assert front.filled("r is {03:a}", evidence) == "r is 0.10"
    assert front.filled("r is {03:a}, {03:b}", evidence) == ""
    assert front.filled("r is {03:c}", evidence) == ""
    assert front.filled("r is {04:a}", evidence) == ""
    assert front.filled("eps {03.eps}", evidence) == ""
    evidence = evidence._replace(values={"03": {"eps": [[8], [16, 16]], "n": 1500}})
    assert front.filled("{03.eps}; {03.n}", evidence) == "[8] and [16, 16]; 1,500"


def test_numbers_of_no_record_are_marked_in_the_table_of_choices():
    numbers = {"03": {"wider": "9", "last-low": "-0.1", "last-high": "+0.1"}}
    evidence = evidence_of(numbers=numbers)._replace(unrecorded=frozenset(
        ["03:last-low", "03:last-high"]))
    row, = [line for line in front.choice_table(evidence).splitlines()
            if "Number of epochs" in line]
    assert "r changes by -0.1 to +0.1. † Intervals" in row
    assert row.count("†") == 1


# ------------------------------------------------------------------------ headlines


HEADLINES = {
    "calibration": ["wcka-calibrated"],
    "behaviour": ["stronger-pearson", "higher-spearman"],
    "transfer": ["consistently-higher"],
    "fooled": ["same-function", "chosen-chain"],
    "uses": ["pruning", "trusted", "ensembles", "circuits-tell-kin"],
}
CASES = {
    "holds": ["yes", "yes"],
    "partly": ["yes", "no"],
    "fails": ["no", "no"],
    "cannot be told": ["yes", "open"],
}


@pytest.mark.parametrize("name", HEADLINES)
@pytest.mark.parametrize("verdict", CASES)
def test_prints_each_headline_for_each_verdict(name, verdict):
    some = []
    for key in HEADLINES[name]:
        labels = ["CKA (seed)", "dCKA (strategy)"]
        some.append(claim_of(key, list(zip(labels, CASES[verdict]))))
    text = getattr(front, name)(evidence_of(*some))
    print(f"\n{name}, {verdict}: {text}")
    symbol = f"{claims.VERDICTS[verdict]} {verdict}. "
    assert faults_of(text.removeprefix(symbol)) == []
    if name in ("calibration", "behaviour", "transfer"):
        assert text.startswith(symbol)
    unrecorded = getattr(front, name)(evidence_of(*some, recorded=False))
    assert unrecorded == f"{text} {front._NOT_ON_RECORD}"


@pytest.mark.parametrize("name", HEADLINES)
def test_a_headline_without_its_run_says_so(name):
    assert getattr(front, name)(front.nothing()) == front.NOT_SEEN


def test_the_answers_of_a_statement_are_those_of_its_verdict():
    for path in checkout.chapters():
        on_record = records.judged(path.stem[:2])
        evidence = evidence_of(*on_record)
        for claim in on_record:
            answers = [answer for _, answer in front.answers(evidence, [claim.key])]
            assert rules.fold(answers) == claim.verdict


def test_numbers_that_pages_ask_for_are_glued_by_a_chapter():
    """A chapter that renames a number would empty a cell of the report."""
    source = Path(front.__file__).read_text("utf-8")
    for entry in front.open_choices():
        source += " ".join([entry["took"], *entry["matters"]])
    for chapter, kind, name in front._NAME.findall(source):
        path = checkout.find_chapter(chapter)
        if kind == ".":
            assert name in parameters.read_parameters(path)
            continue
        # "few-move" itself, or an f-string that ends or begins as it does
        ends = {name, name.split("-")[0], f"-{name.split('-')[-1]}"}
        text = path.read_text()
        assert any(f'"{end}' in text or f'{end}"' in text for end in ends), name


# --------------------------------------------------------------------------- figures


def test_the_figure_of_verdicts_has_its_counts_in_words(tmp_path):
    rows = [claims.Claim("3.1", "so", "", "holds"),
            claims.Claim("4", "so", "", "fails")]
    text = front.verdict_figure(rows, "Of 2 claims, ...")
    assert "3.1 Calibration: 1 holds, 0 partly, 0 fails, 0 cannot be told;" in text
    assert "Abstract" not in text
    front.draw_verdicts(rows, tmp_path / "one.svg")
    front.draw_verdicts(rows, tmp_path / "two.svg")
    one, two = ((tmp_path / name).read_text() for name in ("one.svg", "two.svg"))
    assert one == two


TABLE = pd.DataFrame({
    "depth": [1, 1, 2, 2], "width": 8, "epoch": [1, 2, 1, 2],
    "wcka": [0.3, 0.5, 0.2, 0.4], "clean": [0.95, 0.98, 0.93, 0.97], "pairs": 6})


def test_the_interactive_figure_needs_no_network_and_has_labels():
    template = (checkout.ROOT / "book" / "_explorer.html").read_text()
    text = explorer.widget(TABLE, template)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    labels = re.findall(r'<label for="([\w-]+)">', text)
    sliders = re.findall(r'<input type="range" id="([\w-]+)"', text)
    assert labels == sliders and len(labels) == 3
    assert 'aria-live="polite"' in text
    data = json.loads(re.search(r'json">(.*?)</script>', text)[1])
    assert data["depth"] == [1, 2] and data["epoch"] == [1, 2]
    assert len(data["rows"]) == 4
    # Without JavaScript the box stays hidden, and the static figure remains.
    assert re.search(r'class="wcka-explorer"[^>]* hidden>', text)
    page = (checkout.ROOT / "book" / "explore.md").read_text()
    assert "figures/explorer.svg" in page


# ------------------------------------------------------------------------ five minutes


def test_a_failing_block_names_itself(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\ntext\n\n```python\n1 / 0\n```\n")
    with pytest.raises(RuntimeError, match=r"page\.md, block 2: ZeroDivisionError"):
        worked_pages.run(page)


@pytest.mark.slow
def test_the_five_minutes_run_and_agree_with_themselves():
    notebook = worked_pages.run(checkout.ROOT / "book" / "five-minutes.md")
    printed = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            printed.append(cell.outputs[0].text)
            assert all(len(line) <= 80 for line in cell.source.splitlines())
    assert len(printed) == 6
    number = re.search(r"0\.\d+", printed[1])[0]
    assert re.search(r"0\.\d+", printed[2])[0] == number
    assert "1.0000, with 100.0%" in printed[3]
    accuracies = [float(text) for text in re.findall(r"0\.\d+", printed[0])]
    assert min(accuracies) > 0.95


def test_one_title_names_the_paper_everywhere():
    title = ("Benchmarking a well-calibrated measure of weight similarity of deep "
             "neural network models")
    for name in ("README.md", "CITATION.cff", "book/index.md", "book/report.md"):
        text = (checkout.ROOT / name).read_text()
        assert title in re.sub(r"\s+", " ", text), name
