"""Results on disk: computed once for each set of arguments and each state of the code."""

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

_READERS = {".safetensors": Population.load, ".parquet": pd.read_parquet,
            ".tensor": lambda path: safetensors.torch.load_file(path)["values"]}


def root() -> Path:
    """Folder of cached results: ``WCKA_CACHE``, else ``results`` in the user's cache directory."""
    root = os.environ.get("WCKA_CACHE") or platformdirs.user_cache_path("wcka") / "results"
    return Path(root).expanduser().absolute()


class Cached(Protocol):
    """What ``cached`` makes of a function."""

    kept: Callable[..., bool]

    def __call__(self, *args, **kwargs): ...


def cached(function: Callable) -> Cached:
    """Keep what `function` returns, a DataFrame, a Population or a Tensor, in a file.

    The file's name holds a digest of the arguments (plain JSON values, defaults included), of the
    function's source and of every module of this package that its module imports, directly or
    not. A change to any of them computes anew; a change elsewhere does not. Files are written
    atomically; one that cannot be read is reported, and computed anew; on a full disk the result
    is returned with a warning. ``function.kept(...)`` says whether there is a file for these
    arguments; ``attrs["seconds"]`` of the table, or of the population's members, what it took to
    compute. Where the folder cannot be written at all, an OSError says so before anything runs.
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
            if path.exists():
                try:
                    return read(path)
                except Exception as error:  # whatever is wrong with the file, the remedy is one
                    warnings.warn(f"{path} cannot be read ({error}); computing it anew",
                                  stacklevel=2)
        _prepare(stem.parent)
        start = time.perf_counter()
        result = function(*args, **kwargs)
        if not isinstance(result, Tensor):
            table = result.members if isinstance(result, Population) else result
            table.attrs["seconds"] = time.perf_counter() - start
        try:
            _write(stem, result)
        except (OSError, SafetensorError) as error:  # what was computed is not lost for that
            warnings.warn(f"{stem} cannot be written ({error}); the result is not kept",
                          stacklevel=2)
        return result

    def kept(*args, **kwargs) -> bool:
        return any(stem_of(*args, **kwargs).with_suffix(kind).exists() for kind in _READERS)

    keeping = cast(Cached, wrapper)
    keeping.kept = kept
    return keeping


def remembered(count: int) -> Callable:
    """Keep the last results of a function that reads cached ones in memory, too.

    Those of another folder of results are other results. Arguments are plain JSON values.
    """
    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)
        last = functools.lru_cache(count)(lambda folder, text: function(*json.loads(text)))

        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return last(root(), json.dumps(bound.args, default=list))

        return wrapper

    return decorate


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("it is read-only")
    except OSError as error:
        raise OSError(f"cannot use the folder of results {folder}: {error}. Set the environment "
                      f"variable WCKA_CACHE to a folder that can be written") from error


def _write(stem: Path, result) -> None:
    if isinstance(result, Population):
        return result.save(stem.with_suffix(".safetensors"))
    partial = stem.with_name(f".{stem.name}.{os.getpid()}.partial")
    try:
        if isinstance(result, Tensor):
            safetensors.torch.save_file({"values": result.contiguous()}, partial)
        else:
            result.to_parquet(partial)
        partial.replace(stem.with_suffix(".tensor" if isinstance(result, Tensor) else ".parquet"))
    finally:
        partial.unlink(missing_ok=True)


def _digest(function: Callable, arguments: dict) -> str:
    """Name of a result: a digest of its arguments, its function, and what that depends on."""
    source = textwrap.dedent(inspect.getsource(function))
    file = Path(inspect.getfile(function))
    if file.is_relative_to(PACKAGE):
        code = code_of([".".join(file.relative_to(PACKAGE).with_suffix("").parts)])
    else:
        # A notebook's function may use any module; it must not use other functions of the notebook.
        code = whole_code()
    text = json.dumps(arguments, sort_keys=True, default=list) + stripped_code(source) + code
    return hashlib.sha256(text.encode()).hexdigest()[:20]
