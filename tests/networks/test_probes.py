"""Images that networks are probed with, by name."""

import pytest

from wcka.networks.probes import ATTACKS, PROBES, expand_probes


def test_probes():
    assert expand_probes(["clean", "corruptions", "attacks"]) == [*PROBES, *ATTACKS]
    assert expand_probes(["pgd", "clean"]) == ["pgd", "clean"]
    for wrong_probes in (["clean"], ["fog"], ["clean", "fogg"],
                         ["clean", "fog", "corruptions"], []):
        with pytest.raises(ValueError, match="wanted clean and some others, each once"):
            expand_probes(wrong_probes)
