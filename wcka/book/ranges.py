"""Ranges of a chapter's parameters, refused before its kernel starts."""

import math


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
            yield from _numbers(each) if each != [] else [math.nan]
