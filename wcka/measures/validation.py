"""Clear errors for bad input, shared by all modules."""

import warnings
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor


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
    """Refuse numbers outside a range: name=(number, or list of them, lowest, highest).

    Raises
    ------
    ValueError
        With the name and what was given; for an empty list, too.
    """
    for name, (given, low, high) in values.items():
        numbers = list(_numbers(given))
        if not numbers or not all(low <= number <= high for number in numbers):
            raise ValueError(f"{name}: wanted {low} to {high}, got {given}")


def _numbers(given):
    if not isinstance(given, (list, tuple)):
        yield given
    else:
        for each in given:
            # An empty list among others is no number of the range.
            yield from _numbers(each) if each != [] else [np.nan]


def matrix(values, label: str) -> Tensor:
    """Check one representation (n, d); keep its dtype where that is a float.

    Raises
    ------
    ValueError
        For another rank than 2, fewer than 2 rows, or no column.
    TypeError
        For values that are not real numbers.
    """
    if not isinstance(values, Tensor):
        if np.ma.isMaskedArray(values):
            raise TypeError(f"{label}: wanted real numbers, got a masked array; fill it first")
        values = np.asarray(values)
        if values.dtype.kind not in "fiub":
            raise TypeError(f"{label}: wanted real numbers, got dtype {values.dtype}")
        if values.dtype.kind != "f" or values.dtype.itemsize > 8:  # torch lacks some of these
            values = values.astype(np.float64)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        with warnings.catch_warnings():  # of arrays that must not be written to: they are not
            warnings.filterwarnings("ignore", ".*not writable", UserWarning)
            values = torch.from_numpy(np.ascontiguousarray(values))
    if values.is_complex():
        raise TypeError(f"{label}: wanted real numbers, got dtype {values.dtype}")
    if values.ndim != 2:
        raise ValueError(f"{label}: wanted two axes (rows, columns), got shape "
                         f"{tuple(values.shape)}; flatten the others into columns")
    if len(values) < 2 or not values.shape[1]:
        raise ValueError(f"{label}: wanted at least 2 rows and 1 column, got shape "
                         f"{tuple(values.shape)}")
    return values.detach() if values.is_floating_point() else values.double()
