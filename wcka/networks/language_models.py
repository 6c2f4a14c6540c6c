"""Small language models: decoders with the names and the wiring of llama.

Root mean square norms, rotary positions, attention with several heads, and gated MLPs
(Touvron et al. 2023, arXiv 2302.13971). A state dict of a model can be loaded into
``LlamaForCausalLM`` of the library transformers, and tests compare the two.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu

from .training import copied

_BASE = 10000.0  # of the rotary angles
_LENGTH = 64  # tokens of a piece of text
_AT_ONCE = 16  # pieces that a loss is computed of: more would leave the caches


class Norm(nn.Module):
    """Division by the root mean square over the last axis, and a gain.

    Examples
    --------
    >>> Norm(2)(torch.tensor([3.0, 3.0])).round(decimals=3).tolist()
    [1.0, 1.0]
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, True) + 1e-6)


class Attention(nn.Module):
    """Causal attention of several heads with rotary positions.

    Examples
    --------
    >>> Attention(8, 2)(torch.ones(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = batch, length, self.heads, width // self.heads
        # (batch, heads, length, size) each
        query = self.q_proj(x).view(shape).transpose(1, 2)
        key = self.k_proj(x).view(shape).transpose(1, 2)
        value = self.v_proj(x).view(shape).transpose(1, 2)
        mixed = scaled_dot_product_attention(
            _rotated(query), _rotated(key), value, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))


def _rotated(x: Tensor) -> Tensor:
    """Turn pairs of coordinates (..., length, size) by angles that grow with place."""
    length, size = x.shape[-2:]
    frequencies = _BASE ** (-torch.arange(0, size, 2, dtype=x.dtype) / size)
    angles = torch.arange(length, dtype=x.dtype)[:, None] * frequencies
    cosine = angles.cos().repeat(1, 2)  # (length, size)
    sine = angles.sin().repeat(1, 2)
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


class Gated(nn.Module):
    """An MLP whose units are multiplied by a gate.

    Examples
    --------
    >>> Gated(4, 6)(torch.ones(2, 4)).shape
    torch.Size([2, 4])
    """

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, units, bias=False)
        self.up_proj = nn.Linear(width, units, bias=False)
        self.down_proj = nn.Linear(units, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention and an MLP, each added to the stream.

    Examples
    --------
    >>> Block(8, 2, 16)(torch.ones(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, width: int, heads: int, units: int) -> None:
        super().__init__()
        self.input_layernorm = Norm(width)
        self.self_attn = Attention(width, heads)
        self.post_attention_layernorm = Norm(width)
        self.mlp = Gated(width, units)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """The residual stream, from tokens to what the unembedding reads.

    Examples
    --------
    >>> Decoder(50, 8, 1, 2, 16)(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self, tokens: int, width: int, depth: int, heads: int, units: int
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(tokens, width)
        self.layers = nn.ModuleList(
            [Block(width, heads, units) for _ in range(depth)])
        self.norm = Norm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        for block in self.layers:
            x = block(x)
        return self.norm(x)


class LanguageModel(nn.Module):
    """A decoder that predicts the next token.

    Parameters
    ----------
    tokens, width, depth, heads, units : int
        Sizes: of the vocabulary, of the stream, number of layers, of heads in each, and
        of units in each MLP.

    Attributes
    ----------
    config : dict
        As in a ``config.json`` of the library transformers.

    Examples
    --------
    >>> model = LanguageModel(tokens=50, width=8, depth=1, heads=2, units=16)
    >>> model(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 50])
    """

    def __init__(
        self, tokens: int, width: int, depth: int, heads: int, units: int
    ) -> None:
        super().__init__()
        self.model = Decoder(tokens, width, depth, heads, units)
        self.lm_head = nn.Linear(width, tokens, bias=False)
        for values in self.parameters():
            if values.ndim > 1:
                nn.init.normal_(values, std=0.02)
        self.config = config(tokens, width, depth, heads, units)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, length, tokens) of numbers (batch, length)."""
        return self.lm_head(self.model(tokens))


def config(tokens: int, width: int, depth: int, heads: int,
           units: int) -> dict[str, Any]:
    """Return what the ``config.json`` of such a model says.

    Examples
    --------
    >>> config(50, 8, 1, 2, 16)["model_type"]
    'llama'
    """
    return {
        "model_type": "llama", "vocab_size": tokens, "hidden_size": width,
        "num_hidden_layers": depth, "num_attention_heads": heads,
        "num_key_value_heads": heads, "intermediate_size": units,
        "rms_norm_eps": 1e-6, "rope_theta": _BASE, "tie_word_embeddings": False}


def train(
    model: nn.Module, numbers: Tensor, steps: int, seed: int, *,
    learning_rate: float = 3e-3, batch_size: int = 32, length: int = _LENGTH,
    checkpoints: Sequence[int] = (), parameters: Sequence[nn.Parameter] | None = None,
) -> dict[int, dict[str, Tensor]]:
    """Train a language model in place, by Adam, on pieces of a text drawn at random.

    Parameters
    ----------
    model : nn.Module
        As ``LanguageModel``; it is changed.
    numbers : Tensor
        The text as numbers of tokens, longer than `length`.
    steps : int
        Steps of the optimizer. The learning rate rises over a tenth of them, and falls
        to a tenth of itself by half a cosine.
    seed : int
        Of the pieces that are drawn.
    learning_rate : float
        The highest.
    batch_size, length : int
        Number of pieces in a step, and of tokens in each.
    checkpoints : sequence of int
        Steps after which the state is copied.
    parameters : sequence of nn.Parameter, optional
        What is trained; everything by default.

    Returns
    -------
    dict of int to dict
        Copies of the state dict, by step.

    Examples
    --------
    >>> model = LanguageModel(tokens=5, width=4, depth=1, heads=1, units=4)
    >>> list(train(model, torch.arange(5).repeat(40), 2, seed=0, checkpoints=[1]))
    [1]
    """
    rng = np.random.default_rng(seed)
    trained = list(model.parameters()) if parameters is None else list(parameters)
    optimizer = torch.optim.Adam(trained, lr=learning_rate, betas=(0.9, 0.99))
    warm = max(steps // 10, 1)

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        progress = (step - warm) / max(steps - warm, 1)
        return 0.1 + 0.45 * (1 + np.cos(np.pi * progress))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    copies = {}
    for step in range(1, steps + 1):
        starts = rng.integers(len(numbers) - length, size=batch_size)
        pieces = torch.stack([numbers[i:i + length + 1] for i in starts.tolist()])
        logits = model(pieces[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if step in checkpoints:
            copies[step] = copied(model.state_dict())
    return copies


@torch.no_grad()
def mean_loss(model: nn.Module, numbers: Tensor) -> float:
    """Return the mean cross-entropy per token, in nats, on pieces of a text.

    Pieces have 64 tokens, as many as ``train`` takes.

    Raises
    ------
    ValueError
        For fewer than 65 tokens: a piece and the token that follows it.

    Examples
    --------
    >>> model = LanguageModel(tokens=5, width=4, depth=1, heads=1, units=4)
    >>> round(mean_loss(model, torch.arange(5).repeat(40)), 1)
    1.6
    """
    if len(numbers) <= _LENGTH:
        raise ValueError(
            f"numbers: wanted at least {_LENGTH + 1} tokens, got {len(numbers)}")
    count = (len(numbers) - 1) // _LENGTH
    read = numbers[:count * _LENGTH].view(count, _LENGTH)
    wanted = numbers[1:count * _LENGTH + 1].view(count, _LENGTH)
    total = 0.0
    for pieces, tokens in zip(read.split(_AT_ONCE), wanted.split(_AT_ONCE)):
        logits = model(pieces)  # (pieces, length, tokens of the vocabulary)
        loss = cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum")
        total += float(loss)
    return total / wanted.numel()
