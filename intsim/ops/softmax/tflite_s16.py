"""Softmax of 16-bit inputs by two tables of 513 entries: TFLite, tflite-micro and CMSIS-NN.

    e = lookup(exp_table, saturate16(G2(q - max q, multiplier, shift) + 32767)),  total = sum e
    h = 32 - bit_length(total);  w = (total << (h - 1)) / 2**14, ties to positive: 2**16 to 2**17
    r = lookup(inverse_table, saturate16(w - 98304))
    probability = saturate((e * r) / 2**(31 - h)), ties to positive, with scale 2**-15

G2 is gemmlowp's double rounding, or a single rounding with ties to positive: ``scaling``. multiplier /
2**shift takes one input step to the grid of exp_table, 10 / 65535. ``lookup`` draws straight lines
between the entries: 2**index_bits + 1 of them, at equal distances over int16 (index_bits is 9). The
tables are inputs: tflite-micro makes them in float32, LiteRT in float64, and two entries differ
(``tables``).

Differs from ``gemmlowp``: tables instead of the 31-bit exponential and Newton's reciprocal, and no
input is left out, however far below the largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, Scaling, int16, int32, unlimited
from intsim.op import Op, Port, Rowwise, Size
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.fixed_point import scaled
from intsim.scalar.functions import bit_length
from intsim.scalar.rounding import saturate, shift_right
from intsim.scalar.tflite import lookup
from intsim.spec import fixed_point, functions, rounding, tflite

MOST = 2**16  # every term is below 2**15: the total is an int32


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: int = integer(0, 2**31 - 1)
    shift: int = integer(16, 62)  # below 31 a left shift before the product: 17 bits and 15 are an int32's
    index_bits: int = integer(1, 9, default=9)  # the tables have 2**index_bits + 1 entries; TFLite's 513
    dtype: IntType = int_type(int16, unlimited, role="result")
    scaling: Scaling = rule(Scaling, Scaling.DOUBLE_ROUNDING)

    @classmethod
    def from_scale(cls, scale: float, beta: float = 1.0, *, single: bool = False, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * q``; scale, beta: positive floats (float32).

        single: whether scale * beta is a float32 product (LiteRT) or float64's (tflite-micro).
        """
        step = np.float32(scale) * np.float32(beta) if single else float(np.float32(scale)) * float(np.float32(beta))
        return cls(*tflite.quantize_multiplier(float(step) / (10.0 / 65535.0)), **fields)


def tables(precision: type[np.floating[Any]] = np.float32) -> tuple[Any, Any]:
    """(exp_table, inverse_table), int16: exp(x) on [-10, 0] and 1 / (1 + x) on [0, 1], the result's unit 2**-15.

    precision: numpy.float32 as tflite-micro computes them, numpy.float64 as LiteRT.
    """
    f = precision
    return (
        _table(lambda x: f(math.exp(x)), f(-10), f(0), f),
        _table(lambda x: f(f(1) / f(f(1) + x)), f(0), f(1), f),
    )


def _table(function: Callable[[Any], Any], low: Any, high: Any, f: Any) -> Any:
    """513 entries, each lowered by half of what the middle of its stretch would miss by."""

    def away(x: Any) -> Any:
        return f(math.copysign(math.floor(abs(float(x)) + 0.5), x))

    step, factor = f(f(high - low) / f(512)), f(2**15)
    made = []
    for i in range(512):
        start = f(low + f(f(i) * step))
        value = away(f(function(start) * factor))
        between = away(f(f(f(function(f(low + f(f(i + 1) * step))) * factor) + value) / f(2)))
        middle = away(f(function(f(start + f(step / f(2)))) * factor))
        made.append(value - away(f(f(between - middle) / f(2))))
    made.append(away(f(function(high) * factor)))
    return np.clip(made, int16.qmin, int16.qmax).astype(np.int16)


def spec(q: Any, exp_table: Any, inverse_table: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    d = np.where(seen, q - np.where(seen, q, int16.qmin).max(axis=-1, keepdims=True), 0)
    at = rounding.saturate(fixed_point.scaled(d, p.multiplier, p.shift, p.scaling) + int16.qmax, int16)
    e = np.where(seen, tflite.lookup(at, exp_table, p.index_bits), 0)
    total = e.sum(axis=-1, keepdims=True)
    headroom = 32 - functions.bit_length(total)
    w = rounding.shift_right(total << (headroom - 1), 14, Rounding.TIES_TO_POSITIVE)
    r = tflite.lookup(rounding.saturate(w - 98304, int16), inverse_table, p.index_bits)
    return rounding.saturate(rounding.shift_right(e * r, 31 - headroom, Rounding.TIES_TO_POSITIVE), p.dtype)


@portable
def _exp(d: Int, table: Any, p: Any) -> Int:
    at = scaled(d, p.multiplier, p.shift, p.scaling) + 32767  # d <= 0: only the lower end can be passed
    return lookup(max(at, -32768), table, p.index_bits)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total = np.int64(0)
    for j in range(stop):
        total += _exp(np.int64(q[j]) - top, x.exp_table, p)
    # Entries are 1 to 32767 and so is e; MOST of them stay below 2**31: headroom is 1 to 31.
    headroom = 32 - bit_length(total)
    w = ((total << (headroom - 1)) + 2**13) >> 14
    r = lookup(min(max(w - 98304, -32768), 32767), x.inverse_table, p.index_bits)
    for j in range(q.shape[0]):
        y[j] = 0
        if j < stop:
            e = _exp(np.int64(q[j]) - top, x.exp_table, p)
            y[j] = saturate(shift_right(e * r, 31 - headroom, Rounding.TIES_TO_POSITIVE), p.dtype)


def examples() -> dict[str, Any]:
    q = np.array([[-32768, 32767, 32766, 0, 100], [5, 5, 5, 5, 5], [-32768, -32768, 32767, -100, -1]], np.int16)
    stop = np.array([1, 3, 5], np.int32)
    equal, ends = np.zeros((16, 16), np.int16), np.arange(1, 17, dtype=np.int32)
    ramp = np.arange(-32768, 32768, 1024, dtype=np.int16).reshape(2, -1)
    small = np.array([[100, 96], [100, 88], [100, 80], [96, 100]], np.int16)
    micro, lite = tables(), tables(np.float64)
    flat, falling = np.zeros((1, 9), np.int16), np.array([32767, 1, 1], np.int16)
    three: dict[str, Any] = {"multiplier": 2**30, "shift": 32, "index_bits": 1}
    ones, largest = np.ones(513, np.int16), np.full(513, 32767, np.int16)
    return {
        "totals from 1 to 16: every stretch of the reciprocal": ((equal, *micro, ends), Params.from_scale(0.001)),
        "a ramp": ((ramp, *micro), Params.from_scale(1e-4)),
        "a ramp, the tables of float64": ((ramp, *lite), Params.from_scale(1e-4)),
        "the grid of the table itself": ((q, *micro), Params.from_scale(10 / 65535)),
        "ties of the first step": ((small, *micro), Params(2**30, 33)),
        "ties of the first step, rounded once": (
            (small, *micro),
            Params(2**30, 33, scaling=Scaling.SINGLE_ROUNDING),
        ),
        "a scale at which most elements lie below the table": ((q, *micro), Params.from_scale(0.05)),
        "masked": ((q, *micro, stop), Params.from_scale(2e-4)),
        "a total of 1: no shift at the end, which saturates": ((q, ones, largest, stop), Params.from_scale(1e-4)),
        "w is a tie: equal terms of 26305": ((flat[:, :5], np.full(3, 26305, np.int16), falling), Params(**three)),
        "e r is a tie: equal terms of 24832": ((flat[:, :6], np.full(3, 24832, np.int16), falling), Params(**three)),
        "w rounds up beyond the table: equal terms of 29127": (
            (flat, np.full(3, 29127, np.int16), np.array([1, 1, 32003], np.int16)),
            Params(**three),
        ),
        "tables of three entries": (
            (q, np.array([1, 200, 32767], np.int16), np.array([32767, 21845, 16384], np.int16)),
            Params(2**30, 32, index_bits=1),
        ),
        "one element with the largest tables": ((equal[:, :1].copy(), largest, largest), Params.from_scale(1e-4)),
    }


def _entries(p: Any, size: Mapping[str, int]) -> int:
    return (1 << int(p.index_bits)) + 1


OP = register(
    Op(
        name="softmax.tflite_s16",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/softmax.h (SoftmaxInt16), "
        "tflite/kernels/internal/common.h; tensorflow/tflite-micro tensorflow/lite/micro/kernels/softmax_common.cc",
        inputs=(
            Port("q", "m n", int16),
            Port("exp_table", "t", int16, low=1),
            Port("inverse_table", "t", int16, low=1),
            Port("stop", "m", int32, fill="n", upto="n"),
        ),
        outputs=(Port("probability", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, MOST), "t": Size(derived=_entries, says="2**index_bits + 1")},
        examples=examples,
    )
)
