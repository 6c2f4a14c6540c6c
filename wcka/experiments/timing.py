"""Times of functions, and when they are too uncertain to say anything.

A time of a busy moment is no property of a function. Functions that are compared are
therefore measured in turns, the minimum of several repeats counts, and a law of growth
is only read off times that pass three checks; otherwise it is not measurable in this
run, with the reason.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..measures.spelling import listed

MOST_SPREAD = 0.3  # relative to the time; a larger one makes it unstable
MOST_DEVIATION = 0.5  # of an exponent from the one that counting operations gives
NOT_MEASURABLE = "not measurable in this run"


def interleaved(functions: Mapping[str, Callable[[], Any]], repeats: int = 7,
                clock: Callable[[], float] = time.perf_counter) -> pd.DataFrame:
    """Measure functions in turns: A B C A B C and so on.

    What disturbs the machine for a while then disturbs all of them, and not only the
    one that it happened to meet. Each is called once before, to warm up.

    Parameters
    ----------
    functions : mapping of str to function
        They are called without arguments.
    repeats : int
        Number of rounds.
    clock : function
        Returns the present time in seconds.

    Returns
    -------
    DataFrame
        One row per function, by name. ``seconds`` is the minimum over the rounds.
        ``spread`` is the interquartile range over the rounds relative to that minimum:
        0.3 means that the middle half of the rounds differ by 30 % of the time.
        ``repeats`` is the number of rounds.

    Raises
    ------
    ValueError
        For no functions or no rounds.

    Examples
    --------
    >>> times = interleaved({"sum": lambda: sum(range(9)), "nothing": lambda: None})
    >>> list(times.index), list(times.columns)
    (['sum', 'nothing'], ['seconds', 'spread', 'repeats'])
    """
    if not functions or repeats < 1:
        raise ValueError(
            f"wanted functions and rounds, got {len(functions)} and {repeats}")
    for function in functions.values():
        function()
    durations = np.empty((repeats, len(functions)))
    for i in range(repeats):
        for j, function in enumerate(functions.values()):
            start = clock()
            function()
            durations[i, j] = clock() - start
    lowest = durations.min(0)
    low_quartile, high_quartile = np.quantile(durations, [0.25, 0.75], axis=0)
    return pd.DataFrame(
        {"seconds": lowest, "spread": (high_quartile - low_quartile) / lowest,
         "repeats": repeats},
        index=pd.Index(functions, name="function"))


class Growth(NamedTuple):
    """How time grows with a size, or why this cannot be said.

    Attributes
    ----------
    exponent : float
        Doubling the size multiplies the time by two to this power; NaN if it is not
        measurable.
    reason : str
        Why it is not measurable; empty if it is.

    Examples
    --------
    >>> Growth(1.04, "").text, Growth(float("nan"), "time falls with size").text
    ('1.0', 'not measurable in this run (time falls with size)')
    """

    exponent: float
    reason: str

    @property
    def text(self) -> str:
        """The exponent, or that it is not measurable and why."""
        if self.reason:
            return f"{NOT_MEASURABLE} ({self.reason})"
        return f"{self.exponent:z.1f}"  # 0.0, not -0.0


def growth(sizes: Sequence[float], seconds: Sequence[float], spread: Sequence[float],
           expected: float) -> Growth:
    """Return the exponent of growth of times, or why it is not measurable.

    The exponent is the slope of a line through the logarithms of all times.

    Parameters
    ----------
    sizes : sequence of float
        At least two, in increasing order.
    seconds, spread : sequence of float
        The time at each size and its relative spread, as from ``interleaved``.
    expected : float
        The exponent that counting operations gives.

    Returns
    -------
    Growth
        Not measurable if a spread is over 30 %, if time falls from one size to the next
        by more than its spread, or if the exponent is off the expected one by more than
        0.5.

    Raises
    ------
    ValueError
        For fewer than two sizes, sizes that do not increase, or other lengths of
        `seconds` and `spread`.

    Examples
    --------
    >>> growth([100, 200, 400], [1.0, 2.1, 4.0], [0.02, 0.05, 0.01], expected=1).text
    '1.0'
    >>> growth([100, 200], [1.0, 2.0], [0.02, 0.4], expected=1).reason
    'spread of 40 %'
    """
    if len(sizes) < 2 or not (np.diff(sizes) > 0).all():
        raise ValueError(f"wanted at least two increasing sizes, got {list(sizes)}")
    if not len(sizes) == len(seconds) == len(spread):
        raise ValueError(f"wanted a time and a spread for each of {len(sizes)} sizes, "
                         f"got {len(seconds)} and {len(spread)}")
    times = np.asarray(seconds, float)
    highest_times = times * (1 + np.asarray(spread, float))
    exponent = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    reason = ""
    if max(spread) > MOST_SPREAD:
        reason = f"spread of {100 * max(spread):.0f} %"
    elif (highest_times[1:] < times[:-1]).any():
        reason = "time falls with size"
    elif abs(exponent - expected) > MOST_DEVIATION:
        reason = f"exponent {exponent:.1f} where {expected:.1f} is expected"
    return Growth(float("nan") if reason else exponent, reason)


# ------------------------------------------------------------------------- in words


def duration_text(seconds: float, spread: float) -> str:
    """Return a time in milliseconds or seconds, unless its spread is too large.

    Examples
    --------
    >>> duration_text(0.0123, spread=0.1), duration_text(12.3, spread=0.1)
    ('12.3 ms', '12.3 s')
    >>> duration_text(0.0123, spread=0.4)
    'not measurable in this run'
    """
    if spread > MOST_SPREAD:
        return NOT_MEASURABLE
    if seconds >= 1:
        return f"{seconds:.1f} s"
    milliseconds = 1e3 * seconds
    return f"{milliseconds:.2f} ms" if milliseconds < 1 else f"{milliseconds:.1f} ms"


def range_text(times: pd.DataFrame) -> str:
    """Return the shortest and the longest of times, and how many are not measurable.

    Parameters
    ----------
    times : DataFrame
        As from ``interleaved``.

    Examples
    --------
    >>> times = pd.DataFrame({"seconds": [0.02, 0.001, 0.9], "spread": [0.1, 0.1, 0.5]},
    ...                      index=["CKA", "wCKA", "dCKA"])
    >>> range_text(times)
    '1.0 ms (wCKA) to 20.0 ms (CKA); 1 of 3 is not measurable in this run'
    """
    is_stable = times.spread <= MOST_SPREAD
    stable = times[is_stable].sort_values("seconds")
    if stable.empty:
        return NOT_MEASURABLE
    ends = []
    for name in dict.fromkeys([stable.index[0], stable.index[-1]]):
        duration = duration_text(stable.seconds[name], stable.spread[name])
        ends.append(f"{duration} ({name})")
    text = " to ".join(ends)
    count = len(times) - len(stable)
    if count:
        verb = "is" if count == 1 else "are"
        text += f"; {count} of {len(times)} {verb} {NOT_MEASURABLE}"
    return text


def growth_sentence(growths: Mapping[str, Growth], size: str) -> str:
    """Return a sentence on how measured times grow, and where this cannot be said.

    Parameters
    ----------
    growths : mapping of str to Growth
        By the names of what was timed.
    size : str
        What the times grow with, such as "the number of probes".

    Examples
    --------
    >>> growths = {"CKA": Growth(1.04, ""), "wCKA": Growth(1.22, "")}
    >>> growth_sentence(growths, "n")
    'Measured times grow like n to the power 1.0 (CKA) and 1.2 (wCKA).'
    >>> growth_sentence({"CKA": Growth(float("nan"), "spread of 40 %")}, "n")
    'How times grow with n is not measurable in this run: CKA (spread of 40 %).'
    """
    powers = []
    reasons = []
    for name, result in growths.items():
        if result.reason:
            reasons.append(f"{name} ({result.reason})")
        else:
            powers.append(f"{result.text} ({name})")
    if not powers:
        return f"How times grow with {size} is {NOT_MEASURABLE}: {listed(reasons)}."
    sentence = f"Measured times grow like {size} to the power {listed(powers)}"
    if reasons:
        sentence += f"; this is {NOT_MEASURABLE} for {listed(reasons)}"
    return sentence + "."
