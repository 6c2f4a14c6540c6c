"""Tell files of other programs by their content, and say what to convert them to.

Most formats begin with bytes of their own. Protocol buffers do not: ONNX, TensorFlow
and Core ML are told by the numbers and kinds of the fields that make up the whole file.
"""

import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Enough of a file to hold the marks of all formats.
START = 512

_AS_ARRAYS = "export its weights as .npz or .safetensors"
_ORIGINAL = (
    "save the weights of the network that it was made from as .npz or .safetensors")
_UNPACK = "unpack it first"
_ONNX = f"ONNX; {_ORIGINAL}, or its initializers by numpy.savez"
_TENSORFLOW = f"a graph of TensorFlow; {_AS_ARRAYS}"
_CORE_ML = f"Core ML; {_ORIGINAL}"
_HDF5 = f"HDF5, as Keras writes; {_AS_ARRAYS}"
_GGML = f"GGML, whose weights are quantised; {_ORIGINAL}"
_FLAX = f"MessagePack, as Flax writes; {_AS_ARRAYS}"
_PICKLE = (
    "a pickle, as joblib and scikit-learn write; where it was made, save its arrays by "
    "numpy.savez, or its tensors by torch.save")
_TENSORFLOW_LITE = f"TensorFlow Lite; {_ORIGINAL}"
_OPENVINO = f"OpenVINO; {_ORIGINAL}"

# Bytes, where in a file they stand, and the format that they are the mark of.
_MARKS = (
    (0, b"GGUF", f"GGUF, whose weights are quantised; {_ORIGINAL}"),
    (0, b"lmgg", _GGML),
    (0, b"tjgg", _GGML),
    (0, b"\x89HDF", _HDF5),
    (4, b"TFL3", _TENSORFLOW_LITE),
    (4, b"ET12", f"ExecuTorch; {_ORIGINAL}"),
    (4, b"ORTM", f"a format of ONNX Runtime; {_ORIGINAL}"),
    (0, b"\x93NUMPY", "a single array of numpy.save; numpy.savez names them"),
    (0, b"MATLAB 5.0", "MATLAB; load it by scipy.io.loadmat, save it by numpy.savez"),
    (0, b"\x12\x01\0\0\0\0\0\0", f"MXNet; {_AS_ARRAYS}"),
    (0, b"\x1f\x8b", f"compressed by gzip; {_UNPACK}"),
    (0, b"BZh", f"compressed by bzip2; {_UNPACK}"),
    (0, b"\xfd7zXZ", f"compressed by xz; {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"compressed by zstd; {_UNPACK}"),
    (0, b"7z\xbc\xaf", f"a 7z archive; {_UNPACK}"),
    (0, b"Rar!", f"a RAR archive; {_UNPACK}"),
    (257, b"ustar", f"a tar archive; {_UNPACK}"),
    (0, b"<!DO", "a page of HTML, perhaps of a failed download"),
    (0, b"<!do", "a page of HTML, perhaps of a failed download"),
    (0, b"<htm", "a page of HTML, perhaps of a failed download"),
    (0, b"<?xml", f"XML, as OpenVINO writes; {_ORIGINAL}"),
    (0, b"vers", "a pointer of Git LFS; fetch the file itself by `git lfs pull`"),
)
# The number by which torch.save begins what is no zip archive.
_TORCH_PICKLE = b"l\xfc\x9cF\xf9 j\xa8P\x19"

# Where content does not tell, as in a damaged file, the ending is a sign.
_ENDINGS = {
    ".onnx": _ONNX,
    ".pb": _TENSORFLOW,
    ".tflite": _TENSORFLOW_LITE,
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".keras": f"Keras; {_AS_ARRAYS}",
    ".mlmodel": _CORE_ML,
    ".msgpack": _FLAX,
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".joblib": _PICKLE,
    ".engine": f"TensorRT; {_ORIGINAL}",
    ".plan": f"TensorRT; {_ORIGINAL}",
    ".caffemodel": f"Caffe; {_AS_ARRAYS}",
}


def foreign_format(path: Path) -> str:
    """Return which format of another program a file has, by its content.

    Returns
    -------
    str
        The format, and what helps; "" where nothing tells.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.pt"
    ...     _ = path.write_bytes(b"GGUF" + bytes(8))
    ...     foreign_format(path).partition(";")[0]
    'GGUF, whose weights are quantised'
    """
    with path.open("rb") as file:
        start = file.read(START)
    for place, mark, words in _MARKS:
        if start[place:place + len(mark)] == mark:
            return words
    if _is_pickle(start) and not is_torch_pickle(start):
        return _PICKLE
    if _is_zlib(start):
        return f"compressed by zlib, as joblib does; {_UNPACK}"
    if _is_messagepack(start):
        return _FLAX
    return "" if _is_pickle(start) else _protocol_buffer(path)


def format_by_ending(path: Path) -> str:
    """Return the format that a file's name tells; "" where it tells none.

    Examples
    --------
    >>> format_by_ending(Path("a.joblib")).partition(",")[0]
    'a pickle'
    """
    if re.search(r"\.(index|meta|data-\d+-of-\d+)$", path.name):
        return f"a checkpoint of TensorFlow; {_AS_ARRAYS}"
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return _OPENVINO
    return _ENDINGS.get(path.suffix.lower(), "")


def foreign_archive(members: Collection[str]) -> str:
    """Return what program wrote a zip archive of some files; "" where nothing tells.

    Examples
    --------
    >>> foreign_archive(["config.json", "model.weights.h5"])
    'Keras; export its weights as .npz or .safetensors'
    """
    if "model.weights.h5" in members:
        return f"Keras; {_AS_ARRAYS}"
    for name in members:
        if name.endswith(("archive_format", "serialized_exported_program.json")):
            return (
                "a program of torch.export; save the state_dict() of the module that "
                "it was made from")
    return ""


def is_torch_pickle(start: bytes) -> bool:
    """Tell whether a file begins as the pickles that ``torch.save`` writes.

    Examples
    --------
    >>> is_torch_pickle(b"GGUF")
    False
    """
    return _is_pickle(start) and _TORCH_PICKLE in start[:32]


def _is_pickle(start: bytes) -> bool:
    """Tell whether a file begins as pickles of protocols 2 to 5 do."""
    return start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5")


def _is_zlib(start: bytes) -> bool:
    """Tell whether a file begins as data do that zlib has compressed."""
    if start[:1] != b"\x78":
        return False
    try:
        return bool(zlib.decompressobj().decompress(start, 16))
    except zlib.error:
        return False


def _is_messagepack(start: bytes) -> bool:
    """Tell whether a file begins as a map of MessagePack whose first key is a text."""
    is_map = start[:1] == b"\xde" or b"\x81" <= start[:1] <= b"\x8f"
    if len(start) < 6 or not is_map:
        return False
    key = start[1:] if start[0] != 0xDE else start[3:]
    if key[:1] == b"\xd9":
        length, text = key[1], key[2:]
    else:
        length, text = key[0] - 0xA0, key[1:]
    return 0 < length < 256 and text[:length].isascii() and len(text) >= length


# ------------------------------------------------------------ protocol buffers


class _Field(NamedTuple):
    """A field of a message: its number, and its kind as protocol buffers count them."""

    number: int
    kind: int


_NUMBER = 0
_MESSAGE = 2  # or a text: a length, and as many bytes
_SIZES = {1: 8, 5: 4}  # kinds of a fixed number of bytes


def _protocol_buffer(path: Path) -> str:
    """Return the format of a file that is one message of protocol buffers; or ""."""
    size = path.stat().st_size
    with path.open("rb") as file:
        fields = set(_fields(file, size))
    numbers = {field.number for field in fields}
    version = _Field(1, _NUMBER) in fields
    if version and _Field(7, _MESSAGE) in fields and numbers <= _OF_ONNX:
        return _ONNX
    if version and _Field(2, _MESSAGE) in fields and numbers - {1, 2, 10}:
        return _CORE_ML if min(numbers - {1, 2, 10}) >= 200 else ""
    if fields == {_Field(1, _NUMBER), _Field(2, _MESSAGE)}:
        return f"a SavedModel of TensorFlow; {_AS_ARRAYS}"
    if _Field(100, _MESSAGE) in fields and numbers <= {1, 3, 4, 5, 6, 7, 8, 100}:
        return f"Caffe; {_AS_ARRAYS}"
    if _Field(1, _MESSAGE) in fields and 4 in numbers and numbers <= {1, 2, 3, 4}:
        return _TENSORFLOW
    return ""


# A version, who made it, the graph, the operators, properties, training and functions.
_OF_ONNX = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}


def _fields(file: BinaryIO, size: int, most: int = 10000) -> Iterator[_Field]:
    """Yield the outermost fields of a message that ends where the file does.

    Nothing is read but numbers and lengths. Of what is no such message, or one that is
    cut off, a last field with the number 0, which no message has, is yielded.
    """
    for _ in range(most):
        if file.tell() == size:
            return
        key = _varint(file)
        kind = key & 7
        length = _SIZES.get(kind, 0)
        if kind == _NUMBER:
            _varint(file)
        elif kind == _MESSAGE:
            length = _varint(file)
        elif kind not in _SIZES:
            key = 0
        inside = file.tell() + length <= size
        if not inside or key < 8:
            yield _Field(0, kind)
            return
        yield _Field(key >> 3, kind)
        file.seek(length, 1)


def _varint(file: BinaryIO) -> int:
    """Read a number of any length: seven bits per byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return 0
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
    return value
