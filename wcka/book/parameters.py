"""A chapter's parameters: read from its source, typed, and refused before a kernel starts.

Only ``vet`` imports more than the standard library and PyYAML, so that a misspelt call is
answered at once.
"""

import ast
import contextlib
import re
import typing
from pathlib import Path

from ..measures.spelling import nearest
from . import checkout
from .checkout import UsageError


class Parameter(typing.NamedTuple):
    """One line of a chapter's parameters cell."""

    name: str
    type: typing.Any
    default: object
    comment: str

    @property
    def kind(self) -> str:
        """Its type as one writes it."""
        return str(self.type) if typing.get_args(self.type) else self.type.__name__


def parameters(path: Path) -> dict[str, Parameter]:
    """Read the parameters cell of a chapter: annotated literals, each explained.

    A parameter's comment stands behind it, or on the lines above it.

    Parameters
    ----------
    path : Path
        The chapter's .py file.

    Returns
    -------
    dict of str to Parameter
        By name, in the order of the cell.

    Raises
    ------
    ValueError
        For a chapter without exactly one such cell, or a line that is no annotated literal.
    """
    # Not by jupytext, whose import would take longer than all the rest of a refused call.
    cells = re.split(r"(?m)^# %%", path.read_text())
    tagged = [cell for cell in cells if re.match(r'.*tags=\[[^\]]*"parameters"', cell)]
    if len(tagged) != 1:
        raise ValueError(f"{path.name}: wanted one cell tagged parameters, found {len(tagged)}")
    source = tagged[0].partition("\n")[2]
    lines = source.splitlines()
    known = {}
    for node in ast.parse(source).body:
        line = lines[node.lineno - 1]
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            raise ValueError(f"{path.name}: not an annotated literal: {line}")
        name = ast.unparse(node.target)
        kind = eval(ast.unparse(node.annotation))
        comment = line.partition("#")[2].strip() or _comment_above(lines, node.lineno - 1)
        known[name] = Parameter(name, kind, ast.literal_eval(node.value), comment)
    return known


def _comment_above(lines: list[str], number: int) -> str:
    """The comment that fills the lines right above a line, as one text."""
    words: list[str] = []
    while number and lines[number - 1].startswith("#"):
        number -= 1
        words.insert(0, lines[number].lstrip("# "))
    return " ".join(words)


def choose(path: Path, profile: str, given: list[tuple[str, str]]) -> dict[str, object]:
    """Return the values that differ from a chapter's defaults.

    Parameters
    ----------
    path : Path
        The chapter's .py file.
    profile : str
        A file of notebooks/profiles, or "quick" for the defaults themselves.
    given : list of (str, str)
        Names and values as typed by the user; they replace those of the profile.

    Raises
    ------
    UsageError
        For an unknown profile or parameter (the nearest spelling is shown), or a value of the
        wrong type.
    """
    known = parameters(path)
    chosen = {}
    for name, value in read_profile(profile).get(path.stem[:2], {}).items():
        chosen[name] = _typed(path, known, name, value)
    for name, text in given:
        chosen[name] = _typed(path, known, name, text)
    return {name: value for name, value in chosen.items() if value != known[name].default}


def read_profile(name: str) -> dict[str, dict]:
    """Return the parameters of a profile by chapter number; "quick" changes none.

    Raises
    ------
    UsageError
        For an unknown profile.
    """
    if name == "quick":
        return {}
    import yaml

    files = {path.stem: path for path in (checkout.NOTEBOOKS / "profiles").glob("*.yml")}
    try:
        nearest(name, [*files, "quick"], "profile")
    except ValueError as error:
        raise UsageError(error) from None
    return yaml.safe_load(files[name].read_text()) or {}


def _typed(path: Path, known: dict[str, Parameter], name: str, value: object) -> object:
    try:
        parameter = known[nearest(name, known, f"parameter of chapter {path.stem}")]
    except ValueError as error:
        raise UsageError(error) from None
    shown = value
    if isinstance(value, str) and parameter.type is not str:
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    if parameter.type is float and type(value) is int:
        value = float(value)
    if not is_a(value, parameter.type):
        raise UsageError(f"parameter {name}: wanted {parameter.kind}, for example "
                         f"{parameter.default!r}; got {shown!r}")
    return value


def is_a(value: object, kind: object) -> bool:
    """Tell whether a value is of a parameter's type.

    Examples
    --------
    >>> is_a([1, 2], list[int]), is_a(True, int)
    (True, False)
    """
    if typing.get_origin(kind) is list:
        item_kind = typing.get_args(kind)[0]
        return isinstance(value, list) and all(is_a(item, item_kind) for item in value)
    return type(value) is kind  # bool is an int for isinstance, not for us


def datasets(path: Path, values: dict[str, object]) -> list[str]:
    """Return the data sets that a chapter reads.

    These are the values of its parameters whose names end in "dataset" or "datasets".
    """
    chosen: dict = {name: parameter.default for name, parameter in parameters(path).items()}
    chosen |= values
    names: list[str] = []
    for name, value in chosen.items():
        if re.search("datasets?$", name):
            names += value if isinstance(value, list) else [value]
    return names


def vet(path: Path, values: dict[str, object]) -> None:
    """Run a chapter's own checks of its parameters, the cell tagged checks, without a kernel.

    Raises
    ------
    UsageError
        With what the checks say of these values.
    """
    import jupytext

    names: dict[str, object] = {}
    for cell in jupytext.read(path).cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        if "checks" in tags:
            try:
                exec(cell.source, names)
            except ValueError as error:
                raise UsageError(f"chapter {path.stem}: {error}") from None
            return
        if "parameters" in tags:
            names |= {name: parameter.default for name, parameter in parameters(path).items()}
            names |= values
        else:  # nothing that computes or draws
            imports: list[ast.stmt] = [
                node for node in ast.parse(cell.source).body
                if isinstance(node, (ast.Import, ast.ImportFrom))]
            exec(compile(ast.Module(imports, []), path.name, "exec"), names)
