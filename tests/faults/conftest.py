"""Faults on purpose: how many were tried, survived and lost, as a table at the end."""

import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
TRIED = Counter()
LOST = {}


def pytest_itemcollected(item):
    if FOLDER in item.path.parents:
        item.add_marker(pytest.mark.faults)


class Tally:
    """Attempts of one test, which goes on after a loss and fails at its end."""

    def __init__(self, kind):
        self.kind = kind
        self.losses = []

    @contextmanager
    def attempt(self, description):
        """Count what happens inside as one fault; any error there is a loss."""
        TRIED[self.kind] += 1
        try:
            yield
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error}"[:300]
            self.losses.append(f"{description}: {reason} (line {place.lineno})")


@pytest.fixture
def tally(request):
    """Count the attempts of a test under the first line of its docstring."""
    kind = request.function.__doc__.strip().splitlines()[0]
    counts = Tally(kind)
    TRIED[kind] += 0
    yield counts
    LOST[kind] = len(counts.losses)
    if counts.losses:
        pytest.fail("\n".join(counts.losses), pytrace=False)


def pytest_terminal_summary(terminalreporter):
    if not TRIED:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'tried':>6} {'survived':>9} {'lost':>5}")
    rows = [*TRIED.items(), ("all", TRIED.total())]
    lost_in_all = sum(LOST.values())
    for kind, tried in rows:
        lost = LOST.get(kind, 0) if kind != "all" else lost_in_all
        terminalreporter.write_line(f"{tried:6} {tried - lost:9} {lost:5}  {kind}")
