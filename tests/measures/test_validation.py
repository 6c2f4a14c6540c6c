"""Parameters that are refused before any work starts."""

import pytest

from wcka.book.ranges import distinct, within
from wcka.experiments import benchmark
from wcka.networks.probes import ATTACKS, PROBES, expand_probes


def test_lists():
    distinct(seeds=(range(3), 3), heads=([[8], [8, 8]], 2))
    message = r"heads: wanted at least 1, all different; got \[\[8\], "
    with pytest.raises(ValueError, match=message):
        distinct(heads=([[8], [8]], 1))
    with pytest.raises(ValueError, match="seeds: wanted at least 3"):
        distinct(classes=([0, 1], 2), seeds=(range(2), 3))


def test_ranges():
    within(eps=(0, 0, 1), steps=(3, 1, 1000))
    for value in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="eps: wanted 0 to 1, got"):
            within(eps=(value, 0, 1))


def test_probes():
    assert expand_probes(["clean", "corruptions", "attacks"]) == [*PROBES, *ATTACKS]
    assert expand_probes(["pgd", "clean"]) == ["pgd", "clean"]
    for wrong_probes in (["clean"], ["fog"], ["clean", "fogg"],
                         ["clean", "fog", "corruptions"], []):
        with pytest.raises(ValueError, match="wanted clean and some others, each once"):
            expand_probes(wrong_probes)


@pytest.mark.parametrize("wrong_grid, message", [
    ((["pdg"], "logits", [1], 4), "did you mean 'pgd'"),
    ((["pgd"], "last", [1], 4), "did you mean 'last hidden'"),
    ((["pgd"], "logits", [0, 1], 4), "wanted epochs from 1 to 4"),
    ((["pgd"], "logits", [5], 4), "wanted epochs from 1 to 4"),
])
def test_grids(wrong_grid, message):
    benchmark.check_grid(["standard", "pgd"], "logits", [1, 4], 4)
    with pytest.raises(ValueError, match=message):
        benchmark.check_grid(*wrong_grid)
