"""Public names that are imported when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

_EXTRA_OF_ROOM = {
    "networks": "experiments", "experiments": "experiments", "book": "book"}


def attach(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[
        Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Make the module-level functions that load a package's public names on demand.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    homes : mapping of str to sequence of str
        Public names by the module, relative to the package, that defines them. Modules
        of the package itself stand under the empty string.

    Returns
    -------
    getter, lister : function
        Functions to be bound to ``__getattr__`` and ``__dir__``.
    names : list of str
        All public names in alphabetical order, to be bound to ``__all__``.

    Examples
    --------
    >>> getter, lister, names = attach("json", {"decoder": ["JSONDecoder"]})
    >>> names
    ['JSONDecoder']
    >>> getter("JSONDecoder")
    <class 'json.decoder.JSONDecoder'>
    """
    home_of_name = {}
    for home, names_of_home in homes.items():
        for name in names_of_home:
            home_of_name[name] = home
    public_names = sorted(home_of_name)

    def load(name: str) -> object:
        if name not in home_of_name:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = _import(f"{package}.{home_of_name[name]}".rstrip("."))
        # A name can also be a module, which is an attribute of its package only once it
        # is imported.
        value = vars(module).get(name) or _import(f"{module.__name__}.{name}")
        # From now on the package has the attribute, and this function is not called.
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: public_names, public_names


def _import(name: str) -> ModuleType:
    """Import a module; where it lacks a package, name the extra that brings it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith(__package__):
            raise
        extra = _EXTRA_OF_ROOM.get(name.split(".")[1], "experiments")
        raise ModuleNotFoundError(
            f"{name} needs the package {missing!r}, which is not installed: "
            f"pip install 'wcka[{extra}]'", name=missing) from None
