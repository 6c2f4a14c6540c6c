"""Conversion of array-likes to matrices, with clear errors for unusable values."""

import math
import sys
import warnings
from numbers import Real

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

# Numbers of NumPy in double precision; the text says which axes there are.
Array = NDArray[np.float64]

WITHOUT_FLOAT64 = ("mps",)  # types of devices


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
        For values that are not real numbers; see ``real_numbers``.

    Examples
    --------
    >>> matrix([[1, 2], [3, 4]], "x")
    tensor([[1., 2.],
            [3., 4.]], dtype=torch.float64)
    >>> matrix([1, 2], "x")
    Traceback (most recent call last):
    ValueError: x: wanted two axes (rows, columns), got shape (2,); flatten the others
    """
    tensor = real_numbers(values, label)
    if tensor.ndim != 2:
        raise ValueError(f"{label}: wanted two axes (rows, columns), got shape "
                         f"{tuple(tensor.shape)}; flatten the others into columns")
    if len(tensor) < 2 or not tensor.shape[1]:
        raise ValueError(f"{label}: wanted at least 2 rows and 1 column, got shape "
                         f"{tuple(tensor.shape)}")
    return tensor


def real_numbers(values: ArrayLike, label: str) -> Tensor:
    """Check real numbers with any axes, and keep their dtype where that is a float.

    Parameters
    ----------
    values : array-like
        Real numbers.
    label : str
        Name of the values in error messages.

    Returns
    -------
    Tensor
        Detached, on a device that has float64; integers become float64.

    Raises
    ------
    ValueError
        For lists whose rows have different lengths.
    TypeError
        For values that are not real numbers, and for tensors of a kind that no measure
        can read; the message says how to convert them.

    Examples
    --------
    >>> real_numbers([1, 2], "x")
    tensor([1., 2.], dtype=torch.float64)
    >>> real_numbers(torch.eye(2).to_sparse(), "x")
    Traceback (most recent call last):
    TypeError: x: wanted a dense tensor, got a sparse one; give it as .to_dense()
    """
    tensor = values if isinstance(values, Tensor) else _from_array(values, label)
    fault = _fault_of_tensor(tensor)
    if fault:
        raise TypeError(f"{label}: wanted {fault}")
    tensor = with_float64(tensor.detach())
    return tensor if tensor.is_floating_point() else tensor.double()


def with_float64(values: Tensor) -> Tensor:
    """Move a tensor to the CPU if its device has no float64, as Apple's MPS.

    Examples
    --------
    >>> with_float64(torch.ones(2)).device.type
    'cpu'
    """
    return values.cpu() if values.device.type in WITHOUT_FLOAT64 else values


def number(value: object, name: str, wanted: str) -> float:
    """Return an option as a number, and refuse anything else, NaN included.

    Parameters
    ----------
    value : object
        The value that a user gave.
    name, wanted : str
        The option and what it should be, for the error message.

    Raises
    ------
    ValueError
        For what is no number, and for NaN.

    Examples
    --------
    >>> number(3, "sigma", "a positive number")
    3.0
    >>> number("a", "sigma", "a positive number")
    Traceback (most recent call last):
    ValueError: sigma: wanted a positive number, got 'a'
    """
    if isinstance(value, (np.ndarray, Tensor)) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, Real) or value != value:
        raise ValueError(f"{name}: wanted {wanted}, got {value!r}")
    return float(value)


def whole_number(
    value: object, name: str, least: int, most: float = math.inf
) -> int:
    """Return an option as a whole number within bounds, and refuse anything else.

    Parameters
    ----------
    value : object
        The value that a user gave; 10.0 is whole.
    name : str
        The option, for the error message.
    least, most : int
        The bounds, which are allowed.

    Raises
    ------
    ValueError
        For what is no whole number, or out of bounds.

    Examples
    --------
    >>> whole_number(10.0, "batches", 5)
    10
    >>> whole_number(2.5, "draws", 1)
    Traceback (most recent call last):
    ValueError: draws: wanted a whole number from 1 on, got 2.5
    """
    end = "on" if most == math.inf else f"to {most}"
    wanted = f"a whole number from {least} {end}"
    whole = number(value, name, wanted)
    if not whole.is_integer() or not least <= whole <= most:
        raise ValueError(f"{name}: wanted {wanted}, got {value!r}")
    return int(whole)


def special_kind(tensor: Tensor) -> str:
    """Return what keeps a tensor from being a plain array of real numbers.

    Parameters
    ----------
    tensor : Tensor
        Any tensor.

    Returns
    -------
    str
        "nested", "sparse", "meta", "quantised" or "complex"; "" for a plain one.

    Examples
    --------
    >>> special_kind(torch.ones(2, device="meta")), special_kind(torch.ones(2))
    ('meta', '')
    """
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_meta:
        return "meta"
    if tensor.is_quantized:
        return "quantised"
    return "complex" if tensor.is_complex() else ""


def warn_caller(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """Warn at the line that called this package, not at a line in it.

    Parameters
    ----------
    message : str
        What the warning says.
    category : type
        The kind of warning.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warn_caller("no variance left")
    >>> len(caught)
    1
    """
    package = __name__.split(".")[0]
    frame = sys._getframe(1)
    level = 2
    while frame.f_globals.get("__name__", "").split(".")[0] == package and frame.f_back:
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)


def _fault_of_tensor(tensor: Tensor) -> str:
    """What is wanted instead of a tensor that no measure can read; "" if it can."""
    dtype = tensor.dtype
    faults = {
        "nested": "one matrix, got a nested tensor; give each of its matrices by "
                  "itself",
        "sparse": "a dense tensor, got a sparse one; give it as .to_dense()",
        "meta": "numbers, got a tensor on device meta, which holds none",
        "quantised": f"real numbers, got {dtype}; give them as .dequantize()",
        "complex": f"real numbers, got dtype {dtype}",
    }
    kind = special_kind(tensor)
    if kind:
        return faults[kind]
    if dtype.is_floating_point and dtype.itemsize < 2:
        return f"real numbers of at least 16 bits, got {dtype}; give them as .float()"
    return ""


def _from_array(values: ArrayLike, label: str) -> Tensor:
    """Convert what NumPy can read; integers become float64."""
    if np.ma.isMaskedArray(values) and np.ma.is_masked(values):
        raise TypeError(f"{label}: wanted real numbers, got a masked array; "
                        f"fill it first")
    kind = type(values).__name__
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{label}: wanted rows of real numbers, all of one length, "
                         f"got a {kind} that is no matrix ({error})") from None
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"{label}: wanted real numbers, got a {kind} that NumPy cannot "
                        f"read ({error})") from None
    if array.dtype.kind == "O":
        raise TypeError(_object_message(values, label))
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


def _object_message(values: object, label: str) -> str:
    """What to do with values that NumPy reads as Python objects."""
    kind = type(values).__name__
    if hasattr(values, "toarray"):  # sparse matrices of SciPy
        return f"{label}: wanted a dense array, got a {kind}; give it as .toarray()"
    return (f"{label}: wanted real numbers, got dtype object of type {kind}; convert "
            f"it by .to_numpy(float) in pandas or .astype(float) in NumPy")
