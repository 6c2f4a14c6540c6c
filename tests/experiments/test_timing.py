"""Times by a clock that the tests set: no real time decides anything here."""

import math

import pandas as pd
import pytest

from wcka.experiments import timing


class Clock:
    """A clock that functions of the test move forward."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def function(self, name, durations):
        """Return a function that takes so many seconds in its next calls."""
        remaining = iter(durations)

        def function():
            self.calls.append(name)
            self.now += next(remaining)

        return function


def test_functions_take_turns_after_one_call_that_warms_up():
    clock = Clock()
    functions = {"a": clock.function("a", [9, 2, 3, 4]),
                 "b": clock.function("b", [9, 7, 6, 5])}
    times = timing.interleaved(functions, repeats=3, clock=clock)
    assert clock.calls == ["a", "b"] * 4
    assert times.loc["a"].to_dict() == {"seconds": 2, "spread": 0.5, "repeats": 3}
    assert times.loc["b", "seconds"] == 5  # the minimum, without the warm-up


def test_one_slow_round_of_seven_changes_neither_time_nor_spread():
    clock = Clock()
    functions = {"a": clock.function("a", [1, 1, 1, 1, 60, 1, 1, 1])}
    times = timing.interleaved(functions, clock=clock)
    assert times.loc["a"].to_dict() == {"seconds": 1, "spread": 0, "repeats": 7}


def test_rounds_that_differ_by_half_have_a_spread_of_half():
    clock = Clock()
    functions = {"a": clock.function("a", [1, 2, 2, 2, 2, 3, 3, 3, 3])}
    times = timing.interleaved(functions, repeats=8, clock=clock)
    assert times.loc["a", "spread"] == 0.5


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="got 0 and 7"):
        timing.interleaved({})
    with pytest.raises(ValueError, match="got 1 and 0"):
        timing.interleaved({"a": int}, repeats=0)


STABLE = [0.01, 0.01, 0.01]


@pytest.mark.parametrize("seconds, expected, exponent", [
    ([1, 2, 4], 1, 1), ([1, 4, 16], 2, 2), ([1, 1, 1], 0, 0),
    ([1, 0.995, 1], 0, 0),  # falls within its spread
    ([1, 2**0.6, 4**0.6], 1, 0.6), ([1, 2**1.4, 4**1.4], 1, 1.4)])
def test_an_exponent_is_the_slope_on_logarithmic_axes(seconds, expected, exponent):
    growth = timing.growth([10, 20, 40], seconds, STABLE, expected)
    assert growth.exponent == pytest.approx(exponent, abs=1e-9)
    assert growth.reason == "" and growth.text == f"{abs(exponent):.1f}"


@pytest.mark.parametrize("seconds, spread, expected, reason", [
    ([1, 2, 4], [0.01, 0.31, 0.01], 1, "spread of 31 %"),
    ([1, 0.9, 4], STABLE, 1, "time falls with size"),
    ([1, 1.05, 1.1], STABLE, 1, "exponent 0.1 where 1.0 is expected"),
    ([1, 4, 16], STABLE, 1, "exponent 2.0 where 1.0 is expected")])
def test_what_is_not_measurable_has_a_reason_and_no_exponent(
        seconds, spread, expected, reason):
    growth = timing.growth([10, 20, 40], seconds, spread, expected)
    assert math.isnan(growth.exponent)
    assert growth.text == f"not measurable in this run ({reason})"


def test_sizes_that_do_not_increase_and_missing_times_are_refused():
    with pytest.raises(ValueError, match="two increasing sizes"):
        timing.growth([10, 10], [1, 2], [0, 0], 1)
    with pytest.raises(ValueError, match="each of 2 sizes, got 1 and 2"):
        timing.growth([10, 20], [1], [0, 0], 1)


# ------------------------------------------------------------------------- in words


POWERS = {"a": timing.Growth(0.9, ""), "b": timing.Growth(1.1, "")}
FALLING = {"c": timing.Growth(math.nan, "time falls with size")}
UNSTABLE = {"d": timing.Growth(math.nan, "spread of 40 %")}


@pytest.mark.parametrize("growths, sentence", [
    (FALLING | UNSTABLE, "How times grow with n is not measurable in this run: "
     "c (time falls with size) and d (spread of 40 %)."),
    ({"a": POWERS["a"]}, "Measured times grow like n to the power 0.9 (a)."),
    (POWERS, "Measured times grow like n to the power 0.9 (a) and 1.1 (b)."),
    (POWERS | FALLING, "Measured times grow like n to the power 0.9 (a) and 1.1 (b); "
     "this is not measurable in this run for c (time falls with size)."),
    (POWERS | FALLING | UNSTABLE, "Measured times grow like n to the power 0.9 (a) and "
     "1.1 (b); this is not measurable in this run for c (time falls with size) and d "
     "(spread of 40 %)."),
], ids=["none", "the only one", "all", "all but one", "some"])
def test_sentences_on_growth(growths, sentence):
    assert timing.growth_sentence(growths, "n") == sentence


@pytest.mark.parametrize("spreads, text", [
    ([0.4, 0.4, 0.4], "not measurable in this run"),
    ([0.1, 0.4, 0.4], "20.0 ms (a); 2 of 3 are not measurable in this run"),
    ([0.1, 0.1, 0.4],
     "0.25 ms (b) to 20.0 ms (a); 1 of 3 is not measurable in this run"),
    ([0.1, 0.1, 0.1], "0.25 ms (b) to 3.0 s (c)"),
], ids=["none", "one", "several", "all"])
def test_ranges_of_times(spreads, text):
    times = pd.DataFrame(
        {"seconds": [0.02, 0.00025, 3.0], "spread": spreads}, index=["a", "b", "c"])
    assert timing.range_text(times) == text
