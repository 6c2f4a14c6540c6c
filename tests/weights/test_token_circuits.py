"""Circuits of transformers: what they are, what leaves them alone, what does not."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from safetensors.torch import save_file
from torch.testing import assert_close
from transformer_models import (
    CENTRED,
    GEMMAS,
    READ_THE_STREAM,
    ROTATED,
    TOKENS,
    TYPES,
    WIDTH,
    WITH_HEAD_NORMS,
    WRITE_TO_THE_STREAM,
    build,
    gpt2,
    gpt_neox,
    is_gain,
    llama,
    role_of,
    weights_of,
)

import wcka
from wcka.weights import formats
from wcka.weights.token_circuits import (
    CIRCUITS,
    circuits,
    compare_circuits,
    corresponding_layers,
)

# --------------------------------------------------------- circuits by their definition


def centring(width):
    """Return the matrix that subtracts the mean of a row vector, (d, d)."""
    return np.eye(width) - np.ones((width, width)) / width


def numpy_weights(weights):
    return {name: values.double().numpy() for name, values in weights.items()}


def llama_by_definition(weights, config):
    """Return embedding, map to the outputs and matrices by head, layer by layer."""
    weights = numpy_weights(weights)
    embedding = weights["model.embed_tokens.weight"]
    outputs = np.diag(weights["model.norm.weight"]) @ weights["lm_head.weight"].T
    heads = config["num_attention_heads"]
    group = heads // config["num_key_value_heads"]
    layers = []
    while f"model.layers.{len(layers)}.mlp.up_proj.weight" in weights:
        prefix = f"model.layers.{len(layers)}"
        attention = f"{prefix}.self_attn"
        gain = np.diag(weights[f"{prefix}.input_layernorm.weight"])
        size = len(weights[f"{attention}.q_proj.weight"]) // heads
        matrices = []
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            of_group = slice(head // group * size, (head // group + 1) * size)
            query = gain @ weights[f"{attention}.q_proj.weight"][rows].T
            key = gain @ weights[f"{attention}.k_proj.weight"][of_group].T
            value = gain @ weights[f"{attention}.v_proj.weight"][of_group].T
            out = weights[f"{attention}.o_proj.weight"][:, rows].T
            matrices.append((query, key, value, out))
        gain = np.diag(weights[f"{prefix}.post_attention_layernorm.weight"])
        up = gain @ weights[f"{prefix}.mlp.up_proj.weight"].T
        down = weights[f"{prefix}.mlp.down_proj.weight"].T
        layers.append((matrices, up, down))
    return embedding, outputs, layers


def gpt2_by_definition(weights, config):
    """Return the same of a gpt2: matrices are (in, out), those of heads in blocks."""
    weights = numpy_weights(weights)
    embedding = weights["transformer.wte.weight"]
    width = embedding.shape[1]
    centre = centring(width)
    outputs = centre @ np.diag(weights["transformer.ln_f.weight"]) @ embedding.T
    size = width // config["n_head"]
    layers = []
    while f"transformer.h.{len(layers)}.mlp.c_fc.weight" in weights:
        prefix = f"transformer.h.{len(layers)}"
        gain = centre @ np.diag(weights[f"{prefix}.ln_1.weight"])
        fused = gain @ weights[f"{prefix}.attn.c_attn.weight"]
        matrices = []
        for head in range(config["n_head"]):
            start = head * size
            query = fused[:, start:start + size]
            key = fused[:, width + start:width + start + size]
            value = fused[:, 2 * width + start:2 * width + start + size]
            out = weights[f"{prefix}.attn.c_proj.weight"][start:start + size]
            matrices.append((query, key, value, out))
        gain = centre @ np.diag(weights[f"{prefix}.ln_2.weight"])
        up = gain @ weights[f"{prefix}.mlp.c_fc.weight"]
        down = weights[f"{prefix}.mlp.c_proj.weight"]
        layers.append((matrices, up, down))
    return embedding, outputs, layers


def gpt_neox_by_definition(weights, config):
    """Return the same of a gpt_neox: query, key and value of a head are neighbours."""
    weights = numpy_weights(weights)
    embedding = weights["gpt_neox.embed_in.weight"]
    width = embedding.shape[1]
    centre = centring(width)
    gain = centre @ np.diag(weights["gpt_neox.final_layer_norm.weight"])
    outputs = gain @ weights["embed_out.weight"].T
    heads = config["num_attention_heads"]
    size = width // heads
    layers = []
    while f"gpt_neox.layers.{len(layers)}.attention.dense.weight" in weights:
        prefix = f"gpt_neox.layers.{len(layers)}"
        gain = centre @ np.diag(weights[f"{prefix}.input_layernorm.weight"])
        fused = weights[f"{prefix}.attention.query_key_value.weight"]
        dense = weights[f"{prefix}.attention.dense.weight"]
        matrices = []
        for head in range(heads):
            start = 3 * head * size
            query = gain @ fused[start:start + size].T
            key = gain @ fused[start + size:start + 2 * size].T
            value = gain @ fused[start + 2 * size:start + 3 * size].T
            out = dense[:, head * size:(head + 1) * size].T
            matrices.append((query, key, value, out))
        gain = centre @ np.diag(weights[f"{prefix}.post_attention_layernorm.weight"])
        up = gain @ weights[f"{prefix}.mlp.dense_h_to_4h.weight"].T
        down = weights[f"{prefix}.mlp.dense_4h_to_h.weight"].T
        layers.append((matrices, up, down))
    return embedding, outputs, layers


def explicit_circuits(embedding, outputs, layers):
    """Return the whole matrices (tokens, columns) of all layers, by circuit."""
    tables = {"direct": [embedding @ outputs], "ov": [], "qk": [], "mlp": []}
    for matrices, up, down in layers:
        ov = np.zeros((len(embedding), outputs.shape[1]))
        side_by_side = []
        for query, key, value, out in matrices:
            ov += embedding @ value @ out @ outputs
            side_by_side.append(embedding @ query @ (embedding @ key).T)
        tables["ov"].append(ov)
        tables["qk"].append(np.concatenate(side_by_side, axis=1))
        tables["mlp"].append(embedding @ up @ down @ outputs)
    return tables


def linear_cka(x, y):
    """Return the linear CKA of two matrices (rows, columns), as a ratio of norms."""
    x = x - x.mean(0)
    y = y - y.mean(0)
    between = np.linalg.norm(x.T @ y) ** 2
    return between / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)


BY_DEFINITION = {
    "llama": (llama, llama_by_definition),
    "gpt2": (gpt2, gpt2_by_definition),
    "gpt_neox": (gpt_neox, gpt_neox_by_definition)}


@pytest.mark.parametrize("family", BY_DEFINITION)
def test_values_are_those_of_the_whole_matrices(family):
    of_family, by_definition = BY_DEFINITION[family]
    networks, tables = [], []
    for seed in (0, 1):
        weights, config = of_family(seed)
        networks.append(circuits(weights, config))
        tables.append(explicit_circuits(*by_definition(weights, config)))
    similarities = compare_circuits(networks)
    assert tuple(similarities) == CIRCUITS
    for circuit in CIRCUITS:
        left, right = tables[0][circuit], tables[1][circuit]
        assert similarities[circuit].shape == (len(left), 2, 2)
        for layer in range(len(left)):
            value = similarities[circuit][layer, 0, 1]
            expected = linear_cka(left[layer], right[layer])
            assert value == pytest.approx(expected, abs=1e-10)
            assert 0.01 < value < 0.95


def test_values_between_families_are_those_of_the_whole_matrices():
    networks, tables = [], []
    for of_family, by_definition in BY_DEFINITION.values():
        weights, config = of_family()
        networks.append(circuits(weights, config))
        tables.append(explicit_circuits(*by_definition(weights, config)))
    similarities = compare_circuits(networks)
    for circuit in CIRCUITS:
        for i, left in enumerate(tables):
            for j, right in enumerate(tables):
                value = similarities[circuit][-1, i, j]
                expected = linear_cka(left[circuit][-1], right[circuit][-1])
                assert value == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("family", BY_DEFINITION)
def test_features_have_the_inner_products_of_the_whole_matrices(family):
    of_family, by_definition = BY_DEFINITION[family]
    weights, config = of_family()
    tables = explicit_circuits(*by_definition(weights, config))
    network = circuits(weights, config)
    for circuit in CIRCUITS:
        for layer, matrix in enumerate(tables[circuit]):
            features = network.features(circuit, layer).numpy()
            gram = matrix @ matrix.T
            scale = np.abs(gram).max()
            assert_allclose(
                features @ features.T / scale, gram / scale, rtol=0, atol=1e-12)


def test_values_are_the_cka_of_features():
    for model_type in ("gemma2", "phi3", "bert", "vit"):
        networks = [circuits(*weights_of(model_type, seed)) for seed in (0, 1)]
        similarities = compare_circuits(networks)
        for circuit in CIRCUITS:
            for layer in range(len(similarities[circuit])):
                features = [network.features(circuit, layer) for network in networks]
                value = similarities[circuit][layer, 0, 1]
                assert value == pytest.approx(wcka.cka(*features), abs=1e-10)


def test_a_model_is_compared_as_its_state_dict_is():
    networks = [circuits(build("llama")), circuits(*weights_of("llama"))]
    for table in compare_circuits(networks).values():
        assert_allclose(table, 1, rtol=0, atol=1e-12)


# -------------------------------------------------------------- changes of whole models


def as_matrix(name, values, model_type):
    """Return a weight between row vectors, (in, out); an embedding is (tokens, d)."""
    if role_of(name) == "embedding":
        return values.flatten(1).T if values.ndim == 4 else values
    if model_type == "gpt2" and role_of(name) != "unembedding":
        return values
    return values.T


def as_stored(name, matrix, model_type, shape):
    """Return a matrix as its family stores it."""
    if role_of(name) == "embedding":
        return matrix.T.reshape(shape) if len(shape) == 4 else matrix
    if model_type == "gpt2" and role_of(name) != "unembedding":
        return matrix
    return matrix.T


def changed(weights, model_type, by_role):
    """Return a copy of weights, those of some roles changed as matrices (in, out).

    Parameters
    ----------
    by_role : dict of str to callable
        From roles to functions of a matrix.
    """
    copy = dict(weights)
    for name, values in weights.items():
        change = by_role.get(role_of(name))
        if change is not None and name.endswith("weight"):
            matrix = change(as_matrix(name, values, model_type))
            copy[name] = as_stored(name, matrix, model_type, values.shape).contiguous()
    return copy


def with_gains(weights, model_type, change):
    """Return a copy of weights with changed gains, as a norm multiplies with them."""
    offset = 1.0 if model_type in GEMMAS else 0.0
    copy = dict(weights)
    for name, values in weights.items():
        if is_gain(name):
            copy[name] = change(values + offset) - offset
    return copy


def with_unit_gains(weights, model_type):
    return with_gains(weights, model_type, torch.ones_like)


def with_another_basis(weights, model_type, basis):
    """Return a copy of weights whose stream x is x @ basis; gains are as they were."""
    by_role = {role: lambda matrix: basis.T @ matrix for role in READ_THE_STREAM}
    by_role |= {role: lambda matrix: matrix @ basis for role in WRITE_TO_THE_STREAM}
    # What BERT has in front of its unembedding reads one stream and writes another.
    by_role["transform"] = lambda matrix: basis.T @ matrix @ basis
    return changed(weights, model_type, by_role)


def draw(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def orthogonal(size):
    return torch.linalg.qr(draw(size, size))[0]


@lru_cache
def fixed_network():
    """Return a network of another family for all tests to compare with."""
    return circuits(*gpt2(seed=5, tokens=TOKENS, width=12, heads=3, units=20))


@lru_cache
def fixed_network_of_images():
    """The same for networks whose tokens are 48 pixels."""
    return circuits(*gpt2(seed=5, tokens=48, width=12, heads=3, units=20))


def values_with_a_fixed_network(weights, config):
    """Return the values between some weights and a network that is never changed."""
    fixed = fixed_network()
    if config["model_type"] == "vit":
        fixed = fixed_network_of_images()
    similarities = compare_circuits([circuits(weights, config), fixed])
    return {circuit: table[:, 0, 1] for circuit, table in similarities.items()}


def assert_same_values(weights, others, config):
    """Assert that two state dicts have the same circuits."""
    differing = [name for name in weights if not torch.equal(
        weights[name], others[name])]
    assert differing  # or else nothing was tested
    values = values_with_a_fixed_network(weights, config)
    other_values = values_with_a_fixed_network(others, config)
    for circuit in CIRCUITS:
        assert_allclose(other_values[circuit], values[circuit], rtol=0, atol=1e-10)
    for table in values_of_change(weights, others, config).values():
        assert_allclose(table, 1, rtol=0, atol=1e-10)


def values_of_change(weights, others, config):
    """Return the values between weights and changed ones, layer by layer."""
    similarities = compare_circuits(
        [circuits(weights, config), circuits(others, config)])
    return {circuit: table[:, 0, 1] for circuit, table in similarities.items()}


# -------------------------------------------------------------- the basis of the stream


@pytest.mark.parametrize("model_type", ROTATED)
def test_gains_are_part_of_the_matrices(model_type):
    weights, config = weights_of(model_type)
    folded = with_unit_gains(weights, model_type)
    offset = 1.0 if model_type in GEMMAS else 0.0

    def gain(name):
        return weights[f"model.{name}.weight"] + offset

    def fold(name, gains):
        """Multiply what reads: gains of the columns of (out, in)."""
        folded[name] = folded[name] * gains

    fold("lm_head.weight", gain("norm"))
    for layer in range(2):
        prefix = f"layers.{layer}"
        before_mlp = f"{prefix}.post_attention_layernorm"
        if model_type in ("gemma2", "gemma3_text", "olmo2"):
            before_mlp = f"{prefix}.pre_feedforward_layernorm"
            for name, norm in (("self_attn.o_proj", "post_attention_layernorm"),
                               ("mlp.down_proj", "post_feedforward_layernorm")):
                written = folded[f"model.{prefix}.{name}.weight"]
                gains = gain(f"{prefix}.{norm}")
                folded[f"model.{prefix}.{name}.weight"] = gains[:, None] * written
        if model_type == "olmo2":  # which has no norms in front
            continue
        for name in weights:
            if not name.startswith(f"model.{prefix}."):
                continue
            if role_of(name) in ("query", "key", "value", "fused"):
                fold(name, gain(f"{prefix}.input_layernorm"))
            if role_of(name) in ("gate", "up", "gate and up"):
                fold(name, gain(before_mlp))
    assert_same_values(weights, folded, config)


@pytest.mark.parametrize("model_type", ROTATED)
def test_a_stream_behind_rms_norms_may_be_rotated(model_type):
    weights, config = weights_of(model_type)
    weights = with_unit_gains(weights, model_type)
    rotated = with_another_basis(weights, model_type, orthogonal(WIDTH))
    assert_same_values(weights, rotated, config)


@pytest.mark.parametrize("model_type", CENTRED)
def test_a_stream_behind_layer_norms_may_be_rotated_around_its_mean(model_type):
    weights, config = weights_of(model_type)
    weights = with_unit_gains(weights, model_type)
    # The first direction is the mean's, and stays.
    directions = torch.cat([torch.ones(WIDTH, 1), draw(WIDTH, WIDTH - 1)], dim=1)
    directions = torch.linalg.qr(directions)[0]
    rotation = torch.eye(WIDTH, dtype=torch.float64)
    rotation[1:, 1:] = orthogonal(WIDTH - 1)
    basis = directions @ rotation @ directions.T
    ones = torch.ones(WIDTH, dtype=torch.float64)
    assert_close(ones @ basis, ones)
    rotated = with_another_basis(weights, model_type, basis)
    assert_same_values(weights, rotated, config)


@pytest.mark.parametrize("model_type", CENTRED)
def test_a_rotation_that_moves_the_mean_is_noticed_by_layer_norms(model_type):
    weights, config = weights_of(model_type)
    weights = with_unit_gains(weights, model_type)
    rotated = with_another_basis(weights, model_type, orthogonal(WIDTH))
    values = values_of_change(weights, rotated, config)
    for circuit in CIRCUITS:
        assert values[circuit].max() < 1 - 1e-6


@pytest.mark.parametrize("model_type", TYPES)
def test_coordinates_of_the_stream_may_be_permuted_with_their_gains(model_type):
    weights, config = weights_of(model_type)
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
    basis = torch.eye(WIDTH, dtype=torch.float64)[:, order]
    permuted = with_another_basis(weights, model_type, basis)
    permuted = with_gains(permuted, model_type, lambda gains: gains[order])
    assert_same_values(weights, permuted, config)


@pytest.mark.parametrize("model_type", TYPES)
def test_signs_of_the_stream_may_be_flipped(model_type):
    weights, config = weights_of(model_type)
    signs = -torch.ones(WIDTH, dtype=torch.float64)
    if model_type in ROTATED:  # others have a mean, which all signs together keep
        signs[::3] = 1
    flipped = with_another_basis(weights, model_type, torch.diag(signs))
    assert_same_values(weights, flipped, config)


@pytest.mark.parametrize("model_type", CENTRED)
def test_a_constant_may_be_added_to_all_coordinates_of_a_centred_stream(model_type):
    weights, config = weights_of(model_type)

    def shift(matrix):
        return matrix + draw(len(matrix), 1)

    shifted = changed(
        weights, model_type, dict.fromkeys(WRITE_TO_THE_STREAM, shift))
    assert_same_values(weights, shifted, config)


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2", "bert", "vit"])
def test_another_basis_of_the_embedding_alone_is_noticed(model_type):
    weights, config = weights_of(model_type)
    basis = orthogonal(WIDTH)
    rotated = changed(
        weights, model_type, {"embedding": lambda matrix: matrix @ basis})
    values = values_of_change(weights, rotated, config)
    for circuit in CIRCUITS:
        assert values[circuit].max() < 0.9


# ---------------------------------------------------------------------- heads and units


def key_heads_of(config):
    return config.get("num_key_value_heads") or 4


def heads_of(weights, config, layer):
    """Return query, key, value (d, heads, size) and out (heads, size, d) of a layer."""
    model_type = config["model_type"]
    key_heads = key_heads_of(config)
    by_role = {}
    for name, values in weights.items():
        if f".{layer}." in name and values.ndim == 2:
            by_role[role_of(name)] = as_matrix(name, values, model_type)
    if "fused" in by_role and model_type == "gpt_neox":
        fused = by_role["fused"].reshape(WIDTH, 4, 3, -1)
        query, key, value = fused.unbind(2)
    elif "fused" in by_role:
        fused = by_role["fused"].reshape(WIDTH, 4 + 2 * key_heads, -1)
        query, key, value = fused.split([4, key_heads, key_heads], 1)
    else:
        query = by_role["query"].reshape(WIDTH, 4, -1)
        key = by_role["key"].reshape(WIDTH, key_heads, -1)
        value = by_role["value"].reshape(WIDTH, key_heads, -1)
    return query, key, value, by_role["out"].reshape(4, -1, WIDTH)


def with_heads(weights, config, layer, query, key, value, out):
    """Return a copy of weights with other matrices of heads."""
    model_type = config["model_type"]
    fused = torch.cat([query, key, value], dim=1).flatten(1)
    if model_type == "gpt_neox":
        fused = torch.stack([query, key, value], dim=2).flatten(1)
    by_role = {"query": query.flatten(1), "key": key.flatten(1),
               "value": value.flatten(1), "fused": fused, "out": out.flatten(0, 1)}
    copy = dict(weights)
    for name, values in weights.items():
        matrix = by_role.get(role_of(name))
        if f".{layer}." in name and name.endswith("weight") and matrix is not None:
            copy[name] = as_stored(name, matrix, model_type, values.shape).contiguous()
    return copy


@pytest.mark.parametrize("model_type", TYPES)
def test_heads_may_be_reordered(model_type):
    weights, config = weights_of(model_type)
    query, key, value, out = heads_of(weights, config, 1)
    if key.shape[1] == 4:
        order = key_order = torch.tensor([2, 0, 3, 1])
    else:  # groups, and heads within them
        order, key_order = torch.tensor([3, 2, 0, 1]), torch.tensor([1, 0])
    others = with_heads(
        weights, config, 1, query[:, order], key[:, key_order], value[:, key_order],
        out[order])
    if model_type == "olmo2":  # whose heads have a gain each
        for name, of_heads in (("q_norm", order), ("k_norm", key_order)):
            name = f"model.layers.1.self_attn.{name}.weight"
            others[name] = weights[name].reshape(len(of_heads), -1)[of_heads].flatten()
    assert_same_values(weights, others, config)


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gemma", "qwen3"])
def test_heads_that_leave_their_group_are_noticed(model_type):
    weights, config = weights_of(model_type)
    query, key, value, out = heads_of(weights, config, 0)
    order = torch.tensor([0, 2, 1, 3])
    others = with_heads(weights, config, 0, query[:, order], key, value, out[order])
    values = values_of_change(weights, others, config)
    assert values["ov"][0] < 0.99
    assert values["qk"][0] < 0.99
    assert values["ov"][1] == pytest.approx(1)
    assert values["qk"][1] == pytest.approx(1)


@pytest.mark.parametrize("model_type", TYPES)
def test_values_and_outputs_of_a_head_may_have_another_basis(model_type):
    weights, config = weights_of(model_type)
    query, key, value, out = heads_of(weights, config, 0)
    heads, size = value.shape[1:]
    basis = draw(heads, size, size)
    inverse = torch.linalg.inv(basis).repeat_interleave(4 // heads, 0)
    value = torch.einsum("dhs,hst->dht", value, basis)
    others = with_heads(weights, config, 0, query, key, value, inverse @ out)
    assert_same_values(weights, others, config)


@pytest.mark.parametrize(
    "model_type", [name for name in TYPES if name not in WITH_HEAD_NORMS])
def test_queries_and_keys_of_a_head_may_have_another_basis(model_type):
    # A rotary position would notice, except between a position and itself, which is
    # what the circuit is of. Norms of heads have gains in a basis that is theirs.
    weights, config = weights_of(model_type)
    query, key, value, out = heads_of(weights, config, 0)
    heads, size = key.shape[1:]
    basis = draw(heads, size, size)
    for_keys = torch.linalg.inv(basis).mT
    for_queries = basis.repeat_interleave(4 // heads, 0)
    query = torch.einsum("dhs,hst->dht", query, for_queries)
    key = torch.einsum("dhs,hst->dht", key, for_keys)
    others = with_heads(weights, config, 0, query, key, value, out)
    assert_same_values(weights, others, config)


@pytest.mark.parametrize("model_type", WITH_HEAD_NORMS)
def test_gains_of_queries_and_keys_are_part_of_the_matrices(model_type):
    weights, config = weights_of(model_type)
    offset = 1.0 if model_type in GEMMAS else 0.0
    others = dict(weights)
    for letter in "qk":
        prefix = f"model.layers.0.self_attn.{letter}"
        matrix = weights[f"{prefix}_proj.weight"]
        gains = weights[f"{prefix}_norm.weight"] + offset
        gains = gains.repeat(len(matrix) // len(gains))
        others[f"{prefix}_proj.weight"] = gains[:, None] * matrix
        others[f"{prefix}_norm.weight"] = torch.ones_like(
            weights[f"{prefix}_norm.weight"]) - offset
    assert_same_values(weights, others, config)


@pytest.mark.parametrize("model_type", TYPES)
def test_units_of_an_mlp_may_be_permuted_and_rescaled(model_type):
    weights, config = weights_of(model_type)
    units = 64 if model_type == "gpt2" else 24
    order = torch.randperm(units, generator=torch.Generator().manual_seed(2))
    scale = draw(units).exp()

    def gate_and_up(matrix):
        gate, up = matrix.split(units, 1)
        return torch.cat([gate[:, order], up[:, order] * scale], dim=1)

    others = changed(weights, model_type, {
        "gate": lambda matrix: matrix[:, order],
        "up": lambda matrix: matrix[:, order] * scale,
        "gate and up": gate_and_up,
        "down": lambda matrix: matrix[order] / scale[:, None]})
    assert_same_values(weights, others, config)


@pytest.mark.parametrize("model_type", TYPES)
def test_units_that_only_one_matrix_permutes_are_noticed_by_the_mlp_alone(model_type):
    weights, config = weights_of(model_type)
    others = changed(weights, model_type, {"down": lambda matrix: matrix.flip(0)})
    values = values_of_change(weights, others, config)
    assert values["mlp"].max() < 0.9
    for circuit in ("direct", "ov", "qk"):
        assert_allclose(values[circuit], 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model_type", TYPES)
def test_the_scale_of_one_head_is_noticed_by_ov_alone(model_type):
    weights, config = weights_of(model_type)
    query, key, value, out = heads_of(weights, config, 0)
    scale = torch.tensor([5.0, 1, 1, 1])[:, None, None]
    others = with_heads(weights, config, 0, query, key, value, out * scale)
    values = values_of_change(weights, others, config)
    assert values["ov"][0] < 0.98
    assert values["ov"][1] == pytest.approx(1)
    for circuit in ("direct", "qk", "mlp"):
        assert_allclose(values[circuit], 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model_type", TYPES)
def test_gates_biases_and_positions_are_not_part_of_circuits(model_type):
    weights, config = weights_of(model_type)
    others = {}
    for name, values in weights.items():
        others[name] = values
        if name.endswith("bias") or role_of(name) in ("gate", "position"):
            others[name] = draw(*values.shape)
        if role_of(name) == "gate and up":  # the gate is the first half
            others[name] = torch.cat([draw(24, WIDTH), values[24:]])
    assert_same_values(weights, others, config)


# --------------------------------------------------------------------------- the tokens


def test_tokens_in_another_order_are_noticed_by_all_circuits():
    for model_type in ("llama", "gpt2", "bert"):
        weights, config = weights_of(model_type)
        order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
        network = circuits(weights, config)
        other = circuits(weights, config, tokens=order.tolist())
        for table in compare_circuits([network, other]).values():
            assert table[:, 0, 1].max() < 0.6


def test_tokens_pick_and_order_rows():
    weights, config = llama()
    whole = circuits(weights, config)
    tokens = [7, 2, 2, 10]
    part = circuits(weights, config, tokens=tokens)
    assert (whole.count, part.count) == (11, 4)
    for circuit in ("direct", "ov", "mlp"):  # whose columns are all outputs
        features = whole.features(circuit, 1)
        assert_close(part.features(circuit, 1), features[tokens])


def test_values_of_some_tokens_are_those_of_their_rows_and_all_outputs():
    """And of the queries' tokens against the same tokens as keys."""
    networks, tables = [], []
    tokens = [[7, 2, 5, 10, 0], [1, 4, 3, 9, 8]]
    for seed in (0, 1):
        weights, config = gpt_neox(seed)
        networks.append(circuits(weights, config, tokens=tokens[seed]))
        embedding, *rest = gpt_neox_by_definition(weights, config)
        tables.append(explicit_circuits(embedding[tokens[seed]], *rest))
    similarities = compare_circuits(networks)
    for circuit in CIRCUITS:
        for layer, (left, right) in enumerate(
                zip(tables[0][circuit], tables[1][circuit])):
            expected = linear_cka(left, right)
            value = similarities[circuit][layer, 0, 1]
            assert value == pytest.approx(expected, abs=1e-10)


def test_vocabularies_of_other_sizes_are_compared_by_tokens_that_both_have():
    first = circuits(*llama(tokens=11), tokens=range(5))
    second = circuits(*gpt2(tokens=9), tokens=range(2, 7))
    for table in compare_circuits([first, second]).values():
        assert np.isfinite(table).all()


def test_more_tokens_than_are_read_at_once_give_the_same(monkeypatch):
    networks = [circuits(*llama(seed)) for seed in (0, 1)]
    at_once = compare_circuits(networks)
    monkeypatch.setattr("wcka.weights.token_circuits._ROWS", 3)
    networks = [circuits(*llama(seed)) for seed in (0, 1)]
    in_pieces = compare_circuits(networks)
    for circuit in CIRCUITS:
        assert_allclose(in_pieces[circuit], at_once[circuit], rtol=0, atol=1e-12)


def test_other_numbers_of_tokens_are_refused():
    networks = [circuits(*llama(tokens=count)) for count in (11, 12, 11)]
    with pytest.raises(ValueError) as refusal:
        compare_circuits(networks)
    assert str(refusal.value) == (
        "wanted as many tokens in all networks, got [11, 12, 11]")


def test_no_networks_are_refused():
    with pytest.raises(ValueError, match="wanted at least one network"):
        compare_circuits([])


def test_a_state_dict_without_its_configuration_is_refused():
    with pytest.raises(TypeError, match="wanted a model with a config"):
        circuits(llama()[0])


# -------------------------------------------------------------- values and their limits


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_similarity_is_symmetric_between_zero_and_one(data):
    tokens = data.draw(st.integers(3, 9))
    networks, depths = [], []
    for seed in range(3):
        depth = data.draw(st.integers(1, 3))
        group = data.draw(st.integers(1, 3))
        key_heads = data.draw(st.integers(1, 2))
        weights, config = llama(
            seed, tokens, width=data.draw(st.integers(1, 9)), depth=depth,
            heads=group * key_heads, key_heads=key_heads,
            size=data.draw(st.integers(1, 4)), units=data.draw(st.integers(1, 6)))
        networks.append(circuits(weights, config))
        depths.append(depth)
    similarities = compare_circuits(networks)
    for circuit, table in similarities.items():
        layers = 1 if circuit == "direct" else min(depths)
        assert table.shape == (layers, 3, 3)
        assert (table >= 0).all() and (table <= 1).all()
        assert_allclose(table, table.swapaxes(1, 2), rtol=0, atol=0)
        assert_allclose(table.diagonal(axis1=1, axis2=2), 1, rtol=0, atol=0)


def test_networks_of_other_depths_and_widths_are_compared():
    shallow = circuits(*llama(0, width=6, depth=1))
    deep = circuits(*llama(1, width=8, depth=3, heads=6, key_heads=3, size=2))
    shapes = {circuit: table.shape
              for circuit, table in compare_circuits([shallow, deep]).items()}
    assert shapes == dict.fromkeys(CIRCUITS, (1, 2, 2))


@pytest.mark.parametrize(("depths", "layers"), [
    ([1, 4], [[0], [0]]),
    ([2, 6], [[0, 1], [0, 5]]),
    ([4, 4], [[0, 1, 2, 3], [0, 1, 2, 3]]),
    ([12, 6], [[0, 2, 4, 7, 9, 11], [0, 1, 2, 3, 4, 5]])])
def test_the_first_layers_correspond_and_the_last_ones(depths, layers):
    assert corresponding_layers(depths) == layers


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_corresponding_layers_are_layers_in_order(depths):
    for depth, layers in zip(depths, corresponding_layers(depths)):
        assert len(layers) == min(depths)
        assert layers == sorted(set(layers))
        assert layers[0] >= 0 and layers[-1] < depth


def test_values_do_not_depend_on_who_else_is_compared():
    networks = [circuits(*llama(seed)) for seed in range(3)]
    together = compare_circuits(networks)
    alone = compare_circuits([networks[2], networks[0]])
    for circuit in CIRCUITS:
        assert_allclose(
            alone[circuit][:, 0, 1], together[circuit][:, 2, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("model_type", TYPES)
def test_numbers_of_16_bits_give_nearly_the_same(model_type, kind):
    weights, config = weights_of(model_type)
    halved = {name: values.to(kind) for name, values in weights.items()}
    rounded = {name: values.double() for name, values in halved.items()}
    values = values_with_a_fixed_network(weights, config)
    values_halved = values_with_a_fixed_network(halved, config)
    values_rounded = values_with_a_fixed_network(rounded, config)
    for circuit in CIRCUITS:
        assert_allclose(values_halved[circuit], values[circuit], atol=1e-2)
        # Apart from what rounding does to weights, little is lost.
        assert_allclose(values_halved[circuit], values_rounded[circuit], atol=1e-5)


def test_networks_of_16_bits_are_compared_with_each_other():
    networks, rounded = [], []
    for seed in (0, 1):
        weights, config = llama(seed)
        halved = {name: values.bfloat16() for name, values in weights.items()}
        networks.append(circuits(halved, config))
        rounded.append(circuits(
            {name: values.double() for name, values in halved.items()}, config))
    expected = compare_circuits(rounded)
    for circuit, table in compare_circuits(networks).items():
        assert_allclose(table, expected[circuit], atol=1e-5)


def test_slices_of_a_file_give_what_tensors_give(tmp_path):
    for of_family in (llama, gpt2, gpt_neox):
        weights, config = of_family()
        path = tmp_path / f"{config['model_type']}.safetensors"
        save_file(weights, path)
        slices = formats.opened(path).content
        for tokens in (None, [3, 1, 2, 9]):
            from_file = circuits(slices, config, tokens)
            from_memory = circuits(weights, config, tokens)
            for circuit in CIRCUITS:
                assert_close(from_file.features(circuit, 1),
                             from_memory.features(circuit, 1), rtol=0, atol=0)


def test_comparing_changes_no_tensor_of_the_caller():
    for model_type in ("llama", "gemma2", "bert", "vit"):
        weights, config = weights_of(model_type)
        before = {name: values.clone() for name, values in weights.items()}
        network = circuits(weights, config)
        part = circuits(weights, config, tokens=range(network.count))
        compare_circuits([network, part])
        for name, values in weights.items():
            assert torch.equal(values, before[name])


def test_a_circuit_of_zeros_has_no_similarity():
    weights, config = llama()
    weights["model.layers.1.self_attn.o_proj.weight"].zero_()
    networks = [circuits(weights, config), circuits(*llama(1))]
    message = ("^some circuits are zero, or the same for all tokens: they have no "
               "similarity, NaN$")
    with pytest.warns(RuntimeWarning, match=message):
        similarities = compare_circuits(networks)
    assert np.isfinite(similarities["ov"][0]).all()
    assert np.isnan(similarities["ov"][1]).tolist() == [[True, True], [True, False]]
    for circuit in ("direct", "qk", "mlp"):
        assert np.isfinite(similarities[circuit]).all()


def test_a_circuit_that_is_the_same_for_all_tokens_has_no_similarity():
    weights, config = llama()
    embedding = weights["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = embedding[:1].repeat(len(embedding), 1)
    networks = [circuits(weights, config), circuits(*llama(1))]
    with pytest.warns(RuntimeWarning, match="the same for all tokens"):
        similarities = compare_circuits(networks)
    for table in similarities.values():
        assert np.isnan(table[:, 0]).all()
        assert (table[:, 1, 1] == 1).all()


def test_unknown_circuits_and_layers_are_refused():
    network = circuits(*llama())
    with pytest.raises(ValueError, match="circuit"):
        network.features("vo")
    with pytest.raises(ValueError, match="layer: wanted 0 to 1, got 5"):
        network.features("ov", 5)
