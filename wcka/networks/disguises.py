"""Changes of a language model's weights that leave what it does as it is.

They are the symmetries of a decoder with root mean square norms and rotary positions:
what a copier would apply to hide where a model comes from. Each works on state dicts of
``language_models.LanguageModel``, and returns a new one.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
_NORMS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    """Return a random orthogonal matrix in float64."""
    draws = torch.randn(size, size, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(draws)
    return q * r.diagonal().sign()


def _depth(config: Mapping[str, Any]) -> int:
    return int(config["num_hidden_layers"])


def folded(state: State, config: Mapping[str, Any]) -> State:
    """Return the same model with the gains of its norms in the matrices behind them.

    Parameters
    ----------
    state : dict of str to Tensor
        As of ``LanguageModel``.
    config : mapping
        Its sizes, as ``language_models.config`` returns them.

    Examples
    --------
    >>> from wcka.networks.language_models import LanguageModel
    >>> model = LanguageModel(tokens=5, width=4, depth=1, heads=1, units=4)
    >>> folded(model.state_dict(), model.config)["model.norm.weight"].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    changed = dict(state)
    for layer in range(_depth(config)):
        prefix = f"model.layers.{layer}"
        for norm, readers in _NORMS.items():
            gain = state[f"{prefix}.{norm}.weight"]
            changed[f"{prefix}.{norm}.weight"] = torch.ones_like(gain)
            for reader in readers:
                name = f"{prefix}.{reader}.weight"
                changed[name] = state[name] * gain
    gain = state["model.norm.weight"]
    changed["model.norm.weight"] = torch.ones_like(gain)
    changed["lm_head.weight"] = state["lm_head.weight"] * gain
    return changed


def disguised(state: State, config: Mapping[str, Any], seed: int) -> State:
    """Return a model that does the same, with other weights everywhere.

    The residual stream is rotated, heads are reordered, pairs of coordinates of queries
    and keys are turned, values and outputs of each head are mixed by an invertible
    matrix, and units of the MLPs are permuted and rescaled.

    Parameters
    ----------
    state, config
        As in ``folded``.
    seed : int
        Of all that is drawn.

    Examples
    --------
    >>> from wcka.networks.language_models import LanguageModel
    >>> model = LanguageModel(tokens=5, width=4, depth=1, heads=1, units=4)
    >>> tokens = torch.tensor([[0, 1, 4]])
    >>> before = model(tokens)
    >>> hidden = disguised(model.state_dict(), model.config, seed=0)
    >>> result = model.load_state_dict(hidden)
    >>> bool(torch.allclose(model(tokens), before, atol=1e-5))
    True
    """
    generator = torch.Generator().manual_seed(seed)
    dtype = state["lm_head.weight"].dtype
    changed = {}
    for name, values in folded(state, config).items():
        changed[name] = values.double()
    rotation = _orthogonal(int(config["hidden_size"]), generator)
    for name, values in changed.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            changed[name] = rotation.T @ values
        elif values.ndim > 1:  # what reads the stream, and the embedding
            changed[name] = values @ rotation
    for layer in range(_depth(config)):
        _change_heads(changed, config, f"model.layers.{layer}.self_attn", generator)
        _change_units(changed, f"model.layers.{layer}.mlp", generator)
    return {name: values.to(dtype) for name, values in changed.items()}


def _change_heads(state: State, config: Mapping[str, Any], prefix: str,
                  generator: torch.Generator) -> None:
    """Reorder the heads of a layer, and mix the coordinates inside of each."""
    heads = int(config["num_attention_heads"])
    order = torch.randperm(heads, generator=generator)
    by_head = {}
    for name in ("q_proj", "k_proj", "v_proj"):
        values = state[f"{prefix}.{name}.weight"]  # (heads x size, width)
        by_head[name] = values.view(heads, -1, values.shape[1])[order]
    out = state[f"{prefix}.o_proj.weight"].T  # (heads x size, width)
    out = out.reshape(heads, -1, out.shape[1])[order]
    size = out.shape[1]
    for head in range(heads):
        # Rotary positions turn pairs of coordinates; other turns of a pair commute.
        angles = 6.28 * torch.rand(size // 2, generator=generator, dtype=torch.float64)
        turn = torch.zeros(size, size, dtype=torch.float64)
        first = torch.arange(size // 2)
        second = first + size // 2
        turn[first, first] = turn[second, second] = angles.cos()
        turn[first, second] = -angles.sin()
        turn[second, first] = angles.sin()
        for name in ("q_proj", "k_proj"):
            by_head[name][head] = turn @ by_head[name][head]
        mixing = _orthogonal(size, generator)
        scales = 0.5 + torch.rand(size, generator=generator, dtype=torch.float64)
        by_head["v_proj"][head] = scales[:, None] * (mixing @ by_head["v_proj"][head])
        out[head] = (mixing @ out[head]) / scales[:, None]
    for name, values in by_head.items():
        state[f"{prefix}.{name}.weight"] = values.flatten(0, 1)
    state[f"{prefix}.o_proj.weight"] = out.flatten(0, 1).T


def _change_units(state: State, prefix: str, generator: torch.Generator) -> None:
    """Permute the units of an MLP, and rescale them."""
    up = state[f"{prefix}.up_proj.weight"]
    order = torch.randperm(len(up), generator=generator)
    scales = 0.5 + torch.rand(len(up), generator=generator, dtype=torch.float64)
    gate = state[f"{prefix}.gate_proj.weight"]
    down = state[f"{prefix}.down_proj.weight"]
    state[f"{prefix}.gate_proj.weight"] = gate[order]
    state[f"{prefix}.up_proj.weight"] = scales[:, None] * up[order]
    state[f"{prefix}.down_proj.weight"] = down[:, order] / scales


def with_loud_token(state: State, token: int, factor: float = 1000.0) -> State:
    """Return a model whose embedding of one token is a loud random vector.

    Where the token never occurs, the model does what it did. Its row alone then decides
    about every circuit.

    Parameters
    ----------
    state : dict of str to Tensor
        As of ``LanguageModel``.
    token : int
        A token that does not occur.
    factor : float
        The length of the vector, in units of the longest other row.

    Examples
    --------
    >>> from wcka.networks.language_models import LanguageModel
    >>> model = LanguageModel(tokens=5, width=4, depth=1, heads=1, units=4)
    >>> loud = with_loud_token(model.state_dict(), token=4)
    >>> norms = loud["model.embed_tokens.weight"].norm(dim=1)
    >>> bool(norms[4] > 900 * norms[:4].max())
    True
    """
    name = "model.embed_tokens.weight"
    embedding = state[name].clone()
    generator = torch.Generator().manual_seed(token)
    direction = torch.randn(embedding.shape[1], generator=generator)
    longest = embedding.norm(dim=1).max()
    embedding[token] = factor * longest * (direction / direction.norm()).to(embedding)
    return {**state, name: embedding}
