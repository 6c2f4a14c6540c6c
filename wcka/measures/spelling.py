"""The nearest spelling for names that users type."""

from collections.abc import Collection
from difflib import get_close_matches

_LISTED = 30  # number of names that an error message lists


def nearest(name: str, known: Collection[str], what: str) -> str:
    """Return a name if it is known; otherwise refuse it with the nearest spelling.

    Parameters
    ----------
    name : str
        The name that a user typed.
    known : collection of str
        All names that are allowed.
    what : str
        The noun for such a name in the error message.

    Returns
    -------
    str
        The name, unchanged.

    Raises
    ------
    ValueError
        For an unknown name, with the nearest known name and the list of all.

    Examples
    --------
    >>> nearest("ckaa", ["cka", "dcka"], "measure")
    Traceback (most recent call last):
    ValueError: unknown measure 'ckaa'; did you mean 'cka'? (known: cka, dcka)
    """
    if name in known:
        return name
    names = list(map(str, known))
    close = get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    listed = ", ".join(names[:_LISTED])
    raise ValueError(f"unknown {what} {name!r}{hint} (known: {listed}{more})")
