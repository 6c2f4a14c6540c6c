"""Conversion of array-likes to matrices, with clear errors for unusable values."""

import warnings

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

# Numbers of NumPy in double precision; the text says which axes there are.
Array = NDArray[np.float64]


def matrix(values: ArrayLike, label: str) -> Tensor:
    """Check one representation, and keep its dtype where that is a float.

    Parameters
    ----------
    values : array-like
        (n, d), real numbers.
    label : str
        Name of the values in error messages.

    Returns
    -------
    Tensor
        (n, d), detached; it shares the memory of `values` where their type allows it.

    Raises
    ------
    ValueError
        For another rank than 2, fewer than 2 rows, or no column.
    TypeError
        For values that are not real numbers.

    Examples
    --------
    >>> matrix([[1, 2], [3, 4]], "x")
    tensor([[1., 2.],
            [3., 4.]], dtype=torch.float64)
    >>> matrix([1, 2], "x")
    Traceback (most recent call last):
    ValueError: x: wanted two axes (rows, columns), got shape (2,); flatten the others
    """
    tensor = values if isinstance(values, Tensor) else _from_array(values, label)
    if tensor.is_complex():
        raise TypeError(f"{label}: wanted real numbers, got dtype {tensor.dtype}")
    if tensor.ndim != 2:
        raise ValueError(f"{label}: wanted two axes (rows, columns), got shape "
                         f"{tuple(tensor.shape)}; flatten the others into columns")
    if len(tensor) < 2 or not tensor.shape[1]:
        raise ValueError(f"{label}: wanted at least 2 rows and 1 column, got shape "
                         f"{tuple(tensor.shape)}")
    return tensor.detach() if tensor.is_floating_point() else tensor.double()


def _from_array(values: ArrayLike, label: str) -> Tensor:
    """Convert what NumPy can read; integers become float64."""
    if np.ma.isMaskedArray(values):
        raise TypeError(f"{label}: wanted real numbers, got a masked array; "
                        f"fill it first")
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{label}: wanted real numbers, got dtype {array.dtype}")
    # torch lacks some integer types, long doubles and foreign byte orders.
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    with warnings.catch_warnings():
        # torch warns of arrays that must not be written to; no measure writes to them.
        warnings.filterwarnings("ignore", ".*not writable", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(array))
