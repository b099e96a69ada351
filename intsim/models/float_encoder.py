"""The float32 encoder that an integer model stands for: BERT (Devlin et al. 2018), mean pooling.

Observers see the same places, under the same names, as the integer encoder's trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from intsim.models.checkpoint import Checkpoint
from intsim.models.layout import Array

Observer = Callable[[str, Array], None]

BATCH = 64


def erf(x: Any) -> Any:
    """erf(x), float64 in and out, to 1.5e-7. Source: Abramowitz and Stegun, formula 7.1.26."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.copysign(1.0 - series * np.exp(-x * x), x)


class FloatEncoder:
    """ids (sentences, tokens), all of one length -> pooled float32 (sentences, hidden), before the L2 norm."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.shape, self._t, self._eps = checkpoint.shape, checkpoint.tensors, np.float32(checkpoint.eps)

    def embed(
        self,
        sentences: Sequence[Array],
        observe: Observer | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Array:
        """One row a sentence. Sentences of one length go together, so that nothing is padded."""
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(sentences):
            by_length.setdefault(len(ids), []).append(i)
        out = np.zeros((len(sentences), self.shape.hidden), np.float32)
        for _, group in sorted(by_length.items()):
            for first in range(0, len(group), BATCH):
                batch = group[first : first + BATCH]
                out[batch] = self.run(np.stack([sentences[i] for i in batch]), observe)
                if progress:
                    progress(len(batch))
        return out

    def run(self, ids: Array, observe: Observer | None = None) -> Array:
        t, s, see = self._t, self.shape, observe or (lambda name, a: None)
        batch, length = ids.shape
        x = t["word.table"][ids] + (t["position.table"][:length] + t["type.table"][0])
        x = x.reshape(-1, s.hidden)  # tokens as rows: NumPy multiplies 3-D by 2-D some 20 times slower
        see("embedding_sum", x)
        x = self._norm("embedding", x)
        see("embedding", x)
        for i in range(s.layers):
            x = self._layer(f"layer.{i}", x, batch, length, see)
        pooled: Array = x.reshape(batch, length, s.hidden).mean(axis=1)
        see("pooled", pooled)
        return pooled

    def _layer(self, layer: str, x: Array, batch: int, length: int, see: Observer) -> Array:
        s = self.shape

        def dense(name: str, rows: Array) -> Array:
            made: Array = rows @ self._t[f"{layer}.{name}.weight"].T + self._t[f"{layer}.{name}.bias"]
            see(f"{layer}.{name}", made)
            return made

        q, k, v = (
            dense(name, x).reshape(batch, length, s.heads, s.head).transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) * np.float32(1 / math.sqrt(s.head))
        see(f"{layer}.scores", scores)
        exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
        probabilities = exp / exp.sum(axis=-1, keepdims=True)
        see(f"{layer}.probabilities", probabilities)
        context = (probabilities @ v).transpose(0, 2, 1, 3).reshape(-1, s.hidden)
        see(f"{layer}.context", context)
        total = x + dense("attention", context)
        see(f"{layer}.attention_sum", total)
        x = self._norm(f"{layer}.attention_norm", total)
        see(f"{layer}.attention_norm", x)
        up = dense("up", x)
        gelu = (up * 0.5 * (1.0 + erf(up.astype(np.float64) / math.sqrt(2)))).astype(np.float32)
        see(f"{layer}.gelu", gelu)
        total = x + dense("down", gelu)
        see(f"{layer}.output_sum", total)
        x = self._norm(f"{layer}.output", total)
        see(f"{layer}.output", x)
        return x

    def _norm(self, name: str, x: Array) -> Array:
        y = x - x.mean(axis=-1, keepdims=True)
        std = np.sqrt((y * y).mean(axis=-1, keepdims=True) + self._eps)
        made: Array = y / std * self._t[f"{name}.gamma"] + self._t[f"{name}.beta"]
        return made


def normalised(pooled: Array) -> Array:
    """The rows of ``pooled``, each divided by its L2 norm, in float64. A row of zeros stays."""
    x = np.asarray(pooled, np.float64)
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    made: Array = x / np.where(norm == 0, 1.0, norm)
    return made
