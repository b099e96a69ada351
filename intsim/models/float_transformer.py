"""The float32 Transformer in NumPy that an integer one stands for: both attentions, both norms.

The same function as the network that was trained (a test holds them together), without PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from intsim.models.architecture import Architecture, AttentionKind, NormKind, Positions
from intsim.models.layout import Array
from intsim.models.transformer import Kept, Transformer

EPSILON = np.float32(1e-5)  # keeps a norm's quotient and an attention's finite: as in training


class FloatTransformer(Transformer[Array]):
    """shape: of the model. tensors: float32, by the names of a checkpoint."""

    def __init__(self, shape: Architecture, tensors: Mapping[str, Array]) -> None:
        self.shape = shape
        self._t = {name: np.ascontiguousarray(a, np.float32) for name, a in tensors.items()}
        learned = shape.position_kind is Positions.LEARNED
        self._places = self._t["positions.weight"] if learned else sinusoids(shape.positions, shape.width)
        self._gain = np.float32(math.sqrt(shape.width) if shape.translates else 1.0)

    def embed(self, ids: Array, first: int) -> Array:
        x = self._t["embedding.weight"][ids] * self._gain + self._places[first : first + ids.shape[1]]
        return np.asarray(x.reshape(-1, self.shape.width))

    def norm(self, name: str, x: Array) -> Array:
        x = x - x.mean(axis=-1, keepdims=True)
        if self.shape.norm is NormKind.L1:
            x = x / (np.abs(x).mean(axis=-1, keepdims=True) + EPSILON)
        else:
            x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPSILON)
        return np.asarray(x * self._t[f"{name}.weight"] + self._t[f"{name}.bias"])

    def _linear(self, name: str, x: Array) -> Array:
        return np.asarray(x @ self._t[f"{name}.weight"].T + self._t[f"{name}.bias"])

    def _heads(self, x: Array, texts: int) -> Array:
        return x.reshape(texts, -1, self.shape.heads, self.shape.head_width)

    def keys(self, name: str, x: Array, texts: int) -> Kept:
        return tuple(self._heads(self._linear(f"{name}.{part}", x), texts) for part in ("key", "value"))

    def attend(self, name: str, x: Array, kept: Kept, stop: Array) -> Array:
        q = self._heads(self._linear(f"{name}.query", x), stop.shape[0])
        q, k, v = (a.transpose(0, 2, 1, 3) for a in (q, *kept))
        scores = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(self.shape.head_width))
        visible = (np.arange(k.shape[2]) < stop[..., None])[:, None]
        if self.shape.attention is AttentionKind.POLYNOMIAL:
            shift, floor = (self._t[f"{name}.{part}"][:, None, None] for part in ("shift", "floor"))
            base = np.maximum(scores + shift, 0)
            power = base
            for _ in range(self.shape.degree - 1):
                power = power * base
            weights = (power + np.abs(floor)) * visible
            weights = weights / (weights.sum(axis=-1, keepdims=True) + EPSILON)
        else:
            scores = np.where(visible, scores, -np.inf)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights = weights / weights.sum(axis=-1, keepdims=True)
        mixed = (weights.astype(np.float32) @ v).transpose(0, 2, 1, 3)
        return self._linear(f"{name}.out", mixed.reshape(-1, self.shape.width))

    def feed(self, name: str, x: Array) -> Array:
        return self._linear(f"{name}.feed_down", np.maximum(self._linear(f"{name}.feed_up", x), 0))

    def add(self, x: Array, y: Array) -> Array:
        return x + y

    def narrow(self, x: Array) -> Array:
        return x

    def rows(self, x: Array, chosen: Array) -> Array:
        return x[chosen]

    def logits(self, x: Array) -> Array:
        return np.asarray(x @ self._t["embedding.weight"].T)

    def best(self, logits: Array) -> Array:
        return np.asarray(logits.argmax(axis=-1), np.int32)

    def real(self, logits: Array) -> Array:
        return logits.astype(np.float64)


def sinusoids(length: int, width: int) -> Array:
    """Positions of Vaswani et al. 2017, float32: sines of the even columns, cosines of the odd ones."""
    place = np.arange(length, dtype=np.float64)[:, None]
    rate = np.exp(-math.log(10000.0) * np.arange(0, width, 2, dtype=np.float64) / width)
    table = np.empty((length, width), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(place * rate), np.cos(place * rate)
    return table
