"""What a result depends on besides its arguments: the package's code and the libraries' versions.

Code counts as its syntax tree without docstrings, so that a comment, a line break or a better
docstring computes nothing anew.
"""

import ast
import functools
import importlib
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOMS = ("measures", "weights", "networks", "experiments")  # no result depends on the book
# The libraries that make numbers, by the names that they are imported under.
_LIBRARIES = frozenset({"torch", "numpy", "scipy", "skimage"})


def whole_code() -> str:
    """Return the code of all rooms whose modules compute results, and the libraries' versions."""
    return code_of(name for room in ROOMS for name in _modules(room))


def code_of(modules: Iterable[str]) -> str:
    """Return the code of some modules and of all that they import, and the libraries' versions.

    Parameters
    ----------
    modules : iterable of str
        Names below the package, such as "experiments.benchmark".

    Returns
    -------
    str
        The same for two states of the code that differ in comments, layout and docstrings only.

    Examples
    --------
    >>> code = code_of(["networks.corruptions"])
    >>> "skimage" in code, "torch" in code
    (True, False)
    """
    needed = _closure(modules)
    libraries = {library for name in needed for library in _libraries(name)}
    versions = [f"{library} {_version(library)}" for library in sorted(libraries)]
    return "\n".join([*versions, *(_stripped(name) for name in needed)])


def stripped_code(source: str) -> str:
    """Return source code as its syntax tree, without docstrings, comments and layout.

    Examples
    --------
    >>> stripped_code("x = 1  # one") == stripped_code("x = (1)")
    True
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _modules(room: str) -> list[str]:
    return [f"{room}.{path.stem}" for path in sorted((PACKAGE / room).glob("[a-z]*.py"))]


def _closure(modules: Iterable[str]) -> list[str]:
    needed: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += _imports(name)
    return sorted(needed)


def _path(module: str) -> Path:
    return PACKAGE / f"{module.replace('.', '/')}.py"


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text())


@functools.cache
def _stripped(module: str) -> str:
    return stripped_code(_path(module).read_text())


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Names of the package's modules that a module imports, wherever in it."""
    room = module.split(".")[0]
    names = set()
    for node in ast.walk(_tree(module)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        # One dot is the module's own room, two are the package, whose first name is a room.
        home = f"{room}.{node.module or ''}" if node.level == 1 else node.module or ""
        home = home.strip(".")
        names.add(home)
        names |= {f"{home}.{alias.name}" for alias in node.names}
    return frozenset(name for name in names if _path(name).is_file())


def _libraries(module: str) -> set[str]:
    """Names of the libraries that make numbers which a module imports."""
    names = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    return names & _LIBRARIES


def _version(library: str) -> str:
    # Its own word, not that of the installed package: PyTorch's names the build as well.
    return str(importlib.import_module(library).__version__)
