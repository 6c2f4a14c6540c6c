"""Files that are compared with one another, and those that do not fit."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..measures.spelling import printable
from .checkpoints import Checkpoint, read
from .formats import checkpoints_in, groups_in, holds_one_network
from .messages import listed

_Result = TypeVar("_Result")


@dataclass
class FileGroup:
    """Files to compare, and those that were left out.

    Of a folder, which may hold anything, the files are taken that can be compared with
    one another. A file that the caller names must be comparable.

    Attributes
    ----------
    folder : str
        The folder's name; "" for files that the caller names.
    fitting : list of Checkpoint
        What is to be compared, as far as is known by now.
    left_out : dict
        By the name of a file, the reason why it cannot be compared.

    Examples
    --------
    >>> FileGroup("folder", left_out={"a.txt": "no network"}).check_number()
    Traceback (most recent call last):
    ValueError: folder: no file in it fits: no network
    """

    folder: str = ""
    fitting: list[Checkpoint] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, name: str, error: ValueError) -> None:
        """Leave a file out for a reason, or refuse it if the caller names it."""
        if not self.folder:
            raise error
        reason = str(error).removeprefix(name)
        self.left_out[name] = reason.lstrip(":/ ").strip()

    def results(self, function: Callable[..., _Result], *columns: Any) -> list[_Result]:
        """Return a function's result for each file, and leave out those it refuses.

        `columns` hold further arguments, one for each file.
        """
        results = []
        fitting = []
        for file, *values in zip(list(self.fitting), *columns):
            try:
                results.append(function(file, *values))
                fitting.append(file)
            except ValueError as error:
                self.leave_out(file.name, error)
        self.fitting = fitting
        self.check_number()
        return results

    def notes(self) -> list[str]:
        """Return what was noted when the files were read, with their names."""
        notes = []
        for file in self.fitting:
            for note in file.notes:
                notes.append(f"{file.name}: {note}")
        return list(dict.fromkeys(notes))  # one file may be compared with itself

    def check_number(self) -> None:
        """Refuse fewer than two files, with the reasons why others are left out."""
        if len(self.fitting) >= 2:
            return
        reasons = list(dict.fromkeys(self.left_out.values()))
        if not self.fitting and len(reasons) == 1:
            raise ValueError(f"{self.folder}: no file in it fits: {reasons[0]}")
        message = "wanted at least two files"
        if self.folder:
            names = [Path(file.name).name for file in self.fitting]
            message = (
                f"{self.folder}: wanted at least two files that can be compared, got "
                f"{listed(names) or 'none'}")
        raise ValueError(message + self._reasons())

    def _reasons(self) -> str:
        """Return why files are left out, in brackets; "" if none is."""
        lines = []
        for name, reason in self.left_out.items():
            lines.append(f"{Path(name).name}: {reason}")
        most = 8
        if len(lines) > most:
            lines[most:] = [f"{len(lines) - most} more"]
        return f" (left out {'; '.join(map(printable, lines))})" if lines else ""


def read_group(paths: Sequence[str], key: str | None = None) -> FileGroup:
    """Open all files, or those of one folder that are readable.

    Parameters
    ----------
    paths : sequence of str
        At least two files, or one folder of them.
    key : str, optional
        See ``checkpoints.read``.

    Raises
    ------
    ValueError
        For a file that cannot be read; for a folder with fewer than two that can.

    Examples
    --------
    >>> read_group(["no-such-file.pt"] * 2)
    Traceback (most recent call last):
    ValueError: no-such-file.pt: no such file
    """
    folder = Path(paths[0]) if len(paths) == 1 else None
    if folder is None or not os.path.isdir(folder):
        files = FileGroup(fitting=[read(path, key) for path in paths])
    else:
        try:
            files = _read_folder(folder, key)
        except PermissionError:
            raise ValueError(
                f"{printable(str(folder))}: no permission to read it") from None
    if key and files.fitting and all(
            f"no {printable(key)!r} in it: read as it is" in file.notes
            for file in files.fitting):
        raise ValueError(
            f"unknown key {printable(key)!r}: each file is one plain state dict")
    files.check_number()
    return files


def _read_folder(folder: Path, key: str | None) -> FileGroup:
    """Open what can be read of a folder."""
    if holds_one_network(folder) and len(checkpoints_in(folder)) < 2:
        raise ValueError(
            f"{printable(str(folder))}: one network, and no other beside it; wanted at "
            f"least two files")
    files = FileGroup(printable(str(folder)))
    for inner in checkpoints_in(folder):
        try:
            files.fitting.append(read(inner, key))
        except ValueError as error:
            files.leave_out(printable(str(inner)), error)
    for inner in groups_in(folder):
        files.left_out[printable(str(inner))] = "a folder, to be named by itself"
    return files
