"""Other libraries for the same measures, called on the same arrays.

None is needed to use this package. They come with the extra ``peers``; a library that
is not installed is left out. Where a library's public class takes networks and data
loaders, its arithmetic is called directly.
"""

import warnings
from collections.abc import Callable, Iterable
from importlib import import_module, metadata
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Peer(NamedTuple):
    """One function of another library.

    Attributes
    ----------
    package : str
        The library's name on PyPI.
    measure : str
        The measure, by its name in ``measures.INVARIANCES``.
    of_pair : function
        Maps Tensors x and y (n, d), and keywords of the measure, to a float.
    of_all : function, optional
        Maps a list of N Tensors to an array (N, N), where the library can do this.
    tolerance : float
        The most that its values may differ from this package's.
    why : str
        The reason for a tolerance beyond rounding.
    single : bool
        Whether it computes in float32, whatever its input; otherwise it computes in
        the input's type.

    Examples
    --------
    >>> peer = Peer("a-library", "cka", lambda x, y: 1.0, single=True)
    >>> peer.given([torch.zeros(3, 2)])[0].dtype
    torch.float32
    """

    package: str
    measure: str
    of_pair: Callable[..., float]
    of_all: Callable[[list[Tensor]], np.ndarray] | None = None
    tolerance: float = 1e-9
    why: str = ""
    single: bool = False

    def given(self, features: Iterable[Tensor]) -> list[Tensor]:
        """Return features in the precision that the function computes in."""
        dtype = torch.float32 if self.single else torch.float64
        return [feature.to(dtype) for feature in features]

    @property
    def version(self) -> str:
        """Version of the installed package."""
        return metadata.version(self.package)


_IN_SINGLE: dict[str, Any] = {
    "tolerance": 1e-4, "why": "computes in float32", "single": True}


def available() -> tuple[list[Peer], list[str]]:
    """Return the functions of all installed libraries, and the names of missing ones.

    Examples
    --------
    >>> peers, missing = available()
    >>> {peer.package for peer in peers} & set(missing)
    set()
    """
    peers = []
    missing = []
    for package, (module, functions) in _PACKAGES.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peers += functions(import_module(module))
        except ImportError:
            missing.append(package)
    return peers, missing


# ------------------------------------------------------------------- the libraries


def _ckatorch(core) -> list[Peer]:
    """Return the functions of ckatorch."""
    def cka(x, y):
        return float(core.cka_base(x, y))

    def unbiased_cka(x, y):
        return float(core.cka_base(x, y, unbiased=True))

    def minibatch_cka(x, y, batch_size):
        x_batches = x.unflatten(0, (-1, batch_size))  # (batches, batch_size, units)
        y_batches = y.unflatten(0, (-1, batch_size))
        return float(core.cka_batch(x_batches, y_batches))

    def rbf_cka(x, y):
        return float(core.cka_base(x, y, "rbf"))

    return [
        Peer("ckatorch", "cka", cka),
        Peer("ckatorch", "unbiased_cka", unbiased_cka),
        Peer("ckatorch", "minibatch_cka", minibatch_cka),
        Peer("ckatorch", "rbf_cka", rbf_cka, tolerance=1e-3,
             why="takes the median over the zeros of the diagonal, too"),
    ]


def _pytorch_cka(cka) -> list[Peer]:
    """Return the function of pytorch-cka."""
    def of_pair(x, y):
        return float(cka.cka_from_features(x, y))

    def of_all(features):
        return cka.cka_from_features(features, features).numpy()

    return [Peer("pytorch-cka", "unbiased_cka", of_pair, of_all)]


def _torch_cka(torch_cka) -> list[Peer]:
    """Return the function of torch_cka, from the arithmetic of its class."""
    self = _without_networks(torch_cka.CKA)

    def of_pair(x, y):
        k = x @ x.T  # (samples, samples)
        m = y @ y.T
        k.fill_diagonal_(0)
        m.fill_diagonal_(0)
        return self._HSIC(k, m) / (self._HSIC(k, k) * self._HSIC(m, m))**0.5

    return [Peer("torch_cka", "unbiased_cka", of_pair, **_IN_SINGLE)]


def _simtorch(simtorch) -> list[Peer]:
    """Return the functions of simtorch, from the arithmetic of its classes."""
    from simtorch.similarity.procrustes import Procrustes

    cka_class = _without_networks(simtorch.CKA)
    rotation = _without_networks(Procrustes)

    def kernel(features):
        normalized = cka_class._normalize(features)
        return normalized @ normalized.T  # (samples, samples)

    def cka(x, y):
        return float(cka_class.linear_CKA(kernel(x), kernel(y)))

    def dcka(x, y, inputs, psd=True):
        self = _without_networks(simtorch.DeltaCKA, remove_negative_eig=psd)
        return float(self.linear_CKA(kernel(x), kernel(y), inputs.to(x))[0])

    def procrustes(x, y):
        return 1 - float(rotation.procrustes_dist(x, y))

    return [
        Peer("simtorch", "cka", cka, **_IN_SINGLE),
        # By default the library leaves out the step to a positive semi-definite kernel.
        Peer("simtorch", "dcka", dcka, **_IN_SINGLE),
        Peer("simtorch", "procrustes", procrustes),
    ]


def _repsim(repsim) -> list[Peer]:
    """Return the functions of repsim, which take all representations at once."""
    def peer(measure, function, *options, **kw):
        def of_all(features):
            return function([feature.numpy() for feature in features], *options)

        def of_pair(x, y):
            return float(of_all([x, y])[0, 1])

        return Peer("repsim", measure, of_pair, of_all, **kw)

    return [
        peer("cka", repsim.cka, "linear", "gretton"),
        peer("rbf_cka", repsim.cka, "rbf", "gretton"),
        peer("mean_cca", repsim.cca, "pillai", tolerance=5e-2,
             why="takes a basis of the columns before it centres them"),
        peer("svcca", repsim.svcca, "pillai", tolerance=1.0,
             why="whitens before it looks for leading components: "
                 "all are then as large"),
        peer("pwcca", repsim.pwcca, tolerance=1.0,
             why="gives the mean of both directions"),
    ]


def _rsatoolbox(rsa) -> list[Peer]:
    """Return CKA of rsatoolbox: its whitened cosine of dissimilarities."""
    def of_all(features):
        datasets = [rsa.data.Dataset(feature.numpy()) for feature in features]
        dissimilarities = rsa.rdm.calc_rdm(datasets, method="euclidean")
        values = rsa.rdm.compare(dissimilarities, dissimilarities, method="cosine_cov")
        return np.asarray(values)

    def of_pair(x, y):
        return float(of_all([x, y])[0, 1])

    return [Peer("rsatoolbox", "cka", of_pair, of_all, tolerance=1e-8)]


# By the libraries' names on PyPI: the module to import, and the functions it gives
_PACKAGES: dict[str, tuple[str, Callable]] = {
    "ckatorch": ("ckatorch.core", _ckatorch),
    "pytorch-cka": ("cka", _pytorch_cka),
    "torch_cka": ("torch_cka", _torch_cka),
    "simtorch": ("simtorch.similarity", _simtorch),
    "repsim": ("repsim", _repsim),
    "rsatoolbox": ("rsatoolbox", _rsatoolbox),
}


def _without_networks(kind, **attributes):
    """Return an object of a class whose constructor takes networks."""
    self = kind.__new__(kind)
    vars(self).update(device="cpu", **attributes)
    return self
