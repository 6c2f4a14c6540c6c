"""The tables that verdicts come from, kept beside an executed chapter."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

# By this environment variable a run tells the chapter's kernel how the files of its
# tables begin.
VARIABLE = "WCKA_TABLES"
# Bytes of the largest table that the repository takes
LARGEST = 5_000_000

_NAME = "[a-z]+(?:-[a-z]+)*"


def keep_table(name: str, table: pd.DataFrame) -> None:
    """Write a table beside the notebook that is being executed, as parquet.

    In a notebook that no run executes, nothing is written.

    Parameters
    ----------
    name : str
        Lower-case letters and hyphens: "pairs" becomes ``NOTEBOOK.pairs.parquet``.
    table : DataFrame
        Its attributes and its index are left out.

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> keep_table("pairs", pd.DataFrame({"agreement": [0.9, 0.8]}))
    """
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"name: wanted lower-case letters and hyphens, got {name!r}")
    stem = os.environ.get(VARIABLE)
    if stem:
        columns = pd.DataFrame(dict(table.items()))  # without attributes
        columns.to_parquet(
            _file(Path(stem), name), index=False, compression="zstd",
            compression_level=19)


def keep_grid(members: pd.DataFrame, rows: pd.DataFrame, measures: Iterable[str],
              suffix: str = "") -> None:
    """Keep the networks of a grid as "networks", and its pairs as "pairs".

    Parameters
    ----------
    members, rows : DataFrame
        As ``benchmark.grid`` returns them.
    measures : iterable of str
        Columns of `rows` that are kept, beside what tells the pair and the probe, and
        their agreement.
    suffix : str
        At the end of the names, where a chapter has several grids.

    Examples
    --------
    >>> keep_grid(pd.DataFrame(), pd.DataFrame(columns=[
    ...     "differs", "a", "b", "probe", "agreement", "wcka"]), ["wcka"])
    """
    columns = ["differs", "a", "b", "probe", "agreement", *measures]
    # Rows of one pair beside each other, whose values repeat, make a small file.
    pairs = rows[columns].sort_values(["a", "b"], kind="stable")
    keep_table(f"networks{suffix}", members)
    keep_table(f"pairs{suffix}", pairs)


def kept_tables(stem: Path) -> dict[str, Path]:
    """Return the files of the tables that begin with a stem, by the tables' names.

    Examples
    --------
    >>> kept_tables(Path("no-such-folder/03"))
    {}
    """
    pattern = re.compile(rf"{re.escape(stem.name)}\.({_NAME})\.parquet")
    files = {}
    if stem.parent.is_dir():
        for path in sorted(stem.parent.iterdir()):
            if found := pattern.fullmatch(path.name):
                files[found[1]] = path
    return files


def _file(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}.parquet")


def remove_tables(stem: Path) -> None:
    """Delete the tables that begin with a stem.

    Examples
    --------
    >>> remove_tables(Path("no-such-folder/03"))
    """
    for path in kept_tables(stem).values():
        path.unlink()


def move_tables(stem: Path, new_stem: Path) -> None:
    """Give the tables of one stem another, in the place of those that have it.

    Examples
    --------
    >>> move_tables(Path("no-such-folder/a"), Path("no-such-folder/b"))
    """
    remove_tables(new_stem)
    for name, path in kept_tables(stem).items():
        path.replace(_file(new_stem, name))


def adopt_tables(stem: Path, new_stem: Path) -> dict[str, str]:
    """Copy the tables of one stem that are small enough to another stem.

    Parameters
    ----------
    stem, new_stem : Path
        Tables that have the new one are deleted before.

    Returns
    -------
    dict of str to str
        By the name of each copied table, the SHA-256 of its file.

    Examples
    --------
    >>> adopt_tables(Path("no-such-folder/a"), Path("no-such-folder/b"))
    {}
    """
    remove_tables(new_stem)
    digests = {}
    for name, path in kept_tables(stem).items():
        if path.stat().st_size <= LARGEST:
            shutil.copyfile(path, _file(new_stem, name))
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests
