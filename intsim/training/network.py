"""The float Transformer in PyTorch: standard, or the Integer Transformer's polynomial attention and L1 norm.

Source: Lin et al. 2020, Towards Fully 8-bit Integer Inference for the Transformer Model (Eq. 11 to 13).
The paper leaves open the degree, the shape and start of b and delta, and the constant of the L1 norm:
here the degree n is a choice, b and delta are learned per head, and the gain takes up the constant.
delta begins at 0.05. With b = n at the start the logarithm of a weight has at 0 the slope 1, as that of
softmax has: it trained better than b = 1. With a gain of sqrt(2 / pi) at the start the L1 norm of normal
values has the deviation 1, as LayerNorm's has: it trained better than a gain of 1. ``intsim train``
begins so (reference_outputs/records).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from intsim.models.architecture import Architecture, AttentionKind, NormKind, Positions
from intsim.models.vocabulary import PAD

EPSILON = 1e-5  # keeps a norm's quotient and an attention's finite
FIRST_FLOOR = 0.05  # |delta| before training
NORMAL_GAIN = math.sqrt(2 / math.pi)  # a normal variable's mean absolute value over its deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Before training: b of the polynomial attention, the gain of the L1 norm."""

    shift: float = 1.0
    gain: float = NORMAL_GAIN


class L1Norm(nn.Module):
    """Centred values over their mean absolute value, times gain, plus bias."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), gain))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / (x.abs().mean(-1, keepdim=True) + EPSILON) * self.weight + self.bias


class Attention(nn.Module):
    """Multi-head attention. ``visible``: bool, broadcastable to [batch, heads, queries, keys]."""

    def __init__(self, shape: Architecture, dropout: float, begin: Beginning) -> None:
        super().__init__()
        self.shape, self.dropout = shape, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(shape.width, shape.width) for _ in range(4))
        if shape.attention is AttentionKind.POLYNOMIAL:
            self.shift = nn.Parameter(torch.full((shape.heads,), begin.shift))
            self.floor = nn.Parameter(torch.full((shape.heads,), FIRST_FLOOR))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        q, k, v = self._heads(self.query(x)), self._heads(self.key(memory)), self._heads(self.value(memory))
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(self.shape.head_width)
        if self.shape.attention is AttentionKind.POLYNOMIAL:
            base = functional.relu(scores + self.shift[:, None, None])
            power = base
            for _ in range(self.shape.degree - 1):
                power = power * base
            weights = (power + self.floor.abs()[:, None, None]) * visible  # after the floor: nothing hidden is seen
            weights = weights / (weights.sum(-1, keepdim=True) + EPSILON)
        else:
            weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
        weights = functional.dropout(weights, self.dropout, self.training)
        return cast(Tensor, self.out((weights @ v).transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a memory, feed-forward; a norm and a sum around each."""

    def __init__(self, shape: Architecture, dropout: float, begin: Beginning, *, cross: bool) -> None:
        super().__init__()
        self.first, self.dropout = shape.norm_first, dropout
        self.self_norm, self.self_attention = _norm(shape, begin), Attention(shape, dropout, begin)
        if cross:
            self.cross_norm, self.cross_attention = _norm(shape, begin), Attention(shape, dropout, begin)
        self.cross = cross
        self.feed_norm = _norm(shape, begin)
        self.feed_up, self.feed_down = nn.Linear(shape.width, shape.feed), nn.Linear(shape.feed, shape.width)

    def _around(self, norm: nn.Module, block: Any, x: Tensor) -> Tensor:
        if self.first:
            return x + functional.dropout(block(norm(x)), self.dropout, self.training)
        return cast(Tensor, norm(x + functional.dropout(block(x), self.dropout, self.training)))

    def _feed(self, x: Tensor) -> Tensor:
        inner = functional.dropout(functional.relu(self.feed_up(x)), self.dropout, self.training)
        return cast(Tensor, self.feed_down(inner))

    def forward(self, x: Tensor, visible: Tensor, memory: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        x = self._around(self.self_norm, lambda h: self.self_attention(h, h, visible), x)
        if self.cross:
            x = self._around(self.cross_norm, lambda h: self.cross_attention(h, memory, seen), x)
        return self._around(self.feed_norm, self._feed, x)


class Network(nn.Module):
    """The whole Transformer; ids go in, logits come out. ``PAD`` in a source is never seen."""

    def __init__(self, shape: Architecture, dropout: float = 0.0, begin: Beginning = Beginning()) -> None:
        super().__init__()
        self.shape, self.dropout = shape, dropout
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        if shape.position_kind is Positions.LEARNED:
            self.positions = nn.Embedding(shape.positions, shape.width)
        else:
            self.register_buffer("sinusoids", sinusoids(shape.positions, shape.width), persistent=False)
        made = range(shape.layers)
        self.decoder = nn.ModuleList(Layer(shape, dropout, begin, cross=shape.translates) for _ in made)
        self.decoder_norm = _norm(shape, begin)
        if shape.translates:
            self.encoder = nn.ModuleList(Layer(shape, dropout, begin, cross=False) for _ in made)
            self.encoder_norm = _norm(shape, begin)
        self._begin()

    def _begin(self) -> None:
        small = 0.02  # as GPT-2 begins; a translation model begins as Vaswani et al. 2017
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if self.shape.translates:
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.normal_(module.weight, 0, small)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 0, self.shape.width**-0.5 if self.shape.translates else small)

    def embed(self, ids: Tensor) -> Tensor:
        """A translation model multiplies its embedding by the square root of its width."""
        x = self.embedding(ids) * (math.sqrt(self.shape.width) if self.shape.translates else 1.0)
        length = ids.shape[1]
        learned = self.shape.position_kind is Positions.LEARNED
        places = self.positions.weight if learned else cast(Tensor, self.sinusoids)
        return functional.dropout(x + places[:length], self.dropout, self.training)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(memory, which of its places may be seen)."""
        seen = (source != PAD)[:, None, None, :]
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, seen)
        return self.encoder_norm(x) if self.shape.norm_first else x, seen

    def decode(self, ids: Tensor, memory: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """Logits [batch, length, vocabulary]."""
        length = ids.shape[1]
        visible = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()[None, None]
        x = self.embed(ids)
        for layer in self.decoder:
            x = layer(x, visible, memory, seen)
        x = self.decoder_norm(x) if self.shape.norm_first else x
        return functional.linear(x, self.embedding.weight)

    def forward(self, ids: Tensor, source: Tensor | None = None) -> Tensor:
        return self.decode(ids) if source is None else self.decode(ids, *self.encode(source))


def _norm(shape: Architecture, begin: Beginning) -> nn.Module:
    return L1Norm(shape.width, begin.gain) if shape.norm is NormKind.L1 else nn.LayerNorm(shape.width, eps=EPSILON)


def sinusoids(length: int, width: int) -> Tensor:
    """Positions of Vaswani et al. 2017: sines of the even columns, cosines of the odd ones."""
    place = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(-math.log(10000.0) * torch.arange(0, width, 2, dtype=torch.float64) / width)
    table = torch.empty(length, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(place * rate).float(), torch.cos(place * rate).float()
    return table
