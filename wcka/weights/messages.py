"""Parts of messages: lists of names, the nearest names, lines that are not too long."""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from ..measures.spelling import first_line, printable

# The most that a line of refusal holds, whatever other people's errors say.
LONGEST = 2000


def listed(names: list[Any], most: int = 4) -> str:
    """Return names as text fit for a terminal, at most a few of them.

    Examples
    --------
    >>> listed(["fc1", "fc2", "fc3"], most=2)
    'fc1, fc2 and 1 more'
    """
    text = ", ".join(printable(str(name)) for name in names[:most])
    if len(names) > most:
        text += f" and {len(names) - most} more"
    return text


def counted(count: int, noun: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(1, "layer"), counted(1200, "layer")
    ('1 layer', '1,200 layers')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def chosen(name: str, known: Collection[str], what: str, most: int = 8) -> str:
    """Return a name if it is known; otherwise refuse it with the names most like it.

    ``nearest`` is for short lists that are ours. The names in a file may be many and
    long, so few are listed, the most similar first.

    Parameters
    ----------
    name : str
        What the user typed.
    known : collection of str
        The names that there are.
    what : str
        The noun for such a name.
    most : int
        How many of them a message lists.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> chosen("fc3", ["conv", "fc1", "fc2"], "layer", most=2)
    Traceback (most recent call last):
    ValueError: unknown layer 'fc3'; did you mean 'fc2'? (known: fc2, fc1 and 1 more)
    """
    if name in known:
        return name
    close = get_close_matches(name, known, n=most, cutoff=0.3)
    hint = ""
    if close:
        hint = f"; did you mean {close[0]!r}?"
    others = [label for label in known if label not in close]
    names = shortened(listed([*close, *others], most), LONGEST // 2)
    raise ValueError(f"unknown {what} {name!r}{hint} (known: {names})")


def one_line(error: BaseException, most: int = 160) -> str:
    """Return the first line of an error's message, shortened, fit for a terminal.

    Examples
    --------
    >>> one_line(RuntimeError("one two" + chr(10) + "three"))
    'one two'
    """
    return shortened(first_line(error, None), most)


def shortened(text: str, most: int) -> str:
    """Return a text, or as many of its words as fit, followed by dots.

    Examples
    --------
    >>> shortened("one two three", 9)
    'one two ...'
    """
    if len(text) <= most:
        return text
    words, _, _ = text[:most + 1].rpartition(" ")
    return f"{words or text[:most]} ..."
