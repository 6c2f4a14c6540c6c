"""The memory that one call takes, beside other libraries: as a script, one call."""

import subprocess
import sys
from functools import partial

import torch

from wcka.experiments import other_libraries
from wcka.weights import comparison
from wcka.weights.pairs import pairwise


def peak_memory(package, measure, count, n, d):
    """Return the memory that one call takes beyond its features, in GB.

    It is measured in a process of its own.

    Parameters
    ----------
    package : str
        Name of a peer on PyPI, or "wcka".
    measure : str
        The measure, by its name in ``measures.INVARIANCES``.
    count : int
        Number of representations: 2 for a pair, more for all pairs.
    n, d : int
        Samples and columns of a representation.

    Returns
    -------
    float
        NaN where the process failed, for lack of memory for example.
    """
    command = [sys.executable, __file__, package, measure, *map(str, (count, n, d))]
    done = subprocess.run(command, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else float("nan")


def peak_of_call(package, measure, count, n, d):
    """Return the growth of this process's peak memory by one call, in GB."""
    generator = torch.manual_seed(0)
    features = [torch.randn(n, d, generator=generator) for _ in range(count)]
    options = {}
    if measure == "dcka":
        options["inputs"] = torch.randn(n, 784, generator=generator)
    if package == "wcka":
        call = partial(pairwise, measure, features, **options)
    else:
        peer = peer_of(package, measure)
        features = peer.given(features)
        if count == 2:
            call = partial(peer.of_pair, *features, **options)
        else:
            call = partial(peer.of_all, features)
    before = comparison._peak_memory()
    call()
    return (comparison._peak_memory() - before) / 1e9


def peer_of(package, measure):
    """Return the function of a library for a measure."""
    for peer in other_libraries.available()[0]:
        if (peer.package, peer.measure) == (package, measure):
            return peer
    raise ValueError(f"{package} has no {measure}, or is not installed")


if __name__ == "__main__":
    of_package, of_measure, *sizes = sys.argv[1:]
    print(peak_of_call(of_package, of_measure, *map(int, sizes)))
