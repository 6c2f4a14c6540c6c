"""The code and the versions of libraries that a result depends on.

Code counts as its syntax tree without docstrings, so that a comment, a line break or a
better docstring computes nothing anew.
"""

import ast
import functools
import importlib
import platform
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# No result depends on the book or on the command line.
ROOMS = ("measures", "weights", "networks", "experiments")
# The libraries that make the numbers of results, by the names that they are imported
# under, with those that they are installed under
LIBRARIES = {
    "torch": "torch", "numpy": "numpy", "scipy": "scipy", "skimage": "scikit-image"}
# Who imports this learns from texts that come with Python, and change with it.
_TEXTS_OF_PYTHON = "pydoc_data"


def whole_code() -> str:
    """Return the code of all rooms that compute results, and the libraries' versions.

    Examples
    --------
    >>> "name='mantel_test'" in whole_code()
    True
    """
    modules = []
    for room in ROOMS:
        modules += _modules(room)
    return code_of(modules)


def code_of(modules: Iterable[str]) -> str:
    """Return the code of modules and of all that they import, and libraries' versions.

    Parameters
    ----------
    modules : iterable of str
        Names below the package, such as "experiments.benchmark".

    Returns
    -------
    str
        The same for two states of the code that differ in comments, layout and
        docstrings only.

    Examples
    --------
    >>> code = code_of(["networks.corruptions"])
    >>> "skimage" in code, "torch" in code
    (True, False)
    """
    libraries, code = _libraries_and_code(tuple(modules))
    lines = [f"{library} {_version(library)}" for library in sorted(libraries)]
    return "\n".join([*lines, code])


@functools.cache  # each call of a cached function asks for it
def _libraries_and_code(modules: tuple[str, ...]) -> tuple[set[str], str]:
    """Return what modules, and all that they import, need and are."""
    names = _closure(modules)
    libraries = set()
    for name in names:
        libraries |= _libraries(name)
    return libraries, "\n".join(_stripped(name) for name in names)


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
    """Return the names of a room's modules."""
    files = sorted((PACKAGE / room).glob("[a-z]*.py"))
    return [f"{room}.{file.stem}" for file in files]


def _closure(modules: Iterable[str]) -> list[str]:
    """Return the names of modules and of all that they import, directly or not."""
    closure: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in closure:
            closure.add(name)
            waiting += _imports(name)
    return sorted(closure)


def _path(module: str) -> Path:
    """Return the file of a module."""
    return PACKAGE / f"{module.replace('.', '/')}.py"


@functools.cache
def _tree(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(_path(module).read_text("utf-8"))


@functools.cache
def _stripped(module: str) -> str:
    """Return the stripped code of a module."""
    return stripped_code(_path(module).read_text("utf-8"))


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Return the names of the package's modules that a module imports anywhere."""
    room = module.split(".")[0]
    names = set()
    for node in ast.walk(_tree(module)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        # One dot is the module's room, two are the package, whose first name is a room.
        home = node.module or ""
        if node.level == 1:
            home = f"{room}.{home}"
        home = home.strip(".")
        names.add(home)
        for alias in node.names:  # "from . import cache" names a module here
            names.add(f"{home}.{alias.name}")
    return frozenset(name for name in names if _path(name).is_file())


def _libraries(module: str) -> set[str]:
    """Return the names of the libraries that make numbers which a module imports.

    Python's own texts are among them.
    """
    names = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names.add(alias.name.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    return names & {*LIBRARIES, _TEXTS_OF_PYTHON}


def _version(library: str) -> str:
    """Return a library's version in its words: PyTorch's names the build as well."""
    if library == _TEXTS_OF_PYTHON:
        return platform.python_version()
    return str(importlib.import_module(library).__version__)
