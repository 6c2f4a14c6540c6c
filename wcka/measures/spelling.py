"""Names and errors in messages: spelling, lists, text fit for a terminal."""

from collections.abc import Collection, Sequence
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
    known_names = ", ".join(names[:_LISTED])
    raise ValueError(f"unknown {what} {name!r}{hint} (known: {known_names}{more})")


def listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def first_line(error: BaseException, most: int | None = 500) -> str:
    """Return the first line of an error's message, shortened, fit for a terminal.

    Parameters
    ----------
    error : BaseException
    most : int, optional
        Characters after which the line is cut off; None for all of it.

    Examples
    --------
    >>> first_line(RuntimeError("one" + chr(10) + "two"))
    'one'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0][:most])


def printable(text: str) -> str:
    """Return a text with escapes in place of what a terminal would act upon.

    Names in files and notebooks come from strangers: a line break or an escape sequence
    in them could forge a line of output.

    Examples
    --------
    >>> printable("a" + chr(27)) == "a" + chr(92) + "x1b"
    True
    """
    return text if text.isprintable() else repr(text)[1:-1]
