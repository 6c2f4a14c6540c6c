"""Results on disk, computed once per set of arguments and state of the code."""

import functools
import hashlib
import inspect
import json
import os
import textwrap
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import pandas as pd
import platformdirs
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..networks.populations import Population
from .fingerprint import PACKAGE, code_of, stripped_code, whole_code

_READERS: dict[str, Callable] = {
    ".safetensors": Population.load,
    ".parquet": pd.read_parquet,
    ".tensor": lambda path: safetensors.torch.load_file(path)["values"],
}


def root() -> Path:
    """Return the folder of cached results.

    It is the environment variable ``WCKA_CACHE``, or ``results`` in the user's cache
    directory.

    Examples
    --------
    >>> root().is_absolute()
    True
    """
    default = platformdirs.user_cache_path("wcka") / "results"
    return Path(os.environ.get("WCKA_CACHE") or default).expanduser().absolute()


class Cached(Protocol):
    """A function whose results are kept on disk, as ``cached`` returns it.

    Attributes
    ----------
    kept : function
        Whether there is a file for these arguments.

    Examples
    --------
    >>> @cached
    ... def squares(n: int) -> pd.DataFrame:
    ...     return pd.DataFrame({"square": [i**2 for i in range(n)]})
    >>> squares.kept(n=1000)
    False
    """

    kept: Callable[..., bool]

    def __call__(self, *args, **kwargs): ...


def cached(function: Callable) -> Cached:
    """Keep the results of a function on disk.

    The name of a file holds a digest of the arguments, of the function's source, and of
    all modules of this package that the function's module imports, directly or not. A
    change to any of them computes anew; a change elsewhere does not.

    Files are written atomically. A file that cannot be read is reported and computed
    anew; on a full disk the result is returned with a warning. The seconds that a
    result took are in ``attrs["seconds"]`` of the table, or of the population's
    members.

    Parameters
    ----------
    function : function
        It takes plain JSON values, and returns a DataFrame, a Population or a Tensor.

    Returns
    -------
    Cached
        The function; ``.kept(...)`` says whether there is a file for these arguments.

    Raises
    ------
    OSError
        From the returned function, before anything runs: the folder cannot be written
        to.

    Examples
    --------
    >>> @cached
    ... def squares(n: int) -> pd.DataFrame:
    ...     return pd.DataFrame({"square": [i**2 for i in range(n)]})
    >>> squares(3)
       square
    0       0
    1       1
    2       4
    """
    signature = inspect.signature(function)

    def stem_of(*args, **kwargs) -> Path:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return root() / f"{function.__name__}-{_digest(function, bound.arguments)}"

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        stem = stem_of(*args, **kwargs)
        for kind, read in _READERS.items():
            path = stem.with_suffix(kind)
            if not path.exists():
                continue
            try:
                return read(path)
            except Exception as error:
                # Whatever is wrong with the file, the remedy is the same.
                warnings.warn(
                    f"{path} cannot be read ({error}); computing it anew", stacklevel=2
                )
        _prepare(stem.parent)
        result = _timed(function, *args, **kwargs)
        try:
            _write(stem, result)
        except (OSError, SafetensorError) as error:
            # A result that took hours is not lost because the disk is full.
            warnings.warn(
                f"{stem} cannot be written ({error}); the result is not kept",
                stacklevel=2,
            )
        return result

    def has_file(*args, **kwargs) -> bool:
        stem = stem_of(*args, **kwargs)
        return any(stem.with_suffix(kind).exists() for kind in _READERS)

    cached_function = cast(Cached, wrapper)
    cached_function.kept = has_file
    return cached_function


def remembered(count: int) -> Callable:
    """Return a decorator that keeps a function's last results in memory, too.

    It is for functions that read cached results. Results belong to the folder of
    results that they were read from: another folder has other ones.

    Parameters
    ----------
    count : int
        Number of results to keep.

    Returns
    -------
    function
        The decorator, of a function that takes plain JSON values.

    Examples
    --------
    >>> @remembered(2)
    ... def area(size: list) -> int:
    ...     print("computing")
    ...     return size[0] * size[1]
    >>> area([2, 3]), area([2, 3])
    computing
    (6, 6)
    """
    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)

        # Lists cannot be hashed: the arguments are looked up by their JSON text.
        @functools.lru_cache(count)
        def from_text(folder: Path, text: str):
            return function(*json.loads(text))

        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return from_text(root(), json.dumps(bound.args, default=list))

        return wrapper

    return decorate


def _prepare(folder: Path) -> None:
    """Make the folder of results, or say how to choose another one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("it is read-only")
    except OSError as error:
        raise OSError(
            f"cannot use the folder of results {folder}: {error}. Set the environment "
            f"variable WCKA_CACHE to a folder that can be written"
        ) from error


def _timed(function: Callable, *args, **kwargs):
    """Call a function and note the seconds in its result, where that has a place."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    if not isinstance(result, Tensor):
        table = result.members if isinstance(result, Population) else result
        table.attrs["seconds"] = time.perf_counter() - start
    return result


def _write(stem: Path, result) -> None:
    """Write a result under another name and rename it: no file is half written."""
    if isinstance(result, Population):
        return result.save(stem.with_suffix(".safetensors"))
    partial = stem.with_name(f".{stem.name}.{os.getpid()}.partial")
    try:
        if isinstance(result, Tensor):
            safetensors.torch.save_file({"values": result.contiguous()}, partial)
            partial.replace(stem.with_suffix(".tensor"))
        else:
            result.to_parquet(partial)
            partial.replace(stem.with_suffix(".parquet"))
    finally:
        partial.unlink(missing_ok=True)


def _digest(function: Callable, arguments: dict) -> str:
    """Return a digest of arguments, function and all code that it depends on."""
    source = textwrap.dedent(inspect.getsource(function))
    file = Path(inspect.getfile(function))
    if file.is_relative_to(PACKAGE):
        code = code_of([".".join(file.relative_to(PACKAGE).with_suffix("").parts)])
    else:
        # A notebook's function may use any module of the package. It must not use
        # other functions of the notebook, which the digest does not see.
        code = whole_code()
    text = json.dumps(arguments, sort_keys=True, default=list)
    text += stripped_code(source) + code
    return hashlib.sha256(text.encode()).hexdigest()[:20]
