"""Parameters of a chapter: read from its source, typed, refused before a kernel starts.

Only ``vet`` imports more than the standard library and PyYAML, so that a misspelt call
is answered at once.
"""

import ast
import contextlib
import re
import reprlib
import typing
from pathlib import Path

from ..measures.spelling import nearest, printable
from . import checkout
from .checkout import UsageError

# Values in a profile, each counted as often as aliases repeat it
_MOST_VALUES = 100_000


class Parameter(typing.NamedTuple):
    """One line of a chapter's parameters cell.

    Attributes
    ----------
    name : str
    type : type
        A plain type, or a list type such as ``list[int]``.
    default : object
    comment : str
        The meaning of the parameter.

    Examples
    --------
    >>> Parameter("seeds", list[int], [1, 2], "of the networks").kind
    'list[int]'
    """

    name: str
    type: typing.Any
    default: object
    comment: str

    @property
    def kind(self) -> str:
        """The type as it is written in Python."""
        return str(self.type) if typing.get_args(self.type) else self.type.__name__


def read_parameters(path: Path) -> dict[str, Parameter]:
    """Read the parameters cell of a chapter: annotated literals, each explained.

    A parameter's comment stands behind it, or on the lines above it.

    Parameters
    ----------
    path : Path
        The chapter's .py file.

    Returns
    -------
    dict of str to Parameter
        Parameters by name, in the order of the cell.

    Raises
    ------
    ValueError
        For a chapter without exactly one such cell, or a line that is no annotated
        literal.

    Examples
    --------
    >>> seed = read_parameters(checkout.find_chapter("02"))["seed"]
    >>> seed.kind, seed.default
    ('int', 0)
    """
    source = _parameters_cell(path)
    lines = source.splitlines()
    parameters_by_name = {}
    for node in ast.parse(source).body:
        line = lines[node.lineno - 1]
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            raise ValueError(f"{path.name}: not an annotated literal: {line}")
        name = ast.unparse(node.target)
        kind = eval(ast.unparse(node.annotation))
        comment = line.partition("#")[2].strip()
        if not comment:
            comment = _comment_above(lines, node.lineno - 1)
        default = ast.literal_eval(node.value)
        parameters_by_name[name] = Parameter(name, kind, default, comment)
    return parameters_by_name


def _parameters_cell(path: Path) -> str:
    """Return the source of the cell that is tagged parameters."""
    # Not by jupytext: its import would take longer than the rest of a refused call.
    sources = []
    for cell in re.split(r"(?m)^# %%", path.read_text("utf-8")):
        if re.match(r'.*tags=\[[^\]]*"parameters"', cell):
            sources.append(cell.partition("\n")[2])
    if len(sources) != 1:
        raise ValueError(
            f"{path.name}: wanted one cell tagged parameters, found {len(sources)}")
    return sources[0]


def _comment_above(lines: list[str], number: int) -> str:
    """Return the comment that fills the lines right above a line, as one text."""
    comment_lines: list[str] = []
    while number and lines[number - 1].startswith("#"):
        number -= 1
        comment_lines.insert(0, lines[number].lstrip("# "))
    return " ".join(comment_lines)


def choose(
        path: Path, profile: str, assignments: list[tuple[str, str]],
) -> dict[str, object]:
    """Return the values that differ from a chapter's defaults.

    Parameters
    ----------
    path : Path
        The chapter's .py file.
    profile : str
        A file of notebooks/profiles, or "quick" for the defaults themselves.
    assignments : list of (str, str)
        Names and values as the user typed them; they replace those of the profile.

    Returns
    -------
    dict of str to object
        Values by the name of the parameter, each of the parameter's type.

    Raises
    ------
    UsageError
        For an unknown profile or parameter (the nearest spelling is shown), or a value
        of the wrong type.

    Examples
    --------
    >>> choose(checkout.find_chapter("02"), "quick", [("seed", "3")])
    {'seed': 3}
    """
    parameters_by_name = read_parameters(path)
    values = {}
    for name, value in read_profile(profile).get(path.stem[:2], {}).items():
        values[name] = _typed(path, parameters_by_name, name, value)
    for name, text in assignments:
        values[name] = _typed(path, parameters_by_name, name, text)
    differing_values = {}
    for name, value in values.items():
        if value != parameters_by_name[name].default:
            differing_values[name] = value
    return differing_values


def read_profile(name: str) -> dict[str, dict]:
    """Return the parameters that a profile sets, by the number of the chapter.

    Parameters
    ----------
    name : str
        A file of notebooks/profiles, or "quick", which sets none.

    Returns
    -------
    dict of str to dict
        Under "02", for instance, the values of chapter 2 by the name of the parameter.

    Raises
    ------
    UsageError
        For an unknown profile, for one that is not YAML, and for one that names an
        unknown chapter, names a chapter or a parameter twice, or sets anything but
        parameters. Chapters are named as on the command line: 1, 01, 01-theory.

    Examples
    --------
    >>> read_profile("quick")
    {}
    >>> sorted(read_profile("smoke"))[:2]
    ['01', '02']
    """
    if name == "quick":
        return {}
    folder = checkout.NOTEBOOKS / "profiles"
    path_of_profile = {path.stem: path for path in folder.glob("*.yml")}
    try:
        nearest(name, [*path_of_profile, "quick"], "profile")
    except ValueError as error:
        raise UsageError(error) from None
    try:
        return _by_chapter(_entries(path_of_profile[name].read_text("utf-8")))
    except ValueError as error:
        raise UsageError(printable(f"profile {name}: {error}")) from None


def _by_chapter(entries: list[tuple[str, object]]) -> dict[str, dict]:
    """Return the parameters that a profile sets, by the number of the chapter."""
    values_of_chapter: dict[str, dict] = {}
    for name, values in entries:
        # Without this, find_chapter would take the name "1.5" for a file, of chapter 1.
        if Path(name).stem != name:
            raise ValueError(f"unknown chapter {name!r}")
        number = checkout.find_chapter(name).stem[:2]
        if number in values_of_chapter:
            raise ValueError(f"chapter {number} is there twice")
        if values is None:  # all of its parameters may be commented out
            values = {}
        if not isinstance(values, dict):
            raise ValueError(
                f"chapter {name}: wanted parameters, such as {{seed: 1}}; "
                f"got {_shown(values)}")
        values_of_chapter[number] = values
    return values_of_chapter


def _entries(text: str) -> list[tuple[str, object]]:
    """Return the keys of a YAML mapping as they are typed, and their values.

    YAML reads the key 01 as the number 1, and 010 as the number 8.
    """
    import yaml

    try:
        return _constructed(yaml.SafeLoader(text))
    except ValueError:
        raise
    except Exception as error:
        # PyYAML has errors of its own, and more where a value does not fit its tag,
        # such as !!int '', or where the nesting is too deep for Python.
        message = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"not YAML: {message}") from None


def _constructed(loader) -> list[tuple[str, object]]:
    """Return the keys of the one mapping that a YAML loader reads, and their values."""
    import yaml

    node = loader.get_single_node()
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("wanted the parameters of each chapter by its number")
    if _size(node, {}) > _MOST_VALUES:
        raise ValueError(f"wanted at most {_MOST_VALUES:,} values, aliases included")
    entries = []
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode):
            _refuse_double_keys(value)
        entries.append((str(key.value), loader.construct_object(value, deep=True)))
    return entries


def _size(node, sizes: dict[int, int]) -> int:
    """Return how many values a YAML node stands for, its aliases written out.

    A few lines of aliases of aliases can stand for billions, which would be merged or
    printed one by one. The sizes are those of nodes that were met before, by their ids.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = 1  # what contains itself is refused when it is constructed
    size = 1
    if isinstance(node.value, list):
        for entry in node.value:
            parts = entry if isinstance(entry, tuple) else [entry]
            size += sum(_size(part, sizes) for part in parts)
    sizes[id(node)] = size
    return size


def _refuse_double_keys(node) -> None:
    """Refuse a YAML mapping that has a key twice, of which YAML would take the last."""
    names = set()
    for key, _ in node.value:
        name = str(key.value)
        if name in names:
            raise ValueError(f"parameter {name} is there twice")
        names.add(name)


def _typed(
        path: Path, parameters_by_name: dict[str, Parameter], name: str, value: object,
) -> object:
    """Return a value as one of the parameter's type, or refuse it."""
    try:
        nearest(name, parameters_by_name, f"parameter of chapter {path.stem}")
    except ValueError as error:
        raise UsageError(error) from None
    parameter = parameters_by_name[name]
    literal = value
    if isinstance(value, str) and parameter.type is not str:
        # Besides its errors, the parser has these for what is nested too deeply.
        with contextlib.suppress(
                ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            literal = ast.literal_eval(value)
    if parameter.type is float and type(literal) is int:
        with contextlib.suppress(OverflowError):
            literal = float(literal)
    if not is_a(literal, parameter.type):
        raise UsageError(
            f"parameter {name}: wanted {parameter.kind}, for example "
            f"{parameter.default!r}; got {_shown(value)}")
    return literal


def _shown(value: object) -> str:
    """Return a value as it is written in Python, shortened where it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of too many digits"


def is_a(value: object, kind: object) -> bool:
    """Tell whether a value is of a parameter's type.

    Parameters
    ----------
    value : object
    kind : type
        A plain type, or a list type such as ``list[int]``.

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

    Parameters
    ----------
    path : Path
        The chapter's .py file.
    values : dict
        Parameters that differ from its defaults.

    Returns
    -------
    list of str
        Names of data sets, in the order of the parameters.

    Examples
    --------
    >>> datasets(checkout.find_chapter("02"), {"dataset": "fashion"})
    ['fashion']
    """
    names: list[str] = []
    for name, value in _all_values(path, values).items():
        if not re.search("datasets?$", name):
            continue
        if isinstance(value, list):
            names += value
        else:
            names.append(str(value))
    return names


def _all_values(path: Path, values: dict[str, object]) -> dict[str, object]:
    """Return the values of all parameters: `values`, and defaults for the rest."""
    defaults = {}
    for name, parameter in read_parameters(path).items():
        defaults[name] = parameter.default
    return defaults | values


def vet(path: Path, values: dict[str, object]) -> None:
    """Check parameters by a chapter's own cell tagged checks, without a kernel.

    Parameters
    ----------
    path : Path
        The chapter's .py file.
    values : dict
        Parameters that differ from its defaults.

    Raises
    ------
    UsageError
        With the message of the check that refuses these values.

    Examples
    --------
    >>> vet(checkout.find_chapter("01"), {"epochs": -1})
    Traceback (most recent call last):
    UsageError: chapter 01-theory: epochs: wanted 1 to 1000, got -1
    """
    namespace: dict[str, object] = {}
    for cell in checkout.read_chapter(path).cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        if "checks" in tags:
            try:
                exec(cell.source, namespace)
            except ValueError as error:
                raise UsageError(f"chapter {path.stem}: {error}") from None
            return
        if "parameters" in tags:
            namespace |= _all_values(path, values)
        else:
            exec(_imports(cell.source, path.name), namespace)


def _imports(source: str, file: str):
    """Compile the import statements of a cell, and nothing that computes or draws."""
    statements: list[ast.stmt] = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            statements.append(node)
    return compile(ast.Module(statements, []), file, "exec")


