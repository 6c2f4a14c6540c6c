"""How often the p-values of unrelated pairs fall below a level.

A p-value of ``wcka.null`` is read off a distribution with three exact moments, which is
not the exact distribution. Here rows are re-paired at random many times, and p-values
are counted. With the rows of one model in an order p, CKA is a sum over two kernels,
sum_ij K_ij L_p(i)p(j). If p is shifted by 0, 1, ... n - 1 places, these sums are
correlations along the diagonals of the kernels: Fourier transforms of n / 2 diagonals
give all n of them. Each of these orders is as random as p is.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..measures.inner_products import Representation
from ..measures.kernel_sums import sums_of
from ..measures.nulls import judged, moments, pearson_tail
from ..measures.spelling import nearest
from . import crossed
from .cache import cached
from .jobs import run_jobs

LEVELS = (0.05, 0.01, 0.001)
# Features (n, d), from rows of similar length to a few very long ones
KINDS: dict[str, Callable] = {
    "normal": lambda rng, n, d: rng.standard_normal((n, d)),
    "dependent": lambda rng, n, d: (
        rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) ** 3),
    "decaying": lambda rng, n, d: rng.standard_normal((n, d)) / np.arange(1, d + 1),
    "rectified": lambda rng, n, d: np.maximum(
        rng.standard_normal((n, d)) @ rng.standard_normal((d, d)), 0),
    "labels": lambda rng, n, d: np.eye(d)[rng.integers(0, d, n)],
    "sparse": lambda rng, n, d: (
        rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.1)),
    "t3": lambda rng, n, d: rng.standard_t(3, (n, d)),
    "t2": lambda rng, n, d: rng.standard_t(2, (n, d)),
    "lognormal": lambda rng, n, d: np.exp(rng.standard_normal((n, d))),
}
_MODELS = {50: 201, 200: 101, 1000: 26, 3000: 10}  # of each number of rows
_WIDTHS = (2, 16, 128, 512)
_SEED = 1  # of the record; seeds 0 and 10 to 13 were seen when p was made larger


@cached
def level_shares(kind: str, n: int, d: int, models: int, seed: int = 0) -> pd.DataFrame:
    """Return the shares of re-pairings whose p-value is at most a level.

    Parameters
    ----------
    kind : str
        One of ``KINDS``, of all models.
    n, d : int
        Rows, from 4 on, and columns of the features.
    models : int
        Their number, at least 3. Their rows are in random orders; those of each pair of
        models are re-paired by n shifts.
    seed : int
        Of all draws.

    Returns
    -------
    DataFrame
        One row per level of ``LEVELS``: kind, n, d, p_values (their number), skewness
        (of the null, the mean over pairs), level, share (of the p-values that are at
        most the level), error (its standard error, over models) and fitted (the share
        if no p were made larger).

    Raises
    ------
    ValueError
        For another kind.

    Examples
    --------
    >>> sizes = level_shares("normal", n=50, d=3, models=10).set_index("level")
    >>> int(sizes.p_values[0.05]), bool(sizes.share[0.05] < 0.1)
    (2250, True)
    """
    nearest(kind, KINDS, "kind")
    rng = np.random.default_rng([seed, n, d, list(KINDS).index(kind)])
    features = []
    for _ in range(models):
        features.append(Representation(torch.from_numpy(KINDS[kind](rng, n, d))))
    sums = sums_of(features)
    spectra = torch.stack([diagonal_spectra(model.rows()) for model in features])
    tables = []
    for first in range(models - 1):
        second = np.arange(first + 1, models)
        values = shifted_products(spectra[first], spectra[first + 1:], n)
        of_pairs = moments(sums, n, (np.full_like(second, first), second))
        null = judged(values.double().numpy(), *np.expand_dims(of_pairs, 2))
        fitted = pearson_tail(null.z, null.skewness)
        columns = {"a": first, "b": second, "skewness": null.skewness[:, 0]}
        for level in LEVELS:
            columns[f"share {level}"] = (null.p <= level).mean(1)
            columns[f"fitted {level}"] = (fitted <= level).mean(1)
        tables.append(pd.DataFrame(columns))
    pairs = pd.concat(tables)
    means = crossed.means(
        crossed.Design(pairs.a, pairs.b), pairs.drop(columns=["a", "b"]))
    rows = []
    for level in LEVELS:
        share = means[f"share {level}"]
        rows.append({
            "kind": kind, "n": n, "d": d, "p_values": n * len(pairs),
            "skewness": means["skewness"].value, "level": level,
            "share": share.value, "error": share.error,
            "fitted": means[f"fitted {level}"].value})
    return pd.DataFrame(rows)


def diagonal_spectra(x: Tensor) -> Tensor:
    """Return the Fourier transforms of the diagonals of a kernel, for its products.

    Parameters
    ----------
    x : Tensor
        (n, d), centred features; their kernel is brought to norm 1.

    Returns
    -------
    Tensor
        (n // 2 + 1 diagonals, n // 2 + 1 frequencies), in single precision. The kernel
        is symmetric: these diagonals stand for all n.

    Examples
    --------
    >>> diagonal_spectra(torch.tensor([[1.0], [0.0], [-1.0]])).shape
    torch.Size([2, 2])
    """
    n = len(x)
    unit = (x / torch.linalg.norm(x.T @ x) ** 0.5).float()
    kernel = unit @ unit.T
    beside = torch.cat([kernel, kernel], 1)  # (n, 2 n): diagonals go on at the right
    diagonals = beside.as_strided((n // 2 + 1, n), (1, 2 * n + 1)).contiguous()
    # Neither the main diagonal nor the middle one of an even n has a mirror image.
    diagonals[1:(n + 1) // 2] *= 2**0.5
    return torch.fft.rfft(diagonals)


def shifted_products(first: Tensor, second: Tensor, n: int) -> Tensor:
    """Return CKA with the rows of the second model shifted by 0, 1, ... n - 1 places.

    Parameters
    ----------
    first, second : Tensor
        (..., diagonals, frequencies), as ``diagonal_spectra`` returns them.
    n : int
        Number of rows.

    Returns
    -------
    Tensor
        (..., n)

    Examples
    --------
    >>> spectra = diagonal_spectra(torch.tensor([[1.0], [0.0], [-1.0], [0.0]]))
    >>> shifted_products(spectra, spectra, 4).numpy().round(3).tolist()
    [1.0, 0.0, 1.0, 0.0]
    """
    return torch.fft.irfft((first.conj() * second).sum(-2), n)


def write_record(path: str | Path, jobs: int = -1) -> None:
    """Write the sizes for all kinds of features and numbers of rows and columns.

    Parameters
    ----------
    path : str or Path
        A file for ``pandas.read_json(path, lines=True)``; each line is a row of
        ``level_shares``. There are at least 100,000 p-values of each kind and size.
    jobs : int
        Number of processes; see ``run_jobs``.

    Examples
    --------
    >>> write_record("book/results/null-sizes.json")  # doctest: +SKIP
    """
    units = []
    for n, models in _MODELS.items():
        for d in _WIDTHS:
            for kind in KINDS:
                units.append({"kind": kind, "n": n, "d": d, "models": models,
                              "seed": _SEED})
    table = run_jobs(level_shares, units, jobs, "sizes of p-values")
    table.to_json(path, orient="records", lines=True, double_precision=6)
