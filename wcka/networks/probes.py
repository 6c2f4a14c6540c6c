"""Images that networks are probed with, by name: clean, corrupted, attacked."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor

from . import attacks, corruptions, image_sets

PROBES = ("clean", *corruptions.CORRUPTIONS)
# In the order of the paper
ATTACKS = ("fgsm", "ffgsm", "gaussian_noise", "pgd", "trades")


def expand_probes(names: Sequence[str]) -> list[str]:
    """Names of probes, with "corruptions" and "attacks" standing for all of these.

    Raises
    ------
    ValueError
        For unknown names, one that comes twice, and lists without "clean" or with
        nothing else.

    Examples
    --------
    >>> expand_probes(["clean", "attacks"])
    ['clean', 'fgsm', 'ffgsm', 'gaussian_noise', 'pgd', 'trades']
    """
    every = {"corruptions": corruptions.CORRUPTIONS, "attacks": ATTACKS}
    probes: list[str] = []
    for entry in names:
        probes += every.get(entry, [entry])
    known = {*PROBES, *ATTACKS}
    if not {"clean"} < set(probes) <= known or len(set(probes)) < len(probes):
        raise ValueError(f"probes: wanted clean and some others, each once, of "
                         f"{', '.join(sorted(known))}; got {list(names)}")
    return probes


def kind_of_probe(name: str) -> str:
    """Whether a probe is clean, corrupted or attacked.

    Examples
    --------
    >>> kind_of_probe("fog"), kind_of_probe("pgd")
    ('corrupted', 'attacked')
    """
    if name == "clean":
        return name
    return "corrupted" if name in PROBES else "attacked"


@lru_cache(maxsize=2)
def labelled_images(dataset: str, classes: tuple[int, ...] | None,
             split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Load images and labels once per process; see ``image_sets.load``.

    `classes` is a tuple, so that the result can be cached.

    Examples
    --------
    >>> images, labels = labelled_images("mnist", (0, 1))
    >>> len(images) == len(labels) == 2115
    True
    """
    return image_sets.load(dataset, split, classes)


@lru_cache(maxsize=len(corruptions.CORRUPTIONS) + 1)  # all of one data set
def probe_images(
    dataset: str, classes: tuple[int, ...], name: str, seed: int = 0
) -> np.ndarray:
    """Test images of a data set, clean or under one corruption: uint8 (n, 28, 28).

    Examples
    --------
    >>> probe_images("mnist", (0, 1), "stripe").shape
    (2115, 28, 28)
    """
    images, _ = labelled_images(dataset, classes)
    return images if name == "clean" else corruptions.corrupt(images, name, seed)


def probe_inputs(name: str, dataset: str, classes: Sequence[int], seed: int = 0,
           noise: float = 0.1) -> Tensor:
    """Images of a probe that all networks share, as inputs (n, 784).

    Parameters
    ----------
    name : str
        "train" for the training images; else, of the test images, one of ``PROBES`` and
        ``ATTACKS``. Attacks by gradients begin with the clean images.
    dataset, classes
        As in ``image_sets.load``.
    seed : int
        Of the corruption or the noise.
    noise : float
        Standard deviation of Gaussian noise.

    Examples
    --------
    >>> probe_inputs("clean", "mnist", (0, 1)).shape
    torch.Size([2115, 784])
    """
    if name == "train":
        return image_sets.as_inputs(labelled_images(dataset, tuple(classes), name)[0])
    x = image_sets.as_inputs(
        probe_images(dataset, tuple(classes), name if name in PROBES else "clean", seed)
    )
    return attacks.gaussian_noise(x, noise, seed) if name == "gaussian_noise" else x
