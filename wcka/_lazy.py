"""Public names that are imported when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

_EXTRA_OF_ROOM = {"networks": "experiments", "experiments": "experiments", "book": "book"}


def attach(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[
        Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Make the module-level functions that load a package's public names on demand.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    homes : mapping of str to sequence of str
        Public names by the module, relative to the package, that defines them. Modules of the
        package itself stand under the empty string.

    Returns
    -------
    getter, lister : function
        To be bound to ``__getattr__`` and ``__dir__``.
    names : list of str
        All public names in alphabetical order, to be bound to ``__all__``.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def load(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = _imported(f"{package}.{home_of[name]}".rstrip("."))
        # A name can also be a module, which is an attribute of its package once it is imported.
        value = vars(module).get(name) or _imported(f"{module.__name__}.{name}")
        setattr(sys.modules[package], name, value)  # the next use finds it without this function
        return value

    names = sorted(home_of)
    return load, lambda: names, names


def _imported(name: str) -> ModuleType:
    """Import a module; where a package that it needs is missing, say which extra brings it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith(__package__):
            raise
        room = name.split(".")[1]
        raise ModuleNotFoundError(
            f"{name} needs the package {missing!r}, which is not installed: "
            f"pip install 'wcka[{_EXTRA_OF_ROOM.get(room, 'experiments')}]'", name=missing) from None
