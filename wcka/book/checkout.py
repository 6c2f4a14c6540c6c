"""The checkout that holds the book: its chapters, its build folder and its version."""

import os
import re
import subprocess
from pathlib import Path

from ..measures.spelling import nearest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "_build"


class UsageError(Exception):
    """A call that cannot be carried out as the user typed it; nothing was started.

    Examples
    --------
    >>> raise UsageError("unknown chapter '77'")
    Traceback (most recent call last):
    UsageError: unknown chapter '77'
    """


def require() -> None:
    """Refuse an installation without the notebooks.

    Raises
    ------
    UsageError
        If there is no folder of chapters beside the package.

    Examples
    --------
    >>> require()  # in a checkout, nothing happens
    """
    if not NOTEBOOKS.is_dir():
        raise UsageError(
            "the book's commands need a checkout of the project, with its notebooks; "
            "this is the library alone")


def chapters() -> list[Path]:
    """Return the sources of all chapters, in the order of the book.

    Returns
    -------
    list of Path
        The .py files whose names begin with a number of two digits.

    Examples
    --------
    >>> [path.name for path in chapters()][:2]
    ['01-theory.py', '02-calibration.py']
    """
    return sorted(NOTEBOOKS.glob("[0-9][0-9]-*.py"))


def find_chapter(name: str) -> Path:
    """Return the source of a chapter.

    Parameters
    ----------
    name : str
        The number or the name of the chapter: "2", "02", "02-calibration".

    Returns
    -------
    Path
        The chapter's .py file.

    Raises
    ------
    ValueError
        For an unknown chapter, with the nearest spelling.

    Examples
    --------
    >>> find_chapter("2").name
    '02-calibration.py'
    >>> find_chapter("02-calibraton")
    Traceback (most recent call last):
    ValueError: unknown chapter '02-calibraton'; did you mean '02-calibration'?
    """
    path_of_name = {}
    for path in chapters():
        path_of_name[path.stem] = path
        path_of_name[path.stem[:2]] = path
    stem = Path(name).stem
    if stem.isdigit():
        stem = stem.zfill(2)
    return path_of_name[nearest(stem, path_of_name, "chapter")]


def read_chapter(path: Path):
    """Return the cells of a chapter as a notebook.

    The cell that installs the module in Colab is left out: ``execution.write_pair``
    puts it into every .ipynb, from where jupytext may have brought it into the .py.

    Parameters
    ----------
    path : Path
        The chapter's .py file.

    Returns
    -------
    NotebookNode
        The notebook, without outputs.

    Examples
    --------
    >>> read_chapter(find_chapter("1")).cells[0].cell_type
    'markdown'
    """
    # A misspelt call is refused without this import, which takes a while.
    import jupytext

    notebook = jupytext.read(path)
    notebook.cells = [cell for cell in notebook.cells if not _is_for_colab(cell)]
    return notebook


def _is_for_colab(cell) -> bool:
    """Tell whether a cell is the one that installs the module in Colab."""
    return "colab" in cell.metadata.get("tags", [])


def repository() -> str:
    """Return the project's address on GitHub.

    The environment variable GITHUB_REPOSITORY names it, or else git's remote "origin".

    Returns
    -------
    str
        The address; empty if neither names one on GitHub.

    Examples
    --------
    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, GITHUB_REPOSITORY="somebody/wcka"):
    ...     repository()
    'https://github.com/somebody/wcka'
    """
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"https://github.com/{name}"
    git = subprocess.run(
        ["git", "remote", "get-url", "origin"],
        cwd=ROOT, capture_output=True, text=True)
    match = re.search(
        r"github\.com[/:]([\w.-]+/[\w.-]+?)(\.git)?$", git.stdout.strip())
    return f"https://github.com/{match[1]}" if match else ""


def commit() -> str:
    """Return the name of the checked-out commit, marked where files differ from it.

    Returns
    -------
    str
        The commit as ``git describe`` abbreviates it, with "-dirty" at its end if a
        tracked file was changed since.

    Examples
    --------
    >>> commit()  # here with changes that are not committed  # doctest: +SKIP
    '10a146f-dirty'
    """
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT, capture_output=True, text=True)
    return git.stdout.strip() if git.returncode == 0 else "unknown (no git repository)"
