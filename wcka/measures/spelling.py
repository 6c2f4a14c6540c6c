"""Names that users type: unknown ones are refused with the nearest spelling."""

from collections.abc import Collection
from difflib import get_close_matches

_LISTED = 30  # names that an error message lists


def nearest(name, known: Collection, what: str):
    """Return `name` if it is known; otherwise refuse it with the nearest spelling.

    Parameters
    ----------
    name : str
        What the user gave.
    known : collection of str
        All names that there are.
    what : str
        What the error message calls such a name.

    Returns
    -------
    str
        `name` itself.

    Raises
    ------
    ValueError
        For an unknown name, with the nearest known one and the list of all.

    Examples
    --------
    >>> nearest("ckaa", ["cka", "dcka"], "measure")
    Traceback (most recent call last):
    ValueError: unknown measure 'ckaa'; did you mean 'cka'? (known: cka, dcka)
    """
    names = [str(choice) for choice in known]
    if name in known:
        return name
    close = get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    listed = ", ".join(names[:_LISTED])
    raise ValueError(f"unknown {what} {name!r}{hint} (known: {listed}{more})")
