"""Logistic function of a quantized tensor by a float32 quotient of polynomials: ONNX Runtime QLinearSigmoid.

    v = f32(x_scale * (x - x_zero_point)), held in [-18, 18];   s = f32(v * v)
    above = f32(v * fma chain of ALPHA in s);   below = fma chain of BETA in s
    y = max(f32(f32(above / below) + 0.5), 0);   q = saturate(rint(f32(y / scale)) + zero_point)

fma rounds once; a chain starts at its highest coefficient. As the x86 code with FMA computes it
(ONNX Runtime's SSE2 code rounds each product). ONNX Runtime fills a table of 256 results so.

Differs from ``logistic_gemmlowp`` and ``logistic_s16``: float32, and the approximation, which is
Eigen's. Kernels compute the IEEE steps in integers.
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
from intsim.scalar.ieee import add_signed32, divide32, fused_multiply_add32, multiply32, pack32, unpack32
from intsim.spec import ieee

# microsoft/onnxruntime onnxruntime/core/mlas/lib/logistic.cpp: the highest power first
ALPHA = (4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03, 2.48287947061529e-01)
BETA = (
    6.10247389755681e-13,
    5.76102136993427e-09,
    6.29106785017040e-06,
    1.70198817374094e-03,
    1.16817656904453e-01,
    9.93151921023180e-01,
)
FARTHEST = 18.0


def _bits(numbers: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(v) for v in np.array(numbers, np.float32).view(np.int32))


ALPHA_BITS, BETA_BITS = _bits(ALPHA), _bits(BETA)


@dataclass(frozen=True, slots=True, eq=False)
class Params(ScaledParams):
    x_scale_bits: int = integer(LEAST, MOST)
    scale_bits: int = integer(LEAST, MOST)
    x_zero_point: int = integer(-128, 255, inside="x", default=0)
    zero_point: int = integer(-128, 255, inside="dtype", default=0)
    x: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, role="result")


def _polynomial(s: Any, coefficients: tuple[float, ...]) -> Any:
    total = np.float32(coefficients[0])
    for c in coefficients[1:]:
        total = ieee.fused_multiply_add32(total, s, np.float32(c))
    return total


def spec(x: Any, p: Params) -> Any:
    v = np.clip(real(x, p), np.float32(-FARTHEST), np.float32(FARTHEST))
    s = v * v
    y = v * _polynomial(s, ALPHA) / _polynomial(s, BETA) + np.float32(0.5)
    return quantized(np.maximum(y, np.float32(0)), p)


@portable
def _chain(sm: Int, se: Int, bits: tuple[int, ...]) -> tuple[Int, Int]:
    m, e = unpack32(bits[0])
    for i in range(1, len(bits)):
        cm, ce = unpack32(bits[i])
        m, e = fused_multiply_add32(m, e, sm, se, cm, ce)
    return m, e


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    m, e = load(np.int64(x.x[i, j]), p)
    sign = -1 if m < 0 else 1
    m, e = unpack32(min(pack32(abs(m), e), 0x4190_0000))  # 18; floats of one sign are ordered as their bits
    sm, se = multiply32(m, e, m, e)
    am, ae = _chain(sm, se, ALPHA_BITS)
    am, ae = multiply32(am, ae, m, e)
    bm, be = _chain(sm, se, BETA_BITS)
    am, ae = unpack32(pack32(am, ae))
    bm, be = unpack32(pack32(bm, be))
    m, e = divide32(am, ae, bm, be)
    m, e = add_signed32(sign * m, e, 1, -1)
    return store(max(m, 0), e, p)


def examples() -> dict[str, Any]:
    every = np.arange(-128, 128).astype(np.int8)[None]
    unsigned: dict[str, Any] = {"x": uint8, "dtype": uint8}
    return {
        "the usual result: 1/256 from -128": ((every,), Params.from_scales(1 / 16, 1 / 256, zero_point=-128)),
        "unsigned, zero points": (
            (every.view(np.uint8),),
            Params.from_scales(0.05, 1 / 255, x_zero_point=131, zero_point=3, **unsigned),
        ),
        "coarse: a tie at v = 0": ((every,), Params.from_scales(0.3, 1.0, zero_point=1)),
        "beyond 18 on both sides": ((every,), Params.from_scales(0.5, 1 / 256, zero_point=-128)),
        "the farthest scales": ((every[:, ::51],), Params(MOST, LEAST)),
        "fine results: all bits of the quotient": ((every,), Params.from_scales(2.0**-12, 2.0**-24, zero_point=-128)),
    }


OP = register(
    Op(
        name="activation.logistic_float32_rational",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/core/mlas/lib/x86_64/LogisticKernelFma3.S, "
        "onnxruntime/contrib_ops/cpu/quantization/qlinear_activations.cc",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)
