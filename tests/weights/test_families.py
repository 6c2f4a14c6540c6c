"""Transformers in state dicts: each family against the library's own forward pass."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close
from transformer_models import (
    BIDIRECTIONAL,
    GEMMAS,
    NORMS,
    NORMS_BEHIND_SUMS,
    ROTATED,
    TYPES,
    WIDTH,
    WITH_HEAD_NORMS,
    build,
    gpt2,
    gpt_neox,
    llama,
    role_of,
    weights_of,
)

from wcka.weights import formats
from wcka.weights.families import (
    FAMILIES,
    Transformer,
    config_beside,
    family_of,
    transformer,
)

# ------------------------------------------------------ models that are nearly linear


class Fixed(nn.Module):
    """A gate's activation that is the same for all inputs."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, inputs):
        return self.values.expand_as(inputs)


@pytest.fixture
def in_double_precision(monkeypatch):
    """Have the library compute in float64 what it computes in float32 on purpose.

    Norms and the softmax of attention ask for ``torch.float32`` or for ``float()``
    whatever the type of the model is, and would differ in the seventh digit.
    """
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def gate_values():
    """Return a factor for each of the 24 units of a gated MLP."""
    return torch.linspace(-1, 2, 24, dtype=torch.float64)


def make_linear(model, monkeypatch):
    """Leave out what circuits leave out: biases, positions and activations."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or role_of(name) == "position":
            nn.init.zeros_(parameter)
    activation = nn.Identity()
    if model.config.model_type in ROTATED:  # the gated ones
        activation = Fixed(gate_values())
    for name in dict(model.named_modules()):
        last = name.rpartition(".")[2]
        if last in ("act", "act_fn", "activation", "activation_fn",
                    "intermediate_act_fn", "transform_act_fn"):
            model.set_submodule(name, activation)
    if model.config.model_type == "roberta":  # calls the function in its last layer
        from transformers.models.roberta import modeling_roberta
        monkeypatch.setattr(modeling_roberta, "gelu", activation)
    return model


def silence(model, role):
    """Have attention ("out") or the MLP ("down") write nothing."""
    for name, parameter in model.named_parameters():
        if role_of(name) == role:
            nn.init.zeros_(parameter)


def run_on_patches(model, pixels):
    """Run a model on patches with one pixel that is on each, under no positions.

    The first pixel's patch takes the place of the token that stands for the class.
    """
    embeddings = model.vit.embeddings
    nn.init.zeros_(embeddings.position_embeddings)
    by_pixel = embeddings.patch_embeddings.projection.weight.detach().flatten(1)
    patches = torch.zeros(4, 48, dtype=torch.float64)
    patches[range(4), pixels[1:]] = 1
    # Two by two patches, each (channels, height, width), become one image.
    image = patches.reshape(2, 2, 3, 4, 4).permute(2, 0, 3, 1, 4).reshape(1, 3, 8, 8)
    with torch.no_grad():
        embeddings.cls_token.copy_(by_pixel[:, pixels[0]])
        return model(pixel_values=image, output_attentions=True)


def run_library(model, tokens):
    """Return logits (tokens, outputs) and attention weights (heads, tokens, tokens).

    Of images there are logits of the first token only.
    """
    if model.config.model_type == "vit":
        outputs = run_on_patches(model, tokens)
        return outputs.logits, [weights[0] for weights in outputs.attentions]
    # The mask says that positions that are equal do not begin new texts.
    inputs = {"input_ids": torch.tensor([tokens]),
              "attention_mask": torch.ones(1, len(tokens), dtype=torch.long)}
    if model.config.model_type != "distilbert":  # which has no such argument
        # What rotates queries and keys cancels between equal positions.
        inputs["position_ids"] = torch.full((1, len(tokens)), 5)
    with torch.no_grad():
        outputs = model(**inputs, output_attentions=True)
    return outputs.logits[0], [weights[0] for weights in outputs.attentions]


# --------------------------------------------------------------- a forward pass by hand


def length(norm, stream):
    """Return what a normalisation divides by, (..., 1)."""
    if isinstance(norm, nn.LayerNorm):
        stream = stream - stream.mean(-1, keepdim=True)
        epsilon = norm.eps
    elif hasattr(norm, "variance_epsilon"):
        epsilon = norm.variance_epsilon
    else:
        epsilon = norm.eps
    return (stream.square().mean(-1, keepdim=True) + epsilon).sqrt()


def gain_of(norm):
    """Return what a normalisation multiplies with, (d,)."""
    if type(norm).__name__.startswith("Gemma"):
        return norm.weight.detach() + 1
    return norm.weight.detach()


class ByHand:
    """A forward pass with matrices that were read, and with lengths by hand.

    Parameters
    ----------
    model : nn.Module
        Of which only normalisations are used: for lengths, and, where they stand
        behind the sums, for what they make of the stream itself.
    """

    def __init__(self, model):
        self.model = model
        self.type = model.config.model_type
        self.norms = NORMS[self.type]
        self.network = transformer(model)
        self.attention_weights = []

    def norm(self, name, layer=0):
        return self.model.get_submodule(name.format(layer))

    def logits(self, tokens, with_attention=True, with_mlp=True):
        """Return the logits of some tokens, (tokens, outputs)."""
        network = self.network
        stream = network.read_rows(slice(0, network.rows))[tokens]  # (tokens, d)
        if self.type in GEMMAS:
            stream = stream * WIDTH**0.5
        last_norm = self.norms.first and self.norm(self.norms.first)
        for layer in range(network.depth):
            matrices = network.read_layer(layer)
            for part in range(2):
                stream, reading, norm_behind = self.read(
                    stream, part, layer, last_norm)
                written = torch.zeros_like(stream)
                if part == 0 and with_attention:
                    written = self.attention(matrices, reading, layer)
                if part == 1 and with_mlp:
                    written = self.mlp(matrices, reading)
                stream = stream + self.shortened(written, part, layer)
                last_norm = norm_behind
        return self.unembed(stream, last_norm)

    def read(self, stream, part, layer, last_norm):
        """Return the stream that is added to, what is read, and the norm behind."""
        name = self.norms.before[part]
        if self.type in NORMS_BEHIND_SUMS:
            with torch.no_grad():
                normed = last_norm(stream)
            return normed, stream / length(last_norm, stream), self.norm(name, layer)
        if not name:
            return stream, stream, ""
        return stream, stream / length(self.norm(name, layer), stream), ""

    def shortened(self, written, part, layer):
        """Divide what a part writes by its length, where a normalisation does."""
        if not self.norms.after[part]:
            return written
        norm = self.norm(self.norms.after[part], layer)
        return written / length(norm, written / gain_of(norm))

    def attention(self, matrices, reading, layer):
        """Return what attention writes, (tokens, d); keep its weights."""
        query = torch.einsum("td,dhs->ths", reading, matrices.query)
        key = torch.einsum("td,dhs->ths", reading, matrices.key)
        value = torch.einsum("td,dhs->ths", reading, matrices.value)
        if self.type in WITH_HEAD_NORMS:
            prefix = f"model.layers.{layer}.self_attn"
            query = self.of_heads(query, self.norm(f"{prefix}.q_norm"))
            key = self.of_heads(key, self.norm(f"{prefix}.k_norm"))
        group = query.shape[1] // key.shape[1]
        key = key.repeat_interleave(group, 1)  # (tokens, heads, size)
        value = value.repeat_interleave(group, 1)
        scores = torch.einsum("ths,uhs->htu", query, key) / query.shape[2]**0.5
        if self.type not in BIDIRECTIONAL:
            later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        weights = scores.softmax(-1)
        self.attention_weights.append(weights)
        attended = torch.einsum("htu,uhs->ths", weights, value)
        return torch.einsum("ths,hsd->td", attended, matrices.out)

    def of_heads(self, values, norm):
        """Divide queries or keys by the length of each head's, or that of all."""
        gain = gain_of(norm)
        if len(gain) == values.shape[2]:
            return values / length(norm, values / gain)
        together = values.flatten(1)  # (tokens, heads x size)
        together = together / length(norm, together / gain)
        return together.reshape(values.shape)

    def mlp(self, matrices, reading):
        """Return what the MLP writes, (tokens, d)."""
        units = reading @ matrices.up
        if self.type in ROTATED:
            units = units * gate_values()
        return units @ matrices.down

    def unembed(self, stream, last_norm):
        """Return the logits of the last stream."""
        network = self.network
        if not last_norm:
            last_norm = self.norm(self.norms.final)
        outputs = stream / length(last_norm, stream) @ network.read_out_map()
        if self.norms.transform:
            transform, = [parameter for name, parameter in self.model.named_parameters()
                          if role_of(name) == "transform" and name.endswith("weight")]
            with torch.no_grad():
                transformed = last_norm(stream) @ transform.T
            outputs = outputs / length(self.norm(self.norms.transform), transformed)
        unembedding = network.read_unembedding_rows(slice(0, network.outputs))
        return outputs @ unembedding.T


def assert_equal_logits(actual, expected):
    # Of images only the token that stands for the class has logits
    assert_close(actual, expected[:len(actual)], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("model_type", TYPES)
def test_values_and_outputs_are_those_of_the_library(
        model_type, in_double_precision, monkeypatch):
    model = make_linear(build(model_type), monkeypatch)
    silence(model, "down")
    # Of a single token the attention is 1; five patches that are equal need no more.
    tokens = [7] * 5 if model_type == "vit" else [7]
    logits, _ = run_library(model, tokens)
    expected = ByHand(model).logits(tokens, with_mlp=False)
    assert logits.std() > 0.01
    assert_equal_logits(logits, expected)
    silence(model, "out")
    logits_without_attention, _ = run_library(model, tokens)
    assert (logits - logits_without_attention).abs().max() > 0.01


@pytest.mark.parametrize("model_type", TYPES)
def test_mlps_are_those_of_the_library(
        model_type, in_double_precision, monkeypatch):
    model = make_linear(build(model_type), monkeypatch)
    silence(model, "out")
    tokens = [7, 3, 3, 11, 30]
    logits, _ = run_library(model, tokens)
    expected = ByHand(model).logits(tokens, with_attention=False)
    assert_equal_logits(logits, expected)
    silence(model, "down")
    logits_without_mlp, _ = run_library(model, tokens)
    assert (logits - logits_without_mlp).abs().max() > 0.01


@pytest.mark.parametrize("model_type", TYPES)
def test_queries_and_keys_are_those_of_the_library(
        model_type, in_double_precision, monkeypatch):
    model = make_linear(build(model_type), monkeypatch)
    tokens = [7, 3, 3, 11, 30]
    logits, attention_weights = run_library(model, tokens)
    by_hand = ByHand(model)
    expected = by_hand.logits(tokens)
    assert len(attention_weights) == 2
    for actual, right in zip(attention_weights, by_hand.attention_weights):
        assert actual.shape == (4, 5, 5)
        assert actual[:, -1].std() > 0.01
        assert_close(actual, right, rtol=1e-10, atol=1e-10)
    # With all parts at work, layers read what earlier layers wrote.
    assert_equal_logits(logits, expected)


# --------------------------------------------------------------------- names and files


def assert_same_reading(network, other):
    assert (network.rows, network.outputs, network.depth) == (
        other.rows, other.outputs, other.depth)
    everything = slice(0, None)
    assert_close(network.read_rows(everything), other.read_rows(everything))
    assert_close(network.read_unembedding_rows(everything),
                 other.read_unembedding_rows(everything))
    assert_close(network.read_out_map(), other.read_out_map())
    for layer in range(network.depth):
        for matrix, right in zip(network.read_layer(layer), other.read_layer(layer)):
            assert_close(matrix, right, rtol=0, atol=0)


@pytest.mark.parametrize("model_type", TYPES)
def test_files_of_the_library_are_read_as_the_model_is(model_type, tmp_path):
    # The library stores some weights under older names, and shared ones once.
    model = build(model_type)
    model.save_pretrained(tmp_path)
    weights = formats.opened(tmp_path).content
    assert not isinstance(next(iter(weights.values())), torch.Tensor)
    config = config_beside(tmp_path)
    assert config == config_beside(tmp_path / "model.safetensors")
    assert_same_reading(transformer(weights, config), transformer(model))


OLD_NAMES = {
    "vit": {"vit.layers.": "vit.encoder.layer.",
            "attention.q_proj": "attention.attention.query",
            "attention.k_proj": "attention.attention.key",
            "attention.v_proj": "attention.attention.value",
            "attention.o_proj": "attention.output.dense",
            "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"},
    "gpt_neox": {"lm_head.": "embed_out."}}


@pytest.mark.parametrize("model_type", OLD_NAMES)
def test_older_names_are_read_as_those_of_today(model_type):
    weights, config = weights_of(model_type)
    renamed = {}
    for name, values in weights.items():
        for today, once in OLD_NAMES[model_type].items():
            name = name.replace(today, once)
        renamed[name] = values
    assert renamed.keys() != weights.keys()
    assert_same_reading(Transformer(renamed, config), Transformer(weights, config))


def test_every_type_belongs_to_one_family():
    types = [model_type for family in FAMILIES.values() for model_type in family.types]
    assert len(types) == len(set(types))
    for name, family in FAMILIES.items():
        for model_type in family.types:
            assert family_of({"model_type": model_type}) == name


def test_a_base_model_and_a_whole_model_hold_the_same_layers():
    weights, config = gpt2()
    base = {name.removeprefix("transformer."): w for name, w in weights.items()}
    assert_same_reading(Transformer(base, config), Transformer(weights, config))


def test_a_shared_unembedding_need_not_be_stored():
    weights, config = gpt2()
    network = Transformer(weights, config)
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    assert network.is_tied
    assert "no unembedding is stored: the embedding takes its place" in network.notes
    assert_same_reading(network, Transformer(weights, config))


def test_buffers_and_biases_hold_nothing_of_the_circuits():
    for weights, config in (gpt2(), gpt_neox()):
        plain = Transformer(weights, config)
        query, = [name for name in weights if "0.attention.query" in name
                  or "0.attn.c_attn" in name]
        attention = query.rpartition(".")[0].rpartition(".")[0]
        more = {f"{attention}.bias": torch.ones(1, 1, 4, 4),
                f"{attention}.masked_bias": torch.tensor(-1e9),
                query.replace("weight", "bias"): torch.ones(18)}
        assert_same_reading(Transformer(weights | more, config), plain)
    weights, config = llama()
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    assert_same_reading(
        Transformer(weights | more, config), Transformer(weights, config))


def test_notes_say_what_was_read_and_what_was_left_out():
    notes = Transformer(*llama()).notes
    assert notes == [
        "read as llama: 2 layers of width 6, 4 heads that share 2 of keys and values",
        "left out: biases, positions, and the length that norms divide by"]
    assert Transformer(*gpt_neox()).notes[0] == (
        "read as gpt_neox: 2 layers of width 6, 3 heads")


@pytest.mark.parametrize("of_family", [llama, gpt2, gpt_neox])
def test_slices_of_a_file_are_read_as_tensors_are(of_family, tmp_path):
    weights, config = of_family()
    save_file(weights, tmp_path / "model.safetensors")
    slices = formats.opened(tmp_path / "model.safetensors").content
    network = Transformer(slices, config)
    assert_same_reading(network, Transformer(weights, config))
    rows = network.read_rows(slice(3, 5))
    assert_close(rows, Transformer(weights, config).read_rows(slice(3, 5)))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits_are_computed_with_in_float32(kind, tmp_path):
    weights, config = llama()
    halved = {name: values.to(kind) for name, values in weights.items()}
    save_file(halved, tmp_path / "model.safetensors")
    slices = formats.opened(tmp_path / "model.safetensors").content
    for stored in (halved, slices):
        network = Transformer(stored, config)
        assert network.read_rows(slice(0, 3)).dtype == torch.float32
        for matrix in network.read_layer(0):
            assert matrix.dtype == torch.float32
    assert Transformer(weights, config).read_layer(0).up.dtype == torch.float64


def test_reading_changes_no_tensor_of_the_caller():
    for model_type in ("gemma2", "phi3", "vit", "bert"):
        weights, config = weights_of(model_type)
        before = {name: values.clone() for name, values in weights.items()}
        network = Transformer(weights, config)
        network.read_layer(0)
        network.read_out_map()
        assert weights.keys() == before.keys()
        for name, values in weights.items():
            assert torch.equal(values, before[name])


# ---------------------------------------------------------------------------- refusals


def test_a_type_that_is_not_known_is_refused():
    weights, config = llama()
    with pytest.raises(ValueError, match=r"^unknown model_type 'lama' "
                                         r"\(known: llama, "):
        Transformer(weights, config | {"model_type": "lama"})
    with pytest.raises(ValueError, match="unknown model_type 'None'"):
        Transformer(weights, {})


def without(weights, name):
    return {other: values for other, values in weights.items() if other != name}


# All but the unembedding, which the embedding may replace, and all but queries, which
# say how many layers there are.
@pytest.mark.parametrize("name", [
    "embed_tokens", "norm", "layers.0.self_attn.k_proj", "layers.1.self_attn.v_proj",
    "layers.0.self_attn.o_proj", "layers.0.mlp.gate_proj", "layers.1.mlp.up_proj",
    "layers.0.mlp.down_proj", "layers.1.input_layernorm",
    "layers.0.post_attention_layernorm"])
def test_weights_that_are_missing_are_refused(name):
    weights, config = llama()
    with pytest.raises(ValueError) as refusal:
        Transformer(without(weights, f"model.{name}.weight"), config)
    assert str(refusal.value) == f"llama: no {name}.weight among the weights"


def test_layers_without_queries_are_refused():
    weights, config = llama()
    last = without(weights, "model.layers.1.self_attn.q_proj.weight")
    with pytest.raises(ValueError, match=r"it is not known what model\.layers\.1\."):
        Transformer(last, config)
    only = without(last, "model.layers.0.self_attn.q_proj.weight")
    with pytest.raises(ValueError, match=r"no layers\.0\.self_attn\.q_proj\.weight "):
        Transformer(only, config)


def test_the_layer_that_is_missing_is_named():
    weights, config = llama(depth=3)
    rest = {name: values for name, values in weights.items() if "layers.1." not in name}
    with pytest.raises(ValueError, match=r"no layers\.1\.self_attn\.q_proj"):
        Transformer(rest, config)


@pytest.mark.parametrize("extra", [
    "model.layers.0.mlp.experts.0.up_proj.weight",
    "model.layers.0.self_attn.q_proj.lora_A.weight",
    "model.layers.2.mlp.up_proj.weight", "model.score.weight"])
def test_weights_that_are_not_understood_are_refused(extra):
    weights, config = llama()
    weights[extra] = torch.ones(2, 2)
    with pytest.raises(ValueError) as refusal:
        Transformer(weights, config)
    assert str(refusal.value) == f"llama: it is not known what {extra} does"
    weights["another.weight"] = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"what .*, another\.weight do$"):
        Transformer(weights, config)


@pytest.mark.parametrize("heads, key_heads", [(5, 5), (4, 3), (0, 2), (24, 2)])
def test_heads_that_do_not_divide_are_refused(heads, key_heads):
    weights, config = llama()
    config |= {"num_attention_heads": heads, "num_key_value_heads": key_heads}
    with pytest.raises(ValueError) as refusal:
        Transformer(weights, config)
    assert str(refusal.value) == (
        f"llama: layers.0.self_attn.q_proj.weight has 12 outputs, which {heads} heads "
        f"and {key_heads} of keys do not divide")


def test_heads_that_do_not_divide_fused_matrices_are_refused():
    weights, config = gpt_neox()
    with pytest.raises(ValueError, match="18 outputs, which 4 heads and 4 of keys"):
        Transformer(weights, config | {"num_attention_heads": 4})


@pytest.mark.parametrize("heads, key_heads", [(4, 1), (4, 4), (2, 2), (3, 3)])
def test_heads_that_the_keys_do_not_have_are_refused(heads, key_heads):
    # Of 12 outputs of queries and 6 of keys, which are 4 heads and 2
    weights, config = llama(heads=4, key_heads=2, size=3)
    config |= {"num_attention_heads": heads, "num_key_value_heads": key_heads}
    with pytest.raises(ValueError, match=r"do not divide|leads from"):
        Transformer(weights, config)


def test_a_configuration_without_heads_is_refused():
    weights, _ = llama()
    with pytest.raises(
            ValueError, match="llama: the configuration has no num_attention_heads"):
        Transformer(weights, {"model_type": "llama"})


def test_a_state_dict_without_its_configuration_is_refused():
    message = "^wanted a model with a config, or a state dict and its config$"
    with pytest.raises(TypeError, match=message):
        transformer(llama()[0])
    with pytest.raises(TypeError, match=message):
        transformer([torch.ones(2)], {"model_type": "llama"})


def test_a_configuration_is_found_beside_a_file(tmp_path):
    file = tmp_path / "config.json"
    assert config_beside(tmp_path) is None
    for text in ("{", "[]", '{"n_head": 2}', "\xff"):
        file.write_text(text, "latin-1")
        assert config_beside(tmp_path) is None
    config = {"model_type": "gpt2", "n_head": 2}
    file.write_text(json.dumps(config), "utf-8")
    assert config_beside(tmp_path) == config
    assert config_beside(tmp_path / "weights.safetensors") == config


@pytest.mark.parametrize("name", ["out", "down"])
def test_matrices_that_do_not_fit_the_stream_are_refused(name):
    weights, config = llama()
    of_file = {"out": "model.layers.0.self_attn.o_proj.weight",
               "down": "model.layers.1.mlp.down_proj.weight"}[name]
    weights[of_file] = weights[of_file][:-1]
    with pytest.raises(ValueError, match=r"layers\.\d.* leads from \d+ to \d+; wanted"):
        Transformer(weights, config)


@pytest.mark.parametrize("name", [
    "model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight",
    "model.layers.0.input_layernorm.weight", "lm_head.weight"])
def test_weights_that_are_not_finite_are_refused_when_they_are_read(name):
    weights, config = llama()
    weights[name] = weights[name].clone()
    weights[name].view(-1)[1] = float("nan")
    network = Transformer(weights, config)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        network.read_rows(slice(0, network.rows))
        network.read_unembedding_rows(slice(0, network.outputs))
        for layer in range(network.depth):
            network.read_layer(layer)


def test_files_of_the_first_bert_are_read():
    """They call the gain of a normalisation gamma, and its shift beta."""
    model = build("bert")
    today = model.state_dict()
    first = {}
    for name, values in today.items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        first[old.replace("LayerNorm.bias", "LayerNorm.beta")] = values
    assert first.keys() != today.keys()
    config = model.config.to_dict()
    layer, same = (Transformer(state, config).read_layer(1) for state in (today, first))
    for one, other in zip(layer, same):
        assert torch.equal(one, other)


@pytest.mark.parametrize("head", [
    "classifier.weight", "score.weight", "qa_outputs.weight", "pre_classifier.weight",
    "classifier.out_proj.weight"])
def test_heads_of_classifiers_take_no_part_and_are_named(head):
    weights, config = llama()
    weights[head] = torch.ones(2, 2)
    assert f"{head} takes no part" in Transformer(weights, config).notes


def test_what_is_no_unembedding_is_not_taken_for_one():
    weights, config = weights_of("vit")
    del weights["classifier.weight"]
    assert not Transformer(weights, config).has_head
    weights, config = llama()
    del weights["lm_head.weight"]
    assert Transformer(weights, config).has_head
    assert not Transformer(weights, {**config, "tie_word_embeddings": False}).has_head
