"""Tiny random transformers of every family, and what each of their weights is for.

The names here are written down a second time, apart from those of the package, so that
a mistake in one of the two tables fails a test.
"""

from functools import lru_cache
from typing import NamedTuple

import pytest
import torch

ROTATED = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2",
           "gemma3_text", "olmo2")
CENTRED = ("gpt2", "gpt_neox", "bert", "roberta", "distilbert", "vit")
TYPES = ROTATED + CENTRED
WITH_HEAD_NORMS = ("qwen3", "gemma3_text", "olmo2")
GEMMAS = ("gemma", "gemma2", "gemma3_text")
BIDIRECTIONAL = ("bert", "roberta", "distilbert", "vit")
NORMS_BEHIND_SUMS = ("bert", "roberta", "distilbert")

WIDTH, TOKENS = 16, 50

# What a weight does, by the end of its name; of two that fit, the first counts.
ROLES = {
    "embed_tokens": "embedding", "wte": "embedding", "embed_in": "embedding",
    "word_embeddings": "embedding", "patch_embeddings.projection": "embedding",
    "q_proj": "query", "self.query": "query", "q_lin": "query",
    "k_proj": "key", "self.key": "key", "k_lin": "key",
    "v_proj": "value", "self.value": "value", "v_lin": "value",
    "qkv_proj": "fused", "c_attn": "fused", "query_key_value": "fused",
    "o_proj": "out", "attn.c_proj": "out", "attention.dense": "out",
    "attention.output.dense": "out", "out_lin": "out",
    "gate_proj": "gate", "gate_up_proj": "gate and up",
    "up_proj": "up", "c_fc": "up", "dense_h_to_4h": "up", "intermediate.dense": "up",
    "lin1": "up", "fc1": "up",
    "down_proj": "down", "mlp.c_proj": "down", "dense_4h_to_h": "down",
    "output.dense": "down", "lin2": "down", "fc2": "down",
    "predictions.transform.dense": "transform", "lm_head.dense": "transform",
    "vocab_transform": "transform",
    "lm_head": "unembedding", "predictions.decoder": "unembedding",
    "lm_head.decoder": "unembedding", "vocab_projector": "unembedding",
    "classifier": "unembedding",
    "q_norm": "head norm", "k_norm": "head norm",
    "wpe": "position", "position_embeddings": "position",
    "token_type_embeddings": "position",
}
READ_THE_STREAM = ("query", "key", "value", "fused", "gate", "up", "gate and up",
                   "unembedding")
WRITE_TO_THE_STREAM = ("embedding", "out", "down")


class Norms(NamedTuple):
    """The names of a family's normalisations, with {} for the number of a layer."""

    before: tuple[str, str] = ("", "")
    after: tuple[str, str] = ("", "")
    final: str = ""
    first: str = ""
    transform: str = ""


_INPUT = "model.layers.{}.input_layernorm"
_ATTENTION = "model.layers.{}.post_attention_layernorm"
_BEFORE_MLP = "model.layers.{}.pre_feedforward_layernorm"
_AFTER_MLP = "model.layers.{}.post_feedforward_layernorm"
_LLAMA_NORMS = Norms((_INPUT, _ATTENTION), final="model.norm")
_GEMMA2_NORMS = Norms(
    (_INPUT, _BEFORE_MLP), (_ATTENTION, _AFTER_MLP), final="model.norm")
NORMS = {
    "llama": _LLAMA_NORMS, "mistral": _LLAMA_NORMS, "qwen2": _LLAMA_NORMS,
    "qwen3": _LLAMA_NORMS, "phi3": _LLAMA_NORMS, "gemma": _LLAMA_NORMS,
    "gemma2": _GEMMA2_NORMS, "gemma3_text": _GEMMA2_NORMS,
    "olmo2": Norms(after=(_ATTENTION, _AFTER_MLP), final="model.norm"),
    "gpt2": Norms(
        ("transformer.h.{}.ln_1", "transformer.h.{}.ln_2"), final="transformer.ln_f"),
    "gpt_neox": Norms(
        ("gpt_neox.layers.{}.input_layernorm",
         "gpt_neox.layers.{}.post_attention_layernorm"),
        final="gpt_neox.final_layer_norm"),
    "bert": Norms(
        ("bert.encoder.layer.{}.attention.output.LayerNorm",
         "bert.encoder.layer.{}.output.LayerNorm"),
        first="bert.embeddings.LayerNorm",
        transform="cls.predictions.transform.LayerNorm"),
    "roberta": Norms(
        ("roberta.encoder.layer.{}.attention.output.LayerNorm",
         "roberta.encoder.layer.{}.output.LayerNorm"),
        first="roberta.embeddings.LayerNorm", transform="lm_head.layer_norm"),
    "distilbert": Norms(
        ("distilbert.transformer.layer.{}.sa_layer_norm",
         "distilbert.transformer.layer.{}.output_layer_norm"),
        first="distilbert.embeddings.LayerNorm", transform="vocab_layer_norm"),
    "vit": Norms(
        ("vit.layers.{}.layernorm_before", "vit.layers.{}.layernorm_after"),
        final="vit.layernorm"),
}


def role_of(name):
    """Return what a weight does; "" for biases and the normalisations of the stream."""
    stem = name.removesuffix(".weight")
    for ending, role in ROLES.items():
        if stem == ending or stem.endswith(f".{ending}"):
            return role
    return ""


def is_gain(name):
    """Tell whether a weight is the gain of a normalisation of the stream."""
    return name.endswith(".weight") and not role_of(name)


# ------------------------------------------------------------ models of the library


def sizes_of(model_type):
    """Return what a tiny configuration of a family says about sizes."""
    if model_type == "gpt2":
        return {"vocab_size": TOKENS, "n_embd": WIDTH, "n_layer": 2, "n_head": 4,
                "n_positions": 32, "bos_token_id": None, "eos_token_id": None}
    if model_type == "distilbert":
        return {"vocab_size": TOKENS, "dim": WIDTH, "n_layers": 2, "n_heads": 4,
                "hidden_dim": 24}
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 24}
    if model_type == "vit":
        return sizes | {"image_size": 8, "patch_size": 4, "num_labels": 7}
    sizes["vocab_size"] = TOKENS
    if model_type in ROTATED:
        sizes |= {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": None,
                  "eos_token_id": None}
    if model_type in GEMMAS or model_type == "qwen3":
        sizes["head_dim"] = 8  # not the width over the number of heads
    if model_type == "gpt_neox":  # or else its MLPs read what attention reads
        sizes["use_parallel_residual"] = False
    if model_type in ("gemma2", "gemma3_text"):
        # Scores are divided by the root of this number, and not bent.
        sizes |= {"query_pre_attn_scalar": 8, "attn_logit_softcapping": None,
                  "final_logit_softcapping": None}
    return sizes


def build(model_type, seed=0, **changes):
    """Return a tiny model of the library transformers, all of it drawn at random."""
    transformers = pytest.importorskip("transformers")
    classes = {"bert": transformers.AutoModelForMaskedLM,
               "roberta": transformers.AutoModelForMaskedLM,
               "distilbert": transformers.AutoModelForMaskedLM,
               "vit": transformers.AutoModelForImageClassification}
    model_class = classes.get(model_type, transformers.AutoModelForCausalLM)
    sizes = sizes_of(model_type) | changes
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    model = model_class.from_config(config, attn_implementation="eager")
    model = model.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return model


@lru_cache
def _built(model_type, seed):
    model = build(model_type, seed)
    return model.state_dict(), model.config.to_dict()


def weights_of(model_type, seed=0):
    """Return the state dict and the configuration of a tiny model, as copies."""
    weights, config = _built(model_type, seed)
    copies = {name: values.clone() for name, values in weights.items()}
    return copies, dict(config)


# ------------------------------------------- weights without the library transformers


def draw(seed, shapes):
    """Return random weights in float64, by name."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        weights[name] = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return weights


def llama(seed=0, tokens=11, width=6, depth=2, heads=4, key_heads=2, size=3, units=5):
    """Return the weights and the configuration of a llama with groups of heads."""
    shapes = {"model.embed_tokens.weight": (tokens, width),
              "model.norm.weight": (width,), "lm_head.weight": (tokens, width)}
    for layer in range(depth):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.self_attn.q_proj.weight"] = (heads * size, width)
        shapes[f"{prefix}.self_attn.k_proj.weight"] = (key_heads * size, width)
        shapes[f"{prefix}.self_attn.v_proj.weight"] = (key_heads * size, width)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (width, heads * size)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (units, width)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (units, width)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (width, units)
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
    config = {"model_type": "llama", "num_attention_heads": heads,
              "num_key_value_heads": key_heads}
    return draw(seed, shapes), config


def gpt2(seed=0, tokens=11, width=6, depth=2, heads=3, units=5):
    """Return the weights and the configuration of a gpt2, its matrices (in, out)."""
    shapes = {"transformer.wte.weight": (tokens, width),
              "transformer.wpe.weight": (4, width),
              "transformer.ln_f.weight": (width,)}
    for layer in range(depth):
        prefix = f"transformer.h.{layer}"
        shapes[f"{prefix}.attn.c_attn.weight"] = (width, 3 * width)
        shapes[f"{prefix}.attn.c_proj.weight"] = (width, width)
        shapes[f"{prefix}.mlp.c_fc.weight"] = (width, units)
        shapes[f"{prefix}.mlp.c_proj.weight"] = (units, width)
        shapes[f"{prefix}.ln_1.weight"] = (width,)
        shapes[f"{prefix}.ln_2.weight"] = (width,)
    return draw(seed, shapes), {"model_type": "gpt2", "n_head": heads}


def gpt_neox(seed=0, tokens=11, width=6, depth=2, heads=3, units=5):
    """Return the weights and the configuration of a gpt_neox, fused head by head."""
    shapes = {"gpt_neox.embed_in.weight": (tokens, width),
              "gpt_neox.final_layer_norm.weight": (width,),
              "embed_out.weight": (tokens, width)}
    for layer in range(depth):
        prefix = f"gpt_neox.layers.{layer}"
        shapes[f"{prefix}.attention.query_key_value.weight"] = (3 * width, width)
        shapes[f"{prefix}.attention.dense.weight"] = (width, width)
        shapes[f"{prefix}.mlp.dense_h_to_4h.weight"] = (units, width)
        shapes[f"{prefix}.mlp.dense_4h_to_h.weight"] = (width, units)
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
    config = {"model_type": "gpt_neox", "num_attention_heads": heads}
    return draw(seed, shapes), config
