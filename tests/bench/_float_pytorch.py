"""Greedy translation in PyTorch float32, written to be fast: the peer that the integer model is measured against.

The network of ``intsim.training.network`` (polynomial attention, L1 norm, norms first), with one product for
query, key and value, keys and values of the source made once, a cache with room for the whole text,
and only the rows that still go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from intsim.models.architecture import Architecture
from intsim.models.transformer import padded
from intsim.models.vocabulary import BEGIN, END

EPSILON = 1e-5


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return torch.addcmul(bias, x / (x.abs().mean(-1, keepdim=True) + EPSILON), weight)


def attend(
    q: Tensor, k: Tensor, v: Tensor, shift: Tensor, floor: Tensor, visible: Tensor | None, degree: int
) -> Tensor:
    """q [texts, heads, m, width] (the root of the width is in its weights), k and v [texts, heads, t, width]."""
    base = functional.relu_(torch.matmul(q, k.transpose(-1, -2)).add_(shift))
    weights = base * base * base if degree == 3 else base**degree
    weights = weights.add_(floor)
    if visible is not None:
        weights = weights.mul_(visible)
    total = weights.sum(-1, keepdim=True).add_(EPSILON)
    return torch.matmul(weights, v) / total


class Translator:
    """tensors: float32, by the names of a checkpoint."""

    def __init__(self, shape: Architecture, tensors: Mapping[str, Any], compiled: bool = False) -> None:
        assert shape.norm_first
        assert shape.translates
        self.shape = shape
        t = {name: torch.from_numpy(np.array(a, np.float32)) for name, a in tensors.items()}
        self.embedding, self.positions = t["embedding.weight"] * math.sqrt(shape.width), t["positions.weight"]
        self.output = t["embedding.weight"]
        root = 1 / math.sqrt(shape.head_width)
        for name in [n.removesuffix(".query.weight") for n in t if n.endswith(".query.weight")]:
            for part in ("weight", "bias"):
                q, k, v = (t[f"{name}.{which}.{part}"] for which in ("query", "key", "value"))
                t[f"{name}.query.{part}"] = q * root
                t[f"{name}.qkv.{part}"] = torch.cat([q * root, k, v])
                t[f"{name}.kv.{part}"] = torch.cat([k, v])
            t[f"{name}.shift"] = t[f"{name}.shift"][:, None, None]
            t[f"{name}.floor"] = t[f"{name}.floor"].abs()[:, None, None]
        self.t = t
        self._own, self._rest = self._own_part, self._rest_part
        if compiled:
            self._own = torch.compile(self._own_part, dynamic=True)
            self._rest = torch.compile(self._rest_part, dynamic=True)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return norm(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"])

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"])

    def _feed(self, name: str, x: Tensor) -> Tensor:
        h = functional.relu_(self._linear(f"{name}.feed_up", self._norm(f"{name}.feed_norm", x)))
        return x + self._linear(f"{name}.feed_down", h)

    def _mixed(self, place: str, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        z = attend(q, k, v, self.t[f"{place}.shift"], self.t[f"{place}.floor"], visible, self.shape.degree)
        return self._linear(f"{place}.out", z.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[parts of [texts, heads, tokens, head width]]."""
        n, m, _ = x.shape
        made = x.view(n, m, parts, self.shape.heads, self.shape.head_width).permute(2, 0, 3, 1, 4)
        return tuple(made.unbind(0))

    def encode(self, ids: Tensor, visible: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        x = self.embedding[ids] + self.positions[: ids.shape[1]]
        for i in range(self.shape.layers):
            place = f"encoder.{i}.self_attention"
            q, k, v = self._heads(self._linear(f"{place}.qkv", self._norm(f"encoder.{i}.self_norm", x)), 3)
            x = self._feed(f"encoder.{i}", x + self._mixed(place, q, k, v, visible))
        x = self._norm("encoder_norm", x)
        made = []
        for i in range(self.shape.layers):
            k, v = self._heads(self._linear(f"decoder.{i}.cross_attention.kv", x), 2)
            made.append((k.contiguous(), v.contiguous()))
        return made

    def _own_part(self, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self._linear(f"decoder.{i}.self_attention.qkv", self._norm(f"decoder.{i}.self_norm", x))
        q, k, v = self._heads(h, 3)
        return q, k, v

    def _rest_part(
        self, i: int, x: Tensor, q: Tensor, k: Tensor, v: Tensor, memory: tuple[Tensor, Tensor], seen: Tensor | None
    ) -> Tensor:
        x = x + self._mixed(f"decoder.{i}.self_attention", q, k, v, None)
        place = f"decoder.{i}.cross_attention"
        (q,) = self._heads(self._linear(f"{place}.query", self._norm(f"decoder.{i}.cross_norm", x)), 1)
        x = x + self._mixed(place, q, *memory, seen)
        return self._feed(f"decoder.{i}", x)

    @torch.inference_mode()
    def batch(self, sources: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[list[int]]:
        """lengths: how many steps each text takes (END included), so that all sides do the same work."""
        ids, own = padded([[*s, END] for s in sources])
        whole = int(own.min()) == ids.shape[1]
        seen = None if whole else (torch.arange(ids.shape[1]) < torch.from_numpy(own)[:, None])[:, None, None].float()
        memory = self.encode(torch.from_numpy(ids).long(), seen)
        n, most = len(sources), max(lengths)
        shape = (self.shape.layers, 2, n, self.shape.heads, most, self.shape.head_width)
        kept = torch.zeros(shape)
        left, alive = np.array(lengths), np.arange(n)
        made: list[list[int]] = [[] for _ in sources]
        new = torch.full((n,), BEGIN)
        for step in range(most):
            x = (self.embedding[new] + self.positions[step])[:, None]
            for i in range(self.shape.layers):
                q, k, v = self._own(i, x)
                kept[i, 0, :, :, step], kept[i, 1, :, :, step] = k[:, :, 0], v[:, :, 0]
                x = self._rest(i, x, q, kept[i, 0, :, :, : step + 1], kept[i, 1, :, :, : step + 1], memory[i], seen)
            new = functional.linear(self._norm("decoder_norm", x[:, 0]), self.output).argmax(-1)
            for i, token in zip(alive, new.tolist(), strict=True):
                made[i].append(token)
            goes_on = left[alive] > step + 1
            if not goes_on.all():
                keep = torch.from_numpy(np.flatnonzero(goes_on))
                alive, new, kept = alive[goes_on], new[keep], kept[:, :, keep]
                memory = [(k[keep], v[keep]) for k, v in memory]
                seen = None if seen is None else seen[keep]
        return made
