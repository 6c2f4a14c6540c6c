"""The checkout that holds the book: where its chapters are, and what is built from them."""

import os
import re
import subprocess
from pathlib import Path

from ..measures.spelling import nearest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "_build"


class UsageError(Exception):
    """What the user asked for cannot be run; nothing was started."""


def require() -> None:
    """Refuse an installation without the notebooks.

    Raises
    ------
    UsageError
        Where there are no chapters beside the package.
    """
    if not NOTEBOOKS.is_dir():
        raise UsageError("the book's commands need a checkout of the project, with its notebooks; "
                         "this is the library alone")


def chapters() -> list[Path]:
    """Return the sources of all chapters, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]-*.py"))


def find_chapter(name: str) -> Path:
    """Return the source of a chapter.

    Parameters
    ----------
    name : str
        Its number or name: "2", "02", "02-calibration".

    Raises
    ------
    ValueError
        For an unknown chapter, with the nearest spelling.
    """
    known = {}
    for path in chapters():
        known[path.stem] = path
        known[path.stem[:2]] = path
    stem = Path(name).stem
    if stem.isdigit():
        stem = stem.zfill(2)
    return known[nearest(stem, known, "chapter")]


def repository() -> str:
    """Return the project's address on GitHub, from the environment or git; empty without one."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"https://github.com/{name}"
    done = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True,
                          text=True)
    match = re.search(r"github\.com[/:]([\w.-]+/[\w.-]+?)(\.git)?$", done.stdout.strip())
    return f"https://github.com/{match[1]}" if match else ""


def commit() -> str:
    """Return the name of the checked-out commit, marked where files differ from it."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT,
                          capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown (no git repository)"
