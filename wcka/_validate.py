"""Clear errors for bad input, shared by all modules."""

from difflib import get_close_matches


def nearest(name, known, what):
    """Return `name` if it is in `known`; otherwise raise a ValueError with the nearest spelling."""
    if name in known:
        return name
    close = get_close_matches(str(name).lower(), [str(k) for k in known], n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown {what} {name!r}{hint} (known: {', '.join(map(str, known))})")
