"""Leaky ReLU of a quantized tensor in float32: ONNX Runtime QLinearLeakyRelu.

    v = f32(x_scale * (x - x_zero_point))
    y = v where v >= 0, else f32(alpha * v)
    q = saturate(rint(f32(y / scale)) + zero_point)

Ties to even, a true division, the zero point after the rounding. ONNX Runtime fills a table of 256
results so. Kernels compute the IEEE steps in integers.

Differs from ``relu``: scales of its own, and a slope below the zero point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, uint8
from intsim.op import Elementwise, Op, Port
from intsim.ops.activation._float32 import LEAST, MOST, ScaledParams, load, quantized, real, store
from intsim.params import int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import multiply32, unpack32
from intsim.spec import ieee


@dataclass(frozen=True, slots=True, eq=False)
class Params(ScaledParams):
    x_scale_bits: int = integer(LEAST, MOST)
    scale_bits: int = integer(LEAST, MOST)
    alpha_bits: int = integer(LEAST, 0x4980_0000, default=0x3C23_D70A)  # 2**-63 to 2**20; ONNX's default is 0.01
    x_zero_point: int = integer(-128, 255, inside="x", default=0)
    zero_point: int = integer(-128, 255, inside="dtype", default=0)
    x: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, role="result")


def spec(x: Any, p: Params) -> Any:
    v = real(x, p)
    return quantized(np.where(v >= 0, v, ieee.from_bits32(p.alpha_bits) * v), p)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    m, e = load(np.int64(x.x[i, j]), p)
    if m < 0:
        am, ae = unpack32(p.alpha_bits)
        m, e = multiply32(-m, e, am, ae)
        m = -m
    return store(m, e, p)


def examples() -> dict[str, Any]:
    every = np.arange(-128, 128).astype(np.int8)[None]
    quarter = int(np.float32(0.25).view(np.int32))
    return {
        "ties on both sides, an odd zero point": (
            (every,),
            Params.from_scales(0.5, 1.0, alpha_bits=quarter, zero_point=-5),
        ),
        "unsigned, zero points": (
            (every.view(np.uint8),),
            Params.from_scales(0.031, 0.017, x_zero_point=131, zero_point=77, x=uint8, dtype=uint8),
        ),
        "saturates": ((every,), Params.from_scales(1.7, 0.01)),
        "the farthest scales": ((every[:, ::51],), Params(MOST, LEAST, 0x4980_0000)),
    }


OP = register(
    Op(
        name="activation.leaky_relu_float32",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/contrib_ops/cpu/quantization/qlinear_activations.cc",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)
