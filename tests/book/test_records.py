"""The run of record belongs to the present rules, statements and parameters."""

import hashlib
import json
from pathlib import Path

import nbformat
import pytest

from wcka.book import builder, checkout, claims, parameters, records, rules, tables
from wcka.measures import MEASURE_LABELS, PAPER_MEASURES

CHAPTERS = sorted(path.stem for path in records.path_of("00").parent.glob("*.json"))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_record_belongs_to_the_rules_and_the_profile(chapter):
    record = records.read(chapter)
    path = checkout.find_chapter(chapter)
    assert record["parameters"] == parameters.choose(path, records.PROFILE, [])
    judged = records.judged(chapter)  # raises for other statements
    assert [claim.key for claim in judged] == list(rules.statements(chapter))
    # Numbers, and no verdicts: these follow from the rules.
    assert not set(claims.VERDICTS) & set(json.dumps(record).split('"'))
    assert set(record["commit"]) & set("0123456789abcdef")
    digests = {}
    stem = records.path_of(chapter).with_suffix("")
    for name, file in tables.kept_tables(stem).items():
        digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digests == record.get("tables", {})


@pytest.mark.parametrize("chapter, of_images, key, limit, label, n_leads", [
    ("03", "", "stronger-pearson", 0.95, "{measure} ({factor})", 9),
    ("05", "-mnist", "convolutional-mnist", 0.9, "{measure}, {factor}, Pearson", 12),
    ("05", "-fashion", "convolutional-fashion", 0.9, "{measure}, {factor}, Pearson",
     12)])
def test_tables_of_a_chapter_give_its_findings(
        chapter, of_images, key, limit, label, n_leads):
    """Leads of Pearson's r, from the rows that stand beside the record."""
    networks = records.table(chapter, f"networks{of_images}")
    has_learned = (networks.accuracy >= limit) & ~networks.collapsed
    learned = networks.model[has_learned]
    pairs = records.table(chapter, f"pairs{of_images}")
    pairs = pairs[pairs.a.isin(learned) & pairs.b.isin(learned)]
    leads = {}
    for factor, rows in pairs.groupby("differs"):
        r = rows[list(PAPER_MEASURES)].corrwith(rows.agreement)
        for measure, lead in (r.wcka - r.drop("wcka")).items():
            name = label.format(measure=MEASURE_LABELS[measure], factor=factor)
            leads[name] = lead
    of_record = {}
    for name, value, *_ in records.read(chapter)["findings"][key]["parts"]:
        if not name.endswith("Spearman"):
            of_record[name] = value
    assert len(of_record) == n_leads
    for name, value in of_record.items():
        assert leads[name] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_another_margin_changes_verdicts_without_a_run(chapter):
    """With a margin of two nothing is unlike anything: no difference is called higher
    by less, and no row that asks for similarity fails."""
    for claim in records.judged(chapter, margin=2.0):
        if rules.statements(chapter)[claim.key].rule == "similar":
            assert claim.verdict != "fails"


@pytest.mark.parametrize("profile", ["quick", "large", "smoke"])
def test_chapter_10_compares_the_networks_of_chapter_3(profile):
    """With the same settings its networks are found, and not trained again."""
    values = {}
    for chapter in ("03", "10"):
        path = checkout.find_chapter(chapter)
        defaults = parameters.read_parameters(path)
        values[chapter] = {name: one.default for name, one in defaults.items()}
        values[chapter] |= parameters.choose(path, profile, [])
    first, second = values["03"], values["10"]
    assert second["datasets"][0] == first["dataset"]
    for name in ("seeds", "learned"):
        assert second.pop(name)[0] == first[name]
    for name in set(first) & set(second):
        assert second[name] == first[name], name


def executed_chapter():
    """A notebook as a run leaves it, with the findings of chapter 3."""
    findings = {}
    for key in rules.statements("03"):
        findings[key] = rules.Finding([rules.Part("CKA", 0.3, 0.01, 20.0)], "a remark")
    rows = [claim._asdict() for claim in rules.judge("03", findings)]
    output = nbformat.v4.new_output("display_data", metadata={"wcka": {"claims": rows}})
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(outputs=[output])])
    chosen = parameters.choose(checkout.find_chapter("03"), records.PROFILE, [])
    run = {"profile": "large", "parameters": chosen, "commit": "0" * 7,
           "versions": "", "machine": ""}
    notebook.metadata["wcka"] = {"seconds": 1.2, "run": run}
    return notebook, findings


def test_what_is_written_is_read_and_judged_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "path_of", lambda chapter: tmp_path / "a" / chapter)
    notebook, findings = executed_chapter()
    nbformat.write(notebook, tmp_path / "03.ipynb")
    records.write("03", tmp_path / "03.ipynb")
    assert records.judged("03") == rules.judge("03", findings)
    assert records.read("03")["seconds"] == 1
    assert records.judged("04") == []


@pytest.mark.parametrize("change", [
    {"profile": "quick"}, {"parameters": {"seeds": 3}}])
def test_only_the_profile_of_record_becomes_a_record(tmp_path, change):
    notebook, _ = executed_chapter()
    notebook.metadata["wcka"]["run"] |= change
    nbformat.write(notebook, tmp_path / "03.ipynb")
    with pytest.raises(ValueError, match="a record is of profile large"):
        records.write("03", Path(tmp_path / "03.ipynb"))


def test_the_scorecard_shows_the_record_and_what_contradicts_it():
    build = [
        claims.Claim("3.2", "it is so", "in the build 0.1", "fails", key="so"),
        claims.Claim("3.2", "and so", "in the build 0.2", "partly", key="too"),
        claims.Claim("3.2", "no record", "in the build 0.3", "holds", key="new"),
    ]
    record = {}
    for claim in build[:2]:
        found = "on record 0.9"
        record[claim.key] = claim._replace(found=found, verdict="holds")
    text = builder.scorecard({"03-functional": build}, record)
    assert text.count("on record 0.9") == 2 and "in the build 0.3" in text
    assert text.count("contradicts the record") == 1
    assert text.count("not on record yet") == 1
    counted = builder.with_record({"03-functional": build}, record)
    assert "All 3 claims" in builder.tally(counted)


def test_limits_are_counted_from_what_the_record_keeps(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "path_of", lambda chapter: tmp_path / "a" / chapter)
    notebook, findings = executed_chapter()
    behind = {key: rules.Finding([rules.Part("lead", -0.5, 0.01)]) for key in findings}
    kept = {
        "0.9": claims.plain_findings(findings), "0.98": claims.plain_findings(behind)}
    metadata = notebook.cells[0].outputs[0].metadata
    metadata["wcka"]["findings at"] = kept
    nbformat.write(notebook, tmp_path / "03.ipynb")
    records.write("03", tmp_path / "03.ipynb")
    assert records.read("03")["findings at"] == kept
    usual = rules.judge("03", findings)
    changed = 0
    for before, after in zip(usual, rules.judge("03", behind)):
        changed += before.verdict != after.verdict
    lines = builder.limits({"03-functional": usual}, {"03-functional": kept})
    rows = [line.split(" | ") for line in lines.splitlines()]
    assert [row[:2] for row in rows[2:]] == [
        ["| 3", "**as judged**"], ["| 3", "0.9"], ["| 3", "0.98"]]
    assert [row[-1] for row in rows[2:]] == ["0 |", "0 |", f"{changed} |"]
    assert changed > 0


def test_beside_a_record_no_findings_of_a_build_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "path_of", lambda chapter: tmp_path / "a" / chapter)
    notebook, findings = executed_chapter()
    nbformat.write(notebook, tmp_path / "03.ipynb")
    of_build = {"0.9": claims.plain_findings(findings)}
    notebook.cells[0].outputs[0].metadata["wcka"]["findings at"] = of_build
    assert builder._findings_at("03", notebook) == of_build
    records.write("03", tmp_path / "03.ipynb")  # which found nothing at other limits
    assert builder._findings_at("03", notebook) == {}


def test_margins_are_counted_from_the_stored_numbers():
    _, findings = executed_chapter()
    build = rules.judge("03", {**findings, "linear": rules.Finding(
        [rules.Part("CKA", 0.0, 0.03, 1000.0)])})
    lines = builder.margins({"03-functional": build}).splitlines()
    assert len(lines) == 7
    usual = next(line for line in lines if line.startswith("| **0.1**"))
    assert usual.endswith("| 0 |")
    # A lead of zero with an error of .03 is none at the usual margin, and open at .02.
    narrow = next(line for line in lines if line.startswith("| 0.02"))
    assert narrow.endswith("| 1 |")


@pytest.mark.parametrize("verdicts, beginning, lines", [
    ([], "", 0),
    ([("holds", "holds")], "comes to the same verdict.", 0),
    ([("holds", "holds"), ("fails", "fails")], "comes to the same verdicts.", 0),
    ([("holds", "fails")], "comes to another verdict; its", 1),
    ([("holds", "holds"), ("holds", "fails")],
     "comes to another verdict on one of 2 statements; its", 1),
    ([("partly", "holds"), ("partly", "fails"), ("fails", "fails")],
     "comes to other verdicts on 2 of 3 statements; its", 2),
    ([("partly", "holds"), ("partly", "fails")], "comes to other verdicts; its", 2)])
def test_pages_say_where_the_record_judges_otherwise(verdicts, beginning, lines):
    found = [claims.Claim("3.1", "not on record", "0.1", "holds", key="new")]
    on_record = {}
    for number, (here, record) in enumerate(verdicts):
        claim = claims.Claim("3.1", "It is so.", "0.1", here, key=str(number))
        found.append(claim)
        on_record[claim.key] = claim._replace(verdict=record)
    note = records.note(found, on_record)
    assert beginning in note and bool(note) == bool(beginning)
    assert note.count("On record:") == lines
