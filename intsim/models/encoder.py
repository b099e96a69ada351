"""The integer encoder: ids -> pooled integers, by prepared operations and nothing else.

No arithmetic lives here: only which operation follows which, reshapes and transposes. Padding is
computed and never read: softmax and mean stop at a sentence's length, and every other operation
treats tokens apart, so a sentence's result depends on nothing but the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from intsim.resident import broadcast, resident
from intsim.models.layout import Array, IntegerModel, check, step_ops
from intsim.execute import Prepared, prepare

# trace(place, integers, scale): scale is the real value of one step, one or one a channel (last axis).
Trace = Callable[[str, Array, Any], None]

BATCH = 64


class IntegerEncoder:
    """Raises ValueError where ``model`` is not whole or ``backend`` is unknown."""

    def __init__(self, model: IntegerModel, backend: str = "cpu") -> None:
        check(model)
        self.shape = model.shape
        self.pooled_scale = model.scales["pooled"]
        self._t: Any = model.tensors
        self._scales, self._parameters = model.scales, model.steps
        self._kept: dict[tuple[tuple[int, ...], bool], tuple[Any, Any]] = {}
        self._enter: Callable[..., Any] = lambda *arrays: (arrays, lambda out: out)
        if backend == "cuda":
            from intsim import on_gpu

            self._t, self._enter = on_gpu.constants(model.tensors), on_gpu.entered
        self._steps: dict[str, Prepared] = {
            name: prepare(op, p=model.steps[name], backend=backend, constant=self._constant(name))
            for name, op in step_ops(model.shape).items()
        }

    def _constant(self, step: str) -> dict[str, Any]:
        """The inputs of a step that are the model's own, and that are laid out once."""
        name = step.removesuffix(".matmul")
        return {"b": self._t[f"{name}.weight"]} if name != step and f"{name}.weight" in self._t else {}

    def embed(
        self, sentences: Sequence[Array], batch: int = BATCH, progress: Callable[[int], None] | None = None
    ) -> Array:
        """Pooled int32, a row a sentence; sentences of similar length go together, padded with id 0."""
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        out = np.zeros((len(sentences), self.shape.hidden), np.int32)
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            lengths = np.array([len(sentences[i]) for i in chosen], np.int32)
            ids = np.zeros((len(chosen), int(lengths.max())), np.int32)
            for row, i in zip(ids, chosen, strict=True):
                row[: len(sentences[i])] = sentences[i]
            out[chosen] = self.run(ids, lengths)
            if progress:
                progress(len(chosen))
        return out

    def run(self, ids: Array, lengths: Array, trace: Trace | None = None) -> Array:
        """Pooled int32 (sentences, hidden), steps of ``pooled_scale``.

        ids: int32 (sentences, tokens), of which ``lengths`` (int32, at least 1) count in each row. With the backend
            "cuda" both may lie on a GPU: then nothing leaves it, and ``intsim.capture`` makes a graph of the call.
        trace: called at every place with what it holds; rows are tokens, padding included.
        Raises TypeError or ValueError for ids outside the vocabulary, or more tokens than the model takes.
        """
        (ids, lengths), handed_back = self._enter(ids, lengths)
        sentences, tokens = ids.shape
        if tokens > self.shape.tokens:
            raise ValueError(f"a sentence has {tokens} tokens, the model takes at most {self.shape.tokens}")

        def see(place: str, a: Array) -> Array:
            if trace:
                trace(place, a, self._scale(place))
            return a

        x = self._embedding(ids, see)
        for i in range(self.shape.layers):
            x = self._attention(f"layer.{i}", x, sentences, tokens, lengths, see)
            x = self._feed_forward(f"layer.{i}", x, see)
        pooled: Array = see("pooled", self._steps["pooled.mean"](x.reshape(sentences, tokens, -1), lengths))
        return handed_back(pooled)  # type: ignore[no-any-return]  # an array of the caller's library

    def _embedding(self, ids: Array, see: Callable[[str, Array], Array]) -> Array:
        step, t = self._steps, self._t
        flat = ids.reshape(-1)
        positions, zeros = self._numbers(ids.shape, resident(ids))
        word = step["word.embedding"](flat, t["word.table"], t["word.multiplier"])
        position = step["position.embedding"](positions, t["position.table"])
        kind = step["type.embedding"](zeros, t["type.table"])
        total = step["embedding_sum.add"](word, step["position_sum.add"](position, kind))
        return self._norm("embedding", see("embedding_sum", total), see)

    def _numbers(self, shape: tuple[int, ...], there: bool) -> tuple[Any, Any]:
        """Each token's place in its sentence, and zeros; on the GPU once a shape."""
        if (shape, there) not in self._kept:
            places = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape).reshape(-1)
            made: Any = {"places": places, "zeros": np.zeros_like(places)}
            if there:
                from intsim import on_gpu

                made = on_gpu.constants(made)
            self._kept[shape, there] = made["places"], made["zeros"]
        return self._kept[shape, there]

    def _attention(
        self, layer: str, x: Array, sentences: int, tokens: int, lengths: Array, see: Callable[[str, Array], Array]
    ) -> Array:
        def step(name: str, *arrays: Array) -> Any:
            return self._steps[f"{layer}.{name}"](*arrays)

        def heads(a: Array) -> Array:
            return a.reshape(sentences, tokens, self.shape.heads, self.shape.head).swapaxes(1, 2)

        quantized = step("input.quantize", x)
        q, k, v = (self._dense(f"{layer}.{name}", quantized, see) for name in ("query", "key", "value"))
        q8, q_top = step("query.quantize", heads(q))
        k8, k_top = step("key.quantize", heads(k))
        scores = see(f"{layer}.scores", step("scores.requantize", step("scores.matmul", q8, k8), q_top, k_top))
        stop = broadcast(lengths.reshape(-1, 1, 1), scores.shape[:-1])
        probabilities = see(f"{layer}.probabilities", step("probabilities.softmax", scores, stop))
        mixed = step("context.matmul", probabilities, heads(v).swapaxes(-1, -2))
        context = step("context.requantize", mixed.swapaxes(1, 2).reshape(x.shape))
        context = step("context.quantize", see(f"{layer}.context", context))
        total = step("attention_sum.add", x, self._dense(f"{layer}.attention", context, see))
        return self._norm(f"{layer}.attention_norm", see(f"{layer}.attention_sum", total), see)

    def _feed_forward(self, layer: str, x: Array, see: Callable[[str, Array], Array]) -> Array:
        def step(name: str, *arrays: Array) -> Any:
            return self._steps[f"{layer}.{name}"](*arrays)

        up = self._dense(f"{layer}.up", step("attention_norm.quantize", x), see)
        gelu = see(f"{layer}.gelu", step("gelu.requantize", step("gelu.activation", up)))
        total = step("output_sum.add", x, self._dense(f"{layer}.down", step("gelu.quantize", gelu), see))
        return self._norm(f"{layer}.output", see(f"{layer}.output_sum", total), see)

    def _dense(self, name: str, quantized: tuple[Array, Array], see: Callable[[str, Array], Array]) -> Array:
        (q, top), t = quantized, self._t
        acc = self._steps[f"{name}.matmul"](q)
        return see(name, self._steps[f"{name}.requantize"](acc, top, t[f"{name}.column"], t[f"{name}.bias"]))

    def _norm(self, name: str, x: Array, see: Callable[[str, Array], Array]) -> Array:
        return see(name, self._steps[f"{name}.requantize"](self._steps[f"{name}.layernorm"](x)))

    def _scale(self, place: str) -> Any:
        """For a trace alone. The values' scale, one a channel, lies in the multipliers behind them."""
        if not place.endswith(".value"):
            return self._scales[place]
        layer = place.removesuffix(".value")
        p: Any = self._parameters[f"{layer}.context.requantize"]
        step = p.multiplier / 2.0**p.shift
        return step * self._scales[f"{layer}.context"] / self._scales[f"{layer}.probabilities"]
