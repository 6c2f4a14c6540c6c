"""Clear errors for values that are no representation."""

import warnings

import numpy as np
import torch
from torch import Tensor


def matrix(values, label: str) -> Tensor:
    """Check one representation (n, d); keep its dtype where that is a float.

    Raises
    ------
    ValueError
        For another rank than 2, fewer than 2 rows, or no column.
    TypeError
        For values that are not real numbers.
    """
    if not isinstance(values, Tensor):
        if np.ma.isMaskedArray(values):
            raise TypeError(f"{label}: wanted real numbers, got a masked array; fill it first")
        values = np.asarray(values)
        if values.dtype.kind not in "fiub":
            raise TypeError(f"{label}: wanted real numbers, got dtype {values.dtype}")
        if values.dtype.kind != "f" or values.dtype.itemsize > 8:  # torch lacks some of these
            values = values.astype(np.float64)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        with warnings.catch_warnings():  # of arrays that must not be written to: they are not
            warnings.filterwarnings("ignore", ".*not writable", UserWarning)
            values = torch.from_numpy(np.ascontiguousarray(values))
    if values.is_complex():
        raise TypeError(f"{label}: wanted real numbers, got dtype {values.dtype}")
    if values.ndim != 2:
        raise ValueError(f"{label}: wanted two axes (rows, columns), got shape "
                         f"{tuple(values.shape)}; flatten the others into columns")
    if len(values) < 2 or not values.shape[1]:
        raise ValueError(f"{label}: wanted at least 2 rows and 1 column, got shape "
                         f"{tuple(values.shape)}")
    return values.detach() if values.is_floating_point() else values.double()
