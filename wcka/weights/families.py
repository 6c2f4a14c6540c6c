"""Transformers in state dicts: which weight is what, by the names of each family.

A family is a way to name weights that many models have in common; ``config.json`` says
by its "model_type" which one a model follows, and how many heads it has. Weights are
read layer by layer, as matrices between row vectors: a stream ``x`` (d,) becomes the
query ``x @ query``. What a normalisation does to each coordinate is part of the
matrices: its gain multiplies the rows of what reads the stream (or the columns of what
writes to it), and the centring of LayerNorm is a projection. Its division by the length
of the stream is left out, as are biases and positions: a rotary one is the identity
between a position and itself.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .checkpoints import read_tensor, shape_of
from .messages import counted, listed


class Family(NamedTuple):
    """The names that a family gives to its weights, and how they are stored.

    Names of layers have ``{}`` in place of the layer's number. What a family does not
    have is "".

    Attributes
    ----------
    types : tuple of str
        The "model_type" of its configurations.
    embedding, unembedding : str
        The first and the last matrix; where the last is not stored, it is the first.
    query, key, value, out, up, down : str
        The matrices of a layer; ``up`` is stored behind the gate where
        ``gate_and_up``.
    fused : {"", "blocks", "heads"}
        Whether ``query`` holds keys and values, too: one after the other, or head by
        head.
    norms : tuple of str
        The normalisation before attention, and that before the MLP.
    norms_after : tuple of str
        Those of what attention and MLP write; ("", "") where there are none.
    final_norm : str
        In front of the unembedding.
    first_norm : str
        Of the embedding, where the normalisations of ``norms`` stand behind the sums
        (as in BERT): then each reads what the last one in front of it gives.
    head_norms : tuple of str
        Of queries and of keys.
    transform, transform_norm : str
        A further layer in front of the unembedding.
    ignored : str
        A pattern of names that hold nothing of the circuits.
    centred : bool
        LayerNorm, which centres; RMSNorm does not.
    gain_offset : float
        Added to stored gains.
    in_out : bool
        Whether matrices are stored (in, out), and not (out, in).

    Examples
    --------
    >>> FAMILIES["llama"].query
    'layers.{}.self_attn.q_proj.weight'
    """

    types: tuple[str, ...]
    embedding: str
    query: str
    key: str
    value: str
    out: str
    up: str
    down: str
    norms: tuple[str, str]
    final_norm: str
    unembedding: str = "lm_head.weight"
    fused: str = ""
    gate: str = ""
    gate_and_up: bool = False
    norms_after: tuple[str, str] = ("", "")
    first_norm: str = ""
    head_norms: tuple[str, str] = ("", "")
    transform: str = ""
    transform_norm: str = ""
    ignored: str = r"rotary_emb\.inv_freq$"
    centred: bool = False
    gain_offset: float = 0.0
    in_out: bool = False


# ------------------------------------------------------------------------ the families

_HEAD_NORMS = ("layers.{}.self_attn.q_norm.weight", "layers.{}.self_attn.k_norm.weight")
_INPUT_NORM = "layers.{}.input_layernorm.weight"
_ATTENTION_NORM = "layers.{}.post_attention_layernorm.weight"
_MLP_NORM = "layers.{}.post_feedforward_layernorm.weight"

_LLAMA = Family(
    ("llama", "mistral", "qwen2", "qwen3"), "embed_tokens.weight",
    query="layers.{}.self_attn.q_proj.weight",
    key="layers.{}.self_attn.k_proj.weight",
    value="layers.{}.self_attn.v_proj.weight",
    out="layers.{}.self_attn.o_proj.weight", gate="layers.{}.mlp.gate_proj.weight",
    up="layers.{}.mlp.up_proj.weight", down="layers.{}.mlp.down_proj.weight",
    norms=(_INPUT_NORM, _ATTENTION_NORM), final_norm="norm.weight",
    head_norms=_HEAD_NORMS)
_BERT = Family(
    ("bert",), "embeddings.word_embeddings.weight",
    query="encoder.layer.{}.attention.self.query.weight",
    key="encoder.layer.{}.attention.self.key.weight",
    value="encoder.layer.{}.attention.self.value.weight",
    out="encoder.layer.{}.attention.output.dense.weight",
    up="encoder.layer.{}.intermediate.dense.weight",
    down="encoder.layer.{}.output.dense.weight",
    norms=("encoder.layer.{}.attention.output.LayerNorm.weight",
           "encoder.layer.{}.output.LayerNorm.weight"),
    final_norm="", first_norm="embeddings.LayerNorm.weight",
    unembedding="cls.predictions.decoder.weight",
    transform="cls.predictions.transform.dense.weight",
    transform_norm="cls.predictions.transform.LayerNorm.weight",
    ignored=r"(position_embeddings|token_type_embeddings|pooler\.dense|"
            r"seq_relationship)\.weight$|position_ids$|^cls\.predictions\.bias$",
    centred=True)
_VIT = Family(
    ("vit",), "embeddings.patch_embeddings.projection.weight",
    query="encoder.layer.{}.attention.attention.query.weight",
    key="encoder.layer.{}.attention.attention.key.weight",
    value="encoder.layer.{}.attention.attention.value.weight",
    out="encoder.layer.{}.attention.output.dense.weight",
    up="encoder.layer.{}.intermediate.dense.weight",
    down="encoder.layer.{}.output.dense.weight",
    norms=("encoder.layer.{}.layernorm_before.weight",
           "encoder.layer.{}.layernorm_after.weight"),
    final_norm="layernorm.weight", unembedding="classifier.weight",
    ignored=r"embeddings\.(cls_token|position_embeddings|mask_token)$|"
            r"pooler\.dense\.weight$",
    centred=True)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "phi3": _LLAMA._replace(
        types=("phi3",), query="layers.{}.self_attn.qkv_proj.weight", key="", value="",
        fused="blocks", gate="", up="layers.{}.mlp.gate_up_proj.weight",
        gate_and_up=True, head_norms=("", "")),
    "gemma": _LLAMA._replace(types=("gemma",), gain_offset=1.0, head_norms=("", "")),
    "gemma2": _LLAMA._replace(
        types=("gemma2", "gemma3_text"), gain_offset=1.0,
        norms=(_INPUT_NORM, "layers.{}.pre_feedforward_layernorm.weight"),
        norms_after=(_ATTENTION_NORM, _MLP_NORM)),
    "olmo2": _LLAMA._replace(
        types=("olmo2",), norms=("", ""), norms_after=(_ATTENTION_NORM, _MLP_NORM)),
    "gpt2": Family(
        ("gpt2",), "wte.weight", query="h.{}.attn.c_attn.weight", key="", value="",
        out="h.{}.attn.c_proj.weight", up="h.{}.mlp.c_fc.weight",
        down="h.{}.mlp.c_proj.weight", norms=("h.{}.ln_1.weight", "h.{}.ln_2.weight"),
        final_norm="ln_f.weight", fused="blocks",
        ignored=r"(^|\.)wpe\.weight$|attn\.(masked_)?bias$", centred=True, in_out=True),
    "gpt_neox": Family(
        ("gpt_neox",), "embed_in.weight",
        query="layers.{}.attention.query_key_value.weight", key="", value="",
        out="layers.{}.attention.dense.weight",
        up="layers.{}.mlp.dense_h_to_4h.weight",
        down="layers.{}.mlp.dense_4h_to_h.weight",
        norms=(_INPUT_NORM, _ATTENTION_NORM), final_norm="final_layer_norm.weight",
        unembedding="embed_out.weight", fused="heads",
        ignored=r"attention\.(masked_)?bias$|rotary_emb\.inv_freq$", centred=True),
    "bert": _BERT,
    "roberta": _BERT._replace(
        types=("roberta", "xlm-roberta", "camembert"),
        unembedding="lm_head.decoder.weight", transform="lm_head.dense.weight",
        transform_norm="lm_head.layer_norm.weight"),
    "distilbert": _BERT._replace(
        types=("distilbert",),
        query="transformer.layer.{}.attention.q_lin.weight",
        key="transformer.layer.{}.attention.k_lin.weight",
        value="transformer.layer.{}.attention.v_lin.weight",
        out="transformer.layer.{}.attention.out_lin.weight",
        up="transformer.layer.{}.ffn.lin1.weight",
        down="transformer.layer.{}.ffn.lin2.weight",
        norms=("transformer.layer.{}.sa_layer_norm.weight",
               "transformer.layer.{}.output_layer_norm.weight"),
        unembedding="vocab_projector.weight", transform="vocab_transform.weight",
        transform_norm="vocab_layer_norm.weight"),
    "vit": _VIT,
}
# Families that do not predict the next token
ENCODERS = frozenset({"bert", "roberta", "distilbert", "vit"})
# Families whose rows are pixels of patches, and not tokens
OF_IMAGES = frozenset({"vit"})
# How names of layers begin that stand behind the stream, outside of its prefix
_HEADS = ("lm_head.", "cls.", "classifier.", "embed_out.", "vocab_", "score.",
          "qa_outputs.", "pre_classifier.", "v_head.")
# Heads of classifiers and of reward models, which are no unembedding
_OTHER_HEADS = re.compile(
    r"(classifier|pre_classifier|qa_outputs|score|v_head)(\.\w+)*\.weight")
# Names that later versions of transformers give to the same weights
_OTHER_NAMES: dict[str, dict[str, Any]] = {
    "gpt_neox": {"unembedding": "lm_head.weight"},
    "vit": {
        "query": "layers.{}.attention.q_proj.weight",
        "key": "layers.{}.attention.k_proj.weight",
        "value": "layers.{}.attention.v_proj.weight",
        "out": "layers.{}.attention.o_proj.weight",
        "up": "layers.{}.mlp.fc1.weight", "down": "layers.{}.mlp.fc2.weight",
        "norms": ("layers.{}.layernorm_before.weight",
                  "layers.{}.layernorm_after.weight")},
}


def family_of(config: Mapping[str, Any]) -> str:
    """Return the name of the family that a configuration belongs to.

    Parameters
    ----------
    config : mapping
        As in ``config.json``.

    Raises
    ------
    ValueError
        For a "model_type" of which no names are known.

    Examples
    --------
    >>> family_of({"model_type": "mistral"})
    'llama'
    """
    by_type = {}
    for name, family in FAMILIES.items():
        for model_type in family.types:
            by_type[model_type] = name
    model_type = str(config.get("model_type"))
    if model_type not in by_type:
        raise ValueError(
            f"unknown model_type {model_type!r} (known: {', '.join(by_type)})")
    return by_type[model_type]


def config_beside(path: str | Path) -> dict[str, Any] | None:
    """Return what ``config.json`` says in a folder, or beside a file.

    Returns
    -------
    dict or None
        None where there is none, or where it has no "model_type".

    Examples
    --------
    >>> config_beside("nowhere") is None
    True
    """
    try:
        return _read_config(path)
    except (OSError, ValueError):
        return None


def config_path(path: str | Path) -> Path:
    """Return where the configuration beside a file, or in a folder, would be.

    Examples
    --------
    >>> config_path("models/model.safetensors").as_posix()
    'models/config.json'
    """
    folder = Path(path) if os.path.isdir(path) else Path(path).parent
    return folder / "config.json"


def _read_config(path: str | Path) -> dict[str, Any]:
    """Read the configuration beside a file; a ValueError says what it lacks."""
    text = config_path(path).read_bytes()
    try:
        config = json.loads(text.decode("utf-8"))
    except ValueError:
        raise ValueError("the config.json beside it is no JSON") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise ValueError("the config.json beside it has no model_type")
    return config


def reason_against_config(path: str | Path) -> str:
    """Return why the configuration beside a file tells no family; "" if it does.

    Examples
    --------
    >>> reason_against_config("nowhere")
    'no config.json of a transformer is beside it'
    """
    try:
        config = _read_config(path)
    except FileNotFoundError:
        return "no config.json of a transformer is beside it"
    except OSError:
        return "the config.json beside it cannot be read"
    except ValueError as error:
        return str(error)
    try:
        family_of(config)
    except ValueError as error:
        return f"the config.json beside it has an {error}"
    return ""


# ------------------------------------------------------------------------- one network


class Block(NamedTuple):
    """The matrices of one layer, between row vectors.

    Attributes
    ----------
    query : Tensor
        (d, heads, size of a head).
    key, value : Tensor
        (d, key heads, size of a head), where each head of keys serves several queries.
    out : Tensor
        (heads, size of a head, d).
    up, down : Tensor
        (d, units) and (units, d).

    Examples
    --------
    >>> Block(*torch.ones(6, 2, 2, 2)).out.shape
    torch.Size([2, 2, 2])
    """

    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    up: Tensor
    down: Tensor


class NotFinite(ValueError):
    """A weight holds NaN or infinity; ``network`` is the transformer that it is of.

    Examples
    --------
    >>> NotFinite("llama: norm.weight holds NaN or infinity", None).network is None
    True
    """

    def __init__(self, reason: str, network: Any) -> None:
        super().__init__(reason)
        self.network = network


class Transformer:
    """The weights of a transformer, read layer by layer.

    Parameters
    ----------
    weights : mapping of str to Tensor or slice of a file
        Its state dict.
    config : mapping
        What its ``config.json`` says: "model_type" and the numbers of heads.

    Attributes
    ----------
    family : str
        One of ``FAMILIES``.
    depth, rows, width : int
        Number of layers, of tokens (of pixels of a patch, for images), and the width of
        the stream.
    has_head : bool
        Whether it has an unembedding, of its own or the embedding's.
    notes : list of str
        What was assumed to read it.

    Raises
    ------
    ValueError
        For a family that is not known, weights that it does not have, and those that
        are missing; for numbers of heads that do not fit.

    Examples
    --------
    >>> Transformer({}, {"model_type": "gpt2", "n_head": 2})
    Traceback (most recent call last):
    ValueError: gpt2: no wte.weight among the weights
    """

    def __init__(self, weights: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self.family = family_of(config)
        self._names = FAMILIES[self.family]
        weights = {_without_old_words(name): weights[name] for name in weights}
        outer = self._outer_prefix(weights)
        weights = {name.removeprefix(outer): weights[name] for name in weights}
        self._prefix = self._find_prefix(weights)
        self._use_other_names(weights)
        self._weights = weights
        self.depth = self._count_layers()
        self._other_heads = self._check_names()
        shape = self._shape(self._names.embedding)
        self.width = shape[0] if len(shape) > 2 else shape[-1]
        self.rows = shape[0]
        if len(shape) > 2:  # a convolution (d, channels, height, width)
            self.rows = shape[1] * shape[2] * shape[3]
        self.heads = self._number(
            config, "num_attention_heads", "n_head", "n_heads")
        self.key_heads = int(config.get("num_key_value_heads") or self.heads)
        self._check_heads()
        self._check_shapes()
        self.dtype = torch.float64
        if is_half(weights[self._full(self._names.embedding)]):
            self.dtype = torch.float32
        is_stored = self._full(self._names.unembedding) in weights
        self.has_head = is_stored or self._may_be_tied(config)
        self.is_tied = self.has_head and not is_stored
        self.notes = self._what_is_assumed()

    # ------------------------------------------------------------------------- names

    def _find_prefix(self, weights: Mapping[str, Any]) -> str:
        """Return what stands before the names of all layers."""
        embedding = self._names.embedding
        for name in weights:
            if name == embedding or name.endswith(f".{embedding}"):
                return name.removesuffix(embedding)
        raise ValueError(f"{self.family}: no {embedding} among the weights")

    def _outer_prefix(self, weights: Mapping[str, Any]) -> str:
        """Return what stands before names of layers and of heads alike, as "llm."."""
        parts = self._find_prefix(weights).split(".")
        for count in range(len(parts)):
            outer = "".join(f"{part}." for part in parts[:count])
            heads = tuple(outer + head for head in _HEADS)
            if any(name.startswith(heads) for name in weights):
                return outer
        return ""

    def _use_other_names(self, weights: Mapping[str, Any]) -> None:
        """Take the names of a later version where these are the ones in use."""
        others = _OTHER_NAMES.get(self.family, {})
        field = next(iter(others), "")
        if field and self._full(others[field].format(0)) in weights:
            self._names = self._names._replace(**others)

    def _full(self, name: str) -> str:
        """Return a weight's full name; heads of the whole model have no prefix."""
        if name.startswith(_HEADS):
            return name
        return self._prefix + name

    def _of_layers(self) -> list[str]:
        names = self._names
        of_layer = [names.query, names.key, names.value, names.out, names.gate,
                    names.up, names.down, *names.norms, *names.norms_after,
                    *names.head_norms]
        return [name for name in of_layer if name]

    def _count_layers(self) -> int:
        pattern = re.escape(self._full(self._names.query)).replace(r"\{\}", r"(\d+)")
        numbers = set()
        for name in self._weights:
            match = re.fullmatch(pattern, name)
            if match:
                numbers.add(int(match[1]))
        missing = set(range(max(numbers, default=0) + 1)) - numbers
        if missing:
            name = self._names.query.format(min(missing))
            raise ValueError(f"{self.family}: no {name} among the weights")
        return len(numbers)

    def _may_be_tied(self, config: Mapping[str, Any]) -> bool:
        """Tell whether the embedding may be the unembedding, too."""
        if self.family in OF_IMAGES or config.get("tie_word_embeddings") is False:
            return False
        # What stands in front of a tied unembedding is stored.
        transform = self._names.transform
        return not transform or self._full(transform) in self._weights

    def _check_names(self) -> list[str]:
        """Refuse weights that are missing, and those that the family does not have.

        Those of the heads of classifiers are returned.
        """
        names = self._names
        known = [names.embedding, names.unembedding, names.final_norm,
                 names.first_norm, names.transform, names.transform_norm]
        optional = {names.unembedding, names.transform, names.transform_norm,
                    *names.head_norms}
        wanted = [name for name in known if name]
        for layer in range(self.depth):
            wanted += [name.format(layer) for name in self._of_layers()]
            optional |= {name.format(layer) for name in names.head_norms}
        full = {self._full(name) for name in wanted}
        missing = [name for name in wanted
                   if name not in optional and self._full(name) not in self._weights]
        if missing:
            raise ValueError(
                f"{self.family}: no {listed(missing)} among the weights")
        unknown: list[str] = []
        other_heads: list[str] = []
        for name in self._weights:
            if name in full or name.endswith(".bias") or re.search(names.ignored, name):
                continue
            is_head = _OTHER_HEADS.fullmatch(name)
            (other_heads if is_head else unknown).append(name)
        if unknown:
            raise ValueError(
                f"{self.family}: it is not known what {listed(unknown)} "
                f"{'does' if len(unknown) == 1 else 'do'}")
        return other_heads

    # ----------------------------------------------------------------------- numbers

    def _number(self, config: Mapping[str, Any], *names: str) -> int:
        for name in names:
            if isinstance(config.get(name), int):
                return int(config[name])
        raise ValueError(f"{self.family}: the configuration has no {names[0]}")

    def _shape(self, name: str) -> tuple[int, ...]:
        return shape_of(self._weights[self._full(name)])

    def _check_heads(self) -> None:
        """Refuse numbers of heads that do not divide the matrices."""
        names = self._names
        axis = 1 if names.in_out else 0
        size = self._shape(names.query.format(0))[axis]
        parts = self.heads
        if names.fused:
            parts = self.heads + 2 * self.key_heads
        if self.heads < 1 or self.key_heads < 1 or size % parts or (
                self.heads % self.key_heads):
            raise ValueError(
                f"{self.family}: {names.query.format(0)} has {size} outputs, which "
                f"{self.heads} heads and {self.key_heads} of keys do not divide")
        self.head_size = size // parts

    def _check_shapes(self) -> None:
        """Refuse matrices of a layer that do not fit one another, or the stream."""
        names = self._names
        width = self.width
        queries = self.heads * self.head_size
        keys = self.key_heads * self.head_size
        for layer in range(self.depth):
            down = names.down.format(layer)
            units = self._ends(down)[0]
            behind_gate = 2 * units if names.gate_and_up else units
            wanted = {
                names.query: (width, queries + 2 * keys if names.fused else queries),
                names.key: (width, keys), names.value: (width, keys),
                names.out: (queries, width), names.gate: (width, units),
                names.up: (width, behind_gate), names.down: (units, width)}
            for name, ends in wanted.items():
                if name and self._ends(name.format(layer)) != ends:
                    got = self._ends(name.format(layer))
                    raise ValueError(
                        f"{self.family}: {name.format(layer)} leads from {got[0]} to "
                        f"{got[1]}; wanted from {ends[0]} to {ends[1]}, by a stream of "
                        f"width {width}, {self.heads} heads and {self.key_heads} of "
                        f"keys")

    def _ends(self, name: str) -> tuple[int, int]:
        """Return how many numbers go into a matrix, and come out of it."""
        shape = self._shape(name)
        if len(shape) != 2:
            raise ValueError(f"{self.family}: {name} of shape {shape} is no matrix")
        return shape if self._names.in_out else (shape[1], shape[0])

    def _what_is_assumed(self) -> list[str]:
        notes = [f"read as {self.family}: {counted(self.depth, 'layer')} of width "
                 f"{self.width}, {counted(self.heads, 'head')}"
                 + (f" that share {self.key_heads} of keys and values"
                    if self.key_heads < self.heads else "")]
        if self.is_tied:
            notes.append("no unembedding is stored: the embedding takes its place")
        if not self.has_head:
            notes.append("it has no unembedding: circuits that end there (direct, OV "
                         "and MLP) are left out")
        if self._other_heads:
            verb = "takes" if len(self._other_heads) == 1 else "take"
            notes.append(f"{listed(self._other_heads)} {verb} no part")
        notes.append("left out: biases, positions, and the length that norms divide by")
        return notes

    # ----------------------------------------------------------------------- matrices

    def read_rows(self, part: slice) -> Tensor:
        """Read some rows of the embedding (rows, d)."""
        values = self._weights[self._full(self._names.embedding)]
        if len(shape_of(values)) > 2:
            whole = read_tensor(values).flatten(1).T  # (pixels, d)
            return self._finite(whole[part], self._names.embedding)
        return self._finite(values[part], self._names.embedding)

    def read_unembedding_rows(self, part: slice) -> Tensor:
        """Read some columns of the unembedding, as rows (outputs, d)."""
        if self.is_tied:
            return self.read_rows(part)
        name = self._names.unembedding
        return self._finite(self._weights[self._full(name)][part], name)

    def _finite(self, values: Tensor, name: str) -> Tensor:
        """Return numbers in the precision to compute in; refuse what is not finite."""
        if not torch.isfinite(values).all():
            raise NotFinite(f"{self.family}: {name} holds NaN or infinity", self)
        return values.to(self.dtype)

    @property
    def outputs(self) -> int:
        """Number of columns of the unembedding; 0 where there is none."""
        if not self.has_head:
            return 0
        if self.is_tied:
            return self.rows
        return self._shape(self._names.unembedding)[0]

    def _matrix(self, name: str) -> Tensor:
        """Read a matrix as (in, out)."""
        values = self._finite(read_tensor(self._weights[self._full(name)]), name)
        return values if self._names.in_out else values.T

    def _gain(self, name: str) -> Tensor | None:
        """Read a normalisation's gain; None where there is none."""
        if not name or self._full(name) not in self._weights:
            return None
        values = self._finite(read_tensor(self._weights[self._full(name)]), name)
        return values + self._names.gain_offset

    def _normed(self, matrix: Tensor, name: str) -> Tensor:
        """Return what reads the stream, with the normalisation in front of it."""
        gain = self._gain(name)
        if gain is None:
            return matrix
        scaled = gain[:, None] * matrix
        return scaled - scaled.mean(0) if self._names.centred else scaled

    def _norms_in_front(self, layer: int) -> tuple[str, str]:
        """Return the normalisations that attention and MLP read through."""
        before_attention, before_mlp = self._names.norms
        if not self._names.first_norm:
            return before_attention.format(layer), before_mlp.format(layer)
        # These stand behind the sums: of each the next reader is the next part.
        last = self._names.first_norm
        if layer:
            last = before_mlp.format(layer - 1)
        return last, before_attention.format(layer)

    def _written(self, matrix: Tensor, name: str) -> Tensor:
        """Return what writes to the stream, with the gain behind it."""
        gain = self._gain(name)
        return matrix if gain is None else matrix * gain

    def read_layer(self, layer: int) -> Block:
        """Read the matrices of one layer, from 0."""
        names = self._names
        norm_of_attention, norm_of_mlp = self._norms_in_front(layer)
        query, key, value = self._attention(layer)
        after_attention, after_mlp = (name.format(layer) for name in names.norms_after)
        out = self._written(self._matrix(names.out.format(layer)), after_attention)
        up = self._matrix(names.up.format(layer))
        if names.gate_and_up:
            up = up[:, up.shape[1] // 2:]
        down = self._written(self._matrix(names.down.format(layer)), after_mlp)
        return Block(
            self._in_heads(self._normed(query, norm_of_attention)),
            self._in_heads(self._normed(key, norm_of_attention)),
            self._in_heads(self._normed(value, norm_of_attention)),
            out.reshape(self.heads, self.head_size, self.width),
            self._normed(up, norm_of_mlp),
            down)

    def _in_heads(self, matrix: Tensor) -> Tensor:
        return matrix.reshape(self.width, -1, self.head_size)

    def _attention(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Read queries, keys and values, (d, heads x size of a head) each."""
        names = self._names
        query = self._matrix(names.query.format(layer))
        if names.fused == "heads":
            by_head = query.reshape(self.width, self.heads, 3, self.head_size)
            query, key, value = (part.flatten(1) for part in by_head.unbind(2))
        elif names.fused:
            size = self.key_heads * self.head_size
            sizes = [query.shape[1] - 2 * size, size, size]
            query, key, value = torch.split(query, sizes, dim=1)
        else:
            key = self._matrix(names.key.format(layer))
            value = self._matrix(names.value.format(layer))
        gains = [self._gain(name.format(layer)) for name in names.head_norms]
        scaled = []
        for matrix, gain in zip((query, key), gains):
            if gain is not None:  # of one head, or of all
                matrix = matrix * gain.repeat(matrix.shape[1] // len(gain))
            scaled.append(matrix)
        return scaled[0], scaled[1], value

    def read_out_map(self) -> Tensor:
        """Return what stands between the stream and the unembedding: (d, d)."""
        names = self._names
        last_norm = names.final_norm
        if names.first_norm:
            last_norm = names.norms[1].format(self.depth - 1)
        identity = torch.eye(self.width, dtype=self.dtype)
        if not names.transform or self._full(names.transform) not in self._weights:
            return self._normed(identity, last_norm)
        transform = self._matrix(names.transform)
        behind = self._normed(identity, names.transform_norm)
        return self._normed(transform @ behind, last_norm)


def _without_old_words(name: str) -> str:
    """Return a name in today's words; files of the first BERT say gamma and beta."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"),
                     ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def is_half(values: Any) -> bool:
    """Tell whether a tensor, or a slice of a file, holds numbers of 16 bits or fewer.

    Examples
    --------
    >>> is_half(torch.ones(2)), is_half(torch.ones(2, dtype=torch.bfloat16))
    (False, True)
    """
    if isinstance(values, Tensor):
        return values.element_size() <= 2
    return str(values.get_dtype()) in ("BF16", "F16", "F8_E4M3", "F8_E5M2")


def transformer(network: Any, config: Mapping[str, Any] | None = None) -> Transformer:
    """Return a network's weights as those of a transformer.

    Parameters
    ----------
    network : nn.Module or mapping of str to Tensor
        A model of the library transformers, or a state dict.
    config : mapping, optional
        As in ``Transformer``; that of the model, by default.

    Raises
    ------
    TypeError
        For something else, and for a state dict without a configuration.
    ValueError
        As ``Transformer``.

    Examples
    --------
    >>> transformer(nn.Linear(2, 2))
    Traceback (most recent call last):
    TypeError: wanted a model with a config, or a state dict and its config
    """
    weights = network
    if isinstance(network, nn.Module):
        weights = network.state_dict()
        of_model: Any = getattr(network, "config", None)
        if config is None and of_model is not None:
            config = of_model.to_dict()
    if config is None or not isinstance(weights, Mapping):
        raise TypeError("wanted a model with a config, or a state dict and its config")
    return Transformer(weights, config)
