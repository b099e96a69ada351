"""The accumulator of a matrix product to float32, with two scales and a bias: ONNX Runtime's float outputs.

    x[i, j] = f32(f32(f32(acc[i, j]) * f32(a_scale[i] * b_scale[j])) + bias[j])

The scales are multiplied first, f32(acc) rounds an accumulator above 2**24, and nothing is fused. Where
the product of the scales is infinite, the largest float32 stands for it (0 times infinity is no number).

Differs from ``affine``: the scale is a product, and a bias follows. Kernels compute the IEEE steps in
integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import float32, int32
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base
from intsim.registry import register
from intsim.scalar.ieee import add_signed32, multiply32, pack32, round32, sign_of, unpack32, with_sign
from intsim.spec import ieee


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    pass


def spec(acc: Any, a_scale: Any, b_scale: Any, bias: Any, p: Params) -> Any:
    with np.errstate(over="ignore", under="ignore"):
        # An infinite scale times 0 would be a NaN; held finite, it gives 0.
        largest = np.finfo(np.float32).max
        scale = np.clip(a_scale[:, None] * b_scale, -largest, largest)
        return ieee.float32(acc) * scale + bias


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    acc, bias = np.int64(x.acc[i, j]), np.int64(x.bias[j])
    a_scale = np.int64(x.a_scale[i])
    am, ae = unpack32(a_scale)
    bm, be = unpack32(np.int64(x.b_scale[j]))
    sm, se = multiply32(am, ae, bm, be)
    sm, se = unpack32(min(pack32(sm, se), 0x7F7F_FFFF))
    am, ae = round32(abs(acc), 0)
    m, e = multiply32(am, ae, sm, se)
    m, e = unpack32(pack32(m, e))
    sign = sign_of(acc) * sign_of(a_scale)
    bm, be = unpack32(bias)
    if m == 0 and bm == 0:
        return with_sign(0, max(sign, sign_of(bias)))
    m, e = add_signed32(sign * m, e, sign_of(bias) * bm, be)
    return with_sign(pack32(abs(m), e), m)


def examples() -> dict[str, Any]:
    acc = np.array([[-(2**31), -1, 0, 1, 2**24 + 1, 2**31 - 1]], np.int32)
    tenth, ones = np.array([0.1], np.float32), np.ones(6, np.float32)
    bias = np.array([0.1, -0.0, -0.0, 1e8, -(2.0**24), 3e38], np.float32)
    tiny = np.full(6, 1e-30, np.float32)
    return {
        "no bias": ((acc, tenth, ones * np.float32(0.3)), Params()),
        "a bias; accumulators that float32 rounds": ((acc, tenth[:1] * 0 + 1, ones, bias), Params()),
        "scales whose product is 0, and negative zeros": (
            (acc, np.array([1e-30], np.float32), tiny, -0 * bias),
            Params(),
        ),
        "subnormal products": ((acc, np.array([1e-15], np.float32), tiny), Params()),
        "infinite results, and a scale that is held finite": (
            (acc, np.array([1e30], np.float32), ones * 3e38),
            Params(),
        ),
        "sums that cancel": ((acc, tenth * 0 + 1, ones, -acc[0].astype(np.float32)), Params()),
    }


OP = register(
    Op(
        name="dequantize.product",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/core/mlas/lib/qpostprocessor.cpp, "
        "onnxruntime/contrib_ops/cpu/quantization/dynamic_quantize_matmul.cc",
        inputs=(
            Port("acc", "m n", int32),
            Port("a_scale", "m", float32),
            Port("b_scale", "n", float32, numbers="positive"),
            Port("bias", "n", float32, fill=0, numbers="finite"),
        ),
        outputs=(Port("x", "m n", float32),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)
