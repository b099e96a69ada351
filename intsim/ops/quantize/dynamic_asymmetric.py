"""Dynamic quantization of float32 with a zero point, one scale a row: ONNX DynamicQuantizeLinear.

    low, high  = min(0, min x), max(0, max x)
    scale      = f32(f32(high - low) / qmax), or 1 where that is 0
    zero_point = saturate(round(f32(-low / scale)))
    q          = saturate(round(f32(x / scale)) + zero_point)

ONNX takes the whole tensor as one row. ONNX Runtime takes the scale 1 only where high = low, and
divides by 0 where a range below 2**-142 makes the scale underflow.

Differs from ``dynamic_symmetric``: the range need not be symmetric, and the result is unsigned.
Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, uint4, uint8
from intsim.op import Op, Port, Rowwise, Size
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.ieee import divide32, pack32, sign_of, sum32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    dtype: IntType = int_type(uint8, uint4, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, p: Params) -> Any:
    with np.errstate(under="ignore", over="ignore"):
        low = np.minimum(np.min(x, axis=-1, keepdims=True), np.float32(0))
        high = np.maximum(np.max(x, axis=-1, keepdims=True), np.float32(0))
        scale = (high - low) / np.float32(p.dtype.qmax)
        scale = np.where(scale == 0, np.float32(1), scale)
        zero_point = rounding.saturate(ieee.to_integer(-low / scale, p.rounding), p.dtype)
        whole = ieee.to_integer(x / scale, p.rounding)
    return rounding.saturate(whole + zero_point, p.dtype), scale[:, 0], zero_point[:, 0]


@portable
def _quotient(bits: Int, sm: Int, se: Int, rounding: Int) -> Int:
    am, ae = unpack32(bits)
    m, e = divide32(am, ae, sm, se)
    return to_integer(sign_of(bits) * m, e, rounding)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    x, q = x.x[i], out.q[i]
    low, high = np.int64(0), np.int64(0)  # magnitudes, as bits
    for j in range(x.shape[0]):
        bits = np.int64(x[j])
        if bits < 0:
            low = max(low, bits & (2**31 - 1))
        else:
            high = max(high, bits)
    lm, le = unpack32(low)
    hm, he = unpack32(high)
    rm, re = sum32(lm, le, hm, he)
    rm, re = unpack32(pack32(rm, re))  # brought to 24 bits; an infinite range gives an infinite scale
    qm, qe = unpack32(pack32(p.dtype.qmax, 0))
    sm, se = divide32(rm, re, qm, qe)
    scale = pack32(sm, se)
    if scale == 0:
        scale = pack32(1, 0)
    sm, se = unpack32(scale)
    zero_point = saturate(_quotient(low, sm, se, p.rounding), p.dtype)
    for j in range(x.shape[0]):
        q[j] = saturate(_quotient(np.int64(x[j]), sm, se, p.rounding) + zero_point, p.dtype)
    out.scale[i] = scale
    out.zero_point[i] = zero_point


def examples() -> dict[str, Any]:
    ties = [[-1, 0.5, 254, 1.5, -0.5], [0.1, 0.2, 0.3, 0.7, 0.9], [-1, -2, -3, -4, -0.5], [0, 0, 0, -0.0, 0]]
    return {
        "ties; positive; negative; zero": ((np.array(ties, np.float32),), Params()),
        "one subnormal unit more would be another scale": (
            (np.array([[-382 * 2.0**-149, 0, 0]], np.float32),),
            Params(),
        ),
        "an infinite range": ((np.array([[2e38, -2e38, 1, 0, 9]], np.float32),), Params()),
        "a range so small that the scale underflows": ((np.full((1, 5), 1e-45, np.float32),), Params()),
    }


OP = register(
    Op(
        name="quantize.dynamic_asymmetric",
        version=1,
        cites="ONNX DynamicQuantizeLinear-11; microsoft/onnxruntime core/util/qmath.h",
        inputs=(Port("x", "m n", float32, numbers="finite"),),
        outputs=(
            Port("q", "m n", lambda p: p.dtype),
            Port("scale", "m", float32),
            Port("zero_point", "m", lambda p: p.dtype),
        ),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
    )
)
