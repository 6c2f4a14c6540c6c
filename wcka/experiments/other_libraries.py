"""Other libraries for the same measures, called on the same arrays; none is needed to use this one.

They come with the extra ``peers``; what is not installed is left out. Where a library's
public class wants networks and data loaders, its arithmetic is called directly.
"""

import re
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from ..weights.pairs import pairwise


class Peer(NamedTuple):
    """One function of another library.

    Attributes
    ----------
    package : str
        Its name on PyPI.
    measure : str
        The name in ``similarity.INVARIANCES`` of what it computes.
    of_pair : function
        (x, y) Tensors (n, d), and keywords of the measure, to a float.
    of_all : function, optional
        A list of Tensors to an array (N, N), where the library has a way for many at once.
    tolerance : float
        What its values may differ by from this project's.
    why : str
        Why they differ.
    single : bool
        It computes in float32, whatever it is given; otherwise in the type that it is given.
    """

    package: str
    measure: str
    of_pair: Callable[..., float]
    of_all: Callable[[list[Tensor]], np.ndarray] | None = None
    tolerance: float = 1e-9
    why: str = ""
    single: bool = False

    def given(self, features: Iterable[Tensor]) -> list[Tensor]:
        """Features in the precision that it computes in: double, unless it is ``single``."""
        return [f.float() if self.single else f.double() for f in features]

    @property
    def version(self) -> str:
        """Of the package that is installed."""
        return metadata.version(self.package)


_IN_SINGLE: dict[str, Any] = {"tolerance": 1e-4, "why": "computes in float32", "single": True}


def available() -> tuple[list[Peer], list[str]]:
    """All functions of the libraries that are installed, and the names of those that are not."""
    found, missing = [], []
    for package, (module, functions) in _PACKAGES.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found += functions(import_module(module))
        except ImportError:
            missing.append(package)
    return found, missing


def _ckatorch(core) -> list[Peer]:
    def batches(x, y, batch_size):
        return float(core.cka_batch(*(z.unflatten(0, (-1, batch_size)) for z in (x, y))))

    return [
        Peer("ckatorch", "cka", lambda x, y: float(core.cka_base(x, y))),
        Peer("ckatorch", "unbiased_cka", lambda x, y: float(core.cka_base(x, y, unbiased=True))),
        Peer("ckatorch", "minibatch_cka", batches),
        Peer("ckatorch", "rbf_cka", lambda x, y: float(core.cka_base(x, y, "rbf")), None, 1e-3,
             "takes the median over the zeros of the diagonal, too"),
    ]


def _pytorch_cka(cka) -> list[Peer]:
    return [Peer("pytorch-cka", "unbiased_cka", lambda x, y: float(cka.cka_from_features(x, y)),
                 lambda features: cka.cka_from_features(features, features).numpy())]


def _torch_cka(torch_cka) -> list[Peer]:
    self = _without_networks(torch_cka.CKA)

    def of_pair(x, y):
        k, m = (z @ z.T for z in (x, y))
        k.fill_diagonal_(0)
        m.fill_diagonal_(0)
        return self._HSIC(k, m) / (self._HSIC(k, k) * self._HSIC(m, m))**0.5

    return [Peer("torch_cka", "unbiased_cka", of_pair, **_IN_SINGLE)]


def _simtorch(simtorch) -> list[Peer]:
    from simtorch.similarity.procrustes import Procrustes

    cka, rotation = (_without_networks(c) for c in (simtorch.CKA, Procrustes))

    def kernels(x, y):
        return [(u := cka._normalize(z)) @ u.T for z in (x, y)]

    def dcka(x, y, inputs, psd=True):
        self = _without_networks(simtorch.DeltaCKA, remove_negative_eig=psd)
        return float(self.linear_CKA(*kernels(x, y), inputs.to(x))[0])

    return [
        Peer("simtorch", "cka", lambda x, y: float(cka.linear_CKA(*kernels(x, y))), **_IN_SINGLE),
        Peer("simtorch", "dcka", dcka, **_IN_SINGLE),  # its default leaves out the PSD step
        Peer("simtorch", "procrustes", lambda x, y: 1 - float(rotation.procrustes_dist(x, y))),
    ]


def _repsim(repsim) -> list[Peer]:
    def all_with(function, *options):
        return lambda features: function([f.numpy() for f in features], *options)

    def peer(measure, function, *options, **kw):
        of_all = all_with(function, *options)
        return Peer("repsim", measure, lambda x, y: float(of_all([x, y])[0, 1]), of_all, **kw)

    return [
        peer("cka", repsim.cka, "linear", "gretton"),
        peer("rbf_cka", repsim.cka, "rbf", "gretton"),
        peer("mean_cca", repsim.cca, "pillai", tolerance=5e-2,
             why="takes a basis of the columns before it centres them"),
        peer("svcca", repsim.svcca, "pillai", tolerance=1.0,
             why="whitens before it looks for leading components: all are then as large"),
        peer("pwcca", repsim.pwcca, tolerance=1.0,
             why="gives the mean of both directions"),
    ]


def _rsatoolbox(rsa) -> list[Peer]:
    def of_all(features):
        datasets = [rsa.data.Dataset(f.numpy()) for f in features]
        rdms = rsa.rdm.calc_rdm(datasets, method="euclidean")
        return np.asarray(rsa.rdm.compare(rdms, rdms, method="cosine_cov"))

    return [Peer("rsatoolbox", "cka", lambda x, y: float(of_all([x, y])[0, 1]), of_all, 1e-8)]


_PACKAGES: dict[str, tuple[str, Callable]] = {
    "ckatorch": ("ckatorch.core", _ckatorch),
    "pytorch-cka": ("cka", _pytorch_cka),
    "torch_cka": ("torch_cka", _torch_cka),
    "simtorch": ("simtorch.similarity", _simtorch),
    "repsim": ("repsim", _repsim),
    "rsatoolbox": ("rsatoolbox", _rsatoolbox),
}


def _without_networks(kind, **attributes):
    """An object of a class whose constructor wants networks."""
    self = kind.__new__(kind)
    vars(self).update(device="cpu", **attributes)
    return self


def peak_memory(package: str, measure: str, count: int, n: int, d: int) -> float:
    """Memory that one call takes beyond its features, in GB, measured in a process of its own.

    Parameters
    ----------
    package : str
        Name on PyPI of a peer, or "wcka".
    measure : str
        Of ``similarity.INVARIANCES``.
    count : int
        Number of representations: 2 for a pair, more for all pairs.
    n, d : int
        Samples and columns of each.

    Returns
    -------
    float
        NaN where the process did not come to an end, as for want of memory.
    """
    call = f"other_libraries._peak({package!r}, {measure!r}, {count}, {n}, {d})"
    code = f"from wcka.experiments import other_libraries; print({call})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else float("nan")


def _peak(package: str, measure: str, count: int, n: int, d: int) -> float:
    generator = torch.manual_seed(0)
    features = [torch.randn(n, d, generator=generator) for _ in range(count)]
    kw = {"inputs": torch.randn(n, 784, generator=generator)} if measure == "dcka" else {}
    if package == "wcka":
        call: Callable = partial(pairwise, measure, features, **kw)
    else:
        peer, = (p for p in available()[0] if (p.package, p.measure) == (package, measure))
        features = peer.given(features)
        call = (partial(peer.of_pair, *features, **kw) if count == 2
                else partial(cast(Callable, peer.of_all), features))
    before = _most()
    call()
    return _most() - before


def _most() -> float:
    """GB that this process has taken at the most so far."""
    try:  # on Linux rusage begins with what the process that started this one had taken
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e9
    except OSError:  # macOS counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
