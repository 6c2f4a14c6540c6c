"""Real images: MNIST and Fashion-MNIST, loaded from verified files."""

from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from ..measures.spelling import nearest
from .sources import DATASETS, fetch, folder_of

SPLITS = {"train": "train", "test": "t10k"}  # our name: how the files' names begin


def load(dataset: str = "mnist", split: str = "test",
         classes: Sequence[int] | None = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Load the images of some classes, in the order of the file.

    The files are fetched if they are missing.

    Parameters
    ----------
    dataset : {"mnist", "fashion"}
    split : {"train", "test"}
    classes : sequence of int, or None
        Classes to keep, each 0 to 9; None keeps all ten.

    Returns
    -------
    images : ndarray of uint8, (n, 28, 28)
    labels : ndarray of int64, (n,)
        Positions in `classes`, as a classifier with ``len(classes)`` outputs needs
        them. With the default and with None these are the digits themselves; with (7,
        3), a 7 is labelled 0.

    Raises
    ------
    ValueError, TypeError
        For an unknown data set or split, and for classes that are not different ints 0
        to 9.
    DataError
        If the files are not there and no source can provide them.

    Examples
    --------
    >>> images, labels = load("mnist", "test", classes=(0, 1, 2))
    >>> images.shape, images.dtype, labels[:3]
    ((3147, 28, 28), dtype('uint8'), array([2, 1, 0]))
    """
    nearest(split, list(SPLITS), "split")
    digits_kept = check_classes(dataset, classes)
    images, digits = _read(folder_of(dataset), dataset, split)
    position = np.full(10, -1, dtype=np.int64)
    position[digits_kept] = range(len(digits_kept))
    labels = position[digits]
    # Copies: the cached arrays stay as they are
    return images[labels >= 0], labels[labels >= 0]


def check_classes(dataset: str, classes: Sequence[int] | None) -> list[int]:
    """Return classes as a list, or refuse them as ``load`` does, without any file.

    Examples
    --------
    >>> check_classes("mnist", (7, 3))
    [7, 3]
    """
    nearest(dataset, list(DATASETS), "dataset")
    return _classes(classes)


def as_inputs(images: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """Turn uint8 images (n, 28, 28) into inputs (n, 784), float32 in [0, 1].

    Raises
    ------
    ValueError, TypeError
        If the images have another shape, or another type than uint8 (scaled already?).

    Examples
    --------
    >>> import numpy as np
    >>> as_inputs(np.full((2, 28, 28), 255, np.uint8)).shape
    torch.Size([2, 784])
    """
    images = np.ascontiguousarray(images)  # torch takes no reversed views
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8, 0 to 255; got {images.dtype}")
    if images.ndim != 3 or images.shape[1:] != (28, 28) or not len(images):
        raise ValueError(
            f"images must have shape (n, 28, 28), n > 0; got {images.shape}"
        )
    return torch.tensor(images.reshape(-1, 784), device=device).float() / 255


@lru_cache(maxsize=4)  # both splits of both data sets, 110 MB
def _read(folder: Path, dataset: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    fetch(dataset)
    images = _values(folder / f"{SPLITS[split]}-images-idx3-ubyte", header=16)
    labels = _values(folder / f"{SPLITS[split]}-labels-idx1-ubyte", header=8)
    return images.reshape(-1, 28, 28), labels.astype(np.int64)


def _values(file: Path, header: int) -> np.ndarray:
    """Return the bytes of a file behind its header.

    That is all there is to these files, whose md5 is known. Reading them by torchvision
    would import PyTorch's compiler in every process, which takes seconds.
    """
    return np.fromfile(file, np.uint8, offset=header)


def _classes(classes: Sequence[int] | None) -> list[int]:
    rule = (
        "classes must be a sequence of different ints from 0 to 9, or None for all ten"
    )
    if classes is None:
        return list(range(10))
    if not isinstance(classes, (Sequence, np.ndarray)) or not all(
            isinstance(c, Integral) and not isinstance(c, bool) for c in classes):
        raise TypeError(f"{rule}; got {classes!r}")
    digits = [int(digit) for digit in classes]
    distinct = set(digits)
    if not digits or len(distinct) < len(digits) or not distinct <= set(range(10)):
        raise ValueError(f"{rule}; got {classes!r}")
    return digits
