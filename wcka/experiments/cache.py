"""Results on disk, computed once per set of arguments and state of the code."""

import functools
import hashlib
import inspect
import io
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
import pyarrow.parquet
from safetensors import SafetensorError
from torch import Tensor

from ..measures.spelling import first_line, printable
from ..networks.populations import Population, read_tensors, write_tensors
from .fingerprint import PACKAGE, code_of, stripped_code, whole_code
from .processes import sweep

_KINDS = (".safetensors", ".parquet", ".tensor")
# What processes leave that were killed while they wrote, or looked for their workers
_LEFTOVERS = (".*.partial", ".seen-*")
# Seconds after which nobody writes such a file any more: writing takes minutes at most
_STALE = 3600


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


class NotKept(UserWarning):
    """A result was computed, and could not be written to the folder of results.

    Examples
    --------
    >>> issubclass(NotKept, UserWarning)
    True
    """


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
    all modules of this package that the function's module imports, directly or not, and
    the versions of the libraries that make numbers in them; and that of Python, for
    networks that learn from its texts. A change to any of them computes anew; a change
    elsewhere does not.

    Files are written atomically. They hold the name of the result and a digest of its
    content. A file that cannot be read, was changed, or holds another result is
    reported and computed anew; on a full disk the result is returned with a warning,
    ``NotKept``.
    The seconds that a result took are in ``attrs["seconds"]`` of the table, or of the
    population's members.

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
        for kind in _KINDS:
            path = stem.with_suffix(kind)
            if not path.exists():
                continue
            try:
                return _read(path)
            except Exception as error:
                # Whatever is wrong with the file, the remedy is the same.
                warnings.warn(
                    f"{printable(str(path))} cannot be read ({first_line(error)}); "
                    f"computing it anew", stacklevel=2
                )
        _prepare(stem.parent)
        result = _timed(function, *args, **kwargs)
        try:
            _write(stem, result)
        except (OSError, SafetensorError) as error:
            # A result that took hours is not lost because the disk is full.
            warnings.warn(
                f"{printable(str(stem))} cannot be written ({first_line(error)}); "
                f"the result is not kept", NotKept, stacklevel=2,
            )
        return result

    def has_file(*args, **kwargs) -> bool:
        stem = stem_of(*args, **kwargs)
        return any(stem.with_suffix(kind).is_file() for kind in _KINDS)

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
            f"cannot use the folder of results {printable(str(folder))}: {error}. Set "
            f"the environment variable WCKA_CACHE to a folder that can be written"
        ) from error
    for pattern in _LEFTOVERS:
        sweep(folder, pattern, _STALE)


def _timed(function: Callable, *args, **kwargs):
    """Call a function and note the seconds in its result, where that has a place."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    if not isinstance(result, Tensor):
        table = result.members if isinstance(result, Population) else result
        table.attrs["seconds"] = time.perf_counter() - start
    return result


def _read(path: Path):
    """Read a result, and check that it is intact and belongs to its file's name."""
    if not path.is_file():  # a pipe would be waited for without end
        raise ValueError("it is no file")
    if path.suffix == ".safetensors":
        return Population.load(path, key=path.stem)
    if path.suffix == ".tensor":
        return read_tensors(path, path.stem)[0]["values"]
    # By an open file: in a folder such as "n=3", pandas would add a column n.
    with path.open("rb") as file:
        table = pd.read_parquet(file)
        metadata = pyarrow.parquet.read_schema(file).metadata
    if metadata.get(b"digest") != _digest_of_table(table).encode():
        raise ValueError("its content and its digest differ")
    if metadata.get(b"key") != path.stem.encode():
        raise ValueError("it holds another result")
    return table


def _write(stem: Path, result) -> None:
    """Write a result under another name and rename it: no file is half written."""
    if isinstance(result, Population):
        return result.save(stem.with_suffix(".safetensors"), stem.name)
    partial = stem.with_name(f".{stem.name}.{os.getpid()}.partial")
    try:
        if isinstance(result, Tensor):
            tensors = {"values": result.contiguous()}
            write_tensors(partial, tensors, {"key": stem.name})
            partial.replace(stem.with_suffix(".tensor"))
        else:
            _write_table(result, partial, stem.name)
            partial.replace(stem.with_suffix(".parquet"))
    finally:
        partial.unlink(missing_ok=True)


def _write_table(table: pd.DataFrame, path: Path, key: str) -> None:
    """Write a table to a parquet file, with a key and a digest in its metadata."""
    content = io.BytesIO(table.to_parquet())
    # Parquet turns some values into others, such as NaN among texts into None: the
    # digest is of the table as it will be read.
    digest = _digest_of_table(pd.read_parquet(content))
    columns = pyarrow.parquet.read_table(content)
    metadata = {**columns.schema.metadata, "key": key, "digest": digest}
    pyarrow.parquet.write_table(columns.replace_schema_metadata(metadata), path)


def _digest_of_table(table: pd.DataFrame) -> str:
    """Return a digest of a table's values, names, types and attributes."""
    types = [str(kind) for kind in table.dtypes]
    description = [list(table.columns), types, table.attrs]
    digest = hashlib.sha256(json.dumps(description, default=str).encode())
    digest.update(pd.util.hash_pandas_object(table).to_numpy())
    return digest.hexdigest()


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
