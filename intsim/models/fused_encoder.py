"""The integer encoder on the CPU at speed: the same integers, by kernels that each do many steps.

Tokens of all sentences lie one behind the other, without padding. A layer is three kernels: query, key and value of a
block of tokens; the attention of a head; and all that follows for a block of tokens. Models whose parameters or sizes
the kernels do not serve, and traces, take the general way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.backends.vectors import rung
from intsim.compiling import this_machine
from intsim.composites.attention import _cpu_encoder as layers, _cpu_heads as heads
from intsim.models.encoder import IntegerEncoder, Trace
from intsim.models.layout import DENSE, Array, IntegerModel, check
from intsim.numerics import Order, Overflow, Rounding, int8, int16, int24, int32, uint8
from intsim.ops.matmul import _cpu_blocks as blocks, _cpu_tile as tiles
from intsim.ops.requantize import _cpu_wide as wide
from intsim.ops.softmax import _cpu_ibert_vectors as softmax

NEAR = 2**29  # a zero point up to here keeps results in int32 until they saturate
TERMS = 127 * 127  # the largest product of two int8 that dynamic_token gave
RESULTS = {"query": int16, "key": int16, "value": int8, "attention": int32, "up": int16, "down": int32}


class _Map(NamedTuple):
    """A linear map as kernels take it: see ``_cpu_encoder``."""

    weight: tuple[Array, ...]
    columns: Array
    numbers: Array


class _Layer(NamedTuple):
    """Arguments of a layer's kernels."""

    projected: _Map
    attended: tuple[Array, ...]
    fed: tuple[Any, ...]


def serves(model: IntegerModel, backend: str = "cpu") -> bool:
    """Whether the kernels are written for this model's parameters and sizes."""
    check(model)
    r, shape = rung(this_machine()), model.shape
    columns = tiles.columns(r)
    sizes = not (shape.hidden % columns or shape.inner % columns or shape.head % (2 * r.lanes))
    ends = backend == "cpu" and sizes and _ends_are_served(model.steps)
    return ends and all(_layer_is_served(model, f"layer.{i}") for i in range(shape.layers))


def _ends_are_served(p: Mapping[str, Any]) -> bool:
    word, mean = p["word.embedding"], p["pooled.mean"]
    return (
        (word.table, word.dtype, word.rounding) == (int8, int16, Rounding.TIES_TO_EVEN)
        and word.shift >= wide.LEAST_SHIFT
        and all(p[f"{name}.embedding"].table == int16 for name in ("position", "type"))
        and _is_sum(p["position_sum.add"], int16, int16)
        and _is_sum(p["embedding_sum.add"], int16, int24)
        and _norm_is_served(p, "embedding")
        and (mean.x, mean.dtype) == (int16, int32)
        and mean.a_zero_point == mean.zero_point == 0
    )


def _layer_is_served(model: IntegerModel, layer: str) -> bool:
    p: Mapping[str, Any] = {name.removeprefix(f"{layer}."): p for name, p in model.steps.items()}
    shape = model.shape
    tokens = (p[f"{name}.quantize"] for name in ("input", "query", "key", "context", "attention_norm", "gelu"))
    return (
        all(_is_product(p[f"{name}.matmul"], int8) for name in (*DENSE, "scores"))
        and _is_product(p["context.matmul"], uint8)
        and all(t.dtype == int8 and t.rounding == Rounding.TIES_TO_EVEN for t in tokens)
        and all(_map_is_served(model, f"{layer}.{name}", dtype) for name, dtype in RESULTS.items())
        and _row_column_is_served(p["scores.requantize"], int16, TERMS * shape.head << 30, 0)
        and softmax.serves(p["probabilities.softmax"], {"n": shape.tokens})
        and all(_norm_is_served(p, name) for name in ("attention_norm", "output"))
        and _single_is_served(p["context.requantize"], 255 * 128 * shape.tokens)
        and _single_is_served(p["gelu.requantize"], 2**31)
        and _gelu_is_served(p["gelu.activation"])
        and all(_is_sum(p[f"{name}_sum.add"], int16, int32) for name in ("attention", "output"))
    )


def _is_product(p: Any, a: Any) -> bool:
    plain = p.a == a and p.b == int8 and p.acc == int32 and p.overflow == Overflow.WRAP
    return plain and p.a_zero_point == 0 and not np.any(p.b_zero_point)


def _map_is_served(model: IntegerModel, name: str, dtype: Any) -> bool:
    weight, column, bias = (model.tensors[f"{name}.{part}"].astype(np.int64) for part in ("weight", "column", "bias"))
    largest = int((127 * np.abs(weight).sum(axis=1) * np.abs(column)).max()) << 15
    p: Any = model.steps[f"{name}.requantize"]
    return _row_column_is_served(p, dtype, largest, int(np.abs(bias).max()))


def _row_column_is_served(p: Any, dtype: Any, largest: int, bias: int) -> bool:
    """largest: of the products that are shifted."""
    fits = bias < NEAR and p.shift >= wide.LEAST_SHIFT and largest < 2**62 and largest >> p.shift < 2**30
    return bool(fits and p.dtype == dtype and p.rounding == Rounding.TIES_TO_EVEN)


def _single_is_served(p: Any, largest: int) -> bool:
    """largest: of what is requantized, at most 2**31."""
    common = p.dtype == int16 and p.rounding == Rounding.TIES_TO_EVEN and p.zero_point_added == Order.LAST
    multiplier, shift = np.broadcast_arrays(np.abs(p.multiplier), np.maximum(p.shift, wide.LEAST_SHIFT))
    small = bool((multiplier * min(largest, 2**31) >> shift < 2**30).all() and (np.abs(p.zero_point) < NEAR).all())
    shifts = bool(((p.shift >= wide.LEAST_SHIFT) | (p.multiplier == 0)).all())
    return common and small and shifts and largest <= 2**31


def _norm_is_served(p: Mapping[str, Any], name: str) -> bool:
    norm = p[f"{name}.layernorm"]
    return norm.k == 0 and norm.x == int24 and norm.dtype == int32 and _single_is_served(p[f"{name}.requantize"], 2**30)


def _gelu_is_served(p: Any) -> bool:
    from intsim.ops.activation.gelu_ibert import in_32_bits

    return in_32_bits(p) and p.x == int16


def _is_sum(p: Any, a: Any, b: Any) -> bool:
    return (p.a, p.b, p.dtype) == (a, b, int24) and p.a_zero_point == p.b_zero_point == p.zero_point == 0


class FusedEncoder(IntegerEncoder):
    """Only for models that ``serves`` says yes to; equal to ``IntegerEncoder`` to the bit."""

    def __init__(self, model: IntegerModel) -> None:
        super().__init__(model, "cpu")
        self._lanes, self._columns = rung(this_machine()).lanes, tiles.columns(rung(this_machine()))
        self._layers = [self._layer(model, f"layer.{i}") for i in range(self.shape.layers)]
        steps: Mapping[str, Any] = model.steps
        tables = (np.array(model.tensors[name]) for name in ("word.table", "word.multiplier", "position.table"))
        roundings = steps["word.embedding"].shift, int(steps["embedding.layernorm"].mean_rounding)
        self._embed = (
            *tables,
            model.tensors["type.table"][0].copy(),
            self._about(steps["embedding.requantize"], self.shape.hidden),
            np.array(roundings, np.int64),
        )
        self._pool = int(steps["pooled.mean"].shift), int(steps["pooled.mean"].rounding)

    # -- weights ---------------------------------------------------------------------------------------

    def _layer(self, model: IntegerModel, layer: str) -> _Layer:
        def step(name: str) -> Any:
            return model.steps[f"{layer}.{name}"]

        scores, gelu, by = step("scores.requantize"), step("gelu.activation"), step("gelu.requantize")
        multiplier, shift, zero_point = (int(np.ravel(a)[0]) for a in (by.multiplier, by.shift, by.zero_point))
        shift = shift if multiplier else 32
        roundings = [int(step(f"{name}.layernorm").mean_rounding) for name in ("attention_norm", "output")]
        return _Layer(
            self._map(model, layer, "query", "key", "value"),
            (
                np.array([wide.lift(scores.shift), scores.shift, wide.lowered(0, scores.shift)], np.int64),
                softmax.numbers(step("probabilities.softmax")),
                self._of_heads(step("context.requantize")),
            ),
            (
                *self._map(model, layer, "attention"),
                self._about(step("attention_norm.requantize"), self.shape.hidden),
                *self._map(model, layer, "up"),
                np.array([gelu.b, gelu.c, gelu.one, multiplier], np.int32),
                np.array([wide.lift(shift), shift, wide.lowered(zero_point, shift)], np.int64),
                *self._map(model, layer, "down"),
                self._about(step("output.requantize"), self.shape.hidden),
                np.array(roundings, np.int64),
            ),
        )

    def _map(self, model: IntegerModel, layer: str, *names: str) -> _Map:
        """One map of several parts."""
        steps: Mapping[str, Any] = model.steps
        shifts = [int(steps[f"{layer}.{name}.requantize"].shift) for name in names]
        parts = {
            part: [model.tensors[f"{layer}.{name}.{part}"] for name in names] for part in ("weight", "column", "bias")
        }
        weight = blocks.weight(np.concatenate(parts["weight"]))
        bias = [wide.lowered(b, shift) for b, shift in zip(parts["bias"], shifts, strict=True)]
        columns = np.array([np.concatenate(parts["column"]).astype(np.int32), np.concatenate(bias)])
        numbers = [weight.kind, *(int(each) for shift in shifts for each in (wide.lift(shift), shift))]
        return _Map(weight.arrays, columns, np.array(numbers, np.int64))

    def _about(self, p: Any, n: int) -> Array:
        each = (np.broadcast_to(np.ravel(a), n) for a in (p.multiplier, p.shift, p.zero_point))
        made: Array = wide.about(self._lanes, *each)
        return made

    def _of_heads(self, p: Any) -> Array:
        """A row a head, filled up to whole panels."""
        shape, rows = self.shape, []
        padded = -(-shape.head // self._columns) * self._columns - shape.head
        parts = [np.broadcast_to(np.ravel(a), shape.hidden) for a in (p.multiplier, p.shift, p.zero_point)]
        for head in range(shape.heads):
            own = [np.pad(a[head * shape.head : (head + 1) * shape.head], (0, padded)) for a in parts]
            rows.append(wide.about(self._lanes, *own).reshape(-1))
        return np.array(rows)

    # -- sentences -------------------------------------------------------------------------------------

    def run(self, ids: Array, lengths: Array, trace: Trace | None = None) -> Array:
        if trace is not None or not self._plain(ids, lengths):
            return super().run(ids, lengths, trace)
        tokens, lengths = ids.shape[1], np.array(lengths)
        seen, begins = np.arange(tokens) < lengths[:, None], np.cumsum(lengths) - lengths
        places = np.broadcast_to(np.arange(tokens, dtype=np.int32), ids.shape)
        x = np.empty((int(lengths.sum()), self.shape.hidden), np.int16)
        embed = _part(layers.embedded_rows, ids[seen], places[seen], *self._embed, x)
        shared_out(embed, len(x), x.size)
        if not self._through(x, begins, lengths):
            return super().run(ids, lengths)  # an int16 of -2**15, which the general way refuses
        made = np.empty((len(ids), self.shape.hidden), np.int32)
        shared_out(_part(layers.pooled_rows, x, begins, lengths, *self._pool, made), len(made), x.size)
        return made

    def _plain(self, ids: Any, lengths: Any) -> bool:
        """Whether both are what the general way takes without a word."""
        arrays = isinstance(ids, np.ndarray) and isinstance(lengths, np.ndarray)
        if not arrays or not (ids.dtype == lengths.dtype == np.int32 and lengths.shape == ids.shape[:1] and ids.size):
            return False
        known = ids.min() >= 0 and ids.max() < self.shape.vocabulary and ids.shape[1] <= self.shape.tokens
        return bool(known and lengths.min() >= 1 and lengths.max() <= ids.shape[1])

    def _through(self, x: Array, begins: Array, lengths: Array) -> bool:
        """All layers, in place; whether every row could be quantized."""
        shape, (rows, n) = self.shape, x.shape
        room = rows + heads.BEYOND
        q, k, v = (np.zeros((room, n), np.int8) for _ in range(3))
        of_q, of_k = (np.zeros((shape.heads, room), np.int32) for _ in range(2))
        context, refused = np.empty((rows, n), np.int16), np.zeros(1, np.int32)
        tasks, parts = len(lengths) * shape.heads, -(-rows // layers.ROWS)
        scores = int((lengths.astype(np.int64) ** 2).sum())
        for layer in self._layers:
            weight, columns, numbers = layer.projected
            project = _part(layers.projected_rows, x, weight, columns, numbers, q, of_q, k, of_k, v, refused)
            attend = _part(heads.attended_heads, q, of_q, k, of_k, v, begins, lengths, *layer.attended, context)
            feed = _part(layers.fed_rows, context, x, *layer.fed, refused)
            shared_out(project, parts, 3 * x.size * n)
            shared_out(attend, tasks, scores * n)
            shared_out(feed, parts, x.size * (n + 2 * shape.inner))
        return not refused[0]


def _part(kernel: Any, *given: Any) -> Any:
    return lambda first, last: kernel(*given, first, last)


def opened(model: IntegerModel, backend: str = "cpu") -> IntegerEncoder:
    """The model, by fused kernels where they serve it: the same integers in either case.

    Raises ValueError where ``model`` is not whole or ``backend`` is unknown.
    """
    return FusedEncoder(model) if serves(model, backend) else IntegerEncoder(model, backend)
