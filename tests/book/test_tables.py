"""Tables beside an executed chapter, and with the run of record."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from wcka import cli
from wcka.book import checkout, records, tables

KEEP = """
import pandas as pd
from wcka.book import keep_table
keep_table("pairs", pd.DataFrame({"wcka": [0.1 * i for i in range(seeds)]}))
"""


def runs():
    return checkout.BUILD / "runs"


def test_a_run_leaves_the_tables_that_its_chapter_keeps(chapter):
    chapter(KEEP)
    assert cli.main(["run", "07"]) == 0
    path, = runs().glob("*.parquet")
    assert path.name == "07-tiny.pairs.parquet"
    assert pd.read_parquet(path).wcka.tolist() == [0.1 * i for i in range(5)]
    # Another run replaces them.
    assert cli.main(["run", "07", "-p", "seeds", "2"]) == 0
    assert len(pd.read_parquet(path)) == 2


def test_a_failed_run_leaves_the_tables_of_the_run_before(chapter):
    path = chapter(KEEP).path
    assert cli.main(["run", "07"]) == 0
    path.write_text(path.read_text() + "\n1 / 0\n")
    assert cli.main(["run", "07", "-p", "seeds", "2"]) == 1
    names = sorted(path.name for path in runs().iterdir())
    assert names == [
        "07-tiny.failed.ipynb", "07-tiny.ipynb", "07-tiny.pairs.parquet"]
    assert len(pd.read_parquet(runs() / "07-tiny.pairs.parquet")) == 5


def test_a_chapter_that_keeps_no_table_any_more_leaves_none(chapter):
    path = chapter(KEEP).path
    assert cli.main(["run", "07"]) == 0
    path.write_text(path.read_text().replace("keep_table(", "print("))
    assert cli.main(["run", "07"]) == 0
    assert not list(runs().glob("*.parquet"))


@pytest.mark.parametrize("name", ["", "Pairs", "../pairs", "a b", "pairs-", "a.b"])
def test_a_name_that_is_no_name_of_a_file_is_refused(name):
    with pytest.raises(ValueError, match="name: wanted lower-case letters"):
        tables.keep_table(name, pd.DataFrame())


def test_values_are_kept_to_the_last_bit(tmp_path, monkeypatch):
    monkeypatch.setenv(tables.VARIABLE, str(tmp_path / "run"))
    pairs = pd.DataFrame({
        "differs": "seed", "a": [1, 0, 0, 1], "b": [2, 1, 1, 2],
        "probe": ["clean", "fog", "clean", "fog"],
        "agreement": np.random.default_rng(0).random(4), "wcka": [0.5, np.nan, 0, 1]})
    pairs.attrs["seconds"] = {"training": 1.0}
    tables.keep_grid(pd.DataFrame({"model": ["x", "y"]}), pairs, ["wcka"], "-mnist")
    kept = tables.kept_tables(tmp_path / "run")
    assert list(kept) == ["networks-mnist", "pairs-mnist"]
    read = pd.read_parquet(kept["pairs-mnist"])
    assert read.attrs == {}
    ordered = pairs.sort_values(["a", "b"], kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(read, ordered, check_exact=True)
    assert pairs.a.tolist() == [1, 0, 0, 1]  # nothing of the caller's is changed


def test_the_record_takes_the_tables_that_are_small_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LARGEST", 10_000)
    for name, rows in (("pairs", 10), ("networks", 5000)):
        table = pd.DataFrame({"x": np.random.default_rng(0).random(rows)})
        table.to_parquet(tmp_path / f"[a] run.{name}.parquet")
    (tmp_path / "[a] run.x.pairs.parquet").write_text("of another notebook")
    (tmp_path / "03.old.parquet").write_text("of the record before")
    digests = tables.adopt_tables(tmp_path / "[a] run", tmp_path / "03")
    content = (tmp_path / "03.pairs.parquet").read_bytes()
    assert digests == {"pairs": hashlib.sha256(content).hexdigest()}
    assert list(tables.kept_tables(tmp_path / "03")) == ["pairs"]
    monkeypatch.setattr(records, "path_of", lambda _: tmp_path / "03.json")
    assert len(records.table("03", "pairs")) == 10
    with pytest.raises(FileNotFoundError, match="no table 'networks', only pairs"):
        records.table("03", "networks")
