"""Dequantize to float32 by two products: LiteRT's optimised DEQUANTIZE of int8.

    x = f32(f32(f32(q) * scale) + f32(-zero_point * scale))

One scale for the whole tensor, a float32 given by its bits.

Differs from ``affine``, which subtracts the zero point exactly: q = zero_point gives 0 here too, but
other results differ in their last bits. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, float32, int8, uint8
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import add_signed32, multiply32, pack32, round32, unpack32, with_sign
from intsim.spec import ieee

SMALLEST, LARGEST = 2.0**-126, 2.0**100  # of the scale: no result is infinite


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    scale_bits: int = integer(0x0080_0000, 0x7180_0000)  # SMALLEST to LARGEST
    zero_point: int = integer(-128, 255, default=0)
    q: IntType = int_type(int8, uint8, role="operand")

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for a float32 scale in [2**-126, 2**100]; raises ValueError for another."""
        if not SMALLEST <= np.float32(scale) <= LARGEST:
            raise ValueError(f"dequantize.scaled_zero_point: a scale is in [2**-126, 2**100], got {scale}")
        return cls(int(np.float32(scale).view(np.int32)), **fields)


def spec(q: Any, p: Params) -> Any:
    scale = ieee.from_bits32(p.scale_bits)
    return ieee.float32(q) * scale + ieee.float32(-p.zero_point) * scale


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    q = np.int64(x.q[i, j])
    sm, se = unpack32(p.scale_bits)
    am, ae = round32(abs(q), 0)
    bm, be = round32(abs(p.zero_point), 0)
    am, ae = multiply32(am, ae, sm, se)
    bm, be = multiply32(bm, be, sm, se)
    m, e = add_signed32(-am if q < 0 else am, ae, bm if p.zero_point < 0 else -bm, be)
    return with_sign(pack32(abs(m), e), m)


def examples() -> dict[str, Any]:
    q = np.array([[-128, -1, 0, 1, 127, 3, -5, 100, 99]], np.int8)
    return {
        "an odd zero point": ((q,), Params.from_scale(0.1, zero_point=-5)),
        "a zero point far from the values": ((q,), Params.from_scale(0.013, zero_point=100)),
        "the smallest scale": ((q,), Params.from_scale(SMALLEST, zero_point=3)),
        "the largest scale": ((q,), Params.from_scale(LARGEST, zero_point=-128)),
        "unsigned": ((q.view(np.uint8),), Params.from_scale(0.37, zero_point=128, q=uint8)),
    }


OP = register(
    Op(
        name="dequantize.scaled_zero_point",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/optimized/optimized_ops.h (Dequantize)",
        inputs=(Port("q", "m n", lambda p: p.q),),
        outputs=(Port("x", "m n", float32),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)
