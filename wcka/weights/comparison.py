"""Compare networks in files, layer by layer, beside what chance alone would give.

Files are opened, and what is wrong with them is reported, before any work starts.
"""

import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .by_architecture import compare_architectures
from .by_circuit import are_transformers, compare_transformers
from .file_group import read_group
from .fully_connected import compare_chains

# The version of what compare_files returns and --json prints: raised when a key changes
# its meaning.
SCHEMA = 5
# What Linux says of a process
_STATUS = Path("/proc/self/status")


def compare_files(
    paths: Sequence[str], arch: str | Sequence[str] | None = None,
    input_shape: Any = None, freeze: Sequence[str] = (), by_layer: bool = False,
    networks: int = 8, *, key: str | None = None, order: Sequence[str] = (),
    stored: str | None = None,
) -> dict[str, Any]:
    """Return the similarity of networks in files, and what chance alone would give.

    Parameters
    ----------
    paths : sequence of str
        At least two files, or one folder of them; see ``checkpoints.read``. Of a
        folder, files that cannot be compared with the others are left out.
    arch : str or sequence of str, optional
        An architecture, or one for each file; see ``building.factory``. By default the
        files are transformers if there is a ``config.json`` of a known family beside
        each of them, and fully connected networks otherwise.
    input_shape : sequence of int, optional
        See ``chain``; (3, 224, 224) for torchvision's networks by default.
    freeze : sequence of str
        See ``chain``.
    by_layer : bool
        Compare all layers even where that takes long: in wide networks, and in any
        architecture (there the outputs of its top-level modules that hold weights,
        averaged over places).
    networks : int
        With an architecture, number of untrained networks that say what chance gives,
        of the files' architectures in turn; fewer if they are large.
    key, order, stored
        Where the weights stand in each file, which layers make the chain in which
        order, and how matrices are stored, where files do not say; see
        ``checkpoints.read`` and ``wiring.chain_in``.

    Returns
    -------
    dict
        - "schema": 5, the version of this list.
        - "files": their names.
        - "left out": the files of a folder that do not fit, each with the reason.
        - "assumed": sentences on what was assumed to read the files, in order.
        - "chains": by file, the layers that were multiplied, each with its "name",
          "inputs" and "outputs"; empty with an architecture and for transformers.
        - "undecided": the reason why there is no value though the files were read; "".
        - "all": tables (N, N) of all pairs: "wcka" (of transformers the median over
          four circuits, see ``token_circuits``, or those of them that both networks
          have, of the means over layers); what chance
          gives, as "mean" and "sd"; and the value beside it, as "z", "p" and "holm", p
          corrected for the number of pairs. NaN is what is not known.
        - "chance": what that is, "orders" of the inputs or "untrained" networks; of
          transformers it is "unknown".
        - "layers": the same for the chain up to each layer, by name; of transformers
          for each circuit and layer, such as "ov 3".
        - "without layers": the reason why there are none, or "".
        - "untrained": the number of untrained networks; 0 without an architecture.
        - "shape": that of the first file's chain; of transformers the number of tokens
          and the width of the stream.
        - "seconds": the time that all took.
        - "peak memory" of the process in bytes, "memory before" the files were opened
          (both 0 on systems that do not count it), and the most that can be "mapped" of
          them, which the system takes back where it is short of memory.

    Raises
    ------
    ValueError
        For bad files, before any work; for matrices that are known to be no chain; for
        weights that are not finite.
    TypeError
        For an architecture that has no chain.

    Examples
    --------
    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    ...     path = f"{folder}/network.pt"
    ...     torch.save(torch.nn.Linear(4, 3).state_dict(), path)
    ...     result = compare_files([path, path])
    >>> result["shape"], round(result["all"]["wcka"][0][1], 6)
    ((4, 3), 1.0)
    """
    start = time.perf_counter()
    memory_before = _peak_memory()
    architectures = [arch] if isinstance(arch, str) else list(arch or [])
    if not architectures and (freeze or input_shape):
        raise ValueError(
            "--freeze and --input-shape are for --arch: fully connected networks need "
            "neither")
    if architectures and (order or stored):
        raise ValueError(
            "--order and --stored are for fully connected networks: --arch knows both")
    files = read_group(paths, key)
    if architectures:
        result = compare_architectures(
            files, architectures, input_shape, freeze, by_layer, networks)
    elif not (order or stored) and are_transformers(files):
        result = compare_transformers(files)
    else:
        result = compare_chains(files, by_layer, order, stored)
    names = [file.name for file in files.fitting]
    return {
        "schema": SCHEMA,
        "files": names,
        "left out": files.left_out,
        **result,
        "seconds": time.perf_counter() - start,
        "memory before": memory_before,
        "peak memory": _peak_memory(),
        "mapped": sum(map(_size, {file.place for file in files.fitting})),
    }


def _size(place: Path) -> int:
    """Return how many bytes a file, or a folder's files, hold; 0 if it is gone."""
    files = place.iterdir() if place.is_dir() else [place]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return sum(sizes)


def _peak_memory() -> int:
    """Return the most bytes that the process has held so far; 0 on Windows."""
    # Linux's ru_maxrss begins with that of the process that started this one.
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text("utf-8"))
        if found:
            return int(found[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
        return peak
    return peak * 1024  # other systems count in KiB
