"""Linear paths of transformers from tokens to tokens, and their similarity.

The weights of a transformer hold paths in which no basis of the residual stream is
left. With the embedding E (tokens, d), the unembedding U (d, outputs), and for each
layer the matrices of ``families.Block``, they are (Elhage et al. 2021, "A mathematical
framework for transformer circuits")

======== ================================================ ==========================
circuit  matrix (tokens, columns)                         columns
======== ================================================ ==========================
direct   E U                                              outputs
ov       E (sum over heads: value out) U                  outputs
qk       E query key' E', heads side by side              tokens, for each head
mlp      E up down U                                      outputs
======== ================================================ ==========================

Their rows are tokens, which two models share, so each is a feature matrix as the chain
of a fully connected network is one, and their similarity is CKA. It stays as it is when
the stream is rotated, when heads are reordered, when an invertible map is put between
the two matrices of a head, and when units of an MLP are permuted or rescaled.

No matrix of tokens by tokens is needed. Let ``M`` (d, k) be such that the rows of
``E M`` have the inner products of the rows of the circuit. Then the squared norm of
``M_b' (E_b' H E_a) M_a``, where H centres, is all that CKA needs. Embeddings are read
once, in pieces, and layers one by one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..measures.inner_products import symmetric_root
from ..measures.spelling import nearest
from ..measures.validation import Array, warn_caller
from .families import NotFinite, Transformer, transformer

CIRCUITS = ("direct", "ov", "qk", "mlp")
# Rows of embeddings that are read at once
_ROWS = 8192
# Shares of a sum that may be rounding, by the precision that it is computed in
_ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


class Circuits:
    """The circuits of one network, in a basis of its residual stream.

    Parameters
    ----------
    network : Transformer
        Its weights.
    tokens : sequence of int or bool, optional
        The rows of the embedding that count, in this order, or for each row whether it
        counts; all of them by default. They are the rows of all circuits, and the
        columns of "qk".

    Raises
    ------
    ValueError
        For rows that the embedding does not have.

    Attributes
    ----------
    network : Transformer
        Its weights.
    count : int
        Number of tokens that count.

    Examples
    --------
    >>> weights = {"wte.weight": torch.eye(3, 2), "ln_f.weight": torch.ones(2)}
    >>> for name, shape in {"attn.c_attn": (2, 6), "attn.c_proj": (2, 2),
    ...                     "mlp.c_fc": (2, 4), "mlp.c_proj": (4, 2)}.items():
    ...     weights[f"h.0.{name}.weight"] = torch.ones(shape)
    >>> for name in ("ln_1", "ln_2"):
    ...     weights[f"h.0.{name}.weight"] = torch.ones(2)
    >>> network = Transformer(weights, {"model_type": "gpt2", "n_head": 1})
    >>> Circuits(network).features("direct").round(decimals=2).tolist()
    [[0.5, -0.5], [-0.5, 0.5], [0.0, 0.0]]
    """

    def __init__(
        self, network: Transformer, tokens: Sequence[int] | None = None
    ) -> None:
        self.network = network
        rows = np.arange(network.rows)
        if tokens is not None:
            rows = _rows_that_count(tokens, network.rows)
        self.count = len(rows)
        self._embedding: Tensor | None = None
        # Slices of files are read by ranges of rows only.
        if not np.array_equal(rows, np.arange(self.count)):
            everything = network.read_rows(slice(0, network.rows))
            self._embedding = everything[torch.from_numpy(rows)]
        self._token_gram: Tensor | None = None
        self._to_outputs: Tensor | None = None

    def read_rows(self, part: slice) -> Tensor:
        """Return the embeddings of some of the tokens that count, (rows, d)."""
        if self._embedding is None:
            return self.network.read_rows(part)
        return self._embedding[part]

    @property
    def to_outputs(self) -> Tensor:
        """The stream's map to a basis of the outputs, (d, d); (d, 0) without any."""
        if self._to_outputs is None:
            network = self.network
            if not network.has_head:
                self._to_outputs = torch.zeros(network.width, 0, dtype=network.dtype)
                return self._to_outputs
            all_in_order = self._embedding is None and self.count == network.rows
            if network.is_tied and all_in_order:
                gram = self.token_gram
            else:
                gram = _gram(
                    map(network.read_unembedding_rows, _parts(network.outputs)))
            root = self._root(gram).to(network.dtype)
            self._to_outputs = network.read_out_map() @ root
        return self._to_outputs

    @property
    def token_gram(self) -> Tensor:
        """The products of the columns of the embedding, over tokens: (d, d)."""
        if self._token_gram is None:
            self._token_gram = _gram(map(self.read_rows, _parts(self.count)))
        return self._token_gram

    @token_gram.setter
    def token_gram(self, gram: Tensor) -> None:
        self._token_gram = gram

    def maps(self, layer: int) -> dict[str, Tensor]:
        """Return the maps M (d, k) of one layer, by circuit.

        The rows of E M have the inner products of the rows of the circuit.
        """
        matrices = self.network.read_layer(layer)
        width = self.network.width
        heads, head_size, _ = matrices.out.shape
        key_heads = matrices.key.shape[1]
        # Heads with the same values add up what they write: (key heads, size, d).
        out = matrices.out.reshape(key_heads, -1, head_size, width).sum(1)
        to_outputs = out.flatten(0, 1) @ self.to_outputs
        # Values are fewer than outputs where heads share them.
        if len(to_outputs) < width:
            products = (to_outputs @ to_outputs.T).double()
            to_outputs = self._root(products).to(to_outputs.dtype)
        keys = matrices.key.movedim(1, 0)  # (key heads, d, size)
        gram = self.token_gram.to(keys.dtype)
        products = (keys.mT @ gram @ keys).double()  # (key heads, size, size)
        roots = self._root(products).to(keys.dtype)
        roots = roots.repeat_interleave(heads // key_heads, dim=0)
        queries = matrices.query.movedim(1, 0) @ roots  # (heads, d, size)
        return {
            "ov": matrices.value.flatten(1) @ to_outputs,
            "qk": queries.movedim(0, 1).flatten(1),
            "mlp": (matrices.up @ matrices.down) @ self.to_outputs,
        }

    def _root(self, products: Tensor) -> Tensor:
        """Return a symmetric root; say of which network products overflow."""
        try:
            return symmetric_root(products)
        except torch.linalg.LinAlgError:
            raise NotFinite(
                f"{self.network.family}: products of its weights are too large for "
                f"their precision", self.network) from None

    def features(self, circuit: str, layer: int = 0) -> Tensor:
        """Return a matrix whose rows have the inner products of those of a circuit.

        Parameters
        ----------
        circuit : str
            One of ``CIRCUITS``.
        layer : int
            From 0; the direct circuit has none.

        Returns
        -------
        Tensor
            (tokens, k), k being the width of the stream, that of all heads for "qk",
            or, for "ov", that of all values where it is less.

        Raises
        ------
        ValueError
            For an unknown circuit, or a layer that the network does not have.
        """
        nearest(circuit, CIRCUITS, "circuit")
        if not 0 <= layer < self.network.depth:
            raise ValueError(
                f"layer: wanted 0 to {self.network.depth - 1}, got {layer}")
        if circuit == "direct":
            to_columns = self.to_outputs
        else:
            to_columns = self.maps(layer)[circuit]
        return self.read_rows(slice(0, self.count)) @ to_columns


def _rows_that_count(tokens: Sequence[int], n_rows: int) -> NDArray[np.int64]:
    """Return rows of an embedding by their numbers, given so or as truth values."""
    values = np.asarray(tokens)
    if values.dtype == bool and values.shape == (n_rows,):
        values = np.flatnonzero(values)
    is_list = values.ndim == 1 and values.dtype.kind in "iu"
    if not is_list or (len(values) and not 0 <= values.min() <= values.max() < n_rows):
        raise ValueError(
            f"tokens: wanted rows from 0 to {n_rows - 1}, or a truth value for each of "
            f"{n_rows} rows")
    return values.astype(np.int64)


def _parts(count: int) -> Iterator[slice]:
    """Yield ranges of rows that together are all of them."""
    for start in range(0, count, _ROWS):
        yield slice(start, min(start + _ROWS, count))


def _gram(rows_of_parts: Iterator[Tensor]) -> Tensor:
    """Return the sum of X'X over parts X (rows, d), in float64."""
    total: Tensor | float = 0.0
    for rows in rows_of_parts:
        total = total + (rows.T @ rows).double()
    assert isinstance(total, Tensor)
    return total


def circuits(
    network: Any, config: Mapping[str, Any] | None = None,
    tokens: Sequence[int] | None = None,
) -> Circuits:
    """Return the circuits of a transformer: its linear paths from tokens to tokens.

    Parameters
    ----------
    network : nn.Module or mapping of str to Tensor
        A model of the library transformers, or a state dict with that library's names.
    config : mapping, optional
        What its ``config.json`` says; that of the model, by default.
    tokens : sequence of int or bool, optional
        As in ``Circuits``.

    Raises
    ------
    TypeError, ValueError
        As ``families.transformer`` and ``Circuits``.

    Examples
    --------
    >>> circuits({}, {"model_type": "llama", "num_attention_heads": 2})
    Traceback (most recent call last):
    ValueError: llama: no embed_tokens.weight among the weights
    """
    return Circuits(transformer(network, config), tokens)


# ------------------------------------------------------------------------- comparisons


def compare_circuits(networks: Sequence[Circuits]) -> dict[str, Array]:
    """Return the similarity of all pairs of transformers, by circuit and layer.

    Parameters
    ----------
    networks : sequence of Circuits
        N networks, whose tokens correspond.

    Returns
    -------
    dict of str to ndarray
        Of each of ``CIRCUITS`` CKA (layers, N, N) over tokens, in [0, 1]: one "layer"
        for the direct one, and for the others those of the shallowest network, each
        with its ``corresponding_layers``. NaN, with a warning, where a circuit is zero
        or the same for all tokens, or ends in an unembedding that is not there.

    Raises
    ------
    ValueError
        For networks with other numbers of tokens.
    TypeError
        For anything but circuits.

    Examples
    --------
    >>> compare_circuits([])
    Traceback (most recent call last):
    ValueError: wanted at least one network
    """
    if not networks:
        raise ValueError("wanted at least one network")
    for network in networks:
        if not isinstance(network, Circuits):
            raise TypeError(
                f"wanted what circuits() returns, got {type(network).__name__}")
    counts = [network.count for network in networks]
    if len(set(counts)) > 1:
        raise ValueError(f"wanted as many tokens in all networks, got {counts}")
    products = _products_of_embeddings(networks)
    similarities: dict[str, list[Array]] = {circuit: [] for circuit in CIRCUITS}
    direct = [network.to_outputs for network in networks]
    similarities["direct"].append(_cka(direct, products))
    depths = [network.network.depth for network in networks]
    places = list(zip(*corresponding_layers(depths)))
    for layers in tqdm(places, "layers", leave=False, delay=2, disable=None):
        of_networks = [network.maps(layer) for network, layer in zip(networks, layers)]
        for circuit in CIRCUITS[1:]:
            maps = [of_network[circuit] for of_network in of_networks]
            similarities[circuit].append(_cka(maps, products))
    tables = {circuit: np.stack(rows) for circuit, rows in similarities.items()}
    without_value = sum(int(np.isnan(table).sum()) for table in tables.values())
    if without_value:
        have_heads = all(network.network.has_head for network in networks)
        reason = "" if have_heads else ", or end in an unembedding that is not there"
        warn_caller(f"some circuits are zero, or the same for all tokens{reason}: they "
                    f"have no similarity, NaN")
    return tables


def corresponding_layers(depths: Sequence[int]) -> list[list[int]]:
    """Return which layers of networks are compared with each other.

    They are at the same relative depth: the first layers with each other, the last
    ones, and so on in between. Networks of one depth are compared layer by layer.

    Parameters
    ----------
    depths : sequence of int
        The number of layers of each network, at least 1.

    Returns
    -------
    list of list of int
        For each network as many layers, from 0, as the shallowest network has.

    Examples
    --------
    >>> corresponding_layers([3, 3, 5])
    [[0, 1, 2], [0, 1, 2], [0, 2, 4]]
    """
    layers = []
    for depth in depths:
        places = np.linspace(0, depth - 1, min(depths))
        layers.append(places.round().astype(int).tolist())
    return layers


def _products_of_embeddings(networks: Sequence[Circuits]) -> list[list[Tensor]]:
    """Return E_i' H E_j (d_i, d_j) of all networks i >= j, in float64."""
    widths = [network.network.width for network in networks]
    sums = [torch.zeros(width, dtype=torch.float64) for width in widths]
    products: list[list[Tensor]] = []
    for i, rows_of_block in enumerate(widths):
        blocks = []
        for columns_of_block in widths[:i + 1]:
            blocks.append(
                torch.zeros(rows_of_block, columns_of_block, dtype=torch.float64))
        products.append(blocks)
    for part in _parts(networks[0].count):
        rows = [network.read_rows(part) for network in networks]
        for i, left in enumerate(rows):
            sums[i] += left.sum(0, dtype=torch.float64)
            for j, right in enumerate(rows[:i + 1]):
                dtype = torch.promote_types(left.dtype, right.dtype)
                products[i][j] += left.to(dtype).T @ right.to(dtype)
    for i, network in enumerate(networks):
        network.token_gram = products[i][i].clone()  # is needed once more
        for j in range(i + 1):
            products[i][j] -= torch.outer(sums[i], sums[j]) / network.count
        # Of rows that are all the same, centring leaves rounding and no variance.
        rounding = _ROUNDING[network.network.dtype]
        if products[i][i].trace() <= rounding * network.token_gram.trace():
            products[i][i].zero_()
    return products


def _cka(maps: Sequence[Tensor], products: list[list[Tensor]]) -> Array:
    """Return the CKA of all pairs of features E M, from maps M (d, k)."""
    squares = np.zeros((len(maps), len(maps)))
    for i, left in enumerate(maps):
        for j, right in enumerate(maps[:i + 1]):
            dtype = torch.promote_types(left.dtype, right.dtype)
            product = products[i][j].to(dtype)
            if left.shape[1] <= right.shape[1]:
                between = (left.T.to(dtype) @ product) @ right.to(dtype)
            else:
                between = left.T.to(dtype) @ (product @ right.to(dtype))
            squares[i, j] = squares[j, i] = float(between.double().square().sum())
    norms = np.sqrt(squares.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):
        values = squares / np.outer(norms, norms)
    values[(norms == 0)[:, None] | (norms == 0)] = np.nan
    np.fill_diagonal(values, np.where(norms > 0, 1.0, np.nan))
    clipped: Array = np.clip(values, 0, 1)
    return clipped
