"""Clear errors for bad input, shared by all modules."""

from difflib import get_close_matches


def nearest(name, known, what):
    """Return `name` if it is in `known`; otherwise raise a ValueError with the nearest spelling."""
    if name in known:
        return name
    close = get_close_matches(str(name).lower(), [str(k) for k in known], n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = [*map(str, known)]
    more = f" and {len(listed) - 30} more" if len(listed) > 30 else ""
    raise ValueError(f"unknown {what} {name!r}{hint} (known: {', '.join(listed[:30])}{more})")


def distinct(**values) -> None:
    """Refuse lists that are too short, or name a thing twice: name=(list, least length).

    Raises
    ------
    ValueError
        With the name and what was given.
    """
    for name, (given, least) in values.items():
        if len(set(map(str, given))) < max(least, len(given)):
            raise ValueError(f"{name}: wanted at least {least}, all different; got {list(given)}")


def within(**values) -> None:
    """Refuse numbers outside a range: name=(number, lowest, highest).

    Raises
    ------
    ValueError
        With the name and what was given.
    """
    for name, (given, low, high) in values.items():
        if not low <= given <= high:
            raise ValueError(f"{name}: wanted {low} to {high}, got {given}")
