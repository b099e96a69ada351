"""Softmax with float32 exponentials from a table: LiteRT's optimised kernel, and its default.

    e[j] = table[max q - q[j]], 1 where that is 0;  total = the float32 sum of e, columns ascending
    probability = saturate(away(f32(e * f32(1 / f32(total * 2**-bits)))) + qmin)

table[d] is expf(-d * f32(scale * beta)), given by its bits (``table``): 256 inputs, so that the kernel
holds no exponential. bits and qmin are those of the result, which has scale 2**-bits and zero point qmin.

Differs from ``float32_whole_levels`` in its reciprocal; from ``gemmlowp``, LiteRT's reference kernel, in a
few results in a million, by 1, and in that the order of the columns matters. Kernels compute the IEEE
steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32, uint8
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.softmax import LONGEST
from intsim.params import Params as Base, int_type
from intsim.registry import register
from intsim.scalar.ieee import divide32, multiply32, sum32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding

BITS = IntType(30, signed=False)  # the bits of float32 in [0, 2): no exponential of a negative number is above 1


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    q: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, role="result")


def table(scale: float, beta: float = 1.0) -> Any:
    """The bits of expf(-d * f32(scale * beta)) for d from 0 to 255; scale, beta: positive floats (float32).

    The argument is two float32 products; the exponential is that of float64, rounded once. The C
    library's expf gives the same bits wherever it is correctly rounded.
    """
    step = -np.float32(scale) * np.float32(beta)
    if not (np.isfinite(step) and step < 0):
        raise ValueError(f"softmax.float32_table: scale and beta are positive and finite, got {scale}, {beta}")
    with np.errstate(over="ignore", under="ignore"):
        arguments = step * np.arange(256, dtype=np.float32)
        made = np.exp(arguments.astype(np.float64)).astype(np.float32)
    return made.view(np.uint32)


def spec(q: Any, table: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    d = np.where(seen, np.where(seen, q, p.q.qmin).max(axis=-1, keepdims=True) - q, 0).astype(int)
    one, scale = np.float32(1), np.float32(2.0**-p.dtype.bits)
    e = np.where(d == 0, one, ieee.from_bits32(table)[d])
    total = np.zeros(q.shape[:-1], np.float32)
    for j in range(q.shape[-1]):
        total = np.where(seen[..., j], total + e[..., j], total)
    product = e * (one / (total * scale))[..., None]
    whole = rounding.saturate(ieee.to_integer(product, Rounding.TIES_TO_AWAY) + p.dtype.qmin, p.dtype)
    return np.where(seen, whole, p.dtype.qmin)


@portable
def _exp(d: Int, table: Any) -> tuple[Int, Int]:
    if d == 0:
        return 2**23, -23
    return unpack32(np.int64(table[d]))


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    m, e = np.int64(0), np.int64(0)
    for j in range(stop):
        am, ae = _exp(top - np.int64(q[j]), x.table)
        m, e = sum32(m, e, am, ae)
    rm, re = divide32(2**23, -23, m, e - p.dtype.bits)  # the total is 1 or more
    for j in range(q.shape[0]):
        y[j] = p.dtype.qmin
        if j < stop:
            am, ae = _exp(top - np.int64(q[j]), x.table)
            am, ae = multiply32(am, ae, rm, re)
            y[j] = saturate(to_integer(am, ae, Rounding.TIES_TO_AWAY) + p.dtype.qmin, p.dtype)


def examples() -> dict[str, Any]:
    q = np.array([[-128, 127, 126, 0, 100], [5, 5, 5, 5, 5], [-128, -128, 127, -100, -1]], np.int8)
    stop = np.array([1, 3, 5], np.int32)
    ramp = np.tile(np.arange(-128, 128, 4, dtype=np.int8), (2, 1))
    equal, ends = np.zeros((16, 16), np.int8), np.arange(1, 17, dtype=np.int32)
    halves = np.zeros(256, np.uint32)
    halves[1:3] = np.array([129 / 256, 127 / 256], np.float32).view(np.uint32)
    quarter = np.full(256, 0x3E80_0000, np.uint32)
    return {
        "an ordinary scale": ((q, table(0.05)), Params()),
        "a ramp": ((ramp, table(0.011)), Params()),
        "exponentials that underflow": ((q, table(2.0)), Params()),
        "masked": ((q, table(0.3), stop), Params()),
        "64.5 and 63.5: ties away from zero": ((np.array([[2, 1, 0]], np.int8), halves), Params()),
        "totals from 1 to 16": ((equal, table(0.1), ends), Params()),
        "a total that float32 rounds": ((ramp, quarter - np.arange(256, dtype=np.uint32)), Params(dtype=int16)),
        "unsigned": ((q.view(np.uint8), table(0.0713)), Params(q=uint8, dtype=uint8)),
    }


OP = register(
    Op(
        name="softmax.float32_table",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/optimized/optimized_ops.h (Softmax of int8, "
        "PopulateSoftmaxLookupTable)",
        inputs=(
            Port("q", "m n", lambda p: p.q),
            Port("table", "256", BITS),
            Port("stop", "m", int32, fill="n", upto="n"),
        ),
        outputs=(Port("probability", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
    )
)
