"""Product of two quantized tensors in float32, the zero point added before the rounding: ONNX Runtime QLinearMul.

    q = saturate(rint(f32(f32(f32((a - a_zero_point) * (b - b_zero_point)) * multiplier) + zero_point)))

Two float32 roundings, not a fused multiply-add, and then the one to an integer, ties to even. So an
odd zero point moves a tie to the other side. multiplier is f32(f32(a_scale * b_scale) / scale), by its
bits. As compiled for x86; ONNX Runtime's portable C++ code multiplies each operand by its scale first.

Differs from ``rescaled``: float32, and one rounding to an integer after the zero point. Kernels
compute the IEEE steps in integers.
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
from intsim.scalar.ieee import add_signed32, multiply32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding

# Above, a product of 255 * 255 leaves int32, and x86 converts it to the lowest integer.
LEAST, MOST = 0x2000_0000, 0x4680_0000  # float32 bits of 2**-63 and 2**14


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier_bits: int = integer(LEAST, MOST)
    a_zero_point: int = integer(-128, 255, inside="a", default=0)
    b_zero_point: int = integer(-128, 255, inside="b", default=0)
    zero_point: int = integer(-128, 255, inside="dtype", default=0)
    a: IntType = int_type(int8, uint8, role="operand")
    b: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, role="result")

    @classmethod
    def from_scales(cls, a: float, b: float, result: float, /, **fields: Any) -> Params:
        """The parameters for three real scales (float32, positive); the multiplier is in [2**-63, 2**14]."""
        with np.errstate(all="ignore"):  # the limit refuses what overflows
            multiplier = np.float32(a) * np.float32(b) / np.float32(result)
        return cls(int(multiplier.view(np.int32)), **fields)


def spec(a: Any, b: Any, p: Params) -> Any:
    product = ieee.float32((a - p.a_zero_point) * (b - p.b_zero_point)) * ieee.from_bits32(p.multiplier_bits)
    total = product + ieee.float32(p.zero_point)
    return rounding.saturate(ieee.to_integer(total, Rounding.TIES_TO_EVEN), p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    whole = (np.int64(x.a[i, j]) - p.a_zero_point) * (np.int64(x.b[i, j]) - p.b_zero_point)  # 16 bits
    bm, be = unpack32(p.multiplier_bits)
    m, e = multiply32(abs(whole), 0, bm, be)
    m, e = add_signed32(-m if whole < 0 else m, e, p.zero_point, 0)
    return saturate(to_integer(m, e, Rounding.TIES_TO_EVEN), p.dtype)


def examples() -> dict[str, Any]:
    a = np.array([[1, 3, 5, -1, -3, 7, 127, -128]], np.int8)
    b = np.array([[8, 8, 8, 8, 8, 8, 127, 127]], np.int8)
    odd: dict[str, Any] = {"a_zero_point": 5, "b_zero_point": 131, "a": uint8, "b": uint8, "dtype": uint8}
    return {
        "ties, an even zero point": ((a, b), Params.from_scales(0.25, 0.25, 1.0, zero_point=4)),
        "ties, an odd zero point": ((a, b), Params.from_scales(0.25, 0.25, 1.0, zero_point=-5)),
        "unsigned, all zero points": (
            (a.view(np.uint8), b.view(np.uint8)),
            Params.from_scales(0.02, 0.03, 0.7, zero_point=127, **odd),
        ),
        "a product just below a tie: the sum rounds onto it": (
            (np.array([[1]], np.int8), np.array([[1]], np.int8)),
            Params(0x3EFF_FFFF, zero_point=127),
        ),
        "the largest multiplier, the smallest": (
            (a[:, -2:], b[:, -2:]),
            Params(MOST, -128, -128, zero_point=-1),
        ),
    }


OP = register(
    Op(
        name="mul.float32_zero_point_first",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/core/mlas/lib/qlmul.cpp",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)
