"""Dynamic quantization of float32 whose scale may be 0: DynamicQuantizeLinear as two systems compute it.

    low, high  = min(0, min x), max(0, max x)
    scale      = f32(f32(high - low) / qmax), or empty_scale where high = low
    zero_point = saturate(round(f32(-low / scale)))                 scale 0: qmax
    q          = saturate(round(f32(x / scale)) + zero_point)       scale 0: qmax where x > 0, else 0

empty_scale, by its bits: ONNX Runtime's is 1, the ONNX reference evaluator's f32(1 / 255), because
it divides the 1 too. A range that is not 0 but below 2**-142 gives a scale of 0; what a division by it
gives was measured to be the same in both.

Differs from ``dynamic_asymmetric``, which takes the scale 1 in both cases, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, uint4, uint8
from intsim.op import Op, Port, Rowwise, Size
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import divide32, pack32, sign_of, sum32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding

ONE = 0x3F80_0000
ONE_OVER_255 = int((np.float32(1) / np.float32(255)).view(np.int32))


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    empty_scale_bits: int = integer(0x0080_0000, 0x7F7F_FFFF, default=ONE)
    dtype: IntType = int_type(uint8, uint4, role="result")


def spec(x: Any, p: Params) -> Any:
    with np.errstate(under="ignore", over="ignore", divide="ignore", invalid="ignore"):
        low = np.minimum(np.min(x, axis=-1, keepdims=True), np.float32(0))
        high = np.maximum(np.max(x, axis=-1, keepdims=True), np.float32(0))
        scale = (high - low) / np.float32(p.dtype.qmax)
        scale = np.where(high == low, ieee.from_bits32(p.empty_scale_bits), scale)
        there = np.where(scale == 0, np.float32(1), scale)
        zero_point = rounding.saturate(ieee.to_integer(-low / there, Rounding.TIES_TO_EVEN), p.dtype)
        whole = ieee.to_integer(x / there, Rounding.TIES_TO_EVEN)
    q = rounding.saturate(whole + zero_point, p.dtype)
    none = scale == 0
    return (
        np.where(none, p.dtype.qmax * (x > 0), q),
        scale[:, 0],
        np.where(none, p.dtype.qmax, zero_point)[:, 0],
    )


@portable
def _quotient(bits: Int, sm: Int, se: Int) -> Int:
    am, ae = unpack32(bits)
    m, e = divide32(am, ae, sm, se)
    return to_integer(sign_of(bits) * m, e, Rounding.TIES_TO_EVEN)


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
    scale = np.int64(p.empty_scale_bits)
    if low > 0 or high > 0:
        lm, le = unpack32(low)
        hm, he = unpack32(high)
        rm, re = sum32(lm, le, hm, he)
        rm, re = unpack32(pack32(rm, re))  # brought to 24 bits; an infinite range gives an infinite scale
        qm, qe = unpack32(pack32(p.dtype.qmax, 0))
        sm, se = divide32(rm, re, qm, qe)
        scale = pack32(sm, se)
    zero_point = p.dtype.qmax
    if scale > 0:
        sm, se = unpack32(scale)
        zero_point = saturate(_quotient(low, sm, se), p.dtype)
        for j in range(x.shape[0]):
            q[j] = saturate(_quotient(np.int64(x[j]), sm, se) + zero_point, p.dtype)
    else:
        for j in range(x.shape[0]):
            q[j] = p.dtype.qmax if np.int64(x[j]) > 0 else 0
    out.scale[i] = scale
    out.zero_point[i] = zero_point


def examples() -> dict[str, Any]:
    ties = [[-1, 0.5, 254, 1.5, -0.5], [0.1, 0.2, 0.3, 0.7, 0.9], [-1, -2, -3, -4, -0.5]]
    nothing = np.array([[0, 0, -0.0]], np.float32)
    tiny = [[1e-45, -1e-45, 0], [1e-44, 0, 1e-45], [-1e-44, -0.0, -1e-45], [1.8e-43, 0, 9e-44]]
    tiny += [[-1e-45, -0.0, 0], [1e-45, 0, 0]]
    return {
        "ties; positive; negative": ((np.array(ties, np.float32),), Params()),
        "zero points that are ties: 0.5 and 2.5": (
            (np.array([[-0.5, 254.5, 0, 1, 3], [-2.5, 252.5, 0, 1, 3]], np.float32),),
            Params(),
        ),
        "an infinite range": ((np.array([[2e38, -2e38, 1, 0, 9]], np.float32),), Params()),
        "no range": ((nothing,), Params()),
        "no range, the reference evaluator": ((nothing,), Params(ONE_OVER_255)),
        "ranges so small that the scale is 0, and the smallest that is not": ((np.array(tiny, np.float32),), Params()),
    }


OP = register(
    Op(
        name="quantize.dynamic_asymmetric_unguarded",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/core/util/qmath.h; "
        "onnx/onnx onnx/reference/ops/op_dynamic_quantize_linear.py",
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
