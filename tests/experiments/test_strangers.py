"""The book's strangers: the table that is shipped, and how it is made."""

import json

import pytest

from wcka.experiments import strangers
from wcka.weights.strangers import TABLE, language_model_scores

SMALL = {"text": "code", "steps": 4, "tokens": 300, "width": 8, "depth": 1, "heads": 2,
         "units": 8}


def test_the_table_is_of_the_kinds_that_are_trained():
    rows = json.loads(TABLE.read_text("utf-8"))
    kinds = [{name: row[name] for name in kind}
             for row, kind in zip(rows, strangers.KINDS, strict=True)]
    assert kinds == list(strangers.KINDS)
    scores = language_model_scores()
    assert scores.tolist() == [row["score"] for row in rows]
    assert (scores > 0).all() and (scores < 0.5).all()


def test_the_models_of_a_pair_share_no_weights():
    one = strangers.stranger_scores(**SMALL).score[0]
    other = strangers.stranger_scores(**SMALL, seed=1).score[0]
    assert one != other and 0 <= one < 0.9


@pytest.mark.slow
def test_training_gives_the_scores_of_the_table():
    """The kind that is trained soonest; rounding differs from machine to machine."""
    kind = strangers.KINDS[5]
    score = strangers.stranger_scores(**kind).score[0]
    assert score == pytest.approx(language_model_scores()[5], abs=0.03)


def test_the_table_is_written_from_the_scores(monkeypatch, tmp_path):
    monkeypatch.setattr(strangers, "KINDS", (SMALL, {**SMALL, "width": 16}))
    monkeypatch.setattr(strangers, "TABLE", tmp_path / "strangers.json")
    rows = json.loads(strangers.write_table(jobs=1).read_text("utf-8"))
    assert [row["width"] for row in rows] == [8, 16]
    for row, kind in zip(rows, strangers.KINDS):
        score = strangers.stranger_scores(**kind).score[0]
        assert row["score"] == pytest.approx(score, abs=1e-4)
