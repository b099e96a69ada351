"""Addition of two quantized tensors in fused float32 steps: ONNX Runtime QLinearAdd on AVX2.

    fixed = f32(zero_point - fma(a_ratio, a_zero_point, f32(b_ratio * b_zero_point)))
    q     = saturate(rint(fma(a, a_ratio, fma(b, b_ratio, fixed))))

fma rounds once to float32; a_ratio is f32(a_scale / scale), b_ratio f32(b_scale / scale), by their
bits. b comes in before a, and the zero point before the rounding to an integer (ties to even). The
fma of ``fixed`` is the compiler's contraction of C++ in a file that is compiled with FMA.

Differs from ``rescaled``: float32, one rounding to an integer. ONNX Runtime's SSE2 code adds a first
and fuses nothing; its code for ARM is another again. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, uint8
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import sum32, fused_multiply_add32, multiply32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding

# Above, a sum can leave int32, and x86 converts it to the lowest integer.
LEAST, MOST = 0x2000_0000, 0x4980_0000  # float32 bits of 2**-63 and 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_ratio_bits: int = integer(LEAST, MOST)
    b_ratio_bits: int = integer(LEAST, MOST)
    a_zero_point: int = integer(-128, 255, inside="a", default=0)
    b_zero_point: int = integer(-128, 255, inside="b", default=0)
    zero_point: int = integer(-128, 255, inside="dtype", default=0)
    a: IntType = int_type(int8, uint8, role="operand")
    b: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, role="result")

    @classmethod
    def from_scales(cls, a: float, b: float, result: float, /, **fields: Any) -> Params:
        """The parameters for three real scales (float32, positive); the ratios are in [2**-63, 2**20]."""
        with np.errstate(all="ignore"):  # the limits refuse what overflows
            ratios = np.array([a, b], np.float32) / np.float32(result)
        a_bits, b_bits = ratios.view(np.int32)
        return cls(int(a_bits), int(b_bits), **fields)


def spec(a: Any, b: Any, p: Params) -> Any:
    a_ratio, b_ratio = ieee.from_bits32(p.a_ratio_bits), ieee.from_bits32(p.b_ratio_bits)
    zero_points = ieee.fused_multiply_add32(
        a_ratio, ieee.float32(p.a_zero_point), b_ratio * ieee.float32(p.b_zero_point)
    )
    fixed = ieee.float32(p.zero_point) - zero_points
    total = ieee.fused_multiply_add32(ieee.float32(b), b_ratio, fixed)
    total = ieee.fused_multiply_add32(ieee.float32(a), a_ratio, total)
    return rounding.saturate(ieee.to_integer(total, Rounding.TIES_TO_EVEN), p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    am, ae = unpack32(p.a_ratio_bits)
    bm, be = unpack32(p.b_ratio_bits)
    m, e = multiply32(abs(p.b_zero_point), 0, bm, be)
    m, e = fused_multiply_add32(am, ae, p.a_zero_point, 0, -m if p.b_zero_point < 0 else m, e)
    m, e = sum32(p.zero_point, 0, -m, e)
    m, e = fused_multiply_add32(np.int64(x.b[i, j]), 0, bm, be, m, e)
    m, e = fused_multiply_add32(np.int64(x.a[i, j]), 0, am, ae, m, e)
    return saturate(to_integer(m, e, Rounding.TIES_TO_EVEN), p.dtype)


def examples() -> dict[str, Any]:
    a = np.array([[-128, -1, 0, 1, 5, 127, 127, 3, 2, -2, 22, 26]], np.int8)
    b = np.array([[-128, 1, 0, 3, -6, 127, -128, -3, 0, 0, 0, 0]], np.int8)
    odd: dict[str, Any] = {"a_zero_point": 5, "b_zero_point": 131, "a": uint8, "b": uint8, "dtype": uint8}
    thirds = np.arange(-128, 128).astype(np.int8)[None]
    return {
        "powers of two: ties, an odd zero point": ((a, b), Params.from_scales(0.25, 0.5, 1.0, zero_point=-5)),
        "unsigned, all zero points": (
            (a.view(np.uint8), b.view(np.uint8)),
            Params.from_scales(0.1, 0.07, 0.13, zero_point=127, **odd),
        ),
        "sixths: what rounds onto a tie depends on the order and on the fusing": (
            (thirds, thirds[:, ::-1]),
            Params.from_scales(0.7 / 6, 3.5 / 6, 0.7, a_zero_point=7, b_zero_point=-3, zero_point=1),
        ),
        "ratios 2**83 apart": ((a, b), Params(MOST, LEAST, 3, -1)),
        "a sum that cancels": ((b, b), Params.from_scales(0.3, 0.3, 1.0, a_zero_point=3, b_zero_point=-3)),
    }


OP = register(
    Op(
        name="add.float32_fused",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/core/mlas/lib/intrinsics/avx2/qladd_avx2.cpp",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)
