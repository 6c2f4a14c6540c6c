"""Files of weights, opened by what they hold: safetensors, torch, NumPy, and shards.

Nothing in a file is executed. What can be mapped into memory is mapped, so that a
network need not fit into it.
"""

import argparse
import json
import os
import pathlib
import re
import types
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ..measures.spelling import printable
from .foreign import (
    foreign_archive,
    foreign_format,
    format_by_ending,
    is_torch_pickle,
)
from .messages import one_line, shortened

# Names of weights that transformers and its kin give to files in a folder.
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin", "model.pt", "model.pth",
                 "adapter_model.safetensors")
_CHECKPOINT_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz")

# Classes that training scripts store beside the weights, and that do nothing but hold
# values: torch may make them without being asked.
_HARMLESS = [
    argparse.Namespace, types.SimpleNamespace, pathlib.PosixPath, pathlib.PurePosixPath,
    np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdgFDSU"}]


def _numpy_rebuilders() -> list[Any]:
    """Return the functions by which NumPy unpickles arrays, by all their names."""
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    entries: list[Any] = []
    for function in ("scalar", "_reconstruct"):
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            entries.append((getattr(multiarray, function), f"{module}.{function}"))
    return entries


class Opened(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    content : object
        Of a safetensors file a dict, by name, of slices; of the other kinds what was
        saved, with tensors.
    notes : tuple of str
        What was assumed to read it.
    ordered : bool
        Whether names stand in the order in which they were saved; safetensors and
        indices of several files sort them.

    Examples
    --------
    >>> Opened({"weight": torch.ones(2)}).ordered
    True
    """

    content: Any
    notes: tuple[str, ...] = ()
    ordered: bool = True


def opened(path: Path) -> Opened:
    """Open a file, or a folder that holds a network, mapped into memory.

    Parameters
    ----------
    path : Path
        A file of ``safetensors``, ``torch.save`` or ``numpy.savez``, whatever its
        ending; the ``.index.json`` of a network in several files; or a folder that
        holds one of these under a usual name.

    Returns
    -------
    Opened
        What the file holds.

    Raises
    ------
    ValueError
        For a file that is missing, truncated, of another kind, or that would execute
        code; on one line.

    Examples
    --------
    >>> opened(Path("nowhere.pt"))
    Traceback (most recent call last):
    ValueError: nowhere.pt: no such file
    """
    try:
        return _opened(path)
    except PermissionError as error:
        raise ValueError(printable(str(_refusal(path, error)))) from None
    except ValueError as error:
        raise ValueError(printable(str(error))) from None


def _opened(path: Path) -> Opened:
    """Open a file or a folder; errors have the path as it is."""
    # Unlike Path.is_dir(), these raise nothing for a name that is too long.
    if os.path.isdir(path):
        inner = _file_in_folder(path)
        file = _opened(inner)
        notes = [f"read from {inner.name}", *file.notes]
        for adapter in path.glob("adapter_model.*"):
            if adapter != inner:
                notes.append(f"{adapter.name} beside it is not applied")
        return file._replace(notes=tuple(notes))
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: no regular file")
    try:
        return _opened_file(path)
    except Exception as error:  # damaged pickles may raise anything
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        raise _refusal(path, error) from None


def checkpoints_in(folder: Path) -> list[Path]:
    """List the checkpoints in a folder: files, and folders that hold a network.

    Files are taken for their ending, whatever they hold, or for what they hold,
    whatever they are called.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     torch.save({"weight": torch.ones(3, 2)}, f"{folder}/a.pt")
    ...     [path.name for path in checkpoints_in(Path(folder))]
    ['a.pt']
    """
    paths = []
    for path in sorted(folder.iterdir(), key=_natural_order):
        if _is_checkpoint(path):
            paths.append(path)
    if not paths:
        raise ValueError(
            f"{folder}: no checkpoint in this folder "
            f"({', '.join(_CHECKPOINT_ENDINGS)})")
    return paths


def _is_checkpoint(path: Path) -> bool:
    """Tell whether a path is a file or a folder that holds a network."""
    try:
        is_index = path.name.endswith(".index.json")
        is_file = path.is_file() and (
            is_index or path.suffix in _CHECKPOINT_ENDINGS
            or _begins_as_checkpoint(path))
        return bool(is_file and not part_of_network(path)) or holds_one_network(path)
    except PermissionError:
        if path.is_dir():
            return not path.name.startswith(".")
        return path.suffix in _CHECKPOINT_ENDINGS  # which is said when it is read


def part_of_network(path: Path) -> bool:
    """Tell whether a file is one of several that hold a network, by its name.

    Examples
    --------
    >>> part_of_network(Path("model-00001-of-00002.safetensors"))
    True
    >>> part_of_network(Path("model-00001-of-00001.safetensors"))
    False
    """
    match = re.search(r"-\d{5}-of-(\d{5})\.\w+$", path.name)
    return match is not None and int(match[1]) > 1


def groups_in(folder: Path) -> list[Path]:
    """List the folders in a folder that hold checkpoints, but are none themselves.

    Folders that cannot be read, or whose name begins with a point, are passed over.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Path(folder, "empty").mkdir()
    ...     Path(folder, "runs").mkdir()
    ...     torch.save({"weight": torch.ones(3, 2)}, f"{folder}/runs/a.pt")
    ...     [path.name for path in groups_in(Path(folder))]
    ['runs']
    """
    groups = []
    for path in sorted(folder.iterdir(), key=_natural_order):
        if path.name.startswith(".") or not path.is_dir():
            continue
        with suppress(OSError):
            # The search ends at the first.
            if not holds_one_network(path) and any(
                    map(_is_checkpoint, path.iterdir())):
                groups.append(path)
    return groups


def _begins_as_checkpoint(path: Path) -> bool:
    """Tell whether a file is of a known format, as far as its head or directory say."""
    with path.open("rb") as file:
        start = file.read(32)
    if not start.startswith(b"PK"):
        return _is_safetensors(start, path) or is_torch_pickle(start)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
    return any(name.endswith(("/data.pkl", ".npy")) for name in names)


def _natural_order(path: Path) -> list[tuple[bool, int, str]]:
    """Return a key by which epoch-2 comes before epoch-10."""
    key = []
    for part in re.split(r"(\d+)", path.name):
        number = int(part) if part.isdecimal() else 0
        key.append((not part.isdecimal(), number, part))
    return key


def holds_one_network(folder: Path) -> bool:
    """Tell whether a folder holds one network under a usual name.

    Examples
    --------
    >>> holds_one_network(Path("nowhere"))
    False
    """
    return folder.is_dir() and bool(_usual_files(folder))


def _usual_files(folder: Path) -> list[Path]:
    """List the files of a folder that hold a whole network, by their usual names."""
    names = os.listdir(folder)  # which says so of a folder that cannot be read
    indices = [
        folder / name for name in sorted(names) if name.endswith(".index.json")]
    singles = [
        folder / name for name in _SINGLE_FILES
        if name in names and (folder / name).is_file()]
    # Folders may keep the index of another format, without its files.
    complete = [index for index in indices if not set(_shards(index)).isdisjoint(names)]
    of_ours = [index for index in complete if index.name.endswith(_OF_INDICES)]
    return of_ours or singles or complete or indices


# Indices of files that can be read, safetensors and pickles.
_OF_INDICES = (".safetensors.index.json", ".bin.index.json", ".pt.index.json")


def _shards(index: Path) -> set[str]:
    """Return the names of the files that an index lists; none where it is damaged."""
    try:
        content = json.loads(index.read_text("utf-8"))
        return set(map(str, content["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def _file_in_folder(folder: Path) -> Path:
    files = _usual_files(folder)
    if not files:
        raise ValueError(
            f"{folder}: a folder without {', '.join(_SINGLE_FILES[:2])} or an "
            f".index.json; name files in it, or give it alone to compare all of them")
    return files[0]  # safetensors come before pickles


def _opened_file(path: Path) -> Opened:
    """Open one file by what its first bytes say."""
    with path.open("rb") as file:
        start = file.read(16)
    if path.name.endswith(".index.json"):
        return _opened_shards(path)
    if not start:
        raise ValueError(f"{path}: truncated: the file is empty")
    if _is_safetensors(start, path):
        notes = _note_on_ending(path, "safetensors", (".safetensors",))
        return Opened(_safetensors(path), notes, ordered=False)
    program = "" if start.startswith(b"PK") else foreign_format(path)
    if program:
        raise _foreign(path, program)
    if path.suffix == ".safetensors" and not _is_torch(start):
        return Opened(_safetensors(path))  # which says what is wrong with it
    if not zipfile.is_zipfile(path):
        content = _torch_load(path, mapped=False)
    else:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        if members and all(name.filename.endswith(".npy") for name in members):
            notes = _note_on_ending(path, "numpy.savez", (".npz",))
            return Opened(_numpy_arrays(path), notes)
        content = _opened_archive(path, members)
    notes = _note_on_ending(path, "torch.save", (".pt", ".pth", ".bin", ".ckpt"))
    return Opened(content, notes)


def _note_on_ending(path: Path, kind: str, endings: tuple[str, ...]) -> tuple[str, ...]:
    """Return a note where a file's ending is that of another kind of file."""
    known = path.suffix in _CHECKPOINT_ENDINGS
    if known and path.suffix not in endings:
        return (f"a file of {kind}, though it is called {path.suffix}",)
    return ()


def _is_safetensors(start: bytes, path: Path) -> bool:
    """Tell whether a file begins as safetensors do: a length, and JSON of that size."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and 0 < length <= path.stat().st_size - 8


def _is_torch(start: bytes) -> bool:
    """Tell whether a file begins as those of torch.save: a zip archive or a pickle."""
    return start.startswith((b"PK\x03\x04", b"\x80\x02"))


# ------------------------------------------------------------------------- safetensors


def _safetensors(path: Path) -> dict[str, Any]:
    """Return the slices of a safetensors file by name, aliases among them.

    The format stores a tensor once. ``safetensors.torch.save_model`` names the other
    places of a shared tensor in the metadata, as keys whose value is the stored name.
    """
    file: Any = safe_open(path, "pt")
    weights = {}
    for name in file.keys():
        values = file.get_slice(name)
        if not values.get_shape():  # a scalar has no rows
            values = file.get_tensor(name)
        weights[name] = values
    for alias, stored in (file.metadata() or {}).items():
        # Other metadata may hold the name of a tensor, too.
        is_name = "." in alias or _without_digits(alias) == _without_digits(stored)
        if is_name and stored in weights and alias not in weights:
            weights[alias] = weights[stored]
    return weights


def _without_digits(name: str) -> str:
    return re.sub(r"\d", "", name)


def _opened_shards(index: Path) -> Opened:
    """Return the weights of a network that is stored in several files."""
    try:
        files = json.loads(index.read_text("utf-8"))["weight_map"]
        names_by_file: dict[str, list[str]] = {}
        for name, file in files.items():
            names_by_file.setdefault(file, []).append(name)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(
            f"{index}: wanted an index with a weight_map from names to files") from None
    weights: dict[str, Any] = {}
    for file, names in names_by_file.items():
        if Path(file).name != file:
            raise ValueError(f"{index}: names a file outside its folder: {file!r}")
        if not os.path.isfile(index.parent / file):
            raise ValueError(f"{index}: {file} is missing")
        content = opened(index.parent / file).content
        for name in names:
            if not isinstance(content, dict) or name not in content:
                raise ValueError(f"{index}: {name!r} is not in {file}")
            weights[name] = content[name]
    return Opened(weights, (f"{len(names_by_file)} files",), ordered=False)


# ------------------------------------------------------------------------- zip archives


def _opened_archive(path: Path, members: list[zipfile.ZipInfo]) -> Any:
    """Return what a zip archive of ``torch.save`` holds; refuse archives of others."""
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(
            f"{path}: a TorchScript program, which hides its wiring; save the "
            f"state_dict() of the module that it was made from")
    program = foreign_archive(names)
    if program:
        raise _foreign(path, program)
    if not any(name.endswith("data.pkl") for name in names):
        raise ValueError(
            f"{path}: a zip archive that torch.save did not write (it holds "
            f"{', '.join(map(repr, names[:3]))})")
    _check_members(path, members)
    # torch checks neither the compression nor the length of what it maps.
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if stored and path.suffix != ".safetensors":
        content = _torch_load(path, mapped=True)
        if _is_mapped_rightly(path, content, members):
            return content
    return _torch_load(path, mapped=False)


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive whose directory and members disagree, as torch does not.

    Stored weights are not read, for their size: of these only the headers are checked.
    """
    folders = {member.filename.partition("/")[0] for member in members}
    if len(folders) > 1:
        raise ValueError(
            f"{path}: a zip archive with more than one folder ({', '.join(folders)}): "
            f"another tool has zipped it; wanted what torch.save wrote, alone")
    with zipfile.ZipFile(path) as archive:
        for member in members:
            with archive.open(member) as file:
                stored = member.compress_type == zipfile.ZIP_STORED
                is_weights = re.search(r"/data/[^/]+$", member.filename)
                while not (stored and is_weights) and file.read(2**20):
                    pass  # what is read is checked


def _is_mapped_rightly(
    path: Path, content: Any, members: list[zipfile.ZipInfo],
) -> bool:
    """Tell whether all storages lie in the archive as its directory says.

    Compared are the start and the length of each storage, as torch has mapped it, with
    those of the records. The starts are relative to the first, because torch does not
    tell where in memory the file begins.
    """
    mapped = set()
    for values in _tensors_in(content):
        storage = values.untyped_storage()
        if storage.nbytes():
            mapped.add((storage.data_ptr(), storage.nbytes()))
    reader: Any = torch._C.PyTorchFileReader(str(path))
    records = set()
    for member in members:
        match = re.search(r"(?:^|/)(data/[^/]+)$", member.filename)
        if match and member.file_size:
            offset = reader.get_record_offset(match[1])
            records.add((offset, member.file_size))
    return _relative_to_first(mapped) == _relative_to_first(records)


def _relative_to_first(extents: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return starts and lengths in order, starts counted from the first."""
    ordered = sorted(extents)
    return [(start - ordered[0][0], length) for start, length in ordered]


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested dicts, lists and tuples, each container once.

    A small pickle can hold a list of lists of lists, each many times.
    """
    waiting = [content]
    visited: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout == torch.strided and not value.is_meta:
                yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in visited:
            visited.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def _numpy_arrays(path: Path) -> dict[str, Tensor]:
    """Return the arrays of a .npz file by name, as tensors."""
    weights = {}
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            values = arrays[name]
            if values.dtype.kind not in "fiub":
                raise ValueError(
                    f"{path}: {name} is {values.dtype}; wanted real numbers")
            native = values.astype(values.dtype.newbyteorder("="))
            weights[name] = torch.from_numpy(native)
    return weights


def _torch_load(path: Path, mapped: bool) -> Any:
    """Return what ``torch.save`` wrote, with tensors on the CPU."""
    allowed = [*_HARMLESS, *_numpy_rebuilders()]
    with torch.device("cpu"), torch.serialization.safe_globals(allowed):
        if mapped:
            return torch.load(path, "cpu", weights_only=True, mmap=True)
        # torch takes a path of that ending for safetensors, whatever it holds.
        with path.open("rb") as file:
            return torch.load(file, "cpu", weights_only=True)


# ------------------------------------------------------------------------- refusals


def _foreign(path: Path, program: str) -> ValueError:
    """Return the error that says which program's format a file has."""
    return ValueError(f"{path}: no file of torch or safetensors: {program}")


def _refusal(path: Path, error: BaseException) -> ValueError:
    """Return the error that says on one line why a file cannot be read."""
    text = str(error)
    if isinstance(error, PermissionError):
        return ValueError(f"{path}: no permission to read it")
    # torch names what it refuses to call.
    code = re.search(r"GLOBAL (\S+)", text)
    if code:
        return ValueError(
            f"{path}: more than tensors in it; to load it would run code "
            f"({code.group(1)}): refused. Where it was made, save the weights alone: "
            f"torch.save(model.state_dict(), 'weights.pt')")
    protocol = _pickle_protocol(path)
    if protocol > _LAST_PROTOCOL:
        return ValueError(
            f"{path}: saved by torch.save with pickle_protocol={protocol}, which torch "
            f"cannot read without running what is in the file; where it was made, save "
            f"it again without pickle_protocol")
    program = format_by_ending(path)
    if program:
        return _foreign(path, f"by its ending {program}")
    if _is_text(path):
        return ValueError(f"{path}: a text, and no state dict")
    return ValueError(f"{path}: truncated, or no state dict ({_reason(error)})")


def _is_text(path: Path) -> bool:
    """Tell whether a file begins as texts do, such as JSON and CSV."""
    with suppress(OSError, UnicodeDecodeError):
        with path.open("rb") as file:
            start = file.read(256).decode("ascii")
        return all(sign.isprintable() or sign in "\t\r\n" for sign in start)
    return False


# The last protocol of pickles that torch reads without running them
_LAST_PROTOCOL = 3


def _pickle_protocol(path: Path) -> int:
    """Return the protocol of the pickle in a file of torch.save; 0 if there is none."""
    with suppress(OSError, ValueError, LookupError, zipfile.BadZipFile):
        with path.open("rb") as file:
            start = file.read(32)
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                name, = (n for n in archive.namelist() if n.endswith("/data.pkl"))
                with archive.open(name) as member:
                    return _protocol_of(member.read(2))
        if is_torch_pickle(start):
            return _protocol_of(start)
    return 0


def _protocol_of(start: bytes) -> int:
    return start[1] if start[:1] == b"\x80" else 0


def _reason(error: BaseException) -> str:
    """Return why torch cannot read a file, without its advice to run what is in it."""
    reason = re.search(r"WeightsUnpickler error: (.+)", str(error))
    if reason:
        return shortened(printable(reason[1].strip()), 160)
    line = one_line(error)
    return "torch cannot read it" if "weights_only" in line else line
