"""Ranges of a chapter's parameters, refused before its kernel starts."""

import math
from collections.abc import Iterator


def distinct(**values) -> None:
    """Refuse lists that are too short, or that name a thing twice.

    Parameters
    ----------
    **values
        By the name of a parameter, a list and its least length.

    Raises
    ------
    ValueError
        With the name and the list.

    Examples
    --------
    >>> distinct(seeds=([0, 1, 2], 3))
    >>> distinct(seeds=([0, 1, 1], 3))
    Traceback (most recent call last):
    ValueError: seeds: wanted at least 3, all different; got [0, 1, 1]
    """
    for name, (items, least) in values.items():
        different = set(map(str, items))
        if len(different) < max(least, len(items)):
            raise ValueError(
                f"{name}: wanted at least {least}, all different; got {list(items)}"
            )


def within(**values) -> None:
    """Refuse numbers outside of a range.

    Parameters
    ----------
    **values
        By the name of a parameter, a number or a list of numbers, possibly nested,
        then the lowest and the highest number allowed.

    Raises
    ------
    ValueError
        With the name and the value; for an empty list, too.

    Examples
    --------
    >>> within(epochs=(10, 1, 500), widths=([[784, 32], [784]], 1, 2048))
    >>> within(epochs=(0, 1, 500))
    Traceback (most recent call last):
    ValueError: epochs: wanted 1 to 500, got 0
    """
    for name, (value, low, high) in values.items():
        numbers = list(_numbers(value))
        is_within = all(low <= number <= high for number in numbers)
        if not numbers or not is_within:
            raise ValueError(f"{name}: wanted {low} to {high}, got {value}")


def _numbers(value) -> Iterator:
    """Yield the numbers of a nested list; NaN, in no range, for an empty inner list."""
    if not isinstance(value, (list, tuple)):
        yield value
        return
    for item in value:
        if item == []:
            yield math.nan
        else:
            yield from _numbers(item)
